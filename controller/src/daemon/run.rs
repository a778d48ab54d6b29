//! The process: arguments, log, lock, signals, and then the loop.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{Context, Result};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use super::args::{Args, LogFormat};
use super::lock::RunDir;
use super::{agent, cleanup};

/// What is logged unless the environment says otherwise. The client of the API tells each failure again that weftd tells once.
const QUIET: &str = "info,kube_client=off,kube_runtime=off";

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    let args = Args::from_command_line();
    let result = if args.cleanup { clean_up(&args) } else { serve(args) };
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
    log_to_stderr(args.log)?;
    let run_dir = RunDir::acquire(&args.run_dir)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("weftd")
        .build()
        .context("cannot start the event loop")?;
    runtime.block_on(agent::run(args, &run_dir))
}

fn log_to_stderr(format: LogFormat) -> Result<()> {
    let filter = match std::env::var(EnvFilter::DEFAULT_ENV) {
        Ok(wanted) if !wanted.is_empty() => {
            EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).parse(wanted).context(
                "the environment variable RUST_LOG is not understood; write info or weft_bgp=debug,info",
            )?
        }
        _ => EnvFilter::new(QUIET),
    };
    let log = tracing_subscriber::fmt().with_writer(io::stderr).with_env_filter(filter);
    match format {
        LogFormat::Json => log.json().init(),
        LogFormat::Text => log.with_ansi(false).init(),
    }
    Ok(())
}
