//! Sessions with other people's daemons that are protected: TCP-MD5 (RFC 2385), GTSM (RFC 5082), and a limit on prefixes (RFC 4486).

#![allow(clippy::indexing_slicing, reason = "a panic fails the test, which is what it is for")]
#![allow(clippy::print_stdout, reason = "the log of the tests shows which daemons they ran against")]

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use weft_integration::daemon::{Family, Neighbor, Router, RouterConfig, Software, router};
use weft_integration::documents;
use weft_integration::lab::Lab;
use weft_integration::link::{End, Link};
use weft_integration::netns::Namespace;
use weft_integration::node::{self, Node};
use weft_integration::wait::{stays, wait_until};

const PATIENCE: Duration = Duration::from_secs(40);
/// As long as what must not come up is watched.
const SILENCE: Duration = Duration::from_secs(4);
const ASN: u32 = 65001;

/// A node and a router, with a session over each family.
struct Pair {
    node: Node,
    router: Box<dyn Router>,
    /// The addresses of the router, and of the node.
    sessions: Sessions,
    _between: Option<Namespace>,
}

type Sessions = [(IpAddr, IpAddr); 2];

/// What lays the cables from a node to a router, and returns what is between them.
type Cabling = fn(&Lab, &Namespace, &Namespace) -> Result<(Sessions, Option<Namespace>)>;

/// One cable between the two.
fn on_a_link(_lab: &Lab, node: &Namespace, tor: &Namespace) -> Result<(Sessions, Option<Namespace>)> {
    let link = Link::new(End::new(node, "uplink"), End::new(tor, "node"))?;
    link.near.add_addresses(&["10.1.0.0/31".parse()?, "fd00:10:1::/127".parse()?])?;
    link.far.add_addresses(&["10.1.0.1/31".parse()?, "fd00:10:1::1/127".parse()?])?;
    let sessions =
        [("10.1.0.1".parse()?, "10.1.0.0".parse()?), ("fd00:10:1::1".parse()?, "fd00:10:1::".parse()?)];
    Ok((sessions, None))
}

/// A router between the two that speaks no BGP.
fn over_a_router(lab: &Lab, node: &Namespace, tor: &Namespace) -> Result<(Sessions, Option<Namespace>)> {
    let between = lab.machine("between")?;
    between.forward()?;
    on_a_link(lab, node, &between)?;
    let link = Link::new(End::new(&between, "tor"), End::new(tor, "between"))?;
    link.near.add_addresses(&["10.1.0.2/31".parse()?, "fd00:10:1::2/127".parse()?])?;
    link.far.add_addresses(&["10.1.0.3/31".parse()?, "fd00:10:1::3/127".parse()?])?;
    node.ip("route add 10.1.0.2/31 via 10.1.0.1\nroute add fd00:10:1::2/127 via fd00:10:1::1")?;
    tor.ip("route add 10.1.0.0/31 via 10.1.0.2\nroute add fd00:10:1::/127 via fd00:10:1::2")?;
    let sessions =
        [("10.1.0.3".parse()?, "10.1.0.0".parse()?), ("fd00:10:1::3".parse()?, "fd00:10:1::".parse()?)];
    Ok((sessions, Some(between)))
}

impl Pair {
    /// `spec`: what the BGPPeers of both sessions have besides.
    fn up(
        lab: &Lab,
        software: Software,
        spec: &Value,
        change: impl FnOnce(&mut RouterConfig),
    ) -> Result<Self> {
        Self::cabled(lab, software, spec, on_a_link, change)
    }

