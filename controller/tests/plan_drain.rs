//! What a node tells its peers while it drains, and when it goes on to tell them less.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panic, in its helpers too"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use proptest::prelude::*;
use weft_bgp::policy::{CompiledPolicy, RouteSource, Subject};
use weft_bgp::types::{PeerAddress, PeerType};
use weft_bgp::wire::attributes::{GRACEFUL_SHUTDOWN, PathAttributes};
use weft_controller::api::json::DrainPhase;
use weft_controller::cluster::Cluster;
use weft_controller::documents::load;
use weft_controller::plan::{
    Drain, DrainAsks, Draining, HostFacts, InterfaceFacts, NodePlan, answered, drain_terms, plan,
};

const PHASES: [DrainPhase; 3] = [DrainPhase::LowPreference, DrainPhase::Withdrawn, DrainPhase::Drained];

/// A node in a mesh of two, with two ToRs, one of which is shut down, Services of both policies and an address on `lo`.
const DOCUMENTS: &str = "
kind: BGPConfiguration
metadata: {name: default}
spec: {serviceLoadBalancerIPs: [{cidr: 203.0.113.0/24}], drainTime: 45s}
---
kind: BGPPeer
metadata: {name: tor}
spec: {peerIP: 192.0.2.254, asNumber: 65000}
---
kind: BGPPeer
metadata: {name: off}
spec: {peerIP: 192.0.2.253, asNumber: 65000, shutdown: true}
---
kind: BGPPeer
metadata: {name: filtered}
spec: {peerIP: 192.0.2.252, asNumber: internal, filters: [transit]}
---
kind: BGPFilter
metadata: {name: transit}
spec:
  exportV4:
  - {source: RemotePeers, action: Accept}
  - cidr: 10.244.0.0/16
    matchOperator: In
    action: Accept
    operations:
    - {removeCommunity: {value: graceful-shutdown}}
    - {setLocalPreference: {value: 300}}
    - {setMED: {value: 7}}
";

/// `fields`: more of its spec, and of its status behind a `|`.
fn node(number: u8, fields: &str) -> String {
    let (spec, status) = fields.split_once('|').unwrap_or((fields, ""));
    format!(
        "apiVersion: v1\nkind: Node\nmetadata: {{name: n{number}}}\nspec: {{podCIDRs: [10.244.{number}.0/24]{spec}}}\n\
         status: {{addresses: [{{type: InternalIP, address: 192.0.2.{number}}}]{status}}}\n"
    )
}

