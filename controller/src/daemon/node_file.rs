//! `node.json`, the plugin's only source, kept as the plan says.

use std::collections::BTreeSet;
use std::path::Path;

use ipnet::IpNet;
use weft_cni::node::{
    BlockFile, Error, FamilyFile, GATEWAY_V4, GATEWAY_V6, NodeFile, PoolFile, SCHEMA_VERSION, boot_id,
};

use crate::api::json::Problem;
use crate::plan::{Block, BlockState, NodePlan};

/// What an earlier run told the plugin of blocks in this boot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Remembered {
    /// All of them.
    pub(super) blocks: BTreeSet<IpNet>,
    /// Those that peers had been told of.
    pub(super) announced: BTreeSet<IpNet>,
    /// Whether there was one.
    pub(super) ran: bool,
}

/// Reads what an earlier run wrote; nothing where that is not there or cannot be used.
///
/// # Errors
/// The kernel does not tell the id of this boot.
pub(super) fn remembered(run_dir: &Path) -> Result<Remembered, Error> {
    let file = match NodeFile::read(run_dir, &boot_id()?) {
        Ok(file) => file,
        Err(Error::Missing { .. } | Error::EarlierBoot { .. }) => return Ok(Remembered::default()),
        Err(error) => {
            tracing::warn!(%error, "what an earlier run wrote is of no use; it is written anew");
            return Ok(Remembered::default());
        }
    };
    let blocks = || file.families().into_iter().flat_map(|family| family.blocks);
    let announced = blocks().filter(|block| block.announced).map(|block| block.cidr).collect();
    Ok(Remembered { blocks: blocks().map(|block| block.cidr).collect(), announced, ran: true })
}

/// Writes the file if it is not what the plan says already; says whether it had to. `announced` is what peers have been
/// told of.
///
/// # Errors
/// What the file system says.
pub(super) fn write(run_dir: &Path, plan: &NodePlan, announced: &BTreeSet<IpNet>) -> Result<bool, Error> {
    let wanted = of(plan, announced, boot_id()?);
    if NodeFile::read(run_dir, &wanted.boot_id).is_ok_and(|held| held == wanted) {
        return Ok(false);
    }
    wanted.write_atomic(run_dir)?;
    Ok(true)
}

/// Nothing is wrong, but it is too early for pods.
pub(super) fn awaits_guard() -> Problem {
    Problem::error(
        "node-file",
        "no pod can be added yet: node.json is written once Weft's tables are in nftables",
        "wait a moment: nft is at work",
    )
}

/// A family in which the node has no block is one in which its pods get no address.
fn of(plan: &NodePlan, announced: &BTreeSet<IpNet>, boot_id: String) -> NodeFile {
    let is_announced = |block: &Block| announced.contains(&block.cidr);
    let v4 = |block: &Block| match block.cidr {
        IpNet::V4(cidr) => Some(file(block, cidr, is_announced(block))),
        IpNet::V6(_) => None,
    };
    let v6 = |block: &Block| match block.cidr {
        IpNet::V6(cidr) => Some(file(block, cidr, is_announced(block))),
        IpNet::V4(_) => None,
    };
    let ipv4 = FamilyFile {
        blocks: plan.blocks.iter().filter_map(v4).collect(),
        gateway: GATEWAY_V4,
        node_address: plan.addresses.v4,
    };
    let ipv6 = FamilyFile {
        blocks: plan.blocks.iter().filter_map(v6).collect(),
        gateway: GATEWAY_V6,
        node_address: plan.addresses.v6,
    };
    let pools = plan.pools.iter().map(|(name, pool)| {
        let file = PoolFile { namespaces: pool.namespaces.clone(), automatic: pool.automatic };
        (name.clone(), file)
    });
    NodeFile {
        schema_version: SCHEMA_VERSION,
        boot_id,
        node: plan.node.clone(),
        mtu: plan.mtu,
        pools: pools.collect(),
        reserved: plan.reserved.iter().copied().collect(),
        ipv4: Some(ipv4).filter(|family| !family.blocks.is_empty()),
        ipv6: Some(ipv6).filter(|family| !family.blocks.is_empty()),
    }
}

