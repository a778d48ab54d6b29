//! The plugin as one of a chain, and its commands in every version of the specification: in real network namespaces, as
//! root; nothing in the initial namespace changes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failing helper fails its test"
)]

mod common;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use common::{Host, Namespace, addresses, outcome};
use serde_json::{Value, json};

/// Where the package containernetworking-plugins has its programs.
const REFERENCE: &str = "/usr/lib/cni";
const VERSIONS: [&str; 4] = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"];

fn host() -> Host {
    Host::new("10.244.1.0/26", "fd00:10:244:1::/122")
}

fn config(host: &Host, version: &str) -> Value {
    let mut config = host.config();
    config["cniVersion"] = json!(version);
    config
}

#[test]
fn a_result_says_all_that_its_version_knows_and_no_more() {
    let host = host();
    for version in VERSIONS {
        let pod = Namespace::new();
        let netns = pod.path.to_str().unwrap();
        let result = host.call("ADD", "c1", netns, &config(&host, version)).unwrap();
        let entry = host.entries().remove(0);
        let mac = weft_cni::mac::to_text(entry.mac);
        let mut interfaces = json!([
            {"name": entry.host_link, "mac": "ee:ee:ee:ee:ee:ee"},
            {"name": "eth0", "mac": mac, "sandbox": netns},
        ]);
        let mut ips = json!([
            {"address": format!("{}/32", entry.addresses[0]), "gateway": "169.254.1.1", "interface": 1},
            {"address": format!("{}/128", entry.addresses[1]), "gateway": "fe80::1", "interface": 1},
        ]);
        if version < "1.0.0" {
            ips[0]["version"] = json!("4");
            ips[1]["version"] = json!("6");
        }
        if version >= "1.1.0" {
            interfaces[0]["mtu"] = json!(1450);
            interfaces[1]["mtu"] = json!(1450);
        }
        let routes = json!([{"dst": "0.0.0.0/0", "gw": "169.254.1.1"}, {"dst": "::/0", "gw": "fe80::1"}]);
        let expected =
            json!({"cniVersion": version, "interfaces": interfaces, "ips": ips, "routes": routes, "dns": {}});
        assert_eq!(result, expected);
        host.del("c1").unwrap();
    }
    host.assert_empty();
}

#[test]
fn an_error_is_written_in_the_version_of_the_configuration() {
    let (host, pod) = (host(), Namespace::new());
    for version in VERSIONS {
        let mut config = config(&host, version);
        config["mtu"] = json!("large");
        let error = host.call("ADD", "c1", pod.path.to_str().unwrap(), &config).unwrap_err();
        assert_eq!(
            (error["cniVersion"].clone(), error["code"].clone()),
            (json!(version), json!(7)),
            "{error}"
        );
        assert!(error["msg"].as_str().unwrap().starts_with("mtu: "), "{error}");
        let error = host.call("ADD", "c1", "", &config).unwrap_err();
        assert_eq!(
            (error["cniVersion"].clone(), error["code"].clone()),
            (json!(version), json!(4)),
            "{error}"
        );
        assert_eq!(error["msg"], "CNI_NETNS is not set");
    }
    host.assert_empty();
}

#[test]
fn what_earlier_plugins_answered_is_passed_on() {
    let host = host();
    for version in VERSIONS {
        let pod = Namespace::new();
        let netns = pod.path.to_str().unwrap();
        let earlier = json!({
            "interfaces": [{"name": "lo", "mac": "00:00:00:00:00:00", "sandbox": netns, "unknown": true}],
            "ips": [{"version": "4", "address": "127.0.0.1/8", "interface": 0}],
            "routes": [{"dst": "198.51.100.0/24", "priority": 7}],
            "dns": {"nameservers": ["192.0.2.53"]},
            "unknown": {"kept": [1, null]},
        });
        let mut config = config(&host, version);
        config["prevResult"] = earlier.clone();
        let result = host.call("ADD", "c1", netns, &config).unwrap();
        for key in ["interfaces", "ips", "routes"] {
            assert_eq!(result[key][0], earlier[key][0], "{version} {key}");
        }
        assert_eq!((&result["dns"], &result["unknown"]), (&earlier["dns"], &earlier["unknown"]));
        assert_eq!(result["interfaces"].as_array().unwrap().len(), 3);
        assert_eq!(result["interfaces"][2]["name"], "eth0");
        assert_eq!(result["ips"][1]["interface"], 2, "{version}");
        assert_eq!(result["routes"].as_array().unwrap().len(), 3);
        host.del("c1").unwrap();
    }

    let pod = Namespace::new();
    for (previous, expected) in [
        (json!("x"), "prevResult: \"x\" is no object"),
        (json!({"cniVersion": "0.4.0"}), "prevResult: its cniVersion is \"0.4.0\""),
        (json!({"routes": {}}), "prevResult: its \"routes\" is no list"),
    ] {
        let mut config = host.config();
        config["prevResult"] = previous;
        let error = host.call("ADD", "c1", pod.path.to_str().unwrap(), &config).unwrap_err();
        assert_eq!(error["code"], 7, "{error}");
        assert!(error["msg"].as_str().unwrap().starts_with(expected), "{error}");
    }
    host.assert_empty();
}

