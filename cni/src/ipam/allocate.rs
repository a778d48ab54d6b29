//! Which address comes next.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ipnet::IpNet;

/// The first free address behind `last`, in its block, then in the blocks after it, and round to `last` again: an
/// address that was given back is not used again before all others were. Every address of a block counts, the first
/// and the last too: on a /32 or /128 none is a network or broadcast address.
///
/// Blocks are of one family. The search takes at most one step per taken address.
pub(super) fn next_free(
    blocks: &[IpNet],
    last: Option<IpAddr>,
    is_taken: impl Fn(IpAddr) -> bool,
) -> Option<IpAddr> {
    let start = last.and_then(|last| Some((blocks.iter().position(|block| block.contains(&last))?, last)));
    let free = |range: RangeInclusive<IpAddr>| addresses(&range).find(|address| !is_taken(*address));
    let Some((index, last)) = start else {
        return blocks.iter().find_map(|block| free(block.network()..=block.broadcast()));
    };
    let (before, from) = blocks.split_at(index);
    let (current, after) = from.split_first()?;
    let behind = successor(last).filter(|next| current.contains(next));
    behind
        .and_then(|next| free(next..=current.broadcast()))
        .or_else(|| after.iter().chain(before).find_map(|block| free(block.network()..=block.broadcast())))
        .or_else(|| free(current.network()..=last))
}

/// How many addresses a block has, at most `u64::MAX`.
pub(super) fn size(block: &IpNet) -> u64 {
    let bits = u32::from(block.max_prefix_len().saturating_sub(block.prefix_len()));
    1u64.checked_shl(bits).unwrap_or(u64::MAX)
}

fn addresses(range: &RangeInclusive<IpAddr>) -> impl Iterator<Item = IpAddr> + use<> {
    let end = *range.end();
    std::iter::successors(
        Some(*range.start()),
        move |address| {
            if *address == end { None } else { successor(*address) }
        },
    )
}

fn successor(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => address.to_bits().checked_add(1).map(Ipv4Addr::from_bits).map(IpAddr::V4),
        IpAddr::V6(address) => address.to_bits().checked_add(1).map(Ipv6Addr::from_bits).map(IpAddr::V6),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn blocks(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// Takes addresses until none is free.
    fn drain(blocks: &[IpNet], mut last: Option<IpAddr>) -> Vec<String> {
        let mut taken = BTreeSet::new();
        let mut order = Vec::new();
        while let Some(address) = next_free(blocks, last, |address| taken.contains(&address)) {
            assert!(taken.insert(address), "{address} was given twice");
            order.push(address.to_string());
            last = Some(address);
        }
        order
    }

    #[test]
    fn every_address_of_every_block_is_used() {
        let expected = ["10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.7", "10.9.9.9"];
        assert_eq!(drain(&blocks(&["10.0.0.4/30", "10.9.9.9/32"]), None), expected);
        let ends = drain(&blocks(&["255.255.255.254/31"]), None);
        assert_eq!(ends, ["255.255.255.254", "255.255.255.255"]);
        let ends = drain(&blocks(&["ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe/127"]), None);
        assert_eq!(ends.len(), 2);
    }

    #[test]
    fn the_search_goes_on_behind_the_last_one_and_round() {
        let last = Some("10.0.0.5".parse().unwrap());
        let order = drain(&blocks(&["10.9.9.8/31", "10.0.0.4/30", "10.0.1.0/32"]), last);
        assert_eq!(
            order,
            ["10.0.0.6", "10.0.0.7", "10.0.1.0", "10.9.9.8", "10.9.9.9", "10.0.0.4", "10.0.0.5"]
        );
    }

    #[test]
    fn a_last_one_outside_the_blocks_starts_at_the_first() {
        let last = Some("192.0.2.1".parse().unwrap());
        assert_eq!(drain(&blocks(&["10.0.0.0/31"]), last), ["10.0.0.0", "10.0.0.1"]);
        assert_eq!(next_free(&[], last, |_| false), None);
    }

    #[test]
    fn a_large_block_is_not_walked() {
        let all = blocks(&["fd00::/64"]);
        let taken: IpAddr = "fd00::".parse().unwrap();
        assert_eq!(next_free(&all, None, |address| address == taken), Some("fd00::1".parse().unwrap()));
        assert_eq!(size(&all[0]), u64::MAX);
        assert_eq!(size(&"10.0.0.0/26".parse().unwrap()), 64);
        assert_eq!(size(&"10.0.0.1/32".parse().unwrap()), 1);
    }
}
