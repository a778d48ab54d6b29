//! What weftd tells the API server: how the node is (BGPNodeStatus), that it has a network, and which blocks it gives up.
//!
//! Writes are few: a node's object changes at once when something is worse or better, and else now and then; each of these the more seldom
//! the more nodes there are, so that the API server has the same work to do in a large cluster as in a small one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use jiff::Timestamp;
use tokio::sync::{oneshot, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};
use weft_bgp::session::State;

use super::clock::Moment;
use super::metrics::Scrape;
use super::socket::{Ask, Serving};
use super::{ipam, view};
use crate::api::ipam::IpamBlockState;
use crate::api::json::{PeerJson, Problem, Severity};
use crate::api::{
    BLOCKS_LISTED_MAX, BlockReport, LISTED_MAX, NodeReport, ObjectCondition, ProblemReport, RouteCount,
    SessionCount, SessionReport,
};
use crate::cluster::Kind;
use crate::documents::{Version, Versions};
use crate::kubernetes::Writer;
use crate::plan::NodePlan;

/// How often the node is looked at.
const LOOK: Duration = Duration::from_secs(2);
/// How long a write may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The least time between two writes where something is worse or better, and how much longer it is for each Node there is.
const SOON: (Duration, Duration) = (Duration::from_secs(4), Duration::from_millis(10));
/// The same where only numbers differ.
const NOW_AND_THEN: (Duration, Duration) = (Duration::from_secs(30), Duration::from_millis(50));
/// The same where nothing differs: somebody may have deleted the object.
const AGAIN: (Duration, Duration) = (Duration::from_secs(600), Duration::from_millis(200));
/// How often the Node itself is looked at, which somebody may have made anew.
const NODE_LOOK: Duration = Duration::from_secs(300);
/// How long a block must be closed before it is given up: an ADD may have chosen of it just before.
const CLOSED_FOR: Duration = Duration::from_secs(30);
/// The most free addresses that are told (RFC 8259 section 6).
const FREE_MAX: u64 = 1 << 53;

/// What the daemon's loop knows of all this.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) scrape: Scrape,
    pub(super) plan: Option<Arc<NodePlan>>,
    /// Which states of the node's IPBlocks are in force.
    pub(super) versions: Versions,
    /// How many Nodes there are.
    pub(super) nodes: usize,
}

/// How the writing goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reported {
    pub(super) written: u64,
    pub(super) failed: u64,
    /// Why the last write failed; none: it did not.
    pub(super) problem: Option<Problem>,
}

/// Starts the task, which lasts as long as somebody wants to know how it goes.
pub(super) fn start(writer: Writer, serving: Serving) -> watch::Receiver<Reported> {
    let (told, reported) = watch::channel(Reported::default());
    let reporter =
        Reporter { writer, serving, last: None, next_node_look: None, closed: BTreeMap::new(), told };
    tokio::spawn(reporter.run());
    reported
}

struct Reporter {
    writer: Writer,
    serving: Serving,
    /// What was tried last, when, and whether it was written.
    last: Option<(NodeReport, Instant, bool)>,
    next_node_look: Option<Instant>,
    /// Since when states of closed blocks have been in force.
    closed: BTreeMap<String, (Version, Instant)>,
    told: watch::Sender<Reported>,
}

