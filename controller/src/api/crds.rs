//! The resource types as Kubernetes wants them described.

use kube::CustomResourceExt;
use serde_json::{Value as Json, json};

use super::{
    BFDProfile, BGPConfiguration, BGPFilter, BGPNodeStatus, BGPPeer, IPBlock, IPPool, LoadBalancerIP,
};

/// A rule in CEL for what a schema cannot say: the kind, where in its schema, the expression, and what is wrong where it is false.
type Rule = (&'static str, &'static str, &'static str, &'static str);

/// Where in a CustomResourceDefinition the schema of an object is.
const SCHEMA: &str = "/spec/versions/0/schema/openAPIV3Schema";

const RULES: &[Rule] = &[
    (
        "BFDProfile",
        "/properties/spec",
        "!has(self.receiveInterval) || duration(self.receiveInterval) >= duration('10ms') && duration(self.receiveInterval) <= duration('60s')",
        "receiveInterval: write 10ms to 60s",
    ),
    (
        "BFDProfile",
        "/properties/spec",
        "!has(self.transmitInterval) || duration(self.transmitInterval) >= duration('10ms') && duration(self.transmitInterval) <= duration('60s')",
        "transmitInterval: write 10ms to 60s",
    ),
    (
        "BGPConfiguration",
        "",
        "self.metadata.name == 'default' || self.metadata.name.matches('^node[.].+$')",
        "name it default, or node.NAME for the Node NAME: under another name it holds for no node",
    ),
    ("BGPConfiguration", "/properties/spec", UNEVEN, KEEPALIVE),
    (
        "BGPConfiguration",
        "/properties/spec",
        "!has(self.maxPaths) || self.maxPaths <= 256",
        "maxPaths: write 1 to 256",
    ),
    (
        "BGPConfiguration",
        "/properties/spec/properties/resilientNextHops",
        "!has(self.idleTime) || duration(self.idleTime) >= duration('1s') && duration(self.idleTime) <= duration('24h')",
        "idleTime: write whole seconds from 1s to 24h",
    ),
    (
        "BGPConfiguration",
        "/properties/spec/properties/resilientNextHops",
        "!has(self.unbalancedTime) || duration(self.unbalancedTime) == duration('0s') || duration(self.unbalancedTime) >= duration('1s') && duration(self.unbalancedTime) <= duration('24h')",
        "unbalancedTime: write 0s (for ever), or whole seconds from 1s to 24h",
    ),
    (
        "BGPConfiguration",
        "/properties/spec/properties/mrt",
        "has(self.updates) || has(self.tables)",
        "give updates, tables, or both",
    ),
    (
        "BGPPeer",
        "/properties/spec",
        "!(has(self.peerIP) || has(self.interface) || has(self.listenRange)) || has(self.asNumber)",
        "asNumber is missing: a number, X.Y, internal or external",
    ),
    (
        "BGPPeer",
        "/properties/spec",
        // What a selector may be has no one type, and CEL knows nothing of it.
        "!has(self.interface) || !has(self.peerIP)",
        "interface: keep one of peerIP and interface",
    ),
    (
        "BGPPeer",
        "/properties/spec",
        "!has(self.listenRange) || !(has(self.peerIP) || has(self.interface) || has(self.sourceAddress) || has(self.passive) && !self.passive)",
        "listenRange: leave out peerIP, interface and sourceAddress, as whoever connects is the peer and nobody is dialled",
    ),
    (
        "BGPPeer",
        "/properties/spec",
        "!has(self.listenLimit) || has(self.listenRange)",
        "listenLimit: it belongs to listenRange",
    ),
    (
        "BGPPeer",
        "/properties/spec",
        "!has(self.interface) || !(has(self.sourceAddress) || has(self.ebgpMultihop) && self.ebgpMultihop)",
        "interface: leave out sourceAddress and ebgpMultihop, as both ends are link-local addresses of one link",
    ),
    (
        "BGPPeer",
        "/properties/spec",
        "!has(self.ttlSecurity) || !(has(self.ebgpMultihop) && self.ebgpMultihop)",
        "ttlSecurity: keep one of ttlSecurity and ebgpMultihop",
    ),
    (
        "BGPConfiguration",
        "/properties/spec",
        "!has(self.nodeMeshTCPAO) || !has(self.nodeMeshPassword)",
        "nodeMeshTCPAO: keep one of nodeMeshTCPAO and nodeMeshPassword",
    ),
    (
        "BGPConfiguration",
        "/properties/spec/properties/nodeMeshTCPAO",
        "self.keys.all(key, key.sendID == key.receiveID)",
        "keys: the sendID and the receiveID of a key are one between nodes, which have the same keys",
    ),
    ("BGPConfiguration", "/properties/spec/properties/nodeMeshTCPAO", UNIQUE_IDS, UNIQUE_IDS_WORDS),
    ("BGPPeer", "/properties/spec/properties/tcpAO", UNIQUE_IDS, UNIQUE_IDS_WORDS),
    (
        "BGPPeer",
        "/properties/spec",
        "!has(self.tcpAO) || !has(self.password)",
        "tcpAO: keep one of tcpAO and password",
    ),
    (
        "BGPConfiguration",
        "/properties/spec/properties/nodeMeshMaxPrefixes",
        RESTART_AFTER,
        RESTART_AFTER_WORDS,
    ),
    ("BGPPeer", "/properties/spec/properties/maxPrefixes", RESTART_AFTER, RESTART_AFTER_WORDS),
    (
        "BGPPeer",
        "/properties/spec/properties/addPath",
        "(has(self.receive) && self.receive) || has(self.send)",
        "addPath: write receive: true, send: Multipath or send: All, or leave it out",
    ),
    (
        "BGPPeer",
        "/properties/spec/properties/addPath",
        "!has(self.sendMax) || has(self.send)",
        "sendMax: it needs send, Multipath or All",
    ),
    ("BGPPeer", "/properties/spec", UNEVEN, KEEPALIVE),
    (
        "BGPPeer",
        "/properties/spec",
        "!has(self.families) || size(self.families) > 0",
        "families: list one or both, or leave it out for both",
    ),
    (
        "BGPPeer",
        "/properties/spec",
        "!has(self.routeReflectorClient) || !self.routeReflectorClient || !has(self.asNumber) || type(self.asNumber) != string \
         || self.asNumber != 'external'",
        "routeReflectorClient: only a peer of our own AS is reflected for: write asNumber: internal, or leave it out",
    ),
    (
        "BGPPeer",
        "/properties/spec",
        "!has(self.roleStrict) || !self.roleStrict || has(self.role)",
        "roleStrict: add role, which says what our AS is to the peer's",
    ),
    (
        "BGPPeer",
        "/properties/spec",
        "!has(self.shutdownMessage) || has(self.shutdown) && self.shutdown",
        "shutdownMessage: it needs shutdown: true",
    ),
    (
        "BGPPeer",
        "/properties/spec",
        "!has(self.shutdownMessage) || size(bytes(self.shutdownMessage)) <= 255 && !self.shutdownMessage.matches(r'\\p{Cc}')",
        "shutdownMessage: write one line of 255 octets of UTF-8 at most (RFC 9003)",
    ),
    ("BGPFilter", "/properties/spec/properties/importV4/items", RULE_CIDR, RULE_CIDR_WORDS),
    ("BGPFilter", "/properties/spec/properties/exportV4/items", RULE_CIDR, RULE_CIDR_WORDS),
    ("BGPFilter", "/properties/spec/properties/importV6/items", RULE_CIDR, RULE_CIDR_WORDS),
    ("BGPFilter", "/properties/spec/properties/exportV6/items", RULE_CIDR, RULE_CIDR_WORDS),
    ("BGPFilter", "/properties/spec/properties/importV4/items", RULE_V4, "cidr: IPv6 belongs to importV6"),
    ("BGPFilter", "/properties/spec/properties/exportV4/items", RULE_V4, "cidr: IPv6 belongs to exportV6"),
    ("BGPFilter", "/properties/spec/properties/importV6/items", RULE_V6, "cidr: IPv4 belongs to importV4"),
    ("BGPFilter", "/properties/spec/properties/exportV6/items", RULE_V6, "cidr: IPv4 belongs to exportV4"),
    ("BGPFilter", "/properties/spec/properties/importV4/items", RULE_OPERATIONS, RULE_OPERATIONS_WORDS),
    ("BGPFilter", "/properties/spec/properties/exportV4/items", RULE_OPERATIONS, RULE_OPERATIONS_WORDS),
    ("BGPFilter", "/properties/spec/properties/importV6/items", RULE_OPERATIONS, RULE_OPERATIONS_WORDS),
    ("BGPFilter", "/properties/spec/properties/exportV6/items", RULE_OPERATIONS, RULE_OPERATIONS_WORDS),
    (
        "IPPool",
        "/properties/spec",
        "!has(self.blockSize) || (self.cidr.contains(':') ? self.blockSize >= 116 && self.blockSize <= 128 \
         : self.blockSize >= 20 && self.blockSize <= 32)",
        "blockSize: write 20 to 32 for IPv4, 116 to 128 for IPv6",
    ),
    (
        "IPPool",
        "/properties/spec",
        "!has(self.allowedUses) || size(self.allowedUses) == 1",
        "allowedUses: name one of Workload and LoadBalancer; pods and Services have pools of their own",
    ),
    (
        "IPPool",
        "/properties/spec",
        "!has(self.allowedUses) || !self.allowedUses.exists(use, use == 'LoadBalancer') || !(has(self.blockSize) \
         || has(self.topology) || self.natOutgoing || self.disableBGPExport)",
        "allowedUses: a pool for LoadBalancer has no blocks: leave out blockSize, topology, natOutgoing and disableBGPExport",
    ),
    (
        "IPPool",
        "/properties/spec",
        "(has(self.allowedUses) ? self.allowedUses : ['Workload']) == (has(oldSelf.allowedUses) ? oldSelf.allowedUses : ['Workload'])",
        "allowedUses: it stays, as pods or Services have addresses of the pool; make another pool, and delete this one once none is in use",
    ),
    (
        "LoadBalancerIP",
        "",
        "self.spec.address.contains(':') || self.metadata.name == self.spec.address",
        "name it after its address: weft-controller makes these objects",
    ),
    (
        "LoadBalancerIP",
        "/properties/spec",
        "self.address == oldSelf.address",
        "address: it is what the object is for, and stays",
    ),
];

