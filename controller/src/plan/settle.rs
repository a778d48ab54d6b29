//! When Services' prefixes are announced that have come to be answered on this node: the service proxy needs a moment, too.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use ipnet::IpNet;

/// Since when which prefixes are answered.
#[derive(Clone, Debug, Default)]
pub struct Settling {
    /// None: long enough.
    answered: BTreeMap<IpNet, Option<Instant>>,
    /// What is answered at the first look has been for long enough.
    trusting: bool,
    settle_time: Duration,
}

impl Settling {
    /// Nothing is answered yet. With `resuming` an earlier run announced what is answered at the first look, and its peers still
    /// count on it.
    #[must_use]
    pub fn new(resuming: bool) -> Self {
        Self { trusting: resuming, ..Self::default() }
    }

    /// Takes in what is answered now, and gives those of them that are not to be announced yet.
    pub fn look(
        &mut self,
        now: Instant,
        answered: &BTreeSet<IpNet>,
        settle_time: Duration,
    ) -> BTreeSet<IpNet> {
        self.settle_time = settle_time;
        self.answered.retain(|prefix, _| answered.contains(prefix));
        let first = if std::mem::take(&mut self.trusting) { None } else { Some(now) };
        for prefix in answered {
            self.answered.entry(*prefix).or_insert(first);
        }
        for since in self.answered.values_mut() {
            if since.is_some_and(|since| now.saturating_duration_since(since) >= settle_time) {
                *since = None;
            }
        }
        self.answered.iter().filter(|(_, since)| since.is_some()).map(|(prefix, _)| *prefix).collect()
    }

    /// When to look again.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let first = self.answered.values().copied().flatten().min()?;
        first.checked_add(self.settle_time)
    }
}
