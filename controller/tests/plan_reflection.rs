//! The plan of nodes that reflect routes, of their clients, and what each believes.

#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panic, in its helpers too")]

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use weft_bgp::config::{AddPath, AddPathSend, PathChoice, PeerConfig};
use weft_bgp::policy::{CompiledPolicy, Policy, RouteSource, Subject};
use weft_bgp::types::PeerType;
use weft_bgp::wire::attributes::PathAttributes;
use weft_controller::cluster::Cluster;
use weft_controller::documents::load;
use weft_controller::plan::{HostFacts, InterfaceFacts, NodePlan, plan};

/// r1 and r2 reflect, c1 and c2 are their clients; nodes have a block and an address of each family by their number, 1 to 4.
const NODES: [(&str, bool); 4] = [("r1", true), ("r2", true), ("c1", false), ("c2", false)];

const REFLECTORS: &str = "kind: BGPConfiguration\nmetadata: {name: default}\nspec: {nodeToNodeMeshEnabled: false}\n---\n\
apiVersion: weft.network/v1alpha1\nkind: BGPPeer\nmetadata: {name: clients}\nspec: {nodeSelector: has(rr), peerSelector: '!has(rr)', routeReflectorClient: true}\n---\n\
apiVersion: weft.network/v1alpha1\nkind: BGPPeer\nmetadata: {name: reflectors}\nspec: {nodeSelector: has(rr), peerSelector: has(rr)}\n";

fn cluster(documents: &[&str]) -> Cluster {
    let mut text = String::new();
    for (index, (name, reflects)) in NODES.into_iter().enumerate() {
        let (n, labels) = (index + 1, if reflects { "rr: yes" } else { "" });
        text.push_str(&format!(
            "---\napiVersion: v1\nkind: Node\nmetadata: {{name: {name}, labels: {{{labels}}}}}\n\
             spec: {{podCIDRs: [10.244.{n}.0/26, \"fd00:244:{n}::/122\"]}}\n\
             status: {{addresses: [{{type: InternalIP, address: 192.0.2.{n}}}, {{type: InternalIP, address: \"2001:db8::{n}\"}}]}}\n"
        ));
    }
    for document in documents {
        text.push_str(&format!("---\napiVersion: weft.network/v1alpha1\n{document}"));
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("x.yaml"), text.replace("rr: yes", "rr: \"yes\"")).expect("a file");
    load(folder.path()).unwrap_or_else(|errors| panic!("{errors:#?}"))
}

/// The plan of a node, whose IPv6 node address is on `lo`; its link has another.
fn plan_of(cluster: &Cluster, node: &str) -> NodePlan {
    let n = NODES.iter().position(|(name, _)| *name == node).expect("a node") + 1;
    let facts = |addresses: &[String]| InterfaceFacts {
        addresses: addresses.iter().map(|a| a.parse().expect("an address")).collect(),
        mtu: 1500,
        ..InterfaceFacts::default()
    };
    let lo = facts(&["127.0.0.1/8".into(), format!("2001:db8::{n}/128")]);
    let eth0 = facts(&[format!("192.0.2.{n}/24"), format!("fd00:1::{n}/64")]);
    let interfaces = [("eth0".into(), eth0), ("lo".into(), lo)].into();
    plan(cluster, node, &HostFacts { interfaces, ..HostFacts::default() }).expect("a plan")
}

fn peer(plan: &NodePlan, n: u8) -> Arc<PeerConfig> {
    let address = IpAddr::from([192, 0, 2, n]);
    Arc::clone(plan.speaker.peers.get(&address.into()).unwrap_or_else(|| panic!("no session with {address}")))
}

/// The other ends of a node's sessions by number, and whether each is its client.
fn sessions(plan: &NodePlan) -> Vec<(String, bool)> {
    let peers = plan.speaker.peers.iter();
    peers.map(|(address, config)| (address.to_string(), config.route_reflector_client)).collect()
}

fn says(policy: &Arc<Policy>, prefix: &str, next_hop: &str, source: RouteSource) -> String {
    let prefix = prefix.parse().expect("a prefix");
    let attributes = &PathAttributes::new(next_hop.parse().expect("an address"));
    let subject = Subject { prefix: &prefix, source, peer_type: PeerType::Internal, attributes };
    match CompiledPolicy::new(Arc::clone(policy)).evaluate(subject) {
        Ok(_) => "accept".into(),
        Err(reason) => reason.code.to_string(),
    }
}

fn import(config: &PeerConfig, prefix: &str, next_hop: &str) -> String {
    says(&config.import, prefix, next_hop, RouteSource::RemotePeers)
}

