//! Routes in: the Adj-RIBs-In, import policy and the checks before the decision.

use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use ipnet::IpNet;
use rustc_hash::FxHashSet;
use smallvec::SmallVec;

use super::attributes::{AttrId, PathType};
use super::holdings::{Holdings, Link, Path, Peer, Source, Standing};
use super::next_hops::HopId;
use super::{Rib, RibOutput};
use crate::arena::prefixes::{LOOK_AHEAD, PackedKey, PrefixId};
use crate::config::Origination;
use crate::ingress::{RouteBatch, Session};
use crate::policy::{Operation, Operations, RouteSource, Subject, is_discard};
use crate::role::Role;
use crate::speaker::{Resolution, TrackedNextHop};
use crate::types::{Asn, Family, FamilySet, PeerId, PeerType, Reason, link_of};
use crate::wire::attributes::{Aggregator, AsPath, LLGR_STALE, NO_LLGR, PathAttributes};

/// The code of the reject reason that is alarmed.
pub(super) const DUPLICATE_ORIGIN: &str = "duplicate-origin";

impl Rib {
    /// Takes the routes of an Established session. What comes after its end is dropped.
    pub(super) fn receive(&mut self, now: Instant, peer: PeerId, batch: &RouteBatch) {
        let Some(Link::Up(session)) = self.holdings.peers.get(&peer).map(|p| p.link.clone()) else { return };
        let mut seen = 0;
        for run in &batch.runs {
            if self.is_full(peer) {
                return;
            }
            if run.range.end > seen {
                let to = run.range.end.max(seen + LOOK_AHEAD).min(batch.prefixes.len());
                let next = batch.prefixes.get(seen..to).unwrap_or_default();
                self.table.look_ahead(next.iter().map(PackedKey::of));
                seen = to;
            }
            let mut nlri = batch.nlri(run).peekable();
            let Some(family) = nlri.peek().map(|(prefix, _)| Family::of(prefix)) else { continue };
            match &run.attributes {
                Some(attributes) if session.families.contains(family) => {
                    self.announce(peer, &session, family, attributes, nlri);
                }
                Some(_) => continue,
                None => nlri.for_each(|(prefix, path_id)| {
                    let source = Source::of(peer, path_id);
                    self.note_room(now, peer, &session, prefix, source);
                    self.withdraw(prefix, source);
                }),
            }
            self.check_limit(peer, family);
        }
    }

    fn announce<'a>(
        &mut self,
        peer_id: PeerId,
        session: &Session,
        family: Family,
        attributes: &Arc<PathAttributes>,
        nlri: impl Iterator<Item = (&'a IpNet, u32)>,
    ) {
        let path_type = PathType::Learned(session.peer_type);
        let attributes = &marked(session, attributes);
        let received = {
            let holdings = &mut self.holdings;
            holdings.attributes.intern(attributes, path_type, link_of(session.local), &mut holdings.hops)
        };
        if let Some(peer) = self.holdings.peers.get(&peer_id) {
            let (import, epoch) = (peer.import.clone(), peer.adj_rib_in(family).epoch);
            let reflected_back = self.judge_reflection(session, received);
            let otherwise = self.judge_attributes(peer, session, received);
            let several = session.add_path.receive.contains(family);
            // A run nearly always has one rule that accepts it.
            let mut imported: SmallVec<[(&Operations, AttrId, Standing); 1]> = SmallVec::new();
            for (prefix, path_id) in nlri {
                let source = Source::of(peer_id, path_id);
                if several && !self.has_room(peer_id, prefix, source) {
                    continue;
                }
                let verdict = match reflected_back {
                    Some(standing) => Err(standing),
                    None => import.evaluate(subject(prefix, attributes, session)).map_err(rejection),
                };
                let (attributes, standing) = match verdict {
                    Err(standing) => (received, standing),
                    Ok(None) => (received, otherwise),
                    Ok(Some(operations)) => {
                        let known = imported.iter().find(|(of, ..)| std::ptr::eq(*of, operations)).copied();
                        let (_, attributes, standing) = known.unwrap_or_else(|| {
                            let (attributes, standing) = self.import(peer_id, session, received, operations);
                            imported.push((operations, attributes, standing));
                            (operations, attributes, standing)
                        });
                        (attributes, standing)
                    }
                };
                self.holdings.attributes.retain(attributes);
                let path = Path { source, attributes, epoch, standing, number: 0 };
                let before = self.put(prefix, path);
                if before != Some(standing) && standing.is_alarming() {
                    self.alarm(peer_id, *prefix, attributes, standing);
                }
            }
            for (_, attributes, _) in imported {
                self.holdings.attributes.release(attributes, &mut self.holdings.hops);
            }
        }
        self.holdings.attributes.release(received, &mut self.holdings.hops);
    }

