//! weftd with a real API server. These tests are ignored unless asked for, as they need Kubernetes' own programs: `make test` runs
//! them where `KUBEBUILDER_ASSETS` names the folder with `etcd`, `kube-apiserver` and `kubectl`.

#![allow(clippy::indexing_slicing, reason = "a panic fails the test, which is what it is for")]

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use weft_integration::daemon::Family;
use weft_integration::documents;
use weft_integration::kubernetes::ControlPlane;
use weft_integration::lab::Lab;
use weft_integration::lan::{Lan, LanSpec};
use weft_integration::link::End;
use weft_integration::node::Node;
use weft_integration::probe::ping;
use weft_integration::wait::wait_until;

/// How soon a node has caught up with its API server.
const CATCH_UP: Duration = Duration::from_secs(10);
const BASE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests/base");

/// Two nodes of a mesh and their API server.
fn cluster(lab: &Lab) -> Result<(Lan, ControlPlane)> {
    let families = Family::BOTH.to_vec();
    let lan = Lan::build(lab, LanSpec { nodes: vec![2], families, pods_per_node: 1 })?;
    let machine = lab.machine("control-plane")?;
    lan.switches[0].plug(End::new(&machine, "eth0"))?.near.add_addresses(&["10.2.0.200/24".parse()?])?;
    // kube-apiserver takes no address of itself that is a loopback's, and wants a default route to find one.
    machine.ip("route add default dev eth0")?;
    let address: IpAddr = "10.2.0.200".parse()?;
    let plane = ControlPlane::start(lab, &machine, address)?;
    plane.apply_folder(Path::new(BASE))?;
    plane.apply(&[documents::bgp_configuration(&json!({"asNumber": 64512}))])?;
    plane.apply(&Family::BOTH.map(documents::pod_pool))?;
    for node in &lan.nodes {
        plane.add_node(&documents::node(&node.name, &[], &node.blocks, &node.addresses))?;
    }
    Ok((lan, plane))
}

fn errors(node: &Node) -> Result<Vec<String>> {
    let status = node.weft.status()?;
    let errors = status["config"]["errors"].as_array().cloned().unwrap_or_default();
    Ok(errors.iter().map(|error| format!("{} {}", error["object"], error["message"])).collect())
}

fn has_problem(node: &Node, code: &str) -> Result<bool> {
    let status: Value = node.weft.status()?;
    let problems = status["problems"].as_array().cloned().unwrap_or_default();
    Ok(problems.iter().any(|problem| problem["code"] == code))
}

fn wait_errors(node: &Node, count: usize) -> Result<()> {
    wait_until(format!("{count} errors on {}", node.name), CATCH_UP, || {
        let errors = errors(node)?;
        ensure!(errors.len() == count, "{errors:?}");
        Ok(())
    })
}

#[test]
#[ignore = "needs KUBEBUILDER_ASSETS: make test runs it where that is set"]
fn a_cluster_is_followed_and_its_api_server_may_go_away() -> Result<()> {
    Lab::test(|lab| {
        let (mut lan, mut plane) = cluster(lab)?;
        let account = plane.kubeconfig_of("weft-system", "weftd")?;
        for node in &mut lan.nodes {
            node.weft.set_kubeconfig(&account);
            node.weft.start()?;
        }
        for node in &mut lan.nodes {
            node.wait_ready_for_pods()?;
            node.add_pod(lab)?;
        }
        reachable(&lan)?;

        // A bad object is refused by the server, or told of by each node, and disturbs nothing.
        let peer = |spec: Value| json!({"apiVersion": "weft.network/v1alpha1", "kind": "BGPPeer", "metadata": {"name": "tor"}, "spec": spec});
        let refused = plane.apply(&[peer(json!({"peerIP": "10.2.0.99"}))]).unwrap_err();
        ensure!(format!("{refused:#}").contains("asNumber is missing"), "{refused:#}");
        plane.apply(&[peer(json!({"peerIP": "10.2.0.99", "asNumber": 65000, "filters": ["gone"]}))])?;
        for node in &lan.nodes {
            wait_errors(node, 1)?;
            ensure!(
                errors(node)?[0].contains("BGPPeer/tor") && node.weft.peers()?.len() == 1,
                "{:?}",
                errors(node)?
            );
        }

        plane.kill_api_server()?;
        for node in &lan.nodes {
            wait_until("the server's absence to be told", CATCH_UP, || {
                ensure!(has_problem(node, "api-unreachable")?, "{}", node.weft.status()?);
                Ok(())
            })?;
        }
        lan.nodes[0].add_pod(lab)?;
        // A node that starts meanwhile waits, and takes nothing away.
        lan.nodes[1].weft.kill9()?;
        lan.nodes[1].weft.start()?;
        lan.nodes[1].weft.wait_answers()?;
        reachable(&lan)?;

        plane.start_api_server()?;
        plane.run("delete bgppeer tor")?;
        for node in &lan.nodes {
            wait_errors(node, 0)?;
            wait_until("all to be well", CATCH_UP, || {
                ensure!(!has_problem(node, "api-unreachable")?, "{}", node.weft.status()?);
                Ok(())
            })?;
        }
        wait_until("the restarted node", CATCH_UP, || {
            lan.nodes[1].weft.established(lan.nodes[0].addresses[0])
        })?;
        reachable(&lan)?;

        plane.run("delete node n2")?;
        wait_until("the node's session to go", CATCH_UP, || {
            let peers = lan.nodes[0].weft.peers()?;
            ensure!(peers.is_empty(), "{peers:?}");
            Ok(())
        })
    })
}

fn reachable(lan: &Lan) -> Result<()> {
    let (near, far) = (&lan.nodes[0], &lan.nodes[1]);
    for address in &far.pods[0].addresses {
        wait_until(format!("{address} to answer"), CATCH_UP, || ping(&near.pods[0].namespace, *address))?;
    }
    Ok(())
}
