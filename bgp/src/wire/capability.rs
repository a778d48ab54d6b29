//! Capabilities (RFC 5492).

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use super::notification::cut;
use super::reader::Reader;
use crate::types::{Asn, Family};

mod words;

mod code {
    pub(super) const MULTIPROTOCOL: u8 = 1;
    pub(super) const ROUTE_REFRESH: u8 = 2;
    pub(super) const EXTENDED_NEXT_HOP: u8 = 5;
    pub(super) const EXTENDED_MESSAGE: u8 = 6;
    pub(super) const ROLE: u8 = 9;
    pub(super) const GRACEFUL_RESTART: u8 = 64;
    pub(super) const FOUR_OCTET_AS: u8 = 65;
    pub(super) const ADD_PATH: u8 = 69;
    pub(super) const ENHANCED_ROUTE_REFRESH: u8 = 70;
    pub(super) const LONG_LIVED_GRACEFUL_RESTART: u8 = 71;
    pub(super) const FQDN: u8 = 73;
}

/// One capability.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Capability {
    /// Routes of this family (RFC 4760 section 8).
    Multiprotocol(AfiSafi),
    /// ROUTE-REFRESH (RFC 2918).
    RouteRefresh,
    /// Next hops of another family than the prefixes' (RFC 8950).
    ExtendedNextHop(Vec<NextHopEncoding>),
    /// Messages of up to 65535 octets (RFC 8654).
    ExtendedMessage,
    /// What the sender's AS is to the receiver's (RFC 9234): a [`Role`](crate::role::Role), or a number that is none.
    Role(u8),
    /// Graceful restart (RFC 4724).
    GracefulRestart(GracefulRestartCapability),
    /// Long-lived graceful restart (RFC 9494).
    LongLivedGracefulRestart(Vec<LongLivedFamily>),
    /// AS numbers of four octets, and which one the sender is (RFC 6793).
    FourOctetAs(Asn),
    /// Several paths of one prefix (RFC 7911).
    AddPath(Vec<AddPathFamily>),
    /// Route refresh with a beginning and an end (RFC 7313).
    EnhancedRouteRefresh,
    /// The sender's name (draft-walton-bgp-hostname-capability).
    Fqdn {
        /// The host's name.
        host: String,
        /// The domain's name; may be empty.
        domain: String,
    },
    /// Any other, as it came.
    Unknown {
        /// Its code.
        code: u8,
        /// Its value.
        value: Bytes,
    },
}

/// A pair of family numbers, of ours or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AfiSafi {
    /// Address family identifier.
    pub afi: u16,
    /// Subsequent address family identifier.
    pub safi: u8,
}

impl AfiSafi {
    /// The family, if it is one that this speaker routes.
    #[must_use]
    pub fn family(self) -> Option<Family> {
        Family::from_afi_safi(self.afi, self.safi)
    }
}

impl From<Family> for AfiSafi {
    fn from(family: Family) -> Self {
        let (afi, safi) = family.afi_safi();
        Self { afi, safi }
    }
}

/// Prefixes of one family that may have next hops of another (RFC 8950 section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NextHopEncoding {
    /// Address family identifier of the prefixes.
    pub afi: u16,
    /// Their subsequent address family identifier, here in two octets.
    pub safi: u16,
    /// Address family identifier of the next hop.
    pub next_hop_afi: u16,
}

impl NextHopEncoding {
    /// IPv4 unicast over IPv6.
    pub const IPV4_OVER_IPV6: Self = Self { afi: 1, safi: 1, next_hop_afi: 2 };
}

/// RFC 4724 section 3.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct GracefulRestartCapability {
    /// R bit: the sender has restarted.
    pub restarting: bool,
    /// N bit: NOTIFICATIONs do not end it (RFC 8538).
    pub notification: bool,
    /// Seconds in which the sender will be back after a restart; 12 bits.
    pub restart_time: u16,
    /// The families, each with its F bit: whether forwarding state was kept.
    pub families: Vec<(AfiSafi, bool)>,
}

