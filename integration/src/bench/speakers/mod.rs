//! How fast BGP speakers are beside each other: tables in, decided on, and out.
//!
//! Every run has a machine for the daemon and one for its peers, who are one thread of this program. Daemons take turns, so that what
//! else the machine does meets all alike: ratios within one run say something, absolute times little.

pub mod checks;
mod daemons;
mod fib;
mod kernel;
pub mod model;
pub mod peers;
mod report;
pub mod routes;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;

pub use self::daemons::Daemon;
use self::daemons::{ADDRESS, ASN, Running};
use self::model::Model;
use self::peers::{PeerSpec, Peers, Terms};
use self::report::Outcome;
pub use self::report::{Report, Scenario};
use self::routes::{Prefix, Table};
use crate::lab::Lab;
use crate::link::{End, Link};
use crate::netns::Namespace;
use crate::wait::now;

/// A daemon that takes longer is stopped, and said to have.
const LIMIT: Duration = Duration::from_secs(60);
/// How many next hops the routes in the kernel have.
const NEXT_HOPS: u32 = 16;
/// How long sessions may take to be Established.
const SESSIONS: Duration = Duration::from_secs(60);
/// How long it is quiet before anything begins.
const SETTLE: Duration = Duration::from_millis(1500);
/// No UPDATE for so long is the end.
const QUIET: Duration = Duration::from_secs(2);

/// How much is measured.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Which scenarios.
    pub scenarios: Vec<Scenario>,
    /// Which daemons.
    pub daemons: Vec<Daemon>,
    /// How often each.
    pub runs: usize,
    /// One in so many of the routes that the scenarios are stated for.
    pub fraction: usize,
}

/// Measures according to `plan`, until done or told to `stop`: then the report is of what was measured. A daemon that is not installed is
/// left out. `told` hears of every run.
///
/// # Errors
/// If namespaces cannot be made, a daemon does not come up, or weftd tells something else than it should. A daemon that takes too long is
/// no error here.
pub fn run(plan: &Plan, stop: &AtomicBool, mut told: impl FnMut(&str)) -> Result<Report> {
    let mut report = Report::new(plan.fraction.max(1));
    let mut daemons = Vec::new();
    for daemon in &plan.daemons {
        match daemon.version() {
            Ok(version) => daemons.push((*daemon, version)),
            Err(why) => report.leave_out(*daemon, &format!("{why:#}")),
        }
    }
    let wanted = |bench: &Bench| plan.scenarios.iter().any(|scenario| bench.shows(*scenario));
    for bench in Bench::ALL.into_iter().filter(wanted) {
        let mut loads = vec![Load::new(bench, plan.fraction.max(1))];
        if bench == Bench::Failover {
            // The time is not to depend on how many there are.
            loads.push(Load::new(bench, plan.fraction.max(1).saturating_mul(10)));
        }
        let mut daemons: Vec<_> = daemons.iter().filter(|(daemon, _)| bench.is_for(*daemon)).collect();
        for _ in 0..plan.runs {
            let turns = daemons.iter().flat_map(|daemon| loads.iter().map(move |load| (*daemon, load)));
            for ((daemon, version), load) in turns {
                if stop.load(Ordering::Relaxed) {
                    return Ok(report);
                }
                Lab::test(|lab| {
                    for (scenario, outcome) in one(lab, *daemon, load)? {
                        told(&format!("{scenario} {daemon} {:.3} s", outcome.wall));
                        report.record(scenario, *daemon, version, load.prefixes, outcome);
                    }
                    Ok(())
                })
                .with_context(|| format!("{daemon} under {bench:?}"))?;
            }
            let turn = 1.min(daemons.len());
            daemons.rotate_left(turn);
        }
    }
    Ok(report)
}

/// What is set up once, and shows one scenario or more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bench {
    /// A, B and C: one peer tells a large table.
    Internet,
    /// D: ten tell the same prefixes.
    Ten,
    /// E: a hundred clients of a reflector.
    Reflector,
    /// F and G: into the kernel, and out of it.
    Kernel,
    /// H: a next hop is lost.
    Failover,
}

