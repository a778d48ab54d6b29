//! How many prefixes a peer may tell.

use super::{Rib, RibOutput};
use crate::types::{Family, PeerId};

/// How a peer's Adj-RIB-In of one family stands with its limit, as it was told last. In order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// Below the warning.
    #[default]
    Below,
    /// The warning was told.
    Warned,
    /// That it is exceeded was told.
    Exceeded,
}

impl Rib {
    /// Compares what a peer has told with its limit, and tells when it gets to another level. What counts is what was received, whatever the
    /// import policy makes of it: it is memory either way. Stale routes do not, as the peer that tells others in their place says nothing of
    /// those before its End-of-RIB.
    pub(super) fn check_limit(&mut self, id: PeerId, family: Family) {
        let Some(peer) = self.holdings.peers.get_mut(&id) else { return };
        let Some(limit) = peer.config.max_prefixes else { return };
        let adj = peer.adj_rib_in_mut(family);
        let received = adj.received - adj.stale;
        let level = match received {
            _ if received > limit.limit as usize => Level::Exceeded,
            _ if received >= limit.warning as usize => Level::Warned,
            _ => Level::Below,
        };
        let told = adj.level;
        // One that goes up and down by a few at its limit is told of once.
        if level > told || level == Level::Below {
            adj.level = level;
        }
        if level > told {
            let exceeded = level == Level::Exceeded;
            self.outputs.push_back(RibOutput::Limit { peer: id, family, received, exceeded });
        }
    }

    /// Begins anew: the session is another, or the limit.
    pub(super) fn reset_limits(&mut self, id: PeerId) {
        if let Some(peer) = self.holdings.peers.get_mut(&id) {
            Family::ALL.into_iter().for_each(|family| peer.adj_rib_in_mut(family).level = Level::Below);
        }
    }

    /// Whether nothing is taken of a peer any more, as its session ends for what it has told.
    pub(super) fn is_full(&self, id: PeerId) -> bool {
        self.holdings.peers.get(&id).is_some_and(|peer| {
            let stops = peer.config.max_prefixes.is_some_and(|limit| limit.action.ends_the_session());
            stops && Family::ALL.into_iter().any(|family| peer.adj_rib_in(family).level == Level::Exceeded)
        })
    }
}
