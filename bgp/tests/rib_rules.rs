//! What takes part in the decision, what does not, and what the RIB says of it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod rib_support;

use std::sync::Arc;
use std::time::Duration;

use rib_support::*;
use weft_bgp::config::PeerConfig;
use weft_bgp::ingress::{Down, PeerGracefulRestart, Session};
use weft_bgp::policy::{Policy, Rule, Verdict};
use weft_bgp::rib::{RibInput, Timer};
use weft_bgp::speaker::{Resolution, TrackedNextHop};
use weft_bgp::status::{PathStatus, Rejections, RibView, RouteSelect};
use weft_bgp::types::{Asn, Family, FamilySet, PeerId, Reason};
use weft_bgp::wire::attributes::{GRACEFUL_SHUTDOWN, PathAttributes, Segment, SegmentKind};

const PREFIX: &str = "10.1.0.0/16";

/// A speaker with the external peers 1 (AS 65001) and 2 (AS 65002) and the internal peer 3.
fn lab(tracking: bool) -> Lab {
    let mut lab = Lab::advertising();
    lab.configure(tracking, 16, []);
    for (peer, asn) in [(1, Asn(65001)), (2, Asn(65002)), (3, OWN)] {
        lab.peer(peer, config());
        lab.up(session(peer, asn));
    }
    lab
}

fn paths(lab: &Lab) -> Vec<PathStatus> {
    let routes = lab.rib.routes(RibView::Loc, RouteSelect::Exact(net(PREFIX)));
    routes.into_iter().next().map(|route| route.paths).unwrap_or_default()
}

/// The code of the only path's reason.
fn code(lab: &Lab) -> String {
    let paths = paths(lab);
    assert_eq!(paths.len(), 1, "{paths:?}");
    paths[0].reason.code.to_string()
}

fn rejecting(code: &'static str) -> Arc<Policy> {
    Arc::new(Policy {
        rules: vec![Rule::new(Verdict::Reject(Reason::new(code, "rejected")))],
        unmatched: Reason::new("unmatched", "no rule matches"),
    })
}

/// Proves RFC 4271 9.1.2.
#[test]
fn the_own_as_is_counted_against_the_number_allowed() {
    let mut lab = lab(false);
    lab.announce(1, attributes(&[65001, 65000, 65000], "192.0.2.1"), &[net(PREFIX)]);
    assert_eq!(code(&lab), "own-as-in-path");
    let text = &paths(&lab)[0].reason.text;
    assert!(text.contains("numAllowedLocalASNumbers") && text.contains("localASNumber"), "{text}");
    lab.peer(1, PeerConfig { allowed_own_as: 1, ..config() });
    assert_eq!(code(&lab), "own-as-in-path");
    lab.peer(1, PeerConfig { allowed_own_as: 2, ..config() });
    assert_eq!(code(&lab), "best");
}

