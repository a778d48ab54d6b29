//! Every timer, in virtual time.

use std::time::Duration;

use weft_bgp::ingress::{Down, IngressInput, IngressOutput};
use weft_bgp::protection::Authentication;
use weft_bgp::session::{State, Timer};
use weft_bgp::wire::Message;
use weft_bgp::wire::error::ErrorCode;
use weft_bgp::wire::notification::Notification;
use weft_bgp::wire::open::Open;

use crate::authentication::{ao, md5};
use crate::pair::{Pair, Side, peer_config};
use crate::solo::{Solo, open};

fn dials(solo: &Solo) -> usize {
    solo.count(|output| matches!(output, IngressOutput::Dial { .. }))
}

/// Between three quarters of the seconds and all of them from now.
fn is_jittered(solo: &Solo, timer: Timer, seconds: u64) -> bool {
    let (deadline, which) = solo.ingress.next_deadline().expect("a timer runs");
    let wait = deadline - solo.now;
    which == timer && wait >= Duration::from_millis(seconds * 750) && wait <= Duration::from_secs(seconds)
}

/// Proves RFC 4271 8.2.2.
#[test]
fn connect_retry_dials_again_and_gives_the_old_dial_up() {
    let mut solo = Solo::new(peer_config(65001, 65002));
    assert_eq!((dials(&solo), solo.ingress.state()), (1, State::Connect), "the first try is at once");
    assert!(is_jittered(&solo, Timer::ConnectRetry, 5));
    solo.run_for(Duration::from_secs(60));
    let dialled = dials(&solo);
    assert!((12..=17).contains(&dialled), "{dialled} dials in 60 s");
    let closed = solo.count(|output| matches!(output, IngressOutput::Close { .. }));
    assert_eq!(closed, dialled - 1, "every dial but the last was given up");
}

#[test]
fn a_dial_without_an_answer_is_told_with_the_reason_that_it_mostly_has() {
    let mut config = peer_config(65001, 65002);
    for (authentication, text) in [
        (Authentication::None, "cannot connect: no answer"),
        (md5("secret"), "cannot connect: no answer: most often the other end has another password, or none"),
        (
            ao(&[(1, "secret")]),
            "cannot connect: no answer: most often the other end does not have the first of the TCP-AO keys, or has none",
        ),
    ] {
        config.authentication = authentication;
        let mut solo = Solo::new(config.clone());
        solo.run_for(Duration::from_secs(6));
        assert_eq!(solo.ingress.last_error().expect("an error").text, text);
        let told =
            |output: &IngressOutput| matches!(output, IngressOutput::Incident(i) if i.reason.text == text);
        assert_eq!(solo.count(told), 1);
    }
}

/// The reason of a drain is what people look for at the peers.
#[test]
fn what_the_peer_said_when_it_went_is_not_forgotten_for_a_dial_that_fails() {
    let shutdown = Notification::cease(2, "drained for a new kernel");
    let gone =
        [(shutdown.clone().into_hard_reset(), true), (shutdown, true), (Notification::cease(4, ""), false)];
    for (notification, stays) in gone {
        let (mut solo, connection) = Solo::established(peer_config(65001, 65002), open());
        let text = notification.describe();
        solo.send(connection, &Message::Notification(notification));
        solo.run_for(Duration::from_secs(2));
        let dialled = solo.connect();
        solo.close(dialled);
        solo.run_for(Duration::from_secs(30));
        assert!(dials(&solo) > 3);
        let last = &solo.ingress.last_error().expect("an error").text;
        assert_eq!((*last == text), stays, "{text}, then {last}");
    }
}

#[test]
fn a_refused_dial_waits_for_connect_retry_in_active() {
    let mut solo = Solo::new(peer_config(65001, 65002));
    let Some(IngressOutput::Dial { connection, .. }) = solo.outputs.first() else { panic!("no dial") };
    let connection = *connection;
    solo.input(IngressInput::ConnectFailed { connection, error: "refused".into() });
    assert_eq!(solo.ingress.state(), State::Active);
    assert!(is_jittered(&solo, Timer::ConnectRetry, 5));
}

#[test]
fn a_connection_lost_before_open_is_retried_without_idle_hold() {
    let mut solo = Solo::new(peer_config(65001, 65002));
    let connection = solo.connect();
    assert_eq!(solo.ingress.state(), State::OpenSent);
    solo.close(connection);
    assert_eq!(solo.ingress.state(), State::Active);
    assert!(is_jittered(&solo, Timer::ConnectRetry, 5));
}

