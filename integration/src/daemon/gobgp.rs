//! GoBGP. It writes no kernel routes.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use ipnet::IpNet;
use serde_json::Value;
use weft_bgp::policy::Community;

use super::{Path, Router, RouterConfig, Software};
use crate::lab::Lab;
use crate::netns::Namespace;
use crate::process::{Process, SHORT, foreign_program, run};
use crate::wait::wait_until;

/// The code of the AS_PATH attribute (RFC 4271 section 4.3).
const AS_PATH: u64 = 2;
/// That of LOCAL_PREF (the same section).
const LOCAL_PREF: u64 = 5;
/// The codes of ORIGINATOR_ID and CLUSTER_LIST (RFC 4456 section 8).
const ORIGINATOR_ID: u64 = 9;
const CLUSTER_LIST: u64 = 10;

/// A router run by GoBGP.
#[derive(Debug)]
pub struct Gobgp {
    program: PathBuf,
    client: PathBuf,
    namespace: Namespace,
    directory: PathBuf,
    log: PathBuf,
    config: RouterConfig,
    process: Option<Process>,
}

impl Gobgp {
    /// Writes its configuration.
    ///
    /// # Errors
    /// If GoBGP is not installed or the file cannot be written.
    pub fn new(lab: &Lab, namespace: &Namespace, config: RouterConfig) -> Result<Self> {
        ensure!(config.bfd.is_none(), "GoBGP of Debian 12 has no BFD");
        let directory = lab.directory(&config.name)?;
        std::fs::write(directory.join("gobgpd.toml"), render(&config))?;
        Ok(Self {
            program: foreign_program(&["/usr/bin/gobgpd", "/usr/sbin/gobgpd"], "gobgpd")?,
            client: foreign_program(&["/usr/bin/gobgp"], "gobgpd")?,
            namespace: namespace.clone(),
            log: lab.log(&config.name),
            directory,
            config,
            process: None,
        })
    }

    fn ask(&self, question: &str) -> Result<String> {
        let mut client = self.namespace.command(&self.client);
        client.args(question.split_whitespace());
        Ok(run(&mut client, SHORT)?
            .success()
            .with_context(|| format!("{}: gobgp {question}", self.config.name))?
            .stdout)
    }

    fn ask_json(&self, question: &str) -> Result<Value> {
        let said = self.ask(&format!("{question} -j"))?;
        serde_json::from_str(&said)
            .with_context(|| format!("{}: gobgp {question} said {said}", self.config.name))
    }

    fn change(&self, verb: &str, prefix: &IpNet) -> Result<()> {
        self.ask(&format!("global rib {verb} -a {} {prefix}", family(prefix.addr()))).map(drop)
    }
}

impl Router for Gobgp {
    fn software(&self) -> Software {
        Software::Gobgp
    }

    fn version(&self) -> Result<String> {
        Ok(format!(
            "GoBGP {}",
            run(Command::new(&self.program).arg("--version"), SHORT)?.success()?.stdout.trim()
        ))
    }

    fn name(&self) -> &str {
        &self.config.name
    }

    fn start(&mut self) -> Result<()> {
        let mut command = self.namespace.command(&self.program);
        command.args([
            "-t",
            "toml",
            "-f",
            "gobgpd.toml",
            "--api-hosts",
            "127.0.0.1:50051",
            "--pprof-disable",
        ]);
        if self.config.graceful_restart {
            command.arg("-r");
        }
        self.process =
            Some(Process::start(&self.config.name, command.current_dir(&self.directory), &self.log)?);
        wait_until("gobgpd to answer", SHORT, || self.ask("global"))?;
        self.config.originate.iter().try_for_each(|prefix| self.change("add", prefix))
    }

    fn daemon(&mut self) -> &mut Option<Process> {
        &mut self.process
    }

    fn originate(&mut self, prefixes: &BTreeSet<IpNet>) -> Result<()> {
        self.config.originate.difference(prefixes).try_for_each(|prefix| self.change("del", prefix))?;
        prefixes.difference(&self.config.originate).try_for_each(|prefix| self.change("add", prefix))?;
        self.config.originate.clone_from(prefixes);
        Ok(())
    }

    fn ask(&self, question: &str) -> Result<String> {
        Self::ask(self, question)
    }

    fn established(&self, neighbor: IpAddr) -> Result<bool> {
        let said = self.ask(&format!("neighbor {neighbor}"))?;
        Ok(said.contains("BGP state = ESTABLISHED") || said.contains("BGP state = BGP_FSM_ESTABLISHED"))
    }

    fn paths(&self, prefix: IpNet) -> Result<Vec<Path>> {
        let said = self.ask_json(&format!("global rib {prefix} -a {}", family(prefix.addr())));
        // An unknown prefix is a failure to this client.
        let said = match said {
            Err(error) if format!("{error:#}").contains("Network not in table") => return Ok(Vec::new()),
            other => other?,
        };
        Ok(parse_paths(&said[prefix.to_string()]))
    }
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "ipv4" } else { "ipv6" }
}

