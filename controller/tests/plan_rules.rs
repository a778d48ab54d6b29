//! The plan: which sessions a node has, and what its policies say of a route.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panic, in its helpers too"
)]

use std::fs;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use weft_bgp::config::{NextHopMode, PeerConfig, RemoteAs};
use weft_bgp::policy::{CompiledPolicy, Policy, RouteSource, Subject};
use weft_bgp::types::{Asn, Family, PeerType};
use weft_bgp::wire::attributes::PathAttributes;
use weft_controller::cluster::Cluster;
use weft_controller::documents::load;
use weft_controller::plan::{Block, BlockState, HostFacts, InterfaceFacts, NodePlan, Pool, plan};
use weft_routing::nexthop::Resilience;

/// Three nodes on one link, dual-stack, racks a, a and b.
const NODES: &str = r#"
apiVersion: v1
kind: Node
metadata: {name: n1, labels: {rack: a}}
spec: {podCIDRs: [10.244.1.0/26, "fd00:244:1::/122"]}
status: {addresses: [{type: InternalIP, address: 192.0.2.1}, {type: InternalIP, address: "2001:db8::1"}]}
---
apiVersion: v1
kind: Node
metadata: {name: n2, labels: {rack: a}}
spec: {podCIDRs: [10.244.2.0/26, "fd00:244:2::/122"]}
status: {addresses: [{type: InternalIP, address: 192.0.2.2}, {type: InternalIP, address: "2001:db8::2"}]}
---
apiVersion: v1
kind: Node
metadata: {name: n3, labels: {rack: b}}
spec: {podCIDRs: [10.244.3.0/26, "fd00:244:3::/122"]}
status: {addresses: [{type: InternalIP, address: 192.0.2.3}, {type: InternalIP, address: "2001:db8::3"}]}
"#;

const NO_MESH: &str =
    "kind: BGPConfiguration\nmetadata: {name: default}\nspec: {nodeToNodeMeshEnabled: false}\n";

const TOR: &str = "kind: BGPPeer\nmetadata: {name: tor}\nspec: {peerIP: 192.0.2.254, asNumber: 65000}\n";

fn cluster(more: &[&str]) -> Cluster {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let ours = more.iter().map(|text| format!("---\napiVersion: weft.network/v1alpha1\n{text}"));
    fs::write(folder.path().join("x.yaml"), format!("{NODES}{}", ours.collect::<String>())).expect("a file");
    load(folder.path()).unwrap_or_else(|errors| panic!("{errors:#?}"))
}

fn host(interfaces: &[(&str, &[&str])]) -> HostFacts {
    let facts = |addresses: &[&str]| InterfaceFacts {
        addresses: addresses.iter().map(|a| a.parse().expect("an address")).collect(),
        mtu: 1500,
        ..InterfaceFacts::default()
    };
    let interfaces = interfaces.iter().map(|(name, a)| ((*name).into(), facts(a))).collect();
    HostFacts { interfaces, ..HostFacts::default() }
}

/// The host of n1.
fn host1() -> HostFacts {
    host(&[("lo", &["127.0.0.1/8", "::1/128"]), ("eth0", &["fe80::1/64", "192.0.2.1/24", "2001:db8::1/64"])])
}

fn plan1(more: &[&str]) -> NodePlan {
    plan(&cluster(more), "n1", &host1()).expect("a plan")
}

fn peer(plan: &NodePlan, address: &str) -> Arc<PeerConfig> {
    let address: IpAddr = address.parse().expect("an address");
    Arc::clone(
        plan.speaker
            .peers
            .get(&address.into())
            .unwrap_or_else(|| panic!("{address}: {:?}", plan.diagnostics)),
    )
}

fn peers(plan: &NodePlan) -> Vec<(String, String)> {
    plan.speaker.peers.iter().map(|(address, config)| (address.to_string(), config.name.clone())).collect()
}

fn codes(plan: &NodePlan) -> Vec<&str> {
    plan.diagnostics.iter().map(|problem| problem.code.as_str()).collect()
}

/// What a policy says of a prefix: `accept` or the code of the reason.
fn says(policy: &Arc<Policy>, prefix: &str, source: RouteSource, peer_type: PeerType) -> String {
    says_via(policy, prefix, "192.0.2.254", source, peer_type)
}

fn says_via(
    policy: &Arc<Policy>,
    prefix: &str,
    next_hop: &str,
    source: RouteSource,
    peer_type: PeerType,
) -> String {
    let prefix = prefix.parse().expect("a prefix");
    let attributes = &PathAttributes::new(next_hop.parse().expect("an address"));
    let subject = Subject { prefix: &prefix, source, peer_type, attributes };
    match CompiledPolicy::new(Arc::clone(policy)).evaluate(subject) {
        Ok(_) => "accept".into(),
        Err(reason) => reason.code.to_string(),
    }
}

fn import(config: &PeerConfig, prefix: &str) -> String {
    says(&config.import, prefix, RouteSource::RemotePeers, PeerType::External)
}

fn export(config: &PeerConfig, prefix: &str, source: RouteSource) -> String {
    says(&config.export, prefix, source, PeerType::External)
}

#[test]
fn the_mesh_is_one_session_a_pair_between_node_addresses() {
    let plan = plan1(&[]);
    assert_eq!(
        peers(&plan),
        [("192.0.2.2".into(), "mesh:n2".into()), ("192.0.2.3".into(), "mesh:n3".into())]
    );
    let n2 = peer(&plan, "192.0.2.2");
    assert_eq!((n2.local_as, n2.remote_as), (Asn(64512), RemoteAs::Exactly(Asn(64512))));
    assert_eq!(n2.source_address, Some("192.0.2.1".parse().expect("an address")));
    assert_eq!(n2.families, [Family::Ipv4Unicast, Family::Ipv6Unicast].into_iter().collect());
    assert_eq!((n2.next_hop_v4, n2.next_hop_v6), (None, Some("2001:db8::1".parse().expect("an address"))));
    assert_eq!(plan.speaker.router_id.to_string(), "192.0.2.1");
    assert_eq!(plan.listeners.iter().map(ToString::to_string).collect::<Vec<_>>(), ["0.0.0.0:179"]);
    assert_eq!(plan.diagnostics, []);
}

