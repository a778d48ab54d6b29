//! The plan: communities, operations and advertisements as documents ask for them.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panic, in its helpers too"
)]

use std::fs;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use weft_bgp::config::{Aggregation, PeerConfig};
use weft_bgp::policy::{Community, CompiledPolicy, Operation, Policy, RouteSource, Subject};
use weft_bgp::types::{Asn, PeerType};
use weft_bgp::wire::attributes::PathAttributes;
use weft_controller::api::{Aggregate, PrefixAdvertisement};
use weft_controller::cluster::{Cluster, Kind};
use weft_controller::documents::load;
use weft_controller::plan::{HostFacts, NodePlan, plan};

const NODE: &str = r#"
apiVersion: v1
kind: Node
metadata: {name: n1}
spec: {podCIDRs: [10.244.1.0/26, "fd00:244:1::/122"]}
status: {addresses: [{type: InternalIP, address: 192.0.2.1}, {type: InternalIP, address: "2001:db8::1"}]}
"#;

const CONFIGURATION: &str = r#"
kind: BGPConfiguration
metadata: {name: default}
spec:
  communities:
  - {name: rack, value: "65000:7"}
  - {name: site, value: "65000:1:2"}
  prefixAdvertisements:
  - {cidr: 10.244.0.0/16, communities: [rack, no-export]}
  - {cidr: 10.244.1.0/24, communities: [site, "65000:7", "rt:65000:1"]}
"#;

/// Two filters, of which the peer names the second first.
const FILTERS: &str = r#"
kind: BGPFilter
metadata: {name: a}
spec:
  importV4:
  - communities: {values: [rack]}
    action: Accept
  - asPathPrefix: [65001, 65002]
    action: Accept
    operations:
    - prependASPath: {prefix: [65001, 65001]}
    - setNextHop: {value: 192.0.2.9}
---
apiVersion: weft.network/v1alpha1
kind: BGPFilter
metadata: {name: b}
spec:
  importV4:
  - {communities: {values: [blackhole]}, action: Reject}
  - communities: {values: [rack, "1:1"]}
    action: Accept
    operations:
    - removeCommunity: {value: rack}
    - addCommunity: {value: site}
    - setLocalPreference: {value: 300}
    - setMED: {value: 0}
---
apiVersion: weft.network/v1alpha1
kind: BGPPeer
metadata: {name: tor}
spec: {peerIP: 192.0.2.254, asNumber: 65001, filters: [b, a]}
"#;

fn cluster() -> Cluster {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let ours = [CONFIGURATION, FILTERS].map(|text| format!("---\napiVersion: weft.network/v1alpha1{text}"));
    fs::write(folder.path().join("x.yaml"), format!("{NODE}{}", ours.concat())).expect("a file");
    load(folder.path()).unwrap_or_else(|errors| panic!("{errors:#?}"))
}

fn plan_of(cluster: &Cluster) -> NodePlan {
    plan(cluster, "n1", &HostFacts::default()).expect("a plan")
}

fn tor(plan: &NodePlan) -> Arc<PeerConfig> {
    Arc::clone(&plan.speaker.peers[&IpAddr::from([192, 0, 2, 254]).into()])
}

fn community(text: &str) -> Community {
    text.parse().expect("a community")
}

/// What is done to a route with these communities and this AS path, or the code of the reason why it is rejected.
fn does(policy: &Arc<Policy>, communities: &[&str], asns: &[u32]) -> Result<Vec<Operation>, String> {
    let mut attributes = PathAttributes::new(IpAddr::from([192, 0, 2, 254]));
    communities.iter().for_each(|text| community(text).add_to(&mut attributes));
    asns.iter().rev().for_each(|asn| attributes.as_path.prepend(Asn(*asn)));
    let subject = Subject {
        prefix: &"10.9.0.0/16".parse().expect("a prefix"),
        source: RouteSource::RemotePeers,
        peer_type: PeerType::External,
        attributes: &attributes,
    };
    match CompiledPolicy::new(Arc::clone(policy)).evaluate(subject) {
        Ok(operations) => Ok(operations.map(|operations| operations.to_vec()).unwrap_or_default()),
        Err(reason) => Err(reason.code.to_string()),
    }
}

