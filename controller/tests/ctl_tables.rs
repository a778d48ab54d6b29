//! What people see, drawn from fixed data.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that finds something else than it expects fails"
)]

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use weft_bgp::session::State;
use weft_bgp::types::{Family, Reason};
use weft_controller::api::ipam::{
    IpamAddressJson, IpamAddressState, IpamBlockJson, IpamBlockState, IpamHolderJson, IpamJson, IpamPodJson,
};
use weft_controller::api::json::{
    AddPathJson, AddressJson, AsPathElement, AuthenticationJson, BfdJson, CapabilitiesJson, ConfigStatusJson,
    DocumentError, DrainJson, DrainPhase, ErrorDirection, EventJson, FamilyJson, FibJson, FibNextHopJson,
    FibStatusJson, GracefulRestartJson, GracefulRestartRole, IpamStatusJson, LastErrorJson, ListenRangeJson,
    MaxPrefixesJson, MrtJson, OriginJson, PathJson, PeerCountJson, PeerJson, Problem, RoleJson, RouteJson,
    SpoofedJson, StatusJson, TimersJson,
};
use weft_controller::api::peer_detail::{
    CapabilityJson, ConfiguredTimersJson, ConnectionJson, MessageCountsJson, MessagesJson, NotificationJson,
    NotificationsJson, OpenJson, OpensJson, PeerDetailJson, SettingsJson, TcpAoJson, TcpAoKeyJson,
};
use weft_controller::api::{
    AddPathSend, AddPathSpec, MonitoredRib, NextHopMode, RejectedJson, ServicePrefixJson, ServicesStatusJson,
    StationErrorJson, StationJson,
};
use weft_controller::cluster::TrafficPolicy;
use weft_controller::ctl::tables;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// The moment at which the tables are drawn.
fn now() -> Timestamp {
    at(1_800_000_000)
}

fn peer(name: &str, address: &str) -> PeerJson {
    let family = FamilyJson {
        received: 4,
        accepted: 3,
        advertised: 1,
        stale: 0,
        long_lived_stale: 0,
        refused_paths: 0,
        as_set_routes: 0,
        rejected: BTreeMap::new(),
    };
    PeerJson {
        name: name.into(),
        peer: address.into(),
        listen_range: None,
        neighbour: None,
        remote_as: Some(65000),
        local_as: 64601,
        state: State::Established,
        role: Some(RoleJson { local: "customer".into(), remote: Some("provider".into()) }),
        capabilities: Some(CapabilitiesJson {
            four_octet_as: true,
            extended_next_hop: false,
            route_refresh: true,
            enhanced_route_refresh: true,
            extended_messages: true,
            add_path: AddPathJson { receive: vec![Family::Ipv4Unicast, Family::Ipv6Unicast], send: vec![] },
        }),
        timers: Some(TimersJson { hold_time: 90, keepalive_time: 30, send_hold_time: 480 }),
        since: Some(at(1_799_990_000)),
        families: vec![Family::Ipv4Unicast, Family::Ipv6Unicast],
        received: 8,
        accepted: 6,
        advertised: 2,
        per_family: BTreeMap::from([(Family::Ipv4Unicast, family.clone()), (Family::Ipv6Unicast, family)]),
        bfd: None,
        graceful_restart: Some(GracefulRestartJson {
            role: GracefulRestartRole::Both,
            restarting: false,
            stale_routes: 0,
            stale_until: None,
            notification: true,
            long_lived_time: Some(3600),
        }),
        authentication: None,
        ttl_security: None,
        max_prefixes: None,
        last_error: None,
        detail: PeerDetailJson::default(),
        route_reflector_client: false,
    }
}

