//! Nexthop objects against a kernel in memory: how many writes a change of legs costs, and who owns what.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failing helper fails its test"
)]

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use weft_routing::memory::MemoryFib;
use weft_routing::netlink::{Address, Link, Scope};
use weft_routing::nexthop::{Nexthop, NexthopKind, OWN_IDS};
use weft_routing::route::{Action, NextHop, NextHops, Protocol, Route, RouteKey};
use weft_routing::sync::{Engine, Event};
use weft_routing::{NextHopRef, RouteChange, Settings};

/// How many routes there are in most tests.
const ROUTES: u32 = 1000;

fn hop(n: u32) -> NextHopRef {
    NextHopRef { address: gateway(n), default_route: false, link: None }
}

/// A router on link `n`.
fn gateway(n: u32) -> IpAddr {
    format!("10.0.{n}.2").parse().unwrap()
}

fn legs(links: &[u32]) -> NextHops {
    links.iter().map(|link| NextHop::via(gateway(*link), *link)).collect()
}

fn prefix(n: u32) -> IpNet {
    IpNet::new(Ipv4Addr::from(0x0b00_0000 + n * 256).into(), 24).unwrap()
}

/// Routes over the routers on these links; none: withdrawn.
fn learn(prefixes: std::ops::Range<u32>, links: &[u32]) -> Vec<RouteChange> {
    let change = |n| RouteChange {
        prefix: prefix(n),
        next_hops: links.iter().map(|link| hop(*link)).collect(),
        direct: None,
    };
    prefixes.map(change).collect()
}

fn link(index: u32, carrier: bool) -> Link {
    Link {
        index,
        name: format!("eth{index}"),
        mac: None,
        mtu: 1500,
        up: true,
        carrier,
        operational: carrier,
        loopback: false,
        kind: None,
        peer: None,
        peer_namespace: None,
    }
}

struct Lab {
    fib: MemoryFib,
    engine: Engine,
    now: Instant,
    events: Vec<Event>,
}

impl Lab {
    /// Links 1 to 3, up and connected.
    fn new(mut fib: MemoryFib) -> Self {
        for index in 1..=3 {
            fib.set_link(link(index, true));
            let address = format!("10.0.{index}.1/24").parse().unwrap();
            fib.add_address(Address { link: index, address, scope: Scope::Global, tentative: false });
            fib.insert(Route {
                key: RouteKey::new(format!("10.0.{index}.0/24").parse().unwrap(), 0),
                protocol: Protocol::KERNEL,
                action: Action::Forward(NextHop::on_link(index).into()),
                preferred_source: None,
            });
        }
        #[expect(clippy::disallowed_methods, reason = "virtual time has to start somewhere")]
        let now = Instant::now();
        let mut lab = Self { fib, engine: Engine::new(Settings::default()), now, events: Vec::new() };
        lab.settle();
        lab
    }

    /// Another weftd takes over.
    fn restart(self) -> Self {
        let mut lab = Self { engine: Engine::new(Settings::default()), events: Vec::new(), ..self };
        lab.settle();
        lab
    }

    fn run(&mut self) {
        self.engine.run(self.now, &mut self.fib).unwrap();
        while let Some(event) = self.engine.poll() {
            self.events.push(event);
        }
    }

    /// A second passes. How many writes there were.
    fn settle(&mut self) -> usize {
        let (before, end) = (self.fib.writes(), self.now + Duration::from_secs(1));
        loop {
            self.run();
            let (deadline, _) = self.engine.next_deadline(self.now);
            if deadline > end {
                self.now = end;
                return self.fib.writes() - before;
            }
            self.now = self.now.max(deadline);
        }
    }

    fn learn(&mut self, prefixes: std::ops::Range<u32>, links: &[u32]) -> usize {
        self.engine.learned(learn(prefixes, links));
        self.settle()
    }

