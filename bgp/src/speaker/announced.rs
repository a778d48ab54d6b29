//! Which of our own prefixes somebody knows.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::peer::Peer;
use super::{Output, Speaker};
use crate::config::{Aggregation, Origination};
use crate::egress::groups::Groups;
use crate::egress::{Egress, GroupId};

/// The own prefixes that at least one established peer has been told, or that lie in an aggregate that stands for them there.
#[derive(Debug, Default)]
pub(super) struct Announced {
    /// As they were told last.
    told: BTreeSet<IpNet>,
    /// Whether that may have changed.
    due: bool,
    /// It is to be told after the first convergence, changed or not.
    owed: bool,
}

impl Announced {
    /// Something was sent to a peer, left for it, or a peer is gone.
    pub(super) fn stir(&mut self) {
        self.due = true;
    }

    /// The first convergence is reached.
    pub(super) fn converge(&mut self) {
        (self.due, self.owed) = (true, true);
    }
}

impl Speaker {
    /// Tells which own prefixes are announced, if that has changed. After the first convergence it is told once in any case, when
    /// all that was held back until then has left: a restart takes nothing back that peers are about to hear again.
    pub(super) fn tell_announced(&mut self) {
        // Whoever packs on another thread says when that is done.
        if !self.announced.due || !self.egress.is_at_rest() {
            return;
        }
        self.announced.due = false;
        let originated = || self.config.iter().flat_map(|config| &config.originate);
        let is_summary = |o: &Origination| o.aggregation == Some(Aggregation::SummaryOnly);
        let mut now: BTreeSet<IpNet> = self.egress.look(|groups| {
            originated()
                .map(|(prefix, _)| *prefix)
                .filter(|prefix| self.is_announced(groups, prefix))
                .collect()
        });
        // Whoever is told the whole knows the way to its parts.
        let whole =
            originated().filter(|(prefix, origination)| is_summary(origination) && now.contains(*prefix));
        let whole: Vec<IpNet> = whole.map(|(prefix, _)| *prefix).collect();
        let parts = originated().filter(|(_, origination)| origination.aggregation.is_none());
        now.extend(
            parts.map(|(prefix, _)| *prefix).filter(|prefix| whole.iter().any(|net| net.contains(prefix))),
        );
        let all_out = || self.peers.values().filter(|p| p.established.is_some()).all(|p| self.has_all(p));
        if now != self.announced.told || (self.announced.owed && all_out()) {
            self.announced.owed = false;
            self.announced.told.clone_from(&now);
            self.outputs.push_back(Output::Announced(now));
        }
    }

    /// A prefix becomes announced once everything has left for one peer that was told it, and stays so while any peer knows it: of
    /// a peer that is sent much, it is not known at each moment how far it has read.
    fn is_announced(&self, groups: &Groups, prefix: &IpNet) -> bool {
        let before = self.announced.told.contains(prefix);
        groups.iter().any(|(group, egress)| self.is_told(group, egress, prefix, before))
    }

    fn is_told(&self, group: GroupId, egress: &Egress, prefix: &IpNet, before: bool) -> bool {
        egress.told(prefix).any(|id| {
            let peer = self.addresses.get(&id).and_then(|address| self.peers.get(address));
            peer.is_some_and(|peer| peer.group == Some(group) && (before || self.has_all(peer)))
        })
    }

    /// Whether all that was packed for a peer has left for it.
    fn has_all(&self, peer: &Peer) -> bool {
        let outbox = peer.established.and_then(|connection| self.connections.get(&connection));
        outbox.is_some_and(|outbox| outbox.group_is_out())
    }
}