#[test]
fn nodes_tell_and_believe_only_their_own_blocks() {
    let plan =
        plan1(&["kind: BGPConfiguration\nmetadata: {name: default}\nspec: {advertiseNodeAddress: Always}\n"]);
    let n2 = peer(&plan, "192.0.2.2");
    for (prefix, want) in [
        ("10.244.2.0/26", "accept"),
        ("fd00:244:2::/122", "accept"),
        ("10.244.3.0/26", "duplicate-origin"),
        ("10.244.1.0/26", "duplicate-origin"),
        ("10.244.2.1/32", "duplicate-origin"),
        ("192.0.2.2/32", "duplicate-origin"),
        ("0.0.0.0/0", "duplicate-origin"),
        ("::/0", "duplicate-origin"),
    ] {
        assert_eq!(import(&n2, prefix), want, "{prefix}");
    }
    assert_eq!(export(&n2, "10.244.1.0/26", RouteSource::Local), "accept");
    assert_eq!(export(&n2, "fd00:244:1::/122", RouteSource::Local), "accept");
    assert_eq!(export(&n2, "192.0.2.1/32", RouteSource::Local), "not-own-block");
    assert_eq!(export(&n2, "10.244.3.0/26", RouteSource::RemotePeers), "not-own-block");
}

#[test]
fn nodes_of_different_as_mesh_over_ebgp_and_labels_and_settings_leave_it() {
    let other_as = plan1(&[
        "kind: BGPConfiguration\nmetadata: {name: node.n2}\nspec: {asNumber: 65002, listenPort: 1179}\n",
    ]);
    let n2 = peer(&other_as, "192.0.2.2");
    assert_eq!((n2.remote_as, n2.port, n2.ebgp_multihop), (RemoteAs::Exactly(Asn(65002)), 1179, true));
    assert_eq!(peer(&other_as, "192.0.2.3").port, 179);

    let out =
        plan1(&["kind: BGPConfiguration\nmetadata: {name: node.n2}\nspec: {nodeToNodeMeshEnabled: false}\n"]);
    assert_eq!(peers(&out), [("192.0.2.3".into(), "mesh:n3".into())]);

    let mut labelled = cluster(&[]);
    let mut n3 = labelled.nodes["n3"].as_ref().clone();
    n3.labels.insert("weft.network/mesh".into(), "false".into());
    labelled.nodes.insert("n3".into(), Arc::new(n3));
    assert_eq!(
        peers(&plan(&labelled, "n1", &host1()).expect("a plan")),
        [("192.0.2.2".into(), "mesh:n2".into())]
    );
    let host3 = host(&[("eth0", &["192.0.2.3/24", "2001:db8::3/64"])]);
    assert_eq!(peers(&plan(&labelled, "n3", &host3).expect("a plan")), []);
}

/// Proves RFC 8212.
#[test]
fn a_router_is_believed_pods_and_node_addresses_within_the_pools() {
    let pools = [
        NO_MESH,
        TOR,
        "kind: IPPool\nmetadata: {name: a}\nspec: {cidr: 10.244.0.0/16}\n",
        "kind: IPPool\nmetadata: {name: b}\nspec: {cidr: 10.245.0.0/16, disabled: true}\n",
        "kind: IPPool\nmetadata: {name: c}\nspec: {cidr: 10.246.0.0/16, allowedUses: [LoadBalancer]}\n",
        "kind: IPPool\nmetadata: {name: d}\nspec: {cidr: \"2001:db8:9::/64\", allowedUses: [LoadBalancer]}\n",
    ];
    let plan = plan1(&pools);
    assert_eq!(peers(&plan), [("192.0.2.254".into(), "tor".into())]);
    let tor = peer(&plan, "192.0.2.254");
    for (prefix, want) in [
        ("10.244.2.0/26", "accept"),
        ("10.244.128.0/17", "accept"),
        ("10.244.2.0/27", "longer-than-block"),
        ("10.244.1.0/26", "own-block"),
        ("10.244.1.7/32", "own-block"),
        ("10.245.1.0/26", "not-in-pool"),
        ("10.246.1.0/26", "not-in-pool"),
        ("10.0.0.0/8", "not-in-pool"),
        ("0.0.0.0/0", "not-in-pool"),
        ("10.96.0.0/12", "not-in-pool"),
        ("192.0.2.2/32", "accept"),
        ("192.0.2.1/32", "own-address"),
        ("192.0.2.9/32", "not-in-pool"),
        // No IPPool of IPv6 for pods: the Nodes' podCIDRs.
        ("fd00:244:2::/122", "accept"),
        ("fd00:244:2::5/128", "accept"),
        ("fd00:244:1::/122", "own-block"),
        ("fd00:244::/32", "not-in-pool"),
        ("2001:db8::2/128", "accept"),
        ("::/0", "not-in-pool"),
    ] {
        assert_eq!(import(&tor, prefix), want, "{prefix}");
    }
    assert_eq!(export(&tor, "10.244.1.0/26", RouteSource::Local), "accept");
    assert_eq!(export(&tor, "10.244.2.0/26", RouteSource::RemotePeers), "no-transit");
    assert_eq!(export(&tor, "0.0.0.0/0", RouteSource::RemotePeers), "no-transit");
}