/// What is known of a peer that has come up again after its other end was shut down.
fn detail() -> PeerDetailJson {
    let open = |asn, last: u8| OpenJson {
        asn,
        hold_time: 90,
        identifier: [10, 0, 1, last].into(),
        capabilities: vec![
            capability(1, Some("multiprotocol"), "ipv4-unicast"),
            capability(2, Some("route-refresh"), ""),
            capability(200, None, "0102"),
        ],
    };
    PeerDetailJson {
        last_established: Some(at(1_799_990_000)),
        flaps: 2,
        connection: Some(ConnectionJson {
            local: "10.0.1.1:40000".parse().unwrap(),
            remote: "10.0.1.0:179".parse().unwrap(),
        }),
        opens: OpensJson { sent: Some(open(64601, 1)), received: Some(open(65000, 0)) },
        settings: Some(SettingsJson {
            filters: vec!["from-tor".into(), "only-ours".into()],
            next_hop_mode: NextHopMode::Own,
            source_address: Some([10, 0, 1, 1].into()),
            ebgp_multihop: true,
            num_allowed_local_as_numbers: 1,
            allow_as_sets: true,
            as_override: true,
            remove_private_as: true,
            role_strict: true,
            add_path: Some(AddPathSpec { receive: true, send: Some(AddPathSend::All), send_max: Some(8) }),
            blackhole_cidrs: vec!["203.0.113.0/24".parse().unwrap()],
            passive: true,
            shutdown: Some("maintenance".into()),
        }),
        configured_timers: Some(ConfiguredTimersJson {
            hold_time: 90,
            keepalive_time: None,
            send_hold_time: Some(120),
            connect_retry_time: 5,
        }),
        tcp_ao: Some(TcpAoJson {
            keys: vec![
                TcpAoKeyJson { send_id: 2, receive_id: 3 },
                TcpAoKeyJson { send_id: 1, receive_id: 1 },
            ],
            sends_with: Some(1),
            asks_for: Some(3),
            bad_segments: Some(4),
        }),
        timer_expiries: BTreeMap::from([
            ("hold".to_owned(), at(1_800_000_083)),
            ("keepalive".to_owned(), at(1_800_000_012)),
        ]),
        messages: MessagesJson {
            sent: MessageCountsJson { open: 3, update: 7, notification: 0, keepalive: 400, route_refresh: 1 },
            received: MessageCountsJson {
                open: 3,
                update: 9,
                notification: 2,
                ..MessageCountsJson::default()
            },
            treated_as_withdraw: 1,
            attributes_discarded: 4,
            connections_refused: 5,
        },
        notifications: NotificationsJson {
            sent: None,
            received: Some(NotificationJson {
                time: at(1_799_989_990),
                code: 6,
                subcode: 9,
                name: "Cease/Hard Reset".into(),
                text: None,
                meaning: Some("Cease/Administrative Shutdown: maintenance".into()),
                data: "06020b6d61696e74656e616e6365".into(),
            }),
        },
    }
}

fn capability(code: u8, name: Option<&str>, value: &str) -> CapabilityJson {
    CapabilityJson { code, name: name.map(str::to_owned), value: value.to_owned() }
}

fn peers() -> Vec<PeerJson> {
    let down = PeerJson {
        remote_as: None,
        state: State::Active,
        role: None,
        capabilities: None,
        timers: None,
        since: Some(at(1_799_999_958)),
        received: 0,
        accepted: 0,
        advertised: 0,
        per_family: BTreeMap::new(),
        graceful_restart: None,
        authentication: Some(AuthenticationJson::TcpMd5),
        ttl_security: Some(2),
        max_prefixes: Some(MaxPrefixesJson { limit: 1000, warning: 750, exceeded: true }),
        last_error: Some(LastErrorJson {
            time: at(1_799_999_000),
            direction: ErrorDirection::Received,
            code: Some(6),
            subcode: Some(2),
            text: "Cease, Administrative Shutdown: maintenance".into(),
        }),
        ..peer("mesh:n2", "[fd00::2]:1790")
    };
    vec![peer("tor-rack1", "10.0.1.0"), down]
}

fn path(next_hop: &str, code: &'static str, text: &str) -> PathJson {
    PathJson {
        next_hops: vec![next_hop.parse().unwrap()],
        peer: Some(next_hop.into()),
        path_id: None,
        as_path: vec![AsPathElement::Number(65000), AsPathElement::Set(vec![64601, 64602])],
        origin: OriginJson::Igp,
        local_pref: None,
        med: Some(10),
        communities: vec!["65000:1".into(), "65000:1:2".into()],
        ext_communities: vec!["0002fde800000001".into()],
        originator_id: None,
        cluster_list: Vec::new(),
        only_to_customer: None,
        next_hop_over: None,
        valid: true,
        best: false,
        reason: Reason::new(code, text),
    }
}

