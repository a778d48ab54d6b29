//! CHECK in real network namespaces, through the built plugin: each thing is broken alone, and CHECK says just that.
//! Needs root and `ip`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failing helper fails its test"
)]

mod common;

use std::process::Command;

use common::{Host, Namespace, addresses};
use serde_json::{Value, json};
use weft_routing::sysctl;

/// A node with one pod, which is as it should be.
struct Pod {
    host: Host,
    namespace: Namespace,
    result: Value,
    /// What stands for names and addresses in commands and faults.
    words: Vec<(&'static str, String)>,
}

impl Pod {
    fn new() -> Self {
        let host = Host::new("10.244.1.0/26", "fd00:10:244:1::/122");
        let namespace = Namespace::new();
        let result = host.call("ADD", "c1", namespace.path.to_str().unwrap(), &config(&host)).unwrap();
        let ips = addresses(&result);
        let words = vec![
            ("LINK", host.namespace.links().remove(0)),
            ("IPV4", ips[0].to_string()),
            ("IPV6", ips[1].to_string()),
            ("PODMAC", result["interfaces"][1]["mac"].as_str().unwrap().to_owned()),
        ];
        let pod = Self { host, namespace, result, words };
        assert_eq!(pod.faults(&pod.result), [] as [String; 0]);
        pod
    }

    fn fill_in(&self, text: &str) -> String {
        self.words.iter().fold(text.to_owned(), |text, (word, value)| text.replace(word, value))
    }

