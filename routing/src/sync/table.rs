//! Every key that something is known of, once: which set of next hops was learned for it, what the kernel has of ours, and whether the two
//! are to be compared. A key is looked up once; from then on its place serves.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::BuildHasher;
use std::net::IpAddr;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::wanted::{OWN_BLOCK_METRIC, POD_METRIC, SetId};
use crate::route::{Action, Protocol, Route, RouteKey};

/// Where a key is. Another key's, maybe, once nothing is known of this one any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place(u32);

/// The hash of a key, as much of it as is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Hash(u32);

impl Hash {
    /// For a hash table, which goes by the lowest bits and the highest ones.
    fn whole(self) -> u64 {
        u64::from(self.0) << 32 | u64::from(self.0)
    }
}

/// How far the comparison of a key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Work {
    #[default]
    Done,
    /// It waits for its turn.
    Waiting,
    /// It was taken, and what becomes of it is not known yet.
    Taken,
    /// It was named since it was taken.
    Again,
}

/// There are as many as routes, and each is looked at several times, far from the one before: none is larger than a cache line.
#[derive(Debug)]
struct Entry {
    key: RouteKey,
    hash: Hash,
    work: Work,
    /// Whether it is in [`Table::unused`].
    is_listed: bool,
    learned: Option<SetId>,
    held: Held,
}

impl Entry {
    /// Whether it waits, and a route is wanted for it: of pods and own blocks that is taken for granted.
    fn is_owed(&self) -> bool {
        matches!(self.work, Work::Waiting | Work::Again)
            && (self.learned.is_some() || [POD_METRIC, OWN_BLOCK_METRIC].contains(&self.key.metric()))
    }

    /// Whether nothing is known of the key.
    fn is_unused(&self) -> bool {
        self.learned.is_none() && matches!(self.held, Held::None) && self.work == Work::Done
    }
}

/// The route that the kernel has of ours.
#[derive(Debug, Default)]
enum Held {
    #[default]
    None,
    /// A learned one over a nexthop object, as nearly all are.
    Over {
        object: u32,
        source: SourceId,
    },
    Other(Box<Route>),
}

impl Held {
    /// The nexthop object that the route goes over.
    fn object(&self) -> Option<u32> {
        match self {
            Self::Over { object, .. } => Some(*object),
            Self::Other(route) => match route.action {
                Action::Object(id) => Some(id),
                _ => None,
            },
            Self::None => None,
        }
    }
}

/// Names a preferred source.
type SourceId = u8;

/// The preferred sources of routes, as many as there are names for; none is one.
#[derive(Debug, Default)]
struct Sources(Vec<Option<IpAddr>>);

impl Sources {
    fn name(&mut self, source: Option<IpAddr>) -> Option<SourceId> {
        let found = self.0.iter().position(|other| *other == source);
        let id = SourceId::try_from(found.unwrap_or(self.0.len())).ok()?;
        if found.is_none() {
            self.0.push(source);
        }
        Some(id)
    }

    fn get(&self, id: SourceId) -> Option<IpAddr> {
        self.0.get(usize::from(id)).copied().flatten()
    }

    fn pack(&mut self, route: Route) -> Held {
        match (&route.action, route.protocol) {
            (Action::Object(object), Protocol::WEFT) => match self.name(route.preferred_source) {
                Some(source) => Held::Over { object: *object, source },
                None => Held::Other(Box::new(route)),
            },
            _ => Held::Other(Box::new(route)),
        }
    }

    /// The route over an object to a key.
    fn over(&self, key: RouteKey, object: u32, source: SourceId) -> Route {
        let (protocol, preferred_source) = (Protocol::WEFT, self.get(source));
        Route { key, protocol, action: Action::Object(object), preferred_source }
    }

