//! BFD face to face with other people's: a path that dies without a word costs the detection time, and nothing else ends a session.

#![allow(clippy::indexing_slicing, reason = "a panic fails the test, which is what it is for")]
#![allow(clippy::print_stdout, reason = "the log of the tests shows how long it took")]

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use ipnet::IpNet;
use serde_json::{Value, json};
use weft_integration::daemon::frr::Frr;
use weft_integration::daemon::weft::PeerBfd;
use weft_integration::daemon::{Bfd, Family, Neighbor, Router, RouterConfig, Software, router};
use weft_integration::documents;
use weft_integration::lab::Lab;
use weft_integration::lan::{Lan, LanSpec};
use weft_integration::link::{End, Link};
use weft_integration::monitor::RouteMonitor;
use weft_integration::netns::Namespace;
use weft_integration::node::{self, Node};
use weft_integration::process::{SHORT, run_with_input};
use weft_integration::wait::{now, stays, wait_until};

const PATIENCE: Duration = Duration::from_secs(40);
const NODE_ASN: u32 = 64601;
const ROUTER_ASN: u32 = 65001;
/// So long that nothing here can be its doing.
const HOLD_TIME: u16 = 90;
/// 100 ms × 3, and what a busy machine takes to show it.
const NOTICED: Duration = Duration::from_millis(1500);
/// How often weftd is stopped.
const STOPS: u32 = 6;
const ENDS: [(&str, &str); 2] = [("10.1.0.0", "10.1.0.1"), ("fd00:10:1::", "fd00:10:1::1")];

/// A node and a router on one cable, with a session for each family and BFD on both.
struct Pair {
    node: Node,
    router: Box<dyn Router>,
    machine: Namespace,
    multihop: bool,
    shutdown: bool,
}

impl Pair {
    fn up(lab: &Lab, software: Software, multihop: bool, graceful_restart: bool) -> Result<Self> {
        let own = node::loopback(&Family::BOTH, 1);
        let node = Node::new(lab, "node", own.clone(), node::blocks(&Family::BOTH, 1))?;
        node.namespace.ip(&format!("addr add {} dev lo\naddr add {} dev lo", own[0], own[1]))?;
        let machine = lab.machine("tor")?;
        let link = Link::new(End::new(&node.namespace, "uplink"), End::new(&machine, "node"))?;
        link.near.add_addresses(&["10.1.0.0/31".parse()?, "fd00:10:1::/127".parse()?])?;
        link.far.add_addresses(&["10.1.0.1/31".parse()?, "fd00:10:1::1/127".parse()?])?;
        let mut config = RouterConfig::new("tor", ROUTER_ASN, [10, 0, 0, 255].into());
        (config.hold_time, config.graceful_restart) = (HOLD_TIME, graceful_restart);
        config.addresses = node::loopback(&Family::BOTH, 254);
        config.originate = node::blocks(&Family::BOTH, 99).into_iter().collect();
        config.bfd = Some(Bfd { interval: 100, multiplier: 3, multihop });
        for ((near, far), family) in ENDS.into_iter().zip(Family::BOTH) {
            config.neighbors.push(Neighbor {
                name: "node".to_owned(),
                address: near.parse()?,
                asn: NODE_ASN,
                local: far.parse()?,
                families: vec![family],
            });
        }
        let router = router(lab, &machine, software, config)?;
        let mut pair = Self { node, router, machine, multihop, shutdown: false };
        pair.write(100, HOLD_TIME)?;
        let node = documents::node("node", &[], &pair.node.blocks, &pair.node.addresses);
        documents::write(&pair.node.weft.manifests(), "node.yaml", &[node])?;
        pair.node.weft.start()?;
        pair.router.start()?;
        pair.wait_up("at first")?;
        Ok(pair)
    }