const UNEVEN: &str = "!has(self.holdTime) || !has(self.keepaliveTime) || duration(self.keepaliveTime) < duration(self.holdTime)";
const KEEPALIVE: &str = "keepaliveTime must be shorter than holdTime: a third or less, or leave it out";
const RESTART_AFTER: &str = "has(self.restartAfter) == (has(self.action) && self.action == 'Restart')";
const RESTART_AFTER_WORDS: &str = "restartAfter: it belongs to action: Restart, and to no other";
const UNIQUE_IDS: &str = "self.keys.all(key, self.keys.exists_one(other, other.sendID == key.sendID) && self.keys.exists_one(other, other.receiveID == key.receiveID))";
const UNIQUE_IDS_WORDS: &str = "keys: give each its own sendID and its own receiveID";
const RULE_CIDR: &str =
    "has(self.cidr) == has(self.matchOperator) && (!has(self.prefixLength) || has(self.cidr))";
const RULE_CIDR_WORDS: &str = "cidr and matchOperator belong together, and prefixLength to both";
const RULE_OPERATIONS: &str =
    "self.action == 'Accept' || !has(self.operations) || size(self.operations) == 0";
const RULE_OPERATIONS_WORDS: &str = "operations: leave them out of a rule that rejects";
const RULE_V4: &str = "!has(self.cidr) || !self.cidr.contains(':')";
const RULE_V6: &str = "!has(self.cidr) || self.cidr.contains(':')";

