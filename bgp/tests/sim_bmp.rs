//! Monitoring stations (RFC 7854) in whole networks: what a station that applies every message ends up with is what the speaker's RIBs
//! hold, whatever happened on the way.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test")]

mod bmp_support;
mod sim_support;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bmp_support::{Heard, Key, Rib, Routes, route};
use sim_support::{Dice, LIMIT, Topology, everything, for_seeds, speaker, start, v4};
use weft_bgp::bmp::{BmpConfig, MonitoredRib, StationConfig};
use weft_bgp::config::{AddPath, AddPathSend, PathChoice, PeerConfig, SpeakerConfig};
use weft_bgp::policy::{Operation, Policy, PrefixMatch, PrefixRange, Rule, Verdict};
use weft_bgp::session::State;
use weft_bgp::sim::{SpeakerId, World};
use weft_bgp::speaker::{Input, Speaker};
use weft_bgp::status::{RibView, RouteSelect};
use weft_bgp::types::{Family, Reason};

const ALL: [MonitoredRib; 4] = [
    MonitoredRib::AdjRibInPrePolicy,
    MonitoredRib::AdjRibInPostPolicy,
    MonitoredRib::LocRib,
    MonitoredRib::AdjRibOutPostPolicy,
];

/// Longer than a speaker waits before it dials a station again.
const REDIAL: Duration = Duration::from_secs(120);

fn station() -> SocketAddr {
    "192.0.2.9:1790".parse().unwrap()
}

fn monitored(monitor: &[MonitoredRib]) -> BmpConfig {
    let config = StationConfig {
        monitor: monitor.iter().copied().collect(),
        statistics_interval: Some(Duration::from_secs(60)),
    };
    BmpConfig {
        system_name: "s0".into(),
        system_description: "a test".into(),
        stations: [(station(), config)].into(),
    }
}

fn asn(n: usize) -> u32 {
    65000 + u32::try_from(n).unwrap()
}

/// What the RIBs of a speaker hold, as a station should know it.
fn held(speaker: &Speaker) -> BTreeMap<Key, Routes> {
    let mut tables = BTreeMap::from([((Rib::Loc, None), Routes::new())]);
    let all = |view| speaker.routes(view, RouteSelect::All);
    for found in all(RibView::Loc) {
        let best = found.paths.iter().find(|path| path.best);
        let table = tables.get_mut(&(Rib::Loc, None)).unwrap();
        table.extend(best.map(|path| ((found.prefix, None), route(&path.attributes, found.prefix))));
    }
    for peer in speaker.peers().iter().filter(|peer| peer.state == State::Established) {
        let address = peer.address.ip();
        let into = |view, key: Rib, of: fn(&weft_bgp::status::PathStatus) -> bool| {
            let paths = all(view).into_iter().flat_map(|found| {
                let paths: Vec<_> = found.paths.into_iter().filter(of).collect();
                paths.into_iter().map(move |path| (found.prefix, path))
            });
            let of_peer = |path: &weft_bgp::status::PathStatus| {
                key == Rib::OutPostPolicy || path.peer == Some(peer.address)
            };
            let paths = paths.filter(|(_, path)| of_peer(path));
            let told = |(prefix, path): (_, weft_bgp::status::PathStatus)| {
                ((prefix, path.path_id), route(&path.attributes, prefix))
            };
            ((key, address), paths.map(told).collect())
        };
        tables.extend([
            into(RibView::In(peer.address), Rib::InPrePolicy, |_| true),
            into(RibView::Loc, Rib::InPostPolicy, |path| path.valid),
            into(RibView::Out(peer.address), Rib::OutPostPolicy, |path| path.valid),
        ]);
    }
    tables
}

