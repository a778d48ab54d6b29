//! STATUS says whether ADD would succeed.

use crate::node::{self, NodeFile};
use crate::spec::{Code, Error, NetworkConfig};

pub(super) fn status(config: &NetworkConfig) -> Result<(), Error> {
    let read = node::boot_id().and_then(|boot_id| NodeFile::read(&config.run_dir, &boot_id));
    read.map(|_| ()).map_err(|error| Error::new(Code::NotAvailable, error.to_string()))
}
