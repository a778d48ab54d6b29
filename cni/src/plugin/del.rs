//! DEL takes the link away and frees the addresses; it succeeds where nothing is left to do.

use weft_routing::netlink::{LinkName, Socket};

use super::{datapath_error, host_link_name, key, node_error, open_socket, open_store, store_error};
use crate::datapath;
use crate::ipam::{LinkOf, State};
use crate::node;
use crate::spec::{Attachment, Error, NetworkConfig};

pub(super) fn del(config: &NetworkConfig, attachment: &Attachment) -> Result<(), Error> {
    let host_link = host_link_name(attachment)?;
    let boot_id = node::boot_id().map_err(node_error)?;
    let mut store = open_store(config, &boot_id)?;
    let mut hold = store.hold(key(config, attachment)).map_err(store_error)?;
    let mut socket = open_socket()?;
    // The link first: an address is free when nothing answers to it any more.
    match hold.own_or_others(host_link.as_str()) {
        Ok(LinkOf::Nobody | LinkOf::Own(State::Reserved)) => remove(&mut socket, &host_link)?,
        Ok(LinkOf::Own(State::Committed(end))) => {
            // One that goes with its pod's namespace is left to the kernel, whose work on it would have to be waited for.
            if !datapath::is_going(&mut socket, end).map_err(datapath_error)? {
                remove(&mut socket, &host_link)?;
            }
        }
        // The name does not depend on the network: an ADD of this one can only have failed.
        Ok(LinkOf::Other) => return Ok(()),
        Err(error) => {
            // A pod must be able to end although nobody knows its addresses any more.
            remove(&mut socket, &host_link)?;
            return Err(store_error(error));
        }
    }
    hold.release().map_err(store_error)?;
    Ok(())
}

fn remove(socket: &mut Socket, host_link: &LinkName) -> Result<(), Error> {
    datapath::remove(socket, host_link).map(drop).map_err(datapath_error)
}
