//! What the specification asks of every plugin, under every failure that can be brought about. Needs root.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failing helper fails its test"
)]

mod common;

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use common::{Host, Namespace, outcome};
use serde_json::{Value, json};
use weft_routing::netlink::Address;
use weft_routing::route::{Action, NextHop, Protocol, Route, RouteKey};
use weft_routing::sync::POD_METRIC;

const V4: &str = "10.244.1.0/26";
const V6: &str = "fd00:10:244:1::/122";

/// Everything that an ADD could leave: links, addresses, routes and neighbours on both sides, and files.
#[derive(Debug, PartialEq)]
struct Traces {
    host: NamespaceTraces,
    pod: NamespaceTraces,
    files: Vec<String>,
    entries: usize,
}

#[derive(Debug, PartialEq)]
struct NamespaceTraces {
    links: Vec<String>,
    addresses: Vec<Address>,
    routes: Vec<Route>,
    neighbours: usize,
}

impl NamespaceTraces {
    fn of(namespace: &Namespace) -> Self {
        let mut socket = namespace.socket();
        let on_loopback = |address: &Address| address.address.addr().is_loopback();
        let mut addresses = socket.addresses().unwrap();
        // They come and go with loopback itself, which stays up in a pod.
        addresses.retain(|address| !on_loopback(address));
        // Duplicate address detection of a link-local address takes its time.
        addresses.iter_mut().for_each(|address| address.tentative = false);
        Self {
            links: namespace.links(),
            addresses,
            routes: socket.routes().unwrap(),
            neighbours: socket.neighbours().unwrap().len(),
        }
    }
}

impl Traces {
    fn of(host: &Host, pod: &Namespace) -> Self {
        let mut files: Vec<String> = fs::read_dir(host.dir.path().join("state"))
            .unwrap()
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        Self {
            host: NamespaceTraces::of(&host.namespace),
            pod: NamespaceTraces::of(pod),
            files,
            entries: host.entries().len(),
        }
    }
}

/// A host whose store is made, so that its files are no trace.
fn host(block_v4: &str, block_v6: &str) -> Host {
    let host = Host::new(block_v4, block_v6);
    assert_eq!(host.entries(), []);
    host
}

/// An ADD that must fail leaves what was there before, and DEL, with and without the namespace, succeeds.
fn fails_without_a_trace(host: &Host, pod: &Namespace, netns: &str, config: &Value, expected: &str) {
    let before = Traces::of(host, pod);
    let error = host.call("ADD", "failing", netns, config).unwrap_err();
    let told = format!("{}; {}", error["msg"], error["details"]);
    assert!(told.contains(expected), "{expected:?} is not told: {error}");
    assert!(!told.contains("could not be undone"), "{error}");
    assert_eq!(Traces::of(host, pod), before, "{error}");
    for netns in [netns, ""] {
        host.call("DEL", "failing", netns, &host.config()).unwrap();
        assert_eq!(Traces::of(host, pod), before, "DEL after {error}");
    }
}

fn path(namespace: &Namespace) -> &str {
    namespace.path.to_str().unwrap()
}

#[test]
fn a_request_that_is_refused_leaves_nothing() {
    let (host, pod) = (host(V4, V6), Namespace::new());
    let with = |key: &str, value: Value| {
        let mut config = host.config();
        config[key] = value;
        config
    };
    let cases = [
        (with("prevResult", json!({"cniVersion": "1.0.0", "interfaces": 7})), "prevResult"),
        (with("prevResult", json!("none")), "prevResult"),
        (with("mtu", json!(1279)), "mtu"),
        (with("pools", json!(["none"])), "none"),
        (with("runDir", json!("/nonexistent")), "node.json"),
        (with("runtimeConfig", json!({"ips": ["10.9.9.9/32"]})), "10.9.9.9"),
        (with("cniVersion", json!("9.9.9")), "9.9.9"),
    ];
    for (config, expected) in cases {
        fails_without_a_trace(&host, &pod, path(&pod), &config, expected);
    }
    for netns in ["/nonexistent", path(&host.namespace)] {
        fails_without_a_trace(&host, &pod, netns, &host.config(), "CNI_NETNS");
    }
}

