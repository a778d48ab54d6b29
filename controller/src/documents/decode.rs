//! One document made into an object: its envelope, its kind, its type.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value as Json;
use serde_path_to_error::{Path, Segment};

use super::secrets;
use super::services::{EndpointSliceDocument, ServiceDocument};
use super::yaml::{Located, Value};
use super::{Origin, Parsed};
use crate::api::json::DocumentError;
use crate::api::{Cidr, DRAIN_TAINTS, GROUP, Invalid, Labels, VERSION};
use crate::cluster::{Kind, Node, Object};

/// Every Namespace carries its name as this label, so that selectors can name it.
const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// How many errors of one object are looked for.
const MAX_ATTEMPTS: usize = 32;

/// A document of one of Weft's kinds.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Document<S> {
    #[serde(rename = "apiVersion")]
    _api_version: IgnoredAny,
    #[serde(rename = "kind")]
    _kind: IgnoredAny,
    metadata: Metadata,
    spec: S,
    /// Written by Weft, not read.
    #[serde(default, rename = "status")]
    _status: IgnoredAny,
}

/// The metadata that a document may carry. What Kubernetes adds is allowed, so that `kubectl get -o yaml` can be read back.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Metadata {
    name: String,
    #[serde(default, rename = "labels")]
    _labels: Labels,
    #[serde(default, rename = "annotations")]
    _annotations: Labels,
    #[serde(default, rename = "uid")]
    _uid: IgnoredAny,
    #[serde(default, rename = "resourceVersion")]
    _resource_version: IgnoredAny,
    #[serde(default, rename = "generation")]
    _generation: IgnoredAny,
    #[serde(default, rename = "creationTimestamp")]
    _creation_timestamp: IgnoredAny,
    #[serde(default, rename = "deletionTimestamp")]
    _deletion_timestamp: IgnoredAny,
    #[serde(default, rename = "deletionGracePeriodSeconds")]
    _deletion_grace_period_seconds: IgnoredAny,
    #[serde(default, rename = "finalizers")]
    _finalizers: IgnoredAny,
    #[serde(default, rename = "ownerReferences")]
    _owner_references: IgnoredAny,
    #[serde(default, rename = "managedFields")]
    _managed_fields: IgnoredAny,
}

/// A `v1` Node: only what Weft reads of it. The rest is Kubernetes' to check.
#[derive(Deserialize)]
struct NodeDocument {
    metadata: CoreMetadata,
    #[serde(default)]
    spec: NodeSpec,
    #[serde(default)]
    status: NodeStatus,
}

#[derive(Deserialize)]
struct CoreMetadata {
    name: String,
    #[serde(default)]
    labels: Labels,
}

#[derive(Default, Deserialize)]
struct NodeSpec {
    #[serde(default, rename = "podCIDR")]
    pod_cidr: Option<Cidr>,
    #[serde(default, rename = "podCIDRs")]
    pod_cidrs: Vec<Cidr>,
    #[serde(default)]
    taints: Vec<Taint>,
}

#[derive(Deserialize)]
struct Taint {
    key: String,
}

#[derive(Default, Deserialize)]
struct NodeStatus {
    #[serde(default)]
    addresses: Vec<NodeStatusAddress>,
    #[serde(default)]
    conditions: Vec<NodeCondition>,
}

#[derive(Deserialize)]
struct NodeCondition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    #[serde(default)]
    message: Option<String>,
}

impl NodeCondition {
    fn is_not_ready(&self) -> bool {
        self.kind == "Ready" && self.status != "True"
    }

    /// A kubelet with a graceful shutdown says so in words only; `reason` is the same for all that keeps a node from being ready.
    fn tells_of_shutdown(&self) -> bool {
        self.is_not_ready() && self.message.as_ref().is_some_and(|text| text.contains(SHUTTING_DOWN))
    }
}

/// Among the messages of the condition `Ready` while kubelet shuts the node down.
const SHUTTING_DOWN: &str = "node is shutting down";

/// An entry of `status.addresses`; only an `InternalIP` has to be an address.
#[derive(Deserialize)]
#[serde(try_from = "WrittenAddress")]
enum NodeStatusAddress {
    InternalIp(IpAddr),
    Other,
}

#[derive(Deserialize)]
struct WrittenAddress {
    #[serde(rename = "type")]
    kind: String,
    address: String,
}

impl TryFrom<WrittenAddress> for NodeStatusAddress {
    type Error = Invalid;

