//! One session: the state variables of RFC 5880 section 6.8.1 and what moves them.

use std::time::{Duration, Instant};

use super::packet::{Diagnostic, Packet};
use super::rng::Rng;
use super::{Change, Resumption, SessionConfig, State};

/// While a session is not Up, packets are at least this far apart (RFC 5880 section 6.8.3).
const SLOW: Duration = Duration::from_secs(1);
/// bfd.RemoteMinRxInterval before anything is heard.
const UNHEARD_MIN_RX: Duration = Duration::from_micros(1);

/// A session's counters, since it was configured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets sent.
    pub sent: u64,
    /// Packets received that were not discarded.
    pub received: u64,
    /// Times that it came Up.
    pub ups: u64,
    /// Times that it was Up and the path, or the system at its end, was taken for dead.
    pub failures: u64,
}

/// What is known of the other end.
#[derive(Clone, Copy, Debug)]
struct Heard {
    state: State,
    discriminator: u32,
    diagnostic: Diagnostic,
    demand: bool,
    min_rx: Duration,
    desired_min_tx: Duration,
    detect_mult: u8,
    /// When it was heard last; none: not for the detection time.
    at: Option<Instant>,
}

impl Heard {
    const NOTHING: Self = Self {
        state: State::Down,
        discriminator: 0,
        diagnostic: Diagnostic::NONE,
        demand: false,
        min_rx: UNHEARD_MIN_RX,
        desired_min_tx: Duration::ZERO,
        detect_mult: 0,
        at: None,
    };
}

/// A Poll Sequence (RFC 5880 section 6.5).
#[derive(Clone, Copy, Debug, Default)]
struct Poll {
    /// A packet with P has left: only then F can be its answer.
    sent: bool,
    /// What is polled for has changed meanwhile, so that the answer may be to what was told before.
    again: bool,
}

/// The two intervals that both ends have to agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Intervals {
    desired_min_tx: Duration,
    required_min_rx: Duration,
}

#[derive(Debug)]
pub(super) struct Session {
    pub(super) config: SessionConfig,
    pub(super) discriminator: u32,
    pub(super) state: State,
    pub(super) diagnostic: Diagnostic,
    pub(super) since: Instant,
    pub(super) counters: Counters,
    heard: Heard,
    /// What our packets say.
    told: Intervals,
    /// What counts: until a Poll Sequence ends we neither send less often nor expect to hear more often than before.
    in_force: Intervals,
    poll: Option<Poll>,
    /// When a packet left that was not an answer, and the part of the interval to wait after it.
    last_sent: Option<(Instant, f64)>,
    /// The last packet, without P and F.
    last_packet: Option<Packet>,
    /// The other end has polled.
    must_answer: bool,
    /// Another process had it Up, and the other end has not said yet that it still is: until then its end is no failure.
    unconfirmed: bool,
    rng: Rng,
}

impl Session {
    /// A session that is Down; nothing leaves before [`Self::transmit`].
    pub(super) fn new(now: Instant, config: SessionConfig, discriminator: u32, seed: u64) -> Self {
        let told = Intervals {
            desired_min_tx: config.desired_min_tx_interval.max(SLOW),
            required_min_rx: config.required_min_rx_interval,
        };
        Self {
            config,
            discriminator,
            state: State::Down,
            diagnostic: Diagnostic::NONE,
            since: now,
            counters: Counters::default(),
            heard: Heard::NOTHING,
            told,
            in_force: told,
            poll: None,
            last_sent: None,
            last_packet: None,
            must_answer: false,
            unconfirmed: false,
            rng: Rng::new(seed),
        }
    }

    /// Goes on with a session that another process had Up, which takes a Poll Sequence.
    pub(super) fn resume(&mut self, now: Instant, from: &Resumption) {
        let interval = |microseconds: u32| Duration::from_micros(microseconds.into());
        (self.state, self.discriminator, self.unconfirmed) = (State::Up, from.local_discriminator, true);
        self.heard = Heard {
            state: State::Up,
            discriminator: from.remote_discriminator,
            diagnostic: Diagnostic::NONE,
            demand: false,
            min_rx: interval(from.remote_min_rx_interval),
            desired_min_tx: interval(from.remote_desired_min_tx_interval),
            detect_mult: from.remote_detect_mult,
            at: Some(now),
        };
        self.told = Intervals {
            desired_min_tx: interval(from.desired_min_tx_interval),
            required_min_rx: interval(from.required_min_rx_interval),
        };
        (self.in_force, self.poll) = (self.told, Some(Poll::default()));
        self.negotiate();
    }