impl Reporter {
    async fn run(mut self) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = looks.tick() => {}
                () = self.told.closed() => return,
            }
            if let Ok(seen) = self.serving.ask(Ask::Report).await {
                self.look(&seen, Moment::now().instant).await;
            }
        }
    }

    async fn look(&mut self, seen: &Seen, now: Instant) {
        let mut report = report(seen);
        report.conditions = conditions(seen, self.last.as_ref().map(|(last, ..)| last), Timestamp::now());
        if self.is_due(&report, seen.nodes, now) {
            // Also what fails counts, so that it is not tried more often than what works.
            let written = bounded(self.writer.write_report(&report)).await;
            self.last = Some((report, now, written.is_ok()));
            self.tell(written.context("cannot write the node's BGPNodeStatus"));
        }
        if seen.scrape.ready && self.next_node_look.is_none_or(|next| now >= next) {
            let written = bounded(self.writer.tell_node()).await;
            self.next_node_look = now.checked_add(if written.is_ok() { NODE_LOOK } else { PATIENCE });
            self.tell(written.context("cannot tell the Node that its network is up"));
        }
        for (name, version) in self.due_to_give_up(seen, now) {
            match self.is_empty(&name, seen).await {
                Ok(true) => {
                    let written = bounded(self.writer.give_up(&name, &version)).await;
                    self.tell(written.with_context(|| format!("cannot give up IPBlock {name}")));
                }
                Ok(false) => {}
                Err(error) => self.tell(Err(error)),
            }
        }
    }

    fn is_due(&self, report: &NodeReport, nodes: usize, now: Instant) -> bool {
        let Some((last, at, written)) = &self.last else { return true };
        let (least, per_node) = match last {
            _ if !written => SOON,
            last if last == report => AGAIN,
            last if notable(last) != notable(report) => SOON,
            _ => NOW_AND_THEN,
        };
        let pause = per_node.saturating_mul(u32::try_from(nodes).unwrap_or(u32::MAX)).max(least);
        now.saturating_duration_since(*at) >= pause
    }

    /// The closed blocks of which the same state has been in force for long enough.
    fn due_to_give_up(&mut self, seen: &Seen, now: Instant) -> Vec<(String, Version)> {
        let closed: BTreeSet<&String> = closed_blocks(seen).collect();
        let version_of = |name: &String| seen.versions.get(&(Kind::IpBlock, name.clone()));
        self.closed.retain(|name, (version, _)| closed.contains(name) && version_of(name) == Some(version));
        for name in closed {
            if let Some(version) = version_of(name).filter(|version| !version.released) {
                self.closed.entry(name.clone()).or_insert_with(|| (version.clone(), now));
            }
        }
        let long =
            self.closed.iter().filter(|(_, (_, since))| now.saturating_duration_since(*since) >= CLOSED_FOR);
        long.map(|(name, (version, _))| (name.clone(), version.clone())).collect()
    }

    /// Whether no pod has an address of a block that the plugin has been told is closed, by a reading that is made now.
    async fn is_empty(&self, name: &str, seen: &Seen) -> Result<bool> {
        let Some(block) = seen
            .plan
            .iter()
            .flat_map(|plan| &plan.blocks)
            .find(|block| block.object.as_deref() == Some(name))
        else {
            return Ok(false);
        };
        let (reply, answer) = oneshot::channel();
        let gone = || anyhow!("the task that keeps the pods' addresses does not answer");
        self.serving.ipam.send(ipam::Ask::Show(reply)).await.map_err(|_| gone())?;
        let shown = answer.await.map_err(|_| gone())?.map_err(|refusal| anyhow!("{refusal:?}"))?;
        let of_block = shown.blocks.iter().find(|shown| shown.cidr == block.cidr);
        Ok(of_block.is_some_and(|block| {
            block.state == IpamBlockState::Closed && block.taken == 0 && block.resting == 0
        }))
    }

    fn tell(&self, result: Result<()>) {
        self.told.send_modify(|told| match result {
            Ok(()) => {
                told.written = told.written.saturating_add(1);
                told.problem = None;
            }
            Err(error) => {
                told.failed = told.failed.saturating_add(1);
                let text = format!("{error:#}");
                if told.problem.as_ref().is_none_or(|problem| problem.text != text) {
                    tracing::warn!("{text}");
                }
                let remedy = "it is tried again; see that weftd's service account has the rights of manifests/base, and \
                              that the API server answers";
                told.problem = Some(Problem::warning("report", text, remedy));
            }
        });
    }
}

async fn bounded(write: impl Future<Output = Result<()>>) -> Result<()> {
    timeout(PATIENCE, write)
        .await
        .unwrap_or_else(|_| Err(anyhow!("no answer within {} s", PATIENCE.as_secs())))
}

/// The IPBlocks of the node that it gives no new address of, as the plan in force has it.
fn closed_blocks(seen: &Seen) -> impl Iterator<Item = &String> {
    let blocks = seen.plan.iter().flat_map(|plan| &plan.blocks);
    blocks
        .filter(|block| block.state == crate::plan::BlockState::Closed)
        .filter_map(|block| block.object.as_ref())
}

/// What is worth telling soon.
fn notable(report: &NodeReport) -> impl PartialEq + '_ {
    let low = |block: &BlockReport| block.free <= block.used.saturating_add(block.free) / 4;
    let blocks: Vec<_> =
        report.blocks.iter().map(|block| (block.cidr, block.open, low(block), block.used == 0)).collect();
    let problems: Vec<_> = report.problems.iter().map(|problem| &problem.code).collect();
    let statuses: Vec<_> = report.conditions.iter().map(|condition| &condition.status).collect();
    let states: Vec<_> = report.peers.iter().map(|peer| (&peer.peer, peer.state == "Established")).collect();
    let node = (report.ready, &report.drain, report.as_number, &report.version);
    (report.sessions, node, blocks, problems, states, statuses)
}