    fn show<'a>(&self, entry: &'a Entry) -> Option<Cow<'a, Route>> {
        match &entry.held {
            Held::None => None,
            Held::Over { object, source } => Some(Cow::Owned(self.over(entry.key, *object, *source))),
            Held::Other(route) => Some(Cow::Borrowed(route)),
        }
    }

    fn unpack(&self, key: RouteKey, held: Held) -> Option<Route> {
        match held {
            Held::None => None,
            Held::Over { object, source } => Some(self.over(key, object, source)),
            Held::Other(route) => Some(*route),
        }
    }
}

/// The routes over a nexthop object.
#[derive(Debug, Clone, Copy, Default)]
struct Over {
    routes: usize,
    /// How many of them lead to what is not learned any more.
    unlearned: usize,
}

/// What is known of a key.
#[derive(Debug, Clone)]
pub(super) struct Known<'a> {
    pub(super) key: RouteKey,
    /// The set that a learned route to it has.
    pub(super) learned: Option<SetId>,
    /// The route that the kernel has of ours.
    pub(super) held: Option<Cow<'a, Route>>,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Table {
    /// Where keys are, with their hashes: it grows without a look at them. An entry has its key itself: entries that are named one after the
    /// other lie together, and the index is small.
    places: HashTable<(Place, Hash)>,
    /// Seeded, as peers choose the prefixes.
    hasher: DefaultHashBuilder,
    entries: Vec<Entry>,
    /// The places of keys that nothing was known of. They are other keys' when these need them, and until then can be found: where many go,
    /// the index is left as it is.
    unused: Vec<Place>,
    sources: Sources,
    /// How many keys the kernel holds for us.
    held: usize,
    /// How many of them go over each nexthop object.
    over: BTreeMap<u32, Over>,
    /// An object has lost its last route.
    idle: bool,
    /// In the order in which they were named. A place may be there that waits no more: see [`Self::advance`].
    waiting: VecDeque<Place>,
    /// What is taken before.
    advanced: VecDeque<Place>,
    /// How many wait, or were taken.
    unfinished: usize,
    /// How many of those that wait have a route that is wanted.
    owed: usize,
    /// How many were named since they were taken. Seldom any.
    again: usize,
}

impl Table {
    fn entry(&self, place: Place) -> Option<&Entry> {
        self.entries.get(place.0 as usize)
    }

    fn entry_mut(&mut self, place: Place) -> Option<&mut Entry> {
        self.entries.get_mut(place.0 as usize)
    }

    fn hash(&self, key: &RouteKey) -> Hash {
        // The lower half is as good as all of it.
        Hash(self.hasher.hash_one(key) as u32)
    }

    fn find(&self, key: &RouteKey) -> Option<Place> {
        self.find_hashed(key, self.hash(key))
    }

    fn find_hashed(&self, key: &RouteKey, hash: Hash) -> Option<Place> {
        let is = |(place, of): &(Place, Hash)| {
            *of == hash && self.entry(*place).is_some_and(|entry| entry.key == *key)
        };
        self.places.find(hash.whole(), is).map(|(place, _)| *place)
    }

    /// The place of a key, which it gets if it has none. It keeps it while something is known of it, or is to be done.
    fn place(&mut self, key: RouteKey) -> Place {
        let hash = self.hash(&key);
        if let Some(place) = self.find_hashed(&key, hash) {
            return place;
        }
        let entry = Entry { key, hash, work: Work::Done, is_listed: false, learned: None, held: Held::None };
        let place = match self.reuse() {
            Some(place) => {
                if let Some(unused) = self.entry_mut(place) {
                    *unused = entry;
                }
                place
            }
            None => {
                self.entries.push(entry);
                // So many routes do not fit in memory.
                Place(u32::try_from(self.entries.len().saturating_sub(1)).unwrap_or(u32::MAX))
            }
        };
        self.places.insert_unique(hash.whole(), (place, hash), |(_, hash)| hash.whole());
        place
    }

