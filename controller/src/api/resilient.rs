//! How flows stay on their next hops.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Duration;

/// The fewest buckets of a resilient group: as many as `maxPaths` may be, so that each next hop can have one.
pub const BUCKETS_MIN: u16 = 256;

/// Resilient groups of next hops, as the kernel has them: flows fall into buckets, which go to other next hops no sooner than they have to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResilientNextHopsSpec {
    /// Whether groups are resilient; true unless given.
    #[serde(default)]
    pub enabled: Option<bool>,
    /// How many buckets each group has: 256 to 65535; 512 unless given.
    #[serde(default)]
    #[schemars(range(min = BUCKETS_MIN))]
    pub buckets: Option<u16>,
    /// How long a bucket must have had no packet before a next hop that joins may have it: whole seconds from 1s to 24h; 120s unless given.
    #[serde(default)]
    pub idle_time: Option<Duration>,
    /// How long a next hop may have too few buckets before it is given some that are in use: 0s for ever, as unless given, else whole seconds
    /// from 1s to 24h.
    #[serde(default)]
    pub unbalanced_time: Option<Duration>,
}
