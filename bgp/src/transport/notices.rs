//! What the daemon has not heard yet, in bounded memory.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use hashbrown::HashSet;
use ipnet::IpNet;

use super::Notice;
use crate::bfd::{Remote, Resumption};
use crate::speaker::{BestPathChange, Event, TrackedNextHop};

/// How many events wait at most; what comes on top is dropped and counted.
const EVENTS_MAX: usize = 1024;

/// How many prefixes, or next hops, one notice carries at most.
const BATCH_MAX: usize = 4096;

/// From how many changes of best paths on those are looked for of which later ones tell.
const CROWD_MIN: usize = 4 * BATCH_MAX;

/// Notices that wait for the daemon. Everything but events is a state, of which only the last counts: there are never more than
/// prefixes, next hops, links and listeners, however slow the daemon is; of best paths twice as many.
#[derive(Debug, Default)]
pub(super) struct Notices {
    listeners: BTreeMap<SocketAddr, Result<SocketAddr, String>>,
    tracking: BTreeMap<TrackedNextHop, Tracking>,
    /// Told before all else.
    lost: BTreeSet<TrackedNextHop>,
    best_paths: BestPaths,
    /// Whether best paths are told before more of next hops: a peer with very many of these holds back no other's routes.
    best_paths_first: bool,
    converged: bool,
    announced: Option<BTreeSet<IpNet>>,
    aggregates: Option<BTreeSet<IpNet>>,
    neighbours: BTreeMap<u32, Option<Ipv6Addr>>,
    bfd: Option<BTreeMap<Remote, Resumption>>,
    dynamic: Option<BTreeSet<IpAddr>>,
    events: VecDeque<Event>,
    events_lost: u64,
}

/// What the daemon is still to be told of a next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tracking {
    Track,
    Untrack,
    /// Both: whoever tracks again wants to be told the resolution again.
    Renew,
}

impl Notices {
    pub(super) fn listener(&mut self, address: SocketAddr, state: Result<SocketAddr, String>) {
        self.listeners.insert(address, state);
    }

    pub(super) fn track(&mut self, next_hop: TrackedNextHop) {
        let waiting = self.tracking.entry(next_hop).or_insert(Tracking::Track);
        if *waiting == Tracking::Untrack {
            *waiting = Tracking::Renew;
        }
    }

    pub(super) fn untrack(&mut self, next_hop: TrackedNextHop) {
        match self.tracking.remove(&next_hop) {
            Some(Tracking::Track) => {}
            None | Some(Tracking::Untrack | Tracking::Renew) => {
                self.tracking.insert(next_hop, Tracking::Untrack);
            }
        }
    }

    pub(super) fn lost(&mut self, next_hops: Vec<TrackedNextHop>) {
        self.lost.extend(next_hops);
    }

    pub(super) fn best_paths(&mut self, changes: Vec<BestPathChange>) {
        self.best_paths.extend(changes);
    }

    pub(super) fn converged(&mut self) {
        self.converged = true;
    }

    pub(super) fn announced(&mut self, prefixes: BTreeSet<IpNet>) {
        self.announced = Some(prefixes);
    }

    pub(super) fn aggregates(&mut self, prefixes: BTreeSet<IpNet>) {
        self.aggregates = Some(prefixes);
    }

    pub(super) fn neighbour(&mut self, link: u32, address: Option<Ipv6Addr>) {
        self.neighbours.insert(link, address);
    }

    pub(super) fn bfd(&mut self, sessions: BTreeMap<Remote, Resumption>) {
        self.bfd = Some(sessions);
    }

    pub(super) fn dynamic(&mut self, peers: BTreeSet<IpAddr>) {
        self.dynamic = Some(peers);
    }

