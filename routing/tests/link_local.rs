//! Link-local next hops against a real kernel: IPv4 over IPv6, several links, and router advertisements.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "a failing helper fails its test"
)]

mod common;

use std::net::{IpAddr, Ipv6Addr, SocketAddrV6};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use common::{Namespace, ip};
use weft_routing::ndisc::{self, message};
use weft_routing::netlink::{self, Scope};
use weft_routing::route::{Action, NextHop, Protocol, Route, RouteKey};
use weft_routing::{Event, Kernel, NextHopRef, RouteChange, Settings, netns};

const PATIENCE: Duration = Duration::from_secs(10);

/// Waits until `look` finds something.
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn link_local(namespace: &Namespace, link: u32) -> Ipv6Addr {
    until("a link-local address", || {
        let addresses = namespace.socket().addresses().unwrap();
        addresses.iter().find_map(|held| match held.ip() {
            IpAddr::V6(v6) if held.link == link && held.scope == Scope::Link && !held.tentative => Some(v6),
            _ => None,
        })
    })
}

fn start(namespace: &Namespace) -> (Kernel, Receiver<Event>) {
    let (events, received) = mpsc::channel();
    let sink = Box::new(move |event| {
        let _ = events.send(event);
    });
    let settings = Settings { preferred_source_v4: Some([10, 0, 0, 1].into()), ..Settings::default() };
    (Kernel::start_in(namespace.path(), settings, sink).unwrap(), received)
}

/// The routes to 10.1.0.0/24 and 2001:db8:f::/64 over one router on each of these links.
fn routes(links: &[u32]) -> Vec<Route> {
    let legs = || links.iter().map(|link| NextHop::via(ip("fe80::9"), *link));
    let route = |prefix: &str, source: Option<IpAddr>| Route {
        key: RouteKey::new(prefix.parse().unwrap(), 64),
        protocol: Protocol::WEFT,
        action: Action::Forward(legs().collect()),
        preferred_source: source,
    };
    vec![route("10.1.0.0/24", Some(ip("10.0.0.1"))), route("2001:db8:f::/64", None)]
}

fn ours(namespace: &Namespace) -> Vec<Route> {
    let mut routes = namespace.socket().routes_of(Protocol::WEFT).unwrap();
    routes.sort_unstable();
    routes
}

#[test]
fn both_families_go_over_routers_of_one_address_on_several_links() {
    let Some(host) = Namespace::new("both_families_go_over_routers_of_one_address") else { return };
    let (a, a_peer) = host.veth("a", "a-peer", &[]);
    let (b, _) = host.veth("b", "b-peer", &[]);
    let lo = common::index(&mut host.socket(), "lo");
    host.add_address(lo, "10.0.0.1/32");
    let (kernel, _events) = start(&host);
    let hops =
        [a, b].map(|link| NextHopRef { address: ip("fe80::9"), default_route: false, link: Some(link) });
    let learn = |kernel: &Kernel| {
        let change = |prefix: &str| RouteChange {
            prefix: prefix.parse().unwrap(),
            next_hops: hops.into(),
            direct: None,
        };
        kernel.learned(vec![change("10.1.0.0/24"), change("2001:db8:f::/64")]).unwrap();
    };
    let wait = |what: &str, wanted: Vec<Route>| until(what, || (ours(&host) == wanted).then_some(()));
    learn(&kernel);
    wait("both routes with two legs", routes(&[a, b]));
    let settled = |kernel: &Kernel| kernel.inspect(|engine| engine.is_settled()).unwrap();
    until("the engine to rest", || settled(&kernel).then_some(()));
    let shown = kernel.inspect(|engine| engine.fib()).unwrap();
    let shown: Vec<_> = shown[0].next_hops.iter().map(|hop| (hop.via, hop.dev.as_str())).collect();
    assert_eq!(shown, [(Some(ip("fe80::9")), "a"), (Some(ip("fe80::9")), "b")]);

    // What others do is put right.
    let victim = &routes(&[a, b])[0];
    host.socket().execute(&Route::delete(victim.key, victim.protocol)).unwrap();
    wait("the route to come back", routes(&[a, b]));

    host.socket().execute(&netlink::set_up(a_peer, false)).unwrap();
    wait("the leg without carrier to go", routes(&[b]));
    host.socket().execute(&netlink::set_up(a_peer, true)).unwrap();
    wait("it to come back", routes(&[a, b]));

    // A later run finds them, knows the routers by them, and has nothing to write.
    kernel.stop();
    let (kernel, _events) = start(&host);
    let routers = kernel.inspect(|engine| engine.adopted_routers()).unwrap();
    assert_eq!(routers, [a, b].map(|link| (link, "fe80::9".parse().unwrap())).into());
    learn(&kernel);
    until("the engine to rest", || settled(&kernel).then_some(()));
    assert_eq!(ours(&host), routes(&[a, b]));
    assert_eq!(kernel.inspect(|engine| engine.counters().writes).unwrap(), 0);
    kernel.sweep().unwrap();
    assert_eq!(kernel.inspect(|engine| engine.adopted_routers().len()).unwrap(), 0);
}

