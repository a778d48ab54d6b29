//! The JSON of the socket, used by the daemon and the command line alike.
//!
//! Stable: an absent value is `null`, never missing; keys may be added, not renamed; times are RFC 3339 in UTC.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use weft_bgp::session::State;
use weft_bgp::types::{Family, Reason};

use super::ServicesStatusJson;
use super::ipam::IpamBlockJson;
use super::peer_detail::PeerDetailJson;

/// One BGP peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerJson {
    /// The BGPPeer that asks for it; a session of the node-to-node mesh is named `mesh:NODE`.
    pub name: String,
    /// Its address, with the port where that is not 179, or `%` and the interface whose link it is on.
    pub peer: String,
    /// The range that it has connected from, where that alone makes it a peer: it is a dynamic peer; null: it is named.
    #[serde(default)]
    pub listen_range: Option<IpNet>,
    /// Its link-local address, where it is known by its interface and was found.
    #[serde(default)]
    pub neighbour: Option<Ipv6Addr>,
    /// Its AS, once it is known: configured, or told in OPEN.
    #[serde(rename = "remoteAS")]
    pub remote_as: Option<u32>,
    /// The AS that we are on this session.
    #[serde(rename = "localAS")]
    pub local_as: u32,
    /// The state of the FSM.
    pub state: State,
    /// The timers of the Established session.
    #[serde(default)]
    pub timers: Option<TimersJson>,
    /// Whether it is a route reflector client of ours (RFC 4456).
    pub route_reflector_client: bool,
    /// What our AS and the peer's are to each other (RFC 9234); null: no role is configured.
    #[serde(default)]
    pub role: Option<RoleJson>,
    /// What was agreed on in OPEN with the Established session.
    #[serde(default)]
    pub capabilities: Option<CapabilitiesJson>,
    /// Since when it is in that state.
    pub since: Option<Timestamp>,
    /// The families offered or, once Established, agreed on.
    pub families: Vec<Family>,
    /// Prefixes received, all families.
    pub received: u64,
    /// Of those, accepted.
    pub accepted: u64,
    /// Prefixes advertised to it.
    pub advertised: u64,
    /// The same by family.
    pub per_family: BTreeMap<Family, FamilyJson>,
    /// Its BFD session.
    pub bfd: Option<BfdJson>,
    /// Graceful restart, once agreed on.
    pub graceful_restart: Option<GracefulRestartJson>,
    /// How both ends know each other beside their addresses; null: not at all.
    #[serde(default)]
    pub authentication: Option<AuthenticationJson>,
    /// How many hops away it is at most, where that is checked (GTSM).
    #[serde(default)]
    pub ttl_security: Option<u8>,
    /// How many prefixes it may tell; null: as many as it likes.
    #[serde(default)]
    pub max_prefixes: Option<MaxPrefixesJson>,
    /// What went wrong last.
    pub last_error: Option<LastErrorJson>,
    /// What else there is to be known of it.
    #[serde(flatten)]
    pub detail: PeerDetailJson,
}

/// How many prefixes a peer may tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MaxPrefixesJson {
    /// So many may be, of each family.
    pub limit: u32,
    /// From so many on there is a warning.
    pub warning: u32,
    /// Whether there are more, or the session is kept down as there were.
    pub exceeded: bool,
}

/// How both ends of a session know each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuthenticationJson {
    /// TCP-MD5 (RFC 2385).
    TcpMd5,
    /// TCP-AO (RFC 5925).
    TcpAo,
    /// By something that is not to be had, so that the session stays down.
    Unavailable,
}

/// What two ASes are to each other (RFC 9234).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RoleJson {
    /// What ours is: `provider`, `customer`, `peer`, `rs` or `rs-client`.
    pub local: String,
    /// What the peer says that it is; null: it has said nothing.
    pub remote: Option<String>,
}

/// The capabilities that both ends have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CapabilitiesJson {
    /// AS numbers of four octets (RFC 6793).
    #[serde(rename = "fourOctetAS")]
    pub four_octet_as: bool,
    /// IPv4 prefixes with IPv6 next hops (RFC 8950).
    pub extended_next_hop: bool,
    /// ROUTE-REFRESH (RFC 2918).
    pub route_refresh: bool,
    /// A refresh has a beginning and an end (RFC 7313).
    pub enhanced_route_refresh: bool,
    /// Messages of up to 65535 octets (RFC 8654).
    pub extended_messages: bool,
    /// Several paths of one prefix (RFC 7911).
    #[serde(default)]
    pub add_path: AddPathJson,
}

/// The families of which several paths of a prefix are told, by direction (RFC 7911).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AddPathJson {
    /// By the peer.
    pub receive: Vec<Family>,
    /// To the peer.
    pub send: Vec<Family>,
}

