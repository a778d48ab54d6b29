//! A RIB with its egresses and peers that read when told to.
#![allow(dead_code, unreachable_pub, reason = "every test binary uses a part of it")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ipnet::IpNet;
use weft_bgp::config::{NextHopMode, Origination, PeerConfig, RemoteAs, Timers};
use weft_bgp::egress::{CREDIT, Egress, EgressInput, EgressOutput, GroupId};
use weft_bgp::ingress::{Down, PeerGracefulRestart, RouteBatch, Run, Session};
use weft_bgp::policy::{Policy, Rule, Verdict};
use weft_bgp::rib::{Rib, RibInput, RibOutput};
use weft_bgp::speaker::{Resolution, TrackedNextHop};
use weft_bgp::types::{Asn, ConnectionId, Family, FamilySet, PeerId, PeerType, Reason};
use weft_bgp::wire::attributes::{AsPath, PathAttributes, Segment, SegmentKind};
use weft_bgp::wire::update::{Agreed, Decoder};

/// Our own AS.
pub const OWN: Asn = Asn(65000);

pub fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn accept_all() -> Policy {
    Policy { rules: vec![Rule::new(Verdict::Accept)], unmatched: Reason::new("unmatched", "no rule matches") }
}

/// The address of a test peer.
pub fn address(peer: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(0xC000_0200 + peer))
}

pub fn config() -> PeerConfig {
    PeerConfig {
        name: "test".into(),
        port: 179,
        neighbour: None,
        remote_as: RemoteAs::External,
        local_as: OWN,
        source_address: None,
        families: FamilySet::all(),
        next_hop_v4: None,
        next_hop_v6: Some("2001:db8::ff".parse().unwrap()),
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
        graceful_restart: None,
        bfd: None,
        import: Arc::new(accept_all()),
        export: Arc::new(accept_all()),
    }
}

pub fn session(peer: u32, remote_as: Asn) -> Session {
    Session {
        connection: ConnectionId::Accepted(u64::from(peer)),
        local: SocketAddr::new(ip("192.0.2.255"), 179),
        remote: address(peer),
        local_as: OWN,
        remote_as,
        peer_type: if remote_as == OWN { PeerType::Internal } else { PeerType::External },
        remote_id: Ipv4Addr::from(peer),
        families: FamilySet::all(),
        four_octet_as: true,
        extended_next_hop: false,
        add_path: <_>::default(),
        route_refresh: true,
        enhanced_route_refresh: true,
        role: None,
        remote_role: None,
        max_message: 4096,
        hold_time: Duration::from_secs(90),
        keepalive_time: Duration::from_secs(30),
        graceful_restart: None,
    }
}

pub fn graceful(forwarding: FamilySet) -> PeerGracefulRestart {
    PeerGracefulRestart {
        notification: false,
        long_lived: None,
        restarting: true,
        restart_time: Duration::from_secs(120),
        families: FamilySet::all(),
        forwarding,
    }
}

pub fn path(asns: &[u32]) -> AsPath {
    let asns: Vec<Asn> = asns.iter().copied().map(Asn).collect();
    AsPath(if asns.is_empty() { vec![] } else { vec![Segment { kind: SegmentKind::Sequence, asns }] })
}

pub fn attributes(as_path: &[u32], next_hop: &str) -> PathAttributes {
    PathAttributes { as_path: path(as_path), ..PathAttributes::new(ip(next_hop)) }
}

/// The far end of a session: a table made of nothing but the bytes that came.
pub struct Sink {
    pub table: BTreeMap<IpNet, PathAttributes>,
    /// The same of families whose prefixes come with path identifiers.
    pub several: BTreeMap<(IpNet, u32), PathAttributes>,
    pub end_of_rib: Vec<Family>,
    pub unread: VecDeque<Bytes>,
    /// UPDATEs read that announce or withdraw something.
    pub updates: usize,
    /// Prefixes announced.
    pub announced: usize,
    /// Prefixes withdrawn.
    pub withdrawn: usize,
    /// The fewest prefixes that the table had after a message.
    pub fewest: usize,
    /// The subtype of each ROUTE-REFRESH read, and how many prefixes were announced before.
    pub refreshes: Vec<(u8, usize)>,
    add_path: FamilySet,
    decoder: Decoder,
}

impl Sink {
    fn new(session: &Session) -> Self {
        // The far end sees the session as we do, but for the AS it calls its own; the type is the same.
        let agreed = Agreed {
            families: session.families,
            four_octet_as: session.four_octet_as,
            extended_next_hop: session.extended_next_hop,
            add_path: session.add_path.send,
            peer_type: session.peer_type,
        };
        Self {
            table: BTreeMap::new(),
            several: BTreeMap::new(),
            add_path: session.add_path.send,
            end_of_rib: vec![],
            unread: VecDeque::new(),
            updates: 0,
            announced: 0,
            withdrawn: 0,
            fewest: usize::MAX,
            refreshes: vec![],
            decoder: Decoder::new(agreed),
        }
    }

