//! What was handed to the transport for one connection and has not left yet.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::egress::GroupId;

/// The least time that RFC 9687 section 6 lets pass before a peer that takes nothing is given up.
const SEND_HOLD_MIN: Duration = Duration::from_secs(8 * 60);

/// One connection's account: whose bytes are on their way, and since when nothing has moved.
#[derive(Debug)]
pub(super) struct Outbox {
    /// Whose connection it is.
    pub(super) peer: IpAddr,
    /// In order; `None` is the session's own messages, which need no credit.
    unsent: VecDeque<(Option<GroupId>, usize)>,
    /// When bytes last left, or the first were put in.
    moved: Instant,
}

impl Outbox {
    pub(super) fn new(now: Instant, peer: IpAddr) -> Self {
        Self { peer, unsent: VecDeque::new(), moved: now }
    }

    pub(super) fn push(&mut self, now: Instant, group: Option<GroupId>, bytes: usize) {
        if self.unsent.is_empty() {
            self.moved = now;
        }
        match self.unsent.back_mut() {
            Some((last, queued)) if *last == group => *queued = queued.saturating_add(bytes),
            _ => self.unsent.push_back((group, bytes)),
        }
    }

    /// Bytes left; tells which groups get how much credit back.
    pub(super) fn written(&mut self, now: Instant, mut bytes: usize) -> SmallVec<[(GroupId, usize); 2]> {
        self.moved = now;
        let mut credit = SmallVec::new();
        while bytes > 0 {
            let Some((group, queued)) = self.unsent.front_mut() else { break };
            let part = bytes.min(*queued);
            bytes -= part;
            *queued -= part;
            credit.extend(group.map(|group| (group, part)));
            if *queued == 0 {
                self.unsent.pop_front();
            }
        }
        credit
    }

    /// The SendHoldTimer (RFC 9687): when the peer has taken nothing for too long.
    pub(super) fn send_hold_deadline(&self, hold_time: Duration) -> Option<Instant> {
        let wait = SEND_HOLD_MIN.max(hold_time * 2);
        (!self.unsent.is_empty()).then(|| self.moved + wait)
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "any instant will do as the start")]
mod tests {
    use super::*;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn credit_goes_to_the_group_whose_bytes_left() {
        let now = Instant::now();
        let mut outbox = Outbox::new(now, PEER);
        for (group, bytes) in [(None, 19), (Some(1), 60), (Some(1), 40), (None, 19), (Some(2), 50)] {
            outbox.push(now, group.map(GroupId), bytes);
        }
        assert!(outbox.written(now, 19).is_empty());
        assert_eq!(outbox.written(now, 30).to_vec(), [(GroupId(1), 30)]);
        assert_eq!(outbox.written(now, 99).to_vec(), [(GroupId(1), 70), (GroupId(2), 10)]);
        assert_eq!(outbox.written(now, 1000).to_vec(), [(GroupId(2), 40)], "not more than was put in");
    }

    #[test]
    fn the_send_hold_timer_runs_while_something_waits_and_nothing_moves() {
        let (start, hold) = (Instant::now(), Duration::from_secs(90));
        let mut outbox = Outbox::new(start, PEER);
        assert_eq!(outbox.send_hold_deadline(hold), None);
        outbox.push(start + hold, None, 19);
        outbox.push(start + hold * 2, None, 19);
        assert_eq!(outbox.send_hold_deadline(hold), Some(start + hold + SEND_HOLD_MIN));
        outbox.written(start + hold * 2, 19);
        assert_eq!(outbox.send_hold_deadline(hold), Some(start + hold * 2 + SEND_HOLD_MIN));
        assert_eq!(outbox.send_hold_deadline(hold * 10), Some(start + hold * 2 + hold * 20));
        outbox.written(start + hold * 3, 19);
        assert_eq!(outbox.send_hold_deadline(hold), None);
    }
}
