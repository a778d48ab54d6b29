//! Pools, addresses and reserved ranges: what ADD gives to whom. In real network namespaces, as root.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failing helper fails its test"
)]

mod common;

use std::net::IpAddr;

use common::{Host, Namespace, addresses, one_datagram_each_way, outcome};
use ipnet::{IpNet, Ipv4Net};
use serde_json::{Value, json};
use weft_cni::node::{BlockFile, NodeFile, PoolFile};

const ANNOTATIONS: &str = "io.kubernetes.cri.pod-annotations";

/// Pool `common` of both families for all; `team` for the namespace `red`; `manual` for who asks; a closed block.
fn node_file() -> NodeFile {
    let mut node = Host::node_file("10.244.1.0/26", "fd00:10:244:1::/122");
    let pool = |namespaces: Option<&str>, automatic| PoolFile {
        namespaces: namespaces.map(|namespace| [namespace.to_owned()].into()),
        automatic,
    };
    node.pools = [
        ("common".to_owned(), pool(None, true)),
        ("team".to_owned(), pool(Some("red"), true)),
        ("manual".to_owned(), pool(None, false)),
    ]
    .into();
    node.ipv6.as_mut().unwrap().blocks[0].pool = Some("common".into());
    let ipv4 = node.ipv4.as_mut().unwrap();
    ipv4.blocks[0].pool = Some("common".into());
    for (cidr, pool, open) in [
        ("10.244.2.0/26", "team", true),
        ("10.244.3.0/26", "manual", true),
        ("10.244.4.0/26", "common", false),
    ] {
        ipv4.blocks.push(BlockFile {
            cidr: cidr.parse::<Ipv4Net>().unwrap(),
            pool: Some(pool.into()),
            open,
            announced: false,
            cooldown_seconds: 3600,
        });
    }
    node.reserved = vec!["10.244.1.0/28".parse().unwrap()];
    node
}

fn host() -> Host {
    let host = Host::new("10.244.1.0/26", "fd00:10:244:1::/122");
    host.write_node_file(&node_file());
    host
}

fn add(host: &Host, container: &str, pod: &Namespace, keys: &Value, args: &str) -> Result<Value, Value> {
    let mut config = host.config();
    config.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    outcome(host.spawn_with_args("ADD", container, pod.path.to_str().unwrap(), &config, args))
}

fn within(result: &Value, blocks: &[&str]) {
    let addresses = addresses(result);
    let blocks: Vec<IpNet> = blocks.iter().map(|block| block.parse().unwrap()).collect();
    assert_eq!(addresses.len(), blocks.len(), "{addresses:?}");
    assert!(addresses.iter().zip(&blocks).all(|(address, block)| block.contains(address)), "{addresses:?}");
}

fn assert_error(error: &Value, code: u32, expected: &str) {
    assert_eq!(error["code"], code, "{error}");
    assert!(error["msg"].as_str().unwrap().contains(expected), "{expected}: {error}");
}

