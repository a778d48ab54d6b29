//! A node that drains under traffic: others take over what they have too, then it announces nothing, then its sessions end.

#![allow(clippy::indexing_slicing, reason = "a panic fails the test, which is what it is for")]

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ipnet::IpNet;
use serde_json::{Value, json};
use weft_bgp::policy::Community;
use weft_integration::daemon::{Family, Neighbor, RouterConfig, Software, router};
use weft_integration::documents;
use weft_integration::fabric::{Fabric, FabricSpec};
use weft_integration::lab::Lab;
use weft_integration::link::{End, Link};
use weft_integration::netns::Namespace;
use weft_integration::node::{self, Node};
use weft_integration::probe::{Flows, ping};
use weft_integration::wait::{stays, wait_until};

const PATIENCE: Duration = Duration::from_secs(40);
const FLOWS: usize = 8;
const INTERVAL: Duration = Duration::from_millis(5);
/// For how long the node is the last choice: long enough to look at it on a busy machine.
const DRAIN_TIME: &str = "8s";
/// The range of load balancers' addresses, and the Service's address in it.
const RANGE: &str = "203.0.113.0/24";
const VIP: &str = "203.0.113.9";

/// Has every node announce the range, and drain for this long.
fn configure(fabric: &Fabric, drain_time: &str) -> Result<()> {
    let spec = json!({
        "asNumber": 64601,
        "nodeToNodeMeshEnabled": false,
        "serviceLoadBalancerIPs": [{"cidr": RANGE}],
        "serviceSettleTime": "0s",
        "drainTime": drain_time,
    });
    let documents = [documents::bgp_configuration(&spec)];
    fabric.nodes.iter().try_for_each(|node| documents::write(&node.weft.manifests(), "bgp.yaml", &documents))
}

/// Tells every node of a Service whose policy is Local, with an endpoint on each of them. What answers at its address is the nodes
/// themselves.
fn serve(fabric: &Fabric) -> Result<()> {
    let endpoints: Vec<Value> = fabric
        .nodes
        .iter()
        .map(|node| {
            let conditions = json!({"ready": true, "serving": true, "terminating": false});
            Ok(json!({"addresses": [node.address(Family::V4)?], "nodeName": node.name, "conditions": conditions}))
        })
        .collect::<Result<_>>()?;
    let documents = [
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "web"},
            "spec": {"type": "LoadBalancer", "externalTrafficPolicy": "Local"},
            "status": {"loadBalancer": {"ingress": [{"ip": VIP}]}},
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4",
            "endpoints": endpoints,
        }),
    ];
    for node in &fabric.nodes {
        node.namespace.ip(&format!("addr add {VIP}/32 dev lo"))?;
        documents::write(&node.weft.manifests(), "services.yaml", &documents)?;
    }
    Ok(())
}

/// Puts these taints on a1, in its own documents.
fn taint(fabric: &Fabric, keys: &[&str], unschedulable: bool) -> Result<()> {
    let nodes: Vec<Value> = fabric
        .nodes
        .iter()
        .map(|node| {
            let mut document = documents::node(&node.name, &[("rack", "a")], &node.blocks, &node.addresses);
            if node.name == "a1" {
                let taints: Vec<Value> =
                    keys.iter().map(|key| json!({"key": key, "effect": "NoSchedule"})).collect();
                document["spec"]["taints"] = json!(taints);
                document["spec"]["unschedulable"] = json!(unschedulable);
            }
            document
        })
        .collect();
    documents::write(&fabric.node("a1")?.weft.manifests(), "nodes.yaml", &nodes)
}

/// A machine behind the ToR that is no node, which the nodes know by a prefix that the ToR announces.
fn outside(lab: &Lab, fabric: &mut Fabric) -> Result<Namespace> {
    let (client, tor) = (lab.machine("client")?, fabric.routers[0].namespace.clone());
    let link = Link::new(End::new(&client, "tor-a"), End::new(&tor, "client"))?;
    link.near.add_addresses(&["10.244.200.1/26".parse()?, "fd00:10:244:200::1/122".parse()?])?;
    link.far.add_addresses(&["10.244.200.2/26".parse()?, "fd00:10:244:200::2/122".parse()?])?;
    client.ip("route add default via 10.244.200.2\nroute add default via fd00:10:244:200::2")?;
    let mut own: BTreeSet<IpNet> = fabric.routers[0].addresses.iter().copied().map(IpNet::from).collect();
    own.extend(["10.244.200.0/26".parse::<IpNet>()?, "fd00:10:244:200::/122".parse()?]);
    fabric.routers[0].router.originate(&own)?;
    Ok(client)
}

