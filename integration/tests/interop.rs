//! weftd and other people's daemons, face to face: routes in both tables, withdraws, session loss, restarts.

#![allow(clippy::indexing_slicing, reason = "a panic fails the test, which is what it is for")]
#![allow(clippy::print_stdout, reason = "the log of the tests shows which daemons they ran against")]

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ipnet::IpNet;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use weft_integration::daemon::exabgp::{Exabgp, Speaker};
use weft_integration::daemon::{Family, Neighbor, Router, RouterConfig, Software, router};
use weft_integration::documents;
use weft_integration::lab::Lab;
use weft_integration::link::{End, Link};
use weft_integration::netns::Namespace;
use weft_integration::node::{self, Node};
use weft_integration::wait::{now, wait_until};

const PATIENCE: Duration = Duration::from_secs(40);
const NODE_ASN: u32 = 64601;
const HOLD_TIME: u16 = 3;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sessions {
    /// One over IPv4 and one over IPv6, each with its own family.
    PerFamily,
    /// One over IPv4 with both families.
    OverIpv4,
    /// One over IPv6 with both families.
    OverIpv6,
}

/// A node and a router on one cable.
struct Pair {
    node: Node,
    router: Box<dyn Router>,
    link: Link,
    /// The router's addresses that the node has a session with.
    peers: Vec<IpAddr>,
    /// The same seen from the router.
    neighbors: Vec<IpAddr>,
    router_asn: u32,
}

impl Pair {
    fn up(lab: &Lab, software: Software, router_asn: u32, sessions: Sessions) -> Result<Self> {
        let own = node::loopback(&Family::BOTH, 1);
        let node = Node::new(lab, "node", own.clone(), node::blocks(&Family::BOTH, 1))?;
        node.namespace.ip(&format!("addr add {} dev lo\naddr add {} dev lo", own[0], own[1]))?;
        let machine = lab.machine("tor")?;
        let link = Link::new(End::new(&node.namespace, "uplink"), End::new(&machine, "node"))?;
        link.near.add_addresses(&["10.1.0.0/31".parse()?, "fd00:10:1::/127".parse()?])?;
        link.far.add_addresses(&["10.1.0.1/31".parse()?, "fd00:10:1::1/127".parse()?])?;
        let ends: [(IpAddr, IpAddr); 2] =
            [("10.1.0.0".parse()?, "10.1.0.1".parse()?), ("fd00:10:1::".parse()?, "fd00:10:1::1".parse()?)];
        let sessions: Vec<((IpAddr, IpAddr), Vec<Family>)> = match sessions {
            Sessions::PerFamily => vec![(ends[0], vec![Family::V4]), (ends[1], vec![Family::V6])],
            Sessions::OverIpv4 => vec![(ends[0], Family::BOTH.to_vec())],
            Sessions::OverIpv6 => vec![(ends[1], Family::BOTH.to_vec())],
        };
        let mut config = RouterConfig::new("tor", router_asn, [10, 0, 0, 255].into());
        config.graceful_restart = false;
        config.hold_time = HOLD_TIME;
        config.originate = node::blocks(&Family::BOTH, 99).into_iter().collect();
        let mut documents = vec![documents::bgp_configuration(&json!({
            "asNumber": NODE_ASN, "nodeToNodeMeshEnabled": false, "holdTime": format!("{HOLD_TIME}s"),
        }))];
        documents.extend(Family::BOTH.map(documents::pod_pool));
        for (number, ((local, remote), families)) in sessions.iter().enumerate() {
            config.neighbors.push(Neighbor {
                name: "node".to_owned(),
                address: *local,
                asn: NODE_ASN,
                local: *remote,
                families: families.clone(),
            });
            let names: Vec<&str> = families.iter().map(|family| family.unicast()).collect();
            let spec = json!({"peerIP": remote, "asNumber": router_asn, "families": names});
            documents.push(documents::bgp_peer(&format!("tor-{number}"), "node", spec));
        }
        documents::write(&node.weft.manifests(), "bgp.yaml", &documents)?;
        let router = router(lab, &machine, software, config)?;
        println!("interop: {} runs", router.version()?);
        let peers = sessions.iter().map(|((_, remote), _)| *remote).collect();
        let neighbors = sessions.iter().map(|((local, _), _)| *local).collect();
        let mut pair = Self { node, router, link, peers, neighbors, router_asn };
        pair.write_node(&pair.node.blocks)?;
        pair.node.weft.start()?;
        pair.router.start()?;
        Ok(pair)
    }

    fn write_node(&self, blocks: &[IpNet]) -> Result<()> {
        let node = documents::node("node", &[], blocks, &self.node.addresses);
        documents::write(&self.node.weft.manifests(), "node.yaml", &[node])
    }

    fn internal(&self) -> bool {
        self.router_asn == NODE_ASN
    }

