//! One peer of an update group: where it stands, and what it has been told.

use std::sync::Arc;

use super::PathKey;
use super::adj_out::{AdjRibOut, Slot};
use super::journal::{Moved, Place};
use crate::arena::bits::BitSet;
use crate::arena::prefixes::PrefixId;
use crate::ingress::Session;
use crate::types::{Family, FamilySet, PeerId};
use crate::wire::header::MessageType;
use crate::wire::route_refresh::RouteRefresh;
use crate::wire::update::Stored;

/// A peer of the group.
#[derive(Debug)]
pub(super) struct Peer {
    session: Arc<Session>,
    /// Octets on their way to the kernel.
    outstanding: usize,
    /// The prefixes that it has been told and not been told to forget.
    told: BitSet,
    told_ipv4: usize,
    told_ipv6: usize,
    /// How far it has read the journal.
    place: Place,
    /// What it gets of the table besides. The journal waits for it.
    walk: Option<Walk>,
    /// The families whose End-of-RIB it has yet to get, and the place before which it does not.
    end_of_rib: (FamilySet, Place),
    /// The families whose refresh has yet to begin for it, and those whose refresh has yet to end: with the walk, as End-of-RIB.
    refresh: Refresh,
}

/// The families of which a refresh is to be told to begin, and to end (RFC 7313).
#[derive(Clone, Copy, Debug, Default)]
struct Refresh {
    begins: FamilySet,
    ends: FamilySet,
}

/// What is sent between UPDATEs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Marker {
    RefreshBegins,
    EndOfRib,
    RefreshEnds,
}

impl Marker {
    /// As a subtype of ROUTE-REFRESH; End-of-RIB is an UPDATE.
    pub(super) fn subtype(self) -> Option<u8> {
        match self {
            Self::RefreshBegins => Some(RouteRefresh::BEGIN),
            Self::RefreshEnds => Some(RouteRefresh::END),
            Self::EndOfRib => None,
        }
    }

    pub(super) fn kind(self) -> MessageType {
        self.subtype().map_or(MessageType::Update, |_| MessageType::RouteRefresh)
    }
}

/// A walk over the whole table. What the journal has still in store for the peer is left to that.
#[derive(Debug)]
pub(super) struct Walk {
    next: usize,
    families: FamilySet,
    /// What the peer knows already, from another group.
    known: BitSet,
}

/// A peer on its way from one update group to another, with what it has been told.
#[derive(Debug)]
pub struct Handover {
    peer: PeerId,
    session: Arc<Session>,
    outstanding: usize,
    end_of_rib: FamilySet,
    refresh: Refresh,
    /// Prefixes that it may know, and what it knows for certain.
    told: Vec<(PathKey, Option<Stored>)>,
}

impl Handover {
    /// Who.
    #[must_use]
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// On which session.
    #[must_use]
    pub fn session(&self) -> &Arc<Session> {
        &self.session
    }
}

/// Where a peer reads. Peers at the same position can be given the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Position {
    /// In the table.
    Walk(usize),
    /// In the journal.
    Journal(Place),
}

impl Peer {
    /// A peer that knows nothing yet and is owed the table, then End-of-RIB.
    pub(super) fn new(session: Arc<Session>, end: Place) -> Self {
        let families = session.families;
        Self {
            session,
            outstanding: 0,
            told: BitSet::default(),
            told_ipv4: 0,
            told_ipv6: 0,
            place: end,
            walk: Some(Walk { next: 0, families, known: BitSet::default() }),
            end_of_rib: (families, 0),
            refresh: Refresh::default(),
        }
    }

    /// What it takes along to another group.
    pub(super) fn hand_over(self, id: PeerId, table: &AdjRibOut) -> Handover {
        let slots = table.slots().walk(0).filter(|(id, ..)| self.was_told(*id));
        let told = slots.map(|(id, key, slot)| {
            let sure = slot.entry < self.place && !self.walks_over(id);
            let attributes = slot.route.filter(|_| sure).map(|r| table.set(r.set).clone());
            (key, attributes)
        });
        Handover {
            peer: id,
            told: told.collect(),
            outstanding: self.outstanding,
            end_of_rib: self.end_of_rib.0,
            refresh: self.refresh,
            session: self.session,
        }
    }

    /// Takes a peer in that comes from another group.
    pub(super) fn adopt(handover: Handover, table: &mut AdjRibOut) -> (PeerId, Self) {
        let mut peer = Self::new(handover.session, table.end());
        peer.outstanding = handover.outstanding;
        (peer.end_of_rib.0, peer.refresh) = (handover.end_of_rib, handover.refresh);
        let mut known = BitSet::default();
        for (key, attributes) in handover.told {
            let (id, route) = table.claim(key);
            peer.tell(id, Family::of(&key.prefix));
            let set = route.and_then(|route| table.told_to(handover.peer, &peer.session, route));
            if let (Some(set), Some(attributes)) = (set, attributes)
                && *table.set(set) == attributes
            {
                known.insert(id.index());
            }
        }
        if let Some(walk) = &mut peer.walk {
            walk.known = known;
        }
        (handover.peer, peer)
    }

