//! MRT files (RFC 6396): messages as they pass, and tables from time to time.
//!
//! BGP waits for none of it. Messages go through the speaker's bounded recorder to a thread that writes them; tables are given in pieces and
//! written on the blocking pool. A disk that is slow costs records, which are counted, and one that is full a problem in the status.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;
use weft_bgp::transport::{Command, Handle, Recorder};

pub(super) use self::dump::{PIECES_MAX, dump};
use self::files::{Directory, Kind};
pub(super) use self::state::Shared;
use self::updates::Updates;
use super::clock::Moment;
use crate::plan::Mrt;

mod dump;
mod files;
mod state;
mod updates;

/// How soon a table that could not be written is tried again, unless the next one is due before.
const RETRY: Duration = Duration::from_secs(60);

/// How long the last records may take to be written at the end.
const END_PATIENCE: Duration = Duration::from_secs(2);

/// What is to be written.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    pub(super) mrt: Option<Mrt>,
    /// The speaker; none: there is none yet.
    pub(super) speaker: Option<Handle>,
    /// Whether it has converged once: tables before that tell little.
    pub(super) converged: bool,
}

/// The daemon's end of what writes MRT files.
pub(super) struct Keeper {
    wanted: watch::Sender<Wanted>,
    task: JoinHandle<()>,
}

impl Keeper {
    pub(super) fn start(shared: Shared) -> Self {
        let (wanted, told) = watch::channel(Wanted::default());
        let task = tokio::spawn(follow(told, shared));
        Self { wanted, task }
    }

    pub(super) fn want(&self, mrt: Option<Mrt>, speaker: Option<&Handle>, converged: bool) {
        self.wanted.send_if_modified(|told| {
            let changed =
                (told.mrt, told.speaker.is_some(), told.converged) != (mrt, speaker.is_some(), converged);
            *told = Wanted { mrt, speaker: speaker.cloned(), converged };
            changed
        });
    }

    /// Writes what waits, and ends.
    pub(super) async fn stop(self) {
        drop(self.wanted);
        if timeout(END_PATIENCE, self.task).await.is_err() {
            tracing::warn!("the last MRT records could not be written in time");
        }
    }
}

/// A thread that writes messages, and what it was begun for.
struct Running {
    mrt: Mrt,
    recorder: Arc<Recorder>,
    /// Heard of when everything is written.
    end: oneshot::Receiver<()>,
}

async fn follow(mut wanted: watch::Receiver<Wanted>, shared: Shared) {
    let directory = Directory::new(shared.directory());
    let cleared = directory.clone();
    if let Ok(Err(error)) = spawn_blocking(move || cleared.clear()).await {
        tracing::warn!(%error, "cannot remove unfinished MRT files");
    }
    let mut running: Option<Running> = None;
    let mut next_table: Option<Instant> = None;
    loop {
        let Wanted { mrt, speaker, converged } = wanted.borrow_and_update().clone();
        if mrt.is_none() {
            shared.reset_problem();
        }
        let updates = mrt.filter(|mrt| mrt.rotate_after.is_some() && speaker.is_some());
        if running.as_ref().map(|running| running.mrt) != updates {
            end(running.take(), speaker.as_ref()).await;
            running = match (updates, &speaker) {
                (Some(mrt), Some(speaker)) => begin(&directory, mrt, speaker, &shared).await,
                _ => None,
            };
        }
        let tables = mrt.filter(|_| converged).and_then(|mrt| Some((mrt, mrt.table_interval?))).zip(speaker);
        let now = Moment::now().instant;
        next_table = tables.as_ref().map(|((_, interval), _)| next_table.unwrap_or(now).min(now + *interval));
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() { break },
            () = until(next_table) => if let Some(((mrt, interval), speaker)) = tables {
                let written = table(&directory, mrt.size_limit, speaker, &shared).await;
                let wait = if written { interval } else { interval.min(RETRY) };
                next_table = Some(Moment::now().instant + wait);
            },
        }
    }
    end(running, None).await;
}

async fn begin(directory: &Directory, mrt: Mrt, speaker: &Handle, shared: &Shared) -> Option<Running> {
    let recorder = Arc::new(Recorder::default());
    let updates = Updates::new(directory.clone(), mrt.size_limit, mrt.rotate_after?, shared.clone());
    let taken = Arc::clone(&recorder);
    let (ended, end) = oneshot::channel();
    let thread = thread::Builder::new().name("weft-mrt".into()).spawn(move || {
        updates.run(&taken);
        // Whoever waits for it may have given up.
        let _ = ended.send(());
    });
    if let Err(error) = thread {
        shared.failed(&error);
        return None;
    }
    speaker.send(Command::Record(Some(Arc::clone(&recorder)))).await.ok()?;
    Some(Running { mrt, recorder, end })
}

async fn end(running: Option<Running>, speaker: Option<&Handle>) {
    let Some(running) = running else { return };
    if let Some(speaker) = speaker {
        // A speaker that has stopped records nothing.
        let _ = speaker.send(Command::Record(None)).await;
    }
    running.recorder.close();
    // An error is a panic of the thread's, which has told itself.
    let _ = running.end.await;
}

/// Writes a table; whether that went well.
async fn table(directory: &Directory, size_limit: u64, speaker: Handle, shared: &Shared) -> bool {
    let now = Moment::now();
    let (sender, pieces) = mpsc::channel(PIECES_MAX);
    let (directory, shared) = (directory.clone(), shared.clone());
    let written = spawn_blocking(move || {
        let written = write_table(&directory, size_limit, now, pieces, &shared);
        match &written {
            Ok((file, usage)) => shared.table(file, *usage),
            Err(error) => shared.table_failed(error),
        }
        written.is_ok()
    });
    dump(speaker, now.instant, sender).await;
    written.await.unwrap_or(false)
}

fn write_table(
    directory: &Directory,
    size_limit: u64,
    now: Moment,
    mut pieces: mpsc::Receiver<io::Result<Bytes>>,
    shared: &Shared,
) -> io::Result<(PathBuf, files::Usage)> {
    let mut file = directory.begin(Kind::Rib, now.timestamp)?;
    while let Some(piece) = pieces.blocking_recv() {
        let appended = piece.and_then(|piece| file.append(&piece));
        let too_large = file.octets() > size_limit / 2;
        if let Err(error) = appended.and(if too_large { Err(larger_than_half()) } else { Ok(()) }) {
            file.discard();
            return Err(error);
        }
    }
    let path = file.finish()?;
    let updates = shared.updates_file();
    let kept: Vec<_> = updates.iter().chain([&path]).map(PathBuf::as_path).collect();
    let usage = directory.prune(size_limit, &kept)?;
    Ok((path, usage))
}

fn larger_than_half() -> io::Error {
    io::Error::other("the table takes more than half of mrt.sizeLimit, which must be raised")
}

/// Waits for a moment; for ever while there is none to wait for.
async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
