//! The daemons that are measured, set up to pass on all that they learn; or to install it.

use std::fmt::{self, Write as _};
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::chown;
use std::process::Command;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::unistd::User;
use serde_json::json;

use super::peers::PeerSpec;
use crate::bench::results;
use crate::daemon::weft::Weft;
use crate::documents;
use crate::lab::Lab;
use crate::netns::Namespace;
use crate::process::{Process, SHORT, foreign_program, own_program, run};
use crate::wait::wait_until;

/// The daemon's AS.
pub(super) const ASN: u32 = 65_000;
/// The daemon's address.
pub(super) const ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 30, 255, 254);

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Daemon {
    /// weftd.
    Weft,
    /// BIRD 2.
    Bird,
    /// FRR's bgpd, with zebra, which it asks about next hops.
    Frr,
    /// GoBGP, which installs no routes.
    Gobgp,
    /// The kernel alone: what is faster cannot be.
    Floor,
}

impl Daemon {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Weft, Self::Bird, Self::Frr, Self::Gobgp, Self::Floor];

    /// How it calls its own version.
    ///
    /// # Errors
    /// If it is not installed.
    pub fn version(self) -> Result<String> {
        let (program, argument) = match self {
            Self::Weft => (own_program("weftd")?, "--version"),
            Self::Bird => (foreign_program(&["/usr/sbin/bird"], "bird2")?, "--version"),
            Self::Frr => (foreign_program(&["/usr/lib/frr/bgpd"], "frr")?, "--version"),
            Self::Gobgp => {
                (foreign_program(&["/usr/bin/gobgpd", "/usr/sbin/gobgpd"], "gobgpd")?, "--version")
            }
            Self::Floor => return results::kernel(),
        };
        let said = run(Command::new(program).arg(argument), SHORT)?.success()?;
        // BIRD says it on the standard error.
        let line = [said.stdout, said.stderr].iter().find_map(|text| text.lines().next().map(str::to_owned));
        let words = line.unwrap_or_default();
        let version = words.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
        Ok(version.unwrap_or(&words).to_owned())
    }
}

impl FromStr for Daemon {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match Self::ALL.into_iter().find(|daemon| daemon.to_string() == text) {
            Some(daemon) => Ok(daemon),
            None => bail!("{text:?} is no daemon; there are weft, bird, frr, gobgp and floor"),
        }
    }
}

impl fmt::Display for Daemon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Weft => "weft",
            Self::Bird => "bird",
            Self::Frr => "frr",
            Self::Gobgp => "gobgp",
            Self::Floor => "floor",
        })
    }
}

/// A daemon that runs.
#[derive(Debug)]
pub(super) struct Running {
    processes: Vec<Process>,
    weft: Option<Weft>,
}

/// What a daemon has used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Usage {
    /// Seconds of the processor.
    pub(super) cpu: f64,
    /// The most memory that was resident at once, in MiB.
    pub(super) peak: f64,
}

impl Running {
    /// Starts a daemon in a machine of its own, for these peers; internal ones are its reflector's clients.
    ///
    /// # Errors
    /// If it is not installed or does not answer.
    pub(super) fn start(
        lab: &Lab,
        machine: &Namespace,
        daemon: Daemon,
        peers: &[PeerSpec],
        installs: bool,
    ) -> Result<Self> {
        match daemon {
            Daemon::Weft => weft(lab, machine, peers, installs),
            Daemon::Bird => bird(lab, machine, peers, installs),
            Daemon::Frr => frr(lab, machine, peers, installs),
            Daemon::Gobgp => gobgp(lab, machine, peers),
            Daemon::Floor => bail!("the floor is no daemon"),
        }
    }

    /// The process id of weftd.
    ///
    /// # Errors
    /// If it is another daemon.
    pub(super) fn weftd(&mut self) -> Result<u32> {
        let process = self.weft.as_mut().and_then(|weft| weft.process().as_mut());
        Ok(process.context("weftd does not run")?.id())
    }

