//! Which addresses are taken, whatever by, and where the next free block is.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// The taken ranges of both families.
#[derive(Clone, Debug, Default)]
pub(crate) struct Space {
    ipv4: Ranges,
    ipv6: Ranges,
}

/// Disjoint ranges: each one's first address and its last.
type Ranges = BTreeMap<u128, u128>;

impl Space {
    /// Takes a range, of which parts may be taken already.
    pub(crate) fn take(&mut self, net: IpNet) {
        let (mut first, mut last) = bounds(net);
        let ranges = match net {
            IpNet::V4(_) => &mut self.ipv4,
            IpNet::V6(_) => &mut self.ipv6,
        };
        // Those that lie side by side too become one, so that a search has few steps.
        while let Some((start, end)) = overlapping(ranges, first.saturating_sub(1), last.saturating_add(1)) {
            ranges.remove(&start);
            first = first.min(start);
            last = last.max(end);
        }
        ranges.insert(first, last);
    }

    /// The first prefix of length `len` within `within` of which nothing is taken.
    pub(crate) fn first_free(&self, within: IpNet, len: u8) -> Option<IpNet> {
        let ranges = match within {
            IpNet::V4(_) => &self.ipv4,
            IpNet::V6(_) => &self.ipv6,
        };
        let (mut first, end) = bounds(within);
        // What a prefix has beside its first address.
        let rest = bounds(IpNet::new(within.network(), len).ok().filter(|_| len >= within.prefix_len())?);
        let rest = rest.1 - rest.0;
        loop {
            let last = first.checked_add(rest).filter(|last| *last <= end)?;
            match overlapping(ranges, first, last) {
                None => return IpNet::new(address(first, within), len).ok(),
                // Up to the next prefix of this length.
                Some((_, taken)) => first = (taken | rest).checked_add(1)?,
            }
        }
    }
}

/// Some range that has an address between `first` and `last`: the last one that begins there, which is the only one where
/// ranges are disjoint and `first` lies in none but it.
fn overlapping(ranges: &Ranges, first: u128, last: u128) -> Option<(u128, u128)> {
    ranges.range(..=last).next_back().filter(|(_, end)| **end >= first).map(|(start, end)| (*start, *end))
}

fn bounds(net: IpNet) -> (u128, u128) {
    (number(net.network()), number(net.broadcast()))
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn address(number: u128, family_of: IpNet) -> IpAddr {
    match family_of {
        // Never above the prefix's last address.
        IpNet::V4(_) => Ipv4Addr::from_bits(u32::try_from(number).unwrap_or(u32::MAX)).into(),
        IpNet::V6(_) => Ipv6Addr::from_bits(number).into(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn the_first_gap_is_found() {
        let mut space = Space::default();
        assert_eq!(space.first_free(net("10.0.0.0/24"), 26), Some(net("10.0.0.0/26")));
        space.take(net("10.0.0.0/26"));
        space.take(net("10.0.0.130/32"));
        assert_eq!(space.first_free(net("10.0.0.0/24"), 26), Some(net("10.0.0.64/26")));
        assert_eq!(space.first_free(net("10.0.0.0/24"), 25), None);
        space.take(net("10.0.0.64/26"));
        assert_eq!(space.first_free(net("10.0.0.0/24"), 26), Some(net("10.0.0.192/26")));
        space.take(net("10.0.0.0/8"));
        assert_eq!(space.first_free(net("10.0.0.0/24"), 26), None);
        assert_eq!(space.first_free(net("10.0.0.0/24"), 20), None, "larger than what it is to lie in");
        let end = net("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ff00/120");
        space.take(end);
        assert_eq!(space.first_free(end, 122), None);
    }

    proptest! {
        #[test]
        fn what_is_free_is_the_first_that_overlaps_nothing(
            taken in prop::collection::vec((0u8..=255, 26u8..=32), 0..24),
            len in 26u8..=30,
        ) {
            let pool = net("10.0.0.0/24");
            let mut space = Space::default();
            let taken: Vec<IpNet> = taken
                .into_iter()
                .map(|(last, len)| IpNet::new(Ipv4Addr::new(10, 0, 0, last).into(), len).unwrap().trunc())
                .collect();
            taken.iter().for_each(|net| space.take(*net));
            let overlaps = |a: &IpNet, b: &IpNet| a.contains(b) || b.contains(a);
            let expected = pool.subnets(len).unwrap().find(|net| !taken.iter().any(|taken| overlaps(net, taken)));
            prop_assert_eq!(space.first_free(pool, len), expected);
        }
    }
}
