//! One peer: when to dial, whom to let in, when to wait, and what its state is.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV6};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::backoff::Backoff;
use super::collision::{Connections, Verdict};
use super::connection::{Connection, Context, Ending, Step};
use super::event::Event;
use super::negotiation::Local;
use super::outbox::Outbox;
use super::rng::Rng;
use super::state::State;
use super::timer::{Deadlines, Timer};
use crate::config::{LimitAction, PeerConfig};
use crate::ingress::{Down, IncidentKind, IngressOutput, LocalRestart, Session};
use crate::protection::ao::KeyChain;
use crate::protection::{Authentication, NO_ANSWER};
use crate::status::Direction;
use crate::types::{ConnectionId, Family, FamilySet, PeerAddress, Reason};
use crate::wire::Message;
use crate::wire::error::ErrorCode;
use crate::wire::route_refresh::RouteRefresh;

/// A session that was Established for this long was a good one: the failures before it are forgotten.
const STABLE: Duration = Duration::from_secs(10);

/// How many restarts in a row are taken for such: who goes on without a session that lasts fails.
const RESTARTS_MAX: u32 = 10;

/// The FSM of one peer.
#[derive(Debug)]
pub(crate) struct Fsm {
    peer: PeerAddress,
    router_id: Ipv4Addr,
    rng: Rng,
    config: Option<Arc<PeerConfig>>,
    restart: LocalRestart,
    mode: Mode,
    /// The dial that is under way, and to whom.
    dial: Option<(ConnectionId, SocketAddr)>,
    dials: u64,
    connections: Connections,
    deadlines: Deadlines,
    idle_hold: Backoff,
    /// After a bad connection of the peer's, while we go on dialling: its next ones are refused for a while.
    inbound_hold: Backoff,
    /// How often the peer has restarted since a session lasted.
    restarts: u32,
    /// The session was ended as the peer had told too many prefixes, and was not begun again since.
    over_limit: bool,
    /// What the next OPEN is: see [`Local::plain`].
    plain: bool,
    state: State,
    since: Option<Instant>,
    /// When a session was Established last.
    established_at: Option<Instant>,
}

/// What is being done about a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Nothing: not configured, or shut down.
    Stopped,
    /// Nothing ever again: the process ends.
    Finished,
    /// Nothing until IdleHoldTimer expires.
    IdleHold {
        /// Whether the peer may connect before.
        admits: bool,
    },
    /// All that can be.
    Started,
}

impl Fsm {
    pub(crate) fn new(peer: PeerAddress, router_id: Ipv4Addr, seed: u64) -> Self {
        let mut rng = Rng::new(seed, peer);
        Self {
            peer,
            router_id,
            dials: rng.next(),
            rng,
            config: None,
            restart: LocalRestart::default(),
            mode: Mode::Stopped,
            dial: None,
            connections: Connections::default(),
            deadlines: Deadlines::default(),
            idle_hold: Backoff::default(),
            inbound_hold: Backoff::default(),
            restarts: 0,
            over_limit: false,
            plain: false,
            state: State::Idle,
            since: None,
            established_at: None,
        }
    }

    pub(crate) fn state(&self) -> State {
        self.state
    }

    /// Since when the state is what it is; none before the first configuration.
    pub(crate) fn since(&self) -> Option<Instant> {
        self.since
    }

    /// When a session was Established last, whether it still is or not.
    pub(crate) fn established_at(&self) -> Option<Instant> {
        self.established_at
    }

    /// The timers that run, those of the connection that has come furthest among them, and when they expire.
    pub(crate) fn timers(&self) -> BTreeMap<Timer, Instant> {
        let of_connection = self.connections.furthest().into_iter().flat_map(Connection::timers);
        self.deadlines.running().chain(of_connection).collect()
    }

    /// The Established session.
    pub(crate) fn session(&self) -> Option<&Arc<Session>> {
        self.connections.established().and_then(Connection::session)
    }

    /// Whether this is a connection that bytes are read from.
    pub(crate) fn is_open(&self, connection: ConnectionId) -> bool {
        self.connections.contains(connection)
    }

