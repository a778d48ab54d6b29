//! The diff and the engine against a kernel in memory, with failures and other people's changes.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failing helper fails its test"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use nix::errno::Errno;
use proptest::prelude::*;
use weft_routing::delta::{self, Compared};
use weft_routing::fib::{Fib, Notification, Snapshot, Write};
use weft_routing::memory::MemoryFib;
use weft_routing::netlink::{Address, Error, Link, Scope};
use weft_routing::nexthop::Nexthops;
use weft_routing::route::{Action, NextHop, NextHops, Protocol, Route, RouteKey};
use weft_routing::sync::{Engine, Event, OWN_BLOCK_METRIC, POD_METRIC, RouteState, Timer};
use weft_routing::{NextHopRef, PodRoute, Resolution, RouteChange, Settings};

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn next_hop(address: &str) -> NextHopRef {
    NextHopRef { address: ip(address), default_route: false, link: None }
}

fn learn(prefix: &str, next_hops: &[&str]) -> Vec<RouteChange> {
    vec![RouteChange {
        prefix: net(prefix),
        next_hops: next_hops.iter().map(|nh| next_hop(nh)).collect(),
        direct: None,
    }]
}

fn key(prefix: &str, metric: u32) -> RouteKey {
    RouteKey::new(net(prefix), metric)
}

fn via(gateway: &str, link: u32) -> NextHop {
    NextHop::via(ip(gateway), link)
}

fn route(prefix: &str, metric: u32, protocol: Protocol, legs: &[NextHop]) -> Route {
    let action =
        if legs.is_empty() { Action::Unreachable } else { Action::Forward(legs.iter().copied().collect()) };
    Route { key: key(prefix, metric), protocol, action, preferred_source: None }
}

fn link(index: u32, up: bool) -> Link {
    Link {
        index,
        name: format!("eth{index}"),
        mac: None,
        mtu: 1500,
        up,
        carrier: up,
        operational: up,
        loopback: false,
        kind: None,
        peer: None,
        peer_namespace: None,
    }
}

fn connected(index: u32) -> Route {
    route(&format!("10.0.{index}.0/24"), 0, Protocol::KERNEL, &[NextHop::on_link(index)])
}

fn address(index: u32) -> Address {
    let address = format!("10.0.{index}.1/24").parse().unwrap();
    Address { link: index, address, scope: Scope::Global, tentative: false }
}

/// A kernel with links 1 to 3 up and connected, an engine on it, and a clock that only the test moves.
struct Lab {
    fib: MemoryFib,
    engine: Engine,
    now: Instant,
    events: Vec<Event>,
}

impl Lab {
    fn new(settings: Settings, routes: &[Route]) -> Self {
        Self::on(MemoryFib::new(), settings, routes)
    }

    fn on(mut fib: MemoryFib, settings: Settings, routes: &[Route]) -> Self {
        for index in 1..=3 {
            fib.set_link(link(index, true));
            fib.add_address(address(index));
            fib.insert(connected(index));
        }
        routes.iter().for_each(|route| fib.insert(route.clone()));
        #[expect(clippy::disallowed_methods, reason = "virtual time has to start somewhere")]
        let now = Instant::now();
        let mut lab = Self { fib, engine: Engine::new(settings), now, events: Vec::new() };
        lab.run();
        lab
    }

    fn run(&mut self) {
        let _ = self.engine.run(self.now, &mut self.fib);
        while let Some(event) = self.engine.poll() {
            self.events.push(event);
        }
    }

    /// Until all that is known to be wanted was tried, at one time.
    fn work(&mut self) {
        for _ in 0..10 {
            self.run();
            if self.engine.next_deadline(self.now).1 != Timer::Work {
                return;
            }
        }
        panic!("the engine is still at work");
    }

    /// Lets virtual time pass, waking the engine whenever it asks to be.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        let mut runs = 0;
        loop {
            self.run();
            let (deadline, timer) = self.engine.next_deadline(self.now);
            if deadline > end {
                self.now = end;
                return;
            }
            runs = if deadline > self.now { 0 } else { runs + 1 };
            assert!(runs < 10, "the engine spins on {timer:?}");
            self.now = self.now.max(deadline);
        }
    }

    fn settle(&mut self) {
        self.pass(Duration::from_secs(1));
    }

    fn state(&self, prefix: &str) -> String {
        let entry = self.engine.fib().into_iter().find(|entry| entry.prefix == net(prefix));
        entry.unwrap_or_else(|| panic!("no entry for {prefix}")).state.to_string()
    }

    fn weft(&self) -> Vec<Route> {
        self.fib.routes().values().filter(|route| route.protocol.is_weft()).cloned().collect()
    }
}

