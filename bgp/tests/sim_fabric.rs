//! Whole networks of speakers on a virtual clock: what they end up with is what the topology says, whatever the order of events.

#![allow(clippy::indexing_slicing, reason = "a test")]

mod sim_support;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use sim_support::{Dice, LIMIT, Topology, established, for_seeds, prefixes, routes, v4, v6};
use weft_bgp::sim::{SpeakerId, World};
use weft_bgp::speaker::Input;
use weft_bgp::status::{RibView, RouteSelect};

type Table = BTreeMap<IpNet, BTreeSet<IpAddr>>;

fn next_hop(prefix: &IpNet, n: usize) -> IpAddr {
    if prefix.addr().is_ipv4() { v4(n).into() } else { v6(n).into() }
}

/// Every speaker knows every other one's prefixes, from itself.
fn mesh_table(size: usize, n: usize) -> Table {
    let others = (0..size).filter(|m| *m != n);
    others.flat_map(|m| prefixes(m).map(|p| (p, [next_hop(&p, m)].into()))).collect()
}

/// Every speaker knows every prefix over all neighbours that are nearest to its origin.
fn transit_table(topology: &Topology, n: usize) -> Table {
    let mut table = Table::new();
    for origin in (0..topology.size).filter(|m| *m != n) {
        let distances = topology.distances(origin);
        let Some(distance) = distances[n] else { continue };
        let nearest: Vec<_> =
            topology.neighbours(n).filter(|m| distances[*m] == Some(distance - 1)).collect();
        for prefix in prefixes(origin) {
            table.insert(prefix, nearest.iter().map(|m| next_hop(&prefix, *m)).collect());
        }
    }
    table
}

fn assert_transit(world: &World, ids: &[SpeakerId], topology: &Topology, when: &str) {
    for (n, id) in ids.iter().enumerate() {
        if world.inspect(*id).is_some() {
            assert_eq!(routes(world, *id), transit_table(topology, n), "s{n} {when}, {topology:?}");
        }
    }
}

/// Proves RFC 4271 9.2.1.
#[test]
fn a_full_mesh_of_ibgp_knows_everything() {
    for_seeds("a_full_mesh_of_ibgp_knows_everything", 20, |seed| {
        let mut world = World::new(seed);
        let size = 2 + Dice::new(seed).roll(19);
        let ids = Topology::mesh(size).build(&mut world, |_| 64512, |_, _| {});
        world.run_until_quiet(LIMIT).unwrap();
        for (n, id) in ids.iter().enumerate() {
            assert_eq!(established(&world, *id), size - 1, "s{n} of {size}");
            assert_eq!(routes(&world, *id), mesh_table(size, n), "s{n} of {size}");
            assert!(world.converged(*id), "s{n} of {size}");
        }
    });
}

/// Proves RFC 4271 9.1.2.
#[test]
fn transit_follows_the_shortest_as_path_through_cuts_and_deaths() {
    for_seeds("transit_follows_the_shortest_as_path_through_cuts_and_deaths", 25, |seed| {
        let (mut world, mut dice) = (World::new(seed), Dice::new(seed));
        let size = 2 + dice.roll(11);
        let mut topology = Topology::random(size, &mut dice);
        let ids = topology.build(&mut world, |n| 65000 + u32::try_from(n).unwrap(), |_, _| {});
        world.run_until_quiet(LIMIT).unwrap();
        assert_transit(&world, &ids, &topology, "at first");
        for (n, id) in ids.iter().enumerate() {
            let known = world.inspect(*id).unwrap().routes(RibView::Loc, RouteSelect::All);
            for route in known {
                let origin = (0..size).find(|m| prefixes(*m).contains(&route.prefix)).unwrap();
                let best = route.paths.iter().find(|path| path.best).unwrap();
                assert_eq!(Some(best.attributes.as_path.length()), topology.distances(origin)[n]);
            }
        }

        let link = *topology.links.iter().nth(dice.roll(topology.links.len())).unwrap();
        world.cut(ids[link.0], ids[link.1]);
        world.run_for(Duration::from_secs(60)).unwrap();
        assert_transit(&world, &ids, &topology, "before the hold time");
        world.run_for(Duration::from_secs(40)).unwrap();
        let whole = topology.clone();
        topology.links.remove(&link);
        assert_transit(&world, &ids, &topology, "after the hold time");

        world.heal(ids[link.0], ids[link.1]);
        world.run_for(Duration::from_secs(120)).unwrap();
        topology = whole;
        assert_transit(&world, &ids, &topology, "healed");

        let dead = dice.roll(size);
        world.kill(ids[dead]);
        world.run_for(Duration::from_secs(60)).unwrap();
        for (n, id) in ids.iter().enumerate().filter(|(n, _)| *n != dead) {
            assert_eq!(routes(&world, *id), transit_table(&topology, n), "s{n} helps s{dead}, {topology:?}");
        }
        world.run_for(Duration::from_secs(100)).unwrap();
        topology.links.retain(|(a, b)| *a != dead && *b != dead);
        assert_transit(&world, &ids, &topology, "after the restart time");
    });
}

