//! What keeps others from passing for a peer, on real sockets: TCP-MD5 (RFC 2385), TCP-AO (RFC 5925) and GTSM (RFC 5082).

#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::unwrap_used, reason = "a test")]

mod sim_support;
mod transport_support;

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU8;
use std::sync::Arc;
use std::time::Duration;

use sim_support::{peer, prefixes, speaker, v4};
use socket2::SockRef;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use transport_support::{Node, PATIENCE, RawPeer, announce, prefix};
use weft_bgp::config::{PeerConfig, RangeConfig, RemoteAs, SpeakerConfig};
use weft_bgp::protection::ao::{Algorithm, Key, KeyChain, NO_TCP_AO};
use weft_bgp::protection::{Authentication, Password, Signature};
use weft_bgp::session::State;
use weft_bgp::speaker::EventKind;
use weft_bgp::transport::{AoInUse, has_tcp_ao};

const AS: [u32; 2] = [65001, 65002];

/// As long as it takes for what must not come.
const SILENCE: Duration = Duration::from_millis(1500);

/// Every test has loopback addresses of its own, as others run at the same time.
fn address(test: u8, n: u8) -> IpAddr {
    Ipv4Addr::new(127, 19, test, n + 1).into()
}

fn md5(password: &str) -> Authentication {
    Authentication::Signed(Signature::Md5(Password::new(password.as_bytes()).unwrap()))
}

/// Keys by what we send, what we receive, and their secret.
fn ao(keys: &[(u8, u8, &str)]) -> Authentication {
    let key = |(send_id, receive_id, secret): &(u8, u8, &str)| {
        let algorithm =
            if send_id.max(receive_id) % 2 == 0 { Algorithm::AesCmac } else { Algorithm::HmacSha1 };
        let secret = Password::new(secret.as_bytes()).unwrap();
        Key { send_id: *send_id, receive_id: *receive_id, algorithm, secret }
    };
    Authentication::Signed(Signature::Ao(KeyChain::new(keys.iter().map(key).collect()).unwrap()))
}

/// Speaker `n` with one peer, at `remote`.
fn config(
    n: usize,
    remote: SocketAddr,
    source: IpAddr,
    change: impl FnOnce(&mut PeerConfig),
) -> SpeakerConfig {
    let mut config =
        PeerConfig { port: remote.port(), source_address: Some(source), ..peer(n, AS[n], AS[1 - n]) };
    config.timers.connect_retry = Duration::from_secs(1);
    change(&mut config);
    SpeakerConfig {
        peers: [(remote.ip().into(), Arc::new(config))].into_iter().collect(),
        ..speaker(n, AS[n])
    }
}

async fn two(test: u8) -> ([Node; 2], [SocketAddr; 2]) {
    let [a, b] = [address(test, 0), address(test, 1)];
    let (node_a, port_a) = Node::listen(1, a).await;
    let (node_b, port_b) = Node::listen(2, b).await;
    ([node_a, node_b], [SocketAddr::new(a, port_a), SocketAddr::new(b, port_b)])
}

/// A node whose one peer, `address(test, 1)`, only connects.
async fn passive(test: u8, change: impl FnOnce(&mut PeerConfig)) -> (Node, SocketAddr, IpAddr) {
    let (node, port) = Node::listen(1, address(test, 0)).await;
    let (local, remote) = (SocketAddr::new(address(test, 0), port), address(test, 1));
    let config = config(0, SocketAddr::new(remote, 179), local.ip(), |peer| {
        peer.passive = true;
        change(peer);
    });
    node.configure(config).await;
    (node, local, remote)
}

async fn connect(from: IpAddr, to: SocketAddr, ttl: u32) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    SockRef::from(&socket).set_ttl_v4(ttl)?;
    socket.bind(SocketAddr::new(from, 0))?;
    socket.connect(to).await
}

