use super::*;
use crate::rib::samples;
use crate::wire::attributes::{AsPath, GRACEFUL_SHUTDOWN, Origin, Segment, SegmentKind, UnknownAttribute};
use std::net::SocketAddr;

const EBGP: Provenance = from(PathType::Learned(PeerType::External), false);
const IBGP: Provenance = from(PathType::Learned(PeerType::Internal), false);
const CLIENT: Provenance = from(PathType::Learned(PeerType::Internal), true);
const LOCAL: Provenance = from(PathType::Local, false);
const CLUSTER: Ipv4Addr = Ipv4Addr::new(7, 7, 7, 7);
const IDENTIFIER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);

const fn from(path_type: PathType, client: bool) -> Provenance {
    Provenance { path_type, client, identifier: IDENTIFIER }
}

fn exporter(peer_type: PeerType, local: &str, change: impl FnOnce(&mut PeerConfig)) -> Exporter {
    let mut config = samples::config();
    change(&mut config);
    let session =
        Session { local: SocketAddr::new(local.parse().unwrap(), 179), ..samples::session(peer_type) };
    Exporter::new(Terms::new(&config, &session, CLUSTER))
}

fn learned() -> PathAttributes {
    PathAttributes {
        origin: Origin::Egp,
        as_path: AsPath(vec![Segment { kind: SegmentKind::Sequence, asns: vec![Asn(65009)] }]),
        next_hop: "198.51.100.1".parse().unwrap(),
        next_hop_link_local: None,
        med: Some(7),
        local_pref: Some(250),
        atomic_aggregate: true,
        aggregator: None,
        communities: vec![1],
        ext_communities: vec![],
        large_communities: vec![],
        originator_id: Some(Ipv4Addr::new(1, 1, 1, 1)),
        cluster_list: vec![Ipv4Addr::new(2, 2, 2, 2)],
        only_to_customer: None,
        unknown: vec![UnknownAttribute { flags: 0xC0, code: 200, value: [1, 2].into() }],
        partial: <_>::default(),
    }
}

fn code(exporter: &Exporter, prefix: &str, path: Provenance, attributes: &PathAttributes) -> String {
    let admitted = exporter.admit(&prefix.parse().unwrap(), &path, attributes);
    admitted.map_or_else(|withheld| withheld.reason().code.into(), |_| "told".into())
}

/// Proves RFC 4271 5.1.
#[test]
fn an_external_peer_sees_no_confederation() {
    let confederation = |kind| Segment { kind, asns: vec![Asn(64900)] };
    let mut attributes = learned();
    attributes.as_path.0.insert(0, confederation(SegmentKind::ConfedSequence));
    attributes.as_path.0.push(confederation(SegmentKind::ConfedSet));
    let exporter = exporter(PeerType::External, "10.0.0.1", |_| {});
    let told = exporter.rewrite(Family::Ipv4Unicast, &IBGP, &attributes, None);
    let only = Segment { kind: SegmentKind::Sequence, asns: vec![Asn(65000), Asn(65009)] };
    assert_eq!(told.as_path, AsPath(vec![only]));
}

#[test]
fn an_external_peer_sees_our_as_and_address_and_nothing_internal() {
    let told = exporter(PeerType::External, "10.0.0.1", |_| {}).rewrite(
        Family::Ipv4Unicast,
        &IBGP,
        &learned(),
        None,
    );
    assert_eq!(told.as_path.0[0].asns, [Asn(65000), Asn(65009)]);
    assert_eq!(told.next_hop, IpAddr::from([10, 0, 0, 1]));
    assert_eq!(
        (told.local_pref, told.med, told.originator_id, told.cluster_list),
        (None, None, None, vec![])
    );
    assert_eq!((told.unknown[0].flags, told.atomic_aggregate, told.communities), (0xE0, true, vec![1]));
}

/// Proves RFC 4271 5.1.
#[test]
fn an_internal_peer_sees_the_path_as_it_is() {
    let exporter = exporter(PeerType::Internal, "10.0.0.1", |_| {});
    let told = exporter.rewrite(Family::Ipv4Unicast, &EBGP, &learned(), None);
    assert_eq!((told.as_path, told.next_hop), (learned().as_path, learned().next_hop));
    // What an external path has is import policy's.
    assert_eq!((told.local_pref, told.med), (Some(250), Some(7)));
    let without = PathAttributes { local_pref: None, ..learned() };
    assert_eq!(exporter.rewrite(Family::Ipv4Unicast, &EBGP, &without, None).local_pref, Some(100));
    let own = PathAttributes { next_hop: IpAddr::from([0; 4]), local_pref: None, ..learned() };
    let told = exporter.rewrite(Family::Ipv4Unicast, &LOCAL, &own, None);
    assert_eq!((told.next_hop, told.local_pref), (IpAddr::from([10, 0, 0, 1]), Some(100)));
}

