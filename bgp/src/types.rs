//! The small words everything else is written in.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// A four-octet autonomous system number (RFC 6793). Zero is representable, as it occurs in received data; configured numbers
/// are checked by [`Asn::configured`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Asn(pub u32);

impl Asn {
    /// `AS_TRANS` (RFC 6793 section 2): stands for a four-octet number towards a two-octet speaker.
    pub const TRANS: Self = Self(23456);

    /// The number, if a speaker may be configured with it: not 0 (RFC 7607), not 65535 or 4294967295 (RFC 7300), not `AS_TRANS`.
    ///
    /// # Errors
    /// A sentence that says why the number is reserved.
    pub fn configured(number: u32) -> Result<Self, String> {
        match number {
            0 => Err("AS 0 is reserved (RFC 7607); use 1 to 4294967294".into()),
            23456 => Err("AS 23456 is AS_TRANS (RFC 6793); use the real number".into()),
            65535 | 4_294_967_295 => Err(format!("AS {number} is reserved (RFC 7300); use 1 to 4294967294")),
            n => Ok(Self(n)),
        }
    }

    /// Whether the number is for private use, and means nothing on the Internet (RFC 6996).
    #[must_use]
    pub fn is_private(self) -> bool {
        matches!(self.0, 64512..=65534 | 4_200_000_000..=4_294_967_294)
    }

    /// The number as a two-octet field carries it: itself, or [`Asn::TRANS`].
    #[must_use]
    pub fn two_octets(self) -> u16 {
        u16::try_from(self.0).unwrap_or(23456)
    }
}

impl fmt::Display for Asn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Asn {
    type Err = String;

    /// Reads asplain (`4200000001`) and asdot (`64086.59905`), RFC 5396.
    fn from_str(s: &str) -> Result<Self, String> {
        let wrong = || format!("\"{s}\" is not an AS number; write 65001 or 1.10");
        match s.split_once('.') {
            None => s.parse().map(Self).map_err(|_| wrong()),
            Some((high, low)) => {
                let (high, low): (u16, u16) =
                    (high.parse().map_err(|_| wrong())?, low.parse().map_err(|_| wrong())?);
                Ok(Self(u32::from(high) << 16 | u32::from(low)))
            }
        }
    }
}

/// An address family and subsequent address family that this speaker routes (RFC 4760).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Family {
    /// AFI 1, SAFI 1.
    #[serde(rename = "ipv4-unicast")]
    Ipv4Unicast,
    /// AFI 2, SAFI 1.
    #[serde(rename = "ipv6-unicast")]
    Ipv6Unicast,
}

impl Family {
    /// Every family, in order.
    pub const ALL: [Self; 2] = [Self::Ipv4Unicast, Self::Ipv6Unicast];

    /// The family of a prefix.
    #[must_use]
    pub fn of(prefix: &IpNet) -> Self {
        match prefix {
            IpNet::V4(_) => Self::Ipv4Unicast,
            IpNet::V6(_) => Self::Ipv6Unicast,
        }
    }

    /// The family of an address.
    #[must_use]
    pub fn of_address(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::Ipv4Unicast } else { Self::Ipv6Unicast }
    }

    /// AFI and SAFI numbers (IANA).
    #[must_use]
    pub fn afi_safi(self) -> (u16, u8) {
        match self {
            Self::Ipv4Unicast => (1, 1),
            Self::Ipv6Unicast => (2, 1),
        }
    }

    /// The family with these numbers, if it is one of ours.
    #[must_use]
    pub fn from_afi_safi(afi: u16, safi: u8) -> Option<Self> {
        match (afi, safi) {
            (1, 1) => Some(Self::Ipv4Unicast),
            (2, 1) => Some(Self::Ipv6Unicast),
            _ => None,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipv4Unicast => "ipv4-unicast",
            Self::Ipv6Unicast => "ipv6-unicast",
        })
    }
}

/// A set of families.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FamilySet(u8);

impl FamilySet {
    /// No family.
    pub const EMPTY: Self = Self(0);

    /// Both families.
    #[must_use]
    pub fn all() -> Self {
        Family::ALL.into_iter().collect()
    }

    fn bit(family: Family) -> u8 {
        1 << family as u8
    }