    fn walks_over(&self, id: PrefixId) -> bool {
        self.walk.as_ref().is_some_and(|walk| {
            walk.next <= id.index() && walk.families.contains(id.family()) && !walk.known.contains(id.index())
        })
    }

    /// Whether the walk, rather than the journal, is to say how this slot stands.
    pub(super) fn wants(&self, id: PrefixId, slot: &Slot) -> bool {
        slot.entry < self.place && self.walks_over(id)
    }

    /// Puts it on a walk over the table again.
    pub(super) fn refresh(&mut self, family: Family) {
        if !self.session.families.contains(family) {
            return;
        }
        let mut families = self.walk.as_ref().map_or(FamilySet::EMPTY, |walk| walk.families);
        families.insert(family);
        // Before its End-of-RIB a table has an end already.
        if self.session.enhanced_route_refresh && !self.end_of_rib.0.contains(family) {
            self.refresh.begins.insert(family);
        }
        self.walk = Some(Walk { next: 0, families, known: BitSet::default() });
    }

    pub(super) fn session(&self) -> &Session {
        &self.session
    }

    /// How far it has read the journal.
    pub(super) fn place(&self) -> Place {
        self.place
    }

    /// Follows a compaction of the journal.
    pub(super) fn move_place(&mut self, moved: &Moved) {
        self.place = moved.to(self.place);
        self.end_of_rib.1 = moved.to(self.end_of_rib.1);
    }

    /// Whether more may be packed for it.
    pub(super) fn has_room(&self, credit: usize) -> bool {
        self.outstanding < credit
    }

    /// Where it reads next; none: it has no room, or has read everything.
    pub(super) fn position(&self, end: Place, credit: usize) -> Option<Position> {
        if !self.has_room(credit) {
            return None;
        }
        match &self.walk {
            Some(walk) => Some(Position::Walk(walk.next)),
            None => (self.place < end).then_some(Position::Journal(self.place)),
        }
    }

    /// Goes on behind what was read. `next`: where the walk goes on, or nothing is left of the table.
    pub(super) fn walked(&mut self, next: Option<usize>, end: Place) {
        match (next, &mut self.walk) {
            (Some(next), Some(walk)) => walk.next = next,
            _ => {
                self.walk = None;
                self.ends_at(end);
            }
        }
    }

    /// What stands in the journal before this comes before its End-of-RIB.
    pub(super) fn ends_at(&mut self, end: Place) {
        self.end_of_rib.1 = end;
    }

    /// Goes on behind what was read of the journal.
    pub(super) fn read(&mut self, place: Place) {
        self.place = place;
    }

    /// The marker that is due, and of which families; it is due no more then. Nothing of a refresh is sent before its beginning, as both
    /// wait for room, and nothing ends while `deferring`.
    pub(super) fn take_marker(&mut self, credit: usize, deferring: bool) -> Option<(Marker, FamilySet)> {
        if !self.has_room(credit) {
            return None;
        }
        let told = !deferring && self.walk.is_none() && self.place >= self.end_of_rib.1;
        let Refresh { begins, ends } = &mut self.refresh;
        let (marker, families) = if !begins.is_empty() {
            *ends = ends.union(*begins);
            (Marker::RefreshBegins, begins)
        } else if told && !self.end_of_rib.0.is_empty() {
            (Marker::EndOfRib, &mut self.end_of_rib.0)
        } else if told && !ends.is_empty() {
            (Marker::RefreshEnds, ends)
        } else {
            return None;
        };
        Some((marker, std::mem::take(families)))
    }

    pub(super) fn sent(&mut self, bytes: usize) {
        self.outstanding += bytes;
    }

    pub(super) fn written(&mut self, bytes: usize) {
        self.outstanding = self.outstanding.saturating_sub(bytes);
    }

    pub(super) fn was_told(&self, id: PrefixId) -> bool {
        self.told.contains(id.index())
    }

    fn told_mut(&mut self, family: Family) -> &mut usize {
        match family {
            Family::Ipv4Unicast => &mut self.told_ipv4,
            Family::Ipv6Unicast => &mut self.told_ipv6,
        }
    }

    /// It knows this prefix from now on.
    pub(super) fn tell(&mut self, id: PrefixId, family: Family) {
        if self.told.insert(id.index()) {
            *self.told_mut(family) += 1;
        }
    }

    /// It knows this prefix no longer.
    pub(super) fn untell(&mut self, id: PrefixId, family: Family) {
        if self.told.remove(id.index()) {
            *self.told_mut(family) -= 1;
        }
    }

    /// How many prefixes it knows.
    pub(super) fn advertised(&self, family: Family) -> usize {
        match family {
            Family::Ipv4Unicast => self.told_ipv4,
            Family::Ipv6Unicast => self.told_ipv6,
        }
    }
}
