//! What became of each object, as its own status tells it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use kube::api::{ApiResource, Patch, PatchParams};
use kube::core::{DynamicObject, GroupVersionKind};
use kube::{Api, Client};
use serde_json::{Value as Json, json};

use super::addresses::Supply;
use super::reports::Reports;
use crate::api::{AllowedUse, GROUP, IPPoolSpec, SessionReport, VERSION};
use crate::blocks::{Plan, Short, Usages};
use crate::cluster::{Cluster, Kind};
use crate::documents::Reading;

/// The longest message, in characters.
const MESSAGE_MAX: usize = 1024;
const NOT_FOUND: u16 = 404;

/// The state of a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Condition {
    kind: &'static str,
    holds: bool,
    reason: &'static str,
    message: String,
}

/// What the status of one object should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    kind: Kind,
    name: String,
    generation: i64,
    conditions: [Condition; 2],
    /// What else it has, by key.
    more: Json,
}

/// The statuses as they should be, and as they were written last.
#[derive(Debug, Default)]
pub(super) struct Statuses {
    wanted: BTreeMap<(Kind, String), Wanted>,
    written: BTreeMap<(Kind, String), Wanted>,
    /// Where the next round begins, so that objects that change all the time keep none waiting.
    next: Option<(Kind, String)>,
}

impl Statuses {
    /// Takes down how things are. Without a supply it is not known yet what became of pools for LoadBalancer addresses.
    pub(super) fn want(
        &mut self,
        reading: &Reading,
        reports: &Reports,
        plan: &Plan,
        supply: Option<&Supply>,
    ) {
        self.wanted = wanted(reading, reports, plan, supply);
        let wanted = &self.wanted;
        self.written.retain(|id, _| wanted.contains_key(id));
    }

    /// Whether something is to be written.
    pub(super) fn is_pending(&self) -> bool {
        self.wanted.iter().any(|(id, wanted)| self.written.get(id) != Some(wanted))
    }

    /// At most so many of what is to be written.
    pub(super) fn pending(&mut self, most: usize) -> Vec<Wanted> {
        let open = |(id, wanted): &(&(Kind, String), &Wanted)| self.written.get(*id) != Some(*wanted);
        let (before, from): (Vec<_>, Vec<_>) = self
            .wanted
            .iter()
            .filter(open)
            .partition(|(id, _)| self.next.as_ref().is_some_and(|next| *id < next));
        let chosen: Vec<_> = from.into_iter().chain(before).collect();
        let next = chosen.get(most).map(|(id, _)| (*id).clone());
        let chosen = chosen.into_iter().take(most).map(|(_, wanted)| wanted.clone()).collect();
        self.next = next;
        chosen
    }

    /// Takes down that it is written.
    pub(super) fn written(&mut self, wanted: Wanted) {
        self.written.insert((wanted.kind, wanted.name.clone()), wanted);
    }
}

impl Wanted {
    /// Writes it. A condition that stays as it was keeps the time of its last change.
    pub(super) async fn write(&self, client: &Client) -> Result<()> {
        let gvk = GroupVersionKind::gvk(GROUP, VERSION, self.kind.as_str());
        let resource = ApiResource::from_gvk_with_plural(&gvk, self.kind.plural());
        let objects: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
        let what = || format!("the status of {} {}", self.kind.as_str(), self.name);
        let Some(live) =
            objects.get_opt(&self.name).await.with_context(|| format!("cannot get {}", what()))?
        else {
            return Ok(());
        };
        let before = live.data.get("status").unwrap_or(&Json::Null);
        let status = self.status(before, Timestamp::now());
        if is_within(&status, before) {
            return Ok(());
        }
        let patch = Patch::Merge(json!({ "status": status }));
        match objects.patch_status(&self.name, &PatchParams::default(), &patch).await {
            Err(kube::Error::Api(error)) if error.code == NOT_FOUND => Ok(()),
            written => written.map(drop).with_context(|| format!("cannot write {}", what())),
        }
    }

