//! Logging no more than people can read: once per subject and cause in a while, with a count of what was left out.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long one cause of one subject stays quiet after it was logged.
const QUIET: Duration = Duration::from_secs(10);
/// How many subjects and causes are remembered; above that, what is quiet longest is forgotten.
const REMEMBERED_MAX: usize = 4096;

/// Decides what is logged.
#[derive(Debug, Default)]
pub(super) struct RateLimit {
    seen: BTreeMap<(String, String), Seen>,
}

#[derive(Debug)]
struct Seen {
    logged: Instant,
    suppressed: u64,
}

impl RateLimit {
    /// Whether to log this now; if so, how many like it were left out since the last time.
    pub(super) fn admit(&mut self, now: Instant, subject: &str, cause: &str) -> Option<u64> {
        let key = (subject.to_owned(), cause.to_owned());
        if let Some(seen) = self.seen.get_mut(&key) {
            if now.saturating_duration_since(seen.logged) < QUIET {
                seen.suppressed = seen.suppressed.saturating_add(1);
                return None;
            }
            seen.logged = now;
            return Some(std::mem::take(&mut seen.suppressed));
        }
        if self.seen.len() >= REMEMBERED_MAX {
            self.seen.retain(|_, seen| now.saturating_duration_since(seen.logged) < QUIET);
        }
        // Still full: thousands of causes in ten seconds. Logging one more helps nobody.
        if self.seen.len() >= REMEMBERED_MAX {
            return None;
        }
        self.seen.insert(key, Seen { logged: now, suppressed: 0 });
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::clock::Moment;

    #[test]
    fn a_cause_is_logged_once_in_a_while_and_counted() {
        let mut limit = RateLimit::default();
        let start = Moment::now().instant;
        assert_eq!(limit.admit(start, "10.0.0.1", "refused"), Some(0));
        assert_eq!(limit.admit(start, "10.0.0.1", "refused"), None);
        assert_eq!(limit.admit(start, "10.0.0.1", "other"), Some(0));
        assert_eq!(limit.admit(start, "10.0.0.2", "refused"), Some(0));
        assert_eq!(limit.admit(start + QUIET, "10.0.0.1", "refused"), Some(1));
    }

    #[test]
    fn memory_is_bounded() {
        let mut limit = RateLimit::default();
        let start = Moment::now().instant;
        for n in 0..2 * REMEMBERED_MAX {
            limit.admit(start, &n.to_string(), "refused");
        }
        assert_eq!(limit.seen.len(), REMEMBERED_MAX);
        assert_eq!(limit.admit(start + QUIET, "new", "refused"), Some(0));
        assert_eq!(limit.seen.len(), 1);
    }
}
