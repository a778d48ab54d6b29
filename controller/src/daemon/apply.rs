//! From documents and facts to a plan, and from a plan to everyone whose part has changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::Result;
use ipnet::IpNet;
use tokio::task::block_in_place;
use weft_cni::ipam;
use weft_routing::Settings;
use weft_routing::ndisc::Link;

use super::agent::{Agent, Task};
use super::clock::Moment;
use super::packet_filter::PacketFilter;
use super::pods::Pods;
use super::{node_file, pods, sysctl};
use crate::api::json::{ConfigStatusJson, Problem};
use crate::documents::Reading;
use crate::plan::{NodePlan, answered, plan};

impl Agent {
    /// Takes in a reading of the documents. What it does not say stays as it is.
    pub(super) async fn read(&mut self, reading: Reading) -> Result<()> {
        let Reading { cluster, errors, versions } = reading;
        let counts = &mut self.known.counts;
        let counter =
            if errors.is_empty() { &mut counts.reloads_accepted } else { &mut counts.reloads_rejected };
        *counter = counter.saturating_add(1);
        let before =
            std::mem::replace(&mut self.known.config, ConfigStatusJson { ok: errors.is_empty(), errors });
        let changed = cluster.is_some() && self.known.cluster.as_deref() != cluster.as_ref();
        self.tell_of_documents(&before, cluster.is_some(), changed);
        self.known.versions = versions;
        if let Some(cluster) = cluster.filter(|_| changed) {
            self.known.cluster = Some(Arc::new(cluster));
            self.known.held.await_reading();
            self.replan().await?;
            // With the blocks closed that the documents give to the node no more, the store says which of them may go.
            self.pods_node.send_modify(|_| {});
        }
        Ok(())
    }

    fn tell_of_documents(&mut self, before: &ConfigStatusJson, taken: bool, changed: bool) {
        let errors = &self.known.config.errors;
        if errors.is_empty() {
            if changed {
                self.note("documents", "the documents are good and in force".into());
            } else if !before.ok {
                self.note("documents", "the documents are good again".into());
            }
        } else if before.errors != *errors {
            errors.iter().for_each(|error| tracing::error!("{error}"));
            let what = if taken { "not all" } else { "nothing" };
            self.note("documents", format!("{what} of the documents is taken; errors: {}", errors.len()));
        }
    }

    /// Plans anew, and hands each part that differs from before to its owner.
    ///
    /// Not before the kernel was read: without the facts of the host, a plan would say that the node has no address. Where no plan can be
    /// made, the last one stays, but for a node that has left the cluster: see [`NodePlan::departed`].
    pub(super) async fn replan(&mut self) -> Result<()> {
        let (Some(cluster), Some(_)) = (self.known.cluster.clone(), self.known.adopted) else {
            return Ok(());
        };
        self.look_at_drain(&cluster);
        self.known.facts.held_blocks = self.known.held.blocks();
        let (answered, settle_time) = answered(&cluster, &self.node);
        self.known.facts.settling = self.known.settling.look(Moment::now().instant, &answered, settle_time);
        let before = self.known.plan.clone();
        let wanted = match plan(&cluster, &self.node, &self.known.facts) {
            Ok(wanted) => {
                self.known.failed.remove(&Task::Plan);
                Arc::new(wanted)
            }
            Err(problem) => {
                if self.known.failed.get(&Task::Plan) != Some(&problem) {
                    tracing::error!(code = problem.code, remedy = problem.remedy, "{}", problem.text);
                }
                self.known.failed.insert(Task::Plan, problem);
                // A folder without the Node is a mistake; an API server without it means it, once its grace is over.
                match &before {
                    Some(before) if self.follows_api => Arc::new(before.departed()),
                    _ => return Ok(()),
                }
            }
        };
        if before.as_ref() == Some(&wanted) {
            return Ok(());
        }
        let known_before = before.as_ref().map_or(&[][..], |before| &before.diagnostics);
        for problem in wanted.diagnostics.iter().filter(|problem| !known_before.contains(problem)) {
            tracing::warn!(code = problem.code, remedy = problem.remedy, "{}", problem.text);
        }
        self.known.strangers.forget(|address| wanted.is_peer((*address).into()));
        self.known.plan = Some(Arc::clone(&wanted));
        // Forwarding first, routes next, and the word that draws traffic here last.
        self.audit_sysctls();
        let settings = |plan| kernel_settings(plan, &self.known.aggregates);
        let (before, settings) = (before.as_deref().map(settings), settings(&wanted));
        if before.as_ref() != Some(&settings) {
            block_in_place(|| self.kernel.configure(settings))?;
        }
        self.want_packet_filter(&wanted);
        self.write_node_file(&wanted);
        self.follow_pods();
        self.look_for_neighbours();
        self.configure_speaker().await
    }