impl Bench {
    const ALL: [Self; 5] = [Self::Internet, Self::Ten, Self::Reflector, Self::Kernel, Self::Failover];

    fn shows(self, scenario: Scenario) -> bool {
        match self {
            Self::Internet => matches!(scenario, Scenario::A | Scenario::B | Scenario::C),
            Self::Ten => scenario == Scenario::D,
            Self::Reflector => scenario == Scenario::E,
            Self::Kernel => matches!(scenario, Scenario::F | Scenario::G),
            Self::Failover => scenario == Scenario::H,
        }
    }

    /// Whether routes go into the kernel.
    fn installs(self) -> bool {
        matches!(self, Self::Kernel | Self::Failover)
    }

    /// Whether a daemon takes part.
    fn is_for(self, daemon: Daemon) -> bool {
        match daemon {
            Daemon::Weft | Daemon::Bird | Daemon::Frr => true,
            Daemon::Gobgp => !self.installs(),
            Daemon::Floor => self.installs(),
        }
    }
}

/// The peers of a daemon, and how many prefixes the sinks are to have in the end.
#[derive(Debug)]
struct Load {
    bench: Bench,
    peers: Vec<PeerSpec>,
    prefixes: usize,
}

impl Load {
    fn new(bench: Bench, fraction: usize) -> Self {
        let sink = |number: u32| PeerSpec {
            address: peer_address(number),
            asn: 65_100 + number,
            table: Arc::default(),
            own: Vec::new(),
        };
        let injector = |number: u32, table: Table| PeerSpec { table: Arc::new(table), ..sink(number) };
        match bench {
            Bench::Internet => {
                let prefixes = routes::internet_prefixes(1_000_000 / fraction, 1);
                let table = routes::internet(&prefixes, 107_457 / fraction, 2, 65_101, &[peer_address(1)]);
                Self { bench, peers: vec![injector(1, table), sink(2), sink(3)], prefixes: prefixes.len() }
            }
            Bench::Ten => {
                let prefixes = routes::internet_prefixes(100_000 / fraction, 3);
                let mut peers = vec![sink(11)];
                peers.extend((1..=10).map(|number| {
                    let (asn, address) = (65_100 + number, peer_address(number));
                    injector(
                        number,
                        routes::internet(&prefixes, 10_800 / fraction, number.into(), asn, &[address]),
                    )
                }));
                Self { bench, peers, prefixes: prefixes.len() }
            }
            Bench::Reflector => {
                let each = u32::try_from(1000 / fraction).unwrap_or(1).max(1);
                let peers = (1..=100).map(|number| {
                    let table = routes::blocks((number - 1) * each, each, peer_address(number));
                    let own = table.sets.iter().flat_map(|(_, prefixes)| prefixes).copied().collect();
                    PeerSpec { asn: ASN, own, ..injector(number, table) }
                });
                Self { bench, peers: peers.collect(), prefixes: 99 * each as usize }
            }
            Bench::Kernel => {
                let prefixes = routes::internet_prefixes(100_000 / fraction, 5);
                let hops: Vec<_> = (0..NEXT_HOPS).map(|number| peer_address(1000 + number)).collect();
                let table = routes::internet(&prefixes, 10_800 / fraction, 6, 65_101, &hops);
                Self { bench, peers: vec![injector(1, table)], prefixes: prefixes.len() }
            }
            Bench::Failover => {
                let prefixes = routes::internet_prefixes(100_000 / fraction, 7);
                let peers = [1, 2].map(|number| {
                    injector(number, routes::plain(&prefixes, 65_100 + number, peer_address(number)))
                });
                Self { bench, peers: peers.into(), prefixes: prefixes.len() }
            }
        }
    }
}

impl Load {
    /// The first peer's.
    fn prefixes(&self) -> Vec<Prefix> {
        self.peers
            .iter()
            .take(1)
            .flat_map(|peer| &peer.table.sets)
            .flat_map(|(_, all)| all)
            .copied()
            .collect()
    }

