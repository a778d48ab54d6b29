//! What a speaker is told to be: plain data, always the whole of it.
//!
//! A speaker is configured by value: it compares the new [`SpeakerConfig`] with the one it runs and touches only what differs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU8;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::bfd::{Remote, SessionConfig};
use crate::bmp::BmpConfig;
use crate::policy::{Community, Policy};
use crate::protection::{Authentication, Protection};
use crate::role::Role;
use crate::types::{Asn, FamilySet, PeerAddress, PeerType};

/// Everything one speaker should be. One per daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpeakerConfig {
    /// The own AS, of OPEN and of the loop check where a peer has no `local_as` of its own.
    pub asn: Asn,
    /// The BGP identifier (RFC 6286: any 32 bits but 0).
    pub router_id: Ipv4Addr,
    /// The cluster that this speaker reflects for (RFC 4456 section 7); none: `router_id` names it.
    pub cluster_id: Option<Ipv4Addr>,
    /// How many equal paths go to the kernel; at least 1.
    pub max_paths: u16,
    /// Whether best paths are told for the kernel. Off for a route server or reflector that does not forward.
    pub install_routes: bool,
    /// Whether next hops are believed only once an [`crate::speaker::Input::NextHops`] says that they resolve. Off where nothing
    /// knows the kernel's routes (simulation): every next hop is then on-link.
    pub next_hop_tracking: bool,
    /// The peers, by where they are.
    pub peers: BTreeMap<PeerAddress, Arc<PeerConfig>>,
    /// Where peers may connect from that are not among `peers`: of the ranges that hold an address the longest counts.
    pub ranges: BTreeMap<IpNet, Arc<RangeConfig>>,
    /// The prefixes that this speaker originates.
    pub originate: BTreeMap<IpNet, Origination>,
    /// The monitoring stations, and what they are told.
    pub bmp: BmpConfig,
}

impl SpeakerConfig {
    /// The range that a peer at this address would be of, if it is not one of `peers`.
    #[must_use]
    pub fn range_of(&self, address: IpAddr) -> Option<(IpNet, &Arc<RangeConfig>)> {
        let holding = self.ranges.iter().filter(|(range, _)| range.contains(&address));
        holding.max_by_key(|(range, _)| range.prefix_len()).map(|(range, config)| (*range, config))
    }
}

/// Peers that are known by where they connect from alone: dynamic peers. They are never dialled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeConfig {
    /// How many there may be at one time.
    pub limit: u32,
    /// What each of them is.
    pub peer: Arc<PeerConfig>,
}

/// How a prefix of our own is announced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origination {
    /// Communities to attach.
    pub communities: BTreeSet<Community>,
    /// What makes it an aggregate, announced only while there is a more specific route. None: it is always announced.
    pub aggregation: Option<Aggregation>,
}

/// What becomes of the more specific routes of an aggregate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregation {
    /// They are announced beside it.
    WithSpecifics,
    /// They are not announced to whoever is told the aggregate.
    SummaryOnly,
}

