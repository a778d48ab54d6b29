//! Speakers on real sockets: sessions over IPv4 and IPv6, large tables both ways at once, peers that do not read, garbage.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test")]

mod sim_support;
mod transport_support;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use sim_support::{peer, prefixes, speaker, v6};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::time::timeout;
use transport_support::{
    KEEPALIVE, NOTIFICATION, Node, PATIENCE, RawPeer, UPDATE, announce, message, open, originate, prefix,
};
use weft_bgp::config::{PeerConfig, SpeakerConfig};
use weft_bgp::ingress::IncidentKind;
use weft_bgp::policy::{Operation, Policy, Rule, Verdict};
use weft_bgp::session::State;
use weft_bgp::speaker::{EventKind, Speaker, SpeakerStart};
use weft_bgp::status::{RibView, RouteSelect};
use weft_bgp::transport::{Command, Notice, Stopped, Transport};
use weft_bgp::types::Family;

const AS: [u32; 3] = [65001, 65002, 65003];

/// Every test has loopback addresses of its own, as others run at the same time.
fn address(test: u8, n: u8) -> IpAddr {
    Ipv4Addr::new(127, 18, test, n + 1).into()
}

/// Speaker `n`'s session to another one.
fn towards(n: usize, m: usize, remote: SocketAddr, source: IpAddr) -> (IpAddr, Arc<PeerConfig>) {
    let config = PeerConfig { port: remote.port(), source_address: Some(source), ..peer(n, AS[n], AS[m]) };
    (remote.ip(), Arc::new(config))
}

fn config(n: usize, peers: impl IntoIterator<Item = (IpAddr, Arc<PeerConfig>)>) -> SpeakerConfig {
    SpeakerConfig {
        peers: peers.into_iter().map(|(peer, config)| (peer.into(), config)).collect(),
        ..speaker(n, AS[n])
    }
}

/// Two speakers with a session between them, and what each is configured as.
async fn pair(
    [a, b]: [IpAddr; 2],
    change: impl Fn(usize, &mut SpeakerConfig),
) -> ([Node; 2], [SocketAddr; 2], [SpeakerConfig; 2]) {
    let (node_a, port_a) = Node::listen(1, a).await;
    let (node_b, port_b) = Node::listen(2, b).await;
    let sockets = [SocketAddr::new(a, port_a), SocketAddr::new(b, port_b)];
    let mut configs = [config(0, [towards(0, 1, sockets[1], a)]), config(1, [towards(1, 0, sockets[0], b)])];
    configs.iter_mut().enumerate().for_each(|(n, config)| change(n, config));
    node_a.configure(configs[0].clone()).await;
    node_b.configure(configs[1].clone()).await;
    ([node_a, node_b], sockets, configs)
}

#[tokio::test]
async fn a_session_over_ipv4_carries_both_families() {
    let addresses = [address(1, 0), address(1, 1)];
    let ([mut a, mut b], ..) = pair(addresses, |_, _| {}).await;
    for (node, m) in [(&mut a, 1), (&mut b, 0)] {
        let [p4, p6] = prefixes(m);
        node.wait_route(p4, addresses[m]).await;
        node.wait_route(p6, v6(m).into()).await;
        node.wait("convergence", |known| known.converged == 1).await;
    }
}

#[tokio::test]
async fn a_session_over_ipv6_carries_both_families() {
    // There is one IPv6 loopback address; ports tell the two apart, and only one dials.
    let localhost = IpAddr::from(Ipv6Addr::LOCALHOST);
    let ([mut a, mut b], ..) = pair([localhost; 2], |n, config| {
        for peer in config.peers.values_mut().map(Arc::make_mut) {
            peer.passive = n == 1;
            // Who is at the same address would be its own next hop.
            let elsewhere = Verdict::AcceptWith([Operation::SetNextHop(v6(n).into())].into());
            let rules = vec![Rule::new(elsewhere)];
            peer.export = Arc::new(Policy { rules, ..(*peer.export).clone() });
        }
    })
    .await;
    for (node, m) in [(&mut a, 1), (&mut b, 0)] {
        for prefix in prefixes(m) {
            node.wait_route(prefix, v6(m).into()).await;
        }
        let status = node.peer(localhost).await;
        let session = status.session.unwrap();
        assert!(session.local.is_ipv6() && session.remote.is_ipv6());
        let counts: Vec<_> = status.families.iter().map(|f| (f.family, f.received, f.accepted)).collect();
        assert_eq!(counts, [(Family::Ipv4Unicast, 1, 1), (Family::Ipv6Unicast, 1, 1)]);
    }
}

