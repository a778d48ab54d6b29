//! Numbers, cables and configurations of a fabric.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result, ensure};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde_json::{Value, json};

use super::{Fabric, FabricSpec, RouterMachine, SPINE_ASN};
use crate::daemon::weft_router::object_name;
use crate::daemon::{Family, Neighbor, RouterConfig, Software, router};
use crate::documents;
use crate::lab::Lab;
use crate::link::{End, Link};
use crate::netns::Namespace;
use crate::node::{self, Node};

/// A machine's place in the fabric, while it is being built.
struct Place {
    namespace: Namespace,
    asn: u32,
}

struct Builder<'a> {
    lab: &'a Lab,
    spec: FabricSpec,
    nodes: Vec<Node>,
    places: BTreeMap<String, Place>,
    routers: BTreeMap<String, RouterConfig>,
    peers: Vec<Value>,
    links: Vec<Link>,
}

pub(super) fn build(lab: &Lab, spec: FabricSpec) -> Result<Fabric> {
    ensure!(
        spec.racks <= 26 && spec.nodes_per_rack <= 8 && spec.tors_per_rack <= 2,
        "the lab's numbers end before {spec:?}"
    );
    let mut builder = Builder {
        lab,
        spec,
        nodes: Vec::new(),
        places: BTreeMap::new(),
        routers: BTreeMap::new(),
        peers: Vec::new(),
        links: Vec::new(),
    };
    if builder.spec.spine_links > 0 {
        builder.add_router("spine", SPINE_ASN)?;
    }
    for rack in 0..builder.spec.racks {
        builder.add_rack(rack)?;
    }
    builder.finish()
}

impl Builder<'_> {
    fn add_rack(&mut self, rack: u8) -> Result<()> {
        let letter = char::from(b'a' + rack);
        let mut tors = Vec::new();
        for number in 1..=self.spec.tors_per_rack {
            let name = if self.spec.tors_per_rack == 1 {
                format!("tor-{letter}")
            } else {
                format!("tor-{letter}{number}")
            };
            self.add_router(&name, 65001 + 2 * u32::from(rack) + u32::from(number - 1))?;
            for _ in 0..self.spec.spine_links {
                self.join(&name, "spine")?;
            }
            tors.push(name);
        }
        for number in 1..=self.spec.nodes_per_rack {
            let name = format!("{letter}{number}");
            self.add_node(&name, 64601 + u32::from(rack))?;
            for tor in &tors {
                self.join(&name, tor)?;
            }
        }
        Ok(())
    }

    fn add_node(&mut self, name: &str, asn: u32) -> Result<()> {
        let index = u8::try_from(self.nodes.len() + 1)?;
        let families = self.spec.families.clone();
        let node =
            Node::new(self.lab, name, node::loopback(&families, index), node::blocks(&families, index))?;
        let commands: Vec<String> =
            node.addresses.iter().map(|address| format!("addr add {address} dev lo")).collect();
        node.namespace.ip(&commands.join("\n"))?;
        self.places.insert(name.to_owned(), Place { namespace: node.namespace.clone(), asn });
        self.nodes.push(node);
        Ok(())
    }

    fn add_router(&mut self, name: &str, asn: u32) -> Result<()> {
        let namespace = self.lab.machine(name)?;
        let index = 255 - u8::try_from(self.routers.len())?;
        let mut config = RouterConfig::new(name, asn, Ipv4Addr::new(10, 0, 0, index));
        config.addresses = node::loopback(&self.spec.families, index);
        config.originate = match self.software() {
            // A weftd announces its addresses on `lo` by itself.
            Software::Weft => Default::default(),
            _ => config.addresses.iter().copied().map(IpNet::from).collect(),
        };
        config.hold_time = self.spec.hold_time;
        config.dials_every_second = self.spec.dials_every_second;
        self.places.insert(name.to_owned(), Place { namespace, asn });
        self.routers.insert(name.to_owned(), config);
        Ok(())
    }

    fn software(&self) -> Software {
        self.spec.tor
    }

    /// Lays a cable and puts a session on it: one for all families, but where the software of the far end cannot give an IPv6 next
    /// hop over IPv4.
    fn join(&mut self, near: &str, far: &str) -> Result<()> {
        let number = self.links.len();
        let parallel = self.links.iter().filter(|link| joins(link, near, far)).count();
        let suffix = if parallel == 0 { String::new() } else { format!(".{parallel}") };
        let link = Link::new(
            End::new(&self.place(near)?.namespace, format!("{far}{suffix}")),
            End::new(&self.place(far)?.namespace, format!("{near}{suffix}")),
        )?;
        let ends: Vec<(IpNet, IpNet)> =
            self.spec.families.iter().map(|family| ends(*family, number)).collect::<Result<_>>()?;
        link.near.add_addresses(&ends.iter().map(|(near, _)| *near).collect::<Vec<_>>())?;
        link.far.add_addresses(&ends.iter().map(|(_, far)| *far).collect::<Vec<_>>())?;
        self.links.push(link);
        if self.software() == Software::Gobgp {
            for (ends, family) in ends.into_iter().zip(self.spec.families.clone()) {
                self.peer(near, far, ends, &[family])?;
            }
        } else {
            let families = self.spec.families.clone();
            self.peer(near, far, *ends.first().context("a fabric has a family")?, &families)?;
        }
        Ok(())
    }

    fn peer(
        &mut self,
        near: &str,
        far: &str,
        (near_end, far_end): (IpNet, IpNet),
        families: &[Family],
    ) -> Result<()> {
        let (near_asn, far_asn) = (self.place(near)?.asn, self.place(far)?.asn);
        let near_side = neighbor(far, far_end.addr(), far_asn, near_end.addr(), families);
        let far_side = neighbor(near, near_end.addr(), near_asn, far_end.addr(), families);
        self.routers.get_mut(far).with_context(|| format!("{far} is no router"))?.neighbors.push(far_side);
        match self.routers.get_mut(near) {
            Some(config) => config.neighbors.push(near_side),
            None => self.peers.push(node_peer(near, &near_side)),
        }
        Ok(())
    }

    fn place(&self, name: &str) -> Result<&Place> {
        self.places.get(name).with_context(|| format!("there is no {name}"))
    }

    fn finish(self) -> Result<Fabric> {
        let nodes: Vec<Value> = self
            .nodes
            .iter()
            .map(|node| {
                let rack = node.name.get(..1).unwrap_or_default();
                documents::node(&node.name, &[("rack", rack)], &node.blocks, &node.addresses)
            })
            .collect();
        let pools: Vec<Value> =
            self.spec.families.iter().map(|family| documents::pod_pool(*family)).collect();
        for node in &self.nodes {
            let folder = node.weft.manifests();
            documents::write(&folder, "nodes.yaml", &nodes)?;
            documents::write(&folder, "pools.yaml", &pools)?;
            documents::write(&folder, "peers.yaml", &self.peers)?;
            let asn = self.place(&node.name)?.asn;
            let hold_time = format!("{}s", self.spec.hold_time);
            let spec = json!({"asNumber": asn, "nodeToNodeMeshEnabled": false, "holdTime": hold_time});
            documents::write(&folder, "bgp.yaml", &[documents::bgp_configuration(&spec)])?;
        }
        let (lab, software) = (self.lab, self.software());
        let mut routers = Vec::new();
        for (name, config) in &self.routers {
            let namespace = self.place(name)?.namespace.clone();
            let addresses = config.addresses.clone();
            let router = router(lab, &namespace, software, config.clone())?;
            routers.push(RouterMachine { namespace, addresses, router });
        }
        // The spine sorts before the ToRs.
        routers.sort_by_key(|machine| machine.router.name() == "spine");
        Ok(Fabric { spec: self.spec, nodes: self.nodes, routers, links: self.links })
    }
}

