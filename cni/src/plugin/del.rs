//! DEL takes the link away and frees the addresses; it succeeds where nothing is left to do.

use weft_routing::netlink::Socket;

use super::{datapath_error, host_link_name, key, node_error, open_socket, open_store, store_error};
use crate::datapath;
use crate::ipam::{Hold, State};
use crate::node;
use crate::spec::{Attachment, Error, NetworkConfig};

pub(super) fn del(config: &NetworkConfig, attachment: &Attachment) -> Result<(), Error> {
    let host_link = host_link_name(attachment)?;
    let boot_id = node::boot_id().map_err(node_error)?;
    let mut store = open_store(config, &boot_id)?;
    let mut hold = store.hold(key(config, attachment)).map_err(store_error)?;
    let mut socket = open_socket()?;
    // The link first: an address is free when nothing answers to it any more.
    if !is_going(&mut hold, &mut socket, &boot_id)? {
        datapath::remove(&mut socket, &host_link).map_err(datapath_error)?;
    }
    hold.release().map_err(store_error)?;
    Ok(())
}

/// Whether the link goes with its pod's namespace, which is gone. To take it away would wait for the kernel's own work on it.
fn is_going(hold: &mut Hold<'_>, socket: &mut Socket, boot_id: &str) -> Result<bool, Error> {
    match hold.entry().map_err(store_error)? {
        Some(entry) if entry.boot_id == boot_id => match entry.state {
            State::Committed(end) => datapath::is_going(socket, end).map_err(datapath_error),
            State::Reserved => Ok(false),
        },
        _ => Ok(false),
    }
}
