//! The first stage, one per peer: bytes and connection events in, decoded batches and session changes out.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ipnet::IpNet;

use self::ahead::Updates;
use self::framing::{Frame, Framer};
use crate::config::PeerConfig;
use crate::mrt::Encoding;
use crate::protection::ao::KeyChain;
use crate::role::Role;
use crate::session::{Event, Fsm, Malformed, Outbox, State, Timer};
use crate::status::{Direction, LastError, MessageCounters, Said};
use crate::types::{Asn, ConnectionId, Family, FamilySet, PeerAddress, PeerType, Reason};
use crate::wire::attributes::PathAttributes;
use crate::wire::header::MessageType;
use crate::wire::notification::Notification;
use crate::wire::open::Open;
use crate::wire::route_refresh::RouteRefresh;
use crate::wire::update::{self, Agreed, Decoder};
use crate::wire::{Severity, WireError};

pub mod ahead;
mod framing;

/// The first stage of one peer.
///
/// It frames and decodes what the peer sends, runs the FSM with its timers over the connections to the peer, and lets out routes,
/// session changes and what is to be written.
///
/// The connections that it dials are numbered from a random number on, drawn from its seed and the peer's address, so that those of
/// different peers do not meet: give an `Ingress` that takes the place of another for the same peer a seed of its own.
///
/// The router id does not change: to change it, end the session ([`IngressInput::Cease`]) and make a new `Ingress`.
#[derive(Debug)]
pub struct Ingress {
    fsm: Fsm,
    outbox: Outbox,
    framers: BTreeMap<ConnectionId, Framer>,
    /// The decoder of the Established session's connection.
    decoder: Option<(ConnectionId, Decoder)>,
}

impl Ingress {
    /// A stage that waits for [`IngressInput::Configure`]; until then connections are refused. `seed` is what jitter comes from.
    #[must_use]
    pub fn new(peer: PeerAddress, router_id: Ipv4Addr, seed: u64) -> Self {
        Self {
            fsm: Fsm::new(peer, router_id, seed),
            outbox: Outbox::default(),
            framers: BTreeMap::new(),
            decoder: None,
        }
    }

    /// Takes in what happened. All given bytes are dealt with before it returns.
    pub fn handle(&mut self, now: Instant, input: IngressInput) {
        let (fsm, outbox) = (&mut self.fsm, &mut self.outbox);
        match input {
            IngressInput::Configure(config) => fsm.configure(now, config, outbox),
            IngressInput::Connected { connection, local } => fsm.connected(now, connection, local, outbox),
            IngressInput::ConnectFailed { connection, error } => {
                fsm.connect_failed(now, connection, &error, outbox);
            }
            IngressInput::Accepted { connection, local, remote } => {
                fsm.accepted(now, connection, (local, remote), outbox);
            }
            IngressInput::Unprotected { error } => Fsm::unprotected(now, &error, outbox),
            IngressInput::Bytes { connection, bytes } => self.bytes(now, connection, bytes),
            IngressInput::Updates { connection, updates } => self.updates(now, connection, updates),
            IngressInput::Closed { connection, error } => fsm.closed(now, connection, error, outbox),
            IngressInput::SendHoldTimerExpires { connection } => {
                fsm.event(now, connection, Event::SendHoldTimerExpires, outbox);
            }
            IngressInput::Restart(restart) => fsm.set_restart(restart),
            IngressInput::Cease { subcode, text } => fsm.cease(now, subcode, &text, outbox),
            IngressInput::Reset => fsm.reset(now, outbox),
            IngressInput::AskRefresh(families) => fsm.ask_refresh(families, outbox),
            IngressInput::OverLimit { family } => fsm.over_limit(now, family, outbox),
            IngressInput::Observe(observed) => outbox.observed = observed,
            IngressInput::Stop => fsm.finish(now, outbox),
            IngressInput::HeldUp => fsm.held_up(now),
            IngressInput::Tick => fsm.tick(now, outbox),
        }
        self.framers.retain(|connection, _| self.fsm.is_open(*connection));
        self.outbox.said.retain(|connection| self.fsm.is_open(connection));
    }

