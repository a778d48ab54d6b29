use super::*;
use crate::rib::next_hops::NextHops;
use crate::speaker::TrackedNextHop;
use crate::types::Asn;
use proptest::prelude::*;

/// A path of the external peer 192.0.2.`number`, like any other.
fn path(number: u8) -> Candidate {
    Candidate {
        path: usize::from(number),
        local: false,
        keys: Keys {
            local_pref: 100,
            shutting_down: false,
            long_lived_stale: false,
            as_path_length: 2,
            origin: Origin::Igp,
            med: 0,
            neighbour: Some(Asn(65001)),
            originator: None,
            cluster_list_length: 0,
        },
        internal: false,
        igp_metric: Some(10),
        router_id: u32::from(number),
        address: [192, 0, 2, number].into(),
        path_id: 0,
        hop: None,
        lower_meds: 0,
        lost: None,
        multipath: false,
    }
}

fn decided(paths: &[Candidate], max_paths: u16) -> Candidates {
    let mut candidates = Candidates::from_slice(paths);
    decide(&mut candidates, max_paths);
    candidates
}

fn with(number: u8, change: impl FnOnce(&mut Candidate)) -> Candidate {
    let mut candidate = path(number);
    change(&mut candidate);
    candidate
}

/// Each step: a path that is worse in this and better in everything that comes later loses, at this step and with this reason.
/// Proves RFC 4271 9.1.2.2.
#[test]
fn every_step_decides_before_all_that_follow() {
    type Change = fn(&mut Candidate);
    let steps: [(Step, &str, Change, Change); 10] = [
        (Step::LocallyOriginated, "locally-originated", |_| {}, |c| c.local = true),
        (Step::LocalPref, "local-pref", |c| c.keys.local_pref = 50, |_| {}),
        (Step::AsPathLength, "as-path-length", |c| c.keys.as_path_length = 3, |_| {}),
        (Step::Origin, "origin", |c| c.keys.origin = Origin::Egp, |_| {}),
        (Step::Med, "med", |c| c.keys.med = 1, |_| {}),
        (Step::External, "ibgp", |c| c.internal = true, |_| {}),
        (Step::IgpMetric, "igp-metric", |c| c.igp_metric = Some(11), |_| {}),
        (Step::RouterId, "router-id", |_| {}, |c| c.router_id = 1),
        (Step::ClusterListLength, "cluster-list-length", |c| c.keys.cluster_list_length = 1, |_| {}),
        (Step::PeerAddress, "peer-address", |_| {}, |c| c.address = [192, 0, 2, 0].into()),
    ];
    for (place, (step, code, worse, better)) in steps.iter().enumerate() {
        let (mut loser, mut winner) = (path(5), path(6));
        (loser.router_id, winner.router_id) = (5, 5);
        worse(&mut loser);
        better(&mut winner);
        for (_, _, worse, better) in &steps[place + 1..] {
            worse(&mut winner);
            better(&mut loser);
        }
        let ranked = decided(&[loser, winner], 1);
        assert_eq!((ranked[0].path, ranked[0].lost), (6, None), "{step:?}");
        assert_eq!(ranked[1].lost, Some(*step));
        assert_eq!(reason(&ranked[1], &ranked[0]).code, *code);
        assert_eq!(reason(&ranked[0], &ranked[0]).code, "best");
    }
}

/// Proves RFC 4271 9.1.2.2.
#[test]
fn med_compares_within_one_neighbouring_as_only() {
    let other = with(1, |c| (c.keys.neighbour, c.keys.med) = (Some(Asn(65002)), 9));
    let ranked = decided(&[other, with(2, |c| c.keys.med = 5), with(3, |c| c.keys.med = 4)], 16);
    let outcome: Vec<_> = ranked.iter().map(|c| (c.path, c.lost, c.multipath)).collect();
    assert_eq!(outcome, [(1, None, true), (3, Some(Step::RouterId), true), (2, Some(Step::Med), false)]);
}

#[test]
fn multipath_takes_equal_paths_whatever_their_as_and_no_more_than_allowed() {
    let paths = [
        path(4),
        with(1, |c| c.keys.neighbour = Some(Asn(65009))),
        path(3),
        with(2, |c| c.internal = true),
        with(5, |c| c.igp_metric = Some(20)),
    ];
    let used = |max_paths| -> Vec<usize> {
        decided(&paths, max_paths).iter().filter(|c| c.multipath).map(|c| c.path).collect()
    };
    assert_eq!(used(16), [1, 3, 4]);
    assert_eq!(used(2), [1, 3]);
    assert_eq!(used(0), [1]);
    let internal = [with(2, |c| c.internal = true), with(1, |c| c.internal = true)];
    assert_eq!(decided(&internal, 16).iter().filter(|c| c.multipath).count(), 2);
}

/// Proves RFC 4456 9.
#[test]
fn the_originator_stands_in_for_the_router_id() {
    let reflected = with(1, |c| (c.internal, c.keys.originator) = (true, Some(9)));
    let direct = with(2, |c| c.internal = true);
    assert_eq!(decided(&[reflected, direct], 1)[0].path, 2);
}

