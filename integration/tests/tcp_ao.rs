//! Two nodes whose session is signed with TCP-AO (RFC 5925): on a kernel that has it, its keys are replaced one by one; on one that has not,
//! the session is refused and nobody is left in doubt why.

#![allow(clippy::indexing_slicing, reason = "a panic fails the test, which is what it is for")]
#![allow(clippy::print_stdout, reason = "the log of the tests shows what this kernel has")]

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use weft_bgp::transport::has_tcp_ao;
use weft_integration::daemon::Family;
use weft_integration::documents;
use weft_integration::lab::Lab;
use weft_integration::link::{End, Link};
use weft_integration::node::{self, Node};
use weft_integration::wait::{stays, wait_until};

const PATIENCE: Duration = Duration::from_secs(40);
/// As long as what must not come up is watched.
const SILENCE: Duration = Duration::from_secs(4);
/// The ends of the cable, by node.
const ENDS: [&str; 2] = ["10.1.0.0", "10.1.0.1"];

struct Pair {
    nodes: [Node; 2],
    _link: Link,
}

impl Pair {
    /// Two nodes of two ASes on one cable, which do not run yet.
    fn new(lab: &Lab) -> Result<Self> {
        let node = |index: u8| {
            let own = node::loopback(&[Family::V4], index);
            let node = Node::new(lab, &format!("n{index}"), own.clone(), node::blocks(&[Family::V4], index))?;
            node.namespace.ip(&format!("addr add {} dev lo", own[0]))?;
            Ok::<_, anyhow::Error>(node)
        };
        let nodes = [node(1)?, node(2)?];
        let link =
            Link::new(End::new(&nodes[0].namespace, "uplink"), End::new(&nodes[1].namespace, "uplink"))?;
        link.near.add_addresses(&[format!("{}/31", ENDS[0]).parse()?])?;
        link.far.add_addresses(&[format!("{}/31", ENDS[1]).parse()?])?;
        for (index, node) in nodes.iter().enumerate() {
            let secret = documents::secret("keys", &[("old", "old secret"), ("new", "new secret")]);
            let configuration =
                json!({"asNumber": 64601 + index, "nodeToNodeMeshEnabled": false, "holdTime": "3s"});
            let documents = [
                documents::bgp_configuration(&configuration),
                documents::node(&node.name, &[], &node.blocks, &node.addresses),
                documents::pod_pool(Family::V4),
                secret,
            ];
            documents::write(&node.weft.manifests(), "node.yaml", &documents)?;
        }
        Ok(Self { nodes, _link: link })
    }

    /// What the BGPPeer of a node has to be signed with.
    fn sign(&self, node: usize, signing: Value) -> Result<()> {
        let mut spec =
            json!({"peerIP": ENDS[1 - node], "asNumber": 64601 + (1 - node), "ebgpMultihop": false});
        let (Some(spec_fields), Value::Object(signing)) = (spec.as_object_mut(), signing) else {
            anyhow::bail!("no object");
        };
        spec_fields.extend(signing);
        let name = &self.nodes[node].name;
        documents::write(
            &self.nodes[node].weft.manifests(),
            "peer.yaml",
            &[documents::bgp_peer("other", name, spec)],
        )
    }

    /// The keys of these IDs and secrets, at one end.
    fn give(&self, node: usize, keys: &[(u8, &str)]) -> Result<()> {
        let key = |(id, secret): &(u8, &str)| {
            let reference = json!({"name": "keys", "key": secret});
            json!({"sendID": id, "receiveID": id, "algorithm": "AES-128-CMAC-96", "secretKeyRef": reference})
        };
        let keys: Vec<Value> = keys.iter().map(key).collect();
        self.sign(node, json!({"tcpAO": {"keys": keys}}))
    }

    fn peer(&self, node: usize) -> Result<Value> {
        let peers: Value = self.nodes[node].weft.json("peers")?;
        Ok(peers[0].clone())
    }

