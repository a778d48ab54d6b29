//! Writing an answer in the form that was asked for.

use std::io::Write;

use serde::Serialize;

use super::Failure;
use super::args::Format;

/// Writes `value` as JSON or YAML, or as the text that `table` draws of it (`wide`: with every column).
pub(super) fn write<T: Serialize>(
    out: &mut dyn Write,
    format: Format,
    value: &T,
    table: impl FnOnce(bool) -> String,
) -> Result<(), Failure> {
    match format {
        Format::Table => out.write_all(table(false).as_bytes())?,
        Format::Wide => out.write_all(table(true).as_bytes())?,
        Format::Json => {
            serde_json::to_writer_pretty(&mut *out, value).map_err(std::io::Error::from)?;
            out.write_all(b"\n")?;
        }
        Format::Yaml => {
            let text = serde_yaml::to_string(value).map_err(std::io::Error::other)?;
            out.write_all(text.as_bytes())?;
        }
    }
    Ok(())
}
