//! What a speaker says of itself: snapshots for people and programs.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use ipnet::IpNet;

use crate::config::{PeerConfig, RangeConfig};
use crate::ingress::Session;
use crate::session::{State, Timer};
use crate::types::{Family, PeerAddress, PeerId, Reason};
use crate::wire::attributes::PathAttributes;
use crate::wire::notification::Notification;

/// One peer, now.
#[derive(Clone, Debug)]
pub struct PeerStatus {
    /// Its number.
    pub id: PeerId,
    /// Where it is.
    pub address: PeerAddress,
    /// Its configuration.
    pub config: Arc<PeerConfig>,
    /// The range that it has connected from, if that alone makes it a peer.
    pub range: Option<IpNet>,
    /// Where the FSM stands.
    pub state: State,
    /// Since when.
    pub since: Option<Instant>,
    /// The Established session.
    pub session: Option<Arc<Session>>,
    /// Per family offered, in order.
    pub families: Vec<FamilyStatus>,
    /// The last error of this peer's, either direction.
    pub last_error: Option<LastError>,
    /// Whether the peer is away and its routes are kept (RFC 4724), and until when.
    pub stale_until: Option<Instant>,
    /// Message counters since the speaker started.
    pub counters: MessageCounters,
    /// Whether it is kept down because it has told more prefixes than it may.
    pub over_limit: bool,
    /// When a session was Established last, whether it still is or not.
    pub established_at: Option<Instant>,
    /// The timers that run, and when they expire.
    pub timers: BTreeMap<Timer, Instant>,
    /// What both ends have said.
    pub said: Said,
}

/// A range from within which peers may connect, now.
#[derive(Clone, Debug)]
pub struct RangeStatus {
    /// Which.
    pub range: IpNet,
    /// What it is.
    pub config: Arc<RangeConfig>,
    /// How many peers there are of it.
    pub peers: usize,
    /// Of those, how many have an Established session.
    pub established: usize,
    /// Connections that were closed at once since it was configured.
    pub refused: u64,
    /// Why the last one was, and when.
    pub last_refused: Option<(Instant, RangeRefusal)>,
}

/// Why a connection from within a range was closed at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RangeRefusal {
    /// The range is not configured, or not yet.
    NotConfigured,
    /// Its sessions are kept down.
    StaysDown,
    /// It has as many peers as it may.
    Full {
        /// So many.
        limit: u32,
    },
    /// What protects its sessions is not to be had, or the connection is not protected so; in words.
    Unprotected(String),
}

impl fmt::Display for RangeRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotConfigured => f.write_str("the range is not configured"),
            Self::StaysDown => f.write_str("its sessions are kept down"),
            Self::Full { limit } => write!(f, "it has the {limit} peers that it may have at most"),
            Self::Unprotected(error) => f.write_str(error),
        }
    }
}

/// What both ends have said that tells how they understand each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// The connection of the session or, without one, the last there was.
    pub dialogue: Option<Dialogue>,
    /// The last NOTIFICATION to the peer.
    pub notification_sent: Option<SaidNotification>,
    /// The last NOTIFICATION of the peer's.
    pub notification_received: Option<SaidNotification>,
}

/// How a connection began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dialogue {
    /// Our end.
    pub local: SocketAddr,
    /// The peer's end.
    pub remote: SocketAddr,
    /// Our OPEN, header included; empty: it was not sent.
    pub open_sent: Bytes,
    /// The peer's OPEN, header included; empty: none has come.
    pub open_received: Bytes,
}

/// A NOTIFICATION, and when it went over the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SaidNotification {
    /// When.
    pub at: Instant,
    /// What.
    pub notification: Notification,
}

/// How many reasons there are why a received route takes no part in the decision.
pub const REJECTED: usize = 11;

/// A peer's routes of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FamilyStatus {
    /// Which.
    pub family: Family,
    /// In its Adj-RIB-In.
    pub received: usize,
    /// Of those, eligible for the decision.
    pub accepted: usize,
    /// In its Adj-RIB-Out.
    pub advertised: usize,
    /// Kept while it restarts.
    pub stale: usize,
    /// Paths that were refused in this session, as the peer had told as many of their prefixes as it may (RFC 7911), since it was last
    /// asked for what there is room for.
    pub refused: u64,
    /// Of those received, how many take no part in the decision, for each reason by its code. A policy has one code.
    pub rejected: [(&'static str, usize); REJECTED],
    /// Whether these are long-lived stale (RFC 9494).
    pub long_lived: bool,
}

impl FamilyStatus {
    /// How many prefixes the peer has told in this session: those that count for its limit.
    #[must_use]
    pub fn told(&self) -> usize {
        self.received.saturating_sub(self.stale)
    }
}

/// Routes of a peer that are rejected for what points at a mistake: how many, and one of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rejections {
    /// Their AS path has a set (RFC 9774).
    pub as_set: Option<(usize, IpNet)>,
    /// Nothing but our own AS in the path speaks against them.
    pub own_as: Option<(usize, IpNet)>,
    /// Whoever announces or originates them does not own them.
    pub duplicate_origin: Option<(usize, IpNet)>,
    /// They were told to customers only before the peer told them to us, who are none (RFC 9234).
    pub route_leak: Option<(usize, IpNet)>,
}

