//! Attribute sets that were decoded before, by their bytes.

use std::hash::{BuildHasher, BuildHasherDefault};
use std::sync::Arc;

use rustc_hash::FxHasher;

use crate::wire::attributes::PathAttributes;

/// A direct-mapped cache: every key has one place, and the newest has it. So its size and the time of a look-up are bounded, whatever a
/// peer sends.
#[derive(Debug, Default)]
pub(super) struct Cache {
    places: Vec<Option<Entry>>,
}

#[derive(Debug)]
struct Entry {
    key: Box<[u8]>,
    attributes: Arc<PathAttributes>,
}

impl Cache {
    /// How many sets are kept.
    const PLACES: usize = 1024;
    /// Longer keys are not kept; they are rare, and memory is dear.
    const KEY_MAX: usize = 512;

    fn place(key: &[u8]) -> usize {
        // The hash's upper half is the better mixed one.
        let hash = BuildHasherDefault::<FxHasher>::default().hash_one(key) >> 32;
        usize::try_from(hash).unwrap_or(0) % Self::PLACES
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<&Arc<PathAttributes>> {
        match self.places.get(Self::place(key)) {
            Some(Some(entry)) if *entry.key == *key => Some(&entry.attributes),
            _ => None,
        }
    }

    pub(super) fn insert(&mut self, key: &[u8], attributes: Arc<PathAttributes>) {
        if key.len() > Self::KEY_MAX {
            return;
        }
        if self.places.is_empty() {
            self.places.resize_with(Self::PLACES, || None);
        }
        if let Some(place) = self.places.get_mut(Self::place(key)) {
            *place = Some(Entry { key: key.into(), attributes });
        }
    }
}
