//! Restart or death: which end of a session keeps the peer's routes (RFC 4724).

use std::time::Duration;

use bytes::Bytes;
use weft_bgp::ingress::{Down, IngressInput, IngressOutput, LocalRestart};
use weft_bgp::session::State;
use weft_bgp::types::{Family, FamilySet};
use weft_bgp::wire::Message;
use weft_bgp::wire::capability::{AfiSafi, Capability, GracefulRestartCapability, LongLivedFamily};
use weft_bgp::wire::error::ErrorCode;
use weft_bgp::wire::notification::Notification;
use weft_bgp::wire::open::Open;

use crate::pair::{ID_B, Pair, Side, peer_config};
use crate::solo::{Solo, open};

const V4: AfiSafi = AfiSafi { afi: 1, safi: 1 };

/// An OPEN of a peer that restarts gracefully for IPv4 only.
fn open_with_restart() -> Open {
    restarting_open(false)
}

/// The same, with or without the N bit (RFC 8538).
fn restarting_open(notification: bool) -> Open {
    let mut open = open();
    open.capabilities.push(Capability::GracefulRestart(GracefulRestartCapability {
        restarting: false,
        notification,
        restart_time: 60,
        families: vec![(V4, true), (AfiSafi { afi: 25, safi: 65 }, true)],
    }));
    open
}

fn downs(solo: &Solo) -> Vec<Down> {
    let downs = solo.outputs.iter().filter_map(|output| match output {
        IngressOutput::Down(down) => Some(down.clone()),
        _ => None,
    });
    downs.collect()
}

fn restart() -> Down {
    Down::Restart {
        families: FamilySet::from_iter([Family::Ipv4Unicast]),
        restart_time: Duration::from_secs(60),
    }
}

/// Everything that can end a session, and what it means where graceful restart was agreed on.
/// Proves RFC 4724 4.2.
#[test]
fn restart_or_death() {
    type End = fn(&mut Solo, weft_bgp::types::ConnectionId);
    let cases: [(&str, End, Down); 7] = [
        ("FIN", |solo, c| solo.close(c), restart()),
        (
            "RST",
            |solo, c| solo.input(IngressInput::Closed { connection: c, error: Some("reset".into()) }),
            restart(),
        ),
        ("hold timer", |solo, _| solo.run_for(Duration::from_secs(90)), Down::Death),
        (
            "NOTIFICATION received",
            |solo, c| solo.send(c, &Message::Notification(Notification::cease(4, ""))),
            Down::Death,
        ),
        ("NOTIFICATION sent", |solo, c| solo.send(c, &Message::Open(open())), Down::Death),
        (
            "our Cease",
            |solo, _| solo.input(IngressInput::Cease { subcode: 3, text: String::new() }),
            Down::Death,
        ),
        (
            "shutdown",
            |solo, _| {
                let mut config = peer_config(65001, 65002);
                config.shutdown = Some("bye".into());
                solo.input(IngressInput::Configure(config.into()));
            },
            Down::Death,
        ),
    ];
    for (name, end, down) in cases {
        let (mut solo, connection) = Solo::established(peer_config(65001, 65002), open_with_restart());
        end(&mut solo, connection);
        assert_eq!(downs(&solo), [down], "{name}");
        assert_ne!(solo.ingress.state(), State::Established, "{name}");
        assert_eq!(solo.ingress.counters().flaps, 1, "{name}");
    }
}

