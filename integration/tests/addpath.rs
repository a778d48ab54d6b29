//! Several paths of a prefix (RFC 7911) behind a reflector, with other people's daemons: who is told of both origins of an anycast prefix uses both.

#![allow(clippy::indexing_slicing, reason = "a panic fails the test, which is what it is for")]
#![allow(clippy::print_stdout, reason = "the log of the tests shows which daemons they ran against")]

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use anyhow::{Result, ensure};
use ipnet::IpNet;
use serde_json::{Value, json};
use weft_integration::daemon::{Family, Neighbor, Router, RouterConfig, Software, router};
use weft_integration::documents;
use weft_integration::lab::Lab;
use weft_integration::link::{End, Switch};
use weft_integration::netns::Namespace;
use weft_integration::node::{self, Node};
use weft_integration::wait::wait_until;

const PATIENCE: Duration = Duration::from_secs(60);
const ASN: u32 = 64512;
/// Machine 1 reflects, 2 and 5 are its clients who listen, 3 and 4 those who announce.
const REFLECTOR: u8 = 1;
const ORIGINS: [u8; 2] = [3, 4];

fn address(n: u8, family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, 2, 0, n).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, 0x10, 2, 0, 0, 0, 0, n.into()).into(),
    }
}

/// What both origins announce.
fn anycast() -> BTreeSet<IpNet> {
    node::blocks(&Family::BOTH, 99).into_iter().collect()
}

fn plug(switch: &Switch, machine: &Namespace, n: u8) -> Result<()> {
    let lengths = [24, 64];
    let addresses = Family::BOTH.iter().zip(lengths).map(|(f, len)| Ok(IpNet::new(address(n, *f), len)?));
    switch.plug(End::new(machine, "eth0"))?.near.add_addresses(&addresses.collect::<Result<Vec<_>>>()?)
}

/// Somebody else's router, with a session of each family with each of `others`; it reflects for them if it is the reflector.
fn foreign(
    lab: &Lab,
    switch: &Switch,
    (n, software): (u8, Software),
    others: &[u8],
    add_path: bool,
) -> Result<Box<dyn Router>> {
    let machine = lab.machine(&format!("{software}{n}"))?;
    plug(switch, &machine, n)?;
    let mut config = RouterConfig::new(machine.label(), ASN, Ipv4Addr::new(10, 2, 0, n));
    (config.graceful_restart, config.reflects, config.hold_time) = (false, n == REFLECTOR, 3);
    config.add_path = add_path;
    if ORIGINS.contains(&n) {
        config.originate = anycast();
    }
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
    println!("addpath: {} runs", router.version()?);
    router.start()?;
    Ok(router)
}

fn origins(lab: &Lab, switch: &Switch) -> Result<Vec<Box<dyn Router>>> {
    ORIGINS.iter().map(|n| foreign(lab, switch, (*n, Software::Bird), &[REFLECTOR], false)).collect()
}

/// A node with weftd, with a session of each family with each of `others`, which have these fields besides.
fn own(lab: &Lab, switch: &Switch, n: u8, others: &[u8], fields: &Value) -> Result<Node> {
    let name = format!("n{n}");
    let addresses = Family::BOTH.map(|family| address(n, family)).to_vec();
    let mut node = Node::new(lab, &name, addresses, node::blocks(&Family::BOTH, n))?;
    plug(switch, &node.namespace, n)?;
    let settings = json!({"asNumber": ASN, "nodeToNodeMeshEnabled": false, "holdTime": "3s"});
    let mut all = vec![documents::bgp_configuration(&settings)];
    all.extend(Family::BOTH.map(documents::pod_pool));
    all.push(documents::node(&name, &[], &node.blocks, &node.addresses));
    for (other, family) in others.iter().flat_map(|other| Family::BOTH.map(|family| (*other, family))) {
        let mut spec = json!({
            "peerIP": address(other, family), "asNumber": "internal", "families": [family.unicast()],
            "routeReflectorClient": n == REFLECTOR,
        });
        for (key, value) in fields.as_object().into_iter().flatten() {
            spec[key] = value.clone();
        }
        all.push(documents::bgp_peer(&format!("m{other}-{}", family.unicast()), &name, spec));
    }
    documents::write(&node.weft.manifests(), "all.yaml", &all)?;
    node.weft.start()?;
    Ok(node)
}

