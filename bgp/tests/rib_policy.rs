//! What policy does to routes, and that another policy is applied to a standing session without more words than it needs.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod rib_support;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ipnet::IpNet;
use proptest::prelude::*;
use rib_support::*;
use weft_bgp::config::{Aggregation, Origination, PeerConfig};
use weft_bgp::ingress::Down;
use weft_bgp::policy::{DISCARD, Operation, Policy, PrefixMatch, PrefixRange, Rule, Verdict};
use weft_bgp::rib::RibInput;
use weft_bgp::speaker::{Resolution, TrackedNextHop};
use weft_bgp::status::{RibView, RouteSelect};
use weft_bgp::types::{Asn, PeerId, Reason};
use weft_bgp::wire::attributes::{Aggregator, PathAttributes};

const PREFIXES: [&str; 3] = ["10.0.0.0/24", "10.0.1.0/24", "10.0.2.0/24"];

fn prefixes() -> Vec<IpNet> {
    PREFIXES.map(net).to_vec()
}

/// Peer 1 is external, peer 2 internal, peer 3 external.
fn lab() -> Lab {
    let mut lab = Lab::advertising();
    for (peer, asn) in [(1, Asn(65001)), (2, OWN), (3, Asn(65003))] {
        lab.peer(peer, config());
        lab.up(session(peer, asn));
    }
    lab
}

fn accept_with(operations: Vec<Operation>) -> Rule {
    Rule::new(Verdict::AcceptWith(operations.into()))
}

fn only(prefix: &str, rule: Rule) -> Rule {
    let net = net(prefix);
    let range = PrefixRange { net, min_len: net.prefix_len(), max_len: net.prefix_len() };
    Rule { prefixes: Some(PrefixMatch { ranges: vec![range], negated: false }), ..rule }
}

fn policy(rules: Vec<Rule>) -> Arc<Policy> {
    Arc::new(Policy { rules, unmatched: Reason::new("unmatched", "no rule matches") })
}

fn import(lab: &mut Lab, rules: Vec<Rule>) {
    lab.peer(1, PeerConfig { import: policy(rules), ..config() });
    lab.read_all();
}

fn carrying(communities: &[&str]) -> PathAttributes {
    let mut attributes = attributes(&[65001], "192.0.2.1");
    for community in communities {
        community.parse::<weft_bgp::policy::Community>().unwrap().add_to(&mut attributes);
    }
    attributes
}

fn shown(lab: &Lab, view: RibView, prefix: &str) -> PathAttributes {
    let routes = lab.rib.routes(view, RouteSelect::Exact(net(prefix)));
    (*routes[0].paths[0].attributes).clone()
}

#[test]
fn another_import_policy_is_applied_to_what_was_received_and_back() {
    let mut lab = lab();
    lab.announce(1, carrying(&["65001:7"]), &prefixes());
    lab.read_all();
    let before = lab.sink(2).table.clone();
    import(
        &mut lab,
        vec![
            only(PREFIXES[0], accept_with(vec![Operation::SetLocalPreference(300), Operation::SetMed(5)])),
            only(PREFIXES[1], Rule::new(Verdict::Reject(Reason::new("no", "no")))),
            accept_with(vec![]),
        ],
    );
    let table = &lab.sink(2).table;
    assert_eq!(table.get(&net(PREFIXES[1])), None);
    assert_eq!(table[&net(PREFIXES[2])], before[&net(PREFIXES[2])]);
    let told = &table[&net(PREFIXES[0])];
    assert_eq!((told.local_pref, told.med), (Some(300), Some(5)));
    // The Adj-RIB-In holds what the peer said, the Loc-RIB what policy made of it.
    let received = shown(&lab, RibView::In(address(1).into()), PREFIXES[0]);
    let taken = shown(&lab, RibView::Loc, PREFIXES[0]);
    assert_eq!((received.local_pref, received.med), (None, None));
    assert_eq!((taken.local_pref, taken.med), (Some(300), Some(5)));
    import(&mut lab, accept_all().rules);
    assert_eq!(lab.sink(2).table, before);
    // The session stood all the time.
    assert_eq!(lab.sink(2).end_of_rib.len(), 2);
}

