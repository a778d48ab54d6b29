//! What sessions agree on beyond routes, with other people's daemons that have it too: RFC 7313, 8538, 8654, 9003, 9072, 9234, 9494.

#![allow(clippy::indexing_slicing, reason = "a panic fails the test, which is what it is for")]
#![allow(clippy::print_stdout, reason = "the log of the tests shows which daemons they ran against")]

use std::collections::BTreeSet;
use std::io::Read as _;
use std::net::{IpAddr, TcpListener};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ipnet::{IpNet, Ipv4Net};
use serde_json::{Value, json};
use weft_bgp::policy::Community;
use weft_bgp::wire::Message;
use weft_bgp::wire::capability::Capability;
use weft_bgp::wire::header::{HEADER_LENGTH, Header, MESSAGE_MAX};
use weft_integration::daemon::{Family, Neighbor, Router, RouterConfig, Software, router};
use weft_integration::documents;
use weft_integration::lab::Lab;
use weft_integration::link::{End, Link};
use weft_integration::monitor::RouteMonitor;
use weft_integration::netns::Namespace;
use weft_integration::node::{self, Node};
use weft_integration::wait::wait_until;

const PATIENCE: Duration = Duration::from_secs(40);
const NODE_ASN: u32 = 64601;
const ROUTER_ASN: u32 = 65001;
const NODE: &str = "10.1.0.0";
const ROUTER: &str = "10.1.0.1";

/// A node and a router with one session between them.
struct Pair {
    node: Node,
    router: Box<dyn Router>,
    /// Where the router runs.
    machine: Namespace,
    spec: Value,
}

impl Pair {
    /// The router has `extra` in its configuration and announces `originate`; the node's BGPPeer has the fields of `peer` besides.
    fn up(
        lab: &Lab,
        software: Software,
        extra: &str,
        originate: BTreeSet<IpNet>,
        peer: Value,
    ) -> Result<Self> {
        Self::with(lab, software, originate, peer, |config| config.extra = extra.to_owned())
    }

    /// The same, where all of the router's configuration may be another.
    fn with(
        lab: &Lab,
        software: Software,
        originate: BTreeSet<IpNet>,
        peer: Value,
        change: impl FnOnce(&mut RouterConfig),
    ) -> Result<Self> {
        let own = node::loopback(&Family::BOTH, 1);
        let node = Node::new(lab, "node", own.clone(), node::blocks(&Family::BOTH, 1))?;
        node.namespace.ip(&format!("addr add {} dev lo\naddr add {} dev lo", own[0], own[1]))?;
        let machine = lab.machine("tor")?;
        let link = Link::new(End::new(&node.namespace, "uplink"), End::new(&machine, "node"))?;
        link.near.add_addresses(&[format!("{NODE}/31").parse()?])?;
        link.far.add_addresses(&[format!("{ROUTER}/31").parse()?])?;
        let mut config = RouterConfig::new("tor", ROUTER_ASN, [10, 0, 0, 255].into());
        config.originate = originate;
        change(&mut config);
        config.neighbors.push(Neighbor {
            name: "node".to_owned(),
            address: NODE.parse()?,
            asn: NODE_ASN,
            local: ROUTER.parse()?,
            families: vec![Family::V4],
        });
        let router = router(lab, &machine, software, config)?;
        println!("session features: {} runs", router.version()?);
        let mut spec = json!({"peerIP": ROUTER, "asNumber": ROUTER_ASN, "families": ["ipv4-unicast"]});
        for (key, value) in peer.as_object().into_iter().flatten() {
            spec[key] = value.clone();
        }
        let mut pair = Self { node, router, machine, spec };
        pair.write(&json!({}))?;
        pair.node.weft.start()?;
        pair.router.start()?;
        Ok(pair)
    }

