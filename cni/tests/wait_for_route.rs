//! `waitForRoute`: ADD answers when other nodes have a route to the pod. In real network namespaces, as root.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failing helper fails its test"
)]

mod common;

use std::time::Duration;

use common::{Host, Namespace, addresses, outcome};
use serde_json::{Value, json};
use weft_cni::ipam::State;
use weft_cni::node::NodeFile;

const BLOCKS: (&str, &str) = ("10.244.1.0/26", "fd00:10:244:1::/122");

/// `node.json` with each family's block announced or not.
fn node_file(ipv4: bool, ipv6: bool) -> NodeFile {
    let mut node = Host::node_file(BLOCKS.0, BLOCKS.1);
    node.ipv4.as_mut().unwrap().blocks[0].announced = ipv4;
    node.ipv6.as_mut().unwrap().blocks[0].announced = ipv6;
    node
}

fn waiting(host: &Host, seconds: u64) -> Value {
    let mut config = host.config();
    config["waitForRoute"] = json!(true);
    config["waitForRouteSeconds"] = json!(seconds);
    config
}

/// Returns when the store says that the only entry is committed: what is left to do is to wait for the route.
fn await_commit(host: &Host) {
    const TRIES: u32 = 2000;
    for _ in 0..TRIES {
        if host.entries().iter().any(|entry| entry.state != State::Reserved) {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("no entry was committed within 10 s");
}

#[test]
fn add_answers_when_the_last_block_is_announced() {
    let (host, pod) = (Host::new(BLOCKS.0, BLOCKS.1), Namespace::new());
    let mut add = host.spawn("ADD", "c1", pod.path.to_str().unwrap(), &waiting(&host, 60));
    await_commit(&host);
    for (ipv4, ipv6) in [(false, false), (true, false), (false, true)] {
        host.write_node_file(&node_file(ipv4, ipv6));
        // That something does not happen shows only in time: many times what the plugin takes to look.
        std::thread::sleep(Duration::from_millis(50));
        assert!(add.try_wait().unwrap().is_none(), "ADD answered with announced: {ipv4} {ipv6}");
    }
    host.write_node_file(&node_file(true, true));
    assert_eq!(addresses(&outcome(add).unwrap()).len(), 2);

    // Announced already: nothing to wait for.
    let second = Namespace::new();
    host.call("ADD", "c2", second.path.to_str().unwrap(), &waiting(&host, 60)).unwrap();
}

#[test]
fn too_late_is_an_error_that_names_the_blocks_and_leaves_nothing() {
    let (host, pod) = (Host::new(BLOCKS.0, BLOCKS.1), Namespace::new());
    host.write_node_file(&node_file(true, false));
    let error = host.call("ADD", "c1", pod.path.to_str().unwrap(), &waiting(&host, 1)).unwrap_err();
    assert_eq!(error["code"], 11, "{error}");
    let expected = format!("waitForRoute: {} was announced to no peer within 1 s", BLOCKS.1);
    assert_eq!(error["msg"], json!(expected));
    host.assert_empty();
    assert_eq!(pod.links(), [] as [String; 0]);
    // Who does not ask does not wait.
    host.add("c1", &pod).unwrap();
}

#[test]
fn a_daemon_that_clears_the_node_meanwhile_ends_the_wait() {
    let (host, pod) = (Host::new(BLOCKS.0, BLOCKS.1), Namespace::new());
    let add = host.spawn("ADD", "c1", pod.path.to_str().unwrap(), &waiting(&host, 60));
    await_commit(&host);
    let run = host.dir.path().join("run");
    std::fs::rename(run.join("node.json"), run.join("away")).unwrap();
    let error = outcome(add).unwrap_err();
    assert_eq!(error["code"], 11, "{error}");
    assert!(error["msg"].as_str().unwrap().contains("does not exist"), "{error}");
    host.assert_empty();
}
