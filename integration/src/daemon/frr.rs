//! FRR: zebra, which owns the kernel's routes, bgpd, and bfdd where it is asked for.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use ipnet::IpNet;
use nix::unistd::User;
use serde_json::Value;
use weft_bgp::policy::Community;
use weft_bgp::role::Role;

use super::{Bfd, Family, Neighbor, Path, Router, RouterConfig, Software};
use crate::lab::Lab;
use crate::netns::Namespace;
use crate::process::{Process, SHORT, foreign_program, run};
use crate::wait::wait_until;

/// A router run by FRR.
#[derive(Debug)]
pub struct Frr {
    zebra: PathBuf,
    bgpd: PathBuf,
    bfdd: PathBuf,
    shell: PathBuf,
    namespace: Namespace,
    directory: PathBuf,
    log: PathBuf,
    config: RouterConfig,
    /// Where it peers with whoever is at the other end.
    interfaces: Vec<String>,
    processes: Processes,
}

#[derive(Debug, Default)]
struct Processes {
    zebra: Option<Process>,
    bgpd: Option<Process>,
    bfdd: Option<Process>,
}

impl Frr {
    /// Writes its configuration.
    ///
    /// # Errors
    /// If FRR is not installed or the files cannot be written.
    pub fn new(lab: &Lab, namespace: &Namespace, config: RouterConfig) -> Result<Self> {
        Self::with_interfaces(lab, namespace, config, &[])
    }

