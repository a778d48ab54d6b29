//! Neighbour entries: which MAC address an IP address on a link has.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE, Parseable};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};

use super::{Error, Mac, Request, Socket, family_of};

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
        let mut address = None;
        let mut mac = None;
        for attribute in &message.attributes {
            match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => {
                    address = Some(IpAddr::V4(*ip));
                }
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => {
                    address = Some(IpAddr::V6(*ip));
                }
                NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.as_slice().try_into().ok(),
                _ => {}
            }
        }
        Some(Self { link: message.header.ifindex, address: address?, mac: mac? })
    }
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
