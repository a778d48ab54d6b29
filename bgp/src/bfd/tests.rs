//! Two endpoints and the network between them, in virtual time.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::packet::{LENGTH, Malformed};
use super::rng::Rng;
use super::*;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn config(interval: u64) -> SessionConfig {
    SessionConfig {
        hops: Hops::Single,
        source: None,
        desired_min_tx_interval: ms(interval),
        required_min_rx_interval: ms(interval),
        detect_mult: 3,
        passive: false,
    }
}

fn address(end: usize) -> IpAddr {
    [10, 0, 0, u8::try_from(end).unwrap()].into()
}

fn remote(end: usize) -> Remote {
    Remote { address: address(end), link: None }
}

/// Ends 0 and 1, a cable that loses and delays packets, and a tape of all that was sent and changed.
struct Bench {
    now: Instant,
    ends: [Endpoint; 2],
    /// When a packet arrives where, in order: none overtakes another.
    flying: VecDeque<(Instant, usize, [u8; LENGTH])>,
    chance: Rng,
    /// Of a hundred packets.
    lost: u32,
    delay: Duration,
    /// Nothing that this end sends arrives.
    mute: [bool; 2],
    ttl: u8,
    sent: Vec<(Instant, usize, Packet)>,
    changes: Vec<(Instant, usize, Change)>,
}

impl Bench {
    #[expect(clippy::disallowed_methods, reason = "any instant will do as the start")]
    fn new(seed: u64) -> Self {
        Self {
            now: Instant::now(),
            ends: [Endpoint::new(seed), Endpoint::new(seed.wrapping_add(1))],
            flying: VecDeque::new(),
            chance: Rng::new(seed ^ 7),
            lost: 0,
            delay: ms(1),
            mute: [false; 2],
            ttl: 255,
            sent: Vec::new(),
            changes: Vec::new(),
        }
    }

    fn with(configs: [SessionConfig; 2]) -> Self {
        let mut bench = Self::new(1);
        (0..2).for_each(|end| bench.configure(end, Some(configs[end])));
        bench
    }

    /// Both ends at 100 ms, and Up.
    fn up() -> Self {
        let mut bench = Self::with([config(100); 2]);
        bench.pass(ms(1500));
        assert_eq!(bench.states(), [State::Up; 2]);
        bench
    }

    fn configure(&mut self, end: usize, config: Option<SessionConfig>) {
        let wanted = config.map(|config| (remote(1 - end), config)).into_iter().collect();
        self.handle(end, Input::Configure(&wanted));
    }

    fn handle(&mut self, end: usize, input: Input<'_>) {
        self.ends[end].handle(self.now, input);
        while let Some(output) = self.ends[end].poll() {
            match output {
                Output::Send { remote: to, bytes, .. } => {
                    assert_eq!(to, remote(1 - end));
                    self.sent.push((
                        self.now,
                        end,
                        Packet::decode(&bytes).expect("what is sent is well-formed"),
                    ));
                    if !self.mute[end] && self.chance.next() % 100 >= self.lost {
                        self.flying.push_back((self.now + self.delay, 1 - end, bytes));
                    }
                }
                Output::Changed { change, .. } => self.changes.push((self.now, end, change)),
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            let arrival = self.flying.front().map(|(at, ..)| *at);
            let tick = self.ends.iter().filter_map(Endpoint::next_deadline).min();
            let Some(at) = arrival.into_iter().chain(tick).min().filter(|at| *at <= until) else { break };
            assert!(at >= self.now, "a deadline in the past would never end");
            self.now = at;
            if arrival == Some(at) {
                let Some((_, end, bytes)) = self.flying.pop_front() else { continue };
                let arrived = Arrived { source: address(1 - end), link: 2, ttl: self.ttl, multihop: false };
                self.handle(end, Input::Packet { arrived, bytes: &bytes });
            } else {
                (0..2).for_each(|end| self.handle(end, Input::Tick));
            }
        }
        self.now = until;
    }

    fn status(&self, end: usize) -> SessionStatus {
        self.ends[end].sessions()[&remote(1 - end)]
    }

    fn states(&self) -> [State; 2] {
        [0, 1].map(|end| self.status(end).state)
    }

    fn failures(&self) -> usize {
        self.changes.iter().filter(|(.., change)| change.failed).count()
    }

    /// A packet to end 0, as if from end 1.
    fn forge(&mut self, arrived: Arrived, packet: &Packet) {
        self.handle(0, Input::Packet { arrived, bytes: &packet.encode() });
    }

    /// The last packet of an end's.
    fn last(&self, end: usize) -> Packet {
        self.sent.iter().rfind(|(_, by, _)| *by == end).expect("it has sent something").2
    }
}

const FROM_PEER: Arrived =
    Arrived { source: IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)), link: 2, ttl: 255, multihop: false };

