//! weftd and weft-controller with a real API server. These tests are ignored unless asked for, as they need Kubernetes' own programs: `make test` runs
//! them where `KUBEBUILDER_ASSETS` names the folder with `etcd`, `kube-apiserver` and `kubectl`.

#![allow(clippy::indexing_slicing, reason = "a panic fails the test, which is what it is for")]

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use weft_integration::daemon::Family;
use weft_integration::documents;
use weft_integration::kubernetes::{BASE, ControlPlane, Controller, condition};
use weft_integration::lab::Lab;
use weft_integration::lan::{Lan, LanSpec};
use weft_integration::link::Link;
use weft_integration::node::Node;
use weft_integration::probe::ping;
use weft_integration::wait::wait_until;

/// How soon a node has caught up with its API server.
const CATCH_UP: Duration = Duration::from_secs(10);
/// How soon a node tells that its API server does not answer any more.
const SILENCE: Duration = Duration::from_secs(30);
/// How soon another leads when the one that led has died, and has done what is to be done.
const TAKE_OVER: Duration = Duration::from_secs(60);
/// How soon the blocks of a Node that is gone are others'.
const GARBAGE: &str = "--garbage-grace 5s";

/// Where the nodes' blocks come from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Blocks {
    OfNodes,
    OfPools,
}

/// Nodes of a mesh and their API server.
fn cluster(lab: &Lab, nodes: u8, source: Blocks) -> Result<(Lan, ControlPlane, Link)> {
    let families = Family::BOTH.to_vec();
    let lan = Lan::build(lab, LanSpec { nodes: vec![nodes], families, pods_per_node: 1 })?;
    let (plane, cable) = ControlPlane::beside(lab, &lan)?;
    plane.apply(&[documents::bgp_configuration(&json!({"asNumber": 64512}))])?;
    plane.apply(&Family::BOTH.map(documents::pod_pool))?;
    for node in &lan.nodes {
        let blocks = if source == Blocks::OfNodes { &node.blocks[..] } else { &[] };
        let mut document = documents::node(&node.name, &[], blocks, &node.addresses);
        document["spec"]["taints"] = json!([{"key": "weft.network/agent-not-ready", "effect": "NoExecute"}]);
        plane.add_node(&document)?;
    }
    Ok((lan, plane, cable))
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
        let (mut lan, mut plane, cable) = cluster(lab, 2, Blocks::OfNodes)?;
        for node in &mut lan.nodes {
            node.weft.set_kubeconfig(&plane.kubeconfig_of("weftd", Some(&node.name))?);
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

        // It goes without a word, and what changes meanwhile is known soon after it is back.
        cable.cut()?;
        plane.apply(&[peer(json!({"peerIP": "10.2.0.99", "asNumber": 65000, "filters": ["gone"]}))])?;
        for node in &lan.nodes {
            wait_until("the server's silence to be told", SILENCE, || {
                ensure!(has_problem(node, "api-unreachable")?, "{}", node.weft.status()?);
                Ok(())
            })?;
        }
        cable.heal()?;
        lan.nodes.iter().try_for_each(|node| wait_errors(node, 1))?;
        plane.run("delete bgppeer tor")?;

        plane.run("delete node n2")?;
        wait_until("the node's session to go", CATCH_UP, || {
            let peers = lan.nodes[0].weft.peers()?;
            ensure!(peers.is_empty(), "{peers:?}");
            Ok(())
        })
    })
}

