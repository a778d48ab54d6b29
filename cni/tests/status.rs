//! STATUS in real network namespaces, through the built plugin. Needs root and nft. No weftd runs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failing helper fails its test"
)]

mod common;

use std::net::IpAddr;
use std::process::Command;

use common::{Host, Namespace, addresses};
use serde_json::{Value, json};
use weft_cni::node::boot_id;
use weft_routing::netlink::delete_link;
use weft_routing::route::{Protocol, Route, RouteKey};
use weft_routing::sync::POD_METRIC;
use weft_routing::{nft, sysctl};

/// A node that takes pods: with the guard.
fn host() -> Host {
    let host = Host::new("10.244.1.0/31", "fd00:10:244:1::/127");
    guard(&host);
    host
}

fn guard(host: &Host) {
    host.namespace.run(nft::apply_guard).unwrap();
}

fn status(host: &Host) -> Result<Value, Value> {
    let mut config = host.config();
    config["cniVersion"] = json!("1.1.0");
    host.call("STATUS", "", "", &config)
}

fn set(host: &Host, key: &str, value: &str) {
    host.namespace.run(|| sysctl::write(key, value)).unwrap();
}

#[track_caller]
fn assert_unavailable(host: &Host, reason: &str) {
    let error = status(host).unwrap_err();
    assert_eq!(error["code"], 50, "{error}");
    assert_eq!(error["msg"], format!("pods cannot be added: {reason}"));
}

#[test]
fn a_node_is_ready_while_weftd_is_away_and_when_it_is_full() {
    let host = host();
    assert_eq!(status(&host).unwrap(), Value::Null, "a success says nothing");
    let pods = [Namespace::new(), Namespace::new(), Namespace::new()];
    host.add("c0", &pods[0]).unwrap();
    host.add("c1", &pods[1]).unwrap();
    assert_eq!(host.add("c2", &pods[2]).unwrap_err()["code"], 11);
    status(&host).unwrap();
}

#[test]
fn without_a_node_file_of_this_boot_it_is_not() {
    let host = host();
    let path = host.dir.path().join("run/node.json");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let error = status(&host).unwrap_err();
    assert_eq!(error["code"], 50, "{error}");
    assert!(error["msg"].as_str().unwrap().contains("node.json does not exist"), "{error}");
    std::fs::write(&path, text.replace(&boot_id().unwrap(), "another-boot")).unwrap();
    let error = status(&host).unwrap_err();
    assert_eq!(error["code"], 50, "{error}");
    assert!(error["msg"].as_str().unwrap().contains("earlier boot"), "{error}");
    std::fs::write(&path, text).unwrap();
    status(&host).unwrap();
}

#[test]
fn without_the_guard_it_is_not() {
    let host = host();
    let delete = || Command::new("nft").args(["delete", "table", "inet", "weft"]).status().unwrap();
    assert!(host.namespace.run(delete).success());
    assert_unavailable(&host, "nftables has no table inet weft with its rules");
    // A table of the same name in another family is no guard.
    let other = || Command::new("nft").args(["add", "table", "ip", "weft"]).status().unwrap();
    assert!(host.namespace.run(other).success());
    assert_unavailable(&host, "nftables has no table inet weft with its rules");
    guard(&host);
    status(&host).unwrap();
}

#[test]
fn without_forwarding_it_is_not() {
    let host = host();
    set(&host, "net/ipv4/ip_forward", "0");
    assert_unavailable(&host, "net/ipv4/ip_forward is 0, not 1");
    set(&host, "net/ipv6/conf/all/forwarding", "0");
    assert_unavailable(&host, "net/ipv4/ip_forward is 0, not 1; net/ipv6/conf/all/forwarding is 0, not 1");
    set(&host, "net/ipv4/ip_forward", "1");
    assert_unavailable(&host, "net/ipv6/conf/all/forwarding is 0, not 1");
    // A node that gives no IPv6 to its pods need not forward it.
    let mut node = Host::node_file("10.244.1.0/31", "fd00::/127");
    node.ipv6 = None;
    host.write_node_file(&node);
    status(&host).unwrap();
}

#[test]
fn pods_that_are_cut_off_too_make_it_worse() {
    let (host, pod) = (host(), Namespace::new());
    let pods_addresses = addresses(&host.add("c1", &pod).unwrap());
    let mut socket = host.namespace.socket();
    let routes = socket.routes_of(Protocol::WEFT_PODS).unwrap();
    let delete =
        |address: IpAddr| Route::delete(RouteKey::new(address.into(), POD_METRIC), Protocol::WEFT_PODS);
    for address in pods_addresses {
        socket.execute(&delete(address)).unwrap();
        // ADD would succeed, and weftd puts the route back.
        status(&host).unwrap();
        set(&host, "net/ipv4/ip_forward", "0");
        let error = status(&host).unwrap_err();
        assert_eq!(error["code"], 51, "{error}");
        assert_eq!(error["msg"], "pods cannot be added: net/ipv4/ip_forward is 0, not 1");
        assert_eq!(
            error["details"],
            "the host lacks a route to an address of interface eth0 of container c1 in network weft"
        );
        for route in routes.iter().filter(|route| route.key.destination().contains(&address)) {
            socket.execute(&route.replace()).unwrap();
        }
        assert_unavailable(&host, "net/ipv4/ip_forward is 0, not 1");
        set(&host, "net/ipv4/ip_forward", "1");
    }
    // A pod whose link is gone is no pod that could be cut off.
    set(&host, "net/ipv4/ip_forward", "0");
    let name = host.namespace.links().remove(0).parse().unwrap();
    let link = socket.link_by_name(&name).unwrap().unwrap();
    socket.execute(&delete_link(link.index)).unwrap();
    assert_unavailable(&host, "net/ipv4/ip_forward is 0, not 1");
}