/// The CustomResourceDefinitions of every kind, as YAML documents in order of their names.
///
/// # Errors
/// A schema that cannot be written as YAML; a test proves that there is none.
pub fn crds() -> Result<String, serde_yaml::Error> {
    let mut text =
        String::from("# Generated from the types in controller/src/api by `make crds`. Do not edit.\n");
    let crds = [
        BFDProfile::crd(),
        BGPConfiguration::crd(),
        BGPFilter::crd(),
        BGPNodeStatus::crd(),
        BGPPeer::crd(),
        IPBlock::crd(),
        IPPool::crd(),
        LoadBalancerIP::crd(),
    ];
    for crd in crds {
        let kind = crd.spec.names.kind.clone();
        let mut crd = serde_json::to_value(crd).map_err(<serde_yaml::Error as serde::ser::Error>::custom)?;
        without_unknown_formats(&mut crd);
        for (_, path, rule, message) in RULES.iter().filter(|rule| rule.0 == kind) {
            if let Some(schema) = crd.pointer_mut(&format!("{SCHEMA}{path}")) {
                let rule = json!({ "rule": rule, "message": message });
                match &mut schema["x-kubernetes-validations"] {
                    Json::Array(rules) => rules.push(rule),
                    none => *none = json!([rule]),
                }
            }
        }
        text.push_str("---\n");
        text.push_str(&serde_yaml::to_string(&crd)?);
    }
    Ok(text)
}

/// Takes out the formats of unsigned numbers, which Kubernetes warns of; their bounds stay.
fn without_unknown_formats(json: &mut Json) {
    match json {
        Json::Object(fields) => {
            fields.retain(|key, value| {
                key != "format" || !value.as_str().is_some_and(|v| v.starts_with("uint"))
            });
            fields.values_mut().for_each(without_unknown_formats);
        }
        Json::Array(items) => items.iter_mut().for_each(without_unknown_formats),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_finds_its_place() {
        let validations = crds().unwrap().matches("- message: ").count();
        assert_eq!(validations, RULES.len());
    }

    #[test]
    fn no_format_is_one_that_kubernetes_does_not_know() {
        assert!(!crds().unwrap().contains("format: uint"));
    }
}