#[test]
fn a_full_block_of_either_family_leaves_nothing_of_the_other() {
    for (v4, v6, expected) in [("10.244.1.0/32", V6, "IPv4"), (V4, "fd00:10:244:1::/128", "IPv6")] {
        let (host, first, pod) = (host(v4, v6), Namespace::new(), Namespace::new());
        host.add("first", &first).unwrap();
        fails_without_a_trace(&host, &pod, path(&pod), &host.config(), expected);
        host.del("first").unwrap();
        host.add("failing", &pod).unwrap();
    }
}

#[test]
fn a_store_that_cannot_be_written_leaves_nothing_in_the_kernel() {
    let (host, pod) = (host(V4, V6), Namespace::new());
    let before = Traces::of(&host, &pod);
    let not_a_directory = host.dir.path().join("run/node.json");
    let damaged = host.dir.path().join("damaged");
    fs::create_dir(&damaged).unwrap();
    fs::write(damaged.join("addresses.journal"), "nonsense\n").unwrap();
    let directory = host.dir.path().join("directory");
    fs::create_dir_all(directory.join("addresses.journal")).unwrap();
    for state_dir in [not_a_directory, damaged, directory] {
        let mut config = host.config();
        config["stateDir"] = json!(state_dir);
        let error = host.call("ADD", "failing", path(&pod), &config).unwrap_err();
        assert!(error["msg"].as_str().unwrap().contains(state_dir.to_str().unwrap()), "{error}");
        assert_eq!(Traces::of(&host, &pod), before, "{error}");
    }
}

/// Each request to the kernel that something can be in the way of.
#[test]
fn what_the_kernel_refuses_leaves_nothing() {
    for (destination, metric) in [("10.244.1.0/32", POD_METRIC), ("fd00:10:244:1::/128", POD_METRIC)] {
        let (host, pod) = (host("10.244.1.0/32", "fd00:10:244:1::/128"), Namespace::new());
        let route = Route {
            key: RouteKey::new(destination.parse().unwrap(), metric),
            protocol: Protocol::STATIC,
            action: Action::Forward(NextHop::on_link(1).into()),
            preferred_source: None,
        };
        host.namespace.socket().execute(&route.add()).unwrap();
        fails_without_a_trace(&host, &pod, path(&pod), &host.config(), destination);
    }
    for (family, gone) in [("ipv4", "192.0.2.99"), ("ipv6", "2001:db8::99")] {
        let (host, pod) = (host(V4, V6), Namespace::new());
        let mut node = Host::node_file(V4, V6);
        match family {
            "ipv4" => node.ipv4.as_mut().unwrap().node_address = Some(gone.parse().unwrap()),
            _ => node.ipv6.as_mut().unwrap().node_address = Some(gone.parse().unwrap()),
        }
        host.write_node_file(&node);
        fails_without_a_trace(&host, &pod, path(&pod), &host.config(), gone);
    }
}

#[test]
fn what_is_in_the_way_in_the_pod_leaves_its_network_as_it_is() {
    let (host, pod) = (host(V4, V6), Namespace::new());
    let result = host.add("first", &pod).unwrap();
    // The name of the interface.
    fails_without_a_trace(&host, &pod, path(&pod), &host.config(), "eth0");
    // Under another name, the default routes.
    let before = Traces::of(&host, &pod);
    let child = limited(&host, "eth1", path(&pod), 1024);
    let error = outcome(child).unwrap_err();
    assert!(error["msg"].as_str().unwrap().contains("add route 0.0.0.0/0"), "{error}");
    assert_eq!(Traces::of(&host, &pod), before, "{error}");
    host.check("first", &pod, &result).unwrap();
}

