//! How a session comes up, and what both ends agree on.

use std::net::Ipv4Addr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use weft_bgp::config::{GracefulRestart, RemoteAs};
use weft_bgp::ingress::{Down, IngressInput, IngressOutput, LocalRestart};
use weft_bgp::session::State;
use weft_bgp::status::Direction;
use weft_bgp::types::{Asn, Family, FamilySet, PeerType};
use weft_bgp::wire::Message;
use weft_bgp::wire::capability::{AfiSafi, Capability, GracefulRestartCapability, LongLivedFamily};
use weft_bgp::wire::error::ErrorCode;
use weft_bgp::wire::notification::Notification;
use weft_bgp::wire::open::Open;
use weft_bgp::wire::route_refresh::RouteRefresh;
use weft_bgp::wire::update::end_of_rib;

use crate::pair::{Pair, Side, peer_config};
use crate::solo::{Solo, open, open_with_id};

#[test]
fn two_speakers_agree() {
    let pair = Pair::established(peer_config(65001, 4_200_000_002), peer_config(4_200_000_002, 65001));
    let (a, b) = (pair.session(Side::A), pair.session(Side::B));
    assert_eq!((a.local_as, a.remote_as), (Asn(65001), Asn(4_200_000_002)));
    assert_eq!((b.local_as, b.remote_as), (Asn(4_200_000_002), Asn(65001)));
    assert_eq!(a.peer_type, PeerType::External);
    assert_eq!(a.families, FamilySet::all());
    assert!(a.four_octet_as && a.route_refresh);
    assert_eq!(a.max_message, 65535);
    assert_eq!((a.hold_time, a.keepalive_time), (Duration::from_secs(90), Duration::from_secs(30)));
    let restart = a.graceful_restart.expect("both have graceful restart");
    assert_eq!((restart.restart_time, restart.families), (Duration::from_secs(120), FamilySet::all()));
    assert!(!restart.restarting && restart.forwarding.is_empty());
}

#[test]
fn both_dial_at_once_and_are_established_within_a_second() {
    let mut pair = Pair::new();
    pair.configure(Side::A, peer_config(65001, 65001));
    pair.configure(Side::B, peer_config(65001, 65001));
    assert!(pair.run_until(Duration::from_secs(1), |pair| pair.both(State::Established)));
    assert_eq!(pair.session(Side::A).peer_type, PeerType::Internal);
}

#[test]
fn works_byte_by_byte() {
    let mut pair = Pair::new();
    pair.chunk = 1;
    pair.configure(Side::A, peer_config(65001, 65002));
    pair.configure(Side::B, peer_config(65002, 65001));
    pair.run_until_established();
    let mut out = BytesMut::new();
    end_of_rib(Family::Ipv4Unicast, &mut out);
    end_of_rib(Family::Ipv6Unicast, &mut out);
    pair.write(Side::A, out.freeze());
    pair.run_for(Duration::from_secs(1));
    let ends: Vec<_> = pair
        .end(Side::B)
        .log
        .iter()
        .filter_map(|output| match output {
            IngressOutput::EndOfRib(family) => Some(*family),
            _ => None,
        })
        .collect();
    assert_eq!(ends, Family::ALL);
}

#[test]
fn one_that_was_not_listening_is_found_by_its_own_dial() {
    let mut pair = Pair::new();
    pair.end_mut(Side::B).listening = false;
    pair.configure(Side::A, peer_config(65001, 65002));
    pair.run_for(Duration::from_secs(1));
    assert_eq!(pair.state(Side::A), State::Active);
    let error = pair.end(Side::A).ingress.last_error().expect("the dial failed");
    assert_eq!((error.direction, error.code), (Direction::Local, None));
    assert!(error.text.contains("connection refused"), "{}", error.text);

    pair.end_mut(Side::B).listening = true;
    pair.configure(Side::B, peer_config(65002, 65001));
    assert!(pair.run_until(Duration::from_millis(200), |pair| pair.both(State::Established)));
}

#[test]
fn two_passive_ends_never_dial_and_one_is_enough() {
    let mut passive = peer_config(65001, 65002);
    passive.passive = true;
    let mut pair = Pair::new();
    pair.configure(Side::A, passive);
    pair.run_for(Duration::from_secs(300));
    assert_eq!(pair.state(Side::A), State::Active);
    pair.configure(Side::B, peer_config(65002, 65001));
    assert!(pair.run_until(Duration::from_secs(1), |pair| pair.both(State::Established)));
}

