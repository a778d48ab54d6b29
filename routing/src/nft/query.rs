//! Whether the guard is there, asked of the kernel itself: `nft` would take longer than everything else STATUS does.

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NLMSG_ERROR};
use netlink_sys::SocketAddr;
use netlink_sys::protocols::NETLINK_NETFILTER;

use super::GUARD_TABLE;
use crate::netlink::{self, Messages};

/// `NFNL_SUBSYS_NFTABLES` and `NFT_MSG_GETTABLE` (linux/netfilter/nfnetlink.h, nf_tables.h).
const GET_TABLE: u16 = (10 << 8) | 1;
/// `NFPROTO_INET` (linux/netfilter.h).
const FAMILY_INET: u8 = 1;
/// `NFTA_TABLE_NAME`.
const TABLE_NAME: u16 = 1;

/// Whether the table of the guard is in the network namespace of the calling thread.
///
/// # Errors
/// The kernel has no nf_tables, or there is no right to ask (CAP_NET_ADMIN).
pub fn is_guarded() -> Result<bool, netlink::Error> {
    let failed = |action| move |error: std::io::Error| netlink::Error::from_io(action, &error);
    let mut socket =
        netlink_sys::Socket::new(NETLINK_NETFILTER).map_err(failed("open a netfilter socket"))?;
    socket.bind_auto().map_err(failed("bind"))?;
    socket.send_to(&get_guard(), &SocketAddr::new(0, 0), 0).map_err(failed("ask for a table"))?;
    let mut answer = Vec::new();
    // The kernel answers inside the system call above.
    netlink::receive(&socket, &mut answer)?;
    let message = Messages(&answer).next().ok_or(netlink::Error::NoReply)?;
    if message.kind != NLMSG_ERROR {
        return Ok(true);
    }
    match message.outcome().map_err(netlink::Error::Refused) {
        Err(error) if error.is_absent() => Ok(false),
        outcome => outcome.map(|()| true),
    }
}

/// `struct nlmsghdr`, `struct nfgenmsg` and the name.
fn get_guard() -> Vec<u8> {
    const HEADERS: u32 = 16 + 4;
    const ATTRIBUTE_HEADER: u16 = 4;
    let mut name = GUARD_TABLE.as_bytes().to_vec();
    name.push(0);
    // The name is short; the conversions cannot fail.
    let attribute = ATTRIBUTE_HEADER.saturating_add(u16::try_from(name.len()).unwrap_or(u16::MAX));
    name.resize(name.len().next_multiple_of(4), 0);
    let length = HEADERS + u32::from(ATTRIBUTE_HEADER) + u32::try_from(name.len()).unwrap_or(u32::MAX);
    let mut message = Vec::new();
    message.extend(length.to_ne_bytes());
    message.extend(GET_TABLE.to_ne_bytes());
    message.extend((NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
    message.extend([0; 8]);
    message.extend([FAMILY_INET, 0, 0, 0]);
    message.extend(attribute.to_ne_bytes());
    message.extend(TABLE_NAME.to_ne_bytes());
    message.extend(name);
    message
}
