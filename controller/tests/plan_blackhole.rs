//! Where a peer may have packets dropped (RFC 7999), as documents say.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panic, in its helpers too"
)]

use std::fs;
use std::net::IpAddr;
use std::sync::Arc;

use weft_bgp::config::PeerConfig;
use weft_bgp::policy::{CompiledPolicy, DISCARD, Operation, RouteSource, Subject};
use weft_bgp::types::PeerType;
use weft_bgp::wire::attributes::PathAttributes;
use weft_controller::documents::load;
use weft_controller::plan::{HostFacts, InterfaceFacts, plan};

const DOCUMENTS: &str = "
kind: BGPConfiguration
metadata: {name: default}
spec: {serviceLoadBalancerIPs: [{cidr: 198.51.100.128/25}]}
---
kind: IPPool
metadata: {name: pods}
spec: {cidr: 10.244.0.0/16}
---
kind: BGPFilter
metadata: {name: all}
spec: {importV4: [{action: Accept}]}
---
kind: BGPPeer
metadata: {name: tor}
spec: {peerIP: 192.0.2.254, asNumber: 65000}
---
kind: BGPPeer
metadata: {name: customer}
spec: {peerIP: 192.0.2.253, asNumber: 65001, blackholeCIDRs: [198.51.100.0/24, 10.244.0.0/16, 192.0.2.0/24, \"2001:db8:100::/48\"]}
---
kind: BGPPeer
metadata: {name: filtered}
spec: {peerIP: 192.0.2.252, asNumber: 65002, filters: [all], blackholeCIDRs: [198.51.100.0/24]}
";

fn node(number: u8) -> String {
    format!(
        "apiVersion: v1\nkind: Node\nmetadata: {{name: n{number}}}\nspec: {{podCIDRs: [10.244.{number}.0/26]}}\n\
         status: {{addresses: [{{type: InternalIP, address: 192.0.2.{number}}}]}}\n"
    )
}

/// What n1 makes of a route of a peer's: its code where it is rejected, whether packets are dropped where it is not.
fn made_of(peer: &PeerConfig, prefix: &str, community: &str) -> Result<bool, String> {
    let mut attributes = PathAttributes::new(IpAddr::from([192, 0, 2, 254]));
    let community: weft_bgp::policy::Community = community.parse().expect("a community");
    community.add_to(&mut attributes);
    let prefix = prefix.parse().expect("a prefix");
    let (source, peer_type) = (RouteSource::RemotePeers, PeerType::External);
    let subject = Subject { prefix: &prefix, source, peer_type, attributes: &attributes };
    let policy = CompiledPolicy::new(Arc::clone(&peer.import));
    let operations = policy.evaluate(subject).map_err(|reason| reason.code.to_string())?;
    let dropping = [
        Operation::SetNextHop(IpAddr::V6(DISCARD)),
        Operation::AddCommunity("no-advertise".parse().expect("a community")),
    ];
    Ok(operations.is_some_and(|operations| **operations == dropping))
}

/// Proves RFC 7999 3.3.
#[test]
fn rfc7999_a_peer_has_dropped_what_it_is_granted_and_nothing_of_ours() {
    let ours = DOCUMENTS
        .split("---\n")
        .map(|text| format!("apiVersion: weft.network/v1alpha1\n{}", text.trim_start()));
    let all: Vec<String> = ours.chain([node(1), node(2)]).collect();
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("x.yaml"), all.join("---\n")).expect("a file");
    let cluster = load(folder.path()).unwrap_or_else(|errors| panic!("{errors:#?}"));
    let link = InterfaceFacts {
        addresses: vec!["192.0.2.1/24".parse().expect("an address")],
        mtu: 1500,
        ..InterfaceFacts::default()
    };
    let host = HostFacts { interfaces: [("eth0".into(), link)].into(), ..HostFacts::default() };
    let plan = plan(&cluster, "n1", &host).expect("a plan");
    let peer = |last: u8| Arc::clone(&plan.speaker.peers[&IpAddr::from([192, 0, 2, last]).into()]);
    let (tor, customer, filtered) = (peer(254), peer(253), peer(252));
    let err = |code: &str| Err(code.to_owned());
    for (prefix, expected) in [
        ("198.51.100.7/32", Ok(true)),
        ("198.51.100.0/24", err("blackhole-own")),
        ("198.51.100.0/25", Ok(true)),
        ("198.51.100.64/26", Ok(true)),
        ("2001:db8:100::7/128", Ok(true)),
        ("10.244.2.7/32", Ok(true)),
        ("198.51.0.0/16", err("blackhole-not-granted")),
        ("203.0.113.7/32", err("blackhole-not-granted")),
        ("2001:db8:200::7/128", err("blackhole-not-granted")),
        ("10.244.1.0/26", err("blackhole-own")),
        ("10.244.1.7/32", err("blackhole-own")),
        ("192.0.2.1/32", err("blackhole-own")),
        ("192.0.2.2/32", err("blackhole-own")),
        ("192.0.2.0/30", err("blackhole-own")),
        ("192.0.2.0/24", err("blackhole-own")),
        ("192.0.2.254/32", err("blackhole-own")),
        ("192.0.2.128/25", err("blackhole-own")),
        ("192.0.2.64/26", Ok(true)),
        ("10.244.0.0/20", err("blackhole-own")),
        ("10.244.0.0/24", Ok(true)),
        ("198.51.100.200/32", err("blackhole-own")),
    ] {
        assert_eq!(made_of(&customer, prefix, "blackhole"), expected, "{prefix}");
    }
    assert_eq!(made_of(&filtered, "198.51.100.7/32", "blackhole"), Ok(true));
    assert_eq!(made_of(&filtered, "203.0.113.7/32", "blackhole"), err("blackhole-not-granted"));
    assert_eq!(made_of(&filtered, "203.0.113.7/32", "65001:666"), Ok(false));
    // Without the community, and of whom nothing is granted to, all is as ever.
    for peer in [&tor, &customer] {
        assert_eq!(made_of(peer, "10.244.2.0/26", "65001:666"), Ok(false));
        assert_eq!(made_of(peer, "198.51.100.7/32", "65001:666"), err("not-in-pool"));
    }
    assert_eq!(made_of(&tor, "198.51.100.7/32", "blackhole"), err("not-in-pool"));
    assert_eq!(made_of(&tor, "10.244.2.0/26", "blackhole"), Ok(false));
}
