//! Services from outside the cluster: a router's next hops follow their endpoints, and what nobody answers comes to an end.

#![allow(clippy::indexing_slicing, reason = "a panic fails the test, which is what it is for")]

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use ipnet::IpNet;
use serde_json::{Value, json};
use weft_integration::daemon::{Family, Software};
use weft_integration::documents;
use weft_integration::fabric::{Fabric, FabricSpec};
use weft_integration::lab::Lab;
use weft_integration::netns::Namespace;
use weft_integration::node::Node;
use weft_integration::probe;
use weft_integration::process::{SHORT, run_with_input};
use weft_integration::wait::{now, stays, wait_until};

const PATIENCE: Duration = Duration::from_secs(40);
/// How soon a router's next hops follow an endpoint.
const FOLLOW: Duration = Duration::from_secs(1);
/// The port of the Service, and that of its endpoints.
const PORTS: (u16, u16) = (80, 8080);

/// The range of load balancers' addresses, the Service's address in it, and one of nobody's.
fn addresses(family: Family) -> Result<(IpNet, IpAddr, IpAddr)> {
    Ok(match family {
        Family::V4 => ("203.0.113.0/24".parse()?, "203.0.113.9".parse()?, "203.0.113.77".parse()?),
        Family::V6 => ("2001:db8:5::/112".parse()?, "2001:db8:5::9".parse()?, "2001:db8:5::77".parse()?),
    })
}

/// Has every node announce the range, with this settle time.
fn announce(fabric: &Fabric, settle_time: &str) -> Result<()> {
    let ranges: Vec<Value> = Family::BOTH
        .iter()
        .map(|family| Ok(json!({"cidr": addresses(*family)?.0})))
        .collect::<Result<_>>()?;
    let spec = json!({
        "asNumber": 64601,
        "nodeToNodeMeshEnabled": false,
        "serviceLoadBalancerIPs": ranges,
        "serviceSettleTime": settle_time,
    });
    fabric.nodes.iter().try_for_each(|node| {
        documents::write(&node.weft.manifests(), "bgp.yaml", &[documents::bgp_configuration(&spec)])
    })
}

/// Tells every node of the Service, whose policy is Local, with an endpoint of each family on each of these nodes.
fn place(fabric: &Fabric, endpoints: &[&str]) -> Result<()> {
    let mut ingress = Vec::new();
    let mut told = Vec::new();
    for family in Family::BOTH {
        ingress.push(json!({"ip": addresses(family)?.1}));
        let endpoints: Vec<Value> = endpoints
            .iter()
            .map(|node| {
                let pod = fabric.node(node)?.pods.first().context("every node has a pod")?.address(family)?;
                let conditions = json!({"ready": true, "serving": true, "terminating": false});
                Ok(json!({"addresses": [pod], "nodeName": node, "conditions": conditions}))
            })
            .collect::<Result<_>>()?;
        let kind = if family == Family::V4 { "IPv4" } else { "IPv6" };
        told.push(json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": format!("web-{}", kind.to_lowercase()), "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": kind,
            "endpoints": endpoints,
        }));
    }
    told.push(json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {"type": "LoadBalancer", "externalTrafficPolicy": "Local"},
        "status": {"loadBalancer": {"ingress": ingress}},
    }));
    fabric.nodes.iter().try_for_each(|node| documents::write(&node.weft.manifests(), "services.yaml", &told))
}

/// One rack of three nodes with a pod each, behind BIRD.
fn rack(lab: &Lab, settle_time: &str) -> Result<Fabric> {
    let spec = FabricSpec { nodes_per_rack: 3, pods_per_node: 1, ..FabricSpec::one_rack(Software::Bird) };
    let fabric = Fabric::up(lab, spec)?;
    announce(&fabric, settle_time)?;
    Ok(fabric)
}

fn ensure_service_at(fabric: &Fabric, nodes: &[&str]) -> Result<()> {
    Family::BOTH
        .iter()
        .try_for_each(|family| fabric.ensure_tor_sends(IpNet::from(addresses(*family)?.1), nodes))
}

