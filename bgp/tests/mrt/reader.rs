//! A small reader of MRT files. What is cut short or left over fails.

use ipnet::IpNet;
use weft_bgp::types::Family;
use weft_bgp::wire::nlri;

/// A record: time, type, subtype, and what follows the common header.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) time: u32,
    pub(crate) kind: u16,
    pub(crate) subtype: u16,
    pub(crate) body: Vec<u8>,
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, octets: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(octets);
        self.0 = rest;
        taken
    }

    fn number(&mut self, octets: usize) -> u32 {
        self.take(octets).iter().fold(0, |number, octet| number << 8 | u32::from(*octet))
    }

    fn short(&mut self) -> u16 {
        u16::try_from(self.number(2)).unwrap()
    }
}

/// Every record, to the last octet.
pub(crate) fn records(octets: &[u8]) -> Vec<Record> {
    let (mut reader, mut records) = (Reader(octets), Vec::new());
    while !reader.0.is_empty() {
        let (time, kind, subtype) = (reader.number(4), reader.short(), reader.short());
        let length = reader.number(4) as usize;
        records.push(Record { time, kind, subtype, body: reader.take(length).to_vec() });
    }
    records
}

/// Sequence number, prefix, and the entries: peer, time, attributes.
pub(crate) type Routes = (u32, IpNet, Vec<(u16, u32, Vec<u8>)>);

pub(crate) fn routes(record: &Record) -> Routes {
    let family = match (record.kind, record.subtype) {
        (13, 2) => Family::Ipv4Unicast,
        (13, 4) => Family::Ipv6Unicast,
        other => panic!("{other:?}"),
    };
    let mut reader = Reader(&record.body);
    let sequence = reader.number(4);
    let octets = 1 + usize::from(reader.0[0]).div_ceil(8);
    let mut prefixes = Vec::new();
    nlri::decode_prefixes(family, reader.take(octets), &mut prefixes, None).unwrap();
    let entries = (0..reader.number(2))
        .map(|_| {
            let (peer, time) = (reader.short(), reader.number(4));
            let length = reader.short().into();
            (peer, time, reader.take(length).to_vec())
        })
        .collect();
    assert!(reader.0.is_empty(), "octets behind the last entry");
    (sequence, prefixes[0], entries)
}
