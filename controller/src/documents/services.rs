//! Services and EndpointSlices as Kubernetes writes them: only what Weft reads. The rest is Kubernetes' to check.

use std::net::IpAddr;

use serde::Deserialize;
use weft_bgp::types::Family;

use crate::api::{Invalid, Labels};
use crate::cluster::{EndpointNodes, EndpointSlice, Service, TrafficPolicy};

/// The label that says whose endpoints an EndpointSlice has.
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// The metadata of what is in a Namespace.
#[derive(Deserialize)]
struct NamespacedMetadata {
    name: String,
    #[serde(default = "default_namespace")]
    namespace: String,
    #[serde(default)]
    labels: Labels,
}

/// Where `kubectl apply` puts what names no Namespace.
fn default_namespace() -> String {
    "default".into()
}

impl NamespacedMetadata {
    fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// A `v1` Service.
#[derive(Deserialize)]
pub(super) struct ServiceDocument {
    metadata: NamespacedMetadata,
    #[serde(default)]
    spec: ServiceSpec,
    #[serde(default)]
    status: ServiceStatus,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ServiceSpec {
    #[serde(default, rename = "type")]
    kind: Option<String>,
    #[serde(default, rename = "clusterIP")]
    cluster_ip: Option<ClusterIp>,
    #[serde(default, rename = "clusterIPs")]
    cluster_ips: Option<Vec<ClusterIp>>,
    #[serde(default, rename = "externalIPs")]
    external_ips: Option<Vec<ServiceIp>>,
    #[serde(default)]
    internal_traffic_policy: Option<TrafficPolicy>,
    #[serde(default)]
    external_traffic_policy: Option<TrafficPolicy>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ServiceStatus {
    #[serde(default)]
    load_balancer: LoadBalancerStatus,
}

#[derive(Default, Deserialize)]
struct LoadBalancerStatus {
    #[serde(default)]
    ingress: Option<Vec<Ingress>>,
}

/// An entry of `status.loadBalancer.ingress`: an address, or a name.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ingress {
    #[serde(default)]
    ip: Option<ServiceIp>,
    #[serde(default)]
    ip_mode: Option<String>,
}

impl Ingress {
    /// The address, if packets to it come with it as their destination.
    fn address(&self) -> Option<IpAddr> {
        self.ip.as_ref().filter(|_| self.ip_mode.as_deref() != Some("Proxy")).map(|ip| ip.0)
    }
}

/// An address that a Service can have.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
struct ServiceIp(IpAddr);

impl TryFrom<String> for ServiceIp {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        match text.parse::<IpAddr>() {
            Ok(ip) if !ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast() => Ok(Self(ip)),
            _ => Err(Invalid::new(
                format!("\"{text}\" is not an address that a Service can have"),
                "write an IPv4 or IPv6 address without prefix length",
            )),
        }
    }
}

/// A ClusterIP: an address, or none where `None` stands (headless) or nothing (of type ExternalName).
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
struct ClusterIp(Option<IpAddr>);

impl TryFrom<String> for ClusterIp {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        match text.as_str() {
            "" | "None" => Ok(Self(None)),
            _ => ServiceIp::try_from(text).map(|ip| Self(Some(ip.0))),
        }
    }
}

impl ServiceDocument {
    /// Its name with its Namespace, and what Weft knows of it.
    pub(super) fn named(self) -> (String, Service) {
        let spec = self.spec;
        let cluster_ips = match spec.cluster_ips {
            Some(ips) if !ips.is_empty() => ips,
            _ => spec.cluster_ip.into_iter().collect(),
        };
        let balanced = spec.kind.as_deref() == Some("LoadBalancer");
        let ingress = self.status.load_balancer.ingress.filter(|_| balanced).unwrap_or_default();
        let service = Service {
            cluster_ips: cluster_ips.into_iter().filter_map(|ip| ip.0).collect(),
            external_ips: spec.external_ips.unwrap_or_default().into_iter().map(|ip| ip.0).collect(),
            load_balancer_ips: ingress.iter().filter_map(Ingress::address).collect(),
            internal_policy: spec.internal_traffic_policy.unwrap_or_default(),
            external_policy: spec.external_traffic_policy.unwrap_or_default(),
        };
        (self.metadata.key(), service)
    }
}

/// A `discovery.k8s.io/v1` EndpointSlice.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EndpointSliceDocument {
    metadata: NamespacedMetadata,
    address_type: AddressType,
    /// The API server writes null for none.
    #[serde(default)]
    endpoints: Option<Vec<Endpoint>>,
}

#[derive(Clone, Copy, Deserialize)]
enum AddressType {
    #[serde(rename = "IPv4")]
    Ipv4,
    #[serde(rename = "IPv6")]
    Ipv6,
    #[serde(rename = "FQDN")]
    Fqdn,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint {
    #[serde(default)]
    node_name: Option<String>,
    #[serde(default)]
    conditions: Conditions,
}

/// What is not said: `ready` is true, `serving` is as `ready`, `terminating` is false (discovery/v1 EndpointConditions).
#[derive(Clone, Copy, Default, Deserialize)]
struct Conditions {
    #[serde(default)]
    ready: Option<bool>,
    #[serde(default)]
    serving: Option<bool>,
    #[serde(default)]
    terminating: Option<bool>,
}

impl EndpointSliceDocument {
    /// Its name with its Namespace, and what Weft knows of it.
    pub(super) fn named(self) -> (String, EndpointSlice) {
        let (mut ready, mut terminating) = (EndpointNodes::default(), EndpointNodes::default());
        for endpoint in self.endpoints.unwrap_or_default() {
            let conditions = endpoint.conditions;
            if !conditions.serving.or(conditions.ready).unwrap_or(true) {
                continue;
            }
            let terminates = conditions.terminating.unwrap_or(false);
            let nodes = if terminates { &mut terminating } else { &mut ready };
            nodes.add(endpoint.node_name);
        }
        let metadata = self.metadata;
        let service = metadata.labels.get(SERVICE_NAME_LABEL);
        let slice = EndpointSlice {
            service: service.map(|service| format!("{}/{service}", metadata.namespace)),
            family: match self.address_type {
                AddressType::Ipv4 => Some(Family::Ipv4Unicast),
                AddressType::Ipv6 => Some(Family::Ipv6Unicast),
                AddressType::Fqdn => None,
            },
            ready,
            terminating,
        };
        (metadata.key(), slice)
    }
}
