//! The second stage, one per speaker: Adj-RIBs-In, import policy, decision, Loc-RIB, export.
//!
//! # Layout
//!
//! One table holds every prefix once, an IPv4 one in eight bytes; a prefix holds its paths of all peers, ordered by peer and path identifier, rejected ones included:
//! the Adj-RIBs-In and the Loc-RIB are views of that table. A path is 20 bytes: whose it is and by which identifier, the id of its attribute
//! set, the epoch of its Adj-RIB-In, how it stands with import policy and next hop, and its number towards peers that are told several. Attribute sets are interned as octets, with the decision's keys
//! read out of them; one that import policy made of another keeps that one. A route that arrives costs no allocation but for the growth of the table.
//!
//! # Flow
//!
//! [`Rib::handle`] changes paths and marks their prefixes dirty; [`Rib::poll`] decides each dirty prefix once, however often it was
//! marked, some thousands at a time, and gives what changed. Whoever drains rarely gets the last state only.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

use ipnet::IpNet;
use smallvec::SmallVec;

use self::aggregates::Aggregates;
use self::groups::Groups;
use self::history::History;
use self::holdings::Holdings;
use self::loc::{Destination, Dirty};
use self::monitor::Monitor;
use self::next_hops::Tracking;
use crate::arena::intern::Interner;
use crate::arena::prefixes::{PrefixId, PrefixTable};
use crate::bmp::Table;
use crate::config::{Origination, PeerConfig};
use crate::ingress::{Down, RouteBatch, Session};
use crate::speaker::{BestPathChange, Resolution, TrackedNextHop};
use crate::types::{Asn, Family, PeerAddress, PeerId, Reason};
use crate::wire::nlri::PathNlri;

mod add_path;
mod adj_in;
mod aggregates;
mod attributes;
mod decision;
mod dump;
mod export;
mod groups;
mod history;
mod holdings;
mod limits;
mod loc;
mod monitor;
mod next_hops;
mod peers;
mod query;
#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;

/// What reaches the [`Rib`].
#[derive(Debug)]
pub enum RibInput {
    /// The speaker's own part of the configuration. Prefixes that are new are announced, those gone withdrawn.
    Configure {
        /// The own AS.
        asn: Asn,
        /// The own BGP identifier: a path that has it as its ORIGINATOR_ID is our own.
        router_id: Ipv4Addr,
        /// The cluster that we reflect for: a path that has it in its CLUSTER_LIST has been here. None: we do not reflect.
        cluster_id: Option<Ipv4Addr>,
        /// How many equal paths go to the kernel.
        max_paths: u16,
        /// Whether any do.
        install_routes: bool,
        /// Whether next hops must resolve first.
        next_hop_tracking: bool,
        /// What we originate.
        originate: BTreeMap<IpNet, Origination>,
    },
    /// A peer is configured, or its policies changed: its Adj-RIB-In is looked at again and its Adj-RIB-Out brought up to date,
    /// without a word to the session.
    Peer {
        /// Which.
        peer: PeerId,
        /// Where it is, the last tie-break.
        address: PeerAddress,
        /// Its configuration.
        config: Arc<PeerConfig>,
    },
    /// A peer is configured no more.
    RemovePeer(PeerId),
    /// Its session is Established: it joins an update group and gets the table.
    Up {
        /// Which.
        peer: PeerId,
        /// What was agreed.
        session: Arc<Session>,
    },
    /// Its session ended.
    Down {
        /// Which.
        peer: PeerId,
        /// Restart or death.
        down: Down,
    },
    /// Routes arrived.
    Routes {
        /// From whom.
        peer: PeerId,
        /// What.
        batch: RouteBatch,
    },
    /// End-of-RIB arrived: what is still stale of this family goes.
    EndOfRib {
        /// From whom.
        peer: PeerId,
        /// Of which family.
        family: Family,
    },
    /// The peer begins to tell its table of a family again: what it has told so far is stale until it is told again (RFC 7313).
    RefreshBegins {
        /// Who.
        peer: PeerId,
        /// Which family.
        family: Family,
    },
    /// It has told it: what is still stale goes.
    RefreshEnds {
        /// Who.
        peer: PeerId,
        /// Which family.
        family: Family,
    },
    /// How next hops resolve from now on. Many at once cost one look at the table.
    NextHops(Vec<(TrackedNextHop, Resolution)>),
    /// Which tables are watched: their changes are told by [`RibOutput::Changed`].
    Monitor {
        /// Those of the peers, before or after import policy.
        adj_rib_in: bool,
        /// The Loc-RIB.
        loc_rib: bool,
    },
    /// From now on announcements flow. Until then (after a restart, RFC 4724 section 4.1) routes are taken in and decided on, but peers
    /// are told what we originate alone, and no End-of-RIB.
    Advertise,
    /// A deadline may have passed: see [`Timer`].
    Tick,
}

