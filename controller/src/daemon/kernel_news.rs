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

#[cfg(test)]
mod tests {
    use super::*;

    fn next_hop(n: u8) -> NextHopRef {
        NextHopRef { address: [10, 0, 0, n].into(), default_route: false, link: None }
    }

    #[tokio::test]
    async fn the_last_word_on_each_next_hop_is_kept() {
        let news: Coalesced<KernelNews> = Coalesced::default();
        let mut sink = KernelNews::sink(news.clone());
        for resolution in [Resolution::OnLink, Resolution::Unresolved] {
            sink(Event::NextHop { next_hop: next_hop(1), resolution });
        }
        sink(Event::NextHop { next_hop: next_hop(2), resolution: Resolution::OnLink });
        let told = news.take().await;
        let expected = [(next_hop(1), Resolution::Unresolved), (next_hop(2), Resolution::OnLink)];
        assert_eq!(told.next_hops, BTreeMap::from(expected));
        assert!(!told.host_changed);
    }

    #[test]
    fn counts_add_up_and_names_are_bounded() {
        let mut news = KernelNews::default();
        let prefix: IpNet = "10.1.0.0/26".parse().unwrap();
        news.add(Event::Repaired { routes: 2, example: prefix });
        news.add(Event::Repaired { routes: 3, example: prefix });
        assert_eq!(news.repaired, Some((5, prefix)));
        for n in 0..=255 {
            let prefix = IpNet::new([10, 0, n, 0].into(), 24).unwrap();
            news.add(Event::Refused { prefix, error: "no".into() });
        }
        assert_eq!(news.refused.len(), REFUSED_MAX);
    }

    #[test]
    fn what_was_adopted_asks_for_a_look_at_the_host() {
        let mut news = KernelNews::default();
        news.add(Event::Adopted { ipv4: 2, ipv6: 0 });
        assert_eq!(news.adopted, Some(Adopted { ipv4: 2, ipv6: 0 }));
        assert!(news.host_changed);
    }
}
