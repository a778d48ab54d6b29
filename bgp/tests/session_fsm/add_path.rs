//! Several paths of one prefix: what both ends agree on, and how what they send is read then (RFC 7911).

use std::time::Duration;

use bytes::BytesMut;
use weft_bgp::config::{AddPath, AddPathSend, PathChoice, PeerConfig};
use weft_bgp::ingress::IngressOutput;
use weft_bgp::session::State;
use weft_bgp::types::{Family, FamilySet};
use weft_bgp::wire::Message;
use weft_bgp::wire::attributes::PathAttributes;
use weft_bgp::wire::capability::{AddPathFamily, AfiSafi, Capability};
use weft_bgp::wire::header::MESSAGE_MAX;
use weft_bgp::wire::nlri::PathNlri;
use weft_bgp::wire::update::{AttributeBlock, pack, pack_withdrawn};

use crate::pair::{ADDRESS_B, Pair, Side, peer_config};
use crate::solo::{Solo, open};

fn config(receive: bool, send: bool) -> PeerConfig {
    let send = send.then_some(AddPathSend { paths: PathChoice::All, limit: 8 });
    PeerConfig { add_path: AddPath { receive, send }, ..peer_config(65001, 65002) }
}

fn said(families: &[(Family, u8)]) -> Capability {
    let of = |(family, send_receive): &(Family, u8)| AddPathFamily {
        family: (*family).into(),
        send_receive: *send_receive,
    };
    Capability::AddPath(families.iter().map(of).collect())
}

/// Of each direction and family by itself.
/// Proves RFC 7911 4.
#[test]
fn what_one_end_takes_the_other_must_tell() {
    let (v4, v6) = (Family::Ipv4Unicast, Family::Ipv6Unicast);
    let set = |families: &[Family]| families.iter().copied().collect::<FamilySet>();
    let foreign = AddPathFamily { family: AfiSafi { afi: 25, safi: 70 }, send_receive: 3 };
    for (ours, theirs, receive, send) in [
        ((true, true), vec![said(&[(v4, 3), (v6, 3)])], set(&[v4, v6]), set(&[v4, v6])),
        ((true, false), vec![said(&[(v4, 3), (v6, 1)])], set(&[v4]), set(&[])),
        ((false, true), vec![said(&[(v4, 3), (v6, 2)])], set(&[]), set(&[v4])),
        ((true, true), vec![said(&[(v4, 1), (v6, 2)])], set(&[v6]), set(&[v4])),
        ((false, false), vec![said(&[(v4, 3), (v6, 3)])], set(&[]), set(&[])),
        ((true, true), vec![], set(&[]), set(&[])),
        // Numbers that say nothing, of this family alone.
        ((true, true), vec![said(&[(v4, 0), (v6, 3)])], set(&[v6]), set(&[v6])),
        ((true, true), vec![said(&[(v4, 7), (v6, 255)])], set(&[]), set(&[])),
        // What is said last counts, in one capability or two.
        ((true, true), vec![said(&[(v4, 3), (v4, 2)])], set(&[v4]), set(&[])),
        ((true, true), vec![said(&[(v4, 2)]), said(&[(v4, 1), (v6, 3)])], set(&[v6]), set(&[v4, v6])),
        ((true, true), vec![Capability::AddPath(vec![foreign]), said(&[])], set(&[]), set(&[])),
    ] {
        let mut told = open();
        told.capabilities.extend(theirs.clone());
        let (solo, _) = Solo::established(config(ours.0, ours.1), told);
        let agreed = solo.ingress.session().expect("it is Established").add_path;
        assert_eq!((agreed.receive, agreed.send), (receive, send), "{ours:?} and {theirs:?}");
    }
}

/// Proves RFC 7911 4.
#[test]
fn our_open_says_what_is_configured() {
    for (receive, send, number) in [(true, false, 1), (false, true, 2), (true, true, 3)] {
        let mut solo = Solo::new(config(receive, send));
        let connection = solo.accept();
        let [Message::Open(sent)] = &solo.written(connection)[..] else { panic!("{:?}", solo.outputs) };
        let wanted = said(&[(Family::Ipv4Unicast, number), (Family::Ipv6Unicast, number)]);
        assert!(sent.capabilities.contains(&wanted), "{:?}", sent.capabilities);
    }
    let mut solo = Solo::new(config(false, false));
    let connection = solo.accept();
    let [Message::Open(sent)] = &solo.written(connection)[..] else { panic!("{:?}", solo.outputs) };
    assert!(!sent.capabilities.iter().any(|c| matches!(c, Capability::AddPath(_))), "off unless configured");
}

#[test]
fn only_what_open_says_of_it_resets_the_session() {
    let mut far = config(true, true);
    (far.local_as, far.remote_as) = (peer_config(65002, 65001).local_as, peer_config(65002, 65001).remote_as);
    let mut pair = Pair::established(config(true, true), far);
    assert_eq!(pair.session(Side::A).add_path, pair.session(Side::B).add_path);
    let mut fewer = config(true, true);
    fewer.add_path.send = Some(AddPathSend { paths: PathChoice::Multipath, limit: 2 });
    pair.configure(Side::A, fewer);
    pair.run_for(Duration::from_secs(1));
    assert_eq!(pair.end(Side::B).ingress.counters().flaps, 0);
    pair.configure(Side::A, config(true, false));
    pair.run_for(Duration::from_secs(1));
    assert_eq!(pair.end(Side::B).ingress.counters().flaps, 1);
    pair.run_until_established();
    assert_eq!(pair.session(Side::B).add_path.receive, FamilySet::EMPTY);
}

/// Proves RFC 7911 3.
#[test]
fn path_identifiers_are_read_where_they_were_agreed_on() {
    let mut told = open();
    told.capabilities.push(said(&[(Family::Ipv4Unicast, 2)]));
    let (mut solo, connection) = Solo::established(config(true, true), told);
    let path = |path_id| PathNlri { path_id, prefix: "10.1.0.0/16".parse().expect("a prefix") };
    let attributes = PathAttributes::new(ADDRESS_B);
    let mut bytes = BytesMut::new();
    pack(
        &AttributeBlock::new(&attributes, Family::Ipv4Unicast, true),
        &[path(1), path(2)],
        MESSAGE_MAX,
        &mut bytes,
    );
    pack_withdrawn(Family::Ipv4Unicast, &[path(1)], MESSAGE_MAX, &mut bytes);
    solo.bytes(connection, &bytes);
    assert_eq!(solo.ingress.state(), State::Established, "{:?}", solo.outputs);
    let batches = solo.outputs.iter().filter_map(|output| match output {
        IngressOutput::Routes(batch) => Some(batch),
        _ => None,
    });
    let heard: Vec<(u32, bool)> = batches
        .flat_map(|batch| {
            batch
                .runs
                .iter()
                .flat_map(|run| run.range.clone().map(move |i| (i, run)))
                .map(|(i, run)| (batch.path_ids[i], run.attributes.is_some()))
        })
        .collect();
    assert_eq!(heard, [(1, true), (2, true), (1, false)]);
}
