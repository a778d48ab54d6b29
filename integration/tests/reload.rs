//! Documents that change under a running weftd.

#![allow(clippy::indexing_slicing, reason = "a panic fails the test, which is what it is for")]

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use weft_integration::daemon::{Family, Software};
use weft_integration::documents;
use weft_integration::fabric::{Fabric, FabricSpec};
use weft_integration::lab::Lab;
use weft_integration::node::Node;
use weft_integration::probe::ping;
use weft_integration::wait::{stays, wait_until};

const PATIENCE: Duration = Duration::from_secs(40);

/// When each session came up, by peer. What flapped has another time.
fn established_since(node: &Node) -> Result<BTreeMap<String, String>> {
    let peers = node.weft.peers()?;
    peers
        .into_iter()
        .map(|peer| {
            ensure!(peer.state == "Established", "{peer:?}");
            Ok((peer.peer, peer.since.context("an Established session has a time")?))
        })
        .collect()
}

fn wait_established(node: &Node) -> Result<BTreeMap<String, String>> {
    wait_until("all sessions", PATIENCE, || {
        let since = established_since(node)?;
        ensure!(!since.is_empty(), "there is no peer");
        Ok(since)
    })
}

/// The number of times that a folder was read and put in force, from the metrics.
fn accepted_reloads(node: &Node) -> Result<u64> {
    let (_, metrics) = node.weft.http("/metrics")?;
    let line = metrics
        .lines()
        .find(|line| line.starts_with("weft_config_reloads_total") && line.contains("accepted"));
    let value = line.and_then(|line| line.split_whitespace().last()).with_context(|| metrics.clone())?;
    Ok(value.parse()?)
}

fn wait_reloaded(node: &Node, before: u64) -> Result<()> {
    wait_until("the folder to be read again", PATIENCE, || {
        let now = accepted_reloads(node)?;
        ensure!(now > before, "{now} reloads");
        Ok(())
    })
}

#[test]
fn a_label_that_changes_elsewhere_flaps_no_session() -> Result<()> {
    Lab::test(|lab| {
        let fabric = Fabric::up(lab, FabricSpec::two_uplinks(Software::Bird))?;
        let node = fabric.node("a1")?;
        let before = wait_established(node)?;
        let reloads = accepted_reloads(node)?;
        let nodes: Vec<Value> = fabric
            .nodes
            .iter()
            .map(|node| {
                documents::node(
                    &node.name,
                    &[("rack", "a"), ("colour", "blue")],
                    &node.blocks,
                    &node.addresses,
                )
            })
            .collect();
        documents::write(&node.weft.manifests(), "nodes.yaml", &nodes)?;
        wait_reloaded(node, reloads)?;
        stays("every session", Duration::from_secs(1), || {
            let now = established_since(node)?;
            ensure!(now == before, "{now:?}, not {before:?}");
            Ok(())
        })
    })
}

#[test]
fn sighup_reads_the_folder_again_and_flaps_no_session() -> Result<()> {
    Lab::test(|lab| {
        let mut fabric = Fabric::up(lab, FabricSpec::one_rack(Software::Bird))?;
        let node = fabric.node_mut("a1")?;
        let before = wait_established(node)?;
        let reloads = accepted_reloads(node)?;
        node.weft.reload()?;
        wait_reloaded(node, reloads)?;
        ensure!(established_since(node)? == before, "a session flapped");
        Ok(())
    })
}

#[test]
fn peers_that_come_and_go_leave_the_others_alone() -> Result<()> {
    Lab::test(|lab| {
        let fabric = Fabric::up(lab, FabricSpec::two_uplinks(Software::Bird))?;
        let node = fabric.node("a1")?;
        let folder = node.weft.manifests();
        let before = wait_established(node)?;
        ensure!(before.len() == 2, "{before:?}");

        let stranger =
            documents::bgp_peer("stranger", "a1", json!({"peerIP": "10.1.0.200", "asNumber": 65200}));
        documents::write(&folder, "stranger.yaml", &[stranger])?;
        wait_until("the third peer", PATIENCE, || node.weft.peer("10.1.0.200".parse()?).map(drop))?;
        let keeps = |names: &BTreeMap<String, String>| -> Result<()> {
            let peers = node.weft.peers()?;
            for (peer, since) in names {
                let now =
                    peers.iter().find(|now| now.peer == *peer).with_context(|| format!("{peer} is gone"))?;
                ensure!(now.since.as_ref() == Some(since), "{peer} flapped: {now:?}");
            }
            Ok(())
        };
        keeps(&before)?;
        fs::remove_file(folder.join("stranger.yaml"))?;
        wait_until("the third peer to go", PATIENCE, || {
            ensure!(node.weft.peer("10.1.0.200".parse()?).is_err(), "it is still there");
            Ok(())
        })?;
        keeps(&before)?;

        // A change of one session is no business of the other's.
        let text = fs::read_to_string(folder.join("peers.yaml"))?;
        let mut all: Vec<Value> = text.split("---\n").map(serde_yaml::from_str).collect::<Result<_, _>>()?;
        let first = all.first_mut().context("there are peers")?;
        let address = first["spec"]["peerIP"].as_str().context("peerIP")?.to_owned();
        first["spec"]["shutdown"] = json!(true);
        documents::write(&folder, "peers.yaml", &all)?;
        wait_until("the session to go down", PATIENCE, || {
            let peer = node.weft.peer(address.parse()?)?;
            ensure!(peer.state != "Established", "{peer:?}");
            Ok(())
        })?;
        let others = before.into_iter().filter(|(peer, _)| *peer != address).collect();
        keeps(&others)?;
        let far = &fabric.node("a2")?.pods[0];
        for family in Family::BOTH {
            wait_until("the other uplink", PATIENCE, || ping(&node.pods[0].namespace, far.address(family)?))?;
        }
        Ok(())
    })
}

