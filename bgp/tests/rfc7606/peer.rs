//! The speaker under test, the one behind it, and the peers that are bytes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::time::timeout;
use weft_bgp::config::{PeerConfig, SpeakerConfig, Timers};
use weft_bgp::policy::Policy;
use weft_bgp::session::State;
use weft_bgp::status::{MessageCounters, PathStatus, PeerStatus, RibView, RouteSelect};
use weft_bgp::transport::Handle;
use weft_bgp::types::Reason;

use crate::sim_support::{self, speaker};
use crate::table::{Case, Expect, Kind, NEXT_HOP_V6, OLD, OWN_AS, Routes, V4, V6, attribute, reach, update};
use crate::transport_support::{KEEPALIVE, NOTIFICATION, Node, OPEN, PATIENCE, RawPeer, UPDATE, message};

const OBSERVER_AS: u32 = 65100;

fn address(n: u8) -> IpAddr {
    Ipv4Addr::new(127, 19, 0, n).into()
}

fn address_of(kind: Kind) -> IpAddr {
    address(10 + kind as u8)
}

/// The speaker under test and the one that it passes everything on to.
pub(crate) struct Fabric {
    node: Node,
    observer: Node,
    socket: SocketAddr,
}

impl Fabric {
    pub(crate) async fn start() -> Self {
        let (node, port) = Node::listen(1, address(1)).await;
        let (observer, observer_port) = Node::listen(2, address(2)).await;
        let socket = SocketAddr::new(address(1), port);
        let nobody = Policy { rules: Vec::new(), unmatched: Reason::new("none", "no rule matches") };
        let quick = Timers {
            idle_hold_min: Duration::ZERO,
            idle_hold_max: Duration::from_millis(100),
            hold_time: Duration::ZERO,
            ..Timers::default()
        };
        let mut config = SpeakerConfig { originate: <_>::default(), ..speaker(0, u32::from(OWN_AS)) };
        for kind in Kind::ALL {
            let peer = PeerConfig {
                passive: true,
                // A reflector looks for loops in CLUSTER_LIST.
                route_reflector_client: kind.is_internal(),
                export: Arc::new(nobody.clone()),
                timers: quick,
                next_hop_v6: Some("fd00::1".parse().unwrap()),
                ..sim_support::peer(0, u32::from(OWN_AS), u32::from(kind.asn()))
            };
            config.peers.insert(address_of(kind).into(), Arc::new(peer));
        }
        let towards_observer = PeerConfig {
            port: observer_port,
            source_address: Some(address(1)),
            ..sim_support::peer(0, u32::from(OWN_AS), OBSERVER_AS)
        };
        config.peers.insert(address(2).into(), Arc::new(towards_observer));
        let from_node = PeerConfig { passive: true, ..sim_support::peer(1, OBSERVER_AS, u32::from(OWN_AS)) };
        let observing = SpeakerConfig {
            peers: [(address(1).into(), Arc::new(from_node))].into(),
            ..speaker(1, OBSERVER_AS)
        };
        observer.configure(observing).await;
        node.configure(config).await;
        let mut fabric = Self { node, observer, socket };
        fabric.node.wait_established(address(2)).await;
        fabric
    }

    pub(crate) fn peer(&self, kind: Kind) -> Peer {
        let handle = self.node.handle.clone();
        Peer { handle, kind, address: address_of(kind), to: self.socket, raw: None }
    }

    /// Whatever came in: what went out was well-formed.
    pub(crate) async fn assert_nothing_malformed_was_passed_on(&mut self) {
        let seen = self.observer.peer(address(1)).await;
        assert_eq!(seen.state, State::Established);
        assert!(seen.counters.received[1] > 10, "{:?}", seen.counters);
        let wrong =
            (seen.counters.flaps, seen.counters.treated_as_withdraw, seen.counters.attributes_discarded);
        assert_eq!(wrong, (0, 0, 0), "{:?}", seen.last_error);
    }
}

/// A peer under whose name cases are sent, one after the other.
pub(crate) struct Peer {
    handle: Handle,
    kind: Kind,
    address: IpAddr,
    to: SocketAddr,
    raw: Option<RawPeer>,
}

