//! Links: requests that make, change and delete them, and the lookup.

use std::collections::BTreeSet;
use std::fmt;
use std::os::fd::{AsFd, AsRawFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NlaBuffer, NlasIterator};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkExtentMask,
    LinkFlags, LinkHeader, LinkInfo, LinkMessage,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Error, NamespaceId, Request, Socket};

/// Length of `struct ifinfomsg` (rtnetlink(7)).
const HEADER_LEN: usize = 16;
/// The group that links are in unless told otherwise (`INIT_NETDEV_GROUP`, linux/netdevice.h).
const DEFAULT_GROUP: u32 = 0;
/// The first group that is tried for links about to be deleted: far from the small numbers people use.
const FIRST_GROUP: u32 = 0x7765_6674;

/// Queues of each end of a veth. Untold, the kernel makes one per processor, with its objects in sysfs, and at once
/// takes all but one away again (`veth_init_queues`, drivers/net/veth.c), which takes longer than all the rest.
const QUEUES: u32 = 1;

/// `AF_INET6` as an attribute of `IFLA_AF_SPEC`, and what is in it (linux/if_link.h, linux/ipv6.h).
const AF_INET6: u16 = 10;
const IFLA_INET6_CONF: u16 = 2;
const DEVCONF_ACCEPT_RA: usize = 3;
const DEVCONF_DISABLE_IPV6: usize = 26;

/// A MAC address.
pub type Mac = [u8; 6];

/// A name the kernel takes for a link: 1 to 15 bytes, not `.` or `..`, without `/`, `:` and white space
/// (`dev_valid_name`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkName(String);

/// The text is no valid link name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no link name: 1 to 15 bytes without '/', ':' and white space")]
pub struct InvalidLinkName(pub String);

impl LinkName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for LinkName {
    type Err = InvalidLinkName;

    fn from_str(text: &str) -> Result<Self, InvalidLinkName> {
        let good = (1..=15).contains(&text.len())
            && !matches!(text, "." | "..")
            && !text.chars().any(|c| c.is_whitespace() || matches!(c, '/' | ':' | '\0'));
        if good { Ok(Self(text.to_owned())) } else { Err(InvalidLinkName(text.to_owned())) }
    }
}

impl fmt::Display for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A network interface as the kernel describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The kernel's number for it, never 0; unique in its namespace and not reused soon.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its MAC address; `None` for links without one (loopback has 00:00:00:00:00:00).
    pub mac: Option<Mac>,
    /// The largest packet it takes, in bytes.
    pub mtu: u32,
    /// Administratively up (`IFF_UP`).
    pub up: bool,
    /// Has carrier (`IFF_LOWER_UP`).
    pub carrier: bool,
    /// Operational (`IFF_RUNNING`, RFC 2863): the kernel has acted upon the carrier, and packets are sent. A moment after the carrier.
    pub operational: bool,
    /// The loopback interface.
    pub loopback: bool,
    /// The driver's name, such as `veth`; `None` for hardware.
    pub kind: Option<String>,
    /// Index of the veth peer or lower device (`IFLA_LINK`), in that device's own namespace.
    pub peer: Option<u32>,
    /// The id that this namespace has for the peer's (`IFLA_LINK_NETNSID`); `None` for a peer in this one, or in one that is
    /// about to be gone.
    pub peer_namespace: Option<NamespaceId>,
}

impl Link {
    /// Up and with carrier: packets can leave.
    pub fn is_running(&self) -> bool {
        self.up && self.carrier
    }

    /// Reads what the kernel tells about a link; `None` where it tells about something else.
    pub(super) fn decode(payload: &[u8]) -> Option<Self> {
        let (header, attributes) = split(payload)?;
        let mut link = Self {
            index: header.index,
            name: String::new(),
            mac: None,
            mtu: 0,
            up: header.flags.contains(LinkFlags::Up),
            carrier: header.flags.contains(LinkFlags::LowerUp),
            operational: header.flags.contains(LinkFlags::Running),
            loopback: header.flags.contains(LinkFlags::Loopback),
            kind: None,
            peer: None,
            peer_namespace: None,
        };
        for attribute in attributes {
            let value = attribute.value();
            match attribute.kind() {
                libc::IFLA_IFNAME => link.name = text(value),
                libc::IFLA_ADDRESS => link.mac = value.try_into().ok(),
                libc::IFLA_MTU => link.mtu = number(value).unwrap_or(0),
                libc::IFLA_LINK => link.peer = number(value),
                libc::IFLA_LINK_NETNSID => link.peer_namespace = number(value).and_then(NamespaceId::new),
                libc::IFLA_LINKINFO => {
                    let kind = read(value).find(|attribute| attribute.kind() == libc::IFLA_INFO_KIND);
                    link.kind = kind.map(|kind| text(kind.value()));
                }
                _ => {}
            }
        }
        Some(link)
    }

