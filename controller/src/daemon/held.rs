//! Blocks that pods have addresses of: they stay the node's until the last address is given back, whatever the documents say.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

/// How many blocks that were taken from the node are remembered.
const FORMER_MAX: usize = 1024;

/// Which blocks the plugin gives or gave addresses of, and which addresses are taken.
#[derive(Clone, Debug, Default)]
pub(super) struct HeldBlocks {
    /// What the plugin has been told of last.
    told: BTreeSet<IpNet>,
    /// What it was told of before. An ADD that was under way when a block went may still have taken an address of it.
    former: BTreeSet<IpNet>,
    /// The addresses that are taken; none: not known, and any block may be in use.
    taken: Option<BTreeSet<IpAddr>>,
}

impl HeldBlocks {
    /// What an earlier run told the plugin in this boot.
    pub(super) fn new(told: BTreeSet<IpNet>) -> Self {
        Self { told, ..Self::default() }
    }

    /// The plugin has been told of these blocks, and of no other.
    pub(super) fn tell(&mut self, blocks: BTreeSet<IpNet>) {
        let before = std::mem::replace(&mut self.told, blocks);
        self.former.extend(before);
        self.former.retain(|block| !self.told.contains(block));
        while self.former.len() > FORMER_MAX {
            self.former.pop_first();
        }
    }

    /// The store was read.
    pub(super) fn read(&mut self, taken: BTreeSet<IpAddr>) {
        self.taken = Some(taken);
    }

    /// A block may go: it does only after the store was read again, with the block closed.
    pub(super) fn await_reading(&mut self) {
        self.taken = None;
    }

    /// The blocks that may not be dropped.
    pub(super) fn blocks(&self) -> BTreeSet<IpNet> {
        match &self.taken {
            None => self.told.clone(),
            Some(taken) => {
                let known = self.told.iter().chain(&self.former);
                known.filter(|block| is_in_use(block, taken)).copied().collect()
            }
        }
    }
}

fn is_in_use(block: &IpNet, taken: &BTreeSet<IpAddr>) -> bool {
    taken.range(block.network()..=block.broadcast()).next().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> BTreeSet<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn addresses(texts: &[&str]) -> BTreeSet<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn until_the_store_is_read_every_block_may_be_in_use() {
        let all = nets(&["10.0.0.0/26", "fd00::/122"]);
        let mut held = HeldBlocks::new(all.clone());
        assert_eq!(held.blocks(), all);
        held.read(addresses(&["10.0.0.63", "10.0.0.64", "fd00::40"]));
        assert_eq!(held.blocks(), nets(&["10.0.0.0/26"]));
        held.await_reading();
        assert_eq!(held.blocks(), all);
        held.read(addresses(&[]));
        assert_eq!(held.blocks(), nets(&[]));
    }

    #[test]
    fn a_block_that_comes_into_use_after_it_went_is_held() {
        let mut held = HeldBlocks::new(nets(&["10.0.0.0/26"]));
        held.read(addresses(&[]));
        held.tell(nets(&["10.0.1.0/26"]));
        assert_eq!(held.blocks(), nets(&[]));
        held.await_reading();
        assert_eq!(held.blocks(), nets(&["10.0.1.0/26"]), "what went is not announced again to be sure");
        held.read(addresses(&["10.0.0.0", "10.0.1.0"]));
        assert_eq!(held.blocks(), nets(&["10.0.0.0/26", "10.0.1.0/26"]));
        held.tell(nets(&["10.0.0.0/26", "10.0.1.0/26"]));
        held.read(addresses(&["10.0.1.0"]));
        assert_eq!(held.blocks(), nets(&["10.0.1.0/26"]));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut held = HeldBlocks::default();
        for n in 0..2 * FORMER_MAX as u32 {
            held.tell([IpNet::new(IpAddr::V4(n.into()), 32).unwrap()].into());
        }
        assert_eq!(held.former.len(), FORMER_MAX);
    }
}
