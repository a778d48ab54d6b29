//! Route reflection (RFC 4456): weftd as a reflector of other people's daemons and as a client of theirs, and a cluster of its own whose reflector is a node.

#![allow(clippy::indexing_slicing, reason = "a panic fails the test, which is what it is for")]
#![allow(clippy::print_stdout, reason = "the log of the tests shows which daemons they ran against")]

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ipnet::IpNet;
use serde_json::{Value, json};
use weft_integration::daemon::{Family, Neighbor, Router, RouterConfig, Software, router};
use weft_integration::documents;
use weft_integration::fabric::wait_reachable;
use weft_integration::lab::Lab;
use weft_integration::lan::{Lan, LanSpec};
use weft_integration::link::{End, Switch};
use weft_integration::netns::Namespace;
use weft_integration::node::{self, Node};
use weft_integration::wait::wait_until;

const PATIENCE: Duration = Duration::from_secs(60);
const ASN: u32 = 64512;
const OVERLAY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests/overlays/route-reflectors");

/// The address of machine `n` of the LAN, 1 being the reflector.
fn address(n: u8, family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, 2, 0, n).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, 0x10, 2, 0, 0, 0, 0, n.into()).into(),
    }
}

fn router_id(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 2, 0, n)
}

fn plug(switch: &Switch, machine: &Namespace, n: u8) -> Result<()> {
    let lengths = [24, 64];
    let addresses = Family::BOTH.iter().zip(lengths).map(|(f, len)| Ok(IpNet::new(address(n, *f), len)?));
    switch.plug(End::new(machine, "eth0"))?.near.add_addresses(&addresses.collect::<Result<Vec<_>>>()?)
}

/// Somebody else's router, with a session of each family with each of `others`.
fn foreign(
    lab: &Lab,
    switch: &Switch,
    n: u8,
    software: Software,
    others: &[u8],
    reflects: bool,
) -> Result<Box<dyn Router>> {
    let machine = lab.machine(&format!("{software}{n}"))?;
    plug(switch, &machine, n)?;
    let mut config = RouterConfig::new(machine.label(), ASN, router_id(n));
    (config.graceful_restart, config.reflects, config.hold_time) = (false, reflects, 3);
    config.originate = node::blocks(&Family::BOTH, n).into_iter().collect();
    for (other, family) in others.iter().flat_map(|other| Family::BOTH.map(|family| (*other, family))) {
        config.neighbors.push(Neighbor {
            name: format!("m{other}"),
            address: address(other, family),
            asn: ASN,
            local: address(n, family),
            families: vec![family],
        });
    }
    let mut router = router(lab, &machine, software, config)?;
    println!("reflection: {} runs", router.version()?);
    router.start()?;
    Ok(router)
}

/// A node with weftd, with a session of each family with each of `others`, its clients or not.
fn own(lab: &Lab, switch: &Switch, n: u8, others: &[u8], clients: bool) -> Result<Node> {
    let name = format!("n{n}");
    let addresses = Family::BOTH.map(|family| address(n, family)).to_vec();
    let mut node = Node::new(lab, &name, addresses, node::blocks(&Family::BOTH, n))?;
    plug(switch, &node.namespace, n)?;
    let settings = json!({"asNumber": ASN, "nodeToNodeMeshEnabled": false, "holdTime": "3s"});
    let mut all = vec![documents::bgp_configuration(&settings)];
    all.extend(Family::BOTH.map(documents::pod_pool));
    all.push(documents::node(&name, &[], &node.blocks, &node.addresses));
    for (other, family) in others.iter().flat_map(|other| Family::BOTH.map(|family| (*other, family))) {
        let spec = json!({
            "peerIP": address(other, family), "asNumber": "internal", "families": [family.unicast()],
            "routeReflectorClient": clients,
        });
        let object = format!("m{other}-{}", family.unicast());
        all.push(documents::bgp_peer(&object, &name, spec));
    }
    documents::write(&node.weft.manifests(), "all.yaml", &all)?;
    node.weft.start()?;
    Ok(node)
}

