//! A table of prefixes, or of paths to prefixes, each with a value, named by small ids.
//!
//! The families have a half each, so that an IPv4 prefix takes eight bytes and its hash a few instructions.
#![expect(clippy::indexing_slicing, reason = "an arena: ids come from `entry` and live until `remove`")]

use std::hash::{BuildHasher, Hash};
use std::marker::PhantomData;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hashbrown::{DefaultHashBuilder, HashTable};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::types::Family;

/// How many prefixes are looked ahead for: see [`PrefixTable::look_ahead`]. What that finds stays in the processor's nearer caches until it is
/// used.
pub(crate) const LOOK_AHEAD: usize = 512;

/// Names a prefix in a [`PrefixTable`]. Reused once the prefix is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PrefixId(u32);

impl PrefixId {
    /// That of a place in a half: even ones are IPv4's, odd ones IPv6's.
    fn new(place: usize, ipv6: bool) -> Self {
        // A table of 2^31 prefixes does not fit in memory.
        Self(u32::try_from(place * 2 + usize::from(ipv6)).unwrap_or(u32::MAX))
    }

    fn at(index: usize) -> Self {
        Self::new(index / 2, index % 2 == 1)
    }

    /// The id as a place in a table or a set.
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }

    fn place(self) -> usize {
        (self.0 >> 1) as usize
    }

    /// The family of the prefix.
    pub(crate) fn family(self) -> Family {
        if self.is_ipv6() { Family::Ipv6Unicast } else { Family::Ipv4Unicast }
    }

    fn is_ipv6(self) -> bool {
        self.0 & 1 == 1
    }
}

/// What a [`PrefixTable`] has values of: a prefix, and a number that tells several of one prefix apart.
pub(crate) trait Key: Copy {
    /// Takes it apart.
    fn parts(&self) -> (&IpNet, u16);

    /// Puts it together.
    fn of(prefix: IpNet, number: u16) -> Self;
}

impl Key for IpNet {
    fn parts(&self) -> (&IpNet, u16) {
        (self, 0)
    }

    fn of(prefix: IpNet, _: u16) -> Self {
        prefix
    }
}

/// A key, as it is kept.
trait Packed: Copy + Eq + Hash {
    /// No key, as its length is none: where nothing is.
    const VACANT: Self;

    fn unpack<K: Key>(self) -> K;
}

/// Address, length and number.
pub(crate) type Packed4 = u64;

impl Packed for Packed4 {
    const VACANT: Self = Self::MAX;

    #[inline]
    fn unpack<K: Key>(self) -> K {
        let [a, b, c, d, length, _, number @ ..] = self.to_be_bytes();
        // What was packed has a length that fits.
        let prefix = Ipv4Net::new(Ipv4Addr::new(a, b, c, d), length).unwrap_or_default();
        K::of(prefix.into(), u16::from_be_bytes(number))
    }
}

/// Address, and length and number as with IPv4.
pub(crate) type Packed6 = ([u64; 2], u32);

impl Packed for Packed6 {
    const VACANT: Self = ([u64::MAX; 2], u32::MAX);

    #[inline]
    fn unpack<K: Key>(self) -> K {
        let ([high, low], rest) = self;
        let [length, _, number @ ..] = rest.to_be_bytes();
        let address = Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low));
        K::of(Ipv6Net::new(address, length).unwrap_or_default().into(), u16::from_be_bytes(number))
    }
}

/// A key as tables keep it: what a key of one table is in another, without taking it apart. A prefix is the same as its key with the
/// number 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PackedKey {
    /// An IPv4 prefix.
    Ipv4(Packed4),
    /// An IPv6 prefix.
    Ipv6(Packed6),
}

impl PackedKey {
    /// Packs a key.
    #[inline]
    pub(crate) fn of<K: Key>(key: &K) -> Self {
        let (prefix, number) = key.parts();
        let rest = |length: u8| u32::from(length) << 24 | u32::from(number);
        match prefix {
            IpNet::V4(prefix) => {
                let rest = rest(prefix.prefix_len());
                Self::Ipv4(u64::from(prefix.addr().to_bits()) << 32 | u64::from(rest))
            }
            IpNet::V6(prefix) => {
                let address = prefix.addr().to_bits();
                // The lower half is cut off on purpose.
                Self::Ipv6(([(address >> 64) as u64, address as u64], rest(prefix.prefix_len())))
            }
        }
    }

