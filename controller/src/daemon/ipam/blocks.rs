//! How full the node's blocks are, and who should hear of it.

use std::collections::BTreeMap;
use std::time::Duration;

use ipnet::IpNet;
use weft_cni::ipam::{Block, BlockUsage};
use weft_cni::node::{BlockFile, NodeFile};

use crate::api::ipam::{IpamBlockJson, IpamBlockState};
use crate::api::json::Problem;

/// The largest whole number that every reader of JSON understands exactly (RFC 8259 section 6).
const JSON_EXACT_MAX: u64 = 1 << 53;
/// From how full on blocks are nearly full, in percent.
const NEARLY_FULL: u64 = 90;

/// The blocks that the plugin has been told of, with their families' order kept.
pub(super) fn of(node: &NodeFile) -> Vec<BlockFile<IpNet>> {
    node.families().into_iter().flat_map(|family| family.blocks).collect()
}

/// A block as the store knows it.
pub(super) fn stored(block: &BlockFile<IpNet>) -> Block {
    Block { cidr: block.cidr, cooldown: Duration::from_secs(block.cooldown_seconds.into()) }
}

/// The parts of a block that lie in reserved ranges. They do not overlap.
pub(super) fn reserved_in(block: Block, reserved: &[IpNet]) -> Vec<Block> {
    let apart = IpNet::aggregate(&reserved.to_vec());
    let part = |range: IpNet| match range {
        range if block.cidr.contains(&range) => Some(Block { cidr: range, ..block }),
        range if range.contains(&block.cidr) => Some(block),
        _ => None,
    };
    apart.into_iter().filter_map(part).collect()
}

/// What people are told of one block, and of its `reserved` parts.
pub(super) fn json(block: &BlockFile<IpNet>, usage: &BlockUsage, reserved: &[BlockUsage]) -> IpamBlockJson {
    let unused = |usage: &BlockUsage| usage.size.saturating_sub(usage.taken).saturating_sub(usage.resting);
    let reserved = reserved.iter().fold(0u64, |sum, part| sum.saturating_add(unused(part)));
    let size = Some(usage.size).filter(|size| *size <= JSON_EXACT_MAX);
    IpamBlockJson {
        cidr: block.cidr,
        pool: block.pool.clone(),
        state: if block.open { IpamBlockState::Open } else { IpamBlockState::Closed },
        size,
        taken: usage.taken,
        resting: usage.resting,
        reserved: size.map(|_| reserved),
        free: size.map(|_| unused(usage).saturating_sub(reserved)),
        announced: block.announced,
    }
}

/// The open blocks of one pool and family: what an ADD chooses from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Supply {
    pool: Option<String>,
    ipv6: bool,
}

impl std::fmt::Display for Supply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let family = if self.ipv6 { "IPv6" } else { "IPv4" };
        match &self.pool {
            Some(pool) => write!(f, "the node's {family} blocks of pool {pool}"),
            None => write!(f, "the node's {family} blocks"),
        }
    }
}

/// How far a supply is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// [`NEARLY_FULL`] percent are taken.
    NearlyFull,
    /// No address can be given out now.
    Full,
}

/// A supply of addresses that is low.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Low {
    pub(super) level: Level,
    taken: u64,
    resting: u64,
    reserved: u64,
    size: u64,
    blocks: Vec<IpNet>,
}

impl Low {
    /// The stable code of problems and events.
    pub(super) fn code(&self) -> &'static str {
        match self.level {
            Level::NearlyFull => "block-nearly-full",
            Level::Full => "blocks-full",
        }
    }

    /// A sentence.
    pub(super) fn text(&self, supply: &Supply) -> String {
        let Self { taken, resting, reserved, size, .. } = self;
        let blocks: Vec<_> = self.blocks.iter().map(IpNet::to_string).collect();
        let blocks = blocks.join(", ");
        match self.level {
            Level::NearlyFull => format!("{supply} ({blocks}) have {taken} of {size} addresses taken"),
            Level::Full => format!(
                "{supply} ({blocks}) have no free address: {taken} of {size} taken, {resting} resting, {reserved} reserved; \
                 ADD of another pod fails with code 11"
            ),
        }
    }

    /// As `weftctl status` lists it.
    pub(super) fn problem(&self, supply: &Supply) -> Problem {
        let remedy = "give the node another block of the pool, or move pods to other nodes; \
                      weftctl ipam check tells whether addresses leak";
        match self.level {
            Level::NearlyFull => Problem::warning(self.code(), self.text(supply), remedy),
            Level::Full => Problem::error(self.code(), self.text(supply), remedy),
        }
    }
}

/// The supplies that are low. A block that is closed gives out nothing, and does not count.
pub(super) fn low(blocks: &[IpamBlockJson]) -> BTreeMap<Supply, Low> {
    let mut supplies: BTreeMap<Supply, Vec<&IpamBlockJson>> = BTreeMap::new();
    for block in blocks.iter().filter(|block| block.state == IpamBlockState::Open) {
        let supply = Supply { pool: block.pool.clone(), ipv6: block.cidr.network().is_ipv6() };
        supplies.entry(supply).or_default().push(block);
    }
    supplies.into_iter().filter_map(|(supply, blocks)| Some((supply, measure(&blocks)?))).collect()
}

