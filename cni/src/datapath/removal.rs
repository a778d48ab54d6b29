//! How links go: one by one, or many in the time of one.

use weft_routing::netlink::{LinkName, Socket};

use super::step::{delete_group, delete_link, join_group};
use super::{Error, HOST_MAC, refused};

/// The group of links that are about to be deleted (`IFLA_GROUP`): "weft" in ASCII, which nobody else uses.
const DOOMED_GROUP: u32 = 0x7765_6674;

/// Takes the interface away, with everything that hangs on it: both ends, addresses, routes, neighbours. Says
/// whether there was one.
pub fn remove(socket: &mut Socket, host_link: &LinkName) -> Result<bool, Error> {
    match socket.execute(&delete_link(host_link)) {
        Ok(()) => Ok(true),
        Err(error) if error.is_absent() => Ok(false),
        Err(error) => Err(refused(format_args!("delete link {host_link}"))(error)),
    }
}

/// The names of all links that are host ends by name, kind and MAC address.
pub fn host_links(socket: &mut Socket) -> Result<Vec<LinkName>, Error> {
    let links = socket.links().map_err(refused("list links"))?;
    let host_ends = links.into_iter().filter(|link| {
        link.name.starts_with("weft") && link.mac == Some(HOST_MAC) && link.kind.as_deref() == Some("veth")
    });
    Ok(host_ends.filter_map(|link| link.name.parse().ok()).collect())
}

/// Links that are to go together. The kernel takes 20 ms for one and not much more for a hundred, as it waits but once
/// until nobody looks at them any more.
#[derive(Debug, Default)]
pub struct Doomed {
    any: bool,
}

impl Doomed {
    /// Adds a link; nothing is to be done where there is none.
    pub fn add(&mut self, socket: &mut Socket, host_link: &LinkName) -> Result<(), Error> {
        match socket.execute(&join_group(host_link, DOOMED_GROUP)) {
            Ok(()) => self.any = true,
            Err(error) if error.is_absent() => {}
            Err(error) => return Err(refused(format_args!("mark link {host_link} for deletion"))(error)),
        }
        Ok(())
    }

    /// Deletes them all.
    pub fn remove(self, socket: &mut Socket) -> Result<(), Error> {
        if !self.any {
            return Ok(());
        }
        match socket.execute(&delete_group(DOOMED_GROUP)) {
            Err(error) if !error.is_absent() => Err(refused("delete links")(error)),
            _ => Ok(()),
        }
    }
}
