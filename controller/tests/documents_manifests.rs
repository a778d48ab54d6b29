//! What is committed under `manifests/` is good, and up to date.

#![allow(clippy::expect_used, reason = "a test fails by panic, in its helpers too")]

use std::path::{Path, PathBuf};

use weft_controller::{api, documents, plan};

fn manifests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests")
}

#[test]
fn the_crds_are_those_of_the_types() {
    let committed =
        std::fs::read_to_string(manifests().join("base/crds.yaml")).expect("manifests/base/crds.yaml");
    assert!(
        committed == api::crds().expect("the CRDs as YAML"),
        "manifests/base/crds.yaml is out of date: run `make crds`"
    );
}

/// What Kubernetes refuses in a structural schema (apiextensions.k8s.io/v1).
#[test]
fn the_crds_have_nothing_that_kubernetes_refuses() {
    let crds = api::crds().expect("the CRDs as YAML");
    for forbidden in ["uniqueItems: true", "$ref", "definitions:", "additionalProperties: false"] {
        assert!(!crds.contains(forbidden), "{forbidden}");
    }
    assert_eq!(crds.matches("kind: CustomResourceDefinition").count(), 8);
}

#[test]
fn the_examples_are_good_and_every_node_in_them_has_sessions() {
    for (example, sessions) in [("mesh", 2), ("tor-ebgp", 1)] {
        let cluster = documents::load(&manifests().join("examples").join(example)).expect(example);
        assert!(cluster.nodes.len() > 1, "{example}");
        for (name, node) in &cluster.nodes {
            let addresses =
                node.addresses.iter().map(|a| ipnet::IpNet::new(*a, 24).expect("a length")).collect();
            let eth0 = plan::InterfaceFacts { addresses, mtu: 1500, ..Default::default() };
            let host = plan::HostFacts { interfaces: [("eth0".into(), eth0)].into(), ..Default::default() };
            let plan = plan::plan(&cluster, name, &host).expect("a plan");
            assert_eq!(plan.speaker.peers.len(), sessions, "{example} {name}");
            assert_eq!(plan.diagnostics, [], "{example} {name}");
        }
    }
}

#[test]
fn the_overlays_networks_are_good() {
    let mut pools = 0;
    for overlay in ["dual-stack", "node-mesh", "route-reflectors", "tor-ebgp", "unnumbered"] {
        let file = manifests().join("overlays").join(overlay).join("network.yaml");
        pools += documents::load(&file).expect(overlay).pools.len();
    }
    assert_eq!(pools, 7);
}
