//! What is wrong with a peer's bytes, and what that calls for.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;

/// A NOTIFICATION's code and subcode (RFC 4271 section 4.5; IANA "BGP Error (Notification) Codes").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ErrorCode {
    /// The error code.
    pub code: u8,
    /// The error subcode; 0: unspecific.
    pub subcode: u8,
}

macro_rules! error_codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $subcode:literal, $text:literal;)*) => {
        impl ErrorCode {
            $($(#[$doc])* pub const $name: Self = Self { code: $code, subcode: $subcode };)*

            /// The name that the registry gives the pair, if it has one.
            #[must_use]
            pub fn name(self) -> Option<&'static str> {
                match (self.code, self.subcode) {
                    $(($code, $subcode) => Some($text),)*
                    _ => None,
                }
            }
        }
    };
}

error_codes! {
    /// The marker is not all ones.
    CONNECTION_NOT_SYNCHRONIZED = 1, 1, "Message Header Error/Connection Not Synchronized";
    /// The length is out of range for the type.
    BAD_MESSAGE_LENGTH = 1, 2, "Message Header Error/Bad Message Length";
    /// The type is none that was negotiated.
    BAD_MESSAGE_TYPE = 1, 3, "Message Header Error/Bad Message Type";
    /// An OPEN that is malformed in a way that has no subcode.
    OPEN_UNSPECIFIC = 2, 0, "OPEN Message Error/Unspecific";
    /// Not version 4.
    UNSUPPORTED_VERSION_NUMBER = 2, 1, "OPEN Message Error/Unsupported Version Number";
    /// Not the AS that was configured.
    BAD_PEER_AS = 2, 2, "OPEN Message Error/Bad Peer AS";
    /// Zero, or ours on an internal session (RFC 6286).
    BAD_BGP_IDENTIFIER = 2, 3, "OPEN Message Error/Bad BGP Identifier";
    /// An optional parameter that is not capabilities.
    UNSUPPORTED_OPTIONAL_PARAMETER = 2, 4, "OPEN Message Error/Unsupported Optional Parameter";
    /// A hold time of one or two seconds.
    UNACCEPTABLE_HOLD_TIME = 2, 6, "OPEN Message Error/Unacceptable Hold Time";
    /// The peer lacks a capability that we cannot do without (RFC 5492).
    UNSUPPORTED_CAPABILITY = 2, 7, "OPEN Message Error/Unsupported Capability";
    /// The roles of the two ends do not go together (RFC 9234).
    ROLE_MISMATCH = 2, 11, "OPEN Message Error/Role Mismatch";
    /// Lengths that contradict each other, or an attribute that must not be there twice.
    MALFORMED_ATTRIBUTE_LIST = 3, 1, "UPDATE Message Error/Malformed Attribute List";
    /// A well-known attribute of a type that is not known.
    UNRECOGNIZED_WELL_KNOWN_ATTRIBUTE = 3, 2, "UPDATE Message Error/Unrecognized Well-known Attribute";
    /// A mandatory attribute is not there.
    MISSING_WELL_KNOWN_ATTRIBUTE = 3, 3, "UPDATE Message Error/Missing Well-known Attribute";
    /// Optional or transitive bit other than specified.
    ATTRIBUTE_FLAGS_ERROR = 3, 4, "UPDATE Message Error/Attribute Flags Error";
    /// Not the length that the type calls for.
    ATTRIBUTE_LENGTH_ERROR = 3, 5, "UPDATE Message Error/Attribute Length Error";
    /// Not 0, 1 or 2.
    INVALID_ORIGIN_ATTRIBUTE = 3, 6, "UPDATE Message Error/Invalid ORIGIN Attribute";
    /// Not an address that a packet can be sent to.
    INVALID_NEXT_HOP_ATTRIBUTE = 3, 8, "UPDATE Message Error/Invalid NEXT_HOP Attribute";
    /// The value of an optional attribute is wrong.
    OPTIONAL_ATTRIBUTE_ERROR = 3, 9, "UPDATE Message Error/Optional Attribute Error";
    /// The NLRI or the withdrawn routes cannot be parsed.
    INVALID_NETWORK_FIELD = 3, 10, "UPDATE Message Error/Invalid Network Field";
    /// Segments that make no path.
    MALFORMED_AS_PATH = 3, 11, "UPDATE Message Error/Malformed AS_PATH";
    /// Nothing was heard for the hold time.
    HOLD_TIMER_EXPIRED = 4, 0, "Hold Timer Expired";
    /// A message that the state has no use for.
    FSM_ERROR = 5, 0, "Finite State Machine Error";
    /// In OpenSent (RFC 6608).
    UNEXPECTED_MESSAGE_IN_OPEN_SENT = 5, 1, "Finite State Machine Error/Receive Unexpected Message in OpenSent State";
    /// In OpenConfirm (RFC 6608).
    UNEXPECTED_MESSAGE_IN_OPEN_CONFIRM = 5, 2, "Finite State Machine Error/Receive Unexpected Message in OpenConfirm State";
    /// In Established (RFC 6608).
    UNEXPECTED_MESSAGE_IN_ESTABLISHED = 5, 3, "Finite State Machine Error/Receive Unexpected Message in Established State";
    /// RFC 4486.
    MAXIMUM_PREFIXES_REACHED = 6, 1, "Cease/Maximum Number of Prefixes Reached";
    /// RFC 4486; may carry a text (RFC 9003).
    ADMINISTRATIVE_SHUTDOWN = 6, 2, "Cease/Administrative Shutdown";
    /// RFC 4486.
    PEER_DE_CONFIGURED = 6, 3, "Cease/Peer De-configured";
    /// RFC 4486; may carry a text (RFC 9003).
    ADMINISTRATIVE_RESET = 6, 4, "Cease/Administrative Reset";
    /// RFC 4486.
    CONNECTION_REJECTED = 6, 5, "Cease/Connection Rejected";
    /// RFC 4486.
    OTHER_CONFIGURATION_CHANGE = 6, 6, "Cease/Other Configuration Change";
    /// RFC 4486.
    CONNECTION_COLLISION_RESOLUTION = 6, 7, "Cease/Connection Collision Resolution";
    /// RFC 4486.
    OUT_OF_RESOURCES = 6, 8, "Cease/Out of Resources";
    /// RFC 8538.
    HARD_RESET = 6, 9, "Cease/Hard Reset";
    /// RFC 9384.
    BFD_DOWN = 6, 10, "Cease/BFD Down";
    /// The beginning or the end of a refresh of another length than four octets (RFC 7313).
    ROUTE_REFRESH_INVALID_LENGTH = 7, 1, "ROUTE-REFRESH Message Error/Invalid Message Length";
    /// The peer takes no bytes (RFC 9687).
    SEND_HOLD_TIMER_EXPIRED = 8, 0, "Send Hold Timer Expired";
}

