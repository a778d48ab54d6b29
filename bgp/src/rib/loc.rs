//! The Loc-RIB: what was decided for each prefix, and what follows from another decision.

use std::collections::VecDeque;
use std::sync::Arc;

use smallvec::SmallVec;

use super::aggregates::Aggregates;
use super::attributes::AttrId;
use super::decision::{self, Candidate, Candidates};
use super::history::BestId;
use super::holdings::{Holdings, Path, Source, Standing};
use super::{NextHopSet, Rib, RibOutput};
use crate::arena::bits::BitSet;
use crate::arena::intern::Id;
use crate::arena::prefixes::{PrefixId, PrefixTable};
use crate::egress::PathKey;
use crate::speaker::{BestPathChange, NextHops, Resolution, TrackedNextHop};
use crate::types::{PeerId, PeerType};

/// How many prefixes are decided on before what follows is given away, which bounds what waits in memory.
pub(super) const CHUNK: usize = 4096;

/// The best path, as it was decided on. Its reference to the attributes is its own: they stay as long as peers and kernel were told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Best {
    pub(super) source: Source,
    pub(super) attributes: AttrId,
}

/// A prefix: its paths and what was decided.
#[derive(Debug, Default)]
pub(super) struct Destination {
    /// By source, one each.
    paths: Paths,
    best: Option<Best>,
    /// What the kernel was told; none: nothing.
    next_hops: Option<Id<NextHopSet>>,
}

/// Paths of one prefix: most have one.
type Paths = SmallVec<[Path; 1]>;

/// Places of paths of one prefix, the best first.
type Winners = SmallVec<[usize; 4]>;

impl Destination {
    fn place(&self, source: Source) -> Result<usize, usize> {
        self.paths.binary_search_by_key(&source, |path| path.source)
    }

    pub(super) fn paths(&self) -> &[Path] {
        &self.paths
    }

    pub(super) fn path(&self, source: Source) -> Option<&Path> {
        self.paths.get(self.place(source).ok()?)
    }

    /// The paths of a peer: one, or several where it tells of several (RFC 7911).
    pub(super) fn paths_of(&self, peer: PeerId) -> &[Path] {
        let first = self.paths.partition_point(|path| path.source < Source::of(peer, 0));
        let end = self.paths.partition_point(|path| path.source <= Source::of(peer, u32::MAX));
        self.paths.get(first..end).unwrap_or_default()
    }

    /// Puts a path in; the one whose place, and number, it takes.
    pub(super) fn put(&mut self, path: Path) -> Option<Path> {
        match self.place(path.source) {
            Ok(place) => {
                let old = self.paths.get_mut(place)?;
                Some(std::mem::replace(old, Path { number: old.number, ..path }))
            }
            Err(place) => {
                let number = if path.source == Source::LOCAL { PathKey::OWN } else { self.free_number() };
                if self.paths.len() == self.paths.capacity() {
                    // As many prefixes as there are have room to spare: by default as much again as they need.
                    self.paths.reserve_exact((self.paths.len() / 4).max(1));
                }
                self.paths.insert(place, Path { number, ..path });
                None
            }
        }
    }

    /// The least number of a learned path that none has; 0: there is none.
    fn free_number(&self) -> u16 {
        const FIRST: u16 = PathKey::OWN + 1;
        let bit = |number: u16| 1_u64.checked_shl(u32::from(number).wrapping_sub(FIRST.into())).unwrap_or(0);
        let low = self.paths.iter().fold(0, |used, path| used | bit(path.number));
        if low != u64::MAX {
            return u16::try_from(low.trailing_ones()).unwrap_or(0) + FIRST;
        }
        let mut used = BitSet::default();
        for path in &self.paths {
            used.insert(path.number.into());
        }
        (FIRST..=u16::MAX).find(|number| !used.contains((*number).into())).unwrap_or(0)
    }

    pub(super) fn take(&mut self, source: Source) -> Option<Path> {
        let place = self.place(source).ok()?;
        Some(self.paths.remove(place))
    }