/// It takes the place of what the peer told before, as a withdraw, and where it is permitted it is told to those alone that permit it too.
/// Proves RFC 9774 3.
#[test]
fn a_path_with_a_set_is_as_good_as_withdrawn() {
    for kind in [SegmentKind::Set, SegmentKind::ConfedSet] {
        let mut lab = lab(false);
        let mut set = attributes(&[65001], "192.0.2.1");
        set.as_path.0.push(Segment { kind, asns: vec![Asn(64601), Asn(64602)] });
        let as_sets = |lab: &Lab| {
            let rejected = lab.rib.family_status(PeerId(1), FamilySet::all())[0].rejected;
            let count = rejected.iter().find(|(code, _)| *code == "as-set").map_or(0, |(_, count)| *count);
            assert_eq!(lab.rib.rejections(PeerId(1)).as_set, (count > 0).then_some((count, net(PREFIX))));
            count
        };
        lab.announce(1, attributes(&[65001], "192.0.2.1"), &[net(PREFIX)]);
        lab.read_all();
        assert!(lab.kernel.contains_key(&net(PREFIX)) && lab.sink(2).table.contains_key(&net(PREFIX)));
        lab.announce(1, set.clone(), &[net(PREFIX)]);
        lab.read_all();
        assert_eq!((code(&lab), as_sets(&lab)), ("as-set".to_owned(), 1), "{kind:?}");
        assert!(lab.kernel.is_empty() && lab.sink(2).table.is_empty());

        // Permitted, without a word to the session: another AS is told no confederation segment anyway.
        let permits = || PeerConfig { allow_as_sets: true, ..config() };
        lab.peer(1, permits());
        lab.read_all();
        assert_eq!((code(&lab), as_sets(&lab)), ("best".to_owned(), 0));
        let external = kind == SegmentKind::ConfedSet;
        let told = |lab: &Lab| [2, 3].map(|peer| lab.sink(peer).table.contains_key(&net(PREFIX)));
        assert_eq!(told(&lab), [external, false], "{kind:?}");
        let view = RibView::Out(address(3).into());
        let out = lab.rib.routes(view, RouteSelect::Exact(net(PREFIX))).remove(0).paths.remove(0);
        assert_eq!((out.valid, &*out.reason.code), (false, "as-set"));
        lab.peer(2, permits());
        lab.peer(3, permits());
        lab.read_all();
        assert_eq!(told(&lab), [true, true]);
        lab.peer(1, config());
        lab.read_all();
        assert_eq!((told(&lab), as_sets(&lab)), ([false, false], 1));
    }
}

#[test]
fn the_as_of_the_session_counts_as_own_too() {
    let mut lab = lab(false);
    let mut session = session(4, Asn(65004));
    session.local_as = Asn(65100);
    lab.peer(4, PeerConfig { local_as: Asn(65100), ..config() });
    lab.up(session);
    lab.announce(4, attributes(&[65004, 65100], "192.0.2.4"), &[net(PREFIX)]);
    assert_eq!(code(&lab), "own-as-in-path");
    lab.announce(4, attributes(&[65004, 65000], "192.0.2.4"), &[net(PREFIX)]);
    assert_eq!(code(&lab), "own-as-in-path");
}

#[test]
fn the_policy_is_asked_first_so_that_own_as_means_only_the_own_as() {
    let mut lab = lab(false);
    lab.peer(1, PeerConfig { import: rejecting("own-block"), ..config() });
    lab.announce(1, attributes(&[65001, 65000], "192.0.2.1"), &[net(PREFIX)]);
    assert_eq!(code(&lab), "own-block");
}

#[test]
fn paths_that_are_ours_or_lie_about_their_as_take_no_part() {
    let mut lab = lab(false);
    let cases: [(u32, PathAttributes, &str); 4] = [
        (1, attributes(&[65002], "192.0.2.1"), "first-as"),
        (1, attributes(&[], "192.0.2.1"), "first-as"),
        (1, attributes(&[65001], "192.0.2.255"), "own-next-hop"),
        (
            3,
            PathAttributes { originator_id: Some([9, 9, 9, 9].into()), ..attributes(&[], "192.0.2.3") },
            "own-originator",
        ),
    ];
    for (peer, attributes, expected) in cases {
        lab.announce(peer, attributes, &[net(PREFIX)]);
        assert_eq!(code(&lab), expected);
        assert!(lab.kernel.is_empty());
        lab.withdraw(peer, &[net(PREFIX)]);
    }
}

#[test]
fn an_address_that_becomes_ours_is_a_next_hop_no_more() {
    let mut lab = lab(false);
    lab.announce(1, attributes(&[65001], "192.0.2.77"), &[net(PREFIX)]);
    assert_eq!(code(&lab), "best");
    let mut other = session(4, Asn(65004));
    other.local = (ip("192.0.2.77"), 179).into();
    lab.peer(4, config());
    lab.up(other);
    assert_eq!(code(&lab), "own-next-hop");
    lab.down(4, Down::Death);
    assert_eq!(code(&lab), "best");
}

