//! Addresses: the one a node is known by, and those on its interfaces.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use weft_bgp::types::PeerAddress;

use super::settings::Settings;
use super::{HostFacts, InterfaceFacts, NodeAddresses};
use crate::api::NodeAddress;
use crate::api::json::AddressJson;
use crate::cluster::Node;

impl NodeAddresses {
    /// The first address of each family.
    fn first_of(addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        let mut chosen = Self::default();
        for address in addresses {
            match address {
                IpAddr::V4(v4) => chosen.v4 = chosen.v4.or(Some(v4)),
                IpAddr::V6(v6) => chosen.v6 = chosen.v6.or(Some(v6)),
            }
        }
        chosen
    }

    /// These, and where one is missing the other's.
    pub(super) fn or(self, other: Self) -> Self {
        Self { v4: self.v4.or(other.v4), v6: self.v6.or(other.v6) }
    }

    /// The address of the other end's family.
    pub(super) fn of_family(self, other: IpAddr) -> Option<IpAddr> {
        match other {
            IpAddr::V4(_) => self.v4.map(IpAddr::from),
            IpAddr::V6(_) => self.v6.map(IpAddr::from),
        }
    }
}

/// The addresses by which the other nodes know a node: they see the Node, not its interfaces.
pub(super) fn declared(node: &Node, settings: &Settings) -> NodeAddresses {
    let every = node.addresses.iter().copied();
    let preferred = match settings.node_address {
        Some(NodeAddress::Cidr(cidr)) => {
            NodeAddresses::first_of(every.clone().filter(|a| cidr.net().contains(a)))
        }
        Some(NodeAddress::Interface(_)) | None => NodeAddresses::default(),
    };
    preferred.or(NodeAddresses::first_of(every))
}

/// The addresses of a node that are really its own: found both where the configuration says and on an interface.
pub(super) fn local(node: &Node, settings: &Settings, host: &HostFacts) -> NodeAddresses {
    let named = node.addresses.iter().copied().filter(|a| host.interface_of(*a).is_some());
    let by_name = NodeAddresses::first_of(named.clone());
    match &settings.node_address {
        None => by_name,
        Some(NodeAddress::Cidr(cidr)) => {
            let inside = |address: &IpAddr| cidr.net().contains(address);
            let candidates = named.filter(inside).chain(host.addresses().filter(inside));
            let chosen = NodeAddresses::first_of(candidates);
            match cidr.net() {
                IpNet::V4(_) => NodeAddresses { v4: chosen.v4, v6: by_name.v6 },
                IpNet::V6(_) => NodeAddresses { v4: by_name.v4, v6: chosen.v6 },
            }
        }
        Some(NodeAddress::Interface(name)) => {
            let on_it: Vec<IpAddr> =
                host.interfaces.get(name.as_str()).map(|i| i.global().collect()).unwrap_or_default();
            let candidates = named.filter(|a| on_it.contains(a)).chain(on_it.iter().copied());
            NodeAddresses::first_of(candidates)
        }
    }
}

/// Why [`local`] chose these addresses, and where they are.
pub(super) fn explain(
    node: &Node,
    settings: &Settings,
    host: &HostFacts,
    local: NodeAddresses,
) -> Vec<AddressJson> {
    let reason = |address: IpAddr| {
        let named = node.addresses.contains(&address);
        match &settings.node_address {
            Some(NodeAddress::Cidr(cidr)) if cidr.net().addr().is_ipv4() == address.is_ipv4() => {
                match named {
                    true => format!(
                        "the first InternalIP of the Node in {cidr} (nodeAddress) that is on a local interface"
                    ),
                    false => format!(
                        "the first address of a local interface in {cidr} (nodeAddress), as no InternalIP of the Node there is on one"
                    ),
                }
            }
            Some(NodeAddress::Interface(name)) => match named {
                true => format!("the first InternalIP of the Node that is on {name} (nodeAddress)"),
                false => format!(
                    "the first address of {name} (nodeAddress), as no InternalIP of the Node is on it"
                ),
            },
            Some(NodeAddress::Cidr(_)) | None => {
                "the first InternalIP of the Node that is on a local interface".to_owned()
            }
        }
    };
    let interface = |address| match &settings.node_address {
        Some(NodeAddress::Interface(name)) => Some(name.as_str()),
        Some(NodeAddress::Cidr(_)) | None => host.interface_of(address),
    };
    let found = local.iter().filter_map(|address| Some((address, interface(address)?)));
    found
        .map(|(address, interface)| AddressJson {
            address,
            interface: interface.to_owned(),
            reason: reason(address),
        })
        .collect()
}

/// The BGP identifier: as configured, else the IPv4 address, else a hash of the name.
pub(super) fn router_id(name: &str, settings: &Settings, addresses: NodeAddresses) -> Ipv4Addr {
    settings.router_id.or(addresses.v4).unwrap_or_else(|| {
        // FNV-1a (RFC 9923): the same in every build and on every machine.
        let hash =
            name.bytes().fold(0x811c_9dc5_u32, |hash, b| (hash ^ u32::from(b)).wrapping_mul(0x0100_0193));
        Ipv4Addr::from(hash.max(1))
    })
}

/// Whether an address says who somebody is, beyond its link.
fn is_global(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !(v4.is_loopback() || v4.is_link_local() || v4.is_unspecified()),
        IpAddr::V6(v6) => !(v6.is_loopback() || v6.is_unicast_link_local() || v6.is_unspecified()),
    }
}

impl InterfaceFacts {
    /// Its addresses that are of use beyond the link.
    pub(super) fn global(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.iter().map(IpNet::addr).filter(|a| is_global(*a))
    }
}

impl HostFacts {
    /// Every global address, in order of the interfaces' names.
    fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.interfaces.values().flat_map(InterfaceFacts::global)
    }

    /// The interface that has this address.
    pub(super) fn interface_of(&self, address: IpAddr) -> Option<&str> {
        self.interfaces
            .iter()
            .find(|(_, facts)| facts.addresses.iter().any(|a| a.addr() == address))
            .map(|(name, _)| name.as_str())
    }

    /// The interface by which a peer is reached.
    pub(super) fn way_to(&self, peer: PeerAddress) -> Option<&InterfaceFacts> {
        match peer {
            PeerAddress::Ip(ip) => self.link_to(ip),
            PeerAddress::Interface(interface) => {
                self.interfaces.values().find(|facts| facts.index == interface.index())
            }
        }
    }

    /// The interface by which everybody in a prefix is reached.
    pub(super) fn way_to_all(&self, range: IpNet) -> Option<&InterfaceFacts> {
        let first = self.link_to(range.network())?;
        self.link_to(range.broadcast()).filter(|last| std::ptr::eq(*last, first))
    }

    /// The interface on whose link this address is, by the longest prefix.
    fn link_to(&self, address: IpAddr) -> Option<&InterfaceFacts> {
        self.interfaces
            .values()
            .flat_map(|facts| facts.addresses.iter().map(move |net| (net, facts)))
            .filter(|(net, _)| net.contains(&address))
            .max_by_key(|(net, _)| net.prefix_len())
            .map(|(_, facts)| facts)
    }
}
