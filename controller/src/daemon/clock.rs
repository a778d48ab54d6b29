//! The one place where the daemon reads the clocks.

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

impl Moment {
    /// Now.
    pub(super) fn now() -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "the daemon's loop reads the clock here and hands it on"
        )]
        let instant = Instant::now();
        Self { instant, timestamp: Timestamp::now() }
    }

    /// The time of day of an instant near this moment. As the wall clock may be set, it is only as right as the wall clock is
    /// now.
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
    fn instants_before_and_after_are_told_in_utc() {
        let now = Moment { timestamp: Timestamp::from_second(1_000_000).unwrap(), ..Moment::now() };
        let ago = now.instant.checked_sub(Duration::from_secs(5)).unwrap();
        assert_eq!(now.timestamp_of(ago).as_second(), 999_995);
        let ahead = now.instant.checked_add(Duration::from_secs(5)).unwrap();
        assert_eq!(now.timestamp_of(ahead).as_second(), 1_000_005);
    }
}
