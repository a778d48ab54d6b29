//! A Clos fabric: racks of nodes, one or two ToRs a rack, a spine; every cable a /31 and a /127, every node's address on its `lo`.

mod build;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ipnet::IpNet;
use serde_json::Value;

use crate::daemon::{Family, Router, Software};
use crate::lab::Lab;
use crate::link::Link;
use crate::netns::Namespace;
use crate::node::Node;
use crate::process::Process;
use crate::wait::wait_until;

/// The AS of the spine: one that needs four octets.
pub const SPINE_ASN: u32 = 4_200_000_000;

/// How long a whole fabric may take to come up on a busy machine; what is promised is measured where it is promised.
const PATIENCE: Duration = Duration::from_secs(40);

/// What a fabric should be.
#[derive(Clone, Debug)]
pub struct FabricSpec {
    /// Racks, named a, b, c...
    pub racks: u8,
    /// Nodes in each: a1, a2...
    pub nodes_per_rack: u8,
    /// ToRs in each: tor-a, or tor-a1 and tor-a2. Every node of the rack has a cable to each.
    pub tors_per_rack: u8,
    /// Cables from each ToR to the spine; 0: no spine.
    pub spine_links: u8,
    /// What the ToRs run. The spine is a weftd with a weft ToR, else it runs the same as they.
    pub tor: Software,
    /// The address families, IPv4 first.
    pub families: Vec<Family>,
    /// Pods on each node.
    pub pods_per_node: u8,
    /// The hold time that nodes and routers offer, in seconds.
    pub hold_time: u16,
    /// Whether other people's routers dial again after a second, and not after the two minutes of their own timers.
    pub dials_every_second: bool,
}

impl FabricSpec {
    /// Two racks of two nodes, a ToR each with two cables to one spine, two pods on every node, dual-stack.
    #[must_use]
    pub fn two_racks(tor: Software) -> Self {
        Self {
            racks: 2,
            nodes_per_rack: 2,
            tors_per_rack: 1,
            spine_links: 2,
            tor,
            families: Family::BOTH.to_vec(),
            pods_per_node: 2,
            hold_time: 90,
            dials_every_second: true,
        }
    }

    /// One rack of two nodes on one ToR, dual-stack.
    #[must_use]
    pub fn one_rack(tor: Software) -> Self {
        Self { racks: 1, spine_links: 0, ..Self::two_racks(tor) }
    }

    /// One rack of two nodes, each with two uplinks to two ToRs, dual-stack.
    #[must_use]
    pub fn two_uplinks(tor: Software) -> Self {
        Self { tors_per_rack: 2, ..Self::one_rack(tor) }
    }
}

/// A fabric in a lab.
#[derive(Debug)]
pub struct Fabric {
    /// What it is.
    pub spec: FabricSpec,
    /// The nodes, rack by rack.
    pub nodes: Vec<Node>,
    /// ToRs, then the spine.
    pub routers: Vec<RouterMachine>,
    /// The cables; the near end is a node's, or a ToR's towards the spine.
    pub links: Vec<Link>,
}

/// A router and the machine that it runs on.
#[derive(Debug)]
pub struct RouterMachine {
    /// The machine.
    pub namespace: Namespace,
    /// Its address on `lo` per family.
    pub addresses: Vec<IpAddr>,
    /// The daemon.
    pub router: Box<dyn Router>,
}

impl Fabric {
    /// Lays the cables and writes all configurations; nothing is started.
    ///
    /// # Errors
    /// If something cannot be made.
    pub fn build(lab: &Lab, spec: FabricSpec) -> Result<Self> {
        build::build(lab, spec)
    }

    /// Builds it, starts everything, adds the pods and waits until all of them reach each other.
    ///
    /// # Errors
    /// If something does not come up.
    pub fn up(lab: &Lab, spec: FabricSpec) -> Result<Self> {
        let mut fabric = Self::build(lab, spec)?;
        fabric.start()?;
        fabric.add_pods(lab)?;
        fabric.wait_reachable(PATIENCE)?;
        Ok(fabric)
    }

    /// Whether the kernel of the first ToR sends packets for a prefix to just these nodes: its interfaces are named after them.
    ///
    /// # Errors
    /// Where it sends them.
    pub fn ensure_tor_sends(&self, prefix: IpNet, nodes: &[&str]) -> Result<()> {
        let tor = self.routers.first().context("the fabric has no ToR")?;
        let device = |hop: &Value| hop["dev"].as_str().map(str::to_owned);
        let mut found = BTreeSet::new();
        for route in &tor.namespace.routes_to(prefix)? {
            match route["nexthops"].as_array() {
                Some(hops) => found.extend(hops.iter().filter_map(device)),
                None => found.extend(device(route)),
            }
        }
        let wanted: BTreeSet<String> = nodes.iter().map(|node| (*node).to_owned()).collect();
        ensure!(found == wanted, "{prefix} goes to {found:?}, not {wanted:?}");
        Ok(())
    }

