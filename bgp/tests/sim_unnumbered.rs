//! Peers that are known by their link: link-local addresses, found or not, and IPv4 over IPv6 next hops (RFC 8950).

#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test")]

mod sim_support;

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use sim_support::{LIMIT, established, for_seeds, peer, prefixes, speaker, start, v4, v6};
use weft_bgp::config::{PeerConfig, SpeakerConfig};
use weft_bgp::sim::{SpeakerId, World};
use weft_bgp::speaker::{SpeakerStart, TrackedNextHop};
use weft_bgp::status::{RibView, RouteSelect};
use weft_bgp::types::{Family, FamilySet, Interface, PeerAddress};

const ASN: [u32; 2] = [65001, 65002];
/// The interfaces at both ends have this index in the simulation.
const LINK: u32 = 7;

fn link_local(n: usize) -> Ipv6Addr {
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, u16::try_from(n + 1).unwrap())
}

fn uplink() -> PeerAddress {
    PeerAddress::Interface(Interface::new(LINK, "uplink").unwrap())
}

/// Speaker `n`'s side of the session with the other one, that it has found or not.
fn towards(n: usize, found: bool) -> PeerConfig {
    PeerConfig {
        neighbour: found.then_some(link_local(1 - n)),
        next_hop_v4: None,
        next_hop_v6: None,
        ..peer(n, ASN[n], ASN[1 - n])
    }
}

fn config(n: usize, peer: PeerConfig) -> SpeakerConfig {
    SpeakerConfig { peers: [(uplink(), Arc::new(peer))].into(), ..speaker(n, ASN[n]) }
}

fn world(seed: u64, sides: [PeerConfig; 2]) -> (World, [SpeakerId; 2]) {
    let mut world = World::new(seed);
    let mut n = 0;
    let ids = sides.map(|side| {
        let addresses = vec![v4(n).into(), v6(n).into(), link_local(n).into()];
        n += 1;
        world.add(&format!("s{n}"), start(n), config(n - 1, side), addresses)
    });
    world.run_until_quiet(LIMIT).unwrap();
    (world, ids)
}

/// What a speaker's kernel has of the other's prefixes.
fn next_hops(world: &World, ids: [SpeakerId; 2], n: usize) -> Vec<TrackedNextHop> {
    let kernel = world.kernel(ids[n]);
    prefixes(1 - n)
        .iter()
        .filter_map(|prefix| kernel.get(prefix))
        .flat_map(|hops| hops.iter())
        .copied()
        .collect()
}

/// Proves RFC 8950 4, RFC 2545 3.
#[test]
fn both_families_go_over_link_local_addresses() {
    for_seeds("both_families_go_over_link_local_addresses", 8, |seed| {
        // Both dial; one does, and the other takes who comes.
        for found in [[true, true], [true, false], [false, true]] {
            let (world, ids) = world(seed, [towards(0, found[0]), towards(1, found[1])]);
            for n in 0..2 {
                let hop = TrackedNextHop {
                    address: link_local(1 - n).into(),
                    default_route: false,
                    link: Some(LINK),
                };
                assert_eq!(next_hops(&world, ids, n), [hop, hop]);
                let peer = world.inspect(ids[n]).unwrap().peer(uplink()).unwrap();
                let session = peer.session.unwrap();
                assert_eq!(session.remote, IpAddr::V6(link_local(1 - n)));
                assert!(session.extended_next_hop && session.families == FamilySet::all());
                assert_eq!(peer.address.to_string(), "%uplink");
            }
        }
    });
}

/// A link that has IPv6 numbers and no others.
/// Proves RFC 8950 4.
#[test]
fn ipv4_goes_over_the_addresses_of_an_ipv6_session() {
    let mut world = World::new(1);
    let ids = [0, 1].map(|n| {
        let side = PeerConfig { next_hop_v4: Some(v4(n)), ..towards(n, false) };
        let peers = [(v6(1 - n).into(), Arc::new(side))].into();
        let config = SpeakerConfig { peers, ..speaker(n, ASN[n]) };
        world.add(&format!("s{n}"), start(n), config, vec![v6(n).into()])
    });
    world.run_until_quiet(LIMIT).unwrap();
    for n in 0..2 {
        let hop = TrackedNextHop { address: v6(1 - n).into(), default_route: false, link: None };
        assert_eq!(next_hops(&world, ids, n), [hop, hop]);
    }
}

