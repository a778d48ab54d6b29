//! Which Services' prefixes a node announces, when, and why.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panic, in its helpers too"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use weft_bgp::policy::{CompiledPolicy, RouteSource, Subject};
use weft_bgp::types::PeerType;
use weft_bgp::wire::attributes::PathAttributes;
use weft_controller::cluster::Cluster;
use weft_controller::documents::load;
use weft_controller::plan::{HostFacts, InterfaceFacts, NodePlan, Settling, answered, plan};

const RANGES: &str = "serviceClusterIPs: [{cidr: 10.96.0.0/12}, {cidr: \"fd00:96::/112\"}], \
                      serviceExternalIPs: [{cidr: 198.51.100.0/24}], \
                      serviceLoadBalancerIPs: [{cidr: 203.0.113.0/24}, {cidr: 203.0.114.7/32}]";

/// The default BGPConfiguration with these fields.
fn configuration(fields: &str) -> String {
    format!(
        "apiVersion: weft.network/v1alpha1\nkind: BGPConfiguration\nmetadata: {{name: default}}\nspec: {{{fields}}}\n"
    )
}

/// A Node, with what else its metadata and status say.
fn node(number: u8, metadata: &str, status: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Node\nmetadata: {{name: n{number}{metadata}}}\nspec: {{podCIDRs: [10.244.{number}.0/24]}}\n\
         status: {{addresses: [{{type: InternalIP, address: 192.0.2.{number}}}]{status}}}\n"
    )
}

fn service(name: &str, spec: &str, status: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{{spec}}}\nstatus: {{{status}}}\n"
    )
}

/// An EndpointSlice with one endpoint for each `(node, conditions)`.
fn slice(name: &str, service: &str, family: &str, endpoints: &[(&str, &str)]) -> String {
    let endpoints: Vec<String> = endpoints
        .iter()
        .map(|(node, conditions)| {
            format!("{{addresses: [x], nodeName: {node}, conditions: {{{conditions}}}}}")
        })
        .collect();
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: {family}\n\
         metadata: {{name: {name}, namespace: shop, labels: {{kubernetes.io/service-name: {service}}}}}\n\
         endpoints: [{}]\n",
        endpoints.join(", ")
    )
}

const READY: &str = "ready: true, serving: true, terminating: false";
const TERMINATING: &str = "ready: false, serving: true, terminating: true";
const GONE: &str = "ready: false, serving: false, terminating: true";

/// These documents, and the Nodes n1 to n3 unless they are among them.
fn cluster(documents: &[String]) -> Cluster {
    let mut all = documents.to_vec();
    if !all.iter().any(|text| text.contains("kind: Node")) {
        all.extend((1..=3).map(|number| node(number, "", "")));
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("x.yaml"), all.join("---\n")).expect("a file");
    load(folder.path()).unwrap_or_else(|errors| panic!("{errors:#?}"))
}

fn plan_of(cluster: &Cluster, name: &str) -> NodePlan {
    let number = name.trim_start_matches('n');
    let eth0 = InterfaceFacts {
        addresses: vec![format!("192.0.2.{number}/24").parse().expect("an address")],
        mtu: 1500,
        ..InterfaceFacts::default()
    };
    let host = HostFacts { interfaces: [("eth0".into(), eth0)].into(), ..HostFacts::default() };
    plan(cluster, name, &host).expect("a plan")
}

/// What becomes of each prefix on a node: the code of the reason.
fn codes(cluster: &Cluster, node: &str) -> BTreeMap<String, String> {
    let plan = plan_of(cluster, node);
    let told: BTreeSet<&IpNet> = plan.speaker.originate.keys().collect();
    for (net, prefix) in &plan.services {
        assert_eq!(told.contains(net), prefix.verdict.is_announced(), "{net}: {prefix:?}");
    }
    plan.services.iter().map(|(net, p)| (net.to_string(), p.verdict.reason().code.to_string())).collect()
}

/// The same of one prefix on each of the nodes n1 to n3.
fn on_nodes(cluster: &Cluster, prefix: &str) -> [String; 3] {
    ["n1", "n2", "n3"].map(|node| codes(cluster, node).remove(prefix).unwrap_or_default())
}

#[test]
fn without_ranges_nothing_is_known_of_services() {
    let web = service("web", "clusterIP: 10.96.0.10", "");
    let cluster = cluster(&[web, slice("web-1", "web", "IPv4", &[("n1", READY)])]);
    assert_eq!(codes(&cluster, "n1"), BTreeMap::new());
}

