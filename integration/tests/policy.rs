//! What is believed of what others announce, and what is told to them.

#![allow(clippy::indexing_slicing, reason = "a panic fails the test, which is what it is for")]

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ipnet::IpNet;
use serde_json::{Value, json};
use weft_integration::daemon::{Family, Software};
use weft_integration::documents;
use weft_integration::fabric::{Fabric, FabricSpec, wait_reachable};
use weft_integration::lab::Lab;
use weft_integration::lan::{Lan, LanSpec};
use weft_integration::node::{self, Node};
use weft_integration::promises::Promise;
use weft_integration::wait::{stays, wait_until};

const PATIENCE: Duration = Duration::from_secs(40);

/// What a ToR gets wrong, and why a node does not believe it.
const LIES: [(&str, &str); 10] = [
    ("0.0.0.0/0", "not-in-pool"),
    ("::/0", "not-in-pool"),
    ("203.0.113.0/24", "not-in-pool"),
    ("2001:db8::/32", "not-in-pool"),
    ("10.244.1.0/26", "duplicate-origin"),
    ("10.244.1.16/28", "own-block"),
    ("fd00:10:244:1::8/125", "own-block"),
    ("10.244.77.16/28", "longer-than-block"),
    ("fd00:10:244:77::8/125", "longer-than-block"),
    ("10.0.0.1/32", "own-address"),
];

fn one_node(lab: &Lab) -> Result<Fabric> {
    let spec = FabricSpec { nodes_per_rack: 1, pods_per_node: 1, ..FabricSpec::one_rack(Software::Bird) };
    Fabric::up(lab, spec)
}

/// Announces `more` beside what the ToR of a one-rack fabric announces anyway.
fn announce(fabric: &mut Fabric, more: impl IntoIterator<Item = IpNet>) -> Result<()> {
    let own: BTreeSet<IpNet> = fabric.routers[0].addresses.iter().copied().map(IpNet::from).collect();
    fabric.router_mut("tor-a")?.originate(&own.into_iter().chain(more).collect())
}

fn learned_in_kernel(node: &Node, prefix: IpNet) -> Result<bool> {
    Ok(node
        .namespace
        .routes_to(prefix)?
        .iter()
        .any(|route| route["protocol"] == "176" && route["type"] != "unreachable"))
}

/// Proves RFC 8212; BIRD.
#[test]
fn nothing_wrong_is_believed_of_a_tor() -> Result<()> {
    Lab::test(|lab| {
        let mut fabric = one_node(lab)?;
        let good = node::blocks(&Family::BOTH, 99);
        let lies: Vec<(IpNet, &str)> =
            LIES.iter().map(|(lie, why)| Ok((lie.parse()?, *why))).collect::<Result<_>>()?;
        announce(&mut fabric, lies.iter().map(|(lie, _)| *lie).chain(good.iter().copied()))?;
        let node = fabric.node("a1")?;
        wait_until("what is right to be believed", PATIENCE, || {
            good.iter().try_for_each(|block| node.weft.forwards(*block).map(drop))
        })?;
        for (lie, why) in lies {
            let route = wait_until(format!("{lie} to be kept with its reason"), PATIENCE, || {
                node.weft.route(lie)?.with_context(|| format!("{lie} is not in the Adj-RIB-In"))
            })?;
            let path = route.paths.iter().find(|path| path.peer.is_some()).context("no path of the ToR's")?;
            ensure!(!path.valid && !path.best, "{lie}: {path:?}");
            let reason = path.reason.as_ref().context("no reason")?;
            ensure!(reason.code == why && !reason.text.is_empty(), "{lie}: {reason:?}, not {why}");
            ensure!(!learned_in_kernel(node, lie)?, "{lie} is in the kernel");
        }
        Promise::P3.check(&fabric.nodes).map(drop)
    })
}

