//! What a connected station has been told, and what it is told next.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use ipnet::IpNet;

use super::message::{self, PeerHeader};
use super::station::Shared;
use super::to_tell::{Changes, Walk};
use super::{CREDIT, MonitoredRib, PeerDown, PeerUp, Received, Ribs, Table};
use crate::types::{Family, PeerId};
use crate::wire::attributes::PathAttributes;
use crate::wire::nlri::PathNlri;
use crate::wire::update::Stored;

/// How many routes are told at once, at most, of those that changed and of those that a walk finds.
const PIECE: usize = 512;

/// About how many octets of sessions are told at once.
const SESSIONS: usize = 64 * 1024;

/// How long a station may take nothing of what it is sent.
const SEND_HOLD_TIME: Duration = Duration::from_secs(90);

/// One connection to a station.
#[derive(Debug)]
pub(super) struct Feed {
    /// Whether it has been told who we are.
    introduced: bool,
    /// Octets on their way to the kernel.
    outstanding: usize,
    /// When octets last left, or the first were put in.
    moved: Instant,
    /// The sessions that it knows of.
    told: BTreeMap<PeerId, Arc<PeerUp>>,
    /// What it has yet to be told of sessions.
    news: BTreeMap<PeerId, News>,
    changes: Changes,
    walk: Walk,
    statistics_due: bool,
}

/// What is to be told of a peer: first the end of the session that the station knows of.
#[derive(Debug, Default)]
struct News {
    down: Option<PeerDown>,
    up: Option<Arc<PeerUp>>,
}

/// Messages.
#[derive(Debug, Default)]
struct Packet {
    bytes: BytesMut,
    messages: u64,
}

impl Packet {
    fn put(&mut self, message: impl FnOnce(&mut BytesMut)) {
        message(&mut self.bytes);
        self.messages += 1;
    }
}

/// Routes that are told together, each run of them with the same attributes.
#[derive(Debug, Default)]
struct Piece {
    sets: Vec<Option<PathAttributes>>,
    /// By where the tables have their octets, which is somewhere else for others.
    known: BTreeMap<usize, usize>,
    runs: BTreeMap<(Table, MonitoredRib, Family, Option<usize>), Vec<PathNlri>>,
}

impl Piece {
    fn put(&mut self, table: Table, rib: MonitoredRib, path: PathNlri, attributes: Option<&Stored>) {
        let sets = &mut self.sets;
        let set = attributes.map(|attributes| {
            *self.known.entry(attributes.octets().as_ptr().addr()).or_insert_with(|| {
                sets.push(attributes.attributes());
                sets.len() - 1
            })
        });
        self.runs.entry((table, rib, Family::of(&path.prefix), set)).or_default().push(path);
    }
}

impl Feed {
    /// What a station that has just been connected is to be told: everything.
    pub(super) fn new(now: Instant, shared: &Shared, monitor: &BTreeSet<MonitoredRib>) -> Self {
        let mut feed = Self {
            introduced: false,
            outstanding: 0,
            moved: now,
            told: BTreeMap::new(),
            news: BTreeMap::new(),
            changes: Changes::default(),
            walk: Walk::default(),
            statistics_due: false,
        };
        feed.whole(Table::Loc, monitor);
        for (peer, up) in &shared.peers {
            feed.peer_up(*peer, up, monitor);
            feed.whole(Table::Out(*peer), monitor);
        }
        feed
    }

    /// A peer may have routes already, from before it restarted.
    pub(super) fn peer_up(&mut self, peer: PeerId, up: &Arc<PeerUp>, monitor: &BTreeSet<MonitoredRib>) {
        self.news.entry(peer).or_default().up = Some(Arc::clone(up));
        self.whole(Table::In(peer), monitor);
    }

    /// With the session go its routes.
    pub(super) fn peer_down(&mut self, peer: PeerId, reason: &PeerDown) {
        for table in [Table::In(peer), Table::Out(peer)] {
            self.changes.forget(table);
            self.walk.forget(table);
        }
        if self.told.contains_key(&peer) {
            self.news.insert(peer, News { down: Some(reason.clone()), up: None });
        } else {
            self.news.remove(&peer);
        }
    }