#[test]
fn a_link_local_next_hop_of_no_link_leads_nowhere() {
    // Not even where nothing is asked of the kernel.
    let mut lab = lab(false);
    let path = PathAttributes { next_hop: ip("fe80::9"), ..attributes(&[65001], "192.0.2.1") };
    lab.announce(1, path, &[net("2001:db8:9::/48")]);
    let paths = lab.rib.routes(RibView::Loc, RouteSelect::All);
    let reasons: Vec<_> =
        paths.iter().flat_map(|route| &route.paths).map(|path| path.reason.code.as_ref()).collect();
    assert_eq!((reasons, lab.kernel.len()), (vec!["next-hop-unresolved"], 0));
}

#[test]
fn an_external_next_hop_must_be_on_link_unless_multihop() {
    let mut lab = lab(true);
    lab.announce(1, attributes(&[65001], "192.0.2.1"), &[net(PREFIX)]);
    assert_eq!(code(&lab), "next-hop-unresolved");
    lab.next_hop("192.0.2.1", Resolution::Gateway { metric: 5 });
    assert_eq!(code(&lab), "next-hop-not-on-link");
    lab.peer(1, PeerConfig { ebgp_multihop: true, ..config() });
    assert_eq!(code(&lab), "best");
    lab.peer(1, config());
    lab.next_hop("192.0.2.1", Resolution::OnLink);
    assert_eq!((code(&lab).as_str(), lab.kernel.len()), ("best", 1));
    lab.next_hop("192.0.2.1", Resolution::Unresolved);
    assert_eq!((code(&lab).as_str(), lab.kernel.len()), ("next-hop-unresolved", 0));
    lab.configure(false, 16, []);
    assert_eq!((code(&lab).as_str(), lab.tracked.len()), ("best", 0));
}

#[test]
fn only_an_internal_next_hop_may_resolve_by_the_default_route() {
    let mut lab = lab(true);
    lab.announce(1, attributes(&[65001], "192.0.2.9"), &[net(PREFIX)]);
    lab.announce(3, attributes(&[65007], "192.0.2.9"), &[net(PREFIX)]);
    let tracked = |default_route| TrackedNextHop { address: ip("192.0.2.9"), default_route, link: None };
    assert_eq!(lab.tracked.iter().copied().collect::<Vec<_>>(), [tracked(false), tracked(true)]);
}

#[test]
fn another_metric_is_another_decision() {
    let mut lab = lab(true);
    let tracked = |text| TrackedNextHop { address: ip(text), default_route: true, link: None };
    lab.peer(4, config());
    lab.up(session(4, OWN));
    lab.announce(3, attributes(&[65007], "192.0.2.3"), &[net(PREFIX)]);
    lab.announce(4, attributes(&[65008], "192.0.2.4"), &[net(PREFIX)]);
    for (next_hop, metric) in [("192.0.2.3", 10), ("192.0.2.4", 20)] {
        let resolution = Resolution::Gateway { metric };
        lab.input(RibInput::NextHops(vec![(tracked(next_hop), resolution)]));
    }
    assert_eq!(lab.kernel[&net(PREFIX)], [tracked("192.0.2.3")]);
    let codes: Vec<_> = paths(&lab).into_iter().map(|path| path.reason.code).collect();
    assert_eq!(codes, ["best", "igp-metric"]);
    let resolution = Resolution::Gateway { metric: 30 };
    lab.input(RibInput::NextHops(vec![(tracked("192.0.2.3"), resolution)]));
    assert_eq!(lab.kernel[&net(PREFIX)], [tracked("192.0.2.4")]);
}

#[test]
fn what_we_originate_wins_and_needs_no_route_in_the_kernel() {
    let mut lab = lab(false);
    lab.announce(1, attributes(&[65001], "192.0.2.1"), &[net(PREFIX)]);
    lab.configure(false, 16, [net(PREFIX)]);
    let codes: Vec<_> = paths(&lab).into_iter().map(|path| (path.peer, path.reason.code)).collect();
    assert_eq!(codes, [(None, "best".into()), (Some(address(1).into()), "locally-originated".into())]);
    assert!(lab.kernel.is_empty());
    lab.configure(false, 16, []);
    assert_eq!(lab.kernel.len(), 1);
}

