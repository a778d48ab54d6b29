//! Routes from a session into the kernel, out of it again, and around a dead next hop; and the kernel's own share of that.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use weft_routing::netlink::{LinkName, Socket};

use super::daemons::{ADDRESS, Running};
use super::kernel::{self, Kernel};
use super::peers::{Peers, Terms};
use super::report::{Outcome, Scenario};
use super::routes::Prefix;
use super::{LIMIT, Load, SETTLE, Watch, established, own_processor};
use crate::netns::Namespace;
use crate::wait::now;

/// How many of the routes are looked up while all are written.
const PROBES: usize = 500;
/// The same where single milliseconds count: all are looked up once more when the routes lead elsewhere, 5 to 10 µs each.
const FEW_PROBES: usize = 100;
/// How many are looked up at once.
const PROBES_AT_ONCE: usize = 32;
/// Between two looks.
const LOOK: Duration = Duration::from_millis(1);
/// The same where single milliseconds count.
const SHORT_LOOK: Duration = Duration::from_micros(200);
/// The number of the first nexthop object of ours, and of the group.
const FIRST_OBJECT: u32 = 100;
const GROUP: u32 = 1;

/// Prefixes that are looked up in turn: each until it is as it should be. Which they are is chosen so that whoever writes routes in
/// whatever order has written nearly all when they are there.
struct Probes {
    prefixes: Vec<Prefix>,
    next: usize,
}

impl Probes {
    fn new(load: &Load, count: usize) -> Self {
        let all: Vec<Prefix> = load.prefixes().into_iter().filter(|prefix| prefix.length == 24).collect();
        let step = (all.len() / count).max(1);
        Self { prefixes: all.into_iter().step_by(step).collect(), next: 0 }
    }

    /// Goes on while they are as they should be; says whether all are.
    fn look(&mut self, is_good: &mut impl FnMut(Prefix) -> Result<bool>) -> Result<bool> {
        for _ in 0..PROBES_AT_ONCE {
            match self.prefixes.get(self.next) {
                None => return Ok(true),
                Some(prefix) if is_good(*prefix)? => self.next += 1,
                Some(_) => return Ok(false),
            }
        }
        Ok(false)
    }

    /// Waits for all, with the peers alive. How long it took since `start`.
    fn until(
        &mut self,
        start: Instant,
        peers: &mut Peers,
        mut is_good: impl FnMut(Prefix) -> Result<bool>,
    ) -> Result<Option<Duration>> {
        loop {
            let before = self.next;
            if self.look(&mut is_good)? {
                return Ok(Some(start.elapsed()));
            }
            if start.elapsed() > LIMIT {
                return Ok(None);
            }
            // What is good already is gone through at once.
            let pause = if self.next == before { LOOK } else { Duration::ZERO };
            peers.run(pause, |_| false)?;
        }
    }
}

/// F and G: one peer's routes come, and go with its session.
pub(super) fn learned(
    machine: &Namespace,
    mut running: Running,
    load: &Load,
) -> Result<Vec<(Scenario, Outcome)>> {
    let (mut peers, mut outcomes) = (Peers::new(Terms::default())?, Vec::new());
    let mut kernel = machine.run(Kernel::new)??;
    let injector = load.peers.first().context("no peer")?;
    let injector = peers.connect(injector, ADDRESS)?;
    established(&mut peers)?;
    for (scenario, present) in [(Scenario::F, true), (Scenario::G, false)] {
        let watch = Watch::begin(&mut running)?;
        let mut probes = Probes::new(load, PROBES);
        let start = now();
        match present {
            true => peers.tell(injector),
            false => peers.reset(injector)?,
        }
        let mut took = probes.until(start, &mut peers, |prefix| {
            Ok((kernel.matched(prefix.address)? == Some(prefix.length)) == present)
        })?;
        // The last ones may be none of those that were looked up. What counts is when a look began that found them all.
        let wanted = if present { load.prefixes } else { 0 };
        while took.is_some() && kernel.gained()? != wanted {
            peers.run(LOOK, |_| false)?;
            took = Some(start.elapsed()).filter(|took| *took < LIMIT);
        }
        outcomes.push((scenario, watch.end(took)?));
        if took.is_none() {
            break;
        }
        ensure!(kernel.count()? == wanted, "the kernel says that it has {wanted} routes, and lists others");
        peers.run(SETTLE, |_| false)?;
    }
    Ok(outcomes)
}

/// H: two peers tell the same, and one dies.
pub(super) fn failover(
    machine: &Namespace,
    mut running: Running,
    load: &Load,
) -> Result<Vec<(Scenario, Outcome)>> {
    let mut peers = Peers::new(Terms::default())?;
    let mut kernel = machine.run(Kernel::new)??;
    let [first, second] = load.peers.as_slice() else { return Ok(Vec::new()) };
    let lost = first.address;
    let (first, second) = (peers.connect(first, ADDRESS)?, peers.connect(second, ADDRESS)?);
    established(&mut peers)?;
    peers.tell(first);
    peers.tell(second);
    let start = now();
    // Until all are there, and are not written again for the second next hop.
    loop {
        peers.run(SETTLE, |_| false)?;
        ensure!(start.elapsed() < LIMIT, "the routes are not in the kernel after {LIMIT:?}");
        if kernel.count()? == load.prefixes && is_idle(&mut running)? {
            break;
        }
    }
    let uses = |kernel: &mut Kernel, prefix: Prefix| -> Result<bool> {
        Ok(kernel.gateway(prefix.address)? == Some(lost))
    };
    let mut probes = Probes::new(load, FEW_PROBES);
    let mut before = 0;
    for prefix in &probes.prefixes {
        before += usize::from(uses(&mut kernel, *prefix)?);
    }
    ensure!(before > 0, "no route uses the next hop {lost} before its peer dies");
    let watch = Watch::begin(&mut running)?;
    let start = now();
    peers.reset(first)?;
    let took = around(start, &mut peers, &mut probes, |prefix| Ok(!uses(&mut kernel, prefix)?))?;
    Ok(vec![(Scenario::H, watch.end(took)?)])
}

