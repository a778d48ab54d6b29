//! The kernel thread against a real kernel, each test in a network namespace of its own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a failing helper fails its test, and real time passes here"
)]

mod common;

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use common::{Namespace, index, ip};
use ipnet::IpNet;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use weft_routing::fib::{Fib, Snapshot};
use weft_routing::netlink::{Address, Neighbour, NetlinkFib, Request, Scope, Socket, set_up};
use weft_routing::route::{Action, NextHop, NextHops, Protocol, Route, RouteKey};
use weft_routing::sync::{OWN_BLOCK_METRIC, POD_METRIC};
use weft_routing::{Event, Kernel, NextHopRef, PodRoute, Resolution, RouteChange, Settings, netns};

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(10);

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn next_hop(address: &str) -> NextHopRef {
    NextHopRef { address: ip(address), default_route: false, link: None }
}

fn learn(prefix: &str, next_hops: &[&str]) -> RouteChange {
    RouteChange {
        prefix: net(prefix),
        next_hops: next_hops.iter().map(|nh| next_hop(nh)).collect(),
        direct: None,
    }
}

fn route(prefix: &str, metric: u32, protocol: Protocol, legs: &[(&str, u32)]) -> Route {
    let legs: NextHops = legs.iter().map(|(gateway, link)| NextHop::via(ip(gateway), *link)).collect();
    Route {
        key: RouteKey::new(net(prefix), metric),
        protocol,
        action: Action::Forward(legs),
        preferred_source: None,
    }
}

/// A running kernel thread in a namespace with the links `a` (10.0.1.1/24, 2001:db8:1::1/64) and `b`
/// (10.0.2.1/24, 2001:db8:2::1/64), and a watcher that sees what it does.
struct Lab {
    kernel: Option<Kernel>,
    events: Receiver<Event>,
    watcher: NetlinkFib,
    socket: Socket,
    a: u32,
    b: u32,
    namespace: Namespace,
}

impl Lab {
    fn new(test: &str, settings: Settings) -> Option<Self> {
        let namespace = Namespace::new(test)?;
        let (a, _) = namespace.veth("a", "a-peer", &["10.0.1.1/24", "2001:db8:1::1/64"]);
        let (b, _) = namespace.veth("b", "b-peer", &["10.0.2.1/24", "2001:db8:2::1/64"]);
        let (kernel, events) = start(&namespace, settings);
        let watcher = NetlinkFib::in_netns(namespace.path()).unwrap();
        let socket = namespace.socket();
        Some(Self { kernel: Some(kernel), events, watcher, socket, a, b, namespace })
    }

    fn kernel(&self) -> &Kernel {
        self.kernel.as_ref().unwrap()
    }

    fn restart(&mut self, settings: Settings) {
        self.kernel.take().unwrap().stop();
        let (kernel, events) = start(&self.namespace, settings);
        self.kernel = Some(kernel);
        self.events = events;
    }

    fn execute(&mut self, request: &Request) {
        self.socket.execute(request).unwrap();
    }

    /// Waits until the kernel's tables are as `good` says; woken by every change of them. Returns how long it
    /// took.
    fn until(&mut self, what: &str, good: impl Fn(&Snapshot) -> bool) -> Duration {
        let start = Instant::now();
        loop {
            let _ = self.watcher.notifications();
            let snapshot = self.watcher.dump().unwrap();
            if good(&snapshot) {
                return start.elapsed();
            }
            let left = PATIENCE.saturating_sub(start.elapsed());
            assert!(!left.is_zero(), "waited in vain for: {what}; the kernel has {:#?}", snapshot.routes);
            let mut fds = [PollFd::new(self.watcher.as_fd(), PollFlags::POLLIN)];
            poll(&mut fds, PollTimeout::try_from(left).unwrap()).unwrap();
        }
    }

    fn until_weft(&mut self, what: &str, mut wanted: Vec<Route>) -> Duration {
        wanted.sort_unstable();
        self.until(what, |snapshot| weft(snapshot) == wanted)
    }

