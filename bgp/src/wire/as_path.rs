//! AS_PATH and AS4_PATH on the wire (RFC 4271 section 4.3 b, RFC 6793).

use bytes::{BufMut, BytesMut};

use super::attributes::{AsPath, Segment, SegmentKind};
use super::reader::Reader;
use crate::types::Asn;

/// A segment's count of numbers is one octet.
const SEGMENT_MAX: usize = 255;

impl SegmentKind {
    fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Set,
            2 => Self::Sequence,
            3 => Self::ConfedSequence,
            4 => Self::ConfedSet,
            _ => return None,
        })
    }

    fn code(self) -> u8 {
        match self {
            Self::Set => 1,
            Self::Sequence => 2,
            Self::ConfedSequence => 3,
            Self::ConfedSet => 4,
        }
    }

    pub(super) fn is_confederation(self) -> bool {
        matches!(self, Self::ConfedSequence | Self::ConfedSet)
    }
}

/// Reads a path. Neighbouring sequences, which longer ones are split into, become one again.
///
/// # Errors
/// A segment that is empty, of an unknown kind or longer than the rest, or AS 0 (RFC 7606 section 7.2, RFC 7607).
pub(super) fn decode(value: &[u8], four_octet_as: bool) -> Result<AsPath, &'static str> {
    let mut reader = Reader::new(value);
    let mut path = AsPath::default();
    while let Some(code) = reader.u8() {
        let kind = SegmentKind::from_code(code).ok_or("a segment type that is not 1 to 4")?;
        let count = reader.u8().ok_or("a segment of one octet")?;
        if count == 0 {
            return Err("an empty segment");
        }
        let mut asns = Vec::with_capacity(usize::from(count));
        for _ in 0..count {
            let asn = if four_octet_as { reader.u32() } else { reader.u16().map(u32::from) };
            match asn {
                None => return Err("a segment that is longer than the attribute"),
                Some(0) => return Err("AS 0"),
                Some(asn) => asns.push(Asn(asn)),
            }
        }
        match path.0.last_mut() {
            Some(last) if last.kind == SegmentKind::Sequence && kind == SegmentKind::Sequence => {
                last.asns.append(&mut asns);
            }
            _ => {
                // Nearly every path has one segment.
                path.0.reserve_exact(1);
                path.0.push(Segment { kind, asns });
            }
        }
    }
    Ok(path)
}

/// Appends a path. With two octets, numbers that do not fit become `AS_TRANS`.
pub(super) fn encode(path: &AsPath, four_octet_as: bool, out: &mut BytesMut) {
    for segment in &path.0 {
        encode_segment(segment, four_octet_as, out);
    }
}

/// How many octets [`encode`] appends.
pub(super) fn encoded_length(path: &AsPath, four_octet_as: bool) -> usize {
    let octets = if four_octet_as { 4 } else { 2 };
    let length = |asns: &[Asn]| 2 * asns.len().div_ceil(SEGMENT_MAX) + octets * asns.len();
    path.0.iter().map(|segment| length(&segment.asns)).sum()
}

fn encode_segment(segment: &Segment, four_octet_as: bool, out: &mut BytesMut) {
    for asns in segment.asns.chunks(SEGMENT_MAX) {
        out.put_u8(segment.kind.code());
        out.put_u8(u8::try_from(asns.len()).unwrap_or(u8::MAX));
        for asn in asns {
            if four_octet_as {
                out.put_u32(asn.0);
            } else {
                out.put_u16(asn.two_octets());
            }
        }
    }
}

/// The AS4_PATH that has to go with a two-octet AS_PATH, if any number does not fit (RFC 6793 section 4.2.2). Confederation segments
/// have no place in it.
pub(super) fn encode_as4(path: &AsPath) -> Option<BytesMut> {
    let public = || path.0.iter().filter(|s| !s.kind.is_confederation());
    if public().flat_map(|s| &s.asns).all(|a| u16::try_from(a.0).is_ok()) {
        return None;
    }
    let mut out = BytesMut::new();
    public().for_each(|segment| encode_segment(segment, true, &mut out));
    Some(out)
}

/// The path that a two-octet AS_PATH and an AS4_PATH stand for (RFC 6793 section 4.2.3): the AS4_PATH, with as much of the AS_PATH in
/// front as it is longer. An AS4_PATH that is the longer one is ignored.
pub(super) fn merge(path: AsPath, as4: AsPath) -> AsPath {
    let as4 = AsPath(as4.0.into_iter().filter(|s| !s.kind.is_confederation()).collect());
    let Some(mut missing) = path.length().checked_sub(as4.length()) else {
        return path;
    };
    let mut merged = AsPath::default();
    for mut segment in path.0 {
        match segment.kind {
            SegmentKind::ConfedSequence | SegmentKind::ConfedSet => {}
            _ if missing == 0 => break,
            SegmentKind::Set => missing -= 1,
            SegmentKind::Sequence => {
                segment.asns.truncate(missing);
                missing -= segment.asns.len();
            }
        }
        merged.0.push(segment);
    }
    for mut segment in as4.0 {
        match merged.0.last_mut() {
            Some(last) if last.kind == SegmentKind::Sequence && segment.kind == SegmentKind::Sequence => {
                last.asns.append(&mut segment.asns);
            }
            _ => merged.0.push(segment),
        }
    }
    merged
}