    /// Takes those of a peer's paths out that `goes` picks.
    pub(super) fn take_where(&mut self, peer: PeerId, goes: impl Fn(&Path) -> bool) -> Paths {
        let gone: Paths = self.paths_of(peer).iter().filter(|path| goes(path)).copied().collect();
        if !gone.is_empty() {
            self.paths.retain(|path| !gone.iter().any(|gone| gone.source == path.source));
        }
        gone
    }

    pub(super) fn best(&self) -> Option<Best> {
        self.best
    }
}

/// The prefixes that are to be decided on, each once, in the order in which they became so.
#[derive(Debug, Default)]
pub(super) struct Dirty {
    queue: VecDeque<PrefixId>,
    marked: BitSet,
}

impl Dirty {
    pub(super) fn mark(&mut self, id: PrefixId) {
        if self.marked.insert(id.index()) {
            self.queue.push_back(id);
        }
    }

    /// Takes the first ones out, so many at most.
    fn take(&mut self, count: usize) -> Vec<PrefixId> {
        let some: Vec<PrefixId> = self.queue.drain(..count.min(self.queue.len())).collect();
        for id in &some {
            self.marked.remove(id.index());
        }
        some
    }
}

/// The next hops of the prefix that was decided on just before: nearly always those of the next one.
#[derive(Debug, Default)]
struct Last {
    /// What its place in the table names.
    set: Option<Id<NextHopSet>>,
    /// As the kernel was told.
    told: Option<NextHops>,
}

impl Last {
    /// These, as the kernel is told them.
    fn tell(&mut self, wanted: &[TrackedNextHop]) -> NextHops {
        let same = self.told.take().filter(|told| **told == *wanted);
        Arc::clone(self.told.insert(same.unwrap_or_else(|| wanted.into())))
    }
}

impl Rib {
    /// Decides on some of the dirty prefixes; says whether there were any.
    pub(super) fn decide_dirty(&mut self) -> bool {
        let ids = self.dirty.take(CHUNK);
        let some = ids.len();
        if some == 0 {
            return false;
        }
        let (mut told, mut changed) = (Vec::with_capacity(some), Vec::with_capacity(some));
        let (mut candidates, mut winners, mut last) = (Vec::new(), Winners::new(), Last::default());
        let mut named = [None; 2];
        for id in &ids {
            self.decided().winners(*id, &mut candidates, &mut winners);
            let direct = self.direct_next_hops(*id);
            if let Some(change) = self.change_next_hops(*id, &winners, direct, &mut last) {
                told.push(change);
            }
            last.set = self.table.get(*id).next_hops.or(last.set);
            if self.change_best(*id, &winners, &mut named) {
                self.monitor.best(self.table.prefix(*id));
                changed.push(*id);
            }
        }
        named.into_iter().flatten().for_each(|(_, id)| self.history.release(id));
        if !told.is_empty() {
            self.outputs.push_back(RibOutput::BestPaths(told));
        }
        // An aggregate is there before its first part would be told in its place.
        self.begin_aggregates();
        self.export(&changed, &ids);
        let mut gone = ids;
        gone.retain(|id| self.table.get(*id).paths.is_empty());
        self.table.remove_all(&gone);
        self.end_aggregates();
        true
    }

    /// The eligible paths of a prefix, decided on.
    pub(super) fn candidates(&self, id: PrefixId) -> Candidates {
        self.decided().candidates(id)
    }