    /// The first event that `pick` takes.
    fn event<T>(&self, what: &str, mut pick: impl FnMut(Event) -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.events.recv_timeout(left) {
                Ok(event) => {
                    if let Some(found) = pick(event) {
                        return found;
                    }
                }
                Err(error) => panic!("waited in vain for the event: {what}: {error}"),
            }
        }
    }

    /// Runs `ip` in the namespace.
    fn ip(&self, arguments: &str) {
        let run = || std::process::Command::new("ip").args(arguments.split(' ')).status();
        let status = netns::run(self.namespace.path(), run).unwrap().expect("ip(8) is needed");
        assert!(status.success(), "ip {arguments}");
    }

    fn resolution(&self, of: &str) -> Resolution {
        let wanted = ip(of);
        self.event("a resolution", |event| match event {
            Event::NextHop { next_hop, resolution } if next_hop.address == wanted => Some(resolution),
            _ => None,
        })
    }

    /// How the engine says that a route is, once it has heard what became of writing it: that may be after everybody else.
    fn state(&self, prefix: &str) -> String {
        let prefix = net(prefix);
        let end = Instant::now() + PATIENCE;
        loop {
            let found = self.kernel().inspect(move |engine| {
                let entry = engine.fib().into_iter().find(|entry| entry.prefix == prefix);
                entry.map(|entry| entry.state.to_string())
            });
            let state = found.unwrap().unwrap_or_else(|| panic!("no entry for {prefix}"));
            if state != "pending" || Instant::now() >= end {
                return state;
            }
        }
    }
}

fn start(namespace: &Namespace, settings: Settings) -> (Kernel, Receiver<Event>) {
    let (events, received) = mpsc::channel();
    let sink = Box::new(move |event| {
        let _ = events.send(event);
    });
    (Kernel::start_in(namespace.path(), settings, sink).unwrap(), received)
}

fn weft(snapshot: &Snapshot) -> Vec<Route> {
    let mut routes: Vec<Route> =
        snapshot.resolved_routes().filter(|route| route.protocol.is_weft()).collect();
    routes.sort_unstable();
    routes
}

#[test]
fn routes_of_both_families_come_and_go() {
    let settings = Settings {
        preferred_source_v4: Some([10, 0, 1, 1].into()),
        preferred_source_v6: Some("2001:db8:1::1".parse().unwrap()),
        ..Settings::default()
    };
    let Some(mut lab) = Lab::new("routes_of_both_families_come_and_go", settings) else { return };
    let v4 = Route {
        preferred_source: Some(ip("10.0.1.1")),
        ..route("10.1.0.0/24", 64, Protocol::WEFT, &[("10.0.1.2", lab.a), ("10.0.2.2", lab.b)])
    };
    let v6 = Route {
        preferred_source: Some(ip("2001:db8:1::1")),
        ..route("2001:db8:f::/64", 64, Protocol::WEFT, &[("2001:db8:1::2", lab.a), ("2001:db8:2::2", lab.b)])
    };
    lab.kernel()
        .learned(vec![
            learn("10.1.0.0/24", &["10.0.1.2", "10.0.2.2"]),
            learn("2001:db8:f::/64", &["2001:db8:1::2", "2001:db8:2::2"]),
        ])
        .unwrap();
    lab.until_weft("both routes with two legs", vec![v4.clone(), v6.clone()]);
    assert_eq!(lab.state("10.1.0.0/24"), "installed");

    lab.kernel().learned(vec![learn("2001:db8:f::/64", &["2001:db8:2::2"])]).unwrap();
    let one = route("2001:db8:f::/64", 64, Protocol::WEFT, &[("2001:db8:2::2", lab.b)]);
    let one = Route { preferred_source: v6.preferred_source, ..one };
    lab.until_weft("the IPv6 route with one leg", vec![v4, one]);

    lab.kernel().learned(vec![learn("10.1.0.0/24", &[]), learn("2001:db8:f::/64", &[])]).unwrap();
    lab.until_weft("no routes", Vec::new());
    let counters = lab.kernel().inspect(|engine| engine.counters()).unwrap();
    assert_eq!((counters.refusals, counters.repairs, counters.overruns), (0, 0, 0));
}

