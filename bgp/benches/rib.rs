//! Routes into the RIB, and the decision on them.

#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]
#![expect(clippy::disallowed_methods, reason = "any instant will do")]

mod load;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Instant;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use load::{AS, Peer, Router, Table, agreed, bodies, prefixes};
use weft_bgp::ingress::RouteBatch;
use weft_bgp::rib::{Rib, RibInput};
use weft_bgp::status::PeerStatus;
use weft_bgp::types::Asn;
use weft_bgp::wire::update::Decoder;

const ROUTES: usize = 100_000;

/// The whole of a peer's table.
fn batch(table: &Table) -> RouteBatch {
    let (mut batch, mut decoder) = (RouteBatch::default(), Decoder::new(agreed()));
    bodies(&table.updates()).into_iter().for_each(|body| assert!(decoder.decode(body, &mut batch).is_ok()));
    batch
}

/// A RIB whose peers are Established and told nothing.
fn rib(now: Instant, peers: &[PeerStatus]) -> Rib {
    let mut rib = Rib::new();
    rib.handle(
        now,
        RibInput::Configure {
            asn: Asn(AS),
            router_id: Ipv4Addr::LOCALHOST,
            cluster_id: None,
            max_paths: 16,
            install_routes: true,
            next_hop_tracking: false,
            originate: BTreeMap::new(),
        },
    );
    for status in peers {
        let PeerStatus { id, address, config, session, .. } = status.clone();
        rib.handle(now, RibInput::Peer { peer: id, address, config });
        rib.handle(now, RibInput::Up { peer: id, session: session.unwrap() });
    }
    rib
}

/// As many peers tell the same prefixes, [`ROUTES`] routes in all.
fn many_routes(criterion: &mut Criterion, peers: u16) {
    let now = Instant::now();
    let peers: Vec<Peer> = (1..=peers).map(Peer::external).collect();
    let prefixes = prefixes(ROUTES / peers.len());
    let mut router = Router::new(&peers);
    peers.iter().for_each(|peer| router.establish(*peer));
    let statuses: Vec<PeerStatus> = peers.iter().map(|peer| router.status(*peer)).collect();
    let tables = peers.iter().map(|peer| batch(&Table::internet(&prefixes, peer, peer.number.into())));
    let batches: Vec<_> = statuses.iter().map(|status| status.id).zip(tables).collect();

    let insert = |rib: &mut Rib, batches: Vec<_>| {
        for (peer, batch) in batches {
            rib.handle(now, RibInput::Routes { peer, batch });
        }
    };
    let mut group = criterion.benchmark_group(format!("rib, {} peers", peers.len()));
    group.throughput(Throughput::Elements(ROUTES as u64));
    group.bench_function("insert", |bencher| {
        let setup = || (rib(now, &statuses), batches.clone());
        let routine = |(mut rib, batches): (Rib, Vec<_>)| {
            insert(&mut rib, batches);
            rib
        };
        bencher.iter_batched(setup, routine, BatchSize::PerIteration);
    });
    group.bench_function("decide", |bencher| {
        let setup = || {
            let mut rib = rib(now, &statuses);
            insert(&mut rib, batches.clone());
            rib
        };
        let routine = |mut rib: Rib| {
            assert!(std::iter::from_fn(|| rib.poll()).count() > 0);
            rib
        };
        bencher.iter_batched(setup, routine, BatchSize::PerIteration);
    });
    group.finish();
}

fn benches(criterion: &mut Criterion) {
    many_routes(criterion, 1);
    many_routes(criterion, 10);
}

criterion_group!(all, benches);
criterion_main!(all);
