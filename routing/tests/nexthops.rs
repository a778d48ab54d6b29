//! Nexthop objects in a real kernel, each test in a network namespace of its own.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a failing helper fails its test, and real time passes here"
)]

mod common;

use std::io::Write as _;
use std::os::fd::AsFd;
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{Namespace, index, ip};
use ipnet::IpNet;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use weft_routing::fib::{Fib, Notification, Snapshot};
use weft_routing::netlink::{NetlinkFib, Socket, set_up};
use weft_routing::nexthop::{Nexthop, NexthopKind, Nexthops, OWN_IDS, Resilience};
use weft_routing::route::{Action, NextHop, NextHops, Protocol, Route, RouteKey};
use weft_routing::{Kernel, NextHopRef, RouteChange, Settings, netns, sysctl};

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(10);

fn next_hop(address: &str) -> NextHopRef {
    NextHopRef { address: ip(address), default_route: false, link: None }
}

fn learn(prefix: &str, next_hops: &[&str]) -> RouteChange {
    RouteChange {
        prefix: prefix.parse().unwrap(),
        next_hops: next_hops.iter().map(|nh| next_hop(nh)).collect(),
        direct: None,
    }
}

/// The routers on the links `a` and `b`, of both families.
const A: [&str; 2] = ["10.0.1.2", "2001:db8:1::2"];
const B: [&str; 2] = ["10.0.2.2", "2001:db8:2::2"];
const PREFIXES: [&str; 2] = ["10.1.0.0/24", "2001:db8:f::/64"];

/// A running kernel thread in a namespace with the links `a` and `b`, as in weftd's: without messages of the routes over an object that
/// changes.
struct Lab {
    kernel: Option<Kernel>,
    watcher: NetlinkFib,
    socket: Socket,
    a: u32,
    b: u32,
    namespace: Namespace,
}

impl Lab {
    fn new(test: &str) -> Option<Self> {
        let namespace = Namespace::new(test)?;
        sysctl::write_in(namespace.path(), "net/ipv4/nexthop_compat_mode", "0").unwrap();
        let (a, _) = namespace.veth("a", "a-peer", &["10.0.1.1/24", "2001:db8:1::1/64"]);
        let (b, _) = namespace.veth("b", "b-peer", &["10.0.2.1/24", "2001:db8:2::1/64"]);
        let watcher = NetlinkFib::in_netns(namespace.path()).unwrap();
        let socket = namespace.socket();
        let mut lab = Self { kernel: None, watcher, socket, a, b, namespace };
        lab.restart();
        Some(lab)
    }

    fn restart(&mut self) {
        if let Some(kernel) = self.kernel.take() {
            kernel.stop();
        }
        let kernel = Kernel::start_in(self.namespace.path(), Settings::default(), Box::new(|_| {})).unwrap();
        self.kernel = Some(kernel);
    }

    fn kernel(&self) -> &Kernel {
        self.kernel.as_ref().unwrap()
    }

    /// A route of each family over both routers.
    fn learn_both(&mut self) {
        let changes = (0..2).map(|family| learn(PREFIXES[family], &[A[family], B[family]]));
        self.kernel().learned(changes.collect()).unwrap();
        self.until_over("both routers", &[true, true]);
    }

    /// Waits until the kernel's tables are as `good` says; woken by every change of them. Returns how long it took.
    fn until(&mut self, what: &str, good: impl Fn(&Snapshot) -> bool) -> Duration {
        let start = Instant::now();
        loop {
            let _ = self.watcher.notifications();
            let snapshot = self.watcher.dump().unwrap();
            if good(&snapshot) {
                return start.elapsed();
            }
            let left = PATIENCE.saturating_sub(start.elapsed());
            assert!(!left.is_zero(), "waited in vain for: {what}; the kernel has {snapshot:#?}");
            let mut fds = [PollFd::new(self.watcher.as_fd(), PollFlags::POLLIN)];
            // Some of what the kernel does it does without a message.
            poll(&mut fds, PollTimeout::try_from(left.min(Duration::from_millis(20))).unwrap()).unwrap();
        }
    }