    /// Fails if the peer `number` of weftd was not told what it ought to have been. What the others tell is theirs.
    fn check(&self, peers: &Peers, number: usize, daemon: Daemon) -> Result<()> {
        if daemon != Daemon::Weft {
            return Ok(());
        }
        let model = match self.bench {
            Bench::Internet | Bench::Ten | Bench::Kernel | Bench::Failover => {
                let injectors = self.peers.iter().filter(|peer| !peer.table.sets.is_empty());
                Model::of_best(&injectors.collect::<Vec<_>>(), ASN)
            }
            Bench::Reflector => {
                let others = self.peers.iter().enumerate().filter(|(other, _)| *other != number);
                Model::of_clients(others.map(|(_, peer)| peer), ADDRESS)
            }
        };
        model
            .ensure_is(&told(peers, number)?)
            .with_context(|| format!("what the peer {number} was told by {daemon}"))
    }
}

/// What a peer has been told in the end.
fn told(peers: &Peers, number: usize) -> Result<Model> {
    Model::of_updates(peers.all().get(number).map_or(&[][..], |peer| peer.updates()))
}

fn peer_address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(172, 30, 0, 0)) + number)
}

/// One daemon's turn.
fn one(lab: &Lab, daemon: Daemon, load: &Load) -> Result<Vec<(Scenario, Outcome)>> {
    let (machine, other) = cable(lab, &load.peers)?;
    if daemon == Daemon::Floor {
        let scenario = if load.bench == Bench::Failover { Scenario::H } else { Scenario::F };
        return fib::floor(&machine, scenario, load);
    }
    let running = Running::start(lab, &machine, daemon, &load.peers, load.bench.installs())?;
    // FRR's bgpd refuses whoever comes before it has heard of the links from zebra.
    thread::sleep(SETTLE);
    inside(&other, || match load.bench {
        Bench::Internet => internet(daemon, running, load),
        Bench::Ten => ten(daemon, running, load),
        Bench::Reflector => reflector(daemon, running, load),
        Bench::Kernel => fib::learned(&machine, running, load),
        Bench::Failover => fib::failover(&machine, running, load),
    })
}

/// Machines for a daemon and its peers, with a cable between them.
fn cable(lab: &Lab, peers: &[PeerSpec]) -> Result<(Namespace, Namespace)> {
    let (machine, other) = (lab.machine("daemon")?, lab.machine("peers")?);
    let link = Link::new(End::new(&machine, "peers"), End::new(&other, "daemon"))?;
    link.near.add_addresses(&[format!("{ADDRESS}/16").parse()?])?;
    let own = peers.iter().map(|peer| Ok(format!("{}/16", peer.address).parse()?));
    link.far.add_addresses(&own.collect::<Result<Vec<_>>>()?)?;
    Ok((machine, other))
}

fn inside<T: Send>(machine: &Namespace, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    machine.run(work)?
}

/// What happens between a beginning and its end, watched.
struct Watch<'a> {
    running: &'a mut Running,
    before: f64,
    own: Duration,
}

impl<'a> Watch<'a> {
    fn begin(running: &'a mut Running) -> Result<Self> {
        let before = running.usage()?.cpu;
        Ok(Self { running, before, own: own_processor()? })
    }

    /// The outcome of what took so long, if it was in time.
    fn end(self, took: Option<Duration>) -> Result<Outcome> {
        let usage = self.running.usage()?;
        Ok(Outcome {
            wall: took.unwrap_or(LIMIT).as_secs_f64(),
            cpu: usage.cpu - self.before,
            peak: usage.peak,
            timed_out: took.is_none(),
            peers_cpu: (own_processor()?.saturating_sub(self.own)).as_secs_f64(),
            announced: None,
        })
    }
}

/// What this thread has used of the processor.
fn own_processor() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_THREAD)?;
    let microseconds = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(Duration::from_micros(u64::try_from(microseconds)?))
}

fn established(peers: &mut Peers) -> Result<()> {
    ensure!(
        peers.run(SESSIONS, Peers::are_established)?,
        "the sessions are not Established after {SESSIONS:?}"
    );
    peers.run(SETTLE, |_| false)?;
    Ok(())
}

