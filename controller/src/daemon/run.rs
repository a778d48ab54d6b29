//! The process: arguments, log, lock, signals, and then the loop.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{Context, Result};

use super::args::Args;
use super::lock::RunDir;
use super::{agent, cleanup, install};
use crate::log;

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    let args = Args::from_command_line();
    let result = match &args.install_cni {
        Some(directory) => install::run(directory, &mut io::stdout().lock()),
        None if args.cleanup => clean_up(&args),
        None => serve(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell when standard error is gone.
            let _ = writeln!(io::stderr().lock(), "weftd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn clean_up(args: &Args) -> Result<()> {
    let run_dir = RunDir::acquire(&args.run_dir)?;
    cleanup::run(&run_dir, args.cni_conf_dir.as_deref(), &mut io::stdout().lock())
}

fn serve(args: Args) -> Result<()> {
    log::to_stderr(args.log)?;
    let run_dir = RunDir::acquire(&args.run_dir)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("weftd")
        .build()
        .context("cannot start the event loop")?;
    runtime.block_on(agent::run(args, &run_dir))
}
