//! What an update group's Adj-RIB-Out is told to change. There may be a table's worth of changes between two threads: they take few bytes,
//! and none of them holds a reference of its own.

use std::sync::Arc;

use super::PathKey;
use crate::arena::prefixes::{LOOK_AHEAD, Packed4, Packed6, PackedKey};
use crate::types::PeerId;
use crate::wire::attributes::PathAttributes;

/// Changes of an Adj-RIB-Out, after export policy and attribute rewriting: those of each family in order.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// Of the routes that are announced, once for those that come one behind the other.
    sets: Vec<Arc<PathAttributes>>,
    ipv4: Vec<(Packed4, Option<Advertised>)>,
    ipv6: Vec<(Packed6, Option<Advertised>)>,
    /// How many there may be.
    expected: usize,
}

/// A route as it is announced.
#[derive(Clone, Copy, Debug)]
pub(super) struct Advertised {
    /// Which of [`Changes::sets`].
    pub(super) set: u32,
    /// From whom it was learned: it is not sent back there, nor to the peer that is its next hop. None: our own.
    pub(super) from: Option<PeerId>,
}

impl Changes {
    /// None yet, and about so many to come, nearly always of one family.
    pub(crate) fn expecting(expected: usize) -> Self {
        Self { expected, ..Self::default() }
    }

    /// What this key names is announced with these attributes, from now on.
    #[inline]
    pub(crate) fn announce(
        &mut self,
        key: PackedKey,
        attributes: &Arc<PathAttributes>,
        from: Option<PeerId>,
    ) {
        if !self.sets.last().is_some_and(|last| Arc::ptr_eq(last, attributes)) {
            self.sets.push(Arc::clone(attributes));
        }
        // A set has a change at least, of which there are fewer than that.
        let set = u32::try_from(self.sets.len() - 1).unwrap_or(u32::MAX);
        self.push(key, Some(Advertised { set, from }));
    }

    /// It is announced no more.
    #[inline]
    pub(crate) fn withdraw(&mut self, key: PackedKey) {
        self.push(key, None);
    }

    #[inline]
    fn push(&mut self, key: PackedKey, route: Option<Advertised>) {
        match key {
            PackedKey::Ipv4(key) => push(&mut self.ipv4, self.expected, (key, route)),
            PackedKey::Ipv6(key) => push(&mut self.ipv6, self.expected, (key, route)),
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ipv4.len() + self.ipv6.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What changes.
    pub(crate) fn keys(&self) -> impl Iterator<Item = PathKey> {
        let ipv4 = self.ipv4.iter().map(|(key, _)| PackedKey::Ipv4(*key));
        let ipv6 = self.ipv6.iter().map(|(key, _)| PackedKey::Ipv6(*key));
        ipv4.chain(ipv6).map(PackedKey::key)
    }

    /// The attributes that [`Advertised::set`] counts.
    pub(super) fn sets(&self) -> &[Arc<PathAttributes>] {
        &self.sets
    }

    /// Every change, a few at a time.
    pub(super) fn pieces(
        &self,
    ) -> impl Iterator<Item = impl Iterator<Item = (PackedKey, Option<Advertised>)> + Clone> {
        let ipv4 = self.ipv4.chunks(LOOK_AHEAD).map(|piece| (piece, <&[_]>::default()));
        let ipv6 = self.ipv6.chunks(LOOK_AHEAD).map(|piece| (<&[_]>::default(), piece));
        ipv4.chain(ipv6).map(|(ipv4, ipv6)| {
            let ipv4 = ipv4.iter().map(|(key, route)| (PackedKey::Ipv4(*key), *route));
            ipv4.chain(ipv6.iter().map(|(key, route)| (PackedKey::Ipv6(*key), *route)))
        })
    }
}

#[inline]
fn push<T>(changes: &mut Vec<T>, expected: usize, change: T) {
    if changes.capacity() == 0 {
        changes.reserve(expected);
    }
    changes.push(change);
}
