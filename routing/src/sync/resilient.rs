//! Routes over resilient groups: which leave theirs, and which take it along.

use std::collections::{BTreeMap, BTreeSet};

use super::Engine;
use super::table::Place;
use crate::fib::Write;
use crate::route::{Action, Route, RouteKey};

impl Engine {
    /// Routes over groups that are not of the kind that is asked for are to go over others.
    pub(super) fn leave_unsuited(&mut self) {
        let unsuited = self.objects.unsuited();
        if unsuited.is_empty() {
            return;
        }
        let leaves = |id: Option<u32>| id.is_some_and(|id| unsuited.contains(&id));
        let routes = self.table.routes().filter(|route| leaves(over(route))).map(|route| route.key);
        let under_way = self.under_way.iter().flatten().filter(|(_, write)| leaves(write.object()));
        let under_way = under_way.filter_map(|(place, _)| Some(self.table.known_at(*place)?.key));
        let keys: BTreeSet<RouteKey> = routes.chain(under_way).collect();
        self.table.mark_all(keys);
    }

    /// Where all routes over a resilient group leave it for the same other, the group becomes what the other stands for, in place: its buckets
    /// stay, and so do the flows in them. One that some of its routes stay over cannot: those that leave begin anew elsewhere.
    pub(super) fn keep_buckets(&mut self, writes: &mut Vec<(Place, Write)>) {
        let left = self.left_for_one(writes);
        let mut kept: BTreeMap<u32, u32> = BTreeMap::new();
        // Who goes over a group that is not made after all goes over one that takes its place.
        let mut instead: BTreeMap<u32, u32> = BTreeMap::new();
        for (from, to) in left {
            let of = instead.get(&to).copied().unwrap_or(to);
            if let Some(is_new) = self.objects.take_place(from, of) {
                kept.insert(from, to);
                if is_new {
                    instead.insert(to, from);
                }
            }
        }
        if kept.is_empty() {
            return;
        }
        self.objects.litter();
        let table = &mut self.table;
        writes.retain_mut(|(place, write)| {
            let actual = table.known_at(*place).and_then(|known| known.held);
            let (Write::Add(route) | Write::Replace(route)) = write else { return true };
            let Action::Object(to) = route.action else { return true };
            let stays = actual.as_deref().and_then(over).filter(|from| kept.get(from) == Some(&to));
            if let Some(group) = stays.or_else(|| instead.get(&to).copied()) {
                route.action = Action::Object(group);
            }
            let is_done = actual.as_deref() == Some(&*route);
            if is_done {
                table.done(*place);
            }
            !is_done
        });
    }

    /// The resilient groups that all of their routes leave for one other, and for which.
    fn left_for_one(&self, writes: &[(Place, Write)]) -> Vec<(u32, u32)> {
        if self.objects.resilience().is_none() {
            return Vec::new();
        }
        let mut leaving: BTreeMap<u32, BTreeMap<u32, usize>> = BTreeMap::new();
        for (place, write) in writes {
            let Write::Replace(route) = write else { continue };
            let held = self.table.known_at(*place).and_then(|known| known.held);
            if let (Some(from), Some(to)) = (held.as_deref().and_then(over), over(route)) {
                let count = leaving.entry(from).or_default().entry(to).or_default();
                *count = count.saturating_add(1);
            }
        }
        // One that others come to, or stay over though something else of them changes, is not left.
        let joined: BTreeSet<u32> = writes.iter().filter_map(|(_, write)| write.object()).collect();
        let all = |(from, to): (u32, BTreeMap<u32, usize>)| {
            let (to, count) = to.into_iter().next()?;
            (count == self.table.over(from) && !joined.contains(&from)).then_some((from, to))
        };
        leaving.into_iter().filter_map(all).collect()
    }
}

/// The nexthop object that a route goes over.
fn over(route: &Route) -> Option<u32> {
    match route.action {
        Action::Object(id) => Some(id),
        _ => None,
    }
}
