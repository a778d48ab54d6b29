//! What benchmarks and instruction counts are made with: tables like the Internet's as the bytes that peers send, the same on every
//! run, and a speaker whose peers are these bytes.

#![allow(dead_code, reason = "every program uses its part")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "all that is read here is made here")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use ipnet::Ipv4Net;
use weft_bgp::config::{NextHopMode, PeerConfig, RemoteAs, SpeakerConfig, Timers};
use weft_bgp::policy::{Policy, Rule, Verdict};
use weft_bgp::speaker::{Input, Output, Resolution, Speaker, SpeakerStart};
use weft_bgp::status::PeerStatus;
use weft_bgp::types::{Asn, ConnectionId, Family, FamilySet, PeerType, Reason};
use weft_bgp::wire::update::Agreed;

/// Our AS.
pub(crate) const AS: u32 = 64_512;

/// What the transport reads at once.
const READ: usize = 64 * 1024;

/// Numbers from a seed (splitmix64).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    /// One of `0..below`.
    pub(crate) fn roll(&mut self, below: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        u32::try_from((z ^ (z >> 31)) % u64::from(below)).unwrap()
    }
}

/// As many distinct prefixes, in no order: /16 to /24, six of ten a /24.
pub(crate) fn prefixes(count: usize) -> Vec<Ipv4Net> {
    let (mut dice, mut seen, mut prefixes) = (Dice(1), BTreeSet::new(), Vec::with_capacity(count));
    while prefixes.len() < count {
        let length = if dice.roll(10) < 6 { 24 } else { u8::try_from(16 + dice.roll(8)).unwrap() };
        let address = Ipv4Addr::from(0x0100_0000 + dice.roll(0xDE00_0000));
        let prefix = Ipv4Net::new(address, length).unwrap().trunc();
        if seen.insert(prefix) {
            prefixes.push(prefix);
        }
    }
    prefixes
}

/// A peer's table: attribute sets as they are on the wire, each with its prefixes, nine on the average.
pub(crate) struct Table(pub(crate) Vec<(Vec<u8>, Vec<Ipv4Net>)>);

impl Table {
    /// An external peer's: AS paths of two to six hops, communities on 70 %, MED on 20 %, large communities on 15 %.
    pub(crate) fn internet(prefixes: &[Ipv4Net], peer: &Peer, seed: u64) -> Self {
        let (mut dice, mut rest, mut sets) = (Dice(seed), prefixes, Vec::new());
        while !rest.is_empty() {
            let size = match dice.roll(10) {
                0..5 => 1,
                5..7 => 2 + dice.roll(3),
                7..9 => 5 + dice.roll(16),
                _ => 20 + dice.roll(72),
            };
            let (these, others) = rest.split_at(rest.len().min(usize::try_from(size).unwrap()));
            let hops = 1 + dice.roll(5);
            let mut path = vec![peer.asn];
            path.extend((0..hops).map(|_| 1000 + dice.roll(60_000)));
            let mut attributes = mandatory(&path, peer.next_hop());
            if dice.roll(10) < 2 {
                put(&mut attributes, 0x80, 4, &dice.roll(500).to_be_bytes());
            }
            if dice.roll(10) < 7 {
                let communities = 1 + dice.roll(8);
                let all: Vec<u8> =
                    (0..communities).flat_map(|_| (dice.roll(0xFFFE_0000)).to_be_bytes()).collect();
                put(&mut attributes, 0xC0, 8, &all);
            }
            if dice.roll(100) < 15 {
                let large: Vec<u8> = (0..9).flat_map(|_| dice.roll(u32::MAX).to_be_bytes()).collect();
                put(&mut attributes, 0xC0, 32, &large);
            }
            sets.push((attributes, these.to_vec()));
            rest = others;
        }
        Self(sets)
    }

    /// A node's: one attribute set.
    pub(crate) fn node(prefixes: &[Ipv4Net], peer: &Peer) -> Self {
        let mut attributes = mandatory(&[], peer.next_hop());
        put(&mut attributes, 0x40, 5, &100_u32.to_be_bytes());
        Self(vec![(attributes, prefixes.to_vec())])
    }

    /// Its UPDATEs.
    pub(crate) fn updates(&self) -> Vec<u8> {
        /// How many prefixes go into a message beside any of these attribute sets.
        const PREFIXES: usize = 700;
        let mut out = Vec::new();
        for (attributes, prefixes) in &self.0 {
            for prefixes in prefixes.chunks(PREFIXES) {
                let mut body = vec![0, 0];
                body.extend(u16::try_from(attributes.len()).unwrap().to_be_bytes());
                body.extend(attributes);
                body.extend(prefixes.iter().flat_map(nlri));
                out.extend(message(UPDATE, &body));
            }
        }
        out
    }
}

