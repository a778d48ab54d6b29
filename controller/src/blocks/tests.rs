#![allow(clippy::disallowed_methods, reason = "a test's clock begins somewhere")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::cluster::{Kind, Object};

fn pool(json: serde_json::Value) -> Object {
    Object::IpPool(Arc::new(serde_json::from_value(json).unwrap()))
}

fn node(labels: &[(&str, &str)]) -> Object {
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Object::Node(Arc::new(Node { labels, ..Node::default() }))
}

fn block(cidr: &str, node: &str, closed: bool) -> Object {
    Object::IpBlock(Arc::new(IPBlockSpec { cidr: cidr.parse().unwrap(), node: node.to_owned(), closed }))
}

fn cluster(objects: impl IntoIterator<Item = (&'static str, Object)>) -> Cluster {
    let mut cluster = Cluster::default();
    objects.into_iter().for_each(|(name, object)| cluster.apply(name, object));
    cluster
}

/// A plan for nodes that say nothing, none of them gone.
fn planned(cluster: &Cluster) -> Plan {
    planned_with(cluster, &[], &[])
}

/// A plan where the node `a` has told of blocks: each one's addresses in use, and those that are free.
fn planned_with(cluster: &Cluster, usage: &[(&str, u64, u64)], gone: &[&str]) -> Plan {
    let mut usages = Usages::default();
    for (cidr, used, free) in usage {
        usages.put("a", cidr.parse().unwrap(), Usage { used: *used, free: *free });
    }
    let gone = gone.iter().map(|node| (*node).to_owned()).collect();
    let none = BTreeSet::new();
    plan(View { cluster, usage: &usages, released: &none, refused: &none, gone: &gone })
}

/// The plan in short: `+ NODE CIDR`, `close NAME`, `- NAME`.
fn told(plan: &Plan) -> Vec<String> {
    let tell = |change: &Change| match change {
        Change::Give { spec, .. } => format!("+ {} {}", spec.node, spec.cidr),
        Change::Close { name } => format!("close {name}"),
        Change::Return { name, .. } => format!("- {name}"),
    };
    plan.changes.iter().map(tell).collect()
}

#[test]
fn names_are_those_of_kubernetes_objects() {
    let name = |text: &str| super::name(text.parse().unwrap());
    assert_eq!(name("10.244.0.64/26"), "10.244.0.64-26");
    assert_eq!(name("::/122"), "0-0-0-0-0-0-0-0-122");
    assert_eq!(name("fd00:10:244::40/122"), "fd00-10-244-0-0-0-0-40-122");
}

#[test]
fn every_node_gets_a_block_of_every_pool_that_is_for_it() {
    let mut cluster = cluster([
        ("v4", pool(json!({"cidr": "10.244.0.0/16"}))),
        ("v6", pool(json!({"cidr": "fd00::/112"}))),
        ("edge", pool(json!({"cidr": "10.9.0.0/24", "nodeSelector": "has(edge)"}))),
        ("off", pool(json!({"cidr": "10.8.0.0/24", "disabled": true}))),
        ("services", pool(json!({"cidr": "203.0.113.0/24", "allowedUses": ["LoadBalancer"]}))),
        ("a", node(&[])),
        ("b", node(&[("edge", "")])),
    ]);
    let plan = planned(&cluster);
    assert_eq!(
        told(&plan),
        ["+ b 10.9.0.0/26", "+ a 10.244.0.0/26", "+ b 10.244.0.64/26", "+ a fd00::/122", "+ b fd00::40/122"]
    );
    assert_eq!(plan.shortages, []);
    for change in plan.changes {
        let Change::Give { name, spec } = change else { panic!("{change:?}") };
        cluster.apply(name, Object::IpBlock(spec.into()));
    }
    assert_eq!(planned(&cluster), Plan::default(), "that is all");
}

#[test]
fn where_the_cluster_gives_pod_cidrs_they_count() {
    let with_pod_cidrs =
        Object::Node(Arc::new(Node { pod_cidrs: vec!["10.244.0.0/24".parse().unwrap()], ..Node::default() }));
    let mut cluster =
        cluster([("p", pool(json!({"cidr": "10.244.0.0/16"}))), ("a", with_pod_cidrs), ("b", node(&[]))]);
    let source = |source: &str| {
        Object::BgpConfiguration(Arc::new(serde_json::from_value(json!({"podCIDRSource": source})).unwrap()))
    };
    assert_eq!(told(&planned(&cluster)), ["+ b 10.244.1.0/26"], "beside the podCIDRs");
    cluster.apply("default", source("IPPool"));
    assert_eq!(told(&planned(&cluster)), ["+ a 10.244.1.0/26", "+ b 10.244.1.64/26"]);
    cluster.apply("default", source("Node"));
    assert_eq!(planned(&cluster), Plan::default());
}

#[test]
fn another_block_comes_before_the_last_is_full_and_goes_when_there_is_room() {
    let mut cluster = cluster([
        ("p", pool(json!({"cidr": "10.0.0.0/24"}))),
        ("a", node(&[])),
        ("10.0.0.0-26", block("10.0.0.0/26", "a", false)),
    ]);
    assert_eq!(planned_with(&cluster, &[("10.0.0.0/26", 48, 16)], &[]), Plan::default());
    assert_eq!(told(&planned_with(&cluster, &[("10.0.0.0/26", 49, 15)], &[])), ["+ a 10.0.0.64/26"]);
    cluster.apply("10.0.0.64-26", block("10.0.0.64/26", "a", false));
    // Until the node speaks of it, it counts as free.
    assert_eq!(planned_with(&cluster, &[("10.0.0.0/26", 64, 0)], &[]), Plan::default());
    let usage = |used: u64| [("10.0.0.0/26", used, 64 - used), ("10.0.0.64/26", 0, 64)];
    assert_eq!(planned_with(&cluster, &usage(33), &[]), Plan::default());
    assert_eq!(told(&planned_with(&cluster, &usage(32), &[])), ["close 10.0.0.64-26"]);
    cluster.apply("10.0.0.64-26", block("10.0.0.64/26", "a", true));
    assert_eq!(planned_with(&cluster, &usage(32), &[]), Plan::default(), "the node has not given it up");
    let released = BTreeSet::from(["10.0.0.64-26".to_owned()]);
    let (usage, none) = (Usages::default(), BTreeSet::new());
    let view = View { cluster: &cluster, usage: &usage, released: &released, refused: &none, gone: &none };
    assert_eq!(told(&plan(view)), ["- 10.0.0.64-26"]);
}

#[test]
fn a_node_speaks_for_its_own_blocks_alone() {
    let cluster = cluster([
        ("p", pool(json!({"cidr": "10.0.0.0/24"}))),
        ("a", node(&[])),
        ("10.0.0.0-26", block("10.0.0.0/26", "a", false)),
        ("b", node(&[])),
        ("10.0.0.64-26", block("10.0.0.64/26", "b", false)),
    ]);
    let full = [("10.0.0.0/26", 64, 0), ("10.0.0.64/26", 64, 0)];
    assert_eq!(told(&planned_with(&cluster, &full, &[])), ["+ a 10.0.0.128/26"], "a has told of both");
}

#[test]
fn a_block_whose_name_another_has_is_not_offered() {
    let mut cluster = cluster([
        ("p", pool(json!({"cidr": "10.0.0.0/24"}))),
        ("p6", pool(json!({"cidr": "fd00::/112"}))),
        ("a", node(&[])),
        ("10.0.0.0-26", block("192.0.2.0/26", "b", false)),
        // Of blocks that no node is given, so that they stand in nobody's way.
        ("10.0.0.0-24", block("192.0.2.64/26", "b", false)),
        ("10.0.0.65-26", block("192.0.2.128/26", "b", false)),
        ("fd00-0-0-0-0-0-0-0-122", block("192.0.2.192/26", "b", false)),
    ]);
    assert_eq!(told(&planned(&cluster)), ["+ a 10.0.0.64/26", "+ a fd00::40/122"]);
    // Nor one whose name is that of an object that makes no sense.
    cluster.delete(Kind::IpBlock, "10.0.0.0-26");
    let (usage, none) = (Usages::default(), BTreeSet::new());
    let refused = BTreeSet::from(["10.0.0.0-26".to_owned()]);
    let view = View { cluster: &cluster, usage: &usage, released: &none, refused: &refused, gone: &none };
    assert_eq!(told(&plan(view)), ["+ a 10.0.0.64/26", "+ a fd00::40/122"]);
}

#[test]
fn nodes_of_a_rack_share_a_prefix() {
    let topology = json!({"nodeLabel": "rack", "prefixLength": 25});
    let mut cluster = cluster([
        ("p", pool(json!({"cidr": "10.0.0.0/24", "topology": topology}))),
        ("a1", node(&[("rack", "a")])),
        ("a2", node(&[("rack", "a")])),
        ("b1", node(&[("rack", "b")])),
    ]);
    let plan = planned(&cluster);
    assert_eq!(told(&plan), ["+ a1 10.0.0.0/26", "+ a2 10.0.0.64/26", "+ b1 10.0.0.128/26"]);
    for change in plan.changes {
        let Change::Give { name, spec } = change else { panic!("{change:?}") };
        cluster.apply(name, Object::IpBlock(spec.into()));
    }
    // A third rack has no prefix left, and gets a block all the same.
    cluster.apply("c1", node(&[("rack", "c")]));
    let plan = planned(&cluster);
    assert_eq!(told(&plan), ["+ c1 10.0.0.192/26"]);
    let shortage = |of| Shortage { pool: "p".into(), node: "c1".into(), of };
    assert_eq!(plan.shortages, [shortage(Short::Prefixes)]);
    cluster.apply("10.0.0.192-26", block("10.0.0.192/26", "b1", false));
    assert_eq!(planned(&cluster).shortages, [shortage(Short::Blocks)]);
}

#[test]
fn blocks_that_people_made_are_left_to_them() {
    let cluster = cluster([
        ("p", pool(json!({"cidr": "10.0.0.0/24"}))),
        ("a", node(&[])),
        ("mine", block("10.0.0.0/26", "a", false)),
        ("elsewhere", block("192.0.2.0/26", "a", false)),
        ("s", pool(json!({"cidr": "198.51.100.0/24", "allowedUses": ["LoadBalancer"]}))),
        ("198.51.100.0-26", block("198.51.100.0/26", "a", false)),
        ("of-nobody", block("10.0.0.64/26", "gone", false)),
        ("192.0.2.64-26", block("192.0.2.64/26", "a", false)),
        ("10.0.0.128-26", block("10.0.0.128/26", "gone", false)),
    ]);
    assert_eq!(
        told(&planned(&cluster)),
        ["close 192.0.2.64-26", "close 198.51.100.0-26"],
        "in no pool for pods"
    );
    assert_eq!(
        told(&planned_with(&cluster, &[], &["gone"])),
        ["close 192.0.2.64-26", "close 198.51.100.0-26", "- 10.0.0.128-26"]
    );
}

#[test]
fn a_node_that_comes_back_in_time_keeps_its_blocks() {
    const GRACE: Duration = Duration::from_secs(900);
    let start = Instant::now();
    let mut keeper = Keeper::new(GRACE);
    let mut cluster = cluster([
        ("p", pool(json!({"cidr": "10.0.0.0/24"}))),
        ("10.0.0.0-26", block("10.0.0.0/26", "a", false)),
    ]);
    let mut look = |cluster: &Cluster, seconds: u64| {
        let now = start + Duration::from_secs(seconds);
        let plan = keeper.plan(now, cluster, &Usages::default(), &BTreeSet::new(), &BTreeSet::new());
        (told(&plan), keeper.next_deadline(now))
    };
    assert_eq!(look(&cluster, 0), (vec![], Some(start + GRACE)));
    cluster.apply("a", node(&[]));
    assert_eq!(look(&cluster, 899), (vec![], None));
    cluster.delete(Kind::Node, "a");
    assert_eq!(look(&cluster, 1000).0, Vec::<String>::new(), "gone anew");
    assert_eq!(look(&cluster, 1900), (vec!["- 10.0.0.0-26".to_owned()], None), "what is due is no deadline");
}

/// An API server, the controllers that write to it, and the nodes that live by it, each with an old view.
#[derive(Clone)]
struct World {
    api: Vec<(String, Stored)>,
    /// Every state that the API server was in, oldest first.
    past: Vec<Vec<(String, Stored)>>,
    controllers: Vec<Controller>,
    nodes: Vec<SimNode>,
    nodes_known: BTreeSet<usize>,
    version: u64,
    now: Instant,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Stored {
    spec: IPBlockSpec,
    version: u64,
    generation: u64,
    released: Option<u64>,
}

#[derive(Clone)]
struct Controller {
    keeper: KeeperParts,
    seen: usize,
    /// What it has heard of nodes, which may be old.
    usage: Usages,
}

type KeeperParts = Arc<std::sync::Mutex<Keeper>>;

#[derive(Clone, Default)]
struct SimNode {
    seen: usize,
    pods: BTreeSet<IpAddr>,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// A controller sees more of what happened.
    Hear(usize, usize),
    /// A node does.
    Learn(usize, usize),
    /// A controller plans by what it knows, and the first so many of its changes are made before it dies or goes on.
    Act(usize, usize),
    /// A controller dies, and another begins in its place.
    Restart(usize),
    /// A node gets pods, as many as it has room for.
    Add(usize, usize),
    /// A node loses pods.
    Remove(usize, usize),
    /// A node tells a controller of its blocks.
    Report(usize, usize),
    /// A node gives up what it can.
    Release(usize),
}

const SIM_NODES: usize = 3;
const SIM_GRACE: Duration = Duration::from_secs(900);

fn step() -> impl Strategy<Value = Step> {
    let (controller, node) = (0..2usize, 0..SIM_NODES);
    prop_oneof![
        3 => (controller.clone(), 1..12usize).prop_map(|(c, n)| Step::Hear(c, n)),
        3 => (node.clone(), 1..12usize).prop_map(|(n, k)| Step::Learn(n, k)),
        4 => (controller.clone(), 0..5usize).prop_map(|(c, n)| Step::Act(c, n)),
        1 => controller.clone().prop_map(Step::Restart),
        4 => (node.clone(), 1..6usize).prop_map(|(n, k)| Step::Add(n, k)),
        3 => (node.clone(), 1..6usize).prop_map(|(n, k)| Step::Remove(n, k)),
        6 => (controller, node.clone()).prop_map(|(c, n)| Step::Report(c, n)),
        4 => node.prop_map(Step::Release),
    ]
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        let controller = || Controller { keeper: Self::keeper(), seen: 0, usage: Usages::default() };
        Self {
            api: Vec::new(),
            past: vec![Vec::new()],
            controllers: vec![controller(), controller()],
            nodes: vec![SimNode::default(); SIM_NODES],
            nodes_known: (0..SIM_NODES).collect(),
            version: 0,
            now,
        }
    }

    fn keeper() -> KeeperParts {
        Arc::new(std::sync::Mutex::new(Keeper::new(SIM_GRACE)))
    }

    fn cluster_at(&self, seen: usize) -> Cluster {
        let mut cluster = cluster([("p", pool(json!({"cidr": "10.0.0.0/28", "blockSize": 30})))]);
        for node in &self.nodes_known {
            cluster.apply(format!("n{node}"), super::tests::node(&[]));
        }
        for (name, stored) in &self.past[seen] {
            cluster.apply(name.clone(), Object::IpBlock(stored.spec.clone().into()));
        }
        cluster
    }

    fn write(&mut self, write: impl FnOnce(&mut Vec<(String, Stored)>, u64)) {
        self.version += 1;
        write(&mut self.api, self.version);
        self.past.push(self.api.clone());
    }

    fn live(&self, name: &str) -> Option<Stored> {
        self.api.iter().find(|(known, _)| known == name).map(|(_, stored)| stored.clone())
    }

    fn act(&mut self, index: usize, most: usize) {
        let seen = self.controllers[index].seen;
        let cluster = self.cluster_at(seen);
        let released = self.past[seen]
            .iter()
            .filter(|(_, stored)| stored.released == Some(stored.generation))
            .map(|(name, _)| name.clone())
            .collect();
        let keeper = Arc::clone(&self.controllers[index].keeper);
        let usage = &self.controllers[index].usage;
        let plan = keeper.lock().unwrap().plan(self.now, &cluster, usage, &released, &BTreeSet::new());
        for change in plan.changes.iter().take(most) {
            let before = cluster.blocks.get(change.name()).map(|spec| spec.as_ref().clone());
            if self.make(change, before.as_ref()) {
                keeper.lock().unwrap().made(self.now, change, before.as_ref());
            }
        }
    }

    /// As the API server does it; false where it refuses.
    fn make(&mut self, change: &Change, before: Option<&IPBlockSpec>) -> bool {
        let live = self.live(change.name());
        match (change, live) {
            (Change::Give { name, spec }, None) => {
                let (name, spec) = (name.clone(), spec.clone());
                self.write(|api, version| {
                    api.push((name, Stored { spec, version, generation: 1, released: None }));
                });
                true
            }
            (Change::Close { name }, Some(stored)) if Some(&stored.spec) == before => {
                self.write(|api, version| {
                    let (_, stored) = api.iter_mut().find(|(known, _)| known == name).unwrap();
                    stored.spec.closed = true;
                    stored.version = version;
                    stored.generation += 1;
                });
                true
            }
            (Change::Return { name, .. }, Some(stored))
                if stored.spec.closed && stored.released == Some(stored.generation) =>
            {
                self.write(|api, _| api.retain(|(known, _)| known != name));
                true
            }
            _ => false,
        }
    }

    fn own(&self, node: usize) -> Vec<(String, Stored)> {
        let own = self.past[self.nodes[node].seen].iter();
        own.filter(|(_, stored)| stored.spec.node == format!("n{node}")).cloned().collect()
    }

    fn run(&mut self, step: Step) {
        self.now += Duration::from_secs(1);
        let last = self.past.len() - 1;
        match step {
            Step::Hear(index, more) => {
                let controller = &mut self.controllers[index];
                controller.seen = (controller.seen + more).min(last);
            }
            Step::Learn(index, more) => self.nodes[index].seen = (self.nodes[index].seen + more).min(last),
            Step::Act(index, most) => self.act(index, most),
            // It begins with a list, which is never old.
            Step::Restart(index) => {
                self.controllers[index] =
                    Controller { keeper: Self::keeper(), seen: last, usage: Usages::default() };
            }
            Step::Add(index, count) => {
                let open: Vec<_> =
                    self.own(index).into_iter().filter(|(_, stored)| !stored.spec.closed).collect();
                let free = open.iter().flat_map(|(_, stored)| addresses(stored.spec.cidr.net()));
                let free: Vec<IpAddr> =
                    free.filter(|a| !self.nodes[index].pods.contains(a)).take(count).collect();
                self.nodes[index].pods.extend(free);
            }
            Step::Remove(index, count) => {
                let pods = &mut self.nodes[index].pods;
                for _ in 0..count {
                    pods.pop_last();
                }
            }
            Step::Report(controller, node) => {
                for (_, stored) in self.own(node) {
                    let usage = self.usage(node, &stored);
                    let usages = &mut self.controllers[controller].usage;
                    usages.put(format!("n{node}"), stored.spec.cidr.net(), usage);
                }
            }
            Step::Release(index) => {
                for (name, seen) in self.own(index) {
                    let empty = self.usage(index, &seen).used == 0;
                    // Compare and set: of just the object that it lives by.
                    let same = self.live(&name).is_some_and(|live| live.version == seen.version);
                    if seen.spec.closed && seen.released != Some(seen.generation) && empty && same {
                        self.write(|api, version| {
                            let (_, stored) = api.iter_mut().find(|(known, _)| *known == name).unwrap();
                            stored.released = Some(seen.generation);
                            stored.version = version;
                        });
                    }
                }
            }
        }
    }

    fn usage(&self, node: usize, stored: &Stored) -> Usage {
        let all = addresses(stored.spec.cidr.net());
        let used = all.iter().filter(|address| self.nodes[node].pods.contains(address)).count() as u64;
        Usage { used, free: all.len() as u64 - used }
    }

    fn assert_right(&self) {
        let mut given = BTreeSet::new();
        for (name, stored) in &self.api {
            assert!(given.insert(stored.spec.cidr), "{name} was given twice");
        }
        let mut taken = BTreeSet::new();
        for node in &self.nodes {
            for pod in &node.pods {
                assert!(taken.insert(*pod), "{pod} is the address of two pods");
            }
        }
    }
}

fn addresses(net: IpNet) -> Vec<IpAddr> {
    let IpNet::V4(net) = net else { panic!("IPv4 here") };
    (u32::from(net.network())..=u32::from(net.broadcast())).map(|bits| IpAddr::V4(bits.into())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Two controllers that both believe to be the only one, on old news, dying in the middle: no block is given to two nodes, no
    /// address to two pods; and once all is quiet every node has its block and none too many.
    #[test]
    fn no_address_is_given_twice(steps in prop::collection::vec(step(), 1..400)) {
        let mut world = World::new();
        for step in steps {
            world.run(step);
            world.assert_right();
        }
        for _ in 0..24 {
            for node in 0..SIM_NODES {
                world.run(Step::Remove(node, 64));
                world.run(Step::Learn(node, 1000));
                world.run(Step::Release(node));
                world.run(Step::Report(0, node));
            }
            world.run(Step::Hear(0, 1000));
            world.run(Step::Act(0, 100));
            world.now += Duration::from_secs(31);
            world.assert_right();
        }
        for node in 0..SIM_NODES {
            world.run(Step::Learn(node, 1000));
            prop_assert_eq!(world.own(node).len(), 1, "of node {}: {:?}", node, world.own(node));
        }
    }
}