    /// The node's documents, with these intervals of BFD, in milliseconds, and this hold time of BGP, in seconds.
    fn write(&self, interval: u32, hold_time: u16) -> Result<()> {
        let interval = format!("{interval}ms");
        let mut all = vec![
            documents::bgp_configuration(&json!({
                "asNumber": NODE_ASN, "nodeToNodeMeshEnabled": false, "holdTime": format!("{hold_time}s"),
            })),
            documents::resource(
                "BFDProfile",
                "fast",
                &json!({"receiveInterval": interval, "transmitInterval": interval}),
            ),
        ];
        all.extend(Family::BOTH.map(documents::pod_pool));
        for ((_, far), family) in ENDS.into_iter().zip(Family::BOTH) {
            let spec = json!({
                "peerIP": far, "asNumber": ROUTER_ASN, "families": [family.unicast()], "bfdProfile": "fast",
                "ebgpMultihop": self.multihop, "shutdown": self.shutdown,
            });
            all.push(documents::bgp_peer(
                &format!("tor-{}", if family == Family::V4 { 4 } else { 6 }),
                "node",
                spec,
            ));
        }
        documents::write(&self.node.weft.manifests(), "bgp.yaml", &all)
    }

    fn router_blocks(&self) -> Vec<IpNet> {
        node::blocks(&Family::BOTH, 99)
    }

    /// BFD with each peer as the node sees it.
    fn bfd(&self) -> Result<Vec<PeerBfd>> {
        let session = |(_, far): (&str, &str)| {
            self.node.weft.peer(far.parse()?)?.bfd.with_context(|| format!("no BFD with {far}"))
        };
        ENDS.into_iter().map(session).collect()
    }

    /// BGP and BFD are up at both ends, with the agreed times, and the routes are there.
    fn is_up(&self, interval: u64) -> Result<()> {
        for (near, far) in ENDS {
            let (near, far): (IpAddr, IpAddr) = (near.parse()?, far.parse()?);
            self.node.weft.established(far)?;
            self.router.ensure_established(near)?;
            ensure!(self.router.bfd_up(near)?, "the router's BFD with {near} is not Up");
        }
        for bfd in self.bfd()? {
            ensure!(bfd.state == "Up" && bfd.multihop == self.multihop, "{bfd:?}");
            let times = (bfd.transmit_interval_ms, bfd.detection_time_ms);
            ensure!(times == (Some(interval), Some(interval * 3)), "{bfd:?}");
        }
        self.router_blocks().iter().try_for_each(|block| self.node.weft.forwards(*block).map(drop))?;
        self.node.blocks.iter().try_for_each(|block| self.router.best(*block).map(drop))
    }

    fn wait_up(&self, when: &str) -> Result<()> {
        wait_until("BGP, BFD and routes", PATIENCE, || self.is_up(100)).with_context(|| when.to_owned())
    }

    fn silence(&self) -> Result<()> {
        silence(&self.machine)
    }

    fn end_silence(&self) -> Result<()> {
        self.machine.exec("nft delete table inet silence", SHORT)?.success().map(drop)
    }

    fn node_lost_routes(&self) -> Result<()> {
        self.router_blocks().iter().try_for_each(|block| self.node.weft.ensure_no_path(*block))
    }
}

/// Nothing of a machine comes or goes any more, and no link loses its carrier.
fn silence(machine: &Namespace) -> Result<()> {
    let rules = "table inet silence {\n chain in { type filter hook input priority -300; policy drop; }\n \
                 chain out { type filter hook output priority -300; policy drop; }\n}\n";
    let mut nft = machine.command("nft");
    run_with_input(nft.args(["-f", "-"]), rules.as_bytes(), SHORT)?.success().map(drop)
}