    /// The same with this between them.
    fn cabled(
        lab: &Lab,
        software: Software,
        spec: &Value,
        cable: Cabling,
        change: impl FnOnce(&mut RouterConfig),
    ) -> Result<Self> {
        let own = node::loopback(&Family::BOTH, 1);
        let node = Node::new(lab, "node", own.clone(), node::blocks(&Family::BOTH, 1))?;
        node.namespace.ip(&format!("addr add {} dev lo\naddr add {} dev lo", own[0], own[1]))?;
        let machine = lab.machine("tor")?;
        let (sessions, between) = cable(lab, &node.namespace, &machine)?;
        let mut config = RouterConfig::new("tor", ASN, [10, 0, 0, 255].into());
        config.originate = node::blocks(&Family::BOTH, 99).into_iter().collect();
        for (router, node) in sessions {
            let families = vec![Family::of(node)];
            let (name, asn) = ("node".to_owned(), 64601);
            config.neighbors.push(Neighbor { name, address: node, asn, local: router, families });
        }
        change(&mut config);
        let router = router(lab, &machine, software, config)?;
        println!("security: {} runs", router.version()?);
        let mut pair = Self { node, router, sessions, _between: between };
        pair.write_sessions(spec)?;
        let mut documents = vec![
            documents::bgp_configuration(&json!({"asNumber": 64601, "nodeToNodeMeshEnabled": false})),
            documents::node("node", &[], &pair.node.blocks, &pair.node.addresses),
        ];
        documents.extend(Family::BOTH.map(documents::pod_pool));
        documents::write(&pair.node.weft.manifests(), "node.yaml", &documents)?;
        pair.node.weft.start()?;
        pair.router.start()?;
        Ok(pair)
    }

    fn write_sessions(&self, spec: &Value) -> Result<()> {
        let peers = self.sessions.iter().enumerate().map(|(number, (router, _))| {
            let mut spec = spec.clone();
            spec["peerIP"] = json!(router);
            spec["asNumber"] = json!(ASN);
            spec["families"] = json!([Family::of(*router).unicast()]);
            documents::bgp_peer(&format!("tor-{number}"), "node", spec)
        });
        documents::write(&self.node.weft.manifests(), "peers.yaml", &peers.collect::<Vec<_>>())
    }

    fn write_password(&self, password: &str) -> Result<()> {
        let secret = documents::secret("passwords", &[("tor", password)]);
        documents::write(&self.node.weft.manifests(), "secret.yaml", &[secret])
    }

    fn are_up(&self) -> Result<()> {
        for (router, node) in self.sessions {
            self.node.weft.established(router)?;
            self.router.ensure_established(node)?;
        }
        node::blocks(&Family::BOTH, 99)
            .into_iter()
            .try_for_each(|block| self.node.weft.forwards(block).map(drop))
    }

    fn wait_up(&self, when: &str) -> Result<()> {
        wait_until("both sessions and their routes", PATIENCE, || self.are_up())
            .with_context(|| when.to_owned())
    }

    fn are_down(&self) -> Result<()> {
        for (router, node) in self.sessions {
            let state = self.node.weft.peer(router)?.state;
            ensure!(state != "Established" && state != "OpenConfirm", "{router} is {state}");
            ensure!(!self.router.established(node)?, "{node} is Established at the router");
        }
        Ok(())
    }

    fn stays_down(&self, when: &str) -> Result<()> {
        wait_until("both ends to be down", PATIENCE, || self.are_down())
            .and_then(|()| stays("both ends down", SILENCE, || self.are_down()))
            .with_context(|| when.to_owned())
    }

    fn last_errors(&self) -> Result<Vec<String>> {
        let errors = self.sessions.iter().map(|(router, _)| {
            let peer = self.node.weft.peer(*router)?;
            Ok(peer.last_error.with_context(|| format!("{router} has had no error"))?.text)
        });
        errors.collect()
    }

    fn problems(&self) -> Result<Vec<String>> {
        let status = self.node.weft.status()?;
        let problems = status["problems"].as_array().context("no list of problems")?;
        Ok(problems.iter().map(|p| format!("{} {}", p["code"], p["text"])).collect())
    }
}