    /// What was decided, for who tells of it.
    pub(super) fn decided(&self) -> Decided<'_> {
        Decided {
            table: &self.table,
            holdings: &self.holdings,
            aggregates: &self.aggregates,
            max_paths: self.settings.max_paths,
            advertising: self.advertising,
        }
    }

    /// What the kernel should do, if that is something else than before. `last` is what it does for a prefix that was decided on just
    /// before: nearly always the same.
    fn change_next_hops(
        &mut self,
        id: PrefixId,
        winners: &[usize],
        direct: Option<NextHopSet>,
        last: &mut Last,
    ) -> Option<BestPathChange> {
        let old = self.table.get(id).next_hops;
        if !self.settings.install_routes && old.is_none() {
            return None;
        }
        let wanted = self.next_hops_of(id, winners);
        let direct = direct.filter(|direct| *direct != wanted);
        let redirected = self.direct.get(&id) != direct.as_ref();
        let same = old.map_or(&[][..], |old| self.hop_sets.get(old).as_slice()) == wanted.as_slice();
        if same && !redirected {
            return None;
        }
        match direct.clone() {
            Some(direct) => self.direct.insert(id, direct),
            None => self.direct.remove(&id),
        };
        let direct = direct.map(|direct| Box::new(direct.as_slice().into()));
        if same {
            let next_hops = last.tell(&wanted);
            return Some(BestPathChange { prefix: self.table.prefix(id), next_hops, direct });
        }
        let sets = &mut self.hop_sets;
        let new = match last.set.filter(|last| *sets.get(*last) == wanted) {
            _ if wanted.is_empty() => None,
            Some(last) => {
                sets.retain(last);
                Some(last)
            }
            None => Some(sets.intern(&wanted, |set| *set == wanted, || wanted.clone())),
        };
        if let Some(old) = old {
            self.hop_sets.release(old);
        }
        self.table.get_mut(id).next_hops = new;
        Some(BestPathChange { prefix: self.table.prefix(id), next_hops: last.tell(&wanted), direct })
    }

    /// The next hops of the paths at these places.
    fn next_hops_of(&self, id: PrefixId, winners: &[usize]) -> NextHopSet {
        let destination = self.table.get(id);
        let mut next_hops = NextHopSet::new();
        let installed = winners.iter().filter(|_| self.settings.install_routes);
        for path in installed.filter_map(|place| destination.paths.get(*place)) {
            let hop = self.holdings.attributes.get(path.attributes).hop;
            if let Some(tracked) = hop.and_then(|hop| self.holdings.hops.tracked(hop))
                && !next_hops.contains(&tracked)
            {
                next_hops.push(tracked);
            }
        }
        next_hops
    }

    /// What they would be without paths over next hops that are reached by routes of ours alone; none: there are no such paths.
    fn direct_next_hops(&self, id: PrefixId) -> Option<NextHopSet> {
        let Holdings { hops, attributes, .. } = &self.holdings;
        let indirect = |path: &Path| {
            let hop = attributes.get(path.attributes).hop;
            path.standing == Standing::Eligible && hop.is_some_and(|hop| hops.resolution(hop).is_indirect())
        };
        let paths = &self.table.get(id).paths;
        if !hops.any_indirect() || !paths.iter().any(indirect) {
            return None;
        }
        let decided = self.decided();
        let direct = |c: &Candidate| !paths.get(c.path).is_some_and(indirect);
        let mut candidates: Vec<Candidate> = decided.eligible(id).filter(direct).collect();
        decision::keep_winners(&mut candidates, decided.max_paths);
        let winners: Winners = candidates.iter().map(|candidate| candidate.path).collect();
        Some(self.next_hops_of(id, &winners))
    }

    /// Takes in which path is the best; says whether that is another one than before. `named`: what the history calls the best paths before
    /// and after a change of just before, which nearly always are those of this one. No attributes come to be meanwhile.
    fn change_best(
        &mut self,
        id: PrefixId,
        winners: &[usize],
        named: &mut [Option<(Best, BestId)>; 2],
    ) -> bool {
        let destination = self.table.get_mut(id);
        let best = winners.first().and_then(|place| destination.paths.get(*place));
        let best = best.map(|path| Best { source: path.source, attributes: path.attributes });
        let old = std::mem::replace(&mut destination.best, best);
        if old == best {
            return false;
        }
        let [before, after] = named;
        let before = old.map(|old| self.name(old, before));
        let after = best.map(|best| self.name(best, after));
        self.history.record(id.index(), self.table.prefix(id), before, after);
        if old.is_some() != best.is_some() {
            self.aggregates.count(&self.table.prefix(id), best.is_some());
        }
        if let Some(best) = best {
            self.holdings.attributes.retain(best.attributes);
        }
        if let Some(old) = old {
            self.holdings.attributes.release(old.attributes, &mut self.holdings.hops);
        }
        true
    }

    /// What the history calls a best path, of which `known` holds a reference.
    fn name(&mut self, best: Best, known: &mut Option<(Best, BestId)>) -> BestId {
        match known {
            Some((of, id)) if *of == best => *id,
            _ => {
                let id = self.history.id_of(self.holdings.best_of(best));
                known.replace((best, id)).into_iter().for_each(|(_, left)| self.history.release(left));
                id
            }
        }
    }
}