    /// Waits until the routes of both families go over the routers on those of the links `a` and `b`.
    fn until_over(&mut self, what: &str, links: &[bool; 2]) -> Duration {
        let wanted: Vec<Route> = (0..2)
            .filter(|_| links.contains(&true))
            .map(|family| {
                let legs = [(A[family], self.a), (B[family], self.b)].into_iter().zip(links);
                let legs = legs
                    .filter(|(_, there)| **there)
                    .map(|((router, link), _)| NextHop::via(ip(router), link));
                route(PREFIXES[family], legs.collect())
            })
            .collect();
        self.until(what, |snapshot| weft(snapshot) == wanted)
    }

    fn objects(&mut self) -> Nexthops {
        self.socket.nexthops().unwrap().unwrap()
    }

    /// Runs `ip` in the namespace; what it says.
    fn ip(&self, arguments: &str) -> String {
        let run = || std::process::Command::new("ip").args(arguments.split(' ')).output();
        let output = netns::run(self.namespace.path(), run)
            .unwrap()
            .unwrap_or_else(|error| panic!("ip(8) is needed: {error}"));
        assert!(output.status.success(), "ip {arguments}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn writes(&self) -> u64 {
        self.kernel().inspect(|engine| engine.counters().writes).unwrap()
    }
}

fn route(prefix: &str, legs: NextHops) -> Route {
    Route {
        key: RouteKey::new(prefix.parse().unwrap(), 64),
        protocol: Protocol::WEFT,
        action: Action::Forward(legs),
        preferred_source: None,
    }
}

fn weft(snapshot: &Snapshot) -> Vec<Route> {
    let mut routes: Vec<Route> =
        snapshot.resolved_routes().filter(|route| route.protocol == Protocol::WEFT).collect();
    routes.sort_unstable();
    routes
}

fn ours(objects: &Nexthops) -> Vec<Nexthop> {
    objects.iter().filter(|object| object.is_weft()).cloned().collect()
}

#[test]
fn objects_are_adopted_and_swept() {
    let Some(mut lab) = Lab::new("objects_are_adopted_and_swept") else { return };
    lab.learn_both();
    let shown = lab.ip("route show proto 176");
    assert!(shown.starts_with("10.1.0.0/24 nhid "), "the route names its group: {shown}");
    let before = ours(&lab.objects());
    assert_eq!(before.len(), 6, "four legs and a group of each family: {before:?}");
    lab.restart();
    lab.kernel().learned(vec![learn(PREFIXES[0], &[A[0], B[0]])]).unwrap();
    assert_eq!(lab.writes(), 0);
    assert_eq!(ours(&lab.objects()), before);
    lab.kernel().sweep().unwrap();
    lab.until("only what was learned again", |snapshot| {
        weft(snapshot).len() == 1
            && snapshot.nexthops.as_ref().is_some_and(|objects| ours(objects).len() == 3)
    });
    lab.kernel.take().unwrap().stop();
    assert_eq!(netns::run(lab.namespace.path(), weft_routing::cleanup).unwrap(), Ok(1));
    assert_eq!(ours(&lab.objects()), []);
}

#[test]
fn what_a_flush_took_is_back_within_a_second() {
    let Some(mut lab) = Lab::new("what_a_flush_took_is_back_within_a_second") else { return };
    lab.learn_both();
    let ids: Vec<u32> = ours(&lab.objects()).iter().map(|object| object.id).collect();
    lab.ip("nexthop flush");
    let objects = ids.clone();
    let took = lab.until("others in the place of the objects", move |snapshot| {
        let there = snapshot.nexthops.as_ref().map(ours).unwrap_or_default();
        there.len() == 6 && there.iter().all(|object| !objects.contains(&object.id))
    });
    assert!(took < Duration::from_secs(1), "the repair took {took:?}");
    lab.until_over("the routes back", &[true, true]);
}

#[test]
fn a_carrier_that_goes_and_comes_leaves_the_routes_as_they_are() {
    let Some(mut lab) = Lab::new("a_carrier_that_goes_and_comes") else { return };
    lab.learn_both();
    let groups = |objects: &Nexthops| -> Vec<u32> {
        objects.iter().filter(|object| object.is_weft_group()).map(|object| object.id).collect()
    };
    let (before, peer) = (groups(&lab.objects()), index(&mut lab.socket, "b-peer"));
    for _ in 0..3 {
        lab.socket.execute(&set_up(peer, false)).unwrap();
        lab.until_over("one router after the carrier was lost", &[true, false]);
        lab.socket.execute(&set_up(peer, true)).unwrap();
        lab.until_over("both routers with the carrier back", &[true, true]);
        // What the kernel took before the engine knew may have been made anew: that goes again.
        lab.until("the groups as they were", |snapshot| {
            snapshot.nexthops.as_ref().is_some_and(|objects| groups(objects) == before)
        });
    }
    // Both links lose it, one after the other: then nothing is left, and all comes back.
    let other = index(&mut lab.socket, "a-peer");
    for peer in [peer, other] {
        lab.socket.execute(&set_up(peer, false)).unwrap();
    }
    lab.until_over("nothing", &[false, false]);
    for (peer, links) in [(other, [true, false]), (peer, [true, true])] {
        lab.socket.execute(&set_up(peer, true)).unwrap();
        lab.until_over("the routers of the links that are back", &links);
    }
    lab.until("no object without use", |snapshot| {
        snapshot.nexthops.as_ref().is_some_and(|o| ours(o).len() == 6)
    });
}

#[test]
fn other_programs_objects_stay() {
    let Some(mut lab) = Lab::new("other_programs_objects_stay") else { return };
    let own = OWN_IDS.start();
    for arguments in [
        "nexthop add id 5 via 10.0.1.253 dev a proto zebra".to_owned(),
        format!("nexthop add id {own} via 10.0.1.253 dev a proto zebra"),
        format!("nexthop add id {} group 5/{own} proto zebra", own + 1),
        "route add 192.0.2.0/24 nhid 5 proto zebra".to_owned(),
    ] {
        lab.ip(&arguments);
    }
    lab.learn_both();
    lab.restart();
    lab.kernel().sweep().unwrap();
    lab.until("nothing of ours", |snapshot| {
        weft(snapshot).is_empty()
            && snapshot.nexthops.as_ref().is_some_and(|objects| ours(objects).is_empty())
    });
    let left: Vec<u32> = lab.objects().iter().map(|object| object.id).collect();
    assert_eq!(left, [5, *own, own + 1]);
    assert!(!lab.ip("route show proto zebra").is_empty());
}

#[test]
fn ipv4_goes_over_ipv6_routers_by_objects() {
    let Some(mut lab) = Lab::new("ipv4_goes_over_ipv6_routers_by_objects") else { return };
    let on = |link| NextHopRef { address: ip("fe80::9"), default_route: false, link: Some(link) };
    let hops = [on(lab.a), on(lab.b)];
    let change =
        |prefix: &str| RouteChange { prefix: prefix.parse().unwrap(), next_hops: hops.into(), direct: None };
    lab.kernel().learned(PREFIXES.map(change).to_vec()).unwrap();
    let legs = || [lab.a, lab.b].into_iter().map(|link| NextHop::via(ip("fe80::9"), link)).collect();
    let wanted = PREFIXES.map(|prefix| route(prefix, legs()));
    lab.until("both routes", |snapshot| weft(snapshot) == wanted);
    assert_eq!(ours(&lab.objects()).len(), 3, "both families share the group");
}

/// Ten thousand routes are as many messages as one.
#[test]
fn a_lost_next_hop_is_one_message_however_many_routes_there_are() {
    let Some(mut lab) = Lab::new("a_lost_next_hop_is_one_message") else { return };
    let prefix = |n: u32| IpNet::new(std::net::Ipv4Addr::from(0x0b00_0000 + n * 256).into(), 24).unwrap();
    let set = |next_hops: &[&str]| -> Vec<RouteChange> {
        let next_hops: std::sync::Arc<[NextHopRef]> = next_hops.iter().map(|nh| next_hop(nh)).collect();
        (0..10_000)
            .map(|n| RouteChange { prefix: prefix(n), next_hops: next_hops.clone(), direct: None })
            .collect()
    };
    lab.kernel().learned(set(&[A[0], B[0]])).unwrap();
    lab.until("ten thousand routes", |snapshot| weft(snapshot).len() == 10_000);
    let before = lab.writes();
    let start = Instant::now();
    lab.kernel().lost(vec![next_hop(A[0])]).unwrap();
    // Asked after the command, answered after what follows from it.
    let settled =
        || lab.kernel().inspect(|engine| engine.is_settled() && engine.nexthop_objects() == (1, 1)).unwrap();
    while !settled() {
        assert!(start.elapsed() < PATIENCE, "waited in vain for the group to change");
    }
    eprintln!("ten thousand routes around a lost next hop: {:?}", start.elapsed());
    lab.kernel().learned(set(&[B[0]])).unwrap();
    let legs = Action::Forward(NextHop::via(ip(B[0]), lab.b).into());
    lab.until("all over the other", |snapshot| {
        let routes = weft(snapshot);
        routes.len() == 10_000 && routes.iter().all(|route| route.action == legs)
    });
    while lab.kernel().inspect(|engine| !engine.is_settled()).unwrap() {
        assert!(start.elapsed() < PATIENCE, "the thread does not settle");
    }
    assert_eq!(lab.writes() - before, 2, "the group, and the leg that is in none");
}

/// Ten thousand routes that go are as many messages as one.
#[test]
fn routes_that_all_go_do_so_with_their_object() {
    let Some(mut lab) = Lab::new("routes_that_all_go_do_so_with_their_object") else { return };
    lab.ip("route add 192.0.2.0/24 via 10.0.1.253");
    let v4 = |n: u32| IpNet::new(std::net::Ipv4Addr::from(0x0b00_0000 + n * 256).into(), 24).unwrap();
    let v6 = |n: u32| {
        IpNet::new(std::net::Ipv6Addr::from(0xfd99_u128 << 112 | u128::from(n) << 64).into(), 64).unwrap()
    };
    let prefixes: Vec<IpNet> = (0..5000).flat_map(|n| [v4(n), v6(n)]).collect();
    let set = |prefixes: &[IpNet], v4: &[&str], v6: &[&str]| -> Vec<RouteChange> {
        let shared = |next_hops: &[&str]| next_hops.iter().map(|nh| next_hop(nh)).collect();
        let (v4, v6): (std::sync::Arc<[NextHopRef]>, std::sync::Arc<[NextHopRef]>) = (shared(v4), shared(v6));
        let next_hops = |prefix: &IpNet| if prefix.addr().is_ipv4() { v4.clone() } else { v6.clone() };
        let change =
            |prefix: &IpNet| RouteChange { prefix: *prefix, next_hops: next_hops(prefix), direct: None };
        prefixes.iter().map(change).collect()
    };
    let kept = PREFIXES.map(|prefix| prefix.parse().unwrap());
    lab.kernel().learned(set(&kept, &[B[0]], &[B[1]])).unwrap();
    lab.kernel().learned(set(&prefixes, &[A[0]], &[A[1]])).unwrap();
    lab.until("all routes", |snapshot| weft(snapshot).len() == 10_002);
    let before = lab.writes();
    lab.kernel().learned(set(&prefixes, &[], &[])).unwrap();
    lab.until("two routes, and their objects", |snapshot| {
        weft(snapshot).len() == 2 && snapshot.nexthops.as_ref().is_some_and(|o| ours(o).len() == 4)
    });
    assert_eq!(lab.writes() - before, 4, "two groups with their routes, and their legs");
    assert!(!lab.ip("route show 192.0.2.0/24").is_empty(), "another's route went along");
}

const RESILIENCE: Resilience =
    Resilience { buckets: 256, idle_time: Duration::from_secs(600), unbalanced_time: Duration::ZERO };

impl Lab {
    fn ask(&self, resilience: Option<Resilience>) {
        self.kernel().configure(Settings { resilience, ..Settings::default() }).unwrap();
    }

