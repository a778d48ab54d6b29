//! Running code inside another network namespace, without moving the caller.
//!
//! A network namespace is a property of a thread (namespaces(7)); `setns` on a thread of a pool would leak the
//! namespace to whatever runs there next. So every entry happens on a thread made for it, which ends with it.

use std::fs::File;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};

/// Why a network namespace could not be entered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The path does not exist or cannot be opened.
    #[error("cannot open network namespace {}: {} ({errno:?})", path.display(), errno.desc())]
    Open {
        /// The path that was given.
        path: PathBuf,
        /// Why `open` failed.
        errno: Errno,
    },
    /// The path is no network namespace, or the caller lacks CAP_SYS_ADMIN.
    #[error("cannot enter network namespace {}: {} ({errno:?})", path.display(), errno.desc())]
    Enter {
        /// The path that was given.
        path: PathBuf,
        /// Why `setns` failed.
        errno: Errno,
    },
    /// The system has no thread left to enter the namespace with.
    #[error("cannot start a thread to enter a network namespace: {0}")]
    Thread(String),
}

/// Runs `work` inside the network namespace at `path` (for example `/run/netns/blue` or `/proc/17/ns/net`) on a
/// thread of its own and returns what it returned. Files and sockets that `work` opens and returns stay bound
/// to that namespace; `/proc/sys/net` shows that namespace while `work` runs.
///
/// A panic in `work` continues in the caller.
pub fn run<T: Send>(path: &Path, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, || {
                enter(path)?;
                Ok(work())
            })
            .map_err(|error| Error::Thread(error.to_string()))?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Moves the calling thread into the namespace, for good.
fn enter(path: &Path) -> Result<(), Error> {
    let file = File::open(path).map_err(|error| Error::Open {
        path: path.to_owned(),
        errno: Errno::from_raw(error.raw_os_error().unwrap_or(0)),
    })?;
    setns(file, CloneFlags::CLONE_NEWNET).map_err(|errno| Error::Enter { path: path.to_owned(), errno })
}
