//! The six states.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A state of the FSM (RFC 4271 section 8.2.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum State {
    /// Nothing is tried.
    #[default]
    Idle,
    /// A dial is under way.
    Connect,
    /// Waiting to dial again, or for the peer to dial.
    Active,
    /// Our OPEN is out.
    OpenSent,
    /// The peer's OPEN is accepted.
    OpenConfirm,
    /// Routes are exchanged.
    Established,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
