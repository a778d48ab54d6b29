//! The resources of pod addresses: pools and the blocks taken from them.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Cidr, Duration, IPPoolStatus, ObjectCondition, Selector};

/// A range that pods' addresses come from, cut into blocks, or one that Services' come from.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "weft.network",
    version = "v1alpha1",
    kind = "IPPool",
    doc = "A range that addresses of pods, or of Services, come from.",
    plural = "ippools",
    category = "weft",
    status = "IPPoolStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"CIDR","type":"string","jsonPath":".spec.cidr"}"#,
    printcolumn = r#"{"name":"Uses","type":"string","jsonPath":".spec.allowedUses"}"#,
    printcolumn = r#"{"name":"Block","type":"integer","jsonPath":".spec.blockSize"}"#,
    printcolumn = r#"{"name":"Blocks","type":"integer","jsonPath":".status.blocks"}"#,
    printcolumn = r#"{"name":"Of","type":"integer","jsonPath":".status.blocksAtMost"}"#,
    printcolumn = r#"{"name":"Used","type":"integer","jsonPath":".status.addressesUsed"}"#,
    printcolumn = r#"{"name":"Disabled","type":"boolean","jsonPath":".spec.disabled"}"#,
    printcolumn = r#"{"name":"Accepted","type":"string","jsonPath":".status.conditions[?(@.type==\"Accepted\")].status"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IPPoolSpec {
    /// The range. Pools do not overlap.
    pub cidr: Cidr,
    /// Whose addresses come from it: `[Workload]` unless given. Pods and Services have pools of their own, so it names one.
    #[serde(default)]
    #[schemars(length(min = 1, max = 2))]
    pub allowed_uses: Option<Vec<AllowedUse>>,
    /// The prefix length of a block: 26 unless given in IPv4 (20 to 32), 122 in IPv6 (116 to 128). Peers' prefixes
    /// longer than this are accepted only by a filter.
    #[serde(default)]
    pub block_size: Option<u8>,
    /// Take nothing from this pool, and accept no prefix inside it from peers.
    #[serde(default)]
    pub disabled: bool,
    /// Let pods of this pool speak to the outside with their node's address. Other pods, nodes and what
    /// `natOutgoingExclude` lists see the pod's own.
    #[serde(default)]
    pub nat_outgoing: bool,
    /// Keep the blocks of this pool to the cluster: they are announced to other nodes, but to no BGPPeer with a `peerIP`, an
    /// `interface` or a `listenRange`.
    #[serde(default, rename = "disableBGPExport")]
    pub disable_bgp_export: bool,
    /// The Nodes that get blocks of this pool; all unless given.
    #[serde(default)]
    pub node_selector: Option<Selector>,
    /// Keeps the blocks of nodes that stand together in one prefix.
    #[serde(default)]
    pub topology: Option<Topology>,
    /// The Namespaces whose pods or Services get addresses of this pool, and of no pool that is for all; for all unless given. A Namespace
    /// has its name as label `kubernetes.io/metadata.name`.
    #[serde(default)]
    pub namespace_selector: Option<Selector>,
    /// Whether pods or Services get addresses of this pool without asking for it by name.
    #[serde(default)]
    pub assignment_mode: AssignmentMode,
    /// Ranges of the pool whose addresses are given only to who asks for one of them: 256 at most.
    #[serde(default)]
    pub reserved: Vec<Cidr>,
    /// How long an address rests before it is given to another: 30s unless given, 24h at most.
    #[serde(default)]
    pub cooldown: Option<Duration>,
}

/// Which nodes stand together, as those of a rack do, and how large the prefixes are that only such nodes get blocks of. A ToR may then announce
/// the prefix in place of the blocks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Topology {
    /// The label by whose value nodes stand together, such as `topology.kubernetes.io/rack`. Nodes without it stand together too.
    #[schemars(length(min = 1, max = 317))]
    pub node_label: String,
    /// The length of such a prefix: between the pool's and its blocks'.
    pub prefix_length: u8,
}

/// Whose addresses come from a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AllowedUse {
    /// Pods'.
    Workload,
    /// Those of Services of type LoadBalancer.
    LoadBalancer,
}

/// Who gets addresses of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AssignmentMode {
    /// Every pod or Service that the pool is for.
    #[default]
    Automatic,
    /// Only who asks for the pool by name, or for an address in it.
    Manual,
}

impl IPPoolSpec {
    /// Whether addresses for this use come from it.
    #[must_use]
    pub fn is_for(&self, purpose: AllowedUse) -> bool {
        match &self.allowed_uses {
            Some(uses) => uses.contains(&purpose),
            None => purpose == AllowedUse::Workload,
        }
    }

    /// How long an address rests where no pool says otherwise.
    pub const COOLDOWN: std::time::Duration = std::time::Duration::from_secs(30);

    /// How long an address of this pool rests.
    #[must_use]
    pub fn cooldown(&self) -> std::time::Duration {
        self.cooldown.map_or(Self::COOLDOWN, |cooldown| cooldown.0)
    }

    /// The prefix length of this pool's blocks.
    #[must_use]
    pub fn block_len(&self) -> u8 {
        self.block_size.unwrap_or(match self.cidr.net() {
            ipnet::IpNet::V4(_) => 26,
            ipnet::IpNet::V6(_) => 122,
        })
    }
}

/// One block of addresses that belongs to one node. A node with IPBlocks does not use its `podCIDRs`.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "weft.network",
    version = "v1alpha1",
    kind = "IPBlock",
    doc = "A block of addresses that belongs to one node.",
    plural = "ipblocks",
    category = "weft",
    status = "IPBlockStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"CIDR","type":"string","jsonPath":".spec.cidr"}"#,
    printcolumn = r#"{"name":"Node","type":"string","jsonPath":".spec.node"}"#,
    printcolumn = r#"{"name":"Closed","type":"boolean","jsonPath":".spec.closed"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IPBlockSpec {
    /// The block. Blocks do not overlap.
    pub cidr: Cidr,
    /// The name of the Node that it belongs to.
    pub node: String,
    /// Give no new pod an address of it. It stays announced, and its pods keep theirs.
    #[serde(default)]
    pub closed: bool,
}

/// What became of a block.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IPBlockStatus {
    /// The `metadata.generation` of the closed IPBlock that the node has given up: no pod has an address of it, and none gets one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub released_generation: Option<i64>,
    /// `Accepted` and `Programmed`.
    #[serde(default)]
    pub conditions: Vec<ObjectCondition>,
}
