//! All sessions of one system: whose a packet is, and which sessions there should be.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::packet::{self, Diagnostic, Packet};
use super::rng::Rng;
use super::session::{Counters, Session};
use super::{Change, Hops, Remote, Resumption, SessionConfig, State};

/// The TTL that packets are sent with, and that those from the link itself arrive with (RFC 5881 section 5).
const TTL: u8 = 255;

/// Everything that can happen to an [`Endpoint`].
#[derive(Clone, Debug)]
pub enum Input<'a> {
    /// The sessions that there should be, all of them. One that is there already goes on; one that is not wanted any more, or is to be multihop
    /// in place of single hop or the other way round, tells the other end so, for as long as that takes, and is gone.
    Configure(&'a BTreeMap<Remote, SessionConfig>),
    /// Sessions that another process had Up when it died: those of them that are wanted are gone on with. Before the first
    /// [`Input::Configure`].
    Resume(BTreeMap<Remote, Resumption>),
    /// A packet came.
    Packet {
        /// How.
        arrived: Arrived,
        /// What.
        bytes: &'a [u8],
    },
    /// The process ends: every session becomes AdminDown, so that nobody takes it for a failure.
    Stop,
    /// A deadline may have passed.
    Tick,
}

/// How a packet came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// From which address.
    pub source: IpAddr,
    /// On which interface, by index.
    pub link: u32,
    /// With which TTL or hop limit.
    pub ttl: u8,
    /// On the port of multihop sessions, not on that of single hop ones.
    pub multihop: bool,
}

/// What an [`Endpoint`] asks for or reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a packet, with TTL 255.
    Send {
        /// To whom.
        remote: Remote,
        /// Single hop or multihop.
        hops: Hops,
        /// The address to send from; else the kernel chooses.
        source: Option<IpAddr>,
        /// Our name for the session: its packets have one source port.
        discriminator: u32,
        /// The packet.
        bytes: [u8; packet::LENGTH],
    },
    /// A session's state changed.
    Changed {
        /// Which.
        remote: Remote,
        /// How.
        change: Change,
    },
}

/// Packets that were discarded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Discards {
    /// They are no packets of version 1 (RFC 5880 section 6.8.6).
    pub malformed: u64,
    /// They have passed more routers than their session allows.
    pub ttl: u64,
    /// They are of no session, or of one with another system.
    pub unknown: u64,
    /// They carry authentication, and none is in use.
    pub authenticated: u64,
}

/// A session, now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionStatus {
    /// What it should be.
    pub config: SessionConfig,
    /// Our state.
    pub state: State,
    /// Since when.
    pub since: Instant,
    /// Why.
    pub diagnostic: Diagnostic,
    /// The other end's state, as it was told last.
    pub remote_state: State,
    /// The other end's reason.
    pub remote_diagnostic: Diagnostic,
    /// Our name for the session.
    pub local_discriminator: u32,
    /// The other end's; 0: not known.
    pub remote_discriminator: u32,
    /// Between two packets of ours, before jitter; none: the other end wants none.
    pub transmit_interval: Option<Duration>,
    /// How long the other end may be silent; none: it was not heard.
    pub detection_time: Option<Duration>,
    /// Counters.
    pub counters: Counters,
}

/// The sessions of one system. After each [`handle`](Self::handle), drain [`poll`](Self::poll).
#[derive(Debug)]
pub struct Endpoint {
    sessions: BTreeMap<Remote, Slot>,
    resumable: BTreeMap<Remote, Resumption>,
    discards: Discards,
    outputs: VecDeque<Output>,
    rng: Rng,
    stopped: bool,
}

#[derive(Debug)]
struct Slot {
    session: Session,
    /// Nobody wants it any more: until when the other end is told so.
    leaves: Option<Instant>,
    /// What there is to be in its place after that.
    next: Option<SessionConfig>,
}

