//! The engine: keeps what the kernel has in step with what is wanted.
//!
//! Pure but for the [`Fib`] it is handed: time is an argument, nothing waits. Commands
//! ([`learned`](Engine::learned), [`pods`](Engine::pods), ...) only note what is wanted and which keys that
//! touches; [`run`](Engine::run) listens to the kernel, dumps where needed, and writes the difference.

mod batch;
mod deserted;
mod failover;
mod objects;
mod query;
mod recursion;
mod report;
mod resilient;
mod table;
mod view;
mod wanted;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use self::objects::Objects;
use self::recursion::{Dependents, Recursion};
pub use self::report::{Counters, Event, FibEntry, FibNextHop, RouteState};
use self::table::{Known, Place, Table};
use self::view::{Effects, View};
use self::wanted::Learned;
pub use self::wanted::{
    DEFAULT_METRIC, NextHopRefs, OWN_BLOCK_METRIC, POD_METRIC, PodRoute, RouteChange, Settings,
};
use crate::fib::{Fib, Write};
use crate::netlink::Error;
use crate::resolve::{NextHopRef, Resolved};
use crate::route::{Action, NextHops, Protocol, Route, RouteKey};

/// How often everything is dumped and compared though nothing was heard.
pub const AUDIT_INTERVAL: Duration = Duration::from_secs(30);
/// Dumps that notifications ask for are at least this far apart, and further with a large table, so that a
/// flapping link cannot make the engine dump all day.
const RESYNC_INTERVAL: Duration = Duration::from_millis(250);
const RESYNC_INTERVAL_PER_ROUTE: Duration = Duration::from_micros(5);
/// Batches of notifications read in one [`Engine::run`].
const READS_PER_RUN: usize = 16;

/// Why the engine wants to run again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timer {
    /// There is work left from the last run or noted by a command.
    Work,
    /// A notification asked for a dump.
    Resync,
    /// The periodic dump.
    Audit,
    /// A refused write is to be tried again.
    Retry,
}

/// A write that was refused.
#[derive(Debug)]
struct Refused {
    write: Write,
    error: Error,
    attempts: u32,
    retry_at: Instant,
}

/// The preferred sources that routes can carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Sources {
    v4: Option<IpAddr>,
    v6: Option<IpAddr>,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Engine {
    settings: Settings,
    learned: Learned,
    pods: BTreeMap<IpAddr, PodRoute>,
    tracked: BTreeSet<NextHopRef>,
    table: Table,
    view: View,
    objects: Objects,
    /// Nexthop objects of ours may have gone, or changed.
    objects_stale: bool,
    resolutions: BTreeMap<NextHopRef, Resolved>,
    dependents: Dependents,
    /// The batches that were begun, and whose results were not taken.
    under_way: VecDeque<Vec<(Place, Write)>>,
    /// Keys of these to which something else happened since they were begun: before the write or after it.
    unsure: BTreeSet<RouteKey>,
    /// Keys from which something else took a route of ours; a write to them is a repair.
    drifted: BTreeSet<RouteKey>,
    adopted: BTreeSet<RouteKey>,
    neighbours_dirty: bool,
    refused: BTreeMap<RouteKey, Refused>,
    retries: BTreeSet<(Instant, RouteKey)>,
    /// `None` until the first dump.
    dumped_at: Option<Instant>,
    resync_at: Option<Instant>,
    /// Notifications were lost since the last dump: a key known as ours may have a new owner.
    stale: bool,
    default_route_links: BTreeSet<u32>,
    sources: Sources,
    counters: Counters,
    events: VecDeque<Event>,
}

impl Engine {
    /// An engine that knows nothing of the kernel yet.
    pub fn new(settings: Settings) -> Self {
        let mut engine = Self {
            settings: Settings::default(),
            learned: Learned::default(),
            pods: BTreeMap::new(),
            tracked: BTreeSet::new(),
            table: Table::default(),
            view: View::default(),
            objects: Objects::default(),
            objects_stale: false,
            resolutions: BTreeMap::new(),
            dependents: Dependents::default(),
            under_way: VecDeque::new(),
            unsure: BTreeSet::new(),
            drifted: BTreeSet::new(),
            adopted: BTreeSet::new(),
            neighbours_dirty: false,
            refused: BTreeMap::new(),
            retries: BTreeSet::new(),
            dumped_at: None,
            resync_at: None,
            stale: false,
            default_route_links: BTreeSet::new(),
            sources: Sources::default(),
            counters: Counters::default(),
            events: VecDeque::new(),
        };
        engine.configure(settings);
        engine
    }