/// Proves RFC 5880.
#[test]
fn rfc5880_three_way_handshake_is_as_fast_as_the_path_and_slow_before() {
    let mut bench = Bench::new(1);
    bench.configure(0, Some(config(100)));
    bench.pass(ms(10_000));
    let alone = bench.sent.len();
    assert!((10..=14).contains(&alone), "one packet a second until Up: {alone}");
    bench.configure(1, Some(config(100)));
    bench.pass(ms(10));
    assert_eq!(bench.states(), [State::Up; 2]);
    assert_eq!(bench.failures(), 0);
}

/// Proves RFC 5880.
#[test]
fn rfc5880_intervals_are_negotiated_and_jittered() {
    let mut slow = config(300);
    slow.detect_mult = 5;
    let mut bench = Bench::with([config(100), slow]);
    bench.pass(ms(3000));
    // Each sends as often as it wants and the other can take.
    for end in 0..2 {
        assert_eq!(bench.status(end).transmit_interval, Some(ms(300)));
    }
    assert_eq!(bench.status(0).detection_time, Some(ms(1500)));
    assert_eq!(bench.status(1).detection_time, Some(ms(900)));
    bench.sent.clear();
    bench.pass(ms(30_000));
    let times: Vec<_> = bench.sent.iter().filter(|(_, end, _)| *end == 0).map(|(at, ..)| *at).collect();
    let gaps: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.iter().all(|gap| (ms(225)..=ms(300)).contains(gap)), "{gaps:?}");
    assert!(
        gaps.iter().max().unwrap().saturating_sub(*gaps.iter().min().unwrap()) > ms(40),
        "no jitter: {gaps:?}"
    );
    assert!(bench.sent.iter().all(|(.., packet)| !packet.poll && !packet.final_));
}

/// Proves RFC 5880.
#[test]
fn rfc5880_a_detect_mult_of_one_leaves_room_for_the_path() {
    let mut alone = config(100);
    alone.detect_mult = 1;
    let mut bench = Bench::with([alone; 2]);
    bench.pass(ms(2000));
    bench.sent.clear();
    bench.pass(ms(10_000));
    assert_eq!((bench.states(), bench.failures()), ([State::Up; 2], 0));
    let times: Vec<_> = bench.sent.iter().filter(|(_, end, _)| *end == 0).map(|(at, ..)| *at).collect();
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] <= ms(90)));
}

/// Proves RFC 5880.
#[test]
fn rfc5880_silence_is_noticed_after_the_detection_time_and_told() {
    let mut bench = Bench::up();
    bench.mute = [true, false];
    let cut = bench.now;
    bench.pass(ms(1000));
    let (at, _, change) = *bench.changes.iter().find(|(_, end, change)| *end == 1 && change.failed).unwrap();
    assert_eq!(change.diagnostic, Diagnostic::CONTROL_DETECTION_TIME_EXPIRED);
    assert!((ms(199)..=ms(301)).contains(&(at - cut)), "{:?}", at - cut);
    // The end that is not heard still hears, and is told.
    let (told, _, change) =
        *bench.changes.iter().find(|(_, end, change)| *end == 0 && change.failed).unwrap();
    assert_eq!(change.diagnostic, Diagnostic::NEIGHBOR_SIGNALED_SESSION_DOWN);
    assert!(told - at <= ms(2), "{:?}", told - at);
    bench.mute = [false; 2];
    bench.pass(ms(3000));
    assert_eq!((bench.states(), bench.failures()), ([State::Up; 2], 2));
}

