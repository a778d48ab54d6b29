//! What a BGPConfiguration says of monitoring stations, and the JSON of `GET /v1/bmp`, by the rules of [`super::json`].

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use weft_bgp::bmp;

use super::{Duration, Invalid, PeerAddress};

/// How many monitoring stations a node may have.
pub const STATIONS_MAX: usize = 4;

/// A monitoring station, which is told by BMP (RFC 7854) what the node's RIBs hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BmpStation {
    /// Where it listens.
    pub address: StationAddress,
    /// The RIBs that it is told of; `AdjRIBInPrePolicy` and `LocRIB` unless given.
    #[serde(default)]
    #[schemars(with = "Option<Vec<MonitoredRib>>", length(max = 4))]
    pub monitor: Option<BTreeSet<MonitoredRib>>,
    /// The time between two Statistics Reports: 0s for none, else 1s to 1h; 60s unless given.
    #[serde(default)]
    pub statistics_interval: Option<Duration>,
}

impl BmpStation {
    /// The RIBs that a station is told of whose document names none.
    const MONITOR: [MonitoredRib; 2] = [MonitoredRib::AdjRibInPrePolicy, MonitoredRib::LocRib];

    /// The time between two Statistics Reports to a station whose document gives none.
    const STATISTICS_INTERVAL: std::time::Duration = std::time::Duration::from_secs(60);

    /// As the speaker is told of it.
    pub(crate) fn config(&self) -> bmp::StationConfig {
        let monitor = self.monitor.clone().unwrap_or_else(|| Self::MONITOR.into());
        let interval = self.statistics_interval.map_or(Self::STATISTICS_INTERVAL, |interval| interval.0);
        bmp::StationConfig {
            monitor: monitor.into_iter().map(Into::into).collect(),
            statistics_interval: Some(interval).filter(|interval| !interval.is_zero()),
        }
    }
}

/// An address and a port: `192.0.2.1:11019`, `[2001:db8::1]:11019`. BMP has no port of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StationAddress(pub SocketAddr);

impl fmt::Display for StationAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for StationAddress {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        const REMEDY: &str = "write IP:PORT or [IPV6]:PORT, as in 192.0.2.1:11019 or [2001:db8::1]:11019";
        match text.parse() {
            Ok(PeerAddress { ip, port: Some(port) }) => Ok(Self(SocketAddr::new(ip, port.into()))),
            Ok(PeerAddress { port: None, .. }) => {
                Err(Invalid::new(format!("\"{text}\" has no port, and BMP has none of its own"), REMEDY))
            }
            Err(Invalid { message, .. }) => Err(Invalid::new(message, REMEDY)),
        }
    }
}

/// A RIB that a monitoring station may be told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum MonitoredRib {
    /// What peers have told, before policy (RFC 7854).
    #[serde(rename = "AdjRIBInPrePolicy")]
    AdjRibInPrePolicy,
    /// What import policy and the checks beside it accepted (RFC 7854).
    #[serde(rename = "AdjRIBInPostPolicy")]
    AdjRibInPostPolicy,
    /// What peers are told, after policy (RFC 8671).
    #[serde(rename = "AdjRIBOutPostPolicy")]
    AdjRibOutPostPolicy,
    /// The best paths (RFC 9069).
    #[serde(rename = "LocRIB")]
    LocRib,
}

impl From<MonitoredRib> for bmp::MonitoredRib {
    fn from(rib: MonitoredRib) -> Self {
        match rib {
            MonitoredRib::AdjRibInPrePolicy => Self::AdjRibInPrePolicy,
            MonitoredRib::AdjRibInPostPolicy => Self::AdjRibInPostPolicy,
            MonitoredRib::AdjRibOutPostPolicy => Self::AdjRibOutPostPolicy,
            MonitoredRib::LocRib => Self::LocRib,
        }
    }
}

impl From<bmp::MonitoredRib> for MonitoredRib {
    fn from(rib: bmp::MonitoredRib) -> Self {
        match rib {
            bmp::MonitoredRib::AdjRibInPrePolicy => Self::AdjRibInPrePolicy,
            bmp::MonitoredRib::AdjRibInPostPolicy => Self::AdjRibInPostPolicy,
            bmp::MonitoredRib::AdjRibOutPostPolicy => Self::AdjRibOutPostPolicy,
            bmp::MonitoredRib::LocRib => Self::LocRib,
        }
    }
}

impl fmt::Display for MonitoredRib {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AdjRibInPrePolicy => "AdjRIBInPrePolicy",
            Self::AdjRibInPostPolicy => "AdjRIBInPostPolicy",
            Self::AdjRibOutPostPolicy => "AdjRIBOutPostPolicy",
            Self::LocRib => "LocRIB",
        })
    }
}

/// A monitoring station, now. What is counted is since it was configured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StationJson {
    /// Where it listens.
    pub station: SocketAddr,
    /// Whether it is connected.
    pub connected: bool,
    /// Since when it is, or is not.
    pub since: Timestamp,
    /// The RIBs that it is told of.
    pub monitor: Vec<MonitoredRib>,
    /// Seconds between two Statistics Reports; null: none are sent.
    pub statistics_interval: Option<u64>,
    /// Messages that were sent to it.
    pub messages: u64,
    /// Their octets.
    pub octets: u64,
    /// How often it was connected.
    pub connects: u64,
    /// How often a dial failed or a connection was lost.
    pub failures: u64,
    /// Changes that wait for it to read.
    pub waiting: u64,
    /// What went wrong last.
    pub last_error: Option<StationErrorJson>,
}

/// What went wrong with a station.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StationErrorJson {
    /// When.
    pub time: Timestamp,
    /// In words.
    pub text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_station_has_an_address_and_a_port() {
        for text in ["192.0.2.1:11019", "[2001:db8::1]:5000"] {
            assert_eq!(text.parse::<StationAddress>().unwrap().to_string(), text);
        }
        for (text, wrong) in [
            ("192.0.2.1", "has no port"),
            ("2001:db8::1", "has no port"),
            ("192.0.2.1:0", "has no valid port"),
            ("0.0.0.0:5000", "means any address"),
            ("collector:5000", "is not an address"),
        ] {
            let error = text.parse::<StationAddress>().unwrap_err();
            assert!(error.message.contains(wrong) && error.remedy.contains("11019"), "{error}");
        }
    }

    #[test]
    fn a_station_is_told_of_what_peers_say_and_of_the_best_paths_unless_its_document_says_otherwise() {
        let config = |text: &str| serde_json::from_str::<BmpStation>(text).unwrap().config();
        let known = config(r#"{"address": "192.0.2.1:5000"}"#);
        assert_eq!(known.monitor, [bmp::MonitoredRib::AdjRibInPrePolicy, bmp::MonitoredRib::LocRib].into());
        assert_eq!(known.statistics_interval, Some(std::time::Duration::from_secs(60)));
        let text = r#"{"address": "192.0.2.1:5000", "monitor": ["AdjRIBOutPostPolicy"], "statisticsInterval": "0s"}"#;
        let known = config(text);
        assert_eq!(
            (known.monitor, known.statistics_interval),
            ([bmp::MonitoredRib::AdjRibOutPostPolicy].into(), None)
        );
    }
}
