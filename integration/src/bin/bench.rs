//! `make bench`: measures `weft-cni` beside Debian's `ptp` and `host-local` and beside the kernel's own share.
//!
//! Everything happens in network namespaces that end with this program, and in a directory of `TMPDIR` that is removed when it
//! ends or is interrupted.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this program's output is what it is for")]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail, ensure};
use weft_integration::bench::{self, Contender, Plan, Report, floor, results, stop_on_signals};
use weft_integration::lab::Lab;

const USAGE: &str = "weft-bench [--quick] [--results FILE] [-o table|json]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.split_first() {
        Some((first, rest)) if first == floor::ARGUMENT => floor::run(rest),
        _ => measure(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &[String]) -> Result<()> {
    let Options { plan, json, results } = options(arguments)?;
    let stop = stop_on_signals()?;
    let mut report: Option<Report> = None;
    Lab::test(|lab| {
        report = Some(bench::run(&plan, &lab.directory("bench")?, &stop)?);
        Ok(())
    })?;
    let report = report.context("nothing was measured")?;
    if json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{report}");
    }
    if let Some(file) = results {
        results::merge(&file, report.rows(&results::kernel()?))?;
    }
    let failures = report.failures(Contender::Weft);
    ensure!(failures == 0, "{} failed {failures} times", Contender::Weft);
    Ok(())
}

struct Options {
    plan: Plan,
    json: bool,
    results: Option<PathBuf>,
}

fn options(arguments: &[String]) -> Result<Options> {
    let mut options = Options { plan: Plan::full(), json: false, results: None };
    let mut arguments = arguments.iter().map(String::as_str);
    while let Some(argument) = arguments.next() {
        let takes_value = matches!(argument, "-o" | "--results");
        match (argument, if takes_value { arguments.next() } else { None }) {
            ("--quick", _) => options.plan = Plan::quick(),
            ("--results", Some(file)) => options.results = Some(file.into()),
            ("-o", Some("json")) => options.json = true,
            ("-o", Some("table")) => options.json = false,
            (argument, value) => bail!("unknown: {argument} {}; usage: {USAGE}", value.unwrap_or_default()),
        }
    }
    Ok(options)
}