/// One peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    /// The name of the object that asks for this peer.
    pub name: String,
    /// The remote port to dial.
    pub port: u16,
    /// The link-local address of a peer that is known by its interface, once it is found. Until then the peer is not dialled, and
    /// whoever connects on the link is the peer.
    pub neighbour: Option<Ipv6Addr>,
    /// Which AS the peer may say it is.
    pub remote_as: RemoteAs,
    /// The AS that we are on this session.
    pub local_as: Asn,
    /// The address to dial from; else the kernel chooses.
    pub source_address: Option<IpAddr>,
    /// The families to offer.
    pub families: FamilySet,
    /// Our next hop for IPv4 prefixes where the session itself gives none: a session over IPv6.
    pub next_hop_v4: Option<Ipv4Addr>,
    /// Our next hop for IPv6 prefixes where the session itself gives none, a session over IPv4, or only a link-local one.
    pub next_hop_v6: Option<Ipv6Addr>,
    /// When to put our address as the next hop.
    pub next_hop_mode: NextHopMode,
    /// Whether an eBGP peer's next hops may lie behind a gateway.
    pub ebgp_multihop: bool,
    /// How both ends know each other. A change begins the session anew, as after a restart (RFC 4724), unless a TCP-AO key stays.
    pub authentication: Authentication,
    /// How many hops away the peer is at most, where packets from farther away are dropped (GTSM, RFC 5082).
    pub ttl_security: Option<NonZeroU8>,
    /// How many prefixes of each family the peer may tell.
    pub max_prefixes: Option<MaxPrefixes>,
    /// Never dial, only accept.
    pub passive: bool,
    /// Keep the session down; the text goes to the peer (RFC 9003).
    pub shutdown: Option<String>,
    /// Whether the peer, if it is internal, is our client: what it tells goes to every other internal peer, and what those tell goes
    /// to it (RFC 4456).
    pub route_reflector_client: bool,
    /// Whether several paths of one prefix are told (RFC 7911).
    pub add_path: AddPath,
    /// How often our own AS may occur in a received AS path.
    pub allowed_own_as: u8,
    /// Whether paths with an AS_SET or AS_CONFED_SET are taken from the peer and told to it, which RFC 9774 forbids.
    pub allow_as_sets: bool,
    /// Whether an external peer is told ours in place of its own AS, so that it takes what comes from another site of its AS.
    pub as_override: bool,
    /// Whether private AS numbers are taken out of what an external peer is told, but for its own.
    pub remove_private_as: bool,
    /// What we are to the peer's AS, if it is another than ours (RFC 9234).
    pub role: Option<Role>,
    /// Whether the peer must say its own role.
    pub role_strict: bool,
    /// The timers.
    pub timers: Timers,
    /// Graceful restart (RFC 4724), unless switched off.
    pub graceful_restart: Option<GracefulRestart>,
    /// BFD with the peer, if there is any: its end is the session's end.
    pub bfd: Option<SessionConfig>,
    /// What of the peer's routes is believed.
    pub import: Arc<Policy>,
    /// What is told to the peer.
    pub export: Arc<Policy>,
}

impl PeerConfig {
    /// The session type towards a peer of this AS.
    #[must_use]
    pub fn peer_type(&self, remote: Asn) -> PeerType {
        if remote == self.local_as { PeerType::Internal } else { PeerType::External }
    }

    /// Whether there is to be no session.
    #[must_use]
    pub fn stays_down(&self) -> bool {
        self.shutdown.is_some() || matches!(self.authentication, Authentication::Unavailable(_))
    }

    /// What the sockets of its session must have.
    #[must_use]
    pub fn protection(&self) -> Protection {
        Protection { signature: self.authentication.signature().cloned(), ttl_security: self.ttl_security }
    }

    /// The other end of the BFD session with this peer at `address`; none is wanted while there is to be no session, and none can be while
    /// it is not found.
    #[must_use]
    pub fn bfd_remote(&self, address: PeerAddress) -> Option<Remote> {
        if self.bfd.is_none() || self.stays_down() {
            return None;
        }
        Some(match address {
            PeerAddress::Ip(address) => Remote { address, link: None },
            PeerAddress::Interface(interface) => {
                Remote { address: self.neighbour?.into(), link: Some(interface.index()) }
            }
        })
    }
}

/// Several paths of one prefix (RFC 7911).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddPath {
    /// Whether the peer may tell them.
    pub receive: bool,
    /// Which of them the peer is told, if it takes them; none: the best alone.
    pub send: Option<AddPathSend>,
}

/// Which paths of a prefix a peer is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddPathSend {
    /// Those that it may be.
    pub paths: PathChoice,
    /// So many of them at most, the better ones first.
    pub limit: u8,
}

/// A choice among the paths of a prefix that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathChoice {
    /// The best and those that are used beside it.
    Multipath,
    /// All.
    All,
}