/// Proves RFC 8326 4.
#[test]
fn an_external_path_that_is_about_to_go_is_the_last_choice() {
    let mut lab = lab(false);
    let going = PathAttributes { communities: vec![GRACEFUL_SHUTDOWN], ..attributes(&[65001], "192.0.2.1") };
    lab.announce(1, going.clone(), &[net(PREFIX)]);
    lab.read_all();
    // Without another it is used, and the other routers of the AS are told what it is worth.
    assert_eq!((paths(&lab)[0].best, paths(&lab)[0].attributes.local_pref), (true, Some(0)));
    assert_eq!(lab.sink(3).table[&net(PREFIX)].local_pref, Some(0));
    lab.announce(2, attributes(&[65002, 65009], "192.0.2.2"), &[net(PREFIX)]);
    let last = &paths(&lab)[1];
    assert_eq!((last.peer, last.reason.code.as_ref()), (Some(address(1).into()), "local-pref"));
    assert!(last.reason.text.contains("GRACEFUL_SHUTDOWN"), "{}", last.reason.text);
    // It is no longer about to go: the shorter path wins.
    lab.announce(1, PathAttributes { communities: vec![], ..going }, &[net(PREFIX)]);
    assert_eq!((paths(&lab)[0].peer, paths(&lab)[0].attributes.local_pref), (Some(address(1).into()), None));
}

/// Proves RFC 4271 9.1.2.2.
#[test]
fn equal_paths_are_used_together_in_the_order_of_the_tie_breaks() {
    let mut lab = lab(false);
    lab.announce(2, attributes(&[65002], "192.0.2.2"), &[net(PREFIX)]);
    lab.announce(1, attributes(&[65001], "192.0.2.1"), &[net(PREFIX)]);
    lab.announce(3, attributes(&[65003], "192.0.2.3"), &[net(PREFIX)]);
    let used: Vec<_> = lab.kernel[&net(PREFIX)].iter().map(|hop| hop.address).collect();
    assert_eq!(used, [ip("192.0.2.1"), ip("192.0.2.2")]);
    let paths = paths(&lab);
    let flags: Vec<_> = paths.iter().map(|p| (p.best, p.multipath, p.reason.code.as_ref())).collect();
    assert_eq!(flags, [(true, false, "best"), (false, true, "multipath"), (false, false, "ibgp")]);
    lab.configure(false, 1, []);
    assert_eq!(lab.kernel[&net(PREFIX)].len(), 1);
}

#[test]
fn a_new_import_policy_works_on_what_was_kept() {
    let mut lab = lab(false);
    lab.announce(1, attributes(&[65001], "192.0.2.1"), &[net(PREFIX)]);
    lab.peer(1, PeerConfig { import: rejecting("duplicate-origin"), ..config() });
    assert_eq!(code(&lab), "duplicate-origin");
    assert_eq!(lab.alarms, [(PeerId(1), net(PREFIX))]);
    let status = lab.rib.family_status(PeerId(1), FamilySet::all())[0];
    assert_eq!((status.received, status.accepted), (1, 0));
    lab.read_all();
    assert!(lab.kernel.is_empty() && lab.sink(2).table.is_empty());
    lab.peer(1, config());
    assert_eq!(code(&lab), "best");
    lab.read_all();
    assert_eq!(lab.sink(2).table.len(), 1);
}

