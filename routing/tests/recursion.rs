//! Next hops that learned routes lead to: longest match, no circle, and the same answer in whatever order things come.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failing helper fails its test")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use proptest::prelude::*;
use weft_routing::memory::MemoryFib;
use weft_routing::netlink::Link;
use weft_routing::route::{Action, NextHop, Protocol, Route, RouteKey};
use weft_routing::sync::{Engine, Event};
use weft_routing::{NextHopRef, Resolution, RouteChange, Settings};

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

/// An iBGP next hop: default routes count.
fn far(address: &str) -> NextHopRef {
    NextHopRef { address: address.parse().unwrap(), default_route: true, link: None }
}

fn change(prefix: &str, next_hops: &[&str]) -> RouteChange {
    let next_hops = next_hops.iter().map(|address| far(address)).collect();
    RouteChange { prefix: net(prefix), next_hops, direct: None }
}

fn over(prefix: &str, metric: u32) -> Resolution {
    Resolution::Recursive { over: net(prefix), metric, direct: false }
}

fn foreign(prefix: &str, metric: u32, leg: NextHop) -> Route {
    let action = Action::Forward(leg.into());
    Route {
        key: RouteKey::new(net(prefix), metric),
        protocol: Protocol::STATIC,
        action,
        preferred_source: None,
    }
}

fn via(gateway: &str, link: u32) -> NextHop {
    NextHop::via(gateway.parse().unwrap(), link)
}

/// Two links, each with a subnet: 10.0.1.0/24 and 10.0.2.0/24.
struct Lab {
    fib: MemoryFib,
    engine: Engine,
    now: Instant,
    told: BTreeMap<NextHopRef, Vec<Resolution>>,
}

impl Lab {
    fn new(routes: &[Route]) -> Self {
        Self::with(Settings::default(), routes)
    }

    fn with(settings: Settings, routes: &[Route]) -> Self {
        let mut fib = MemoryFib::new();
        for index in [1, 2] {
            fib.set_link(Link {
                index,
                name: format!("eth{index}"),
                mac: None,
                mtu: 1500,
                up: true,
                carrier: true,
                operational: true,
                loopback: false,
                kind: None,
                peer: None,
                peer_namespace: None,
            });
            fib.insert(foreign(&format!("10.0.{index}.0/24"), 0, NextHop::on_link(index)));
        }
        routes.iter().for_each(|route| fib.insert(route.clone()));
        #[expect(clippy::disallowed_methods, reason = "virtual time has to start somewhere")]
        let now = Instant::now();
        let mut lab = Self { fib, engine: Engine::new(settings), now, told: BTreeMap::new() };
        lab.settle();
        lab
    }

    fn settle(&mut self) {
        for _ in 0..10 {
            self.engine.run(self.now, &mut self.fib).unwrap();
            while let Some(event) = self.engine.poll() {
                if let Event::NextHop { next_hop, resolution } = event {
                    self.told.entry(next_hop).or_default().push(resolution);
                }
            }
            self.now += Duration::from_millis(300);
        }
        assert!(self.engine.is_settled());
    }

    fn learn(&mut self, changes: &[RouteChange]) {
        self.engine.learned(changes.to_vec());
        self.settle();
    }

    fn resolution(&self, address: &str) -> Resolution {
        self.engine.resolution(far(address))
    }

    /// Where the kernel sends what is for a prefix of ours.
    fn legs(&self, prefix: &str) -> Vec<NextHop> {
        let routes = self.fib.routes();
        let ours = routes.values().filter(|route| route.protocol == Protocol::WEFT);
        let forward = |route: &Route| match &route.action {
            Action::Forward(legs) => legs.iter().copied().collect(),
            _ => Vec::new(),
        };
        ours.filter(|route| route.key.destination() == net(prefix)).flat_map(forward).collect()
    }

    fn learned(&self) -> Vec<Route> {
        self.fib.routes().values().filter(|route| route.protocol == Protocol::WEFT).cloned().collect()
    }
}

