//! The socket that router advertisements go through.

use std::io;
use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::{AsRawFd, RawFd};

use nix::sys::socket::{SockaddrIn6, recvfrom};
use socket2::{Domain, Protocol, SockFilter, Type};

use super::message::{self, ROUTER_ADVERTISEMENT};
use crate::netlink::Mac;

/// All nodes of a link (RFC 4291 section 2.7.1). Every node is a member.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// The hop limit of all that comes from the link itself (RFC 4861 section 6.1.2): a router would have lowered it.
const HOP_LIMIT: u32 = 255;
/// Where the hop limit is in an IPv6 header (RFC 8200 section 3).
const HOP_LIMIT_OFFSET: u32 = 7;
/// `SKF_NET_OFF` (linux/filter.h): a filter's loads from here on are from the network header.
const NETWORK_HEADER: u32 = 0xfff0_0000;
/// Longer advertisements than a link carries are cut, and then malformed.
const MESSAGE_MAX: usize = 1500;

/// A raw ICMPv6 socket of one network namespace, which never waits. Hears router advertisements that were sent on the
/// link itself, and nothing else; not its own.
#[derive(Debug)]
pub struct Socket(socket2::Socket);

impl Socket {
    /// Opens it in the calling thread's network namespace.
    ///
    /// # Errors
    /// `EPERM` without `CAP_NET_RAW`.
    pub fn new() -> io::Result<Self> {
        let socket =
            socket2::Socket::new(Domain::IPV6, Type::RAW.nonblocking().cloexec(), Some(Protocol::ICMPV6))?;
        socket.attach_filter(&only_advertisements())?;
        socket.set_multicast_hops_v6(HOP_LIMIT)?;
        socket.set_multicast_loop_v6(false)?;
        Ok(Self(socket))
    }

    /// Sends an advertisement on a link, from its link-local address: it needs one.
    ///
    /// # Errors
    /// What the kernel says of the link.
    pub fn advertise(&self, link: u32, mac: Option<Mac>) -> io::Result<()> {
        let destination = SocketAddrV6::new(ALL_NODES, 0, 0, link);
        self.0.send_to(&message::advertisement(mac), &destination.into()).map(drop)
    }

    /// The next advertisement: on which link, from whom, and what.
    ///
    /// # Errors
    /// `WouldBlock` when there is none.
    pub fn receive(&self) -> io::Result<(u32, Ipv6Addr, Vec<u8>)> {
        let mut message = vec![0; MESSAGE_MAX];
        loop {
            let (length, source) = recvfrom::<SockaddrIn6>(self.0.as_raw_fd(), &mut message)?;
            // Only link-local sources have a scope.
            if let Some(source) = source.filter(|source| source.scope_id() != 0) {
                message.truncate(length);
                return Ok((source.scope_id(), source.ip(), message));
            }
        }
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Drops what is no router advertisement or has passed a router.
fn only_advertisements() -> [SockFilter; 6] {
    let code = |code: u32| u16::try_from(code).unwrap_or_default();
    let load = code(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS);
    let equal = code(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K);
    let accept = code(libc::BPF_RET | libc::BPF_K);
    [
        SockFilter::new(load, 0, 0, 0),
        SockFilter::new(equal, 0, 3, u32::from(ROUTER_ADVERTISEMENT)),
        SockFilter::new(load, 0, 0, NETWORK_HEADER | HOP_LIMIT_OFFSET),
        SockFilter::new(equal, 0, 1, HOP_LIMIT),
        SockFilter::new(accept, 0, 0, u32::MAX),
        SockFilter::new(accept, 0, 0, 0),
    ]
}
