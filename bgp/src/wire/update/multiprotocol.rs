//! MP_REACH_NLRI and MP_UNREACH_NLRI (RFC 4760 sections 3 and 4). What is wrong in them ends the session, as the prefixes that
//! would have to be withdrawn cannot be told for sure (RFC 7606 sections 5.3 and 7.11).

use std::net::{IpAddr, Ipv6Addr};

use super::errors::attribute_error;
use crate::types::Family;
use crate::wire::attribute::{RawAttribute, RawAttributes, code, flag};
use crate::wire::capability::AfiSafi;
use crate::wire::error::{ErrorCode, Severity, WireError};
use crate::wire::header::{HEADER_LENGTH, MessageType};
use crate::wire::reader::Reader;

/// The next hop of MP_REACH_NLRI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MpNextHop {
    pub(super) global: IpAddr,
    pub(super) link_local: Option<Ipv6Addr>,
}

/// An MP_REACH_NLRI of a family of ours.
#[derive(Clone, Copy, Debug)]
pub(super) struct MpReach<'a> {
    pub(super) family: Family,
    pub(super) next_hop: MpNextHop,
    /// AFI, SAFI and next hop as received.
    pub(super) head: &'a [u8],
    pub(super) nlri: &'a [u8],
}

/// An MP_UNREACH_NLRI of a family of ours.
#[derive(Clone, Copy, Debug)]
pub(super) struct MpUnreach<'a> {
    pub(super) family: Family,
    pub(super) nlri: &'a [u8],
}

/// Reads an MP_REACH_NLRI; the family's numbers if it is none of ours. `extended_next_hop`: IPv4 prefixes may have an IPv6 next hop.
pub(super) fn decode_reach<'a>(
    raw: &RawAttribute<'a>,
    extended_next_hop: bool,
) -> Result<Result<MpReach<'a>, AfiSafi>, WireError> {
    let mut reader = Reader::new(raw.value);
    let too_short = || malformed(raw, "shorter than its fixed fields and its next hop");
    let (Some(afi), Some(safi), Some(length)) = (reader.u16(), reader.u8(), reader.u8()) else {
        return Err(too_short());
    };
    let (Some(next_hop), head_end, Some(_reserved)) =
        (reader.take(usize::from(length)), reader.rest().len(), reader.u8())
    else {
        return Err(too_short());
    };
    let numbers = AfiSafi { afi, safi };
    let Some(family) = numbers.family() else {
        return Ok(Err(numbers));
    };
    let next_hop = decode_next_hop(family, next_hop, extended_next_hop).ok_or_else(|| {
        let ipv4 = if extended_next_hop { "4, 16 or 32" } else { "4" };
        malformed(raw, format!("a next hop of {length} octets, not {ipv4} for IPv4 and 16 or 32 for IPv6"))
    })?;
    let head = raw.value.get(..raw.value.len() - head_end).unwrap_or_default();
    Ok(Ok(MpReach { family, next_hop, head, nlri: reader.rest() }))
}

/// Reads an MP_UNREACH_NLRI; the family's numbers if it is none of ours.
pub(super) fn decode_unreach<'a>(
    raw: &RawAttribute<'a>,
) -> Result<Result<MpUnreach<'a>, AfiSafi>, WireError> {
    let mut reader = Reader::new(raw.value);
    let (Some(afi), Some(safi)) = (reader.u16(), reader.u8()) else {
        return Err(malformed(raw, "shorter than its fixed fields"));
    };
    let numbers = AfiSafi { afi, safi };
    Ok(numbers.family().map(|family| MpUnreach { family, nlri: reader.rest() }).ok_or(numbers))
}

/// The family of the prefixes in an UPDATE, header included; none: the message is no UPDATE, or has prefixes of a family that is none of ours.
pub(crate) fn family_of(message: &[u8]) -> Option<Family> {
    let (header, body) = message.split_first_chunk::<HEADER_LENGTH>()?;
    if *header.last()? != MessageType::Update as u8 {
        return None;
    }
    let mut reader = Reader::new(body);
    let withdrawn = reader.u16()?;
    reader.take(withdrawn.into())?;
    let length = reader.u16()?;
    let attributes = reader.take(length.into())?;
    let mut raw = RawAttributes::new(attributes).map_while(Result::ok);
    match raw.find(|raw| matches!(raw.code, code::MP_REACH_NLRI | code::MP_UNREACH_NLRI)) {
        None => Some(Family::Ipv4Unicast),
        Some(raw) => {
            let mut reader = Reader::new(raw.value);
            Family::from_afi_safi(reader.u16()?, reader.u8()?)
        }
    }
}

/// The octets' number tells the next hop's family: four are IPv4's and go with IPv4 prefixes only.
fn decode_next_hop(family: Family, octets: &[u8], extended_next_hop: bool) -> Option<MpNextHop> {
    if let Ok(octets) = <[u8; 4]>::try_from(octets) {
        let next_hop = MpNextHop { global: octets.into(), link_local: None };
        return Some(next_hop).filter(|_| family == Family::Ipv4Unicast);
    }
    if family == Family::Ipv4Unicast && !extended_next_hop {
        return None;
    }
    let mut reader = Reader::new(octets);
    let global = Ipv6Addr::from(reader.array::<16>()?);
    let link_local = match reader.is_empty() {
        true => None,
        false => Some(Ipv6Addr::from(reader.array::<16>()?)),
    };
    // What stands in the second place and is no link-local address leads nowhere.
    let link_local = link_local.filter(Ipv6Addr::is_unicast_link_local);
    // Speakers that have no global address on the link fill its place with zeros.
    let (global, link_local) = match link_local {
        Some(link_local) if global.is_unspecified() => (link_local, None),
        _ => (global, link_local),
    };
    reader.is_empty().then(|| MpNextHop { global: global.into(), link_local })
}

/// What is wrong with the flags, if anything is. What the attribute says is read all the same (RFC 7606 section 3 c).
pub(super) fn wrong_flags(raw: &RawAttribute<'_>) -> Option<WireError> {
    let right = raw.flags & (flag::OPTIONAL | flag::TRANSITIVE) == flag::OPTIONAL;
    let text = "flags that are not optional, non-transitive";
    let error = || attribute_error(Severity::TreatAsWithdraw, ErrorCode::ATTRIBUTE_FLAGS_ERROR, raw, text);
    (!right).then(error)
}

pub(super) fn malformed(
    raw: &RawAttribute<'_>,
    text: impl Into<std::borrow::Cow<'static, str>>,
) -> WireError {
    attribute_error(Severity::SessionReset, ErrorCode::OPTIONAL_ATTRIBUTE_ERROR, raw, text)
}
