//! ROUTE-REFRESH (RFC 2918, RFC 7313).

use bytes::{BufMut, BytesMut};

use super::capability::AfiSafi;
use super::error::{ErrorCode, WireError};
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

    /// Reads the message's body.
    ///
    /// # Errors
    /// Bad Message Length if it is not four octets.
    pub fn decode(body: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(body);
        match (reader.u16(), reader.u8(), reader.u8(), reader.is_empty()) {
            (Some(afi), Some(subtype), Some(safi), true) => {
                Ok(Self { family: AfiSafi { afi, safi }, subtype })
            }
            _ => Err(WireError::reset(
                ErrorCode::BAD_MESSAGE_LENGTH,
                &[],
                format!("ROUTE-REFRESH with {} octets, not 4", body.len()),
            )),
        }
    }

    /// Appends the message's body.
    pub(super) fn encode(self, out: &mut BytesMut) {
        out.put_u16(self.family.afi);
        out.put_u8(self.subtype);
        out.put_u8(self.family.safi);
    }
}