#[test]
fn a_learned_route_leads_to_a_next_hop_and_takes_it_away_again() {
    let mut lab = Lab::new(&[]);
    lab.engine.track(far("10.2.0.11"));
    // The block before the route to its node: order does not matter.
    lab.learn(&[change("10.244.2.0/26", &["10.2.0.11"])]);
    assert_eq!((lab.resolution("10.2.0.11"), lab.legs("10.244.2.0/26")), (Resolution::Unresolved, vec![]));

    lab.learn(&[change("10.2.0.0/24", &["10.0.1.2"])]);
    assert_eq!(lab.resolution("10.2.0.11"), over("10.2.0.0/24", 0));
    assert_eq!(lab.legs("10.244.2.0/26"), [via("10.0.1.2", 1)]);
    let entry = lab.engine.fib().into_iter().find(|entry| entry.prefix == net("10.244.2.0/26")).unwrap();
    assert_eq!(entry.over, BTreeSet::from([net("10.2.0.0/24")]));

    lab.learn(&[change("10.2.0.0/24", &["10.0.1.2", "10.0.2.2"])]);
    assert_eq!(lab.legs("10.244.2.0/26"), [via("10.0.1.2", 1), via("10.0.2.2", 2)]);

    lab.learn(&[change("10.2.0.0/24", &[])]);
    assert_eq!(lab.legs("10.244.2.0/26"), []);
    assert_eq!(
        lab.told[&far("10.2.0.11")],
        [Resolution::Unresolved, over("10.2.0.0/24", 0), Resolution::Unresolved],
        "once per change"
    );
}

#[test]
fn the_longest_match_over_both_tables_leads() {
    let default = foreign("0.0.0.0/0", 100, via("10.0.2.254", 2));
    let mut lab = Lab::new(&[default, foreign("10.3.0.0/24", 7, via("10.0.2.3", 2))]);
    let blocks = [change("10.244.2.0/26", &["10.2.0.11"]), change("10.244.3.0/26", &["10.3.0.11"])];
    lab.learn(&blocks);
    assert_eq!(lab.legs("10.244.2.0/26"), [via("10.0.2.254", 2)]);

    // As specific as the kernel's own, or less: that is asked first. More specific: packets to the next hop go there.
    lab.learn(&[change("10.2.0.0/24", &["10.0.1.2"]), change("10.3.0.0/16", &["10.0.1.2"])]);
    let direct = Resolution::Recursive { over: net("10.2.0.0/24"), metric: 100, direct: true };
    assert_eq!(lab.resolution("10.2.0.11"), direct);
    assert_eq!(lab.legs("10.244.2.0/26"), [via("10.0.1.2", 1)]);
    assert_eq!(lab.resolution("10.3.0.11"), Resolution::Gateway { metric: 7 });
    assert_eq!(lab.legs("10.244.3.0/26"), [via("10.0.2.3", 2)]);

    // A neighbour stays one, whoever announces its address.
    lab.learn(&[change("10.0.2.9/32", &["10.0.1.2"])]);
    assert_eq!(lab.resolution("10.0.2.9"), Resolution::OnLink);
}

/// The kernel gives its IPv6 routes to links' subnets a worse metric than learned ones have.
#[test]
fn a_subnet_of_a_link_is_not_looked_for_elsewhere() {
    let connected =
        Route { protocol: Protocol::KERNEL, ..foreign("2001:db8::/64", 256, NextHop::on_link(1)) };
    let mut lab = Lab::new(std::slice::from_ref(&connected));
    let state = |lab: &Lab| {
        let entry = lab.engine.fib().into_iter().find(|entry| entry.prefix == net("2001:db8::/64"));
        entry.unwrap().state.to_string()
    };
    lab.learn(&[change("2001:db8::/64", &["2001:db8::1"]), change("2001:db8:9::/64", &["2001:db8::1"])]);
    assert_eq!((lab.legs("2001:db8::/64"), state(&lab)), (vec![], "shadowed by proto kernel".into()));
    assert_eq!(lab.legs("2001:db8:9::/64"), [via("2001:db8::1", 1)]);
    // Without the link's own, the learned one is as good as any, and gives way when that comes back.
    lab.learn(&[change("2001:db8::/64", &["10.0.2.2"])]);
    lab.fib.remove(connected.key);
    lab.settle();
    assert_eq!((lab.legs("2001:db8::/64"), state(&lab)), (vec![via("10.0.2.2", 2)], "installed".into()));
    lab.fib.insert(connected);
    lab.settle();
    assert_eq!((lab.legs("2001:db8::/64"), state(&lab)), (vec![], "shadowed by proto kernel".into()));
}

