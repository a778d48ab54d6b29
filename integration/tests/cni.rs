//! The plugin as a container runtime calls it.

#![allow(clippy::indexing_slicing, reason = "a panic fails the test, which is what it is for")]

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::thread;

use anyhow::{Context as _, Result, ensure};
use ipnet::IpNet;
use serde_json::{Value, json};
use weft_integration::daemon::Family;
use weft_integration::documents;
use weft_integration::lab::Lab;
use weft_integration::netns::Namespace;
use weft_integration::node::{self, Node};
use weft_integration::pod::{Plugin, Pod, addresses};
use weft_integration::probe::{ping, tcp, udp};

/// A node without links and peers, with the given blocks, and its weftd running.
fn node(lab: &Lab, blocks: &[&str]) -> Result<Node> {
    let blocks: Vec<IpNet> = blocks.iter().map(|block| Ok(block.parse()?)).collect::<Result<_>>()?;
    let families: Vec<Family> = blocks.iter().map(|block| Family::of(block.addr())).collect();
    let mut node = Node::new(lab, "node", node::loopback(&families, 1), blocks)?;
    let commands: Vec<String> =
        node.addresses.iter().map(|address| format!("addr add {address} dev lo")).collect();
    node.namespace.ip(&commands.join("\n"))?;
    let mut all = vec![
        documents::node("node", &[], &node.blocks, &node.addresses),
        documents::bgp_configuration(&json!({"asNumber": 64601, "nodeToNodeMeshEnabled": false})),
    ];
    all.extend(families.iter().map(|family| documents::pod_pool(*family)));
    documents::write(&node.weft.manifests(), "all.yaml", &all)?;
    node.weft.start()?;
    node.wait_ready_for_pods()?;
    Ok(node)
}

/// The links on the node whose names are those of pods' host ends.
fn host_links(node: &Node) -> Result<Vec<String>> {
    let links = node.namespace.ip_json("link show")?;
    let names =
        links.as_array().into_iter().flatten().filter_map(|link| Some(link["ifname"].as_str()?.to_owned()));
    Ok(names.filter(|name| name.starts_with("weft")).collect())
}

#[test]
fn concurrent_adds_never_share_an_address() -> Result<()> {
    Lab::test(|lab| {
        const PODS: usize = 24;
        let node = node(lab, &["10.244.1.0/26", "fd00:10:244:1::/122"])?;
        let pods: Vec<Pod> = thread::scope(|scope| {
            let adds: Vec<_> = (0..PODS)
                .map(|number| {
                    scope.spawn({
                        let node = &node;
                        move || Pod::add(lab, &node.weft, &format!("pod{number}"))
                    })
                })
                .collect();
            adds.into_iter()
                .map(|add| add.join().map_err(|_| anyhow::anyhow!("an ADD panicked"))?)
                .collect::<Result<_>>()
        })?;
        let distinct: BTreeSet<IpAddr> = pods.iter().flat_map(|pod| pod.addresses.clone()).collect();
        ensure!(distinct.len() == 2 * PODS, "{} addresses for {PODS} dual-stack pods", distinct.len());
        for pod in &pods {
            for (address, block) in pod.addresses.iter().zip(&node.blocks) {
                ensure!(block.contains(address), "{address} is not in {block}");
                ping(&node.namespace, *address)?;
            }
            pod.check()?;
        }
        Ok(())
    })
}

/// A pod is reachable when ADD has answered: nothing is sent twice here.
#[test]
fn the_first_packet_after_add_arrives() -> Result<()> {
    Lab::test(|lab| {
        let node = node(lab, &["10.244.1.0/26", "fd00:10:244:1::/122"])?;
        for number in 0..30 {
            let pod = Pod::add(lab, &node.weft, &format!("pod{number}"))?;
            for address in &pod.addresses {
                udp(&node.namespace, &pod.namespace, *address, 100)
                    .with_context(|| format!("pod number {number}"))?;
            }
        }
        Ok(())
    })
}

