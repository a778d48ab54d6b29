//! The nexthop objects that learned routes go over: what the kernel has of them, and what they should stand for.
//!
//! A route goes over a group, of one leg too: what a group stands for is changed by one message, however many routes go over it. A group is
//! known by its legs, so that routes with equal legs share it whatever next hops these come from. After a change two groups may
//! stand for the same legs; either serves, and the one that no route goes over any more is deleted.
//!
//! Groups are resilient where that is asked for and the kernel has such, those of one leg too: a group cannot become resilient when it gets its
//! second. Each leg is in it twice, by two objects: the kernel notes which buckets are in use only where a group has several members (IPv4,
//! `fib_select_path`), and those that are not it gives away. One that is not as asked for is left by its routes, each for another group.

use std::collections::{BTreeMap, BTreeSet};

use nix::errno::Errno;

use crate::fib::{Fib, Write};
use crate::netlink::Error;
use crate::nexthop::{Nexthop, NexthopKind, Nexthops, OWN_IDS, Resilience};
use crate::route::{NextHop, NextHops, Protocol};

/// A group.
#[derive(Debug)]
struct Group {
    /// What it is to stand for.
    wanted: NextHops,
    /// What it is in the kernel; `None`: it is not there.
    held: Option<Held>,
    /// The kernel refused to change it, or to let it go.
    is_stuck: bool,
}

/// A group of the kernel's.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Held {
    form: Form,
    /// By which objects.
    members: BTreeSet<u32>,
}

/// What a group is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Form {
    /// What it stands for.
    legs: NextHops,
    resilience: Option<Resilience>,
}

/// A leg, and whether it is meant a second time. Its weight is 1.
type Place = (NextHop, bool);

impl Form {
    /// The legs that are its members, with their weights.
    fn members(&self) -> impl Iterator<Item = (Place, u16)> {
        let times = if self.resilience.is_some() { &[false, true][..] } else { &[false] };
        let place = |leg: &NextHop, again: &bool| ((NextHop { weight: 1, ..*leg }, *again), leg.weight);
        self.legs.iter().flat_map(move |leg| times.iter().map(move |again| place(leg, again)))
    }
}

impl Group {
    fn new(wanted: NextHops) -> Self {
        Self { wanted, held: None, is_stuck: false }
    }

    /// Whether it can be made what is asked for of groups: one that is there keeps its number of buckets.
    fn suits(&self, asked: Option<Resilience>) -> bool {
        let buckets = |resilience: Option<Resilience>| resilience.map(|resilience| resilience.buckets);
        self.held.as_ref().is_none_or(|held| buckets(held.form.resilience) == buckets(asked))
    }

    /// What it is to be: what is asked for if that can be, else of the kind that it is.
    fn to_be(&self, asked: Option<Resilience>) -> Form {
        let held = self.held.as_ref().filter(|_| !self.suits(asked));
        Form { legs: self.wanted.clone(), resilience: held.map_or(asked, |held| held.form.resilience) }
    }

