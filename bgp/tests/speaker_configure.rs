//! A speaker is configured by value: what did not change is not touched, and what changed is what peers see.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::disallowed_methods, reason = "a test")]

mod sim_support;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ipnet::IpNet;
use proptest::prelude::*;
use sim_support::{LIMIT, Topology, established, prefixes, routes, speaker, v4};
use weft_bgp::config::{PeerConfig, SpeakerConfig};
use weft_bgp::policy::{Policy, Verdict};
use weft_bgp::session::State;
use weft_bgp::sim::{SpeakerId, World};
use weft_bgp::speaker::{EventKind, Input, Output, Refresh, Resolution, Speaker, SpeakerStart};
use weft_bgp::status::PeerStatus;
use weft_bgp::types::{ConnectionId, Family, PeerAddress, Reason};
use weft_bgp::wire::Message;
use weft_bgp::wire::capability::Capability;
use weft_bgp::wire::open::Open;

/// A settled mesh of three in one AS.
fn mesh() -> (World, Vec<SpeakerId>) {
    let mut world = World::new(1);
    let ids = Topology::mesh(3).build(&mut world, |_| 64512, |_, _| {});
    world.run_until_quiet(LIMIT).unwrap();
    (world, ids)
}

fn config(world: &World, id: SpeakerId) -> SpeakerConfig {
    world.inspect(id).unwrap().config().unwrap().as_ref().clone()
}

fn status(world: &World, id: SpeakerId, peer: usize) -> PeerStatus {
    world.inspect(id).unwrap().peer(v4(peer).into()).unwrap()
}

/// Changes one speaker's view of one peer.
fn change_peer(world: &mut World, id: SpeakerId, peer: usize, change: impl FnOnce(&mut PeerConfig)) {
    let mut config = config(world, id);
    change(Arc::make_mut(config.peers.get_mut(&v4(peer).into()).unwrap()));
    world.configure(id, config);
    world.run_until_quiet(LIMIT).unwrap();
}

#[test]
fn a_peer_that_is_removed_is_told_and_the_others_are_not_touched() {
    let (mut world, ids) = mesh();
    let before = status(&world, ids[0], 2);
    let whole = config(&world, ids[0]);
    let mut without = whole.clone();
    without.peers.remove(&v4(1).into());
    world.configure(ids[0], without);
    world.run_for(Duration::from_millis(100)).unwrap();
    let error = status(&world, ids[1], 0).last_error.unwrap();
    assert_eq!((error.code, error.subcode), (Some(6), Some(9)), "{error:?}");
    assert_eq!(error.text, "Cease/Hard Reset: Cease/Peer De-configured");
    world.run_until_quiet(LIMIT).unwrap();

    assert!(world.inspect(ids[0]).unwrap().peer(v4(1).into()).is_none());
    assert!(prefixes(1).iter().all(|prefix| !world.kernel(ids[0]).contains_key(prefix)));
    assert!(world.inspect(ids[0]).unwrap().counters().unknown_peer > 0, "it dials on");
    let after = status(&world, ids[0], 2);
    assert_eq!((after.id, after.since, after.counters.flaps), (before.id, before.since, 0));

    let first = world.inspect(ids[0]).unwrap().peers().iter().map(|p| p.id).max().unwrap();
    world.configure(ids[0], whole);
    world.run_until_quiet(LIMIT).unwrap();
    assert!(status(&world, ids[0], 1).id > first, "a number is used once");
    world.run_for(Duration::from_secs(120)).unwrap();
    assert_eq!(established(&world, ids[0]), 2);
}

