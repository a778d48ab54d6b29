//! Waits that double.

use std::time::{Duration, Instant};

use super::rng::Rng;

/// After a failure, how long to keep from trying again: the first wait after a [`Backoff::reset`] is `min`, every further one double the
/// one before, up to `max`.
#[derive(Clone, Debug, Default)]
pub(super) struct Backoff {
    last: Option<Duration>,
    until: Option<Instant>,
}

impl Backoff {
    /// No wait is shorter, however it is configured: a peer must not be able to keep us busy.
    pub(super) const FLOOR: Duration = Duration::from_millis(100);

    /// When a wait ends that no failure brings.
    pub(super) fn once(now: Instant, min: Duration, rng: &mut Rng) -> Instant {
        now + rng.jitter(min.max(Self::FLOOR))
    }

    /// Notes a failure and returns when the wait that it brings ends.
    pub(super) fn fail(&mut self, now: Instant, min: Duration, max: Duration, rng: &mut Rng) -> Instant {
        let min = min.max(Self::FLOOR);
        let wait = self.last.map_or(min, |last| last.saturating_mul(2)).min(max.max(min));
        self.last = Some(wait);
        let until = now + rng.jitter(wait);
        self.until = Some(until);
        until
    }

    /// Whether the wait is not over.
    pub(super) fn is_waiting(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// When the last wait ends or has ended.
    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Ends the wait and forgets the failures.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }
}
