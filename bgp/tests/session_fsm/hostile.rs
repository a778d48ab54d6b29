//! Peers that mean harm, or might as well: each test is named for a class of bugs that other speakers had.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use weft_bgp::ingress::{Down, Incident, IncidentKind, IngressInput, IngressOutput};
use weft_bgp::session::State;
use weft_bgp::types::ConnectionId;
use weft_bgp::wire::Message;
use weft_bgp::wire::capability::AfiSafi;
use weft_bgp::wire::error::ErrorCode;
use weft_bgp::wire::notification::Notification;
use weft_bgp::wire::open::Open;
use weft_bgp::wire::route_refresh::RouteRefresh;

use crate::pair::peer_config;
use crate::solo::{Solo, open};

fn incidents(solo: &Solo) -> Vec<&Incident> {
    let incidents = solo.outputs.iter().filter_map(|output| match output {
        IngressOutput::Incident(incident) => Some(incident),
        _ => None,
    });
    incidents.collect()
}

/// A header of any length and type in front of a body.
fn raw(length: u16, kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0xff; 16];
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.push(kind);
    bytes.extend_from_slice(body);
    bytes
}

/// An UPDATE that announces 10.0.0.0/8 with an ORIGIN of 9.
const BAD_ORIGIN: &[u8] =
    &[0, 0, 0, 18, 0x40, 1, 1, 9, 0x40, 2, 4, 2, 1, 0xfd, 0xea, 0x40, 3, 4, 192, 0, 2, 2, 8, 10];

/// Proves RFC 4271 6.1.
#[test]
fn header_errors_have_the_code_and_data_of_section_6_1() {
    let cases: [(Vec<u8>, ErrorCode, &[u8]); 9] = [
        ([&[0; 16][..], &[0, 19, 4]].concat(), ErrorCode::CONNECTION_NOT_SYNCHRONIZED, &[]),
        (raw(18, 4, &[]), ErrorCode::BAD_MESSAGE_LENGTH, &[0, 18]),
        (raw(0, 4, &[]), ErrorCode::BAD_MESSAGE_LENGTH, &[0, 0]),
        (raw(4097, 2, &[]), ErrorCode::BAD_MESSAGE_LENGTH, &[16, 1]),
        (raw(20, 4, &[0]), ErrorCode::BAD_MESSAGE_LENGTH, &[0, 20]),
        (raw(28, 1, &[0; 9]), ErrorCode::BAD_MESSAGE_LENGTH, &[0, 28]),
        (raw(22, 2, &[0; 3]), ErrorCode::BAD_MESSAGE_LENGTH, &[0, 22]),
        (raw(24, 5, &[0; 5]), ErrorCode::BAD_MESSAGE_LENGTH, &[0, 24]),
        (raw(19, 6, &[]), ErrorCode::BAD_MESSAGE_TYPE, &[6]),
    ];
    for (bytes, code, data) in cases {
        let (mut solo, connection) = Solo::established(peer_config(65001, 65002), open());
        solo.bytes(connection, &bytes);
        let notification = solo.notification(connection);
        assert_eq!((notification.code, &notification.data[..]), (code, data), "{bytes:02x?}");
        let down = solo.count(|output| matches!(output, IngressOutput::Down(Down::Death)));
        assert_eq!(down, 1);
    }
}

/// Proves RFC 8654 4.
#[test]
fn extended_messages_are_taken_from_those_who_agreed_and_not_before_established() {
    let mut extended = open();
    extended.capabilities.push(weft_bgp::wire::capability::Capability::ExtendedMessage);
    // 4000 withdrawals of 10.0.0.0/8.
    let mut body = BytesMut::from(&8000u16.to_be_bytes()[..]);
    body.extend(std::iter::repeat_n([8, 10], 4000).flatten());
    body.extend([0, 0]);
    let message = Message::Update(body.freeze()).encode();

    let (mut solo, connection) = Solo::established(peer_config(65001, 65002), extended.clone());
    solo.bytes(connection, &message);
    assert_eq!(solo.ingress.state(), State::Established);
    let prefixes: usize = solo
        .outputs
        .iter()
        .map(|output| match output {
            IngressOutput::Routes(batch) => batch.prefixes.len(),
            _ => 0,
        })
        .sum();
    assert_eq!(prefixes, 4000);

    let mut solo = Solo::new(peer_config(65001, 65002));
    let connection = solo.accept();
    solo.send(connection, &Message::Open(extended));
    solo.bytes(connection, &message);
    assert_eq!(solo.notification(connection).code, ErrorCode::BAD_MESSAGE_LENGTH);
}