#[test]
fn every_node_announces_the_ranges_and_not_what_they_cover() {
    let web = service("web", "clusterIPs: [10.96.0.10, \"fd00:96::a\"], externalIPs: [198.51.100.1]", "");
    let cluster = cluster(&[configuration(RANGES), web, slice("web-1", "web", "IPv4", &[("n1", READY)])]);
    for node in ["n1", "n2"] {
        let codes = codes(&cluster, node);
        for range in ["10.96.0.0/12", "fd00:96::/112", "198.51.100.0/24", "203.0.113.0/24"] {
            assert_eq!(codes[range], "range", "{node} {range}");
        }
        for address in ["10.96.0.10/32", "fd00:96::a/128", "198.51.100.1/32"] {
            assert_eq!(codes[address], "covered", "{node} {address}");
        }
        assert!(!codes.contains_key("203.0.114.7/32"), "a range of one address is not a range: {codes:?}");
    }
}

#[test]
fn a_local_service_is_announced_where_its_endpoints_are() {
    let balanced = service(
        "web",
        "type: LoadBalancer, clusterIP: 10.96.0.10, externalTrafficPolicy: Local",
        "loadBalancer: {ingress: [{ip: 203.0.113.9}, {ip: 203.0.114.7, ipMode: VIP}, {ip: 203.0.113.8, ipMode: Proxy}, {hostname: x}]}",
    );
    let cluster = cluster(&[
        configuration(RANGES),
        balanced,
        slice("web-1", "web", "IPv4", &[("n1", READY)]),
        slice("web-2", "web", "IPv4", &[("n2", "ready: true"), ("n3", GONE)]),
    ]);
    let here = ["local-endpoint", "local-endpoint", "no-local-endpoint"];
    assert_eq!(on_nodes(&cluster, "203.0.113.9/32"), here);
    assert_eq!(on_nodes(&cluster, "203.0.114.7/32"), here, "a range of one address");
    assert_eq!(on_nodes(&cluster, "203.0.113.8/32"), ["", "", ""], "its packets come from a proxy");
    assert_eq!(on_nodes(&cluster, "10.96.0.10/32"), ["covered"; 3], "the internal policy is Cluster");
    let plan = plan_of(&cluster, "n1");
    let prefix = &plan.services[&"203.0.113.9/32".parse().expect("a prefix")];
    assert_eq!(prefix.services, BTreeSet::from(["shop/web".to_owned()]));
}

#[test]
fn the_internal_policy_governs_cluster_ips() {
    let spec = "clusterIP: 10.96.0.10, internalTrafficPolicy: Local, externalIPs: [198.51.100.1]";
    let cluster = cluster(&[
        configuration(RANGES),
        service("web", spec, ""),
        slice("web-1", "web", "IPv4", &[("n2", READY)]),
    ]);
    assert_eq!(
        on_nodes(&cluster, "10.96.0.10/32"),
        ["no-local-endpoint", "local-endpoint", "no-local-endpoint"]
    );
    assert_eq!(on_nodes(&cluster, "198.51.100.1/32"), ["covered"; 3]);
}

#[test]
fn endpoints_that_terminate_count_only_where_no_other_serves() {
    let local = |endpoints: &[(&str, &str)]| {
        let web = service("web", "clusterIP: 10.96.0.10, internalTrafficPolicy: Local", "");
        cluster(&[configuration(RANGES), web, slice("web-1", "web", "IPv4", endpoints)])
    };
    let moving = local(&[("n1", TERMINATING), ("n2", READY)]);
    assert_eq!(
        on_nodes(&moving, "10.96.0.10/32"),
        ["no-local-endpoint", "local-endpoint", "no-local-endpoint"]
    );
    let ending = local(&[("n1", TERMINATING), ("n2", GONE)]);
    assert_eq!(
        on_nodes(&ending, "10.96.0.10/32"),
        ["local-endpoint", "no-local-endpoint", "no-local-endpoint"]
    );
    for none in [&[("n1", GONE)][..], &[("n1", "ready: false")], &[]] {
        assert_eq!(on_nodes(&local(none), "10.96.0.10/32"), ["no-endpoint"; 3], "{none:?}");
    }
}

