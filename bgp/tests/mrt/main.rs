//! MRT (RFC 6396): records octet by octet, what a speaker gives to be written down, and its table while it changes.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test fails by panicking"
)]

mod reader;
mod records;
#[path = "../sim_support/mod.rs"]
mod sim_support;
mod speaker;
