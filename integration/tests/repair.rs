//! What somebody else does to the kernel's routes: ours come back within a second, theirs are left alone.

#![allow(clippy::indexing_slicing, reason = "a panic fails the test, which is what it is for")]

use std::time::Duration;

use anyhow::{Result, ensure};
use ipnet::IpNet;
use serde_json::Value;
use weft_integration::daemon::Family;
use weft_integration::fabric::wait_reachable;
use weft_integration::lab::Lab;
use weft_integration::lan::{Lan, LanSpec};
use weft_integration::node::Node;
use weft_integration::probe::ping;
use weft_integration::process::SHORT;
use weft_integration::wait::{stays, wait_until};

const PATIENCE: Duration = Duration::from_secs(40);

/// What is promised.
const REPAIR: Duration = Duration::from_secs(1);

fn two_nodes(lab: &Lab) -> Result<Lan> {
    let lan = Lan::up(lab, LanSpec { nodes: vec![2], families: Family::BOTH.to_vec(), pods_per_node: 1 })?;
    wait_reachable(&lan.nodes, PATIENCE)?;
    Ok(lan)
}

fn one_route(node: &Node, prefix: IpNet) -> Result<Value> {
    let mut routes = node.namespace.routes_to(prefix)?;
    ensure!(routes.len() == 1, "{}: {prefix}: {routes:?}", node.name);
    Ok(routes.remove(0))
}

/// Spoils the route to `prefix` by an `ip route` command and waits until it is as it was.
fn spoil(node: &Node, prefix: IpNet, command: &str) -> Result<()> {
    let before = one_route(node, prefix)?;
    node.namespace.ip(&format!("route {command}"))?;
    wait_until(format!("the route to {prefix} after `ip route {command}`"), REPAIR, || {
        let now = one_route(node, prefix)?;
        ensure!(now == before, "{now}, not {before}");
        Ok(())
    })
}

#[test]
fn learned_routes_come_back() -> Result<()> {
    Lab::test(|lab| {
        let lan = two_nodes(lab)?;
        let (node, other) = (&lan.nodes[0], &lan.nodes[1]);
        for (block, address) in other.blocks.iter().zip(&other.addresses) {
            spoil(node, *block, &format!("del {block}"))?;
            let elsewhere = if address.is_ipv4() { "10.2.0.77" } else { "fd00:10:2::77" };
            spoil(node, *block, &format!("change {block} via {elsewhere} dev eth0 proto 176 metric 64"))?;
            spoil(node, *block, &format!("change unreachable {block} proto 176 metric 64"))?;
        }
        for flag in ["-4", "-6"] {
            node.namespace.exec(&format!("ip {flag} route flush proto 176"), SHORT)?.success()?;
        }
        for block in &other.blocks {
            wait_until("the routes after a flush", REPAIR, || one_route(node, *block))?;
        }
        wait_reachable(&lan.nodes, PATIENCE)
    })
}

#[test]
fn own_blocks_and_routes_of_pods_come_back() -> Result<()> {
    Lab::test(|lab| {
        let lan = two_nodes(lab)?;
        let node = &lan.nodes[0];
        for block in &node.blocks {
            ensure!(one_route(node, *block)?["type"] == "unreachable", "{block} is not unreachable");
            spoil(node, *block, &format!("del unreachable {block}"))?;
        }
        let pod = &node.pods[0];
        for address in &pod.addresses {
            let prefix = IpNet::from(*address);
            spoil(node, prefix, &format!("del {prefix}"))?;
            let device = pod.host_interface()?;
            node.namespace.ip(&format!("neigh del {address} dev {device}"))?;
            wait_until("the pod's permanent neighbour", REPAIR, || {
                let neighbours = node.namespace.ip_json(&format!("neigh show {address} dev {device}"))?;
                ensure!(neighbours.to_string().contains("PERMANENT"), "{neighbours}");
                Ok(())
            })?;
            ping(&lan.nodes[1].pods[0].namespace, *address)?;
        }
        Ok(())
    })
}

/// An admin's route for the same prefix with a better metric wins, shows, and stays; when it goes, ours is used again.
#[test]
fn an_admins_route_shadows_ours_and_is_left_alone() -> Result<()> {
    Lab::test(|lab| {
        let lan = two_nodes(lab)?;
        let (node, other) = (&lan.nodes[0], &lan.nodes[1]);
        for (block, address) in other.blocks.iter().zip(&other.addresses) {
            let theirs = format!("{block} via {address} proto static metric 10");
            node.namespace.ip(&format!("route add {theirs}"))?;
            wait_until("the shadow to show", PATIENCE, || {
                let route = node.weft.route(*block)?;
                ensure!(route.is_some_and(|route| !route.in_kernel && route.best.is_some()), "inKernel");
                let fib: Vec<Value> = node.weft.json("fib")?;
                let entry = fib
                    .iter()
                    .find(|entry| entry["prefix"] == block.to_string())
                    .cloned()
                    .unwrap_or_default();
                ensure!(entry["state"] == "shadowed by proto static", "{entry}");
                Ok(())
            })?;
            stays("the admin's route", Duration::from_millis(1500), || {
                let routes = node.namespace.routes_to(*block)?;
                let found = routes.iter().any(|route| route["protocol"] == "static" && route["metric"] == 10);
                ensure!(found, "{routes:?}");
                Ok(())
            })?;
            node.namespace.ip(&format!("route del {theirs}"))?;
            wait_until("ours to be used again", PATIENCE, || node.weft.forwards(*block).map(drop))?;
        }
        Ok(())
    })
}

/// The same prefix and metric in the kernel before us: the key is taken, and is not ours to replace.
#[test]
fn a_foreign_route_of_the_same_key_is_never_replaced() -> Result<()> {
    Lab::test(|lab| {
        let mut lan =
            Lan::build(lab, LanSpec { nodes: vec![2], families: vec![Family::V4], pods_per_node: 0 })?;
        let block = lan.nodes[1].blocks[0];
        let address = lan.nodes[1].addresses[0];
        let theirs = format!("{block} via {address} proto static metric 64");
        lan.nodes[0].namespace.ip(&format!("route add {theirs}"))?;
        for node in &mut lan.nodes {
            node.weft.start()?;
        }
        let node = &lan.nodes[0];
        wait_until("the route to be learned and not installed", PATIENCE, || {
            let route = node.weft.route(block)?;
            ensure!(
                route.as_ref().is_some_and(|route| !route.in_kernel && route.best.is_some()),
                "{route:?}"
            );
            Ok(())
        })?;
        stays("the admin's route", Duration::from_secs(2), || {
            let route = one_route(node, block)?;
            ensure!(route["protocol"] == "static", "{route}");
            Ok(())
        })?;
        node.namespace.ip(&format!("route del {theirs}"))?;
        wait_until("ours in its place", PATIENCE, || node.weft.forwards(block).map(drop))
    })
}
