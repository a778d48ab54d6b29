//! The composition of the three stages behind one [`Input`] and one [`Output`]: on one thread, unless another [helps](Speaker::help).
//!
//! ```text
//!          ┌─────────────────────────── Speaker ──────────────────────────┐
//! Input ──→│ Ingress (one a peer) ──→ Rib ──→ Egress (one an update group)│──→ Output
//!          └──────────────────────────────────────────────────────────────┘
//! ```
//!
//! The speaker itself holds only what lies between the stages: which connection is whose, what has been handed to the transport
//! and not left, and how far the first convergence is.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ipnet::IpNet;

pub use self::dump::Dump;
pub use self::io::{
    BestPathChange, Caller, Event, EventKind, Input, NextHops, Output, Refresh, Resolution, SpeakerStart,
    Timer, TrackedNextHop,
};

use self::announced::Announced;
use self::convergence::Convergence;
use self::dynamic::Dynamic;
use self::outbox::{Maker, Outbox};
use self::peer::Peer;
use crate::bfd::Change;
use crate::bmp::{Bmp, BmpInput};
use crate::config::SpeakerConfig;
use crate::egress::groups::Told;
use crate::egress::shared::Shared;
use crate::egress::{EgressInput, GroupId};
use crate::ingress::{Down, IngressInput, IngressOutput, LocalRestart, Session};
use crate::mrt::Observed;
use crate::rib::{Rib, RibInput, RibOutput};
use crate::session::State;
use crate::status::{RangeRefusal, SpeakerCounters};
use crate::types::{ConnectionId, Family, FamilySet, PeerAddress, PeerId, link_of};
use crate::wire::error::ErrorCode;
use crate::wire::header::MessageType;

mod announced;
mod bmp;
mod configure;
mod convergence;
mod deaths;
mod dump;
mod dynamic;
mod io;
mod observe;
mod outbox;
mod peer;
mod queries;

/// Cease subcodes (RFC 4486).
mod cease {
    pub(super) const PEER_DECONFIGURED: u8 = 3;
    pub(super) const CONNECTION_REJECTED: u8 = 5;
    pub(super) const OTHER_CONFIGURATION_CHANGE: u8 = 6;
}

/// A BGP speaker. One per daemon.
#[derive(Debug)]
pub struct Speaker {
    start: SpeakerStart,
    config: Option<Arc<SpeakerConfig>>,
    peers: BTreeMap<PeerAddress, Peer>,
    dynamic: Dynamic,
    addresses: BTreeMap<PeerId, PeerAddress>,
    /// The number that the next peer has, unless it is taken.
    numbered: u32,
    /// Every connection that the transport has or makes for us.
    connections: BTreeMap<ConnectionId, Outbox>,
    rib: Rib,
    egress: Shared,
    convergence: Convergence,
    /// Whether peers are told nothing that was learned yet (RFC 4724 section 4.1).
    deferring: bool,
    /// After a restart, until the first convergence: what the kernel holds is better than what the first peers to come back know.
    held: Option<BTreeMap<IpNet, BestPathChange>>,
    announced: Announced,
    bmp: Bmp,
    counters: SpeakerCounters,
    /// Whether messages and changes of state are told.
    observed: bool,
    /// The peers whose sessions are to end, as they have told more prefixes than they may, and of which family.
    over_limit: BTreeMap<PeerAddress, Family>,
    /// Refused connections that no event has told of, and when one was told last.
    refused: (u64, Option<Instant>),
    /// Peers that died, of which the RIB is still to be told.
    dead: Vec<PeerId>,
    /// When something was handled that is to be settled once the outputs so far have been taken.
    unsettled: Option<Instant>,
    outputs: VecDeque<Output>,
    stopped: bool,
}