/// Proves RFC 4271 8.2.2.
#[test]
fn open_sent_lasts_four_minutes() {
    let mut config = peer_config(65001, 65002);
    config.passive = true;
    let mut solo = Solo::new(config);
    let connection = solo.accept();
    solo.run_for(Duration::from_secs(239));
    assert_eq!(solo.ingress.state(), State::OpenSent);
    solo.run_for(Duration::from_secs(1));
    assert_eq!(solo.notification(connection).code, ErrorCode::HOLD_TIMER_EXPIRED);
}

/// Bug class 46 (4533dc6a, FRR): no hold timer in OpenConfirm.
#[test]
fn open_confirm_does_not_last_for_ever() {
    for (hold_time, seconds) in [(90, 90), (0, 240)] {
        let mut solo = Solo::new(peer_config(65001, 65002));
        let connection = solo.accept();
        solo.send(connection, &Message::Open(Open { hold_time, ..open() }));
        assert_eq!(solo.ingress.state(), State::OpenConfirm);
        solo.run_for(Duration::from_secs(seconds - 1));
        assert_eq!(solo.ingress.state(), State::OpenConfirm);
        solo.run_for(Duration::from_secs(1));
        assert_eq!(solo.notification(connection).code, ErrorCode::HOLD_TIMER_EXPIRED);
    }
}

/// Proves RFC 4271 6.5.
#[test]
fn the_hold_timer_ends_the_session_as_a_death() {
    let (mut solo, connection) = Solo::established(peer_config(65001, 65002), open());
    solo.run_for(Duration::from_secs(80));
    solo.send(connection, &Message::Keepalive);
    solo.run_for(Duration::from_secs(89));
    assert_eq!(solo.ingress.state(), State::Established, "a KEEPALIVE restarts it");
    solo.run_for(Duration::from_secs(1));
    assert_eq!(solo.notification(connection).code, ErrorCode::HOLD_TIMER_EXPIRED);
    assert_eq!(solo.count(|output| matches!(output, IngressOutput::Down(Down::Death))), 1);
}

#[test]
fn a_process_that_did_not_run_has_a_second_to_hear_its_peer_and_no_more() {
    let (mut solo, connection) = Solo::established(peer_config(65001, 65002), open());
    solo.now += Duration::from_secs(200);
    solo.input(IngressInput::HeldUp);
    solo.input(IngressInput::Tick);
    assert_eq!(solo.ingress.state(), State::Established, "what the peer said is not read yet");
    assert_eq!(solo.written(connection), [Message::Keepalive], "ours goes out at once");
    solo.send(connection, &Message::Keepalive);
    solo.run_for(Duration::from_secs(89));
    assert_eq!(solo.ingress.state(), State::Established);
    for _ in 0..5 {
        solo.now += Duration::from_millis(400);
        solo.input(IngressInput::HeldUp);
        solo.input(IngressInput::Tick);
    }
    assert_ne!(solo.ingress.state(), State::Established, "who is silent is not kept by being late again");
}

/// Proves RFC 4271 8.2.2.
#[test]
fn an_update_restarts_the_hold_timer_and_a_route_refresh_does_not() {
    let (mut solo, connection) = Solo::established(peer_config(65001, 65002), open());
    solo.run_for(Duration::from_secs(80));
    solo.bytes(connection, &Message::Update(vec![0; 4].into()).encode());
    solo.run_for(Duration::from_secs(80));
    assert_eq!(solo.ingress.state(), State::Established);
    solo.run_for(Duration::from_secs(10));
    assert_ne!(solo.ingress.state(), State::Established);
}

/// Proves RFC 4271 10.
#[test]
fn keepalives_go_out_at_a_third_of_the_hold_time_with_jitter() {
    let (mut solo, connection) = Solo::established(peer_config(65001, 65002), open());
    let mut waits = Vec::new();
    for _ in 0..20 {
        let (deadline, timer) = solo.ingress.next_deadline().expect("a timer runs");
        assert_eq!(timer, Timer::Keepalive);
        waits.push(deadline - solo.now);
        solo.run_for(deadline - solo.now);
        solo.send(connection, &Message::Keepalive);
    }
    let sent = solo.written(connection);
    assert_eq!(sent.len(), 20);
    assert!(sent.iter().all(|message| *message == Message::Keepalive));
    let (min, max) = (waits.iter().min().expect("20"), waits.iter().max().expect("20"));
    assert!(*min >= Duration::from_millis(22_500) && *max <= Duration::from_secs(30), "{min:?} to {max:?}");
    assert!(*max - *min > Duration::from_secs(1), "they vary: {min:?} to {max:?}");
}

