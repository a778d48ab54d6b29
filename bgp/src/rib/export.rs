//! What a route becomes on its way to a peer: pure functions of the best path and of what the peers of an update group share.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;

use super::attributes::{PathType, local_preference};
use crate::config::{AddPathSend, NextHopMode, PeerConfig};
use crate::egress::PathKey;
use crate::ingress::Session;
use crate::policy::{
    CompiledPolicy, NO_ADVERTISE, NO_EXPORT, NO_EXPORT_SUBCONFED, Operation, Operations, Policy, RouteSource,
    Subject,
};
use crate::role::Role;
use crate::types::{Asn, Family, FamilySet, PeerType, Reason, link_of};
use crate::wire::attributes::{LLGR_STALE, PathAttributes};
use crate::wire::update::{self, AttributeBlock};

/// The partial bit of an attribute's flags (RFC 4271 section 4.3).
const PARTIAL: u8 = 0x20;

/// Where a best path comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Provenance {
    pub(super) path_type: PathType,
    /// Whether the peer that told it is our client.
    pub(super) client: bool,
    /// The BGP identifier of that peer: ORIGINATOR_ID, unless the path has one.
    pub(super) identifier: Ipv4Addr,
}

/// What a reflector needs to know of a session with an internal peer (RFC 4456).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reflection {
    /// Whether the peer is our client.
    client: bool,
    /// What goes into CLUSTER_LIST.
    cluster_id: Ipv4Addr,
}

/// All that what a peer is told, and in which bytes, depends on. Peers that agree in it form an update group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Terms {
    export: Arc<Policy>,
    peer_type: PeerType,
    local_as: Asn,
    families: FamilySet,
    four_octet_as: bool,
    max_message: u16,
    /// Which paths of a prefix the peers are told, of which families; none: the best alone (RFC 7911).
    add_path: Option<(AddPathSend, FamilySet)>,
    /// Whether the peers understand LLGR_STALE.
    long_lived: bool,
    /// Whether paths with sets are told.
    as_sets: bool,
    role: Option<Role>,
    /// None: the peer is external.
    reflection: Option<Reflection>,
    /// The external peer's AS, if ours is to stand in its place.
    overridden_as: Option<Asn>,
    /// The external peer's AS, if it is the only private one that it is told.
    kept_private_as: Option<Asn>,
    next_hop_mode: NextHopMode,
    extended_next_hop: bool,
    next_hop_v4: Option<IpAddr>,
    next_hop_v6: Option<Ipv6Addr>,
    /// What follows an IPv6 next hop of ours.
    next_hop_link_local: Option<Ipv6Addr>,
}

impl Terms {
    pub(super) fn new(config: &PeerConfig, session: &Session, cluster_id: Ipv4Addr) -> Self {
        let local = session.local.ip().to_canonical();
        let external = session.peer_type == PeerType::External;
        let (next_hop_v6, next_hop_link_local) = match (local, config.next_hop_v6) {
            (IpAddr::V6(link_local), Some(global)) if link_of(session.local).is_some() => {
                (Some(global), Some(link_local))
            }
            // RFC 2545 has no next hop without a global address. What others send who have none, and understand, is the
            // link-local one in its place.
            (IpAddr::V6(own), _) => (Some(own), None),
            (IpAddr::V4(_), configured) => (configured, None),
        };
        let next_hop_v4 = match (session.extended_next_hop, local) {
            (true, _) => next_hop_v6.map(IpAddr::V6),
            (false, IpAddr::V4(_)) => Some(local),
            (false, IpAddr::V6(_)) => config.next_hop_v4.map(IpAddr::V4),
        };
        Self {
            export: config.export.clone(),
            peer_type: session.peer_type,
            local_as: session.local_as,
            families: session.families,
            four_octet_as: session.four_octet_as,
            max_message: session.max_message,
            add_path: config.add_path.send.map(|send| (send, session.add_path.send)),
            long_lived: session.graceful_restart.is_some_and(|peer| peer.long_lived.is_some()),
            as_sets: config.allow_as_sets,
            role: session.role,
            reflection: (!external)
                .then_some(Reflection { client: config.route_reflector_client, cluster_id }),
            overridden_as: Some(session.remote_as).filter(|_| external && config.as_override),
            kept_private_as: Some(session.remote_as).filter(|_| external && config.remove_private_as),
            next_hop_mode: config.next_hop_mode,
            extended_next_hop: session.extended_next_hop,
            next_hop_v4,
            next_hop_v6,
            next_hop_link_local,
        }
    }