#[test]
fn filters_replace_the_default_where_they_have_rules() {
    let filter = "kind: BGPFilter\nmetadata: {name: f}\nspec:\n  importV4:\n  - {cidr: 10.9.0.0/16, matchOperator: In, action: Reject}\n  \
                  - {cidr: 10.0.0.0/8, matchOperator: In, prefixLength: {min: 16, max: 24}, action: Accept}\n  \
                  - {cidr: 0.0.0.0/0, matchOperator: Equal, peerType: eBGP, action: Accept}\n  exportV4:\n  \
                  - {cidr: 10.244.0.0/16, matchOperator: NotIn, action: Reject}\n  - {source: RemotePeers, cidr: 10.244.3.0/26, matchOperator: Equal, action: Accept}\n  \
                  - {action: Accept}\n";
    let peer_spec =
        "kind: BGPPeer\nmetadata: {name: tor}\nspec: {peerIP: 192.0.2.254, asNumber: 65000, filters: [f]}\n";
    let tor = peer(&plan1(&[NO_MESH, peer_spec, filter]), "192.0.2.254");
    for (prefix, want) in [
        ("10.9.1.0/24", "filter"),
        ("10.8.1.0/24", "accept"),
        ("10.0.0.0/8", "no-filter-match"),
        ("10.8.1.0/26", "no-filter-match"),
        ("0.0.0.0/0", "accept"),
        // Nothing is said of IPv6: the default stays.
        ("fd00:244:2::/122", "accept"),
        ("::/0", "not-in-pool"),
    ] {
        assert_eq!(import(&tor, prefix), want, "{prefix}");
    }
    assert_eq!(
        says(&tor.import, "0.0.0.0/0", RouteSource::RemotePeers, PeerType::Internal),
        "no-filter-match"
    );
    for (prefix, source, want) in [
        ("192.0.2.1/32", RouteSource::Local, "filter"),
        ("10.244.1.0/26", RouteSource::Local, "accept"),
        ("10.244.3.0/26", RouteSource::RemotePeers, "accept"),
        // Transit is opened by RemotePeers alone.
        ("10.244.2.0/26", RouteSource::RemotePeers, "no-filter-match"),
        ("fd00:244:2::/122", RouteSource::RemotePeers, "no-transit"),
        ("fd00:244:1::/122", RouteSource::Local, "accept"),
    ] {
        assert_eq!(export(&tor, prefix, source), want, "{prefix}");
    }
}

#[test]
fn a_pool_kept_in_the_cluster_is_told_to_nodes_only() {
    let pool = "kind: IPPool\nmetadata: {name: a}\nspec: {cidr: 10.244.0.0/16, disableBGPExport: true}\n";
    let plan = plan1(&[TOR, pool]);
    assert_eq!(export(&peer(&plan, "192.0.2.254"), "10.244.1.0/26", RouteSource::Local), "export-disabled");
    assert_eq!(export(&peer(&plan, "192.0.2.2"), "10.244.1.0/26", RouteSource::Local), "accept");
}

#[test]
fn a_peer_selector_makes_both_ends_and_takes_the_place_of_the_mesh() {
    let reflect = "kind: BGPPeer\nmetadata: {name: ab}\nspec: {nodeSelector: rack == \"a\", peerSelector: rack == \"b\", holdTime: 9s, localASNumber: 65100}\n";
    let plan = plan1(&[reflect]);
    assert_eq!(peers(&plan), [("192.0.2.2".into(), "mesh:n2".into()), ("192.0.2.3".into(), "ab".into())]);
    let n3 = peer(&plan, "192.0.2.3");
    assert_eq!(
        (n3.local_as, n3.remote_as, n3.timers.hold_time.as_secs()),
        (Asn(65100), RemoteAs::Exactly(Asn(65100)), 9)
    );
    assert_eq!(import(&n3, "10.244.3.0/26"), "accept");
    assert_eq!(import(&n3, "10.244.2.0/26"), "duplicate-origin");
    let host3 = host(&[("eth0", &["192.0.2.3/24", "2001:db8::3/64"])]);
    let other = weft_controller::plan::plan(&cluster(&[NO_MESH, reflect]), "n3", &host3).expect("a plan");
    assert_eq!(peers(&other), [("192.0.2.1".into(), "ab".into()), ("192.0.2.2".into(), "ab".into())]);
}