    /// What all its processes have used so far.
    ///
    /// # Errors
    /// If one of them has ended.
    pub(super) fn usage(&mut self) -> Result<Usage> {
        let mut all = Usage { cpu: 0.0, peak: 0.0 };
        let weft = self.weft.as_mut().and_then(|weft| weft.process().as_mut());
        for process in self.processes.iter_mut().chain(weft) {
            process.ensure_running()?;
            let (cpu, peak) = (processor(process.id())?, peak(process.id())?);
            all = Usage { cpu: all.cpu + cpu, peak: all.peak + peak };
        }
        Ok(all)
    }
}

/// Seconds of the processor that a process has used so far (proc_pid_stat(5)).
fn processor(id: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    // utime and stime are the 14th and 15th of all; the first two are before the parenthesis. A tick is 10 ms.
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(ticks as f64 / 100.0)
}

/// The most memory that was resident, in MiB.
fn peak(id: u32) -> Result<f64> {
    memory(id, "VmHWM:")
}

/// The memory that is resident, in MiB.
pub(super) fn resident(id: u32) -> Result<f64> {
    memory(id, "VmRSS:")
}

/// A size in MiB (proc_pid_status(5)).
fn memory(id: u32, field: &str) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kib: u64 = line
        .and_then(|line| line.split_whitespace().next()?.parse().ok())
        .with_context(|| format!("no {field}"))?;
    Ok(kib as f64 / 1024.0)
}

fn weft(lab: &Lab, machine: &Namespace, peers: &[PeerSpec], installs: bool) -> Result<Running> {
    let mut weft = Weft::new(lab, machine, "weft")?;
    let any = json!([{"action": "Accept"}]);
    let mut all = vec![
        documents::node("weft", &[], &[], &[ADDRESS.into()]),
        documents::bgp_configuration(&json!({
            "asNumber": ASN,
            "nodeToNodeMeshEnabled": false,
            "maxPaths": if installs { 16 } else { 1 },
            "advertiseNodeAddress": "Never",
            "installRoutes": installs,
        })),
        documents::resource(
            "BGPFilter",
            "all",
            &json!({
                "importV4": any,
                "exportV4": [{"source": "RemotePeers", "action": "Accept"}],
            }),
        ),
    ];
    for (number, peer) in peers.iter().enumerate() {
        all.push(documents::bgp_peer(
            &format!("peer-{number}"),
            "weft",
            json!({
                "peerIP": peer.address,
                "asNumber": peer.asn,
                "families": ["ipv4-unicast"],
                "passive": true,
                "filters": ["all"],
                "routeReflectorClient": peer.asn == ASN,
            }),
        ));
    }
    documents::write(&weft.manifests(), "bench.yaml", &all)?;
    weft.start()?;
    wait_until("weftd to know its peers", SHORT, || {
        let known = weft.peers()?.len();
        ensure!(known == peers.len(), "it knows {known} of {}", peers.len());
        Ok(())
    })?;
    Ok(Running { processes: Vec::new(), weft: Some(weft) })
}

fn bird(lab: &Lab, machine: &Namespace, peers: &[PeerSpec], installs: bool) -> Result<Running> {
    let program = foreign_program(&["/usr/sbin/bird"], "bird2")?;
    let client = foreign_program(&["/usr/sbin/birdc"], "bird2")?;
    let directory = lab.directory("bird")?;
    let mut text = format!("router id {ADDRESS};\nprotocol device {{ }}\n");
    if installs {
        text.push_str("protocol kernel { ipv4 { import none; export all; }; merge paths on; }\n");
    }
    for (number, peer) in peers.iter().enumerate() {
        let client = if peer.asn == ASN { " rr client;" } else { "" };
        let _ = writeln!(
            text,
            "protocol bgp p{number} {{ local {ADDRESS} as {ASN}; neighbor {} as {}; passive on;{client} ipv4 {{ import all; export all; }}; }}",
            peer.address, peer.asn
        );
    }
    fs::write(directory.join("bird.conf"), text)?;
    let mut command = machine.command(program);
    command.args(["-f", "-c", "bird.conf", "-s", "bird.ctl", "-P", "bird.pid"]).current_dir(&directory);
    let process = Process::start("bird", &mut command, &lab.log("bird"))?;
    wait_until("BIRD to answer", SHORT, || {
        run(Command::new(&client).args(["-s", "bird.ctl", "show", "status"]).current_dir(&directory), SHORT)?
            .success()
    })?;
    Ok(Running { processes: vec![process], weft: None })
}

