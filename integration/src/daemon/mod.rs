//! The daemons that a lab runs, ours and other people's, each driven through what its own operators use.

pub mod bird;
pub mod exabgp;
pub mod frr;
pub mod gobgp;
pub mod openbgpd;
pub mod weft;
pub mod weft_router;

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use anyhow::{Context as _, Result, bail, ensure};
use ipnet::IpNet;
use nix::sys::signal::Signal;
use weft_bgp::policy::Community;
use weft_bgp::role::Role;

use crate::lab::Lab;
use crate::netns::Namespace;
use crate::process::Process;

/// An address family of the lab. In order: IPv4 first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// As `families` of a BGPPeer spells it.
    #[must_use]
    pub fn unicast(self) -> &'static str {
        match self {
            Self::V4 => "ipv4-unicast",
            Self::V6 => "ipv6-unicast",
        }
    }
}

/// What runs a router of the lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Software {
    /// weftd with transit opened by filters.
    Weft,
    /// BIRD 2.
    Bird,
    /// FRR's zebra and bgpd.
    Frr,
    /// GoBGP, which writes no kernel routes.
    Gobgp,
    /// OpenBGPD, which writes none on Linux.
    Openbgpd,
}

impl Software {
    /// All of other people's.
    pub const FOREIGN: [Self; 4] = [Self::Bird, Self::Frr, Self::Gobgp, Self::Openbgpd];

    /// Whether it writes what it learns to the kernel.
    #[must_use]
    pub fn forwards(self) -> bool {
        !matches!(self, Self::Gobgp | Self::Openbgpd)
    }
}

impl fmt::Display for Software {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Weft => "weft",
            Self::Bird => "bird",
            Self::Frr => "frr",
            Self::Gobgp => "gobgp",
            Self::Openbgpd => "openbgpd",
        })
    }
}

impl FromStr for Software {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "weft" => Self::Weft,
            "bird" => Self::Bird,
            "frr" => Self::Frr,
            "gobgp" => Self::Gobgp,
            other => bail!("{other:?} is no router software of the lab; there are weft, bird, frr and gobgp"),
        })
    }
}

/// What a router of the lab should be. It passes on to each neighbor what it learned from the others.
#[derive(Clone, Debug)]
pub struct RouterConfig {
    /// Its name in the lab.
    pub name: String,
    /// Its AS.
    pub asn: u32,
    /// Its BGP identifier.
    pub router_id: Ipv4Addr,
    /// Its own addresses, on `lo`.
    pub addresses: Vec<IpAddr>,
    /// What it announces as its own.
    pub originate: BTreeSet<IpNet>,
    /// Who it speaks with.
    pub neighbors: Vec<Neighbor>,
    /// The hold time that it offers, in seconds; at least 3.
    pub hold_time: u16,
    /// Whether its internal neighbors are its route reflector clients (RFC 4456).
    pub reflects: bool,
    /// Whether it tells each neighbor several paths of a prefix, and takes several (RFC 7911).
    pub add_path: bool,
    /// Settings of each neighbor besides, in the router's own words: BIRD's within the protocol, OpenBGPD's within the neighbor, GoBGP's within
    /// `graceful-restart.config`, FRR's of the whole router. Weft's own takes none.
    pub extra: String,
    /// Whether it offers graceful restart (RFC 4724), and keeps the routes of a neighbor that restarts.
    pub graceful_restart: bool,
    /// For how many seconds it keeps the routes of a neighbor that has been away for longer than its restart time (RFC 9494), if it does;
    /// the own restart time is 2 s then. Needs `graceful_restart`.
    pub long_lived: Option<u32>,
    /// What its sessions are signed with (TCP-MD5, RFC 2385).
    pub password: Option<String>,
    /// How many hops away its neighbors are to be at most (GTSM, RFC 5082), if that is looked at; BIRD and FRR alone.
    pub ttl_security: Option<u8>,
    /// What its AS is to those of its neighbors, which have to say their roles too (RFC 9234); BIRD and FRR alone.
    pub role: Option<Role>,
    /// Whether it dials again after a second, and not when its own timers say so. Weft's own has timers that suit.
    pub dials_every_second: bool,
    /// Whether it tells IPv4 prefixes with IPv6 next hops over sessions of IPv6 where the neighbor does too (RFC 8950); BIRD and FRR alone. On
    /// link-local addresses it does so unasked.
    pub extended_next_hop: bool,
    /// The communities that it attaches to all that it tells; BIRD and FRR alone.
    pub communities: BTreeSet<Community>,
    /// The MED of all that it tells; BIRD and FRR alone.
    pub med: Option<u32>,
    /// BFD with all neighbors, if any; GoBGP has none.
    pub bfd: Option<Bfd>,
}

