//! BMP (RFC 7854): monitoring stations are told what the RIBs hold, and of the sessions that it came on. Adj-RIB-In before and after
//! policy, Loc-RIB (RFC 9069), Adj-RIB-Out after policy (RFC 8671).
//!
//! A stage of the shape that the others have, and beside them: it holds no routes. It remembers per station which prefixes of which RIB
//! have changed since they were told, each once, and reads the RIBs ([`Ribs`]) when the station has room for more, [`CREDIT`] octets at
//! most being on their way to the kernel. So a station that does not read costs the names of what changed and is told the last state of
//! it; one for which [`CHANGES_MAX`] of them wait is given up and begun anew.
//!
//! What a station is told may be told again, and a prefix that it was never told of may be withdrawn: what it holds in the end is what
//! the RIBs hold.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ipnet::IpNet;

use self::message::Identity;
use self::station::{Shared, Station};
use crate::ingress::AddPathFamilies;
use crate::types::{Asn, ConnectionId, Family, FamilySet, PeerId};
use crate::wire::nlri::PathNlri;
use crate::wire::update::Stored;

mod feed;
mod message;
mod station;
mod to_tell;

/// The octets that may be on their way to one station before packing for it pauses. The last piece may go beyond by its own size.
pub const CREDIT: usize = 256 * 1024;

/// How many changes may wait for one station before it is begun anew: some 50 MB of memory.
pub const CHANGES_MAX: usize = 1 << 20;

/// What monitoring stations are told, and which there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BmpConfig {
    /// What we are called: sysName of RFC 1213.
    pub system_name: String,
    /// What we are: sysDescr of RFC 1213.
    pub system_description: String,
    /// The stations, by where they listen.
    pub stations: BTreeMap<SocketAddr, StationConfig>,
}

/// One monitoring station.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StationConfig {
    /// The RIBs that it is told of.
    pub monitor: BTreeSet<MonitoredRib>,
    /// Between two Statistics Reports of each peer; none: none are sent.
    pub statistics_interval: Option<Duration>,
}

/// A RIB that a station may be told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MonitoredRib {
    /// What peers have told, as it came.
    AdjRibInPrePolicy,
    /// What import policy and the checks beside it made of that, whether its next hop resolves or not.
    AdjRibInPostPolicy,
    /// The best paths, our own among them.
    LocRib,
    /// What peers are told.
    AdjRibOutPostPolicy,
}

/// A table that prefixes change in. The two views of an Adj-RIB-In change together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// A peer's Adj-RIB-In.
    In(PeerId),
    /// The Loc-RIB.
    Loc,
    /// A peer's Adj-RIB-Out.
    Out(PeerId),
}

impl Table {
    /// The peer whose it is.
    fn peer(self) -> Option<PeerId> {
        match self {
            Self::In(peer) | Self::Out(peer) => Some(peer),
            Self::Loc => None,
        }
    }

    /// The RIBs that stations know it as.
    fn ribs(self) -> &'static [MonitoredRib] {
        match self {
            Self::In(_) => &[MonitoredRib::AdjRibInPrePolicy, MonitoredRib::AdjRibInPostPolicy],
            Self::Loc => &[MonitoredRib::LocRib],
            Self::Out(_) => &[MonitoredRib::AdjRibOutPostPolicy],
        }
    }
}

