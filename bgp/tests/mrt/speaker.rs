//! What a speaker gives to be written down.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use ipnet::IpNet;
use weft_bgp::config::SpeakerConfig;
use weft_bgp::mrt::{Observation, Observed, Timestamp};
use weft_bgp::session::State;
use weft_bgp::sim::World;
use weft_bgp::speaker::{Dump, Input, Output, Speaker, SpeakerStart};
use weft_bgp::types::{Asn, ConnectionId};

use crate::reader::{records, routes};
use crate::sim_support::{LIMIT, Topology, peer, prefixes, speaker, v4};

/// Two speakers, the first of which dials, and what each has observed.
struct Pair {
    now: Instant,
    speakers: [Speaker; 2],
    connections: [Option<ConnectionId>; 2],
    observed: [Vec<Observation>; 2],
}

impl Pair {
    fn new() -> Self {
        let speakers = [(); 2].map(|()| Speaker::new(SpeakerStart::default()));
        Self { now: Instant::now(), speakers, connections: [None; 2], observed: <_>::default() }
    }

    fn configure(&mut self) {
        let asn = [64_500, 64_501];
        for (me, other) in [(1, 0), (0, 1)] {
            let mut session = peer(me, asn[me], asn[other]);
            session.passive = me == 1;
            let mut config = speaker(me, asn[me]);
            config.peers.insert(v4(other).into(), Arc::new(session));
            self.hear(me, Input::Configure(Arc::new(config)));
        }
    }

    /// Gives one an input, and both what follows from it, in order.
    fn hear(&mut self, me: usize, input: Input) {
        let mut inputs = VecDeque::from([(me, input)]);
        while let Some((me, input)) = inputs.pop_front() {
            let other = 1 - me;
            self.speakers[me].handle(self.now, input);
            while let Some(output) = self.speakers[me].poll() {
                match output {
                    Output::Observation(observation) => self.observed[me].push(observation),
                    Output::Dial { connection, remote, .. } => {
                        let accepted = ConnectionId::Accepted(1);
                        self.connections[me] = Some(connection);
                        self.connections[other] = Some(accepted);
                        let local = SocketAddr::from((v4(me), 40_000));
                        inputs.push_back((me, Input::Connected { connection, local }));
                        let accepted = Input::Accepted { connection: accepted, local: remote, remote: local };
                        inputs.push_back((other, accepted));
                    }
                    Output::Write { bytes, .. } => {
                        let connection = self.connections[other].unwrap();
                        inputs.push_back((other, Input::Bytes { connection, bytes }));
                    }
                    Output::Close { .. } => {
                        let connection = self.connections[other].unwrap();
                        inputs.push_back((other, Input::Closed { connection, error: None }));
                    }
                    _ => {}
                }
            }
        }
    }

    /// Lets timers expire.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some((at, me)) = (0..2)
            .filter_map(|me| Some((self.speakers[me].next_deadline()?.0, me)))
            .min()
            .filter(|(at, _)| *at <= end)
        {
            self.now = self.now.max(at);
            self.hear(me, Input::Tick);
        }
        self.now = end;
    }
}

fn messages(observed: &[Observation], wanted: fn(&Observed) -> Option<&Bytes>) -> Vec<Bytes> {
    observed.iter().filter_map(|o| wanted(&o.observed).cloned()).collect()
}

fn received(observed: &Observed) -> Option<&Bytes> {
    if let Observed::Received(message) = observed { Some(message) } else { None }
}

fn sent(observed: &Observed) -> Option<&Bytes> {
    if let Observed::Sent(message) = observed { Some(message) } else { None }
}

fn states(observed: &[Observation]) -> Vec<(State, State)> {
    let state =
        |o: &Observation| if let Observed::State { from, to } = o.observed { Some((from, to)) } else { None };
    observed.iter().filter_map(state).collect()
}

#[test]
fn each_message_is_told_whole_on_both_ends_and_each_change_of_state() {
    let mut pair = Pair::new();
    pair.hear(0, Input::Observe(true));
    pair.hear(1, Input::Observe(true));
    pair.configure();
    pair.run(Duration::from_secs(40));
    let [dials, accepts] = &pair.observed;
    for (from, to) in [(dials, accepts), (accepts, dials)] {
        let sent = messages(from, sent);
        assert_eq!(sent, messages(to, received));
        let types: BTreeSet<u8> = sent.iter().map(|message| message[18]).collect();
        assert_eq!(types, BTreeSet::from([1, 2, 4]), "OPEN, UPDATE, KEEPALIVE");
        for message in &sent {
            assert_eq!(usize::from(u16::from_be_bytes([message[16], message[17]])), message.len());
        }
    }
    let up = [
        (State::Idle, State::Connect),
        (State::Connect, State::OpenSent),
        (State::OpenSent, State::OpenConfirm),
        (State::OpenConfirm, State::Established),
    ];
    assert_eq!(states(dials), up);
    let peering = dials.last().unwrap().peering;
    assert_eq!((peering.remote_as, peering.local_as), (Asn(64_501), Asn(64_500)));
    assert_eq!((peering.remote, peering.local), (Some(v4(1).into()), Some(v4(0).into())));

    // The last word belongs to it, and the end.
    pair.observed = <_>::default();
    pair.hear(0, Input::Reset { peer: v4(1).into() });
    let [dials, accepts] = &pair.observed;
    let first = |observed: &[Observation], wanted| messages(observed, wanted).first().map(|m| m[18]);
    assert_eq!((first(dials, sent), first(accepts, received)), (Some(3), Some(3)));
    assert_eq!(states(dials).first().map(|(from, _)| *from), Some(State::Established));
}

