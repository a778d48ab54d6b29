//! The nexthop objects that learned routes go over: what the kernel has of them, and what they should stand for.
//!
//! A route goes over a group, of one leg too: what a group stands for is changed by one message, however many routes go over it. A group is
//! known by its legs, so that routes with equal legs share it whatever next hops these come from. After a change two groups may
//! stand for the same legs; either serves, and the one that no route goes over any more is deleted.

use std::collections::{BTreeMap, BTreeSet};

use crate::fib::{Fib, Write};
use crate::netlink::Error;
use crate::nexthop::{Nexthop, NexthopKind, Nexthops, OWN_IDS};
use crate::route::{NextHop, NextHops, Protocol};

/// A group.
#[derive(Debug)]
struct Group {
    /// What it is to stand for.
    wanted: NextHops,
    /// What it stands for in the kernel; `None`: it is not there.
    held: Option<NextHops>,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Objects {
    /// The kernel has such a thing.
    supported: bool,
    groups: BTreeMap<u32, Group>,
    /// Groups by what they are to stand for.
    by_legs: BTreeMap<NextHops, BTreeSet<u32>>,
    /// The objects of single legs that the kernel has.
    legs: BTreeMap<NextHop, u32>,
    /// Groups in the kernel that stand for something else than they are to.
    moved: BTreeSet<u32>,
    /// Those of them that something else changed.
    tampered: BTreeSet<u32>,
    /// Objects of legs that are there twice.
    spare: BTreeSet<u32>,
    /// The ids of ours that something has, or had since the last look.
    taken: BTreeSet<u32>,
    last: u32,
    /// There may be groups that no route goes over, or legs in no group.
    litter: bool,
}

/// What became of writing groups.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Groups that are not in the kernel, and why.
    pub(super) refused: BTreeMap<u32, Error>,
    /// What groups should stand for, and do not: routes with these legs go over others.
    pub(super) given_up: Vec<NextHops>,
    /// Groups that something else had changed and that are as they should be again.
    pub(super) repaired: Vec<u32>,
    /// How many writes were carried out.
    pub(super) writes: u64,
    /// The kernel has not what it was thought to have.
    pub(super) mistaken: bool,
}

impl Objects {
    /// Takes in what the kernel has. Groups that it has not any more are forgotten.
    pub(super) fn look(&mut self, nexthops: Option<&Nexthops>) {
        self.supported = nexthops.is_some();
        let none = Nexthops::default();
        let nexthops = nexthops.unwrap_or(&none);
        (self.legs, self.spare) = Default::default();
        self.litter = true;
        self.taken = self.groups.keys().copied().collect();
        let (mut members, mut groups) = (BTreeSet::new(), Vec::new());
        for object in nexthops.iter().filter(|object| OWN_IDS.contains(&object.id)) {
            self.taken.insert(object.id);
            match &object.kind {
                NexthopKind::Group(legs) if object.is_weft() => {
                    members.extend(legs.iter().map(|(id, _)| *id));
                    groups.push(object.id);
                }
                NexthopKind::Leg(leg) if object.is_weft() => {
                    self.spare.extend(self.legs.insert(*leg, object.id));
                }
                _ => {}
            }
        }
        self.spare.retain(|id| !members.contains(id));
        for id in groups {
            let held = nexthops.legs(id);
            let group = self.groups.entry(id).or_insert_with(|| Group { wanted: held.clone(), held: None });
            self.by_legs.entry(group.wanted.clone()).or_default().insert(id);
            if group.wanted != held {
                self.moved.insert(id);
                if group.held.as_ref() != Some(&held) {
                    self.tampered.insert(id);
                }
            }
            group.held = Some(held);
        }
        let is_gone = |(id, group): (&u32, &Group)| {
            let there = nexthops.get(*id).is_some_and(Nexthop::is_weft_group);
            (group.held.is_some() && !there).then_some(*id)
        };
        let gone: Vec<u32> = self.groups.iter().filter_map(is_gone).collect();
        gone.into_iter().for_each(|id| self.forget(id));
    }

    /// Whether the kernel has a group of ours with this id.
    pub(super) fn has(&self, id: u32) -> bool {
        self.groups.get(&id).is_some_and(|group| group.held.is_some())
    }

    /// Whether routes with these legs go over a group.
    pub(super) fn serve(&self, legs: &NextHops) -> bool {
        self.supported && !legs.is_empty() && legs.iter().all(|leg| leg.gateway.is_some())
    }

