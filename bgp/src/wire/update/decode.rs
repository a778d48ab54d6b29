//! UPDATE messages → routes.

use std::ops::Range;
use std::sync::Arc;

use super::attribute_set::{self, Purpose};
use super::cache::Cache;
use super::errors::{Errors, attribute_error};
use super::multiprotocol::{self, MpNextHop, MpReach, MpUnreach, decode_reach, decode_unreach};
use crate::ingress::{RouteBatch, Run};
use crate::types::{Family, FamilySet, PeerType};
use crate::wire::attribute::{RawAttribute, RawAttributes, code};
use crate::wire::attributes::PathAttributes;
use crate::wire::capability::AfiSafi;
use crate::wire::error::{ErrorCode, Severity, WireError};
use crate::wire::nlri::{NlriError, decode_prefixes};
use crate::wire::reader::Reader;

/// What the meaning of an UPDATE depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// The families both ends offered; routes of others are ignored.
    pub families: FamilySet,
    /// Whether AS numbers have four octets.
    pub four_octet_as: bool,
    /// Whether IPv4 prefixes may have IPv6 next hops (RFC 8950).
    pub extended_next_hop: bool,
    /// The families whose prefixes come with path identifiers (RFC 7911).
    pub add_path: FamilySet,
    /// iBGP or eBGP.
    pub peer_type: PeerType,
}

/// What an UPDATE held besides routes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Decoded {
    /// It was the End-of-RIB marker of this family (RFC 4724 section 2).
    pub end_of_rib: Option<Family>,
    /// What was wrong without ending the session: of severity [`Severity::Discard`] or [`Severity::TreatAsWithdraw`]. The latter has
    /// made withdrawals of all routes of the message.
    pub errors: Vec<WireError>,
}

/// The decoder of one session's UPDATEs.
#[derive(Debug)]
pub struct Decoder {
    agreed: Agreed,
    cache: Cache,
    /// Where attributes are put together when others stand between them.
    scratch: Vec<u8>,
}

impl Decoder {
    /// A decoder for what a session agreed on.
    #[must_use]
    pub fn new(agreed: Agreed) -> Self {
        Self { agreed, cache: Cache::default(), scratch: Vec::new() }
    }

    /// Decodes a message's body, in one pass, and appends its routes to `batch`: withdrawals first, as a prefix that is both withdrawn
    /// and announced is announced (RFC 4271 section 4.3).
    ///
    /// # Errors
    /// UPDATE Message Error of severity [`Severity::SessionReset`]; the batch is then as it was.
    pub fn decode(&mut self, body: &[u8], batch: &mut RouteBatch) -> Result<Decoded, WireError> {
        let (prefixes, path_ids) = (batch.prefixes.len(), batch.path_ids.len());
        let mut scratch = std::mem::take(&mut self.scratch);
        let parts = Parts::parse(body, &self.agreed, &mut scratch, batch);
        let result = parts.and_then(|parts| self.finish(parts, &scratch, batch));
        self.scratch = scratch;
        if result.is_err() {
            batch.prefixes.truncate(prefixes);
            batch.path_ids.truncate(path_ids);
        }
        result
    }