    pub(super) fn changed(&mut self, table: Table, paths: &[PathNlri], monitor: &BTreeSet<MonitoredRib>) {
        if is_monitored(table, monitor) {
            self.changes.insert(table, paths);
        }
    }

    pub(super) fn whole(&mut self, table: Table, monitor: &BTreeSet<MonitoredRib>) {
        if is_monitored(table, monitor) {
            self.walk.add(table);
        }
    }

    pub(super) fn statistics_due(&mut self) {
        self.statistics_due = true;
    }

    pub(super) fn written(&mut self, now: Instant, bytes: usize) {
        self.moved = now;
        self.outstanding = self.outstanding.saturating_sub(bytes);
    }

    /// How many changes wait.
    pub(super) fn waiting(&self) -> usize {
        self.changes.len()
    }

    /// When the station has taken nothing for too long.
    pub(super) fn send_hold_deadline(&self) -> Option<Instant> {
        (self.outstanding > 0).then(|| self.moved + SEND_HOLD_TIME)
    }

    /// The next messages, and how many they are; none: everything is told, or there is no room.
    pub(super) fn pack(
        &mut self,
        now: Instant,
        shared: &Shared,
        monitor: &BTreeSet<MonitoredRib>,
        ribs: &impl Ribs,
    ) -> Option<(Bytes, u64)> {
        if self.outstanding >= CREDIT {
            return None;
        }
        let mut packet = Packet::default();
        while packet.bytes.is_empty() {
            if !self.step(shared, monitor, ribs, &mut packet) {
                return None;
            }
        }
        if self.outstanding == 0 {
            self.moved = now;
        }
        self.outstanding += packet.bytes.len();
        Some((packet.bytes.freeze(), packet.messages))
    }

    /// Says whether there was anything to do.
    fn step(
        &mut self,
        shared: &Shared,
        monitor: &BTreeSet<MonitoredRib>,
        ribs: &impl Ribs,
        packet: &mut Packet,
    ) -> bool {
        if !std::mem::replace(&mut self.introduced, true) {
            packet.put(|out| message::initiation(&shared.system_description, &shared.system_name, out));
            if monitor.contains(&MonitoredRib::LocRib) {
                packet.put(|out| message::loc_rib_up(shared.identity, out));
            }
            return true;
        }
        if !self.news.is_empty() {
            self.sessions(packet);
            return true;
        }
        if std::mem::take(&mut self.statistics_due) {
            self.statistics(shared, monitor, ribs, packet);
            return true;
        }
        self.routes(shared, monitor, ribs, packet)
    }

    fn sessions(&mut self, packet: &mut Packet) {
        while packet.bytes.len() < SESSIONS
            && let Some((peer, news)) = self.news.pop_first()
        {
            if let Some(reason) = news.down
                && let Some(known) = self.told.remove(&peer)
            {
                packet.put(|out| message::peer_down(&known, &reason, out));
            }
            if let Some(up) = news.up {
                packet.put(|out| message::peer_up(&up, out));
                self.told.insert(peer, up);
            }
        }
    }

    fn statistics(
        &self,
        shared: &Shared,
        monitor: &BTreeSet<MonitoredRib>,
        ribs: &impl Ribs,
        packet: &mut Packet,
    ) {
        for (peer, up) in &self.told {
            let statistics = ribs.statistics(Some(*peer));
            packet.put(|out| message::statistics_report(&PeerHeader::of_peer(up), &statistics, out));
        }
        if monitor.contains(&MonitoredRib::LocRib) {
            let (header, statistics) = (PeerHeader::of_loc_rib(shared.identity), ribs.statistics(None));
            packet.put(|out| message::statistics_report(&header, &statistics, out));
        }
    }

