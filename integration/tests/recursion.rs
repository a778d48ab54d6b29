//! A mesh across racks whose subnets only the ToRs announce: next hops that no route but BGP's own leads to.

#![allow(clippy::indexing_slicing, reason = "a panic fails the test, which is what it is for")]
#![allow(clippy::print_stdout, reason = "the log of the tests shows which daemons they ran against")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ipnet::IpNet;
use serde_json::{Value, json};
use weft_integration::daemon::{Family, Neighbor, Router, RouterConfig, Software, router};
use weft_integration::documents;
use weft_integration::fabric::wait_reachable;
use weft_integration::lab::Lab;
use weft_integration::link::{End, Link};
use weft_integration::monitor::RouteMonitor;
use weft_integration::netns::Namespace;
use weft_integration::node::{self, Node};
use weft_integration::wait::wait_until;

const PATIENCE: Duration = Duration::from_secs(60);
const NODES_ASN: u32 = 64512;
/// The link between the ToRs; racks are 1 and 2.
const BETWEEN: u8 = 0;
const TOR: u8 = 1;
const NODE: u8 = 11;

fn address(rack: u8, host: u8, family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, 5, rack, host).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, 0x10, 5, rack.into(), 0, 0, 0, host.into()).into(),
    }
}

fn subnet(rack: u8, host: u8, family: Family) -> Result<IpNet> {
    let length = if family == Family::V4 { 24 } else { 64 };
    Ok(IpNet::new(address(rack, host, family), length)?)
}

fn subnets(rack: u8, host: u8) -> Result<Vec<IpNet>> {
    Family::BOTH.iter().map(|family| subnet(rack, host, *family)).collect()
}

fn other(rack: u8) -> u8 {
    3 - rack
}

fn tor_asn(rack: u8) -> u32 {
    65000 + u32::from(rack)
}

/// A ToR that announces its rack's subnet, and passes on what it hears.
fn tor(lab: &Lab, machine: &Namespace, rack: u8, software: Software) -> Result<Box<dyn Router>> {
    machine.forward()?;
    let mut config = RouterConfig::new(machine.label(), tor_asn(rack), Ipv4Addr::new(10, 5, rack, TOR));
    // With the node that restarts below, and not between the ToRs, which are to notice at once that they are apart.
    (config.graceful_restart, config.hold_time) = (rack == 1, 3);
    config.originate = subnets(rack, 0)?.into_iter().collect();
    for family in Family::BOTH {
        let mut neighbor = |name: &str, asn, subnet, host, own| {
            config.neighbors.push(Neighbor {
                name: format!("{name}{}", family.unicast().replace('-', "")),
                address: address(subnet, host, family),
                asn,
                local: address(subnet, own, family),
                families: vec![family],
            });
        };
        neighbor("node", NODES_ASN, rack, NODE, TOR);
        neighbor("tor", tor_asn(other(rack)), BETWEEN, other(rack), rack);
    }
    let mut router = router(lab, machine, software, config)?;
    println!("recursion: {} runs", router.version()?);
    router.start()?;
    Ok(router)
}

/// The node of a rack: of its ToR it believes racks' subnets alone, of the other node the blocks.
fn rack_node(lab: &Lab, tor: &Namespace, rack: u8) -> Result<Node> {
    let addresses = |rack| Family::BOTH.map(|family| address(rack, NODE, family)).to_vec();
    let blocks = |rack| node::blocks(&Family::BOTH, rack);
    let mut node = Node::new(lab, &format!("n{rack}"), addresses(rack), blocks(rack))?;
    let link = Link::new(End::new(&node.namespace, "eth0"), End::new(tor, "node"))?;
    link.near.add_addresses(&subnets(rack, NODE)?)?;
    link.far.add_addresses(&subnets(rack, TOR)?)?;

    // The own rack's among them.
    let accept = |cidr: &str| json!([{"cidr": cidr, "matchOperator": "In", "action": "Accept"}]);
    let filter = json!({"importV4": accept("10.5.0.0/16"), "importV6": accept("fd00:10:5::/48")});
    let settings = json!({"asNumber": NODES_ASN, "holdTime": "3s"});
    let mut all =
        vec![documents::bgp_configuration(&settings), documents::resource("BGPFilter", "subnets", &filter)];
    all.extend(Family::BOTH.map(documents::pod_pool));
    all.extend([1, 2].map(|rack| documents::node(&format!("n{rack}"), &[], &blocks(rack), &addresses(rack))));
    all.extend(Family::BOTH.map(|family| {
        let spec = json!({
            "peerIP": address(rack, TOR, family), "asNumber": tor_asn(rack), "families": [family.unicast()],
            "filters": ["subnets"],
        });
        documents::bgp_peer(&format!("tor-{}", family.unicast()), &node.name, spec)
    }));
    documents::write(&node.weft.manifests(), "all.yaml", &all)?;
    node.weft.start()?;
    Ok(node)
}