/// What there is of a family.
#[derive(Debug)]
enum Fate {
    Old,
    New(PathStatus),
    Gone,
}

impl Peer {
    /// Runs the cases; what went otherwise than expected.
    pub(crate) async fn run(mut self, cases: Vec<Case>) -> Vec<String> {
        let mut failures = Vec::new();
        for case in cases {
            if let Err(wrong) = self.case(&case).await {
                failures.push(format!(
                    "{:?} {:?} ({}): expected {:?}, {wrong}",
                    case.on, case.name, case.rfc, case.expect
                ));
                // Whatever state it is in, the next case begins with a session of its own.
                self.raw = None;
                self.until(|status| status.state != State::Established).await;
            }
        }
        self.announce_old().await;
        failures
    }

    async fn case(&mut self, case: &Case) -> Result<(), String> {
        let before = self.announce_old().await;
        let is_update = case.message[18] == UPDATE;
        self.raw.as_mut().unwrap().send(&case.message).await;
        let flaps = before.flaps;
        let updates = before.received[1] + 1;
        let done = self.until(move |status| {
            let taken =
                is_update && status.counters.received[1] >= updates && status.state == State::Established;
            status.counters.flaps > flaps || taken
        });
        let after = done.await;
        if after.counters.flaps > flaps {
            return self.reset(case, &after).await;
        }
        self.judge(case, &before, &after.counters).await
    }

    /// The session has ended: whether it was to, and how.
    async fn reset(&mut self, case: &Case, after: &PeerStatus) -> Result<(), String> {
        let Expect::Reset(code, subcode) = case.expect else {
            return Err(format!("but the session was reset: {:?}", after.last_error));
        };
        let mut raw = self.raw.take().unwrap();
        let mut last = None;
        while let Some(received) = raw.receive().await {
            last = Some(received);
        }
        match last {
            Some((NOTIFICATION, body)) if body.starts_with(&[code, subcode]) => {}
            other => return Err(format!("but the peer was told {other:?}")),
        }
        match self.fates().await {
            (Fate::Gone, Fate::Gone) => Ok(()),
            other => Err(format!("but after the reset there is {other:?}")),
        }
    }

    async fn judge(
        &mut self,
        case: &Case,
        before: &MessageCounters,
        after: &MessageCounters,
    ) -> Result<(), String> {
        let complaints = (
            after.attributes_discarded > before.attributes_discarded,
            after.treated_as_withdraw > before.treated_as_withdraw,
        );
        let (v4, v6) = self.fates().await;
        let (concerned, others): (&[&Fate], &[&Fate]) = match case.routes {
            Routes::V4 => (&[&v4], &[&v6]),
            Routes::V6 => (&[&v6], &[&v4]),
            Routes::Both => (&[&v4, &v6], &[]),
        };
        if others.iter().any(|fate| !matches!(fate, Fate::Old) && case.on != Kind::Ipv4Only) {
            return Err(format!("but another family's route is {others:?}"));
        }
        let as_expected = |fate: &Fate| match (case.expect, fate) {
            (Expect::Accepted, Fate::New(path)) => path.valid && complaints == (false, false),
            (Expect::Discard, Fate::New(path)) => path.valid && complaints == (true, false),
            (Expect::TreatAsWithdraw, Fate::Gone) => complaints.1,
            (Expect::Withdrawn, Fate::Gone) => complaints == (false, false),
            (Expect::WithdrawnDiscard, Fate::Gone) => complaints == (true, false),
            (Expect::Rejected(code), Fate::New(path)) => !path.valid && path.reason.code == code,
            (Expect::Kept, Fate::Old) => !complaints.1,
            _ => false,
        };
        let checked = |fate: &Fate| match (case.check, fate) {
            (Some(check), Fate::New(path)) => check(&path.attributes),
            (check, _) => check.is_none(),
        };
        if concerned.iter().all(|fate| as_expected(fate) && checked(fate)) {
            return Ok(());
        }
        Err(format!("but the route is {concerned:?}, with (discarded, treated as withdraw) {complaints:?}"))
    }

