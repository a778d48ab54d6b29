//! Several paths of one prefix (RFC 7911), in and out.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod rib_support;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use rib_support::*;
use weft_bgp::config::{AddPath, AddPathSend, MaxPrefixes, PathChoice, PeerConfig};
use weft_bgp::ingress::{AddPathFamilies, Down, Session};
use weft_bgp::rib::{RibInput, Timer};
use weft_bgp::status::{PathStatus, RibView, RouteSelect};
use weft_bgp::types::{Asn, Family, FamilySet, PeerId};
use weft_bgp::wire::attributes::PathAttributes;

/// How many paths of a prefix a peer may have.
const PATHS_MAX: u32 = 64;

const ALL: AddPathSend = AddPathSend { paths: PathChoice::All, limit: 64 };

/// A peer that tells several paths.
fn teller(lab: &mut Lab, peer: u32) {
    lab.peer(peer, PeerConfig { add_path: AddPath { receive: true, send: None }, ..config() });
    lab.up(telling(peer));
}

fn telling(peer: u32) -> Session {
    let add_path = AddPathFamilies { receive: FamilySet::all(), ..<_>::default() };
    Session { add_path, ..session(peer, Asn(65001)) }
}

fn listener_config(send: AddPathSend) -> PeerConfig {
    PeerConfig { add_path: AddPath { receive: false, send: Some(send) }, ..config() }
}

/// A peer that is told several paths.
fn listener(lab: &mut Lab, peer: u32, send: AddPathSend) {
    lab.peer(peer, listener_config(send));
    let add_path = AddPathFamilies { send: FamilySet::all(), ..<_>::default() };
    lab.up(Session { add_path, ..session(peer, OWN) });
    lab.read_all();
}

/// A path that is told from the peer's others by its next hop.
fn over(next_hop: u8) -> PathAttributes {
    attributes(&[65001], &format!("192.0.2.{next_hop}"))
}

fn prefix() -> IpNet {
    net("10.1.0.0/16")
}

/// The next hops that a peer knows, by identifier.
fn heard(lab: &mut Lab, peer: u32) -> Vec<(u32, IpAddr)> {
    lab.read_all();
    lab.sink(peer).several.iter().map(|((_, id), attributes)| (*id, attributes.next_hop)).collect()
}

fn next_hops(heard: &[(u32, IpAddr)]) -> BTreeSet<IpAddr> {
    heard.iter().map(|(_, next_hop)| *next_hop).collect()
}

fn shown(lab: &Lab, view: RibView) -> Vec<PathStatus> {
    lab.rib.routes(view, RouteSelect::Exact(prefix())).into_iter().flat_map(|route| route.paths).collect()
}

/// Proves RFC 7911 3.
#[test]
fn a_path_is_replaced_and_withdrawn_by_its_identifier_alone() {
    let mut lab = Lab::advertising();
    teller(&mut lab, 1);
    for id in [0, 7, u32::MAX] {
        lab.path(1, id, Some(over(100)), &[prefix()]);
    }
    lab.path(1, 7, Some(over(101)), &[prefix()]);
    let view = RibView::In(address(1).into());
    let known = |lab: &Lab| -> Vec<(Option<u32>, IpAddr)> {
        let paths = shown(lab, view);
        paths.into_iter().map(|path| (path.path_id, path.attributes.next_hop)).collect()
    };
    let all =
        [(Some(0), ip("192.0.2.100")), (Some(7), ip("192.0.2.101")), (Some(u32::MAX), ip("192.0.2.100"))];
    assert_eq!(known(&lab), all);
    assert_eq!(lab.kernel[&prefix()].len(), 2, "one peer's paths are used beside each other");
    for _ in 0..2 {
        lab.path(1, 0, None, &[prefix()]);
        lab.path(1, 9, None, &[prefix()]);
        assert_eq!(known(&lab), all[1..]);
    }
    assert_eq!(lab.rib.family_status(PeerId(1), FamilySet::all())[0].received, 2);
    lab.down(1, Down::Death);
    assert_eq!((lab.rib.len(), lab.kernel.len()), (0, 0));
}