#[test]
fn nothing_is_told_to_who_does_not_ask() {
    let mut pair = Pair::new();
    pair.configure();
    pair.run(Duration::from_secs(40));
    assert_eq!(pair.observed, [vec![], vec![]]);
    // Asked for in the middle, it begins in the middle, and ends when it is asked for no more.
    pair.hear(0, Input::Observe(true));
    pair.run(Duration::from_secs(40));
    assert!(messages(&pair.observed[0], received).iter().all(|message| message[18] == 4));
    assert!(!messages(&pair.observed[0], received).is_empty());
    pair.hear(0, Input::Observe(false));
    pair.observed = <_>::default();
    pair.run(Duration::from_secs(90));
    assert_eq!(pair.observed, [vec![], vec![]]);
}

/// The paths of a dump: the places of the peers who told them, by prefix.
fn dumped(octets: &[u8]) -> BTreeMap<IpNet, Vec<u16>> {
    let mut dumped = BTreeMap::new();
    for record in &records(octets)[1..] {
        let (_, prefix, entries) = routes(record);
        let peers = entries.into_iter().map(|(peer, ..)| peer).collect();
        assert_eq!(dumped.insert(prefix, peers), None, "{prefix} twice");
    }
    dumped
}

const FIRST: u32 = 0x1400_0000;

/// Which of the numbered prefixes it is.
fn number(prefix: &IpNet) -> Option<u32> {
    let IpNet::V4(net) = prefix else { return None };
    u32::from(net.addr()).checked_sub(FIRST)
}

/// Announces numbered prefixes.
fn originate(config: &mut SpeakerConfig, range: std::ops::Range<u32>) {
    let prefix = |n: u32| IpNet::new(std::net::Ipv4Addr::from(FIRST + n).into(), 32).unwrap();
    config.originate.extend(range.map(|n| (prefix(n), <_>::default())));
}

#[test]
fn a_table_that_changes_while_it_is_dumped_is_dumped_with_all_that_stays() {
    let mut world = World::new(1);
    let ids = Topology::mesh(3).build(
        &mut world,
        |_| 64_512,
        |n, config| {
            if n == 0 {
                originate(config, 0..3000);
            }
        },
    );
    world.run_until_quiet(LIMIT).unwrap();
    let time = Timestamp { seconds: 1_000_000, microseconds: 0 };
    let mut dump = Dump::new(Instant::now(), time);
    let mut out = BytesMut::new();
    let mut pieces = 1;
    while world.inspect(ids[1]).unwrap().dump(&mut dump, &mut out) {
        pieces += 1;
        // Some go and others come, between any two pieces.
        let mut config = world.inspect(ids[0]).unwrap().config().unwrap().as_ref().clone();
        config.originate.retain(|prefix, _| number(prefix).is_none_or(|n| n % 20 != pieces));
        originate(&mut config, 10_000 * pieces..10_000 * pieces + 500);
        world.configure(ids[0], config);
        world.run_until_quiet(LIMIT).unwrap();
    }
    assert!(pieces > 3, "{pieces}");
    assert_eq!((dump.omitted(), records(&out)[0].time), (0, time.seconds));
    let dumped = dumped(&out);
    // Peers are in the order of their addresses, behind the speaker itself.
    for prefix in prefixes(1) {
        assert_eq!(dumped[&prefix], [0]);
    }
    for (n, peer) in [(0, 1), (2, 2)] {
        prefixes(n).iter().for_each(|prefix| assert_eq!(dumped[prefix], [peer]));
    }
    let stays = world.inspect(ids[0]).unwrap().config().unwrap().originate.clone();
    let from_the_beginning = |prefix: &&IpNet| number(prefix).is_some_and(|n| n < 3000);
    let stayed: Vec<_> = stays.keys().filter(from_the_beginning).collect();
    assert!(stayed.len() > 2000 && stayed.iter().all(|prefix| dumped[*prefix] == [1]));
}