fn file<Net>(block: &Block, cidr: Net, announced: bool) -> BlockFile<Net> {
    BlockFile {
        cidr,
        pool: block.pool.clone(),
        open: block.state == BlockState::Open,
        announced,
        cooldown_seconds: u32::try_from(block.cooldown.as_secs()).unwrap_or(u32::MAX),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::time::Duration;

    use weft_bgp::config::SpeakerConfig;
    use weft_bgp::types::Asn;
    use weft_routing::nft::Ruleset;

    use super::*;
    use crate::plan::{NodeAddresses, Pool};

    fn plan() -> NodePlan {
        let block = |cidr: &str, state| Block {
            object: None,
            cidr: cidr.parse().unwrap(),
            pool: Some("a".into()),
            state,
            owner: None,
            cooldown: Duration::from_secs(90),
        };
        let speaker = SpeakerConfig {
            asn: Asn(1),
            router_id: [192, 0, 2, 1].into(),
            ranges: BTreeMap::new(),
            cluster_id: None,
            max_paths: 1,
            install_routes: true,
            next_hop_tracking: true,
            peers: BTreeMap::new(),
            originate: BTreeMap::new(),
            bmp: <_>::default(),
        };
        let pool = Pool { namespaces: Some(["red".to_owned()].into()), automatic: false };
        NodePlan {
            node: "n1".into(),
            speaker: Arc::new(speaker),
            listeners: BTreeSet::new(),
            blocks: vec![
                block("10.0.0.0/26", BlockState::Open),
                block("10.0.1.0/26", BlockState::Disabled),
                block("10.0.2.0/26", BlockState::Leaving),
            ],
            pools: [("a".to_owned(), pool)].into(),
            reserved: ["10.0.0.0/30".parse().unwrap()].into(),
            address_choice: Vec::new(),
            addresses: NodeAddresses::default(),
            route_metric: 64,
            resilience: None,
            mtu: 1500,
            services: BTreeMap::new(),
            sysctls: Vec::new(),
            manage_sysctls: true,
            packet_filter: Ruleset::default(),
            mrt: None,
            diagnostics: Vec::new(),
        }
    }

    #[test]
    fn the_plugin_is_told_what_the_plan_says_and_the_next_run_remembers_it() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(remembered(dir.path()).unwrap(), Remembered::default());
        let (plan, announced) = (plan(), BTreeSet::from(["10.0.2.0/26".parse().unwrap()]));
        assert!(write(dir.path(), &plan, &announced).unwrap());
        assert!(!write(dir.path(), &plan, &announced).unwrap(), "it says so already");
        let file = NodeFile::read(dir.path(), &boot_id().unwrap()).unwrap();
        let told: Vec<_> = file.ipv4.as_ref().unwrap().blocks.iter().map(|b| (b.open, b.announced)).collect();
        assert_eq!(told, [(true, false), (false, false), (false, true)]);
        assert_eq!(file.ipv4.unwrap().blocks[0].cooldown_seconds, 90);
        let pool = PoolFile { namespaces: Some(["red".to_owned()].into()), automatic: false };
        assert_eq!(
            (file.pools, file.reserved, file.ipv6),
            ([("a".to_owned(), pool)].into(), vec!["10.0.0.0/30".parse().unwrap()], None)
        );
        let blocks = plan.blocks.iter().map(|block| block.cidr).collect();
        assert_eq!(
            remembered(dir.path()).unwrap(),
            Remembered { blocks, announced: announced.clone(), ran: true }
        );
        assert!(write(dir.path(), &plan, &BTreeSet::new()).unwrap());
        assert_eq!(remembered(dir.path()).unwrap().announced, BTreeSet::new());
        std::fs::write(dir.path().join("node.json"), "garbage").unwrap();
        assert_eq!(remembered(dir.path()).unwrap(), Remembered::default());
    }
}
