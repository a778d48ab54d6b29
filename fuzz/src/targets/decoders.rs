//! Bytes → messages and packets. What could be read is written and read again, and must be the same.

use bytes::{Buf, Bytes, BytesMut};
use weft_bgp::bfd::Packet;
use weft_bgp::ingress::RouteBatch;
use weft_bgp::types::{Family, FamilySet, PeerType};
use weft_bgp::wire::attributes::PathAttributes;
use weft_bgp::wire::header::{EXTENDED_MESSAGE_MAX, HEADER_LENGTH, Header, MESSAGE_MAX, MessageType};
use weft_bgp::wire::nlri::{Nlri, PathNlri};
use weft_bgp::wire::update::{Agreed, AttributeBlock, Decoder, pack};
use weft_bgp::wire::{Message, Severity};

use super::Choices;

/// The longest body of a message that is not extended.
const BODY_MAX: usize = MESSAGE_MAX as usize - HEADER_LENGTH;

/// A message's header, for peers with and without extended messages.
pub fn header(bytes: &[u8]) {
    let Some(head) = bytes.first_chunk::<HEADER_LENGTH>() else { return };
    for message_max in [MESSAGE_MAX, EXTENDED_MESSAGE_MAX] {
        match Header::decode(head, message_max) {
            Ok(header) => {
                assert!(header.length <= message_max && usize::from(header.length) >= HEADER_LENGTH);
                assert_eq!(header.kind as u8, head[18]);
            }
            Err(error) => assert_eq!((error.severity, error.code.code), (Severity::SessionReset, 1)),
        }
    }
}

/// OPEN.
pub fn open(bytes: &[u8]) {
    comes_back(MessageType::Open, bytes);
}

/// Capabilities: all that one optional parameter of an OPEN holds.
pub fn capabilities(bytes: &[u8]) {
    let value = &bytes[..bytes.len().min(BODY_MAX - 16)];
    let length = u16::try_from(value.len()).unwrap();
    let head = [4, 0xfd, 0xea, 0, 90, 10, 0, 0, 2, 255, 255];
    let lengths = [(length + 3).to_be_bytes(), length.to_be_bytes()];
    open(&[&head[..], &lengths[0], &[2], &lengths[1], value].concat());
}

/// NOTIFICATION, and the text in it.
pub fn notification(bytes: &[u8]) {
    if let Some(Message::Notification(notification)) = comes_back(MessageType::Notification, bytes)
        && let Some(text) = notification.text()
    {
        assert!(text.len() <= 255 && !text.contains(char::is_control));
    }
}

/// ROUTE-REFRESH.
pub fn route_refresh(bytes: &[u8]) {
    comes_back(MessageType::RouteRefresh, bytes);
}

/// A message's body; if it can be read, what is written of it reads the same.
fn comes_back(kind: MessageType, bytes: &[u8]) -> Option<Message> {
    let body = Bytes::copy_from_slice(&bytes[..bytes.len().min(BODY_MAX)]);
    let message = match Message::decode(kind, &body) {
        Ok(message) => message?,
        Err(error) => {
            assert_eq!(error.severity, Severity::SessionReset);
            // At most the whole message (RFC 7313 section 5).
            assert!(error.data.len() <= HEADER_LENGTH + body.len());
            return None;
        }
    };
    let mut again = message.encode();
    let header = Header::decode(again.first_chunk().unwrap(), MESSAGE_MAX).expect("a good header");
    assert_eq!((header.kind, usize::from(header.length)), (kind, again.len()));
    again.advance(HEADER_LENGTH);
    assert_eq!(Message::decode(kind, &again).expect("a good message").as_ref(), Some(&message));
    Some(message)
}

/// A BFD control packet. An Authentication Section is read and never written.
pub fn bfd(bytes: &[u8]) {
    let Ok(packet) = Packet::decode(bytes) else { return };
    assert!(packet.my_discriminator != 0 && packet.detect_mult != 0);
    let without = Packet { authentication: None, ..packet };
    assert_eq!(Packet::decode(&packet.encode()), Ok(without));
}

/// UPDATE: an octet that says what the session agreed on, then the body.
pub fn update(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let agreed = agreed(choices.byte());
    decode(agreed, choices.rest());
}

/// A field of path attributes, for IPv4 prefixes: an octet that says what the session agreed on, then the field.
pub fn attributes(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let agreed = agreed(choices.byte());
    let field = choices.take(usize::from(u16::MAX));
    let length = u16::try_from(field.len()).unwrap().to_be_bytes();
    decode(agreed, &[&[0, 0][..], &length, field, &[8, 10]].concat());
}

