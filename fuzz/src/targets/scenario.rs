//! A network of speakers, and what may happen to it: after quiet, everybody's table is what the neighbours' tables say.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use weft_bgp::config::{Origination, PathChoice, SpeakerConfig};
use weft_bgp::policy::Community;
use weft_bgp::sim::{SpeakerId, World};
use weft_bgp::speaker::{Input, Refresh, SpeakerStart};
use weft_bgp::types::FamilySet;

use super::Choices;
use super::sim_support::fabric::Fabric;
use super::sim_support::model::Model;
use super::sim_support::{Topology, prefixes, start, v4, v6};

/// More events than that are another scenario.
const EVENTS_MAX: usize = 48;

/// The seed, what all sessions have, how many speakers there are, how they are linked, which of them reflect and in which AS each is; then
/// events: links that are cut, healed or reset, processes that die, start again, stop reading or stop altogether, prefixes that come, change
/// and go, sessions that are cleared, refreshed or shut down, policies and reflectors that come and go, and time.
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
    net.model("without the dead");
    net.revive();
    net.model("after all");
}

struct Net {
    world: World,
    fabric: Fabric,
    configs: Vec<SpeakerConfig>,
    ids: Vec<SpeakerId>,
    starts: usize,
}

impl Net {
    fn new(choices: &mut Choices<'_>) -> Self {
        let mut world = World::new(choices.byte().into());
        let features = choices.byte();
        let size = 2 + choices.below(5);
        let mut links: BTreeSet<_> = (1..size).map(|b| (choices.below(b), b)).collect();
        let more = choices.byte();
        let pairs = (0..size).flat_map(|a| (a + 1..size).map(move |b| (a, b)));
        links.extend(pairs.enumerate().filter(|(n, _)| more >> (n % 8) & 1 == 1).map(|(_, pair)| pair));
        let reflecting = choices.byte();
        let asn = |n: usize| 65000 + u32::try_from(n).unwrap();
        let fabric = Fabric {
            topology: Topology { size, links },
            ases: match features & 3 {
                0 => (0..size).map(asn).collect(),
                1 => vec![asn(0); size],
                _ => (0..size).map(|_| asn(choices.below(3))).collect(),
            },
            reflectors: (0..size).filter(|n| reflecting >> n & 1 == 1).collect(),
            add_path: [None, Some(PathChoice::Multipath), Some(PathChoice::All), None]
                [usize::from(features >> 2 & 3)],
            valley_free: features & 0x10 != 0,
            long_lived: features & 0x20 != 0,
            own_next_hop: features & 0x40 != 0,
        };
        let configs: Vec<_> = (0..size).map(|n| fabric.config(n)).collect();
        let add = |(n, config): (usize, &SpeakerConfig)| {
            world.add(&format!("s{n}"), start(n), config.clone(), vec![v4(n).into(), v6(n).into()])
        };
        let ids = configs.iter().enumerate().map(add).collect();
        Self { world, fabric, configs, ids, starts: 0 }
    }

    fn event(&mut self, choices: &mut Choices<'_>) {
        let what = choices.byte() % 16;
        let link = choices.byte();
        let links = &self.fabric.topology.links;
        let (a, b) = *links.iter().nth(usize::from(link) % links.len()).unwrap();
        let (one, other) = (self.ids[a], self.ids[b]);
        let (from, to) = if link & 0x80 == 0 { (b, a) } else { (a, b) };
        match what {
            0 => self.world.cut(one, other),
            1 => self.world.heal(one, other),
            2 => self.world.reset(one, other),
            3 => self.world.set_reading(self.ids[from], false),
            4 => self.world.set_reading(self.ids[from], true),
            5 => self.world.tell(self.ids[from], Input::Reset { peer: v4(to).into() }),
            6 => self.world.kill(self.ids[from]),
            7 => self.start(from, link & 0x40 == 0),
            8 => self.originate(from, None),
            9 => self.originate(from, Some(u32::from(choices.byte()))),
            10 => self.run(Duration::from_millis(u64::from(choices.byte()) * 4)),
            11 => {
                let direction = if link & 0x40 == 0 { Refresh::In } else { Refresh::Out };
                self.world.tell(self.ids[from], Input::Refresh { peer: v4(to).into(), direction });
            }
            12 => self.shut_down_or_not(from, to),
            13 => self.policy(from, to, link & 0x40 == 0),
            14 => self.reflect_or_not(from),
            _ => self.run(Duration::from_secs(u64::from(choices.byte()))),
        }
    }

