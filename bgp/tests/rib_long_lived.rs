//! Long-lived graceful restart (RFC 9494): paths of a peer that stays away, as the last choice.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod rib_support;

use std::time::Duration;

use rib_support::*;
use weft_bgp::config::PeerConfig;
use weft_bgp::ingress::{Down, LongLived, PeerGracefulRestart, Session};
use weft_bgp::policy::{Operation, Policy, Rule, Verdict};
use weft_bgp::rib::RibInput;
use weft_bgp::status::{PathStatus, RibView, RouteSelect};
use weft_bgp::types::{Asn, Family, FamilySet, PeerId, Reason};
use weft_bgp::wire::attributes::{LLGR_STALE, NO_LLGR, PathAttributes};

const V4: &str = "10.1.0.0/16";
const V6: &str = "2001:db8:1::/48";
const RESTART: Duration = Duration::from_secs(120);
const LONG: Duration = Duration::from_secs(3600);

/// A session with peer 1 on which IPv4 is kept for an hour more, and IPv6 is not.
fn kept() -> Session {
    let long_lived = LongLived { ipv4: LONG, ipv6: Duration::ZERO, forwarding: FamilySet::all() };
    let graceful = PeerGracefulRestart { long_lived: Some(long_lived), ..graceful(FamilySet::all()) };
    Session { graceful_restart: Some(graceful), ..session(1, Asn(65001)) }
}

/// Peer 1 as in [`kept`], peer 2 (AS 65002) that has no long-lived graceful restart, and peer 3 (AS 65003) that has it.
fn lab() -> Lab {
    let mut lab = Lab::advertising();
    lab.configure(false, 16, []);
    for session in [
        kept(),
        session(2, Asn(65002)),
        Session { graceful_restart: kept().graceful_restart, ..session(3, Asn(65003)) },
    ] {
        let peer = u32::from_be_bytes(session.remote_id.octets());
        lab.peer(peer, config());
        lab.up(session);
    }
    lab.announce(1, attributes(&[65001], "192.0.2.1"), &[net(V4)]);
    lab.announce(1, attributes(&[65001], "2001:db8::1"), &[net(V6)]);
    lab.read_all();
    lab
}

fn restart() -> Down {
    Down::Restart { families: FamilySet::all(), restart_time: RESTART }
}

fn pass(lab: &mut Lab, time: Duration) {
    lab.now += time;
    lab.input(RibInput::Tick);
    lab.read_all();
}

/// Peer 1 has been away for longer than its restart time.
fn away() -> Lab {
    let mut lab = lab();
    lab.down(1, restart());
    pass(&mut lab, RESTART);
    lab
}

fn paths(lab: &Lab) -> Vec<PathStatus> {
    let routes = lab.rib.routes(RibView::Loc, RouteSelect::Exact(net(V4)));
    routes.into_iter().next().map(|route| route.paths).unwrap_or_default()
}

/// Received, stale, and whether these are long-lived; by family.
fn status(lab: &Lab) -> Vec<(usize, usize, bool)> {
    let status = lab.rib.family_status(PeerId(1), FamilySet::all());
    status.iter().map(|s| (s.received, s.stale, s.long_lived)).collect()
}

/// Proves RFC 9494.
#[test]
fn rfc9494_paths_outlive_the_restart_time_family_by_family() {
    let mut lab = away();
    assert_eq!(status(&lab), [(1, 1, true), (0, 0, false)]);
    let path = &paths(&lab)[0];
    assert!(path.best && path.stale);
    assert_eq!(path.attributes.communities, [LLGR_STALE]);
    assert_eq!(lab.rib.stale_until(PeerId(1)), Some(lab.now + LONG));
    pass(&mut lab, LONG);
    assert!(lab.rib.is_empty() && lab.kernel.is_empty());
    assert_eq!(lab.rib.next_deadline(), None);
}

/// Proves RFC 9494.
#[test]
fn rfc9494_any_other_path_is_better() {
    let mut lab = away();
    lab.announce(2, attributes(&[65002, 65009, 65010], "192.0.2.2"), &[net(V4)]);
    let paths = paths(&lab);
    assert_eq!(paths[0].peer, Some(address(2).into()));
    assert_eq!((paths[1].valid, &*paths[1].reason.code), (true, "long-lived-stale"));

    // Marked by somebody else, it is the last choice as well.
    let marked = PathAttributes { communities: vec![LLGR_STALE], ..attributes(&[65001], "192.0.2.1") };
    lab.up(kept());
    lab.announce(1, marked, &[net(V4)]);
    assert_eq!(self::paths(&lab)[0].peer, Some(address(2).into()));
}

/// Proves RFC 9494.
#[test]
fn rfc9494_no_llgr_goes_with_the_restart_time() {
    let mut lab = lab();
    let short = PathAttributes { communities: vec![NO_LLGR], ..attributes(&[65001], "192.0.2.1") };
    lab.announce(1, short, &[net(V4)]);
    lab.announce(1, attributes(&[65001], "192.0.2.1"), &[net("10.2.0.0/16")]);
    lab.down(1, restart());
    assert_eq!(status(&lab)[0], (2, 2, false));
    pass(&mut lab, RESTART);
    assert_eq!(status(&lab)[0], (1, 1, true));
    assert!(paths(&lab).is_empty());
}

