//! The real [`Fib`]: one socket that writes, one that listens.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use super::error::Error;
use super::monitor::Monitor;
use super::{Request, Socket};
use crate::fib::{Fib, Notification, Snapshot, Write};
use crate::netns;
use crate::route::Route;

/// The kernel's tables in one network namespace.
#[derive(Debug)]
pub struct NetlinkFib {
    socket: Socket,
    monitor: Monitor,
}

impl NetlinkFib {
    /// Opens both sockets in the calling thread's network namespace and subscribes to changes.
    pub fn new() -> Result<Self, Error> {
        Self::open(None)
    }

    /// The same in the network namespace at `path`.
    pub fn in_netns(path: &Path) -> Result<Self, Error> {
        netns::run(path, Self::new)?
    }

    /// The same as [`new`](Self::new), with a receive buffer of about `bytes` for notifications instead of the
    /// large default: a small one makes overruns likely.
    pub fn with_receive_buffer(bytes: usize) -> Result<Self, Error> {
        Self::open(Some(bytes))
    }

    fn open(receive_buffer: Option<usize>) -> Result<Self, Error> {
        let socket = Socket::new()?;
        let monitor = Monitor::new(socket.port(), receive_buffer)?;
        Ok(Self { socket, monitor })
    }
}

/// Readable when there are notifications.
impl AsFd for NetlinkFib {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.monitor.as_fd()
    }
}

impl Fib for NetlinkFib {
    fn dump(&mut self) -> Result<Snapshot, Error> {
        Ok(Snapshot {
            links: self.socket.links()?,
            addresses: self.socket.addresses()?,
            routes: self.socket.routes()?,
            neighbours: self.socket.neighbours()?,
        })
    }

    fn apply(&mut self, writes: &[Write]) -> Vec<Result<(), Error>> {
        let requests: Vec<Request> = writes.iter().map(request).collect();
        self.socket.batch(&requests)
    }

    fn notifications(&mut self) -> Vec<Notification> {
        self.monitor.read()
    }
}

fn request(write: &Write) -> Request {
    match write {
        Write::Add(route) => route.add(),
        Write::Replace(route) => route.replace(),
        Write::Delete(key, protocol) => Route::delete(*key, *protocol),
        Write::Neighbour(entry) => entry.replace(),
    }
}