    pub(crate) fn next_deadline(&self) -> Option<(Instant, Timer)> {
        self.deadlines.next().into_iter().chain(self.connections.next_deadline()).min()
    }

    /// What OPEN says of our own restart from now on.
    pub(crate) fn set_restart(&mut self, restart: LocalRestart) {
        self.restart = restart;
    }

    /// Starts, stops or restarts as the new configuration asks for; what OPEN carries or the connection depends on ends the session.
    pub(crate) fn configure(&mut self, now: Instant, config: Arc<PeerConfig>, outbox: &mut Outbox) {
        if self.mode == Mode::Finished || self.config.as_deref() == Some(&*config) {
            return;
        }
        let stays_down = config.stays_down();
        // Of all else, policies above all, the peer tells no less.
        let stays_over_limit = self.over_limit
            && self.config.as_ref().is_some_and(|old| {
                old.max_prefixes == config.max_prefixes
                    && (old.authentication == config.authentication
                        || config.authentication.rollover(&old.authentication).is_some())
                    && !old.stays_down()
                    && self.reset_by(old, &config).is_none()
            });
        if let Some(text) = &config.shutdown {
            self.stop_all(now, || Event::ManualStop(text.clone()), outbox);
        } else if let Authentication::Unavailable(why) = &config.authentication {
            let subcode = ErrorCode::OTHER_CONFIGURATION_CHANGE.subcode;
            self.stop_all(now, || Event::AutomaticStop { subcode, text: String::new() }, outbox);
            outbox.note_error(now, Direction::Local, None, why.as_str());
        } else if let Some(subcode) = self.config.as_ref().and_then(|old| self.reset_by(old, &config)) {
            self.stop_all(now, || Event::AutomaticStop { subcode, text: String::new() }, outbox);
        } else if let Some(old) =
            self.config.as_ref().filter(|old| old.authentication != config.authentication)
        {
            match config.authentication.rollover(&old.authentication) {
                Some(keys) => self.roll_over(keys, outbox),
                None => self.password_changed(now, outbox),
            }
        }
        self.config = Some(config);
        self.since.get_or_insert(now);
        self.plain = false;
        self.forget_failures();
        if stays_down {
            self.over_limit = false;
            self.halt(Mode::Stopped, outbox);
        } else if self.connections.is_empty() && !stays_over_limit {
            self.start(now, outbox);
        } else {
            // Who connected may never say anything, and whom to dial may be known only by now.
            self.retry_later(now);
        }
        self.update_state(now, outbox);
    }

    /// The Cease by which a session under the old configuration ends, if it cannot go on under the new one. Another peer in the place of the
    /// one that there was does not go on with its routes.
    fn reset_by(&self, old: &PeerConfig, new: &PeerConfig) -> Option<u8> {
        let unwelcome = |session: &Session| !new.remote_as.admits(new.local_as, session.remote_as);
        let remote_as = match self.session() {
            Some(session) => unwelcome(session),
            None => old.remote_as != new.remote_as,
        };
        let elsewhere = match (self.session(), new.neighbour) {
            (Some(session), Some(neighbour)) => session.remote != neighbour,
            (Some(_), None) => false,
            (None, _) => old.neighbour.is_some_and(|neighbour| new.neighbour != Some(neighbour)),
        };
        if remote_as || elsewhere {
            return Some(ErrorCode::PEER_DE_CONFIGURED.subcode);
        }
        let changes = old.local_as != new.local_as
            || old.port != new.port
            || old.ttl_security != new.ttl_security
            || old.source_address != new.source_address
            || old.families != new.families
            || (old.role, old.role_strict) != (new.role, new.role_strict)
            || offered(old) != offered(new)
            || several_paths(old) != several_paths(new)
            || old.timers.hold_time != new.timers.hold_time;
        changes.then_some(ErrorCode::OTHER_CONFIGURATION_CHANGE.subcode)
    }