/// What a router has of the machine `of` by way of the reflector.
fn ensure_reflected_to(router: &dyn Router, of: u8) -> Result<()> {
    for family in Family::BOTH {
        let best = router.best(node::block(family, of))?;
        let good = best.next_hops.contains(&address(of, family))
            && best.as_path.is_empty()
            && best.originator == Some(router_id(of))
            && best.cluster_list == [router_id(1)];
        ensure!(good, "{} of {of}: {best:?}", router.name());
    }
    Ok(())
}

/// Proves RFC 4456; BIRD, FRR.
#[test]
fn weftd_reflects_for_bird_and_frr() -> Result<()> {
    Lab::test(|lab| {
        let switch = Switch::new(lab.machine("switch")?)?;
        let reflector = own(lab, &switch, 1, &[2, 3], true)?;
        let mut bird = foreign(lab, &switch, 2, Software::Bird, &[1], false)?;
        let mut frr = foreign(lab, &switch, 3, Software::Frr, &[1], false)?;
        wait_until("the clients to have each other's blocks", PATIENCE, || {
            ensure_reflected_to(bird.as_ref(), 3)?;
            ensure_reflected_to(frr.as_ref(), 2)?;
            for block in &reflector.blocks {
                let [own, other] = [bird.best(*block)?, frr.best(*block)?];
                ensure!(own.cluster_list.is_empty() && other.originator.is_none(), "{own:?} {other:?}");
            }
            Ok(())
        })?;
        let clients = reflector.weft.peers()?;
        ensure!(clients.len() == 4 && clients.iter().all(|peer| peer.route_reflector_client), "{clients:?}");
        let (_, metrics) = reflector.weft.http("/metrics")?;
        ensure!(metrics.contains("weft_bgp_route_reflector_clients_established 4"), "{metrics}");

        frr.originate(&BTreeSet::new())?;
        wait_until("the withdraw to be reflected", PATIENCE, || {
            node::blocks(&Family::BOTH, 3).into_iter().try_for_each(|block| bird.ensure_no_path(block))
        })?;
        frr.originate(&node::blocks(&Family::BOTH, 3).into_iter().collect())?;
        wait_until("the blocks again", PATIENCE, || ensure_reflected_to(bird.as_ref(), 3))?;
        bird.kill9()?;
        wait_until("the loss of a client", PATIENCE, || {
            node::blocks(&Family::BOTH, 2).into_iter().try_for_each(|block| frr.ensure_no_path(block))
        })?;
        bird.start()?;
        wait_until("its return", PATIENCE, || {
            ensure_reflected_to(frr.as_ref(), 2).and_then(|()| ensure_reflected_to(bird.as_ref(), 3))
        })
    })
}

/// The clients have each other's blocks whether or not the reflector's own kernel does.
#[test]
fn a_reflector_keeps_what_it_learns_out_of_the_kernel_if_told_to() -> Result<()> {
    Lab::test(|lab| {
        let switch = Switch::new(lab.machine("switch")?)?;
        let mut reflector = own(lab, &switch, 1, &[2, 3], true)?;
        let bird = foreign(lab, &switch, 2, Software::Bird, &[1], false)?;
        let frr = foreign(lab, &switch, 3, Software::Frr, &[1], false)?;
        let install = |reflector: &Node, install: bool| {
            let spec = json!({"installRoutes": install});
            let own = documents::resource("BGPConfiguration", "node.n1", &spec);
            documents::write(&reflector.weft.manifests(), "own.yaml", &[own])
        };
        let learned: Vec<IpNet> = [2, 3].into_iter().flat_map(|n| node::blocks(&Family::BOTH, n)).collect();
        let reflected = || {
            ensure_reflected_to(bird.as_ref(), 3)?;
            ensure_reflected_to(frr.as_ref(), 2)
        };
        let installed = |reflector: &Node| {
            reflected()?;
            learned.iter().try_for_each(|block| reflector.weft.forwards(*block).map(drop))
        };
        let kept_out = |reflector: &Node| {
            reflected()?;
            for block in &learned {
                let kernel = reflector.namespace.routes_to(*block)?;
                ensure!(kernel.is_empty(), "{block}: {kernel:?}");
                let route = reflector.weft.route(*block)?.context("no route")?;
                ensure!(route.best.is_some() && !route.in_kernel, "{route:?}");
            }
            let status = reflector.weft.weftctl("status")?.stdout;
            ensure!(status.contains("learned ones are kept out (installRoutes: false)"), "{status}");
            ensure!(status.contains("its pods reach none of them"), "{status}");
            let (_, metrics) = reflector.weft.http("/metrics")?;
            ensure!(metrics.contains("weft_fib_installs_learned_routes 0"), "{metrics}");
            Ok(())
        };
        wait_until("the routes in the kernel", PATIENCE, || installed(&reflector))?;
        install(&reflector, false)?;
        wait_until("the kernel to be without them", PATIENCE, || kept_out(&reflector))?;
        reflector.weft.kill9()?;
        reflector.weft.start()?;
        wait_until("the same after a restart", PATIENCE, || kept_out(&reflector))?;
        install(&reflector, true)?;
        wait_until("the routes in the kernel again", PATIENCE, || installed(&reflector))
    })
}