/// How a router's BFD runs.
#[derive(Clone, Copy, Debug)]
pub struct Bfd {
    /// Between two packets, both ways, in milliseconds.
    pub interval: u32,
    /// How many in a row may be missing.
    pub multiplier: u8,
    /// Whether the neighbors may be behind routers (RFC 5883), for BGP too.
    pub multihop: bool,
}

impl RouterConfig {
    /// A router without neighbors, with a hold time of 9 s and graceful restart.
    #[must_use]
    pub fn new(name: impl Into<String>, asn: u32, router_id: Ipv4Addr) -> Self {
        Self {
            name: name.into(),
            asn,
            router_id,
            addresses: Vec::new(),
            originate: BTreeSet::new(),
            neighbors: Vec::new(),
            hold_time: 9,
            reflects: false,
            add_path: false,
            extra: String::new(),
            graceful_restart: true,
            long_lived: None,
            password: None,
            ttl_security: None,
            role: None,
            dials_every_second: true,
            extended_next_hop: false,
            communities: BTreeSet::new(),
            med: None,
            bfd: None,
        }
    }
}

/// One session of a router.
#[derive(Clone, Debug)]
pub struct Neighbor {
    /// The name of the machine at the other end.
    pub name: String,
    /// Its address. A link-local one, which BIRD alone takes, is on the interface that is named as that machine.
    pub address: IpAddr,
    /// Its AS.
    pub asn: u32,
    /// The own address on the link to it.
    pub local: IpAddr,
    /// What the session carries.
    pub families: Vec<Family>,
}

/// A path in the table of a router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// The next hops as announced.
    pub next_hops: Vec<IpAddr>,
    /// The AS path.
    pub as_path: Vec<u32>,
    /// ORIGINATOR_ID.
    pub originator: Option<Ipv4Addr>,
    /// CLUSTER_LIST.
    pub cluster_list: Vec<Ipv4Addr>,
    /// Its communities of every kind.
    pub communities: BTreeSet<Community>,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// LOCAL_PREF.
    pub local_pref: Option<u32>,
    /// ONLY_TO_CUSTOMER; GoBGP and OpenBGPD tell none.
    pub only_to_customer: Option<u32>,
    /// Whether it is the best.
    pub best: bool,
}

/// A BGP router that a lab can start, kill and ask.
pub trait Router: fmt::Debug + Send {
    /// What it runs.
    fn software(&self) -> Software;

    /// How it calls its own version.
    ///
    /// # Errors
    /// If the program is not there.
    fn version(&self) -> Result<String>;

    /// The name of the machine that it runs on.
    fn name(&self) -> &str;

    /// Starts its daemons and waits until they answer.
    ///
    /// # Errors
    /// If they do not.
    fn start(&mut self) -> Result<()>;

    /// The daemon that speaks BGP, while it runs.
    fn daemon(&mut self) -> &mut Option<Process>;

    /// Announces exactly `prefixes` as its own from now on, in the running daemon.
    ///
    /// # Errors
    /// If the daemon refuses.
    fn originate(&mut self, prefixes: &BTreeSet<IpNet>) -> Result<()>;

    /// Signs its sessions with this from now on, in the running daemon; with none, no more.
    ///
    /// # Errors
    /// If the daemon refuses, or the lab does not know how to tell it.
    fn set_password(&mut self, _password: Option<&str>) -> Result<()> {
        bail!("the lab does not know how to change a password of {}", self.software())
    }

    /// Is this to its neighbors' ASes from now on, in the running daemon.
    ///
    /// # Errors
    /// If the daemon refuses, or the lab does not know how to tell it.
    fn set_role(&mut self, _role: Role) -> Result<()> {
        bail!("the lab does not know how to change the role of {}", self.software())
    }