    pub(super) fn event(&mut self, event: Event) {
        if self.events.len() < EVENTS_MAX {
            self.events.push_back(event);
        } else {
            self.events_lost = self.events_lost.saturating_add(1);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.listeners.is_empty()
            && self.tracking.is_empty()
            && self.lost.is_empty()
            && self.best_paths.is_empty()
            && !self.converged
            && self.announced.is_none()
            && self.aggregates.is_none()
            && self.neighbours.is_empty()
            && self.bfd.is_none()
            && self.dynamic.is_none()
            && self.events.is_empty()
            && self.events_lost == 0
    }

    /// The next notice. Convergence comes after all best paths and aggregates: what is not among them may be swept.
    pub(super) fn next(&mut self) -> Option<Notice> {
        if !self.lost.is_empty() {
            return Some(Notice::NextHopsLost(std::mem::take(&mut self.lost).into_iter().collect()));
        }
        if let Some((address, state)) = self.listeners.pop_first() {
            return Some(Notice::Listener { address, state });
        }
        let waits = std::mem::take(&mut self.best_paths_first) && !self.best_paths.is_empty();
        if !waits && !self.tracking.is_empty() {
            self.best_paths_first = true;
            return Some(self.next_hops());
        }
        if !self.best_paths.is_empty() {
            return Some(Notice::BestPaths(self.best_paths.take()));
        }
        if let Some(prefixes) = self.aggregates.take() {
            return Some(Notice::Aggregates(prefixes));
        }
        if std::mem::take(&mut self.converged) {
            return Some(Notice::Converged);
        }
        if let Some(prefixes) = self.announced.take() {
            return Some(Notice::Announced(prefixes));
        }
        if let Some((link, address)) = self.neighbours.pop_first() {
            return Some(Notice::Neighbour { link, address });
        }
        if let Some(sessions) = self.bfd.take() {
            return Some(Notice::Bfd(sessions));
        }
        if let Some(peers) = self.dynamic.take() {
            return Some(Notice::Dynamic(peers));
        }
        if let Some(event) = self.events.pop_front() {
            return Some(Notice::Event(event));
        }
        let lost = std::mem::take(&mut self.events_lost);
        (lost > 0).then_some(Notice::EventsLost(lost))
    }

    /// The first next hops that the daemon is to be told of.
    fn next_hops(&mut self) -> Notice {
        let (mut gone, mut wanted) = (Vec::new(), Vec::new());
        while wanted.len().max(gone.len()) < BATCH_MAX
            && let Some((next_hop, tracking)) = self.tracking.pop_first()
        {
            if tracking != Tracking::Track {
                gone.push(next_hop);
            }
            if tracking != Tracking::Untrack {
                wanted.push(next_hop);
            }
        }
        Notice::NextHops { gone, wanted }
    }
}

/// Changes of best paths, in order. While the daemon keeps up there is no look-up for each.
#[derive(Debug, Default)]
struct BestPaths {
    changes: VecDeque<BestPathChange>,
    /// How many prefixes there were when they were last counted.
    prefixes: usize,
}

impl BestPaths {
    fn extend(&mut self, changes: Vec<BestPathChange>) {
        self.changes.extend(changes);
        if self.changes.len() >= self.prefixes.saturating_mul(2).max(CROWD_MIN) {
            self.coalesce();
        }
    }

    /// Leaves the last change of each prefix.
    fn coalesce(&mut self) {
        let mut prefixes = HashSet::new();
        let mut last = VecDeque::new();
        while let Some(change) = self.changes.pop_back() {
            if prefixes.insert(change.prefix) {
                last.push_front(change);
            }
        }
        (self.prefixes, self.changes) = (last.len(), last);
    }

    fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The first ones.
    fn take(&mut self) -> Vec<BestPathChange> {
        self.changes.drain(..self.changes.len().min(BATCH_MAX)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::session::State;
    use crate::speaker::EventKind;

    fn next_hop(n: u8) -> TrackedNextHop {
        TrackedNextHop { address: [10, 0, 0, n].into(), default_route: false, link: None }
    }

    fn change(prefix: &str, n: u8) -> BestPathChange {
        let next_hops = [next_hop(n)].into_iter().collect();
        BestPathChange { prefix: prefix.parse().unwrap(), next_hops, direct: None }
    }

    fn drain(notices: &mut Notices) -> Vec<String> {
        std::iter::from_fn(|| notices.next()).map(|notice| format!("{notice:?}")).collect()
    }

    #[test]
    fn best_paths_are_told_in_order_and_before_convergence() {
        let mut notices = Notices::default();
        notices.converged();
        let changes = [change("10.1.0.0/24", 1), change("10.2.0.0/24", 1), change("10.1.0.0/24", 2)];
        notices.best_paths(changes[..2].to_vec());
        notices.best_paths(changes[2..].to_vec());
        let Some(Notice::BestPaths(told)) = notices.next() else { panic!("best paths come first") };
        assert_eq!(told, changes);
        assert!(matches!(notices.next(), Some(Notice::Converged)));
        assert!(notices.is_empty() && notices.next().is_none());
    }

    #[test]
    fn a_daemon_that_is_behind_is_told_the_last_best_path_of_each_prefix() {
        let mut notices = Notices::default();
        let prefixes = ["10.1.0.0/24", "10.2.0.0/24", "10.3.0.0/24"];
        for round in 0..100_000 {
            let n = u8::from(round == 99_999);
            notices.best_paths(prefixes.iter().map(|prefix| change(prefix, n)).collect());
            assert!(notices.best_paths.changes.len() <= CROWD_MIN);
        }
        let told = std::iter::from_fn(|| notices.next()).flat_map(|notice| match notice {
            Notice::BestPaths(changes) => changes,
            other => panic!("{other:?}"),
        });
        let last: BTreeMap<_, _> = told.map(|change| (change.prefix, change)).collect();
        assert!(last.into_values().eq(prefixes.iter().map(|prefix| change(prefix, 1))));
    }

    #[test]
    fn lost_next_hops_come_before_all_else() {
        let mut notices = Notices::default();
        notices.track(next_hop(1));
        notices.best_paths(vec![change("10.1.0.0/24", 1)]);
        notices.lost(vec![next_hop(2)]);
        notices.lost(vec![next_hop(3)]);
        let Some(Notice::NextHopsLost(lost)) = notices.next() else { panic!("the lost ones come first") };
        assert_eq!(lost, [next_hop(2), next_hop(3)]);
        assert_eq!(drain(&mut notices).len(), 2);
        assert!(notices.is_empty());
    }

    #[test]
    fn best_paths_do_not_wait_for_all_next_hops() {
        let mut notices = Notices::default();
        let many = |n: u32| TrackedNextHop { address: Ipv4Addr::from(n).into(), ..next_hop(0) };
        (0..10_000).for_each(|n| notices.track(many(n)));
        notices.best_paths(vec![change("10.1.0.0/24", 1)]);
        let told: Vec<_> = std::iter::from_fn(|| notices.next())
            .map(|notice| match notice {
                Notice::NextHops { wanted, gone } => (wanted.len(), gone.len()),
                _ => (0, 0),
            })
            .collect();
        assert_eq!(told, [(4096, 0), (0, 0), (4096, 0), (1808, 0)]);
    }

    #[test]
    fn a_notice_is_bounded() {
        let mut notices = Notices::default();
        let prefix = |n: u32| IpNet::new(std::net::Ipv4Addr::from(n).into(), 32).unwrap();
        let change = |n| BestPathChange { prefix: prefix(n), next_hops: [].into(), direct: None };
        notices.best_paths((0..10_000).map(change).collect());
        let sizes: Vec<_> = std::iter::from_fn(|| notices.next())
            .map(|n| if let Notice::BestPaths(changes) = n { changes.len() } else { 0 })
            .collect();
        assert_eq!(sizes, [4096, 4096, 1808]);
    }

    #[test]
    fn a_next_hop_that_was_forgotten_in_between_is_asked_for_anew() {
        let mut notices = Notices::default();
        let (forgotten, renewed, dropped) = (next_hop(1), next_hop(2), next_hop(3));
        notices.untrack(renewed);
        notices.track(renewed);
        notices.track(forgotten);
        notices.untrack(forgotten);
        notices.untrack(dropped);
        notices.track(dropped);
        notices.untrack(dropped);
        let Some(Notice::NextHops { gone, wanted }) = notices.next() else { panic!("next hops are told") };
        assert_eq!((gone, wanted), (vec![renewed, dropped], vec![renewed]));
        assert!(notices.is_empty() && notices.next().is_none());
    }

    #[test]
    fn events_that_nobody_takes_are_counted_not_kept() {
        let mut notices = Notices::default();
        for _ in 0..EVENTS_MAX + 7 {
            let kind = EventKind::State { from: State::Idle, to: State::Connect };
            notices.event(Event { peer: std::net::IpAddr::from([10, 0, 0, 1]).into(), kind });
        }
        let told = drain(&mut notices);
        assert_eq!(told.len(), EVENTS_MAX + 1);
        assert_eq!(told.last().unwrap(), "EventsLost(7)");
    }
}
