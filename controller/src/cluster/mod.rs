//! Everything known of the cluster, as one plain struct. The sources (files, Kubernetes) write it, the planner reads it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use weft_bgp::policy::Community;

use crate::api::{
    AllowedUse, BFDProfileSpec, BGPConfigurationSpec, BGPFilterSpec, BGPPeerSpec, CommunityRef,
    EXCLUDE_LABEL, GROUP, IPBlockSpec, IPPoolSpec, Labels, MESH_LABEL, PodCidrSource, VERSION,
};

mod secrets;
mod services;

pub use secrets::{Secret, Signing};
pub use services::{EndpointNodes, EndpointSlice, Service, TrafficPolicy};

/// The objects, by name; those of a Namespace by `NAMESPACE/NAME`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    /// BGPConfigurations: `default` and `node.NAME`.
    pub configurations: BTreeMap<String, Arc<BGPConfigurationSpec>>,
    /// BGPPeers.
    pub peers: BTreeMap<String, Arc<BGPPeerSpec>>,
    /// BGPFilters.
    pub filters: BTreeMap<String, Arc<BGPFilterSpec>>,
    /// BFDProfiles.
    pub bfd_profiles: BTreeMap<String, Arc<BFDProfileSpec>>,
    /// IPPools.
    pub pools: BTreeMap<String, Arc<IPPoolSpec>>,
    /// IPBlocks.
    pub blocks: BTreeMap<String, Arc<IPBlockSpec>>,
    /// Nodes.
    pub nodes: BTreeMap<String, Arc<Node>>,
    /// The labels of Namespaces, the one of the name among them.
    pub namespaces: BTreeMap<String, Arc<Labels>>,
    /// Secrets, of the one Namespace that they are read of.
    pub secrets: BTreeMap<String, Arc<Secret>>,
    /// Services.
    pub services: BTreeMap<String, Arc<Service>>,
    /// EndpointSlices.
    pub endpoint_slices: BTreeMap<String, Arc<EndpointSlice>>,
}

/// What Weft knows of a `v1` Node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// `metadata.labels`.
    pub labels: Labels,
    /// `spec.podCIDRs`, in order.
    pub pod_cidrs: Vec<IpNet>,
    /// The `InternalIP`s of `status.addresses`, in order.
    pub addresses: Vec<IpAddr>,
    /// Its condition `Ready` is given and is not `True`.
    pub not_ready: bool,
    /// The keys of those of its taints by which it is drained.
    pub drain_taints: BTreeSet<String>,
    /// Its kubelet says that the machine is being shut down, and ends the pods.
    pub shutting_down: bool,
}

impl Node {
    /// Whether the Node's labels keep traffic for Services away from it.
    #[must_use]
    pub fn is_excluded_from_load_balancers(&self) -> bool {
        self.labels.contains_key(EXCLUDE_LABEL)
    }

    /// Whether the Node's labels keep it out of the node-to-node mesh.
    #[must_use]
    pub fn opts_out_of_mesh(&self) -> bool {
        self.labels.get(MESH_LABEL).is_some_and(|value| value == "false")
    }
}

/// The kinds of objects that make up a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `weft.network/v1alpha1` BGPConfiguration.
    BgpConfiguration,
    /// `weft.network/v1alpha1` BGPPeer.
    BgpPeer,
    /// `weft.network/v1alpha1` BGPFilter.
    BgpFilter,
    /// `weft.network/v1alpha1` BFDProfile.
    BfdProfile,
    /// `weft.network/v1alpha1` IPPool.
    IpPool,
    /// `weft.network/v1alpha1` IPBlock.
    IpBlock,
    /// `v1` Node.
    Node,
    /// `v1` Namespace.
    Namespace,
    /// `v1` Secret.
    Secret,
    /// `v1` Service.
    Service,
    /// `discovery.k8s.io/v1` EndpointSlice.
    EndpointSlice,
}

/// An object without its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// A BGPConfiguration.
    BgpConfiguration(Arc<BGPConfigurationSpec>),
    /// A BGPPeer.
    BgpPeer(Arc<BGPPeerSpec>),
    /// A BGPFilter.
    BgpFilter(Arc<BGPFilterSpec>),
    /// A BFDProfile.
    BfdProfile(Arc<BFDProfileSpec>),
    /// An IPPool.
    IpPool(Arc<IPPoolSpec>),
    /// An IPBlock.
    IpBlock(Arc<IPBlockSpec>),
    /// A Node.
    Node(Arc<Node>),
    /// The labels of a Namespace.
    Namespace(Arc<Labels>),
    /// A Secret.
    Secret(Arc<Secret>),
    /// A Service.
    Service(Arc<Service>),
    /// An EndpointSlice.
    EndpointSlice(Arc<EndpointSlice>),
}

