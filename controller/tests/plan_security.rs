//! Plans and documents of sessions that are protected.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panic, in its helpers too"
)]

use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use weft_bgp::config::{LimitAction, MaxPrefixes, PeerConfig};
use weft_bgp::protection::ao::{Algorithm, NO_TCP_AO};
use weft_bgp::protection::{Authentication, Signature};
use weft_controller::api::json::DocumentError;
use weft_controller::cluster::Cluster;
use weft_controller::documents::{load, validate};
use weft_controller::plan::{HostFacts, InterfaceFacts, NodePlan, plan};

const NODES: &str = r#"
apiVersion: v1
kind: Node
metadata: {name: n1}
spec: {podCIDRs: [10.244.1.0/26]}
status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}
---
apiVersion: v1
kind: Node
metadata: {name: n2, labels: {weft.network/mesh: "false"}}
spec: {podCIDRs: [10.244.2.0/26]}
status: {addresses: [{type: InternalIP, address: 192.0.2.2}]}
---
apiVersion: v1
kind: Node
metadata: {name: n3}
spec: {podCIDRs: [10.244.3.0/26]}
status: {addresses: [{type: InternalIP, address: 192.0.2.3}]}
"#;

/// `data` has "secret one", `stringData` what is written here.
const SECRET: &str = r#"
apiVersion: v1
kind: Secret
metadata: {name: passwords, namespace: weft-system, labels: {a: b}}
type: Opaque
immutable: false
data: {one: c2VjcmV0IG9uZQ==, two: c2VjcmV0IG9uZQ==}
stringData: {two: secret two, empty: "", long: "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", line: "x\n"}
"#;

fn read(documents: &[&str]) -> Result<Cluster, Vec<DocumentError>> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("x.yaml"), documents.join("\n---\n")).expect("a file");
    load(folder.path())
}

fn peer(name: &str, spec: &str) -> String {
    format!("apiVersion: weft.network/v1alpha1\nkind: BGPPeer\nmetadata: {{name: {name}}}\nspec: {{{spec}}}")
}

fn configuration(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: weft.network/v1alpha1\nkind: BGPConfiguration\nmetadata: {{name: {name}}}\nspec: {{{spec}}}"
    )
}

fn with_password(name: &str, address: &str, key: &str) -> String {
    let reference = format!("password: {{secretKeyRef: {{name: passwords, key: {key}}}}}");
    peer(
        name,
        &format!("peerIP: {address}, asNumber: 65001, nodeSelector: has(tor) || !has(tor), {reference}"),
    )
}

fn plan_of(node: &str, documents: &[&str]) -> NodePlan {
    plan_on_kernel(true, node, documents)
}

/// On a kernel that has TCP-AO, or not.
fn plan_on_kernel(tcp_ao: bool, node: &str, documents: &[&str]) -> NodePlan {
    let address = format!("192.0.2.{}/24", &node[1..]).parse().expect("an address");
    let facts = InterfaceFacts { index: 2, addresses: vec![address], mtu: 1500, ..<_>::default() };
    let interfaces = [("eth0".to_owned(), facts)].into();
    let host = HostFacts { interfaces, tcp_ao, ..<_>::default() };
    plan(&read(documents).expect("good documents"), node, &host).expect("a plan")
}

fn of<'a>(plan: &'a NodePlan, address: &str) -> &'a PeerConfig {
    let address: IpAddr = address.parse().expect("an address");
    plan.speaker.peers.get(&address.into()).expect("a peer")
}

fn password_of<'a>(plan: &'a NodePlan, address: &str) -> Option<&'a str> {
    let Signature::Md5(password) = of(plan, address).authentication.signature()? else { return None };
    Some(std::str::from_utf8(password.octets()).expect("a password of these tests"))
}

fn problems<'a>(plan: &'a NodePlan, code: &str) -> Vec<&'a str> {
    plan.diagnostics.iter().filter(|p| p.code == code).map(|p| p.text.as_str()).collect()
}

