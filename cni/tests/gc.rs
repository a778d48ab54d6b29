//! GC in real network namespaces, through the built plugin. Needs root.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failing helper fails its test"
)]

mod common;

use std::fs::File;

use common::{Host, Namespace, outcome};
use serde_json::{Value, json};
use weft_cni::datapath::{HOST_MAC, host_link_name};
use weft_cni::ipam::{Key, Store};
use weft_cni::node::boot_id;
use weft_routing::netlink::{LinkName, Mac, Veth, delete_link, set_name, set_up};

fn host() -> Host {
    Host::new("10.244.1.0/24", "fd00:10:244:1::/120")
}

fn config(host: &Host) -> Value {
    let mut config = host.config();
    config["cniVersion"] = json!("1.1.0");
    config
}

/// GC with these containers' `eth0` valid.
fn gc(host: &Host, valid: &[&str]) -> Result<Value, Value> {
    let mut config = config(host);
    let attachment = |id: &&str| json!({"containerID": id, "ifname": "eth0"});
    config["cni.dev/valid-attachments"] = valid.iter().map(attachment).collect();
    host.call("GC", "", "", &config)
}

fn link_name(container: &str) -> LinkName {
    host_link_name(container, &"eth0".parse().unwrap()).unwrap()
}

fn containers(host: &Host) -> Vec<String> {
    host.entries().into_iter().map(|entry| entry.key.container_id).collect()
}

fn add_all(host: &Host, ids: &[&str]) -> Vec<(Namespace, Value)> {
    let add = |id: &&str| {
        let pod = Namespace::new();
        let result = host.add(id, &pod).unwrap();
        (pod, result)
    };
    ids.iter().map(add).collect()
}

fn key(network: &str, container: &str) -> Key {
    Key { network: network.into(), container_id: container.into(), ifname: "eth0".into() }
}

/// A link as ADD makes them, and its peer in `pod`.
fn make_link(host: &Host, pod: &Namespace, name: &str, mac: Mac, peer: &str) {
    let veth = Veth {
        name: &name.parse().unwrap(),
        mac,
        peer_name: &peer.parse().unwrap(),
        peer_mac: None,
        peer_netns: File::open(&pod.path).unwrap(),
        mtu: 1450,
    };
    host.namespace.socket().execute(&veth.create()).unwrap();
}

#[test]
fn what_the_runtime_does_not_name_is_freed_and_the_rest_untouched() {
    let host = host();
    let pods = add_all(&host, &["c1", "c2", "c3"]);
    // Neither weftd nor the namespace is needed.
    std::fs::remove_file(host.dir.path().join("run/node.json")).unwrap();
    gc(&host, &["c2", "not-there"]).unwrap();
    assert_eq!(containers(&host), ["c2"]);
    assert_eq!(host.namespace.links(), [link_name("c2").to_string()]);
    assert_eq!(pods[0].0.links(), [] as [String; 0]);
    let (pod, result) = &pods[1];
    host.check("c2", pod, result).unwrap();
    gc(&host, &["c2"]).unwrap();
    host.check("c2", pod, result).unwrap();
    assert_eq!(gc(&host, &[]).unwrap(), Value::Null, "a success says nothing");
    host.assert_empty();
    assert_eq!(host.namespace.socket().neighbours().unwrap(), []);
}

#[test]
fn without_a_list_nothing_is_freed() {
    let host = host();
    let pods = add_all(&host, &["c1"]);
    let error = host.call("GC", "", "", &config(&host)).unwrap_err();
    assert_eq!(error["code"], 7, "{error}");
    assert!(error["msg"].as_str().unwrap().contains("cni.dev/valid-attachments"), "{error}");
    host.check("c1", &pods[0].0, &pods[0].1).unwrap();
}

#[test]
fn another_networks_attachments_are_its_own_business() {
    let host = host();
    let _pods = add_all(&host, &["c1"]);
    let other = Namespace::new();
    let mut config = host.config();
    config["name"] = json!("other");
    let result = host.call("ADD", "c2", other.path.to_str().unwrap(), &config).unwrap();
    gc(&host, &[]).unwrap();
    assert_eq!(containers(&host), ["c2"]);
    config["prevResult"] = result;
    host.call("CHECK", "c2", other.path.to_str().unwrap(), &config).unwrap();
}

