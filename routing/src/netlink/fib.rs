//! The real [`Fib`]: a socket that asks and writes, one on a thread of its own for batches, and one that listens.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use super::error::Error;
use super::monitor::Monitor;
use super::writer::Writer;
use super::{Mode, Socket};
use crate::fib::{Fib, Notification, Snapshot, Write};
use crate::netns;
use crate::nexthop::{Nexthop, Nexthops};
use crate::route::Route;

/// The kernel's tables in one network namespace.
#[derive(Debug)]
pub struct NetlinkFib {
    socket: Socket,
    writer: Writer,
    monitor: Monitor,
}

impl NetlinkFib {
    /// Opens all sockets in the calling thread's network namespace and subscribes to changes.
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
        let routes = Socket::new()?;
        let monitor = Monitor::new([socket.port(), routes.port()], receive_buffer)?;
        Ok(Self { socket, writer: Writer::start(routes)?, monitor })
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
        let (links, addresses) = (self.socket.links()?, self.socket.addresses()?);
        let (routes, nexthops) = self.socket.routes_and_nexthops()?;
        Ok(Snapshot { links, addresses, routes, nexthops, neighbours: self.socket.neighbours()? })
    }

    fn nexthops(&mut self) -> Result<Option<Nexthops>, Error> {
        self.socket.nexthops()
    }

    fn apply(&mut self, writes: &[Write]) -> Vec<Result<(), Error>> {
        self.socket.carry_out(writes, encode)
    }

    fn begin<'a>(&mut self, writes: impl IntoIterator<Item = &'a Write>) {
        self.writer.begin(writes, encode);
    }

    fn finish(&mut self) -> Vec<Result<(), Error>> {
        self.writer.finish()
    }

    fn notifications(&mut self) -> Vec<Notification> {
        self.monitor.read()
    }
}

fn encode(write: &Write, sequence: u32, out: &mut Vec<u8>) {
    match write {
        Write::Add(route) => route.encode(Mode::Add, sequence, out),
        Write::Replace(route) => route.encode(Mode::Replace, sequence, out),
        Write::Delete(key, protocol) => Route::encode_delete(*key, *protocol, sequence, out),
        Write::Neighbour(entry) => entry.replace().encode(sequence, 0, out),
        Write::AddNexthop(object) => object.encode(Mode::Add, sequence, out),
        Write::ReplaceNexthop(object) => object.encode(Mode::Replace, sequence, out),
        Write::DeleteNexthop(id) => Nexthop::encode_delete(*id, sequence, out),
    }
}
