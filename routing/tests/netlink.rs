//! The netlink layer against a real kernel, in network namespaces of its own.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a failing helper fails its test"
)]

mod common;

use std::net::Ipv4Addr;

use common::{Namespace, ip};

use weft_routing::fib::{Fib, Notification, Write};
use weft_routing::netlink::{self, LinkName, Neighbour, NetlinkFib, Request, Socket, Veth};
use weft_routing::nexthop::OWN_IDS;
use weft_routing::route::{Action, NextHop, NextHops, Protocol, Route, RouteKey};
use weft_routing::{netns, sysctl};

fn route(destination: &str, metric: u32, action: Action) -> Route {
    Route {
        key: RouteKey::new(destination.parse().unwrap(), metric),
        protocol: Protocol::WEFT,
        action,
        preferred_source: None,
    }
}

fn ours(socket: &mut Socket) -> Vec<Route> {
    let mut routes = socket.routes().unwrap();
    routes.retain(|route| route.protocol.is_weft());
    routes
}

#[test]
fn veth_is_made_across_namespaces() {
    let Some(host) = Namespace::new("veth_is_made_across_namespaces") else { return };
    let Some(pod) = Namespace::new("veth_is_made_across_namespaces") else { return };
    let mut socket = host.socket();
    let netns = std::fs::File::open(pod.path()).unwrap();
    let name: LinkName = "weft0".parse().unwrap();
    let peer: LinkName = "eth0".parse().unwrap();
    let veth = Veth {
        name: &name,
        mac: [0xee; 6],
        peer_name: &peer,
        peer_mac: Some([2, 0, 0, 0, 0, 1]),
        peer_netns: &netns,
        mtu: 1450,
    };
    socket.execute(&veth.create()).unwrap();
    assert!(socket.execute(&veth.create()).unwrap_err().is_present());

    let link = socket.link_by_name(&name).unwrap().unwrap();
    assert_eq!((link.mac, link.mtu, link.up), (Some([0xee; 6]), 1450, false));
    assert_eq!(link.kind.as_deref(), Some("veth"));
    let mut inside = pod.socket();
    let eth0 = inside.link_by_name(&peer).unwrap().unwrap();
    assert_eq!((eth0.mac, eth0.mtu), (Some([2, 0, 0, 0, 0, 1]), 1450));
    assert_eq!((link.peer, eth0.peer), (Some(eth0.index), Some(link.index)));
    assert_eq!(socket.link_by_index(link.index).unwrap(), Some(link.clone()));
    assert!(socket.namespace_lives(link.peer_namespace.unwrap()).unwrap());
    for (key, conf) in [("accept_ra", (false, 0)), ("disable_ipv6", (true, 0))] {
        let value = u8::from(key == "disable_ipv6").to_string();
        weft_routing::sysctl::write_in(pod.path(), &format!("net/ipv6/conf/eth0/{key}"), &value).unwrap();
        let found = inside.ipv6_conf(eth0.index).unwrap().unwrap();
        assert_eq!((found.disabled, found.accept_ra), conf);
    }
    weft_routing::sysctl::write_in(pod.path(), "net/ipv6/conf/eth0/disable_ipv6", "0").unwrap();
    for (mtu, speaks) in [(1279, false), (1450, true)] {
        inside.execute(&netlink::set_mtu(eth0.index, mtu)).unwrap();
        assert_eq!(inside.ipv6_conf(eth0.index).unwrap().is_some(), speaks, "MTU {mtu}");
    }

    let renamed: LinkName = "net1".parse().unwrap();
    for result in inside.batch(&[
        netlink::set_addr_gen_mode_none(eth0.index),
        netlink::set_name(eth0.index, &renamed),
        netlink::set_up(eth0.index, true),
    ]) {
        result.unwrap();
    }
    socket.execute(&netlink::set_up(link.index, true)).unwrap();
    assert!(inside.link_by_name(&renamed).unwrap().unwrap().is_running());
    let addresses = inside.addresses().unwrap();
    assert!(addresses.iter().all(|a| a.link != eth0.index), "no link-local was made: {addresses:?}");

    socket.execute(&netlink::delete_link(link.index)).unwrap();
    assert_eq!(inside.link_by_name(&renamed).unwrap(), None);
    assert!(socket.execute(&netlink::delete_link(link.index)).unwrap_err().is_absent());
}

