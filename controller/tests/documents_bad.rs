//! Bad documents: each gives the error that names its place and its cure.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panic, in its helpers too"
)]

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use weft_controller::api::json::DocumentError;
use weft_controller::documents::load;

/// Writes files and reads the folder.
fn errors(files: &[(&str, &str)]) -> Vec<DocumentError> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, text) in files {
        fs::write(folder.path().join(name), text).expect("a file");
    }
    load(folder.path()).err().unwrap_or_default()
}

fn shown(files: &[(&str, &str)]) -> Vec<String> {
    errors(files).iter().map(ToString::to_string).collect()
}

/// A document of a kind of ours, whose spec begins on line 4.
fn document(kind: &str, name: &str, spec: &str) -> String {
    format!("apiVersion: weft.network/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec:\n{spec}")
}

fn node(name: &str, cidr: &str, address: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Node\nmetadata: {{name: {name}, labels: {{rack: a}}}}\nspec: {{podCIDRs: [\"{cidr}\"]}}\n\
         status: {{addresses: [{{type: InternalIP, address: \"{address}\"}}]}}\n"
    )
}

/// Asserts that one document alone gives exactly one error: at this line and field, with this message and remedy in it.
#[track_caller]
fn one(kind: &str, name: &str, spec: &str, line: usize, field: &str, message: &str, remedy: &str) {
    let found = errors(&[("x.yaml", &document(kind, name, spec))]);
    let [error] = found.as_slice() else { panic!("{found:#?}") };
    assert_eq!(error.file.as_deref(), Some("x.yaml"));
    assert_eq!(error.object.as_deref(), Some(format!("{kind}/{name}").as_str()));
    assert_eq!((error.line, error.field.as_deref()), (Some(line), Some(field)), "{error}");
    assert!(error.message.contains(message), "{error}");
    assert!(error.remedy.contains(remedy), "{error}");
}

#[test]
fn fields_that_are_not_there() {
    one(
        "BGPPeer",
        "p",
        "  peerIP: 10.0.0.1\n  asNumber: 1\n  pasive: true\n",
        7,
        "spec.pasive",
        "unknown field \"pasive\"",
        "passive",
    );
    one(
        "BGPPeer",
        "p",
        "  peerIP: 10.0.0.1\n",
        4,
        "spec.asNumber",
        "asNumber is missing",
        "internal or external",
    );
    one("IPPool", "p", "  blockSize: 26\n", 4, "spec.cidr", "missing field \"cidr\"", "add it");
}

#[test]
fn values_of_the_wrong_form() {
    let peer = |field: &str| format!("  peerIP: 10.0.0.1\n  asNumber: 1\n  {field}\n");
    for (field, name, message, remedy) in [
        ("holdTime: 90", "holdTime", "has no unit", "\"90s\""),
        ("holdTime: 90sec", "holdTime", "unknown unit \"sec\"", "\"1m30s\""),
        ("holdTime: 500ms", "holdTime", "not a number of whole seconds", "3s to 65535s"),
        ("holdTime: 2s", "holdTime", "2s is forbidden (RFC 4271)", "3s to 65535s"),
        ("holdTime: 20h", "holdTime", "longer than OPEN can say", "65535s"),
        ("keepaliveTime: 10ms", "keepaliveTime", "more than one a second", "1s"),
        ("sendHoldTime: 500ms", "sendHoldTime", "no send hold time", "1s to 24h"),
        ("sendHoldTime: 25h", "sendHoldTime", "no send hold time", "1s to 24h"),
        ("sendHoldTime: 60s\n  holdTime: 90s", "sendHoldTime", "shorter than the holdTime 1m30s", "twice"),
        (
            "blackholeCIDRs: [0.0.0.0/0]",
            "blackholeCIDRs[0]",
            "any packets dropped",
            "belong to the peer's network",
        ),
        ("blackholeCIDRs: [198.51.100.1/24]", "blackholeCIDRs[0]", "host bits", "198.51.100.0/24"),
        ("connectRetryTime: 0s", "connectRetryTime", "no connect retry time", "1s to 1h"),
        ("connectRetryTime: 61m", "connectRetryTime", "no connect retry time", "1s to 1h"),
        ("connectRetryTime: 5s\n  passive: true", "connectRetryTime", "beside passive: true", "leave it out"),
        ("localASNumber: 0", "localASNumber", "AS 0 is reserved (RFC 7607)", "1 to 4294967294"),
        ("localASNumber: 1.10", "localASNumber", "fraction", "quotes"),
        ("localASNumber: \"1.70000\"", "localASNumber", "not an AS number", "1.10"),
        ("families: []", "families", "no family", "ipv4-unicast"),
        ("addPath: true", "addPath", "invalid type: boolean", "a mapping of fields"),
        (
            "addPath: {}",
            "addPath",
            "asks for neither direction",
            "receive: true, send: Multipath or send: All",
        ),
        ("addPath: {receive: false}", "addPath", "asks for neither direction", "leave addPath out"),
        ("addPath: {send: Best}", "addPath.send", "unknown variant \"Best\"", "Multipath"),
        ("addPath: {receive: true, sendMax: 4}", "addPath.sendMax", "without send", "Multipath or All"),
        ("addPath: {send: All, sendMax: 1}", "addPath.sendMax", "1 is no number of paths", "2 to 64"),
        ("addPath: {send: All, sendMax: 65}", "addPath.sendMax", "65 is no number of paths", "2 to 64"),
        ("addPath: {send: All, max: 3}", "addPath.max", "unknown field", "sendMax"),
        ("passive: yes", "passive", "string \"yes\"", "true or false"),
        ("sourceAddress: eth0", "sourceAddress", "not a source address", "UseNodeIP"),
        ("sourceAddress: \"2001:db8::1\"", "sourceAddress", "different families", "peer's family"),
        ("nodeSelector: rack = a", "nodeSelector", "has `= a` at character 6", "rack == \"a\""),
        ("nextHopMode: Mine", "nextHopMode", "unknown variant \"Mine\"", "Self"),
        ("numAllowedLocalASNumbers: 300", "numAllowedLocalASNumbers", "300", "write 0 to 255"),
        ("gracefulRestart: {restartTime: 2h}", "gracefulRestart.restartTime", "12 bits", "4095s"),
        ("gracefulRestart: {longLivedTime: 4661h}", "gracefulRestart.longLivedTime", "24 bits", "16777215s"),
        ("role: transit", "role", "unknown variant \"transit\"", "provider"),
        ("roleStrict: true", "roleStrict", "without role", "rs-client"),
        ("shutdownMessage: bye", "shutdownMessage", "without shutdown: true", "add shutdown: true"),
        (
            "shutdownMessage: \"\"\n  shutdown: true",
            "shutdownMessage",
            "a text of 0 octets",
            "1 to 255 octets",
        ),
        (
            "shutdownMessage: \"a\\tb\"\n  shutdown: true",
            "shutdownMessage",
            "control character",
            "on one line",
        ),
        ("peerSelector: all()", "peerSelector", "both given", "one of the two"),
        ("listenRange: 10.0.0.0/8", "listenRange", "peerIP and listenRange are both given", "one of the two"),
        ("listenLimit: 10", "listenLimit", "without listenRange", "add listenRange"),
        ("filters: [a, a]", "filters[1]", "BGPFilter a is there already", "each once"),
        (
            "gracefulRestart: {enabled: false, longLivedTime: 10m}",
            "gracefulRestart.longLivedTime",
            "does nothing beside enabled: false",
            "leave it out",
        ),
    ] {
        one("BGPPeer", "p", &peer(field), 7, &format!("spec.{name}"), message, remedy);
    }
    // Octets count, not characters.
    let text = |length: usize| peer(&format!("shutdownMessage: {}\n  shutdown: true", "é".repeat(length)));
    let (name, remedy) = ("spec.shutdownMessage", "1 to 255 octets");
    one("BGPPeer", "p", &text(128), 7, name, "a text of 256 octets", remedy);
    assert_eq!(errors(&[("x.yaml", &document("BGPPeer", "p", &text(127)))]), []);
    for (address, message) in [
        ("tor", "is not an address"),
        ("10.0.0.1:0", "no valid port"),
        ("fe80::1", "link-local"),
        ("0.0.0.0", "any address"),
        ("224.0.0.5", "multicast"),
    ] {
        one(
            "BGPPeer",
            "p",
            &format!("  peerIP: \"{address}\"\n  asNumber: 1\n"),
            5,
            "spec.peerIP",
            message,
            "",
        );
    }
}

#[test]
fn listen_ranges_that_are_none() {
    let range = |field: &str| format!("  listenRange: 10.0.0.0/24\n  asNumber: external\n  {field}\n");
    for (field, name, message, remedy) in [
        ("passive: false", "passive", "passive: false is given with listenRange", "cannot be dialled"),
        ("sourceAddress: UseNodeIP", "sourceAddress", "given with listenRange", "the peer connects to"),
        ("listenLimit: 2001", "listenLimit", "2001 peers are more", "1 to 2000"),
        ("listenLimit: 0", "listenLimit", "invalid value", "write 1 to 2000"),
        ("interface: eth0", "listenRange", "interface and listenRange are both given", "one of the two"),
    ] {
        let line = if name == "listenRange" { 5 } else { 7 };
        one("BGPPeer", "p", &range(field), line, &format!("spec.{name}"), message, remedy);
    }
    for (address, message, remedy) in [
        ("fe80::/64", "link-local", "interface"),
        ("224.0.0.0/8", "multicast", "own addresses"),
        ("10.0.0.1/24", "10.0.0.1/24", "10.0.0.0/24"),
    ] {
        let text = format!("  listenRange: \"{address}\"\n  asNumber: external\n");
        one("BGPPeer", "p", &text, 5, "spec.listenRange", message, remedy);
    }
    let no_as = "  listenRange: 10.0.0.0/24\n";
    one("BGPPeer", "p", no_as, 4, "spec.asNumber", "asNumber is missing", "internal or external");
}

#[test]
fn values_that_do_not_go_together() {
    one(
        "BGPPeer",
        "p",
        "  asNumber: 1\n",
        4,
        "spec",
        "none of peerIP, peerSelector, interface and listenRange is given",
        "give peerIP",
    );
    one(
        "BGPPeer",
        "p",
        "  peerSelector: all()\n  asNumber: 1\n",
        6,
        "spec.asNumber",
        "with peerSelector",
        "leave it out",
    );
    one(
        "BGPPeer",
        "p",
        "  peerIP: 10.0.0.1\n  asNumber: internal\n  role: peer\n",
        7,
        "spec.role",
        "between two ASes",
        "leave it out",
    );
    one(
        "BGPPeer",
        "p",
        "  peerIP: 10.0.0.1\n  asNumber: 1\n  holdTime: 9s\n  keepaliveTime: 9s\n",
        8,
        "spec.keepaliveTime",
        "not shorter than the holdTime 9s",
        "third",
    );
    for field in ["asOverride", "removePrivateAS"] {
        one(
            "BGPPeer",
            "p",
            &format!("  peerIP: 10.0.0.1\n  asNumber: internal\n  {field}: true\n"),
            7,
            &format!("spec.{field}"),
            "is given for an iBGP peer",
            "leave it out",
        );
    }
    one("BGPConfiguration", "mine", "  asNumber: 1\n", 3, "metadata.name", "holds for no node", "node.NAME");
    one(
        "BGPConfiguration",
        "default",
        "  drainTime: 61m\n",
        5,
        "spec.drainTime",
        "longer than 1h",
        "0s to 1h",
    );
    for (mrt, field, message, remedy) in [
        ("{}", "", "neither updates nor tables", "give updates: {}, tables: {}, or both"),
        ("{sizeLimit: 1Gi}", "", "neither updates nor tables", "leave mrt out"),
        ("{updates: {}, sizeLimit: 1GB}", ".sizeLimit", "\"1GB\" is no size", "\"512Mi\" or \"1Gi\""),
        ("{updates: {}, sizeLimit: 1Mi}", ".sizeLimit", "1Mi is out of range", "64Mi to 1Ti"),
        ("{updates: {rotateAfter: 0s}}", ".updates.rotateAfter", "0s is out of range", "1s to 24h"),
        ("{tables: {interval: 25h}}", ".tables.interval", "25h is out of range", "1m to 24h"),
        ("{updates: true}", ".updates", "", ""),
        ("{updates: {}, directory: /}", ".directory", "unknown field", ""),
    ] {
        let field = format!("spec.mrt{field}");
        one("BGPConfiguration", "default", &format!("  mrt: {mrt}\n"), 5, &field, message, remedy);
    }
    one(
        "BGPConfiguration",
        "node.n1",
        "  nodeMeshPassword: {secretKeyRef: {name: a, key: b}}\n",
        5,
        "spec.nodeMeshPassword",
        "for all nodes alike",
        "BGPConfiguration default",
    );
    one("BGPConfiguration", "default", "  mtu: 100\n", 5, "spec.mtu", "100 is not an MTU", "1280");
    one(
        "BGPConfiguration",
        "default",
        "  natOutgoingExclude: [0.0.0.0/0]\n",
        5,
        "spec.natOutgoingExclude[0]",
        "leaves nothing for natOutgoing",
        "IPPools",
    );
    one(
        "BGPConfiguration",
        "default",
        "  routeMetric: 4278198272\n",
        5,
        "spec.routeMetric",
        "out of range",
        "4278198271",
    );
    let resilient = |fields: &str, field: &str, message: &str, remedy: &str| {
        let text = format!("  resilientNextHops: {{{fields}}}\n");
        one(
            "BGPConfiguration",
            "default",
            &text,
            5,
            &format!("spec.resilientNextHops{field}"),
            message,
            remedy,
        );
    };
    resilient("buckets: 255", ".buckets", "fewer than the next hops", "256 to 65535");
    resilient("idleTime: 0s", ".idleTime", "no time for a bucket to be idle", "1s to 24h");
    resilient("idleTime: 1500ms", ".idleTime", "no time for a bucket to be idle", "whole seconds");
    resilient("unbalancedTime: 25h", ".unbalancedTime", "no time to be unbalanced for", "0s (for ever)");
    one(
        "BGPConfiguration",
        "node.n1",
        "  installRoutes: false\n  resilientNextHops: {}\n",
        6,
        "spec.resilientNextHops",
        "does nothing beside installRoutes: false",
        "leave resilientNextHops out",
    );
    one(
        "BGPConfiguration",
        "node.n1",
        "  installRoutes: false\n  routeMetric: 20\n",
        6,
        "spec.routeMetric",
        "does nothing beside installRoutes: false",
        "leave routeMetric out",
    );
    one(
        "BGPConfiguration",
        "default",
        "  routeReflectorClusterID: 0\n",
        5,
        "spec.routeReflectorClusterID",
        "\"0\" is not a cluster id",
        "four octets as in 192.0.2.1, or a number from 1 to 4294967295",
    );
    one(
        "BGPPeer",
        "p",
        "  peerIP: 10.0.0.1\n  asNumber: external\n  routeReflectorClient: true\n",
        7,
        "spec.routeReflectorClient",
        "an eBGP peer is no route reflector client",
        "write asNumber: internal",
    );
    one(
        "BGPConfiguration",
        "default",
        "  routerID: 0.0.0.0\n",
        5,
        "spec.routerID",
        "not a BGP identifier",
        "192.0.2.1",
    );
    one("BGPConfiguration", "default", "  listenPort: 0\n", 5, "spec.listenPort", "0", "");
    one(
        "IPPool",
        "p",
        "  cidr: 10.1.2.3/16\n",
        5,
        "spec.cidr",
        "10.1.2.3/16 has host bits set",
        "write 10.1.0.0/16",
    );
    one("IPPool", "p", "  cidr: 10.1.2.3\n", 5, "spec.cidr", "no prefix length", "10.1.2.3/32");
    one(
        "IPPool",
        "p",
        "  cidr: 10.1.0.0/16\n  blockSize: 8\n",
        6,
        "spec.blockSize",
        "blockSize 8",
        "20 to 32",
    );
    one("IPPool", "p", "  cidr: 10.1.0.0/28\n", 5, "spec.cidr", "does not fit", "28 to 32");
    one(
        "IPPool",
        "p",
        "  cidr: \"fd00::/64\"\n  blockSize: 26\n",
        6,
        "spec.blockSize",
        "blockSize 26",
        "116 to 128",
    );
    one("IPPool", "p", "  cidr: 127.0.0.0/8\n", 5, "spec.cidr", "not for pods", "private");
    let pool = |more: &str| format!("  cidr: 10.1.0.0/16\n{more}");
    for (more, line, field, message, remedy) in [
        (
            "  reserved: [10.1.0.0/30, 10.2.0.0/30]\n",
            6,
            "spec.reserved[1]",
            "does not lie in",
            "a part of the cidr",
        ),
        ("  reserved: [10.0.0.0/8]\n", 6, "spec.reserved[0]", "does not lie in", "a part of the cidr"),
        ("  cooldown: 1500ms\n", 6, "spec.cooldown", "no time", "whole seconds from 0s to 24h"),
        ("  cooldown: 25h\n", 6, "spec.cooldown", "no time", "whole seconds from 0s to 24h"),
        ("  allowedUses: []\n", 6, "spec.allowedUses", "0 entries", "one of Workload and LoadBalancer"),
        (
            "  allowedUses: [Workload, LoadBalancer]\n",
            6,
            "spec.allowedUses",
            "2 entries",
            "one of Workload and LoadBalancer",
        ),
        ("  allowedUses: [Pods]\n", 6, "spec.allowedUses[0]", "unknown variant", "LoadBalancer"),
        (
            "  allowedUses: [LoadBalancer]\n  blockSize: 26\n",
            7,
            "spec.blockSize",
            "no blocks",
            "leave it out, or make it a pool for Workload",
        ),
        (
            "  allowedUses: [LoadBalancer]\n  natOutgoing: true\n",
            7,
            "spec.natOutgoing",
            "no pods",
            "leave it out",
        ),
        (
            "  allowedUses: [LoadBalancer]\n  nodeSelector: has(a)\n",
            7,
            "spec.nodeSelector",
            "",
            "leave it out",
        ),
        (
            "  allowedUses: [LoadBalancer]\n  disableBGPExport: true\n",
            7,
            "spec.disableBGPExport",
            "",
            "leave it out",
        ),
        (
            "  allowedUses: [LoadBalancer]\n  topology: {nodeLabel: rack, prefixLength: 20}\n",
            7,
            "spec.topology",
            "",
            "leave it out",
        ),
        ("  assignmentMode: Never\n", 6, "spec.assignmentMode", "unknown variant", "Manual"),
        ("  namespaceSelector: 'team =='\n", 6, "spec.namespaceSelector", "", ""),
    ] {
        one("IPPool", "p", &pool(more), line, field, message, remedy);
    }
}

#[test]
fn filter_rules() {
    let rule = |rule: &str| format!("  importV4:\n  - {{action: Accept}}\n  - {{{rule}}}\n");
    for (text, field, message, remedy) in [
        ("cidr: 10.0.0.0/8, action: Accept", "matchOperator", "without matchOperator", "NotIn"),
        ("matchOperator: In, action: Accept", "cidr", "without cidr", "add the cidr"),
        ("cidr: \"fd00::/8\", matchOperator: In, action: Accept", "cidr", "fd00::/8 is IPv6", "importV6"),
        ("cidr: 10.0.0.0/8, matchOperator: In", "action", "missing field", "add it"),
        ("prefixLength: {max: 24}, action: Accept", "prefixLength", "without cidr", "In or NotIn"),
        (
            "cidr: 10.0.0.0/8, matchOperator: Equal, prefixLength: {max: 24}, action: Accept",
            "prefixLength",
            "as a whole",
            "NotIn",
        ),
        (
            "cidr: 10.0.0.0/8, matchOperator: In, prefixLength: {max: 4}, action: Accept",
            "prefixLength",
            "8 to 4",
            "8 <= min",
        ),
        (
            "cidr: 10.0.0.0/8, matchOperator: In, prefixLength: {max: 33}, action: Accept",
            "prefixLength",
            "8 to 33",
            "<= 32",
        ),
        ("interface: x, action: Accept", "interface", "unknown field", "prefixLength"),
        ("communities: {values: []}, action: Accept", "communities.values", "no community", "must carry"),
        (
            "communities: {values: [\"65536:1\"]}, action: Accept",
            "communities.values[0]",
            "\"65536\" in \"65536:1\" is not a number from 0 to 65535",
            "a large a:b:c",
        ),
        (
            "communities: {values: [\"1:1\", mine]}, action: Accept",
            "communities.values[1]",
            "no community is named \"mine\"",
            "BGPConfiguration default",
        ),
        ("asPathPrefix: [0], action: Accept", "asPathPrefix[0]", "AS 0 is reserved", "1 to 4294967294"),
        ("operations: [{setMED: {value: 1}}], action: Reject", "operations", "that is rejected", "Accept"),
    ] {
        one("BGPFilter", "f", &rule(text), 7, &format!("spec.importV4[1].{field}"), message, remedy);
    }
    let eleven = ["{setMED: {value: 1}}"; 11].join(", ");
    let rule = |operation: &str| {
        format!("  exportV6:\n  - {{action: Accept, peerType: eBGP, operations: [{operation}]}}\n")
    };
    for (operation, field, message, remedy) in [
        ("{}", "[0]", "has 0 fields", "exactly one of addCommunity"),
        ("{setMED: {value: 1}, setLocalPreference: {value: 1}}", "[0]", "has 2 fields", "of its own"),
        ("{addMED: {value: 1}}", "[0].addMED", "unknown field", "setMED"),
        ("{setMED: {value: -1}}", "[0].setMED.value", "invalid value", "write 0 to 4294967295"),
        ("{addCommunity: {value: \"a:b\"}}", "[0].addCommunity.value", "\"a\" in", "rt:a:b"),
        ("{removeCommunity: {value: none}}", "[0].removeCommunity.value", "named \"none\"", "communities"),
        ("{prependASPath: {prefix: []}}", "[0].prependASPath.prefix", "no AS number", "1 to 10"),
        ("{setNextHop: {value: 10.0.0.1}}", "[0].setNextHop.value", "not of the family", "exportV6"),
        ("{setNextHop: {value: \"fe80::1\"}}", "[0].setNextHop.value", "not the address", "global IPv6"),
        ("{setLocalPreference: {value: 1}}", "[0].setLocalPreference", "eBGP peers", "setMED"),
        (eleven.as_str(), "", "11 operations", "10 at most"),
    ] {
        let two = operation.matches("setLocal").count() + operation.matches("setMED").count() == 2;
        let found = errors(&[("x.yaml", &document("BGPFilter", "f", &rule(operation)))]);
        assert_eq!(found.len(), 1 + usize::from(two), "{found:#?}");
        let error = &found[0];
        let field = format!("spec.exportV6[0].operations{field}");
        assert_eq!((error.line, error.field.as_deref()), (Some(6), Some(field.as_str())), "{error}");
        assert!(error.message.contains(message) && error.remedy.contains(remedy), "{error}");
    }
}

#[test]
fn numbers_out_of_range_are_told_the_range_of_their_field() {
    let peer = "peerIP: 10.0.0.1, asNumber: 1";
    for (kind, more, given, range) in [
        ("BGPPeer", peer, "ttlSecurity: 0", "1 to 254"),
        ("BGPPeer", peer, "ttlSecurity: near", "1 to 254"),
        ("BGPPeer", peer, "numAllowedLocalASNumbers: -1", "0 to 255"),
        ("BGPPeer", peer, "addPath: {send: All, sendMax: 256}", "2 to 64"),
        ("BGPPeer", peer, "listenLimit: 0", "1 to 2000"),
        ("BGPPeer", peer, "maxPrefixes: {limit: 0}", "1 to 4294967295"),
        ("BGPPeer", peer, "maxPrefixes: {limit: 9, warningThreshold: 300}", "1 to 100"),
        ("BGPConfiguration", "asNumber: 1", "nodeMeshMaxPrefixes: {limit: 0}", "1 to 4294967295"),
        ("BFDProfile", "passiveMode: false", "detectMultiplier: 300", "2 to 255"),
        ("BFDProfile", "passiveMode: false", "minimumTtl: 256", "1 to 255"),
        ("BGPConfiguration", "asNumber: 1", "listenPort: 0", "1 to 65535"),
        ("BGPConfiguration", "asNumber: 1", "maxPaths: 0", "1 to 256"),
        ("BGPConfiguration", "asNumber: 1", "resilientNextHops: {buckets: 65536}", "256 to 65535"),
        ("BGPConfiguration", "asNumber: 1", "routeMetric: -1", "1 to 4278198271"),
        ("BGPConfiguration", "asNumber: 1", "mtu: 1.5", "1280 to 65535"),
    ] {
        let text = document(kind, "default", &format!("  {{{more}, {given}}}\n"));
        let found = errors(&[("x.yaml", &text)]);
        let [error] = found.as_slice() else { panic!("{given}: {found:#?}") };
        assert_eq!(error.remedy, format!("write {range}"), "{given}: {error}");
    }
}

#[test]
fn communities_and_advertisements() {
    let named = |more: &str| format!("  communities:\n  - {{name: a, value: \"1:1\"}}\n  - {{{more}}}\n");
    for (text, field, message, remedy) in [
        ("name: a, value: \"1:2\"", "name", "\"a\" is there already", "keep one"),
        ("name: no-export, value: \"1:2\"", "name", "is a community already", "another name"),
        ("name: \"1a\", value: \"1:2\"", "name", "is not a name", "a letter"),
        ("name: b, value: a", "value", "is a name, not a community", "a:b"),
        ("name: b, value: \"1:2:3:4\"", "value", "is not a community", "no-export"),
    ] {
        let field = format!("spec.communities[1].{field}");
        one("BGPConfiguration", "default", &named(text), 7, &field, message, remedy);
    }
    let elsewhere = "  communities: [{name: a, value: \"1:1\"}]\n";
    let found = errors(&[("x.yaml", &document("BGPConfiguration", "node.n1", elsewhere))]);
    assert!(found.iter().any(|error| error.message.contains("for all nodes alike")), "{found:#?}");
    let advertised = |more: &str| {
        format!(
            "  prefixAdvertisements:\n  - {{cidr: 10.0.0.0/8, communities: [no-export]}}\n  - {{{more}}}\n"
        )
    };
    for (text, field, message, remedy) in [
        (
            "cidr: 10.0.0.0/8, communities: [\"1:1\"]",
            "cidr",
            "already, at prefixAdvertisements[0]",
            "together",
        ),
        ("cidr: 10.0.0.0/9", "communities", "nothing is done", "list the communities"),
        ("cidr: 10.0.0.1/32, aggregate: SummaryOnly", "aggregate", "no route lies inside", "shorter"),
        ("cidr: 10.0.0.0/9, aggregate: true", "aggregate", "invalid type", ""),
        (
            "cidr: 10.96.0.0/11, aggregate: WithSpecifics}\n  serviceClusterIPs:\n  - {cidr: 10.96.0.0/16",
            "aggregate",
            "overlaps with 10.96.0.0/16",
            "serviceAggregation",
        ),
        ("cidr: 10.0.0.0/9, communities: [rack]", "communities[0]", "named \"rack\"", "communities"),
    ] {
        let field = format!("spec.prefixAdvertisements[1].{field}");
        one("BGPConfiguration", "default", &advertised(text), 7, &field, message, remedy);
    }
}

#[test]
fn what_is_given_beside_what_is_inherited() {
    let configuration =
        |name: &str, spec: &str| document("BGPConfiguration", name, &format!("  {{{spec}}}\n"));
    let peer =
        |spec: &str| document("BGPPeer", "p", &format!("  {{peerIP: 10.0.0.9, asNumber: 1, {spec}}}\n"));
    let nodes = node("n1", "10.244.1.0/24", "10.0.0.1");
    let with = |more: &[String]| shown(&[("a.yaml", &nodes), ("b.yaml", &more.join("---\n"))]);
    let short =
        configuration("default", "holdTime: 9s, sendHoldTime: 20s, gracefulRestart: {enabled: false}");
    for (documents, want) in [
        (
            vec![peer("sendHoldTime: 5s")],
            "b.yaml:5: BGPPeer/p: spec.sendHoldTime: the sendHoldTime 5s is shorter than the holdTime 1m30s that it inherits",
        ),
        (
            vec![peer("keepaliveTime: 100s")],
            "b.yaml:5: BGPPeer/p: spec.keepaliveTime: the keepaliveTime 1m40s is not shorter than the holdTime 1m30s that it inherits",
        ),
        (
            vec![short.clone(), peer("keepaliveTime: 9s")],
            "b.yaml:11: BGPPeer/p: spec.keepaliveTime: the keepaliveTime 9s is not shorter than the holdTime 9s that it inherits",
        ),
        (
            vec![short.clone(), peer("holdTime: 30s")],
            "b.yaml:11: BGPPeer/p: spec.holdTime: the holdTime 30s is longer than the sendHoldTime 20s that it inherits",
        ),
        (
            vec![short.clone(), peer("gracefulRestart: {longLivedTime: 10m}")],
            "b.yaml:11: BGPPeer/p: spec.gracefulRestart.longLivedTime: longLivedTime does nothing beside the enabled: false that it \
             inherits",
        ),
        (
            vec![configuration("default", "keepaliveTime: 100s")],
            "b.yaml:5: BGPConfiguration/default: spec.keepaliveTime: the keepaliveTime 1m40s is not shorter than the holdTime 1m30s",
        ),
        (
            vec![short.clone(), configuration("node.n1", "keepaliveTime: 10s")],
            "b.yaml:11: BGPConfiguration/node.n1: spec.keepaliveTime: the keepaliveTime 10s is not shorter than the holdTime 9s",
        ),
    ] {
        let found = with(&documents);
        assert_eq!(found.len(), 1, "{want}: {found:#?}");
        assert!(found[0].starts_with(want), "{want}: {found:#?}");
    }
    for good in [
        vec![short.clone(), peer("sendHoldTime: 0s"), configuration("node.n1", "holdTime: 12s")],
        vec![short.clone(), peer("holdTime: 30s, sendHoldTime: 60s")],
        vec![short, peer("gracefulRestart: {enabled: true, longLivedTime: 10m}")],
        // The nodes of this one may be those that say otherwise.
        vec![peer("keepaliveTime: 100s"), configuration("node.n1", "holdTime: 300s")],
    ] {
        assert_eq!(with(&good), [""; 0]);
    }
}

#[test]
fn every_error_is_listed_each_at_its_line() {
    let filter = document(
        "BGPFilter",
        "f",
        "  importV4:\n  - {cidr: 10.0.0.1/8, matchOperator: In, action: Accept}\n  - {action: Maybe}\n  - {action: Accept, x: 1}\n  - {}\n",
    );
    let peer = document("BGPPeer", "p", "  peerIP: tor\n  asNumber: 0\n  holdTime: 1\n");
    let found = errors(&[("a.yaml", &filter), ("b.yml", &format!("{peer}---\nhello\n"))]);
    let places: Vec<_> = found
        .iter()
        .map(|e| (e.file.as_deref().unwrap_or("?"), e.line.unwrap_or(0), e.field.as_deref().unwrap_or("-")))
        .collect();
    assert_eq!(
        places,
        [
            ("a.yaml", 6, "spec.importV4[0].cidr"),
            ("a.yaml", 7, "spec.importV4[1].action"),
            ("a.yaml", 8, "spec.importV4[2].x"),
            ("a.yaml", 9, "spec.importV4[3].action"),
            ("b.yml", 5, "spec.peerIP"),
            ("b.yml", 6, "spec.asNumber"),
            ("b.yml", 7, "spec.holdTime"),
            ("b.yml", 9, "-"),
        ],
        "{found:#?}"
    );
}

#[test]
fn files_that_are_no_documents() {
    let kinds = "write BGPConfiguration, BGPPeer, BGPFilter, BFDProfile, IPPool or IPBlock of weft.network/v1alpha1, Node, Namespace, Secret or Service of v1, or \
                 EndpointSlice of discovery.k8s.io/v1";
    for (text, want) in [
        ("", "x.yaml:1: the file holds no document; write one, or remove the file".to_owned()),
        ("# nothing\n---\n---\n", "x.yaml:1: the file holds no document; write one, or remove the file".into()),
        ("a: 1\nb:\n\tc: 2\n", "x.yaml:3: the line is indented with a tab; indent with spaces: YAML forbids tabs there".into()),
        ("a: 1\na: 2\n", "x.yaml:2: the key \"a\" occurs twice, first on line 1; keep one of the two".into()),
        ("a: !include x\n", "x.yaml:1: the tag !include means nothing here; leave the tag out".into()),
        ("a: 1\n", format!("x.yaml:1: apiVersion: apiVersion is missing or not text; {kinds}")),
        ("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: s}\n", format!("x.yaml:2: ConfigMap/s: kind: ConfigMap of v1 is not a kind that is read; {kinds}")),
        (
            "apiVersion: weft.network/v1\nkind: BGPPeer\n",
            "x.yaml:1: BGPPeer/?: apiVersion: weft.network/v1 is not a version that is read; write weft.network/v1alpha1".into(),
        ),
    ] {
        assert_eq!(shown(&[("x.yaml", text)]), [want]);
    }
    let bomb = "a: &a [1,1,1,1,1,1,1,1,1,1]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\n\
                d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\n";
    assert!(shown(&[("x.yaml", bomb)])[0].contains("aliases stand for more than 10000 values"));
    assert!(
        shown(&[("x.yaml", &format!("a: {}1{}\n", "{a: ".repeat(100), "}".repeat(100)))])[0]
            .contains("nest deeper")
    );
    assert_eq!(shown(&[("x.yaml", "a: [1\nb: 2\n")]).len(), 1);
}

#[test]
fn what_is_not_a_readable_file() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name);
    let text = |path: &Path| load(path).expect_err("bad").iter().map(ToString::to_string).collect::<Vec<_>>();
    assert!(text(folder.path())[0].contains("holds no *.yaml"));
    fs::create_dir(path("folder.yaml")).expect("a folder");
    fs::write(path("latin.yaml"), b"a: \xe9\n").expect("a file");
    fs::File::create(path("large.yaml")).and_then(|f| f.set_len(50 << 20)).expect("a sparse file of 50 MB");
    fs::write(path(".hidden.yaml"), "]").expect("a file");
    fs::write(path("notes.txt"), "]").expect("a file");
    assert_eq!(
        text(folder.path()),
        [
            "folder.yaml: this is not a file; name it otherwise, or take it out of the folder",
            "large.yaml: the file is larger than 4 MiB; part it, or take it out of the folder",
            "latin.yaml: the file is not UTF-8, from byte 3; save it as UTF-8",
        ]
    );
    assert!(text(&path("nowhere"))[0].contains("cannot read"));
}