    /// The same, with unnumbered peers on these interfaces besides, in whatever AS but its own.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_interfaces(
        lab: &Lab,
        namespace: &Namespace,
        config: RouterConfig,
        interfaces: &[&str],
    ) -> Result<Self> {
        let frr = Self {
            zebra: foreign_program(&["/usr/lib/frr/zebra"], "frr")?,
            bgpd: foreign_program(&["/usr/lib/frr/bgpd"], "frr")?,
            bfdd: foreign_program(&["/usr/lib/frr/bfdd"], "frr")?,
            shell: foreign_program(&["/usr/bin/vtysh"], "frr")?,
            namespace: namespace.clone(),
            directory: lab.directory(&config.name)?,
            log: lab.log(&config.name),
            config,
            interfaces: interfaces.iter().map(|&interface| interface.to_owned()).collect(),
            processes: Processes::default(),
        };
        // FRR gives up root for a user of its own, who writes its sockets.
        let user = User::from_name("frr")?.context("there is no user frr: install the Debian package frr")?;
        chown(&frr.directory, Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
        std::fs::write(frr.directory.join("zebra.conf"), format!("hostname {}\n", frr.config.name))?;
        if let Some(bfd) = frr.config.bfd {
            std::fs::write(frr.directory.join("bfdd.conf"), render_bfd(bfd))?;
        }
        frr.write()?;
        Ok(frr)
    }

    fn write(&self) -> Result<()> {
        let path = self.directory.join("bgpd.conf");
        std::fs::write(&path, render(&self.config, &self.interfaces))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Starts one daemon with everything that it would put in fixed places in the lab's directory.
    fn spawn(&self, program: &std::path::Path, name: &str) -> Result<Process> {
        let mut command = self.namespace.command(program);
        command.current_dir(&self.directory);
        command.args(["-P", "0", "--log", "stdout"]);
        command.arg("-z").arg(self.directory.join("zserv.api"));
        command.arg("--vty_socket").arg(&self.directory);
        command.arg("-f").arg(self.directory.join(format!("{name}.conf")));
        command.arg("-i").arg(self.directory.join(format!("{name}.pid")));
        if name == "bfdd" {
            command.arg("--bfdctl").arg(self.directory.join("bfdd.sock"));
        }
        Process::start(format!("{} ({name})", self.config.name), &mut command, &self.log)
    }

    fn ask(&self, commands: &[&str]) -> Result<String> {
        let mut shell = Command::new(&self.shell);
        shell.arg("--vty_socket").arg(&self.directory);
        for command in commands {
            shell.args(["-c", command]);
        }
        Ok(run(&mut shell, SHORT)?
            .success()
            .with_context(|| format!("{}: vtysh {commands:?}", self.config.name))?
            .stdout)
    }

    /// Whether the session with whoever is on this interface is Established.
    ///
    /// # Errors
    /// If the daemon does not answer.
    pub fn established_on(&self, interface: &str) -> Result<bool> {
        let said = self.ask_json(&format!("show bgp neighbors {interface} json"))?;
        Ok(said[interface]["bgpState"] == "Established")
    }

    fn ask_json(&self, command: &str) -> Result<Value> {
        let said = self.ask(&[command])?;
        serde_json::from_str(&said).with_context(|| format!("{}: {command} said {said}", self.config.name))
    }
}

impl Router for Frr {
    fn software(&self) -> Software {
        Software::Frr
    }

    fn version(&self) -> Result<String> {
        let said = run(Command::new(&self.bgpd).arg("--version"), SHORT)?.success()?.stdout;
        Ok(format!("FRR {}", said.lines().next().unwrap_or_default()))
    }

    fn name(&self) -> &str {
        &self.config.name
    }

    fn start(&mut self) -> Result<()> {
        if self.processes.zebra.is_none() {
            let socket = self.directory.join("zserv.api");
            let mut zebra = self.spawn(&self.zebra, "zebra")?;
            wait_until("zebra to listen", SHORT, || {
                ensure!(socket.exists(), "its socket is not there");
                Ok(())
            })?;
            zebra.ensure_running()?;
            self.processes.zebra = Some(zebra);
            if self.config.bfd.is_some() {
                self.processes.bfdd = Some(self.spawn(&self.bfdd, "bfdd")?);
                wait_until("bfdd to answer", SHORT, || self.ask_json("show bfd peers json")).map(drop)?;
            }
        }
        self.processes.bgpd = Some(self.spawn(&self.bgpd, "bgpd")?);
        wait_until("bgpd to answer", SHORT, || self.ask_json("show bgp summary json")).map(drop)
    }

    fn daemon(&mut self) -> &mut Option<Process> {
        &mut self.processes.bgpd
    }

    fn leave_running(&mut self) {
        [self.processes.zebra.take(), self.processes.bgpd.take(), self.processes.bfdd.take()]
            .into_iter()
            .flatten()
            .for_each(Process::leave_running);
    }

    fn originate(&mut self, prefixes: &BTreeSet<IpNet>) -> Result<()> {
        let router = format!("router bgp {}", self.config.asn);
        let mut commands = vec!["configure terminal".to_owned(), router];
        for family in Family::BOTH {
            commands.push(format!("address-family {}", unicast(family)));
            let ours = |prefix: &&IpNet| Family::of(prefix.addr()) == family;
            commands.extend(
                self.config
                    .originate
                    .difference(prefixes)
                    .filter(ours)
                    .map(|prefix| format!("no network {prefix}")),
            );
            commands.extend(
                prefixes
                    .difference(&self.config.originate)
                    .filter(ours)
                    .map(|prefix| format!("network {prefix}")),
            );
            commands.push("exit-address-family".to_owned());
        }
        Self::ask(self, &commands.iter().map(String::as_str).collect::<Vec<_>>())?;
        self.config.originate.clone_from(prefixes);
        self.write()
    }

    fn set_password(&mut self, password: Option<&str>) -> Result<()> {
        let mut commands = vec!["configure terminal".to_owned(), format!("router bgp {}", self.config.asn)];
        commands.extend(self.config.neighbors.iter().map(|Neighbor { address, .. }| match password {
            Some(password) => format!("neighbor {address} password {password}"),
            None => format!("no neighbor {address} password"),
        }));
        Self::ask(self, &commands.iter().map(String::as_str).collect::<Vec<_>>())?;
        self.config.password = password.map(str::to_owned);
        self.write()
    }

    fn set_role(&mut self, role: Role) -> Result<()> {
        let mut commands = vec!["configure terminal".to_owned(), format!("router bgp {}", self.config.asn)];
        commands.extend(self.config.neighbors.iter().map(|neighbor| local_role(neighbor.address, role)));
        Self::ask(self, &commands.iter().map(String::as_str).collect::<Vec<_>>())?;
        self.config.role = Some(role);
        self.write()
    }

    fn ask(&self, question: &str) -> Result<String> {
        Self::ask(self, &[question])
    }

    fn established(&self, neighbor: IpAddr) -> Result<bool> {
        let said = self.ask_json(&format!("show bgp neighbors {neighbor} json"))?;
        Ok(said[neighbor.to_string()]["bgpState"] == "Established")
    }

    fn bfd_up(&self, neighbor: IpAddr) -> Result<bool> {
        let said = self.ask_json("show bfd peers json")?;
        let sessions = said.as_array().map(Vec::as_slice).unwrap_or_default();
        let neighbor = neighbor.to_string();
        Ok(sessions.iter().any(|session| session["peer"] == neighbor && session["status"] == "up"))
    }

    fn paths(&self, prefix: IpNet) -> Result<Vec<Path>> {
        let said =
            self.ask_json(&format!("show bgp {} {prefix} json", unicast(Family::of(prefix.addr()))))?;
        let paths = said["paths"].as_array().map(Vec::as_slice).unwrap_or_default();
        Ok(paths
            .iter()
            .filter(|path| path["sourced"] != true && path["local"] != true)
            .map(parse_path)
            .collect())
    }
}

fn unicast(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4 unicast",
        Family::V6 => "ipv6 unicast",
    }
}

