use serde_json::json;

use super::*;

fn object(kind: &str, name: &str, spec: Json) -> Json {
    json!({"apiVersion": "weft.network/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

fn pool(admission: &mut Admission, name: &str, cidr: &str) {
    admission.apply(Kind::IpPool, name, object("IPPool", name, json!({"cidr": cidr})));
}

fn peer(admission: &mut Admission, name: &str, filters: &[&str]) {
    let spec = json!({"peerIP": "192.0.2.1", "asNumber": 65000, "filters": filters});
    admission.apply(Kind::BgpPeer, name, object("BGPPeer", name, spec));
}

fn filter(admission: &mut Admission, name: &str) {
    let spec = json!({"importV4": [{"action": "Accept"}]});
    admission.apply(Kind::BgpFilter, name, object("BGPFilter", name, spec));
}

fn node(admission: &mut Admission, name: &str, pod_cidr: &str) {
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
        "spec": {"podCIDRs": [pod_cidr]}, "status": {"capacity": {"cpu": "2"}}});
    admission.apply(Kind::Node, name, node);
}

/// What is in force, and the errors.
fn settled(admission: &mut Admission) -> (Cluster, Vec<DocumentError>) {
    let reading = admission.settle();
    (reading.cluster.unwrap(), reading.errors)
}

fn objects(errors: &[DocumentError]) -> Vec<&str> {
    errors.iter().filter_map(|error| error.object.as_deref()).collect()
}

#[test]
fn a_bad_object_disturbs_no_other_and_keeps_its_last_accepted_spec() {
    let mut admission = Admission::new("n1");
    node(&mut admission, "n1", "10.244.0.0/24");
    pool(&mut admission, "a", "10.244.0.0/16");
    let (good, errors) = settled(&mut admission);
    assert_eq!(errors, []);
    pool(&mut admission, "a", "10.244.0.1/16");
    pool(&mut admission, "b", "10.9.0.0/16");
    let (cluster, errors) = settled(&mut admission);
    assert_eq!(objects(&errors), ["IPPool/a"]);
    assert_eq!(cluster.pools["a"], good.pools["a"]);
    assert!(cluster.pools.contains_key("b"));
    let said = &errors[0];
    assert_eq!((said.file.as_deref(), said.line, said.field.as_deref()), (None, None, Some("spec.cidr")));
    // Bad from the start, it is not in force at all; right again, it is.
    pool(&mut admission, "c", "nonsense");
    assert!(!settled(&mut admission).0.pools.contains_key("c"));
    pool(&mut admission, "c", "10.8.0.0/16");
    pool(&mut admission, "a", "10.244.0.0/16");
    let (cluster, errors) = settled(&mut admission);
    assert!(errors.is_empty() && cluster.pools.contains_key("c"), "{errors:?}");
}

#[test]
fn who_comes_later_gives_way() {
    let mut admission = Admission::new("n1");
    pool(&mut admission, "a", "10.244.0.0/16");
    admission.settle();
    // A wider one sorts first, and yet it is the one that came later.
    pool(&mut admission, "wide", "10.0.0.0/8");
    let (cluster, errors) = settled(&mut admission);
    assert_eq!(objects(&errors), ["IPPool/wide"]);
    assert!(errors[0].message.starts_with("IPPool/a: "), "{errors:?}");
    assert_eq!(cluster.pools.keys().collect::<Vec<_>>(), ["a"]);
    admission.delete(Kind::IpPool, "a");
    let (cluster, errors) = settled(&mut admission);
    assert_eq!((errors.len(), cluster.pools.len()), (0, 1));
}

#[test]
fn one_waits_for_another_whichever_comes_first() {
    let mut admission = Admission::new("n1");
    peer(&mut admission, "tor", &["from-tor"]);
    let (cluster, errors) = settled(&mut admission);
    assert_eq!(objects(&errors), ["BGPPeer/tor"]);
    assert!(cluster.peers.is_empty());
    filter(&mut admission, "from-tor");
    let (cluster, errors) = settled(&mut admission);
    assert_eq!((errors.len(), cluster.peers.len()), (0, 1));
    // What is in force stays so, and the error is told.
    admission.delete(Kind::BgpFilter, "from-tor");
    pool(&mut admission, "a", "10.244.0.0/16");
    let (cluster, errors) = settled(&mut admission);
    assert_eq!(objects(&errors), ["BGPPeer/tor"]);
    assert_eq!((cluster.peers.len(), cluster.pools.len()), (1, 1));
}

#[test]
fn a_profile_of_bfd_is_waited_for_and_missed_by_all_that_name_it() {
    let mut admission = Admission::new("n1");
    let configuration = object("BGPConfiguration", "default", json!({"bfdProfile": "fast"}));
    admission.apply(Kind::BgpConfiguration, "default", configuration);
    assert_eq!(objects(&settled(&mut admission).1), ["BGPConfiguration/default"]);
    admission.apply(Kind::BfdProfile, "fast", object("BFDProfile", "fast", json!({})));
    let (cluster, errors) = settled(&mut admission);
    assert_eq!((errors.len(), cluster.configurations.len()), (0, 1));
    admission.delete(Kind::BfdProfile, "fast");
    let (cluster, errors) = settled(&mut admission);
    assert_eq!(objects(&errors), ["BGPConfiguration/default"]);
    assert_eq!(cluster.configurations.len(), 1, "it stays in force");
}

#[test]
fn what_is_inherited_is_looked_at_again_when_it_goes_and_a_secret_is_not_asked_for() {
    let mut admission = Admission::new("n1");
    let configuration = object("BGPConfiguration", "default", json!({"holdTime": "180s"}));
    admission.apply(Kind::BgpConfiguration, "default", configuration);
    let password = json!({"secretKeyRef": {"name": "later", "key": "tor"}});
    let spec =
        json!({"peerIP": "192.0.2.1", "asNumber": 65000, "keepaliveTime": "100s", "password": password});
    admission.apply(Kind::BgpPeer, "tor", object("BGPPeer", "tor", spec));
    assert_eq!(settled(&mut admission).1, []);
    admission.delete(Kind::BgpConfiguration, "default");
    let (cluster, errors) = settled(&mut admission);
    assert_eq!(objects(&errors), ["BGPPeer/tor"]);
    assert!(
        errors[0].message.ends_with("not shorter than the holdTime 1m30s that it inherits"),
        "{errors:?}"
    );
    assert_eq!(cluster.peers.len(), 1, "it stays in force");
}

#[test]
fn a_node_may_come_after_what_names_it() {
    let mut admission = Admission::new("n1");
    let spec = json!({"node": "n7", "cidr": "10.244.0.0/26"});
    admission.apply(Kind::IpBlock, "b", object("IPBlock", "b", spec));
    let configuration = object("BGPConfiguration", "node.n7", json!({"asNumber": 65001}));
    admission.apply(Kind::BgpConfiguration, "node.n7", configuration);
    assert_eq!(settled(&mut admission).1, []);
}

#[test]
fn what_changes_is_in_force_whether_it_had_to_be_checked_or_not() {
    let mut admission = Admission::new("n1");
    let labelled = |name: &str, rack: &str, pod_cidr: &str| {
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"rack": rack}},
            "spec": {"podCIDRs": [pod_cidr]}})
    };
    for (name, pod_cidr) in [("n1", "10.1.0.0/24"), ("n2", "10.2.0.0/24"), ("n3", "10.3.0.0/24")] {
        admission.apply(Kind::Node, name, labelled(name, "a", pod_cidr));
    }
    assert_eq!(settled(&mut admission).1, []);
    admission.apply(Kind::Node, "n1", labelled("n1", "b", "10.1.0.0/24"));
    admission.apply(Kind::Node, "n2", labelled("n2", "b", "10.2.0.0/24"));
    // This one takes another's block.
    admission.apply(Kind::Node, "n3", labelled("n3", "b", "10.2.0.0/25"));
    let (cluster, errors) = settled(&mut admission);
    let racks: Vec<&str> = cluster.nodes.values().map(|node| node.labels["rack"].as_str()).collect();
    assert_eq!((racks, objects(&errors)), (vec!["b", "b", "a"], vec!["Node/n3"]));
    // Told again until the other one is gone.
    assert_eq!(objects(&settled(&mut admission).1), ["Node/n3"]);
    admission.delete(Kind::Node, "n2");
    let (cluster, errors) = settled(&mut admission);
    assert_eq!((cluster.nodes["n3"].labels["rack"].as_str(), errors.len()), ("b", 0));
}

