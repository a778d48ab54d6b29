//! Networks with route reflectors (RFC 4456) on a virtual clock, against a model that knows nothing of messages.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test")]

mod sim_support;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use sim_support::{Dice, LIMIT, established, for_seeds, peer, prefixes, routes, speaker, start, v4, v6};
use weft_bgp::config::SpeakerConfig;
use weft_bgp::sim::{SpeakerId, World};
use weft_bgp::speaker::Input;
use weft_bgp::status::{RibView, RouteSelect};

const ASN: u32 = 64512;

type Table = BTreeMap<IpNet, BTreeSet<IpAddr>>;

/// Speakers of one AS and the sessions between them.
#[derive(Clone, Debug, Default)]
struct Network {
    size: usize,
    /// Who is whose client: reflector, client.
    clients: BTreeSet<(usize, usize)>,
    /// Ordinary sessions, lesser number first.
    ordinary: BTreeSet<(usize, usize)>,
    /// The cluster of each reflector that does not go by its router id.
    clusters: BTreeMap<usize, Ipv4Addr>,
}

impl Network {
    fn neighbours(&self, n: usize) -> BTreeSet<usize> {
        let pairs = self.clients.iter().chain(&self.ordinary);
        pairs.filter_map(|&(a, b)| if a == n { Some(b) } else { (b == n).then_some(a) }).collect()
    }

    fn cluster(&self, n: usize) -> Ipv4Addr {
        self.clusters.get(&n).copied().unwrap_or(v4(n))
    }

    fn config(&self, n: usize) -> SpeakerConfig {
        let mut config = speaker(n, ASN);
        config.cluster_id = self.clusters.get(&n).copied();
        for m in self.neighbours(n) {
            let mut peer = peer(n, ASN, ASN);
            peer.route_reflector_client = self.clients.contains(&(n, m));
            config.peers.insert(v4(m).into(), Arc::new(peer));
        }
        config
    }

    fn build(&self, world: &mut World) -> Vec<SpeakerId> {
        let add = |n| world.add(&format!("s{n}"), start(n), self.config(n), vec![v4(n).into(), v6(n).into()]);
        (0..self.size).map(add).collect()
    }

    /// The speakers that hear of what `origin` announces: it spreads along sessions by the rule of RFC 4456 section 6, and no further than
    /// to who has not been told already, but for two reflectors of one cluster, which take nothing from each other that either has reflected.
    fn reached(&self, origin: usize, alive: &BTreeSet<usize>) -> BTreeSet<usize> {
        let mut reached: BTreeSet<usize> = [origin].into();
        // Who was told, by whom, and through which clusters it went.
        let mut frontier: Vec<(usize, Option<usize>, Vec<Ipv4Addr>)> = vec![(origin, None, vec![])];
        while let Some((at, from, clusters)) = frontier.pop() {
            for to in self.neighbours(at).into_iter().filter(|to| alive.contains(to)) {
                let reflects = |from| self.clients.contains(&(at, from)) || self.clients.contains(&(at, to));
                let mut passed = clusters.clone();
                match from {
                    Some(from) if from == to || !reflects(from) => continue,
                    Some(_) => passed.push(self.cluster(at)),
                    None => {}
                }
                if to != origin && !passed.contains(&self.cluster(to)) {
                    reached.insert(to);
                    frontier.push((to, Some(at), passed));
                }
            }
        }
        reached
    }

    /// What a speaker should have: every prefix that reaches it, by way of its origin itself.
    fn table(&self, n: usize, alive: &BTreeSet<usize>) -> Table {
        let origins = alive.iter().filter(|m| **m != n && self.reached(**m, alive).contains(&n));
        let next_hop = |prefix: &IpNet, m| if prefix.addr().is_ipv4() { v4(m).into() } else { v6(m).into() };
        origins.flat_map(|&m| prefixes(m).map(|p| (p, [next_hop(&p, m)].into()))).collect()
    }

    fn assert(&self, world: &World, ids: &[SpeakerId], alive: &BTreeSet<usize>, when: &str) {
        for &n in alive {
            assert_eq!(routes(world, ids[n]), self.table(n, alive), "s{n} {when}: {self:?}");
        }
    }
}