#[test]
fn addresses_and_neighbours_come_back_as_written() {
    let Some(host) = Namespace::new("addresses_and_neighbours") else { return };
    let (a, _) = host.veth("a", "b", &[]);
    let mut socket = host.socket();
    let v4 = host.add_address(a, "10.0.0.1/24");
    let v6 = host.add_address(a, "2001:db8::1/64");
    let found = socket.addresses().unwrap();
    assert!(found.contains(&v4) && found.contains(&v6), "{found:?}");
    assert!(socket.execute(&v4.add()).unwrap_err().is_present());

    let entries =
        ["10.0.0.9", "2001:db8::9"].map(|address| Neighbour { link: a, address: ip(address), mac: [2; 6] });
    for entry in &entries {
        socket.execute(&entry.replace()).unwrap();
        socket.execute(&entry.replace()).unwrap();
    }
    let mut found = socket.neighbours().unwrap();
    found.retain(|entry| entry.link == a);
    found.sort_unstable();
    assert_eq!(found, entries);
    socket.execute(&entries[0].delete()).unwrap();
    socket.execute(&v4.delete()).unwrap();
    assert!(!socket.addresses().unwrap().contains(&v4));
}

#[test]
fn routes_come_back_as_written() {
    let Some(host) = Namespace::new("routes_come_back_as_written") else { return };
    let mut socket = host.socket();
    assert_eq!(socket.routes().unwrap(), [], "a fresh namespace has no routes");
    let (a, _) = host.veth("a", "b", &["10.0.0.1/24", "2001:db8::1/64"]);
    let v4 = NextHops::from_iter([NextHop::via(ip("10.0.0.2"), a), NextHop::via(ip("10.0.0.3"), a)]);
    let v6 = NextHops::from_iter([
        NextHop { weight: 3, ..NextHop::via(ip("2001:db8::2"), a) },
        NextHop::via(ip("2001:db8::3"), a),
    ]);
    // One address on two links, as the routers at their other ends may have it.
    let (b, _) = host.veth("c", "d", &[]);
    let link_local = NextHops::from_iter([NextHop::via(ip("fe80::9"), a), NextHop::via(ip("fe80::9"), b)]);
    let onlink = NextHop { onlink: true, ..NextHop::via(ip("169.254.1.1"), a) };
    let mut wanted = vec![
        route("0.0.0.0/0", 0, Action::Forward(onlink.into())),
        route("10.1.0.0/16", 64, Action::Forward(v4)),
        route("10.2.0.1/32", 32, Action::Forward(NextHop::on_link(a).into())),
        route("10.2.0.0/26", 4_278_198_272, Action::Unreachable),
        route("10.3.0.0/24", 64, Action::Forward(NextHop::via(ip("2001:db8::2"), a).into())),
        route("10.4.0.0/24", 64, Action::Forward(link_local.clone())),
        route("2001:db8:4::/64", 64, Action::Forward(link_local)),
        route("2001:db8:1::/64", 64, Action::Forward(v6)),
        route("2001:db8:2::1/128", 32, Action::Forward(NextHop::on_link(a).into())),
        route("2001:db8:2::/122", 4_278_198_272, Action::Unreachable),
        route("2001:db8:3::/64", 0, Action::Blackhole),
    ];
    wanted[1].preferred_source = Some(ip("10.0.0.1"));
    wanted[5].preferred_source = Some(ip("10.0.0.1"));
    wanted[7].preferred_source = Some(ip("2001:db8::1"));
    for (result, route) in
        socket.batch(&wanted.iter().map(Route::add).collect::<Vec<_>>()).iter().zip(&wanted)
    {
        assert_eq!(*result, Ok(()), "{route:?}");
    }
    let mut found = ours(&mut socket);
    found.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(found, wanted);

    for route in &wanted {
        assert!(socket.execute(&route.add()).unwrap_err().is_present());
        assert_eq!(socket.execute(&route.replace()), Ok(()));
        let foreign = Route::delete(route.key, Protocol::STATIC);
        assert!(socket.execute(&foreign).unwrap_err().is_absent(), "{route:?} went by a foreign delete");
        assert_eq!(socket.execute(&Route::delete(route.key, route.protocol)), Ok(()), "{route:?}");
    }
    assert_eq!(ours(&mut socket), []);
}