/// Proves RFC 4271 8.1.1.
#[test]
fn delay_open_waits_for_the_peer_and_no_longer_than_told() {
    let mut config = peer_config(65001, 65002);
    config.passive = true;
    config.timers.delay_open = Some(Duration::from_secs(8));
    let mut solo = Solo::new(config.clone());
    let connection = solo.accept();
    assert_eq!((solo.written(connection).len(), solo.ingress.state()), (0, State::Active));
    solo.run_for(Duration::from_secs(8));
    assert!(matches!(solo.written(connection)[..], [Message::Open(_)]));
    assert_eq!(solo.ingress.state(), State::OpenSent);

    let mut solo = Solo::new(config);
    let connection = solo.accept();
    solo.send(connection, &Message::Open(open()));
    assert!(matches!(solo.written(connection)[..], [Message::Open(_), Message::Keepalive]));
    assert_eq!(solo.ingress.state(), State::OpenConfirm);
}

/// Makes our dial succeed and the peer answer with a bad OPEN; returns how long the wait in Idle then is.
fn fail_once(solo: &mut Solo) -> Duration {
    let connection = solo.connect();
    solo.send(connection, &Message::Open(Open { hold_time: 1, ..open() }));
    assert_eq!(solo.ingress.state(), State::Idle);
    let (deadline, timer) = solo.ingress.next_deadline().expect("it waits");
    assert_eq!(timer, Timer::IdleHold);
    let wait = deadline - solo.now;
    solo.run_for(wait);
    assert_eq!(solo.ingress.state(), State::Connect, "it dials when the wait is over");
    wait
}

/// Proves RFC 4271 8.1.1.
#[test]
fn idle_hold_doubles_from_one_second_to_sixty() {
    let mut solo = Solo::new(peer_config(65001, 65002));
    for expected in [1, 2, 4, 8, 16, 32, 60, 60] {
        let wait = fail_once(&mut solo);
        let range = Duration::from_millis(expected * 750)..=Duration::from_secs(expected);
        assert!(range.contains(&wait), "{wait:?}, not {range:?}");
    }
}

#[test]
fn idle_hold_is_forgotten_with_a_new_configuration() {
    let config = peer_config(65001, 65002);
    let mut solo = Solo::new(config.clone());
    for _ in 0..6 {
        fail_once(&mut solo);
    }
    let connection = solo.connect();
    solo.send(connection, &Message::Open(Open { hold_time: 1, ..open() }));
    let mut changed = config;
    changed.name = "changed".into();
    solo.input(IngressInput::Configure(changed.into()));
    assert_eq!(solo.ingress.state(), State::Connect, "it dials at once");
    assert!(fail_once(&mut solo) <= Duration::from_secs(1));
}

#[test]
fn idle_hold_is_forgotten_after_a_session_that_lasted() {
    let mut solo = Solo::new(peer_config(65001, 65002));
    for lasting in [Duration::from_secs(1), Duration::from_secs(30)] {
        for _ in 0..4 {
            fail_once(&mut solo);
        }
        let connection = solo.connect();
        solo.send(connection, &Message::Open(open()));
        solo.send(connection, &Message::Keepalive);
        assert_eq!(solo.ingress.state(), State::Established);
        solo.run_for(lasting);
        solo.close(connection);
        let (deadline, _) = solo.ingress.next_deadline().expect("it waits");
        let forgotten = deadline - solo.now <= Duration::from_secs(1);
        assert_eq!(forgotten, lasting > Duration::from_secs(10), "after {lasting:?}");
        solo.run_for(deadline - solo.now);
    }
}

#[test]
fn the_same_seed_gives_the_same_session() {
    let run = || {
        let mut solo = Solo::new(peer_config(65001, 65002));
        let start = solo.now;
        let mut deadlines = Vec::new();
        while deadlines.len() < 20 {
            let (deadline, timer) = solo.ingress.next_deadline().expect("it retries");
            deadlines.push((deadline - start, timer));
            solo.run_for(deadline - solo.now);
        }
        deadlines
    };
    assert_eq!(run(), run());
}

#[test]
fn silence_between_two_ends_is_noticed_by_both() {
    let mut pair = Pair::established(peer_config(65001, 65002), peer_config(65002, 65001));
    pair.run_for(Duration::from_secs(3600));
    assert!(pair.both(State::Established));
    let counters = pair.end(Side::A).ingress.counters();
    assert!((120..=161).contains(&counters.sent[3]), "{} KEEPALIVEs in an hour", counters.sent[3]);
    pair.latency = Duration::from_secs(1000);
    pair.run_for(Duration::from_secs(91));
    assert!(!pair.both(State::Established));
    for side in [Side::A, Side::B] {
        assert_eq!(pair.end(side).ingress.counters().flaps, 1);
    }
}
