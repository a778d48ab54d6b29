//! Whether the guard is there, asked of the kernel itself: `nft` would take longer than everything else STATUS does.

use netlink_packet_core::{DefaultNla, Emitable, NlasIterator};

use super::{GUARD_RULES, GUARD_TABLE, SUBSYSTEM};
use crate::netlink::{Error, Request, Socket};

/// `NFT_MSG_GETRULE` (linux/netfilter/nf_tables.h).
const GET_RULE: u16 = 7;
/// `struct nfgenmsg` (linux/netfilter/nfnetlink.h): family `NFPROTO_INET`, version 0, no resource.
const HEADER: [u8; 4] = [1, 0, 0, 0];
/// `NFTA_RULE_TABLE`, a string with a zero behind it.
const RULE_TABLE: u16 = 1;

/// Whether the table [`GUARD_TABLE`] is there with all its rules, in the network namespace of the calling thread.
///
/// # Errors
/// The kernel has no nf_tables, or there is no right to ask (CAP_NET_ADMIN).
pub fn is_guarded() -> Result<bool, Error> {
    let name = DefaultNla::new(RULE_TABLE, [GUARD_TABLE.as_bytes(), &[0]].concat());
    let mut payload = HEADER.to_vec();
    payload.resize(HEADER.len().saturating_add(name.buffer_len()), 0);
    name.emit(payload.get_mut(HEADER.len()..).unwrap_or_default());
    let request = Request::raw(SUBSYSTEM << 8 | GET_RULE, 0, payload);
    match Socket::netfilter()?.dump(&request, |_, payload| is_of_guard(payload).then_some(())) {
        Ok(rules) => Ok(rules.len() == GUARD_RULES),
        Err(error) if error.is_absent() => Ok(false),
        Err(error) => Err(error),
    }
}

fn is_of_guard(payload: &[u8]) -> bool {
    let attributes = NlasIterator::new(payload.get(HEADER.len()..).unwrap_or_default());
    let table = attributes.map_while(Result::ok).find(|attribute| attribute.kind() == RULE_TABLE);
    table.is_some_and(|table| table.value().strip_suffix(&[0]) == Some(GUARD_TABLE.as_bytes()))
}
