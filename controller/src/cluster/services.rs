//! Services and where their endpoints are: what an announcement depends on, and no more.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use weft_bgp::types::Family;

/// What Weft knows of a `v1` Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// `spec.clusterIPs`; none for a headless Service.
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.externalIPs`.
    pub external_ips: Vec<IpAddr>,
    /// The addresses of `status.loadBalancer.ingress` of a Service of type LoadBalancer, but for those with `ipMode: Proxy`: their
    /// packets come from the load balancer under another destination.
    pub load_balancer_ips: Vec<IpAddr>,
    /// `spec.internalTrafficPolicy`: which endpoints answer at [`Self::cluster_ips`].
    pub internal_policy: TrafficPolicy,
    /// `spec.externalTrafficPolicy`: which endpoints answer at the other addresses.
    pub external_policy: TrafficPolicy,
}

/// Which endpoints a node hands its packets to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TrafficPolicy {
    /// All of the cluster.
    #[default]
    Cluster,
    /// Those on the node itself.
    Local,
}

impl std::fmt::Display for TrafficPolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Cluster => "Cluster",
            Self::Local => "Local",
        })
    }
}

/// What Weft knows of a `discovery.k8s.io/v1` EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Whose endpoints they are, as `NAMESPACE/NAME`: the label `kubernetes.io/service-name`.
    pub service: Option<String>,
    /// The family of the endpoints' addresses; none: they have names.
    pub family: Option<Family>,
    /// Where the endpoints are that serve and are to go on doing so.
    pub ready: EndpointNodes,
    /// Where those are that still serve, and terminate.
    pub terminating: EndpointNodes,
}

impl EndpointSlice {
    /// Forgets which other nodes than this one have endpoints, but not that some have.
    pub fn see_from(&mut self, node: &str) {
        self.ready.see_from(node);
        self.terminating.see_from(node);
    }
}

/// The nodes of some endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointNodes {
    /// The nodes that have at least one.
    pub nodes: BTreeSet<String>,
    /// Whether there is one that is on no node of the cluster, or on one that is none of `nodes`.
    pub elsewhere: bool,
}

impl EndpointNodes {
    fn see_from(&mut self, node: &str) {
        let all = self.nodes.len();
        self.nodes.retain(|name| name == node);
        self.elsewhere |= self.nodes.len() < all;
    }

    /// Whether there is no endpoint.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty() && !self.elsewhere
    }

    /// Takes in an endpoint on this node, or on none.
    pub fn add(&mut self, node: Option<String>) {
        match node {
            Some(node) => drop(self.nodes.insert(node)),
            None => self.elsewhere = true,
        }
    }
}
