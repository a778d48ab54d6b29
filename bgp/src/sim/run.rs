//! How a [`World`] takes a step.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::stream::{End, Side, Stream};
use super::{Job, SpeakerId, World};
use crate::session::State;
use crate::speaker::{BestPathChange, Event, EventKind, Input, Output, Resolution, TrackedNextHop};
use crate::types::{ConnectionId, link_of};

/// The port that everybody listens on.
const PORT: u16 = 179;

/// How long a dial into the void takes to fail.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest that bytes are under way, in microseconds.
const DELAY_MAX_US: u64 = 5_000;

/// Where the type of a message stands (RFC 4271 section 4.1), and UPDATE's number.
const TYPE_OFFSET: usize = 18;
const UPDATE: u8 = 2;

/// What happens next.
#[derive(Clone, Copy, Debug)]
pub(super) struct Next {
    pub(super) at: Instant,
    /// A speaker's timer; else the first job.
    tick: Option<SpeakerId>,
}

impl World {
    pub(super) fn next_step(&self) -> Option<Next> {
        let job = self.agenda.keys().next().map(|(at, _)| Next { at: *at, tick: None });
        let deadlines = self.nodes.iter().enumerate();
        let tick = deadlines.filter_map(|(n, node)| {
            Some(Next { at: node.deadline?.max(self.now), tick: Some(SpeakerId(n)) })
        });
        job.into_iter().chain(tick).min_by_key(|next| next.at)
    }

    pub(super) fn step(&mut self, next: Next) {
        self.now = next.at;
        if let Some(id) = next.tick {
            return self.drive(id, Input::Tick);
        }
        match self.agenda.pop_first() {
            Some((_, Job::Dial { from, life, connection, source, remote })) => {
                let Some(node) = self.nodes.get_mut(from.0) else { return };
                if node.life == life && node.dialling.remove(&connection) {
                    self.connect(from, connection, source, remote);
                }
            }
            Some((_, Job::Input { to, life, input }))
                if self.nodes.get(to.0).is_some_and(|node| node.life == life) =>
            {
                self.drive(to, input);
            }
            Some((_, Job::Arrive { stream, side })) => self.arrive(stream, side),
            Some((_, Job::Input { .. })) | None => {}
        }
    }

    /// Gives a speaker an input and carries out what it asks for.
    pub(super) fn drive(&mut self, id: SpeakerId, input: Input) {
        let now = self.now;
        if let Some(speaker) = self.nodes.get_mut(id.0).and_then(|node| node.speaker.as_mut()) {
            speaker.handle(now, input);
        }
        while let Some(output) =
            self.nodes.get_mut(id.0).and_then(|node| node.speaker.as_mut()).and_then(|s| s.poll())
        {
            self.carry_out(id, output);
        }
        if let Some(node) = self.nodes.get_mut(id.0) {
            node.deadline = node.speaker.as_ref().and_then(|s| s.next_deadline()).map(|(at, _)| at);
        }
    }

    fn carry_out(&mut self, id: SpeakerId, output: Output) {
        let Some(node) = self.nodes.get_mut(id.0) else { return };
        match output {
            Output::Dial { connection, source, remote, .. } => {
                node.dialling.insert(connection);
                let job = Job::Dial { from: id, life: node.life, connection, source, remote };
                self.later(job);
            }
            Output::Write { connection: connection @ ConnectionId::Station(_), bytes } => {
                self.write_to_station(id, connection, &bytes);
            }
            Output::Write { connection, bytes } => {
                if bytes.get(TYPE_OFFSET) == Some(&UPDATE) {
                    self.stirred = self.now;
                }
                if let Some((id, side)) = node.streams.get(&connection).copied() {
                    if let Some(stream) = self.streams.get_mut(&id) {
                        stream.end_mut(side).write(bytes);
                    }
                    self.pump(id, side);
                }
            }
            Output::Close { connection } => {
                node.dialling.remove(&connection);
                if let Some((id, side)) = node.streams.remove(&connection) {
                    if let Some(stream) = self.streams.get_mut(&id) {
                        stream.end_mut(side).open = false;
                    }
                    self.pump(id, side);
                }
            }
            Output::BestPaths(changes) => self.install(id, changes),
            Output::TrackNextHop(next_hop) => self.resolve(id, next_hop),
            Output::UntrackNextHop(_) => {}
            Output::Converged => self.sweep(id),
            Output::Event(Event { kind: EventKind::State { from, to }, .. }) => {
                if from == State::Established || to == State::Established {
                    self.stirred = self.now;
                }
            }
            Output::Dynamic { remember, .. } => {
                if let Some(node) = self.nodes.get_mut(id.0) {
                    node.dynamic = remember;
                }
            }
            Output::Announced(_)
            | Output::Aggregates(_)
            // What follows from it is decided at the same moment.
            | Output::NextHopsLost(_)
            | Output::Neighbour { .. }
            | Output::Event(_)
            | Output::RollOver { .. }
            | Output::Agreed { .. }
            | Output::Observation(_) => {}
        }
    }

