//! The messages of BMP version 3 (RFC 7854 section 4), as octets.

use std::net::{IpAddr, Ipv4Addr};

use bytes::{BufMut, BytesMut};

use super::{MonitoredRib, PeerDown, PeerUp, Statistic};
use crate::types::{Asn, Family};
use crate::wire::Message;
use crate::wire::attributes::PathAttributes;
use crate::wire::capability::{Capability, NextHopEncoding};
use crate::wire::header::MESSAGE_MAX;
use crate::wire::nlri::Nlri;
use crate::wire::open::Open;
use crate::wire::update::{self, AttributeBlock};

/// The version of BMP.
const VERSION: u8 = 3;

/// Message types (RFC 7854 section 4.1).
mod kind {
    pub(super) const ROUTE_MONITORING: u8 = 0;
    pub(super) const STATISTICS_REPORT: u8 = 1;
    pub(super) const PEER_DOWN: u8 = 2;
    pub(super) const PEER_UP: u8 = 3;
    pub(super) const INITIATION: u8 = 4;
    pub(super) const TERMINATION: u8 = 5;
}

/// Types of Information TLVs (RFC 7854 sections 4.4 and 4.5, RFC 9069 section 5.2.1).
mod information {
    pub(super) const SYS_DESCR: u16 = 1;
    pub(super) const SYS_NAME: u16 = 2;
    pub(super) const TERMINATION_REASON: u16 = 1;
    pub(super) const TABLE_NAME: u16 = 3;
}

/// Peer types (RFC 7854 section 4.2, RFC 9069 section 4.1).
mod peer_type {
    pub(super) const GLOBAL_INSTANCE: u8 = 0;
    pub(super) const LOC_RIB_INSTANCE: u8 = 3;
}

/// Peer flags (RFC 7854 section 4.2, RFC 8671 section 4). AS numbers always have four octets, so that the A flag is never set.
mod flag {
    pub(super) const IPV6: u8 = 0x80;
    pub(super) const POST_POLICY: u8 = 0x40;
    pub(super) const ADJ_RIB_OUT: u8 = 0x10;
}

/// The name of the one table that we have (RFC 9069 section 5.2.1).
const TABLE_NAME: &str = "global";

/// Why we close the connection (RFC 7854 section 4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Termination {
    /// It is not wanted any more, or with other settings.
    AdministrativelyClosed = 0,
    /// The station takes less than there is to tell it.
    OutOfResources = 2,
}

/// Whose Loc-RIB it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) asn: Asn,
    pub(super) router_id: Ipv4Addr,
}

/// The per-peer header (RFC 7854 section 4.2). When something was received is not kept: the time is zero, which stands for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PeerHeader {
    peer_type: u8,
    flags: u8,
    address: IpAddr,
    asn: Asn,
    id: Ipv4Addr,
}

impl PeerHeader {
    /// Of what is said of a peer's session.
    pub(super) fn of_peer(peer: &PeerUp) -> Self {
        let flags = if peer.address.is_ipv6() { flag::IPV6 } else { 0 };
        let peer_type = peer_type::GLOBAL_INSTANCE;
        Self { peer_type, flags, address: peer.address, asn: peer.asn, id: peer.router_id }
    }

    /// Of a RIB of a peer's.
    pub(super) fn of_rib(peer: &PeerUp, rib: MonitoredRib) -> Self {
        let header = Self::of_peer(peer);
        let flags = match rib {
            MonitoredRib::AdjRibInPrePolicy | MonitoredRib::LocRib => 0,
            MonitoredRib::AdjRibInPostPolicy => flag::POST_POLICY,
            MonitoredRib::AdjRibOutPostPolicy => flag::POST_POLICY | flag::ADJ_RIB_OUT,
        };
        Self { flags: header.flags | flags, ..header }
    }

