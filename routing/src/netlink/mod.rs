//! rtnetlink(7): a blocking socket and the messages this project needs, on the rust-netlink codec crates.
//!
//! Build requests with [`Veth`], [`set_up`], [`Address`], [`Neighbour`] and [`Route`](crate::route::Route) and
//! hand them to a [`Socket`], one by one or as a batch:
//!
//! ```no_run
//! use weft_routing::netlink::{self, LinkName, Socket};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut socket = Socket::in_netns("/run/netns/blue".as_ref())?;
//! let name: LinkName = "eth0".parse()?;
//! let link = socket.link_by_name(&name)?.ok_or("no eth0")?;
//! for result in socket.batch(&[netlink::set_addr_gen_mode_none(link.index), netlink::set_up(link.index, true)]) {
//!     result?;
//! }
//! # Ok(())
//! # }
//! ```

mod address;
mod error;
mod fib;
mod link;
mod message;
mod monitor;
mod namespace;
mod neighbour;
mod nexthop;
mod route;
mod socket;
mod writer;

use std::net::IpAddr;

use netlink_packet_route::AddressFamily;

pub use self::address::{Address, Scope};
pub use self::error::{Error, Refusal};
pub use self::fib::NetlinkFib;
pub use self::link::{
    InvalidLinkName, Ipv6Conf, Link, LinkName, Mac, Veth, delete as delete_link, set_addr_gen_mode_none,
    set_mtu, set_name, set_up,
};
pub use self::message::Request;
pub(crate) use self::message::{Messages, Received};
pub use self::namespace::{InvalidNamespaceId, NamespaceId};
pub use self::neighbour::Neighbour;
pub use self::socket::Socket;
pub(crate) use self::socket::receive;

/// How something is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Its key or id must be free.
    Add,
    /// Over what holds it.
    Replace,
}

fn family_of(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}
