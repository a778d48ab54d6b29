//! OPEN (RFC 4271 section 4.2), with capabilities (RFC 5492) and optional parameters of any length (RFC 9072).

use std::net::Ipv4Addr;

use bytes::{BufMut, BytesMut};

use super::capability::Capability;
use super::error::{ErrorCode, WireError};
use super::reader::Reader;
use crate::types::Asn;

/// The version of BGP that this speaker speaks.
pub const VERSION: u8 = 4;
/// The only optional parameter in use.
const CAPABILITIES: u8 = 2;
/// As the first parameter's type: lengths of two octets follow (RFC 9072 section 2).
const EXTENDED_LENGTH: u8 = 255;

/// An OPEN message of version 4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// My Autonomous System: the number, or [`Asn::TRANS`] for one of four octets.
    pub my_as: u16,
    /// The proposed hold time, in seconds.
    pub hold_time: u16,
    /// The BGP identifier.
    pub bgp_identifier: Ipv4Addr,
    /// The capabilities, in order.
    pub capabilities: Vec<Capability>,
}

impl Open {
    /// The sender's AS: of the four-octet AS capability if there is one (RFC 6793 section 4.1).
    #[must_use]
    pub fn asn(&self) -> Asn {
        let capability = self.capabilities.iter().rev().find_map(|c| match c {
            Capability::FourOctetAs(asn) => Some(*asn),
            _ => None,
        });
        capability.unwrap_or(Asn(self.my_as.into()))
    }

    /// Reads the message's body.
    ///
    /// # Errors
    /// OPEN Message Error: unsupported version, unsupported optional parameter, or (unspecific) lengths that contradict each other.
    /// Whether AS, identifier and hold time are welcome is the session's to say.
    pub fn decode(body: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(body);
        let version = reader.u8().ok_or_else(|| malformed(body, "the message is cut short"))?;
        if version != VERSION {
            let text = format!("version {version}, not {VERSION}");
            let supported = u16::from(VERSION).to_be_bytes();
            return Err(WireError::reset(ErrorCode::UNSUPPORTED_VERSION_NUMBER, &supported, text));
        }
        let (Some(my_as), Some(hold_time), Some(identifier)) = (reader.u16(), reader.u16(), reader.u32())
        else {
            return Err(malformed(body, "the message is cut short"));
        };
        let capabilities = decode_parameters(reader)?;
        Ok(Self { my_as, hold_time, bgp_identifier: identifier.into(), capabilities })
    }

    /// Appends the message's body: all capabilities in one parameter, of extended length only if they need it. Capabilities that
    /// would lead over the 4096 octets of an OPEN are left out.
    pub(super) fn encode(&self, out: &mut BytesMut) {
        /// 4096 less the header, the fixed fields and the lengths of RFC 9072.
        const CAPABILITIES_MAX: usize = 4096 - 19 - 9 - 7;
        out.put_u8(VERSION);
        out.put_u16(self.my_as);
        out.put_u16(self.hold_time);
        out.put_slice(&self.bgp_identifier.octets());
        let mut value = BytesMut::new();
        for capability in &self.capabilities {
            let whole = value.len();
            capability.encode(&mut value);
            if value.len() > CAPABILITIES_MAX {
                value.truncate(whole);
                break;
            }
        }
        encode_capabilities(&value, out);
    }
}

fn malformed(data: &[u8], text: &'static str) -> WireError {
    WireError::reset(ErrorCode::OPEN_UNSPECIFIC, data, text)
}

/// Reads the optional parameters from their length octet on.
fn decode_parameters(mut reader: Reader<'_>) -> Result<Vec<Capability>, WireError> {
    let start = reader.rest();
    let contradiction = || malformed(start, "the optional parameters' length is not that of what follows");
    let length = reader.u8().ok_or_else(contradiction)?;
    // RFC 9072: the first octet tells the encoding; the length before it only has to be other than zero then.
    let extended = length != 0 && reader.rest().first() == Some(&EXTENDED_LENGTH);
    let length = if extended {
        let _type = reader.u8();
        usize::from(reader.u16().ok_or_else(contradiction)?)
    } else {
        usize::from(length)
    };
    if reader.rest().len() != length {
        return Err(contradiction());
    }
    let mut capabilities = Vec::new();
    while !reader.is_empty() {
        let start = reader.rest();
        let kind = reader.u8();
        let length = if extended { reader.u16() } else { reader.u8().map(u16::from) };
        let value = length.and_then(|length| reader.take(usize::from(length)));
        match (kind, value) {
            (Some(CAPABILITIES), Some(value)) => Capability::decode_all(value, &mut capabilities)
                .map_err(|rest| malformed(rest, "a capability is cut short or of a wrong length"))?,
            (Some(kind), Some(_)) => {
                let text = format!("optional parameter {kind}, not {CAPABILITIES} (capabilities)");
                return Err(WireError::reset(ErrorCode::UNSUPPORTED_OPTIONAL_PARAMETER, start, text));
            }
            _ => return Err(malformed(start, "an optional parameter is longer than the field")),
        }
    }
    Ok(capabilities)
}

fn encode_capabilities(value: &[u8], out: &mut BytesMut) {
    if value.is_empty() {
        out.put_u8(0);
        return;
    }
    match (u8::try_from(value.len() + 2), u8::try_from(value.len())) {
        // The length 255 would read as the mark of the extended encoding in older readers of RFC 9072.
        (Ok(parameters), Ok(length)) if parameters != EXTENDED_LENGTH => {
            out.put_slice(&[parameters, CAPABILITIES, length]);
        }
        _ => {
            let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
            out.put_slice(&[EXTENDED_LENGTH, EXTENDED_LENGTH]);
            out.put_u16(length.saturating_add(3));
            out.put_u8(CAPABILITIES);
            out.put_u16(length);
        }
    }
    out.put_slice(value);
}
