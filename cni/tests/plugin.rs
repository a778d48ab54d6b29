//! The built plugin in real network namespaces. Needs root; nothing in the initial namespace changes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failing helper fails its test"
)]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use common::{HOST_V4, HOST_V6, Host, Namespace, addresses, one_datagram_each_way, outcome};
use serde_json::{Value, json};
use weft_cni::ipam::State;
use weft_routing::netlink::delete_link;
use weft_routing::route::{Action, NextHop, Protocol, Route, RouteKey};
use weft_routing::sync::POD_METRIC;
use weft_routing::sysctl;

fn host() -> Host {
    Host::new("10.244.1.0/26", "fd00:10:244:1::/122")
}

fn node_address(like: IpAddr) -> IpAddr {
    if like.is_ipv4() { HOST_V4.parse().unwrap() } else { HOST_V6.parse().unwrap() }
}

#[test]
fn host_and_pod_reach_each_other_and_del_takes_all_away() {
    let (host, pod) = (host(), Namespace::new());
    let result = host.add("c1", &pod).unwrap();
    let pod_addresses = addresses(&result);
    assert_eq!(pod_addresses.len(), 2);
    for address in pod_addresses {
        let seen = one_datagram_each_way(&host.namespace, &pod, address);
        assert_eq!(seen, node_address(address), "the host's preferred source");
        assert_eq!(one_datagram_each_way(&pod, &host.namespace, node_address(address)), address);
    }
    let entries = host.entries();
    assert_eq!(entries.len(), 1);
    assert!(matches!(entries[0].state, State::Committed(_)));
    assert_eq!(entries[0].addresses, addresses(&result));
    assert_eq!(host.namespace.links(), [entries[0].host_link.clone()]);

    host.del("c1").unwrap();
    host.assert_empty();
    assert_eq!(pod.links(), [] as [String; 0]);
    host.del("c1").unwrap();
    host.assert_empty();
}

#[test]
fn pods_reach_each_other_under_their_own_addresses_with_the_first_datagram() {
    let (host, one, two) = (host(), Namespace::new(), Namespace::new());
    let first = addresses(&host.add("c1", &one).unwrap());
    let second = addresses(&host.add("c2", &two).unwrap());
    for (a, b) in first.into_iter().zip(second) {
        assert_eq!(one_datagram_each_way(&one, &two, b), a, "no NAT");
        assert_eq!(one_datagram_each_way(&two, &one, a), b, "no NAT");
    }
    // Nothing was asked for: what ARP or NDP learns is not permanent.
    for namespace in [&host.namespace, &one, &two] {
        let learned =
            namespace.run(|| std::process::Command::new("ip").args(["neigh", "show"]).output().unwrap());
        let learned = String::from_utf8(learned.stdout).unwrap();
        assert!(!learned.is_empty() && learned.lines().all(|line| line.contains("PERMANENT")), "{learned}");
    }
}

#[test]
fn the_pod_has_localhost_and_a_quiet_interface() {
    let (host, pod) = (host(), Namespace::new());
    host.add("c1", &pod).unwrap();
    for localhost in ["127.0.0.1", "::1"] {
        let localhost: IpAddr = localhost.parse().unwrap();
        assert_eq!(one_datagram_each_way(&pod, &pod, localhost), localhost);
    }
    let mut socket = pod.socket();
    let eth0 = socket.link_by_name(&"eth0".parse().unwrap()).unwrap().unwrap();
    assert_eq!(eth0.mtu, 1450);
    let tentative = |address: &weft_routing::netlink::Address| {
        address.tentative && !address.ip().to_string().starts_with("fe80")
    };
    assert!(!socket.addresses().unwrap().iter().any(tentative));
    assert_eq!(pod.run(|| sysctl::read("net/ipv6/conf/eth0/accept_ra").unwrap()), "0");

    let name = host.namespace.links().remove(0);
    let link = host.namespace.socket().link_by_name(&name.parse().unwrap()).unwrap().unwrap();
    assert_eq!(link.mac, Some([0xee; 6]));
    let on_host: Vec<String> = host
        .namespace
        .socket()
        .addresses()
        .unwrap()
        .iter()
        .filter(|address| address.link == link.index)
        .map(|address| address.address.to_string())
        .collect();
    assert_eq!(on_host, ["fe80::1/64"], "no other address on the host's end");
    for (key, value) in [
        ("ipv4/conf/{}/rp_filter", "1"),
        ("ipv4/conf/{}/send_redirects", "0"),
        ("ipv4/conf/{}/proxy_arp", "0"),
        ("ipv4/conf/{}/forwarding", "1"),
        ("ipv6/conf/{}/accept_ra", "0"),
    ] {
        let key = format!("net/{}", key.replace("{}", &name));
        assert_eq!(host.namespace.run(|| sysctl::read(&key).unwrap()), value, "{key}");
    }
}