/// A family in the long-lived graceful restart capability (RFC 9494 section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LongLivedFamily {
    /// The family.
    pub family: AfiSafi,
    /// F bit: whether forwarding state was kept.
    pub forwarding: bool,
    /// Seconds for which the sender's routes may be kept beyond its restart time; 24 bits.
    pub stale_time: u32,
}

impl LongLivedFamily {
    /// The longest time that the wire can tell, in seconds.
    pub const STALE_TIME_MAX: u32 = 0x00ff_ffff;
}

/// A family in the ADD-PATH capability (RFC 7911 section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddPathFamily {
    /// The family.
    pub family: AfiSafi,
    /// 1: the sender takes several paths of a prefix; 2: it tells them; 3: both. Any other number says nothing.
    pub send_receive: u8,
}

impl AddPathFamily {
    const RECEIVE: u8 = 1;
    const SEND: u8 = 2;

    /// What a speaker says of a family that it sends or receives several paths of, or both; none: neither.
    #[must_use]
    pub fn new(family: AfiSafi, receive: bool, send: bool) -> Option<Self> {
        let bit = |set, bit| if set { bit } else { 0 };
        let send_receive = bit(receive, Self::RECEIVE) | bit(send, Self::SEND);
        (send_receive != 0).then_some(Self { family, send_receive })
    }

    fn says(self, bit: u8) -> bool {
        self.send_receive <= Self::RECEIVE | Self::SEND && self.send_receive & bit != 0
    }

    /// Whether the sender takes several paths of a prefix.
    #[must_use]
    pub fn receives(self) -> bool {
        self.says(Self::RECEIVE)
    }

    /// Whether the sender tells several paths of a prefix.
    #[must_use]
    pub fn sends(self) -> bool {
        self.says(Self::SEND)
    }
}

impl GracefulRestartCapability {
    /// The longest restart time that the wire can tell, in seconds.
    pub const RESTART_TIME_MAX: u16 = 0x0fff;
    const RESTARTING: u16 = 0x8000;
    const NOTIFICATION: u16 = 0x4000;
    const FORWARDING: u8 = 0x80;

    /// A duration as the capability can tell it: whole seconds, at most 4095.
    #[must_use]
    pub fn restart_seconds(time: Duration) -> u16 {
        u16::try_from(time.as_secs()).unwrap_or(u16::MAX).min(Self::RESTART_TIME_MAX)
    }
}

