//! Plans of dynamic peers: who connects from within a range.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panic, in its helpers too"
)]

use std::fs;

use ipnet::IpNet;
use weft_bgp::bfd::Hops;
use weft_bgp::config::{RangeConfig, RemoteAs};
use weft_bgp::protection::{Authentication, Signature};
use weft_bgp::types::Asn;
use weft_controller::cluster::Cluster;
use weft_controller::documents::load;
use weft_controller::plan::{HostFacts, InterfaceFacts, NodePlan, plan};

const NODES: &str = r#"
apiVersion: v1
kind: Node
metadata: {name: n1}
spec: {podCIDRs: [10.244.1.0/26, "fd00:244:1::/122"]}
status: {addresses: [{type: InternalIP, address: 192.0.2.1}, {type: InternalIP, address: "2001:db8::1"}]}
---
apiVersion: v1
kind: Node
metadata: {name: n2}
spec: {podCIDRs: [10.244.2.0/26]}
status: {addresses: [{type: InternalIP, address: 192.0.2.2}]}
---
apiVersion: weft.network/v1alpha1
kind: BFDProfile
metadata: {name: fast}
spec: {}
---
apiVersion: v1
kind: Secret
metadata: {name: bgp}
stringData: {rack: secret}
"#;

fn host() -> HostFacts {
    let interface = |index, addresses: &[&str], mtu| InterfaceFacts {
        index,
        addresses: addresses.iter().map(|a| a.parse().expect("an address")).collect(),
        mtu,
        ..InterfaceFacts::default()
    };
    let interfaces = [
        ("eth0", interface(2, &["192.0.2.1/24", "2001:db8::1/64"], 9000)),
        ("eth1", interface(3, &["198.51.100.1/24", "2001:db8:1::1/64"], 1400)),
    ];
    let interfaces = interfaces.into_iter().map(|(name, facts)| (name.to_owned(), facts)).collect();
    HostFacts { interfaces, ..HostFacts::default() }
}

fn planned(spec: &str) -> NodePlan {
    plan(&cluster(spec), "n1", &host()).expect("a plan")
}

fn cluster(spec: &str) -> Cluster {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let peer = format!(
        "---\napiVersion: weft.network/v1alpha1\nkind: BGPPeer\nmetadata: {{name: rack}}\nspec: {{{spec}}}\n"
    );
    fs::write(folder.path().join("x.yaml"), format!("{NODES}{peer}")).expect("a file");
    load(folder.path()).unwrap_or_else(|errors| panic!("{errors:#?}"))
}

fn net(text: &str) -> IpNet {
    text.parse().expect("a prefix")
}

fn range<'a>(plan: &'a NodePlan, range: &str) -> &'a RangeConfig {
    &plan.speaker.ranges[&net(range)]
}

#[test]
fn a_range_is_planned_like_a_peer_that_only_connects() {
    let plan = planned(
        "listenRange: 198.51.100.0/25, asNumber: external, ttlSecurity: 1, holdTime: 9s, maxPrefixes: {limit: 10}, \
         password: {secretKeyRef: {name: bgp, key: rack}}, bfdProfile: fast",
    );
    assert_eq!(plan.diagnostics, []);
    assert_eq!(plan.speaker.peers.len(), 1, "the mesh");
    let RangeConfig { limit, peer } = range(&plan, "198.51.100.0/25");
    assert_eq!(
        (*limit, peer.name.as_str(), peer.passive, peer.remote_as),
        (100, "rack", true, RemoteAs::External)
    );
    assert!(
        matches!(peer.authentication, Authentication::Signed(Signature::Md5(_)))
            && peer.ttl_security.is_some()
    );
    assert_eq!((peer.timers.hold_time.as_secs(), peer.max_prefixes.map(|max| max.limit)), (9, Some(10)));
    assert_eq!((peer.bfd.expect("BFD").hops, peer.source_address), (Hops::Single, None));
    // All of it is on that link.
    assert_eq!((peer.next_hop_v4, peer.next_hop_v6), (None, "2001:db8:1::1".parse().ok()));
    assert_eq!(plan.mtu, 1400);
    assert!(plan.listeners.contains(&"0.0.0.0:179".parse().expect("an address")));
    assert!(plan.is_peer(std::net::IpAddr::from([198, 51, 100, 9]).into()));
    assert!(!plan.is_peer(std::net::IpAddr::from([198, 51, 100, 129]).into()));
}

#[test]
fn a_range_of_many_links_is_told_the_node_address_and_opens_a_listener_of_its_family() {
    let plan =
        planned("listenRange: \"2001:db8::/32\", asNumber: internal, listenLimit: 7, bfdProfile: fast");
    let RangeConfig { limit, peer } = range(&plan, "2001:db8::/32");
    assert_eq!((*limit, peer.remote_as), (7, RemoteAs::Internal));
    assert_eq!((peer.next_hop_v4, peer.next_hop_v6), ("192.0.2.1".parse().ok(), None));
    assert_eq!(peer.bfd.expect("BFD").hops, Hops::Multi { minimum_ttl: 1 }, "iBGP, and on no one link");
    assert!(plan.listeners.contains(&"[::]:179".parse().expect("an address")));
    assert_eq!(plan.mtu, 9000, "only the mesh's way out is known");
}

#[test]
fn a_range_without_its_password_stays_shut_and_says_so() {
    let mut cluster = cluster(
        "listenRange: 198.51.100.0/25, asNumber: 65001, password: {secretKeyRef: {name: bgp, key: rack}}",
    );
    // As an API server may tell of it later.
    cluster.secrets.clear();
    let plan = plan(&cluster, "n1", &host()).expect("a plan");
    let peer = &range(&plan, "198.51.100.0/25").peer;
    assert_eq!(peer.remote_as, RemoteAs::Exactly(Asn(65001)));
    assert!(peer.stays_down());
    assert_eq!(plan.diagnostics[0].code, "no-password");
    assert!(plan.departed().speaker.ranges.is_empty());
}

#[test]
fn a_node_that_is_drained_shuts_its_ranges_too() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let peer = "---\napiVersion: weft.network/v1alpha1\nkind: BGPPeer\nmetadata: {name: rack}\nspec: {listenRange: 198.51.100.0/25, asNumber: 1}\n";
    fs::write(folder.path().join("x.yaml"), format!("{NODES}{peer}")).expect("a file");
    let cluster = load(folder.path()).unwrap_or_else(|errors| panic!("{errors:#?}"));
    let drain = weft_controller::plan::Drain {
        phase: weft_controller::api::json::DrainPhase::Drained,
        reason: "a test".into(),
    };
    let host = HostFacts { drain: Some(drain), ..host() };
    let plan = plan(&cluster, "n1", &host).expect("a plan");
    let peer = &range(&plan, "198.51.100.0/25").peer;
    assert_eq!(peer.shutdown.as_deref(), Some("the node is drained: a test"));
    assert!(peer.export.rules.is_empty());
}