#[test]
fn each_family_has_endpoints_of_its_own() {
    let spec = "clusterIPs: [10.96.0.10, \"fd00:96::a\"], internalTrafficPolicy: Local";
    let cluster = cluster(&[
        configuration(RANGES),
        service("web", spec, ""),
        slice("web-4", "web", "IPv4", &[("n1", READY)]),
        slice("web-6", "web", "IPv6", &[("n2", READY)]),
        slice("web-f", "web", "FQDN", &[("n3", READY)]),
    ]);
    let [one, two, no] = ["local-endpoint", "local-endpoint", "no-local-endpoint"];
    assert_eq!(on_nodes(&cluster, "10.96.0.10/32"), [one, no, no]);
    assert_eq!(on_nodes(&cluster, "fd00:96::a/128"), [no, two, no]);
}

#[test]
fn without_aggregation_each_address_is_announced_by_itself() {
    let cluster = cluster(&[
        configuration(&format!("{RANGES}, serviceAggregation: Disabled")),
        service("web", "clusterIP: 10.96.0.10", ""),
        service("empty", "clusterIP: 10.96.0.11", ""),
        service("headless", "clusterIP: None", ""),
        slice("web-1", "web", "IPv4", &[("n1", READY)]),
    ]);
    let expected = [("10.96.0.10/32", "every-node"), ("10.96.0.11/32", "no-endpoint")];
    let expected = expected.map(|(prefix, code)| (prefix.to_owned(), code.to_owned()));
    assert_eq!(codes(&cluster, "n3"), BTreeMap::from(expected));
}

#[test]
fn an_address_is_announced_by_the_range_of_its_sort_only() {
    let cluster = cluster(&[
        configuration(RANGES),
        // An ExternalIP in the range of load balancers, and one in none.
        service("web", "clusterIP: 10.96.0.10, externalIPs: [203.0.113.1, 192.0.2.77]", ""),
        slice("web-1", "web", "IPv4", &[("n1", READY)]),
    ]);
    assert_eq!(on_nodes(&cluster, "203.0.113.1/32"), ["out-of-range"; 3]);
    assert_eq!(on_nodes(&cluster, "192.0.2.77/32"), ["out-of-range"; 3]);
}

#[test]
fn local_counts_where_services_share_an_address() {
    let shared = "type: LoadBalancer, clusterIP: None";
    let status = "loadBalancer: {ingress: [{ip: 203.0.113.9}]}";
    let cluster = cluster(&[
        configuration(RANGES),
        service("a", shared, status),
        service("b", &format!("{shared}, externalTrafficPolicy: Local"), status),
        slice("a-1", "a", "IPv4", &[("n1", READY)]),
        slice("b-1", "b", "IPv4", &[("n3", READY)]),
    ]);
    assert_eq!(
        on_nodes(&cluster, "203.0.113.9/32"),
        ["no-local-endpoint", "no-local-endpoint", "local-endpoint"]
    );
}

#[test]
fn a_node_that_is_not_ready_or_is_excluded_announces_nothing_of_services() {
    let not_ready =
        |status: &str| node(2, "", &format!(", conditions: [{{type: Ready, status: \"{status}\"}}]"));
    let excluded = node(1, ", labels: {node.kubernetes.io/exclude-from-external-load-balancers: \"\"}", "");
    for (two, code) in [
        (not_ready("False"), "node-not-ready"),
        (not_ready("Unknown"), "node-not-ready"),
        (not_ready("True"), ""),
    ] {
        let cluster = cluster(&[
            configuration(RANGES),
            excluded.clone(),
            two,
            node(3, "", ""),
            service("web", "clusterIP: 10.96.0.10, internalTrafficPolicy: Local", ""),
            slice("web-1", "web", "IPv4", &[("n1", READY), ("n2", READY)]),
        ]);
        let or =
            |code: &str, otherwise: &str| if code.is_empty() { otherwise.into() } else { code.to_owned() };
        assert_eq!(
            on_nodes(&cluster, "10.96.0.10/32"),
            ["node-excluded".into(), or(code, "local-endpoint"), "no-local-endpoint".into()]
        );
        assert_eq!(
            on_nodes(&cluster, "10.96.0.0/12"),
            ["node-excluded".into(), or(code, "range"), "range".into()]
        );
    }
}

#[test]
fn a_node_may_have_ranges_of_its_own_or_none() {
    let none = configuration("serviceClusterIPs: []").replace("name: default", "name: node.n2");
    let more = configuration("serviceAggregation: Disabled").replace("name: default", "name: node.n3");
    let cluster = cluster(&[configuration("serviceClusterIPs: [{cidr: 10.96.0.0/12}]"), none, more]);
    assert_eq!(on_nodes(&cluster, "10.96.0.0/12"), ["range", "", ""]);
}

