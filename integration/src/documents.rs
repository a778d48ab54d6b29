//! The documents that an admin would write for `weftd --manifests DIR`.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context as _, Result};
use ipnet::IpNet;
use serde_json::{Value, json};

use crate::daemon::Family;

/// A Node of Kubernetes: its labels, its blocks as `podCIDRs`, its addresses as `InternalIP`s.
#[must_use]
pub fn node(name: &str, labels: &[(&str, &str)], blocks: &[IpNet], addresses: &[IpAddr]) -> Value {
    let mut all: serde_json::Map<String, Value> =
        labels.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
    all.insert("kubernetes.io/hostname".to_owned(), json!(name));
    let addresses: Vec<Value> =
        addresses.iter().map(|address| json!({"type": "InternalIP", "address": address})).collect();
    let mut spec = json!({});
    if let Some(first) = blocks.first() {
        spec = json!({"podCIDR": first, "podCIDRs": blocks});
    }
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": all},
        "spec": spec,
        "status": {"addresses": addresses},
    })
}

/// A resource of group `weft.network`.
#[must_use]
pub fn resource(kind: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "weft.network/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

/// The BGPConfiguration of the cluster.
#[must_use]
pub fn bgp_configuration(spec: &Value) -> Value {
    resource("BGPConfiguration", "default", spec)
}

/// A BGPPeer of one node only.
#[must_use]
pub fn bgp_peer(name: &str, node: &str, mut spec: Value) -> Value {
    spec["nodeSelector"] = json!(format!("kubernetes.io/hostname == \"{node}\""));
    resource("BGPPeer", name, &spec)
}

/// A Secret of these keys and values.
#[must_use]
pub fn secret(name: &str, values: &[(&str, &str)]) -> Value {
    let values: serde_json::Map<String, Value> =
        values.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": values})
}

/// The IPPool that all pods of the lab are in. Its addresses do not rest: the lab's pods come and go faster.
#[must_use]
pub fn pod_pool(family: Family) -> Value {
    let (name, cidr, block_size) = match family {
        Family::V4 => ("pods-ipv4", "10.244.0.0/16", 26),
        Family::V6 => ("pods-ipv6", "fd00:10:244::/48", 122),
    };
    resource("IPPool", name, &json!({"cidr": cidr, "blockSize": block_size, "cooldown": "0s"}))
}

/// A BGPFilter that makes a router of a weftd: it accepts the lab's pods and node addresses, and passes on what it learned and `own`.
#[must_use]
pub fn transit_filter(name: &str, own: &[IpNet]) -> Value {
    let accept = |cidr: &str| json!({"cidr": cidr, "matchOperator": "In", "action": "Accept"});
    let export = |family: Family| {
        let mut rules = vec![json!({"source": "RemotePeers", "action": "Accept"})];
        let own = own.iter().filter(|prefix| Family::of(prefix.addr()) == family);
        rules.extend(own.map(|prefix| json!({"cidr": prefix, "matchOperator": "Equal", "action": "Accept"})));
        rules
    };
    let spec = json!({
        "importV4": [accept("10.244.0.0/16"), accept("10.0.0.0/16")],
        "importV6": [accept("fd00:10:244::/48"), accept("fd00:10::/64")],
        "exportV4": export(Family::V4),
        "exportV6": export(Family::V6),
    });
    resource("BGPFilter", name, &spec)
}

/// Writes documents to one file of a folder, at once: a reader sees the old file or the new.
///
/// # Errors
/// If the folder is not there or cannot be written.
pub fn write(folder: &Path, file: &str, documents: &[Value]) -> Result<()> {
    let texts: Vec<String> = documents.iter().map(serde_yaml::to_string).collect::<Result<_, _>>()?;
    write_text(folder, file, &texts.join("---\n"))
}

/// Writes text to one file of a folder, at once.
///
/// # Errors
/// If the folder is not there or cannot be written.
pub fn write_text(folder: &Path, file: &str, text: &str) -> Result<()> {
    let temporary = folder.join(format!(".{file}.new"));
    fs::write(&temporary, text)
        .and_then(|()| fs::rename(&temporary, folder.join(file)))
        .with_context(|| format!("cannot write {file} to {}", folder.display()))
}