/// Proves RFC 6608 3.
#[test]
fn unexpected_messages_have_the_subcodes_of_rfc_6608() {
    let update = Message::Update(Bytes::from_static(BAD_ORIGIN));
    let refresh = Message::RouteRefresh(RouteRefresh { family: AfiSafi { afi: 1, safi: 1 }, subtype: 0 });
    for (message, kind) in [(update.clone(), 2), (Message::Keepalive, 4), (refresh.clone(), 5)] {
        let mut solo = Solo::new(peer_config(65001, 65002));
        let connection = solo.accept();
        solo.send(connection, &message);
        let notification = solo.notification(connection);
        let expected = (ErrorCode::UNEXPECTED_MESSAGE_IN_OPEN_SENT, &[kind][..]);
        assert_eq!((notification.code, &notification.data[..]), expected);
    }
    for (message, kind) in [(Message::Open(open()), 1), (update, 2), (refresh, 5)] {
        let mut solo = Solo::new(peer_config(65001, 65002));
        let connection = solo.accept();
        solo.send(connection, &Message::Open(open()));
        solo.send(connection, &message);
        let notification = solo.notification(connection);
        let expected = (ErrorCode::UNEXPECTED_MESSAGE_IN_OPEN_CONFIRM, &[kind][..]);
        assert_eq!((notification.code, &notification.data[..]), expected);
        assert_eq!(solo.count(|output| matches!(output, IngressOutput::Routes(_))), 0);
    }
    let (mut solo, connection) = Solo::established(peer_config(65001, 65002), open());
    solo.send(connection, &Message::Open(open()));
    assert_eq!(solo.notification(connection).code, ErrorCode::UNEXPECTED_MESSAGE_IN_ESTABLISHED);
}

/// A peer that rejects or breaks every OPEN must not be able to keep us busy (29,000 cycles in 10 s, elsewhere).
/// Bug class 48 (KNOWN_ISSUES, rustbgpd): OPENs that are rejected, and connections made anew, without a pause.
#[test]
fn open_reject_loop_is_damped_both_ways() {
    let mut solo = Solo::new(peer_config(65001, 65002));
    let mut cycles = 0;
    for _ in 0..10_000 {
        solo.run_for(Duration::from_millis(1));
        let before = solo.outputs.len();
        let connection = solo.accept();
        if solo.is_closed(connection) {
            solo.outputs.truncate(before);
            continue;
        }
        cycles += 1;
        solo.send(connection, &Message::Open(Open { hold_time: 1, ..open() }));
    }
    assert!((3..=6).contains(&cycles), "{cycles} OPENs read in 10 s");
    assert!(solo.ingress.state() > State::Idle, "our own dials go on");

    let mut config = peer_config(65001, 65002);
    config.timers.idle_hold_min = Duration::ZERO;
    config.timers.connect_retry = Duration::ZERO;
    let mut solo = Solo::new(config);
    let end = solo.now + Duration::from_secs(10);
    let mut cycles = 0;
    while solo.now < end {
        let connection = solo.connect();
        solo.send(connection, &Message::Notification(Notification::cease(5, "")));
        cycles += 1;
        let (deadline, _) = solo.ingress.next_deadline().expect("it waits");
        solo.run_for(deadline - solo.now);
    }
    assert!(cycles <= 140, "even when it is configured not to wait: {cycles} in 10 s");
}

#[test]
fn garbage_beside_an_established_session_does_not_disturb_it() {
    let (mut solo, established) = Solo::established(peer_config(65001, 65002), open());
    let garbage: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\nHost: example.net\r\n\r\n",
        &[0xff; 19],
        &[0; 4096],
        &Message::Open(Open { my_as: 1, capabilities: vec![], ..open() }).encode(),
        &Message::Open(Open { hold_time: 1, ..open() }).encode(),
        &raw(19, 4, &[]),
    ];
    for round in 0..1000 {
        solo.run_for(Duration::from_millis(70));
        let connection = solo.accept();
        solo.bytes(connection, garbage[round % garbage.len()]);
        assert!(solo.is_closed(connection), "garbage is closed at once");
        if round % 100 == 0 {
            solo.send(established, &Message::Keepalive);
        }
    }
    assert_eq!(solo.ingress.session().map(|session| session.connection), Some(established));
    assert_eq!(solo.count(|output| matches!(output, IngressOutput::Down(_))), 0);
    assert!(!incidents(&solo).is_empty(), "it shows");
    assert!(incidents(&solo).len() < 100, "but not without bound: {}", incidents(&solo).len());
}

