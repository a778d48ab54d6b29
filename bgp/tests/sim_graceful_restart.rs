//! Restart and death (RFC 4724) in whole networks: a restart moves no packet, a death is forgotten.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test")]

mod sim_support;

use std::sync::Arc;
use std::time::Duration;

use sim_support::{Dice, LIMIT, Topology, established, for_seeds, prefixes, routes, start, v4};
use weft_bgp::sim::{SpeakerId, World};
use weft_bgp::speaker::{Input, SpeakerStart};
use weft_bgp::types::FamilySet;

fn seconds(n: usize) -> Duration {
    Duration::from_secs(n as u64)
}

fn asn(n: usize) -> u32 {
    65000 + u32::try_from(n).unwrap()
}

/// The start of a process that finds its predecessor's routes in the kernel.
fn restarting(n: usize) -> SpeakerStart {
    SpeakerStart { seed: 1000 + n as u64, restarting: true, forwarding: FamilySet::all() }
}

/// A settled random fabric.
fn fabric(seed: u64, size_max: usize) -> (World, Dice, Topology, Vec<SpeakerId>) {
    let (mut world, mut dice) = (World::new(seed), Dice::new(seed));
    let topology = Topology::random(2 + dice.roll(size_max - 1), &mut dice);
    let ids = topology.build(&mut world, asn, |_, _| {});
    world.run_until_quiet(LIMIT).unwrap();
    (world, dice, topology, ids)
}

/// Every change of a kernel since then that changed anything: prefix, and whether it went.
fn moves(world: &World, id: SpeakerId, since: Duration) -> Vec<String> {
    let mut kernel = std::collections::BTreeMap::new();
    let mut moves = Vec::new();
    for (at, change) in world.changes(id) {
        let before = kernel.insert(change.prefix, &change.next_hops);
        if *at >= since && before != Some(&change.next_hops) {
            moves.push(format!("{at:?} {} {before:?} → {:?}", change.prefix, change.next_hops));
        }
    }
    moves
}

/// Proves RFC 4724 4.
#[test]
fn a_restart_within_its_time_moves_no_route_anywhere() {
    for_seeds("a_restart_within_its_time_moves_no_route_anywhere", 30, |seed| {
        let (mut world, mut dice, topology, ids) = fabric(seed, 9);
        let before: Vec<_> = ids.iter().map(|id| routes(&world, *id)).collect();
        let (victim, since) = (dice.roll(topology.size), world.elapsed());
        world.kill(ids[victim]);
        world.run_for(seconds(dice.roll(100))).unwrap();
        world.restart(ids[victim], restarting(victim), true);
        world.run_for(Duration::from_millis(1)).unwrap();
        assert!(!world.converged(ids[victim]));
        world.run_for(seconds(300)).unwrap();
        assert!(world.converged(ids[victim]));
        for (n, id) in ids.iter().enumerate() {
            assert_eq!(moves(&world, *id, since), [""; 0], "s{n} while s{victim} restarted, {topology:?}");
            assert_eq!(routes(&world, *id), before[n], "s{n} after s{victim} restarted, {topology:?}");
            assert_eq!(established(&world, *id), topology.neighbours(n).count());
        }
    });
}

/// A peer that we do not call is away for as long as it takes to call again.
#[test]
fn a_restart_waits_for_a_peer_that_has_to_dial() {
    for_seeds("a_restart_waits_for_a_peer_that_has_to_dial", 30, |seed| {
        let mut world = World::new(seed);
        let topology = Topology { size: 2, links: [(0, 1)].into() };
        let ids = topology.build(&mut world, asn, |n, config| {
            for peer in config.peers.values_mut().map(Arc::make_mut) {
                peer.passive = n == 0;
                peer.timers.connect_retry = seconds(12);
            }
        });
        world.run_until_quiet(LIMIT).unwrap();
        let (before, since) = (routes(&world, ids[0]), world.elapsed());
        world.kill(ids[0]);
        // The first dial is refused.
        world.run_for(seconds(1)).unwrap();
        world.restart(ids[0], restarting(0), true);
        world.run_for(seconds(60)).unwrap();
        assert!(world.converged(ids[0]));
        assert_eq!(moves(&world, ids[0], since), [""; 0]);
        assert_eq!(routes(&world, ids[0]), before);
    });
}