    /// Carries out commands, one a line: of `ip`, or `sysctl KEY VALUE`.
    fn break_in(&self, namespace: &Namespace, commands: &str) {
        for command in self.fill_in(commands).split('\n') {
            let words: Vec<&str> = command.split_whitespace().collect();
            if let ["sysctl", key, value] = words.as_slice() {
                namespace.run(|| sysctl::write(key, value)).unwrap();
                continue;
            }
            let output = namespace.run(|| Command::new("ip").args(&words).output()).unwrap();
            assert!(output.status.success(), "ip {command}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }

    /// What CHECK says.
    fn faults(&self, previous: &Value) -> Vec<String> {
        let mut config = config(&self.host);
        config["prevResult"] = previous.clone();
        match self.host.call("CHECK", "c1", self.namespace.path.to_str().unwrap(), &config) {
            Ok(answer) => {
                assert_eq!(answer, Value::Null, "a success says nothing");
                Vec::new()
            }
            Err(error) => {
                assert_eq!(error["code"], 102, "{error}");
                assert_eq!(
                    error["msg"],
                    "interface eth0 of container c1 in network weft is not as ADD left it"
                );
                error["details"].as_str().unwrap().split("; ").map(str::to_owned).collect()
            }
        }
    }
}

fn config(host: &Host) -> Value {
    let mut config = host.config();
    config["cniVersion"] = json!("1.1.0");
    config
}

/// Breaks a pod, or its host, by each of the commands, and expects each of the faults and no other.
fn assert_told(where_to_break: impl Fn(&Pod) -> &Namespace, cases: &[(&str, &[&str])]) {
    for (commands, expected) in cases {
        let pod = Pod::new();
        pod.break_in(where_to_break(&pod), commands);
        let expected: Vec<String> = expected.iter().map(|fault| pod.fill_in(fault)).collect();
        assert_eq!(pod.faults(&pod.result), expected, "{commands}");
    }
}

#[test]
fn each_fault_of_the_pods_end() {
    assert_told(
        |pod| &pod.namespace,
        &[
            ("link set lo down", &["lo in the pod is down"]),
            // Makes packets that the host's end would have taken, and smaller ones than it could.
            ("link set eth0 mtu 1400", &["eth0 in the pod has MTU 1400 instead of 1450"]),
            (
                "link set eth0 address 02:00:00:00:00:09",
                &[
                    "eth0 in the pod has MAC address 02:00:00:00:00:09 instead of PODMAC",
                    // The kernel forgets them with the old MAC address.
                    "eth0 in the pod has no permanent neighbour 169.254.1.1",
                    "eth0 in the pod has no permanent neighbour fe80::1",
                ],
            ),
            ("link set eth0 down\nlink set eth0 name other0", &["there is no link eth0 in the pod"]),
            (
                "sysctl net/ipv6/conf/lo/disable_ipv6 1",
                &["net/ipv6/conf/lo/disable_ipv6 in the pod is 1 instead of 0"],
            ),
            (
                "sysctl net/ipv6/conf/eth0/accept_ra 1",
                &["net/ipv6/conf/eth0/accept_ra in the pod is 1 instead of 0"],
            ),
        ],
    );
}

#[test]
fn each_fault_of_the_pods_addresses() {
    // With its last IPv4 address a link loses its IPv4 routes and neighbours too.
    const KEEP: &str = "addr add 192.0.2.9/32 dev eth0\naddr del IPV4/32 dev eth0";
    assert_told(
        |pod| &pod.namespace,
        &[
            (KEEP, &["eth0 in the pod has no address IPV4/32"]),
            (
                &format!("{KEEP}\naddr add IPV4/24 dev eth0"),
                &["address IPV4 of eth0 in the pod has prefix length 24 instead of 32"],
            ),
            (
                "addr change IPV4/32 dev eth0 valid_lft 1000 preferred_lft 1000",
                &["address IPV4 of eth0 in the pod has a limited lifetime"],
            ),
            ("addr del IPV6/128 dev eth0", &["eth0 in the pod has no address IPV6/128"]),
            (
                "addr del IPV6/128 dev eth0\naddr add IPV6/64 dev eth0 nodad",
                &["address IPV6 of eth0 in the pod has prefix length 64 instead of 128"],
            ),
            (
                "sysctl net/ipv6/conf/eth0/dad_transmits 100\naddr del IPV6/128 dev eth0\naddr add IPV6/128 dev eth0",
                &["address IPV6 of eth0 in the pod has not passed duplicate address detection"],
            ),
            (
                "addr change IPV6/128 dev eth0",
                &["address IPV6 of eth0 in the pod was added with duplicate address detection"],
            ),
            (
                "addr change IPV6/128 dev eth0 nodad valid_lft 1000 preferred_lft 1000",
                &["address IPV6 of eth0 in the pod has a limited lifetime"],
            ),
        ],
    );
}

#[test]
fn each_fault_of_the_pods_routes_and_neighbours() {
    assert_told(
        |pod| &pod.namespace,
        &[
            ("route del default", &["the pod has no route 0.0.0.0/0 via 169.254.1.1"]),
            ("-6 route del default", &["the pod has no route ::/0 via fe80::1"]),
            (
                "route replace default via 169.254.1.2 dev eth0 onlink",
                &["the pod has no route 0.0.0.0/0 via 169.254.1.1"],
            ),
            ("neigh del 169.254.1.1 dev eth0", &["eth0 in the pod has no permanent neighbour 169.254.1.1"]),
            ("neigh del fe80::1 dev eth0", &["eth0 in the pod has no permanent neighbour fe80::1"]),
            (
                "neigh replace 169.254.1.1 lladdr ee:ee:ee:ee:ee:ee dev eth0 nud stale",
                &["eth0 in the pod has no permanent neighbour 169.254.1.1"],
            ),
            (
                "neigh replace fe80::1 lladdr 02:00:00:00:00:09 dev eth0 nud permanent",
                &[
                    "neighbour fe80::1 of eth0 in the pod has MAC address 02:00:00:00:00:09 instead of ee:ee:ee:ee:ee:ee",
                ],
            ),
        ],
    );
}

#[test]
fn each_fault_of_the_hosts_end() {
    assert_told(
        |pod| &pod.host.namespace,
        &[
            ("link set LINK mtu 1500", &["LINK on the host has MTU 1500 instead of 1450"]),
            (
                "link set LINK mtu 1400",
                &[
                    "LINK on the host has MTU 1400 instead of 1450",
                    "LINK on the host has MTU 1400 and drops packets of eth0 in the pod, which has 1450",
                ],
            ),
            (
                "link set LINK address 02:00:00:00:00:09",
                &[
                    "LINK on the host has MAC address 02:00:00:00:00:09 instead of ee:ee:ee:ee:ee:ee",
                    "LINK on the host has no permanent neighbour IPV4",
                    "LINK on the host has no permanent neighbour IPV6",
                ],
            ),
            ("link del LINK", &["there is no link eth0 in the pod", "there is no link LINK on the host"]),
            (
                "sysctl net/ipv4/conf/LINK/forwarding 0",
                &["net/ipv4/conf/LINK/forwarding on the host is 0 instead of 1"],
            ),
            (
                "sysctl net/ipv4/conf/LINK/proxy_arp 1",
                &["net/ipv4/conf/LINK/proxy_arp on the host is 1 instead of 0"],
            ),
            (
                "sysctl net/ipv4/conf/LINK/send_redirects 1",
                &["net/ipv4/conf/LINK/send_redirects on the host is 1 instead of 0"],
            ),
            (
                "sysctl net/ipv4/conf/LINK/rp_filter 0",
                &["net/ipv4/conf/LINK/rp_filter on the host is 0 instead of 1"],
            ),
            (
                "sysctl net/ipv6/conf/LINK/accept_ra 2",
                &["net/ipv6/conf/LINK/accept_ra on the host is 2 instead of 0"],
            ),
            (
                "sysctl net/ipv6/conf/LINK/addr_gen_mode 0",
                &["net/ipv6/conf/LINK/addr_gen_mode on the host is 0 instead of 1"],
            ),
            ("addr del fe80::1/64 dev LINK", &["LINK on the host has no address fe80::1/64"]),
        ],
    );
}

#[test]
fn each_fault_of_the_hosts_routes_and_neighbours() {
    assert_told(
        |pod| &pod.host.namespace,
        &[
            ("route del IPV4/32 metric 32", &["the host has no route to IPV4 on LINK"]),
            ("-6 route del IPV6/128 metric 32", &["the host has no route to IPV6 on LINK"]),
            (
                "route replace IPV4/32 dev LINK metric 32 proto static src 192.0.2.1",
                &["the host has no route to IPV4 on LINK"],
            ),
            (
                "route replace IPV4/32 dev lo metric 32 proto 177 src 192.0.2.1",
                &["the host has no route to IPV4 on LINK"],
            ),
            (
                "route replace IPV4/32 dev LINK metric 32 proto 177",
                &["the host's route to IPV4 prefers none as source instead of 192.0.2.1"],
            ),
            (
                "addr add 2001:db8::2/128 dev lo nodad\n\
                 -6 route replace IPV6/128 dev LINK metric 32 proto 177 src 2001:db8::2",
                &["the host's route to IPV6 prefers 2001:db8::2 as source instead of 2001:db8::1"],
            ),
            (
                "route add IPV4/32 dev lo metric 1",
                &["the host sends packets to IPV4 another way than by LINK"],
            ),
            (
                "route add prohibit IPV4/32 metric 5",
                &["the host sends no packets to IPV4: Permission denied (EACCES)"],
            ),
            (
                "-6 route add blackhole IPV6/128 metric 5",
                &["the host sends no packets to IPV6: Invalid argument (EINVAL)"],
            ),
            ("neigh del IPV4 dev LINK", &["LINK on the host has no permanent neighbour IPV4"]),
            ("neigh del IPV6 dev LINK", &["LINK on the host has no permanent neighbour IPV6"]),
            (
                "neigh replace IPV4 lladdr 02:00:00:00:00:09 dev LINK nud permanent",
                &["neighbour IPV4 of LINK on the host has MAC address 02:00:00:00:00:09 instead of PODMAC"],
            ),
        ],
    );
}

/// What takes other things along with it is named first, and the rest too.
#[test]
fn an_end_that_is_down_or_without_ipv6() {
    for (in_pod, command, expected) in [
        (true, "link set eth0 down", "eth0 in the pod is down"),
        (false, "link set LINK down", "LINK on the host is down"),
        (
            true,
            "sysctl net/ipv6/conf/eth0/disable_ipv6 1",
            "net/ipv6/conf/eth0/disable_ipv6 in the pod is 1 instead of 0",
        ),
        (
            false,
            "sysctl net/ipv6/conf/LINK/disable_ipv6 1",
            "net/ipv6/conf/LINK/disable_ipv6 on the host is 1 instead of 0",
        ),
    ] {
        let pod = Pod::new();
        pod.break_in(if in_pod { &pod.namespace } else { &pod.host.namespace }, command);
        let faults = pod.faults(&pod.result);
        assert_eq!(faults[0], pod.fill_in(expected));
        assert!(faults.len() > 1, "{faults:?}");
    }
}

#[test]
fn another_link_of_the_same_name_is_told() {
    let pod = Pod::new();
    pod.break_in(
        &pod.namespace,
        "link set eth0 down\nlink set eth0 name other0\nlink add eth0 address PODMAC type veth peer name peer0",
    );
    let faults = pod.faults(&pod.result);
    let expected = pod.fill_in("eth0 in the pod is not the other end of LINK on the host");
    assert!(faults.contains(&expected), "{faults:?}");
    let pod = Pod::new();
    pod.break_in(&pod.namespace, "link set eth0 down\nlink set eth0 name other0\nlink add eth0 type bridge");
    let faults = pod.faults(&pod.result);
    assert!(faults.contains(&"eth0 in the pod is no veth".to_owned()), "{faults:?}");
}

#[test]
fn each_part_of_the_previous_result() {
    let pod = Pod::new();
    let assert_told = |change: &dyn Fn(&mut Value), expected: &[&str]| {
        let mut previous = pod.result.clone();
        change(&mut previous);
        let expected: Vec<String> = expected.iter().map(|fault| pod.fill_in(fault)).collect();
        assert_eq!(pod.faults(&previous), expected, "{previous}");
    };
    let missing = "prevResult has no address IPV4/32 with gateway 169.254.1.1";
    assert_told(
        &|previous| previous["ips"][0]["address"] = json!("10.244.1.9/32"),
        &[missing, "prevResult gives the pod 10.244.1.9, ADD did not"],
    );
    assert_told(&|previous| previous["ips"][0]["address"] = json!(pod.fill_in("IPV4/24")), &[missing]);
    assert_told(&|previous| previous["ips"][0]["gateway"] = json!("169.254.1.2"), &[missing]);
    assert_told(&|previous| previous["ips"][0]["interface"] = json!(0), &[missing]);
    assert_told(
        &|previous| drop(previous["ips"].as_array_mut().unwrap().remove(1)),
        &["prevResult has no address IPV6/128 with gateway fe80::1"],
    );
    assert_told(
        &|previous| previous["interfaces"][0]["mac"] = json!("02:00:00:00:00:09"),
        &["prevResult gives interface LINK the MAC address \"02:00:00:00:00:09\" and not ee:ee:ee:ee:ee:ee"],
    );
    assert_told(
        &|previous| previous["interfaces"][0]["name"] = json!("veth0"),
        &["prevResult has no interface LINK"],
    );
    assert_told(
        &|previous| previous["interfaces"][1]["sandbox"] = json!("/run/netns/other"),
        &["prevResult has no interface eth0"],
    );
    assert_told(
        &|previous| drop(previous["routes"].as_array_mut().unwrap().remove(0)),
        &["prevResult has no route 0.0.0.0/0 via 169.254.1.1"],
    );
    assert_told(
        &|previous| previous["routes"][1]["gw"] = json!("fe80::2"),
        &["prevResult has no route ::/0 via fe80::1"],
    );
    // A later plugin may have added interfaces, addresses and routes of its own, and have set another MTU.
    assert_told(
        &|previous| {
            previous["interfaces"].as_array_mut().unwrap().push(json!({"name": "other0"}));
            previous["ips"].as_array_mut().unwrap().push(json!({"address": "192.0.2.9/24", "interface": 2}));
            previous["routes"].as_array_mut().unwrap().push(json!({"dst": "192.0.2.0/24"}));
        },
        &[],
    );
    pod.break_in(&pod.namespace, "link set eth0 mtu 1400");
    assert_told(&|previous| previous["interfaces"][1]["mtu"] = json!(1400), &[]);
}

#[test]
fn what_is_not_known_any_more_is_not_checked() {
    let pod = Pod::new();
    // Results before 1.1.0 have no MTU, and without weftd's file nobody knows the node's address.
    std::fs::remove_file(pod.host.dir.path().join("run/node.json")).unwrap();
    pod.break_in(
        &pod.host.namespace,
        "route replace IPV4/32 dev LINK metric 32 proto 177\nlink set LINK mtu 1500",
    );
    let mut config = pod.host.config();
    config["prevResult"] = pod.result.clone();
    let interfaces = config["prevResult"]["interfaces"].as_array_mut().unwrap();
    interfaces.iter_mut().for_each(|interface| drop(interface.as_object_mut().unwrap().remove("mtu")));
    let netns = pod.namespace.path.to_str().unwrap();
    pod.host.call("CHECK", "c1", netns, &config).unwrap();
    // The configuration's own MTU is known in every version.
    config["mtu"] = json!(1450);
    let error = pod.host.call("CHECK", "c1", netns, &config).unwrap_err();
    assert_eq!(error["details"], pod.fill_in("LINK on the host has MTU 1500 instead of 1450"));
}

#[test]
fn a_container_that_was_not_added_and_a_result_that_is_missing() {
    let pod = Pod::new();
    let error = pod.host.check("c2", &pod.namespace, &pod.result).unwrap_err();
    assert_eq!(error["code"], 3, "{error}");
    let error = pod.host.check("c1", &pod.namespace, &Value::Null).unwrap_err();
    assert_eq!(error["code"], 7, "{error}");
    let mut config = config(&pod.host);
    config["prevResult"] = pod.result.clone();
    let error = pod.host.call("CHECK", "c1", "/run/netns/weft-no-such", &config).unwrap_err();
    assert_eq!(error["code"], 4, "{error}");
    pod.host.call("DEL", "c1", "", &config).unwrap();
    assert_eq!(pod.host.check("c1", &pod.namespace, &pod.result).unwrap_err()["code"], 3);
}