/// What the [`Rib`] gives.
#[derive(Debug)]
pub enum RibOutput {
    /// For the kernel.
    BestPaths(Vec<BestPathChange>),
    /// Something that is watched changed: these prefixes of this table.
    Changed(Table, Vec<PathNlri>),
    /// Ask the kernel.
    Track(TrackedNextHop),
    /// Ask no longer.
    Untrack(TrackedNextHop),
    /// A peer announces what is another's; told of the first of a family.
    Alarm {
        /// Who.
        peer: PeerId,
        /// What.
        prefix: IpNet,
        /// Why it is wrong.
        reason: Reason,
    },
    /// A peer leaks routes (RFC 9234); told of the first of a family.
    Leak {
        /// Who.
        peer: PeerId,
        /// What.
        prefix: IpNet,
        /// Why it is none of ours.
        reason: Reason,
    },
    /// A peer has told nearly as many prefixes as it may, or more.
    Limit {
        /// Who.
        peer: PeerId,
        /// Of which family.
        family: Family,
        /// How many.
        received: usize,
        /// Whether it is more.
        exceeded: bool,
    },
    /// Ask the peer to tell its table of a family again (RFC 2918): there is room for paths that were refused.
    AskRefresh {
        /// Whom.
        peer: PeerId,
        /// Which family.
        family: Family,
    },
    /// The aggregates that are announced, all of them: on every change.
    Aggregates(BTreeSet<IpNet>),
    /// For the third stage: see [`crate::egress::EgressInput`].
    Egress(crate::egress::GroupId, crate::egress::EgressInput),
    /// The group has no peers any more.
    EgressClosed(crate::egress::GroupId),
}

/// What a [`Rib`] waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// The time in which a restarting peer must be back, or tell its table again (RFC 4724 section 4.2).
    StaleRoutes(PeerId),
    /// The peer is asked to tell its table again, as there is room for what was refused.
    AskAgain(PeerId),
}

/// The speaker's own part of the configuration.
#[derive(Clone, Debug)]
struct Settings {
    asn: Asn,
    router_id: Ipv4Addr,
    cluster_id: Option<Ipv4Addr>,
    max_paths: u16,
    install_routes: bool,
    originate: BTreeMap<IpNet, Origination>,
}

impl Settings {
    /// What is originated only while there is a more specific route.
    fn aggregates(&self) -> impl Iterator<Item = (&IpNet, &Origination)> {
        self.originate.iter().filter(|(_, origination)| origination.aggregation.is_some())
    }
}

/// The routes of one speaker. See the module for how it is made.
#[derive(Debug)]
pub struct Rib {
    settings: Settings,
    table: PrefixTable<Destination>,
    holdings: Holdings,
    /// The sets of next hops that the kernel was told of.
    hop_sets: Interner<NextHopSet>,
    /// What the kernel was told in [`BestPathChange::direct`]: of few prefixes.
    direct: BTreeMap<PrefixId, NextHopSet>,
    groups: Groups,
    aggregates: Aggregates,
    history: History,
    monitor: Monitor,
    /// The own addresses, link-local ones with their link, and how many peers' sessions or configurations say so: no next hop to
    /// believe in.
    own_addresses: BTreeMap<(IpAddr, Option<u32>), usize>,
    /// Whether peers are told what was learned.
    advertising: bool,
    /// A peer that is gone, and from which place of the table on there may be paths of its.
    departing: Option<(PeerId, usize)>,
    dirty: Dirty,
    outputs: VecDeque<RibOutput>,
}

type NextHopSet = SmallVec<[TrackedNextHop; 2]>;

impl Default for Rib {
    fn default() -> Self {
        Self::new()
    }
}