fn assert_known(world: &World, id: SpeakerId, context: &str) {
    let heard = Heard::of(world.station(station()));
    let wanted = held(world.inspect(id).unwrap());
    let known = heard.tables(&ALL);
    assert_eq!(known.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>(), "{context}: tables");
    for (key, wanted) in &wanted {
        assert_eq!(&known[key], wanted, "{context}: {key:?}");
    }
}

/// Rejects some prefixes, and changes others.
fn policy(dice: &mut Dice) -> Arc<Policy> {
    let net = |n: usize| PrefixMatch {
        ranges: vec![PrefixRange {
            net: format!("10.1.{n}.0/24").parse().unwrap(),
            min_len: 24,
            max_len: 24,
        }],
        negated: false,
    };
    let reject = Rule {
        prefixes: Some(net(dice.roll(6))),
        ..Rule::new(Verdict::Reject(Reason::new("test", "not this one")))
    };
    let med = Operation::SetMed(u32::try_from(dice.roll(3)).unwrap());
    let change = Rule { prefixes: Some(net(dice.roll(6))), ..Rule::new(Verdict::AcceptWith([med].into())) };
    let rules = vec![reject, change, Rule::new(Verdict::Accept)];
    Arc::new(Policy { rules, unmatched: Reason::new("none", "no rule matches") })
}

fn config(topology: &Topology, n: usize) -> SpeakerConfig {
    let mut config = speaker(n, asn(n));
    for m in topology.neighbours(n) {
        // Some sessions have several paths of a prefix.
        let paths = AddPathSend { paths: PathChoice::All, limit: 4 };
        let several = AddPath { receive: true, send: Some(paths) };
        let add_path = if (n + m).is_multiple_of(2) { several } else { AddPath::default() };
        let peer = PeerConfig { add_path, ..sim_support::peer(n, asn(n), asn(m)) };
        config.peers.insert(v4(m).into(), Arc::new(peer));
    }
    if n == 0 {
        config.bmp = monitored(&ALL);
    }
    config
}

/// One thing that may happen to the network.
fn disturb(world: &mut World, dice: &mut Dice, topology: &Topology, ids: &[SpeakerId]) {
    let (a, b) = (dice.roll(ids.len()), dice.roll(ids.len()));
    match dice.roll(11) {
        0 => world.reset(ids[a], ids[b]),
        1 => world.cut(ids[a], ids[b]),
        2 => world.set_station_up(station(), false),
        3 => world.set_station_reading(station(), false),
        4 => {
            world.set_station_up(station(), true);
            world.set_station_reading(station(), true);
        }
        5 => {
            let mut config = config(topology, a);
            for n in 0..200 {
                let prefix = format!("10.2.{}.{n}/32", dice.roll(3)).parse().unwrap();
                config.originate.insert(prefix, <_>::default());
            }
            world.configure(ids[a], config);
        }
        6 | 7 => {
            let mut config = config(topology, 0);
            for peer in config.peers.values_mut() {
                let mut changed = (**peer).clone();
                (changed.import, changed.export) = match dice.roll(3) {
                    0 => (policy(dice), everything()),
                    1 => (everything(), policy(dice)),
                    _ => (policy(dice), policy(dice)),
                };
                *peer = Arc::new(changed);
            }
            world.configure(ids[0], config);
        }
        8 => world.restart(ids[a], start(a), dice.roll(2) == 0),
        9 => world.tell(ids[0], Input::Reset { peer: v4(a).into() }),
        _ => world.heal(ids[a], ids[b]),
    }
    let wait = [1, 50, 2_000, 30_000, 200_000][dice.roll(5)];
    world.run_for(Duration::from_millis(wait)).unwrap();
}