fn joins(link: &Link, near: &str, far: &str) -> bool {
    link.near.namespace.label() == near && link.far.namespace.label() == far
}

fn neighbor(name: &str, address: IpAddr, asn: u32, local: IpAddr, families: &[Family]) -> Neighbor {
    Neighbor { name: name.to_owned(), address, asn, local, families: families.to_vec() }
}

/// The BGPPeer of a node's session with a ToR. The nodes of a rack share an AS, so each must accept it once in what the ToR passes on.
fn node_peer(node: &str, tor: &Neighbor) -> Value {
    let families: Vec<&str> = tor.families.iter().map(|family| family.unicast()).collect();
    let spec = json!({
        "peerIP": tor.address,
        "asNumber": tor.asn,
        "families": families,
        "numAllowedLocalASNumbers": 1,
    });
    documents::bgp_peer(&format!("{node}-{}", object_name(&tor.name, tor.address)), node, spec)
}

/// The addresses of cable `number`: 10.1.X.Y/31 and fd00:10:1:N::/127, the lower one the near end's.
fn ends(family: Family, number: usize) -> Result<(IpNet, IpNet)> {
    Ok(match family {
        Family::V4 => {
            let base = u32::from(Ipv4Addr::new(10, 1, 0, 0)) + 2 * u32::try_from(number)?;
            (Ipv4Net::new(base.into(), 31)?.into(), Ipv4Net::new((base + 1).into(), 31)?.into())
        }
        Family::V6 => {
            let end = |last| {
                Ipv6Addr::new(0xfd00, 0x10, 1, u16::try_from(number).unwrap_or(u16::MAX), 0, 0, 0, last)
            };
            (Ipv6Net::new(end(0), 127)?.into(), Ipv6Net::new(end(1), 127)?.into())
        }
    })
}