    fn own_next_hop(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::Ipv4Unicast => self.next_hop_v4,
            Family::Ipv6Unicast => self.next_hop_v6.map(IpAddr::V6),
        }
    }

    /// How an internal peer's path gets to these internal peers; none: it is no such path.
    fn reflection(&self, from: &Provenance) -> Option<Reflection> {
        self.reflection.filter(|_| from.path_type == PathType::Learned(PeerType::Internal))
    }

    /// Whether the next hop stays as learned (RFC 4271 section 5.1.3). A link-local one means nothing to others, and one of the other
    /// family can be told only where that was agreed on. A reflector never puts itself in the way (RFC 4456 section 10), whatever the
    /// mode: that speaks of what comes from outside.
    fn keeps_next_hop(&self, family: Family, from: &Provenance, next_hop: IpAddr) -> bool {
        let tellable = match next_hop {
            IpAddr::V4(_) => true,
            IpAddr::V6(v6) => {
                !v6.is_unicast_link_local() && (family == Family::Ipv6Unicast || self.extended_next_hop)
            }
        };
        from.path_type != PathType::Local
            && tellable
            && match self.next_hop_mode {
                _ if self.reflection(from).is_some() => true,
                NextHopMode::Auto => self.peer_type == PeerType::Internal,
                NextHopMode::Own => false,
                NextHopMode::Keep => true,
            }
    }
}

/// Why a best path is not told to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Withheld<'a> {
    /// We have restarted, and it was learned.
    Deferred,
    /// The session does not carry the family.
    Family(Family),
    /// Learned over iBGP, the peer is internal too, and neither is our client (RFC 4271 section 9.2, RFC 4456 section 6).
    Internal,
    /// A community forbids it (RFC 1997).
    Community(&'static str),
    /// It is long-lived stale, and the peer would not know (RFC 9494 section 4.3).
    LongLivedStale,
    /// Its AS path has a set (RFC 9774).
    AsSet,
    /// It is for customers only, and we are none of the peer's providers (RFC 9234 section 5).
    OnlyToCustomer(Asn),
    /// The export policy.
    Policy(&'a Reason),
    /// No address of ours that the peer could send to.
    NoNextHop(Family),
    /// The peer is told this aggregate in its place.
    Summarized(IpNet),
    /// Its attributes do not fit into a message of so many octets beside it.
    TooLong(u16),
}

impl Withheld<'_> {
    pub(super) fn reason(self) -> Reason {
        match self {
            Self::Deferred => Reason::new(
                "deferred",
                "learned, and weftd has restarted: such paths are told once the other peers have told their tables (RFC 4724 section 4.1)",
            ),
            Self::Family(family) => {
                Reason::new("family-not-negotiated", format!("the session does not carry {family}"))
            }
            Self::Internal => Reason::new(
                "ibgp-not-readvertised",
                "learned over iBGP, and not told to other iBGP peers (RFC 4271 section 9.2): neither end is our route reflector client",
            ),
            Self::Community(name) => {
                Reason::new("community", format!("the path carries the community {name} (RFC 1997)"))
            }
            Self::LongLivedStale => Reason::new(
                "long-lived-stale",
                "the path carries LLGR_STALE, and long-lived graceful restart was not agreed on with the peer (RFC 9494)",
            ),
            Self::AsSet => Reason::new(
                "as-set",
                "the AS path has an AS_SET or AS_CONFED_SET, and such are not told (RFC 9774): allowASSets of the peer permits it",
            ),
            Self::OnlyToCustomer(asn) => Reason::new(
                "only-to-customer",
                format!("AS {asn} told it to customers only, and the peer is none of ours (RFC 9234)"),
            ),
            Self::Policy(reason) => reason.clone(),
            Self::NoNextHop(family) => Reason::new(
                "no-own-next-hop",
                format!("no own address of {family} is known that the peer could use as the next hop"),
            ),
            Self::Summarized(aggregate) => Reason::new(
                "summarized",
                format!("the peer is told the aggregate {aggregate} alone, which is SummaryOnly"),
            ),
            Self::TooLong(max_message) => Reason::new(
                "too-long",
                format!(
                    "its path attributes do not fit into one of the session's messages, of {max_message} octets at most"
                ),
            ),
        }
    }
}

/// Terms with their policy made ready.
#[derive(Debug)]
pub(super) struct Exporter {
    terms: Terms,
    policy: CompiledPolicy,
}

impl Exporter {
    pub(super) fn new(terms: Terms) -> Self {
        let policy = CompiledPolicy::new(terms.export.clone());
        Self { terms, policy }
    }

    pub(super) fn terms(&self) -> &Terms {
        &self.terms
    }

    /// Whether the peers are told several paths of a prefix, of any family.
    pub(super) fn tells_several(&self) -> bool {
        self.terms.add_path.is_some_and(|(_, families)| !families.is_empty())
    }

    /// Which paths of a prefix of this family the peers are told; none: the best alone.
    pub(super) fn several(&self, family: Family) -> Option<AddPathSend> {
        self.terms.add_path.filter(|(_, families)| families.contains(family)).map(|(send, _)| send)
    }