/// How long until `done`; none: too long.
fn until(peers: &mut Peers, done: impl FnMut(&Peers) -> bool) -> Result<Option<Duration>> {
    let start = now();
    Ok(peers.run(LIMIT, done)?.then(|| start.elapsed()))
}

fn has(peers: &Peers, number: usize, prefixes: usize) -> bool {
    peers.all().get(number).is_some_and(|peer| peer.has() == prefixes)
}

fn internet(daemon: Daemon, mut running: Running, load: &Load) -> Result<Vec<(Scenario, Outcome)>> {
    let [injector, first, second] = load.peers.as_slice() else { return Ok(Vec::new()) };
    let (mut peers, mut outcomes) = (Peers::new(Terms::default())?, Vec::new());
    let injector = peers.connect(injector, ADDRESS)?;
    let first = peers.connect(first, ADDRESS)?;
    established(&mut peers)?;

    let watch = Watch::begin(&mut running)?;
    peers.tell(injector);
    let took = until(&mut peers, |peers| has(peers, first, load.prefixes))?;
    outcomes.push((Scenario::A, watch.end(took)?));
    if took.is_none() {
        return Ok(outcomes);
    }
    peers.run(SETTLE, |_| false)?;
    load.check(&peers, first, daemon)?;

    let watch = Watch::begin(&mut running)?;
    let second = peers.connect(second, ADDRESS)?;
    let took = until(&mut peers, |peers| has(peers, second, load.prefixes))?;
    outcomes.push((Scenario::B, watch.end(took)?));
    if took.is_none() {
        return Ok(outcomes);
    }
    peers.run(SETTLE, |_| false)?;
    load.check(&peers, second, daemon)?;

    let watch = Watch::begin(&mut running)?;
    peers.reset(injector)?;
    let took = until(&mut peers, |peers| has(peers, first, 0) && has(peers, second, 0))?;
    outcomes.push((Scenario::C, watch.end(took)?));
    if took.is_some() && daemon == Daemon::Weft {
        for sink in [first, second] {
            Model::default().ensure_is(&told(&peers, sink)?)?;
        }
    }
    Ok(outcomes)
}

fn ten(daemon: Daemon, mut running: Running, load: &Load) -> Result<Vec<(Scenario, Outcome)>> {
    let mut peers = Peers::new(Terms::default())?;
    for spec in &load.peers {
        peers.connect(spec, ADDRESS)?;
    }
    established(&mut peers)?;
    let watch = Watch::begin(&mut running)?;
    let start = now();
    (1..load.peers.len()).for_each(|number| peers.tell(number));
    // The end is the last UPDATE before it is quiet.
    let last = |peers: &Peers| peers.all().first().and_then(|sink| sink.last_update()).unwrap_or(start);
    let complete = until(&mut peers, |peers| {
        has(peers, 0, load.prefixes) && now().saturating_duration_since(last(peers)) >= QUIET
    })?;
    let took = complete.map(|_| last(&peers).saturating_duration_since(start));
    let mut outcome = watch.end(took)?;
    outcome.announced = peers.all().first().map(|sink| sink.told().announced);
    if took.is_some() {
        load.check(&peers, 0, daemon)?;
    }
    Ok(vec![(Scenario::D, outcome)])
}

fn reflector(daemon: Daemon, mut running: Running, load: &Load) -> Result<Vec<(Scenario, Outcome)>> {
    let mut peers = Peers::new(Terms::default())?;
    for spec in &load.peers {
        peers.connect(spec, ADDRESS)?;
    }
    established(&mut peers)?;
    let watch = Watch::begin(&mut running)?;
    (0..load.peers.len()).for_each(|number| peers.tell(number));
    let took =
        until(&mut peers, |peers| (0..load.peers.len()).all(|number| has(peers, number, load.prefixes)))?;
    let mut outcome = watch.end(took)?;
    outcome.announced = Some(peers.all().iter().map(|peer| peer.told().announced).sum());
    if took.is_some() {
        peers.run(SETTLE, |_| false)?;
        (0..load.peers.len()).try_for_each(|number| load.check(&peers, number, daemon))?;
    }
    Ok(vec![(Scenario::E, outcome)])
}
