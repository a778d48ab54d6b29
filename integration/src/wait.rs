//! Waiting for what other processes do: always with a deadline, always saying what was awaited.

use std::fmt::Display;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// Between two looks. What is awaited here is the state of foreign processes and of kernels, which send no event to wait on.
const POLL: Duration = Duration::from_millis(20);

/// The clock of the lab: what it watches are real processes in real time.
#[expect(clippy::disallowed_methods, reason = "the lab watches real processes, it has no virtual clock")]
#[must_use]
pub fn now() -> Instant {
    Instant::now()
}

/// Calls `probe` until it succeeds.
///
/// # Errors
/// The last error of `probe`, once `limit` has passed, with `what` was awaited and for how long.
pub fn wait_until<T>(what: impl Display, limit: Duration, mut probe: impl FnMut() -> Result<T>) -> Result<T> {
    let end = now() + limit;
    loop {
        match probe() {
            Ok(value) => return Ok(value),
            Err(error) if now() >= end => {
                return Err(error).with_context(|| format!("waited {limit:?} in vain for {what}"));
            }
            Err(_) => sleep(POLL),
        }
    }
}

/// Calls `probe` for as long as `period` lasts: what must stay true, stays true.
///
/// # Errors
/// The first error of `probe`, with `what` should have stayed.
pub fn stays(what: impl Display, period: Duration, mut probe: impl FnMut() -> Result<()>) -> Result<()> {
    let start = now();
    while now() < start + period {
        probe().with_context(|| format!("{what} ended after {:?} of {period:?}", start.elapsed()))?;
        sleep(POLL);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failure_names_what_was_awaited_and_why_not() {
        let error = wait_until("the tide", Duration::from_millis(30), || -> Result<()> {
            anyhow::bail!("still low")
        })
        .expect_err("the probe never succeeds");
        let text = format!("{error:#}");
        assert!(text.contains("the tide") && text.contains("still low"), "{text}");
    }

    #[test]
    fn stays_reports_the_first_break() {
        let mut looks = 0;
        let error = stays("calm", Duration::from_secs(5), || {
            looks += 1;
            anyhow::ensure!(looks < 3, "a gust");
            Ok(())
        })
        .expect_err("the probe breaks at the third look");
        assert!(format!("{error:#}").contains("a gust"));
        assert_eq!(looks, 3);
    }
}
