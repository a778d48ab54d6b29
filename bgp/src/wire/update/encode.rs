//! PathAttributes and prefixes → UPDATE messages.

use std::net::{IpAddr, Ipv6Addr};

use bytes::{BufMut, BytesMut};

use super::stored::Stored;
use crate::types::Family;
use crate::wire::as_path;
use crate::wire::attribute::{TooLong, code, flag, put_attribute, put_attribute_header};
use crate::wire::attributes::{Aggregator, Origin, PathAttributes};
use crate::wire::header::{HEADER_LENGTH, MessageType, put_header};
use crate::wire::nlri::Nlri;

/// Octets of a message's header and of the two length fields of UPDATE.
const FIXED: usize = HEADER_LENGTH + 4;
/// Octets of flags, code and extended length of MP_REACH_NLRI and MP_UNREACH_NLRI.
const MP_HEADER: usize = 4;
/// More octets than most attribute sets take.
const ATTRIBUTES: usize = 256;
/// AFI and SAFI.
const AFI_SAFI: usize = 3;

/// Path attributes, encoded for peers of one kind.
///
/// IPv4 prefixes with an IPv4 next hop go the way of RFC 4271; all others into MP_REACH_NLRI, which comes first in the message
/// (RFC 7606 section 5.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttributeBlock {
    family: Family,
    /// All attributes but MP_REACH_NLRI.
    attributes: BytesMut,
    /// The next hop as MP_REACH_NLRI carries it; none where NEXT_HOP does.
    mp_next_hop: Option<BytesMut>,
    /// An attribute has more octets than the wire can tell: no message can carry this set.
    too_long: bool,
}

impl AttributeBlock {
    /// Encodes `attributes` for prefixes of `family` and peers with (or without) four-octet AS numbers. What is in the set is
    /// written: LOCAL_PREF and the like have been taken out before where a peer must not see them.
    ///
    /// An IPv4 next hop of IPv6 prefixes is written as an IPv4-mapped address.
    #[must_use]
    pub fn new(attributes: &PathAttributes, family: Family, four_octet_as: bool) -> Self {
        let mp_next_hop = match (family, attributes.next_hop) {
            (Family::Ipv4Unicast, IpAddr::V4(_)) => None,
            (_, next_hop) => Some(mp_next_hop(next_hop, attributes.next_hop_link_local)),
        };
        let mut out = BytesMut::with_capacity(ATTRIBUTES);
        let too_long = put_all(attributes, mp_next_hop.is_none(), four_octet_as, &mut out).is_err();
        Self { family, attributes: out, mp_next_hop, too_long }
    }

    /// The same of attributes that are stored, which mostly are as they are sent already.
    #[must_use]
    pub fn stored(stored: &Stored, family: Family, four_octet_as: bool) -> Self {
        let too_long = || Self { family, attributes: BytesMut::new(), mp_next_hop: None, too_long: true };
        match (stored.parts(), family) {
            (Some((next_hop, octets)), _) if four_octet_as && next_hop.global.is_ipv6() => {
                let mp_next_hop = Some(mp_next_hop(next_hop.global, next_hop.link_local));
                Self { family, attributes: octets.into(), mp_next_hop, too_long: false }
            }
            (Some((_, octets)), Family::Ipv4Unicast) if four_octet_as => {
                Self { family, attributes: octets.into(), mp_next_hop: None, too_long: false }
            }
            _ => stored.attributes().map_or_else(too_long, |set| Self::new(&set, family, four_octet_as)),
        }
    }

    /// Octets of MP_REACH_NLRI, where there is one, but for its prefixes.
    fn mp_fixed(&self) -> usize {
        self.mp_next_hop.as_ref().map_or(0, |hop| MP_HEADER + AFI_SAFI + 1 + hop.len() + 1)
    }

    /// Octets of a message but for its prefixes.
    fn fixed(&self) -> usize {
        FIXED + self.mp_fixed() + self.attributes.len()
    }