#[test]
fn every_field_of_a_peer_reaches_the_speaker() {
    let spec = "kind: BGPPeer\nmetadata: {name: tor}\nspec: {nodeSelector: rack == \"a\", peerIP: \"[2001:db8::fe]:1179\", asNumber: external, \
                localASNumber: 65100, holdTime: 30s, keepaliveTime: 5s, sendHoldTime: 1m, ebgpMultihop: true, nextHopMode: Self, sourceAddress: UseNodeIP, \
                numAllowedLocalASNumbers: 2, allowASSets: true, gracefulRestart: {restartTime: 60s, onHoldTimerExpiry: true, longLivedTime: 1h}, families: [ipv4-unicast], passive: true, shutdown: true, \
                shutdownMessage: \"new fibre à 14:00\"}\n";
    let plan = plan1(&[NO_MESH, spec]);
    let tor = peer(&plan, "2001:db8::fe");
    assert_eq!((tor.port, tor.remote_as, tor.local_as), (1179, RemoteAs::External, Asn(65100)));
    assert_eq!(
        (tor.timers.hold_time.as_secs(), tor.timers.keepalive_time.map(|t| t.as_secs())),
        (30, Some(5))
    );
    assert_eq!(tor.timers.send_hold_time.map(|t| t.as_secs()), Some(60));
    assert!(tor.ebgp_multihop && tor.passive);
    assert_eq!(tor.shutdown.as_deref(), Some("new fibre à 14:00"));
    assert_eq!(tor.next_hop_mode, weft_bgp::config::NextHopMode::Own);
    assert_eq!(tor.source_address, Some("2001:db8::1".parse().expect("an address")));
    assert_eq!((tor.allowed_own_as, tor.allow_as_sets), (2, true));
    let restart = tor.graceful_restart.expect("it is on");
    assert_eq!((restart.restart_time.as_secs(), restart.on_hold_timer_expiry), (60, true));
    assert_eq!(restart.long_lived_time.map(|t| t.as_secs()), Some(3600));
    assert_eq!(tor.families, [Family::Ipv4Unicast].into_iter().collect());
    assert_eq!((tor.next_hop_v4, tor.next_hop_v6), (Some("192.0.2.1".parse().expect("an address")), None));
    assert_eq!(plan.listeners.iter().map(ToString::to_string).collect::<Vec<_>>(), ["[::]:179"]);
    let host3 = host(&[("eth0", &["192.0.2.3/24", "2001:db8::3/64"])]);
    let other = weft_controller::plan::plan(&cluster(&[NO_MESH, spec]), "n3", &host3).expect("a plan");
    assert_eq!(peers(&other), [], "the nodeSelector leaves n3 out");
}

#[test]
fn a_peer_is_dialled_as_often_as_its_object_says() {
    let tor = |fields: &str| {
        let spec = format!(
            "kind: BGPPeer\nmetadata: {{name: tor}}\nspec: {{peerIP: 192.0.2.254, asNumber: 65000{fields}}}\n"
        );
        peer(&plan1(&[NO_MESH, &spec]), "192.0.2.254").timers.connect_retry.as_secs()
    };
    assert_eq!((tor(""), tor(", connectRetryTime: 2m")), (5, 120));
}

#[test]
fn a_node_with_its_address_on_lo_tells_it_and_gives_the_links_address_as_next_hop() {
    let facts = host(&[
        ("lo", &["127.0.0.1/8", "192.0.2.1/32", "2001:db8::1/128"]),
        ("up0", &["10.0.1.1/31", "fd00:10:1::1/127", "fe80::2/64"]),
        ("up1", &["10.0.2.1/31", "fe80::3/64"]),
    ]);
    let tors = [
        "kind: BGPPeer\nmetadata: {name: t0}\nspec: {peerIP: 10.0.1.0, asNumber: 65000}\n",
        "kind: BGPPeer\nmetadata: {name: t1}\nspec: {peerIP: 10.0.2.0, asNumber: 65000}\n",
    ];
    let cluster_of = |more: &[&str]| cluster(&[tors.as_slice(), more].concat());
    let auto = plan(&cluster_of(&[NO_MESH]), "n1", &facts).expect("a plan");
    let originated =
        |plan: &NodePlan| plan.speaker.originate.keys().map(IpNet::to_string).collect::<Vec<_>>();
    assert_eq!(originated(&auto), ["10.244.1.0/26", "192.0.2.1/32", "2001:db8::1/128", "fd00:244:1::/122"]);
    assert_eq!(peer(&auto, "10.0.1.0").next_hop_v6, Some("fd00:10:1::1".parse().expect("an address")));
    assert_eq!(peer(&auto, "10.0.2.0").next_hop_v6, Some("2001:db8::1".parse().expect("an address")));
    assert_eq!(peer(&auto, "10.0.1.0").source_address, None);
    assert_eq!(export(&peer(&auto, "10.0.1.0"), "192.0.2.1/32", RouteSource::Local), "accept");

    let never = "kind: BGPConfiguration\nmetadata: {name: default}\nspec: {nodeToNodeMeshEnabled: false, advertiseNodeAddress: Never}\n";
    assert_eq!(
        originated(&plan(&cluster_of(&[never]), "n1", &facts).expect("a plan")),
        ["10.244.1.0/26", "fd00:244:1::/122"]
    );
    assert_eq!(originated(&plan1(&[])), ["10.244.1.0/26", "fd00:244:1::/122"], "not on lo: not told");
}

#[test]
fn an_address_is_found_or_missed_but_never_guessed() {
    let other = host(&[("eth0", &["198.51.100.7/24", "2001:db8::1/64"])]);
    let missing = plan(&cluster(&[]), "n1", &other).expect("a plan");
    assert_eq!(codes(&missing), ["no-node-address"]);
    assert_eq!(
        (missing.addresses.v4, missing.addresses.v6),
        (None, Some("2001:db8::1".parse().expect("an address")))
    );
    // The sessions stay as they are, so that an address that is away for a moment does not end them.
    assert_eq!(
        missing.speaker.peers.keys().collect::<Vec<_>>(),
        plan1(&[]).speaker.peers.keys().collect::<Vec<_>>()
    );
    assert_eq!(peer(&missing, "192.0.2.2").families, peer(&plan1(&[]), "192.0.2.2").families);

    for choice in ["{cidr: 198.51.100.0/24}", "{interface: eth0}"] {
        let configured =
            format!("kind: BGPConfiguration\nmetadata: {{name: default}}\nspec: {{nodeAddress: {choice}}}\n");
        let chosen = plan(&cluster(&[&configured]), "n1", &other).expect("a plan");
        assert_eq!(chosen.addresses.v4, Some("198.51.100.7".parse().expect("an address")), "{choice}");
        assert_eq!(chosen.addresses.v6, Some("2001:db8::1".parse().expect("an address")), "{choice}");
        assert_eq!(codes(&chosen), ["node-address-differs"], "{choice}");
    }
    let unknown = plan(&cluster(&[]), "n9", &other).expect_err("no such Node");
    assert_eq!((unknown.code.as_str(), unknown.remedy.ends_with("there are n1, n2, n3")), ("no-node", true));
}