/// How long from `start` until all are good, seen in fractions of a millisecond.
fn around(
    start: Instant,
    peers: &mut Peers,
    probes: &mut Probes,
    mut is_good: impl FnMut(Prefix) -> Result<bool>,
) -> Result<Option<Duration>> {
    let mut listened = start;
    loop {
        let before = probes.next;
        if probes.look(&mut is_good)? {
            return Ok(Some(start.elapsed()));
        }
        if start.elapsed() > LIMIT {
            return Ok(None);
        }
        // What is good already is gone through at once: that would be most of the time.
        if probes.next == before {
            thread::sleep(SHORT_LOOK);
        }
        if listened.elapsed() > SETTLE {
            peers.run(Duration::ZERO, |_| false)?;
            listened = now();
        }
    }
}

/// Whether a daemon has done next to nothing for a while.
fn is_idle(running: &mut Running) -> Result<bool> {
    let before = running.usage()?.cpu;
    thread::sleep(SETTLE / 3);
    Ok(running.usage()?.cpu - before < 0.03)
}

/// What the kernel takes for F, G and H where nothing else is done: messages that were made before, of routes over nexthop objects,
/// grouped by these, without acknowledgements.
pub(super) fn floor(
    machine: &Namespace,
    scenario: Scenario,
    load: &Load,
) -> Result<Vec<(Scenario, Outcome)>> {
    machine.set_sysctl("net/ipv4/nexthop_compat_mode", "0")?;
    let name: LinkName = "peers".parse()?;
    let mut socket = Socket::in_netns(Path::new(&machine.path()))?;
    let link = socket.link_by_name(&name)?.context("no link")?.index;
    let mut kernel = machine.run(Kernel::new)??;
    let routes = grouped(load);
    let objects: BTreeMap<Ipv4Addr, u32> =
        (FIRST_OBJECT..).zip(routes.keys()).map(|(id, hop)| (*hop, id)).collect();
    let nexthops: Vec<_> = objects.iter().map(|(hop, id)| kernel::nexthop(*id, *hop, link)).collect();
    kernel.flood(&nexthops)?;
    if scenario == Scenario::H {
        return redirected(&mut kernel, &routes, &objects);
    }
    let with_objects = || {
        let of = |hop| objects.get(hop).copied().unwrap_or(FIRST_OBJECT);
        routes.iter().flat_map(move |(hop, prefixes)| prefixes.iter().map(move |prefix| (prefix, of(hop))))
    };
    let mut outcomes = Vec::new();
    for (scenario, present, wanted) in [(Scenario::F, true, load.prefixes), (Scenario::G, false, 0)] {
        let batches = kernel::routes(with_objects(), present);
        outcomes.push((scenario, flood(&mut kernel, &batches)?));
        let count = kernel.count()?;
        ensure!(count == wanted, "the kernel has {count} routes, not {wanted}");
    }
    Ok(outcomes)
}

fn redirected(
    kernel: &mut Kernel,
    routes: &BTreeMap<Ipv4Addr, Vec<Prefix>>,
    objects: &BTreeMap<Ipv4Addr, u32>,
) -> Result<Vec<(Scenario, Outcome)>> {
    let members: Vec<u32> = objects.values().copied().collect();
    let (lost, rest) = members.split_first().context("no next hop")?;
    kernel.flood(&[kernel::nexthop_group(GROUP, &members)])?;
    let all: Vec<&Prefix> = routes.values().flatten().collect();
    kernel.flood(&kernel::routes(all.iter().map(|prefix| (*prefix, GROUP)), true))?;
    let outcome = flood(kernel, &[kernel::nexthop_group(GROUP, rest)])?;
    let lost = objects.iter().find(|(_, id)| *id == lost).map(|(hop, _)| *hop);
    for prefix in all.iter().filter(|prefix| prefix.length == 24).take(PROBES) {
        ensure!(kernel.gateway(prefix.address)? != lost, "{prefix} still uses {lost:?}");
    }
    Ok(vec![(Scenario::H, outcome)])
}

fn flood(kernel: &mut Kernel, batches: &[Vec<u8>]) -> Result<Outcome> {
    let (start, before) = (now(), own_processor()?);
    kernel.flood(batches)?;
    Ok(Outcome {
        wall: start.elapsed().as_secs_f64(),
        cpu: own_processor()?.saturating_sub(before).as_secs_f64(),
        // What it needs is the messages.
        peak: batches.iter().map(Vec::len).sum::<usize>() as f64 / f64::from(1 << 20),
        timed_out: false,
        peers_cpu: 0.0,
        announced: None,
    })
}

/// The prefixes of the first peer, by next hop; where there are more peers, all of them for each.
fn grouped(load: &Load) -> BTreeMap<Ipv4Addr, Vec<Prefix>> {
    let mut routes: BTreeMap<Ipv4Addr, Vec<Prefix>> = BTreeMap::new();
    for (number, peer) in load.peers.iter().enumerate() {
        for (attributes, prefixes) in &peer.table.sets {
            let of_hop = routes.entry(attributes.next_hop.into()).or_default();
            if number == 0 {
                of_hop.extend(prefixes);
            }
        }
    }
    routes
}