/// The Service and its range are at these nodes, and what only a1 has is there or nowhere.
fn ensure_served_by(fabric: &Fabric, nodes: &[&str], a1_is_there: bool) -> Result<()> {
    fabric.ensure_tor_sends(VIP.parse::<IpAddr>()?.into(), nodes)?;
    fabric.ensure_tor_sends(RANGE.parse()?, nodes)?;
    let node = fabric.node("a1")?;
    let own = node.blocks.iter().copied().chain(node.addresses.iter().copied().map(IpNet::from));
    own.into_iter()
        .try_for_each(|prefix| fabric.ensure_tor_sends(prefix, if a1_is_there { &["a1"] } else { &[] }))
}

fn ensure_phase(node: &Node, wanted: Option<&str>) -> Result<()> {
    let status = node.weft.status()?;
    ensure!(status["drain"]["phase"].as_str() == wanted, "{status}");
    Ok(())
}

/// When each session came up.
fn sessions(node: &Node) -> Result<Vec<Option<String>>> {
    let peers = node.weft.peers()?;
    ensure!(peers.iter().all(|peer| peer.state == "Established"), "{peers:?}");
    Ok(peers.into_iter().map(|peer| peer.since).collect())
}

fn ensure_refused(node: &Node, command: &str, words: &str) -> Result<()> {
    let said = node.weft.weftctl(command)?;
    ensure!(
        said.status.code() == Some(1) && said.stderr.contains(words),
        "{command}: {} {}",
        said.stdout,
        said.stderr
    );
    Ok(())
}

/// All that is said of a node whose sessions were ended in good order.
fn ensure_drained_well(node: &Node) -> Result<()> {
    let peers = node.weft.peers()?;
    for peer in &peers {
        ensure!(peer.state == "Idle" && peer.advertised == 0, "{peer:?}");
        let error = peer.last_error.as_ref().with_context(|| format!("{peer:?}"))?;
        ensure!(
            (error.direction.as_str(), error.code) == ("sent", Some(6))
                && error.text.contains("Cease/Administrative Shutdown: "),
            "{error:?}"
        );
        ensure!(error.text.contains("the node is drained: weftctl drain"), "{error:?}");
    }
    let status = node.weft.status()?;
    ensure!(
        status["ok"] == true && status["problems"] == json!([]) && status["peers"]["wanted"] == 0,
        "{status}"
    );
    let said = node.weft.weftctl("status")?;
    ensure!(
        said.status.code() == Some(0) && said.stdout.contains("DRAINED because of weftctl drain"),
        "{}",
        said.stdout
    );
    let services: Vec<Value> = node.weft.json("services")?;
    ensure!(services.iter().all(|prefix| prefix["reason"]["code"] == "node-draining"), "{services:?}");
    ensure!(node.weft.http("/metrics")?.1.contains("weft_drain_phase 3"), "no such metric");
    let events: Vec<Value> = node.weft.json("events")?;
    let place = |kind: &str, words: &str| {
        let is = |event: &Value| {
            event["kind"] == kind && event["text"].as_str().is_some_and(|text| text.contains(words))
        };
        events.iter().rposition(is).with_context(|| format!("no event {kind} {words}: {events:?}"))
    };
    let order = [
        place("drain", "others are better")?,
        place("drain", "is withdrawn")?,
        place("drain", "are ended")?,
        place("session", "Established to")?,
    ];
    ensure!(order.is_sorted(), "{events:?}");
    Ok(())
}

fn stop_without_loss(flows: Flows, what: &str) -> Result<()> {
    let report = flows.stop()?;
    ensure!(report.sent > 100 && report.lost == 0, "{what}: {report:?}");
    Ok(())
}

fn ensure_everywhere(fabric: &Fabric) -> Result<()> {
    ensure_served_by(fabric, &["a1", "a2"], true)
}

fn ensure_drained(fabric: &Fabric) -> Result<()> {
    ensure_served_by(fabric, &["a2"], false)?;
    ensure_phase(fabric.node("a1")?, Some("drained"))
}

