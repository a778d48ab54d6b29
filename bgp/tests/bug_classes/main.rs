//! The bug classes that other BGP speakers had, each with a test of its name.
//!
//! A line `Bug class N (where): what` in the docs of a test, here or elsewhere, makes a row of `docs/robustness.md`
//! (`.ci/bug-classes`). What this speaker does not implement is tested as hostile input all the same.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[path = "../wire_messages/generate.rs"]
#[allow(dead_code, reason = "made for more than is tested here")]
mod generate;
#[path = "../session_fsm/pair.rs"]
#[allow(dead_code, reason = "made for more than is tested here")]
mod pair;
#[path = "../session_fsm/solo.rs"]
#[allow(dead_code, reason = "made for more than is tested here")]
mod solo;

mod messages;
mod opens;
mod paths;
mod updates;