fn report(seen: &Seen) -> NodeReport {
    let status = &seen.scrape.status;
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    let speaker = seen.plan.as_ref().map(|plan| &plan.speaker);
    let shut_down: BTreeSet<String> = speaker
        .iter()
        .flat_map(|speaker| &speaker.peers)
        .filter(|(_, peer)| peer.shutdown.is_some())
        .map(|(address, peer)| view::peer_address(*address, peer.port))
        .collect();
    let mut problems: Vec<&Problem> = status.problems.iter().collect();
    problems.sort();
    // Where not all have room: what the statuses of BGPPeers are made of first, and what is wrong.
    let mut peers: Vec<&PeerJson> =
        seen.scrape.peers.iter().map(|(peer, _)| peer).filter(|peer| is_to_be_told(peer)).collect();
    peers.sort_by_key(|peer| (peer.name.starts_with("mesh:"), peer.state == State::Established));
    NodeReport {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        as_number: speaker.map(|speaker| speaker.asn.0),
        router_id: speaker.map(|speaker| speaker.router_id.to_string()),
        addresses: seen.plan.iter().flat_map(|plan| plan.addresses.iter()).map(|ip| ip.to_string()).collect(),
        ready: seen.scrape.ready,
        drain: status.drain.as_ref().map(|drain| drain.phase.as_str().to_owned()),
        sessions: SessionCount { up: count(status.peers.up), wanted: count(status.peers.wanted) },
        peers: peers.into_iter().take(LISTED_MAX).map(|peer| session(peer, &shut_down)).collect(),
        routes: RouteCount { wanted: count(status.fib.wanted), installed: count(status.fib.installed) },
        blocks: status.ipam.blocks.iter().take(BLOCKS_LISTED_MAX).map(block).collect(),
        problem_count: count(problems.len()),
        problems: problems.into_iter().take(LISTED_MAX).map(problem).collect(),
        conditions: Vec::new(),
    }
}

/// Whether the documents are good, and whether the node does what they say. A condition that stays as it was keeps the time of its last
/// change; a weftd that has just started knows of none.
fn conditions(seen: &Seen, last: Option<&NodeReport>, now: Timestamp) -> Vec<ObjectCondition> {
    let status = &seen.scrape.status;
    let accepted = match status.config.errors.as_slice() {
        [] => (true, "Good", "the documents are good".to_owned()),
        [first, rest @ ..] => (false, "Invalid", format!("{first}; and {} more", rest.len())),
    };
    let (wanted, installed) = (status.fib.wanted, status.fib.installed);
    let programmed = match seen.scrape.ready {
        false => (false, "NotConverged", "weftd has not converged since it started".to_owned()),
        true if installed < wanted => {
            (false, "RoutesMissing", format!("{installed} of {wanted} routes are in the kernel"))
        }
        true => (true, "InForce", "every route is in the kernel".to_owned()),
    };
    let now = now.round(jiff::Unit::Second).unwrap_or(now).to_string();
    let condition = |kind: &str, (holds, reason, message): (bool, &str, String)| {
        let status = if holds { "True" } else { "False" };
        let mut had = last.into_iter().flat_map(|last| &last.conditions);
        let same = had.find(|had| had.kind == kind && had.status == status);
        ObjectCondition {
            kind: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message,
            observed_generation: None,
            last_transition_time: same.map_or_else(|| now.clone(), |same| same.last_transition_time.clone()),
        }
    };
    vec![condition("Accepted", accepted), condition("Programmed", programmed)]
}

/// Whether a session is one that the cluster is told of: a dynamic one is while it is there, or may come back to its routes.
fn is_to_be_told(peer: &PeerJson) -> bool {
    let restarts = peer.graceful_restart.as_ref().is_some_and(|restart| restart.restarting);
    peer.listen_range.is_none() || peer.state == State::Established || restarts
}

fn session(peer: &PeerJson, shut_down: &BTreeSet<String>) -> SessionReport {
    SessionReport {
        name: peer.name.clone(),
        peer: peer.peer.clone(),
        state: format!("{:?}", peer.state),
        shutdown: shut_down.contains(&peer.peer),
        bfd: peer.bfd.as_ref().map(|bfd| bfd.state.clone()),
        last_error: peer.last_error.as_ref().map(|error| error.text.clone()),
    }
}

fn block(block: &crate::api::ipam::IpamBlockJson) -> BlockReport {
    BlockReport {
        cidr: block.cidr.into(),
        open: block.state == IpamBlockState::Open,
        used: block.taken.saturating_add(block.resting),
        free: block.free.unwrap_or(FREE_MAX),
    }
}

fn problem(problem: &Problem) -> ProblemReport {
    ProblemReport {
        severity: match problem.severity {
            Severity::Error => "error".to_owned(),
            Severity::Warning => "warning".to_owned(),
        },
        code: problem.code.clone(),
        text: problem.text.clone(),
        remedy: problem.remedy.clone(),
    }
}