/// Nobody is left to help: each must speak before it has heard, and sweep only after that.
#[test]
fn all_of_a_mesh_restart_at_once_and_no_route_moves() {
    for_seeds("all_of_a_mesh_restart_at_once_and_no_route_moves", 20, |seed| {
        let mut world = World::new(seed);
        let size = 2 + Dice::new(seed).roll(6);
        let ids = Topology::mesh(size).build(&mut world, |_| 64512, |_, _| {});
        world.run_until_quiet(LIMIT).unwrap();
        let since = world.elapsed();
        ids.iter().for_each(|id| world.kill(*id));
        world.run_for(seconds(1)).unwrap();
        ids.iter().enumerate().for_each(|(n, id)| world.restart(*id, restarting(n), true));
        world.run_for(seconds(60)).unwrap();
        for (n, id) in ids.iter().enumerate() {
            assert!(world.converged(*id), "s{n} of {size}");
            assert_eq!(moves(&world, *id, since), [""; 0], "s{n} of {size}");
            assert_eq!(world.kernel(*id).len(), (size - 1) * 2, "s{n} of {size}");
        }
    });
}

/// It is in the middle of a line: what lies behind it goes, as it forwards nothing there any more.
/// Proves RFC 4724 4.2.
#[test]
fn a_host_that_lost_its_routes_is_not_helped() {
    for_seeds("a_host_that_lost_its_routes_is_not_helped", 20, |seed| {
        let (mut world, mut dice) = (World::new(seed), Dice::new(seed));
        let size = 3 + dice.roll(5);
        let topology = Topology { size, links: (1..size).map(|n| (n - 1, n)).collect() };
        let ids = topology.build(&mut world, asn, |_, _| {});
        world.run_until_quiet(LIMIT).unwrap();
        let before: Vec<_> = ids.iter().map(|id| routes(&world, *id)).collect();
        let victim = 1 + dice.roll(size - 2);
        let helper = victim - 1;
        world.kill(ids[victim]);
        world.run_for(seconds(1)).unwrap();
        let since = world.elapsed();
        world.restart(
            ids[victim],
            SpeakerStart { forwarding: FamilySet::EMPTY, ..restarting(victim) },
            false,
        );
        world.run_for(seconds(300)).unwrap();
        assert_ne!(
            moves(&world, ids[helper], since),
            [""; 0],
            "s{helper} must not forward to a host without routes"
        );
        for (n, id) in ids.iter().enumerate() {
            assert_eq!(routes(&world, *id), before[n], "s{n} after s{victim} came back, {topology:?}");
        }
    });
}

/// While a process was dead its peer withdrew a prefix: the route stays until the first convergence, and not longer.
/// Proves RFC 4724 4.1.
#[test]
fn what_went_away_meanwhile_is_swept_after_convergence() {
    for_seeds("what_went_away_meanwhile_is_swept_after_convergence", 20, |seed| {
        let mut world = World::new(seed);
        let ids = Topology::mesh(3).build(&mut world, |_| 64512, |_, _| {});
        world.run_until_quiet(LIMIT).unwrap();
        world.kill(ids[0]);
        world.run_for(seconds(2)).unwrap();
        let mut config = world.inspect(ids[1]).unwrap().config().unwrap().as_ref().clone();
        config.originate.clear();
        world.configure(ids[1], config);
        world.restart(ids[0], restarting(0), true);
        while !world.converged(ids[0]) {
            assert!(world.kernel(ids[0]).contains_key(&prefixes(1)[0]), "not before");
            world.run_for(Duration::from_millis(1)).unwrap();
            assert!(world.elapsed() < LIMIT, "it converges");
        }
        let left: Vec<_> = world.kernel(ids[0]).keys().copied().collect();
        assert_eq!(left, prefixes(2));
    });
}

