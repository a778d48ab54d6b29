//! Documents of Services: what is wrong with ranges, and what Kubernetes itself may write.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panic, in its helpers too"
)]

use std::fs;

use weft_controller::api::json::DocumentError;
use weft_controller::cluster::{Cluster, TrafficPolicy};
use weft_controller::documents::load;

const CLUSTER: &str = "\
apiVersion: v1
kind: Node
metadata: {name: n1}
spec: {podCIDRs: [10.244.1.0/24]}
status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}
---
apiVersion: weft.network/v1alpha1
kind: IPPool
metadata: {name: pods}
spec: {cidr: 10.244.0.0/16}
---
";

fn read(documents: &str) -> Result<Cluster, Vec<DocumentError>> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("x.yaml"), format!("{CLUSTER}{documents}")).expect("a file");
    load(folder.path())
}

/// Asserts that the documents give exactly one error, at this field, with these words in it.
#[track_caller]
fn one(documents: &str, field: &str, words: &[&str]) {
    let errors = read(documents).expect_err("an error");
    let [error] = errors.as_slice() else { panic!("{errors:#?}") };
    assert_eq!(error.field.as_deref(), Some(field), "{error}");
    for word in words {
        assert!(error.to_string().contains(word), "{error}");
    }
}

fn configuration(fields: &str) -> String {
    format!(
        "apiVersion: weft.network/v1alpha1\nkind: BGPConfiguration\nmetadata: {{name: default}}\nspec:\n  {fields}\n"
    )
}

#[test]
fn ranges_that_cannot_be_services() {
    for (range, words) in [
        ("10.96.0.1/12", &["host bits", "10.96.0.0/12"][..]),
        ("10.96.0.0", &["no prefix length", "10.96.0.0/32"]),
        ("0.0.0.0/0", &["too wide", "length 8 or more"]),
        ("\"::/0\"", &["too wide"]),
        ("127.0.0.0/16", &["127.0.0.0/8", "unicast"]),
        ("169.254.0.0/16", &["routed nowhere"]),
        ("239.1.0.0/16", &["routed nowhere"]),
        ("\"fe80::/64\"", &["routed nowhere"]),
    ] {
        let documents = configuration(&format!("serviceClusterIPs: [{{cidr: {range}}}]"));
        one(&documents, "spec.serviceClusterIPs[0].cidr", words);
    }
    let twice = "serviceExternalIPs: [{cidr: 198.51.100.0/24}, {cidr: 198.51.100.128/25}]";
    one(&configuration(twice), "spec.serviceExternalIPs[1].cidr", &["198.51.100.0/24 of the same list"]);
    one(
        &configuration("serviceClusterIPs: [10.96.0.0/12]"),
        "spec.serviceClusterIPs[0]",
        &["mapping of fields"],
    );
    one(&configuration("serviceAggregation: Yes"), "spec.serviceAggregation", &["Enabled", "Disabled"]);
    one(&configuration("serviceSettleTime: 11m"), "spec.serviceSettleTime", &["longer than 10m"]);
    let many: Vec<String> = (0..65).map(|n| format!("{{cidr: 10.96.{n}.0/24}}")).collect();
    one(
        &configuration(&format!("serviceClusterIPs: [{}]", many.join(", "))),
        "spec.serviceClusterIPs",
        &["65 ranges", "64 at most"],
    );
}

#[test]
fn ranges_of_two_lists_may_overlap_but_none_with_anything_else() {
    let both =
        "serviceExternalIPs: [{cidr: 198.51.100.0/24}]\n  serviceLoadBalancerIPs: [{cidr: 198.51.100.0/24}]";
    read(&configuration(both)).expect("one range may be of two sorts");
    one(
        &configuration("serviceLoadBalancerIPs: [{cidr: 203.0.113.0/24}, {cidr: 192.0.2.0/24}]"),
        "spec.serviceLoadBalancerIPs[1].cidr",
        &["the address 192.0.2.1 of Node/n1", "x.yaml line 1", "a range of their own"],
    );
    let errors = read(&configuration("serviceClusterIPs: [{cidr: 10.244.0.0/17}]")).expect_err("errors");
    let shown: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert!(shown.iter().any(|error| error.contains("the cidr 10.244.0.0/16 of IPPool/pods")), "{shown:#?}");
    assert!(shown.iter().any(|error| error.contains("the podCIDR 10.244.1.0/24 of Node/n1")), "{shown:#?}");
    assert_eq!(shown.len(), 2, "{shown:#?}");
}