    /// Unpacks it.
    pub(crate) fn key<K: Key>(self) -> K {
        match self {
            Self::Ipv4(key) => key.unpack(),
            Self::Ipv6(key) => key.unpack(),
        }
    }
}

/// A place for a prefix, vacant or not. That it says so by its key saves the room of a flag.
#[derive(Debug)]
struct Slot<P, V> {
    key: P,
    value: V,
}

impl<P: Packed, V: Default> Slot<P, V> {
    fn is_taken(&self) -> bool {
        self.key != P::VACANT
    }

    /// Makes it vacant; what was there, if there was anything.
    fn take(&mut self) -> Option<P> {
        let key = std::mem::replace(&mut self.key, P::VACANT);
        let was_taken = key != P::VACANT;
        if was_taken {
            self.value = V::default();
        }
        was_taken.then_some(key)
    }
}

/// The prefixes of one family.
#[derive(Debug)]
struct Half<P, V> {
    /// Places, by the hash of what is there, or was: see [`Half::remove_all`]. What counts is the slot.
    index: HashTable<u32>,
    slots: Vec<Slot<P, V>>,
    free: Vec<u32>,
    /// How many slots are taken.
    len: usize,
}

impl<P, V> Default for Half<P, V> {
    fn default() -> Self {
        Self { index: HashTable::new(), slots: Vec::new(), free: Vec::new(), len: 0 }
    }
}

/// From how many prefixes on that go at once their places stay in the index until it is made anew. Fewer are taken out: else one prefix
/// that comes and goes would fill it.
const MANY: usize = 1024;

impl<P: Packed, V: Default> Half<P, V> {
    fn find(&self, hash: u64, key: P) -> Option<usize> {
        let is = |place: &u32| self.slots[*place as usize].key == key;
        self.index.find(hash, is).map(|place| *place as usize)
    }

    fn entry(&mut self, hasher: &DefaultHashBuilder, key: P) -> usize {
        let hash = hasher.hash_one(key);
        if let Some(place) = self.find(hash, key) {
            return place;
        }
        let slot = Slot { key, value: V::default() };
        self.len += 1;
        let place = match self.free.pop() {
            Some(place) => {
                self.slots[place as usize] = slot;
                place
            }
            None => {
                self.slots.push(slot);
                u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
            }
        };
        self.index_at(hasher, hash, place);
        place as usize
    }

    /// Puts a place that is not there yet into the index.
    fn index_at(&mut self, hasher: &DefaultHashBuilder, hash: u64, place: u32) {
        if self.index.len() == self.index.capacity() {
            // One more than twice as many would take four times the memory.
            self.index_anew(hasher, 2 * (self.len - 1));
        } else {
            let hash_of = |place: &u32| hash_at(&self.slots, hasher, *place);
            self.index.insert_unique(hash, place, hash_of);
        }
    }

    /// Makes the index anew, in the order of the slots: in that of the index, every look at a slot would be one at memory far away.
    fn index_anew(&mut self, hasher: &DefaultHashBuilder, capacity: usize) {
        let slots = &self.slots;
        let mut index = HashTable::with_capacity(capacity);
        for (place, _) in (0_u32..).zip(slots).filter(|(_, slot)| slot.is_taken()) {
            index.insert_unique(hash_at(slots, hasher, place), place, |other| hash_at(slots, hasher, *other));
        }
        self.index = index;
    }

    fn remove(&mut self, hasher: &DefaultHashBuilder, place: usize) {
        if let Some(key) = self.slots[place].take()
            && let Ok(found) = self.index.find_entry(hasher.hash_one(key), |other| *other as usize == place)
        {
            self.free.push(found.remove().0);
            self.len -= 1;
        }
    }

