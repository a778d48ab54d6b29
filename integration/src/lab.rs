//! A lab: namespaces and files of one test, gone when it ends, however it ends.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{fs, io, thread};

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::netns::{self, Namespace};
use crate::process::{SHORT, run, tail};

/// Labs of tests are called this, the test's process id and a number.
const TEST_PREFIX: &str = "weft-lab";

/// How much of each log a failed test shows.
const LOG_LINES: usize = 150;

static NEXT: AtomicU32 = AtomicU32::new(0);
static JANITOR: Once = Once::new();

/// Where one test happens. Everything made in it must be dropped before it, so it is declared first.
#[derive(Debug)]
pub struct Lab {
    name: String,
    directory: PathBuf,
    failed: bool,
    keep: bool,
}

impl Lab {
    /// Runs `body` in a lab of its own. If it fails or panics, the logs of its daemons are shown.
    ///
    /// # Errors
    /// What `body` returns, or why there can be no lab.
    pub fn test(body: impl FnOnce(&Self) -> Result<()>) -> Result<()> {
        JANITOR.call_once(|| {
            // Leftovers of others are no reason to fail; if they are in the way, the lab itself says so.
            let _ = remove_leftovers();
        });
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut lab = Self::new(format!("{TEST_PREFIX}-{}-{number}", std::process::id()))?;
        let result = body(&lab);
        if result.is_err() {
            lab.fail();
        }
        result
    }

    /// A lab of a fixed name, which only one process at a time may use; what an earlier one of that name left is removed.
    ///
    /// # Errors
    /// If namespaces or the directory cannot be made.
    pub fn named(name: &str) -> Result<Self> {
        remove(name)?;
        Self::new(name.to_owned())
    }

    fn new(name: String) -> Result<Self> {
        let directory = std::env::temp_dir().join(&name);
        fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        Ok(Self { name, directory, failed: false, keep: false })
    }

    /// Makes a namespace with `lo` up: a machine.
    ///
    /// # Errors
    /// If there is one of that label.
    pub fn machine(&self, label: &str) -> Result<Namespace> {
        let namespace = self.namespace(label)?;
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Makes a namespace as a container runtime does for a pod: everything down.
    ///
    /// # Errors
    /// If there is one of that label.
    pub fn namespace(&self, label: &str) -> Result<Namespace> {
        Namespace::create(&format!("{}-{label}", self.name), label)
    }

    /// A directory of the lab, made if it is not there.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn directory(&self, path: &str) -> Result<PathBuf> {
        let directory = self.directory.join(path);
        fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        Ok(directory)
    }

    /// The log file of the daemon `name`.
    #[must_use]
    pub fn log(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.log"))
    }

    /// The lab's name; those of its namespaces begin with it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Has the logs shown when this value is gone.
    pub fn fail(&mut self) {
        self.failed = true;
    }

    /// Leaves the files when this value is gone.
    pub fn keep(&mut self) {
        self.keep = true;
    }

    #[expect(clippy::print_stderr, reason = "the test harness shows a failed test's standard error")]
    fn show_logs(&self) {
        let mut logs: Vec<PathBuf> = fs::read_dir(&self.directory)
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
            .collect();
        logs.sort();
        for log in logs {
            let name = log.file_name().unwrap_or_default().to_string_lossy().into_owned();
            eprintln!("----- {name}, last {LOG_LINES} lines\n{}", tail(&log, LOG_LINES));
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.failed || thread::panicking() {
            self.show_logs();
        }
        if !self.keep {
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}

/// Takes down a lab that was left: kills what runs in its namespaces, and removes them and its files.
///
/// # Errors
/// If something of it cannot be removed.
pub fn remove(name: &str) -> Result<()> {
    let prefix = format!("{name}-");
    for namespace in netns::list(|candidate| candidate.starts_with(&prefix))? {
        let inside = run(Command::new("ip").args(["netns", "pids", &namespace]), SHORT)?.stdout;
        for process in inside.lines().filter_map(|line| line.trim().parse().ok()) {
            match kill(Pid::from_raw(process), Signal::SIGKILL) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot kill {process} in {namespace}"));
                }
            }
        }
        run(Command::new("ip").args(["netns", "del", &namespace]), SHORT)?.success()?;
    }
    match fs::remove_dir_all(std::env::temp_dir().join(name)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Removes the labs of test processes that are dead.
fn remove_leftovers() -> Result<()> {
    let mut labs: Vec<String> = netns::list(|name| name.starts_with(TEST_PREFIX))?;
    labs.extend(
        fs::read_dir(std::env::temp_dir())?.filter_map(|entry| entry.ok()?.file_name().into_string().ok()),
    );
    let mut dead: Vec<String> = labs.iter().filter_map(|name| dead_lab(name)).collect();
    dead.sort();
    dead.dedup();
    dead.iter().try_for_each(|lab| remove(lab))
}

/// The lab that a namespace or directory belongs to, if that is a test's whose process is gone.
fn dead_lab(name: &str) -> Option<String> {
    let mut parts = name.strip_prefix(TEST_PREFIX)?.strip_prefix('-')?.splitn(3, '-');
    let process: u32 = parts.next()?.parse().ok()?;
    let number: u32 = parts.next()?.parse().ok()?;
    let alive = Path::new("/proc").join(process.to_string()).exists();
    (!alive).then(|| format!("{TEST_PREFIX}-{process}-{number}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_labs_of_dead_processes_are_swept() {
        let own = std::process::id();
        assert_eq!(dead_lab(&format!("weft-lab-{own}-0-a1")), None);
        // Process ids end at 2^22 on Linux.
        assert_eq!(dead_lab("weft-lab-4194305-3-tor-a"), Some("weft-lab-4194305-3".to_owned()));
        assert_eq!(dead_lab("weft-lab-4194305-3"), Some("weft-lab-4194305-3".to_owned()));
        for foreign in ["weft-demo-a1", "weft-lab-x-0", "weft-lab-", "cni-1234", "weft-labs-4194305-1"] {
            assert_eq!(dead_lab(foreign), None, "{foreign}");
        }
    }
}