#[test]
fn policies_change_routes_and_no_session() {
    let (mut world, ids) = mesh();
    let nothing = Arc::new(Policy { rules: Vec::new(), unmatched: Reason::new("closed", "nothing passes") });
    let everything = config(&world, ids[0]).peers[&v4(1).into()].export.clone();
    assert!(everything.rules.iter().all(|rule| rule.verdict == Verdict::Accept));

    change_peer(&mut world, ids[0], 1, |peer| peer.export = nothing.clone());
    assert!(!world.kernel(ids[1]).contains_key(&prefixes(0)[0]) && world.kernel(ids[2]).len() == 4);
    change_peer(&mut world, ids[0], 1, |peer| peer.import = nothing);
    assert!(!world.kernel(ids[0]).contains_key(&prefixes(1)[0]));
    let families = status(&world, ids[0], 1).families;
    assert!(families.iter().all(|f| (f.received, f.accepted, f.advertised) == (1, 0, 0)), "{families:?}");
    change_peer(&mut world, ids[0], 1, |peer| {
        peer.import = everything.clone();
        peer.export = everything;
        peer.name = "renamed".into();
    });
    assert_eq!(world.kernel(ids[0]).len() + world.kernel(ids[1]).len(), 8);
    let families = status(&world, ids[0], 1).families;
    assert!(families.iter().all(|f| (f.received, f.accepted, f.advertised) == (1, 1, 1)), "{families:?}");
    assert!((0..3).all(|n| established(&world, ids[n]) == 2));
    assert!([(0, 1), (0, 2), (1, 0)].iter().all(|(n, m)| status(&world, ids[*n], *m).counters.flaps == 0));
}

#[test]
fn what_open_carries_resets_that_session_only() {
    let (mut world, ids) = mesh();
    change_peer(&mut world, ids[0], 1, |peer| peer.timers.hold_time = Duration::from_secs(30));
    let session = status(&world, ids[1], 0).session.unwrap();
    assert_eq!(session.hold_time, Duration::from_secs(30));
    assert_eq!(status(&world, ids[0], 1).counters.flaps, 1);
    assert_eq!(status(&world, ids[0], 2).counters.flaps, 0);
}

#[test]
fn a_router_id_is_every_sessions() {
    let (mut world, ids) = mesh();
    let mut changed = config(&world, ids[0]);
    changed.router_id = [192, 0, 2, 1].into();
    world.configure(ids[0], changed);
    world.run_until_quiet(LIMIT).unwrap();
    for n in [1, 2] {
        let peer = status(&world, ids[n], 0);
        assert_eq!(peer.session.unwrap().remote_id, std::net::Ipv4Addr::new(192, 0, 2, 1));
        assert_eq!(peer.counters.flaps, 1);
    }
    assert_eq!(routes(&world, ids[0]).len(), 4);
}

#[test]
fn a_shut_down_peer_stays_down_until_it_is_not() {
    let (mut world, ids) = mesh();
    change_peer(&mut world, ids[0], 1, |peer| peer.shutdown = Some("maintenance".into()));
    assert_eq!(status(&world, ids[0], 1).state, State::Idle);
    assert!(!world.kernel(ids[1]).contains_key(&prefixes(0)[0]), "a shutdown is a death");
    change_peer(&mut world, ids[0], 1, |peer| peer.shutdown = None);
    world.run_for(Duration::from_secs(120)).unwrap();
    assert_eq!(status(&world, ids[0], 1).state, State::Established);
}

#[test]
fn a_peer_that_is_shut_down_while_it_restarts_takes_its_routes_along() {
    let (mut world, ids) = mesh();
    world.kill(ids[1]);
    world.run_for(Duration::from_secs(1)).unwrap();
    assert!(world.kernel(ids[0]).contains_key(&prefixes(1)[0]), "its routes are stale");
    let mut config = config(&world, ids[0]);
    Arc::make_mut(config.peers.get_mut(&v4(1).into()).unwrap()).shutdown = Some("away".into());
    world.configure(ids[0], config);
    world.run_for(Duration::from_secs(1)).unwrap();
    assert!(!world.kernel(ids[0]).contains_key(&prefixes(1)[0]));
}

/// A speaker without a network: its outputs to an input.
fn hear(speaker: &mut Speaker, now: Instant, input: Input) -> Vec<Output> {
    speaker.handle(now, input);
    std::iter::from_fn(|| speaker.poll()).collect()
}

fn accepted(n: u64, remote: [u8; 4]) -> Input {
    let local = SocketAddr::from(([10, 0, 0, 1], 179));
    Input::Accepted { connection: ConnectionId::Accepted(n), local, remote: (remote, 40_000).into() }
}