/// Two nodes that know of each other only by somebody else's reflector: their pods' packets go straight.
fn weftd_is_a_client_of(software: Software) -> Result<()> {
    Lab::test(|lab| {
        let switch = Switch::new(lab.machine("switch")?)?;
        let _reflector = foreign(lab, &switch, 1, software, &[2, 3], true)?;
        let mut nodes = [own(lab, &switch, 2, &[1], false)?, own(lab, &switch, 3, &[1], false)?];
        for node in &mut nodes {
            node.wait_ready_for_pods()?;
            node.add_pod(lab)?;
        }
        wait_until("the nodes to have each other's blocks", PATIENCE, || {
            for (node, of) in nodes.iter().zip([3, 2]) {
                for family in Family::BOTH {
                    let block = node::block(family, of);
                    let path = node.weft.forwards(block)?;
                    let good = path.next_hops == [address(of, family)]
                        && path.originator_id == Some(router_id(of))
                        && path.cluster_list == [router_id(1)];
                    ensure!(good, "{}: {path:?}", node.name);
                    let kernel = node.namespace.routes_to(block)?;
                    ensure!(kernel[0]["gateway"] == json!(address(of, family)), "{kernel:?}");
                }
            }
            Ok(())
        })?;
        wait_reachable(&nodes, PATIENCE)
    })
}

/// Proves RFC 4456; BIRD.
#[test]
fn weftd_is_a_client_of_bird() -> Result<()> {
    weftd_is_a_client_of(Software::Bird)
}

/// Proves RFC 4456; FRR.
#[test]
fn weftd_is_a_client_of_frr() -> Result<()> {
    weftd_is_a_client_of(Software::Frr)
}

/// Proves RFC 4456; GoBGP.
#[test]
fn weftd_is_a_client_of_gobgp() -> Result<()> {
    weftd_is_a_client_of(Software::Gobgp)
}

/// The documents of a cluster whose nodes named in `reflectors` have the label; `blocks` says whose each node's blocks are.
fn cluster(lan: &Lan, reflectors: &[&str], blocks: impl Fn(&Node) -> Vec<IpNet>) -> Result<Vec<Value>> {
    let mut all = vec![documents::pod_pool(Family::V6)];
    for node in &lan.nodes {
        let label = [("weft.network/route-reflector", "")];
        let labels = if reflectors.contains(&node.name.as_str()) { &label[..] } else { &[] };
        all.push(documents::node(&node.name, labels, &[], &node.addresses));
        for block in blocks(node) {
            let family = if block.addr().is_ipv4() { "v4" } else { "v6" };
            let name = format!("{}-{family}", node.name);
            all.push(documents::resource("IPBlock", &name, &json!({"cidr": block, "node": node.name})));
        }
    }
    Ok(all)
}

fn write(node: &Node, documents: &[Value]) -> Result<()> {
    documents::write(&node.weft.manifests(), "nodes.yaml", documents)
}