/// The same where both ends have RFC 8538: what a Hard Reset says, or would, and silence are a death, the rest is a restart.
/// Proves RFC 8538.
#[test]
fn rfc8538_restart_or_death() {
    type End = fn(&mut Solo, weft_bgp::types::ConnectionId);
    let hard = Notification::cease(2, "bye").into_hard_reset();
    let shutdown = |solo: &mut Solo, _| {
        let mut config = peer_config(65001, 65002);
        config.shutdown = Some("bye".into());
        solo.input(IngressInput::Configure(config.into()));
    };
    let cases: [(&str, End, Down, Option<Notification>); 9] = [
        ("FIN", |solo, c| solo.close(c), restart(), None),
        (
            "NOTIFICATION received",
            |solo, c| solo.send(c, &Message::Notification(Notification::cease(4, ""))),
            restart(),
            None,
        ),
        (
            "Hard Reset received",
            |solo, c| {
                let carried = Notification::cease(4, "");
                solo.send(c, &Message::Notification(carried.into_hard_reset()));
            },
            Down::Death,
            None,
        ),
        (
            "an error of the peer's",
            |solo, c| solo.send(c, &Message::Open(open())),
            restart(),
            Some(Notification { code: ErrorCode::UNEXPECTED_MESSAGE_IN_ESTABLISHED, data: vec![1].into() }),
        ),
        (
            "our reset",
            |solo, _| solo.input(IngressInput::Cease { subcode: 4, text: "cleared".into() }),
            restart(),
            Some(Notification::cease(4, "cleared")),
        ),
        (
            "our peer is configured no more",
            |solo, _| solo.input(IngressInput::Cease { subcode: 3, text: String::new() }),
            Down::Death,
            Some(Notification::cease(3, "").into_hard_reset()),
        ),
        ("our shutdown", shutdown, Down::Death, Some(hard)),
        (
            "another peer in its place",
            |solo, _| solo.input(IngressInput::Configure(peer_config(65001, 65003).into())),
            Down::Death,
            Some(Notification::cease(3, "").into_hard_reset()),
        ),
        (
            "hold timer",
            |solo, _| solo.run_for(Duration::from_secs(90)),
            Down::Death,
            Some(Notification { code: ErrorCode::HOLD_TIMER_EXPIRED, data: Bytes::new() }),
        ),
    ];
    for (name, end, down, sent) in cases {
        let (mut solo, connection) = Solo::established(peer_config(65001, 65002), restarting_open(true));
        end(&mut solo, connection);
        assert_eq!(downs(&solo), [down], "{name}");
        let said = solo.written(connection).into_iter().find_map(|message| match message {
            Message::Notification(notification) => Some(notification),
            _ => None,
        });
        assert_eq!(said, sent, "{name}");
    }
}

/// Proves RFC 8538.
#[test]
fn rfc8538_the_hold_timer_is_a_restart_where_the_admin_says_so_and_the_peer_has_the_n_bit() {
    for (notification, down) in [(true, restart()), (false, Down::Death)] {
        let mut config = peer_config(65001, 65002);
        config.graceful_restart.as_mut().expect("it is on").on_hold_timer_expiry = true;
        let (mut solo, connection) = Solo::established(config, restarting_open(notification));
        solo.run_for(Duration::from_secs(90));
        assert_eq!(solo.notification(connection).code, ErrorCode::HOLD_TIMER_EXPIRED);
        assert_eq!(downs(&solo), [down], "N bit: {notification}");
    }
}

/// Proves RFC 8538.
#[test]
fn rfc8538_a_hard_reset_tells_what_it_carries() {
    let (mut solo, connection) = Solo::established(peer_config(65001, 65002), restarting_open(true));
    let carried = Notification::cease(2, "wartung ☕");
    solo.send(connection, &Message::Notification(carried.clone().into_hard_reset()));
    let error = solo.ingress.last_error().expect("it is told");
    assert_eq!((error.code, error.subcode), (Some(6), Some(9)));
    assert_eq!(error.text, "Cease/Hard Reset: Cease/Administrative Shutdown: wartung ☕");
    let hard = carried.clone().into_hard_reset();
    assert_eq!(hard.data[..2], [6, 2]);
    assert_eq!((hard.carried(), carried.carried()), (Some(carried.clone()), None));
    // One that carries nothing, as of a speaker that does not know better.
    assert_eq!(Notification::cease(9, "").describe(), "Cease/Hard Reset");
}