#[test]
fn a_service_range_is_believed_of_no_peer() {
    let tor = "apiVersion: weft.network/v1alpha1\nkind: BGPPeer\nmetadata: {name: tor}\nspec: {peerIP: 192.0.2.254, asNumber: 65000}\n";
    let cluster = cluster(&[configuration(RANGES), tor.into()]);
    let plan = plan_of(&cluster, "n1");
    let peer = &plan.speaker.peers[&std::net::Ipv4Addr::new(192, 0, 2, 254).into()];
    let import = CompiledPolicy::new(peer.import.clone());
    for prefix in ["10.96.0.0/12", "10.96.0.10/32", "fd00:96::/120", "203.0.114.7/32"] {
        let prefix = prefix.parse().expect("a prefix");
        let attributes = &PathAttributes::new(IpAddr::from([192, 0, 2, 254]));
        let subject = Subject {
            prefix: &prefix,
            source: RouteSource::RemotePeers,
            peer_type: PeerType::External,
            attributes,
        };
        let reason = import.evaluate(subject).expect_err("rejected");
        assert_eq!(reason.code, "service-range", "{prefix}");
    }
}

#[test]
fn a_rejection_is_not_silenced_by_a_redirect() {
    let sysctls = |documents: &[String]| -> Vec<String> {
        let plan = plan(&cluster(documents), "n1", &two_interfaces()).expect("a plan");
        plan.sysctls.into_iter().map(|sysctl| sysctl.path).filter(|path| path.contains("redirects")).collect()
    };
    let all = "net/ipv4/conf/all/send_redirects";
    assert_eq!(sysctls(&[configuration("asNumber: 64601")]), [all]);
    assert_eq!(sysctls(&[configuration(RANGES)]), [all, "net/ipv4/conf/eth0/send_redirects"]);
}

/// The host of n1, which meets the other nodes on eth0 only.
fn two_interfaces() -> HostFacts {
    let facts = |address: &str| InterfaceFacts {
        addresses: vec![address.parse().expect("an address")],
        mtu: 1500,
        ..InterfaceFacts::default()
    };
    let interfaces = [("eth0".into(), facts("192.0.2.1/24")), ("eth1".into(), facts("198.18.0.1/24"))];
    HostFacts { interfaces: interfaces.into(), ..HostFacts::default() }
}

#[test]
fn what_settles_is_planned_but_not_told() {
    let web = service("web", "clusterIP: 10.96.0.10, internalTrafficPolicy: Local", "");
    let cluster = cluster(&[configuration(RANGES), web, slice("web-1", "web", "IPv4", &[("n1", READY)])]);
    let (answered, settle_time) = answered(&cluster, "n1");
    let address: IpNet = "10.96.0.10/32".parse().expect("a prefix");
    assert!(answered.contains(&address) && settle_time == Duration::from_secs(1));
    let host = HostFacts { settling: [address].into(), ..HostFacts::default() };
    let plan = plan(&cluster, "n1", &host).expect("a plan");
    assert_eq!(plan.services[&address].verdict.reason().code, "settling");
    assert!(!plan.speaker.originate.contains_key(&address));
}

#[test]
fn a_prefix_settles_each_time_anew_and_goes_at_once() {
    let [a, b] = ["10.96.0.1/32", "10.96.0.2/32"].map(|text| text.parse::<IpNet>().expect("a prefix"));
    let second = Duration::from_secs(1);
    let mut settling = Settling::new(false);
    #[expect(clippy::disallowed_methods, reason = "any moment will do")]
    let start = Instant::now();
    assert_eq!(settling.next_deadline(), None);
    assert_eq!(settling.look(start, &[a].into(), second), [a].into());
    assert_eq!(settling.next_deadline(), Some(start + second));
    assert_eq!(settling.look(start + second / 2, &[a, b].into(), second), [a, b].into());
    assert_eq!(settling.look(start + second, &[a, b].into(), second), [b].into());
    assert_eq!(settling.next_deadline(), Some(start + second * 3 / 2));
    // b goes before it was announced, and a after.
    assert_eq!(settling.look(start + second, &[].into(), second), [].into());
    assert_eq!(settling.next_deadline(), None);
    assert_eq!(settling.look(start + second * 2, &[a].into(), second), [a].into());
    assert_eq!(settling.look(start + second * 2, &[a].into(), Duration::ZERO), [].into());
    let mut resuming = Settling::new(true);
    assert_eq!(resuming.look(start, &[a].into(), second), [].into(), "peers count on it since before");
    assert_eq!(resuming.look(start, &[a, b].into(), second), [b].into());
}
