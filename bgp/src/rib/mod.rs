//! The second stage, one per speaker: Adj-RIBs-In, import policy, decision, Loc-RIB, export.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::config::{Origination, PeerConfig};
use crate::ingress::{Down, RouteBatch, Session};
use crate::speaker::{BestPathChange, Resolution, TrackedNextHop};
use crate::types::{Asn, Family, PeerId, Reason};

/// What reaches the [`Rib`].
#[derive(Debug)]
pub enum RibInput {
    /// The speaker's own part of the configuration. Prefixes that are new are announced, those gone withdrawn.
    Configure {
        /// The own AS.
        asn: Asn,
        /// How many equal paths go to the kernel.
        max_paths: u16,
        /// Whether next hops must resolve first.
        next_hop_tracking: bool,
        /// What we originate.
        originate: BTreeMap<IpNet, Origination>,
    },
    /// A peer is configured, or its policies changed: its Adj-RIB-In is looked at again and its Adj-RIB-Out brought up to date,
    /// without a word to the session.
    Peer {
        /// Which.
        peer: PeerId,
        /// Its address, the last tie-break.
        address: IpAddr,
        /// Its configuration.
        config: Arc<PeerConfig>,
    },
    /// A peer is configured no more.
    RemovePeer(PeerId),
    /// Its session is Established: it joins an update group and gets the table.
    Up {
        /// Which.
        peer: PeerId,
        /// What was agreed.
        session: Arc<Session>,
    },
    /// Its session ended.
    Down {
        /// Which.
        peer: PeerId,
        /// Restart or death.
        down: Down,
    },
    /// Routes arrived.
    Routes {
        /// From whom.
        peer: PeerId,
        /// What.
        batch: RouteBatch,
    },
    /// End-of-RIB arrived: what is still stale of this family goes.
    EndOfRib {
        /// From whom.
        peer: PeerId,
        /// Of which family.
        family: Family,
    },
    /// A next hop resolves otherwise than before.
    NextHop {
        /// Which.
        next_hop: TrackedNextHop,
        /// How.
        resolution: Resolution,
    },
    /// From now on announcements flow. Until then (after a restart, RFC 4724 section 4.1) routes are taken in and decided on, but no
    /// peer is told anything.
    Advertise,
    /// A deadline may have passed: stale routes whose time is up.
    Tick,
}

/// What the [`Rib`] gives.
#[derive(Debug)]
pub enum RibOutput {
    /// For the kernel.
    BestPaths(Vec<BestPathChange>),
    /// Ask the kernel.
    Track(TrackedNextHop),
    /// Ask no longer.
    Untrack(TrackedNextHop),
    /// A peer announces what is another's.
    Alarm {
        /// Who.
        peer: PeerId,
        /// What.
        prefix: IpNet,
        /// Why it is wrong.
        reason: Reason,
    },
    /// For the third stage: see [`crate::egress::EgressInput`].
    Egress(crate::egress::GroupId, crate::egress::EgressInput),
    /// The group has no peers any more.
    EgressClosed(crate::egress::GroupId),
}