/// The only error of these documents: its field, and all its words.
fn error(documents: &[&str]) -> (String, String) {
    let mut errors = read(documents).expect_err("an error");
    assert_eq!(errors.len(), 1, "{errors:#?}");
    let error = errors.remove(0);
    (error.field.clone().unwrap_or_default(), error.to_string())
}

#[test]
fn a_password_comes_from_data_or_string_data_of_a_secret() {
    let peers = [with_password("a", "192.0.2.101", "one"), with_password("b", "192.0.2.102", "two")];
    let plan = plan_of("n1", &[NODES, SECRET, &peers[0], &peers[1]]);
    assert_eq!(password_of(&plan, "192.0.2.101"), Some("secret one"));
    assert_eq!(password_of(&plan, "192.0.2.102"), Some("secret two"), "stringData is written over data");
    assert_eq!(of(&plan, "192.0.2.3").authentication, Authentication::None, "the mesh has its own");
    assert!(problems(&plan, "no-password").is_empty());
    let shown = format!("{plan:?} {:?}", read(&[NODES, SECRET]));
    assert!(!shown.contains("secret one") && !shown.contains("115, 101"), "a password is shown");
}

#[test]
fn a_password_that_is_not_to_be_had_keeps_that_session_down_and_says_why() {
    for (key, why) in [
        ("three", "the Secret passwords has no three: it has empty, line, long, one, two"),
        ("empty", "the password empty of the Secret passwords is empty"),
        ("long", "the password long of the Secret passwords has 81 octets, and the kernel takes 80 at most"),
        (
            "line",
            "the password line of the Secret passwords ends with a line break, which is no part of a password",
        ),
    ] {
        let peers = [with_password("bad", "192.0.2.101", key), with_password("good", "192.0.2.102", "one")];
        let plan = plan_of("n1", &[NODES, SECRET, &peers[0], &peers[1]]);
        let unavailable = Authentication::Unavailable(why.into());
        assert_eq!(of(&plan, "192.0.2.101").authentication, unavailable);
        assert!(of(&plan, "192.0.2.101").stays_down() && !of(&plan, "192.0.2.102").stays_down());
        let text = format!("BGPPeer bad has no password, and its sessions stay down: {why}");
        assert_eq!(problems(&plan, "no-password"), [text]);
    }
    let plan = plan_of("n1", &[NODES, &with_password("bad", "192.0.2.101", "one")]);
    assert!(problems(&plan, "no-password")[0].ends_with("there is no Secret passwords that weftd may read"));
}

/// weftd takes such a folder and keeps the session down; who asks beforehand is told.
#[test]
fn a_password_that_is_not_to_be_had_is_told_beforehand() {
    let bad = with_password("bad", "192.0.2.101", "none");
    let mesh = configuration("default", "nodeMeshPassword: {secretKeyRef: {name: nowhere, key: mesh}}");
    assert!(read(&[NODES, SECRET, &bad, &mesh]).is_ok());
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("x.yaml"), [NODES, SECRET, &bad, &mesh].join("\n---\n")).expect("a file");
    let errors = validate(folder.path());
    let found: Vec<_> = errors.iter().map(|error| (error.field.as_deref(), error.message.as_str())).collect();
    let [(key, no_key), (name, no_secret)] = found.as_slice() else { panic!("{errors:#?}") };
    assert_eq!(
        (*key, *name),
        (Some("spec.password.secretKeyRef.key"), Some("spec.nodeMeshPassword.secretKeyRef.name"))
    );
    assert!(no_key.starts_with("the Secret passwords has no none: it has "), "{no_key}");
    assert_eq!(*no_secret, "there is no Secret nowhere");
}