/// The RIBs, as they are when [`Bmp::poll`] is called.
pub trait Ribs {
    /// Some prefixes that any RIB may hold, each with its place, from a place on and in order; fewer than `count`: that was all.
    fn prefixes(&self, from: usize, count: usize) -> Vec<(usize, IpNet)>;
    /// The peers that have told of a prefix, and by which path identifier; 0: by none.
    fn sources(&self, prefix: &IpNet) -> Vec<(PeerId, u32)>;
    /// The path identifiers by which a peer may have been told of a prefix; 0: by none.
    fn told_as(&self, peer: PeerId, prefix: &IpNet) -> Vec<u32>;
    /// A peer's route to a prefix.
    fn adj_rib_in(&self, peer: PeerId, nlri: &PathNlri) -> Option<Received<'_>>;
    /// The best path to a prefix; none also where the wire cannot tell its attributes.
    fn loc_rib(&self, prefix: &IpNet) -> Option<&Stored>;
    /// What a peer is told of a prefix.
    fn adj_rib_out(&self, peer: PeerId, nlri: &PathNlri) -> Option<&Stored>;
    /// What is counted of a peer; none: of the Loc-RIB.
    fn statistics(&self, peer: Option<PeerId>) -> Vec<Statistic>;
}

/// A route of an Adj-RIB-In.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    /// As it came; none: the wire cannot tell its attributes.
    pub pre_policy: Option<&'a Stored>,
    /// As it was accepted; none also: it was not.
    pub post_policy: Option<&'a Stored>,
}

/// One value of a Statistics Report, by its type (RFC 7854 section 4.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statistic {
    /// What has happened so often.
    Counter(u16, u32),
    /// How many there are.
    Gauge(u16, u64),
    /// How many there are of a family.
    FamilyGauge(u16, Family, u64),
}

impl Statistic {
    /// Routes in an Adj-RIB-In, before policy.
    pub const ADJ_RIB_IN: u16 = 7;
    /// Routes in the Loc-RIB.
    pub const LOC_RIB: u16 = 8;
    /// Routes of a family in an Adj-RIB-In.
    pub const ADJ_RIB_IN_FAMILY: u16 = 9;
    /// Routes of a family in the Loc-RIB.
    pub const LOC_RIB_FAMILY: u16 = 10;
    /// UPDATEs that were treated as withdraw (RFC 7606).
    pub const TREATED_AS_WITHDRAW: u16 = 11;
    /// Routes in an Adj-RIB-Out, after policy (RFC 8671).
    pub const ADJ_RIB_OUT: u16 = 15;
    /// Routes of a family in an Adj-RIB-Out.
    pub const ADJ_RIB_OUT_FAMILY: u16 = 17;

    fn code(self) -> u16 {
        match self {
            Self::Counter(code, _) | Self::Gauge(code, _) | Self::FamilyGauge(code, ..) => code,
        }
    }
}

/// A session that is Established.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerUp {
    /// The peer's address.
    pub address: IpAddr,
    /// The peer's AS.
    pub asn: Asn,
    /// The peer's BGP identifier.
    pub router_id: Ipv4Addr,
    /// Our end.
    pub local: SocketAddr,
    /// The port of the peer's end.
    pub remote_port: u16,
    /// The families of the session.
    pub families: FamilySet,
    /// Those of them whose prefixes have path identifiers (RFC 7911): in what a station is told too.
    pub add_path: AddPathFamilies,
    /// Our OPEN, header and all.
    pub open_sent: Bytes,
    /// The peer's OPEN, header and all.
    pub open_received: Bytes,
}

/// How a session ended (RFC 7854 section 4.9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerDown {
    /// We sent this NOTIFICATION, header and all.
    NotificationSent(Bytes),
    /// We closed the connection without one.
    Closed,
    /// The peer sent this NOTIFICATION, header and all.
    NotificationReceived(Bytes),
    /// The peer closed the connection without one, or it broke.
    ClosedByPeer,
}

