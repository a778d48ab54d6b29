//! GC frees what attachments have that the runtime no longer knows.

use super::{node_error, open_store, store_error};
use crate::node;
use crate::spec::{AttachmentId, Error, NetworkConfig};

pub(super) fn gc(config: &NetworkConfig) -> Result<(), Error> {
    let valid = config.valid_attachments()?;
    let boot_id = node::boot_id().map_err(node_error)?;
    let mut store = open_store(config, &boot_id)?;
    let entries = store.entries().map_err(store_error)?;
    let stale = entries.into_iter().map(|entry| entry.key).filter(|key| {
        let id = AttachmentId { container_id: key.container_id.clone(), ifname: key.ifname.clone() };
        key.network == config.name && !valid.contains(&id)
    });
    for key in stale {
        store.hold(key).and_then(|mut hold| hold.release()).map_err(store_error)?;
    }
    Ok(())
}