    /// The next output, in order.
    pub fn poll(&mut self) -> Option<IngressOutput> {
        self.outbox.poll()
    }

    /// When [`IngressInput::Tick`] is due, and for which timer.
    #[must_use]
    pub fn next_deadline(&self) -> Option<(Instant, Timer)> {
        self.fsm.next_deadline()
    }

    /// From when on nothing of the past matters to the peer, without a connection: none while it has one, or is kept down because it has
    /// told more prefixes than it may.
    #[must_use]
    pub fn over_at(&self) -> Option<Instant> {
        self.fsm.over_at()
    }

    /// The peer's state: that of the connection that has come furthest.
    #[must_use]
    pub fn state(&self) -> State {
        self.fsm.state()
    }

    /// Since when; none before it was configured.
    #[must_use]
    pub fn since(&self) -> Option<Instant> {
        self.fsm.since()
    }

    /// The Established session.
    #[must_use]
    pub fn session(&self) -> Option<&Arc<Session>> {
        self.fsm.session()
    }

    /// When a session was Established last, whether it still is or not.
    #[must_use]
    pub fn established_at(&self) -> Option<Instant> {
        self.fsm.established_at()
    }

    /// The timers that run, and when they expire.
    #[must_use]
    pub fn timers(&self) -> BTreeMap<Timer, Instant> {
        self.fsm.timers()
    }

    /// What both ends have said: on the session's connection or, without a session, on the last one.
    #[must_use]
    pub fn said(&self) -> Said {
        self.outbox.said.told(self.fsm.session().map(|session| session.connection))
    }

    /// What went wrong last, if anything ever did.
    #[must_use]
    pub fn last_error(&self) -> Option<&LastError> {
        self.outbox.last_error.as_ref()
    }

    /// Whether the session is kept down because the peer has told more prefixes than it may.
    #[must_use]
    pub fn is_over_limit(&self) -> bool {
        self.fsm.is_over_limit()
    }

    /// Messages so far, of all sessions. UPDATEs that were sent are not among them: the third stage sends those.
    #[must_use]
    pub fn counters(&self) -> MessageCounters {
        self.outbox.counters
    }

    fn bytes(&mut self, now: Instant, connection: ConnectionId, bytes: Bytes) {
        if !self.fsm.is_open(connection) {
            return;
        }
        self.framers.entry(connection).or_default().push(bytes);
        while self.fsm.is_open(connection) {
            match self.framers.entry(connection).or_default().next() {
                Ok(Some(frame)) => self.frame(now, connection, &frame),
                Ok(None) => return,
                Err(malformed) => {
                    self.fsm.event(now, connection, Event::BgpHeaderErr(malformed), &mut self.outbox);
                }
            }
        }
    }

    /// Takes in UPDATEs that were decoded already; each by itself where they are to be told as they are.
    fn updates(&mut self, now: Instant, connection: ConnectionId, updates: Updates) {
        let Updates { messages, batch } = updates;
        let is_established = self.decoder.as_ref().is_some_and(|(of, _)| *of == connection);
        if self.outbox.observed || !is_established {
            return messages.into_iter().for_each(|message| self.bytes(now, connection, message));
        }
        if self.fsm.is_open(connection) {
            messages.iter().for_each(|_| self.outbox.received(MessageType::Update));
            if !batch.runs.is_empty() {
                self.outbox.push(IngressOutput::Routes(batch));
            }
            self.fsm.event(now, connection, Event::UpdateMsg, &mut self.outbox);
        }
    }

