//! NOTIFICATION (RFC 4271 section 4.5), with shutdown communication (RFC 9003).

use bytes::{BufMut, Bytes, BytesMut};

use super::error::{ErrorCode, WireError};
use super::header::{HEADER_LENGTH, MESSAGE_MAX};
use super::reader::Reader;
use super::text::printable;
use crate::types::Family;

mod words;

/// A NOTIFICATION message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// Code and subcode.
    pub code: ErrorCode,
    /// What goes with them.
    pub data: Bytes,
}

impl Notification {
    /// How many octets of text a shutdown communication may have (RFC 9003 section 2).
    pub const TEXT_MAX: usize = 255;
    /// How much data fits a message that every peer can take.
    const DATA_MAX: usize = MESSAGE_MAX as usize - HEADER_LENGTH - 2;

    /// A Cease of this subcode. Where the subcode allows a text (Administrative Shutdown and Administrative Reset), `text` goes with
    /// it, cut to whole characters in 255 octets.
    #[must_use]
    pub fn cease(subcode: u8, text: &str) -> Self {
        let code = ErrorCode::cease(subcode);
        let mut data = BytesMut::new();
        if carries_text(code) && !text.is_empty() {
            let text = cut(text, Self::TEXT_MAX);
            data.put_u8(u8::try_from(text.len()).unwrap_or(u8::MAX));
            data.put_slice(text.as_bytes());
        }
        Self { code, data: data.freeze() }
    }

    /// A Cease for more prefixes of a family than this many (RFC 4486 section 4).
    #[must_use]
    pub fn max_prefixes(family: Family, limit: u32) -> Self {
        let (afi, safi) = family.afi_safi();
        let mut data = BytesMut::with_capacity(7);
        data.put_u16(afi);
        data.put_u8(safi);
        data.put_u32(limit);
        Self { code: ErrorCode::MAXIMUM_PREFIXES_REACHED, data: data.freeze() }
    }

    /// A Cease/Hard Reset that carries this NOTIFICATION (RFC 8538 section 3.1).
    #[must_use]
    pub fn into_hard_reset(self) -> Self {
        let mut data = BytesMut::new();
        self.encode(&mut data);
        Self { code: ErrorCode::HARD_RESET, data: data.freeze() }
    }

    /// The NOTIFICATION that a Cease/Hard Reset carries, if it is one and carries one.
    #[must_use]
    pub fn carried(&self) -> Option<Self> {
        Self::decode(&self.data).filter(|_| self.code == ErrorCode::HARD_RESET)
    }

    /// What it says, in words.
    #[must_use]
    pub fn describe(&self) -> String {
        match (self.carried(), self.text()) {
            // One level only: what a peer nests deeper says nothing more.
            (Some(carried), _) => match carried.text() {
                Some(text) => format!("{}: {}: {text}", self.code, carried.code),
                None => format!("{}: {}", self.code, carried.code),
            },
            (None, Some(text)) => format!("{}: {text}", self.code),
            (None, None) => self.code.to_string(),
        }
    }

    /// The text of a shutdown communication, if there is one and its length and its UTF-8 are right. Control characters, which a
    /// terminal would obey, are blanked.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        if !carries_text(self.code) {
            return None;
        }
        let mut reader = Reader::new(&self.data);
        let length = usize::from(reader.u8()?);
        let text = std::str::from_utf8(reader.take(length)?).ok()?;
        (!text.is_empty()).then(|| printable(text))
    }

    /// Reads the message's body; `None`: it has no room for the code. There is no error to answer with (RFC 4271 section 6.4).
    #[must_use]
    pub fn decode(body: &Bytes) -> Option<Self> {
        let mut reader = Reader::new(body);
        let (code, subcode) = (reader.u8()?, reader.u8()?);
        let data = body.slice_ref(reader.rest());
        Some(Self { code: ErrorCode { code, subcode }, data })
    }

    /// Appends the message's body; data that does not fit 4096 octets is cut.
    pub(super) fn encode(&self, out: &mut BytesMut) {
        out.put_u8(self.code.code);
        out.put_u8(self.code.subcode);
        out.put_slice(self.data.get(..Self::DATA_MAX).unwrap_or(&self.data));
    }
}

impl From<&WireError> for Notification {
    fn from(error: &WireError) -> Self {
        Self { code: error.code, data: error.data.clone() }
    }
}

fn carries_text(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::ADMINISTRATIVE_SHUTDOWN | ErrorCode::ADMINISTRATIVE_RESET)
}

/// The longest beginning of whole characters in `max` octets.
pub(super) fn cut(text: &str, max: usize) -> &str {
    let end = (0..=max.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    end.and_then(|end| text.get(..end)).unwrap_or_default()
}
