//! Routes in: the Adj-RIBs-In, import policy and the checks before the decision.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::attributes::{AttrId, PathType};
use super::holdings::{Link, Path, Peer, Source, Standing};
use super::{Rib, RibOutput};
use crate::arena::prefixes::PrefixId;
use crate::config::Origination;
use crate::ingress::{RouteBatch, Session};
use crate::policy::{RouteSource, Subject};
use crate::speaker::{Resolution, TrackedNextHop};
use crate::types::{Asn, Family, PeerId, PeerType, Reason, link_of};
use crate::wire::attributes::{AsPath, Origin, PathAttributes};

/// The code of the reject reason that is alarmed.
pub(super) const DUPLICATE_ORIGIN: &str = "duplicate-origin";

impl Rib {
    /// Takes the routes of an Established session. What comes after its end is dropped.
    pub(super) fn receive(&mut self, peer: PeerId, batch: &RouteBatch) {
        let Some(Link::Up(session)) = self.holdings.peers.get(&peer).map(|p| p.link.clone()) else { return };
        for run in &batch.runs {
            if self.is_full(peer) {
                return;
            }
            let prefixes = batch.prefixes.get(run.range.clone()).unwrap_or_default();
            match &run.attributes {
                Some(attributes) => self.announce(peer, &session, attributes, prefixes),
                None => prefixes.iter().for_each(|prefix| self.withdraw(*prefix, Source::of(peer))),
            }
            if let Some(first) = prefixes.first() {
                self.check_limit(peer, Family::of(first));
            }
        }
    }

    fn announce(
        &mut self,
        peer_id: PeerId,
        session: &Session,
        attributes: &Arc<PathAttributes>,
        prefixes: &[IpNet],
    ) {
        let path_type = PathType::Learned(session.peer_type);
        let attributes = {
            let holdings = &mut self.holdings;
            holdings.attributes.intern(attributes, path_type, link_of(session.local), &mut holdings.hops)
        };
        if let Some(peer) = self.holdings.peers.get(&peer_id) {
            let import = peer.import.clone();
            let reflected_back = self.judge_reflection(session, attributes);
            let otherwise = self.judge_attributes(peer, session, attributes);
            let next_hop = self.holdings.attributes.get(attributes).attributes.next_hop;
            let epochs = (peer.ipv4.epoch, peer.ipv6.epoch);
            for prefix in prefixes.iter().filter(|p| session.families.contains(Family::of(p))) {
                let epoch = if matches!(prefix, IpNet::V4(_)) { epochs.0 } else { epochs.1 };
                let subject = subject(*prefix, next_hop, session);
                let rejected = import.evaluate(subject).err().filter(|_| reflected_back.is_none());
                let standing = reflected_back.unwrap_or_else(|| rejected.map_or(otherwise, rejection));
                self.holdings.attributes.retain(attributes);
                let path = Path { source: Source::of(peer_id), attributes, epoch, standing };
                let before = self.put(prefix.trunc(), path);
                if let Some(reason) = rejected
                    && standing == Standing::DuplicateOrigin
                    && before != Some(Standing::DuplicateOrigin)
                {
                    self.alarm(peer_id, *prefix, reason.clone());
                }
            }
        }
        self.holdings.attributes.release(attributes, &mut self.holdings.hops);
    }

    fn alarm(&mut self, peer: PeerId, prefix: IpNet, reason: Reason) {
        self.outputs.push_back(RibOutput::Alarm { peer, prefix, reason });
    }

    /// Puts a path in the place of the one of the same source; how that one stood.
    fn put(&mut self, prefix: IpNet, path: Path) -> Option<Standing> {
        let family = Family::of(&prefix);
        let id = self.table.entry(prefix);
        self.holdings.enter(family, &path);
        let old = self.table.get_mut(id).put(path);
        if let Some(old) = &old {
            self.holdings.forget(family, old);
        }
        if old.is_none_or(|old| (old.attributes, old.standing) != (path.attributes, path.standing)) {
            self.mark_dirty(id);
        }
        old.map(|old| old.standing)
    }

