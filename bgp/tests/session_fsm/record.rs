//! What is remembered of a session for those who ask.

use std::time::Duration;

use weft_bgp::ingress::IngressInput;
use weft_bgp::session::{State, Timer};
use weft_bgp::wire::Message;
use weft_bgp::wire::error::ErrorCode;
use weft_bgp::wire::notification::Notification;

use crate::pair::{ADDRESS_A, ADDRESS_B, peer_config};
use crate::solo::{Solo, message, open};

#[test]
fn opens_and_ends_are_those_of_the_sessions_connection() {
    let (mut solo, _) = Solo::established(peer_config(65001, 65002), open());
    let dialogue = solo.ingress.said().dialogue.expect("there is a connection");
    assert_eq!((dialogue.local, dialogue.remote), ((ADDRESS_A, 179).into(), (ADDRESS_B, 40_000).into()));
    assert_eq!(message(&dialogue.open_received), Message::Open(open()));
    assert!(matches!(message(&dialogue.open_sent), Message::Open(ours) if ours.my_as == 65001));

    // Another connection that comes to nothing.
    solo.accept();
    assert_eq!(solo.ingress.said().dialogue, Some(dialogue.clone()));
    solo.input(IngressInput::Cease { subcode: 4, text: String::new() });
    let last = solo.ingress.said().dialogue.expect("the last one is remembered");
    assert!(last.open_received.is_empty(), "{last:?}");
}

#[test]
fn timers_say_when_they_expire() {
    let (mut solo, _) = Solo::established(peer_config(65001, 65002), open());
    let timers = solo.ingress.timers();
    assert_eq!(timers.keys().copied().collect::<Vec<_>>(), [Timer::Hold, Timer::Keepalive]);
    assert_eq!(timers[&Timer::Hold], solo.now + Duration::from_secs(90));
    assert_eq!(solo.ingress.established_at(), Some(solo.now));
    let up = solo.now;
    solo.run_for(Duration::from_secs(91));
    assert_ne!(solo.ingress.state(), State::Established);
    assert!(!solo.ingress.timers().contains_key(&Timer::Hold));
    assert_eq!(solo.ingress.established_at(), Some(up), "the last time that it was");
}

#[test]
fn the_last_notification_of_either_direction_is_kept_whole() {
    let (mut solo, connection) = Solo::established(peer_config(65001, 65002), open());
    let told = Notification::cease(ErrorCode::ADMINISTRATIVE_SHUTDOWN.subcode, "maintenance");
    solo.send(connection, &Message::Notification(told.clone()));
    let received = solo.ingress.said().notification_received.expect("one came");
    assert_eq!((received.at, received.notification), (solo.now, told.clone()));
    assert_eq!(solo.ingress.said().notification_sent, None);

    solo.run_for(Duration::from_secs(10));
    let connection = solo.accept();
    solo.bytes(connection, &[0; 19]);
    let said = solo.ingress.said();
    let sent = said.notification_sent.expect("the header is wrong");
    assert_eq!((sent.at, sent.notification.code), (solo.now, ErrorCode::CONNECTION_NOT_SYNCHRONIZED));
    assert_eq!(said.notification_received.expect("it is still the last").notification, told);
}