#[test]
fn foreign_routes_stay_and_show() {
    let Some(mut lab) = Lab::new("foreign_routes_stay_and_show", Settings::default()) else { return };
    let mut foreign: Vec<Route> = ["10.1.0.0/24", "10.2.0.0/24"]
        .into_iter()
        .zip([64, 5])
        .map(|(prefix, metric)| route(prefix, metric, Protocol::STATIC, &[("10.0.2.9", lab.b)]))
        .collect();
    foreign.push(route("2001:db8:f::/64", 64, Protocol::STATIC, &[("2001:db8:2::9", lab.b)]));
    for route in &foreign {
        lab.execute(&route.add());
    }
    lab.kernel()
        .learned(vec![
            learn("10.1.0.0/24", &["10.0.1.2"]),
            learn("10.2.0.0/24", &["10.0.1.2"]),
            learn("2001:db8:f::/64", &["2001:db8:1::2"]),
        ])
        .unwrap();
    let ours = route("10.2.0.0/24", 64, Protocol::WEFT, &[("10.0.1.2", lab.a)]);
    lab.until_weft("the one route whose key is free", vec![ours.clone()]);
    for prefix in ["10.1.0.0/24", "10.2.0.0/24", "2001:db8:f::/64"] {
        assert_eq!(lab.state(prefix), "shadowed by proto static");
    }
    let kept = foreign.clone();
    lab.until("the foreign routes", |snapshot| kept.iter().all(|route| snapshot.routes.contains(route)));

    // Withdrawing ours leaves theirs; theirs going lets ours in.
    lab.execute(&Route::delete(foreign[0].key, Protocol::STATIC));
    let first = route("10.1.0.0/24", 64, Protocol::WEFT, &[("10.0.1.2", lab.a)]);
    lab.until_weft("the route whose key became free", vec![first.clone(), ours]);
    lab.kernel().learned(vec![learn("10.2.0.0/24", &[]), learn("2001:db8:f::/64", &[])]).unwrap();
    lab.until_weft("ours withdrawn", vec![first]);
    let kept = foreign.split_off(1);
    lab.until("the foreign routes", |snapshot| kept.iter().all(|route| snapshot.routes.contains(route)));
}

#[test]
fn what_others_delete_or_change_is_repaired_within_a_second() {
    let settings = Settings { own_blocks: BTreeSet::from([net("10.7.0.0/26")]), ..Settings::default() };
    let Some(mut lab) = Lab::new("what_others_delete_is_repaired", settings) else { return };
    let link = lab.b;
    let pods: Vec<PodRoute> = ["10.7.0.1", "2001:db8:7::1"]
        .into_iter()
        .map(|address| PodRoute { address: ip(address), link, mac: [2; 6] })
        .collect();
    lab.kernel().pods(pods.clone()).unwrap();
    lab.kernel()
        .learned(vec![
            learn("10.1.0.0/24", &["10.0.1.2", "10.0.2.2"]),
            learn("2001:db8:f::/64", &["2001:db8:1::2", "2001:db8:2::2"]),
        ])
        .unwrap();
    lab.until("five routes and two neighbours", |snapshot| {
        weft(snapshot).len() == 5 && snapshot.neighbours.len() >= 2
    });
    let wanted = weft(&lab.watcher.dump().unwrap());

    for route in &wanted {
        lab.execute(&Route::delete(route.key, route.protocol));
    }
    let took = lab.until_weft("all five back", wanted.clone());
    assert!(took < Duration::from_secs(1), "the repair took {took:?}");
    lab.event("a repair", |event| matches!(event, Event::Repaired { .. }).then_some(()));

    let changed = route("10.1.0.0/24", 64, Protocol::WEFT, &[("10.0.2.77", lab.b)]);
    lab.execute(&changed.replace());
    let took = lab.until_weft("the changed route as it was", wanted.clone());
    assert!(took < Duration::from_secs(1), "the repair took {took:?}");

    // One leg of an IPv6 route can be deleted alone.
    let mut leg = route("2001:db8:f::/64", 64, Protocol::WEFT, &[("2001:db8:2::2", lab.b)]);
    leg.key = RouteKey::new(net("2001:db8:f::/64"), 64);
    let partial = partial_delete(&leg);
    lab.execute(&partial);
    let took = lab.until_weft("the leg back", wanted);
    assert!(took < Duration::from_secs(1), "the repair took {took:?}");

    let entry = Neighbour { link: lab.b, address: ip("10.7.0.1"), mac: [2; 6] };
    lab.execute(&entry.delete());
    let took = lab.until("the neighbour entry back", |snapshot| snapshot.neighbours.contains(&entry));
    assert!(took < Duration::from_secs(1), "the repair took {took:?}");
}

