//! The table as an MRT file has it (RFC 6396 section 4.3), a piece at a time.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Instant;

use bytes::BytesMut;

use super::Speaker;
use super::peer::Peer;
use crate::config::RemoteAs;
use crate::mrt::{IndexedPeer, RibEntry, Table, Timestamp};
use crate::types::{Asn, PeerAddress, PeerId};

/// After how many prefixes a piece ends: what the speaker may be held up for.
const PREFIXES_MAX: usize = 1024;

/// After how many octets it does.
const OCTETS_ENOUGH: usize = 256 * 1024;

/// A dump under way. It has no hold on the speaker: what changes between two pieces is in the dump as it was before or after, or not at
/// all if it came or went meanwhile. The paths of peers that are configured meanwhile are left out.
#[derive(Debug)]
pub struct Dump {
    now: Instant,
    time: Timestamp,
    table: Table,
    /// The peers' places in PEER_INDEX_TABLE, and since when their paths may be; none: it is to be written.
    peers: Option<BTreeMap<PeerId, (u16, u32)>>,
    /// Where in the table to go on.
    next: usize,
}

impl Dump {
    /// A dump that begins now; `time` is the same by the calendar.
    #[must_use]
    pub fn new(now: Instant, time: Timestamp) -> Self {
        Self { now, time, table: Table::new(time), peers: None, next: 0 }
    }

    /// How many entries were left out, as no record can hold their attributes.
    #[must_use]
    pub fn omitted(&self) -> u64 {
        self.table.omitted
    }

    /// The second of the calendar in which that was.
    fn seconds(&self, at: Instant) -> u32 {
        let ago = self.now.saturating_duration_since(at).as_secs();
        self.time.seconds.saturating_sub(u32::try_from(ago).unwrap_or(u32::MAX))
    }
}

impl Speaker {
    /// Appends the next piece of a dump: some hundred octets to some hundred thousand. Says whether there is more.
    ///
    /// It has every path as it was received, whatever filters make of it, and our own. When a path was told is not remembered: its time is
    /// that of its peer's session.
    pub fn dump(&self, dump: &mut Dump, out: &mut BytesMut) -> bool {
        let Some(peers) = &dump.peers else {
            dump.peers = Some(self.put_peers(dump, out));
            return true;
        };
        let (begin, mut prefixes, table) = (out.len(), 0, &mut dump.table);
        let began = dump.time.seconds;
        let next = self.rib.walk(dump.next, |prefix, identified, paths| {
            let entries = paths.filter_map(|(peer, path_id, attributes)| {
                let (peer, originated) = match peer {
                    None => (0, began),
                    Some(id) => *peers.get(&id)?,
                };
                Some(RibEntry { peer, originated, path_id, attributes })
            });
            table.put_routes(prefix, identified, entries, out);
            prefixes += 1;
            prefixes < PREFIXES_MAX && out.len() - begin < OCTETS_ENOUGH
        });
        dump.next = next.unwrap_or(usize::MAX);
        next.is_some()
    }

    /// Writes PEER_INDEX_TABLE. The first one is this speaker.
    fn put_peers(&self, dump: &Dump, out: &mut BytesMut) -> BTreeMap<PeerId, (u16, u32)> {
        let (id, asn) = self.config.as_ref().map_or((0.into(), Asn(0)), |c| (c.router_id, c.asn));
        let mut indexed = vec![IndexedPeer { id, address: std::net::Ipv4Addr::UNSPECIFIED.into(), asn }];
        let mut places = BTreeMap::new();
        for (address, peer) in &self.peers {
            let Ok(place) = u16::try_from(indexed.len()) else { break };
            let since = peer.ingress.established_at().map_or(dump.time.seconds, |at| dump.seconds(at));
            places.insert(peer.id, (place, since));
            indexed.push(index(*address, peer));
        }
        dump.table.put_peers(id, &indexed, out);
        places
    }
}

fn index(address: PeerAddress, peer: &Peer) -> IndexedPeer {
    let session = peer.ingress.session();
    let link_local = session.map(|session| session.remote).or(peer.config.neighbour.map(IpAddr::V6));
    let known = address.ip().or(link_local).unwrap_or(Ipv6Addr::UNSPECIFIED.into());
    IndexedPeer {
        id: session.map_or(0.into(), |session| session.remote_id),
        address: known,
        asn: peer.remote_as(),
    }
}

impl Peer {
    /// The AS of its session, else the one that it must be of; 0: that is not known yet.
    pub(super) fn remote_as(&self) -> Asn {
        match (self.ingress.session(), self.config.remote_as) {
            (Some(session), _) => session.remote_as,
            (None, RemoteAs::Exactly(asn)) => asn,
            (None, RemoteAs::Internal) => self.config.local_as,
            (None, RemoteAs::External) => Asn(0),
        }
    }
}
