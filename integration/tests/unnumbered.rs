//! A fabric whose links have no addresses but link-local ones: peers found by router advertisements, IPv4 over IPv6 next hops.

#![allow(clippy::indexing_slicing, reason = "a panic fails the test, which is what it is for")]

use std::net::IpAddr;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ipnet::IpNet;
use serde_json::{Value, json};
use weft_integration::daemon::bird::Bird;
use weft_integration::daemon::frr::Frr;
use weft_integration::daemon::{Family, Neighbor, Router as _, RouterConfig, Software, router};
use weft_integration::documents;
use weft_integration::fabric::wait_reachable;
use weft_integration::lab::Lab;
use weft_integration::link::{End, Link};
use weft_integration::monitor::RouteMonitor;
use weft_integration::netns::Namespace;
use weft_integration::node::{self, Node};
use weft_integration::probe::{Flows, ping};
use weft_integration::promises;
use weft_integration::wait::{stays, wait_until};

const PATIENCE: Duration = Duration::from_secs(40);
const UPLINK: &str = "uplink";

/// How many router advertisements came.
const HEARD: &str = "weft_router_advertisements_total{result=\"received\"}";

/// The node number `index`, its addresses on `lo`, with its documents and without links.
fn node(lab: &Lab, index: u8) -> Result<Node> {
    let name = format!("n{index}");
    let addresses = node::loopback(&Family::BOTH, index);
    let node = Node::new(lab, &name, addresses.clone(), node::blocks(&Family::BOTH, index))?;
    let commands: Vec<String> =
        addresses.iter().map(|address| format!("addr add {address} dev lo")).collect();
    node.namespace.ip(&commands.join("\n"))?;
    let nodes: Vec<Value> = [1, 2]
        .map(|index| {
            let (blocks, addresses) =
                (node::blocks(&Family::BOTH, index), node::loopback(&Family::BOTH, index));
            documents::node(&format!("n{index}"), &[], &blocks, &addresses)
        })
        .into();
    documents::write(&node.weft.manifests(), "nodes.yaml", &nodes)?;
    write_documents(&node, index, json!({}))?;
    Ok(node)
}

/// What a node is configured as, with what its BGPPeer has besides. Unless it has a `peerIP` its peer is on the uplink.
fn write_documents(node: &Node, index: u8, mut peer: Value) -> Result<()> {
    if peer["peerIP"].is_null() {
        peer["interface"] = json!(UPLINK);
    }
    peer["asNumber"] = json!("external");
    let mut all = vec![
        documents::bgp_configuration(&json!({
            "asNumber": 64600 + u32::from(index), "nodeToNodeMeshEnabled": false, "holdTime": "9s",
        })),
        documents::bgp_peer("tor", &node.name, peer),
    ];
    all.extend(Family::BOTH.map(documents::pod_pool));
    documents::write(&node.weft.manifests(), "bgp.yaml", &all)
}

/// The link-local address of an end.
fn link_local(end: &End) -> Result<IpAddr> {
    let shown = end.namespace.ip_json(&format!("-6 addr show dev {} scope link", end.interface))?;
    let address = shown[0]["addr_info"][0]["local"].as_str();
    Ok(address.with_context(|| format!("no link-local address: {shown}"))?.parse()?)
}

/// The session on the uplink is up, with this neighbour, and these prefixes are forwarded to it over link-local next hops.
fn converged(node: &Node, neighbour: IpAddr, prefixes: &[IpNet]) -> Result<()> {
    let peers: Value = node.weft.json("peers")?;
    ensure!(peers[0]["peer"] == "%uplink" && peers[0]["state"] == "Established", "{}: {peers}", node.name);
    ensure!(peers[0]["neighbour"] == json!(neighbour), "{}: {peers}", node.name);
    ensure!(peers[0]["families"] == json!(["ipv4-unicast", "ipv6-unicast"]), "{}: {peers}", node.name);
    forwarded(node, neighbour, prefixes)
}