const OPEN: u8 = 1;
pub(crate) const UPDATE: u8 = 2;
const KEEPALIVE: u8 = 4;

pub(crate) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![0xff; 16];
    message.extend(u16::try_from(19 + body.len()).unwrap().to_be_bytes());
    message.push(kind);
    message.extend(body);
    message
}

/// The bodies of messages.
pub(crate) fn bodies(mut messages: &[u8]) -> Vec<&[u8]> {
    let mut bodies = Vec::new();
    while let Some((header, _)) = messages.split_first_chunk::<19>() {
        let (message, rest) = messages.split_at(u16::from_be_bytes([header[16], header[17]]).into());
        bodies.push(&message[header.len()..]);
        messages = rest;
    }
    bodies
}

/// What the peers here agree on with us.
pub(crate) fn agreed() -> Agreed {
    Agreed {
        families: [Family::Ipv4Unicast].into_iter().collect(),
        four_octet_as: true,
        extended_next_hop: false,
        add_path: FamilySet::EMPTY,
        peer_type: PeerType::External,
    }
}

pub(crate) fn nlri(prefix: &Ipv4Net) -> impl Iterator<Item = u8> {
    let octets = usize::from(prefix.prefix_len()).div_ceil(8);
    std::iter::once(prefix.prefix_len()).chain(prefix.addr().octets().into_iter().take(octets))
}

fn put(attributes: &mut Vec<u8>, flags: u8, code: u8, value: &[u8]) {
    attributes.extend([flags, code, u8::try_from(value.len()).unwrap()]);
    attributes.extend(value);
}

pub(crate) fn mandatory(path: &[u32], next_hop: Ipv4Addr) -> Vec<u8> {
    let mut attributes = Vec::new();
    put(&mut attributes, 0x40, 1, &[0]);
    let mut segment = Vec::new();
    if !path.is_empty() {
        segment.extend([2, u8::try_from(path.len()).unwrap()]);
        segment.extend(path.iter().flat_map(|asn| asn.to_be_bytes()));
    }
    put(&mut attributes, 0x40, 2, &segment);
    put(&mut attributes, 0x40, 3, &next_hop.octets());
    attributes
}

/// A peer that is bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    pub(crate) number: u16,
    pub(crate) asn: u32,
}

impl Peer {
    /// One in an AS of its own.
    pub(crate) fn external(number: u16) -> Self {
        Self { number, asn: 65_000 - u32::from(number) }
    }

    /// A client of our route reflector.
    pub(crate) fn client(number: u16) -> Self {
        Self { number, asn: AS }
    }

    pub(crate) fn next_hop(self) -> Ipv4Addr {
        let [high, low] = self.number.to_be_bytes();
        Ipv4Addr::new(172, 30, high, low)
    }

    pub(crate) fn address(self) -> IpAddr {
        self.next_hop().into()
    }

    pub(crate) fn connection(self) -> ConnectionId {
        ConnectionId::Accepted(self.number.into())
    }

    pub(crate) fn config(self) -> PeerConfig {
        let accept = Arc::new(Policy {
            rules: vec![Rule::new(Verdict::Accept)],
            unmatched: Reason::new("none", "no rule matches"),
        });
        PeerConfig {
            name: format!("peer-{}", self.number),
            port: 179,
            neighbour: None,
            remote_as: RemoteAs::Exactly(Asn(self.asn)),
            local_as: Asn(AS),
            source_address: None,
            families: FamilySet::all(),
            next_hop_v4: None,
            next_hop_v6: None,
            next_hop_mode: NextHopMode::Auto,
            ebgp_multihop: false,
            authentication: <_>::default(),
            ttl_security: None,
            max_prefixes: None,
            passive: true,
            shutdown: None,
            route_reflector_client: self.asn == AS,
            add_path: <_>::default(),
            allowed_own_as: 0,
            allow_as_sets: false,
            as_override: false,
            remove_private_as: false,
            role: None,
            role_strict: false,
            timers: Timers::default(),
            graceful_restart: None,
            bfd: None,
            import: accept.clone(),
            export: accept,
        }
    }

    /// OPEN with a hold time of 90 s, IPv4 unicast and four-octet AS, then KEEPALIVE.
    pub(crate) fn greeting(self) -> Vec<u8> {
        let mut capabilities = vec![1, 4, 0, 1, 0, 1, 65, 4];
        capabilities.extend(self.asn.to_be_bytes());
        let length = u8::try_from(capabilities.len()).unwrap();
        let mut body = vec![4];
        body.extend(u16::try_from(self.asn).unwrap().to_be_bytes());
        body.extend([0, 90]);
        body.extend(self.next_hop().octets());
        body.extend([length + 2, 2, length]);
        body.extend(capabilities);
        [message(OPEN, &body), message(KEEPALIVE, &[])].concat()
    }
}

