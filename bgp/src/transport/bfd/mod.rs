//! BFD on sockets, on an OS thread of its own: however busy the runtime is, packets leave and arrive in time.
//!
//! The thread shares with the driver what it is told (`Wanted`, behind a lock that is held for a moment) and how its sessions stand
//! (`Standings`, of which only the last counts). Neither ever waits for the other.

mod sessions;
mod sockets;
mod thread;

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::eventfd::{EfdFlags, EventFd};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

pub(super) use self::sessions::Sessions;

use crate::bfd::{Change, Discards, Remote, Resumption, SessionConfig, SessionStatus};

/// How many questions may wait for the thread; who asks more is told nothing.
const ASKS_MAX: usize = 64;

/// How long the end of all sessions may take to be told.
const STOP_PATIENCE: Duration = Duration::from_millis(200);

/// How BFD is, at one moment.
#[derive(Clone, Debug, Default)]
pub struct BfdReport {
    /// The sessions that are wanted.
    pub sessions: BTreeMap<Remote, SessionStatus>,
    /// Packets that were discarded.
    pub discards: Discards,
    /// Ports that cannot be listened on, and why; it is tried again every second. Without a port: why there is no BFD at all.
    pub errors: BTreeMap<Option<u16>, String>,
}

/// How a session stands, and how often it has changed: changes that come close together are told as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// The last change.
    pub(super) change: Change,
    /// How many changes there were.
    pub(super) changes: u64,
    /// How many of them were failures.
    pub(super) failures: u64,
    /// What another process would need to go on with the session, while it is Up.
    pub(super) resumption: Option<Resumption>,
}

/// The sessions that have changed since they are wanted.
pub(super) type Standings = BTreeMap<Remote, Standing>;

/// What the thread is told.
#[derive(Debug, Default)]
struct Wanted {
    /// Sessions of a process that died, to go on with.
    resume: Option<BTreeMap<Remote, Resumption>>,
    /// The sessions, if they are other ones than it was told before.
    sessions: Option<BTreeMap<Remote, SessionConfig>>,
    /// All sessions are to be AdminDown; whom to tell when that is said.
    stop: Option<oneshot::Sender<()>>,
    asks: Vec<oneshot::Sender<BfdReport>>,
    /// The thread is to end.
    end: bool,
}

#[derive(Debug)]
struct Shared {
    wanted: Mutex<Wanted>,
    wake: EventFd,
}

impl Shared {
    fn wanted(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, what: impl FnOnce(&mut Wanted)) {
        what(&mut self.wanted());
        // Full is a counter that the thread has not read: it is awake already.
        let _ = self.wake.write(1);
    }
}

/// The driver's end of the thread, which ends with it.
#[derive(Debug)]
pub(super) struct Bfd {
    shared: Arc<Shared>,
    /// How the sessions stand; closed when the thread has died.
    pub(super) standings: watch::Receiver<Standings>,
}

impl Bfd {
    /// Starts the thread, in the caller's network namespace.
    ///
    /// # Errors
    /// The system gives no thread or no descriptor.
    pub(super) fn start() -> io::Result<Self> {
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let shared = Arc::new(Shared { wanted: Mutex::default(), wake });
        let (told, standings) = watch::channel(Standings::new());
        let seed = RandomState::new().hash_one(std::process::id());
        let thread = thread::Thread::new(Arc::clone(&shared), told, seed);
        std::thread::Builder::new().name("bfd".into()).spawn(move || thread.run())?;
        Ok(Self { shared, standings })
    }

    /// These sessions, and no others; `resume` are those of a process that died.
    pub(super) fn configure(
        &self,
        sessions: BTreeMap<Remote, SessionConfig>,
        resume: Option<BTreeMap<Remote, Resumption>>,
    ) {
        self.shared.tell(|wanted| {
            wanted.sessions = Some(sessions);
            wanted.resume = resume.or(wanted.resume.take());
        });
    }

    /// Has the thread answer.
    pub(super) fn ask(&self, answer: oneshot::Sender<BfdReport>) {
        self.shared.tell(|wanted| {
            if wanted.asks.len() < ASKS_MAX {
                wanted.asks.push(answer);
            }
        });
    }

    /// Makes every session AdminDown, and waits a moment until that is told.
    pub(super) async fn stop(&self) {
        let (done, stopped) = oneshot::channel();
        self.shared.tell(|wanted| wanted.stop = Some(done));
        // In vain if the thread has died; then there is nothing to be told.
        let _ = timeout(STOP_PATIENCE, stopped).await;
    }
}

impl Drop for Bfd {
    fn drop(&mut self) {
        self.shared.tell(|wanted| wanted.end = true);
    }
}
