//! The Adj-RIB-Out of an update group, and the journal of its changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::BytesMut;

use super::PathKey;
use super::changes::{Advertised, Changes};
use super::journal::{Journal, Place};
use super::peer::Peer;
use crate::arena::intern::{Id, Interner};
use crate::arena::prefixes::{PackedKey, PrefixId, PrefixTable};
use crate::ingress::Session;
use crate::types::PeerId;
use crate::wire::attributes::PathAttributes;
use crate::wire::update::Stored;

/// Names attributes.
pub(super) type SetId = Id<Stored>;

/// What a prefix, or a path to it, is announced with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) set: SetId,
    pub(super) from: Teller,
}

/// The peer that a route was learned from, or none, in four octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Teller(u32);

impl From<Option<PeerId>> for Teller {
    /// Peers are numbered from 0 up and never get to the highest number.
    fn from(peer: Option<PeerId>) -> Self {
        Self(peer.map_or(u32::MAX, |peer| peer.0))
    }
}

/// A prefix, or a path to it, that is announced, or was, while some peer may still have to be told otherwise.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Slot {
    pub(super) route: Option<Route>,
    /// Its entry in the journal, unless that has been read by all.
    pub(super) entry: Place,
}

/// Adj-RIB-Out and journal.
///
/// A slot without a route has an entry in the journal: it goes once every peer has read that.
#[derive(Debug, Default)]
pub(super) struct AdjRibOut {
    slots: PrefixTable<Slot, PathKey>,
    /// As they are sent.
    sets: Interner<Stored>,
    journal: Journal,
}

impl AdjRibOut {
    pub(super) fn slots(&self) -> &PrefixTable<Slot, PathKey> {
        &self.slots
    }

    pub(super) fn set(&self, id: SetId) -> &Stored {
        self.sets.get(id)
    }

    /// With which attributes a peer is told a route; none: it is not told it, as it comes from the peer, or leads to it (RFC 4271
    /// section 5.1.3).
    pub(super) fn told_to(&self, peer: PeerId, session: &Session, route: Route) -> Option<SetId> {
        let leads_there =
            self.set(route.set).next_hop().is_some_and(|next_hop| session.is_next_hop(next_hop));
        (route.from != Some(peer).into() && !leads_there).then_some(route.set)
    }

    /// The place behind the last change.
    pub(super) fn end(&self) -> Place {
        self.journal.end()
    }

    /// The changes from a place on.
    pub(super) fn changes(&self, from: Place) -> impl Iterator<Item = (Place, PrefixId)> {
        self.journal.read(from)
    }

    /// Takes changes in. `foremost` is the place of the peer that has read most; none: there is no peer that needs the journal.
    pub(super) fn change(&mut self, changes: &Changes, foremost: Option<Place>) {
        // These are looked up once, and held on to meanwhile.
        let mut written = BytesMut::new();
        let intern = |attributes: &Arc<PathAttributes>| {
            Stored::write(attributes, &mut written);
            self.sets.intern(&written[..], |set| set.octets() == written, || Stored::new(&written))
        };
        let sets: Vec<SetId> = changes.sets().iter().map(intern).collect();
        for piece in changes.pieces() {
            self.slots.look_ahead(piece.clone().map(|(key, _)| key));
            piece.for_each(|(key, route)| {
                let route = route.and_then(|Advertised { set, from }| {
                    let set = *sets.get(set as usize)?;
                    Some(Route { set, from: from.into() })
                });
                self.put(key, route, foremost);
            });
        }
        for set in sets {
            self.sets.release(set);
        }
    }

    /// Puts a route in the place of what is there.
    fn put(&mut self, key: PackedKey, route: Option<Route>, foremost: Option<Place>) {
        let id = match route {
            Some(Route { set, .. }) => {
                self.sets.retain(set);
                self.slots.entry_packed(key)
            }
            None => match self.slots.find_packed(key) {
                Some(id) => id,
                None => return,
            },
        };
        let slot = self.slots.get_mut(id);
        let old = std::mem::replace(&mut slot.route, route);
        let entry = slot.entry;
        if let Some(old) = old {
            self.sets.release(old.set);
        }
        if old == route {
            return;
        }
        match foremost {
            None if route.is_none() => self.slots.remove(id),
            None => {}
            Some(foremost) if entry >= foremost.max(self.journal.start()) => {}
            Some(_) => self.touch(id),
        }
    }

    /// Puts the slot's entry at the end of the journal.
    fn touch(&mut self, id: PrefixId) {
        let slot = self.slots.get_mut(id);
        if slot.entry >= self.journal.start() {
            self.journal.strike(slot.entry);
        }
        slot.entry = self.journal.push(id);
    }

    /// The slot of a prefix that some peer has been told. One without a route is at the end of the journal from now on.
    pub(super) fn claim(&mut self, key: PathKey) -> (PrefixId, Option<Route>) {
        let id = self.slots.entry(&key);
        let route = self.slots.get(id).route;
        if route.is_none() {
            self.touch(id);
        }
        (id, route)
    }

    /// Drops of the journal what all have read, or nobody needs, and with it the slots that only stood for a withdraw.
    pub(super) fn trim(&mut self, peers: &mut BTreeMap<PeerId, Peer>) {
        let behind = peers.values().map(Peer::place).min().unwrap_or(self.end());
        let mut gone = Vec::new();
        while let Some(entry) = self.journal.pop_before(behind) {
            gone.extend(entry.map(|(_, id)| id).filter(|id| self.slots.get(*id).route.is_none()));
        }
        self.slots.remove_all(&gone);
        if self.journal.is_due() {
            self.compact(peers);
        }
    }

    fn compact(&mut self, peers: &mut BTreeMap<PeerId, Peer>) {
        let Self { slots, journal, .. } = self;
        let moved = journal.compact(|id, old, new| {
            let slot = slots.get_mut(id);
            slot.entry = new;
            let needed = slot.route.is_some() || peers.values().any(|p| p.place() <= old && p.was_told(id));
            if !needed {
                slots.remove(id);
            }
            needed
        });
        peers.values_mut().for_each(|peer| peer.move_place(&moved));
    }

    /// How many prefixes, announced or to be withdrawn, and changes are held.
    #[cfg(test)]
    pub(super) fn size(&self) -> (usize, usize) {
        (self.slots.len(), usize::try_from(self.journal.end() - self.journal.start()).unwrap())
    }
}
