//! The bytes of an attribute set → [`PathAttributes`], with the error handling of RFC 7606 section 7.

use std::net::{IpAddr, Ipv4Addr};

use bytes::Bytes;

use super::decode::Agreed;
use super::errors::{Errors, attribute_error};
use super::multiprotocol::MpNextHop;
use crate::types::{Asn, PeerType};
use crate::wire::as_path;
use crate::wire::attribute::{RawAttribute, RawAttributes, code, flag, name, specified_flags};
use crate::wire::attributes::{Aggregator, AsPath, Origin, PathAttributes, UnknownAttribute};
use crate::wire::error::{ErrorCode, Severity, WireError};
use crate::wire::reader::Reader;

/// What the attributes are for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose {
    /// The IPv4 prefixes of the NLRI field.
    Nlri,
    /// The prefixes of an MP_REACH_NLRI with this next hop.
    MpReach(MpNextHop),
    /// None: they are our own copy, with this next hop, which may be no host's.
    Copy(MpNextHop),
    /// No prefix is announced: they are only looked at for errors.
    Nothing,
}

/// Decodes a field of attributes without MP_REACH_NLRI and MP_UNREACH_NLRI. `None`: an error is worse than a discarded attribute, or
/// nothing is announced.
pub(super) fn decode(
    field: &[u8],
    purpose: Purpose,
    agreed: &Agreed,
    errors: &mut Errors,
) -> Option<PathAttributes> {
    let mut set = AttributeSet::new(agreed);
    for raw in RawAttributes::new(field) {
        let result = match raw {
            Ok(raw) => set.attribute(&raw),
            Err(overrun) => Err(WireError {
                code: ErrorCode::MALFORMED_ATTRIBUTE_LIST,
                data: Bytes::copy_from_slice(overrun.rest),
                severity: Severity::TreatAsWithdraw,
                text: "the last attribute is longer than the attributes' total length".into(),
            }),
        };
        if let Err(error) = result {
            set.failed |= error.severity > Severity::Discard;
            errors.push(error);
        }
    }
    set.finish(purpose, errors)
}

/// What has been found so far.
struct AttributeSet<'a> {
    agreed: &'a Agreed,
    /// A bit per type code.
    seen: [u128; 2],
    /// An attribute that cannot be done without was malformed.
    failed: bool,
    origin: Option<Origin>,
    as_path: Option<AsPath>,
    next_hop: Option<Ipv4Addr>,
    as4_path: Option<AsPath>,
    as4_aggregator: Option<Aggregator>,
    /// The attributes that may be missing; the others are filled in at the end.
    found: PathAttributes,
}

impl<'a> AttributeSet<'a> {
    fn new(agreed: &'a Agreed) -> Self {
        Self {
            agreed,
            seen: [0; 2],
            failed: false,
            origin: None,
            as_path: None,
            next_hop: None,
            as4_path: None,
            as4_aggregator: None,
            found: PathAttributes::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        }
    }

    /// Whether the type has occurred before; from now on it has.
    fn seen_before(&mut self, type_code: u8) -> bool {
        let [low, high] = &mut self.seen;
        let half = if type_code < 128 { low } else { high };
        let bit = 1 << (type_code % 128);
        let before = *half & bit != 0;
        *half |= bit;
        before
    }