    fn frame(&mut self, now: Instant, connection: ConnectionId, frame: &Frame) {
        self.outbox.received(frame.kind);
        if self.outbox.observed {
            let session = self.fsm.session();
            let encoding =
                session.map_or(Encoding::PLAIN, |s| s.encoding_of(&frame.message, s.add_path.receive));
            self.outbox.observe(&frame.message, encoding);
        }
        let malformed = |error: WireError| Malformed { error, message: frame.message.clone() };
        let event = match frame.kind {
            MessageType::Open => {
                self.outbox.said.open_received(connection, &frame.message);
                match Open::decode(&frame.body()) {
                    Ok(open) => Event::BgpOpen(open),
                    Err(error) => Event::BgpOpenMsgErr(malformed(error)),
                }
            }
            MessageType::Notification => Event::NotifMsg(Notification::decode(&frame.body())),
            MessageType::Keepalive => Event::KeepAliveMsg,
            MessageType::Update => self.update(now, connection, frame),
            MessageType::RouteRefresh => match RouteRefresh::decode(&frame.body()) {
                Ok(refresh) => {
                    self.route_refresh(connection, refresh);
                    Event::RouteRefreshMsg
                }
                Err(error) => Event::BgpHeaderErr(malformed(error)),
            },
        };
        let confirms = matches!(event, Event::KeepAliveMsg);
        self.fsm.event(now, connection, event, &mut self.outbox);
        if confirms {
            self.established(connection);
        }
    }

    /// Makes ready for UPDATEs on a connection whose session has just been Established.
    fn established(&mut self, connection: ConnectionId) {
        let Some(session) = self.fsm.session().filter(|session| session.connection == connection) else {
            return;
        };
        if self.decoder.as_ref().is_some_and(|(of, _)| *of == connection) {
            return;
        }
        self.decoder = Some((connection, Decoder::new(session.agreed())));
        self.framers.entry(connection).or_default().set_message_max(session.max_message);
    }

    /// Decodes an UPDATE, if the session is Established. Before that nothing in it is looked at.
    fn update(&mut self, now: Instant, connection: ConnectionId, frame: &Frame) -> Event {
        let decoder = match &mut self.decoder {
            Some((of, decoder)) if *of == connection => decoder,
            _ => return Event::UpdateMsg,
        };
        match decoder.decode(&frame.body(), self.outbox.batch()) {
            Ok(decoded) => {
                self.tolerated(now, &decoded.errors, frame);
                if let Some(family) = decoded.end_of_rib {
                    self.outbox.push(IngressOutput::EndOfRib(family));
                }
                Event::UpdateMsg
            }
            Err(error) => Event::UpdateMsgErr(Malformed { error, message: frame.message.clone() }),
        }
    }

    /// Counts and reports what was wrong with an UPDATE and did not end the session: one incident of each severity tells enough.
    fn tolerated(&mut self, now: Instant, errors: &[WireError], frame: &Frame) {
        let of = |severity| errors.iter().filter(move |error| error.severity == severity);
        let outbox = &mut self.outbox;
        if let Some(error) = of(Severity::Discard).next() {
            let discarded = u64::try_from(of(Severity::Discard).count()).unwrap_or(u64::MAX);
            outbox.counters.attributes_discarded += discarded;
            let reason = Reason::new("attribute-discarded", error.to_string());
            outbox.incident(now, IncidentKind::AttributeDiscarded, reason, &frame.message);
        }
        if let Some(error) = of(Severity::TreatAsWithdraw).next() {
            outbox.counters.treated_as_withdraw += 1;
            outbox.note_error(now, Direction::Local, Some(error.code), error.to_string());
            let reason = Reason::new("treated-as-withdraw", error.to_string());
            outbox.incident(now, IncidentKind::TreatedAsWithdraw, reason, &frame.message);
        }
    }

    /// Passes on a request for a family that was agreed on; others are ignored (RFC 2918 section 4).
    fn route_refresh(&mut self, connection: ConnectionId, refresh: RouteRefresh) {
        let Some(session) = self.fsm.session().filter(|session| session.connection == connection) else {
            return;
        };
        let agreed = |family: &Family| session.families.contains(*family);
        let Some(family) = refresh.family.family().filter(agreed) else { return };
        let output = match refresh.subtype {
            RouteRefresh::REQUEST => IngressOutput::Refresh(family),
            RouteRefresh::BEGIN if session.enhanced_route_refresh => IngressOutput::RefreshBegins(family),
            RouteRefresh::END if session.enhanced_route_refresh => IngressOutput::RefreshEnds(family),
            _ => return,
        };
        self.outbox.push(output);
    }
}