#[test]
fn the_mesh_has_one_password() {
    let reference = "nodeMeshPassword: {secretKeyRef: {name: passwords, key: one}}";
    let default = configuration("default", reference);
    let tor = peer("tor", "peerIP: 192.0.2.101, asNumber: 65001");
    let plan = plan_of("n1", &[NODES, SECRET, &default, &tor]);
    assert_eq!(password_of(&plan, "192.0.2.3"), Some("secret one"));
    assert_eq!(password_of(&plan, "192.0.2.101"), None, "of a BGPPeer it says nothing");
    let plan = plan_of("n1", &[NODES, &default]);
    let said = problems(&plan, "no-password");
    assert!(said.len() == 1 && said[0].starts_with("the node-to-node mesh has no password"), "{said:?}");
}

#[test]
fn what_is_wrong_with_a_secret_is_said_without_its_values() {
    let secret = |fields: &str| format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: s}}\n{fields}");
    for (fields, field, message) in [
        ("data: {key: hunter2!}", "data.key", "the value is not base64; write it in base64"),
        ("data: hunter2", "data", "data is not a mapping"),
        ("stringData: {key: [hunter2]}", "stringData.key", "the value is not text"),
        ("stringData: [hunter2]", "stringData", "stringData is not a mapping"),
    ] {
        let (at, text) = error(&[NODES, &secret(fields)]);
        assert_eq!(at, field);
        assert!(text.contains(message) && !text.contains("hunter2"), "{text}");
    }
}

#[test]
fn references_to_secrets_are_checked() {
    let wrong =
        peer("a", "peerIP: 192.0.2.101, asNumber: 65001, password: {secretKeyRef: {name: A_b, key: one}}");
    let (field, text) = error(&[NODES, &wrong]);
    assert_eq!(field, "spec.password.secretKeyRef.name");
    assert!(text.contains("\"A_b\" is not the name of a Secret"), "{text}");
    let wrong = configuration("default", "nodeMeshPassword: {secretKeyRef: {name: a, key: a/b}}");
    let (field, text) = error(&[NODES, &wrong]);
    assert_eq!(field, "spec.nodeMeshPassword.secretKeyRef.key");
    assert!(text.contains("is not a key of a Secret"), "{text}");
    let wrong = peer("a", "peerIP: 192.0.2.101, asNumber: 65001, password: hunter2");
    let (field, text) = error(&[NODES, &wrong]);
    assert_eq!(field, "spec.password");
    assert!(text.contains("the password itself is not written here") && !text.contains("hunter2"), "{text}");
}

#[test]
fn ttl_security_is_that_of_the_peer() {
    let peers = [
        peer("near", "peerIP: 192.0.2.101, asNumber: 65001, ttlSecurity: 1"),
        peer("far", "peerIP: 192.0.2.102, asNumber: 65001"),
        peer("farther", "peerIP: 192.0.2.103, asNumber: 65001, ttlSecurity: 2"),
    ];
    let plan = plan_of("n1", &[NODES, &peers[0], &peers[1], &peers[2]]);
    let hops = |address| of(&plan, address).ttl_security.map(u8::from);
    assert_eq!((hops("192.0.2.101"), hops("192.0.2.102"), hops("192.0.2.3")), (Some(1), None, None));
    let behind_a_gateway = ["192.0.2.101", "192.0.2.102", "192.0.2.103"].map(|p| of(&plan, p).ebgp_multihop);
    assert_eq!(behind_a_gateway, [false, false, true], "where next hops may be");
    let nodes = plan_of("n1", &[NODES, &peer("nodes", "peerSelector: has(x) || !has(x), ttlSecurity: 2")]);
    assert_eq!(of(&nodes, "192.0.2.3").ttl_security.map(u8::from), Some(2));
}

#[test]
fn ttl_security_is_for_1_to_254_hops_and_not_for_a_peer_at_any_distance() {
    for (spec, message, remedy) in [
        ("peerIP: 192.0.2.101, ebgpMultihop: true, ttlSecurity: 2", "both given", "number of hops"),
        (
            "peerIP: 192.0.2.101, ttlSecurity: 255",
            "255 hops cannot be told from no limit",
            "1 (on the link) to 254",
        ),
        ("peerIP: 192.0.2.101, ttlSecurity: 0", "invalid value: integer \"0\"", "write 1 to 254"),
        ("interface: eth0, ttlSecurity: 2", "one hop away", "write 1"),
    ] {
        let (field, text) = error(&[NODES, &peer("p", &format!("{spec}, asNumber: 65001"))]);
        assert_eq!(field, "spec.ttlSecurity");
        assert!(text.contains(message) && text.contains(remedy), "{text}");
    }
}