/// Proves RFC 5880.
#[test]
fn rfc5880_a_change_of_intervals_is_polled_for_without_a_flap() {
    for (from, to) in [(100, 20), (20, 100), (100, 2000)] {
        let mut bench = Bench::with([config(from); 2]);
        bench.pass(ms(6000));
        bench.sent.clear();
        bench.configure(0, Some(config(to)));
        bench.pass(ms(10_000));
        assert_eq!((bench.states(), bench.failures()), ([State::Up; 2], 0), "{from} to {to}");
        let polls = bench.sent.iter().filter(|(_, end, packet)| *end == 0 && packet.poll).count();
        let finals = bench.sent.iter().filter(|(_, end, packet)| *end == 1 && packet.final_).count();
        assert!(polls >= 1 && finals >= 1 && !bench.last(0).poll, "{polls} polls, {finals} answers");
        let agreed = ms(from.max(to));
        assert_eq!(bench.status(0).transmit_interval, Some(agreed));
        assert_eq!(bench.status(0).detection_time, Some(agreed * 3));
    }
}

/// Proves RFC 5880.
#[test]
fn rfc5880_less_is_sent_and_expected_only_once_the_poll_is_answered() {
    let mut bench = Bench::up();
    bench.mute = [true, false];
    bench.configure(0, Some(config(500)));
    // Nobody has answered: the other end still expects a packet each 100 ms.
    assert_eq!(bench.status(0).transmit_interval, Some(ms(100)));
    assert!(bench.last(0).poll && bench.last(0).desired_min_tx_interval == 500_000);
    bench.mute = [false; 2];
    bench.pass(ms(200));
    assert_eq!(bench.status(0).transmit_interval, Some(ms(500)));
    bench.mute = [true, false];
    bench.configure(0, Some(config(50)));
    assert_eq!(bench.status(0).detection_time, Some(ms(1500)), "more is not expected before it is promised");
}

/// Proves RFC 5880.
#[test]
fn rfc5880_a_poll_that_is_overtaken_by_another_change_is_repeated() {
    let mut bench = Bench::up();
    bench.configure(0, Some(config(500)));
    bench.pass(ms(1));
    bench.configure(0, Some(config(700)));
    bench.pass(ms(1));
    assert_eq!(bench.status(0).transmit_interval, Some(ms(100)), "the answer may be to the first");
    bench.pass(ms(200));
    assert_eq!(bench.status(0).transmit_interval, Some(ms(700)));
    assert_eq!(bench.failures(), 0);
}

/// Proves RFC 5880.
#[test]
fn rfc5880_admin_down_is_no_failure() {
    let mut bench = Bench::up();
    bench.handle(0, Input::Stop);
    bench.pass(ms(10));
    let (.., change) = bench.changes.iter().rfind(|(_, end, _)| *end == 1).unwrap();
    assert_eq!((change.state, change.failed), (State::Down, false));
    assert_eq!(bench.last(0).state, State::AdminDown);
    assert_eq!(bench.last(0).diagnostic, Diagnostic::ADMINISTRATIVELY_DOWN);
    bench.configure(0, Some(config(100)));
    bench.pass(ms(5000));
    assert_eq!(bench.failures(), 0);
    assert_eq!(bench.status(0).state, State::AdminDown, "who has stopped stays so");
}

#[test]
fn a_session_that_nobody_wants_says_so_and_is_gone_after_the_detection_time() {
    let mut bench = Bench::up();
    bench.configure(0, None);
    assert!(bench.ends[0].sessions().is_empty() && bench.ends[0].has(&remote(1)));
    bench.pass(ms(2000));
    assert_eq!((bench.status(1).state, bench.failures()), (State::Down, 0));
    bench.pass(ms(2000));
    assert!(!bench.ends[0].has(&remote(1)));
    bench.configure(0, Some(config(100)));
    bench.pass(ms(2000));
    assert_eq!((bench.states(), bench.failures()), ([State::Up; 2], 0));
    // And one that is wanted again while it leaves comes back.
    bench.configure(0, None);
    bench.configure(0, Some(config(100)));
    bench.pass(ms(2000));
    assert_eq!((bench.states(), bench.failures()), ([State::Up; 2], 0));
}