/// Proves RFC 4271 4.2.
#[test]
fn the_hold_time_is_the_smaller_and_zero_is_none() {
    let mut short = peer_config(65001, 65002);
    short.timers.hold_time = Duration::from_secs(9);
    short.timers.keepalive_time = Some(Duration::from_secs(60));
    let pair = Pair::established(short, peer_config(65002, 65001));
    let session = pair.session(Side::B);
    assert_eq!((session.hold_time, session.keepalive_time), (Duration::from_secs(9), Duration::from_secs(3)));
    assert_eq!(pair.session(Side::A).keepalive_time, Duration::from_secs(3), "never more than a third");

    let mut never = peer_config(65001, 65002);
    never.timers.hold_time = Duration::ZERO;
    let mut pair = Pair::established(never, peer_config(65002, 65001));
    assert_eq!(pair.session(Side::B).hold_time, Duration::ZERO);
    assert_eq!(pair.end(Side::B).ingress.next_deadline(), None);
    pair.run_for(Duration::from_secs(3600));
    assert!(pair.both(State::Established));
}

/// Proves RFC 4760 8.
#[test]
fn families_are_those_of_both() {
    let mut v6 = peer_config(65001, 65002);
    v6.families = FamilySet::from_iter([Family::Ipv6Unicast]);
    let pair = Pair::established(v6.clone(), peer_config(65002, 65001));
    assert_eq!(pair.session(Side::B).families, v6.families);
}

#[test]
fn no_family_in_common_is_said_clearly() {
    let mut v6 = peer_config(65001, 65002);
    v6.families = FamilySet::from_iter([Family::Ipv6Unicast]);
    let mut solo = Solo::new(v6);
    let connection = solo.accept();
    // No multiprotocol capability: IPv4 unicast.
    solo.send(connection, &Message::Open(Open { capabilities: vec![], ..open() }));
    let notification = solo.notification(connection);
    assert_eq!(notification.code, ErrorCode::UNSUPPORTED_CAPABILITY);
    assert_eq!(notification.data[..], [1, 4, 0, 2, 0, 1], "the capability that is missing");
    let text = &solo.ingress.last_error().expect("noted").text;
    assert!(text.contains("[ipv6-unicast]") && text.contains("[ipv4-unicast]"), "{text}");
}

/// Proves RFC 4271 4.2, RFC 6793 3.
#[test]
fn a_speaker_of_rfc_4271_alone_is_welcome() {
    let mut config = peer_config(65001, 65002);
    config.remote_as = RemoteAs::External;
    let (solo, _) = Solo::established(config, Open { capabilities: vec![], ..open() });
    let session = solo.ingress.session().expect("Established");
    assert_eq!(session.families, FamilySet::from_iter([Family::Ipv4Unicast]));
    assert!(!session.four_octet_as && !session.route_refresh && session.graceful_restart.is_none());
    assert_eq!((session.max_message, session.remote_as), (4096, Asn(65002)));
}

/// Who knows nothing of capabilities gets a session without any, whatever it says of itself; the next one has them again.
/// Proves RFC 5492 3.
#[test]
fn a_speaker_that_refuses_capabilities_is_told_none() {
    let capabilities = |solo: &Solo, connection| match &solo.written(connection)[..] {
        [Message::Open(sent), ..] => sent.capabilities.len(),
        other => panic!("{other:?}"),
    };
    let mut solo = Solo::new(peer_config(65001, 65002));
    let refusing = [solo.connect(), solo.accept()];
    for connection in refusing {
        assert!(capabilities(&solo, connection) > 0);
        let unsupported =
            Notification { code: ErrorCode::UNSUPPORTED_OPTIONAL_PARAMETER, data: Bytes::new() };
        solo.send(connection, &Message::Notification(unsupported));
    }
    solo.run_for(Duration::from_secs(20));
    let connection = solo.connect();
    assert_eq!(capabilities(&solo, connection), 0);
    solo.send(connection, &Message::Open(open()));
    solo.send(connection, &Message::Keepalive);
    let session = solo.ingress.session().expect("Established");
    assert_eq!(session.families, FamilySet::from_iter([Family::Ipv4Unicast]));
    assert!(!session.four_octet_as && !session.route_refresh && session.graceful_restart.is_none());
    assert_eq!((session.max_message, session.remote_as), (4096, Asn(65002)));
    solo.outputs.clear();
    solo.send(connection, &Message::Notification(Notification::cease(4, "again")));
    solo.run_for(Duration::from_secs(20));
    let connection = solo.connect();
    assert!(capabilities(&solo, connection) > 0);
}