#[test]
fn a_default_route_leads_to_internal_next_hops_only() {
    let mut lab = Lab::new(&[]);
    lab.learn(&[change("0.0.0.0/0", &["10.0.1.2"])]);
    let external = NextHopRef { default_route: false, ..far("10.2.0.11") };
    assert_eq!(lab.resolution("10.2.0.11"), over("0.0.0.0/0", 0));
    assert_eq!(lab.engine.resolution(external), Resolution::Unresolved);
}

#[test]
fn nothing_leads_to_itself() {
    let mut lab = Lab::new(&[]);
    // A node announces its own address, with that address as next hop.
    lab.learn(&[change("10.2.0.11/32", &["10.2.0.11"])]);
    assert_eq!((lab.resolution("10.2.0.11"), lab.learned()), (Resolution::Unresolved, vec![]));
    lab.learn(&[change("10.2.0.0/24", &["10.0.1.2"])]);
    assert_eq!(lab.resolution("10.2.0.11"), over("10.2.0.0/24", 0));
    assert_eq!(lab.legs("10.2.0.11/32"), [via("10.0.1.2", 1)]);

    // Two that lead to each other: neither leads anywhere.
    lab.learn(&[change("10.5.0.0/24", &["10.6.0.1"]), change("10.6.0.0/24", &["10.5.0.1"])]);
    assert_eq!(lab.resolution("10.5.0.1"), Resolution::TooDeep { over: net("10.5.0.0/24") });
    assert_eq!(lab.resolution("10.6.0.1"), Resolution::TooDeep { over: net("10.6.0.0/24") });
    assert_eq!(lab.legs("10.5.0.0/24"), []);
}

#[test]
fn a_circle_beside_a_default_route_falls_back_to_that() {
    let mut lab = Lab::new(&[foreign("0.0.0.0/0", 100, via("10.0.2.254", 2))]);
    lab.learn(&[change("10.5.0.0/24", &["10.6.0.1"]), change("10.6.0.0/24", &["10.5.0.1"])]);
    for (address, prefix) in [("10.5.0.1", "10.6.0.0/24"), ("10.6.0.1", "10.5.0.0/24")] {
        assert_eq!(lab.resolution(address), Resolution::Gateway { metric: 100 });
        assert_eq!(lab.legs(prefix), [via("10.0.2.254", 2)]);
    }
}

#[test]
fn what_a_route_resolves_over_it_never_takes_away() {
    let mut lab = Lab::new(&[]);
    lab.learn(&[change("10.2.0.0/24", &["10.0.1.2"])]);
    // The node behind it announces the subnet too, and that path is preferred: it is installed, and resolves over the one it beat.
    let preferred = RouteChange {
        direct: Some(Box::new([far("10.0.1.2")].into())),
        ..change("10.2.0.0/24", &["10.2.0.11"])
    };
    lab.learn(&[preferred]);
    assert_eq!(lab.resolution("10.2.0.11"), over("10.2.0.0/24", 0));
    assert_eq!(lab.legs("10.2.0.0/24"), [via("10.0.1.2", 1)]);
    // Once that one has gone there is nothing to resolve over.
    lab.learn(&[RouteChange { direct: Some(Box::new([].into())), ..change("10.2.0.0/24", &["10.2.0.11"]) }]);
    assert_eq!((lab.resolution("10.2.0.11"), lab.learned()), (Resolution::Unresolved, vec![]));
}

#[test]
fn what_an_earlier_run_left_leads_until_the_sweep() {
    let left = |prefix: &str| {
        let protocol = Protocol::WEFT;
        Route { protocol, ..foreign(prefix, 64, via("10.0.1.2", 1)) }
    };
    let mut lab = Lab::new(&["10.2.0.0/24", "10.3.0.0/24", "10.244.2.0/26", "10.244.3.0/26"].map(left));
    lab.engine.track(far("10.2.0.11"));
    lab.engine.track(far("10.3.0.11"));
    lab.settle();
    assert_eq!(lab.told[&far("10.2.0.11")], [over("10.2.0.0/24", 0)], "from the start");
    let writes = lab.fib.writes();
    lab.learn(&[
        change("10.2.0.0/24", &["10.0.1.2"]),
        change("10.244.2.0/26", &["10.2.0.11"]),
        change("10.244.3.0/26", &["10.3.0.11"]),
    ]);
    assert_eq!(
        lab.fib.writes() - writes,
        3 + 2,
        "all is there, and goes over a group of one leg from now on"
    );
    lab.engine.sweep();
    lab.settle();
    assert_eq!(lab.told[&far("10.2.0.11")].len(), 1);
    assert_eq!(lab.told[&far("10.3.0.11")], [over("10.3.0.0/24", 0), Resolution::Unresolved]);
    let kept: Vec<IpNet> = lab.learned().iter().map(|route| route.key.destination()).collect();
    assert_eq!(kept, [net("10.2.0.0/24"), net("10.244.2.0/26")]);
}