/// That a router has a path over each of these origins, and no other.
fn ensure_told(router: &dyn Router, origins: &[u8]) -> Result<()> {
    for prefix in anycast() {
        let family = Family::of(prefix.addr());
        let paths = router.paths(prefix)?;
        let over = |n: &u8| paths.iter().filter(|p| p.next_hops.contains(&address(*n, family))).count() == 1;
        ensure!(
            paths.len() == origins.len() && origins.iter().all(over),
            "{}: {prefix}: {paths:?}",
            router.name()
        );
    }
    Ok(())
}

/// That a node's kernel forwards over these origins, beside each other.
fn ensure_forwards(node: &Node, origins: &[u8]) -> Result<()> {
    for prefix in anycast() {
        let kernel = node.namespace.routes_to(prefix)?;
        let [route] = &kernel[..] else { anyhow::bail!("{}: {prefix}: {kernel:?}", node.name) };
        let legs = route["nexthops"].as_array().cloned().unwrap_or_else(|| vec![route.clone()]);
        let gateways: BTreeSet<String> =
            legs.iter().filter_map(|leg| leg["gateway"].as_str().map(str::to_owned)).collect();
        let wanted = origins.iter().map(|n| address(*n, Family::of(prefix.addr())).to_string()).collect();
        ensure!(gateways == wanted, "{}: {prefix}: {kernel:?}", node.name);
    }
    Ok(())
}

/// What of a session's directions was agreed on, of a family.
fn agreed(node: &Node, peer: u8, family: Family) -> Result<(bool, bool)> {
    let peers: Vec<Value> = node.weft.json(&format!("peers {}", address(peer, family)))?;
    let several = &peers[0]["capabilities"]["addPath"];
    let has = |key: &str| several[key] == json!([family.unicast()]);
    Ok((has("receive"), has("send")))
}

/// The path identifiers of the anycast prefix in a RIB of a node's.
fn path_ids(node: &Node, rib: &str, peer: u8, prefix: IpNet) -> Result<BTreeSet<u64>> {
    let peer = address(peer, Family::of(prefix.addr()));
    let routes: Vec<Value> = node.weft.json(&format!("routes {prefix} --rib {rib} --peer {peer}"))?;
    let paths = routes.iter().flat_map(|route| route["paths"].as_array().cloned().unwrap_or_default());
    Ok(paths.filter_map(|path| path["pathId"].as_u64()).collect())
}

/// weftd reflects, for somebody else's client and one of its own.
fn weftd_tells(software: Software) -> Result<()> {
    Lab::test(|lab| {
        let switch = Switch::new(lab.machine("switch")?)?;
        let several = json!({"addPath": {"receive": true, "send": "Multipath"}});
        let reflector = own(lab, &switch, REFLECTOR, &[2, 3, 4, 5], &several)?;
        let mut origins = origins(lab, &switch)?;
        let client = foreign(lab, &switch, (2, software), &[REFLECTOR], true)?;
        let node = own(lab, &switch, 5, &[REFLECTOR], &json!({"addPath": {"receive": true}}))?;
        wait_until("the clients to have both origins", PATIENCE, || {
            ensure_told(client.as_ref(), &ORIGINS)?;
            ensure_forwards(&node, &ORIGINS)
        })?;
        for family in Family::BOTH {
            ensure!(agreed(&reflector, 2, family)? == (true, true), "{software}, {family:?}");
            ensure!(agreed(&reflector, 3, family)? == (false, false), "an origin without, {family:?}");
            ensure!(agreed(&node, REFLECTOR, family)? == (true, false), "the other end, {family:?}");
        }
        for prefix in anycast() {
            let told = path_ids(&reflector, "out", 2, prefix)?;
            ensure!(told.len() == 2 && told == path_ids(&node, "in", REFLECTOR, prefix)?, "{told:?}");
        }

        // One origin goes, the other keeps its identifier; it comes back.
        let before = node::blocks(&Family::BOTH, 99);
        let kept: Vec<_> =
            before.iter().map(|prefix| path_ids(&reflector, "out", 2, *prefix)).collect::<Result<_>>()?;
        origins[0].originate(&BTreeSet::new())?;
        wait_until("one origin to be left", PATIENCE, || {
            ensure_told(client.as_ref(), &ORIGINS[1..])?;
            ensure_forwards(&node, &ORIGINS[1..])
        })?;
        for (prefix, before) in before.iter().zip(kept) {
            let left = path_ids(&reflector, "out", 2, *prefix)?;
            ensure!(left.len() == 1 && left.is_subset(&before), "{left:?} of {before:?}");
        }
        origins[0].originate(&anycast())?;
        wait_until("both again", PATIENCE, || {
            ensure_told(client.as_ref(), &ORIGINS)?;
            ensure_forwards(&node, &ORIGINS)
        })?;
        origins[1].kill9()?;
        wait_until("the loss of an origin", PATIENCE, || {
            ensure_told(client.as_ref(), &ORIGINS[..1])?;
            ensure_forwards(&node, &ORIGINS[..1])
        })
    })
}

