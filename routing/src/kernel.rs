//! The engine on an OS thread of its own, behind a bounded queue of commands.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::fib::{Fib, Snapshot, Write};
use crate::netlink::{self, NetlinkFib};
use crate::nexthop::{Nexthop, Nexthops};
use crate::resolve::NextHopRef;
use crate::route::Protocol;
use crate::sync::{Engine, Event, PodRoute, RouteChange, Settings, Timer};

/// Commands that may wait for the kernel thread. A sender that finds the queue full waits.
const QUEUE: usize = 256;
/// Commands taken between two runs of the engine, so that a busy sender cannot keep it from the kernel.
const COMMANDS_PER_RUN: usize = 8;

/// Why the kernel thread could not be started or reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The kernel's tables could not be read.
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
    /// The operating system refused a thread or a file descriptor.
    #[error("cannot start the kernel thread: {0}")]
    Start(String),
    /// The thread has ended.
    #[error("the kernel thread has stopped")]
    Stopped,
}

type Command = Box<dyn FnOnce(&mut Engine) + Send>;

/// A handle to the thread that keeps the kernel's routes in step.
///
/// The methods wait while the queue of 256 commands is full; from asynchronous code call them where waiting is
/// allowed. Dropping the handle, or [`stop`](Self::stop), ends the thread and leaves all routes in the kernel.
#[derive(Debug)]
pub struct Kernel {
    commands: Option<SyncSender<Command>>,
    wake: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl Kernel {
    /// Starts the thread in the calling thread's network namespace: subscribes to changes, reads the kernel's
    /// tables, and only then returns.
    ///
    /// `sink` is called on the thread with every event; while it does not return, nothing is written. It must
    /// never wait for someone who may be waiting in a method of this handle: the two would wait for ever.
    pub fn start(settings: Settings, sink: Box<dyn FnMut(Event) + Send>) -> Result<Self, Error> {
        Self::start_on(NetlinkFib::new()?, settings, sink)
    }

    /// The same in the network namespace at `path`; the caller stays where it is.
    pub fn start_in(
        path: &Path,
        settings: Settings,
        sink: Box<dyn FnMut(Event) + Send>,
    ) -> Result<Self, Error> {
        Self::start_on(NetlinkFib::in_netns(path)?, settings, sink)
    }

    /// Starts the thread on an open [`Fib`] that is readable when it has notifications.
    pub fn start_on<F: Fib + AsFd + Send + 'static>(
        mut fib: F,
        settings: Settings,
        sink: Box<dyn FnMut(Event) + Send>,
    ) -> Result<Self, Error> {
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map_err(|errno| Error::Start(format!("eventfd: {errno}")))?;
        let wake = Arc::new(wake);
        let mut engine = Engine::new(settings);
        engine.run(now(), &mut fib)?;
        let (commands, received) = sync_channel(QUEUE);
        let worker = Worker { engine, fib, received, wake: Arc::clone(&wake), sink };
        let thread = std::thread::Builder::new()
            .name("weft-kernel".to_owned())
            .spawn(move || worker.run())
            .map_err(|error| Error::Start(error.to_string()))?;
        Ok(Self { commands: Some(commands), wake, thread: Some(thread) })
    }

    /// See [`Engine::configure`].
    pub fn configure(&self, settings: Settings) -> Result<(), Error> {
        self.send(Box::new(move |engine| engine.configure(settings)))
    }

    /// See [`Engine::learned`].
    pub fn learned(&self, changes: Vec<RouteChange>) -> Result<(), Error> {
        self.send(Box::new(move |engine| engine.learned(changes)))
    }

    /// See [`Engine::lost`].
    pub fn lost(&self, next_hops: Vec<NextHopRef>) -> Result<(), Error> {
        self.send(Box::new(move |engine| engine.lost(next_hops)))
    }

    /// See [`Engine::pods`].
    pub fn pods(&self, pods: Vec<PodRoute>) -> Result<(), Error> {
        self.send(Box::new(move |engine| engine.pods(pods)))
    }

    /// See [`Engine::untrack`], and then [`Engine::track`].
    pub fn track(&self, gone: Vec<NextHopRef>, wanted: Vec<NextHopRef>) -> Result<(), Error> {
        self.send(Box::new(move |engine| {
            gone.into_iter().for_each(|next_hop| engine.untrack(next_hop));
            wanted.into_iter().for_each(|next_hop| engine.track(next_hop));
        }))
    }