    /// From when on nothing of the past matters to a peer that only we could wait for: there is no connection, and no failure keeps the
    /// next one out. None: there is one, or the peer is kept down for what it has told.
    pub(crate) fn over_at(&self) -> Option<Instant> {
        if !self.connections.is_empty() || self.dial.is_some() || self.over_limit {
            return None;
        }
        let idle_hold = self.deadlines.running().find(|(timer, _)| *timer == Timer::IdleHold);
        let waits = idle_hold.map(|(_, at)| at).into_iter().chain(self.inbound_hold.until());
        waits.chain(self.since).max()
    }

    pub(crate) fn is_over_limit(&self) -> bool {
        self.over_limit
    }

    /// Ends the session as more prefixes were told than there may be. It starts again after a while or not by itself, as the configuration says.
    pub(crate) fn over_limit(&mut self, now: Instant, family: Family, outbox: &mut Outbox) {
        let Some(max) = self.config.as_ref().and_then(|config| config.max_prefixes) else { return };
        if self.mode != Mode::Started {
            return;
        }
        self.stop_all(now, || Event::OverLimit { family, limit: max.limit }, outbox);
        self.halt(Mode::IdleHold { admits: false }, outbox);
        if let LimitAction::Restart(after) = max.action {
            self.deadlines.set(Timer::IdleHold, now + after);
        }
        self.over_limit = true;
        self.update_state(now, outbox);
    }

    /// Ends the session with a Cease and starts again.
    pub(crate) fn cease(&mut self, now: Instant, subcode: u8, text: &str, outbox: &mut Outbox) {
        if !matches!(self.mode, Mode::Started | Mode::IdleHold { .. }) {
            return;
        }
        self.stop_all(now, || Event::AutomaticStop { subcode, text: text.to_owned() }, outbox);
        self.idle_hold.reset();
        self.hold(now, false, outbox);
        self.update_state(now, outbox);
    }

    /// Ends the session with a Cease/Administrative Reset and starts again at once, also one that waits for something before it starts.
    pub(crate) fn reset(&mut self, now: Instant, outbox: &mut Outbox) {
        if !matches!(self.mode, Mode::Started | Mode::IdleHold { .. }) {
            return;
        }
        let subcode = ErrorCode::ADMINISTRATIVE_RESET.subcode;
        self.stop_all(now, || Event::AutomaticStop { subcode, text: String::new() }, outbox);
        self.forget_failures();
        self.start(now, outbox);
        self.update_state(now, outbox);
    }

    /// Asks for all routes of these families of the Established session again (RFC 2918).
    pub(crate) fn ask_refresh(&self, families: FamilySet, outbox: &mut Outbox) {
        let Some(session) = self.session().filter(|session| session.route_refresh) else { return };
        for family in session.families.intersection(families).iter() {
            let refresh = RouteRefresh { family: family.into(), subtype: RouteRefresh::REQUEST };
            outbox.send(session.connection, &Message::RouteRefresh(refresh));
        }
    }

    /// Closes everything for good, in such a way that peers keep our routes. No [`Down`] is told: the peers' are to stay too.
    pub(crate) fn finish(&mut self, now: Instant, outbox: &mut Outbox) {
        for id in self.connections.ids() {
            let Some(connection) = self.connections.remove(id) else { continue };
            match self.config.as_deref() {
                Some(config) => {
                    let local = self.local(config);
                    connection.finish(&mut Context { now, local, rng: &mut self.rng, outbox });
                }
                None => connection.abandon(outbox),
            }
        }
        self.halt(Mode::Finished, outbox);
        self.update_state(now, outbox);
    }

    /// Tcp_CR_Acked.
    pub(crate) fn connected(
        &mut self,
        now: Instant,
        id: ConnectionId,
        local: SocketAddr,
        outbox: &mut Outbox,
    ) {
        let Some((_, remote)) = self.dial.take_if(|(dial, _)| *dial == id) else {
            outbox.push(IngressOutput::Close { connection: id });
            return;
        };
        self.deadlines.stop(Timer::ConnectRetry);
        self.open(now, id, (local, remote), outbox);
    }