fn parse_path(path: &Value) -> Path {
    let hops = path["nexthops"].as_array().map(Vec::as_slice).unwrap_or_default();
    let clusters = path["clusterList"]["list"].as_array().map(Vec::as_slice).unwrap_or_default();
    let as_path = path["aspath"]["string"].as_str().unwrap_or_default();
    let number = |key: &str| path[key].as_u64().and_then(|number| u32::try_from(number).ok());
    Path {
        next_hops: hops.iter().filter_map(|hop| hop["ip"].as_str()?.parse().ok()).collect(),
        as_path: as_path.split_whitespace().filter_map(|asn| asn.parse().ok()).collect(),
        originator: path["originatorId"].as_str().and_then(|id| id.parse().ok()),
        cluster_list: clusters.iter().filter_map(|id| id.as_str()?.parse().ok()).collect(),
        communities: ["community", "largeCommunity", "extendedCommunity"]
            .into_iter()
            .flat_map(|kind| path[kind]["string"].as_str().unwrap_or_default().split_whitespace())
            .filter_map(|text| text.replace("RT:", "rt:").parse().ok())
            .collect(),
        med: number("metric"),
        local_pref: number("locPrf"),
        only_to_customer: number("otc"),
        best: path["bestpath"]["overall"] == true,
    }
}

/// What says the role of a router to one neighbor.
fn local_role(neighbor: IpAddr, role: Role) -> String {
    let role = match role {
        Role::RouteServer => "rs-server".to_owned(),
        role => role.to_string(),
    };
    format!("neighbor {neighbor} local-role {role} strict-mode")
}

fn render_bfd(bfd: Bfd) -> String {
    let Bfd { interval, multiplier, .. } = bfd;
    format!(
        "bfd\n profile lab\n  transmit-interval {interval}\n  receive-interval {interval}\n  detect-multiplier {multiplier}\n"
    )
}