#[test]
fn a_pod_gets_addresses_of_the_pools_it_asked_for_or_of_its_namespaces() {
    let host = host();
    let annotation = |text: &str| json!({"runtimeConfig": {ANNOTATIONS: {"weft.network/pools": text}}});
    let red = "IgnoreUnknown=1;K8S_POD_NAMESPACE=red;K8S_POD_NAME=web";
    let blue = "IgnoreUnknown=1;K8S_POD_NAMESPACE=blue;K8S_POD_NAME=web";
    let mut both = annotation(r#"["manual"]"#);
    both["pools"] = json!(["team"]);
    let (common, common_v6) = ("10.244.1.0/26", "fd00:10:244:1::/122");
    for (keys, args, blocks) in [
        (json!({}), "", vec![common, common_v6]),
        (json!({}), blue, vec![common, common_v6]),
        (json!({}), red, vec!["10.244.2.0/26"]),
        (json!({"pools": ["manual"]}), red, vec!["10.244.3.0/26"]),
        (annotation(r#"["manual", "common"]"#), red, vec!["10.244.3.0/26", common_v6]),
        (both, "", vec!["10.244.3.0/26"]),
    ] {
        let pod = Namespace::new();
        let result = add(&host, "c1", &pod, &keys, args).unwrap();
        within(&result, &blocks);
        for address in addresses(&result) {
            one_datagram_each_way(&host.namespace, &pod, address);
        }
        host.check("c1", &pod, &result).unwrap();
        host.del("c1").unwrap();
    }
    let pod = Namespace::new();
    let error = add(&host, "c1", &pod, &json!({"pools": ["common", "none"]}), "").unwrap_err();
    assert_error(
        &error,
        7,
        "pools: \"none\" is no pool that this node has a block of; it has: common, manual, team",
    );
    let error = add(&host, "c1", &pod, &annotation("manual"), "").unwrap_err();
    assert_error(&error, 7, "pod annotation weft.network/pools: \"manual\" is no JSON list");
    host.assert_empty();
}

#[test]
fn a_block_that_was_closed_keeps_its_pods_and_takes_no_new_ones() {
    let (host, pod, other) = (host(), Namespace::new(), Namespace::new());
    let manual = json!({"pools": ["manual"]});
    let result = add(&host, "c1", &pod, &manual, "").unwrap();
    let mut node = node_file();
    node.ipv4
        .as_mut()
        .unwrap()
        .blocks
        .iter_mut()
        .for_each(|block| block.open &= block.pool.as_deref() != Some("manual"));
    host.write_node_file(&node);
    host.check("c1", &pod, &result).unwrap();
    one_datagram_each_way(&host.namespace, &pod, addresses(&result)[0]);
    let error = add(&host, "c2", &other, &manual, "").unwrap_err();
    assert_error(&error, 11, "pools: this node has no open block of manual");
    host.del("c1").unwrap();
    host.assert_empty();
}

#[test]
fn an_address_is_given_to_who_asks_for_it_in_any_way() {
    let host = host();
    let wanted: [IpAddr; 2] = ["10.244.1.5".parse().unwrap(), "fd00:10:244:1::5".parse().unwrap()];
    let texts = json!(["10.244.1.5/26", "fd00:10:244:1::5"]);
    let mac = "0a:58:0a:00:00:05";
    for (keys, args) in [
        (json!({"runtimeConfig": {"ips": texts, "mac": mac}}), ""),
        (json!({"args": {"cni": {"ips": texts, "mac": mac}}}), ""),
        (json!({}), "IP=fd00:10:244:1::5,10.244.1.5;MAC=0a:58:0a:00:00:05"),
        (
            json!({"runtimeConfig": {ANNOTATIONS: {"weft.network/ips": texts.to_string()}, "mac": mac}}),
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=red;K8S_POD_NAME=web",
        ),
    ] {
        let pod = Namespace::new();
        let result = add(&host, "c1", &pod, &keys, args).unwrap();
        assert_eq!(addresses(&result), wanted, "reserved ones are for who asks");
        assert_eq!(result["interfaces"][1]["mac"], mac);
        for address in wanted {
            one_datagram_each_way(&host.namespace, &pod, address);
        }
        host.check("c1", &pod, &result).unwrap();
        // It rests for an hour now, but not for who asks for it.
        host.del("c1").unwrap();
    }
    host.assert_empty();
}

#[test]
fn one_address_asked_for_leaves_the_other_family_to_the_pools() {
    let (host, one, two) = (host(), Namespace::new(), Namespace::new());
    let ips = |ip: &str| json!({"runtimeConfig": {"ips": [ip]}});
    let result = add(&host, "c1", &one, &ips("10.244.3.9"), "").unwrap();
    within(&result, &["10.244.3.9/32", "fd00:10:244:1::/122"]);
    let red = "IgnoreUnknown=1;K8S_POD_NAMESPACE=red;K8S_POD_NAME=web";
    let result = add(&host, "c2", &two, &ips("fd00:10:244:1::30"), red).unwrap();
    within(&result, &["10.244.2.0/26", "fd00:10:244:1::30/128"]);
}

#[test]
fn an_address_that_cannot_be_had_is_named_and_nothing_is_left() {
    let (host, holder, pod) = (host(), Namespace::new(), Namespace::new());
    let mut node = node_file();
    node.ipv4.as_mut().unwrap().node_address = Some("10.244.1.20".parse().unwrap());
    host.write_node_file(&node);
    host.namespace
        .socket()
        .execute(
            &weft_routing::netlink::Address {
                link: 1,
                address: "10.244.1.20/32".parse().unwrap(),
                scope: weft_routing::netlink::Scope::Global,
                tentative: false,
            }
            .add(),
        )
        .unwrap();
    let ips = |ip: &str| json!({"runtimeConfig": {"ips": [ip]}});
    add(&host, "holder", &holder, &ips("10.244.1.9"), "").unwrap();
    let before = (host.entries(), host.namespace.links());
    for (ip, code, expected) in [
        ("10.244.1.9", 11, "10.244.1.9"),
        ("10.244.1.20", 7, "runtimeConfig.ips: 10.244.1.20 is the node's own address"),
        ("10.244.4.9", 7, "runtimeConfig.ips: 10.244.4.9: its block 10.244.4.0/26 is closed"),
        (
            "10.9.9.9",
            7,
            "runtimeConfig.ips: 10.9.9.9 is in no block of this node; its open IPv4 blocks: 10.244.1.0/26, ",
        ),
        (
            "fd99::9",
            7,
            "runtimeConfig.ips: fd99::9 is in no block of this node; its open IPv6 blocks: fd00:10:244:1::/122",
        ),
        ("10.9.9", 7, "runtimeConfig.ips: \"10.9.9\" is no IP address"),
    ] {
        let error = add(&host, "c1", &pod, &ips(ip), "").unwrap_err();
        assert_error(&error, code, expected);
        assert_eq!((host.entries(), host.namespace.links()), before, "{ip}");
    }
    let error = add(&host, "c1", &pod, &json!({"runtimeConfig": {"ips": ["10.244.1.8", "10.244.1.8"]}}), "");
    assert_error(&error.unwrap_err(), 7, "runtimeConfig.ips: 10.244.1.8 is named twice");
    let error = add(&host, "c1", &pod, &ips("10.244.1.8"), "IP=10.244.1.7").unwrap_err();
    assert_error(&error, 7, "runtimeConfig.ips: 10.244.1.8 contradicts CNI_ARGS IP: 10.244.1.7");
    node.ipv6 = None;
    host.write_node_file(&node);
    let error = add(&host, "c1", &pod, &ips("fd00:10:244:1::9"), "").unwrap_err();
    assert_error(&error, 7, "runtimeConfig.ips: fd00:10:244:1::9: this node has no IPv6 block");
    assert_eq!((host.entries(), host.namespace.links()), before);
    assert_eq!(pod.links(), [] as [String; 0]);
    // Free again, it is had.
    host.del("holder").unwrap();
    add(&host, "c1", &pod, &ips("10.244.1.9"), "").unwrap();
}

#[test]
fn a_reserved_address_is_given_to_nobody_who_does_not_ask() {
    let host = host();
    let mut node = node_file();
    node.ipv4.as_mut().unwrap().blocks[0].cidr = "10.244.1.0/30".parse().unwrap();
    node.reserved = vec!["10.244.1.0/31".parse().unwrap(), "10.244.1.3/32".parse().unwrap()];
    host.write_node_file(&node);
    let (one, two) = (Namespace::new(), Namespace::new());
    let result = add(&host, "c1", &one, &json!({}), "").unwrap();
    assert_eq!(addresses(&result)[0].to_string(), "10.244.1.2");
    let error = add(&host, "c2", &two, &json!({}), "").unwrap_err();
    assert_error(&error, 11, "no IPv4 address is free");
    let result = add(&host, "c2", &two, &json!({"runtimeConfig": {"ips": ["10.244.1.3"]}}), "").unwrap();
    assert_eq!(addresses(&result)[0].to_string(), "10.244.1.3");
}

#[test]
fn a_released_address_rests_before_another_pod_gets_it() {
    let host = host();
    let mut node = node_file();
    let cooldown = |node: &mut NodeFile, seconds| {
        let block = &mut node.ipv4.as_mut().unwrap().blocks[0];
        (block.cidr, block.cooldown_seconds) = ("10.244.1.0/31".parse().unwrap(), seconds);
        host.write_node_file(node);
    };
    node.reserved.clear();
    cooldown(&mut node, 3600);
    let pods = [Namespace::new(), Namespace::new(), Namespace::new()];
    let first = addresses(&add(&host, "c1", &pods[0], &json!({}), "").unwrap());
    add(&host, "c2", &pods[1], &json!({}), "").unwrap();
    host.del("c1").unwrap();
    let error = add(&host, "c3", &pods[2], &json!({}), "").unwrap_err();
    assert_error(&error, 11, "no IPv4 address is free: 10.244.1.0/31 (1 of 2 addresses taken");
    assert_error(&error, 11, "the next one rests for ");
    assert_eq!(host.entries().len(), 1, "nothing of the other family is taken");
    cooldown(&mut node, 0);
    assert_eq!(addresses(&add(&host, "c3", &pods[2], &json!({}), "").unwrap())[0], first[0]);
}

#[test]
fn what_a_pod_without_a_namespace_still_has_does_not_bind_its_next_add() {
    let (host, one, two) = (host(), Namespace::new(), Namespace::new());
    let ips = |ip: &str| json!({"runtimeConfig": {"ips": [ip]}});
    add(&host, "c1", &one, &ips("10.244.1.9"), "").unwrap();
    // The link goes with the namespace; the entry stays.
    drop(one);
    host.await_no_link();
    let result = add(&host, "c1", &two, &ips("10.244.1.10"), "").unwrap();
    assert_eq!(addresses(&result)[0].to_string(), "10.244.1.10");
    assert_eq!(host.entries().len(), 1);
    assert_eq!(host.entries()[0].addresses, addresses(&result));
}
