//! Which address comes next.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ipnet::IpNet;

/// The first free address behind `last`, in its block, then in the blocks after it, and round to `last` again: an
/// address that was given back is not used again before all others were. Every address of a block counts, the first
/// and the last too: on a /32 or /128 none is a network or broadcast address.
///
/// `obstacle` says of an address that cannot be given how far what is in its way reaches: to the address itself, or to
/// the end of a range that it lies in. Blocks are of one family. The search takes at most one step per obstacle.
pub(super) fn next_free(
    blocks: &[IpNet],
    last: Option<IpAddr>,
    obstacle: impl Fn(IpAddr) -> Option<IpAddr>,
) -> Option<IpAddr> {
    let start = last.and_then(|last| Some((blocks.iter().position(|block| block.contains(&last))?, last)));
    let free = |range: RangeInclusive<IpAddr>| first_free(&range, &obstacle);
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

fn first_free(range: &RangeInclusive<IpAddr>, obstacle: impl Fn(IpAddr) -> Option<IpAddr>) -> Option<IpAddr> {
    let mut address = *range.start();
    while let Some(end) = obstacle(address) {
        address = successor(end.max(address)).filter(|next| range.contains(next))?;
    }
    Some(address)
}

/// How many addresses a block has, at most `u64::MAX`.
pub(super) fn size(block: &IpNet) -> u64 {
    let bits = u32::from(block.max_prefix_len().saturating_sub(block.prefix_len()));
    1u64.checked_shl(bits).unwrap_or(u64::MAX)
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
        while let Some(address) =
            next_free(blocks, last, |address| taken.contains(&address).then_some(address))
        {
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
        assert_eq!(next_free(&[], last, |_| None), None);
    }

    #[test]
    fn a_range_in_the_way_is_one_step() {
        let reserved: IpNet = "fd00::/65".parse().unwrap();
        let end = |address| reserved.contains(&address).then(|| reserved.broadcast());
        let free = next_free(&blocks(&["fd00::/64"]), None, end);
        assert_eq!(free, Some("fd00::8000:0:0:0".parse().unwrap()));
        assert_eq!(next_free(&blocks(&["fd00::/66", "fd00::/65"]), None, end), None);
        let all: IpNet = "::/0".parse().unwrap();
        assert_eq!(next_free(&blocks(&["ffff::/16"]), None, |_| Some(all.broadcast())), None);
    }

    #[test]
    fn a_large_block_is_not_walked() {
        let all = blocks(&["fd00::/64"]);
        let taken: IpAddr = "fd00::".parse().unwrap();
        assert_eq!(
            next_free(&all, None, |address| (address == taken).then_some(address)),
            Some("fd00::1".parse().unwrap())
        );
        assert_eq!(size(&all[0]), u64::MAX);
        assert_eq!(size(&"10.0.0.0/26".parse().unwrap()), 64);
        assert_eq!(size(&"10.0.0.1/32".parse().unwrap()), 1);
    }
}
