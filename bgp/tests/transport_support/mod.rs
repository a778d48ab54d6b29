//! Speakers on loopback sockets, and peers made by hand.

#![allow(dead_code, reason = "every test crate uses its part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use weft_bgp::config::{Origination, SpeakerConfig};
use weft_bgp::session::State;
use weft_bgp::speaker::{Event, Resolution, SpeakerStart};
use weft_bgp::status::PeerStatus;
use weft_bgp::transport::{Command, Handle, Notice, Transport};

/// For everything that is awaited.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

/// What a daemon would know from the notices it got.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    pub(crate) kernel: BTreeMap<IpNet, Vec<IpAddr>>,
    /// Next hops that went with a peer, and how many routes the kernel had then.
    pub(crate) lost: Vec<(IpAddr, usize)>,
    pub(crate) converged: usize,
    pub(crate) listeners: BTreeMap<SocketAddr, Result<SocketAddr, String>>,
    pub(crate) events: Vec<Event>,
}

/// A speaker under test, with a daemon that takes its notices.
pub(crate) struct Node {
    pub(crate) handle: Handle,
    known: watch::Receiver<Known>,
}

impl Node {
    pub(crate) fn start(seed: u64, listeners: &[SocketAddr]) -> Self {
        let (notices, received) = mpsc::channel(16);
        let start = SpeakerStart { seed, ..<_>::default() };
        let handle = Transport::start(start, listeners.iter().copied().collect(), notices).unwrap();
        let (known, watched) = watch::channel(Known::default());
        // No handle: the collector must not keep the speaker alive.
        tokio::spawn(collect(received, known));
        Self { handle, known: watched }
    }

    /// Listens on an ephemeral port of this address; gives the port.
    pub(crate) async fn listen(seed: u64, address: IpAddr) -> (Self, u16) {
        let asked = SocketAddr::new(address, 0);
        let mut node = Self::start(seed, &[asked]);
        let known =
            node.wait("the listener", |known| matches!(known.listeners.get(&asked), Some(Ok(_)))).await;
        let port = known.listeners[&asked].as_ref().unwrap().port();
        (node, port)
    }

    pub(crate) async fn configure(&self, config: SpeakerConfig) {
        self.handle.send(Command::Configure(Arc::new(config))).await.unwrap();
    }

    /// Waits until the notices so far make it true.
    pub(crate) async fn wait(&mut self, what: &str, holds: impl FnMut(&Known) -> bool) -> Known {
        match timeout(PATIENCE, self.known.wait_for(holds)).await {
            Ok(known) => known.expect("the speaker lives").clone(),
            Err(_) => panic!("waited {PATIENCE:?} for {what}"),
        }
    }

    pub(crate) fn known(&self) -> Known {
        self.known.borrow().clone()
    }

    /// Waits for a prefix to be wanted in the kernel over this next hop.
    pub(crate) async fn wait_route(&mut self, prefix: IpNet, next_hop: IpAddr) {
        let what = format!("{prefix} via {next_hop}");
        self.wait(&what, |known| known.kernel.get(&prefix) == Some(&vec![next_hop])).await;
    }

    pub(crate) async fn wait_established(&mut self, peer: IpAddr) -> PeerStatus {
        self.wait(&format!("{peer} to be Established"), |known| {
            let state = known.events.iter().rev().find_map(|event| match event.kind {
                weft_bgp::speaker::EventKind::State { to, .. } if event.peer == peer.into() => Some(to),
                _ => None,
            });
            state == Some(State::Established)
        })
        .await;
        self.peer(peer).await
    }

    pub(crate) async fn peer(&self, address: IpAddr) -> PeerStatus {
        self.handle.inspect(move |speaker| speaker.peer(address.into())).await.unwrap().expect("a peer")
    }
}

async fn collect(mut notices: mpsc::Receiver<Notice>, known: watch::Sender<Known>) {
    while let Some(notice) = notices.recv().await {
        known.send_modify(|known| match notice {
            Notice::BestPaths(changes) => {
                for change in changes {
                    let hops: Vec<_> = change.next_hops.iter().map(|hop| hop.address).collect();
                    match hops.is_empty() {
                        true => known.kernel.remove(&change.prefix),
                        false => known.kernel.insert(change.prefix, hops),
                    };
                }
            }
            Notice::NextHopsLost(next_hops) => {
                let routes = known.kernel.len();
                known.lost.extend(next_hops.into_iter().map(|hop| (hop.address, routes)));
            }
            Notice::Converged => known.converged += 1,
            Notice::Listener { address, state } => {
                known.listeners.insert(address, state);
            }
            Notice::Event(event) => known.events.push(event),
            Notice::NextHops { .. }
            | Notice::Announced(_)
            | Notice::Aggregates(_)
            | Notice::Neighbour { .. }
            | Notice::Bfd(_)
            | Notice::Dynamic(_)
            | Notice::EventsLost(_) => {}
        });
    }
}