    fn is_as_wanted(&self, asked: Option<Resilience>) -> bool {
        let to_be = self.to_be(asked);
        self.held
            .as_ref()
            .is_some_and(|held| held.form == to_be && held.members.len() == to_be.members().count())
    }
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Objects {
    /// The kernel has such a thing.
    supported: bool,
    /// How groups are to be resilient.
    asked: Option<Resilience>,
    /// Why they are not: what the kernel said of one.
    not_resilient: Option<String>,
    groups: BTreeMap<u32, Group>,
    /// Groups by what they are to stand for.
    by_legs: BTreeMap<NextHops, BTreeSet<u32>>,
    /// The objects of single legs that the kernel has.
    legs: BTreeMap<Place, u32>,
    /// Groups in the kernel that stand for something else than they are to.
    moved: BTreeSet<u32>,
    /// Those of them that something else changed.
    tampered: BTreeSet<u32>,
    /// Objects of legs that are there more often than they are of use.
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
    /// A link is down that was thought to be running.
    pub(super) is_behind: bool,
    /// The kernel turned out to have no resilient groups.
    pub(super) not_resilient: bool,
}

/// What became of deleting objects.
#[derive(Debug, Default)]
pub(super) struct Swept {
    /// How many went.
    pub(super) writes: u64,
    /// Of some it is not known whether they went.
    pub(super) is_unsure: bool,
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
        let (mut groups, mut legs) = (Vec::new(), Vec::new());
        for object in nexthops.iter().filter(|object| OWN_IDS.contains(&object.id)) {
            self.taken.insert(object.id);
            match &object.kind {
                NexthopKind::Group { members, resilience } if object.is_weft() => {
                    let form = Form { legs: nexthops.legs(object.id), resilience: *resilience };
                    let members = members.iter().map(|(id, _)| *id).collect();
                    groups.push((object.id, Held { form, members }));
                }
                NexthopKind::Leg(leg) if object.is_weft() => legs.push((*leg, object.id)),
                _ => {}
            }
        }
        let members: BTreeSet<u32> = groups.iter().flat_map(|(_, held)| &held.members).copied().collect();
        // Of two objects of one leg that is of use which a group has: the other can go.
        legs.sort_by_key(|(_, id)| !members.contains(id));
        legs.into_iter().for_each(|(leg, id)| self.take_leg(leg, id));
        self.spare.retain(|spare| !members.contains(spare));
        let asked = self.resilience();
        for (id, held) in groups {
            let is_new = !self.groups.contains_key(&id);
            let group = self.groups.entry(id).or_insert_with(|| Group::new(held.form.legs.clone()));
            self.by_legs.entry(group.wanted.clone()).or_default().insert(id);
            let before = group.held.replace(held);
            if !group.is_as_wanted(asked) {
                self.moved.insert(id);
                if !is_new && before != group.held {
                    self.tampered.insert(id);
                }
            }
        }
        let is_gone = |(id, group): (&u32, &Group)| {
            let there = nexthops.get(*id).is_some_and(Nexthop::is_weft_group);
            (group.held.is_some() && !there).then_some(*id)
        };
        let gone: Vec<u32> = self.groups.iter().filter_map(is_gone).collect();
        gone.into_iter().for_each(|id| self.forget(id));
    }

    /// The kernel has an object of a leg.
    fn take_leg(&mut self, leg: NextHop, id: u32) {
        let place = [(leg, false), (leg, true)].into_iter().find(|place| !self.legs.contains_key(place));
        match place {
            Some(place) => drop(self.legs.insert(place, id)),
            None => drop(self.spare.insert(id)),
        }
    }

    /// Groups are to be resilient in this way, or not to be. Whether that is news.
    pub(super) fn ask(&mut self, resilience: Option<Resilience>) -> bool {
        if self.asked == resilience {
            return false;
        }
        self.asked = resilience;
        self.not_resilient = None;
        let differs = |(id, group): (&u32, &Group)| {
            (group.held.is_some() && !group.is_as_wanted(resilience)).then_some(*id)
        };
        self.moved.extend(self.groups.iter().filter_map(differs));
        true
    }

    /// How groups are resilient.
    pub(super) fn resilience(&self) -> Option<Resilience> {
        self.asked.filter(|_| self.not_resilient.is_none())
    }

    /// Why groups are not resilient though that is asked for: the kernel's words.
    pub(super) fn not_resilient(&self) -> Option<&str> {
        let no_objects = (self.asked.is_some() && !self.supported).then_some("it has no nexthop objects");
        self.not_resilient.as_deref().or(no_objects)
    }

    /// Whether a group of the kernel's is resilient.
    pub(super) fn is_resilient(&self, id: u32) -> bool {
        let held = self.groups.get(&id).and_then(|group| group.held.as_ref());
        held.is_some_and(|held| held.form.resilience.is_some())
    }

