//! What a peer is told, through the RIB, the egress and the wire.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod rib_support;

use ipnet::{IpNet, Ipv4Net};
use rib_support::*;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;
use weft_bgp::config::{AddPath, AddPathSend, NextHopMode, PathChoice, PeerConfig};
use weft_bgp::egress::{CREDIT, EgressInput};
use weft_bgp::ingress::{AddPathFamilies, Down, Session};
use weft_bgp::policy::{Community, Operation, Policy, Rule, Verdict};
use weft_bgp::rib::RibInput;
use weft_bgp::status::{RibView, RouteSelect};
use weft_bgp::types::{Asn, Family, FamilySet, PeerId};
use weft_bgp::wire::attributes::{GRACEFUL_SHUTDOWN, UnknownAttribute};

fn many(count: u32) -> Vec<IpNet> {
    let net = |i: u32| IpNet::V4(Ipv4Net::new(Ipv4Addr::from(0x0A00_0000 + (i << 8)), 24).unwrap());
    (0..count).map(net).collect()
}

/// A speaker between an injector of AS 65001 (peer 1) and a sink of AS 65002 (peer 2).
fn between() -> Lab {
    between_with_credit(weft_bgp::egress::CREDIT)
}

fn between_with_credit(credit: usize) -> Lab {
    let mut lab = Lab::advertising();
    lab.credit = credit;
    for (peer, asn) in [(1, 65001), (2, 65002)] {
        lab.peer(peer, config());
        lab.up(session(peer, Asn(asn)));
    }
    lab
}

#[test]
fn prefixes_with_one_attribute_set_fill_as_few_updates_as_they_can() {
    let mut lab = between();
    let prefixes = many(3000);
    lab.announce(1, attributes(&[65001], "192.0.2.1"), &prefixes);
    lab.read_all();
    let sink = lab.sink(2);
    // 23 octets of header and lengths, 4 + 4 + 7 of ORIGIN, AS_PATH with two ASNs: 3 + 2 + 8, NEXT_HOP 7; 4 octets per /24.
    let per_message = (4096 - 23 - 4 - 13 - 7) / 4;
    assert_eq!(sink.table.len(), 3000);
    assert_eq!(sink.updates, 3000usize.div_ceil(per_message));
    lab.withdraw(1, &prefixes);
    lab.read_all();
    assert!(lab.sink(2).table.is_empty());
    assert_eq!(lab.sink(2).updates - 3000usize.div_ceil(per_message), 3000usize.div_ceil((4096 - 23) / 4));
}

/// Proves RFC 4724 4.
#[test]
fn a_new_peer_gets_the_table_and_then_end_of_rib_of_each_family() {
    let mut lab = Lab::advertising();
    lab.peer(1, config());
    lab.up(session(1, Asn(65001)));
    lab.announce(1, attributes(&[65001], "192.0.2.1"), &many(100));
    lab.peer(2, config());
    lab.up(session(2, Asn(65002)));
    lab.read_all();
    assert_eq!(lab.sink(2).end_of_rib, [Family::Ipv4Unicast, Family::Ipv6Unicast]);
    assert_eq!((lab.sink(2).table.len(), lab.sink(1).table.len()), (100, 0));
    // Peers on equal terms share a group, and with it the bytes.
    assert_eq!(lab.egresses.len(), 1);
}