#[test]
fn what_does_not_fit_together() {
    let peer = |name: &str, more: &str| {
        document("BGPPeer", name, &format!("  peerIP: 10.0.0.9\n  asNumber: 1\n{more}"))
    };
    let nodes = format!(
        "{}---\n{}",
        node("n1", "10.244.1.0/24", "10.0.0.1"),
        node("n2", "10.244.2.0/24", "10.0.0.2")
    );
    let with = |more: &[String]| shown(&[("a.yaml", &nodes), ("b.yaml", &more.join("---\n"))]);
    assert_eq!(with(&[peer("p", "")]), [""; 0]);
    for (documents, want) in [
        (
            vec![peer("p", "  filters: [f]\n")],
            "b.yaml:7: BGPPeer/p: spec.filters[0]: there is no BGPFilter f",
        ),
        (
            vec![peer("p", ""), peer("p", "")],
            "b.yaml:10: BGPPeer/p: metadata.name: BGPPeer/p is there already, b.yaml line 1",
        ),
        (
            vec![peer("p", ""), peer("q", "")],
            "b.yaml:12: BGPPeer/q: spec.peerIP: BGPPeer/p asks for a session of Node n1 with 10.0.0.9 too",
        ),
        (
            vec![
                document("BGPPeer", "p", "  peerSelector: all()\n"),
                document("BGPPeer", "q", "  peerSelector: has(rack)\n"),
            ],
            "b.yaml:11: BGPPeer/q: spec.peerSelector: BGPPeer/p asks for a session of Node n1 with 10.0.0.2 too",
        ),
        (
            vec![
                document("BGPPeer", "p", "  {listenRange: 10.0.0.0/24, asNumber: external}\n"),
                document("BGPPeer", "q", "  {listenRange: 10.0.0.0/24, asNumber: internal}\n"),
            ],
            "b.yaml:11: BGPPeer/q: spec.listenRange: BGPPeer/p has Node n1 listen for 10.0.0.0/24 too",
        ),
        (
            vec![
                document("IPPool", "p", "  cidr: 10.0.0.0/8\n"),
                document("IPPool", "q", "  cidr: 10.9.0.0/16\n"),
            ],
            "b.yaml:11: IPPool/q: spec.cidr: 10.9.0.0/16: it overlaps with 10.0.0.0/8 of IPPool/p, b.yaml line 1",
        ),
        (
            vec![node("n3", "10.244.2.128/25", "10.0.0.3")],
            "b.yaml:4: Node/n3: spec.podCIDRs[0]: 10.244.2.128/25: it overlaps with 10.244.2.0/24 of Node/n2, a.yaml line 7",
        ),
        (
            vec![node("n3", "10.244.3.0/24", "10.0.0.2")],
            "b.yaml:5: Node/n3: status.addresses: 10.0.0.2 is also an address of Node/n2",
        ),
        (
            vec![node("n3", "10.244.3.0/24", "10.0.0.300")],
            "b.yaml:5: Node/n3: status.addresses[0]: the InternalIP \"10.0.0.300\" is not",
        ),
        (
            vec![document("IPBlock", "b", "  {cidr: 10.1.0.0/26, node: n9}\n")],
            "b.yaml:5: IPBlock/b: spec.node: there is no Node n9",
        ),
        (
            vec![document("BGPConfiguration", "node.n9", "  {}\n")],
            "b.yaml:3: BGPConfiguration/node.n9: metadata.name: there is no Node n9",
        ),
        (
            vec![peer("p", "  routeReflectorClient: true\n")],
            "b.yaml:7: BGPPeer/p: spec.routeReflectorClient: an eBGP peer is no route reflector client: on Node n1 our AS is 64512 \
             and the peer's 1",
        ),
        (
            vec![
                document("BGPPeer", "p", "  peerSelector: all()\n  routeReflectorClient: true\n"),
                document("BGPConfiguration", "node.n2", "  asNumber: 7\n"),
            ],
            "b.yaml:6: BGPPeer/p: spec.routeReflectorClient: an eBGP peer is no route reflector client: on Node n1 our AS is 64512 \
             and the peer's 7",
        ),
        (
            vec![document("BGPConfiguration", "default", "  routerID: 1.1.1.1\n")],
            "b.yaml:5: BGPConfiguration/default: spec.routerID: the default routerID is that of 2 Nodes at once",
        ),
    ] {
        let found = with(&documents);
        assert_eq!(found.len(), 1, "{want}: {found:#?}");
        assert!(found[0].starts_with(want), "{want}: {found:#?}");
    }
    // Parted by nodeSelector, two peers may have one address.
    let parted = ["has(rack)", "!has(rack)"]
        .map(|s| peer(&format!("p{}", s.len()), &format!("  nodeSelector: '{s}'\n")));
    assert_eq!(with(&parted), [""; 0]);
}

