//! Reflection through RIB, update groups and the wire: who is told what, in which bytes, and what is not believed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod rib_support;

use std::net::Ipv4Addr;

use rib_support::*;
use weft_bgp::config::PeerConfig;
use weft_bgp::rib::RibInput;
use weft_bgp::status::{RibView, RouteSelect};
use weft_bgp::types::{Asn, Family, FamilySet, PeerId};
use weft_bgp::wire::attributes::PathAttributes;

const PREFIX: &str = "10.1.0.0/16";

fn client() -> PeerConfig {
    PeerConfig { route_reflector_client: true, ..config() }
}

/// The clients 1 and 2, the internal peers 3 and 4, the external peer 5; prefixes are told before anybody joins a group.
fn lab() -> Lab {
    let mut lab = Lab::new();
    for peer in 1..=5 {
        lab.peer(peer, if peer <= 2 { client() } else { config() });
        lab.up(session(peer, if peer == 5 { Asn(65005) } else { OWN }));
    }
    lab
}

fn inner(next_hop: &str) -> PathAttributes {
    PathAttributes { local_pref: Some(200), med: Some(7), ..attributes(&[65009], next_hop) }
}

/// The code of the reason of the only path.
fn code(lab: &Lab, view: RibView) -> String {
    let routes = lab.rib.routes(view, RouteSelect::Exact(net(PREFIX)));
    routes[0].paths[0].reason.code.to_string()
}

/// Proves RFC 4456 6.
#[test]
fn who_is_told_whose_routes() {
    let nets: Vec<_> = (1..=5).map(|n| net(&format!("10.{n}.0.0/16"))).collect();
    let mut lab = lab();
    for peer in 1..=5 {
        let attributes = match peer {
            5 => attributes(&[65005], "192.0.2.5"),
            _ => inner(&format!("192.0.2.{peer}")),
        };
        lab.announce(peer, attributes, &[nets[peer as usize - 1]]);
    }
    lab.input(RibInput::Advertise);
    lab.read_all();
    let told =
        |peer: u32| lab.sink(peer).table.keys().map(|net| nets.iter().position(|n| n == net).unwrap() + 1);
    assert_eq!(told(1).collect::<Vec<_>>(), [2, 3, 4, 5]);
    assert_eq!(told(2).collect::<Vec<_>>(), [1, 3, 4, 5]);
    assert_eq!(told(3).collect::<Vec<_>>(), [1, 2, 5]);
    assert_eq!(told(4).collect::<Vec<_>>(), [1, 2, 5]);
    assert_eq!(told(5).collect::<Vec<_>>(), [1, 2, 3, 4]);
    let reflected = &lab.sink(3).table[&nets[0]];
    let expected = PathAttributes {
        originator_id: Some(Ipv4Addr::from(1)),
        cluster_list: vec![Ipv4Addr::new(9, 9, 9, 9)],
        ..inner("192.0.2.1")
    };
    assert_eq!(*reflected, expected);
    // Nothing of it leaves the AS.
    let outside = &lab.sink(5).table[&nets[0]];
    assert_eq!((outside.originator_id, &outside.cluster_list), (None, &vec![]));
}

/// RFC 4271 section 4.3, RFC 4456 section 8: the UPDATE that tells client 2 of client 1's route.
/// Proves RFC 4456 8.
#[test]
fn a_reflected_update_byte_for_byte() {
    let mut lab = lab();
    lab.announce(1, inner("192.0.2.1"), &[net(PREFIX)]);
    lab.input(RibInput::Advertise);
    let bytes = lab.sink(2).unread.front().unwrap().to_vec();
    #[rustfmt::skip]
    let expected = [
        &[0xff; 16][..], &[0, 74, 2], &[0, 0], &[0, 48],
        &[0x40, 1, 1, 0],
        &[0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xf1],
        &[0x40, 3, 4, 192, 0, 2, 1],
        &[0x80, 4, 4, 0, 0, 0, 7],
        &[0x40, 5, 4, 0, 0, 0, 200],
        &[0x80, 9, 4, 0, 0, 0, 1],
        &[0x80, 10, 4, 9, 9, 9, 9],
        &[16, 10, 1],
    ]
    .concat();
    assert_eq!(bytes, expected);
}

/// Proves RFC 4456 8.
#[test]
fn what_comes_back_is_kept_with_the_reason_and_is_no_alarm() {
    let mut lab = lab();
    let nothing = std::sync::Arc::new(weft_bgp::policy::Policy {
        rules: vec![],
        unmatched: weft_bgp::types::Reason::new("duplicate-origin", "another's"),
    });
    for peer in [1, 3] {
        lab.peer(peer, PeerConfig { import: nothing.clone(), ..config() });
    }
    let own = Ipv4Addr::new(9, 9, 9, 9);
    for (attributes, expected) in [
        (PathAttributes { originator_id: Some(own), ..inner("192.0.2.3") }, "own-originator"),
        (
            PathAttributes {
                originator_id: Some(Ipv4Addr::from(8)),
                cluster_list: vec![Ipv4Addr::from(7), own],
                ..inner("192.0.2.3")
            },
            "own-cluster",
        ),
    ] {
        lab.announce(3, attributes, &[net(PREFIX)]);
        assert_eq!(code(&lab, RibView::In(address(3).into())), expected);
        let status = lab.rib.family_status(PeerId(3), FamilySet::all())[0];
        assert_eq!((status.received, status.accepted), (1, 0));
        assert!(lab.kernel.is_empty() && lab.alarms.is_empty());
    }
    // The cluster is another: what was kept is looked at again, and only then is the policy asked.
    lab.cluster_id = Some(Ipv4Addr::new(7, 7, 7, 7));
    lab.configure(false, 16, []);
    assert_eq!(code(&lab, RibView::In(address(3).into())), "duplicate-origin");
    assert_eq!(lab.alarms.len(), 1);
    // Who reflects nothing is in no cluster, whatever its identifier.
    lab.cluster_id = None;
    lab.configure(false, 16, []);
    assert_eq!(code(&lab, RibView::In(address(3).into())), "duplicate-origin");
}