#[tokio::test]
async fn withdrawn_routes_and_closed_sessions_reach_the_kernel() {
    let addresses = [address(2, 0), address(2, 1)];
    let ([mut a, mut b], _, [mut config_a, _]) = pair(addresses, |_, _| {}).await;
    b.wait_route(prefixes(0)[0], addresses[0]).await;
    a.wait_route(prefixes(1)[0], addresses[1]).await;
    config_a.originate.clear();
    a.configure(config_a.clone()).await;
    b.wait("the withdraw", |known| known.kernel.is_empty()).await;
    assert_eq!(b.peer(addresses[0]).await.state, State::Established);
    config_a.peers.clear();
    a.configure(config_a).await;
    a.wait("the end of the session", |known| known.kernel.is_empty()).await;
    // Both have dialled: a Cease about the collision may have gone before.
    b.wait("the Hard Reset, Peer De-configured", |known| {
        known.events.iter().any(|event| match &event.kind {
            EventKind::Incident(incident) => {
                incident.kind == IncidentKind::NotificationReceived { code: 6, subcode: 9 }
            }
            _ => false,
        })
    })
    .await;
    let last_error = b.peer(addresses[0]).await.last_error.unwrap();
    assert_eq!((last_error.code, last_error.subcode), (Some(6), Some(9)), "{last_error:?}");
    assert_eq!(last_error.text, "Cease/Hard Reset: Cease/Peer De-configured");
}

#[tokio::test]
async fn the_next_hops_of_a_peer_that_dies_are_told_before_its_routes() {
    let addresses = [address(22, 0), address(22, 1)];
    let ([a, mut b], _, [mut config_a, _]) = pair(addresses, |_, _| {}).await;
    b.wait_route(prefixes(0)[0], addresses[0]).await;
    b.wait_route(prefixes(0)[1], v6(0).into()).await;
    assert_eq!(b.known().lost, []);
    config_a.peers.clear();
    a.configure(config_a).await;
    let known = b.wait("the end of the session", |known| known.kernel.is_empty()).await;
    assert_eq!(known.lost, [(addresses[0], 2), (v6(0).into(), 2)]);
}

/// Neither side reads less while it writes: two full tables cross each other.
/// Bug class 44 (RustyBGP): both sides write and neither reads.
#[tokio::test]
async fn a_hundred_thousand_routes_cross_both_ways_at_once() {
    let addresses = [address(3, 0), address(3, 1)];
    let bases = [Ipv4Addr::new(20, 0, 0, 0), Ipv4Addr::new(30, 0, 0, 0)];
    let ([mut a, mut b], ..) = pair(addresses, |n, config| originate(config, bases[n], 100_000, true)).await;
    a.wait("100,000 routes at a", |known| known.kernel.len() == 100_002).await;
    b.wait("100,000 routes at b", |known| known.kernel.len() == 100_002).await;
}