fn any_path() -> impl Strategy<Value = Candidate> {
    let origin = prop_oneof![Just(Origin::Igp), Just(Origin::Incomplete)];
    let keys = (0u32..2, 0u32..2, origin, 0u32..3, 0u32..3, prop::option::of(0u32..2), 0u32..2);
    (keys, prop::bool::weighted(0.1), any::<bool>(), 0u32..2, 0u32..2).prop_map(
        |(
            (local_pref, length, origin, med, neighbour, originator, clusters),
            local,
            internal,
            metric,
            id,
        )| {
            let mut candidate = path(0);
            candidate.keys = Keys {
                local_pref,
                shutting_down: false,
                long_lived_stale: length == 1 && med == 2,
                as_path_length: length,
                origin,
                med,
                neighbour: Some(Asn(neighbour)),
                originator,
                cluster_list_length: clusters,
            };
            (candidate.local, candidate.internal) = (local, internal);
            (candidate.igp_metric, candidate.router_id) = (Some(metric), id);
            candidate
        },
    )
}

proptest! {
    /// Whatever the order of arrival: the same ranking, the same steps, the same multipath.
    /// Proves RFC 4271 9.1.2.2.
    #[test]
    fn the_order_of_arrival_does_not_matter(
        (paths, shuffled) in prop::collection::vec(any_path(), 1..8).prop_flat_map(|mut paths| {
            for (number, candidate) in (1u8..).zip(&mut paths) {
                candidate.path = usize::from(number);
                candidate.address = [192, 0, 2, number].into();
            }
            (Just(paths.clone()), Just(paths).prop_shuffle())
        }),
        max_paths in 1u16..4,
    ) {
        let outcome = |paths: &[Candidate]| -> Vec<_> {
            decided(paths, max_paths).iter().map(|c| (c.path, c.lost, c.multipath)).collect()
        };
        let ranked = outcome(&paths);
        prop_assert_eq!(&ranked, &outcome(&shuffled));
        prop_assert_eq!(ranked.iter().filter(|(_, lost, _)| lost.is_none()).count(), 1);
        prop_assert!(ranked[0].1.is_none() && ranked[0].2);
    }

    /// Where all MEDs are equal, behind each path comes the best of the rest. Proves RFC 7911.
    #[test]
    fn the_second_best_is_the_best_without_the_best(paths in prop::collection::vec(any_path(), 1..8)) {
        let mut paths = paths;
        for (number, candidate) in (1u8..).zip(&mut paths) {
            (candidate.path, candidate.address) = (usize::from(number), [192, 0, 2, number].into());
            candidate.keys.med = 0;
        }
        let ranked = decided(&paths, 16);
        for (n, candidate) in ranked.iter().enumerate() {
            paths.retain(|path| ranked.iter().skip(n).any(|left| left.path == path.path));
            prop_assert_eq!(decided(&paths, 16)[0].path, candidate.path);
        }
    }
}

/// Proves RFC 7911.
#[test]
fn of_losers_the_lower_med_within_an_as_comes_first() {
    let of = |number, neighbour, med| {
        with(number, |c| {
            (c.keys.as_path_length, c.keys.neighbour, c.keys.med) = (3, Some(Asn(neighbour)), med);
        })
    };
    let paths = [path(9), of(1, 65001, 20), of(2, 65001, 10), of(3, 65002, 50), of(4, 65001, 20)];
    assert_eq!(decided(&paths, 16).iter().map(|c| c.path).collect::<Vec<_>>(), [9, 2, 3, 1, 4]);
}

/// Proves RFC 7911.
#[test]
fn of_one_peers_equal_paths_the_lowest_identifier_is_the_best() {
    let paths = [9, 7, 8].map(|path_id| with(1, |c| c.path_id = path_id));
    let ranked = decided(&paths, 16);
    assert_eq!(ranked.iter().map(|c| c.path_id).collect::<Vec<_>>(), [7, 8, 9]);
    assert!(ranked.iter().all(|c| c.multipath));
    let ranked = decided(&paths, 1);
    assert_eq!(reason(&ranked[1], &ranked[0]).code, "path-id");
}

/// What counts against the limit is next hops: two reflectors may tell of the same.
#[test]
fn multipath_counts_next_hops() {
    let mut hops = NextHops::default();
    let mut hop = |number| {
        hops.hold(TrackedNextHop { address: [10, 0, 0, number].into(), default_route: false, link: None })
    };
    let over = [1, 1, 2, 2, 3, 1].map(&mut hop);
    let paths: Vec<_> = (1..).zip(over).map(|(number, hop)| with(number, |c| c.hop = Some(hop))).collect();
    let used = |max_paths| -> Vec<usize> {
        decided(&paths, max_paths).iter().filter(|c| c.multipath).map(|c| c.path).collect()
    };
    assert_eq!(used(1), [1, 2, 6]);
    assert_eq!(used(2), [1, 2, 3, 4, 6]);
    assert_eq!(used(3), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn a_next_hop_on_a_link_is_nearer_than_any_gateway() {
    let decided = decided(&[with(1, |c| c.igp_metric = Some(0)), with(2, |c| c.igp_metric = None)], 4);
    assert_eq!((decided[0].path, decided[1].lost), (2, Some(Step::IgpMetric)));
    let reason = reason(&decided[1], &decided[0]).to_string();
    assert!(reason.contains("behind a gateway"), "{reason}");
}