    /// What operations make of received attributes, with a reference of its own, and how a path with that stands.
    fn import(
        &mut self,
        peer: PeerId,
        session: &Session,
        received: AttrId,
        operations: &Operations,
    ) -> (AttrId, Standing) {
        let holdings = &mut self.holdings;
        let attributes = holdings.attributes.import(received, operations, &mut holdings.hops);
        let peer = self.holdings.peers.get(&peer);
        let standing = peer.map_or(Standing::Policy, |peer| self.judge_attributes(peer, session, attributes));
        (attributes, standing)
    }

    /// Has people told of a path that did not stand so before, as they are to know at once.
    fn alarm(&mut self, peer: PeerId, prefix: IpNet, attributes: AttrId, standing: Standing) {
        let Some(told_by) = self.holdings.peers.get(&peer) else { return };
        // Who tells one such route tells a table of them: the first stands for all.
        if told_by.adj_rib_in(Family::of(&prefix)).standing.of(standing) != 1 {
            return;
        }
        let output = match standing {
            Standing::DuplicateOrigin => {
                let reason = self.policy_rejection(peer, prefix, attributes);
                reason.map(|reason| RibOutput::Alarm { peer, prefix, reason })
            }
            Standing::RouteLeak => {
                let reason = self.leak(told_by, attributes);
                Some(RibOutput::Leak { peer, prefix, reason })
            }
            _ => None,
        };
        self.outputs.extend(output);
    }

    /// Puts a path in the place of the one of the same source; how that one stood. The prefix has no host bits.
    fn put(&mut self, prefix: &IpNet, path: Path) -> Option<Standing> {
        let family = Family::of(prefix);
        let id = self.table.entry(prefix);
        self.holdings.enter(family, &path);
        let old = self.table.get_mut(id).put(path);
        if let Some(old) = &old {
            self.holdings.forget(family, old);
        }
        if old.is_none_or(|old| (old.attributes, old.standing) != (path.attributes, path.standing)) {
            self.monitor.path(path.source, prefix);
            self.dirty.mark(id);
        }
        old.map(|old| old.standing)
    }

    /// Takes the path of this source out, if there is one. The prefix has no host bits.
    pub(super) fn withdraw(&mut self, prefix: &IpNet, source: Source) {
        let Some(id) = self.table.find(prefix) else { return };
        if let Some(old) = self.table.get_mut(id).take(source) {
            self.holdings.forget(Family::of(prefix), &old);
            self.monitor.path(source, prefix);
            self.dirty.mark(id);
        }
    }

    /// Takes those of a peer's paths out that `goes` picks, at these places of the table.
    pub(super) fn withdraw_where(
        &mut self,
        peer: PeerId,
        places: Range<usize>,
        goes: impl Fn(Family, &Path) -> bool,
    ) {
        for place in places {
            let Some((id, prefix, destination)) = self.table.at_mut(place) else { continue };
            let family = Family::of(&prefix);
            let gone = destination.take_where(peer, |path| goes(family, path));
            for old in &gone {
                self.holdings.forget(family, old);
                self.monitor.path(old.source, &prefix);
            }
            if !gone.is_empty() {
                self.dirty.mark(id);
            }
        }
    }