#[test]
fn what_the_only_peer_of_a_group_tells_is_kept_for_the_next_one() {
    let kept = |lab: &Lab| lab.egresses.values().map(|egress| egress.keys().count()).sum::<usize>();
    let (first, second) = (net("10.0.0.0/24"), net("10.0.1.0/24"));
    let mut lab = Lab::advertising();
    lab.configure(false, 1, [net("10.9.0.0/16")]);
    lab.peer(1, config());
    lab.up(session(1, Asn(65001)));
    lab.announce(1, attributes(&[65001], "192.0.2.1"), &[first, second]);
    lab.read_all();
    assert_eq!((kept(&lab), lab.sink(1).table.len()), (1, 1), "our own prefix is all that there is to tell");

    lab.peer(2, config());
    lab.up(session(2, Asn(65002)));
    lab.announce(2, attributes(&[65002], "192.0.2.2"), &[net("10.0.2.0/24")]);
    lab.read_all();
    assert_eq!((lab.egresses.len(), lab.sink(2).table.len(), lab.sink(1).table.len()), (1, 3, 2));

    // Who stays is alone again: the group lets go of what it has of him as that changes, and he hears nothing of it.
    lab.down(2, Down::Death);
    lab.withdraw(1, &[first]);
    lab.announce(1, attributes(&[65001, 65009], "192.0.2.1"), &[second]);
    lab.read_all();
    assert_eq!((kept(&lab), lab.sink(1).table.len()), (1, 1));
    lab.up(session(2, Asn(65002)));
    lab.read_all();
    let told: Vec<_> = lab.sink(2).table.keys().copied().collect();
    assert_eq!(told, [second, net("10.9.0.0/16")]);
}

#[test]
fn peers_at_one_place_share_their_bytes() {
    let mut lab = between();
    lab.peer(3, config());
    lab.up(session(3, Asn(65003)));
    lab.read_all();
    lab.announce(1, attributes(&[65001], "192.0.2.1"), &many(10));
    let (a, b) = (&lab.sink(2).unread[0], &lab.sink(3).unread[0]);
    assert_eq!(a.as_ptr(), b.as_ptr());
}

/// After a restart, of a peer that is told the best path alone and of one that is told several.
/// Proves RFC 4724 4.1.
#[test]
fn what_we_originate_is_told_at_once_and_what_was_learned_when_all_is_there() {
    let several = AddPathSend { paths: PathChoice::All, limit: 8 };
    let send = AddPathFamilies { send: FamilySet::all(), ..<_>::default() };
    let mut lab = Lab::new();
    lab.configure(false, 1, [net("10.0.0.0/24")]);
    for (peer, asn) in [(1, 65001), (2, 65002)] {
        lab.peer(peer, config());
        lab.up(session(peer, Asn(asn)));
    }
    let with = AddPath { send: Some(several), receive: false };
    lab.peer(3, PeerConfig { add_path: with, ..config() });
    lab.up(Session { add_path: send, ..session(3, Asn(65003)) });
    lab.announce(1, attributes(&[65001], "192.0.2.1"), &[net("10.0.1.0/24"), net("10.0.0.0/24")]);
    lab.read_all();
    let ends = |lab: &Lab| [1, 2, 3].map(|peer| lab.sink(peer).end_of_rib.len());
    assert_eq!(lab.sink(2).table.keys().collect::<Vec<_>>(), [&net("10.0.0.0/24")]);
    assert_eq!(lab.sink(3).several.keys().collect::<Vec<_>>(), [&(net("10.0.0.0/24"), 1)]);
    assert_eq!(ends(&lab), [0; 3], "there is more to come");
    let view = RibView::Out(address(2).into());
    let learned = lab.rib.routes(view, RouteSelect::Exact(net("10.0.1.0/24"))).remove(0).paths.remove(0);
    assert_eq!((learned.valid, &*learned.reason.code), (false, "deferred"));

    // The policy is another, and with it the update group: it is still too soon.
    lab.peer(2, PeerConfig { next_hop_mode: NextHopMode::Own, ..config() });
    lab.read_all();
    assert_eq!((lab.sink(2).table.len(), ends(&lab)), (1, [0; 3]));

    lab.input(RibInput::Advertise);
    let before = lab.sink(2).announced;
    lab.read_all();
    assert_eq!((lab.sink(1).table.len(), lab.sink(2).table.len(), lab.sink(3).several.len()), (1, 2, 3));
    assert_eq!(ends(&lab), [2; 3]);
    assert_eq!(lab.sink(2).announced - before, 1, "what was told is not told again");
    lab.peer(4, config());
    lab.up(session(4, Asn(65004)));
    lab.read_all();
    assert_eq!((lab.sink(4).table.len(), lab.sink(4).end_of_rib.len()), (2, 2));
}