/// A session's timers, in seconds; 0: it never expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TimersJson {
    /// How long the peer may be silent: what was agreed on.
    pub hold_time: u64,
    /// Between two KEEPALIVEs.
    pub keepalive_time: u64,
    /// How long the peer may take nothing (RFC 9687).
    pub send_hold_time: u64,
}

/// A peer's prefixes of one family.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FamilyJson {
    /// Received.
    pub received: u64,
    /// Accepted.
    pub accepted: u64,
    /// Advertised.
    pub advertised: u64,
    /// Kept while the peer restarts.
    pub stale: u64,
    /// Of those, long-lived stale (RFC 9494): the last choice.
    #[serde(default)]
    pub long_lived_stale: u64,
    /// Paths refused in this session, as the peer had told 64 of their prefix (RFC 7911), since it was last asked for what there is room for.
    #[serde(default)]
    pub refused_paths: u64,
    /// Routes rejected for a set in their AS path (RFC 9774).
    #[serde(default)]
    pub as_set_routes: u64,
    /// Of those received, how many take no part in the decision, by the code of why not.
    #[serde(default)]
    pub rejected: BTreeMap<String, u64>,
}

/// A BFD session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BfdJson {
    /// Our state, in the words of RFC 5880.
    pub state: String,
    /// Since when; null: there is no session, as nobody is found yet or BFD cannot run.
    pub since: Option<Timestamp>,
    /// Why it is no other, in the words of RFC 5880.
    pub diagnostic: String,
    /// The peer's state, as it was told last.
    pub remote_state: String,
    /// The peer's reason.
    pub remote_diagnostic: String,
    /// Whether it is a multihop session (RFC 5883).
    pub multihop: bool,
    /// The time between two packets of ours before jitter, in milliseconds; null: the peer wants none.
    pub transmit_interval_ms: Option<u64>,
    /// How long the peer may be silent, in milliseconds; null: it is not heard.
    pub detection_time_ms: Option<u64>,
    /// Packets sent.
    pub sent: u64,
    /// Packets received and not discarded.
    pub received: u64,
    /// How often the path failed while the session was Up.
    pub failures: u64,
}

/// Graceful restart with one peer (RFC 4724).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GracefulRestartJson {
    /// What we do for each other.
    pub role: GracefulRestartRole,
    /// Whether the peer is away and its routes are kept.
    pub restarting: bool,
    /// How many of its routes are kept as stale.
    pub stale_routes: u64,
    /// Until when they are kept.
    #[serde(default)]
    pub stale_until: Option<Timestamp>,
    /// Whether a NOTIFICATION but a Hard Reset is a restart too (RFC 8538).
    #[serde(default)]
    pub notification: bool,
    /// For how many seconds the peer's routes are kept beyond its restart time, the longest of its families' (RFC 9494); null: long-lived
    /// graceful restart was not agreed on.
    #[serde(default)]
    pub long_lived_time: Option<u64>,
}

/// Who keeps whose routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GracefulRestartRole {
    /// Only we keep the peer's.
    Helper,
    /// Only the peer keeps ours.
    Restarter,
    /// Each keeps the other's.
    Both,
}

/// The last error of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LastErrorJson {
    /// When.
    pub time: Timestamp,
    /// Who said so.
    pub direction: ErrorDirection,
    /// NOTIFICATION code, if it was one.
    pub code: Option<u8>,
    /// NOTIFICATION subcode.
    pub subcode: Option<u8>,
    /// In words.
    pub text: String,
}

/// Which way an error went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ErrorDirection {
    /// We sent the NOTIFICATION.
    Sent,
    /// The peer sent it.
    Received,
    /// No message: a failure on our side of the wire.
    Local,
}

/// A prefix and its paths.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteJson {
    /// The prefix.
    pub prefix: IpNet,
    /// The index of the best path.
    pub best: Option<usize>,
    /// Whether the kernel forwards by it: our route is installed and none shadows it.
    pub in_kernel: bool,
    /// Every path, best first.
    pub paths: Vec<PathJson>,
}