    fn run(&mut self, time: Duration) {
        self.world.run_for(time).expect("it rests");
    }

    /// One whose kernel keeps its routes says so, and waits for the others' tables (RFC 4724 section 4.1).
    fn start(&mut self, n: usize, keep_kernel: bool) {
        self.starts += 1;
        let forwarding = if keep_kernel { FamilySet::all() } else { FamilySet::EMPTY };
        let start = SpeakerStart { restarting: keep_kernel, forwarding, ..start(n + 100 * self.starts) };
        self.world.restart(self.ids[n], start, keep_kernel);
    }

    fn configure(&mut self, n: usize) {
        self.world.configure(self.ids[n], self.configs[n].clone());
    }

    /// Announces a speaker's prefixes with this community, or withdraws them.
    fn originate(&mut self, n: usize, community: Option<u32>) {
        let originate = &mut self.configs[n].originate;
        originate.clear();
        if let Some(community) = community {
            let communities = [Community::Standard(community)].into();
            let origination = Origination { communities, ..<_>::default() };
            originate.extend(prefixes(n).map(|prefix| (prefix, origination.clone())));
        }
        self.configure(n);
    }

    fn shut_down_or_not(&mut self, n: usize, m: usize) {
        let shutdown = &mut Arc::make_mut(self.configs[n].peers.get_mut(&v4(m).into()).unwrap()).shutdown;
        *shutdown = if shutdown.is_none() { Some("for a while".to_owned()) } else { None };
        self.configure(n);
    }

    /// The policies of a session, or none.
    fn policy(&mut self, n: usize, m: usize, on: bool) {
        let peer = Arc::make_mut(self.configs[n].peers.get_mut(&v4(m).into()).unwrap());
        (peer.import, peer.export) = self.fabric.policies(n, m, on);
        self.configure(n);
    }

    fn reflect_or_not(&mut self, n: usize) {
        let reflectors = &mut self.fabric.reflectors;
        if !reflectors.remove(&n) {
            reflectors.insert(n);
        }
        for m in self.fabric.topology.neighbours(n).collect::<Vec<_>>() {
            for (a, b) in [(n, m), (m, n)] {
                let peer = Arc::make_mut(self.configs[a].peers.get_mut(&v4(b).into()).unwrap());
                peer.route_reflector_client = self.fabric.is_client(a, b);
            }
            self.configure(m);
        }
        self.configure(n);
    }

    /// Everything that is broken is whole again, but for who is dead and what was shut down, and has the time that it needs.
    fn mend(&mut self) {
        for (a, b) in self.fabric.topology.links.clone() {
            self.world.heal(self.ids[a], self.ids[b]);
            // Where some sessions have policies and others have not, there may be no rest.
            self.policy(a, b, true);
            self.policy(b, a, true);
        }
        for id in &self.ids {
            self.world.set_reading(*id, true);
        }
        // Idle hold may have grown to a minute, and stale routes have two.
        self.run(Duration::from_secs(300));
    }

    fn revive(&mut self) {
        let dead = |n: &usize| self.world.inspect(self.ids[*n]).is_none();
        let dead: Vec<_> = (0..self.ids.len()).filter(dead).collect();
        if !dead.is_empty() {
            dead.into_iter().for_each(|n| self.start(n, true));
            self.run(Duration::from_secs(300));
        }
    }

    fn model(&self, when: &str) {
        Model { world: &self.world, ids: &self.ids, configs: &self.configs }.assert(when);
    }
}