/// RFC 4271 section 6.2: every OPEN that is not acceptable, and its NOTIFICATION.
/// Proves RFC 4271 6.2, RFC 7607 2.
#[test]
fn unacceptable_opens_are_refused_with_the_right_code() {
    let internal = peer_config(65002, 65002);
    let external = peer_config(65001, 65002);
    let four_octet = |asn| vec![Capability::FourOctetAs(Asn(asn))];
    let cases = [
        (&external, Open { my_as: 65003, capabilities: vec![], ..open() }, ErrorCode::BAD_PEER_AS),
        (&external, Open { capabilities: four_octet(65003), ..open() }, ErrorCode::BAD_PEER_AS),
        (&external, Open { capabilities: four_octet(0), ..open() }, ErrorCode::BAD_PEER_AS),
        (&external, Open { my_as: 0, capabilities: vec![], ..open() }, ErrorCode::BAD_PEER_AS),
        (&external, open_with_id(Ipv4Addr::UNSPECIFIED), ErrorCode::BAD_BGP_IDENTIFIER),
        (&internal, open_with_id(crate::pair::ID_A), ErrorCode::BAD_BGP_IDENTIFIER),
        (&external, Open { hold_time: 1, ..open() }, ErrorCode::UNACCEPTABLE_HOLD_TIME),
        (&external, Open { hold_time: 2, ..open() }, ErrorCode::UNACCEPTABLE_HOLD_TIME),
    ];
    for (config, open, code) in cases {
        let mut solo = Solo::new(config.clone());
        let connection = solo.connect();
        solo.send(connection, &Message::Open(open.clone()));
        assert_eq!(solo.notification(connection).code, code, "{open:?}");
        assert_eq!(solo.ingress.state(), State::Idle);
        let error = solo.ingress.last_error().expect("noted");
        assert_eq!(
            (error.direction, error.code, error.subcode),
            (Direction::Sent, Some(2), Some(code.subcode))
        );
    }
}

/// Proves RFC 6286 2.2.
#[test]
fn equal_identifiers_are_fine_between_two_as() {
    let (solo, _) = Solo::established(peer_config(65001, 65002), open_with_id(crate::pair::ID_A));
    assert_eq!(solo.ingress.state(), State::Established);
}

#[test]
fn our_open_says_what_we_are() {
    let mut config = peer_config(4_200_000_001, 65002);
    config.graceful_restart = Some(GracefulRestart {
        restart_time: Duration::from_secs(10_000),
        on_hold_timer_expiry: false,
        long_lived_time: Some(Duration::from_secs(3600)),
    });
    let mut solo = Solo::new(config);
    let forwarding = FamilySet::from_iter([Family::Ipv4Unicast]);
    solo.input(IngressInput::Restart(LocalRestart { restarting: true, forwarding }));
    let connection = solo.accept();
    let [Message::Open(sent)] = &solo.written(connection)[..] else { panic!("{:?}", solo.outputs) };
    assert_eq!((sent.my_as, sent.asn(), sent.hold_time), (23456, Asn(4_200_000_001), 90));
    let (v4, v6) = (AfiSafi { afi: 1, safi: 1 }, AfiSafi { afi: 2, safi: 1 });
    let restart = GracefulRestartCapability {
        restarting: true,
        notification: true,
        restart_time: 4095,
        families: vec![(v4, true), (v6, false)],
    };
    for wanted in [
        Capability::Multiprotocol(v4),
        Capability::Multiprotocol(v6),
        Capability::RouteRefresh,
        Capability::FourOctetAs(Asn(4_200_000_001)),
        Capability::ExtendedMessage,
        Capability::EnhancedRouteRefresh,
        Capability::GracefulRestart(restart),
        Capability::LongLivedGracefulRestart(
            [(v4, true), (v6, false)]
                .map(|(family, forwarding)| LongLivedFamily { family, forwarding, stale_time: 3600 })
                .to_vec(),
        ),
    ] {
        assert!(sent.capabilities.contains(&wanted), "{wanted:?} is not in {:?}", sent.capabilities);
    }
}

/// Bug class 54 (#1323, kube-router): the restart bit in the OPEN of one that has not restarted.
#[test]
fn without_a_restart_there_is_no_restart_bit_and_forwarding_goes_on() {
    let mut solo = Solo::new(peer_config(65001, 65002));
    solo.input(IngressInput::Restart(LocalRestart { restarting: false, forwarding: FamilySet::all() }));
    let connection = solo.accept();
    let [Message::Open(sent)] = &solo.written(connection)[..] else { panic!("{:?}", solo.outputs) };
    let Some(Capability::GracefulRestart(restart)) = sent.capabilities.last() else { panic!("{sent:?}") };
    assert!(!restart.restarting && restart.families.iter().all(|(_, forwarding)| *forwarding));
}