    /// Compares the kernel's settings with the plan's, and sets them unless told to leave them alone.
    pub(super) fn audit_sysctls(&mut self) {
        let Some(plan) = &self.known.plan else { return };
        let found = sysctl::audit(&mut self.sysctls, &plan.sysctls, plan.manage_sysctls);
        for finding in &found {
            if let sysctl::Outcome::Set { from } = &finding.outcome {
                tracing::info!(
                    path = finding.wanted.path,
                    from,
                    to = finding.wanted.value,
                    "set a kernel parameter"
                );
            }
        }
        self.known.sysctls = found;
    }

    fn want_packet_filter(&self, plan: &NodePlan) {
        self.packet_filter.send_if_modified(|wanted| {
            let changed = wanted.as_ref() != Some(&plan.packet_filter);
            *wanted = Some(plan.packet_filter.clone());
            changed
        });
    }

    /// Takes down how nftables stands. With the guard in place pods may come.
    pub(super) fn packet_filter_said(&mut self, state: PacketFilter) {
        let before = std::mem::replace(&mut self.known.packet_filter, state);
        let now = &self.known.packet_filter;
        if let Some(problem) =
            now.problem.as_ref().filter(|problem| before.problem.as_ref() != Some(*problem))
        {
            tracing::error!(code = problem.code, remedy = problem.remedy, "{}", problem.text);
        }
        if now.repairs > before.repairs {
            self.note(
                "repaired",
                "put Weft's nftables tables back after another program changed them".into(),
            );
        }
        if now.guarded
            && !before.guarded
            && let Some(plan) = self.known.plan.clone()
        {
            self.write_node_file(&plan);
        }
    }

    fn write_node_file(&mut self, plan: &NodePlan) {
        // No pod before its forged packets would be dropped.
        if !self.known.packet_filter.guarded {
            return;
        }
        match node_file::write(&self.run_dir, plan, &self.known.announced) {
            Ok(true) => tracing::info!("wrote node.json"),
            Ok(false) => {}
            Err(error) => {
                let text = format!("cannot write node.json in {}: {error}", self.run_dir.display());
                tracing::error!("{text}");
                let remedy = "new pods get addresses by the old file, if any; make room or give weftd the right to write";
                self.known.failed.insert(Task::NodeFile, Problem::error("node-file", text, remedy));
                return;
            }
        }
        self.known.failed.remove(&Task::NodeFile);
        self.known.node_file_written = true;
        self.known.held.tell(plan.blocks.iter().map(|block| block.cidr).collect());
        self.tell_runtime();
    }

    /// Takes down which own prefixes peers have been told, and tells the plugin. Until the first convergence what an earlier
    /// run told counts too: peers keep that over a restart.
    pub(super) fn announced(&mut self, prefixes: BTreeSet<IpNet>) {
        if self.known.converged {
            self.known.announced = prefixes;
        } else {
            self.known.announced.extend(prefixes);
        }
        if let Some(plan) = self.known.plan.clone() {
            self.write_node_file(&plan);
        }
    }

