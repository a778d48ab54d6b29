//! `weftctl validate`: the daemon's own checks, without a daemon.

use std::fs;
use std::io::Write;
use std::path::Path;

use super::args::Format;
use super::{Exit, Failure, output, tables};
use crate::api::json::ConfigStatusJson;
use crate::documents;

/// Checks a folder as a whole, or one file by itself, and writes every error.
///
/// # Errors
/// The path does not exist or cannot be looked at: that is a wrong command line, not a wrong document.
pub(super) fn run(path: &Path, format: Format, out: &mut dyn Write) -> Result<Exit, Failure> {
    if let Err(error) = fs::metadata(path) {
        return Err(Failure::Usage(format!("cannot read {}: {error}", path.display())));
    }
    let errors = documents::validate(path);
    let result = ConfigStatusJson { ok: errors.is_empty(), errors };
    output::write(out, format, &result, |_| tables::errors(&result.errors))?;
    Ok(if result.ok { Exit::Good } else { Exit::Wrong })
}