#[test]
fn what_is_originated_no_more_is_withdrawn_everywhere() {
    for_seeds("what_is_originated_no_more_is_withdrawn_everywhere", 10, |seed| {
        let (mut world, mut dice) = (World::new(seed), Dice::new(seed));
        let topology = Topology::random(2 + dice.roll(9), &mut dice);
        let ids = topology.build(&mut world, |n| 65000 + u32::try_from(n).unwrap(), |_, _| {});
        world.run_until_quiet(LIMIT).unwrap();
        let silent = dice.roll(topology.size);
        let mut config = world.inspect(ids[silent]).unwrap().config().unwrap().as_ref().clone();
        config.originate.clear();
        world.configure(ids[silent], config.clone());
        world.run_until_quiet(LIMIT).unwrap();
        for (n, id) in ids.iter().enumerate() {
            let mut expected = transit_table(&topology, n);
            expected.retain(|prefix, _| !prefixes(silent).contains(prefix));
            assert_eq!(routes(&world, *id), expected, "s{n} after s{silent} fell silent");
            assert_eq!(established(&world, *id), topology.neighbours(n).count(), "no session was touched");
        }
        config.originate.extend(prefixes(silent).map(|prefix| (prefix, <_>::default())));
        world.configure(ids[silent], config);
        world.run_until_quiet(LIMIT).unwrap();
        assert_transit(&world, &ids, &topology, "announced again");
    });
}

/// One routing table for each of the seeds, with every disturbance there is on the way.
#[test]
fn resets_stalls_and_cuts_on_the_way_leave_no_trace() {
    for_seeds("resets_stalls_and_cuts_on_the_way_leave_no_trace", 25, |seed| {
        let (mut world, mut dice) = (World::new(seed), Dice::new(seed));
        let size = 2 + dice.roll(7);
        let topology = Topology::random(size, &mut dice);
        let ids = topology.build(&mut world, |n| 65000 + u32::try_from(n).unwrap(), |_, _| {});
        let mut dead = BTreeSet::new();
        for _ in 0..20 {
            let (a, b) = *topology.links.iter().nth(dice.roll(topology.links.len())).unwrap();
            match dice.roll(7) {
                0 => world.cut(ids[a], ids[b]),
                1 => world.heal(ids[a], ids[b]),
                2 => world.reset(ids[a], ids[b]),
                3 => world.set_reading(ids[a], false),
                4 => world.tell(ids[a], Input::Reset { peer: v4(b).into() }),
                5 => {
                    world.kill(ids[b]);
                    dead.insert(b);
                }
                _ => world.restart(ids[b], sim_support::start(b + 100), dice.roll(2) == 0),
            }
            world.run_for(Duration::from_millis(1 << dice.roll(17))).unwrap();
        }
        for (a, b) in &topology.links {
            world.heal(ids[*a], ids[*b]);
        }
        for (n, id) in ids.iter().enumerate() {
            world.set_reading(*id, true);
            if world.inspect(*id).is_none() {
                world.restart(*id, sim_support::start(n + 200), true);
            }
        }
        // Idle hold may have grown to a minute, and stale routes have two.
        world.run_for(Duration::from_secs(300)).unwrap();
        assert_transit(&world, &ids, &topology, "after all");
        for (n, id) in ids.iter().enumerate() {
            assert_eq!(established(&world, *id), topology.neighbours(n).count(), "s{n}");
        }
    });
}

