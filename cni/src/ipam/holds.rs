//! The right to change many entries at once.

use std::collections::BTreeSet;

use super::lock::Lock;
use super::{Entry, Error, Failure, Key, Store, release};

/// The right to change the entries of some keys, as [`Hold`](super::Hold) is for one.
#[derive(Debug)]
pub struct Holds<'a> {
    store: &'a mut Store,
    keys: BTreeSet<Key>,
    _lock: Lock,
}

impl Store {
    /// Takes the right to change the entries of those of `keys` on which no other command is at work; waits for none.
    pub fn hold_free(&mut self, keys: impl IntoIterator<Item = Key>) -> Result<Holds<'_>, Error> {
        let (lock, keys) = Lock::of_free(&self.lock, keys)?;
        Ok(Holds { store: self, keys, _lock: lock })
    }
}

impl Holds<'_> {
    /// Whose entries are held.
    pub fn keys(&self) -> &BTreeSet<Key> {
        &self.keys
    }

    /// All entries of the store as they are, in the order of their keys; those that are held do not change.
    pub fn entries(&mut self) -> Result<Vec<Entry>, Error> {
        self.store.entries()
    }

    /// Gives back the addresses of those of `keys` that are held, and forgets their entries. After an error some may be
    /// as they were.
    pub fn release(&mut self, keys: &BTreeSet<Key>) -> Result<(), Error> {
        let held = &self.keys;
        self.store.transaction(|journal| {
            keys.intersection(held)
                .try_for_each(|key| release(journal, key).map(drop).map_err(Failure::Journal))
        })
    }
}
