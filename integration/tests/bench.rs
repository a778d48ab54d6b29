//! The benchmark runs: what it measures is read by people, and not judged here.

#![allow(clippy::indexing_slicing, reason = "a panic fails the test, which is what it is for")]

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use weft_integration::process::{own_program, run};

const LIMIT: Duration = Duration::from_secs(120);

#[test]
fn a_quick_run_measures_every_contender_without_a_failure() -> Result<()> {
    let mut bench = Command::new(own_program("weft-bench")?);
    let report: Value =
        serde_json::from_str(&run(bench.args(["--quick", "-o", "json"]), LIMIT)?.success()?.stdout)?;
    ensure!(report["failures"].as_array().is_some_and(Vec::is_empty), "{:#}", report["failures"]);
    let cells = report["cells"].as_array().context("no cells")?;
    for contender in ["weft-cni", "ptp+host-local", "floor"] {
        for case in ["start", "add", "del", "delGone"] {
            for (parallel, present) in [(1, 0), (3, 0), (1, 4), (3, 4)] {
                let found = cells.iter().find(|cell| {
                    cell["contender"] == contender
                        && cell["case"] == case
                        && cell["parallel"] == parallel
                        && cell["present"] == present
                });
                let cell = found
                    .with_context(|| format!("no {case} of {contender} with {parallel} and {present}"))?;
                let (p50, p99) = (cell["p50Ms"].as_f64(), cell["p99Ms"].as_f64());
                ensure!(p50 > Some(0.0) && p50 <= p99, "{cell}");
                ensure!(cell["samples"] == parallel, "{cell}");
            }
        }
        let bursts = report["bursts"].as_array().context("no bursts")?;
        ensure!(bursts.iter().any(|burst| burst["contender"] == contender), "no burst of {contender}");
    }
    ensure!(report["goals"].as_array().map(Vec::len) == Some(6), "{:#}", report["goals"]);
    Ok(())
}

#[test]
fn a_quick_run_measures_bfd_of_every_pair() -> Result<()> {
    let mut bench = Command::new(own_program("weft-bench-bfd")?);
    let report: Value =
        serde_json::from_str(&run(bench.args(["--quick", "-o", "json"]), LIMIT)?.success()?.stdout)?;
    let pairs = report["pairs"].as_array().context("no pairs")?;
    let names: Vec<_> = pairs.iter().map(|p| (p["watcher"].as_str(), p["silent"].as_str())).collect();
    let expected = [("weft", "weft"), ("weft", "frr"), ("frr", "frr"), ("bird", "bird")];
    ensure!(names == expected.map(|(watcher, silent)| (Some(watcher), Some(silent))), "{report:#}");
    // The last packet came up to 10 ms before the silence, and is the first of the three that are awaited.
    ensure!(
        pairs.iter().all(|pair| pair["samples"] == 1 && pair["worstMs"].as_f64() > Some(15.0)),
        "{report:#}"
    );
    ensure!(report["ratios"].as_array().map(Vec::len) == Some(2), "{report:#}");
    Ok(())
}

#[test]
fn unknown_options_are_refused_with_the_usage() -> Result<()> {
    for program in ["weft-bench", "weft-bench-bfd"] {
        for options in [&["--fast"][..], &["-o", "xml"], &["-o"]] {
            let refused = run(Command::new(own_program(program)?).args(options), LIMIT)?;
            ensure!(!refused.status.success() && refused.stderr.contains("usage: weft-bench"), "{refused:?}");
        }
    }
    Ok(())
}