/// Runs a reference plugin (Debian's containernetworking-plugins) behind weft-cni.
fn call_reference(host: &Host, plugin: &str, command: &str, netns: &str, config: &Value) -> Value {
    let path = Path::new(REFERENCE).join(plugin);
    let mut process = Command::new(path);
    process
        .env_clear()
        .envs([("CNI_COMMAND", command), ("CNI_CONTAINERID", "c1"), ("CNI_NETNS", netns)])
        .envs([("CNI_IFNAME", "eth0"), ("CNI_PATH", REFERENCE)])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = host.namespace.run(|| process.spawn()).unwrap();
    child.stdin.take().unwrap().write_all(config.to_string().as_bytes()).unwrap();
    outcome(child).unwrap_or_else(|error| panic!("{plugin} {command}: {error}"))
}

#[test]
fn reference_plugins_understand_the_result_and_what_they_make_of_it_comes_back() {
    let is_there = Path::new(REFERENCE).join("tuning").exists();
    assert!(
        is_there,
        "{REFERENCE}/tuning is missing: make test installs it (package containernetworking-plugins)"
    );
    let host = host();
    // Debian 12's do not speak 1.1.0.
    for version in ["0.3.1", "0.4.0", "1.0.0"] {
        let pod = Namespace::new();
        let netns = pod.path.to_str().unwrap();
        let mut own = config(&host, version);
        let result = host.call("ADD", "c1", netns, &own).unwrap();
        let mut tuning = json!({
            "cniVersion": version, "name": "weft", "type": "tuning",
            "sysctl": {"net.ipv4.conf.eth0.arp_notify": "1"}, "prevResult": result,
        });
        let passed_on = call_reference(&host, "tuning", "ADD", netns, &tuning);
        assert_eq!(passed_on, result, "{version}");
        let bandwidth = json!({
            "cniVersion": version, "name": "weft", "type": "bandwidth",
            "ingressRate": 1_000_000_000, "ingressBurst": 1_000_000, "prevResult": passed_on,
        });
        // It adds an interface of its own on the host, for the other direction.
        let last = call_reference(&host, "bandwidth", "ADD", netns, &bandwidth);
        for address in addresses(&result) {
            common::one_datagram_each_way(&host.namespace, &pod, address);
        }
        own["prevResult"] = last.clone();
        if version != "0.3.1" {
            host.call("CHECK", "c1", netns, &own).unwrap();
        }
        call_reference(&host, "bandwidth", "DEL", netns, &bandwidth);
        tuning["prevResult"] = last;
        call_reference(&host, "tuning", "DEL", netns, &tuning);
        host.call("DEL", "c1", netns, &own).unwrap();
        host.assert_empty();
    }
}

#[test]
fn keys_of_others_and_of_the_runtime_are_no_obstacle() {
    let (host, pod) = (host(), Namespace::new());
    let mut config = host.config();
    config["capabilities"] = json!({"portMappings": true, "bandwidth": true, "ips": true, "dns": true});
    config["runtimeConfig"] = json!({
        "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}],
        "bandwidth": {"ingressRate": 1000},
        "io.kubernetes.cri.pod-annotations": {"example.org/note": "x"},
    });
    config["args"] = json!({"labels": [1], "cni": {"labels": [{"key": "app", "value": "web"}]}});
    config["dns"] = json!({"nameservers": ["192.0.2.53"], "search": ["cluster.local"]});
    config["cni.dev/unknown"] = json!(1);
    config["somebody.else/key"] = json!({"deep": {"er": null}});
    let result = host.call("ADD", "c1", pod.path.to_str().unwrap(), &config).unwrap();
    assert_eq!(result["dns"], config["dns"]);
    // What a later plugin changed, and what it added, comes back.
    config["prevResult"] = result;
    host.call("CHECK", "c1", pod.path.to_str().unwrap(), &config).unwrap();
    host.call("DEL", "c1", pod.path.to_str().unwrap(), &config).unwrap();
    host.assert_empty();
}

