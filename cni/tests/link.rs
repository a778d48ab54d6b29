//! The pod's link as ADD leaves it: MTU, offloads, IPv6 without waiting. In real network namespaces, as root. Needs `ip`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failing helper fails its test"
)]

mod common;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;

use common::{HOST_V6, Host, Namespace, addresses};
use serde_json::{Value, json};

fn host() -> Host {
    Host::new("10.244.1.0/26", "fd00:10:244:1::/122")
}

fn mtu(namespace: &Namespace, link: &str) -> u32 {
    namespace.socket().link_by_name(&link.parse().unwrap()).unwrap().unwrap().mtu
}

#[test]
fn both_ends_have_the_nodes_mtu_or_the_networks() {
    let host = host();
    for (asked, expected) in [(Value::Null, 1450), (json!(9000), 9000), (json!(1280), 1280)] {
        let pod = Namespace::new();
        let mut config = host.config();
        config["mtu"] = asked;
        host.call("ADD", "c1", pod.path.to_str().unwrap(), &config).unwrap();
        assert_eq!(mtu(&pod, "eth0"), expected);
        assert_eq!(mtu(&host.namespace, &host.namespace.links()[0]), expected);
        host.del("c1").unwrap();
    }
    let pod = Namespace::new();
    for (wrong, family) in [(json!(1279), " with IPv6"), (json!(65536), "")] {
        let mut config = host.config();
        config["mtu"] = wrong;
        let error = host.call("ADD", "c1", pod.path.to_str().unwrap(), &config).unwrap_err();
        assert_eq!(error["code"], 7, "{error}");
        assert!(error["msg"].as_str().unwrap().contains(family), "{error}");
    }
    host.assert_empty();
}

#[test]
fn a_pod_without_ipv6_may_have_the_small_mtu_of_ipv4() {
    let (host, pod) = (host(), Namespace::new());
    let mut node = Host::node_file("10.244.1.0/26", "fd00::/122");
    node.ipv6 = None;
    host.write_node_file(&node);
    let mut config = host.config();
    config["mtu"] = json!(576);
    let result = host.call("ADD", "c1", pod.path.to_str().unwrap(), &config).unwrap();
    assert_eq!((addresses(&result).len(), mtu(&pod, "eth0")), (1, 576));
}

/// More than one costs ADD time that grows with the number of processors, and is not used.
#[test]
fn both_ends_have_one_queue_each_way() {
    let (host, pod) = (host(), Namespace::new());
    host.add("c1", &pod).unwrap();
    for namespace in [&host.namespace, &pod] {
        let output =
            namespace.run(|| Command::new("ip").args(["-details", "link", "show", "type", "veth"]).output());
        let text = String::from_utf8(output.unwrap().stdout).unwrap();
        assert!(text.contains("numtxqueues 1 numrxqueues 1 "), "{text}");
    }
}

/// Duplicate address detection takes a second, in which an address can be neither bound nor used as a source.
#[test]
fn an_ipv6_address_is_usable_when_add_answers() {
    let (host, pod) = (host(), Namespace::new());
    let address = addresses(&host.add("c1", &pod).unwrap())[1];
    let bound = pod.run(|| UdpSocket::bind((address, 0)));
    bound.unwrap_or_else(|error| panic!("{address} cannot be bound right after ADD: {error}"));
    let client = pod.run(|| UdpSocket::bind("[::]:0")).unwrap();
    client.connect((HOST_V6.parse::<IpAddr>().unwrap(), 9)).unwrap();
    assert_eq!(client.local_addr().unwrap().ip(), address, "the source the pod prefers");
    for namespace in [&host.namespace, &pod] {
        let found = namespace.socket().addresses().unwrap();
        let global = found.iter().filter(|address| !address.ip().to_string().starts_with("fe80"));
        assert!(global.clone().all(|address| !address.tentative), "{found:?}");
    }
}

/// Bytes and packets that the interface received, from the kernel's own counters.
fn received(namespace: &Namespace, interface: &str) -> (u64, u64) {
    let text = namespace.run(|| std::fs::read_to_string("/proc/thread-self/net/dev")).unwrap();
    let line = text.lines().find_map(|line| line.trim().strip_prefix(&format!("{interface}:"))).unwrap();
    let mut counters = line.split_whitespace().map(|counter| counter.parse().unwrap());
    (counters.next().unwrap(), counters.next().unwrap())
}

/// A link without segmentation offload carries no packet above its MTU, and TCP costs many times the work.
#[test]
fn tcp_between_pods_goes_in_packets_far_above_the_mtu() {
    const SENT: usize = 8 << 20;
    let (host, one, two) = (host(), Namespace::new(), Namespace::new());
    host.add("c1", &one).unwrap();
    let servers = addresses(&host.add("c2", &two).unwrap());
    for address in servers {
        let (bytes_before, packets_before) = received(&two, "eth0");
        let listener = two.run(|| TcpListener::bind(SocketAddr::new(address, 0))).unwrap();
        let to = listener.local_addr().unwrap();
        let sender = one.run(|| TcpStream::connect(to)).unwrap();
        let sending = std::thread::spawn(move || {
            let mut sender = sender;
            sender.write_all(&vec![7; SENT]).unwrap();
        });
        let mut arrived = 0;
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = vec![0; 1 << 16];
        while arrived < SENT {
            let length = stream.read(&mut buffer).unwrap();
            assert!(length > 0, "the stream ended after {arrived} bytes");
            arrived += length;
        }
        sending.join().unwrap();
        let (bytes, packets) = received(&two, "eth0");
        let mean = (bytes - bytes_before) / (packets - packets_before);
        assert!(mean > 2 * 1450, "to {address}: {mean} bytes a packet on a link with an MTU of 1450");
    }
}