    fn try_from(written: WrittenAddress) -> Result<Self, Invalid> {
        if written.kind != "InternalIP" {
            return Ok(Self::Other);
        }
        match written.address.parse::<IpAddr>() {
            Ok(ip) if !ip.is_unspecified() && !ip.is_multicast() => Ok(Self::InternalIp(ip)),
            _ => Err(Invalid::new(
                format!("the InternalIP \"{}\" is not an address that a node can have", written.address),
                "write an IPv4 or IPv6 address without prefix length",
            )),
        }
    }
}

/// A `v1` Namespace: only what Weft reads of it.
#[derive(Deserialize)]
struct NamespaceDocument {
    metadata: CoreMetadata,
}

impl NamespaceDocument {
    /// Its name, and its labels as the API server completes them.
    fn named(self) -> (String, Labels) {
        let CoreMetadata { name, mut labels } = self.metadata;
        labels.insert(NAMESPACE_NAME_LABEL.into(), name.clone());
        (name, labels)
    }
}

impl NodeDocument {
    fn named(self) -> (String, Node) {
        let mut pod_cidrs = self.spec.pod_cidrs;
        if pod_cidrs.is_empty() {
            pod_cidrs.extend(self.spec.pod_cidr);
        }
        let addresses = self.status.addresses.into_iter().filter_map(|address| match address {
            NodeStatusAddress::InternalIp(ip) => Some(ip),
            NodeStatusAddress::Other => None,
        });
        let conditions = &self.status.conditions;
        let taints = self.spec.taints.into_iter().map(|taint| taint.key);
        let node = Node {
            labels: self.metadata.labels,
            pod_cidrs: pod_cidrs.into_iter().map(Cidr::net).collect(),
            addresses: addresses.collect(),
            not_ready: conditions.iter().any(NodeCondition::is_not_ready),
            drain_taints: taints.filter(|key| DRAIN_TAINTS.contains(&key.as_str())).collect(),
            shutting_down: conditions.iter().any(NodeCondition::tells_of_shutdown),
        };
        (self.metadata.name, node)
    }
}

/// Reads one document into `parsed`, or its errors into `errors`. A `v1` List is as many documents as it has items.
pub(super) fn document(
    file: &Arc<str>,
    located: Located,
    parsed: &mut Vec<Parsed>,
    errors: &mut Vec<DocumentError>,
) {
    let text = |key: &str| located.get(key).and_then(Located::as_str);
    let is_list = text("apiVersion") == Some("v1") && text("kind") == Some("List");
    if let Some(Value::List(items)) = located.get("items").map(|items| &items.value).filter(|_| is_list) {
        for item in items {
            object_of(file, item.clone(), parsed, errors);
        }
        return;
    }
    object_of(file, located, parsed, errors);
}

fn object_of(file: &Arc<str>, located: Located, parsed: &mut Vec<Parsed>, errors: &mut Vec<DocumentError>) {
    let (file, located) = (Arc::clone(file), Arc::new(located));
    let origin = Origin::File { file, located: Arc::clone(&located) };
    match one(located.to_json(), origin) {
        Ok(one) => parsed.push(one),
        Err(faults) => errors.extend(faults),
    }
}

/// Reads one object, or finds every error in it.
pub(super) fn one(json: Json, origin: Origin) -> Result<Parsed, Vec<DocumentError>> {
    let title = title(&json);
    match object(json) {
        Ok((name, object)) => Ok(Parsed { name, object, origin }),
        Err(faults) => Err(faults
            .into_iter()
            .map(|fault| DocumentError {
                file: origin.file(),
                line: origin.line_of(fault.field.as_deref().unwrap_or_default()),
                object: title.clone(),
                field: fault.field,
                message: fault.invalid.message,
                remedy: fault.invalid.remedy,
            })
            .collect()),
    }
}

/// Something wrong with a document, at a field or as a whole.
struct Fault {
    field: Option<String>,
    invalid: Invalid,
}

impl Fault {
    fn at(field: &str, invalid: Invalid) -> Vec<Self> {
        vec![Self { field: Some(field.into()), invalid }]
    }
}

fn header<'a>(json: &'a Json, key: &str) -> Option<&'a str> {
    json.get(key).and_then(Json::as_str)
}

fn title(json: &Json) -> Option<String> {
    let name = json.get("metadata").and_then(|metadata| header(metadata, "name"));
    Some(format!("{}/{}", header(json, "kind")?, name.unwrap_or("?")))
}