#[test]
fn a_full_block_is_a_clear_error_and_every_address_is_used() -> Result<()> {
    Lab::test(|lab| {
        let node = node(lab, &["10.244.1.0/30"])?;
        let mut pods: Vec<Pod> =
            (0..4).map(|number| Pod::add(lab, &node.weft, &format!("pod{number}"))).collect::<Result<_>>()?;
        let used: BTreeSet<IpAddr> = pods.iter().flat_map(|pod| pod.addresses.clone()).collect();
        ensure!(used == (0..4).map(|last| IpAddr::from([10, 244, 1, last])).collect(), "{used:?}");

        let plugin = Plugin::new(&node.weft)?;
        let late = lab.namespace("late")?;
        let reply = plugin.call("ADD", "late", &late.path())?;
        ensure!(reply.code().is_some_and(|code| code >= 11), "{reply:?}");
        let message = reply.json["msg"].as_str().context("no msg")?;
        ensure!(message.contains("10.244.1.0/30"), "the message does not name the block: {message}");
        ensure!(host_links(&node)?.len() == 4, "a link of the failed ADD is left: {:?}", host_links(&node)?);

        let freed = pods.remove(1);
        let address = freed.addresses[0];
        freed.delete()?;
        let added = plugin.call("ADD", "late", &late.path())?.result()?;
        ensure!(addresses(&added)? == [address], "{added}");
        ping(&node.namespace, address)
    })
}

#[test]
fn an_add_that_fails_leaves_nothing() -> Result<()> {
    Lab::test(|lab| {
        let node = node(lab, &["10.244.1.0/31"])?;
        let plugin = Plugin::new(&node.weft)?;
        let missing = Path::new("/run/netns/weft-there-is-no-such-namespace");
        for attempt in 0..5 {
            let reply = plugin.call("ADD", &format!("ghost{attempt}"), missing)?;
            ensure!(!reply.ok && reply.json["msg"].is_string(), "{reply:?}");
            ensure!(host_links(&node)?.is_empty(), "a link is left");
        }
        let routes = node.namespace.ip_json("route show proto 177")?;
        ensure!(routes == json!([]), "{routes}");
        // eth0 is there already: the plugin must not touch it, nor keep an address.
        let taken = lab.namespace("taken")?;
        taken.ip("link add eth0 type veth peer name other")?;
        let reply = plugin.call("ADD", "taken", &taken.path())?;
        ensure!(!reply.ok, "{reply:?}");
        ensure!(taken.ip_json("link show eth0")?[0]["ifname"] == "eth0", "somebody else's eth0 is gone");
        ensure!(host_links(&node)?.is_empty(), "a link is left");
        // Both addresses of the block are free.
        Pod::add(lab, &node.weft, "pod0")?;
        Pod::add(lab, &node.weft, "pod1").map(drop)
    })
}

#[test]
fn the_plugin_works_while_weftd_is_dead() -> Result<()> {
    Lab::test(|lab| {
        let mut node = node(lab, &["10.244.1.0/26", "fd00:10:244:1::/122"])?;
        let before = Pod::add(lab, &node.weft, "before")?;
        node.weft.kill9()?;
        let during = Pod::add(lab, &node.weft, "during")?;
        for address in &during.addresses {
            ping(&node.namespace, *address)?;
            ensure!(
                before.addresses.contains(&tcp(&before.namespace, &during.namespace, *address)?),
                "NAT between pods"
            );
        }
        during.check()?;
        let gone = before.addresses.clone();
        before.delete()?;
        for address in gone {
            ensure!(node.namespace.routes_to(address.into())?.is_empty(), "DEL left the route to {address}");
        }
        node.weft.start()?;
        node.weft.wait_answers()?;
        for address in &during.addresses {
            ping(&node.namespace, *address)?;
        }
        Ok(())
    })
}

