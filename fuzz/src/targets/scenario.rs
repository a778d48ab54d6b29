//! A network of speakers, and what may happen to it: after quiet, everybody knows what the topology says.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use weft_bgp::config::{AddPath, AddPathSend, Origination, PathChoice};
use weft_bgp::policy::Community;
use weft_bgp::sim::{SpeakerId, World};
use weft_bgp::speaker::Input;

use super::Choices;
use super::sim_support::{Topology, established, prefixes, routes, start, v4, v6};

/// More events than that are another scenario.
const EVENTS_MAX: usize = 48;

/// The seed, whose highest bit says whether sessions have several paths of a prefix, how many speakers there are and how they are linked; then events: links that are cut, healed or reset, processes that die,
/// start again, stop reading or stop altogether, prefixes that come, change and go, sessions that are cleared, and time.
pub fn scenario(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let mut net = Net::new(&mut choices);
    for _ in 0..EVENTS_MAX {
        if choices.is_empty() {
            break;
        }
        net.event(&mut choices);
    }
    net.mend();
    net.assert_all_is_well();
}

struct Net {
    world: World,
    topology: Topology,
    ids: Vec<SpeakerId>,
    /// Who originates its prefixes.
    origins: BTreeSet<usize>,
    starts: usize,
}

impl Net {
    fn new(choices: &mut Choices<'_>) -> Self {
        let seed = choices.byte();
        let several = seed & 0x80 != 0;
        let mut world = World::new(seed.into());
        let size = 2 + choices.below(4);
        let mut links: BTreeSet<_> = (1..size).map(|b| (choices.below(b), b)).collect();
        let more = choices.byte();
        let pairs = (0..size).flat_map(|a| (a + 1..size).map(move |b| (a, b)));
        links.extend(pairs.enumerate().filter(|(n, _)| more >> (n % 8) & 1 == 1).map(|(_, pair)| pair));
        let topology = Topology { size, links };
        let asn = |n| 65000 + u32::try_from(n).unwrap();
        let ids = topology.build(&mut world, asn, |_, config| {
            for peer in config.peers.values_mut().filter(|_| several) {
                let send = Some(AddPathSend { paths: PathChoice::All, limit: 4 });
                Arc::make_mut(peer).add_path = AddPath { receive: true, send };
            }
        });
        Self { world, topology, ids, origins: (0..size).collect(), starts: 0 }
    }

    fn event(&mut self, choices: &mut Choices<'_>) {
        let what = choices.byte() % 12;
        let link = choices.byte();
        let (a, b) = *self.topology.links.iter().nth(usize::from(link) % self.topology.links.len()).unwrap();
        let (one, other) = (self.ids[a], self.ids[b]);
        let from = if link & 0x80 == 0 { b } else { a };
        match what {
            0 => self.world.cut(one, other),
            1 => self.world.heal(one, other),
            2 => self.world.reset(one, other),
            3 => self.world.set_reading(self.ids[from], false),
            4 => self.world.set_reading(self.ids[from], true),
            5 => self.world.tell(one, Input::Reset { peer: v4(b).into() }),
            6 => self.world.kill(self.ids[from]),
            7 => self.start(from, link & 0x40 == 0),
            8 => self.originate(from, None),
            9 => self.originate(from, Some(u32::from(choices.byte()))),
            10 => self.run(Duration::from_millis(u64::from(choices.byte()) * 4)),
            _ => self.run(Duration::from_secs(u64::from(choices.byte()))),
        }
    }

    fn run(&mut self, time: Duration) {
        self.world.run_for(time).expect("it rests");
    }

    fn start(&mut self, n: usize, keep_kernel: bool) {
        self.starts += 1;
        self.world.restart(self.ids[n], start(n + 100 * self.starts), keep_kernel);
    }

    /// Announces a speaker's prefixes with this MED, or withdraws them.
    fn originate(&mut self, n: usize, med: Option<u32>) {
        let Some(config) = self.world.inspect(self.ids[n]).and_then(|speaker| speaker.config().cloned())
        else {
            return;
        };
        let mut config = config.as_ref().clone();
        config.originate.clear();
        self.origins.remove(&n);
        if let Some(med) = med {
            let origination = Origination {
                med: Some(med),
                communities: [Community::Standard(med)].into(),
                ..<_>::default()
            };
            config.originate.extend(prefixes(n).map(|prefix| (prefix, origination.clone())));
            self.origins.insert(n);
        }
        self.world.configure(self.ids[n], config);
    }

    /// Everything that is broken is whole again, and has the time that it needs.
    fn mend(&mut self) {
        for (a, b) in &self.topology.links {
            self.world.heal(self.ids[*a], self.ids[*b]);
        }
        for n in 0..self.topology.size {
            self.world.set_reading(self.ids[n], true);
            if self.world.inspect(self.ids[n]).is_none() {
                self.start(n, true);
            }
        }
        // Idle hold may have grown to a minute, and stale routes have two.
        self.run(Duration::from_secs(300));
    }

    fn assert_all_is_well(&self) {
        for (n, id) in self.ids.iter().enumerate() {
            assert_eq!(routes(&self.world, *id), self.expected(n), "s{n} of {:?}", self.topology);
            assert_eq!(established(&self.world, *id), self.topology.neighbours(n).count(), "s{n}");
            assert!(self.world.converged(*id), "s{n}");
        }
        for (a, b) in &self.topology.links {
            assert_eq!(self.world.connections(self.ids[*a], self.ids[*b]), 1, "s{a} and s{b}");
        }
    }

    /// Every prefix over all neighbours that are nearest to its origin.
    fn expected(&self, n: usize) -> BTreeMap<IpNet, BTreeSet<IpAddr>> {
        let mut table = BTreeMap::new();
        for origin in self.origins.iter().filter(|origin| **origin != n) {
            let distances = self.topology.distances(*origin);
            let Some(distance) = distances[n] else { continue };
            let nearest = || self.topology.neighbours(n).filter(|m| distances[*m] == Some(distance - 1));
            let [ipv4, ipv6] = prefixes(*origin);
            table.insert(ipv4, nearest().map(|m| v4(m).into()).collect());
            table.insert(ipv6, nearest().map(|m| v6(m).into()).collect());
        }
        table
    }
}