#[test]
fn a_peer_that_does_not_read_gets_the_last_state_only_and_bounded_bytes() {
    let mut lab = between();
    lab.peer(3, config());
    lab.up(session(3, Asn(65003)));
    let prefixes = many(2000);
    for round in 0..100u32 {
        let mut attributes = attributes(&[65001, 1000 + round], "192.0.2.1");
        attributes.communities = (0..50).collect();
        lab.announce(1, attributes, &prefixes);
        lab.read(2, usize::MAX);
        assert!(lab.outstanding(3) <= CREDIT + 128 * 1024, "{} octets queued", lab.outstanding(3));
    }
    assert_eq!(lab.sink(2).announced, 100 * 2000);
    lab.read(3, usize::MAX);
    assert_eq!(lab.sink(3).table, lab.sink(2).table);
    assert!(lab.sink(3).announced < 60 * 2000, "{} announcements", lab.sink(3).announced);
}

#[test]
fn prefixes_that_come_and_go_while_a_peer_does_not_read_leave_nothing() {
    let mut lab = between();
    lab.peer(3, config());
    lab.up(session(3, Asn(65003)));
    lab.read_all();
    let fill = many(8_000);
    for (i, prefix) in fill.iter().enumerate() {
        let asn = 1 + u32::try_from(i).unwrap();
        lab.announce(1, attributes(&[65001, asn], "192.0.2.1"), std::slice::from_ref(prefix));
        lab.withdraw(1, std::slice::from_ref(prefix));
        lab.read(2, usize::MAX);
    }
    lab.read(3, usize::MAX);
    assert!(lab.sink(3).table.is_empty());
    assert!(lab.rib.is_empty());
    let group = lab.group_of[&PeerId(3)];
    assert_eq!(lab.egresses[&group].advertised(PeerId(3), Family::Ipv4Unicast), 0);
}

/// Two internal peers are told the same: what leads to one of them is told to the other alone, whatever they were told before.
/// Proves RFC 4271 5.1.3.
#[test]
fn a_route_is_not_told_to_its_next_hop() {
    let mut lab = Lab::advertising();
    lab.peer(1, config());
    lab.up(session(1, Asn(65001)));
    for peer in [2, 3] {
        lab.peer(peer, config());
        lab.up(session(peer, OWN));
    }
    let prefix = net("10.0.0.0/24");
    let reason = |lab: &Lab, peer| {
        let view = RibView::Out(address(peer).into());
        let path = lab.rib.routes(view, RouteSelect::Exact(prefix)).remove(0).paths.remove(0);
        (path.valid, path.reason.code.into_owned())
    };
    for (next_hop, told, untold) in [("192.0.2.2", 3, 2), ("192.0.2.3", 2, 3)] {
        lab.announce(1, attributes(&[65001], next_hop), &[prefix]);
        lab.read_all();
        assert_eq!(lab.sink(told).table[&prefix].next_hop, ip(next_hop));
        assert!(lab.sink(untold).table.is_empty(), "{next_hop} is {untold} itself");
        assert_eq!(reason(&lab, told), (true, "advertised".to_owned()));
        assert_eq!(reason(&lab, untold), (false, "peer-next-hop".to_owned()));
    }
    assert_eq!(lab.egresses.len(), 2, "the two are told the same but for that");
    lab.announce(1, attributes(&[65001], "192.0.2.9"), &[prefix]);
    lab.read_all();
    assert!([2, 3].iter().all(|peer| lab.sink(*peer).table.contains_key(&prefix)));
}

/// An external peer whose next hops are kept is told a third one's, and not its own.
/// Proves RFC 4271 5.1.3.
#[test]
fn a_route_of_a_third_party_is_not_told_to_that_third_party() {
    let mut lab = Lab::advertising();
    for (peer, asn) in [(1, 65001), (2, 65002), (3, 65003)] {
        lab.peer(peer, PeerConfig { next_hop_mode: NextHopMode::Keep, ..config() });
        lab.up(session(peer, Asn(asn)));
    }
    let prefix = net("10.0.0.0/24");
    lab.announce(1, attributes(&[65001], "192.0.2.2"), &[prefix]);
    lab.read_all();
    assert!(lab.sink(2).table.is_empty());
    assert_eq!(lab.sink(3).table[&prefix].next_hop, ip("192.0.2.2"));
}