/// A process that ends says so where that is a restart, and nothing where it would be a death.
/// Proves RFC 8538.
#[test]
fn rfc8538_stop_says_administrative_reset() {
    let (mut solo, connection) = Solo::established(peer_config(65001, 65002), restarting_open(true));
    let fresh = solo.accept();
    solo.input(IngressInput::Stop);
    assert_eq!(solo.notification(connection), Notification::cease(4, ""));
    assert!(
        solo.is_closed(fresh) && !solo.written(fresh).iter().any(|m| matches!(m, Message::Notification(_)))
    );
    assert_eq!(downs(&solo), [], "the routes stay");
}

/// Who restarts by a NOTIFICATION is let in as soon as it is back.
/// Proves RFC 8538.
#[test]
fn rfc8538_a_peer_that_restarts_by_a_notification_is_let_in_at_once() {
    for (notification, state) in [(true, State::OpenSent), (false, State::Idle)] {
        let (mut solo, connection) =
            Solo::established(peer_config(65001, 65002), restarting_open(notification));
        for _ in 0..2 {
            solo.run_for(Duration::from_secs(6));
            solo.send(connection, &Message::Keepalive);
        }
        // Out of Resources: to who has no N bit that is no restart.
        solo.send(connection, &Message::Notification(Notification::cease(8, "")));
        assert_eq!(solo.ingress.state(), State::Idle);
        solo.accept();
        assert_eq!(solo.ingress.state(), state, "N bit: {notification}");
    }
}

#[test]
fn a_close_is_a_death_unless_both_ends_agreed_on_graceful_restart() {
    let mut ours_off = peer_config(65001, 65002);
    ours_off.graceful_restart = None;
    let nothing_listed = {
        let mut open = open();
        open.capabilities.push(Capability::GracefulRestart(GracefulRestartCapability::default()));
        open
    };
    let ours_on = peer_config(65001, 65002);
    for (config, open) in
        [(ours_off, open_with_restart()), (ours_on.clone(), open()), (ours_on, nothing_listed)]
    {
        let (mut solo, connection) = Solo::established(config, open);
        solo.close(connection);
        assert_eq!(downs(&solo), [Down::Death]);
    }
}

/// Proves RFC 4724 3.
#[test]
fn the_last_graceful_restart_capability_counts() {
    let mut open = open_with_restart();
    open.capabilities.push(Capability::GracefulRestart(GracefulRestartCapability {
        restarting: true,
        notification: true,
        restart_time: 7,
        families: vec![(V4, false)],
    }));
    let (solo, _) = Solo::established(peer_config(65001, 65002), open);
    let agreed = solo.ingress.session().and_then(|s| s.graceful_restart).expect("agreed");
    assert!(agreed.restarting && agreed.forwarding.is_empty());
    assert_eq!(agreed.restart_time, Duration::from_secs(7));
}

#[test]
fn routes_that_came_before_the_end_are_out_before_it() {
    let (mut solo, connection) = Solo::established(peer_config(65001, 65002), open_with_restart());
    // A withdrawal of 10.0.0.0/8, and then a NOTIFICATION in the same bytes.
    let mut bytes = Message::Update(Bytes::from_static(&[0, 2, 8, 10, 0, 0])).encode().to_vec();
    bytes.extend_from_slice(&Message::Notification(Notification::cease(2, "bye")).encode());
    solo.bytes(connection, &bytes);
    let position = |wanted: fn(&IngressOutput) -> bool| solo.outputs.iter().position(wanted);
    let routes = position(|o| matches!(o, IngressOutput::Routes(_))).expect("routes");
    let down = position(|o| matches!(o, IngressOutput::Down(_))).expect("down");
    assert!(routes < down);
}

#[test]
fn stop_closes_without_a_word_and_for_good() {
    let (mut solo, connection) = Solo::established(peer_config(65001, 65002), open_with_restart());
    solo.input(IngressInput::Stop);
    assert!(solo.is_closed(connection));
    assert_eq!(solo.written(connection), [], "no NOTIFICATION");
    assert_eq!(downs(&solo), [], "the routes stay");
    assert_eq!((solo.ingress.state(), solo.ingress.next_deadline()), (State::Idle, None));
    let refused = solo.accept();
    assert!(solo.is_closed(refused));
    let mut config = peer_config(65001, 65002);
    config.name = "too late".into();
    solo.input(IngressInput::Configure(config.into()));
    assert_eq!(solo.ingress.state(), State::Idle);
}

