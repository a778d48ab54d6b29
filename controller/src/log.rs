//! The log of the daemons, on standard error.

use std::io;

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// What is logged unless the environment says otherwise. The client of the API tells each failure again that is told once.
const QUIET: &str = "info,kube_client=off,kube_runtime=off";

/// How the log is written, to standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line
    Json,
    /// For people
    Text,
}

/// Begins to log.
///
/// # Errors
/// The environment variable `RUST_LOG` is not understood.
pub(crate) fn to_stderr(format: LogFormat) -> Result<()> {
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