/// Proves RFC 7606 2.
#[test]
fn a_malformed_update_becomes_withdrawals_and_an_incident_with_its_bytes() {
    let (mut solo, connection) = Solo::established(peer_config(65001, 65002), open());
    let message = Message::Update(Bytes::from_static(BAD_ORIGIN)).encode();
    solo.bytes(connection, &message);
    assert_eq!(solo.ingress.state(), State::Established);
    let [incident] = incidents(&solo)[..] else { panic!("{:?}", solo.outputs) };
    assert_eq!(incident.kind, IncidentKind::TreatedAsWithdraw);
    assert_eq!(incident.bytes, message);
    assert!(incident.reason.text.contains("ORIGIN"), "{}", incident.reason.text);
    let withdrawn = solo.outputs.iter().find_map(|output| match output {
        IngressOutput::Routes(batch) => Some(batch),
        _ => None,
    });
    let batch = withdrawn.expect("a withdrawal");
    assert_eq!(batch.prefixes, ["10.0.0.0/8".parse().expect("a prefix")]);
    assert!(batch.runs.iter().all(|run| run.attributes.is_none()));
    assert_eq!(solo.ingress.counters().treated_as_withdraw, 1);
}

#[test]
fn a_flood_of_malformed_updates_is_counted_and_told_within_bounds() {
    let (mut solo, connection) = Solo::established(peer_config(65001, 65002), open());
    let message = Message::Update(Bytes::from_static(BAD_ORIGIN)).encode();
    for _ in 0..10_000 {
        solo.bytes(connection, &message);
    }
    assert_eq!(solo.ingress.counters().treated_as_withdraw, 10_000);
    assert_eq!(incidents(&solo).len(), 10);
    solo.run_for(Duration::from_secs(3));
    solo.outputs.clear();
    solo.bytes(connection, &message);
    let text = &incidents(&solo).first().expect("allowed again").reason.text;
    assert!(text.contains("9990 more"), "{text}");
}