/// Proves RFC 9494.
#[test]
fn rfc9494_what_import_policy_made_of_a_path_stays_beside_the_mark() {
    let rule = |operations: Vec<Operation>| {
        let unmatched = Reason::new("unmatched", "no rule matches");
        let import = Policy { rules: vec![Rule::new(Verdict::AcceptWith(operations.into()))], unmatched };
        PeerConfig { import: import.into(), ..config() }
    };
    let mut lab = lab();
    lab.peer(1, rule(vec![Operation::SetMed(7), Operation::SetLocalPreference(300)]));
    lab.down(1, restart());
    pass(&mut lab, RESTART);
    let long_lived = &paths(&lab)[0];
    assert_eq!(long_lived.attributes.communities, [LLGR_STALE]);
    assert_eq!((long_lived.attributes.med, long_lived.attributes.local_pref), (Some(7), Some(300)));
    // Its preference makes it no better than a fresh one.
    lab.announce(2, attributes(&[65002], "192.0.2.2"), &[net(V4)]);
    assert_eq!(paths(&lab)[0].peer, Some(address(2).into()));
    lab.withdraw(2, &[net(V4)]);

    // What it was received as is marked, whatever is made of it: a fresh announcement has neither.
    lab.up(kept());
    lab.peer(1, rule(vec![]));
    lab.announce(1, attributes(&[65001], "192.0.2.1"), &[net(V4)]);
    let fresh = &paths(&lab)[0];
    assert!(fresh.best && !fresh.stale);
    assert_eq!((fresh.attributes.communities.len(), fresh.attributes.med), (0, None));
}

/// Proves RFC 9494.
#[test]
fn rfc9494_only_who_understands_it_is_told_of_it() {
    let mut lab = away();
    assert!(!lab.sink(2).table.contains_key(&net(V4)), "withdrawn");
    assert_eq!(lab.sink(3).table[&net(V4)].communities, [LLGR_STALE]);
    let why = |peer: u32| {
        let routes = lab.rib.routes(RibView::Out(address(peer).into()), RouteSelect::Exact(net(V4)));
        routes[0].paths[0].reason.code.to_string()
    };
    assert_eq!((why(2), why(3)), ("long-lived-stale".into(), "advertised".into()));

    lab.up(kept());
    lab.announce(1, attributes(&[65001], "192.0.2.1"), &[net(V4)]);
    lab.read_all();
    assert!(lab.sink(2).table.contains_key(&net(V4)));
    assert!(lab.sink(3).table[&net(V4)].communities.is_empty());
}

/// Proves RFC 9494.
#[test]
fn rfc9494_the_peer_is_back_and_they_stay_until_end_of_rib_if_it_kept_forwarding() {
    let mut lab = away();
    lab.announce(2, attributes(&[65002], "192.0.2.2"), &[net("10.2.0.0/16")]);
    lab.up(kept());
    assert_eq!(status(&lab)[0], (1, 1, true));
    lab.input(RibInput::EndOfRib { peer: PeerId(1), family: Family::Ipv4Unicast });
    assert_eq!((status(&lab)[0], lab.rib.next_deadline()), ((0, 0, false), None));

    let mut lab = away();
    let mut cold = kept();
    if let Some(long_lived) = cold.graceful_restart.as_mut().and_then(|graceful| graceful.long_lived.as_mut())
    {
        long_lived.forwarding = FamilySet::EMPTY;
    }
    lab.up(cold);
    assert_eq!(status(&lab)[0], (0, 0, false));

    let mut lab = away();
    lab.up(Session { graceful_restart: Some(graceful(FamilySet::all())), ..session(1, Asn(65001)) });
    assert_eq!(status(&lab)[0], (0, 0, false), "it has no long-lived graceful restart any more");
}

/// A peer that comes and goes keeps its paths, but not for longer than if it had stayed away.
/// Proves RFC 9494.
#[test]
fn rfc9494_flapping_does_not_put_the_end_off() {
    let mut lab = away();
    let end = lab.now + LONG;
    for _ in 0..3 {
        pass(&mut lab, Duration::from_secs(600));
        lab.up(kept());
        lab.down(1, restart());
        assert_eq!(status(&lab)[0], (1, 1, false));
        pass(&mut lab, RESTART);
        assert_eq!(status(&lab)[0], (1, 1, true));
        assert_eq!(paths(&lab)[0].attributes.communities, [LLGR_STALE]);
        assert_eq!(lab.rib.stale_until(PeerId(1)), Some(end));
    }
    lab.now = end;
    pass(&mut lab, Duration::ZERO);
    assert!(lab.rib.is_empty());
}

/// A family may be kept for long without a restart time before.
/// Proves RFC 9494.
#[test]
fn rfc9494_a_family_without_graceful_restart_is_long_lived_at_once() {
    let mut lab = lab();
    let mut alone = kept();
    alone.graceful_restart.as_mut().unwrap().families = FamilySet::EMPTY;
    let families = alone.graceful_restart.unwrap().kept();
    assert_eq!(families, [Family::Ipv4Unicast].into_iter().collect());
    lab.down(1, Down::Death);
    lab.up(alone);
    lab.announce(1, attributes(&[65001], "192.0.2.1"), &[net(V4)]);
    lab.announce(1, attributes(&[65001], "2001:db8::1"), &[net(V6)]);
    lab.down(1, Down::Restart { families, restart_time: RESTART });
    pass(&mut lab, Duration::ZERO);
    assert_eq!(status(&lab), [(1, 1, true), (0, 0, false)]);
}