    /// Takes many out. Each place in the index is far from the others: they stay until it is full, or there is little else in it.
    fn remove_all(&mut self, hasher: &DefaultHashBuilder, places: impl Iterator<Item = usize>) {
        for place in places {
            if self.slots[place].take().is_some() {
                self.free.push(u32::try_from(place).unwrap_or(u32::MAX));
                self.len -= 1;
            }
        }
        if self.len == 0 {
            *self = Self::default();
        } else if self.len < self.index.len() / 8 {
            self.index_anew(hasher, 2 * self.len);
        }
    }

    #[inline]
    fn slot(&self, place: usize) -> &Slot<P, V> {
        let slot = &self.slots[place];
        assert!(slot.is_taken(), "{place} is named but was removed");
        slot
    }

    #[inline]
    fn slot_mut(&mut self, place: usize) -> &mut Slot<P, V> {
        let slot = &mut self.slots[place];
        assert!(slot.is_taken(), "{place} is named but was removed");
        slot
    }

    fn walk_mut<K: Key>(&mut self) -> impl Iterator<Item = (usize, K, &mut V)> {
        let slots = self.slots.iter_mut().enumerate().filter(|(_, slot)| slot.is_taken());
        slots.map(|(place, slot)| (place, slot.key.unpack(), &mut slot.value))
    }

    fn walk<K: Key>(&self, from: usize) -> impl Iterator<Item = (usize, K, &V)> {
        let slots = self.slots.get(from..).unwrap_or_default().iter().enumerate();
        let slots = slots.filter(|(_, slot)| slot.is_taken());
        slots.map(move |(i, slot)| (from + i, slot.key.unpack(), &slot.value))
    }

    fn at_mut<K: Key>(&mut self, place: usize) -> Option<(K, &mut V)> {
        let slot = self.slots.get_mut(place).filter(|slot| slot.is_taken())?;
        Some((slot.key.unpack(), &mut slot.value))
    }

    fn at<K: Key>(&self, place: usize) -> Option<(K, &V)> {
        let slot = self.slots.get(place).filter(|slot| slot.is_taken())?;
        Some((slot.key.unpack(), &slot.value))
    }
}

/// The hash of what is at a place; nothing is there: any.
fn hash_at<P: Packed, V>(slots: &[Slot<P, V>], hasher: &DefaultHashBuilder, place: u32) -> u64 {
    hasher.hash_one(slots[place as usize].key)
}

/// Prefix → value, hashed for lookup and dense for walks. The hash is seeded per table, so that a peer cannot choose what collides.
#[derive(Debug)]
pub(crate) struct PrefixTable<V, K = IpNet> {
    ipv4: Half<Packed4, V>,
    ipv6: Half<Packed6, V>,
    hasher: DefaultHashBuilder,
    key: PhantomData<fn() -> K>,
}

impl<V, K> Default for PrefixTable<V, K> {
    fn default() -> Self {
        let (ipv4, ipv6) = (Half::default(), Half::default());
        Self { ipv4, ipv6, hasher: DefaultHashBuilder::default(), key: PhantomData }
    }
}

impl<V: Default, K: Key> PrefixTable<V, K> {
    /// The id of a prefix, if the table has it.
    #[inline]
    pub(crate) fn find(&self, key: &K) -> Option<PrefixId> {
        self.find_packed(PackedKey::of(key))
    }

    /// The same.
    #[inline]
    pub(crate) fn find_packed(&self, key: PackedKey) -> Option<PrefixId> {
        match key {
            PackedKey::Ipv4(key) => {
                self.ipv4.find(self.hasher.hash_one(key), key).map(|place| PrefixId::new(place, false))
            }
            PackedKey::Ipv6(key) => {
                self.ipv6.find(self.hasher.hash_one(key), key).map(|place| PrefixId::new(place, true))
            }
        }
    }

    /// Makes the processor fetch what it takes to find these prefixes, all at once as nothing here waits for one of them: each is far from
    /// the others, in memory that was used long ago.
    pub(crate) fn look_ahead(&self, keys: impl Iterator<Item = PackedKey>) {
        std::hint::black_box(keys.filter(|key| self.find_packed(*key).is_some()).count());
    }