#[tokio::test]
async fn tcp_md5_sessions_come_up_with_one_password_whoever_dials() {
    for (test, dialler) in [(1, 0), (2, 1)] {
        let ([mut a, mut b], sockets) = two(test).await;
        let passive = |n| {
            move |peer: &mut PeerConfig| {
                peer.authentication = md5("one password");
                peer.passive = n != dialler;
            }
        };
        a.configure(config(0, sockets[1], sockets[0].ip(), passive(0))).await;
        b.configure(config(1, sockets[0], sockets[1].ip(), passive(1))).await;
        a.wait_route(prefixes(1)[0], sockets[1].ip()).await;
        b.wait_route(prefixes(0)[0], sockets[0].ip()).await;
    }
}

#[tokio::test]
async fn tcp_md5_sessions_stay_down_with_two_passwords_and_come_up_once_they_are_one() {
    let ([a, mut b], sockets) = two(3).await;
    let with = |n: usize, password| {
        config(n, sockets[1 - n], sockets[n].ip(), |peer| peer.authentication = password)
    };
    a.configure(with(0, md5("this"))).await;
    b.configure(with(1, md5("that"))).await;
    tokio::time::sleep(SILENCE).await;
    for (node, other) in [(&a, 1), (&b, 0)] {
        let state = node.peer(sockets[other].ip()).await.state;
        assert!(matches!(state, State::Connect | State::Active), "{state}");
    }
    a.configure(with(0, md5("that"))).await;
    b.wait_route(prefixes(0)[0], sockets[0].ip()).await;
    // A change of the password is a restart: what was told stays until the session is back.
    b.configure(with(1, md5("other"))).await;
    let status = b.peer(sockets[0].ip()).await;
    assert!(status.session.is_none() && status.stale_until.is_some(), "{status:?}");
    a.configure(with(0, md5("other"))).await;
    b.wait_established(sockets[0].ip()).await;
    assert!(b.known().kernel.contains_key(&prefixes(0)[0]));
    // And so is its end.
    a.configure(with(0, Authentication::None)).await;
    b.configure(with(1, Authentication::None)).await;
    b.wait_established(sockets[0].ip()).await;
}

/// Waits until unsigned SYNs are answered no more: the listener has the key a moment after it is configured. Whoever comes before is closed
/// and told nothing.
async fn wait_unanswered(from: IpAddr, to: SocketAddr) {
    timeout(PATIENCE, async {
        while let Ok(answer) = timeout(SILENCE, connect(from, to, 64)).await {
            if let Ok(mut early) = answer {
                assert_eq!(early.read(&mut [0; 64]).await.unwrap_or(0), 0, "something is said to it");
            }
        }
    })
    .await
    .expect("an unsigned SYN that is not answered");
}

#[tokio::test]
async fn tcp_md5_an_unsigned_connection_of_a_peer_with_a_password_gets_nowhere() {
    let (node, local, remote) = passive(4, |peer| peer.authentication = md5("secret")).await;
    wait_unanswered(remote, local).await;
    assert_eq!(node.peer(remote).await.state, State::Active);
}

#[tokio::test]
async fn tcp_md5_a_password_that_is_not_to_be_had_keeps_that_session_down_and_says_so() {
    let why = "Secret/tor is not there";
    let unavailable = |peer: &mut PeerConfig| peer.authentication = Authentication::Unavailable(why.into());
    let (node, local, remote) = passive(5, unavailable).await;
    let mut stream = connect(remote, local, 64).await.unwrap();
    let read = timeout(PATIENCE, stream.read(&mut [0; 64])).await.expect("the end").unwrap_or(0);
    assert_eq!(read, 0, "something is said to it");
    let status = node.peer(remote).await;
    assert_eq!((status.state, status.counters.connections_refused), (State::Idle, 1));
    assert_eq!(status.last_error.unwrap().text, why);
}