/// Proves RFC 9003 2, RFC 4486 4.
#[test]
fn a_shutdown_tells_the_peer_why_and_refuses_it_from_then_on() {
    let mut pair = Pair::established(peer_config(65001, 65002), peer_config(65002, 65001));
    let mut shut = peer_config(65001, 65002);
    shut.shutdown = Some("wartung ☕".into());
    pair.configure(Side::A, shut);
    pair.run_for(Duration::from_secs(600));
    assert_eq!(pair.state(Side::A), State::Idle);
    assert_eq!(pair.end(Side::A).ingress.next_deadline(), None);
    assert_ne!(pair.state(Side::B), State::Established);
    let told = pair.end(Side::B).log.iter().any(|output| {
        matches!(output, IngressOutput::Incident(incident) if incident.reason.text.contains("wartung ☕"))
    });
    assert!(told, "{:?}", pair.end(Side::B).log);
    assert!(pair.end(Side::B).log.iter().any(|o| matches!(o, IngressOutput::Down(Down::Death))));

    pair.configure(Side::A, peer_config(65001, 65002));
    pair.run_until_established();
}

#[test]
fn only_what_open_carries_resets_the_session() {
    let config = peer_config(65001, 65002);
    let mut pair = Pair::established(config.clone(), peer_config(65002, 65001));
    let mut same = config.clone();
    same.name = "renamed".into();
    same.allowed_own_as = 3;
    same.ebgp_multihop = true;
    same.remote_as = RemoteAs::External;
    same.timers.connect_retry = Duration::from_secs(30);
    pair.configure(Side::A, same);
    pair.run_for(Duration::from_secs(1));
    assert!(pair.both(State::Established));
    assert_eq!(pair.end(Side::B).ingress.counters().flaps, 0);

    let mut other = config;
    other.timers.hold_time = Duration::from_secs(30);
    pair.configure(Side::A, other);
    pair.run_for(Duration::from_secs(1));
    let error = pair.end(Side::B).ingress.last_error().expect("a Cease").clone();
    assert_eq!((error.direction, error.code, error.subcode), (Direction::Received, Some(6), Some(6)));
    pair.run_until_established();
    assert_eq!(pair.session(Side::B).hold_time, Duration::from_secs(30));
}

#[test]
fn a_cease_ends_the_session_and_it_comes_back() {
    let mut pair = Pair::established(peer_config(65001, 65002), peer_config(65002, 65001));
    pair.input(Side::A, IngressInput::Cease { subcode: 4, text: "cleared".into() });
    assert_ne!(pair.state(Side::A), State::Established);
    pair.run_for(Duration::from_millis(50));
    let error = pair.end(Side::B).ingress.last_error().expect("a Cease").clone();
    assert_eq!(error.text, "Cease/Administrative Reset: cleared");
    assert!(pair.run_until(Duration::from_secs(10), |pair| pair.both(State::Established)));
}

/// Proves RFC 2918 4.
#[test]
fn a_refresh_is_passed_on_for_agreed_families_only() {
    let mut config = peer_config(65001, 65002);
    config.families = FamilySet::from_iter([Family::Ipv4Unicast]);
    let (mut solo, connection) = Solo::established(config, open());
    for (afi, subtype) in [(1, 0), (2, 0), (25, 0), (1, 1), (1, 9)] {
        let refresh = RouteRefresh { family: AfiSafi { afi, safi: 1 }, subtype };
        solo.send(connection, &Message::RouteRefresh(refresh));
    }
    let refreshes = solo.count(|output| matches!(output, IngressOutput::Refresh(Family::Ipv4Unicast)));
    assert_eq!((refreshes, solo.ingress.state()), (1, State::Established));
    let begins = solo.count(|output| matches!(output, IngressOutput::RefreshBegins(_)));
    assert_eq!(begins, 0, "RFC 7313 was not agreed on");
    assert_eq!(solo.ingress.counters().received, [1, 0, 0, 1, 5]);
}

