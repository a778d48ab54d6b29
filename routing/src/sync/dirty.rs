//! The keys that are to be compared, in the order in which they became so.

use std::collections::{BTreeSet, VecDeque};

use rustc_hash::FxHashSet;

use crate::route::RouteKey;

/// See the [module](self). A key that was taken is not given again before what became of it is known.
#[derive(Debug, Default)]
pub(super) struct Dirty {
    waiting: VecDeque<RouteKey>,
    /// Those that wait, and those that were taken.
    known: FxHashSet<RouteKey>,
    /// Those that were named once more. Seldom any.
    again: BTreeSet<RouteKey>,
}

impl Dirty {
    pub(super) fn insert(&mut self, key: RouteKey) {
        if self.known.insert(key) {
            self.waiting.push_back(key);
        } else {
            self.again.insert(key);
        }
    }

    pub(super) fn extend(&mut self, keys: impl IntoIterator<Item = RouteKey>) {
        keys.into_iter().for_each(|key| self.insert(key));
    }

    /// The next one; it is the caller's until it is [`done`](Self::done).
    pub(super) fn take(&mut self) -> Option<RouteKey> {
        let key = self.waiting.pop_front()?;
        // However often it was named before.
        if !self.again.is_empty() {
            self.again.remove(&key);
        }
        Some(key)
    }

    /// What becomes of a key that was taken is known.
    pub(super) fn done(&mut self, key: RouteKey) {
        if !self.again.is_empty() && self.again.remove(&key) {
            self.waiting.push_back(key);
        } else {
            self.known.remove(&key);
        }
    }

    /// Whether keys may have been named since they were taken.
    pub(super) fn are_again(&self) -> bool {
        !self.again.is_empty()
    }

    /// Whether a key that was taken was named since.
    pub(super) fn is_again(&self, key: &RouteKey) -> bool {
        self.again.contains(key)
    }

    /// Whether none waits, nor was taken.
    pub(super) fn are_done(&self) -> bool {
        self.known.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(last: u8) -> RouteKey {
        RouteKey::new(ipnet::IpNet::from(std::net::IpAddr::from([10, 0, 0, last])), 64)
    }

    #[test]
    fn keys_come_once_and_in_order() {
        let mut dirty = Dirty::default();
        dirty.extend([key(2), key(1), key(2)]);
        assert_eq!((dirty.take(), dirty.take(), dirty.take()), (Some(key(2)), Some(key(1)), None));
        assert!(!dirty.are_done());
        dirty.done(key(1));
        dirty.done(key(2));
        assert!(dirty.are_done());
    }

    #[test]
    fn a_key_that_was_taken_waits_for_what_becomes_of_it() {
        let mut dirty = Dirty::default();
        dirty.insert(key(1));
        dirty.take();
        dirty.insert(key(1));
        dirty.insert(key(1));
        assert!(dirty.is_again(&key(1)));
        assert_eq!(dirty.take(), None);
        dirty.done(key(1));
        assert!(!dirty.are_again() && !dirty.is_again(&key(1)));
        assert_eq!(dirty.take(), Some(key(1)));
        dirty.done(key(1));
        assert!(dirty.are_done());
    }
}