    /// A dial has failed; the next follows when ConnectRetryTimer expires.
    pub(crate) fn connect_failed(
        &mut self,
        now: Instant,
        id: ConnectionId,
        error: &str,
        outbox: &mut Outbox,
    ) {
        if self.dial.take_if(|(dial, _)| *dial == id).is_none() {
            return;
        }
        Self::unconnected(now, error, outbox);
        self.update_state(now, outbox);
    }

    /// It is time for the next dial, and the one under way has not even failed.
    fn unanswered(&self, now: Instant, outbox: &mut Outbox) {
        if let (Some(_), Some(config)) = (self.dial, self.config.as_deref()) {
            let error = format!("{NO_ANSWER}{}", config.protection().silence());
            Self::unconnected(now, &error, outbox);
        }
    }

    fn unconnected(now: Instant, error: &str, outbox: &mut Outbox) {
        let text = format!("cannot connect: {error}");
        outbox.note_unconnected(now, text.as_str());
        let reason = Reason::new("connection-failed", text);
        outbox.incident(now, IncidentKind::Connection, reason, &Bytes::new());
    }

    /// TcpConnectionConfirmed: the peer has connected to us.
    pub(crate) fn accepted(
        &mut self,
        now: Instant,
        id: ConnectionId,
        ends: (SocketAddr, SocketAddr),
        outbox: &mut Outbox,
    ) {
        let admits = match self.mode {
            Mode::Stopped | Mode::Finished => false,
            Mode::IdleHold { admits } => admits,
            Mode::Started => !self.inbound_hold.is_waiting(now),
        };
        if !admits {
            outbox.counters.connections_refused += 1;
            outbox.push(IngressOutput::Close { connection: id });
            let text = "a connection was refused: the peer's last ones failed, or the session is shut down";
            let reason = Reason::new("connection-refused", text);
            outbox.incident(now, IncidentKind::Connection, reason, &Bytes::new());
            return;
        }
        // The peer has given up one that it opened before.
        if let Some(older) = self.connections.accepted_unopened().and_then(|id| self.connections.remove(id)) {
            older.abandon(outbox);
        }
        if let Mode::IdleHold { .. } = self.mode {
            self.deadlines.stop(Timer::IdleHold);
            self.mode = Mode::Started;
        }
        self.open(now, id, ends, outbox);
        // One that then stays silent must not keep us from dialling.
        self.retry_later(now);
    }

    /// The peer's connections are not let in, as what protects the session cannot be had of them.
    pub(crate) fn unprotected(now: Instant, error: &str, outbox: &mut Outbox) {
        outbox.counters.connections_refused += 1;
        let text = format!("a connection was refused: {error}");
        outbox.note_error(now, Direction::Local, None, text.as_str());
        let reason = Reason::new("connection-unprotected", text);
        outbox.incident(now, IncidentKind::Connection, reason, &Bytes::new());
    }

    /// The connection is gone, dialled or not.
    pub(crate) fn closed(
        &mut self,
        now: Instant,
        id: ConnectionId,
        error: Option<String>,
        outbox: &mut Outbox,
    ) {
        if self.dial.is_some_and(|(dial, _)| dial == id) {
            let error = error.unwrap_or_else(|| "closed".into());
            self.connect_failed(now, id, &error, outbox);
        } else {
            self.event(now, id, Event::TcpConnectionFails(error), outbox);
        }
    }

    /// Something has happened to a connection.
    pub(crate) fn event(&mut self, now: Instant, id: ConnectionId, event: Event, outbox: &mut Outbox) {
        let step =
            self.with_connection(now, id, outbox, |connection, context| connection.handle(event, context));
        match step {
            None | Some(Step::Continue) => {}
            Some(Step::Opened(session)) => self.opened(now, session, outbox),
            Some(Step::Established(session)) => {
                self.established_at = Some(now);
                self.update_state(now, outbox);
                outbox.push(IngressOutput::Up(session));
            }
            Some(Step::Ended(ending)) => self.ended(now, id, ending, outbox),
        }
        self.update_state(now, outbox);
    }

    /// This process did not run for a while: HoldTimers leave time to read what has arrived.
    pub(crate) fn held_up(&mut self, now: Instant) {
        self.connections.held_up(now);
    }