    /// Takes a place from a key that nothing is known of.
    fn reuse(&mut self) -> Option<Place> {
        while let Some(place) = self.unused.pop() {
            let Some(entry) = self.entries.get_mut(place.0 as usize) else { continue };
            entry.is_listed = false;
            if entry.is_unused() {
                let hash = entry.hash.whole();
                if let Ok(found) = self.places.find_entry(hash, |(other, _)| *other == place) {
                    found.remove();
                }
                return Some(place);
            }
        }
        None
    }

    /// Lets another key have the place if nothing is known of this one.
    fn tidy(&mut self, place: Place) {
        let Some(entry) = self.entries.get_mut(place.0 as usize) else { return };
        if entry.is_unused() && !std::mem::replace(&mut entry.is_listed, true) {
            self.unused.push(place);
        }
    }

    /// What is known of a key.
    pub(super) fn known(&self, key: RouteKey) -> Known<'_> {
        let nothing = Known { key, learned: None, held: None };
        self.find(&key).and_then(|place| self.known_at(place)).unwrap_or(nothing)
    }

    /// What is known of the key at a place.
    pub(super) fn known_at(&self, place: Place) -> Option<Known<'_>> {
        let entry = self.entry(place)?;
        Some(Known { key: entry.key, learned: entry.learned, held: self.sources.show(entry) })
    }
}

/// What was learned.
impl Table {
    /// The set that a learned route has from now on; the one that it had.
    pub(super) fn learn(&mut self, place: Place, set: Option<SetId>) -> Option<SetId> {
        let entry = self.entries.get_mut(place.0 as usize)?;
        let was_owed = entry.is_owed();
        let before = std::mem::replace(&mut entry.learned, set);
        recount(&mut self.owed, was_owed, entry.is_owed());
        if before.is_some() != set.is_some()
            && let Some(over) = entry.held.object().and_then(|id| self.over.get_mut(&id))
        {
            over.unlearned = match set {
                Some(_) => over.unlearned.saturating_sub(1),
                None => over.unlearned.saturating_add(1),
            };
        }
        self.tidy(place);
        before
    }

    /// The set that a learned route has.
    pub(super) fn learned(&self, key: &RouteKey) -> Option<SetId> {
        self.entry(self.find(key)?)?.learned
    }

    /// Gives what was learned for one key to another. Both are to be compared, that one first.
    pub(super) fn pass_on(&mut self, from: RouteKey, to: RouteKey) {
        let (new, old) = (self.mark(to), self.mark(from));
        let set = self.learn(old, None);
        self.learn(new, set);
    }

    /// The keys of learned routes whose set is meant, in order.
    pub(super) fn learned_keys(&self, is_meant: impl Fn(SetId) -> bool) -> Vec<RouteKey> {
        let meant = self.entries.iter().filter(|entry| entry.learned.is_some_and(&is_meant));
        let mut keys: Vec<RouteKey> = meant.map(|entry| entry.key).collect();
        keys.sort_unstable();
        keys
    }
}