/// A fabric as large as it gets here: two spines of one AS and 198 leaves, every tenth with prefixes, or fewer. Links are cut, processes
/// die and start again on the way.
#[test]
fn two_hundred_speakers_agree_with_the_topology_after_all() {
    for_seeds("two_hundred_speakers_agree_with_the_topology_after_all", 1, |seed| {
        let (mut world, mut dice) = (World::new(seed), Dice::new(seed));
        let size = if seed == 0 { 200 } else { 4 + dice.roll(197) };
        let links = (2..size).flat_map(|leaf| [(0, leaf), (1, leaf)]).collect();
        let topology = Topology { size, links };
        let is_origin = |n: usize| n > 0 && n.is_multiple_of(10);
        let ids = topology.build(
            &mut world,
            // What one spine tells is no way for another: no path leads down and up again.
            |n| 65000 + u32::try_from(n.saturating_sub(1)).unwrap(),
            |n, config| config.originate.retain(|_, _| is_origin(n)),
        );
        let mut expected = vec![Table::new(); size];
        for origin in (0..size).filter(|n| is_origin(*n)) {
            let distances = topology.distances(origin);
            for (n, table) in expected.iter_mut().enumerate().filter(|(n, _)| *n != origin) {
                let nearer = |m: &usize| distances[*m] < distances[n];
                let nearest: Vec<_> = topology.neighbours(n).filter(nearer).collect();
                for prefix in prefixes(origin) {
                    table.insert(prefix, nearest.iter().map(|m| next_hop(&prefix, *m)).collect());
                }
            }
        }
        let assert_all_know = |world: &World, when: &str| {
            for (n, id) in ids.iter().enumerate() {
                assert_eq!(routes(world, *id), expected[n], "s{n} of {size} {when}");
                assert_eq!(established(world, *id), topology.neighbours(n).count(), "s{n} of {size} {when}");
            }
        };
        world.run_until_quiet(LIMIT).unwrap();
        assert_all_know(&world, "at first");
        for _ in 0..10 {
            let (a, b) = *topology.links.iter().nth(dice.roll(topology.links.len())).unwrap();
            match dice.roll(4) {
                0 => world.cut(ids[a], ids[b]),
                1 => world.reset(ids[a], ids[b]),
                2 => world.kill(ids[a]),
                _ => world.restart(ids[b], sim_support::start(b + 300), true),
            }
            world.run_for(Duration::from_millis(1 << dice.roll(15))).unwrap();
        }
        topology.links.iter().for_each(|(a, b)| world.heal(ids[*a], ids[*b]));
        for (n, id) in ids.iter().enumerate() {
            if world.inspect(*id).is_none() {
                world.restart(*id, sim_support::start(n + 600), true);
            }
        }
        world.run_for(Duration::from_secs(300)).unwrap();
        assert_all_know(&world, "after all");
    });
}

/// Both ends dial at once, over and over: it is always one session in the end.
#[test]
fn a_collision_leaves_one_session() {
    for_seeds("a_collision_leaves_one_session", 200, |seed| {
        let mut world = World::new(seed);
        let ids = Topology::mesh(2).build(
            &mut world,
            |n| 65000 + u32::try_from(n).unwrap(),
            |_, config| {
                // Equal identifiers are allowed between ASes (RFC 6286).
                if seed % 2 == 0 {
                    config.router_id = [192, 0, 2, 1].into();
                }
            },
        );
        world.run_until_quiet(LIMIT).unwrap();
        let [a, b] = [ids[0], ids[1]].map(|id| world.inspect(id).unwrap().peers().remove(0));
        let [a, b] = [a, b].map(|peer| peer.session.expect("Established"));
        assert_eq!(a.local.port() == 179, b.local.port() != 179, "both ends hold the same connection");
        assert_eq!(world.connections(ids[0], ids[1]), 1);
    });
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        let (mut world, mut dice) = (World::new(seed), Dice::new(seed));
        let topology = Topology::random(8, &mut dice);
        let ids = topology.build(&mut world, |n| 65000 + u32::try_from(n).unwrap(), |_, _| {});
        world.run_until_quiet(LIMIT).unwrap();
        world.reset(ids[0], ids[1]);
        world.run_until_quiet(LIMIT).unwrap();
        ids.iter().map(|id| format!("{:?}", world.changes(*id))).collect::<Vec<_>>()
    };
    assert_eq!(run(3), run(3));
    assert_ne!(run(3), run(4));
}