#[test]
fn without_node_json_the_runtime_is_told_to_try_again() -> Result<()> {
    Lab::test(|lab| {
        let node = Node::new(lab, "node", node::loopback(&[Family::V4], 1), node::blocks(&[Family::V4], 1))?;
        let plugin = Plugin::new(&node.weft)?;
        let pod = lab.namespace("pod")?;
        let reply = plugin.call("ADD", "pod", &pod.path())?;
        ensure!(reply.code() == Some(11), "{reply:?}");
        ensure!(host_links(&node)?.is_empty(), "a link is left");
        ensure!(plugin.call("DEL", "pod", &pod.path())?.ok, "DEL of what was never added failed");
        Ok(())
    })
}

#[test]
fn del_is_idempotent_and_check_sees_damage() -> Result<()> {
    Lab::test(|lab| {
        let node = node(lab, &["10.244.1.0/26", "fd00:10:244:1::/122"])?;
        let plugin = Plugin::new(&node.weft)?;
        let pod = Pod::add(lab, &node.weft, "pod")?;
        pod.check()?;
        pod.namespace.ip("route del default")?;
        ensure!(pod.check().is_err(), "CHECK is content without a default route");
        let (container, path, added) = (pod.container.clone(), pod.namespace.path(), pod.added.clone());
        pod.delete()?;
        ensure!(host_links(&node)?.is_empty(), "DEL left a link");
        // The namespace is gone now, too.
        for attempt in 0..2 {
            let reply = plugin.call_after("DEL", &container, &path, &added)?;
            ensure!(reply.ok, "DEL number {attempt} after the first: {reply:?}");
        }
        Ok(())
    })
}

#[test]
fn a_pod_is_what_the_design_says() -> Result<()> {
    Lab::test(|lab| {
        let node = node(lab, &["10.244.1.0/26", "fd00:10:244:1::/122"])?;
        let pod = Pod::add(lab, &node.weft, "pod")?;
        pod_side(&pod.namespace, &pod)?;
        let host = pod.host_interface()?;
        ensure!(host.len() == 15 && host.starts_with("weft"), "{host}");
        ensure!(host[4..].chars().all(|digit| digit.is_ascii_hexdigit()), "{host}");
        let link = &node.namespace.ip_json(&format!("addr show dev {host}"))?[0];
        ensure!(link["address"] == "ee:ee:ee:ee:ee:ee", "{link}");
        let on_host: Vec<&Value> =
            link["addr_info"].as_array().into_iter().flatten().map(|info| &info["local"]).collect();
        ensure!(on_host == ["fe80::1"], "{link}");
        for (address, own) in pod.addresses.iter().zip(&node.addresses) {
            let routes = node.namespace.routes_to((*address).into())?;
            ensure!(
                routes.len() == 1 && routes[0]["dev"] == host.as_str() && routes[0]["protocol"] == "177",
                "{routes:?}"
            );
            ensure!(routes[0]["prefsrc"] == json!(own), "{routes:?}, not from {own}");
        }
        Ok(())
    })
}

fn pod_side(namespace: &Namespace, pod: &Pod) -> Result<()> {
    let link = &namespace.ip_json("addr show dev eth0")?[0];
    let of = |family: &str| -> Vec<(Value, Value)> {
        let all = link["addr_info"].as_array().into_iter().flatten();
        let global = all.filter(|info| info["family"] == family && info["scope"] == "global");
        global.map(|info| (info["local"].clone(), info["prefixlen"].clone())).collect()
    };
    ensure!(of("inet") == [(json!(pod.address(Family::V4)?), json!(32))], "{link}");
    ensure!(of("inet6") == [(json!(pod.address(Family::V6)?), json!(128))], "{link}");
    for (flag, gateway) in [("-4", "169.254.1.1"), ("-6", "fe80::1")] {
        let route = &namespace.ip_json(&format!("{flag} route show default"))?[0];
        ensure!(route["gateway"] == gateway && route["dev"] == "eth0", "{route}");
        let neighbour = namespace.ip_json(&format!("neigh show {gateway} dev eth0"))?.to_string();
        ensure!(neighbour.contains("PERMANENT") && neighbour.contains("ee:ee:ee:ee:ee:ee"), "{neighbour}");
    }
    Ok(())
}