    /// Of the Loc-RIB (RFC 9069 section 5.1).
    pub(super) fn of_loc_rib(own: Identity) -> Self {
        let address = Ipv4Addr::UNSPECIFIED.into();
        Self { peer_type: peer_type::LOC_RIB_INSTANCE, flags: 0, address, asn: own.asn, id: own.router_id }
    }

    fn put(&self, out: &mut BytesMut) {
        out.put_u8(self.peer_type);
        out.put_u8(self.flags);
        // Distinguisher: none of these is one of several.
        out.put_u64(0);
        put_address(self.address, out);
        out.put_u32(self.asn.0);
        out.put_slice(&self.id.octets());
        // Seconds and microseconds.
        out.put_u64(0);
    }
}

/// Appends a message whose body `put` writes.
fn message(kind: u8, out: &mut BytesMut, put: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_u8(VERSION);
    let length_at = out.len();
    out.put_u32(0);
    out.put_u8(kind);
    put(out);
    let length = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
    if let Some(place) = out.get_mut(length_at..length_at + 4) {
        place.copy_from_slice(&length.to_be_bytes());
    }
}

/// An address in sixteen octets; an IPv4 address is in the last four (RFC 7854 section 4.2).
fn put_address(address: IpAddr, out: &mut BytesMut) {
    match address {
        IpAddr::V4(v4) => {
            out.put_bytes(0, 12);
            out.put_slice(&v4.octets());
        }
        IpAddr::V6(v6) => out.put_slice(&v6.octets()),
    }
}

fn put_tlv(kind: u16, value: &[u8], out: &mut BytesMut) {
    let value = value.get(..usize::from(u16::MAX)).unwrap_or(value);
    out.put_u16(kind);
    out.put_u16(u16::try_from(value.len()).unwrap_or(u16::MAX));
    out.put_slice(value);
}

/// Appends an Initiation: who speaks.
pub(super) fn initiation(description: &str, name: &str, out: &mut BytesMut) {
    message(kind::INITIATION, out, |out| {
        put_tlv(information::SYS_DESCR, description.as_bytes(), out);
        put_tlv(information::SYS_NAME, name.as_bytes(), out);
    });
}

/// Appends a Termination: the connection is about to be closed.
pub(super) fn termination(reason: Termination, out: &mut BytesMut) {
    message(kind::TERMINATION, out, |out| {
        put_tlv(information::TERMINATION_REASON, &(reason as u16).to_be_bytes(), out);
    });
}

/// Appends a Peer Up: a session is Established, by these OPENs.
pub(super) fn peer_up(peer: &PeerUp, out: &mut BytesMut) {
    message(kind::PEER_UP, out, |out| {
        PeerHeader::of_peer(peer).put(out);
        put_address(peer.local.ip().to_canonical(), out);
        out.put_u16(peer.local.port());
        out.put_u16(peer.remote_port);
        out.put_slice(&peer.open_sent);
        out.put_slice(&peer.open_received);
    });
}

/// Appends the Peer Up of the Loc-RIB, with OPENs that were never sent: they say how its routes are encoded (RFC 9069 section 5.2).
pub(super) fn loc_rib_up(own: Identity, out: &mut BytesMut) {
    let families = Family::ALL.into_iter().map(|family| Capability::Multiprotocol(family.into()));
    let open = Message::Open(Open {
        my_as: own.asn.two_octets(),
        hold_time: 0,
        bgp_identifier: own.router_id,
        capabilities: families
            .chain([
                Capability::ExtendedNextHop(vec![NextHopEncoding::IPV4_OVER_IPV6]),
                Capability::FourOctetAs(own.asn),
            ])
            .collect(),
    });
    let open = open.encode();
    message(kind::PEER_UP, out, |out| {
        PeerHeader::of_loc_rib(own).put(out);
        put_address(Ipv4Addr::UNSPECIFIED.into(), out);
        out.put_u32(0);
        out.put_slice(&open);
        out.put_slice(&open);
        put_tlv(information::TABLE_NAME, TABLE_NAME.as_bytes(), out);
    });
}