/// The same password, another on either end, none on ours, none at all.
fn tcp_md5(software: Software) -> Result<()> {
    Lab::test(|lab| {
        let spec = json!({"password": {"secretKeyRef": {"name": "passwords", "key": "tor"}}});
        let mut pair =
            Pair::up(lab, software, &spec, |router| router.password = Some("hunter-first".into()))?;
        // The Secret is not there yet.
        wait_until("the missing Secret to be told", PATIENCE, || {
            let problems = pair.problems()?;
            ensure!(
                problems.iter().filter(|problem| problem.contains("no-password")).count() == 2,
                "{problems:?}"
            );
            Ok(())
        })?;
        pair.stays_down("without the Secret")?;
        ensure!(
            pair.last_errors()?.iter().all(|e| e == "there is no Secret passwords that weftd may read"),
            "{:?}",
            pair.last_errors()?
        );
        pair.write_password("hunter-first")?;
        pair.wait_up("with the router's password")?;
        ensure!(pair.problems()?.is_empty(), "{:?}", pair.problems()?);

        pair.write_password("hunter-second")?;
        pair.stays_down("with another password than the router's")?;
        // As for a restart: the routes are kept while the other end is awaited.
        for block in node::blocks(&Family::BOTH, 99) {
            pair.node.weft.forwards(block)?;
        }
        pair.router.set_password(Some("hunter-second"))?;
        pair.wait_up("after the router has the new password too")?;

        pair.router.set_password(Some("hunter-third"))?;
        pair.stays_down("after the router alone has another")?;
        pair.write_password("hunter-third")?;
        pair.wait_up("after the node has it too")?;

        pair.write_sessions(&json!({}))?;
        pair.stays_down("without a password on the node")?;
        pair.router.set_password(None)?;
        pair.wait_up("without passwords")?;

        let said = [pair.node.weft.weftctl("-o json peers")?, pair.node.weft.weftctl("-o json events")?];
        let log = std::fs::read_to_string(pair.node.weft.log())?;
        ensure!(!log.contains("hunter-"), "a password is in the log");
        ensure!(said.iter().all(|said| !said.stdout.contains("hunter-")), "a password is told");
        Ok(())
    })
}

/// One peer's password is no other's business.
/// Proves RFC 2385.
#[test]
fn tcp_md5_a_peer_without_its_password_leaves_the_others_alone() -> Result<()> {
    Lab::test(|lab| {
        let pair = Pair::up(lab, Software::Bird, &json!({}), |_| {})?;
        pair.wait_up("without passwords")?;
        let since = pair.node.weft.peer(pair.sessions[1].0)?.since;
        let password = json!({"secretKeyRef": {"name": "nowhere", "key": "tor"}});
        let peers = [
            json!({"peerIP": pair.sessions[0].0, "asNumber": ASN, "families": ["ipv4-unicast"], "password": password}),
            json!({"peerIP": pair.sessions[1].0, "asNumber": ASN, "families": ["ipv6-unicast"]}),
        ];
        let peers: Vec<Value> = peers
            .into_iter()
            .enumerate()
            .map(|(number, spec)| documents::bgp_peer(&format!("tor-{number}"), "node", spec))
            .collect();
        documents::write(&pair.node.weft.manifests(), "peers.yaml", &peers)?;
        let is_idle = || -> Result<()> {
            let peer = pair.node.weft.peer(pair.sessions[0].0)?;
            ensure!(peer.state == "Idle", "{peer:?}");
            Ok(())
        };
        wait_until("the session to end", PATIENCE, is_idle)?;
        stays("the session down", SILENCE, is_idle)?;
        let other = pair.node.weft.established(pair.sessions[1].0)?;
        ensure!(other.since == since, "the other session was begun anew: {other:?}");
        Ok(())
    })
}

