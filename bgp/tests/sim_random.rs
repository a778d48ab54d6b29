//! Random networks of up to two hundred speakers, of ASes with reflectors, on a virtual clock: whatever happens, after it every table is what
//! the neighbours' tables say.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test")]

mod sim_support;

use std::sync::Arc;
use std::time::Duration;

use sim_support::fabric::Fabric;
use sim_support::model::Model;
use sim_support::{Dice, LIMIT, for_seeds, start, v4, v6};
use weft_bgp::config::SpeakerConfig;
use weft_bgp::sim::{SpeakerId, World};
use weft_bgp::speaker::{Input, Refresh};

/// So many speakers originate at most, so that large networks do not take long.
const ORIGINS: usize = 16;

struct Net {
    world: World,
    fabric: Fabric,
    configs: Vec<SpeakerConfig>,
    ids: Vec<SpeakerId>,
}

impl Net {
    fn new(seed: u64, dice: &mut Dice) -> Self {
        // Of every eight seeds one has up to two hundred.
        let size = if seed % 8 == 5 { 100 + dice.roll(101) } else { 2 + dice.roll(30) };
        let mut fabric = Fabric::random(size, dice);
        fabric.long_lived = dice.roll(2) == 0;
        let mut world = World::new(seed);
        let mut configs: Vec<_> = (0..size).map(|n| fabric.config(n)).collect();
        for config in configs.iter_mut() {
            if dice.roll(size.max(ORIGINS)) >= ORIGINS {
                config.originate.clear();
            }
        }
        let add = |(n, config): (usize, &SpeakerConfig)| {
            world.add(&format!("s{n}"), start(n), config.clone(), vec![v4(n).into(), v6(n).into()])
        };
        let ids = configs.iter().enumerate().map(add).collect();
        Self { world, fabric, configs, ids }
    }

    fn assert(&self, when: &str) {
        Model { world: &self.world, ids: &self.ids, configs: &self.configs }.assert(when);
    }

    fn happen(&mut self, dice: &mut Dice) {
        let links = &self.fabric.topology.links;
        let (a, b) = *links.iter().nth(dice.roll(links.len())).unwrap();
        let (one, other) = (self.ids[a], self.ids[b]);
        match dice.roll(9) {
            0 => self.world.cut(one, other),
            1 => self.world.heal(one, other),
            2 => self.world.reset(one, other),
            3 => self.world.set_reading(one, false),
            4 => self.world.kill(one),
            5 => self.world.tell(other, Input::Refresh { peer: v4(a).into(), direction: Refresh::In }),
            6 => {
                let peer = self.configs[a].peers.get_mut(&v4(b).into()).unwrap();
                let shutdown = &mut Arc::make_mut(peer).shutdown;
                *shutdown = if shutdown.is_none() { Some("for a while".into()) } else { None };
                self.world.configure(one, self.configs[a].clone());
            }
            7 => {
                let originate = self.fabric.config(b).originate;
                let silent = self.configs[b].originate.is_empty();
                self.configs[b].originate = if silent { originate } else { <_>::default() };
                self.world.configure(other, self.configs[b].clone());
            }
            _ => self.world.restart(other, start(b + 300), dice.roll(2) == 0),
        }
    }

    /// Everything is whole again, but for those who are dead.
    fn mend(&mut self) {
        for (a, b) in &self.fabric.topology.links {
            self.world.heal(self.ids[*a], self.ids[*b]);
        }
        self.ids.iter().for_each(|id| self.world.set_reading(*id, true));
        self.settle();
    }

    /// Idle hold may have grown to a minute, and stale routes have two.
    fn settle(&mut self) {
        self.world.run_for(Duration::from_secs(300)).unwrap();
        self.world.run_until_quiet(LIMIT).unwrap();
    }
}

/// Proves RFC 4271 9, RFC 4456 8, RFC 7911, RFC 9494.
#[test]
fn random_networks_agree_with_the_model_after_all() {
    for_seeds("random_networks_agree_with_the_model_after_all", 8, |seed| {
        let mut dice = Dice::new(seed);
        let mut net = Net::new(seed, &mut dice);
        if net.fabric.topology.links.is_empty() {
            return;
        }
        net.world.run_until_quiet(LIMIT).unwrap();
        net.assert("at first");
        for _ in 0..20 {
            net.happen(&mut dice);
            net.world.run_for(Duration::from_millis(1 << dice.roll(17))).unwrap();
        }
        net.mend();
        net.assert("after all, without those who died");
        let dead = |net: &Net, n: &usize| net.world.inspect(net.ids[*n]).is_none();
        let dead: Vec<_> = (0..net.ids.len()).filter(|n| dead(&net, n)).collect();
        if dead.is_empty() {
            return;
        }
        dead.iter().for_each(|n| net.world.restart(net.ids[*n], start(n + 600), true));
        net.settle();
        net.assert("with everybody");
    });
}