#[test]
fn an_equal_import_policy_changes_nothing() {
    let mut lab = lab();
    let rules = || vec![accept_with(vec![Operation::AddCommunity("65000:9".parse().unwrap())])];
    import(&mut lab, rules());
    lab.announce(1, carrying(&[]), &prefixes());
    lab.read_all();
    let (announced, changes) = (lab.sink(2).announced, lab.best_path_changes);
    // One rule more, and so another policy, that makes the same of every route.
    import(&mut lab, [vec![only("192.168.0.0/16", rules().remove(0))], rules()].concat());
    assert_eq!((lab.sink(2).announced, lab.best_path_changes), (announced, changes));
}

#[test]
fn another_export_policy_tells_only_the_routes_that_differ() {
    let mut lab = lab();
    lab.announce(1, carrying(&[]), &prefixes());
    lab.read_all();
    let prepend = accept_with(vec![
        Operation::PrependAsPath(vec![OWN, OWN]),
        Operation::SetMed(9),
        Operation::AddCommunity("4200000000:1:2".parse().unwrap()),
    ]);
    let rules = vec![only(PREFIXES[1], prepend), Rule::new(Verdict::Accept)];
    lab.peer(3, PeerConfig { export: policy(rules), ..config() });
    lab.read_all();
    let sink = lab.sink(3);
    assert_eq!((sink.announced, sink.withdrawn, sink.end_of_rib.len()), (3 + 1, 0, 2));
    let told = &sink.table[&net(PREFIXES[1])];
    assert_eq!(told.as_path, path(&[65000, 65000, 65000, 65001]));
    assert_eq!((told.med, told.large_communities.as_slice()), (Some(9), &[[4_200_000_000, 1, 2]][..]));
    assert_eq!((sink.table[&net(PREFIXES[0])].med, lab.sink(2).announced), (None, 3));
}

#[test]
fn communities_and_as_paths_are_matched_as_received() {
    let mut lab = lab();
    let matching = |communities: &[&str], asns: &[u32], code: &'static str| Rule {
        communities: communities.iter().map(|c| c.parse().unwrap()).collect(),
        as_path_prefix: asns.iter().copied().map(Asn).collect(),
        ..Rule::new(Verdict::Reject(Reason::new(code, "rejected")))
    };
    import(
        &mut lab,
        vec![
            matching(&["65001:1", "rt:65001:1"], &[], "both"),
            matching(&["65001:1"], &[], "one"),
            matching(&["no-export"], &[], "well-known"),
            matching(&["1:2:3"], &[], "large"),
            matching(&[], &[65001, 65002], "path"),
        ],
    );
    let long = PathAttributes { as_path: path(&[65001, 65002, 65003]), ..carrying(&[]) };
    for (attributes, code) in [
        (carrying(&["65001:1", "65001:2", "rt:65001:1"]), "both"),
        (carrying(&["65001:1", "ro:65001:1"]), "one"),
        (carrying(&["no-export"]), "well-known"),
        (carrying(&["1:2:3", "1:2:4"]), "large"),
        (long, "path"),
        (carrying(&["65001:3", "1:2:4"]), "unmatched"),
    ] {
        lab.announce(1, attributes, &[net(PREFIXES[0])]);
        let routes = lab.rib.routes(RibView::In(address(1).into()), RouteSelect::All);
        assert_eq!(routes[0].paths[0].reason.code, code);
    }
}