    /// All sessions are up, and each side has what the other announces, with the right AS path and next hop.
    fn converged(&self) -> Result<()> {
        self.peers.iter().try_for_each(|peer| self.node.weft.established(*peer).map(drop))?;
        self.neighbors.iter().try_for_each(|neighbor| self.router.ensure_established(*neighbor))?;
        for block in &self.node.blocks {
            let path = self.router.best(*block)?;
            let expected: &[u32] = if self.internal() { &[] } else { &[NODE_ASN] };
            ensure!(path.as_path == expected, "{block}: {path:?}");
            let next_hop = if block.addr().is_ipv4() { "10.1.0.0" } else { "fd00:10:1::" }.parse()?;
            ensure!(path.next_hops.contains(&next_hop), "{block}: {path:?}, not via {next_hop}");
        }
        for block in self.router_blocks() {
            let path = self.node.weft.forwards(block)?;
            let expected = if self.internal() { vec![] } else { vec![json!(self.router_asn)] };
            ensure!(path.as_path == expected, "{block}: {path:?}");
            let kernel = self.node.namespace.routes_to(block)?;
            ensure!(kernel.len() == 1 && kernel[0]["protocol"] == "176", "{block}: {kernel:?}");
            ensure!(kernel[0]["dev"] == "uplink", "{block}: {kernel:?}");
            ensure!(
                kernel[0]["prefsrc"] == json!(self.node.address(Family::of(block.addr()))?),
                "{block}: {kernel:?}"
            );
        }
        Ok(())
    }

    fn router_blocks(&self) -> Vec<IpNet> {
        node::blocks(&Family::BOTH, 99)
    }

    fn wait_converged(&self, when: &str) -> Result<()> {
        wait_until("sessions and routes", PATIENCE, || self.converged()).with_context(|| when.to_owned())
    }

    fn wait_node_lost_routes(&self, when: &str, limit: Duration) -> Result<()> {
        wait_until("the node to drop the routes", limit, || {
            self.router_blocks().iter().try_for_each(|block| self.node.weft.ensure_no_path(*block))
        })
        .with_context(|| when.to_owned())
    }

    fn wait_router_lost_routes(&self, when: &str) -> Result<()> {
        wait_until("the router to drop the routes", PATIENCE, || {
            self.node.blocks.iter().try_for_each(|block| self.router.ensure_no_path(*block))
        })
        .with_context(|| when.to_owned())
    }
}

fn exchange_withdraw_lose_recover(software: Software, router_asn: u32, sessions: Sessions) -> Result<()> {
    Lab::test(|lab| {
        let mut pair = Pair::up(lab, software, router_asn, sessions)?;
        pair.wait_converged("at first")?;

        pair.router.originate(&BTreeSet::new())?;
        pair.wait_node_lost_routes("the router withdrew", PATIENCE)?;
        pair.write_node(&[])?;
        pair.wait_router_lost_routes("the node withdrew")?;
        pair.router.originate(&pair.router_blocks().into_iter().collect())?;
        pair.write_node(&pair.node.blocks)?;
        pair.wait_converged("after both announced again")?;

        pair.router.kill9()?;
        pair.wait_node_lost_routes("the router was killed", PATIENCE)?;
        pair.router.start()?;
        pair.wait_converged("after the router's restart")?;

        pair.node.weft.terminate()?;
        pair.wait_router_lost_routes("weftd ended")?;
        pair.node.weft.start()?;
        pair.wait_converged("after weftd's restart")
    })
}

/// A peer that holds its connection and is silent is dead when the hold time is over, and welcome when it speaks again.
fn silence_is_death(software: Software) -> Result<()> {
    Lab::test(|lab| {
        let mut pair = Pair::up(lab, software, 65001, Sessions::PerFamily)?;
        pair.wait_converged("at first")?;
        let start = now();
        pair.router.signal(Signal::SIGSTOP)?;
        pair.wait_node_lost_routes("the router is silent", Duration::from_secs(u64::from(HOLD_TIME) + 5))?;
        let after = start.elapsed();
        ensure!(after > Duration::from_secs(1), "dropped {after:?} after the last KEEPALIVE could have come");
        let error = pair.node.weft.peer(pair.peers[0])?.last_error.context("no error is shown")?;
        ensure!(error.code == Some(4) && error.direction == "sent", "{error:?}");
        pair.router.signal(Signal::SIGCONT)?;
        pair.wait_converged("after the router spoke again")
    })
}

/// A cut cable is noticed by its carrier, long before the hold time.
fn a_cut_cable_is_noticed(software: Software) -> Result<()> {
    Lab::test(|lab| {
        let pair = Pair::up(lab, software, 65001, Sessions::PerFamily)?;
        pair.wait_converged("at first")?;
        pair.link.cut()?;
        pair.wait_node_lost_routes("the cable was cut", Duration::from_secs(2))?;
        pair.link.heal()?;
        pair.wait_converged("after the cable was mended")
    })
}