#[test]
fn del_succeeds_whatever_else_is_gone_or_wrong() {
    let host = host();
    let wrong = |key: &str, value: Value| {
        let mut config = host.config();
        config[key] = value;
        config
    };
    let cases = [
        ("no prevResult", host.config()),
        ("a prevResult of nobody's", wrong("prevResult", json!({"cniVersion": "0.1.0", "ips": 7}))),
        ("an older version", config(&host, "0.3.1")),
        ("a newer version", config(&host, "1.1.0")),
        ("values that ADD would refuse", wrong("runtimeConfig", json!({"ips": ["x"]}))),
        ("an MTU that ADD would refuse", wrong("mtu", json!("x"))),
        ("a pool that is gone", wrong("pools", json!(["gone"]))),
    ];
    for (what, config) in cases {
        let pod = Namespace::new();
        let netns = pod.path.to_str().unwrap().to_owned();
        host.add("c1", &pod).unwrap();
        // With its namespace, as the last one is gone too.
        host.call("DEL", "c1", &netns, &config).unwrap_or_else(|error| panic!("{what}: {error}"));
        host.assert_empty();
        assert_eq!(pod.links(), [] as [String; 0], "{what}");
        drop(pod);
        host.call("DEL", "c1", &netns, &config).unwrap_or_else(|error| panic!("{what}, twice: {error}"));
        host.call("DEL", "c1", "", &config).unwrap_or_else(|error| panic!("{what}, no namespace: {error}"));
    }

    // The namespace goes first, and the link with it.
    let pod = Namespace::new();
    let netns = pod.path.to_str().unwrap().to_owned();
    host.add("c1", &pod).unwrap();
    drop(pod);
    host.call("DEL", "c1", &netns, &host.config()).unwrap();
    host.await_no_link();
    host.assert_empty();

    // What CNI_ARGS says is of no concern either.
    let pod = Namespace::new();
    host.add("c1", &pod).unwrap();
    outcome(host.spawn_with_args("DEL", "c1", "", &host.config(), "X;IP=x")).unwrap();
    host.assert_empty();
}

#[test]
fn arguments_name_the_pod_and_unknown_ones_pass_only_if_told_so() {
    let (host, pod) = (host(), Namespace::new());
    let add = |args: &str| {
        outcome(host.spawn_with_args("ADD", "c1", pod.path.to_str().unwrap(), &host.config(), args))
    };
    for (args, expected) in [
        ("FOO=bar", "CNI_ARGS: FOO is not known"),
        ("IgnoreUnknown=0;FOO=bar", "CNI_ARGS: FOO is not known"),
        ("FOO", "CNI_ARGS: \"FOO\" is not KEY=value"),
        ("MAC=01:00:5e:00:00:01", "CNI_ARGS: MAC: \"01:00:5e:00:00:01\" is a multicast address"),
    ] {
        let error = add(args).unwrap_err();
        assert_eq!(error["code"], 4, "{error}");
        assert!(error["msg"].as_str().unwrap().starts_with(expected), "{error}");
    }
    host.assert_empty();
    add("IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=c1;FOO=bar")
        .unwrap();
    let named = host.entries().remove(0).pod.unwrap();
    assert_eq!((named.namespace.as_str(), named.name.as_str()), ("shop", "web-0"));
    host.del("c1").unwrap();
}

#[test]
fn a_mac_address_that_is_asked_for_is_had_and_two_may_not_contradict() {
    let (host, pod) = (host(), Namespace::new());
    let mut config = host.config();
    config["runtimeConfig"] = json!({"mac": "0a:58:0a:00:00:05"});
    let netns = pod.path.to_str().unwrap();
    let error =
        outcome(host.spawn_with_args("ADD", "c1", netns, &config, "MAC=0a:58:0a:00:00:06")).unwrap_err();
    let expected = "runtimeConfig.mac: 0a:58:0a:00:00:05 contradicts CNI_ARGS MAC: 0a:58:0a:00:00:06; only one of \
                    them may be given";
    assert_eq!((error["code"].clone(), error["msg"].clone()), (json!(7), json!(expected)));
    host.assert_empty();
    let result = outcome(host.spawn_with_args("ADD", "c1", netns, &config, "MAC=0a:58:0a:00:00:05")).unwrap();
    assert_eq!(result["interfaces"][1]["mac"], "0a:58:0a:00:00:05");
    let eth0 = pod.socket().link_by_name(&"eth0".parse().unwrap()).unwrap().unwrap();
    assert_eq!(eth0.mac, Some([0x0a, 0x58, 0x0a, 0, 0, 5]));
    for address in addresses(&result) {
        common::one_datagram_each_way(&host.namespace, &pod, address);
    }
    host.check("c1", &pod, &result).unwrap();
}
