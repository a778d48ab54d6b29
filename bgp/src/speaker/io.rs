//! What reaches a speaker and what it gives.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ipnet::IpNet;

use crate::bfd::Change;
use crate::config::{PeerConfig, SpeakerConfig};
use crate::ingress::ahead::Updates;
use crate::ingress::{Incident, Session};
use crate::mrt::Observation;
use crate::protection::Protection;
use crate::protection::ao::KeyChain;
use crate::session::{self, State};
use crate::status::RangeRefusal;
use crate::types::{ConnectionId, Family, FamilySet, PeerAddress, Reason};

/// How a speaker begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpeakerStart {
    /// Of all its jitter.
    pub seed: u64,
    /// Whether it takes over from a process that died: helpers are told so (RFC 4724, R bit), and nothing that was learned is announced,
    /// nor End-of-RIB, before the others have told their tables.
    pub restarting: bool,
    /// The families whose kernel routes were kept meanwhile (F bit).
    pub forwarding: FamilySet,
}

/// Which timer a deadline belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    /// One of a peer's session.
    Session {
        /// Whose.
        peer: PeerAddress,
        /// Which.
        timer: session::Timer,
    },
    /// A peer takes no bytes any more (RFC 9687).
    SendHold {
        /// Who.
        peer: PeerAddress,
    },
    /// A dynamic peer is forgotten.
    Forget {
        /// Who.
        peer: PeerAddress,
    },
    /// The RIB's: stale routes of a peer that did not come back (RFC 4724), or a table to ask for again.
    Rib,
    /// The next look at the first convergence.
    Convergence,
    /// A monitoring station is to be dialled, or told what was counted.
    Station {
        /// Which.
        station: SocketAddr,
    },
}

/// Everything that can happen to a speaker.
#[derive(Debug)]
pub enum Input {
    /// The whole configuration, first or changed; only what differs is touched.
    Configure(Arc<SpeakerConfig>),
    /// The dynamic peers of a process that died: before the first [`Input::Configure`]. Those that a range still holds are peers again,
    /// and have time to connect.
    Remember(BTreeSet<IpAddr>),
    /// A peer connected to us.
    Accepted {
        /// Its name, given by the transport.
        connection: ConnectionId,
        /// Our end.
        local: SocketAddr,
        /// The peer's end; one that is no peer's is answered with [`Output::Close`].
        remote: SocketAddr,
    },
    /// The transport closed an incoming connection at once, as there were too many.
    Refused {
        /// The peer's end.
        remote: SocketAddr,
    },
    /// The transport lets in no connection of a peer's, or has closed one at once, as it cannot be given what protects the session.
    Unprotected {
        /// Whose.
        caller: Caller,
        /// Why.
        error: String,
    },
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
    /// Bytes arrived.
    Bytes {
        /// On which connection.
        connection: ConnectionId,
        /// What.
        bytes: Bytes,
    },
    /// UPDATEs arrived, decoded as [`Output::Agreed`] says.
    Updates {
        /// On which connection.
        connection: ConnectionId,
        /// What.
        updates: Updates,
    },
    /// Bytes left: the kernel took them. This is what lets more UPDATEs be packed for the peer.
    Written {
        /// On which connection.
        connection: ConnectionId,
        /// How many.
        bytes: usize,
    },
    /// A connection is gone.
    Closed {
        /// Which.
        connection: ConnectionId,
        /// The kernel's words.
        error: Option<String>,
    },
    /// What the kernel's routes say of next hops that were asked for by [`Output::TrackNextHop`].
    NextHops(Vec<(TrackedNextHop, Resolution)>),
    /// End a peer's session with a Cease and let it come up again (`weftctl clear`).
    Reset {
        /// Which peer.
        peer: PeerAddress,
    },
    /// Have routes told again, without a word to the session (`weftctl clear --soft`).
    Refresh {
        /// Which peer.
        peer: PeerAddress,
        /// Whose routes.
        direction: Refresh,
    },
    /// The BFD session with a peer changed. That the path failed while the BGP session is Established is the peer's death.
    Bfd {
        /// Which peer.
        peer: PeerAddress,
        /// How.
        change: Change,
    },
    /// Whether to tell what passes between the speaker and its peers: [`Output::Observation`].
    Observe(bool),
    /// The process ends: close every connection so that helpers keep our routes: without NOTIFICATION, but to those that take a
    /// NOTIFICATION for a restart too (RFC 8538).
    Stop,
    /// This process did not run for a while: what peers said meanwhile may not have been read. Before the [`Self::Tick`] that comes late.
    HeldUp,
    /// Another thread has packed what peers are told: see [`Speaker::help`](super::Speaker::help).
    Packed,
    /// A deadline may have passed.
    Tick,
}

