//! The one place where the daemon reads the clocks.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

/// One moment on both clocks: the monotonic one that protocols count with, and the one that people read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    /// Monotonic.
    pub(super) instant: Instant,
    /// UTC.
    pub(super) timestamp: Timestamp,
}

/// How far the wall clock may go astray from the monotonic one before it counts as set.
const STEP: SignedDuration = SignedDuration::from_secs(1);

/// A moment at which the two clocks are held together, so that one instant is always told as the same time of day.
static ANCHOR: Mutex<Option<Moment>> = Mutex::new(None);

impl Moment {
    /// Now.
    pub(super) fn now() -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "the daemon's loop reads the clock here and hands it on"
        )]
        let read = Self { instant: Instant::now(), timestamp: Timestamp::now() };
        let mut anchor = ANCHOR.lock().unwrap_or_else(PoisonError::into_inner);
        let held = anchor.get_or_insert(read);
        let timestamp = held.timestamp_of(read.instant);
        if read.timestamp.duration_since(timestamp).abs() > STEP {
            *held = read;
            return read;
        }
        Self { timestamp, ..read }
    }

    /// The time of day of an instant near this moment: as the wall clock goes now, also where it was set since.
    pub(super) fn timestamp_of(&self, instant: Instant) -> Timestamp {
        let shifted = match instant.checked_duration_since(self.instant) {
            Some(ahead) => self.timestamp.checked_add(signed(ahead)),
            None => self.timestamp.checked_sub(signed(self.instant.saturating_duration_since(instant))),
        };
        shifted.unwrap_or(self.timestamp)
    }
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_instant_is_always_told_as_the_same_time() {
        let instant = Moment::now().instant;
        let told = Moment::now().timestamp_of(instant);
        assert!((0..1000).all(|_| Moment::now().timestamp_of(instant) == told));
    }

    #[test]
    fn instants_before_and_after_are_told_in_utc() {
        let now = Moment { timestamp: Timestamp::from_second(1_000_000).unwrap(), ..Moment::now() };
        let ago = now.instant.checked_sub(Duration::from_secs(5)).unwrap();
        assert_eq!(now.timestamp_of(ago).as_second(), 999_995);
        let ahead = now.instant.checked_add(Duration::from_secs(5)).unwrap();
        assert_eq!(now.timestamp_of(ahead).as_second(), 1_000_005);
    }
}