    fn apply(&mut self, bytes: &Bytes) {
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let length = usize::from(u16::from_be_bytes([rest[16], rest[17]]));
            if rest[18] == 5 {
                self.refreshes.push((rest[21], self.announced));
                rest = &rest[length..];
                continue;
            }
            assert_eq!(rest[18], 2, "an UPDATE");
            let mut batch = RouteBatch::default();
            let decoded = self.decoder.decode(&rest[19..length], &mut batch).unwrap();
            assert_eq!(decoded.errors, []);
            self.end_of_rib.extend(decoded.end_of_rib);
            self.updates += usize::from(decoded.end_of_rib.is_none());
            for run in &batch.runs {
                for (&prefix, path_id) in batch.nlri(run) {
                    let several = self.add_path.contains(Family::of(&prefix));
                    match &run.attributes {
                        Some(attributes) => {
                            self.announced += 1;
                            let attributes = (**attributes).clone();
                            let _before = match several {
                                true => self.several.insert((prefix, path_id), attributes),
                                false => self.table.insert(prefix, attributes),
                            };
                        }
                        None => {
                            self.withdrawn += 1;
                            let known = match several {
                                true => self.several.remove(&(prefix, path_id)),
                                false => self.table.remove(&prefix),
                            };
                            assert!(known.is_some(), "{prefix} is withdrawn and was never announced");
                        }
                    }
                }
            }
            self.fewest = self.fewest.min(self.table.len());
            rest = &rest[length..];
        }
    }
}

/// A RIB and all that stands around it.
pub struct Lab {
    pub now: Instant,
    pub rib: Rib,
    pub egresses: BTreeMap<GroupId, Egress>,
    pub group_of: BTreeMap<PeerId, GroupId>,
    pub sinks: BTreeMap<PeerId, Sink>,
    pub kernel: BTreeMap<IpNet, Vec<TrackedNextHop>>,
    pub tracked: BTreeSet<TrackedNextHop>,
    pub alarms: Vec<(PeerId, IpNet)>,
    pub leaks: Vec<(PeerId, IpNet)>,
    /// Who was asked for a table again.
    pub asked: Vec<(PeerId, Family)>,
    pub aggregates: BTreeSet<IpNet>,
    /// The octets that an egress may have on their way.
    pub credit: usize,
    /// Best-path changes given so far.
    pub best_path_changes: usize,
    /// Our cluster, from the next [`Self::configure`] on.
    pub cluster_id: Option<Ipv4Addr>,
}

#[expect(clippy::disallowed_methods, reason = "some instant to count from")]
pub fn start() -> Instant {
    Instant::now()
}

impl Lab {
    pub fn new() -> Self {
        let mut lab = Self {
            now: start(),
            rib: Rib::new(),
            egresses: BTreeMap::new(),
            group_of: BTreeMap::new(),
            sinks: BTreeMap::new(),
            kernel: BTreeMap::new(),
            tracked: BTreeSet::new(),
            alarms: vec![],
            leaks: vec![],
            asked: vec![],
            aggregates: BTreeSet::new(),
            credit: CREDIT,
            best_path_changes: 0,
            cluster_id: Some(Ipv4Addr::new(9, 9, 9, 9)),
        };
        lab.configure(false, 16, []);
        lab
    }

    /// One that advertises, with next hops that are not tracked.
    pub fn advertising() -> Self {
        let mut lab = Self::new();
        lab.input(RibInput::Advertise);
        lab
    }

    pub fn configure(
        &mut self,
        next_hop_tracking: bool,
        max_paths: u16,
        originate: impl IntoIterator<Item = IpNet>,
    ) {
        self.input(RibInput::Configure {
            asn: OWN,
            router_id: Ipv4Addr::new(9, 9, 9, 9),
            cluster_id: self.cluster_id,
            max_paths,
            install_routes: true,
            next_hop_tracking,
            originate: originate.into_iter().map(|prefix| (prefix, Origination::default())).collect(),
        });
    }

    pub fn peer(&mut self, peer: u32, config: PeerConfig) {
        let (id, address) = (PeerId(peer), address(peer));
        self.input(RibInput::Peer { peer: id, address: address.into(), config: Arc::new(config) });
    }

    pub fn up(&mut self, session: Session) {
        let IpAddr::V4(remote) = session.remote else { panic!("test peers have IPv4 addresses") };
        let peer = PeerId(u32::from(remote) - 0xC000_0200);
        self.sinks.insert(peer, Sink::new(&session));
        self.input(RibInput::Up { peer, session: Arc::new(session) });
    }

    pub fn down(&mut self, peer: u32, down: Down) {
        self.sinks.remove(&PeerId(peer));
        self.input(RibInput::Down { peer: PeerId(peer), down });
    }

    pub fn routes(&mut self, peer: u32, attributes: Option<PathAttributes>, prefixes: &[IpNet]) {
        let run = Run { range: 0..prefixes.len(), attributes: attributes.map(Arc::new) };
        let batch = RouteBatch { prefixes: prefixes.to_vec(), runs: vec![run], ..<_>::default() };
        self.input(RibInput::Routes { peer: PeerId(peer), batch });
    }

