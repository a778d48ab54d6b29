//! The third stage, one per update group: Adj-RIB-Out, packing and encoding, once for all peers of the group.
//!
//! The group has one table and one journal of what changed in it; a peer has a place in the journal and one bit per prefix that it
//! has been told. Nothing is queued per peer: its messages are made from the table when there is room for them, [`CREDIT`] octets
//! at most being on their way to the kernel. A peer that does not read therefore costs its bits, holds nobody up, and gets the
//! last state of each prefix when it reads again. Peers at one place are given the same bytes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use ipnet::IpNet;

use crate::arena::prefixes::Key;
use crate::ingress::Session;
use crate::types::{ConnectionId, Family, PeerId};
use crate::wire::header::MessageType;
use crate::wire::nlri::Nlri;
use crate::wire::update::{self, AttributeBlock, Stored};

use self::adj_out::AdjRibOut;
pub use self::changes::Changes;
pub use self::peer::Handover;
use self::peer::Peer;

mod adj_out;
mod changes;
pub(crate) mod groups;
mod journal;
mod pack;
mod peer;
pub(crate) mod shared;

/// The octets that may be on their way to one peer before packing for it pauses. The last piece may go beyond by its own size.
pub const CREDIT: usize = 256 * 1024;

/// An update group: peers that are told the same. Not used again while the speaker lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u32);

/// What reaches an [`Egress`].
#[derive(Debug)]
pub enum EgressInput {
    /// A peer joins: it gets the whole Adj-RIB-Out, then End-of-RIB of each family.
    Join {
        /// Who.
        peer: PeerId,
        /// How to encode for it.
        session: Arc<Session>,
    },
    /// A peer leaves.
    Leave(PeerId),
    /// A peer leaves for another group, as its policy is another now: answered with [`EgressOutput::Moved`].
    Move {
        /// Who.
        peer: PeerId,
        /// Where to.
        to: GroupId,
    },
    /// A peer comes from another group, with what it has been told there: it is told the difference.
    Adopt(Box<Handover>),
    /// Whether more is to come before the peers get End-of-RIB (RFC 4724 section 4.1). It is not, unless this says so.
    Defer(bool),
    /// The Adj-RIB-Out changes.
    Changes(Changes),
    /// The same by routes of the only peer, which is not told them: one that is to join will be.
    Fill(Changes),
    /// A peer wants a family again, from the start (RFC 2918); between a beginning and an end where that was agreed on (RFC 7313).
    Refresh {
        /// Who.
        peer: PeerId,
        /// Which.
        family: Family,
    },
    /// The kernel took bytes of this peer's, so that more may be packed for it.
    Written {
        /// Whose.
        peer: PeerId,
        /// How many.
        bytes: usize,
    },
}

/// What an Adj-RIB-Out has one route of: a prefix or, where the peers are told several of its paths (RFC 7911), one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathKey {
    /// The prefix.
    pub prefix: IpNet,
    /// The path identifier; 0: the only path, told without one.
    pub path_id: u16,
}

impl PathKey {
    /// The path identifier of what we originate, whatever else there is.
    pub const OWN: u16 = 1;
}

impl Key for PathKey {
    fn parts(&self) -> (&IpNet, u16) {
        (&self.prefix, self.path_id)
    }

    fn of(prefix: IpNet, path_id: u16) -> Self {
        Self { prefix, path_id }
    }
}

impl Nlri for PathKey {
    fn prefix(&self) -> IpNet {
        self.prefix
    }

    fn path_id(&self) -> Option<u32> {
        (self.path_id != 0).then_some(self.path_id.into())
    }
}

/// What an [`Egress`] gives.
#[derive(Debug)]
pub enum EgressOutput {
    /// Send these whole messages to a peer.
    Write {
        /// To whom.
        peer: PeerId,
        /// On which connection: that of its session.
        connection: ConnectionId,
        /// Shared with the group's other peers where they are told the same.
        bytes: Bytes,
        /// How many messages they are.
        messages: u64,
        /// Of which type.
        kind: MessageType,
    },
    /// Give this to the other group as [`EgressInput::Adopt`], before anything else reaches it.
    Moved {
        /// The peer's new group.
        to: GroupId,
        /// What it takes along.
        handover: Box<Handover>,
    },
}

/// One update group. Its peers have agreed on the same families and encoding: the second stage sees to that.
#[derive(Debug)]
pub struct Egress {
    credit: usize,
    table: AdjRibOut,
    peers: BTreeMap<PeerId, Peer>,
    /// Whether End-of-RIB waits.
    deferring: bool,
    outputs: VecDeque<EgressOutput>,
    /// Whether every peer has read everything or has no room: nothing is looked for then.
    at_rest: bool,
}

