//! The requests one interface takes, each with the words for the error when the kernel refuses it.

use std::fmt;

use netlink_packet_core::{DefaultNla, Emitable};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    AfSpecInet, AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkMessage,
};
use weft_routing::netlink::{self, Address, LinkName, Neighbour, Request, Socket};
use weft_routing::route::{Protocol, Route};

use super::{Error, ready, refused};

/// Attribute numbers of linux/ip.h and linux/if_link.h.
const IFLA_INET_CONF: u16 = 1;
const NLA_F_NESTED: u16 = 1 << 15;
const IPV4_DEVCONF_FORWARDING: u16 = 1;
const IPV4_DEVCONF_PROXY_ARP: u16 = 3;
const IPV4_DEVCONF_SEND_REDIRECTS: u16 = 6;
const IPV4_DEVCONF_RP_FILTER: u16 = 8;

/// What a host end has in `net/ipv4/conf`. The kernel takes them in one message instead of a file each. Strict
/// reverse path filtering drops what a pod sends under an address that is not its own.
pub(super) const HOST_PARAMETERS_V4: [HostParameter; 4] = [
    HostParameter { number: IPV4_DEVCONF_FORWARDING, name: "forwarding", value: 1 },
    HostParameter { number: IPV4_DEVCONF_PROXY_ARP, name: "proxy_arp", value: 0 },
    HostParameter { number: IPV4_DEVCONF_SEND_REDIRECTS, name: "send_redirects", value: 0 },
    HostParameter { number: IPV4_DEVCONF_RP_FILTER, name: "rp_filter", value: 1 },
];

/// One file of `net/ipv4/conf/LINK`.
pub(super) struct HostParameter {
    number: u16,
    pub(super) name: &'static str,
    pub(super) value: u32,
}

/// One request.
#[derive(Debug)]
pub(super) enum Step {
    /// Sets the parameters of a host end; with IPv6, the kernel is kept from making addresses up too.
    HostParameters {
        link: u32,
        ipv6: bool,
    },
    SetUp {
        name: String,
        link: u32,
    },
    Address(Address),
    Neighbour(Neighbour),
    Route(Route),
}

impl Step {
    fn request(&self) -> Request {
        match self {
            Self::HostParameters { link, ipv6 } => host_parameters(*link, *ipv6),
            Self::SetUp { link, .. } => netlink::set_up(*link, true),
            Self::Address(address) => address.add(),
            Self::Neighbour(neighbour) => neighbour.replace(),
            // Not over a route that is there: the address would have two owners.
            Self::Route(route) => route.add(),
        }
    }
}

/// To follow the word "cannot".
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HostParameters { .. } => f.write_str("set the parameters of the host's end"),
            Self::SetUp { name, .. } => write!(f, "set {name} up"),
            Self::Address(address) => write!(f, "add address {}", address.address),
            Self::Neighbour(neighbour) => write!(f, "add neighbour {}", neighbour.address),
            Self::Route(route) => match route.preferred_source {
                Some(source) => write!(f, "add route {} with source {source}", route.key.destination()),
                None => write!(f, "add route {}", route.key.destination()),
            },
        }
    }
}

/// Carries out all steps in one batch; the error is the first one.
pub(super) fn perform(socket: &mut Socket, steps: &[Step]) -> Result<(), Error> {
    let requests: Vec<Request> = steps.iter().map(Step::request).collect();
    let results = socket.batch(&requests);
    let leads_to_pod =
        |step: &Step| matches!(step, Step::Route(route) if route.protocol == Protocol::WEFT_PODS);
    steps.iter().zip(requests).zip(results).try_for_each(|((step, request), result)| match result {
        Err(error) if error.is_present() && leads_to_pod(step) => {
            ready::try_until_free(socket, &request).map_err(refused(step))
        }
        result => result.map_err(refused(step)),
    })
}

/// The request that deletes a link by its name.
pub(super) fn delete_link(name: &LinkName) -> Request {
    let mut message = LinkMessage::default();
    message.attributes = vec![LinkAttribute::IfName(name.as_str().to_owned())];
    Request::new(&RouteNetlinkMessage::DelLink(message), 0)
}

fn host_parameters(link: u32, ipv6: bool) -> Request {
    // The codec's own type leaves out what is zero.
    let attributes =
        HOST_PARAMETERS_V4.map(|sysctl| DefaultNla::new(sysctl.number, sysctl.value.to_ne_bytes().to_vec()));
    let attributes = attributes.as_slice();
    let mut values = vec![0; attributes.buffer_len()];
    attributes.emit(&mut values);
    let inet = AfSpecInet::Other(DefaultNla::new(IFLA_INET_CONF | NLA_F_NESTED, values));
    let mut families = vec![AfSpecUnspec::Inet(vec![inet])];
    if ipv6 {
        families.push(AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]));
    }
    let mut message = LinkMessage::default();
    message.header.index = link;
    message.attributes = vec![LinkAttribute::AfSpecUnspec(families)];
    Request::new(&RouteNetlinkMessage::SetLink(message), 0)
}