impl Endpoint {
    /// No session yet. `seed` is what discriminators and jitter come from.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            sessions: BTreeMap::new(),
            resumable: BTreeMap::new(),
            discards: Discards::default(),
            outputs: VecDeque::new(),
            rng: Rng::new(seed),
            stopped: false,
        }
    }

    /// Takes in one input.
    pub fn handle(&mut self, now: Instant, input: Input<'_>) {
        match input {
            Input::Configure(_) if self.stopped => {}
            Input::Configure(wanted) => self.configure(now, wanted),
            Input::Resume(sessions) => self.resumable = sessions,
            Input::Packet { arrived, bytes } => self.receive(now, arrived, bytes),
            Input::Stop => {
                self.stopped = true;
                for remote in self.remotes() {
                    self.act(now, remote, |session| session.set_admin_down(now, true));
                }
            }
            Input::Tick => self.tick(now),
        }
    }

    /// What there is to do, in order.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When the next [`Input::Tick`] is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let slots = self.sessions.values();
        slots.flat_map(|slot| [slot.session.next_deadline(), slot.leaves]).flatten().min()
    }

    /// The sessions that are wanted.
    #[must_use]
    pub fn sessions(&self) -> BTreeMap<Remote, SessionStatus> {
        let wanted = self.sessions.iter().filter(|(_, slot)| slot.leaves.is_none());
        wanted.map(|(remote, slot)| (*remote, status(&slot.session))).collect()
    }

    /// What another process would need to go on with a session; none unless it is Up.
    #[must_use]
    pub fn resumption(&self, remote: &Remote) -> Option<Resumption> {
        self.sessions.get(remote).filter(|slot| slot.leaves.is_none())?.session.resumption()
    }

    /// Packets that were discarded.
    #[must_use]
    pub fn discards(&self) -> Discards {
        self.discards
    }

    /// Whether there is a session, wanted or leaving.
    #[must_use]
    pub fn has(&self, remote: &Remote) -> bool {
        self.sessions.contains_key(remote)
    }

    fn remotes(&self) -> Vec<Remote> {
        self.sessions.keys().copied().collect()
    }

    fn configure(&mut self, now: Instant, wanted: &BTreeMap<Remote, SessionConfig>) {
        let kind = |hops| matches!(hops, Hops::Single);
        for remote in self.remotes() {
            let next = wanted.get(&remote).copied();
            let Some(slot) = self.sessions.get_mut(&remote) else { continue };
            if let Some(config) = next.filter(|next| kind(next.hops) == kind(slot.session.config.hops)) {
                (slot.leaves, slot.next) = (None, None);
                slot.session.configure(config);
                self.act(now, remote, |session| session.set_admin_down(now, false));
                continue;
            }
            slot.next = next;
            if slot.leaves.is_none() {
                slot.leaves = Some(now + slot.session.remote_detection_time());
                self.act(now, remote, |session| session.set_admin_down(now, true));
            }
        }
        for (remote, config) in wanted {
            if !self.sessions.contains_key(remote) {
                self.add(now, *remote, *config);
            }
        }
    }

    fn add(&mut self, now: Instant, remote: Remote, config: SessionConfig) {
        let resumed = |number| self.resumable.values().any(|r| r.local_discriminator == number);
        let taken = |number| {
            resumed(number) || self.sessions.values().any(|slot| slot.session.discriminator == number)
        };
        // There are far fewer sessions than numbers: a free one is found soon.
        let discriminator = loop {
            let number = self.rng.next();
            if number != 0 && !taken(number) {
                break number;
            }
        };
        let seed = u64::from(self.rng.next()) << 32 | u64::from(self.rng.next());
        let mut session = Session::new(now, config, discriminator, seed);
        if let Some(resumption) = self.resumable.remove(&remote) {
            session.resume(now, &resumption);
        }
        self.sessions.insert(remote, Slot { session, leaves: None, next: None });
        self.act(now, remote, |_| None);
    }

    fn receive(&mut self, now: Instant, arrived: Arrived, bytes: &[u8]) {
        let Ok(packet) = Packet::decode(bytes) else {
            return count(&mut self.discards.malformed);
        };
        let Some((remote, hops)) = self.addressee(arrived, &packet) else {
            return count(&mut self.discards.unknown);
        };
        let least = match hops {
            Hops::Single => TTL,
            Hops::Multi { minimum_ttl } => minimum_ttl,
        };
        if arrived.ttl < least {
            return count(&mut self.discards.ttl);
        }
        if packet.authentication.is_some() {
            return count(&mut self.discards.authenticated);
        }
        self.act(now, remote, |session| session.receive(now, &packet));
    }

    /// Whose packet it is: by the discriminator that the sender knows, else by where it comes from. A session is with one system, so
    /// that one from elsewhere is nobody's.
    fn addressee(&self, arrived: Arrived, packet: &Packet) -> Option<(Remote, Hops)> {
        let link_local = matches!(arrived.source, IpAddr::V6(v6) if v6.is_unicast_link_local());
        let remote = Remote { address: arrived.source, link: link_local.then_some(arrived.link) };
        let slot = self.sessions.get(&remote)?;
        let known =
            matches!(packet.your_discriminator, 0) || packet.your_discriminator == slot.session.discriminator;
        let hops = slot.session.config.hops;
        (known && arrived.multihop != matches!(hops, Hops::Single)).then_some((remote, hops))
    }

    fn tick(&mut self, now: Instant) {
        for remote in self.remotes() {
            let Some(slot) = self.sessions.get(&remote) else { continue };
            if slot.leaves.is_some_and(|at| at <= now) {
                let next = self.sessions.remove(&remote).and_then(|slot| slot.next);
                if let Some(config) = next.filter(|_| !self.stopped) {
                    self.add(now, remote, config);
                }
            } else if slot.session.next_deadline().is_some_and(|at| at <= now) {
                self.act(now, remote, |session| session.expire(now));
            }
        }
    }

    /// Lets something happen to a session, and tells what came of it.
    fn act(&mut self, now: Instant, remote: Remote, what: impl FnOnce(&mut Session) -> Option<Change>) {
        let Some(Slot { session, leaves, .. }) = self.sessions.get_mut(&remote) else { return };
        if let Some(change) = what(session).filter(|_| leaves.is_none()) {
            self.outputs.push_back(Output::Changed { remote, change });
        }
        while let Some(packet) = session.transmit(now) {
            let SessionConfig { hops, source, .. } = session.config;
            let (discriminator, bytes) = (session.discriminator, packet.encode());
            self.outputs.push_back(Output::Send { remote, hops, source, discriminator, bytes });
        }
    }
}

fn status(session: &Session) -> SessionStatus {
    SessionStatus {
        config: session.config,
        state: session.state,
        since: session.since,
        diagnostic: session.diagnostic,
        remote_state: session.remote_state(),
        remote_diagnostic: session.remote_diagnostic(),
        local_discriminator: session.discriminator,
        remote_discriminator: session.remote_discriminator(),
        transmit_interval: session.transmit_interval(),
        detection_time: session.detection_time(),
        counters: session.counters,
    }
}

fn count(counter: &mut u64) {
    *counter = counter.saturating_add(1);
}
