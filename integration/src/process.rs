//! Child processes: commands that end, and daemons that run until they are told otherwise.

use std::fs::File;
use std::io::{Read, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait::{now, wait_until};

/// How long a command may take that only asks or sets something on this machine.
pub const SHORT: Duration = Duration::from_secs(20);

/// What a command that ended left behind.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl Finished {
    /// Itself, if it ended with exit code 0.
    ///
    /// # Errors
    /// Anything else, with both outputs.
    pub fn success(self) -> Result<Self> {
        ensure!(self.status.success(), "{}: {} {}", self.status, self.stderr.trim(), self.stdout.trim());
        Ok(self)
    }
}

/// Runs `command` to its end.
///
/// # Errors
/// If it cannot be started or takes longer than `limit`; it is then killed.
pub fn run(command: &mut Command, limit: Duration) -> Result<Finished> {
    run_with_input(command, &[], limit)
}

/// Runs `command` to its end with `input` on its standard input.
///
/// # Errors
/// If it cannot be started or takes longer than `limit`; it is then killed.
pub fn run_with_input(command: &mut Command, input: &[u8], limit: Duration) -> Result<Finished> {
    let what = describe(command);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {what}"))?;
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    // A program that does not read its input is its own business: EPIPE here says nothing that its exit code does not.
    let _ = child.stdin.take().map(|mut stdin| stdin.write_all(input));
    let end = now() + limit;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Ok(status);
        }
        if now() >= end {
            child.kill()?;
            child.wait()?;
            break Err(anyhow!("took longer than {limit:?}"));
        }
        thread::sleep(Duration::from_millis(1));
    };
    let (stdout, stderr) = (join(stdout), join(stderr));
    let status = status.with_context(|| format!("{what}: {stderr} {stdout}"))?;
    Ok(Finished { status, stdout, stderr })
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read before an error is still worth showing.
        let _ = pipe.map(|mut pipe| pipe.read_to_end(&mut bytes));
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn join(reader: thread::JoinHandle<String>) -> String {
    reader.join().unwrap_or_else(|_| "(the reader of this output panicked)".to_owned())
}

fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// A daemon with its output in a file; killed when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with both outputs appended to `log`.
    ///
    /// # Errors
    /// If the log cannot be opened or the program cannot be started.
    pub fn start(name: impl Into<String>, command: &mut Command, log: &Path) -> Result<Self> {
        let name = name.into();
        let file = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("cannot open {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start {name}: {}", describe(command)))?;
        Ok(Self { name, child, log: log.to_owned() })
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Fails if the process has ended.
    ///
    /// # Errors
    /// How it ended, with the last lines of its log.
    pub fn ensure_running(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => {
                Err(anyhow!("{} ended: {status}; its log ends with:\n{}", self.name, tail(&self.log, 20)))
            }
        }
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// If the process has ended.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        self.ensure_running()?;
        kill(self.pid()?, signal).with_context(|| format!("cannot send {signal} to {}", self.name))
    }

    /// SIGKILL, and waits until the process is gone.
    ///
    /// # Errors
    /// If it had ended before: a daemon that died by itself is a finding.
    pub fn kill9(mut self) -> Result<()> {
        self.signal(Signal::SIGKILL)?;
        let status = self.child.wait()?;
        ensure!(status.signal() == Some(Signal::SIGKILL as i32), "{} ended by itself: {status}", self.name);
        Ok(())
    }

    /// SIGTERM, and waits until the process is gone.
    ///
    /// # Errors
    /// If it had ended before, takes longer than `limit`, or ends with an error.
    pub fn terminate(mut self, limit: Duration) -> Result<()> {
        self.signal(Signal::SIGTERM)?;
        let status = wait_until(format!("{} to end after SIGTERM", self.name), limit, || {
            self.child.try_wait()?.context("it still runs")
        })?;
        ensure!(
            status.success(),
            "{} ended with {status} after SIGTERM; its log ends with:\n{}",
            self.name,
            tail(&self.log, 20)
        );
        Ok(())
    }

    /// Lets the process go on after this value is gone.
    pub fn leave_running(self) {
        std::mem::forget(self);
    }

    fn pid(&self) -> Result<Pid> {
        Ok(Pid::from_raw(i32::try_from(self.child.id())?))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only where the process is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The last `lines` lines of a text file; a message if it cannot be read.
#[must_use]
pub fn tail(path: &Path, lines: usize) -> String {
    match std::fs::read(path) {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            let all: Vec<&str> = text.lines().collect();
            all.get(all.len().saturating_sub(lines)..).unwrap_or_default().join("\n")
        }
        Err(error) => format!("(cannot read {}: {error})", path.display()),
    }
}

/// The path of one of the project's own programs, in the target directory that this test or demo was built into.
///
/// # Errors
/// If it is not there. Cargo builds a crate's programs for that crate's tests only, so they must be built first.
pub fn own_program(name: &str) -> Result<PathBuf> {
    let this = std::env::current_exe()?;
    let directory = this.parent().context("this program is in no directory")?;
    let directory = if directory.ends_with("deps") {
        directory.parent().context("deps is in no directory")?
    } else {
        directory
    };
    let path = directory.join(name);
    ensure!(
        path.is_file(),
        "{} is not there: build it first, `cargo build --workspace --bins`",
        path.display()
    );
    Ok(path)
}

/// The path of somebody else's program.
///
/// # Errors
/// If none of `candidates` exists; names the Debian `package` that has it.
pub fn foreign_program(candidates: &[&str], package: &str) -> Result<PathBuf> {
    let found = candidates.iter().map(Path::new).find(|path| path.is_file());
    Ok(found
        .with_context(|| format!("none of {candidates:?} is there: install the Debian package {package}"))?
        .to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_and_status_are_kept() {
        let done = run_with_input(Command::new("sh").args(["-c", "cat; echo bad >&2; exit 3"]), b"in", SHORT)
            .expect("sh runs");
        assert_eq!(
            (done.status.code(), done.stdout.as_str(), done.stderr.as_str()),
            (Some(3), "in", "bad\n")
        );
        assert!(done.success().is_err());
    }

    #[test]
    fn a_command_past_its_deadline_is_killed() {
        let error =
            run(Command::new("sleep").arg("60"), Duration::from_millis(50)).expect_err("60 s is too long");
        assert!(format!("{error:#}").contains("longer than 50ms"), "{error:#}");
    }

    #[test]
    fn a_dead_daemon_is_noticed_with_its_last_words() {
        let log = std::env::temp_dir().join(format!("weft-process-test-{}", std::process::id()));
        let mut process =
            Process::start("short", Command::new("sh").args(["-c", "echo farewell"]), &log).expect("sh runs");
        let error = wait_until("the end", SHORT, || match process.ensure_running() {
            Ok(()) => anyhow::bail!("still there"),
            Err(error) => Ok(error),
        });
        std::fs::remove_file(&log).expect("the log exists");
        assert!(format!("{:#}", error.expect("it ends")).contains("farewell"));
    }
}