#[test]
fn the_choice_of_an_address_is_explained() {
    let facts = host(&[("eth0", &["198.51.100.7/24", "2001:db8::1/64"]), ("lo", &["192.0.2.1/32"])]);
    let v6 = "2001:db8::1 on eth0: the first InternalIP of the Node that is on a local interface";
    for (choice, expected) in [
        (None, vec!["192.0.2.1 on lo: the first InternalIP of the Node that is on a local interface", v6]),
        (
            Some("{cidr: 192.0.2.0/24}"),
            vec![
                "192.0.2.1 on lo: the first InternalIP of the Node in 192.0.2.0/24 (nodeAddress) that is on a local interface",
                v6,
            ],
        ),
        (
            Some("{cidr: 198.51.100.0/24}"),
            vec![
                "198.51.100.7 on eth0: the first address of a local interface in 198.51.100.0/24 (nodeAddress), as no InternalIP of the Node there is on one",
                v6,
            ],
        ),
        (
            Some("{interface: eth0}"),
            vec![
                "198.51.100.7 on eth0: the first address of eth0 (nodeAddress), as no InternalIP of the Node is on it",
                "2001:db8::1 on eth0: the first InternalIP of the Node that is on eth0 (nodeAddress)",
            ],
        ),
        (Some("{interface: eth9}"), vec![]),
    ] {
        let set = choice.map(|choice| {
            format!("kind: BGPConfiguration\nmetadata: {{name: default}}\nspec: {{nodeAddress: {choice}}}\n")
        });
        let made = plan(&cluster(&set.iter().map(String::as_str).collect::<Vec<_>>()), "n1", &facts)
            .expect("a plan");
        let told = made.address_choice.iter();
        let told: Vec<String> = told
            .map(|chosen| format!("{} on {}: {}", chosen.address, chosen.interface, chosen.reason))
            .collect();
        assert_eq!(told, expected, "{choice:?}");
    }
}

#[test]
fn blocks_are_the_ip_blocks_else_the_pod_cidrs() {
    assert_eq!(plan1(&[]).blocks.len(), 2);
    let plan = plan1(&["kind: IPBlock\nmetadata: {name: b}\nspec: {cidr: 10.9.0.0/26, node: n1}\n"]);
    assert_eq!(plan.blocks.iter().map(|block| block.cidr.to_string()).collect::<Vec<_>>(), ["10.9.0.0/26"]);
    let pool = "kind: IPPool\nmetadata: {name: a}\nspec: {cidr: 10.200.0.0/16}\n";
    assert_eq!(codes(&plan1(&[pool])), ["block-outside-pools"]);
}

/// A block as `CIDR POOL STATE COOLDOWN`.
fn told(plan: &NodePlan) -> Vec<String> {
    let told = |block: &Block| {
        let pool = block.pool.as_deref().unwrap_or("-");
        format!("{} {pool} {:?} {}s", block.cidr, block.state, block.cooldown.as_secs())
    };
    plan.blocks.iter().map(told).collect()
}

#[test]
fn a_block_is_as_its_pool_says() {
    let pools = [
        "kind: IPPool\nmetadata: {name: a}\nspec: {cidr: 10.244.0.0/16, cooldown: 2m, reserved: [10.244.1.0/30]}\n",
        "kind: IPPool\nmetadata: {name: b}\nspec: {cidr: \"fd00:244::/32\", blockSize: 122, disabled: true}\n",
        "kind: IPPool\nmetadata: {name: other}\nspec: {cidr: 10.9.0.0/16, reserved: [10.9.0.0/30]}\n",
    ];
    let plan = plan1(&pools);
    assert_eq!(told(&plan), ["10.244.1.0/26 a Open 120s", "fd00:244:1::/122 b Disabled 30s"]);
    assert_eq!(plan.pools.keys().collect::<Vec<_>>(), ["a", "b"], "only pools that it has a block of");
    assert_eq!(plan.reserved, ["10.244.1.0/30".parse().expect("a range")].into());
    let disabled = "fd00:244:1::/122".parse().expect("a block");
    assert!(plan.speaker.originate.contains_key(&disabled), "what is disabled stays announced");
    assert_eq!(told(&plan1(&[])), ["10.244.1.0/26 - Open 30s", "fd00:244:1::/122 - Open 30s"]);
}

