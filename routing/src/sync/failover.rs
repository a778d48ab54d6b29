//! What is done to groups of legs instead of to routes, as next hops come and go.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::Engine;
use super::report::Event;
use super::wanted::{Set, SetId};
use crate::fib::Fib;
use crate::netlink::{Error, Link};
use crate::nexthop::Nexthops;
use crate::resolve::NextHopRef;
use crate::route::{Action, NextHops, Route};

impl Engine {
    /// Nobody offers these next hops any more, and the routes that follow from that are still to be told. Until then routes do without
    /// them where they have others. What is told of a next hop later counts again.
    pub fn lost(&mut self, next_hops: Vec<NextHopRef>) {
        if self.learned.lose(next_hops.iter().copied()) {
            self.move_sets(|next_hop| next_hops.contains(next_hop));
        }
    }

    /// Makes the legs of learned routes anew that have a next hop which `concerns`. Routes whose legs all become the same others stay as they are: their group does.
    pub(super) fn move_sets(&mut self, concerns: impl Fn(&NextHopRef) -> bool) {
        let resolutions = &self.resolutions;
        let resolved = |next_hop: &NextHopRef| resolutions.get(next_hop).cloned().unwrap_or_default();
        let moves = self.learned.resolve(concerns, resolved);
        let mut apart = self.objects.redirect(&moves.together);
        apart.extend(moves.apart.iter().cloned());
        self.mark_sets(&self.learned.moved_from(&moves, &apart));
    }

    /// The routes with these sets are to be compared.
    fn mark_sets(&mut self, sets: &BTreeSet<SetId>) {
        if !sets.is_empty() {
            self.table.mark_all(self.table.learned_keys(|set| sets.contains(&set)));
        }
    }

    /// Looks which nexthop objects the kernel has.
    pub(super) fn look(&mut self, now: Instant, fib: &mut impl Fib) {
        match fib.nexthops() {
            Ok(nexthops) => self.take_objects(nexthops.as_ref()),
            Err(error) => {
                tracing::warn!(%error, "cannot read the nexthop objects; reading everything");
                self.ask_resync(now);
            }
        }
    }

    /// Takes in which nexthop objects the kernel has. The routes over those that are gone went with them.
    pub(super) fn take_objects(&mut self, nexthops: Option<&Nexthops>) {
        self.objects_stale = false;
        self.objects.look(nexthops);
        let objects = &self.objects;
        let gone = self.table.forget_over(|id| objects.has(id));
        self.drifted.extend(&gone);
        self.table.mark_all(gone);
        self.leave_unsuited();
    }

    /// Writes the groups that have moved, and those that routes are about to go over; gives those that are not there, and why.
    pub(super) fn write_groups(
        &mut self,
        now: Instant,
        fib: &mut impl Fib,
        besides: &BTreeSet<u32>,
    ) -> BTreeMap<u32, Error> {
        let topology = &self.view.topology;
        let is_running = |link| topology.link(link).is_some_and(Link::is_running);
        let outcome = self.objects.write(fib, besides, is_running);
        self.counters.writes = self.counters.writes.saturating_add(outcome.writes);
        if outcome.mistaken {
            self.objects_stale = true;
        }
        if outcome.mistaken || outcome.is_behind {
            self.ask_resync(now);
        }
        if outcome.not_resilient {
            self.leave_unsuited();
        }
        self.mark_sets(&self.learned.with_legs(&outcome.given_up.into_iter().collect()));
        for id in outcome.repaired {
            let routes = self.table.routes().filter(|route| route.action == Action::Object(id));
            let Some(example) = routes.map(|route| route.key).min() else {
                continue;
            };
            let (routes, example) = (self.table.over(id), example.destination());
            self.counters.repairs = self.counters.repairs.saturating_add(routes as u64);
            self.events.push_back(Event::Repaired { routes, example });
        }
        outcome.refused
    }

    /// Deletes the nexthop objects that nothing uses, while it is certain what does.
    pub(super) fn sweep_objects(&mut self, now: Instant, fib: &mut impl Fib) {
        if self.table.unfinished() > 0 || self.stale || self.resync_at.is_some() {
            return;
        }
        let table = &mut self.table;
        if table.take_idle() {
            self.objects.litter();
        }
        let swept = self.objects.sweep(fib, |id| table.over(id) > 0);
        self.counters.writes = self.counters.writes.saturating_add(swept.writes);
        if swept.is_unsure {
            self.ask_resync(now);
        }
    }

    /// What a learned route with this set does: it stays over the group that it goes over if that stands for the set's legs.
    pub(super) fn by_group(&self, set: &Set, held: Option<&Route>) -> Action {
        let legs = &set.legs;
        if !self.objects.serve(legs) {
            return Action::Forward(legs.clone());
        }
        let held = match held {
            Some(Route { action: Action::Object(id), .. }) => Some(*id),
            _ => None,
        };
        let serves = |id: &u32| self.objects.serves(*id, legs);
        let group = held.filter(serves).or_else(|| set.object.filter(serves));
        group
            .or_else(|| self.objects.find(legs))
            .map_or_else(|| Action::Forward(legs.clone()), Action::Object)
    }

    /// The legs of a route.
    pub(super) fn legs_of<'a>(&'a self, action: &'a Action) -> Option<&'a NextHops> {
        match action {
            Action::Forward(legs) => Some(legs),
            Action::Object(id) => self.objects.legs(*id),
            Action::Unreachable | Action::Blackhole | Action::Other(_) => None,
        }
    }
}
