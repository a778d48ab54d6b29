//! AS paths that grow on their way.

use bytes::BytesMut;
use weft_bgp::ingress::RouteBatch;
use weft_bgp::types::{Asn, Family};
use weft_bgp::wire::attributes::{AsPath, Segment, SegmentKind};
use weft_bgp::wire::header::{EXTENDED_MESSAGE_MAX, HEADER_LENGTH, MESSAGE_MAX};
use weft_bgp::wire::update::{AttributeBlock, Decoder, pack};

use crate::generate::{INTERNAL, attributes, nets};

/// What comes back of a path with one more AS in front, from a message of at most this length; none: it does not fit.
fn prepended(mut path: AsPath, message_max: u16) -> Option<AsPath> {
    path.prepend(Asn(65000));
    let set = weft_bgp::wire::attributes::PathAttributes { as_path: path, ..attributes("192.0.2.2") };
    let block = AttributeBlock::new(&set, Family::Ipv4Unicast, true);
    let mut out = BytesMut::new();
    if pack(&block, &nets(&["10.0.0.0/8"]), message_max, &mut out) == 0 {
        assert!(out.is_empty());
        return None;
    }
    assert!(out.len() <= usize::from(message_max));
    let mut batch = RouteBatch::default();
    let decoded = Decoder::new(INTERNAL.four_octets()).decode(&out[HEADER_LENGTH..], &mut batch).unwrap();
    assert_eq!(decoded.errors, []);
    Some(batch.runs[0].attributes.as_ref().unwrap().as_path.clone())
}

fn segment(kind: SegmentKind, count: u32) -> Segment {
    Segment { kind, asns: (1..=count).map(Asn).collect() }
}

/// Bug class 27 (CVE-2026-49943, BIRD): a path of more than 2048 numbers, which only extended messages can carry.
#[test]
fn a_path_of_thousands_fits_extended_messages_and_no_others() {
    for count in [2000, 2048, 2049, 5000, 16_000] {
        let path = AsPath(vec![segment(SegmentKind::Sequence, count)]);
        assert_eq!(prepended(path.clone(), MESSAGE_MAX), None);
        let back = prepended(path, EXTENDED_MESSAGE_MAX).expect("it fits");
        assert_eq!(back.length(), count as usize + 1);
    }
    assert_eq!(prepended(AsPath(vec![segment(SegmentKind::Sequence, 17_000)]), EXTENDED_MESSAGE_MAX), None);
}

/// Bug class 38 (CVE-2025-20115, IOS XR): a confederation segment of 255 numbers, and one more AS in front.
#[test]
fn a_full_confederation_segment_gets_an_as_in_front() {
    for kind in [SegmentKind::ConfedSequence, SegmentKind::ConfedSet, SegmentKind::Set] {
        let back = prepended(AsPath(vec![segment(kind, 255)]), MESSAGE_MAX).expect("it fits");
        let front = Segment { kind: SegmentKind::Sequence, asns: vec![Asn(65000)] };
        assert_eq!(back, AsPath(vec![front, segment(kind, 255)]));
    }
}

/// Bug class 39 (CVE-2017-16227, Quagga; 2009, IOS): a path of more than 255 numbers, whose length is computed anew.
#[test]
fn a_path_of_more_than_255_is_cut_into_segments_and_whole_again() {
    for count in [254, 255, 256, 509, 510, 511, 900] {
        let back =
            prepended(AsPath(vec![segment(SegmentKind::Sequence, count)]), MESSAGE_MAX).expect("it fits");
        let asns: Vec<_> = std::iter::once(65000).chain(1..=count).map(Asn).collect();
        assert_eq!(back, AsPath(vec![Segment { kind: SegmentKind::Sequence, asns }]));
    }
}
