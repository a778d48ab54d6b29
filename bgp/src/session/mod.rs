//! The session: the finite state machine of RFC 4271 section 8 over one or more connections.
//!
//! ```text
//!            Fsm            one per peer: start and stop, dialling, idle hold, what the peer's state is
//!             │
//!        Connections        all connections to the peer; collision detection (section 6.8, RFC 6286)
//!             │
//!   Connection  Connection  one per TCP connection: DelayOpen, OpenSent, OpenConfirm, Established; hold and keepalive
//! ```
//!
//! Time is an argument, jitter comes from an injected seed, and everything that happens to the outside goes through the `Outbox`.

pub use self::state::State;
pub use self::timer::Timer;

pub(crate) use self::event::{Event, Malformed};
pub(crate) use self::fsm::Fsm;
pub(crate) use self::outbox::Outbox;
#[cfg(feature = "sim")]
pub(crate) use self::rng::Rng;

mod backoff;
mod collision;
mod connection;
mod event;
mod fsm;
mod negotiation;
mod outbox;
mod rng;
mod said;
mod state;
mod timer;
