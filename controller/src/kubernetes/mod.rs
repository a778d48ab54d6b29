//! The Kubernetes API as a source of the cluster's objects.

mod client;
#[cfg(test)]
mod server;
mod watch;

pub(crate) use self::client::{Access, connect};
pub(crate) use self::watch::{Followed, follow};