/// Proves RFC 7911 2.
#[test]
fn a_path_keeps_its_identifier_as_long_as_it_stands() {
    let mut lab = Lab::advertising();
    teller(&mut lab, 1);
    listener(&mut lab, 9, ALL);
    for hop in 100..105 {
        lab.path(1, hop.into(), Some(over(hop)), &[prefix()]);
    }
    let before = heard(&mut lab, 9);
    assert_eq!(before.len(), 5);
    assert_eq!(before.iter().map(|(id, _)| id).collect::<BTreeSet<_>>().len(), 5, "{before:?}");
    // Others go, come, and become better.
    lab.path(1, 100, None, &[prefix()]);
    lab.path(1, 102, None, &[prefix()]);
    lab.path(1, 200, Some(PathAttributes { med: Some(0), ..over(110) }), &[prefix()]);
    lab.path(1, 101, Some(PathAttributes { med: Some(9), ..over(101) }), &[prefix()]);
    let after = heard(&mut lab, 9);
    assert_eq!(after.len(), 4);
    for hop in ["192.0.2.101", "192.0.2.103", "192.0.2.104"] {
        let of = |heard: &[(u32, IpAddr)]| heard.iter().find(|(_, next_hop)| *next_hop == ip(hop)).copied();
        assert_eq!(of(&before), of(&after), "{hop}");
    }
    let withdrawn = lab.sink(9).withdrawn;
    assert!(withdrawn <= 2, "{withdrawn} paths withdrawn, of which two went");
}

/// Only those that are used, and of those no more than the limit; why not is said of each other.
#[test]
fn the_choice_and_the_limit_say_which_paths_are_told() {
    let mut lab = Lab::advertising();
    teller(&mut lab, 1);
    listener(&mut lab, 7, AddPathSend { paths: PathChoice::Multipath, limit: 64 });
    listener(&mut lab, 8, AddPathSend { paths: PathChoice::Multipath, limit: 2 });
    listener(&mut lab, 9, ALL);
    let longer = PathAttributes { as_path: path(&[65001, 64600]), ..over(104) };
    for hop in 100..103 {
        lab.path(1, hop.into(), Some(over(hop)), &[prefix()]);
    }
    lab.path(1, 1, Some(longer), &[prefix()]);
    let [three, two, four] = [7, 8, 9].map(|peer| heard(&mut lab, peer).len());
    assert_eq!((three, two, four), (3, 2, 4));
    let reasons = |lab: &Lab, peer| -> Vec<(String, bool)> {
        let paths = shown(lab, RibView::Out(address(peer).into()));
        paths.into_iter().map(|path| (path.reason.code.into_owned(), path.path_id.is_some())).collect()
    };
    let wanted = ["advertised", "advertised", "send-max", "not-multipath"];
    assert_eq!(reasons(&lab, 8), wanted.map(|code| (code.to_owned(), code == "advertised")));
    assert!(reasons(&lab, 9).iter().all(|(code, _)| code == "advertised"));
    // A change of the choice is told without a session's end, and only what differs.
    lab.peer(8, listener_config(ALL));
    let announced = lab.sink(8).announced;
    assert_eq!(heard(&mut lab, 8), heard(&mut lab, 9));
    assert_eq!(lab.sink(8).announced - announced, 2);
}

/// The third stage withholds from each what it told, path by path.
#[test]
fn who_told_a_path_is_not_told_it() {
    let mut lab = Lab::advertising();
    let both = AddPath { receive: true, send: Some(ALL) };
    let families = AddPathFamilies { receive: FamilySet::all(), send: FamilySet::all() };
    for peer in [1, 2] {
        lab.peer(peer, PeerConfig { add_path: both, route_reflector_client: true, ..config() });
        lab.up(Session { add_path: families, ..session(peer, OWN) });
    }
    for (peer, id, hop) in [(1, 5, "192.0.2.101"), (1, 6, "192.0.2.102"), (2, 5, "192.0.2.103")] {
        let attributes = PathAttributes { local_pref: Some(100), ..attributes(&[], hop) };
        lab.path(peer, id, Some(attributes), &[prefix()]);
    }
    let [one, two] = [1, 2].map(|peer| next_hops(&heard(&mut lab, peer)));
    assert_eq!(one, ["192.0.2.103"].map(ip).into());
    assert_eq!(two, ["192.0.2.101", "192.0.2.102"].map(ip).into());
    let out = shown(&lab, RibView::Out(address(1).into()));
    assert_eq!(out.iter().filter(|path| path.reason.code == "split-horizon").count(), 2);
    lab.path(1, 5, None, &[prefix()]);
    assert_eq!(next_hops(&heard(&mut lab, 2)), ["192.0.2.102"].map(ip).into());
}

