//! Peers, attribute sets and next hops, and how many paths hold on to each.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::adj_in::DUPLICATE_ORIGIN;
use super::attributes::{AttrId, AttributeTable, PathType};
use super::export::Provenance;
use super::limits::Level;
use super::loc::Best;
use super::next_hops::NextHops;
use crate::config::PeerConfig;
use crate::egress::GroupId;
use crate::ingress::Session;
use crate::policy::CompiledPolicy;
use crate::status::{BestOf, REJECTED};
use crate::types::{Family, PeerAddress, PeerId, PeerType};

/// Whose a path is: a peer's, by the identifier that the peer gave it (RFC 7911), or our own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Source {
    peer: u32,
    path_id: u32,
}

impl Source {
    /// This speaker. Peers are numbered from 0 up and never get there.
    pub(super) const LOCAL: Self = Self { peer: u32::MAX, path_id: 0 };

    /// A peer's path; its identifier is 0 where none was agreed on.
    pub(super) fn of(peer: PeerId, path_id: u32) -> Self {
        Self { peer: peer.0, path_id }
    }

    pub(super) fn peer(self) -> Option<PeerId> {
        (self != Self::LOCAL).then_some(PeerId(self.peer))
    }

    pub(super) fn is_of(self, peer: PeerId) -> bool {
        self.peer() == Some(peer)
    }

    pub(super) fn path_id(self) -> u32 {
        self.path_id
    }
}

/// How a path stands before the decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Standing {
    /// It takes part.
    Eligible,
    /// No route leads to its next hop.
    NextHopUnresolved,
    /// Its next hop lies behind a gateway, and the peer is external and without `ebgp_multihop`.
    NextHopNotOnLink,
    /// The import policy rejects it.
    Policy,
    /// The import policy rejects it as another's, which has been alarmed.
    DuplicateOrigin,
    /// Its AS path has a set (RFC 9774).
    AsSet,
    /// Our own AS is in its AS path too often (RFC 4271 section 9.1.2).
    OwnAs,
    /// An external peer's AS does not come first in its AS path (RFC 4271 section 6.3).
    FirstAs,
    /// We are its ORIGINATOR_ID (RFC 4456 section 8).
    OwnOriginator,
    /// Our cluster is in its CLUSTER_LIST (RFC 4456 section 8).
    OwnCluster,
    /// It was for customers only when it was told to us, who are none (RFC 9234 section 5).
    RouteLeak,
    /// Its next hop is an address of ours (RFC 4271 section 5.1.3).
    OwnNextHop,
}

impl Standing {
    /// All but the first, in order, each with its code: why a path takes no part.
    pub(super) const REJECTED: [(Self, &'static str); REJECTED] = [
        (Self::NextHopUnresolved, "next-hop-unresolved"),
        (Self::NextHopNotOnLink, "next-hop-not-on-link"),
        (Self::Policy, "policy"),
        (Self::DuplicateOrigin, DUPLICATE_ORIGIN),
        (Self::AsSet, "as-set"),
        (Self::OwnAs, "own-as-in-path"),
        (Self::FirstAs, "first-as"),
        (Self::OwnOriginator, "own-originator"),
        (Self::OwnCluster, "own-cluster"),
        (Self::RouteLeak, "route-leak"),
        (Self::OwnNextHop, "own-next-hop"),
    ];

    /// Whether people are to know at once of a path that comes to stand so.
    pub(super) fn is_alarming(self) -> bool {
        matches!(self, Self::DuplicateOrigin | Self::RouteLeak)
    }

    /// Whether only the next hop matters any more.
    pub(super) fn uses_next_hop(self) -> bool {
        matches!(self, Self::Eligible | Self::NextHopUnresolved | Self::NextHopNotOnLink)
    }
}

/// One of a peer's routes to one prefix, before the decision.
#[derive(Clone, Copy, Debug)]
pub(super) struct Path {
    pub(super) source: Source,
    pub(super) attributes: AttrId,
    /// Stale, unless it is the current epoch of the peer's Adj-RIB-In.
    pub(super) epoch: u32,
    pub(super) standing: Standing,
    /// What tells it from the prefix's other paths towards peers that are told several (RFC 7911), from 1 on; 0: it is not told to such.
    /// [`Destination`](super::loc::Destination) gives it.
    pub(super) number: u16,
}

/// A peer's Adj-RIB-In of one family. Its paths are in the table.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct AdjRibIn {
    /// Raised when the peer restarts, so that every path it has is stale without being touched.
    pub(super) epoch: u32,
    pub(super) received: usize,
    pub(super) accepted: usize,
    pub(super) stale: usize,
    pub(super) standing: Census,
    /// Paths of this session that were refused, as the peer had told too many of their prefixes, since it was last asked for its table.
    pub(super) refused: u64,
    /// When the peer is asked to tell its table again, as one of its prefixes has room since some were refused.
    pub(super) ask_at: Option<Instant>,
    pub(super) level: Level,
    /// How long its stale paths are kept, while there may be any.
    pub(super) retention: Option<Retention>,
}

