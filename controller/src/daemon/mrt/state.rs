//! What has become of MRT files, for status and metrics.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::files::Usage;
use crate::api::json::{MrtJson, Problem};

/// For how long records that were dropped are a problem.
const DROPPED_FOR: Duration = Duration::from_secs(600);

/// What is known, shared by those who write and those who tell.
#[derive(Clone, Debug, Default)]
pub(in crate::daemon) struct Shared(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    directory: PathBuf,
    records: u64,
    dropped: u64,
    dropped_at: Option<Instant>,
    tables: u64,
    tables_failed: u64,
    usage: Usage,
    updates_file: Option<PathBuf>,
    table_file: Option<PathBuf>,
    problem: Option<Problem>,
}

impl Shared {
    pub(in crate::daemon) fn new(directory: PathBuf) -> Self {
        Self(Arc::new(Mutex::new(State { directory, ..State::default() })))
    }

    /// Where the files are.
    pub(super) fn directory(&self) -> PathBuf {
        self.lock().directory.clone()
    }

    /// The file that messages are written to at present.
    pub(super) fn updates_file(&self) -> Option<PathBuf> {
        self.lock().updates_file.clone()
    }

    /// How it stands, in JSON.
    pub(in crate::daemon) fn json(&self) -> MrtJson {
        let state = self.lock();
        MrtJson {
            directory: state.directory.display().to_string(),
            records: state.records,
            dropped: state.dropped,
            tables: state.tables,
            tables_failed: state.tables_failed,
            files: state.usage.files,
            size: state.usage.octets,
            updates_file: state.updates_file.as_deref().and_then(name),
            table_file: state.table_file.as_deref().and_then(name),
        }
    }

    /// What is wrong.
    pub(in crate::daemon) fn problems(&self, now: Instant) -> Vec<Problem> {
        let state = self.lock();
        let lately = state.dropped_at.is_some_and(|at| now.saturating_duration_since(at) < DROPPED_FOR);
        // Where nothing can be written, that is what was dropped for.
        let dropped = (lately && state.problem.is_none()).then(|| {
            Problem::warning(
                "mrt-dropped",
                format!(
                    "messages are missing in the MRT files: {} since the start, the last within 10 min",
                    state.dropped
                ),
                "the disk takes less than BGP says; see what else writes to it, or put --mrt-dir on another",
            )
        });
        state.problem.iter().cloned().chain(dropped).collect()
    }

    /// Nothing is asked for any more.
    pub(super) fn reset_problem(&self) {
        let mut state = self.lock();
        (state.problem, state.dropped_at, state.updates_file) = (None, None, None);
    }

    pub(super) fn failed(&self, error: &io::Error) {
        let mut state = self.lock();
        let problem = Problem::warning(
            "mrt-not-written",
            format!("MRT files cannot be written in {}: {error}", state.directory.display()),
            "make room, or the directory writable, or put --mrt-dir elsewhere; it is tried again by itself, and BGP does not wait for it",
        );
        if state.problem.as_ref() != Some(&problem) {
            tracing::warn!(code = problem.code, remedy = problem.remedy, "{}", problem.text);
        }
        state.problem = Some(problem);
    }

    pub(super) fn wrote(&self, records: u64) {
        let mut state = self.lock();
        state.records = state.records.saturating_add(records);
        state.problem = None;
    }

    pub(super) fn dropped(&self, records: u64, now: Instant) {
        if records > 0 {
            let mut state = self.lock();
            state.dropped = state.dropped.saturating_add(records);
            state.dropped_at = Some(now);
        }
    }

    pub(super) fn began(&self, file: &Path, usage: Usage) {
        let mut state = self.lock();
        (state.updates_file, state.usage) = (Some(file.to_owned()), usage);
    }

    pub(super) fn ended(&self, usage: Option<Usage>) {
        let mut state = self.lock();
        state.updates_file = None;
        state.usage = usage.unwrap_or(state.usage);
    }

    pub(super) fn table(&self, file: &Path, usage: Usage) {
        let mut state = self.lock();
        state.tables = state.tables.saturating_add(1);
        (state.table_file, state.usage, state.problem) = (Some(file.to_owned()), usage, None);
    }

    pub(super) fn table_failed(&self, error: &io::Error) {
        let mut state = self.lock();
        state.tables_failed = state.tables_failed.saturating_add(1);
        drop(state);
        self.failed(error);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn name(file: &Path) -> Option<String> {
    Some(file.file_name()?.to_string_lossy().into_owned())
}
