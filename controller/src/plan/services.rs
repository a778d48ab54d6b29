//! Which Services' prefixes a node announces: ranges whole, and besides each address that not every node answers.
//!
//! A router prefers the longer prefix. So where only some nodes have endpoints of a Service whose policy is Local, those announce its
//! address, and the range that every node announces draws nothing for it. Where no node has one, the range does, and the packet
//! is rejected at its first node.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use weft_bgp::types::{Family, Reason};

use super::settings::{ServiceSettings, Settings};
use crate::api::ServiceAggregation;
use crate::cluster::{Cluster, Node, Service, TrafficPolicy};

/// A prefix of Services', and what this node makes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePrefix {
    /// The Services that have the address, as `NAMESPACE/NAME`; none: it is a range.
    pub services: BTreeSet<String>,
    /// Which endpoints count; none: it is a range.
    pub policy: Option<TrafficPolicy>,
    /// Whether peers are told, and why.
    pub verdict: ServiceVerdict,
}

/// Whether peers are told of a Services' prefix, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceVerdict {
    /// They are: it is a range, which every node answers.
    Range,
    /// They are: every node answers, and ranges are not announced whole.
    EveryNode,
    /// They are: an endpoint is on this node.
    LocalEndpoint,
    /// They will be soon: it is not answered here for long enough.
    Settling,
    /// They are not: every node answers, and announces this range.
    Covered(IpNet),
    /// They are not: no endpoint is on this node.
    NoLocalEndpoint,
    /// They are not: there is no endpoint at all.
    NoEndpoint,
    /// They are not: no range of its sort of addresses has it.
    OutOfRange,
    /// They are not: the Node is not Ready.
    NodeNotReady,
    /// They are not: a label excludes the Node.
    NodeExcluded,
    /// They are not: the node drains.
    NodeDraining,
}

impl ServiceVerdict {
    /// Whether peers are told.
    #[must_use]
    pub fn is_announced(self) -> bool {
        matches!(self, Self::Range | Self::EveryNode | Self::LocalEndpoint)
    }

    /// In words.
    #[must_use]
    pub fn reason(self) -> Reason {
        match self {
            Self::Range => Reason::new("range", "every node answers for this range"),
            Self::EveryNode => {
                Reason::new("every-node", "every node answers, and serviceAggregation is Disabled")
            }
            Self::LocalEndpoint => Reason::new("local-endpoint", "a ready endpoint is on this node"),
            Self::Settling => Reason::new("settling", "answered here for less than serviceSettleTime"),
            Self::Covered(range) => {
                Reason::new("covered", format!("every node answers, and announces {range}"))
            }
            Self::NoLocalEndpoint => {
                Reason::new("no-local-endpoint", "no ready endpoint is on this node, and the policy is Local")
            }
            Self::NoEndpoint => Reason::new("no-endpoint", "no Service of this address has a ready endpoint"),
            Self::OutOfRange => {
                Reason::new("out-of-range", "no service range of the BGPConfiguration has it")
            }
            Self::NodeNotReady => {
                Reason::new("node-not-ready", "the condition Ready of the Node is not True")
            }
            Self::NodeExcluded => Reason::new(
                "node-excluded",
                "the Node is labelled node.kubernetes.io/exclude-from-external-load-balancers",
            ),
            Self::NodeDraining => super::drain::withheld(),
        }
    }
}

/// The prefixes that a node would announce if none had to settle, and for how long they do.
#[must_use]
pub fn answered(cluster: &Cluster, node: &str) -> (BTreeSet<IpNet>, Duration) {
    let settings = Settings::of(cluster, node).services;
    let Some(facts) = cluster.nodes.get(node) else { return (BTreeSet::new(), settings.settle_time) };
    if withheld(facts).is_some() {
        return (BTreeSet::new(), settings.settle_time);
    }
    let aggregates = aggregates(&settings);
    let addresses = judged(cluster, node, &settings, &aggregates);
    let answered = addresses.into_iter().filter(|(_, judged)| judged.verdict.is_announced());
    (answered.map(|(address, _)| address.into()).chain(aggregates).collect(), settings.settle_time)
}

