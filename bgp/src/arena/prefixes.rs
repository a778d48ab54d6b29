//! A table of prefixes, or of paths to prefixes, each with a value, named by small ids.
#![expect(clippy::indexing_slicing, reason = "an arena: ids come from `entry` and live until `remove`")]

use std::hash::{BuildHasher, Hash};
use std::net::IpAddr;

use hashbrown::{DefaultHashBuilder, HashTable};
use ipnet::IpNet;

/// Names a prefix in a [`PrefixTable`]. Reused once the prefix is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PrefixId(u32);

impl PrefixId {
    fn new(index: usize) -> Self {
        // A table of 2^32 prefixes does not fit in memory.
        Self(u32::try_from(index).unwrap_or(u32::MAX))
    }

    /// The id as a place in a table or a set.
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

#[derive(Debug)]
struct Slot<V, K> {
    prefix: K,
    value: V,
}

/// Prefix → value, hashed for lookup and dense for walks. The hash is seeded per table, so that a peer cannot choose what collides.
#[derive(Debug)]
pub(crate) struct PrefixTable<V, K = IpNet> {
    index: HashTable<PrefixId>,
    slots: Vec<Option<Slot<V, K>>>,
    free: Vec<PrefixId>,
    hasher: DefaultHashBuilder,
}

impl<V, K> Default for PrefixTable<V, K> {
    fn default() -> Self {
        Self {
            index: HashTable::new(),
            slots: Vec::new(),
            free: Vec::new(),
            hasher: DefaultHashBuilder::default(),
        }
    }
}

impl<V, K: Copy + Eq + Hash> PrefixTable<V, K> {
    /// The id of a prefix, if the table has it.
    pub(crate) fn find(&self, prefix: &K) -> Option<PrefixId> {
        let hash = self.hasher.hash_one(prefix);
        self.index
            .find(hash, |id| self.slots[id.index()].as_ref().is_some_and(|s| s.prefix == *prefix))
            .copied()
    }

    /// The id of a prefix, which is put in with a default value if it is new.
    pub(crate) fn entry(&mut self, prefix: K) -> PrefixId
    where
        V: Default,
    {
        if let Some(id) = self.find(&prefix) {
            return id;
        }
        let slot = Some(Slot { prefix, value: V::default() });
        let id = match self.free.pop() {
            Some(id) => {
                self.slots[id.index()] = slot;
                id
            }
            None => {
                let id = PrefixId::new(self.slots.len());
                self.slots.push(slot);
                id
            }
        };
        let (slots, hasher) = (&self.slots, &self.hasher);
        self.index.insert_unique(hasher.hash_one(prefix), id, |id| {
            slots[id.index()].as_ref().map_or(0, |s| hasher.hash_one(s.prefix))
        });
        id
    }

    /// Takes a prefix out; its id may name another from now on.
    pub(crate) fn remove(&mut self, id: PrefixId) {
        if let Some(slot) = self.slots[id.index()].take() {
            if let Ok(found) = self.index.find_entry(self.hasher.hash_one(slot.prefix), |other| *other == id)
            {
                found.remove();
            }
            self.free.push(id);
        }
    }

    fn slot(&self, id: PrefixId) -> &Slot<V, K> {
        self.slots[id.index()].as_ref().unwrap_or_else(|| unreachable!("{id:?} is named but was removed"))
    }

    /// The prefix.
    pub(crate) fn prefix(&self, id: PrefixId) -> K {
        self.slot(id).prefix
    }

    /// The value.
    pub(crate) fn get(&self, id: PrefixId) -> &V {
        &self.slot(id).value
    }

    /// The value, to change.
    pub(crate) fn get_mut(&mut self, id: PrefixId) -> &mut V {
        let slot = self.slots[id.index()].as_mut();
        &mut slot.unwrap_or_else(|| unreachable!("{id:?} is named but was removed")).value
    }

    /// The prefixes at `from` and behind, in the order of ids; where a walk in pieces goes on.
    pub(crate) fn walk(&self, from: usize) -> impl Iterator<Item = (PrefixId, K, &V)> {
        let slots = self.slots.get(from..).unwrap_or_default().iter().enumerate();
        slots
            .filter_map(move |(i, slot)| slot.as_ref().map(|s| (PrefixId::new(from + i), s.prefix, &s.value)))
    }

    /// Every prefix, its value to change.
    pub(crate) fn walk_mut(&mut self) -> impl Iterator<Item = (PrefixId, K, &mut V)> {
        let slots = self.slots.iter_mut().enumerate();
        slots.filter_map(|(i, slot)| slot.as_mut().map(|s| (PrefixId::new(i), s.prefix, &mut s.value)))
    }

    /// How many prefixes there are.
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }
}

impl<V> PrefixTable<V> {
    /// The prefixes that cover an address, the longest first.
    pub(crate) fn covering(&self, address: IpAddr) -> impl Iterator<Item = PrefixId> {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        (0..=bits).rev().filter_map(move |len| {
            let prefix = IpNet::new(address, len).ok()?.trunc();
            self.find(&prefix)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn finds_removes_and_reuses() {
        let mut table: PrefixTable<u8> = PrefixTable::default();
        let a = table.entry(net("10.0.0.0/8"));
        *table.get_mut(a) = 7;
        assert_eq!(table.entry(net("10.0.0.0/8")), a);
        assert_eq!((table.find(&net("10.0.0.0/9")), *table.get(a)), (None, 7));
        table.remove(a);
        assert_eq!((table.find(&net("10.0.0.0/8")), table.len()), (None, 0));
        let b = table.entry(net("2001:db8::/32"));
        assert_eq!((b, *table.get(b), table.prefix(b)), (a, 0, net("2001:db8::/32")));
    }

    #[test]
    fn covering_gives_the_longest_first() {
        let mut table: PrefixTable<()> = PrefixTable::default();
        for text in ["0.0.0.0/0", "10.0.0.0/8", "10.1.2.3/32", "10.1.0.0/16", "::/0"] {
            table.entry(net(text));
        }
        let covering = |a: &str| -> Vec<String> {
            table.covering(a.parse().unwrap()).map(|id| table.prefix(id).to_string()).collect()
        };
        assert_eq!(covering("10.1.2.3"), ["10.1.2.3/32", "10.1.0.0/16", "10.0.0.0/8", "0.0.0.0/0"]);
        assert_eq!(covering("10.2.0.1"), ["10.0.0.0/8", "0.0.0.0/0"]);
        assert_eq!(covering("2001:db8::1"), ["::/0"]);
    }

    #[test]
    fn a_walk_in_pieces_sees_everything_once() {
        let mut table: PrefixTable<()> = PrefixTable::default();
        for i in 0..10u8 {
            table.entry(net(&format!("10.{i}.0.0/16")));
        }
        table.remove(PrefixId(3));
        let first: Vec<_> = table.walk(0).take(4).map(|(id, _, ())| id.0).collect();
        let rest: Vec<_> = table.walk(5).map(|(id, _, ())| id.0).collect();
        assert_eq!((first, rest), (vec![0, 1, 2, 4], vec![5, 6, 7, 8, 9]));
    }
}
