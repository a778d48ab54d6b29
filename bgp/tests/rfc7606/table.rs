//! The shape of the table, and the bytes that its cases are made of.

use weft_bgp::wire::attributes::PathAttributes;

use crate::transport_support::{UPDATE, message};

/// What the peer is and what it has agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// eBGP, four-octet AS numbers, both families.
    External,
    /// iBGP, four-octet AS numbers, both families.
    Internal,
    /// eBGP, two-octet AS numbers.
    ExternalOld,
    /// iBGP, two-octet AS numbers.
    InternalOld,
    /// eBGP with extended messages (RFC 8654).
    Extended,
    /// eBGP with IPv4 alone.
    Ipv4Only,
}

impl Kind {
    pub(crate) const ALL: [Self; 6] = [
        Self::External,
        Self::Internal,
        Self::ExternalOld,
        Self::InternalOld,
        Self::Extended,
        Self::Ipv4Only,
    ];
    /// The two that nearly every case is for.
    pub(crate) const BOTH: [Self; 2] = [Self::External, Self::Internal];

    pub(crate) fn is_internal(self) -> bool {
        matches!(self, Self::Internal | Self::InternalOld)
    }

    pub(crate) fn is_old(self) -> bool {
        matches!(self, Self::ExternalOld | Self::InternalOld)
    }

    /// The peer's AS.
    pub(crate) fn asn(self) -> u16 {
        if self.is_internal() { OWN_AS } else { 65002 }
    }

    /// AS numbers as they stand in this session's AS_PATH.
    pub(crate) fn asns(self, asns: &[u16]) -> Vec<u8> {
        let wide = |asn: &u16| {
            if self.is_old() { asn.to_be_bytes().to_vec() } else { u32::from(*asn).to_be_bytes().to_vec() }
        };
        asns.iter().flat_map(wide).collect()
    }

    /// A segment of an AS_PATH.
    pub(crate) fn segment(self, kind: u8, asns: &[u16]) -> Vec<u8> {
        [&[kind, u8::try_from(asns.len()).unwrap()][..], &self.asns(asns)].concat()
    }

    /// The AS_PATH of a route that has come from beyond the peer.
    pub(crate) fn path(self) -> Vec<u8> {
        match self.is_internal() {
            true => self.segment(2, &[65010]),
            false => self.segment(2, &[self.asn(), 65010]),
        }
    }

    /// A good set without a next hop: it has [`NEW`], and LOCAL_PREF where it belongs.
    pub(crate) fn without_next_hop(self) -> Vec<Vec<u8>> {
        let mut set = vec![attribute(0x40, 1, &[0]), attribute(0x40, 2, &self.path())];
        if self.is_internal() {
            set.push(attribute(0x40, 5, &100_u32.to_be_bytes()));
        }
        set.push(attribute(0xc0, 8, &NEW.to_be_bytes()));
        set
    }

    /// A good set for IPv4 prefixes.
    pub(crate) fn good(self) -> Vec<Vec<u8>> {
        let mut set = self.without_next_hop();
        set.insert(2, attribute(0x40, 3, &NEXT_HOP));
        set
    }

    /// A good set with this attribute in place of that of its type, or in addition.
    pub(crate) fn with(self, attribute: Vec<u8>) -> Vec<Vec<u8>> {
        let mut set = self.without(attribute[1]);
        set.push(attribute);
        set
    }

    /// A good set without the attribute of this type.
    pub(crate) fn without(self, code: u8) -> Vec<Vec<u8>> {
        let mut set = self.good();
        set.retain(|other| other[1] != code);
        set
    }
}

