//! The events of RFC 4271 section 8.1, by its names.
//!
//! | event | where |
//! |---|---|
//! | 1 ManualStart | a configuration that is not shut down is what a start is: event 3 |
//! | 2 ManualStop | a configuration with `shutdown`: [`Event::ManualStop`] |
//! | 3 AutomaticStart, 5 AutomaticStart_with_PassiveTcpEstablishment | [`super::Fsm::configure`] |
//! | 4 ManualStart_with_PassiveTcpEstablishment | as event 1 |
//! | 6, 7 AutomaticStart_with_DampPeerOscillations | damping is always on: event 13 starts again |
//! | 8 AutomaticStop | [`Event::AutomaticStop`], [`Event::OverLimit`] |
//! | 9 ConnectRetryTimer_Expires, 13 IdleHoldTimer_Expires | the [`super::Fsm`]'s timers |
//! | 10 HoldTimer_Expires, 11 KeepaliveTimer_Expires, 12 DelayOpenTimer_Expires | the [`Event`]s of those names |
//! | 14 TcpConnection_Valid, 15 Tcp_CR_Invalid | a half-open TCP connection is the kernel's; whose address an accepted one may come from is the speaker's to check |
//! | 16 Tcp_CR_Acked | [`super::Fsm::connected`] |
//! | 17 TcpConnectionConfirmed | [`super::Fsm::accepted`] |
//! | 18 TcpConnectionFails | [`Event::TcpConnectionFails`], and [`super::Fsm::connect_failed`] for a dial |
//! | 19 BGPOpen, 20 BGPOpen with DelayOpenTimer running | [`Event::BgpOpen`]: the connection knows whether its timer runs |
//! | 21 BGPHeaderErr, 22 BGPOpenMsgErr | the [`Event`]s of those names |
//! | 23 OpenCollisionDump | [`Event::OpenCollisionDump`] |
//! | 24 NotifMsgVerErr, 25 NotifMsg | [`Event::NotifMsg`]: other versions are not tried, so the two do not differ |
//! | 26 KeepAliveMsg, 27 UpdateMsg, 28 UpdateMsgErr | the [`Event`]s of those names |
//!
//! ROUTE-REFRESH came later (RFC 2918) and is an event like the others.

use bytes::Bytes;

use crate::types::Family;
use crate::wire::WireError;
use crate::wire::error::ErrorCode;
use crate::wire::notification::Notification;
use crate::wire::open::Open;

/// A message that ends the session.
#[derive(Debug)]
pub(crate) struct Malformed {
    pub(crate) error: WireError,
    /// The message, or what there is of it.
    pub(crate) message: Bytes,
}

/// What happens to one connection.
#[derive(Debug)]
pub(crate) enum Event {
    /// The peer is shut down; the text goes to it (RFC 9003).
    ManualStop(String),
    /// The session ends for a reason of our own.
    AutomaticStop {
        /// A subcode of Cease.
        subcode: u8,
        /// For the peer.
        text: String,
    },
    /// More prefixes of this family were told than there may be.
    OverLimit {
        family: Family,
        limit: u32,
    },
    HoldTimerExpires,
    /// RFC 9687: the peer has taken no bytes for too long.
    SendHoldTimerExpires,
    KeepaliveTimerExpires,
    DelayOpenTimerExpires,
    /// FIN, RST or an error of the socket; the kernel's words.
    TcpConnectionFails(Option<String>),
    BgpOpen(Open),
    BgpHeaderErr(Malformed),
    BgpOpenMsgErr(Malformed),
    OpenCollisionDump,
    /// None: a NOTIFICATION too short to say anything.
    NotifMsg(Option<Notification>),
    KeepAliveMsg,
    UpdateMsg,
    UpdateMsgErr(Malformed),
    RouteRefreshMsg,
}

impl Event {
    /// The message type of an event that is a message which not every state has a use for.
    pub(super) fn message_type(&self) -> Option<u8> {
        use crate::wire::header::MessageType;
        let kind = match self {
            Self::BgpOpen(_) => MessageType::Open,
            Self::UpdateMsg => MessageType::Update,
            Self::KeepAliveMsg => MessageType::Keepalive,
            Self::RouteRefreshMsg => MessageType::RouteRefresh,
            _ => return None,
        };
        Some(kind as u8)
    }

    /// What is to be said here of a stop whose Cease has no text.
    pub(super) fn explanation(&self) -> Option<String> {
        match self {
            Self::OverLimit { family, limit } => Some(format!("more than {limit} of {family}")),
            _ => None,
        }
    }

    /// The Cease of a stop.
    pub(super) fn cease(&self) -> Option<Notification> {
        match self {
            Self::ManualStop(text) => {
                Some(Notification::cease(ErrorCode::ADMINISTRATIVE_SHUTDOWN.subcode, text))
            }
            Self::AutomaticStop { subcode, text } => Some(Notification::cease(*subcode, text)),
            Self::OverLimit { family, limit } => Some(Notification::max_prefixes(*family, *limit)),
            Self::OpenCollisionDump => {
                Some(Notification::cease(ErrorCode::CONNECTION_COLLISION_RESOLUTION.subcode, ""))
            }
            _ => None,
        }
    }
}