    /// That these prefixes, and no others, have routes, over the routers on these links.
    #[track_caller]
    fn ensure(&self, prefixes: std::ops::Range<u32>, links: &[u32]) {
        let routes = self.fib.routes();
        let ours: Vec<_> = routes.values().filter(|route| route.protocol == Protocol::WEFT).collect();
        assert_eq!(ours.len(), prefixes.len());
        for (route, n) in ours.iter().zip(prefixes) {
            assert_eq!((route.key.destination(), &route.action), (prefix(n), &Action::Forward(legs(links))));
        }
    }

    /// Objects of legs and of groups.
    fn objects(&self) -> (usize, usize) {
        let objects = self.fib.objects();
        let groups = objects.iter().filter(|object| object.is_weft_group()).count();
        let counts = (objects.iter().filter(|object| object.is_weft()).count() - groups, groups);
        assert_eq!(self.engine.nexthop_objects(), counts, "the engine knows what there is");
        counts
    }
}

#[test]
fn routes_with_equal_legs_share_a_group_that_goes_with_the_last() {
    let mut lab = Lab::new(MemoryFib::new());
    assert_eq!(lab.learn(0..ROUTES, &[1, 2]), ROUTES as usize + 3);
    lab.ensure(0..ROUTES, &[1, 2]);
    assert_eq!(lab.objects(), (2, 1));
    lab.learn(ROUTES..ROUTES + 1, &[2]);
    assert_eq!(lab.objects(), (2, 2));
    lab.learn(ROUTES..ROUTES + 1, &[]);
    assert_eq!(lab.objects(), (2, 1));
    lab.learn(0..ROUTES, &[]);
    assert_eq!(lab.objects(), (0, 0));
}

#[test]
fn objects_are_adopted_and_swept_with_their_routes() {
    let mut lab = Lab::new(MemoryFib::new());
    lab.learn(0..ROUTES, &[1, 2]);
    lab.learn(ROUTES..ROUTES + 5, &[3]);
    let before = lab.fib.objects();
    let mut lab = lab.restart();
    assert_eq!(lab.learn(0..ROUTES, &[1, 2]), 0, "what was there is as wanted");
    assert_eq!(lab.fib.objects(), before);
    lab.engine.sweep();
    assert_eq!(lab.settle(), 5 + 2, "five routes, their group and its leg");
    lab.ensure(0..ROUTES, &[1, 2]);
    assert_eq!(lab.objects(), (2, 1));
}

#[test]
fn a_lost_carrier_costs_no_write_and_its_return_two() {
    let mut lab = Lab::new(MemoryFib::new());
    lab.learn(0..ROUTES, &[1, 2]);
    // The kernel takes the leg out of the group itself.
    lab.fib.set_link(link(1, false));
    assert_eq!(lab.settle(), 0);
    lab.ensure(0..ROUTES, &[2]);
    lab.fib.set_link(link(1, true));
    assert_eq!(lab.settle(), 2, "the leg, and the group");
    lab.ensure(0..ROUTES, &[1, 2]);
    assert_eq!(lab.objects(), (2, 1));
}

#[test]
fn routes_that_the_kernel_dropped_with_the_last_leg_come_back_with_the_carrier() {
    let mut lab = Lab::new(MemoryFib::new());
    lab.learn(0..ROUTES, &[1]);
    lab.fib.set_link(link(1, false));
    lab.settle();
    lab.ensure(0..0, &[]);
    assert_eq!(lab.objects(), (0, 0));
    lab.fib.set_link(link(1, true));
    assert_eq!(lab.settle(), ROUTES as usize + 2);
    lab.ensure(0..ROUTES, &[1]);
}