#[test]
fn a_batch_reports_each_request_and_keeps_the_kernels_words() {
    let Some(host) = Namespace::new("a_batch_reports_each_request") else { return };
    let (a, _) = host.veth("a", "b", &["10.0.0.1/24"]);
    let mut socket = host.socket();
    let total: u32 = 20_000;
    let requests: Vec<Request> = (0..total)
        .map(|n| {
            let gateway = if n % 1000 == 7 { "192.0.2.1" } else { "10.0.0.2" };
            let address = std::net::Ipv4Addr::from(0x0b00_0000 + n * 256);
            route(&format!("{address}/24"), 64, Action::Forward(NextHop::via(ip(gateway), a).into())).add()
        })
        .collect();
    let results = socket.batch(&requests);
    assert_eq!(results.len(), requests.len());
    for (n, result) in results.iter().enumerate() {
        match result {
            Ok(()) => assert_ne!(n % 1000, 7),
            Err(error) => {
                assert_eq!(n % 1000, 7, "{error}");
                assert!(error.to_string().contains("Nexthop has invalid gateway"), "{error}");
            }
        }
    }
    assert_eq!(ours(&mut socket).len() as u32, total - total / 1000);
}

#[test]
fn namespaces_are_entered_on_other_threads_only() {
    let Some(host) = Namespace::new("namespaces_are_entered") else { return };
    let before = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
    let inside = netns::run(host.path(), || std::fs::read_link("/proc/thread-self/ns/net").unwrap()).unwrap();
    assert_ne!(before, inside);
    assert_eq!(before, std::fs::read_link("/proc/thread-self/ns/net").unwrap());

    sysctl::write_in(host.path(), "net/ipv4/conf/lo/forwarding", "0").unwrap();
    assert_eq!(sysctl::read_in(host.path(), "net/ipv4/conf/lo/forwarding").unwrap(), "0");
    assert!(netns::run(host.path(), || sysctl::ensure("net/ipv4/conf/lo/forwarding", "1")).unwrap().unwrap());
    assert_eq!(sysctl::read_in(host.path(), "net/ipv4/conf/lo/forwarding").unwrap(), "1");

    let missing = Socket::in_netns("/run/netns/weft-no-such".as_ref()).unwrap_err().to_string();
    assert!(missing.contains("/run/netns/weft-no-such"), "{missing}");
    let wrong = Socket::in_netns("/proc/version".as_ref()).unwrap_err().to_string();
    assert!(wrong.contains("cannot enter network namespace"), "{wrong}");
}

#[test]
fn a_batch_that_was_begun_tells_what_became_of_each_write() {
    let Some(host) = Namespace::new("a_batch_that_was_begun") else { return };
    let mut fib = netns::run(host.path(), NetlinkFib::new).unwrap().unwrap();
    // More than goes into one system call.
    let routes: Vec<Route> = (0..3000u32)
        .map(|n| route(&format!("{}/32", Ipv4Addr::from(0x0b00_0000 + n)), 64, Action::Unreachable))
        .collect();
    let mut writes: Vec<Write> = routes.iter().cloned().map(Write::Add).collect();
    writes.insert(1, writes[0].clone());
    writes.push(Write::Delete(RouteKey::new("10.9.9.9/32".parse().unwrap(), 64), Protocol::WEFT));
    fib.begin(&writes);
    // The other socket does not wait for the batch.
    assert!(fib.apply(&[Write::DeleteNexthop(*OWN_IDS.start())])[0].as_ref().unwrap_err().is_absent());
    let results = fib.finish();
    assert_eq!(results.len(), writes.len());
    let refused: Vec<usize> = (0..results.len()).filter(|n| results[*n].is_err()).collect();
    assert_eq!(refused, [1, writes.len() - 1]);
    assert!(results[1].as_ref().unwrap_err().is_present());
    assert!(results[writes.len() - 1].as_ref().unwrap_err().is_absent());
    assert_eq!(ours(&mut host.socket()).len(), routes.len());
    assert_eq!(fib.finish().len(), 0, "nothing else was begun");
    let echo =
        fib.notifications().into_iter().filter(|n| matches!(n, Notification::RouteAdded { .. })).count();
    assert_eq!(echo, 0, "what it writes itself is no news");
}
