//! Randomness from a seed.

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014). For jitter and discriminators, not for
/// secrets.
#[derive(Clone, Debug)]
pub(super) struct Rng(u64);

impl Rng {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        u32::try_from((z ^ (z >> 31)) >> 32).unwrap_or(u32::MAX)
    }

    /// The part of an interval to wait: three quarters at least and all of it at most, or nine tenths where one packet that is late would
    /// be one too many (RFC 5880 section 6.8.7).
    pub(super) fn jitter(&mut self, detect_mult: u8) -> f64 {
        let range = if detect_mult == 1 { 0.15 } else { 0.25 };
        0.75 + range * f64::from(self.next()) / f64::from(u32::MAX)
    }
}