/// Whoever tells us our own route does no harm; whoever originates it beside us is alarmed, even where our AS may occur in paths.
#[test]
fn only_a_route_that_another_as_originates_is_a_duplicate() {
    let mut lab = lab();
    let reject =
        |code: &'static str| only(PREFIXES[0], Rule::new(Verdict::Reject(Reason::new(code, "ours"))));
    let rules = policy(vec![
        Rule { not_originated_by: vec![OWN, Asn(65100)], ..reject("duplicate-origin") },
        reject("own-block"),
        Rule::new(Verdict::Accept),
    ]);
    let duplicates = |lab: &Lab, peer| lab.rib.rejections(PeerId(peer)).duplicate_origin;
    for allowed_own_as in [0, 1] {
        lab.peer(1, PeerConfig { import: Arc::clone(&rules), allowed_own_as, ..config() });
        for (as_path, code) in [
            (&[65001, 65000][..], "own-block"),
            (&[65001, 65002, 65100], "own-block"),
            // AS override, in which our AS or another's may be hidden.
            (&[65001, 65001], "own-block"),
            (&[65001, 65002, 65003, 65003], "own-block"),
            (&[65001, 65004], "duplicate-origin"),
            (&[65001, 65000, 65004], "duplicate-origin"),
            (&[65001], "duplicate-origin"),
            (&[65001, 65000], "own-block"),
        ] {
            lab.announce(1, attributes(as_path, "192.0.2.1"), &prefixes());
            let routes = lab.rib.routes(RibView::In(address(1).into()), RouteSelect::Exact(net(PREFIXES[0])));
            assert_eq!(routes[0].paths[0].reason.code, code, "{as_path:?}");
            let duplicate = (code == "duplicate-origin").then(|| (1, net(PREFIXES[0])));
            assert_eq!(duplicates(&lab, 1), duplicate, "{as_path:?}");
        }
        // Once while it stands, however its path changes.
        assert_eq!(std::mem::take(&mut lab.alarms), [(PeerId(1), net(PREFIXES[0]))]);
    }
    lab.peer(2, PeerConfig { import: rules, ..config() });
    lab.announce(2, attributes(&[], "192.0.2.2"), &prefixes());
    assert_eq!((duplicates(&lab, 2), lab.alarms.as_slice()), (None, &[][..]));
    lab.announce(2, attributes(&[65004], "192.0.2.2"), &prefixes());
    assert_eq!(duplicates(&lab, 2), Some((1, net(PREFIXES[0]))));
    assert_eq!(lab.alarms, [(PeerId(2), net(PREFIXES[0]))]);
}

/// RFC 1997: what was received with these does not go where they forbid; what we originate may carry them to peers.
/// Proves RFC 1997.
#[test]
fn rfc_1997_no_export_and_no_advertise_bind_what_was_received() {
    let mut lab = lab();
    for (community, internal, external) in [
        ("no-export", true, false),
        ("no-export-subconfed", true, false),
        ("no-advertise", false, false),
        ("blackhole", true, true),
        ("65000:1", true, true),
    ] {
        lab.announce(1, carrying(&[community]), &[net(PREFIXES[0])]);
        lab.read_all();
        let told = [2, 3].map(|peer| lab.sink(peer).table.contains_key(&net(PREFIXES[0])));
        assert_eq!(told, [internal, external], "{community}");
        let status = lab.rib.routes(RibView::Out(address(3).into()), RouteSelect::Exact(net(PREFIXES[0])));
        assert_eq!(status[0].paths[0].reason.code == "community", !external, "{community}");
    }
    // Import policy may put one on, or take one off; export policy is asked after that.
    let community = || "no-export".parse().unwrap();
    import(&mut lab, vec![accept_with(vec![Operation::AddCommunity(community())])]);
    assert!(!lab.sink(3).table.contains_key(&net(PREFIXES[0])));
    lab.announce(1, carrying(&["no-export"]), &[net(PREFIXES[0])]);
    import(&mut lab, vec![accept_with(vec![Operation::RemoveCommunity(community())])]);
    assert!(lab.sink(3).table.contains_key(&net(PREFIXES[0])));
}

/// RFC 8326: the last choice, whatever the import policy prefers, unless that takes the community off.
/// Proves RFC 8326 4.
#[test]
fn rfc_8326_graceful_shutdown_overrules_the_local_preference_of_a_policy() {
    let mut lab = lab();
    lab.announce(1, carrying(&["graceful-shutdown"]), &prefixes());
    lab.read_all();
    let pref = |lab: &Lab| lab.sink(2).table[&net(PREFIXES[0])].local_pref;
    assert_eq!(pref(&lab), Some(0));
    import(&mut lab, vec![accept_with(vec![Operation::SetLocalPreference(300)])]);
    assert_eq!(pref(&lab), Some(0));
    let removed = Operation::RemoveCommunity("graceful-shutdown".parse().unwrap());
    import(&mut lab, vec![accept_with(vec![Operation::SetLocalPreference(300), removed])]);
    assert_eq!(pref(&lab), Some(300));
}