/// The machine's kernel has routes to these prefixes over this router on an interface.
fn routed(machine: &Namespace, router: IpAddr, interface: &str, prefixes: &[IpNet]) -> Result<Vec<Value>> {
    let route = |prefix: &IpNet| {
        let kernel = machine.routes_to(*prefix)?;
        let route = kernel.into_iter().next().with_context(|| format!("no route to {prefix}"))?;
        let v4 = Family::of(prefix.addr()) == Family::V4;
        let gateway = if v4 { &route["via"]["host"] } else { &route["gateway"] };
        ensure!(*gateway == json!(router) && route["dev"] == interface, "{route}");
        Ok(route)
    };
    prefixes.iter().map(route).collect()
}

/// These prefixes are forwarded to a router on the uplink, from the node's addresses.
fn forwarded(node: &Node, neighbour: IpAddr, prefixes: &[IpNet]) -> Result<()> {
    prefixes.iter().try_for_each(|prefix| node.weft.forwards(*prefix).map(drop))?;
    let routes = routed(&node.namespace, neighbour, UPLINK, prefixes).with_context(|| node.name.clone())?;
    for (prefix, route) in prefixes.iter().zip(routes) {
        let source = node.address(Family::of(prefix.addr()))?;
        ensure!(route["prefsrc"] == json!(source), "{}: {route}", node.name);
    }
    let fib: Value = node.weft.json("fib")?;
    for prefix in prefixes {
        let entries = fib.as_array().map(Vec::as_slice).unwrap_or_default();
        let entry =
            entries.iter().find(|entry| entry["prefix"] == json!(prefix)).context("not in the fib")?;
        let hop = &entry["nextHops"][0];
        ensure!(hop["via"] == json!(neighbour) && hop["dev"] == UPLINK, "{entry}");
    }
    Ok(())
}

/// Two nodes, each under a ToR of its own, and a cable between the ToRs.
struct Fabric {
    nodes: Vec<Node>,
    tors: Vec<Frr>,
    uplinks: Vec<Link>,
}

impl Fabric {
    fn up(lab: &Lab) -> Result<Self> {
        let (mut nodes, mut tors, mut uplinks) = (Vec::new(), Vec::new(), Vec::new());
        let machines = [lab.machine("tor1")?, lab.machine("tor2")?];
        Link::new(End::new(&machines[0], "spine"), End::new(&machines[1], "spine"))?;
        for (index, machine) in [1, 2].into_iter().zip(&machines) {
            let mut node = node(lab, index)?;
            uplinks.push(Link::new(End::new(&node.namespace, UPLINK), End::new(machine, "node"))?);
            machine.forward()?;
            node.weft.start()?;
            node.wait_ready_for_pods()?;
            let config = RouterConfig::new(
                format!("tor{index}"),
                65000 + u32::from(index),
                [10, 0, 0, 250 + index].into(),
            );
            let mut tor = Frr::with_interfaces(lab, machine, config, &["node", "spine"])?;
            tor.start()?;
            nodes.push(node);
            tors.push(tor);
        }
        let fabric = Self { nodes, tors, uplinks };
        fabric.wait_converged("at first")?;
        Ok(fabric)
    }

    fn wait_converged(&self, when: &str) -> Result<()> {
        wait_until("sessions and routes", PATIENCE, || {
            for (index, node) in self.nodes.iter().enumerate() {
                ensure!(self.tors[index].established_on("node")?, "tor{} does not see its node", index + 1);
                let other = &self.nodes[1 - index];
                let mut prefixes = other.blocks.clone();
                prefixes.extend(other.addresses.iter().map(|address| IpNet::from(*address)));
                converged(node, link_local(&self.uplinks[index].far)?, &prefixes)?;
            }
            Ok(())
        })
        .with_context(|| when.to_owned())
    }
}

