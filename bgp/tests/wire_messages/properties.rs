//! What holds of all messages, and of all bytes.

use bytes::{Buf, Bytes, BytesMut};
use proptest::collection::vec;
use proptest::prelude::*;
use weft_bgp::ingress::RouteBatch;
use weft_bgp::types::{Family, PeerType};
use weft_bgp::wire::capability::AfiSafi;
use weft_bgp::wire::header::{EXTENDED_MESSAGE_MAX, HEADER_LENGTH, Header, MessageType};
use weft_bgp::wire::nlri::{Nlri, PathNlri};
use weft_bgp::wire::notification::Notification;
use weft_bgp::wire::route_refresh::RouteRefresh;
use weft_bgp::wire::update::{Agreed, AttributeBlock, Decoder, Stored, pack, pack_withdrawn};
use weft_bgp::wire::{ErrorCode, Message, Severity};

use crate::generate::{EXTERNAL, INTERNAL, any_attributes, any_open, any_path_nlri, any_prefix};

fn round_trip(message: &Message) -> Message {
    let mut bytes = message.encode();
    let header = bytes.first_chunk::<HEADER_LENGTH>().unwrap();
    let header = Header::decode(header, EXTENDED_MESSAGE_MAX).unwrap();
    assert_eq!((header.kind, usize::from(header.length)), (message.kind(), bytes.len()));
    bytes.advance(HEADER_LENGTH);
    Message::decode(header.kind, &bytes).unwrap().unwrap()
}

/// Everything that can be made of bytes; whether an UPDATE's routes are as its errors say.
fn decode_as_everything(bytes: &[u8]) {
    let body = Bytes::copy_from_slice(bytes);
    for kind in [MessageType::Open, MessageType::Notification, MessageType::RouteRefresh] {
        if let Ok(Some(Message::Notification(notification))) = Message::decode(kind, &body) {
            let _text = notification.text();
        }
    }
    if let Some(header) = bytes.first_chunk() {
        let _header = Header::decode(header, EXTENDED_MESSAGE_MAX);
    }
    for agreed in [
        EXTERNAL.four_octets(),
        EXTERNAL.two_octets(),
        INTERNAL.four_octets(),
        EXTERNAL.extended_next_hop(),
        INTERNAL.add_path(),
    ] {
        check_update(agreed, bytes);
    }
}

fn check_update(agreed: Agreed, bytes: &[u8]) {
    let mut batch = RouteBatch::default();
    let mut decoder = Decoder::new(agreed);
    match decoder.decode(bytes, &mut batch) {
        Err(error) => {
            assert_eq!(error.severity, Severity::SessionReset);
            assert_eq!((batch.prefixes.len(), batch.path_ids.len(), batch.runs.len()), (0, 0, 0));
        }
        Ok(decoded) => {
            let withdraw = decoded.errors.iter().any(|e| e.severity == Severity::TreatAsWithdraw);
            assert!(decoded.errors.iter().all(|error| error.severity < Severity::SessionReset));
            let mut end = 0;
            for run in &batch.runs {
                assert_eq!(run.range.start, end, "the runs are gapless");
                end = run.range.end;
                assert!(!(withdraw && run.attributes.is_some()));
                if let (PeerType::External, Some(attributes)) = (agreed.peer_type, &run.attributes) {
                    assert_eq!(attributes.local_pref, None);
                }
            }
            assert_eq!(end, batch.prefixes.len());
            let identified = if agreed.add_path.is_empty() { 0 } else { end };
            assert_eq!(batch.path_ids.len(), identified);
            // The cache gives what decoding gives.
            let mut again = RouteBatch::default();
            decoder.decode(bytes, &mut again).unwrap();
            assert_eq!((&again.prefixes, &again.path_ids), (&batch.prefixes, &batch.path_ids));
            assert!(again.runs.iter().zip(&batch.runs).all(|(a, b)| a.attributes == b.attributes));
        }
    }
}