impl Capability {
    /// Reads the capabilities of one optional parameter.
    ///
    /// # Errors
    /// The octets from where a capability is cut short, or of one whose length is wrong for its code.
    pub(super) fn decode_all<'a>(field: &'a [u8], out: &mut Vec<Self>) -> Result<(), &'a [u8]> {
        let mut reader = Reader::new(field);
        while !reader.is_empty() {
            let start = reader.rest();
            let (Some(code), Some(length)) = (reader.u8(), reader.u8()) else {
                return Err(start);
            };
            let value = reader.take(usize::from(length)).ok_or(start)?;
            out.push(Self::decode(code, value).ok_or(start)?);
        }
        Ok(())
    }

    /// Reads one; `None`: its length is wrong for its code.
    fn decode(code: u8, value: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(value);
        let capability = match code {
            code::MULTIPROTOCOL => {
                let afi = reader.u16()?;
                let _reserved = reader.u8()?;
                Self::Multiprotocol(AfiSafi { afi, safi: reader.u8()? })
            }
            code::ROUTE_REFRESH => Self::RouteRefresh,
            code::EXTENDED_NEXT_HOP => Self::ExtendedNextHop(decode_next_hops(&mut reader)?),
            code::EXTENDED_MESSAGE => Self::ExtendedMessage,
            code::ROLE => Self::Role(reader.u8()?),
            code::GRACEFUL_RESTART => Self::GracefulRestart(decode_graceful_restart(&mut reader)?),
            code::FOUR_OCTET_AS => Self::FourOctetAs(Asn(reader.u32()?)),
            code::ADD_PATH => Self::AddPath(decode_add_path(&mut reader)?),
            code::ENHANCED_ROUTE_REFRESH => Self::EnhancedRouteRefresh,
            // They can be done without: one that is malformed is kept as it is.
            code::FQDN | code::LONG_LIVED_GRACEFUL_RESTART => {
                let decoded = match code {
                    code::FQDN => decode_fqdn(value),
                    _ => decode_long_lived(&mut reader).map(Self::LongLivedGracefulRestart),
                };
                let malformed = || Self::Unknown { code, value: Bytes::copy_from_slice(value) };
                return Some(decoded.unwrap_or_else(malformed));
            }
            code => return Some(Self::Unknown { code, value: Bytes::copy_from_slice(value) }),
        };
        reader.is_empty().then_some(capability)
    }

    /// Appends the capability; a value of more than 255 octets is cut to the whole items that fit.
    pub(super) fn encode(&self, out: &mut BytesMut) {
        let mut value = BytesMut::new();
        let code = self.encode_value(&mut value);
        value.truncate(usize::from(u8::MAX));
        out.put_u8(code);
        out.put_u8(u8::try_from(value.len()).unwrap_or(u8::MAX));
        out.put_slice(&value);
    }

    fn encode_value(&self, out: &mut BytesMut) -> u8 {
        match self {
            Self::Multiprotocol(family) => {
                out.put_u16(family.afi);
                out.put_u8(0);
                out.put_u8(family.safi);
                code::MULTIPROTOCOL
            }
            Self::RouteRefresh => code::ROUTE_REFRESH,
            Self::ExtendedNextHop(encodings) => {
                encode_next_hops(encodings, out);
                code::EXTENDED_NEXT_HOP
            }
            Self::ExtendedMessage => code::EXTENDED_MESSAGE,
            Self::Role(role) => {
                out.put_u8(*role);
                code::ROLE
            }
            Self::GracefulRestart(restart) => {
                encode_graceful_restart(restart, out);
                code::GRACEFUL_RESTART
            }
            Self::LongLivedGracefulRestart(families) => {
                encode_long_lived(families, out);
                code::LONG_LIVED_GRACEFUL_RESTART
            }
            Self::FourOctetAs(asn) => {
                out.put_u32(asn.0);
                code::FOUR_OCTET_AS
            }
            Self::AddPath(families) => {
                encode_add_path(families, out);
                code::ADD_PATH
            }
            Self::EnhancedRouteRefresh => code::ENHANCED_ROUTE_REFRESH,
            Self::Fqdn { host, domain } => {
                // Two names and their lengths have to fit 255 octets.
                let host = cut(host, 253);
                for name in [host, cut(domain, 253 - host.len())] {
                    out.put_u8(u8::try_from(name.len()).unwrap_or(u8::MAX));
                    out.put_slice(name.as_bytes());
                }
                code::FQDN
            }
            Self::Unknown { code, value } => {
                out.put_slice(value);
                *code
            }
        }
    }
}

fn decode_next_hops(reader: &mut Reader<'_>) -> Option<Vec<NextHopEncoding>> {
    let mut encodings = Vec::new();
    while !reader.is_empty() {
        let (afi, safi) = (reader.u16()?, reader.u16()?);
        encodings.push(NextHopEncoding { afi, safi, next_hop_afi: reader.u16()? });
    }
    Some(encodings)
}

fn encode_next_hops(encodings: &[NextHopEncoding], out: &mut BytesMut) {
    // 6 × 42 octets fit a capability.
    const ENCODINGS_MAX: usize = 42;
    for encoding in encodings.iter().take(ENCODINGS_MAX) {
        out.put_u16(encoding.afi);
        out.put_u16(encoding.safi);
        out.put_u16(encoding.next_hop_afi);
    }
}

