//! The order in which prefixes changed, each at its last change only.

use std::collections::VecDeque;

use crate::arena::prefixes::PrefixId;

/// A place in a [`Journal`]. Places only grow, but for [`Journal::compact`].
pub(super) type Place = u64;

/// Prefixes by their last change. An entry whose prefix changed again is a hole.
#[derive(Debug)]
pub(super) struct Journal {
    entries: VecDeque<Option<PrefixId>>,
    /// The place of the first entry. Places start at 1, so that 0 stands before all.
    start: Place,
    /// The length at which holes are worth looking for.
    compact_at: usize,
}

/// Below this many entries, holes do not matter.
const SMALL: usize = 1024;

impl Default for Journal {
    fn default() -> Self {
        Self { entries: VecDeque::new(), start: 1, compact_at: SMALL }
    }
}

impl Journal {
    /// The place of the first entry.
    pub(super) fn start(&self) -> Place {
        self.start
    }

    /// The place behind the last entry.
    pub(super) fn end(&self) -> Place {
        self.start + self.entries.len() as Place
    }

    fn index(&self, place: Place) -> Option<usize> {
        usize::try_from(place.checked_sub(self.start)?).ok()
    }

    /// Puts an entry at the end; its place.
    pub(super) fn push(&mut self, id: PrefixId) -> Place {
        self.entries.push_back(Some(id));
        self.end() - 1
    }

    /// Makes an entry a hole.
    pub(super) fn strike(&mut self, place: Place) {
        if let Some(entry) = self.index(place).and_then(|i| self.entries.get_mut(i)) {
            *entry = None;
        }
    }

    /// The entries from a place on, holes left out.
    pub(super) fn read(&self, from: Place) -> impl Iterator<Item = (Place, PrefixId)> {
        let first = self.index(from.max(self.start)).unwrap_or(0).min(self.entries.len());
        let start = self.start;
        let entries = self.entries.range(first..).enumerate();
        entries.filter_map(move |(i, id)| id.map(|id| (start + (first + i) as Place, id)))
    }

    /// Takes the first entry out, if it stands before `limit`; a hole gives nothing.
    pub(super) fn pop_before(&mut self, limit: Place) -> Option<Option<(Place, PrefixId)>> {
        if self.start >= limit {
            return None;
        }
        let entry = self.entries.pop_front()?;
        let place = self.start;
        self.start += 1;
        Some(entry.map(|id| (place, id)))
    }

    /// Whether it has grown so much since the last time that compaction costs little per entry.
    pub(super) fn is_due(&self) -> bool {
        self.entries.len() >= self.compact_at
    }

    /// Closes the holes, after those entries that `keep` does not want have become such. `keep` is told each entry's old place and
    /// its new one. Gives what turns an old place into the new one.
    pub(super) fn compact(&mut self, mut keep: impl FnMut(PrefixId, Place, Place) -> bool) -> Moved {
        let start = self.start;
        let mut kept = VecDeque::new();
        let mut moved = Vec::with_capacity(self.entries.len());
        for (i, entry) in std::mem::take(&mut self.entries).into_iter().enumerate() {
            let new = start + kept.len() as Place;
            moved.push(new);
            if let Some(id) = entry
                && keep(id, start + i as Place, new)
            {
                kept.push_back(Some(id));
            }
        }
        let end = start + kept.len() as Place;
        self.compact_at = SMALL.max(kept.len() * 2);
        self.entries = kept;
        Moved { start, places: moved, end }
    }
}

/// Where places have gone in a compaction.
#[derive(Debug)]
pub(super) struct Moved {
    start: Place,
    /// The new place of each old one, from `start` on.
    places: Vec<Place>,
    end: Place,
}

impl Moved {
    /// The new place: of the entry that stood there, or of the next that was kept.
    pub(super) fn to(&self, place: Place) -> Place {
        match place.checked_sub(self.start).and_then(|i| usize::try_from(i).ok()) {
            None => place,
            Some(i) => self.places.get(i).copied().unwrap_or(self.end),
        }
    }
}
