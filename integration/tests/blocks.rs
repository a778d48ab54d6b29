//! Blocks: when the plugin is told that others know of one, and what becomes of one that is taken away.

#![allow(clippy::indexing_slicing, reason = "a panic fails the test, which is what it is for")]

use std::collections::BTreeSet;
use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use ipnet::IpNet;
use serde_json::{Value, json};
use weft_integration::daemon::Family;
use weft_integration::documents;
use weft_integration::fabric::wait_reachable;
use weft_integration::lab::Lab;
use weft_integration::lan::{Lan, LanSpec};
use weft_integration::netns::Namespace;
use weft_integration::node::{self, Node};
use weft_integration::pod::{Plugin, Pod, addresses};
use weft_integration::probe::ping;
use weft_integration::wait::{now, stays, wait_until};

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
        wait_told(&lan.nodes[0], "announced", "after it came back", &all(&blocks, true))?;
        // The peer keeps what it knows while we restart, so the plugin is never told otherwise.
        lan.nodes[0].weft.kill9()?;
        lan.nodes[0].weft.start()?;
        let node = &lan.nodes[0];
        let (end, mut is_ready) = (now() + PATIENCE, false);
        while !is_ready {
            ensure!(now() < end, "{} did not converge within {PATIENCE:?}", node.name);
            ensure!(told(node, "announced")? == all(&blocks, true), "taken back before convergence");
            is_ready = node.weft.http("/readyz").is_ok_and(|(code, _)| code == 200);
        }
        stays("what the peer knows, after convergence", Duration::from_secs(1), || {
            ensure!(told(node, "announced")? == all(&blocks, true), "it was taken back");
            Ok(())
        })
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

#[test]
fn an_add_that_waits_for_the_route_answers_when_the_peer_has_it() -> Result<()> {
    Lab::test(|lab| {
        let spec = LanSpec { nodes: vec![2], families: Family::BOTH.to_vec(), pods_per_node: 0 };
        let mut lan = Lan::build(lab, spec)?;
        lan.nodes[0].weft.start()?;
        lan.nodes[0].wait_ready_for_pods()?;
        let plugin = |seconds: u64| -> Result<Plugin> {
            let keys = json!({"waitForRoute": true, "waitForRouteSeconds": seconds});
            Ok(Plugin::new(&lan.nodes[0].weft)?.with_keys(&keys))
        };
        let (impatient, patient) = (plugin(1)?, plugin(PATIENCE.as_secs())?);
        let pod = lab.namespace("pod")?;
        let refused = impatient.call("ADD", "pod", &pod.path())?;
        ensure!(refused.code() == Some(11), "{refused:?}");
        let added = thread::scope(|scope| {
            let waiting = scope.spawn(|| patient.call("ADD", "pod", &pod.path())?.result());
            lan.nodes[1].weft.start()?;
            waiting.join().map_err(|_| anyhow::anyhow!("the ADD panicked"))?
        })?;
        // The peer only has to take in what is on its way to it.
        for address in addresses(&added)? {
            wait_until("an answer from the pod", PATIENCE, || ping(&lan.nodes[1].namespace, address))?;
        }
        Ok(())
    })
}