    /// The id of a prefix, which is put in with a default value if it is new.
    #[inline]
    pub(crate) fn entry(&mut self, key: &K) -> PrefixId {
        self.entry_packed(PackedKey::of(key))
    }

    /// The same.
    #[inline]
    pub(crate) fn entry_packed(&mut self, key: PackedKey) -> PrefixId {
        match key {
            PackedKey::Ipv4(key) => PrefixId::new(self.ipv4.entry(&self.hasher, key), false),
            PackedKey::Ipv6(key) => PrefixId::new(self.ipv6.entry(&self.hasher, key), true),
        }
    }

    /// Takes a prefix out; its id may name another from now on.
    pub(crate) fn remove(&mut self, id: PrefixId) {
        match id.is_ipv6() {
            false => self.ipv4.remove(&self.hasher, id.place()),
            true => self.ipv6.remove(&self.hasher, id.place()),
        }
    }

    /// Takes prefixes out, each named once.
    pub(crate) fn remove_all(&mut self, ids: &[PrefixId]) {
        if ids.len() < MANY {
            return ids.iter().for_each(|id| self.remove(*id));
        }
        let (ipv4, ipv6) = (ids.iter().filter(|id| !id.is_ipv6()), ids.iter().filter(|id| id.is_ipv6()));
        self.ipv4.remove_all(&self.hasher, ipv4.map(|id| id.place()));
        self.ipv6.remove_all(&self.hasher, ipv6.map(|id| id.place()));
    }

    /// The prefix.
    #[inline]
    pub(crate) fn prefix(&self, id: PrefixId) -> K {
        match id.is_ipv6() {
            false => self.ipv4.slot(id.place()).key.unpack(),
            true => self.ipv6.slot(id.place()).key.unpack(),
        }
    }

    /// The prefix as it is kept.
    #[inline]
    pub(crate) fn packed(&self, id: PrefixId) -> PackedKey {
        match id.is_ipv6() {
            false => PackedKey::Ipv4(self.ipv4.slot(id.place()).key),
            true => PackedKey::Ipv6(self.ipv6.slot(id.place()).key),
        }
    }

    /// The value.
    #[inline]
    pub(crate) fn get(&self, id: PrefixId) -> &V {
        match id.is_ipv6() {
            false => &self.ipv4.slot(id.place()).value,
            true => &self.ipv6.slot(id.place()).value,
        }
    }

    /// The value, to change.
    #[inline]
    pub(crate) fn get_mut(&mut self, id: PrefixId) -> &mut V {
        match id.is_ipv6() {
            false => &mut self.ipv4.slot_mut(id.place()).value,
            true => &mut self.ipv6.slot_mut(id.place()).value,
        }
    }

    /// The prefixes at `from` and behind, in the order of ids; where a walk in pieces goes on.
    pub(crate) fn walk(&self, from: usize) -> impl Iterator<Item = (PrefixId, K, &V)> {
        // As far as both halves go their places alternate; behind that there is one half alone.
        let both = 2 * self.ipv4.slots.len().min(self.ipv6.slots.len());
        let rest = from.max(both);
        let both = (from..both).map(PrefixId::at).filter_map(|id| {
            let (key, value) =
                if id.is_ipv6() { self.ipv6.at(id.place()) } else { self.ipv4.at(id.place()) }?;
            Some((id, key, value))
        });
        let ipv4 = self.ipv4.walk(rest.div_ceil(2));
        let ipv4 = ipv4.map(|(place, key, value)| (PrefixId::new(place, false), key, value));
        let ipv6 = self.ipv6.walk(rest / 2);
        let ipv6 = ipv6.map(|(place, key, value)| (PrefixId::new(place, true), key, value));
        both.chain(ipv4).chain(ipv6)
    }

    /// How many places there are, prefixes' and free ones.
    pub(crate) fn places(&self) -> usize {
        2 * self.ipv4.slots.len().max(self.ipv6.slots.len())
    }

    /// The prefix at a place, its value to change.
    pub(crate) fn at_mut(&mut self, place: usize) -> Option<(PrefixId, K, &mut V)> {
        let id = PrefixId::at(place);
        match id.is_ipv6() {
            false => self.ipv4.at_mut(id.place()).map(|(key, value)| (id, key, value)),
            true => self.ipv6.at_mut(id.place()).map(|(key, value)| (id, key, value)),
        }
    }