    /// Takes in one attribute.
    fn attribute(&mut self, raw: &RawAttribute<'_>) -> Result<(), WireError> {
        if self.seen_before(raw.code) {
            return Err(discard(
                ErrorCode::MALFORMED_ATTRIBUTE_LIST,
                raw,
                "occurs again; the first one counts",
            ));
        }
        let flags = raw.flags & (flag::OPTIONAL | flag::TRANSITIVE);
        match specified_flags(raw.code) {
            None => return self.unknown(raw),
            Some(specified) if specified != flags => {
                let text = format!("optional and transitive bits {flags:#04x}, not {specified:#04x}");
                return Err(withdraw(ErrorCode::ATTRIBUTE_FLAGS_ERROR, raw, text));
            }
            Some(_) => {}
        }
        match raw.code {
            code::ORIGIN => self.origin = Some(origin(raw)?),
            code::AS_PATH => self.as_path = Some(self.path(raw)?),
            code::NEXT_HOP => self.next_hop = Some(fixed::<4>(raw)?.into()),
            code::MULTI_EXIT_DISC => self.found.med = Some(u32::from_be_bytes(fixed(raw)?)),
            code::ATOMIC_AGGREGATE => self.found.atomic_aggregate = self.atomic_aggregate(raw)?,
            code::AGGREGATOR => self.found.aggregator = Some(aggregator(raw, self.agreed.four_octet_as)?),
            code::COMMUNITIES => self.found.communities = set(items(raw)?.map(u32::from_be_bytes)),
            code::EXTENDED_COMMUNITIES => self.found.ext_communities = set(items(raw)?),
            code::LARGE_COMMUNITY => self.found.large_communities = set(items(raw)?.map(large_community)),
            code::ONLY_TO_CUSTOMER => {
                self.found.only_to_customer = Some(Asn(u32::from_be_bytes(fixed(raw)?)));
            }
            code::IPV6_EXTENDED_COMMUNITIES => {
                let _communities = items::<20>(raw)?;
                self.pass_on(raw);
            }
            code::LOCAL_PREF | code::ORIGINATOR_ID | code::CLUSTER_LIST => self.internal(raw)?,
            _ => self.as4(raw)?,
        }
        if raw.flags & flag::PARTIAL != 0 {
            self.found.partial.insert(raw.code);
        }
        Ok(())
    }

    fn unknown(&mut self, raw: &RawAttribute<'_>) -> Result<(), WireError> {
        if raw.flags & flag::OPTIONAL == 0 {
            let text = "is said to be well-known, but is not known here";
            let code = ErrorCode::UNRECOGNIZED_WELL_KNOWN_ATTRIBUTE;
            return Err(attribute_error(Severity::SessionReset, code, raw, text));
        }
        if raw.flags & flag::TRANSITIVE != 0 {
            self.pass_on(raw);
        }
        Ok(())
    }

    fn pass_on(&mut self, raw: &RawAttribute<'_>) {
        self.found.unknown.push(UnknownAttribute {
            flags: raw.flags & !flag::EXTENDED_LENGTH,
            code: raw.code,
            value: raw.value.into(),
        });
    }

    fn path(&self, raw: &RawAttribute<'_>) -> Result<AsPath, WireError> {
        let malformed = |text: &'static str| withdraw(ErrorCode::MALFORMED_AS_PATH, raw, text);
        let path = as_path::decode(raw.value, self.agreed.four_octet_as).map_err(malformed)?;
        let confederation = path.0.iter().any(|segment| segment.kind.is_confederation());
        if confederation && self.agreed.peer_type == PeerType::External {
            return Err(malformed("a confederation segment from outside (RFC 5065 section 5)"));
        }
        Ok(path)
    }

    fn atomic_aggregate(&self, raw: &RawAttribute<'_>) -> Result<bool, WireError> {
        if raw.value.is_empty() {
            return Ok(true);
        }
        let text = format!("{} octets, not 0", raw.value.len());
        Err(discard(ErrorCode::ATTRIBUTE_LENGTH_ERROR, raw, text))
    }

    /// Attributes that only an internal peer may send (RFC 7606 sections 7.5, 7.9 and 7.10).
    fn internal(&mut self, raw: &RawAttribute<'_>) -> Result<(), WireError> {
        if self.agreed.peer_type == PeerType::External {
            return Err(discard(ErrorCode::OPTIONAL_ATTRIBUTE_ERROR, raw, "comes from an external peer"));
        }
        match raw.code {
            code::LOCAL_PREF => self.found.local_pref = Some(u32::from_be_bytes(fixed(raw)?)),
            code::ORIGINATOR_ID => self.found.originator_id = Some(fixed::<4>(raw)?.into()),
            _ => self.found.cluster_list = items::<4>(raw)?.map(Ipv4Addr::from).collect(),
        }
        Ok(())
    }

