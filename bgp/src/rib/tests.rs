use super::*;
use crate::egress::EgressInput;
use crate::ingress::Run;
use crate::policy::{Operation, Policy, PrefixMatch, PrefixRange, Rule, Verdict};
use crate::rib::samples::OWN;
use crate::types::PeerType;
use crate::wire::attributes::PathAttributes;

const PEER: PeerId = PeerId(1);
const OTHER: PeerId = PeerId(2);

struct Bench {
    rib: Rib,
    now: Instant,
}

impl Bench {
    #[expect(clippy::disallowed_methods, reason = "some instant to count from")]
    fn new() -> Self {
        let mut bench = Self { rib: Rib::new(), now: Instant::now() };
        bench.input(RibInput::Configure {
            asn: OWN,
            router_id: Ipv4Addr::new(10, 0, 0, 1),
            cluster_id: Some(Ipv4Addr::new(10, 0, 0, 1)),
            max_paths: 4,
            install_routes: true,
            next_hop_tracking: true,
            originate: BTreeMap::new(),
        });
        bench.input(RibInput::Advertise);
        let config = Arc::new(samples::config());
        bench.input(RibInput::Peer { peer: PEER, address: IpAddr::from([10, 0, 0, 2]).into(), config });
        let session = Arc::new(samples::session(PeerType::External));
        bench.input(RibInput::Up { peer: PEER, session });
        bench
    }

    fn other_peer(&mut self, peer_type: PeerType) -> Vec<RibOutput> {
        let (config, address) = (Arc::new(samples::config()), IpAddr::from([10, 2, 0, 11]).into());
        self.input(RibInput::Peer { peer: OTHER, address, config });
        self.input(RibInput::Up { peer: OTHER, session: Arc::new(samples::session(peer_type)) })
    }

    fn input(&mut self, input: RibInput) -> Vec<RibOutput> {
        self.rib.handle(self.now, input);
        std::iter::from_fn(|| self.rib.poll()).collect()
    }

    fn routes(&mut self, prefixes: &[&str], attributes: Option<PathAttributes>) -> Vec<RibOutput> {
        let prefixes: Vec<IpNet> = prefixes.iter().map(|p| p.parse().unwrap()).collect();
        let run = Run { range: 0..prefixes.len(), attributes: attributes.map(Arc::new) };
        self.input(RibInput::Routes {
            peer: PEER,
            batch: RouteBatch { prefixes, runs: vec![run], ..<_>::default() },
        })
    }
}

#[test]
fn what_comes_and_goes_leaves_nothing_behind() {
    let mut bench = Bench::new();
    let next_hop = TrackedNextHop { address: IpAddr::from([10, 0, 0, 2]), default_route: false, link: None };
    for round in 0..3 {
        for med in 0..5 {
            let attributes = PathAttributes { med: Some(med), ..samples::attributes() };
            bench.routes(&["10.1.0.0/16", "10.2.0.0/16"], Some(attributes));
            bench.input(RibInput::NextHops(vec![(next_hop, Resolution::OnLink)]));
        }
        assert_eq!((bench.rib.holdings.attributes.len(), bench.rib.hop_sets.len()), (1, 1));
        if round == 1 {
            bench.input(RibInput::Down { peer: PEER, down: Down::Death });
        } else {
            bench.routes(&["10.1.0.0/16", "10.2.0.0/16"], None);
        }
        assert_eq!((bench.rib.holdings.attributes.len(), bench.rib.hop_sets.len()), (0, 0));
        assert!(bench.rib.is_empty());
        bench.input(RibInput::Up { peer: PEER, session: Arc::new(samples::session(PeerType::External)) });
    }
}

/// However many routes there are: one set for each pair of received attributes and what a rule does to them.
#[test]
fn policy_makes_an_attribute_set_once() {
    let mut bench = Bench::new();
    let prefixes: Vec<String> = (0..200).map(|i| format!("10.1.{i}.0/24")).collect();
    let prefixes: Vec<&str> = prefixes.iter().map(String::as_str).collect();
    let set = |med| Rule::new(Verdict::AcceptWith(Arc::new([Operation::SetMed(med)])));
    let half = PrefixRange { net: "10.1.0.0/17".parse().unwrap(), min_len: 24, max_len: 24 };
    let half = PrefixMatch { ranges: vec![half], negated: false };
    let configure = |bench: &mut Bench, rules| {
        let import = Arc::new(Policy { rules, ..(*samples::config().import).clone() });
        let config = Arc::new(PeerConfig { import, ..samples::config() });
        bench.input(RibInput::Peer { peer: PEER, address: IpAddr::from([10, 0, 0, 2]).into(), config });
        bench.rib.holdings.attributes.len()
    };
    bench.routes(&prefixes, Some(samples::attributes()));
    assert_eq!(configure(&mut bench, vec![set(1)]), 2);
    assert_eq!(configure(&mut bench, vec![Rule { prefixes: Some(half), ..set(1) }, set(2)]), 3);
    bench.routes(&prefixes, Some(PathAttributes { med: Some(9), ..samples::attributes() }));
    assert_eq!(bench.rib.holdings.attributes.len(), 3);
    assert_eq!(configure(&mut bench, vec![Rule::new(Verdict::Accept)]), 1);
    assert_eq!(configure(&mut bench, vec![set(3)]), 2);
    bench.routes(&prefixes, None);
    assert_eq!(bench.rib.holdings.attributes.len(), 0);
}