fn ensure_range_everywhere(fabric: &Fabric) -> Result<()> {
    Family::BOTH
        .iter()
        .try_for_each(|family| fabric.ensure_tor_sends(addresses(*family)?.0, &["a1", "a2", "a3"]))
}

#[test]
fn the_next_hops_follow_an_endpoint_that_moves() -> Result<()> {
    Lab::test(|lab| {
        let mut fabric = rack(lab, "0s")?;
        place(&fabric, &["a1", "a2"])?;
        wait_until("the Service at the ToR", PATIENCE, || {
            ensure_range_everywhere(&fabric)?;
            ensure_service_at(&fabric, &["a1", "a2"])
        })?;
        let moved = now();
        place(&fabric, &["a1", "a3"])?;
        wait_until("the next hops to follow", PATIENCE, || ensure_service_at(&fabric, &["a1", "a3"]))?;
        ensure!(moved.elapsed() <= FOLLOW, "the next hops followed after {:?}", moved.elapsed());
        // Without any endpoint only the range is left, and with a label not even that.
        place(&fabric, &[])?;
        wait_until("the address to go", PATIENCE, || ensure_service_at(&fabric, &[]))?;
        ensure_range_everywhere(&fabric)?;
        place(&fabric, &["a1"])?;
        wait_until("the address to come back", PATIENCE, || ensure_service_at(&fabric, &["a1"]))?;
        // A restart takes nothing away, however long others must settle.
        announce(&fabric, "30s")?;
        fabric.node_mut("a1")?.weft.kill9()?;
        fabric.node_mut("a1")?.weft.start()?;
        stays("the way to the Service", Duration::from_secs(4), || {
            ensure_service_at(&fabric, &["a1"])?;
            ensure_range_everywhere(&fabric)
        })?;
        place(&fabric, &["a1", "a2"])?;
        let settling = |node: &Node| -> Result<()> {
            let services: Vec<Value> = node.weft.json("services")?;
            let address = addresses(Family::V4)?.1.to_string();
            let found = services.iter().find(|p| p["prefix"].as_str() == Some(&format!("{address}/32")));
            let code = found.map(|prefix| prefix["reason"]["code"].clone());
            ensure!(code == Some(json!("settling")), "{services:?}");
            Ok(())
        };
        wait_until("the new endpoint to settle", PATIENCE, || settling(fabric.node("a2")?))?;
        ensure_service_at(&fabric, &["a1"])
    })
}

/// A ruleset as kube-proxy's nftables mode has it for a Service with one local endpoint of each family.
fn proxy(node: &Node) -> Result<()> {
    let pod = node.pods.first().context("a pod")?;
    let mut rules = String::new();
    for (family, protocol, address) in [(Family::V4, "ip", "ipv4_addr"), (Family::V6, "ip6", "ipv6_addr")] {
        let (vip, own) = (addresses(family)?.1, pod.address(family)?);
        let endpoint = SocketAddr::new(own, PORTS.1);
        let element = format!("{vip} . tcp . {} : goto external-web", PORTS.0);
        rules.push_str(&format!(
            "table {protocol} kube-proxy {{\n\
             chain external-web {{ {protocol} saddr {own} meta mark set mark or 0x4000; meta l4proto tcp dnat to {endpoint}; }}\n\
             map service-ips {{ type {address} . inet_proto . inet_service : verdict; elements = {{ {element} }}; }}\n\
             chain services {{ {protocol} daddr . meta l4proto . th dport vmap @service-ips; }}\n\
             chain nat-prerouting {{ type nat hook prerouting priority dstnat; jump services; }}\n\
             chain nat-output {{ type nat hook output priority -100; jump services; }}\n\
             chain nat-postrouting {{ type nat hook postrouting priority srcnat; meta mark and 0x4000 != 0 masquerade; }}\n\
             }}\n"
        ));
    }
    run_with_input(node.namespace.command("nft").args(["-f", "-"]), rules.as_bytes(), SHORT)?.success()?;
    Ok(())
}