#[test]
fn what_kubernetes_gives_is_read() {
    let list = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Node\n  metadata: {name: n1, uid: x, managedFields: []}\n  \
                spec: {podCIDR: 10.1.0.0/24, taints: []}\n  status:\n    nodeInfo: {kernelVersion: \"6\"}\n    addresses:\n    \
                - {type: Hostname, address: n1}\n    - {type: InternalIP, address: 10.0.0.1}\n- apiVersion: weft.network/v1alpha1\n  kind: BGPPeer\n  \
                metadata: {name: p, uid: x, creationTimestamp: null, annotations: {a: b}}\n  spec: {peerIP: 10.0.0.9, asNumber: \"1.10\", \
                nodeSelector: {matchLabels: {rack: a}}}\n  status: {x: 1}\n";
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("x.yaml"), format!("\u{feff}{list}")).expect("a file");
    let cluster = load(folder.path()).expect("good");
    assert_eq!(cluster.nodes["n1"].pod_cidrs.len(), 1);
    assert_eq!(cluster.nodes["n1"].addresses.len(), 1);
    assert_eq!(cluster.peers["p"].as_number.map(|n| n.to_string()).as_deref(), Some("65546"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_the_reader_panic(text in "[a-z0-9:{}\\[\\],&*!|>\"'# \t\n~%@`-]{0,200}") {
        let found = errors(&[("x.yaml", &text)]);
        prop_assert!(!found.is_empty());
        prop_assert!(found.iter().all(|e| !e.message.is_empty() && !e.remedy.is_empty()));
    }

    #[test]
    fn a_good_document_cut_or_changed_anywhere_is_read_or_refused(at in 0usize..300, with in "\\PC{0,3}") {
        let good = document("BGPPeer", "p", "  peerIP: 10.0.0.1\n  asNumber: 65000\n  nodeSelector: rack == \"a\"\n  holdTime: 90s\n");
        let at = at % good.len();
        let _ = errors(&[("x.yaml", &format!("{}{with}{}", &good[..at], &good[at..]))]);
        let _ = errors(&[("x.yaml", &good[..at])]);
    }
}