/// Two reflectors, 0 and 1, and their clients; some are the clients of one only, and some speak with each other too.
fn two_reflectors(dice: &mut Dice) -> Network {
    let size = 4 + dice.roll(12);
    let mut network = Network { size, ordinary: [(0, 1)].into(), ..Network::default() };
    for client in 2..size {
        match dice.roll(6) {
            0 => drop(network.clients.insert((0, client))),
            1 => drop(network.clients.insert((1, client))),
            _ => network.clients.extend([(0, client), (1, client)]),
        }
    }
    for _ in 0..dice.roll(3) {
        let (a, b) = (2 + dice.roll(size - 2), 2 + dice.roll(size - 2));
        if a != b {
            network.ordinary.insert((a.min(b), a.max(b)));
        }
    }
    if dice.roll(3) == 0 {
        network.clusters.extend([(0, Ipv4Addr::new(7, 7, 7, 7)), (1, Ipv4Addr::new(7, 7, 7, 7))]);
    }
    network
}

fn everybody(network: &Network) -> BTreeSet<usize> {
    (0..network.size).collect()
}

/// No path that is used has come back to where it was, and what reflectors say of it is so.
fn assert_no_loop(world: &World, ids: &[SpeakerId], network: &Network) {
    for (n, id) in ids.iter().enumerate() {
        let Some(speaker) = world.inspect(*id) else { continue };
        for route in speaker.routes(RibView::Loc, RouteSelect::All) {
            for path in route.paths.iter().filter(|path| path.valid && path.peer.is_some()) {
                let attributes = &path.attributes;
                let origin = (0..network.size).find(|m| prefixes(*m).contains(&route.prefix)).unwrap();
                let by_origin = path.peer == Some(v4(origin).into());
                let originator = (!by_origin).then_some(v4(origin));
                assert_eq!(attributes.originator_id, originator, "s{n} {route:?}");
                let clusters: BTreeSet<_> = attributes.cluster_list.iter().collect();
                assert_eq!(clusters.len(), attributes.cluster_list.len(), "s{n} {route:?}");
                assert!(attributes.cluster_list.is_empty() == by_origin, "s{n} {route:?}");
                assert!(!attributes.cluster_list.contains(&network.cluster(n)), "s{n} {route:?}");
            }
        }
    }
}

/// Proves RFC 4456 6.
#[test]
fn two_reflectors_tell_every_client_of_every_other() {
    for_seeds("two_reflectors_tell_every_client_of_every_other", 40, |seed| {
        let (mut world, mut dice) = (World::new(seed), Dice::new(seed));
        let network = two_reflectors(&mut dice);
        let ids = network.build(&mut world);
        world.run_until_quiet(LIMIT).unwrap();
        network.assert(&world, &ids, &everybody(&network), "at first");
        assert_no_loop(&world, &ids, &network);
        if network.clusters.is_empty() {
            let others = network.size - 1;
            for (n, id) in ids.iter().enumerate() {
                assert_eq!(routes(&world, *id).len(), 2 * others, "s{n} knows of everybody: {network:?}");
            }
        }
    });
}

/// Whoever has two reflectors loses nothing with one of them, not even for a moment.
#[test]
fn a_reflector_that_dies_or_is_cut_off_takes_nothing_away() {
    for_seeds("a_reflector_that_dies_or_is_cut_off_takes_nothing_away", 20, |seed| {
        let (mut world, mut dice) = (World::new(seed), Dice::new(seed));
        let size = 4 + dice.roll(8);
        let clients = (2..size).flat_map(|client| [(0, client), (1, client)]).collect();
        let network = Network { size, clients, ordinary: [(0, 1)].into(), ..Network::default() };
        let ids = network.build(&mut world);
        world.run_until_quiet(LIMIT).unwrap();
        network.assert(&world, &ids, &everybody(&network), "at first");

        let dead = dice.roll(2);
        let before: Vec<usize> = ids.iter().map(|id| world.changes(*id).len()).collect();
        if dice.roll(2) == 0 {
            world.kill(ids[dead]);
        } else {
            (0..size).filter(|n| *n != dead).for_each(|n| world.cut(ids[dead], ids[n]));
        }
        // Longer than the hold time and the restart time together.
        world.run_for(Duration::from_secs(300)).unwrap();
        for n in (0..size).filter(|n| *n != dead) {
            for (at, change) in &world.changes(ids[n])[before[n]..] {
                let own = prefixes(dead).contains(&change.prefix);
                assert!(own || !change.next_hops.is_empty(), "s{n} lost {} after {at:?}", change.prefix);
            }
            let mut expected = network.table(n, &everybody(&network));
            expected.retain(|prefix, _| !prefixes(dead).contains(prefix));
            assert_eq!(routes(&world, ids[n]), expected, "s{n} without s{dead}");
        }

        (0..size).filter(|n| *n != dead).for_each(|n| world.heal(ids[dead], ids[n]));
        if world.inspect(ids[dead]).is_none() {
            world.restart(ids[dead], start(dead + 100), true);
        }
        world.run_for(Duration::from_secs(300)).unwrap();
        network.assert(&world, &ids, &everybody(&network), "with both again");
        assert_no_loop(&world, &ids, &network);
    });
}