    /// AS4_PATH and AS4_AGGREGATOR. A peer with four-octet numbers has no use for them (RFC 6793 section 3); malformed ones
    /// are discarded (section 6).
    fn as4(&mut self, raw: &RawAttribute<'_>) -> Result<(), WireError> {
        if self.agreed.four_octet_as {
            let text = "comes from a peer with four-octet AS numbers";
            return Err(discard(ErrorCode::OPTIONAL_ATTRIBUTE_ERROR, raw, text));
        }
        if raw.code == code::AS4_AGGREGATOR {
            self.as4_aggregator = Some(aggregator(raw, true)?);
        } else {
            let malformed = |text: &'static str| discard(ErrorCode::OPTIONAL_ATTRIBUTE_ERROR, raw, text);
            if raw.value.is_empty() {
                return Err(malformed("empty"));
            }
            self.as4_path = Some(as_path::decode(raw.value, true).map_err(malformed)?);
        }
        Ok(())
    }

    fn finish(mut self, purpose: Purpose, errors: &mut Errors) -> Option<PathAttributes> {
        let next_hop = match purpose {
            Purpose::Nothing => return None,
            Purpose::Nlri => self.next_hop.map(IpAddr::V4),
            Purpose::MpReach(next_hop) | Purpose::Copy(next_hop) => {
                self.found.next_hop_link_local = next_hop.link_local;
                Some(next_hop.global)
            }
        };
        // What is there but malformed has been complained of already.
        if self.failed {
            return None;
        }
        let (Some(origin), Some(as_path), Some(next_hop)) = (self.origin, self.as_path.take(), next_hop)
        else {
            for mandatory in [code::ORIGIN, code::AS_PATH, code::NEXT_HOP] {
                let given = mandatory == code::NEXT_HOP && next_hop.is_some();
                if !given && !self.seen_before(mandatory) {
                    errors.push(missing(mandatory));
                }
            }
            return None;
        };
        if !matches!(purpose, Purpose::Copy(_)) && !is_host(next_hop) {
            errors.push(WireError {
                code: ErrorCode::INVALID_NEXT_HOP_ATTRIBUTE,
                data: Bytes::new(),
                severity: Severity::TreatAsWithdraw,
                text: format!("next hop {next_hop} is not the address of a host").into(),
            });
            return None;
        }
        self.found.origin = origin;
        self.found.next_hop = next_hop;
        self.found.as_path = self.merge_as4(as_path);
        self.found.unknown.sort_by_key(|unknown| unknown.code);
        Some(self.found)
    }

    /// RFC 6793 section 4.2.3. An AGGREGATOR that a two-octet speaker has written after the AS4 attributes shows that these
    /// tell of an older aggregate.
    fn merge_as4(&mut self, as_path: AsPath) -> AsPath {
        if let (Some(aggregator), Some(as4)) = (self.found.aggregator, self.as4_aggregator) {
            if aggregator.asn != Asn::TRANS {
                return as_path;
            }
            self.found.aggregator = Some(as4);
        }
        match self.as4_path.take() {
            Some(as4) => as_path::merge(as_path, as4),
            None => as_path,
        }
    }
}

/// Whether a packet can be sent to the address. Loopback addresses are hosts too: speakers of one host may talk over them.
fn is_host(address: IpAddr) -> bool {
    match address {
        // 240.0.0.0/4 holds the reserved addresses and the broadcast address.
        IpAddr::V4(v4) => !v4.is_unspecified() && !v4.is_multicast() && v4 < Ipv4Addr::new(240, 0, 0, 0),
        IpAddr::V6(v6) => !v6.is_unspecified() && !v6.is_multicast(),
    }
}