/// Bug class 54 (#1486, kube-router; #2596, GoBGP): a restart that waits for the End-of-RIB of who never sends it.
/// Proves RFC 4724 4.1.
#[test]
fn a_dead_peer_holds_a_restart_no_longer_than_five_seconds() {
    for_seeds("a_dead_peer_holds_a_restart_no_longer_than_five_seconds", 10, |seed| {
        let mut world = World::new(seed);
        let ids = Topology::mesh(4).build(&mut world, |_| 64512, |_, _| {});
        world.run_until_quiet(LIMIT).unwrap();
        // One refuses, one does not even answer.
        world.kill(ids[1]);
        world.cut(ids[0], ids[2]);
        world.kill(ids[0]);
        world.run_for(seconds(300)).unwrap();
        world.restart(ids[0], restarting(0), true);
        world.run_for(Duration::from_millis(4900)).unwrap();
        assert!(!world.converged(ids[0]));
        world.run_for(Duration::from_millis(200)).unwrap();
        assert!(world.converged(ids[0]));
        let left: Vec<_> = world.kernel(ids[0]).keys().copied().collect();
        assert_eq!(left, prefixes(3));
    });
}

/// Of two peers one is dead, and the other has told everything when its configuration changes. It is awaited anew only where the change
/// ends its session.
#[test]
fn a_change_during_a_restart_awaits_nobody_again_whose_session_goes_on() {
    for goes_on in [true, false] {
        let mut world = World::new(1);
        let ids = Topology::mesh(3).build(&mut world, |_| 64512, |_, _| {});
        world.run_until_quiet(LIMIT).unwrap();
        world.cut(ids[0], ids[2]);
        world.kill(ids[0]);
        world.restart(ids[0], restarting(0), true);
        world.run_for(Duration::from_millis(4500)).unwrap();
        assert_eq!(established(&world, ids[0]), 1);
        let mut config = world.inspect(ids[0]).unwrap().config().unwrap().as_ref().clone();
        let peer = Arc::make_mut(config.peers.get_mut(&v4(1).into()).unwrap());
        peer.name = "renamed".into();
        if !goes_on {
            peer.timers.hold_time = Duration::from_secs(30);
            world.cut(ids[0], ids[1]);
        }
        world.configure(ids[0], config);
        world.run_for(Duration::from_millis(600)).unwrap();
        assert_eq!(world.converged(ids[0]), goes_on);
        world.run_for(Duration::from_millis(5000)).unwrap();
        assert!(world.converged(ids[0]));
    }
}

/// Two peers that do no graceful restart, and one that is dead: of who restarts they know the own prefixes as soon as they have a session,
/// what one of them told it only when the dead one is waited for no longer.
/// Proves RFC 4724 4.1.
#[test]
fn a_dead_peer_holds_nothing_of_our_own() {
    for_seeds("a_dead_peer_holds_nothing_of_our_own", 10, |seed| {
        let mut world = World::new(seed);
        let star = Topology { size: 4, links: (1..4).map(|n| (0, n)).collect() };
        let ids = star.build(&mut world, asn, |n, config| {
            if n == 1 || n == 2 {
                config.peers.values_mut().for_each(|peer| Arc::make_mut(peer).graceful_restart = None);
            }
        });
        world.run_until_quiet(LIMIT).unwrap();
        world.cut(ids[0], ids[3]);
        world.kill(ids[0]);
        world.run_for(seconds(300)).unwrap();
        let known = |world: &World| [1, 2].map(|n| world.kernel(ids[n]).keys().copied().collect::<Vec<_>>());
        assert_eq!(known(&world), [vec![], vec![]], "who does no graceful restart forgets it");
        world.restart(ids[0], restarting(0), true);
        world.run_for(Duration::from_millis(2000)).unwrap();
        assert!(established(&world, ids[0]) == 2 && !world.converged(ids[0]));
        assert_eq!(known(&world), [prefixes(0).to_vec(), prefixes(0).to_vec()]);
        world.run_for(Duration::from_millis(3200)).unwrap();
        assert!(world.converged(ids[0]));
        let both = |n| [prefixes(0), prefixes(n)].concat();
        let sorted = |mut all: Vec<_>| {
            all.sort_unstable();
            all
        };
        assert_eq!(known(&world), [sorted(both(2)), sorted(both(1))]);
    });
}