#[test]
fn a_peer_that_is_killed_and_comes_back_is_a_restart() {
    let mut pair = Pair::established(peer_config(65001, 65002), peer_config(65002, 65001));
    pair.run_for(Duration::from_secs(60));
    pair.crash(Side::B, 99, ID_B);
    let forwarding = FamilySet::all();
    pair.input(Side::B, IngressInput::Restart(LocalRestart { restarting: true, forwarding }));
    pair.configure(Side::B, peer_config(65002, 65001));
    assert!(pair.run_until(Duration::from_secs(2), |pair| pair.both(State::Established)));
    let agreed = pair.session(Side::A).graceful_restart.expect("agreed");
    assert!(agreed.restarting && agreed.forwarding == FamilySet::all());
    let downs = pair.end(Side::A).log.iter().filter(|o| matches!(o, IngressOutput::Down(_)));
    assert!(matches!(downs.collect::<Vec<_>>()[..], [IngressOutput::Down(Down::Restart { .. })]));
}

/// RFC 4724 section 4.2: the peer's host lost power, and nothing told us that the old connection is dead.
/// Proves RFC 4724 4.2.
#[test]
fn a_new_connection_with_a_good_open_replaces_the_established_one() {
    let mut pair = Pair::established(peer_config(65001, 65002), peer_config(65002, 65001));
    pair.run_for(Duration::from_secs(60));
    let before = pair.session(Side::A).connection;
    pair.vanish(Side::B, 99, ID_B, false);
    pair.configure(Side::B, peer_config(65002, 65001));
    assert!(pair.run_until(Duration::from_secs(2), |pair| pair.both(State::Established)));
    assert_ne!(pair.session(Side::A).connection, before);
    let log = &pair.end(Side::A).log;
    let relevant: Vec<_> =
        log.iter().filter(|output| matches!(output, IngressOutput::Up(_) | IngressOutput::Down(_))).collect();
    assert!(
        matches!(
            relevant[..],
            [IngressOutput::Up(_), IngressOutput::Down(Down::Restart { .. }), IngressOutput::Up(_)]
        ),
        "{relevant:?}"
    );
}

#[test]
fn the_established_session_ends_without_notification_only_when_the_new_open_is_good() {
    let (mut solo, old) = Solo::established(peer_config(65001, 65002), open_with_restart());
    solo.run_for(Duration::from_secs(20));
    let bad = solo.accept();
    solo.send(bad, &Message::Open(Open { my_as: 65003, capabilities: vec![], ..open() }));
    assert_eq!(solo.notification(bad).code, ErrorCode::BAD_PEER_AS);
    assert_eq!((solo.ingress.state(), downs(&solo)), (State::Established, vec![]));

    solo.run_for(Duration::from_secs(5));
    let good = solo.accept();
    assert!(!solo.is_closed(old));
    solo.send(good, &Message::Open(open_with_restart()));
    assert!(solo.is_closed(old));
    let notified = solo.written(old).iter().any(|message| matches!(message, Message::Notification(_)));
    assert!(!notified, "the old connection is closed without a NOTIFICATION");
    assert_eq!((solo.ingress.state(), downs(&solo)), (State::OpenConfirm, vec![restart()]));
    solo.send(good, &Message::Keepalive);
    assert_eq!(solo.ingress.session().map(|session| session.connection), Some(good));
}

