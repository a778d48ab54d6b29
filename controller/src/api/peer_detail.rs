//! What the socket tells of one peer beyond how it is: what both ends have said, timers, counters.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{AddPathSpec, Cidr, NextHopMode};

/// The keys of a peer that are for whoever looks into one. All are there; the list of all peers has them too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PeerDetailJson {
    /// When a session was Established last, whether it still is or not.
    pub last_established: Option<Timestamp>,
    /// How many sessions have left Established since the daemon started.
    pub flaps: u64,
    /// The connection of the session or, without one, the last there was.
    pub connection: Option<ConnectionJson>,
    /// The OPENs on that connection.
    pub opens: OpensJson,
    /// What the documents and the defaults ask for.
    pub settings: Option<SettingsJson>,
    /// What the documents and the defaults ask for.
    pub configured_timers: Option<ConfiguredTimersJson>,
    /// When the timers that run expire: `connect-retry`, `hold`, `keepalive`, `delay-open`, `idle-hold`.
    pub timer_expiries: BTreeMap<String, Timestamp>,
    /// The keys, where the session is signed with TCP-AO.
    #[serde(rename = "tcpAO")]
    pub tcp_ao: Option<TcpAoJson>,
    /// Messages since the daemon started.
    pub messages: MessagesJson,
    /// The last NOTIFICATIONs.
    pub notifications: NotificationsJson,
}

/// The keys of TCP-AO (RFC 5925).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TcpAoJson {
    /// All of them, by preference.
    pub keys: Vec<TcpAoKeyJson>,
    /// The `sendID` of the key that we sign with; null: there is no session.
    pub sends_with: Option<u8>,
    /// The `receiveID` of the key that we ask the peer to sign with; null: there is no session.
    pub asks_for: Option<u8>,
    /// How many segments of the connection were dropped as they were not signed as they should be; null: there is no session.
    pub bad_segments: Option<u64>,
}

/// The IDs of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpAoKeyJson {
    /// Of what we sign with it.
    #[serde(rename = "sendID")]
    pub send_id: u8,
    /// Of what the peer signs with it.
    #[serde(rename = "receiveID")]
    pub receive_id: u8,
}

/// A TCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionJson {
    /// Our end.
    pub local: SocketAddr,
    /// The peer's end.
    pub remote: SocketAddr,
}

/// What both ends said of themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OpensJson {
    /// By us; null: not yet.
    pub sent: Option<OpenJson>,
    /// By the peer; null: not yet, or it was malformed.
    pub received: Option<OpenJson>,
}

/// An OPEN.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OpenJson {
    /// The sender's AS.
    #[serde(rename = "as")]
    pub asn: u32,
    /// The hold time that it proposes, in seconds.
    pub hold_time: u16,
    /// Its BGP identifier.
    pub identifier: Ipv4Addr,
    /// What it can do, in order.
    pub capabilities: Vec<CapabilityJson>,
}

/// A capability.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CapabilityJson {
    /// Its code (IANA).
    pub code: u8,
    /// Its name; null: none that is known here.
    pub name: Option<String>,
    /// What it says, in words, or hexadecimal digits where its meaning is not known; empty: no more than that it is there.
    pub value: String,
}

/// What else of a session is configured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SettingsJson {
    /// The BGPFilters of its BGPPeer, in order; empty: the default policy.
    pub filters: Vec<String>,
    /// Whose address is the next hop of what the peer is told: `Auto`, `Self` or `Keep`.
    pub next_hop_mode: NextHopMode,
    /// Our end of the session; null: the kernel's route to the peer says.
    pub source_address: Option<IpAddr>,
    /// Whether next hops of the peer may lie behind a gateway, as its BGPPeer says.
    pub ebgp_multihop: bool,
    /// How often our own AS may occur in an AS path of the peer's.
    #[serde(rename = "numAllowedLocalASNumbers")]
    pub num_allowed_local_as_numbers: u8,
    /// Whether routes with a set in their AS path are taken and told.
    #[serde(rename = "allowASSets")]
    pub allow_as_sets: bool,
    /// Whether the peer is told ours in place of its own AS.
    pub as_override: bool,
    /// Whether private AS numbers are taken out of what the peer is told.
    #[serde(rename = "removePrivateAS")]
    pub remove_private_as: bool,
    /// Whether the peer has to say its role.
    pub role_strict: bool,
    /// Several paths of a prefix, as they are offered; null: neither way.
    pub add_path: Option<AddPathSpec>,
    /// Where the peer may have packets dropped.
    #[serde(rename = "blackholeCIDRs")]
    pub blackhole_cidrs: Vec<Cidr>,
    /// Whether it is never dialled.
    pub passive: bool,
    /// Why the session is kept down, as the peer is told; null: it is not.
    pub shutdown: Option<String>,
}

/// Timers in seconds, before a session is negotiated; 0: it never expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfiguredTimersJson {
    /// What OPEN proposes.
    pub hold_time: u64,
    /// Between two KEEPALIVEs; null: a third of the hold time.
    pub keepalive_time: Option<u64>,
    /// How long the peer may take nothing (RFC 9687); null: by its default.
    pub send_hold_time: Option<u64>,
    /// Between two dials.
    pub connect_retry_time: u64,
}

/// How many messages there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MessagesJson {
    /// To the peer.
    pub sent: MessageCountsJson,
    /// From the peer.
    pub received: MessageCountsJson,
    /// UPDATEs that were malformed and taken for a withdrawal (RFC 7606).
    pub treated_as_withdraw: u64,
    /// Attributes that were malformed and left out (RFC 7606).
    pub attributes_discarded: u64,
    /// Connections of the peer's that were closed at once.
    pub connections_refused: u64,
}

/// Messages of each type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MessageCountsJson {
    /// OPEN
    pub open: u64,
    /// UPDATE
    pub update: u64,
    /// NOTIFICATION
    pub notification: u64,
    /// KEEPALIVE
    pub keepalive: u64,
    /// ROUTE-REFRESH
    pub route_refresh: u64,
}

/// The last NOTIFICATION of either direction; null: there was none since the daemon started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NotificationsJson {
    /// To the peer.
    pub sent: Option<NotificationJson>,
    /// From the peer.
    pub received: Option<NotificationJson>,
}

/// A NOTIFICATION.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NotificationJson {
    /// When.
    pub time: Timestamp,
    /// Its error code.
    pub code: u8,
    /// Its error subcode.
    pub subcode: u8,
    /// What the two mean.
    pub name: String,
    /// Its shutdown communication (RFC 9003).
    pub text: Option<String>,
    /// What its data say beside that, where their shape is known: which NOTIFICATION a Hard Reset carries, which attribute was wrong.
    pub meaning: Option<String>,
    /// Its data, in hexadecimal digits; empty: none.
    pub data: String,
}