#[test]
fn a_change_of_client_or_cluster_says_no_more_than_it_must() {
    let mut lab = lab();
    lab.input(RibInput::Advertise);
    let many: Vec<_> = (0..200).map(|i| net(&format!("10.1.{i}.0/24"))).collect();
    lab.announce(3, inner("192.0.2.3"), &many);
    lab.announce(1, inner("192.0.2.1"), &[net("10.2.0.0/16")]);
    lab.announce(5, attributes(&[65005], "192.0.2.5"), &[net("10.5.0.0/16")]);
    lab.read_all();
    let updates = |lab: &Lab| (1..=5).map(|peer| lab.sink(peer).updates).collect::<Vec<_>>();
    let sizes = |lab: &Lab| (1..=5).map(|peer| lab.sink(peer).table.len()).collect::<Vec<_>>();
    assert_eq!(sizes(&lab), [201, 202, 2, 2, 201]);

    // 4 becomes a client: it alone gets the routes of 3, and nothing that it knows already.
    let before = updates(&lab);
    let announced = lab.sink(4).announced;
    lab.peer(4, client());
    lab.read_all();
    assert_eq!(sizes(&lab), [201, 202, 2, 202, 201]);
    assert_eq!(lab.sink(4).announced - announced, 200);
    let differences: Vec<usize> = updates(&lab).iter().zip(&before).map(|(a, b)| a - b).collect();
    assert_eq!((differences[0], differences[1], differences[2], differences[4]), (0, 0, 0, 0));
    assert!(differences[3] > 0, "{differences:?}");

    // 1 is no client any more: 3 and 4's fellow peers lose its route, clients keep it.
    lab.peer(1, config());
    lab.read_all();
    assert_eq!(sizes(&lab), [1, 202, 1, 202, 201]);

    // Another cluster id is told with what is reflected, and with nothing else.
    let external = updates(&lab)[4];
    lab.cluster_id = Some(Ipv4Addr::new(7, 7, 7, 7));
    lab.configure(false, 16, []);
    lab.read_all();
    assert_eq!(lab.sink(2).table[&many[0]].cluster_list, [Ipv4Addr::new(7, 7, 7, 7)]);
    assert!(lab.sink(2).table[&net("10.5.0.0/16")].cluster_list.is_empty());
    assert_eq!(updates(&lab)[4], external);
    assert_eq!(sizes(&lab), [1, 202, 1, 202, 201]);
}

/// A client that comes back from its restart under another identifier, with the same routes.
#[test]
fn the_originator_follows_the_identifier() {
    let mut lab = lab();
    lab.input(RibInput::Advertise);
    lab.announce(1, inner("192.0.2.1"), &[net(PREFIX)]);
    let families: FamilySet = Family::ALL.into_iter().collect();
    let restart_time = std::time::Duration::from_secs(60);
    lab.down(1, weft_bgp::ingress::Down::Restart { families, restart_time });
    let mut back = session(1, OWN);
    back.graceful_restart = Some(graceful(families));
    back.remote_id = Ipv4Addr::new(1, 1, 1, 1);
    lab.up(back);
    lab.announce(1, inner("192.0.2.1"), &[net(PREFIX)]);
    lab.read_all();
    assert_eq!(lab.sink(2).table[&net(PREFIX)].originator_id, Some(Ipv4Addr::new(1, 1, 1, 1)));
}

#[test]
fn why_a_route_is_not_reflected_is_told() {
    let mut lab = lab();
    lab.input(RibInput::Advertise);
    lab.announce(3, inner("192.0.2.3"), &[net(PREFIX)]);
    assert_eq!(code(&lab, RibView::Out(address(4).into())), "ibgp-not-readvertised");
    assert_eq!(code(&lab, RibView::Out(address(3).into())), "split-horizon");
    assert_eq!(code(&lab, RibView::Out(address(1).into())), "advertised");
}

/// As after a restart of the reflector: all of a hundred clients have told their hundred prefixes before anybody is told anything.
#[test]
fn a_hundred_clients_of_a_hundred_prefixes() {
    let mut lab = Lab::new();
    let of = |peer: u32| (0..100).map(move |i| net(&format!("100.{peer}.{i}.0/24")));
    for peer in 1..=100 {
        lab.peer(peer, client());
        lab.up(session(peer, OWN));
        lab.announce(peer, inner(&format!("192.0.2.{peer}")), &of(peer).collect::<Vec<_>>());
    }
    lab.input(RibInput::Advertise);
    assert_eq!(lab.egresses.len(), 1, "one update group");
    for peer in 1..=100 {
        let egress = &lab.egresses[&lab.group_of[&PeerId(peer)]];
        assert_eq!(egress.advertised(PeerId(peer), Family::Ipv4Unicast), 9_900, "all but its own");
    }
    lab.read(50, usize::MAX);
    let sink = lab.sink(50);
    // An UPDATE for each other client, and one more where the second and the third piece of the table begin.
    assert_eq!((sink.table.len(), sink.updates), (9_900, 101));
    for peer in (1..=100).filter(|peer| *peer != 50) {
        let expected = PathAttributes {
            originator_id: Some(Ipv4Addr::from(peer)),
            cluster_list: vec![Ipv4Addr::new(9, 9, 9, 9)],
            ..inner(&format!("192.0.2.{peer}"))
        };
        assert!(of(peer).all(|prefix| sink.table[&prefix] == expected), "of {peer}");
    }
}