    /// Takes the path of this source out, if there is one.
    fn withdraw(&mut self, prefix: IpNet, source: Source) {
        let prefix = prefix.trunc();
        let Some(id) = self.table.find(&prefix) else { return };
        if let Some(old) = self.table.get_mut(id).take(source) {
            self.holdings.forget(Family::of(&prefix), &old);
            self.mark_dirty(id);
        }
    }

    /// Takes those of a source's paths out that `goes` picks: one walk over the table.
    pub(super) fn withdraw_where(&mut self, source: Source, goes: impl Fn(Family, &Path) -> bool) {
        for (id, prefix, destination) in self.table.walk_mut() {
            let family = Family::of(&prefix);
            if !destination.path(source).is_some_and(|path| goes(family, path)) {
                continue;
            }
            if let Some(old) = destination.take(source) {
                self.holdings.forget(family, &old);
                if destination.mark_dirty() {
                    self.dirty.push_back(id);
                }
            }
        }
    }

    /// Puts in or changes a path of our own.
    pub(super) fn originate(&mut self, prefix: IpNet, origination: &Origination) {
        let mut communities = origination.communities.clone();
        communities.sort_unstable();
        communities.dedup();
        let mut large_communities = origination.large_communities.clone();
        large_communities.sort_unstable();
        large_communities.dedup();
        let attributes = PathAttributes {
            origin: Origin::Igp,
            as_path: AsPath::default(),
            next_hop: match prefix {
                IpNet::V4(_) => IpAddr::from([0; 4]),
                IpNet::V6(_) => IpAddr::from([0; 16]),
            },
            next_hop_link_local: None,
            med: origination.med,
            local_pref: origination.local_pref,
            atomic_aggregate: false,
            aggregator: None,
            communities,
            ext_communities: Vec::new(),
            large_communities,
            originator_id: None,
            cluster_list: Vec::new(),
            unknown: Vec::new(),
        };
        let holdings = &mut self.holdings;
        let attributes =
            holdings.attributes.intern(&Arc::new(attributes), PathType::Local, None, &mut holdings.hops);
        let path = Path { source: Source::LOCAL, attributes, epoch: 0, standing: Standing::Eligible };
        self.put(prefix.trunc(), path);
    }

    /// Takes a path of our own out.
    pub(super) fn originate_no_more(&mut self, prefix: IpNet) {
        self.withdraw(prefix, Source::LOCAL);
    }

    /// Judges those of the learned paths again that `concerned` picks: one walk over the table.
    pub(super) fn judge_again(&mut self, concerned: impl Fn(&Path) -> bool) {
        let mut changes = Vec::new();
        for (id, prefix, destination) in self.table.walk(0) {
            for path in destination.paths().iter().filter(|p| concerned(p)) {
                let standing = self.judge(prefix, path);
                if standing != path.standing {
                    changes.push((id, prefix, path.source, standing));
                }
            }
        }
        for (id, prefix, source, standing) in changes {
            self.change_standing(id, prefix, source, standing);
        }
    }

    fn change_standing(&mut self, id: PrefixId, prefix: IpNet, source: Source, standing: Standing) {
        let family = Family::of(&prefix);
        let Some(path) = self.table.get_mut(id).path_mut(source) else { return };
        let old = std::mem::replace(&mut path.standing, standing);
        let now = *path;
        self.holdings.enter(family, &now);
        self.holdings.leave(family, &Path { standing: old, ..now });
        self.mark_dirty(id);
        if standing == Standing::DuplicateOrigin
            && let Some(peer) = source.peer()
            && let Some(reason) = self.policy_rejection(peer, prefix, now.attributes)
        {
            self.alarm(peer, prefix, reason);
        }
    }

    fn judge(&self, prefix: IpNet, path: &Path) -> Standing {
        let peer = path.source.peer().and_then(|p| self.holdings.peers.get(&p));
        let Some((peer, session)) = peer.and_then(|p| Some((p, p.session()?))) else { return path.standing };
        if let Some(standing) = self.judge_reflection(session, path.attributes) {
            return standing;
        }
        let next_hop = self.holdings.attributes.get(path.attributes).attributes.next_hop;
        let rejected = peer.import.evaluate(subject(prefix, next_hop, session)).err();
        rejected.map_or_else(|| self.judge_attributes(peer, session, path.attributes), rejection)
    }

