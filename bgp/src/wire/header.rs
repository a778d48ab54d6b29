//! The message header (RFC 4271 section 4.1).

use bytes::{BufMut, Bytes, BytesMut};

use super::error::{ErrorCode, WireError};
use super::reader::Reader;

/// Octets of a header.
pub const HEADER_LENGTH: usize = 19;
/// The longest message, unless both ends have agreed on extended messages.
pub const MESSAGE_MAX: u16 = 4096;
/// The longest extended message (RFC 8654).
pub const EXTENDED_MESSAGE_MAX: u16 = 65535;

const MARKER: [u8; 16] = [0xff; 16];

/// The message types (RFC 4271 section 4.1, RFC 2918).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum MessageType {
    /// OPEN
    Open = 1,
    /// UPDATE
    Update = 2,
    /// NOTIFICATION
    Notification = 3,
    /// KEEPALIVE
    Keepalive = 4,
    /// ROUTE-REFRESH
    RouteRefresh = 5,
}

impl MessageType {
    fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Open,
            2 => Self::Update,
            3 => Self::Notification,
            4 => Self::Keepalive,
            5 => Self::RouteRefresh,
            _ => return None,
        })
    }

    /// The lengths that a message of this type may have, header included. OPEN and KEEPALIVE never grow (RFC 8654 section 4).
    fn lengths(self, message_max: u16) -> std::ops::RangeInclusive<u16> {
        match self {
            Self::Open => 29..=MESSAGE_MAX,
            Self::Update => 23..=message_max,
            Self::Notification => 21..=message_max,
            Self::Keepalive => 19..=19,
            // Which length is wrong in which way depends on the subtype.
            Self::RouteRefresh => 19..=message_max,
        }
    }
}

/// A header whose marker, length and type are right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Octets of the message, header included.
    pub length: u16,
    /// Its type.
    pub kind: MessageType,
}

impl Header {
    /// Reads a header. `message_max` is the longest message that the sender may use now.
    ///
    /// # Errors
    /// Message Header Error (RFC 4271 section 6.1): marker, length, or type; always a session reset.
    pub fn decode(bytes: &[u8; HEADER_LENGTH], message_max: u16) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let (Some(marker), Some(length), Some(code)) = (reader.array::<16>(), reader.u16(), reader.u8())
        else {
            return Err(bad_length(0, "the header is cut short"));
        };
        if marker != MARKER {
            return Err(WireError::reset(
                ErrorCode::CONNECTION_NOT_SYNCHRONIZED,
                &[],
                "the marker is not 16 octets of 255",
            ));
        }
        if usize::from(length) < HEADER_LENGTH || length > message_max {
            return Err(bad_length(length, format!("a length of {length}, not 19 to {message_max}")));
        }
        let Some(kind) = MessageType::from_code(code) else {
            let text = format!("message type {code}, not 1 to 5");
            return Err(WireError::reset(ErrorCode::BAD_MESSAGE_TYPE, &[code], text));
        };
        let lengths = kind.lengths(message_max);
        if !lengths.contains(&length) {
            let (min, max) = (lengths.start(), lengths.end());
            return Err(bad_length(length, format!("{kind:?} of length {length}, not {min} to {max}")));
        }
        Ok(Self { length, kind })
    }
}

/// The messages of a buffer that holds whole ones.
pub(crate) fn messages(mut bytes: Bytes) -> impl Iterator<Item = Bytes> {
    std::iter::from_fn(move || {
        let length = u16::from_be_bytes(*bytes.get(16..)?.first_chunk()?);
        let length = usize::from(length).clamp(HEADER_LENGTH, bytes.len().max(HEADER_LENGTH));
        (length <= bytes.len()).then(|| bytes.split_to(length))
    })
}

fn bad_length(length: u16, text: impl Into<std::borrow::Cow<'static, str>>) -> WireError {
    WireError::reset(ErrorCode::BAD_MESSAGE_LENGTH, &length.to_be_bytes(), text)
}

/// Appends a header for a body of `body_length` octets; the caller has seen to it that the sum fits 16 bits.
pub(super) fn put_header(kind: MessageType, body_length: usize, out: &mut BytesMut) {
    out.put_slice(&MARKER);
    out.put_u16(u16::try_from(HEADER_LENGTH.saturating_add(body_length)).unwrap_or(u16::MAX));
    out.put_u8(kind as u8);
}
