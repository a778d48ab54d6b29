//! UPDATEs that are decoded by whoever reads the connection, beside the same octets as they came.

use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::prelude::*;
use weft_bgp::ingress::ahead::{Piece, Reader};
use weft_bgp::ingress::{IngressInput, IngressOutput};
use weft_bgp::session::State;
use weft_bgp::types::ConnectionId;
use weft_bgp::wire::Message;
use weft_bgp::wire::capability::AfiSafi;
use weft_bgp::wire::route_refresh::RouteRefresh;

use crate::pair::peer_config;
use crate::solo::{Solo, open};

/// ORIGIN, AS_PATH and NEXT_HOP, of AS 65002.
const ATTRIBUTES: [u8; 20] = [0x40, 1, 1, 0, 0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xea, 0x40, 3, 4, 192, 0, 2, 2];

fn update(withdrawn: &[u8], attributes: &[u8], nlri: &[u8]) -> Bytes {
    let mut body = BytesMut::new();
    for field in [withdrawn, attributes] {
        body.extend(u16::try_from(field.len()).unwrap().to_be_bytes());
        body.extend(field);
    }
    body.extend(nlri);
    Message::Update(body.freeze()).encode()
}

/// What a peer may say, as octets.
fn said() -> impl Strategy<Value = Bytes> {
    let announced = (0..4_u8, 1..40_u8).prop_map(|(next_hop, count)| {
        let mut attributes = ATTRIBUTES;
        attributes[19] = next_hop;
        let nlri: Vec<u8> = (0..count).flat_map(|n| [24, 10, next_hop, n]).collect();
        update(&[], &attributes, &nlri)
    });
    let wrong_origin = (0..9_u8).prop_map(|n| {
        let mut attributes = ATTRIBUTES;
        attributes[3] = 9;
        update(&[], &attributes, &[24, 10, 1, n])
    });
    let without_next_hop = (0..9_u8).prop_map(|n| update(&[], &ATTRIBUTES[..13], &[24, 10, 1, n]));
    let refresh = Message::RouteRefresh(RouteRefresh { family: AfiSafi { afi: 1, safi: 1 }, subtype: 0 });
    prop_oneof![
        6 => announced,
        2 => (0..9_u8).prop_map(|n| update(&[24, 10, 1, n], &[], &[])),
        1 => Just(update(&[], &[], &[])),
        1 => wrong_origin,
        1 => without_next_hop,
        1 => Just(Message::Keepalive.encode()),
        1 => Just(refresh.encode()),
    ]
}

/// What may end a session.
fn last_words() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        4 => Just(Bytes::new()),
        1 => Just(Bytes::from_static(&[0xff, 0xff, 7, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 19, 4, 1])),
        1 => Just(update(&[33, 10, 1, 1, 1, 1], &[], &[])),
        1 => Just(Message::Update(Bytes::from_static(&[0, 99, 1])).encode()),
    ]
}

/// What a session lets out, route by route.
fn outputs(solo: &Solo) -> Vec<String> {
    let each = |output: &IngressOutput| match output {
        IngressOutput::Routes(batch) => batch
            .runs
            .iter()
            .flat_map(|run| batch.nlri(run).map(|nlri| format!("{nlri:?} {:?}", run.attributes)))
            .collect(),
        other => vec![format!("{other:?}")],
    };
    solo.outputs.iter().flat_map(each).collect()
}

fn established() -> (Solo, ConnectionId) {
    Solo::established(peer_config(65001, 65002), open())
}

fn hear(solo: &mut Solo, connection: ConnectionId, pieces: Vec<Piece>) {
    for piece in pieces {
        solo.input(match piece {
            Piece::Bytes(bytes) => IngressInput::Bytes { connection, bytes },
            Piece::Updates(updates) => IngressInput::Updates { connection, updates },
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// However the stream is cut, and whenever the reader hears of the session.
    #[test]
    fn a_session_lets_out_the_same(
        said in vec(said(), 1..30),
        last in last_words(),
        cuts in vec(1..200_usize, 1..40),
        begin in 0..20_usize,
    ) {
        let mut stream = BytesMut::new();
        said.iter().chain([&last]).for_each(|message| stream.extend_from_slice(message));
        let mut stream = stream.freeze();
        let ((mut plain, connection), (mut ahead, _)) = (established(), established());
        let mut reader = Reader::default();
        for (n, cut) in cuts.iter().cycle().enumerate() {
            if stream.is_empty() {
                break;
            }
            if n == begin {
                reader.begin(ahead.ingress.session().unwrap_or_else(|| plain.ingress.session().unwrap()));
            }
            let piece = stream.split_to(stream.len().min(*cut));
            plain.bytes(connection, &piece);
            hear(&mut ahead, connection, reader.read(piece));
            if plain.ingress.state() != State::Established {
                break;
            }
        }
        prop_assert_eq!(outputs(&plain), outputs(&ahead));
        prop_assert_eq!(plain.ingress.counters(), ahead.ingress.counters());
        prop_assert_eq!(plain.ingress.state(), ahead.ingress.state());
    }
}

#[test]
fn good_updates_come_decoded_and_many_at_once() {
    let (solo, _) = established();
    let mut reader = Reader::default();
    reader.begin(solo.ingress.session().unwrap());
    let announced = |n| update(&[], &ATTRIBUTES, &[24, 10, 0, n]);
    let stream = [announced(1), announced(2), Message::Keepalive.encode(), announced(3)].concat();
    let pieces = reader.read(Bytes::from(stream));
    let [Piece::Updates(first), Piece::Bytes(keepalive), Piece::Updates(second)] = &pieces[..] else {
        panic!("{pieces:?}");
    };
    assert_eq!((first.messages.len(), first.batch.prefixes.len(), first.batch.runs.len()), (2, 2, 1));
    assert_eq!((keepalive, second.messages.len()), (&Message::Keepalive.encode(), 1));
}

#[test]
fn messages_that_are_recorded_are_told_as_they_came() {
    let (mut solo, connection) = established();
    solo.input(IngressInput::Observe(true));
    let mut reader = Reader::default();
    reader.begin(solo.ingress.session().unwrap());
    let messages = [update(&[], &ATTRIBUTES, &[24, 10, 0, 1]), update(&[24, 10, 0, 1], &[], &[])];
    hear(&mut solo, connection, reader.read(messages.concat().into()));
    let recorded = solo.outputs.iter().filter_map(|output| match output {
        IngressOutput::Received { message, .. } => Some(message.clone()),
        _ => None,
    });
    assert_eq!(recorded.collect::<Vec<_>>(), messages);
    assert_eq!(outputs(&solo).iter().filter(|output| output.contains("10.0.1.0/24")).count(), 2);
}