impl Kind {
    /// The kinds that every node needs.
    pub const ALWAYS: [Self; 8] = [
        Self::BgpConfiguration,
        Self::BgpPeer,
        Self::BgpFilter,
        Self::BfdProfile,
        Self::IpPool,
        Self::IpBlock,
        Self::Node,
        Self::Namespace,
    ];

    /// The kinds that a node needs which announces Services.
    pub const OF_SERVICES: [Self; 2] = [Self::Service, Self::EndpointSlice];

    /// Its API group, empty for Kubernetes' core, and its version.
    #[must_use]
    pub fn group_version(self) -> (&'static str, &'static str) {
        match self {
            Self::Node | Self::Namespace | Self::Secret | Self::Service => ("", "v1"),
            Self::EndpointSlice => ("discovery.k8s.io", "v1"),
            Self::BgpConfiguration
            | Self::BgpPeer
            | Self::BgpFilter
            | Self::BfdProfile
            | Self::IpPool
            | Self::IpBlock => (GROUP, VERSION),
        }
    }

    /// Whether it is one of Kubernetes' own kinds, and not of Weft's group.
    #[must_use]
    pub fn is_core(self) -> bool {
        self.group_version().0 != GROUP
    }

    /// The kind as paths of the API write it.
    #[must_use]
    pub fn plural(self) -> &'static str {
        match self {
            Self::BgpConfiguration => "bgpconfigurations",
            Self::BgpPeer => "bgppeers",
            Self::BgpFilter => "bgpfilters",
            Self::BfdProfile => "bfdprofiles",
            Self::IpPool => "ippools",
            Self::IpBlock => "ipblocks",
            Self::Node => "nodes",
            Self::Namespace => "namespaces",
            Self::Secret => "secrets",
            Self::Service => "services",
            Self::EndpointSlice => "endpointslices",
        }
    }

    /// The kind as documents write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BgpConfiguration => "BGPConfiguration",
            Self::BgpPeer => "BGPPeer",
            Self::BgpFilter => "BGPFilter",
            Self::BfdProfile => "BFDProfile",
            Self::IpPool => "IPPool",
            Self::IpBlock => "IPBlock",
            Self::Node => "Node",
            Self::Namespace => "Namespace",
            Self::Secret => "Secret",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
        }
    }
}

impl Object {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::BgpConfiguration(_) => Kind::BgpConfiguration,
            Self::BgpPeer(_) => Kind::BgpPeer,
            Self::BgpFilter(_) => Kind::BgpFilter,
            Self::BfdProfile(_) => Kind::BfdProfile,
            Self::IpPool(_) => Kind::IpPool,
            Self::IpBlock(_) => Kind::IpBlock,
            Self::Node(_) => Kind::Node,
            Self::Namespace(_) => Kind::Namespace,
            Self::Secret(_) => Kind::Secret,
            Self::Service(_) => Kind::Service,
            Self::EndpointSlice(_) => Kind::EndpointSlice,
        }
    }
}

impl Cluster {
    /// Puts an object in place of the one of its kind and name, if any.
    pub fn apply(&mut self, name: impl Into<String>, object: Object) {
        let name = name.into();
        match object {
            Object::BgpConfiguration(spec) => drop(self.configurations.insert(name, spec)),
            Object::BgpPeer(spec) => drop(self.peers.insert(name, spec)),
            Object::BgpFilter(spec) => drop(self.filters.insert(name, spec)),
            Object::BfdProfile(spec) => drop(self.bfd_profiles.insert(name, spec)),
            Object::IpPool(spec) => drop(self.pools.insert(name, spec)),
            Object::IpBlock(spec) => drop(self.blocks.insert(name, spec)),
            Object::Node(node) => drop(self.nodes.insert(name, node)),
            Object::Namespace(labels) => drop(self.namespaces.insert(name, labels)),
            Object::Secret(secret) => drop(self.secrets.insert(name, secret)),
            Object::Service(service) => drop(self.services.insert(name, service)),
            Object::EndpointSlice(slice) => drop(self.endpoint_slices.insert(name, slice)),
        }
    }

