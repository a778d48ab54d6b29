//! Whether the guard is there, asked of the kernel itself: `nft` would take longer than everything else STATUS does.

use netlink_packet_core::{DefaultNla, Emitable};

use super::{GUARD_TABLE, SUBSYSTEM};
use crate::netlink::{Error, Request, Socket};

/// `NFT_MSG_GETTABLE` (linux/netfilter/nf_tables.h).
const GET_TABLE: u16 = 1;
/// `struct nfgenmsg` (linux/netfilter/nfnetlink.h): family `NFPROTO_INET`, version 0, no resource.
const HEADER: [u8; 4] = [1, 0, 0, 0];
/// `NFTA_TABLE_NAME`, a string with a zero behind it.
const TABLE_NAME: u16 = 1;

/// Whether the table [`GUARD_TABLE`] is there, in the network namespace of the calling thread.
///
/// # Errors
/// The kernel has no nf_tables, or there is no right to ask (CAP_NET_ADMIN).
pub fn is_guarded() -> Result<bool, Error> {
    let name = DefaultNla::new(TABLE_NAME, [GUARD_TABLE.as_bytes(), &[0]].concat());
    let mut payload = HEADER.to_vec();
    payload.resize(HEADER.len().saturating_add(name.buffer_len()), 0);
    name.emit(payload.get_mut(HEADER.len()..).unwrap_or_default());
    let request = Request::raw(SUBSYSTEM << 8 | GET_TABLE, 0, payload);
    match Socket::netfilter()?.get(&request, |_, _| Ok(())) {
        Ok(()) => Ok(true),
        Err(error) if error.is_absent() => Ok(false),
        Err(error) => Err(error),
    }
}