    /// What another process would need to go on with the session; none unless it is Up.
    pub(super) fn resumption(&self) -> Option<Resumption> {
        (self.state == State::Up && !self.unconfirmed).then(|| Resumption {
            local_discriminator: self.discriminator,
            remote_discriminator: self.heard.discriminator,
            desired_min_tx_interval: microseconds(self.told.desired_min_tx),
            required_min_rx_interval: microseconds(self.told.required_min_rx),
            remote_min_rx_interval: microseconds(self.heard.min_rx),
            remote_desired_min_tx_interval: microseconds(self.heard.desired_min_tx),
            remote_detect_mult: self.heard.detect_mult,
        })
    }

    pub(super) fn remote_state(&self) -> State {
        self.heard.state
    }

    pub(super) fn remote_diagnostic(&self) -> Diagnostic {
        self.heard.diagnostic
    }

    pub(super) fn remote_discriminator(&self) -> u32 {
        self.heard.discriminator
    }

    /// Between two packets of ours, before jitter; none: none are sent by the clock (RFC 5880 section 6.8.7).
    pub(super) fn transmit_interval(&self) -> Option<Duration> {
        let both_up = self.state == State::Up && self.heard.state == State::Up;
        let hushed = self.heard.demand && both_up && self.poll.is_none();
        let interval = self.in_force.desired_min_tx.max(self.heard.min_rx);
        (!self.waits_to_be_called() && !hushed && !self.heard.min_rx.is_zero()).then_some(interval)
    }

    /// How long the other end may be silent (RFC 5880 section 6.8.4); none before anything is heard of it.
    pub(super) fn detection_time(&self) -> Option<Duration> {
        self.heard.at?;
        let interval = self.in_force.required_min_rx.max(self.heard.desired_min_tx);
        Some(interval.saturating_mul(self.heard.detect_mult.into()))
    }

    /// How long the other end waits for us before it gives us up, at most.
    pub(super) fn remote_detection_time(&self) -> Duration {
        self.told.desired_min_tx.max(self.heard.min_rx).saturating_mul(self.config.detect_mult.into())
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.next_transmission().into_iter().chain(self.expiry()).min()
    }

    /// Takes over another configuration. Intervals are agreed on by a Poll Sequence, and the session stays what it is.
    pub(super) fn configure(&mut self, config: SessionConfig) {
        self.config = config;
        self.negotiate();
    }

    /// Takes the session down by will, or lets it come up again.
    pub(super) fn set_admin_down(&mut self, now: Instant, down: bool) -> Option<Change> {
        match (down, self.state) {
            (true, State::AdminDown) => None,
            (true, _) => Some(self.enter(now, State::AdminDown, Diagnostic::ADMINISTRATIVELY_DOWN, false)),
            (false, State::AdminDown) => Some(self.enter(now, State::Down, Diagnostic::NONE, false)),
            (false, _) => None,
        }
    }

    /// A packet for this session (RFC 5880 section 6.8.6).
    pub(super) fn receive(&mut self, now: Instant, packet: &Packet) -> Option<Change> {
        let interval = |microseconds: u32| Duration::from_micros(microseconds.into());
        // A session that is new there is no word on the path, which has just carried its packet; one that lost us has a diagnostic to tell.
        let begins_anew = packet.your_discriminator == 0
            && packet.my_discriminator != self.heard.discriminator
            && packet.diagnostic == Diagnostic::NONE;
        self.heard = Heard {
            state: packet.state,
            discriminator: packet.my_discriminator,
            diagnostic: packet.diagnostic,
            demand: packet.demand,
            min_rx: interval(packet.required_min_rx_interval),
            desired_min_tx: interval(packet.desired_min_tx_interval),
            detect_mult: packet.detect_mult,
            at: self.heard.at,
        };
        if packet.final_ {
            self.polled();
        }
        if self.state == State::AdminDown {
            return None;
        }
        self.heard.at = Some(now);
        self.counters.received = self.counters.received.saturating_add(1);
        self.must_answer |= packet.poll;
        let signaled = Diagnostic::NEIGHBOR_SIGNALED_SESSION_DOWN;
        match (self.state, packet.state) {
            (State::Down, State::Down) => Some(self.enter(now, State::Init, Diagnostic::NONE, false)),
            (State::Down, State::Init) | (State::Init, State::Init | State::Up) => {
                self.counters.ups = self.counters.ups.saturating_add(1);
                Some(self.enter(now, State::Up, Diagnostic::NONE, false))
            }
            (State::Init | State::Up, State::AdminDown) => {
                Some(self.enter(now, State::Down, signaled, false))
            }
            (State::Up, State::Up) if self.unconfirmed && packet.your_discriminator == self.discriminator => {
                self.counters.ups = self.counters.ups.saturating_add(1);
                Some(self.enter(now, State::Up, Diagnostic::NONE, false))
            }
            (State::Up, State::Down) => Some(self.enter(now, State::Down, signaled, !begins_anew)),
            _ => None,
        }
    }