#[test]
fn what_no_selector_tells_apart_needs_no_look() {
    let mut admission = Admission::new("n1");
    let node = |name: &str, rack: &str, beat: &str| {
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"rack": rack, "beat": beat}},
            "spec": {"podCIDRs": [if name == "n1" { "10.1.0.0/24" } else { "10.2.0.0/24" }]}})
    };
    let spec = json!({"peerSelector": "rack == \"a\"", "nodeSelector": "rack == \"b\""});
    admission.apply(Kind::BgpPeer, "racks", object("BGPPeer", "racks", spec));
    for name in ["n1", "n2"] {
        assert!(admission.apply(Kind::Node, name, node(name, "a", "1")), "a new Node is to be looked at");
    }
    // Nobody has looked yet.
    assert!(admission.apply(Kind::Node, "n2", node("n2", "a", "2")));
    assert_eq!(settled(&mut admission).1, []);
    let mut apply = |name, rack, beat| {
        let differs = admission.apply(Kind::Node, name, node(name, rack, beat));
        let cluster = settled(&mut admission).0;
        assert_eq!(
            (&*cluster.nodes[name].labels["rack"], &*cluster.nodes[name].labels["beat"]),
            (rack, beat)
        );
        differs
    };
    assert!(!apply("n2", "a", "2") && !apply("n2", "a", "3"), "a label that nothing selects by");
    assert!(apply("n2", "b", "3") && apply("n2", "c", "3"), "each of the two selectors counts");
    assert!(!apply("n2", "d", "3") && !apply("n1", "a", "1"));
    assert!(apply("n1", "a", "2"), "the own Node counts in full");
}

