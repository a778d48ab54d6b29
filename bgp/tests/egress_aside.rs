//! A speaker whose UPDATEs are packed on another thread tells its peers what one tells that does all by itself.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

#[path = "../benches/load/mod.rs"]
mod load;

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use load::{Peer, UPDATE, bodies, configuration, mandatory, message, nlri, node_prefixes};
use proptest::prelude::*;
use weft_bgp::egress::CREDIT;
use weft_bgp::speaker::{Input, Output, Resolution, Speaker, SpeakerStart};
use weft_bgp::types::ConnectionId;

/// Prefixes of one step: enough that the other thread is worth waking.
const MANY: u32 = 1000;
const PEERS: u16 = 4;
/// How long two speakers may take to tell the same.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Clone, Debug)]
enum Step {
    /// A peer announces a range of prefixes with so long an AS path.
    Announce {
        peer: u16,
        range: u16,
        path: usize,
    },
    Withdraw {
        peer: u16,
        range: u16,
    },
    /// A peer comes, late.
    Come(u16),
    /// A peer goes for good.
    Go(u16),
    /// What has been written has left.
    Leave,
}

/// What a peer has been told: by prefix, the attributes, both as they are on the wire.
type Told = BTreeMap<Vec<u8>, Vec<u8>>;

/// A speaker whose connections take nothing before [`Step::Leave`].
struct Node {
    speaker: Speaker,
    now: Instant,
    written: BTreeMap<ConnectionId, Vec<u8>>,
    waiting: VecDeque<(ConnectionId, usize)>,
    helper: Option<(Receiver<()>, JoinHandle<()>)>,
}

impl Node {
    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn new(helped: bool) -> Self {
        let mut speaker = Speaker::new(SpeakerStart::default());
        let helper = helped.then(|| {
            let (woken, wakes) = channel();
            // Whoever is woken may be gone.
            let help = speaker.help(move || {
                let _ = woken.send(());
            });
            (wakes, std::thread::spawn(help))
        });
        let mut node =
            Self { speaker, now: Instant::now(), written: BTreeMap::new(), waiting: VecDeque::new(), helper };
        let peers: Vec<Peer> = (0..PEERS).map(Peer::external).collect();
        node.feed(Input::Configure(configuration(&peers)));
        node.step(&Step::Come(0));
        node.step(&Step::Come(1));
        node
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Announce { peer, range, path } => {
                let peer = Peer::external(peer);
                let attributes = mandatory(&vec![peer.asn; path + 1], peer.next_hop());
                self.update(peer, range, |nlri| {
                    let length = u16::try_from(attributes.len()).unwrap().to_be_bytes();
                    [&[0, 0], &length[..], &attributes, nlri].concat()
                });
            }
            Step::Withdraw { peer, range } => self.update(Peer::external(peer), range, |nlri| {
                [&u16::try_from(nlri.len()).unwrap().to_be_bytes()[..], nlri, &[0, 0]].concat()
            }),
            Step::Come(peer) => {
                let peer = Peer::external(peer);
                let local = SocketAddr::new(Ipv4Addr::new(172, 30, 255, 254).into(), 179);
                let (connection, remote) = (peer.connection(), SocketAddr::new(peer.address(), 40_000));
                self.feed(Input::Accepted { connection, local, remote });
                self.feed(Input::Bytes { connection, bytes: peer.greeting().into() });
            }
            Step::Go(peer) => {
                let connection = Peer::external(peer).connection();
                self.feed(Input::Closed { connection, error: None });
            }
            Step::Leave => {
                for (connection, bytes) in std::mem::take(&mut self.waiting) {
                    self.feed(Input::Written { connection, bytes });
                }
            }
        }
    }

    fn update(&mut self, peer: Peer, range: u16, body: impl Fn(&[u8]) -> Vec<u8>) {
        let prefixes = node_prefixes(range, MANY);
        let messages = prefixes.chunks(500).flat_map(|prefixes| {
            let nlri: Vec<u8> = prefixes.iter().flat_map(nlri).collect();
            message(UPDATE, &body(&nlri))
        });
        let (connection, bytes) = (peer.connection(), Bytes::from_iter(messages));
        self.feed(Input::Bytes { connection, bytes });
    }

    fn feed(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            self.speaker.handle(self.now, input);
            while let Some(output) = self.speaker.poll() {
                match output {
                    Output::Write { connection, bytes } => {
                        self.written.entry(connection).or_default().extend(&bytes);
                        self.waiting.push_back((connection, bytes.len()));
                    }
                    Output::TrackNextHop(next_hop) => {
                        inputs.push_back(Input::NextHops(vec![(next_hop, Resolution::OnLink)]));
                    }
                    _ => {}
                }
            }
        }
    }

    fn told(&self, peer: u16) -> Told {
        let mut told = Told::new();
        let written = self.written.get(&Peer::external(peer).connection());
        for body in bodies(written.map_or(&[], Vec::as_slice)) {
            // OPEN and KEEPALIVE are shorter than an UPDATE, or do not add up to one.
            let Some((withdrawn, rest)) = counted(body) else { continue };
            let Some((attributes, announced)) = counted(rest) else { continue };
            split(withdrawn).for_each(|prefix| drop(told.remove(prefix)));
            told.extend(split(announced).map(|prefix| (prefix.to_vec(), attributes.to_vec())));
        }
        told
    }

    /// Lets everything leave until peers have been told that.
    fn settle(&mut self, expected: &[Told]) {
        let told = |node: &Self| (0..PEERS).map(|peer| node.told(peer)).collect::<Vec<_>>();
        let (mut left, began) = (PATIENCE, std::time::SystemTime::now());
        while told(self) != expected {
            self.step(&Step::Leave);
            let woken = self.helper.as_ref().map(|(wakes, _)| wakes.recv_timeout(left));
            let woken = woken.is_some_and(|woken| woken.is_ok());
            assert!(woken || told(self) == expected, "awaited: both speakers tell the same");
            self.feed(Input::Packed);
            left = PATIENCE.saturating_sub(began.elapsed().unwrap_or_default());
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.speaker.dismiss();
        if let Some((_, thread)) = self.helper.take() {
            thread.join().unwrap();
        }
    }
}