/// What the schema can tell of a filter the server refuses; a name of a community that goes stays in force where it is used.
#[test]
#[ignore = "needs KUBEBUILDER_ASSETS: make test runs it where that is set"]
fn filters_and_named_communities_are_checked() -> Result<()> {
    Lab::test(|lab| {
        let (mut lan, plane, _cable) = cluster(lab, 1, Blocks::OfNodes)?;
        let filter = |rule: Value| documents::resource("BGPFilter", "f", &json!({"exportV4": [rule]}));
        let accept = |operations: Value| filter(json!({"action": "Accept", "operations": operations}));
        let set_med = json!([{"setMED": {"value": 1}}]);
        let eleven = vec![set_med[0].clone(); 11];
        for (bad, message) in [
            (
                filter(json!({"action": "Reject", "operations": set_med})),
                "leave them out of a rule that rejects",
            ),
            (accept(json!([{}])), "at least 1 propert"),
            (
                accept(json!([{"setMED": {"value": 1}, "setLocalPreference": {"value": 1}}])),
                "must have at most 1 item",
            ),
            (accept(json!([{"setMED": {"value": -1}}])), "greater than or equal to 0"),
            (accept(json!([{"prependASPath": {"prefix": []}}])), "at least 1 item"),
            (accept(json!(eleven)), "at most 10 items"),
            (accept(json!([{"addMED": {"value": 1}}])), "unknown field"),
        ] {
            let refused =
                plane.apply(std::slice::from_ref(&bad)).err().with_context(|| format!("{bad} was taken"))?;
            ensure!(format!("{refused:#}").contains(message), "{message:?} is not said: {refused:#}");
        }
        let configuration = |communities: Value| {
            documents::bgp_configuration(&json!({"asNumber": 64512, "communities": communities}))
        };
        let good = accept(json!([
            {"addCommunity": {"value": "rack"}}, {"removeCommunity": {"value": "no-export"}},
            {"prependASPath": {"prefix": [64512]}}, {"setNextHop": {"value": "10.2.0.1"}},
        ]));
        let peer = json!({"peerIP": "10.2.0.99", "asNumber": 65000, "filters": ["f"]});
        let named = configuration(json!([{"name": "rack", "value": "64512:7"}]));
        plane.apply(&[named.clone(), good.clone(), documents::resource("BGPPeer", "tor", &peer)])?;
        let node = &mut lan.nodes[0];
        node.weft.set_kubeconfig(&plane.kubeconfig_of("weftd", Some(&node.name))?);
        node.weft.start()?;
        wait_until("the peer", CATCH_UP, || node.weft.peer("10.2.0.99".parse()?).map(drop))?;
        wait_errors(node, 0)?;
        plane.apply(&[configuration(json!([]))])?;
        wait_errors(node, 1)?;
        ensure!(errors(node)?[0].contains("no community is named"), "{:?}", errors(node)?);
        plane.apply(&[named])?;
        wait_errors(node, 0)
    })
}

#[test]
#[ignore = "needs KUBEBUILDER_ASSETS: make test runs it where that is set"]
fn shutdown_messages_are_checked() -> Result<()> {
    Lab::test(|lab| {
        let (_lan, plane, _cable) = cluster(lab, 1, Blocks::OfNodes)?;
        let peer = |shutdown: bool, text: &str| {
            let spec =
                json!({"peerIP": "10.2.0.9", "asNumber": 1, "shutdown": shutdown, "shutdownMessage": text});
            documents::resource("BGPPeer", "off", &spec)
        };
        for (bad, message) in [
            (peer(false, "bye"), "it needs shutdown: true"),
            (peer(true, ""), "at least 1 char"),
            (peer(true, &"é".repeat(128)), "255 octets of UTF-8"),
            (peer(true, "until\n14:00"), "one line"),
        ] {
            let refused =
                plane.apply(std::slice::from_ref(&bad)).err().with_context(|| format!("{bad} was taken"))?;
            ensure!(format!("{refused:#}").contains(message), "{message:?} is not said: {refused:#}");
        }
        plane.apply(&[peer(true, &"é".repeat(127))])
    })
}

#[test]
#[ignore = "needs KUBEBUILDER_ASSETS: make test runs it where that is set"]
fn keys_of_tcp_ao_are_checked() -> Result<()> {
    Lab::test(|lab| {
        let (_lan, plane, _cable) = cluster(lab, 1, Blocks::OfNodes)?;
        let reference = json!({"name": "keys", "key": "tor"});
        let keys = |ids: &[(u16, u16)]| {
            let key = |(send, receive): &(u16, u16)| json!({"sendID": send, "receiveID": receive, "secretKeyRef": reference});
            json!({"keys": ids.iter().map(key).collect::<Vec<_>>()})
        };
        let peer = |ids: &[(u16, u16)]| {
            documents::resource(
                "BGPPeer",
                "tor",
                &json!({"peerIP": "10.2.0.9", "asNumber": 1, "tcpAO": keys(ids)}),
            )
        };
        let mesh = |ids: &[(u16, u16)]| {
            documents::bgp_configuration(&json!({"asNumber": 64512, "nodeMeshTCPAO": keys(ids)}))
        };
        let mut both = peer(&[(1, 1)]);
        both["spec"]["password"] = json!({"secretKeyRef": reference});
        for (bad, message) in [
            (peer(&[]), "at least 1 item"),
            (peer(&(0..9).map(|n| (n, n)).collect::<Vec<_>>()), "at most 8 items"),
            (peer(&[(256, 1)]), "less than or equal to 255"),
            (peer(&[(1, 1), (1, 2)]), "its own sendID"),
            (peer(&[(1, 1), (2, 1)]), "its own receiveID"),
            (both, "keep one of tcpAO and password"),
            (mesh(&[(1, 2)]), "are one between nodes"),
        ] {
            let refused =
                plane.apply(std::slice::from_ref(&bad)).err().with_context(|| format!("{bad} was taken"))?;
            ensure!(format!("{refused:#}").contains(message), "{message:?} is not said: {refused:#}");
        }
        plane.apply(&[peer(&[(1, 2), (2, 1)]), mesh(&[(1, 1), (2, 2)])])
    })
}

