//! One TCP connection: from the first OPEN to the last KEEPALIVE.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::event::{Event, Malformed};
use super::negotiation::Local;
use super::outbox::Outbox;
use super::rng::Rng;
use super::state::State;
use super::timer::{Deadlines, Timer};
use crate::ingress::{IncidentKind, IngressOutput, Session};
use crate::status::Direction;
use crate::types::{ConnectionId, Reason};
use crate::wire::Message;
use crate::wire::error::ErrorCode;
use crate::wire::notification::Notification;
use crate::wire::open::Open;

/// How long to wait for the peer's OPEN: the "large value" of RFC 4271 section 8.2.2.
const OPEN_HOLD_TIME: Duration = Duration::from_secs(240);

/// How long a peer that seems silent has to be heard after this process did not run: time to read what waits.
const HELD_UP_GRACE: Duration = Duration::from_secs(1);

/// What handling an event needs besides the connection.
pub(super) struct Context<'a> {
    pub(super) now: Instant,
    pub(super) local: Local<'a>,
    pub(super) rng: &'a mut Rng,
    pub(super) outbox: &'a mut Outbox,
}

/// A connection and how far it has come.
#[derive(Debug)]
pub(super) struct Connection {
    id: ConnectionId,
    local: SocketAddr,
    remote: IpAddr,
    phase: Phase,
    deadlines: Deadlines,
    /// See [`Local::plain`]: as it was when this began.
    plain: bool,
    /// HoldTimer was put off since the peer was heard.
    put_off: bool,
}

#[derive(Debug)]
enum Phase {
    /// TCP is up; OPEN waits for the peer's or for DelayOpenTimer.
    DelayOpen,
    OpenSent,
    OpenConfirm(Arc<Session>),
    Established {
        session: Arc<Session>,
        since: Instant,
    },
}

/// What an event has come to.
#[derive(Debug)]
pub(super) enum Step {
    /// The connection goes on.
    Continue,
    /// The peer's OPEN is good. Unless collision detection ends it, the connection is to be [`Connection::confirm`]ed.
    Opened(Arc<Session>),
    /// The session is Established.
    Established(Arc<Session>),
    /// It is over; what there was to send and to close has been.
    Ended(Ending),
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// TCP closed or failed, and nobody said why.
    TcpFailed,
    /// A NOTIFICATION was sent or received: a restart where both ends take it for one (RFC 8538), else a death.
    Notification,
    /// A NOTIFICATION of the peer's by which it begins the session anew, and blames nobody; else as above.
    Reset,
    /// One that was sent or received, or should have been, and it is a death in any case.
    Death,
    /// A NOTIFICATION that another connection is kept.
    Collision,
    /// A NOTIFICATION that the peer knows nothing of capabilities, in answer to our OPEN.
    CapabilitiesRefused,
}

impl Connection {
    /// Starts on an open TCP connection: OPEN goes out at once, or after DelayOpenTime.
    pub(super) fn start(
        id: ConnectionId,
        (local, remote): (SocketAddr, IpAddr),
        context: &mut Context<'_>,
    ) -> Self {
        let (phase, deadlines) = (Phase::DelayOpen, Deadlines::default());
        let plain = context.local.plain;
        let mut connection = Self { id, local, remote, phase, deadlines, plain, put_off: false };
        match context.local.config.timers.delay_open {
            Some(delay) => connection.deadlines.set(Timer::DelayOpen, context.now + delay),
            None => connection.send_open(context),
        }
        connection
    }

