//! BFD beside speakers on real sockets: what ends by will is told by BGP first.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test")]

mod sim_support;
mod transport_support;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use sim_support::{peer, speaker};
use tokio::time::{sleep, timeout};
use transport_support::{NOTIFICATION, Node, PATIENCE, RawPeer};
use weft_bgp::bfd::{Hops, SessionConfig};
use weft_bgp::config::{PeerConfig, SpeakerConfig};

const AS: [u32; 2] = [65001, 65002];
const BFD: SessionConfig = SessionConfig {
    hops: Hops::Single,
    source: None,
    desired_min_tx_interval: Duration::from_millis(300),
    required_min_rx_interval: Duration::from_millis(300),
    detect_mult: 3,
    passive: false,
};

/// A speaker with BFD, and a peer by hand whose session is up; and the same configuration with the session shut down and without BFD.
async fn established([near, far]: [IpAddr; 2]) -> (Node, RawPeer, SpeakerConfig) {
    let (node, port) = Node::listen(1, near).await;
    let with_bfd =
        PeerConfig { passive: true, bfd: Some(BFD), source_address: Some(near), ..peer(0, AS[0], AS[1]) };
    let of = |peer: PeerConfig| SpeakerConfig {
        peers: [(far.into(), Arc::new(peer))].into(),
        ..speaker(0, AS[0])
    };
    node.configure(of(with_bfd.clone())).await;
    let to = SocketAddr::new(near, port);
    let raw = RawPeer::establish(far, to, AS[1], Ipv4Addr::new(10, 9, 9, 9)).await;
    let shut_down = of(PeerConfig { bfd: None, shutdown: Some("bye".into()), ..with_bfd });
    (node, raw, shut_down)
}

async fn bfd_sessions(node: &Node) -> usize {
    node.handle.bfd().await.unwrap().sessions.len()
}

async fn bfd_ends(node: &Node) {
    timeout(PATIENCE, async {
        while bfd_sessions(node).await > 0 {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("the end of BFD");
}

#[tokio::test]
async fn a_shutdown_is_heard_before_bfd_goes() {
    let (node, mut raw, shut_down) = established([[127, 18, 30, 1].into(), [127, 18, 30, 2].into()]).await;
    assert_eq!(bfd_sessions(&node).await, 1);
    node.configure(shut_down).await;
    assert_eq!(bfd_sessions(&node).await, 1, "the peer has heard nothing yet");
    while raw.receive().await.expect("a NOTIFICATION").0 != NOTIFICATION {}
    drop(raw);
    bfd_ends(&node).await;
}

#[tokio::test]
async fn a_peer_that_does_not_close_keeps_no_bfd() {
    let (node, _raw, shut_down) = established([[127, 18, 31, 1].into(), [127, 18, 31, 2].into()]).await;
    node.configure(shut_down).await;
    bfd_ends(&node).await;
}