    /// Changes the settings; routes they touch are rewritten.
    pub fn configure(&mut self, settings: Settings) {
        let before = std::mem::replace(&mut self.settings, settings);
        if self.objects.ask(self.settings.resilience) {
            self.leave_unsuited();
        }
        let settings = &self.settings;
        for block in before.own_blocks.symmetric_difference(&settings.own_blocks) {
            self.table.mark(RouteKey::new(*block, OWN_BLOCK_METRIC));
        }
        let moved = before.metric != settings.metric;
        for key in self.table.learned_keys(|_| true) {
            let prefix = key.destination();
            let new = RouteKey::new(prefix, settings.metric);
            if new != key {
                // There is never a gap when only the metric changes.
                self.table.pass_on(key, new);
            } else if before.preferred_source(prefix) != settings.preferred_source(prefix) {
                self.table.mark(key);
            }
        }
        self.table.mark_all(self.pods.values().map(PodRoute::key));
        self.sources = self.usable_sources();
        let reranked = moved || before.own_blocks != self.settings.own_blocks;
        if reranked && !self.dependents.is_empty() {
            self.resolve_all();
        }
    }

    /// Takes in learned and withdrawn routes.
    pub fn learned(&mut self, changes: Vec<RouteChange>) {
        let mut concerned = BTreeSet::new();
        let mut found = false;
        let mut last: Option<Arc<[NextHopRef]>> = None;
        for change in changes {
            let key = RouteKey::new(change.prefix, self.settings.metric);
            if change.next_hops.is_empty() {
                // A withdrawal is certain knowledge; what an earlier run left is not kept against it.
                self.adopted.remove(&key);
            }
            // Most routes have the next hops of the one before.
            if last.as_ref().is_none_or(|last| !Arc::ptr_eq(last, &change.next_hops)) {
                for next_hop in change.next_hops.iter() {
                    found |= self.learned.find(next_hop);
                    if !self.resolutions.contains_key(next_hop) {
                        self.resolve(*next_hop);
                    }
                }
                last = Some(Arc::clone(&change.next_hops));
            }
            let resolutions = &self.resolutions;
            let place = self.table.mark(key);
            let at = (&mut self.table, place);
            self.learned.set(change, at, |next_hop| resolutions.get(next_hop).cloned().unwrap_or_default());
            self.dependents.concerned(key.destination(), &mut concerned);
        }
        self.resolve_again(concerned);
        if found {
            self.move_sets(|_| true);
        }
    }

    /// Replaces the set of pod routes. A route that is no longer in it is left to its owner, the CNI plugin.
    pub fn pods(&mut self, pods: Vec<PodRoute>) {
        self.table.mark_all(self.pods.values().map(PodRoute::key));
        self.pods = pods.into_iter().map(|pod| (pod.address, pod)).collect();
        self.table.mark_all(self.pods.values().map(PodRoute::key));
        self.neighbours_dirty = true;
    }

    /// Reports how a next hop resolves, now and on every change, with [`Event::NextHop`].
    pub fn track(&mut self, next_hop: NextHopRef) {
        if self.tracked.insert(next_hop) && self.dumped_at.is_some() {
            let resolved = self.resolved(next_hop);
            self.events.push_back(Event::NextHop { next_hop, resolution: resolved.resolution });
        }
    }

    /// Ends [`track`](Self::track).
    pub fn untrack(&mut self, next_hop: NextHopRef) {
        self.tracked.remove(&next_hop);
    }