    /// Tells some of the routes that changed, and goes further through whole tables.
    fn routes(
        &mut self,
        shared: &Shared,
        monitor: &BTreeSet<MonitoredRib>,
        ribs: &impl Ribs,
        packet: &mut Packet,
    ) -> bool {
        if self.changes.len() == 0 && self.walk.is_over() {
            return false;
        }
        let mut piece = Piece::default();
        for (table, path) in self.changes.take(PIECE) {
            read(table, path, ribs, |rib, attributes| {
                if monitor.contains(&rib) {
                    piece.put(table, rib, path, attributes);
                }
            });
        }
        let (found, over) = self.walk.step(ribs, PIECE);
        for (table, path) in found {
            // What is not there the station does not know, or is told as a change.
            read(table, path, ribs, |rib, attributes| {
                if attributes.is_some() && monitor.contains(&rib) {
                    piece.put(table, rib, path, attributes);
                }
            });
        }
        for ((table, rib, family, set), paths) in &piece.runs {
            let Some(header) = self.header(shared, *table, *rib) else {
                continue;
            };
            let attributes = set.and_then(|set| piece.sets.get(set)?.as_ref());
            let bytes = &mut packet.bytes;
            packet.messages += if self.has_path_ids(*table, *family) {
                message::route_monitoring(&header, *family, attributes, paths, bytes)
            } else {
                let prefixes: Vec<IpNet> = paths.iter().map(|path| path.prefix).collect();
                message::route_monitoring(&header, *family, attributes, &prefixes, bytes)
            };
        }
        for table in over {
            let peer = table.peer().and_then(|peer| self.told.get(&peer));
            let families: Vec<Family> = match peer {
                Some(up) => up.families.iter().collect(),
                None => Family::ALL.into(),
            };
            for rib in table.ribs().iter().filter(|rib| monitor.contains(rib)) {
                let Some(header) = self.header(shared, table, *rib) else { continue };
                families.iter().for_each(|f| packet.put(|out| message::end_of_rib(&header, *f, out)));
            }
        }
        true
    }

    /// Whether a table's prefixes of a family have path identifiers, as the OPENs of its peer say that they have.
    fn has_path_ids(&self, table: Table, family: Family) -> bool {
        let add_path = table.peer().and_then(|peer| self.told.get(&peer)).map(|up| up.add_path);
        add_path.is_some_and(|add_path| match table {
            Table::In(_) => add_path.receive.contains(family),
            Table::Out(_) => add_path.send.contains(family),
            Table::Loc => false,
        })
    }

    /// Whose routes they are; none: the station does not know the peer.
    fn header(&self, shared: &Shared, table: Table, rib: MonitoredRib) -> Option<PeerHeader> {
        match table.peer() {
            Some(peer) => Some(PeerHeader::of_rib(self.told.get(&peer)?, rib)),
            None => Some(PeerHeader::of_loc_rib(shared.identity)),
        }
    }
}

fn is_monitored(table: Table, monitor: &BTreeSet<MonitoredRib>) -> bool {
    table.ribs().iter().any(|rib| monitor.contains(rib))
}

/// What a table holds of a path, as each RIB that stations know it as.
fn read<'r>(
    table: Table,
    path: PathNlri,
    ribs: &'r impl Ribs,
    mut each: impl FnMut(MonitoredRib, Option<&'r Stored>),
) {
    match table {
        Table::In(peer) => {
            let (pre_policy, post_policy) = match ribs.adj_rib_in(peer, &path) {
                Some(Received { pre_policy, post_policy }) => (pre_policy, post_policy),
                None => (None, None),
            };
            each(MonitoredRib::AdjRibInPrePolicy, pre_policy);
            each(MonitoredRib::AdjRibInPostPolicy, post_policy);
        }
        Table::Loc => each(MonitoredRib::LocRib, ribs.loc_rib(&path.prefix)),
        Table::Out(peer) => {
            each(MonitoredRib::AdjRibOutPostPolicy, ribs.adj_rib_out(peer, &path));
        }
    }
}
