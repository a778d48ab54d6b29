//! `plan(cluster, node, host)`: what one node should be, as plain data.
//!
//! Pure: the same cluster, node and host give the same plan, so that a daemon compares plans by value and touches only
//! what differs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use weft_bgp::config::SpeakerConfig;
use weft_bgp::types::PeerAddress;
use weft_routing::nexthop::Resilience;
use weft_routing::nft::Ruleset;

use crate::api::json::{AddressJson, Problem};

mod address;
mod bfd;
mod blackhole;
mod blocks;
mod diagnose;
mod drain;
mod make;
mod mrt;
mod nat;
mod policy;
mod resilient;
mod services;
mod session;
mod settings;
mod settle;

pub use blocks::{Block, BlockState, Pool};
pub use drain::{Drain, DrainAsks, DrainTerms, Draining, drain_terms};
pub use make::plan;
pub use mrt::Mrt;
pub(crate) use services::are_announced;
pub use services::{ServicePrefix, ServiceVerdict, answered};
pub(crate) use session::{Place, are_told_apart, secrets_of, wanted};
pub(crate) use settings::{Settings, SettingsByNode};
pub use settle::Settling;

/// What the planner has to know of the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// The interfaces, by name; the pods' own (`weft*`) may be left out.
    pub interfaces: BTreeMap<String, InterfaceFacts>,
    /// Blocks that pods on it have addresses of, and others that are to be kept: they are the node's even where the documents
    /// do not give them to it.
    pub held_blocks: BTreeSet<IpNet>,
    /// Prefixes of Services that are not to be announced yet: see [`Settling`].
    pub settling: BTreeSet<IpNet>,
    /// How far the node is drained, while it is: see [`Draining`].
    pub drain: Option<Drain>,
    /// The router that was found on each link, by the index of its interface.
    pub routers: BTreeMap<u32, Ipv6Addr>,
    /// Whether the kernel has TCP-AO.
    pub tcp_ao: bool,
}

/// One interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InterfaceFacts {
    /// The kernel's number for it.
    pub index: u32,
    /// Its addresses, each with its prefix length (host bits kept), in the kernel's order.
    pub addresses: Vec<IpNet>,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Whether a default route of either family that is not ours leaves by it.
    pub default_route: bool,
    /// Whether the kernel learned a route on it from a router advertisement: forwarding would make it forget that route.
    pub router_advertisements: bool,
}

/// What one node should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePlan {
    /// The node's name.
    pub node: String,
    /// The speaker, complete.
    pub speaker: Arc<SpeakerConfig>,
    /// Where to listen for BGP; IPv6 sockets for IPv6 only.
    pub listeners: BTreeSet<SocketAddr>,
    /// The node's blocks, in order: pods have their addresses from them, and each that is its own is an unreachable route in the kernel.
    pub blocks: Vec<Block>,
    /// The pools of the blocks, by name.
    pub pools: BTreeMap<String, Pool>,
    /// Ranges whose addresses are given only to who asks for one of them.
    pub reserved: BTreeSet<IpNet>,
    /// The node's addresses: the preferred source of pod routes and learned routes.
    pub addresses: NodeAddresses,
    /// Why these.
    pub address_choice: Vec<AddressJson>,
    /// The metric of learned routes in the kernel.
    pub route_metric: u32,
    /// How the groups of next hops are resilient that learned routes go over; none: they are not.
    pub resilience: Option<Resilience>,
    /// The MTU of pod interfaces, in bytes.
    pub mtu: u32,
    /// What of Services is announced, and what is not.
    pub services: BTreeMap<IpNet, ServicePrefix>,
    /// What the kernel must be told before routes are of use, in the order of writing.
    pub sysctls: Vec<Sysctl>,
    /// Whether to write the sysctls, or only to report where they differ.
    pub manage_sysctls: bool,
    /// What nftables must do: the guard against forged sources, and pods' way out.
    pub packet_filter: Ruleset,
    /// What of BGP is written to files; none: nothing.
    pub mrt: Option<Mrt>,
    /// What is wrong or noteworthy, in order of severity and code.
    pub diagnostics: Vec<Problem>,
}

impl NodePlan {
    /// Whether a session with somebody at this address is wanted, or welcome.
    #[must_use]
    pub fn is_peer(&self, address: PeerAddress) -> bool {
        let named = self.speaker.peers.contains_key(&address);
        named || address.ip().is_some_and(|ip| self.speaker.range_of(ip).is_some())
    }

    /// What remains of a node that has left the cluster: its pods keep their routes, it takes no new ones, and nobody is told of it, as its
    /// blocks will be others'.
    #[must_use]
    pub fn departed(&self) -> Self {
        let mut blocks = self.blocks.clone();
        blocks.iter_mut().for_each(|block| block.state = BlockState::Leaving);
        let nobody = SpeakerConfig {
            originate: BTreeMap::new(),
            peers: BTreeMap::new(),
            ranges: BTreeMap::new(),
            ..SpeakerConfig::clone(&self.speaker)
        };
        Self {
            speaker: Arc::new(nobody),
            listeners: BTreeSet::new(),
            blocks,
            services: BTreeMap::new(),
            diagnostics: Vec::new(),
            ..self.clone()
        }
    }
}

/// The address by which a node is known, per family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeAddresses {
    /// IPv4.
    pub v4: Option<Ipv4Addr>,
    /// IPv6.
    pub v6: Option<Ipv6Addr>,
}

impl NodeAddresses {
    /// The addresses there are, IPv4 first.
    pub fn iter(self) -> impl Iterator<Item = IpAddr> {
        self.v4.map(IpAddr::from).into_iter().chain(self.v6.map(IpAddr::from))
    }
}

/// One kernel setting.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sysctl {
    /// Its path under `/proc/sys`: `net/ipv4/ip_forward`.
    pub path: String,
    /// Its value.
    pub value: &'static str,
}
