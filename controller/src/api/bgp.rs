//! The resources of BGP: configuration, peers and filters.

use std::collections::BTreeSet;
use std::num::{NonZeroU8, NonZeroU16, NonZeroU32};

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use weft_bgp::types::Family;
use weft_bgp::wire::notification::Notification;

use super::{
    AS_PATH_MAX, AsNumber, BGPPeerStatus, BmpStation, COMMUNITIES_MAX, Cidr, ClusterId, CommunityMatch,
    Duration, FilterOperation, InterfaceName, MrtSpec, NamedCommunity, OPERATIONS_MAX, ObjectStatus,
    PeerAddress, PeerAs, PrefixAdvertisement, ResilientNextHopsSpec, RouterId, SERVICE_RANGES_MAX,
    STATIONS_MAX, Selector, ServiceAggregation, ServiceRange, SourceAddress,
};

/// The longest name of an object (RFC 1123 subdomain).
const NAME_MAX: usize = 253;

/// How many dynamic peers one range may have on a node: each has a connection, and there may be 4096.
pub const LISTEN_LIMIT_MAX: u16 = 2000;

/// How many prefixes a BGPPeer may have `blackholeCIDRs` for.
pub const BLACKHOLE_CIDRS_MAX: usize = 256;

/// What holds for a node as a whole. The object `default` holds for every node; `node.NAME` overrides it, field by field,
/// for one.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "weft.network",
    version = "v1alpha1",
    kind = "BGPConfiguration",
    doc = "What holds for a node, or for all.",
    plural = "bgpconfigurations",
    shortname = "bgpconfig",
    category = "weft",
    status = "ObjectStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"AS","type":"string","jsonPath":".spec.asNumber"}"#,
    printcolumn = r#"{"name":"Mesh","type":"boolean","jsonPath":".spec.nodeToNodeMeshEnabled"}"#,
    printcolumn = r#"{"name":"Accepted","type":"string","jsonPath":".status.conditions[?(@.type==\"Accepted\")].status"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BGPConfigurationSpec {
    /// The node's AS; 64512 unless given.
    #[serde(default)]
    pub as_number: Option<AsNumber>,
    /// Whether the node has a session with every other node; true unless given. A Node labelled
    /// `weft.network/mesh: "false"` has none either.
    #[serde(default)]
    pub node_to_node_mesh_enabled: Option<bool>,
    /// The TCP port to listen on; 179 unless given.
    #[serde(default)]
    pub listen_port: Option<NonZeroU16>,
    /// The BGP identifier; unless given the IPv4 node address, else a hash of the node's name.
    #[serde(default, rename = "routerID")]
    pub router_id: Option<RouterId>,
    /// The cluster that the node reflects routes for (RFC 4456), if it has route reflector clients; the BGP identifier unless
    /// given. Reflectors that share it do without each other's routes, so that every client needs sessions with all of them.
    #[serde(default, rename = "routeReflectorClusterID")]
    pub route_reflector_cluster_id: Option<ClusterId>,
    /// The password that the sessions of the node-to-node mesh are signed with (TCP-MD5, RFC 2385), in `default` only; none unless given.
    /// Sessions of BGPPeers have their own.
    #[serde(default)]
    pub node_mesh_password: Option<PasswordSource>,
    /// The keys that the sessions of the node-to-node mesh are signed with (TCP-AO, RFC 5925), in `default` only and not beside
    /// `nodeMeshPassword`; none unless given. The IDs of a key are the same, as every node is at both ends.
    #[serde(default, rename = "nodeMeshTCPAO")]
    pub node_mesh_tcp_ao: Option<TcpAoSpec>,
    /// How many prefixes another node may tell this one on a session of the node-to-node mesh; any number unless given. Sessions of BGPPeers
    /// have their own limit.
    #[serde(default)]
    pub node_mesh_max_prefixes: Option<MaxPrefixesSpec>,
    /// How to choose the node address; unless given the first `InternalIP` of the Node that is on a local interface.
    #[serde(default)]
    pub node_address: Option<NodeAddress>,
    /// Whether to announce the node address as a /32 or /128; `Auto` unless given.
    #[serde(default)]
    pub advertise_node_address: Option<AdvertiseNodeAddress>,
    /// The hold time proposed to peers: 0, or 3 s to 65535 s; 90s unless given.
    #[serde(default)]
    pub hold_time: Option<Duration>,
    /// The time between KEEPALIVEs; a third of the negotiated hold time unless given, and never more.
    #[serde(default)]
    pub keepalive_time: Option<Duration>,
    /// How long a peer may take nothing of what it is sent before the session ends (RFC 9687): 0s for ever, 1s to 24h, and no less than the
    /// hold time; unless given 8m, or twice the hold time if that is longer.
    #[serde(default)]
    pub send_hold_time: Option<Duration>,
    /// How many equal paths are used at once: paths of as many next hops; 16 unless given.
    #[serde(default)]
    pub max_paths: Option<NonZeroU16>,
    /// The metric of learned routes in the kernel; 64 unless given.
    #[serde(default)]
    pub route_metric: Option<u32>,
    /// Whether learned routes go into the kernel; true unless given. False for a route server or reflector that packets do not pass: next hops
    /// need not resolve then, and are told as they were learned.
    #[serde(default)]
    pub install_routes: Option<bool>,
    /// Resilient groups of next hops: while the next hops of a route change, flows stay on theirs. Off unless given.
    #[serde(default)]
    pub resilient_next_hops: Option<ResilientNextHopsSpec>,
    /// Graceful restart (RFC 4724).
    #[serde(default)]
    pub graceful_restart: Option<GracefulRestartSpec>,
    /// The BFDProfile of every session whose BGPPeer names none, those of the node-to-node mesh among them; none unless given, or where it is
    /// empty.
    #[serde(default)]
    #[schemars(length(max = NAME_MAX))]
    pub bfd_profile: Option<String>,
    /// The monitoring stations that are told by BMP (RFC 7854) what the RIBs hold: 4 at most; none unless given.
    #[serde(default)]
    #[schemars(length(max = STATIONS_MAX))]
    pub bmp: Option<Vec<BmpStation>>,
    /// How long a node that drains announces what it has as the last choice before it withdraws it: 1h at most; 30s unless given.
    #[serde(default)]
    pub drain_time: Option<Duration>,
    /// Whether to set the kernel's forwarding settings, or only report them; true unless given.
    #[serde(default)]
    pub manage_sysctls: Option<bool>,
    /// The MTU of pod interfaces; unless given the smallest of the interfaces that carry BGP sessions or a default route.
    #[serde(default)]
    pub mtu: Option<u32>,
    /// Destinations outside the cluster that see pods' own addresses although their IPPool has `natOutgoing`: 256 at
    /// most; none unless given.
    #[serde(default)]
    pub nat_outgoing_exclude: Option<Vec<Cidr>>,
    /// Where nodes' blocks come from, in `default` only; `Auto` unless given.
    #[serde(default, rename = "podCIDRSource")]
    pub pod_cidr_source: Option<PodCidrSource>,
    /// The ranges of Services' ClusterIPs that peers are told; none unless given.
    #[serde(default, rename = "serviceClusterIPs")]
    #[schemars(length(max = SERVICE_RANGES_MAX))]
    pub service_cluster_ips: Option<Vec<ServiceRange>>,
    /// The ranges of Services' `externalIPs` that peers are told; none unless given.
    #[serde(default, rename = "serviceExternalIPs")]
    #[schemars(length(max = SERVICE_RANGES_MAX))]
    pub service_external_ips: Option<Vec<ServiceRange>>,
    /// The ranges of LoadBalancer Services' addresses that peers are told; none unless given.
    #[serde(default, rename = "serviceLoadBalancerIPs")]
    #[schemars(length(max = SERVICE_RANGES_MAX))]
    pub service_load_balancer_ips: Option<Vec<ServiceRange>>,
    /// Whether those ranges are announced whole; `Enabled` unless given.
    #[serde(default)]
    pub service_aggregation: Option<ServiceAggregation>,
    /// How long a Service must have been answered on the node before peers are told: 10m at most; 1s unless given. It is
    /// withdrawn at once.
    #[serde(default)]
    pub service_settle_time: Option<Duration>,
    /// Names for communities, in `default` only, to be written in their place in BGPFilters and `prefixAdvertisements`.
    #[serde(default)]
    #[schemars(length(max = COMMUNITIES_MAX))]
    pub communities: Option<Vec<NamedCommunity>>,
    /// Communities for the prefixes that the node originates, by where these lie.
    #[serde(default)]
    #[schemars(length(max = COMMUNITIES_MAX))]
    pub prefix_advertisements: Option<Vec<PrefixAdvertisement>>,
    /// What of BGP is written to MRT files (RFC 6396); nothing unless given. That of `node.NAME` stands in place of the default one's.
    #[serde(default)]
    pub mrt: Option<MrtSpec>,
}