/// Drains a1; the flows to the Service, which are not to notice, go on through all of it.
fn drain_under_traffic(fabric: &Fabric, client: &Namespace) -> Result<Flows> {
    let (a1, a2) = (fabric.node("a1")?, fabric.node("a2")?);
    let vip: IpAddr = VIP.parse()?;
    let (pod, address) = (&a1.pods[0].namespace, a1.pods[0].address(Family::V4)?);
    for target in [vip, address] {
        wait_until("the way to be warm", PATIENCE, || ping(client, target))?;
    }
    let hosts = [&a1.namespace, &a2.namespace];
    let to_service = Flows::start_anycast(client, &hosts, vip, FLOWS, INTERVAL)?;
    let to_pod = Flows::start(client, pod, address, FLOWS, INTERVAL)?;
    let between = Flows::start(&a2.pods[0].namespace, pod, address, FLOWS, INTERVAL)?;

    taint(fabric, &["node.kubernetes.io/unschedulable"], true)?;
    stays("a node that is cordoned", Duration::from_secs(1), || {
        ensure_phase(a1, None)?;
        ensure_everywhere(fabric)
    })?;
    let before = sessions(a1)?;
    ensure_refused(a1, "undrain", "not being drained")?;
    let begun = a1.weft.weftctl("drain")?;
    ensure!(begun.status.success() && begun.stdout.contains("others are better"), "{}", begun.stderr);
    wait_until("the ToR to prefer the other node", PATIENCE, || ensure_served_by(fabric, &["a2"], true))?;
    ensure_refused(a1, "drain", "drains already because of weftctl drain: low-preference")?;
    stop_without_loss(to_pod, "to the pod from outside")?;
    stop_without_loss(between, "to the pod from the other node")?;
    ensure!(sessions(a1)? == before, "a session flapped");
    ensure_phase(a1, Some("low-preference"))?;

    let waited = a1.weft.weftctl("drain --wait")?;
    ensure!(waited.status.success() && waited.stdout.starts_with("DRAINED"), "{}", waited.stderr);
    wait_until("the drain to be over", PATIENCE, || ensure_drained_well(a1))?;
    wait_until("the ToR to forget", PATIENCE, || ensure_drained(fabric))?;
    for address in &a1.pods[0].addresses {
        ping(&a1.namespace, *address).context("a pod of the node itself")?;
    }
    Ok(to_service)
}

fn a_node_drains_without_loss(software: Software) -> Result<()> {
    Lab::test(|lab| {
        let mut fabric = Fabric::up(lab, FabricSpec { pods_per_node: 1, ..FabricSpec::one_rack(software) })?;
        let client = outside(lab, &mut fabric)?;
        configure(&fabric, DRAIN_TIME)?;
        serve(&fabric)?;
        wait_until("the Service at the ToR", PATIENCE, || ensure_everywhere(&fabric))?;
        let to_service = drain_under_traffic(&fabric, &client)?;

        fabric.node_mut("a1")?.weft.kill9()?;
        fabric.node_mut("a1")?.weft.start()?;
        wait_until("the node to be drained still", PATIENCE, || ensure_drained(&fabric))?;
        stays("a drained node", Duration::from_secs(3), || ensure_drained(&fabric))?;
        stop_without_loss(to_service, "to the Service from outside")?;
        let a1 = fabric.node("a1")?;
        let ended = a1.weft.weftctl("undrain")?;
        ensure!(ended.status.success(), "{}", ended.stderr);
        wait_until("everything to be back", PATIENCE, || ensure_everywhere(&fabric))?;
        ensure_phase(a1, None)?;
        let pod = a1.pods[0].address(Family::V4)?;
        wait_until("the pods", PATIENCE, || ping(&client, pod))
    })
}

/// Proves RFC 8326 4; BIRD.
#[test]
fn a_node_drains_behind_bird_without_loss() -> Result<()> {
    a_node_drains_without_loss(Software::Bird)
}

/// Proves RFC 8326 4; FRR.
#[test]
fn a_node_drains_behind_frr_without_loss() -> Result<()> {
    a_node_drains_without_loss(Software::Frr)
}

