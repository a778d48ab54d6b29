//! What the kernel's thread has to say, gathered until the loop takes it.

use std::collections::BTreeMap;

use ipnet::IpNet;
use weft_routing::{Event, NextHopRef, Resolution};

use super::agent::Adopted;
use super::coalesce::Coalesced;

/// How many refused routes are named; the rest show in `weftctl fib`.
const REFUSED_MAX: usize = 64;

/// News of the kernel.
#[derive(Debug, Default)]
pub(super) struct KernelNews {
    /// What was found at the start.
    pub(super) adopted: Option<Adopted>,
    /// The last word on each next hop that has changed. Bounded by what is tracked.
    pub(super) next_hops: BTreeMap<NextHopRef, Resolution>,
    /// Routes that the kernel refused, and its words.
    pub(super) refused: BTreeMap<IpNet, String>,
    /// How many routes were put right, and one of them.
    pub(super) repaired: Option<(usize, IpNet)>,
    /// Addresses or links are others than before.
    pub(super) host_changed: bool,
}

impl KernelNews {
    /// What the kernel's thread calls.
    pub(super) fn sink(news: Coalesced<Self>) -> Box<dyn FnMut(Event) + Send> {
        Box::new(move |event| news.leave(|news| news.add(event)))
    }

    fn add(&mut self, event: Event) {
        match event {
            Event::Adopted { ipv4, ipv6 } => {
                self.adopted = Some(Adopted { ipv4, ipv6 });
                self.host_changed = true;
            }
            Event::NextHop { next_hop, resolution } => {
                self.next_hops.insert(next_hop, resolution);
            }
            Event::Refused { prefix, error } => {
                if self.refused.len() < REFUSED_MAX {
                    self.refused.insert(prefix, error);
                }
            }
            Event::Repaired { routes, example } => {
                let before = self.repaired.map_or(0, |(routes, _)| routes);
                self.repaired = Some((before.saturating_add(routes), example));
            }
            Event::AddressesChanged | Event::LinksChanged => self.host_changed = true,
        }
    }
}
