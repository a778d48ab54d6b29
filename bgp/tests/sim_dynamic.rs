//! Dynamic peers: who connects from within a range is a peer, for as long as there is anything to know of it.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test")]

mod sim_support;

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use sim_support::{LIMIT, established, for_seeds, peer, prefixes, routes, speaker, start, v4, v6};
use weft_bgp::config::{LimitAction, MaxPrefixes, PeerConfig, RangeConfig, RemoteAs, SpeakerConfig};
use weft_bgp::session::State;
use weft_bgp::sim::{SpeakerId, World};
use weft_bgp::speaker::{Input, SpeakerStart};
use weft_bgp::status::{Direction, PeerStatus, RangeRefusal, RangeStatus};
use weft_bgp::types::{Asn, FamilySet, PeerAddress};

const SERVER: usize = 0;

fn asn(n: usize) -> u32 {
    65000 + u32::try_from(n).unwrap()
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// What the server's dynamic peers are.
fn template(name: &str) -> PeerConfig {
    let any = peer(SERVER, asn(SERVER), 0);
    PeerConfig { name: name.into(), remote_as: RemoteAs::External, passive: true, ..any }
}

fn range(limit: u32, peer: PeerConfig) -> Arc<RangeConfig> {
    Arc::new(RangeConfig { limit, peer: Arc::new(peer) })
}

/// A server that knows ranges alone.
fn server(ranges: impl IntoIterator<Item = (IpNet, Arc<RangeConfig>)>) -> SpeakerConfig {
    SpeakerConfig { ranges: ranges.into_iter().collect(), ..speaker(SERVER, asn(SERVER)) }
}

/// Speaker `n`, which dials the server.
fn client(n: usize) -> SpeakerConfig {
    let to_server = Arc::new(peer(n, asn(n), asn(SERVER)));
    SpeakerConfig { peers: [(v4(SERVER).into(), to_server)].into(), ..speaker(n, asn(n)) }
}

fn add(world: &mut World, n: usize, config: SpeakerConfig) -> SpeakerId {
    world.add(&format!("s{n}"), start(n), config, vec![v4(n).into(), v6(n).into()])
}

/// A server with these ranges and `clients` that dial it, settled.
fn star(
    seed: u64,
    clients: usize,
    ranges: impl IntoIterator<Item = (IpNet, Arc<RangeConfig>)>,
) -> (World, Vec<SpeakerId>) {
    let mut world = World::new(seed);
    let server = add(&mut world, SERVER, server(ranges));
    let clients = (1..=clients).map(|n| add(&mut world, n, client(n)));
    let clients = clients.collect::<Vec<_>>();
    world.run_for(seconds(30)).unwrap();
    (world, std::iter::once(server).chain(clients).collect())
}

fn peers(world: &World, id: SpeakerId) -> Vec<PeerStatus> {
    world.inspect(id).unwrap().peers()
}

fn the_range(world: &World, id: SpeakerId, of: &str) -> RangeStatus {
    world.inspect(id).unwrap().ranges().into_iter().find(|range| range.range == net(of)).unwrap()
}

fn reconfigure(world: &mut World, id: SpeakerId, change: impl FnOnce(&mut SpeakerConfig)) {
    let mut config = world.inspect(id).unwrap().config().unwrap().as_ref().clone();
    change(&mut config);
    world.configure(id, config);
}

#[test]
fn who_connects_from_within_a_range_is_a_peer_and_routes_flow() {
    let (world, ids) = star(1, 3, [(net("10.0.0.0/24"), range(10, template("rack")))]);
    assert_eq!(established(&world, ids[0]), 3);
    for n in 1..=3 {
        assert_eq!(routes(&world, ids[0])[&prefixes(n)[0]], [v4(n).into()].into());
        assert_eq!(world.kernel(ids[n]).len(), 6, "those of the server and of the other two");
    }
    let status = &peers(&world, ids[0])[0];
    assert_eq!((status.config.name.as_str(), status.range), ("rack", Some(net("10.0.0.0/24"))));
    let range = the_range(&world, ids[0], "10.0.0.0/24");
    assert_eq!((range.peers, range.established, range.refused), (3, 3, 0));
}

/// Proves RFC 4486 4.
#[test]
fn more_than_there_may_be_are_told_so_and_one_takes_the_place_of_one_that_goes() {
    let (mut world, ids) = star(2, 3, [(net("10.0.0.0/24"), range(2, template("rack")))]);
    assert_eq!(established(&world, ids[0]), 2);
    let range = the_range(&world, ids[0], "10.0.0.0/24");
    assert!(range.refused > 0 && range.peers == 2, "{range:?}");
    assert!(matches!(range.last_refused, Some((_, RangeRefusal::Full { limit: 2 }))));
    let outside = (1..=3).find(|n| established(&world, ids[*n]) == 0).unwrap();
    let error = peers(&world, ids[outside])[0].last_error.clone().unwrap();
    assert_eq!(
        (error.direction, error.code, error.subcode),
        (Direction::Received, Some(6), Some(5)),
        "{error:?}"
    );
    let inside = (1..=3).find(|n| *n != outside).unwrap();
    reconfigure(&mut world, ids[inside], |config| config.peers.clear());
    world.run_for(seconds(120)).unwrap();
    assert_eq!((established(&world, ids[outside]), established(&world, ids[0])), (1, 2));
}

#[test]
fn of_two_ranges_the_longest_counts_and_a_named_peer_before_both() {
    let mut world = World::new(3);
    let mut config = server([
        (net("10.0.0.0/8"), range(10, template("wide"))),
        (net("10.0.0.0/30"), range(10, template("narrow"))),
        (net("10.0.0.2/32"), range(10, template("narrowest"))),
    ]);
    config.peers.insert(v4(2).into(), Arc::new(peer(SERVER, asn(SERVER), asn(2))));
    let id = add(&mut world, SERVER, config);
    for n in [1, 2, 4] {
        add(&mut world, n, client(n));
    }
    world.run_for(seconds(30)).unwrap();
    let names: Vec<_> =
        peers(&world, id).into_iter().map(|p| (p.config.name.clone(), p.range.is_some(), p.state)).collect();
    let up = |name: &str, dynamic| (name.to_owned(), dynamic, State::Established);
    assert_eq!(names, [up("narrowest", true), up("of-0", false), up("wide", true)]);
}

#[test]
fn what_is_in_no_range_or_of_another_as_is_no_peer() {
    let internal = PeerConfig { remote_as: RemoteAs::Internal, ..template("rack") };
    let (mut world, ids) = star(4, 1, [(net("10.0.0.0/24"), range(10, internal))]);
    assert_eq!(established(&world, ids[0]), 0);
    let error = peers(&world, ids[1])[0].last_error.clone().unwrap();
    assert_eq!((error.code, error.subcode), (Some(2), Some(2)), "Bad Peer AS: {error:?}");
    reconfigure(&mut world, ids[0], |config| {
        config.ranges = [(net("10.9.0.0/24"), range(10, template("elsewhere")))].into();
    });
    world.run_for(seconds(60)).unwrap();
    assert!(peers(&world, ids[0]).is_empty());
    assert!(world.inspect(ids[0]).unwrap().counters().unknown_peer > 0);
}

/// One that fails may not try again as fast as it likes, and leaves nothing behind once it stays away.
#[test]
fn nothing_stays_of_a_peer_that_fails_or_goes() {
    let (mut world, ids) = star(5, 2, [(net("10.0.0.0/24"), range(10, template("rack")))]);
    for id in [ids[1], ids[2]] {
        reconfigure(&mut world, id, |config| config.peers.clear());
    }
    world.run_for(seconds(60)).unwrap();
    assert!(peers(&world, ids[0]).is_empty() && world.kernel(ids[0]).is_empty());
    assert_eq!(the_range(&world, ids[0], "10.0.0.0/24").peers, 0);
    assert_eq!(world.inspect(ids[0]).unwrap().next_deadline(), None, "nothing is waited for");
}

/// Proves RFC 4724 4.2.
#[test]
fn a_dynamic_peer_that_restarts_keeps_its_routes_and_one_that_stays_away_is_forgotten() {
    for_seeds(
        "a_dynamic_peer_that_restarts_keeps_its_routes_and_one_that_stays_away_is_forgotten",
        10,
        |seed| {
            let (mut world, ids) = star(seed, 2, [(net("10.0.0.0/24"), range(10, template("rack")))]);
            let before = routes(&world, ids[0]);
            world.kill(ids[1]);
            world.run_for(seconds(60)).unwrap();
            assert_eq!(routes(&world, ids[0]), before);
            let away = world.inspect(ids[0]).unwrap().peer(v4(1).into()).unwrap();
            assert!(away.stale_until.is_some() && away.range.is_some());
            world.restart(
                ids[1],
                SpeakerStart { seed: 99, restarting: true, forwarding: FamilySet::all() },
                true,
            );
            world.run_for(seconds(60)).unwrap();
            assert_eq!((routes(&world, ids[0]), established(&world, ids[0])), (before, 2));
            world.kill(ids[1]);
            world.run_for(seconds(125)).unwrap();
            assert!(world.inspect(ids[0]).unwrap().peer(v4(1).into()).is_none());
            assert!(!world.kernel(ids[0]).contains_key(&prefixes(1)[0]));
        },
    );
}

/// Nobody is dialled: who was there must be waited for, or its routes are swept before it is back.
#[test]
fn a_server_that_restarts_loses_no_route_of_its_dynamic_peers_nor_they_of_each_other() {
    for_seeds(
        "a_server_that_restarts_loses_no_route_of_its_dynamic_peers_nor_they_of_each_other",
        10,
        |seed| {
            let (mut world, ids) = star(seed, 3, [(net("10.0.0.0/24"), range(10, template("rack")))]);
            let before: Vec<_> = ids.iter().map(|id| routes(&world, *id)).collect();
            let since = world.elapsed();
            world.kill(ids[0]);
            world.run_for(seconds(2)).unwrap();
            world.restart(
                ids[0],
                SpeakerStart { seed, restarting: true, forwarding: FamilySet::all() },
                true,
            );
            world.run_for(seconds(60)).unwrap();
            for (n, id) in ids.iter().enumerate() {
                let gone = world
                    .changes(*id)
                    .iter()
                    .filter(|(at, change)| *at >= since && change.next_hops.is_empty());
                assert_eq!(gone.count(), 0, "s{n}");
                assert_eq!(routes(&world, *id), before[n], "s{n}");
            }
            assert_eq!(established(&world, ids[0]), 3);
        },
    );
}

#[test]
fn a_restart_waits_neither_for_strangers_nor_for_the_dead_for_long() {
    let ranges = || [(net("10.0.0.0/24"), range(10, template("rack")))];
    let restarting = SpeakerStart { seed: 9, restarting: true, forwarding: FamilySet::all() };
    let (mut world, ids) = star(6, 0, ranges());
    world.restart(ids[0], restarting, true);
    world.run_for(Duration::from_millis(10)).unwrap();
    assert!(world.converged(ids[0]), "nobody was there");
    let (mut world, ids) = star(7, 1, ranges());
    world.kill(ids[1]);
    world.restart(ids[0], restarting, true);
    world.run_for(seconds(14)).unwrap();
    assert!(!world.converged(ids[0]) && peers(&world, ids[0]).len() == 1);
    world.run_for(seconds(2)).unwrap();
    assert!(world.converged(ids[0]) && peers(&world, ids[0]).is_empty() && world.kernel(ids[0]).is_empty());
}

#[test]
fn a_change_of_the_object_reaches_its_peers_and_its_removal_ends_them() {
    let wide = net("10.0.0.0/24");
    let (mut world, ids) = star(8, 2, [(wide, range(10, template("rack")))]);
    let ids_of = |world: &World| peers(world, ids[0]).iter().map(|p| (p.id, p.since)).collect::<Vec<_>>();
    let before = ids_of(&world);
    let nothing = weft_bgp::policy::Policy {
        rules: Vec::new(),
        unmatched: weft_bgp::types::Reason::new("closed", "nothing passes"),
    };
    let closed = PeerConfig { export: Arc::new(nothing), ..template("closed") };
    reconfigure(&mut world, ids[0], |config| config.ranges = [(wide, range(1, closed.clone()))].into());
    world.run_until_quiet(LIMIT).unwrap();
    assert_eq!(ids_of(&world), before, "policies and a lower limit end no session");
    assert!(world.kernel(ids[1]).is_empty() && peers(&world, ids[0])[0].config.name == "closed");
    let down = PeerConfig { shutdown: Some("closed for today".into()), ..template("rack") };
    reconfigure(&mut world, ids[0], |config| config.ranges = [(wide, range(10, down))].into());
    world.run_for(Duration::from_millis(100)).unwrap();
    assert!(peers(&world, ids[0]).is_empty());
    let error = peers(&world, ids[1])[0].last_error.clone().unwrap();
    assert!(error.text.contains("closed for today"), "{error:?}");
    reconfigure(&mut world, ids[0], |config| config.ranges = [(wide, range(10, template("rack")))].into());
    world.run_for(seconds(120)).unwrap();
    assert_eq!(established(&world, ids[0]), 2);
    reconfigure(&mut world, ids[0], |config| config.ranges.clear());
    world.run_for(Duration::from_millis(100)).unwrap();
    assert!(peers(&world, ids[0]).is_empty() && world.kernel(ids[0]).is_empty());
    let error = peers(&world, ids[1])[0].last_error.clone().unwrap();
    assert!(error.text.contains("De-configured"), "{error:?}");
}

#[test]
fn a_session_goes_on_when_its_peer_is_named_and_when_it_is_named_no_more() {
    let (mut world, ids) = star(9, 1, [(net("10.0.0.0/24"), range(10, template("rack")))]);
    let before = (peers(&world, ids[0])[0].id, peers(&world, ids[0])[0].since);
    let address: PeerAddress = v4(1).into();
    let named = PeerConfig { remote_as: RemoteAs::Exactly(Asn(asn(1))), name: "tor".into(), ..template("") };
    reconfigure(&mut world, ids[0], |config| drop(config.peers.insert(address, Arc::new(named))));
    let status = peers(&world, ids[0]).remove(0);
    assert_eq!(((status.id, status.since), status.range, status.config.name.as_str()), (before, None, "tor"));
    reconfigure(&mut world, ids[0], |config| drop(config.peers.remove(&address)));
    let status = peers(&world, ids[0]).remove(0);
    assert_eq!((status.id, status.since), before);
    assert_eq!((status.range, status.config.name.as_str()), (Some(net("10.0.0.0/24")), "rack"));
}

/// Else it would begin anew at once.
#[test]
fn a_peer_that_has_told_too_much_stays_out_until_it_is_cleared() {
    let max_prefixes = Some(MaxPrefixes { limit: 1, warning: 1, action: LimitAction::Stop });
    let strict = PeerConfig { max_prefixes, ..template("rack") };
    let mut world = World::new(10);
    let id = add(&mut world, SERVER, server([(net("10.0.0.0/24"), range(10, strict))]));
    let mut many = client(1);
    many.originate.insert(net("10.77.0.0/24"), <_>::default());
    let many = add(&mut world, 1, many);
    world.run_for(seconds(300)).unwrap();
    let status = peers(&world, id).remove(0);
    assert!(status.over_limit && status.counters.flaps == 1, "{status:?}");
    reconfigure(&mut world, many, |config| drop(config.originate.remove(&net("10.77.0.0/24"))));
    world.tell(id, Input::Reset { peer: v4(1).into() });
    world.run_for(seconds(120)).unwrap();
    assert_eq!(established(&world, id), 1);
}
