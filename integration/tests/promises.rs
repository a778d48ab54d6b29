//! The promises of the network model, on every topology and in every family.

#![allow(clippy::indexing_slicing, reason = "a panic fails the test, which is what it is for")]

use std::time::Duration;

use anyhow::{Result, ensure};
use weft_integration::daemon::{Family, Software};
use weft_integration::fabric::{Fabric, FabricSpec, wait_reachable};
use weft_integration::lab::Lab;
use weft_integration::lan::{Lan, LanSpec};
use weft_integration::probe;
use weft_integration::promises::{Promise, check_all};
use weft_integration::wait::wait_until;

const PATIENCE: Duration = Duration::from_secs(40);

fn mesh_in_one_subnet(families: &[Family]) -> Result<()> {
    Lab::test(|lab| {
        let lan = Lan::up(lab, LanSpec { nodes: vec![3], families: families.to_vec(), pods_per_node: 2 })?;
        wait_reachable(&lan.nodes, PATIENCE)?;
        check_all(&lan.nodes)
    })
}

#[test]
fn mesh_in_one_subnet_dual_stack() -> Result<()> {
    mesh_in_one_subnet(&Family::BOTH)
}

#[test]
fn mesh_in_one_subnet_ipv4() -> Result<()> {
    mesh_in_one_subnet(&[Family::V4])
}

#[test]
fn mesh_in_one_subnet_ipv6() -> Result<()> {
    mesh_in_one_subnet(&[Family::V6])
}

/// A router that knows nothing of pods cannot pass their packets on; weftd says so. Once it knows the blocks, all promises hold.
#[test]
fn mesh_in_two_subnets() -> Result<()> {
    Lab::test(|lab| {
        let lan =
            Lan::up(lab, LanSpec { nodes: vec![2, 1], families: Family::BOTH.to_vec(), pods_per_node: 2 })?;
        let (near, far) = (&lan.nodes[0], &lan.nodes[2]);
        for family in Family::BOTH {
            wait_until("the route to the other subnet's block", PATIENCE, || {
                near.weft.forwards(far.block(family)?)
            })?;
            ensure!(
                probe::ping(&near.pods[0].namespace, far.pods[0].address(family)?).is_err(),
                "{family:?}: a router without routes to pods passed a pod's packet on"
            );
        }
        wait_until("the warning", PATIENCE, || {
            let status = near.weft.status()?.to_string();
            ensure!(status.contains("routers between must know the pod blocks"), "{status}");
            Ok(())
        })?;
        lan.teach_router()?;
        wait_reachable(&lan.nodes, PATIENCE)?;
        check_all(&lan.nodes)
    })
}

fn fabric(spec: FabricSpec) -> Result<()> {
    Lab::test(|lab| {
        let fabric = Fabric::up(lab, spec)?;
        check_all(&fabric.nodes)
    })
}

#[test]
fn one_weft_tor() -> Result<()> {
    fabric(FabricSpec::one_rack(Software::Weft))
}

#[test]
fn one_bird_tor() -> Result<()> {
    fabric(FabricSpec::one_rack(Software::Bird))
}

#[test]
fn one_frr_tor() -> Result<()> {
    fabric(FabricSpec::one_rack(Software::Frr))
}

#[test]
fn one_bird_tor_ipv4() -> Result<()> {
    fabric(FabricSpec { families: vec![Family::V4], ..FabricSpec::one_rack(Software::Bird) })
}

#[test]
fn one_bird_tor_ipv6() -> Result<()> {
    fabric(FabricSpec { families: vec![Family::V6], ..FabricSpec::one_rack(Software::Bird) })
}

#[test]
fn one_frr_tor_ipv6() -> Result<()> {
    fabric(FabricSpec { families: vec![Family::V6], ..FabricSpec::one_rack(Software::Frr) })
}

#[test]
fn two_uplinks_to_bird_tors() -> Result<()> {
    fabric(FabricSpec::two_uplinks(Software::Bird))
}

#[test]
fn two_uplinks_to_frr_tors() -> Result<()> {
    fabric(FabricSpec::two_uplinks(Software::Frr))
}

#[test]
fn two_uplinks_to_weft_tors_ipv6() -> Result<()> {
    fabric(FabricSpec { families: vec![Family::V6], ..FabricSpec::two_uplinks(Software::Weft) })
}

#[test]
fn two_racks_of_weft() -> Result<()> {
    fabric(FabricSpec::two_racks(Software::Weft))
}

#[test]
fn two_racks_of_bird() -> Result<()> {
    fabric(FabricSpec::two_racks(Software::Bird))
}

#[test]
fn two_racks_of_frr() -> Result<()> {
    fabric(FabricSpec::two_racks(Software::Frr))
}

/// P3 holds before any BGP peer is up, and for pods of one node among each other too.
#[test]
fn a_node_reaches_its_pods_without_any_peer() -> Result<()> {
    Lab::test(|lab| {
        let mut fabric = Fabric::build(lab, FabricSpec::one_rack(Software::Bird))?;
        let node = fabric.node_mut("a1")?;
        node.weft.start()?;
        node.wait_ready_for_pods()?;
        node.add_pod(lab)?;
        node.add_pod(lab)?;
        let alone = std::slice::from_ref(fabric.node("a1")?);
        for promise in Promise::ALL {
            promise.check(alone)?;
        }
        let peers = fabric.node("a1")?.weft.peers()?;
        ensure!(!peers.is_empty() && peers.iter().all(|peer| peer.state != "Established"), "{peers:?}");
        Ok(())
    })
}
