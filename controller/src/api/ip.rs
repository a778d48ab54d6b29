//! The resources of pod addresses: pools and the blocks taken from them.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Cidr, Duration, Selector};

/// A range that pods' addresses come from, cut into blocks.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "weft.network",
    version = "v1alpha1",
    kind = "IPPool",
    doc = "A range that pods' addresses come from.",
    plural = "ippools",
    category = "weft",
    derive = "PartialEq",
    printcolumn = r#"{"name":"CIDR","type":"string","jsonPath":".spec.cidr"}"#,
    printcolumn = r#"{"name":"Block","type":"integer","jsonPath":".spec.blockSize"}"#,
    printcolumn = r#"{"name":"Disabled","type":"boolean","jsonPath":".spec.disabled"}"#
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IPPoolSpec {
    /// The range. Pools do not overlap.
    pub cidr: Cidr,
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
    /// Keep the blocks of this pool to the cluster: they are announced to other nodes, but to no BGPPeer with a `peerIP`.
    #[serde(default, rename = "disableBGPExport")]
    pub disable_bgp_export: bool,
    /// The Namespaces whose pods get addresses of this pool, and of no pool that is for all; for all unless given. A Namespace
    /// has its name as label `kubernetes.io/metadata.name`.
    #[serde(default)]
    pub namespace_selector: Option<Selector>,
    /// Whether pods get addresses of this pool without asking for it by name.
    #[serde(default)]
    pub assignment_mode: AssignmentMode,
    /// Ranges of the pool whose addresses are given only to who asks for one of them: 256 at most.
    #[serde(default)]
    pub reserved: Vec<Cidr>,
    /// How long an address rests before it is given to another pod: 30s unless given, 24h at most.
    #[serde(default)]
    pub cooldown: Option<Duration>,
}

/// Who gets addresses of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AssignmentMode {
    /// Every pod that the pool is for.
    #[default]
    Automatic,
    /// Only who asks for the pool by name, or for an address in it.
    Manual,
}

impl IPPoolSpec {
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
    derive = "PartialEq",
    printcolumn = r#"{"name":"CIDR","type":"string","jsonPath":".spec.cidr"}"#,
    printcolumn = r#"{"name":"Node","type":"string","jsonPath":".spec.node"}"#
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IPBlockSpec {
    /// The block. Blocks do not overlap.
    pub cidr: Cidr,
    /// The name of the Node that it belongs to.
    pub node: String,
}
