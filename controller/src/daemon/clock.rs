//! The one place where the daemon reads the clocks.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp, Unit};

/// How far the clocks may part before they are compared anew.
const TOLERANCE: SignedDuration = SignedDuration::from_secs(1);

/// When the clocks were compared last. While they agree, an instant is always told as the same time of day, so that whoever asks
/// twice can see that nothing has happened.
static COMPARED: Mutex<Option<(Instant, Timestamp)>> = Mutex::new(None);

/// One moment on both clocks: the monotonic one that protocols count with, and the one that people read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    /// Monotonic.
    pub(super) instant: Instant,
    /// UTC, to the millisecond.
    pub(super) timestamp: Timestamp,
    compared: (Instant, Timestamp),
}

impl Moment {
    /// Now.
    pub(super) fn now() -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "the daemon's loop reads the clock here and hands it on"
        )]
        let instant = Instant::now();
        let timestamp = milliseconds(Timestamp::now());
        let mut compared = COMPARED.lock().unwrap_or_else(PoisonError::into_inner);
        let agree = compared.is_some_and(|(then, told)| {
            shift(told, then, instant).duration_since(timestamp).abs() < TOLERANCE
        });
        if !agree {
            *compared = Some((instant, timestamp));
        }
        Self { instant, timestamp, compared: compared.unwrap_or((instant, timestamp)) }
    }

    /// The time of day of an instant. As the wall clock may be set, it is only as right as the wall clock is now.
    pub(super) fn timestamp_of(&self, instant: Instant) -> Timestamp {
        let (then, told) = self.compared;
        milliseconds(shift(told, then, instant))
    }
}

/// The time of day of `instant`, when `told` is that of `then`.
fn shift(told: Timestamp, then: Instant, instant: Instant) -> Timestamp {
    let shifted = match instant.checked_duration_since(then) {
        Some(ahead) => told.checked_add(signed(ahead)),
        None => told.checked_sub(signed(then.saturating_duration_since(instant))),
    };
    shifted.unwrap_or(told)
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::ZERO)
}

fn milliseconds(timestamp: Timestamp) -> Timestamp {
    timestamp.round(Unit::Millisecond).unwrap_or(timestamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_before_and_after_are_told_in_utc() {
        let now = Moment::now();
        let now = Moment { compared: (now.instant, Timestamp::from_second(1_000_000).unwrap()), ..now };
        let ago = now.instant.checked_sub(Duration::from_secs(5)).unwrap();
        assert_eq!(now.timestamp_of(ago).as_second(), 999_995);
        let ahead = now.instant.checked_add(Duration::from_secs(5)).unwrap();
        assert_eq!(now.timestamp_of(ahead).as_second(), 1_000_005);
    }

    #[test]
    fn an_instant_is_told_as_the_same_time_whenever_it_is_asked_for() {
        let first = Moment::now();
        for _ in 0..1000 {
            assert_eq!(Moment::now().timestamp_of(first.instant), first.timestamp_of(first.instant));
        }
        let apart = first.timestamp_of(first.instant).duration_since(first.timestamp).abs();
        assert!(apart < TOLERANCE, "{apart}");
    }
}