#[test]
fn objects_that_somebody_deletes_or_changes_are_put_back_at_once() {
    let mut lab = Lab::new(MemoryFib::new());
    lab.learn(0..ROUTES, &[1, 2]);
    lab.events.clear();
    let ids: Vec<u32> = lab.fib.objects().iter().map(|object| object.id).collect();
    ids.into_iter().for_each(|id| lab.fib.remove_nexthop(id));
    lab.ensure(0..0, &[]);
    lab.run();
    lab.ensure(0..ROUTES, &[1, 2]);
    // What became of that is taken in.
    lab.run();
    let group = lab.fib.objects().iter().find(|object| object.is_weft_group()).cloned().unwrap();
    let NexthopKind::Group(members) = &group.kind else { panic!("no group: {group:?}") };
    lab.fib.insert_nexthop(Nexthop { kind: NexthopKind::Group(members[..1].to_vec()), ..group });
    lab.run();
    lab.ensure(0..ROUTES, &[1, 2]);
    let repaired: usize = lab
        .events
        .iter()
        .map(|event| if let Event::Repaired { routes, .. } = event { *routes } else { 0 })
        .sum();
    assert_eq!(repaired, 2 * ROUTES as usize);
    lab.settle();
    assert_eq!(lab.objects(), (2, 1));
}

#[test]
fn objects_of_others_are_left_alone_whatever_their_ids_are() {
    let mut fib = MemoryFib::new();
    let leg = NexthopKind::Leg(NextHop::via(gateway(1), 1));
    let foreign = [
        Nexthop { id: 5, protocol: Protocol::STATIC, kind: leg.clone() },
        Nexthop { id: *OWN_IDS.start(), protocol: Protocol::STATIC, kind: leg.clone() },
        Nexthop { id: 6, protocol: Protocol::WEFT, kind: leg.clone() },
    ];
    fib.set_link(link(1, true));
    foreign.iter().for_each(|object| fib.insert_nexthop(object.clone()));
    let mut lab = Lab::new(fib);
    lab.learn(0..5, &[1]);
    // One that nobody told of yet has the next id.
    let next = lab.fib.objects().iter().map(|object| object.id).max().unwrap() + 1;
    let unheard = Nexthop { id: next, protocol: Protocol::STATIC, kind: leg };
    lab.fib.insert_nexthop(unheard.clone());
    lab.fib.overrun();
    lab.engine.learned(learn(5..10, &[2]));
    lab.engine.learned(learn(0..5, &[2]));
    lab.settle();
    lab.ensure(0..10, &[2]);
    lab.learn(0..10, &[]);
    let left: Vec<Nexthop> = lab.fib.objects().iter().cloned().collect();
    assert_eq!(left, [foreign[0].clone(), foreign[2].clone(), foreign[1].clone(), unheard]);
}

#[test]
fn a_lost_next_hop_is_one_write_and_what_follows_from_that_none() {
    let mut lab = Lab::new(MemoryFib::new());
    lab.learn(0..ROUTES, &[1, 2]);
    lab.engine.lost(vec![hop(1)]);
    assert_eq!(lab.settle(), 1 + 1, "the group changes; the leg that is in none goes");
    lab.ensure(0..ROUTES, &[2]);
    assert_eq!(lab.learn(0..ROUTES, &[2]), 0, "the routes are as they are to be");
    // Carrier and lost next hops go together.
    lab.fib.set_link(link(2, false));
    lab.settle();
    lab.ensure(0..0, &[]);
    lab.fib.set_link(link(2, true));
    lab.settle();
    lab.ensure(0..ROUTES, &[2]);
    lab.learn(0..ROUTES, &[1, 2]);
    lab.ensure(0..ROUTES, &[1, 2]);
    assert_eq!(lab.objects(), (2, 1));
}

#[test]
fn a_lost_next_hop_without_another_stays_until_its_routes_are_told() {
    let mut lab = Lab::new(MemoryFib::new());
    lab.learn(0..ROUTES, &[1]);
    lab.engine.lost(vec![hop(1)]);
    assert_eq!(lab.settle(), 0);
    lab.ensure(0..ROUTES, &[1]);
    lab.learn(0..ROUTES, &[]);
    lab.ensure(0..0, &[]);
}

