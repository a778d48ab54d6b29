//! All connections to one peer, and which of them is kept (RFC 4271 section 6.8, RFC 6286 section 2.3, RFC 4724 section 4.2).

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use super::connection::Connection;
use super::state::State;
use super::timer::Timer;
use crate::ingress::Session;
use crate::types::{Asn, ConnectionId};

/// The connections to one peer. There are few: one that we dialled, one accepted that has not sent its OPEN, and those that collision
/// detection has to judge.
#[derive(Debug, Default)]
pub(super) struct Connections(BTreeMap<ConnectionId, Connection>);

impl Connections {
    pub(super) fn insert(&mut self, connection: Connection) {
        self.0.insert(connection.id(), connection);
    }

    pub(super) fn remove(&mut self, id: ConnectionId) -> Option<Connection> {
        self.0.remove(&id)
    }

    pub(super) fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.0.get_mut(&id)
    }

    pub(super) fn held_up(&mut self, now: Instant) {
        self.0.values_mut().for_each(|connection| connection.held_up(now));
    }

    pub(super) fn contains(&self, id: ConnectionId) -> bool {
        self.0.contains_key(&id)
    }

    pub(super) fn ids(&self) -> Vec<ConnectionId> {
        self.0.keys().copied().collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How far the furthest has come.
    pub(super) fn state(&self) -> Option<State> {
        self.0.values().map(Connection::state).max()
    }

    /// The Established one.
    pub(super) fn established(&self) -> Option<&Connection> {
        self.0.values().find(|connection| connection.state() == State::Established)
    }

    /// The one that has come furthest.
    pub(super) fn furthest(&self) -> Option<&Connection> {
        self.0.values().max_by_key(|connection| connection.state())
    }

    /// Whether the peer's OPEN has been accepted on one.
    pub(super) fn is_confirmed(&self) -> bool {
        self.0.values().any(|connection| connection.session().is_some())
    }

    /// Whether one that we dialled is among them.
    pub(super) fn has_dialled(&self) -> bool {
        self.0.keys().any(|id| is_dialled(*id))
    }

    /// The accepted one whose peer has not sent an OPEN that is good.
    pub(super) fn accepted_unopened(&self) -> Option<ConnectionId> {
        let unopened = |c: &&Connection| c.session().is_none() && !is_dialled(c.id());
        self.0.values().find(unopened).map(Connection::id)
    }

    pub(super) fn next_deadline(&self) -> Option<(Instant, Timer)> {
        self.0.values().filter_map(Connection::next_deadline).min()
    }

    /// A connection whose timer has expired.
    pub(super) fn due(&self, now: Instant) -> Option<ConnectionId> {
        let due = |c: &&Connection| c.next_deadline().is_some_and(|(deadline, _)| deadline <= now);
        self.0.values().find(due).map(Connection::id)
    }

    /// What the OPEN that arrived on `opened` means for each of the other connections to the peer.
    pub(super) fn judge(
        &self,
        opened: &Session,
        identifier: Ipv4Addr,
        now: Instant,
    ) -> Vec<(ConnectionId, Verdict)> {
        let others = self.0.values().filter(|connection| connection.id() != opened.connection);
        others
            .filter_map(|other| {
                let session = other.session()?;
                Some((other.id(), judge(opened, session, other.established_since(), identifier, now)))
            })
            .collect()
    }
}

/// Which of two connections to one peer is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The older is closed with a NOTIFICATION.
    KeepNew,
    /// The newer is.
    KeepOld,
    /// The peer has restarted and knows nothing of the older one, which is closed as if TCP had been.
    Restarted,
}

/// For how long after Established a second connection may be the other half of a collision, whose OPEN was late, rather
/// than a sign that the peer has restarted.
const COLLISION_WINDOW: Duration = Duration::from_secs(5);

fn judge(
    new: &Session,
    old: &Session,
    old_established: Option<Instant>,
    identifier: Ipv4Addr,
    now: Instant,
) -> Verdict {
    let crossed = is_dialled(new.connection) != is_dialled(old.connection);
    let by_identifier = || {
        let keep_dialled = keeps_dialled((identifier, new.local_as), (new.remote_id, new.remote_as));
        if keep_dialled == is_dialled(new.connection) { Verdict::KeepNew } else { Verdict::KeepOld }
    };
    match old_established {
        None if crossed => by_identifier(),
        // One end opened both: it has given up the first.
        None => Verdict::KeepNew,
        Some(_) if old.graceful_restart.is_none() => Verdict::KeepOld,
        Some(since) if crossed && now.saturating_duration_since(since) < COLLISION_WINDOW => by_identifier(),
        Some(_) => Verdict::Restarted,
    }
}

/// Whether the connection that we dialled is kept: the one that the end with the higher identifier opened; of equal identifiers, the end
/// with the higher AS.
fn keeps_dialled(ours: (Ipv4Addr, Asn), theirs: (Ipv4Addr, Asn)) -> bool {
    ours > theirs
}

fn is_dialled(id: ConnectionId) -> bool {
    matches!(id, ConnectionId::Dialled(_))
}
