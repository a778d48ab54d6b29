//! What the store remembers of one interface of one container.

use std::fmt;
use std::net::IpAddr;

use weft_routing::netlink::Mac;

use crate::datapath::HostEnd;
use crate::spec::PodName;

/// What the CNI specification tells attachments apart by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The network's name.
    pub network: String,
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_IFNAME`.
    pub ifname: String,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "interface {} of container {} in network {}", self.ifname, self.container_id, self.network)
    }
}

/// How far the ADD of an entry came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Addresses are taken; the ADD is at work or was killed.
    Reserved,
    /// The ADD answered: the pod has these addresses.
    Committed(HostEnd),
}

/// One interface of one container, and its addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Whose it is.
    pub key: Key,
    /// How far its ADD came.
    pub state: State,
    /// One address of each family, IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// Name of the host end of its link.
    pub host_link: String,
    /// MAC address of the pod end, which the host's neighbour entries carry.
    pub mac: Mac,
    /// Path of the pod's network namespace.
    pub netns: String,
    /// The Kubernetes pod, where the runtime named it.
    pub pod: Option<PodName>,
    /// The boot in which the addresses were taken: in a later one the namespace and the link are gone.
    pub boot_id: String,
    /// When the addresses were taken, in seconds since 1970 by the wall clock: to be told, not to be reckoned with.
    pub since: Option<u64>,
}
