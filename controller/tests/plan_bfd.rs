//! Plans and documents of BFD.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panic, in its helpers too"
)]

use std::fs;
use std::time::Duration;

use weft_bgp::bfd::{Hops, SessionConfig};
use weft_bgp::types::{Interface, PeerAddress};
use weft_controller::api::json::DocumentError;
use weft_controller::cluster::{Cluster, Kind};
use weft_controller::documents::load;
use weft_controller::plan::{HostFacts, InterfaceFacts, NodePlan, plan};

/// Three nodes, the third in another subnet.
fn nodes() -> String {
    let node = |n: u8, address: &str| {
        format!(
            "apiVersion: v1\nkind: Node\nmetadata: {{name: n{n}}}\nspec: {{podCIDRs: [10.244.{n}.0/26]}}\n\
             status: {{addresses: [{{type: InternalIP, address: {address}}}]}}\n---\n"
        )
    };
    [node(1, "192.0.2.1"), node(2, "192.0.2.2"), node(3, "198.51.100.3")].concat()
}

fn read(objects: &[(&str, &str, &str)]) -> Result<Cluster, Vec<DocumentError>> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let objects = objects.iter().map(|(kind, name, spec)| {
        format!(
            "---\napiVersion: weft.network/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"
        )
    });
    fs::write(folder.path().join("x.yaml"), nodes() + &objects.collect::<String>()).expect("a file");
    load(folder.path())
}

fn cluster(objects: &[(&str, &str, &str)]) -> Cluster {
    read(objects).unwrap_or_else(|errors| panic!("{errors:#?}"))
}

/// The errors of these objects: their fields and words.
fn errors(objects: &[(&str, &str, &str)]) -> Vec<(String, String)> {
    let errors = read(objects).expect_err("an error");
    errors.iter().map(|error| (error.field.clone().unwrap_or_default(), error.to_string())).collect()
}

fn planned(cluster: &Cluster, node: &str, address: &str) -> NodePlan {
    let facts = |index, addresses: &[&str]| InterfaceFacts {
        index,
        addresses: addresses.iter().map(|a| a.parse().expect("an address")).collect(),
        mtu: 1500,
        ..InterfaceFacts::default()
    };
    let interfaces = [("eth0", facts(2, &[address, "fe80::1/64"])), ("eth1", facts(3, &["fe80::1/64"]))];
    let interfaces = interfaces.into_iter().map(|(name, facts)| (name.to_owned(), facts)).collect();
    let routers = [(3, "fe80::9".parse().expect("an address"))].into();
    plan(cluster, node, &HostFacts { interfaces, routers, ..HostFacts::default() }).expect("a plan")
}

fn on_n1(objects: &[(&str, &str, &str)]) -> NodePlan {
    planned(&cluster(objects), "n1", "192.0.2.1/24")
}

fn bfd(plan: &NodePlan, peer: impl Into<PeerAddress>) -> Option<SessionConfig> {
    plan.speaker.peers[&peer.into()].bfd
}

const NO_MESH: (&str, &str, &str) = ("BGPConfiguration", "default", "nodeToNodeMeshEnabled: false");

#[test]
fn a_profile_gives_the_intervals_and_its_defaults_are_300_ms_by_3() {
    let plan = on_n1(&[
        NO_MESH,
        ("BFDProfile", "slow", ""),
        (
            "BFDProfile",
            "fast",
            "receiveInterval: 50ms, transmitInterval: 100ms, detectMultiplier: 5, passiveMode: true",
        ),
        ("BGPPeer", "tor-a", "peerIP: 192.0.2.250, asNumber: 65000, bfdProfile: slow"),
        (
            "BGPPeer",
            "tor-b",
            "peerIP: 192.0.2.251, asNumber: 65000, bfdProfile: fast, sourceAddress: UseNodeIP",
        ),
        ("BGPPeer", "tor-c", "peerIP: 192.0.2.252, asNumber: 65000"),
    ]);
    let ms = Duration::from_millis;
    let slow = SessionConfig {
        hops: Hops::Single,
        source: None,
        desired_min_tx_interval: ms(300),
        required_min_rx_interval: ms(300),
        detect_mult: 3,
        passive: false,
    };
    assert_eq!(bfd(&plan, [192, 0, 2, 250]), Some(slow));
    let fast = SessionConfig {
        source: Some([192, 0, 2, 1].into()),
        desired_min_tx_interval: ms(100),
        required_min_rx_interval: ms(50),
        detect_mult: 5,
        passive: true,
        ..slow
    };
    assert_eq!(bfd(&plan, [192, 0, 2, 251]), Some(fast));
    assert_eq!(bfd(&plan, [192, 0, 2, 252]), None);
}