/// What has its length before it in two octets, and what follows.
fn counted(octets: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = octets.split_first_chunk::<2>()?;
    rest.split_at_checked(u16::from_be_bytes(*length).into())
}

fn split(mut nlri: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = usize::from(*nlri.first()?).div_ceil(8) + 1;
        let (prefix, rest) = nlri.split_at_checked(length)?;
        nlri = rest;
        Some(prefix)
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (injector, range) = (0..2_u16, 0..3_u16);
    let announce = (injector.clone(), range.clone(), 0..3_usize)
        .prop_map(|(peer, range, path)| Step::Announce { peer, range, path });
    let withdraw = (injector.clone(), range).prop_map(|(peer, range)| Step::Withdraw { peer, range });
    let others = prop_oneof![
        6 => announce,
        2 => withdraw,
        2 => Just(Step::Leave),
        1 => injector.prop_map(Step::Go),
        1 => (2..PEERS).prop_map(Step::Come),
    ];
    prop::collection::vec(others, 1..12)
}

/// A table that goes is longer than what a peer may have before it: it is told more of it as it takes it, and not when all is decided.
#[test]
fn who_takes_what_he_is_told_of_anothers_end_is_told_more_while_the_rest_is_decided() {
    const RANGES: u16 = 70;
    let mut node = Node::new(false);
    for range in 0..RANGES {
        node.step(&Step::Announce { peer: 0, range, path: 1 });
        node.step(&Step::Leave);
    }
    while !node.waiting.is_empty() {
        node.step(&Step::Leave);
    }
    assert_eq!(node.told(1).len(), usize::from(RANGES) * MANY as usize);

    let (gone, reader) = (Peer::external(0).connection(), Peer::external(1).connection());
    node.speaker.handle(node.now, Input::Closed { connection: gone, error: None });
    let mut early = 0;
    while let Some(output) = node.speaker.poll() {
        let Output::Write { connection, bytes } = output else { continue };
        assert_eq!(connection, reader);
        node.written.entry(connection).or_default().extend(&bytes);
        if node.speaker.is_settling() {
            early += bytes.len();
            node.speaker.handle(node.now, Input::Written { connection, bytes: bytes.len() });
        }
    }
    assert!(early > CREDIT, "{early} octets were told before all was decided");
    assert_eq!(node.told(1).len(), 0, "all of it goes");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whoever comes, goes, tells or reads when.
    #[test]
    fn peers_are_told_the_same(steps in steps()) {
        let (mut alone, mut helped) = (Node::new(false), Node::new(true));
        for step in &steps {
            alone.step(step);
            helped.step(step);
        }
        // Alone, all has left once nothing waits any more.
        while !alone.waiting.is_empty() {
            alone.step(&Step::Leave);
        }
        let expected: Vec<Told> = (0..PEERS).map(|peer| alone.told(peer)).collect();
        // Of a peer that has gone, one may have heard more than the other before.
        let gone = |peer: &u16| steps.iter().any(|step| matches!(step, Step::Go(gone) if gone == peer));
        let mut expected = expected;
        for peer in (0..PEERS).filter(gone) {
            expected[usize::from(peer)] = helped.told(peer);
        }
        helped.settle(&expected);
    }
}