    fn status(&self, before: &Json, now: Timestamp) -> Json {
        let now = now.round(jiff::Unit::Second).unwrap_or(now).to_string();
        let none = Vec::new();
        let had = before["conditions"].as_array().unwrap_or(&none);
        let conditions: Vec<Json> = self
            .conditions
            .iter()
            .map(|condition| {
                let status = if condition.holds { "True" } else { "False" };
                let same = had.iter().find(|had| had["type"] == condition.kind && had["status"] == status);
                let since = same.and_then(|same| same["lastTransitionTime"].as_str()).unwrap_or(&now);
                json!({"type": condition.kind, "status": status, "reason": condition.reason, "message": condition.message,
                    "observedGeneration": self.generation, "lastTransitionTime": since})
            })
            .collect();
        let mut status = self.more.clone();
        if let Json::Object(fields) = &mut status {
            fields.insert("conditions".into(), conditions.into());
        }
        status
    }
}

/// Whether everything in `part` is in `whole` already.
fn is_within(part: &Json, whole: &Json) -> bool {
    match part {
        Json::Object(fields) => fields.iter().all(|(key, value)| is_within(value, &whole[key])),
        _ => part == whole,
    }
}

fn wanted(
    reading: &Reading,
    reports: &Reports,
    plan: &Plan,
    supply: Option<&Supply>,
) -> BTreeMap<(Kind, String), Wanted> {
    let Some(cluster) = &reading.cluster else { return BTreeMap::new() };
    let mut errors: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for error in &reading.errors {
        let field = error.field.iter().map(|field| format!("{field}: "));
        let text = format!("{}{}; {}", field.collect::<String>(), error.message, error.remedy);
        errors.entry(error.object.as_deref().unwrap_or_default()).or_default().push(text);
    }
    let about = About {
        cluster,
        plan,
        supply,
        sessions: by_peer(reports),
        usage: reports.usage(),
        told: reports.names().count(),
    };
    let of_object = |((kind, name), version): (&(Kind, String), &crate::documents::Version)| {
        let errors = errors.get(format!("{}/{name}", kind.as_str()).as_str());
        let in_force = about.is_in_force(*kind, name);
        let (programmed, more) = about.object(*kind, name)?;
        let programmed = if in_force { programmed } else { not_in_force() };
        let wanted = Wanted {
            kind: *kind,
            name: name.clone(),
            generation: version.generation,
            conditions: [accepted(errors.map(Vec::as_slice), in_force), programmed],
            more,
        };
        Some(((*kind, name.clone()), wanted))
    };
    reading.versions.iter().filter_map(of_object).collect()
}

fn accepted(errors: Option<&[String]>, in_force: bool) -> Condition {
    let (holds, reason, message) = match errors {
        None => (true, "Good", "it is in force".to_owned()),
        Some(errors) if in_force => {
            (false, "Invalid", format!("what was accepted before stays in force: {}", errors.join("\n")))
        }
        Some(errors) => (false, "Invalid", errors.join("\n")),
    };
    Condition { kind: "Accepted", holds, reason, message: cut(message) }
}

fn programmed(holds: bool, reason: &'static str, message: impl Into<String>) -> Condition {
    Condition { kind: "Programmed", holds, reason, message: cut(message.into()) }
}

fn not_in_force() -> Condition {
    programmed(false, "NotAccepted", "it is not in force")
}

fn cut(message: String) -> String {
    if message.chars().count() <= MESSAGE_MAX { message } else { message.chars().take(MESSAGE_MAX).collect() }
}

type Sessions<'a> = BTreeMap<&'a str, Vec<(&'a String, &'a SessionReport)>>;

fn by_peer(reports: &Reports) -> Sessions<'_> {
    let mut sessions = Sessions::new();
    for (node, session) in reports.sessions() {
        sessions.entry(session.name.as_str()).or_default().push((node, session));
    }
    sessions
}

/// Everything that statuses are made of.
struct About<'a> {
    cluster: &'a Cluster,
    plan: &'a Plan,
    supply: Option<&'a Supply>,
    sessions: Sessions<'a>,
    usage: Usages,
    /// How many nodes have told of themselves.
    told: usize,
}