/// A key that the kernel does not take is told, and costs nobody else.
#[test]
fn tcp_md5_a_key_that_the_kernel_rejects_fails_that_peer_alone() -> Result<()> {
    const ROOM: &str = "net/core/optmem_max";
    Lab::test(|lab| {
        let mut pair = Pair::up(lab, Software::Bird, &json!({}), |_| {})?;
        pair.wait_up("without passwords")?;
        let Ok(room) = pair.node.namespace.sysctl(ROOM) else {
            // Past the test harness, which hides what a passing test prints.
            let why = "is no namespace's own on this kernel";
            writeln!(std::io::stderr(), "skipped: the key that the kernel rejects: {ROOM} {why}")?;
            return Ok(());
        };
        let since = pair.node.weft.peer(pair.sessions[1].0)?.since;
        pair.node.namespace.set_sysctl(ROOM, "0")?;
        pair.write_password("hunter2")?;
        let password = json!({"secretKeyRef": {"name": "passwords", "key": "tor"}});
        let peers = [
            documents::bgp_peer(
                "tor-0",
                "node",
                json!({"peerIP": pair.sessions[0].0, "asNumber": ASN, "families": ["ipv4-unicast"], "password": password}),
            ),
            documents::bgp_peer(
                "tor-1",
                "node",
                json!({"peerIP": pair.sessions[1].0, "asNumber": ASN, "families": ["ipv6-unicast"]}),
            ),
        ];
        documents::write(&pair.node.weft.manifests(), "peers.yaml", &peers)?;
        // BIRD dials too, without a password, and the kernel has no key by which to turn that away.
        let told = || -> Result<()> {
            let peer = pair.node.weft.peer(pair.sessions[0].0)?;
            let error = peer.last_error.as_ref().map_or("", |error| &error.text);
            ensure!(
                peer.state != "Established" && error.contains("the kernel does not take the TCP-MD5 key"),
                "{peer:?}"
            );
            ensure!(error.contains("net.core.optmem_max"), "{error}");
            Ok(())
        };
        wait_until("the rejected key to be told", PATIENCE, told)?;
        stays("that session down", SILENCE, told)?;
        let other = pair.node.weft.established(pair.sessions[1].0)?;
        ensure!(other.since == since, "the other session was begun anew: {other:?}");

        pair.node.namespace.set_sysctl(ROOM, &room)?;
        pair.router.set_password(Some("hunter2"))?;
        wait_until("the session once there is room", PATIENCE, || {
            pair.node.weft.established(pair.sessions[0].0)
        })?;
        Ok(())
    })
}

/// With GTSM on both ends, on ours alone, on neither.
fn gtsm(software: Software) -> Result<()> {
    Lab::test(|lab| {
        let pair =
            Pair::up(lab, software, &json!({"ttlSecurity": 1}), |router| router.ttl_security = Some(1))?;
        pair.wait_up("with GTSM on both ends")
    })?;
    Lab::test(|lab| {
        let pair = Pair::up(lab, software, &json!({"ttlSecurity": 1}), |_| {})?;
        wait_until("the low TTL to be told", PATIENCE, || {
            let errors = pair.last_errors()?;
            ensure!(errors.iter().all(|error| error.contains("its SYN came with a TTL of ")), "{errors:?}");
            Ok(())
        })?;
        pair.stays_down("with GTSM on the node alone")?;
        pair.write_sessions(&json!({}))?;
        pair.wait_up("without GTSM")
    })
}

/// A router behind another one is as far away as both ends say, and too far where the node says that it is on the link.
fn gtsm_over_a_router(software: Software) -> Result<()> {
    Lab::test(|lab| {
        let two = json!({"ttlSecurity": 2});
        let pair = Pair::cabled(lab, software, &two, over_a_router, |router| router.ttl_security = Some(2))?;
        pair.wait_up("with two hops on both ends")?;
        pair.write_sessions(&json!({"ttlSecurity": 1}))?;
        wait_until("the low TTL to be told", PATIENCE, || {
            let errors = pair.last_errors()?;
            let told = |error: &String| error.contains("its SYN came with a TTL of 254");
            ensure!(errors.iter().all(told), "{errors:?}");
            Ok(())
        })?;
        pair.stays_down("with one hop on the node")?;
        pair.write_sessions(&two)?;
        pair.wait_up("with two hops again")
    })
}

