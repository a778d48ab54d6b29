//! BGP-4 (RFC 4271) as a value.
//!
//! This crate holds no sockets, no clock and no randomness of its own: bytes, time and a seed go in, bytes and
//! decisions come out. (The optional feature `transport` adds the tokio loop that feeds it; the feature `sim`
//! adds a virtual clock and a seeded network.)
//!
//! ```text
//! bytes → wire → session → Adj-RIB-In → import policy → decision → Loc-RIB ┬→ export policy → Adj-RIB-Out → wire → bytes
//!         └──── Ingress ────┘ └───────────────── Rib ──────────────────────┴───────┘ └────── Egress ──────┘
//! ```
//!
//! Three stages of one shape (`handle(now, input)`, `poll() -> Option<output>`, `next_deadline()`):
//!
//! | stage | how many | owns |
//! |---|---|---|
//! | [`ingress::Ingress`] | one per peer | framing, the codec, the session FSM, its timers, collision |
//! | [`rib::Rib`] | one per speaker | Adj-RIBs-In, policy, decision, Loc-RIB, interned attributes |
//! | [`egress::Egress`] | one per update group | packing and encoding; shared bytes, a cursor per peer |
//!
//! [`speaker::Speaker`] is the composition of the three. Beside them [`bmp::Bmp`] tells monitoring stations what the RIBs
//! hold.
//!
//! # The drain contract
//!
//! After every `handle`, the caller drains `poll` until it returns `None`, and then waits no longer than
//! `next_deadline`. Nothing is lost by draining late, but nothing is sent either.

mod arena;
pub mod bfd;
pub mod bmp;
pub mod config;
pub mod egress;
pub mod ingress;
pub mod mrt;
pub mod policy;
pub mod protection;
pub mod rib;
pub mod role;
pub mod session;
#[cfg(feature = "sim")]
pub mod sim;
#[cfg(test)]
mod sizes;
pub mod speaker;
pub mod status;
#[cfg(feature = "transport")]
pub mod transport;
pub mod types;
pub mod wire;
