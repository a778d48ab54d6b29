//! MRT (RFC 6396, with path identifiers RFC 8050): routes and messages as files keep them.
//!
//! Two kinds of records are written: TABLE_DUMP_V2 ([`Table`]), what a speaker knows at a time, and BGP4MP_ET ([`put_observation`]), what
//! passes between it and its peers. Pure: records are appended to a buffer, and the time is an argument.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{BufMut, BytesMut};

pub use self::observation::{Encoding, Observation, Observed, Peering, put_observation};
pub use self::table::{IndexedPeer, RibEntry, Table};

mod observation;
mod table;

/// MRT types (RFC 6396 section 4).
mod kind {
    pub(super) const TABLE_DUMP_V2: u16 = 13;
    pub(super) const BGP4MP_ET: u16 = 17;
}

/// Octets of the common header (RFC 6396 section 2).
const HEADER_LENGTH: usize = 12;

/// A moment as records carry it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timestamp {
    /// Since 1970, UTC.
    pub seconds: u32,
    /// Of the second.
    pub microseconds: u32,
}

impl From<SystemTime> for Timestamp {
    /// A time that the field cannot tell becomes the nearest that it can.
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        match u32::try_from(since.as_secs()) {
            Ok(seconds) => Self { seconds, microseconds: since.subsec_micros() },
            Err(_) => Self { seconds: u32::MAX, microseconds: 0 },
        }
    }
}

/// A record that is being written: its length is put in at the end.
#[derive(Debug)]
struct Open {
    /// Where it begins.
    start: usize,
}

impl Open {
    fn begin(time: Timestamp, kind: u16, subtype: u16, out: &mut BytesMut) -> Self {
        let start = out.len();
        out.put_u32(time.seconds);
        out.put_u16(kind);
        out.put_u16(subtype);
        out.put_u32(0);
        Self { start }
    }

    /// How many octets it has by now.
    fn len(&self, out: &BytesMut) -> usize {
        out.len().saturating_sub(self.start)
    }

    fn end(self, out: &mut BytesMut) {
        let length = u32::try_from(self.len(out).saturating_sub(HEADER_LENGTH)).unwrap_or(u32::MAX);
        put_at(self.start + 8, &length.to_be_bytes(), out);
    }
}

/// Writes over what was written at a place.
fn put_at(place: usize, octets: &[u8], out: &mut BytesMut) {
    if let Some(field) = out.get_mut(place..place.saturating_add(octets.len())) {
        field.copy_from_slice(octets);
    }
}
