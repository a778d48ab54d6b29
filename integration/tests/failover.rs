//! Cut cables and killed daemons under traffic.

#![allow(clippy::indexing_slicing, reason = "a panic fails the test, which is what it is for")]

use std::io::Write as _;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use weft_integration::daemon::{Family, Software};
use weft_integration::documents;
use weft_integration::fabric::{Fabric, FabricSpec};
use weft_integration::lab::Lab;
use weft_integration::monitor::RouteMonitor;
use weft_integration::node::Node;
use weft_integration::probe::{FlowReport, Flows, Stream, ping};
use weft_integration::wait::{stays, wait_until};

const PATIENCE: Duration = Duration::from_secs(40);

/// Enough to be on every one of two equal paths.
const FLOWS: usize = 8;

const INTERVAL: Duration = Duration::from_millis(2);

/// Longer than TCP waits before it sends again what is lost (200 ms), and less than it waits the third time (RFC 6298).
const STREAM_GAP: Duration = Duration::from_millis(1200);

/// TCP streams between the first pods of two nodes, one of each family.
struct Streams(Vec<(Family, Stream)>);

impl Streams {
    fn start(from: &Node, to: &Node) -> Result<Self> {
        let start = |family: Family| {
            let target = to.pods[0].address(family)?;
            Ok((family, Stream::start(&from.pods[0].namespace, &to.pods[0].namespace, target)?))
        };
        Family::BOTH.into_iter().map(start).collect::<Result<_>>().map(Self)
    }

    fn stop_without_a_gap(self) -> Result<()> {
        for (family, stream) in self.0 {
            let report = stream.stop().with_context(|| format!("the TCP stream over {family:?}"))?;
            ensure!(report.pieces > 100 && report.longest < STREAM_GAP, "{family:?}: {report:?}");
        }
        Ok(())
    }
}

/// Flows of both families between the first pods of two nodes, and between their host networks and them.
struct Traffic(Vec<(String, Flows)>);

impl Traffic {
    fn start(from: &Node, to: &Node) -> Result<Self> {
        let mut flows = Vec::new();
        for family in Family::BOTH {
            for (one, other) in [(from, to), (to, from)] {
                let target = other.pods[0].address(family)?;
                // Neighbours are resolved before anything is counted.
                wait_until("the way to be warm", PATIENCE, || ping(&one.pods[0].namespace, target))?;
                let started =
                    Flows::start(&one.pods[0].namespace, &other.pods[0].namespace, target, FLOWS, INTERVAL)?;
                flows.push((format!("{family:?} from {} to {}", one.name, other.name), started));
            }
        }
        Ok(Self(flows))
    }

    fn stop(self) -> Result<Vec<(String, FlowReport)>> {
        self.0.into_iter().map(|(name, flows)| Ok((name, flows.stop()?))).collect()
    }

    fn stop_without_loss(self) -> Result<()> {
        for (name, report) in self.stop()? {
            ensure!(report.sent > 100, "{name}: hardly any traffic: {report:?}");
            ensure!(report.lost == 0, "{name}: {report:?}");
        }
        Ok(())
    }
}

/// Groups of next hops become resilient while packets go: none is lost.
fn make_resilient(near: &Node, far: &Node) -> Result<()> {
    let traffic = Traffic::start(near, far)?;
    sleep(Duration::from_millis(300));
    let own = json!({
        "apiVersion": "weft.network/v1alpha1", "kind": "BGPConfiguration", "metadata": {"name": "node.a1"},
        "spec": {"resilientNextHops": {"buckets": 256}},
    });
    documents::write(&near.weft.manifests(), "resilient.yaml", &[own])?;
    let has_none = wait_until("routes over resilient groups", PATIENCE, || {
        if near.weft.status()?.to_string().contains("next-hops-not-resilient") {
            return Ok(true);
        }
        let fib: Vec<Value> = near.weft.json("fib")?;
        for block in &far.blocks {
            let route = fib.iter().find(|route| route["prefix"] == json!(block)).context("no route")?;
            let hops = route["nextHops"].as_array().map_or(0, Vec::len);
            ensure!(route["resilient"] == true && hops == 2 && route["state"] == "installed", "{route}");
        }
        Ok(false)
    })?;
    if has_none {
        // Past the test harness, which hides what a passing test prints.
        writeln!(std::io::stderr(), "skipped: resilient groups of next hops: this kernel has none")?;
    } else {
        let metrics = near.weft.http("/metrics")?.1;
        ensure!(metrics.contains("\nweft_fib_resilient_groups "), "{metrics}");
        ensure!(!metrics.contains("\nweft_fib_resilient_groups 0\n"), "{metrics}");
    }
    traffic.stop_without_loss()
}