#[test]
fn a_malformed_update_after_good_ones_keeps_the_good_routes_and_its_own_out() {
    let (mut solo, connection) = Solo::established(peer_config(65001, 65002), open());
    let good = Message::Update(Bytes::from_static(&[0, 2, 8, 10, 0, 0])).encode();
    // A withdrawal of 11.0.0.0/8 and then a prefix of 33 bits.
    let bad = Message::Update(Bytes::from_static(&[0, 8, 8, 11, 33, 1, 2, 3, 4, 5, 0, 0])).encode();
    solo.bytes(connection, &[&good[..], &bad[..]].concat());
    let notification = solo.notification(connection);
    assert_eq!(notification.code, ErrorCode::INVALID_NETWORK_FIELD);
    let batches: Vec<_> = solo
        .outputs
        .iter()
        .filter_map(|output| match output {
            IngressOutput::Routes(batch) => Some(batch.prefixes.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(batches, [["10.0.0.0/8".parse().expect("a prefix")]]);
    let told = incidents(&solo);
    assert_eq!(told.first().expect("an incident").bytes, bad, "the bytes in question");
}

/// Bug class 6 (CVE-2022-37035, FRR): things happen to a connection that is already being closed.
#[test]
fn late_events_of_a_closed_connection_are_ignored() {
    let (mut solo, connection) = Solo::established(peer_config(65001, 65002), open());
    solo.bytes(connection, &raw(19, 9, &Message::Keepalive.encode()));
    assert_eq!(solo.written(connection).len(), 1, "one NOTIFICATION, though more bytes followed");
    solo.outputs.clear();
    solo.send(connection, &Message::Keepalive);
    solo.close(connection);
    solo.close(connection);
    solo.close(ConnectionId::Accepted(4711));
    let error = "refused".to_owned();
    solo.input(IngressInput::ConnectFailed { connection: ConnectionId::Dialled(4711), error });
    assert_eq!(solo.count(|_| true), 0, "{:?}", solo.outputs);
}

/// Bug class 29 (CVE-2019-16159, BIRD): the text of a shutdown has another length than it says, or is no text.
/// Proves RFC 9003 2.
#[test]
fn a_shutdown_text_cannot_harm() {
    let texts: [(&[u8], Option<&str>); 6] = [
        (b"\x05hello", Some("hello")),
        (b"\xffhello", None),
        (b"\x00", None),
        (b"", None),
        (b"\x02\xff\xfe", None),
        (b"\x06a\x1b[2Jb", Some("a [2Jb")),
    ];
    for (data, text) in texts {
        let notification =
            Notification { code: ErrorCode::ADMINISTRATIVE_SHUTDOWN, data: Bytes::from_static(data) };
        assert_eq!(notification.text().as_deref(), text);
        let (mut solo, connection) = Solo::established(peer_config(65001, 65002), open());
        solo.send(connection, &Message::Notification(notification));
        let error = solo.ingress.last_error().expect("noted");
        let expected = match text {
            Some(text) => format!("Cease/Administrative Shutdown: {text}"),
            None => "Cease/Administrative Shutdown".to_owned(),
        };
        assert_eq!(error.text, expected);
        assert_eq!(solo.written(connection), [], "a NOTIFICATION is never answered");
    }
}

#[test]
fn a_peer_in_idle_hold_is_refused() {
    let mut solo = Solo::new(peer_config(65001, 65002));
    let connection = solo.connect();
    solo.send(connection, &Message::Open(Open { hold_time: 2, ..open() }));
    assert_eq!(solo.ingress.state(), State::Idle);
    let refused = solo.accept();
    assert!(solo.is_closed(refused) && solo.written(refused).is_empty());
    assert_eq!(solo.ingress.counters().connections_refused, 1);
    solo.run_for(Duration::from_secs(1));
    let admitted = solo.accept();
    assert!(!solo.is_closed(admitted));
}

#[test]
fn nothing_is_let_in_before_there_is_a_configuration() {
    let mut ingress = weft_bgp::ingress::Ingress::new(crate::pair::ADDRESS_B.into(), crate::pair::ID_A, 1);
    let solo = Solo::new(peer_config(65001, 65002));
    let connection = ConnectionId::Accepted(1);
    let local = "192.0.2.1:179".parse().expect("an address");
    let remote = (crate::pair::ADDRESS_B, 40_000).into();
    ingress.handle(solo.now, IngressInput::Accepted { connection, local, remote });
    assert!(matches!(ingress.poll(), Some(IngressOutput::Close { .. })));
    let Some(IngressOutput::Incident(incident)) = ingress.poll() else {
        unreachable!("a refusal is told");
    };
    assert_eq!(incident.reason.code, "connection-refused");
    assert!(ingress.poll().is_none());
    assert_eq!(ingress.counters().connections_refused, 1);
}

fn input_bytes() -> impl Strategy<Value = Vec<u8>> {
    let body = proptest::collection::vec(any::<u8>(), 0..64);
    let framed = (0u8..8, body.clone())
        .prop_map(|(kind, body)| raw(u16::try_from(19 + body.len()).expect("short"), kind, &body));
    prop_oneof![
        body,
        framed,
        Just(Message::Keepalive.encode().to_vec()),
        Just(Message::Open(open()).encode().to_vec()),
        Just(Message::Update(Bytes::from_static(BAD_ORIGIN)).encode().to_vec()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever comes in whatever order: no panic, bounded outputs, and the FSM always has a way on.
    /// Proves RFC 4271 8.
    #[test]
    fn no_sequence_of_inputs_wedges_the_session(
        steps in proptest::collection::vec((0u8..8, 0usize..3, input_bytes(), 0u64..20_000), 1..60)
    ) {
        let mut solo = Solo::new(peer_config(65001, 65002));
        let mut connections = vec![ConnectionId::Accepted(9999)];
        for (what, which, bytes, millis) in steps {
            let connection = connections[connections.len().saturating_sub(1 + which)];
            match what {
                0 => connections.push(solo.accept()),
                1 => {
                    if solo.ingress.state() == State::Connect {
                        connections.push(solo.connect());
                    }
                }
                2 => solo.close(connection),
                3 => solo.run_for(Duration::from_millis(millis)),
                4 => solo.input(IngressInput::Cease { subcode: 4, text: String::new() }),
                _ => solo.bytes(connection, &bytes),
            }
            let idle = solo.ingress.state() == State::Idle;
            prop_assert!(!idle || solo.ingress.next_deadline().is_some(), "Idle without a way out");
        }
        // A peer that behaves is Established in the end.
        solo.run_for(Duration::from_secs(400));
        if solo.ingress.state() != State::Established {
            let connection = solo.accept();
            solo.send(connection, &Message::Open(open()));
            solo.send(connection, &Message::Keepalive);
        }
        prop_assert_eq!(solo.ingress.state(), State::Established);
    }

    /// However the bytes are cut, the same comes out.
    #[test]
    fn rechunking_changes_nothing(
        pieces in proptest::collection::vec(input_bytes(), 1..8),
        cuts in proptest::collection::vec(1usize..50, 1..50),
    ) {
        let all = pieces.concat();
        let outputs = |sizes: &[usize]| {
            let (mut solo, connection) = Solo::established(peer_config(65001, 65002), open());
            let mut rest = &all[..];
            for size in sizes.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, after) = rest.split_at((*size).min(rest.len()));
                solo.bytes(connection, piece);
                rest = after;
            }
            let counters = solo.ingress.counters();
            let prefixes: Vec<_> = solo.outputs.iter().filter_map(|output| match output {
                IngressOutput::Routes(batch) => Some(batch.prefixes.clone()),
                _ => None,
            }).flatten().collect();
            (solo.ingress.state(), counters, prefixes, solo.written(connection))
        };
        prop_assert_eq!(outputs(&[usize::MAX]), outputs(&cuts));
    }
}