/// That a node has another's blocks by way of n1, and sends to it straight.
fn ensure_reflected(node: &Node, of: &Node) -> Result<()> {
    for block in &of.blocks {
        let path = node.weft.forwards(*block)?;
        let by = [router_id(1)];
        let to = of.address(Family::of(block.addr()))?;
        let originator = Some(of.address(Family::V4)?) == path.originator_id.map(IpAddr::from);
        let good = path.next_hops == [to] && originator && path.cluster_list == by;
        ensure!(good, "{}: {block}: {path:?}", node.name);
    }
    Ok(())
}

/// The overlay as it is, in a lab: the label makes the reflector, nobody else has a session with anybody else, and nobody takes another's block.
#[test]
fn a_node_reflects_by_its_label() -> Result<()> {
    Lab::test(|lab| {
        let families = Family::BOTH.to_vec();
        let mut lan = Lan::build(lab, LanSpec { nodes: vec![3], families, pods_per_node: 1 })?;
        let overlay = std::fs::read_to_string(Path::new(OVERLAY).join("network.yaml"))?;
        let honest = cluster(&lan, &["n1"], |node| node.blocks.clone())?;
        for node in &mut lan.nodes {
            let folder = node.weft.manifests();
            std::fs::remove_file(folder.join("pools.yaml"))?;
            documents::write_text(&folder, "bgp.yaml", &overlay)?;
            write(node, &honest)?;
            node.weft.start()?;
        }
        for node in &mut lan.nodes {
            node.wait_ready_for_pods()?;
            node.add_pod(lab)?;
        }
        let [reflector, one, two] = &lan.nodes[..] else { unreachable!("there are three nodes") };
        wait_until("the clients to have each other's blocks", PATIENCE, || {
            ensure_reflected(one, two).and_then(|()| ensure_reflected(two, one))
        })?;
        wait_reachable(&lan.nodes, PATIENCE)?;
        ensure!(one.weft.peers()?.len() == 1 && reflector.weft.peers()?.len() == 2, "no mesh");
        ensure!(reflector.weft.peers()?.iter().all(|peer| peer.route_reflector_client), "its clients");
        for node in &lan.nodes {
            ensure!(node.weft.status()?["problems"] == json!([]), "{}", node.weft.status()?);
        }

        // A client that claims the other's block is not believed by its reflector, and the other client never hears of it.
        let lie = cluster(&lan, &["n1"], |node| match node.name.as_str() {
            "n2" => two.blocks.clone(),
            "n3" => one.blocks.clone(),
            _ => node.blocks.clone(),
        })?;
        write(one, &lie)?;
        for block in &two.blocks {
            wait_until(format!("the claim on {block} to be rejected"), PATIENCE, || {
                let route = reflector.weft.route(*block)?.context("no route")?;
                let thief = one.address(Family::V4)?.to_string();
                let claim = route.paths.iter().find(|path| path.peer.as_ref() == Some(&thief));
                let code = claim.and_then(|path| path.reason.as_ref()).map(|reason| reason.code.as_str());
                ensure!(code == Some("duplicate-origin"), "{route:?}");
                Ok(())
            })?;
        }
        write(one, &honest)?;
        wait_until("the truth again", PATIENCE, || ensure_reflected(two, one))?;

        // A second node gets the label: the sessions that there are stay, and a new one comes.
        let since = |node: &Node| -> Result<Vec<_>> {
            Ok(node.weft.peers()?.into_iter().map(|peer| (peer.peer, peer.since)).collect())
        };
        let before = since(reflector)?;
        let both = cluster(&lan, &["n1", "n2"], |node| node.blocks.clone())?;
        lan.nodes.iter().try_for_each(|node| write(node, &both))?;
        wait_until("the second reflector", PATIENCE, || {
            let client = one.weft.established(two.address(Family::V4)?)?;
            ensure!(client.route_reflector_client && one.weft.peers()?.len() == 2, "{client:?}");
            let peer = reflector.weft.peer(one.address(Family::V4)?)?;
            ensure!(!peer.route_reflector_client, "{peer:?}");
            let path = two.weft.forwards(one.blocks[0])?;
            ensure!(path.cluster_list.is_empty(), "{path:?}");
            Ok(())
        })?;
        ensure!(since(reflector)? == before, "{before:?} and {:?}", since(reflector)?);
        wait_reachable(&lan.nodes, PATIENCE)
    })
}
