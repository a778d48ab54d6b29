//! The faults of `resilientNextHops`.

use std::ops::RangeInclusive;
use std::time::Duration as StdDuration;

use super::spec::{Faults, fault};
use crate::api::{BGPConfigurationSpec, BUCKETS_MIN, Duration};

/// The kernel's clock is finer, but a time must be read from it as it was written.
const TIME: RangeInclusive<StdDuration> = StdDuration::from_secs(1)..=StdDuration::from_secs(24 * 3600);

pub(super) fn configuration(faults: &mut Faults, spec: &BGPConfigurationSpec) {
    let Some(resilient) = spec.resilient_next_hops else { return };
    if spec.install_routes == Some(false) && resilient.enabled != Some(false) {
        let message = "resilientNextHops does nothing beside installRoutes: false";
        let remedy = "leave resilientNextHops out, or write installRoutes: true";
        fault(faults, "resilientNextHops", message, remedy);
    }
    if let Some(buckets) = resilient.buckets.filter(|buckets| *buckets < BUCKETS_MIN) {
        let message = format!("{buckets} buckets are fewer than the next hops that maxPaths may allow");
        fault(faults, "resilientNextHops.buckets", message, "write 256 to 65535");
    }
    let is_good = |time: Duration| time.0.subsec_nanos() == 0 && TIME.contains(&time.0);
    if let Some(time) = resilient.idle_time.filter(|time| !is_good(*time)) {
        let message = format!("{time} is no time for a bucket to be idle");
        fault(faults, "resilientNextHops.idleTime", message, "write whole seconds from 1s to 24h");
    }
    if let Some(time) = resilient.unbalanced_time.filter(|time| !time.0.is_zero() && !is_good(*time)) {
        let message = format!("{time} is no time to be unbalanced for");
        let remedy = "write 0s (for ever), or whole seconds from 1s to 24h";
        fault(faults, "resilientNextHops.unbalancedTime", message, remedy);
    }
}
