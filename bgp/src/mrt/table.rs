//! TABLE_DUMP_V2: the routes of a speaker (RFC 6396 section 4.3).

use std::borrow::Borrow;
use std::net::{IpAddr, Ipv4Addr};

use bytes::{BufMut, BytesMut};
use ipnet::IpNet;

use super::{Open, Timestamp, kind, put_at};
use crate::types::{Asn, Family};
use crate::wire::attributes::PathAttributes;
use crate::wire::nlri::Nlri;
use crate::wire::update::table_dump_attributes;

/// TABLE_DUMP_V2 subtypes; those of paths with identifiers are of RFC 8050 section 4.
mod subtype {
    pub(super) const PEER_INDEX_TABLE: u16 = 1;
    pub(super) const RIB_IPV4_UNICAST: u16 = 2;
    pub(super) const RIB_IPV6_UNICAST: u16 = 4;
    pub(super) const RIB_IPV4_UNICAST_ADDPATH: u16 = 8;
    pub(super) const RIB_IPV6_UNICAST_ADDPATH: u16 = 10;
}

/// Bits of a peer's type.
mod peer_type {
    pub(super) const IPV6: u8 = 0x01;
    pub(super) const FOUR_OCTET_AS: u8 = 0x02;
}

/// From how many octets on a record takes no more entries: what is left goes into another of the same prefix. Readers hold a record
/// whole.
const RECORD_ENOUGH: usize = 256 * 1024;

/// A peer as PEER_INDEX_TABLE tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexedPeer {
    /// Its BGP identifier; 0.0.0.0: there is no session.
    pub id: Ipv4Addr,
    /// Where it is.
    pub address: IpAddr,
    /// Its AS; 0: there is no session.
    pub asn: Asn,
}

/// One path to a prefix.
#[derive(Clone, Copy, Debug)]
pub struct RibEntry<A> {
    /// Whose it is: a place in PEER_INDEX_TABLE.
    pub peer: u16,
    /// Since when, in seconds since 1970.
    pub originated: u32,
    /// Which of the peer's paths it is (RFC 7911); 0: it has but one.
    pub path_id: u32,
    /// The attributes: a value, or where one is.
    pub attributes: A,
}

/// A table that is being dumped.
#[derive(Debug)]
pub struct Table {
    time: Timestamp,
    /// The number of the next record of routes.
    sequence: u32,
    /// How many entries were left out, as 65535 octets do not hold their attributes.
    pub omitted: u64,
}

impl Table {
    /// A dump of this time.
    #[must_use]
    pub fn new(time: Timestamp) -> Self {
        Self { time, sequence: 0, omitted: 0 }
    }

    /// Appends PEER_INDEX_TABLE, which comes first. Peers behind the 65535th are left out.
    pub fn put_peers(&self, collector: Ipv4Addr, peers: &[IndexedPeer], out: &mut BytesMut) {
        let record = Open::begin(self.time, kind::TABLE_DUMP_V2, subtype::PEER_INDEX_TABLE, out);
        out.put_slice(&collector.octets());
        // The view has no name.
        out.put_u16(0);
        let count = u16::try_from(peers.len()).unwrap_or(u16::MAX);
        out.put_u16(count);
        for peer in peers.iter().take(count.into()) {
            let family = if peer.address.is_ipv6() { peer_type::IPV6 } else { 0 };
            out.put_u8(family | peer_type::FOUR_OCTET_AS);
            out.put_slice(&peer.id.octets());
            match peer.address {
                IpAddr::V4(address) => out.put_slice(&address.octets()),
                IpAddr::V6(address) => out.put_slice(&address.octets()),
            }
            out.put_u32(peer.asn.0);
        }
        record.end(out);
    }

    /// Appends the paths to a prefix, in as many records as they need: one counts 65535 entries at most. An entry whose attributes are
    /// longer than its length field can tell is left out and counted. `identified`: they are written with their path identifiers.
    pub fn put_routes<A: Borrow<PathAttributes>>(
        &mut self,
        prefix: &IpNet,
        identified: bool,
        entries: impl Iterator<Item = RibEntry<A>>,
        out: &mut BytesMut,
    ) {
        let family = Family::of(prefix);
        let mut record: Option<(Open, usize, u16)> = None;
        for entry in entries {
            let attributes = table_dump_attributes(entry.attributes.borrow(), family);
            let length = attributes.as_ref().and_then(|attributes| u16::try_from(attributes.len()).ok());
            let (Some(attributes), Some(length)) = (attributes, length) else {
                self.omitted = self.omitted.saturating_add(1);
                continue;
            };
            let (open, count_at, count) =
                record.take().unwrap_or_else(|| self.begin(prefix, identified, out));
            out.put_u16(entry.peer);
            out.put_u32(entry.originated);
            if identified {
                out.put_u32(entry.path_id);
            }
            out.put_u16(length);
            out.put_slice(&attributes);
            let count = count.saturating_add(1);
            put_at(count_at, &count.to_be_bytes(), out);
            if count == u16::MAX || open.len(out) >= RECORD_ENOUGH {
                open.end(out);
            } else {
                record = Some((open, count_at, count));
            }
        }
        if let Some((open, ..)) = record {
            open.end(out);
        }
    }

    /// A record of the next number, where it counts its entries, and none of these.
    fn begin(&mut self, prefix: &IpNet, identified: bool, out: &mut BytesMut) -> (Open, usize, u16) {
        let subtype = match (Family::of(prefix), identified) {
            (Family::Ipv4Unicast, false) => subtype::RIB_IPV4_UNICAST,
            (Family::Ipv6Unicast, false) => subtype::RIB_IPV6_UNICAST,
            (Family::Ipv4Unicast, true) => subtype::RIB_IPV4_UNICAST_ADDPATH,
            (Family::Ipv6Unicast, true) => subtype::RIB_IPV6_UNICAST_ADDPATH,
        };
        let record = Open::begin(self.time, kind::TABLE_DUMP_V2, subtype, out);
        out.put_u32(self.sequence);
        self.sequence = self.sequence.wrapping_add(1);
        prefix.encode(out);
        let count_at = out.len();
        out.put_u16(0);
        (record, count_at, 0)
    }
}
