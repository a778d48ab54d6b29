//! `make bench`: measures BGP speakers beside each other, and their routes in the kernel beside the kernel's own share.
//!
//! Everything happens in network namespaces that end with this program.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this program's output is what it is for")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, bail, ensure};
use weft_integration::bench::speakers::checks::{self, Check};
use weft_integration::bench::speakers::{self, Daemon, Plan, Scenario};
use weft_integration::bench::{chart, results, stop_on_signals};

const USAGE: &str = "weft-bench-speakers [--scenarios A,B,…] [--daemons weft,bird,…] [--runs N] [--fraction N] [--results FILE] [-o table|json]
       --fraction N  with one in N of the routes
       weft-bench-speakers --checks slow-peer,churn,peers,wake-ups,idle|all [--fraction N] [-o table|json]
       whether weftd is right under load, and what that costs
       weft-bench-speakers draw RESULTS FOLDER
       the table of FOLDER/benchmarks.md, and FOLDER/benchmarks.svg, of a file of results";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match *words {
        ["draw", file, folder] => draw(Path::new(file), Path::new(folder)),
        _ => measure(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn draw(file: &Path, folder: &Path) -> Result<()> {
    let rows = results::read(file)?;
    ensure!(!rows.is_empty(), "{} has no results; `make bench` makes some", file.display());
    chart::write(&rows, folder)
}

#[derive(Debug)]
struct Options {
    plan: Plan,
    /// These, instead of what is measured.
    checks: Vec<Check>,
    results: Option<PathBuf>,
    json: bool,
}

fn measure(arguments: &[String]) -> Result<()> {
    let Options { plan, checks, results, json } =
        options(arguments).with_context(|| format!("usage: {USAGE}"))?;
    let stop = stop_on_signals()?;
    if !checks.is_empty() {
        return check(&checks, plan.fraction, json, &stop);
    }
    // Half an hour is long without a word.
    let report = speakers::run(&plan, &stop, |line| eprintln!("{line}"))?;
    let rows = report.rows();
    if json {
        println!("{}", serde_json::to_string_pretty(&rows)?);
    } else {
        print!("{report}");
    }
    ensure!(!stop.load(Ordering::Relaxed), "interrupted");
    ensure!(!rows.is_empty(), "nothing was measured");
    results.as_deref().map_or(Ok(()), |file: &Path| results::merge(file, rows))
}

fn check(all: &[Check], fraction: usize, json: bool, stop: &AtomicBool) -> Result<()> {
    let mut figures = Vec::new();
    for check in all {
        eprintln!("{check}");
        figures.extend(check.run(fraction)?);
        ensure!(!stop.load(Ordering::Relaxed), "interrupted");
    }
    if json {
        println!("{}", serde_json::to_string_pretty(&figures)?);
        return Ok(());
    }
    println!("{}", checks::header());
    figures.iter().for_each(|figures| println!("{figures}"));
    Ok(())
}

fn options(arguments: &[String]) -> Result<Options> {
    let plan =
        Plan { scenarios: Scenario::ALL.to_vec(), daemons: Daemon::ALL.to_vec(), runs: 3, fraction: 1 };
    let mut options = Options { plan, checks: Vec::new(), results: None, json: false };
    let mut arguments = arguments.iter().map(String::as_str);
    while let Some(argument) = arguments.next() {
        let value = arguments.next().with_context(|| format!("{argument} needs a value, or is unknown"))?;
        let number =
            || value.parse().ok().filter(|n| *n > 0).with_context(|| format!("{value} is no number above 0"));
        match (argument, value) {
            ("--scenarios", _) => {
                options.plan.scenarios = value.split(',').map(str::parse).collect::<Result<_>>()?;
            }
            ("--daemons", _) => {
                options.plan.daemons = value.split(',').map(str::parse).collect::<Result<_>>()?;
            }
            ("--checks", "all") => options.checks = Check::ALL.to_vec(),
            ("--checks", _) => {
                options.checks = value.split(',').map(str::parse).collect::<Result<_>>()?;
            }
            ("--runs", _) => options.plan.runs = number()?,
            ("--fraction", _) => options.plan.fraction = number()?,
            ("--results", _) => options.results = Some(value.into()),
            ("-o", "json") => options.json = true,
            ("-o", "table") => options.json = false,
            _ => bail!("unknown: {argument} {value}"),
        }
    }
    Ok(options)
}