#[test]
fn a_filter_accepts_the_default_route() -> Result<()> {
    Lab::test(|lab| {
        let mut fabric = one_node(lab)?;
        let defaults: [IpNet; 2] = ["0.0.0.0/0".parse()?, "::/0".parse()?];
        announce(&mut fabric, defaults)?;
        let node = fabric.node("a1")?;
        let folder = node.weft.manifests();
        let accept =
            |cidr: &str, operator: &str| json!({"cidr": cidr, "matchOperator": operator, "action": "Accept"});
        let filter = json!({
            "importV4": [accept("0.0.0.0/0", "Equal"), accept("10.244.0.0/16", "In")],
            "importV6": [accept("::/0", "Equal"), accept("fd00:10:244::/48", "In")],
            "exportV4": [accept("10.244.0.0/16", "In")],
            "exportV6": [accept("fd00:10:244::/48", "In")],
        });
        documents::write(
            &folder,
            "filters.yaml",
            &[documents::resource("BGPFilter", "with-default", &filter)],
        )?;
        let tor = fabric.link("a1", "tor-a")?.far.namespace.label();
        let spec = json!({"peerIP": "10.1.0.1", "asNumber": 65001, "filters": ["with-default"]});
        documents::write(&folder, "peers.yaml", &[documents::bgp_peer(tor, "a1", spec)])?;
        wait_until("the default routes", PATIENCE, || {
            defaults.iter().try_for_each(|default| node.weft.forwards(*default).map(drop))
        })
    })
}

/// A node that claims another's block is not believed by its peers, and that shows.
#[test]
fn a_node_cannot_take_anothers_block() -> Result<()> {
    Lab::test(|lab| {
        let lan =
            Lan::up(lab, LanSpec { nodes: vec![3], families: Family::BOTH.to_vec(), pods_per_node: 1 })?;
        wait_reachable(&lan.nodes, PATIENCE)?;
        let [thief, witness, victim] = &lan.nodes[..] else { unreachable!("there are three nodes") };
        // In the thief's own documents the blocks of the two are exchanged.
        let blocks =
            |node: &Node| if node.name == thief.name { victim.blocks.clone() } else { node.blocks.clone() };
        let told: Vec<Value> = [thief, witness]
            .iter()
            .map(|node| documents::node(&node.name, &[], &blocks(node), &node.addresses))
            .chain([documents::node(&victim.name, &[], &thief.blocks, &victim.addresses)])
            .collect();
        documents::write(&thief.weft.manifests(), "nodes.yaml", &told)?;
        for block in &victim.blocks {
            wait_until(format!("the claim on {block} to be rejected"), PATIENCE, || {
                let route = witness.weft.route(*block)?.context("no route")?;
                let thief = thief.address(Family::V4)?.to_string();
                let claim = route.paths.iter().find(|path| path.peer.as_ref() == Some(&thief));
                let reason =
                    claim.and_then(|path| path.reason.as_ref()).with_context(|| format!("{route:?}"))?;
                ensure!(reason.code == "duplicate-origin", "{reason:?}");
                Ok(())
            })?;
            let best = witness.weft.forwards(*block)?;
            ensure!(best.next_hops == [victim.address(Family::of(block.addr()))?], "{best:?}");
        }
        wait_until("the alarm to be counted", PATIENCE, || {
            let (_, metrics) = witness.weft.http("/metrics")?;
            let count = metrics.lines().find_map(|line| line.strip_prefix("weft_bgp_alarms_total "));
            ensure!(count.is_some_and(|count| count != "0"), "{count:?}");
            Ok(())
        })?;
        wait_reachable(&lan.nodes[1..], PATIENCE)
    })
}