fn one_of_two_uplinks_is_cut(software: Software) -> Result<()> {
    Lab::test(|lab| {
        let fabric = Fabric::up(lab, FabricSpec { pods_per_node: 1, ..FabricSpec::two_uplinks(software) })?;
        let (near, far) = (fabric.node("a1")?, fabric.node("a2")?);
        wait_until("both uplinks to be used", PATIENCE, || {
            for block in &far.blocks {
                let route = json!(near.namespace.routes_to(*block)?).to_string();
                ensure!(["tor-a1", "tor-a2"].iter().all(|uplink| route.contains(uplink)), "{route}");
            }
            Ok(())
        })?;
        if software == Software::Weft {
            make_resilient(near, far)?;
        }
        for tor in ["tor-a1", "tor-a2"] {
            let cable = fabric.link("a1", tor)?;
            let traffic = Traffic::start(near, far)?;
            sleep(Duration::from_millis(500));
            cable.cut()?;
            sleep(Duration::from_secs(3));
            for (name, report) in traffic.stop().with_context(|| format!("without {tor}"))? {
                ensure!(report.longest_gap < Duration::from_secs(2), "without {tor}: {name}: {report:?}");
            }
            for address in &far.pods[0].addresses {
                ping(&near.pods[0].namespace, *address).with_context(|| format!("without {tor}"))?;
                ping(&near.namespace, *address).with_context(|| format!("without {tor}"))?;
            }
            cable.heal()?;
            wait_until("both ends of the mended cable", PATIENCE, || {
                let peers = near.weft.peers()?;
                ensure!(
                    peers.iter().all(|peer| peer.state == "Established" && peer.accepted > 0),
                    "{peers:?}"
                );
                let router = fabric.router(tor)?;
                near.blocks.iter().try_for_each(|block| router.best(*block).map(drop))
            })?;
        }
        Ok(())
    })
}

#[test]
fn one_of_two_uplinks_to_weft_is_cut() -> Result<()> {
    one_of_two_uplinks_is_cut(Software::Weft)
}

#[test]
fn one_of_two_uplinks_to_bird_is_cut() -> Result<()> {
    one_of_two_uplinks_is_cut(Software::Bird)
}

#[test]
fn one_of_two_uplinks_to_frr_is_cut() -> Result<()> {
    one_of_two_uplinks_is_cut(Software::Frr)
}

/// Listens on every machine of a fabric.
fn listen(lab: &Lab, fabric: &Fabric) -> Result<Vec<RouteMonitor>> {
    let nodes = fabric.nodes.iter().map(|node| &node.namespace);
    let routers = fabric.routers.iter().map(|machine| &machine.namespace);
    nodes.chain(routers).map(|namespace| RouteMonitor::start(lab, namespace)).collect()
}

/// No route went away, not even between two packets.
fn ensure_nothing_deleted(monitors: Vec<RouteMonitor>) -> Result<()> {
    for monitor in monitors {
        let deleted = monitor.deleted()?;
        ensure!(deleted.is_empty(), "routes went away: {deleted:#?}");
    }
    Ok(())
}

/// How a weftd ends.
#[derive(Clone, Copy, Debug)]
enum End {
    Kill,
    Terminate,
}

/// weftd ends and is started again: the ToR keeps the routes as RFC 4724 says, and not one packet is lost.
fn weftd_ends_and_is_started_again(software: Software, end: End) -> Result<()> {
    weftd_of_a_fabric_ends_and_is_started_again(FabricSpec::two_racks(software), end)
}

fn weftd_of_a_fabric_ends_and_is_started_again(spec: FabricSpec, end: End) -> Result<()> {
    Lab::test(|lab| {
        let spec = FabricSpec { pods_per_node: 1, nodes_per_rack: 1, ..spec };
        let mut fabric = Fabric::up(lab, spec)?;
        let traffic = Traffic::start(fabric.node("a1")?, fabric.node("b1")?)?;
        let streams = Streams::start(fabric.node("a1")?, fabric.node("b1")?)?;
        sleep(Duration::from_millis(300));
        let monitors = listen(lab, &fabric)?;
        match end {
            End::Kill => fabric.node_mut("a1")?.weft.kill9()?,
            End::Terminate => fabric.node_mut("a1")?.weft.terminate()?,
        }
        let blocks = fabric.node("a1")?.blocks.clone();
        let tor = fabric.router("tor-a")?;
        stays("the ToR's routes to the node without a daemon", Duration::from_secs(2), || {
            blocks.iter().try_for_each(|block| tor.best(*block).map(drop))
        })?;
        let node = fabric.node_mut("a1")?;
        node.weft.start()?;
        wait_restarted(node)?;
        sleep(Duration::from_secs(1));
        streams.stop_without_a_gap()?;
        traffic.stop_without_loss()?;
        ensure_nothing_deleted(monitors)
    })
}

