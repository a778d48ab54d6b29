//! The session, without sockets and in virtual time: two `Ingress` against each other, and one against a peer played by hand.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod add_path;
mod ahead;
mod authentication;
mod clear;
mod collision;
mod establish;
mod extended_next_hop;
mod hostile;
mod pair;
mod record;
mod restart;
mod solo;
mod timers;