    /// The index of the link that a `RTM_DELLINK` notification says is gone.
    pub(super) fn decode_removed(payload: &[u8]) -> Option<u32> {
        split(payload).map(|(header, _)| header.index)
    }
}

/// A link's `net/ipv6/conf`, as far as it is asked about. The files themselves are slow to find where there are many network
/// namespaces: the kernel looks through those of the same name in all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv6Conf {
    /// `disable_ipv6`.
    pub disabled: bool,
    /// `accept_ra`: 0, 1 or 2.
    pub accept_ra: u32,
}

impl Ipv6Conf {
    /// `None` for a link that does not speak IPv6.
    fn decode(payload: &[u8]) -> Option<Self> {
        let (_, mut attributes) = split(payload)?;
        let of_families = attributes.find(|attribute| attribute.kind() == libc::IFLA_AF_SPEC)?;
        let of_ipv6 = read(of_families.value()).find(|attribute| attribute.kind() == AF_INET6)?;
        let values = read(of_ipv6.value()).find(|attribute| attribute.kind() == IFLA_INET6_CONF)?;
        let value = |index: usize| {
            let start = index.checked_mul(size_of::<u32>())?;
            number(values.value().get(start..start.checked_add(size_of::<u32>())?)?)
        };
        Some(Self { disabled: value(DEVCONF_DISABLE_IPV6)? != 0, accept_ra: value(DEVCONF_ACCEPT_RA)? })
    }
}

/// The group that a link is in.
fn decode_group(payload: &[u8]) -> Option<u32> {
    let (_, mut attributes) = split(payload)?;
    number(attributes.find(|attribute| attribute.kind() == libc::IFLA_GROUP)?.value())
}

/// The header and the attributes of a message about a link. The codec's own type reads every attribute of every driver:
/// much to do in each look, and a large part of a small program.
///
/// `None` for what bridges tell about their ports (`AF_BRIDGE`): a port that leaves its bridge is announced as `RTM_DELLINK`
/// although the link stays.
fn split(payload: &[u8]) -> Option<(LinkHeader, impl Iterator<Item = NlaBuffer<&[u8]>>)> {
    let header = LinkHeader::parse(payload).ok()?;
    let is_link = header.interface_family == AddressFamily::Unspec;
    is_link.then_some((header, read(payload.get(HEADER_LEN..)?)))
}

/// Attributes up to the first that is cut off.
fn read(bytes: &[u8]) -> impl Iterator<Item = NlaBuffer<&[u8]>> {
    NlasIterator::new(bytes).map_while(Result::ok)
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).trim_end_matches('\0').to_owned()
}

fn number(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_ne_bytes)
}

/// A veth pair: one end where the socket is, the peer made directly in another network namespace.
#[derive(Debug)]
pub struct Veth<'a, N> {
    /// Name of this end.
    pub name: &'a LinkName,
    /// MAC address of this end, set at creation: udev rewrites one that is set later.
    pub mac: Mac,
    /// Name of the peer.
    pub peer_name: &'a LinkName,
    /// MAC address of the peer; `None` lets the kernel make one up.
    pub peer_mac: Option<Mac>,
    /// An open network namespace (for example `File::open("/run/netns/blue")`) in which the peer appears.
    pub peer_netns: N,
    /// MTU of both ends, in bytes.
    pub mtu: u32,
}