#[test]
fn advertisements_are_heard_on_their_link_if_they_come_from_it() {
    let Some(host) = Namespace::new("advertisements_are_heard_on_their_link") else { return };
    let Some(tor) = Namespace::new("advertisements_are_heard_on_their_link") else { return };
    let netns = std::fs::File::open(tor.path()).unwrap();
    let veth = netlink::Veth {
        name: &"uplink".parse().unwrap(),
        mac: [2, 0, 0, 0, 0, 1],
        peer_name: &"node".parse().unwrap(),
        peer_mac: Some([2, 0, 0, 0, 0, 2]),
        peer_netns: &netns,
        mtu: 1500,
    };
    host.socket().execute(&veth.create()).unwrap();
    let uplink = common::index(&mut host.socket(), "uplink");
    let node = common::index(&mut tor.socket(), "node");
    host.socket().execute(&netlink::set_up(uplink, true)).unwrap();
    tor.socket().execute(&netlink::set_up(node, true)).unwrap();
    // A global address must not become the source.
    tor.add_address(node, "2001:db8::1/64");
    let (own, theirs) = (link_local(&host, uplink), link_local(&tor, node));

    let open = |namespace: &Namespace| netns::run(namespace.path(), ndisc::Socket::new).unwrap().unwrap();
    let (ours, router) = (open(&host), open(&tor));
    let mac = Some([2, 0, 0, 0, 0, 2]);

    // By hand, through somebody who lowered the hop limit; and something else than an advertisement.
    let raw = netns::run(tor.path(), || {
        let (domain, protocol) = (socket2::Domain::IPV6, socket2::Protocol::ICMPV6);
        socket2::Socket::new(domain, socket2::Type::RAW, Some(protocol)).unwrap()
    })
    .unwrap();
    let to_host: SocketAddrV6 = SocketAddrV6::new(own, 0, 0, node);
    for (hops, kind) in [(254, 134), (255, 133)] {
        raw.set_unicast_hops_v6(hops).unwrap();
        let mut message = message::advertisement(mac);
        message[0] = kind;
        raw.send_to(&message, &to_host.into()).unwrap();
    }
    router.advertise(node, mac).unwrap();
    let (link, source, message) = until("an advertisement", || ours.receive().ok());
    assert_eq!((link, source), (uplink, theirs));
    assert_eq!(message::lifetime(&message), Some(Duration::ZERO));
    let empty = ours.receive().unwrap_err();
    assert_eq!(empty.kind(), std::io::ErrorKind::WouldBlock);
    ours.advertise(uplink, None).unwrap();
    let (_, source, _) = until("the answer", || router.receive().ok());
    assert_eq!(source, own);
    assert!(ours.receive().is_err(), "its own is not heard");
}
