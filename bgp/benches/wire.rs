//! UPDATEs: from bytes to routes, and from attribute sets and prefixes to bytes.

#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, reason = "a benchmark")]

mod load;

use std::hint::black_box;

use bytes::BytesMut;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ipnet::IpNet;
use load::{Peer, Table, agreed, bodies, prefixes};
use weft_bgp::ingress::RouteBatch;
use weft_bgp::types::Family;
use weft_bgp::wire::header::MESSAGE_MAX;
use weft_bgp::wire::update::{AttributeBlock, Decoder, pack};

const ROUTES: usize = 100_000;

fn wire(criterion: &mut Criterion) {
    let table = Table::internet(&prefixes(ROUTES), &Peer::external(1), 2);
    let updates = table.updates();
    let bodies = bodies(&updates);
    let mut group = criterion.benchmark_group("update");
    group.throughput(Throughput::Elements(ROUTES as u64));
    group.bench_function("decode", |bencher| {
        bencher.iter(|| {
            let mut decoder = Decoder::new(agreed());
            let mut batch = RouteBatch::default();
            bodies.iter().for_each(|body| assert!(decoder.decode(body, &mut batch).is_ok()));
            assert_eq!(batch.prefixes.len(), ROUTES);
            black_box(batch)
        });
    });
    let mut batch = RouteBatch::default();
    let mut decoder = Decoder::new(agreed());
    bodies.iter().for_each(|body| assert!(decoder.decode(body, &mut batch).is_ok()));
    group.bench_function("encode", |bencher| {
        bencher.iter(|| {
            let mut out = BytesMut::new();
            for run in &batch.runs {
                let attributes = run.attributes.as_ref().unwrap();
                let block = AttributeBlock::new(attributes, Family::Ipv4Unicast, true);
                let mut rest: &[IpNet] = &batch.prefixes[run.range.clone()];
                while !rest.is_empty() {
                    rest = &rest[pack(&block, rest, MESSAGE_MAX, &mut out)..];
                }
            }
            assert!(out.len() > ROUTES);
            black_box(out)
        });
    });
    group.finish();
}

criterion_group!(benches, wire);
criterion_main!(benches);