/// Where the blocks of a node come from. IPBlocks that people write count in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PodCidrSource {
    /// Its `Node.spec.podCIDRs` if it has some, else weft-controller gives it blocks of the IPPools.
    #[default]
    Auto,
    /// Its `Node.spec.podCIDRs`: the cluster gives them.
    Node,
    /// weft-controller gives it blocks of the IPPools. Its `Node.spec.podCIDRs` mean nothing.
    IPPool,
}

/// How the node address is chosen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum NodeAddress {
    /// The first local address inside this prefix; the other family is chosen as if nothing were given.
    Cidr(Cidr),
    /// The first global address of each family on this interface.
    Interface(InterfaceName),
}

/// Whether a node announces its own address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AdvertiseNodeAddress {
    /// If it is on `lo`: then no link's prefix leads to it.
    #[default]
    Auto,
    /// Yes.
    Always,
    /// No.
    Never,
}

/// Graceful restart (RFC 4724).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GracefulRestartSpec {
    /// Whether to offer it; true unless given.
    #[serde(default)]
    pub enabled: Option<bool>,
    /// How long peers should keep our routes while we are away: 1 s to 4095 s; 120s unless given.
    #[serde(default)]
    pub restart_time: Option<Duration>,
    /// Whether a peer of which nothing is heard for the hold time restarts, if it has RFC 8538, so that its routes are kept; else it is
    /// dead, and they go at once. False unless given.
    #[serde(default)]
    pub on_hold_timer_expiry: Option<bool>,
    /// How long routes are kept beyond the restart time, as the last choice (RFC 9494): ours by peers, and a peer's by us for as long as it
    /// asks for, this long at most. 1 s to 16777215 s, or 0s: not at all, as unless given.
    #[serde(default)]
    pub long_lived_time: Option<Duration>,
}

