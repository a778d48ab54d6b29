//! Two `Ingress` and a network between them: a queue of what is under way, and a clock that jumps to whatever is next.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use weft_bgp::config::{GracefulRestart, NextHopMode, PeerConfig, RemoteAs, Timers};
use weft_bgp::ingress::{Ingress, IngressInput, IngressOutput, Session};
use weft_bgp::policy::Policy;
use weft_bgp::session::State;
use weft_bgp::types::{Asn, ConnectionId, FamilySet, Reason};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Side {
    A,
    B,
}

impl Side {
    pub(crate) fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// A peer of this AS, with everything else as a data centre would have it.
pub(crate) fn peer_config(local_as: u32, remote_as: u32) -> PeerConfig {
    let policy = Policy { rules: Vec::new(), unmatched: Reason::new("no-rule", "no rule matches") };
    PeerConfig {
        name: "test".into(),
        port: 179,
        neighbour: None,
        remote_as: RemoteAs::Exactly(Asn(remote_as)),
        local_as: Asn(local_as),
        source_address: None,
        families: FamilySet::all(),
        next_hop_v4: None,
        next_hop_v6: None,
        next_hop_mode: NextHopMode::Auto,
        ebgp_multihop: false,
        authentication: <_>::default(),
        ttl_security: None,
        max_prefixes: None,
        passive: false,
        shutdown: None,
        route_reflector_client: false,
        add_path: <_>::default(),
        allowed_own_as: 0,
        allow_as_sets: false,
        as_override: false,
        remove_private_as: false,
        role: None,
        role_strict: false,
        timers: Timers::default(),
        graceful_restart: Some(GracefulRestart {
            restart_time: Duration::from_secs(120),
            on_hold_timer_expiry: false,
            long_lived_time: None,
        }),
        bfd: None,
        import: Arc::new(policy.clone()),
        export: Arc::new(policy),
    }
}

pub(crate) struct End {
    pub(crate) ingress: Ingress,
    pub(crate) address: SocketAddr,
    /// All outputs but `Dial`, `Write` and `Close`, in order.
    pub(crate) log: Vec<IngressOutput>,
    pub(crate) listening: bool,
    accepted: u64,
}

pub(crate) struct Pair {
    pub(crate) now: Instant,
    pub(crate) latency: Duration,
    ends: BTreeMap<Side, End>,
    in_flight: BTreeMap<(Instant, u64), (Side, IngressInput)>,
    sent: u64,
    /// Which connection at the other end a connection is.
    wires: BTreeMap<(Side, ConnectionId), ConnectionId>,
    /// Bytes are handed over in pieces of this size.
    pub(crate) chunk: usize,
}

pub(crate) const ADDRESS_A: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
pub(crate) const ADDRESS_B: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
pub(crate) const ID_A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub(crate) const ID_B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

impl Pair {
    pub(crate) fn new() -> Self {
        Self::with_ids(ID_A, ID_B)
    }

    pub(crate) fn with_ids(id_a: Ipv4Addr, id_b: Ipv4Addr) -> Self {
        #[expect(clippy::disallowed_methods, reason = "virtual time has to start somewhere")]
        let now = Instant::now();
        let end = |peer: IpAddr, address, id, seed| End {
            ingress: Ingress::new(peer.into(), id, seed),
            address: SocketAddr::new(address, 179),
            log: Vec::new(),
            listening: true,
            accepted: 0,
        };
        Self {
            now,
            latency: Duration::from_millis(10),
            ends: BTreeMap::from([
                (Side::A, end(ADDRESS_B, ADDRESS_A, id_a, 1)),
                (Side::B, end(ADDRESS_A, ADDRESS_B, id_b, 2)),
            ]),
            in_flight: BTreeMap::new(),
            sent: 0,
            wires: BTreeMap::new(),
            chunk: usize::MAX,
        }
    }

    /// Two configured ends, and the time until both are Established.
    pub(crate) fn established(config_a: PeerConfig, config_b: PeerConfig) -> Self {
        let mut pair = Self::new();
        pair.configure(Side::A, config_a);
        pair.configure(Side::B, config_b);
        pair.run_until_established();
        pair
    }

    pub(crate) fn end(&self, side: Side) -> &End {
        &self.ends[&side]
    }

    pub(crate) fn end_mut(&mut self, side: Side) -> &mut End {
        self.ends.get_mut(&side).expect("both ends exist")
    }

    pub(crate) fn configure(&mut self, side: Side, config: PeerConfig) {
        self.input(side, IngressInput::Configure(Arc::new(config)));
    }

    pub(crate) fn state(&self, side: Side) -> State {
        self.end(side).ingress.state()
    }

    pub(crate) fn session(&self, side: Side) -> Arc<Session> {
        Arc::clone(self.end(side).ingress.session().expect("the session is Established"))
    }

    pub(crate) fn both(&self, state: State) -> bool {
        self.state(Side::A) == state && self.state(Side::B) == state
    }

    /// Gives an end an input now, and carries out what it answers.
    pub(crate) fn input(&mut self, side: Side, input: IngressInput) {
        let now = self.now;
        self.end_mut(side).ingress.handle(now, input);
        self.drain(side);
    }