    /// Deletes what an earlier run left and nothing wants. Call it after the first convergence.
    pub fn sweep(&mut self) {
        let swept = std::mem::take(&mut self.adopted);
        let mut concerned = BTreeSet::new();
        for key in &swept {
            self.dependents.concerned(key.destination(), &mut concerned);
        }
        self.resolve_again(concerned);
        self.table.mark_all(swept);
    }

    /// The next event for the owner.
    pub fn poll(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`run`](Self::run) is to be called at the latest, and why.
    pub fn next_deadline(&self, now: Instant) -> (Instant, Timer) {
        let Some(dumped_at) = self.dumped_at else {
            return (self.resync_at.unwrap_or(now), Timer::Resync);
        };
        let writes = self.table.unfinished() > 0 || self.neighbours_dirty;
        if writes || self.objects_stale || self.objects.are_moved() {
            return (now, Timer::Work);
        }
        let resync = self.resync_at.map(|at| (at, Timer::Resync));
        let retry = self.retries.first().map(|(at, _)| (*at, Timer::Retry));
        let audit = (dumped_at + AUDIT_INTERVAL, Timer::Audit);
        [resync, retry].into_iter().flatten().fold(audit, |a, b| if b.0 < a.0 { b } else { a })
    }

    /// Whether a group is to change: that concerns all routes over it, and comes before what else is asked for.
    pub(crate) fn is_urgent(&self) -> bool {
        self.objects.are_moved()
    }

    /// Listens to the kernel, dumps where that is due, and begins to write what is missing, a bounded amount of each. What becomes of it is
    /// taken in by the next run.
    ///
    /// Fails only when a dump does; it is tried again by itself.
    pub fn run(&mut self, now: Instant, fib: &mut impl Fib) -> Result<(), Error> {
        if self.under_way.is_empty() {
            self.listen(now, fib);
        }
        if self.dumped_at.is_some() {
            // However many routes there are: before anything that takes longer with each.
            if self.objects_stale {
                self.finish(now, fib);
                self.look(now, fib);
            }
            self.write_groups(now, fib, &BTreeSet::new());
        }
        let audit = self.dumped_at.is_none_or(|at| now >= at + AUDIT_INTERVAL);
        if audit && self.resync_at.is_none() || self.resync_at.is_some_and(|at| now >= at) {
            self.finish(now, fib);
            self.resync(now, fib)?;
            // A dump takes its time; what happened meanwhile decides what may be replaced.
            self.listen(now, fib);
        }
        if self.dumped_at.is_none() {
            return Ok(());
        }
        while let Some((at, key)) = self.retries.first().copied().filter(|(at, _)| *at <= now) {
            self.retries.remove(&(at, key));
            self.table.mark(key);
        }
        if self.delete_deserted(now, fib) {
            // There may be another one, and before that it may matter more what was asked for meanwhile.
            return Ok(());
        }
        self.write(now, fib);
        if std::mem::take(&mut self.neighbours_dirty) {
            self.write_neighbours(fib);
        }
        self.sweep_objects(now, fib);
        Ok(())
    }

    fn listen(&mut self, now: Instant, fib: &mut impl Fib) {
        let mut effects = Effects::default();
        for _ in 0..READS_PER_RUN {
            let notifications = fib.notifications();
            if notifications.is_empty() {
                break;
            }
            for notification in notifications {
                self.view.notify(notification, &mut self.table, &mut effects);
            }
        }
        if effects.overrun {
            self.counters.overruns = self.counters.overruns.saturating_add(1);
            self.stale = true;
        }
        if effects.inexact || effects.overrun {
            self.ask_resync(now);
        }
        self.take(now, effects);
    }

    /// Notes that a dump is needed, not sooner than the last one allows.
    fn ask_resync(&mut self, now: Instant) {
        let routes = u32::try_from(self.table.held_count()).unwrap_or(u32::MAX);
        let interval = RESYNC_INTERVAL + RESYNC_INTERVAL_PER_ROUTE.saturating_mul(routes);
        let earliest = self.dumped_at.map_or(now, |at| now.max(at + interval));
        self.resync_at = Some(self.resync_at.map_or(earliest, |at| at.min(earliest)));
    }