/// A BGP session, or as many as the selectors say. Exactly one of `peerIP`, `peerSelector`, `interface` and `listenRange` is given.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "weft.network",
    version = "v1alpha1",
    kind = "BGPPeer",
    doc = "A BGP session, or as many as its selectors say.",
    plural = "bgppeers",
    category = "weft",
    status = "BGPPeerStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Peer","type":"string","jsonPath":".spec.peerIP"}"#,
    printcolumn = r#"{"name":"Interface","type":"string","jsonPath":".spec.interface"}"#,
    printcolumn = r#"{"name":"Range","type":"string","jsonPath":".spec.listenRange","priority":1}"#,
    printcolumn = r#"{"name":"AS","type":"string","jsonPath":".spec.asNumber"}"#,
    printcolumn = r#"{"name":"Up","type":"integer","jsonPath":".status.sessions.up"}"#,
    printcolumn = r#"{"name":"Wanted","type":"integer","jsonPath":".status.sessions.wanted"}"#,
    printcolumn = r#"{"name":"Nodes","type":"string","jsonPath":".spec.nodeSelector","priority":1}"#,
    printcolumn = r#"{"name":"Accepted","type":"string","jsonPath":".status.conditions[?(@.type==\"Accepted\")].status"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BGPPeerSpec {
    /// Which nodes have this peer; every node unless given.
    #[serde(default)]
    pub node_selector: Option<Selector>,
    /// The peer's address.
    #[serde(default, rename = "peerIP")]
    pub peer_ip: Option<PeerAddress>,
    /// The peers are the nodes that this selects. Each pair has one session, set up on both ends; a session of the
    /// node-to-node mesh gives way to it.
    #[serde(default)]
    pub peer_selector: Option<Selector>,
    /// The peer is the router at the other end of this interface's link, found by router advertisements: unnumbered peering,
    /// over link-local addresses.
    #[serde(default)]
    pub interface: Option<InterfaceName>,
    /// Whoever connects from within this prefix, and passes, is a peer while its session or its routes last; nobody is dialled. A peer
    /// that is named otherwise is none of them, and of two ranges the longer one counts. `ttlSecurity` and a `password` keep others out.
    #[serde(default)]
    pub listen_range: Option<Cidr>,
    /// With `listenRange`, how many peers there may be of it at one time, on each node: 1 to 2000; 100 unless given.
    #[serde(default)]
    #[schemars(range(min = 1, max = LISTEN_LIMIT_MAX))]
    pub listen_limit: Option<NonZeroU16>,
    /// The peer's AS. Needed with `peerIP`, `interface` and `listenRange`; with `peerSelector` it is that of each node's own configuration.
    #[serde(default)]
    pub as_number: Option<PeerAs>,
    /// Our AS on this session, in place of the node's own.
    #[serde(default, rename = "localASNumber")]
    pub local_as_number: Option<AsNumber>,
    /// BGPFilters, in order. They replace the default import and export; what matches none is rejected. A direction and
    /// family for which the filters have no rule keeps the default.
    #[serde(default)]
    pub filters: Vec<String>,
    /// The hold time proposed: 0, or 3 s to 65535 s; the BGPConfiguration's unless given.
    #[serde(default)]
    pub hold_time: Option<Duration>,
    /// The time between KEEPALIVEs; the BGPConfiguration's unless given.
    #[serde(default)]
    pub keepalive_time: Option<Duration>,
    /// How long the peer may take nothing of what it is sent before the session ends (RFC 9687); the BGPConfiguration's unless given.
    #[serde(default)]
    pub send_hold_time: Option<Duration>,
    /// The time between two dials, or up to a quarter less: 1s to 1h; 5s unless given. Not with `passive` or `listenRange`.
    #[serde(default)]
    pub connect_retry_time: Option<Duration>,
    /// Whether next hops of this eBGP peer may lie behind a gateway.
    #[serde(default)]
    pub ebgp_multihop: bool,
    /// The password that the session is signed with (TCP-MD5, RFC 2385); none unless given.
    #[serde(default)]
    pub password: Option<PasswordSource>,
    /// The keys that the session is signed with (TCP-AO, RFC 5925); none unless given. Not beside `password`.
    #[serde(default, rename = "tcpAO")]
    pub tcp_ao: Option<TcpAoSpec>,
    /// How many hops away the peer is at most, 1 to 254; 1: on the link (GTSM, RFC 5082). We send with a TTL of 255, and what comes with less
    /// than 256 minus the hops is dropped unread, so that the peer must send with 255 too. Unless given the TTL is not looked at. Not with
    /// `ebgpMultihop`, which 2 and more imply: next hops may lie behind a gateway.
    #[serde(default)]
    #[schemars(range(min = 1, max = 254))]
    pub ttl_security: Option<NonZeroU8>,
    /// How many prefixes the peer may tell; as many as it likes unless given.
    #[serde(default)]
    pub max_prefixes: Option<MaxPrefixesSpec>,
    /// Where the peer may have packets dropped here: a route of its own with the community BLACKHOLE (RFC 7999), of these prefixes or inside
    /// them, has them dropped by the kernel and is told to nobody; with that community and elsewhere it is rejected. Nowhere unless given,
    /// and then the community means nothing. Not with `peerSelector`.
    #[serde(default, rename = "blackholeCIDRs")]
    #[schemars(length(max = BLACKHOLE_CIDRS_MAX))]
    pub blackhole_cidrs: Vec<Cidr>,
    /// Whose address is the next hop of what we announce; `Auto` unless given.
    #[serde(default)]
    pub next_hop_mode: Option<NextHopMode>,
    /// Our end of the session; `None` unless given with `peerIP`, the node address with `peerSelector`. Not with `interface`
    /// or `listenRange`.
    #[serde(default)]
    pub source_address: Option<SourceAddress>,
    /// Whether the nodes of `nodeSelector` reflect routes to this peer, and the peer's to their other iBGP peers (RFC 4456). With
    /// `peerSelector` the nodes that it selects are their clients.
    #[serde(default)]
    pub route_reflector_client: bool,
    /// Several paths of one prefix on this session (RFC 7911); one, the best, unless given. Each end tells several only if the other takes them.
    /// With `peerSelector` it holds for both ends.
    #[serde(default)]
    pub add_path: Option<AddPathSpec>,
    /// What our AS is to the peer's (RFC 9234). The peer must be what belongs to it, if it says so in OPEN; routes that go up or across
    /// although they were told to customers only are neither believed nor announced. Only with an eBGP `peerIP`, `interface` or
    /// `listenRange`.
    #[serde(default)]
    pub role: Option<PeerRole>,
    /// Whether the session comes up only if the peer says its own role; needs `role`.
    #[serde(default)]
    pub role_strict: bool,
    /// How often our own AS may occur in a received AS path; 0 unless given. Nodes that share an AS and reach each other
    /// over an eBGP peer need 1.
    #[serde(default, rename = "numAllowedLocalASNumbers")]
    pub num_allowed_local_as_numbers: Option<u8>,
    /// Whether routes whose AS path has an AS_SET or AS_CONFED_SET are taken from this peer, and told to it. RFC 9774 forbids it: without, such
    /// a route counts as withdrawn.
    #[serde(default, rename = "allowASSets")]
    pub allow_as_sets: bool,
    /// Whether this eBGP peer is told our AS wherever its own stands in an AS path. Sites of one AS that hear of each other through us
    /// take each other's routes then; a loop through that AS is not seen any more.
    #[serde(default)]
    pub as_override: bool,
    /// Whether private AS numbers (RFC 6996) are taken out of the AS paths that this eBGP peer is told. Our own in front stays, and the
    /// peer's own does, so that it sees loops.
    #[serde(default, rename = "removePrivateAS")]
    pub remove_private_as: bool,
    /// Graceful restart; the BGPConfiguration's unless given.
    #[serde(default)]
    pub graceful_restart: Option<GracefulRestartSpec>,
    /// The BFDProfile by which BFD runs with the peer; the BGPConfiguration's unless given. An empty one: no BFD.
    #[serde(default)]
    #[schemars(length(max = NAME_MAX))]
    pub bfd_profile: Option<String>,
    /// The families offered, `ipv4-unicast` and `ipv6-unicast`; both unless given. Only a family of which the node has an
    /// address is offered.
    #[serde(default)]
    #[schemars(with = "Option<Vec<FamilySchema>>")]
    pub families: Option<BTreeSet<Family>>,
    /// Never dial, only accept; false unless given, but with `listenRange` always true.
    #[serde(default)]
    pub passive: Option<bool>,
    /// Withdraw everything, end the session and keep it down.
    #[serde(default)]
    pub shutdown: bool,
    /// What the peer's operator is told of `shutdown` (RFC 9003), on one line: 255 octets of UTF-8 at most; the name of this object unless
    /// given. Needs `shutdown`.
    #[serde(default)]
    #[schemars(length(min = 1, max = Notification::TEXT_MAX))]
    pub shutdown_message: Option<String>,
}