    /// Handles every timer whose time has come.
    pub(crate) fn tick(&mut self, now: Instant, outbox: &mut Outbox) {
        while let Some(timer) = self.deadlines.expire(now) {
            match timer {
                Timer::ConnectRetry => {
                    self.unanswered(now, outbox);
                    self.dial(now, outbox);
                }
                Timer::IdleHold => self.start(now, outbox),
                Timer::Hold | Timer::Keepalive | Timer::DelayOpen => {}
            }
        }
        while let Some(id) = self.connections.due(now) {
            let event = self.connections.get_mut(id).and_then(|connection| connection.expire(now));
            if let Some(event) = event {
                self.event(now, id, event, outbox);
            }
        }
        self.update_state(now, outbox);
    }

    /// Runs something on a connection; `None` if there is no such connection.
    fn with_connection<T>(
        &mut self,
        now: Instant,
        id: ConnectionId,
        outbox: &mut Outbox,
        run: impl FnOnce(&mut Connection, &mut Context<'_>) -> T,
    ) -> Option<T> {
        let config = self.config.as_deref()?;
        let local = self.local(config);
        let connection = self.connections.get_mut(id)?;
        Some(run(connection, &mut Context { now, local, rng: &mut self.rng, outbox }))
    }

    fn local<'a>(&self, config: &'a PeerConfig) -> Local<'a> {
        let (router_id, restart, plain) = (self.router_id, self.restart, self.plain);
        Local { config, router_id, restart, peer: self.peer, plain }
    }

    fn open(&mut self, now: Instant, id: ConnectionId, ends: (SocketAddr, SocketAddr), outbox: &mut Outbox) {
        let Some(config) = self.config.as_deref() else { return };
        let ours = self.local(config);
        let (local, remote) = ends;
        outbox.said.connected(id, local, remote);
        let mut context = Context { now, local: ours, rng: &mut self.rng, outbox };
        self.connections.insert(Connection::start(id, (local, remote.ip()), &mut context));
        self.update_state(now, outbox);
    }

    /// An OPEN was accepted: collision detection, and then the answer.
    fn opened(&mut self, now: Instant, session: Arc<Session>, outbox: &mut Outbox) {
        let id = session.connection;
        for (other, verdict) in self.connections.judge(&session, self.router_id, now) {
            match verdict {
                Verdict::KeepNew => self.dump(now, other, outbox),
                Verdict::KeepOld => return self.dump(now, id, outbox),
                Verdict::Restarted => {
                    if let Some(old) = self.connections.remove(other) {
                        self.session_lost(&old, Ending::TcpFailed, outbox);
                        old.abandon(outbox);
                    }
                }
            }
        }
        self.cancel_dial(outbox);
        self.with_connection(now, id, outbox, |connection, context| connection.confirm(session, context));
    }

    /// Closes the loser of a collision. Both ends may have been Established on it for a moment; as the winner goes on where it
    /// ends, that is no death.
    fn dump(&mut self, now: Instant, id: ConnectionId, outbox: &mut Outbox) {
        self.with_connection(now, id, outbox, |connection, context| {
            connection.handle(Event::OpenCollisionDump, context)
        });
        if let Some(connection) = self.connections.remove(id) {
            self.session_lost(&connection, Ending::Collision, outbox);
        }
    }

    /// A connection is over: what is to be tried next depends on how far it had come, and on what else there is.
    fn ended(&mut self, now: Instant, id: ConnectionId, ending: Ending, outbox: &mut Outbox) {
        let Some(connection) = self.connections.remove(id) else { return };
        self.session_lost(&connection, ending, outbox);
        let stable = connection
            .established_since()
            .is_some_and(|since| now.saturating_duration_since(since) >= STABLE);
        if stable {
            self.forget_failures();
        }
        if ending == Ending::CapabilitiesRefused {
            self.plain = !connection.is_plain();
        } else if connection.established_since().is_some() {
            // The peer may be another one by then.
            self.plain = false;
        }
        let unopened = connection.session().is_none();
        let dialled = matches!(id, ConnectionId::Dialled(_));
        if unopened && !dialled && !matches!(ending, Ending::TcpFailed | Ending::Collision) {
            let (min, max) = self.hold_times();
            self.inbound_hold.fail(now, min, max, &mut self.rng);
        }
        let go_on = !self.connections.is_empty() || unopened && (ending == Ending::TcpFailed || !dialled);
        if go_on {
            self.retry_later(now);
        } else {
            // Who restarts is let in as soon as it is back.
            let down = down(&connection, ending);
            let restarts = match ending {
                Ending::Reset => down.is_some(),
                _ => ending == Ending::TcpFailed && matches!(down, Some(Down::Restart { .. })),
            };
            if restarts && self.restarts < RESTARTS_MAX {
                self.restarts += 1;
                let (min, _) = self.hold_times();
                let until = Backoff::once(now, min, &mut self.rng);
                self.idle_until(until, true, outbox);
            } else {
                let kept = down.is_some_and(|down| down != Down::Death);
                self.hold(now, stable && (kept || ending == Ending::TcpFailed), outbox);
            }
        }
    }

    fn forget_failures(&mut self) {
        self.idle_hold.reset();
        self.inbound_hold.reset();
        self.restarts = 0;
    }

    /// Tells how an Established session ended: restart or death.
    fn session_lost(&self, connection: &Connection, ending: Ending, outbox: &mut Outbox) {
        let Some(down) = down(connection, ending) else { return };
        outbox.counters.flaps += u64::from(ending != Ending::Collision);
        outbox.push(IngressOutput::Down(down));
    }

    /// Ends all connections, and the dial with them.
    fn stop_all(&mut self, now: Instant, stop: impl Fn() -> Event, outbox: &mut Outbox) {
        for id in self.connections.ids() {
            let step = self
                .with_connection(now, id, outbox, |connection, context| connection.handle(stop(), context));
            if let (Some(connection), Some(Step::Ended(ending))) = (self.connections.remove(id), step) {
                self.session_lost(&connection, ending, outbox);
            }
        }
        self.cancel_dial(outbox);
    }

    /// What is signed with the old password is worth nothing at the other end any more, or soon.
    fn password_changed(&mut self, now: Instant, outbox: &mut Outbox) {
        if !self.connections.is_empty() {
            let text = "the password has changed";
            outbox.note_error(now, Direction::Local, None, text);
            let reason = Reason::new("password-changed", text);
            outbox.incident(now, IncidentKind::Connection, reason, &Bytes::new());
        }
        self.abandon_all(outbox);
    }

    /// Connections go on with other keys. A dial has those of before, and is begun anew.
    fn roll_over(&mut self, keys: &KeyChain, outbox: &mut Outbox) {
        for connection in self.connections.ids() {
            outbox.push(IngressOutput::RollOver { connection, keys: keys.clone() });
        }
        self.cancel_dial(outbox);
    }

    /// Closes all connections without NOTIFICATION, so that both ends keep what they were told until the next session (RFC 4724).
    fn abandon_all(&mut self, outbox: &mut Outbox) {
        for id in self.connections.ids() {
            if let Some(connection) = self.connections.remove(id) {
                self.session_lost(&connection, Ending::TcpFailed, outbox);
                connection.abandon(outbox);
            }
        }
        self.cancel_dial(outbox);
    }

    fn halt(&mut self, mode: Mode, outbox: &mut Outbox) {
        self.cancel_dial(outbox);
        self.deadlines.stop(Timer::IdleHold);
        self.mode = mode;
    }

    fn start(&mut self, now: Instant, outbox: &mut Outbox) {
        self.deadlines.stop(Timer::IdleHold);
        self.mode = Mode::Started;
        self.over_limit = false;
        self.dial(now, outbox);
    }

    /// Waits in Idle, longer with each time.
    fn hold(&mut self, now: Instant, admits: bool, outbox: &mut Outbox) {
        let (min, max) = self.hold_times();
        let until = self.idle_hold.fail(now, min, max, &mut self.rng);
        self.idle_until(until, admits, outbox);
    }

    fn idle_until(&mut self, until: Instant, admits: bool, outbox: &mut Outbox) {
        self.halt(Mode::IdleHold { admits }, outbox);
        self.deadlines.set(Timer::IdleHold, until);
    }

    fn hold_times(&self) -> (Duration, Duration) {
        self.config.as_ref().map_or((Duration::ZERO, Duration::ZERO), |config| {
            (config.timers.idle_hold_min, config.timers.idle_hold_max)
        })
    }

    /// Dials, unless the peer is to, or there is a connection already that makes it needless. A dial that is still under way is given up.
    fn dial(&mut self, now: Instant, outbox: &mut Outbox) {
        self.cancel_dial(outbox);
        let (Some(config), Some(remote)) = (self.config.clone(), self.remote()) else { return };
        if config.passive || self.connections.has_dialled() || self.connections.is_confirmed() {
            return;
        }
        self.dials = self.dials.wrapping_add(1);
        let connection = ConnectionId::Dialled(self.dials);
        self.dial = Some((connection, remote));
        outbox.push(IngressOutput::Dial { connection, source: config.source_address, remote });
        self.retry_later(now);
    }

    /// Where to dial; none while the peer is not found.
    fn remote(&self) -> Option<SocketAddr> {
        let config = self.config.as_deref()?;
        match self.peer {
            PeerAddress::Ip(ip) => Some(SocketAddr::new(ip, config.port)),
            PeerAddress::Interface(interface) => {
                Some(SocketAddrV6::new(config.neighbour?, config.port, 0, interface.index()).into())
            }
        }
    }

    /// Starts ConnectRetryTimer, if a dial may be wanted and it does not run.
    fn retry_later(&mut self, now: Instant) {
        let Some(config) = self.config.as_deref() else { return };
        let wanted = self.mode == Mode::Started
            && !config.passive
            && self.remote().is_some()
            && !self.connections.has_dialled()
            && !self.connections.is_confirmed();
        if wanted && !self.deadlines.is_running(Timer::ConnectRetry) {
            let wait = self.rng.jitter(config.timers.connect_retry.max(Backoff::FLOOR));
            self.deadlines.set(Timer::ConnectRetry, now + wait);
        }
    }

    fn cancel_dial(&mut self, outbox: &mut Outbox) {
        self.deadlines.stop(Timer::ConnectRetry);
        if let Some((connection, _)) = self.dial.take() {
            outbox.push(IngressOutput::Close { connection });
        }
    }

    fn update_state(&mut self, now: Instant, outbox: &mut Outbox) {
        let state = match (self.connections.state(), self.mode) {
            (Some(state), _) => state,
            (None, Mode::Started) if self.dial.is_some() => State::Connect,
            (None, Mode::Started) => State::Active,
            (None, Mode::Stopped | Mode::Finished | Mode::IdleHold { .. }) => State::Idle,
        };
        if state != self.state {
            self.state = state;
            self.since = Some(now);
            outbox.push(IngressOutput::State(state));
        }
    }
}

/// What the end of a connection means for the routes of its session; none: it was not Established.
fn down(connection: &Connection, ending: Ending) -> Option<Down> {
    connection.established_since()?;
    let Some(peer) = connection.session()?.graceful_restart.filter(|peer| !peer.kept().is_empty()) else {
        return Some(Down::Death);
    };
    let (families, restart_time) = (peer.kept(), peer.restart_time);
    Some(match ending {
        Ending::Collision => Down::Superseded { families, restart_time },
        Ending::TcpFailed => Down::Restart { families, restart_time },
        Ending::Notification | Ending::Reset if peer.notification => Down::Restart { families, restart_time },
        Ending::Notification | Ending::Reset | Ending::Death | Ending::CapabilitiesRefused => Down::Death,
    })
}

/// What OPEN says of several paths of one prefix.
fn several_paths(config: &PeerConfig) -> (bool, bool) {
    (config.add_path.receive, config.add_path.send.is_some())
}

/// What OPEN says of graceful restart.
fn offered(config: &PeerConfig) -> Option<(Duration, Option<Duration>)> {
    config.graceful_restart.map(|restart| (restart.restart_time, restart.long_lived_time))
}