#[test]
fn a_next_hop_that_is_offered_again_counts_again() {
    let mut lab = Lab::new(MemoryFib::new());
    lab.learn(0..ROUTES, &[1, 2]);
    lab.engine.lost(vec![hop(1)]);
    lab.settle();
    // Of one prefix alone: the others are still to be told.
    lab.learn(0..1, &[1, 2]);
    lab.ensure(0..ROUTES, &[1, 2]);
    assert_eq!(lab.objects(), (2, 1));
}

#[test]
fn sets_that_resolve_alike_part_where_one_of_them_changes() {
    let mut lab = Lab::new(MemoryFib::new());
    // Two far next hops over one router, by routes of an admin's.
    let far = |n: u8| NextHopRef { address: [192, 0, 2, n].into(), default_route: false, link: None };
    let over = |n: u8, link: u32| Route {
        key: RouteKey::new(IpNet::new([192, 0, 2, n].into(), 32).unwrap(), 0),
        protocol: Protocol::STATIC,
        action: Action::Forward(legs(&[link])),
        preferred_source: None,
    };
    lab.fib.insert(over(1, 1));
    lab.fib.insert(over(2, 1));
    let learn =
        |n: u32, hop: u8| RouteChange { prefix: prefix(n), next_hops: [far(hop)].into(), direct: None };
    lab.engine.learned(vec![learn(0, 1), learn(1, 2)]);
    lab.settle();
    assert_eq!(lab.objects(), (1, 1), "equal legs, one group");
    lab.fib.insert(over(1, 3));
    lab.settle();
    assert_eq!(lab.fib.routes()[&RouteKey::new(prefix(0), 64)].action, Action::Forward(legs(&[3])));
    assert_eq!(lab.fib.routes()[&RouteKey::new(prefix(1), 64)].action, Action::Forward(legs(&[1])));
    assert_eq!(lab.objects(), (2, 2));
    // Where both move, routes stay as they are.
    lab.fib.insert(over(2, 3));
    lab.settle();
    lab.fib.insert(over(1, 2));
    lab.fib.insert(over(2, 2));
    let groups = lab.objects().1;
    assert_eq!(lab.settle(), 2 + 1 + groups - 1, "a leg comes, the groups change, and the old leg goes");
    lab.ensure(0..2, &[2]);
}

#[test]
fn legs_that_change_places_are_as_many_writes_as_groups() {
    let mut lab = Lab::new(MemoryFib::new());
    let far = |n: u8| NextHopRef { address: [192, 0, 2, n].into(), default_route: false, link: None };
    let over = |n: u8, link: u32| Route {
        key: RouteKey::new(IpNet::new([192, 0, 2, n].into(), 32).unwrap(), 0),
        protocol: Protocol::STATIC,
        action: Action::Forward(legs(&[link])),
        preferred_source: None,
    };
    let set = |lab: &mut Lab, links: [u32; 2]| {
        lab.fib.insert(over(1, links[0]));
        lab.fib.insert(over(2, links[1]));
    };
    set(&mut lab, [1, 2]);
    let learn = |n: u32| RouteChange {
        prefix: prefix(n),
        next_hops: [far(if n < 10 { 1 } else { 2 })].into(),
        direct: None,
    };
    lab.engine.learned((0..20).map(learn).collect());
    lab.settle();
    set(&mut lab, [2, 1]);
    assert_eq!(lab.settle(), 2);
    for n in 0..20 {
        let link = if n < 10 { 2 } else { 1 };
        assert_eq!(
            lab.fib.routes()[&RouteKey::new(prefix(n), 64)].action,
            Action::Forward(legs(&[link])),
            "{n}"
        );
    }
}

#[test]
fn a_kernel_without_objects_has_the_legs_in_the_routes() {
    let mut lab = Lab::new(MemoryFib::without_nexthops());
    assert_eq!(lab.learn(0..10, &[1, 2]), 10);
    lab.ensure(0..10, &[1, 2]);
    lab.engine.lost(vec![hop(1)]);
    assert_eq!(lab.settle(), 10);
    lab.ensure(0..10, &[2]);
    assert_eq!(lab.learn(0..10, &[2]), 0);
    assert_eq!(lab.objects(), (0, 0));
}