const SERVICE: &str = "apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {type: LoadBalancer, externalTrafficPolicy: Local}
status: {loadBalancer: {ingress: [{ip: 203.0.113.9}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
endpoints: [{addresses: [10.244.1.5], nodeName: n1, conditions: {ready: true, serving: true}}]
";

/// The documents, and the Nodes n1 and n2 with these fields.
fn cluster(specs: [&str; 2]) -> Cluster {
    let ours = DOCUMENTS
        .split("---\n")
        .map(|text| format!("apiVersion: weft.network/v1alpha1\n{}", text.trim_start()));
    let mut all: Vec<String> = ours.collect();
    all.extend([node(1, specs[0]), node(2, specs[1]), SERVICE.to_owned()]);
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("x.yaml"), all.join("---\n")).expect("a file");
    load(folder.path()).unwrap_or_else(|errors| panic!("{errors:#?}"))
}

fn plan_of(cluster: &Cluster, phase: Option<DrainPhase>) -> NodePlan {
    let facts = |address: &str| InterfaceFacts {
        addresses: vec![address.parse().expect("an address")],
        mtu: 1500,
        ..InterfaceFacts::default()
    };
    let host = HostFacts {
        interfaces: [("lo".into(), facts("192.0.2.1/32")), ("eth0".into(), facts("192.0.2.129/24"))].into(),
        drain: phase.map(|phase| Drain { phase, reason: "a test".into() }),
        ..HostFacts::default()
    };
    plan(cluster, "n1", &host).expect("a plan")
}

/// What each peer is told, of the node's own prefixes and of one that was learned, and what policy makes of the attributes.
fn told(plan: &NodePlan) -> BTreeMap<(PeerAddress, IpNet), PathAttributes> {
    let learned: IpNet = "10.9.0.0/16".parse().expect("a prefix");
    let own = plan.speaker.originate.keys().map(|net| (*net, RouteSource::Local));
    let all: Vec<_> = own.chain([(learned, RouteSource::RemotePeers)]).collect();
    let mut told = BTreeMap::new();
    for (address, peer) in plan.speaker.peers.iter().filter(|(_, peer)| peer.shutdown.is_none()) {
        let export = CompiledPolicy::new(peer.export.clone());
        for (prefix, source) in &all {
            let mut attributes = PathAttributes::new(IpAddr::from([192, 0, 2, 1]));
            let subject =
                Subject { prefix, source: *source, peer_type: PeerType::External, attributes: &attributes };
            let Ok(operations) = export.evaluate(subject) else { continue };
            let operations = operations.cloned();
            operations.iter().flat_map(|all| all.iter()).for_each(|one| one.apply(&mut attributes));
            told.insert((*address, *prefix), attributes);
        }
    }
    told
}

#[test]
fn a_drain_never_announces_more_than_before() {
    let cluster = cluster(["", ""]);
    let before = told(&plan_of(&cluster, None));
    let prefixes: BTreeSet<String> = before.keys().map(|(_, prefix)| prefix.to_string()).collect();
    let all = ["10.244.1.0/24", "10.9.0.0/16", "192.0.2.1/32", "203.0.113.0/24", "203.0.113.9/32"];
    assert_eq!(prefixes, all.map(str::to_owned).into(), "what there is to lose");
    let mut last: BTreeSet<_> = before.keys().copied().collect();
    for phase in PHASES {
        let now: BTreeSet<_> = told(&plan_of(&cluster, Some(phase))).into_keys().collect();
        assert!(now.is_subset(&last), "{phase:?}: {now:?}");
        last = now;
    }
    assert!(last.is_empty());
}

#[test]
fn the_last_choice_is_all_that_was_announced_and_nothing_else_changes() {
    let cluster = cluster(["", ""]);
    let (before, now) = (plan_of(&cluster, None), plan_of(&cluster, Some(DrainPhase::LowPreference)));
    for ((peer, prefix), told) in told(&now) {
        let last = (Some(0), Some(u32::MAX), [GRACEFUL_SHUTDOWN].as_slice());
        let untouched = (None, None, [].as_slice());
        let expected = if prefix.to_string() == "10.9.0.0/16" { untouched } else { last };
        assert_eq!((told.local_pref, told.med, told.communities.as_slice()), expected, "{peer} {prefix}");
    }
    let exports = |plan: &NodePlan| {
        let exports = plan.speaker.peers.values().map(|peer| Arc::as_ptr(&peer.export));
        exports.collect::<BTreeSet<_>>().len()
    };
    assert_eq!(exports(&now), exports(&before), "policies in common stay so");
    let mut speaker = (*now.speaker).clone();
    for (peer, before) in speaker.peers.values_mut().zip(before.speaker.peers.values()) {
        Arc::make_mut(peer).export = before.export.clone();
    }
    assert_eq!(NodePlan { speaker: speaker.into(), ..now }, before);
}

#[test]
fn a_node_that_is_drained_tells_nothing_and_keeps_its_pods_routes() {
    let cluster = cluster(["", ""]);
    let before = plan_of(&cluster, None);
    let withdrawn = plan_of(&cluster, Some(DrainPhase::Withdrawn));
    assert_eq!(told(&withdrawn), BTreeMap::new());
    let up = |plan: &NodePlan| plan.speaker.peers.values().filter(|peer| peer.shutdown.is_none()).count();
    assert_eq!((up(&before), up(&withdrawn)), (3, 3), "the sessions stay until peers have heard");
    let drained = plan_of(&cluster, Some(DrainPhase::Drained));
    let texts: BTreeSet<_> =
        drained.speaker.peers.values().filter_map(|peer| peer.shutdown.clone()).collect();
    assert_eq!(
        (up(&drained), texts),
        (0, ["BGPPeer off is shut down".to_owned(), "the node is drained: a test".to_owned(),].into())
    );
    for plan in [withdrawn, drained] {
        let codes: BTreeSet<_> = plan.services.values().map(|prefix| prefix.verdict.reason().code).collect();
        assert_eq!(codes, ["node-draining".into()].into());
        assert_eq!(
            (&plan.blocks, &plan.sysctls, &plan.packet_filter),
            (&before.blocks, &before.sysctls, &before.packet_filter)
        );
        assert_eq!(plan.diagnostics, before.diagnostics);
        assert!(
            plan.speaker.originate.keys().eq(before.speaker.originate.keys()),
            "to be there again at once"
        );
    }
    // Undrained, no Service has to settle again.
    assert_eq!(answered(&cluster, "n1").0.len(), 2);
}

#[test]
fn the_taints_of_the_own_node_ask_for_a_drain_and_a_cordon_does_not() {
    let taints = |key: &str, effect: &str| format!(", taints: [{{key: {key}, effect: {effect}}}]");
    let reason = |one: &str, two: &str| {
        let terms =
            drain_terms(&cluster([one, two]), "n1", DrainAsks::default()).expect("there is such a Node");
        assert_eq!(terms.drain_time, Duration::from_secs(45));
        terms.reason
    };
    let asking = [
        "weft.network/drain",
        "node.kubernetes.io/out-of-service",
        "node.cloudprovider.kubernetes.io/shutdown",
    ];
    for (key, effect) in asking.iter().zip(["PreferNoSchedule", "NoExecute", "NoSchedule"]) {
        assert_eq!(reason(&taints(key, effect), ""), Some(format!("the taint {key}")));
        assert_eq!(reason("", &taints(key, effect)), None, "another node's");
    }
    let both = format!(
        ", taints: [{{key: {}, effect: NoExecute}}, {{key: {}, effect: NoExecute}}]",
        asking[0], asking[1]
    );
    let requested = drain_terms(&cluster([&both, ""]), "n1", REQUESTED).and_then(|terms| terms.reason);
    let all =
        "weftctl drain and the taint node.kubernetes.io/out-of-service and the taint weft.network/drain";
    assert_eq!(requested.as_deref(), Some(all));
    assert_eq!(drain_terms(&cluster(["", ""]), "n9", REQUESTED), None);

    let cordon = format!(", unschedulable: true{}", taints("node.kubernetes.io/unschedulable", "NoSchedule"));
    let (before, cordoned) = (cluster(["", ""]), cluster([&cordon, ""]));
    assert_eq!(before, cordoned);
    assert_eq!(drain_terms(&cordoned, "n1", DrainAsks::default()).and_then(|terms| terms.reason), None);
}

/// Kubelet says Ready, or not, with such a message (its condition's `reason` is the same for all that ails it).
fn conditioned(status: &str, message: &str) -> Cluster {
    let condition =
        format!("type: Ready, status: \"{status}\", reason: KubeletNotReady, message: \"{message}\"");
    let other = "type: PIDPressure, status: \"False\", message: node is shutting down";
    cluster([&format!("|, conditions: [{{{other}}}, {{{condition}}}]"), ""])
}

#[test]
fn a_machine_that_is_shut_down_drains_until_weftd_is_to_end() {
    let terms = |cluster: &Cluster, requested, ending| {
        let terms =
            drain_terms(cluster, "n1", DrainAsks { requested, ending }).expect("there is such a Node");
        (terms.reason.unwrap_or_default(), terms.drain_time)
    };
    let down = conditioned("False", "node is shutting down");
    let because = "the shutdown of the node";
    assert_eq!(terms(&down, false, false), (because.into(), Duration::MAX));
    assert_eq!(terms(&down, false, true), (because.into(), Duration::ZERO));
    let both = format!("weftctl drain and {because}");
    assert_eq!(terms(&down, true, false), (both, Duration::from_secs(45)), "who asks for more gets it");
    let more = conditioned("False", "[container runtime is down, node is shutting down]");
    assert_eq!(terms(&more, false, false), (because.into(), Duration::MAX));
    for (status, message) in [("False", "container runtime is down"), ("True", "node is shutting down")] {
        let other = terms(&conditioned(status, message), false, false);
        assert_eq!(other, (String::new(), Duration::from_secs(45)), "{status} {message}");
    }
    // A kubelet that is not asked again, as its API server is gone, does not take back what weftd was told.
    assert_eq!(terms(&cluster(["", ""]), false, true), (because.into(), Duration::ZERO));
}

#[test]
fn services_of_a_machine_that_is_shut_down_stay_as_long_as_its_pods() {
    let announced = |message: &str, phase| {
        let plan = plan_of(&conditioned("False", message), phase);
        plan.services.values().filter(|prefix| prefix.verdict.is_announced()).count()
    };
    assert_eq!(announced("container runtime is down", None), 0);
    assert_eq!(announced("node is shutting down", Some(DrainPhase::LowPreference)), 2);
    assert_eq!(announced("node is shutting down", Some(DrainPhase::Withdrawn)), 0);
}

#[test]
fn the_last_choice_lasts_until_there_is_no_time_left() {
    let (mut drain, start) = (Draining::default(), start());
    let day = start + Duration::from_secs(86_400);
    assert_eq!(drain.look(start, true, Duration::MAX, true), Some(DrainPhase::LowPreference));
    assert_eq!(drain.next_deadline(true), None);
    assert_eq!(drain.look(day, true, Duration::MAX, true), Some(DrainPhase::LowPreference));
    assert_eq!(drain.look(day, true, Duration::ZERO, true), Some(DrainPhase::Withdrawn));
    assert_eq!(drain.look(day, true, Duration::ZERO, false), Some(DrainPhase::Withdrawn));
    assert_eq!(drain.look(day + 2 * SECOND, true, Duration::ZERO, false), Some(DrainPhase::Drained));
}

#[expect(clippy::disallowed_methods, reason = "any moment will do")]
fn start() -> Instant {
    Instant::now()
}

const REQUESTED: DrainAsks = DrainAsks { requested: true, ending: false };
const TIME: Duration = Duration::from_secs(30);
const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_drain_goes_on_when_its_time_is_up_and_peers_have_heard() {
    let (start, mut draining) = (start(), Draining::default());
    assert_eq!((draining.look(start, false, TIME, true), draining.next_deadline(true)), (None, None));
    assert_eq!(draining.look(start, true, TIME, true), Some(DrainPhase::LowPreference));
    assert_eq!(draining.next_deadline(true), Some(start + TIME));
    assert_eq!(draining.look(start + TIME - SECOND, true, TIME, true), Some(DrainPhase::LowPreference));
    let withdrawn = start + TIME;
    assert_eq!(draining.look(withdrawn, true, TIME, true), Some(DrainPhase::Withdrawn));
    assert_eq!(
        draining.next_deadline(true),
        Some(withdrawn + 10 * SECOND),
        "a peer that does not read is not waited for"
    );
    assert_eq!(draining.look(withdrawn + 2 * SECOND, true, TIME, true), Some(DrainPhase::Withdrawn));
    assert_eq!(draining.next_deadline(false), Some(withdrawn), "when peers have been sent it, at once");
    let sent = withdrawn + 5 * SECOND;
    assert_eq!(draining.look(sent, true, TIME, false), Some(DrainPhase::Withdrawn));
    assert_eq!(draining.look(sent + SECOND, true, TIME, false), Some(DrainPhase::Withdrawn));
    assert_eq!(draining.next_deadline(false), Some(sent + 2 * SECOND), "since the first such look");
    let drained = sent + 2 * SECOND;
    assert_eq!(draining.look(drained, true, TIME, false), Some(DrainPhase::Drained));
    assert_eq!(
        (draining.state(), draining.next_deadline(false)),
        (Some((DrainPhase::Drained, drained)), None)
    );
    assert_eq!(draining.look(drained, false, TIME, false), None);
    assert_eq!(
        draining.look(drained, true, Duration::ZERO, true),
        Some(DrainPhase::Withdrawn),
        "without a wait"
    );
}

#[test]
fn a_peer_that_reads_late_gets_no_more_than_the_rest() {
    let (start, mut draining) = (start(), Draining::default());
    draining.look(start, true, Duration::ZERO, true);
    assert_eq!(draining.state(), Some((DrainPhase::Withdrawn, start)));
    draining.look(start + 9 * SECOND, true, Duration::ZERO, false);
    assert_eq!(draining.next_deadline(false), Some(start + 10 * SECOND));
}

#[test]
fn a_drain_goes_on_where_an_earlier_run_left_it() {
    let start = start();
    for (before, now) in [
        (None, DrainPhase::LowPreference),
        (Some(DrainPhase::LowPreference), DrainPhase::LowPreference),
        (Some(DrainPhase::Withdrawn), DrainPhase::Drained),
        (Some(DrainPhase::Drained), DrainPhase::Drained),
    ] {
        assert_eq!(Draining::new(before).look(start, true, TIME, true), Some(now));
        // What the run before did is not what is asked for later.
        let mut ended = Draining::new(before);
        assert_eq!(ended.look(start, false, TIME, true), None);
        assert_eq!(ended.look(start, true, TIME, true), Some(DrainPhase::LowPreference));
    }
}

proptest! {
    /// Whatever happens, restarts included, a drain only goes on, phase by phase, until nobody asks for it.
    #[test]
    fn a_drain_never_goes_back(steps in prop::collection::vec((0u64..20, prop::bool::weighted(0.9), 0u64..40, any::<bool>(), prop::bool::weighted(0.1)), 1..60)) {
        let (mut now, mut draining, mut last) = (start(), Draining::default(), None);
        for (pause, wanted, drain_time, told, restart) in steps {
            now += Duration::from_secs(pause);
            if restart {
                draining = Draining::new(last);
            }
            let phase = draining.look(now, wanted, Duration::from_secs(drain_time), told);
            prop_assert_eq!(phase.is_some(), wanted);
            if wanted {
                prop_assert!(phase >= last, "{:?} after {:?}", phase, last);
            }
            let due = draining.next_deadline(told);
            prop_assert!(due.is_none_or(|due| due > now), "the loop would not rest");
            prop_assert_eq!(due.is_none(), phase.is_none_or(|phase| phase == DrainPhase::Drained));
            last = phase;
        }
    }
}