#[test]
fn too_long_a_way_is_no_way() {
    // With a default route every next hop is direct, and each is reached over the route to the one before.
    let mut lab = Lab::new(&[foreign("0.0.0.0/0", 100, via("10.0.2.254", 2))]);
    lab.learn(&[change("10.10.0.0/24", &["10.0.1.2"])]);
    for n in 1..=5 {
        lab.learn(&[change(&format!("10.1{n}.0.0/24"), &[&format!("10.1{}.0.1", n - 1)])]);
    }
    for n in 0..=3 {
        let prefix = net(&format!("10.1{n}.0.0/24"));
        let expected = Resolution::Recursive { over: prefix, metric: 100, direct: true };
        assert_eq!(lab.resolution(&format!("10.1{n}.0.1")), expected);
    }
    assert_eq!(lab.resolution("10.14.0.1"), Resolution::Gateway { metric: 100 });
    assert_eq!(
        (lab.legs("10.14.0.0/24"), lab.legs("10.15.0.0/24")),
        (vec![via("10.0.1.2", 1)], vec![via("10.0.2.254", 2)])
    );
    // A change at the far end reaches all that depend on it.
    lab.learn(&[change("10.10.0.0/24", &["10.0.1.9"])]);
    assert_eq!(lab.legs("10.14.0.0/24"), [via("10.0.1.9", 1)]);
}

#[test]
fn own_blocks_lead_nowhere_and_settings_that_change_count() {
    let own_blocks = BTreeSet::from([net("10.2.0.0/26")]);
    let mut lab = Lab::with(Settings { own_blocks, ..Settings::default() }, &[]);
    lab.engine.track(far("10.2.0.11"));
    lab.learn(&[change("10.2.0.0/24", &["10.0.1.2"])]);
    assert_eq!(lab.resolution("10.2.0.11"), Resolution::Unresolved);
    lab.engine.configure(Settings::default());
    lab.settle();
    assert_eq!(lab.told[&far("10.2.0.11")].last(), Some(&over("10.2.0.0/24", 0)));
}

#[test]
fn an_unreachable_route_ends_the_search_but_for_what_is_more_specific() {
    let mut unreachable = foreign("10.2.0.0/16", 0, NextHop::on_link(1));
    unreachable.action = Action::Unreachable;
    let mut lab = Lab::new(&[unreachable]);
    lab.learn(&[change("10.0.0.0/8", &["10.0.1.2"]), change("10.2.3.0/24", &["10.0.1.2"])]);
    assert_eq!(lab.resolution("10.2.0.11"), Resolution::Unresolved);
    assert_eq!(lab.resolution("10.2.3.11"), over("10.2.3.0/24", 0));
}

#[test]
fn a_change_of_the_underlay_follows_through() {
    let mut lab = Lab::new(&[foreign("10.9.0.0/24", 5, via("10.0.1.2", 1))]);
    lab.learn(&[change("10.2.0.0/24", &["10.9.0.1"]), change("10.244.2.0/26", &["10.2.0.11"])]);
    assert_eq!(lab.resolution("10.2.0.11"), over("10.2.0.0/24", 5));
    assert_eq!(lab.legs("10.244.2.0/26"), [via("10.0.1.2", 1)]);
    lab.fib.remove(RouteKey::new(net("10.9.0.0/24"), 5));
    lab.settle();
    assert_eq!(lab.resolution("10.2.0.11"), Resolution::TooDeep { over: net("10.2.0.0/24") });
    assert_eq!(lab.legs("10.244.2.0/26"), []);
}

/// Addresses in a small world, so that prefixes hold next hops and lead to each other.
fn small_address() -> impl Strategy<Value = IpAddr> {
    (1_u8..=3, 0_u8..4).prop_map(|(subnet, host)| IpAddr::from([10, 0, subnet * 2, host]))
}