#[test]
fn queries_find_prefixes_by_name_and_by_address() {
    let mut lab = lab(false);
    let nets = [net("10.1.2.0/24"), net(PREFIX), net("2001:db8::/32")];
    lab.announce(1, attributes(&[65001], "192.0.2.1"), &nets[..2]);
    lab.announce(1, attributes(&[65001], "2001:db8::1"), &nets[2..]);
    let found = |view, select| -> Vec<String> {
        lab.rib.routes(view, select).iter().map(|route| route.prefix.to_string()).collect()
    };
    assert_eq!(found(RibView::Loc, RouteSelect::All), ["10.1.0.0/16", "10.1.2.0/24", "2001:db8::/32"]);
    assert_eq!(found(RibView::Loc, RouteSelect::LongestMatch(ip("10.1.2.3"))), ["10.1.2.0/24"]);
    assert_eq!(found(RibView::Loc, RouteSelect::LongestMatch(ip("10.1.3.3"))), [PREFIX]);
    assert!(found(RibView::Loc, RouteSelect::LongestMatch(ip("11.1.3.3"))).is_empty());
    assert!(found(RibView::In(address(2).into()), RouteSelect::All).is_empty());
    assert_eq!(found(RibView::In(address(1).into()), RouteSelect::All).len(), 3);
    assert_eq!(found(RibView::Out(address(2).into()), RouteSelect::All).len(), 3);
    assert!(found(RibView::Out(address(99).into()), RouteSelect::All).is_empty());
    let why = |peer| {
        let routes = lab.rib.routes(RibView::Out(address(peer).into()), RouteSelect::Exact(net(PREFIX)));
        let path = routes[0].paths[0].clone();
        (path.valid, path.reason.code.to_string())
    };
    assert_eq!(why(1), (false, "split-horizon".into()));
    assert_eq!(why(2), (true, "advertised".into()));
    assert!(found(RibView::Out(address(1).into()), RouteSelect::All).is_empty());
}

fn restart(families: FamilySet) -> Down {
    Down::Restart { families, restart_time: Duration::from_secs(60) }
}

fn told_both_families(lab: &mut Lab) {
    lab.announce(1, attributes(&[65001], "192.0.2.1"), &[net(PREFIX)]);
    lab.announce(1, attributes(&[65001], "2001:db8::1"), &[net("2001:db8:1::/48")]);
}

fn stale(lab: &Lab) -> Vec<(usize, usize)> {
    let status = lab.rib.family_status(PeerId(1), FamilySet::all());
    status.iter().map(|status| (status.received, status.stale)).collect()
}

#[test]
fn a_restart_keeps_the_families_it_names_and_takes_part_as_before() {
    let mut lab = lab(false);
    told_both_families(&mut lab);
    lab.down(1, restart([Family::Ipv4Unicast].into_iter().collect()));
    assert_eq!(stale(&lab), [(1, 1), (0, 0)]);
    let path = &paths(&lab)[0];
    assert!(path.stale && path.best);
    assert_eq!(lab.rib.next_deadline().unwrap().1, Timer::StaleRoutes(PeerId(1)));
    assert_eq!(lab.rib.stale_until(PeerId(1)), Some(lab.now + Duration::from_secs(60)));
}

/// Proves RFC 4724 4.2.
#[test]
fn a_family_whose_forwarding_state_was_lost_is_not_kept() {
    let mut lab = lab(false);
    told_both_families(&mut lab);
    lab.down(1, restart(FamilySet::all()));
    let mut back = session(1, Asn(65001));
    back.graceful_restart = Some(graceful([Family::Ipv6Unicast].into_iter().collect()));
    lab.up(back);
    assert_eq!(stale(&lab), [(0, 0), (1, 1)]);
}

#[test]
fn without_graceful_restart_on_return_nothing_is_kept() {
    let mut lab = lab(false);
    told_both_families(&mut lab);
    lab.down(1, restart(FamilySet::all()));
    lab.up(session(1, Asn(65001)));
    assert_eq!((stale(&lab), lab.rib.next_deadline()), (vec![(0, 0), (0, 0)], None));
}