    fn resync(&mut self, now: Instant, fib: &mut impl Fib) -> Result<(), Error> {
        let snapshot = match fib.dump() {
            Ok(snapshot) => snapshot,
            Err(error) => {
                self.resync_at = Some(now + Duration::from_secs(1));
                return Err(error);
            }
        };
        self.resync_at = None;
        self.stale = false;
        self.counters.resyncs = self.counters.resyncs.saturating_add(1);
        let mut effects = Effects::default();
        let nexthops = self.view.replace(snapshot, &mut self.table, &mut effects);
        self.take_objects(nexthops.as_ref());
        if self.dumped_at.replace(now).is_none() {
            effects.drifted.clear();
            self.adopt();
            effects.topology = true;
            self.neighbours_dirty = true;
        }
        effects.keys.extend(self.wanted_keys());
        self.take(now, effects);
        Ok(())
    }

    /// Notes which routes an earlier run left.
    fn adopt(&mut self) {
        let found = self.table.routes().filter(|route| route.protocol == Protocol::WEFT);
        self.adopted = found.map(|route| route.key).collect();
        let ipv4 = self.adopted.iter().filter(|key| matches!(key.destination(), IpNet::V4(_))).count();
        self.events.push_back(Event::Adopted { ipv4, ipv6: self.adopted.len().saturating_sub(ipv4) });
        // Nothing was known before, so every tracked next hop is told about, here and not as a change.
        self.resolutions.clear();
        for next_hop in &self.tracked {
            let resolution = self.resolution(*next_hop);
            self.events.push_back(Event::NextHop { next_hop: *next_hop, resolution });
        }
    }

    /// Turns what changed in the view into keys to compare and events.
    fn take(&mut self, now: Instant, mut effects: Effects) {
        self.unsure.extend(effects.keys.iter().filter(|key| self.table.taken(key).is_some()));
        self.table.mark_all(effects.keys);
        let metric = self.settings.metric;
        self.table.mark_all(effects.foreign.iter().map(|destination| RouteKey::new(*destination, metric)));
        self.drifted.append(&mut effects.drifted);
        self.neighbours_dirty |= effects.neighbours || effects.links;
        self.objects_stale |= effects.objects;
        if effects.topology {
            self.resolve_all();
            self.table.mark_all(self.pods.values().map(PodRoute::key));
            // Whatever made the kernel refuse a route may be gone.
            for (key, refused) in &mut self.refused {
                self.retries.remove(&(refused.retry_at, *key));
                refused.retry_at = now;
                self.retries.insert((now, *key));
            }
            let default_route_links = self.view.topology.default_route_links();
            effects.links |= default_route_links != self.default_route_links;
            self.default_route_links = default_route_links;
        }
        if effects.links {
            self.events.push_back(Event::LinksChanged);
        }
        if effects.addresses {
            let sources = self.usable_sources();
            if std::mem::replace(&mut self.sources, sources) != sources {
                self.table.mark_all(self.wanted_keys());
            }
            self.events.push_back(Event::AddressesChanged);
        }
    }

    /// The preferred sources that are on a link now.
    fn usable_sources(&self) -> Sources {
        let usable = |source: IpAddr| self.view.topology.is_usable_source(source);
        Sources {
            v4: self.settings.preferred_source_v4.map(IpAddr::V4).filter(|source| usable(*source)),
            v6: self.settings.preferred_source_v6.map(IpAddr::V6).filter(|source| usable(*source)),
        }
    }

    fn resolved(&mut self, next_hop: NextHopRef) -> Resolved {
        match self.resolutions.get(&next_hop) {
            Some(resolved) => resolved.clone(),
            None => self.resolve(next_hop),
        }
    }

    /// Resolves a next hop anew, and says so where it is tracked and was known before.
    fn resolve(&mut self, next_hop: NextHopRef) -> Resolved {
        let answer = self.recursion().resolve(next_hop);
        self.dependents.set(next_hop, answer.over);
        let resolved = answer.resolved;
        let before = self.resolutions.insert(next_hop, resolved.clone());
        if before.is_some_and(|before| before.resolution != resolved.resolution)
            && self.tracked.contains(&next_hop)
        {
            self.events.push_back(Event::NextHop { next_hop, resolution: resolved.resolution });
        }
        resolved
    }