/// A peer that only writes, and reads nothing before it is through, against a speaker that has as much to say.
#[tokio::test]
async fn a_speaker_reads_on_while_its_peer_does_not() {
    let addresses = [address(4, 0), address(4, 1)];
    let (mut node, port) = Node::listen(1, addresses[0]).await;
    let socket = SocketAddr::new(addresses[0], port);
    let (_, remote) = towards(0, 1, SocketAddr::new(addresses[1], 1), addresses[0]);
    let remote = PeerConfig { passive: true, ..(*remote).clone() };
    let mut wanted = config(0, [(addresses[1], Arc::new(remote))]);
    originate(&mut wanted, Ipv4Addr::new(20, 0, 0, 0), 100_000, true);
    node.configure(wanted).await;

    let mut raw = RawPeer::establish(addresses[1], socket, AS[1], Ipv4Addr::new(10, 9, 9, 9)).await;
    let base = Ipv4Addr::new(30, 0, 0, 0).to_bits();
    for chunk in 0..100_u32 {
        let next_hop = Ipv4Addr::new(127, 18, 4, 2);
        for part in 0..2 {
            raw.send(&announce(AS[1], next_hop, base + chunk * 1000 + part * 500, 500)).await;
        }
    }
    node.wait("100,000 routes", |known| known.kernel.len() == 100_000).await;

    let mut told = 0;
    while told < 100_001 {
        let (kind, body) = raw.receive().await.expect("the session lives");
        match kind {
            UPDATE => told += usize::from(body.len() > 4),
            KEEPALIVE => {}
            _ => panic!("message {kind} after {told} UPDATEs: {body:?}"),
        }
    }
}

/// A peer that reads nothing costs what the sockets hold and a window, and nobody else anything.
/// Bug class 43 (RFC 9687): a peer that reads nothing costs the others nothing.
#[tokio::test]
async fn a_peer_that_does_not_read_grows_no_queue_and_stalls_nobody() {
    let [address_a, address_b, stuck] = [address(5, 0), address(5, 1), address(5, 2)];
    let (mut a, port_a) = Node::listen(1, address_a).await;
    let (mut b, port_b) = Node::listen(2, address_b).await;
    let [socket_a, socket_b] = [SocketAddr::new(address_a, port_a), SocketAddr::new(address_b, port_b)];
    let (_, passive) = towards(0, 2, SocketAddr::new(stuck, 1), address_a);
    let passive = Arc::new(PeerConfig { passive: true, ..(*passive).clone() });
    let mut wanted = config(0, [towards(0, 1, socket_b, address_a), (stuck, passive)]);
    a.configure(wanted.clone()).await;
    b.configure(config(1, [towards(1, 0, socket_a, address_b)])).await;
    b.wait_route(prefixes(0)[0], address_a).await;
    let mut raw = RawPeer::establish(stuck, socket_a, AS[2], Ipv4Addr::new(10, 9, 9, 9)).await;
    a.wait_established(stuck).await;

    let (base, routes, rounds) = (Ipv4Addr::new(20, 0, 0, 0), 10_000, 20_u32);
    for round in 1..=rounds {
        originate(&mut wanted, base, routes, true);
        for origination in wanted.originate.values_mut() {
            origination.communities.insert(weft_bgp::policy::Community::Standard(0xffff_0000 - round));
        }
        a.configure(wanted.clone()).await;
        let last = prefix(base, routes - 1);
        let community = 0xffff_0000 - round;
        loop {
            let told = move |speaker: &Speaker| {
                let routes = speaker.routes(RibView::Loc, RouteSelect::Exact(last));
                routes.iter().any(|r| r.paths.iter().any(|p| p.attributes.communities.contains(&community)))
            };
            if b.handle.inspect(told).await.unwrap() {
                break;
            }
        }
    }
    assert_eq!(a.peer(stuck).await.state, State::Established);

    // Of twenty rounds the stuck peer is told what the kernel's buffers (4 MiB by default) and a window held, and the last.
    let (mut told, mut settled) = (0, std::collections::BTreeSet::new());
    while settled.len() < routes as usize {
        let (kind, body) = raw.receive().await.expect("the session lives");
        if kind == UPDATE && body.len() > 4 {
            told += body.len();
            // Communities of the last round, and the prefix at the end.
            if body.windows(4).any(|w| w == (0xffff_0000 - rounds).to_be_bytes()) {
                settled.insert(body[body.len() - 4..].to_vec());
            }
        }
    }
    let churn = (routes * rounds) as usize * 60;
    assert!(told < churn * 2 / 3, "{told} octets of {churn} were kept for a peer that did not read");
}