/// What reaches [`Bmp`].
#[derive(Debug)]
pub enum BmpInput {
    /// The configuration, first or changed, and who the speaker is. Stations that are told something else from now on are begun anew.
    Configure {
        /// What is configured.
        config: BmpConfig,
        /// The own AS.
        asn: Asn,
        /// The own BGP identifier.
        router_id: Ipv4Addr,
    },
    /// A session is Established.
    PeerUp {
        /// Whose.
        peer: PeerId,
        /// Between whom.
        up: PeerUp,
    },
    /// It is no more.
    PeerDown {
        /// Whose.
        peer: PeerId,
        /// Why.
        reason: PeerDown,
    },
    /// Paths changed, the same in each of these tables. A path identifier is 0 where a table has none.
    Changed(Vec<Table>, Vec<PathNlri>),
    /// A table is another one than before, or filled for the first time.
    Whole(Table),
    /// A dial succeeded.
    Connected {
        /// Which.
        connection: ConnectionId,
    },
    /// A dial failed, or a connection is gone.
    Lost {
        /// Which.
        connection: ConnectionId,
        /// Why, if that is known.
        error: Option<String>,
    },
    /// The kernel took bytes.
    Written {
        /// On which connection.
        connection: ConnectionId,
        /// How many.
        bytes: usize,
    },
    /// The process ends: every station is told so.
    Stop,
    /// A deadline may have passed.
    Tick,
}

/// What [`Bmp`] asks for.
#[derive(Debug)]
pub enum BmpOutput {
    /// Open a connection.
    Dial {
        /// Its name from now on.
        connection: ConnectionId,
        /// Whom to call.
        station: SocketAddr,
    },
    /// Send whole messages.
    Write {
        /// On which connection.
        connection: ConnectionId,
        /// What.
        bytes: Bytes,
    },
    /// Close a connection, or give a dial up, once what was written to it is out.
    Close {
        /// Which.
        connection: ConnectionId,
    },
}

/// How a station is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StationStatus {
    /// Where it listens.
    pub station: SocketAddr,
    /// What it is told of.
    pub config: StationConfig,
    /// Whether it is connected.
    pub connected: bool,
    /// Since when it is, or is not.
    pub since: Instant,
    /// Messages to it since it was configured.
    pub messages: u64,
    /// Their octets.
    pub octets: u64,
    /// How often it was connected.
    pub connects: u64,
    /// How often a dial failed or a connection was lost.
    pub failures: u64,
    /// Changes that wait for it to read.
    pub waiting: usize,
    /// What went wrong last, and when.
    pub last_error: Option<(Instant, String)>,
}

/// The stage. See the module.
#[derive(Debug, Default)]
pub struct Bmp {
    shared: Shared,
    stations: BTreeMap<SocketAddr, Station>,
    /// How many connections there have been.
    dials: u64,
    outputs: VecDeque<BmpOutput>,
}

impl Bmp {
    /// Takes an input. What follows from it comes out of [`Self::poll`].
    pub fn handle(&mut self, now: Instant, input: BmpInput) {
        match input {
            BmpInput::Configure { config, asn, router_id } => self.configure(now, config, asn, router_id),
            BmpInput::PeerUp { peer, up } => {
                let up = Arc::new(up);
                self.feeds(|feed, monitor| feed.peer_up(peer, &up, monitor));
                self.shared.peers.insert(peer, up);
            }
            BmpInput::PeerDown { peer, reason } => {
                if self.shared.peers.remove(&peer).is_some() {
                    self.feeds(|feed, _| feed.peer_down(peer, &reason));
                }
            }
            BmpInput::Changed(tables, paths) => self.changed(now, &tables, &paths),
            BmpInput::Whole(table) => {
                if self.is_told(table) {
                    self.feeds(|feed, monitor| feed.whole(table, monitor));
                }
            }
            BmpInput::Connected { connection } => {
                let station = self.stations.values_mut().find(|station| station.owns(connection));
                if let Some(station) = station {
                    station.connected(now, &self.shared);
                }
            }
            BmpInput::Lost { connection, error } => {
                let station = self.stations.values_mut().find(|station| station.owns(connection));
                if let Some(station) = station {
                    station.fail(now, error.unwrap_or_else(|| "the station closed the connection".into()));
                }
            }
            BmpInput::Written { connection, bytes } => {
                let station = self.stations.values_mut().find(|station| station.owns(connection));
                if let Some(feed) = station.and_then(Station::feed) {
                    feed.written(now, bytes);
                }
            }
            BmpInput::Stop => {
                for station in std::mem::take(&mut self.stations).into_values() {
                    station.terminate(&mut self.outputs);
                }
            }
            BmpInput::Tick => self.tick(now),
        }
    }