/// Three pools of four addresses each: for namespaces of team x, for all, and for who asks.
fn node_of_three_pools(lab: &Lab) -> Result<Node> {
    let blocks: Vec<IpNet> = ["10.244.1.0/30", "10.244.2.0/30", "10.244.3.0/30"]
        .iter()
        .map(|b| b.parse())
        .collect::<Result<_, _>>()?;
    let mut node = Node::new(lab, "node", node::loopback(&[Family::V4], 1), blocks)?;
    node.namespace.ip(&format!("addr add {} dev lo", node.addresses[0]))?;
    let pool = |name: &str, cidr: &str, more: Value| {
        let mut spec = json!({"cidr": cidr, "blockSize": 30, "cooldown": "3s"});
        if let (Some(spec), Value::Object(more)) = (spec.as_object_mut(), more) {
            spec.extend(more);
        }
        documents::resource("IPPool", name, &spec)
    };
    let team = json!({"namespaceSelector": "team == \"x\"", "reserved": ["10.244.1.0/31"]});
    let mut all = vec![
        documents::node("node", &[], &[], &node.addresses),
        documents::bgp_configuration(&json!({"asNumber": 64601, "nodeToNodeMeshEnabled": false})),
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "red", "labels": {"team": "x"}}}),
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "blue"}}),
        pool("team", "10.244.1.0/24", team),
        pool("common", "10.244.2.0/24", json!({})),
        pool("manual", "10.244.3.0/24", json!({"assignmentMode": "Manual"})),
    ];
    all.extend(node.blocks.iter().enumerate().map(|(index, block)| {
        documents::resource("IPBlock", &format!("block-{index}"), &json!({"cidr": block, "node": "node"}))
    }));
    documents::write(&node.weft.manifests(), "all.yaml", &all)?;
    node.weft.start()?;
    node.wait_ready_for_pods()?;
    Ok(node)
}

#[test]
fn a_pool_says_who_gets_which_of_its_addresses_and_when() -> Result<()> {
    Lab::test(|lab| {
        let node = node_of_three_pools(lab)?;
        let plugin = |arguments: &str| -> Result<Plugin> {
            Ok(Plugin::new(&node.weft)?
                .with_arguments(&format!("K8S_POD_NAME=p;K8S_POD_NAMESPACE={arguments}")))
        };
        // The addresses that ADD answers with, or the error.
        let add = |plugin: &Plugin, pod: &Namespace| -> Result<String> {
            let reply = plugin.call("ADD", pod.label(), &pod.path())?;
            if let Some(code) = reply.code() {
                return Ok(format!("{code}: {}", reply.json["msg"].as_str().unwrap_or_default()));
            }
            let addresses = addresses(&reply.result()?)?;
            Ok(addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(","))
        };
        let pods: Vec<Namespace> =
            (0..9).map(|number| lab.namespace(&format!("pod{number}"))).collect::<Result<_>>()?;
        let (red, blue) = (plugin("red")?, plugin("blue")?);
        let of = |plugin: &Plugin, pods: &[Namespace]| -> Result<BTreeSet<String>> {
            pods.iter().map(|pod| add(plugin, pod)).collect()
        };
        let expected = |last: std::ops::Range<u8>, third: u8| -> BTreeSet<String> {
            last.map(|last| format!("10.244.{third}.{last}")).collect()
        };
        let reds = of(&red, &pods[..2])?;
        ensure!(reds == expected(2..4, 1), "{reds:?}, not what the team's pool has besides what is reserved");
        let blues = of(&blue, &pods[2..6])?;
        ensure!(blues == expected(0..4, 2), "{blues:?}, not what the pool for all has");
        for (plugin, what) in [(&red, "the reserved addresses"), (&blue, "the pool for who asks")] {
            let answer = add(plugin, &pods[6])?;
            ensure!(answer.starts_with("11: "), "{answer}: {what} was taken unasked");
        }
        for asked in ["10.244.1.0", "10.244.3.1"] {
            let pod = lab.namespace(asked)?;
            let answer = add(&plugin(&format!("blue;IP={asked}"))?, &pod)?;
            ensure!(answer == asked, "{answer}, not {asked}, which was asked for");
        }
        red.call("DEL", pods[0].label(), &pods[0].path())?.result()?;
        let answer = add(&red, &pods[7])?;
        ensure!(answer.starts_with("11: ") && answer.contains("rests"), "an address did not rest: {answer}");
        wait_until("an address to have rested", PATIENCE, || {
            let answer = add(&red, &pods[7])?;
            ensure!(reds.contains(&answer), "{answer}");
            Ok(())
        })
    })
}