/// How many paths of a prefix a peer may be told at most.
pub const SEND_MAX: u8 = 64;

/// Several paths of one prefix (RFC 7911).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AddPathSpec {
    /// Whether the peer may tell several paths of a prefix: 64 at most.
    #[serde(default)]
    pub receive: bool,
    /// Which paths of a prefix the peer is told; the best alone unless given.
    #[serde(default)]
    pub send: Option<AddPathSend>,
    /// How many paths of a prefix the peer is told at most, the better ones first: 2 to 64; 64 unless given. Needs `send`.
    #[serde(default)]
    #[schemars(range(min = 2, max = SEND_MAX))]
    pub send_max: Option<u8>,
}

/// Which paths of a prefix a peer is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AddPathSend {
    /// The best, and those that are used beside it.
    Multipath,
    /// All that can be used.
    All,
}

/// How many prefixes a peer may tell. Each family is counted by itself, and what filters reject counts too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MaxPrefixesSpec {
    /// So many may be, of each family.
    pub limit: NonZeroU32,
    /// From which part of the limit on a warning is given, in percent: 1 to 100; 75 unless given.
    #[serde(default)]
    #[schemars(range(min = 1, max = 100))]
    pub warning_threshold: Option<u8>,
    /// What becomes of a session on which more are told; `Stop` unless given.
    #[serde(default)]
    pub action: Option<MaxPrefixesAction>,
    /// With `Restart`, how long the session stays down: 1s to 24h.
    #[serde(default)]
    pub restart_after: Option<Duration>,
}