/// Somebody else reflects, for a node.
fn weftd_hears(software: Software) -> Result<()> {
    Lab::test(|lab| {
        let switch = Switch::new(lab.machine("switch")?)?;
        let _reflector = foreign(lab, &switch, (REFLECTOR, software), &[2, 3, 4], true)?;
        let mut origins = origins(lab, &switch)?;
        let both = json!({"addPath": {"receive": true, "send": "All", "sendMax": 4}});
        let node = own(lab, &switch, 2, &[REFLECTOR], &both)?;
        wait_until("the node to use both origins", PATIENCE, || ensure_forwards(&node, &ORIGINS))?;
        for prefix in anycast() {
            let family = Family::of(prefix.addr());
            ensure!(agreed(&node, REFLECTOR, family)? == (true, true), "{software}, {family:?}");
            let told = path_ids(&node, "in", REFLECTOR, prefix)?;
            ensure!(told.len() == 2, "{told:?}");
        }
        // Its own blocks are told with identifiers.
        wait_until("the reflector to pass on the node's blocks", PATIENCE, || {
            for block in &node.blocks {
                let path = origins[0].best(*block)?;
                let next_hop = address(2, Family::of(block.addr()));
                ensure!(path.next_hops.contains(&next_hop), "{path:?}");
            }
            Ok(())
        })?;
        origins[1].originate(&BTreeSet::new())?;
        wait_until("one origin to be left", PATIENCE, || ensure_forwards(&node, &ORIGINS[..1]))?;
        origins[1].originate(&anycast())?;
        wait_until("both again", PATIENCE, || ensure_forwards(&node, &ORIGINS))?;
        // The table told again is the same: no path is lost, none is left over.
        node.weft.weftctl("clear all --soft in")?.success()?;
        wait_until("a refresh to have ended", PATIENCE, || {
            let peers: Vec<Value> = node.weft.json("peers")?;
            let stale =
                peers.iter().flat_map(|peer| Family::BOTH.map(|f| &peer["perFamily"][f.unicast()]["stale"]));
            ensure!(stale.filter_map(Value::as_u64).sum::<u64>() == 0, "{peers:?}");
            ensure_forwards(&node, &ORIGINS)
        })
    })
}

/// Proves RFC 7911; BIRD.
#[test]
fn weftd_tells_bird_several_paths() -> Result<()> {
    weftd_tells(Software::Bird)
}

/// Proves RFC 7911; FRR, BIRD.
#[test]
fn weftd_tells_frr_several_paths() -> Result<()> {
    weftd_tells(Software::Frr)
}

/// Proves RFC 7911; GoBGP, BIRD.
#[test]
fn weftd_tells_gobgp_several_paths() -> Result<()> {
    weftd_tells(Software::Gobgp)
}

/// Proves RFC 7911; BIRD.
#[test]
fn weftd_hears_several_paths_of_bird() -> Result<()> {
    weftd_hears(Software::Bird)
}

/// Proves RFC 7911; FRR, BIRD.
#[test]
fn weftd_hears_several_paths_of_frr() -> Result<()> {
    weftd_hears(Software::Frr)
}

/// Proves RFC 7911; GoBGP, BIRD.
#[test]
fn weftd_hears_several_paths_of_gobgp() -> Result<()> {
    weftd_hears(Software::Gobgp)
}
