//! Attribute sets as the RIB holds them: once each, as octets, with what the decision compares read out of them beforehand.

use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::BytesMut;

use super::next_hops::{HopId, NextHops};
use crate::arena::intern::{Id, Interner};
use crate::policy::Operations;
use crate::speaker::TrackedNextHop;
use crate::types::{Asn, PeerType};
use crate::wire::attributes::{GRACEFUL_SHUTDOWN, LLGR_STALE, Origin, PathAttributes};
use crate::wire::update::Stored;

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

/// An attribute set as it is kept: octets take a quarter of what it takes as a value.
#[derive(Debug)]
enum Kept {
    Octets(Stored),
    /// What has more octets than the wire can tell, as it came with AS numbers of two octets, or policy added to it.
    Value(Arc<PathAttributes>),
}

/// An attribute set and what is read out of it.
#[derive(Debug)]
pub(super) struct Interned {
    kept: Kept,
    pub(super) path_type: PathType,
    pub(super) keys: Keys,
    /// The address to forward to, a link-local one with its link.
    pub(super) next_hop: (IpAddr, Option<u32>),
    /// It as the kernel is asked about it; a path of our own has none.
    pub(super) hop: Option<HopId>,
    /// What it was received as, and what import policy did to that; none: it is as it was received.
    imported: Option<Box<(AttrId, Operations)>>,
}

impl Interned {
    fn new(
        attributes: &Arc<PathAttributes>,
        kept: Kept,
        path_type: PathType,
        link: Option<u32>,
        hops: &mut NextHops,
    ) -> Self {
        let next_hop = next_hop(attributes, link);
        Self {
            kept,
            path_type,
            keys: Keys::of(attributes, path_type),
            next_hop,
            hop: hop(path_type, next_hop, hops),
            imported: None,
        }
    }

    /// What import policy did to what was received.
    pub(super) fn operations(&self) -> Option<&Operations> {
        self.imported.as_ref().map(|imported| &imported.1)
    }

    /// The set as octets; none: the wire cannot tell so many.
    pub(super) fn stored(&self) -> Option<&Stored> {
        match &self.kept {
            Kept::Octets(stored) => Some(stored),
            Kept::Value(_) => None,
        }
    }
}

/// Names an attribute set.
pub(super) type AttrId = Id<Interned>;

/// Every attribute set in use.
#[derive(Debug, Default)]
pub(super) struct AttributeTable {
    sets: Interner<Interned>,
    recent: RefCell<Recent>,
    /// A set that is looked for, as octets.
    octets: BytesMut,
}

/// Sets that were used of late, as values, by their ids: what has just come in is looked at a few times until it is decided on. Every id has one
/// place, and the newest has it.
#[derive(Debug, Default)]
struct Recent(Vec<Option<(AttrId, Arc<PathAttributes>)>>);

impl Recent {
    const PLACES: usize = 1024;

    fn get(&self, id: AttrId) -> Option<&Arc<PathAttributes>> {
        let place = self.0.get(id.index() % Self::PLACES)?.as_ref();
        place.filter(|(of, _)| *of == id).map(|(_, attributes)| attributes)
    }

    fn put(&mut self, id: AttrId, attributes: &Arc<PathAttributes>) {
        if self.0.is_empty() {
            self.0.resize_with(Self::PLACES, || None);
        }
        if let Some(place) = self.0.get_mut(id.index() % Self::PLACES) {
            *place = Some((id, Arc::clone(attributes)));
        }
    }

    /// The id is to name another set.
    fn forget(&mut self, id: AttrId) {
        if let Some(place) = self.0.get_mut(id.index() % Self::PLACES) {
            place.take_if(|(of, _)| *of == id);
        }
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
        let Self { sets, recent, octets } = self;
        Stored::write(attributes, octets);
        // Equal attributes of an internal and an external path differ in what the decision makes of them, and a link-local next hop is another
        // on each link.
        let next_hop = next_hop(attributes, link);
        let is_kept = |kept: &Kept| match kept {
            Kept::Octets(stored) => *stored.octets() == **octets,
            Kept::Value(value) => octets.is_empty() && value == attributes,
        };
        let is = |i: &Interned| {
            i.imported.is_none() && i.path_type == path_type && i.next_hop == next_hop && is_kept(&i.kept)
        };
        let value = octets.is_empty().then_some(attributes);
        let id = sets.intern(&(path_type, next_hop.1, &**octets, value), is, || {
            Interned::new(attributes, kept(attributes, octets), path_type, link, hops)
        });
        recent.get_mut().put(id, attributes);
        id
    }

