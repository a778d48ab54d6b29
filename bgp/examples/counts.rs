//! One scenario of many routes through a speaker, for `.ci/counts`: no sockets, no clock, the same on every run.
//!
//! `counts SCENARIO ROUTES` prints how many allocations it took, how much memory is held at its end, and how long it took. Under callgrind, what
//! `measured` does is what is to be counted.

#![allow(unsafe_code, reason = "an allocator that counts")]
#![allow(clippy::print_stdout, reason = "a program")]

#[path = "../benches/load/mod.rs"]
mod load;

use std::alloc::{GlobalAlloc, Layout, System};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use load::{Peer, Router, Table, node_prefixes, prefixes};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);
static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn hold(bytes: usize) {
    ALLOCATIONS.fetch_add(1, Relaxed);
    let held = HELD.fetch_add(bytes, Relaxed) + bytes;
    PEAK.fetch_max(held, Relaxed);
}

// SAFETY: each call goes to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        hold(layout.size());
        // SAFETY: as called.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as called.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        HELD.fetch_sub(layout.size(), Relaxed);
        hold(size);
        // SAFETY: as called.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What callgrind collects.
#[inline(never)]
fn measured(run: &mut dyn FnMut()) {
    run();
}

fn count(scenario: &str, routes: usize, run: &mut dyn FnMut()) {
    let (allocations, held) = (ALLOCATIONS.load(Relaxed), HELD.load(Relaxed));
    PEAK.store(held, Relaxed);
    let before = processor_time();
    measured(run);
    let milliseconds = (processor_time() - before) / 1_000_000;
    let allocations = ALLOCATIONS.load(Relaxed) - allocations;
    let (grown, peak) = (HELD.load(Relaxed).saturating_sub(held), PEAK.load(Relaxed) - held);
    println!(
        "{scenario}: {routes} routes, {allocations} allocations, {grown} bytes held, {peak} at most, {milliseconds} ms of the processor"
    );
}

/// What this process has used of the processor, in nanoseconds (proc/<pid>/schedstat in the kernel's documentation).
fn processor_time() -> u64 {
    let said = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    said.split(' ').next().and_then(|time| time.parse().ok()).unwrap_or(0)
}

const SINK: u16 = 1000;

/// One external peer tells a table like the Internet's, another is told all of it. Then, as `phase` says, a third one comes, or the first goes.
fn internet(routes: usize, phase: &str) {
    let (injector, sink, late) = (Peer::external(1), Peer::external(SINK), Peer::external(SINK + 1));
    let bytes = Bytes::from(Table::internet(&prefixes(routes), &injector, 2).updates());
    let mut router = Router::new(&[injector, sink, late]);
    router.establish(sink);
    router.establish(injector);
    let learn = |router: &mut Router| router.say(injector, &bytes);
    match phase {
        "internet" => {
            count(phase, routes, &mut || learn(&mut router));
            assert_eq!((router.advertised(sink), router.best_paths), (routes, routes));
        }
        "join" => {
            learn(&mut router);
            count(phase, routes, &mut || router.establish(late));
            assert_eq!(router.advertised(late), routes);
        }
        _ => {
            learn(&mut router);
            count(phase, routes, &mut || router.reset(injector));
            assert_eq!(router.advertised(sink), 0);
        }
    }
}

/// Ten external peers tell the same prefixes, another is told the best paths.
fn best(routes: usize) {
    let (injectors, sink) = ((1..=10).map(Peer::external), Peer::external(SINK));
    let prefixes = prefixes(routes / 10);
    let said: Vec<(Peer, Bytes)> = injectors
        .map(|peer| (peer, Table::internet(&prefixes, &peer, 2 + u64::from(peer.number)).updates().into()))
        .collect();
    let peers: Vec<Peer> = said.iter().map(|(peer, _)| *peer).chain([sink]).collect();
    let mut router = Router::new(&peers);
    peers.iter().for_each(|peer| router.establish(*peer));
    count("best", routes, &mut || router.say_in_turn(&said));
    assert_eq!(router.advertised(sink), prefixes.len());
}

/// A hundred clients of a route reflector are told each other's routes.
fn reflect(routes: usize) {
    const CLIENTS: u16 = 100;
    let each = u32::try_from(routes / usize::from(CLIENTS)).unwrap_or(u32::MAX);
    let said: Vec<(Peer, Bytes)> = (0..CLIENTS)
        .map(Peer::client)
        .map(|peer| (peer, Table::node(&node_prefixes(peer.number, each), &peer).updates().into()))
        .collect();
    let peers: Vec<Peer> = said.iter().map(|(peer, _)| *peer).collect();
    let mut router = Router::new(&peers);
    peers.iter().for_each(|peer| router.establish(*peer));
    count("reflect", routes, &mut || router.say_in_turn(&said));
    for peer in peers {
        assert_eq!(router.advertised(peer), routes - routes / usize::from(CLIENTS));
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [scenario, routes] = arguments.as_slice() else {
        return usage();
    };
    match (scenario.as_str(), routes.parse()) {
        ("internet" | "join" | "reset", Ok(routes)) => internet(routes, scenario),
        ("best", Ok(routes)) => best(routes),
        ("reflect", Ok(routes)) => reflect(routes),
        _ => return usage(),
    }
    ExitCode::SUCCESS
}

fn usage() -> ExitCode {
    println!("counts internet|join|reset|best|reflect ROUTES");
    ExitCode::FAILURE
}