impl Rib {
    /// An empty RIB that knows no peers and tells nobody what it learns until [`RibInput::Advertise`].
    #[must_use]
    pub fn new() -> Self {
        Self {
            settings: Settings {
                asn: Asn(0),
                router_id: Ipv4Addr::UNSPECIFIED,
                cluster_id: None,
                max_paths: 1,
                install_routes: true,
                originate: BTreeMap::new(),
            },
            table: PrefixTable::default(),
            holdings: Holdings::default(),
            hop_sets: Interner::default(),
            direct: BTreeMap::new(),
            groups: Groups::default(),
            aggregates: Aggregates::default(),
            history: History::default(),
            monitor: Monitor::default(),
            own_addresses: BTreeMap::new(),
            advertising: false,
            departing: None,
            dirty: Dirty::default(),
            outputs: VecDeque::new(),
        }
    }

    /// Takes an input. What follows from it comes out of [`Self::poll`].
    pub fn handle(&mut self, now: Instant, input: RibInput) {
        self.history.now = Some(now);
        while self.withdraw_piece() {}
        match input {
            RibInput::Configure {
                asn,
                router_id,
                cluster_id,
                max_paths,
                install_routes,
                next_hop_tracking,
                originate,
            } => {
                let settings = Settings { asn, router_id, cluster_id, max_paths, install_routes, originate };
                self.configure(settings, next_hop_tracking);
            }
            RibInput::Peer { peer, address, config } => self.configure_peer(peer, address, config),
            RibInput::RemovePeer(peer) => self.remove_peer(peer),
            RibInput::Up { peer, session } => self.up(now, peer, session),
            RibInput::Down { peer, down } => self.down(now, peer, &down),
            RibInput::Routes { peer, batch } => self.receive(now, peer, &batch),
            RibInput::EndOfRib { peer, family } => self.end_of_rib(peer, family),
            RibInput::RefreshBegins { peer, family } => self.refresh_begins(now, peer, family),
            RibInput::RefreshEnds { peer, family } => self.refresh_ends(peer, family),
            RibInput::NextHops(answers) => self.resolve(answers),
            RibInput::Monitor { adj_rib_in, loc_rib } => self.monitor.configure(adj_rib_in, loc_rib),
            RibInput::Advertise => self.advertise(),
            RibInput::Tick => {
                self.expire(now);
                self.ask_again(now);
            }
        }
    }

    /// The next thing that follows from what was handled; none: nothing is left to do.
    pub fn poll(&mut self) -> Option<RibOutput> {
        loop {
            if let Some(output) = self.outputs.pop_front() {
                return Some(output);
            }
            if let Some((table, prefixes)) = self.monitor.next() {
                return Some(RibOutput::Changed(table, prefixes));
            }
            let worked = self.decide_dirty() || self.withdraw_piece() || self.serve_groups();
            if !worked && !self.settle_next_hops() {
                return None;
            }
        }
    }

    /// Whether what a peer that is gone has told is being taken out, a piece with each [`poll`](Self::poll).
    #[must_use]
    pub fn is_withdrawing(&self) -> bool {
        self.departing.is_some()
    }

    /// The next hops that go with a peer: routes for the kernel have them, and nobody else offers them.
    #[must_use]
    pub fn next_hops_of_only(&self, peer: PeerId) -> Vec<TrackedNextHop> {
        if self.settings.install_routes { self.holdings.hops.of_only(peer) } else { Vec::new() }
    }

    /// When [`RibInput::Tick`] is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<(Instant, Timer)> {
        let peers = self.holdings.peers.iter();
        let deadlines = peers.flat_map(|(id, peer)| {
            let stale = peer.retained().map(|kept| (kept.until, Timer::StaleRoutes(*id)));
            let ask = [peer.ipv4.ask_at, peer.ipv6.ask_at].into_iter().flatten();
            stale.chain(ask.map(|at| (at, Timer::AskAgain(*id))))
        });
        deadlines.min()
    }

    /// Says whether there was anything to say.
    fn settle_next_hops(&mut self) -> bool {
        self.outputs.extend(self.holdings.hops.settle().into_iter().map(|tracking| match tracking {
            Tracking::Start(next_hop) => RibOutput::Track(next_hop),
            Tracking::Stop(next_hop) => RibOutput::Untrack(next_hop),
        }));
        !self.outputs.is_empty()
    }
}
