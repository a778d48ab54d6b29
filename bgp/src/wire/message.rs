//! A whole message.

use bytes::{Bytes, BytesMut};

use super::error::WireError;
use super::header::{MessageType, put_header};
use super::notification::Notification;
use super::open::Open;
use super::route_refresh::RouteRefresh;

/// A message of BGP-4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// OPEN
    Open(Open),
    /// UPDATE: its body, as what it means depends on what the session agreed on. See [`super::update::Decoder`].
    Update(Bytes),
    /// NOTIFICATION
    Notification(Notification),
    /// KEEPALIVE
    Keepalive,
    /// ROUTE-REFRESH
    RouteRefresh(RouteRefresh),
}

impl Message {
    /// Reads a message's body, which shares its bytes with the message. `None`: a NOTIFICATION that says nothing, which must not be
    /// answered with another.
    ///
    /// # Errors
    /// What [`Open::decode`] and [`RouteRefresh::decode`] find.
    pub fn decode(kind: MessageType, body: &Bytes) -> Result<Option<Self>, WireError> {
        Ok(Some(match kind {
            MessageType::Open => Self::Open(Open::decode(body)?),
            MessageType::Update => Self::Update(body.clone()),
            MessageType::Notification => return Ok(Notification::decode(body).map(Self::Notification)),
            MessageType::Keepalive => Self::Keepalive,
            MessageType::RouteRefresh => Self::RouteRefresh(RouteRefresh::decode(body)?),
        }))
    }

    /// Its type.
    #[must_use]
    pub fn kind(&self) -> MessageType {
        match self {
            Self::Open(_) => MessageType::Open,
            Self::Update(_) => MessageType::Update,
            Self::Notification(_) => MessageType::Notification,
            Self::Keepalive => MessageType::Keepalive,
            Self::RouteRefresh(_) => MessageType::RouteRefresh,
        }
    }

    /// The message with its header.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut body = BytesMut::new();
        match self {
            Self::Open(open) => open.encode(&mut body),
            Self::Update(update) => body.extend_from_slice(update),
            Self::Notification(notification) => notification.encode(&mut body),
            Self::Keepalive => {}
            Self::RouteRefresh(refresh) => refresh.encode(&mut body),
        }
        let mut out = BytesMut::with_capacity(super::header::HEADER_LENGTH + body.len());
        put_header(self.kind(), body.len(), &mut out);
        out.extend_from_slice(&body);
        out.freeze()
    }
}
