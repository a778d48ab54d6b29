//! The faults of a BFDProfile.

use std::time::Duration as StdDuration;

use super::spec::{Faults, fault};
use crate::api::BFDProfileSpec;

/// The shortest interval: what a host can keep to.
const INTERVAL_MIN: StdDuration = StdDuration::from_millis(10);
/// The longest: beyond, BGP's own hold time is as good.
const INTERVAL_MAX: StdDuration = StdDuration::from_secs(60);

pub(super) fn profile(spec: &BFDProfileSpec) -> Faults {
    let mut faults = Faults::new();
    let intervals =
        [("receiveInterval", spec.receive_interval), ("transmitInterval", spec.transmit_interval)];
    for (field, interval) in intervals {
        if let Some(interval) = interval.filter(|i| !(INTERVAL_MIN..=INTERVAL_MAX).contains(&i.0)) {
            fault(&mut faults, field, format!("{interval} is out of range"), "write 10ms to 60s");
        }
    }
    if let Some(multiplier) = spec.detect_multiplier.filter(|multiplier| *multiplier < 2) {
        let message = format!("with a detectMultiplier of {multiplier} one lost packet is a dead path");
        fault(&mut faults, "detectMultiplier", message, "write 2 to 255");
    }
    if spec.minimum_ttl == Some(0) {
        fault(&mut faults, "minimumTtl", "no packet arrives with a TTL of 0", "write 1 to 255");
    }
    faults
}