impl ErrorCode {
    /// The code of every Cease.
    pub const CEASE: u8 = 6;

    /// Whether a session that ends with it is over for good, also between speakers that otherwise take a NOTIFICATION for a restart: what
    /// RFC 8538 section 5 suggests, and BFD's word that the peer is gone (RFC 9384).
    #[must_use]
    pub fn is_hard(self) -> bool {
        matches!(
            self,
            Self::MAXIMUM_PREFIXES_REACHED
                | Self::ADMINISTRATIVE_SHUTDOWN
                | Self::PEER_DE_CONFIGURED
                | Self::HARD_RESET
                | Self::BFD_DOWN
        )
    }

    /// A Cease with this subcode (RFC 4486).
    #[must_use]
    pub fn cease(subcode: u8) -> Self {
        Self { code: Self::CEASE, subcode }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "error code {}, subcode {}", self.code, self.subcode),
        }
    }
}

/// What an error calls for (RFC 7606 section 2), weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Attribute discard: go on without the attribute.
    Discard,
    /// Take the UPDATE's routes as withdrawn.
    TreatAsWithdraw,
    /// Send the NOTIFICATION and close.
    SessionReset,
}

/// One thing that is wrong with a received message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {text}")]
pub struct WireError {
    /// What a NOTIFICATION says of it.
    pub code: ErrorCode,
    /// The NOTIFICATION's data (RFC 4271 section 6).
    pub data: Bytes,
    /// What it calls for.
    pub severity: Severity,
    /// What was wrong and what would be right, in words.
    pub text: Cow<'static, str>,
}

impl WireError {
    /// An error that ends the session.
    pub fn reset(code: ErrorCode, data: &[u8], text: impl Into<Cow<'static, str>>) -> Self {
        Self { code, data: Bytes::copy_from_slice(data), severity: Severity::SessionReset, text: text.into() }
    }
}