#[test]
fn a_prefix_is_decided_once_per_drain() {
    let mut bench = Bench::new();
    bench.other_peer(PeerType::External);
    let next_hop = TrackedNextHop { address: IpAddr::from([10, 0, 0, 2]), default_route: false, link: None };
    bench.routes(&["10.1.0.0/16"], Some(samples::attributes()));
    bench.input(RibInput::NextHops(vec![(next_hop, Resolution::OnLink)]));
    for med in 0..5 {
        let attributes = PathAttributes { med: Some(med), ..samples::attributes() };
        let run = Run { range: 0..1, attributes: Some(Arc::new(attributes)) };
        let batch =
            RouteBatch { prefixes: vec!["10.1.0.0/16".parse().unwrap()], runs: vec![run], ..<_>::default() };
        bench.rib.handle(bench.now, RibInput::Routes { peer: PEER, batch });
    }
    let outputs: Vec<_> = std::iter::from_fn(|| bench.rib.poll()).collect();
    assert_eq!(outputs.len(), 1, "{outputs:?}");
}

/// And of nothing else: what the first peer is told stays as it is.
#[test]
fn a_group_is_filled_with_what_it_lacks_when_a_second_peer_is_to_join() {
    let mut bench = Bench::new();
    let own: IpNet = "10.9.0.0/16".parse().unwrap();
    bench.input(RibInput::Configure {
        asn: OWN,
        router_id: Ipv4Addr::new(10, 0, 0, 1),
        cluster_id: None,
        max_paths: 1,
        install_routes: true,
        next_hop_tracking: false,
        originate: [(own, Origination::default())].into(),
    });
    let heard = |outputs: Vec<RibOutput>| -> Vec<String> {
        let heard = outputs.into_iter().filter_map(|output| match output {
            RibOutput::Egress(_, EgressInput::Fill(changes)) => {
                Some(format!("fill {:?}", changes.keys().map(|key| key.prefix).collect::<Vec<_>>()))
            }
            RibOutput::Egress(_, EgressInput::Changes(changes)) => Some(format!("{} changes", changes.len())),
            RibOutput::Egress(_, EgressInput::Join { peer, .. }) => Some(format!("{peer:?} joins")),
            _ => None,
        });
        heard.collect()
    };
    assert!(heard(bench.routes(&["10.1.0.0/16"], Some(samples::attributes()))).is_empty());
    assert_eq!(
        heard(bench.other_peer(PeerType::External)),
        ["fill [10.1.0.0/16]".to_owned(), format!("{OTHER:?} joins")]
    );
    bench.input(RibInput::Down { peer: OTHER, down: Down::Death });
    assert_eq!(
        heard(bench.other_peer(PeerType::External)),
        [format!("{OTHER:?} joins")],
        "it lacks nothing now"
    );
    assert_eq!(heard(bench.routes(&["10.2.0.0/16"], Some(samples::attributes()))), ["1 changes"]);
}

