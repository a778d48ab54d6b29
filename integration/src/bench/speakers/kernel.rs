//! The kernel's routes: looked up while a daemon writes them, and written as fast as the kernel takes them.

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, OwnedFd};

use anyhow::{Context as _, Result, bail, ensure};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket, sockopt,
};

use super::routes::Prefix;

/// linux/rtnetlink.h, linux/netlink.h and linux/nexthop.h.
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWNEXTHOP: u16 = 104;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTA_DST: u16 = 1;
const RTA_GATEWAY: u16 = 5;
const RTA_NH_ID: u16 = 30;
const NHA_ID: u16 = 1;
const NHA_GROUP: u16 = 2;
const NHA_OIF: u16 = 5;
const NHA_GATEWAY: u16 = 6;
const RT_TABLE_MAIN: u8 = 254;
const RTN_UNICAST: u8 = 1;
const RTPROT_KERNEL: u8 = 2;
const RTPROT_STATIC: u8 = 4;

/// The lengths of `struct nlmsghdr` and `struct rtmsg`.
const HEADER: usize = 16;
const ROUTE_HEADER: usize = 12;

/// Where `struct fib_result_nl` (net/ip_fib.h of the kernel) has the table to look in, the prefix length found and the error,
/// and how long it is.
const LOOKUP_TABLE: usize = 10;
const LOOKUP_PREFIX_LENGTH: usize = 12;
const LOOKUP_ERROR: usize = 16;
const LOOKUP: usize = 20;

/// How many messages go to the kernel in one system call.
const BATCH: usize = 1024;
/// Larger than any datagram of rtnetlink.
const RECEIVE: usize = 128 * 1024;

/// A netlink socket of one network namespace: that of the thread that opens it.
#[derive(Debug)]
pub(super) struct Kernel {
    socket: OwnedFd,
    /// Of NETLINK_FIB_LOOKUP, which answers without the lock that routes are written under (RTNL): who looks must not be in the
    /// way of who writes.
    lookups: OwnedFd,
    buffer: Vec<u8>,
    /// What the kernel says of its tables (`CONFIG_IP_FIB_TRIE_STATS`), and how many routes there were at first.
    statistics: Option<(File, usize)>,
}

/// How many routes fib_triestat says that the main table has.
fn in_main(statistics: &mut File) -> Result<usize> {
    let mut text = String::new();
    statistics.rewind()?;
    statistics.read_to_string(&mut text)?;
    let main = text.lines().skip_while(|line| *line != "Main:");
    let prefixes = main.filter_map(|line| line.trim().strip_prefix("Prefixes:")).next();
    Ok(prefixes.context("fib_triestat does not count prefixes")?.trim().parse()?)
}