/// The request that deletes one leg: a deletion that names a gateway.
fn partial_delete(route: &Route) -> Request {
    use netlink_packet_route::RouteNetlinkMessage;
    use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteProtocol};
    let Action::Forward(legs) = &route.action else { panic!("no legs") };
    let leg = legs.iter().next().unwrap();
    let mut message = RouteMessage::default();
    message.header.address_family = netlink_packet_route::AddressFamily::Inet6;
    message.header.destination_prefix_length = route.key.destination().prefix_len();
    message.header.table = 254;
    message.header.protocol = RouteProtocol::from(route.protocol.0);
    message.attributes = vec![
        RouteAttribute::Destination(route.key.destination().addr().into()),
        RouteAttribute::Priority(route.key.metric()),
        RouteAttribute::Gateway(leg.gateway.unwrap().into()),
        RouteAttribute::Oif(leg.link),
    ];
    Request::new(&RouteNetlinkMessage::DelRoute(message), 0)
}

#[test]
fn a_link_that_loses_carrier_or_goes_down_takes_its_legs_along() {
    let Some(mut lab) = Lab::new("a_link_that_loses_carrier", Settings::default()) else { return };
    let peer = index(&mut lab.socket, "b-peer");
    lab.kernel().track(vec![], vec![next_hop("10.0.2.2")]).unwrap();
    assert_eq!(lab.resolution("10.0.2.2"), Resolution::OnLink);
    lab.kernel()
        .learned(vec![learn("10.1.0.0/24", &["10.0.1.2", "10.0.2.2"]), learn("10.2.0.0/24", &["10.0.2.2"])])
        .unwrap();
    let both = vec![
        route("10.1.0.0/24", 64, Protocol::WEFT, &[("10.0.1.2", lab.a), ("10.0.2.2", lab.b)]),
        route("10.2.0.0/24", 64, Protocol::WEFT, &[("10.0.2.2", lab.b)]),
    ];
    lab.until_weft("both routes", both.clone());
    let left = vec![route("10.1.0.0/24", 64, Protocol::WEFT, &[("10.0.1.2", lab.a)])];

    lab.execute(&set_up(peer, false));
    lab.until_weft("one leg after the carrier was lost", left.clone());
    assert_eq!(lab.resolution("10.0.2.2"), Resolution::Unresolved);
    assert_eq!(lab.state("10.2.0.0/24"), "unresolved");
    lab.execute(&set_up(peer, true));
    lab.until_weft("both legs with the carrier back", both.clone());
    assert_eq!(lab.resolution("10.0.2.2"), Resolution::OnLink);

    lab.execute(&set_up(lab.b, false));
    lab.until_weft("one leg after the link was set down", left);
    lab.execute(&set_up(lab.b, true));
    lab.until_weft("both legs with the link up", both);
    lab.event("a link change", |event| (event == Event::LinksChanged).then_some(()));
}

#[test]
fn the_preferred_source_follows_the_address() {
    let settings = Settings { preferred_source_v4: Some([192, 0, 2, 1].into()), ..Settings::default() };
    let Some(mut lab) = Lab::new("the_preferred_source_follows_the_address", settings) else { return };
    let lo = index(&mut lab.socket, "lo");
    let node = Address { link: lo, address: net("192.0.2.1/32"), scope: Scope::Global, tentative: false };
    let plain = route("10.1.0.0/24", 64, Protocol::WEFT, &[("10.0.1.2", lab.a)]);
    let sourced = Route { preferred_source: Some(ip("192.0.2.1")), ..plain.clone() };
    lab.kernel().learned(vec![learn("10.1.0.0/24", &["10.0.1.2"])]).unwrap();
    lab.until_weft("the route without a source", vec![plain.clone()]);
    lab.execute(&node.add());
    lab.until_weft("the route with its source", vec![sourced]);
    lab.event("an address change", |event| (event == Event::AddressesChanged).then_some(()));
    // The kernel drops the route with the address, without a word.
    lab.execute(&node.delete());
    lab.until_weft("the route without a source again", vec![plain.clone()]);
    let settings = Settings { preferred_source_v4: Some([10, 0, 2, 1].into()), ..Settings::default() };
    lab.kernel().configure(settings).unwrap();
    let moved = Route { preferred_source: Some(ip("10.0.2.1")), ..plain };
    lab.until_weft("the route with the configured source", vec![moved]);
}

