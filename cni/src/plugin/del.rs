//! DEL takes the link away and frees the addresses; it succeeds where nothing is left to do.

use super::{datapath_error, host_link_name, key, node_error, open_socket, open_store, store_error};
use crate::datapath;
use crate::node;
use crate::spec::{Attachment, Error, NetworkConfig};

pub(super) fn del(config: &NetworkConfig, attachment: &Attachment) -> Result<(), Error> {
    let host_link = host_link_name(attachment)?;
    let boot_id = node::boot_id().map_err(node_error)?;
    let mut store = open_store(config, &boot_id)?;
    let mut hold = store.hold(key(config, attachment)).map_err(store_error)?;
    // The link first: an address is free when nothing answers to it any more.
    datapath::remove(&mut open_socket()?, &host_link).map_err(datapath_error)?;
    hold.release().map_err(store_error)?;
    Ok(())
}
