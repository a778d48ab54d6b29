//! Which sessions a node has, before anything is known of its interfaces.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;

use ipnet::IpNet;

use super::NodeAddresses;
use super::address::declared;
use super::settings::{Settings, SettingsByNode};
use crate::api::{BGPPeerSpec, Labels, PeerAs, Selector};
use crate::cluster::{Cluster, Node, Object, Signing};

/// A session that the documents ask for.
#[derive(Clone, Debug)]
pub(crate) struct Wanted<'a> {
    /// Who asks.
    pub(crate) origin: Origin<'a>,
    /// The other end's address; none: it is on an interface's link, somewhere in a range, or the two nodes have no address family in common.
    pub(crate) address: Option<IpAddr>,
    /// The interface whose link the other end is on.
    pub(crate) interface: Option<&'a str>,
    /// The prefix from within which whoever connects is the other end.
    pub(crate) range: Option<IpNet>,
    /// The port to dial, where it is not BGP's.
    pub(crate) port: Option<NonZeroU16>,
    /// The node at the other end, if it is one, and what holds for it.
    pub(crate) node: Option<(&'a str, Arc<Settings>)>,
    /// Whether the other end is a route reflector client of this node's.
    pub(crate) client: bool,
    /// Whether the other end is a node that reflects.
    pub(crate) from_reflector: bool,
    /// Whether what is told on this session may be reflected to nodes, by the other end or by this one.
    pub(crate) reflected: bool,
}