/// What reaches an [`Ingress`].
#[derive(Debug)]
pub enum IngressInput {
    /// The peer's configuration, first or changed. What OPEN carries or the connection depends on resets the session
    /// (Cease, subcode 6 Other Configuration Change); policies, names and timers of later use do not.
    Configure(Arc<PeerConfig>),
    /// A dial succeeded.
    Connected {
        /// Which.
        connection: ConnectionId,
        /// Our end.
        local: SocketAddr,
    },
    /// A dial failed.
    ConnectFailed {
        /// Which.
        connection: ConnectionId,
        /// The kernel's words.
        error: String,
    },
    /// The peer connected to us.
    Accepted {
        /// Which.
        connection: ConnectionId,
        /// Our end.
        local: SocketAddr,
        /// The peer's end.
        remote: SocketAddr,
    },
    /// Connections of the peer's are closed at once, as they lack what protects the session.
    Unprotected {
        /// Why.
        error: String,
    },
    /// The peer sent bytes.
    Bytes {
        /// On which connection.
        connection: ConnectionId,
        /// What.
        bytes: Bytes,
    },
    /// The peer sent UPDATEs, which were decoded by [`ahead`] as the session on the connection has agreed.
    Updates {
        /// On which connection.
        connection: ConnectionId,
        /// What.
        updates: Updates,
    },
    /// The connection is gone: FIN, RST or an error of the socket.
    Closed {
        /// Which.
        connection: ConnectionId,
        /// The kernel's words.
        error: Option<String>,
    },
    /// The peer has taken no bytes for too long (RFC 9687): the connection is given up, and the session's end is a death.
    SendHoldTimerExpires {
        /// Which.
        connection: ConnectionId,
    },
    /// What OPEN says of our own restart (RFC 4724 section 3). Takes effect with the next OPEN; resets nothing.
    Restart(LocalRestart),
    /// End the session with this Cease subcode (RFC 4486) and text (RFC 9003), and start again.
    Cease {
        /// The subcode.
        subcode: u8,
        /// The text for the peer.
        text: String,
    },
    /// End the session with a Cease/Administrative Reset, and start again at once.
    Reset,
    /// Ask for all of the peer's routes of these families again, if it knows ROUTE-REFRESH (RFC 2918).
    AskRefresh(FamilySet),
    /// The peer has told more prefixes of a family than it may: end the session, and keep it down as its configuration says.
    OverLimit {
        /// The family.
        family: Family,
    },
    /// Whether to tell each message that the peer sends as it is.
    Observe(bool),
    /// Close for good: the process ends and the peer shall take it as a restart. Without NOTIFICATION (RFC 4724), or with
    /// Cease/Administrative Reset where both ends take that for a restart too (RFC 8538).
    Stop,
    /// This process did not run for a while: what the peer said meanwhile may not have been read. Before the [`Self::Tick`] that comes late.
    HeldUp,
    /// A deadline may have passed.
    Tick,
}

/// Our own restart, as graceful restart's capability tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LocalRestart {
    /// R bit: this process has taken over from one that died, and has not converged yet.
    pub restarting: bool,
    /// F bit: the families whose kernel routes were kept, through a restart or because there was none.
    pub forwarding: FamilySet,
}

/// What an [`Ingress`] asks for or reports.
#[derive(Debug)]
pub enum IngressOutput {
    /// Open a connection.
    Dial {
        /// Its name from now on.
        connection: ConnectionId,
        /// The address to bind to, if configured.
        source: Option<IpAddr>,
        /// Whom to call.
        remote: SocketAddr,
    },
    /// Send bytes: whole messages, at once, before any UPDATE that is queued.
    Write {
        /// On which connection.
        connection: ConnectionId,
        /// What.
        bytes: Bytes,
    },
    /// Close a connection after what was written to it is out.
    Close {
        /// Which.
        connection: ConnectionId,
    },
    /// Replace the TCP-AO keys of a connection (RFC 5925); if that fails, it is lost.
    RollOver {
        /// Which.
        connection: ConnectionId,
        /// All keys that it has from now on.
        keys: KeyChain,
    },
    /// The session is Established.
    Up(Arc<Session>),
    /// The session is no longer Established.
    Down(Down),
    /// Routes of the Established session.
    Routes(RouteBatch),
    /// The peer has sent its whole table of a family (RFC 4724).
    EndOfRib(Family),
    /// The peer wants our table of a family again (RFC 2918).
    Refresh(Family),
    /// The peer begins to tell its table of a family again (RFC 7313).
    RefreshBegins(Family),
    /// It has told it.
    RefreshEnds(Family),
    /// The state changed.
    State(State),
    /// A message of the peer's, as it was asked for with [`IngressInput::Observe`].
    Received {
        /// Header included.
        message: Bytes,
        /// How it is to be read.
        encoding: Encoding,
    },
    /// Something went wrong or was noteworthy; for `events`, logs and counters.
    Incident(Incident),
}