/// What the kernel has of ours.
impl Table {
    /// The route that the kernel has.
    pub(super) fn held(&self, key: &RouteKey) -> Option<Cow<'_, Route>> {
        self.sources.show(self.entry(self.find(key)?)?)
    }

    /// All of them, in no order.
    pub(super) fn routes(&self) -> impl Iterator<Item = Cow<'_, Route>> {
        self.entries.iter().filter_map(|entry| self.sources.show(entry))
    }

    /// How many there are.
    pub(super) fn held_count(&self) -> usize {
        self.held
    }

    /// The kernel has a route from now on; the one that it had.
    pub(super) fn hold(&mut self, route: Route) -> Option<Route> {
        let place = self.place(route.key);
        self.hold_at(place, route)
    }

    /// The same, at the place of the route's key.
    pub(super) fn hold_at(&mut self, place: Place, route: Route) -> Option<Route> {
        let held = self.sources.pack(route);
        self.exchange(place, held)
    }

    /// Puts one in the place of another.
    fn exchange(&mut self, place: Place, held: Held) -> Option<Route> {
        let entry = self.entries.get_mut(place.0 as usize)?;
        let unlearned = usize::from(entry.learned.is_none());
        if !matches!(held, Held::None) {
            self.held = self.held.saturating_add(1);
        }
        if let Some(id) = held.object() {
            let over = self.over.entry(id).or_default();
            over.routes = over.routes.saturating_add(1);
            over.unlearned = over.unlearned.saturating_add(unlearned);
        }
        let (key, before) = (entry.key, std::mem::replace(&mut entry.held, held));
        self.left(&before, unlearned);
        self.sources.unpack(key, before)
    }

    /// The kernel has no route there any more; the one that it had.
    pub(super) fn let_go(&mut self, key: &RouteKey) -> Option<Route> {
        self.let_go_at(self.find(key)?)
    }

    /// The same, at a place.
    pub(super) fn let_go_at(&mut self, place: Place) -> Option<Route> {
        let before = self.exchange(place, Held::None);
        self.tidy(place);
        before
    }

    /// Counts out what a key had.
    fn left(&mut self, held: &Held, unlearned: usize) {
        if matches!(held, Held::None) {
            return;
        }
        self.held = self.held.saturating_sub(1);
        if let Some(id) = held.object()
            && let Some(over) = self.over.get_mut(&id)
        {
            over.routes = over.routes.saturating_sub(1);
            over.unlearned = over.unlearned.saturating_sub(unlearned);
            if over.routes == 0 {
                self.over.remove(&id);
                self.idle = true;
            }
        }
    }

    /// Takes over what the kernel has; the keys of those that it had and has not, or has other ones of, and all keys that it has or had.
    pub(super) fn replace_held(&mut self, routes: Vec<Route>) -> (BTreeSet<RouteKey>, BTreeSet<RouteKey>) {
        let places = (0..self.entries.len()).filter_map(|place| u32::try_from(place).ok());
        let before: Vec<Route> = places.filter_map(|place| self.let_go_at(Place(place))).collect();
        let mut all: BTreeSet<RouteKey> = routes.iter().map(|route| route.key).collect();
        routes.into_iter().for_each(|route| drop(self.hold(route)));
        let is_other = |route: &&Route| self.held(&route.key).as_deref() != Some(*route);
        let others = before.iter().filter(is_other).map(|route| route.key).collect();
        all.extend(before.iter().map(|route| route.key));
        (others, all)
    }

    /// How many routes go over an object.
    pub(super) fn over(&self, id: u32) -> usize {
        self.over.get(&id).map_or(0, |over| over.routes)
    }

    /// The objects all of whose routes lead to what is not learned any more, and how many these are.
    pub(super) fn deserted(&self) -> impl Iterator<Item = (usize, u32)> {
        let deserted = self.over.iter().filter(|(_, over)| over.unlearned == over.routes);
        deserted.map(|(id, over)| (over.routes, *id))
    }

    /// Whether an object has lost its last route since that was asked last.
    pub(super) fn take_idle(&mut self) -> bool {
        std::mem::take(&mut self.idle)
    }

    /// Forgets the routes over objects that are gone, as the kernel took them along: their keys, in order.
    pub(super) fn forget_over(&mut self, is_there: impl Fn(u32) -> bool) -> Vec<RouteKey> {
        let gone: BTreeSet<u32> = self.over.keys().copied().filter(|id| !is_there(*id)).collect();
        if gone.is_empty() {
            return Vec::new();
        }
        let is_over = |entry: &Entry| entry.held.object().is_some_and(|id| gone.contains(&id));
        let places = (0..).zip(&self.entries).filter(|(_, entry)| is_over(entry));
        let places: Vec<Place> = places.map(|(place, _)| Place(place)).collect();
        let routes = places.into_iter().filter_map(|place| self.let_go_at(place));
        let mut keys: Vec<RouteKey> = routes.map(|route| route.key).collect();
        keys.sort_unstable();
        keys
    }
}

