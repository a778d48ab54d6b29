//! One function a target: any bytes in, a panic if anything is wrong.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a target fails by panicking"
)]

pub use self::decoders::{attributes, bfd, capabilities, header, notification, open, route_refresh, update};
pub use self::scenario::scenario;
pub use self::session::session;

#[path = "../../../bgp/tests/sim_support/mod.rs"]
mod sim_support;

mod decoders;
mod scenario;
mod session;

/// What takes any bytes.
pub type Target = fn(&[u8]);

/// The targets by name, for who replays a corpus.
pub const ALL: [(&str, Target); 10] = [
    ("attributes", attributes),
    ("bfd", bfd),
    ("capabilities", capabilities),
    ("header", header),
    ("notification", notification),
    ("open", open),
    ("route_refresh", route_refresh),
    ("scenario", scenario),
    ("session", session),
    ("update", update),
];

/// Reads an input as choices; one that has come to its end reads as zeros.
pub(crate) struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// One of `0..below`.
    pub(crate) fn below(&mut self, below: usize) -> usize {
        usize::from(self.byte()) % below.max(1)
    }

    /// Up to `length` octets, as many as there are.
    pub(crate) fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// A length of up to 8191.
    pub(crate) fn long(&mut self) -> usize {
        usize::from(u16::from_be_bytes([self.byte(), self.byte()]) % 8192)
    }

    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}
