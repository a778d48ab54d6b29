//! Two connections at once (RFC 4271 section 6.8, RFC 6286 section 2.3).

use std::net::Ipv4Addr;
use std::time::Duration;

use weft_bgp::ingress::IngressOutput;
use weft_bgp::session::State;
use weft_bgp::types::ConnectionId;
use weft_bgp::wire::Message;
use weft_bgp::wire::error::ErrorCode;
use weft_bgp::wire::open::Open;

use crate::pair::{ID_A, ID_B, Pair, Side, peer_config};
use crate::solo::{Solo, open, open_with_id};

/// Both dial at the same time; who opened the connection that is left?
fn opener(id_a: Ipv4Addr, id_b: Ipv4Addr, as_a: u32, as_b: u32) -> Side {
    let mut pair = Pair::with_ids(id_a, id_b);
    pair.configure(Side::A, peer_config(as_a, as_b));
    pair.configure(Side::B, peer_config(as_b, as_a));
    pair.run_until_established();
    pair.run_for(Duration::from_secs(300));
    assert!(pair.both(State::Established), "it lasts");
    for side in [Side::A, Side::B] {
        assert_eq!(pair.end(side).ingress.counters().flaps, 0, "it came up once");
    }
    match (pair.session(Side::A).connection, pair.session(Side::B).connection) {
        (ConnectionId::Dialled(_), ConnectionId::Accepted(_)) => Side::A,
        (ConnectionId::Accepted(_), ConnectionId::Dialled(_)) => Side::B,
        other => panic!("the ends have different connections: {other:?}"),
    }
}

/// Proves RFC 4271 6.8.
#[test]
fn the_higher_identifier_keeps_the_connection_it_opened() {
    assert_eq!(opener(ID_A, ID_B, 65001, 65002), Side::B);
    assert_eq!(opener(ID_B, ID_A, 65001, 65002), Side::A);
    assert_eq!(opener(Ipv4Addr::new(200, 0, 0, 1), Ipv4Addr::new(100, 0, 0, 1), 65001, 65001), Side::A);
}

/// Proves RFC 6286 2.3.
#[test]
fn of_equal_identifiers_the_higher_as_keeps_the_connection_it_opened() {
    assert_eq!(opener(ID_A, ID_A, 65001, 65002), Side::B);
    assert_eq!(opener(ID_A, ID_A, 4_200_000_000, 65002), Side::A);
}

/// Bug class 47 (27064f7f8b, FRR; ADR-21, rustbgpd; f20d5198, GoBGP): a collision that ends both connections.
/// Proves RFC 4271 6.8.
#[test]
fn every_timing_of_two_dials_leads_to_one_session() {
    for latency in [1, 10, 100, 900] {
        for delay in (0..=4 * latency).step_by(usize::try_from(latency / 2 + 1).expect("small")) {
            for restart in [true, false] {
                let mut pair = Pair::new();
                pair.latency = Duration::from_millis(latency);
                let mut configs = [peer_config(65001, 65002), peer_config(65002, 65001)];
                if !restart {
                    configs.iter_mut().for_each(|config| config.graceful_restart = None);
                }
                let [a, b] = configs;
                pair.configure(Side::A, a);
                pair.run_for(Duration::from_millis(delay));
                pair.configure(Side::B, b);
                pair.run_until_established();
                pair.run_for(Duration::from_secs(120));
                assert!(pair.both(State::Established), "latency {latency} ms, delay {delay} ms");
                let (a, b) = (pair.session(Side::A), pair.session(Side::B));
                assert_ne!(
                    matches!(a.connection, ConnectionId::Dialled(_)),
                    matches!(b.connection, ConnectionId::Dialled(_)),
                    "both ends have the same connection"
                );
            }
        }
    }
}

/// Both connections are up and wait for the peer's OPEN.
fn crossed() -> (Solo, ConnectionId, ConnectionId) {
    let mut solo = Solo::new(peer_config(65001, 65002));
    let dialled = solo.connect();
    let accepted = solo.accept();
    (solo, dialled, accepted)
}