fn render(config: &RouterConfig, interfaces: &[String]) -> String {
    let attached = attach(config);
    let mut text = format!(
        "hostname {}\nrouter bgp {}\n bgp router-id {}\n no bgp ebgp-requires-policy\n no bgp default ipv4-unicast\n \
         no bgp network import-check\n bgp bestpath as-path multipath-relax\n timers bgp {} {}\n",
        config.name,
        config.asn,
        config.router_id,
        config.hold_time / 3,
        config.hold_time
    );
    text.push_str(if config.graceful_restart {
        " bgp graceful-restart\n"
    } else {
        " bgp graceful-restart-disable\n"
    });
    if let Some(time) = config.long_lived {
        let _ = writeln!(
            text,
            " bgp graceful-restart restart-time 2\n bgp long-lived-graceful-restart stale-time {time}"
        );
    }
    let _ = writeln!(text, " {}", config.extra);
    for neighbor in &config.neighbors {
        let address = neighbor.address;
        let _ = writeln!(text, " neighbor {address} remote-as {}", neighbor.asn);
        if config.dials_every_second {
            let _ = writeln!(text, " neighbor {address} timers connect 1");
        }
        let _ = writeln!(text, " neighbor {address} advertisement-interval 0");
        if config.extended_next_hop {
            let _ = writeln!(text, " neighbor {address} capability extended-nexthop");
        }
        if let Some(password) = &config.password {
            let _ = writeln!(text, " neighbor {address} password {password}");
        }
        if let Some(hops) = config.ttl_security {
            let _ = writeln!(text, " neighbor {address} ttl-security hops {hops}");
        }
        if let Some(role) = config.role {
            let _ = writeln!(text, " {}", local_role(address, role));
        }
        if let Some(bfd) = config.bfd {
            let _ = writeln!(text, " neighbor {address} bfd\n neighbor {address} bfd profile lab");
            if bfd.multihop {
                let _ = writeln!(text, " neighbor {address} ebgp-multihop 10");
            }
        }
    }
    for interface in interfaces {
        let _ = writeln!(text, " neighbor {interface} interface remote-as external");
        let _ = writeln!(text, " neighbor {interface} timers connect 1");
        let _ = writeln!(text, " neighbor {interface} advertisement-interval 0");
        if let Some(password) = &config.password {
            let _ = writeln!(text, " neighbor {interface} password {password}");
        }
        if let Some(hops) = config.ttl_security {
            let _ = writeln!(text, " neighbor {interface} ttl-security hops {hops}");
        }
        if config.bfd.is_some() {
            let _ = writeln!(text, " neighbor {interface} bfd\n neighbor {interface} bfd profile lab");
        }
    }
    for family in Family::BOTH {
        let _ = writeln!(text, " address-family {}", unicast(family));
        for interface in interfaces {
            let _ = writeln!(text, "  neighbor {interface} activate");
        }
        for prefix in config.originate.iter().filter(|prefix| Family::of(prefix.addr()) == family) {
            let _ = writeln!(text, "  network {prefix}");
        }
        for neighbor in config.neighbors.iter().filter(|neighbor| neighbor.families.contains(&family)) {
            let _ = writeln!(text, "  neighbor {} activate", neighbor.address);
            if !attached.is_empty() {
                let _ = writeln!(text, "  neighbor {} route-map attach out", neighbor.address);
            }
            if config.add_path {
                // It takes them without being asked.
                let _ = writeln!(text, "  neighbor {} addpath-tx-all-paths", neighbor.address);
            }
            if neighbor.asn == config.asn {
                let _ = writeln!(text, "  neighbor {} next-hop-self", neighbor.address);
                if config.reflects {
                    let _ = writeln!(text, "  neighbor {} route-reflector-client", neighbor.address);
                }
            }
        }
        text.push_str("  maximum-paths 16\n exit-address-family\n");
    }
    if !attached.is_empty() {
        let _ = write!(text, "exit\nroute-map attach permit 10\n{attached}");
    }
    text
}

/// What is done to all that is told, as lines of a route map.
fn attach(config: &RouterConfig) -> String {
    let mut text = config.med.map(|med| format!(" set metric {med}\n")).unwrap_or_default();
    let of = |kind: fn(&Community) -> bool| {
        let all = config.communities.iter().filter(move |community| kind(community));
        all.map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };
    for (set, values) in [
        ("community", of(|c| matches!(c, Community::Standard(_)))),
        ("large-community", of(|c| matches!(c, Community::Large(_)))),
    ] {
        if !values.is_empty() {
            let _ = writeln!(text, " set {set} {values} additive");
        }
    }
    let targets = of(|c| matches!(c, Community::Extended(_))).replace("rt:", "");
    if !targets.is_empty() {
        let _ = writeln!(text, " set extcommunity rt {targets}");
    }
    text
}
