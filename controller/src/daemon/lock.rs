//! One daemon to a run directory.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// The lock's file in the run directory. It is never unlinked while somebody may wait for it: a lock on a file that has another
/// inode by now guards nothing.
const FILE: &str = "weftd.lock";
/// How often, and how long apart, the lock is tried: a killed daemon holds it until the kernel has taken its memory apart, and its
/// successor, started at once, is not to fail for that.
const TRIES: u32 = 20;
const BETWEEN_TRIES: Duration = Duration::from_millis(50);

/// Why the run directory cannot be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// Another daemon has it.
    #[error("another weftd{} runs on {}; stop it first, or use another --run-dir", holder(.pid), .directory.display())]
    Held {
        /// The directory.
        directory: PathBuf,
        /// What the other daemon wrote of itself.
        pid: String,
    },
    /// It cannot be made or used.
    #[error("cannot use the run directory {}", .directory.display())]
    Io {
        /// The directory.
        directory: PathBuf,
        /// The kernel's words.
        source: io::Error,
    },
}

fn holder(pid: &str) -> String {
    if pid.is_empty() { String::new() } else { format!(" (process {pid})") }
}

/// The run directory, held until dropped. The kernel frees it when the process dies, however it dies.
#[derive(Debug)]
pub(super) struct RunDir {
    path: PathBuf,
    _lock: File,
}

impl RunDir {
    /// Makes the directory if need be, and takes it. Waits up to a second for another daemon to be gone.
    pub(super) fn acquire(path: &Path) -> Result<Self, Error> {
        let io = |source| Error::Io { directory: path.to_owned(), source };
        fs::create_dir_all(path).map_err(io)?;
        let mut lock = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path.join(FILE))
            .map_err(io)?;
        match try_for_a_while(&lock) {
            Ok(()) => {}
            Err(TryLockError::Error(source)) => return Err(io(source)),
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                // For the message only.
                let _ = lock.take(16).read_to_string(&mut pid);
                let pid = pid.trim().to_owned();
                return Err(Error::Held { directory: path.to_owned(), pid });
            }
        }
        lock.set_len(0).and_then(|()| lock.seek(SeekFrom::Start(0))).map_err(io)?;
        writeln!(lock, "{}", std::process::id()).map_err(io)?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// The directory.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The lock's own file.
    pub(super) fn lock_file(&self) -> PathBuf {
        self.path.join(FILE)
    }
}

fn try_for_a_while(lock: &File) -> Result<(), TryLockError> {
    for _ in 1..TRIES {
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) => thread::sleep(BETWEEN_TRIES),
            result => return result,
        }
    }
    lock.try_lock()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_daemon_is_refused_until_the_first_is_gone() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("run");
        let first = RunDir::acquire(&path).unwrap();
        let refusal = RunDir::acquire(&path).unwrap_err().to_string();
        assert!(refusal.contains(&format!("process {}", std::process::id())), "{refusal}");
        drop(first);
        RunDir::acquire(&path).unwrap();
    }

    #[test]
    fn a_daemon_that_is_about_to_be_gone_is_waited_for() {
        let parent = tempfile::tempdir().unwrap();
        let first = RunDir::acquire(parent.path()).unwrap();
        let leaving = thread::spawn(move || {
            thread::sleep(2 * BETWEEN_TRIES);
            drop(first);
        });
        RunDir::acquire(parent.path()).unwrap();
        leaving.join().unwrap();
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("file");
        fs::write(&path, "").unwrap();
        let refusal = RunDir::acquire(&path).unwrap_err().to_string();
        assert!(refusal.contains(&path.display().to_string()), "{refusal}");
    }
}