impl Default for Egress {
    fn default() -> Self {
        Self::new()
    }
}

impl Egress {
    /// A group without peers or routes.
    #[must_use]
    pub fn new() -> Self {
        Self::with_credit(CREDIT)
    }

    /// One that has at most this many octets, and a piece of as many, on their way to each peer; at least one prefix at a time.
    #[must_use]
    pub fn with_credit(credit: usize) -> Self {
        Self {
            credit: credit.max(1),
            table: AdjRibOut::default(),
            peers: BTreeMap::new(),
            deferring: false,
            outputs: VecDeque::new(),
            at_rest: true,
        }
    }

    /// Takes an input. What follows from it comes out of [`Self::poll`]. Nothing here depends on the time.
    pub fn handle(&mut self, _now: Instant, input: EgressInput) {
        match input {
            EgressInput::Join { peer, session } => {
                self.peers.insert(peer, Peer::new(session, self.table.end()));
            }
            EgressInput::Leave(peer) => {
                self.peers.remove(&peer);
            }
            EgressInput::Move { peer, to } => {
                if let Some(leaving) = self.peers.remove(&peer) {
                    let handover = Box::new(leaving.hand_over(peer, &self.table));
                    self.outputs.push_back(EgressOutput::Moved { to, handover });
                }
            }
            EgressInput::Adopt(handover) => {
                let (id, peer) = Peer::adopt(*handover, &mut self.table);
                self.peers.insert(id, peer);
            }
            EgressInput::Defer(defer) => {
                self.deferring = defer;
                let end = self.table.end();
                self.peers.values_mut().for_each(|peer| peer.ends_at(end));
            }
            EgressInput::Changes(changes) | EgressInput::Fill(changes) => {
                // No peer has read a change behind the foremost place: it is replaced where it stands.
                let foremost = self.peers.values().map(Peer::place).max();
                self.table.change(&changes, foremost);
            }
            EgressInput::Refresh { peer, family } => {
                if let Some(peer) = self.peers.get_mut(&peer) {
                    peer.refresh(family);
                }
            }
            EgressInput::Written { peer, bytes } => {
                let peer = self.peers.get_mut(&peer);
                // A peer that had room before has read all there is.
                let waited = peer.is_some_and(|peer| {
                    let had_room = peer.has_room(self.credit);
                    peer.written(bytes);
                    !had_room
                });
                self.at_rest &= !waited;
                return;
            }
        }
        self.at_rest = false;
        self.table.trim(&mut self.peers);
    }

    /// The next thing that follows from what was handled; none: nothing is left to do, or no peer has room.
    pub fn poll(&mut self) -> Option<EgressOutput> {
        while self.outputs.is_empty() && !self.at_rest {
            self.at_rest = !self.pack();
        }
        self.outputs.pop_front()
    }

    /// How many prefixes of a family, or paths, a peer has been told and not been told to forget.
    #[must_use]
    pub fn advertised(&self, peer: PeerId, family: Family) -> usize {
        self.peers.get(&peer).map_or(0, |peer| peer.advertised(family))
    }

    /// What a peer of the group is to be told of a prefix, or of a path to it, whether it has been or not.
    #[must_use]
    pub fn route(&self, peer: PeerId, key: &PathKey) -> Option<&Stored> {
        let slots = self.table.slots();
        let route = slots.get(slots.find(key)?).route?;
        let session = self.peers.get(&peer)?.session();
        let set = self.table.set(self.table.told_to(peer, session, route)?);
        let block = AttributeBlock::stored(set, Family::of(&key.prefix), session.four_octet_as);
        update::fits(&block, key, session.max_message).then_some(set)
    }

    /// All that the group is told.
    pub fn keys(&self) -> impl Iterator<Item = PathKey> {
        self.table.slots().walk(0).filter(|(.., slot)| slot.route.is_some()).map(|(_, key, _)| key)
    }

    /// The peers of the group.
    pub fn peers(&self) -> impl Iterator<Item = PeerId> {
        self.peers.keys().copied()
    }

    /// The peers that have been told a prefix, if one path alone is told, or else our own path to it, and not been told to forget it.
    pub fn told(&self, prefix: &IpNet) -> impl Iterator<Item = PeerId> {
        let ids =
            [0, PathKey::OWN].map(|path_id| self.table.slots().find(&PathKey { prefix: *prefix, path_id }));
        let told = move |peer: &Peer| ids.into_iter().flatten().any(|id| peer.was_told(id));
        self.peers.iter().filter(move |(_, peer)| told(peer)).map(|(id, _)| *id)
    }
}

#[cfg(test)]
mod tests;