#[test]
fn filters_match_communities_and_as_paths_in_the_order_of_the_peer() {
    let tor = tor(&plan_of(&cluster()));
    let does = |communities: &[&str], asns: &[u32]| does(&tor.import, communities, asns);
    assert_eq!(
        does(&["65000:7", "1:1"], &[65001, 65002]),
        Ok(vec![
            Operation::RemoveCommunity(community("65000:7")),
            Operation::AddCommunity(community("65000:1:2")),
            Operation::SetLocalPreference(300),
            Operation::SetMed(0),
        ])
    );
    assert_eq!(does(&["65000:7"], &[65001, 65002]), Ok(vec![]));
    assert_eq!(
        does(&["1:1"], &[65001, 65002, 65003]),
        Ok(vec![
            Operation::PrependAsPath(vec![Asn(65001), Asn(65001)]),
            Operation::SetNextHop(IpAddr::from([192, 0, 2, 9])),
        ])
    );
    assert_eq!(does(&["1:1"], &[65001]), Err("no-filter-match".into()));
    assert_eq!(does(&["65535:666", "65000:7"], &[65001]), Err("filter".into()));
}

/// The documents are accepted together, so that it takes an object that is kept as it was.
#[test]
fn a_rule_whose_community_has_lost_its_name_lets_nothing_through() {
    let mut cluster = cluster();
    cluster.delete(Kind::BgpConfiguration, "default");
    let tor = tor(&plan_of(&cluster));
    assert_eq!(does(&tor.import, &["65000:7", "1:1"], &[65001]), Err("community-missing".into()));
    let text = tor.import.rules[1].verdict.clone();
    assert!(format!("{text:?}").contains("importV4[1] of BGPFilter b names the community rack"), "{text:?}");
}

#[test]
fn what_a_node_originates_has_the_communities_of_every_prefix_that_it_lies_in() {
    let plan = plan_of(&cluster());
    let communities = |prefix: &str| {
        let prefix: IpNet = prefix.parse().expect("a prefix");
        let all = plan.speaker.originate[&prefix].communities.iter();
        all.map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(communities("10.244.1.0/26"), ["65000:7", "no-export", "rt:65000:1", "65000:1:2"]);
    assert_eq!(communities("fd00:244:1::/122"), Vec::<String>::new());
}

#[test]
fn an_aggregate_is_originated_with_its_communities_unless_it_is_a_block() {
    let mut cluster = cluster();
    let configuration = cluster.configurations.get_mut("default").expect("a configuration");
    let advertisements = Arc::make_mut(configuration).prefix_advertisements.as_mut().expect("advertisements");
    advertisements[0].aggregate = Some(Aggregate::WithSpecifics);
    advertisements[1].aggregate = Some(Aggregate::SummaryOnly);
    let block =
        PrefixAdvertisement { cidr: "10.244.1.0/26".parse().expect("a prefix"), ..advertisements[1].clone() };
    advertisements.push(block);
    let plan = plan_of(&cluster);
    let told = |prefix: &str| {
        let prefix: IpNet = prefix.parse().expect("a prefix");
        let origination = &plan.speaker.originate[&prefix];
        (origination.aggregation, origination.communities.len())
    };
    assert_eq!(told("10.244.0.0/16"), (Some(Aggregation::WithSpecifics), 2));
    assert_eq!(told("10.244.1.0/24"), (Some(Aggregation::SummaryOnly), 4));
    assert_eq!(told("10.244.1.0/26"), (None, 4));
    // Other nodes are told the block: they believe no aggregate.
    assert_eq!(plan.speaker.originate.len(), 4);
}