    fn install(&mut self, id: SpeakerId, changes: Vec<BestPathChange>) {
        let elapsed = self.elapsed();
        self.stirred = self.now;
        let Some(node) = self.nodes.get_mut(id.0) else { return };
        for change in changes {
            node.adopted.remove(&change.prefix);
            if change.next_hops.is_empty() {
                node.kernel.remove(&change.prefix);
            } else {
                node.kernel.insert(change.prefix, change.next_hops.clone());
            }
            node.changes.push((elapsed, change));
        }
    }

    /// First convergence: what an earlier life left and this one did not confirm goes.
    fn sweep(&mut self, id: SpeakerId) {
        let Some(node) = self.nodes.get_mut(id.0) else { return };
        node.converged = true;
        let changes = std::mem::take(&mut node.adopted).into_iter();
        let gone = |prefix| BestPathChange { prefix, next_hops: [].into_iter().collect(), direct: None };
        self.install(id, changes.map(gone).collect());
    }

    /// Every address of the world is on-link, no other leads anywhere.
    fn resolve(&mut self, id: SpeakerId, next_hop: TrackedNextHop) {
        let known = self.owners.contains_key(&next_hop.address);
        let resolution = if known { Resolution::OnLink } else { Resolution::Unresolved };
        self.tell_later(id, Input::NextHops(vec![(next_hop, resolution)]));
    }

    /// A SYN has arrived, or not.
    fn connect(
        &mut self,
        from: SpeakerId,
        connection: ConnectionId,
        source: Option<IpAddr>,
        remote: SocketAddr,
    ) {
        if self.stations.contains_key(&remote) {
            return self.connect_station(from, connection, remote);
        }
        let Some(to) = self.owners.get(&remote.ip()).copied().filter(|to| !self.is_cut(from, *to)) else {
            let input = Input::ConnectFailed { connection, error: "connection timed out".into() };
            return self.tell_at(self.now + CONNECT_TIMEOUT, from, input);
        };
        let listens = remote.port() == PORT && self.inspect(to).is_some();
        let Some(source) = source.or_else(|| self.source_towards(from, remote.ip())).filter(|_| listens)
        else {
            let input = Input::ConnectFailed { connection, error: "connection refused".into() };
            return self.tell_later(from, input);
        };
        self.count += 1;
        let (stream, accepted) = (self.count, ConnectionId::Accepted(self.count));
        self.streams.insert(stream, Stream { ends: [End::new(from, connection), End::new(to, accepted)] });
        for (id, connection, side) in [(from, connection, Side::Dialler), (to, accepted, Side::Listener)] {
            if let Some(node) = self.nodes.get_mut(id.0) {
                node.streams.insert(connection, (stream, side));
            }
        }
        let ephemeral = 32_768 + u16::try_from(stream % 28_000).unwrap_or(0);
        let mut local = SocketAddr::new(source, ephemeral);
        if let (SocketAddr::V6(local), Some(link)) = (&mut local, link_of(remote)) {
            local.set_scope_id(link);
        }
        self.drive(to, Input::Accepted { connection: accepted, local: remote, remote: local });
        self.drive(from, Input::Connected { connection, local });
    }