    /// Every prefix, its value to change: those of IPv4, then those of IPv6.
    pub(crate) fn walk_mut(&mut self) -> impl Iterator<Item = (PrefixId, K, &mut V)> {
        let ipv4 = self.ipv4.walk_mut().map(|(place, key, value)| (PrefixId::new(place, false), key, value));
        let ipv6 = self.ipv6.walk_mut().map(|(place, key, value)| (PrefixId::new(place, true), key, value));
        ipv4.chain(ipv6)
    }

    /// How many prefixes there are.
    pub(crate) fn len(&self) -> usize {
        self.ipv4.len + self.ipv6.len
    }
}

impl<V: Default> PrefixTable<V> {
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
        let a = table.entry(&net("10.0.0.0/8"));
        *table.get_mut(a) = 7;
        assert_eq!(table.entry(&net("10.0.0.0/8")), a);
        assert_eq!((table.find(&net("10.0.0.0/9")), *table.get(a)), (None, 7));
        let other = table.entry(&net("2001:db8::/32"));
        assert_eq!((table.prefix(a), table.prefix(other)), (net("10.0.0.0/8"), net("2001:db8::/32")));
        table.remove(a);
        assert_eq!((table.find(&net("10.0.0.0/8")), table.len()), (None, 1));
        let b = table.entry(&net("10.0.0.0/9"));
        assert_eq!((b, *table.get(b), table.prefix(b)), (a, 0, net("10.0.0.0/9")));
    }

    #[test]
    fn many_that_go_at_once_are_gone_and_may_come_back() {
        let mut table: PrefixTable<u32> = PrefixTable::default();
        let key = |n: u32| IpNet::from(Ipv4Net::new(Ipv4Addr::from(n << 8), 24).unwrap());
        let kept = table.entry(&key(0));
        let many = u32::try_from(MANY).unwrap();
        for round in 1..20 {
            // Each round's numbers overlap with those of the one before.
            let numbers = || round * 100..round * 100 + 3 * many;
            let ids: Vec<PrefixId> = numbers().map(|n| table.entry(&key(n))).collect();
            ids.iter().zip(numbers()).for_each(|(id, n)| *table.get_mut(*id) = n);
            assert_eq!(table.len(), ids.len() + 1);
            let (gone, stay) = ids.split_at(ids.len() / 2);
            table.remove_all(gone);
            assert_eq!(table.len(), stay.len() + 1);
            for n in numbers() {
                let found = table.find(&key(n)).map(|id| (*table.get(id), table.prefix(id)));
                assert_eq!(found.is_some(), n >= numbers().start + 3 * many / 2, "{n} in round {round}");
                assert!(found.is_none_or(|found| found == (n, key(n))), "{found:?} for {n}");
            }
            table.remove_all(stay);
            assert_eq!((table.find(&key(0)), table.len()), (Some(kept), 1));
        }
        let index = table.ipv4.index.len();
        assert!(index <= 8, "{index} places in the index for one prefix");
        assert_eq!(table.walk(0).count(), 1);
    }

    #[test]
    fn covering_gives_the_longest_first() {
        let mut table: PrefixTable<()> = PrefixTable::default();
        for text in ["0.0.0.0/0", "10.0.0.0/8", "10.1.2.3/32", "10.1.0.0/16", "::/0"] {
            table.entry(&net(text));
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
            table.entry(&net(&format!("10.{i}.0.0/16")));
        }
        table.remove(PrefixId::new(3, false));
        table.entry(&net("2001:db8::/32"));
        let walk = |from, to| -> Vec<usize> {
            let ids = table.walk(from).map(|(id, ..)| id.index());
            ids.take_while(|id| *id < to).collect()
        };
        assert_eq!((walk(0, 10), walk(10, 100)), (vec![0, 1, 2, 4, 8], vec![10, 12, 14, 16, 18]));
        assert_eq!(table.walk(0).count(), table.len());
    }
}