    /// Whether a best path is told to these peers, and what policy does to its attributes then. It is told neither to the one it came
    /// from nor to the one it leads to: that is the third stage's part, and where the group has one peer
    /// alone the group's.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn admit(
        &self,
        prefix: &IpNet,
        from: &Provenance,
        attributes: &PathAttributes,
    ) -> Result<Option<&Operations>, Withheld<'_>> {
        let terms = &self.terms;
        let family = Family::of(prefix);
        if !terms.families.contains(family) {
            return Err(Withheld::Family(family));
        }
        let source = match (from.path_type, terms.reflection(from)) {
            (PathType::Local, _) => RouteSource::Local,
            (PathType::Learned(_), None) => RouteSource::RemotePeers,
            (PathType::Learned(_), Some(to)) if to.client || from.client => RouteSource::Reflected,
            (PathType::Learned(_), Some(_)) => return Err(Withheld::Internal),
        };
        if source != RouteSource::Local {
            forbidden(&attributes.communities, terms.peer_type)?;
            if attributes.communities.contains(&LLGR_STALE) && !terms.long_lived {
                return Err(Withheld::LongLivedStale);
            }
        }
        // Another AS is told no confederation segments.
        if !terms.as_sets && attributes.as_path.has_set(terms.peer_type == PeerType::Internal) {
            return Err(Withheld::AsSet);
        }
        let upward = terms.role.is_some_and(|role| role.counterpart().tells_customers_only());
        if let Some(asn) = attributes.only_to_customer.filter(|_| upward) {
            return Err(Withheld::OnlyToCustomer(asn));
        }
        let subject = Subject { prefix, source, peer_type: terms.peer_type, attributes };
        let operations = self.policy.evaluate(subject).map_err(Withheld::Policy)?;
        let sets = |operation: &Operation| matches!(operation, Operation::SetNextHop(_));
        if terms.keeps_next_hop(family, from, attributes.next_hop)
            || terms.own_next_hop(family).is_some()
            || source != RouteSource::Reflected && operations.is_some_and(|o| o.iter().any(sets))
        {
            Ok(operations)
        } else {
            Err(Withheld::NoNextHop(family))
        }
    }

    /// Whether a message to these peers has room for a prefix with these attributes.
    ///
    /// # Errors
    /// It has not.
    pub(super) fn fit(&self, prefix: IpNet, told: &PathAttributes) -> Result<(), Withheld<'static>> {
        let (family, max_message) = (Family::of(&prefix), self.terms.max_message);
        let key = PathKey { prefix, path_id: u16::from(self.several(family).is_some()) };
        let block = AttributeBlock::new(told, family, self.terms.four_octet_as);
        update::fits(&block, &key, max_message).then_some(()).ok_or(Withheld::TooLong(max_message))
    }

    /// The attributes as these peers are told them (RFC 4271 section 5.1), after what policy does to them.
    pub(super) fn rewrite(
        &self,
        family: Family,
        from: &Provenance,
        attributes: &PathAttributes,
        operations: Option<&Operations>,
    ) -> PathAttributes {
        let terms = &self.terms;
        let mut told = attributes.clone();
        // What was learned beside the next hop is of the link that it came over (RFC 2545 section 3).
        told.next_hop_link_local = None;
        if !terms.keeps_next_hop(family, from, told.next_hop) {
            told.next_hop = terms.own_next_hop(family).unwrap_or(told.next_hop);
            told.next_hop_link_local = terms.next_hop_link_local.filter(|_| told.next_hop.is_ipv6());
        }
        match terms.peer_type {
            PeerType::External => {
                told.as_path.leave_confederation();
                if from.path_type != PathType::Local {
                    told.ext_communities.retain(|community| community[0] & NON_TRANSITIVE == 0);
                }
                told.med = None;
            }
            PeerType::Internal => told.local_pref = Some(local_preference(attributes, from.path_type)),
        }
        if let Some(own) = terms.kept_private_as {
            told.as_path.retain(|asn| asn == own || !asn.is_private());
        }
        if let Some(theirs) = terms.overridden_as {
            told.as_path.replace(theirs, terms.local_as);
        }
        let reflection = terms.reflection(from);
        for operation in operations.into_iter().flat_map(|operations| operations.iter()) {
            // A reflected next hop stays: see `keeps_next_hop`.
            if reflection.is_none() || !matches!(operation, Operation::SetNextHop(_)) {
                operation.apply(&mut told);
            }
        }
        if terms.peer_type == PeerType::External {
            told.as_path.prepend(terms.local_as);
            if terms.role.is_some_and(Role::tells_customers_only) {
                told.only_to_customer.get_or_insert(terms.local_as);
            }
            told.local_pref = None;
            told.originator_id = None;
            told.cluster_list.clear();
        } else if let Some(reflection) = reflection {
            told.originator_id.get_or_insert(from.identifier);
            told.cluster_list.insert(0, reflection.cluster_id);
        }
        for attribute in &mut told.unknown {
            attribute.flags |= PARTIAL;
        }
        told
    }
}

/// The bit of an extended community that is not told to another AS (RFC 4360 sections 2 and 6).
const NON_TRANSITIVE: u8 = 0x40;

/// The well-known communities. They bind whoever received them; on what we originate they are for the peers to obey.
fn forbidden(communities: &[u32], peer_type: PeerType) -> Result<(), Withheld<'static>> {
    let external = peer_type == PeerType::External;
    for community in communities {
        match *community {
            NO_ADVERTISE => return Err(Withheld::Community("no-advertise")),
            NO_EXPORT if external => return Err(Withheld::Community("no-export")),
            NO_EXPORT_SUBCONFED if external => return Err(Withheld::Community("no-export-subconfed")),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
