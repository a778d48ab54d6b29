//! The session: the finite state machine of RFC 4271 section 8 over one or two connections.

pub use self::state::State;

mod state;