impl Kernel {
    pub(super) fn new() -> Result<Self> {
        let open = |protocol: SockProtocol| {
            socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)
        };
        let (socket, lookups) = (open(SockProtocol::NetlinkRoute)?, open(SockProtocol::NetlinkFIBLookup)?);
        setsockopt(&socket, sockopt::RcvBufForce, &(8 << 20))?;
        let statistics = File::open("/proc/thread-self/net/fib_triestat").ok();
        let statistics = statistics.and_then(|mut file| Some((in_main(&mut file).ok()?, file)));
        Ok(Self {
            socket,
            lookups,
            buffer: vec![0; RECEIVE],
            statistics: statistics.map(|(count, file)| (file, count)),
        })
    }

    /// How many IPv4 routes the main table has got since this was made. A list of them all, which takes the longest where there are many, is
    /// asked for only of a kernel that does not say.
    pub(super) fn gained(&mut self) -> Result<usize> {
        match &mut self.statistics {
            Some((file, before)) => Ok(in_main(file)?.saturating_sub(*before)),
            None => self.count(),
        }
    }

    /// The length of the prefix of the main table that an address is in. None: it is in none.
    pub(super) fn matched(&mut self, address: u32) -> Result<Option<u8>> {
        let mut wanted = [0; LOOKUP];
        wanted[..4].copy_from_slice(&address.to_be_bytes());
        wanted[LOOKUP_TABLE] = RT_TABLE_MAIN;
        let mut request = Vec::with_capacity(HEADER + LOOKUP);
        push(&mut request, 0, NLM_F_REQUEST, &wanted, &[]);
        send_all(&self.lookups, &request)?;
        let length = recv(self.lookups.as_raw_fd(), &mut self.buffer, MsgFlags::empty())?;
        let reply = messages(self.buffer.get(..length).unwrap_or_default()).next();
        let found = reply.and_then(|reply| reply.payload.first_chunk::<LOOKUP>()).context("a short reply")?;
        let error = found[LOOKUP_ERROR..].first_chunk().map(|errno| i32::from_ne_bytes(*errno));
        Ok((error == Some(0)).then_some(found[LOOKUP_PREFIX_LENGTH]))
    }

    /// The gateway that a packet to an address is sent to now; none: there is none.
    pub(super) fn gateway(&mut self, address: u32) -> Result<Option<Ipv4Addr>> {
        let mut request = Vec::new();
        let header = route_header(32, 0);
        push(&mut request, RTM_GETROUTE, NLM_F_REQUEST, &header, &[(RTA_DST, &address.to_be_bytes())]);
        send_all(&self.socket, &request)?;
        let datagram = self.receive(MsgFlags::empty())?;
        let reply = messages(datagram).next().context("an empty reply")?;
        if reply.kind == RTM_NEWROUTE {
            let gateway = attributes(reply.payload.get(ROUTE_HEADER..).unwrap_or_default())
                .find(|(kind, _)| *kind == RTA_GATEWAY);
            let octets = gateway.and_then(|(_, value)| <[u8; 4]>::try_from(value).ok());
            return Ok(octets.map(Ipv4Addr::from));
        }
        match reply.error()? {
            Errno::ENETUNREACH | Errno::EHOSTUNREACH => Ok(None),
            errno => Err(errno).context("cannot look a route up"),
        }
    }

    /// How many IPv4 routes of the main table are not the kernel's own.
    pub(super) fn count(&mut self) -> Result<usize> {
        let mut request = Vec::new();
        push(&mut request, RTM_GETROUTE, NLM_F_REQUEST | NLM_F_DUMP, &route_header(0, 0), &[]);
        send_all(&self.socket, &request)?;
        let mut count = 0;
        loop {
            for message in messages(self.receive(MsgFlags::empty())?) {
                match (message.kind, message.payload) {
                    (RTM_NEWROUTE, [_, _, _, _, table, protocol, ..]) => {
                        count += usize::from(*table == RT_TABLE_MAIN && *protocol != RTPROT_KERNEL);
                    }
                    (NLMSG_DONE, _) => return Ok(count),
                    (NLMSG_ERROR, _) => bail!("cannot list the routes: {}", message.error()?),
                    _ => {}
                }
            }
        }
    }

    /// Carries out messages, in batches; they ask for no acknowledgement. A refusal is an error.
    pub(super) fn flood(&mut self, batches: &[Vec<u8>]) -> Result<()> {
        for batch in batches {
            send_all(&self.socket, batch)?;
            loop {
                match self.receive(MsgFlags::MSG_DONTWAIT) {
                    Ok(datagram) => {
                        for message in messages(datagram).filter(|message| message.kind == NLMSG_ERROR) {
                            let errno = message.error()?;
                            ensure!(errno == Errno::UnknownErrno, "the kernel refuses a route: {errno}");
                        }
                    }
                    Err(error) if error.downcast_ref() == Some(&Errno::EAGAIN) => break,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    fn receive(&mut self, flags: MsgFlags) -> Result<&[u8]> {
        let length = recv(self.socket.as_raw_fd(), &mut self.buffer, flags)?;
        Ok(self.buffer.get(..length).unwrap_or_default())
    }
}

fn send_all(socket: &OwnedFd, octets: &[u8]) -> Result<()> {
    let sent = send(socket.as_raw_fd(), octets, MsgFlags::empty()).context("cannot ask the kernel")?;
    ensure!(sent == octets.len(), "the kernel took {sent} octets of {}", octets.len());
    Ok(())
}

/// One message of a datagram.
struct Message<'a> {
    kind: u16,
    payload: &'a [u8],
}

impl Message<'_> {
    /// The error that it says; [`Errno::UnknownErrno`]: none.
    fn error(&self) -> Result<Errno> {
        let errno = self.payload.first_chunk().context("an error without its number")?;
        Ok(Errno::from_raw(-i32::from_ne_bytes(*errno)))
    }
}

fn messages(mut octets: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let (length, rest) = octets.split_first_chunk()?;
        let length = usize::try_from(u32::from_ne_bytes(*length)).ok()?;
        let kind = u16::from_ne_bytes(*rest.first_chunk()?);
        let payload = octets.get(HEADER..length)?;
        octets = octets.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Message { kind, payload })
    })
}