/// A neighbour, or somebody who is reached over others.
fn small_next_hop() -> impl Strategy<Value = NextHopRef> {
    let neighbour = (1_u8..=2, 2_u8..4).prop_map(|(subnet, host)| IpAddr::from([10, 0, subnet, host]));
    let far = prop_oneof![neighbour, small_address()];
    (far, any::<bool>()).prop_map(|(address, default_route)| NextHopRef {
        address,
        default_route,
        link: None,
    })
}

fn small_prefix() -> impl Strategy<Value = IpNet> {
    let length = prop::sample::select(vec![0, 8, 22, 24, 31, 32]);
    (small_address(), length).prop_map(|(address, length)| IpNet::new(address, length).unwrap().trunc())
}

fn small_routes() -> impl Strategy<Value = BTreeMap<IpNet, Vec<NextHopRef>>> {
    prop::collection::btree_map(small_prefix(), prop::collection::vec(small_next_hop(), 1..3), 0..8)
}

/// What leads over what, by prefixes: of each route, the learned routes that lead to those of its next hops by which it leads to others.
fn leads_over(
    engine: &Engine,
    routes: &BTreeMap<IpNet, Vec<NextHopRef>>,
) -> BTreeMap<IpNet, BTreeSet<IpNet>> {
    let over = |next_hop: &NextHopRef| match engine.resolution(*next_hop) {
        Resolution::Recursive { over, direct: true, .. } => Some(over),
        _ => None,
    };
    routes.iter().map(|(prefix, next_hops)| (*prefix, next_hops.iter().filter_map(over).collect())).collect()
}

fn has_circle(over: &BTreeMap<IpNet, BTreeSet<IpNet>>) -> bool {
    let mut left: BTreeMap<_, _> = over.clone();
    loop {
        let ends: Vec<IpNet> = left
            .iter()
            .filter(|(_, over)| !over.iter().any(|prefix| left.contains_key(prefix)))
            .map(|(prefix, _)| *prefix)
            .collect();
        if ends.is_empty() {
            return !left.is_empty();
        }
        ends.iter().for_each(|prefix| drop(left.remove(prefix)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_set_of_routes_resolves_without_a_circle_and_whatever_the_order(
        routes in small_routes(),
        before in small_routes(),
        default in any::<bool>(),
        steps in any::<u64>(),
    ) {
        let foreign = [foreign("0.0.0.0/0", 100, via("10.0.2.254", 2))];
        let foreign = if default { &foreign[..] } else { &[] };
        let change = |prefix: &IpNet, next_hops: &[NextHopRef]| {
            RouteChange { prefix: *prefix, next_hops: next_hops.into(), direct: None }
        };
        let mut at_once = Lab::new(foreign);
        at_once.learn(&routes.iter().map(|(p, n)| change(p, n)).collect::<Vec<_>>());

        // One by one and in another order, after others that go again.
        let mut one_by_one = Lab::new(foreign);
        one_by_one.learn(&before.iter().map(|(p, n)| change(p, n)).collect::<Vec<_>>());
        let mut order: Vec<RouteChange> = routes.iter().map(|(p, n)| change(p, n)).collect();
        order.extend(before.keys().filter(|p| !routes.contains_key(*p)).map(|p| change(p, &[])));
        let turn = usize::try_from(steps % 17).unwrap() % order.len().max(1);
        order.rotate_left(turn);
        if steps % 2 == 0 {
            order.reverse();
        }
        for change in order {
            one_by_one.learn(&[change]);
        }
        prop_assert_eq!(at_once.learned(), one_by_one.learned());
        let shown = |lab: &Lab| lab.engine.fib();
        prop_assert_eq!(shown(&at_once), shown(&one_by_one));

        // What leads to a next hop never leads over itself: not the route that holds it, nor one it is needed for.
        for entry in shown(&at_once).iter().filter(|entry| !entry.next_hops.is_empty()) {
            for leg in &entry.next_hops {
                let gateway = leg.via.unwrap();
                let neighbour = net("10.0.1.0/24").contains(&gateway) || net("10.0.2.0/24").contains(&gateway);
                prop_assert!(neighbour, "{} is on no link", gateway);
            }
        }
        let over = leads_over(&at_once.engine, &routes);
        prop_assert!(!has_circle(&over), "{:?}", over);
    }
}
