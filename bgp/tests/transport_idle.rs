//! A test of its own process, as it measures the processor time of the whole.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod sim_support;
mod transport_support;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use sim_support::{peer, speaker};
use transport_support::{KEEPALIVE, Node, RawPeer, message};
use weft_bgp::config::{PeerConfig, SpeakerConfig};

/// Processor time of this process so far (`proc_pid_stat(5)`: utime and stime, in hundredths of a second).
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

/// Bug class 45 (ed405bf226, FRR): the queue behind a socket is full, and the thread that reads spins.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_input_queue_costs_no_processor_time() {
    let [own, other] = [1, 2].map(|n| IpAddr::from(Ipv4Addr::new(127, 20, 0, n)));
    let (node, port) = Node::listen(1, own).await;
    let remote = Arc::new(PeerConfig { passive: true, ..peer(0, 65001, 65002) });
    node.configure(SpeakerConfig { peers: [(other.into(), remote)].into(), ..speaker(0, 65001) }).await;
    assert!(node.peer(other).await.session.is_none(), "it is configured before it is dialled");
    let router_id = Ipv4Addr::new(10, 9, 9, 9);
    let mut raw = RawPeer::establish(other, SocketAddr::new(own, port), 65002, router_id).await;

    // The speaker is busy for two seconds, while its peer sends all that anyone takes.
    let busy =
        tokio::spawn(
            async move { node.handle.inspect(|_| std::thread::sleep(Duration::from_secs(2))).await },
        );
    let flood = tokio::spawn(async move {
        let keepalives = message(KEEPALIVE, &[]).repeat(1000);
        loop {
            raw.send(&keepalives).await;
        }
    });
    tokio::time::sleep(Duration::from_millis(700)).await;
    let before = processor_time();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let used = processor_time() - before;
    assert!(!busy.is_finished(), "the queue is full all the time");
    assert!(used < Duration::from_millis(300), "{used:?} of a second");
    busy.await.unwrap().unwrap();
    flood.abort();
}
