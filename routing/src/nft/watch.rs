//! A socket that hears when somebody changes Weft's tables.

use std::os::fd::AsFd;

use netlink_packet_core::NlasIterator;
use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{GUARD_TABLE, NAT_TABLE, SERVICES_TABLE, SUBSYSTEM};
use crate::netlink::{self, Messages, Received};

/// The multicast group of nf_tables (`enum nfnetlink_groups`, linux/netfilter/nfnetlink.h).
const NFNLGRP_NFTABLES: u32 = 7;
/// Bytes of `struct nfgenmsg`, which precedes the attributes.
const HEADER: usize = 4;
/// The attribute that names the table: the number is the same for tables, chains, rules, sets, elements and objects
/// (`NFTA_TABLE_NAME`, `NFTA_CHAIN_TABLE`, ..., linux/netfilter/nf_tables.h).
const TABLE_NAME: u16 = 1;
/// Datagrams taken by one [`Watch::changed`], so that a flood is taken in pieces.
const READ_LIMIT: usize = 256;

/// Subscribed from its creation on to the changes of nf_tables in its network namespace, this process's own too.
#[derive(Debug)]
pub struct Watch {
    socket: netlink_sys::Socket,
    buffer: Vec<u8>,
}

impl Watch {
    /// Subscribes, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// The kernel has no nf_tables, or there is no right to listen (CAP_NET_ADMIN).
    pub fn open() -> Result<Self, netlink::Error> {
        let failed = |action| move |error: std::io::Error| netlink::Error::from_io(action, &error);
        let mut socket =
            netlink_sys::Socket::new(NETLINK_NETFILTER).map_err(failed("open a netfilter socket"))?;
        socket.set_non_blocking(true).map_err(failed("set O_NONBLOCK"))?;
        socket.bind_auto().map_err(failed("bind"))?;
        socket.add_membership(NFNLGRP_NFTABLES).map_err(failed("subscribe to changes of nftables"))?;
        Ok(Self { socket, buffer: Vec::new() })
    }

    /// Blocks until one of Weft's tables may have changed.
    ///
    /// # Errors
    /// The socket failed, and will not hear anything any more.
    pub fn wait(&mut self) -> Result<(), netlink::Error> {
        while !self.changed() {
            let mut readable = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
            match poll(&mut readable, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(netlink::Error::Socket { action: "poll", errno }),
            }
        }
        Ok(())
    }

    /// Whether one of Weft's tables may have changed since the last call; does not wait. Lost messages and
    /// more of them than are taken at once count as a change.
    pub fn changed(&mut self) -> bool {
        let mut changed = false;
        for _ in 0..READ_LIMIT {
            match netlink::receive(&self.socket, &mut self.buffer) {
                Ok(()) => changed |= Messages(&self.buffer).any(|message| is_ours(&message)),
                Err(netlink::Error::NoReply) => return changed,
                Err(netlink::Error::Overrun) => changed = true,
                Err(_) => return true,
            }
        }
        true
    }
}

fn is_ours(message: &Received<'_>) -> bool {
    let attributes = match message.payload.get(HEADER..) {
        Some(attributes) if message.kind >> 8 == SUBSYSTEM => attributes,
        _ => return false,
    };
    NlasIterator::new(attributes)
        .map_while(Result::ok)
        .find(|attribute| attribute.kind() == TABLE_NAME)
        .and_then(|attribute| std::str::from_utf8(attribute.value()).ok().map(str::to_owned))
        .is_some_and(|name| [GUARD_TABLE, NAT_TABLE, SERVICES_TABLE].contains(&name.trim_end_matches('\0')))
}
