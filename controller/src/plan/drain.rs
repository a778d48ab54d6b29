//! A node that is about to go: first peers are told that others are better, then nothing, and then its sessions end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use weft_bgp::config::SpeakerConfig;
use weft_bgp::policy::{Community, Operation, Policy, RouteSource, Verdict};
use weft_bgp::types::Reason;
use weft_bgp::wire::attributes::GRACEFUL_SHUTDOWN;

use super::settings::Settings;
use super::{ServicePrefix, ServiceVerdict};
use crate::api::json::DrainPhase;
use crate::cluster::Cluster;

/// How long the sessions outlive the withdrawals, so that peers send their packets elsewhere by the time when the node forgets the
/// ways that it learned from them.
const AFTER_WITHDRAWAL: Duration = Duration::from_secs(2);

/// How long a peer that does not read its withdrawals is waited for.
const WITHDRAWAL_MAX: Duration = Duration::from_secs(10);

/// How far a node is drained, and why it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drain {
    /// How far.
    pub phase: DrainPhase,
    /// Who asks for it.
    pub reason: String,
}

/// What is asked of a node's drain besides by its documents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DrainAsks {
    /// `weftctl drain` asks for it.
    pub requested: bool,
    /// weftd is told to end while the machine is shut down: there is no time left.
    pub ending: bool,
}

/// What the documents and a command say of a node's drain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrainTerms {
    /// Who asks for it; none: nobody.
    pub reason: Option<String>,
    /// For how long the node is the last choice; [`Duration::MAX`]: until weftd is told to end.
    pub drain_time: Duration,
}

/// Whether a node is to be drained; none: there is no such Node.
#[must_use]
pub fn drain_terms(cluster: &Cluster, node: &str, asks: DrainAsks) -> Option<DrainTerms> {
    let own = cluster.nodes.get(node)?;
    let taints = own.drain_taints.iter().map(|key| format!("the taint {key}"));
    let mut reasons: Vec<String> =
        asks.requested.then(|| "weftctl drain".to_owned()).into_iter().chain(taints).collect();
    let drain_time = match asks.ending {
        true => Duration::ZERO,
        // Pods that end by themselves still need their network, and weftd is told to end when they have.
        false if own.shutting_down && reasons.is_empty() => Duration::MAX,
        false => Settings::of(cluster, node).drain_time,
    };
    if own.shutting_down || asks.ending {
        reasons.push("the shutdown of the node".to_owned());
    }
    let reason = (!reasons.is_empty()).then(|| reasons.join(" and "));
    Some(DrainTerms { reason, drain_time })
}

/// Why a node that drains tells its peers nothing.
pub(super) fn withheld() -> Reason {
    Reason::new("node-draining", "the node drains: peers are told nothing")
}

/// An export policy by which what passes of our own says that others are better, whatever its rules do to it.
fn last_choice(export: &Policy) -> Policy {
    // No longer AS path: racks that share an AS would take it for a loop.
    let last = [
        Operation::AddCommunity(Community::Standard(GRACEFUL_SHUTDOWN)),
        Operation::SetLocalPreference(0),
        Operation::SetMed(u32::MAX),
    ];
    let mut export = export.clone();
    for rule in export.rules.iter_mut().filter(|rule| rule.source == Some(RouteSource::Local)) {
        let operations: &[Operation] = match &rule.verdict {
            Verdict::Accept => &[],
            Verdict::AcceptWith(operations) => operations,
            Verdict::Reject(_) | Verdict::AcceptVia(..) => continue,
        };
        rule.verdict = Verdict::AcceptWith(operations.iter().chain(&last).cloned().collect());
    }
    export
}

