//! The fuzzer's targets for what this room reads of the network, on stable Rust: the committed corpora, and each input with some octets
//! changed.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test"
)]

#[path = "../../fuzz/src/neighbours.rs"]
#[allow(unreachable_pub, reason = "another crate's, in which it is")]
mod neighbours;

#[path = "../../fuzz/src/replay.rs"]
mod replay;

/// Proves RFC 4861 6.1.2.
#[test]
fn router_advertisement() {
    replay::replay("router_advertisement", neighbours::router_advertisement, 8);
}
