//! Anycast behind route reflectors that tell several paths (RFC 7911), on a virtual clock: every client uses every origin.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test")]

mod sim_support;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use sim_support::{Dice, LIMIT, for_seeds, peer, routes, speaker, start, v4, v6};
use weft_bgp::config::{AddPath, AddPathSend, PathChoice, SpeakerConfig};
use weft_bgp::sim::{SpeakerId, World};
use weft_bgp::speaker::{Input, Refresh};

const ASN: u32 = 64512;

/// What several speakers originate.
fn anycast() -> [IpNet; 2] {
    let v6 = Ipv6Addr::new(0xfd02, 0, 0, 0, 0, 0, 0, 1);
    [IpNet::new([192, 0, 2, 1].into(), 32).unwrap(), IpNet::new(v6.into(), 128).unwrap()]
}

/// Reflectors first, then clients, each of all reflectors.
struct Network {
    reflectors: usize,
    size: usize,
    paths: PathChoice,
}

impl Network {
    fn config(&self, n: usize, origins: &BTreeSet<usize>) -> SpeakerConfig {
        let mut config = speaker(n, ASN);
        if origins.contains(&n) {
            config.originate.extend(anycast().map(|prefix| (prefix, <_>::default())));
        }
        let reflects = |n| n < self.reflectors;
        for m in (0..self.size).filter(|m| *m != n && (reflects(n) || reflects(*m))) {
            let mut peer = peer(n, ASN, ASN);
            peer.route_reflector_client = reflects(n) && !reflects(m);
            let send = AddPathSend { paths: self.paths, limit: 64 };
            peer.add_path = AddPath { receive: true, send: Some(send).filter(|_| reflects(n)) };
            config.peers.insert(v4(m).into(), Arc::new(peer));
        }
        config
    }

    /// The next hops of the anycast prefixes at each speaker that does not originate them itself: every origin that lives.
    fn assert(&self, world: &World, ids: &[SpeakerId], origins: &BTreeSet<usize>, alive: &BTreeSet<usize>) {
        for &n in alive.iter().filter(|n| !origins.contains(n)) {
            let table = routes(world, ids[n]);
            let living = || origins.iter().filter(|origin| alive.contains(origin));
            let wanted: [BTreeSet<IpAddr>; 2] =
                [living().map(|m| v4(*m).into()).collect(), living().map(|m| v6(*m).into()).collect()];
            for (prefix, wanted) in anycast().iter().zip(wanted) {
                let found = table.get(prefix).cloned().unwrap_or_default();
                assert_eq!(found, wanted, "{prefix} at s{n}; {origins:?} of {alive:?}");
            }
        }
    }
}

/// Origins that come and go, die and come back, sessions that are reset and refreshed: after quiet every client has every origin.
/// Proves RFC 7911, RFC 4456.
#[test]
fn clients_of_reflectors_use_every_origin() {
    for_seeds("clients_of_reflectors_use_every_origin", 24, |seed| {
        let mut dice = Dice::new(seed);
        let mut world = World::new(seed);
        let paths = if dice.roll(2) == 0 { PathChoice::Multipath } else { PathChoice::All };
        let reflectors = 1 + dice.roll(2);
        let network = Network { reflectors, size: reflectors + 3 + dice.roll(5), paths };
        let clients = |dice: &mut Dice| network.reflectors + dice.roll(network.size - network.reflectors);
        let mut origins: BTreeSet<usize> = (0..3).map(|_| clients(&mut dice)).collect();
        let ids: Vec<SpeakerId> = (0..network.size)
            .map(|n| {
                let addresses = vec![v4(n).into(), v6(n).into()];
                world.add(&format!("s{n}"), start(n), network.config(n, &origins), addresses)
            })
            .collect();
        let mut alive: BTreeSet<usize> = (0..network.size).collect();
        world.run_until_quiet(LIMIT).unwrap();
        network.assert(&world, &ids, &origins, &alive);
        for step in 0..12 {
            let n = clients(&mut dice);
            match dice.roll(6) {
                0 | 1 if alive.contains(&n) => {
                    if !origins.remove(&n) {
                        origins.insert(n);
                    }
                    world.configure(ids[n], network.config(n, &origins));
                }
                2 if alive.remove(&n) => world.kill(ids[n]),
                3 if alive.insert(n) => {
                    world.restart(ids[n], start(n + 100 * (step + 1)), true);
                    world.configure(ids[n], network.config(n, &origins));
                }
                4 => world.tell(ids[0], Input::Reset { peer: v4(n).into() }),
                _ => {
                    let direction = if dice.roll(2) == 0 { Refresh::In } else { Refresh::Out };
                    world.tell(ids[0], Input::Refresh { peer: v4(n).into(), direction });
                }
            }
            if dice.roll(3) == 0 {
                // Longer than the routes of the dead are kept.
                world.run_for(Duration::from_secs(300)).unwrap();
                world.run_until_quiet(LIMIT).unwrap();
                network.assert(&world, &ids, &origins, &alive);
            }
        }
        world.run_for(Duration::from_secs(300)).unwrap();
        world.run_until_quiet(LIMIT).unwrap();
        network.assert(&world, &ids, &origins, &alive);
    });
}

/// The same network without: each client has the one origin that is its reflector's best.
#[test]
fn without_it_a_client_has_the_reflectors_best_alone() {
    let network = Network { reflectors: 1, size: 5, paths: PathChoice::All };
    let mut world = World::new(1);
    let origins = BTreeSet::from([2, 3, 4]);
    let ids: Vec<SpeakerId> = (0..network.size)
        .map(|n| {
            let mut config = network.config(n, &origins);
            let off =
                |peer: &mut Arc<weft_bgp::config::PeerConfig>| Arc::make_mut(peer).add_path = <_>::default();
            config.peers.values_mut().for_each(off);
            world.add(&format!("s{n}"), start(n), config, vec![v4(n).into(), v6(n).into()])
        })
        .collect();
    world.run_until_quiet(LIMIT).unwrap();
    assert_eq!(routes(&world, ids[0])[&anycast()[0]].len(), 3);
    assert_eq!(routes(&world, ids[1])[&anycast()[0]], [IpAddr::from(v4(2))].into());
}
