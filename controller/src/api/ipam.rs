//! The JSON of `GET /v1/ipam`, `POST /v1/ipam/check` and `POST /v1/ipam/release`, by the rules of [`super::json`].

use std::net::IpAddr;

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The pods' addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IpamJson {
    /// The node's blocks, IPv4 first, in the order they are used up.
    pub blocks: Vec<IpamBlockJson>,
    /// Every address that is taken, in order.
    pub addresses: Vec<IpamAddressJson>,
}

/// One block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IpamBlockJson {
    /// Its prefix.
    pub cidr: IpNet,
    /// Its pool; null: a podCIDR in no pool.
    pub pool: Option<String>,
    /// Whether new pods get addresses of it.
    pub state: IpamBlockState,
    /// How many addresses it has; null where that is more than 2^53 (JSON's exact integers).
    pub size: Option<u64>,
    /// How many are taken.
    pub taken: u64,
    /// How many were given back a moment ago, and are not given out yet.
    pub resting: u64,
    /// How many are kept for who asks for them by number; null as `size` is.
    pub reserved: Option<u64>,
    /// How many are none of these; null as `size` is.
    pub free: Option<u64>,
    /// Whether a peer has been told of it.
    pub announced: bool,
}

/// Whether new pods get addresses of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IpamBlockState {
    /// They do.
    Open,
    /// They do not: the block was taken from the node, and goes with its last pod.
    Closed,
}

impl std::fmt::Display for IpamBlockState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Closed => "closed",
        })
    }
}

/// One address that is taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IpamAddressJson {
    /// The address.
    pub address: IpAddr,
    /// How far its ADD came.
    pub state: IpamAddressState,
    /// Who has it.
    #[serde(flatten)]
    pub holder: IpamHolderJson,
}

/// How far the ADD of an address came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IpamAddressState {
    /// It is at work, or was killed.
    Reserved,
    /// It has answered.
    Committed,
}

impl std::fmt::Display for IpamAddressState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Reserved => "reserved",
            Self::Committed => "committed",
        })
    }
}

/// One interface of one container, which has addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IpamHolderJson {
    /// The Kubernetes pod, where the runtime named it.
    pub pod: Option<IpamPodJson>,
    /// The container's id.
    pub container: String,
    /// The interface inside.
    pub interface: String,
    /// The CNI network.
    pub network: String,
    /// The host end of its link.
    pub host_link: String,
    /// The path of its network namespace.
    pub netns: String,
    /// When the addresses were taken.
    pub since: Option<Timestamp>,
}

impl std::fmt::Display for IpamHolderJson {
    /// `shop/cart-0 (interface eth0 of container 0a1b…)`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let of = format_args!("interface {} of container {}", self.interface, self.container);
        match &self.pod {
            Some(pod) => write!(f, "pod {pod} ({of})"),
            None => write!(f, "{of}"),
        }
    }
}

/// A Kubernetes pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IpamPodJson {
    /// Its Kubernetes namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl std::fmt::Display for IpamPodJson {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What `POST /v1/ipam/check` may be told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IpamCheckRequest {
    /// How far apart the two looks must be that free an address, in milliseconds; null: as the daemon was started.
    pub grace_ms: Option<u64>,
}

/// What was found when store, kernel, runtime and network namespaces were compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IpamCheckJson {
    /// Whether nothing was found.
    pub ok: bool,
    /// What does not fit.
    pub findings: Vec<IpamFindingJson>,
    /// What this look has freed.
    pub freed: Vec<IpamFreedJson>,
    /// What was compared.
    pub compared: IpamComparedJson,
    /// How far apart the two looks must be that free an address, in seconds.
    pub grace_seconds: u64,
}

/// How much was compared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IpamComparedJson {
    /// Entries of the store.
    pub entries: usize,
    /// Host ends of pods' links.
    pub links: usize,
    /// Routes of protocol 177.
    pub routes: usize,
    /// Permanent neighbours on pods' links.
    pub neighbours: usize,
    /// What the runtime keeps of its containers' interfaces.
    pub runtime: IpamRuntimeJson,
}

/// The runtime's cache of results (libcni).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IpamRuntimeJson {
    /// Its directory.
    pub directory: String,
    /// How many interfaces it knows; null: there is no such directory, so the runtime was not asked.
    pub interfaces: Option<usize>,
}

/// Something that does not fit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IpamFindingJson {
    /// What kind.
    pub kind: IpamFindingKind,
    /// The addresses concerned.
    pub addresses: Vec<IpAddr>,
    /// What was found, in a sentence.
    pub text: String,
    /// What becomes of it, or would help.
    pub remedy: String,
    /// When it was first found missing; null for what is never freed by itself.
    pub missing_since: Option<Timestamp>,
}

/// What can be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IpamFindingKind {
    /// The store of addresses is damaged or cannot be read: nothing can be compared with it.
    StoreUnreadable,
    /// An entry of this boot whose addresses are on no link and in no network namespace. Freed.
    AddressWithoutLink,
    /// An entry of an earlier boot, whose network namespace cannot exist any more. Freed.
    EarlierBoot,
    /// One address in two entries.
    AddressTwice,
    /// The address is in its network namespace, but the host end of its link is gone: the pod is cut off.
    LinkMissing,
    /// A pod's link without a route to the pod's address.
    RouteMissing,
    /// A pod's link without the permanent neighbour of the pod's address.
    NeighbourMissing,
    /// The host end of a pod's link that is in no entry.
    LinkWithoutEntry,
    /// A route of protocol 177 that is in no entry.
    RouteWithoutEntry,
    /// A permanent neighbour on a pod's link that is in no entry.
    NeighbourWithoutEntry,
    /// An entry of a container that the runtime does not know.
    UnknownToRuntime,
}

impl std::fmt::Display for IpamFindingKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::StoreUnreadable => "store-unreadable",
            Self::AddressWithoutLink => "address-without-link",
            Self::EarlierBoot => "earlier-boot",
            Self::AddressTwice => "address-twice",
            Self::LinkMissing => "link-missing",
            Self::RouteMissing => "route-missing",
            Self::NeighbourMissing => "neighbour-missing",
            Self::LinkWithoutEntry => "link-without-entry",
            Self::RouteWithoutEntry => "route-without-entry",
            Self::NeighbourWithoutEntry => "neighbour-without-entry",
            Self::UnknownToRuntime => "unknown-to-runtime",
        })
    }
}

/// What `POST /v1/ipam/release` is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IpamReleaseRequest {
    /// One address of the interface whose addresses are to be freed.
    pub address: IpAddr,
    /// Also when it is in use: the link is taken away with it.
    #[serde(default)]
    pub force: bool,
}

/// Addresses that were freed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IpamFreedJson {
    /// All addresses of one interface.
    pub addresses: Vec<IpAddr>,
    /// Who had them; null: nobody, there was only a route.
    pub holder: Option<IpamHolderJson>,
    /// What else was taken away, in words: links, routes.
    pub removed: Vec<String>,
}
