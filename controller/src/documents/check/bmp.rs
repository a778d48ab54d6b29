//! The faults of what a BGPConfiguration says of monitoring stations.

use std::collections::BTreeMap;
use std::time::Duration;

use super::spec::{Faults, fault};
use crate::api::{BmpStation, STATIONS_MAX};

/// The longest time between two Statistics Reports.
const STATISTICS_INTERVAL_MAX: Duration = Duration::from_secs(3600);

pub(super) fn stations(faults: &mut Faults, stations: &[BmpStation]) {
    if stations.len() > STATIONS_MAX {
        let message = format!("bmp has {} monitoring stations", stations.len());
        let remedy = format!("write {STATIONS_MAX} at most: one can pass on what it hears to others");
        fault(faults, "bmp", message, &remedy);
    }
    let mut first = BTreeMap::new();
    for (index, station) in stations.iter().enumerate() {
        if let Some(before) = first.insert(station.address, index) {
            let message = format!("{} is bmp[{before}] too", station.address);
            let remedy = "list each station once, with all that it is to be told of in monitor";
            fault(faults, &format!("bmp[{index}].address"), message, remedy);
        }
        if station.monitor.as_ref().is_some_and(std::collections::BTreeSet::is_empty) {
            let remedy = "list some of AdjRIBInPrePolicy, AdjRIBInPostPolicy, AdjRIBOutPostPolicy and LocRIB, or leave it out";
            fault(faults, &format!("bmp[{index}].monitor"), "no RIB is listed", remedy);
        }
        let interval = station.statistics_interval.map_or(Duration::ZERO, |interval| interval.0);
        if !interval.is_zero() && !(Duration::from_secs(1)..=STATISTICS_INTERVAL_MAX).contains(&interval) {
            let message = format!("{} is out of range", crate::api::Duration(interval));
            let field = format!("bmp[{index}].statisticsInterval");
            fault(faults, &field, message, "write 0s for no Statistics Reports, or 1s to 1h");
        }
    }
}