    fn recursion(&self) -> Recursion<'_> {
        Recursion {
            topology: &self.view.topology,
            learned: &self.learned,
            settings: &self.settings,
            adopted: &self.adopted,
            table: &self.table,
            objects: &self.objects,
        }
    }

    /// Links, addresses or others' routes changed: every next hop in use is resolved anew.
    fn resolve_all(&mut self) {
        let mut in_use = self.learned.next_hops();
        in_use.extend(&self.tracked);
        self.resolutions.retain(|next_hop, _| in_use.contains(next_hop));
        self.dependents = Dependents::default();
        for next_hop in in_use {
            self.resolve(next_hop);
        }
        self.move_sets(|_| true);
    }

    /// Learned routes that may lead to these next hops changed.
    fn resolve_again(&mut self, next_hops: BTreeSet<NextHopRef>) {
        let mut changed = BTreeSet::new();
        for next_hop in next_hops {
            let before = self.resolutions.get(&next_hop).cloned();
            if before != Some(self.resolve(next_hop)) {
                changed.insert(next_hop);
            }
        }
        if !changed.is_empty() {
            self.move_sets(|next_hop| changed.contains(next_hop));
        }
    }

    /// The keys of everything wanted, resolved or not.
    fn wanted_keys(&self) -> BTreeSet<RouteKey> {
        let learned = self.table.learned_keys(|_| true).into_iter();
        let blocks = self.settings.own_blocks.iter().map(|block| RouteKey::new(*block, OWN_BLOCK_METRIC));
        learned.chain(blocks).chain(self.pods.values().map(PodRoute::key)).collect()
    }

    /// The route that should hold a key; `None` when nothing wants the key or the route cannot be made now.
    fn desired(&self, known: &Known<'_>) -> Option<Route> {
        let &Known { key, learned, ref held } = known;
        let destination = key.destination();
        let preferred_source = match destination {
            IpNet::V4(_) => self.sources.v4,
            IpNet::V6(_) => self.sources.v6,
        };
        if key.metric() == POD_METRIC
            && let Some(pod) = self.pods.get(&destination.addr()).filter(|pod| pod.key() == key)
        {
            return self.is_up(pod.link).then(|| pod.route(preferred_source));
        }
        let ours = |action| Route { key, protocol: Protocol::WEFT, action, preferred_source: None };
        if key.metric() == OWN_BLOCK_METRIC && self.settings.own_blocks.contains(&destination) {
            return Some(ours(Action::Unreachable));
        }
        let set = self.learned.get(learned?)?;
        // A link's own subnet is there and nowhere else; the kernel refuses gateways that it would look for elsewhere.
        if self.view.topology.is_connected_worse(&destination, key.metric()) {
            return None;
        }
        if set.is_discard() {
            return Some(ours(Action::Blackhole));
        }
        (!set.legs.is_empty())
            .then(|| Route { preferred_source, ..ours(self.by_group(set, held.as_deref())) })
    }

    /// The same of the key at a place, over a group if there can be one.
    fn desired_over_group(&mut self, place: Place) -> Option<Route> {
        let known = self.table.known_at(place)?;
        let learned = known.learned;
        let mut route = self.desired(&known)?;
        if let Action::Forward(legs) = &route.action
            && route.protocol == Protocol::WEFT
            && self.objects.serve(legs)
            && let Some(id) = self.objects.find_or_make(legs)
        {
            route.action = Action::Object(id);
            if let Some(set) = learned.and_then(|id| self.learned.get_mut(id)) {
                set.object = Some(id);
            }
        }
        Some(route)
    }

    fn is_up(&self, link: u32) -> bool {
        self.view.topology.link(link).is_some_and(|link| link.up)
    }

    /// The legs of a learned route: `None` when it is not learned, empty when no next hop resolves.
    fn legs(&self, key: RouteKey) -> Option<&NextHops> {
        self.learned.get(self.table.learned(&key)?).map(|set| &set.legs)
    }
}