    /// The own address that has most leading bits in common with the remote one: the kernel's choice where links are subnets.
    fn source_towards(&self, from: SpeakerId, remote: IpAddr) -> Option<IpAddr> {
        let common = |address: &IpAddr| match (*address, remote) {
            (IpAddr::V4(a), IpAddr::V4(b)) => Some((a.to_bits() ^ b.to_bits()).leading_zeros()),
            (IpAddr::V6(a), IpAddr::V6(b)) => Some((a.to_bits() ^ b.to_bits()).leading_zeros()),
            _ => None,
        };
        let addresses = self.nodes.get(from.0)?.addresses.iter().rev();
        addresses.filter_map(|a| Some((common(a)?, *a))).max_by_key(|(bits, _)| *bits).map(|(_, a)| a)
    }

    /// Lets the kernel take what one side of a stream has written, and sends it on its way.
    pub(super) fn pump(&mut self, id: u64, side: Side) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let end = stream.end_mut(side);
        let (node, connection, bytes) = (end.node, end.connection, end.take());
        let departs = end.has_more() && !std::mem::replace(&mut end.arriving, true);
        if bytes > 0 {
            self.tell_later(node, Input::Written { connection, bytes });
        }
        if departs {
            self.later(Job::Arrive { stream: id, side });
        }
    }

    /// The next bytes that one side sent, or its FIN, arrive at the other.
    fn arrive(&mut self, id: u64, side: Side) {
        let chunk = if self.random(4) == 0 { 1 + self.random(32) } else { 1 + self.random(16 * 1024) };
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.end_mut(side).arriving = false;
        let (sender, receiver) = (stream.end(side), stream.end(side.other()));
        let (from, to, open, connection) = (sender.node, receiver.node, receiver.open, receiver.connection);
        let reading = !open || self.nodes.get(to.0).is_some_and(|node| node.reading);
        if !reading || self.is_cut(from, to) {
            return;
        }
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let sender = stream.end_mut(side);
        if sender.in_flight() > 0 {
            // What arrives at a side that is closed is dropped: it reads on for a while, so that its last words are not lost.
            let bytes = sender.arrive(usize::try_from(chunk).unwrap_or(1));
            if open {
                self.drive(to, Input::Bytes { connection, bytes });
            }
        } else if !sender.open {
            sender.finished = true;
            if stream.end(side.other()).finished {
                self.streams.remove(&id);
            } else {
                self.hang_up(id, side.other(), None);
            }
        }
        self.pump(id, side);
    }

    /// A process hears that a stream of its is at its end.
    pub(super) fn hang_up(&mut self, id: u64, side: Side, error: Option<String>) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let end = stream.end_mut(side);
        let (node, connection, was_open) = (end.node, end.connection, end.open);
        end.abandon();
        if was_open {
            if let Some(node) = self.nodes.get_mut(node.0) {
                node.streams.remove(&connection);
            }
            self.drive(node, Input::Closed { connection, error });
        }
        self.pump(id, side);
    }

    /// After a hindrance is gone: whatever can move does.
    pub(super) fn resume(&mut self) {
        for id in self.streams.keys().copied().collect::<Vec<_>>() {
            self.pump(id, Side::Dialler);
            self.pump(id, Side::Listener);
        }
    }

    fn is_cut(&self, a: SpeakerId, b: SpeakerId) -> bool {
        self.cut.contains(&(a.min(b), a.max(b)))
    }

    pub(super) fn tell_later(&mut self, to: SpeakerId, input: Input) {
        let at = self.delayed();
        self.tell_at(at, to, input);
    }

    fn tell_at(&mut self, at: Instant, to: SpeakerId, input: Input) {
        if let Some(life) = self.nodes.get(to.0).map(|node| node.life) {
            self.schedule(at, Job::Input { to, life, input });
        }
    }

    fn later(&mut self, job: Job) {
        let at = self.delayed();
        self.schedule(at, job);
    }

    fn schedule(&mut self, at: Instant, job: Job) {
        self.count += 1;
        self.agenda.insert((at, self.count), job);
    }

    fn delayed(&mut self) -> Instant {
        self.now + Duration::from_micros(1 + self.random(DELAY_MAX_US))
    }

    fn random(&mut self, below: u64) -> u64 {
        self.rng.next() % below.max(1)
    }
}