/// Who connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A peer.
    Peer(PeerAddress),
    /// Somebody who is to become a peer, of this range.
    Range(IpNet),
}

/// Which routes are told again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refresh {
    /// The peer's, which are asked for (RFC 2918); nothing where it does not know ROUTE-REFRESH.
    In,
    /// Ours, as if the peer had asked.
    Out,
}

/// Everything that a speaker asks for or reports.
#[derive(Debug)]
pub enum Output {
    /// Open a connection.
    Dial {
        /// Its name from now on.
        connection: ConnectionId,
        /// The address to bind to.
        source: Option<IpAddr>,
        /// Whom to call.
        remote: SocketAddr,
        /// What the socket must have before it is connected; else the dial has failed.
        protection: Protection,
    },
    /// Send bytes, in order. Several peers' outputs may share one buffer.
    Write {
        /// On which connection.
        connection: ConnectionId,
        /// Whole messages.
        bytes: Bytes,
    },
    /// Close a connection once what was written to it is out.
    Close {
        /// Which.
        connection: ConnectionId,
    },
    /// Replace the TCP-AO keys of a connection (RFC 5925); one that cannot be given them is closed.
    RollOver {
        /// Which.
        connection: ConnectionId,
        /// All keys that it has from now on.
        keys: KeyChain,
    },
    /// A session is Established. Whoever reads its connection may decode UPDATEs from now on, by an
    /// [`ahead::Reader`](crate::ingress::ahead::Reader).
    Agreed {
        /// On which connection.
        connection: ConnectionId,
        /// What was agreed.
        session: Arc<Session>,
    },
    /// Best paths changed: what the kernel should do with these prefixes. After a restart, nothing before the first convergence.
    BestPaths(Vec<BestPathChange>),
    /// A peer died, and nobody else offers these next hops: routes that have others can do without them at once. Said before anything
    /// is decided; the best paths that follow from it come later.
    NextHopsLost(Vec<TrackedNextHop>),
    /// Tell me, now and on every change, how this next hop resolves.
    TrackNextHop(TrackedNextHop),
    /// No path uses this next hop any more.
    UntrackNextHop(TrackedNextHop),
    /// Every peer that is alive has told us its table, or the time for that is up: what the kernel holds and the Loc-RIB does not
    /// may be swept. Said once.
    Converged,
    /// Our own prefixes that at least one established peer has been told, by themselves or by an aggregate, all of them: on every change, and once after
    /// [`Output::Converged`].
    Announced(BTreeSet<IpNet>),
    /// The aggregates that are announced, all of them, on every change: the kernel should send packets for what is not there in them
    /// nowhere.
    Aggregates(BTreeSet<IpNet>),
    /// Who the peer at the other end of a link turned out to be: said when its session is Established, and none when that ends.
    Neighbour {
        /// The interface's index.
        link: u32,
        /// The link-local address.
        address: Option<Ipv6Addr>,
    },
    /// The dynamic peers, on every change.
    Dynamic {
        /// All of them.
        peers: BTreeMap<PeerAddress, Arc<PeerConfig>>,
        /// Those with a session, or with routes that are kept for the next one: what [`Input::Remember`] is for.
        remember: BTreeSet<IpAddr>,
    },
    /// Something to tell people.
    Event(Event),
    /// What passed between the speaker and a peer, while [`Input::Observe`] asks for it.
    Observation(Observation),
}

