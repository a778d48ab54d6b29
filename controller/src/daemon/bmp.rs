//! Monitoring stations: what the socket and the list of problems say of them.

use std::time::Duration;

use weft_bgp::bmp::StationStatus;

use super::clock::Moment;
use crate::api::json::Problem;
use crate::api::{StationErrorJson, StationJson};

/// How long a station may be away before people hear of it.
const AWAY_MAX: Duration = Duration::from_secs(60);

/// One station.
pub(super) fn station(status: &StationStatus, now: &Moment) -> StationJson {
    StationJson {
        station: status.station,
        connected: status.connected,
        since: now.timestamp_of(status.since),
        monitor: status.config.monitor.iter().map(|rib| (*rib).into()).collect(),
        statistics_interval: status.config.statistics_interval.map(|interval| interval.as_secs()),
        messages: status.messages,
        octets: status.octets,
        connects: status.connects,
        failures: status.failures,
        waiting: u64::try_from(status.waiting).unwrap_or(u64::MAX),
        last_error: status
            .last_error
            .as_ref()
            .map(|(at, text)| StationErrorJson { time: now.timestamp_of(*at), text: text.clone() }),
    }
}

/// A station that has been away for long. Nothing but what it is told depends on it.
pub(super) fn away(status: &StationStatus, now: &Moment) -> Option<Problem> {
    let away = now.instant.saturating_duration_since(status.since);
    if status.connected || away < AWAY_MAX {
        return None;
    }
    let cause = status.last_error.as_ref().map_or_else(String::new, |(_, text)| format!(": {text}"));
    let station = status.station;
    Some(Problem::warning(
        "bmp-station-away",
        format!("the monitoring station {station} has not been connected for {} s{cause}", away.as_secs()),
        format!(
            "see that a BMP collector listens there and that this node reaches it (ss -tn dst {}), or take it out of bmp of the BGPConfiguration",
            station.ip()
        ),
    ))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use weft_bgp::bmp::StationConfig;

    use super::*;
    use crate::api::json::Severity;

    #[test]
    fn a_station_is_a_warning_once_it_has_been_away_for_a_minute() {
        let now = Moment::now();
        let before = |seconds| now.instant.checked_sub(Duration::from_secs(seconds)).unwrap();
        let status = |connected, seconds| StationStatus {
            station: "192.0.2.1:5000".parse().unwrap(),
            config: StationConfig { monitor: BTreeSet::new(), statistics_interval: None },
            connected,
            since: before(seconds),
            messages: 1,
            octets: 2,
            connects: 3,
            failures: 4,
            waiting: 5,
            last_error: Some((before(1), "connection refused".into())),
        };
        assert_eq!(away(&status(true, 600), &now), None);
        assert_eq!(away(&status(false, 59), &now), None);
        let problem = away(&status(false, 61), &now).unwrap();
        assert_eq!((problem.severity, problem.code.as_str()), (Severity::Warning, "bmp-station-away"));
        assert!(problem.text.contains("192.0.2.1:5000") && problem.text.contains("refused"), "{problem:?}");
        let told = station(&status(false, 61), &now);
        assert_eq!(now.timestamp_of(now.instant).duration_since(told.since).as_secs(), 61);
        assert_eq!(told.last_error.map(|error| error.text).as_deref(), Some("connection refused"));
    }
}
