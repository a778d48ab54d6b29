//! The thread's loop.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use tokio::sync::{oneshot, watch};

use super::sockets::Sockets;
use super::{BfdReport, Shared, Standing, Standings, Wanted};
use crate::bfd::{Endpoint, Input, Output, Remote, SessionConfig, SessionStatus};

/// How many packets of a socket are read before timers get their turn.
const BATCH: usize = 256;
/// How long what comes after a full batch waits: a flood costs no more than that, even at real-time priority.
const PAUSE: Duration = Duration::from_millis(1);
/// Between two attempts to listen on a port that somebody else has.
const RETRY: Duration = Duration::from_secs(1);
/// The lowest real-time priority: before everything that has none.
const PRIORITY: i32 = 1;

#[expect(clippy::disallowed_methods, reason = "the transport is where time enters")]
fn now() -> Instant {
    Instant::now()
}

pub(super) struct Thread {
    shared: Arc<Shared>,
    told: watch::Sender<Standings>,
    endpoint: Endpoint,
    sockets: Sockets,
    wanted: BTreeMap<Remote, SessionConfig>,
    /// When to try again to listen where it failed.
    retry: Option<Instant>,
}

impl Thread {
    pub(super) fn new(shared: Arc<Shared>, told: watch::Sender<Standings>, seed: u64) -> Self {
        Self {
            shared,
            told,
            endpoint: Endpoint::new(seed),
            sockets: Sockets::default(),
            wanted: BTreeMap::new(),
            retry: None,
        }
    }

    /// Runs until it is told to end.
    pub(super) fn run(mut self) {
        if !take_real_time_priority() {
            tracing::debug!("BFD runs without real-time priority: it needs CAP_SYS_NICE");
        }
        loop {
            self.wait();
            let Wanted { resume, sessions, stop, asks, end } = std::mem::take(&mut *self.shared.wanted());
            if end {
                return;
            }
            if let Some(resume) = resume {
                self.endpoint.handle(now(), Input::Resume(resume));
            }
            if let Some(sessions) = sessions {
                self.configure(sessions);
            }
            // First what has arrived: a process that was held up must not take its own silence for its peers'.
            self.receive();
            self.tick();
            self.stop(stop);
            for ask in asks {
                // Whoever asked may have given up.
                let _ = ask.send(self.report());
            }
        }
    }

    /// Waits for packets, for word of the driver's, or for a deadline.
    fn wait(&self) {
        let deadline = self.endpoint.next_deadline().into_iter().chain(self.retry).min();
        let timeout = deadline.map(|at| TimeSpec::from(at.saturating_duration_since(now())));
        let wake = self.shared.wake.as_fd();
        let descriptors = std::iter::once(wake).chain(self.sockets.descriptors());
        let mut descriptors: Vec<_> =
            descriptors.map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN)).collect();
        // An error is a signal that came between: the loop looks at everything in any case.
        let _ = ppoll(&mut descriptors, timeout, None);
        // An error: nobody has called.
        let _ = self.shared.wake.read();
    }

    fn configure(&mut self, sessions: BTreeMap<Remote, SessionConfig>) {
        self.wanted = sessions;
        self.listen();
        self.endpoint.handle(now(), Input::Configure(&self.wanted));
        self.carry_out();
        let wanted = &self.wanted;
        self.told.send_if_modified(|told| {
            let before = told.len();
            told.retain(|remote, _| wanted.contains_key(remote));
            told.len() != before
        });
    }

    fn listen(&mut self) {
        let failed = !self.sockets.errors().is_empty();
        self.sockets.listen(&self.wanted);
        let errors = self.sockets.errors();
        self.retry = (!errors.is_empty()).then(|| now() + RETRY);
        if !failed && let Some((port, error)) = errors.iter().next() {
            tracing::error!(?port, error, "cannot listen for BFD; trying again");
        }
    }

    fn receive(&mut self) {
        let (endpoint, now) = (&mut self.endpoint, now());
        let take = |arrived, bytes: &[u8]| endpoint.handle(now, Input::Packet { arrived, bytes });
        if self.sockets.receive(BATCH, take) {
            std::thread::sleep(PAUSE);
        }
        self.carry_out();
    }

    fn tick(&mut self) {
        let now = now();
        if self.retry.is_some_and(|at| at <= now) {
            self.listen();
        }
        if self.endpoint.next_deadline().is_some_and(|at| at <= now) {
            self.endpoint.handle(now, Input::Tick);
            self.carry_out();
            let endpoint = &self.endpoint;
            self.sockets.retain(|remote| endpoint.has(remote));
        }
    }

    fn stop(&mut self, stop: Option<oneshot::Sender<()>>) {
        let Some(done) = stop else { return };
        self.endpoint.handle(now(), Input::Stop);
        self.carry_out();
        let _ = done.send(());
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.endpoint.poll() {
            match output {
                Output::Send { remote, hops, source, discriminator, bytes } => {
                    self.sockets.send(remote, hops, source, discriminator, &bytes);
                }
                Output::Changed { remote, change } => {
                    let resumption = self.endpoint.resumption(&remote);
                    self.told.send_modify(|told| {
                        let before = told.get(&remote);
                        let (changes, failures) = before.map_or((0, 0), |b| (b.changes, b.failures));
                        let changes = changes.saturating_add(1);
                        let failures = failures.saturating_add(change.failed.into());
                        told.insert(remote, Standing { change, changes, failures, resumption });
                    });
                }
            }
        }
    }

    fn report(&self) -> BfdReport {
        let sessions: BTreeMap<Remote, SessionStatus> = self.endpoint.sessions();
        BfdReport { sessions, discards: self.endpoint.discards(), errors: self.sockets.errors() }
    }
}

/// Asks the kernel to run this thread before all that are not real-time; whether it does.
#[expect(unsafe_code, reason = "the kernel's scheduler has no safe binding")]
fn take_real_time_priority() -> bool {
    let parameter = nix::libc::sched_param { sched_priority: PRIORITY };
    let policy = nix::libc::SCHED_RR | nix::libc::SCHED_RESET_ON_FORK;
    // SAFETY: 0 is the calling thread, and the parameter lives as long as the call.
    unsafe { nix::libc::sched_setscheduler(0, policy, &raw const parameter) == 0 }
}