#[test]
fn a_path_that_is_about_to_go_stays_the_last_choice_of_the_whole_as() {
    let internal = exporter(PeerType::Internal, "10.0.0.1", |_| {});
    let going = PathAttributes { communities: vec![GRACEFUL_SHUTDOWN], ..learned() };
    let pref = |from: Provenance| internal.rewrite(Family::Ipv4Unicast, &from, &going, None).local_pref;
    // An internal peer has judged for itself.
    assert_eq!((pref(EBGP), pref(IBGP)), (Some(0), Some(250)));
}

#[test]
fn the_next_hop_mode_overrules_the_session_type() {
    let next_hop = |peer_type, mode| {
        let exporter = exporter(peer_type, "10.0.0.1", |config| config.next_hop_mode = mode);
        exporter.rewrite(Family::Ipv4Unicast, &EBGP, &learned(), None).next_hop.to_string()
    };
    assert_eq!(next_hop(PeerType::External, NextHopMode::Auto), "10.0.0.1");
    assert_eq!(next_hop(PeerType::External, NextHopMode::Own), "10.0.0.1");
    assert_eq!(next_hop(PeerType::External, NextHopMode::Keep), "198.51.100.1");
    assert_eq!(next_hop(PeerType::Internal, NextHopMode::Auto), "198.51.100.1");
    assert_eq!(next_hop(PeerType::Internal, NextHopMode::Own), "10.0.0.1");
}

#[test]
fn the_other_family_has_its_next_hop_from_the_configuration() {
    let without = exporter(PeerType::External, "::ffff:10.0.0.1", |_| {});
    assert_eq!(code(&without, "2001:db8::/32", LOCAL, &learned()), "no-own-next-hop");
    assert_eq!(code(&without, "10.0.0.0/8", LOCAL, &learned()), "told");
    let with = exporter(PeerType::External, "10.0.0.1", |c| c.next_hop_v6 = "2001:db8::1".parse().ok());
    assert_eq!(code(&with, "2001:db8::/32", LOCAL, &learned()), "told");
    let told = with.rewrite(Family::Ipv6Unicast, &LOCAL, &learned(), None);
    assert_eq!(told.next_hop, "2001:db8::1".parse::<IpAddr>().unwrap());
}

#[test]
fn who_is_told_what() {
    let external = exporter(PeerType::External, "10.0.0.1", |_| {});
    let internal = exporter(PeerType::Internal, "10.0.0.1", |_| {});
    let marked = |community| PathAttributes { communities: vec![community], ..learned() };
    let cases = [
        (&internal, IBGP, learned(), "ibgp-not-readvertised"),
        (&internal, EBGP, learned(), "told"),
        (&external, IBGP, learned(), "told"),
        (&external, EBGP, marked(NO_EXPORT), "community"),
        (&internal, EBGP, marked(NO_EXPORT), "told"),
        (&external, EBGP, marked(NO_EXPORT_SUBCONFED), "community"),
        (&internal, EBGP, marked(NO_ADVERTISE), "community"),
        (&external, LOCAL, marked(NO_EXPORT), "told"),
    ];
    for (exporter, path, attributes, expected) in cases {
        assert_eq!(code(exporter, "10.0.0.0/8", path, &attributes), expected);
    }
    let mut no_v4 = exporter(PeerType::External, "10.0.0.1", |_| {});
    no_v4.terms.families = [Family::Ipv6Unicast].into_iter().collect();
    assert_eq!(code(&no_v4, "10.0.0.0/8", EBGP, &learned()), "family-not-negotiated");
    let silent = exporter(PeerType::External, "10.0.0.1", |c| Arc::make_mut(&mut c.export).rules.clear());
    assert_eq!(code(&silent, "10.0.0.0/8", EBGP, &learned()), "unmatched");
}