    /// Time has passed: whether the other end was silent for too long.
    pub(super) fn expire(&mut self, now: Instant) -> Option<Change> {
        if self.expiry().is_none_or(|at| at > now) {
            return None;
        }
        let silence = self.detection_time().unwrap_or_default();
        self.heard = Heard::NOTHING;
        let (expired, was_up) = (Diagnostic::CONTROL_DETECTION_TIME_EXPIRED, self.state == State::Up);
        let heard = matches!(self.state, State::Init | State::Up);
        heard.then(|| Change { silence, ..self.enter(now, State::Down, expired, was_up) })
    }

    /// The packet that is to leave now: an answer to a poll, news, or what the clock asks for. To be called until there is none.
    pub(super) fn transmit(&mut self, now: Instant) -> Option<Packet> {
        let plain = self.packet();
        let answers = std::mem::take(&mut self.must_answer);
        if !answers {
            let is_news = self.last_packet != Some(plain) || self.poll.is_some_and(|poll| !poll.sent);
            let is_due =
                self.transmit_interval().is_some() && self.next_transmission().is_none_or(|at| at <= now);
            if self.waits_to_be_called() || !is_news && !is_due {
                return None;
            }
            self.last_sent = Some((now, self.rng.jitter(self.config.detect_mult)));
            if let Some(poll) = &mut self.poll {
                poll.sent = true;
            }
        }
        self.last_packet = Some(plain);
        self.counters.sent = self.counters.sent.saturating_add(1);
        Some(Packet { poll: self.poll.is_some() && !answers, final_: answers, ..plain })
    }

    /// A passive system does not speak first.
    fn waits_to_be_called(&self) -> bool {
        self.config.passive && self.heard.discriminator == 0
    }

    /// When the clock asks for a packet; none: it does not, or did not before and does now.
    fn next_transmission(&self) -> Option<Instant> {
        let ((at, part), interval) = (self.last_sent?, self.transmit_interval()?);
        Some(at + interval.mul_f64(part))
    }

    /// Moves to a state. What it was told of the other end stays.
    fn enter(&mut self, now: Instant, state: State, diagnostic: Diagnostic, failed: bool) -> Change {
        (self.state, self.diagnostic, self.since) = (state, diagnostic, now);
        let failed = !std::mem::take(&mut self.unconfirmed) && failed;
        if failed {
            self.counters.failures = self.counters.failures.saturating_add(1);
        }
        self.negotiate();
        Change { state, diagnostic, failed, silence: Duration::ZERO }
    }

    /// Tells the intervals of the configuration and the state. While the session is Up, that takes a Poll Sequence (RFC 5880 section 6.8.3).
    fn negotiate(&mut self) {
        let config = &self.config;
        let up = self.state == State::Up;
        let least = if up { Duration::ZERO } else { SLOW };
        let wanted = Intervals {
            desired_min_tx: config.desired_min_tx_interval.max(least),
            required_min_rx: config.required_min_rx_interval,
        };
        let changed = std::mem::replace(&mut self.told, wanted) != wanted;
        if !up {
            (self.in_force, self.poll) = (wanted, None);
        } else if changed {
            let Intervals { desired_min_tx, required_min_rx } = self.in_force;
            self.in_force = Intervals {
                desired_min_tx: desired_min_tx.min(wanted.desired_min_tx),
                required_min_rx: required_min_rx.max(wanted.required_min_rx),
            };
            match &mut self.poll {
                Some(poll) => poll.again = true,
                None => self.poll = Some(Poll::default()),
            }
        }
    }

    /// The other end has answered a poll.
    fn polled(&mut self) {
        match self.poll {
            Some(Poll { sent: true, again: true }) => self.poll = Some(Poll::default()),
            Some(Poll { sent: true, again: false }) => (self.poll, self.in_force) = (None, self.told),
            Some(Poll { sent: false, .. }) | None => {}
        }
    }

    fn expiry(&self) -> Option<Instant> {
        Some(self.heard.at? + self.detection_time()?)
    }

    fn packet(&self) -> Packet {
        Packet {
            diagnostic: self.diagnostic,
            state: self.state,
            poll: false,
            final_: false,
            control_plane_independent: false,
            authentication: None,
            demand: false,
            detect_mult: self.config.detect_mult,
            my_discriminator: self.discriminator,
            your_discriminator: self.heard.discriminator,
            desired_min_tx_interval: microseconds(self.told.desired_min_tx),
            required_min_rx_interval: microseconds(self.told.required_min_rx),
            required_min_echo_rx_interval: 0,
        }
    }
}

fn microseconds(interval: Duration) -> u32 {
    u32::try_from(interval.as_micros()).unwrap_or(u32::MAX)
}