/// What was heard and how it is decided on: what peers are told is made of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Decided<'a> {
    pub(super) table: &'a PrefixTable<Destination>,
    pub(super) holdings: &'a Holdings,
    pub(super) aggregates: &'a Aggregates,
    pub(super) max_paths: u16,
    /// Whether peers are told what was learned.
    pub(super) advertising: bool,
}

impl Decided<'_> {
    /// Whether peers are told of paths from there yet. After a restart what was learned may not be all that there is; what we originate
    /// comes before it whatever is learned besides.
    pub(super) fn tells(&self, source: Source) -> bool {
        self.advertising || source == Source::LOCAL
    }

    /// The eligible paths of a prefix, decided on.
    pub(super) fn candidates(&self, id: PrefixId) -> Candidates {
        let mut candidates: Candidates = self.eligible(id).collect();
        decision::decide(&mut candidates, self.max_paths);
        candidates
    }

    /// The places of those alone that are used, best first, in vectors that are there already.
    fn winners(&self, id: PrefixId, candidates: &mut Vec<Candidate>, winners: &mut Winners) {
        winners.clear();
        // Most prefixes have one path, about which there is nothing to decide.
        let paths = self.table.get(id).paths();
        if paths.len() <= 1 {
            winners.extend(paths.first().filter(|path| path.standing == Standing::Eligible).map(|_| 0));
            return;
        }
        // What lets most paths lose is compared without a look at the rest of them.
        let eligible = paths.iter().enumerate().filter(|(_, path)| path.standing == Standing::Eligible);
        let mut best = None;
        for (place, path) in eligible {
            let rank = self.rank(path);
            if best.is_none_or(|best| rank < best) {
                best = Some(rank);
                winners.clear();
            }
            if best == Some(rank) {
                winners.push(place);
            }
        }
        if winners.len() <= 1 {
            return;
        }
        candidates.clear();
        let equal = winners.drain(..).filter_map(|place| Some((place, paths.get(place)?)));
        candidates.extend(equal.filter_map(|(place, path)| self.candidate(place, path)));
        decision::keep_winners(candidates, self.max_paths);
        winners.extend(candidates.iter().map(|candidate| candidate.path));
    }

    /// What the steps before MED compare: what we originate comes before what we learn, and then see [`Keys::rank`](super::attributes::Keys::rank).
    fn rank(&self, path: &Path) -> (bool, u64) {
        (path.source != Source::LOCAL, self.holdings.attributes.get(path.attributes).keys.rank())
    }

    fn eligible(&self, id: PrefixId) -> impl Iterator<Item = Candidate> {
        let paths = self.table.get(id).paths.iter().enumerate();
        paths.filter(|(_, p)| p.standing == Standing::Eligible).filter_map(|(i, p)| self.candidate(i, p))
    }

    fn candidate(&self, place: usize, path: &Path) -> Option<Candidate> {
        let interned = self.holdings.attributes.get(path.attributes);
        let candidate = Candidate {
            path: place,
            local: true,
            keys: interned.keys,
            internal: false,
            igp_metric: None,
            router_id: 0,
            address: std::net::IpAddr::from([0; 4]).into(),
            path_id: path.source.path_id(),
            hop: interned.hop,
            lower_meds: 0,
            lost: None,
            multipath: false,
        };
        let Some(peer) = path.source.peer() else { return Some(candidate) };
        let peer = self.holdings.peers.get(&peer)?;
        let session = peer.session()?;
        Some(Candidate {
            local: false,
            internal: session.peer_type == PeerType::Internal,
            igp_metric: match interned.hop.map(|hop| self.holdings.hops.resolution(hop)) {
                Some(Resolution::Gateway { metric } | Resolution::Recursive { metric, .. }) => Some(metric),
                _ => None,
            },
            router_id: session.remote_id.into(),
            address: peer.address,
            ..candidate
        })
    }
}