    /// The family whose prefixes it is for.
    #[must_use]
    pub fn family(&self) -> Family {
        self.family
    }
}

/// Whether these attributes and one prefix fit into a message: else the prefix cannot be announced on the session.
#[must_use]
pub fn fits<N: Nlri>(block: &AttributeBlock, prefix: &N, max_message: u16) -> bool {
    let room = usize::from(max_message).checked_sub(block.fixed());
    !block.too_long && fitting(block.family, std::slice::from_ref(prefix), room).0 == 1
}

/// Appends one UPDATE that announces as many of the leading `prefixes` as fit into `max_message` octets, and returns their number.
///
/// Zero means that nothing was written: there is no prefix, the first is of another family, or it does not fit beside these
/// attributes and cannot be announced on this session.
pub fn pack<N: Nlri>(block: &AttributeBlock, prefixes: &[N], max_message: u16, out: &mut BytesMut) -> usize {
    if block.too_long {
        return 0;
    }
    let (mp_fixed, fixed) = (block.mp_fixed(), block.fixed());
    let (count, nlri_length) = fitting(block.family, prefixes, usize::from(max_message).checked_sub(fixed));
    if count == 0 {
        return 0;
    }
    put_header(MessageType::Update, fixed - HEADER_LENGTH + nlri_length, out);
    put_length(0, out);
    if let Some(next_hop) = &block.mp_next_hop {
        put_length(mp_fixed + nlri_length + block.attributes.len(), out);
        put_mp_header(code::MP_REACH_NLRI, mp_fixed - MP_HEADER + nlri_length, block.family, out);
        out.put_u8(u8::try_from(next_hop.len()).unwrap_or(u8::MAX));
        out.put_slice(next_hop);
        out.put_u8(0);
        put_prefixes(prefixes, count, out);
        out.put_slice(&block.attributes);
    } else {
        put_length(block.attributes.len(), out);
        out.put_slice(&block.attributes);
        put_prefixes(prefixes, count, out);
    }
    count
}

/// Appends one UPDATE that withdraws as many of the leading `prefixes` as fit into `max_message` octets, and returns their number: zero
/// only if there is none or the first is of another family.
pub fn pack_withdrawn<N: Nlri>(
    family: Family,
    prefixes: &[N],
    max_message: u16,
    out: &mut BytesMut,
) -> usize {
    let mp_fixed = match family {
        Family::Ipv4Unicast => 0,
        Family::Ipv6Unicast => MP_HEADER + AFI_SAFI,
    };
    let fixed = FIXED + mp_fixed;
    let (count, nlri_length) = fitting(family, prefixes, usize::from(max_message).checked_sub(fixed));
    if count == 0 {
        return 0;
    }
    put_header(MessageType::Update, fixed - HEADER_LENGTH + nlri_length, out);
    match family {
        Family::Ipv4Unicast => {
            put_length(nlri_length, out);
            put_prefixes(prefixes, count, out);
            put_length(0, out);
        }
        Family::Ipv6Unicast => {
            put_length(0, out);
            put_length(mp_fixed + nlri_length, out);
            put_mp_header(code::MP_UNREACH_NLRI, AFI_SAFI + nlri_length, family, out);
            put_prefixes(prefixes, count, out);
        }
    }
    count
}

/// Appends the End-of-RIB marker of a family (RFC 4724 section 2).
pub fn end_of_rib(family: Family, out: &mut BytesMut) {
    match family {
        Family::Ipv4Unicast => {
            put_header(MessageType::Update, FIXED - HEADER_LENGTH, out);
            put_length(0, out);
            put_length(0, out);
        }
        Family::Ipv6Unicast => {
            put_header(MessageType::Update, FIXED - HEADER_LENGTH + MP_HEADER + AFI_SAFI, out);
            put_length(0, out);
            put_length(MP_HEADER + AFI_SAFI, out);
            put_mp_header(code::MP_UNREACH_NLRI, AFI_SAFI, family, out);
        }
    }
}

