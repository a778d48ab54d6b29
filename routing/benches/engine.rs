//! Learned routes through the engine, to a kernel that has nothing against them.

#![allow(missing_docs, clippy::unwrap_used, clippy::disallowed_methods, reason = "a benchmark")]

use std::collections::VecDeque;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ipnet::{IpNet, Ipv4Net};
use weft_routing::fib::{Fib, Notification, Snapshot, Write};
use weft_routing::netlink::{Error, Link};
use weft_routing::nexthop::Nexthops;
use weft_routing::route::{Action, NextHop, Protocol, Route, RouteKey};
use weft_routing::{Engine, NextHopRef, RouteChange, Settings};

const ROUTES: u32 = 100_000;
/// As many changes come at once.
const CHUNK: usize = 4096;

/// A link with one subnet, and a yes to every write.
#[derive(Default)]
struct Willing {
    begun: VecDeque<usize>,
}

impl Fib for Willing {
    fn dump(&mut self) -> Result<Snapshot, Error> {
        let link = Link {
            index: 2,
            name: "eth0".to_owned(),
            mac: None,
            mtu: 1500,
            up: true,
            carrier: true,
            operational: true,
            loopback: false,
            kind: None,
            peer: None,
            peer_namespace: None,
        };
        let subnet = Route {
            key: RouteKey::new("172.30.0.0/16".parse().unwrap(), 0),
            protocol: Protocol::KERNEL,
            action: Action::Forward(NextHop::on_link(2).into()),
            preferred_source: None,
        };
        let nexthops = Some(Nexthops::default());
        Ok(Snapshot { links: vec![link], routes: vec![subnet], nexthops, ..Snapshot::default() })
    }

    fn nexthops(&mut self) -> Result<Option<Nexthops>, Error> {
        Ok(Some(Nexthops::default()))
    }

    fn apply(&mut self, writes: &[Write]) -> Vec<Result<(), Error>> {
        vec![Ok(()); writes.len()]
    }

    fn begin<'a>(&mut self, writes: impl IntoIterator<Item = &'a Write>) {
        self.begun.push_back(black_box(writes.into_iter().count()));
    }

    fn finish(&mut self) -> Vec<Result<(), Error>> {
        vec![Ok(()); self.begun.pop_front().unwrap_or_default()]
    }

    fn notifications(&mut self) -> Vec<Notification> {
        Vec::new()
    }
}

/// Changes of /26 of 10/8 over a hundred pairs of next hops, or over none.
fn changes(offered: bool) -> Vec<Vec<RouteChange>> {
    let next_hop = |last: u32| {
        let address = IpAddr::from(Ipv4Addr::from(0xAC1E_0100 + last));
        NextHopRef { address, default_route: false, link: None }
    };
    let sets: Vec<Arc<[NextHopRef]>> =
        (0..100).map(|n| [next_hop(2 * n), next_hop(2 * n + 1)].into()).collect();
    let change = |n: u32| {
        let prefix = IpNet::V4(Ipv4Net::new(Ipv4Addr::from(0x0A00_0000 + (n << 6)), 26).unwrap());
        let set = sets.iter().cycle().nth(n as usize / 37 % sets.len()).filter(|_| offered);
        let next_hops = set.map_or_else(|| [].into(), Arc::clone);
        RouteChange { prefix, next_hops, direct: None }
    };
    let all: Vec<RouteChange> = (0..ROUTES).map(change).collect();
    all.chunks(CHUNK).map(<[RouteChange]>::to_vec).collect()
}

/// Takes changes in as the kernel thread does.
fn take_in(engine: &mut Engine, changes: Vec<Vec<RouteChange>>) {
    let (mut fib, now) = (Willing::default(), Instant::now());
    for chunk in changes {
        engine.learned(chunk);
        engine.run(now, &mut fib).unwrap();
    }
    while engine.next_deadline(now).0 <= now {
        engine.run(now, &mut fib).unwrap();
        while engine.poll().is_some() {}
    }
}

fn started() -> Engine {
    let mut engine = Engine::new(Settings::default());
    engine.run(Instant::now(), &mut Willing::default()).unwrap();
    engine
}

fn engine(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("engine");
    group.throughput(Throughput::Elements(ROUTES.into())).measurement_time(Duration::from_secs(10));
    group.bench_function("add", |bencher| {
        let fresh = || (started(), changes(true));
        let add = |(mut engine, changes): (Engine, _)| {
            take_in(&mut engine, changes);
            engine
        };
        bencher.iter_batched(fresh, add, BatchSize::PerIteration);
    });
    group.bench_function("delete", |bencher| {
        let filled = || {
            let mut engine = started();
            take_in(&mut engine, changes(true));
            (engine, changes(false))
        };
        let delete = |(mut engine, changes): (Engine, _)| {
            take_in(&mut engine, changes);
            engine
        };
        bencher.iter_batched(filled, delete, BatchSize::PerIteration);
    });
    group.finish();
}

criterion_group!(benches, engine);
criterion_main!(benches);