#[test]
fn a_pod_whose_runtime_took_ipv6_away_gets_it_back() {
    let (host, pod) = (host(), Namespace::new());
    pod.run(|| {
        for scope in ["all", "default"] {
            sysctl::write(&format!("net/ipv6/conf/{scope}/disable_ipv6"), "1").unwrap();
        }
    });
    let address = addresses(&host.add("c1", &pod).unwrap())[1];
    one_datagram_each_way(&host.namespace, &pod, address);
    pod.run(|| UdpSocket::bind("[::1]:0")).unwrap();
}

#[test]
fn a_missing_namespace_leaves_nothing() {
    let host = host();
    let error = host.call("ADD", "c1", "/run/netns/weft-no-such", &host.config()).unwrap_err();
    assert_eq!(error["code"], 4, "{error}");
    assert!(error["msg"].as_str().unwrap().contains("CNI_NETNS: /run/netns/weft-no-such"), "{error}");
    host.assert_empty();
    let own = host.namespace.path.to_str().unwrap();
    let error = host.call("ADD", "c1", own, &host.config()).unwrap_err();
    assert!(error["msg"].as_str().unwrap().contains("host's own"), "{error}");
    let no_namespace = host.dir.path().join("run/node.json");
    let error = host.call("ADD", "c1", no_namespace.to_str().unwrap(), &host.config()).unwrap_err();
    assert!(error["msg"].as_str().is_some(), "{error}");
    host.assert_empty();
}

#[test]
fn add_waits_for_weftd_and_del_does_not() {
    let (host, pod) = (host(), Namespace::new());
    host.add("c1", &pod).unwrap();
    let node_file = host.dir.path().join("run/node.json");
    let text = std::fs::read_to_string(&node_file).unwrap();

    std::fs::remove_file(&node_file).unwrap();
    let second = Namespace::new();
    let error = host.add("c2", &second).unwrap_err();
    assert_eq!(error["code"], 11, "{error}");
    assert!(error["msg"].as_str().unwrap().contains("node.json does not exist"), "{error}");
    for (from, to, expected) in [
        ("\"schemaVersion\": 2", "\"schemaVersion\": 1", "schemaVersion is 1"),
        (weft_cni::node::boot_id().unwrap().as_str(), "another-boot", "earlier boot"),
    ] {
        std::fs::write(&node_file, text.replace(from, to)).unwrap();
        let error = host.add("c2", &second).unwrap_err();
        assert_eq!(error["code"], 11, "{error}");
        assert!(error["msg"].as_str().unwrap().contains(expected), "{error}");
    }
    assert_eq!(second.links(), [] as [String; 0]);
    assert_eq!(host.entries().len(), 1);
    host.del("c1").unwrap();
    host.assert_empty();
}

#[test]
fn a_full_block_says_so_and_serves_again_after_a_del() {
    let host = Host::new("10.244.1.0/31", "fd00::/122");
    let pods = [Namespace::new(), Namespace::new(), Namespace::new()];
    let first = addresses(&host.add("c0", &pods[0]).unwrap());
    let second = addresses(&host.add("c1", &pods[1]).unwrap());
    assert_eq!((first[0].to_string(), second[0].to_string()), ("10.244.1.0".into(), "10.244.1.1".into()));
    let error = host.add("c2", &pods[2]).unwrap_err();
    assert_eq!(
        error,
        json!({
            "cniVersion": "1.0.0",
            "code": 11,
            "msg": "no IPv4 address is free: 10.244.1.0/31 (2 of 2 addresses taken)",
            "details": "delete pods, or give the node another block"
        })
    );
    assert_eq!(pods[2].links(), [] as [String; 0]);
    assert_eq!(host.entries().len(), 2);
    host.del("c0").unwrap();
    assert_eq!(addresses(&host.add("c2", &pods[2]).unwrap())[0], first[0]);
}

