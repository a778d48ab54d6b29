//! `make bench`, its second part: how soon a silent path is given up with BFD at 10 ms × 3.

#![expect(clippy::print_stdout, reason = "this program's output is what it is for")]

use anyhow::{Result, bail};
use weft_integration::bench::{bfd, stop_on_signals};
use weft_integration::lab::Lab;

/// How often each pair is measured.
const SAMPLES: usize = 10;

fn main() -> Result<()> {
    let (mut samples, mut json) = (SAMPLES, false);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match (argument.as_str(), if argument == "-o" { arguments.next() } else { None }.as_deref()) {
            ("--quick", _) => samples = 1,
            ("-o", Some("json")) => json = true,
            ("-o", Some("table")) => json = false,
            _ => bail!("unknown: {argument}; usage: weft-bench-bfd [--quick] [-o table|json]"),
        }
    }
    let stop = stop_on_signals()?;
    Lab::test(|lab| {
        let report = bfd::run(lab, samples, &stop)?;
        match json {
            true => println!("{}", serde_json::to_string_pretty(&report)?),
            false => print!("{report}"),
        }
        Ok(())
    })
}