fn missing(type_code: u8) -> WireError {
    WireError {
        code: ErrorCode::MISSING_WELL_KNOWN_ATTRIBUTE,
        data: Bytes::copy_from_slice(&[type_code]),
        severity: Severity::TreatAsWithdraw,
        text: format!("{} is missing", name(type_code)).into(),
    }
}

fn withdraw(
    code: ErrorCode,
    raw: &RawAttribute<'_>,
    text: impl Into<std::borrow::Cow<'static, str>>,
) -> WireError {
    attribute_error(Severity::TreatAsWithdraw, code, raw, text)
}

fn discard(
    code: ErrorCode,
    raw: &RawAttribute<'_>,
    text: impl Into<std::borrow::Cow<'static, str>>,
) -> WireError {
    attribute_error(Severity::Discard, code, raw, text)
}

fn origin(raw: &RawAttribute<'_>) -> Result<Origin, WireError> {
    match fixed(raw)? {
        [0] => Ok(Origin::Igp),
        [1] => Ok(Origin::Egp),
        [2] => Ok(Origin::Incomplete),
        [other] => {
            Err(withdraw(ErrorCode::INVALID_ORIGIN_ATTRIBUTE, raw, format!("a value of {other}, not 0 to 2")))
        }
    }
}

/// AGGREGATOR and AS4_AGGREGATOR: discarded if malformed (RFC 7606 section 7.7, RFC 6793 section 6, RFC 7607).
fn aggregator(raw: &RawAttribute<'_>, four_octet_as: bool) -> Result<Aggregator, WireError> {
    let mut reader = Reader::new(raw.value);
    let asn = if four_octet_as { reader.u32() } else { reader.u16().map(u32::from) };
    match (asn, reader.array::<4>(), reader.is_empty()) {
        (Some(0), Some(_), true) => Err(discard(ErrorCode::OPTIONAL_ATTRIBUTE_ERROR, raw, "AS 0")),
        (Some(asn), Some(address), true) => Ok(Aggregator { asn: Asn(asn), address: address.into() }),
        _ => {
            let expected = if four_octet_as { 8 } else { 6 };
            let text = format!("{} octets, not {expected}", raw.value.len());
            Err(discard(ErrorCode::ATTRIBUTE_LENGTH_ERROR, raw, text))
        }
    }
}

/// A value of `N` octets.
fn fixed<const N: usize>(raw: &RawAttribute<'_>) -> Result<[u8; N], WireError> {
    raw.value.try_into().map_err(|_| {
        withdraw(ErrorCode::ATTRIBUTE_LENGTH_ERROR, raw, format!("{} octets, not {N}", raw.value.len()))
    })
}

/// A value of items of `N` octets each, at least one.
fn items<const N: usize>(raw: &RawAttribute<'_>) -> Result<impl Iterator<Item = [u8; N]>, WireError> {
    let (items, rest) = raw.value.as_chunks::<N>();
    if items.is_empty() || !rest.is_empty() {
        let text = format!("{} octets, not a multiple of {N} above 0", raw.value.len());
        return Err(withdraw(ErrorCode::ATTRIBUTE_LENGTH_ERROR, raw, text));
    }
    Ok(items.iter().copied())
}

/// Sorted, without duplicates.
fn set<T: Ord>(items: impl Iterator<Item = T>) -> Vec<T> {
    let mut items: Vec<T> = items.collect();
    items.sort_unstable();
    items.dedup();
    items
}

fn large_community(octets: [u8; 12]) -> [u32; 3] {
    let mut numbers = [0; 3];
    for (number, octets) in numbers.iter_mut().zip(octets.as_chunks::<4>().0) {
        *number = u32::from_be_bytes(*octets);
    }
    numbers
}
