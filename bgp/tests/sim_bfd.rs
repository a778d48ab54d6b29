//! What BFD means to BGP (RFC 5882 section 4): the end of a path is the end of the session on it, and no more than that.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test")]

mod sim_support;

use std::net::IpAddr;
use std::time::Duration;

use sim_support::{LIMIT, Topology, established, start, v4};
use weft_bgp::bfd::{Change, Diagnostic, State};
use weft_bgp::sim::{SpeakerId, World};
use weft_bgp::speaker::{Input, SpeakerStart};
use weft_bgp::status::{Direction, LastError};
use weft_bgp::types::{FamilySet, PeerAddress};

const INSTANT: Duration = Duration::from_millis(1);
const DETECTION_TIME: Duration = Duration::from_millis(300);

/// Two speakers that know each other's routes.
fn pair() -> (World, Vec<SpeakerId>) {
    let mut world = World::new(1);
    let ids = Topology::mesh(2).build(&mut world, |n| 65000 + u32::try_from(n).unwrap(), |_, _| {});
    world.run_until_quiet(LIMIT).unwrap();
    assert_eq!(world.kernel(ids[0]).len(), 2);
    (world, ids)
}

fn peer() -> PeerAddress {
    IpAddr::from(v4(1)).into()
}

fn tell(world: &mut World, id: SpeakerId, state: State, diagnostic: Diagnostic, failed: bool) {
    world.tell(
        id,
        Input::Bfd { peer: peer(), change: Change { state, diagnostic, failed, silence: DETECTION_TIME } },
    );
    world.run_for(INSTANT).unwrap();
}

fn last_error(world: &World, id: SpeakerId) -> Option<LastError> {
    world.inspect(id).unwrap().peers()[0].last_error.clone()
}

/// Proves RFC 5882, RFC 9384.
#[test]
fn rfc5882_bfd_down_is_a_death_and_rfc9384_is_told_so() {
    let (mut world, ids) = pair();
    tell(&mut world, ids[0], State::Down, Diagnostic::CONTROL_DETECTION_TIME_EXPIRED, true);
    assert_eq!(established(&world, ids[0]), 0);
    assert!(world.kernel(ids[0]).is_empty(), "the paths go at once, though graceful restart was agreed on");
    world.run_for(Duration::from_millis(100)).unwrap();
    for (id, direction) in [(ids[0], Direction::Sent), (ids[1], Direction::Received)] {
        let error = last_error(&world, id).unwrap();
        // Within a Hard Reset: else the peer would take it for a restart (RFC 8538).
        assert_eq!((error.direction, error.code, error.subcode), (direction, Some(6), Some(9)), "{error:?}");
        assert!(error.text.ends_with("Cease/BFD Down"), "{error:?}");
    }
    // BFD that is not Up keeps nobody from coming back.
    world.run_for(Duration::from_secs(30)).unwrap();
    assert_eq!((established(&world, ids[0]), world.kernel(ids[0]).len()), (1, 2));
}

/// Proves RFC 5882.
#[test]
fn rfc5882_admin_down_and_a_session_that_comes_up_change_nothing() {
    let (mut world, ids) = pair();
    tell(&mut world, ids[0], State::Init, Diagnostic::NONE, false);
    tell(&mut world, ids[0], State::Up, Diagnostic::NONE, false);
    tell(&mut world, ids[0], State::Down, Diagnostic::NEIGHBOR_SIGNALED_SESSION_DOWN, false);
    assert_eq!((established(&world, ids[0]), world.kernel(ids[0]).len()), (1, 2));
    assert!(last_error(&world, ids[0]).is_none());
}

/// Proves RFC 5882.
#[test]
fn rfc5882_bfd_down_of_a_peer_in_its_restart_window_is_ignored() {
    let (mut world, ids) = pair();
    world.kill(ids[1]);
    world.run_for(Duration::from_secs(1)).unwrap();
    tell(&mut world, ids[0], State::Down, Diagnostic::CONTROL_DETECTION_TIME_EXPIRED, true);
    assert_eq!(world.kernel(ids[0]).len(), 2, "its routes are kept");
    world.restart(ids[1], SpeakerStart { restarting: true, forwarding: FamilySet::all(), ..start(1) }, true);
    world.run_for(Duration::from_secs(60)).unwrap();
    assert_eq!((established(&world, ids[0]), world.kernel(ids[0]).len()), (1, 2));
    // Back, it dies like any other.
    tell(&mut world, ids[0], State::Down, Diagnostic::CONTROL_DETECTION_TIME_EXPIRED, true);
    assert!(world.kernel(ids[0]).is_empty());
}

/// Proves RFC 5882.
#[test]
fn rfc5882_bfd_that_was_heard_since_bgp_is_back_counts_before_the_table_is_told() {
    let back = || {
        let (mut world, ids) = pair();
        world.kill(ids[1]);
        world.run_for(Duration::from_secs(1)).unwrap();
        world.restart(
            ids[1],
            SpeakerStart { restarting: true, forwarding: FamilySet::all(), ..start(1) },
            false,
        );
        while established(&world, ids[0]) == 0 {
            world.run_for(INSTANT).unwrap();
        }
        // Its End-of-RIB does not arrive any more.
        world.cut(ids[0], ids[1]);
        (world, ids)
    };
    // What is left of the session of before the restart expires.
    let (mut world, ids) = back();
    tell(&mut world, ids[0], State::Down, Diagnostic::CONTROL_DETECTION_TIME_EXPIRED, true);
    assert_eq!((established(&world, ids[0]), world.kernel(ids[0]).len()), (1, 2));
    // The same session, which the peer went on with after.
    let (mut world, ids) = back();
    world.run_for(DETECTION_TIME + INSTANT).unwrap();
    assert_eq!(established(&world, ids[0]), 1);
    tell(&mut world, ids[0], State::Down, Diagnostic::CONTROL_DETECTION_TIME_EXPIRED, true);
    assert_eq!((established(&world, ids[0]), world.kernel(ids[0]).len()), (0, 0));
}