fn update_round_trip<N: Nlri>(
    family: Family,
    attributes: &weft_bgp::wire::attributes::PathAttributes,
    prefixes: &[N],
    agreed: Agreed,
) {
    let block = AttributeBlock::new(attributes, family, agreed.four_octet_as);
    let mut batch = RouteBatch::default();
    let mut decoder = Decoder::new(agreed);
    let mut rest = prefixes;
    while !rest.is_empty() {
        let mut out = BytesMut::new();
        let count = pack(&block, rest, EXTENDED_MESSAGE_MAX, &mut out);
        assert!(count > 0);
        let decoded = decoder.decode(&out[HEADER_LENGTH..], &mut batch).unwrap();
        assert_eq!(decoded.errors, []);
        rest = &rest[count..];
    }
    assert_eq!(batch.prefixes, prefixes.iter().map(Nlri::prefix).collect::<Vec<_>>());
    assert_eq!(batch.path_ids, prefixes.iter().filter_map(Nlri::path_id).collect::<Vec<_>>());
    for run in &batch.runs {
        assert_eq!(run.attributes.as_deref(), Some(attributes));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// What is kept as octets is what it was, and is sent as if it had not been.
    #[test]
    fn attributes_that_are_stored_come_back(
        set in prop_oneof![any_attributes(Family::Ipv4Unicast), any_attributes(Family::Ipv6Unicast)],
    ) {
        let mut written = BytesMut::new();
        Stored::write(&set, &mut written);
        let stored = Stored::new(&written);
        prop_assert_eq!(stored.attributes(), Some(set.clone()));
        for (family, four_octet_as) in Family::ALL.into_iter().flat_map(|family| [(family, true), (family, false)]) {
            let sent = AttributeBlock::new(&set, family, four_octet_as);
            prop_assert_eq!(AttributeBlock::stored(&stored, family, four_octet_as), sent);
        }
    }

    /// Proves RFC 4271 4.2, RFC 5492.
    #[test]
    fn opens_come_back(open in any_open()) {
        prop_assert_eq!(round_trip(&Message::Open(open.clone())), Message::Open(open));
    }

    #[test]
    fn notifications_come_back(code in any::<u8>(), subcode in any::<u8>(), data in vec(any::<u8>(), 0..4075)) {
        let notification = Notification { code: ErrorCode { code, subcode }, data: data.into() };
        let message = Message::Notification(notification);
        prop_assert_eq!(round_trip(&message), message);
    }

    /// Proves RFC 9003 2.
    #[test]
    fn shutdown_texts_come_back(text in "[^\\p{Cc}]{1,60}") {
        prop_assert_eq!(Notification::cease(2, &text).text(), Some(text));
    }

    #[test]
    fn route_refreshes_come_back(afi in any::<u16>(), safi in any::<u8>(), subtype in any::<u8>()) {
        let message = Message::RouteRefresh(RouteRefresh { family: AfiSafi { afi, safi }, subtype });
        prop_assert_eq!(round_trip(&message), message);
    }

    /// Proves RFC 1997, RFC 4360, RFC 8092, RFC 4271 4.3.
    #[test]
    fn ipv4_updates_come_back(
        attributes in any_attributes(Family::Ipv4Unicast),
        prefixes in vec(any_prefix(Family::Ipv4Unicast), 1..50),
    ) {
        update_round_trip(Family::Ipv4Unicast, &attributes, &prefixes, INTERNAL.four_octets());
    }

    #[test]
    fn ipv6_updates_come_back(
        attributes in any_attributes(Family::Ipv6Unicast),
        prefixes in vec(any_prefix(Family::Ipv6Unicast), 1..50),
    ) {
        update_round_trip(Family::Ipv6Unicast, &attributes, &prefixes, INTERNAL.four_octets());
    }

    /// RFC 8950, with one next hop or two.
    /// Proves RFC 8950 3.
    #[test]
    fn ipv4_updates_over_ipv6_come_back(
        attributes in any_attributes(Family::Ipv6Unicast),
        prefixes in vec(any_prefix(Family::Ipv4Unicast), 1..50),
    ) {
        update_round_trip(Family::Ipv4Unicast, &attributes, &prefixes, INTERNAL.extended_next_hop());
    }

    /// Over two-octet sessions too, but for confederations, which AS4_PATH cannot tell.
    /// Proves RFC 6793 4.2.
    #[test]
    fn updates_to_two_octet_peers_come_back(
        mut attributes in any_attributes(Family::Ipv4Unicast),
        prefixes in vec(any_prefix(Family::Ipv4Unicast), 1..5),
    ) {
        use weft_bgp::wire::attributes::SegmentKind;
        attributes.as_path.0.retain(|s| matches!(s.kind, SegmentKind::Set | SegmentKind::Sequence));
        let sequence = |s: &weft_bgp::wire::attributes::Segment| s.kind == SegmentKind::Sequence;
        attributes.as_path.0.dedup_by(|a, b| sequence(a) && sequence(b));
        update_round_trip(Family::Ipv4Unicast, &attributes, &prefixes, INTERNAL.two_octets());
    }

    /// Proves RFC 7911 3.
    #[test]
    fn updates_with_path_identifiers_come_back(
        v4 in any_attributes(Family::Ipv4Unicast),
        v6 in any_attributes(Family::Ipv6Unicast),
        paths in vec((any_path_nlri(Family::Ipv4Unicast), any_path_nlri(Family::Ipv6Unicast)), 1..50),
    ) {
        let (ipv4, ipv6): (Vec<PathNlri>, Vec<PathNlri>) = paths.into_iter().unzip();
        update_round_trip(Family::Ipv4Unicast, &v4, &ipv4, INTERNAL.add_path());
        update_round_trip(Family::Ipv6Unicast, &v6, &ipv6, INTERNAL.add_path());
        // Over IPv6 (RFC 8950): in MP_REACH_NLRI.
        update_round_trip(Family::Ipv4Unicast, &v6, &ipv4, INTERNAL.add_path());
        for (family, paths) in [(Family::Ipv4Unicast, ipv4), (Family::Ipv6Unicast, ipv6)] {
            let mut out = BytesMut::new();
            prop_assert_eq!(pack_withdrawn(family, &paths, 4096, &mut out), paths.len());
            let mut batch = RouteBatch::default();
            Decoder::new(EXTERNAL.add_path()).decode(&out[HEADER_LENGTH..], &mut batch).unwrap();
            let withdrawn: Vec<(u32, ipnet::IpNet)> = batch.path_ids.into_iter().zip(batch.prefixes).collect();
            prop_assert_eq!(withdrawn, paths.iter().map(|p| (p.path_id, p.prefix)).collect::<Vec<_>>());
            prop_assert!(batch.runs.iter().all(|run| run.attributes.is_none()));
        }
    }

    #[test]
    fn withdrawals_come_back(v6 in any::<bool>(), seed in vec(any_prefix(Family::Ipv6Unicast), 1..50),
                             v4 in vec(any_prefix(Family::Ipv4Unicast), 1..50)) {
        let (family, prefixes) =
            if v6 { (Family::Ipv6Unicast, seed) } else { (Family::Ipv4Unicast, v4) };
        let mut out = BytesMut::new();
        prop_assert_eq!(pack_withdrawn(family, &prefixes, 4096, &mut out), prefixes.len());
        let mut batch = RouteBatch::default();
        Decoder::new(EXTERNAL.four_octets()).decode(&out[HEADER_LENGTH..], &mut batch).unwrap();
        prop_assert_eq!(batch.prefixes, prefixes);
        prop_assert!(batch.runs.iter().all(|run| run.attributes.is_none()));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..300)) {
        decode_as_everything(&bytes);
    }

    /// Good messages with some octets changed, taken out or put in get further than random ones.
    #[test]
    fn mutated_messages_never_panic(
        attributes in any_attributes(Family::Ipv6Unicast),
        v4 in any_attributes(Family::Ipv4Unicast),
        open in any_open(),
        prefixes in (any_prefix(Family::Ipv4Unicast), any_prefix(Family::Ipv6Unicast)),
        mutations in vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..3), 1..8),
    ) {
        let mut updates = [BytesMut::new(), BytesMut::new(), BytesMut::new(), BytesMut::new()];
        let path = PathNlri { path_id: 7, prefix: prefixes.1 };
        pack(&AttributeBlock::new(&v4, Family::Ipv4Unicast, true), &[prefixes.0], 65535, &mut updates[0]);
        pack(&AttributeBlock::new(&attributes, Family::Ipv6Unicast, true), &[prefixes.1], 65535, &mut updates[1]);
        pack(&AttributeBlock::new(&attributes, Family::Ipv4Unicast, true), &[prefixes.0], 65535, &mut updates[2]);
        pack(&AttributeBlock::new(&attributes, Family::Ipv6Unicast, true), &[path], 65535, &mut updates[3]);
        let open = Message::Open(open).encode();
        for message in updates.iter().map(|update| &update[..]).chain([&open[..]]) {
            let mut bytes = message[HEADER_LENGTH..].to_vec();
            for (index, octet, what) in &mutations {
                let index = index.index(bytes.len().max(1));
                match what {
                    0 if index < bytes.len() => bytes[index] = *octet,
                    1 if index < bytes.len() => { bytes.remove(index); }
                    _ => bytes.insert(index.min(bytes.len()), *octet),
                }
            }
            decode_as_everything(&bytes);
        }
    }
}