/// Proves RFC 4724 4.2.
#[test]
fn a_second_restart_drops_what_was_stale_since_the_first() {
    let mut lab = lab(false);
    told_both_families(&mut lab);
    lab.down(1, restart(FamilySet::all()));
    let mut back = session(1, Asn(65001));
    back.graceful_restart = Some(graceful(FamilySet::all()));
    lab.up(back);
    lab.announce(1, attributes(&[65001], "192.0.2.1"), &[net(PREFIX)]);
    assert_eq!(stale(&lab), [(1, 0), (1, 1)]);
    lab.down(1, restart(FamilySet::all()));
    assert_eq!(stale(&lab), [(1, 1), (0, 0)]);
}

/// With the N bit a session may flap: what is stale stays through it, but a timer bounds it all.
/// Proves RFC 8538.
#[test]
fn rfc8538_a_second_restart_keeps_what_is_stale_for_three_minutes_in_all() {
    let mut lab = lab(false);
    let back = || {
        let mut back = session(1, Asn(65001));
        let graceful = graceful(FamilySet::all());
        back.graceful_restart = Some(PeerGracefulRestart { notification: true, ..graceful });
        back
    };
    lab.down(1, Down::Death);
    lab.up(back());
    told_both_families(&mut lab);
    lab.down(1, restart(FamilySet::all()));
    let first = lab.now;
    for seconds in [50, 50, 50] {
        lab.now += Duration::from_secs(seconds);
        lab.up(back());
        lab.down(1, restart(FamilySet::all()));
        assert_eq!(stale(&lab), [(1, 1), (1, 1)]);
    }
    assert_eq!(lab.rib.stale_until(PeerId(1)), Some(first + Duration::from_secs(180)));
    lab.now = first + Duration::from_secs(180);
    lab.input(RibInput::Tick);
    assert_eq!((stale(&lab), lab.rib.next_deadline()), (vec![(0, 0), (0, 0)], None));
}

#[test]
fn end_of_rib_sweeps_the_family_that_it_is_of() {
    let mut lab = lab(false);
    told_both_families(&mut lab);
    lab.down(1, restart(FamilySet::all()));
    let mut back = session(1, Asn(65001));
    back.graceful_restart = Some(graceful(FamilySet::all()));
    lab.up(back);
    lab.input(RibInput::EndOfRib { peer: PeerId(1), family: Family::Ipv6Unicast });
    assert_eq!(stale(&lab), [(1, 1), (0, 0)]);
    lab.input(RibInput::EndOfRib { peer: PeerId(1), family: Family::Ipv4Unicast });
    assert_eq!((stale(&lab), lab.rib.next_deadline()), (vec![(0, 0), (0, 0)], None));
}

#[test]
fn who_is_back_and_never_says_end_of_rib_is_swept_after_the_restart_time() {
    let mut lab = lab(false);
    told_both_families(&mut lab);
    lab.down(1, restart(FamilySet::all()));
    lab.now += Duration::from_secs(59);
    let mut back = session(1, Asn(65001));
    back.graceful_restart = Some(graceful(FamilySet::all()));
    lab.up(back);
    lab.announce(1, attributes(&[65001], "192.0.2.1"), &[net(PREFIX)]);
    let (deadline, _) = lab.rib.next_deadline().unwrap();
    lab.now = deadline;
    lab.input(RibInput::Tick);
    assert_eq!(stale(&lab), [(1, 0), (0, 0)]);
}

#[test]
fn a_peer_that_comes_back_without_a_family_loses_that_one() {
    let mut lab = lab(false);
    told_both_families(&mut lab);
    lab.down(1, restart(FamilySet::all()));
    let v4: FamilySet = [Family::Ipv4Unicast].into_iter().collect();
    let mut back = session(1, Asn(65001));
    (back.families, back.graceful_restart) = (v4, Some(PeerGracefulRestart { families: v4, ..graceful(v4) }));
    lab.up(back);
    assert_eq!(stale(&lab), [(1, 1), (0, 0)]);
}

