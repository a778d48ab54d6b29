//! The death of a peer: what is told of it before anything is decided.

use std::time::Instant;

use super::{Output, Speaker};
use crate::ingress::Down;
use crate::rib::RibInput;
use crate::types::PeerId;

impl Speaker {
    /// A session ended. Where next hops go with the peer the kernel is to hear of that at once, whatever is decided about however many
    /// routes: the RIB is told when the outputs so far have been taken.
    pub(super) fn end(&mut self, now: Instant, peer: PeerId, down: Down) {
        let next_hops = match down {
            // After a restart the kernel is told nothing before the first convergence.
            Down::Death if self.held.is_none() => self.rib.next_hops_of_only(peer),
            Down::Death | Down::Restart { .. } | Down::Superseded { .. } => Vec::new(),
        };
        if next_hops.is_empty() {
            return self.tell_rib(now, RibInput::Down { peer, down });
        }
        self.outputs.push_back(Output::NextHopsLost(next_hops));
        self.dead.push(peer);
    }

    /// Tells the RIB of those that died.
    pub(super) fn bury(&mut self, now: Instant) {
        for peer in std::mem::take(&mut self.dead) {
            self.rib.handle(now, RibInput::Down { peer, down: Down::Death });
        }
    }

    /// Settles what was left until the outputs so far had been taken, as far as there is something for the kernel or a peer: that need not wait
    /// for all that is decided after it.
    pub(super) fn settle_on(&mut self, now: Instant) {
        self.bury(now);
        while let Some(output) = self.rib.poll() {
            self.rib_says(now, output);
            self.pass_on_packed(now);
            if !self.outputs.is_empty() {
                return;
            }
        }
        self.unsettled = None;
        self.settle(now);
    }

    /// Tells the RIB something, behind what it is to be told before.
    pub(super) fn tell_rib(&mut self, now: Instant, input: RibInput) {
        self.bury(now);
        self.rib.handle(now, input);
    }
}