/// A peer that reads nothing holds up nobody else, and gets what it missed when it reads again.
#[test]
fn a_slow_peer_holds_up_nobody() {
    for_seeds("a_slow_peer_holds_up_nobody", 2, |seed| {
        let mut world = World::new(seed);
        let many = |config: &mut weft_bgp::config::SpeakerConfig, from: u32, count: u32| {
            for n in from..from + count {
                let prefix = IpNet::new(std::net::Ipv4Addr::from(0x6400_0000 + (n << 8)).into(), 24).unwrap();
                // Attributes of its own, so that every prefix costs an UPDATE of its own.
                let communities = [weft_bgp::policy::Community::Standard(n)].into();
                let origination = weft_bgp::config::Origination { communities, ..<_>::default() };
                config.originate.insert(prefix, origination);
            }
        };
        let ids = Topology::mesh(3).build(&mut world, |_| 64512, |_, _| {});
        world.run_until_quiet(LIMIT).unwrap();
        world.set_reading(ids[2], false);
        let mut config = world.inspect(ids[0]).unwrap().config().unwrap().as_ref().clone();
        many(&mut config, 0, 10_000);
        world.configure(ids[0], config);
        world.run_for(Duration::from_secs(30)).unwrap();
        assert_eq!(world.kernel(ids[1]).len(), 10_000 + 4);
        assert!(world.kernel(ids[2]).len() < 10_000);
        world.set_reading(ids[2], true);
        world.run_for(Duration::from_secs(10)).unwrap();
        assert_eq!(world.kernel(ids[2]).len(), 10_000 + 4);
        assert_eq!(established(&world, ids[0]), 2);
    });
}

/// The SendHoldTimer (RFC 9687): the stuck peer keeps sending, so that its own hold timer is all that could help, and does not.
/// Bug class 43 (RFC 9687): a peer that lives and reads nothing.
/// Proves RFC 9687 3.
#[test]
fn a_peer_that_takes_nothing_for_eight_minutes_is_given_up() {
    let mut world = World::new(1);
    let ids = Topology::mesh(2).build(
        &mut world,
        |_| 64512,
        |_, config| {
            for peer in config.peers.values_mut() {
                Arc::make_mut(peer).timers.hold_time = Duration::ZERO;
            }
        },
    );
    world.run_until_quiet(LIMIT).unwrap();
    world.set_reading(ids[1], false);
    let mut config = world.inspect(ids[0]).unwrap().config().unwrap().as_ref().clone();
    for n in 0..10_000_u32 {
        let prefix = IpNet::new(std::net::Ipv4Addr::from(0x6400_0000 + (n << 8)).into(), 24).unwrap();
        let communities = [weft_bgp::policy::Community::Standard(n)].into();
        let origination = weft_bgp::config::Origination { communities, ..<_>::default() };
        config.originate.insert(prefix, origination);
    }
    world.configure(ids[0], config);
    world.run_for(Duration::from_secs(470)).unwrap();
    assert_eq!(established(&world, ids[0]), 1);
    world.run_for(Duration::from_secs(15)).unwrap();
    assert_eq!(established(&world, ids[0]), 0);
    let error = world.inspect(ids[0]).unwrap().peers().remove(0).last_error.unwrap();
    assert_eq!((error.code, error.subcode), (Some(8), Some(0)), "{error:?}");
    assert!(routes(&world, ids[0]).is_empty(), "a death, not a restart");
}