    /// Whether the family is in the set.
    #[must_use]
    pub fn contains(self, family: Family) -> bool {
        self.0 & Self::bit(family) != 0
    }

    /// Adds a family.
    pub fn insert(&mut self, family: Family) {
        self.0 |= Self::bit(family);
    }

    /// Takes a family out.
    pub fn remove(&mut self, family: Family) {
        self.0 &= !Self::bit(family);
    }

    /// The families in both sets.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The families in one of the sets.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The families, in order.
    pub fn iter(self) -> impl Iterator<Item = Family> {
        Family::ALL.into_iter().filter(move |f| self.contains(*f))
    }
}

impl FromIterator<Family> for FamilySet {
    fn from_iter<T: IntoIterator<Item = Family>>(families: T) -> Self {
        let mut set = Self::EMPTY;
        families.into_iter().for_each(|f| set.insert(f));
        set
    }
}

/// A network interface: its link is where a link-local address means something (RFC 4007).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interface {
    index: u32,
    /// Filled up with zeros.
    name: [u8; Self::NAME_MAX],
}

impl Interface {
    /// The longest name that the kernel gives.
    const NAME_MAX: usize = 15;

    /// The interface of this index and name; none if no interface has such a name.
    #[must_use]
    pub fn new(index: u32, name: &str) -> Option<Self> {
        let mut padded = [0; Self::NAME_MAX];
        padded.get_mut(..name.len())?.copy_from_slice(name.as_bytes());
        Some(Self { index, name: padded })
    }

    /// The kernel's number for it: the scope id of addresses on its link.
    #[must_use]
    pub fn index(self) -> u32 {
        self.index
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(String::from_utf8_lossy(&self.name).trim_end_matches('\0'))
    }
}

impl fmt::Debug for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}({})", self.index)
    }
}

/// Where a peer is: there is one session to each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerAddress {
    /// At this address.
    Ip(IpAddr),
    /// At the other end of this interface's link, whatever its link-local address is.
    Interface(Interface),
}

impl PeerAddress {
    /// The address; none of a peer that is wherever its link leads.
    #[must_use]
    pub fn ip(self) -> Option<IpAddr> {
        match self {
            Self::Ip(ip) => Some(ip),
            Self::Interface(_) => None,
        }
    }

    /// The interface of a peer that is known by it.
    #[must_use]
    pub fn interface(self) -> Option<Interface> {
        match self {
            Self::Ip(_) => None,
            Self::Interface(interface) => Some(interface),
        }
    }
}

impl<T: Into<IpAddr>> From<T> for PeerAddress {
    fn from(ip: T) -> Self {
        Self::Ip(ip.into())
    }
}

impl fmt::Display for PeerAddress {
    /// `10.0.0.1`, `%eth0`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Interface(interface) => write!(f, "%{interface}"),
        }
    }
}

/// The link that an end of a connection is on: none but for link-local addresses.
pub(crate) fn link_of(end: SocketAddr) -> Option<u32> {
    match end {
        SocketAddr::V6(end) if end.ip().is_unicast_link_local() => Some(end.scope_id()),
        SocketAddr::V4(_) | SocketAddr::V6(_) => None,
    }
}

/// A peer's small number inside one speaker. Given when the peer is configured, not used again while the speaker lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u32);

/// One TCP connection. Those we dial are numbered by the speaker, those we accept by the transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConnectionId {
    /// We opened it.
    Dialled(u64),
    /// The peer opened it.
    Accepted(u64),
    /// We opened it to a monitoring station; numbered by [`crate::bmp::Bmp`].
    Station(u64),
}

/// Whether a session crosses an AS border.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PeerType {
    /// Internal: both ends in one AS.
    #[serde(rename = "iBGP")]
    Internal,
    /// External.
    #[serde(rename = "eBGP")]
    External,
}

/// Why something is as it is: a stable code for programs and a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Reason {
    /// Stable, lower case, hyphens: `own-block`.
    pub code: std::borrow::Cow<'static, str>,
    /// One sentence.
    pub text: String,
}

impl Reason {
    /// A reason with a fixed code.
    pub fn new(code: &'static str, text: impl Into<String>) -> Self {
        Self { code: code.into(), text: text.into() }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.text)
    }
}