/// A speaker's configuration with these peers.
pub(crate) fn configuration(peers: &[Peer]) -> Arc<SpeakerConfig> {
    let peers = peers.iter().map(|peer| (peer.address().into(), Arc::new(peer.config())));
    Arc::new(SpeakerConfig {
        asn: Asn(AS),
        router_id: Ipv4Addr::new(172, 30, 255, 254),
        ranges: BTreeMap::new(),
        cluster_id: Some(Ipv4Addr::new(172, 30, 255, 254)),
        max_paths: 16,
        next_hop_tracking: true,
        install_routes: true,
        peers: peers.collect(),
        originate: BTreeMap::new(),
        bmp: <_>::default(),
    })
}

/// A speaker, and a kernel that says yes to every next hop and takes every byte at once.
pub(crate) struct Router {
    speaker: Speaker,
    now: Instant,
    /// What is to be fed yet.
    inputs: VecDeque<Input>,
    /// How many octets each peer was sent.
    pub(crate) sent: BTreeMap<ConnectionId, usize>,
    /// How many changes of best paths the kernel was told.
    pub(crate) best_paths: usize,
}

impl Router {
    /// One with these peers, none of which is there yet.
    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    pub(crate) fn new(peers: &[Peer]) -> Self {
        let mut router = Self {
            speaker: Speaker::new(SpeakerStart::default()),
            now: Instant::now(),
            inputs: VecDeque::new(),
            sent: BTreeMap::new(),
            best_paths: 0,
        };
        router.feed(Input::Configure(configuration(peers)));
        router
    }

    /// Brings a peer's session up.
    pub(crate) fn establish(&mut self, peer: Peer) {
        let local = SocketAddr::new(Ipv4Addr::new(172, 30, 255, 254).into(), 179);
        let (connection, remote) = (peer.connection(), SocketAddr::new(peer.address(), 40_000));
        self.feed(Input::Accepted { connection, local, remote });
        self.say(peer, &Bytes::from(peer.greeting()));
    }

    /// Lets a peer say something, in as many pieces as are read at once.
    pub(crate) fn say(&mut self, peer: Peer, bytes: &Bytes) {
        self.say_in_turn(&[(peer, bytes.clone())]);
    }

    /// Lets peers say something, a piece each in turn.
    pub(crate) fn say_in_turn(&mut self, said: &[(Peer, Bytes)]) {
        let longest = said.iter().map(|(_, bytes)| bytes.len()).max().unwrap_or(0);
        for start in (0..longest).step_by(READ) {
            for (peer, bytes) in said.iter().filter(|(_, bytes)| bytes.len() > start) {
                let bytes = bytes.slice(start..bytes.len().min(start + READ));
                self.feed(Input::Bytes { connection: peer.connection(), bytes });
            }
        }
    }

    /// Resets a peer's connection.
    pub(crate) fn reset(&mut self, peer: Peer) {
        self.feed(Input::Closed { connection: peer.connection(), error: None });
    }

    pub(crate) fn status(&self, peer: Peer) -> PeerStatus {
        self.speaker.peer(peer.address().into()).unwrap()
    }

    /// How many prefixes a peer was told and not told to forget.
    pub(crate) fn advertised(&self, peer: Peer) -> usize {
        self.status(peer).families.iter().map(|family| family.advertised).sum()
    }

    fn feed(&mut self, input: Input) {
        self.inputs.push_back(input);
        while let Some(input) = self.inputs.pop_front() {
            self.speaker.handle(self.now, input);
            while let Some(output) = self.speaker.poll() {
                match output {
                    Output::Write { connection, bytes } => {
                        *self.sent.entry(connection).or_default() += bytes.len();
                        self.inputs.push_back(Input::Written { connection, bytes: bytes.len() });
                    }
                    Output::TrackNextHop(next_hop) => {
                        self.inputs.push_back(Input::NextHops(vec![(next_hop, Resolution::OnLink)]));
                    }
                    Output::BestPaths(changes) => self.best_paths += changes.len(),
                    _ => {}
                }
            }
        }
    }
}

/// The prefixes of one node of many: /26 of 10/8.
pub(crate) fn node_prefixes(node: u16, count: u32) -> Vec<Ipv4Net> {
    let first = u32::from(node) * count;
    (first..first + count)
        .map(|n| Ipv4Net::new(Ipv4Addr::from(0x0A00_0000 + (n << 6)), 26).unwrap())
        .collect()
}
