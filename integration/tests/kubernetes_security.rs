//! Passwords of sessions out of Secrets of a real API server. Ignored unless asked for, as it needs Kubernetes' own programs: `make test` runs
//! it where `KUBEBUILDER_ASSETS` names the folder with `etcd`, `kube-apiserver` and `kubectl`.

#![allow(clippy::indexing_slicing, reason = "a panic fails the test, which is what it is for")]

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
use weft_integration::wait::{stays, wait_until};

const PATIENCE: Duration = Duration::from_secs(40);
const SILENCE: Duration = Duration::from_secs(4);
const BASE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests/base");

fn secret(password: &str) -> Value {
    let mut secret = documents::secret("mesh", &[("password", password)]);
    secret["metadata"]["namespace"] = json!("weft-system");
    secret
}

/// That weftd may read no Secrets, or those of these names.
fn role(names: &[&str]) -> Value {
    let rule = json!({"apiGroups": [""], "resources": ["secrets"], "verbs": ["list", "watch"], "resourceNames": names});
    let rules = if names.is_empty() { json!([]) } else { json!([rule]) };
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
        "metadata": {"name": "weftd", "namespace": "weft-system"}, "rules": rules})
}

fn are(lan: &Lan, up: bool) -> Result<()> {
    for (one, other) in [(0, 1), (1, 0)] {
        let peer = lan.nodes[one].weft.peer(lan.nodes[other].addresses[0])?;
        ensure!((peer.state == "Established") == up, "{peer:?}");
    }
    Ok(())
}

fn tells(lan: &Lan, words: &str) -> Result<()> {
    for node in &lan.nodes {
        let status = node.weft.status()?.to_string();
        ensure!(status.contains(words), "{status}");
    }
    Ok(())
}

#[test]
#[ignore = "needs KUBEBUILDER_ASSETS: make test runs it where that is set"]
fn tcp_md5_passwords_are_read_by_name_with_narrow_rights_and_changed_while_sessions_run() -> Result<()> {
    Lab::test(|lab| {
        let families = Family::BOTH.to_vec();
        let mut lan = Lan::build(lab, LanSpec { nodes: vec![2], families, pods_per_node: 1 })?;
        let machine = lab.machine("control-plane")?;
        let cable = lan.switches[0].plug(End::new(&machine, "eth0"))?;
        cable.near.add_addresses(&["10.2.0.200/24".parse()?])?;
        machine.ip("route add default dev eth0")?;
        let plane = ControlPlane::start(lab, &machine, "10.2.0.200".parse()?)?;
        plane.apply_folder(Path::new(BASE))?;
        plane.run("delete role weftd --namespace weft-system")?;
        plane.apply(&[role(&[])])?;
        let reference = json!({"secretKeyRef": {"name": "mesh", "key": "password"}});
        plane.apply(&[documents::bgp_configuration(
            &json!({"asNumber": 64512, "nodeMeshPassword": reference}),
        )])?;
        plane.apply(&Family::BOTH.map(documents::pod_pool))?;
        plane.apply(&[secret("hunter-one")])?;
        for node in &lan.nodes {
            plane.add_node(&documents::node(&node.name, &[], &node.blocks, &node.addresses))?;
        }
        for node in &mut lan.nodes {
            node.weft.set_kubeconfig(&plane.kubeconfig_of("weftd", Some(&node.name))?);
            node.weft.start()?;
        }
        wait_until("the missing right to be told", PATIENCE, || {
            tells(&lan, "does not let weftd list and watch the Secret mesh")
        })?;
        tells(&lan, "no-password")?;
        stays("the sessions down", SILENCE, || are(&lan, false))?;

        plane.apply(&[role(&["mesh"])])?;
        wait_until("the sessions, as the Secret may be read by its name", PATIENCE, || are(&lan, true))?;

        plane.apply(&[secret("hunter-two")])?;
        let signed = || -> Result<()> {
            // Both have begun anew.
            for node in &lan.nodes {
                let (_, metrics) = node.weft.http("/metrics")?;
                let flapped =
                    metrics.lines().any(|l| l.starts_with("weft_bgp_session_flaps") && l.ends_with(" 1"));
                ensure!(flapped, "{} has kept its session", node.name);
            }
            are(&lan, true)
        };
        wait_until("the sessions with another password", PATIENCE, signed)?;

        plane.run("delete secret mesh --namespace weft-system")?;
        wait_until("the missing Secret to be told", PATIENCE, || {
            tells(&lan, "there is no Secret mesh that weftd may read")
        })?;
        stays("the sessions down", SILENCE, || are(&lan, false))?;
        plane.apply(&[secret("hunter-three")])?;
        wait_until("the sessions, as the Secret is back", PATIENCE, || are(&lan, true))?;
        for node in &lan.nodes {
            let log = std::fs::read_to_string(node.weft.log())?;
            ensure!(!log.contains("hunter-"), "a password is in the log of {}", node.name);
        }
        Ok(())
    })
}
