//! What every part of `make bench` writes for programs to read: one list, `results.json`.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

/// Medians of one daemon in one scenario.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// `A` to `H`, `cni-add` or `cni-del`.
    pub scenario: String,
    /// `weft`, `bird`, `frr`, `gobgp`, or `floor`: what the kernel takes alone.
    pub daemon: String,
    /// Its version; the kernel's for the floor.
    pub version: String,
    /// Seconds until it was done.
    pub wall_seconds: f64,
    /// Seconds of the processor, of all its processes; null: not measured.
    pub cpu_seconds: Option<f64>,
    /// The most memory that was resident, in MiB, of all its processes; null: not measured.
    #[serde(rename = "peakMB")]
    pub peak_mb: Option<f64>,
    /// How many runs the median is of.
    pub runs: usize,
    /// Whether a run took longer than is waited for: then it was stopped, and the time is that.
    pub timed_out: bool,
}

/// The rows of a file, in its order; none where there is no file.
///
/// # Errors
/// If it cannot be read, or is no list of rows.
pub fn read(file: &Path) -> Result<Vec<Row>> {
    let text = match fs::read_to_string(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        text => text.with_context(|| format!("cannot read {}", file.display()))?,
    };
    serde_json::from_str(&text).with_context(|| format!("{} is no list of results", file.display()))
}

/// Puts rows into a file in the place of those of the same scenarios. The file is made where there is none.
///
/// # Errors
/// If it cannot be written, or is there and no list of rows.
pub fn merge(file: &Path, rows: Vec<Row>) -> Result<()> {
    let mut all = read(file)?;
    all.retain(|old| !rows.iter().any(|new| new.scenario == old.scenario));
    all.extend(rows);
    all.sort_by(|one, other| one.scenario.cmp(&other.scenario));
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let text = serde_json::to_string_pretty(&all)? + "\n";
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

/// The version of the running kernel.
///
/// # Errors
/// If there is no /proc.
pub fn kernel() -> Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(scenario: &str, daemon: &str, wall: f64) -> Row {
        Row {
            scenario: scenario.into(),
            daemon: daemon.into(),
            version: "1.0".into(),
            wall_seconds: wall,
            cpu_seconds: Some(0.5),
            peak_mb: None,
            runs: 3,
            timed_out: false,
        }
    }

    #[test]
    fn a_part_replaces_its_own_scenarios_only() {
        let folder = std::env::temp_dir().join(format!("weft-results-{}", std::process::id()));
        let file = folder.join("bench/results.json");
        merge(&file, vec![row("cni-add", "weft", 0.1), row("cni-add", "floor", 0.1)]).unwrap();
        merge(&file, vec![row("B", "weft", 2.0), row("A", "weft", 1.0)]).unwrap();
        merge(&file, vec![row("cni-add", "weft", 0.2)]).unwrap();
        let kept: Vec<_> =
            read(&file).unwrap().iter().map(|row| (row.scenario.clone(), row.wall_seconds)).collect();
        assert_eq!(kept, [("A".into(), 1.0), ("B".into(), 2.0), ("cni-add".into(), 0.2)]);
        fs::write(&file, "{}").unwrap();
        assert!(merge(&file, Vec::new()).is_err(), "what is no list is not overwritten");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_row_is_as_its_readers_know_it() {
        assert_eq!(
            serde_json::to_value(row("A", "bird", 1.5)).unwrap(),
            json!({
                "scenario": "A", "daemon": "bird", "version": "1.0", "wallSeconds": 1.5, "cpuSeconds": 0.5,
                "peakMB": null, "runs": 3, "timedOut": false,
            })
        );
    }
}