#[test]
fn a_pool_is_for_the_namespaces_that_it_selects() {
    let pool =
        |more: &str| format!("kind: IPPool\nmetadata: {{name: a}}\nspec: {{cidr: 10.244.0.0/16, {more}}}\n");
    let of = |more: &str, objects: &str| {
        let plan = plan1(&[&format!("{}{objects}", pool(more))]);
        (plan.pools["a"].clone(), codes(&plan).iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let namespaces = "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: red, labels: {team: x}}\n\
                      ---\napiVersion: v1\nkind: Namespace\nmetadata: {name: blue}\nspec: {finalizers: [kubernetes]}\n";
    let for_all = Pool { namespaces: None, automatic: true };
    assert_eq!(of("", namespaces), (for_all, vec![]));
    for (selector, expected) in [
        ("'team == \"x\"'", vec!["red"]),
        ("'kubernetes.io/metadata.name in {\"blue\"}'", vec!["blue"]),
        ("{matchLabels: {kubernetes.io/metadata.name: red}}", vec!["red"]),
        ("all()", vec!["blue", "red"]),
    ] {
        let (pool, codes) = of(&format!("assignmentMode: Manual, namespaceSelector: {selector}"), namespaces);
        let expected = expected.into_iter().map(str::to_owned).collect();
        assert_eq!(pool, Pool { namespaces: Some(expected), automatic: false }, "{selector}");
        assert!(codes.is_empty(), "{codes:?}");
    }
    let (nobodys, codes) = of("namespaceSelector: 'team == \"y\"'", namespaces);
    assert_eq!(nobodys.namespaces, Some([].into()));
    assert_eq!(codes, ["pool-without-namespaces"]);
}

#[test]
fn a_block_that_pods_are_in_stays_announced_whatever_the_documents_say() {
    let gone: IpNet = "10.7.0.0/26".parse().expect("a block");
    let mut facts = host1();
    facts.held_blocks = [gone, "10.244.1.0/26".parse().expect("a block")].into();
    let plan = plan(&cluster(&[TOR]), "n1", &facts).expect("a plan");
    assert_eq!(
        told(&plan),
        ["10.7.0.0/26 - Leaving 30s", "10.244.1.0/26 - Open 30s", "fd00:244:1::/122 - Open 30s"]
    );
    assert_eq!(codes(&plan), ["block-closed"]);
    assert!(plan.diagnostics[0].text.contains("10.7.0.0/26"), "{:?}", plan.diagnostics);
    assert!(plan.speaker.originate.contains_key(&gone));
    for (address, router) in [("192.0.2.254", "tor"), ("192.0.2.2", "n2")] {
        let config = peer(&plan, address);
        assert_eq!(export(&config, "10.7.0.0/26", RouteSource::Local), "accept", "{router}");
    }
    assert_eq!(import(&peer(&plan, "192.0.2.254"), "10.7.0.5/32"), "own-block");
}

#[test]
fn a_block_that_pods_are_in_but_another_node_has_is_the_other_nodes() {
    let mut facts = host1();
    // n2's podCIDR; a block that an IPBlock of n3 is a part of; one that is nobody's.
    let held = ["10.244.2.0/26", "10.7.0.0/24", "10.8.0.0/26"];
    facts.held_blocks = held.iter().map(|block| block.parse().expect("a block")).collect();
    let of_n3 = "kind: IPBlock\nmetadata: {name: x}\nspec: {cidr: 10.7.0.64/26, node: n3}\n";
    let plan = plan(&cluster(&[TOR, of_n3]), "n1", &facts).expect("a plan");
    let not_own: Vec<_> = plan.blocks.iter().filter(|block| !block.is_own()).collect();
    let not_own: Vec<_> =
        not_own.iter().map(|block| (block.cidr.to_string(), block.owner.as_deref(), block.state)).collect();
    assert_eq!(
        not_own,
        [
            ("10.7.0.0/24".into(), Some("n3"), BlockState::Leaving),
            ("10.244.2.0/26".into(), Some("n2"), BlockState::Leaving)
        ]
    );
    let announced: Vec<String> = plan.speaker.originate.keys().map(ToString::to_string).collect();
    assert_eq!(announced, ["10.8.0.0/26", "10.244.1.0/26", "fd00:244:1::/122"]);
    assert_eq!(codes(&plan), ["block-taken", "block-taken", "block-closed"]);
    for (problem, says) in
        plan.diagnostics.iter().zip([["10.244.2.0/26", "Node n2"], ["10.7.0.0/24", "Node n3"]])
    {
        assert!(says.iter().all(|part| problem.text.contains(part)), "{problem:?}");
    }
    let (tor, n2, n3) = (peer(&plan, "192.0.2.254"), peer(&plan, "192.0.2.2"), peer(&plan, "192.0.2.3"));
    for (from, prefix) in [(&tor, "10.244.2.0/26"), (&n2, "10.244.2.0/26"), (&n3, "10.7.0.64/26")] {
        assert_eq!(import(from, prefix), "accept", "{} {prefix}", from.name);
    }
    assert_eq!(import(&tor, "10.8.0.0/26"), "own-block");
}

#[test]
fn an_own_block_that_another_as_originates_is_a_duplicate() {
    let configuration = "kind: BGPConfiguration\nmetadata: {name: default}\nspec: {asNumber: 64600, nodeToNodeMeshEnabled: false}\n";
    let other = "kind: BGPPeer\nmetadata: {name: other}\nspec: {peerIP: 192.0.2.253, asNumber: 65009, localASNumber: 64700}\n";
    let plan = plan1(&[configuration, TOR, other]);
    for address in ["192.0.2.254", "192.0.2.253"] {
        let policy = CompiledPolicy::new(Arc::clone(&peer(&plan, address).import));
        let says = |prefix: &str, asns: &[u32]| {
            let mut attributes = PathAttributes::new("192.0.2.254".parse().expect("an address"));
            asns.iter().rev().for_each(|asn| attributes.as_path.prepend(Asn(*asn)));
            let (prefix, source) = (prefix.parse().expect("a prefix"), RouteSource::RemotePeers);
            let subject =
                Subject { prefix: &prefix, source, peer_type: PeerType::External, attributes: &attributes };
            policy.evaluate(subject).err().map_or_else(String::new, |reason| reason.code.to_string())
        };
        for block in ["10.244.1.0/26", "fd00:244:1::/122"] {
            assert_eq!(says(block, &[65000, 64601]), "duplicate-origin", "{block}");
            assert_eq!(says(block, &[65000]), "duplicate-origin", "{block}");
            // Our own route comes back, whichever session it went out on.
            assert_eq!(says(block, &[65000, 64600]), "own-block", "{block}");
            assert_eq!(says(block, &[65000, 65009, 64700]), "own-block", "{block}");
        }
        // What is less than a block is no block that another node has.
        assert_eq!(says("10.244.1.7/32", &[65000, 64601]), "own-block");
        assert_eq!(says("10.244.2.0/26", &[65000, 64601]), "");
    }
}

#[test]
fn the_kernel_is_told_to_keep_its_default_route_before_it_is_told_to_forward() {
    let mut facts = host1();
    let eth0 = facts.interfaces.get_mut("eth0").expect("eth0");
    (eth0.router_advertisements, eth0.mtu) = (true, 9000);
    let made = plan(&cluster(&[]), "n1", &facts).expect("a plan");
    let paths: Vec<&str> = made.sysctls.iter().map(|s| s.path.as_str()).collect();
    let place = |path| paths.iter().position(|p| *p == path).unwrap_or_else(|| panic!("{path}: {paths:?}"));
    assert!(place("net/ipv6/conf/eth0/accept_ra") < place("net/ipv6/conf/all/forwarding"));
    place("net/ipv4/ip_forward");
    assert_eq!(
        (made.mtu, made.route_metric, made.speaker.max_paths, made.manage_sysctls),
        (9000, 64, 16, true)
    );
    let set = "kind: BGPConfiguration\nmetadata: {name: default}\nspec: {mtu: 1400, routeMetric: 20, maxPaths: 4, manageSysctls: false}\n";
    let made = plan(&cluster(&[set]), "n1", &facts).expect("a plan");
    assert_eq!(
        (made.mtu, made.route_metric, made.speaker.max_paths, made.manage_sysctls),
        (1400, 20, 4, false)
    );
}

#[test]
fn a_node_says_for_itself_how_its_next_hops_are_resilient() {
    let configuration = |name: &str, spec: &str| {
        format!("kind: BGPConfiguration\nmetadata: {{name: {name}}}\nspec: {{resilientNextHops: {spec}}}\n")
    };
    let made = |default: Option<&str>, own: Option<&str>| {
        let default = default.map(|spec| configuration("default", spec));
        let own = own.map(|spec| configuration("node.n1", spec));
        let documents: Vec<&str> = default.iter().chain(&own).map(String::as_str).collect();
        plan1(&documents).resilience
    };
    let seconds = Duration::from_secs;
    let unless_given = Resilience { buckets: 512, idle_time: seconds(120), unbalanced_time: Duration::ZERO };
    assert_eq!(made(None, None), None);
    assert_eq!(made(Some("{}"), None), Some(unless_given));
    assert_eq!(made(None, Some("{}")), Some(unless_given));
    let both = made(Some("{buckets: 1024, idleTime: 30s}"), Some("{idleTime: 1m, unbalancedTime: 1h}"));
    assert_eq!(
        both,
        Some(Resilience { buckets: 1024, idle_time: seconds(60), unbalanced_time: seconds(3600) })
    );
    assert_eq!(made(Some("{}"), Some("{enabled: false}")), None);
    let elsewhere = made(Some("{enabled: false, buckets: 256}"), Some("{enabled: true}"));
    assert_eq!(elsewhere, Some(Resilience { buckets: 256, ..unless_given }));
}

#[test]
fn a_node_that_installs_nothing_needs_no_next_hops_and_draws_no_packets() {
    let own = "kind: BGPConfiguration\nmetadata: {name: node.n1}\nspec: {installRoutes: false}\n";
    let made = plan1(&[NO_MESH, TOR, own]);
    assert!(!made.speaker.install_routes && !made.speaker.next_hop_tracking);
    assert_eq!(peer(&made, "192.0.2.254").next_hop_mode, NextHopMode::Keep);
    let ordinary = plan1(&[NO_MESH, TOR]);
    assert!(ordinary.speaker.install_routes && ordinary.speaker.next_hop_tracking);
    assert_eq!(peer(&ordinary, "192.0.2.254").next_hop_mode, NextHopMode::Auto);

    assert!(codes(&made).contains(&"pods-without-routes"), "{:?}", codes(&made));
    let drawing = TOR.replace("65000}", "65000, nextHopMode: Self}");
    let drawing = plan1(&[NO_MESH, &drawing, own]);
    let problem = drawing.diagnostics.iter().find(|problem| problem.code == "draws-packets");
    assert!(problem.is_some_and(|problem| problem.text.contains("BGPPeer tor")), "{:?}", codes(&drawing));
}

#[test]
fn nodes_of_one_as_behind_ebgp_are_warned_of_the_loop() {
    let warned = plan1(&[NO_MESH, TOR]);
    assert_eq!(codes(&warned), ["as-loop"]);
    assert!(warned.diagnostics[0].remedy.contains("numAllowedLocalASNumbers"));
    let allowed = TOR.replace("65000}", "65000, numAllowedLocalASNumbers: 1}");
    assert_eq!(codes(&plan1(&[NO_MESH, &allowed])), [""; 0]);
    assert_eq!(codes(&plan1(&[TOR])), [""; 0], "in a mesh the blocks come directly");
}

#[test]
fn what_a_plan_finds_odd_is_said() {
    let own = "kind: BGPPeer\nmetadata: {name: own}\nspec: {peerIP: 192.0.2.1, asNumber: 1}\n";
    assert_eq!(codes(&plan1(&[own])), ["peer-is-self"]);
    let source = "kind: BGPPeer\nmetadata: {name: t}\nspec: {peerIP: 192.0.2.9, asNumber: internal, sourceAddress: 192.0.2.77}\n";
    assert_eq!(codes(&plan1(&[source])), ["no-source-address"]);
    let ids = ["n1", "n2"].map(|n| {
        format!("kind: BGPConfiguration\nmetadata: {{name: node.{n}}}\nspec: {{routerID: 1.1.1.1}}\n")
    });
    assert_eq!(codes(&plan1(&[&ids[0], &ids[1]])), ["equal-router-ids"]);

    let mut many = cluster(&[]);
    for n in 0..98u8 {
        let node = weft_controller::cluster::Node {
            addresses: vec![IpAddr::from([198, 51, 100, n])],
            ..Default::default()
        };
        many.nodes.insert(format!("m{n:03}"), Arc::new(node));
    }
    let large = plan(&many, "n1", &host1()).expect("a plan");
    assert_eq!((codes(&large), large.speaker.peers.len()), (vec!["large-mesh"], 100));
    assert!(large.diagnostics[0].text.contains("101 nodes"));
}

#[test]
fn a_plan_changes_only_for_what_concerns_the_node() {
    let (before, host) = (
        cluster(&[
            TOR,
            "kind: BGPPeer\nmetadata: {name: b}\nspec: {nodeSelector: rack == \"b\", peerIP: 192.0.2.9, asNumber: 1}\n",
        ]),
        host1(),
    );
    let plan_before = plan(&before, "n1", &host).expect("a plan");
    let mut after = before.clone();
    let mut n3 = after.nodes["n3"].as_ref().clone();
    n3.labels.insert("zone".into(), "z".into());
    after.nodes.insert("n3".into(), Arc::new(n3));
    after.peers.remove("b");
    assert_eq!(plan(&after, "n1", &host).expect("a plan"), plan_before);
    after.peers.remove("tor");
    assert_ne!(plan(&after, "n1", &host).expect("a plan"), plan_before);
}

const POOLS: &str = "kind: IPPool\nmetadata: {name: a}\nspec: {cidr: 10.244.0.0/16, natOutgoing: true}\n\
    ---\nkind: IPPool\nmetadata: {name: b}\nspec: {cidr: 10.200.0.0/16, disabled: true}\n\
    ---\nkind: IPPool\nmetadata: {name: c}\nspec: {cidr: 203.0.113.0/24, allowedUses: [LoadBalancer]}\n";

/// Documents that each need the group.
fn each(text: &str) -> Vec<&str> {
    text.split("---\n").collect()
}

#[test]
fn pods_of_a_pool_with_nat_speak_as_the_node_to_all_but_the_cluster() {
    let exclude =
        "kind: BGPConfiguration\nmetadata: {name: default}\nspec: {natOutgoingExclude: [198.51.100.0/24]}\n";
    let documents: Vec<&str> = each(POOLS).into_iter().chain([exclude]).collect();
    let filter = plan1(&documents).packet_filter;
    assert_eq!(filter.nat_v6, None, "no IPv6 pool asks for it");
    let nat = filter.nat_v4.expect("a pool asks for it");
    let texts = |nets: &std::collections::BTreeSet<ipnet::Ipv4Net>| -> Vec<String> {
        nets.iter().map(ToString::to_string).collect()
    };
    assert_eq!(
        (nat.source.to_string(), texts(&nat.pools)),
        ("192.0.2.1".into(), vec!["10.244.0.0/16".into()])
    );
    let excluded = texts(&nat.excluded);
    for inside in [
        "10.244.0.0/16",
        "10.200.0.0/16",
        "203.0.113.0/24",
        "10.244.3.0/26",
        "192.0.2.3/32",
        "198.51.100.0/24",
        "224.0.0.0/4",
        "169.254.0.0/16",
    ] {
        assert!(excluded.iter().any(|net| net == inside), "{inside} is not in {excluded:?}");
    }
}

#[test]
fn a_node_without_an_address_cannot_speak_for_its_pods() {
    let facts = host(&[("eth0", &["2001:db8::1/64"])]);
    let mut cluster = cluster(&each(POOLS));
    let node = cluster.nodes.get_mut("n1").expect("n1");
    Arc::make_mut(node).addresses.retain(IpAddr::is_ipv6);
    let made = plan(&cluster, "n1", &facts).expect("a plan");
    assert_eq!(made.packet_filter.nat_v4, None);
    assert!(codes(&made).contains(&"nat-no-address"), "{:?}", codes(&made));
}

#[test]
fn of_a_node_that_has_left_only_its_pods_remain() {
    let before = plan1(&[TOR]);
    assert!(!before.speaker.peers.is_empty() && !before.speaker.originate.is_empty());
    let after = before.departed();
    assert!(
        after.speaker.peers.is_empty() && after.speaker.originate.is_empty() && after.listeners.is_empty()
    );
    let kept: Vec<IpNet> = after.blocks.iter().map(|block| block.cidr).collect();
    assert_eq!(kept, before.blocks.iter().map(|block| block.cidr).collect::<Vec<_>>());
    assert!(after.blocks.iter().all(|block| block.state == BlockState::Leaving), "new pods go elsewhere");
    assert_eq!((&after.packet_filter, after.addresses), (&before.packet_filter, before.addresses));
}

#[test]
fn mrt_files_are_of_what_is_asked_for() {
    let mrt = |documents: &[&str]| {
        let plan = plan1(documents).mrt?;
        Some((plan.size_limit >> 20, plan.rotate_after, plan.table_interval))
    };
    let configuration = |name: &str, mrt: &str| {
        format!(
            "kind: BGPConfiguration\nmetadata: {{name: {name}}}\nspec: {{nodeToNodeMeshEnabled: false, mrt: {mrt}}}\n"
        )
    };
    let minutes = |n: u64| Some(std::time::Duration::from_secs(60 * n));
    assert_eq!(mrt(&[NO_MESH]), None);
    let default = configuration("default", "{updates: {}, tables: {}}");
    assert_eq!(mrt(&[&default]), Some((1024, minutes(15), minutes(120))));
    let own = configuration("node.n1", "{sizeLimit: 64Mi, tables: {interval: 5m}}");
    assert_eq!(mrt(&[&default, &own]), Some((64, None, minutes(5))));
}