/// A router that tells more than it may, with either action that ends the session.
fn max_prefixes(software: Software) -> Result<()> {
    let blocks = |count: u8| -> BTreeSet<_> {
        (99..99 + count).flat_map(|number| node::blocks(&Family::BOTH, number)).collect()
    };
    Lab::test(|lab| {
        // FRR tells the node its own block and address again.
        let (limit, threshold, warned) = if software == Software::Frr { (5, 80, 4) } else { (3, 60, 2) };
        let stop = json!({"maxPrefixes": {"limit": limit, "warningThreshold": threshold}});
        let mut pair = Pair::up(lab, software, &stop, |_| {})?;
        pair.wait_up("within the limit")?;
        pair.router.originate(&blocks(2))?;
        wait_until("the warning", PATIENCE, || {
            let problems = pair.problems()?;
            let text = format!("tells {warned} prefixes of ");
            let warned = |problem: &&String| problem.contains("max-prefixes") && problem.contains(&text);
            ensure!(problems.iter().filter(warned).count() == 2, "{problems:?}");
            pair.are_up()
        })?;
        pair.router.originate(&blocks(5))?;
        pair.stays_down("over the limit")?;
        for (router, _) in pair.sessions {
            let error = pair.node.weft.peer(router)?.last_error.context("no error is shown")?;
            // Within a Hard Reset to those that take a NOTIFICATION for a restart (RFC 8538).
            let subcode = if matches!(software, Software::Frr | Software::Weft) { 9 } else { 1 };
            ensure!(
                (error.code, error.subcode) == (Some(6), Some(subcode)) && error.direction == "sent",
                "{error:?}"
            );
            let shown = pair.node.weft.weftctl(&format!("peers {router}"))?.stdout;
            ensure!(shown.contains(&format!("{limit} of a family, exceeded")), "{shown}");
        }
        let problems = pair.problems()?;
        ensure!(
            problems.iter().filter(|p| p.contains(&format!("was ended: more than {limit} prefixes"))).count()
                == 2,
            "{problems:?}"
        );
        let events = pair.node.weft.weftctl("events")?.stdout;
        ensure!(events.contains(&format!("of ipv4-unicast were told, of {limit} that may be")), "{events}");
        let (_, metrics) = pair.node.weft.http("/metrics")?;
        let exceeded =
            |line: &&str| line.starts_with("weft_bgp_peer_max_prefixes_exceeded{") && line.ends_with(" 1");
        ensure!(metrics.lines().filter(exceeded).count() == 2, "{metrics}");

        // Less is told, but nobody here has said that it may come back.
        pair.router.originate(&blocks(1))?;
        pair.stays_down("with fewer prefixes")?;
        let said = pair.node.weft.weftctl("clear all")?.stdout;
        ensure!(said.matches("it has no session, and one is begun at once").count() == 2, "{said}");
        pair.wait_up("after clear")?;
        pair.write_sessions(&json!({"maxPrefixes": {"limit": limit + 1}}))?;
        pair.wait_up("with another limit")?;

        // The router may dial for one of them ten seconds after the other.
        pair.write_sessions(
            &json!({"maxPrefixes": {"limit": limit + 1, "action": "Restart", "restartAfter": "20s"}}),
        )?;
        pair.router.originate(&blocks(5))?;
        wait_until("the time of the next session to be told", PATIENCE, || {
            let problems = pair.problems()?;
            let told = problems.iter().filter(|p| p.contains("were told; it is begun again at 20")).count();
            ensure!(told == 2, "{problems:?}");
            Ok(())
        })?;
        pair.stays_down("over the limit again")?;
        pair.router.originate(&blocks(1))?;
        pair.wait_up("after a while")
    })
}

/// Proves RFC 4486 4; BIRD.
#[test]
fn max_prefixes_with_bird() -> Result<()> {
    max_prefixes(Software::Bird)
}

/// Proves RFC 4486 4, RFC 8538 3.1; FRR.
#[test]
fn max_prefixes_with_frr() -> Result<()> {
    max_prefixes(Software::Frr)
}

/// Proves RFC 4486 4; GoBGP.
#[test]
fn max_prefixes_with_gobgp() -> Result<()> {
    max_prefixes(Software::Gobgp)
}

/// Proves RFC 2385; BIRD.
#[test]
fn tcp_md5_with_bird() -> Result<()> {
    tcp_md5(Software::Bird)
}

/// Proves RFC 2385; FRR.
#[test]
fn tcp_md5_with_frr() -> Result<()> {
    tcp_md5(Software::Frr)
}

/// Proves RFC 5082; BIRD.
#[test]
fn gtsm_with_bird() -> Result<()> {
    gtsm(Software::Bird)
}

/// Proves RFC 5082; FRR.
#[test]
fn gtsm_with_frr() -> Result<()> {
    gtsm(Software::Frr)
}

/// Proves RFC 5082; BIRD.
#[test]
fn gtsm_over_a_router_with_bird() -> Result<()> {
    gtsm_over_a_router(Software::Bird)
}

/// Proves RFC 5082; FRR.
#[test]
fn gtsm_over_a_router_with_frr() -> Result<()> {
    gtsm_over_a_router(Software::Frr)
}