/// Bug class 53 (a2ae427708, FRR): the percentage of a limit on prefixes overflows.
#[test]
fn a_limit_on_prefixes_warns_at_three_quarters_and_stops_unless_told_otherwise() {
    for (spec, want) in [
        ("limit: 10", MaxPrefixes { limit: 10, warning: 8, action: LimitAction::Stop }),
        ("limit: 1, action: Warn", MaxPrefixes { limit: 1, warning: 1, action: LimitAction::Warn }),
        (
            "limit: 4294967295, warningThreshold: 100, action: Restart, restartAfter: 5m",
            MaxPrefixes {
                limit: u32::MAX,
                warning: u32::MAX,
                action: LimitAction::Restart(Duration::from_secs(300)),
            },
        ),
    ] {
        let limited = peer("p", &format!("peerIP: 192.0.2.101, asNumber: 65001, maxPrefixes: {{{spec}}}"));
        let plan = plan_of("n1", &[NODES, &limited]);
        assert_eq!(of(&plan, "192.0.2.101").max_prefixes, Some(want));
        assert_eq!(of(&plan, "192.0.2.3").max_prefixes, None);
        let mesh = configuration("default", &format!("nodeMeshMaxPrefixes: {{{spec}}}"));
        let unlimited = peer("p", "peerIP: 192.0.2.101, asNumber: 65001");
        let plan = plan_of("n1", &[NODES, &mesh, &unlimited]);
        assert_eq!(of(&plan, "192.0.2.3").max_prefixes, Some(want));
        assert_eq!(of(&plan, "192.0.2.101").max_prefixes, None);
        let own = configuration("node.n1", "nodeMeshMaxPrefixes: {limit: 7}");
        let plan = plan_of("n1", &[NODES, &mesh, &own]);
        assert_eq!(of(&plan, "192.0.2.3").max_prefixes.map(|max| max.limit), Some(7));
    }
}

#[test]
fn a_limit_on_prefixes_makes_sense() {
    for (spec, field, message) in [
        ("limit: 0", "limit", "invalid value: integer \"0\""),
        ("action: Warn", "limit", "missing field"),
        ("limit: 10, warningThreshold: 101", "warningThreshold", "write 1 to 100"),
        ("limit: 10, warningThreshold: 0", "warningThreshold", "write 1 to 100"),
        ("limit: 10, action: Drop", "action", "unknown variant"),
        ("limit: 10, action: Restart", "restartAfter", "restartAfter is missing"),
        ("limit: 10, action: Restart, restartAfter: 10ms", "restartAfter", "write 1s to 24h"),
        ("limit: 10, action: Restart, restartAfter: 25h", "restartAfter", "write 1s to 24h"),
        ("limit: 10, restartAfter: 5m", "restartAfter", "without action: Restart"),
    ] {
        let limited = peer("p", &format!("peerIP: 192.0.2.101, asNumber: 65001, maxPrefixes: {{{spec}}}"));
        let (at, text) = error(&[NODES, &limited]);
        assert_eq!(at, format!("spec.maxPrefixes.{field}"));
        assert!(text.contains(message), "{text}");
        let mesh = configuration("default", &format!("nodeMeshMaxPrefixes: {{{spec}}}"));
        let (at, text) = error(&[NODES, &mesh]);
        assert_eq!(at, format!("spec.nodeMeshMaxPrefixes.{field}"));
        assert!(text.contains(message), "{text}");
    }
}

/// A key of `tcpAO`: its two IDs, and the key of the Secret.
fn key((send, receive, key): (u8, u8, &str)) -> String {
    format!("{{sendID: {send}, receiveID: {receive}, secretKeyRef: {{name: passwords, key: {key}}}}}")
}

