//! A growing set of small numbers.

/// A set of ids, one bit each. Memory is the largest id ever set, in bits.
#[derive(Clone, Debug, Default)]
pub(crate) struct BitSet(Vec<u64>);

impl BitSet {
    const fn place(id: usize) -> (usize, u64) {
        (id / 64, 1 << (id % 64))
    }

    /// Whether the id is in the set.
    pub(crate) fn contains(&self, id: usize) -> bool {
        let (word, bit) = Self::place(id);
        self.0.get(word).is_some_and(|w| w & bit != 0)
    }

    /// Adds an id; says whether it is new.
    pub(crate) fn insert(&mut self, id: usize) -> bool {
        let (word, bit) = Self::place(id);
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        self.0.get_mut(word).is_some_and(|w| {
            let new = *w & bit == 0;
            *w |= bit;
            new
        })
    }

    /// Takes an id out; says whether it was there.
    pub(crate) fn remove(&mut self, id: usize) -> bool {
        let (word, bit) = Self::place(id);
        self.0.get_mut(word).is_some_and(|w| {
            let there = *w & bit != 0;
            *w &= !bit;
            there
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn insert_and_remove_say_what_changed() {
        let mut set = BitSet::default();
        assert!(!set.contains(200) && !set.remove(200));
        assert!(set.insert(200) && !set.insert(200));
        assert!(set.contains(200) && !set.contains(199) && !set.contains(201));
        assert!(set.remove(200) && !set.remove(200));
    }
}
