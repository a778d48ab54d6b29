//! Objects none of whose routes is wanted any more: the kernel takes the routes along when such a one is deleted, by one message however many
//! they are.
//!
//! For that it goes through every IPv4 route that it has (`fib_flush`), and lets nobody else write meanwhile: worth it only where many go.

use std::collections::BTreeSet;
use std::time::Instant;

use super::Engine;
use super::batch::BATCH;
use crate::fib::Fib;
use crate::route::NextHops;

/// How many routes over an object are worth it.
const ROUTES_MIN: usize = 256;
/// And how many of all: for each that the kernel goes through it takes a sixth of what it takes to delete one by a message.
const SHARE: usize = 5;
/// Of how many routes at most, so that others wait for less than a tenth of a second.
const ALL_MAX: usize = 1 << 17;
/// How many objects go at once. What was asked for meanwhile comes before the others.
const AT_ONCE: usize = 4;
/// How many routes to be deleted are taken before others at least, as long as no object is worth it: to find them is a look at every route.
const ADVANCED: usize = 16 * BATCH;

impl Engine {
    /// Deletes some of them, or does what has to come before; says whether it did. What waits to be deleted of their routes turns out to be gone.
    ///
    /// Where each has too small a part of the routes, those over one after the other are deleted first: the fewer are left, the less it takes to go
    /// through them.
    pub(super) fn delete_deserted(&mut self, now: Instant, fib: &mut impl Fib) -> bool {
        let deserted = self.deserted();
        if deserted.is_empty() {
            return false;
        }
        let ids = self.worth_it(&deserted);
        if ids.is_empty() {
            if self.table.advanced_count() < BATCH && self.all() <= ALL_MAX {
                let fewest_first: Vec<u32> = deserted.iter().rev().map(|(_, id)| *id).collect();
                self.table.advance(&fewest_first, ADVANCED);
            }
            return false;
        }
        if !self.under_way.is_empty() {
            // It may be about the same routes, and may not become what it should.
            self.finish(now, fib);
            return self.table.unfinished() > 0;
        }
        let (gone, swept) = self.objects.delete(&ids, fib);
        self.counters.writes = self.counters.writes.saturating_add(swept.writes);
        self.table.forget_over(|id| !gone.contains(&id));
        if swept.is_unsure {
            self.objects_stale = true;
            self.ask_resync(now);
        }
        !gone.is_empty()
    }

    /// All of which that can be said for certain, with how many routes each has; those with the most first.
    fn deserted(&self) -> Vec<(usize, u32)> {
        let is_unsure = self.stale || self.resync_at.is_some() || !self.adopted.is_empty();
        // What is wanted comes before what is not, so that there is never a gap.
        if is_unsure || self.table.are_owed() || self.table.unfinished() < ROUTES_MIN {
            return Vec::new();
        }
        let is_meant = |(routes, id): &(usize, u32)| *routes >= ROUTES_MIN && self.objects.can_go(*id);
        let mut deserted: Vec<(usize, u32)> = self.table.deserted().filter(is_meant).collect();
        if deserted.is_empty() {
            return deserted;
        }
        // A learned route may be to go over one though none does.
        let legs = deserted.iter().filter_map(|(_, id)| self.objects.legs(*id)).cloned().collect();
        let wanted = self.learned.with_legs(&legs).into_iter().filter_map(|set| self.learned.get(set));
        let wanted: BTreeSet<&NextHops> = wanted.map(|set| &set.legs).collect();
        deserted.retain(|(_, id)| self.objects.legs(*id).is_some_and(|legs| !wanted.contains(legs)));
        deserted.sort_unstable_by(|a, b| b.cmp(a));
        deserted
    }

    /// How many routes the kernel goes through.
    fn all(&self) -> usize {
        self.table.held_count().saturating_add(self.view.topology.foreign_count())
    }

    /// Those of them that are worth it.
    fn worth_it(&self, deserted: &[(usize, u32)]) -> Vec<u32> {
        let mut all = self.all();
        let mut ids = Vec::new();
        for (routes, id) in deserted.iter().take(AT_ONCE) {
            if all > ALL_MAX || routes.saturating_mul(SHARE) < all {
                break;
            }
            all = all.saturating_sub(*routes);
            ids.push(*id);
        }
        ids
    }
}