/// Both must offer it, the peer says for how long, our own time is the bound, and without graceful restart it means nothing.
/// Proves RFC 9494.
#[test]
fn rfc9494_the_peer_says_how_long_and_we_bound_it() {
    let families = |time| {
        let family = |family, forwarding, stale_time| LongLivedFamily { family, forwarding, stale_time };
        let v6 = AfiSafi { afi: 2, safi: 1 };
        vec![family(V4, true, time), family(v6, false, 60), family(AfiSafi { afi: 25, safi: 65 }, true, 9)]
    };
    let agreed = |ours: Option<u64>, theirs, mut open: Open| {
        open.capabilities.push(Capability::LongLivedGracefulRestart(families(theirs)));
        let mut config = peer_config(65001, 65002);
        let restart = config.graceful_restart.as_mut().expect("it is on");
        restart.long_lived_time = ours.map(Duration::from_secs);
        let (solo, _) = Solo::established(config, open);
        let session = solo.ingress.session().expect("it is Established");
        let graceful = session.graceful_restart?;
        let long_lived = graceful.long_lived?;
        Some((long_lived.ipv4.as_secs(), long_lived.ipv6.as_secs(), long_lived.forwarding, graceful.kept()))
    };
    let v4 = FamilySet::from_iter([Family::Ipv4Unicast]);
    assert_eq!(agreed(Some(3600), 7200, open_with_restart()), Some((3600, 60, v4, FamilySet::all())));
    assert_eq!(agreed(Some(3600), 1800, open_with_restart()), Some((1800, 60, v4, FamilySet::all())));
    assert_eq!(agreed(None, 1800, open_with_restart()), None);
    assert_eq!(agreed(Some(3600), 1800, open()), None);
}

/// A peer that restarts, is back at once, and does so again before a session has lasted.
#[test]
fn who_restarts_a_few_times_in_short_order_is_let_in_each_time() {
    type End = fn(&mut Solo, weft_bgp::types::ConnectionId);
    let ends: [(&str, End, Option<Open>); 4] = [
        ("TCP closed", |solo, c| solo.close(c), Some(open_with_restart())),
        (
            "Administrative Reset",
            |solo, c| solo.send(c, &Message::Notification(Notification::cease(4, ""))),
            Some(restarting_open(true)),
        ),
        (
            "Other Configuration Change, without graceful restart",
            |solo, c| solo.send(c, &Message::Notification(Notification::cease(6, ""))),
            None,
        ),
        (
            "Administrative Reset, without graceful restart",
            |solo, c| solo.send(c, &Message::Notification(Notification::cease(4, ""))),
            None,
        ),
    ];
    for (name, end, said) in ends {
        let said = said.unwrap_or_else(open);
        let (mut solo, mut connection) = Solo::established(peer_config(65001, 65002), said.clone());
        for restart in 0..10 {
            solo.run_for(Duration::from_secs(2));
            end(&mut solo, connection);
            assert_eq!(solo.ingress.state(), State::Idle, "{name}, {restart}");
            let (until, _) = solo.ingress.next_deadline().expect("it waits");
            assert!(until - solo.now <= Duration::from_secs(1), "{name}, {restart}: {:?}", until - solo.now);
            solo.run_for(Duration::from_millis(100));
            connection = solo.accept();
            solo.send(connection, &Message::Open(said.clone()));
            solo.send(connection, &Message::Keepalive);
            assert_eq!(solo.ingress.state(), State::Established, "{name}, {restart}");
        }
        // Who never gets further fails.
        end(&mut solo, connection);
        let refused = solo.accept();
        assert!(solo.is_closed(refused), "{name}");
    }
}

/// What is wrong with a peer is no restart, though its routes are kept.
#[test]
fn an_error_is_damped_also_where_it_is_a_restart() {
    let (mut solo, mut connection) = Solo::established(peer_config(65001, 65002), restarting_open(true));
    for expected in [1, 2, 4] {
        solo.send(connection, &Message::Open(open()));
        assert_eq!(downs(&solo).pop(), Some(restart()));
        let refused = solo.accept();
        assert!(solo.is_closed(refused), "the peer has to wait");
        let (until, _) = solo.ingress.next_deadline().expect("it waits");
        assert!(until - solo.now > Duration::from_millis(700 * expected), "{expected} s");
        solo.run_for(until - solo.now);
        connection = solo.accept();
        solo.send(connection, &Message::Open(restarting_open(true)));
        solo.send(connection, &Message::Keepalive);
        assert_eq!(solo.ingress.state(), State::Established);
    }
}
