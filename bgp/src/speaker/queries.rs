//! What a speaker says of itself.

use std::sync::Arc;

use super::Speaker;
use super::peer::Peer;
use crate::bmp::StationStatus;
use crate::config::SpeakerConfig;
use crate::status::{BestChange, PeerStatus, Rejections, RibView, RouteSelect, RouteStatus, SpeakerCounters};
use crate::types::{PeerAddress, PeerId};

impl Speaker {
    /// The configuration that runs; none before the first.
    #[must_use]
    pub fn config(&self) -> Option<&Arc<SpeakerConfig>> {
        self.config.as_ref()
    }

    /// Whether [`super::Output::Converged`] was said.
    #[must_use]
    pub fn converged(&self) -> bool {
        self.convergence.converged()
    }

    /// What concerns no single peer.
    #[must_use]
    pub fn counters(&self) -> SpeakerCounters {
        SpeakerCounters { best_path_changes: self.rib.best_changes_count(), ..self.counters }
    }

    /// Which best paths changed after the one of this number, in order; of those long ago nothing is known.
    #[must_use]
    pub fn best_changes(&self, after: u64) -> Vec<BestChange> {
        self.rib.best_changes(after)
    }

    /// Every configured peer, by where it is.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerStatus> {
        self.peers.iter().map(|(&address, peer)| self.status(address, peer)).collect()
    }

    /// The peer that is there.
    #[must_use]
    pub fn peer(&self, address: PeerAddress) -> Option<PeerStatus> {
        self.peers.get(&address).map(|peer| self.status(address, peer))
    }

    /// Every monitoring station, by where it listens.
    #[must_use]
    pub fn stations(&self) -> Vec<StationStatus> {
        self.bmp.status()
    }

    fn status(&self, address: PeerAddress, peer: &Peer) -> PeerStatus {
        let mut families = self.rib.family_status(peer.id, peer.config.families);
        if let Some(group) = peer.group {
            self.egress.look(|groups| {
                for status in &mut families {
                    let told = groups.get(group).map(|egress| egress.advertised(peer.id, status.family));
                    status.advertised = told.unwrap_or(0);
                }
            });
        }
        let mut counters = peer.ingress.counters();
        let [_open, update, .., refresh] = &mut counters.sent;
        *update = update.saturating_add(peer.updates_sent);
        *refresh = refresh.saturating_add(peer.refreshes_sent);
        PeerStatus {
            id: peer.id,
            address,
            config: Arc::clone(&peer.config),
            range: peer.range,
            state: peer.ingress.state(),
            since: peer.ingress.since(),
            session: peer.ingress.session().cloned(),
            families,
            last_error: peer.ingress.last_error().cloned(),
            stale_until: self.rib.stale_until(peer.id),
            counters,
            over_limit: peer.ingress.is_over_limit(),
            established_at: peer.ingress.established_at(),
            timers: peer.ingress.timers(),
            said: peer.ingress.said(),
        }
    }

    /// The routes of a RIB that a prefix or an address picks, or all of them in order of their prefixes.
    #[must_use]
    pub fn routes(&self, view: RibView, select: RouteSelect) -> Vec<RouteStatus> {
        self.rib.routes(view, select)
    }

    /// All routes of a RIB, a piece at a time: see [`Rib::routes_from`](crate::rib::Rib::routes_from).
    #[must_use]
    pub fn routes_from(&self, view: RibView, from: usize, limit: usize) -> (Vec<RouteStatus>, Option<usize>) {
        self.rib.routes_from(view, from, limit)
    }

    /// Which of a peer's routes are rejected for what points at a mistake.
    #[must_use]
    pub fn rejections(&self, peer: PeerId) -> Rejections {
        self.rib.rejections(peer)
    }
}