#[test]
fn strangers_are_closed_counted_and_told_of_now_and_then() {
    let (mut alone, start) = (Speaker::new(SpeakerStart::default()), Instant::now());
    hear(&mut alone, start, Input::Configure(Arc::new(speaker(0, 1))));
    let mut told = Vec::new();
    for n in 0..100 {
        let now = start + Duration::from_millis(150 * n);
        let outputs = hear(&mut alone, now, accepted(n, [192, 0, 2, 1]));
        assert!(
            matches!(outputs[0], Output::Close { connection } if connection == ConnectionId::Accepted(n))
        );
        for output in &outputs[1..] {
            let Output::Event(event) = output else { panic!("{output:?}") };
            let EventKind::Refused { connections } = event.kind else { panic!("{event:?}") };
            told.push(connections);
        }
    }
    assert_eq!(told, [1, 67], "at once, and 10 s later");
    let remote = ([192, 0, 2, 1], 1).into();
    assert!(hear(&mut alone, start, Input::Refused { remote }).is_empty());
    let counters = alone.counters();
    assert_eq!((counters.unknown_peer, counters.too_many), (100, 1));
}

#[test]
fn convergence_is_said_once() {
    let (mut alone, now) = (Speaker::new(SpeakerStart::default()), Instant::now());
    let converged = |outputs: Vec<Output>| outputs.iter().filter(|o| matches!(o, Output::Converged)).count();
    assert_eq!(converged(hear(&mut alone, now, Input::Tick)), 0);
    let configured = hear(&mut alone, now, Input::Configure(Arc::new(speaker(0, 1))));
    assert!(
        matches!(&configured[..], [.., Output::Converged, Output::Announced(none)] if none.is_empty()),
        "{configured:?}"
    );
    assert_eq!(converged(configured), 1);
    assert_eq!(converged(hear(&mut alone, now, Input::Configure(Arc::new(speaker(1, 2))))), 0);
    assert_eq!(alone.next_deadline(), None);
}

#[test]
fn an_own_prefix_is_announced_when_it_has_left_for_a_peer_and_until_no_peer_knows_it() {
    let (mut told, now) = (Speaker::new(SpeakerStart::default()), Instant::now());
    let mut config = speaker(0, 1);
    let peer = PeerConfig { passive: true, ..sim_support::peer(0, 1, 2) };
    config.peers.insert([10, 0, 0, 2].into(), Arc::new(peer));
    let own: BTreeSet<IpNet> = config.originate.keys().copied().filter(|p| p.addr().is_ipv4()).collect();
    assert!(!own.is_empty());
    let announced = |outputs: &[Output]| -> Vec<BTreeSet<IpNet>> {
        let of = |output: &Output| if let Output::Announced(p) = output { Some(p.clone()) } else { None };
        outputs.iter().filter_map(of).collect()
    };
    hear(&mut told, now, Input::Configure(Arc::new(config.clone())));
    let connection = ConnectionId::Accepted(1);
    let outputs = bring_up(&mut told, now, connection);
    assert_eq!(announced(&outputs), [], "nothing has left yet");
    let half = hear(&mut told, now, Input::Written { connection, bytes: octets(&outputs) - 1 });
    assert_eq!(announced(&half), [], "the last octet has not left yet");
    assert_eq!(
        announced(&hear(&mut told, now, Input::Written { connection, bytes: 1 })),
        std::slice::from_ref(&own)
    );
    let mut fewer = config.clone();
    let withdrawn = fewer.originate.keys().copied().find(|p| own.contains(p)).unwrap();
    fewer.originate.remove(&withdrawn);
    let left: BTreeSet<IpNet> = own.iter().copied().filter(|p| *p != withdrawn).collect();
    assert_eq!(
        announced(&hear(&mut told, now, Input::Configure(Arc::new(fewer)))),
        std::slice::from_ref(&left)
    );
    let again = hear(&mut told, now, Input::Configure(Arc::new(config)));
    assert_eq!(announced(&again), [], "it is on its way");
    assert_eq!(announced(&hear(&mut told, now, Input::Written { connection, bytes: usize::MAX })), [own]);
    let closed = hear(&mut told, now, Input::Closed { connection, error: None });
    assert_eq!(announced(&closed), [BTreeSet::new()]);
}

