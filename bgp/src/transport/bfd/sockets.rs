//! The sockets of BFD: one to listen on for each port and family in use, one to send from for each session.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use crate::bfd::{Arrived, Hops, MULTIHOP_PORT, Remote, SINGLE_HOP_PORT, SessionConfig};

/// The TTL that packets are sent with (RFC 5881 section 5; RFC 5883 leaves it open).
const TTL: u32 = 255;
/// DSCP CS6, network control: the network should drop anything else first.
const TRAFFIC_CLASS: u32 = 0xc0;
/// The ports to send from (RFC 5881 section 4): this one and those above.
const FIRST_SOURCE_PORT: u16 = 49152;
/// How many ports are tried before a session waits for its next packet.
const PORT_TRIES: usize = 64;
/// A packet has 255 octets at most.
const PACKET_MAX: usize = 256;

/// What is listened on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    ipv6: bool,
    multihop: bool,
}

impl Place {
    fn of(remote: &Remote, hops: Hops) -> Self {
        Self { ipv6: remote.address.is_ipv6(), multihop: !matches!(hops, Hops::Single) }
    }

    fn port(self) -> u16 {
        if self.multihop { MULTIHOP_PORT } else { SINGLE_HOP_PORT }
    }
}

/// All sockets of the thread.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    listeners: BTreeMap<Place, Result<Socket, String>>,
    senders: BTreeMap<Remote, Sender>,
}

/// A session's own socket: its source port stays the same while the session lives.
#[derive(Debug)]
struct Sender {
    source: Option<IpAddr>,
    socket: Socket,
}

impl Sockets {
    /// Listens where the sessions need it, and nowhere else. What failed is tried again.
    pub(super) fn listen(&mut self, sessions: &BTreeMap<Remote, SessionConfig>) {
        let wanted: BTreeSet<Place> =
            sessions.iter().map(|(remote, config)| Place::of(remote, config.hops)).collect();
        self.listeners.retain(|place, listener| wanted.contains(place) && listener.is_ok());
        for place in wanted {
            self.listeners.entry(place).or_insert_with(|| listener(place).map_err(|error| error.to_string()));
        }
    }

    /// The ports that are not listened on, and why.
    pub(super) fn errors(&self) -> BTreeMap<Option<u16>, String> {
        let failed = |(place, listener): (&Place, &Result<Socket, String>)| {
            Some((Some(place.port()), listener.as_ref().err()?.clone()))
        };
        self.listeners.iter().filter_map(failed).collect()
    }

    /// What to wait for.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.listeners.values().flatten().map(AsFd::as_fd)
    }

    /// Forgets the sockets of sessions that are gone.
    pub(super) fn retain(&mut self, is_there: impl Fn(&Remote) -> bool) {
        self.senders.retain(|remote, _| is_there(remote));
    }

    /// Sends a packet. One that cannot be sent is lost, as any may be on its way.
    pub(super) fn send(
        &mut self,
        remote: Remote,
        hops: Hops,
        source: Option<IpAddr>,
        discriminator: u32,
        bytes: &[u8],
    ) {
        let sent = self.sender(remote, source, discriminator).and_then(|socket| {
            let port = Place::of(&remote, hops).port();
            let to = match remote.address {
                IpAddr::V4(_) => SocketAddr::new(remote.address, port),
                IpAddr::V6(v6) => SocketAddrV6::new(v6, port, 0, remote.link.unwrap_or_default()).into(),
            };
            socket.send_to(bytes, &to.into())
        });
        if let Err(error) = sent {
            tracing::debug!(%remote, %error, "cannot send a BFD packet");
        }
    }

    fn sender(&mut self, remote: Remote, source: Option<IpAddr>, discriminator: u32) -> io::Result<&Socket> {
        if self.senders.get(&remote).is_none_or(|sender| sender.source != source) {
            let socket = open(remote.address.is_ipv6())?;
            let any: IpAddr = match remote.address {
                IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
            };
            bind(&socket, source.unwrap_or(any), discriminator)?;
            self.senders.insert(remote, Sender { source, socket });
        }
        self.senders.get(&remote).map(|sender| &sender.socket).ok_or(io::ErrorKind::NotFound.into())
    }

    /// Gives up to `most` packets of each listener to `take`; whether there may be more.
    pub(super) fn receive(&self, most: usize, mut take: impl FnMut(Arrived, &[u8])) -> bool {
        let mut more = false;
        for (place, socket) in &self.listeners {
            let Ok(socket) = socket else { continue };
            let mut taken = 0;
            while taken < most {
                let mut buffer = [0; PACKET_MAX];
                match receive(socket, *place, &mut buffer) {
                    Ok(Some((arrived, length))) => take(arrived, buffer.get(..length).unwrap_or_default()),
                    Ok(None) => {}
                    // Nothing is left, or an error of an earlier packet is told.
                    Err(_) => break,
                }
                taken += 1;
            }
            more |= taken == most;
        }
        more
    }
}