fn path_to(node: &Node, block: IpNet) -> Result<Value> {
    let routes: Value = node.weft.json(&format!("routes {block}"))?;
    Ok(routes[0]["paths"][0].clone())
}

/// That a node sends what is for the other rack's block to its ToR, as that is where the other node's subnet is.
fn ensure_sends_over_subnet(node: &Node, rack: u8) -> Result<()> {
    for family in Family::BOTH {
        let (block, over) = (node::block(family, other(rack)), subnet(other(rack), 0, family)?);
        let path = path_to(node, block)?;
        let next_hop = address(other(rack), NODE, family);
        let good = path["best"] == true
            && path["nextHops"] == json!([next_hop])
            && path["nextHopOver"] == json!(over)
            && path["asPath"] == json!([]);
        ensure!(good, "{}: {path}", node.name);
        let fib: Value = node.weft.json("fib")?;
        let entry = fib.as_array().and_then(|all| all.iter().find(|entry| entry["prefix"] == json!(block)));
        let entry = entry.with_context(|| format!("{block} is not in {fib}"))?;
        ensure!(entry["over"] == json!([over]) && entry["state"] == "installed", "{entry}");
        let kernel = node.namespace.routes_to(block)?;
        let gateway =
            kernel.first().with_context(|| format!("no route to {block} in the kernel"))?["gateway"].clone();
        ensure!(gateway == json!(address(rack, TOR, family)), "{}: {kernel:?}", node.name);
    }
    Ok(())
}

/// Next hops of the mesh are reached over the ToRs' routes; those go when the racks are apart, and come back.
///
/// Proves RFC 4271 9.1.2.1; BIRD, FRR.
#[test]
fn a_mesh_across_racks_resolves_over_what_the_tors_announce() -> Result<()> {
    Lab::test(|lab| {
        let machines = [lab.machine("t1")?, lab.machine("t2")?];
        let cable = Link::new(End::new(&machines[0], "tor"), End::new(&machines[1], "tor"))?;
        cable.near.add_addresses(&subnets(BETWEEN, 1)?)?;
        cable.far.add_addresses(&subnets(BETWEEN, 2)?)?;
        let mut nodes = [rack_node(lab, &machines[0], 1)?, rack_node(lab, &machines[1], 2)?];
        let _tors = [tor(lab, &machines[0], 1, Software::Frr)?, tor(lab, &machines[1], 2, Software::Bird)?];
        for node in &mut nodes {
            node.wait_ready_for_pods()?;
            node.add_pod(lab)?;
        }
        let across = |nodes: &[Node; 2]| {
            wait_until("the blocks over the subnets", PATIENCE, || {
                ensure_sends_over_subnet(&nodes[0], 1).and_then(|()| ensure_sends_over_subnet(&nodes[1], 2))
            })?;
            wait_reachable(nodes, PATIENCE)
        };
        across(&nodes)?;
        let (_, metrics) = nodes[0].weft.http("/metrics")?;
        ensure!(metrics.contains("weft_next_hops{state=\"recursive\"} 2"), "{metrics}");
        let shown = nodes[0].weft.weftctl("routes")?.stdout;
        ensure!(shown.contains("10.5.2.11 over 10.5.2.0/24"), "{shown}");

        // Where the subnets go the blocks go with them, whether or not the mesh's session has been missed yet.
        cable.cut()?;
        wait_until("the blocks to go with the subnets", PATIENCE, || {
            for (node, rack) in nodes.iter().zip([1, 2]) {
                for family in Family::BOTH {
                    for gone in [subnet(other(rack), 0, family)?, node::block(family, other(rack))] {
                        let kernel = node.namespace.routes_to(gone)?;
                        ensure!(kernel.is_empty(), "{}: {kernel:?}", node.name);
                    }
                }
            }
            Ok(())
        })?;
        cable.heal()?;
        across(&nodes)?;

        // A restart takes none of them out of the kernel, not for a moment.
        let monitor = RouteMonitor::start(lab, &nodes[0].namespace)?;
        nodes[0].weft.kill9()?;
        nodes[0].weft.start()?;
        wait_until("the node to be ready again", PATIENCE, || {
            let (code, said) = nodes[0].weft.http("/readyz")?;
            ensure!(code == 200, "{said}");
            Ok(())
        })?;
        across(&nodes)?;
        let deleted = monitor.deleted()?;
        ensure!(deleted.is_empty(), "{deleted:?}");
        Ok(())
    })
}