    /// Writes the node's documents, with these fields in its BGPPeer besides.
    fn write(&self, change: &Value) -> Result<()> {
        let mut spec = self.spec.clone();
        for (key, value) in change.as_object().into_iter().flatten() {
            spec[key] = value.clone();
        }
        let mut all = vec![
            documents::node("node", &[], &self.node.blocks, &self.node.addresses),
            documents::bgp_configuration(&json!({"asNumber": NODE_ASN, "nodeToNodeMeshEnabled": false})),
            documents::bgp_peer("tor", "node", spec),
        ];
        all.extend(Family::BOTH.map(documents::pod_pool));
        documents::write(&self.node.weft.manifests(), "bgp.yaml", &all)
    }

    /// The block that the router announces, and the node's own.
    fn blocks(&self) -> (IpNet, IpNet) {
        (node::blocks(&[Family::V4], 99)[0], self.node.blocks[0])
    }

    fn peer(&self) -> Result<Value> {
        let peers: Vec<Value> = self.node.weft.json("peers")?;
        Ok(peers.into_iter().next().unwrap_or_default())
    }

    /// The only path to a prefix, as weftctl tells it.
    fn path(&self, prefix: IpNet) -> Result<Value> {
        let routes: Vec<Value> = self.node.weft.json(&format!("routes {prefix}"))?;
        Ok(routes.first().map(|route| route["paths"][0].clone()).unwrap_or_default())
    }

    /// Messages of a type that the node has sent or received.
    fn messages(&self, direction: &str, kind: &str) -> Result<u64> {
        let (_, text) = self.node.weft.http("/metrics")?;
        let wanted = [format!("direction=\"{direction}\""), format!("type=\"{kind}\"")];
        let line = text.lines().find(|line| {
            line.starts_with("weft_bgp_messages_total{") && wanted.iter().all(|word| line.contains(word))
        });
        Ok(line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0))
    }

    fn wait_converged(&self) -> Result<()> {
        let (theirs, ours) = self.blocks();
        wait_until("session and routes", PATIENCE, || {
            self.node.weft.established(ROUTER.parse::<IpAddr>()?)?;
            self.node.weft.forwards(theirs)?;
            self.router.best(ours).map(drop)
        })
    }
}

fn block() -> BTreeSet<IpNet> {
    node::blocks(&[Family::V4], 99).into_iter().collect()
}

/// What SIGTERM and a reset say is a restart to a peer with the N bit, what `shutdown` says is not.
fn rfc8538_stop_keeps_the_routes_and_shutdown_takes_them(software: Software, extra: &str) -> Result<()> {
    Lab::test(|lab| {
        let mut pair = Pair::up(lab, software, extra, block(), json!({}))?;
        pair.wait_converged()?;
        let (theirs, ours) = pair.blocks();
        let agreed = pair.peer()?["gracefulRestart"].clone();
        ensure!(agreed["notification"] == true, "{agreed}");

        pair.node.weft.terminate()?;
        wait_until("the router to see the end", PATIENCE, || {
            ensure!(!pair.router.established(NODE.parse()?)?, "it is still Established");
            Ok(())
        })?;
        pair.router.best(ours)?;
        pair.node.weft.start()?;
        pair.wait_converged()?;

        pair.write(&json!({"shutdown": true}))?;
        wait_until("the router to forget", PATIENCE, || pair.router.ensure_no_path(ours))?;
        pair.node.weft.ensure_no_path(theirs)?;
        let error = pair.peer()?["lastError"].clone();
        ensure!(error["code"] == 6 && error["subcode"] == 9, "{error}");
        Ok(())
    })
}

/// Proves RFC 8538; FRR.
#[test]
fn rfc8538_with_frr() -> Result<()> {
    rfc8538_stop_keeps_the_routes_and_shutdown_takes_them(Software::Frr, "bgp graceful-restart notification")
}

/// Proves RFC 8538; GoBGP.
#[test]
fn rfc8538_with_gobgp() -> Result<()> {
    rfc8538_stop_keeps_the_routes_and_shutdown_takes_them(Software::Gobgp, "notification-enabled = true")
}