/// RFC 9687: a peer that sends KEEPALIVEs and reads nothing would keep its routes for ever.
/// Proves RFC 9687.
#[tokio::test]
async fn rfc9687_a_peer_that_takes_nothing_loses_its_session_and_its_routes() {
    let [address_a, stuck] = [address(13, 0), address(13, 1)];
    let (mut node, port) = Node::listen(1, address_a).await;
    let (_, remote) = towards(0, 1, SocketAddr::new(stuck, 1), address_a);
    let mut remote = PeerConfig { passive: true, ..(*remote).clone() };
    (remote.timers.hold_time, remote.timers.send_hold_time) =
        (Duration::from_secs(3), Some(Duration::from_secs(4)));
    let mut wanted = config(0, [(stuck, Arc::new(remote))]);
    originate(&mut wanted, Ipv4Addr::new(20, 0, 0, 0), 100_000, true);
    node.configure(wanted).await;
    let mut raw =
        RawPeer::establish(stuck, SocketAddr::new(address_a, port), AS[1], Ipv4Addr::new(10, 9, 9, 9)).await;
    raw.send(&announce(AS[1], Ipv4Addr::new(127, 18, 13, 2), 0x1e00_0000, 10)).await;
    node.wait("the routes", |known| known.kernel.len() == 10).await;

    let (reader, mut writer) = raw.stream.into_split();
    let speaking = tokio::spawn(async move {
        while writer.write_all(&message(KEEPALIVE, &[])).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    });
    node.wait("the end of the routes", |known| known.kernel.is_empty()).await;
    node.wait("the NOTIFICATION, Send Hold Timer Expired", |known| {
        known.events.iter().any(|event| {
            matches!(&event.kind, EventKind::Incident(incident)
                if incident.kind == IncidentKind::NotificationSent { code: 8, subcode: 0 })
        })
    })
    .await;
    let status = node.peer(stuck).await;
    assert_eq!(status.counters.send_hold_timer_expired, 1);
    assert_eq!(status.last_error.and_then(|error| error.code), Some(8));
    // TCP is dropped too, though nothing can be flushed to such a peer.
    timeout(PATIENCE, speaking).await.expect("the speaker closes").unwrap();
    drop(reader);
}

#[tokio::test]
async fn stop_flushes_and_says_nothing() {
    let addresses = [address(6, 0), address(6, 1)];
    let (mut node, port) = Node::listen(1, addresses[0]).await;
    let (_, remote) = towards(0, 1, SocketAddr::new(addresses[1], 1), addresses[0]);
    let remote = Arc::new(PeerConfig { passive: true, ..(*remote).clone() });
    node.configure(config(0, [(addresses[1], remote)])).await;
    let socket = SocketAddr::new(addresses[0], port);
    let mut raw = RawPeer::establish(addresses[1], socket, AS[1], Ipv4Addr::new(10, 9, 9, 9)).await;
    raw.send(&announce(AS[1], Ipv4Addr::new(127, 18, 6, 2), 0x1e00_0000, 10)).await;
    node.wait("the routes", |known| known.kernel.len() == 10).await;

    let stopping = tokio::spawn({
        let handle = node.handle.clone();
        async move { handle.stop().await }
    });
    let mut kinds = Vec::new();
    while let Some((kind, _)) = raw.receive().await {
        kinds.push(kind);
    }
    assert!(kinds.contains(&UPDATE) && !kinds.contains(&NOTIFICATION), "{kinds:?}");
    drop(raw);
    timeout(PATIENCE, stopping).await.expect("the stop").unwrap();
    assert_eq!(node.known().kernel.len(), 10, "the kernel's routes stay");
    assert_eq!(node.handle.inspect(|_| ()).await, Err(Stopped));
    assert_eq!(node.handle.send(Command::Reset { peer: addresses[1].into() }).await, Err(Stopped));
    std::net::TcpStream::connect(socket).expect_err("nobody listens");
}