/// Up, silence, back; then reloads, which must not be noticed; then the end by will.
fn whole_life(software: Software, multihop: bool) -> Result<()> {
    Lab::test(|lab| {
        let mut pair = Pair::up(lab, software, multihop, false)?;
        let start = now();
        pair.silence()?;
        wait_until("the node to drop the routes", NOTICED, || pair.node_lost_routes())?;
        println!("bfd: {software}, multihop {multihop}: routes gone after {:?}", start.elapsed());
        let error = pair.node.weft.peer(ENDS[0].1.parse()?)?.last_error.context("no error is shown")?;
        ensure!((error.code, error.subcode) == (Some(6), Some(10)) && error.direction == "sent", "{error:?}");
        let events: Value = pair.node.weft.json("events")?;
        ensure!(events.to_string().contains("the path failed (Control Detection Time Expired)"), "{events}");
        pair.end_silence()?;
        pair.wait_up("after the silence")?;

        let before = pair.bfd()?;
        pair.write(300, HOLD_TIME)?;
        wait_until("the new intervals", PATIENCE, || pair.is_up(300))?;
        ensure!(
            pair.bfd()?.iter().zip(&before).all(|(after, before)| after.since == before.since),
            "it flapped"
        );
        // A new hold time takes BGP down and up again, and BFD stays, but at BIRD, whose BFD ends with BGP.
        let since = || -> Result<_> { Ok(pair.node.weft.peer(ENDS[0].1.parse()?)?.since) };
        let old = since()?;
        pair.write(300, 60)?;
        wait_until("BGP to begin anew", PATIENCE, || {
            ensure!(since()? != old, "it is the same session");
            pair.is_up(300)
        })?;
        for (before, after) in before.iter().zip(pair.bfd()?).filter(|_| software != Software::Bird) {
            ensure!(before.since == after.since && before.failures == after.failures, "{before:?} {after:?}");
        }
        let status = pair.node.weft.status()?;
        ensure!(status["problems"] == json!([]), "{status}");
        let (_, metrics) = pair.node.weft.http("/metrics")?;
        ensure!(metrics.contains("weft_bfd_session_state{name=\"tor-4\",peer=\"10.1.0.1\"} 3"), "{metrics}");

        pair.node.weft.terminate()?;
        wait_until("the router to see BFD go", NOTICED, || {
            ensure!(!pair.router.bfd_up(ENDS[0].0.parse()?)?, "it is Up");
            Ok(())
        })?;
        pair.write(100, HOLD_TIME)?;
        pair.node.weft.start()?;
        pair.wait_up("after weftd's restart")
    })
}

/// Proves RFC 5881, RFC 9384; FRR.
#[test]
fn rfc5881_single_hop_with_frr_over_ipv4_and_ipv6() -> Result<()> {
    whole_life(Software::Frr, false)
}

/// Proves RFC 5881, RFC 9384; BIRD.
#[test]
fn rfc5881_single_hop_with_bird_over_ipv4_and_ipv6() -> Result<()> {
    whole_life(Software::Bird, false)
}

/// Proves RFC 5883, RFC 9384; FRR.
#[test]
fn rfc5883_multihop_with_frr_over_ipv4_and_ipv6() -> Result<()> {
    whole_life(Software::Frr, true)
}

/// Proves RFC 5883, RFC 9384; BIRD.
#[test]
fn rfc5883_multihop_with_bird_over_ipv4_and_ipv6() -> Result<()> {
    whole_life(Software::Bird, true)
}

/// RFC 5882 section 4.3: the connection was closed first, so that BFD's end is part of a restart. No route moves, whether weftd is away for
/// longer than the detection time or not.
fn a_killed_weftd_is_kept_by(software: Software) -> Result<()> {
    Lab::test(|lab| {
        let mut pair = Pair::up(lab, software, false, true)?;
        let monitors =
            [RouteMonitor::start(lab, &pair.machine)?, RouteMonitor::start(lab, &pair.node.namespace)?];
        pair.node.weft.kill9()?;
        let near: IpAddr = ENDS[0].0.parse()?;
        wait_until("the ToR's BFD to go down", NOTICED, || {
            ensure!(!pair.router.bfd_up(near)?, "it is Up");
            Ok(())
        })?;
        stays("the ToR's routes to the node", Duration::from_secs(2), || {
            pair.node.blocks.iter().try_for_each(|block| pair.router.best(*block).map(drop))
        })?;
        pair.node.weft.start()?;
        pair.wait_up("after weftd was away for two seconds")?;
        pair.node.weft.kill9()?;
        pair.node.weft.start()?;
        pair.wait_up("after weftd was away for a moment")?;
        stays("all of it", Duration::from_secs(2), || pair.is_up(100))?;
        for monitor in monitors {
            let deleted = monitor.deleted()?;
            ensure!(deleted.is_empty(), "routes went: {deleted:?}");
        }
        Ok(())
    })
}

