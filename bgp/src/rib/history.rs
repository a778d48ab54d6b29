//! Which best paths changed lately, for people who ask afterwards.
//!
//! Nothing is told to anybody, and nothing allocated once the ring is full: to write one change down costs a look at a place and a copy.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use ipnet::IpNet;

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
    change: BestChange,
    /// When the burst of its prefix began, and how many changes of that were written down.
    burst: (Instant, u8),
}

impl History {
    /// Writes down that the best path to a prefix is another. `id` is the prefix's place in the table.
    pub(super) fn record(&mut self, id: usize, prefix: IpNet, before: Option<BestOf>, after: Option<BestOf>) {
        let Some(now) = self.now else { return };
        self.seq += 1;
        let seq = self.seq;
        let latest = self.latest_of(id, &prefix);
        let burst = latest.as_ref().map(|latest| latest.burst);
        let burst = burst.filter(|(since, _)| now.saturating_duration_since(*since) < WINDOW);
        let (since, written) = burst.unwrap_or((now, 0));
        if let Some(Written { change: last, .. }) = latest.filter(|_| written >= BURST) {
            last.after = after;
            last.changes = last.changes.saturating_add(1);
            (last.seq, last.at) = (seq, now);
            return;
        }
        if self.ring.len() >= CHANGES_MAX && self.ring.pop_front().is_some() {
            self.gone += 1;
        }
        if self.latest.is_empty() {
            self.latest.resize(PLACES, 0);
        }
        if let Some(latest) = self.latest.get_mut(id % PLACES) {
            *latest = self.gone + self.ring.len() as u64;
        }
        let change = BestChange { seq, at: now, prefix, before, after, changes: 1 };
        self.ring.push_back(Written { change, burst: (since, written.saturating_add(1)) });
    }

    fn latest_of(&mut self, id: usize, prefix: &IpNet) -> Option<&mut Written> {
        let place = self.latest.get(id % PLACES)?.checked_sub(self.gone)?;
        let latest = self.ring.get_mut(usize::try_from(place).ok()?)?;
        (latest.change.prefix == *prefix).then_some(latest)
    }

    /// Those after a number, in the order in which they ended.
    pub(super) fn after(&self, seq: u64) -> Vec<BestChange> {
        let ring = self.ring.iter().map(|written| written.change);
        let mut changes: Vec<_> = ring.filter(|change| change.seq > seq).collect();
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

    #[test]
    fn a_prefix_that_flaps_takes_eight_places_a_second() {
        let (mut history, start) = (History::default(), Instant::now());
        for n in 0..20 {
            history.now = Some(start + Duration::from_millis(60 * u64::from(n)));
            history.record(1, prefix(1), best(n), best(n + 1));
        }
        history.record(2, prefix(2), None, best(1));
        let kept = history.after(0);
        // The first second has 17 changes, of which ten are told as the eighth.
        let changes: Vec<u32> = kept.iter().map(|change| change.changes).collect();
        assert_eq!(changes, [1, 1, 1, 1, 1, 1, 1, 10, 1, 1, 1, 1]);
        assert_eq!((kept[7].seq, kept[7].before, kept[7].after), (17, best(7), best(17)));
        assert_eq!(history.after(19).iter().map(|change| change.seq).collect::<Vec<_>>(), [20, 21]);
        assert_eq!(history.count(), 21);
    }

    #[test]
    fn the_history_is_bounded() {
        let mut history = History { now: Some(Instant::now()), ..History::default() };
        let many = u32::try_from(CHANGES_MAX).unwrap() * 3;
        for n in 0..many {
            history.record(n as usize, prefix(n), None, best(1));
        }
        let kept = history.after(0);
        assert_eq!((kept.len(), history.latest.len()), (CHANGES_MAX, PLACES));
        assert_eq!(
            (kept[0].prefix, history.ring.capacity() < 2 * CHANGES_MAX + 1),
            (prefix(many * 2 / 3), true)
        );
        // One that has left is begun anew.
        history.record(0, prefix(0), best(1), None);
        assert_eq!(history.after(0).last().map(|c| (c.prefix, c.changes)), Some((prefix(0), 1)));
    }
}