/// The router shows its operator the words of `shutdownMessage`, where `question` asks it for them.
fn rfc9003_a_shutdown_is_told_in_the_operators_words(
    software: Software,
    extra: &str,
    question: &str,
) -> Result<()> {
    const WORDS: &str = "new fibre until 14:00, call 4711";
    Lab::test(|lab| {
        let pair = Pair::up(lab, software, extra, block(), json!({}))?;
        pair.wait_converged()?;
        pair.write(&json!({"shutdown": true, "shutdownMessage": WORDS}))?;
        wait_until("the router to have the words", PATIENCE, || {
            let said = pair.router.ask(question)?;
            ensure!(said.contains(WORDS), "{said}");
            Ok(())
        })?;
        let peer = pair.peer()?;
        let (sent, error) = (&peer["notifications"]["sent"], &peer["lastError"]);
        ensure!(sent["subcode"] == 2 && sent["text"] == WORDS, "{sent}");
        ensure!(error["text"].as_str().is_some_and(|text| text.ends_with(WORDS)), "{error}");
        Ok(())
    })
}

/// Proves RFC 9003 2; BIRD.
#[test]
fn rfc9003_with_bird() -> Result<()> {
    rfc9003_a_shutdown_is_told_in_the_operators_words(Software::Bird, "", "show protocols all neighbor0")
}

/// Without RFC 8538, so that the Cease stands alone and not within a Hard Reset.
/// Proves RFC 9003 2; FRR.
#[test]
fn rfc9003_with_frr() -> Result<()> {
    let (extra, question) =
        ("no bgp graceful-restart notification", format!("show bgp neighbors {NODE} json"));
    rfc9003_a_shutdown_is_told_in_the_operators_words(Software::Frr, extra, &question)
}

/// Each end stays away for longer than its restart time: its routes stay at the other, marked, and are fresh when it is back.
fn rfc9494_routes_outlive_the_restart_time(software: Software) -> Result<()> {
    const LLGR_STALE: Community = Community::Standard(65535 << 16 | 6);
    Lab::test(|lab| {
        let restart = json!({"gracefulRestart": {"restartTime": "2s", "longLivedTime": "10m"}});
        let long_lived = |config: &mut RouterConfig| config.long_lived = Some(600);
        let mut pair = Pair::with(lab, software, block(), restart, long_lived)?;
        pair.wait_converged()?;
        let (theirs, ours) = pair.blocks();
        let agreed = pair.peer()?["gracefulRestart"].clone();
        ensure!(agreed["longLivedTime"] == 600, "{agreed}");

        pair.router.kill9()?;
        wait_until("the node to mark the route", PATIENCE, || {
            let path = pair.path(theirs)?;
            ensure!(path["communities"] == json!(["65535:6"]) && path["best"] == true, "{path}");
            Ok(())
        })?;
        pair.node.weft.forwards(theirs)?;
        let family = pair.peer()?["perFamily"]["ipv4-unicast"].clone();
        // FRR tells the node's own block too, which counts, as it is kept and rejected.
        ensure!(family["longLivedStale"].as_u64() >= Some(1), "{family}");
        pair.router.start()?;
        wait_until("the route to be fresh", PATIENCE, || {
            let path = pair.path(theirs)?;
            ensure!(path["communities"] == json!([]) && path["best"] == true, "{path}");
            Ok(())
        })?;
        pair.wait_converged()?;

        pair.node.weft.kill9()?;
        let wait_marked = |what, marked| {
            wait_until(what, PATIENCE, || {
                let path = pair.router.best(ours)?;
                ensure!(path.communities.contains(&LLGR_STALE) == marked, "{path:?}");
                Ok(())
            })
        };
        wait_marked("the router to mark the route", true)?;
        pair.node.weft.start()?;
        wait_marked("the router to have it fresh", false)
    })
}

