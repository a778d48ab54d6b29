//! Plans and documents of peers that are known by their interface.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panic, in its helpers too"
)]

use std::fs;
use std::net::Ipv6Addr;

use weft_bgp::config::RemoteAs;
use weft_bgp::types::{FamilySet, Interface, PeerAddress};
use weft_controller::api::json::DocumentError;
use weft_controller::cluster::Cluster;
use weft_controller::documents::load;
use weft_controller::plan::{HostFacts, InterfaceFacts, NodePlan, plan};

const NODE: &str = r#"
apiVersion: v1
kind: Node
metadata: {name: n1}
spec: {podCIDRs: [10.244.1.0/26, "fd00:244:1::/122"]}
status: {addresses: [{type: InternalIP, address: 192.0.2.1}, {type: InternalIP, address: "2001:db8::1"}]}
---
apiVersion: weft.network/v1alpha1
kind: BGPConfiguration
metadata: {name: default}
spec: {nodeToNodeMeshEnabled: false}
"#;

fn read(peers: &[(&str, &str)]) -> Result<Cluster, Vec<DocumentError>> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let peers = peers.iter().map(|(name, spec)| {
        format!("---\napiVersion: weft.network/v1alpha1\nkind: BGPPeer\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n")
    });
    fs::write(folder.path().join("x.yaml"), format!("{NODE}{}", peers.collect::<String>())).expect("a file");
    load(folder.path())
}

/// The only error of these peers: its field, and all its words.
fn error(peers: &[(&str, &str)]) -> (String, String) {
    let mut errors = read(peers).expect_err("an error");
    assert_eq!(errors.len(), 1, "{errors:#?}");
    let error = errors.remove(0);
    (error.field.clone().unwrap_or_default(), error.to_string())
}

fn interface(index: u32, addresses: &[&str], mtu: u32) -> InterfaceFacts {
    let addresses = addresses.iter().map(|a| a.parse().expect("an address")).collect();
    InterfaceFacts { index, addresses, mtu, ..InterfaceFacts::default() }
}

/// A node whose addresses are on `lo`, with two uplinks.
fn host() -> HostFacts {
    let interfaces = [
        ("lo", interface(1, &["127.0.0.1/8", "192.0.2.1/32", "2001:db8::1/128"], 65536)),
        ("eth0", interface(2, &["fe80::1/64"], 9000)),
        ("eth1", interface(3, &["fe80::1/64", "2001:db8:1::5/64"], 1400)),
    ];
    let interfaces = interfaces.into_iter().map(|(name, facts)| (name.to_owned(), facts)).collect();
    HostFacts { interfaces, ..HostFacts::default() }
}

fn planned(peers: &[(&str, &str)], host: &HostFacts) -> NodePlan {
    let cluster = read(peers).unwrap_or_else(|errors| panic!("{errors:#?}"));
    plan(&cluster, "n1", host).expect("a plan")
}

fn on(index: u32, name: &str) -> PeerAddress {
    PeerAddress::Interface(Interface::new(index, name).expect("a name"))
}

const UPLINKS: [(&str, &str); 2] =
    [("tor-a", "interface: eth0, asNumber: external"), ("tor-b", "interface: eth1, asNumber: 65000")];

#[test]
fn each_uplink_is_a_peer_with_whoever_was_found_there() {
    let router: Ipv6Addr = "fe80::9".parse().expect("an address");
    let host = HostFacts { routers: [(3, router)].into(), ..host() };
    let plan = planned(&UPLINKS, &host);
    assert_eq!(plan.diagnostics, []);
    let peers = &plan.speaker.peers;
    assert_eq!(peers.keys().map(ToString::to_string).collect::<Vec<_>>(), ["%eth0", "%eth1"]);
    let (a, b) = (&peers[&on(2, "eth0")], &peers[&on(3, "eth1")]);
    assert_eq!((a.neighbour, b.neighbour), (None, Some(router)));
    assert_eq!((a.remote_as, a.port, a.source_address), (RemoteAs::External, 179, None));
    assert_eq!(a.families, FamilySet::all());
    // The node address is on another link; that of the uplink itself goes along where there is one.
    assert_eq!((a.next_hop_v4, a.next_hop_v6), (None, None));
    assert_eq!((b.next_hop_v4, b.next_hop_v6), (None, "2001:db8:1::5".parse().ok()));
    assert_eq!(plan.listeners.iter().map(ToString::to_string).collect::<Vec<_>>(), ["[::]:179"]);
    assert_eq!(plan.mtu, 1400, "that of the uplinks");
    let own: Vec<String> = plan.speaker.originate.keys().map(ToString::to_string).collect();
    assert!(own.contains(&"192.0.2.1/32".into()) && own.contains(&"2001:db8::1/128".into()), "{own:?}");
    assert!(plan.sysctls.iter().all(|sysctl| !sysctl.path.contains("accept_ra")), "{:?}", plan.sysctls);
}

#[test]
fn an_interface_that_the_node_does_not_have_is_named() {
    let mut host = host();
    host.interfaces.remove("eth1");
    let plan = planned(&UPLINKS, &host);
    assert_eq!(plan.speaker.peers.len(), 1);
    let [problem] = plan.diagnostics.as_slice() else { panic!("{:?}", plan.diagnostics) };
    assert_eq!(problem.code, "no-interface");
    assert!(problem.text.contains("tor-b") && problem.text.contains("eth1"), "{}", problem.text);
}

#[test]
fn what_an_interface_excludes_is_an_error_of_the_documents() {
    for (spec, field, words) in [
        ("interface: eth0", "spec.asNumber", "asNumber is missing"),
        (
            "interface: eth0, asNumber: 1, peerIP: 10.0.0.1",
            "spec.interface",
            "peerIP and interface are both given",
        ),
        (
            "interface: eth0, peerSelector: all()",
            "spec.interface",
            "peerSelector and interface are both given",
        ),
        (
            "interface: eth0, asNumber: 1, ebgpMultihop: true",
            "spec.ebgpMultihop",
            "with interface; leave it out",
        ),
        ("interface: eth0, asNumber: 1, sourceAddress: UseNodeIP", "spec.sourceAddress", "leave it out"),
        ("interface: a/b, asNumber: 1", "spec.interface", "is not the name of an interface"),
    ] {
        let (at, text) = error(&[("p", spec)]);
        assert_eq!(at, field, "{text}");
        assert!(text.contains(words), "{text}");
    }
}

#[test]
fn two_peers_on_one_interface_are_an_error() {
    let (field, text) = error(&[UPLINKS[0], ("tor-c", "interface: eth0, asNumber: 65001")]);
    assert_eq!(field, "spec.interface");
    assert!(text.contains("BGPPeer/tor-a asks for a session of Node n1 with %eth0 too"), "{text}");
    // Not on different nodes.
    let elsewhere = ("tor-c", "nodeSelector: 'rack == \"b\"', interface: eth0, asNumber: 65001");
    assert!(read(&[UPLINKS[0], elsewhere]).is_ok());
}
