//! The faults of what is written to MRT files.

use std::ops::RangeInclusive;
use std::time::Duration as StdDuration;

use super::spec::{Faults, fault};
use crate::api::{Duration, MrtSpec};

/// How much of the disk the files may take.
const SIZE_LIMIT: RangeInclusive<u64> = 64 << 20..=1 << 40;

/// How long one file is written to.
const ROTATE_AFTER: RangeInclusive<StdDuration> = StdDuration::from_secs(1)..=DAY;

/// From one table to the next.
const INTERVAL: RangeInclusive<StdDuration> = StdDuration::from_secs(60)..=DAY;

const DAY: StdDuration = StdDuration::from_secs(24 * 3600);

pub(super) fn configuration(faults: &mut Faults, mrt: Option<&MrtSpec>) {
    let Some(mrt) = mrt else { return };
    if mrt.updates.is_none() && mrt.tables.is_none() {
        let remedy = "give updates: {}, tables: {}, or both; or leave mrt out";
        fault(faults, "mrt", "neither updates nor tables are to be written", remedy);
    }
    if let Some(limit) = mrt.size_limit.filter(|limit| !SIZE_LIMIT.contains(&limit.0)) {
        fault(faults, "mrt.sizeLimit", format!("{limit} is out of range"), "write 64Mi to 1Ti");
    }
    let mut time = |field, time: Option<Duration>, range: RangeInclusive<StdDuration>, remedy| {
        if let Some(time) = time.filter(|time| !range.contains(&time.0)) {
            fault(faults, field, format!("{time} is out of range"), remedy);
        }
    };
    let rotate_after = mrt.updates.and_then(|updates| updates.rotate_after);
    time("mrt.updates.rotateAfter", rotate_after, ROTATE_AFTER, "write 1s to 24h");
    let interval = mrt.tables.and_then(|tables| tables.interval);
    time("mrt.tables.interval", interval, INTERVAL, "write 1m to 24h");
}