fn with_keys(name: &str, address: &str, keys: &[(u8, u8, &str)]) -> String {
    let keys = keys.iter().map(|k| key(*k)).collect::<Vec<_>>().join(", ");
    peer(name, &format!("peerIP: {address}, asNumber: 65001, tcpAO: {{keys: [{keys}]}}"))
}

/// `1/2 secret`, of each key.
fn keys_of(plan: &NodePlan, address: &str) -> Vec<String> {
    let Some(Signature::Ao(keys)) = of(plan, address).authentication.signature() else { return Vec::new() };
    let text = |key: &weft_bgp::protection::ao::Key| {
        let secret = String::from_utf8_lossy(key.secret.octets());
        format!("{}/{} {secret}", key.send_id, key.receive_id)
    };
    keys.iter().map(text).collect()
}

#[test]
fn keys_of_tcp_ao_come_from_secrets_in_their_order() {
    let tor = with_keys("tor", "192.0.2.101", &[(7, 8, "two"), (1, 1, "one")]);
    let plan = plan_of("n1", &[NODES, SECRET, &tor]);
    assert_eq!(keys_of(&plan, "192.0.2.101"), ["7/8 secret two", "1/1 secret one"]);
    assert!(problems(&plan, "no-password").is_empty() && !of(&plan, "192.0.2.101").stays_down());
    let aes = tor.replacen("sendID", "algorithm: AES-128-CMAC-96, sendID", 1);
    let plan = plan_of("n1", &[NODES, SECRET, &aes]);
    let Some(Signature::Ao(keys)) = of(&plan, "192.0.2.101").authentication.signature() else {
        panic!("no keys")
    };
    let algorithms: Vec<_> = keys.iter().map(|key| key.algorithm).collect();
    assert_eq!(algorithms, [Algorithm::AesCmac, Algorithm::HmacSha1]);
    let shown = format!("{plan:?}");
    assert!(!shown.contains("secret two") && !shown.contains("115, 101"), "a key is shown");
}

#[test]
fn keys_of_tcp_ao_that_are_not_to_be_had_keep_the_session_down_and_say_why() {
    let why = "the Secret passwords has no three: it has empty, line, long, one, two";
    let tor = with_keys("tor", "192.0.2.101", &[(2, 2, "three")]);
    let plan = plan_of("n1", &[NODES, SECRET, &tor]);
    assert!(of(&plan, "192.0.2.101").stays_down());
    let text = format!("BGPPeer tor has no TCP-AO keys, and its sessions stay down: {why}");
    assert_eq!(problems(&plan, "no-password"), [text]);
    let tor = with_keys("tor", "192.0.2.101", &[(1, 1, "one"), (2, 2, "three")]);
    let plan = plan_of("n1", &[NODES, SECRET, &tor]);
    assert_eq!(keys_of(&plan, "192.0.2.101"), ["1/1 secret one"], "it goes on with what is there");
    let text = format!("BGPPeer tor goes without 1 of its TCP-AO keys: {why}");
    assert_eq!(problems(&plan, "no-password"), [text]);
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("x.yaml"), [NODES, SECRET, &tor].join("\n---\n")).expect("a file");
    let errors = validate(folder.path());
    let found: Vec<_> = errors.iter().map(|error| error.field.as_deref()).collect();
    assert_eq!(found, [Some("spec.tcpAO.keys[1].secretKeyRef.key")]);
}

#[test]
fn a_kernel_without_tcp_ao_keeps_the_session_down_and_says_why() {
    let tor = with_keys("tor", "192.0.2.101", &[(1, 1, "one")]);
    let plan = plan_on_kernel(false, "n1", &[NODES, SECRET, &tor]);
    assert_eq!(of(&plan, "192.0.2.101").authentication, Authentication::Unavailable(NO_TCP_AO.into()));
    let text = format!("BGPPeer tor wants TCP-AO, and its sessions stay down: {NO_TCP_AO}");
    assert_eq!(problems(&plan, "no-tcp-ao"), [text]);
}