#[test]
fn one_end_reflects_and_the_other_has_an_ordinary_session() {
    let cluster = cluster(&[REFLECTORS]);
    let of = |n: u8, client: bool| (format!("192.0.2.{n}"), client);
    assert_eq!(sessions(&plan_of(&cluster, "r1")), [of(2, false), of(3, true), of(4, true)]);
    assert_eq!(sessions(&plan_of(&cluster, "r2")), [of(1, false), of(3, true), of(4, true)]);
    assert_eq!(sessions(&plan_of(&cluster, "c1")), [of(1, false), of(2, false)]);
    for (name, _) in NODES {
        assert_eq!(plan_of(&cluster, name).diagnostics, [], "{name}");
    }
}

/// What a BGPPeer between nodes says holds for both ends; the mesh, and who says nothing, has one path a prefix.
#[test]
fn several_paths_are_for_both_ends_of_a_session_between_nodes() {
    let several = REFLECTORS.replace(
        "routeReflectorClient: true",
        "routeReflectorClient: true, addPath: {receive: true, send: Multipath, sendMax: 8}",
    );
    let cluster = cluster(&[&several]);
    let wanted =
        AddPath { receive: true, send: Some(AddPathSend { paths: PathChoice::Multipath, limit: 8 }) };
    assert_eq!(peer(&plan_of(&cluster, "r1"), 3).add_path, wanted);
    assert_eq!(peer(&plan_of(&cluster, "c1"), 1).add_path, wanted);
    assert_eq!(peer(&plan_of(&cluster, "r1"), 2).add_path, AddPath::default());
}

#[test]
fn what_is_not_said_of_several_paths_has_a_default() {
    for (said, wanted) in [
        ("{receive: true}", AddPath { receive: true, send: None }),
        (
            "{send: All}",
            AddPath { receive: false, send: Some(AddPathSend { paths: PathChoice::All, limit: 64 }) },
        ),
    ] {
        let router = format!(
            "kind: BGPPeer\nmetadata: {{name: router}}\nspec: {{peerIP: 192.0.2.77, asNumber: internal, addPath: {said}}}\n"
        );
        assert_eq!(peer(&plan_of(&cluster(&[REFLECTORS, &router]), "c1"), 77).add_path, wanted);
    }
}

#[test]
fn a_router_may_be_a_client_too() {
    let peer = "kind: BGPPeer\nmetadata: {name: router}\nspec: {nodeSelector: has(rr), peerIP: 192.0.2.77, asNumber: internal, routeReflectorClient: true}\n";
    let cluster = cluster(&[REFLECTORS, peer]);
    assert!(sessions(&plan_of(&cluster, "r1")).contains(&("192.0.2.77".into(), true)));
    assert!(!sessions(&plan_of(&cluster, "c1")).iter().any(|(address, _)| address == "192.0.2.77"));
}

#[test]
fn the_cluster_id_is_that_of_nodes_that_reflect() {
    let own = "kind: BGPConfiguration\nmetadata: {name: node.r2}\nspec: {routeReflectorClusterID: 9}\n";
    let all = REFLECTORS.replace("Enabled: false", "Enabled: false, routeReflectorClusterID: 192.0.2.200");
    let cluster = cluster(&[&all, own]);
    let id = |node| plan_of(&cluster, node).speaker.cluster_id;
    assert_eq!(id("r1"), Some(Ipv4Addr::new(192, 0, 2, 200)));
    assert_eq!(id("r2"), Some(Ipv4Addr::new(0, 0, 0, 9)));
    // A client of that cluster would reject whatever comes from it.
    assert_eq!(id("c1"), None);
}

/// A client may tell its reflector of its own blocks alone, as between any two nodes.
#[test]
fn a_reflector_believes_a_client_only_its_own_blocks() {
    let plan = plan_of(&cluster(&[REFLECTORS]), "r1");
    let c1 = peer(&plan, 3);
    assert_eq!(import(&c1, "10.244.3.0/26", "192.0.2.3"), "accept");
    for next_hop in ["192.0.2.3", "192.0.2.4"] {
        assert_eq!(import(&c1, "10.244.4.0/26", next_hop), "duplicate-origin", "{next_hop}");
        assert_eq!(import(&c1, "10.244.1.0/26", next_hop), "duplicate-origin", "{next_hop}");
    }
}

/// Of a reflector any node's block is believed, and nothing that would have its packets go anywhere else.
#[test]
fn what_is_reflected_must_lead_to_the_node_whose_block_it_is() {
    let cluster = cluster(&[REFLECTORS]);
    for (node, from) in [("c1", 1), ("c1", 2), ("r1", 2)] {
        let session = peer(&plan_of(&cluster, node), from);
        for (prefix, next_hop, want) in [
            ("10.244.4.0/26", "192.0.2.4", "accept"),
            ("fd00:244:4::/122", "2001:db8::4", "accept"),
            ("10.244.2.0/26", "192.0.2.2", "accept"),
            // A client, a router or the reflector itself that would have the packets.
            ("10.244.4.0/26", "192.0.2.2", "duplicate-origin"),
            ("10.244.4.0/26", "192.0.2.77", "duplicate-origin"),
            ("fd00:244:4::/122", "2001:db8::2", "duplicate-origin"),
            ("fd00:244:4::/122", "fd00:1::4", "duplicate-origin"),
            // A part of it, or all there is.
            ("10.244.4.1/32", "192.0.2.4", "duplicate-origin"),
            ("10.244.0.0/16", "192.0.2.4", "duplicate-origin"),
            ("0.0.0.0/0", "192.0.2.4", "duplicate-origin"),
            ("::/0", "2001:db8::4", "duplicate-origin"),
        ] {
            assert_eq!(import(&session, prefix, next_hop), want, "{node} of {from}: {prefix} via {next_hop}");
        }
    }
    let own = peer(&plan_of(&cluster, "c1"), 1);
    assert_eq!(import(&own, "10.244.3.0/26", "192.0.2.3"), "duplicate-origin", "our own block");
}

