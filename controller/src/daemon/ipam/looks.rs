//! What was missing on which looks. Pure, in memory only: after a restart of the daemon the looks begin anew.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use weft_cni::ipam::{Entry, Key};

use super::observe::{Observation, Whereabouts};

/// The entries whose addresses were nowhere on the last look, and since when.
#[derive(Debug, Default)]
pub(super) struct Looks(BTreeMap<Key, Missing>);

#[derive(Clone, Debug)]
struct Missing {
    /// The entry must stay the same: another ADD of the same key is another pod.
    entry: Entry,
    first: Instant,
    since: Timestamp,
    looks: u32,
}

impl Looks {
    /// Takes in another look, and gives the entries to be freed: those that were nowhere on this look, on one `grace` or
    /// longer ago, and on all between. Of an earlier boot, two looks are enough: its network namespaces are gone.
    pub(super) fn take(
        &mut self,
        now: Instant,
        time: Timestamp,
        seen: &Observation,
        grace: Duration,
    ) -> Vec<Entry> {
        let before = std::mem::take(&mut self.0);
        let mut due = Vec::new();
        for (entry, whereabouts) in &seen.entries {
            let Whereabouts::Nowhere { earlier_boot } = *whereabouts else { continue };
            let earlier = before.get(&entry.key).filter(|missing| missing.entry == *entry).cloned();
            let fresh = Missing { entry: entry.clone(), first: now, since: time, looks: 0 };
            let mut missing = earlier.unwrap_or(fresh);
            missing.looks = missing.looks.saturating_add(1);
            let apart = now.saturating_duration_since(missing.first);
            if missing.looks >= 2 && (earlier_boot || apart >= grace) {
                due.push(entry.clone());
            }
            self.0.insert(entry.key.clone(), missing);
        }
        due
    }

    /// Since when the addresses of this entry are nowhere.
    pub(super) fn missing_since(&self, key: &Key) -> Option<Timestamp> {
        self.0.get(key).map(|missing| missing.since)
    }

    /// Forgets an entry that is gone.
    pub(super) fn forget(&mut self, key: &Key) {
        self.0.remove(key);
    }

    /// How many addresses are nowhere.
    pub(super) fn addresses(&self) -> u64 {
        self.0.values().map(|missing| missing.entry.addresses.len() as u64).sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::compare::tests::entry;
    use super::*;
    use crate::daemon::clock::Moment;

    const GRACE: Duration = Duration::from_secs(900);

    fn seen(entry: &Entry, whereabouts: Whereabouts) -> Observation {
        Observation { entries: vec![(entry.clone(), whereabouts)], ..Observation::default() }
    }

    /// Looks at the seconds given, with the address nowhere unless it is `there` then; counts what is due.
    fn due(seconds: &[u64], there: Option<u64>, earlier_boot: bool) -> Vec<usize> {
        let (mut looks, start) = (Looks::default(), Moment::now().instant);
        let entry = entry("a", [10, 0, 0, 1], "boot");
        let at = |second: &u64| {
            let whereabouts = match there {
                Some(there) if there == *second => Whereabouts::Linked { link: 7 },
                _ => Whereabouts::Nowhere { earlier_boot },
            };
            let now = start + Duration::from_secs(*second);
            looks.take(now, Timestamp::UNIX_EPOCH, &seen(&entry, whereabouts), GRACE).len()
        };
        seconds.iter().map(at).collect()
    }

    #[test]
    fn two_looks_the_grace_apart_are_needed() {
        assert_eq!(due(&[0, 60, 899, 900], None, false), [0, 0, 0, 1]);
        assert_eq!(due(&[900], None, false), [0]);
        assert_eq!(due(&[0, 5000], None, false), [0, 1]);
    }

    #[test]
    fn a_look_that_finds_it_begins_anew() {
        assert_eq!(due(&[0, 600, 1000, 1899, 1900], Some(600), false), [0, 0, 0, 0, 1]);
    }

    #[test]
    fn of_an_earlier_boot_two_looks_are_enough() {
        assert_eq!(due(&[0, 1], None, true), [0, 1]);
    }

    #[test]
    fn another_add_of_the_same_key_is_another_pod() {
        let (mut looks, now) = (Looks::default(), Moment::now().instant);
        let nowhere = Whereabouts::Nowhere { earlier_boot: false };
        let first = entry("a", [10, 0, 0, 1], "boot");
        let second = entry("a", [10, 0, 0, 2], "boot");
        let mut take =
            |entry: &Entry| looks.take(now, Timestamp::UNIX_EPOCH, &seen(entry, nowhere), Duration::ZERO);
        assert!(take(&first).is_empty());
        assert!(take(&second).is_empty());
        assert_eq!(take(&second), std::slice::from_ref(&second));
        assert_eq!(looks.addresses(), 1);
        looks.forget(&second.key);
        assert_eq!(looks.missing_since(&second.key), None);
    }

    proptest! {
        /// Whatever was seen when: what is freed was nowhere on two looks the grace apart, and on all between.
        #[test]
        fn nothing_is_freed_that_was_seen_within_the_grace(
            steps in prop::collection::vec((0u64..600, prop::bool::weighted(0.8)), 1..40),
        ) {
            let (mut looks, start) = (Looks::default(), Moment::now().instant);
            let entry = entry("a", [10, 0, 0, 1], "boot");
            let (mut second, mut missing_since) = (0, None);
            for (pause, missing) in steps {
                second += pause;
                let whereabouts = if missing {
                    Whereabouts::Nowhere { earlier_boot: false }
                } else {
                    Whereabouts::InNamespace
                };
                let now = start + Duration::from_secs(second);
                let due = looks.take(now, Timestamp::UNIX_EPOCH, &seen(&entry, whereabouts), GRACE);
                let first = missing.then(|| *missing_since.get_or_insert(second));
                if !missing {
                    missing_since = None;
                }
                let wanted = first.is_some_and(|first| second - first >= GRACE.as_secs());
                prop_assert_eq!(!due.is_empty(), wanted, "at {} s, missing since {:?}", second, first);
            }
        }
    }
}