/// Reads the paths of one prefix; those that the daemon originates itself have no AS path.
fn parse_paths(paths: &Value) -> Vec<Path> {
    let paths = paths.as_array().map(Vec::as_slice).unwrap_or_default();
    let learned =
        paths.iter().filter(|path| path["source-id"].is_string() || path["neighbor-ip"].is_string());
    learned
        .map(|path| {
            let attributes = path["attrs"].as_array().map(Vec::as_slice).unwrap_or_default();
            let asns = attributes
                .iter()
                .filter(|attribute| attribute["type"] == AS_PATH)
                .flat_map(|attribute| attribute["as_paths"].as_array().map(Vec::as_slice).unwrap_or_default())
                .flat_map(|segment| segment["asns"].as_array().map(Vec::as_slice).unwrap_or_default());
            let value = |code| attributes.iter().find(|a| a["type"] == code).map(|a| &a["value"]);
            let clusters = value(CLUSTER_LIST).and_then(Value::as_array).map(Vec::as_slice);
            Path {
                originator: value(ORIGINATOR_ID).and_then(|id| id.as_str()?.parse().ok()),
                cluster_list: clusters
                    .unwrap_or_default()
                    .iter()
                    .filter_map(|id| id.as_str()?.parse().ok())
                    .collect(),
                next_hops: attributes
                    .iter()
                    .filter_map(|attribute| attribute["nexthop"].as_str()?.parse().ok())
                    .collect(),
                communities: attributes.iter().flat_map(communities).collect(),
                med: attributes.iter().find_map(|attribute| attribute["metric"].as_u64()?.try_into().ok()),
                local_pref: value(LOCAL_PREF).and_then(|pref| pref.as_u64()?.try_into().ok()),
                only_to_customer: None,
                as_path: asns.filter_map(|asn| u32::try_from(asn.as_u64()?).ok()).collect(),
                best: path["best"] == true,
            }
        })
        .collect()
}

/// The communities of an attribute, if it is one of communities.
fn communities(attribute: &Value) -> Vec<Community> {
    let values = |key: &str| attribute[key].as_array().map(Vec::as_slice).unwrap_or_default();
    let standard = values("communities").iter().filter_map(|number| number.as_u64()?.try_into().ok());
    let number = |large: &Value, key: &str| large[key].as_u64()?.try_into().ok();
    let large = values("value").iter().filter_map(|large| {
        Some([number(large, "ASN")?, number(large, "LocalData1")?, number(large, "LocalData2")?])
    });
    standard.map(Community::Standard).chain(large.map(Community::Large)).collect()
}

fn render(config: &RouterConfig) -> String {
    let mut text =
        format!("[global.config]\nas = {}\nrouter-id = \"{}\"\nport = 179\n", config.asn, config.router_id);
    for neighbor in &config.neighbors {
        let _ = write!(
            text,
            "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"{}\"\npeer-as = {}\n[neighbors.transport.config]\n\
             local-address = \"{}\"\n[neighbors.timers.config]\nhold-time = {}\nkeepalive-interval = {}\n",
            neighbor.address,
            neighbor.asn,
            neighbor.local,
            config.hold_time,
            config.hold_time / 3
        );
        if config.dials_every_second {
            text.push_str("connect-retry = 1\nidle-hold-time-after-reset = 1\n");
        }
        if config.graceful_restart {
            let _ = writeln!(
                text,
                "[neighbors.graceful-restart.config]\nenabled = true\nrestart-time = {}\nlong-lived-enabled = {}",
                if config.long_lived.is_some() { 2 } else { 60 },
                config.long_lived.is_some()
            );
            let _ = writeln!(text, "{}", config.extra);
        }
        if config.reflects && neighbor.asn == config.asn {
            let _ = write!(
                text,
                "[neighbors.route-reflector.config]\nroute-reflector-client = true\nroute-reflector-cluster-id = \"{}\"\n",
                config.router_id
            );
        }
        for family in &neighbor.families {
            let _ = write!(
                text,
                "[[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = \"{}\"\n",
                family.unicast()
            );
            if config.add_path {
                text.push_str("[neighbors.afi-safis.add-paths.config]\nreceive = true\nsend-max = 8\n");
            }
            if config.graceful_restart {
                text.push_str("[neighbors.afi-safis.mp-graceful-restart.config]\nenabled = true\n");
            }
            if let Some(time) = config.long_lived {
                let _ = writeln!(
                    text,
                    "[neighbors.afi-safis.long-lived-graceful-restart.config]\nenabled = true\nrestart-time = {time}"
                );
            }
        }
    }
    text
}
