//! Routes as requests to the kernel.

#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ipnet::{IpNet, Ipv4Net};
use weft_routing::netlink::Request;
use weft_routing::route::{Action, NextHop, Protocol, Route, RouteKey};

const ROUTES: u32 = 100_000;

/// /26 of 10/8 over a hundred pairs of next hops.
fn route(n: u32) -> Route {
    let prefix = Ipv4Net::new(Ipv4Addr::from(0x0A00_0000 + (n << 6)), 26).unwrap();
    let leg = |last: u32| NextHop::via(IpAddr::from(Ipv4Addr::from(0xAC1E_0000 + last)), 2);
    let next_hops = [leg(2 * (n % 100)), leg(2 * (n % 100) + 1)].into_iter().collect();
    Route {
        key: RouteKey::new(IpNet::V4(prefix), 64),
        protocol: Protocol::WEFT,
        preferred_source: Some(Ipv4Addr::new(172, 30, 255, 254).into()),
        action: Action::Forward(next_hops),
    }
}

fn netlink(criterion: &mut Criterion) {
    let routes: Vec<Route> = (0..ROUTES).map(route).collect();
    let mut group = criterion.benchmark_group("netlink");
    group.throughput(Throughput::Elements(ROUTES.into()));
    group.bench_function("add", |bencher| {
        bencher.iter(|| black_box(routes.iter().map(Route::add).collect::<Vec<Request>>()));
    });
    group.bench_function("delete", |bencher| {
        let delete = |route: &Route| Route::delete(route.key, route.protocol);
        bencher.iter(|| black_box(routes.iter().map(delete).collect::<Vec<Request>>()));
    });
    group.finish();
}

criterion_group!(benches, netlink);
criterion_main!(benches);