/// How many paths stand how.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Census([usize; REJECTED + 1]);

impl Census {
    pub(super) fn of(&self, standing: Standing) -> usize {
        self.0.get(standing as usize).copied().unwrap_or(0)
    }

    fn count_mut(&mut self, standing: Standing) -> Option<&mut usize> {
        self.0.get_mut(standing as usize)
    }
}

/// How long the stale paths of an Adj-RIB-In are kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retention {
    pub(super) phase: Phase,
    /// Since when some of them may be stale.
    pub(super) since: Instant,
    /// Until when the phase lasts.
    pub(super) until: Instant,
    /// Once some have been long-lived stale: until when any are kept, whatever the peer does before it has told its table.
    pub(super) long_lived_until: Option<Instant>,
}

/// Why paths are stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The peer restarts (RFC 4724).
    Restart,
    /// It has been away for longer (RFC 9494).
    LongLived,
    /// It is there, and tells its table again (RFC 7313).
    Refresh,
}

impl Retention {
    /// However often a peer restarts before it has told its table, its stale paths are kept for this long at most, or for its restart
    /// time if that is longer: the "stale timer" of RFC 8538 section 4.1.
    const STALE_MAX: Duration = Duration::from_secs(180);

    /// How long the end of a refresh is awaited: a peer that never says it must not leave us with what it has taken back silently.
    pub(super) const REFRESH_MAX: Duration = Duration::from_secs(300);

    /// A retention that begins now.
    pub(super) fn new(now: Instant) -> Self {
        Self { phase: Phase::Restart, since: now, until: now, long_lived_until: None }
    }

    /// The end of a restart that begins, or a step of one that goes on, now.
    pub(super) fn put_off(&mut self, now: Instant, restart_time: Duration) {
        let limit = self.long_lived_until.unwrap_or(self.since + Self::STALE_MAX.max(restart_time));
        (self.phase, self.until) = (Phase::Restart, (now + restart_time).min(limit));
    }

    /// The end of a restart: the peer's paths are kept for so much longer from now on. Says whether that is any longer.
    pub(super) fn outlive(&mut self, now: Instant, long_lived_time: Duration) -> bool {
        self.until = *self.long_lived_until.get_or_insert(now + long_lived_time);
        self.phase = Phase::LongLived;
        self.until > now
    }
}

/// Whether there is a session.
#[derive(Clone, Debug)]
pub(super) enum Link {
    /// Not yet, or its routes are gone.
    Down,
    /// It is away, and may have stale routes from this session.
    Restarting(Arc<Session>),
    /// It is Established.
    Up(Arc<Session>),
}

/// One peer.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) address: PeerAddress,
    pub(super) config: Arc<PeerConfig>,
    pub(super) import: Arc<CompiledPolicy>,
    pub(super) link: Link,
    pub(super) ipv4: AdjRibIn,
    pub(super) ipv6: AdjRibIn,
    /// The update group whose table it is told.
    pub(super) group: Option<GroupId>,
    /// The update group that it goes to as soon as that one's table is complete.
    pub(super) next_group: Option<GroupId>,
}

impl Peer {
    pub(super) fn new(address: PeerAddress, config: Arc<PeerConfig>) -> Self {
        let import = Arc::new(CompiledPolicy::new(config.import.clone()));
        Self {
            address,
            config,
            import,
            link: Link::Down,
            ipv4: AdjRibIn::default(),
            ipv6: AdjRibIn::default(),
            group: None,
            next_group: None,
        }
    }

