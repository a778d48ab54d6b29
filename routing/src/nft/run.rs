//! The program `nft`, run with a deadline.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// How long `nft` may be silent. It waits for the kernel's lock on the rules, which others' transactions may hold.
const PATIENCE: Duration = Duration::from_secs(10);
/// How much of its output is read, in bytes.
const OUTPUT_MAX: u64 = 4 << 20;

/// Why `nft` did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such program in `PATH`.
    #[error("the program nft is not installed")]
    NotInstalled,
    /// It could not be started or spoken to.
    #[error("cannot run nft: {0}")]
    Run(#[from] std::io::Error),
    /// It did not end and was killed.
    #[error("nft did not end within {} s", PATIENCE.as_secs())]
    TimedOut,
    /// It, or the kernel, says no.
    #[error("nft {arguments}: {message}")]
    Refused {
        /// Its arguments.
        arguments: String,
        /// The first line of its words.
        message: String,
    },
    /// Its JSON is not as libnftables-json(5) says.
    #[error("nft said what is not understood: {0}")]
    Json(#[from] serde_json::Error),
    /// What was put there is gone when it is looked at, time and again.
    #[error("something takes the tables away as soon as they are there")]
    Undone,
}

/// Runs `nft` to its end in the network namespace of the calling thread and gives its standard output.
pub(super) fn nft(arguments: &[&str], input: &str) -> Result<String, Error> {
    let mut child = Command::new("nft")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| match error.kind() {
            ErrorKind::NotFound => Error::NotInstalled,
            _ => Error::Run(error),
        })?;
    let said = converse(&mut child, input);
    if said.is_err() {
        // It may have ended by itself meanwhile; it is reaped below either way.
        let _ = child.kill();
    }
    let status = child.wait()?;
    let (stdout, stderr) = said?;
    if status.success() {
        return Ok(stdout);
    }
    // Releases before 1.0.7 crash where a later one, such as that in kube-proxy's image, has made tables.
    let message = match status.signal() {
        Some(signal) => format!("it crashed (signal {signal}); a newer nft may not"),
        None => stderr.lines().next().unwrap_or("no reason given").to_owned(),
    };
    Err(Error::Refused { arguments: arguments.join(" "), message })
}

/// Feeds the child and reads all it says: standard output, standard error. Each pipe has a thread, so that none of them fills up.
fn converse(child: &mut Child, input: &str) -> Result<(String, String), Error> {
    if let Some(mut stdin) = child.stdin.take() {
        let input = input.to_owned();
        // Whoever does not read to the end says why on standard error.
        thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    }
    let stdout = child.stdout.take().map(read);
    let stderr = child.stderr.take().map(read);
    let gather = |reader: Option<mpsc::Receiver<std::io::Result<String>>>| match reader {
        Some(reader) => match reader.recv_timeout(PATIENCE) {
            Ok(text) => Ok(text?),
            Err(_) => Err(Error::TimedOut),
        },
        None => Ok(String::new()),
    };
    Ok((gather(stdout)?, gather(stderr)?))
}

fn read(pipe: impl Read + Send + 'static) -> mpsc::Receiver<std::io::Result<String>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let result = pipe.take(OUTPUT_MAX).read_to_end(&mut bytes);
        // Nobody waits any more after the deadline.
        let _ = sender.send(result.map(|_| String::from_utf8_lossy(&bytes).into_owned()));
    });
    receiver
}
