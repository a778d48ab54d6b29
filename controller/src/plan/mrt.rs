//! What of BGP is written to MRT files.

use std::time::Duration;

use crate::api::MrtSpec;

/// What of BGP is written to MRT files (RFC 6396), and how much of it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mrt {
    /// How many octets the files may have together.
    pub size_limit: u64,
    /// Whether messages and changes of state are written, and for how long to one file.
    pub rotate_after: Option<Duration>,
    /// Whether tables are written, and how often.
    pub table_interval: Option<Duration>,
}

impl Mrt {
    const SIZE_LIMIT: u64 = 1 << 30;
    const ROTATE_AFTER: Duration = Duration::from_secs(15 * 60);
    const TABLE_INTERVAL: Duration = Duration::from_secs(2 * 3600);

    pub(super) fn of(spec: &MrtSpec) -> Self {
        let rotate_after =
            spec.updates.map(|updates| updates.rotate_after.map_or(Self::ROTATE_AFTER, |time| time.0));
        let table_interval =
            spec.tables.map(|tables| tables.interval.map_or(Self::TABLE_INTERVAL, |time| time.0));
        let size_limit = spec.size_limit.map_or(Self::SIZE_LIMIT, |limit| limit.0);
        Self { size_limit, rotate_after, table_interval }
    }
}