/// What we originate has an identifier of its own, so that it is known who was told it.
#[test]
fn our_own_path_is_told_beside_those_of_others() {
    let mut lab = Lab::advertising();
    teller(&mut lab, 1);
    listener(&mut lab, 9, ALL);
    lab.path(1, 3, Some(over(100)), &[prefix()]);
    lab.configure(false, 16, [prefix()]);
    let told = heard(&mut lab, 9);
    assert_eq!(told.len(), 2, "{told:?}");
    let egress = &lab.egresses[&lab.group_of[&PeerId(9)]];
    assert_eq!(egress.told(&prefix()).collect::<Vec<_>>(), [PeerId(9)]);
    lab.configure(false, 16, []);
    assert_eq!(next_hops(&heard(&mut lab, 9)), ["192.0.2.100"].map(ip).into());
    let egress = &lab.egresses[&lab.group_of[&PeerId(9)]];
    assert_eq!(egress.told(&prefix()).count(), 0, "another's path is not ours");
}

/// A peer that makes up paths does not make a prefix dear: what it has stays, and more is refused and counted.
#[test]
fn a_peer_has_so_many_paths_of_a_prefix_and_no_more() {
    let mut lab = Lab::advertising();
    teller(&mut lab, 1);
    for id in 0..1000 {
        lab.path(1, id, Some(over(100)), &[prefix(), net("2001:db8:1::/48")]);
    }
    let status = |lab: &Lab, family: usize| lab.rib.family_status(PeerId(1), FamilySet::all())[family];
    for family in [0, 1] {
        let (received, refused) = (status(&lab, family).received, status(&lab, family).refused);
        assert_eq!((received, refused), (64, u64::from(1000 - PATHS_MAX)));
    }
    // What is known changes, what goes makes room, and other prefixes have theirs.
    lab.path(1, 63, Some(over(101)), &[prefix()]);
    lab.path(1, 5, None, &[prefix()]);
    lab.path(1, 2000, Some(over(100)), &[prefix(), net("10.2.0.0/16")]);
    assert_eq!((status(&lab, 0).received, status(&lab, 0).refused), (65, u64::from(1000 - PATHS_MAX)));
    assert_eq!(shown(&lab, RibView::In(address(1).into())).len(), 64);
    // The next session begins anew.
    lab.down(1, Down::Death);
    lab.up(telling(1));
    assert_eq!((status(&lab, 0).received, status(&lab, 0).refused), (0, 0));
}

/// What was refused comes back when there is room: the peer is asked, once in a while however many paths go.
/// Proves RFC 2918 3, RFC 7911.
#[test]
fn what_was_refused_is_asked_for_when_there_is_room() {
    let mut lab = Lab::advertising();
    teller(&mut lab, 1);
    let tell = |lab: &mut Lab, ids: std::ops::Range<u32>| {
        ids.for_each(|id| lab.path(1, id, Some(over(100)), &[prefix()]));
    };
    tell(&mut lab, 0..PATHS_MAX);
    lab.path(1, 5, None, &[prefix()]);
    assert_eq!(lab.rib.next_deadline(), None, "nothing was refused");
    tell(&mut lab, 0..PATHS_MAX + 2);
    let refused = |lab: &Lab| lab.rib.family_status(PeerId(1), FamilySet::all())[0].refused;
    lab.path(1, PATHS_MAX, None, &[prefix()]);
    assert_eq!((refused(&lab), lab.rib.next_deadline()), (2, None), "what is not there makes no room");
    lab.path(1, 0, None, &[prefix()]);
    let at = lab.now + Duration::from_secs(30);
    assert_eq!(lab.rib.next_deadline(), Some((at, Timer::AskAgain(PeerId(1)))));
    lab.now += Duration::from_secs(29);
    lab.path(1, 1, None, &[prefix()]);
    lab.input(RibInput::Tick);
    assert_eq!((lab.asked.len(), lab.rib.next_deadline().unwrap().0), (0, at), "once for both");
    lab.now = at;
    lab.input(RibInput::Tick);
    assert_eq!(lab.asked, [(PeerId(1), Family::Ipv4Unicast)]);
    tell(&mut lab, 2..PATHS_MAX + 2);
    let ids: Vec<_> =
        shown(&lab, RibView::In(address(1).into())).into_iter().filter_map(|path| path.path_id).collect();
    assert_eq!(ids, (2..PATHS_MAX + 2).collect::<Vec<_>>());
    assert_eq!((refused(&lab), lab.rib.next_deadline()), (0, None));

    // Another session begins anew, and whoever does not know the message is not asked.
    tell(&mut lab, 0..PATHS_MAX + 1);
    lab.path(1, 7, None, &[prefix()]);
    assert!(lab.rib.next_deadline().is_some());
    lab.down(1, Down::Death);
    lab.up(Session { route_refresh: false, ..telling(1) });
    assert_eq!(lab.rib.next_deadline(), None);
    tell(&mut lab, 0..PATHS_MAX + 1);
    lab.path(1, 7, None, &[prefix()]);
    assert_eq!((refused(&lab), lab.rib.next_deadline()), (1, None));
}