#[test]
#[ignore = "needs KUBEBUILDER_ASSETS: make test runs it where that is set"]
fn listen_ranges_are_checked() -> Result<()> {
    Lab::test(|lab| {
        let (mut lan, plane, _cable) = cluster(lab, 1, Blocks::OfNodes)?;
        let peer = |spec: Value| documents::resource("BGPPeer", "rack", &spec);
        for (bad, message) in [
            (json!({"listenRange": "10.2.0.0/24"}), "asNumber is missing"),
            (
                json!({"listenRange": "10.2.0.0/24", "asNumber": "external", "passive": false}),
                "nobody is dialled",
            ),
            (json!({"listenRange": "10.2.0.0/24", "asNumber": 1, "peerIP": "10.2.0.9"}), "leave out peerIP"),
            (json!({"peerIP": "10.2.0.9", "asNumber": 1, "listenLimit": 9}), "it belongs to listenRange"),
            (
                json!({"listenRange": "10.2.0.0/24", "asNumber": 1, "listenLimit": 2001}),
                "less than or equal to 2000",
            ),
        ] {
            let bad = peer(bad);
            let refused =
                plane.apply(std::slice::from_ref(&bad)).err().with_context(|| format!("{bad} was taken"))?;
            ensure!(format!("{refused:#}").contains(message), "{message:?} is not said: {refused:#}");
        }
        plane.apply(&[peer(json!({"listenRange": "10.2.0.0/24", "asNumber": "external"}))])?;
        let node = &mut lan.nodes[0];
        node.weft.set_kubeconfig(&plane.kubeconfig_of("weftd", Some(&node.name))?);
        node.weft.start()?;
        wait_until("the range", CATCH_UP, || {
            let ranges = node.weft.status()?["listenRanges"].clone();
            ensure!(ranges[0]["name"] == "rack" && ranges[0]["limit"] == 100, "{ranges}");
            Ok(())
        })?;
        wait_errors(node, 0)
    })
}

