//! Attribute sets as the RIB holds them: once each, with what the decision compares read out of them beforehand.

use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use super::next_hops::{HopId, NextHops};
use crate::arena::intern::{Id, Interner};
use crate::policy::Operations;
use crate::speaker::TrackedNextHop;
use crate::types::{Asn, PeerType};
use crate::wire::attributes::{GRACEFUL_SHUTDOWN, LLGR_STALE, Origin, PathAttributes};

/// LOCAL_PREF of a path that carries none: the value every implementation takes.
const DEFAULT_LOCAL_PREF: u32 = 100;

/// How a path got here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum PathType {
    /// This speaker originates it.
    Local,
    /// Learned on a session of this type.
    Learned(PeerType),
}

/// The local preference of a path. That of an external peer's path is import policy's: what the peer says is not taken in (RFC 4271
/// section 5.1.5). One that is about to go is the last choice, whatever policy says (RFC 8326 section 4.2).
pub(super) fn local_preference(attributes: &PathAttributes, path_type: PathType) -> u32 {
    match path_type {
        PathType::Learned(PeerType::External) if is_shutting_down(attributes) => 0,
        PathType::Learned(_) | PathType::Local => attributes.local_pref.unwrap_or(DEFAULT_LOCAL_PREF),
    }
}

fn is_shutting_down(attributes: &PathAttributes) -> bool {
    attributes.communities.contains(&GRACEFUL_SHUTDOWN)
}

/// What the decision compares (RFC 4271 section 9.1.2.2), as integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Keys {
    /// Higher is better. See [`local_preference`].
    pub(super) local_pref: u32,
    /// Whether that is so low because an external peer marks the path as about to go (RFC 8326).
    pub(super) shutting_down: bool,
    /// Whether somebody keeps the path though its peer has been away for long (RFC 9494): then any other is better.
    pub(super) long_lived_stale: bool,
    pub(super) as_path_length: u32,
    pub(super) origin: Origin,
    /// A missing one is the lowest.
    pub(super) med: u32,
    /// The AS whose MEDs are comparable; none: this AS.
    pub(super) neighbour: Option<Asn>,
    /// Stands in for the peer's identifier (RFC 4456 section 9).
    pub(super) originator: Option<u32>,
    pub(super) cluster_list_length: u32,
}

impl Keys {
    fn of(attributes: &PathAttributes, path_type: PathType) -> Self {
        let internal = path_type == PathType::Learned(PeerType::Internal);
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Self {
            local_pref: local_preference(attributes, path_type),
            shutting_down: path_type == PathType::Learned(PeerType::External) && is_shutting_down(attributes),
            long_lived_stale: path_type != PathType::Local && attributes.communities.contains(&LLGR_STALE),
            as_path_length: count(attributes.as_path.length()),
            origin: attributes.origin,
            med: attributes.med.unwrap_or(0),
            neighbour: attributes.as_path.first(),
            originator: attributes.originator_id.filter(|_| internal).map(u32::from),
            cluster_list_length: if internal { count(attributes.cluster_list.len()) } else { 0 },
        }
    }
}

impl Keys {
    /// What the steps of the decision before MED compare, one after the other, as one number: lower is better.
    pub(super) fn rank(&self) -> u64 {
        // A message has room for far fewer ASes.
        let length = u64::from(self.as_path_length.min(0xFF_FFFF));
        u64::from(self.long_lived_stale) << 58
            | u64::from(!self.local_pref) << 26
            | length << 2
            | self.origin as u64
    }
}

/// Where a path that came over a link leads: to the link-local address, if there is one, as the link may have no other address
/// (RFC 2545 section 3). On a session between other addresses the global one is meant.
fn next_hop(attributes: &PathAttributes, link: Option<u32>) -> (IpAddr, Option<u32>) {
    match (attributes.next_hop, attributes.next_hop_link_local) {
        (_, Some(link_local)) if link.is_some() => (link_local.into(), link),
        (IpAddr::V6(address), _) if address.is_unicast_link_local() => (address.into(), link),
        (address, _) => (address, None),
    }
}