/// A peer that is told an aggregate in the place of our own prefix knows the way to that.
#[test]
fn an_own_prefix_is_announced_by_the_aggregate_that_stands_for_it() {
    let (mut told, now) = (Speaker::new(SpeakerStart::default()), Instant::now());
    let mut config = speaker(0, 1);
    let peer = PeerConfig { passive: true, ..sim_support::peer(0, 1, 2) };
    config.peers.insert([10, 0, 0, 2].into(), Arc::new(peer));
    let own = config.originate.keys().copied().find(|p| p.addr().is_ipv4()).unwrap();
    let whole = own.supernet().unwrap();
    let aggregation = Some(weft_bgp::config::Aggregation::SummaryOnly);
    config.originate =
        [(own, <_>::default()), (whole, weft_bgp::config::Origination { aggregation, ..<_>::default() })]
            .into();
    hear(&mut told, now, Input::Configure(Arc::new(config)));
    let connection = ConnectionId::Accepted(1);
    bring_up(&mut told, now, connection);
    let outputs = hear(&mut told, now, Input::Written { connection, bytes: usize::MAX });
    let announced = |output: &Output| matches!(output, Output::Announced(p) if *p == [own, whole].into());
    assert!(outputs.iter().any(announced), "{outputs:?}");
}

/// A node that drains: an export policy that accepts nothing takes everything back while the session stands, and says when peers have
/// been sent that; the end of the session comes behind it.
#[test]
fn what_no_policy_accepts_any_more_is_withdrawn_before_the_session_ends() {
    let (mut draining, now) = (Speaker::new(SpeakerStart::default()), Instant::now());
    let mut config = speaker(0, 1);
    let peer = PeerConfig { passive: true, ..sim_support::peer(0, 1, 2) };
    let address = PeerAddress::from(IpAddr::from([10, 0, 0, 2]));
    config.peers.insert(address, Arc::new(peer));
    hear(&mut draining, now, Input::Configure(Arc::new(config.clone())));
    let connection = ConnectionId::Accepted(1);
    let bytes = octets(&bring_up(&mut draining, now, connection));
    hear(&mut draining, now, Input::Written { connection, bytes });
    // The type of each message (RFC 4271 section 4.1), and what else is told.
    let told = |outputs: &[Output]| -> Vec<String> {
        let of = |output: &Output| match output {
            Output::Write { bytes, .. } => Some(format!("message {}", bytes[18])),
            Output::Announced(prefixes) => Some(format!("announced {}", prefixes.len())),
            Output::Close { .. } => Some("close".to_owned()),
            _ => None,
        };
        outputs.iter().filter_map(of).collect()
    };
    let nothing = Policy { rules: Vec::new(), unmatched: Reason::new("node-draining", "nothing") };
    Arc::make_mut(config.peers.get_mut(&address).unwrap()).export = Arc::new(nothing);
    let withdrawn = hear(&mut draining, now, Input::Configure(Arc::new(config.clone())));
    assert_eq!(told(&withdrawn), ["message 2", "announced 0"]);
    Arc::make_mut(config.peers.get_mut(&address).unwrap()).shutdown = Some("drained".into());
    let ended = told(&hear(&mut draining, now, Input::Configure(Arc::new(config))));
    assert_eq!(ended[..2], ["message 3", "close"], "{ended:?}");
}