#[test]
fn a_next_hop_that_import_policy_sets_is_the_one_that_is_looked_up() {
    let mut lab = lab();
    lab.configure(true, 16, []);
    lab.announce(1, carrying(&[]), &prefixes());
    lab.next_hop("192.0.2.1", Resolution::OnLink);
    let set = ip("192.0.2.77");
    import(&mut lab, vec![accept_with(vec![Operation::SetNextHop(set)])]);
    let tracked = TrackedNextHop { address: set, default_route: false, link: None };
    assert_eq!(lab.tracked, [tracked].into());
    assert!(lab.kernel.is_empty());
    lab.next_hop("192.0.2.77", Resolution::OnLink);
    assert_eq!(lab.kernel[&net(PREFIXES[0])], [tracked]);
    import(&mut lab, accept_all().rules);
    assert_eq!(lab.tracked.iter().map(|t| t.address).collect::<Vec<_>>(), [ip("192.0.2.1")]);
}

/// A route that is to be dropped has a next hop that only policy sets, and is told to nobody.
/// Proves RFC 7999 3.2, RFC 6666.
#[test]
fn rfc7999_a_blackhole_has_the_next_hop_of_policy_alone_and_goes_nowhere() {
    let mut lab = lab();
    lab.configure(true, 16, []);
    let discard = IpAddr::V6(DISCARD);
    let tracked = |address| TrackedNextHop { address, default_route: false, link: None };
    lab.announce(1, PathAttributes { next_hop: discard, ..carrying(&["blackhole"]) }, &[net(PREFIXES[0])]);
    lab.announce(1, carrying(&["blackhole"]), &[net(PREFIXES[1])]);
    lab.next_hop("100::1", Resolution::OnLink);
    lab.next_hop("192.0.2.1", Resolution::OnLink);
    let code = |lab: &Lab, prefix: &str| {
        lab.rib.routes(RibView::Loc, RouteSelect::Exact(net(prefix)))[0].paths[0].reason.code.to_string()
    };
    assert_eq!(code(&lab, PREFIXES[0]), "next-hop-unresolved", "the peer's word");
    assert_eq!(lab.kernel.keys().copied().collect::<Vec<_>>(), [net(PREFIXES[1])]);
    let drop = vec![Operation::SetNextHop(discard), Operation::AddCommunity("no-advertise".parse().unwrap())];
    import(&mut lab, vec![accept_with(drop)]);
    lab.next_hop("100::1", Resolution::OnLink);
    for prefix in &PREFIXES[..2] {
        assert_eq!(
            (code(&lab, prefix), &lab.kernel[&net(prefix)][..]),
            ("best".into(), &[tracked(discard)][..])
        );
        let told = [2, 3].map(|peer| lab.sink(peer).table.contains_key(&net(prefix)));
        assert_eq!(told, [false, false], "{prefix}");
    }
}

/// What policy puts into the AS path is no loop, and what the peer put there stays one.
#[test]
fn the_loop_check_looks_at_the_path_as_received() {
    let mut lab = lab();
    import(&mut lab, vec![accept_with(vec![Operation::PrependAsPath(vec![OWN])])]);
    lab.announce(1, carrying(&[]), &[net(PREFIXES[0])]);
    let looping = PathAttributes { as_path: path(&[65001, 65000]), ..carrying(&[]) };
    lab.announce(1, looping, &[net(PREFIXES[1])]);
    let routes = lab.rib.routes(RibView::Loc, RouteSelect::All);
    assert_eq!(routes[0].paths[0].attributes.as_path, path(&[65000, 65001]));
    let codes: Vec<&str> = routes.iter().map(|route| &*route.paths[0].reason.code).collect();
    assert_eq!(codes, ["best", "own-as-in-path"]);
}

fn told(lab: &mut Lab, as_path: &[u32], change: impl FnOnce(&mut PeerConfig)) -> Vec<u32> {
    let mut towards = config();
    change(&mut towards);
    lab.peer(3, towards);
    lab.announce(1, PathAttributes { as_path: path(as_path), ..carrying(&[]) }, &[net(PREFIXES[0])]);
    lab.read_all();
    let path = &lab.sink(3).table[&net(PREFIXES[0])].as_path;
    path.0.iter().flat_map(|segment| &segment.asns).map(|asn| asn.0).collect()
}