impl<N: AsFd> Veth<'_, N> {
    /// The request that makes the pair, both ends down. Fails with `EEXIST` when either name is taken.
    ///
    /// The request names the namespace by its file descriptor, so `peer_netns` must stay open until it is sent.
    pub fn create(&self) -> Request {
        let mut peer = LinkMessage::default();
        peer.attributes = vec![
            LinkAttribute::IfName(self.peer_name.as_str().to_owned()),
            LinkAttribute::Mtu(self.mtu),
            LinkAttribute::NumTxQueues(QUEUES),
            LinkAttribute::NumRxQueues(QUEUES),
            LinkAttribute::NetNsFd(self.peer_netns.as_fd().as_raw_fd()),
        ];
        peer.attributes.extend(self.peer_mac.map(|mac| LinkAttribute::Address(mac.to_vec())));
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::IfName(self.name.as_str().to_owned()),
            LinkAttribute::Mtu(self.mtu),
            LinkAttribute::NumTxQueues(QUEUES),
            LinkAttribute::NumRxQueues(QUEUES),
            LinkAttribute::Address(self.mac.to_vec()),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
            ]),
        ];
        Request::new(&RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
    }
}

fn change(index: u32, attributes: Vec<LinkAttribute>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes = attributes;
    message
}

/// Sets a link up or down.
pub fn set_up(index: u32, up: bool) -> Request {
    let mut message = change(index, Vec::new());
    message.header.change_mask = LinkFlags::Up;
    if up {
        message.header.flags = LinkFlags::Up;
    }
    Request::new(&RouteNetlinkMessage::SetLink(message), 0)
}

/// Renames a link.
pub fn set_name(index: u32, name: &LinkName) -> Request {
    let attributes = vec![LinkAttribute::IfName(name.as_str().to_owned())];
    Request::new(&RouteNetlinkMessage::SetLink(change(index, attributes)), 0)
}

/// Sets a link's MTU, in bytes.
pub fn set_mtu(index: u32, mtu: u32) -> Request {
    Request::new(&RouteNetlinkMessage::SetLink(change(index, vec![LinkAttribute::Mtu(mtu)])), 0)
}

/// Stops the kernel from giving the link an IPv6 link-local address of its own (`addrgenmode none`). Send it
/// before the link is set up.
pub fn set_addr_gen_mode_none(index: u32) -> Request {
    let inet6 = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
    let message = change(index, vec![LinkAttribute::AfSpecUnspec(vec![inet6])]);
    Request::new(&RouteNetlinkMessage::SetLink(message), 0)
}

/// Deletes a link; its veth peer goes with it.
pub fn delete(index: u32) -> Request {
    Request::new(&RouteNetlinkMessage::DelLink(change(index, Vec::new())), 0)
}

/// A look at links, without their statistics, which are two thirds of what the kernel has to say of one.
fn look(index: u32, mut attributes: Vec<LinkAttribute>) -> Request {
    attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    Request::new(&RouteNetlinkMessage::GetLink(change(index, attributes)), 0)
}

fn set_group(index: u32, group: u32) -> Request {
    Request::new(&RouteNetlinkMessage::SetLink(change(index, vec![LinkAttribute::Group(group)])), 0)
}

impl Socket {
    /// All links of the namespace, in the kernel's order.
    pub fn links(&mut self) -> Result<Vec<Link>, Error> {
        self.dump(&look(0, Vec::new()), |_, payload| Link::decode(payload))
    }

    /// The link with this name; `None` when there is none.
    pub fn link_by_name(&mut self, name: &LinkName) -> Result<Option<Link>, Error> {
        self.link(&look(0, vec![LinkAttribute::IfName(name.as_str().to_owned())]))
    }

    /// The link with this index; `None` when there is none.
    pub fn link_by_index(&mut self, index: u32) -> Result<Option<Link>, Error> {
        self.link(&look(index, Vec::new()))
    }

    /// What the link with this index has in `net/ipv6/conf`; `None` for one that does not speak IPv6: the kernel was started
    /// with `ipv6.disable=1`, or the link's MTU is below IPv6's least.
    pub fn ipv6_conf(&mut self, index: u32) -> Result<Option<Ipv6Conf>, Error> {
        self.get(&look(index, Vec::new()), |_, payload| Ok(Ipv6Conf::decode(payload)))
    }