/// The sessions are back, and End-of-RIB has passed: what was to be swept is swept.
fn wait_restarted(node: &Node) -> Result<()> {
    wait_until("the sessions to be back", PATIENCE, || {
        let peers = node.weft.peers()?;
        ensure!(peers.iter().all(|peer| peer.state == "Established" && peer.accepted > 0), "{peers:?}");
        ensure!(node.weft.http("/readyz")?.0 == 200, "/readyz is not 200");
        Ok(())
    })
}

/// Proves RFC 4724 4; BIRD.
#[test]
fn weftd_is_killed_under_a_bird_tor() -> Result<()> {
    weftd_ends_and_is_started_again(Software::Bird, End::Kill)
}

/// Proves RFC 4724 4; FRR.
#[test]
fn weftd_is_killed_under_an_frr_tor() -> Result<()> {
    weftd_ends_and_is_started_again(Software::Frr, End::Kill)
}

#[test]
fn weftd_is_killed_under_a_weft_tor() -> Result<()> {
    weftd_ends_and_is_started_again(Software::Weft, End::Kill)
}

/// The routers dial again after two minutes, as they do unless told otherwise: what counts is that weftd dials at once.
fn weftd_is_killed_under_a_tor_that_dials_seldom(software: Software) -> Result<()> {
    let spec = FabricSpec { dials_every_second: false, ..FabricSpec::two_racks(software) };
    weftd_of_a_fabric_ends_and_is_started_again(spec, End::Kill)
}

/// Proves RFC 4724 4; BIRD.
#[test]
fn weftd_is_killed_under_a_bird_tor_that_dials_seldom() -> Result<()> {
    weftd_is_killed_under_a_tor_that_dials_seldom(Software::Bird)
}

/// Proves RFC 4724 4; FRR.
#[test]
fn weftd_is_killed_under_an_frr_tor_that_dials_seldom() -> Result<()> {
    weftd_is_killed_under_a_tor_that_dials_seldom(Software::Frr)
}

/// Proves RFC 4724 4; BIRD.
#[test]
fn weftd_is_upgraded_under_a_bird_tor() -> Result<()> {
    weftd_ends_and_is_started_again(Software::Bird, End::Terminate)
}

/// Proves RFC 4724 4; FRR.
#[test]
fn weftd_is_upgraded_under_an_frr_tor() -> Result<()> {
    weftd_ends_and_is_started_again(Software::Frr, End::Terminate)
}

/// Routes that went away while weftd was dead are swept once it has heard from its peers, and not before.
#[test]
fn what_went_away_meanwhile_is_swept() -> Result<()> {
    Lab::test(|lab| {
        let mut fabric =
            Fabric::up(lab, FabricSpec { pods_per_node: 1, ..FabricSpec::one_rack(Software::Bird) })?;
        let gone = fabric.node("a2")?.blocks.clone();
        // A block that pods are in stays.
        for pod in std::mem::take(&mut fabric.node_mut("a2")?.pods) {
            pod.delete()?;
        }
        fabric.node_mut("a1")?.weft.kill9()?;
        documents::write(
            &fabric.node("a2")?.weft.manifests(),
            "nodes.yaml",
            &[{
                let node = fabric.node("a2")?;
                documents::node("a2", &[("rack", "a")], &[], &node.addresses)
            }],
        )?;
        let tor = fabric.router("tor-a")?;
        wait_until("the ToR to lose the blocks", PATIENCE, || {
            gone.iter().try_for_each(|block| tor.ensure_no_path(*block))
        })?;
        let node = fabric.node_mut("a1")?;
        for block in &gone {
            ensure!(
                !node.namespace.routes_to(*block)?.is_empty(),
                "the route to {block} died with the daemon"
            );
        }
        node.weft.start()?;
        wait_until("the sweep", PATIENCE, || {
            gone.iter().try_for_each(|block| node.weft.ensure_no_path(*block))
        })
    })
}

/// The other way round: the ToR's daemon dies and comes back, and the node keeps its routes meanwhile.
#[test]
fn a_weft_tor_is_killed_and_restarted() -> Result<()> {
    Lab::test(|lab| {
        let spec =
            FabricSpec { pods_per_node: 1, nodes_per_rack: 1, ..FabricSpec::two_racks(Software::Weft) };
        let mut fabric = Fabric::up(lab, spec)?;
        let traffic = Traffic::start(fabric.node("a1")?, fabric.node("b1")?)?;
        let streams = Streams::start(fabric.node("a1")?, fabric.node("b1")?)?;
        sleep(Duration::from_millis(300));
        let monitors = listen(lab, &fabric)?;
        fabric.router_mut("tor-a")?.kill9()?;
        sleep(Duration::from_secs(1));
        fabric.router_mut("tor-a")?.start()?;
        let node = fabric.node("a1")?;
        wait_restarted(node)?;
        sleep(Duration::from_secs(1));
        streams.stop_without_a_gap()?;
        traffic.stop_without_loss()?;
        ensure_nothing_deleted(monitors)
    })
}