    /// What the import policy of a peer has against a route.
    pub(super) fn policy_rejection(&self, peer: PeerId, prefix: IpNet, attributes: AttrId) -> Option<Reason> {
        let peer = self.holdings.peers.get(&peer)?;
        let next_hop = self.holdings.attributes.get(attributes).attributes.next_hop;
        peer.import.evaluate(subject(prefix, next_hop, peer.session()?)).err().cloned()
    }

    /// How a path stands that reflectors have brought back to where it was (RFC 4456 section 8); none: it is no such path. The policy is
    /// not asked of one: between two reflectors every path comes back, and what is our own must not be alarmed as another's.
    fn judge_reflection(&self, session: &Session, id: AttrId) -> Option<Standing> {
        let attributes = &self.holdings.attributes.get(id).attributes;
        if session.peer_type == PeerType::External {
            None
        } else if attributes.originator_id == Some(self.settings.router_id) {
            Some(Standing::OwnOriginator)
        } else {
            let own = self.settings.cluster_id.is_some_and(|id| attributes.cluster_list.contains(&id));
            own.then_some(Standing::OwnCluster)
        }
    }

    /// How a path stands whose prefix the policy accepts. The policy is asked first, so that a path that stands at `OwnAs` is one that
    /// nothing else speaks against.
    fn judge_attributes(&self, peer: &Peer, session: &Session, id: AttrId) -> Standing {
        let interned = self.holdings.attributes.get(id);
        let attributes = &interned.attributes;
        let external = session.peer_type == PeerType::External;
        if self.own_as_occurrences(session.local_as, &attributes.as_path)
            > usize::from(peer.config.allowed_own_as)
        {
            return Standing::OwnAs;
        }
        if external && attributes.as_path.first() != Some(session.remote_as) {
            return Standing::FirstAs;
        }
        if is_without_link(interned.next_hop) {
            return Standing::NextHopUnresolved;
        }
        if self.own_addresses.contains_key(&interned.next_hop) {
            return Standing::OwnNextHop;
        }
        match interned.hop.map(|hop| self.holdings.hops.resolution(hop)) {
            Some(Resolution::Unresolved) => Standing::NextHopUnresolved,
            Some(Resolution::Gateway { .. }) if external && !peer.config.ebgp_multihop => {
                Standing::NextHopNotOnLink
            }
            Some(Resolution::OnLink | Resolution::Gateway { .. }) | None => Standing::Eligible,
        }
    }

    /// How often the own AS, and the AS that we are on the session, occur in a path.
    pub(super) fn own_as_occurrences(&self, local_as: Asn, path: &AsPath) -> usize {
        let own = path.occurrences(self.settings.asn);
        if local_as == self.settings.asn { own } else { own + path.occurrences(local_as) }
    }

    /// Takes in how a next hop resolves.
    pub(super) fn resolve(&mut self, next_hop: TrackedNextHop, resolution: Resolution) {
        let Some(hop) = self.holdings.hops.resolve(next_hop, resolution) else { return };
        let mut concerned = Vec::new();
        for (id, prefix, destination) in self.table.walk(0) {
            for path in destination.paths() {
                if self.holdings.attributes.get(path.attributes).hop == Some(hop) {
                    concerned.push((id, prefix, path.source, self.judge(prefix, path)));
                }
            }
        }
        for (id, prefix, source, standing) in concerned {
            if self.table.get(id).path(source).is_some_and(|path| path.standing != standing) {
                self.change_standing(id, prefix, source, standing);
            } else if standing == Standing::Eligible {
                // The metric may be another.
                self.mark_dirty(id);
            }
        }
    }
}

fn subject(prefix: IpNet, next_hop: IpAddr, session: &Session) -> Subject {
    Subject { prefix, source: RouteSource::RemotePeers, peer_type: session.peer_type, next_hop }
}

fn rejection(reason: &Reason) -> Standing {
    if reason.code == DUPLICATE_ORIGIN { Standing::DuplicateOrigin } else { Standing::Policy }
}

/// Whether a next hop is a link-local address that no link is known of: every link may have one like it (RFC 4007 section 6).
fn is_without_link((address, link): (IpAddr, Option<u32>)) -> bool {
    link.is_none() && matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}