#[test]
fn pools_for_services_lie_in_ranges_of_theirs_and_of_nobody_else() {
    let pool = |cidr: &str| {
        format!(
            "---\napiVersion: weft.network/v1alpha1\nkind: IPPool\nmetadata: {{name: public}}\nspec: {{cidr: {cidr}, allowedUses: [LoadBalancer]}}\n"
        )
    };
    let ranges = configuration("serviceLoadBalancerIPs: [{cidr: 203.0.113.0/24}]");
    read(&(ranges + &pool("203.0.113.0/28"))).expect("that is what they are for, and no block need fit");
    read(&pool("203.0.113.7/32")).expect("nothing announces it, but that is no error");
    one(
        &(configuration("serviceClusterIPs: [{cidr: 10.96.0.0/12}]") + &pool("10.96.0.0/24")),
        "spec.serviceClusterIPs[0].cidr",
        &["the cidr 10.96.0.0/24 of IPPool/public"],
    );
    one(&pool("192.0.2.0/24"), "spec.cidr", &["the address 192.0.2.1 of Node/n1", "a range of their own"]);
    let block = "---\napiVersion: weft.network/v1alpha1\nkind: IPBlock\nmetadata: {name: b}\nspec: {cidr: 203.0.113.64/26, node: n1}\n";
    one(&(pool("203.0.113.0/24") + block), "spec.cidr", &["the block 203.0.113.64/26 of IPBlock/b"]);
}

#[test]
fn services_as_the_api_server_writes_them() {
    let cluster = read(
        r#"
apiVersion: v1
kind: Service
metadata: {name: headless, namespace: shop, uid: x}
spec: {clusterIP: None, clusterIPs: [None], ipFamilies: [IPv4], ports: [{port: 80}], sessionAffinity: None}
status: {loadBalancer: {}}
---
apiVersion: v1
kind: Service
metadata: {name: elsewhere, namespace: shop}
spec: {type: ExternalName, externalName: example.org}
status: {loadBalancer: {}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: ClusterIP, clusterIP: 10.96.0.1, externalTrafficPolicy: Local}
status: {loadBalancer: {ingress: [{ip: 203.0.113.1}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: empty, namespace: shop, labels: {kubernetes.io/service-name: headless}}
addressType: IPv6
endpoints: null
ports: null
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: unsaid, namespace: shop, labels: {kubernetes.io/service-name: headless}}
addressType: IPv4
endpoints: [{addresses: [10.244.1.2]}, {addresses: [10.244.1.3], nodeName: n1, conditions: {ready: true}}]
"#,
    )
    .unwrap_or_else(|errors| panic!("{errors:#?}"));
    assert!(cluster.services["shop/headless"].cluster_ips.is_empty());
    assert!(cluster.services["shop/elsewhere"].cluster_ips.is_empty());
    let web = &cluster.services["default/web"];
    assert_eq!(web.cluster_ips, ["10.96.0.1".parse::<std::net::IpAddr>().expect("an address")]);
    assert!(web.load_balancer_ips.is_empty(), "it is of another type now");
    assert_eq!(web.external_policy, TrafficPolicy::Local);
    assert!(cluster.endpoint_slices["shop/empty"].ready.is_empty());
    let unsaid = &cluster.endpoint_slices["shop/unsaid"];
    assert!(unsaid.ready.elsewhere && unsaid.ready.nodes.contains("n1") && unsaid.terminating.is_empty());
    assert_eq!(unsaid.service.as_deref(), Some("shop/headless"));
}

#[test]
fn services_that_are_wrong() {
    let service =
        |spec: &str| format!("apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec: {{{spec}}}\n");
    one(&service("clusterIP: web"), "spec.clusterIP", &["\"web\" is not an address that a Service can have"]);
    one(&service("externalIPs: [127.0.0.1]"), "spec.externalIPs[0]", &["not an address"]);
    one(&service("externalTrafficPolicy: Here"), "spec.externalTrafficPolicy", &["Cluster", "Local"]);
    let slice =
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: s}\naddressType: IPv5\n";
    one(slice, "addressType", &["IPv5", "IPv4"]);
    let named = "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: Shop}\n";
    one(named, "metadata.name", &["\"Shop/web\" is not a name"]);
    let slash = "apiVersion: v1\nkind: Namespace\nmetadata: {name: a/b}\n";
    one(slash, "metadata.name", &["\"a/b\" is not a name"]);
}