    /// The legs that a group is to stand for.
    pub(super) fn legs(&self, id: u32) -> Option<&NextHops> {
        self.groups.get(&id).map(|group| &group.wanted)
    }

    /// A group with these legs.
    pub(super) fn find(&self, legs: &NextHops) -> Option<u32> {
        self.by_legs.get(legs)?.first().copied()
    }

    /// The same, of a new group if there is none.
    pub(super) fn find_or_make(&mut self, legs: &NextHops) -> Option<u32> {
        if let Some(id) = self.find(legs) {
            return Some(id);
        }
        let id = self.free_id()?;
        self.groups.insert(id, Group { wanted: legs.clone(), held: None });
        self.by_legs.entry(legs.clone()).or_default().insert(id);
        Some(id)
    }

    /// How many the kernel has: legs and groups.
    pub(super) fn count(&self) -> (usize, usize) {
        (self.legs.len(), self.groups.values().filter(|group| group.held.is_some()).count())
    }

    /// Lets groups stand for others, all at once. Gives the legs of which the kernel has no group: then no route goes over one.
    pub(super) fn redirect(&mut self, moves: &BTreeMap<NextHops, NextHops>) -> BTreeSet<NextHops> {
        let mut without = BTreeSet::new();
        let mut groups = Vec::new();
        for (from, to) in moves {
            let ids =
                if self.serve(to) { self.by_legs.remove(from).unwrap_or_default() } else { BTreeSet::new() };
            if !ids.iter().any(|id| self.has(*id)) {
                without.insert(from.clone());
            }
            groups.push((ids, to));
        }
        for (ids, to) in groups {
            for id in ids {
                let Some(group) = self.groups.get_mut(&id) else { continue };
                group.wanted = to.clone();
                if group.held.is_some() {
                    self.moved.insert(id);
                }
                self.by_legs.entry(to.clone()).or_default().insert(id);
            }
        }
        without
    }

    /// A group is not used any more: see [`Self::sweep`].
    pub(super) fn litter(&mut self) {
        self.litter = true;
    }

    /// Whether a group in the kernel stands for something else than it is to.
    pub(super) fn are_moved(&self) -> bool {
        !self.moved.is_empty()
    }

    /// Writes the groups that have moved, and these besides.
    pub(super) fn write(&mut self, fib: &mut impl Fib, besides: &BTreeSet<u32>) -> Outcome {
        let mut ids = std::mem::take(&mut self.moved);
        ids.extend(besides);
        ids.retain(|id| self.groups.get(id).is_some_and(|group| group.held.as_ref() != Some(&group.wanted)));
        if ids.is_empty() {
            return Outcome::default();
        }
        let (mut writes, mut made) = (Vec::new(), BTreeMap::new());
        for id in &ids {
            let legs = self.legs(*id).cloned().unwrap_or_default();
            for leg in legs.iter().map(|leg| NextHop { weight: 1, ..*leg }) {
                if !self.legs.contains_key(&leg)
                    && !made.contains_key(&leg)
                    && let Some(id) = self.free_id()
                {
                    writes.push(Write::AddNexthop(object(id, NexthopKind::Leg(leg))));
                    made.insert(leg, id);
                }
            }
        }
        let group = |id: &u32| {
            let group = self.groups.get(id)?;
            let member = |leg: &NextHop| {
                let place = NextHop { weight: 1, ..*leg };
                Some((*self.legs.get(&place).or_else(|| made.get(&place))?, leg.weight))
            };
            let object = object(*id, NexthopKind::Group(group.wanted.iter().filter_map(member).collect()));
            Some(if group.held.is_some() { Write::ReplaceNexthop(object) } else { Write::AddNexthop(object) })
        };
        writes.extend(ids.iter().filter_map(group));
        let results = fib.apply(&writes);
        self.written(writes, results)
    }

