//! The overlay `tor-ebgp` on two racks with other people's ToRs and a real API server, from an empty cluster to one that lost its API server and a
//! node. Ignored unless asked for, as it needs Kubernetes' own programs: `make test` runs it where `KUBEBUILDER_ASSETS` names the folder with
//! `etcd`, `kube-apiserver` and `kubectl`.

#![allow(clippy::indexing_slicing, reason = "a panic fails the test, which is what it is for")]

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ipnet::IpNet;
use serde_json::{Value, json};
use weft_integration::daemon::bird::Bird;
use weft_integration::daemon::{Family, Neighbor, Router, RouterConfig};
use weft_integration::documents;
use weft_integration::kubernetes::{ControlPlane, Controller, condition};
use weft_integration::lab::Lab;
use weft_integration::link::{End, Link, Switch};
use weft_integration::netns::Namespace;
use weft_integration::node::Node;
use weft_integration::probe::{Flows, ping};
use weft_integration::wait::{stays, wait_until};

/// How long everything may take to come up on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// How soon all have caught up with the API server.
const CATCH_UP: Duration = Duration::from_secs(10);
/// How long the API server is away, in rounds of a pod that comes and goes.
const AWAY: (u32, Duration) = (20, Duration::from_secs(1));
const OVERLAY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests/overlays/tor-ebgp");
const RACK_LABEL: &str = "topology.kubernetes.io/rack";
/// The racks of the overlay: the names, the AS of their nodes and that of their ToR.
const RACKS: [(&str, u32, u32); 2] = [("a", 64601, 65001), ("b", 64602, 65002)];

/// A rack: its ToR is 10.0.N.1, its nodes are 10.0.N.11 and on.
struct Rack {
    tor: Bird,
    tor_namespace: Namespace,
    nodes: Vec<Node>,
    /// It goes with this value.
    _switch: Switch,
}

/// Two racks, joined by a cable between their ToRs, and the API server behind the first.
struct Site {
    racks: Vec<Rack>,
    plane: ControlPlane,
}

fn v4(rack: usize, host: u8) -> Result<IpAddr> {
    Ok(Ipv4Addr::new(10, 0, u8::try_from(rack + 1)?, host).into())
}

/// The ToR's end of the cable to the other.
fn between(rack: usize) -> Result<IpAddr> {
    Ok(Ipv4Addr::new(10, 0, 100, u8::try_from(rack)?).into())
}

fn rack(lab: &Lab, index: usize, nodes: u8) -> Result<Rack> {
    let (name, node_as, tor_as) = RACKS[index];
    let switch = Switch::new(lab.machine(&format!("switch-{name}"))?)?;
    let tor_namespace = lab.machine(&format!("tor-{name}"))?;
    tor_namespace.forward()?;
    let tor_address = v4(index, 1)?;
    switch.plug(End::new(&tor_namespace, "rack"))?.near.add_addresses(&[IpNet::new(tor_address, 24)?])?;
    let mut config =
        RouterConfig::new(format!("tor-{name}"), tor_as, Ipv4Addr::new(10, 0, 0, u8::try_from(index + 1)?));
    let mut made = Vec::new();
    for number in 1..=nodes {
        let (node, address) = (format!("{name}{number}"), v4(index, 10 + number)?);
        let node = Node::new(lab, &node, vec![address], Vec::new())?;
        switch.plug(End::new(&node.namespace, "eth0"))?.near.add_addresses(&[IpNet::new(address, 24)?])?;
        node.namespace.ip(&format!("route add default via {tor_address}"))?;
        config.neighbors.push(Neighbor {
            name: node.name.clone(),
            address,
            asn: node_as,
            local: tor_address,
            families: vec![Family::V4],
        });
        made.push(node);
    }
    let other = 1 - index;
    config.neighbors.push(Neighbor {
        name: format!("tor-{}", RACKS[other].0),
        address: between(other)?,
        asn: RACKS[other].2,
        local: between(index)?,
        families: vec![Family::V4],
    });
    let tor = Bird::new(lab, &tor_namespace, config)?;
    Ok(Rack { tor, tor_namespace, nodes: made, _switch: switch })
}