/// The attributes of a route of `family` as a dumped table has them (RFC 6396 section 4.3.4): with AS numbers of four octets, and of
/// MP_REACH_NLRI the next hop alone. None: one of them has more octets than the wire can tell.
#[must_use]
pub fn table_dump_attributes(attributes: &PathAttributes, family: Family) -> Option<BytesMut> {
    let mut out = BytesMut::new();
    let ipv4 = family == Family::Ipv4Unicast && attributes.next_hop.is_ipv4();
    if !ipv4 {
        let next_hop = mp_next_hop(attributes.next_hop, attributes.next_hop_link_local);
        let mut value = BytesMut::with_capacity(1 + next_hop.len());
        value.put_u8(u8::try_from(next_hop.len()).ok()?);
        value.put_slice(&next_hop);
        put_attribute(flag::OPTIONAL, code::MP_REACH_NLRI, &value, &mut out).ok()?;
    }
    put_all(attributes, ipv4, true, &mut out).ok()?;
    Some(out)
}

/// How many leading prefixes of the family fit into `room`, and their octets.
fn fitting<N: Nlri>(family: Family, prefixes: &[N], room: Option<usize>) -> (usize, usize) {
    let room = room.unwrap_or(0);
    let (mut count, mut length) = (0, 0);
    for prefix in prefixes {
        let next = length + prefix.encoded_length();
        if next > room || Family::of(&prefix.prefix()) != family {
            break;
        }
        (count, length) = (count + 1, next);
    }
    (count, length)
}

fn put_prefixes<N: Nlri>(prefixes: &[N], count: usize, out: &mut BytesMut) {
    prefixes.iter().take(count).for_each(|prefix| prefix.encode(out));
}

/// A length field. What goes in has been measured against a message's 16-bit length before.
fn put_length(length: usize, out: &mut BytesMut) {
    out.put_u16(u16::try_from(length).unwrap_or(u16::MAX));
}

fn put_mp_header(type_code: u8, length: usize, family: Family, out: &mut BytesMut) {
    let (afi, safi) = family.afi_safi();
    out.put_u8(flag::OPTIONAL | flag::EXTENDED_LENGTH);
    out.put_u8(type_code);
    put_length(length, out);
    out.put_u16(afi);
    out.put_u8(safi);
}

fn mp_next_hop(global: IpAddr, link_local: Option<Ipv6Addr>) -> BytesMut {
    let mut out = BytesMut::with_capacity(32);
    out.put_slice(&match global {
        IpAddr::V6(address) => address.octets(),
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
    });
    if let Some(address) = link_local {
        out.put_slice(&address.octets());
    }
    out
}