#[test]
fn more_changes_than_one_chunk_come_in_pieces() {
    let mut bench = Bench::new();
    let net = |i: u32| IpNet::new(Ipv4Addr::from(i << 8).into(), 24).unwrap();
    let count = u32::try_from(loc::CHUNK).unwrap() * 2 + 1;
    let originate = (0..count).map(|i| (net(i), Origination::default())).collect();
    let outputs = bench.input(RibInput::Configure {
        asn: OWN,
        router_id: Ipv4Addr::new(10, 0, 0, 1),
        cluster_id: Some(Ipv4Addr::new(10, 0, 0, 1)),
        max_paths: 4,
        install_routes: true,
        next_hop_tracking: true,
        originate,
    });
    let sizes: Vec<usize> = outputs
        .iter()
        .map(|output| match output {
            RibOutput::Egress(_, EgressInput::Changes(changes)) => changes.len(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(sizes, [loc::CHUNK, loc::CHUNK, 1]);
}

/// Nobody is asked about next hops, and nothing is told for the kernel; what is told when that changes is all of it.
#[test]
fn without_routes_for_the_kernel_paths_count_and_nothing_is_told() {
    let mut bench = Bench::new();
    let configure = |bench: &mut Bench, install| {
        bench.input(RibInput::Configure {
            asn: OWN,
            router_id: Ipv4Addr::new(10, 0, 0, 1),
            cluster_id: Some(Ipv4Addr::new(10, 0, 0, 1)),
            max_paths: 4,
            install_routes: install,
            next_hop_tracking: install,
            originate: BTreeMap::new(),
        })
    };
    let told = |outputs: Vec<RibOutput>| -> Vec<usize> {
        let best_paths = outputs.into_iter().filter_map(|output| match output {
            RibOutput::BestPaths(changes) => Some(changes),
            _ => None,
        });
        best_paths.flatten().map(|change| change.next_hops.len()).collect()
    };
    configure(&mut bench, false);
    let outputs = bench.routes(&["10.1.0.0/16", "10.2.0.0/16"], Some(samples::attributes()));
    assert!(!outputs.iter().any(|output| matches!(output, RibOutput::Track(_))), "{outputs:?}");
    assert_eq!(told(outputs), [0; 0]);
    let exact = crate::status::RouteSelect::Exact("10.1.0.0/16".parse().unwrap());
    let routes = bench.rib.routes(crate::status::RibView::Loc, exact);
    assert!(routes[0].paths[0].best, "{routes:?}");

    let next_hop = TrackedNextHop { address: IpAddr::from([10, 0, 0, 2]), default_route: false, link: None };
    let outputs = configure(&mut bench, true);
    assert!(outputs.iter().any(|output| matches!(output, RibOutput::Track(asked) if *asked == next_hop)));
    assert_eq!(told(outputs), [0; 0], "not before the kernel was asked");
    assert_eq!(told(bench.input(RibInput::NextHops(vec![(next_hop, Resolution::OnLink)]))), [1, 1]);
    let outputs = configure(&mut bench, false);
    assert!(outputs.iter().any(|output| matches!(output, RibOutput::Untrack(_))));
    assert_eq!(told(outputs), [0, 0]);
}

/// A path over a next hop that only a route of BGP's leads to wins, and what it beat goes on leading there: else the two would take turns.
#[test]
fn what_leads_to_next_hops_does_not_depend_on_what_it_leads_to() {
    let mut bench = Bench::new();
    bench.other_peer(PeerType::Internal);
    let hop = |address: [u8; 4], default_route| TrackedNextHop {
        address: address.into(),
        default_route,
        link: None,
    };
    let (tor, node) = (hop([10, 0, 0, 2], false), hop([10, 2, 0, 11], true));
    let subnet: IpNet = "10.2.0.0/24".parse().unwrap();
    let told = |outputs: Vec<RibOutput>| -> Vec<BestPathChange> {
        let best_paths = outputs.into_iter().filter_map(|output| match output {
            RibOutput::BestPaths(changes) => Some(changes),
            _ => None,
        });
        best_paths.flatten().collect()
    };
    let change = |next_hop: Option<TrackedNextHop>, direct: Option<&[TrackedNextHop]>| BestPathChange {
        prefix: subnet,
        next_hops: next_hop.into_iter().collect(),
        direct: direct.map(|direct| Box::new(direct.iter().copied().collect())),
    };
    bench.routes(&["10.2.0.0/24"], Some(samples::attributes()));
    let on_link = bench.input(RibInput::NextHops(vec![(tor, Resolution::OnLink)]));
    assert_eq!(told(on_link), [change(Some(tor), None)]);

    let preferred = PathAttributes {
        next_hop: node.address,
        local_pref: Some(200),
        as_path: <_>::default(),
        ..samples::attributes()
    };
    let run = Run { range: 0..1, attributes: Some(Arc::new(preferred)) };
    let batch = RouteBatch { prefixes: vec![subnet], runs: vec![run], ..<_>::default() };
    bench.input(RibInput::Routes { peer: OTHER, batch });
    let recursive = |metric| Resolution::Recursive { over: subnet, metric, direct: false };
    let resolved = bench.input(RibInput::NextHops(vec![(node, recursive(0))]));
    assert_eq!(told(resolved), [change(Some(node), Some(&[tor]))]);
    let routes = bench.rib.routes(crate::status::RibView::Loc, crate::status::RouteSelect::Exact(subnet));
    assert_eq!(routes[0].paths[0].next_hop_over, Some(subnet));
    assert_eq!(told(bench.input(RibInput::NextHops(vec![(node, recursive(7))]))), [], "nothing else follows");

    // The one it beat goes: nothing leads on. It comes back, and with it the way.
    assert_eq!(told(bench.routes(&["10.2.0.0/24"], None)), [change(Some(node), Some(&[]))]);
    let too_deep = Resolution::TooDeep { over: subnet };
    assert_eq!(told(bench.input(RibInput::NextHops(vec![(node, too_deep)]))), [change(None, None)]);
    let routes = bench.rib.routes(crate::status::RibView::Loc, crate::status::RouteSelect::Exact(subnet));
    let reason = routes[0].paths[0].reason.to_string();
    assert!(reason.contains("BGP's route 10.2.0.0/24"), "{reason}");
    assert!(bench.rib.direct.is_empty());
}

#[test]
fn a_route_takes_as_much_memory_as_the_docs_say() {
    crate::sizes::assert_told(&[
        ("Destination", size_of::<loc::Destination>()),
        ("Path", size_of::<holdings::Path>()),
        ("Interned", size_of::<attributes::Interned>()),
    ]);
}