impl Site {
    /// The racks, their ToRs, and an API server that has the overlay; the nodes have no weftd yet.
    fn build(lab: &Lab) -> Result<Self> {
        let mut racks = vec![rack(lab, 0, 2)?, rack(lab, 1, 1)?];
        let link = Link::new(
            End::new(&racks[0].tor_namespace, "tor-b"),
            End::new(&racks[1].tor_namespace, "tor-a"),
        )?;
        for (end, index) in [(&link.near, 0), (&link.far, 1)] {
            end.add_addresses(&[IpNet::new(between(index)?, 31)?])?;
        }
        let machine = lab.machine("control-plane")?;
        let link = Link::new(End::new(&machine, "eth0"), End::new(&racks[0].tor_namespace, "servers"))?;
        link.near.add_addresses(&["10.0.200.10/24".parse()?])?;
        link.far.add_addresses(&["10.0.200.1/24".parse()?])?;
        machine.ip("route add default via 10.0.200.1")?;
        racks[0].tor_namespace.ip("route add 10.0.2.0/24 via 10.0.100.1")?;
        racks[1]
            .tor_namespace
            .ip("route add 10.0.200.0/24 via 10.0.100.0\nroute add 10.0.1.0/24 via 10.0.100.0")?;
        for rack in &mut racks {
            rack.tor.start()?;
        }
        let plane = ControlPlane::start(lab, &machine, "10.0.200.10".parse()?)?;
        // As docs/install.md says: a kind is known only once its definition is applied.
        let first = plane.apply_folder(Path::new(OVERLAY));
        ensure!(first.is_err(), "an API server knows a kind before it is defined");
        wait_until("the overlay to be taken", PATIENCE, || plane.apply_folder(Path::new(OVERLAY)))?;
        for (rack, (name, ..)) in racks.iter().zip(RACKS) {
            for node in &rack.nodes {
                plane.add_node(&documents::node(&node.name, &[(RACK_LABEL, name)], &[], &node.addresses))?;
            }
        }
        Ok(Self { racks, plane })
    }

    fn nodes(&mut self) -> impl Iterator<Item = &mut Node> {
        self.racks.iter_mut().flat_map(|rack| &mut rack.nodes)
    }

    fn start_nodes(&mut self, lab: &Lab) -> Result<()> {
        let Self { racks, plane } = self;
        for node in racks.iter_mut().flat_map(|rack| &mut rack.nodes) {
            node.weft.set_kubeconfig(&plane.kubeconfig_of("weftd", Some(&node.name))?);
            node.weft.start()?;
        }
        for node in self.nodes() {
            node.wait_ready_for_pods()?;
            wait_until("a pod", PATIENCE, || node.add_pod(lab).map(drop))?;
        }
        Ok(())
    }

    /// Whether every pod reaches every other.
    fn reachable(&self) -> Result<()> {
        let pods: Vec<_> =
            self.racks.iter().flat_map(|rack| &rack.nodes).flat_map(|node| &node.pods).collect();
        for from in &pods {
            for to in &pods {
                ping(&from.namespace, to.address(Family::V4)?)?;
            }
        }
        Ok(())
    }

    /// Whether the ToRs' kernels have a way to every block, and whether those of a rack lie in one prefix of the overlay's topology.
    fn ensure_blocks_known(&self) -> Result<()> {
        let blocks = self.plane.blocks()?;
        ensure!(blocks.len() == 3 && blocks.values().all(|blocks| blocks.len() == 1), "{blocks:?}");
        for rack in &self.racks {
            for block in blocks.values().flatten() {
                ensure!(!rack.tor_namespace.routes_to(*block)?.is_empty(), "a ToR has no route to {block}");
            }
        }
        let prefix = |node: &str| -> Result<IpNet> {
            let block = blocks[node].first().context("it has one")?;
            Ok(IpNet::new(block.addr(), 20)?.trunc())
        };
        ensure!(prefix("a1")? == prefix("a2")? && prefix("a1")? != prefix("b1")?, "{blocks:?}");
        Ok(())
    }

    fn ensure_statuses_true(&self) -> Result<()> {
        for (peer, wanted) in [("tor-a", 2), ("tor-b", 1)] {
            let object = self.plane.get(&format!("bgppeer {peer}"))?;
            ensure!(object["status"]["sessions"] == json!({"up": wanted, "wanted": wanted}), "{object}");
        }
        for kind in ["bgpconfigurations", "bgppeers", "ippools", "ipblocks"] {
            for object in self.plane.list(kind)? {
                for of in ["Accepted", "Programmed"] {
                    ensure!(condition(&object, of)["status"] == "True", "{of} of {object}");
                }
            }
        }
        for node in self.plane.list("bgpnodestatuses")? {
            ensure!(node["status"]["ready"] == true, "{node}");
        }
        Ok(())
    }
}

fn errors(node: &Node) -> Result<Vec<Value>> {
    Ok(node.weft.status()?["config"]["errors"].as_array().cloned().unwrap_or_default())
}

fn peer(name: &str, spec: Value) -> Value {
    documents::resource("BGPPeer", name, &spec)
}