impl Drain {
    /// Makes what a node should be into what it should be while it drains: the same or less.
    pub(super) fn apply(&self, speaker: &mut SpeakerConfig, services: &mut BTreeMap<IpNet, ServicePrefix>) {
        let nothing = Arc::new(Policy { rules: Vec::new(), unmatched: withheld() });
        // Sessions that have a policy in common go on having one in common.
        let mut last_choices: BTreeMap<*const Policy, Arc<Policy>> = BTreeMap::new();
        let ranges = speaker.ranges.values_mut().map(|range| &mut Arc::make_mut(range).peer);
        for peer in speaker.peers.values_mut().chain(ranges) {
            let peer = Arc::make_mut(peer);
            let export = match self.phase {
                DrainPhase::LowPreference => last_choices
                    .entry(Arc::as_ptr(&peer.export))
                    .or_insert_with(|| Arc::new(last_choice(&peer.export))),
                DrainPhase::Withdrawn | DrainPhase::Drained => &nothing,
            };
            peer.export = Arc::clone(export);
            if self.phase == DrainPhase::Drained {
                peer.shutdown.get_or_insert_with(|| format!("the node is drained: {}", self.reason));
            }
        }
        if self.phase < DrainPhase::Withdrawn {
            return;
        }
        for prefix in services.values_mut().filter(|prefix| prefix.verdict.is_announced()) {
            prefix.verdict = ServiceVerdict::NodeDraining;
        }
    }
}

/// How far a node is drained. A phase is never gone back from but to none, when nobody asks for the drain any more.
#[derive(Clone, Debug, Default)]
pub struct Draining {
    /// How far an earlier run had come.
    resumed: Option<DrainPhase>,
    /// The phase, and since when.
    state: Option<(DrainPhase, Instant)>,
    /// Since when peers know nothing of the node's: not before the phase that tells them so.
    untold: Option<Instant>,
    drain_time: Duration,
}

impl Draining {
    /// Not drained yet, or as far as an earlier run had come, whose sessions are gone.
    #[must_use]
    pub fn new(resumed: Option<DrainPhase>) -> Self {
        Self { resumed, ..Self::default() }
    }

    /// Takes in whether the node is to be drained, and whether peers still know its prefixes (`told`); gives how far it is drained now.
    pub fn look(
        &mut self,
        now: Instant,
        wanted: bool,
        drain_time: Duration,
        told: bool,
    ) -> Option<DrainPhase> {
        let resumed = self.resumed.take();
        self.drain_time = drain_time;
        if !wanted {
            (self.state, self.untold) = (None, None);
            return None;
        }
        let first = match resumed {
            Some(DrainPhase::Withdrawn | DrainPhase::Drained) => DrainPhase::Drained,
            Some(DrainPhase::LowPreference) | None => DrainPhase::LowPreference,
        };
        let (phase, _) = *self.state.get_or_insert((first, now));
        if !told {
            self.untold.get_or_insert(now);
        }
        if self.next_deadline(told).is_some_and(|deadline| deadline <= now) {
            let next = match phase {
                DrainPhase::LowPreference => DrainPhase::Withdrawn,
                DrainPhase::Withdrawn | DrainPhase::Drained => DrainPhase::Drained,
            };
            (self.state, self.untold) = (Some((next, now)), (!told).then_some(now));
        }
        self.state.map(|(phase, _)| phase)
    }

    /// The phase, and since when.
    #[must_use]
    pub fn state(&self) -> Option<(DrainPhase, Instant)> {
        self.state
    }

    /// What a next run must know: the phase, also that of an earlier run that was not looked at yet.
    #[must_use]
    pub fn phase(&self) -> Option<DrainPhase> {
        self.state.map(|(phase, _)| phase).or(self.resumed)
    }

    /// For how long the node is the last choice, as it was told last.
    #[must_use]
    pub fn drain_time(&self) -> Duration {
        self.drain_time
    }

    /// When to look again: when the phase ends, at the latest.
    #[must_use]
    pub fn next_deadline(&self, told: bool) -> Option<Instant> {
        let (phase, since) = self.state?;
        match phase {
            DrainPhase::LowPreference => since.checked_add(self.drain_time),
            DrainPhase::Withdrawn => {
                let heard = match self.untold {
                    Some(untold) => untold.checked_add(AFTER_WITHDRAWAL),
                    // At once: the time begins with the look.
                    None => (!told).then_some(since),
                };
                since.checked_add(WITHDRAWAL_MAX).into_iter().chain(heard).min()
            }
            DrainPhase::Drained => None,
        }
    }
}