#[test]
fn of_endpoints_only_the_own_need_a_look() {
    let mut admission = Admission::new("n1");
    let mut apply = |nodes: &[&str]| {
        let endpoints: Vec<Json> =
            nodes.iter().map(|node| json!({"addresses": ["10.1.0.1"], "nodeName": node})).collect();
        let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "web-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
            "endpoints": endpoints});
        let differs = admission.apply(Kind::EndpointSlice, "shop/web-1", slice);
        let ready = settled(&mut admission).0.endpoint_slices["shop/web-1"].ready.clone();
        assert_eq!((ready.nodes.contains("n1"), ready.is_empty()), (nodes.contains(&"n1"), nodes.is_empty()));
        differs
    };
    let looks =
        [&["n2"][..], &["n3", "n4"], &[], &["n3"], &["n1", "n3"], &["n1", "n2", "n4"], &["n1"], &["n2"]];
    assert_eq!(looks.map(&mut apply), [true, false, true, true, true, false, true, true]);
}

#[test]
fn a_taint_that_comes_and_goes_is_in_force_at_once() {
    let mut admission = Admission::new("n1");
    let tainted = |name: &str, pod_cidr: &str, taints: Json| {
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
            "spec": {"podCIDRs": [pod_cidr], "taints": taints}})
    };
    let drain = json!([{"key": "weft.network/drain", "value": "x", "effect": "NoSchedule"}]);
    for (taints, count) in [(json!([]), 0), (drain, 1), (json!([]), 0)] {
        for (name, pod_cidr) in [("n1", "10.1.0.0/24"), ("n2", "10.2.0.0/24")] {
            admission.apply(Kind::Node, name, tainted(name, pod_cidr, taints.clone()));
        }
        let (cluster, errors) = settled(&mut admission);
        assert_eq!(errors, []);
        assert!(cluster.nodes.values().all(|node| node.drain_taints.len() == count), "{cluster:?}");
    }
    let errors =
        admission_errors(&mut admission, tainted("n1", "10.1.0.0/24", json!([{"effect": "NoSchedule"}])));
    assert_eq!(errors, ["spec.taints[0].key"]);
}

fn admission_errors(admission: &mut Admission, node: Json) -> Vec<String> {
    admission.apply(Kind::Node, "n1", node);
    settled(admission).1.into_iter().filter_map(|error| error.field).collect()
}

#[test]
fn a_bad_service_stays_as_it_was_and_one_that_goes_is_gone() {
    let mut admission = Admission::new("n1");
    let service = |ip: &str| {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"clusterIP": ip}})
    };
    admission.apply(Kind::Service, "shop/web", service("10.96.0.1"));
    let (good, errors) = settled(&mut admission);
    assert_eq!((good.services.len(), errors.len()), (1, 0));
    admission.apply(Kind::Service, "shop/web", service("nonsense"));
    let (cluster, errors) = settled(&mut admission);
    assert_eq!((&cluster.services, objects(&errors)), (&good.services, vec!["Service/web"]));
    admission.delete(Kind::Service, "shop/web");
    let (cluster, errors) = settled(&mut admission);
    assert_eq!((cluster.services.len(), errors.len()), (0, 0));
}

#[test]
fn few_bad_among_many_are_found() {
    let mut admission = Admission::new("n1");
    for index in 0..200 {
        let block = if index == 77 { 3 } else { index };
        node(&mut admission, &format!("n{index:03}"), &format!("10.{block}.0.0/24"));
    }
    let (cluster, errors) = settled(&mut admission);
    assert_eq!(objects(&errors), ["Node/n077"]);
    assert_eq!(cluster.nodes.len(), 199);
    for name in admission.names(Kind::Node).into_iter().filter(|name| name != "n077") {
        admission.delete(Kind::Node, &name);
    }
    let (cluster, errors) = settled(&mut admission);
    assert_eq!((errors.len(), cluster.nodes.len()), (0, 1));
}