#[test]
fn what_is_announced_after_a_restart_is_told_once_it_has_left() {
    let (start, now) = (SpeakerStart { restarting: true, ..SpeakerStart::default() }, Instant::now());
    let (mut back, connection) = (Speaker::new(start), ConnectionId::Accepted(1));
    let mut config = speaker(0, 1);
    let peer = PeerConfig { passive: true, ..sim_support::peer(0, 1, 2) };
    config.peers.insert([10, 0, 0, 2].into(), Arc::new(peer));
    hear(&mut back, now, Input::Configure(Arc::new(config)));
    let opening = octets(&bring_up(&mut back, now, connection));
    hear(&mut back, now, Input::Written { connection, bytes: opening });
    let later = now + Duration::from_secs(1);
    let outputs = hear(&mut back, later, Input::Tick);
    assert!(outputs.iter().any(|output| matches!(output, Output::Converged)), "{outputs:?}");
    let is_announced = |output: &Output| matches!(output, Output::Announced(_));
    assert!(!outputs.iter().any(is_announced), "peers are about to hear of the prefixes: {outputs:?}");
    let written = hear(&mut back, later, Input::Written { connection, bytes: octets(&outputs) });
    let [Output::Announced(own)] = &written[..] else { panic!("{written:?}") };
    assert!(own.contains(&prefixes(0)[0]), "{own:?}");
}

#[test]
fn a_stopped_speaker_only_closes() {
    let (mut stopped, now) = (Speaker::new(SpeakerStart::default()), Instant::now());
    let mut config = speaker(0, 1);
    config.peers.insert([10, 0, 0, 2].into(), Arc::new(sim_support::peer(0, 1, 2)));
    let dialled = hear(&mut stopped, now, Input::Configure(Arc::new(config.clone())));
    assert!(dialled.iter().any(|output| matches!(output, Output::Dial { .. })));
    hear(&mut stopped, now, accepted(1, [10, 0, 0, 2]));
    let last = hear(&mut stopped, now, Input::Stop);
    assert_eq!(last.len(), 2, "the dial and the connection: {last:?}");
    assert!(last.iter().all(|output| matches!(output, Output::Close { .. })), "{last:?}");
    assert_eq!(stopped.next_deadline(), None);
    let late = hear(&mut stopped, now, accepted(2, [10, 0, 0, 2]));
    assert!(matches!(late[..], [Output::Close { connection: ConnectionId::Accepted(2) }]), "{late:?}");
    assert!(hear(&mut stopped, now, Input::Configure(Arc::new(config))).is_empty());
}

/// Brings up a session with the peer 10.0.0.2 of AS 2 on a connection that it has opened.
fn bring_up(speaker: &mut Speaker, now: Instant, connection: ConnectionId) -> Vec<Output> {
    let open = Open {
        my_as: 2,
        hold_time: 0,
        bgp_identifier: [10, 0, 0, 2].into(),
        capabilities: vec![Capability::Multiprotocol(Family::Ipv4Unicast.into())],
    };
    let mut outputs = hear(speaker, now, accepted(1, [10, 0, 0, 2]));
    for message in [Message::Open(open), Message::Keepalive] {
        outputs.extend(hear(speaker, now, Input::Bytes { connection, bytes: message.encode() }));
    }
    assert_eq!(speaker.peer([10, 0, 0, 2].into()).unwrap().state, State::Established);
    outputs
}

fn octets(outputs: &[Output]) -> usize {
    let written = |output: &Output| if let Output::Write { bytes, .. } = output { bytes.len() } else { 0 };
    outputs.iter().map(written).sum()
}

#[test]
fn a_slow_peer_whose_policy_changes_is_told_everything_still() {
    const PREFIXES: u32 = 100_000;
    let (mut slow, now, connection) =
        (Speaker::new(SpeakerStart::default()), Instant::now(), ConnectionId::Accepted(1));
    let mut config = speaker(0, 1);
    let prefix = |n| IpNet::new(std::net::Ipv4Addr::from(0x0b00_0000 + n).into(), 32).unwrap();
    config.originate = (0..PREFIXES).map(|n| (prefix(n), <_>::default())).collect();
    let mut peer = sim_support::peer(0, 1, 2);
    peer.passive = true;
    config.peers.insert([10, 0, 0, 2].into(), Arc::new(peer.clone()));
    hear(&mut slow, now, Input::Configure(Arc::new(config.clone())));
    let mut waiting = octets(&bring_up(&mut slow, now, connection));
    assert!(slow.peer([10, 0, 0, 2].into()).unwrap().counters.sent[1] > 1, "UPDATEs are counted");
    let advertised = |speaker: &Speaker| {
        speaker.peer([10, 0, 0, 2].into()).unwrap().families.iter().map(|f| f.advertised).sum::<usize>()
    };
    assert!(advertised(&slow) < PREFIXES as usize, "it has room for a part only");

    let mut export = peer.export.as_ref().clone();
    export.unmatched = Reason::new("closed", "said otherwise");
    peer.export = Arc::new(export);
    config.peers.insert([10, 0, 0, 2].into(), Arc::new(peer));
    waiting += octets(&hear(&mut slow, now, Input::Configure(Arc::new(config))));
    while waiting > 0 {
        let bytes = std::mem::take(&mut waiting);
        waiting = octets(&hear(&mut slow, now, Input::Written { connection, bytes }));
    }
    assert_eq!(advertised(&slow), PREFIXES as usize);
}