/// What is to be compared. A key that was taken is not given again before what became of it is known.
impl Table {
    /// A key is to be compared; its place.
    pub(super) fn mark(&mut self, key: RouteKey) -> Place {
        let place = self.place(key);
        let Some(entry) = self.entries.get_mut(place.0 as usize) else { return place };
        let was_owed = entry.is_owed();
        match entry.work {
            Work::Done => {
                entry.work = Work::Waiting;
                self.unfinished = self.unfinished.saturating_add(1);
                self.waiting.push_back(place);
            }
            Work::Taken => {
                entry.work = Work::Again;
                self.again = self.again.saturating_add(1);
            }
            Work::Waiting | Work::Again => {}
        }
        recount(&mut self.owed, was_owed, entry.is_owed());
        place
    }

    /// All of these are.
    pub(super) fn mark_all(&mut self, keys: impl IntoIterator<Item = RouteKey>) {
        for key in keys {
            self.mark(key);
        }
    }

    /// The next one; it is the caller's until it is [`done`](Self::done).
    pub(super) fn take(&mut self) -> Option<Place> {
        while let Some(place) = self.advanced.pop_front().or_else(|| self.waiting.pop_front()) {
            if let Some(entry) = self.entries.get_mut(place.0 as usize)
                && entry.work == Work::Waiting
            {
                recount(&mut self.owed, entry.is_owed(), false);
                entry.work = Work::Taken;
                return Some(place);
            }
        }
        None
    }

    /// Lets keys that wait be taken before others: those of routes over one of these objects after the other, `count` or some more.
    pub(super) fn advance(&mut self, objects: &[u32], count: usize) {
        let mut over: BTreeMap<u32, Vec<Place>> = objects.iter().map(|id| (*id, Vec::new())).collect();
        for (place, entry) in (0..).zip(&self.entries) {
            if entry.work == Work::Waiting
                && let Some(places) = entry.held.object().and_then(|id| over.get_mut(&id))
            {
                places.push(Place(place));
            }
        }
        self.advanced.clear();
        for id in objects {
            if self.advanced.len() >= count {
                return;
            }
            self.advanced.extend(over.remove(id).unwrap_or_default());
        }
    }

    /// How many are to be taken before others.
    pub(super) fn advanced_count(&self) -> usize {
        self.advanced.len()
    }

    /// What becomes of a key that was taken is known.
    pub(super) fn done(&mut self, place: Place) {
        let Some(entry) = self.entries.get_mut(place.0 as usize) else { return };
        match entry.work {
            Work::Again => {
                entry.work = Work::Waiting;
                self.again = self.again.saturating_sub(1);
                self.waiting.push_back(place);
            }
            Work::Taken => {
                entry.work = Work::Done;
                self.unfinished = self.unfinished.saturating_sub(1);
                self.tidy(place);
            }
            Work::Done | Work::Waiting => {}
        }
    }

    /// The place of a key that was taken, and of which nothing has become yet.
    pub(super) fn taken(&self, key: &RouteKey) -> Option<Place> {
        let place = self.find(key)?;
        self.entry(place).filter(|entry| matches!(entry.work, Work::Taken | Work::Again)).map(|_| place)
    }

    /// Whether keys were named since they were taken.
    pub(super) fn are_again(&self) -> bool {
        self.again > 0
    }

    /// Whether a key that was taken was named since.
    pub(super) fn is_again(&self, place: Place) -> bool {
        self.entry(place).is_some_and(|entry| entry.work == Work::Again)
    }

    /// How many wait, or were taken.
    pub(super) fn unfinished(&self) -> usize {
        self.unfinished
    }

    /// Whether one waits whose route is wanted.
    pub(super) fn are_owed(&self) -> bool {
        self.owed > 0
    }
}

/// Keeps a count of entries of which one was, and is, counted.
fn recount(count: &mut usize, was: bool, is: bool) {
    *count = count.saturating_add(usize::from(is)).saturating_sub(usize::from(was));
}

#[cfg(test)]
mod tests;