    /// Finds the attributes for the prefixes and makes runs of them.
    fn finish(
        &mut self,
        parts: Parts<'_>,
        scratch: &[u8],
        batch: &mut RouteBatch,
    ) -> Result<Decoded, WireError> {
        if let Some(family) = parts.end_of_rib {
            return Ok(Decoded { end_of_rib: Some(family), errors: Vec::new() });
        }
        let Parts { ranges, attributes, mp_next_hop, mut errors, .. } = parts;
        let field = match attributes {
            Attributes::Plain(field) => field,
            Attributes::Scratch { length } => scratch.get(..length).unwrap_or_default(),
        };
        let mut nlri = None;
        let mut reach = None;
        if !ranges.nlri.is_empty() {
            nlri = self.attributes(field, field, Purpose::Nlri, &mut errors);
        }
        if let Some(next_hop) = mp_next_hop
            && !ranges.reach.is_empty()
        {
            reach = self.attributes(scratch, field, Purpose::MpReach(next_hop), &mut errors);
        }
        if !parts.announces && !field.is_empty() {
            attribute_set::decode(field, Purpose::Nothing, &self.agreed, &mut errors);
            errors.escalate();
        }
        if errors.worst() > Some(Severity::Discard) {
            (nlri, reach) = (None, None);
        }
        let errors = errors.into_result()?;
        push_run(batch, ranges.withdrawn, None);
        push_run(batch, ranges.unreach, None);
        push_run(batch, ranges.nlri, nlri);
        push_run(batch, ranges.reach, reach);
        Ok(Decoded { end_of_rib: None, errors })
    }

    /// The attributes of a field; `key` tells all that they depend on.
    fn attributes(
        &mut self,
        key: &[u8],
        field: &[u8],
        purpose: Purpose,
        errors: &mut Errors,
    ) -> Option<Arc<PathAttributes>> {
        if let Some(attributes) = self.cache.get(key) {
            return Some(Arc::clone(attributes));
        }
        let clean = errors.is_empty();
        let attributes = Arc::new(attribute_set::decode(field, purpose, &self.agreed, errors)?);
        // What had errors is decoded again when it comes again, so that they are reported again.
        if clean && errors.is_empty() {
            self.cache.insert(key, Arc::clone(&attributes));
        }
        Some(attributes)
    }
}

/// Where in the batch the prefixes of a message's four fields are.
#[derive(Debug, Default)]
struct Ranges {
    withdrawn: Range<usize>,
    unreach: Range<usize>,
    nlri: Range<usize>,
    reach: Range<usize>,
}

/// Where the attributes are, but for the multiprotocol ones.
enum Attributes<'a> {
    /// In the message, as there are no multiprotocol ones.
    Plain(&'a [u8]),
    /// In the first octets of the scratch buffer, followed by what identifies MP_REACH_NLRI's next hop, if there is one: all
    /// of the buffer is the key to what MP_REACH_NLRI's prefixes have.
    Scratch { length: usize },
}

/// A message whose fields have been told apart and whose prefixes have been read.
struct Parts<'a> {
    ranges: Ranges,
    attributes: Attributes<'a>,
    mp_next_hop: Option<MpNextHop>,
    /// Whether it has reachable prefixes, be they of an agreed family or not.
    announces: bool,
    end_of_rib: Option<Family>,
    errors: Errors,
}

impl<'a> Parts<'a> {
    fn parse(
        body: &'a [u8],
        agreed: &Agreed,
        scratch: &mut Vec<u8>,
        batch: &mut RouteBatch,
    ) -> Result<Self, WireError> {
        let fields = Fields::split(body)?;
        let mut errors = Errors::default();
        let raw = RawMultiprotocol::extract(fields.attributes, scratch)?;
        let attributes = if raw.is_none() {
            Attributes::Plain(fields.attributes)
        } else {
            Attributes::Scratch { length: scratch.len() }
        };
        let has_reach = raw.reach.is_some();
        let Multiprotocol { reach, unreach } = raw.decode(agreed, &mut errors)?;
        let reaches = reach.as_ref().map_or(has_reach, |(_, reach)| !reach.nlri.is_empty());
        let announces = !fields.nlri.is_empty() || reaches;
        if let Some((_, reach)) = &reach {
            // No attribute of the buffer begins like this, as MP_REACH_NLRI is not among them: the key is unambiguous.
            scratch.extend_from_slice(&[0, code::MP_REACH_NLRI]);
            scratch.extend_from_slice(reach.head);
        }
        let end_of_rib = fields.end_of_rib(unreach.as_ref());
        let end_of_rib = end_of_rib.filter(|family| agreed.families.contains(*family) && errors.is_empty());

        let mut ranges = Ranges::default();
        let mut read = |family, field| read_prefixes(family, field, agreed, batch);
        let ipv4 = Family::Ipv4Unicast;
        let ipv4_agreed = agreed.families.contains(ipv4);
        if ipv4_agreed {
            ranges.withdrawn = read(ipv4, fields.withdrawn).map_err(invalid_network)?;
        } else if !(fields.withdrawn.is_empty() && fields.nlri.is_empty()) {
            errors.push(unexpected_family(ipv4));
        }
        if let Some((raw, unreach)) = &unreach {
            ranges.unreach = read(unreach.family, unreach.nlri)
                .map_err(|error| multiprotocol::malformed(raw, error.to_string()))?;
        }
        if ipv4_agreed {
            ranges.nlri = read(ipv4, fields.nlri).map_err(invalid_network)?;
        }
        if let Some((raw, reach)) = &reach {
            ranges.reach = read(reach.family, reach.nlri)
                .map_err(|error| multiprotocol::malformed(raw, error.to_string()))?;
        }
        let mp_next_hop = reach.map(|(_, reach)| reach.next_hop);
        Ok(Self { ranges, attributes, mp_next_hop, announces, end_of_rib, errors })
    }
}

