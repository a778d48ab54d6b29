//! `node.json`, the plugin's only source, kept as the plan says.

use std::collections::BTreeMap;
use std::path::Path;

use ipnet::IpNet;
use weft_cni::node::{
    BlockFile, Error, FamilyFile, GATEWAY_V4, GATEWAY_V6, NodeFile, SCHEMA_VERSION, boot_id,
};

use crate::plan::NodePlan;

/// Writes the file if it is not what the plan says already; says whether it had to.
///
/// # Errors
/// What the file system says.
pub(super) fn write(run_dir: &Path, plan: &NodePlan) -> Result<bool, Error> {
    let wanted = of(plan, boot_id()?);
    if NodeFile::read(run_dir, &wanted.boot_id).is_ok_and(|held| held == wanted) {
        return Ok(false);
    }
    wanted.write_atomic(run_dir)?;
    Ok(true)
}

/// A family in which the node has no block is one in which its pods get no address.
fn of(plan: &NodePlan, boot_id: String) -> NodeFile {
    let v4 = |block: &IpNet| if let IpNet::V4(block) = block { Some(*block) } else { None };
    let v6 = |block: &IpNet| if let IpNet::V6(block) = block { Some(*block) } else { None };
    let ipv4 = FamilyFile {
        blocks: plan.blocks.iter().filter_map(v4).map(block).collect(),
        gateway: GATEWAY_V4,
        node_address: plan.addresses.v4,
    };
    let ipv6 = FamilyFile {
        blocks: plan.blocks.iter().filter_map(v6).map(block).collect(),
        gateway: GATEWAY_V6,
        node_address: plan.addresses.v6,
    };
    NodeFile {
        schema_version: SCHEMA_VERSION,
        boot_id,
        node: plan.node.clone(),
        mtu: plan.mtu,
        pools: BTreeMap::new(),
        reserved: Vec::new(),
        ipv4: Some(ipv4).filter(|family| !family.blocks.is_empty()),
        ipv6: Some(ipv6).filter(|family| !family.blocks.is_empty()),
    }
}

fn block<Net>(cidr: Net) -> BlockFile<Net> {
    BlockFile { cidr, pool: None, open: true, announced: false, cooldown_seconds: 0 }
}