/// What becomes of a session on which too many prefixes are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MaxPrefixesAction {
    /// It goes on, with a warning.
    Warn,
    /// It ends, and stays down until the limit changes.
    #[default]
    Stop,
    /// It ends, and is begun again after `restartAfter`.
    Restart,
}

/// Where a password is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PasswordSource {
    /// A key of a Secret, in the Namespace that weftd runs in.
    pub secret_key_ref: SecretKeyRef,
}

/// The keys of TCP-AO (RFC 5925).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TcpAoSpec {
    /// All keys. We open connections with the first and ask the peer to sign with it, and sign with another if the peer asks for that. While
    /// one key stays, the others change without an end of the session.
    #[schemars(length(min = 1, max = 8))]
    pub keys: Vec<TcpAoKey>,
}

/// A key of TCP-AO: a master key tuple (RFC 5925 section 3.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TcpAoKey {
    /// The KeyID of what we sign with it: 0 to 255, in no other key. It is the other end's `receiveID`.
    #[serde(rename = "sendID")]
    pub send_id: u8,
    /// The KeyID of what the peer signs with it: 0 to 255, in no other key. It is the other end's `sendID`.
    #[serde(rename = "receiveID")]
    pub receive_id: u8,
    /// How segments are signed; `HMAC-SHA-1-96` unless given.
    #[serde(default)]
    pub algorithm: TcpAoAlgorithm,
    /// The master key: a key of a Secret, in the Namespace that weftd runs in.
    pub secret_key_ref: SecretKeyRef,
}