fn measure(blocks: &[&IpamBlockJson]) -> Option<Low> {
    let sum =
        |of: fn(&IpamBlockJson) -> u64| blocks.iter().fold(0u64, |sum, block| sum.saturating_add(of(block)));
    // A block too large for its size to be told is not full either.
    let counted = |of: fn(&IpamBlockJson) -> Option<u64>| {
        blocks.iter().try_fold(0u64, |sum, block| Some(sum.saturating_add(of(block)?)))
    };
    let (size, free, reserved) =
        (counted(|block| block.size)?, counted(|block| block.free)?, counted(|block| block.reserved)?);
    let (taken, resting) = (sum(|block| block.taken), sum(|block| block.resting));
    let level = if free == 0 {
        Level::Full
    } else if taken.saturating_add(reserved).saturating_mul(100) >= size.saturating_mul(NEARLY_FULL) {
        Level::NearlyFull
    } else {
        return None;
    };
    Some(Low {
        level,
        taken,
        resting,
        reserved,
        size,
        blocks: blocks.iter().map(|block| block.cidr).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(cidr: &str, taken: u64, resting: u64) -> IpamBlockJson {
        let cidr: IpNet = cidr.parse().unwrap();
        let file =
            BlockFile { cidr, pool: Some("p".into()), open: true, announced: true, cooldown_seconds: 0 };
        let bits = u32::from(cidr.max_prefix_len() - cidr.prefix_len());
        let size = 1u64.checked_shl(bits).unwrap_or(u64::MAX);
        json(&file, &BlockUsage { block: cidr, taken, resting, size }, &[])
    }

    fn levels(blocks: &[IpamBlockJson]) -> Vec<Level> {
        low(blocks).into_values().map(|low| low.level).collect()
    }

    #[test]
    fn a_block_is_told_whole() {
        let told = block("10.0.0.0/26", 3, 2);
        assert_eq!((told.size, told.taken, told.resting, told.free), (Some(64), 3, 2, Some(59)));
        let large = block("fd00::/64", 3, 2);
        assert_eq!((large.size, large.free), (None, None));
    }

    #[test]
    fn nine_of_ten_are_nearly_full_and_resting_ones_cannot_be_had() {
        assert_eq!(levels(&[block("10.0.0.0/26", 57, 0)]), []);
        assert_eq!(levels(&[block("10.0.0.0/26", 58, 5)]), [Level::NearlyFull]);
        assert_eq!(levels(&[block("10.0.0.0/26", 58, 6)]), [Level::Full]);
        assert_eq!(levels(&[block("fd00::/64", 1 << 40, 0)]), []);
    }

    #[test]
    fn a_full_block_beside_an_empty_one_is_no_trouble_unless_that_is_closed() {
        let full = block("10.0.0.0/26", 64, 0);
        let mut empty = block("10.0.1.0/26", 0, 0);
        assert_eq!(levels(&[full.clone(), empty.clone()]), []);
        empty.state = IpamBlockState::Closed;
        assert_eq!(levels(&[full.clone(), empty.clone()]), [Level::Full]);
        empty.state = IpamBlockState::Open;
        empty.pool = None;
        assert_eq!(levels(&[full, empty]), [Level::Full], "another pool is another supply");
    }

    #[test]
    fn reserved_addresses_are_not_free_unless_they_are_taken() {
        let nets = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpNet>>();
        let block: IpNet = "10.0.0.0/26".parse().unwrap();
        let reserved_in = |texts: &[&str]| -> Vec<IpNet> {
            let block = Block { cidr: block, cooldown: Duration::ZERO };
            reserved_in(block, &nets(texts)).iter().map(|part| part.cidr).collect()
        };
        let parts = reserved_in(&["10.0.0.0/28", "10.0.0.0/30", "10.0.0.16/28", "10.0.1.0/24"]);
        assert_eq!(parts, nets(&["10.0.0.0/27"]));
        assert_eq!(reserved_in(&["10.0.0.0/8"]), [block]);
        let file = BlockFile { cidr: block, pool: None, open: true, announced: true, cooldown_seconds: 0 };
        let usage = |block: IpNet, taken, size| BlockUsage { block, taken, resting: 0, size };
        let told = json(&file, &usage(block, 34, 64), &[usage(parts[0], 2, 32)]);
        assert_eq!((told.reserved, told.free), (Some(30), Some(0)));
        assert_eq!(levels(&[told]), [Level::Full]);
    }

    #[test]
    fn the_text_names_pool_family_and_blocks() {
        let all = low(&[block("10.0.0.0/30", 3, 1)]);
        let (supply, low) = all.first_key_value().unwrap();
        let problem = low.problem(supply);
        assert_eq!(problem.code, "blocks-full");
        assert!(problem.text.contains("IPv4 blocks of pool p (10.0.0.0/30)"), "{}", problem.text);
        assert!(problem.text.contains("3 of 4 taken, 1 resting"), "{}", problem.text);
    }
}