#[test]
fn a_session_that_is_to_be_multihop_ends_as_one_that_nobody_wants_and_begins_anew() {
    let mut bench = Bench::up();
    let before = bench.status(0);
    let multihop = SessionConfig { hops: Hops::Multi { minimum_ttl: 0 }, ..config(100) };
    bench.configure(0, Some(multihop));
    bench.pass(ms(100));
    assert_eq!(bench.last(0).state, State::AdminDown);
    assert_eq!(bench.last(0).my_discriminator, before.local_discriminator);
    assert_eq!((bench.status(1).state, bench.failures()), (State::Down, 0));
    // Nobody may take it for the old one before that has been told.
    assert!(bench.ends[0].sessions().is_empty());
    bench.pass(ms(300));
    let after = bench.status(0);
    assert_eq!((after.config, after.state), (multihop, State::Down));
    assert_ne!(after.local_discriminator, before.local_discriminator);
    // And back, and forth before that was told.
    bench.configure(0, Some(config(100)));
    bench.configure(0, Some(multihop));
    assert_eq!(bench.status(0).local_discriminator, after.local_discriminator);
}

/// Proves RFC 5880.
#[test]
fn rfc5880_a_passive_end_waits_to_be_called() {
    let passive = SessionConfig { passive: true, ..config(100) };
    let mut bench = Bench::with([passive; 2]);
    bench.pass(ms(10_000));
    assert!(bench.sent.is_empty());
    bench.configure(1, Some(config(100)));
    bench.pass(ms(2000));
    assert_eq!(bench.states(), [State::Up; 2]);
    bench.mute = [false, true];
    bench.pass(ms(2000));
    bench.sent.clear();
    bench.pass(ms(5000));
    assert!(bench.sent.iter().all(|(_, end, _)| *end == 1), "it has forgotten whom it heard");
}

/// Proves RFC 5880.
#[test]
fn rfc5880_demand_mode_of_the_other_end_is_respected_and_its_polls_answered() {
    let mut bench = Bench::up();
    let quiet = Packet { demand: true, ..bench.last(1) };
    bench.forge(FROM_PEER, &quiet);
    bench.mute = [false, true];
    assert_eq!(bench.status(0).transmit_interval, None);
    bench.sent.clear();
    bench.forge(FROM_PEER, &Packet { poll: true, ..quiet });
    let answers: Vec<_> = bench.sent.iter().filter(|(_, end, _)| *end == 0).collect();
    assert_eq!(answers.len(), 1);
    assert!(answers[0].2.final_ && !answers[0].2.poll);
}

/// Proves RFC 5880.
#[test]
fn rfc5880_who_wants_no_packets_gets_none() {
    let mut bench = Bench::up();
    let deaf = Packet { required_min_rx_interval: 0, ..bench.last(1) };
    bench.forge(FROM_PEER, &deaf);
    assert_eq!(bench.status(0).transmit_interval, None);
}

#[test]
fn a_peer_that_starts_anew_is_noticed_at_once_and_the_path_is_not_to_blame() {
    let mut bench = Bench::up();
    bench.ends[1] = Endpoint::new(99);
    bench.configure(1, Some(config(100)));
    bench.pass(ms(5));
    assert!(bench.changes.iter().any(|(_, end, change)| *end == 0 && change.state == State::Down));
    bench.pass(ms(3000));
    assert_eq!((bench.states(), bench.failures()), ([State::Up; 2], 0));
}

/// End 1's process dies and another takes over, after this time.
fn taken_over_after(time: Duration) -> Bench {
    let mut bench = Bench::up();
    let sessions = [(remote(0), bench.ends[1].resumption(&remote(0)).expect("it is Up"))].into();
    bench.ends[1] = Endpoint::new(99);
    bench.pass(time);
    bench.changes.clear();
    bench.handle(1, Input::Resume(sessions));
    bench.configure(1, Some(config(100)));
    bench
}

