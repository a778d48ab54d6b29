//! Speakers that are busy, or did not run for a while: what waits unread is no silence.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod sim_support;
mod transport_support;

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use sim_support::{peer, speaker};
use tokio::time::timeout;
use transport_support::{KEEPALIVE, Node, PATIENCE, RawPeer, announce, message};
use weft_bgp::config::{PeerConfig, SpeakerConfig};
use weft_bgp::speaker::Speaker;

const AS: [u32; 2] = [65001, 65002];

/// The `n`th peer of a test has an address of its own.
fn address(test: u8, n: u8) -> IpAddr {
    Ipv4Addr::new(127, 18, test, n + 1).into()
}

/// A speaker that waits for `peers` peers to connect, and how they reach it.
async fn node(test: u8, peers: u8, hold_time: Duration) -> (Node, SocketAddr) {
    let near = address(test, 0);
    let (node, port) = Node::listen(1, near).await;
    let mut config = PeerConfig { passive: true, source_address: Some(near), ..peer(0, AS[0], AS[1]) };
    config.timers.hold_time = hold_time;
    let config = Arc::new(config);
    let peers = (1..=peers).map(|n| (address(test, n).into(), Arc::clone(&config))).collect();
    node.configure(SpeakerConfig { peers, ..speaker(0, AS[0]) }).await;
    (node, SocketAddr::new(near, port))
}

async fn establish(test: u8, n: u8, to: SocketAddr) -> RawPeer {
    RawPeer::establish(address(test, n), to, AS[1], Ipv4Addr::new(10, 9, 9, n)).await
}

/// Has every connection that comes say KEEPALIVE again and again, until there come no more.
fn keep_alive(connections: &mpsc::Receiver<TcpStream>) {
    let mut alive: Vec<TcpStream> = Vec::new();
    loop {
        match connections.recv_timeout(Duration::from_millis(200)) {
            Ok(connection) => alive.push(connection),
            Err(mpsc::RecvTimeoutError::Disconnected) => return,
            Err(mpsc::RecvTimeoutError::Timeout) => {}
        }
        for connection in &mut alive {
            // One that the speaker has closed is what the test looks for.
            let _ = connection.write_all(&message(KEEPALIVE, &[]));
        }
    }
}

#[tokio::test]
async fn a_speaker_that_did_not_run_ends_no_session_of_peers_that_spoke_meanwhile() {
    const PEERS: u8 = 40;
    let hold_time = Duration::from_secs(3);
    let (node, to) = node(40, PEERS, hold_time).await;
    let (connect, connections) = mpsc::channel();
    // A thread, as the runtime stands still too.
    let speaking = std::thread::spawn(move || keep_alive(&connections));
    for n in 1..=PEERS {
        let stream = establish(40, n, to).await.stream.into_std().unwrap();
        stream.set_nonblocking(false).unwrap();
        connect.send(stream).unwrap();
    }
    let heard = |speaker: &Speaker| {
        let of = |p: weft_bgp::status::PeerStatus| (p.counters.received[3], p.counters.flaps);
        speaker.peers().into_iter().map(of).collect::<Vec<_>>()
    };
    let stand_still = move |_: &Speaker| std::thread::sleep(hold_time + Duration::from_millis(500));
    let before = node.handle.inspect(heard).await.unwrap();
    let runtime = async { std::thread::sleep(hold_time + Duration::from_millis(500)) };
    tokio::join!(node.handle.inspect(stand_still), runtime).0.unwrap();
    timeout(PATIENCE, async {
        loop {
            let after = node.handle.inspect(heard).await.unwrap();
            assert!(after.iter().all(|(_, flaps)| *flaps == 0), "sessions ended: {after:?}");
            // What waited, and what came after.
            if after.iter().zip(&before).all(|((after, _), (before, _))| after - before > 25) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("KEEPALIVEs of all");
    drop(connect);
    speaking.join().unwrap();
}

/// Between two questions that are asked at once after each other there are a few reads' worth of routes, however many wait; more where the
/// asker did not run in between, which is seldom.
#[tokio::test]
async fn a_question_does_not_wait_for_all_that_has_arrived() {
    const PEERS: u8 = 20;
    const UPDATES: usize = 100;
    const ROUTES: u32 = 500;
    /// What the transport reads at once.
    const READ: usize = 16 * 1024;
    let (node, to) = node(41, PEERS, Duration::from_secs(90)).await;
    let mut peers = Vec::new();
    for n in 1..=PEERS {
        peers.push((establish(41, n, to).await, Ipv4Addr::new(127, 18, 41, n + 1)));
    }
    let all = u64::from(PEERS) * UPDATES as u64;
    let asking = tokio::spawn(async move {
        let heard = |speaker: &Speaker| speaker.peers().iter().map(|p| p.counters.received[1]).sum::<u64>();
        let (mut before, mut between) = (0, Vec::new());
        while before < all {
            let told = node.handle.inspect(heard).await.unwrap();
            between.push(told - before);
            before = told;
        }
        between.retain(|updates| *updates > 0);
        between.sort_unstable();
        between[between.len() / 2]
    });
    // The same again and again: what counts is how long it takes to read.
    let mut flood = tokio::task::JoinSet::new();
    for (mut raw, next_hop) in peers {
        flood.spawn(async move {
            let update = announce(AS[1], next_hop, 0x1e00_0000, ROUTES);
            for _ in 0..UPDATES {
                raw.send(&update).await;
            }
            raw
        });
    }
    let median = timeout(PATIENCE, asking).await.expect("all UPDATEs").unwrap();
    let read = READ / announce(AS[1], Ipv4Addr::LOCALHOST, 0, ROUTES).len();
    assert!(median <= 8 * read as u64, "{median} UPDATEs between two answers, {read} in one read");
}