/// A node with these peers, and a range that is signed like this.
async fn ranged(
    test: u8,
    peers: impl IntoIterator<Item = (IpAddr, Authentication)>,
    (range, how): (ipnet::IpNet, Authentication),
) -> (Node, SocketAddr) {
    let (node, port) = Node::listen(1, address(test, 0)).await;
    let any = PeerConfig { passive: true, remote_as: RemoteAs::External, ..peer(0, AS[0], AS[1]) };
    let with = |authentication| Arc::new(PeerConfig { authentication, ..any.clone() });
    let all = RangeConfig { limit: 10, peer: with(how) };
    node.configure(SpeakerConfig {
        peers: peers.into_iter().map(|(address, how)| (address.into(), with(how))).collect(),
        ranges: [(range, Arc::new(all))].into(),
        ..speaker(0, AS[0])
    })
    .await;
    (node, SocketAddr::new(address(test, 0), port))
}

fn prefix_of(test: u8) -> ipnet::IpNet {
    ipnet::IpNet::new(address(test, 0), 24).unwrap().trunc()
}

/// A speaker at `address(test, n)` that dials with this password.
async fn dialler(test: u8, n: u8, to: SocketAddr, authentication: Authentication) -> Node {
    let node = Node::start(u64::from(n) + 10, &[]);
    let change = |peer: &mut PeerConfig| peer.authentication = authentication;
    let mut config = config(1, to, address(test, n), change);
    config.router_id = v4(usize::from(n));
    node.configure(config).await;
    node
}

#[tokio::test]
async fn tcp_md5_a_range_has_a_key_and_those_who_are_named_have_their_own_or_none() {
    let peers = [(address(9, 2), md5("of the peer")), (address(9, 3), Authentication::None)];
    let (mut node, local) = ranged(9, peers, (prefix_of(9), md5("of the range"))).await;
    let mut diallers = Vec::new();
    for (n, how) in [(1, md5("of the range")), (2, md5("of the peer")), (3, Authentication::None)] {
        diallers.push(dialler(9, n, local, how).await);
        node.wait_established(address(9, n)).await;
    }
    for (n, how) in [(4, Authentication::None), (5, md5("of the peer"))] {
        diallers.push(dialler(9, n, local, how).await);
    }
    tokio::time::sleep(SILENCE).await;
    let peers = node.handle.inspect(|speaker| speaker.peers()).await.unwrap();
    let dynamic: Vec<_> = peers.iter().map(|peer| (peer.address, peer.range)).collect();
    let expected = [(1, Some(prefix_of(9))), (2, None), (3, None)];
    assert_eq!(dynamic, expected.map(|(n, range)| (address(9, n).into(), range)));
}

#[tokio::test]
async fn tcp_md5_a_key_that_the_kernel_does_not_take_keeps_the_range_out_and_nobody_else() {
    // Each unsigned peer splits the range's key into some twenty: more than there is room for, before it comes to our addresses.
    let room: u32 = std::fs::read_to_string("/proc/sys/net/core/optmem_max").unwrap().trim().parse().unwrap();
    let count = room.div_ceil(1000);
    let unsigned = (1..count).map(|n| IpAddr::from(Ipv4Addr::from(0x0100_0001 + n * (0x7000_0000 / count))));
    let unsigned = unsigned.chain([address(10, 1)]).map(|address| (address, Authentication::None));
    let everybody = "0.0.0.0/0".parse().unwrap();
    let (mut node, local) = ranged(10, unsigned, (everybody, md5("of the range"))).await;
    let refused = node
        .wait("the kernel to refuse a key", |known| {
            known.events.iter().any(|e| matches!(e.kind, EventKind::RangeRefused { .. }))
        })
        .await;
    let text = format!("{:?}", refused.events);
    assert!(text.contains("net.core.optmem_max"), "{text}");
    let _named = dialler(10, 1, local, Authentication::None).await;
    node.wait_established(address(10, 1)).await;
    let _of_the_range = dialler(10, 254, local, md5("of the range")).await;
    tokio::time::sleep(SILENCE).await;
    assert!(node.handle.inspect(|s| s.peers().iter().all(|p| p.range.is_none())).await.unwrap());
}

