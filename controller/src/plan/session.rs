//! Which sessions a node has, before anything is known of its interfaces.

use std::net::IpAddr;
use std::num::NonZeroU16;

use super::NodeAddresses;
use super::address::declared;
use super::settings::Settings;
use crate::api::{BGPPeerSpec, Labels, Selector};
use crate::cluster::{Cluster, Node};

/// A session that the documents ask for.
#[derive(Clone, Debug)]
pub(crate) struct Wanted<'a> {
    /// Who asks.
    pub(crate) origin: Origin<'a>,
    /// The other end's address; none: the two nodes have no address family in common.
    pub(crate) address: Option<IpAddr>,
    /// The port to dial, where it is not BGP's.
    pub(crate) port: Option<NonZeroU16>,
    /// The node at the other end, if it is one, and what holds for it.
    pub(crate) node: Option<(&'a str, Settings)>,
}

/// Who asks for a session.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Origin<'a> {
    /// A BGPPeer.
    Peer(&'a str, &'a BGPPeerSpec),
    /// The node-to-node mesh.
    Mesh,
}

impl<'a> Wanted<'a> {
    /// The BGPPeer that asks for it.
    pub(crate) fn spec(&self) -> Option<&'a BGPPeerSpec> {
        match self.origin {
            Origin::Peer(_, spec) => Some(spec),
            Origin::Mesh => None,
        }
    }

    /// The name of that BGPPeer.
    pub(crate) fn peer(&self) -> Option<&'a str> {
        match self.origin {
            Origin::Peer(name, _) => Some(name),
            Origin::Mesh => None,
        }
    }

    /// The session's name: its BGPPeer's, or `mesh:NODE`.
    pub(crate) fn name(&self) -> String {
        match (self.origin, &self.node) {
            (Origin::Peer(name, _), _) => name.into(),
            (Origin::Mesh, Some((node, _))) => format!("mesh:{node}"),
            (Origin::Mesh, None) => "mesh".into(),
        }
    }
}

/// A node and what is known of it by all.
struct Known<'a> {
    name: &'a str,
    node: &'a Node,
    settings: Settings,
    addresses: NodeAddresses,
}

impl<'a> Known<'a> {
    fn of(cluster: &'a Cluster, name: &'a str, node: &'a Node) -> Self {
        let settings = Settings::of(cluster, name);
        let addresses = declared(node, &settings);
        Self { name, node, settings, addresses }
    }

    fn meshes(&self) -> bool {
        self.settings.mesh && !self.node.opts_out_of_mesh()
    }

    /// A session with this node, between node addresses: over IPv4 if both have it.
    fn session(&self, origin: Origin<'a>, own: NodeAddresses) -> Wanted<'a> {
        let address = match (own.v4.and(self.addresses.v4), own.v6.and(self.addresses.v6)) {
            (Some(v4), _) => Some(v4.into()),
            (None, v6) => v6.map(Into::into),
        };
        let port = NonZeroU16::new(self.settings.listen_port);
        Wanted { origin, address, port, node: Some((self.name, self.settings.clone())) }
    }
}

/// Every session of the node, those of BGPPeers first, in order of their names.
///
/// Two of them may have one address: the first is meant. That two BGPPeers ask for one address is an error of the
/// documents; a mesh session gives way to a BGPPeer.
pub(crate) fn wanted<'a>(cluster: &'a Cluster, name: &'a str, node: &'a Node) -> Vec<Wanted<'a>> {
    let selects =
        |selector: &Option<Selector>, labels: &Labels| selector.as_ref().is_none_or(|s| s.matches(labels));
    let this = Known::of(cluster, name, node);
    let between_nodes = this.meshes() || cluster.peers.values().any(|p| p.peer_selector.is_some());
    let others: Vec<Known<'_>> = match between_nodes {
        true => {
            let others = cluster.nodes.iter().filter(|(other, _)| *other != name);
            others.map(|(name, node)| Known::of(cluster, name, node)).collect()
        }
        false => Vec::new(),
    };
    let mut sessions = Vec::new();
    for (peer, spec) in &cluster.peers {
        let origin = Origin::Peer(peer, spec);
        let here = selects(&spec.node_selector, &node.labels);
        if let Some(peer_selector) = &spec.peer_selector {
            let there = peer_selector.matches(&node.labels);
            let paired = others.iter().filter(|other| {
                here && peer_selector.matches(&other.node.labels)
                    || there && selects(&spec.node_selector, &other.node.labels)
            });
            sessions.extend(paired.map(|other| other.session(origin, this.addresses)));
        } else if let Some(peer) = spec.peer_ip.filter(|_| here) {
            sessions.push(Wanted { origin, address: Some(peer.ip), port: peer.port, node: None });
        }
    }
    if this.meshes() {
        let mesh = others.iter().filter(|other| other.meshes());
        sessions.extend(mesh.map(|other| other.session(Origin::Mesh, this.addresses)));
    }
    sessions
}