/// Proves RFC 2918 4.
#[test]
fn a_refresh_tells_everything_again() {
    let mut lab = between();
    lab.announce(1, attributes(&[65001], "192.0.2.1"), &many(10));
    lab.read_all();
    let group = lab.group_of[&PeerId(2)];
    lab.egress(group, EgressInput::Refresh { peer: PeerId(2), family: Family::Ipv4Unicast });
    lab.read_all();
    assert_eq!((lab.sink(2).announced, lab.sink(2).table.len()), (20, 10));
    assert_eq!(lab.sink(2).end_of_rib.len(), 2);
    assert_eq!(lab.sink(2).refreshes, [(1, 10), (2, 20)], "between BoRR and EoRR (RFC 7313)");
}

/// A peer that reads slowly, changes meanwhile, and asks again before it has read all: no route is told outside.
/// Proves RFC 7313.
#[test]
fn rfc7313_a_refresh_is_told_between_its_beginning_and_its_end() {
    let mut lab = between_with_credit(1);
    lab.announce(1, attributes(&[65001], "192.0.2.1"), &many(100));
    lab.read_all();
    let group = lab.group_of[&PeerId(2)];
    let refresh = || EgressInput::Refresh { peer: PeerId(2), family: Family::Ipv4Unicast };
    lab.egress(group, refresh());
    lab.read(2, 100);
    lab.withdraw(1, &many(3));
    lab.egress(group, refresh());
    lab.read_all();
    let sink = lab.sink(2);
    assert_eq!(sink.table.len(), 97);
    let subtypes: Vec<u8> = sink.refreshes.iter().map(|(subtype, _)| *subtype).collect();
    assert_eq!(subtypes, [1, 1, 2]);
    let (begin, end) = (sink.refreshes[1].1, sink.refreshes[2].1);
    assert_eq!((end - begin, end), (97, sink.announced), "all of it once more");
}

/// Proves RFC 7313.
#[test]
fn rfc7313_a_refresh_before_end_of_rib_has_that_as_its_end() {
    let mut lab = Lab::advertising();
    lab.credit = 1;
    lab.configure(false, 16, many(50));
    lab.peer(2, config());
    lab.up(session(2, Asn(65002)));
    let group = lab.group_of[&PeerId(2)];
    lab.egress(group, EgressInput::Refresh { peer: PeerId(2), family: Family::Ipv4Unicast });
    lab.read_all();
    assert_eq!((lab.sink(2).table.len(), lab.sink(2).refreshes.len()), (50, 0));
    assert_eq!(lab.sink(2).end_of_rib.len(), 2);
}

/// Proves RFC 7313.
#[test]
fn rfc7313_who_has_not_agreed_is_told_no_beginning_and_no_end() {
    let mut lab = Lab::advertising();
    lab.configure(false, 16, many(5));
    lab.peer(2, config());
    let mut plain = session(2, Asn(65002));
    plain.enhanced_route_refresh = false;
    lab.up(plain);
    lab.read_all();
    let group = lab.group_of[&PeerId(2)];
    lab.egress(group, EgressInput::Refresh { peer: PeerId(2), family: Family::Ipv4Unicast });
    lab.read_all();
    assert_eq!((lab.sink(2).announced, lab.sink(2).refreshes.len()), (10, 0));
}