/// Proves RFC 4271 6.8, RFC 4486 4.
#[test]
fn the_loser_gets_a_cease_whichever_open_comes_first() {
    for (identifier, keeps_dialled) in [(ID_B, false), (Ipv4Addr::new(1, 1, 1, 1), true)] {
        for dialled_first in [true, false] {
            let (mut solo, dialled, accepted) = crossed();
            let order = if dialled_first { [dialled, accepted] } else { [accepted, dialled] };
            for connection in order {
                solo.send(connection, &Message::Open(open_with_id(identifier)));
            }
            let (kept, lost) = if keeps_dialled { (dialled, accepted) } else { (accepted, dialled) };
            assert_eq!(solo.notification(lost).code, ErrorCode::CONNECTION_COLLISION_RESOLUTION);
            assert!(!solo.is_closed(kept));
            solo.send(kept, &Message::Keepalive);
            let session = solo.ingress.session().expect("Established");
            assert_eq!(session.connection, kept);
        }
    }
}

#[test]
fn an_open_that_is_not_confirmed_by_the_other_connection_changes_nothing() {
    let (mut solo, dialled, accepted) = crossed();
    solo.send(dialled, &Message::Open(open()));
    assert_eq!(solo.ingress.state(), State::OpenConfirm);
    assert!(!solo.is_closed(accepted), "its identifier is not known yet");
    solo.close(accepted);
    solo.send(dialled, &Message::Keepalive);
    assert_eq!(solo.ingress.state(), State::Established);
}

#[test]
fn an_established_session_without_graceful_restart_beats_every_newcomer() {
    let (mut solo, established) = Solo::established(peer_config(65001, 65002), open());
    for _ in 0..3 {
        solo.run_for(Duration::from_secs(10));
        solo.send(established, &Message::Keepalive);
        let newcomer = solo.accept();
        solo.send(newcomer, &Message::Open(open_with_id(Ipv4Addr::new(250, 0, 0, 1))));
        assert_eq!(solo.notification(newcomer).code, ErrorCode::CONNECTION_COLLISION_RESOLUTION);
        solo.run_for(Duration::from_secs(61));
        solo.send(established, &Message::Keepalive);
    }
    assert_eq!(solo.ingress.session().map(|session| session.connection), Some(established));
    assert_eq!(solo.count(|output| matches!(output, IngressOutput::Down(_))), 0);
}

#[test]
fn a_dial_under_way_is_given_up_once_the_peer_is_heard() {
    let mut solo = Solo::new(peer_config(65001, 65002));
    let Some(IngressOutput::Dial { connection: dial, .. }) = solo.outputs.first() else { panic!("no dial") };
    let dial = *dial;
    let accepted = solo.accept();
    assert!(!solo.is_closed(dial), "the peer may be silent");
    solo.send(accepted, &Message::Open(open()));
    assert!(solo.is_closed(dial));
    // The kernel was faster.
    let local = "192.0.2.1:40000".parse().expect("an address");
    solo.outputs.clear();
    solo.input(weft_bgp::ingress::IngressInput::Connected { connection: dial, local });
    assert!(solo.is_closed(dial) && solo.written(dial).is_empty());
    solo.send(accepted, &Message::Keepalive);
    assert_eq!(solo.ingress.state(), State::Established);
}

#[test]
fn a_peer_that_connects_anew_has_given_up_the_silent_connection_before() {
    let mut config = peer_config(65001, 65002);
    config.passive = true;
    let mut solo = Solo::new(config);
    let silent = solo.accept();
    let speaking = solo.accept();
    assert!(solo.is_closed(silent));
    solo.send(speaking, &Message::Open(Open { hold_time: 30, ..open() }));
    solo.send(speaking, &Message::Keepalive);
    assert_eq!(solo.ingress.state(), State::Established);
}