/// Nodes of a rack that share an AS hear of each other through the ToR only if they accept their own AS once; weftd names the field.
#[test]
fn a_shared_as_without_leave_is_explained() -> Result<()> {
    Lab::test(|lab| {
        let mut fabric =
            Fabric::build(lab, FabricSpec { pods_per_node: 0, ..FabricSpec::one_rack(Software::Bird) })?;
        for node in &fabric.nodes {
            let tor = fabric.link(&node.name, "tor-a")?.far.interface.clone();
            let number = if node.name == "a1" { 1 } else { 3 };
            let spec = json!({"peerIP": format!("10.1.0.{number}"), "asNumber": 65001});
            documents::write(
                &node.weft.manifests(),
                "peers.yaml",
                &[documents::bgp_peer(&tor, &node.name, spec)],
            )?;
        }
        fabric.start()?;
        let (node, other) = (fabric.node("a1")?, fabric.node("a2")?);
        wait_until("the rejection and the advice", PATIENCE, || {
            let route = node.weft.route(other.blocks[0])?.context("no route")?;
            let codes: Vec<&str> =
                route.paths.iter().filter_map(|path| Some(path.reason.as_ref()?.code.as_str())).collect();
            ensure!(codes == ["own-as-in-path"] && !route.in_kernel, "{route:?}");
            let problems = node.weft.status()?["problems"].to_string();
            ensure!(problems.contains("numAllowedLocalASNumbers"), "{problems}");
            Ok(())
        })
    })
}

/// `localASNumber` is what the peer sees, and all that it sees; nothing is put in front of what it tells.
/// Proves RFC 7705 3; BIRD.
#[test]
fn a_local_as_replaces_the_own_one() -> Result<()> {
    Lab::test(|lab| {
        let mut fabric =
            Fabric::build(lab, FabricSpec { pods_per_node: 0, ..FabricSpec::one_rack(Software::Bird) })?;
        let folder = fabric.node("a1")?.weft.manifests();
        let configuration = json!({"asNumber": 4_200_000_777u32, "nodeToNodeMeshEnabled": false});
        documents::write(&folder, "bgp.yaml", &[documents::bgp_configuration(&configuration)])?;
        let spec = json!({
            "peerIP": "10.1.0.1", "asNumber": 65001, "localASNumber": 64601, "numAllowedLocalASNumbers": 1,
        });
        documents::write(&folder, "peers.yaml", &[documents::bgp_peer("tor", "a1", spec)])?;
        fabric.start()?;
        let (node, other) = (fabric.node("a1")?, fabric.node("a2")?);
        wait_until("the block at the ToR", PATIENCE, || {
            let path = fabric.router("tor-a")?.best(node.blocks[0])?;
            ensure!(path.as_path == [64601], "{path:?}");
            Ok(())
        })?;
        wait_until("the route through the ToR", PATIENCE, || {
            let path = node.weft.forwards(other.blocks[0])?;
            ensure!(path.as_path == [json!(65001), json!(64601)], "{path:?}");
            Ok(())
        })
    })
}

/// Routes learned from one ToR are never told to another.
/// Proves RFC 8212; BIRD.
#[test]
fn a_node_gives_no_transit() -> Result<()> {
    Lab::test(|lab| {
        let spec =
            FabricSpec { nodes_per_rack: 1, pods_per_node: 1, ..FabricSpec::two_uplinks(Software::Bird) };
        let mut fabric = Fabric::up(lab, spec)?;
        let foreign = node::blocks(&Family::BOTH, 99);
        let own = fabric
            .routers
            .iter()
            .find(|machine| machine.router.name() == "tor-a1")
            .context("tor-a1")?
            .addresses
            .clone();
        let all = own.into_iter().map(IpNet::from).chain(foreign.iter().copied()).collect();
        fabric.router_mut("tor-a1")?.originate(&all)?;
        let node = fabric.node("a1")?;
        wait_until("the routes of one ToR", PATIENCE, || {
            foreign.iter().try_for_each(|block| node.weft.forwards(*block).map(drop))
        })?;
        stays("silence towards the other ToR", Duration::from_secs(1), || {
            let other = fabric.router("tor-a2")?;
            foreign.iter().try_for_each(|block| other.ensure_no_path(*block))
        })
    })
}