    /// Lets the container runtime know that the node takes pods, once it does: its routes are there, and the plugin has what
    /// it needs.
    pub(super) fn tell_runtime(&self) {
        if self.known.converged && self.known.node_file_written {
            self.takes_pods.send_if_modified(|takes| !std::mem::replace(takes, true));
        }
    }

    /// Tells whoever reads the store of pods' addresses what node it is read for.
    pub(super) fn follow_pods(&self) {
        let node = Some(pods::Node { links: self.known.links.clone() });
        self.pods_node.send_if_modified(|told| {
            let changed = *told != node;
            *told = node;
            changed
        });
    }

    /// Has routers looked for on the links that the plan's peers are known by.
    pub(super) fn look_for_neighbours(&self) {
        let Some(plan) = &self.known.plan else { return };
        let known = &self.known;
        let links = plan.speaker.peers.keys().filter_map(|peer| {
            let index = peer.interface()?.index();
            let mac = known.advertising_links.get(&index);
            let link = Link { ready: mac.is_some(), session: known.link_sessions.get(&index).copied() };
            Some((index, (link, mac.copied().flatten())))
        });
        let links: BTreeMap<_, _> = links.collect();
        self.neighbour_links.send_if_modified(|told| {
            let changed = told.links != links;
            told.links = links;
            if changed && told.remembered.is_empty() {
                told.remembered.clone_from(&known.facts.routers);
            }
            changed
        });
    }

    /// Takes in which aggregates are announced: the kernel is to send packets for what is not there in them nowhere.
    pub(super) fn aggregates(&mut self, prefixes: BTreeSet<IpNet>) -> Result<()> {
        self.known.counts.aggregates = prefixes.len() as u64;
        self.known.aggregates = prefixes;
        let Some(plan) = &self.known.plan else { return Ok(()) };
        let settings = kernel_settings(plan, &self.known.aggregates);
        Ok(block_in_place(|| self.kernel.configure(settings))?)
    }

    /// Plans anew where other routers are there than before.
    pub(super) async fn neighbours_found(&mut self) -> Result<()> {
        if self.known.facts.routers == self.known.neighbours.found {
            return Ok(());
        }
        self.known.facts.routers.clone_from(&self.known.neighbours.found);
        self.replan().await
    }

    /// Tells the kernel's side which routes belong to pods, and plans anew where a block came into use or fell out of it.
    pub(super) async fn pods_read(&mut self, reading: Result<Pods, ipam::Error>) -> Result<()> {
        match reading {
            Ok(pods) => {
                self.known.failed.remove(&Task::Store);
                let routes = (self.known.pods.routes != pods.routes).then(|| pods.routes.clone());
                self.known.held.read(pods.taken.clone());
                self.known.pods = pods;
                if let Some(routes) = routes {
                    block_in_place(|| self.kernel.pods(routes))?;
                }
                if self.known.held.blocks() != self.known.facts.held_blocks {
                    self.replan().await?;
                }
            }
            Err(error) => {
                let text = format!("cannot read the store of pods' addresses: {error}");
                tracing::error!("{text}; pods' routes stay as they are");
                let remedy =
                    "see to the file system of --state-dir; the store is read again every few seconds";
                self.known.failed.insert(Task::Store, Problem::error("store", text, remedy));
            }
        }
        Ok(())
    }
}

/// Aggregates are as blocks are: what is not there in them is looked for nowhere else.
fn kernel_settings(plan: &NodePlan, aggregates: &BTreeSet<IpNet>) -> Settings {
    let blocks = plan.blocks.iter().filter(|block| block.is_own()).map(|block| block.cidr);
    Settings {
        metric: plan.route_metric,
        preferred_source_v4: plan.addresses.v4,
        preferred_source_v6: plan.addresses.v6,
        own_blocks: blocks.chain(aggregates.iter().copied()).collect(),
        resilience: plan.resilience,
    }
}
