//! Which way the kernel sends a packet: all its tables and rules considered, and not what one route says.

use std::net::IpAddr;

use netlink_packet_core::Parseable;
use netlink_packet_route::route::{RouteAttribute, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use weft_routing::netlink::{Error, Request, Socket};

/// The route by which a packet to `address` leaves, as `ip route get` has it.
pub(super) fn look_up(socket: &mut Socket, address: IpAddr) -> Result<RouteMessage, Error> {
    let mut message = RouteMessage::default();
    (message.header.address_family, message.header.destination_prefix_length) = match address {
        IpAddr::V4(_) => (AddressFamily::Inet, 32),
        IpAddr::V6(_) => (AddressFamily::Inet6, 128),
    };
    message.attributes = vec![RouteAttribute::Destination(address.into())];
    socket.get(&Request::new(&RouteNetlinkMessage::GetRoute(message), 0), |_, payload| {
        let unread = |error| Error::Malformed(format!("a route could not be read: {error}"));
        RouteMessage::parse(payload).map_err(unread)
    })
}

/// The link by which it leaves; none for one that does not.
pub(super) fn link_of(route: &RouteMessage) -> Option<u32> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(link) => Some(*link),
        _ => None,
    })
}
