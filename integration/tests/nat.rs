//! Which source pods' packets carry: their own inside the cluster, their node's outside where the pool says so.

#![allow(clippy::indexing_slicing, reason = "a panic fails the test, which is what it is for")]

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use weft_integration::daemon::Family;
use weft_integration::documents;
use weft_integration::fabric::wait_reachable;
use weft_integration::lab::Lab;
use weft_integration::lan::{Lan, LanSpec};
use weft_integration::link::{End, Link};
use weft_integration::netns::Namespace;
use weft_integration::probe;

/// A machine on the nodes' subnet that is not of the cluster.
struct Outside {
    namespace: Namespace,
    /// Keeps the cable plugged in.
    _link: Link,
}

/// An address of the outside, per family.
fn plain(family: Family) -> Result<IpAddr> {
    Ok(match family {
        Family::V4 => "10.2.0.200".parse()?,
        Family::V6 => "fd00:10:2::200".parse()?,
    })
}

/// An address of the outside that `natOutgoingExclude` lists, per family.
fn excluded(family: Family) -> Result<IpAddr> {
    Ok(match family {
        Family::V4 => "10.2.0.201".parse()?,
        Family::V6 => "fd00:10:2::201".parse()?,
    })
}

/// Two nodes, each with a pool of its own per family; only the pods of n1 are translated.
fn lan(lab: &Lab) -> Result<(Lan, Outside)> {
    let spec = LanSpec { nodes: vec![2], families: Family::BOTH.to_vec(), pods_per_node: 1 };
    let mut lan = Lan::build(lab, spec)?;
    let pool = |name: &str, cidr: &str, nat: bool| {
        documents::resource("IPPool", name, &json!({"cidr": cidr, "natOutgoing": nat}))
    };
    let pools = [
        pool("translated-ipv4", "10.244.1.0/24", true),
        pool("translated-ipv6", "fd00:10:244:1::/64", true),
        pool("plain-ipv4", "10.244.2.0/24", false),
        pool("plain-ipv6", "fd00:10:244:2::/64", false),
    ];
    let exclude: Vec<String> = Family::BOTH
        .iter()
        .map(|family| Ok(ipnet::IpNet::from(excluded(*family)?).to_string()))
        .collect::<Result<_>>()?;
    let bgp = documents::bgp_configuration(&json!({"asNumber": 64512, "natOutgoingExclude": exclude}));
    for node in &lan.nodes {
        documents::write(&node.weft.manifests(), "pools.yaml", &pools)?;
        documents::write(&node.weft.manifests(), "bgp.yaml", std::slice::from_ref(&bgp))?;
    }
    let namespace = lab.machine("outside")?;
    let link = lan.switches[0].plug(End::new(&namespace, "eth0"))?;
    let addresses: Vec<ipnet::IpNet> =
        ["10.2.0.200/24", "10.2.0.201/24", "fd00:10:2::200/64", "fd00:10:2::201/64"]
            .iter()
            .map(|address| Ok(address.parse()?))
            .collect::<Result<_>>()?;
    link.near.add_addresses(&addresses)?;
    for node in &mut lan.nodes {
        // The way back to pods that speak under their own address.
        for (address, block) in node.addresses.iter().zip(&node.blocks) {
            namespace.ip(&format!("route add {block} via {address}"))?;
        }
        node.weft.start()?;
        node.wait_ready_for_pods()?;
        node.add_pod(lab)?;
    }
    wait_reachable(&lan.nodes, Duration::from_secs(20))?;
    Ok((lan, Outside { namespace, _link: link }))
}

/// Checks what `to` sees as the source of TCP and UDP from a pod.
fn ensure_seen(from: &Namespace, to: &Namespace, server: IpAddr, source: IpAddr) -> Result<()> {
    for seen in [probe::tcp(from, to, server)?, probe::udp(from, to, server, 100)?] {
        ensure!(seen == source, "{} at {server} saw {seen}, not {source}", to.label());
    }
    Ok(())
}

#[test]
fn pods_speak_to_the_outside_as_their_node_where_the_pool_says_so() -> Result<()> {
    Lab::test(|lab| {
        let (lan, outside) = lan(lab)?;
        let (translated, plain_node) = (&lan.nodes[0], &lan.nodes[1]);
        for family in Family::BOTH {
            let pod = &translated.pods[0];
            let (node, own) = (translated.address(family)?, pod.address(family)?);
            ensure_seen(&pod.namespace, &outside.namespace, plain(family)?, node)?;
            ensure_seen(&pod.namespace, &outside.namespace, excluded(family)?, own)?;
            let other = &plain_node.pods[0];
            ensure_seen(&other.namespace, &outside.namespace, plain(family)?, other.address(family)?)?;
        }
        Ok(())
    })
}

#[test]
fn pods_and_nodes_see_the_pods_own_address() -> Result<()> {
    Lab::test(|lab| {
        let (lan, _outside) = lan(lab)?;
        let (here, there) = (&lan.nodes[0], &lan.nodes[1]);
        for family in Family::BOTH {
            let own = here.pods[0].address(family)?;
            let pod = &here.pods[0].namespace;
            ensure_seen(pod, &there.pods[0].namespace, there.pods[0].address(family)?, own)?;
            ensure_seen(pod, &there.namespace, there.address(family)?, own)?;
            ensure_seen(pod, &here.namespace, here.address(family)?, own)?;
            let back = there.pods[0].address(family)?;
            ensure_seen(&there.pods[0].namespace, pod, own, back)?;
        }
        Ok(())
    })
}

#[test]
fn a_probe_from_the_host_works_under_a_strict_reverse_path_filter() -> Result<()> {
    Lab::test(|lab| {
        let (lan, _outside) = lan(lab)?;
        let node = &lan.nodes[0];
        let pod = &node.pods[0];
        let strict = node.namespace.sysctl(&format!("net/ipv4/conf/{}/rp_filter", pod.host_interface()?))?;
        ensure!(strict == "1", "rp_filter of the pod's link is {strict}");
        for family in Family::BOTH {
            // As the kubelet does it: from the host, to the pod's own address.
            let seen = probe::tcp(&node.namespace, &pod.namespace, pod.address(family)?)?;
            ensure!(seen == node.address(family)?, "the pod saw {seen}");
        }
        Ok(())
    })
}