/// The three fields of an UPDATE.
struct Fields<'a> {
    withdrawn: &'a [u8],
    attributes: &'a [u8],
    nlri: &'a [u8],
}

impl<'a> Fields<'a> {
    fn split(body: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(body);
        let mut field = || {
            let length = reader.u16()?;
            reader.take(usize::from(length))
        };
        match (field(), field()) {
            (Some(withdrawn), Some(attributes)) => Ok(Self { withdrawn, attributes, nlri: reader.rest() }),
            _ => Err(WireError::reset(
                ErrorCode::MALFORMED_ATTRIBUTE_LIST,
                &[],
                "withdrawn routes or attributes are longer than the message",
            )),
        }
    }

    /// The family whose End-of-RIB the message is: IPv4 unicast's has nothing in it, others' an MP_UNREACH_NLRI without prefixes.
    fn end_of_rib(&self, unreach: Option<&WithRaw<'_, MpUnreach<'_>>>) -> Option<Family> {
        if !(self.withdrawn.is_empty() && self.nlri.is_empty()) {
            return None;
        }
        match unreach {
            None if self.attributes.is_empty() => Some(Family::Ipv4Unicast),
            Some((raw, unreach)) if unreach.nlri.is_empty() && raw.whole.len() == self.attributes.len() => {
                Some(unreach.family)
            }
            _ => None,
        }
    }
}

/// The multiprotocol attributes of a message, as received.
#[derive(Default)]
struct RawMultiprotocol<'a> {
    reach: Option<RawAttribute<'a>>,
    unreach: Option<RawAttribute<'a>>,
}

/// A decoded attribute and its raw form, which errors found later quote.
type WithRaw<'a, T> = (RawAttribute<'a>, T);

/// The multiprotocol attributes of agreed families.
struct Multiprotocol<'a> {
    reach: Option<WithRaw<'a, MpReach<'a>>>,
    unreach: Option<WithRaw<'a, MpUnreach<'a>>>,
}

impl<'a> RawMultiprotocol<'a> {
    /// Finds them; if there are any, all else goes to `others`.
    fn extract(field: &'a [u8], others: &mut Vec<u8>) -> Result<Self, WireError> {
        others.clear();
        let mut found = Self::default();
        let mut copied = 0;
        let mut offset = 0;
        for raw in RawAttributes::new(field).map_while(Result::ok) {
            let start = offset;
            offset += raw.whole.len();
            let slot = match raw.code {
                code::MP_REACH_NLRI => &mut found.reach,
                code::MP_UNREACH_NLRI => &mut found.unreach,
                _ => continue,
            };
            if slot.replace(raw).is_some() {
                let code = ErrorCode::MALFORMED_ATTRIBUTE_LIST;
                return Err(attribute_error(Severity::SessionReset, code, &raw, "occurs twice"));
            }
            others.extend_from_slice(field.get(copied..start).unwrap_or_default());
            copied = offset;
        }
        if !found.is_none() {
            others.extend_from_slice(field.get(copied..).unwrap_or_default());
        }
        Ok(found)
    }

