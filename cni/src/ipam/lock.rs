//! Locks between processes, with a deadline.
//!
//! Open-file-description locks (fcntl(2), `F_OFD_SETLK`) on ranges of one file: they end with the process, exclude
//! threads of one process too, and one file serves the store and every key.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

use super::{Error, Key};
use crate::hash::fnv1a;

/// How long a lock is waited for in all. The store is held for well under a millisecond at a time; a key for as long
/// as an ADD or DEL takes.
const PATIENCE: Duration = Duration::from_secs(20);
const FIRST_PAUSE: Duration = Duration::from_micros(50);

/// What is locked: one byte of the lock file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Subject(i64);

impl Subject {
    /// The journal.
    pub(super) const STORE: Self = Self(0);

    /// Commands for one attachment. Two keys that share a byte merely wait for each other.
    pub(super) fn of_key(key: &Key) -> Self {
        let hash =
            fnv1a(&[key.network.as_bytes(), b"/", key.container_id.as_bytes(), b"/", key.ifname.as_bytes()]);
        // 62 bits and one more stay below the largest file offset.
        Self(i64::try_from(hash >> 2).unwrap_or(0).saturating_add(1))
    }

    /// The longest pause between two tries: about as long as the lock is held.
    fn longest_pause(self) -> Duration {
        if self == Self::STORE { Duration::from_micros(400) } else { Duration::from_millis(5) }
    }
}

/// A lock that is held as long as the value lives.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Waits for the lock, at most [`PATIENCE`].
    pub(super) fn acquire(path: &Path, subject: Subject) -> Result<Self, Error> {
        let file = open(path)?;
        let mut waited = Duration::ZERO;
        let mut pause = FIRST_PAUSE;
        while !try_lock(&file, subject).map_err(cannot_lock(path))? {
            if waited >= PATIENCE {
                return Err(Error::Busy { path: path.to_owned(), waited });
            }
            std::thread::sleep(pause);
            waited = waited.saturating_add(pause);
            pause = pause.saturating_mul(2).min(subject.longest_pause());
        }
        Ok(Self { _file: file })
    }

    /// Locks those of `keys` that nobody holds, without waiting, and says which they are.
    pub(super) fn of_free(
        path: &Path,
        keys: impl IntoIterator<Item = Key>,
    ) -> Result<(Self, BTreeSet<Key>), Error> {
        let file = open(path)?;
        let mut locked = BTreeSet::new();
        for key in keys {
            // Keys that share a byte do not exclude each other here: the lock is the open file's.
            if try_lock(&file, Subject::of_key(&key)).map_err(cannot_lock(path))? {
                locked.insert(key);
            }
        }
        Ok((Self { _file: file }, locked))
    }
}

fn open(path: &Path) -> Result<File, Error> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(|source| Error::Io { action: "open", path: path.to_owned(), source })
}

/// `map_err` for a lock that the kernel did not even try to take.
fn cannot_lock(path: &Path) -> impl Fn(Errno) -> Error {
    move |errno| Error::Io { action: "lock", path: path.to_owned(), source: errno.into() }
}

/// Takes the lock unless somebody holds it; says whether it did.
pub(super) fn try_lock(file: &File, subject: Subject) -> Result<bool, Errno> {
    let range = libc::flock {
        // Both constants are 0 or 1.
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: subject.0,
        l_len: 1,
        l_pid: 0,
    };
    match fcntl(file, FcntlArg::F_OFD_SETLK(&range)) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES | Errno::EINTR) => Ok(false),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(container_id: &str) -> Key {
        Key { network: "n".into(), container_id: container_id.into(), ifname: "eth0".into() }
    }

    #[test]
    fn a_subject_has_one_holder_and_subjects_are_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = Lock::acquire(&path, Subject::STORE).unwrap();
        let other = File::options().write(true).open(&path).unwrap();
        assert!(!try_lock(&other, Subject::STORE).unwrap());
        assert!(try_lock(&other, Subject::of_key(&key("a"))).unwrap());
        Lock::acquire(&path, Subject::of_key(&key("b"))).unwrap();
        drop(held);
        assert!(try_lock(&other, Subject::STORE).unwrap());
    }
}