#[test]
fn the_mesh_has_keys_of_tcp_ao() {
    let keys = format!("nodeMeshTCPAO: {{keys: [{}]}}", key((3, 3, "one")));
    let plan = plan_of("n1", &[NODES, SECRET, &configuration("default", &keys)]);
    assert_eq!(keys_of(&plan, "192.0.2.3"), ["3/3 secret one"]);
}

#[test]
fn keys_of_tcp_ao_are_checked() {
    let keys = |keys: &[(u8, u8, &str)]| keys.iter().map(|k| key(*k)).collect::<Vec<_>>().join(", ");
    let many: Vec<_> = (0..9).map(|n| (n, n, "one")).collect();
    let reference = "{secretKeyRef: {name: passwords, key: one}}";
    for (document, field, message) in [
        (with_keys("a", "192.0.2.101", &[]), "spec.tcpAO.keys", "there are 0 keys; write 1 to 8 keys"),
        (with_keys("a", "192.0.2.101", &many), "spec.tcpAO.keys", "there are 9 keys; write 1 to 8 keys"),
        (
            with_keys("a", "192.0.2.101", &[(1, 1, "one"), (1, 2, "two")]),
            "spec.tcpAO.keys[1].sendID",
            "another key has the sendID 1 already",
        ),
        (
            with_keys("a", "192.0.2.101", &[(1, 1, "one"), (2, 1, "two")]),
            "spec.tcpAO.keys[1].receiveID",
            "another key has the receiveID 1 already",
        ),
        (
            with_keys("a", "192.0.2.101", &[(1, 1, "a/b")]),
            "spec.tcpAO.keys[0].secretKeyRef.key",
            "is not a key of a Secret",
        ),
        (
            peer(
                "a",
                &format!(
                    "peerIP: 192.0.2.101, asNumber: 65001, password: {reference}, tcpAO: {{keys: [{}]}}",
                    keys(&[(1, 1, "one")])
                ),
            ),
            "spec.tcpAO",
            "password and tcpAO are both given; keep one of the two",
        ),
        (
            peer("a", &format!("peerSelector: all(), tcpAO: {{keys: [{}]}}", keys(&[(1, 2, "one")]))),
            "spec.tcpAO.keys[0].receiveID",
            "the sendID 1 and the receiveID 2 differ: the node at the other end has the same keys, and signs with 1 too; write 1",
        ),
        (
            configuration("default", &format!("nodeMeshTCPAO: {{keys: [{}]}}", keys(&[(1, 2, "one")]))),
            "spec.nodeMeshTCPAO.keys[0].receiveID",
            "the sendID 1 and the receiveID 2 differ",
        ),
        (
            configuration(
                "default",
                &format!(
                    "nodeMeshPassword: {reference}, nodeMeshTCPAO: {{keys: [{}]}}",
                    keys(&[(1, 1, "one")])
                ),
            ),
            "spec.nodeMeshTCPAO",
            "nodeMeshPassword and nodeMeshTCPAO are both given",
        ),
        (
            configuration("node.n1", &format!("nodeMeshTCPAO: {{keys: [{}]}}", keys(&[(1, 1, "one")]))),
            "spec.nodeMeshTCPAO",
            "nodeMeshTCPAO is for all nodes alike",
        ),
        (
            with_keys("a", "192.0.2.101", &[(1, 1, "one")]).replace("sendID: 1", "sendID: 256"),
            "spec.tcpAO.keys[0].sendID",
            "256",
        ),
        (
            with_keys("a", "192.0.2.101", &[(1, 1, "one")]).replace("sendID", "algorithm: MD5, sendID"),
            "spec.tcpAO.keys[0].algorithm",
            "HMAC-SHA-1-96",
        ),
    ] {
        let (at, text) = error(&[NODES, &document]);
        assert_eq!(at, field, "{text}");
        assert!(text.contains(message), "{text}");
    }
}