/// What both ends agreed on in OPEN. One per Established session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// The connection that won.
    pub connection: ConnectionId,
    /// Our end.
    pub local: SocketAddr,
    /// The peer's end.
    pub remote: IpAddr,
    /// The AS that we are.
    pub local_as: Asn,
    /// The AS that the peer is.
    pub remote_as: Asn,
    /// iBGP or eBGP.
    pub peer_type: PeerType,
    /// The peer's BGP identifier.
    pub remote_id: Ipv4Addr,
    /// The families both offered.
    pub families: FamilySet,
    /// Whether AS numbers have four octets here.
    pub four_octet_as: bool,
    /// Whether IPv4 prefixes have IPv6 next hops here (RFC 8950).
    pub extended_next_hop: bool,
    /// The families of which several paths of a prefix are told (RFC 7911).
    pub add_path: AddPathFamilies,
    /// Whether the peer understands ROUTE-REFRESH.
    pub route_refresh: bool,
    /// Whether a refresh has a beginning and an end here (RFC 7313).
    pub enhanced_route_refresh: bool,
    /// What we are to the peer's AS, where that is configured and another than ours (RFC 9234).
    pub role: Option<Role>,
    /// What the peer says that it is to us.
    pub remote_role: Option<Role>,
    /// The longest message that the peer takes: 4096, or 65535 (RFC 8654).
    pub max_message: u16,
    /// The negotiated hold time; zero: no keepalives.
    pub hold_time: Duration,
    /// Between two keepalives; zero: none.
    pub keepalive_time: Duration,
    /// The peer's graceful restart capability, if both ends have it.
    pub graceful_restart: Option<PeerGracefulRestart>,
}

impl Session {
    /// What the meaning of the peer's UPDATEs depends on.
    pub(crate) fn agreed(&self) -> Agreed {
        Agreed {
            families: self.families,
            four_octet_as: self.four_octet_as,
            extended_next_hop: self.extended_next_hop,
            add_path: self.add_path.receive,
            peer_type: self.peer_type,
        }
    }

    /// How a message of the session is to be read, whose sender puts path identifiers in front of prefixes of these families.
    pub(crate) fn encoding_of(&self, message: &[u8], add_path: FamilySet) -> Encoding {
        let identified =
            !add_path.is_empty() && update::family_of(message).is_some_and(|f| add_path.contains(f));
        Encoding { four_octet_as: self.four_octet_as, add_path: identified }
    }

    /// Whether the peer, by the address that it has on the session, is the next hop of what it would be told (RFC 4271 section 5.1.3).
    pub(crate) fn is_next_hop(&self, told: IpAddr) -> bool {
        told == self.remote
    }
}

/// The families whose prefixes have path identifiers on a session, by direction (RFC 7911 section 4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddPathFamilies {
    /// In what the peer tells.
    pub receive: FamilySet,
    /// In what it is told.
    pub send: FamilySet,
}

/// What the peer says of its restarts (RFC 4724 section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerGracefulRestart {
    /// R bit: the peer has just restarted.
    pub restarting: bool,
    /// N bit: a NOTIFICATION but a Hard Reset begins a restart as a closed connection does (RFC 8538). Ours is always set.
    pub notification: bool,
    /// How long to keep the peer's routes while it is away.
    pub restart_time: Duration,
    /// The families it restarts gracefully.
    pub families: FamilySet,
    /// Those of them whose forwarding state it kept (F bit).
    pub forwarding: FamilySet,
    /// Its long-lived graceful restart, if both ends have it.
    pub long_lived: Option<LongLived>,
}

