//! Randomness from a seed.

use std::hash::{BuildHasher, BuildHasherDefault};
use std::time::Duration;

use rustc_hash::FxHasher;

use crate::types::PeerAddress;

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014). For jitter, not for secrets.
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    /// A generator for one peer: two peers with one seed draw different numbers.
    pub(crate) fn new(seed: u64, peer: PeerAddress) -> Self {
        Self(seed ^ BuildHasherDefault::<FxHasher>::default().hash_one(peer))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Between three quarters of the duration and all of it (RFC 4271 section 10).
    pub(crate) fn jitter(&mut self, duration: Duration) -> Duration {
        let random = u32::try_from(self.next() >> 32).unwrap_or(u32::MAX);
        duration.mul_f64(0.75 + 0.25 * f64::from(random) / f64::from(u32::MAX))
    }
}