    /// Sends bytes on the Established session of an end, as the third stage would.
    pub(crate) fn write(&mut self, side: Side, bytes: Bytes) {
        let connection = self.session(side).connection;
        self.carry_out(side, IngressOutput::Write { connection, bytes });
    }

    /// The process of one end dies: its connections are reset, and a new one takes its place.
    pub(crate) fn crash(&mut self, side: Side, seed: u64, router_id: Ipv4Addr) {
        self.vanish(side, seed, router_id, true);
    }

    /// As a crash, but the other end hears nothing of it.
    pub(crate) fn vanish(&mut self, side: Side, seed: u64, router_id: Ipv4Addr, resets: bool) {
        let mine: Vec<_> = self.wires.keys().filter(|(at, _)| *at == side).copied().collect();
        for key in mine {
            let remote = self.wires.remove(&key).expect("listed");
            self.wires.remove(&(side.other(), remote));
            if resets {
                let error = Some("connection reset by peer".to_owned());
                self.send(side.other(), IngressInput::Closed { connection: remote, error });
            }
        }
        self.in_flight.retain(|_, (to, _)| *to != side);
        let peer = self.end(side.other()).address.ip();
        self.end_mut(side).ingress = Ingress::new(peer.into(), router_id, seed);
    }

    /// Lets time pass.
    pub(crate) fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.step(end) {}
        self.now = end;
    }

    /// Runs until something holds, for at most `limit`; says whether it came to hold.
    pub(crate) fn run_until(&mut self, limit: Duration, holds: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + limit;
        while !holds(self) {
            if !self.step(end) {
                return false;
            }
        }
        true
    }

    pub(crate) fn run_until_established(&mut self) {
        let done = self.run_until(Duration::from_secs(60), |pair| pair.both(State::Established));
        let (a, b) = (self.state(Side::A), self.state(Side::B));
        assert!(done, "not Established within 60 s: {a} and {b}; {:?}", self.end(Side::A).log);
    }

    /// Makes the next thing happen, if anything is due before `end`.
    fn step(&mut self, end: Instant) -> bool {
        let arrival = self.in_flight.first_key_value().map(|(key, _)| key.0);
        let deadlines =
            self.ends.iter().filter_map(|(side, end)| Some((end.ingress.next_deadline()?.0, *side)));
        let timer = deadlines.min();
        match (arrival, timer) {
            (Some(at), timer) if at <= end && timer.is_none_or(|(deadline, _)| at <= deadline) => {
                self.now = self.now.max(at);
                let (_, (side, input)) = self.in_flight.pop_first().expect("there is one");
                self.arrive(side, input);
                true
            }
            (_, Some((deadline, side))) if deadline <= end => {
                self.now = self.now.max(deadline);
                self.input(side, IngressInput::Tick);
                true
            }
            _ => false,
        }
    }

    fn arrive(&mut self, side: Side, input: IngressInput) {
        let open = |pair: &Self, connection: &ConnectionId| pair.wires.contains_key(&(side, *connection));
        match input {
            IngressInput::Bytes { connection, bytes } => {
                for piece in bytes.chunks(self.chunk) {
                    if open(self, &connection) {
                        let bytes = Bytes::copy_from_slice(piece);
                        self.input(side, IngressInput::Bytes { connection, bytes });
                    }
                }
            }
            other => self.input(side, other),
        }
    }

    fn drain(&mut self, side: Side) {
        while let Some(output) = self.end_mut(side).ingress.poll() {
            self.carry_out(side, output);
        }
    }

    fn send(&mut self, to: Side, input: IngressInput) {
        self.sent += 1;
        self.in_flight.insert((self.now + self.latency, self.sent), (to, input));
    }

    fn carry_out(&mut self, side: Side, output: IngressOutput) {
        match output {
            IngressOutput::Dial { connection, .. } => self.dial(side, connection),
            IngressOutput::Write { connection, bytes } => {
                if let Some(remote) = self.wires.get(&(side, connection)).copied() {
                    self.send(side.other(), IngressInput::Bytes { connection: remote, bytes });
                }
            }
            IngressOutput::Close { connection } => {
                if let Some(remote) = self.wires.remove(&(side, connection)) {
                    self.send(side.other(), IngressInput::Closed { connection: remote, error: None });
                }
            }
            other => self.end_mut(side).log.push(other),
        }
    }

    fn dial(&mut self, side: Side, connection: ConnectionId) {
        let local = self.end(side).address;
        let remote = self.end_mut(side.other());
        if !remote.listening {
            let error = "connection refused".to_owned();
            self.send(side, IngressInput::ConnectFailed { connection, error });
            return;
        }
        remote.accepted += 1;
        let accepted = ConnectionId::Accepted(remote.accepted);
        let remote_local = remote.address;
        self.wires.insert((side, connection), accepted);
        self.wires.insert((side.other(), accepted), connection);
        self.send(
            side.other(),
            IngressInput::Accepted { connection: accepted, local: remote_local, remote: local },
        );
        self.send(side, IngressInput::Connected { connection, local });
    }
}