/// Proves RFC 7313.
#[test]
fn rfc7313_what_is_not_told_again_goes_at_the_end_of_a_refresh() {
    let mut lab = lab(false);
    let (kept, gone) = (net(PREFIX), net("10.2.0.0/16"));
    let family = Family::Ipv4Unicast;
    lab.announce(1, attributes(&[65001], "192.0.2.1"), &[kept, gone]);
    lab.announce(1, attributes(&[65001], "2001:db8::1"), &[net("2001:db8:1::/48")]);
    lab.input(RibInput::RefreshEnds { peer: PeerId(1), family });
    assert_eq!(stale(&lab), [(2, 0), (1, 0)], "an end without a beginning");
    lab.input(RibInput::RefreshBegins { peer: PeerId(1), family });
    assert_eq!(stale(&lab), [(2, 2), (1, 0)]);
    assert_eq!((lab.kernel.len(), lab.rib.stale_until(PeerId(1))), (3, None), "nothing moves");
    lab.announce(1, attributes(&[65001], "192.0.2.1"), &[kept]);
    lab.input(RibInput::EndOfRib { peer: PeerId(1), family });
    assert_eq!(stale(&lab), [(2, 1), (1, 0)], "End-of-RIB is of the table before");
    lab.input(RibInput::RefreshEnds { peer: PeerId(1), family });
    assert_eq!(stale(&lab), [(1, 0), (1, 0)]);
    assert_eq!((lab.kernel.contains_key(&gone), lab.rib.next_deadline()), (false, None));
}

/// Proves RFC 7313.
#[test]
fn rfc7313_a_refresh_without_an_end_is_over_after_five_minutes() {
    let mut lab = lab(false);
    told_both_families(&mut lab);
    lab.input(RibInput::RefreshBegins { peer: PeerId(1), family: Family::Ipv4Unicast });
    assert_eq!(lab.rib.next_deadline().unwrap().0, lab.now + Duration::from_secs(300));
    lab.now += Duration::from_secs(300);
    lab.input(RibInput::Tick);
    assert_eq!((stale(&lab), lab.rib.next_deadline()), (vec![(0, 0), (1, 0)], None));
}

/// Routes that wait to be told again were not taken back: a restart keeps them.
/// Proves RFC 7313.
#[test]
fn rfc7313_a_restart_in_a_refresh_keeps_all_routes() {
    let mut lab = lab(false);
    let mut up = session(1, Asn(65001));
    up.graceful_restart = Some(graceful(FamilySet::all()));
    lab.down(1, Down::Death);
    lab.up(up);
    told_both_families(&mut lab);
    lab.input(RibInput::RefreshBegins { peer: PeerId(1), family: Family::Ipv4Unicast });
    lab.down(1, restart(FamilySet::all()));
    assert_eq!(stale(&lab), [(1, 1), (1, 1)]);
    assert_eq!(lab.rib.stale_until(PeerId(1)), Some(lab.now + Duration::from_secs(60)));
}

#[test]
fn a_death_while_away_takes_the_stale_routes() {
    let mut lab = lab(false);
    told_both_families(&mut lab);
    lab.down(1, restart(FamilySet::all()));
    lab.down(1, Down::Death);
    assert!(lab.rib.is_empty() && lab.kernel.is_empty());
    assert_eq!(lab.rib.next_deadline(), None);
}

#[test]
fn routes_of_a_session_that_is_gone_or_of_another_family_are_dropped() {
    let mut lab = lab(false);
    let mut narrow = session(4, Asn(65004));
    narrow.families = [Family::Ipv4Unicast].into_iter().collect();
    lab.peer(4, config());
    lab.up(narrow);
    lab.announce(4, attributes(&[65004], "2001:db8::4"), &[net("2001:db8:1::/48")]);
    assert!(lab.rib.is_empty());
    lab.down(4, Down::Death);
    lab.announce(4, attributes(&[65004], "192.0.2.4"), &[net(PREFIX)]);
    assert!(lab.rib.is_empty());
}