/// Packets to what has a next hop of the discard prefix (RFC 6666) are dropped, whatever else there is, and not any more when that is gone.
/// Proves RFC 6666.
#[test]
fn a_discarded_prefix_is_a_blackhole() {
    for prefix in ["198.51.100.7/32", "2001:db8:100::7/128"] {
        let mut lab = Lab::new(Settings::default(), &[]);
        let state = |lab: &Lab| {
            let entry = lab.engine.fib().into_iter().find(|entry| entry.prefix == net(prefix));
            entry.map(|entry| (entry.blackhole, entry.next_hops.len(), entry.state))
        };
        for next_hops in [&["100::1"][..], &["100::1", "10.0.1.9"]] {
            lab.engine.learned(learn(prefix, next_hops));
            lab.work();
            assert_eq!(state(&lab), Some((true, 0, RouteState::Installed)), "{next_hops:?}");
            let dropped = Route { action: Action::Blackhole, ..route(prefix, 64, Protocol::WEFT, &[]) };
            assert_eq!(lab.fib.routes().get(&key(prefix, 64)), Some(&dropped));
        }
        lab.engine.learned(learn(prefix, &["10.0.1.9"]));
        lab.work();
        assert_eq!(state(&lab), Some((false, 1, RouteState::Installed)));
        lab.engine.learned(learn(prefix, &[]));
        lab.work();
        assert_eq!(state(&lab), None);
    }
}

#[test]
fn learned_routes_are_installed_and_withdrawn() {
    let mut lab = Lab::new(Settings::default(), &[]);
    lab.engine.learned(learn("10.1.0.0/24", &["10.0.1.2", "10.0.2.2"]));
    lab.engine.learned(learn("10.2.0.0/24", &["192.0.2.1"]));
    lab.settle();
    let ecmp = [via("10.0.1.2", 1), via("10.0.2.2", 2)];
    assert_eq!(lab.weft(), [route("10.1.0.0/24", 64, Protocol::WEFT, &ecmp)]);
    assert_eq!(lab.state("10.1.0.0/24"), "installed");
    assert_eq!(lab.state("10.2.0.0/24"), "unresolved");
    assert!(lab.engine.is_installed(net("10.1.0.0/24")) && !lab.engine.is_installed(net("10.2.0.0/24")));

    lab.engine.learned(learn("10.1.0.0/24", &[]));
    lab.settle();
    assert_eq!(lab.weft(), []);
    assert_eq!(lab.engine.counters().refusals, 0);
}

#[test]
fn tracked_next_hops_are_reported_once_per_change() {
    let mut lab = Lab::new(Settings::default(), &[]);
    lab.events.clear();
    lab.engine.track(next_hop("10.0.1.2"));
    lab.settle();
    lab.fib.set_link(link(1, false));
    lab.fib.set_link(link(2, false));
    lab.settle();
    lab.fib.insert(route("10.0.1.0/24", 7, Protocol::STATIC, &[via("10.0.3.9", 3)]));
    lab.settle();
    let told: Vec<Resolution> = lab
        .events
        .iter()
        .filter_map(|event| match event {
            Event::NextHop { resolution, .. } => Some(*resolution),
            _ => None,
        })
        .collect();
    assert_eq!(told, [Resolution::OnLink, Resolution::Unresolved, Resolution::Gateway { metric: 7 }]);
}

#[test]
fn a_lost_leg_leaves_the_others_and_comes_back() {
    let mut lab = Lab::new(Settings::default(), &[]);
    lab.engine.learned(learn("10.1.0.0/24", &["10.0.1.2", "10.0.2.2"]));
    lab.settle();
    lab.fib.set_link(link(1, false));
    lab.settle();
    assert_eq!(lab.weft(), [route("10.1.0.0/24", 64, Protocol::WEFT, &[via("10.0.2.2", 2)])]);
    lab.fib.set_link(link(1, true));
    lab.fib.insert(connected(1));
    lab.settle();
    let both = [via("10.0.1.2", 1), via("10.0.2.2", 2)];
    assert_eq!(lab.weft(), [route("10.1.0.0/24", 64, Protocol::WEFT, &both)]);
}