#[test]
fn as_override_puts_our_as_in_the_place_of_the_peers() {
    let mut lab = lab();
    let long = [65001, 65003, 65002, 65003];
    assert_eq!(told(&mut lab, &long, |_| {}), [65000, 65001, 65003, 65002, 65003]);
    assert_eq!(told(&mut lab, &long, |c| c.as_override = true), [65000, 65001, 65000, 65002, 65000]);
    // An internal peer is told the path as it is.
    lab.peer(2, PeerConfig { as_override: true, remove_private_as: true, ..config() });
    lab.read_all();
    assert_eq!(lab.sink(2).table[&net(PREFIXES[0])].as_path, path(&long));
}

/// Proves RFC 6996.
#[test]
fn private_as_numbers_are_taken_out_but_for_the_peers_own() {
    let mut lab = lab();
    let long = [65001, 174, 65534, 65003, 64511, 65535, 4_200_000_000, 4_294_967_294, 3356];
    let remove = |c: &mut PeerConfig| c.remove_private_as = true;
    assert_eq!(told(&mut lab, &long, remove), [65000, 174, 65003, 64511, 65535, 3356]);
    assert_eq!(told(&mut lab, &[65001], remove), [65000]);
    // What a filter prepends is meant.
    let prepend = accept_with(vec![Operation::PrependAsPath(vec![Asn(65009)])]);
    let both = |c: &mut PeerConfig| {
        (c.remove_private_as, c.as_override, c.export) = (true, true, policy(vec![prepend]));
    };
    assert_eq!(told(&mut lab, &[65001, 65003, 174], both), [65000, 65009, 65000, 174]);
}

/// Originates an aggregate, 10.0.0.0/16, and the prefixes of ours that are given.
fn aggregate(lab: &mut Lab, aggregation: Option<Aggregation>, own: &[&str]) {
    let own = own.iter().map(|prefix| (net(prefix), Origination::default()));
    let whole = aggregation.map(|_| (net(WHOLE), Origination { aggregation, ..Origination::default() }));
    lab.input(RibInput::Configure {
        asn: OWN,
        router_id: Ipv4Addr::new(9, 9, 9, 9),
        cluster_id: None,
        max_paths: 16,
        install_routes: true,
        next_hop_tracking: false,
        originate: own.chain(whole).collect(),
    });
    lab.read_all();
}

const WHOLE: &str = "10.0.0.0/16";

fn told_to(lab: &Lab, peer: u32) -> Vec<String> {
    lab.sink(peer).table.keys().map(ToString::to_string).collect()
}

#[test]
fn an_aggregate_is_announced_while_a_route_lies_inside() {
    let mut lab = lab();
    aggregate(&mut lab, Some(Aggregation::WithSpecifics), &[]);
    lab.announce(1, carrying(&["65001:7"]), &[net("10.1.0.0/24"), net("10.0.0.0/8"), net(WHOLE)]);
    lab.read_all();
    let without = ["10.0.0.0/8", WHOLE, "10.1.0.0/24"];
    assert_eq!(told_to(&lab, 3), without);
    assert_eq!(lab.sink(3).table[&net(WHOLE)].as_path, path(&[65000, 65001]));
    assert!(lab.aggregates.is_empty());
    lab.announce(1, carrying(&["65001:7"]), &prefixes());
    lab.read_all();
    let told = &lab.sink(3).table[&net(WHOLE)];
    assert_eq!((told.as_path.clone(), told.communities.len()), (path(&[65000]), 0));
    let aggregator = Aggregator { asn: OWN, address: Ipv4Addr::new(9, 9, 9, 9) };
    assert_eq!((told.atomic_aggregate, told.aggregator), (true, Some(aggregator)));
    assert_eq!(lab.sink(3).table.len(), 6);
    assert_eq!(lab.aggregates, [net(WHOLE)].into());
    // What the aggregate overrules leaves the kernel.
    assert!(!lab.kernel.contains_key(&net(WHOLE)));
    lab.withdraw(1, &prefixes()[1..]);
    lab.read_all();
    assert_eq!(lab.sink(3).table[&net(WHOLE)].as_path, path(&[65000]));
    lab.withdraw(1, &prefixes()[..1]);
    lab.read_all();
    assert_eq!(lab.sink(3).table[&net(WHOLE)].as_path, path(&[65000, 65001]));
    assert!(lab.aggregates.is_empty() && lab.kernel.contains_key(&net(WHOLE)));
    // The last one goes together with the session; nothing is left.
    lab.announce(1, carrying(&[]), &prefixes());
    lab.down(1, Down::Death);
    lab.read_all();
    assert!(told_to(&lab, 3).is_empty() && lab.aggregates.is_empty() && lab.rib.is_empty());
}