#[test]
fn a_process_that_takes_over_in_time_goes_on_with_the_session() {
    let mut bench = taken_over_after(ms(150));
    assert_eq!(bench.ends[1].resumption(&remote(0)), None, "it is to be confirmed");
    bench.pass(ms(3000));
    let all: Vec<_> =
        bench.changes.iter().map(|(_, end, change)| (*end, change.state, change.failed)).collect();
    assert_eq!(all, [(1, State::Up, false)], "the other end has noticed nothing");
    assert!(bench.ends[1].resumption(&remote(0)).is_some());
    assert_eq!(bench.status(1).transmit_interval, Some(ms(100)));
    bench.mute = [true; 2];
    bench.pass(ms(400));
    assert_eq!(bench.failures(), 2, "what is confirmed can fail");
}

#[test]
fn a_process_that_takes_over_too_late_begins_anew_and_blames_nobody() {
    let mut bench = taken_over_after(ms(900));
    bench.pass(ms(5000));
    assert_eq!((bench.states(), bench.failures()), ([State::Up; 2], 0));
    // Nor if nobody is there any more.
    let mut bench = taken_over_after(ms(150));
    bench.mute = [true; 2];
    bench.pass(ms(5000));
    assert_eq!(bench.states(), [State::Down; 2]);
    assert!(bench.changes.iter().all(|(_, end, change)| *end == 0 || !change.failed));
}

/// Proves RFC 5881.
#[test]
fn rfc5881_what_has_passed_a_router_is_not_believed() {
    let mut bench = Bench::with([config(100); 2]);
    bench.ttl = 254;
    bench.pass(ms(3000));
    assert_eq!(bench.states(), [State::Down; 2]);
    assert!(bench.ends[0].discards().ttl >= 2);
}

/// Proves RFC 5883.
#[test]
fn rfc5883_multihop_goes_by_the_minimum_ttl_and_by_its_port() {
    let hops = Hops::Multi { minimum_ttl: 250 };
    let mut bench = Bench::new(1);
    bench.configure(0, Some(SessionConfig { hops, ..config(100) }));
    let hello = Packet { state: State::Down, my_discriminator: 5, your_discriminator: 0, ..bench.last(0) };
    for (ttl, multihop) in [(249, true), (255, false)] {
        bench.forge(Arrived { ttl, multihop, ..FROM_PEER }, &hello);
        assert_eq!(bench.status(0).state, State::Down);
    }
    let discards = bench.ends[0].discards();
    assert_eq!((discards.ttl, discards.unknown), (1, 1));
    bench.forge(Arrived { ttl: 250, multihop: true, ..FROM_PEER }, &hello);
    assert_eq!(bench.status(0).state, State::Init);
}

/// Proves RFC 5880.
#[test]
fn rfc5880_packets_of_nobody_and_with_authentication_are_discarded() {
    let mut bench = Bench::up();
    let good = bench.last(1);
    bench.forge(FROM_PEER, &Packet { your_discriminator: good.your_discriminator ^ 1, ..good });
    bench.forge(Arrived { source: address(9), ..FROM_PEER }, &good);
    let mut sealed = good.encode().to_vec();
    sealed[1] |= 1 << 2;
    sealed[3] = 28;
    sealed.extend([1, 4, 0, b'x']);
    assert_eq!(Packet::decode(&sealed).unwrap().authentication.map(|a| (a.kind, a.length)), Some((1, 4)));
    bench.handle(0, Input::Packet { arrived: FROM_PEER, bytes: &sealed });
    let received = bench.status(0).counters.received;
    bench.forge(FROM_PEER, &good);
    assert_eq!(bench.status(0).counters.received, received + 1, "the others did not count");
    let expected = Discards { unknown: 2, authenticated: 1, ..Discards::default() };
    assert_eq!(bench.ends[0].discards(), expected);
}

