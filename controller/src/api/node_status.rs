//! What each node tells the cluster of itself.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Cidr, ObjectCondition};

/// How many sessions and problems one object lists.
pub const LISTED_MAX: usize = 128;

/// How many blocks one object lists. One that is not listed counts as new for weft-controller: a node has 256 of a pool at most, and two
/// pools, one of each family, as a rule.
pub const BLOCKS_LISTED_MAX: usize = 512;

/// A node as its weftd sees it. Nobody writes a spec.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "weft.network",
    version = "v1alpha1",
    kind = "BGPNodeStatus",
    doc = "A node as its weftd sees it: written by weftd, under the node's name.",
    plural = "bgpnodestatuses",
    shortname = "bns",
    category = "weft",
    status = "NodeReport",
    derive = "PartialEq",
    printcolumn = r#"{"name":"AS","type":"integer","jsonPath":".status.asNumber"}"#,
    printcolumn = r#"{"name":"Up","type":"integer","jsonPath":".status.sessions.up"}"#,
    printcolumn = r#"{"name":"Wanted","type":"integer","jsonPath":".status.sessions.wanted"}"#,
    printcolumn = r#"{"name":"Ready","type":"boolean","jsonPath":".status.ready"}"#,
    printcolumn = r#"{"name":"Drain","type":"string","jsonPath":".status.drain"}"#,
    printcolumn = r#"{"name":"Problems","type":"integer","jsonPath":".status.problemCount"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
pub struct BGPNodeStatusSpec {}

/// What a node tells. Lists are cut at 128 entries, that of blocks at 512.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeReport {
    /// The version of its weftd.
    pub version: String,
    /// Its AS.
    pub as_number: Option<u32>,
    /// Its BGP identifier.
    #[serde(rename = "routerID")]
    pub router_id: Option<String>,
    /// Its node addresses.
    pub addresses: Vec<String>,
    /// Whether it has converged since it started.
    pub ready: bool,
    /// How far it is drained, while it is: `low-preference`, `withdrawn` or `drained`.
    pub drain: Option<String>,
    /// Its BGP sessions, counted.
    pub sessions: SessionCount,
    /// Its BGP sessions.
    pub peers: Vec<SessionReport>,
    /// Its routes in the kernel, counted.
    pub routes: RouteCount,
    /// Its blocks.
    pub blocks: Vec<BlockReport>,
    /// How many problems it has.
    pub problem_count: u64,
    /// Its problems, the worst first.
    pub problems: Vec<ProblemReport>,
    /// `Accepted`: the documents are good. `Programmed`: the node does what they say.
    pub conditions: Vec<ObjectCondition>,
}

/// Sessions, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionCount {
    /// Established.
    pub up: u64,
    /// Configured and not shut down.
    pub wanted: u64,
}

/// One session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionReport {
    /// The BGPPeer that asks for it, or `mesh:NODE`.
    pub name: String,
    /// The peer's address.
    pub peer: String,
    /// The state of the FSM (RFC 4271 section 8.2.2).
    pub state: String,
    /// Whether it is shut down, and so not wanted.
    pub shutdown: bool,
    /// The state of its BFD session (RFC 5880 section 6.2), if it has one.
    #[serde(default)]
    pub bfd: Option<String>,
    /// Why it went down last.
    pub last_error: Option<String>,
}

/// Kernel routes, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouteCount {
    /// That ought to be there.
    pub wanted: u64,
    /// That are.
    pub installed: u64,
}

/// One block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BlockReport {
    /// The block.
    pub cidr: Cidr,
    /// Whether new pods get addresses of it.
    pub open: bool,
    /// How many of its addresses pods have, or had a moment ago.
    pub used: u64,
    /// How many a new pod could get; 2^53 where there are more.
    pub free: u64,
}

/// One problem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProblemReport {
    /// `error` or `warning`.
    pub severity: String,
    /// Stable, lower case, hyphens.
    pub code: String,
    /// What is wrong, in a sentence.
    pub text: String,
    /// What would make it right.
    pub remedy: String,
}