/// The AS of the speaker under test.
pub(crate) const OWN_AS: u16 = 65001;
/// Its router id, and thereby its cluster id.
pub(crate) const OWN_ID: [u8; 4] = [10, 0, 0, 1];
/// 198.51.100.0/24, on the wire.
pub(crate) const V4: [u8; 4] = [24, 198, 51, 100];
/// 2001:db8:100::/48, on the wire.
pub(crate) const V6: [u8; 7] = [48, 0x20, 0x01, 0x0d, 0xb8, 0x01, 0x00];
pub(crate) const NEXT_HOP: [u8; 4] = [192, 0, 2, 9];
/// 2001:db8::9
pub(crate) const NEXT_HOP_V6: [u8; 16] = [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
/// 65000:1, the community of what is announced before a case.
pub(crate) const OLD: u32 = 65000 << 16 | 1;
/// 65000:2, that of a case.
pub(crate) const NEW: u32 = 65000 << 16 | 2;

/// What becomes of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expect {
    /// The routes are replaced, and nothing is complained of.
    Accepted,
    /// The routes are replaced, without an attribute.
    Discard,
    /// The routes are gone, and the session complains.
    TreatAsWithdraw,
    /// The routes are gone, as they should be.
    Withdrawn,
    /// The same, and an attribute is discarded.
    WithdrawnDiscard,
    /// The routes are replaced by ones that are not used, with this reason.
    Rejected(&'static str),
    /// The routes stay as they were; something may have been discarded.
    Kept,
    /// NOTIFICATION with this code and subcode; the session begins anew.
    Reset(u8, u8),
}

/// The families that a case is about; a route of another stays, unless the session is reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Routes {
    V4,
    V6,
    Both,
}

/// What must be true of a route's attributes.
pub(crate) type Check = fn(&PathAttributes) -> bool;

#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    /// Who says so.
    pub(crate) rfc: &'static str,
    pub(crate) on: Kind,
    /// Header and all.
    pub(crate) message: Vec<u8>,
    pub(crate) routes: Routes,
    pub(crate) expect: Expect,
    /// What else must be true of what replaces a route.
    pub(crate) check: Option<Check>,
}

#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(crate) cases: Vec<Case>,
}

impl Table {
    /// A case of IPv4 routes.
    pub(crate) fn v4(
        &mut self,
        on: Kind,
        name: &str,
        rfc: &'static str,
        set: &[Vec<u8>],
        expect: Expect,
    ) -> &mut Case {
        self.message(on, name, rfc, Routes::V4, update(&[], set, &V4), expect)
    }

    /// A case of IPv6 routes: the set has its own MP_REACH_NLRI.
    pub(crate) fn v6(
        &mut self,
        on: Kind,
        name: &str,
        rfc: &'static str,
        set: &[Vec<u8>],
        expect: Expect,
    ) -> &mut Case {
        self.message(on, name, rfc, Routes::V6, update(&[], set, &[]), expect)
    }

    /// Any case.
    pub(crate) fn message(
        &mut self,
        on: Kind,
        name: &str,
        rfc: &'static str,
        routes: Routes,
        message: Vec<u8>,
        expect: Expect,
    ) -> &mut Case {
        self.cases.push(Case { name: name.to_owned(), rfc, on, message, routes, expect, check: None });
        self.cases.last_mut().unwrap()
    }
}

/// An attribute with these flags; its length in one octet if that is enough and the flags do not ask for two.
pub(crate) fn attribute(flags: u8, code: u8, value: &[u8]) -> Vec<u8> {
    match u8::try_from(value.len()) {
        Ok(length) if flags & 0x10 == 0 => [&[flags, code, length], value].concat(),
        _ => {
            let length = u16::try_from(value.len()).unwrap().to_be_bytes();
            [&[flags | 0x10, code][..], &length, value].concat()
        }
    }
}

/// MP_REACH_NLRI.
pub(crate) fn reach(afi: u16, safi: u8, next_hop: &[u8], nlri: &[u8]) -> Vec<u8> {
    let length = u8::try_from(next_hop.len()).unwrap();
    attribute(0x80, 14, &[&afi.to_be_bytes()[..], &[safi, length], next_hop, &[0], nlri].concat())
}

/// MP_UNREACH_NLRI.
pub(crate) fn unreach(afi: u16, safi: u8, nlri: &[u8]) -> Vec<u8> {
    attribute(0x80, 15, &[&afi.to_be_bytes()[..], &[safi], nlri].concat())
}

/// An UPDATE.
pub(crate) fn update(withdrawn: &[u8], attributes: &[Vec<u8>], nlri: &[u8]) -> Vec<u8> {
    let attributes = attributes.concat();
    let length = |bytes: &[u8]| u16::try_from(bytes.len()).unwrap().to_be_bytes();
    let body = [&length(withdrawn)[..], withdrawn, &length(&attributes)[..], &attributes, nlri];
    message(UPDATE, &body.concat())
}
