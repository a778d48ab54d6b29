use super::super::server::Server;
use super::*;
use crate::cluster::Cluster;

const DEADLINE: Duration = Duration::from_secs(20);

fn pool(cidr: &str) -> Json {
    json!({"apiVersion": "weft.network/v1alpha1", "kind": "IPPool", "spec": {"cidr": cidr}})
}

fn node(index: usize) -> Json {
    json!({"apiVersion": "v1", "kind": "Node", "spec": {"podCIDRs": [format!("10.{}.{}.0/24", index / 256, index % 256)]}})
}

/// Waits for a reading of which `good` holds.
async fn until(followed: &mut Followed, what: &str, good: impl Fn(&Cluster) -> bool) -> Reading {
    let wait = async {
        loop {
            let reading = followed.readings.recv().await.expect("the watches go on");
            if reading.cluster.as_ref().is_some_and(&good) {
                return reading;
            }
        }
    };
    timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

#[tokio::test]
async fn what_there_is_comes_at_once_and_what_changes_soon_after() {
    let server = Server::start().await;
    for index in 0..250 {
        server.put("nodes", &format!("n{index}"), node(index));
    }
    server.put("ippools", "a", pool("10.0.0.0/8"));
    server.put("ippools", "bad", pool("10.0.0.1/8"));
    let mut followed = follow(server.client(), "n1", Duration::ZERO);
    let first = timeout(DEADLINE, followed.readings.recv()).await.unwrap().unwrap();
    let cluster = first.cluster.unwrap();
    assert_eq!((cluster.nodes.len(), cluster.pools.len()), (250, 1), "whole, in pages");
    assert_eq!(first.errors.len(), 1, "{:?}", first.errors);
    server.put("ippools", "bad", pool("192.0.2.0/24"));
    server.delete("nodes", "n7");
    let reading = until(&mut followed, "both changes", |c| c.pools.len() == 2 && c.nodes.len() == 249).await;
    assert_eq!(reading.errors, []);
    assert_eq!(*followed.trouble.borrow(), None);
}

#[tokio::test]
async fn of_namespaces_the_labels_are_asked_for_and_no_more() {
    let server = Server::start().await;
    let namespace = |team: &str| json!({"kind": "Namespace", "metadata": {"labels": {"team": team}}});
    let mut selecting = pool("10.0.0.0/8");
    selecting["spec"]["namespaceSelector"] = "team == \"x\"".into();
    server.put("ippools", "a", selecting);
    server.put("namespaces", "shop", namespace("x"));
    let mut followed = follow(server.client(), "n1", Duration::ZERO);
    let of_team = |cluster: &Cluster, team: &str| cluster.namespaces["shop"]["team"] == team;
    until(&mut followed, "the labels", |cluster| of_team(cluster, "x")).await;
    server.put("namespaces", "shop", namespace("y"));
    until(&mut followed, "other labels", |cluster| of_team(cluster, "y")).await;
    server.delete("namespaces", "shop");
    until(&mut followed, "the Namespace to go", |cluster| cluster.namespaces.is_empty()).await;
}

#[tokio::test]
async fn a_server_that_was_away_and_forgot_is_caught_up_with() {
    let mut server = Server::start().await;
    server.put("ippools", "a", pool("10.0.0.0/8"));
    server.put("ippools", "b", pool("192.0.2.0/24"));
    let mut followed = follow(server.client(), "n1", Duration::ZERO);
    until(&mut followed, "the first reading", |c| c.pools.len() == 2).await;
    server.stop().await;
    let told = timeout(DEADLINE, followed.trouble.wait_for(Option::is_some)).await;
    let told = told.expect("the server's absence to be told").unwrap().clone().unwrap();
    assert!(told.starts_with("cannot watch "), "{told}");
    server.delete("ippools", "a");
    server.put("ippools", "c", pool("198.51.100.0/24"));
    server.compact();
    server.start_again().await;
    let reading = until(&mut followed, "the changes made meanwhile", |c| c.pools.contains_key("c")).await;
    assert_eq!(reading.cluster.unwrap().pools.keys().collect::<Vec<_>>(), ["b", "c"]);
    timeout(DEADLINE, followed.trouble.wait_for(Option::is_none)).await.expect("all to be well").unwrap();
}

#[tokio::test]
async fn who_is_not_known_any_more_goes_on_with_what_was_there() {
    let server = Server::start().await;
    server.put("ippools", "a", pool("10.0.0.0/8"));
    let mut followed = follow(server.client(), "n1", Duration::ZERO);
    until(&mut followed, "the first reading", |c| c.pools.len() == 1).await;
    // As with a token that has expired.
    server.refuse(hyper::StatusCode::UNAUTHORIZED);
    let told = timeout(DEADLINE, followed.trouble.wait_for(Option::is_some)).await;
    let told = told.expect("it to be told").unwrap().clone().unwrap();
    assert!(told.contains("401"), "{told}");
    server.put("ippools", "b", pool("192.0.2.0/24"));
    server.welcome();
    let reading = until(&mut followed, "the change made meanwhile", |c| c.pools.contains_key("b")).await;
    assert_eq!(reading.cluster.unwrap().pools.len(), 2);
    timeout(DEADLINE, followed.trouble.wait_for(Option::is_none)).await.expect("all to be well").unwrap();
}

#[tokio::test]
async fn a_node_that_was_deleted_lingers_unless_another_takes_its_place() {
    let server = Server::start().await;
    for index in 1..=3 {
        server.put("nodes", &format!("n{index}"), node(index));
    }
    let linger = Duration::from_secs(2);
    let mut followed = follow(server.client(), "n1", linger);
    until(&mut followed, "all nodes", |cluster| cluster.nodes.len() == 3).await;
    let deleted = Instant::now();
    server.delete("nodes", "n2");
    server.delete("nodes", "n3");
    // The heir of one of them, and something that shows that the deletions were heard.
    server.put("nodes", "heir", node(3));
    let names = |cluster: &Cluster| cluster.nodes.keys().cloned().collect::<Vec<_>>();
    until(&mut followed, "the heir", |cluster| names(cluster) == ["heir", "n1", "n2"]).await;
    until(&mut followed, "the other to go", |cluster| names(cluster) == ["heir", "n1"]).await;
    assert!(deleted.elapsed() >= linger, "it went too soon");
}

fn ranges(ranges: &[&str]) -> Json {
    let ranges: Vec<Json> = ranges.iter().map(|cidr| json!({ "cidr": cidr })).collect();
    json!({"apiVersion": "weft.network/v1alpha1", "kind": "BGPConfiguration", "spec": {"serviceClusterIPs": ranges}})
}

/// A Service, or an EndpointSlice of it with an endpoint on this node.
fn service(address: &str) -> Json {
    json!({"metadata": {"namespace": "shop"}, "spec": {"clusterIPs": [address]}})
}

fn slice(node: &str) -> Json {
    let metadata = json!({"namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}});
    json!({"metadata": metadata, "addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"], "nodeName": node}]})
}

