//! Bytes ↔ messages: exact bytes, the error handling of RFC 7606, round trips, and bytes of no sense.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod generate;
mod open;
mod packing;
mod properties;
mod rfc7606;
mod update;