#[tokio::test]
async fn a_speaker_that_nobody_holds_stops() {
    let addresses = [address(11, 0), address(11, 1)];
    let (node, port) = Node::listen(1, addresses[0]).await;
    let (_, remote) = towards(0, 1, SocketAddr::new(addresses[1], 1), addresses[0]);
    let remote = Arc::new(PeerConfig { passive: true, ..(*remote).clone() });
    node.configure(config(0, [(addresses[1], remote)])).await;
    let socket = SocketAddr::new(addresses[0], port);
    let mut raw = RawPeer::establish(addresses[1], socket, AS[1], Ipv4Addr::new(10, 9, 9, 9)).await;
    drop(node);
    while let Some((kind, body)) = raw.receive().await {
        assert_ne!(kind, NOTIFICATION, "{body:?}");
    }
}

/// A daemon that is busy with something else: sessions come up and exchange routes, and it hears the last state later.
#[tokio::test]
async fn a_daemon_that_takes_no_notices_holds_up_nothing() {
    let addresses = [address(12, 0), address(12, 1)];
    let (notices, mut untaken) = tokio::sync::mpsc::channel(1);
    let start = SpeakerStart { seed: 1, ..<_>::default() };
    let handle = Transport::start(start, [].into(), notices).unwrap();
    let (b, port) = Node::listen(2, addresses[1]).await;
    let mut wanted = config(1, [towards(1, 0, SocketAddr::new(addresses[0], 1), addresses[1])]);
    Arc::make_mut(wanted.peers.get_mut(&addresses[0].into()).unwrap()).passive = true;
    let peers = [towards(0, 1, SocketAddr::new(addresses[1], port), addresses[0])];
    handle.send(Command::Configure(Arc::new(config(0, peers)))).await.unwrap();
    for round in 0..5 {
        originate(&mut wanted, Ipv4Addr::new(20, 0, 0, 0), 1000 * (round + 1), true);
        b.configure(wanted.clone()).await;
        let all = move |speaker: &Speaker| {
            let families = speaker.peers().remove(0).families;
            families.iter().map(|f| f.accepted).sum::<usize>() == 1000 * (round as usize + 1) + 2
        };
        timeout(PATIENCE, async { while !handle.inspect(all).await.unwrap() {} }).await.expect("the routes");
    }
    let mut kernel = std::collections::BTreeMap::new();
    timeout(PATIENCE, async {
        while kernel.len() < 5002 {
            if let Notice::BestPaths(changes) = untaken.recv().await.unwrap() {
                for change in changes {
                    assert!(kernel.insert(change.prefix, change.next_hops).is_none(), "told once");
                }
            }
        }
    })
    .await
    .expect("every best path");
}

/// What garbage there is: random bytes, truncated and wrong OPENs, nothing at all.
fn garbage(n: usize) -> Vec<u8> {
    let good = open(AS[1], Ipv4Addr::new(10, 9, 9, 9));
    let with = |offset: usize, value: u8| {
        let mut bad = good.clone();
        bad[offset] = value;
        bad
    };
    match n % 6 {
        0 => (0..200).map(|i| u8::try_from((i * 7 + n * 13) % 251).unwrap()).collect(),
        1 => good[..good.len() - 5].to_vec(),
        2 => with(19, 3),
        3 => open(64999, Ipv4Addr::new(10, 9, 9, 9)),
        4 => with(22, 0).into_iter().enumerate().map(|(i, b)| if i == 23 { 1 } else { b }).collect(),
        _ => message(KEEPALIVE, &[]),
    }
}

