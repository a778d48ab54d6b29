//! Interning: equal values are stored once, counted, and named by an id that fits in four bytes.
#![expect(
    clippy::indexing_slicing,
    reason = "an arena: ids come from `intern` and live as long as a reference is held"
)]

use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::marker::PhantomData;
use std::num::NonZeroU32;

use hashbrown::{DefaultHashBuilder, HashTable};

/// Names a value in an [`Interner`] of `T`. Reused once the last reference is released.
pub(crate) struct Id<T>(NonZeroU32, PhantomData<fn() -> T>);

impl<T> Id<T> {
    fn new(index: usize) -> Self {
        // A table of 2^32 entries does not fit in memory; should it ever, the last id is shared rather than wrapped.
        let number = u32::try_from(index).map_or(u32::MAX, |n| n.saturating_add(1));
        Self(NonZeroU32::new(number).unwrap_or(NonZeroU32::MAX), PhantomData)
    }

    /// The id as a place in a table.
    pub(crate) fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

impl<T> Clone for Id<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Id<T> {}

impl<T> PartialEq for Id<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<T> Eq for Id<T> {}

impl<T> PartialOrd for Id<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Id<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

impl<T> Hash for Id<T> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl<T> fmt::Debug for Id<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

#[derive(Debug)]
struct Entry<T> {
    hash: u64,
    references: u32,
    value: T,
}

/// A counted set of values. The hash is seeded per table, so that a peer cannot choose what collides.
#[derive(Debug)]
pub(crate) struct Interner<T> {
    index: HashTable<Id<T>>,
    entries: Vec<Option<Entry<T>>>,
    free: Vec<Id<T>>,
    hasher: DefaultHashBuilder,
}

impl<T> Default for Interner<T> {
    fn default() -> Self {
        Self {
            index: HashTable::new(),
            entries: Vec::new(),
            free: Vec::new(),
            hasher: DefaultHashBuilder::default(),
        }
    }
}

impl<T> Interner<T> {
    fn entry(&self, id: Id<T>) -> &Entry<T> {
        self.entries[id.index()].as_ref().unwrap_or_else(|| unreachable!("{id:?} is named but was released"))
    }

    fn entry_mut(&mut self, id: Id<T>) -> &mut Entry<T> {
        self.entries[id.index()].as_mut().unwrap_or_else(|| unreachable!("{id:?} is named but was released"))
    }

    /// The id of the value that has this key, with one more reference; `make` gives the value if it is new.
    pub(crate) fn intern<K: Hash + ?Sized>(
        &mut self,
        key: &K,
        is: impl Fn(&T) -> bool,
        make: impl FnOnce() -> T,
    ) -> Id<T> {
        let hash = self.hasher.hash_one(key);
        let entries = &self.entries;
        let found = self
            .index
            .find(hash, |id| entries[id.index()].as_ref().is_some_and(|e| e.hash == hash && is(&e.value)));
        if let Some(id) = found.copied() {
            self.retain(id);
            return id;
        }
        let entry = Some(Entry { hash, references: 1, value: make() });
        let id = match self.free.pop() {
            Some(id) => {
                self.entries[id.index()] = entry;
                id
            }
            None => {
                let id = Id::new(self.entries.len());
                self.entries.push(entry);
                id
            }
        };
        let entries = &self.entries;
        self.index.insert_unique(hash, id, |id| entries[id.index()].as_ref().map_or(0, |e| e.hash));
        id
    }

    /// The value.
    pub(crate) fn get(&self, id: Id<T>) -> &T {
        &self.entry(id).value
    }

    /// Takes one more reference.
    pub(crate) fn retain(&mut self, id: Id<T>) {
        self.entry_mut(id).references += 1;
    }

    /// Gives one reference back; the value, if that was the last.
    pub(crate) fn release(&mut self, id: Id<T>) -> Option<T> {
        let entry = self.entry_mut(id);
        entry.references -= 1;
        if entry.references > 0 {
            return None;
        }
        let hash = entry.hash;
        if let Ok(found) = self.index.find_entry(hash, |other| *other == id) {
            found.remove();
        }
        self.free.push(id);
        self.entries[id.index()].take().map(|e| e.value)
    }

    /// How many values are held.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intern(interner: &mut Interner<String>, text: &str) -> Id<String> {
        interner.intern(text, |t| t == text, || text.to_owned())
    }

    #[test]
    fn equal_values_share_an_id_until_the_last_reference_goes() {
        let mut interner = Interner::default();
        let (a, b) = (intern(&mut interner, "a"), intern(&mut interner, "b"));
        assert_ne!(a, b);
        assert_eq!(intern(&mut interner, "a"), a);
        assert_eq!(interner.release(a), None);
        assert_eq!(interner.get(a), "a");
        assert_eq!(interner.release(a), Some("a".to_owned()));
        assert_eq!((interner.len(), intern(&mut interner, "c")), (1, a));
        assert_eq!((interner.get(a).as_str(), interner.get(b).as_str()), ("c", "b"));
    }

    #[test]
    fn an_optional_id_costs_nothing() {
        assert_eq!(size_of::<Option<Id<String>>>(), 4);
    }
}