/// One path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PathJson {
    /// Its next hops.
    pub next_hops: Vec<IpAddr>,
    /// The peer's address or `%interface`; null: our own.
    pub peer: Option<String>,
    /// The path identifier by which the peer tells it or is told it (RFC 7911); null: by none.
    #[serde(default)]
    pub path_id: Option<u32>,
    /// AS_PATH.
    pub as_path: Vec<AsPathElement>,
    /// ORIGIN.
    pub origin: OriginJson,
    /// LOCAL_PREF.
    pub local_pref: Option<u32>,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// Standard communities as `a:b`, large ones as `a:b:c`.
    pub communities: Vec<String>,
    /// Extended communities, as 16 hexadecimal digits.
    pub ext_communities: Vec<String>,
    /// ORIGINATOR_ID: whom a route reflector had it from.
    #[serde(rename = "originatorID")]
    pub originator_id: Option<Ipv4Addr>,
    /// CLUSTER_LIST: the clusters that reflected it, the last one first.
    pub cluster_list: Vec<Ipv4Addr>,
    /// ONLY_TO_CUSTOMER (RFC 9234).
    #[serde(default)]
    pub only_to_customer: Option<u32>,
    /// The prefix of BGP's that its next hop is reached over; null: by the kernel's routes, or not at all.
    #[serde(default)]
    pub next_hop_over: Option<IpNet>,
    /// Whether it took part in the decision.
    pub valid: bool,
    /// Whether it won.
    pub best: bool,
    /// Why it won, lost, or took no part.
    pub reason: Reason,
}

/// A step of an AS path: a number, or a set of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum AsPathElement {
    /// One AS.
    Number(u32),
    /// An AS_SET.
    Set(Vec<u32>),
}

/// ORIGIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OriginJson {
    /// 0
    Igp,
    /// 1
    Egp,
    /// 2
    Incomplete,
}

/// One route of Weft's in the kernel, or one that ought to be there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FibJson {
    /// The prefix.
    pub prefix: IpNet,
    /// Its next hops; none: unreachable by intent, or packets are dropped.
    pub next_hops: Vec<FibNextHopJson>,
    /// Whether the kernel has it over a resilient group: flows stay on their next hop while others come and go.
    #[serde(default)]
    pub resilient: bool,
    /// Whether packets are dropped without a word (RFC 7999).
    #[serde(default)]
    pub blackhole: bool,
    /// The kernel's number of who wrote it: 176 weftd, 177 weft-cni.
    pub protocol: u8,
    /// Its metric (priority).
    pub metric: u32,
    /// `installed`, or what stands in the way.
    pub state: String,
    /// The prefixes of BGP's that its BGP next hops are reached over.
    #[serde(default)]
    pub over: Vec<IpNet>,
}

/// A next hop of a kernel route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FibNextHopJson {
    /// The gateway; null: the destination is on the link.
    pub via: Option<IpAddr>,
    /// The interface.
    pub dev: Option<String>,
    /// Its share in ECMP.
    pub weight: u16,
}

/// How the node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusJson {
    /// The node's name.
    pub node: String,
    /// Whether there is no problem of severity `error`.
    pub ok: bool,
    /// What is wrong, and what to do about it.
    pub problems: Vec<Problem>,
    /// The addresses that the node goes by, IPv4 first, and why these; a family in which none was found has none.
    #[serde(default)]
    pub addresses: Vec<AddressJson>,
    /// Sessions.
    pub peers: PeerCountJson,
    /// The ranges from within which peers may connect, in order.
    #[serde(default)]
    pub listen_ranges: Vec<ListenRangeJson>,
    /// The documents.
    pub config: ConfigStatusJson,
    /// The kernel's routes.
    pub fib: FibStatusJson,
    /// The pods' addresses.
    pub ipam: IpamStatusJson,
    /// What pods sent under addresses that are not theirs; null: not read yet.
    pub spoofed: Option<SpoofedJson>,
    /// What of Services is announced; null: there are no service ranges.
    pub services: Option<ServicesStatusJson>,
    /// How far the node is drained; null: it is not.
    pub drain: Option<DrainJson>,
    /// The MRT files; null: none are asked for.
    #[serde(default)]
    pub mrt: Option<MrtJson>,
}

/// What of BGP is written to MRT files, since the start of weftd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MrtJson {
    /// Where they are.
    pub directory: String,
    /// Messages and changes of state that were written.
    pub records: u64,
    /// Those that were not, as the disk was too slow or full.
    pub dropped: u64,
    /// Tables that were written.
    pub tables: u64,
    /// Those that could not be.
    pub tables_failed: u64,
    /// How many files there are, at the last look.
    pub files: u64,
    /// Their size in octets.
    pub size: u64,
    /// The file that messages are written to at present.
    pub updates_file: Option<String>,
    /// The file of the last table.
    pub table_file: Option<String>,
}

/// A range from within which peers may connect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenRangeJson {
    /// The BGPPeer that has it.
    pub name: String,
    /// The range.
    pub range: IpNet,
    /// How many peers there are of it.
    pub peers: usize,
    /// Of those, how many have an Established session.
    pub established: usize,
    /// How many peers there may be.
    pub limit: u32,
    /// Connections closed at once, since it was configured.
    pub refused: u64,
}

/// An address that a node goes by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AddressJson {
    /// The address.
    pub address: IpAddr,
    /// The interface that has it.
    pub interface: String,
    /// Why it is this one, in a sentence.
    pub reason: String,
}