    fn written(&mut self, writes: Vec<Write>, results: Vec<Result<(), Error>>) -> Outcome {
        let mut outcome = Outcome::default();
        let mut refused_legs: BTreeMap<u32, Error> = BTreeMap::new();
        for (write, result) in writes.into_iter().zip(results) {
            let (Write::AddNexthop(object) | Write::ReplaceNexthop(object)) = write else { continue };
            match (object.kind, result) {
                (NexthopKind::Leg(leg), Ok(())) => {
                    self.legs.insert(leg, object.id);
                    outcome.writes = outcome.writes.saturating_add(1);
                }
                (NexthopKind::Leg(_), Err(error)) => {
                    self.refused(object.id, &error, &mut outcome);
                    refused_legs.insert(object.id, error);
                }
                (NexthopKind::Group(_), Ok(())) => {
                    outcome.writes = outcome.writes.saturating_add(1);
                    self.litter = true;
                    if self.tampered.remove(&object.id) {
                        outcome.repaired.push(object.id);
                    }
                    if let Some(group) = self.groups.get_mut(&object.id) {
                        group.held = Some(group.wanted.clone());
                    }
                }
                (NexthopKind::Group(members), Err(error)) => {
                    self.refused(object.id, &error, &mut outcome);
                    // A group is refused for a leg that is: the leg's error says why.
                    let of_leg = members.iter().find_map(|(leg, _)| refused_legs.get(leg));
                    outcome.refused.insert(object.id, of_leg.cloned().unwrap_or(error));
                    self.give_up(object.id, &mut outcome);
                }
                (NexthopKind::Other, _) => {}
            }
        }
        outcome
    }

    /// An id that turns out to be in use is another's, or one of ours that we know nothing of; one that is not there has gone.
    fn refused(&mut self, id: u32, error: &Error, outcome: &mut Outcome) {
        if error.is_present() {
            self.taken.insert(id);
        }
        outcome.mistaken |= error.is_present() || error.is_absent() || error.errno().is_none();
    }

    /// A group that cannot be changed stays as it is; one that is not there is made again under another id.
    fn give_up(&mut self, id: u32, outcome: &mut Outcome) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let Some(held) = group.held.clone() else { return self.forget(id) };
        let wanted = std::mem::replace(&mut group.wanted, held.clone());
        self.unname(id, &wanted);
        self.by_legs.entry(held).or_default().insert(id);
        self.tampered.remove(&id);
        outcome.given_up.push(wanted);
    }

    fn forget(&mut self, id: u32) {
        self.moved.remove(&id);
        self.tampered.remove(&id);
        if let Some(group) = self.groups.remove(&id) {
            self.unname(id, &group.wanted);
        }
    }

    fn unname(&mut self, id: u32, legs: &NextHops) {
        if let Some(ids) = self.by_legs.get_mut(legs) {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_legs.remove(legs);
            }
        }
    }

    /// Deletes the groups that no route goes over, and legs that are in no group. Gives how many objects went.
    pub(super) fn sweep(&mut self, fib: &mut impl Fib, is_used: impl Fn(u32) -> bool) -> u64 {
        if !std::mem::take(&mut self.litter) {
            return 0;
        }
        let unused: Vec<u32> = self.groups.keys().copied().filter(|id| !is_used(*id)).collect();
        let is_held = |id: &&u32| self.groups.get(id).is_some_and(|group| group.held.is_some());
        let mut writes: Vec<Write> =
            unused.iter().filter(is_held).map(|id| Write::DeleteNexthop(*id)).collect();
        unused.iter().for_each(|id| self.forget(*id));
        let place = |leg: &NextHop| NextHop { weight: 1, ..*leg };
        let in_groups: BTreeSet<NextHop> = self
            .groups
            .values()
            .flat_map(|group| group.wanted.iter().chain(group.held.iter().flatten()))
            .map(place)
            .collect();
        self.legs.retain(|leg, id| {
            if !in_groups.contains(leg) {
                writes.push(Write::DeleteNexthop(*id));
            }
            in_groups.contains(leg)
        });
        writes.extend(std::mem::take(&mut self.spare).into_iter().map(Write::DeleteNexthop));
        if writes.is_empty() {
            0
        } else {
            fib.apply(&writes).iter().filter(|result| result.is_ok()).count() as u64
        }
    }

    /// The next id that nothing has; `None` when all are in use.
    fn free_id(&mut self) -> Option<u32> {
        let (first, end) = (*OWN_IDS.start(), *OWN_IDS.end());
        let from = self.last.saturating_add(1).clamp(first, end);
        let id = (from..=end).chain(first..from).find(|id| !self.taken.contains(id))?;
        self.taken.insert(id);
        self.last = id;
        Some(id)
    }
}

fn object(id: u32, kind: NexthopKind) -> Nexthop {
    Nexthop { id, protocol: Protocol::WEFT, kind }
}
