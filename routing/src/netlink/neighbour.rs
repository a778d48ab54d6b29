//! Neighbour entries: which MAC address an IP address on a link has.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE, Parseable};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};

use super::{Error, Mac, Request, Socket, family_of};
use crate::fib::Notification;

/// One permanent neighbour entry: never asked for by ARP or NDP, never aged out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Neighbour {
    /// Index of the link.
    pub link: u32,
    /// The neighbour's IP address.
    pub address: IpAddr,
    /// The MAC address packets to it are sent to.
    pub mac: Mac,
}

impl Neighbour {
    fn message(&self) -> NeighbourMessage {
        let mut message = NeighbourMessage::default();
        message.header.family = family_of(self.address);
        message.header.ifindex = self.link;
        message.header.state = NeighbourState::Permanent;
        message.attributes = vec![
            NeighbourAttribute::Destination(match self.address {
                IpAddr::V4(address) => NeighbourAddress::Inet(address),
                IpAddr::V6(address) => NeighbourAddress::Inet6(address),
            }),
            NeighbourAttribute::LinkLayerAddress(self.mac.to_vec()),
        ];
        message
    }

    /// The request that sets the entry, whatever was known about the address before.
    pub fn replace(&self) -> Request {
        Request::new(&RouteNetlinkMessage::NewNeighbour(self.message()), NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// The request that deletes the entry.
    pub fn delete(&self) -> Request {
        Request::new(&RouteNetlinkMessage::DelNeighbour(self.message()), 0)
    }

    /// `None` for entries that are not permanent or have no MAC address.
    fn from_message(message: &NeighbourMessage) -> Option<Self> {
        if message.header.state != NeighbourState::Permanent {
            return None;
        }
        let mac = message.attributes.iter().find_map(|attribute| match attribute {
            NeighbourAttribute::LinkLayerAddress(bytes) => bytes.as_slice().try_into().ok(),
            _ => None,
        })?;
        Some(Self { link: message.header.ifindex, address: destination(message)?, mac })
    }

    /// What a `RTM_NEWNEIGH` or `RTM_DELNEIGH` notification says about permanent entries.
    pub(super) fn notification(message: &NeighbourMessage, deleted: bool) -> Option<Notification> {
        match Self::from_message(message).filter(|_| !deleted) {
            Some(entry) => Some(Notification::Neighbour(entry)),
            None => Some(Notification::NeighbourRemoved(message.header.ifindex, destination(message)?)),
        }
    }
}

fn destination(message: &NeighbourMessage) -> Option<IpAddr> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => Some(IpAddr::V4(*ip)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => Some(IpAddr::V6(*ip)),
        _ => None,
    })
}

impl Socket {
    /// All permanent neighbour entries of the namespace, both families.
    pub fn neighbours(&mut self) -> Result<Vec<Neighbour>, Error> {
        let request = Request::new(&RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default()), 0);
        self.dump(&request, |_, payload| {
            NeighbourMessage::parse(payload).ok().as_ref().and_then(Neighbour::from_message)
        })
    }
}