/// A stop by will closes the connections before it takes BFD down, which some take for a failure.
fn a_stopped_weftd_is_kept_by(software: Software) -> Result<()> {
    Lab::test(|lab| {
        let mut pair = Pair::up(lab, software, false, true)?;
        let monitor = RouteMonitor::start(lab, &pair.machine)?;
        let near: IpAddr = ENDS[0].0.parse()?;
        // Which of two things comes first shows by chance.
        for stop in 1..=STOPS {
            pair.node.weft.terminate()?;
            wait_until("the ToR's BFD to go", NOTICED, || {
                ensure!(!pair.router.bfd_up(near)?, "it is Up");
                Ok(())
            })?;
            stays("the ToR's routes to the node", Duration::from_millis(500), || {
                pair.node.blocks.iter().try_for_each(|block| pair.router.best(*block).map(drop))
            })
            .with_context(|| format!("stop {stop}"))?;
            pair.node.weft.start()?;
            pair.wait_up("after a stop")?;
        }
        let deleted = monitor.deleted()?;
        ensure!(deleted.is_empty(), "routes went: {deleted:?}");
        Ok(())
    })
}

/// Proves RFC 5882; FRR.
#[test]
fn rfc5882_a_stopped_weftd_is_kept_by_frr() -> Result<()> {
    a_stopped_weftd_is_kept_by(Software::Frr)
}

/// Proves RFC 5882.
#[test]
fn rfc5882_a_stopped_weftd_is_kept_by_weft() -> Result<()> {
    a_stopped_weftd_is_kept_by(Software::Weft)
}

/// Proves RFC 5882.
#[test]
fn rfc5882_a_killed_weftd_is_kept_by_weft() -> Result<()> {
    a_killed_weftd_is_kept_by(Software::Weft)
}

/// Proves RFC 5882; FRR.
#[test]
fn rfc5882_a_killed_weftd_is_kept_by_frr() -> Result<()> {
    a_killed_weftd_is_kept_by(Software::Frr)
}

/// Proves RFC 5882; BIRD.
#[test]
fn rfc5882_a_killed_weftd_is_kept_by_bird() -> Result<()> {
    a_killed_weftd_is_kept_by(Software::Bird)
}

/// FRR takes AdminDown for a failure: it must have heard before why the session ends, and have nothing to say itself.
#[test]
fn a_shutdown_is_heard_by_frr_before_bfd_goes() -> Result<()> {
    Lab::test(|lab| {
        let mut pair = Pair::up(lab, Software::Frr, false, true)?;
        let near: IpAddr = ENDS[0].0.parse()?;
        let notifications = |pair: &Pair| -> Result<[u64; 2]> {
            let said: Value =
                serde_json::from_str(&pair.router.ask(&format!("show bgp neighbors {near} json"))?)?;
            let told = &said[near.to_string()]["messageStats"];
            let count = |name: &str| told[name].as_u64().with_context(|| format!("{name} in {told}"));
            Ok([count("notificationsRecv")?, count("notificationsSent")?])
        };
        // Which of two things comes first shows by chance.
        for _ in 0..STOPS {
            let [received, sent] = notifications(&pair)?;
            pair.shutdown = true;
            pair.write(100, HOLD_TIME)?;
            wait_until("the ToR's BFD to go", PATIENCE, || {
                ensure!(!pair.router.bfd_up(near)?, "it is Up");
                Ok(())
            })?;
            let after = notifications(&pair)?;
            ensure!(after[0] > received && after[1] == sent, "of {received} and {sent} to {after:?}");
            pair.shutdown = false;
            pair.write(100, HOLD_TIME)?;
            pair.wait_up("after the shutdown")?;
        }
        Ok(())
    })
}

