//! What became of an object: written by weft-controller.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::SessionCount;

/// One thing that is so or not, as Kubernetes has it (`meta/v1` Condition).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObjectCondition {
    /// `Accepted`: it makes sense, by itself and beside the rest. `Programmed`: the nodes have done what it says.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True` or `False`.
    pub status: String,
    /// Why, in one word.
    pub reason: String,
    /// Why, in a sentence.
    pub message: String,
    /// The `metadata.generation` that it is said of.
    pub observed_generation: Option<i64>,
    /// Since when (RFC 3339).
    pub last_transition_time: String,
}

/// What became of a BGPConfiguration or a BGPFilter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectStatus {
    /// `Accepted` and `Programmed`.
    pub conditions: Vec<ObjectCondition>,
}

/// What became of a BGPPeer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct BGPPeerStatus {
    /// Its sessions on all nodes.
    pub sessions: SessionCount,
    /// How many nodes have one.
    pub nodes: u64,
    /// `Accepted` and `Programmed`.
    pub conditions: Vec<ObjectCondition>,
}

/// What became of an IPPool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct IPPoolStatus {
    /// How many blocks are given to nodes.
    pub blocks: u64,
    /// How many there can be; 2^53 where there can be more.
    pub blocks_at_most: u64,
    /// How many nodes have one.
    pub nodes: u64,
    /// How many addresses pods have, or had a moment ago, as far as nodes have told; or Services.
    pub addresses_used: u64,
    /// `Accepted` and `Programmed`.
    pub conditions: Vec<ObjectCondition>,
}