    /// Deletes links, each with its veth peer, and returns one result per index.
    ///
    /// The kernel waits for every processor to let go of a link, tens of milliseconds, once per request. Therefore the
    /// links are put into a group (`IFLA_GROUP`) of their own, which one request deletes. Where the kernel refuses that,
    /// for the sake of one of them, it is asked for each alone.
    pub fn delete_links(&mut self, indexes: &[u32]) -> Vec<Result<(), Error>> {
        let delete_each = |socket: &mut Self| {
            let requests: Vec<Request> = indexes.iter().map(|index| delete(*index)).collect();
            socket.batch(&requests)
        };
        if indexes.len() < 2 {
            return delete_each(self);
        }
        let group = match self.free_group() {
            Ok(group) => group,
            Err(error) => return vec![Err(error); indexes.len()],
        };
        let requests: Vec<Request> = indexes.iter().map(|index| set_group(*index, group)).collect();
        let grouped = self.batch(&requests);
        let mut message = LinkMessage::default();
        message.attributes = vec![LinkAttribute::Group(group)];
        let deleted = self.execute(&Request::new(&RouteNetlinkMessage::DelLink(message), 0));
        // An absent group: each of them was gone already, and says so.
        if deleted.is_ok() || deleted.is_err_and(|error| error.is_absent()) {
            return grouped;
        }
        let results = delete_each(self);
        let left = indexes.iter().zip(&results).filter(|(_, result)| result.is_err());
        let back: Vec<Request> = left.map(|(index, _)| set_group(*index, DEFAULT_GROUP)).collect();
        // What is gone has no group, and what stays is told by the results.
        self.batch(&back);
        results
    }

    /// The number of a group that no link is in.
    fn free_group(&mut self) -> Result<u32, Error> {
        let groups = self.dump(&look(0, Vec::new()), |_, payload| decode_group(payload))?;
        let taken: BTreeSet<u32> = groups.into_iter().collect();
        let free = (FIRST_GROUP..=u32::MAX).find(|group| !taken.contains(group));
        free.ok_or_else(|| Error::Malformed("every group has a link".to_owned()))
    }

    fn link(&mut self, request: &Request) -> Result<Option<Link>, Error> {
        let found = self.get(request, |_, payload| {
            Link::decode(payload).ok_or_else(|| Error::Malformed("a link could not be read".to_owned()))
        });
        match found {
            Ok(link) => Ok(Some(link)),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::Emitable;

    use super::*;

    #[test]
    fn a_port_that_leaves_its_bridge_is_no_link_that_goes() {
        let removed = |family| {
            let mut message = change(7, Vec::new());
            message.header.interface_family = family;
            let mut payload = vec![0; message.buffer_len()];
            message.emit(&mut payload);
            (Link::decode_removed(&payload), Link::decode(&payload).map(|link| link.index))
        };
        assert_eq!(removed(AddressFamily::Unspec), (Some(7), Some(7)));
        assert_eq!(removed(AddressFamily::Bridge), (None, None));
    }

    #[test]
    fn a_link_is_read_from_what_the_kernel_tells_and_nothing_from_less() {
        let mut message = change(
            7,
            vec![
                LinkAttribute::IfName("weft0123456789a".to_owned()),
                LinkAttribute::Mtu(1400),
                LinkAttribute::TxQueueLen(1000),
                LinkAttribute::Link(3),
                LinkAttribute::LinkNetNsId(5),
                LinkAttribute::Group(9),
                LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth)]),
                LinkAttribute::Address(vec![0xee; 6]),
            ],
        );
        message.header.flags = LinkFlags::Up | LinkFlags::Running;
        let mut payload = vec![0; message.buffer_len()];
        message.emit(&mut payload);
        let link = Link {
            index: 7,
            name: "weft0123456789a".to_owned(),
            mac: Some([0xee; 6]),
            mtu: 1400,
            up: true,
            carrier: false,
            operational: true,
            loopback: false,
            kind: Some("veth".to_owned()),
            peer: Some(3),
            peer_namespace: NamespaceId::new(5),
        };
        assert_eq!(Link::decode(&payload).as_ref(), Some(&link));
        assert_eq!(decode_group(&payload), Some(9));
        // Padding ends the last attribute.
        for length in 0..payload.len() - 2 {
            let cut = Link::decode(&payload[..length]);
            assert!(cut.as_ref() != Some(&link) && cut.is_some() == (length >= HEADER_LEN), "{length} bytes");
        }
    }

    #[test]
    fn link_names_are_checked_as_the_kernel_does() {
        for good in ["a", "eth0.100", "weft0123456789a"] {
            assert_eq!(good.parse::<LinkName>().unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", "a/b", "a b", "a:b", "weft0123456789ab", "a\0"] {
            assert_eq!(bad.parse::<LinkName>(), Err(InvalidLinkName(bad.into())));
        }
    }
}