    /// What its own client says to a question or command.
    ///
    /// # Errors
    /// If the client fails.
    fn ask(&self, question: &str) -> Result<String>;

    /// Whether the session with a neighbor is Established.
    ///
    /// # Errors
    /// If the daemon does not answer.
    fn established(&self, neighbor: IpAddr) -> Result<bool>;

    /// The paths to exactly `prefix` that it learned by BGP. None: no route.
    ///
    /// # Errors
    /// If the daemon does not answer.
    fn paths(&self, prefix: IpNet) -> Result<Vec<Path>>;

    /// Whether BFD with a neighbor is Up.
    ///
    /// # Errors
    /// If the daemon does not answer, or has no BFD.
    fn bfd_up(&self, neighbor: IpAddr) -> Result<bool> {
        bail!("{} ({}) tells nothing of BFD with {neighbor}", self.name(), self.software())
    }

    /// Lets its daemons go on after this value is gone.
    fn leave_running(&mut self) {
        if let Some(process) = self.daemon().take() {
            process.leave_running();
        }
    }

    /// Kills the BGP daemon with SIGKILL.
    ///
    /// # Errors
    /// If it does not run.
    fn kill9(&mut self) -> Result<()> {
        let name = self.name().to_owned();
        self.daemon().take().with_context(|| format!("{name} does not run"))?.kill9()
    }

    /// Sends a signal to the BGP daemon; SIGSTOP makes of it a peer that holds its connections and is silent.
    ///
    /// # Errors
    /// If it does not run.
    fn signal(&mut self, signal: Signal) -> Result<()> {
        let name = self.name().to_owned();
        self.daemon().as_mut().with_context(|| format!("{name} does not run"))?.signal(signal)
    }

    /// Fails unless the session with a neighbor is Established.
    ///
    /// # Errors
    /// If it is not, or the daemon does not answer.
    fn ensure_established(&self, neighbor: IpAddr) -> Result<()> {
        ensure!(
            self.established(neighbor)?,
            "{}: the session with {neighbor} is not Established",
            self.name()
        );
        Ok(())
    }

    /// Fails unless there is a best path to exactly `prefix`; returns it.
    ///
    /// # Errors
    /// If there is none, or the daemon does not answer.
    fn best(&self, prefix: IpNet) -> Result<Path> {
        let paths = self.paths(prefix)?;
        paths
            .into_iter()
            .find(|path| path.best)
            .with_context(|| format!("{} has no best path to {prefix}", self.name()))
    }

    /// Fails if there is any path to exactly `prefix`.
    ///
    /// # Errors
    /// If there is one, or the daemon does not answer.
    fn ensure_no_path(&self, prefix: IpNet) -> Result<()> {
        let paths = self.paths(prefix)?;
        ensure!(paths.is_empty(), "{} still has {prefix}: {paths:?}", self.name());
        Ok(())
    }
}

/// Makes a router of `namespace`, not started. Its links, but not its addresses on `lo`, are the caller's.
///
/// # Errors
/// If its configuration cannot be written or its software is not installed.
pub fn router(
    lab: &Lab,
    namespace: &Namespace,
    software: Software,
    config: RouterConfig,
) -> Result<Box<dyn Router>> {
    let plain = config.communities.is_empty()
        && config.med.is_none()
        && config.role.is_none()
        && config.ttl_security.is_none();
    ensure!(
        plain || matches!(software, Software::Bird | Software::Frr),
        "{software} attaches nothing in this lab, and knows neither roles nor GTSM"
    );
    namespace.forward()?;
    let commands: Vec<String> =
        config.addresses.iter().map(|address| format!("addr add {address} dev lo")).collect();
    namespace.ip(&commands.join("\n"))?;
    Ok(match software {
        Software::Weft => Box::new(weft_router::WeftRouter::new(lab, namespace, config)?),
        Software::Bird => Box::new(bird::Bird::new(lab, namespace, config)?),
        Software::Frr => Box::new(frr::Frr::new(lab, namespace, config)?),
        Software::Gobgp => Box::new(gobgp::Gobgp::new(lab, namespace, config)?),
        Software::Openbgpd => Box::new(openbgpd::Openbgpd::new(lab, namespace, config)?),
    })
}