#[test]
#[ignore = "needs KUBEBUILDER_ASSETS: make test runs it where that is set"]
fn an_overlay_makes_a_network_that_outlives_its_api_server_and_loses_what_a_node_had() -> Result<()> {
    Lab::test(|lab| {
        let mut site = Site::build(lab)?;
        let _controller = Controller::start(lab, &site.plane, "weft-controller", "--garbage-grace 5s")?;
        site.start_nodes(lab)?;
        wait_until("the ToRs to know every block", PATIENCE, || site.ensure_blocks_known())?;
        wait_until("every pod to reach every other", PATIENCE, || site.reachable())?;
        wait_until("every status to be true", PATIENCE, || site.ensure_statuses_true())?;

        bad_peers_disturb_nothing(&site)?;
        the_api_server_may_be_away(lab, &mut site)?;
        what_a_node_had_is_withdrawn_and_returned(&mut site)
    })
}

fn bad_peers_disturb_nothing(site: &Site) -> Result<()> {
    let refused =
        site.plane.apply(&[peer("bad", json!({"peerIP": "10.0.1.99"}))]).err().context("it was taken")?;
    ensure!(format!("{refused:#}").contains("asNumber is missing"), "{refused:#}");
    let dangling = json!({"peerIP": "10.0.1.99", "asNumber": 65000, "filters": ["gone"]});
    site.plane.apply(&[peer("bad", dangling)])?;
    wait_until("the object to say why it is not accepted", PATIENCE, || {
        let accepted = condition(&site.plane.get("bgppeer bad")?, "Accepted");
        let told = accepted["message"].as_str().unwrap_or_default();
        ensure!(accepted["status"] == "False" && told.contains("there is no BGPFilter gone"), "{accepted}");
        for node in site.racks.iter().flat_map(|rack| &rack.nodes) {
            ensure!(errors(node)?.len() == 1 && node.weft.peers()?.len() == 1, "{:?}", errors(node)?);
        }
        Ok(())
    })?;
    site.reachable()
}

/// Under traffic, and while pods come and go.
fn the_api_server_may_be_away(lab: &Lab, site: &mut Site) -> Result<()> {
    let (near, far) = (&site.racks[0].nodes[0].pods[0], &site.racks[1].nodes[0].pods[0]);
    let flows = Flows::start(
        &near.namespace,
        &far.namespace,
        far.address(Family::V4)?,
        4,
        Duration::from_millis(10),
    )?;
    let from = far.namespace.clone();
    site.plane.kill_api_server()?;
    for round in 0..AWAY.0 {
        let mut nodes = site.racks.iter_mut().flat_map(|rack| &mut rack.nodes);
        let node = nodes.nth(usize::try_from(round)? % 3).context("there are three")?;
        let address = node.add_pod(lab)?.address(Family::V4)?;
        stays("the new pod's network", AWAY.1, || ping(&from, address))?;
        node.pods.pop().context("it was just added")?.delete()?;
    }
    site.plane.start_api_server()?;
    site.plane.run("delete bgppeer bad")?;
    wait_until("all to have caught up", CATCH_UP, || {
        for node in site.racks.iter().flat_map(|rack| &rack.nodes) {
            let status = node.weft.status()?;
            ensure!(status["ok"] == true && errors(node)?.is_empty(), "{status}");
        }
        Ok(())
    })?;
    let report = flows.stop()?;
    ensure!(report.lost == 0, "{report:?}");
    wait_until("every status to be true again", PATIENCE, || site.ensure_statuses_true())
}

fn what_a_node_had_is_withdrawn_and_returned(site: &mut Site) -> Result<()> {
    let block = *site.plane.blocks()?["b1"].first().context("it has one")?;
    site.plane.run("delete node b1")?;
    // Its weftd still runs, and ends what it had to do with others.
    wait_until("the block to be withdrawn", PATIENCE, || {
        for rack in &site.racks {
            let paths = rack.tor.paths(block)?;
            ensure!(paths.is_empty(), "{paths:?}");
        }
        Ok(())
    })?;
    wait_until("the block to be returned", PATIENCE, || {
        let blocks = site.plane.blocks()?;
        ensure!(!blocks.contains_key("b1") && blocks.len() == 2, "{blocks:?}");
        Ok(())
    })?;
    let gone = &site.racks[1].nodes[0];
    ping(&gone.namespace, gone.pods[0].address(Family::V4)?)
        .context("a pod of the node from the node itself")?;
    let (near, far) = (&site.racks[0].nodes[0].pods[0], &site.racks[0].nodes[1].pods[0]);
    ping(&near.namespace, far.address(Family::V4)?)
}