#[test]
fn what_an_earlier_run_left_stays_until_the_sweep() {
    let left = [
        route("10.1.0.0/24", 64, Protocol::WEFT, &[via("10.0.1.2", 1)]),
        route("10.2.0.0/24", 64, Protocol::WEFT, &[via("10.0.1.2", 1)]),
        route("10.3.0.0/24", 64, Protocol::WEFT, &[via("10.0.1.2", 1)]),
        route("10.9.0.1/32", POD_METRIC, Protocol::WEFT_PODS, &[NextHop::on_link(3)]),
    ];
    let mut lab = Lab::new(Settings::default(), &left);
    assert!(lab.events.contains(&Event::Adopted { ipv4: 3, ipv6: 0 }), "{:?}", lab.events);
    let writes = lab.fib.writes();
    lab.engine.learned(learn("10.1.0.0/24", &["10.0.1.2"]));
    lab.engine.learned(learn("10.3.0.0/24", &[]));
    lab.settle();
    // Legs written into a route by who had no nexthop objects become a group.
    assert_eq!(
        lab.fib.writes() - writes,
        4,
        "the withdrawn route goes; the learned one gets a leg, a group and that"
    );
    assert_eq!(lab.weft().len(), 3);
    assert_eq!(lab.state("10.2.0.0/24"), "adopted");

    lab.engine.sweep();
    lab.settle();
    assert_eq!(lab.weft(), [left[0].clone(), left[3].clone()]);
}

#[test]
fn foreign_routes_are_never_touched_and_show_as_shadows() {
    let same_key = route("10.1.0.0/24", 64, Protocol::STATIC, &[via("10.0.2.9", 2)]);
    let better = route("10.2.0.0/24", 5, Protocol::STATIC, &[via("10.0.2.9", 2)]);
    let worse = route("10.3.0.0/24", 500, Protocol::STATIC, &[via("10.0.2.9", 2)]);
    let foreign = [same_key.clone(), better, worse];
    let mut lab = Lab::new(Settings::default(), &foreign);
    for prefix in ["10.1.0.0/24", "10.2.0.0/24", "10.3.0.0/24"] {
        lab.engine.learned(learn(prefix, &["10.0.1.2"]));
    }
    lab.settle();
    assert_eq!(lab.state("10.1.0.0/24"), "shadowed by proto static");
    assert_eq!(lab.state("10.2.0.0/24"), "shadowed by proto static");
    assert_eq!(lab.state("10.3.0.0/24"), "installed");
    assert!(!lab.engine.is_installed(net("10.2.0.0/24")));
    for route in &foreign {
        assert_eq!(lab.fib.routes().get(&route.key), Some(route));
    }
    // When the admin's route goes, ours takes the key.
    lab.fib.remove(same_key.key);
    lab.settle();
    assert_eq!(lab.state("10.1.0.0/24"), "installed");
    // And an admin's route that takes our key stays.
    lab.fib.insert(same_key.clone());
    lab.settle();
    assert_eq!(lab.fib.routes().get(&same_key.key), Some(&same_key));
    assert_eq!(lab.state("10.1.0.0/24"), "shadowed by proto static");
}

#[test]
fn an_unheard_foreign_route_at_our_key_is_found_and_left() {
    let mut lab = Lab::new(Settings::default(), &[]);
    let foreign = route("10.1.0.0/24", 64, Protocol::STATIC, &[via("10.0.2.9", 2)]);
    lab.fib.insert(foreign.clone());
    let _ = lab.fib.notifications();
    lab.engine.learned(learn("10.1.0.0/24", &["10.0.1.2"]));
    lab.settle();
    assert_eq!(lab.fib.routes().get(&foreign.key), Some(&foreign));
    assert_eq!(lab.state("10.1.0.0/24"), "shadowed by proto static");
    assert!(!lab.events.iter().any(|event| matches!(event, Event::Refused { .. })), "{:?}", lab.events);
}