impl PeerGracefulRestart {
    /// The families whose routes are kept while the peer is away.
    #[must_use]
    pub fn kept(&self) -> FamilySet {
        let long_lived = |family: &Family| self.long_lived_time(*family) > Duration::ZERO;
        self.families.union(Family::ALL.into_iter().filter(long_lived).collect())
    }

    /// How long the peer's routes of a family are kept beyond the restart time; zero: no longer.
    #[must_use]
    pub fn long_lived_time(&self, family: Family) -> Duration {
        self.long_lived.map_or(Duration::ZERO, |long_lived| match family {
            Family::Ipv4Unicast => long_lived.ipv4,
            Family::Ipv6Unicast => long_lived.ipv6,
        })
    }
}

/// What the peer says of its absences that take longer (RFC 9494 section 3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LongLived {
    /// How long to keep its IPv4 routes beyond its restart time, the bound of our own configuration applied; zero: no longer.
    pub ipv4: Duration,
    /// The same of its IPv6 routes.
    pub ipv6: Duration,
    /// The families whose forwarding state it kept (F bit).
    pub forwarding: FamilySet,
}

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Down {
    /// The peer restarts (RFC 4724): keep its routes of these families, stale, for this long at most.
    Restart {
        /// The families.
        families: FamilySet,
        /// How long.
        restart_time: Duration,
    },
    /// The connection lost a collision when the session on it had just been Established; another carries on (RFC 4271 section
    /// 6.8). As a restart, but not one more: routes that are stale already are not deleted as after a second one.
    Superseded {
        /// The families.
        families: FamilySet,
        /// How long.
        restart_time: Duration,
    },
    /// The peer is dead: its routes go at once.
    Death,
}

/// Routes of one peer, decoded: runs of prefixes that share attributes. One allocation for all prefixes of a batch.
#[derive(Clone, Debug, Default)]
pub struct RouteBatch {
    /// The prefixes of all runs, one behind the other, without host bits.
    pub prefixes: Vec<IpNet>,
    /// The path identifier of each of them, 0 of a family that has none (RFC 7911); empty: no family of the session has any.
    pub path_ids: Vec<u32>,
    /// In the order received.
    pub runs: Vec<Run>,
}

impl RouteBatch {
    /// The prefixes of a run, each with its path identifier: 0 where there is none.
    pub fn nlri(&self, run: &Run) -> impl Iterator<Item = (&IpNet, u32)> {
        let prefixes = self.prefixes.get(run.range.clone()).unwrap_or_default();
        let path_ids = self.path_ids.get(run.range.clone()).unwrap_or_default();
        prefixes.iter().enumerate().map(|(i, prefix)| (prefix, path_ids.get(i).copied().unwrap_or(0)))
    }
}

/// A run of prefixes of one family.
#[derive(Clone, Debug)]
pub struct Run {
    /// Where in [`RouteBatch::prefixes`].
    pub range: Range<usize>,
    /// The attributes; none: withdrawn.
    pub attributes: Option<Arc<PathAttributes>>,
}

/// Something noteworthy in a session.
#[derive(Clone, Debug)]
pub struct Incident {
    /// Of what kind.
    pub kind: IncidentKind,
    /// Code and sentence.
    pub reason: Reason,
    /// The bytes in question, cut to [`Incident::BYTES_MAX`].
    pub bytes: Bytes,
}

impl Incident {
    /// How many offending bytes are kept.
    pub const BYTES_MAX: usize = 4096;
}

/// The kinds of incidents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IncidentKind {
    /// We sent this NOTIFICATION.
    NotificationSent {
        /// Code and subcode (RFC 4271 section 4.5).
        code: u8,
        /// Subcode.
        subcode: u8,
    },
    /// The peer sent this NOTIFICATION.
    NotificationReceived {
        /// Code.
        code: u8,
        /// Subcode.
        subcode: u8,
    },
    /// A malformed UPDATE was treated as a withdraw (RFC 7606).
    TreatedAsWithdraw,
    /// A malformed attribute was discarded (RFC 7606).
    AttributeDiscarded,
    /// The connection could not be made or was lost.
    Connection,
}