#[test]
fn a_failed_step_undoes_the_others() {
    let (host, pod) = (host(), Namespace::new());
    // The node's address left the node: the kernel refuses it as a source.
    let mut node = Host::node_file("10.244.1.0/26", "fd00::/122");
    node.ipv6.as_mut().unwrap().node_address = Some("2001:db8::99".parse().unwrap());
    host.write_node_file(&node);
    let error = host.add("c1", &pod).unwrap_err();
    assert_eq!(error["code"], 100, "{error}");
    assert!(error["msg"].as_str().unwrap().contains("with source 2001:db8::99"), "{error}");
    host.assert_empty();
    assert_eq!(pod.links(), [] as [String; 0]);
}

#[test]
fn an_address_that_is_routed_elsewhere_is_not_taken() {
    let (host, pod) = (Host::new("10.244.1.4/32", "fd00::/122"), Namespace::new());
    let foreign = Route {
        key: RouteKey::new("10.244.1.4/32".parse().unwrap(), POD_METRIC),
        protocol: Protocol::STATIC,
        action: Action::Forward(NextHop::on_link(1).into()),
        preferred_source: None,
    };
    host.namespace.socket().execute(&foreign.add()).unwrap();
    let error = host.add("c1", &pod).unwrap_err();
    assert!(error["msg"].as_str().unwrap().contains("add route 10.244.1.4/32"), "{error}");
    host.assert_empty();
    assert_eq!(host.namespace.socket().routes_of(Protocol::STATIC).unwrap(), [foreign]);
}

#[test]
fn an_interface_of_the_pods_is_left_alone() {
    let (host, pod) = (host(), Namespace::new());
    host.add("c1", &pod).unwrap();
    let before = host.namespace.links();
    // Another container id for the same namespace: eth0 is there.
    let error = host.add("c2", &pod).unwrap_err();
    assert!(error["msg"].as_str().unwrap().contains("has an interface eth0 already"), "{error}");
    assert_eq!(host.namespace.links(), before);
    assert_eq!(host.entries().len(), 1);
    assert_eq!(pod.links(), ["eth0"]);
}

#[test]
fn concurrent_adds_never_share_an_address() {
    const PODS: usize = 12;
    let host = host();
    let pods: Vec<Namespace> = (0..PODS).map(|_| Namespace::new()).collect();
    let start = |(index, pod): (usize, &Namespace)| {
        host.spawn("ADD", &format!("c{index}"), pod.path.to_str().unwrap(), &host.config())
    };
    let children: Vec<_> = pods.iter().enumerate().map(start).collect();
    let given: Vec<IpAddr> =
        children.into_iter().flat_map(|child| addresses(&outcome(child).unwrap())).collect();
    let distinct: BTreeSet<_> = given.iter().collect();
    assert_eq!((given.len(), distinct.len()), (2 * PODS, 2 * PODS));
    assert_eq!(host.namespace.links().len(), PODS);
    let children: Vec<_> =
        (0..PODS).map(|i| host.spawn("DEL", &format!("c{i}"), "", &host.config())).collect();
    for child in children {
        outcome(child).unwrap();
    }
    host.assert_empty();
}