/// Proves RFC 7854 3.3, 4.6, RFC 7911, RFC 8671, RFC 9069.
#[test]
fn a_station_knows_what_the_ribs_hold_whatever_happened() {
    for_seeds("a_station_knows_what_the_ribs_hold_whatever_happened", 40, |seed| {
        let (mut world, mut dice) = (World::new(seed), Dice::new(seed));
        world.add_station(station());
        let topology = Topology::random(2 + dice.roll(5), &mut dice);
        let ids = topology.build(&mut world, asn, |n, c| *c = config(&topology, n));
        world.run_until_quiet(LIMIT).unwrap();
        assert_known(&world, ids[0], "at first");
        for round in 0..4 {
            for _ in 0..=dice.roll(6) {
                disturb(&mut world, &mut dice, &topology, &ids);
            }
            for a in &ids {
                ids.iter().for_each(|b| world.heal(*a, *b));
            }
            world.set_station_up(station(), true);
            world.set_station_reading(station(), true);
            world.run_for(REDIAL).unwrap();
            world.run_until_quiet(LIMIT).unwrap();
            assert_known(&world, ids[0], &format!("after round {round}"));
        }
    });
}

fn two() -> (World, Vec<SpeakerId>, Topology) {
    let (mut world, topology) = (World::new(1), Topology::mesh(2));
    world.add_station(station());
    let ids = topology.build(&mut world, asn, |n, c| *c = config(&topology, n));
    world.run_until_quiet(LIMIT).unwrap();
    (world, ids, topology)
}

/// Proves RFC 7854 3.3, 4.3, 4.10, RFC 9069 5.2.
#[test]
fn a_station_hears_who_speaks_then_sessions_then_tables_to_their_end() {
    let (world, ..) = two();
    let heard = Heard::of(world.station(station()));
    assert_eq!(heard.system_name.as_deref(), Some("s0"));
    assert_eq!(heard.table_name.as_deref(), Some("global"));
    let ends: BTreeSet<_> = heard.ends_of_rib.iter().copied().collect();
    let peer = Some(v4(1).into());
    let keys =
        [(Rib::InPrePolicy, peer), (Rib::InPostPolicy, peer), (Rib::Loc, None), (Rib::OutPostPolicy, peer)];
    let both = |key| Family::ALL.map(move |family| (key, family));
    assert_eq!(ends, keys.into_iter().flat_map(both).collect());
}

/// Proves RFC 7854 4.9.
#[test]
fn a_station_hears_why_a_session_ended() {
    let (mut world, ids, topology) = two();
    world.tell(ids[0], Input::Reset { peer: v4(1).into() });
    world.run_until_quiet(LIMIT).unwrap();
    let mut shut = config(&topology, 1);
    for peer in shut.peers.values_mut() {
        *peer = Arc::new(PeerConfig { shutdown: Some("bye".into()), ..(**peer).clone() });
    }
    world.configure(ids[1], shut);
    world.run_until_quiet(LIMIT).unwrap();
    world.configure(ids[1], config(&topology, 1));
    world.run_until_quiet(LIMIT).unwrap();
    world.kill(ids[1]);
    world.run_for(Duration::from_secs(1)).unwrap();
    world.restart(ids[1], start(1), false);
    world.run_until_quiet(LIMIT).unwrap();
    let mut without = config(&topology, 0);
    without.peers.clear();
    world.configure(ids[0], without);
    world.run_until_quiet(LIMIT).unwrap();
    // Cease: Administrative Reset, Cease: Hard Reset, a connection that broke, and one more Cease.
    let reasons = Heard::of(world.station(station())).downs;
    let [sent, received, broke, last] = reasons.as_slice() else { panic!("{reasons:?}") };
    assert_eq!((sent.0, sent.1.get(19..21)), (1, Some(&[6, 4][..])));
    assert_eq!((received.0, received.1.get(19..21)), (3, Some(&[6, 9][..])));
    assert_eq!((broke.0, broke.1.len()), (4, 0));
    assert_eq!(last.0, 1);
}