    /// Makes a peer's stale paths of these families long-lived stale (RFC 9494 section 4.2): they get LLGR_STALE, which makes them the
    /// last choice and goes along where they are told; those with NO_LLGR go. One walk over the table.
    pub(super) fn mark_long_lived(&mut self, id: PeerId, families: FamilySet) {
        let Some(peer) = self.holdings.peers.get(&id) else { return };
        if families.is_empty() {
            return;
        }
        let epochs = (peer.ipv4.epoch, peer.ipv6.epoch);
        for (prefix_id, prefix, destination) in self.table.walk_mut() {
            let family = Family::of(&prefix);
            let epoch = if family == Family::Ipv4Unicast { epochs.0 } else { epochs.1 };
            if !families.contains(family) {
                continue;
            }
            let is_stale = |path: &&Path| path.epoch != epoch;
            let stale: SmallVec<[Path; 1]> =
                destination.paths_of(id).iter().filter(is_stale).copied().collect();
            for old in stale {
                match long_lived(&mut self.holdings, &old) {
                    LongLived::Is => continue,
                    LongLived::Goes => drop(destination.take(old.source)),
                    LongLived::Becomes(attributes) => {
                        let path = Path { attributes, ..old };
                        self.holdings.enter(family, &path);
                        destination.put(path);
                    }
                }
                self.holdings.forget(family, &old);
                self.monitor.path(old.source, &prefix);
                self.dirty.mark(prefix_id);
            }
        }
    }

    /// Puts in or changes a path of our own.
    pub(super) fn originate(&mut self, prefix: IpNet, origination: &Origination) {
        let mut attributes = PathAttributes::new(match prefix {
            IpNet::V4(_) => IpAddr::from([0; 4]),
            IpNet::V6(_) => IpAddr::from([0; 16]),
        });
        if origination.aggregation.is_some() {
            // What the AS paths of the parts say is left out.
            attributes.atomic_aggregate = true;
            attributes.aggregator =
                Some(Aggregator { asn: self.settings.asn, address: self.settings.router_id });
        }
        origination.communities.iter().for_each(|community| community.add_to(&mut attributes));
        let holdings = &mut self.holdings;
        let attributes =
            holdings.attributes.intern(&Arc::new(attributes), PathType::Local, None, &mut holdings.hops);
        let (source, standing) = (Source::LOCAL, Standing::Eligible);
        let path = Path { source, attributes, epoch: 0, standing, number: 0 };
        self.put(&prefix.trunc(), path);
    }

    /// Takes a path of our own out.
    pub(super) fn originate_no_more(&mut self, prefix: IpNet) {
        self.withdraw(&prefix.trunc(), Source::LOCAL);
    }

    /// Judges those of the learned paths again that `concerned` picks: one walk over the table.
    pub(super) fn judge_again(&mut self, concerned: impl Fn(&Path) -> bool) {
        let mut changes = Vec::new();
        for (id, prefix, destination) in self.table.walk(0) {
            let paths = destination.paths().iter().filter(|p| concerned(p) && !self.is_judged(prefix, p));
            changes.extend(paths.map(|path| (id, path.source)));
        }
        for (id, source) in changes {
            self.judge(id, source);
        }
    }

    /// Judges a path again; says whether it stands otherwise now, or has other attributes.
    fn judge(&mut self, id: PrefixId, source: Source) -> bool {
        let prefix = self.table.prefix(id);
        let Some(old) = self.table.get(id).path(source).copied() else { return false };
        let Some((peer_id, peer, session)) = self.heard(&old) else { return false };
        let session = Arc::clone(session);
        let received = self.holdings.attributes.received(old.attributes);
        let (attributes, standing) = match self.admit(&prefix, peer, &session, &old).map(|o| o.cloned()) {
            Ok(Some(operations)) => self.import(peer_id, &session, received, &operations),
            verdict => {
                let standing = verdict.err();
                let standing = standing.unwrap_or_else(|| self.judge_attributes(peer, &session, received));
                self.holdings.attributes.retain(received);
                (received, standing)
            }
        };
        if (attributes, standing) == (old.attributes, old.standing) {
            self.holdings.attributes.release(attributes, &mut self.holdings.hops);
            return false;
        }
        let path = Path { attributes, standing, ..old };
        self.put(&prefix, path);
        if standing != old.standing && standing.is_alarming() {
            self.alarm(peer_id, prefix, attributes, standing);
        }
        true
    }

    /// Whether a path stands, and has attributes, as it would if it were judged again.
    fn is_judged(&self, prefix: IpNet, path: &Path) -> bool {
        let Some((_, peer, session)) = self.heard(path) else { return true };
        let operations = self.holdings.attributes.get(path.attributes).operations();
        match self.admit(&prefix, peer, session, path) {
            Err(standing) => (path.standing, operations) == (standing, None),
            Ok(wanted) => {
                operations == wanted && path.standing == self.judge_attributes(peer, session, path.attributes)
            }
        }
    }