/// Where the other end of a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place<'a> {
    /// At this address.
    Address(IpAddr),
    /// On the link of the interface of this name.
    Interface(&'a str),
    /// Wherever somebody connects from in this prefix.
    Range(IpNet),
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Interface(name) => write!(f, "%{name}"),
            Self::Range(range) => range.fmt(f),
        }
    }
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
    /// A session of which nothing is known but who asks.
    fn of(origin: Origin<'a>) -> Self {
        Self {
            origin,
            address: None,
            interface: None,
            range: None,
            port: None,
            node: None,
            client: false,
            from_reflector: false,
            reflected: false,
        }
    }

    /// Where its other end is; none: the two nodes have no address family in common.
    pub(crate) fn place(&self) -> Option<Place<'a>> {
        let named = self.interface.map(Place::Interface).or(self.range.map(Place::Range));
        named.or(self.address.map(Place::Address))
    }

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

    /// What the session is signed with, with what holds for this node.
    pub(crate) fn signing(&self, settings: &'a Settings) -> Option<Signing<'a>> {
        match self.origin {
            Origin::Peer(_, spec) => signing(spec),
            Origin::Mesh => settings.mesh_signing(),
        }
    }

    /// The two AS numbers of a session of this `node` whose other end is a client and would be an eBGP peer, in words.
    pub(crate) fn external_client(&self, cluster: &Cluster, node: &str) -> Option<String> {
        let spec = self.spec().filter(|_| self.client)?;
        let local = spec.local_as_number.map(|number| number.get());
        let remote = match (&self.node, spec.as_number) {
            (Some((_, theirs)), _) => local.unwrap_or(theirs.asn),
            (None, Some(PeerAs::Number(number))) => number.get(),
            (None, Some(PeerAs::Internal | PeerAs::External) | None) => return None,
        };
        let own = local.unwrap_or_else(|| Settings::of(cluster, node).asn);
        (own != remote).then(|| format!("our AS is {own} and the peer's {remote}"))
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
    settings: Arc<Settings>,
    addresses: NodeAddresses,
    reflects: bool,
}

impl<'a> Known<'a> {
    fn of(all: &SettingsByNode<'_>, cluster: &'a Cluster, name: &'a str, node: &'a Node) -> Self {
        let settings = all.of(name);
        let addresses = declared(node, &settings);
        Self { name, node, settings, addresses, reflects: reflects(cluster, node) }
    }

    fn meshes(&self) -> bool {
        self.settings.mesh && !self.node.opts_out_of_mesh()
    }

    /// A session of `this` node with it, between node addresses: over IPv4 if both have it.
    fn session(&self, origin: Origin<'a>, this: &Self, client: bool) -> Wanted<'a> {
        let own = this.addresses;
        let address = match (own.v4.and(self.addresses.v4), own.v6.and(self.addresses.v6)) {
            (Some(v4), _) => Some(v4.into()),
            (None, v6) => v6.map(Into::into),
        };
        let port = NonZeroU16::new(self.settings.listen_port);
        let node = Some((self.name, Arc::clone(&self.settings)));
        let (from_reflector, reflected) = (self.reflects, this.reflects || self.reflects);
        Wanted { address, port, node, client, from_reflector, reflected, ..Wanted::of(origin) }
    }
}

fn selects(selector: &Option<Selector>, labels: &Labels) -> bool {
    selector.as_ref().is_none_or(|s| s.matches(labels))
}

/// Whether a node reflects routes: whether it has a BGPPeer for clients.
pub(super) fn reflects(cluster: &Cluster, node: &Node) -> bool {
    cluster
        .peers
        .values()
        .any(|spec| spec.route_reflector_client && selects(&spec.node_selector, &node.labels))
}

fn signing(spec: &BGPPeerSpec) -> Option<Signing<'_>> {
    Signing::of(spec.password.as_ref().map(|password| &password.secret_key_ref), spec.tcp_ao.as_ref())
}

/// The Secrets that the sessions of a node have their passwords and keys in.
pub(crate) fn secrets_of(cluster: &Cluster, name: &str) -> BTreeSet<String> {
    let Some(node) = cluster.nodes.get(name) else { return BTreeSet::new() };
    let concerns = |spec: &&Arc<BGPPeerSpec>| {
        selects(&spec.node_selector, &node.labels)
            || spec.peer_selector.as_ref().is_some_and(|selector| selector.matches(&node.labels))
    };
    let of_peers = cluster.peers.values().filter(concerns).filter_map(|spec| signing(spec));
    let settings = Settings::of(cluster, name);
    let of_mesh = settings.mesh_signing().filter(|_| settings.mesh && !node.opts_out_of_mesh());
    of_peers.chain(of_mesh).flat_map(Signing::references).map(|reference| reference.name.clone()).collect()
}

/// Whether what a node should be can depend on which of the two another node, or a Namespace, is: whether anything selects them by their
/// labels, and only one of them. Of all else that makes them differ it says nothing.
pub(crate) fn are_told_apart(cluster: &Cluster, before: &Object, now: &Object) -> bool {
    let differ = |selector: &Option<Selector>, before: &Labels, now: &Labels| {
        selector.as_ref().is_some_and(|s| s.matches(before) != s.matches(now))
    };
    match (before, now) {
        (Object::Node(before), Object::Node(now)) => {
            before.opts_out_of_mesh() != now.opts_out_of_mesh()
                || cluster
                    .peers
                    .values()
                    .flat_map(|spec| [&spec.node_selector, &spec.peer_selector])
                    .any(|selector| differ(selector, &before.labels, &now.labels))
        }
        (Object::Namespace(before), Object::Namespace(now)) => {
            cluster.pools.values().any(|pool| differ(&pool.namespace_selector, before, now))
        }
        _ => true,
    }
}

/// Every session of the node, those of BGPPeers first, in order of their names.
///
/// Two of them may have one address: the first is meant. That two BGPPeers ask for one address is an error of the
/// documents; a mesh session gives way to a BGPPeer.
pub(crate) fn wanted<'a>(cluster: &'a Cluster, name: &'a str, node: &'a Node) -> Vec<Wanted<'a>> {
    let settings = SettingsByNode::new(cluster);
    let this = Known::of(&settings, cluster, name, node);
    let between_nodes = this.meshes() || cluster.peers.values().any(|p| p.peer_selector.is_some());
    let others: Vec<Known<'_>> = match between_nodes {
        true => {
            let others = cluster.nodes.iter().filter(|(other, _)| *other != name);
            others.map(|(name, node)| Known::of(&settings, cluster, name, node)).collect()
        }
        false => Vec::new(),
    };
    let mut sessions = Vec::new();
    for (peer, spec) in &cluster.peers {
        let origin = Origin::Peer(peer, spec);
        let here = selects(&spec.node_selector, &node.labels);
        if let Some(peer_selector) = &spec.peer_selector {
            let there = peer_selector.matches(&node.labels);
            sessions.extend(others.iter().filter_map(|other| {
                let is_peer = here && peer_selector.matches(&other.node.labels);
                let paired = is_peer || there && selects(&spec.node_selector, &other.node.labels);
                paired.then(|| other.session(origin, &this, is_peer && spec.route_reflector_client))
            }));
        } else if let Some(peer) = spec.peer_ip.filter(|_| here) {
            sessions.push(Wanted {
                address: Some(peer.ip),
                port: peer.port,
                client: spec.route_reflector_client,
                ..Wanted::of(origin)
            });
        } else if let Some(interface) = spec.interface.as_ref().filter(|_| here) {
            sessions.push(Wanted {
                interface: Some(interface.as_str()),
                client: spec.route_reflector_client,
                ..Wanted::of(origin)
            });
        } else if let Some(range) = spec.listen_range.filter(|_| here) {
            sessions.push(Wanted {
                range: Some(range.net()),
                client: spec.route_reflector_client,
                ..Wanted::of(origin)
            });
        }
    }
    if this.meshes() {
        let mesh = others.iter().filter(|other| other.meshes());
        sessions.extend(mesh.map(|other| other.session(Origin::Mesh, &this, false)));
    }
    sessions
}
