//! Deadlines.

use std::time::Instant;

/// The timers of RFC 4271 section 8.1.3 and section 10.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timer {
    /// Until the next dial.
    ConnectRetry,
    /// Until something has to be heard from the peer.
    Hold,
    /// Until the next KEEPALIVE is sent.
    Keepalive,
    /// Until OPEN is sent though the peer has not sent its own.
    DelayOpen,
    /// Until the end of the wait in Idle.
    IdleHold,
}

impl Timer {
    const ALL: [Self; 5] = [Self::ConnectRetry, Self::Hold, Self::Keepalive, Self::DelayOpen, Self::IdleHold];
}

/// Which timers run, and until when.
#[derive(Clone, Debug, Default)]
pub(super) struct Deadlines([Option<Instant>; Timer::ALL.len()]);

impl Deadlines {
    fn slot(&mut self, timer: Timer) -> Option<&mut Option<Instant>> {
        self.0.get_mut(timer as usize)
    }

    pub(super) fn set(&mut self, timer: Timer, deadline: Instant) {
        if let Some(slot) = self.slot(timer) {
            *slot = Some(deadline);
        }
    }

    /// Puts a timer off that runs and would expire before; whether there was one.
    pub(super) fn put_off(&mut self, timer: Timer, until: Instant) -> bool {
        let slot = self.slot(timer).and_then(Option::as_mut).filter(|deadline| **deadline < until);
        slot.map(|deadline| *deadline = until).is_some()
    }

    pub(super) fn stop(&mut self, timer: Timer) {
        if let Some(slot) = self.slot(timer) {
            *slot = None;
        }
    }

    pub(super) fn is_running(&self, timer: Timer) -> bool {
        self.0.get(timer as usize).is_some_and(Option::is_some)
    }

    pub(super) fn running(&self) -> impl Iterator<Item = (Timer, Instant)> {
        Timer::ALL.into_iter().zip(self.0).filter_map(|(timer, deadline)| Some((timer, deadline?)))
    }

    /// The earliest deadline.
    pub(super) fn next(&self) -> Option<(Instant, Timer)> {
        self.running().map(|(timer, deadline)| (deadline, timer)).min()
    }

    /// The earliest timer whose time has come. It no longer runs.
    pub(super) fn expire(&mut self, now: Instant) -> Option<Timer> {
        let (deadline, timer) = self.next()?;
        if deadline > now {
            return None;
        }
        self.stop(timer);
        Some(timer)
    }
}