/// Proves RFC 9494; BIRD.
#[test]
fn rfc9494_with_bird() -> Result<()> {
    rfc9494_routes_outlive_the_restart_time(Software::Bird)
}

/// Proves RFC 9494; FRR.
#[test]
fn rfc9494_with_frr() -> Result<()> {
    rfc9494_routes_outlive_the_restart_time(Software::Frr)
}

/// Proves RFC 9494; GoBGP.
#[test]
fn rfc9494_with_gobgp() -> Result<()> {
    rfc9494_routes_outlive_the_restart_time(Software::Gobgp)
}

/// FRR can be told to write the length of its optional parameters extended, and its OPEN reads as ever. (It takes none but such then, so that
/// there is no session with who, like a node, writes them where they are needed.)
/// Proves RFC 9072 2; FRR.
#[test]
fn rfc9072_with_frr() -> Result<()> {
    Lab::test(|lab| {
        let neighbor = format!("neighbor {NODE}");
        let extra = format!("{neighbor} remote-as {NODE_ASN}\n {neighbor} extended-optional-parameters");
        let mut pair = Pair::up(lab, Software::Frr, &extra, block(), json!({}))?;
        pair.node.weft.terminate()?;
        let listener = pair.node.namespace.run(|| TcpListener::bind((NODE, 179)))??;
        let (mut dialled, _) = listener.accept()?;
        dialled.set_read_timeout(Some(PATIENCE))?;
        let mut header = [0; HEADER_LENGTH];
        dialled.read_exact(&mut header)?;
        let header = Header::decode(&header, MESSAGE_MAX)?;
        let mut body = vec![0; usize::from(header.length) - HEADER_LENGTH];
        dialled.read_exact(&mut body)?;
        ensure!(body[9..11] == [255, 255], "{body:?}");
        let Some(Message::Open(open)) = Message::decode(header.kind, &body.into())? else {
            anyhow::bail!("{header:?} is no OPEN")
        };
        let has = open.asn().0 == ROUTER_ASN && open.capabilities.contains(&Capability::RouteRefresh);
        ensure!(has, "{open:?}");
        Ok(())
    })
}

/// BIRD asks for our table, and tells its own again: both between a beginning and an end, and no route goes away.
/// Proves RFC 7313; BIRD.
#[test]
fn rfc7313_with_bird() -> Result<()> {
    Lab::test(|lab| {
        let pair = Pair::up(lab, Software::Bird, "", block(), json!({}))?;
        pair.wait_converged()?;
        let (theirs, ours) = pair.blocks();
        let capabilities = pair.peer()?["capabilities"].clone();
        ensure!(capabilities["enhancedRouteRefresh"] == true, "{capabilities}");
        let monitors = [&pair.node.namespace, &pair.machine]
            .map(|namespace| RouteMonitor::start(lab, namespace))
            .into_iter()
            .collect::<Result<Vec<_>>>()?;

        pair.router.ask("reload in neighbor0")?;
        wait_until("our table to be told again", PATIENCE, || {
            let (asked, told) =
                (pair.messages("received", "route-refresh")?, pair.messages("sent", "route-refresh")?);
            ensure!((asked, told) == (1, 2), "{asked} received, {told} sent");
            Ok(())
        })?;
        pair.router.best(ours)?;

        pair.router.ask("reload out neighbor0")?;
        wait_until("its table to be told again", PATIENCE, || {
            let heard = pair.messages("received", "route-refresh")?;
            ensure!(heard == 3, "{heard} received");
            let family = pair.peer()?["perFamily"]["ipv4-unicast"].clone();
            ensure!(family["received"] == 1 && family["stale"] == 0, "{family}");
            Ok(())
        })?;
        pair.node.weft.forwards(theirs)?;
        for monitor in monitors {
            let deleted = monitor.deleted()?;
            ensure!(deleted.is_empty(), "routes went away: {deleted:#?}");
        }
        Ok(())
    })
}

