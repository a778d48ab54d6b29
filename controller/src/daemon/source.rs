//! Folders as sources of changes: inotify and SIGHUP, coalesced.
//!
//! A watch only says *that* a folder should be read again; it is then read whole. So nothing is lost however many changes are
//! coalesced.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use inotify::{EventMask, EventStream, Inotify, WatchMask};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep_until};

use crate::documents;
use crate::kubernetes::Followed;

/// A folder is read again this long after its last change.
pub(super) const QUIET: Duration = Duration::from_millis(100);
/// A folder that never comes to rest is read all the same.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often to look for a folder that went away, or to try again to watch it.
const REWATCH: Duration = Duration::from_secs(1);

/// Reads a folder of documents now, and again whenever it changes or SIGHUP arrives, for as long as somebody listens.
///
/// # Errors
/// See [`FolderWatch::start`].
pub(super) fn documents(folder: &Path) -> io::Result<Followed> {
    let watch = FolderWatch::start(folder)?;
    let (readings, receiver) = mpsc::channel(1);
    let folder = folder.to_owned();
    tokio::spawn(async move {
        loop {
            let folder = folder.clone();
            // A panic in there is a bug that must not take the daemon with it; the last reading stays.
            if let Ok(reading) = tokio::task::spawn_blocking(move || documents::load(&folder)).await
                && readings.send(reading.into()).await.is_err()
            {
                return;
            }
            watch.changed().await;
        }
    });
    let (_, trouble) = watch::channel(None);
    Ok(Followed { readings: receiver, trouble })
}

/// Watches a folder until dropped.
#[derive(Debug)]
pub(super) struct FolderWatch {
    changed: Arc<Notify>,
    task: tokio::task::JoinHandle<()>,
}

impl FolderWatch {
    /// Starts watching. A folder that does not exist (yet) is waited for.
    ///
    /// # Errors
    /// The process cannot handle SIGHUP, or has no inotify instance left.
    pub(super) fn start(folder: &Path) -> io::Result<Self> {
        Self::watch(Subject { folder: folder.to_owned(), file: None })
    }

    /// The same, but only changes of the file of this name count.
    ///
    /// # Errors
    /// See [`FolderWatch::start`].
    pub(super) fn start_for(folder: &Path, file: &str) -> io::Result<Self> {
        Self::watch(Subject { folder: folder.to_owned(), file: Some(file.into()) })
    }

    fn watch(subject: Subject) -> io::Result<Self> {
        let hangup = signal(SignalKind::hangup())?;
        let watch = Watch::new(&subject)?;
        let changed = Arc::new(Notify::new());
        let task = tokio::spawn(run(subject, watch, hangup, Arc::clone(&changed)));
        Ok(Self { changed, task })
    }

    /// Waits until the folder should be read again. Cancel safe.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }
}

impl Drop for FolderWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What is watched.
#[derive(Clone, Debug)]
struct Subject {
    folder: PathBuf,
    /// The only file in it that counts.
    file: Option<OsString>,
}

async fn run(subject: Subject, mut watch: Watch, mut hangup: Signal, changed: Arc<Notify>) {
    loop {
        tokio::select! {
            _ = hangup.recv() => changed.notify_one(),
            gone = watch.settled() => {
                changed.notify_one();
                if gone {
                    watch = Watch::again(&subject, &mut hangup, &changed).await;
                    changed.notify_one();
                }
            }
        }
    }
}

/// One inotify watch on one inode.
struct Watch {
    events: EventStream<[u8; 4096]>,
    /// Whether the folder was there to be watched.
    watching: bool,
    file: Option<OsString>,
}

/// What an event says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// The folder's content changed.
    Change,
    /// The folder itself is gone, or its watch.
    Gone,
    /// Nothing that counts.
    Nothing,
}

impl Watch {
    fn new(subject: &Subject) -> io::Result<Self> {
        let inotify = Inotify::init()?;
        // Not CLOSE_WRITE: a reader that opens a file for writing too would be taken for a change.
        let mask = WatchMask::MODIFY
            | WatchMask::CREATE
            | WatchMask::DELETE
            | WatchMask::MOVE
            | WatchMask::ATTRIB
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE_SELF
            | WatchMask::ONLYDIR;
        let watching = match inotify.watches().add(&subject.folder, mask) {
            Ok(_) => true,
            Err(error) => {
                tracing::debug!(folder = %subject.folder.display(), %error, "cannot watch the folder");
                false
            }
        };
        Ok(Self { events: inotify.into_event_stream([0; 4096])?, watching, file: subject.file.clone() })
    }