    /// The groups of the kernel's that are not of the kind that is asked for.
    pub(super) fn unsuited(&self) -> BTreeSet<u32> {
        let asked = self.resilience();
        self.groups.iter().filter(|(_, group)| !group.suits(asked)).map(|(id, _)| *id).collect()
    }

    /// Whether routes with these legs may stay over this group.
    pub(super) fn serves(&self, id: u32, legs: &NextHops) -> bool {
        let asked = self.resilience();
        self.groups.get(&id).is_some_and(|group| group.wanted == *legs && group.suits(asked))
    }

    /// Lets a group stand for what another was found or made for: all of its routes are to. Says whether the other is not in the kernel and goes,
    /// `None` if it cannot be, or is not worth it.
    pub(super) fn take_place(&mut self, id: u32, of: u32) -> Option<bool> {
        let asked = self.resilience();
        let can = |group: &&Group| group.suits(asked) && !group.is_stuck;
        self.groups.get(&id).filter(can)?;
        let wanted = self.legs(of)?.clone();
        let is_new = !self.has(of);
        if is_new {
            self.forget(of);
        }
        self.want(id, wanted);
        self.moved.insert(id);
        Some(is_new)
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
        let asked = self.resilience();
        let suits = |id: &u32| self.groups.get(id).is_some_and(|group| group.suits(asked));
        self.by_legs.get(legs)?.iter().copied().find(suits)
    }

    /// The same, of a new group if there is none.
    pub(super) fn find_or_make(&mut self, legs: &NextHops) -> Option<u32> {
        if let Some(id) = self.find(legs) {
            return Some(id);
        }
        let id = self.free_id()?;
        self.groups.insert(id, Group::new(legs.clone()));
        self.by_legs.entry(legs.clone()).or_default().insert(id);
        Some(id)
    }

    /// How many the kernel has: legs and groups.
    pub(super) fn count(&self) -> (usize, usize) {
        (self.legs.len(), self.groups.values().filter(|group| group.held.is_some()).count())
    }