/// The algorithms that every TCP-AO has (RFC 5926).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TcpAoAlgorithm {
    /// SHA-1, with a MAC of 96 bits.
    #[default]
    #[serde(rename = "HMAC-SHA-1-96")]
    HmacSha1,
    /// AES, with a MAC of 96 bits.
    #[serde(rename = "AES-128-CMAC-96")]
    AesCmac,
}

/// A value of a Secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretKeyRef {
    /// The name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key of the value in it: 1 to 80 octets.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// The schema of [`Family`], which knows nothing of schemas itself.
#[derive(JsonSchema)]
#[schemars(inline)]
enum FamilySchema {
    #[schemars(rename = "ipv4-unicast")]
    #[expect(dead_code, reason = "only its schema is used")]
    Ipv4Unicast,
    #[schemars(rename = "ipv6-unicast")]
    #[expect(dead_code, reason = "only its schema is used")]
    Ipv6Unicast,
}

/// What our AS is to a peer's (RFC 9234).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PeerRole {
    /// Its provider.
    Provider,
    /// Its customer.
    Customer,
    /// A peer: each tells the other its own and its customers' routes.
    Peer,
    /// Its route server.
    Rs,
    /// A client of the route server that it is.
    RsClient,
}

/// Whose address is the next hop of what we announce.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NextHopMode {
    /// RFC 4271 section 5.1.3: ours on eBGP and for what we originate, as learned on iBGP. With `installRoutes: false`, `Keep`.
    #[default]
    Auto,
    /// Ours, always.
    #[serde(rename = "Self")]
    Own,
    /// As learned, on eBGP too.
    Keep,
}