    /// Routes with a path identifier.
    pub fn path(&mut self, peer: u32, path_id: u32, attributes: Option<PathAttributes>, prefixes: &[IpNet]) {
        let run = Run { range: 0..prefixes.len(), attributes: attributes.map(Arc::new) };
        let path_ids = vec![path_id; prefixes.len()];
        let batch = RouteBatch { prefixes: prefixes.to_vec(), path_ids, runs: vec![run] };
        self.input(RibInput::Routes { peer: PeerId(peer), batch });
    }

    pub fn announce(&mut self, peer: u32, attributes: PathAttributes, prefixes: &[IpNet]) {
        self.routes(peer, Some(attributes), prefixes);
    }

    pub fn withdraw(&mut self, peer: u32, prefixes: &[IpNet]) {
        self.routes(peer, None, prefixes);
    }

    pub fn next_hop(&mut self, address: &str, resolution: Resolution) {
        let next_hop = TrackedNextHop { address: ip(address), default_route: false, link: None };
        self.input(RibInput::NextHops(vec![(next_hop, resolution)]));
    }

    pub fn input(&mut self, input: RibInput) {
        self.rib.handle(self.now, input);
        self.drain();
    }

    pub fn drain(&mut self) {
        while let Some(output) = self.rib.poll() {
            match output {
                RibOutput::BestPaths(changes) => {
                    self.best_path_changes += changes.len();
                    for change in changes {
                        if change.next_hops.is_empty() {
                            let known = self.kernel.remove(&change.prefix);
                            assert!(known.is_some(), "{} was not there", change.prefix);
                        } else {
                            let next_hops = change.next_hops.to_vec();
                            let before = self.kernel.insert(change.prefix, next_hops.clone());
                            assert_ne!(before, Some(next_hops), "{} is no change", change.prefix);
                        }
                    }
                }
                RibOutput::Track(next_hop) => assert!(self.tracked.insert(next_hop)),
                RibOutput::Untrack(next_hop) => assert!(self.tracked.remove(&next_hop)),
                RibOutput::Alarm { peer, prefix, .. } => self.alarms.push((peer, prefix)),
                RibOutput::Leak { peer, prefix, .. } => self.leaks.push((peer, prefix)),
                RibOutput::Changed(table, _) => panic!("{table:?} is told of, and nobody watches it"),
                RibOutput::AskRefresh { peer, family } => self.asked.push((peer, family)),
                // What follows from it is the speaker's.
                RibOutput::Limit { .. } => {}
                RibOutput::Aggregates(aggregates) => self.aggregates = aggregates,
                RibOutput::Egress(group, input) => self.egress(group, input),
                RibOutput::EgressClosed(group) => {
                    self.egresses.remove(&group);
                }
            }
        }
    }

    pub fn egress(&mut self, group: GroupId, input: EgressInput) {
        match &input {
            EgressInput::Join { peer, .. } => assert_eq!(self.group_of.insert(*peer, group), None),
            EgressInput::Leave(peer) => assert_eq!(self.group_of.remove(peer), Some(group)),
            EgressInput::Adopt(handover) => {
                self.group_of.insert(handover.peer(), group);
            }
            _ => {}
        }
        let (now, credit) = (self.now, self.credit);
        let egress = self.egresses.entry(group).or_insert_with(|| Egress::with_credit(credit));
        egress.handle(now, input);
        let mut moved = vec![];
        while let Some(output) = egress.poll() {
            match output {
                EgressOutput::Write { peer, bytes, .. } => {
                    let sink = self.sinks.get_mut(&peer).expect("no byte to a peer that is gone");
                    sink.unread.push_back(bytes);
                }
                EgressOutput::Moved { to, handover } => moved.push((to, handover)),
            }
        }
        for (to, handover) in moved {
            self.egress(to, EgressInput::Adopt(handover));
        }
    }

    /// Lets a peer read so many pieces, one at a time.
    pub fn read(&mut self, peer: u32, pieces: usize) {
        let id = PeerId(peer);
        for _ in 0..pieces {
            let Some(sink) = self.sinks.get_mut(&id) else { return };
            let Some(bytes) = sink.unread.pop_front() else { return };
            sink.apply(&bytes);
            let group = self.group_of[&id];
            self.egress(group, EgressInput::Written { peer: id, bytes: bytes.len() });
        }
    }

    pub fn read_all(&mut self) {
        let peers: Vec<u32> = self.sinks.keys().map(|p| p.0).collect();
        for peer in peers {
            self.read(peer, usize::MAX);
        }
    }

    pub fn sink(&self, peer: u32) -> &Sink {
        &self.sinks[&PeerId(peer)]
    }

    /// How many octets wait for a peer to read them.
    pub fn outstanding(&self, peer: u32) -> usize {
        self.sink(peer).unread.iter().map(Bytes::len).sum()
    }
}
