//! `make bench`, its second part: how soon a silent path is given up with BFD at 10 ms × 3.

#![expect(clippy::print_stdout, reason = "this program's output is what it is for")]

use std::path::PathBuf;

use anyhow::{Result, bail};
use weft_integration::bench::{bfd, stop_on_signals};
use weft_integration::lab::Lab;

const USAGE: &str = "weft-bench-bfd [--quick] [-o table|json] [--results FILE] [--docs FOLDER]
       --results FILE  writes JSON there too
       --docs FOLDER   writes the table into its benchmarks.md";

/// How often each pair is measured.
const SAMPLES: usize = 10;

fn main() -> Result<()> {
    let (mut samples, mut json, mut results, mut docs) = (SAMPLES, false, None, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let value = if argument == "--quick" { None } else { arguments.next() };
        match (argument.as_str(), value.as_deref()) {
            ("--quick", _) => samples = 1,
            ("-o", Some("json")) => json = true,
            ("-o", Some("table")) => json = false,
            ("--results", Some(file)) => results = Some(PathBuf::from(file)),
            ("--docs", Some(folder)) => docs = Some(PathBuf::from(folder)),
            _ => bail!("unknown: {argument}; usage: {USAGE}"),
        }
    }
    let stop = stop_on_signals()?;
    Lab::test(|lab| {
        let report = bfd::run(lab, samples, &stop)?;
        match json {
            true => println!("{}", serde_json::to_string_pretty(&report)?),
            false => print!("{report}"),
        }
        results.map_or(Ok(()), |file| report.write(&file))?;
        docs.map_or(Ok(()), |folder| report.draw(&folder))
    })
}