/// Whether a test cannot run here, of which the reason is said whether or not output is captured.
fn is_without_tcp_ao() -> bool {
    let is_without = !has_tcp_ao();
    if is_without {
        let name = std::thread::current().name().unwrap_or_default().to_owned();
        let _ = writeln!(std::io::stderr(), "skipped: {name}: {NO_TCP_AO}");
    }
    is_without
}

/// A security option that cannot be had ends the session, at either end.
#[tokio::test]
async fn tcp_ao_on_a_kernel_without_it_is_refused_in_clear_words() {
    if has_tcp_ao() {
        let _ = writeln!(std::io::stderr(), "skipped: a kernel without TCP-AO: this one has it");
        return;
    }
    let ([mut a, b], sockets) = two(20).await;
    let with = |n: usize| {
        config(n, sockets[1 - n], sockets[n].ip(), |peer| peer.authentication = ao(&[(1, 1, "secret")]))
    };
    a.configure(with(0)).await;
    b.configure(with(1)).await;
    let mentions = |event: &weft_bgp::speaker::Event, what: &str| matches!(&event.kind, EventKind::Incident(i) if i.reason.text.contains(what) && i.reason.text.contains(NO_TCP_AO));
    a.wait("both ways to be refused", |known| {
        let is_told = |what: &str| known.events.iter().any(|event| mentions(event, what));
        is_told("cannot connect") && is_told("a connection was refused")
    })
    .await;
    for (node, other) in [(&a, 1), (&b, 0)] {
        let peer = node.peer(sockets[other].ip()).await;
        assert!(matches!(peer.state, State::Connect | State::Active | State::Idle), "{}", peer.state);
        assert_eq!(peer.established_at, None);
    }
}

/// Proves RFC 5925, RFC 5926.
#[tokio::test]
async fn tcp_ao_sessions_come_up_with_the_same_keys_whoever_dials() {
    if is_without_tcp_ao() {
        return;
    }
    for (test, dialler, keys) in [
        (21, 0, [ao(&[(1, 1, "odd: HMAC-SHA-1-96")]), ao(&[(1, 1, "odd: HMAC-SHA-1-96")])]),
        (22, 1, [ao(&[(2, 4, "even: AES-128-CMAC-96")]), ao(&[(4, 2, "even: AES-128-CMAC-96")])]),
        (23, 0, [ao(&[(1, 2, "x"), (3, 4, "y")]), ao(&[(4, 3, "y"), (2, 1, "x")])]),
    ] {
        let ([mut a, mut b], sockets) = two(test).await;
        let with = |n: usize| {
            config(n, sockets[1 - n], sockets[n].ip(), |peer| {
                peer.authentication = keys[n].clone();
                peer.passive = n != dialler;
            })
        };
        a.configure(with(0)).await;
        b.configure(with(1)).await;
        a.wait_route(prefixes(1)[0], sockets[1].ip()).await;
        b.wait_route(prefixes(0)[0], sockets[0].ip()).await;
    }
}

/// Proves RFC 5925.
#[tokio::test]
async fn tcp_ao_sessions_stay_down_with_other_keys_and_come_up_once_they_are_the_same() {
    if is_without_tcp_ao() {
        return;
    }
    let (tests, secret) = (24.., ao(&[(1, 1, "secret")]));
    let others = [ao(&[(1, 1, "another")]), ao(&[(3, 3, "secret")]), md5("secret"), Authentication::None];
    for (test, other) in tests.zip(others) {
        let ([a, mut b], sockets) = two(test).await;
        let with = |n: usize, how: &Authentication| {
            config(n, sockets[1 - n], sockets[n].ip(), |peer| peer.authentication = how.clone())
        };
        a.configure(with(0, &secret)).await;
        b.configure(with(1, &other)).await;
        tokio::time::sleep(SILENCE).await;
        assert_ne!(a.peer(sockets[1].ip()).await.state, State::Established, "{other:?}");
        b.configure(with(1, &secret)).await;
        b.wait_route(prefixes(0)[0], sockets[0].ip()).await;
    }
}

