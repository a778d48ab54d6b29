//! Services of a real API server. Ignored unless asked for, as it needs Kubernetes' own programs: `make test` runs it where
//! `KUBEBUILDER_ASSETS` names the folder with `etcd`, `kube-apiserver` and `kubectl`.

#![allow(clippy::indexing_slicing, reason = "a panic fails the test, which is what it is for")]

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use weft_integration::daemon::Family;
use weft_integration::documents;
use weft_integration::kubernetes::ControlPlane;
use weft_integration::lab::Lab;
use weft_integration::lan::{Lan, LanSpec};
use weft_integration::node::Node;
use weft_integration::wait::wait_until;

/// How soon a node has caught up with its API server.
const CATCH_UP: Duration = Duration::from_secs(10);

/// One node and its API server.
fn cluster(lab: &Lab) -> Result<(Lan, ControlPlane)> {
    let lan = Lan::build(lab, LanSpec { nodes: vec![1], families: vec![Family::V4], pods_per_node: 0 })?;
    let (plane, _) = ControlPlane::beside(lab, &lan)?;
    plane.apply(&[documents::bgp_configuration(&json!({"asNumber": 64512}))])?;
    for node in &lan.nodes {
        plane.add_node(&documents::node(&node.name, &[], &node.blocks, &node.addresses))?;
    }
    Ok((lan, plane))
}

/// The reason of each prefix of Services'.
fn reasons(node: &Node) -> Result<BTreeMap<String, String>> {
    let services: Vec<Value> = node.weft.json("services")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(services.iter().map(|prefix| (text(&prefix["prefix"]), text(&prefix["reason"]["code"]))).collect())
}

fn wait_reason(node: &Node, prefix: &str, wanted: &str) -> Result<()> {
    wait_until(format!("{prefix} to be {wanted}"), CATCH_UP, || {
        let reasons = reasons(node)?;
        ensure!(reasons.get(prefix).map(String::as_str) == Some(wanted), "{reasons:?}");
        Ok(())
    })
}

/// A taint of the Node's drains it until it is taken off, and its BGPNodeStatus tells.
fn drains_by_a_taint(plane: &ControlPlane, node: &Node) -> Result<()> {
    let name = &node.name;
    plane.run(&format!("label node {name} node.kubernetes.io/exclude-from-external-load-balancers-"))?;
    wait_reason(node, "10.96.0.0/16", "range")?;
    plane.run("patch bgpconfiguration default --type=merge --patch={\"spec\":{\"drainTime\":\"0s\"}}")?;
    let told = |wanted: &str| {
        wait_until(format!("the BGPNodeStatus to say {wanted:?}"), CATCH_UP, || {
            let told = plane.run(&format!("get bgpnodestatus {name} -o jsonpath={{.status.drain}}"))?;
            ensure!(told == wanted, "{told}");
            Ok(())
        })
    };
    plane.run(&format!("cordon {name}"))?;
    plane.run(&format!("taint node {name} weft.network/drain=:NoSchedule"))?;
    wait_reason(node, "10.96.0.0/16", "node-draining")?;
    told("drained")?;
    plane.run(&format!("taint node {name} weft.network/drain-"))?;
    wait_reason(node, "10.96.0.0/16", "range")?;
    told("")
}

#[test]
#[ignore = "needs KUBEBUILDER_ASSETS: make test runs it where that is set"]
fn services_of_the_api_are_announced_under_the_account_of_weftd() -> Result<()> {
    Lab::test(|lab| {
        let (mut lan, plane) = cluster(lab)?;
        let node = &mut lan.nodes[0];
        let account = plane.kubeconfig_of("weftd", Some(&node.name))?;
        node.weft.set_kubeconfig(&account);
        node.weft.start()?;
        node.wait_ready_for_pods()?;
        ensure!(reasons(node)?.is_empty(), "{:?}", reasons(node)?);

        plane.apply(&[documents::bgp_configuration(&json!({
            "asNumber": 64512,
            "serviceClusterIPs": [{"cidr": "10.96.0.0/16"}],
            "serviceLoadBalancerIPs": [{"cidr": "203.0.113.0/24"}],
        }))])?;
        wait_reason(node, "10.96.0.0/16", "range")?;
        // The API server's own.
        wait_reason(node, "10.96.0.1/32", "covered")?;

        let spec = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "ports": [{"port": 80}]});
        plane.apply(&[
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec}),
        ])?;
        let ingress = json!({"status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.9"}]}}});
        plane.run(&format!("patch service web --subresource=status --type=merge --patch={ingress}"))?;
        wait_reason(node, "203.0.113.9/32", "no-endpoint")?;
        let slice = |endpoints: Value| {
            json!({
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
                "addressType": "IPv4",
                "endpoints": endpoints,
                "ports": [{"port": 80}],
            })
        };
        let endpoint = |conditions: Value| json!([{"addresses": ["10.244.1.5"], "nodeName": node.name, "conditions": conditions}]);
        plane.apply(&[slice(endpoint(json!({"ready": true, "serving": true, "terminating": false})))])?;
        wait_reason(node, "203.0.113.9/32", "local-endpoint")?;
        plane.apply(&[slice(json!([]))])?;
        wait_reason(node, "203.0.113.9/32", "no-endpoint")?;
        let terminating = json!({"ready": false, "serving": true, "terminating": true});
        plane.apply(&[slice(endpoint(terminating))])?;
        wait_reason(node, "203.0.113.9/32", "local-endpoint")?;

        plane.run(&format!(
            "label node {} node.kubernetes.io/exclude-from-external-load-balancers=",
            node.name
        ))?;
        wait_reason(node, "203.0.113.9/32", "node-excluded")?;
        wait_reason(node, "10.96.0.0/16", "node-excluded")?;

        drains_by_a_taint(&plane, node)?;

        // The server refuses what the schema can tell, and weftd tells of the rest.
        let too_many: Vec<Value> = (0..65).map(|n| json!({"cidr": format!("10.97.{n}.0/24")})).collect();
        let refused = plane
            .apply(&[documents::bgp_configuration(&json!({"serviceClusterIPs": too_many}))])
            .unwrap_err();
        ensure!(format!("{refused:#}").contains("64"), "{refused:#}");
        let errors = node.weft.status()?["config"]["errors"].clone();
        ensure!(errors == json!([]), "{errors}");
        Ok(())
    })
}