#[test]
fn links_of_no_entry_go_unless_they_are_not_ours() {
    let (host, pod) = (host(), Namespace::new());
    let valid = add_all(&host, &["c1"]);
    // The store loses a pod that the runtime still has.
    let mut store = Store::open(&host.dir.path().join("state"), &boot_id().unwrap()).unwrap();
    store.hold(key("weft", "c1")).unwrap().release().unwrap().unwrap();
    make_link(&host, &pod, "weft0123456789a", HOST_MAC, "a");
    make_link(&host, &pod, "weft0123456789b", [2; 6], "b");
    make_link(&host, &pod, "weftuplink", HOST_MAC, "c");
    gc(&host, &["c1"]).unwrap();
    let mut left = host.namespace.links();
    left.sort_unstable();
    let mut expected = [link_name("c1").to_string(), "weft0123456789b".into(), "weftuplink".into()];
    expected.sort_unstable();
    assert_eq!(left, expected);
    assert_eq!(valid[0].0.links(), ["eth0"]);
}

#[test]
fn what_fails_is_told_and_does_not_stop_the_rest() {
    let host = host();
    let _pods = add_all(&host, &["c1", "busy", "c3", "stuck", "c5"]);
    let mut store = Store::open(&host.dir.path().join("state"), &boot_id().unwrap()).unwrap();
    let hold = store.hold(key("weft", "busy")).unwrap();
    // Loopback is the one link that the kernel does not delete.
    let mut socket = host.namespace.socket();
    let stuck = link_name("stuck");
    let link = socket.link_by_name(&stuck).unwrap().unwrap();
    for request in [delete_link(link.index), set_up(1, false), set_name(1, &stuck)] {
        socket.execute(&request).unwrap();
    }
    let error = gc(&host, &[]).unwrap_err();
    assert_eq!(error["code"], 100, "{error}");
    let details = error["details"].as_str().unwrap();
    assert!(details.contains("container busy in network weft: another command is at work"), "{error}");
    assert!(
        details.contains(&format!("container stuck in network weft: cannot delete link {stuck}")),
        "{error}"
    );
    assert_eq!(containers(&host), ["busy", "stuck"]);
    assert_eq!(socket.links().unwrap().len(), 2, "lo, and the link of the pod that is busy");

    // What only waits for another command is worth another try.
    socket.execute(&set_name(1, &"lo".parse().unwrap())).unwrap();
    let error = gc(&host, &[]).unwrap_err();
    assert_eq!((&error["code"], error["details"].as_str().unwrap().matches(';').count()), (&json!(11), 0));
    assert_eq!(containers(&host), ["busy"]);
    drop(hold);
    gc(&host, &[]).unwrap();
    host.assert_empty();
}

#[test]
fn two_hundred_links_go_at_once() {
    const LINKS: u32 = 200;
    let (host, pod) = (host(), Namespace::new());
    for index in 0..LINKS {
        make_link(&host, &pod, &format!("weft{index:011x}"), HOST_MAC, &format!("p{index}"));
    }
    gc(&host, &[]).unwrap();
    assert_eq!(host.namespace.links(), [] as [String; 0]);
}

#[test]
fn adds_of_other_networks_go_on_meanwhile() {
    const PODS: usize = 12;
    let host = host();
    let pods: Vec<Namespace> = (0..PODS).map(|_| Namespace::new()).collect();
    let mut other = host.config();
    other["name"] = json!("other");
    let netns = |pod: &Namespace| pod.path.to_str().unwrap().to_owned();
    let start =
        |(index, pod): (usize, &Namespace)| host.spawn("ADD", &format!("c{index}"), &netns(pod), &other);
    let mut children: Vec<_> = pods.iter().enumerate().map(start).collect();
    // Until the last ADD has ended, at least once.
    loop {
        gc(&host, &[]).unwrap();
        if children.iter_mut().all(|child| child.try_wait().unwrap().is_some()) {
            break;
        }
    }
    for ((index, pod), child) in pods.iter().enumerate().zip(children) {
        other["prevResult"] = outcome(child).unwrap();
        host.call("CHECK", &format!("c{index}"), &netns(pod), &other).unwrap();
    }
    assert_eq!(containers(&host).len(), PODS);
}
