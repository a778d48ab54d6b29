//! OpenBGPD. It writes no kernel routes here: its portable version knows no Linux tables.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use ipnet::IpNet;
use serde_json::Value;

use super::{Family, Neighbor, Path, Router, RouterConfig, Software};
use crate::lab::Lab;
use crate::netns::Namespace;
use crate::process::{Process, SHORT, foreign_program, run};
use crate::wait::wait_until;

/// The root of all its processes but one, the home of its user, which systemd makes when it starts the package's service.
const ROOT: &str = "/run/openbgpd";

/// A router run by OpenBGPD.
#[derive(Debug)]
pub struct Openbgpd {
    program: PathBuf,
    client: PathBuf,
    namespace: Namespace,
    directory: PathBuf,
    log: PathBuf,
    config: RouterConfig,
    process: Option<Process>,
}

impl Openbgpd {
    /// Writes its configuration.
    ///
    /// # Errors
    /// If OpenBGPD is not installed or the file cannot be written.
    pub fn new(lab: &Lab, namespace: &Namespace, config: RouterConfig) -> Result<Self> {
        let plain =
            config.bfd.is_none() && !config.reflects && !config.add_path && config.long_lived.is_none();
        ensure!(plain, "the lab has OpenBGPD for plain sessions");
        let router = Self {
            program: foreign_program(&["/usr/sbin/bgpd"], "openbgpd")?,
            client: foreign_program(&["/usr/sbin/bgpctl"], "openbgpd")?,
            namespace: namespace.clone(),
            directory: lab.directory(&config.name)?,
            log: lab.log(&config.name),
            config,
            process: None,
        };
        router.write()?;
        Ok(router)
    }

    fn socket(&self) -> PathBuf {
        self.directory.join("bgpd.sock")
    }

    fn write(&self) -> Result<()> {
        let path = self.directory.join("bgpd.conf");
        fs::write(&path, render(&self.config, &self.socket().display().to_string()))?;
        // It reads none that others could have written.
        fs::set_permissions(&path, Permissions::from_mode(0o600))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    fn ask(&self, question: &str) -> Result<String> {
        let mut client = Command::new(&self.client);
        client.arg("-s").arg(self.socket()).args(question.split_whitespace());
        Ok(run(&mut client, SHORT)?
            .success()
            .with_context(|| format!("{}: bgpctl {question}", self.config.name))?
            .stdout)
    }

    fn ask_json(&self, question: &str) -> Result<Value> {
        let said = self.ask(&format!("-j {question}"))?;
        serde_json::from_str(&said)
            .with_context(|| format!("{}: bgpctl {question} said {said}", self.config.name))
    }
}

impl Router for Openbgpd {
    fn software(&self) -> Software {
        Software::Openbgpd
    }

    fn version(&self) -> Result<String> {
        let said = run(Command::new(&self.program).arg("-V"), SHORT)?.success()?;
        Ok(format!("{}{}", said.stdout, said.stderr).trim().to_owned())
    }

    fn name(&self) -> &str {
        &self.config.name
    }

    fn start(&mut self) -> Result<()> {
        fs::create_dir_all(ROOT).with_context(|| format!("cannot make {ROOT}"))?;
        let mut command = self.namespace.command(&self.program);
        command.args(["-d", "-f", "bgpd.conf"]).current_dir(&self.directory);
        self.process = Some(Process::start(&self.config.name, &mut command, &self.log)?);
        wait_until("bgpd to answer", SHORT, || self.ask("show")).map(drop)
    }

    fn daemon(&mut self) -> &mut Option<Process> {
        &mut self.process
    }

    fn originate(&mut self, prefixes: &BTreeSet<IpNet>) -> Result<()> {
        let change = |verb, prefix: &IpNet| self.ask(&format!("network {verb} {prefix}")).map(drop);
        self.config.originate.difference(prefixes).try_for_each(|prefix| change("delete", prefix))?;
        prefixes.difference(&self.config.originate).try_for_each(|prefix| change("add", prefix))?;
        self.config.originate.clone_from(prefixes);
        self.write()
    }

    fn ask(&self, question: &str) -> Result<String> {
        Self::ask(self, question)
    }

    fn established(&self, neighbor: IpAddr) -> Result<bool> {
        let said = self.ask_json("show neighbor")?;
        let neighbors = said["neighbors"].as_array().map(Vec::as_slice).unwrap_or_default();
        let is =
            |known: &Value| known["remote_addr"] == neighbor.to_string() && known["state"] == "Established";
        Ok(neighbors.iter().any(is))
    }

    fn paths(&self, prefix: IpNet) -> Result<Vec<Path>> {
        let said = self.ask_json(&format!("show rib detail {prefix}"))?;
        let paths = said["rib"].as_array().map(Vec::as_slice).unwrap_or_default();
        let learned = paths.iter().filter(|path| path["neighbor"]["description"] != "LOCAL");
        Ok(learned.filter(|path| path["prefix"] == prefix.to_string()).map(parse_path).collect())
    }
}

fn parse_path(path: &Value) -> Path {
    let texts = |key: &str| path[key].as_array().map(Vec::as_slice).unwrap_or_default();
    let number = |key: &str| path[key].as_u64().and_then(|number| u32::try_from(number).ok());
    let as_path = path["aspath"].as_str().unwrap_or_default();
    let communities = ["communities", "large_communities"].into_iter().flat_map(texts);
    Path {
        next_hops: path["exit_nexthop"].as_str().and_then(|hop| hop.parse().ok()).into_iter().collect(),
        as_path: as_path.split_whitespace().filter_map(|asn| asn.parse().ok()).collect(),
        originator: None,
        cluster_list: Vec::new(),
        communities: communities.filter_map(|text| text.as_str()?.to_lowercase().parse().ok()).collect(),
        med: number("metric"),
        local_pref: number("localpref"),
        only_to_customer: None,
        best: path["best"] == true,
    }
}

fn render(config: &RouterConfig, socket: &str) -> String {
    let mut text = format!(
        "AS {}\nrouter-id {}\nholdtime {}\nsocket \"{socket}\"\nfib-update no\n",
        config.asn, config.router_id, config.hold_time
    );
    if config.dials_every_second {
        text.push_str("connect-retry 1\n");
    }
    for Neighbor { local, .. } in &config.neighbors {
        // Writing to a string does not fail.
        let _ = writeln!(text, "listen on {local}");
    }
    for prefix in &config.originate {
        let _ = writeln!(text, "network {prefix}");
    }
    for Neighbor { address, asn, local, families, .. } in &config.neighbors {
        let announce = |family| if families.contains(&family) { "unicast" } else { "none" };
        let _ = writeln!(
            text,
            "neighbor {address} {{\n remote-as {asn}\n local-address {local}\n announce IPv4 {}\n announce IPv6 {}\n announce restart {}",
            announce(Family::V4),
            announce(Family::V6),
            if config.graceful_restart { "yes" } else { "no" }
        );
        if let Some(password) = &config.password {
            let _ = writeln!(text, " tcp md5sig password \"{password}\"");
        }
        let _ = writeln!(text, " {}\n}}", config.extra);
    }
    text.push_str("allow from any\nallow to any\n");
    text
}