/// Proves RFC 5880.
#[test]
fn rfc5880_link_local_neighbours_are_told_apart_by_their_links() {
    let address: IpAddr = "fe80::1".parse().unwrap();
    let remotes = [2, 3].map(|link| Remote { address, link: Some(link) });
    let wanted: BTreeMap<_, _> = remotes.map(|remote| (remote, config(100))).into();
    let mut bench = Bench::new(1);
    let mut end = Endpoint::new(5);
    end.handle(bench.now, Input::Configure(&wanted));
    bench.configure(0, Some(config(100)));
    let hello = Packet { my_discriminator: 5, ..bench.last(0) };
    let arrived = Arrived { source: address, link: 3, ttl: 255, multihop: false };
    end.handle(bench.now, Input::Packet { arrived, bytes: &hello.encode() });
    assert_eq!(remotes.map(|remote| end.sessions()[&remote].state), [State::Down, State::Init]);
}

/// Proves RFC 5880 6.8.6.
#[test]
fn rfc5880_6_8_6_malformed_packets_by_name() {
    let bench = Bench::up();
    let good = bench.last(0).encode();
    let bad = |index: usize, octet: u8| {
        let mut bytes = good;
        bytes[index] = octet;
        Packet::decode(&bytes).unwrap_err()
    };
    assert_eq!(Packet::decode(&good[..23]), Err(Malformed::Short));
    assert_eq!(bad(0, 2 << 5), Malformed::Version(2));
    assert_eq!(bad(3, 23), Malformed::Length(23));
    assert_eq!(bad(3, 25), Malformed::Length(25));
    assert_eq!(bad(1, good[1] | 1 << 2), Malformed::Length(24), "authentication takes two octets at least");
    assert_eq!(bad(2, 0), Malformed::DetectMult);
    assert_eq!(bad(1, good[1] | 1), Malformed::Multipoint);
    let nobody = |range: std::ops::Range<usize>| {
        let mut bytes = good;
        bytes[range].fill(0);
        Packet::decode(&bytes).unwrap_err()
    };
    assert_eq!(nobody(4..8), Malformed::MyDiscriminator);
    assert_eq!(nobody(8..12), Malformed::YourDiscriminator(State::Up));
    let mut sealed = good.to_vec();
    sealed[1] |= 1 << 2;
    sealed[3] = 26;
    sealed.extend([1, 3]);
    assert_eq!(Packet::decode(&sealed), Err(Malformed::Authentication));
}

/// The layout of RFC 5880 section 4.1, octet by octet.
/// Proves RFC 5880 4.1.
#[test]
fn rfc5880_4_1_packet_layout() {
    let packet = Packet {
        diagnostic: Diagnostic::NEIGHBOR_SIGNALED_SESSION_DOWN,
        state: State::Init,
        poll: true,
        final_: false,
        control_plane_independent: false,
        authentication: None,
        demand: false,
        detect_mult: 3,
        my_discriminator: 0x0102_0304,
        your_discriminator: 0x0506_0708,
        desired_min_tx_interval: 1_000_000,
        required_min_rx_interval: 300_000,
        required_min_echo_rx_interval: 0,
    };
    let bytes =
        [0x23, 0xa0, 3, 24, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0x0f, 0x42, 0x40, 0, 0x04, 0x93, 0xe0, 0, 0, 0, 0];
    assert_eq!(packet.encode(), bytes);
    assert_eq!(Packet::decode(&bytes), Ok(packet));
}