#[test]
fn a_delete_does_not_wait_for_what_goes_with_the_namespace_and_the_address_can_be_had_at_once() {
    let host = host();
    for round in 0..5 {
        let (pod, next) = (Namespace::new(), Namespace::new());
        let first = host.add("c1", &pod).unwrap();
        let asked: Vec<String> = addresses(&first).iter().map(ToString::to_string).collect();
        drop(pod);
        host.del("c1").unwrap();
        assert!(host.entries().is_empty(), "round {round}");
        let mut same = host.config();
        same["args"] = json!({ "cni": { "ips": asked } });
        let second = host.call("ADD", "c2", next.path.to_str().unwrap(), &same).unwrap();
        assert_eq!(addresses(&second), addresses(&first), "round {round}");
        for address in addresses(&second) {
            one_datagram_each_way(&host.namespace, &next, address);
        }
        host.del("c2").unwrap();
        let gone = || host.namespace.links().is_empty();
        let in_time = (0..10_000).any(|_| {
            gone() || {
                std::thread::sleep(Duration::from_millis(1));
                false
            }
        });
        assert!(in_time, "the kernel has not taken the link away for 10 s");
    }
    host.assert_empty();
}

#[test]
fn a_delete_takes_no_link_of_another_network() {
    let (host, pod) = (host(), Namespace::new());
    let result = host.add("c1", &pod).unwrap();
    let mut other = host.config();
    other["name"] = json!("other");
    let error = host.call("ADD", "c1", pod.path.to_str().unwrap(), &other).unwrap_err();
    assert!(error["msg"].as_str().unwrap().contains("the link name"), "{error}");
    host.call("DEL", "c1", pod.path.to_str().unwrap(), &other).unwrap();
    host.check("c1", &pod, &result).unwrap();
    host.del("c1").unwrap();
    host.assert_empty();
}

#[test]
fn adds_that_fail_use_up_no_address() {
    let (host, pod, next) = (Host::new("10.244.1.0/30", "fd00::/126"), Namespace::new(), Namespace::new());
    host.add("c1", &pod).unwrap();
    for attempt in 0..8 {
        // The pod has an eth0.
        let error = host.add(&format!("c2-{attempt}"), &pod).unwrap_err();
        assert_eq!(error["code"], 100, "{error}");
    }
    host.add("c3", &next).unwrap();
    for container in ["c1", "c3"] {
        host.del(container).unwrap();
    }
    host.assert_empty();
}

#[test]
fn with_a_damaged_store_a_pod_can_end_and_none_begins() {
    let (host, pod, next) = (host(), Namespace::new(), Namespace::new());
    host.add("c1", &pod).unwrap();
    let journal = host.dir.path().join("state/addresses.journal");
    let good = fs::read(&journal).unwrap();
    let mut bad = good.clone();
    let last = bad.len() - 2;
    bad[last] ^= 1;
    fs::write(&journal, &bad).unwrap();
    assert_eq!(host.add("c2", &next).unwrap_err()["code"], 103);
    let error = host.del("c1").unwrap_err();
    assert_eq!(error["code"], 103, "{error}");
    assert!(host.namespace.links().is_empty() && pod.links().is_empty(), "{error}");
    // The format before.
    fs::write(&journal, "0123456789abcdef {\"header\":{\"format\":1,\"bootId\":\"x\",\"last\":[]}}\n")
        .unwrap();
    let error = host.add("c2", &next).unwrap_err();
    assert!(error["msg"].as_str().unwrap().contains("format 1, this release reads 2"), "{error}");
    fs::write(&journal, &good).unwrap();
    host.del("c1").unwrap();
    host.assert_empty();
}

#[test]
fn a_second_add_is_refused_until_the_link_is_gone() {
    let (host, pod) = (host(), Namespace::new());
    let first = host.add("c1", &pod).unwrap();
    let error = host.add("c1", &pod).unwrap_err();
    assert_eq!(error["code"], 101, "{error}");
    host.check("c1", &pod, &first).unwrap();

    // The namespace goes without a DEL, and the link with it.
    let gone = host.namespace.links().remove(0).parse().unwrap();
    let link = host.namespace.socket().link_by_name(&gone).unwrap().unwrap();
    host.namespace.socket().execute(&delete_link(link.index)).unwrap();
    let again = Namespace::new();
    let second = host.add("c1", &again).unwrap();
    assert_eq!(addresses(&second), addresses(&first));
    host.check("c1", &again, &second).unwrap();
}