#[test]
fn there_is_a_route_at_every_moment_while_an_aggregate_takes_the_place_of_its_routes_and_gives_it_back() {
    let mut lab = lab();
    let own = ["10.0.7.0/26", "10.0.8.0/26"];
    aggregate(&mut lab, None, &own);
    for (aggregation, told) in [(Some(Aggregation::SummaryOnly), &[WHOLE][..]), (None, &own)] {
        lab.sinks.get_mut(&PeerId(3)).unwrap().fewest = usize::MAX;
        aggregate(&mut lab, aggregation, &own);
        assert_eq!(told_to(&lab, 3), told);
        assert!(lab.sink(3).fewest > 0, "{aggregation:?}");
    }
}

#[test]
fn whoever_is_not_told_an_aggregate_any_more_is_told_its_routes() {
    let mut lab = lab();
    let secret: weft_bgp::policy::Community = "65001:666".parse().unwrap();
    let hide =
        Rule { communities: vec![secret], ..Rule::new(Verdict::Reject(Reason::new("secret", "secret"))) };
    lab.peer(3, PeerConfig { export: policy(vec![hide, accept_with(vec![])]), ..config() });
    let own = ["10.0.7.0/26", "10.0.8.0/26"];
    aggregate(&mut lab, Some(Aggregation::SummaryOnly), &own);
    assert_eq!(told_to(&lab, 3), [WHOLE]);

    let aggregation = Some(Aggregation::SummaryOnly);
    let whole = Origination { aggregation, communities: [secret].into() };
    let specifics = own.iter().map(|prefix| (net(prefix), Origination::default()));
    lab.input(RibInput::Configure {
        asn: OWN,
        router_id: Ipv4Addr::new(9, 9, 9, 9),
        cluster_id: None,
        max_paths: 16,
        install_routes: true,
        next_hop_tracking: false,
        originate: specifics.chain([(net(WHOLE), whole)]).collect(),
    });
    lab.read_all();
    assert_eq!(told_to(&lab, 3), own);
    let shown = lab.rib.routes(RibView::Out(address(3).into()), RouteSelect::All);
    assert_eq!(shown.iter().map(|route| route.prefix.to_string()).collect::<Vec<_>>(), own);
}

/// Proves RFC 4360 6.
#[test]
fn rfc4360_what_is_not_transitive_stays_in_the_as() {
    let mut lab = lab();
    let (link_bandwidth, route_target) = ([0x40, 4, 0, 1, 0, 0, 0, 1], [0, 2, 0, 1, 0, 0, 0, 1]);
    let ext_communities = vec![route_target, link_bandwidth];
    lab.announce(1, PathAttributes { ext_communities, ..carrying(&[]) }, &prefixes());
    lab.read_all();
    let told = |peer| lab.sink(peer).table[&prefixes()[0]].ext_communities.clone();
    assert_eq!((told(2), told(3)), (vec![route_target, link_bandwidth], vec![route_target]));
}