/// A node that is being drained, or is drained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DrainJson {
    /// How far it is.
    pub phase: DrainPhase,
    /// Since when it is so far; after a restart of weftd, since then.
    pub since: Timestamp,
    /// When the next phase begins; null: there is none.
    pub until: Option<Timestamp>,
    /// Who asks for it.
    pub reason: String,
}

/// How far a node is drained. In order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DrainPhase {
    /// Peers are told that others are better.
    LowPreference,
    /// Peers are told nothing.
    Withdrawn,
    /// The sessions are ended.
    Drained,
}

impl DrainPhase {
    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LowPreference => "low-preference",
            Self::Withdrawn => "withdrawn",
            Self::Drained => "drained",
        }
    }
}

/// Packets with forged sources that were dropped, since the nftables table was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SpoofedJson {
    /// IPv4.
    pub ipv4: u64,
    /// IPv6.
    pub ipv6: u64,
}

/// Sessions, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerCountJson {
    /// Established.
    pub up: usize,
    /// Configured and not shut down.
    pub wanted: usize,
}

/// Whether the documents are good.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigStatusJson {
    /// Whether the documents last read are in force.
    pub ok: bool,
    /// Why not: every error in them.
    pub errors: Vec<DocumentError>,
}

impl ConfigStatusJson {
    /// Whether the errors are those of single objects, of an API: the others are in force. A folder is taken as a whole.
    #[must_use]
    pub fn is_by_object(&self) -> bool {
        self.errors.iter().all(|error| error.file.is_none() && error.object.is_some())
    }
}

/// The kernel's routes, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FibStatusJson {
    /// Routes that ought to be there.
    pub wanted: usize,
    /// Routes that are.
    pub installed: usize,
    /// Routes that the kernel refused.
    pub refused: usize,
    /// Routes hidden by another program's route of better metric.
    pub shadowed: usize,
    /// Routes over which packets are dropped, as peers may have them (RFC 7999).
    #[serde(default)]
    pub blackholes: usize,
    /// Groups of next hops that are resilient.
    #[serde(default)]
    pub resilient_groups: usize,
    /// Repairs since the daemon started.
    pub repaired: u64,
    /// Whether learned routes are kept out (`installRoutes: false`).
    #[serde(default)]
    pub learned_kept_out: bool,
}

/// The pods' addresses, counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IpamStatusJson {
    /// The node's blocks.
    pub blocks: Vec<IpamBlockJson>,
}

/// Something that is wrong with the node or its plan.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// Stable, lower case, hyphens.
    pub code: String,
    /// What is wrong, in a sentence.
    pub text: String,
    /// What would make it right.
    pub remedy: String,
}

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Something that was asked for does not work.
    Error,
    /// All works; it may not go on to.
    Warning,
}

impl Problem {
    /// Something that was asked for does not work.
    pub fn error(code: &str, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { severity: Severity::Error, code: code.into(), text: text.into(), remedy: remedy.into() }
    }

    /// All works, but somebody should know.
    pub fn warning(code: &str, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, code: code.into(), text: text.into(), remedy: remedy.into() }
    }
}

/// An error in a document: where it is, what it is, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DocumentError {
    /// The file's name within its folder; null where the folder itself is at fault.
    pub file: Option<String>,
    /// The line, from 1.
    pub line: Option<usize>,
    /// `Kind/name`.
    pub object: Option<String>,
    /// The path of the field: `spec.importV4[0].cidr`.
    pub field: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub remedy: String,
}

impl std::fmt::Display for DocumentError {
    /// One line: `peers.yaml:12: BGPPeer/tor-a: spec.asNumber: AS 0 is reserved (RFC 7607); use 1 to 4294967294`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(file) = &self.file {
            match self.line {
                Some(line) => write!(f, "{file}:{line}: ")?,
                None => write!(f, "{file}: ")?,
            }
        }
        for part in [&self.object, &self.field].into_iter().flatten() {
            write!(f, "{part}: ")?;
        }
        write!(f, "{}; {}", self.message, self.remedy)
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventJson {
    /// Its number: events are numbered from 1 as they happen, since the daemon started.
    pub seq: u64,
    /// When.
    pub time: Timestamp,
    /// The peer's address, if it concerns one.
    pub peer: Option<String>,
    /// The prefix, if it concerns one.
    #[serde(default)]
    pub prefix: Option<IpNet>,
    /// Stable, lower case, hyphens: `session`, `notification-sent`, `treated-as-withdraw`.
    pub kind: String,
    /// What happened, in a sentence.
    pub text: String,
    /// The bytes in question, in hexadecimal digits.
    pub bytes: Option<String>,
}

/// The program that answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VersionJson {
    /// Its version.
    pub version: String,
}
