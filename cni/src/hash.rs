//! FNV-1a, 64 bits (draft-eastlake-fnv): names links, spreads locks, and tells a damaged journal line.
//!
//! Each step is a bijection of the state, so two inputs of one length that differ in one byte never collide.

const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// The hash of `parts` as if they were one slice.
pub(crate) fn fnv1a(parts: &[&[u8]]) -> u64 {
    parts
        .iter()
        .flat_map(|part| part.iter())
        .fold(OFFSET_BASIS, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME))
}

/// The same steps over eight bytes at a time, little-endian, and over what is left byte by byte: another hash, in an eighth of
/// the time.
pub(crate) fn fnv1a_words(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks();
    let words = words.iter().map(|word| u64::from_le_bytes(*word));
    words
        .chain(rest.iter().map(|byte| u64::from(*byte)))
        .fold(OFFSET_BASIS, |hash, word| (hash ^ word).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use super::{fnv1a, fnv1a_words};

    #[test]
    fn known_answers() {
        assert_eq!(fnv1a(&[]), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(&[b"a"]), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(&[b"foo", b"bar"]), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn a_change_of_one_word_is_always_seen() {
        let text = *b"0123456789abcdefghi";
        for index in 0..text.len() {
            for bit in 0..8 {
                let mut changed = text;
                changed[index] ^= 1 << bit;
                assert_ne!(fnv1a_words(&changed), fnv1a_words(&text), "{index} {bit}");
            }
        }
    }
}