/// Proves RFC 8950, RFC 4861; FRR.
#[test]
fn two_nodes_under_frr_keep_their_promises_lose_a_link_and_get_it_back() -> Result<()> {
    Lab::test(|lab| {
        let mut fabric = Fabric::up(lab)?;
        for end in fabric.uplinks.iter().flat_map(|link| [&link.near, &link.far]) {
            let global = end.namespace.ip_json(&format!("addr show dev {} scope global", end.interface))?;
            ensure!(!global.to_string().contains("\"local\""), "the link has numbers: {global}");
        }
        for node in &mut fabric.nodes {
            node.add_pod(lab)?;
            node.add_pod(lab)?;
        }
        wait_reachable(&fabric.nodes, PATIENCE)?;
        promises::check_all(&fabric.nodes)?;
        // Other routers' advertisements are not for the kernel to act on, and that is not for weftd to say.
        let accept = fabric.nodes[0].namespace.sysctl("net/ipv6/conf/uplink/accept_ra")?;
        ensure!(accept == "1", "accept_ra is {accept}");
        let status = fabric.nodes[0].weft.status()?;
        ensure!(status["problems"] == json!([]), "{status}");

        let far = fabric.nodes[1].blocks.clone();
        fabric.uplinks[0].cut()?;
        wait_until("the node to drop the routes", Duration::from_secs(2), || {
            far.iter().try_for_each(|block| fabric.nodes[0].weft.ensure_no_path(*block))
        })?;
        fabric.uplinks[0].heal()?;
        fabric.wait_converged("after the cable was mended")?;
        wait_reachable(&fabric.nodes, PATIENCE)
    })
}

/// Proves RFC 8950, RFC 4724; FRR.
#[test]
fn weftd_is_killed_under_frr_and_no_packet_is_lost() -> Result<()> {
    Lab::test(|lab| {
        let mut fabric = Fabric::up(lab)?;
        for node in &mut fabric.nodes {
            node.add_pod(lab)?;
        }
        wait_reachable(&fabric.nodes, PATIENCE)?;
        let pods = [&fabric.nodes[0].pods[0], &fabric.nodes[1].pods[0]];
        let flows: Vec<Flows> = Family::BOTH
            .into_iter()
            .map(|family| {
                let server = pods[1].address(family)?;
                Flows::start(&pods[0].namespace, &pods[1].namespace, server, 2, Duration::from_millis(10))
            })
            .collect::<Result<_>>()?;
        sleep(Duration::from_millis(300));
        let machine = fabric.uplinks[0].far.namespace.clone();
        let monitors =
            [RouteMonitor::start(lab, &fabric.nodes[0].namespace)?, RouteMonitor::start(lab, &machine)?];
        fabric.nodes[0].weft.kill9()?;
        let blocks = fabric.nodes[0].blocks.clone();
        stays("the ToR's routes to the node without a daemon", Duration::from_secs(2), || {
            blocks.iter().try_for_each(|block| fabric.tors[0].best(*block).map(drop))
        })?;
        fabric.nodes[0].weft.start()?;
        fabric.wait_converged("after weftd's restart")?;
        wait_until("readiness", PATIENCE, || {
            ensure!(fabric.nodes[0].weft.http("/readyz")?.0 == 200, "/readyz is not 200");
            Ok(())
        })?;
        sleep(Duration::from_secs(1));
        for flow in flows {
            let report = flow.stop()?;
            ensure!(report.lost == 0 && report.sent > 100, "{report:?}");
        }
        for monitor in monitors {
            let deleted = monitor.deleted()?;
            ensure!(deleted.is_empty(), "routes went: {deleted:?}");
        }
        Ok(())
    })
}

fn has_heard(node: &Node) -> Result<()> {
    let (_, metrics) = node.weft.http("/metrics")?;
    let mut counts = metrics.lines().filter_map(|line| line.strip_prefix(HEARD));
    ensure!(counts.any(|count| count.trim() != "0"), "no {HEARD} but 0 in {metrics}");
    Ok(())
}

/// Nothing but weftd at both ends: each finds the other by its advertisements.
#[test]
fn two_nodes_on_one_cable_find_each_other() -> Result<()> {
    Lab::test(|lab| {
        let mut nodes = vec![node(lab, 1)?, node(lab, 2)?];
        let link = Link::new(End::new(&nodes[0].namespace, UPLINK), End::new(&nodes[1].namespace, UPLINK))?;
        for node in &mut nodes {
            node.weft.start()?;
        }
        let found = |node: usize, other: &End| {
            let prefixes = nodes[1 - node].blocks.clone();
            converged(&nodes[node], link_local(other)?, &prefixes)
        };
        wait_until("both sessions and routes", PATIENCE, || {
            found(0, &link.far)?;
            found(1, &link.near)
        })?;
        // Whoever is connected to first has the other's address before its advertisement.
        wait_until("advertisements at both ends", PATIENCE, || nodes.iter().try_for_each(has_heard))?;
        let peer: Value = nodes[0].weft.json("peers %uplink")?;
        ensure!(peer[0]["name"] == "tor", "{peer}");
        let routes: Value = nodes[0].weft.json("routes --rib in --peer %uplink")?;
        ensure!(routes[0]["paths"][0]["peer"] == "%uplink", "{routes}");
        Ok(())
    })
}