    pub(super) fn adj_rib_in(&self, family: Family) -> &AdjRibIn {
        match family {
            Family::Ipv4Unicast => &self.ipv4,
            Family::Ipv6Unicast => &self.ipv6,
        }
    }

    pub(super) fn adj_rib_in_mut(&mut self, family: Family) -> &mut AdjRibIn {
        match family {
            Family::Ipv4Unicast => &mut self.ipv4,
            Family::Ipv6Unicast => &mut self.ipv6,
        }
    }

    /// The session that its paths came from.
    pub(super) fn session(&self) -> Option<&Arc<Session>> {
        match &self.link {
            Link::Down => None,
            Link::Restarting(session) | Link::Up(session) => Some(session),
        }
    }

    /// The session, if it stands.
    pub(super) fn established(&self) -> Option<&Arc<Session>> {
        match &self.link {
            Link::Up(session) => Some(session),
            Link::Down | Link::Restarting(_) => None,
        }
    }

    /// How its stale paths are kept, of each family that has some.
    pub(super) fn retained(&self) -> impl Iterator<Item = Retention> {
        [&self.ipv4, &self.ipv6].into_iter().filter_map(|adj| adj.retention)
    }

    pub(super) fn is_stale(&self, family: Family, path: &Path) -> bool {
        path.epoch != self.adj_rib_in(family).epoch
    }
}

/// What paths hold on to.
#[derive(Debug, Default)]
pub(super) struct Holdings {
    pub(super) peers: BTreeMap<PeerId, Peer>,
    pub(super) attributes: AttributeTable,
    pub(super) hops: NextHops,
}

impl Holdings {
    /// Counts a path that comes into the table, or comes back with another standing. Its reference to the attributes is its own.
    pub(super) fn enter(&mut self, family: Family, path: &Path) {
        if let Some(peer) = path.source.peer().and_then(|p| self.peers.get_mut(&p)) {
            let adj = peer.adj_rib_in_mut(family);
            adj.received += 1;
            adj.accepted += usize::from(path.standing == Standing::Eligible);
            adj.stale += usize::from(path.epoch != adj.epoch);
            if let Some(count) = adj.standing.count_mut(path.standing) {
                *count += 1;
            }
        }
        if path.standing.uses_next_hop()
            && let Some(hop) = self.attributes.get(path.attributes).hop
        {
            self.hops.enter(hop, path.source.peer());
        }
    }

    /// Undoes [`Self::enter`].
    pub(super) fn leave(&mut self, family: Family, path: &Path) {
        if let Some(peer) = path.source.peer().and_then(|p| self.peers.get_mut(&p)) {
            let adj = peer.adj_rib_in_mut(family);
            adj.received -= 1;
            adj.accepted -= usize::from(path.standing == Standing::Eligible);
            adj.stale -= usize::from(path.epoch != adj.epoch);
            if let Some(count) = adj.standing.count_mut(path.standing) {
                *count -= 1;
            }
        }
        if path.standing.uses_next_hop()
            && let Some(hop) = self.attributes.get(path.attributes).hop
        {
            self.hops.leave(hop);
        }
    }

    /// Where a best path comes from; none: its peer is gone.
    pub(super) fn provenance(&self, best: Best) -> Option<Provenance> {
        let path_type = self.attributes.get(best.attributes).path_type;
        let Some(peer) = best.source.peer() else {
            return Some(Provenance { path_type, client: false, identifier: Ipv4Addr::UNSPECIFIED });
        };
        let peer = self.peers.get(&peer)?;
        let internal = path_type == PathType::Learned(PeerType::Internal);
        let client = internal && peer.config.route_reflector_client;
        Some(Provenance { path_type, client, identifier: peer.session()?.remote_id })
    }

    /// What of a best path people are told afterwards.
    pub(super) fn best_of(&self, best: Best) -> BestOf {
        BestOf {
            peer: best.source.peer().and_then(|peer| self.peers.get(&peer)).map(|peer| peer.address),
            local: best.source == Source::LOCAL,
            next_hop: self.attributes.get(best.attributes).next_hop.0,
        }
    }

    /// Lets go of a path for good.
    pub(super) fn forget(&mut self, family: Family, path: &Path) {
        self.leave(family, path);
        self.attributes.release(path.attributes, &mut self.hops);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_twenty_bytes() {
        assert_eq!(size_of::<Path>(), 20);
    }
}