/// A next hop as the kernel is asked about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrackedNextHop {
    /// The BGP next hop.
    pub address: IpAddr,
    /// Whether a default route may resolve it: only for iBGP.
    pub default_route: bool,
    /// The link that it is on: only of a link-local address, which means nothing without.
    pub link: Option<u32>,
}

/// How a next hop resolves, in the kernel's routes that are not ours and in those of ours that need no other of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// No route leads there.
    Unresolved,
    /// It is a neighbour on a link of ours.
    OnLink,
    /// It lies behind a gateway.
    Gateway {
        /// The metric of the route that resolves it, the "interior cost" of RFC 4271 section 9.1.2.2 e.
        metric: u32,
    },
    /// A route of ours leads there.
    Recursive {
        /// To which prefix.
        over: IpNet,
        /// The metric of the kernel's route that it comes down to. Of a next hop that is `direct` it does not depend on routes of ours.
        metric: u32,
        /// Whether a route of the kernel's that is not ours leads there too: then paths over it may lead to other next hops.
        direct: bool,
    },
    /// No route but one of ours, whose own next hop such a one leads to: paths are not eligible, as over an unresolved one.
    TooDeep {
        /// To which prefix.
        over: IpNet,
    },
}

impl Resolution {
    /// Whether a next hop is reached, but by routes of ours alone.
    #[must_use]
    pub fn is_indirect(self) -> bool {
        matches!(self, Self::Recursive { direct: false, .. })
    }
}

/// The kernel's part of a change of the Loc-RIB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BestPathChange {
    /// The prefix.
    pub prefix: IpNet,
    /// The next hops of the best and the equal paths, in order, without duplicates. Empty: no route of BGP's is wanted, as the
    /// prefix is gone or originated here.
    pub next_hops: NextHops,
    /// The next hops of the best, and the equal, of those paths alone that the kernel's routes lead to: by them the prefix leads to other
    /// next hops. None: they are the same.
    ///
    /// They do not depend on how a next hop resolves over a prefix, so that no path that does can take away what it resolves over.
    pub direct: Option<Box<NextHops>>,
}

/// A route's next hops: shared with the routes beside it that have the same.
pub type NextHops = Arc<[TrackedNextHop]>;

/// Something that happened, for `weftctl events`, logs and metrics.
#[derive(Clone, Debug)]
pub struct Event {
    /// With which peer, or with which other address.
    pub peer: PeerAddress,
    /// What.
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum EventKind {
    /// The FSM moved.
    State {
        /// From.
        from: State,
        /// To.
        to: State,
    },
    /// An error or a noteworthy message.
    Incident(Incident),
    /// The BFD session with the peer changed.
    Bfd(Change),
    /// A node or peer begins to announce what is not its own, of a family.
    Alarm {
        /// The first.
        prefix: IpNet,
        /// Why it was rejected.
        reason: Reason,
    },
    /// A peer begins to leak routes of a family (RFC 9234).
    Leak {
        /// The first.
        prefix: IpNet,
        /// Why it was rejected.
        reason: Reason,
    },
    /// A peer has told nearly as many prefixes as it may, or more.
    Limit {
        /// Of which family.
        family: Family,
        /// How many.
        received: usize,
        /// How many it may.
        limit: u32,
        /// Whether it has told more.
        exceeded: bool,
    },
    /// Connections from within a range were closed at once, as it has as many peers as it may, it is shut down, or what protects its
    /// sessions is not to be had. Told of each range as [`EventKind::Refused`] is told.
    RangeRefused {
        /// Which.
        range: IpNet,
        /// How many since this was told last.
        connections: u64,
        /// Why the last one was.
        why: RangeRefusal,
    },
    /// Incoming connections were closed at once, as they came from no peer's address or were too many. Told once in
    /// [`EventKind::REFUSED_INTERVAL`] at most, for the last address; [`crate::status::SpeakerCounters`] counts them all.
    Refused {
        /// How many since this was told last.
        connections: u64,
    },
}

impl EventKind {
    /// Between two events that tell of refused connections.
    pub const REFUSED_INTERVAL: Duration = Duration::from_secs(10);
}