/// Connects to the Service from outside; gives the client's address as it is, and as the endpoint sees it.
fn connect(client: &Namespace, endpoint: (&Namespace, IpAddr), vip: IpAddr) -> Result<(IpAddr, IpAddr)> {
    let (pod, address) = endpoint;
    let listener = pod.run(|| TcpListener::bind((address, PORTS.1)))??;
    listener.set_nonblocking(true)?;
    let server = thread::spawn(move || wait_until("a connection", SHORT, || Ok(listener.accept()?.1.ip())));
    let own = client.run(|| -> std::io::Result<IpAddr> {
        Ok(TcpStream::connect_timeout(&(vip, PORTS.0).into(), SHORT)?.local_addr()?.ip())
    })?;
    let seen = server.join().map_err(|_| anyhow!("the server panicked"))?;
    Ok((own?, seen?))
}

#[test]
fn a_service_is_answered_and_what_is_none_comes_to_an_end() -> Result<()> {
    Lab::test(|lab| {
        let fabric = rack(lab, "0s")?;
        // What a node passes on comes back to it: the ToR has the range from the nodes.
        for (number, node) in fabric.nodes.iter().enumerate() {
            node.namespace.ip(&format!("route add default via 10.1.0.{}", 2 * number + 1))?;
            node.namespace.ip(&format!("route add default via fd00:10:1:{number}::1"))?;
        }
        place(&fabric, &["a2"])?;
        wait_until("the Service at the ToR", PATIENCE, || {
            ensure_range_everywhere(&fabric)?;
            ensure_service_at(&fabric, &["a2"])
        })?;
        let node = fabric.node("a2")?;
        wait_until("it to be said that nothing answers", PATIENCE, || {
            let status = node.weft.status()?;
            ensure!(status["problems"].to_string().contains("no-service-proxy"), "{status}");
            Ok(())
        })?;
        proxy(node)?;
        let client = &fabric.routers[0].namespace;
        for family in Family::BOTH {
            let (_, vip, nobodys) = addresses(family)?;
            let pod = &node.pods[0];
            let (own, seen) = connect(client, (&pod.namespace, pod.address(family)?), vip)?;
            ensure!(own == seen, "the endpoint sees {seen}, and the client is {own}");
            // A pod reaches itself through its Service: what comes back must not look as if it came from itself.
            let (own, seen) = connect(&pod.namespace, (&pod.namespace, pod.address(family)?), vip)?;
            ensure!(own == pod.address(family)? && seen == node.address(family)?, "{own} is seen as {seen}");
            // The Service's address at a port of no Service's, and an address of no Service's.
            for (nothing, port) in [(vip, 81), (nobodys, PORTS.0)] {
                let refused = client.run(|| TcpStream::connect_timeout(&(nothing, port).into(), SHORT))?;
                let kind = refused.err().map(|error| error.kind());
                ensure!(kind == Some(ErrorKind::HostUnreachable), "{nothing} port {port}: {kind:?}");
            }
            // Were it passed on, it would come back until its time to live is over.
            let said = probe::ping_with(client, nobodys, "-c 1 -W 2")?.stdout;
            ensure!(said.contains("nreachable") && !said.contains("exceeded"), "{said}");
        }
        let rejected = |node: &Node| -> Result<[u64; 2]> {
            let services = node.weft.status()?["services"].clone();
            Ok(["ipv4", "ipv6"].map(|family| services["rejected"][family].as_u64().unwrap_or(0)))
        };
        wait_until("the rejections to be counted, and the proxy to be found", PATIENCE, || {
            let counts = rejected(node)?;
            ensure!(counts.iter().all(|count| *count > 0), "{counts:?}");
            let status = node.weft.status()?;
            ensure!(!status["problems"].to_string().contains("no-service-proxy"), "{status}");
            Ok(())
        })
    })
}