#[test]
fn what_others_delete_or_change_is_repaired() {
    let settings = Settings { own_blocks: BTreeSet::from([net("10.7.0.0/26")]), ..Settings::default() };
    let mut lab = Lab::new(settings, &[]);
    let pod = PodRoute { address: ip("10.7.0.1"), link: 3, mac: [2; 6] };
    lab.engine.pods(vec![pod]);
    lab.engine.learned(learn("10.1.0.0/24", &["10.0.1.2"]));
    lab.settle();
    let before = lab.weft();
    assert_eq!(before.len(), 3);
    assert_eq!(lab.fib.neighbours().get(&(3, ip("10.7.0.1"))), Some(&[2; 6]));
    for route in &before {
        lab.fib.remove(route.key);
    }
    lab.work();
    assert_eq!(lab.weft(), before, "repaired as soon as it was heard");
    lab.fib.insert(route("10.1.0.0/24", 64, Protocol::WEFT, &[via("10.0.3.3", 3)]));
    lab.work();
    assert_eq!(lab.weft(), before);
    assert_eq!(lab.engine.counters().repairs, 4);
    assert!(lab.events.iter().any(|event| matches!(event, Event::Repaired { routes: 3, .. })));

    // A change nobody tells of is found by the audit.
    lab.fib.remove(before[0].key);
    let _ = lab.fib.notifications();
    lab.pass(Duration::from_secs(31));
    assert_eq!(lab.weft(), before);
}

#[test]
fn a_later_link_of_the_same_name_gets_nothing_of_an_earlier_pod() {
    const LATER: u32 = 9;
    let mut lab = Lab::new(Settings::default(), &[]);
    lab.engine.pods(vec![PodRoute { address: ip("10.7.0.1"), link: 3, mac: [2; 6] }]);
    lab.settle();
    assert_eq!(lab.weft().len(), 1);
    lab.fib.remove_link(3);
    lab.fib.set_link(Link { name: link(3, true).name, ..link(LATER, true) });
    lab.pass(Duration::from_secs(61));
    assert_eq!(lab.weft(), []);
    assert_eq!(lab.fib.neighbours().get(&(LATER, ip("10.7.0.1"))), None);
}

#[test]
fn pod_routes_are_restored_but_never_deleted() {
    let mut lab = Lab::new(Settings::default(), &[]);
    let pod = PodRoute { address: ip("10.7.0.1"), link: 3, mac: [2; 6] };
    lab.engine.pods(vec![pod]);
    lab.settle();
    lab.engine.pods(Vec::new());
    lab.engine.sweep();
    lab.pass(Duration::from_secs(61));
    assert_eq!(lab.weft(), [route("10.7.0.1/32", POD_METRIC, Protocol::WEFT_PODS, &[NextHop::on_link(3)])]);
}

#[test]
fn the_preferred_source_follows_the_address() {
    let settings = Settings { preferred_source_v4: Some([10, 0, 3, 1].into()), ..Settings::default() };
    let mut lab = Lab::new(settings, &[]);
    lab.engine.learned(learn("10.1.0.0/24", &["10.0.1.2"]));
    lab.settle();
    assert_eq!(lab.weft()[0].preferred_source, Some(ip("10.0.3.1")));
    lab.fib.remove_address(address(3));
    lab.settle();
    assert_eq!(lab.weft()[0].preferred_source, None);
    lab.fib.add_address(address(3));
    lab.settle();
    assert_eq!(lab.weft()[0].preferred_source, Some(ip("10.0.3.1")));
    lab.engine.configure(Settings { preferred_source_v4: Some([10, 0, 2, 1].into()), ..Settings::default() });
    lab.settle();
    assert_eq!(lab.weft()[0].preferred_source, Some(ip("10.0.2.1")));
}

#[test]
fn settings_move_routes_without_touching_others() {
    let blocks = BTreeSet::from([net("10.7.0.1/32")]);
    let mut lab = Lab::new(Settings { own_blocks: blocks, ..Settings::default() }, &[]);
    lab.engine.learned(learn("10.1.0.0/24", &["10.0.1.2"]));
    lab.settle();
    assert!(lab.fib.routes().contains_key(&key("10.7.0.1/32", OWN_BLOCK_METRIC)));
    let blocks = BTreeSet::from([net("10.8.0.0/26")]);
    lab.engine.configure(Settings { metric: 100, own_blocks: blocks, ..Settings::default() });
    lab.settle();
    let keys: Vec<RouteKey> = lab.weft().iter().map(|route| route.key).collect();
    assert_eq!(keys, [key("10.1.0.0/24", 100), key("10.8.0.0/26", OWN_BLOCK_METRIC)]);
}

