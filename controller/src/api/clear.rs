//! The JSON of `weftctl clear`.

use serde::{Deserialize, Serialize};

/// Whose session to begin anew, or whose routes to have told again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClearRequest {
    /// An address, `%interface` or the name of an object, which may be that of several peers; `all`: every peer.
    pub peer: String,
    /// Null: end the session and begin it anew.
    #[serde(default)]
    pub soft: Option<SoftClear>,
}

impl ClearRequest {
    /// What names every peer.
    pub const ALL: &str = "all";
}

/// Which routes to have told again, without a word to the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SoftClear {
    /// The peer's.
    In,
    /// Ours.
    Out,
}

/// What was done about one peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClearedJson {
    /// The object that asks for the peer.
    pub name: String,
    /// Its address.
    pub peer: String,
    /// Whether anything was done.
    pub done: bool,
    /// What was done, or why nothing was.
    pub text: String,
}