/// Whether a node has to know of Services at all.
pub(crate) fn are_announced(cluster: &Cluster, node: &str) -> bool {
    Settings::of(cluster, node).services.ranges().next().is_some()
}

/// Every prefix of Services' that this node announces or might.
pub(super) fn prefixes(
    cluster: &Cluster,
    name: &str,
    node: &Node,
    settings: &ServiceSettings,
    settling: &BTreeSet<IpNet>,
) -> BTreeMap<IpNet, ServicePrefix> {
    if settings.ranges().next().is_none() {
        return BTreeMap::new();
    }
    let aggregates = aggregates(settings);
    let addresses = judged(cluster, name, settings, &aggregates);
    let whole = aggregates.into_iter().map(|range| {
        let prefix =
            ServicePrefix { services: BTreeSet::new(), policy: None, verdict: ServiceVerdict::Range };
        (range, prefix)
    });
    let mut prefixes: BTreeMap<IpNet, ServicePrefix> = whole.collect();
    prefixes.extend(addresses.into_iter().map(|(address, judged)| (address.into(), judged.into_prefix())));
    let withheld = withheld(node);
    for (net, prefix) in prefixes.iter_mut().filter(|(_, prefix)| prefix.verdict.is_announced()) {
        let settling = settling.contains(net).then_some(ServiceVerdict::Settling);
        prefix.verdict = withheld.or(settling).unwrap_or(prefix.verdict);
    }
    prefixes
}

/// The ranges that are announced whole.
fn aggregates(settings: &ServiceSettings) -> BTreeSet<IpNet> {
    match settings.aggregation {
        // A range of one address is that address: whether it is announced is up to its Services.
        ServiceAggregation::Enabled => {
            settings.ranges().filter(|range| range.prefix_len() < range.max_prefix_len()).collect()
        }
        ServiceAggregation::Disabled => BTreeSet::new(),
    }
}

/// Why a Node announces nothing of Services, if so.
fn withheld(node: &Node) -> Option<ServiceVerdict> {
    match node {
        // A node that is shut down drains: others are better at once, and the last Services leave with the pods.
        _ if node.not_ready && !node.shutting_down => Some(ServiceVerdict::NodeNotReady),
        _ if node.is_excluded_from_load_balancers() => Some(ServiceVerdict::NodeExcluded),
        _ => None,
    }
}

/// What becomes of an address, whatever the Node.
struct Judged<'a> {
    claims: Claims<'a>,
    policy: TrafficPolicy,
    verdict: ServiceVerdict,
}

impl Judged<'_> {
    fn into_prefix(self) -> ServicePrefix {
        let in_range = self.claims.in_range.iter().map(|(service, _)| *service);
        let services = in_range.chain(self.claims.others).map(str::to_owned).collect();
        ServicePrefix { services, policy: Some(self.policy), verdict: self.verdict }
    }
}

/// The addresses of Services and what becomes of them.
fn judged<'a>(
    cluster: &'a Cluster,
    node: &str,
    settings: &ServiceSettings,
    aggregates: &BTreeSet<IpNet>,
) -> BTreeMap<IpAddr, Judged<'a>> {
    let claims = claims(cluster, settings);
    let aggregate = |address: &IpAddr| {
        let covering = aggregates.iter().filter(|range| range.contains(address));
        covering.max_by_key(|range| range.prefix_len()).copied()
    };
    let depends = claims.iter().filter(|(address, claims)| claims.depends_on_endpoints(aggregate(address)));
    let services = depends.flat_map(|(_, claims)| claims.in_range.iter().map(|(service, _)| *service));
    let endpoints = endpoints(cluster, node, &services.collect());
    let judge = |(address, claims): (IpAddr, Claims<'a>)| {
        let judged = claims.judge(address, aggregate(&address), &endpoints);
        (address, judged)
    };
    claims.into_iter().map(judge).collect()
}

/// The Services that have one address.
#[derive(Debug, Default)]
struct Claims<'a> {
    /// Those for whose sort of addresses a range has it, with their policies.
    in_range: Vec<(&'a str, TrafficPolicy)>,
    others: Vec<&'a str>,
}

