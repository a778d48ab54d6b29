//! A machine that is shut down leaves the network, and one whose weftd is only told to end does not.

#![allow(clippy::indexing_slicing, reason = "a panic fails the test, which is what it is for")]

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use weft_integration::daemon::Software;
use weft_integration::documents;
use weft_integration::fabric::{Fabric, FabricSpec};
use weft_integration::lab::Lab;
use weft_integration::wait::{stays, wait_until};

const PATIENCE: Duration = Duration::from_secs(40);
/// Longer than the test lasts: whoever waits for it fails.
const DRAIN_TIME: &str = "10m";

fn fabric(lab: &Lab, software: Software, drain_time: &str) -> Result<Fabric> {
    let fabric = Fabric::up(lab, FabricSpec { pods_per_node: 0, ..FabricSpec::one_rack(software) })?;
    let spec = json!({"asNumber": 64601, "nodeToNodeMeshEnabled": false, "drainTime": drain_time});
    let documents = [documents::bgp_configuration(&spec)];
    documents::write(&fabric.node("a1")?.weft.manifests(), "bgp.yaml", &documents)?;
    wait_until("the node's blocks at the ToR", PATIENCE, || ensure_sent(&fabric, true))?;
    Ok(fabric)
}

/// The ToR's kernel has the way to the node's blocks, or none.
fn ensure_sent(fabric: &Fabric, there: bool) -> Result<()> {
    let nodes: &[&str] = if there { &["a1"] } else { &[] };
    fabric.node("a1")?.blocks.iter().try_for_each(|block| fabric.ensure_tor_sends(*block, nodes))
}

/// Writes what kubelet says of a1 while it ends its pods.
fn tell_of_shutdown(fabric: &Fabric) -> Result<()> {
    let conditions = json!([{
        "type": "Ready",
        "status": "False",
        "reason": "KubeletNotReady",
        "message": "node is shutting down",
    }]);
    let mut nodes = Vec::new();
    for node in &fabric.nodes {
        let mut document = documents::node(&node.name, &[("rack", "a")], &node.blocks, &node.addresses);
        if node.name == "a1" {
            document["status"]["conditions"] = conditions.clone();
        }
        nodes.push(document);
    }
    documents::write(&fabric.node("a1")?.weft.manifests(), "nodes.yaml", &nodes)
}

fn drain(fabric: &Fabric) -> Result<Value> {
    Ok(fabric.node("a1")?.weft.status()?["drain"].clone())
}

fn ensure_up(fabric: &Fabric) -> Result<()> {
    let peers = fabric.node("a1")?.weft.peers()?;
    ensure!(peers.iter().all(|peer| peer.state == "Established"), "{peers:?}");
    Ok(())
}

/// By RFC 4724 the ToR would keep the routes for a minute, so that without them it has been told of the end.
fn a_shutdown_leaves_nothing(software: Software) -> Result<()> {
    Lab::test(|lab| {
        let mut fabric = fabric(lab, software, DRAIN_TIME)?;
        fabric.node_mut("a1")?.weft.terminate()?;
        stays("what a weftd told that was ended alone", Duration::from_secs(3), || {
            ensure_sent(&fabric, true)
        })?;
        fabric.node_mut("a1")?.weft.start()?;
        wait_until("the sessions", PATIENCE, || ensure_up(&fabric))?;

        tell_of_shutdown(&fabric)?;
        wait_until("the node to be the last choice", PATIENCE, || {
            let drain = drain(&fabric)?;
            ensure!(drain["phase"] == "low-preference" && drain["until"] == Value::Null, "{drain}");
            ensure!(drain["reason"] == "the shutdown of the node", "{drain}");
            Ok(())
        })?;
        stays("the way to pods that are being ended", Duration::from_secs(2), || {
            ensure_sent(&fabric, true)?;
            ensure_up(&fabric)
        })?;
        let refused = fabric.node("a1")?.weft.weftctl("undrain")?;
        ensure!(
            refused.status.code() == Some(1) && refused.stderr.contains("shut down"),
            "{}",
            refused.stderr
        );
        fabric.node_mut("a1")?.weft.terminate()?;
        ensure_sent(&fabric, false).context("when weftd has ended")
    })
}

/// Proves RFC 8326 4, RFC 4724 4; BIRD.
#[test]
fn a_shutdown_leaves_nothing_at_bird() -> Result<()> {
    a_shutdown_leaves_nothing(Software::Bird)
}

/// Proves RFC 8326 4, RFC 4724 4; FRR.
#[test]
fn a_shutdown_leaves_nothing_at_frr() -> Result<()> {
    a_shutdown_leaves_nothing(Software::Frr)
}

#[test]
fn a_cancelled_shutdown_is_none() -> Result<()> {
    Lab::test(|lab| {
        let mut fabric = fabric(lab, Software::Bird, DRAIN_TIME)?;
        tell_of_shutdown(&fabric)?;
        wait_until("the drain", PATIENCE, || {
            ensure!(drain(&fabric)?["phase"] == "low-preference", "no drain");
            Ok(())
        })?;
        let nodes: Vec<Value> = fabric
            .nodes
            .iter()
            .map(|node| documents::node(&node.name, &[("rack", "a")], &node.blocks, &node.addresses))
            .collect();
        documents::write(&fabric.node("a1")?.weft.manifests(), "nodes.yaml", &nodes)?;
        wait_until("the drain to end", PATIENCE, || {
            ensure!(drain(&fabric)? == Value::Null, "it drains still");
            Ok(())
        })?;
        fabric.node_mut("a1")?.weft.terminate()?;
        stays("what weftd told", Duration::from_secs(3), || ensure_sent(&fabric, true))
    })
}

/// The commands of `manifests/systemd`, in the order in which systemd runs them when the machine goes down.
#[test]
fn the_units_of_systemd_leave_nothing() -> Result<()> {
    Lab::test(|lab| {
        let mut fabric = fabric(lab, Software::Frr, "1s")?;
        let unit = concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests/systemd/weft-drain.service");
        let text = std::fs::read_to_string(unit)?;
        let stop = text.lines().find_map(|line| line.strip_prefix("ExecStop=-/usr/local/bin/weftctl "));
        let said = fabric.node("a1")?.weft.weftctl(stop.context("the unit runs no weftctl")?)?;
        ensure!(
            said.status.success() && said.stdout.starts_with("DRAINED"),
            "{} {}",
            said.stdout,
            said.stderr
        );
        ensure_sent(&fabric, false)?;
        fabric.node_mut("a1")?.weft.terminate()?;
        ensure_sent(&fabric, false)
    })
}