fn object(json: Json) -> Result<(String, Object), Vec<Fault>> {
    if !json.is_object() {
        let invalid =
            Invalid::new("the document is not a mapping", "write apiVersion, kind, metadata and spec");
        return Err(vec![Fault { field: None, invalid }]);
    }
    let [Some(api_version), Some(kind)] =
        ["apiVersion", "kind"].map(|key| header(&json, key).map(str::to_owned))
    else {
        let missing = if header(&json, "apiVersion").is_none() { "apiVersion" } else { "kind" };
        return Err(Fault::at(missing, Invalid::new(format!("{missing} is missing or not text"), kinds())));
    };
    let (name, object) = match (api_version.split_once('/'), kind.as_str()) {
        (None, "Node") if api_version == "v1" => {
            let (name, node) = typed::<NodeDocument>(json)?.named();
            (name, Object::Node(Arc::new(node)))
        }
        (None, "Namespace") if api_version == "v1" => {
            let (name, labels) = typed::<NamespaceDocument>(json)?.named();
            (name, Object::Namespace(Arc::new(labels)))
        }
        (None, "Secret") if api_version == "v1" => {
            let faults = |(field, invalid)| Fault { field: Some(field), invalid };
            let (name, secret) =
                secrets::named(&json).map_err(|found| found.into_iter().map(faults).collect::<Vec<_>>())?;
            (name, Object::Secret(Arc::new(secret)))
        }
        (None, "Service") if api_version == "v1" => {
            let (name, service) = typed::<ServiceDocument>(json)?.named();
            (name, Object::Service(Arc::new(service)))
        }
        (Some(("discovery.k8s.io", "v1")), "EndpointSlice") => {
            let (name, slice) = typed::<EndpointSliceDocument>(json)?.named();
            (name, Object::EndpointSlice(Arc::new(slice)))
        }
        (Some((GROUP, VERSION)), "BGPConfiguration") => named(json, Object::BgpConfiguration)?,
        (Some((GROUP, VERSION)), "BGPPeer") => named(json, Object::BgpPeer)?,
        (Some((GROUP, VERSION)), "BGPFilter") => named(json, Object::BgpFilter)?,
        (Some((GROUP, VERSION)), "BFDProfile") => named(json, Object::BfdProfile)?,
        (Some((GROUP, VERSION)), "IPPool") => named(json, Object::IpPool)?,
        (Some((GROUP, VERSION)), "IPBlock") => named(json, Object::IpBlock)?,
        (Some((GROUP, version)), _) if version != VERSION => {
            let message = format!("{api_version} is not a version that is read");
            return Err(Fault::at("apiVersion", Invalid::new(message, format!("write {GROUP}/{VERSION}"))));
        }
        _ => {
            let message = format!("{kind} of {api_version} is not a kind that is read");
            return Err(Fault::at("kind", Invalid::new(message, kinds())));
        }
    };
    let in_namespace = Kind::OF_SERVICES.contains(&object.kind());
    let fit = match name.split_once('/').filter(|_| in_namespace) {
        Some((namespace, name)) => fit_name(namespace) && fit_name(name),
        None => fit_name(&name),
    };
    match fit {
        true => Ok((name, object)),
        false => {
            Err(Fault::at("metadata.name", Invalid::new(format!("\"{name}\" is not a name"), NAME_REMEDY)))
        }
    }
}

fn kinds() -> String {
    format!(
        "write BGPConfiguration, BGPPeer, BGPFilter, BFDProfile, IPPool or IPBlock of {GROUP}/{VERSION}, Node, Namespace, Secret or Service of v1, or \
         EndpointSlice of discovery.k8s.io/v1"
    )
}

pub(super) const NAME_REMEDY: &str =
    "write at most 253 small letters, digits, hyphens and dots, a letter or digit at both ends (RFC 1123)";