/// A router of the node's own AS is told the lowest LOCAL_PREF, and the community beside it, whatever its filter says, then nothing; after the
/// drain all is as it was.
fn an_internal_peer_sees_the_last_choice(software: Software) -> Result<()> {
    const ASN: u32 = 64601;
    const GRACEFUL_SHUTDOWN: Community = Community::Standard(0xFFFF_0000);
    Lab::test(|lab| {
        let own = node::loopback(&[Family::V4], 1);
        let mut node = Node::new(lab, "node", own.clone(), node::blocks(&[Family::V4], 1))?;
        node.namespace.ip(&format!("addr add {} dev lo", own[0]))?;
        let machine = lab.machine("rr")?;
        let link = Link::new(End::new(&node.namespace, "uplink"), End::new(&machine, "node"))?;
        let (near, far) = ("10.1.0.0", "10.1.0.1");
        link.near.add_addresses(&[format!("{near}/31").parse()?])?;
        link.far.add_addresses(&[format!("{far}/31").parse()?])?;
        let mut config = RouterConfig::new("rr", ASN, [10, 0, 0, 255].into());
        let (name, families) = ("node".to_owned(), vec![Family::V4]);
        config.neighbors.push(Neighbor {
            name,
            address: near.parse()?,
            asn: ASN,
            local: far.parse()?,
            families,
        });
        let mut router = router(lab, &machine, software, config)?;
        let spec = json!({"asNumber": ASN, "nodeToNodeMeshEnabled": false, "drainTime": DRAIN_TIME});
        let documents = [
            documents::node("node", &[], &node.blocks, &node.addresses),
            documents::bgp_configuration(&spec),
            documents::bgp_peer(
                "rr",
                "node",
                json!({"peerIP": far, "asNumber": ASN, "families": ["ipv4-unicast"], "filters": ["prefer"]}),
            ),
            documents::resource(
                "BGPFilter",
                "prefer",
                &json!({"exportV4": [{"action": "Accept", "operations": [
                    {"setLocalPreference": {"value": 300}}, {"removeCommunity": {"value": "graceful-shutdown"}},
                ]}]}),
            ),
        ];
        documents::write(&node.weft.manifests(), "bgp.yaml", &documents)?;
        router.start()?;
        node.weft.start()?;
        let told = |what: &str, local_pref: u32, communities: &[Community]| {
            wait_until(what, PATIENCE, || {
                let path = router.best(node.blocks[0])?;
                ensure!(path.local_pref == Some(local_pref), "{path:?}");
                ensure!(path.communities.iter().eq(communities), "{path:?}");
                Ok(())
            })
        };
        told("the block as ever", 300, &[])?;
        let begun = node.weft.weftctl("drain")?;
        ensure!(begun.status.success(), "{}", begun.stderr);
        told("the block as the last choice", 0, &[GRACEFUL_SHUTDOWN])?;
        wait_until("the block to be withdrawn", PATIENCE, || router.ensure_no_path(node.blocks[0]))?;
        let ended = node.weft.weftctl("undrain")?;
        ensure!(ended.status.success(), "{}", ended.stderr);
        told("the block as ever again", 300, &[])
    })
}

/// Proves RFC 8326 4; BIRD.
#[test]
fn bird_of_the_same_as_sees_the_last_choice() -> Result<()> {
    an_internal_peer_sees_the_last_choice(Software::Bird)
}

/// Proves RFC 8326 4; FRR.
#[test]
fn frr_of_the_same_as_sees_the_last_choice() -> Result<()> {
    an_internal_peer_sees_the_last_choice(Software::Frr)
}

#[test]
fn a_taint_drains_until_it_goes() -> Result<()> {
    Lab::test(|lab| {
        let mut fabric =
            Fabric::up(lab, FabricSpec { pods_per_node: 1, ..FabricSpec::one_rack(Software::Bird) })?;
        configure(&fabric, "0s")?;
        serve(&fabric)?;
        wait_until("the Service at the ToR", PATIENCE, || ensure_everywhere(&fabric))?;
        let key = "node.kubernetes.io/out-of-service";
        taint(&fabric, &[key], true)?;
        wait_until("the node to be drained", PATIENCE, || ensure_drained(&fabric))?;
        let status = fabric.node("a1")?.weft.status()?;
        ensure!(status["drain"]["reason"] == format!("the taint {key}"), "{status}");
        ensure_refused(fabric.node("a1")?, "drain", key)?;
        ensure_refused(fabric.node("a1")?, "undrain", &format!("kubectl taint node a1 {key}-"))?;
        fabric.node_mut("a1")?.weft.terminate()?;
        fabric.node_mut("a1")?.weft.start()?;
        wait_until("the node to be drained still", PATIENCE, || ensure_drained(&fabric))?;
        taint(&fabric, &[], false)?;
        wait_until("everything to be back", PATIENCE, || ensure_everywhere(&fabric))?;
        ensure_phase(fabric.node("a1")?, None)
    })
}