/// The next hop as the kernel is asked about it.
fn hop(path_type: PathType, next_hop: (IpAddr, Option<u32>), hops: &mut NextHops) -> Option<HopId> {
    match path_type {
        PathType::Local => None,
        PathType::Learned(peer_type) => Some(hops.hold(TrackedNextHop {
            address: next_hop.0,
            default_route: peer_type == PeerType::Internal,
            link: next_hop.1,
        })),
    }
}

/// An attribute set and what is read out of it.
#[derive(Debug)]
pub(super) struct Interned {
    pub(super) attributes: Arc<PathAttributes>,
    pub(super) path_type: PathType,
    pub(super) keys: Keys,
    /// The address to forward to, a link-local one with its link.
    pub(super) next_hop: (IpAddr, Option<u32>),
    /// It as the kernel is asked about it; a path of our own has none.
    pub(super) hop: Option<HopId>,
    /// What it was received as, and what import policy did to that; none: it is as it was received.
    imported: Option<(AttrId, Operations)>,
}

impl Interned {
    /// What import policy did to what was received.
    pub(super) fn operations(&self) -> Option<&Operations> {
        self.imported.as_ref().map(|(_, operations)| operations)
    }
}

/// Names an attribute set.
pub(super) type AttrId = Id<Interned>;

/// Every attribute set in use.
#[derive(Debug, Default)]
pub(super) struct AttributeTable(Interner<Interned>);

/// Equal attributes of an internal and an external path differ in what the decision makes of them, and a link-local next hop
/// is another on each link.
struct Key<'a>(PathType, Option<u32>, &'a PathAttributes);

impl Hash for Key<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
        self.1.hash(state);
        self.2.hash(state);
    }
}

impl AttributeTable {
    /// The id of these attributes, with one more reference. `link` is that of the session, if it is between link-local addresses.
    pub(super) fn intern(
        &mut self,
        attributes: &Arc<PathAttributes>,
        path_type: PathType,
        link: Option<u32>,
        hops: &mut NextHops,
    ) -> AttrId {
        let next_hop = next_hop(attributes, link);
        let is = |i: &Interned| {
            i.imported.is_none()
                && i.path_type == path_type
                && i.next_hop == next_hop
                && (Arc::ptr_eq(&i.attributes, attributes) || i.attributes == *attributes)
        };
        self.0.intern(&Key(path_type, next_hop.1, attributes), is, || Interned {
            attributes: attributes.clone(),
            path_type,
            keys: Keys::of(attributes, path_type),
            next_hop,
            hop: hop(path_type, next_hop, hops),
            imported: None,
        })
    }

    /// The id of what operations make of received attributes, with one more reference. They are made once, and looked up by what they
    /// are made of.
    pub(super) fn import(
        &mut self,
        received: AttrId,
        operations: &Operations,
        hops: &mut NextHops,
    ) -> AttrId {
        let Interned { attributes, path_type, next_hop: (_, link), .. } = self.0.get(received);
        let (attributes, path_type, link) = (attributes.clone(), *path_type, *link);
        let mut is_new = false;
        let is =
            |i: &Interned| i.imported.as_ref().is_some_and(|(id, by)| *id == received && by == operations);
        let id = self.0.intern(&(received, operations), is, || {
            is_new = true;
            let mut attributes = PathAttributes::clone(&attributes);
            operations.iter().for_each(|operation| operation.apply(&mut attributes));
            let next_hop = next_hop(&attributes, link);
            Interned {
                path_type,
                keys: Keys::of(&attributes, path_type),
                next_hop,
                hop: hop(path_type, next_hop, hops),
                attributes: Arc::new(attributes),
                imported: Some((received, Arc::clone(operations))),
            }
        });
        if is_new {
            self.0.retain(received);
        }
        id
    }

    /// What attributes were received as.
    pub(super) fn received(&self, id: AttrId) -> AttrId {
        self.0.get(id).imported.as_ref().map_or(id, |(received, _)| *received)
    }

    pub(super) fn get(&self, id: AttrId) -> &Interned {
        self.0.get(id)
    }

    pub(super) fn retain(&mut self, id: AttrId) {
        self.0.retain(id);
    }

    pub(super) fn release(&mut self, id: AttrId, hops: &mut NextHops) {
        let Some(Interned { hop, imported, .. }) = self.0.release(id) else { return };
        if let Some(hop) = hop {
            hops.let_go(hop);
        }
        if let Some((received, _)) = imported {
            self.release(received, hops);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