    fn are_up(&self) -> Result<()> {
        for (node, other) in [(0, 1), (1, 0)] {
            let peer = self.peer(node)?;
            ensure!(peer["state"] == "Established", "{peer}");
            self.nodes[other]
                .blocks
                .iter()
                .try_for_each(|block| self.nodes[node].weft.forwards(*block).map(drop))?;
        }
        Ok(())
    }

    fn are_down(&self) -> Result<()> {
        for node in [0, 1] {
            let peer = self.peer(node)?;
            ensure!(peer["state"] != "Established", "{peer}");
        }
        Ok(())
    }

    fn wait_refused(&self) -> Result<()> {
        wait_until("both ends to say that the kernel has no TCP-AO", PATIENCE, || {
            for (node, weft) in self.nodes.iter().map(|node| &node.weft).enumerate() {
                let peer = self.peer(node)?;
                ensure!(peer["authentication"] == "unavailable" && peer["state"] == "Idle", "{peer}");
                let status = weft.status()?;
                ensure!(status["problems"].to_string().contains("no-tcp-ao"), "{status}");
                let (_, metrics) = weft.http("/metrics")?;
                let label = format!("{{name=\"other\",peer=\"{}\"}}", ENDS[1 - node]);
                ensure!(metrics.contains(&format!("weft_bgp_peer_authenticated{label} 0")), "{metrics}");
            }
            Ok(())
        })?;
        stays("both ends down", SILENCE, || self.are_down())
    }

    /// Waits until both ends sign with the key of this ID.
    fn wait_in_use(&self, id: u8) -> Result<()> {
        wait_until(format!("both ends to sign with {id}"), PATIENCE, || {
            for node in [0, 1] {
                let peer = self.peer(node)?;
                let keys = &peer["tcpAO"];
                ensure!(keys["sendsWith"] == id && keys["asksFor"] == id, "{peer}");
                let (_, metrics) = self.nodes[node].weft.http("/metrics")?;
                let label = format!("{{name=\"other\",peer=\"{}\"}}", ENDS[1 - node]);
                ensure!(metrics.contains(&format!("weft_bgp_peer_tcp_ao_send_id{label} {id}")), "{metrics}");
            }
            Ok(())
        })
    }
}

/// Proves RFC 5925, RFC 5926.
#[test]
fn keys_are_replaced_while_the_session_lasts_or_the_session_is_refused() -> Result<()> {
    Lab::test(|lab| {
        let mut pair = Pair::new(lab)?;
        pair.give(0, &[(1, "old")])?;
        pair.give(1, &[(1, "old")])?;
        for node in &mut pair.nodes {
            node.weft.start()?;
        }
        if !has_tcp_ao() {
            println!("tcp_ao: this kernel has no TCP-AO, and that is what is tested");
            pair.wait_refused()?;
            let password = json!({"password": {"secretKeyRef": {"name": "keys", "key": "old"}}});
            pair.sign(0, password.clone())?;
            pair.sign(1, password)?;
            return wait_until("the session with a password", PATIENCE, || pair.are_up());
        }
        wait_until("the session", PATIENCE, || pair.are_up())?;
        pair.wait_in_use(1)?;
        let since = pair.peer(0)?["lastEstablished"].clone();
        for node in [0, 1] {
            pair.give(node, &[(2, "new"), (1, "old")])?;
        }
        pair.wait_in_use(2)?;
        for node in [0, 1] {
            pair.give(node, &[(2, "new")])?;
        }
        stays("the session with the new key", SILENCE, || pair.are_up())?;
        ensure!(pair.peer(0)?["lastEstablished"] == since, "the session has ended");
        pair.give(0, &[(2, "old")])?;
        wait_until("the end of the session", PATIENCE, || pair.are_down())?;
        stays("a session with two secrets of one ID down", SILENCE, || pair.are_down())?;
        pair.give(1, &[(2, "old")])?;
        wait_until("the session with one secret", PATIENCE, || pair.are_up())
    })
}