fn frr(lab: &Lab, machine: &Namespace, peers: &[PeerSpec], installs: bool) -> Result<Running> {
    let directory = lab.directory("frr")?;
    let user = User::from_name("frr")?.context("there is no user frr: install the Debian package frr")?;
    // It gives up root for a user of its own, who writes its sockets.
    chown(&directory, Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
    let mut text = format!(
        "router bgp {ASN}\n bgp router-id {ADDRESS}\n no bgp ebgp-requires-policy\n no bgp default ipv4-unicast\n \
         no bgp network import-check\n bgp bestpath as-path multipath-relax\n coalesce-time 0\n"
    );
    for peer in peers {
        let address = peer.address;
        let _ = writeln!(text, " neighbor {address} remote-as {}\n neighbor {address} passive", peer.asn);
        let _ = writeln!(text, " neighbor {address} advertisement-interval 0");
    }
    text.push_str(" address-family ipv4 unicast\n");
    for peer in peers {
        let _ = writeln!(text, "  neighbor {} activate", peer.address);
        if peer.asn == ASN {
            let _ = writeln!(text, "  neighbor {} route-reflector-client", peer.address);
        }
    }
    text.push_str(" exit-address-family\n");
    fs::write(directory.join("bgpd.conf"), text)?;
    fs::write(directory.join("zebra.conf"), "")?;
    let mut processes = Vec::new();
    for (name, more) in [("zebra", None), ("bgpd", Some("--no_kernel").filter(|_| !installs))] {
        let program = foreign_program(&[&format!("/usr/lib/frr/{name}")], "frr")?;
        let mut command = machine.command(program);
        command.args(["-P", "0", "--log", "stdout"]).args(more).current_dir(&directory);
        command.arg("-z").arg(directory.join("zserv.api")).arg("--vty_socket").arg(&directory);
        command.arg("-f").arg(directory.join(format!("{name}.conf")));
        command.arg("-i").arg(directory.join(format!("{name}.pid")));
        processes.push(Process::start(name, &mut command, &lab.log("frr"))?);
        let socket = directory.join(format!("{name}.vty"));
        wait_until(format!("{name} to answer"), SHORT, || {
            ensure!(socket.exists(), "{} is not there", socket.display());
            Ok(())
        })?;
    }
    Ok(Running { processes, weft: None })
}

fn gobgp(lab: &Lab, machine: &Namespace, peers: &[PeerSpec]) -> Result<Running> {
    let program = foreign_program(&["/usr/bin/gobgpd", "/usr/sbin/gobgpd"], "gobgpd")?;
    let client = foreign_program(&["/usr/bin/gobgp"], "gobgpd")?;
    let directory = lab.directory("gobgp")?;
    let mut text = format!("[global.config]\nas = {ASN}\nrouter-id = \"{ADDRESS}\"\nport = 179\n");
    for peer in peers {
        let _ = write!(
            text,
            "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"{}\"\npeer-as = {}\n[neighbors.transport.config]\n\
             passive-mode = true\nlocal-address = \"{ADDRESS}\"\n",
            peer.address, peer.asn
        );
        if peer.asn == ASN {
            let _ = write!(
                text,
                "[neighbors.route-reflector.config]\nroute-reflector-client = true\nroute-reflector-cluster-id = \"{ADDRESS}\"\n"
            );
        }
        text.push_str(
            "[[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = \"ipv4-unicast\"\n",
        );
    }
    fs::write(directory.join("gobgpd.toml"), text)?;
    let mut command = machine.command(program);
    command.args([
        "-t",
        "toml",
        "-f",
        "gobgpd.toml",
        "--api-hosts",
        "127.0.0.1:50051",
        "--pprof-disable",
        "-l",
        "error",
    ]);
    let process = Process::start("gobgp", command.current_dir(&directory), &lab.log("gobgp"))?;
    wait_until("gobgpd to know its peers", SHORT + Duration::from_secs(20), || {
        let said = run(machine.command(&client).args(["neighbor", "-j"]), SHORT)?.success()?.stdout;
        let known = said.matches("\"neighbor_address\"").count();
        ensure!(known >= peers.len(), "it knows {known} of {}", peers.len());
        Ok(())
    })?;
    Ok(Running { processes: vec![process], weft: None })
}