#[test]
fn the_configuration_gives_a_profile_to_all_that_name_none_the_mesh_among_them() {
    let objects = [
        ("BGPConfiguration", "default", "bfdProfile: all"),
        ("BFDProfile", "all", "passiveMode: true, minimumTtl: 252"),
        ("BGPPeer", "tor", "peerIP: 192.0.2.250, asNumber: 65000"),
        ("BGPPeer", "without", "peerIP: 192.0.2.251, asNumber: 65000, bfdProfile: ''"),
    ];
    let cluster = cluster(&objects);
    let (first, second) = (planned(&cluster, "n1", "192.0.2.1/24"), planned(&cluster, "n2", "192.0.2.2/24"));
    assert!(bfd(&first, [192, 0, 2, 250]).is_some_and(|bfd| bfd.hops == Hops::Single && bfd.passive));
    assert_eq!(bfd(&first, [192, 0, 2, 251]), None);
    // Wherever the other node is, both ends say the same, and one of them speaks first.
    let multihop = Hops::Multi { minimum_ttl: 252 };
    for (plan, peer, passive) in
        [(&first, [192, 0, 2, 2], false), (&first, [198, 51, 100, 3], false), (&second, [192, 0, 2, 1], true)]
    {
        assert!(
            bfd(plan, peer).is_some_and(|bfd| (bfd.hops, bfd.passive) == (multihop, passive)),
            "{peer:?}"
        );
    }
}

#[test]
fn a_session_is_over_as_many_hops_as_bgp_is() {
    let plan = on_n1(&[
        ("BGPConfiguration", "default", "nodeToNodeMeshEnabled: false, bfdProfile: p"),
        ("BFDProfile", "p", ""),
        ("BGPPeer", "far", "peerIP: 203.0.113.1, asNumber: 65000, ebgpMultihop: true"),
        ("BGPPeer", "inside", "peerIP: 192.0.2.250, asNumber: internal"),
        ("BGPPeer", "behind", "peerIP: 203.0.113.2, asNumber: internal"),
        ("BGPPeer", "uplink", "interface: eth1, asNumber: external"),
    ]);
    let multihop = Hops::Multi { minimum_ttl: 1 };
    assert!(bfd(&plan, [203, 0, 113, 1]).is_some_and(|bfd| bfd.hops == multihop));
    assert!(bfd(&plan, [192, 0, 2, 250]).is_some_and(|bfd| bfd.hops == Hops::Single));
    assert!(bfd(&plan, [203, 0, 113, 2]).is_some_and(|bfd| bfd.hops == multihop));
    let uplink = PeerAddress::Interface(Interface::new(3, "eth1").expect("a name"));
    let config = &plan.speaker.peers[&uplink];
    assert!(config.bfd.is_some_and(|bfd| bfd.hops == Hops::Single));
    let remote = config.bfd_remote(uplink).expect("it was found");
    assert_eq!(remote.to_string(), "fe80::9%3");
}

#[test]
fn a_peer_that_is_shut_down_has_no_session() {
    let plan = on_n1(&[
        NO_MESH,
        ("BFDProfile", "p", ""),
        ("BGPPeer", "tor", "peerIP: 192.0.2.250, asNumber: 65000, bfdProfile: p, shutdown: true"),
    ]);
    let address = PeerAddress::from([192, 0, 2, 250]);
    assert_eq!(plan.speaker.peers[&address].bfd_remote(address), None);
}

#[test]
fn values_that_no_session_could_keep_to_are_refused() {
    for (spec, field, message, remedy) in [
        ("receiveInterval: 9ms", "spec.receiveInterval", "9ms is out of range", "write 10ms to 60s"),
        ("transmitInterval: 61s", "spec.transmitInterval", "1m1s is out of range", "write 10ms to 60s"),
        ("detectMultiplier: 1", "spec.detectMultiplier", "one lost packet is a dead path", "write 2 to 255"),
        ("minimumTtl: 0", "spec.minimumTtl", "no packet arrives with a TTL of 0", "write 1 to 255"),
        ("echoInterval: 50ms", "spec.echoInterval", "unknown field", "receiveInterval"),
    ] {
        let found = errors(&[NO_MESH, ("BFDProfile", "p", spec)]);
        let [(at, words)] = found.as_slice() else { panic!("{found:#?}") };
        assert_eq!(at, field);
        assert!(words.contains(message) && words.contains(remedy), "{words}");
    }
}

#[test]
fn a_profile_that_is_not_there_is_an_error_of_who_names_it() {
    let found = errors(&[
        ("BGPConfiguration", "default", "bfdProfile: gone"),
        ("BGPPeer", "tor", "peerIP: 192.0.2.250, asNumber: 65000, bfdProfile: lost"),
    ]);
    let [(first, gone), (second, lost)] = found.as_slice() else { panic!("{found:#?}") };
    assert_eq!((first.as_str(), second.as_str()), ("spec.bfdProfile", "spec.bfdProfile"));
    assert!(
        gone.contains("BGPConfiguration/default") && gone.contains("there is no BFDProfile gone"),
        "{gone}"
    );
    assert!(lost.contains("BGPPeer/tor") && lost.contains("there is no BFDProfile lost"), "{lost}");
}

/// From an API a profile can go while it is named: what is in force stays so, and the plan tells what that means.
#[test]
fn a_profile_that_has_gone_is_a_problem_and_no_end_of_bgp() {
    let mut cluster = cluster(&[
        NO_MESH,
        ("BFDProfile", "p", ""),
        ("BGPPeer", "tor", "peerIP: 192.0.2.250, asNumber: 65000, bfdProfile: p"),
    ]);
    cluster.delete(Kind::BfdProfile, "p");
    let plan = planned(&cluster, "n1", "192.0.2.1/24");
    assert_eq!(bfd(&plan, [192, 0, 2, 250]), None);
    assert!(
        plan.diagnostics.iter().any(|problem| problem.code == "bfd-profile-missing"),
        "{:?}",
        plan.diagnostics
    );
}