#[test]
fn an_add_killed_anywhere_is_made_good_by_the_next_command() {
    let host = host();
    for microseconds in (0..6000).step_by(300) {
        let pod = Namespace::new();
        let mut child = host.spawn("ADD", "c1", pod.path.to_str().unwrap(), &host.config());
        std::thread::sleep(Duration::from_micros(microseconds));
        child.kill().unwrap();
        child.wait().unwrap();
        if microseconds % 600 == 0 {
            // A kill that came too late left a pod.
            let result = host.add("c1", &pod).or_else(|error| {
                assert_eq!(error["code"], 101, "after {microseconds} us: {error}");
                host.del("c1").unwrap();
                host.add("c1", &pod)
            });
            host.check("c1", &pod, &result.unwrap()).unwrap();
        }
        host.del("c1").unwrap();
        host.assert_empty();
    }
}

#[test]
fn every_version_gets_its_own_shape() {
    let host = host();
    for (version, ip_version) in
        [("0.3.1", json!("4")), ("0.4.0", json!("4")), ("1.0.0", Value::Null), ("1.1.0", Value::Null)]
    {
        let pod = Namespace::new();
        let mut config = host.config();
        config["cniVersion"] = json!(version);
        let netns = pod.path.to_str().unwrap();
        let result = host.call("ADD", "c1", netns, &config).unwrap();
        assert_eq!(result["cniVersion"], version);
        assert_eq!(result["ips"][0]["version"], ip_version, "{version}");
        assert_eq!(result["ips"][0]["interface"], 1);
        assert_eq!(result["ips"][0]["gateway"], "169.254.1.1");
        assert_eq!(result["interfaces"][1]["name"], "eth0");
        let mtu = if version == "1.1.0" { json!(1450) } else { Value::Null };
        assert_eq!(result["interfaces"][1]["mtu"], mtu, "{version}");
        assert_eq!(result["interfaces"][1]["sandbox"], netns);
        assert_eq!(result["interfaces"][0]["name"], json!(host.namespace.links()[0]));
        config["prevResult"] = result;
        let check = host.call("CHECK", "c1", netns, &config);
        if version == "0.3.1" {
            assert_eq!(check.unwrap_err()["code"], 1, "0.3.1 has no CHECK");
        } else {
            check.unwrap();
        }
        host.call("DEL", "c1", netns, &config).unwrap();
        host.assert_empty();
    }
}

#[test]
fn what_is_not_spoken_is_refused_with_its_code() {
    let (host, pod) = (host(), Namespace::new());
    let mut config = host.config();
    config["cniVersion"] = json!("1.2.0");
    let error = host.call("ADD", "c1", pod.path.to_str().unwrap(), &config).unwrap_err();
    assert_eq!((error["code"].clone(), error["cniVersion"].clone()), (json!(1), json!("1.1.0")), "{error}");
    for command in ["GC", "STATUS"] {
        let error = host.call(command, "", "", &host.config()).unwrap_err();
        assert_eq!(error["code"], 1, "1.0.0 has no {command}: {error}");
        assert_eq!(error["cniVersion"], "1.0.0");
    }
    let error = host.call("UPDATE", "c1", "", &host.config()).unwrap_err();
    assert_eq!(error["code"], 4, "{error}");
    let error = host.call("ADD", "../c1", pod.path.to_str().unwrap(), &host.config()).unwrap_err();
    assert_eq!(error["code"], 4, "{error}");
    let mut small = host.config();
    small["mtu"] = json!(1000);
    let error = host.call("ADD", "c1", pod.path.to_str().unwrap(), &small).unwrap_err();
    assert!(error["msg"].as_str().unwrap().contains("1280"), "{error}");
    host.assert_empty();

    // Who speaks another version asks for the list in order to find one that both speak.
    for (asked, answered) in [("0.4.0", "0.4.0"), ("1.1.0", "1.1.0"), ("0.2.0", "1.1.0"), ("9.0.0", "1.1.0")]
    {
        let version = host.call("VERSION", "", "", &json!({"cniVersion": asked})).unwrap();
        let supported = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"];
        assert_eq!(version, json!({"cniVersion": answered, "supportedVersions": supported}));
    }
}
