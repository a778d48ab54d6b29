//! Whether weftd is right under load too: each check fails unless every sink has been told what the model says, octet by octet of the
//! path attributes. What it cost is reported.

mod changes;
mod churn;
mod idle;
mod many;
mod slow_peer;
mod wake_ups;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde::Serialize;

use super::daemons::{ADDRESS, Daemon, Running};
use super::peers::{Peer, PeerSpec, Peers, Terms};
use super::report::Outcome;
use super::routes::Table;
use super::{SESSIONS, cable, inside, peer_address};
use crate::lab::Lab;

/// The least, the first and the most octets of a socket's send buffer (tcp(7)): what is in there has been said, and cannot be taken back.
const SEND_BUFFER: &str = "4096 16384 131072";
/// How long it is quiet after the sessions are up.
const SETTLE: Duration = Duration::from_millis(300);

/// What is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Check {
    /// One of two sinks stops reading within the table, while routes change.
    SlowPeer,
    /// Routes of several injectors change 10,000 times a second.
    Churn,
    /// 200 peers tell each other routes that change, and some of them are reset.
    Peers,
    /// Tables come and go again and again, of peers that say nothing else.
    WakeUps,
    /// Nothing happens.
    Idle,
}

impl Check {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::SlowPeer, Self::Churn, Self::Peers, Self::WakeUps, Self::Idle];

    /// Checks, with one in `fraction` of the routes or of the time.
    ///
    /// # Errors
    /// What is not as it should be.
    pub fn run(self, fraction: usize) -> Result<Vec<Figures>> {
        let fraction = fraction.max(1);
        match self {
            Self::SlowPeer => slow_peer::check(fraction),
            Self::Churn => churn::check(fraction),
            Self::Peers => many::check(fraction),
            Self::WakeUps => wake_ups::check(fraction),
            Self::Idle => idle::check(fraction),
        }
        .with_context(|| format!("the check {self}"))
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::SlowPeer => "slow-peer",
            Self::Churn => "churn",
            Self::Peers => "peers",
            Self::WakeUps => "wake-ups",
            Self::Idle => "idle",
        })
    }
}

impl FromStr for Check {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match Self::ALL.into_iter().find(|check| check.to_string() == text) {
            Some(check) => Ok(check),
            None => bail!("{text:?} is no check; there are slow-peer, churn, peers, wake-ups and idle"),
        }
    }
}

/// What a part of a check cost.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    /// What was checked.
    pub check: String,
    /// Which part of it.
    pub part: String,
    /// Seconds.
    pub wall_seconds: f64,
    /// Seconds of the processor that weftd used.
    pub cpu_seconds: f64,
    /// The most memory that weftd had so far, in MiB.
    #[serde(rename = "peakMB")]
    pub peak_mb: f64,
    /// Seconds of the processor that the peers used.
    pub peers_cpu_seconds: f64,
    /// Messages with routes that the sinks were told.
    pub updates: u64,
    /// Prefixes that they were told, each as often as they were.
    pub announced: u64,
    /// What else is to be known.
    pub note: String,
}

impl Figures {
    fn new(check: Check, part: &str, outcome: &Outcome, sinks: Told) -> Self {
        Self {
            check: check.to_string(),
            part: part.to_owned(),
            wall_seconds: outcome.wall,
            cpu_seconds: outcome.cpu,
            peak_mb: outcome.peak,
            peers_cpu_seconds: outcome.peers_cpu,
            updates: sinks.updates,
            announced: sinks.announced,
            note: String::new(),
        }
    }

    fn note(self, note: String) -> Self {
        Self { note, ..self }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<10} {:<28} {:>8.3} {:>8.3} {:>7.1} {:>10.3} {:>9} {:>10}  {}",
            self.check,
            self.part,
            self.wall_seconds,
            self.cpu_seconds,
            self.peak_mb,
            self.peers_cpu_seconds,
            self.updates,
            self.announced,
            self.note
        )
    }
}

/// The words over columns of [`Figures`].
#[must_use]
pub fn header() -> String {
    format!(
        "{:<10} {:<28} {:>8} {:>8} {:>7} {:>10} {:>9} {:>10}",
        "check", "part", "wall s", "CPU s", "peak MB", "peers' CPU", "UPDATEs", "announced"
    )
}

/// What peers were told since a moment.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    updates: u64,
    announced: u64,
}

impl Told {
    /// What these were so far.
    fn so_far(peers: &Peers, numbers: &[usize]) -> Self {
        let all = numbers.iter().filter_map(|number| peers.all().get(*number)).map(Peer::told);
        all.fold(Self::default(), |sum, told| Self {
            updates: sum.updates + told.updates,
            announced: sum.announced + told.announced,
        })
    }

    fn since(self, before: Self) -> Self {
        Self { updates: self.updates - before.updates, announced: self.announced - before.announced }
    }
}

/// An external peer.
fn external(number: u32, table: Table) -> PeerSpec {
    PeerSpec { address: peer_address(number), asn: 65_100 + number, table: Arc::new(table), own: Vec::new() }
}

/// Has `work` be these peers of a weftd of their own.
fn beside_weftd<T: Send>(
    specs: &[PeerSpec],
    installs: bool,
    work: impl FnOnce(Running) -> Result<T> + Send,
) -> Result<T> {
    let mut done = None;
    Lab::test(|lab| {
        let (machine, other) = cable(lab, specs)?;
        machine.set_sysctl("net/ipv4/tcp_wmem", SEND_BUFFER)?;
        let running = Running::start(lab, &machine, Daemon::Weft, specs, installs)?;
        done = Some(inside(&other, || work(running))?);
        Ok(())
    })?;
    done.context("nothing was done")
}

/// These peers, with their sessions up.
fn connect(specs: &[PeerSpec], terms: Terms) -> Result<Peers> {
    let mut peers = Peers::new(terms)?;
    for spec in specs {
        peers.connect(spec, ADDRESS)?;
    }
    established(&mut peers)?;
    peers.run(SETTLE, |_| false)?;
    Ok(peers)
}

fn established(peers: &mut Peers) -> Result<()> {
    ensure!(
        peers.run(SESSIONS, Peers::are_established)?,
        "the sessions are not Established after {SESSIONS:?}"
    );
    Ok(())
}