    fn is_none(&self) -> bool {
        self.reach.is_none() && self.unreach.is_none()
    }

    /// Decodes what belongs to agreed families; the rest is ignored and noted.
    fn decode(self, agreed: &Agreed, errors: &mut Errors) -> Result<Multiprotocol<'a>, WireError> {
        for error in [&self.reach, &self.unreach].into_iter().flatten().filter_map(multiprotocol::wrong_flags)
        {
            errors.push(error);
        }
        let mut ignore = |raw: &RawAttribute<'_>, numbers: AfiSafi| {
            let text =
                format!("AFI {} SAFI {}, which this session has not agreed on", numbers.afi, numbers.safi);
            errors.push(attribute_error(Severity::Discard, ErrorCode::OPTIONAL_ATTRIBUTE_ERROR, raw, text));
        };
        let mut reach = None;
        if let Some(raw) = self.reach {
            match decode_reach(&raw, agreed.extended_next_hop)? {
                Ok(found) if agreed.families.contains(found.family) => reach = Some((raw, found)),
                Ok(found) => ignore(&raw, found.family.into()),
                Err(numbers) => ignore(&raw, numbers),
            }
        }
        let mut unreach = None;
        if let Some(raw) = self.unreach {
            match decode_unreach(&raw)? {
                Ok(found) if agreed.families.contains(found.family) => unreach = Some((raw, found)),
                Ok(found) => ignore(&raw, found.family.into()),
                Err(numbers) => ignore(&raw, numbers),
            }
        }
        Ok(Multiprotocol { reach, unreach })
    }
}

/// Appends the prefixes of a field, and says where they are.
fn read_prefixes(
    family: Family,
    field: &[u8],
    agreed: &Agreed,
    batch: &mut RouteBatch,
) -> Result<Range<usize>, NlriError> {
    let RouteBatch { prefixes, path_ids, .. } = batch;
    let start = prefixes.len();
    let identified = agreed.add_path.contains(family);
    decode_prefixes(family, field, prefixes, identified.then_some(&mut *path_ids))?;
    if !agreed.add_path.is_empty() {
        path_ids.resize(prefixes.len(), 0);
    }
    Ok(start..prefixes.len())
}

fn invalid_network(error: NlriError) -> WireError {
    WireError::reset(ErrorCode::INVALID_NETWORK_FIELD, &[], error.to_string())
}

fn unexpected_family(family: Family) -> WireError {
    WireError {
        code: ErrorCode::MALFORMED_ATTRIBUTE_LIST,
        data: bytes::Bytes::new(),
        severity: Severity::Discard,
        text: format!("routes of {family}, which this session has not agreed on").into(),
    }
}

/// Appends a run, as a longer last one where it goes on in the same way.
fn push_run(batch: &mut RouteBatch, range: Range<usize>, attributes: Option<Arc<PathAttributes>>) {
    if range.is_empty() {
        return;
    }
    let family = |index: usize| batch.prefixes.get(index).map(Family::of);
    let same_family = batch.runs.last().is_some_and(|last| family(last.range.start) == family(range.start));
    match batch.runs.last_mut() {
        Some(last)
            if same_family
                && last.range.end == range.start
                && same_attributes(last.attributes.as_ref(), attributes.as_ref()) =>
        {
            last.range.end = range.end;
        }
        _ => batch.runs.push(Run { range, attributes }),
    }
}

fn same_attributes(a: Option<&Arc<PathAttributes>>, b: Option<&Arc<PathAttributes>>) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        _ => false,
    }
}