#[test]
#[ignore = "needs KUBEBUILDER_ASSETS: make test runs it where that is set"]
fn blocks_are_given_statuses_told_and_blocks_of_gone_nodes_returned() -> Result<()> {
    Lab::test(|lab| {
        let (mut lan, plane, _cable) = cluster(lab, 3, Blocks::OfPools)?;
        for overlay in ["dual-stack", "node-mesh", "route-reflectors", "tor-ebgp", "unnumbered"] {
            plane.try_folder(&Path::new(BASE).with_file_name("overlays").join(overlay))?;
        }
        plane.try_folder(&Path::new(BASE).with_file_name("uninstall"))?;
        let mut controllers = [
            Controller::start(lab, &plane, "controller-1", GARBAGE)?,
            Controller::start(lab, &plane, "controller-2", GARBAGE)?,
        ];
        wait_until("every node to have a block of each family", TAKE_OVER, || {
            let blocks = plane.blocks()?;
            ensure!(blocks.len() == 3 && blocks.values().all(|blocks| blocks.len() == 2), "{blocks:?}");
            Ok(())
        })?;
        ensure!(controllers.iter().filter(|controller| controller.leads()).count() == 1, "one leads");
        let given = plane.blocks()?;
        for node in &mut lan.nodes {
            node.weft.set_kubeconfig(&plane.kubeconfig_of("weftd", Some(&node.name))?);
            node.weft.start()?;
        }
        for node in &mut lan.nodes {
            node.wait_ready_for_pods()?;
            wait_until("the node to have its blocks", CATCH_UP, || {
                let status = node.weft.status()?;
                let told = status["ipam"]["blocks"].as_array().map_or(0, Vec::len);
                ensure!(told == 2, "{status}");
                Ok(())
            })?;
            node.add_pod(lab)?;
        }
        reachable(&lan)?;

        wait_until("the nodes to tell of themselves", CATCH_UP, || {
            for node in &lan.nodes {
                let report = &plane.get(&format!("bgpnodestatuses {}", node.name))?["status"];
                let good = report["ready"] == true && report["sessions"] == json!({"up": 2, "wanted": 2});
                ensure!(good && report["blocks"].as_array().map_or(0, Vec::len) == 2, "{report}");
                for of in ["Accepted", "Programmed"] {
                    ensure!(condition(&json!({ "status": report }), of)["status"] == "True", "{report}");
                }
                let object = plane.get(&format!("node {}", node.name))?;
                let up = &condition(&object, "NetworkUnavailable");
                ensure!(up["status"] == "False" && up["reason"] == "WeftIsUp", "{up}");
                ensure!(
                    object["spec"]["taints"].as_array().is_none_or(|taints| !taints
                        .iter()
                        .any(|t| t["key"] == "weft.network/agent-not-ready")),
                    "{object}"
                );
            }
            Ok(())
        })?;

        // What is another node's is out of a weftd's reach, and so is what is not weftd's to change.
        let own = plane.kubeconfig_of("weftd", Some("n1"))?;
        let foreign = lab.directory("requests")?.join("foreign.json");
        let object = json!({"apiVersion": "weft.network/v1alpha1", "kind": "BGPNodeStatus", "metadata": {"name": "n9"}, "spec": {}});
        std::fs::write(&foreign, object.to_string())?;
        let as_weftd = |line: &str| plane.run_as(&own, line);
        let taint =
            |node: &str| format!("patch node {node} --type merge -p {{\"spec\":{{\"unschedulable\":true}}}}");
        for (line, reason) in [
            (taint("n1"), "and nothing else"),
            (taint("n2"), "its own node only"),
            (
                format!("create --raw /apis/weft.network/v1alpha1/bgpnodestatuses -f {}", foreign.display()),
                "its own node only",
            ),
            ("label node n1 rack=b".to_owned(), "and nothing else"),
            ("patch node n1 --type merge -p {\"metadata\":{\"ownerReferences\":[{\"apiVersion\":\"v1\",\"kind\":\"Node\",\"name\":\"n2\",\"uid\":\"1\"}]}}".to_owned(), "and nothing else"),
            ("delete bgpnodestatus n1".to_owned(), "forbidden"),
        ] {
            let refused =
                format!("{:#}", as_weftd(&line).err().with_context(|| format!("{line} was taken"))?);
            ensure!(refused.contains(reason), "{line}: {refused}");
        }

        // A peer that nobody answers for, and one that makes no sense: each says so itself, and nothing else is disturbed.
        let peer = |name: &str, spec: Value| json!({"apiVersion": "weft.network/v1alpha1", "kind": "BGPPeer", "metadata": {"name": name}, "spec": spec});
        plane.apply(&[
            peer("silent", json!({"peerIP": "10.2.0.99", "asNumber": 65000})),
            peer("bad", json!({"peerIP": "10.2.0.98", "asNumber": 65000, "filters": ["gone"]})),
        ])?;
        wait_until("the objects to tell what became of them", CATCH_UP * 2, || {
            let silent = plane.get("bgppeer silent")?;
            ensure!(condition(&silent, "Accepted")["status"] == "True", "{silent}");
            let programmed = condition(&silent, "Programmed");
            ensure!(programmed["status"] == "False" && programmed["reason"] == "SessionsDown", "{silent}");
            ensure!(silent["status"]["sessions"] == json!({"up": 0, "wanted": 3}), "{silent}");
            let bad = condition(&plane.get("bgppeer bad")?, "Accepted");
            let told = bad["message"].as_str().unwrap_or_default();
            ensure!(bad["status"] == "False" && told.contains("there is no BGPFilter gone"), "{bad}");
            for pool in &plane.list("ippools")? {
                ensure!(condition(pool, "Programmed")["status"] == "True", "{pool}");
                ensure!(pool["status"]["blocks"] == 3 && pool["status"]["addressesUsed"] == 3, "{pool}");
            }
            Ok(())
        })?;
        let table = plane.run("get bgppeers")?;
        ensure!(table.contains("UP") && table.contains("WANTED"), "{table}");
        reachable(&lan)?;

        // The one that leads dies, and a node goes: the other takes over, and gives its blocks to who comes next.
        let leader = controllers.iter_mut().find(|controller| controller.leads()).context("one leads")?;
        leader.kill9()?;
        lan.nodes[2].weft.kill9()?;
        plane.run("delete node n3")?;
        wait_until("the blocks of the Node that is gone to come back", TAKE_OVER, || {
            let blocks = plane.blocks()?;
            ensure!(!blocks.contains_key("n3") && blocks.len() == 2, "{blocks:?}");
            Ok(())
        })?;
        wait_until("its BGPNodeStatus to go", CATCH_UP, || {
            let left = plane.run("get bgpnodestatuses -o name")?;
            ensure!(!left.contains("/n3"), "{left}");
            Ok(())
        })?;
        plane.add_node(&documents::node("n4", &[], &[], &["10.2.0.77".parse()?]))?;
        wait_until("a new node to get the first free blocks", CATCH_UP, || {
            let blocks = plane.blocks()?;
            ensure!(blocks.get("n4") == given.get("n3"), "{blocks:?} after {given:?}");
            Ok(())
        })?;
        reachable(&lan)
    })
}

fn reachable(lan: &Lan) -> Result<()> {
    let (near, far) = (&lan.nodes[0], &lan.nodes[1]);
    for address in &far.pods[0].addresses {
        wait_until(format!("{address} to answer"), CATCH_UP, || ping(&near.pods[0].namespace, *address))?;
    }
    Ok(())
}
