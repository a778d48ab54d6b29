//! The sockets a [`Speaker`] runs on.
//!
//! ```text
//! listener tasks ──┐                      ┌── Output::Dial ───→ dial task ──┐
//! (one an address) ├─ Arrival (bounded) ─→│ driver thread: the  Speaker     │← Arrival
//! connection tasks ┘                      └── Output::Write ─→ connection task (queue bounded)
//!                                             Notice (bounded, coalesced) ─→ the daemon
//! ```
//!
//! Beside it runs the thread of BFD, from the first peer that has it on: see [`bfd`].
//!
//! The driver owns the speaker and never waits for anyone: not for a peer that does not read (its connection has a queue of its own), not for
//! a daemon that is busy (notices coalesce). A connection task waits for the driver when the speaker is behind, so that TCP slows the sender
//! down. Nothing here decides: what is said to whom, and when, is the speaker's.
//!
//! The driver has a thread, and not a task among the connections': a task that is woken by another is run by the same thread, after it, so
//! that reading, deciding and writing would take turns on one processor while others are idle.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use ipnet::IpNet;
use thiserror::Error;
use tokio::runtime;
use tokio::sync::{mpsc, oneshot};

pub use self::recorder::{Recorder, Records};
pub use self::signature::{AoInUse, has_tcp_ao};

use self::bfd::BfdReport;
use self::driver::Driver;
use crate::bfd::{Remote, Resumption};
use crate::config::SpeakerConfig;
use crate::speaker::{BestPathChange, Event, Refresh, Resolution, Speaker, SpeakerStart, TrackedNextHop};
use crate::types::{ConnectionId, PeerAddress};

pub mod bfd;
mod connection;
mod driver;
mod keys;
mod limits;
mod listener;
mod notices;
mod recorder;
mod signature;
mod sockopt;

/// How long [`Handle::stop`] and a closing connection wait for the peer to take the last bytes.
const LINGER: Duration = Duration::from_secs(3);

/// How many requests may wait for the driver before [`Handle::send`] waits.
const REQUESTS_MAX: usize = 64;

/// What runs a [`Speaker`].
#[derive(Debug)]
pub struct Transport;

impl Transport {
    /// Starts a speaker, without configuration yet, on a thread of its own; its connections and listeners are tasks of the current tokio
    /// runtime.
    ///
    /// `listeners` are bound at once and again until they succeed; each change is told by [`Notice::Listener`]. `notices` may
    /// be of any capacity: what does not fit waits, coalesced, inside. The speaker stops when [`Handle::stop`] is called or
    /// the last [`Handle`] is gone.
    ///
    /// # Errors
    /// If the operating system refuses a thread or what it waits with.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start(
        start: SpeakerStart,
        listeners: BTreeSet<SocketAddr>,
        notices: mpsc::Sender<Notice>,
    ) -> io::Result<Handle> {
        let (requests, received) = mpsc::channel(REQUESTS_MAX);
        let tasks = runtime::Handle::current();
        // Its own timers: those of the tasks' runtime end with that, and would take the driver along.
        let timers = runtime::Builder::new_current_thread().enable_time().build()?;
        let run = move || {
            timers.block_on(Driver::new(Speaker::new(start), listeners, notices, tasks).run(received));
        };
        thread::Builder::new().name("speaker".into()).spawn(run)?;
        Ok(Handle { requests })
    }
}

/// What the daemon hears from its speaker.
#[derive(Debug)]
pub enum Notice {
    /// What the kernel should do with these prefixes; if several changes of one prefix were waiting, the last.
    BestPaths(Vec<BestPathChange>),
    /// A peer died, and nobody else offers these next hops: ahead of everything that waits. The best paths that follow come later.
    NextHopsLost(Vec<TrackedNextHop>),
    /// What next hops are of interest. One that is `gone` and `wanted` is to be told anew.
    NextHops {
        /// These are of no interest any more.
        gone: Vec<TrackedNextHop>,
        /// Tell, now and on every change, how these resolve ([`Command::NextHops`]).
        wanted: Vec<TrackedNextHop>,
    },
    /// The first convergence; every change of best paths that led to it was told before.
    Converged,
    /// Our own prefixes that at least one established peer has been told, all of them: the last word on them, and one after
    /// [`Notice::Converged`].
    Announced(BTreeSet<IpNet>),
    /// The aggregates that are announced, all of them: the last word on them.
    Aggregates(BTreeSet<IpNet>),
    /// Who the peer at the other end of a link is, while its session is Established: the last word on it.
    Neighbour {
        /// The interface's index.
        link: u32,
        /// The link-local address.
        address: Option<Ipv6Addr>,
    },
    /// The dynamic peers with a session, or with routes that are kept for the next one: what another process would have to know ([`Command::Remember`]).
    Dynamic(BTreeSet<IpAddr>),
    /// The BFD sessions that are Up, and what another process would need to go on with them ([`Command::ResumeBfd`]).
    Bfd(BTreeMap<Remote, Resumption>),
    /// Something to tell people.
    Event(Event),
    /// So many events were dropped because the daemon did not take them in time.
    EventsLost(u64),
    /// What became of a listener.
    Listener {
        /// As asked for.
        address: SocketAddr,
        /// The address bound to, or why it is not (it is tried again every second).
        state: Result<SocketAddr, String>,
    },
}