/// A peer that restarts need not call its paths as before: stale ones make room, and End-of-RIB takes those that are left.
/// Proves RFC 4724 4.2, RFC 7911.
#[test]
fn stale_paths_make_room_for_those_of_the_next_session() {
    let mut lab = Lab::advertising();
    let graceful_session = Session { graceful_restart: Some(graceful(FamilySet::all())), ..telling(1) };
    lab.peer(1, PeerConfig { add_path: AddPath { receive: true, send: None }, ..config() });
    lab.up(graceful_session.clone());
    for id in 0..PATHS_MAX {
        lab.path(1, id, Some(over(100)), &[prefix()]);
    }
    lab.down(1, Down::Restart { families: FamilySet::all(), restart_time: Duration::from_secs(120) });
    assert!(shown(&lab, RibView::Loc).iter().all(|path| path.stale));
    lab.up(graceful_session);
    for id in 1000..1040 {
        lab.path(1, id, Some(over(101)), &[prefix()]);
    }
    let status = |lab: &Lab| lab.rib.family_status(PeerId(1), FamilySet::all())[0];
    assert_eq!((status(&lab).received, status(&lab).stale, status(&lab).refused), (64, 24, 0));
    lab.input(RibInput::EndOfRib { peer: PeerId(1), family: Family::Ipv4Unicast });
    assert_eq!((status(&lab).received, status(&lab).stale), (40, 0));
    // A refresh: what is not told again goes, path by path (RFC 7313).
    lab.input(RibInput::RefreshBegins { peer: PeerId(1), family: Family::Ipv4Unicast });
    lab.path(1, 1007, Some(over(101)), &[prefix()]);
    lab.input(RibInput::RefreshEnds { peer: PeerId(1), family: Family::Ipv4Unicast });
    assert_eq!((status(&lab).received, status(&lab).stale), (1, 0));
    assert_eq!(shown(&lab, RibView::Loc)[0].path_id, Some(1007));
}

/// Paths count, as they are what takes memory.
#[test]
fn paths_count_against_the_limit_on_prefixes() {
    let mut lab = Lab::advertising();
    let limit = MaxPrefixes { limit: 3, warning: 3, action: weft_bgp::config::LimitAction::Stop };
    let add_path = AddPath { receive: true, send: None };
    lab.peer(1, PeerConfig { add_path, max_prefixes: Some(limit), ..config() });
    lab.up(telling(1));
    for id in 0..10 {
        lab.path(1, id, Some(over(100)), &[prefix()]);
    }
    assert_eq!(
        lab.rib.family_status(PeerId(1), FamilySet::all())[0].received,
        4,
        "nothing behind the first too many"
    );
}

/// More paths of a prefix than a word has bits: each has a number of its own.
#[test]
fn paths_of_many_peers_have_identifiers_of_their_own() {
    let mut lab = Lab::advertising();
    listener(&mut lab, 250, AddPathSend { paths: PathChoice::All, limit: 255 });
    for peer in 1..=4 {
        teller(&mut lab, peer);
        for id in 0..50 {
            let attributes = attributes(&[65001, 64000 + id], &format!("192.0.2.{}", 100 + peer));
            lab.path(peer, id, Some(attributes), &[prefix()]);
        }
    }
    let told = heard(&mut lab, 250);
    assert_eq!(told.len(), 200);
    assert_eq!(next_hops(&told).len(), 4);
    lab.path(2, 17, None, &[prefix()]);
    lab.path(4, 99, Some(over(111)), &[prefix()]);
    let again = heard(&mut lab, 250);
    assert_eq!(again.len(), 200);
    let stayed = told.iter().filter(|path| again.contains(path)).count();
    assert_eq!(stayed, 199);
}
