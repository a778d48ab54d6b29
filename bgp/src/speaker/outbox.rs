//! What was handed to the transport for one connection and has not left yet.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::types::PeerAddress;

/// Who made the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Maker {
    /// The session: its own messages need no credit.
    Session,
    /// The peer's update group, whichever that is when they leave: the peer takes what it owes from group to group.
    Group,
}

/// One connection's account: whose bytes are on their way, and since when nothing has moved.
#[derive(Debug)]
pub(super) struct Outbox {
    /// Whose connection it is.
    pub(super) peer: PeerAddress,
    /// In order.
    unsent: VecDeque<(Maker, usize)>,
    /// When bytes last left, or the first were put in.
    moved: Instant,
}

impl Outbox {
    pub(super) fn new(now: Instant, peer: PeerAddress) -> Self {
        Self { peer, unsent: VecDeque::new(), moved: now }
    }

    pub(super) fn push(&mut self, now: Instant, maker: Maker, bytes: usize) {
        if self.unsent.is_empty() {
            self.moved = now;
        }
        match self.unsent.back_mut() {
            Some((last, queued)) if *last == maker => *queued = queued.saturating_add(bytes),
            _ => self.unsent.push_back((maker, bytes)),
        }
    }

    /// Bytes left; how many of them were a group's.
    pub(super) fn written(&mut self, now: Instant, mut bytes: usize) -> usize {
        self.moved = now;
        let mut credit = 0;
        while bytes > 0 {
            let Some((maker, queued)) = self.unsent.front_mut() else { break };
            let part = bytes.min(*queued);
            bytes -= part;
            *queued -= part;
            if *maker == Maker::Group {
                credit += part;
            }
            if *queued == 0 {
                self.unsent.pop_front();
            }
        }
        credit
    }

    /// Whether nothing that a group made is left.
    pub(super) fn group_is_out(&self) -> bool {
        self.unsent.iter().all(|(maker, _)| *maker != Maker::Group)
    }

    /// The SendHoldTimer (RFC 9687): when the peer has taken nothing for too long.
    pub(super) fn send_hold_deadline(&self, send_hold_time: Option<Duration>) -> Option<Instant> {
        (!self.unsent.is_empty()).then(|| self.moved.checked_add(send_hold_time?))?
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "any instant will do as the start")]
mod tests {
    use super::*;
    use crate::config::Timers;

    const PEER: PeerAddress = PeerAddress::Ip(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));

    #[test]
    fn credit_is_for_what_groups_have_made() {
        let now = Instant::now();
        let mut outbox = Outbox::new(now, PEER);
        for (maker, bytes) in [
            (Maker::Session, 19),
            (Maker::Group, 60),
            (Maker::Group, 40),
            (Maker::Session, 19),
            (Maker::Group, 50),
        ] {
            outbox.push(now, maker, bytes);
        }
        assert_eq!(outbox.written(now, 19), 0);
        assert_eq!(outbox.written(now, 30), 30);
        assert_eq!(outbox.written(now, 99), 70 + 10);
        assert_eq!(outbox.written(now, 1000), 40, "not more than was put in");
    }

    /// Proves RFC 9687 3.
    #[test]
    fn the_send_hold_timer_runs_while_something_waits_and_nothing_moves() {
        let (start, hold, wait) = (Instant::now(), Duration::from_secs(90), Duration::from_secs(480));
        let mut outbox = Outbox::new(start, PEER);
        assert_eq!(outbox.send_hold_deadline(Some(wait)), None);
        outbox.push(start + hold, Maker::Session, 19);
        outbox.push(start + hold * 2, Maker::Session, 19);
        assert_eq!(outbox.send_hold_deadline(Some(wait)), Some(start + hold + wait));
        outbox.written(start + hold * 2, 19);
        assert_eq!(outbox.send_hold_deadline(Some(wait)), Some(start + hold * 2 + wait));
        assert_eq!(outbox.send_hold_deadline(None), None);
        outbox.written(start + hold * 3, 19);
        assert_eq!(outbox.send_hold_deadline(Some(wait)), None);
    }

    /// Proves RFC 9687.
    #[test]
    fn rfc9687_the_send_hold_time_is_eight_minutes_or_twice_the_hold_time_unless_configured() {
        let seconds = Duration::from_secs;
        for (configured, hold_time, expected) in [
            (None, 90, Some(480)),
            (None, 0, Some(480)),
            (None, 300, Some(600)),
            (Some(120), 90, Some(120)),
            (Some(30), 90, Some(90)),
            (Some(0), 90, None),
        ] {
            let timers = Timers { send_hold_time: configured.map(seconds), ..Timers::default() };
            assert_eq!(timers.send_hold_time(seconds(hold_time)), expected.map(seconds));
        }
    }
}