#[test]
fn routes_outlive_the_thread_and_are_adopted_and_swept() {
    let Some(mut lab) = Lab::new("routes_outlive_the_thread", Settings::default()) else { return };
    lab.kernel()
        .learned(vec![
            learn("10.1.0.0/24", &["10.0.1.2"]),
            learn("10.2.0.0/24", &["10.0.1.2"]),
            learn("2001:db8:f::/64", &["2001:db8:1::2"]),
        ])
        .unwrap();
    // Stopping at once still writes what was asked for.
    lab.restart(Settings::default());
    let before = weft(&lab.watcher.dump().unwrap());
    assert_eq!(before.len(), 3);
    let adopted = lab.event("what was adopted", |event| match event {
        Event::Adopted { ipv4, ipv6 } => Some((ipv4, ipv6)),
        _ => None,
    });
    assert_eq!(adopted, (2, 1));
    lab.kernel().learned(vec![learn("10.1.0.0/24", &["10.0.1.2"])]).unwrap();
    assert_eq!(lab.state("10.2.0.0/24"), "adopted");
    let _ = lab.watcher.notifications();
    lab.until_weft("all routes still there", before.clone());
    assert_eq!(lab.kernel().inspect(|engine| engine.counters().writes).unwrap(), 0, "nothing was rewritten");
    lab.kernel().sweep().unwrap();
    lab.until_weft("only what was learned again", vec![before[0].clone()]);

    lab.kernel.take().unwrap().stop();
    let gone = netns::run(lab.namespace.path(), weft_routing::cleanup).unwrap().unwrap();
    assert_eq!(gone, 1);
    lab.until_weft("nothing after the clean-up", Vec::new());
}

#[test]
fn a_later_link_of_the_same_name_gets_nothing_of_an_earlier_pod() {
    let test = "a_later_link_of_the_same_name_gets_nothing_of_an_earlier_pod";
    let Some(mut lab) = Lab::new(test, Settings::default()) else { return };
    let pod = |number: u8, link| {
        ["10.7.0.", "2001:db8:7::"].map(|prefix| PodRoute {
            address: ip(&format!("{prefix}{number}")),
            link,
            mac: [number; 6],
        })
    };
    let has = |snapshot: &Snapshot, pods: &[PodRoute]| {
        pods.iter().all(|pod| {
            snapshot.routes.contains(&pod.route(None)) && snapshot.neighbours.contains(&pod.neighbour())
        })
    };
    let (earlier_link, _) = lab.namespace.veth("pod", "pod-peer", &[]);
    let earlier = pod(1, earlier_link);
    lab.kernel().pods(earlier.to_vec()).unwrap();
    lab.until("the earlier pod", |snapshot| has(snapshot, &earlier));

    lab.ip("link delete pod");
    let (later_link, _) = lab.namespace.veth("pod", "pod-peer", &[]);
    assert_ne!(later_link, earlier_link);
    // The earlier pod's addresses come first in order, and all routes are written before any neighbour: where the later pod's
    // last neighbour is, the earlier pod's would be.
    let later = pod(2, later_link);
    lab.kernel().pods([earlier.clone(), later.clone()].concat()).unwrap();
    lab.until("the later pod", |snapshot| has(snapshot, &later));
    let snapshot = lab.watcher.dump().unwrap();
    let mut wanted = later.each_ref().map(|pod| pod.route(None)).to_vec();
    wanted.sort_unstable();
    assert_eq!(weft(&snapshot), wanted);
    assert!(snapshot.neighbours.iter().all(|entry| !earlier.iter().any(|pod| pod.address == entry.address)));
}