/// Whether Kubernetes would take this as the name of an object (RFC 1123 subdomain).
pub(super) fn fit_name(name: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

fn named<S: DeserializeOwned>(
    json: Json,
    make: fn(Arc<S>) -> Object,
) -> Result<(String, Object), Vec<Fault>> {
    let document: Document<S> = typed(json)?;
    Ok((document.metadata.name, make(Arc::new(document.spec))))
}

/// Reads a value by its type, and if that fails finds every error: serde stops at the first, so what is at fault is taken
/// out and the rest read again.
fn typed<T: DeserializeOwned>(mut json: Json) -> Result<T, Vec<Fault>> {
    let mut faults: Vec<Fault> = Vec::new();
    let mut removed = Removed::default();
    for _ in 0..MAX_ATTEMPTS {
        let error = match serde_path_to_error::deserialize::<_, T>(&json) {
            Ok(value) if faults.is_empty() => return Ok(value),
            Ok(_) => break,
            Err(error) => error,
        };
        let mut field = removed.original(error.path());
        let text = error.inner().to_string();
        if let Some(name) = text.strip_prefix("missing field `").and_then(|t| t.strip_suffix('`')) {
            let dot = if field.is_empty() { "" } else { "." };
            let _ = write!(field, "{dot}{name}");
        }
        if !removed.paths.contains(&field) {
            let invalid = explain(&field, &text);
            faults.push(Fault { field: Some(field), invalid });
        }
        if !removed.take_out(&mut json, error.path()) {
            break;
        }
    }
    Err(faults)
}

/// What was taken out of a document.
#[derive(Default)]
struct Removed {
    /// The paths, as their author counts: that they are missing is no error of his.
    paths: BTreeSet<String>,
    /// The items of lists, by the list's path: those behind them have moved up.
    items: BTreeMap<String, BTreeSet<usize>>,
}

impl Removed {
    /// A path as its author counts: `spec.importV4[1].cidr`.
    fn original(&self, path: &Path) -> String {
        let mut shown = String::new();
        for segment in path {
            let _ = match segment {
                Segment::Seq { index } => {
                    let before = self.items.get(&shown);
                    let index =
                        before.into_iter().flatten().fold(*index, |i, gone| i + usize::from(*gone <= i));
                    write!(shown, "[{index}]")
                }
                Segment::Map { key } if shown.is_empty() => write!(shown, "{key}"),
                Segment::Map { key } => write!(shown, ".{key}"),
                Segment::Enum { .. } | Segment::Unknown => Ok(()),
            };
        }
        shown
    }

    /// Removes what is at `path`, if there is such a thing.
    fn take_out(&mut self, json: &mut Json, path: &Path) -> bool {
        let original = self.original(path);
        self.paths.insert(original.clone());
        let mut steps = path.iter().filter(|s| matches!(s, Segment::Seq { .. } | Segment::Map { .. }));
        let Some(last) = steps.next_back() else { return false };
        let parent = steps.try_fold(json, |here, step| match step {
            Segment::Seq { index } => here.get_mut(index),
            Segment::Map { key } => here.get_mut(key),
            Segment::Enum { .. } | Segment::Unknown => None,
        });
        match (parent, last) {
            (Some(Json::Object(entries)), Segment::Map { key }) => entries.remove(key).is_some(),
            (Some(Json::Array(items)), Segment::Seq { index }) if *index < items.len() => {
                items.remove(*index);
                let Some((list, index)) = original.rsplit_once('[') else { return false };
                let index = index.trim_end_matches(']').parse();
                index.is_ok_and(|index| self.items.entry(list.into()).or_default().insert(index))
            }
            _ => false,
        }
    }
}

/// Which numbers a field takes whose type is an integer: those of its type, unless its checks know better.
fn numbers(field: &str, kind: &str) -> Option<&'static str> {
    let of_type = match kind {
        "u8" => "0 to 255",
        "u16" => "0 to 65535",
        "a nonzero u8" => "1 to 255",
        "a nonzero u16" => "1 to 65535",
        "u32" => "0 to 4294967295",
        "a nonzero u32" => "1 to 4294967295",
        _ => return None,
    };
    let name = field.rsplit('.').next().unwrap_or(field);
    Some(match name {
        "ttlSecurity" => "1 to 254",
        "warningThreshold" => "1 to 100",
        "detectMultiplier" => "2 to 255",
        "minimumTtl" => "1 to 255",
        "maxPaths" => "1 to 256",
        "buckets" => "256 to 65535",
        "listenLimit" => "1 to 2000",
        "sendMax" => "2 to 64",
        "routeMetric" => "1 to 4278198271",
        "mtu" => "1280 to 65535",
        _ => of_type,
    })
}

/// The words of serde's errors, in ours.
fn explain(field: &str, text: &str) -> Invalid {
    const SERDE: [&str; 5] =
        ["unknown ", "invalid type", "invalid value", "missing field", "duplicate field"];
    let ours = !SERDE.iter().any(|start| text.starts_with(start));
    if let Some(invalid) = Invalid::parted(text).filter(|_| ours) {
        return invalid;
    }
    // Whoever has written the password itself must not find it in logs and statuses.
    if text.ends_with("expected struct PasswordSource") {
        let remedy = "write secretKeyRef: {name: SECRET, key: KEY}";
        return Invalid::new("the password itself is not written here", remedy);
    }
    let (message, expected) = text.split_once(", expected ").unwrap_or((text, ""));
    let remedy = match expected {
        "" if message.starts_with("missing field") => "add it".into(),
        "" => "compare with the documentation of the field".into(),
        "a string" => "write text, in quotes".into(),
        "a boolean" => "write true or false".into(),
        "a sequence" => "write a list".into(),
        "there are no fields" => "take it out".into(),
        _ if expected.starts_with("struct ") => "write a mapping of fields".into(),
        _ => format!("write {}", numbers(field, expected).unwrap_or(&expected.replace('`', ""))),
    };
    Invalid::new(message.replace('`', "\""), remedy)
}