impl About<'_> {
    fn is_in_force(&self, kind: Kind, name: &str) -> bool {
        match kind {
            Kind::BgpConfiguration => self.cluster.configurations.contains_key(name),
            Kind::BgpPeer => self.cluster.peers.contains_key(name),
            Kind::BgpFilter => self.cluster.filters.contains_key(name),
            Kind::BfdProfile => self.cluster.bfd_profiles.contains_key(name),
            Kind::IpPool => self.cluster.pools.contains_key(name),
            Kind::IpBlock => self.cluster.blocks.contains_key(name),
            Kind::Node | Kind::Namespace | Kind::Secret | Kind::Service | Kind::EndpointSlice => false,
        }
    }

    /// None: it is not known yet.
    fn object(&self, kind: Kind, name: &str) -> Option<(Condition, Json)> {
        Some(match kind {
            Kind::BgpPeer => self.peer(name),
            Kind::IpPool => return self.pool(name),
            Kind::IpBlock => (self.block(name), json!({})),
            Kind::BgpConfiguration
            | Kind::BgpFilter
            | Kind::BfdProfile
            | Kind::Node
            | Kind::Namespace
            | Kind::Secret
            | Kind::Service
            | Kind::EndpointSlice => (self.settings(name), json!({})),
        })
    }

    fn settings(&self, name: &str) -> Condition {
        match name.strip_prefix("node.") {
            Some(node) if !self.cluster.nodes.contains_key(node) => {
                programmed(false, "NoNode", format!("there is no Node {node}"))
            }
            _ if self.told == 0 => {
                programmed(false, "NotReported", "no node has told of itself: see whether weftd runs")
            }
            _ => programmed(true, "InForce", "the nodes go by it"),
        }
    }

    fn peer(&self, name: &str) -> (Condition, Json) {
        let told = self.sessions.get(name).map_or(&[][..], Vec::as_slice);
        let wanted = told.iter().filter(|(_, session)| !session.shutdown);
        // What a Node that is gone has told of is nothing that anybody wants.
        let (live, silent): (Vec<_>, Vec<_>) = wanted
            .filter_map(|(node, session)| Some((*node, *session, self.cluster.nodes.get(*node)?)))
            .partition(|(.., node)| !node.not_ready);
        let missing = self.missing(name, told);
        let up = live.iter().filter(|(_, session, _)| session.state == "Established").count();
        let wanted = live.len().saturating_add(silent.len()).saturating_add(missing.len());
        let down = live.iter().filter(|(_, session, _)| session.state != "Established");
        let down = down.map(|(node, session, _)| match &session.last_error {
            Some(error) => format!("{node} to {}: {}: {error}", session.peer, session.state),
            None => format!("{node} to {}: {}", session.peer, session.state),
        });
        let silent = silent.iter().map(|(node, session, _)| {
            format!("{node} to {}: the Node is not Ready, and what it told last is old", session.peer)
        });
        let missing = missing.iter().map(|node| {
            format!(
                "{node}: it has told of no such session: see its BGPNodeStatus, and whether weftd runs there"
            )
        });
        let range = self.cluster.peers.get(name).is_some_and(|spec| spec.listen_range.is_some());
        let condition = if range && wanted == 0 {
            programmed(true, "Listening", "nobody is connected")
        } else if wanted == 0 && told.is_empty() {
            programmed(false, "NoSession", "it selects no Node")
        } else if wanted == 0 {
            programmed(true, "ShutDown", "its sessions are shut down")
        } else if up == wanted {
            programmed(true, "Established", "every session is up")
        } else {
            let told: Vec<String> = down.chain(silent).chain(missing).take(8).collect();
            programmed(false, "SessionsDown", told.join("\n"))
        };
        let nodes: BTreeSet<&String> = told.iter().map(|(node, _)| *node).collect();
        let more = json!({ "sessions": { "up": up, "wanted": wanted }, "nodes": nodes.len() });
        (condition, more)
    }

    /// The Nodes that ought to have a session of a BGPPeer and have told of none. Who has one with which node is the nodes' to know.
    fn missing(&self, name: &str, told: &[(&String, &SessionReport)]) -> Vec<&String> {
        let Some(spec) = self
            .cluster
            .peers
            .get(name)
            .filter(|spec| spec.peer_selector.is_none() && spec.listen_range.is_none())
        else {
            return Vec::new();
        };
        let told: BTreeSet<&String> = told.iter().map(|(node, _)| *node).collect();
        let selected = self.cluster.nodes.iter().filter(|(_, node)| {
            spec.node_selector.as_ref().is_none_or(|selector| selector.matches(&node.labels))
        });
        selected.map(|(node, _)| node).filter(|node| !told.contains(node)).collect()
    }

    fn pool(&self, name: &str) -> Option<(Condition, Json)> {
        let Some(pool) = self.cluster.pools.get(name) else { return Some((not_in_force(), json!({}))) };
        if pool.is_for(AllowedUse::LoadBalancer) {
            let supply = self.supply?;
            let used = supply.used.get(name).copied().unwrap_or_default();
            let more = json!({ "blocks": 0, "blocksAtMost": 0, "nodes": 0, "addressesUsed": used });
            return Some((self.load_balancer_supply(name, pool, supply), more));
        }
        let blocks: Vec<_> = self
            .cluster
            .blocks
            .values()
            .filter(|block| pool.cidr.net().contains(&block.cidr.net()))
            .collect();
        let nodes: BTreeSet<&String> = blocks.iter().map(|block| &block.node).collect();
        let used = blocks.iter().filter_map(|block| self.usage.of(block));
        let used = used.fold(0u64, |sum, usage| sum.saturating_add(usage.used));
        let more = json!({ "blocks": blocks.len(), "blocksAtMost": at_most(pool), "nodes": nodes.len(), "addressesUsed": used });
        Some((self.supply(name, pool), more))
    }

    fn supply(&self, name: &str, pool: &IPPoolSpec) -> Condition {
        let mut short = self.plan.shortages.iter().filter(|shortage| shortage.pool == name);
        if pool.disabled {
            return programmed(true, "Disabled", "nothing is taken from it, as it says");
        }
        match short.next() {
            None => {
                programmed(true, "Supplied", "every node that it is for has a block of it, or needs none")
            }
            Some(first) => {
                let what = match first.of {
                    Short::Blocks => "no block is left",
                    Short::Prefixes => "no prefix of its own is left: its block is among others",
                    Short::Room => "it has as many blocks as a node may have",
                };
                let more = short.count();
                let more = if more == 0 { String::new() } else { format!(", and {more} more") };
                programmed(false, "Short", format!("for Node {}{more}: {what}", first.node))
            }
        }
    }

    fn load_balancer_supply(&self, name: &str, pool: &IPPoolSpec, supply: &Supply) -> Condition {
        let configurations = self.cluster.configurations.values();
        let mut ranges = configurations.flat_map(|spec| spec.service_load_balancer_ips.iter().flatten());
        match supply.short.get(name) {
            _ if pool.disabled => programmed(true, "Disabled", "nothing is taken from it, as it says"),
            _ if !ranges.any(|range| range.cidr.net().contains(&pool.cidr.net())) => programmed(
                false,
                "NotAnnounced",
                "it lies in no range of serviceLoadBalancerIPs of a BGPConfiguration: peers are not told of its addresses",
            ),
            Some((first, count)) => {
                let more = count.saturating_sub(1);
                let more = if more == 0 { String::new() } else { format!(", and {more} more") };
                programmed(false, "Short", format!("for Service {first}{more}: no address is left"))
            }
            None => programmed(true, "Supplied", "every Service that asks for an address of it has one"),
        }
    }

    fn block(&self, name: &str) -> Condition {
        let Some(block) = self.cluster.blocks.get(name) else { return not_in_force() };
        match self.usage.of(block) {
            Some(_) => programmed(true, "InUse", "its node has it"),
            None => programmed(false, "NotReported", "its node has not told that it has it"),
        }
    }
}

/// How many blocks a pool has room for, at most 2^53 (RFC 8259 section 6).
fn at_most(pool: &IPPoolSpec) -> u64 {
    let bits = pool.block_len().saturating_sub(pool.cidr.net().prefix_len());
    1u64.checked_shl(bits.into()).unwrap_or(u64::MAX).min(1 << 53)
}