#[test]
fn a_pod_lives_inside_its_one_address_block() {
    let blocks = BTreeSet::from([net("10.7.0.1/32"), net("2001:db8:7::1/128")]);
    let settings = Settings { own_blocks: blocks.clone(), ..Settings::default() };
    let Some(mut lab) = Lab::new("a_pod_lives_inside_its_one_address_block", settings) else { return };
    let link = lab.b;
    let pods: Vec<PodRoute> =
        blocks.iter().map(|block| PodRoute { address: block.addr(), link, mac: [2; 6] }).collect();
    lab.kernel().pods(pods.clone()).unwrap();
    let wanted = blocks.iter().zip(&pods).flat_map(|(block, pod)| {
        let unreachable = Route {
            key: RouteKey::new(*block, OWN_BLOCK_METRIC),
            protocol: Protocol::WEFT,
            action: Action::Unreachable,
            preferred_source: None,
        };
        assert_eq!(pod.key(), RouteKey::new(*block, POD_METRIC));
        [unreachable, pod.route(None)]
    });
    let wanted = wanted.collect();
    lab.until_weft("the blocks and the pods", wanted);
    // The pod goes: weftd leaves its route to the CNI plugin.
    lab.kernel().pods(Vec::new()).unwrap();
    lab.kernel().configure(Settings::default()).unwrap();
    lab.until_weft("only the pods", pods.iter().map(|pod| pod.route(None)).collect());
}

#[test]
fn next_hops_resolve_over_other_routes() {
    let Some(mut lab) = Lab::new("next_hops_resolve_over_other_routes", Settings::default()) else { return };
    let far = NextHopRef { address: ip("192.0.2.9"), default_route: true, link: None };
    lab.kernel().track(vec![], vec![far]).unwrap();
    assert_eq!(lab.resolution("192.0.2.9"), Resolution::Unresolved);
    lab.kernel()
        .learned(vec![RouteChange { prefix: net("10.1.0.0/24"), next_hops: [far].into(), direct: None }])
        .unwrap();
    let default = route("0.0.0.0/0", 10, Protocol::STATIC, &[("10.0.1.254", lab.a)]);
    lab.execute(&default.add());
    assert_eq!(lab.resolution("192.0.2.9"), Resolution::Gateway { metric: 10 });
    let over = |legs: &[(&str, u32)]| vec![route("10.1.0.0/24", 64, Protocol::WEFT, legs)];
    lab.until_weft("the route over the default gateway", over(&[("10.0.1.254", lab.a)]));
    let specific =
        route("192.0.2.0/24", 20, Protocol::STATIC, &[("10.0.1.253", lab.a), ("10.0.2.253", lab.b)]);
    lab.execute(&specific.add());
    assert_eq!(lab.resolution("192.0.2.9"), Resolution::Gateway { metric: 20 });
    lab.until_weft("the route over both gateways", over(&[("10.0.1.253", lab.a), ("10.0.2.253", lab.b)]));
    let mut unreachable = specific.clone();
    unreachable.key = RouteKey::new(net("192.0.2.9/32"), 0);
    unreachable.action = Action::Unreachable;
    lab.execute(&unreachable.add());
    assert_eq!(lab.resolution("192.0.2.9"), Resolution::Unresolved);
    lab.until_weft("nothing while the next hop is unreachable", Vec::new());
}

#[test]
fn next_hops_resolve_over_learned_routes() {
    let Some(mut lab) = Lab::new("next_hops_resolve_over_learned_routes", Settings::default()) else {
        return;
    };
    lab.kernel().track(vec![], vec![next_hop("10.2.0.11")]).unwrap();
    assert_eq!(lab.resolution("10.2.0.11"), Resolution::Unresolved);
    let blocks = [learn("10.244.2.0/26", &["10.2.0.11"]), learn("2001:db8:f::/64", &["2001:db8:22::11"])];
    lab.kernel().learned(blocks.to_vec()).unwrap();
    let subnets = |v4: &[&str], v6: &[&str]| vec![learn("10.2.0.0/24", v4), learn("2001:db8:22::/64", v6)];
    lab.kernel().learned(subnets(&["10.0.1.2", "10.0.2.2"], &["2001:db8:1::2"])).unwrap();
    let over = net("10.2.0.0/24");
    assert_eq!(lab.resolution("10.2.0.11"), Resolution::Recursive { over, metric: 0, direct: false });
    let routes = |v4: &[(&str, u32)], v6: &[(&str, u32)]| {
        let v4 = ["10.2.0.0/24", "10.244.2.0/26"].map(|prefix| route(prefix, 64, Protocol::WEFT, v4));
        let v6 = ["2001:db8:22::/64", "2001:db8:f::/64"].map(|prefix| route(prefix, 64, Protocol::WEFT, v6));
        [v4, v6].concat()
    };
    let both = [("10.0.1.2", lab.a), ("10.0.2.2", lab.b)];
    lab.until_weft("the blocks over the subnets", routes(&both, &[("2001:db8:1::2", lab.a)]));

    lab.ip("link set a-peer down");
    lab.until_weft("the legs to go with the link", routes(&both[1..], &[])[..2].to_vec());
    lab.ip("link set a-peer up");
    lab.until_weft("them to come back", routes(&both, &[("2001:db8:1::2", lab.a)]));

    lab.kernel().learned(subnets(&[], &[])).unwrap();
    lab.until_weft("the blocks to go with the subnets", Vec::new());
}

