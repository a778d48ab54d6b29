//! Which MRT files a node keeps (RFC 6396).

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Duration, Invalid};

/// MRT files (RFC 6396), in the directory that weftd's `--mrt-dir` says. At least one of `updates` and `tables` is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MrtSpec {
    /// How much of the disk the files may take: 64Mi to 1Ti; 1Gi unless given. The oldest go first.
    #[serde(default)]
    pub size_limit: Option<ByteSize>,
    /// Every message and every change of a session's state.
    #[serde(default)]
    pub updates: Option<MrtUpdatesSpec>,
    /// The whole table, every so often.
    #[serde(default)]
    pub tables: Option<MrtTablesSpec>,
}

/// Files of messages and changes of state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MrtUpdatesSpec {
    /// How long one file is written to: 1s to 24h; 15m unless given. One of a sixteenth of `sizeLimit` is full.
    #[serde(default)]
    pub rotate_after: Option<Duration>,
}

/// Files of tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MrtTablesSpec {
    /// The time from one table to the next: 1m to 24h; 2h unless given. The first one is written once the node has converged.
    #[serde(default)]
    pub interval: Option<Duration>,
}

/// A number of octets as Kubernetes writes it: `64Mi`, `1Gi`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// The units, the largest first.
const UNITS: [(&str, u64); 4] = [("Ti", 1 << 40), ("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)];

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS.into_iter().find(|(_, unit)| self.0 >= *unit && self.0.is_multiple_of(*unit)) {
            Some((name, unit)) => write!(f, "{}{name}", self.0 / unit),
            None => write!(f, "{}", self.0),
        }
    }
}

impl FromStr for ByteSize {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (number, unit) = UNITS
            .into_iter()
            .find_map(|(name, unit)| Some((text.strip_suffix(name)?, unit)))
            .unwrap_or((text, 1));
        let digits = !number.is_empty() && number.bytes().all(|octet| octet.is_ascii_digit());
        let octets = number.parse::<u64>().ok().filter(|_| digits).and_then(|n| n.checked_mul(unit));
        octets.map(Self).ok_or_else(|| {
            Invalid::new(
                format!("\"{text}\" is no size"),
                "write a whole number with the unit Ki, Mi, Gi or Ti, as in \"512Mi\" or \"1Gi\"",
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_written_as_kubernetes_does() {
        for (text, octets) in [("64Mi", 64 << 20), ("1Gi", 1 << 30), ("2Ti", 2 << 40), ("1500", 1500)] {
            let size: ByteSize = text.parse().unwrap();
            assert_eq!((size.0, size.to_string().as_str()), (octets, text));
        }
        assert_eq!("1024Mi".parse::<ByteSize>().unwrap().to_string(), "1Gi");
        for text in ["", "Mi", "1.5Gi", "-1", "+1Mi", "1GB", "1 Gi", "99999999999Ti"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }
}
