//! `weftctl mrt`: the table as an MRT file.

use std::fs::{self, OpenOptions};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

use super::client::Client;
use super::{Exit, Failure};

/// Dumps the table to a file, or to `out`.
pub(super) fn run(client: &mut Client, file: Option<&Path>, out: &mut dyn Write) -> Result<Exit, Failure> {
    match file {
        None if io::stdout().is_terminal() => {
            return Err(Failure::Usage(
                "a dump is not for terminals: name a file with --write FILE, or a program with a pipe".into(),
            ));
        }
        None => client.download("/v1/mrt", out)?,
        Some(file) => to_file(client, file)?,
    }
    Ok(Exit::Good)
}

/// The file has its name only once it is whole.
fn to_file(client: &mut Client, file: &Path) -> Result<(), Failure> {
    let mut partial = file.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let cannot = |error: io::Error| Failure::Usage(format!("cannot write {}: {error}", file.display()));
    let new = OpenOptions::new().write(true).create_new(true).open(&partial);
    let mut new = BufWriter::new(new.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Failure::Usage(format!(
            "{} is there already, of another dump that is under way or broke off; remove it",
            partial.display()
        )),
        _ => cannot(error),
    })?);
    let written = client
        .download("/v1/mrt", &mut new)
        .and_then(|()| new.flush().and_then(|()| fs::rename(&partial, file)).map_err(cannot));
    if written.is_err() {
        // The error tells more than what comes of this.
        let _ = fs::remove_file(&partial);
    }
    written
}