fn attributes(mut octets: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (length, rest) = octets.split_first_chunk()?;
        let length = usize::from(u16::from_ne_bytes(*length));
        let kind = u16::from_ne_bytes(*rest.first_chunk()?);
        let value = octets.get(4..length)?;
        octets = octets.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn push(octets: &mut Vec<u8>, kind: u16, flags: u16, header: &[u8], attributes: &[(u16, &[u8])]) {
    let start = octets.len();
    octets.extend([0; HEADER]);
    octets.extend(header);
    for (kind, value) in attributes {
        octets.extend(u16::try_from(4 + value.len()).unwrap_or(u16::MAX).to_ne_bytes());
        octets.extend(kind.to_ne_bytes());
        octets.extend(*value);
        octets.resize(octets.len().next_multiple_of(4), 0);
    }
    let length = u32::try_from(octets.len() - start).unwrap_or(u32::MAX);
    let words = [length.to_ne_bytes().as_slice(), &kind.to_ne_bytes(), &flags.to_ne_bytes()].concat();
    octets.splice(start..start + words.len(), words);
}

fn route_header(length: u8, protocol: u8) -> Vec<u8> {
    let family = AddressFamily::Inet as u8;
    let kind = if protocol == 0 { 0 } else { RTN_UNICAST };
    vec![family, length, 0, 0, RT_TABLE_MAIN, protocol, 0, kind, 0, 0, 0, 0]
}

/// Messages that make, or take away, routes over nexthop objects.
pub(super) fn routes<'a>(routes: impl Iterator<Item = (&'a Prefix, u32)>, present: bool) -> Vec<Vec<u8>> {
    let (kind, flags) = match present {
        true => (RTM_NEWROUTE, NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL),
        false => (RTM_DELROUTE, NLM_F_REQUEST),
    };
    let mut batches = vec![Vec::new()];
    let mut count = 0;
    for (prefix, nexthop) in routes {
        if count == BATCH {
            batches.push(Vec::new());
            count = 0;
        }
        count += 1;
        let (destination, id) = (prefix.address.to_be_bytes(), nexthop.to_ne_bytes());
        let attributes: &[(u16, &[u8])] = &[(RTA_DST, &destination), (RTA_NH_ID, &id)];
        if let Some(batch) = batches.last_mut() {
            push(batch, kind, flags, &route_header(prefix.length, RTPROT_STATIC), attributes);
        }
    }
    batches
}

/// A message that makes a nexthop object.
pub(super) fn nexthop(id: u32, gateway: Ipv4Addr, link: u32) -> Vec<u8> {
    let (id, gateway, link) = (id.to_ne_bytes(), gateway.octets(), link.to_ne_bytes());
    nexthop_message(AddressFamily::Inet as u8, &[(NHA_ID, &id), (NHA_GATEWAY, &gateway), (NHA_OIF, &link)])
}

/// A message that makes a group of nexthop objects, or puts it in the place of another.
pub(super) fn nexthop_group(id: u32, members: &[u32]) -> Vec<u8> {
    let id = id.to_ne_bytes();
    // `struct nexthop_grp`: the object, and its weight less one.
    let members: Vec<u8> = members.iter().flat_map(|id| [id.to_ne_bytes(), [0; 4]]).flatten().collect();
    nexthop_message(AddressFamily::Unspec as u8, &[(NHA_ID, &id), (NHA_GROUP, &members)])
}

fn nexthop_message(family: u8, attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let mut message = Vec::new();
    let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
    push(&mut message, RTM_NEWNEXTHOP, flags, &[family, 0, RTPROT_STATIC, 0, 0, 0, 0, 0], attributes);
    message
}