    /// The community that is meant; none: the BGPConfiguration `default` has no such name.
    #[must_use]
    pub fn community(&self, written: &CommunityRef) -> Option<Community> {
        let name = match written {
            CommunityRef::Value(community) => return Some(*community),
            CommunityRef::Named(name) => name,
        };
        let named = self.configurations.get("default").and_then(|spec| spec.communities.as_ref());
        let named = named.into_iter().flatten().find(|named| named.name == *name)?;
        match named.value {
            CommunityRef::Value(community) => Some(community),
            CommunityRef::Named(_) => None,
        }
    }

    /// Takes an object out; one that is not there is no error.
    pub fn delete(&mut self, kind: Kind, name: &str) {
        match kind {
            Kind::BgpConfiguration => drop(self.configurations.remove(name)),
            Kind::BgpPeer => drop(self.peers.remove(name)),
            Kind::BgpFilter => drop(self.filters.remove(name)),
            Kind::BfdProfile => drop(self.bfd_profiles.remove(name)),
            Kind::IpPool => drop(self.pools.remove(name)),
            Kind::IpBlock => drop(self.blocks.remove(name)),
            Kind::Node => drop(self.nodes.remove(name)),
            Kind::Namespace => drop(self.namespaces.remove(name)),
            Kind::Secret => drop(self.secrets.remove(name)),
            Kind::Service => drop(self.services.remove(name)),
            Kind::EndpointSlice => drop(self.endpoint_slices.remove(name)),
        }
    }

    /// Replaces everything of one kind, as after a fresh list.
    pub fn reset(&mut self, kind: Kind, objects: impl IntoIterator<Item = (String, Object)>) {
        match kind {
            Kind::BgpConfiguration => self.configurations.clear(),
            Kind::BgpPeer => self.peers.clear(),
            Kind::BgpFilter => self.filters.clear(),
            Kind::BfdProfile => self.bfd_profiles.clear(),
            Kind::IpPool => self.pools.clear(),
            Kind::IpBlock => self.blocks.clear(),
            Kind::Node => self.nodes.clear(),
            Kind::Namespace => self.namespaces.clear(),
            Kind::Secret => self.secrets.clear(),
            Kind::Service => self.services.clear(),
            Kind::EndpointSlice => self.endpoint_slices.clear(),
        }
        for (name, object) in objects {
            self.apply(name, object);
        }
    }

    /// Where nodes' blocks come from.
    #[must_use]
    pub fn pod_cidr_source(&self) -> PodCidrSource {
        self.configurations.get("default").and_then(|spec| spec.pod_cidr_source).unwrap_or_default()
    }

    /// The blocks of every node that has some, as [`blocks_of`](Self::blocks_of) says them, at the cost of one look at each.
    #[must_use]
    pub fn blocks_by_node(&self) -> BTreeMap<&str, Vec<IpNet>> {
        let mut all: BTreeMap<&str, Vec<IpNet>> = BTreeMap::new();
        for block in self.blocks.values() {
            all.entry(&block.node).or_default().push(block.cidr.net());
        }
        if self.pod_cidr_source() != PodCidrSource::IPPool {
            for (name, node) in self.nodes.iter().filter(|(_, node)| !node.pod_cidrs.is_empty()) {
                all.entry(name).or_insert_with(|| node.pod_cidrs.clone());
            }
        }
        for blocks in all.values_mut() {
            blocks.sort_unstable();
            blocks.dedup();
        }
        all
    }

    /// The pool for pods that a block lies in.
    #[must_use]
    pub fn pod_pool_of(&self, block: IpNet) -> Option<(&str, &IPPoolSpec)> {
        let mut pools = self.pools.iter().filter(|(_, pool)| pool.is_for(AllowedUse::Workload));
        let (name, pool) = pools.find(|(_, pool)| pool.cidr.net().contains(&block))?;
        Some((name, pool))
    }

    /// The blocks of a node, in order: its IPBlocks or, if it has none and they count, its `podCIDRs`.
    #[must_use]
    pub fn blocks_of(&self, node: &str) -> Vec<IpNet> {
        let mut blocks: Vec<IpNet> =
            self.blocks.values().filter(|b| b.node == node).map(|b| b.cidr.net()).collect();
        if blocks.is_empty() && self.pod_cidr_source() != PodCidrSource::IPPool {
            blocks.extend(self.nodes.get(node).into_iter().flat_map(|n| &n.pod_cidrs));
        }
        blocks.sort_unstable();
        blocks.dedup();
        blocks
    }
}