    /// Looks for the folder until it can be watched again. SIGHUP still works meanwhile.
    async fn again(subject: &Subject, hangup: &mut Signal, changed: &Notify) -> Self {
        tracing::warn!(folder = %subject.folder.display(), "the folder cannot be watched; looking for it every second");
        loop {
            match Self::new(subject) {
                Ok(watch) if watch.watching => return watch,
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "cannot create an inotify instance, trying again"),
            }
            tokio::select! {
                () = tokio::time::sleep(REWATCH) => {}
                _ = hangup.recv() => changed.notify_one(),
            }
        }
    }

    /// Waits for a change and then for quiet. Returns whether the folder itself is gone, so that the watch is of no more use.
    async fn settled(&mut self) -> bool {
        if !self.watching {
            return true;
        }
        loop {
            match self.next().await {
                Seen::Change => break,
                Seen::Gone => return true,
                Seen::Nothing => {}
            }
        }
        let patience = Instant::now() + PATIENCE;
        let mut quiet = Instant::now() + QUIET;
        loop {
            tokio::select! {
                seen = self.next() => match seen {
                    Seen::Change => quiet = Instant::now() + QUIET,
                    Seen::Gone => return true,
                    Seen::Nothing => {}
                },
                () = sleep_until(quiet.min(patience)) => return false,
            }
        }
    }

    /// Waits for one event. Cancel safe.
    async fn next(&mut self) -> Seen {
        let gone = EventMask::DELETE_SELF | EventMask::MOVE_SELF | EventMask::UNMOUNT | EventMask::IGNORED;
        match self.events.next().await {
            Some(Ok(event)) if event.mask.intersects(gone) => Seen::Gone,
            // Events were lost: any of them may have counted.
            Some(Ok(event)) if event.mask.contains(EventMask::Q_OVERFLOW) => Seen::Change,
            Some(Ok(event)) if self.file.is_some() && event.name != self.file => Seen::Nothing,
            Some(Ok(_)) => Seen::Change,
            Some(Err(_)) | None => Seen::Gone,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tokio::time::timeout;

    use super::*;

    /// Long enough for a busy machine; what is awaited comes after 100 ms.
    const DEADLINE: Duration = Duration::from_secs(10);

    const POOL: &str = "apiVersion: weft.network/v1alpha1\nkind: IPPool\nmetadata: {name: pods}\nspec: {cidr: 10.244.0.0/16}\n";

    async fn awaited<T>(what: &str, event: impl Future<Output = T>) -> T {
        timeout(DEADLINE, event).await.unwrap_or_else(|_| panic!("{what} did not come"))
    }

    #[tokio::test]
    async fn a_burst_of_changes_is_one_reading_after_it() {
        let folder = tempfile::tempdir().unwrap();
        let watch = FolderWatch::start(folder.path()).unwrap();
        for n in 0..20 {
            fs::write(folder.path().join(format!("{n}.yaml")), "").unwrap();
        }
        let last_write = Instant::now();
        awaited("the change", watch.changed()).await;
        assert!(last_write.elapsed() >= QUIET - Duration::from_millis(20), "{:?}", last_write.elapsed());
        let again = timeout(2 * QUIET, watch.changed()).await;
        assert!(again.is_err(), "one burst was told twice");
    }

    #[tokio::test]
    async fn a_folder_that_goes_and_comes_back_is_watched_again() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("manifests");
        let watch = FolderWatch::start(&folder).unwrap();
        awaited("word that the folder is not there", watch.changed()).await;
        fs::create_dir(&folder).unwrap();
        awaited("word that the folder is there", watch.changed()).await;
        fs::write(folder.join("a.yaml"), "").unwrap();
        awaited("word of the file", watch.changed()).await;
        fs::remove_dir_all(&folder).unwrap();
        awaited("word that the folder is gone", watch.changed()).await;
    }

    #[tokio::test]
    async fn hangup_asks_for_a_reading() {
        let folder = tempfile::tempdir().unwrap();
        let watch = FolderWatch::start(folder.path()).unwrap();
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGHUP).unwrap();
        awaited("the effect of SIGHUP", watch.changed()).await;
    }

    #[tokio::test]
    async fn documents_are_read_at_once_and_again_when_they_change() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("pool.yaml"), POOL).unwrap();
        let mut readings = documents(folder.path()).unwrap().readings;
        let first = awaited("the first reading", readings.recv()).await.unwrap().cluster.unwrap();
        assert!(first.pools.contains_key("pods"));
        fs::write(folder.path().join("pool.yaml"), POOL.replace("10.244.0.0", "10.244.0.1")).unwrap();
        let mut reading = awaited("the second reading", readings.recv()).await.unwrap();
        while reading.errors.is_empty() {
            reading = awaited("a reading with the error", readings.recv()).await.unwrap();
        }
        assert_eq!((reading.cluster, reading.errors.len()), (None, 1));
    }
}