    /// The peer and the session that a path was heard of on; none: it is our own, or the peer is gone.
    fn heard(&self, path: &Path) -> Option<(PeerId, &Peer, &Arc<Session>)> {
        let id = path.source.peer()?;
        let peer = self.holdings.peers.get(&id)?;
        Some((id, peer, peer.session()?))
    }

    /// What import policy does to a path as it was received.
    ///
    /// # Errors
    /// How the path stands, as it is not taken in.
    fn admit<'a>(
        &self,
        prefix: &IpNet,
        peer: &'a Peer,
        session: &Session,
        path: &Path,
    ) -> Result<Option<&'a Operations>, Standing> {
        let received = self.holdings.attributes.received(path.attributes);
        if let Some(standing) = self.judge_reflection(session, received) {
            return Err(standing);
        }
        let attributes = self.holdings.attributes.attributes(received);
        peer.import.evaluate(subject(prefix, &attributes, session)).map_err(rejection)
    }

    /// What the import policy of a peer has against a route.
    pub(super) fn policy_rejection(&self, peer: PeerId, prefix: IpNet, attributes: AttrId) -> Option<Reason> {
        let peer = self.holdings.peers.get(&peer)?;
        let received = self.holdings.attributes.received(attributes);
        let attributes = self.holdings.attributes.attributes(received);
        peer.import.evaluate(subject(&prefix, &attributes, peer.session()?)).err().cloned()
    }

    /// How a path stands that reflectors have brought back to where it was (RFC 4456 section 8); none: it is no such path. The policy is
    /// not asked of one: between two reflectors every path comes back, and what is our own must not be alarmed as another's.
    fn judge_reflection(&self, session: &Session, id: AttrId) -> Option<Standing> {
        if session.peer_type == PeerType::External {
            return None;
        }
        let attributes = self.holdings.attributes.attributes(id);
        if attributes.originator_id == Some(self.settings.router_id) {
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
        // What the peer says of the way is believed before what policy makes of it.
        let attributes = self.holdings.attributes.attributes(self.holdings.attributes.received(id));
        let external = session.peer_type == PeerType::External;
        // As good as withdrawn: it takes the place of what the peer told before, and no part.
        if !peer.config.allow_as_sets && attributes.as_path.has_set(true) {
            return Standing::AsSet;
        }
        if self.own_as_occurrences(session.local_as, &attributes.as_path)
            > usize::from(peer.config.allowed_own_as)
        {
            return Standing::OwnAs;
        }
        // A route server does not put its AS in front (RFC 7947 section 2.2.2.1).
        let route_server = session.role == Some(Role::RouteServerClient);
        if external && !route_server && attributes.as_path.first() != Some(session.remote_as) {
            return Standing::FirstAs;
        }
        if is_leak(session, &attributes) {
            return Standing::RouteLeak;
        }
        // What is to be dropped here we say ourselves, where that was agreed on.
        let set = |operations: &Operations| operations.iter().any(|o| matches!(o, Operation::SetNextHop(_)));
        let discards = is_discard(interned.next_hop.0) && !interned.operations().is_some_and(set);
        if is_without_link(interned.next_hop) || discards {
            return Standing::NextHopUnresolved;
        }
        if self.own_addresses.contains_key(&interned.next_hop) {
            return Standing::OwnNextHop;
        }
        match interned.hop.map(|hop| self.holdings.hops.resolution(hop)) {
            Some(Resolution::Unresolved | Resolution::TooDeep { .. }) => Standing::NextHopUnresolved,
            Some(Resolution::Gateway { .. } | Resolution::Recursive { .. })
                if external && !peer.config.ebgp_multihop =>
            {
                Standing::NextHopNotOnLink
            }
            Some(Resolution::OnLink | Resolution::Gateway { .. } | Resolution::Recursive { .. }) | None => {
                Standing::Eligible
            }
        }
    }

    /// How often the own AS, and the AS that we are on the session, occur in a path.
    pub(super) fn own_as_occurrences(&self, local_as: Asn, path: &AsPath) -> usize {
        let own = path.occurrences(self.settings.asn);
        if local_as == self.settings.asn { own } else { own + path.occurrences(local_as) }
    }

    /// Takes in how next hops resolve.
    pub(super) fn resolve(&mut self, answers: Vec<(TrackedNextHop, Resolution)>) {
        let hops = &mut self.holdings.hops;
        let moved =
            answers.into_iter().filter_map(|(next_hop, resolution)| hops.resolve(next_hop, resolution));
        let moved: FxHashSet<HopId> = moved.collect();
        if moved.is_empty() {
            return;
        }
        let mut concerned = Vec::new();
        self.table.walk(0).for_each(|(id, _, destination)| {
            let paths = destination.paths().iter();
            let hop = |path: &Path| self.holdings.attributes.get(path.attributes).hop;
            let over = paths.filter(|path| hop(path).is_some_and(|hop| moved.contains(&hop)));
            concerned.extend(over.map(|path| (id, path.source)));
        });
        for (id, source) in concerned {
            let changes = self.judge(id, source);
            if !changes && self.table.get(id).path(source).is_some_and(|p| p.standing == Standing::Eligible) {
                // The metric may be another.
                self.dirty.mark(id);
            }
        }
    }
}

