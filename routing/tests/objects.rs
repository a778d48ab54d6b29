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
use nix::errno::Errno;
use weft_routing::fib::{Fib, Notification, Snapshot, Write};
use weft_routing::memory::MemoryFib;
use weft_routing::netlink::{Address, Error, Link, Scope};
use weft_routing::nexthop::{Nexthop, NexthopKind, Nexthops, OWN_IDS, Resilience};
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

    /// The same of several ranges, each over others.
    #[track_caller]
    fn ensure_links(&self, ranges: &[(std::ops::Range<u32>, &[u32])]) {
        let routes = self.fib.routes();
        for (range, links) in ranges {
            for n in range.clone() {
                let route = &routes[&RouteKey::new(prefix(n), 64)];
                assert_eq!(route.action, Action::Forward(legs(links)), "{n}");
            }
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

/// The kernel takes the leg out of the group before it tells of the link; in between something else makes the engine look.
#[test]
fn a_group_that_lost_a_leg_is_kept_until_the_kernel_tells_of_the_link() {
    let mut lab = Lab::new(MemoryFib::new());
    lab.learn(0..ROUTES, &[1, 2]);
    let group = |lab: &Lab| lab.fib.objects().iter().find(|object| object.is_weft_group()).unwrap().id;
    let before = group(&lab);
    lab.events.clear();
    let look = |lab: &mut Lab| {
        // The next dump is not due at once.
        lab.fib.overrun();
        lab.settle();
        lab.fib.overrun();
        lab.run();
        lab.fib.set_link(link(1, false));
        lab.fib.delay();
        lab.fib.remove_nexthop(5);
        let writes = lab.fib.writes();
        lab.run();
        assert_eq!(lab.fib.writes() - writes, 2, "the leg and the group: in vain");
        lab.ensure(0..ROUTES, &[2]);
    };
    look(&mut lab);
    lab.fib.deliver();
    assert_eq!(lab.settle(), 0);
    lab.fib.set_link(link(1, true));
    assert_eq!(lab.settle(), 2, "the leg, and the group");
    // The link comes back before it is told that it went.
    look(&mut lab);
    lab.fib.set_link(link(1, true));
    lab.fib.delay();
    assert_eq!(lab.settle(), 2, "the leg, and the group");
    lab.fib.deliver();
    assert_eq!(lab.settle(), 0);
    lab.ensure(0..ROUTES, &[1, 2]);
    assert_eq!((group(&lab), lab.objects()), (before, (2, 1)));
    let repairs = lab.events.iter().filter(|event| matches!(event, Event::Repaired { .. })).count();
    assert_eq!(repairs, 0, "nobody changed anything");
}

#[test]
fn what_the_kernel_does_not_let_go_is_used_or_goes_later() {
    let mut lab = Lab::new(MemoryFib::new());
    lab.learn(0..1, &[1]);
    let before = lab.fib.objects();
    lab.fib.refuse([None, Some(Errno::ENOBUFS)]);
    lab.learn(0..1, &[]);
    assert_eq!(lab.objects(), (1, 1));
    assert_eq!(lab.learn(0..1, &[1]), 1, "the route alone");
    assert_eq!(lab.fib.objects(), before);
    lab.learn(0..1, &[]);
    assert_eq!(lab.objects(), (0, 0));
}

/// A kernel that deletes objects and does not say so.
struct Mute(MemoryFib);

impl Fib for Mute {
    fn dump(&mut self) -> Result<Snapshot, Error> {
        self.0.dump()
    }

    fn nexthops(&mut self) -> Result<Option<Nexthops>, Error> {
        self.0.nexthops()
    }

    fn apply(&mut self, writes: &[Write]) -> Vec<Result<(), Error>> {
        let results = self.0.apply(writes).into_iter().zip(writes);
        let is_delete = |write: &Write| matches!(write, Write::DeleteNexthop(_));
        results.map(|(result, write)| if is_delete(write) { Err(Error::NoReply) } else { result }).collect()
    }

    fn begin<'a>(&mut self, writes: impl IntoIterator<Item = &'a Write>) {
        self.0.begin(writes);
    }

    fn finish(&mut self) -> Vec<Result<(), Error>> {
        self.0.finish()
    }

    fn notifications(&mut self) -> Vec<Notification> {
        self.0.notifications()
    }
}

#[test]
fn what_may_have_gone_is_looked_for() {
    let mut lab = Lab::new(MemoryFib::new());
    lab.learn(0..1, &[1]);
    let mut mute = Mute(std::mem::take(&mut lab.fib));
    lab.engine.learned(learn(0..1, &[]));
    for _ in 0..3 {
        lab.engine.run(lab.now, &mut mute).unwrap();
    }
    lab.fib = mute.0;
    assert_eq!(lab.fib.objects().iter().count(), 0);
    lab.settle();
    assert_eq!(lab.objects(), (0, 0));
    lab.learn(0..1, &[1]);
    lab.ensure(0..1, &[1]);
}

#[test]
fn of_a_leg_that_is_there_more_than_once_what_is_in_no_group_goes() {
    let mut lab = Lab::new(MemoryFib::new());
    for links in [&[1][..], &[], &[1]] {
        lab.learn(0..1, links);
    }
    let before = lab.fib.objects();
    let kind = NexthopKind::Leg(NextHop::via(gateway(1), 1));
    for id in [*OWN_IDS.start(), *OWN_IDS.end()] {
        lab.fib.insert_nexthop(Nexthop { id, protocol: Protocol::WEFT, kind: kind.clone() });
    }
    lab.settle();
    assert_eq!(lab.fib.objects(), before);
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
    let NexthopKind::Group { members, resilience } = &group.kind else { panic!("no group: {group:?}") };
    let kind = NexthopKind::Group { members: members[..1].to_vec(), resilience: *resilience };
    lab.fib.insert_nexthop(Nexthop { kind, ..group });
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

/// More than a batch.
const MANY: u32 = 4900;

#[test]
fn routes_that_all_go_do_so_with_their_object() {
    let mut lab = Lab::new(MemoryFib::new());
    lab.learn(0..MANY, &[1]);
    lab.learn(MANY..MANY + 10, &[2]);
    assert_eq!(lab.learn(0..MANY, &[]), 2, "the group with its routes, and the leg");
    lab.ensure(MANY..MANY + 10, &[2]);
    assert_eq!(lab.objects(), (1, 1));
    assert_eq!(lab.learn(0..MANY, &[1]), MANY as usize + 2);
    assert_eq!(lab.fib.routes().len(), 3 + 10 + MANY as usize);
}

#[test]
fn an_object_that_the_kernel_keeps_loses_its_routes_one_by_one() {
    let mut lab = Lab::new(MemoryFib::new());
    lab.learn(0..300, &[1]);
    lab.fib.refuse([Some(Errno::EPERM)]);
    assert_eq!(lab.learn(0..300, &[]), 1 + 300 + 2, "once in vain, the routes, the group and the leg");
    assert_eq!((lab.fib.routes().len(), lab.objects()), (3, (0, 0)));
}

#[test]
fn an_object_stays_while_one_of_its_routes_has_not_found_another() {
    let mut lab = Lab::new(MemoryFib::new());
    lab.learn(0..MANY, &[1]);
    let mut changes = learn(1..MANY, &[]);
    changes.extend(learn(0..1, &[2]));
    lab.engine.learned(changes);
    let is_there = |lab: &Lab| lab.fib.routes().contains_key(&RouteKey::new(prefix(0), 64));
    while !lab.engine.is_settled() {
        lab.run();
        assert!(is_there(&lab), "it is away for a moment");
    }
    lab.settle();
    assert_eq!((lab.fib.routes().len(), lab.objects()), (4, (1, 1)));
}

#[test]
fn what_is_wanted_comes_before_objects_go() {
    let mut lab = Lab::new(MemoryFib::new());
    lab.learn(0..MANY, &[1]);
    let mut changes = learn(MANY..2 * MANY, &[2]);
    changes.extend(learn(0..MANY, &[]));
    lab.engine.learned(changes);
    while !lab.engine.is_settled() {
        lab.run();
        let routes = lab.fib.routes();
        let count = |of: std::ops::Range<u32>| {
            of.filter(|n| routes.contains_key(&RouteKey::new(prefix(*n), 64))).count()
        };
        let (old, new) = (count(0..MANY), count(MANY..2 * MANY));
        assert!(old == MANY as usize || new == MANY as usize, "{old} of the old ones, and {new} new ones");
    }
}

#[test]
fn another_metric_and_other_next_hops_leave_no_gap() {
    let mut lab = Lab::new(MemoryFib::new());
    lab.learn(0..MANY, &[1]);
    lab.engine.configure(Settings { metric: 100, ..Settings::default() });
    lab.engine.learned(learn(0..MANY, &[2]));
    while !lab.engine.is_settled() {
        lab.run();
        let routes = lab.fib.routes();
        let is_there =
            |n: &u32| [64, 100].iter().any(|metric| routes.contains_key(&RouteKey::new(prefix(*n), *metric)));
        assert_eq!((0..MANY).find(|n| !is_there(n)), None, "a prefix has no route for a while");
    }
    lab.settle();
    assert_eq!((lab.fib.routes().len(), lab.objects()), (3 + MANY as usize, (1, 1)));
}

#[test]
fn objects_go_with_their_last_route_also_where_that_was_under_way() {
    let mut lab = Lab::new(MemoryFib::new());
    let sets: [&[u32]; 6] = [&[1], &[2], &[3], &[1, 2], &[1, 3], &[2, 3]];
    for (nth, links) in (0..).zip(sets) {
        lab.learn(nth * 400..(nth + 1) * 400, links);
    }
    lab.learn(MANY..MANY + 400, &[1, 2, 3]);
    lab.learn(0..2400, &[]);
    assert_eq!(lab.objects(), (3, 1));
}

#[test]
fn where_objects_are_many_some_lose_their_routes_first() {
    let mut lab = Lab::new(MemoryFib::new());
    let sets: [&[u32]; 7] = [&[1], &[2], &[3], &[1, 2], &[1, 3], &[2, 3], &[1, 2, 3]];
    let each = 3000;
    let withdrawn = |links: &[u32]| -> Vec<RouteChange> {
        // Those of one object after the other would be too easy.
        let turns = (0..each).flat_map(|turn| (0..7).map(move |nth| nth * each + turn));
        turns.flat_map(|n| learn(n..n + 1, links)).collect()
    };
    for (nth, links) in (0..).zip(sets) {
        lab.learn(nth * each..(nth + 1) * each, links);
    }
    lab.engine.learned(withdrawn(&[]));
    let writes = lab.settle();
    assert_eq!((lab.fib.routes().len(), lab.objects()), (3, (0, 0)));
    // Two have none left, and more is under way, when the others are a fifth each.
    assert!(writes < 4 * each as usize, "{writes} writes");
}

const RESILIENCE: Resilience =
    Resilience { buckets: 256, idle_time: Duration::from_secs(120), unbalanced_time: Duration::ZERO };

impl Lab {
    fn resilient(fib: MemoryFib) -> Self {
        let mut lab = Self::new(fib);
        lab.ask(Some(RESILIENCE));
        lab
    }

    /// The number of writes, without a moment in which a route is missing.
    #[track_caller]
    fn ask(&mut self, resilience: Option<Resilience>) -> usize {
        self.engine.configure(Settings { resilience, ..Settings::default() });
        let (before, routes) = (self.fib.writes(), self.fib.routes());
        while self.engine.next_deadline(self.now).0 <= self.now {
            self.run();
            assert_eq!(self.fib.routes(), routes, "the routes stay as they are");
        }
        self.settle();
        self.fib.writes() - before
    }

    /// The group that a route goes over, and what makes it resilient.
    #[track_caller]
    fn group(&mut self, n: u32) -> (u32, Option<Resilience>) {
        let routes = self.fib.dump().unwrap().routes;
        let route = routes.iter().find(|route| route.key == RouteKey::new(prefix(n), 64)).unwrap();
        let Action::Object(id) = route.action else { panic!("over no group: {route:?}") };
        let objects = self.fib.objects();
        let NexthopKind::Group { resilience, .. } = &objects.get(id).unwrap().kind else {
            panic!("no group")
        };
        (id, *resilience)
    }
}

#[test]
fn a_resilient_group_goes_along_where_all_its_routes_go() {
    let mut lab = Lab::resilient(MemoryFib::new());
    lab.learn(0..ROUTES, &[1]);
    let group = lab.group(0);
    assert_eq!(group.1, Some(RESILIENCE), "a group of one leg, which may get more");
    // Its own buckets count, though another stands for the same legs.
    lab.learn(ROUTES..ROUTES + 1, &[1, 2]);
    for (links, writes) in [(&[1, 2][..], 1), (&[1, 2, 3], 3), (&[3], 1), (&[2], 3), (&[1, 3], 3)] {
        assert_eq!(lab.learn(0..ROUTES, links), writes, "the group, and two objects of a leg: {links:?}");
        assert_eq!(lab.group(0), group);
    }
    lab.learn(ROUTES..ROUTES + 1, &[]);
    lab.ensure(0..ROUTES, &[1, 3]);
    assert_eq!((lab.objects(), lab.engine.resilient_groups()), ((4, 1), 1));
    assert!(lab.engine.fib().iter().all(|entry| entry.resilient));

    // What some of its routes leave stays, and so does what they leave for.
    lab.learn(0..5, &[1, 2]);
    assert_eq!(lab.group(5), group);
    let other = lab.group(0);
    assert!(other.0 != group.0 && other == lab.group(4));
    // The last to leave takes it along.
    lab.learn(5..ROUTES, &[1, 2]);
    assert_eq!((lab.group(0), lab.group(5)), (other, group));
    lab.ensure(0..ROUTES, &[1, 2]);
    // Two that go to legs that no group stands for, all of one and some of the other: they share the first.
    lab.learn(1..ROUTES, &[2, 3]);
    assert_eq!((lab.group(0), lab.group(1), lab.group(5)), (other, group, group));
    lab.ensure_links(&[(0..1, &[1, 2]), (1..ROUTES, &[2, 3])]);
    // One that another comes to is not left.
    lab.engine.learned([learn(1..ROUTES, &[3]), learn(ROUTES..ROUTES + 1, &[2, 3])].concat());
    lab.settle();
    lab.ensure_links(&[(0..1, &[1, 2]), (1..ROUTES, &[3]), (ROUTES..ROUTES + 1, &[2, 3])]);
}

#[test]
fn a_resilient_group_that_cannot_be_changed_is_left() {
    let mut lab = Lab::resilient(MemoryFib::new());
    // One that is refused whatever it is does not say that there are none.
    lab.fib.refuse([None, None, Some(Errno::ENOMEM), Some(Errno::ENOMEM)]);
    lab.learn(0..ROUTES, &[1]);
    lab.ensure(0..ROUTES, &[1]);
    let group = lab.group(0);
    // The leg is made, the group is not changed.
    lab.fib.refuse([None, None, Some(Errno::ENOMEM)]);
    lab.learn(0..ROUTES, &[1, 2]);
    lab.ensure(0..ROUTES, &[1, 2]);
    assert_ne!(lab.group(0), group);
    assert_eq!((lab.objects(), lab.engine.not_resilient()), ((4, 1), None));
}

#[test]
fn routes_move_to_groups_of_the_kind_that_is_asked_for_without_a_gap() {
    let mut lab = Lab::new(MemoryFib::new());
    lab.learn(0..ROUTES, &[1, 2]);
    lab.learn(ROUTES..ROUTES + 5, &[3]);
    let moved = ROUTES as usize + 5 + 2 * 2;
    assert_eq!(lab.ask(Some(RESILIENCE)), moved + 3, "two groups made, two deleted, and each leg once more");
    assert_eq!((lab.group(0).1, lab.objects(), lab.engine.resilient_groups()), (Some(RESILIENCE), (6, 2), 2));
    let group = lab.group(0);
    let slower = Resilience { idle_time: Duration::from_secs(300), ..RESILIENCE };
    assert_eq!(lab.ask(Some(slower)), 2, "times are changed in place");
    assert_eq!(lab.group(0), (group.0, Some(slower)));
    let larger = Resilience { buckets: 512, ..slower };
    assert_eq!(lab.ask(Some(larger)), moved);
    // The next weftd takes over what is as it is to be, and moves the rest.
    let mut lab = lab.restart();
    assert_eq!(lab.ask(Some(larger)), 0);
    assert_eq!(lab.learn(0..ROUTES, &[1, 2]) + lab.learn(ROUTES..ROUTES + 5, &[3]), 0);
    assert_eq!(lab.group(0).1, Some(larger));
    let mut lab = lab.restart();
    lab.learn(0..ROUTES, &[1, 2]);
    lab.learn(ROUTES..ROUTES + 5, &[3]);
    assert_eq!((lab.group(0).1, lab.group(ROUTES).1, lab.objects()), (None, None, (3, 2)));
    assert_eq!(lab.engine.resilient_groups(), 0);
}

#[test]
fn a_resilient_group_that_somebody_changes_is_put_back() {
    let mut lab = Lab::resilient(MemoryFib::new());
    lab.learn(0..ROUTES, &[1, 2]);
    let (group, _) = lab.group(0);
    let mut object = lab.fib.objects().get(group).unwrap().clone();
    let NexthopKind::Group { resilience, .. } = &mut object.kind else { panic!("{object:?}") };
    *resilience = Some(Resilience { idle_time: Duration::ZERO, ..RESILIENCE });
    lab.fib.insert_nexthop(object);
    lab.events.clear();
    assert_eq!(lab.settle(), 1);
    assert_eq!(lab.group(0), (group, Some(RESILIENCE)));
    assert!(matches!(lab.events[..], [Event::Repaired { .. }]), "{:?}", lab.events);
}

#[test]
fn a_kernel_without_resilient_groups_has_the_usual_ones() {
    let mut lab = Lab::resilient(MemoryFib::without_resilient_groups());
    assert_eq!(lab.engine.not_resilient(), None, "nothing was tried");
    // Refused once, and made the usual way.
    assert_eq!(lab.learn(0..ROUTES, &[1, 2]), ROUTES as usize + 4 + 2 + 2, "and legs that are of no use go");
    assert_eq!(lab.objects(), (2, 1));
    assert_eq!(lab.learn(ROUTES..ROUTES + 1, &[2, 3]), 1 + 2);
    lab.learn(ROUTES..ROUTES + 1, &[]);
    lab.ensure(0..ROUTES, &[1, 2]);
    assert_eq!((lab.group(0).1, lab.engine.resilient_groups()), (None, 0));
    assert!(lab.engine.not_resilient().is_some_and(|why| why.contains("EINVAL")));
    lab.ask(None);
    assert_eq!(lab.engine.not_resilient(), None);
    // Asked for once more, it is tried once more.
    lab.ask(Some(RESILIENCE));
    assert!(lab.engine.not_resilient().is_some());
    assert_eq!(lab.objects(), (2, 1));
    let mut lab = Lab::resilient(MemoryFib::without_nexthops());
    lab.learn(0..5, &[1, 2]);
    lab.ensure(0..5, &[1, 2]);
    assert_eq!(lab.engine.not_resilient(), Some("it has no nexthop objects"));
}