#[test]
fn attributes_that_fit_no_message_withdraw_the_prefix() {
    let mut lab = between();
    let prefixes = many(3);
    lab.announce(1, attributes(&[65001], "192.0.2.1"), &prefixes);
    let mut huge = attributes(&[65001], "192.0.2.1");
    huge.unknown = vec![UnknownAttribute { flags: 0xC0, code: 200, value: vec![0; 5000].into() }];
    lab.announce(1, huge, &prefixes[..1]);
    lab.read_all();
    assert_eq!(lab.sink(2).table.keys().copied().collect::<Vec<_>>(), &prefixes[1..]);
    let shown = lab.rib.routes(RibView::Out(address(2).into()), RouteSelect::Exact(prefixes[0]));
    assert!(shown[0].paths[0].reason.code == "too-long" && !shown[0].paths[0].best, "{shown:?}");
    lab.withdraw(1, &prefixes);
    lab.read_all();
    assert!(lab.sink(2).table.is_empty());
}

/// Messages grow where that was agreed on, and what fits only there is told only there.
/// Proves RFC 8654.
#[test]
fn rfc8654_updates_grow_for_who_has_extended_messages() {
    let mut lab = between();
    lab.peer(3, config());
    let mut extended = session(3, Asn(65003));
    extended.max_message = 65535;
    lab.up(extended);
    let prefixes = many(4000);
    lab.announce(1, attributes(&[65001], "192.0.2.1"), &prefixes);
    lab.read_all();
    assert_eq!((lab.sink(3).table.len(), lab.sink(3).updates), (4000, 1));
    assert!(lab.sink(2).table.len() == 4000 && lab.sink(2).updates >= 4);
    let mut long = attributes(&[65001], "192.0.2.1");
    long.communities = (0..2000).collect();
    lab.announce(1, long, &prefixes[..1]);
    lab.read_all();
    assert_eq!(lab.sink(3).table[&prefixes[0]].communities.len(), 2000);
    assert!(!lab.sink(2).table.contains_key(&prefixes[0]), "withdrawn: it fits no message of 4096 octets");
}

#[test]
fn a_change_that_the_peer_cannot_see_is_not_sent() {
    let mut lab = between();
    let mut with_med = attributes(&[65001], "192.0.2.1");
    lab.announce(1, with_med.clone(), &many(1));
    with_med.med = Some(5);
    lab.announce(1, with_med, &many(1));
    lab.read_all();
    assert_eq!(lab.sink(2).announced, 1);
}

#[test]
fn a_new_export_policy_sends_the_difference_and_no_more() {
    let mut lab = between();
    lab.peer(3, config());
    lab.up(session(3, Asn(65003)));
    lab.announce(1, attributes(&[65001], "192.0.2.1"), &many(10));
    lab.read_all();
    let mut narrow = accept_all();
    narrow.rules[0].prefixes = Some(weft_bgp::policy::PrefixMatch {
        ranges: vec![weft_bgp::policy::PrefixRange { net: net("10.0.0.0/22"), min_len: 24, max_len: 24 }],
        negated: false,
    });
    let narrow = weft_bgp::config::PeerConfig { export: narrow.into(), ..config() };
    lab.peer(3, narrow);
    lab.read_all();
    assert_eq!((lab.sink(3).table.len(), lab.sink(3).announced), (4, 10));
    lab.peer(3, config());
    lab.read_all();
    assert_eq!((lab.sink(3).table.len(), lab.sink(3).announced), (10, 16));
    assert_eq!((lab.sink(3).end_of_rib.len(), lab.sink(2).announced, lab.egresses.len()), (2, 10, 1));
}