/// RFC 4456 section 6, and RFC 4271 for what comes from or goes outside.
#[test]
fn who_is_told_whose_path() {
    let external = exporter(PeerType::External, "10.0.0.1", |_| {});
    let internal = exporter(PeerType::Internal, "10.0.0.1", |_| {});
    let client = exporter(PeerType::Internal, "10.0.0.1", |c| c.route_reflector_client = true);
    // An external peer is nobody's client.
    let misnamed = exporter(PeerType::External, "10.0.0.1", |c| c.route_reflector_client = true);
    for (path, to_external, to_internal, to_client) in [
        (LOCAL, "told", "told", "told"),
        (EBGP, "told", "told", "told"),
        (IBGP, "told", "ibgp-not-readvertised", "told"),
        (CLIENT, "told", "told", "told"),
    ] {
        for (exporter, expected) in [
            (&external, to_external),
            (&internal, to_internal),
            (&client, to_client),
            (&misnamed, to_external),
        ] {
            assert_eq!(code(exporter, "10.0.0.0/8", path, &learned()), expected, "{path:?}");
        }
    }
    let marked = PathAttributes { communities: vec![NO_ADVERTISE], ..learned() };
    assert_eq!(code(&client, "10.0.0.0/8", IBGP, &marked), "community");
    let marked = PathAttributes { communities: vec![NO_EXPORT], ..learned() };
    assert_eq!(code(&client, "10.0.0.0/8", IBGP, &marked), "told");
}

#[test]
fn a_policy_tells_what_is_reflected_from_transit() {
    let only = |source| {
        exporter(PeerType::Internal, "10.0.0.1", |config| {
            config.route_reflector_client = true;
            Arc::make_mut(&mut config.export).rules[0].source = Some(source);
        })
    };
    let reflected = only(RouteSource::Reflected);
    assert_eq!(code(&reflected, "10.0.0.0/8", IBGP, &learned()), "told");
    assert_eq!(code(&reflected, "10.0.0.0/8", EBGP, &learned()), "unmatched");
    assert_eq!(code(&reflected, "10.0.0.0/8", LOCAL, &learned()), "unmatched");
    let transit = only(RouteSource::RemotePeers);
    assert_eq!(code(&transit, "10.0.0.0/8", CLIENT, &learned()), "told");
}

/// RFC 4456 section 10: nothing but ORIGINATOR_ID and CLUSTER_LIST is touched, whatever the next-hop mode.
/// Proves RFC 4456 10.
#[test]
fn a_reflected_path_is_the_path_as_it_was() {
    for mode in [NextHopMode::Auto, NextHopMode::Own, NextHopMode::Keep] {
        let exporter = exporter(PeerType::Internal, "10.0.0.1", |c| c.next_hop_mode = mode);
        let first = PathAttributes { originator_id: None, cluster_list: vec![], ..learned() };
        let mut expected =
            PathAttributes { originator_id: Some(IDENTIFIER), cluster_list: vec![CLUSTER], ..first.clone() };
        expected.unknown[0].flags |= PARTIAL;
        assert_eq!(exporter.rewrite(Family::Ipv4Unicast, &CLIENT, &first, None), expected, "{mode:?}");
        // One that was reflected before keeps who began it, and lists us first.
        let told = exporter.rewrite(Family::Ipv4Unicast, &CLIENT, &learned(), None);
        assert_eq!(told.originator_id, learned().originator_id);
        assert_eq!(told.cluster_list, [CLUSTER, Ipv4Addr::new(2, 2, 2, 2)]);
        // What is not reflected begins no cluster list.
        let own = exporter.rewrite(Family::Ipv4Unicast, &LOCAL, &first, None);
        assert_eq!((own.originator_id, own.cluster_list), (None, vec![]));
    }
}

#[test]
fn a_link_local_next_hop_stays_on_its_link() {
    let exporter = exporter(PeerType::Internal, "10.0.0.1", |c| c.route_reflector_client = true);
    let path = PathAttributes {
        next_hop: "2001:db8::9".parse().unwrap(),
        next_hop_link_local: "fe80::9".parse().ok(),
        ..learned()
    };
    let told = exporter.rewrite(Family::Ipv6Unicast, &IBGP, &path, None);
    assert_eq!((told.next_hop, told.next_hop_link_local), (path.next_hop, None));
}

#[test]
fn what_is_reflected_from_one_link_to_another_leads_over_us() {
    let mut config = PeerConfig { route_reflector_client: true, ..samples::config() };
    config.next_hop_v6 = "2001:db8::1".parse().ok();
    let local = SocketAddr::V6(std::net::SocketAddrV6::new("fe80::1".parse().unwrap(), 179, 0, 7));
    let session = Session { local, ..samples::session(PeerType::Internal) };
    let exporter = Exporter::new(Terms::new(&config, &session, CLUSTER));
    let path = PathAttributes { next_hop: "fe80::9".parse().unwrap(), ..learned() };
    let told = exporter.rewrite(Family::Ipv6Unicast, &CLIENT, &path, None);
    assert_eq!(
        (told.next_hop.to_string(), told.next_hop_link_local),
        ("2001:db8::1".into(), "fe80::1".parse().ok())
    );
    assert_eq!(told.cluster_list.first(), Some(&CLUSTER));
}
