//! Messages other than OPEN and UPDATE.

use weft_bgp::ingress::IngressOutput;
use weft_bgp::session::State;
use weft_bgp::wire::ErrorCode;
use weft_bgp::wire::Message;

use crate::pair::peer_config;
use crate::solo::{Solo, open};

fn raw(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(19 + body.len()).unwrap().to_be_bytes();
    [&[0xff; 16][..], &length, &[kind], body].concat()
}

/// Bug class 5 (CVE-2022-37032, FRR): a CAPABILITY message, which nobody has agreed on, and a short one.
#[test]
fn a_capability_message_is_refused() {
    for body in [&[][..], &[0], &[0, 1], &[0, 1, 70, 0], &[0; 40]] {
        let (mut solo, connection) = Solo::established(peer_config(65001, 65002), open());
        solo.bytes(connection, &raw(6, body));
        let notification = solo.notification(connection);
        assert_eq!((notification.code, &notification.data[..]), (ErrorCode::BAD_MESSAGE_TYPE, &[6][..]));
    }
}

/// Bug class 14 (CVE-2023-41360, 7a110595c5, FRR): a ROUTE-REFRESH with a filter list that is cut short, or was not agreed on.
#[test]
fn a_route_refresh_with_a_filter_list_is_refused_by_its_length() {
    let whole = [0, 1, 0, 1, 1, 64, 0, 5, 0, 0, 0, 0, 1];
    for length in (0..=whole.len()).filter(|length| *length != 4) {
        let (mut solo, connection) = Solo::established(peer_config(65001, 65002), open());
        solo.bytes(connection, &raw(5, &whole[..length]));
        assert_eq!(solo.notification(connection).code.code, 1, "{length} octets");
        assert_eq!(solo.count(|output| matches!(output, IngressOutput::Refresh(_))), 0);
    }
}

/// Bug class 28 (CVE-2025-59688, BIRD): a NOTIFICATION with a message, of every code and length.
#[test]
fn a_notification_with_a_message_ends_the_session_and_nothing_else() {
    for code in 0..=10 {
        for subcode in 0..=12 {
            for data in [&[][..], &[0], &[200, b'x'], b"\x05hello", &[0xff; 4000]] {
                let (mut solo, connection) = Solo::established(peer_config(65001, 65002), open());
                solo.bytes(connection, &raw(3, &[&[code, subcode], data].concat()));
                assert_ne!(solo.ingress.state(), State::Established);
                assert_eq!(solo.written(connection), [], "a NOTIFICATION is never answered");
                let error = solo.ingress.last_error().unwrap();
                assert_eq!((error.code, error.subcode), (Some(code), Some(subcode)));
                // The peer may come back.
                solo.run_for(std::time::Duration::from_secs(120));
                let again = solo.accept();
                solo.send(again, &Message::Open(open()));
                solo.send(again, &Message::Keepalive);
                assert_eq!(solo.ingress.state(), State::Established);
            }
        }
    }
}