/// Proves RFC 7313.
#[test]
fn rfc7313_the_beginning_and_the_end_of_a_refresh_are_passed_on() {
    let mut enhanced = open();
    enhanced.capabilities.push(Capability::EnhancedRouteRefresh);
    let (mut solo, connection) = Solo::established(peer_config(65001, 65002), enhanced);
    for subtype in [RouteRefresh::BEGIN, RouteRefresh::END, 7] {
        let refresh = RouteRefresh { family: AfiSafi { afi: 2, safi: 1 }, subtype };
        solo.send(connection, &Message::RouteRefresh(refresh));
    }
    let passed = |output: &&IngressOutput| {
        matches!(output, IngressOutput::RefreshBegins(_) | IngressOutput::RefreshEnds(_))
    };
    let passed: Vec<_> = solo.outputs.iter().filter(passed).collect();
    assert!(
        matches!(
            passed[..],
            [
                IngressOutput::RefreshBegins(Family::Ipv6Unicast),
                IngressOutput::RefreshEnds(Family::Ipv6Unicast)
            ]
        ),
        "{passed:?}"
    );
}

/// RFC 7313 section 5: the whole message is told back. Of a request RFC 4271 says what is wrong.
/// Proves RFC 7313.
#[test]
fn rfc7313_a_refresh_of_a_wrong_length_has_an_error_of_its_own() {
    for (body, code) in [
        (&[0, 1, 1, 1, 0][..], ErrorCode::ROUTE_REFRESH_INVALID_LENGTH),
        (&[0, 1, 2], ErrorCode::ROUTE_REFRESH_INVALID_LENGTH),
        (&[0, 1, 0, 1, 0], ErrorCode::BAD_MESSAGE_LENGTH),
        (&[0, 1], ErrorCode::BAD_MESSAGE_LENGTH),
    ] {
        let mut enhanced = open();
        enhanced.capabilities.push(Capability::EnhancedRouteRefresh);
        let (mut solo, connection) = Solo::established(peer_config(65001, 65002), enhanced);
        let length = 19 + u8::try_from(body.len()).expect("short");
        let message = [&[0xff; 16][..], &[0, length, 5], body].concat();
        solo.bytes(connection, &message);
        let told = solo.notification(connection);
        let data = if code == ErrorCode::BAD_MESSAGE_LENGTH { vec![0, length] } else { message };
        assert_eq!((told.code, &told.data[..]), (code, &data[..]), "{body:?}");
    }
}

/// RFC 9234 section 4.2: each pair of roles, a peer that says nothing, one that says two or what is no role, and roles inside an AS.
/// Proves RFC 9234.
#[test]
fn rfc9234_roles_must_go_together() {
    use weft_bgp::role::Role;
    const ROLES: [Role; 5] =
        [Role::Provider, Role::RouteServer, Role::RouteServerClient, Role::Customer, Role::Peer];
    let outcome = |ours: Option<Role>, strict: bool, theirs: &[u8]| {
        let mut config = peer_config(65001, 65002);
        (config.role, config.role_strict) = (ours, strict);
        let mut solo = Solo::new(config);
        let connection = solo.accept();
        let mut open = open();
        open.capabilities.extend(theirs.iter().map(|role| Capability::Role(*role)));
        solo.send(connection, &Message::Open(open));
        match solo.ingress.state() {
            State::OpenConfirm => None,
            _ => Some(solo.notification(connection).code),
        }
    };
    let mismatch = Some(ErrorCode::ROLE_MISMATCH);
    assert_eq!(ErrorCode::ROLE_MISMATCH, ErrorCode { code: 2, subcode: 11 });
    for ours in ROLES {
        for theirs in ROLES {
            let good = matches!((ours as u8, theirs as u8), (0, 3) | (3, 0) | (1, 2) | (2, 1) | (4, 4));
            let expected = if good { None } else { mismatch };
            assert_eq!(outcome(Some(ours), true, &[theirs as u8]), expected, "{ours:?} {theirs:?}");
        }
    }
    assert_eq!(outcome(Some(Role::Peer), false, &[]), None);
    assert_eq!(outcome(Some(Role::Peer), true, &[]), mismatch);
    assert_eq!(outcome(Some(Role::Peer), false, &[4, 4]), None, "the same twice is once");
    assert_eq!(outcome(Some(Role::Peer), false, &[4, 3]), mismatch);
    assert_eq!(outcome(Some(Role::Peer), false, &[9]), mismatch);
    assert_eq!(outcome(None, false, &[0]), None, "without a role of ours theirs means nothing");

    let mut internal = peer_config(65002, 65002);
    internal.role = Some(Role::Peer);
    let mut solo = Solo::new(internal);
    let connection = solo.accept();
    let [Message::Open(sent)] = &solo.written(connection)[..] else { panic!("{:?}", solo.outputs) };
    assert!(!sent.capabilities.iter().any(|c| matches!(c, Capability::Role(_))), "not inside an AS");
}
