//! One path attribute on the wire: flags, type code, length, value (RFC 4271 section 4.3).

use bytes::{BufMut, BytesMut};

use super::reader::Reader;

/// The flag octet's bits.
pub(super) mod flag {
    pub(in crate::wire) const OPTIONAL: u8 = 0x80;
    pub(in crate::wire) const TRANSITIVE: u8 = 0x40;
    pub(in crate::wire) const PARTIAL: u8 = 0x20;
    pub(in crate::wire) const EXTENDED_LENGTH: u8 = 0x10;
}

/// The type codes that this speaker knows (IANA "BGP Path Attributes").
pub(super) mod code {
    pub(in crate::wire) const ORIGIN: u8 = 1;
    pub(in crate::wire) const AS_PATH: u8 = 2;
    pub(in crate::wire) const NEXT_HOP: u8 = 3;
    pub(in crate::wire) const MULTI_EXIT_DISC: u8 = 4;
    pub(in crate::wire) const LOCAL_PREF: u8 = 5;
    pub(in crate::wire) const ATOMIC_AGGREGATE: u8 = 6;
    pub(in crate::wire) const AGGREGATOR: u8 = 7;
    pub(in crate::wire) const COMMUNITIES: u8 = 8;
    pub(in crate::wire) const ORIGINATOR_ID: u8 = 9;
    pub(in crate::wire) const CLUSTER_LIST: u8 = 10;
    pub(in crate::wire) const MP_REACH_NLRI: u8 = 14;
    pub(in crate::wire) const MP_UNREACH_NLRI: u8 = 15;
    pub(in crate::wire) const EXTENDED_COMMUNITIES: u8 = 16;
    pub(in crate::wire) const AS4_PATH: u8 = 17;
    pub(in crate::wire) const AS4_AGGREGATOR: u8 = 18;
    pub(in crate::wire) const IPV6_EXTENDED_COMMUNITIES: u8 = 25;
    pub(in crate::wire) const LARGE_COMMUNITY: u8 = 32;
    pub(in crate::wire) const ONLY_TO_CUSTOMER: u8 = 35;
}

/// The optional and transitive bits that the specification of a known attribute demands.
pub(super) fn specified_flags(type_code: u8) -> Option<u8> {
    match type_code {
        code::ORIGIN | code::AS_PATH | code::NEXT_HOP | code::LOCAL_PREF | code::ATOMIC_AGGREGATE => {
            Some(flag::TRANSITIVE)
        }
        code::MULTI_EXIT_DISC
        | code::ORIGINATOR_ID
        | code::CLUSTER_LIST
        | code::MP_REACH_NLRI
        | code::MP_UNREACH_NLRI => Some(flag::OPTIONAL),
        code::AGGREGATOR
        | code::COMMUNITIES
        | code::EXTENDED_COMMUNITIES
        | code::AS4_PATH
        | code::AS4_AGGREGATOR
        | code::IPV6_EXTENDED_COMMUNITIES
        | code::LARGE_COMMUNITY
        | code::ONLY_TO_CUSTOMER => Some(flag::OPTIONAL | flag::TRANSITIVE),
        _ => None,
    }
}

/// The registry's name of a type code, for messages to people.
pub(super) fn name(type_code: u8) -> String {
    let known = match type_code {
        code::ORIGIN => "ORIGIN",
        code::AS_PATH => "AS_PATH",
        code::NEXT_HOP => "NEXT_HOP",
        code::MULTI_EXIT_DISC => "MULTI_EXIT_DISC",
        code::LOCAL_PREF => "LOCAL_PREF",
        code::ATOMIC_AGGREGATE => "ATOMIC_AGGREGATE",
        code::AGGREGATOR => "AGGREGATOR",
        code::COMMUNITIES => "COMMUNITIES",
        code::ORIGINATOR_ID => "ORIGINATOR_ID",
        code::CLUSTER_LIST => "CLUSTER_LIST",
        code::MP_REACH_NLRI => "MP_REACH_NLRI",
        code::MP_UNREACH_NLRI => "MP_UNREACH_NLRI",
        code::EXTENDED_COMMUNITIES => "EXTENDED COMMUNITIES",
        code::AS4_PATH => "AS4_PATH",
        code::AS4_AGGREGATOR => "AS4_AGGREGATOR",
        code::IPV6_EXTENDED_COMMUNITIES => "IPv6 EXTENDED COMMUNITIES",
        code::LARGE_COMMUNITY => "LARGE_COMMUNITY",
        code::ONLY_TO_CUSTOMER => "ONLY_TO_CUSTOMER",
        other => return format!("attribute {other}"),
    };
    known.to_owned()
}

/// An attribute as it was received.
#[derive(Clone, Copy, Debug)]
pub(super) struct RawAttribute<'a> {
    pub(super) flags: u8,
    pub(super) code: u8,
    pub(super) value: &'a [u8],
    /// Flags, code, length and value: what NOTIFICATION's data carries.
    pub(super) whole: &'a [u8],
}

/// The field ends inside an attribute (RFC 7606 section 4).
#[derive(Clone, Copy, Debug)]
pub(super) struct Overrun<'a> {
    /// From the attribute's first octet to the end of the field.
    pub(super) rest: &'a [u8],
}

/// The attributes of a path attributes field, in order. After an overrun there is nothing more.
pub(super) struct RawAttributes<'a>(Reader<'a>);

impl<'a> RawAttributes<'a> {
    pub(super) fn new(field: &'a [u8]) -> Self {
        Self(Reader::new(field))
    }

    fn parse(&mut self) -> Option<RawAttribute<'a>> {
        let start = self.0.rest();
        let flags = self.0.u8()?;
        let code = self.0.u8()?;
        let length = if flags & flag::EXTENDED_LENGTH == 0 {
            usize::from(self.0.u8()?)
        } else {
            usize::from(self.0.u16()?)
        };
        let value = self.0.take(length)?;
        let whole = start.get(..start.len() - self.0.rest().len())?;
        Some(RawAttribute { flags, code, value, whole })
    }
}

impl<'a> Iterator for RawAttributes<'a> {
    type Item = Result<RawAttribute<'a>, Overrun<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let rest = self.0.rest();
        let parsed = self.parse();
        if parsed.is_none() {
            self.0 = Reader::new(&[]);
        }
        Some(parsed.ok_or(Overrun { rest }))
    }
}

/// The value is longer than any attribute can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLong;

/// Appends an attribute, with an extended length only where it is needed.
pub(super) fn put_attribute(flags: u8, code: u8, value: &[u8], out: &mut BytesMut) -> Result<(), TooLong> {
    put_attribute_header(flags, code, value.len(), out)?;
    out.put_slice(value);
    Ok(())
}

/// Appends what stands before a value of `length` octets.
pub(super) fn put_attribute_header(
    flags: u8,
    code: u8,
    length: usize,
    out: &mut BytesMut,
) -> Result<(), TooLong> {
    if let Ok(length) = u8::try_from(length) {
        out.put_slice(&[flags & !flag::EXTENDED_LENGTH, code, length]);
    } else {
        let length = u16::try_from(length).map_err(|_| TooLong)?;
        out.put_slice(&[flags | flag::EXTENDED_LENGTH, code]);
        out.put_u16(length);
    }
    Ok(())
}
