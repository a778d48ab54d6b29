//! ROUTE-REFRESH (RFC 2918, RFC 7313).

use bytes::{BufMut, BytesMut};

use super::capability::AfiSafi;
use super::error::{ErrorCode, WireError};
use super::header::{MessageType, put_header};
use super::reader::Reader;

/// A ROUTE-REFRESH message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteRefresh {
    /// The family.
    pub family: AfiSafi,
    /// 0: a request. 1 and 2: beginning and end of a refresh, among peers that have agreed on RFC 7313. Others are ignored.
    pub subtype: u8,
}

impl RouteRefresh {
    /// The subtype of a request.
    pub const REQUEST: u8 = 0;
    /// The subtype of the beginning of a refresh, BoRR (RFC 7313).
    pub const BEGIN: u8 = 1;
    /// The subtype of the end of a refresh, EoRR (RFC 7313).
    pub const END: u8 = 2;

    /// Reads the message's body.
    ///
    /// # Errors
    /// If it is not four octets: Bad Message Length, or the error of RFC 7313 section 5 if it is the beginning or the end of a refresh.
    pub fn decode(body: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(body);
        match (reader.u16(), reader.u8(), reader.u8(), reader.is_empty()) {
            (Some(afi), Some(subtype), Some(safi), true) => {
                Ok(Self { family: AfiSafi { afi, safi }, subtype })
            }
            _ => {
                let mut message = BytesMut::new();
                put_header(MessageType::RouteRefresh, body.len(), &mut message);
                let text = format!("ROUTE-REFRESH with {} octets, not 4", body.len());
                if let Some(&(Self::BEGIN | Self::END)) = body.get(2) {
                    message.put_slice(body);
                    return Err(WireError::reset(ErrorCode::ROUTE_REFRESH_INVALID_LENGTH, &message, text));
                }
                let length = message.get(16..18).unwrap_or_default();
                Err(WireError::reset(ErrorCode::BAD_MESSAGE_LENGTH, length, text))
            }
        }
    }

    /// Appends the message's body.
    pub(super) fn encode(self, out: &mut BytesMut) {
        out.put_u16(self.family.afi);
        out.put_u8(self.subtype);
        out.put_u8(self.family.safi);
    }
}