/// How many rules a BGPFilter may have for one direction and family.
pub const FILTER_RULES_MAX: usize = 1024;

/// An ordered list of rules for each direction and family; the first that matches decides.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "weft.network",
    version = "v1alpha1",
    kind = "BGPFilter",
    doc = "What is believed of peers, and what they are told.",
    plural = "bgpfilters",
    category = "weft",
    status = "ObjectStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Accepted","type":"string","jsonPath":".status.conditions[?(@.type==\"Accepted\")].status"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BGPFilterSpec {
    /// What is believed of the peer's IPv4 routes.
    #[serde(default)]
    #[schemars(length(max = FILTER_RULES_MAX))]
    pub import_v4: Vec<BGPFilterRule>,
    /// Which IPv4 routes the peer is told.
    #[serde(default)]
    #[schemars(length(max = FILTER_RULES_MAX))]
    pub export_v4: Vec<BGPFilterRule>,
    /// What is believed of the peer's IPv6 routes.
    #[serde(default)]
    #[schemars(length(max = FILTER_RULES_MAX))]
    pub import_v6: Vec<BGPFilterRule>,
    /// Which IPv6 routes the peer is told.
    #[serde(default)]
    #[schemars(length(max = FILTER_RULES_MAX))]
    pub export_v6: Vec<BGPFilterRule>,
}

/// One rule: it matches where all of its conditions hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BGPFilterRule {
    /// The prefix that `matchOperator` compares with.
    #[serde(default)]
    pub cidr: Option<Cidr>,
    /// How the route's prefix compares with `cidr`. Both are given, or neither.
    #[serde(default)]
    pub match_operator: Option<MatchOperator>,
    /// Bounds on the length of the route's prefix; needs `cidr`.
    #[serde(default)]
    pub prefix_length: Option<PrefixLength>,
    /// Communities that the route carries.
    #[serde(default)]
    pub communities: Option<CommunityMatch>,
    /// What the route's AS path begins with: on import the peer's AS first. That of a route of our own is empty. An empty list is none.
    #[serde(default)]
    #[schemars(length(max = AS_PATH_MAX))]
    pub as_path_prefix: Option<Vec<AsNumber>>,
    /// Where the route comes from. An export rule that accepts without naming a source accepts only what the node itself
    /// originates: transit is opened by `RemotePeers` alone.
    #[serde(default)]
    pub source: Option<Source>,
    /// The kind of session that the filter stands on.
    #[serde(default)]
    pub peer_type: Option<FilterPeerType>,
    /// What becomes of the route.
    pub action: Action,
    /// What is done to the attributes of a route that is accepted, in order.
    #[serde(default)]
    #[schemars(length(max = OPERATIONS_MAX))]
    pub operations: Vec<FilterOperation>,
}

/// How a route's prefix compares with a rule's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MatchOperator {
    /// It is the same prefix.
    Equal,
    /// It is another prefix.
    NotEqual,
    /// It is the same or inside.
    In,
    /// It is neither the same nor inside.
    NotIn,
}

/// Bounds on a prefix length, both inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PrefixLength {
    /// The shortest; that of `cidr` unless given.
    #[serde(default)]
    pub min: Option<u8>,
    /// The longest; 32 or 128 unless given.
    #[serde(default)]
    pub max: Option<u8>,
}

/// Where a route comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Source {
    /// A peer announced it.
    RemotePeers,
}

/// The kind of session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FilterPeerType {
    /// Across an AS border.
    #[serde(rename = "eBGP")]
    External,
    /// Inside one AS.
    #[serde(rename = "iBGP")]
    Internal,
}

/// What becomes of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Action {
    /// It passes.
    Accept,
    /// It stops here.
    Reject,
}