/// Binds to a port of the range that nobody has, by the session's discriminator: one that another process goes on with keeps its port.
fn bind(socket: &Socket, address: IpAddr, discriminator: u32) -> io::Result<()> {
    let mut last = Err(io::ErrorKind::AddrInUse.into());
    for number in (discriminator..=u32::MAX).take(PORT_TRIES) {
        let port = FIRST_SOURCE_PORT | u16::try_from(number & 0x3fff).unwrap_or_default();
        last = socket.bind(&SocketAddr::new(address, port).into());
        match &last {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            _ => break,
        }
    }
    last
}

/// A UDP socket that never waits.
fn open(ipv6: bool) -> io::Result<Socket> {
    let domain = if ipv6 { Domain::IPV6 } else { Domain::IPV4 };
    let socket = Socket::new(domain, Type::DGRAM.nonblocking().cloexec(), Some(Protocol::UDP))?;
    if ipv6 {
        socket.set_only_v6(true)?;
        socket.set_unicast_hops_v6(TTL)?;
        socket.set_tclass_v6(TRAFFIC_CLASS)?;
    } else {
        socket.set_ttl_v4(TTL)?;
        socket.set_tos_v4(TRAFFIC_CLASS)?;
    }
    Ok(socket)
}

fn listener(place: Place) -> io::Result<Socket> {
    let socket = open(place.ipv6)?;
    let any: IpAddr = if place.ipv6 {
        setsockopt(&socket, sockopt::Ipv6RecvHopLimit, &true)?;
        setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        Ipv6Addr::UNSPECIFIED.into()
    } else {
        setsockopt(&socket, sockopt::Ipv4RecvTtl, &true)?;
        setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
        Ipv4Addr::UNSPECIFIED.into()
    };
    socket.bind(&SocketAddr::new(any, place.port()).into())?;
    Ok(socket)
}

/// The next packet and how it came; `None`: the kernel does not tell how.
fn receive(socket: &Socket, place: Place, buffer: &mut [u8]) -> Result<Option<(Arrived, usize)>, Errno> {
    let mut control = nix::cmsg_space!(nix::libc::in6_pktinfo, nix::libc::in_pktinfo, nix::libc::c_int);
    let mut slices = [IoSliceMut::new(buffer)];
    let descriptor = socket.as_raw_fd();
    let flags = MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<SockaddrStorage>(descriptor, &mut slices, Some(&mut control), flags)?;
    let (mut ttl, mut link) = (None, None);
    for control in message.cmsgs()? {
        match control {
            ControlMessageOwned::Ipv4Ttl(value) | ControlMessageOwned::Ipv6HopLimit(value) => {
                ttl = u8::try_from(value).ok();
            }
            ControlMessageOwned::Ipv4PacketInfo(info) => link = u32::try_from(info.ipi_ifindex).ok(),
            ControlMessageOwned::Ipv6PacketInfo(info) => link = Some(info.ipi6_ifindex),
            _ => {}
        }
    }
    let source =
        message.address.and_then(|address| match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
            (Some(v4), _) => Some(IpAddr::V4(v4.ip())),
            (None, Some(v6)) => Some(IpAddr::V6(v6.ip())),
            (None, None) => None,
        });
    let length = message.bytes;
    let arrived = |((source, link), ttl)| Arrived { source, link, ttl, multihop: place.multihop };
    Ok(source.zip(link).zip(ttl).map(|how| (arrived(how), length)))
}
