//! A socket that hears what changes in the kernel.

use std::os::fd::{AsFd, BorrowedFd};

use netlink_packet_core::{NLM_F_REPLACE, Parseable};
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::neighbour::NeighbourMessage;
use netlink_packet_route::route::RouteMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{SockFilter, SockRef};

use super::error::Error;
use super::message::{Messages, Received};
use super::{Address, Link, Neighbour, socket};
use crate::fib::Notification;
use crate::route::Route;

/// The multicast groups listened to (`enum rtnetlink_groups`, linux/rtnetlink.h).
const GROUPS: [libc::c_uint; 7] = [
    libc::RTNLGRP_LINK,
    libc::RTNLGRP_NEIGH,
    libc::RTNLGRP_IPV4_IFADDR,
    libc::RTNLGRP_IPV4_ROUTE,
    libc::RTNLGRP_IPV6_IFADDR,
    libc::RTNLGRP_IPV6_ROUTE,
    RTNLGRP_NEXTHOP,
];
const RTNLGRP_NEXTHOP: libc::c_uint = 32;
const RTM_NEWNEXTHOP: u16 = 104;
const RTM_DELNEXTHOP: u16 = 105;
/// Notifications returned by one read, so that a flood is taken in pieces.
const READ_LIMIT: usize = 4096;
/// Offset of `nlmsg_pid` in `struct nlmsghdr`.
const PORT_OFFSET: u32 = 12;

/// Subscribed from its creation on to links, addresses, routes and neighbours of its network namespace. Hears
/// nothing of what the request sockets with the given port numbers cause.
#[derive(Debug)]
pub(super) struct Monitor {
    socket: netlink_sys::Socket,
    buffer: Vec<u8>,
}

impl Monitor {
    pub(super) fn new(ignored_ports: [u32; 2], receive_buffer: Option<usize>) -> Result<Self, Error> {
        let mut socket = socket::open(NETLINK_ROUTE)?;
        if let Some(size) = receive_buffer {
            setsockopt(&socket, sockopt::RcvBuf, &size)
                .map_err(|errno| Error::Socket { action: "set SO_RCVBUF", errno })?;
        }
        socket.bind_auto().map_err(|error| Error::from_io("bind", &error))?;
        SockRef::from(&socket)
            .attach_filter(&ignore(ignored_ports))
            .map_err(|error| Error::from_io("attach a filter", &error))?;
        for group in GROUPS {
            socket.add_membership(group).map_err(|error| Error::from_io("subscribe to changes", &error))?;
        }
        Ok(Self { socket, buffer: Vec::new() })
    }

    /// What was heard since the last read, without waiting.
    pub(super) fn read(&mut self) -> Vec<Notification> {
        let mut heard = Vec::new();
        while heard.len() < READ_LIMIT {
            match socket::receive(&self.socket, &mut self.buffer) {
                Ok(()) => heard.extend(Messages(&self.buffer).filter_map(|message| decode(&message))),
                Err(Error::NoReply) => break,
                Err(error) => {
                    tracing::debug!(%error, "lost notifications");
                    heard.push(Notification::Overrun);
                    if !matches!(error, Error::Overrun) {
                        break;
                    }
                }
            }
        }
        heard
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A socket filter that drops every message whose port number is one of `ports`: the echo of our own requests, which
/// would fill the receive buffer. Filters load words in network byte order, netlink stores them in the host's.
fn ignore(ports: [u32; 2]) -> [SockFilter; 5] {
    let [first, second] = ports.map(|port| u32::from_be_bytes(port.to_ne_bytes()));
    let code = |code: u32| u16::try_from(code).unwrap_or_default();
    let is = |port, then, otherwise| {
        SockFilter::new(code(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K), then, otherwise, port)
    };
    let answer = |length| SockFilter::new(code(libc::BPF_RET | libc::BPF_K), 0, 0, length);
    [
        SockFilter::new(code(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS), 0, 0, PORT_OFFSET),
        is(first, 1, 0),
        is(second, 0, 1),
        answer(0),
        answer(u32::MAX),
    ]
}

fn decode(message: &Received<'_>) -> Option<Notification> {
    match message.kind {
        libc::RTM_NEWLINK => Link::decode(message.payload).map(Notification::Link),
        libc::RTM_DELLINK => Link::decode_removed(message.payload).map(Notification::LinkRemoved),
        libc::RTM_NEWADDR => address(message).map(Notification::Address),
        libc::RTM_DELADDR => address(message).map(Notification::AddressRemoved),
        libc::RTM_NEWROUTE => {
            let replaced = message.flags & NLM_F_REPLACE != 0;
            route(message).map(|route| Notification::RouteAdded { route, replaced })
        }
        libc::RTM_DELROUTE => route(message).map(Notification::RouteRemoved),
        libc::RTM_NEWNEIGH | libc::RTM_DELNEIGH => NeighbourMessage::parse(message.payload)
            .ok()
            .and_then(|entry| Neighbour::notification(&entry, message.kind == libc::RTM_DELNEIGH)),
        RTM_NEWNEXTHOP | RTM_DELNEXTHOP => Some(Notification::NexthopObjects),
        _ => None,
    }
}

fn address(message: &Received<'_>) -> Option<Address> {
    AddressMessage::parse(message.payload).ok().as_ref().and_then(Address::from_message)
}

fn route(message: &Received<'_>) -> Option<Route> {
    RouteMessage::parse(message.payload).ok().as_ref().and_then(Route::from_message)
}
