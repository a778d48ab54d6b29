//! Networks of several ASes: iBGP within each, with or without reflectors, and eBGP between them.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use weft_bgp::config::{AddPathSend, GracefulRestart, NextHopMode, PathChoice, PeerConfig, SpeakerConfig};
use weft_bgp::policy::{Community, Operation, Policy, Rule, Verdict};
use weft_bgp::types::Reason;

use super::{Dice, Topology, everything, peer, speaker, v4};

/// Marks what an AS was told by a provider of its, which it tells no other.
const FROM_PROVIDER: Community = Community::Standard(0xFDE8_0001);

/// Speakers in ASes, the links between them, and what all of them have.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fabric {
    pub(crate) topology: Topology,
    /// The AS of each speaker.
    pub(crate) ases: Vec<u32>,
    /// Whose internal peers are clients, but for other reflectors.
    pub(crate) reflectors: BTreeSet<usize>,
    /// Which paths of a prefix everybody tells.
    pub(crate) add_path: Option<PathChoice>,
    /// Whether ASes prefer their customers' paths, and are no way between two providers: of two ASes the lesser is the provider.
    pub(crate) valley_free: bool,
    /// Whether routes are kept for long beyond a short restart time.
    pub(crate) long_lived: bool,
    /// Whether who tells its own AS of another's prefixes is their next hop.
    pub(crate) own_next_hop: bool,
}

impl Fabric {
    /// Clusters of up to twelve, each an AS with one or two reflectors; links between them make a tree and some more.
    pub(crate) fn random(size: usize, dice: &mut Dice) -> Self {
        let mut fabric =
            Self { valley_free: dice.roll(2) == 0, own_next_hop: dice.roll(2) == 0, ..Self::default() };
        fabric.add_path = [None, Some(PathChoice::Multipath), Some(PathChoice::All)][dice.roll(3)];
        fabric.topology.size = size;
        let mut clusters = vec![];
        while fabric.ases.len() < size {
            let first = fabric.ases.len();
            let end = size.min(first + 1 + dice.roll(12));
            fabric.ases.extend((first..end).map(|_| 65000 + u32::try_from(clusters.len()).unwrap()));
            let reflectors = end.min(first + 1 + dice.roll(2));
            for b in first..end {
                fabric.topology.links.extend((first..reflectors.min(b)).map(|a| (a, b)));
            }
            fabric.reflectors.extend(first..reflectors);
            clusters.push(first..end);
        }
        for _ in 0..2 {
            for b in 1..clusters.len() {
                let [mut end, mut other] = [dice.roll(b), b].map(|n| clusters[n].clone());
                let (end, other) = (end.nth(dice.roll(end.len())), other.nth(dice.roll(other.len())));
                fabric.topology.links.extend(end.zip(other));
            }
        }
        fabric
    }

    /// The configuration of a speaker that originates its prefixes.
    pub(crate) fn config(&self, n: usize) -> SpeakerConfig {
        let mut config = speaker(n, self.ases[n]);
        for m in self.topology.neighbours(n) {
            config.peers.insert(v4(m).into(), Arc::new(self.peer(n, m)));
        }
        config
    }

    fn peer(&self, n: usize, m: usize) -> PeerConfig {
        let (own, theirs) = (self.ases[n], self.ases[m]);
        let mut peer = peer(n, own, theirs);
        peer.route_reflector_client = self.is_client(n, m);
        peer.add_path.receive = self.add_path.is_some();
        peer.add_path.send = self.add_path.map(|paths| AddPathSend { paths, limit: 4 });
        if self.long_lived {
            peer.graceful_restart = Some(GracefulRestart {
                restart_time: Duration::from_secs(20),
                on_hold_timer_expiry: false,
                long_lived_time: Some(Duration::from_secs(1800)),
            });
        }
        if self.own_next_hop && own == theirs {
            peer.next_hop_mode = NextHopMode::Own;
        }
        (peer.import, peer.export) = self.policies(n, m, true);
        peer
    }

    pub(crate) fn is_client(&self, n: usize, m: usize) -> bool {
        self.ases[n] == self.ases[m] && self.reflectors.contains(&n) && !self.reflectors.contains(&m)
    }

    /// What `n` believes of `m` and tells it, if policy is on.
    pub(crate) fn policies(&self, n: usize, m: usize, on: bool) -> (Arc<Policy>, Arc<Policy>) {
        match self.ases[n].cmp(&self.ases[m]) {
            Ordering::Greater if self.valley_free && on => {
                let from_provider = vec![Operation::AddCommunity(FROM_PROVIDER)];
                (accept(vec![], from_provider), accept(vec![FROM_PROVIDER], vec![]))
            }
            Ordering::Less if self.valley_free && on => {
                let operations =
                    vec![Operation::RemoveCommunity(FROM_PROVIDER), Operation::SetLocalPreference(200)];
                (accept(vec![], operations), everything())
            }
            _ => (everything(), everything()),
        }
    }
}

/// Accepts what has none of these communities, and changes it.
fn accept(but: Vec<Community>, operations: Vec<Operation>) -> Arc<Policy> {
    let refuse = Verdict::Reject(Reason::new("valley", "it was told by a provider"));
    let refuse = (!but.is_empty()).then(|| Rule { communities: but, ..Rule::new(refuse) });
    let rules = refuse.into_iter().chain([Rule::new(Verdict::AcceptWith(operations.into()))]).collect();
    Arc::new(Policy { rules, unmatched: Reason::new("none", "no rule matches") })
}