#[test]
fn next_hops_resolve_over_nexthop_objects() {
    let Some(mut lab) = Lab::new("next_hops_resolve_over_nexthop_objects", Settings::default()) else {
        return;
    };
    weft_routing::sysctl::write_in(lab.namespace.path(), "net/ipv4/nexthop_compat_mode", "0").unwrap();
    lab.kernel().learned(vec![learn("10.1.0.0/24", &["192.0.2.9"])]).unwrap();
    lab.kernel().learned(vec![learn("2001:db8:f::/64", &["2001:db8:9::9"])]).unwrap();
    for arguments in [
        "nexthop add id 5 via 10.0.1.253 dev a",
        "nexthop add id 6 via 10.0.2.253 dev b",
        "nexthop add id 7 group 5/6 proto zebra",
        "route add 192.0.2.0/24 nhid 7 proto zebra",
        "nexthop add id 8 via 2001:db8:2::253 dev b",
        "route add 2001:db8:9::/64 nhid 8 proto zebra",
    ] {
        lab.ip(arguments);
    }
    let v6 = route("2001:db8:f::/64", 64, Protocol::WEFT, &[("2001:db8:2::253", lab.b)]);
    let both = [("10.0.1.253", lab.a), ("10.0.2.253", lab.b)];
    let v4 = route("10.1.0.0/24", 64, Protocol::WEFT, &both);
    lab.until_weft("the routes over the objects", vec![v4, v6.clone()]);
    lab.ip("nexthop replace id 7 group 6 proto zebra");
    let v4 = route("10.1.0.0/24", 64, Protocol::WEFT, &both[1..]);
    lab.until_weft("the routes over the object that is left", vec![v4, v6]);
}

#[test]
fn a_refused_route_says_why_and_does_not_hold_up_others() {
    let Some(mut lab) = Lab::new("a_refused_route_says_why", Settings::default()) else { return };
    // The kernel has no IPv6 routes over IPv4 gateways.
    lab.kernel()
        .learned(vec![learn("2001:db8:f::/64", &["10.0.1.2"]), learn("2001:db8:f1::/64", &["2001:db8:1::2"])])
        .unwrap();
    let good = route("2001:db8:f1::/64", 64, Protocol::WEFT, &[("2001:db8:1::2", lab.a)]);
    lab.until_weft("the good route", vec![good.clone()]);
    let (prefix, error) = lab.event("a refusal", |event| match event {
        Event::Refused { prefix, error } => Some((prefix, error)),
        _ => None,
    });
    assert_eq!(prefix, net("2001:db8:f::/64"));
    assert_eq!(lab.state("2001:db8:f::/64"), format!("refused: {error}"));
    assert!(error.ends_with("(ERANGE)") || error.ends_with("(EINVAL)"), "{error}");
    lab.kernel().learned(vec![learn("2001:db8:f::/64", &["2001:db8:2::2"])]).unwrap();
    let mended = route("2001:db8:f::/64", 64, Protocol::WEFT, &[("2001:db8:2::2", lab.b)]);
    lab.until_weft("the route with a next hop of its family", vec![good, mended]);
    let refusals = lab.kernel().inspect(|engine| engine.counters().refusals).unwrap();
    assert!(refusals < 10, "{refusals} refusals: the thread does not wait between tries");
}

