//! weftd as a ToR or spine: from a folder of its own, with filters that open transit.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::process::Command;

use anyhow::Result;
use ipnet::IpNet;
use serde_json::{Value, json};

use super::weft::Weft;
use super::{Family, Path, Router, RouterConfig, Software};
use crate::documents;
use crate::lab::Lab;
use crate::netns::Namespace;
use crate::process::{Process, SHORT, own_program, run};

/// A router run by weftd.
#[derive(Debug)]
pub struct WeftRouter {
    weft: Weft,
    config: RouterConfig,
}

impl WeftRouter {
    /// Writes its folder.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn new(lab: &Lab, namespace: &Namespace, config: RouterConfig) -> Result<Self> {
        let router = Self { weft: Weft::new(lab, namespace, &config.name)?, config };
        router.write()?;
        Ok(router)
    }

    /// The daemon.
    #[must_use]
    pub fn weft(&self) -> &Weft {
        &self.weft
    }

    fn write(&self) -> Result<()> {
        let config = &self.config;
        let own: Vec<IpNet> = config
            .addresses
            .iter()
            .map(|address| IpNet::from(*address))
            .chain(config.originate.iter().copied())
            .collect();
        let mut all = vec![
            // What a router announces beside its address are blocks: this weftd has no other way to originate.
            documents::node(
                &config.name,
                &[],
                &config.originate.iter().copied().collect::<Vec<_>>(),
                &config.addresses,
            ),
            documents::bgp_configuration(&json!({
                "asNumber": config.asn,
                "routerID": config.router_id,
                "nodeToNodeMeshEnabled": false,
                "holdTime": format!("{}s", config.hold_time),
                "gracefulRestart": {"enabled": config.graceful_restart},
            })),
            documents::transit_filter("transit", &own),
        ];
        all.extend(Family::BOTH.map(documents::pod_pool));
        if let Some(bfd) = config.bfd {
            let interval = format!("{}ms", bfd.interval);
            let spec = json!({"receiveInterval": interval, "transmitInterval": interval, "detectMultiplier": bfd.multiplier});
            all.push(documents::resource("BFDProfile", "lab", &spec));
        }
        for neighbor in &config.neighbors {
            let families: Vec<&str> = neighbor.families.iter().map(|family| family.unicast()).collect();
            let spec = json!({
                "peerIP": neighbor.address,
                "asNumber": neighbor.asn,
                "families": families,
                "filters": ["transit"],
                "addPath": config.add_path.then(|| json!({"receive": true, "send": "All"})),
                "bfdProfile": config.bfd.map(|_| "lab"),
                "ebgpMultihop": config.bfd.is_some_and(|bfd| bfd.multihop),
                "routeReflectorClient": config.reflects && neighbor.asn == config.asn,
            });
            all.push(documents::bgp_peer(&object_name(&neighbor.name, neighbor.address), &config.name, spec));
        }
        documents::write(&self.weft.manifests(), "router.yaml", &all)
    }
}

impl Router for WeftRouter {
    fn software(&self) -> Software {
        Software::Weft
    }

    fn version(&self) -> Result<String> {
        Ok(run(Command::new(own_program("weftd")?).arg("--version"), SHORT)?
            .success()?
            .stdout
            .trim()
            .to_owned())
    }

    fn name(&self) -> &str {
        &self.config.name
    }

    fn start(&mut self) -> Result<()> {
        self.weft.start()
    }

    fn daemon(&mut self) -> &mut Option<Process> {
        self.weft.process()
    }

    fn originate(&mut self, prefixes: &BTreeSet<IpNet>) -> Result<()> {
        self.config.originate.clone_from(prefixes);
        self.write()
    }

    fn ask(&self, question: &str) -> Result<String> {
        Ok(self.weft.weftctl(question)?.success()?.stdout)
    }

    fn established(&self, neighbor: IpAddr) -> Result<bool> {
        Ok(self.weft.peer(neighbor)?.state == "Established")
    }

    fn bfd_up(&self, neighbor: IpAddr) -> Result<bool> {
        Ok(self.weft.peer(neighbor)?.bfd.is_some_and(|bfd| bfd.state == "Up"))
    }

    fn paths(&self, prefix: IpNet) -> Result<Vec<Path>> {
        let Some(route) = self.weft.route(prefix)? else { return Ok(Vec::new()) };
        let learned = route.paths.into_iter().filter(|path| path.peer.is_some());
        let as_path =
            |path: &[Value]| path.iter().filter_map(|asn| u32::try_from(asn.as_u64()?).ok()).collect();
        Ok(learned
            .map(|path| Path {
                as_path: as_path(&path.as_path),
                next_hops: path.next_hops,
                originator: path.originator_id,
                cluster_list: path.cluster_list,
                communities: path.communities.iter().filter_map(|text| text.parse().ok()).collect(),
                med: path.med,
                local_pref: path.local_pref,
                only_to_customer: path.only_to_customer,
                best: path.best,
            })
            .collect())
    }
}

/// A name for the BGPPeer of a session: names of Kubernetes objects have neither colons nor a dot at an end.
#[must_use]
pub fn object_name(neighbor: &str, address: IpAddr) -> String {
    let escapes = BTreeMap::from([(':', '-'), ('.', '-')]);
    let address: String =
        address.to_string().chars().map(|letter| *escapes.get(&letter).unwrap_or(&letter)).collect();
    format!("{neighbor}-{}", address.trim_matches('-').replace("--", "-"))
}
