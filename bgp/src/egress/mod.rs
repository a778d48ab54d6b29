//! The third stage, one per update group: Adj-RIB-Out, packing and encoding, once for all peers of the group.

use std::sync::Arc;

use bytes::Bytes;
use ipnet::IpNet;

use crate::ingress::Session;
use crate::types::{Family, PeerId};
use crate::wire::attributes::PathAttributes;

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
    /// The Adj-RIB-Out changes, after export policy and attribute rewriting.
    Changes(Vec<Change>),
    /// A peer wants a family again, from the start (RFC 2918).
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

/// One change of an Adj-RIB-Out.
#[derive(Clone, Debug)]
pub struct Change {
    /// The prefix.
    pub prefix: IpNet,
    /// What it is announced with; none: withdrawn.
    pub route: Option<Advertised>,
}

/// A route as it is announced.
#[derive(Clone, Debug)]
pub struct Advertised {
    /// After export.
    pub attributes: Arc<PathAttributes>,
    /// From whom it was learned: it is not sent back there. None: our own.
    pub from: Option<PeerId>,
}

/// What an [`Egress`] gives.
#[derive(Debug)]
pub enum EgressOutput {
    /// Send these whole messages to a peer.
    Write {
        /// To whom.
        peer: PeerId,
        /// Shared with the group's other peers where they are told the same.
        bytes: Bytes,
    },
    /// Give this to the other group as [`EgressInput::Adopt`], before anything else reaches it.
    Moved {
        /// The peer's new group.
        to: GroupId,
        /// What it takes along.
        handover: Box<Handover>,
    },
}

/// A peer on its way from one update group to another.
#[derive(Debug)]
pub struct Handover {
    peer: PeerId,
    session: Arc<Session>,
    told: Vec<(IpNet, Option<Arc<PathAttributes>>)>,
}