/// Proves RFC 7854 4.8, RFC 8671 6.2, RFC 9069 5.6.
#[test]
fn statistics_come_at_their_interval() {
    let (mut world, ..) = two();
    let before = Heard::of(world.station(station())).statistics.len();
    world.run_for(Duration::from_secs(60)).unwrap();
    let heard = Heard::of(world.station(station()));
    assert_eq!(heard.statistics.len() - before, 2, "one of the peer and one of the Loc-RIB");
    let last = |peer| heard.statistics.iter().rev().find(|(of, _)| *of == peer).unwrap().1.clone();
    let of_peer = last(Some(v4(1).into()));
    let (four, six) = ([0, 1, 1].to_vec(), [0, 2, 1].to_vec());
    let gauge = |n: u8| [0, 0, 0, 0, 0, 0, 0, n].to_vec();
    let family = |family: &Vec<u8>, n| [family.clone(), gauge(n)].concat();
    let expected = [
        (7, gauge(2)),
        (9, family(&four, 1)),
        (9, family(&six, 1)),
        (11, vec![0; 4]),
        (15, gauge(2)),
        (17, family(&four, 1)),
        (17, family(&six, 1)),
    ];
    assert_eq!(of_peer, expected);
    assert_eq!(last(None), [(8, gauge(4)), (10, family(&four, 2)), (10, family(&six, 2))]);
}

/// Proves RFC 7854 4.5.
#[test]
fn a_station_that_is_taken_out_is_told_and_so_is_each_when_the_process_ends() {
    let (mut world, ids, topology) = two();
    let mut without = config(&topology, 0);
    without.bmp = BmpConfig::default();
    world.configure(ids[0], without);
    assert_eq!(Heard::of(world.station(station())).termination, Some(0));
    assert!(world.inspect(ids[0]).unwrap().stations().is_empty());
    world.configure(ids[0], config(&topology, 0));
    world.run_until_quiet(LIMIT).unwrap();
    assert_eq!(Heard::of(world.station(station())).termination, None);
    world.tell(ids[0], Input::Stop);
    assert_eq!(Heard::of(world.station(station())).termination, Some(0));
}

#[test]
fn a_station_that_reads_nothing_is_given_up_and_stirs_no_session() {
    let (mut world, ids, topology) = two();
    world.set_station_reading(station(), false);
    let mut many = config(&topology, 1);
    let prefix = |n: u32| format!("10.{}.{}.{}/32", 100 + (n >> 16), n >> 8 & 255, n & 255).parse().unwrap();
    many.originate.extend((0..40_000).map(|n| (prefix(n), <_>::default())));
    world.configure(ids[1], many);
    world.run_for(Duration::from_secs(30)).unwrap();
    let status = |world: &World| world.inspect(ids[0]).unwrap().stations().remove(0);
    let now = status(&world);
    assert!(now.connected && now.waiting > 0, "{now:?}");
    world.run_for(Duration::from_secs(90)).unwrap();
    let now = status(&world);
    let (_, error) = now.last_error.clone().unwrap();
    assert_eq!((now.failures, error.contains("taken nothing")), (1, true), "{now:?}");
    let peer = world.inspect(ids[0]).unwrap().peers().remove(0);
    assert_eq!((peer.state, peer.counters.flaps), (State::Established, 0));
    world.set_station_reading(station(), true);
    world.run_for(REDIAL).unwrap();
    assert_known(&world, ids[0], "after it reads again");
}

#[test]
fn a_station_that_is_away_is_dialled_less_and_less_often() {
    let (mut world, ids, _) = two();
    let failures = |world: &World| world.inspect(ids[0]).unwrap().stations()[0].failures;
    world.set_station_up(station(), false);
    // 1, 2, 4, 8, 16, 32 s after it was lost, then every minute.
    let mut seen = Vec::new();
    for seconds in [2, 2, 4, 8, 16, 32, 60, 60] {
        world.run_for(Duration::from_secs(seconds)).unwrap();
        seen.push(failures(&world));
    }
    assert_eq!(seen, [2, 3, 4, 5, 6, 7, 8, 9]);
}