/// What becomes of a path whose peer has been away for long (RFC 9494 section 4.2).
enum LongLived {
    /// Nothing: it came with the mark.
    Is,
    /// It goes.
    Goes,
    /// It has these attributes, to which there is a reference more.
    Becomes(AttrId),
}

fn long_lived(holdings: &mut Holdings, path: &Path) -> LongLived {
    let operations = holdings.attributes.get(path.attributes).operations().cloned();
    let received = holdings.attributes.received(path.attributes);
    let attributes = holdings.attributes.attributes(received);
    let communities = &attributes.communities;
    if communities.contains(&LLGR_STALE) {
        return LongLived::Is;
    }
    if communities.contains(&NO_LLGR) {
        return LongLived::Goes;
    }
    let mut attributes = Arc::unwrap_or_clone(attributes);
    let place = attributes.communities.partition_point(|community| *community < LLGR_STALE);
    attributes.communities.insert(place, LLGR_STALE);
    let interned = holdings.attributes.get(received);
    let (path_type, link) = (interned.path_type, interned.next_hop.1);
    let mut attributes =
        holdings.attributes.intern(&Arc::new(attributes), path_type, link, &mut holdings.hops);
    if let Some(operations) = operations {
        let received = attributes;
        attributes = holdings.attributes.import(received, &operations, &mut holdings.hops);
        holdings.attributes.release(received, &mut holdings.hops);
    }
    LongLived::Becomes(attributes)
}

/// The attributes with the mark that the sender should have set (RFC 9234 section 5): what comes from above or across is told to
/// customers only.
fn marked(session: &Session, attributes: &Arc<PathAttributes>) -> Arc<PathAttributes> {
    let from_above = session.role.is_some_and(|role| role.counterpart().tells_customers_only());
    if !from_above || attributes.only_to_customer.is_some() {
        return Arc::clone(attributes);
    }
    let only_to_customer = Some(session.remote_as);
    Arc::new(PathAttributes { only_to_customer, ..(**attributes).clone() })
}

/// Whether the peer was not to tell us the path: it came to it from above or across, and we are not its customer.
fn is_leak(session: &Session, attributes: &PathAttributes) -> bool {
    let Some(asn) = attributes.only_to_customer else { return false };
    match session.role {
        Some(Role::Provider | Role::RouteServer) => true,
        Some(Role::Peer) => asn != session.remote_as,
        Some(Role::Customer | Role::RouteServerClient) | None => false,
    }
}

fn subject<'a>(prefix: &'a IpNet, attributes: &'a PathAttributes, session: &Session) -> Subject<'a> {
    Subject { prefix, source: RouteSource::RemotePeers, peer_type: session.peer_type, attributes }
}

fn rejection(reason: &Reason) -> Standing {
    if reason.code == DUPLICATE_ORIGIN { Standing::DuplicateOrigin } else { Standing::Policy }
}

/// Whether a next hop is a link-local address that no link is known of: every link may have one like it (RFC 4007 section 6).
fn is_without_link((address, link): (IpAddr, Option<u32>)) -> bool {
    link.is_none() && matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}