/// What the daemon tells its speaker.
#[derive(Clone, Debug)]
pub enum Command {
    /// The whole configuration, first or changed.
    Configure(Arc<SpeakerConfig>),
    /// These were the dynamic peers of a process that died: before the first [`Command::Configure`].
    Remember(BTreeSet<IpAddr>),
    /// Go on with these BFD sessions of a process that died: before the first [`Command::Configure`].
    ResumeBfd(BTreeMap<Remote, Resumption>),
    /// How next hops resolve.
    NextHops(Vec<(TrackedNextHop, Resolution)>),
    /// End a peer's session with a Cease and let it come up again.
    Reset {
        /// Which peer.
        peer: PeerAddress,
    },
    /// Have routes told again, without a word to the session.
    Refresh {
        /// Which peer.
        peer: PeerAddress,
        /// Whose routes.
        direction: Refresh,
    },
    /// Where to listen from now on; connections that are up stay up.
    Listen(BTreeSet<SocketAddr>),
    /// Where to write down what passes between the speaker and its peers; none: nowhere.
    Record(Option<Arc<Recorder>>),
}

/// The speaker has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the BGP speaker has stopped")]
pub struct Stopped;

type Inspection = Box<dyn FnOnce(&Speaker) + Send>;

/// What reaches the driver from its [`Handle`]s.
enum Request {
    Command(Command),
    Inspect(Inspection),
    Bfd(oneshot::Sender<BfdReport>),
    AoKeys(oneshot::Sender<BTreeMap<ConnectionId, AoInUse>>),
    Stop(oneshot::Sender<()>),
}

/// The daemon's end of a running speaker; clones speak to the same one.
#[derive(Clone, Debug)]
pub struct Handle {
    requests: mpsc::Sender<Request>,
}

impl Handle {
    /// Tells the speaker something; waits while it is behind.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn send(&self, command: Command) -> Result<(), Stopped> {
        self.requests.send(Request::Command(command)).await.map_err(|_| Stopped)
    }

    /// Looks at the speaker between two of its steps. `look` should be short: sessions wait for it.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn inspect<T, F>(&self, look: F) -> Result<T, Stopped>
    where
        T: Send + 'static,
        F: FnOnce(&Speaker) -> T + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let inspection: Inspection = Box::new(move |speaker| {
            // Whoever asked may have given up.
            let _ = answer.send(look(speaker));
        });
        self.requests.send(Request::Inspect(inspection)).await.map_err(|_| Stopped)?;
        answered.await.map_err(|_| Stopped)
    }

    /// How BFD is.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn bfd(&self) -> Result<BfdReport, Stopped> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(Request::Bfd(answer)).await.map_err(|_| Stopped)?;
        answered.await.map_err(|_| Stopped)
    }

    /// Which keys the connections use that are signed with TCP-AO.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn ao_keys(&self) -> Result<BTreeMap<ConnectionId, AoInUse>, Stopped> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(Request::AoKeys(answer)).await.map_err(|_| Stopped)?;
        answered.await.map_err(|_| Stopped)
    }

    /// Closes every connection without NOTIFICATION, so that helpers keep our routes (RFC 4724), and waits, 3 s at most, until what was
    /// written has left and the peers have closed too; then takes BFD down by will.
    pub async fn stop(&self) {
        let (done, stopped) = oneshot::channel();
        if self.requests.send(Request::Stop(done)).await.is_ok() {
            // An error is a driver that is gone already.
            let _ = stopped.await;
        }
    }
}