fn agreed(choice: u8) -> Agreed {
    let families = match choice & 3 {
        0 => FamilySet::from_iter([Family::Ipv4Unicast]),
        1 => FamilySet::from_iter([Family::Ipv6Unicast]),
        _ => FamilySet::all(),
    };
    Agreed {
        families,
        four_octet_as: choice & 4 == 0,
        extended_next_hop: choice & 8 != 0,
        add_path: match choice >> 5 & 3 {
            0 => FamilySet::EMPTY,
            1 => FamilySet::from_iter([Family::Ipv4Unicast]),
            2 => FamilySet::from_iter([Family::Ipv6Unicast]),
            _ => FamilySet::all(),
        },
        peer_type: if choice & 16 == 0 { PeerType::External } else { PeerType::Internal },
    }
}

fn decode(agreed: Agreed, body: &[u8]) {
    let mut decoder = Decoder::new(agreed);
    let mut batch = RouteBatch::default();
    let decoded = match decoder.decode(body, &mut batch) {
        Ok(decoded) => decoded,
        Err(error) => {
            assert_eq!((error.severity, error.code.code), (Severity::SessionReset, 3));
            let left = (batch.prefixes.len(), batch.path_ids.len(), batch.runs.len());
            assert_eq!(left, (0, 0, 0), "nothing is left of it");
            return;
        }
    };
    assert!(decoded.errors.iter().all(|error| error.severity < Severity::SessionReset));
    assert!(decoded.errors.len() < 16, "errors are not kept without bound");
    assert!(batch.prefixes.len() <= body.len(), "a prefix takes an octet");
    let withdraw = decoded.errors.iter().any(|error| error.severity == Severity::TreatAsWithdraw);
    let mut end = 0;
    for run in &batch.runs {
        assert_eq!(run.range.start, end, "the runs are gapless");
        end = run.range.end;
        let prefixes = &batch.prefixes[run.range.clone()];
        let family = Family::of(&prefixes[0]);
        assert!(
            agreed.families.contains(family)
                && prefixes.iter().all(|p| Family::of(p) == family && *p == p.trunc())
        );
        if let Some(attributes) = run.attributes.as_deref() {
            assert!(!withdraw, "all routes of a malformed UPDATE are withdrawn");
            announced_again(&agreed, family, attributes, prefixes);
            if agreed.add_path.contains(family) {
                let path = |(path_id, prefix): (&u32, &ipnet::IpNet)| PathNlri {
                    path_id: *path_id,
                    prefix: *prefix,
                };
                let paths: Vec<_> =
                    batch.path_ids[run.range.clone()].iter().zip(prefixes).map(path).collect();
                announced_again(&agreed, family, attributes, &paths);
            }
        }
    }
    assert_eq!(end, batch.prefixes.len());
    assert_eq!(batch.path_ids.len(), if agreed.add_path.is_empty() { 0 } else { end });
    decoded_again(&mut decoder, body, &batch);
}

/// What comes out of the decoder's cache is what went in.
fn decoded_again(decoder: &mut Decoder, body: &[u8], batch: &RouteBatch) {
    let mut again = RouteBatch::default();
    decoder.decode(body, &mut again).expect("it was good before");
    assert_eq!((&again.prefixes, &again.path_ids), (&batch.prefixes, &batch.path_ids));
    assert!(again.runs.iter().map(|run| &run.attributes).eq(batch.runs.iter().map(|run| &run.attributes)));
}

/// What was read can be written, unless it is too long, and is the same when it is read by a peer that is told all.
fn announced_again<N: Nlri>(agreed: &Agreed, family: Family, attributes: &PathAttributes, prefixes: &[N]) {
    if agreed.peer_type == PeerType::External {
        assert_eq!((attributes.local_pref, attributes.originator_id), (None, None));
        assert!(attributes.cluster_list.is_empty());
    }
    let block = AttributeBlock::new(attributes, family, true);
    let mut out = BytesMut::new();
    let count = pack(&block, prefixes, EXTENDED_MESSAGE_MAX, &mut out);
    if count == 0 {
        return;
    }
    let all = Agreed {
        families: FamilySet::all(),
        four_octet_as: true,
        extended_next_hop: true,
        add_path: prefixes.iter().filter_map(|nlri| nlri.path_id().map(|_| family)).collect(),
        peer_type: PeerType::Internal,
    };
    let mut batch = RouteBatch::default();
    let decoded = Decoder::new(all).decode(&out[HEADER_LENGTH..], &mut batch).expect("it is good");
    assert_eq!(decoded.errors, []);
    assert!(batch.prefixes.iter().copied().eq(prefixes[..count].iter().map(Nlri::prefix)));
    assert!(batch.path_ids.iter().copied().eq(prefixes[..count].iter().filter_map(Nlri::path_id)));
    let mut expected = attributes.clone();
    expected.unknown.iter_mut().for_each(|unknown| unknown.flags &= 0xe0);
    assert_eq!(batch.runs[0].attributes.as_deref(), Some(&expected));
}