impl Speaker {
    /// A speaker without configuration: it does nothing before [`Input::Configure`].
    #[must_use]
    pub fn new(start: SpeakerStart) -> Self {
        Self {
            start,
            config: None,
            peers: BTreeMap::new(),
            dynamic: Dynamic::default(),
            addresses: BTreeMap::new(),
            numbered: 0,
            connections: BTreeMap::new(),
            rib: Rib::new(),
            egress: Shared::default(),
            convergence: Convergence::new(start.restarting),
            deferring: true,
            held: start.restarting.then(BTreeMap::new),
            announced: Announced::default(),
            bmp: Bmp::default(),
            counters: SpeakerCounters::default(),
            observed: false,
            over_limit: BTreeMap::new(),
            refused: (0, None),
            dead: Vec::new(),
            unsettled: None,
            outputs: VecDeque::new(),
            stopped: false,
        }
    }

    /// Lets another thread pack what peers are told. It is to run what this returns, which ends with the speaker or its stop; `wake` is
    /// called when [`Input::Packed`] is due.
    pub fn help<W: Fn() + Send + 'static>(&mut self, wake: W) -> impl FnOnce() + Send + use<W> {
        self.egress.help(wake)
    }

    /// Does without that thread.
    pub fn dismiss(&mut self) {
        self.egress.dismiss();
    }

    /// Takes in one input. Drain [`poll`](Self::poll) afterwards.
    pub fn handle(&mut self, now: Instant, input: Input) {
        if self.stopped {
            if let Input::Accepted { connection, .. } = input {
                self.outputs.push_back(Output::Close { connection });
            }
            return;
        }
        let input = match bmp::of_station(input) {
            Ok(input) => return self.station_says(now, input),
            Err(input) => input,
        };
        match input {
            Input::Configure(config) => self.configure(now, config),
            Input::Remember(peers) => self.dynamic.remember(peers),
            Input::Accepted { connection, local, remote } => self.accept(now, connection, local, remote),
            Input::Refused { remote } => {
                self.counters.too_many = self.counters.too_many.saturating_add(1);
                self.refuse(now, remote.ip());
            }
            Input::Unprotected { caller: Caller::Peer(peer), error } => {
                self.tell_peer(now, peer, IngressInput::Unprotected { error });
            }
            Input::Unprotected { caller: Caller::Range(range), error } => {
                self.refuse_of_range(now, range, range.addr(), RangeRefusal::Unprotected(error));
            }
            Input::Connected { connection, local } => {
                self.connected(connection, local);
                self.tell_session(now, connection, IngressInput::Connected { connection, local });
            }
            Input::ConnectFailed { connection, error } => {
                self.lose(now, connection, IngressInput::ConnectFailed { connection, error });
            }
            Input::Bytes { connection, bytes } => {
                self.tell_session(now, connection, IngressInput::Bytes { connection, bytes });
            }
            Input::Updates { connection, updates } => {
                self.tell_session(now, connection, IngressInput::Updates { connection, updates });
            }
            Input::Written { connection, bytes } => self.credit(now, connection, bytes),
            Input::Closed { connection, error } => {
                self.lose(now, connection, IngressInput::Closed { connection, error });
            }
            Input::NextHops(answers) => {
                answers.iter().for_each(|(next_hop, _)| self.convergence.answered(next_hop));
                self.tell_rib(now, RibInput::NextHops(answers));
            }
            Input::Reset { peer } => self.tell_peer(now, peer, IngressInput::Reset),
            Input::Refresh { peer, direction: Refresh::In } => {
                self.tell_peer(now, peer, IngressInput::AskRefresh(FamilySet::all()));
            }
            Input::Refresh { peer, direction: Refresh::Out } => self.tell_again(now, peer),
            Input::Bfd { peer, change } => self.bfd(now, peer, change),
            Input::Observe(observed) => self.observe(now, observed),
            Input::Packed => {}
            Input::Stop => return self.stop(now),
            Input::HeldUp => {
                self.peers.values_mut().for_each(|p| p.ingress.handle(now, IngressInput::HeldUp));
            }
            Input::Tick => self.tick(now),
        }
        if self.unsettled.is_none() && self.dead.is_empty() && !self.rib.is_withdrawing() {
            self.settle(now);
        } else {
            self.unsettled = Some(now);
        }
    }

    /// Whether it goes through a table, a piece with each [`poll`](Self::poll): what is written meanwhile may be told it.
    #[must_use]
    pub fn is_settling(&self) -> bool {
        self.unsettled.is_some()
    }

    /// What there is to do, in order.
    pub fn poll(&mut self) -> Option<Output> {
        while self.outputs.is_empty()
            && let Some(now) = self.unsettled
        {
            self.settle_on(now);
        }
        self.outputs.pop_front()
    }

    /// When the next [`Input::Tick`] is due, and for what.
    #[must_use]
    pub fn next_deadline(&self) -> Option<(Instant, Timer)> {
        if self.stopped {
            return None;
        }
        let sessions = self.peers.iter().filter_map(|(&peer, p)| {
            p.ingress.next_deadline().map(|(at, timer)| (at, Timer::Session { peer, timer }))
        });
        let send_hold = self.send_hold_deadlines().map(|(_, peer, at)| (at, Timer::SendHold { peer }));
        let rib = self.rib.next_deadline().map(|(at, _)| (at, Timer::Rib));
        let convergence = self.convergence.next_deadline().map(|at| (at, Timer::Convergence));
        let gone = self.gone().map(|(peer, at)| (at, Timer::Forget { peer }));
        let station = self.bmp.next_deadline().map(|(at, station)| (at, Timer::Station { station }));
        let deadlines = sessions.chain(send_hold).chain(gone).chain(rib).chain(convergence).chain(station);
        deadlines.min_by_key(|(at, _)| *at)
    }

    fn send_hold_deadlines(&self) -> impl Iterator<Item = (ConnectionId, PeerAddress, Instant)> {
        self.connections.iter().filter_map(|(&connection, outbox)| {
            let peer = self.peers.get(&outbox.peer)?;
            let hold_time = peer.ingress.session().map_or(Duration::ZERO, |s| s.hold_time);
            let wait = peer.config.timers.send_hold_time(hold_time);
            outbox.send_hold_deadline(wait).map(|at| (connection, outbox.peer, at))
        })
    }

    fn tick(&mut self, now: Instant) {
        let due: Vec<_> = self
            .peers
            .iter()
            .filter(|(_, p)| p.ingress.next_deadline().is_some_and(|(at, _)| at <= now))
            .map(|(peer, _)| *peer)
            .collect();
        for peer in due {
            self.tell_peer(now, peer, IngressInput::Tick);
        }
        let stuck: Vec<_> = self.send_hold_deadlines().filter(|(.., at)| *at <= now).collect();
        for (connection, peer, _) in stuck {
            self.tell_peer(now, peer, IngressInput::SendHoldTimerExpires { connection });
        }
        if self.rib.next_deadline().is_some_and(|(at, _)| at <= now) {
            self.tell_rib(now, RibInput::Tick);
        }
        if self.bmp.next_deadline().is_some_and(|(at, _)| at <= now) {
            self.bmp.handle(now, BmpInput::Tick);
        }
    }

    /// BFD down is a peer's death (RFC 5882 section 4.2), unless it restarts: then its BFD may go down with its BGP, and says nothing of
    /// the path (section 4.3). Such is a BFD session that was not heard since BGP is back, until the peer's table is told again or the
    /// time for that is up.
    fn bfd(&mut self, now: Instant, address: PeerAddress, change: Change) {
        let Some(peer) = self.peers.get(&address) else { return };
        let unheard = peer.ingress.established_at().is_some_and(|since| now <= since + change.silence);
        let restarts = unheard && self.rib.stale_until(peer.id).is_some();
        let dies = change.failed && peer.established.is_some() && !restarts;
        self.tell_people(address, EventKind::Bfd(change));
        if dies {
            let (subcode, text) = (ErrorCode::BFD_DOWN.subcode, String::new());
            self.tell_peer(now, address, IngressInput::Cease { subcode, text });
        }
    }

    /// Closes every connection without a word, and leaves the kernel's routes as they are.
    fn stop(&mut self, now: Instant) {
        self.egress.dismiss();
        self.settle(now);
        self.stopped = true;
        self.bmp.handle(now, BmpInput::Stop);
        self.tell_stations(now);
        let mut last = Vec::new();
        for peer in self.peers.values_mut() {
            peer.ingress.handle(now, IngressInput::Stop);
            while let Some(output) = peer.ingress.poll() {
                if let IngressOutput::Write { connection, bytes } = output {
                    last.push((connection, bytes));
                }
            }
        }
        for (connection, bytes) in last {
            self.observe_sent(connection, &bytes);
            self.outputs.push_back(Output::Write { connection, bytes });
        }
        for (connection, _) in std::mem::take(&mut self.connections) {
            self.outputs.push_back(Output::Close { connection });
        }
    }

    fn accept(&mut self, now: Instant, connection: ConnectionId, local: SocketAddr, remote: SocketAddr) {
        let peer = match self.caller(local, remote) {
            Some(Caller::Peer(peer)) => peer,
            Some(Caller::Range(range)) => match self.join(now, range, remote.ip()) {
                Ok(peer) => peer,
                Err(why) => {
                    self.reject(connection);
                    return self.refuse_of_range(now, range, remote.ip(), why);
                }
            },
            None => {
                self.outputs.push_back(Output::Close { connection });
                self.counters.unknown_peer = self.counters.unknown_peer.saturating_add(1);
                return self.refuse(now, remote.ip());
            }
        };
        self.connections.insert(connection, Outbox::new(now, peer));
        self.connected(connection, local);
        self.tell_session(now, connection, IngressInput::Accepted { connection, local, remote });
    }

    /// The peer that connects from there. A link has one: who was found, else who has the session, else whoever comes.
    fn peer_of(&self, local: SocketAddr, remote: SocketAddr) -> Option<PeerAddress> {
        let Some(link) = link_of(remote) else {
            return Some(remote.ip().into()).filter(|peer| self.peers.contains_key(peer));
        };
        // What is told on a session of a link is of that link: both ends are.
        link_of(local)?;
        let on_link = |peer: &PeerAddress| peer.interface().is_some_and(|i| i.index() == link);
        let (address, peer) = self.peers.iter().find(|(address, _)| on_link(address))?;
        let session = peer.ingress.session().map(|session| session.remote);
        let known = peer.config.neighbour.map(IpAddr::V6).or(session);
        known.is_none_or(|known| known == remote.ip()).then_some(*address)
    }

    /// An incoming connection was closed at once: tells of it, but not of each.
    fn refuse(&mut self, now: Instant, remote: IpAddr) {
        let (connections, told) = &mut self.refused;
        *connections = connections.saturating_add(1);
        if told.is_none_or(|at| at + EventKind::REFUSED_INTERVAL <= now) {
            let kind = EventKind::Refused { connections: std::mem::take(connections) };
            *told = Some(now);
            self.outputs.push_back(Output::Event(Event { peer: remote.into(), kind }));
        }
    }

    /// Bytes left: the peer's group may pack more.
    fn credit(&mut self, now: Instant, connection: ConnectionId, bytes: usize) {
        let Some(outbox) = self.connections.get_mut(&connection) else { return };
        let bytes = outbox.written(now, bytes);
        let peer = self.peers.get(&outbox.peer).filter(|peer| peer.established == Some(connection));
        if let Some((peer, group)) = peer.and_then(|peer| Some((peer.id, peer.group?)))
            && bytes > 0
        {
            self.tell_group(now, group, EgressInput::Written { peer, bytes });
        }
    }

    /// Passes on what concerns a connection. One that was closed meanwhile concerns nobody.
    fn tell_session(&mut self, now: Instant, connection: ConnectionId, input: IngressInput) {
        if let Some(peer) = self.connections.get(&connection).map(|outbox| outbox.peer) {
            self.tell_peer(now, peer, input);
        }
    }

    /// The same, of a connection that is no more.
    fn lose(&mut self, now: Instant, connection: ConnectionId, input: IngressInput) {
        if let Some(outbox) = self.connections.remove(&connection) {
            if let Some(peer) = self.peers.get_mut(&outbox.peer) {
                peer.lost = Some(connection);
            }
            self.tell_peer(now, outbox.peer, input);
        }
    }

    fn tell_peer(&mut self, now: Instant, address: PeerAddress, input: IngressInput) {
        if let Some(peer) = self.peers.get_mut(&address) {
            peer.ingress.handle(now, input);
        }
        while let Some(output) = self.peers.get_mut(&address).and_then(|peer| peer.ingress.poll()) {
            self.session_says(now, address, output);
        }
    }

    fn session_says(&mut self, now: Instant, address: PeerAddress, output: IngressOutput) {
        let Some(peer) = self.peers.get_mut(&address) else { return };
        let id = peer.id;
        match output {
            IngressOutput::Dial { connection, source, remote } => {
                let protection = peer.config.protection();
                self.connections.insert(connection, Outbox::new(now, address));
                self.outputs.push_back(Output::Dial { connection, source, remote, protection });
            }
            IngressOutput::Write { connection, bytes } => {
                self.write(now, connection, Maker::Session, bytes);
            }
            IngressOutput::Close { connection } => {
                if self.connections.remove(&connection).is_some() {
                    self.outputs.push_back(Output::Close { connection });
                }
            }
            IngressOutput::RollOver { connection, keys } => {
                self.outputs.push_back(Output::RollOver { connection, keys });
            }
            IngressOutput::Up(session) => self.up(now, address, session),
            IngressOutput::Down(down) => self.down(now, address, down),
            IngressOutput::Routes(batch) => {
                self.convergence.routes(now, id);
                self.tell_rib(now, RibInput::Routes { peer: id, batch });
            }
            IngressOutput::EndOfRib(family) => {
                self.convergence.end_of_rib(id, family);
                self.tell_rib(now, RibInput::EndOfRib { peer: id, family });
            }
            IngressOutput::Refresh(family) => {
                if let Some(group) = peer.group {
                    self.tell_group(now, group, EgressInput::Refresh { peer: id, family });
                }
            }
            IngressOutput::RefreshBegins(family) => {
                self.tell_rib(now, RibInput::RefreshBegins { peer: id, family });
            }
            IngressOutput::RefreshEnds(family) => {
                self.tell_rib(now, RibInput::RefreshEnds { peer: id, family });
            }
            IngressOutput::State(to) => self.moved(address, to),
            IngressOutput::Received { message, encoding } => {
                self.push_observation(address, Observed::Received(message), encoding);
            }
            IngressOutput::Incident(incident) => self.tell_people(address, EventKind::Incident(incident)),
        }
    }

    /// Tells a peer the Adj-RIB-Out again.
    fn tell_again(&mut self, now: Instant, address: PeerAddress) {
        let Some(peer) = self.peers.get(&address) else { return };
        let (Some(session), Some(group), id) = (peer.ingress.session(), peer.group, peer.id) else { return };
        for family in session.families.iter() {
            self.tell_group(now, group, EgressInput::Refresh { peer: id, family });
        }
    }

    fn up(&mut self, now: Instant, address: PeerAddress, session: Arc<Session>) {
        let Some(peer) = self.peers.get_mut(&address) else { return };
        peer.established = Some(session.connection);
        let agreed = Output::Agreed { connection: session.connection, session: Arc::clone(&session) };
        self.outputs.push_back(agreed);
        self.dynamic.note(address, peer);
        if let (PeerAddress::Interface(interface), IpAddr::V6(remote)) = (address, session.remote) {
            let (link, address) = (interface.index(), Some(remote));
            self.outputs.push_back(Output::Neighbour { link, address });
        }
        self.convergence.up(now, peer.id, &session);
        self.monitor_up(now, address, &session);
        let Some(peer) = self.peers.get(&address) else { return };
        self.tell_rib(now, RibInput::Up { peer: peer.id, session });
    }

    fn down(&mut self, now: Instant, address: PeerAddress, down: Down) {
        // What the groups still had for the old session must not reach the next one.
        if self.dead.is_empty() {
            self.settle_rib(now);
        }
        let Some(peer) = self.peers.get_mut(&address) else { return };
        let connection = peer.established.take();
        self.dynamic.note(address, peer);
        if let PeerAddress::Interface(interface) = address {
            self.outputs.push_back(Output::Neighbour { link: interface.index(), address: None });
        }
        let id = peer.id;
        self.monitor_down(now, address, connection);
        self.end(now, id, down);
    }

    fn moved(&mut self, address: PeerAddress, to: State) {
        let Some(peer) = self.peers.get_mut(&address) else { return };
        let from = std::mem::replace(&mut peer.state, to);
        self.convergence.moved(peer.id, from, to);
        self.observe_state(address, from, to);
        self.tell_people(address, EventKind::State { from, to });
    }

    fn tell_people(&mut self, peer: PeerAddress, kind: EventKind) {
        self.outputs.push_back(Output::Event(Event { peer, kind }));
    }

    /// Lets everything flow to the end: through the RIB, the update groups, and over the threshold of the first convergence.
    fn settle(&mut self, now: Instant) {
        self.settle_rib(now);
        while let Some((address, family)) = self.over_limit.pop_first() {
            if let Some(peer) = self.peers.get(&address) {
                self.convergence.forget(peer.id);
            }
            self.tell_peer(now, address, IngressInput::OverLimit { family });
            self.settle_rib(now);
        }
        if self.deferring && self.convergence.deferral_is_over(now) {
            self.deferring = false;
            self.tell_rib(now, RibInput::Advertise);
            self.settle_rib(now);
        }
        if self.convergence.reached(now) {
            let restart = self.local_restart();
            for address in self.peers.keys().copied().collect::<Vec<_>>() {
                self.tell_peer(now, address, IngressInput::Restart(restart));
            }
            self.settle_rib(now);
            if let Some(held) = self.held.take().filter(|held| !held.is_empty()) {
                self.outputs.push_back(Output::BestPaths(held.into_values().collect()));
            }
            self.outputs.push_back(Output::Converged);
            self.announced.converge();
        }
        self.forget_gone(now);
        self.tell_announced();
        self.tell_stations(now);
    }

    fn settle_rib(&mut self, now: Instant) {
        self.bury(now);
        while let Some(output) = self.rib.poll() {
            self.rib_says(now, output);
        }
        self.pass_on_packed(now);
    }

    fn pass_on_packed(&mut self, now: Instant) {
        while let Some(told) = self.egress.poll() {
            self.group_says(now, told);
        }
    }

    /// Passes on what was packed. What was meant for a session that is no more is for nobody.
    fn group_says(&mut self, now: Instant, told: Told) {
        let Told { peer, connection, bytes, messages, kind } = told;
        self.announced.stir();
        let peer = self.addresses.get(&peer).and_then(|address| self.peers.get_mut(address));
        let Some(peer) = peer.filter(|peer| peer.established == Some(connection)) else { return };
        let sent = match kind {
            MessageType::RouteRefresh => &mut peer.refreshes_sent,
            _ => &mut peer.updates_sent,
        };
        *sent = sent.saturating_add(messages);
        self.write(now, connection, Maker::Group, bytes);
    }

    fn rib_says(&mut self, now: Instant, output: RibOutput) {
        match output {
            RibOutput::BestPaths(changes) => match &mut self.held {
                Some(held) => held.extend(changes.into_iter().map(|c| (c.prefix, c))),
                None => self.outputs.push_back(Output::BestPaths(changes)),
            },
            RibOutput::Changed(table, prefixes) => {
                self.bmp.handle(now, BmpInput::Changed(vec![table], prefixes));
            }
            RibOutput::Track(next_hop) => {
                self.convergence.asked(next_hop);
                self.outputs.push_back(Output::TrackNextHop(next_hop));
            }
            RibOutput::Untrack(next_hop) => {
                self.convergence.answered(&next_hop);
                self.outputs.push_back(Output::UntrackNextHop(next_hop));
            }
            RibOutput::Alarm { peer, prefix, reason } => {
                if let Some(address) = self.addresses.get(&peer) {
                    self.tell_people(*address, EventKind::Alarm { prefix, reason });
                }
            }
            RibOutput::Leak { peer, prefix, reason } => {
                if let Some(address) = self.addresses.get(&peer) {
                    self.tell_people(*address, EventKind::Leak { prefix, reason });
                }
            }
            RibOutput::Limit { peer, family, received, exceeded } => {
                self.limit_reached(peer, family, received, exceeded);
            }
            RibOutput::AskRefresh { peer, family } => {
                if let Some(address) = self.addresses.get(&peer).copied() {
                    self.tell_peer(now, address, IngressInput::AskRefresh([family].into_iter().collect()));
                }
            }
            RibOutput::Aggregates(prefixes) => self.outputs.push_back(Output::Aggregates(prefixes)),
            RibOutput::Egress(group, input) => self.pass_on(now, group, input),
            RibOutput::EgressClosed(group) => {
                self.egress.handle(now, group, None);
                self.announced.stir();
            }
        }
    }

    fn limit_reached(&mut self, peer: PeerId, family: Family, received: usize, exceeded: bool) {
        let peer = self.addresses.get(&peer).and_then(|address| Some((*address, self.peers.get(address)?)));
        let Some((address, peer)) = peer else { return };
        let Some(max) = peer.config.max_prefixes else { return };
        if exceeded && max.action.ends_the_session() {
            self.over_limit.insert(address, family);
        }
        self.tell_people(address, EventKind::Limit { family, received, limit: max.limit, exceeded });
    }

    fn pass_on(&mut self, now: Instant, group: GroupId, input: EgressInput) {
        let (peer, moved_to) = match &input {
            EgressInput::Join { peer, .. } => (Some(*peer), Some(group)),
            EgressInput::Move { peer, to } => (Some(*peer), Some(*to)),
            EgressInput::Leave(peer) => (Some(*peer), None),
            _ => (None, None),
        };
        let address = peer.and_then(|peer| self.addresses.get(&peer));
        if let Some(peer) = address.and_then(|address| self.peers.get_mut(address)) {
            peer.group = moved_to;
        }
        self.monitor_group(now, group, &input);
        self.tell_group(now, group, input);
    }

    fn tell_group(&mut self, now: Instant, group: GroupId, input: EgressInput) {
        self.announced.stir();
        self.egress.handle(now, group, Some(input));
    }

    fn write(&mut self, now: Instant, connection: ConnectionId, maker: Maker, bytes: Bytes) {
        self.observe_sent(connection, &bytes);
        if let Some(outbox) = self.connections.get_mut(&connection) {
            outbox.push(now, maker, bytes.len());
            self.outputs.push_back(Output::Write { connection, bytes });
        }
    }

    /// What OPENs say of our own restart.
    fn local_restart(&self) -> LocalRestart {
        if self.convergence.converged() {
            LocalRestart { restarting: false, forwarding: FamilySet::all() }
        } else {
            LocalRestart { restarting: self.start.restarting, forwarding: self.start.forwarding }
        }
    }
}