/// The keys in use of the one session that a node has.
async fn in_use(node: &Node) -> Option<(u8, u8)> {
    let keys = node.handle.ao_keys().await.unwrap();
    keys.values().next().map(|AoInUse { current, rnext, .. }| (*current, *rnext))
}

/// Proves RFC 5925.
#[tokio::test]
async fn tcp_ao_keys_are_rolled_over_while_the_session_lasts() {
    if is_without_tcp_ao() {
        return;
    }
    let ([mut a, mut b], sockets) = two(30).await;
    let with = |n: usize, keys: &[(u8, u8, &str)]| {
        config(n, sockets[1 - n], sockets[n].ip(), |peer| {
            peer.authentication = ao(keys);
            peer.timers.hold_time = Duration::from_secs(3);
            peer.passive = n == 1;
        })
    };
    let (old, new, newest) = ((1, 1, "old"), (2, 2, "new"), (1, 3, "newest"));
    // What the other end has of the key with two IDs.
    let mirrored = (3, 1, "newest");
    a.configure(with(0, &[old])).await;
    b.configure(with(1, &[old])).await;
    let since = a.wait_established(sockets[1].ip()).await.established_at;
    b.wait_established(sockets[0].ip()).await;
    assert_eq!((in_use(&a).await, in_use(&b).await), (Some((1, 1)), Some((1, 1))));
    // Each step at one end first, and long enough for what is signed wrongly to end the session.
    type Step<'a> = (usize, &'a [(u8, u8, &'a str)], (u8, u8), (u8, u8));
    let steps: [Step<'_>; 8] = [
        (0, &[new, old], (1, 2), (1, 1)),
        (1, &[old, new], (1, 2), (2, 1)),
        (1, &[new, old], (2, 2), (2, 2)),
        (0, &[new], (2, 2), (2, 2)),
        (1, &[new], (2, 2), (2, 2)),
        (0, &[newest, new], (2, 3), (2, 2)),
        (1, &[mirrored, new], (1, 3), (3, 1)),
        (0, &[newest], (1, 3), (3, 1)),
    ];
    for (index, (n, keys, at_a, at_b)) in steps.into_iter().enumerate() {
        let node = if n == 0 { &a } else { &b };
        node.configure(with(n, keys)).await;
        let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
        loop {
            let now = (in_use(&a).await, in_use(&b).await);
            if now == (Some(at_a), Some(at_b)) {
                break;
            }
            assert!(tokio::time::Instant::now() < deadline, "step {index}: {now:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(a.peer(sockets[1].ip()).await.established_at, since);
    assert_eq!(a.peer(sockets[1].ip()).await.counters.flaps, 0);
    // With no key that stays it is a restart.
    b.configure(with(1, &[(7, 7, "another")])).await;
    a.configure(with(0, &[(7, 7, "another")])).await;
    a.wait("a session with other keys", |known| known.kernel.contains_key(&prefixes(1)[0])).await;
    let patience = tokio::time::Instant::now() + PATIENCE;
    while in_use(&a).await != Some((7, 7)) {
        assert!(tokio::time::Instant::now() < patience, "no session with the new keys");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Proves RFC 5925.
#[tokio::test]
async fn tcp_ao_an_unsigned_connection_of_a_peer_with_keys_gets_nowhere() {
    if is_without_tcp_ao() {
        return;
    }
    let (node, local, remote) = passive(31, |peer| peer.authentication = ao(&[(1, 1, "secret")])).await;
    wait_unanswered(remote, local).await;
    assert_eq!(node.peer(remote).await.state, State::Active);
}

/// Proves RFC 5925.
#[tokio::test]
async fn tcp_ao_a_range_has_keys_and_those_who_are_named_have_their_own_or_others_or_none() {
    if is_without_tcp_ao() {
        return;
    }
    let of_the_peer = ao(&[(1, 1, "of the peer")]);
    let peers = [
        (address(32, 2), of_the_peer.clone()),
        (address(32, 3), Authentication::None),
        (address(32, 4), md5("of the peer")),
    ];
    let of_the_range = ao(&[(1, 1, "of the range"), (2, 2, "the next")]);
    let (mut node, local) = ranged(32, peers, (prefix_of(32), of_the_range.clone())).await;
    let mut diallers = Vec::new();
    for (n, how) in
        [(1, of_the_range), (2, of_the_peer.clone()), (3, Authentication::None), (4, md5("of the peer"))]
    {
        diallers.push(dialler(32, n, local, how).await);
        node.wait_established(address(32, n)).await;
    }
    for (n, how) in [(5, Authentication::None), (6, of_the_peer), (7, md5("of the range"))] {
        diallers.push(dialler(32, n, local, how).await);
    }
    tokio::time::sleep(SILENCE).await;
    let peers = node.handle.inspect(|speaker| speaker.peers()).await.unwrap();
    let dynamic: Vec<_> = peers.iter().map(|peer| (peer.address, peer.range)).collect();
    let expected = [(1, Some(prefix_of(32))), (2, None), (3, None), (4, None)];
    assert_eq!(dynamic, expected.map(|(n, range)| (address(32, n).into(), range)));
}

#[tokio::test]
async fn gtsm_sessions_come_up_between_neighbours() {
    let ([mut a, mut b], sockets) = two(6).await;
    let hops = |peer: &mut PeerConfig| peer.ttl_security = NonZeroU8::new(1);
    a.configure(config(0, sockets[1], sockets[0].ip(), hops)).await;
    b.configure(config(1, sockets[0], sockets[1].ip(), hops)).await;
    a.wait_route(prefixes(1)[0], sockets[1].ip()).await;
    b.wait_route(prefixes(0)[0], sockets[0].ip()).await;
}

#[tokio::test]
async fn gtsm_a_connection_from_farther_away_is_closed_before_anything_is_believed() {
    let (mut node, local, remote) = passive(7, |peer| peer.ttl_security = NonZeroU8::new(2)).await;
    for ttl in [64, 253] {
        let mut stream = connect(remote, local, ttl).await.unwrap();
        let read = timeout(PATIENCE, stream.read(&mut [0; 64])).await.expect("the end").unwrap_or(0);
        assert_eq!(read, 0, "something is said to it");
        let error = node.peer(remote).await.last_error.unwrap();
        assert!(error.text.contains(&format!("TTL of {ttl}")), "{error:?}");
    }
    let near = connect(remote, local, 254).await.unwrap();
    let _near = RawPeer::speak(near, AS[1], v4(1)).await;
    node.wait_established(remote).await;
}

#[tokio::test]
async fn gtsm_what_comes_with_a_lower_ttl_is_not_believed() {
    let (mut node, local, remote) = passive(8, |peer| peer.ttl_security = NonZeroU8::new(1)).await;
    let mut raw = RawPeer::speak(connect(remote, local, 255).await.unwrap(), AS[1], v4(1)).await;
    node.wait_established(remote).await;
    let base = Ipv4Addr::new(20, 0, 0, 0);
    SockRef::from(&raw.stream).set_ttl_v4(254).unwrap();
    raw.send(&announce(AS[1], v4(1), base.to_bits(), 1)).await;
    tokio::time::sleep(SILENCE).await;
    assert_eq!(node.peer(remote).await.families[0].received, 0);
    // TCP sends again what nobody took.
    SockRef::from(&raw.stream).set_ttl_v4(255).unwrap();
    node.wait_route(prefix(base, 0), v4(1).into()).await;
}
