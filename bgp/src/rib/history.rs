//! Which best paths changed lately, for people who ask afterwards.
//!
//! Nothing is told to anybody, and nothing allocated once the ring is full: to write one change down costs a look at a place and a copy, which is
//! small as best paths are known by ids.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use crate::arena::intern::{Id, Interner};
use crate::status::{BestChange, BestOf};

/// How many changes are remembered.
const CHANGES_MAX: usize = 4096;

/// How many changes of one prefix are told each by itself within [`WINDOW`]; more are told as one, so that a prefix that flaps leaves room
/// for others.
const BURST: u8 = 8;

/// See [`BURST`].
const WINDOW: Duration = Duration::from_secs(1);

/// How many places [`History::latest`] has.
const PLACES: usize = 2 * CHANGES_MAX;

/// The last changes of best paths.
#[derive(Debug, Default)]
pub(super) struct History {
    /// In the order in which they began.
    ring: VecDeque<Written>,
    /// What is written down of best paths, once each.
    bests: Interner<BestOf>,
    /// How many have left the ring.
    gone: u64,
    /// Which change of a prefix was written down last, counted from the first one ever: at the place that the prefix's id says. Of
    /// prefixes that meet at a place it is the last one's, and the others' begin anew.
    latest: Vec<u64>,
    /// How many changes there were.
    seq: u64,
    /// The moment that is handled.
    pub(super) now: Option<Instant>,
}

/// A change as it was written down.
#[derive(Clone, Copy, Debug)]
struct Written {
    /// As of the last of the changes that it stands for.
    seq: u64,
    at: Instant,
    prefix: IpNet,
    before: Option<BestId>,
    after: Option<BestId>,
    changes: u32,
    /// When the burst of its prefix began, and how many changes of that were written down.
    burst: (Instant, u8),
}

/// Names what is written down of a best path.
pub(super) type BestId = Id<BestOf>;

impl History {
    /// The id of what is written down of a best path, with one more reference.
    pub(super) fn id_of(&mut self, best: BestOf) -> BestId {
        self.bests.intern(&best, |known| *known == best, || best)
    }

    /// Gives a reference back.
    pub(super) fn release(&mut self, id: BestId) {
        self.bests.release(id);
    }

    /// Writes down that the best path to a prefix is another. `id` is the prefix's place in the table.
    pub(super) fn record(&mut self, id: usize, prefix: IpNet, before: Option<BestId>, after: Option<BestId>) {
        let Some(now) = self.now else { return };
        self.seq += 1;
        let seq = self.seq;
        let latest = self.latest_of(id, &prefix);
        let burst = latest.as_ref().map(|latest| latest.burst);
        let burst = burst.filter(|(since, _)| now.saturating_duration_since(*since) < WINDOW);
        let (since, written) = burst.unwrap_or((now, 0));
        if let Some(last) = latest.filter(|_| written >= BURST) {
            let left = std::mem::replace(&mut last.after, after);
            last.changes = last.changes.saturating_add(1);
            (last.seq, last.at) = (seq, now);
            after.into_iter().for_each(|id| self.bests.retain(id));
            left.into_iter().for_each(|id| self.release(id));
            return;
        }
        if self.ring.len() >= CHANGES_MAX
            && let Some(left) = self.ring.pop_front()
        {
            self.gone += 1;
            [left.before, left.after].into_iter().flatten().for_each(|id| self.release(id));
        }
        [before, after].into_iter().flatten().for_each(|id| self.bests.retain(id));
        if self.latest.is_empty() {
            self.latest.resize(PLACES, 0);
        }
        if let Some(latest) = self.latest.get_mut(id % PLACES) {
            *latest = self.gone + self.ring.len() as u64;
        }
        let burst = (since, written.saturating_add(1));
        self.ring.push_back(Written { seq, at: now, prefix, before, after, changes: 1, burst });
    }

    fn latest_of(&mut self, id: usize, prefix: &IpNet) -> Option<&mut Written> {
        let place = self.latest.get(id % PLACES)?.checked_sub(self.gone)?;
        let latest = self.ring.get_mut(usize::try_from(place).ok()?)?;
        (latest.prefix == *prefix).then_some(latest)
    }

    /// Those after a number, in the order in which they ended.
    pub(super) fn after(&self, seq: u64) -> Vec<BestChange> {
        let best = |id: Option<BestId>| id.map(|id| *self.bests.get(id));
        let change = |written: &Written| {
            let Written { seq, at, prefix, before, after, changes, .. } = *written;
            BestChange { seq, at, prefix, before: best(before), after: best(after), changes }
        };
        let mut changes: Vec<_> = self.ring.iter().filter(|written| written.seq > seq).map(change).collect();
        changes.sort_unstable_by_key(|change| change.seq);
        changes
    }

    /// How many there were.
    pub(super) fn count(&self) -> u64 {
        self.seq
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "any instant will do as the start")]
mod tests {
    use super::*;

    fn prefix(n: u32) -> IpNet {
        IpNet::new(std::net::Ipv4Addr::from(n).into(), 32).unwrap()
    }

    fn best(last: u8) -> Option<BestOf> {
        Some(BestOf { peer: None, local: false, next_hop: [10, 0, 0, last].into() })
    }

    impl History {
        fn write(&mut self, id: usize, prefix: IpNet, before: Option<BestOf>, after: Option<BestOf>) {
            let [before, after] = [before, after].map(|best| best.map(|best| self.id_of(best)));
            self.record(id, prefix, before, after);
            [before, after].into_iter().flatten().for_each(|id| self.release(id));
        }
    }

    #[test]
    fn a_prefix_that_flaps_takes_eight_places_a_second() {
        let (mut history, start) = (History::default(), Instant::now());
        for n in 0..20 {
            history.now = Some(start + Duration::from_millis(60 * u64::from(n)));
            history.write(1, prefix(1), best(n), best(n + 1));
        }
        history.write(2, prefix(2), None, best(1));
        let kept = history.after(0);
        // The first second has 17 changes, of which ten are told as the eighth.
        let changes: Vec<u32> = kept.iter().map(|change| change.changes).collect();
        assert_eq!(changes, [1, 1, 1, 1, 1, 1, 1, 10, 1, 1, 1, 1]);
        assert_eq!((kept[7].seq, kept[7].before, kept[7].after), (17, best(7), best(17)));
        assert_eq!(history.after(19).iter().map(|change| change.seq).collect::<Vec<_>>(), [20, 21]);
        assert_eq!(history.count(), 21);
        assert_eq!(history.bests.len(), 12, "no more than the ring has");
    }

    #[test]
    fn the_history_is_bounded() {
        let mut history = History { now: Some(Instant::now()), ..History::default() };
        let many = u32::try_from(CHANGES_MAX).unwrap() * 3;
        for n in 0..many {
            history.write(n as usize, prefix(n), None, best(1));
        }
        let kept = history.after(0);
        assert_eq!((kept.len(), history.latest.len()), (CHANGES_MAX, PLACES));
        assert_eq!(
            (kept[0].prefix, history.ring.capacity() < 2 * CHANGES_MAX + 1),
            (prefix(many * 2 / 3), true)
        );
        // One that has left is begun anew.
        history.write(0, prefix(0), best(1), None);
        assert_eq!(history.after(0).last().map(|c| (c.prefix, c.changes)), Some((prefix(0), 1)));
    }
}