/// Who is a client, and of which cluster, may change at any time: no session ends, and the routes are what they would have been.
#[test]
fn clients_and_clusters_change_without_a_session_ending() {
    for_seeds("clients_and_clusters_change_without_a_session_ending", 20, |seed| {
        let (mut world, mut dice) = (World::new(seed), Dice::new(seed));
        let mut network = two_reflectors(&mut dice);
        let ids = network.build(&mut world);
        world.run_until_quiet(LIMIT).unwrap();
        for round in 0..5 {
            let reflector = dice.roll(2);
            let client = 2 + dice.roll(network.size - 2);
            match dice.roll(3) {
                0 => {
                    let cluster = Ipv4Addr::new(7, 7, 7, u8::try_from(1 + dice.roll(2)).unwrap());
                    network.clusters.insert(reflector, cluster);
                }
                1 if network.clients.remove(&(reflector, client)) => {
                    network.ordinary.insert((reflector, client));
                }
                _ => {
                    if network.ordinary.remove(&(reflector, client)) {
                        network.clients.insert((reflector, client));
                    }
                }
            }
            world.configure(ids[reflector], network.config(reflector));
            world.run_until_quiet(LIMIT).unwrap();
            network.assert(&world, &ids, &everybody(&network), &format!("in round {round}"));
            assert_no_loop(&world, &ids, &network);
        }
        for (n, id) in ids.iter().enumerate() {
            let peers = world.inspect(*id).unwrap().peers();
            assert_eq!(established(&world, *id), network.neighbours(n).len());
            assert!(peers.iter().all(|peer| peer.counters.flaps == 0), "s{n}");
        }
    });
}

/// Resets, stalls and restarts on the way leave no trace.
/// Proves RFC 4456 8.
#[test]
fn reflected_routes_settle_whatever_happens_on_the_way() {
    for_seeds("reflected_routes_settle_whatever_happens_on_the_way", 15, |seed| {
        let (mut world, mut dice) = (World::new(seed), Dice::new(seed));
        let network = two_reflectors(&mut dice);
        let ids = network.build(&mut world);
        let pairs: Vec<_> = network.clients.iter().chain(&network.ordinary).copied().collect();
        for _ in 0..20 {
            let (a, b) = pairs[dice.roll(pairs.len())];
            match dice.roll(5) {
                0 => world.cut(ids[a], ids[b]),
                1 => world.heal(ids[a], ids[b]),
                2 => world.reset(ids[a], ids[b]),
                3 => world.tell(ids[a], Input::Reset { peer: v4(b).into() }),
                _ => world.restart(ids[b], start(b + 100), dice.roll(2) == 0),
            }
            world.run_for(Duration::from_millis(1 << dice.roll(17))).unwrap();
        }
        pairs.iter().for_each(|(a, b)| world.heal(ids[*a], ids[*b]));
        world.run_for(Duration::from_secs(300)).unwrap();
        network.assert(&world, &ids, &everybody(&network), "after all");
        assert_no_loop(&world, &ids, &network);
    });
}

/// A reflector with a hundred clients. (With a hundred prefixes each: `rib_reflection`.)
#[test]
fn a_hundred_clients_have_each_others_prefixes() {
    let clients = (1..=100).map(|client| (0, client)).collect();
    let network = Network { size: 101, clients, ..Network::default() };
    let mut world = World::new(1);
    let of = |n: usize| {
        (0..10_u8).map(move |i| IpNet::new([100, u8::try_from(n).unwrap(), i, 0].into(), 24).unwrap())
    };
    let ids: Vec<SpeakerId> = (0..network.size)
        .map(|n| {
            let mut config = network.config(n);
            config.originate = of(n).map(|prefix| (prefix, <_>::default())).collect();
            world.add(&format!("s{n}"), start(n), config, vec![v4(n).into()])
        })
        .collect();
    world.run_until_quiet(LIMIT).unwrap();
    for (n, id) in ids.iter().enumerate() {
        let kernel = routes(&world, *id);
        assert_eq!(kernel.len(), 1_000, "s{n}");
        for m in (0..network.size).filter(|m| *m != n) {
            assert!(of(m).all(|prefix| kernel[&prefix] == [v4(m).into()].into()), "s{n} of s{m}");
        }
    }
    let reflector = world.inspect(ids[0]).unwrap();
    let told = reflector.peers().iter().map(|peer| peer.families[0].advertised).sum::<usize>();
    assert_eq!(told, 100 * 1_000, "nobody is told of its own");
}
