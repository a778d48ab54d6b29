//! What the engine tells about itself.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;

use crate::resolve::{NextHopRef, Resolution};
use crate::route::{NextHops, Protocol};

/// Something its owner may want to act on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A tracked next hop resolves, for the first time or differently.
    NextHop {
        /// The next hop.
        next_hop: NextHopRef,
        /// How it is reached now.
        resolution: Resolution,
    },
    /// Routes of protocol 176 that an earlier run left, once after the first dump.
    Adopted {
        /// How many IPv4 routes.
        ipv4: usize,
        /// How many IPv6 routes.
        ipv6: usize,
    },
    /// Routes that something else deleted or changed were written again.
    Repaired {
        /// How many.
        routes: usize,
        /// One of them.
        example: IpNet,
    },
    /// The kernel refused a route; tried again later.
    Refused {
        /// The destination.
        prefix: IpNet,
        /// The kernel's reason.
        error: String,
    },
    /// Addresses of links changed.
    AddressesChanged,
    /// Links changed, or the links that default routes lead out of.
    LinksChanged,
}

/// Whether a route is in the kernel, and why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteState {
    /// In the kernel as wanted.
    Installed,
    /// In the kernel from an earlier run, not wanted by this one, kept until the sweep.
    Adopted,
    /// About to be written or deleted.
    Pending,
    /// A route of another protocol to the same destination has a better or the same metric.
    Shadowed(Protocol),
    /// The kernel refused it.
    Refused(String),
    /// None of its next hops can be reached, or the pod's link is missing.
    Unresolved,
}

impl fmt::Display for RouteState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Installed => f.write_str("installed"),
            Self::Adopted => f.write_str("adopted"),
            Self::Pending => f.write_str("pending"),
            Self::Shadowed(protocol) => write!(f, "shadowed by proto {protocol}"),
            Self::Refused(error) => write!(f, "refused: {error}"),
            Self::Unresolved => f.write_str("unresolved"),
        }
    }
}

/// One route as `weftctl fib` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FibEntry {
    /// The destination.
    pub prefix: IpNet,
    /// Where it leads; empty for unreachable and blackhole routes and where no next hop resolves.
    pub next_hops: Vec<FibNextHop>,
    /// The kernel has it over a resilient group: flows stay on their next hop while others come and go.
    pub resilient: bool,
    /// Packets over it are dropped without a word.
    pub blackhole: bool,
    /// The protocol's number: 176 or 177.
    pub protocol: u8,
    /// The metric.
    pub metric: u32,
    /// See [`RouteState`].
    #[serde(serialize_with = "as_text")]
    pub state: RouteState,
    /// The learned routes that lead to its BGP next hops, where those of the kernel do not or are less specific.
    pub over: BTreeSet<IpNet>,
}

/// One leg of a [`FibEntry`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FibNextHop {
    /// The gateway; `None` when the destination is on the link.
    pub via: Option<IpAddr>,
    /// The link's name, or its index where it has gone.
    pub dev: String,
    /// Share of the traffic, 1 to 256.
    pub weight: u16,
}

fn as_text<S: serde::Serializer>(state: &RouteState, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(state)
}

/// Counts since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counters {
    /// Writes the kernel carried out.
    pub writes: u64,
    /// Writes the kernel refused.
    pub refusals: u64,
    /// Routes written again after something else deleted or changed them.
    pub repairs: u64,
    /// Dumps, the first and the periodic ones included.
    pub resyncs: u64,
    /// Times notifications were lost.
    pub overruns: u64,
}

pub(super) fn next_hops(legs: &NextHops, name: impl Fn(u32) -> String) -> Vec<FibNextHop> {
    legs.iter().map(|leg| FibNextHop { via: leg.gateway, dev: name(leg.link), weight: leg.weight }).collect()
}