#[test]
fn lost_notifications_lead_to_a_dump() {
    let Some(namespace) = Namespace::new("lost_notifications_lead_to_a_dump") else { return };
    let (a, _) = namespace.veth("a", "a-peer", &["10.0.1.1/24"]);
    let fib = netns::run(namespace.path(), || NetlinkFib::with_receive_buffer(4096)).unwrap().unwrap();
    let kernel = Kernel::start_on(fib, Settings::default(), Box::new(|_| {})).unwrap();
    let (_, events) = mpsc::channel();
    let watcher = NetlinkFib::in_netns(namespace.path()).unwrap();
    let socket = namespace.socket();
    let mut lab = Lab { kernel: Some(kernel), events, watcher, socket, a, b: 0, namespace };
    lab.kernel().learned(vec![learn("10.1.0.0/24", &["10.0.1.2"])]).unwrap();
    let wanted = vec![route("10.1.0.0/24", 64, Protocol::WEFT, &[("10.0.1.2", a)])];
    lab.until_weft("the route", wanted.clone());

    // While the thread is held up, the table changes more often than its buffer can tell.
    let flood: Vec<Request> = (0u32..2000)
        .map(|n| {
            let prefix = format!("{}/32", std::net::Ipv4Addr::from(0x0b00_0000 + n));
            route(&prefix, 0, Protocol::STATIC, &[("10.0.1.9", a)]).add()
        })
        .chain([Route::delete(wanted[0].key, Protocol::WEFT)])
        .collect();
    let (held, holding) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let kernel = lab.kernel.as_ref().unwrap();
        scope.spawn(move || {
            kernel.inspect(move |_| {
                held.send(()).unwrap();
                let _ = released.recv();
            })
        });
        holding.recv().unwrap();
        assert!(lab.socket.batch(&flood).iter().all(Result::is_ok));
        drop(release);
    });
    lab.until_weft("the route after the flood", wanted);
    let counters = lab.kernel().inspect(|engine| engine.counters()).unwrap();
    assert!(counters.overruns > 0, "the flood did not overrun: {counters:?}");
    assert!(counters.resyncs > 1, "no dump followed: {counters:?}");
}

#[test]
fn ten_thousand_routes_go_in_as_a_batch() {
    let Some(mut lab) = Lab::new("ten_thousand_routes_go_in_as_a_batch", Settings::default()) else { return };
    // A buffer that could never hold the echo of 10,000 writes: they must not come back.
    lab.kernel.take().unwrap().stop();
    let fib =
        netns::run(lab.namespace.path(), || NetlinkFib::with_receive_buffer(64 * 1024)).unwrap().unwrap();
    lab.kernel = Some(Kernel::start_on(fib, Settings::default(), Box::new(|_| {})).unwrap());
    let prefix = |n: u32| net(&format!("{}/24", std::net::Ipv4Addr::from(0x0b00_0000 + n * 256)));
    let set = |next_hops: &[&str]| -> Vec<RouteChange> {
        let next_hops: Arc<[NextHopRef]> = next_hops.iter().map(|nh| next_hop(nh)).collect();
        (0..10_000)
            .map(|n| RouteChange { prefix: prefix(n), next_hops: next_hops.clone(), direct: None })
            .collect()
    };
    let count = |legs: usize| {
        move |snapshot: &Snapshot| {
            let good = |route: &&Route| matches!(&route.action, Action::Forward(hops) if hops.len() == legs);
            weft(snapshot).iter().filter(good).count() == 10_000
        }
    };
    // One wake-up of the watcher per batch, not one per route.
    for (what, next_hops) in [("one leg", &["10.0.1.2"][..]), ("two legs", &["10.0.1.2", "10.0.2.2"][..])] {
        let start = Instant::now();
        lab.kernel().learned(set(next_hops)).unwrap();
        let settled = || lab.kernel().inspect(|engine| engine.is_settled()).unwrap();
        while !settled() {
            assert!(start.elapsed() < PATIENCE, "10,000 routes with {what} were not written in {PATIENCE:?}");
        }
        eprintln!("10,000 routes with {what}: {:?}", start.elapsed());
        lab.until(what, count(next_hops.len()));
    }
    lab.kernel().learned(set(&[])).unwrap();
    lab.until("none", |snapshot| {
        weft(snapshot).is_empty() && snapshot.nexthops.as_ref().is_some_and(|o| o.iter().next().is_none())
    });
    let counters = lab.kernel().inspect(|engine| engine.counters()).unwrap();
    // Besides the routes, which went with their group, two legs and two groups came and went.
    assert_eq!((counters.writes, counters.refusals, counters.overruns), (20_008, 0, 0));
}
