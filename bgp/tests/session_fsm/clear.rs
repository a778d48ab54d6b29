//! Sessions that a person begins anew, and refreshes that a person asks for.

use std::time::Duration;

use weft_bgp::ingress::{Down, IngressInput, IngressOutput};
use weft_bgp::session::State;
use weft_bgp::types::{Family, FamilySet};
use weft_bgp::wire::Message;
use weft_bgp::wire::capability::Capability;
use weft_bgp::wire::error::ErrorCode;
use weft_bgp::wire::route_refresh::RouteRefresh;

use crate::pair::{Pair, Side, peer_config};
use crate::solo::{Solo, open};

/// Proves RFC 4486 4.
#[test]
fn a_reset_is_an_administrative_reset_and_dials_at_once() {
    let (mut solo, connection) = Solo::established(peer_config(65001, 65002), open());
    solo.input(IngressInput::Reset);
    assert_eq!(solo.notification(connection).code, ErrorCode::ADMINISTRATIVE_RESET);
    assert_eq!(solo.count(|o| matches!(o, IngressOutput::Down(Down::Death))), 1, "without graceful restart");
    assert_eq!(solo.count(|o| matches!(o, IngressOutput::Dial { .. })), 1);
    assert_eq!(solo.ingress.state(), State::Connect);
    let again = solo.connect();
    solo.send(again, &Message::Open(open()));
    solo.send(again, &Message::Keepalive);
    assert_eq!(solo.ingress.state(), State::Established);
}

#[test]
fn a_session_that_was_reset_is_back_within_a_second_and_loses_no_route() {
    let mut pair = Pair::established(peer_config(65001, 65002), peer_config(65002, 65001));
    pair.run_for(Duration::from_secs(20));
    pair.input(Side::A, IngressInput::Reset);
    assert!(!pair.both(State::Established));
    assert!(pair.run_until(Duration::from_secs(1), |pair| pair.both(State::Established)));
    for side in [Side::A, Side::B] {
        let restarts =
            pair.end(side).log.iter().any(|o| matches!(o, IngressOutput::Down(Down::Restart { .. })));
        assert!(restarts, "RFC 8538: a reset is a restart where both ends say so");
    }
}

#[test]
fn a_reset_ends_a_wait_in_idle_but_no_shutdown() {
    let mut solo = Solo::new(peer_config(65001, 65002));
    solo.input(IngressInput::Cease { subcode: 6, text: String::new() });
    assert_eq!(solo.ingress.state(), State::Idle);
    solo.outputs.clear();
    solo.input(IngressInput::Reset);
    assert_eq!(solo.count(|o| matches!(o, IngressOutput::Dial { .. })), 1);

    let mut shut = peer_config(65001, 65002);
    shut.shutdown = Some("maintenance".into());
    let mut solo = Solo::new(shut);
    solo.input(IngressInput::Reset);
    assert_eq!((solo.ingress.state(), solo.outputs.len()), (State::Idle, 0));
}

/// Proves RFC 2918 4.
#[test]
fn a_refresh_is_asked_for_of_every_family_and_only_of_who_knows_it() {
    let (mut solo, connection) = Solo::established(peer_config(65001, 65002), open());
    solo.input(IngressInput::AskRefresh(FamilySet::all()));
    let wanted = Family::ALL.map(|family| {
        Message::RouteRefresh(RouteRefresh { family: family.into(), subtype: RouteRefresh::REQUEST })
    });
    assert_eq!(solo.written(connection), wanted);
    assert_eq!(solo.ingress.counters().sent[4], 2);
    solo.outputs.clear();
    solo.input(IngressInput::AskRefresh([Family::Ipv6Unicast].into_iter().collect()));
    assert_eq!(solo.written(connection), wanted[1..]);

    let mut without = open();
    without.capabilities.retain(|capability| *capability != Capability::RouteRefresh);
    let (mut solo, _) = Solo::established(peer_config(65001, 65002), without);
    solo.input(IngressInput::AskRefresh(FamilySet::all()));
    assert!(solo.outputs.is_empty(), "{:?}", solo.outputs);
}