#[test]
fn a_refused_route_is_reported_once_and_tried_again() {
    let mut lab = Lab::new(Settings::default(), &[]);
    // Its group and the leg of that, twice; then the route itself.
    lab.fib.refuse([Some(Errno::EPERM); 4].into_iter().chain([None, None, Some(Errno::EPERM)]));
    lab.engine.learned(learn("10.1.0.0/24", &["10.0.1.2"]));
    lab.run();
    assert!(lab.state("10.1.0.0/24").starts_with("refused: "), "{}", lab.state("10.1.0.0/24"));
    lab.pass(Duration::from_secs(5));
    assert_eq!(lab.state("10.1.0.0/24"), RouteState::Installed.to_string());
    let refused = lab.events.iter().filter(|event| matches!(event, Event::Refused { .. })).count();
    assert_eq!(refused, 1);
    assert_eq!(lab.engine.counters().refusals, 3);
    assert!(lab.engine.is_settled());
}

#[test]
fn lost_notifications_and_failing_dumps_are_survived() {
    let mut lab = Lab::new(Settings::default(), &[]);
    lab.engine.learned(learn("10.1.0.0/24", &["10.0.1.2"]));
    lab.settle();
    lab.fib.remove(key("10.1.0.0/24", 64));
    lab.fib.overrun();
    lab.fib.fail_dumps(2);
    lab.pass(Duration::from_secs(5));
    assert_eq!(lab.weft().len(), 1);
    assert_eq!(lab.engine.counters().overruns, 1);
}

#[test]
fn nothing_is_replaced_while_notifications_are_lost() {
    let mut lab = Lab::new(Settings::default(), &[]);
    lab.engine.learned(learn("10.1.0.0/24", &["10.0.1.2"]));
    lab.settle();
    let foreign = route("10.1.0.0/24", 64, Protocol::STATIC, &[via("10.0.2.9", 2)]);
    lab.fib.insert(foreign.clone());
    lab.fib.overrun();
    lab.engine.learned(learn("10.1.0.0/24", &["10.0.3.2"]));
    lab.settle();
    assert_eq!(lab.fib.routes().get(&foreign.key), Some(&foreign));
}

#[test]
fn a_foreign_route_may_take_a_key_that_the_kernel_freed_silently() {
    let mut lab = Lab::new(Settings::default(), &[]);
    lab.engine.learned(learn("10.1.0.0/24", &["10.0.1.2"]));
    lab.settle();
    lab.engine.learned(learn("10.1.0.0/24", &["10.0.2.2"]));
    lab.fib.set_link(link(1, false));
    let foreign = route("10.1.0.0/24", 64, Protocol::STATIC, &[via("10.0.3.9", 3)]);
    lab.fib.insert(foreign.clone());
    lab.settle();
    assert_eq!(lab.fib.routes().get(&foreign.key), Some(&foreign));
    assert_eq!(lab.state("10.1.0.0/24"), "shadowed by proto static");
}

/// A kernel in which somebody deletes one of our routes after it was written, and before it is told that it was.
struct Meddled {
    fib: MemoryFib,
    victim: RouteKey,
}

impl Fib for Meddled {
    fn dump(&mut self) -> Result<Snapshot, Error> {
        self.fib.dump()
    }

    fn nexthops(&mut self) -> Result<Option<Nexthops>, Error> {
        self.fib.nexthops()
    }

    fn apply(&mut self, writes: &[Write]) -> Vec<Result<(), Error>> {
        self.fib.apply(writes)
    }

    fn begin<'a>(&mut self, writes: impl IntoIterator<Item = &'a Write>) {
        self.fib.begin(writes);
    }

    fn finish(&mut self) -> Vec<Result<(), Error>> {
        let results = self.fib.finish();
        self.fib.remove(self.victim);
        results
    }

    fn notifications(&mut self) -> Vec<Notification> {
        self.fib.notifications()
    }
}

