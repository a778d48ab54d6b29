//! Addresses of links.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, Parseable};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope,
};

use super::{Error, Request, Socket, family_of};

/// How far an address is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Everywhere.
    Global,
    /// On its link only (169.254.0.0/16, fe80::/10).
    Link,
    /// On this host only (127.0.0.0/8, ::1).
    Host,
    /// Another scope, by its number.
    Other(u8),
}

impl From<Scope> for AddressScope {
    fn from(scope: Scope) -> Self {
        match scope {
            Scope::Global => Self::Universe,
            Scope::Link => Self::Link,
            Scope::Host => Self::Host,
            Scope::Other(number) => Self::from(number),
        }
    }
}

impl From<AddressScope> for Scope {
    fn from(scope: AddressScope) -> Self {
        match scope {
            AddressScope::Universe => Self::Global,
            AddressScope::Link => Self::Link,
            AddressScope::Host => Self::Host,
            other => Self::Other(other.into()),
        }
    }
}

/// One address of one link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// Index of the link.
    pub link: u32,
    /// The address itself, with the length of its prefix: host bits kept.
    pub address: IpNet,
    /// How far it is valid.
    pub scope: Scope,
    /// Duplicate address detection has not finished or has failed: it cannot be used as a source yet.
    pub tentative: bool,
}

impl Address {
    /// The address without the prefix length.
    pub fn ip(&self) -> IpAddr {
        self.address.addr()
    }

    pub(crate) fn from_message(message: &AddressMessage) -> Option<Self> {
        let mut local = None;
        let mut peer = None;
        let mut tentative =
            message.header.flags.intersects(AddressHeaderFlags::Tentative | AddressHeaderFlags::Dadfailed);
        for attribute in &message.attributes {
            match attribute {
                AddressAttribute::Local(address) => local = Some(*address),
                AddressAttribute::Address(address) => peer = Some(*address),
                AddressAttribute::Flags(flags) => {
                    tentative = flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed);
                }
                _ => {}
            }
        }
        // On point-to-point links IFA_ADDRESS is the other end (linux/if_addr.h).
        let address = IpNet::new(local.or(peer)?, message.header.prefix_len).ok()?;
        Some(Self { link: message.header.index, address, scope: message.header.scope.into(), tentative })
    }

    fn message(&self) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.header.family = family_of(self.ip());
        message.header.prefix_len = self.address.prefix_len();
        message.header.scope = self.scope.into();
        message.header.index = self.link;
        message.attributes = vec![AddressAttribute::Local(self.ip()), AddressAttribute::Address(self.ip())];
        message
    }

    /// The request that adds the address, usable at once: without duplicate address detection. Fails with
    /// `EEXIST` when the link has it.
    pub fn add(&self) -> Request {
        let mut message = self.message();
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad | AddressFlags::Permanent));
        Request::new(&RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// The request that deletes the address.
    pub fn delete(&self) -> Request {
        Request::new(&RouteNetlinkMessage::DelAddress(self.message()), 0)
    }
}

impl Socket {
    /// All addresses of the namespace, both families.
    pub fn addresses(&mut self) -> Result<Vec<Address>, Error> {
        let request = Request::new(&RouteNetlinkMessage::GetAddress(AddressMessage::default()), 0);
        self.dump(&request, |_, payload| {
            AddressMessage::parse(payload).ok().as_ref().and_then(Address::from_message)
        })
    }
}