fn routes() -> Vec<RouteJson> {
    let best = PathJson { best: true, ..path("10.0.1.0", "best", "the lowest router id") };
    let lost = PathJson {
        next_hop_over: Some("10.0.0.0/16".parse().unwrap()),
        ..path("10.0.2.0", "router-id", "its router id is higher")
    };
    let rejected =
        PathJson { valid: false, ..path("10.0.3.0", "own-block", "10.244.1.0/26 is a block of this node") };
    let own = PathJson {
        next_hops: Vec::new(),
        peer: None,
        as_path: Vec::new(),
        med: None,
        communities: Vec::new(),
        ext_communities: Vec::new(),
        best: true,
        ..path("0.0.0.0", "locally-originated", "originated by this node")
    };
    vec![
        RouteJson {
            prefix: "10.244.1.0/26".parse().unwrap(),
            best: Some(0),
            in_kernel: false,
            paths: vec![own, rejected],
        },
        RouteJson {
            prefix: "10.244.2.0/26".parse().unwrap(),
            best: Some(0),
            in_kernel: true,
            paths: vec![best, lost],
        },
    ]
}

fn status() -> StatusJson {
    StatusJson {
        node: "n1".into(),
        ok: false,
        problems: vec![
            Problem::error(
                "peer-down",
                "the session with mesh:n2 (fd00::2) is Active",
                "look at the other end",
            ),
            Problem::warning("routes-shadowed", "1 of our routes is hidden", "take the other route away"),
        ],
        addresses: ["10.0.1.1", "fd00::1"]
            .map(|address| AddressJson {
                address: address.parse().unwrap(),
                interface: "eth0".into(),
                reason: "the first InternalIP of the Node that is on a local interface".into(),
            })
            .into(),
        peers: PeerCountJson { up: 1, wanted: 2 },
        listen_ranges: Vec::new(),
        config: ConfigStatusJson { ok: false, errors: errors() },
        fib: FibStatusJson {
            wanted: 12,
            installed: 11,
            refused: 0,
            shadowed: 1,
            blackholes: 0,
            resilient_groups: 2,
            repaired: 3,
            learned_kept_out: false,
        },
        ipam: IpamStatusJson { blocks: vec![block("10.244.1.0/26", Some(64)), block("fd00::/64", None)] },
        spoofed: Some(SpoofedJson { ipv4: 3, ipv6: 0 }),
        services: Some(ServicesStatusJson {
            announced: 4,
            settling: 1,
            withheld: 2,
            rejected: Some(RejectedJson { ipv4: 5, ipv6: 0 }),
        }),
        drain: None,
        mrt: None,
    }
}

fn block(cidr: &str, size: Option<u64>) -> IpamBlockJson {
    IpamBlockJson {
        cidr: cidr.parse().unwrap(),
        pool: Some("pods".into()),
        state: IpamBlockState::Open,
        size,
        taken: 5,
        resting: 1,
        reserved: size.map(|_| 4),
        free: size.map(|size| size - 10),
        announced: true,
    }
}

fn errors() -> Vec<DocumentError> {
    vec![
        DocumentError {
            file: Some("peers.yaml".into()),
            line: Some(12),
            object: Some("BGPPeer/tor-a".into()),
            field: Some("spec.asNumber".into()),
            message: "AS 0 is reserved (RFC 7607)".into(),
            remedy: "use 1 to 4294967294".into(),
        },
        DocumentError {
            file: None,
            line: None,
            object: None,
            field: None,
            message: "the folder is larger than 64 MiB".into(),
            remedy: "keep only documents in it".into(),
        },
    ]
}

#[test]
fn status_tells_problems_with_remedies() {
    insta::assert_snapshot!("status", tables::status(&status(), false));
    insta::assert_snapshot!("status_wide", tables::status(&status(), true));
    let well = StatusJson {
        ok: true,
        problems: Vec::new(),
        config: ConfigStatusJson { ok: true, errors: Vec::new() },
        ..status()
    };
    insta::assert_snapshot!("status_well", tables::status(&well, false));
    let draining = DrainJson {
        phase: DrainPhase::LowPreference,
        since: now(),
        until: now().checked_add(SignedDuration::from_secs(30)).ok(),
        reason: "the taint weft.network/drain".into(),
    };
    let drained = DrainJson { phase: DrainPhase::Drained, until: None, ..draining.clone() };
    for (name, drain) in [("status_draining", draining), ("status_drained", drained)] {
        let status = StatusJson { drain: Some(drain), ..well.clone() };
        insta::assert_snapshot!(name, tables::status(&status, false));
    }
}