#[tokio::test]
async fn services_are_asked_for_only_while_they_are_announced() {
    let server = Server::start().await;
    server.put("services", "web", service("10.96.0.10"));
    server.put("endpointslices", "web-1", slice("n1"));
    let mut followed = follow(server.client(), "n1", Duration::ZERO);
    until(&mut followed, "the first reading", |c| c.services.is_empty()).await;
    server.put("bgpconfigurations", "node.n2", ranges(&["10.96.0.0/12"]));
    server.put("ippools", "a", pool("10.0.0.0/16"));
    until(&mut followed, "the pool", |c| c.pools.len() == 1 && c.services.is_empty()).await;
    assert!(!server.was_asked_for("services") && !server.was_asked_for("endpointslices"));
    server.put("bgpconfigurations", "node.n1", ranges(&["10.96.0.0/12"]));
    let with = |c: &Cluster| c.configurations.contains_key("node.n1");
    let cluster = until(&mut followed, "the ranges", with).await.cluster.unwrap();
    assert!(cluster.services.contains_key("shop/web"), "not before they are listed");
    assert!(cluster.endpoint_slices["shop/web-1"].ready.nodes.contains("n1"));
    server.put("endpointslices", "web-1", slice("n2"));
    let moved = |c: &Cluster| c.endpoint_slices["shop/web-1"].ready.elsewhere;
    until(&mut followed, "the endpoint to move", moved).await;
    server.delete("services", "web");
    until(&mut followed, "the Service to go", |c| c.services.is_empty()).await;
    server.put("services", "web", service("10.96.0.10"));
    until(&mut followed, "the Service to come", |c| c.services.len() == 1).await;
    server.delete("bgpconfigurations", "node.n1");
    until(&mut followed, "all to go", |c| c.services.is_empty() && c.endpoint_slices.is_empty()).await;
    server.put("bgpconfigurations", "default", ranges(&["10.96.0.0/12"]));
    let again = |c: &Cluster| c.services.len() == 1 && c.endpoint_slices.len() == 1;
    until(&mut followed, "all to come back", again).await;
}