/// Appends a Peer Down (RFC 7854 section 4.9).
pub(super) fn peer_down(peer: &PeerUp, reason: &PeerDown, out: &mut BytesMut) {
    message(kind::PEER_DOWN, out, |out| {
        PeerHeader::of_peer(peer).put(out);
        match reason {
            PeerDown::NotificationSent(notification) => {
                out.put_u8(1);
                out.put_slice(notification);
            }
            PeerDown::Closed => {
                out.put_u8(2);
                // The event of the FSM; zero: not told.
                out.put_u16(0);
            }
            PeerDown::NotificationReceived(notification) => {
                out.put_u8(3);
                out.put_slice(notification);
            }
            PeerDown::ClosedByPeer => out.put_u8(4),
        }
    });
}

/// Appends a Statistics Report (RFC 7854 section 4.8).
pub(super) fn statistics_report(header: &PeerHeader, statistics: &[Statistic], out: &mut BytesMut) {
    message(kind::STATISTICS_REPORT, out, |out| {
        header.put(out);
        out.put_u32(u32::try_from(statistics.len()).unwrap_or(u32::MAX));
        for statistic in statistics {
            let mut value = BytesMut::with_capacity(11);
            match *statistic {
                Statistic::Counter(_, count) => value.put_u32(count),
                Statistic::Gauge(_, count) => value.put_u64(count),
                Statistic::FamilyGauge(_, family, count) => {
                    let (afi, safi) = family.afi_safi();
                    value.put_u16(afi);
                    value.put_u8(safi);
                    value.put_u64(count);
                }
            }
            put_tlv(statistic.code(), &value, out);
        }
    });
}

/// Appends Route Monitorings that announce prefixes of one family with these attributes, or withdraw them; returns how many. What fits
/// into no UPDATE, as it cannot have been received or sent, is withdrawn.
pub(super) fn route_monitoring<N: Nlri>(
    header: &PeerHeader,
    family: Family,
    attributes: Option<&PathAttributes>,
    mut prefixes: &[N],
    out: &mut BytesMut,
) -> u64 {
    let block = attributes.map(|attributes| AttributeBlock::new(attributes, family, true));
    let mut messages = 0;
    while !prefixes.is_empty() {
        let start = out.len();
        let mut packed = 0;
        message(kind::ROUTE_MONITORING, out, |out| {
            header.put(out);
            // Attributes that came in an extended message (RFC 8654) may need one again.
            let sizes = [MESSAGE_MAX, u16::MAX];
            let announced = block.iter().flat_map(|block| sizes.map(|max| (block, max)));
            let announced = announced
                .map(|(block, max)| update::pack(block, prefixes, max, out))
                .find(|packed| *packed > 0);
            packed = announced.unwrap_or_else(|| {
                let those = if block.is_some() { prefixes.get(..1).unwrap_or_default() } else { prefixes };
                update::pack_withdrawn(family, those, MESSAGE_MAX, out)
            });
        });
        if packed == 0 {
            out.truncate(start);
            break;
        }
        messages += 1;
        prefixes = prefixes.get(packed..).unwrap_or_default();
    }
    messages
}