#[test]
fn a_summary_only_aggregate_stands_for_its_routes_where_it_is_told() {
    let mut lab = lab();
    let own = ["10.0.7.0/26", "10.1.7.0/26"];
    aggregate(&mut lab, Some(Aggregation::SummaryOnly), &own);
    lab.announce(1, carrying(&[]), &prefixes());
    lab.read_all();
    assert_eq!(told_to(&lab, 3), [WHOLE, "10.1.7.0/26"]);
    assert_eq!((lab.sink(3).announced, lab.sink(3).withdrawn), (2, 0));
    let status = lab.rib.routes(RibView::Out(address(3).into()), RouteSelect::Exact(net(PREFIXES[0])));
    assert_eq!(status[0].paths[0].reason.code, "summarized");
    // Who is not told the aggregate is told its routes.
    let rejects = only(WHOLE, Rule::new(Verdict::Reject(Reason::new("no", "no"))));
    lab.peer(3, PeerConfig { export: policy(vec![rejects, Rule::new(Verdict::Accept)]), ..config() });
    lab.read_all();
    let specifics = ["10.0.0.0/24", "10.0.1.0/24", "10.0.2.0/24", "10.0.7.0/26", "10.1.7.0/26"];
    assert_eq!(told_to(&lab, 3), specifics);
    assert_eq!(told_to(&lab, 2), [WHOLE, "10.1.7.0/26"]);
    // Another word on it is an update, not a flap.
    aggregate(&mut lab, Some(Aggregation::WithSpecifics), &own);
    assert_eq!(
        told_to(&lab, 2),
        ["10.0.0.0/16", "10.0.0.0/24", "10.0.1.0/24", "10.0.2.0/24", "10.0.7.0/26", "10.1.7.0/26"]
    );
    aggregate(&mut lab, Some(Aggregation::SummaryOnly), &own);
    assert_eq!(told_to(&lab, 2), [WHOLE, "10.1.7.0/26"]);
    aggregate(&mut lab, None, &own);
    assert_eq!(told_to(&lab, 2), specifics);
    assert_eq!(lab.sink(2).end_of_rib.len(), 2);
}

proptest! {
    /// Whatever comes and goes, in whatever order: an aggregate is told exactly while a route lies inside, and with `SummaryOnly`
    /// nothing inside is.
    #[test]
    fn aggregates_follow_their_routes(
        steps in prop::collection::vec((0u8..8, 0u8..4, any::<bool>()), 0..40),
        aggregations in prop::collection::vec(prop::option::of(any::<bool>()), 1..4),
    ) {
        let mut lab = lab();
        let all = ["10.0.0.0/24", "10.0.0.0/15", "10.0.0.0/17", "10.0.128.0/17", WHOLE, "10.0.0.0/26", "10.2.0.0/24", "10.0.3.0/24"];
        let mut routes = BTreeSet::new();
        let turn = steps.len().div_ceil(aggregations.len()).max(1);
        for (i, (prefix, peer, comes)) in steps.iter().enumerate() {
            let aggregation = aggregations[i / turn];
            if i % turn == 0 {
                let aggregation = aggregation.map(|only| if only { Aggregation::SummaryOnly } else { Aggregation::WithSpecifics });
                aggregate(&mut lab, aggregation, &[]);
            }
            let (peer, prefix) = (if *peer == 0 { 2 } else { 1 }, net(all[usize::from(*prefix)]));
            if *comes {
                let as_path: &[u32] = if peer == 1 { &[65001] } else { &[] };
                lab.announce(peer, attributes(as_path, "192.0.2.1"), &[prefix]);
                routes.insert((peer, prefix));
            } else {
                lab.withdraw(peer, &[prefix]);
                routes.remove(&(peer, prefix));
            }
            lab.read_all();
            let whole = net(WHOLE);
            let inside = |p: &IpNet| whole.contains(p) && *p != whole;
            let mut wanted: BTreeSet<IpNet> = routes.iter().map(|(_, prefix)| *prefix).collect();
            let begins = aggregation.is_some() && wanted.iter().any(inside);
            if begins {
                wanted.insert(whole);
                wanted.retain(|p| aggregation == Some(false) || !inside(p));
            }
            let sink = lab.sink(3);
            prop_assert_eq!(sink.table.keys().copied().collect::<BTreeSet<_>>(), wanted);
            prop_assert_eq!(lab.aggregates.contains(&whole), begins);
            prop_assert_eq!(sink.table.get(&whole).is_some_and(|told| told.atomic_aggregate), begins);
        }
    }
}