#[tokio::test]
async fn services_that_may_not_be_seen_hold_up_nothing_else() {
    let server = Server::start().await;
    server.forbid("endpointslices");
    server.put("services", "web", service("10.96.0.10"));
    server.put("bgpconfigurations", "default", ranges(&["10.96.0.0/12"]));
    let mut followed = follow(server.client(), "n1", Duration::ZERO);
    let reading = until(&mut followed, "a reading without endpoints", |c| c.services.len() == 1).await;
    let objects: Vec<_> = reading.errors.iter().filter_map(|error| error.object.as_deref()).collect();
    assert_eq!(objects, ["EndpointSlice/*"], "{:?}", reading.errors);
    assert!(reading.errors[0].remedy.contains("manifests/base"), "{:?}", reading.errors);
    server.put("ippools", "a", pool("10.0.0.0/16"));
    until(&mut followed, "the pool", |c| c.pools.len() == 1).await;
    assert_eq!(*followed.trouble.borrow(), None, "the API server is there");
}

#[test]
fn pauses_grow_to_a_bound() {
    let pauses: Vec<Duration> = Pauses::default().take(20).collect();
    assert!(pauses[0] >= FIRST_PAUSE && pauses[0] <= FIRST_PAUSE.mul_f64(1.5), "{pauses:?}");
    assert!(pauses.iter().all(|pause| *pause <= LONGEST_PAUSE.mul_f64(1.5)), "{pauses:?}");
    assert!(pauses[19] >= LONGEST_PAUSE, "{pauses:?}");
}

fn peer_with_password(secret: &str) -> Json {
    let reference = json!({"secretKeyRef": {"name": secret, "key": "password"}});
    let spec =
        json!({"peerIP": "10.0.0.1", "asNumber": 65001, "nodeSelector": "has(tor)", "password": reference});
    json!({"apiVersion": "weft.network/v1alpha1", "kind": "BGPPeer", "spec": spec})
}

fn secret(password: &str) -> Json {
    let data = json!({"password": serde_json::to_value(k8s_openapi::ByteString(password.into())).unwrap()});
    json!({"metadata": {"namespace": "default"}, "type": "Opaque", "data": data})
}

#[tokio::test]
async fn of_secrets_only_those_of_the_nodes_own_sessions_are_asked_for_each_by_its_name() {
    let server = Server::start().await;
    for (name, labels) in [("n1", json!({"tor": ""})), ("n2", json!({}))] {
        server.put("nodes", name, json!({"metadata": {"labels": labels}}));
    }
    server.put("secrets", "tor", secret("first"));
    server.put("secrets", "other", secret("not asked for"));
    server.put("bgppeers", "tor", peer_with_password("tor"));
    let mut others = follow(server.client(), "n2", Duration::ZERO);
    until(&mut others, "the reading of another node", |c| c.peers.len() == 1).await;
    assert!(!server.was_asked_for("secrets"), "by a node that has no such session");
    let mut followed = follow(server.client(), "n1", Duration::ZERO);
    let value = |cluster: &Cluster| {
        assert!(cluster.secrets.keys().all(|name| name == "tor"), "{:?}", cluster.secrets);
        cluster.secrets.get("tor").map(|secret| secret.values["password"].clone())
    };
    let first = until(&mut followed, "the first reading", |_| true).await;
    assert_eq!(value(&first.cluster.unwrap()), Some(b"first".to_vec()), "not before it is listed");
    server.put("secrets", "tor", secret("second"));
    until(&mut followed, "another password", |c| value(c) == Some(b"second".to_vec())).await;
    server.delete("secrets", "tor");
    until(&mut followed, "the Secret to go", |c| c.secrets.is_empty()).await;
    server.put("secrets", "tor", secret("third"));
    until(&mut followed, "the Secret to come", |c| value(c) == Some(b"third".to_vec())).await;
    server.delete("bgppeers", "tor");
    until(&mut followed, "nothing of Secrets to be known", |c| c.peers.is_empty() && c.secrets.is_empty())
        .await;
}

#[tokio::test]
async fn a_secret_that_may_not_be_seen_holds_up_nothing_else() {
    let server = Server::start().await;
    server.forbid("secrets");
    server.put("nodes", "n1", json!({"metadata": {"labels": {"tor": ""}}}));
    server.put("bgppeers", "tor", peer_with_password("tor"));
    let mut followed = follow(server.client(), "n1", Duration::ZERO);
    let reading = until(&mut followed, "a reading without it", |c| c.peers.len() == 1).await;
    let objects: Vec<_> = reading.errors.iter().filter_map(|error| error.object.as_deref()).collect();
    assert_eq!(objects, ["Secret/tor"], "{:?}", reading.errors);
    assert_eq!(*followed.trouble.borrow(), None, "the API server is there");
}