    /// Leaves it up, past the end of this process: neither daemons nor namespaces end with this value.
    pub fn leave_running(&mut self) {
        let pods = self.nodes.iter().flat_map(|node| node.pods.iter().map(|pod| &pod.namespace));
        let machines = self
            .nodes
            .iter()
            .map(|node| &node.namespace)
            .chain(self.routers.iter().map(|router| &router.namespace));
        pods.chain(machines).cloned().for_each(Namespace::keep);
        self.nodes.iter_mut().filter_map(|node| node.weft.process().take()).for_each(Process::leave_running);
        self.routers.iter_mut().for_each(|router| router.router.leave_running());
    }

    /// Starts all daemons.
    ///
    /// # Errors
    /// If one does not start.
    pub fn start(&mut self) -> Result<()> {
        self.routers.iter_mut().try_for_each(|machine| machine.router.start())?;
        self.nodes.iter_mut().try_for_each(|node| node.weft.start())
    }

    /// Adds the pods, as soon as each node's daemon has said what the plugin needs.
    ///
    /// # Errors
    /// The plugin's error.
    pub fn add_pods(&mut self, lab: &Lab) -> Result<()> {
        for node in &mut self.nodes {
            node.wait_ready_for_pods()?;
            for _ in 0..self.spec.pods_per_node {
                node.add_pod(lab)?;
            }
        }
        Ok(())
    }

    /// Waits until the first pod of every node reaches the first pod of every other.
    ///
    /// # Errors
    /// If one does not in time.
    pub fn wait_reachable(&self, limit: Duration) -> Result<()> {
        wait_reachable(&self.nodes, limit)
    }

    /// A node by name.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn node(&self, name: &str) -> Result<&Node> {
        self.nodes
            .iter()
            .find(|node| node.name == name)
            .with_context(|| format!("the fabric has no node {name}"))
    }

    /// A node by name, to change it.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn node_mut(&mut self, name: &str) -> Result<&mut Node> {
        self.nodes
            .iter_mut()
            .find(|node| node.name == name)
            .with_context(|| format!("the fabric has no node {name}"))
    }

    /// A router by name.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn router(&self, name: &str) -> Result<&dyn Router> {
        let found = self.routers.iter().find(|machine| machine.router.name() == name);
        Ok(found.with_context(|| format!("the fabric has no router {name}"))?.router.as_ref())
    }

    /// A router by name, to change it.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn router_mut(&mut self, name: &str) -> Result<&mut dyn Router> {
        let found = self.routers.iter_mut().find(|machine| machine.router.name() == name);
        Ok(found.with_context(|| format!("the fabric has no router {name}"))?.router.as_mut())
    }

    /// The cables between two machines, in the order they were laid.
    #[must_use]
    pub fn links_between(&self, one: &str, other: &str) -> Vec<&Link> {
        let joins = |link: &&Link| {
            let ends = [link.near.namespace.label(), link.far.namespace.label()];
            ends == [one, other] || ends == [other, one]
        };
        self.links.iter().filter(joins).collect()
    }

    /// The first cable between two machines.
    ///
    /// # Errors
    /// If there is none.
    pub fn link(&self, one: &str, other: &str) -> Result<&Link> {
        self.links_between(one, other)
            .into_iter()
            .next()
            .with_context(|| format!("no cable between {one} and {other}"))
    }
}

/// Waits until the first pod of every node reaches the first pod of every other, in every family.
///
/// # Errors
/// If one does not in time.
pub fn wait_reachable(nodes: &[Node], limit: Duration) -> Result<()> {
    let pods: Vec<_> = nodes.iter().filter_map(|node| node.pods.first()).collect();
    let end = crate::wait::now() + limit;
    for from in &pods {
        for to in pods.iter().filter(|to| to.name != from.name) {
            for address in &to.addresses {
                let left = end.saturating_duration_since(crate::wait::now());
                wait_until(format!("{} to reach {} at {address}", from.name, to.name), left, || {
                    crate::probe::ping(&from.namespace, *address)
                })?;
            }
        }
    }
    Ok(())
}
