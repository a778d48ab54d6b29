//! Bytes ↔ messages (RFC 4271 section 4).
//!
//! Nothing here knows a session's state. What decoding depends on is an argument: [`update::Agreed`] for UPDATE, the
//! longest message for the [`header::Header`]. Everything that is wrong with a peer's bytes is a [`WireError`], which carries the
//! NOTIFICATION that it calls for and how severe it is (RFC 7606).
//!
//! | to | use |
//! |---|---|
//! | cut a stream into messages | [`header::Header::decode`] |
//! | read a message's body | [`Message::decode`]; the UPDATE's: [`update::Decoder`] |
//! | write any message but UPDATE | [`Message::encode`] |
//! | write UPDATEs | [`update::AttributeBlock`] once per attribute set, then [`update::pack`] until all prefixes are out |
//! | write withdrawals | [`update::pack_withdrawn`] |
//! | write End-of-RIB | [`update::end_of_rib`] |

pub mod attributes;
pub mod capability;
pub mod error;
pub mod header;
pub mod nlri;
pub mod notification;
pub mod open;
pub mod route_refresh;
pub mod update;

mod as_path;
mod attribute;
mod message;
mod reader;
mod text;

pub use self::error::{ErrorCode, Severity, WireError};
pub use self::message::Message;
