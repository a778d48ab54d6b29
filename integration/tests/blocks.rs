//! Blocks: when the plugin is told that others know of one, and what becomes of one that is taken away.

#![allow(clippy::indexing_slicing, reason = "a panic fails the test, which is what it is for")]

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use ipnet::IpNet;
use serde_json::{Value, json};
use weft_integration::daemon::Family;
use weft_integration::documents;
use weft_integration::fabric::wait_reachable;
use weft_integration::lab::Lab;
use weft_integration::lan::{Lan, LanSpec};
use weft_integration::node::{self, Node};
use weft_integration::pod::{Plugin, Pod};
use weft_integration::probe::ping;
use weft_integration::wait::{stays, wait_until};

const PATIENCE: Duration = Duration::from_secs(40);

/// What the plugin is told of each block: its CIDR, and the value of `key`.
fn told(node: &Node, key: &str) -> Result<Vec<(IpNet, bool)>> {
    let file: Value = serde_json::from_slice(&fs::read(node.weft.run_dir().join("node.json"))?)?;
    let mut told = Vec::new();
    for family in ["ipv4", "ipv6"] {
        for block in file[family]["blocks"].as_array().into_iter().flatten() {
            told.push((serde_json::from_value(block["cidr"].clone())?, block[key] == true));
        }
    }
    Ok(told)
}

fn wait_told(node: &Node, key: &str, what: &str, expected: &[(IpNet, bool)]) -> Result<()> {
    wait_until(format!("{}: {key} of the blocks {what}", node.name), PATIENCE, || {
        let mut found = told(node, key)?;
        let mut expected = expected.to_vec();
        found.sort_unstable();
        expected.sort_unstable();
        ensure!(found == expected, "{found:?}, not {expected:?}");
        Ok(())
    })
}

fn all(blocks: &[IpNet], value: bool) -> Vec<(IpNet, bool)> {
    blocks.iter().map(|block| (*block, value)).collect()
}

/// How many problems of this code `weftctl status` lists.
fn problems(node: &Node, code: &str) -> Result<usize> {
    let status = node.weft.status()?;
    let problems = status["problems"].as_array().map(Vec::as_slice).unwrap_or_default();
    Ok(problems.iter().filter(|problem| problem["code"] == code).count())
}

fn ready(node: &Node) -> Result<()> {
    wait_until(format!("convergence of {}", node.name), PATIENCE, || {
        ensure!(node.weft.http("/readyz")?.0 == 200, "/readyz is not 200");
        Ok(())
    })
}

#[test]
fn the_plugin_is_told_whether_a_peer_knows_the_blocks() -> Result<()> {
    Lab::test(|lab| {
        let spec = LanSpec { nodes: vec![2], families: Family::BOTH.to_vec(), pods_per_node: 0 };
        let mut lan = Lan::build(lab, spec)?;
        lan.nodes[0].weft.start()?;
        lan.nodes[0].wait_ready_for_pods()?;
        ready(&lan.nodes[0])?;
        let blocks = lan.nodes[0].blocks.clone();
        stays("silence of a node without a peer", Duration::from_secs(1), || {
            ensure!(told(&lan.nodes[0], "announced")? == all(&blocks, false), "nobody knows them");
            Ok(())
        })?;
        lan.nodes[1].weft.start()?;
        wait_told(&lan.nodes[0], "announced", "after a peer came", &all(&blocks, true))?;
        for block in &blocks {
            wait_until("the route at the peer", PATIENCE, || lan.nodes[1].weft.forwards(*block).map(drop))?;
        }
        lan.nodes[1].weft.kill9()?;
        wait_told(&lan.nodes[0], "announced", "after the only peer died", &all(&blocks, false))?;
        lan.nodes[1].weft.start()?;
        wait_told(&lan.nodes[0], "announced", "after it came back", &all(&blocks, true))
    })
}

