//! What a BGPConfiguration says of Services, and the JSON of `GET /v1/services`, by the rules of [`super::json`].

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use weft_bgp::types::Reason;

use super::Cidr;
use crate::cluster::TrafficPolicy;

/// A Node with this label gets no traffic for Services from outside, whatever its value (KEP-1143).
pub const EXCLUDE_LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// How many ranges a BGPConfiguration may give for one sort of addresses.
pub const SERVICE_RANGES_MAX: usize = 64;

/// A range of Services' addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceRange {
    /// The range. No address in it is anything but a Service's: what no Service answers is rejected.
    pub cidr: Cidr,
}

/// How ranges of Services' addresses are announced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ServiceAggregation {
    /// Whole, and besides each address that not every node answers.
    #[default]
    Enabled,
    /// Each address by itself.
    Disabled,
}

/// A prefix of Services', and what this node makes of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServicePrefixJson {
    /// A range of a BGPConfiguration, or one address.
    pub prefix: IpNet,
    /// The Services that have the address, as `NAMESPACE/NAME`; empty for a range.
    pub services: Vec<String>,
    /// Where those endpoints are that count; null for a range.
    pub policy: Option<TrafficPolicy>,
    /// Whether peers are told of it.
    pub announced: bool,
    /// Why, or why not.
    pub reason: Reason,
}

/// Services' prefixes, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServicesStatusJson {
    /// Those that peers are told of.
    pub announced: usize,
    /// Those that wait for `serviceSettleTime`.
    pub settling: usize,
    /// The others: covered by a range, or not answered here.
    pub withheld: usize,
    /// Packets to them that nobody answered, since the nftables table was made; null: not read yet.
    pub rejected: Option<RejectedJson>,
}

/// Packets that were rejected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RejectedJson {
    /// IPv4.
    pub ipv4: u64,
    /// IPv6.
    pub ipv6: u64,
}