#[test]
fn a_bad_document_keeps_the_plan_and_shows() -> Result<()> {
    Lab::test(|lab| {
        let fabric = Fabric::up(lab, FabricSpec::one_rack(Software::Bird))?;
        let node = fabric.node("a1")?;
        let folder = node.weft.manifests();
        let before = wait_established(node)?;
        documents::write_text(
            &folder,
            "broken.yaml",
            "apiVersion: weft.network/v1alpha1\nkind: BGPPeer\nmetadata:\n  name: broken\nspec:\n  peerIP: 10.1.0.300\n  asNumber: 65001\n",
        )?;
        // The pool goes with it: a folder is taken as a whole or not at all.
        fs::remove_file(folder.join("pools.yaml"))?;
        wait_until("the error to show", PATIENCE, || {
            let status = node.weft.status()?;
            let errors = status["config"]["errors"].as_array().cloned().unwrap_or_default();
            ensure!(status["config"]["ok"] == false && status["ok"] == false, "{status}");
            let file =
                |error: &Value| error["file"].as_str().is_some_and(|file| file.ends_with("broken.yaml"));
            let here = errors.iter().find(|error| file(error)).with_context(|| format!("{errors:?}"))?;
            ensure!(here["line"] == 6 && here["field"] == "spec.peerIP", "{here}");
            ensure!(here["message"].is_string() && here["remedy"].is_string(), "{here}");
            Ok(())
        })?;
        ensure!(node.weft.weftctl("status")?.status.code() == Some(1), "weftctl status says all is well");
        stays("the old plan", Duration::from_secs(1), || {
            ensure!(established_since(node)? == before, "a session flapped");
            fabric.node("a2")?.blocks.iter().try_for_each(|block| node.weft.forwards(*block).map(drop))
        })?;
        fs::remove_file(folder.join("broken.yaml"))?;
        let pools: Vec<Value> = Family::BOTH.map(documents::pod_pool).to_vec();
        documents::write(&folder, "pools.yaml", &pools)?;
        wait_until("the error to go", PATIENCE, || {
            let status = node.weft.status()?;
            ensure!(status["config"]["ok"] == true && status["ok"] == true, "{status}");
            Ok(())
        })?;
        ensure!(established_since(node)? == before, "a session flapped");
        Ok(())
    })
}

/// weftd that finds bad documents at its start touches nothing that an earlier run left, and goes on when they are right.
#[test]
fn a_start_with_bad_documents_keeps_the_kernels_routes() -> Result<()> {
    Lab::test(|lab| {
        let mut fabric =
            Fabric::up(lab, FabricSpec { pods_per_node: 1, ..FabricSpec::one_rack(Software::Bird) })?;
        let far: Vec<_> = fabric.node("a2")?.pods[0].addresses.clone();
        let blocks = fabric.node("a2")?.blocks.clone();
        let node = fabric.node_mut("a1")?;
        node.weft.kill9()?;
        documents::write_text(&node.weft.manifests(), "broken.yaml", "kind: [\n")?;
        node.weft.start()?;
        node.weft.wait_answers()?;
        stays("traffic", Duration::from_secs(2), || {
            far.iter().try_for_each(|address| ping(&node.pods[0].namespace, *address))?;
            ensure!(node.weft.http("/readyz")?.0 != 200, "it says that it is ready");
            ensure!(node.weft.http("/healthz")?.0 == 200, "it says that it is not alive");
            ensure!(node.weft.status()?["config"]["ok"] == false, "it shows no error");
            Ok(())
        })?;
        fs::remove_file(node.weft.manifests().join("broken.yaml"))?;
        wait_until("routes from the peer", PATIENCE, || {
            blocks.iter().try_for_each(|block| node.weft.forwards(*block).map(drop))?;
            ensure!(node.weft.http("/readyz")?.0 == 200, "it is not ready");
            Ok(())
        })
    })
}