    /// The next thing that follows from what was handled; none: nothing is left to do, or no station has room.
    pub fn poll(&mut self, now: Instant, ribs: &impl Ribs) -> Option<BmpOutput> {
        if let Some(output) = self.outputs.pop_front() {
            return Some(output);
        }
        self.stations.values_mut().find_map(|station| station.pack(now, &self.shared, ribs))
    }

    /// Whether there is nobody to tell anything.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.outputs.is_empty() && self.stations.is_empty()
    }

    /// When [`BmpInput::Tick`] is due, and on account of which station.
    #[must_use]
    pub fn next_deadline(&self) -> Option<(Instant, SocketAddr)> {
        let stations = self.stations.iter();
        stations.filter_map(|(address, station)| Some((station.next_deadline()?, *address))).min()
    }

    /// Whether a station is to be told of this RIB.
    #[must_use]
    pub fn monitors(&self, rib: MonitoredRib) -> bool {
        self.stations.values().any(|station| station.config().monitor.contains(&rib))
    }

    /// Every station, by where it listens.
    #[must_use]
    pub fn status(&self) -> Vec<StationStatus> {
        self.stations.values().map(Station::status).collect()
    }

    fn configure(&mut self, now: Instant, config: BmpConfig, asn: Asn, router_id: Ipv4Addr) {
        let identity = Identity { asn, router_id };
        let renamed = self.shared.identity != identity
            || self.shared.system_name != config.system_name
            || self.shared.system_description != config.system_description;
        self.shared.identity = identity;
        self.shared.system_name = config.system_name;
        self.shared.system_description = config.system_description;
        let mut before = std::mem::take(&mut self.stations);
        for (address, wanted) in config.stations {
            let known = before.remove(&address);
            let station = match known {
                Some(mut station) if !renamed && station.config().monitor == wanted.monitor => {
                    station.set_statistics_interval(now, wanted.statistics_interval);
                    station
                }
                known => {
                    if let Some(station) = known {
                        station.terminate(&mut self.outputs);
                    }
                    let mut station = Station::new(now, address, wanted);
                    station.dial(&mut self.dials, &mut self.outputs);
                    station
                }
            };
            self.stations.insert(address, station);
        }
        for station in before.into_values() {
            station.terminate(&mut self.outputs);
        }
    }

    /// Whether stations know whose table that is.
    fn is_told(&self, table: Table) -> bool {
        table.peer().is_none_or(|peer| self.shared.peers.contains_key(&peer))
    }

    fn changed(&mut self, now: Instant, tables: &[Table], paths: &[PathNlri]) {
        for table in tables.iter().copied().filter(|table| self.is_told(*table)).collect::<Vec<_>>() {
            self.feeds(|feed, monitor| feed.changed(table, paths, monitor));
        }
        let behind = |station: &mut Station| station.feed().is_some_and(|feed| feed.waiting() > CHANGES_MAX);
        for station in self.stations.values_mut() {
            if behind(station) {
                station.give_up(now, &mut self.outputs);
            }
        }
    }

    fn tick(&mut self, now: Instant) {
        for station in self.stations.values_mut() {
            station.tick(now, &mut self.dials, &mut self.outputs);
        }
    }

    /// Each station that is connected, and what it is told of.
    fn feeds(&mut self, mut each: impl FnMut(&mut feed::Feed, &BTreeSet<MonitoredRib>)) {
        for station in self.stations.values_mut() {
            station.with_feed(&mut each);
        }
    }
}

#[cfg(test)]
mod tests;
