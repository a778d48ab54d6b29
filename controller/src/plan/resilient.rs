//! How groups of next hops are resilient.

use std::time::Duration;

use weft_routing::nexthop::Resilience;

use crate::api::ResilientNextHopsSpec;

const BUCKETS: u16 = 512;
const IDLE_TIME: Duration = Duration::from_secs(120);

/// What the BGPConfigurations say together, the one that counts first; `None`: groups are not resilient.
pub(super) fn of(specs: &[ResilientNextHopsSpec]) -> Option<Resilience> {
    fn first<T>(
        specs: &[ResilientNextHopsSpec],
        field: impl Fn(&ResilientNextHopsSpec) -> Option<T>,
    ) -> Option<T> {
        specs.iter().find_map(field)
    }
    let is_on = !specs.is_empty() && first(specs, |s| s.enabled).unwrap_or(true);
    is_on.then(|| Resilience {
        buckets: first(specs, |s| s.buckets).unwrap_or(BUCKETS),
        idle_time: first(specs, |s| s.idle_time).map_or(IDLE_TIME, |time| time.0),
        unbalanced_time: first(specs, |s| s.unbalanced_time).map_or(Duration::ZERO, |time| time.0),
    })
}