    /// Our side of its OPEN.
    fn ours<'a>(&self, context: &Context<'a>) -> Local<'a> {
        Local { plain: self.plain, ..context.local }
    }

    /// Whether its OPEN has no capabilities, as the peer has refused these.
    pub(super) fn is_plain(&self) -> bool {
        self.plain
    }

    pub(super) fn id(&self) -> ConnectionId {
        self.id
    }

    pub(super) fn state(&self) -> State {
        match (&self.phase, self.id) {
            (Phase::DelayOpen, ConnectionId::Dialled(_)) => State::Connect,
            (Phase::DelayOpen, ConnectionId::Accepted(_) | ConnectionId::Station(_)) => State::Active,
            (Phase::OpenSent, _) => State::OpenSent,
            (Phase::OpenConfirm(_), _) => State::OpenConfirm,
            (Phase::Established { .. }, _) => State::Established,
        }
    }

    /// What was agreed on, once the peer's OPEN is accepted.
    pub(super) fn session(&self) -> Option<&Arc<Session>> {
        match &self.phase {
            Phase::DelayOpen | Phase::OpenSent => None,
            Phase::OpenConfirm(session) | Phase::Established { session, .. } => Some(session),
        }
    }

    /// Since when it is Established, if it is.
    pub(super) fn established_since(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Established { since, .. } => Some(*since),
            _ => None,
        }
    }

    pub(super) fn next_deadline(&self) -> Option<(Instant, Timer)> {
        self.deadlines.next()
    }

    pub(super) fn timers(&self) -> impl Iterator<Item = (Timer, Instant)> {
        self.deadlines.running()
    }

    /// The event of a timer whose time has come.
    pub(super) fn expire(&mut self, now: Instant) -> Option<Event> {
        match self.deadlines.expire(now)? {
            Timer::Hold => Some(Event::HoldTimerExpires),
            Timer::Keepalive => Some(Event::KeepaliveTimerExpires),
            Timer::DelayOpen => Some(Event::DelayOpenTimerExpires),
            Timer::ConnectRetry | Timer::IdleHold => None,
        }
    }

    /// This process did not run: the peer may have been heard and not been read. Once for each time that it is, so that who is silent dies.
    pub(super) fn held_up(&mut self, now: Instant) {
        if !self.put_off {
            self.put_off = self.deadlines.put_off(Timer::Hold, now + HELD_UP_GRACE);
        }
    }

    /// RFC 4271 section 8.2.2, from the point where TCP is up.
    pub(super) fn handle(&mut self, event: Event, context: &mut Context<'_>) -> Step {
        if let Some(cease) = event.cease() {
            return self.stop(cease, event.explanation(), context);
        }
        match event {
            Event::TcpConnectionFails(error) => self.tcp_failed(error, context),
            Event::NotifMsg(notification) => self.notified(notification, context),
            Event::BgpHeaderErr(Malformed { error, message })
            | Event::BgpOpenMsgErr(Malformed { error, message })
            | Event::UpdateMsgErr(Malformed { error, message }) => {
                self.fail(Notification::from(&error), &error.text, &message, context)
            }
            Event::HoldTimerExpires => {
                let notification = Notification { code: ErrorCode::HOLD_TIMER_EXPIRED, data: Bytes::new() };
                let text = "nothing was heard from the peer for the hold time";
                let restart = context.local.config.graceful_restart;
                match self.fail(notification, text, &Bytes::new(), context) {
                    // A peer that is silent is dead, unless the admin says otherwise.
                    Step::Ended(_) if !restart.is_some_and(|r| r.on_hold_timer_expiry) => {
                        Step::Ended(Ending::Death)
                    }
                    step => step,
                }
            }
            Event::SendHoldTimerExpires => {
                let code = ErrorCode::SEND_HOLD_TIMER_EXPIRED;
                let text = "the peer has taken nothing that was sent for too long";
                self.fail(Notification { code, data: Bytes::new() }, text, &Bytes::new(), context);
                context.outbox.counters.send_hold_timer_expired += 1;
                Step::Ended(Ending::Death)
            }
            Event::DelayOpenTimerExpires => {
                self.send_open(context);
                Step::Continue
            }
            Event::KeepaliveTimerExpires => {
                self.send_keepalive(context);
                Step::Continue
            }
            Event::BgpOpen(open) if matches!(self.phase, Phase::DelayOpen | Phase::OpenSent) => {
                self.opened(&open, context)
            }
            message => self.message(&message, context),
        }
    }

    /// Accepts the peer's OPEN for good: it has been found that no other connection is to be preferred.
    pub(super) fn confirm(&mut self, session: Arc<Session>, context: &mut Context<'_>) {
        if matches!(self.phase, Phase::DelayOpen) {
            self.send_open(context);
        }
        self.phase = Phase::OpenConfirm(session);
        self.send_keepalive(context);
        self.restart_hold_timer(context.now);
    }

    /// Closes without a word, so that the peer takes it for a restart (RFC 4724).
    pub(super) fn abandon(self, outbox: &mut Outbox) {
        outbox.push(IngressOutput::Close { connection: self.id });
    }

    fn opened(&self, open: &Open, context: &mut Context<'_>) -> Step {
        match self.ours(context).negotiate(open, self.id, (self.local, self.remote)) {
            Ok(session) => Step::Opened(Arc::new(session)),
            Err(error) => self.fail(Notification::from(&error), &error.text, &Bytes::new(), context),
        }
    }

    /// A KEEPALIVE, UPDATE or ROUTE-REFRESH, or an OPEN that is not the first.
    fn message(&mut self, event: &Event, context: &mut Context<'_>) -> Step {
        match (&self.phase, event) {
            (Phase::OpenConfirm(session), Event::KeepAliveMsg) => {
                let session = Arc::clone(session);
                self.phase = Phase::Established { session: Arc::clone(&session), since: context.now };
                self.restart_hold_timer(context.now);
                Step::Established(session)
            }
            (Phase::Established { .. }, Event::KeepAliveMsg | Event::UpdateMsg) => {
                self.restart_hold_timer(context.now);
                Step::Continue
            }
            (Phase::Established { .. }, Event::RouteRefreshMsg) => Step::Continue,
            _ => self.unexpected(event, context),
        }
    }

    /// RFC 6608.
    fn unexpected(&self, event: &Event, context: &mut Context<'_>) -> Step {
        let code = match self.phase {
            Phase::DelayOpen => ErrorCode::FSM_ERROR,
            Phase::OpenSent => ErrorCode::UNEXPECTED_MESSAGE_IN_OPEN_SENT,
            Phase::OpenConfirm(_) => ErrorCode::UNEXPECTED_MESSAGE_IN_OPEN_CONFIRM,
            Phase::Established { .. } => ErrorCode::UNEXPECTED_MESSAGE_IN_ESTABLISHED,
        };
        let kind = event.message_type().unwrap_or_default();
        let text = format!("message type {kind} is not expected in {}", self.state());
        let notification = Notification { code, data: Bytes::copy_from_slice(&[kind]) };
        self.fail(notification, &text, &Bytes::new(), context)
    }

    fn notified(&self, notification: Option<Notification>, context: &mut Context<'_>) -> Step {
        let (code, text, data, by_will) = match notification {
            Some(notification) => {
                context.outbox.said.notification(context.now, Direction::Received, &notification);
                let by_will = stays_away(&notification);
                (notification.code, notification.describe(), notification.data, by_will)
            }
            None => {
                let code = ErrorCode { code: 0, subcode: 0 };
                (code, "a NOTIFICATION without a code".into(), Bytes::new(), false)
            }
        };
        context.outbox.note_error(context.now, Direction::Received, Some(code), text.as_str());
        context.outbox.stays_away = by_will;
        let kind = IncidentKind::NotificationReceived { code: code.code, subcode: code.subcode };
        let reason = Reason::new("notification-received", text);
        context.outbox.incident(context.now, kind, reason, &data);
        let ending = match code {
            ErrorCode::CONNECTION_COLLISION_RESOLUTION => Ending::Collision,
            // A peer that may say so says Hard Reset, and means the rest as a restart.
            ErrorCode::HARD_RESET => Ending::Death,
            ErrorCode::ADMINISTRATIVE_RESET | ErrorCode::OTHER_CONFIGURATION_CHANGE => Ending::Reset,
            // Capabilities are the only parameter that our OPEN has.
            ErrorCode::UNSUPPORTED_OPTIONAL_PARAMETER if self.session().is_none() => {
                Ending::CapabilitiesRefused
            }
            _ => Ending::Notification,
        };
        self.close(context, ending)
    }

    fn tcp_failed(&self, error: Option<String>, context: &mut Context<'_>) -> Step {
        let error = error.unwrap_or_else(|| "closed by the peer".into());
        let text = format!("connection lost in {}: {error}", self.state());
        match self.session() {
            Some(_) => context.outbox.note_error(context.now, Direction::Local, None, text.as_str()),
            None => context.outbox.note_unconnected(context.now, text.as_str()),
        }
        let reason = Reason::new("connection-lost", text);
        context.outbox.incident(context.now, IncidentKind::Connection, reason, &Bytes::new());
        Step::Ended(Ending::TcpFailed)
    }

    /// Ends it for a reason of our own. No NOTIFICATION goes out before OPEN.
    fn stop(&self, cease: Notification, explanation: Option<String>, context: &mut Context<'_>) -> Step {
        if matches!(self.phase, Phase::DelayOpen) {
            return self.close(context, Ending::Notification);
        }
        let hard = cease.code.is_hard();
        let agreed = self.session().and_then(|session| session.graceful_restart);
        let encapsulate = hard && agreed.is_some_and(|peer| peer.notification);
        let said = || if encapsulate { cease.describe() } else { cease.text().unwrap_or_default() };
        let text = explanation.unwrap_or_else(said);
        let cease = if encapsulate { cease.into_hard_reset() } else { cease };
        match self.fail(cease, &text, &Bytes::new(), context) {
            Step::Ended(_) if hard => Step::Ended(Ending::Death),
            step => step,
        }
    }

    /// Ends it as the process does: without a word, unless the peer takes a NOTIFICATION for a restart too (RFC 8538).
    pub(super) fn finish(self, context: &mut Context<'_>) {
        let agreed = self.session().and_then(|session| session.graceful_restart);
        if self.established_since().is_some() && agreed.is_some_and(|peer| peer.notification) {
            let reset = Notification::cease(ErrorCode::ADMINISTRATIVE_RESET.subcode, "");
            self.fail(reset, "this process ends, and its routes stay", &Bytes::new(), context);
        } else {
            self.abandon(context.outbox);
        }
    }

    /// Sends a NOTIFICATION, on account of a message if there is one, and closes.
    fn fail(
        &self,
        notification: Notification,
        text: &str,
        message: &Bytes,
        context: &mut Context<'_>,
    ) -> Step {
        let code = notification.code;
        let text = if text.is_empty() { code.to_string() } else { format!("{code}: {text}") };
        context.outbox.said.notification(context.now, Direction::Sent, &notification);
        context.outbox.send(self.id, &Message::Notification(notification));
        context.outbox.note_error(context.now, Direction::Sent, Some(code), text.as_str());
        let kind = IncidentKind::NotificationSent { code: code.code, subcode: code.subcode };
        context.outbox.incident(context.now, kind, Reason::new("notification-sent", text), message);
        self.close(context, Ending::Notification)
    }

    fn close(&self, context: &mut Context<'_>, ending: Ending) -> Step {
        context.outbox.push(IngressOutput::Close { connection: self.id });
        Step::Ended(ending)
    }

    fn send_open(&mut self, context: &mut Context<'_>) {
        context.outbox.send(self.id, &Message::Open(self.ours(context).open()));
        self.deadlines.stop(Timer::DelayOpen);
        self.phase = Phase::OpenSent;
        self.deadlines.set(Timer::Hold, context.now + OPEN_HOLD_TIME);
    }

    fn send_keepalive(&mut self, context: &mut Context<'_>) {
        context.outbox.send(self.id, &Message::Keepalive);
        let interval = self.session().map_or(Duration::ZERO, |session| session.keepalive_time);
        if !interval.is_zero() {
            self.deadlines.set(Timer::Keepalive, context.now + context.rng.jitter(interval));
        }
    }

    /// Without a hold time the peer may be silent for ever, but not before it has confirmed.
    fn restart_hold_timer(&mut self, now: Instant) {
        self.put_off = false;
        let hold_time = self.session().map_or(Duration::ZERO, |session| session.hold_time);
        match (&self.phase, hold_time) {
            (Phase::Established { .. }, Duration::ZERO) => self.deadlines.stop(Timer::Hold),
            (_, Duration::ZERO) => self.deadlines.set(Timer::Hold, now + OPEN_HOLD_TIME),
            (_, hold_time) => self.deadlines.set(Timer::Hold, now + hold_time),
        }
    }
}

/// Whether the peer says that a person wants no session.
fn stays_away(notification: &Notification) -> bool {
    let code = notification.carried().map_or(notification.code, |carried| carried.code);
    matches!(code, ErrorCode::ADMINISTRATIVE_SHUTDOWN | ErrorCode::PEER_DE_CONFIGURED)
}