/// A node's side of a session that is signed and of one hop.
fn protect(node: &Node, index: u8, password: &str) -> Result<()> {
    let reference = json!({"secretKeyRef": {"name": "passwords", "key": "tor"}});
    let secret = documents::secret("passwords", &[("tor", password)]);
    documents::write(&node.weft.manifests(), "secret.yaml", &[secret])?;
    write_documents(node, index, json!({"password": reference, "ttlSecurity": 1}))
}

fn not_established(node: &Node) -> Result<()> {
    let peers: Value = node.weft.json("peers")?;
    ensure!(peers[0]["state"] != "Established" && peers[0]["neighbour"] != Value::Null, "{peers}");
    Ok(())
}

#[test]
fn tcp_md5_and_gtsm_over_link_local_addresses() -> Result<()> {
    Lab::test(|lab| {
        let mut nodes = vec![node(lab, 1)?, node(lab, 2)?];
        let link = Link::new(End::new(&nodes[0].namespace, UPLINK), End::new(&nodes[1].namespace, UPLINK))?;
        protect(&nodes[0], 1, "one")?;
        protect(&nodes[1], 2, "another")?;
        for node in &mut nodes {
            node.weft.start()?;
        }
        wait_until("both to be found", PATIENCE, || nodes.iter().try_for_each(not_established))?;
        stays("sessions of two passwords down", Duration::from_secs(4), || {
            nodes.iter().try_for_each(not_established)
        })?;
        protect(&nodes[1], 2, "one")?;
        wait_until("the session with one password", PATIENCE, || {
            converged(&nodes[0], link_local(&link.far)?, &nodes[1].blocks)?;
            converged(&nodes[1], link_local(&link.near)?, &nodes[0].blocks)
        })
    })
}

/// Proves RFC 2385, RFC 5082; FRR.
#[test]
fn tcp_md5_and_gtsm_with_frr_over_link_local_addresses() -> Result<()> {
    Lab::test(|lab| {
        let mut node = node(lab, 1)?;
        protect(&node, 1, "hunter2")?;
        let machine = lab.machine("tor")?;
        let link = Link::new(End::new(&node.namespace, UPLINK), End::new(&machine, "node"))?;
        machine.forward()?;
        node.weft.start()?;
        let mut config = RouterConfig::new("tor", 65001, [10, 0, 0, 251].into());
        config.originate = node::blocks(&Family::BOTH, 2).into_iter().collect();
        config.password = Some("hunter2".to_owned());
        config.ttl_security = Some(1);
        let prefixes: Vec<IpNet> = config.originate.iter().copied().collect();
        let mut tor = Frr::with_interfaces(lab, &machine, config, &["node"])?;
        tor.start()?;
        wait_until("the session and the routes", PATIENCE, || {
            converged(&node, link_local(&link.far)?, &prefixes)
        })
    })
}

/// BIRD has no word for "whoever is there": it is told our address, advertises nothing, and is found as it connects.
/// Proves RFC 8950; BIRD.
#[test]
fn bird_is_found_when_it_connects() -> Result<()> {
    Lab::test(|lab| {
        let mut node = node(lab, 1)?;
        let machine = lab.machine("tor")?;
        let link = Link::new(End::new(&node.namespace, UPLINK), End::new(&machine, "n1"))?;
        machine.forward()?;
        let (own, router) = (link_local(&link.near)?, link_local(&link.far)?);
        let mut config = RouterConfig::new("tor", 65001, [10, 0, 0, 251].into());
        config.originate = node::blocks(&Family::BOTH, 2).into_iter().collect();
        config.neighbors.push(Neighbor {
            name: "n1".to_owned(),
            address: own,
            asn: 64601,
            local: router,
            families: Family::BOTH.to_vec(),
        });
        let prefixes: Vec<IpNet> = config.originate.iter().copied().collect();
        let mut bird = Bird::new(lab, &machine, config)?;
        node.weft.start()?;
        bird.start()?;
        let both = || {
            converged(&node, router, &prefixes)?;
            routed(&machine, own, "n1", &node.blocks).map(drop)
        };
        wait_until("the session and the routes", PATIENCE, both)?;
        // Now the node knows who is there, and dials itself.
        node.weft.terminate()?;
        node.weft.start()?;
        wait_until("the session and the routes to be back", PATIENCE, || converged(&node, router, &prefixes))
    })
}