    /// The id of what operations make of received attributes, with one more reference. They are made once, and looked up by what they
    /// are made of.
    pub(super) fn import(
        &mut self,
        received: AttrId,
        operations: &Operations,
        hops: &mut NextHops,
    ) -> AttrId {
        let attributes = self.attributes(received);
        let Self { sets, recent, octets } = self;
        let Interned { path_type, next_hop: (_, link), .. } = sets.get(received);
        let (path_type, link) = (*path_type, *link);
        let mut made = None;
        let is = |i: &Interned| {
            i.imported.as_ref().is_some_and(|imported| imported.0 == received && imported.1 == *operations)
        };
        let id = sets.intern(&(received, operations), is, || {
            let mut attributes = PathAttributes::clone(&attributes);
            operations.iter().for_each(|operation| operation.apply(&mut attributes));
            let attributes = &*made.insert(Arc::new(attributes));
            Stored::write(attributes, octets);
            Interned {
                imported: Some(Box::new((received, Arc::clone(operations)))),
                ..Interned::new(attributes, kept(attributes, octets), path_type, link, hops)
            }
        });
        if let Some(attributes) = made {
            sets.retain(received);
            recent.get_mut().put(id, &attributes);
        }
        id
    }

    /// The attributes as a value.
    pub(super) fn attributes(&self, id: AttrId) -> Arc<PathAttributes> {
        let mut recent = self.recent.borrow_mut();
        if let Some(attributes) = recent.get(id) {
            return Arc::clone(attributes);
        }
        let Interned { kept, next_hop, .. } = self.sets.get(id);
        let attributes = match kept {
            // What was written can be read.
            Kept::Octets(stored) => {
                Arc::new(stored.attributes().unwrap_or_else(|| PathAttributes::new(next_hop.0)))
            }
            Kept::Value(value) => Arc::clone(value),
        };
        recent.put(id, &attributes);
        attributes
    }

    /// What attributes were received as.
    pub(super) fn received(&self, id: AttrId) -> AttrId {
        self.sets.get(id).imported.as_ref().map_or(id, |imported| imported.0)
    }

    pub(super) fn get(&self, id: AttrId) -> &Interned {
        self.sets.get(id)
    }

    pub(super) fn retain(&mut self, id: AttrId) {
        self.sets.retain(id);
    }

    pub(super) fn release(&mut self, id: AttrId, hops: &mut NextHops) {
        let Some(Interned { hop, imported, .. }) = self.sets.release(id) else { return };
        self.recent.get_mut().forget(id);
        if let Some(hop) = hop {
            hops.let_go(hop);
        }
        if let Some(imported) = imported {
            self.release(imported.0, hops);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.sets.len()
    }
}

/// How attributes are kept that were written.
fn kept(attributes: &Arc<PathAttributes>, octets: &[u8]) -> Kept {
    if octets.is_empty() {
        return Kept::Value(Arc::clone(attributes));
    }
    let stored = Stored::new(octets);
    debug_assert!(stored.attributes().is_some(), "{attributes:?} are written so that they cannot be read");
    Kept::Octets(stored)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Community, Operation};

    const EXTERNAL: PathType = PathType::Learned(PeerType::External);

    fn set(communities: impl IntoIterator<Item = u32>) -> Arc<PathAttributes> {
        let communities = communities.into_iter().collect();
        Arc::new(PathAttributes { communities, ..PathAttributes::new([192, 0, 2, 1].into()) })
    }

    #[test]
    fn attributes_come_back_whether_they_were_used_of_late_or_not() {
        let (mut table, mut hops) = (AttributeTable::default(), NextHops::default());
        // The second time the ids name others.
        for round in 0..2 {
            let sets: Vec<_> = (0..3000).map(|n| set([round * 10_000 + n])).collect();
            let ids: Vec<AttrId> =
                sets.iter().map(|set| table.intern(set, EXTERNAL, None, &mut hops)).collect();
            for _ in 0..2 {
                ids.iter().zip(&sets).for_each(|(id, set)| assert_eq!(table.attributes(*id), *set));
            }
            ids.into_iter().for_each(|id| table.release(id, &mut hops));
            assert_eq!(table.len(), 0);
        }
    }

    #[test]
    fn what_the_wire_cannot_tell_is_kept_as_a_value() {
        let (mut table, mut hops) = (AttributeTable::default(), NextHops::default());
        let long = [0, 1].map(|first| set(first..20_000));
        let ids =
            [&long[0], &long[1], &set(0..20_000)].map(|set| table.intern(set, EXTERNAL, None, &mut hops));
        assert_eq!((ids[0] == ids[1], ids[0] == ids[2]), (false, true));
        assert!(table.get(ids[0]).stored().is_none());
        assert_eq!([table.attributes(ids[0]), table.attributes(ids[1])], long);
        // Policy makes one that is too long, and one that is not.
        for (received, community) in [(ids[0], 7), (table.intern(&set([]), EXTERNAL, None, &mut hops), 8)] {
            let operations: Operations = vec![Operation::AddCommunity(Community::Standard(community))].into();
            let id = table.import(received, &operations, &mut hops);
            assert!(table.attributes(id).communities.contains(&community));
            assert_eq!((table.received(id), table.get(id).operations()), (received, Some(&operations)));
        }
    }
}