/// The addresses of Services, but for sorts of addresses for which there is no range.
fn claims<'a>(cluster: &'a Cluster, settings: &ServiceSettings) -> BTreeMap<IpAddr, Claims<'a>> {
    let mut all: BTreeMap<IpAddr, Claims<'a>> = BTreeMap::new();
    for (name, service) in &cluster.services {
        let Service { cluster_ips, external_ips, load_balancer_ips, internal_policy, external_policy } =
            service.as_ref();
        let sorts = [
            (cluster_ips, &settings.cluster_ips, *internal_policy),
            (external_ips, &settings.external_ips, *external_policy),
            (load_balancer_ips, &settings.load_balancer_ips, *external_policy),
        ];
        for (addresses, ranges, policy) in sorts.into_iter().filter(|(_, ranges, _)| !ranges.is_empty()) {
            for address in addresses {
                let claims = all.entry(*address).or_default();
                match ranges.iter().any(|range| range.contains(address)) {
                    true => claims.in_range.push((name, policy)),
                    false => claims.others.push(name),
                }
            }
        }
    }
    all
}

impl<'a> Claims<'a> {
    /// Services that share an address should have the same endpoints; where one of them is Local, Local counts, as packets are lost on
    /// a node without an endpoint.
    fn policy(&self) -> TrafficPolicy {
        match self.in_range.iter().any(|(_, policy)| *policy == TrafficPolicy::Local) {
            true => TrafficPolicy::Local,
            false => TrafficPolicy::Cluster,
        }
    }

    /// Whether it matters where endpoints are.
    fn depends_on_endpoints(&self, aggregate: Option<IpNet>) -> bool {
        !self.in_range.is_empty() && (aggregate.is_none() || self.policy() == TrafficPolicy::Local)
    }

    /// What becomes of the address.
    fn judge(
        self,
        address: IpAddr,
        aggregate: Option<IpNet>,
        endpoints: &EndpointsByService<'_>,
    ) -> Judged<'a> {
        let policy = self.policy();
        let local = policy == TrafficPolicy::Local;
        let family = Family::of_address(address);
        let count = |service: &'a str| endpoints.get(&(service, family)).copied().unwrap_or_default();
        let counted =
            || self.in_range.iter().filter(|(_, p)| *p == policy).map(|(service, _)| count(service));
        let verdict = match aggregate {
            _ if self.in_range.is_empty() => ServiceVerdict::OutOfRange,
            Some(range) if !local => ServiceVerdict::Covered(range),
            _ if !counted().any(Endpoints::anywhere) => ServiceVerdict::NoEndpoint,
            _ if !local => ServiceVerdict::EveryNode,
            _ if counted().any(Endpoints::here) => ServiceVerdict::LocalEndpoint,
            _ => ServiceVerdict::NoLocalEndpoint,
        };
        Judged { claims: self, policy, verdict }
    }
}

/// Endpoints by Service and family.
type EndpointsByService<'a> = HashMap<(&'a str, Family), Endpoints>;

/// Where a Service has endpoints that serve, seen from one node.
#[derive(Clone, Copy, Debug, Default)]
struct Endpoints {
    ready: Presence,
    terminating: Presence,
}

#[derive(Clone, Copy, Debug, Default)]
struct Presence {
    anywhere: bool,
    here: bool,
}

impl Endpoints {
    /// Those that terminate count only where no others serve.
    fn counted(self) -> Presence {
        if self.ready.anywhere { self.ready } else { self.terminating }
    }

    fn anywhere(self) -> bool {
        self.counted().anywhere
    }

    fn here(self) -> bool {
        self.counted().here
    }
}

/// The endpoints of these `services`.
fn endpoints<'a>(cluster: &'a Cluster, node: &str, services: &HashSet<&str>) -> EndpointsByService<'a> {
    let mut all = EndpointsByService::new();
    if services.is_empty() {
        return all;
    }
    for slice in cluster.endpoint_slices.values() {
        let (Some(service), Some(family)) = (&slice.service, slice.family) else { continue };
        if !services.contains(service.as_str()) {
            continue;
        }
        let endpoints = all.entry((service, family)).or_default();
        for (presence, nodes) in
            [(&mut endpoints.ready, &slice.ready), (&mut endpoints.terminating, &slice.terminating)]
        {
            presence.anywhere |= !nodes.is_empty();
            presence.here |= nodes.nodes.contains(node);
        }
    }
    all
}
