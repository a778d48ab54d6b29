//! The resources of pod addresses: pools and the blocks taken from them.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Cidr;

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
}

impl IPPoolSpec {
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