#[tokio::test]
async fn a_thousand_garbage_connections_disturb_no_session() {
    let addresses = [address(7, 0), address(7, 1)];
    let stranger = address(7, 99);
    let ([mut a, mut b], sockets, _) = pair(addresses, |_, _| {}).await;
    a.wait_route(prefixes(1)[0], addresses[1]).await;
    b.wait_route(prefixes(0)[0], addresses[0]).await;
    let before = a.wait_established(addresses[1]).await;

    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..1000 {
        let from = if n % 2 == 0 { addresses[1] } else { stranger };
        let to = sockets[0];
        tasks.spawn(async move {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind(SocketAddr::new(from, 0)).unwrap();
            let mut stream = socket.connect(to).await.expect("the listener lives");
            // The speaker may close before it has heard all, or anything.
            let _ = stream.write_all(&garbage(n)).await;
            let _ = stream.shutdown().await;
            let mut answer = Vec::new();
            let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("every one is closed");
        });
        if tasks.len() >= 100 {
            tasks.join_next().await.unwrap().unwrap();
        }
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }

    let after = a.peer(addresses[1]).await;
    assert_eq!((after.state, after.since), (State::Established, before.since));
    assert_eq!(after.counters.flaps, 0);
    let counters = a.handle.inspect(|speaker| speaker.counters()).await.unwrap();
    assert!(counters.unknown_peer > 0 && counters.unknown_peer + counters.too_many >= 500, "{counters:?}");
    let events = a.known().events;
    let refused = events.iter().filter(|event| matches!(event.kind, EventKind::Refused { .. })).count();
    assert!((1..10).contains(&refused), "{refused} events tell of 500 refused connections");
    assert!(
        events.iter().any(|e| e.peer == addresses[1].into() && matches!(e.kind, EventKind::Incident(_))),
        "garbage from a peer's address shows at that peer"
    );
    // And the session still works.
    let mut changed = config(1, [towards(1, 0, sockets[0], addresses[1])]);
    changed.originate.clear();
    b.configure(changed).await;
    a.wait("the withdraw", |known| known.kernel.is_empty()).await;
}

#[tokio::test]
async fn a_port_in_use_is_told_and_taken_when_free() {
    let occupied = TcpListener::bind((address(8, 0), 0)).unwrap();
    let socket = occupied.local_addr().unwrap();
    let mut node = Node::start(1, &[socket]);
    let known = node.wait("the error", |known| known.listeners.contains_key(&socket)).await;
    let error = known.listeners[&socket].as_ref().unwrap_err();
    assert!(error.contains("in use"), "{error}");
    drop(occupied);
    node.wait("the listener", |known| known.listeners[&socket] == Ok(socket)).await;
}

#[tokio::test]
async fn listeners_come_and_go_and_sessions_stay() {
    let addresses = [address(9, 0), address(9, 1)];
    let ([mut a, mut b], sockets, _) = pair(addresses, |_, _| {}).await;
    a.wait_route(prefixes(1)[0], addresses[1]).await;
    b.wait_route(prefixes(0)[0], addresses[0]).await;
    let since = a.peer(addresses[1]).await.since;
    let other = SocketAddr::new(address(9, 5), 0);
    a.handle.send(Command::Listen([other].into())).await.unwrap();
    let known = a.wait("the new listener", |known| matches!(known.listeners.get(&other), Some(Ok(_)))).await;
    let bound = *known.listeners[&other].as_ref().unwrap();
    timeout(PATIENCE, tokio::net::TcpStream::connect(bound)).await.unwrap().unwrap();
    // The task of the old one is cancelled when it is next looked at.
    timeout(PATIENCE, async { while tokio::net::TcpStream::connect(sockets[0]).await.is_ok() {} })
        .await
        .unwrap();
    assert_eq!(a.peer(addresses[1]).await.since, since);
}

#[tokio::test]
async fn routes_wait_for_their_next_hops() {
    let addresses = [address(10, 0), address(10, 1)];
    let ([mut a, _b], ..) = pair(addresses, |n, config| config.next_hop_tracking = n == 0).await;
    a.wait_established(addresses[1]).await;
    let [p4, _] = prefixes(1);
    timeout(PATIENCE, async {
        let received = move |speaker: &Speaker| {
            let routes = speaker.routes(RibView::Loc, RouteSelect::Exact(p4));
            routes.iter().any(|r| !r.paths.is_empty())
        };
        while !a.handle.inspect(received).await.unwrap() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the route");
    let known = a.known();
    assert!(known.kernel.is_empty() && known.converged == 0, "not before the kernel was asked: {known:?}");
    for next_hop in [addresses[1], v6(1).into()] {
        let tracked =
            weft_bgp::speaker::TrackedNextHop { address: next_hop, default_route: false, link: None };
        a.handle.send(transport_support::on_link(tracked)).await.unwrap();
    }
    a.wait_route(p4, addresses[1]).await;
    a.wait("convergence", |known| known.converged == 1).await;
}