/// Every attribute but MP_REACH_NLRI: those we know by type, then the others.
pub(super) fn put_all(
    attributes: &PathAttributes,
    with_next_hop: bool,
    four_octet_as: bool,
    out: &mut BytesMut,
) -> Result<(), TooLong> {
    const WELL_KNOWN: u8 = flag::TRANSITIVE;
    const OPTIONAL: u8 = flag::OPTIONAL;
    const OPTIONAL_TRANSITIVE: u8 = flag::OPTIONAL | flag::TRANSITIVE;

    let known = |type_code| OPTIONAL_TRANSITIVE | attributes.partial.flag(type_code);
    put_attribute(WELL_KNOWN, code::ORIGIN, &[origin_code(attributes.origin)], out)?;
    let path_length = as_path::encoded_length(&attributes.as_path, four_octet_as);
    put_attribute_header(WELL_KNOWN, code::AS_PATH, path_length, out)?;
    as_path::encode(&attributes.as_path, four_octet_as, out);
    if let (true, IpAddr::V4(next_hop)) = (with_next_hop, attributes.next_hop) {
        put_attribute(WELL_KNOWN, code::NEXT_HOP, &next_hop.octets(), out)?;
    }
    if let Some(med) = attributes.med {
        put_attribute(OPTIONAL, code::MULTI_EXIT_DISC, &med.to_be_bytes(), out)?;
    }
    if let Some(preference) = attributes.local_pref {
        put_attribute(WELL_KNOWN, code::LOCAL_PREF, &preference.to_be_bytes(), out)?;
    }
    if attributes.atomic_aggregate {
        put_attribute(WELL_KNOWN, code::ATOMIC_AGGREGATE, &[], out)?;
    }
    if let Some(aggregator) = attributes.aggregator {
        put_attribute(
            known(code::AGGREGATOR),
            code::AGGREGATOR,
            &aggregator_value(aggregator, four_octet_as),
            out,
        )?;
    }
    put_list(
        known(code::COMMUNITIES),
        code::COMMUNITIES,
        attributes.communities.iter().map(|c| c.to_be_bytes()),
        out,
    )?;
    if let Some(id) = attributes.originator_id {
        put_attribute(OPTIONAL, code::ORIGINATOR_ID, &id.octets(), out)?;
    }
    put_list(OPTIONAL, code::CLUSTER_LIST, attributes.cluster_list.iter().map(|id| id.octets()), out)?;
    let extended = attributes.ext_communities.iter().copied();
    put_list(known(code::EXTENDED_COMMUNITIES), code::EXTENDED_COMMUNITIES, extended, out)?;
    if !four_octet_as {
        put_as4(attributes, out)?;
    }
    let large = attributes.large_communities.as_flattened().iter().map(|n| n.to_be_bytes());
    put_list(known(code::LARGE_COMMUNITY), code::LARGE_COMMUNITY, large, out)?;
    if let Some(asn) = attributes.only_to_customer {
        put_attribute(known(code::ONLY_TO_CUSTOMER), code::ONLY_TO_CUSTOMER, &asn.0.to_be_bytes(), out)?;
    }
    for unknown in &attributes.unknown {
        let flags = unknown.flags & (OPTIONAL_TRANSITIVE | flag::PARTIAL);
        put_attribute(flags, unknown.code, &unknown.value, out)?;
    }
    Ok(())
}

/// What a two-octet peer cannot read but shall pass on (RFC 6793 section 4.2.2).
fn put_as4(attributes: &PathAttributes, out: &mut BytesMut) -> Result<(), TooLong> {
    const OPTIONAL_TRANSITIVE: u8 = flag::OPTIONAL | flag::TRANSITIVE;
    if let Some(path) = as_path::encode_as4(&attributes.as_path) {
        put_attribute(OPTIONAL_TRANSITIVE, code::AS4_PATH, &path, out)?;
    }
    match attributes.aggregator {
        Some(aggregator) if u16::try_from(aggregator.asn.0).is_err() => {
            put_attribute(OPTIONAL_TRANSITIVE, code::AS4_AGGREGATOR, &aggregator_value(aggregator, true), out)
        }
        _ => Ok(()),
    }
}

/// An attribute whose value is a list; an empty one is left out.
fn put_list<const N: usize>(
    flags: u8,
    type_code: u8,
    items: impl ExactSizeIterator<Item = [u8; N]>,
    out: &mut BytesMut,
) -> Result<(), TooLong> {
    if items.len() > 0 {
        put_attribute_header(flags, type_code, items.len() * N, out)?;
        items.for_each(|item| out.put_slice(&item));
    }
    Ok(())
}

fn aggregator_value(aggregator: Aggregator, four_octet_as: bool) -> BytesMut {
    let mut out = BytesMut::with_capacity(8);
    if four_octet_as {
        out.put_u32(aggregator.asn.0);
    } else {
        out.put_u16(aggregator.asn.two_octets());
    }
    out.put_slice(&aggregator.address.octets());
    out
}

fn origin_code(origin: Origin) -> u8 {
    match origin {
        Origin::Igp => 0,
        Origin::Egp => 1,
        Origin::Incomplete => 2,
    }
}
