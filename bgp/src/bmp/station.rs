//! One monitoring station: its connection, and what is counted of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;

use super::feed::Feed;
use super::message::{self, Identity, Termination};
use super::{BmpOutput, CHANGES_MAX, MonitoredRib, PeerUp, Ribs, StationConfig, StationStatus};
use crate::types::{Asn, ConnectionId, PeerId};

/// Between two dials, at first; it doubles with each failure.
const BACKOFF_MIN: Duration = Duration::from_secs(1);

/// Between two dials, at most. A connection that lived for so long was no failure.
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// What all stations are told alike.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) identity: Identity,
    pub(super) system_name: String,
    pub(super) system_description: String,
    /// The sessions that are Established.
    pub(super) peers: BTreeMap<PeerId, Arc<PeerUp>>,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            identity: Identity { asn: Asn(0), router_id: Ipv4Addr::UNSPECIFIED },
            system_name: String::new(),
            system_description: String::new(),
            peers: BTreeMap::new(),
        }
    }
}

/// One monitoring station.
#[derive(Debug)]
pub(super) struct Station {
    address: SocketAddr,
    config: StationConfig,
    link: Link,
    /// Since when it is connected, or is not.
    since: Instant,
    backoff: Duration,
    /// When the next Statistics Reports are due.
    statistics_at: Option<Instant>,
    messages: u64,
    octets: u64,
    connects: u64,
    failures: u64,
    last_error: Option<(Instant, String)>,
}

#[derive(Debug)]
enum Link {
    /// It is dialled again then.
    Waiting(Instant),
    Dialling(ConnectionId),
    Up(ConnectionId, Box<Feed>),
}

impl Station {
    pub(super) fn new(now: Instant, address: SocketAddr, config: StationConfig) -> Self {
        Self {
            address,
            config,
            link: Link::Waiting(now),
            since: now,
            backoff: BACKOFF_MIN,
            statistics_at: None,
            messages: 0,
            octets: 0,
            connects: 0,
            failures: 0,
            last_error: None,
        }
    }

    pub(super) fn config(&self) -> &StationConfig {
        &self.config
    }

    /// Another interval takes nothing back of what was told.
    pub(super) fn set_statistics_interval(&mut self, now: Instant, interval: Option<Duration>) {
        if std::mem::replace(&mut self.config.statistics_interval, interval) != interval {
            self.statistics_at = interval.filter(|_| self.feed().is_some()).map(|interval| now + interval);
        }
    }

    pub(super) fn owns(&self, connection: ConnectionId) -> bool {
        self.connection() == Some(connection)
    }

    fn connection(&self) -> Option<ConnectionId> {
        match &self.link {
            Link::Waiting(_) => None,
            Link::Dialling(connection) | Link::Up(connection, _) => Some(*connection),
        }
    }

    pub(super) fn feed(&mut self) -> Option<&mut Feed> {
        match &mut self.link {
            Link::Up(_, feed) => Some(feed),
            Link::Waiting(_) | Link::Dialling(_) => None,
        }
    }

    pub(super) fn with_feed(&mut self, each: &mut impl FnMut(&mut Feed, &BTreeSet<MonitoredRib>)) {
        if let Link::Up(_, feed) = &mut self.link {
            each(feed, &self.config.monitor);
        }
    }

    pub(super) fn dial(&mut self, dials: &mut u64, outputs: &mut VecDeque<BmpOutput>) {
        *dials += 1;
        let connection = ConnectionId::Station(*dials);
        self.link = Link::Dialling(connection);
        outputs.push_back(BmpOutput::Dial { connection, station: self.address });
    }

    pub(super) fn connected(&mut self, now: Instant, shared: &Shared) {
        if let Link::Dialling(connection) = self.link {
            let feed = Feed::new(now, shared, &self.config.monitor);
            self.link = Link::Up(connection, Box::new(feed));
            self.since = now;
            self.connects += 1;
            self.statistics_at = self.config.statistics_interval.map(|interval| now + interval);
        }
    }

    /// The dial failed, or the connection is gone: it is dialled again after a while.
    pub(super) fn fail(&mut self, now: Instant, error: String) {
        if let Link::Up(..) = self.link {
            if now.saturating_duration_since(self.since) >= BACKOFF_MAX {
                self.backoff = BACKOFF_MIN;
            }
            self.since = now;
        }
        self.failures += 1;
        self.last_error = Some((now, error));
        self.link = Link::Waiting(now + self.backoff);
        self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
        self.statistics_at = None;
    }

    /// Gives up a connection on which more waits than may.
    pub(super) fn give_up(&mut self, now: Instant, outputs: &mut VecDeque<BmpOutput>) {
        self.hang_up(Termination::OutOfResources, outputs);
        self.fail(now, format!("the station takes too little: {CHANGES_MAX} changes wait for it"));
    }

    /// Ends what there is with it for good.
    pub(super) fn terminate(mut self, outputs: &mut VecDeque<BmpOutput>) {
        self.hang_up(Termination::AdministrativelyClosed, outputs);
    }

    fn hang_up(&mut self, reason: Termination, outputs: &mut VecDeque<BmpOutput>) {
        let Some(connection) = self.connection() else { return };
        if self.feed().is_some() {
            let mut bytes = BytesMut::new();
            message::termination(reason, &mut bytes);
            outputs.push_back(BmpOutput::Write { connection, bytes: bytes.freeze() });
        }
        outputs.push_back(BmpOutput::Close { connection });
    }

    pub(super) fn tick(&mut self, now: Instant, dials: &mut u64, outputs: &mut VecDeque<BmpOutput>) {
        if let Link::Waiting(until) = self.link
            && until <= now
        {
            self.dial(dials, outputs);
        }
        if self.statistics_at.is_some_and(|at| at <= now) {
            self.statistics_at = self.config.statistics_interval.map(|interval| now + interval);
            if let Some(feed) = self.feed() {
                feed.statistics_due();
            }
        }
        if let Link::Up(connection, feed) = &self.link
            && feed.send_hold_deadline().is_some_and(|at| at <= now)
        {
            outputs.push_back(BmpOutput::Close { connection: *connection });
            self.fail(now, "the station has taken nothing of what it was sent for 90 s".into());
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        match &self.link {
            Link::Waiting(until) => Some(*until),
            Link::Dialling(_) => None,
            Link::Up(_, feed) => self.statistics_at.into_iter().chain(feed.send_hold_deadline()).min(),
        }
    }

    pub(super) fn pack(&mut self, now: Instant, shared: &Shared, ribs: &impl Ribs) -> Option<BmpOutput> {
        let Link::Up(connection, feed) = &mut self.link else { return None };
        let connection = *connection;
        let (bytes, messages) = feed.pack(now, shared, &self.config.monitor, ribs)?;
        self.messages = self.messages.saturating_add(messages);
        self.octets = self.octets.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        Some(BmpOutput::Write { connection, bytes })
    }

    pub(super) fn status(&self) -> StationStatus {
        let waiting = match &self.link {
            Link::Up(_, feed) => Some(feed.waiting()),
            Link::Waiting(_) | Link::Dialling(_) => None,
        };
        StationStatus {
            station: self.address,
            config: self.config.clone(),
            connected: waiting.is_some(),
            since: self.since,
            messages: self.messages,
            octets: self.octets,
            connects: self.connects,
            failures: self.failures,
            waiting: waiting.unwrap_or(0),
            last_error: self.last_error.clone(),
        }
    }
}