/// How many prefixes of each family a peer may tell, before import policy (RFC 4271 section 6.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxPrefixes {
    /// So many may be.
    pub limit: u32,
    /// From so many on it is told.
    pub warning: u32,
    /// What becomes of more.
    pub action: LimitAction,
}

/// What becomes of a session on which too many prefixes are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitAction {
    /// It goes on, and it is told.
    Warn,
    /// It ends, and stays down until its configuration changes or it is reset.
    Stop,
    /// The same, or until so long after.
    Restart(Duration),
}

impl LimitAction {
    /// Whether the session ends.
    #[must_use]
    pub fn ends_the_session(self) -> bool {
        self != Self::Warn
    }
}

/// Which AS a peer may be of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoteAs {
    /// Just this one.
    Exactly(Asn),
    /// Ours.
    Internal,
    /// Any but ours.
    External,
}

impl RemoteAs {
    /// Whether a peer of AS `remote` is welcome on a session on which we are `local`.
    #[must_use]
    pub fn admits(self, local: Asn, remote: Asn) -> bool {
        match self {
            Self::Exactly(asn) => asn == remote,
            Self::Internal => remote == local,
            Self::External => remote != local,
        }
    }
}

/// Whose address is the next hop of what we announce.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NextHopMode {
    /// RFC 4271 section 5.1.3: ours on eBGP and for what we originate; kept on iBGP.
    #[default]
    Auto,
    /// Ours, always.
    Own,
    /// As learned, also on eBGP.
    Keep,
}

/// A session's timers (RFC 4271 section 10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timers {
    /// What we propose in OPEN: zero, or at least 3 s.
    pub hold_time: Duration,
    /// Else a third of the negotiated hold time; never more than that third.
    pub keepalive_time: Option<Duration>,
    /// How long the peer may take nothing of what it is sent before it is given up (RFC 9687): zero is for ever, and less than the
    /// negotiated hold time means that. None: the default of RFC 9687, 8 min or twice the hold time if that is longer.
    pub send_hold_time: Option<Duration>,
    /// Between two dials.
    pub connect_retry: Duration,
    /// How long a fresh inbound or outbound connection waits for the peer's OPEN before sending ours.
    pub delay_open: Option<Duration>,
    /// The first wait in Idle after a failure; doubles up to `idle_hold_max`.
    pub idle_hold_min: Duration,
    /// The longest wait in Idle.
    pub idle_hold_max: Duration,
}

impl Timers {
    /// The least that the default of [`Timers::send_hold_time`] may be.
    const SEND_HOLD_MIN: Duration = Duration::from_secs(8 * 60);

    /// The SendHoldTime of a session with this hold time; none: it never expires.
    #[must_use]
    pub fn send_hold_time(&self, hold_time: Duration) -> Option<Duration> {
        match self.send_hold_time {
            None => Some(Self::SEND_HOLD_MIN.max(hold_time * 2)),
            Some(configured) => Some(configured.max(hold_time)).filter(|_| !configured.is_zero()),
        }
    }
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            hold_time: Duration::from_secs(90),
            keepalive_time: None,
            send_hold_time: None,
            connect_retry: Duration::from_secs(5),
            delay_open: None,
            idle_hold_min: Duration::from_secs(1),
            idle_hold_max: Duration::from_secs(60),
        }
    }
}

/// Graceful restart as we offer it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GracefulRestart {
    /// How long the peer should keep our routes while we are away; at most 4095 s on the wire.
    pub restart_time: Duration,
    /// Whether the expiry of the hold timer is a restart too, with peers that have RFC 8538; else it is a death.
    pub on_hold_timer_expiry: bool,
    /// How long routes are kept beyond the restart time, as the last choice (RFC 9494): ours by the peer, and the peer's by us if it asks
    /// for that, for no longer than it asks for. None: long-lived graceful restart is not offered. At most 2^24 - 1 s on the wire.
    pub long_lived_time: Option<Duration>,
}
