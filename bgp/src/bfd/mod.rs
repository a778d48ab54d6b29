//! Bidirectional Forwarding Detection (RFC 5880) as a value: single hop (RFC 5881) and multihop (RFC 5883), asynchronous mode.
//!
//! Nothing of BGP is known here. Packets, time and a seed go in; packets and changes of state come out. [`Endpoint`] holds the
//! sessions of one system: `handle(now, input)`, `poll()`, `next_deadline()`, as the stages of BGP.
//!
//! Demand mode and the echo function are not used by us; a peer that asks for demand mode has its way. There is no
//! authentication: packets that carry it are discarded, as RFC 5880 section 6.8.6 asks of a system that uses none. C is 0: the
//! process that runs the sessions is the one that runs BGP.

mod endpoint;
pub mod packet;
mod rng;
mod session;

#[cfg(test)]
mod tests;

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::endpoint::{Arrived, Discards, Endpoint, Input, Output, SessionStatus};
pub use self::packet::{Diagnostic, Packet};
pub use self::session::Counters;

/// The port of single hop sessions (RFC 5881 section 4).
pub const SINGLE_HOP_PORT: u16 = 3784;
/// The port of multihop sessions (RFC 5883 section 5).
pub const MULTIHOP_PORT: u16 = 4784;

/// The state of a session (RFC 5880 section 6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum State {
    /// Held down by somebody's will, which says nothing of the path.
    AdminDown,
    /// Nothing is heard, or what is heard does not tell that we are.
    Down,
    /// The other end is heard, and does not hear us yet.
    Init,
    /// Both ends hear each other.
    Up,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AdminDown => "AdminDown",
            Self::Down => "Down",
            Self::Init => "Init",
            Self::Up => "Up",
        })
    }
}

/// The other end of a session: there is one session to each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Remote {
    /// Its address.
    pub address: IpAddr,
    /// The index of the interface whose link it is on: only of a link-local address, which means nothing without.
    pub link: Option<u32>,
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.link {
            Some(link) => write!(f, "{}%{link}", self.address),
            None => self.address.fmt(f),
        }
    }
}

/// How far away the other end may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hops {
    /// On the link: what has passed a router is not believed (RFC 5881 section 5).
    Single,
    /// Behind routers (RFC 5883).
    Multi {
        /// What has a lower TTL is not believed; 255 is what it was sent with.
        minimum_ttl: u8,
    },
}

/// What a session should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionConfig {
    /// Single hop or multihop.
    pub hops: Hops,
    /// The address to send from; else the kernel chooses.
    pub source: Option<IpAddr>,
    /// The time between two packets that we send while the session is Up, unless the other end wants fewer: whole microseconds.
    pub desired_min_tx_interval: Duration,
    /// The time between two packets that we can take.
    pub required_min_rx_interval: Duration,
    /// How many of our packets in a row may be missing before the other end gives the session up; not 0.
    pub detect_mult: u8,
    /// Say nothing before the other end has.
    pub passive: bool,
}

/// What a process has to know to go on with a session of another that died, as if nothing had been: the other end gives a session up that
/// begins anew. Intervals are microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Resumption {
    /// Our name for the session.
    pub local_discriminator: u32,
    /// The other end's.
    pub remote_discriminator: u32,
    /// What we told of our interval.
    pub desired_min_tx_interval: u32,
    /// What we told that we can take.
    pub required_min_rx_interval: u32,
    /// What the other end can take.
    pub remote_min_rx_interval: u32,
    /// How often the other end sends.
    pub remote_desired_min_tx_interval: u32,
    /// How many of its packets may be missing.
    pub remote_detect_mult: u8,
}

/// A change of a session's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// What it is.
    pub state: State,
    /// Why it changed last, as we tell the other end.
    pub diagnostic: Diagnostic,
    /// Whether it was Up and the path, or the system at its end, is taken for dead: not where the other end, or we, took the session down
    /// by will (RFC 5882 section 3.2), nor where the other end has begun a new one.
    pub failed: bool,
    /// How long the other end had been silent when it changed: the detection time, if that is why.
    pub silence: Duration,
}
