//! The first stage, one per peer: bytes and connection events in, decoded batches and session changes out.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ipnet::IpNet;

use crate::config::PeerConfig;
use crate::session::State;
use crate::types::{Asn, ConnectionId, Family, FamilySet, PeerType, Reason};
use crate::wire::attributes::PathAttributes;

/// What reaches an [`Ingress`].
#[derive(Debug)]
pub enum IngressInput {
    /// The peer's configuration, first or changed. What OPEN carries or the connection depends on resets the session
    /// (Cease, subcode 6 Other Configuration Change); policies, names and timers of later use do not.
    Configure(Arc<PeerConfig>),
    /// A dial succeeded.
    Connected {
        /// Which.
        connection: ConnectionId,
        /// Our end.
        local: SocketAddr,
    },
    /// A dial failed.
    ConnectFailed {
        /// Which.
        connection: ConnectionId,
        /// The kernel's words.
        error: String,
    },
    /// The peer connected to us.
    Accepted {
        /// Which.
        connection: ConnectionId,
        /// Our end.
        local: SocketAddr,
    },
    /// The peer sent bytes.
    Bytes {
        /// On which connection.
        connection: ConnectionId,
        /// What.
        bytes: Bytes,
    },
    /// The connection is gone: FIN, RST or an error of the socket.
    Closed {
        /// Which.
        connection: ConnectionId,
        /// The kernel's words.
        error: Option<String>,
    },
    /// What OPEN says of our own restart (RFC 4724 section 3). Takes effect with the next OPEN; resets nothing.
    Restart(LocalRestart),
    /// End the session with this Cease subcode (RFC 4486) and text (RFC 9003), and start again.
    Cease {
        /// The subcode.
        subcode: u8,
        /// The text for the peer.
        text: String,
    },
    /// Close without NOTIFICATION, for good: the process ends and the peer shall take it as a restart (RFC 4724).
    Stop,
    /// A deadline may have passed.
    Tick,
}

/// Our own restart, as graceful restart's capability tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LocalRestart {
    /// R bit: this process has taken over from one that died, and has not converged yet.
    pub restarting: bool,
    /// F bit: the families whose kernel routes were kept.
    pub forwarding: FamilySet,
}

/// What an [`Ingress`] asks for or reports.
#[derive(Debug)]
pub enum IngressOutput {
    /// Open a connection.
    Dial {
        /// Its name from now on.
        connection: ConnectionId,
        /// The address to bind to, if configured.
        source: Option<IpAddr>,
        /// Whom to call.
        remote: SocketAddr,
    },
    /// Send bytes: whole messages, at once, before any UPDATE that is queued.
    Write {
        /// On which connection.
        connection: ConnectionId,
        /// What.
        bytes: Bytes,
    },
    /// Close a connection after what was written to it is out.
    Close {
        /// Which.
        connection: ConnectionId,
    },
    /// The session is Established.
    Up(Arc<Session>),
    /// The session is no longer Established.
    Down(Down),
    /// Routes of the Established session.
    Routes(RouteBatch),
    /// The peer has sent its whole table of a family (RFC 4724).
    EndOfRib(Family),
    /// The peer wants our table of a family again (RFC 2918).
    Refresh(Family),
    /// The state changed.
    State(State),
    /// Something went wrong or was noteworthy; for `events`, logs and counters.
    Incident(Incident),
}

/// What both ends agreed on in OPEN. One per Established session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// The connection that won.
    pub connection: ConnectionId,
    /// Our end.
    pub local: SocketAddr,
    /// The peer's end.
    pub remote: IpAddr,
    /// The AS that we are.
    pub local_as: Asn,
    /// The AS that the peer is.
    pub remote_as: Asn,
    /// iBGP or eBGP.
    pub peer_type: PeerType,
    /// The peer's BGP identifier.
    pub remote_id: Ipv4Addr,
    /// The families both offered.
    pub families: FamilySet,
    /// Whether AS numbers have four octets here.
    pub four_octet_as: bool,
    /// Whether the peer understands ROUTE-REFRESH.
    pub route_refresh: bool,
    /// The longest message that the peer takes: 4096, or 65535 (RFC 8654).
    pub max_message: u16,
    /// The negotiated hold time; zero: no keepalives.
    pub hold_time: Duration,
    /// Between two keepalives; zero: none.
    pub keepalive_time: Duration,
    /// The peer's graceful restart capability, if both ends have it.
    pub graceful_restart: Option<PeerGracefulRestart>,
}

/// What the peer says of its restarts (RFC 4724 section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerGracefulRestart {
    /// R bit: the peer has just restarted.
    pub restarting: bool,
    /// How long to keep the peer's routes while it is away.
    pub restart_time: Duration,
    /// The families it restarts gracefully.
    pub families: FamilySet,
    /// Those of them whose forwarding state it kept (F bit).
    pub forwarding: FamilySet,
}

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Down {
    /// The peer restarts (RFC 4724): keep its routes of these families, stale, for this long at most.
    Restart {
        /// The families.
        families: FamilySet,
        /// How long.
        restart_time: Duration,
    },
    /// The peer is dead: its routes go at once.
    Death,
}

/// Routes of one peer, decoded: runs of prefixes that share attributes. One allocation for all prefixes of a batch.
#[derive(Clone, Debug, Default)]
pub struct RouteBatch {
    /// The prefixes of all runs, one behind the other.
    pub prefixes: Vec<IpNet>,
    /// In the order received.
    pub runs: Vec<Run>,
}

/// A run of prefixes of one family.
#[derive(Clone, Debug)]
pub struct Run {
    /// Where in [`RouteBatch::prefixes`].
    pub range: Range<usize>,
    /// The attributes; none: withdrawn.
    pub attributes: Option<Arc<PathAttributes>>,
}

/// Something noteworthy in a session.
#[derive(Clone, Debug)]
pub struct Incident {
    /// Of what kind.
    pub kind: IncidentKind,
    /// Code and sentence.
    pub reason: Reason,
    /// The bytes in question, cut to [`Incident::BYTES_MAX`].
    pub bytes: Bytes,
}

impl Incident {
    /// How many offending bytes are kept.
    pub const BYTES_MAX: usize = 4096;
}

/// The kinds of incidents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IncidentKind {
    /// We sent this NOTIFICATION.
    NotificationSent {
        /// Code and subcode (RFC 4271 section 4.5).
        code: u8,
        /// Subcode.
        subcode: u8,
    },
    /// The peer sent this NOTIFICATION.
    NotificationReceived {
        /// Code.
        code: u8,
        /// Subcode.
        subcode: u8,
    },
    /// A malformed UPDATE was treated as a withdraw (RFC 7606).
    TreatedAsWithdraw,
    /// A malformed attribute was discarded (RFC 7606).
    AttributeDiscarded,
    /// The connection could not be made or was lost.
    Connection,
}