/// Whatever a transport may say, in any order, of connections that exist or not.
fn any_input() -> impl Strategy<Value = Input> {
    let peer = prop_oneof![Just([10, 0, 0, 2]), Just([10, 0, 0, 3]), Just([192, 0, 2, 1])];
    let connection = || (0..20_u64).prop_map(ConnectionId::Accepted);
    let message = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..40).boxed(),
        (1..7_u8, proptest::collection::vec(any::<u8>(), 0..40)).prop_map(|(kind, body)| {
            let mut bytes = vec![0xff; 16];
            bytes.extend(u16::try_from(body.len() + 19).unwrap().to_be_bytes());
            bytes.push(kind);
            bytes.extend(body);
            bytes
        }),
    ];
    prop_oneof![
        (0..20_u64, peer.clone()).prop_map(|(n, remote)| accepted(n, remote)),
        (connection(), message)
            .prop_map(|(connection, bytes)| Input::Bytes { connection, bytes: Bytes::from(bytes) }),
        (connection(), 0..10_000_usize).prop_map(|(connection, bytes)| Input::Written { connection, bytes }),
        connection().prop_map(|connection| Input::Closed { connection, error: None }),
        connection().prop_map(|connection| Input::ConnectFailed { connection, error: "refused".into() }),
        peer.prop_map(|address| Input::Reset { peer: address.into() }),
        (0..3_usize).prop_map(|peers| {
            let mut config = speaker(0, 1);
            for n in 0..peers {
                let address = IpAddr::from([10, 0, 0, u8::try_from(n + 2).unwrap()]);
                config.peers.insert(address.into(), Arc::new(sim_support::peer(0, 1, 2)));
            }
            Input::Configure(Arc::new(config))
        }),
        Just(()).prop_map(|()| Input::Tick),
    ]
}

proptest! {
    /// Nothing that reaches a speaker makes it panic, name a connection that it was not given, or close one twice.
    #[test]
    fn no_sequence_of_inputs_confuses_a_speaker(
        inputs in proptest::collection::vec((any_input(), 0..20_000_u64), 1..60)
    ) {
        let mut speaker = Speaker::new(SpeakerStart::default());
        let mut now = Instant::now();
        let (mut open, mut given) = (std::collections::BTreeSet::new(), std::collections::BTreeSet::new());
        for (input, wait) in inputs {
            now += Duration::from_millis(wait);
            match &input {
                // The transport gives each number once.
                Input::Accepted { connection, .. } if !given.insert(*connection) => continue,
                Input::Accepted { connection, .. } => {
                    open.insert(*connection);
                }
                Input::Closed { connection, .. } | Input::ConnectFailed { connection, .. } => {
                    open.remove(connection);
                }
                _ => {}
            }
            for output in hear(&mut speaker, now, input) {
                match output {
                    Output::Dial { connection, .. } => prop_assert!(open.insert(connection)),
                    Output::Write { connection, .. } => prop_assert!(open.contains(&connection)),
                    Output::Close { connection } => prop_assert!(open.remove(&connection)),
                    _ => {}
                }
            }
        }
    }
}