/// Two batches are under way at once: what is heard of the second one's keys while the first one ends may be before or after their writes.
#[test]
fn what_others_delete_of_a_batch_that_is_under_way_comes_back() {
    let mut lab = Lab::new(Settings::default(), &[]);
    let prefix = |n: u16| format!("10.{}.{}.0/24", 1 + (n >> 8), n & 0xff);
    lab.engine.learned((0..5000).flat_map(|n| learn(&prefix(n), &["10.0.1.2"])).collect());
    let mut meddled = Meddled { fib: lab.fib, victim: key(&prefix(3000), 64) };
    for _ in 0..3 {
        lab.engine.run(lab.now, &mut meddled).unwrap();
    }
    assert!(meddled.fib.routes().len() > 4096, "two batches and others' routes");
    lab.fib = meddled.fib;
    lab.settle();
    assert_eq!(lab.weft().len(), 5000);
    assert!(lab.engine.is_settled());
}

fn any_protocol() -> impl Strategy<Value = Protocol> {
    prop_oneof![Just(Protocol::WEFT), Just(Protocol::WEFT_PODS), Just(Protocol::STATIC)]
}

fn any_route() -> impl Strategy<Value = Route> {
    (0u8..6, 0u32..2, any_protocol(), 1u32..4).prop_map(|(n, metric, protocol, link)| {
        route(&format!("10.{n}.0.0/16"), 64 + metric, protocol, &[NextHop::on_link(link)])
    })
}

fn any_routes() -> impl Strategy<Value = BTreeMap<RouteKey, Route>> {
    proptest::collection::vec(any_route(), 0..12)
        .prop_map(|routes| routes.into_iter().map(|route| (route.key, route)).collect())
}

proptest! {
    #[test]
    fn the_diff_applied_gives_what_is_desired(desired in any_routes(), kernel in any_routes()) {
        let desired: BTreeMap<RouteKey, Route> =
            desired.into_iter().filter(|(_, route)| route.protocol.is_weft()).collect();
        let mut after = kernel.clone();
        let keys: BTreeSet<RouteKey> = desired.keys().chain(kernel.keys()).copied().collect();
        for key in &keys {
            let held = kernel.get(key);
            let compared = Compared {
                key: *key,
                desired: desired.get(key),
                actual: held.filter(|route| route.protocol.is_weft()),
                foreign: held.is_some_and(|route| !route.protocol.is_weft()),
                adopted: false,
            };
            match delta::write(compared) {
                Some(Write::Add(route)) => prop_assert!(after.insert(*key, route).is_none()),
                Some(Write::Replace(route)) => {
                    let before = after.insert(*key, route);
                    prop_assert!(before.is_some_and(|before| before.protocol.is_weft()));
                }
                Some(Write::Delete(_, protocol)) => {
                    prop_assert_eq!(after.remove(key).map(|route| route.protocol), Some(protocol));
                }
                Some(other) => prop_assert!(false, "{:?} is no answer to a difference of routes", other),
                None => {}
            }
        }
        for key in &keys {
            match kernel.get(key) {
                Some(held) if !held.protocol.is_weft() => prop_assert_eq!(after.get(key), Some(held)),
                Some(held) if held.protocol == Protocol::WEFT_PODS => {
                    let protocol = after.get(key).map(|route| route.protocol);
                    prop_assert_eq!(protocol, Some(Protocol::WEFT_PODS));
                }
                _ => prop_assert_eq!(after.get(key), desired.get(key)),
            }
        }
    }
}

/// Something that happens to the engine or behind its back.
#[derive(Debug, Clone)]
enum Step {
    Learn {
        prefix: u8,
        links: BTreeSet<u32>,
    },
    /// So many routes, over the router on this link, that an object goes with them.
    Many(Option<u32>),
    Pod {
        present: bool,
        link: u32,
    },
    Source(bool),
    Link {
        index: u32,
        up: bool,
    },
    Delete(u8),
    Tamper(u8, Protocol),
    AdminRemoves(u8),
    /// The peer on this link dies.
    Die(u32),
    /// Somebody deletes every nexthop object.
    Flush,
    Overrun,
    Refuse(Vec<Option<Errno>>),
    FailDump,
    Sweep,
    /// What is begun then is not taken in before the next step.
    Run,
    Pass(u64),
}