    /// A session with both routes well-formed.
    async fn announce_old(&mut self) -> MessageCounters {
        if self.raw.is_none() {
            self.raw = Some(self.establish().await);
        }
        let old = |mut set: Vec<Vec<u8>>| {
            *set.last_mut().unwrap() = attribute(0xc0, 8, &OLD.to_be_bytes());
            set
        };
        let v4 = update(&[], &old(self.kind.good()), &V4);
        let mut v6 = old(self.kind.without_next_hop());
        v6.insert(0, reach(2, 1, &NEXT_HOP_V6, &V6));
        let before = self.status().await;
        let raw = self.raw.as_mut().unwrap();
        raw.send(&[v4, update(&[], &v6, &[])].concat()).await;
        let updates = before.counters.received[1] + 2;
        let status = self.until(move |status| status.counters.received[1] >= updates).await;
        let fates = self.fates().await;
        let both = matches!(fates, (Fate::Old, Fate::Old));
        assert!(
            both || self.kind == Kind::Ipv4Only,
            "{:?} is believed before a case: {fates:?}, {status:?}",
            self.kind
        );
        status.counters
    }

    async fn establish(&self) -> RawPeer {
        let attempts = async {
            loop {
                if let Some(peer) = self.try_establish().await {
                    return peer;
                }
            }
        };
        let raw = timeout(PATIENCE, attempts).await.expect("a session");
        self.until(|status| status.state == State::Established).await;
        raw
    }

    /// None: the speaker keeps away for a moment after a session that failed.
    async fn try_establish(&self) -> Option<RawPeer> {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(self.address, 0)).unwrap();
        let mut raw = RawPeer { stream: socket.connect(self.to).await.ok()? };
        raw.stream.set_nodelay(true).unwrap();
        raw.receive().await.filter(|(kind, _)| *kind == OPEN)?;
        raw.send(&[open(self.kind), message(KEEPALIVE, &[])].concat()).await;
        raw.receive().await.filter(|(kind, _)| *kind == KEEPALIVE)?;
        Some(raw)
    }

    async fn status(&self) -> PeerStatus {
        let address = self.address;
        self.handle.inspect(move |speaker| speaker.peer(address.into())).await.unwrap().unwrap()
    }

    async fn until(&self, holds: impl Fn(&PeerStatus) -> bool) -> PeerStatus {
        let waiting = async {
            loop {
                let status = self.status().await;
                if holds(&status) {
                    return status;
                }
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("{:?} waited in vain", self.kind))
    }

    async fn fates(&self) -> (Fate, Fate) {
        let view = RibView::In(self.address.into());
        let routes =
            self.handle.inspect(move |speaker| speaker.routes(view, RouteSelect::All)).await.unwrap();
        let fate = |prefix: &str| {
            let prefix: IpNet = prefix.parse().unwrap();
            let route = routes.iter().find(|route| route.prefix == prefix);
            match route.and_then(|route| route.paths.first()) {
                None => Fate::Gone,
                Some(path) if path.attributes.communities.contains(&OLD) => Fate::Old,
                Some(path) => Fate::New(path.clone()),
            }
        };
        (fate("198.51.100.0/24"), fate("2001:db8:100::/48"))
    }
}

/// The OPEN of a peer, with the capabilities of its kind.
fn open(kind: Kind) -> Vec<u8> {
    let mut capabilities = vec![1, 4, 0, 1, 0, 1];
    if kind != Kind::Ipv4Only {
        capabilities.extend([1, 4, 0, 2, 0, 1]);
    }
    if !kind.is_old() {
        capabilities.extend([65, 4, 0, 0]);
        capabilities.extend(kind.asn().to_be_bytes());
    }
    if kind == Kind::Extended {
        capabilities.extend([6, 0]);
    }
    let length = u8::try_from(capabilities.len()).unwrap();
    let id = [10, 9, 9, kind as u8 + 1];
    let body = [&[4][..], &kind.asn().to_be_bytes(), &[0, 0], &id, &[length + 2, 2, length], &capabilities];
    message(OPEN, &body.concat())
}