#[test]
fn reflectors_reflect_and_open_no_transit() {
    let pool = "kind: IPPool\nmetadata: {name: a}\nspec: {cidr: 10.244.4.0/24, disableBGPExport: true}\n";
    let router = "kind: BGPPeer\nmetadata: {name: router}\nspec: {nodeSelector: has(rr), peerIP: 192.0.2.77, asNumber: internal}\n";
    let plan = plan_of(&cluster(&[REFLECTORS, router, pool]), "r1");
    let export = |n, prefix, source| says(&peer(&plan, n).export, prefix, "192.0.2.9", source);
    for n in [2, 3] {
        assert_eq!(export(n, "10.244.4.0/26", RouteSource::Reflected), "accept");
        assert_eq!(export(n, "fd00:244:4::/122", RouteSource::Reflected), "accept");
        // Of a router's routes those are kept back that no node believes of another.
        assert_eq!(export(n, "10.244.0.0/16", RouteSource::Reflected), "not-own-block");
        assert_eq!(export(n, "192.0.2.3/32", RouteSource::Reflected), "not-own-block");
        assert_eq!(export(n, "10.244.4.0/26", RouteSource::RemotePeers), "not-own-block");
        assert_eq!(export(n, "10.244.1.0/26", RouteSource::Local), "accept");
    }
    assert_eq!(export(77, "10.244.3.0/26", RouteSource::Reflected), "accept");
    assert_eq!(export(77, "10.244.3.0/26", RouteSource::RemotePeers), "no-transit");
    // What is to stay in the cluster goes to its nodes, and no further by way of a reflector.
    assert_eq!(export(77, "10.244.4.0/26", RouteSource::Reflected), "export-disabled");
}

/// Filters replace the default here too: what is reflected is a remote peer's.
#[test]
fn a_filter_speaks_of_what_is_reflected() {
    let filter = |rule: &str| {
        format!("kind: BGPFilter\nmetadata: {{name: f}}\nspec: {{exportV4: [{{{rule}, action: Accept}}]}}\n")
    };
    let filtered = REFLECTORS.replace("Client: true", "Client: true, filters: [f]");
    for (rule, reflected, transit) in [
        ("source: RemotePeers", "accept", "accept"),
        ("cidr: 10.244.0.0/16, matchOperator: In", "no-filter-match", "no-filter-match"),
    ] {
        let plan = plan_of(&cluster(&[&filtered, &filter(rule)]), "r1");
        let export = |source| says(&peer(&plan, 3).export, "10.244.4.0/26", "192.0.2.4", source);
        assert_eq!(export(RouteSource::Reflected), reflected, "{rule}");
        assert_eq!(export(RouteSource::RemotePeers), transit, "{rule}");
    }
}

/// Between two nodes of a link the link's address is as good; others, who hear of it from a reflector, know the node address alone.
#[test]
fn the_next_hop_that_is_reflected_is_the_node_address() {
    let next_hop = |cluster: &Cluster, n| peer(&plan_of(cluster, "c1"), n).next_hop_v6;
    assert_eq!(next_hop(&cluster(&[REFLECTORS]), 1), "2001:db8::3".parse().ok());
    assert_eq!(next_hop(&cluster(&[]), 1), "fd00:1::3".parse().ok());
}

#[test]
fn blocks_by_node_are_those_of_each_node() {
    for more in [
        &[][..],
        &["kind: IPBlock\nmetadata: {name: b}\nspec: {cidr: 10.9.0.0/26, node: c1}\n"],
        &[
            "kind: IPBlock\nmetadata: {name: b}\nspec: {cidr: 10.9.0.64/26, node: c1}\n",
            "kind: IPBlock\nmetadata: {name: a}\nspec: {cidr: 10.9.0.128/26, node: c1}\n",
            "kind: BGPConfiguration\nmetadata: {name: default}\nspec: {podCIDRSource: IPPool}\n",
        ],
    ] {
        let cluster = cluster(more);
        let all = cluster.blocks_by_node();
        for (name, _) in NODES {
            let blocks = all.get(name).cloned().unwrap_or_default();
            assert_eq!(blocks, cluster.blocks_of(name), "{name} {more:?}");
        }
    }
}