/// A link that has IPv6 numbers alone: IPv4 goes over the addresses of the session.
fn numbered_with_ipv6_alone(software: Software) -> Result<()> {
    Lab::test(|lab| {
        let mut node = node(lab, 1)?;
        let machine = lab.machine("tor")?;
        let link = Link::new(End::new(&node.namespace, UPLINK), End::new(&machine, "n1"))?;
        let [near, far]: [IpAddr; 2] = ["2001:db8:1::1".parse()?, "2001:db8:1::2".parse()?];
        for (end, address) in [(&link.near, near), (&link.far, far)] {
            end.add_addresses(&[IpNet::new(address, 64)?])?;
        }
        machine.forward()?;
        write_documents(&node, 1, json!({"peerIP": far}))?;
        let mut config = RouterConfig::new("tor", 65001, [10, 0, 0, 251].into());
        let prefixes = node::blocks(&Family::BOTH, 2);
        config.originate = prefixes.iter().copied().collect();
        config.extended_next_hop = true;
        config.neighbors.push(Neighbor {
            name: "n1".to_owned(),
            address: near,
            asn: 64601,
            local: far,
            families: Family::BOTH.to_vec(),
        });
        // Somebody behind the ToR, as far as the node can see.
        for prefix in &prefixes {
            machine.ip(&format!("addr add {} dev lo", prefix.addr()))?;
        }
        let mut tor = router(lab, &machine, software, config)?;
        tor.start()?;
        node.weft.start()?;
        let told: Vec<IpNet> =
            node.blocks.iter().copied().chain(node.addresses.iter().copied().map(IpNet::from)).collect();
        wait_until("the session and the routes, both ways", PATIENCE, || {
            let peers: Value = node.weft.json("peers")?;
            ensure!(peers[0]["capabilities"]["extendedNextHop"] == true, "{peers}");
            forwarded(&node, far, &prefixes)?;
            routed(&machine, near, "n1", &told).map(drop)
        })?;
        let status = node.weft.status()?;
        ensure!(status["problems"] == json!([]), "{status}");
        for (prefix, address) in prefixes.iter().zip(&node.addresses) {
            ping(&node.namespace, prefix.addr())?;
            ping(&machine, *address)?;
        }
        Ok(())
    })
}

/// Proves RFC 8950; FRR.
#[test]
fn a_link_with_ipv6_numbers_alone_carries_ipv4_to_frr() -> Result<()> {
    numbered_with_ipv6_alone(Software::Frr)
}

/// Proves RFC 8950; BIRD.
#[test]
fn a_link_with_ipv6_numbers_alone_carries_ipv4_to_bird() -> Result<()> {
    numbered_with_ipv6_alone(Software::Bird)
}

/// A link that is not there, and one on which nobody answers, are told of.
#[test]
fn what_is_missing_is_said() -> Result<()> {
    Lab::test(|lab| {
        let mut node = node(lab, 1)?;
        node.weft.start()?;
        node.weft.wait_answers()?;
        let problem = |code: &str, words: &str| {
            wait_until(format!("the problem {code}"), PATIENCE, || {
                let status = node.weft.status()?;
                let problems = status["problems"].as_array().cloned().unwrap_or_default();
                let said = problems.iter().any(|problem| {
                    problem["code"] == code
                        && problem["text"].as_str().is_some_and(|text| text.contains(words))
                });
                ensure!(said, "{problems:?}");
                Ok(())
            })
        };
        problem("no-interface", "no interface uplink")?;
        let machine = lab.machine("nobody")?;
        Link::new(End::new(&node.namespace, UPLINK), End::new(&machine, "node"))?;
        problem("peer-down", "no router is found on uplink")
    })
}