#[test]
fn dynamic_peers_are_shown_with_their_range_and_how_many_there_are() {
    let dynamic = PeerJson { listen_range: "10.0.0.0/24".parse().ok(), ..peer("rack", "10.0.0.9") };
    let told = tables::peers(&[dynamic.clone(), peer("tor", "10.0.1.0")], now(), false);
    let last = |line: &str| line.split_whitespace().last().map(str::to_owned);
    assert_eq!(told.lines().filter_map(last).collect::<Vec<_>>(), ["RANGE", "10.0.0.0/24", "-"], "{told}");
    let told = tables::peer(&dynamic, now());
    assert!(told.contains("Listen range      10.0.0.0/24: a dynamic peer\n"), "{told}");
    let range = ListenRangeJson {
        name: "rack".into(),
        range: "10.0.0.0/24".parse().unwrap(),
        peers: 2,
        established: 1,
        limit: 100,
        refused: 3,
    };
    let told = tables::status(&StatusJson { listen_ranges: vec![range], ..status() }, false);
    let line = "Range     rack, 10.0.0.0/24: 1 up, 2 peers of 100, 3 connections refused\n";
    assert!(told.contains(line), "{told}");
}

#[test]
fn status_tells_of_mrt_files_where_they_are_asked_for() {
    let mrt = MrtJson {
        directory: "/var/lib/weft/mrt".into(),
        records: 1234,
        dropped: 5,
        tables: 6,
        tables_failed: 0,
        files: 7,
        size: 8_000_000,
        updates_file: Some("updates.20261127T024500.000000Z.mrt".into()),
        table_file: None,
    };
    let text = tables::status(&StatusJson { mrt: Some(mrt), ..status() }, false);
    let line = "\nMRT       1234 records and 6 tables written, 5 and 0 lost; 7 files of 8 MiB in /var/lib/weft/mrt\n";
    assert!(text.contains(line), "{text}");
    assert!(!tables::status(&status(), false).contains("MRT"));
}

#[test]
fn peers_are_one_a_line() {
    insta::assert_snapshot!("peers", tables::peers(&peers(), now(), false));
    insta::assert_snapshot!("peers_wide", tables::peers(&peers(), now(), true));
    assert_eq!(tables::peers(&[], now(), false), "No peers.\n");
}

#[test]
fn one_peer_is_shown_whole() {
    let mut peers = peers();
    peers[0].detail = detail();
    insta::assert_snapshot!("peer", tables::peer(&peers[0], now()));
    insta::assert_snapshot!("peer_down", tables::peer(&peers[1], now()));
}

#[test]
fn routes_show_every_path_and_its_reason() {
    insta::assert_snapshot!("routes", tables::routes(&routes(), false, false));
    insta::assert_snapshot!("routes_one", tables::routes(&routes()[1..], true, false));
    insta::assert_snapshot!("routes_wide", tables::routes(&routes(), false, true));
}

/// The column of BFD is there where somebody has it.
#[test]
fn bfd_shows_where_there_is_some() {
    let mut peers = peers();
    peers[0].bfd = Some(BfdJson {
        state: "Down".into(),
        since: Some(at(1_799_999_995)),
        diagnostic: "Control Detection Time Expired".into(),
        remote_state: "Down".into(),
        remote_diagnostic: "No Diagnostic".into(),
        multihop: false,
        transmit_interval_ms: Some(1000),
        detection_time_ms: None,
        sent: 100,
        received: 90,
        failures: 2,
    });
    insta::assert_snapshot!("peers_bfd", tables::peers(&peers, now(), false));
    let shown = tables::peer(&peers[0], now());
    let line = shown.lines().find(|line| line.starts_with("BFD")).unwrap();
    assert_eq!(
        line,
        "BFD               Down for 5s (Control Detection Time Expired), single hop, the peer is not heard, a packet each 1000 ms; 2 failures"
    );
    let bfd = BfdJson {
        state: "Up".into(),
        diagnostic: "No Diagnostic".into(),
        remote_state: "Up".into(),
        transmit_interval_ms: Some(300),
        detection_time_ms: Some(900),
        ..peers[0].bfd.clone().unwrap()
    };
    peers[0].bfd = Some(bfd);
    let shown = tables::peer(&peers[0], now());
    assert!(shown.contains(
        "Up for 5s, single hop, the peer is Up and may be silent for 900 ms, a packet each 300 ms; 2 failures"
    ));
}