/// Appends the Route Monitoring that ends the first telling of a RIB's family (RFC 7854 section 3.3).
pub(super) fn end_of_rib(header: &PeerHeader, family: Family, out: &mut BytesMut) {
    message(kind::ROUTE_MONITORING, out, |out| {
        header.put(out);
        update::end_of_rib(family, out);
    });
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use bytes::Bytes;
    use ipnet::IpNet;

    use super::*;
    use crate::wire::nlri::PathNlri;

    fn peer() -> PeerUp {
        PeerUp {
            address: [192, 0, 2, 1].into(),
            asn: Asn(4_200_000_001),
            router_id: [10, 0, 0, 1].into(),
            local: SocketAddr::from(([192, 0, 2, 2], 179)),
            remote_port: 40_000,
            families: Family::ALL.into_iter().collect(),
            add_path: <_>::default(),
            open_sent: Bytes::from_static(b"<sent>"),
            open_received: Bytes::from_static(b"<received>"),
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The octets of a message, in hexadecimal.
    fn written(put: impl FnOnce(&mut BytesMut)) -> String {
        let mut out = BytesMut::new();
        put(&mut out);
        hex(&out)
    }

    /// Peer type, flags, distinguisher, address, AS, identifier and time of [`peer`], with these flags.
    fn header(flags: &str) -> String {
        let zeros = |octets: usize| "00".repeat(octets);
        format!("00{flags}{}{}c0000201fa56ea010a000001{}", zeros(8), zeros(12), zeros(8))
    }

    /// Proves RFC 7854 4.1, 4.3, 4.5.
    #[test]
    fn initiation_and_termination_are_tlvs_behind_the_common_header() {
        assert_eq!(
            written(|out| initiation("Weft", "n1", out)),
            format!("030000001404{}{}", "0001000457656674", "000200026e31")
        );
        assert_eq!(written(|out| termination(Termination::OutOfResources, out)), "030000000c05000100020002");
    }

    /// Proves RFC 7854 4.2, 4.10.
    #[test]
    fn a_peer_up_has_both_ends_and_both_opens() {
        let zeros = "00".repeat(12);
        let expected = format!("0300000054{}{}{zeros}c000020200b39c40", "03", header("00"));
        let text = written(|out| peer_up(&peer(), out));
        assert_eq!(text, format!("{expected}{}", hex(b"<sent><received>")));
    }

    /// Proves RFC 7854 4.9.
    #[test]
    fn a_peer_down_has_its_reason_and_what_goes_with_it() {
        let cease = Bytes::from_static(&[0xff, 0x06, 0x02]);
        for (reason, expected) in [
            (PeerDown::NotificationSent(cease.clone()), "01ff0602"),
            (PeerDown::Closed, "020000"),
            (PeerDown::NotificationReceived(cease), "03ff0602"),
            (PeerDown::ClosedByPeer, "04"),
        ] {
            let text = written(|out| peer_down(&peer(), &reason, out));
            let length = 48 + expected.len() / 2;
            assert_eq!(text, format!("03{length:08x}02{}{expected}", header("00")));
        }
    }

    /// Proves RFC 7854 4.2, RFC 8671 4.
    #[test]
    fn flags_say_which_rib_of_the_peer_it_is() {
        let flags = |peer: &PeerUp, rib| PeerHeader::of_rib(peer, rib).flags;
        let v6 = PeerUp { address: "2001:db8::1".parse().unwrap(), ..peer() };
        let v4 = peer();
        assert_eq!(flags(&v4, MonitoredRib::AdjRibInPrePolicy), 0);
        assert_eq!(flags(&v4, MonitoredRib::AdjRibInPostPolicy), 0x40);
        assert_eq!(flags(&v4, MonitoredRib::AdjRibOutPostPolicy), 0x50);
        assert_eq!(flags(&v6, MonitoredRib::AdjRibInPrePolicy), 0x80);
        assert_eq!(flags(&v6, MonitoredRib::AdjRibOutPostPolicy), 0xd0);
    }

    /// Proves RFC 9069 4.1, 5.1, 5.2.
    #[test]
    fn the_loc_rib_is_a_peer_without_an_address_whose_table_has_a_name() {
        let own = Identity { asn: Asn(4_200_000_001), router_id: [10, 0, 0, 9].into() };
        let text = written(|out| loc_rib_up(own, out));
        let zeros = |octets: usize| "00".repeat(octets);
        let header = format!("0300{}fa56ea010a000009{}", zeros(24), zeros(8));
        // AS_TRANS, hold time 0, the identifier; two families, IPv4 over IPv6 next hops, and the AS of four octets.
        let capabilities = "0104000100010104000200010506000100010002".to_owned() + "4104fa56ea01";
        let open = format!("{}00390104{}{}1c{}", "ff".repeat(16), "5ba00000", "0a000009", "021a");
        let open = format!("{open}{capabilities}");
        assert!(text.contains(&format!("03{header}{}{open}{open}", zeros(20))), "{text}");
        assert!(text.ends_with(&format!("00030006{}", hex(b"global"))), "{text}");
    }

    /// Proves RFC 7854 4.8, RFC 8671 6.2.
    #[test]
    fn a_statistics_report_has_counters_of_four_octets_and_gauges_of_eight() {
        let statistics = [
            Statistic::Counter(11, 3),
            Statistic::Gauge(7, 258),
            Statistic::FamilyGauge(17, Family::Ipv6Unicast, 1),
        ];
        let text = written(|out| statistics_report(&PeerHeader::of_peer(&peer()), &statistics, out));
        let tlvs = ["000b000400000003", "000700080000000000000102", "0011000b0002010000000000000001"];
        let body = format!("{}00000003{}", header("00"), tlvs.concat());
        assert_eq!(text, format!("03{:08x}01{body}", 6 + body.len() / 2));
    }

    /// Proves RFC 7854 3.3, 4.6.
    #[test]
    fn a_route_monitoring_holds_one_update() {
        let header_of = PeerHeader::of_rib(&peer(), MonitoredRib::AdjRibInPostPolicy);
        let prefixes: Vec<IpNet> = ["10.1.0.0/16", "10.2.0.0/16"].map(|p| p.parse().unwrap()).into();
        let update = |length: u16, body: &str| format!("{}{length:04x}02{body}", "ff".repeat(16));
        let message = |update: &str| {
            let body = format!("{}{update}", header("40"));
            format!("03{:08x}00{body}", 6 + body.len() / 2)
        };
        let mut out = BytesMut::new();
        assert_eq!(route_monitoring(&header_of, Family::Ipv4Unicast, None, &prefixes, &mut out), 1);
        assert_eq!(hex(&out), message(&update(29, "0006100a01100a020000")));
        // With path identifiers where the session has them (RFC 7911).
        let paths = prefixes.iter().map(|prefix| PathNlri { path_id: 7, prefix: *prefix });
        let paths: Vec<PathNlri> = paths.take(1).collect();
        let mut out = BytesMut::new();
        route_monitoring(&header_of, Family::Ipv4Unicast, None, &paths, &mut out);
        assert_eq!(hex(&out), message(&update(30, "000700000007100a010000")));
        let attributes = PathAttributes::new([192, 0, 2, 1].into());
        let mut out = BytesMut::new();
        assert_eq!(
            route_monitoring(&header_of, Family::Ipv4Unicast, Some(&attributes), &prefixes, &mut out),
            1
        );
        let attributes = "40010100".to_owned() + "400200" + "400304c0000201";
        assert_eq!(hex(&out), message(&update(43, &format!("0000000e{attributes}100a01100a02"))));
        assert_eq!(
            written(|out| end_of_rib(&header_of, Family::Ipv4Unicast, out)),
            message(&update(23, "00000000"))
        );
    }

    #[test]
    fn what_fits_into_no_message_is_withdrawn() {
        let header_of = PeerHeader::of_rib(&peer(), MonitoredRib::AdjRibInPrePolicy);
        let mut attributes = PathAttributes::new([192, 0, 2, 1].into());
        attributes.communities = (0..17_000).collect();
        let prefixes: Vec<IpNet> = ["10.1.0.0/16", "10.2.0.0/16"].map(|p| p.parse().unwrap()).into();
        let mut out = BytesMut::new();
        let messages =
            route_monitoring(&header_of, Family::Ipv4Unicast, Some(&attributes), &prefixes, &mut out);
        assert_eq!((messages, out.len()), (2, 2 * (48 + 23 + 3)));
        attributes.communities.truncate(5000);
        let mut out = BytesMut::new();
        let messages =
            route_monitoring(&header_of, Family::Ipv4Unicast, Some(&attributes), &prefixes, &mut out);
        assert!(messages == 1 && out.len() > 20_000, "{messages} {}", out.len());
    }
}