    /// The kind of each group of ours.
    fn kinds(snapshot: &Snapshot) -> Vec<Option<Resilience>> {
        let kind = |object: &Nexthop| match object.kind {
            NexthopKind::Group { resilience, .. } => Some(resilience),
            NexthopKind::Leg(_) | NexthopKind::Other => None,
        };
        snapshot.nexthops.iter().flat_map(ours).filter_map(|object| kind(&object)).collect()
    }

    /// Waits until our groups are all of this kind, none of another left.
    fn until_kind(&mut self, resilience: Option<Resilience>) {
        self.until("groups of the kind that is asked for", |snapshot| {
            let kinds = Self::kinds(snapshot);
            kinds.len() == 2 && kinds.iter().all(|kind| *kind == resilience)
        });
    }

    /// Whether the kernel has resilient groups; a line that says so if it has none.
    fn has_resilient_groups(&self, test: &str) -> bool {
        let why = self.kernel().inspect(|engine| engine.not_resilient().map(str::to_owned)).unwrap();
        if let Some(why) = &why {
            let _ = writeln!(std::io::stderr(), "skipped: {test}: no resilient groups in this kernel: {why}");
        }
        why.is_none()
    }

    /// The links that packets to each of 250 addresses go out of. That they are asked for counts as a packet.
    fn flows(&self) -> Vec<String> {
        let questions: String = (1..=250).map(|n| format!("route get 10.1.0.{n}\n")).collect();
        let run = || {
            let mut ip = std::process::Command::new("ip")
                .args(["-batch", "-"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()?;
            ip.stdin.take().unwrap().write_all(questions.as_bytes())?;
            ip.wait_with_output()
        };
        let output = netns::run(self.namespace.path(), run).unwrap().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let dev = |line: &str| line.split(" dev ").nth(1)?.split(' ').next().map(str::to_owned);
        let flows: Vec<String> =
            text.lines().filter(|line| line.starts_with("10.1.0.")).filter_map(dev).collect();
        assert_eq!(flows.len(), 250, "{text}");
        flows
    }

    /// The link that each bucket leads to of the group that the IPv4 route goes over.
    fn buckets(&self) -> Vec<String> {
        let id = |line: &str| {
            line.rsplit("id ").next().and_then(|rest| rest.split(' ').next()).map(str::to_owned).unwrap()
        };
        let route = self.ip("route show 10.1.0.0/24");
        let group = route.split("nhid ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap().to_owned();
        let legs = self.ip("nexthop show");
        let dev = |leg: &str| {
            let line = legs.lines().find(|line| line.starts_with(&format!("id {leg} "))).unwrap();
            line.split(" dev ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap().to_owned()
        };
        let buckets = self.ip(&format!("nexthop bucket show id {group}"));
        buckets.lines().map(|line| dev(&id(line.trim()))).collect()
    }
}

/// A flow stays on its next hop while that is there: whoever dies, comes back, loses its link or is withdrawn.
#[test]
fn flows_of_a_resilient_group_stay_on_their_next_hop() {
    let test = "flows_of_a_resilient_group_stay_on_their_next_hop";
    let Some(mut lab) = Lab::new(test) else { return };
    let until_over = |lab: &mut Lab, what: &str, there: [bool; 2]| {
        let legs = [(A[0], lab.a), (B[0], lab.b)].into_iter().zip(there).filter(|(_, there)| *there);
        let wanted =
            vec![route(PREFIXES[0], legs.map(|((at, link), _)| NextHop::via(ip(at), link)).collect())];
        lab.until(what, |snapshot| weft(snapshot) == wanted);
        (lab.buckets(), lab.flows())
    };
    let learn_over = |lab: &Lab, routers: &[&str]| {
        lab.kernel().learned(vec![learn(PREFIXES[0], routers)]).unwrap();
    };
    // Flows that may not move, and buckets of a next hop.
    let stay = |before: &[String], after: &[String], but: &str| {
        before.iter().zip(after).all(|(before, after)| before == after || before == but)
    };
    lab.ask(Some(RESILIENCE));
    learn_over(&lab, &[A[0], B[0]]);
    let (buckets, _) = until_over(&mut lab, "both routers", [true; 2]);
    if !lab.has_resilient_groups(test) {
        return;
    }
    assert_eq!(buckets.len(), 256);
    // Once more, so that a bucket that was filled in the same moment has been used since.
    let before = lab.flows();
    let on = |flows: &[String], link: &str| flows.iter().filter(|flow| *flow == link).count();
    assert!(on(&before, "a") > 60 && on(&before, "b") > 60, "flows over both: {before:?}");

    // A session dies, and the route that follows from that is told.
    lab.kernel().lost(vec![next_hop(A[0])]).unwrap();
    let (without, _) = until_over(&mut lab, "the other router", [false, true]);
    assert!(stay(&buckets, &without, "a"));
    learn_over(&lab, &[B[0]]);
    assert_eq!(on(&lab.flows(), "b"), before.len());
    // It is back: it gets buckets that are idle, and no other.
    learn_over(&lab, &[A[0], B[0]]);
    let (back, after) = until_over(&mut lab, "both routers again", [true; 2]);
    assert_eq!(on(&after, "b"), before.len(), "flows have moved");
    let moved = without.iter().zip(&back).filter(|(without, back)| without != back).count();
    assert!((20..=128).contains(&moved), "{moved} of 256 buckets have moved");

    // A carrier goes and comes: the kernel takes the leg out by itself.
    let peer = index(&mut lab.socket, "b-peer");
    lab.socket.execute(&set_up(peer, false)).unwrap();
    let (without, _) = until_over(&mut lab, "the router whose link has a carrier", [true, false]);
    assert!(stay(&back, &without, "b"));
    assert_eq!(on(&lab.flows(), "a"), before.len());
    lab.socket.execute(&set_up(peer, true)).unwrap();
    let (back, after) = until_over(&mut lab, "both routers with the carrier back", [true; 2]);
    assert_eq!(on(&after, "a"), before.len(), "flows have moved");

    // Nobody dies, but the route is told without one.
    learn_over(&lab, &[A[0]]);
    let (without, after) = until_over(&mut lab, "the router that still tells of it", [true, false]);
    assert!(stay(&back, &without, "b") && on(&after, "a") == before.len());
    assert_eq!(lab.kernel().inspect(|engine| engine.resilient_groups()).unwrap(), 1);
}

/// What is asked for may change while packets go, and the next weftd may be asked for something else.
#[test]
fn groups_become_resilient_and_back_without_a_moment_without_routes() {
    let test = "groups_become_resilient_and_back_without_a_moment_without_routes";
    let Some(mut lab) = Lab::new(test) else { return };
    lab.learn_both();
    let mut monitor = NetlinkFib::in_netns(lab.namespace.path()).unwrap();
    let larger = Resilience { buckets: 1024, unbalanced_time: Duration::from_secs(60), ..RESILIENCE };
    let slower = Resilience { idle_time: Duration::from_secs(900), ..larger };
    for resilience in [Some(RESILIENCE), Some(larger), Some(slower), None] {
        lab.ask(resilience);
        if resilience == Some(RESILIENCE) {
            let start = Instant::now();
            while lab.kernel().inspect(|engine| !engine.is_settled()).unwrap() {
                assert!(start.elapsed() < PATIENCE, "the thread does not settle");
            }
            if !lab.has_resilient_groups(test) {
                return;
            }
        }
        lab.until_kind(resilience);
        lab.until_over("both routers", &[true, true]);
    }
    lab.ask(Some(larger));
    lab.until_kind(Some(larger));
    // An engine that is not told yet leaves them as they are, and one that is told the same too.
    let before = ours(&lab.objects());
    lab.restart();
    lab.ask(Some(larger));
    lab.learn_both();
    assert_eq!((lab.writes(), ours(&lab.objects())), (0, before));
    lab.restart();
    lab.learn_both();
    lab.until_kind(None);
    let heard = std::iter::repeat_with(|| monitor.notifications()).take_while(|heard| !heard.is_empty());
    let gone: Vec<Notification> = heard
        .flatten()
        .filter(|notification| matches!(notification, Notification::RouteRemoved(_)))
        .collect();
    assert_eq!(gone, [], "a route was taken away before another was there");
    lab.ip("route get 10.1.0.1");
    lab.ip("route get 2001:db8:f::1");
}