#[test]
fn a_link_on_which_nobody_is_found_is_not_dialled() {
    let (world, ids) = world(1, [towards(0, false), towards(1, false)]);
    assert_eq!((established(&world, ids[0]), established(&world, ids[1])), (0, 0));
    assert!(world.converged(ids[0]), "it holds nobody up");
    let peer = world.inspect(ids[0]).unwrap().peer(uplink()).unwrap();
    assert!(peer.last_error.is_none(), "{:?}", peer.last_error);
}

#[test]
fn who_was_found_is_the_peer_and_nobody_else_on_the_link() {
    let other = PeerConfig { neighbour: Some(link_local(9)), passive: true, ..towards(0, false) };
    let (mut world, ids) = world(1, [other, towards(1, true)]);
    assert_eq!(established(&world, ids[0]), 0);
    assert!(world.inspect(ids[0]).unwrap().counters().unknown_peer > 0);
    // The old router is gone, and this one takes its place.
    world.configure(ids[0], config(0, towards(0, true)));
    world.run_until_quiet(LIMIT).unwrap();
    assert_eq!(next_hops(&world, ids, 0).len(), 2);
}

#[test]
fn finding_who_has_the_session_does_not_end_it_and_finding_another_does() {
    let (mut world, ids) = world(1, [towards(0, false), towards(1, true)]);
    let flaps = |world: &World| world.inspect(ids[0]).unwrap().peer(uplink()).unwrap().counters.flaps;
    for found in [true, false, true] {
        world.configure(ids[0], config(0, towards(0, found)));
        world.run_until_quiet(LIMIT).unwrap();
        assert_eq!((flaps(&world), established(&world, ids[0])), (0, 1));
    }
    let another = PeerConfig { neighbour: Some(link_local(9)), ..towards(0, false) };
    world.configure(ids[0], config(0, another));
    world.run_until_quiet(LIMIT).unwrap();
    assert_eq!((flaps(&world), established(&world, ids[0])), (1, 0));
}

/// Proves RFC 8950 4.
#[test]
fn without_extended_next_hops_only_ipv6_is_exchanged() {
    let only_v6 = PeerConfig { families: [Family::Ipv6Unicast].into_iter().collect(), ..towards(1, true) };
    let (world, ids) = world(1, [towards(0, true), only_v6]);
    let session = world.inspect(ids[0]).unwrap().peer(uplink()).unwrap().session.unwrap();
    assert_eq!(session.families, [Family::Ipv6Unicast].into_iter().collect());
    assert!(!session.extended_next_hop);
    assert_eq!((next_hops(&world, ids, 0).len(), next_hops(&world, ids, 1).len()), (1, 1));
}

#[test]
fn a_global_address_of_the_link_goes_before_the_link_local_one() {
    let with_global = PeerConfig { next_hop_v6: Some(v6(0)), ..towards(0, true) };
    let (world, ids) = world(1, [with_global, towards(1, true)]);
    for prefix in prefixes(0) {
        let speaker = world.inspect(ids[1]).unwrap();
        let routes = speaker.routes(RibView::In(uplink()), RouteSelect::Exact(prefix));
        let attributes = &routes[0].paths[0].attributes;
        assert_eq!(attributes.next_hop, IpAddr::V6(v6(0)));
        assert_eq!(attributes.next_hop_link_local, Some(link_local(0)));
    }
    // It is on the link whatever the global one is.
    assert!(next_hops(&world, ids, 1).iter().all(|hop| hop.address == IpAddr::V6(link_local(0))));
}

#[test]
fn a_restart_moves_no_packet() {
    for_seeds("a_restart_moves_no_packet", 8, |seed| {
        let (mut world, ids) = world(seed, [towards(0, true), towards(1, true)]);
        let before = [world.changes(ids[0]).len(), world.changes(ids[1]).len()];
        let again = SpeakerStart { seed: 99, restarting: true, forwarding: FamilySet::all() };
        world.restart(ids[0], again, true);
        world.run_until_quiet(LIMIT).unwrap();
        for n in 0..2 {
            assert_eq!(next_hops(&world, ids, n).len(), 2);
            let gone = world.changes(ids[n])[before[n]..].iter().any(|(_, c)| c.next_hops.is_empty());
            assert!(!gone, "speaker {n}");
        }
    });
}