/// The columns of route reflection are there where somebody reflects.
#[test]
fn reflection_shows_where_there_is_some() {
    let mut peers = peers();
    assert!(!tables::peers(&peers, now(), true).contains("CLIENT"));
    peers[1].route_reflector_client = true;
    let table = tables::peers(&peers, now(), false);
    let ends: Vec<&str> = table.lines().filter_map(|line| line.split_whitespace().last()).collect();
    assert_eq!(ends, ["CLIENT", "no", "yes"], "{table}");
    assert!(tables::peer(&peers[1], now()).contains("Reflector client  yes"));

    let mut routes = routes();
    routes[1].paths[0].originator_id = Some([10, 0, 0, 9].into());
    routes[1].paths[0].cluster_list = vec![[10, 0, 0, 7].into(), [10, 0, 0, 8].into()];
    let table = tables::routes(&routes, false, false);
    let reflected: Vec<&str> = table.lines().filter(|line| line.contains("10.0.0.9")).collect();
    assert!(table.lines().next().unwrap().ends_with("ORIGINATOR  CLUSTERS"), "{table}");
    assert!(reflected.len() == 1 && reflected[0].ends_with("10.0.0.7 10.0.0.8"), "{table}");
}

/// The column of path identifiers is there where there are some.
#[test]
fn path_identifiers_show_where_there_are_some() {
    let mut routes = routes();
    assert!(!tables::routes(&routes, false, false).contains("PATH ID"));
    routes[1].paths[1].path_id = Some(7);
    let table = tables::routes(&routes, false, false);
    let ends: Vec<&str> = table.lines().filter_map(|line| line.split_whitespace().last()).collect();
    assert_eq!(ends, ["ID", "-", "-", "-", "7"], "{table}");

    let mut peers = peers();
    let family = peers[0].per_family.get_mut(&Family::Ipv4Unicast).unwrap();
    family.refused_paths = 3;
    family.rejected = [("as-set".into(), 2), ("route-leak".into(), 1)].into();
    let shown = tables::peer(&peers[0], now());
    assert!(
        shown.contains(
            "4 received, 3 accepted, 1 advertised, 3 paths refused, rejected: 2 as-set, 1 route-leak\n"
        ),
        "{shown}"
    );
    assert!(shown.contains("ADD-PATH receive (ipv4-unicast, ipv6-unicast)\n"), "{shown}");
}

#[test]
fn fib_shows_who_wrote_what() {
    let hop = |via: Option<&str>, dev: &str| FibNextHopJson {
        via: via.map(|via| via.parse().unwrap()),
        dev: Some(dev.into()),
        weight: 1,
    };
    let route = |prefix: &str, next_hops, protocol, metric, state: &str| FibJson {
        prefix: prefix.parse().unwrap(),
        next_hops,
        resilient: false,
        blackhole: false,
        protocol,
        metric,
        state: state.into(),
        over: Vec::new(),
    };
    let over = vec!["10.2.0.0/24".parse().unwrap(), "10.3.0.0/24".parse().unwrap()];
    let fib = [
        route("10.244.1.0/26", Vec::new(), 176, 4_278_198_272, "installed"),
        route("10.244.1.5/32", vec![hop(None, "weft0123456789a")], 177, 32, "installed"),
        route(
            "10.244.2.0/26",
            vec![hop(Some("10.0.1.0"), "eth0"), hop(Some("10.0.2.0"), "eth1")],
            176,
            64,
            "shadowed by proto static",
        ),
        FibJson { over, ..route("10.244.3.0/26", vec![hop(Some("10.0.1.0"), "eth0")], 176, 64, "installed") },
        FibJson {
            resilient: true,
            ..route(
                "192.0.2.1/32",
                vec![hop(Some("10.0.1.0"), "eth0"), hop(Some("10.0.2.0"), "eth1")],
                176,
                64,
                "installed",
            )
        },
    ];
    insta::assert_snapshot!("fib", tables::fib(&fib, false));
    insta::assert_snapshot!("fib_wide", tables::fib(&fib, true));
}

#[test]
fn events_are_one_a_line_with_their_bytes_when_wide() {
    let event = EventJson {
        seq: 7,
        time: now(),
        peer: Some("10.0.1.0".into()),
        prefix: None,
        kind: "notification-sent".into(),
        text: "message-header: Bad Message Length".into(),
        bytes: Some("ffff".into()),
    };
    let events = [
        EventJson { peer: None, kind: "documents".into(), text: "good".into(), bytes: None, ..event.clone() },
        event,
    ];
    insta::assert_snapshot!("events", tables::events(&events, false));
    insta::assert_snapshot!("events_wide", tables::events(&events, true));
}