/// RFC 8538: what is reset without being hard is a restart at both ends.
/// Proves RFC 8538.
#[test]
fn rfc8538_a_reset_moves_no_route() {
    for_seeds("rfc8538_a_reset_moves_no_route", 10, |seed| {
        let (mut world, mut dice, topology, ids) = fabric(seed, 6);
        let victim = dice.roll(topology.size);
        let peer = topology.neighbours(victim).next().unwrap();
        let since = world.elapsed();
        world.tell(ids[victim], Input::Reset { peer: v4(peer).into() });
        world.run_for(seconds(200)).unwrap();
        let flaps =
            |n: usize, peer| world.inspect(ids[n]).unwrap().peer(v4(peer).into()).unwrap().counters.flaps;
        assert_eq!((flaps(victim, peer), flaps(peer, victim)), (1, 1));
        for (n, id) in ids.iter().enumerate() {
            assert_eq!(moves(&world, *id, since), [""; 0], "s{n} when s{victim} reset s{peer}, {topology:?}");
            assert_eq!(established(&world, *id), topology.neighbours(n).count());
        }
    });
}

#[test]
fn without_graceful_restart_a_reset_is_a_death() {
    for_seeds("without_graceful_restart_a_reset_is_a_death", 10, |seed| {
        let mut world = World::new(seed);
        let ids = Topology::mesh(2).build(&mut world, asn, |_, config| {
            config.peers.values_mut().for_each(|peer| Arc::make_mut(peer).graceful_restart = None);
        });
        world.run_until_quiet(LIMIT).unwrap();
        let since = world.elapsed();
        world.tell(ids[0], Input::Reset { peer: v4(1).into() });
        world.run_until_quiet(LIMIT).unwrap();
        for id in &ids {
            let changes = world.changes(*id).iter().filter(|(at, _)| *at >= since);
            assert_eq!(changes.filter(|(_, change)| change.next_hops.is_empty()).count(), 2);
        }
        assert!(world.kernel(ids[0]).len() == 2 && world.kernel(ids[1]).len() == 2);
    });
}

#[test]
fn stop_leaves_every_route_in_place() {
    for_seeds("stop_leaves_every_route_in_place", 10, |seed| {
        let (mut world, mut dice, topology, ids) = fabric(seed, 6);
        let (victim, since) = (dice.roll(topology.size), world.elapsed());
        world.tell(ids[victim], Input::Stop);
        world.run_for(seconds(5)).unwrap();
        world.restart(ids[victim], restarting(victim), true);
        world.run_for(seconds(200)).unwrap();
        for (n, id) in ids.iter().enumerate() {
            assert_eq!(moves(&world, *id, since), [""; 0], "s{n} when s{victim} was upgraded, {topology:?}");
        }
    });
}

/// A restart that is over the time the peers were promised: a death, and a return.
#[test]
fn who_comes_back_late_is_forgotten_and_learned_again() {
    for_seeds("who_comes_back_late_is_forgotten_and_learned_again", 10, |seed| {
        let mut world = World::new(seed);
        let ids = Topology::mesh(3).build(&mut world, |_| 64512, |_, _| {});
        world.run_until_quiet(LIMIT).unwrap();
        world.kill(ids[0]);
        world.run_for(seconds(119)).unwrap();
        assert_eq!(world.kernel(ids[1]).len(), 4);
        world.run_for(seconds(2)).unwrap();
        assert_eq!(world.kernel(ids[1]).len(), 2);
        world.restart(ids[0], start(9), true);
        world.run_for(seconds(60)).unwrap();
        assert_eq!(world.kernel(ids[1]).len(), 4);
    });
}