fn any_step() -> impl Strategy<Value = Step> {
    let errno = prop_oneof![
        Just(None),
        Just(Some(Errno::ENOBUFS)),
        Just(Some(Errno::EPERM)),
        Just(Some(Errno::ENODEV)),
        Just(Some(Errno::EEXIST)),
    ];
    prop_oneof![
        4 => (0u8..5, proptest::collection::btree_set(1u32..4, 0..4))
            .prop_map(|(prefix, links)| Step::Learn { prefix, links }),
        1 => proptest::option::of(1u32..4).prop_map(Step::Many),
        1 => (any::<bool>(), 1u32..4).prop_map(|(present, link)| Step::Pod { present, link }),
        1 => any::<bool>().prop_map(Step::Source),
        3 => (1u32..4, any::<bool>()).prop_map(|(index, up)| Step::Link { index, up }),
        2 => (0u8..5).prop_map(Step::Delete),
        2 => (0u8..5, any_protocol()).prop_map(|(prefix, protocol)| Step::Tamper(prefix, protocol)),
        1 => (0u8..5).prop_map(Step::AdminRemoves),
        2 => (1u32..4).prop_map(Step::Die),
        1 => Just(Step::Flush),
        1 => Just(Step::Overrun),
        1 => proptest::collection::vec(errno, 1..4).prop_map(Step::Refuse),
        1 => Just(Step::FailDump),
        1 => Just(Step::Sweep),
        3 => Just(Step::Run),
        2 => (0u64..3000).prop_map(Step::Pass),
    ]
}

fn prefix(n: u8) -> String {
    format!("10.10{n}.0.0/16")
}

const MANY: u32 = 300;

fn many(n: u32) -> String {
    format!("10.{}.{}.0/24", 120 + n / 256, n % 256)
}

fn learn_many(link: Option<u32>) -> Vec<RouteChange> {
    let next_hops: Vec<String> = link.iter().map(|link| format!("10.0.{link}.2")).collect();
    let next_hops: Vec<&str> = next_hops.iter().map(String::as_str).collect();
    (0..MANY).flat_map(|n| learn(&many(n), &next_hops)).collect()
}

/// What ought to be in the kernel, kept by the simplest means.
#[derive(Default)]
struct Oracle {
    learned: BTreeMap<u8, BTreeSet<u32>>,
    many: Option<u32>,
    pod: Option<u32>,
    down: BTreeSet<u32>,
    source: bool,
}

impl Oracle {
    fn route(&self, n: u8) -> Option<Route> {
        self.over(&prefix(n), self.learned.get(&n)?)
    }

    fn many(&self, n: u32) -> Option<Route> {
        self.over(&many(n), &self.many)
    }

    fn over<'a>(&self, prefix: &str, links: impl IntoIterator<Item = &'a u32>) -> Option<Route> {
        let links = links.into_iter().filter(|index| !self.down.contains(index));
        let legs: NextHops = links.map(|index| via(&format!("10.0.{index}.2"), *index)).collect();
        (!legs.is_empty()).then(|| Route {
            preferred_source: self.source.then(|| ip("10.0.3.1")),
            ..route(prefix, 64, Protocol::WEFT, &legs.iter().copied().collect::<Vec<_>>())
        })
    }
}