#[test]
fn errors_of_documents_name_the_place() {
    insta::assert_snapshot!("errors", tables::errors(&errors()));
}

#[test]
fn absent_values_are_null_in_json() {
    let json = serde_json::to_value(&peers()[1]).unwrap();
    for key in ["remoteAS", "bfd", "gracefulRestart", "lastEstablished", "connection"] {
        assert!(json.get(key).unwrap().is_null(), "{key}");
    }
    assert!(json["notifications"]["sent"].is_null() && json["opens"]["received"].is_null());
    assert_eq!(json["since"], "2027-01-15T07:59:18Z");
    let json = serde_json::to_value(&routes()[1]).unwrap();
    assert_eq!(json["paths"][0]["asPath"], serde_json::json!([65000, [64601, 64602]]));
    assert!(json["paths"][0]["localPref"].is_null());
}

fn addresses() -> IpamJson {
    let holder = |container: &str, pod: Option<&str>| IpamHolderJson {
        pod: pod.map(|name| IpamPodJson { namespace: "shop".into(), name: name.into() }),
        container: container.into(),
        interface: "eth0".into(),
        network: "weft".into(),
        host_link: "weft0123456789a".into(),
        netns: "/run/netns/cni-1".into(),
        since: Some("2026-01-02T03:04:05Z".parse().unwrap()),
    };
    let taken =
        |address: &str, state, holder| IpamAddressJson { address: address.parse().unwrap(), state, holder };
    let (committed, reserved) = (IpamAddressState::Committed, IpamAddressState::Reserved);
    let closed = IpamBlockJson {
        state: IpamBlockState::Closed,
        pool: None,
        announced: false,
        ..block("10.244.9.0/26", Some(64))
    };
    IpamJson {
        blocks: vec![block("10.244.1.0/26", Some(64)), closed, block("fd00::/64", None)],
        addresses: vec![
            taken("10.244.1.5", committed, holder("0a1b2c3d4e5f60718293", Some("cart-0"))),
            taken("fd00::5", reserved, holder("c2", None)),
        ],
    }
}

#[test]
fn blocks_and_addresses() {
    insta::assert_snapshot!("ipam", tables::ipam(&addresses(), now(), false));
    insta::assert_snapshot!("ipam_wide", tables::ipam(&addresses(), now(), true));
    assert_eq!(tables::ipam(&IpamJson::default(), now(), false), "No blocks.\n\nNo addresses are taken.\n");
}

#[test]
fn services_say_why() {
    let prefix = |prefix: &str, services: &[&str], policy, announced, code, text: &str| ServicePrefixJson {
        prefix: prefix.parse().unwrap(),
        services: services.iter().map(|service| (*service).to_owned()).collect(),
        policy,
        announced,
        reason: Reason::new(code, text),
    };
    let local = Some(TrafficPolicy::Local);
    let services = [
        prefix("10.96.0.0/12", &[], None, true, "range", "every node answers for this range"),
        prefix(
            "203.0.113.9/32",
            &["shop/a", "shop/b"],
            local,
            false,
            "no-local-endpoint",
            "no ready endpoint is on this node",
        ),
    ];
    insta::assert_snapshot!("services", tables::services(&services, false));
    insta::assert_snapshot!("services_wide", tables::services(&services, true));
    assert_eq!(tables::services(&[], false), "No service ranges.\n");
}

#[test]
fn stations_say_whether_they_are_there() {
    let error = StationErrorJson { time: at(1_799_999_000), text: "connection refused".into() };
    let station = |address: &str, connected, since| StationJson {
        station: address.parse().unwrap(),
        connected,
        since: at(since),
        monitor: vec![MonitoredRib::AdjRibInPrePolicy, MonitoredRib::LocRib],
        statistics_interval: Some(60),
        messages: 1234,
        octets: 56_789,
        connects: 2,
        failures: 1,
        waiting: 0,
        last_error: (!connected).then(|| error.clone()),
    };
    let stations = [
        station("192.0.2.9:11019", true, 1_799_990_000),
        station("[2001:db8::9]:5000", false, 1_799_999_958),
    ];
    insta::assert_snapshot!("bmp", tables::bmp(&stations, now(), false));
    insta::assert_snapshot!("bmp_wide", tables::bmp(&stations, now(), true));
    assert_eq!(tables::bmp(&[], now(), false), "No monitoring stations.\n");
}