/// `count` prefixes from `base` up; with `distinct`, each has attributes of its own and costs an UPDATE of its own.
pub(crate) fn originate(config: &mut SpeakerConfig, base: Ipv4Addr, count: u32, distinct: bool) {
    for n in 0..count {
        let communities = distinct.then_some(weft_bgp::policy::Community::Standard(n)).into_iter().collect();
        config.originate.insert(prefix(base, n), Origination { communities, ..<_>::default() });
    }
}

/// The `n`th /32 from `base`.
pub(crate) fn prefix(base: Ipv4Addr, n: u32) -> IpNet {
    IpNet::new(Ipv4Addr::from(base.to_bits() + n).into(), 32).unwrap()
}

/// How a next hop resolves, as told by hand.
pub(crate) fn on_link(next_hop: weft_bgp::speaker::TrackedNextHop) -> Command {
    Command::NextHops(vec![(next_hop, Resolution::OnLink)])
}

/// A peer that is bytes and nothing else.
pub(crate) struct RawPeer {
    pub(crate) stream: TcpStream,
}

pub(crate) const OPEN: u8 = 1;
pub(crate) const UPDATE: u8 = 2;
pub(crate) const NOTIFICATION: u8 = 3;
pub(crate) const KEEPALIVE: u8 = 4;

pub(crate) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![0xff; 16];
    message.extend(u16::try_from(19 + body.len()).unwrap().to_be_bytes());
    message.push(kind);
    message.extend(body);
    message
}

/// OPEN with a hold time of 180 s, IPv4 unicast and four-octet AS.
pub(crate) fn open(asn: u32, router_id: Ipv4Addr) -> Vec<u8> {
    let mut capabilities = vec![1, 4, 0, 1, 0, 1, 65, 4];
    capabilities.extend(asn.to_be_bytes());
    let length = u8::try_from(capabilities.len()).unwrap();
    let mut body = vec![4];
    body.extend(u16::try_from(asn).unwrap_or(23456).to_be_bytes());
    body.extend(180_u16.to_be_bytes());
    body.extend(router_id.octets());
    body.extend([length + 2, 2, length]);
    body.extend(capabilities);
    message(OPEN, &body)
}

/// An UPDATE that announces /32s from `base` up with the same attributes.
pub(crate) fn announce(asn: u32, next_hop: Ipv4Addr, base: u32, count: u32) -> Vec<u8> {
    let mut attributes = vec![0x40, 1, 1, 0, 0x40, 2, 6, 2, 1];
    attributes.extend(asn.to_be_bytes());
    attributes.extend([0x40, 3, 4]);
    attributes.extend(next_hop.octets());
    let mut body = vec![0, 0];
    body.extend(u16::try_from(attributes.len()).unwrap().to_be_bytes());
    body.extend(attributes);
    for n in 0..count {
        body.push(32);
        body.extend((base + n).to_be_bytes());
    }
    message(UPDATE, &body)
}

impl RawPeer {
    /// Dials from an address and brings the session up.
    pub(crate) async fn establish(from: IpAddr, to: SocketAddr, asn: u32, router_id: Ipv4Addr) -> Self {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        // Small, so that a peer that does not read is soon one that takes nothing.
        socket.set_recv_buffer_size(8 * 1024).unwrap();
        socket.bind(SocketAddr::new(from, 0)).unwrap();
        let stream = timeout(PATIENCE, socket.connect(to)).await.expect("an answer").unwrap();
        Self::speak(stream, asn, router_id).await
    }

    /// Brings the session up on a connection.
    pub(crate) async fn speak(stream: TcpStream, asn: u32, router_id: Ipv4Addr) -> Self {
        let mut peer = Self { stream };
        peer.send(&open(asn, router_id)).await;
        assert_eq!(peer.receive().await.unwrap().0, OPEN);
        peer.send(&message(KEEPALIVE, &[])).await;
        assert_eq!(peer.receive().await.unwrap().0, KEEPALIVE);
        peer
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        timeout(PATIENCE, self.stream.write_all(bytes)).await.expect("the speaker reads").unwrap();
    }

    /// The next message; `None`: the speaker has closed.
    pub(crate) async fn receive(&mut self) -> Option<(u8, Vec<u8>)> {
        timeout(PATIENCE, async {
            let mut header = [0; 19];
            self.stream.read_exact(&mut header).await.ok()?;
            let mut body = vec![0; usize::from(u16::from_be_bytes([header[16], header[17]])) - 19];
            self.stream.read_exact(&mut body).await.ok()?;
            Some((header[18], body))
        })
        .await
        .expect("a message or the end")
    }
}
