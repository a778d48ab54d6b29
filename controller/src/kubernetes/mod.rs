//! The Kubernetes API as a source of the cluster's objects.

mod client;
#[cfg(test)]
mod server;
mod watch;
mod write;

pub(crate) use self::client::{Access, connect, server_url};
pub(crate) use self::watch::{Followed, Pauses, follow};
pub(crate) use self::write::Writer;
