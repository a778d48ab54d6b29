//! Two nodes that have one block, and only a router between them.

#![allow(clippy::indexing_slicing, reason = "a panic fails the test, which is what it is for")]

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ipnet::IpNet;
use serde_json::{Value, json};
use weft_integration::daemon::{Family, Neighbor, Router, RouterConfig, Software, router};
use weft_integration::documents;
use weft_integration::lab::Lab;
use weft_integration::link::{End, Link};
use weft_integration::node::{self, Node};
use weft_integration::wait::wait_until;

const PATIENCE: Duration = Duration::from_secs(40);
const TOR_ASN: u32 = 65001;

/// Two nodes, each an AS of its own, under one router of another; each is told its own block back.
struct Rack {
    nodes: Vec<Node>,
    router: Box<dyn Router>,
}

impl Rack {
    fn up(lab: &Lab) -> Result<Self> {
        let machine = lab.machine("tor")?;
        let mut config = RouterConfig::new("tor", TOR_ASN, [10, 0, 0, 255].into());
        let mut nodes = Vec::new();
        for n in [1, 2] {
            let (name, own) = (format!("n{n}"), node::loopback(&[Family::V4], n));
            let node = Node::new(lab, &name, own.clone(), node::blocks(&[Family::V4], n))?;
            node.namespace.ip(&format!("addr add {} dev lo", own[0]))?;
            let link = Link::new(End::new(&node.namespace, "uplink"), End::new(&machine, &name))?;
            let (near, far) = (format!("10.1.{n}.0"), format!("10.1.{n}.1"));
            link.near.add_addresses(&[format!("{near}/31").parse()?])?;
            link.far.add_addresses(&[format!("{far}/31").parse()?])?;
            config.neighbors.push(Neighbor {
                name,
                address: near.parse()?,
                asn: asn(n),
                local: far.parse()?,
                families: vec![Family::V4],
            });
            // What comes back is to be judged by its origin, not by the loop in its path.
            let spec = json!({
                "peerIP": far, "asNumber": TOR_ASN, "families": ["ipv4-unicast"], "numAllowedLocalASNumbers": 1,
            });
            let configuration = json!({"asNumber": asn(n), "nodeToNodeMeshEnabled": false});
            documents::write(
                &node.weft.manifests(),
                "bgp.yaml",
                &[
                    documents::bgp_configuration(&configuration),
                    documents::bgp_peer("tor", &node.name, spec),
                    documents::pod_pool(Family::V4),
                ],
            )?;
            nodes.push(node);
        }
        let router = router(lab, &machine, Software::Frr, config)?;
        let mut rack = Self { nodes, router };
        rack.give(0, &rack.nodes[0].blocks)?;
        rack.give(1, &rack.nodes[1].blocks)?;
        rack.router.start()?;
        rack.nodes.iter_mut().try_for_each(|node| node.weft.start())?;
        Ok(rack)
    }

    /// Writes what a node believes to be its blocks.
    fn give(&self, index: usize, blocks: &[IpNet]) -> Result<()> {
        let node = &self.nodes[index];
        let told = documents::node(&node.name, &[], blocks, &node.addresses);
        documents::write(&node.weft.manifests(), "nodes.yaml", &[told])
    }

    /// The alarms that `weftctl status` of a node shows.
    fn alarms(&self, index: usize) -> Result<Vec<Value>> {
        let status = self.nodes[index].weft.status()?;
        let problems = status["problems"].as_array().context("no problems")?;
        Ok(problems.iter().filter(|problem| problem["code"] == "duplicate-origin").cloned().collect())
    }

    fn ensure_quiet(&self) -> Result<()> {
        for index in [0, 1] {
            let alarms = self.alarms(index)?;
            ensure!(alarms.is_empty(), "n{}: {alarms:?}", index + 1);
        }
        Ok(())
    }

    /// Why a node does not believe what the router says of a block.
    fn reason(&self, index: usize, block: IpNet) -> Result<String> {
        let route = self.nodes[index].weft.route(block)?.context("no route")?;
        let told = route.paths.iter().find(|path| path.peer.is_some());
        let reason = told.and_then(|path| path.reason.as_ref()).with_context(|| format!("{route:?}"))?;
        Ok(reason.code.clone())
    }
}

fn asn(n: u8) -> u32 {
    64600 + u32::from(n)
}

#[test]
fn two_nodes_under_one_router_that_have_one_block_are_alarmed() -> Result<()> {
    Lab::test(|lab| {
        let rack = Rack::up(lab)?;
        let [first, second] = [0, 1].map(|index| rack.nodes[index].blocks[0]);
        wait_until("each block back where it is from", PATIENCE, || {
            for (index, block) in [(0, first), (1, second)] {
                let reason = rack.reason(index, block)?;
                ensure!(reason == "own-block", "{block}: {reason}");
            }
            rack.nodes[0].weft.forwards(second)?;
            rack.nodes[1].weft.forwards(first).map(drop)
        })?;
        rack.ensure_quiet()?;
        let (_, metrics) = rack.nodes[1].weft.http("/metrics")?;
        ensure!(metrics.lines().any(|line| line == "weft_bgp_alarms_total 0"), "{metrics}");

        // The router passes on the older of the two, and tells the younger's node.
        rack.give(1, &[first])?;
        wait_until("the alarm", PATIENCE, || {
            let alarms = rack.alarms(1)?;
            let alarm = alarms.first().context("no alarm")?;
            let text = alarm["text"].as_str().unwrap_or_default();
            ensure!(alarm["severity"] == "error" && text.contains(&first.to_string()), "{alarm}");
            let (_, metrics) = rack.nodes[1].weft.http("/metrics")?;
            ensure!(metrics.lines().any(|line| line == "weft_bgp_alarms_total 1"), "{metrics}");
            Ok(())
        })?;
        ensure!(rack.reason(1, first)? == "duplicate-origin" && rack.alarms(0)?.is_empty(), "the wrong one");

        rack.give(1, &[second])?;
        wait_until("the alarm to end with the second of the two", PATIENCE, || {
            rack.ensure_quiet()?;
            rack.nodes[1].weft.forwards(first).map(drop)
        })
    })
}