/// BFD over link-local addresses, with whoever is found on the link.
/// Proves RFC 5881; FRR.
#[test]
fn rfc5881_unnumbered_with_frr() -> Result<()> {
    Lab::test(|lab| {
        let addresses = node::loopback(&Family::BOTH, 1);
        let mut node = Node::new(lab, "node", addresses.clone(), node::blocks(&Family::BOTH, 1))?;
        node.namespace.ip(&format!("addr add {} dev lo\naddr add {} dev lo", addresses[0], addresses[1]))?;
        let machine = lab.machine("tor")?;
        Link::new(End::new(&node.namespace, "uplink"), End::new(&machine, "node"))?;
        machine.forward()?;
        let mut all = vec![
            documents::node("node", &[], &node.blocks, &addresses),
            documents::bgp_configuration(&json!({
                "asNumber": NODE_ASN, "nodeToNodeMeshEnabled": false, "bfdProfile": "all",
            })),
            documents::resource(
                "BFDProfile",
                "all",
                &json!({"receiveInterval": "100ms", "transmitInterval": "100ms"}),
            ),
            documents::bgp_peer("tor", "node", json!({"interface": "uplink", "asNumber": "external"})),
        ];
        all.extend(Family::BOTH.map(documents::pod_pool));
        documents::write(&node.weft.manifests(), "all.yaml", &all)?;
        let mut config = RouterConfig::new("tor", ROUTER_ASN, [10, 0, 0, 255].into());
        config.hold_time = HOLD_TIME;
        config.originate = node::blocks(&Family::BOTH, 99).into_iter().collect();
        config.bfd = Some(Bfd { interval: 100, multiplier: 3, multihop: false });
        let mut tor = Frr::with_interfaces(lab, &machine, config, &["node"])?;
        node.weft.start()?;
        tor.start()?;
        let blocks = node::blocks(&Family::BOTH, 99);
        wait_until("BGP, BFD and routes", PATIENCE, || {
            let peers: Value = node.weft.json("peers")?;
            let bfd = &peers[0]["bfd"];
            ensure!(bfd["state"] == "Up" && bfd["detectionTimeMs"] == 300, "{peers}");
            blocks.iter().try_for_each(|block| node.weft.forwards(*block).map(drop))
        })?;
        let pair = Pair { node, router: Box::new(tor), machine, multihop: false, shutdown: false };
        pair.silence()?;
        wait_until("the node to drop the routes", NOTICED, || pair.node_lost_routes())
    })
}

/// The nodes of a mesh, each pair by the profile of the BGPConfiguration. One that falls silent is missed by the others, who keep each other.
#[test]
fn a_mesh_has_bfd_by_the_configuration() -> Result<()> {
    Lab::test(|lab| {
        let spec = LanSpec { nodes: vec![2, 1], families: Family::BOTH.to_vec(), pods_per_node: 0 };
        let mut lan = Lan::build(lab, spec)?;
        for node in &lan.nodes {
            let all = [
                documents::bgp_configuration(&json!({"asNumber": 64512, "bfdProfile": "mesh"})),
                documents::resource(
                    "BFDProfile",
                    "mesh",
                    &json!({"receiveInterval": "100ms", "transmitInterval": "100ms", "passiveMode": true, "minimumTtl": 254}),
                ),
            ];
            documents::write(&node.weft.manifests(), "bgp.yaml", &all)?;
        }
        lan.nodes.iter_mut().try_for_each(|node| node.weft.start())?;
        wait_until("BFD between all nodes", PATIENCE, || {
            for node in &lan.nodes {
                let peers = node.weft.peers()?;
                ensure!(peers.len() == 2, "{}: {peers:?}", node.name);
                for peer in &peers {
                    let up = peer.bfd.as_ref().is_some_and(|bfd| bfd.state == "Up" && bfd.multihop);
                    ensure!(up && peer.state == "Established", "{}: {peer:?}", node.name);
                }
                let others = lan.nodes.iter().filter(|other| other.name != node.name);
                others
                    .flat_map(|other| &other.blocks)
                    .try_for_each(|block| node.weft.forwards(*block).map(drop))?;
            }
            Ok(())
        })?;
        let [others @ .., silent] = lan.nodes.as_slice() else { bail!("no nodes") };
        silence(&silent.namespace)?;
        wait_until("the others to drop the routes", NOTICED, || {
            others.iter().try_for_each(|node| {
                silent.blocks.iter().try_for_each(|block| node.weft.ensure_no_path(*block))
            })
        })?;
        for node in others {
            for peer in node.weft.peers()? {
                let by_bfd = peer.last_error.as_ref().is_some_and(|error| error.text.contains("BFD Down"));
                let expected = match peer.name.ends_with(&silent.name) {
                    true => peer.state != "Established" && by_bfd,
                    false => peer.state == "Established",
                };
                ensure!(expected, "{}: {peer:?}", node.name);
            }
        }
        Ok(())
    })
}
