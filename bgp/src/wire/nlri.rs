//! Prefixes on the wire: a length in bits and as many octets as those bits need (RFC 4271 section 4.3, RFC 4760 section 5).

use std::net::{Ipv4Addr, Ipv6Addr};

use bytes::{BufMut, BytesMut};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::reader::Reader;
use crate::types::Family;

/// Why a field of prefixes cannot be parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NlriError {
    /// More bits than an address of the family has.
    #[error("a prefix of {length} bits, not 0 to {max}")]
    Length {
        /// The length found.
        length: u8,
        /// The longest that would do.
        max: u8,
    },
    /// The last prefix needs more octets than are left.
    #[error("a prefix of {length} bits, but only {left} octets are left")]
    Truncated {
        /// The length found.
        length: u8,
        /// The octets left.
        left: usize,
    },
}

/// Appends the prefixes of a field to `out`. Bits behind the prefix are of no significance (RFC 4271 section 4.3) and cleared.
///
/// # Errors
/// See [`NlriError`]; the prefixes before the wrong one have then been appended.
pub fn decode_prefixes(family: Family, field: &[u8], out: &mut Vec<IpNet>) -> Result<(), NlriError> {
    let mut reader = Reader::new(field);
    while let Some(length) = reader.u8() {
        let prefix = match family {
            Family::Ipv4Unicast => decode_v4(length, &mut reader)?,
            Family::Ipv6Unicast => decode_v6(length, &mut reader)?,
        };
        out.push(prefix);
    }
    Ok(())
}

fn decode_v4(length: u8, reader: &mut Reader<'_>) -> Result<IpNet, NlriError> {
    let address = Ipv4Addr::from(address_octets::<4>(length, reader)?);
    let net = Ipv4Net::new(address, length).map_err(|_| NlriError::Length { length, max: 32 })?;
    Ok(net.trunc().into())
}

fn decode_v6(length: u8, reader: &mut Reader<'_>) -> Result<IpNet, NlriError> {
    let address = Ipv6Addr::from(address_octets::<16>(length, reader)?);
    let net = Ipv6Net::new(address, length).map_err(|_| NlriError::Length { length, max: 128 })?;
    Ok(net.trunc().into())
}

/// The octets of a prefix of `length` bits, filled up with zeros.
fn address_octets<const N: usize>(length: u8, reader: &mut Reader<'_>) -> Result<[u8; N], NlriError> {
    let octets = usize::from(length).div_ceil(8);
    let mut address = [0; N];
    let Some(room) = address.get_mut(..octets) else {
        return Err(NlriError::Length { length, max: u8::try_from(N * 8).unwrap_or(u8::MAX) });
    };
    let left = reader.rest().len();
    room.copy_from_slice(reader.take(octets).ok_or(NlriError::Truncated { length, left })?);
    Ok(address)
}

/// How many octets a prefix takes.
#[must_use]
pub fn encoded_length(prefix: &IpNet) -> usize {
    1 + usize::from(prefix.prefix_len()).div_ceil(8)
}

/// Appends a prefix.
pub fn encode_prefix(prefix: &IpNet, out: &mut BytesMut) {
    let length = prefix.prefix_len();
    let octets = usize::from(length).div_ceil(8);
    out.put_u8(length);
    match prefix {
        IpNet::V4(net) => out.extend(net.network().octets().iter().take(octets)),
        IpNet::V6(net) => out.extend(net.network().octets().iter().take(octets)),
    }
}