fn any_packet() -> impl Strategy<Value = Packet> {
    let states = prop_oneof![Just(State::AdminDown), Just(State::Down), Just(State::Init), Just(State::Up)];
    (states, 0..32u8, any::<[bool; 4]>(), 1..=255u8, any::<[u32; 5]>()).prop_map(
        |(state, diagnostic, [poll, final_, cpi, demand], detect_mult, [mine, yours, tx, rx, echo])| Packet {
            diagnostic: Diagnostic(diagnostic),
            state,
            poll,
            final_,
            control_plane_independent: cpi,
            authentication: None,
            demand,
            detect_mult,
            my_discriminator: mine.max(1),
            your_discriminator: yours.max(1),
            desired_min_tx_interval: tx,
            required_min_rx_interval: rx,
            required_min_echo_rx_interval: echo,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read(packet in any_packet()) {
        prop_assert_eq!(Packet::decode(&packet.encode()), Ok(packet));
    }

    /// Whatever comes, as bytes or as packets that make sense one by one, nothing panics, and a session that is left alone with an honest
    /// peer afterwards comes Up.
    #[test]
    fn hostile_packets_do_no_lasting_harm(
        junk in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..20),
        forged in prop::collection::vec((any_packet(), any::<bool>(), 0..1000u64), 0..20),
    ) {
        let mut bench = Bench::up();
        for bytes in &junk {
            bench.handle(0, Input::Packet { arrived: FROM_PEER, bytes });
        }
        for (packet, knows, pause) in forged {
            let your_discriminator = if knows { bench.status(0).local_discriminator } else { packet.your_discriminator };
            // A forged packet may ask for a detection time of hours: here for seconds, which are over at the end.
            let desired_min_tx_interval = packet.desired_min_tx_interval % 2_000_000;
            let detect_mult = packet.detect_mult % 5 + 1;
            bench.forge(FROM_PEER, &Packet { your_discriminator, desired_min_tx_interval, detect_mult, ..packet });
            bench.pass(ms(pause));
        }
        bench.pass(ms(20_000));
        prop_assert_eq!(bench.states(), [State::Up; 2]);
    }

    #[test]
    fn over_a_lossy_path_sessions_come_up_and_notice_the_end_in_time(
        seed in any::<u64>(), lost in 0..30u32, delay in 0..40u64,
        mine in 10..400u64, theirs in 10..400u64, mult in 3..8u8,
    ) {
        let mut bench = Bench::new(seed);
        (bench.lost, bench.delay) = (lost, ms(delay));
        bench.configure(0, Some(SessionConfig { detect_mult: mult, ..config(mine) }));
        bench.configure(1, Some(SessionConfig { detect_mult: mult, ..config(theirs) }));
        bench.pass(ms(20_000));
        bench.lost = 0;
        bench.pass(ms(8000));
        prop_assert_eq!(bench.states(), [State::Up; 2]);
        bench.changes.clear();
        bench.pass(ms(5000));
        prop_assert!(bench.changes.is_empty(), "it flaps: {:?}", bench.changes);
        let agreed = ms(mine.max(theirs));
        for end in 0..2 {
            prop_assert_eq!(bench.status(end).detection_time, Some(agreed * u32::from(mult)));
        }
        bench.mute = [true; 2];
        let cut = bench.now;
        let limit = agreed * u32::from(mult) + ms(delay + 1);
        bench.pass(limit);
        prop_assert_eq!(bench.states(), [State::Down; 2]);
        prop_assert!(bench.changes.iter().all(|(at, ..)| *at - cut <= limit));
    }

    /// Any change of the intervals, at any moment, over a path that loses nothing: no flap, and both ends agree.
    #[test]
    fn any_reconfiguration_is_without_a_flap(
        seed in any::<u64>(),
        steps in prop::collection::vec((0..2usize, 10..1500u64, 10..1500u64, 3..6u8, 0..1500u64), 1..12),
    ) {
        let mut bench = Bench::new(seed);
        let mut configs = [config(100); 2];
        (0..2).for_each(|end| bench.configure(end, Some(configs[end])));
        bench.pass(ms(3000));
        for (end, tx, rx, detect_mult, pause) in steps {
            configs[end] = SessionConfig {
                desired_min_tx_interval: ms(tx), required_min_rx_interval: ms(rx), detect_mult, ..config(100)
            };
            bench.configure(end, Some(configs[end]));
            bench.pass(ms(pause));
        }
        bench.pass(ms(10_000));
        prop_assert_eq!((bench.states(), bench.failures()), ([State::Up; 2], 0));
        for end in 0..2 {
            let [own, other] = [configs[end], configs[1 - end]];
            let interval = own.desired_min_tx_interval.max(other.required_min_rx_interval);
            prop_assert_eq!(bench.status(end).transmit_interval, Some(interval));
        }
    }
}