#[test]
fn a_block_with_pods_is_closed_and_announced_until_the_last_is_gone() -> Result<()> {
    Lab::test(|lab| {
        let spec = LanSpec { nodes: vec![2], families: Family::BOTH.to_vec(), pods_per_node: 1 };
        let mut lan = Lan::up(lab, spec)?;
        wait_reachable(&lan.nodes, PATIENCE)?;
        let old = lan.nodes[0].blocks.clone();
        let new = node::blocks(&Family::BOTH, 101);
        // The node gets other blocks, and the IPv6 pool goes. The other node has not heard of it.
        let documents: Vec<Value> = lan
            .nodes
            .iter()
            .map(|node| {
                let blocks = if node.name == "n1" { &new } else { &node.blocks };
                documents::node(&node.name, &[], blocks, &node.addresses)
            })
            .collect();
        let folder = lan.nodes[0].weft.manifests();
        documents::write(&folder, "pools.yaml", &[documents::pod_pool(Family::V4)])?;
        documents::write(&folder, "nodes.yaml", &documents)?;
        let both = [all(&old, false), all(&new, true)].concat();
        wait_told(&lan.nodes[0], "open", "after others were given", &both)?;
        let reaches = |lan: &Lan| -> Result<()> {
            let (from, to) = (&lan.nodes[1].pods[0], &lan.nodes[0].pods[0]);
            to.addresses.iter().try_for_each(|address| ping(&from.namespace, *address))
        };
        stays("traffic to a pod of a closed block", Duration::from_secs(2), || reaches(&lan))?;
        ensure!(problems(&lan.nodes[0], "block-closed")? == 2, "{}", lan.nodes[0].weft.status()?);
        let fresh = Pod::add(lab, &lan.nodes[0].weft, "fresh")?;
        for (address, block) in fresh.addresses.iter().zip(&new) {
            ensure!(block.contains(address), "{address} is not of {block}");
        }
        // What is remembered of the block must outlive the daemon.
        lan.nodes[0].weft.kill9()?;
        lan.nodes[0].weft.start()?;
        ready(&lan.nodes[0])?;
        wait_told(&lan.nodes[0], "open", "after a restart", &both)?;
        wait_told(&lan.nodes[0], "announced", "after a restart", &all(&[&old[..], &new].concat(), true))?;
        stays("traffic after a restart", Duration::from_secs(1), || reaches(&lan))?;
        lan.nodes[0].pods.remove(0).delete()?;
        wait_told(&lan.nodes[0], "open", "after the last pod went", &all(&new, true))?;
        ensure!(problems(&lan.nodes[0], "block-closed")? == 0, "{}", lan.nodes[0].weft.status()?);
        for block in &old {
            wait_until("the block to be withdrawn", PATIENCE, || lan.nodes[1].weft.ensure_no_path(*block))?;
            ensure!(lan.nodes[0].namespace.routes_to(*block)?.is_empty(), "{block} is still in the kernel");
        }
        Ok(())
    })
}

#[test]
fn a_block_that_no_pod_is_in_goes_at_once_and_a_disabled_pool_keeps_its_blocks() -> Result<()> {
    Lab::test(|lab| {
        let (v4, v6) = (node::block(Family::V4, 1), node::block(Family::V6, 1));
        let mut node = Node::new(lab, "node", node::loopback(&Family::BOTH, 1), vec![v4, v6])?;
        for address in &node.addresses {
            node.namespace.ip(&format!("addr add {address} dev lo"))?;
        }
        let write = |node: &Node, blocks: &[IpNet], disabled: bool| {
            let mut pool = documents::pod_pool(Family::V4);
            pool["spec"]["disabled"] = json!(disabled);
            let all = [
                documents::node("node", &[], blocks, &node.addresses),
                documents::bgp_configuration(&json!({"asNumber": 64601, "nodeToNodeMeshEnabled": false})),
                pool,
            ];
            documents::write(&node.weft.manifests(), "all.yaml", &all)
        };
        write(&node, &[v4, v6], false)?;
        node.weft.start()?;
        node.wait_ready_for_pods()?;
        wait_told(&node, "open", "at first", &[(v4, true), (v6, true)])?;
        write(&node, &[v4], false)?;
        wait_told(&node, "open", "after one was taken away", &[(v4, true)])?;
        let before = Pod::add(lab, &node.weft, "before")?;
        write(&node, &[v4], true)?;
        wait_told(&node, "open", "after the pool was disabled", &[(v4, false)])?;
        ping(&node.namespace, before.address(Family::V4)?)?;
        let pod = lab.namespace("refused")?;
        let refused = Plugin::new(&node.weft)?.call("ADD", "refused", &pod.path())?;
        ensure!(refused.code() == Some(11), "{refused:?}");
        write(&node, &[v4], false)?;
        wait_told(&node, "open", "after the pool was enabled", &[(v4, true)])?;
        Pod::add(lab, &node.weft, "after")?.delete()?;
        ensure!(problems(&node, "block-closed")? == 0, "{}", node.weft.status()?);
        Ok(())
    })
}