fn decode_add_path(reader: &mut Reader<'_>) -> Option<Vec<AddPathFamily>> {
    let mut families = Vec::new();
    while !reader.is_empty() {
        let family = AfiSafi { afi: reader.u16()?, safi: reader.u8()? };
        families.push(AddPathFamily { family, send_receive: reader.u8()? });
    }
    Some(families)
}

fn encode_add_path(families: &[AddPathFamily], out: &mut BytesMut) {
    // 4 × 63 octets fit a capability.
    const FAMILIES_MAX: usize = 63;
    for AddPathFamily { family, send_receive } in families.iter().take(FAMILIES_MAX) {
        out.put_u16(family.afi);
        out.put_u8(family.safi);
        out.put_u8(*send_receive);
    }
}

fn decode_graceful_restart(reader: &mut Reader<'_>) -> Option<GracefulRestartCapability> {
    let head = reader.u16()?;
    let mut families = Vec::new();
    while !reader.is_empty() {
        let family = AfiSafi { afi: reader.u16()?, safi: reader.u8()? };
        families.push((family, reader.u8()? & GracefulRestartCapability::FORWARDING != 0));
    }
    Some(GracefulRestartCapability {
        restarting: head & GracefulRestartCapability::RESTARTING != 0,
        notification: head & GracefulRestartCapability::NOTIFICATION != 0,
        restart_time: head & GracefulRestartCapability::RESTART_TIME_MAX,
        families,
    })
}

fn encode_graceful_restart(restart: &GracefulRestartCapability, out: &mut BytesMut) {
    // 2 + 4 × 63 octets fit a capability.
    const FAMILIES_MAX: usize = 63;
    let mut head = restart.restart_time.min(GracefulRestartCapability::RESTART_TIME_MAX);
    if restart.restarting {
        head |= GracefulRestartCapability::RESTARTING;
    }
    if restart.notification {
        head |= GracefulRestartCapability::NOTIFICATION;
    }
    out.put_u16(head);
    for (family, forwarding) in restart.families.iter().take(FAMILIES_MAX) {
        out.put_u16(family.afi);
        out.put_u8(family.safi);
        out.put_u8(if *forwarding { GracefulRestartCapability::FORWARDING } else { 0 });
    }
}

fn decode_long_lived(reader: &mut Reader<'_>) -> Option<Vec<LongLivedFamily>> {
    let mut families = Vec::new();
    while !reader.is_empty() {
        let family = AfiSafi { afi: reader.u16()?, safi: reader.u8()? };
        let forwarding = reader.u8()? & GracefulRestartCapability::FORWARDING != 0;
        let stale_time = u32::from(reader.u8()?) << 16 | u32::from(reader.u16()?);
        families.push(LongLivedFamily { family, forwarding, stale_time });
    }
    Some(families)
}

fn encode_long_lived(families: &[LongLivedFamily], out: &mut BytesMut) {
    // 7 × 36 octets fit a capability.
    const FAMILIES_MAX: usize = 36;
    for LongLivedFamily { family, forwarding, stale_time } in families.iter().take(FAMILIES_MAX) {
        out.put_u16(family.afi);
        out.put_u8(family.safi);
        out.put_u8(if *forwarding { GracefulRestartCapability::FORWARDING } else { 0 });
        out.put_uint((*stale_time).min(LongLivedFamily::STALE_TIME_MAX).into(), 3);
    }
}

fn decode_fqdn(value: &[u8]) -> Option<Capability> {
    let mut reader = Reader::new(value);
    let mut name = || {
        let length = reader.u8()?;
        String::from_utf8(reader.take(usize::from(length))?.to_vec()).ok()
    };
    let (host, domain) = (name()?, name()?);
    reader.is_empty().then_some(Capability::Fqdn { host, domain })
}