/// What is told again arrives again, between a beginning and an end (RFC 7313), and nothing flaps.
#[test]
fn refreshes_on_demand_touch_no_session() {
    let (mut world, ids) = mesh();
    let before = (status(&world, ids[0], 1), status(&world, ids[1], 0));
    for (speaker, direction) in [(0, Refresh::In), (1, Refresh::Out)] {
        let peer = v4(1 - speaker).into();
        let told = |status: &PeerStatus| (status.counters.received[1], status.counters.received[4]);
        let (updates, refreshes) = told(&status(&world, ids[0], 1));
        world.tell(ids[speaker], Input::Refresh { peer, direction });
        world.run_until_quiet(LIMIT).unwrap();
        let after = told(&status(&world, ids[0], 1));
        assert_eq!(
            after,
            (updates + 2, refreshes + 4),
            "{direction:?}: a route, a beginning and an end each"
        );
    }
    for (before, after) in [(before.0, status(&world, ids[0], 1)), (before.1, status(&world, ids[1], 0))] {
        assert_eq!((before.since, after.counters.flaps), (after.since, 0));
        assert_eq!(before.families, after.families);
    }
}

#[test]
fn best_paths_that_change_are_remembered() {
    let (mut world, ids) = mesh();
    let count = world.inspect(ids[0]).unwrap().counters().best_path_changes;
    world.cut(ids[0], ids[1]);
    world.run_for(LIMIT).unwrap();
    let changes = world.inspect(ids[0]).unwrap().best_changes(count);
    let told = |prefix| {
        let change = changes.iter().find(|change| change.prefix == prefix).unwrap();
        (change.before.and_then(|best| best.peer), change.after)
    };
    assert_eq!(changes.len(), 2, "{changes:?}");
    assert!(prefixes(1).into_iter().all(|prefix| told(prefix) == (Some(v4(1).into()), None)), "{changes:?}");
}

/// The kernel's part of a death need not wait until all of it is decided.
#[test]
fn what_a_death_changes_is_told_in_pieces() {
    const ROUTES: u32 = 5000;
    let (mut bereft, now) = (Speaker::new(SpeakerStart::default()), Instant::now());
    let mut config = speaker(0, 1);
    let peer = PeerConfig { passive: true, ..sim_support::peer(0, 1, 2) };
    config.peers.insert([10, 0, 0, 2].into(), Arc::new(peer));
    hear(&mut bereft, now, Input::Configure(Arc::new(config)));
    let connection = ConnectionId::Accepted(1);
    bring_up(&mut bereft, now, connection);
    // ORIGIN IGP, AS_PATH 2, NEXT_HOP 10.0.0.2 (RFC 4271 section 4.3).
    let attributes = [0x40, 1, 1, 0, 0x40, 2, 4, 2, 1, 0, 2, 0x40, 3, 4, 10, 0, 0, 2].as_slice();
    for first in (0..ROUTES).step_by(500) {
        let nlri = (first..first + 500).flat_map(|n| [24, 11, (n >> 8) as u8, n as u8]);
        let body = [&[0, 0, 0, attributes.len() as u8], attributes, &nlri.collect::<Vec<_>>()].concat();
        let length = u16::try_from(19 + body.len()).unwrap().to_be_bytes();
        let bytes = Bytes::from([&[0xff; 16], length.as_slice(), &[2], &body].concat());
        for output in hear(&mut bereft, now, Input::Bytes { connection, bytes }) {
            if let Output::TrackNextHop(next_hop) = output {
                hear(&mut bereft, now, Input::NextHops(vec![(next_hop, Resolution::OnLink)]));
            }
        }
    }
    let before = bereft.counters().best_path_changes;
    bereft.handle(now, Input::Closed { connection, error: None });
    let (mut pieces, mut told) = (0, 0);
    while let Some(output) = bereft.poll() {
        if let Output::BestPaths(changes) = output {
            assert!(changes.iter().all(|change| change.next_hops.is_empty()));
            (pieces, told) = (pieces + 1, told + changes.len() as u64);
            assert_eq!(told, bereft.counters().best_path_changes - before, "all that is decided is told");
        }
    }
    assert_eq!(told, u64::from(ROUTES));
    assert!(pieces > 1, "all at once");
}
