//! How many prefixes a peer may tell, and how many paths of each.

use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::holdings::{Path, Source};
use super::{Rib, RibOutput};
use crate::ingress::Session;
use crate::types::{Family, PeerId};

/// How many paths of one prefix a peer may have: what is decided on a prefix looks at all of them.
pub(super) const PATHS_MAX: usize = 64;

/// How long a peer's prefix has had room for paths that were refused when the peer is asked for its table: it is asked no more often, and
/// what takes the room in the same breath has come by then.
const ASK_AFTER: Duration = Duration::from_secs(30);

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

    /// Whether there is room for a path of a peer that tells several: whether it has told it before, or fewer than [`PATHS_MAX`] of its prefix. A stale one, which
    /// the peer may tell by another identifier, makes room. What is refused does no harm to what is there, and is counted.
    pub(super) fn has_room(&mut self, id: PeerId, prefix: &IpNet, source: Source) -> bool {
        let family = Family::of(prefix);
        let Some(destination) = self.table.find(prefix).map(|id| self.table.get(id)) else {
            return true;
        };
        let paths = destination.paths_of(id);
        if paths.len() < PATHS_MAX || destination.path(source).is_some() {
            return true;
        }
        let Some(peer) = self.holdings.peers.get_mut(&id) else { return false };
        let is_stale = |path: &&Path| peer.is_stale(family, path);
        if let Some(stale) = paths.iter().find(is_stale).map(|path| path.source) {
            self.withdraw(prefix, stale);
            return true;
        }
        let adj = peer.adj_rib_in_mut(family);
        adj.refused = adj.refused.saturating_add(1);
        false
    }

    /// A path is about to be withdrawn. If that makes room in a full prefix, of which some may have been refused, the peer is asked for its
    /// table after a while: which they were is not remembered.
    pub(super) fn note_room(
        &mut self,
        now: Instant,
        id: PeerId,
        session: &Session,
        prefix: &IpNet,
        source: Source,
    ) {
        let family = Family::of(prefix);
        let Some(peer) = self.holdings.peers.get_mut(&id).filter(|_| session.route_refresh) else { return };
        let adj = peer.adj_rib_in_mut(family);
        if adj.refused == 0 || adj.ask_at.is_some() {
            return;
        }
        let destination = self.table.find(prefix).map(|id| self.table.get(id));
        if destination.is_some_and(|d| d.paths_of(id).len() >= PATHS_MAX && d.path(source).is_some()) {
            adj.ask_at = Some(now + ASK_AFTER);
        }
    }

    /// Asks the peers for their tables of whom that is due. What is refused is counted anew then.
    pub(super) fn ask_again(&mut self, now: Instant) {
        for (id, peer) in &mut self.holdings.peers {
            let is_up = peer.established().is_some();
            for family in Family::ALL {
                let adj = peer.adj_rib_in_mut(family);
                if adj.ask_at.take_if(|at| *at <= now).is_some() && is_up {
                    adj.refused = 0;
                    self.outputs.push_back(RibOutput::AskRefresh { peer: *id, family });
                }
            }
        }
    }

    /// Begins anew: the session is another, or the limit.
    pub(super) fn reset_limits(&mut self, id: PeerId) {
        if let Some(peer) = self.holdings.peers.get_mut(&id) {
            Family::ALL.into_iter().for_each(|family| peer.adj_rib_in_mut(family).level = Level::Below);
        }
    }

    /// Begins to count anew what is refused: the session is another.
    pub(super) fn reset_refused(&mut self, id: PeerId) {
        if let Some(peer) = self.holdings.peers.get_mut(&id) {
            for adj in [&mut peer.ipv4, &mut peer.ipv6] {
                (adj.refused, adj.ask_at) = (0, None);
            }
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
