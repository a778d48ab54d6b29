//! The data of a NOTIFICATION as people read them.

use super::Notification;
use crate::wire::capability::{AfiSafi, Capability};
use crate::wire::error::ErrorCode;
use crate::wire::reader::Reader;
use crate::wire::text::hexadecimal;

impl Notification {
    /// What the data say beside a text, where their shape is given by the code: which NOTIFICATION a Hard Reset carries, how many prefixes may be, the
    /// attribute or the message in question. None: nothing, or not what they should.
    #[must_use]
    pub fn data_in_words(&self) -> Option<String> {
        if let Some(carried) = self.carried() {
            // One level only: what a peer nests deeper says nothing more.
            let code = carried.code;
            return Some(match carried.code == ErrorCode::HARD_RESET {
                true => code.to_string(),
                false => [Some(code.to_string()), carried.text(), carried.data_in_words()]
                    .into_iter()
                    .flatten()
                    .collect::<Vec<_>>()
                    .join(": "),
            });
        }
        let mut reader = Reader::new(&self.data);
        let words = match self.code {
            ErrorCode::BAD_MESSAGE_LENGTH => format!("length {}", reader.u16()?),
            ErrorCode::BAD_MESSAGE_TYPE => format!("message type {}", reader.u8()?),
            ErrorCode::UNSUPPORTED_VERSION_NUMBER => format!("version {} is supported", reader.u16()?),
            ErrorCode::UNSUPPORTED_CAPABILITY => {
                let mut capabilities = Vec::new();
                Capability::decode_all(&self.data, &mut capabilities).ok()?;
                let wanted = capabilities.iter().map(|c| match c.name() {
                    Some(name) => format!("{name} {}", c.value()).trim_end().to_owned(),
                    None => format!("capability {} {}", c.code(), c.value()).trim_end().to_owned(),
                });
                return (!capabilities.is_empty()).then(|| wanted.collect::<Vec<_>>().join(", "));
            }
            ErrorCode::MAXIMUM_PREFIXES_REACHED => {
                let family = AfiSafi { afi: reader.u16()?, safi: reader.u8()? };
                format!("{} of {} may be", reader.u32()?, family.in_words())
            }
            ErrorCode::UNEXPECTED_MESSAGE_IN_OPEN_SENT
            | ErrorCode::UNEXPECTED_MESSAGE_IN_OPEN_CONFIRM
            | ErrorCode::UNEXPECTED_MESSAGE_IN_ESTABLISHED => format!("message type {}", reader.u8()?),
            ErrorCode { code: 3, subcode: 2..=6 | 8 | 9 } => return attribute(reader),
            _ => return None,
        };
        reader.is_empty().then_some(words)
    }
}

/// The attribute in question: its type alone where it is missing, else all of it.
fn attribute(mut reader: Reader<'_>) -> Option<String> {
    const EXTENDED_LENGTH: u8 = 0x10;
    let first = reader.u8()?;
    if reader.is_empty() {
        return Some(format!("attribute {first}"));
    }
    let kind = reader.u8()?;
    let length = if first & EXTENDED_LENGTH != 0 { reader.u16()? } else { u16::from(reader.u8()?) };
    Some(format!("attribute {kind}, flags 0x{first:02x}, length {length}, {}", hexadecimal(reader.rest())))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::types::Family;

    #[test]
    fn data_are_told_where_their_shape_is_known() {
        let of = |code, data: &'static [u8]| Notification { code, data: Bytes::from_static(data) };
        let reset = Notification::max_prefixes(Family::Ipv4Unicast, 100).into_hard_reset();
        let words = "Cease/Maximum Number of Prefixes Reached: 100 of ipv4-unicast may be";
        for (notification, words) in [
            (Notification::max_prefixes(Family::Ipv6Unicast, 7), Some("7 of ipv6-unicast may be")),
            (reset, Some(words)),
            (of(ErrorCode::BAD_MESSAGE_LENGTH, &[0, 18]), Some("length 18")),
            (of(ErrorCode::BAD_MESSAGE_LENGTH, &[0]), None),
            (of(ErrorCode::UNSUPPORTED_VERSION_NUMBER, &[0, 4]), Some("version 4 is supported")),
            (of(ErrorCode::UNSUPPORTED_CAPABILITY, &[1, 4, 0, 1, 0, 1]), Some("multiprotocol ipv4-unicast")),
            (of(ErrorCode::MISSING_WELL_KNOWN_ATTRIBUTE, &[3]), Some("attribute 3")),
            (
                of(ErrorCode::INVALID_ORIGIN_ATTRIBUTE, &[0x40, 1, 1, 9]),
                Some("attribute 1, flags 0x40, length 1, 09"),
            ),
            (of(ErrorCode::UNEXPECTED_MESSAGE_IN_ESTABLISHED, &[1]), Some("message type 1")),
            (Notification::cease(ErrorCode::ADMINISTRATIVE_RESET.subcode, "bye"), None),
        ] {
            assert_eq!(notification.data_in_words().as_deref(), words, "{notification:?}");
        }
        let nested = Notification::cease(ErrorCode::ADMINISTRATIVE_SHUTDOWN.subcode, "bye").into_hard_reset();
        let twice = nested.clone().into_hard_reset();
        assert_eq!(nested.data_in_words().as_deref(), Some("Cease/Administrative Shutdown: bye"));
        assert_eq!(twice.data_in_words().as_deref(), Some("Cease/Hard Reset"));
    }
}