/// A node that drains: peers are told at once that others are better, and nothing is taken away for a moment.
#[test]
fn another_preference_of_our_own_prefixes_is_an_update_and_no_withdrawal() {
    let mut lab = Lab::advertising();
    for (peer, asn) in [(1, Asn(65001)), (2, OWN)] {
        lab.peer(peer, config());
        lab.up(session(peer, asn));
    }
    lab.configure(false, 16, many(10));
    let told = |lab: &Lab, peer: u32| -> BTreeSet<_> {
        let table = &lab.sink(peer).table;
        assert_eq!(table.len(), 10);
        table.values().map(|told| (told.local_pref, told.med, told.communities.clone())).collect()
    };
    let last = [
        Operation::AddCommunity(Community::Standard(GRACEFUL_SHUTDOWN)),
        Operation::SetLocalPreference(0),
        Operation::SetMed(u32::MAX),
    ];
    let last = Arc::new(Policy { rules: vec![Rule::new(Verdict::AcceptWith(last.into()))], ..accept_all() });
    let before = Arc::new(accept_all());
    for (step, export) in [&before, &last, &before].into_iter().enumerate() {
        for peer in [1, 2] {
            lab.peer(peer, PeerConfig { export: export.clone(), ..config() });
        }
        lab.read_all();
        let (local_pref, med, communities) =
            if step == 1 { (0, Some(u32::MAX), vec![GRACEFUL_SHUTDOWN]) } else { (100, None, Vec::new()) };
        assert_eq!(told(&lab, 1), [(None, med, communities.clone())].into());
        assert_eq!(told(&lab, 2), [(Some(local_pref), med, communities)].into());
        for peer in [1, 2] {
            let sink = lab.sink(peer);
            assert_eq!((sink.updates, sink.announced, sink.withdrawn), (step + 1, 10 * (step + 1), 0));
        }
    }
}

#[test]
fn stale_routes_stay_until_end_of_rib_and_cost_the_others_nothing() {
    let mut lab = between();
    let prefixes = many(4);
    lab.announce(1, attributes(&[65001], "192.0.2.1"), &prefixes);
    lab.read_all();
    let restart = Down::Restart { families: FamilySet::all(), restart_time: Duration::from_secs(10) };
    lab.down(1, restart);
    lab.read_all();
    assert_eq!(lab.sink(2).table.len(), 4);
    assert_eq!(lab.rib.family_status(PeerId(1), FamilySet::all())[0].stale, 4);
    let mut session = session(1, Asn(65001));
    session.graceful_restart = Some(graceful(FamilySet::all()));
    lab.up(session);
    lab.announce(1, attributes(&[65001], "192.0.2.1"), &prefixes[..3]);
    lab.read_all();
    assert_eq!((lab.sink(2).table.len(), lab.sink(2).announced), (4, 4));
    lab.input(weft_bgp::rib::RibInput::EndOfRib { peer: PeerId(1), family: Family::Ipv4Unicast });
    lab.read_all();
    assert_eq!((lab.sink(2).table.len(), lab.sink(2).announced), (3, 4));
    assert_eq!(lab.rib.next_deadline(), None);
}

/// Proves RFC 4724 4.2.
#[test]
fn stale_routes_go_when_the_restart_time_is_over() {
    let mut lab = between();
    lab.announce(1, attributes(&[65001], "192.0.2.1"), &many(4));
    lab.down(1, Down::Restart { families: FamilySet::all(), restart_time: Duration::from_secs(10) });
    let (deadline, _) = lab.rib.next_deadline().unwrap();
    assert_eq!(deadline - lab.now, Duration::from_secs(10));
    lab.now = deadline;
    lab.input(weft_bgp::rib::RibInput::Tick);
    lab.read_all();
    assert!(lab.sink(2).table.is_empty() && lab.kernel.is_empty() && lab.rib.is_empty());
}

#[test]
fn a_large_table_goes_through_quickly() {
    let mut lab = between();
    let prefixes: Vec<IpNet> = many(65_536);
    for (i, some) in prefixes.chunks(10).enumerate() {
        lab.announce(1, attributes(&[65001, 1 + u32::try_from(i).unwrap()], "192.0.2.1"), some);
        lab.read(2, usize::MAX);
    }
    lab.peer(3, config());
    lab.up(session(3, Asn(65003)));
    lab.read_all();
    assert_eq!(lab.sink(2).table, lab.sink(3).table);
    assert_eq!((lab.sink(3).table.len(), lab.sink(3).announced), (65_536, 65_536));
    lab.down(1, Down::Death);
    lab.read_all();
    assert!(lab.sink(2).table.is_empty() && lab.sink(3).table.is_empty() && lab.rib.is_empty());
}