    /// How many of the groups are resilient.
    pub(super) fn count_resilient(&self) -> usize {
        self.groups.keys().filter(|id| self.is_resilient(**id)).count()
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

    /// Writes the groups that have moved, and these besides. `is_running`: what is thought of a link.
    pub(super) fn write(
        &mut self,
        fib: &mut impl Fib,
        besides: &BTreeSet<u32>,
        is_running: impl Fn(u32) -> bool,
    ) -> Outcome {
        let mut ids = std::mem::take(&mut self.moved);
        ids.extend(besides);
        let asked = self.resilience();
        ids.retain(|id| self.groups.get(id).is_some_and(|group| !group.is_as_wanted(asked)));
        if ids.is_empty() {
            return Outcome::default();
        }
        let (mut writes, mut made) = (Vec::new(), BTreeMap::new());
        let forms: BTreeMap<u32, Form> =
            ids.into_iter().filter_map(|id| Some((id, self.groups.get(&id)?.to_be(asked)))).collect();
        for (place, _) in forms.values().flat_map(Form::members) {
            if !self.legs.contains_key(&place)
                && !made.contains_key(&place)
                && let Some(id) = self.free_id()
            {
                writes.push(Write::AddNexthop(object(id, NexthopKind::Leg(place.0))));
                made.insert(place, id);
            }
        }
        writes.extend(forms.iter().map(|(id, form)| {
            let group = self.object_of(*id, form, &made);
            if self.has(*id) { Write::ReplaceNexthop(group) } else { Write::AddNexthop(group) }
        }));
        let mut results = fib.apply(&writes);
        let not_resilient = self.fall_back(fib, &mut writes, &mut results, |objects, id| {
            let form = Form { resilience: None, ..forms.get(&id)?.clone() };
            Some(objects.object_of(id, &form, &made))
        });
        Outcome { not_resilient, ..self.written(writes, results, is_running) }
    }

    fn object_of(&self, id: u32, form: &Form, made: &BTreeMap<Place, u32>) -> Nexthop {
        let id_of = |(place, weight)| Some((*self.legs.get(&place).or_else(|| made.get(&place))?, weight));
        let members = form.members().filter_map(id_of).collect();
        object(id, NexthopKind::Group { members, resilience: form.resilience })
    }

    /// Makes the resilient groups that were refused `plain`. Where that is accepted it was resilience that the kernel does not have, or not enough
    /// memory for: says so.
    fn fall_back(
        &mut self,
        fib: &mut impl Fib,
        writes: &mut [Write],
        results: &mut [Result<(), Error>],
        plain: impl Fn(&Self, u32) -> Option<Nexthop>,
    ) -> bool {
        let mut again: Vec<(usize, Write)> = Vec::new();
        for (place, (write, result)) in writes.iter().zip(&*results).enumerate() {
            if let (Write::AddNexthop(Nexthop { id, kind, .. }), Err(error)) = (write, result)
                && matches!(kind, NexthopKind::Group { resilience: Some(_), .. })
                && error.errno().is_some()
                && !error.is_present()
            {
                again.extend(plain(self, *id).map(|group| (place, Write::AddNexthop(group))));
            }
        }
        if again.is_empty() {
            return false;
        }
        let (places, again): (Vec<usize>, Vec<Write>) = again.into_iter().unzip();
        let mut refusals = BTreeSet::new();
        for ((place, result), write) in places.into_iter().zip(fib.apply(&again)).zip(again) {
            if result.is_ok()
                && let (Some(slot), Some(refusal)) = (writes.get_mut(place), results.get_mut(place))
            {
                *slot = write;
                refusals.extend(std::mem::replace(refusal, Ok(())).err().map(|error| error.to_string()));
            }
        }
        let refusal = refusals.pop_first();
        let is_refused = refusal.is_some();
        self.not_resilient = self.not_resilient.take().or(refusal);
        is_refused
    }

    fn written(
        &mut self,
        writes: Vec<Write>,
        results: Vec<Result<(), Error>>,
        is_running: impl Fn(u32) -> bool,
    ) -> Outcome {
        let mut outcome = Outcome::default();
        let mut refused_legs: BTreeMap<u32, (u32, Error)> = BTreeMap::new();
        for (write, result) in writes.into_iter().zip(results) {
            let (Write::AddNexthop(object) | Write::ReplaceNexthop(object)) = write else { continue };
            match (object.kind, result) {
                (NexthopKind::Leg(leg), Ok(())) => {
                    self.take_leg(leg, object.id);
                    outcome.writes = outcome.writes.saturating_add(1);
                }
                (NexthopKind::Leg(leg), Err(error)) => {
                    self.refused(object.id, &error, &mut outcome);
                    refused_legs.insert(object.id, (leg.link, error));
                }
                (NexthopKind::Group { members, resilience }, Ok(())) => {
                    outcome.writes = outcome.writes.saturating_add(1);
                    self.litter = true;
                    if self.tampered.remove(&object.id) {
                        outcome.repaired.push(object.id);
                    }
                    if let Some(group) = self.groups.get_mut(&object.id) {
                        let form = Form { legs: group.wanted.clone(), resilience };
                        let members = members.into_iter().map(|(id, _)| id).collect();
                        group.held = Some(Held { form, members });
                        group.is_stuck = false;
                    }
                }
                (NexthopKind::Group { members, .. }, Err(error)) => {
                    self.refused(object.id, &error, &mut outcome);
                    // A group is refused for a leg that is: the leg's error says why.
                    let of_leg = members.iter().find_map(|(leg, _)| refused_legs.get(leg));
                    // The kernel took the legs on such a link from the groups it has. What these are to be follows when it tells of the link.
                    let is_news =
                        of_leg.is_some_and(|(link, error)| error.is_link_down() && is_running(*link));
                    let error = of_leg.map_or(error, |(_, of_leg)| of_leg.clone());
                    if is_news && self.has(object.id) {
                        outcome.is_behind = true;
                        self.tampered.remove(&object.id);
                    } else {
                        self.give_up(object.id, &mut outcome);
                    }
                    outcome.refused.insert(object.id, error);
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
        group.is_stuck = true;
        outcome.given_up.extend(self.want(id, held.form.legs));
        self.tampered.remove(&id);
    }

    /// Lets a group be to stand for these legs; what it was to before.
    fn want(&mut self, id: u32, legs: NextHops) -> Option<NextHops> {
        let group = self.groups.get_mut(&id)?;
        let before = std::mem::replace(&mut group.wanted, legs.clone());
        self.unname(id, &before);
        self.by_legs.entry(legs).or_default().insert(id);
        Some(before)
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

    /// Deletes the groups that no route goes over, and legs that are in no group. What the kernel does not let go is kept, to be used or to go the
    /// next time.
    pub(super) fn sweep(&mut self, fib: &mut impl Fib, is_used: impl Fn(u32) -> bool) -> Swept {
        let mut swept = Swept::default();
        if !std::mem::take(&mut self.litter) {
            return swept;
        }
        let unused: Vec<u32> = self.groups.keys().copied().filter(|id| !is_used(*id)).collect();
        let (held, never_made): (Vec<u32>, Vec<u32>) = unused.into_iter().partition(|id| self.has(*id));
        let groups = swept.delete(fib, &held);
        never_made.iter().chain(&groups).for_each(|id| self.forget(*id));
        let mut unused = self.unused_legs();
        unused.extend(&self.spare);
        let legs = swept.delete(fib, &unused);
        self.legs.retain(|_, id| !legs.contains(id));
        self.spare.retain(|id| !legs.contains(id));
        swept
    }

    /// Whether a group can be deleted while routes go over it: the kernel has it, and has not refused that.
    pub(super) fn can_go(&self, id: u32) -> bool {
        self.groups.get(&id).is_some_and(|group| group.held.is_some() && !group.is_stuck)
    }

    /// Deletes groups that routes go over, and these with them; gives those that are gone.
    pub(super) fn delete(&mut self, ids: &[u32], fib: &mut impl Fib) -> (BTreeSet<u32>, Swept) {
        let mut swept = Swept::default();
        let gone = swept.delete(fib, ids);
        for id in ids {
            if gone.contains(id) {
                self.forget(*id);
            } else if let Some(group) = self.groups.get_mut(id) {
                group.is_stuck = true;
            }
        }
        self.litter = true;
        (gone, swept)
    }

    /// The objects of legs that are in no group, and are to be in none.
    fn unused_legs(&self) -> Vec<u32> {
        let asked = self.resilience();
        let places = self.groups.values().flat_map(|group| group.to_be(asked).members().collect::<Vec<_>>());
        let wanted: BTreeSet<Place> = places.map(|(place, _)| place).collect();
        let held = self.groups.values().filter_map(|group| group.held.as_ref());
        let members: BTreeSet<u32> = held.flat_map(|held| &held.members).copied().collect();
        let is_unused =
            |(place, id): (&Place, &u32)| (!wanted.contains(place) && !members.contains(id)).then_some(*id);
        self.legs.iter().filter_map(is_unused).collect()
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

impl Swept {
    /// Deletes these objects; gives those that are gone.
    fn delete(&mut self, fib: &mut impl Fib, ids: &[u32]) -> BTreeSet<u32> {
        if ids.is_empty() {
            return BTreeSet::new();
        }
        let writes: Vec<Write> = ids.iter().map(|id| Write::DeleteNexthop(*id)).collect();
        let mut gone = BTreeSet::new();
        for (id, result) in ids.iter().zip(fib.apply(&writes)) {
            let errno = result.as_ref().err().map(Error::errno);
            self.writes = self.writes.saturating_add(u64::from(errno.is_none()));
            self.is_unsure |= errno == Some(None);
            if matches!(errno, None | Some(Some(Errno::ENOENT))) {
                gone.insert(*id);
            }
        }
        gone
    }
}