fn step(lab: &mut Lab, oracle: &mut Oracle, step: Step) {
    match step {
        Step::Learn { prefix: n, links } => {
            let next_hops = links.iter().map(|index| next_hop(&format!("10.0.{index}.2"))).collect();
            lab.engine.learned(vec![RouteChange { prefix: net(&prefix(n)), next_hops, direct: None }]);
            oracle.learned.insert(n, links);
        }
        Step::Many(link) => {
            lab.engine.learned(learn_many(link));
            oracle.many = link;
        }
        Step::Pod { present, link } => {
            let pod = PodRoute { address: ip("10.7.0.1"), link, mac: [2; 6] };
            lab.engine.pods(if present { vec![pod] } else { Vec::new() });
            oracle.pod = present.then_some(link);
        }
        Step::Source(present) => {
            let preferred_source_v4 = present.then_some([10, 0, 3, 1].into());
            lab.engine.configure(Settings { preferred_source_v4, ..Settings::default() });
            oracle.source = present;
        }
        Step::Link { index, up } => {
            lab.fib.set_link(link(index, up));
            if up {
                lab.fib.insert(connected(index));
                oracle.down.remove(&index);
            } else {
                oracle.down.insert(index);
            }
        }
        Step::Delete(n) => lab.fib.remove(key(&prefix(n), 64)),
        Step::Tamper(n, protocol) => {
            // No pod has such a prefix; a 177 route there would rightly stay for ever.
            if protocol != Protocol::WEFT_PODS {
                lab.fib.insert(route(&prefix(n), 64, protocol, &[]));
            }
        }
        Step::AdminRemoves(n) => {
            let held = lab.fib.routes().remove(&key(&prefix(n), 64));
            if held.is_some_and(|route| route.protocol == Protocol::STATIC) {
                lab.fib.remove(key(&prefix(n), 64));
            }
        }
        Step::Die(index) => {
            lab.engine.lost(vec![next_hop(&format!("10.0.{index}.2"))]);
            lab.run();
            if oracle.many.take_if(|link| *link == index).is_some() {
                lab.engine.learned(learn_many(None));
            }
            for (n, links) in &mut oracle.learned {
                if links.remove(&index) {
                    let next_hops = links.iter().map(|index| next_hop(&format!("10.0.{index}.2"))).collect();
                    lab.engine.learned(vec![RouteChange {
                        prefix: net(&prefix(*n)),
                        next_hops,
                        direct: None,
                    }]);
                }
            }
        }
        Step::Flush => {
            let ids: Vec<u32> = lab.fib.objects().iter().map(|object| object.id).collect();
            ids.into_iter().for_each(|id| lab.fib.remove_nexthop(id));
        }
        Step::Overrun => lab.fib.overrun(),
        Step::Refuse(fates) => lab.fib.refuse(fates),
        Step::FailDump => lab.fib.fail_dumps(1),
        Step::Sweep => lab.engine.sweep(),
        Step::Run => lab.run(),
        Step::Pass(milliseconds) => lab.pass(Duration::from_millis(milliseconds)),
    }
}

proptest! {
    #[test]
    fn the_engine_converges_whatever_happens(
        steps in proptest::collection::vec(any_step(), 1..60),
        has_nexthops in any::<bool>(),
    ) {
        let fib = if has_nexthops { MemoryFib::new() } else { MemoryFib::without_nexthops() };
        let mut lab = Lab::on(fib, Settings::default(), &[]);
        let mut oracle = Oracle::default();
        for one in steps {
            step(&mut lab, &mut oracle, one);
        }
        lab.fib.relent();
        lab.engine.sweep();
        let foreign: Vec<Route> =
            lab.fib.routes().values().filter(|route| !route.protocol.is_weft()).cloned().collect();
        lab.pass(Duration::from_secs(65));

        for route in &foreign {
            let held = lab.fib.routes().remove(&route.key);
            prop_assert_eq!(held.as_ref(), Some(route), "a foreign route was touched");
        }
        for n in 0..5 {
            let held = lab.fib.routes().remove(&key(&prefix(n), 64));
            if held.as_ref().is_none_or(|route| route.protocol.is_weft()) {
                prop_assert_eq!(held, oracle.route(n));
            }
        }
        let routes = lab.fib.routes();
        for n in 0..MANY {
            prop_assert_eq!(routes.get(&key(&many(n), 64)).cloned(), oracle.many(n));
        }
        if let Some(link) = oracle.pod.filter(|link| !oracle.down.contains(link)) {
            let held = lab.fib.routes().remove(&key("10.7.0.1/32", POD_METRIC));
            let preferred_source = oracle.source.then(|| ip("10.0.3.1"));
            let legs = [NextHop::on_link(link)];
            let wanted =
                Route { preferred_source, ..route("10.7.0.1/32", POD_METRIC, Protocol::WEFT_PODS, &legs) };
            prop_assert_eq!(held, Some(wanted));
            prop_assert_eq!(lab.fib.neighbours().get(&(link, ip("10.7.0.1"))), Some(&[2u8; 6]));
        }
        prop_assert!(lab.engine.is_settled(), "the engine is still at work");
        // Every object that is left is in use.
        let objects = lab.fib.objects();
        let over: BTreeSet<u32> = lab.fib.dump().unwrap().routes.iter().filter_map(|route| match route.action {
            Action::Object(id) => Some(id),
            _ => None,
        }).collect();
        let groups: BTreeSet<u32> = objects.iter().filter(|o| o.is_weft_group()).map(|o| o.id).collect();
        prop_assert_eq!(&groups, &over);
        let legs: BTreeSet<NextHop> = groups.iter().flat_map(|id| objects.legs(*id).iter().copied().collect::<Vec<_>>()).collect();
        prop_assert_eq!(objects.iter().count(), legs.len() + groups.len());
    }
}