/// A peer's BGP identifier is a tie-break: when it restarts with another one, the decision is made again, though it tells the same.
#[test]
fn a_peer_that_is_back_under_another_identifier_is_decided_on_anew() {
    let mut lab = lab(false);
    lab.configure(false, 1, []);
    let kept = || Session { graceful_restart: Some(graceful(FamilySet::all())), ..session(1, Asn(65001)) };
    lab.up(kept());
    lab.announce(1, attributes(&[65001], "192.0.2.1"), &[net(PREFIX)]);
    lab.announce(2, attributes(&[65002], "192.0.2.2"), &[net(PREFIX)]);
    assert_eq!(lab.kernel[&net(PREFIX)][0].address, ip("192.0.2.1"));
    lab.down(1, Down::Restart { families: FamilySet::all(), restart_time: Duration::from_secs(120) });
    lab.up(Session { remote_id: [9, 0, 0, 1].into(), ..kept() });
    lab.announce(1, attributes(&[65001], "192.0.2.1"), &[net(PREFIX)]);
    assert_eq!(paths(&lab)[0].peer, Some(address(2).into()));
    assert_eq!(lab.kernel[&net(PREFIX)][0].address, ip("192.0.2.2"));
}

#[test]
fn many_next_hops_are_answered_at_once() {
    let mut lab = lab(true);
    for peer in [1, 2] {
        lab.announce(peer, attributes(&[65000 + peer], &format!("192.0.2.{peer}")), &[net(PREFIX)]);
    }
    assert!(lab.kernel.is_empty());
    let answers = ["192.0.2.1", "192.0.2.2", "192.0.2.77"].map(|hop| {
        (TrackedNextHop { address: ip(hop), default_route: false, link: None }, Resolution::OnLink)
    });
    lab.input(RibInput::NextHops(answers.to_vec()));
    assert_eq!(lab.kernel[&net(PREFIX)].len(), 2);
}

#[test]
fn what_points_at_a_mistake_is_counted_with_an_example() {
    let mut lab = lab(false);
    let rejections = |lab: &Lab| lab.rib.rejections(PeerId(1));
    assert_eq!(rejections(&lab), Rejections::default());
    lab.announce(1, attributes(&[65001, OWN.0], "192.0.2.1"), &[net(PREFIX), net("2001:db8::/32")]);
    lab.announce(2, attributes(&[65002, OWN.0], "192.0.2.2"), &[net(PREFIX)]);
    lab.announce(1, attributes(&[65001], "192.0.2.1"), &[net("10.2.0.0/16")]);
    assert_eq!(rejections(&lab).own_as, Some((2, net(PREFIX))));
    lab.withdraw(1, &[net(PREFIX)]);
    assert_eq!(rejections(&lab).own_as, Some((1, net("2001:db8::/32"))));
    lab.peer(1, PeerConfig { import: rejecting("duplicate-origin"), ..config() });
    assert_eq!(
        rejections(&lab),
        Rejections { duplicate_origin: Some((2, net("2001:db8::/32"))), ..Rejections::default() }
    );
    lab.down(1, Down::Death);
    assert_eq!(rejections(&lab), Rejections::default());
}

#[test]
fn routes_are_given_in_pieces() {
    let mut lab = lab(false);
    let prefixes: Vec<_> = (0..10).map(|n| net(&format!("10.{n}.0.0/16"))).collect();
    lab.announce(1, attributes(&[65001], "192.0.2.1"), &prefixes);
    lab.announce(2, attributes(&[65002], "192.0.2.2"), &prefixes[7..]);
    for (view, all) in [(RibView::Loc, &prefixes[..]), (RibView::In(address(2).into()), &prefixes[7..])] {
        let (mut routes, mut from) = (vec![], Some(0));
        while let Some(place) = from {
            let (piece, next) = lab.rib.routes_from(view, place, 3);
            assert!(piece.len() <= 3);
            routes.extend(piece.into_iter().map(|route| route.prefix));
            from = next;
        }
        routes.sort();
        assert_eq!(routes, all);
    }
}