/// A process that may not open another file fails at a different step for every limit.
#[test]
fn whichever_file_or_socket_cannot_be_opened_nothing_is_left() {
    // The program loader needs one beside the standard three.
    const LEAST: u32 = 4;
    const ENOUGH: u32 = 32;
    let (host, pod) = (host(V4, V6), Namespace::new());
    let before = Traces::of(&host, &pod);
    let mut told = Vec::new();
    for limit in LEAST..ENOUGH {
        match outcome(limited(&host, "eth0", path(&pod), limit)) {
            Ok(_) => break,
            Err(error) => told.push(error.to_string()),
        }
        assert_eq!(Traces::of(&host, &pod), before, "{}", told.last().unwrap());
        assert!(!told.last().unwrap().contains("could not be undone"), "{told:?}");
        assert!(limit < ENOUGH - 1, "{told:?}");
    }
    assert_eq!(host.namespace.links().len(), 1, "the last one succeeded");
    told.dedup();
    assert!(told.len() >= 4, "the failures were of different steps: {told:#?}");
    host.del("failing").unwrap();
}

/// Starts an ADD that may have `files` open at a time.
fn limited(host: &Host, ifname: &str, netns: &str, files: u32) -> std::process::Child {
    let mut plugin = Command::new("sh");
    plugin
        .args(["-c", "ulimit -n \"$1\" && exec \"$0\"", env!("CARGO_BIN_EXE_weft-cni"), &files.to_string()])
        .env("CNI_COMMAND", "ADD")
        .env("CNI_CONTAINERID", "failing")
        .env("CNI_NETNS", netns)
        .env("CNI_IFNAME", ifname)
        .env("CNI_PATH", "/opt/cni/bin")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = host.namespace.run(|| plugin.spawn()).unwrap();
    // One that cannot even start does not read.
    let _ = child.stdin.take().unwrap().write_all(host.config().to_string().as_bytes());
    child
}

#[test]
fn del_succeeds_twice_without_a_namespace_and_for_what_never_was() {
    let host = host(V4, V6);
    for netns_stays in [true, false] {
        let pod = Namespace::new();
        let result = host.add("c1", &pod).unwrap();
        let netns = path(&pod).to_owned();
        let pod = netns_stays.then_some(pod);
        let mut config = host.config();
        config["prevResult"] = result;
        for netns in [netns.as_str(), netns.as_str(), "", "/nonexistent"] {
            assert_eq!(host.call("DEL", "c1", netns, &config).unwrap(), Value::Null);
        }
        drop(pod);
        host.assert_empty();
    }
    assert_eq!(host.del("never").unwrap(), Value::Null);
}

#[test]
fn gc_with_an_empty_list_frees_all_that_a_network_has() {
    let host = host(V4, V6);
    let pods: Vec<Namespace> = (0..3).map(|_| Namespace::new()).collect();
    for (number, pod) in pods.iter().enumerate() {
        host.add(&format!("c{number}"), pod).unwrap();
    }
    let mut config = host.config();
    config["cniVersion"] = json!("1.1.0");
    config["cni.dev/valid-attachments"] = json!([]);
    assert_eq!(host.call("GC", "", "", &config).unwrap(), Value::Null);
    host.assert_empty();
    assert!(pods.iter().all(|pod| pod.links().is_empty()));
    for (number, pod) in pods.iter().enumerate() {
        host.add(&format!("c{number}"), pod).unwrap();
    }
}

#[test]
fn keys_that_nobody_here_knows_survive_a_chain() {
    let (host, pod) = (host(V4, V6), Namespace::new());
    let mut config = host.config();
    config["someone.else/key"] = json!({"deep": [1, 2]});
    config["prevResult"] = json!({
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "other", "theirs": {"a": null}}],
        "ips": [],
        "theirs": [true, {"b": 1}],
    });
    let result = host.call("ADD", "c1", path(&pod), &config).unwrap();
    assert_eq!(result["theirs"], config["prevResult"]["theirs"]);
    assert_eq!(result["interfaces"][0], config["prevResult"]["interfaces"][0]);
    config["prevResult"] = result;
    host.call("CHECK", "c1", path(&pod), &config).unwrap();
    host.call("DEL", "c1", path(&pod), &config).unwrap();
    host.assert_empty();
}