/// A thousand blocks more are 5000 octets with one set of attributes: one UPDATE, where two would do otherwise. What BIRD tells has 4800
/// octets of large communities.
/// Proves RFC 8654; BIRD.
#[test]
fn rfc8654_with_bird() -> Result<()> {
    Lab::test(|lab| {
        let many: BTreeSet<Community> = (0..400).map(|n| Community::Large([ROUTER_ASN, 1, n])).collect();
        let mut pair = Pair::with(lab, Software::Bird, block(), json!({}), |config| {
            config.extra = "enable extended messages on;".to_owned();
            config.communities.clone_from(&many);
        })?;
        pair.wait_converged()?;
        let path = pair.path(pair.blocks().0)?;
        let told: BTreeSet<String> = serde_json::from_value(path["communities"].clone())?;
        ensure!(told == many.iter().map(ToString::to_string).collect(), "{path}");
        let capabilities = pair.peer()?["capabilities"].clone();
        ensure!(capabilities["extendedMessages"] == true, "{capabilities}");
        let before = pair.messages("sent", "update")?;
        let more = (0..1000).map(|n: u32| Ipv4Net::new((0x0AF4_0000 + n * 64).into(), 26).map(IpNet::V4));
        let (theirs, ours) = pair.blocks();
        let more = more.filter(|block| !matches!(block, Ok(block) if [theirs, ours].contains(block)));
        let more = more.collect::<Result<Vec<_>, _>>()?;
        pair.node.blocks.extend(&more);
        pair.write(&json!({}))?;
        wait_until("BIRD to have them", PATIENCE, || {
            let last = more.last().context("there are some")?;
            pair.router.best(*last).map(drop)?;
            ensure!(
                pair.peer()?["advertised"].as_u64() >= u64::try_from(more.len()).ok(),
                "{}",
                pair.peer()?["advertised"]
            );
            Ok(())
        })?;
        let updates = pair.messages("sent", "update")? - before;
        ensure!(updates == 1, "{updates} UPDATEs");
        pair.node.weft.established(ROUTER.parse::<IpAddr>()?).map(drop)
    })
}

/// The node is a customer of the router's AS: what it learns is marked, and roles that do not go together keep the session down.
fn rfc9234_a_customer_is_told_what_it_may_tell(software: Software, extra: &str) -> Result<()> {
    Lab::test(|lab| {
        let role = json!({"role": "customer", "roleStrict": true});
        let pair = Pair::up(lab, software, extra, block(), role)?;
        pair.wait_converged()?;
        let (theirs, ours) = pair.blocks();
        let role = pair.peer()?["role"].clone();
        ensure!(role == json!({"local": "customer", "remote": "provider"}), "{role}");
        let path = pair.path(theirs)?;
        ensure!(path["onlyToCustomer"] == ROUTER_ASN, "{path}");

        pair.write(&json!({"role": "peer"}))?;
        wait_until("the mismatch", PATIENCE, || {
            let peer = pair.peer()?;
            let error = &peer["lastError"];
            ensure!(peer["state"] != "Established", "it is Established");
            ensure!(error["code"] == 2 && error["subcode"] == 11, "{error}");
            Ok(())
        })?;
        pair.write(&json!({}))?;
        pair.wait_converged()?;
        pair.router.best(ours).map(drop)
    })
}

/// Proves RFC 9234; BIRD.
#[test]
fn rfc9234_with_bird() -> Result<()> {
    rfc9234_a_customer_is_told_what_it_may_tell(Software::Bird, "local role provider; require roles on;")
}

/// Proves RFC 9234; OpenBGPD.
#[test]
fn rfc9234_with_openbgpd() -> Result<()> {
    rfc9234_a_customer_is_told_what_it_may_tell(Software::Openbgpd, "announce policy provider enforce")
}