macro_rules! interop {
    ($($(#[$proof:meta])* $name:ident: $software:ident, $asn:expr, $sessions:ident;)*) => {
        $($(#[$proof])*
        #[test]
        fn $name() -> Result<()> {
            exchange_withdraw_lose_recover(Software::$software, $asn, Sessions::$sessions)
        })*
    };
}

interop! {
    /// Proves RFC 4271, RFC 4760; BIRD.
    bird_external: Bird, 65001, PerFamily;
    /// Proves RFC 4271, RFC 4760; BIRD.
    bird_internal: Bird, NODE_ASN, PerFamily;
    /// Proves RFC 2545 3; BIRD.
    bird_external_both_families_over_ipv4: Bird, 65001, OverIpv4;
    bird_external_both_families_over_ipv6: Bird, 65001, OverIpv6;
    bird_internal_both_families_over_ipv4: Bird, NODE_ASN, OverIpv4;
    /// Proves RFC 4271, RFC 4760, RFC 6793; FRR.
    frr_external: Frr, 4_200_000_001, PerFamily;
    /// Proves RFC 4271, RFC 4760; FRR.
    frr_internal: Frr, NODE_ASN, PerFamily;
    /// Proves RFC 2545 3; FRR.
    frr_external_both_families_over_ipv4: Frr, 65001, OverIpv4;
    frr_external_both_families_over_ipv6: Frr, 65001, OverIpv6;
    /// Proves RFC 4271, RFC 4760; GoBGP.
    gobgp_external: Gobgp, 65001, PerFamily;
    /// Proves RFC 4271, RFC 4760; GoBGP.
    gobgp_internal: Gobgp, NODE_ASN, PerFamily;
    /// Proves RFC 4271, RFC 4760; OpenBGPD.
    openbgpd_external: Openbgpd, 65001, PerFamily;
    /// Proves RFC 4271, RFC 4760; OpenBGPD.
    openbgpd_internal: Openbgpd, NODE_ASN, PerFamily;
}

/// A node between an ExaBGP on the left, which tells what it is written, and a GoBGP on the right.
fn behind_exabgp(lab: &Lab) -> Result<(Node, Exabgp, Box<dyn Router>)> {
    let own = node::loopback(&Family::BOTH, 1);
    let node = Node::new(lab, "node", own.clone(), node::blocks(&Family::BOTH, 1))?;
    node.namespace.ip(&format!("addr add {} dev lo\naddr add {} dev lo", own[0], own[1]))?;
    let cable = |name: &str, low: u8| -> Result<(Namespace, Neighbor)> {
        let machine = lab.machine(name)?;
        let link = Link::new(End::new(&node.namespace, name), End::new(&machine, "node"))?;
        let addresses = |n: u8| -> Result<[IpNet; 2]> {
            Ok([format!("10.1.0.{n}/31").parse()?, format!("fd00:10:1::{n}/127").parse()?])
        };
        link.near.add_addresses(&addresses(low)?)?;
        link.far.add_addresses(&addresses(low + 1)?)?;
        let [address, local] = [low, low + 1].map(|n| IpAddr::from([10, 1, 0, n]));
        let (name, families) = ("node".to_owned(), Family::BOTH.to_vec());
        Ok((machine, Neighbor { name, address, asn: NODE_ASN, local, families }))
    };
    let (left, exabgp) = cable("left", 0)?;
    let (right, gobgp) = cable("right", 2)?;
    let transit = json!([{"action": "Accept"}, {"action": "Accept", "source": "RemotePeers"}]);
    let peers = [
        json!({"peerIP": exabgp.local, "asNumber": 65001, "role": "provider", "addPath": {"receive": true}}),
        json!({"peerIP": gobgp.local, "asNumber": 65003, "filters": ["transit"]}),
    ];
    let mut documents = vec![
        documents::node("node", &[], &node.blocks, &node.addresses),
        documents::bgp_configuration(&json!({"asNumber": NODE_ASN, "nodeToNodeMeshEnabled": false})),
        documents::resource("BGPFilter", "transit", &json!({"exportV4": transit, "exportV6": transit})),
    ];
    documents.extend(
        ["left", "right"].into_iter().zip(peers).map(|(n, peer)| documents::bgp_peer(n, "node", peer)),
    );
    documents.extend(Family::BOTH.map(documents::pod_pool));
    documents::write(&node.weft.manifests(), "bgp.yaml", &documents)?;
    let mut config = RouterConfig::new("right", 65003, [10, 0, 0, 254].into());
    config.graceful_restart = false;
    config.neighbors.push(gobgp);
    let gobgp = router(lab, &right, Software::Gobgp, config)?;
    let routes = [
        // Type 99 is no attribute that anybody knows, and is to be passed on: optional, transitive.
        "route 10.244.99.0/26 next-hop 10.1.0.1 path-information 0.0.0.1 attribute [0x63 0xc0 0x01020304]",
        "route 10.244.99.0/26 next-hop 10.1.0.1 path-information 0.0.0.2 med 100",
        "route fd00:10:244:99::/122 next-hop fd00:10:1::1 path-information 0.0.0.1",
        // ONLY_TO_CUSTOMER, of a customer.
        "route 10.244.98.0/26 next-hop 10.1.0.1 path-information 0.0.0.1 attribute [0x23 0xc0 0x0000fde9]",
    ];
    let speaker = Speaker {
        asn: 65001,
        router_id: [10, 0, 0, 255].into(),
        neighbor: exabgp,
        routes: routes.map(str::to_owned).to_vec(),
        add_path: true,
    };
    println!("interop: {} and {} run", Exabgp::version()?, gobgp.version()?);
    let exabgp = Exabgp::start(lab, &left, &[speaker])?;
    Ok((node, exabgp, gobgp))
}

/// Paths by identifiers, an unknown attribute that goes on with Partial as RFC 4271 says, a leak; both families on one session.
/// Proves RFC 4271 5, RFC 4760, RFC 7911, RFC 9234; ExaBGP, GoBGP.
#[test]
fn exabgp_tells_odd_routes_that_go_on_as_they_should() -> Result<()> {
    Lab::test(|lab| {
        let (mut node, exabgp, mut gobgp) = behind_exabgp(lab)?;
        node.weft.start()?;
        gobgp.start()?;
        let [v4, v6, leak] =
            ["10.244.99.0/26".parse()?, "fd00:10:244:99::/122".parse()?, "10.244.98.0/26".parse::<IpNet>()?];
        wait_until("routes both ways", PATIENCE, || {
            for theirs in [v4, v6] {
                node.weft.forwards(theirs)?;
                let told = gobgp.best(theirs)?;
                ensure!(told.as_path == [NODE_ASN, 65001], "{told:?}");
            }
            for own in &node.blocks {
                gobgp.best(*own)?;
                let told = exabgp.attributes("10.1.0.0".parse()?, *own)?;
                // By the roles it is told to the left one's customers only.
                ensure!(
                    told["as-path"] == json!([NODE_ASN]) && told["attribute-0x23-0xE0"] == "0x0000fc59",
                    "{told}"
                );
            }
            Ok(())
        })?;
        let told: Value = serde_json::from_str(&gobgp.ask(&format!("global rib {v4} -a ipv4 -j"))?)?;
        let attributes = told[v4.to_string()][0]["attrs"].as_array().context("no attributes")?;
        let unknown = attributes.iter().find(|a| a["type"] == 99).with_context(|| format!("{told}"))?;
        // Optional, transitive, and partial, as there is one on its way who does not know it; the octets are in Base64.
        ensure!(unknown["flags"] == 0xE0 && unknown["value"] == "AQIDBA==", "{unknown}");
        let routes: Vec<Value> = node.weft.json(&format!("routes {v4}"))?;
        let paths = routes[0]["paths"].as_array().context("no paths")?;
        let ids: BTreeSet<_> = paths.iter().map(|path| path["pathId"].as_u64()).collect();
        ensure!(ids == BTreeSet::from([Some(1), Some(2)]), "{paths:?}");
        let kept = node.weft.route(leak)?.context("the leak is not kept")?;
        let reason = kept.paths[0].reason.as_ref().context("no reason")?;
        ensure!(reason.code == "route-leak", "{kept:?}");
        gobgp.ensure_no_path(leak)?;

        exabgp.kill9()?;
        wait_until("its routes to go with it", PATIENCE, || {
            [v4, v6].into_iter().try_for_each(|theirs| {
                node.weft.ensure_no_path(theirs)?;
                gobgp.ensure_no_path(theirs)
            })
        })
    })
}

/// Proves RFC 4271 6.5; BIRD.
#[test]
fn silence_of_bird_is_death() -> Result<()> {
    silence_is_death(Software::Bird)
}

/// Proves RFC 4271 6.5; FRR.
#[test]
fn silence_of_frr_is_death() -> Result<()> {
    silence_is_death(Software::Frr)
}

/// Proves RFC 4271 6.5; GoBGP.
#[test]
fn silence_of_gobgp_is_death() -> Result<()> {
    silence_is_death(Software::Gobgp)
}

#[test]
fn a_cut_cable_to_bird_is_noticed() -> Result<()> {
    a_cut_cable_is_noticed(Software::Bird)
}

#[test]
fn a_cut_cable_to_frr_is_noticed() -> Result<()> {
    a_cut_cable_is_noticed(Software::Frr)
}