/// The last thing that went wrong with a peer.
#[derive(Clone, Debug)]
pub struct LastError {
    /// When.
    pub at: Instant,
    /// Who said so.
    pub direction: Direction,
    /// NOTIFICATION code, if it was one.
    pub code: Option<u8>,
    /// NOTIFICATION subcode.
    pub subcode: Option<u8>,
    /// In words.
    pub text: String,
}

/// Which way a message went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From us.
    Sent,
    /// From the peer.
    Received,
    /// No message: a failure on our side of the wire.
    Local,
}

/// Messages by type, both ways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessageCounters {
    /// OPEN, UPDATE, NOTIFICATION, KEEPALIVE, ROUTE-REFRESH received.
    pub received: [u64; 5],
    /// The same sent.
    pub sent: [u64; 5],
    /// UPDATEs treated as withdraw (RFC 7606).
    pub treated_as_withdraw: u64,
    /// Attributes discarded (RFC 7606).
    pub attributes_discarded: u64,
    /// Sessions that left Established.
    pub flaps: u64,
    /// Sessions that were ended as the peer took nothing of what it was sent (RFC 9687).
    pub send_hold_timer_expired: u64,
    /// Connections of the peer's that were closed at once, as earlier ones had failed or the session is shut down.
    pub connections_refused: u64,
}

/// Which paths are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RibView {
    /// All paths of the Loc-RIB and why they won or lost.
    Loc,
    /// A peer's, before policy.
    In(PeerAddress),
    /// What a peer is told.
    Out(PeerAddress),
}

/// Which prefixes are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteSelect {
    /// Every prefix, in order: IPv4 first, then by address and length.
    All,
    /// This prefix and no other.
    Exact(IpNet),
    /// The longest prefix that holds this address.
    LongestMatch(IpAddr),
}

/// A prefix and its paths.
#[derive(Clone, Debug)]
pub struct RouteStatus {
    /// The prefix.
    pub prefix: IpNet,
    /// Best first, then as the decision ranks them, then the ineligible.
    pub paths: Vec<PathStatus>,
}

/// One path.
#[derive(Clone, Debug)]
pub struct PathStatus {
    /// From which peer; none: our own.
    pub peer: Option<PeerAddress>,
    /// The path identifier by which the peer tells it or is told it, as the view is (RFC 7911); none: by no such.
    pub path_id: Option<u32>,
    /// Its attributes.
    pub attributes: Arc<PathAttributes>,
    /// Whether it took part in the decision.
    pub valid: bool,
    /// Whether it won.
    pub best: bool,
    /// Whether it is used beside the best path (multipath).
    pub multipath: bool,
    /// Whether it is kept while its peer restarts.
    pub stale: bool,
    /// The prefix of BGP's that its next hop is reached over; none: the kernel's routes lead there, or nothing does.
    pub next_hop_over: Option<IpNet>,
    /// Why it won, lost, or took no part.
    pub reason: Reason,
}

/// The best path to a prefix is another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BestChange {
    /// Its number: changes are numbered from 1 as they happen. One that stands for several has that of the last.
    pub seq: u64,
    /// When, or when the last of several was.
    pub at: Instant,
    /// Which prefix.
    pub prefix: IpNet,
    /// The best path before; none: there was none.
    pub before: Option<BestOf>,
    /// The best path since; none: there is none.
    pub after: Option<BestOf>,
    /// How many changes it stands for: more than one where a prefix flaps.
    pub changes: u32,
}

/// What of a best path is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BestOf {
    /// From which peer; none: our own, or the peer is gone.
    pub peer: Option<PeerAddress>,
    /// Whether it is our own.
    pub local: bool,
    /// Its next hop.
    pub next_hop: IpAddr,
}

/// What concerns no single peer, since the speaker started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpeakerCounters {
    /// Incoming connections from addresses that are no peer's.
    pub unknown_peer: u64,
    /// Incoming connections beyond the transport's limits.
    pub too_many: u64,
    /// Changes of best paths.
    pub best_path_changes: u64,
}