    /// See [`Engine::sweep`].
    pub fn sweep(&self) -> Result<(), Error> {
        self.send(Box::new(Engine::sweep))
    }

    /// Runs `look` on the thread, between two runs of the engine, and waits for what it returns. Commands sent
    /// before have been taken in, though not all that follows from them may have been written.
    pub fn inspect<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Engine) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let (answer, answered) = sync_channel(1);
        self.send(Box::new(move |engine| {
            // The asker waits below; it cannot have gone.
            let _ = answer.send(look(engine));
        }))?;
        answered.recv().map_err(|_| Error::Stopped)
    }

    /// Ends the thread once what the commands sent so far ask for has been tried, and waits for it. The routes
    /// stay.
    pub fn stop(mut self) {
        self.end();
    }

    fn send(&self, command: Command) -> Result<(), Error> {
        let commands = self.commands.as_ref().ok_or(Error::Stopped)?;
        commands.send(command).map_err(|_| Error::Stopped)?;
        self.wake();
        Ok(())
    }

    fn wake(&self) {
        // It fails only when the counter is at its maximum, and then the thread is awake.
        let _ = self.wake.write(1);
    }

    fn end(&mut self) {
        self.commands = None;
        self.wake();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the kernel thread panicked");
        }
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        self.end();
    }
}

struct Worker<F> {
    engine: Engine,
    fib: F,
    received: Receiver<Command>,
    wake: Arc<EventFd>,
    sink: Box<dyn FnMut(Event) + Send>,
}

impl<F: Fib + AsFd> Worker<F> {
    fn run(mut self) {
        loop {
            let open = self.take_commands();
            if let Err(error) = self.engine.run(now(), &mut self.fib) {
                tracing::warn!(%error, "cannot read the kernel's tables; trying again");
            }
            while let Some(event) = self.engine.poll() {
                (self.sink)(event);
            }
            if !open && self.engine.next_deadline(now()).1 != Timer::Work {
                return;
            }
            self.wait();
        }
    }

    /// False when the handle has gone.
    fn take_commands(&mut self) -> bool {
        // Read before the queue is looked at, so that no wake-up is lost; it fails when nothing woke us.
        let _ = self.wake.read();
        for _ in 0..COMMANDS_PER_RUN {
            if self.engine.is_urgent() {
                break;
            }
            match self.received.try_recv() {
                Ok(command) => command(&mut self.engine),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
        // More may wait: do not sleep before they are taken.
        let _ = self.wake.write(1);
        true
    }

    /// Sleeps until a command, a notification or the engine's deadline.
    fn wait(&self) {
        let now = now();
        let (deadline, _) = self.engine.next_deadline(now);
        let timeout = deadline.saturating_duration_since(now);
        // Rounded up: a wake-up before the deadline would find nothing to do and spin.
        let timeout = timeout.saturating_add(Duration::from_micros(999));
        let timeout = PollTimeout::try_from(timeout.as_millis()).unwrap_or(PollTimeout::MAX);
        let mut descriptors = [
            PollFd::new(self.fib.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.wake.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut descriptors, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => {
                tracing::error!(%error, "cannot wait for the kernel; looking again in a while");
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the kernel thread is the loop that reads the clock")]
fn now() -> Instant {
    Instant::now()
}

/// Deletes every route of protocols 176 and 177, and the nexthop objects of the former, in the calling thread's network namespace: what
/// `weftd --cleanup` does. Returns how many routes went; one that was gone already counts as gone.
pub fn cleanup() -> Result<usize, Error> {
    let mut fib = NetlinkFib::new()?;
    let Snapshot { routes, nexthops, .. } = fib.dump()?;
    let mut writes: Vec<Write> = routes
        .into_iter()
        .filter(|route| route.protocol == Protocol::WEFT || route.protocol == Protocol::WEFT_PODS)
        .map(|route| Write::Delete(route.key, route.protocol))
        .collect();
    let count = writes.len();
    let mut objects: Vec<Nexthop> =
        nexthops.iter().flat_map(Nexthops::iter).filter(|o| o.is_weft()).cloned().collect();
    // A leg's end would change the groups that it is in.
    objects.sort_by_key(|object| !object.is_weft_group());
    writes.extend(objects.into_iter().map(|object| Write::DeleteNexthop(object.id)));
    let failed = fib.apply(&writes).into_iter().filter_map(Result::err).find(|error| !error.is_absent());
    match failed {
        Some(error) => Err(error.into()),
        None => Ok(count),
    }
}
