//! Answers to the socket's questions.
//!
//! What the loop knows goes along as a copy. What the speaker and the kernel know is asked on a task, so that a table of a million
//! routes keeps nobody waiting but the one who asked.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use anyhow::Result;
use ipnet::IpNet;
use tokio::sync::oneshot;
use weft_bgp::bmp::StationStatus;
use weft_bgp::session::State;
use weft_bgp::speaker::Speaker;
use weft_bgp::status::{
    PeerStatus, RangeStatus, Rejections, RibView, RouteSelect, RouteStatus, SpeakerCounters,
};
use weft_bgp::transport::bfd::BfdReport;
use weft_bgp::transport::{AoInUse, Handle, Stopped};
use weft_bgp::types::ConnectionId;
use weft_bgp::types::PeerAddress;
use weft_routing::nft;
use weft_routing::sync::{Counters, Engine, FibEntry, RouteState};
use weft_routing::{Kernel, Resolution};

use super::agent::{Agent, Knowledge, Task};
use super::clear::{clear, is_called, no_such_peer};
use super::clock::Moment;
use super::event_query::{self, EventQuery};
use super::metrics::{self, Addresses, Scrape};
use super::problems::{self, Known, Rejection};
use super::report::Seen;
use super::socket::{Ask, Refusal, Rib, RoutesQuery, Select};
use super::{bfd, bmp, dynamic, node_file, sysctl, view};
use crate::api::StationJson;
use crate::api::json::{
    EventJson, FibJson, FibNextHopJson, FibStatusJson, IpamStatusJson, PeerCountJson, PeerJson, Problem,
    RouteJson, Severity, SpoofedJson, StatusJson,
};
use crate::cluster::Cluster;

/// How many prefixes are looked at in one go: sessions wait meanwhile.
const PIECE: usize = 1024;

impl Agent {
    /// Answers, now or on a task. Whoever asked may have gone: then nobody is told.
    ///
    /// # Errors
    /// What a change of the plan meets.
    pub(super) async fn answer(&mut self, ask: Ask) -> Result<()> {
        let inquiry = Inquiry {
            bgp: self.bgp.as_ref().map(|bgp| bgp.handle.clone()),
            kernel: Arc::clone(&self.kernel),
            cluster: self.known.cluster.clone(),
        };
        match ask {
            Ask::Ready(reply) => drop(reply.send(self.known.ready())),
            Ask::Drain(reply) => drop(reply.send(self.drain().await?)),
            Ask::Undrain(reply) => drop(reply.send(self.undrain().await?)),
            Ask::Clear(request, reply) => {
                self.known.counts.cleared(request.soft);
                let (bgp, events) = (inquiry.bgp, self.events.clone());
                reply_from_task(reply, async move { clear(bgp, &events, request).await });
            }
            Ask::PrefixEvents(query, reply) => {
                reply_from_task(reply, async move { inquiry.prefix_events(query).await });
            }
            Ask::Services(reply) => drop(reply.send(self.known.services())),
            Ask::Speaker(reply) => drop(reply.send(inquiry.bgp)),
            Ask::Status(reply) => {
                let known = self.known.clone();
                let node = self.node.clone();
                reply_from_task(reply, async move { inquiry.report(node, known).await.status });
            }
            Ask::Peers(reply) => reply_from_task(reply, async move { inquiry.speaker().await.peers_json() }),
            Ask::Bmp(reply) => reply_from_task(reply, async move { inquiry.speaker().await.stations_json() }),
            Ask::Routes(query, reply) => reply_from_task(reply, async move { inquiry.routes(query).await }),
            Ask::Fib(reply) => {
                reply_from_task(reply, async move { inquiry.kernel(|engine| fib(engine.fib())).await });
            }
            Ask::Report(reply) => {
                let known = self.known.clone();
                let node = self.node.clone();
                let (plan, versions) = (known.plan.clone(), known.versions.clone());
                let nodes = known.node_count();
                reply_from_task(reply, async move {
                    Seen { scrape: inquiry.report(node, known).await, plan, versions, nodes }
                });
            }
            Ask::Metrics(reply) => {
                let known = self.known.clone();
                let node = self.node.clone();
                reply_from_task(reply, async move { metrics::render(inquiry.report(node, known).await) });
            }
        }
        Ok(())
    }
}

fn reply_from_task<T: Send + 'static>(
    reply: oneshot::Sender<T>,
    answer: impl Future<Output = T> + Send + 'static,
) {
    tokio::spawn(async move { drop(reply.send(answer.await)) });
}

impl Knowledge {
    /// Ready is who has converged once. What is missing else, in a sentence.
    fn ready(&self) -> Result<(), String> {
        match (&self.plan, self.converged) {
            (_, true) => Ok(()),
            (None, _) if !self.config.errors.is_empty() => {
                Err(format!("the documents have {} errors; see weftctl status", self.config.errors.len()))
            }
            (None, _) => Err("starting".into()),
            (Some(_), false) => Err("waiting for the peers' routes".into()),
        }
    }
}

impl Knowledge {
    /// What was found wrong where it was looked at.
    fn found(&self) -> Vec<Problem> {
        let mut found = self.host.clone();
        found.extend(sysctl::problems(&self.sysctls));
        found.extend(self.plan.iter().flat_map(|plan| &plan.diagnostics).cloned());
        found.extend(self.failed.values().cloned());
        found.extend(self.packet_filter.problem.clone());
        found.extend(self.awaits_guard());
        found.extend(self.conflist.clone());
        found.extend(self.unanswered_services());
        found.extend(self.reported.problem.clone());
        found.extend(self.api_trouble.as_deref().map(problems::api));
        found.extend(self.ipam.problems.iter().cloned());
        found.extend(self.neighbours.problem.clone());
        found
    }

    /// The plugin has nothing to go by yet, not even from an earlier run, and nothing is known to be wrong: status is not good before pods can be added.
    fn awaits_guard(&self) -> Option<Problem> {
        let has_file = self.node_file_written || self.ran_before;
        let explained = self.packet_filter.problem.is_some() || self.failed.contains_key(&Task::NodeFile);
        (self.plan.is_some() && !has_file && !explained).then(node_file::awaits_guard)
    }

    /// Whether there are peers that are known by their interface.
    fn has_link_peers(&self) -> bool {
        self.plan.iter().flat_map(|plan| plan.speaker.peers.keys()).any(|peer| peer.interface().is_some())
    }

    /// The peers that are nodes and whose address lies behind a gateway.
    fn nodes_behind_gateway(&self) -> BTreeMap<String, IpAddr> {
        let (Some(plan), Some(cluster)) = (&self.plan, &self.cluster) else { return BTreeMap::new() };
        let nodes: BTreeSet<_> = cluster.nodes.values().flat_map(|node| &node.addresses).collect();
        let behind = self.next_hops.iter().filter(|(_, resolution)| {
            matches!(resolution, Resolution::Gateway { .. } | Resolution::Recursive { .. })
        });
        behind
            .filter(|(next_hop, _)| nodes.contains(&next_hop.address))
            .filter_map(|(next_hop, _)| {
                Some((plan.speaker.peers.get(&next_hop.address.into())?, next_hop.address))
            })
            .map(|(peer, address)| (peer.name.clone(), address))
            .collect()
    }
}

/// Whom to ask.
struct Inquiry {
    bgp: Option<Handle>,
    kernel: Arc<Kernel>,
    /// What was taken in last.
    cluster: Option<Arc<Cluster>>,
}

/// The speaker's side, at one moment.
#[derive(Default)]
struct SpeakerView {
    /// The documents in force.
    cluster: Option<Arc<Cluster>>,
    peers: Vec<PeerStatus>,
    ranges: Vec<RangeStatus>,
    bfd: BfdReport,
    ao_keys: BTreeMap<ConnectionId, AoInUse>,
    counters: SpeakerCounters,
    stations: Vec<StationStatus>,
    rejected: BTreeMap<(String, Rejection), (usize, IpNet)>,
}

/// The kernel's side, at one moment.
#[derive(Default)]
struct KernelView {
    fib: FibStatusJson,
    counters: Counters,
    /// Nexthop objects of legs, and of groups.
    nexthops: (usize, usize),
    /// Why groups are not resilient though they should be.
    not_resilient: Option<String>,
}

impl Inquiry {
    /// What the speaker says; nothing where there is none yet, or none any more.
    async fn speaker(&self) -> SpeakerView {
        let Some(bgp) = &self.bgp else { return SpeakerView::default() };
        let bfd = bgp.bfd().await.unwrap_or_default();
        let ao_keys = bgp.ao_keys().await.unwrap_or_default();
        let cluster = self.cluster.clone();
        SpeakerView { cluster, bfd, ao_keys, ..bgp.inspect(SpeakerView::of).await.unwrap_or_default() }
    }

    /// What the kernel's engine says. It may be busy writing, so that it is asked on a thread that may wait.
    async fn kernel<T: Send + Default + 'static>(
        &self,
        look: impl FnOnce(&Engine) -> T + Send + 'static,
    ) -> T {
        let kernel = Arc::clone(&self.kernel);
        let answer = tokio::task::spawn_blocking(move || kernel.inspect(look)).await;
        answer.ok().and_then(Result::ok).unwrap_or_default()
    }

    async fn report(&self, node: String, known: Knowledge) -> Scrape {
        let speaker = self.speaker().await;
        let kernel = self.kernel(KernelView::of).await;
        let now = Moment::now();
        let peers: Vec<_> = speaker
            .peers
            .iter()
            .map(|p| (speaker.peer(p, &now), p.config.shutdown.is_some() || dynamic::is_passing(p)))
            .collect();
        let behind_gateway = known.nodes_behind_gateway();
        let mut found = known.found();
        found.extend(known.mrt.problems(now.instant));
        found.extend(speaker.peers.iter().filter_map(problems::without_ipv4));
        found.extend(speaker.peers.iter().filter_map(|peer| problems::max_prefixes(peer, &now)));
        found.extend(speaker.peers.iter().filter_map(problems::paths_refused));
        found.extend(speaker.ranges.iter().filter_map(|range| dynamic::refused(range, &now)));
        found.extend(speaker.stations.iter().filter_map(|station| bmp::away(station, &now)));
        found.extend(speaker.bfd.errors.iter().map(|(port, error)| bfd::cannot_run(*port, error)));
        found.extend(peers.iter().filter_map(|(peer, _)| bfd::down(peer)));
        found.extend(kernel.not_resilient.as_deref().map(problems::not_resilient));
        let problems = problems::list(
            &Known {
                found: &found,
                config: &known.config,
                // With the first plan the speaker starts, once it is known what an earlier run left in the kernel.
                planned: known.plan.is_some() && self.bgp.is_some(),
                peers: &peers,
                rejected: &speaker.rejected,
                behind_gateway: &behind_gateway,
                listeners: &known.listeners,
                fib: &kernel.fib,
                strangers: &known.strangers,
            },
            now.timestamp,
        );
        let status = StatusJson {
            node,
            ok: problems.iter().all(|problem| problem.severity != Severity::Error),
            problems,
            addresses: known.plan.iter().flat_map(|plan| plan.address_choice.clone()).collect(),
            peers: count(&peers),
            listen_ranges: speaker.ranges.iter().map(dynamic::range).collect(),
            config: known.config.clone(),
            fib: FibStatusJson {
                learned_kept_out: known.plan.iter().any(|plan| !plan.speaker.install_routes),
                ..kernel.fib
            },
            ipam: IpamStatusJson { blocks: known.ipam.blocks.clone() },
            spoofed: known
                .packet_filter
                .spoofed
                .map(|nft::Packets { ipv4, ipv6 }| SpoofedJson { ipv4, ipv6 }),
            services: known.services_status(),
            drain: known.drained(&now),
            mrt: known.plan.iter().any(|plan| plan.mrt.is_some()).then(|| known.mrt.json()),
        };
        let peers_have_bfd = peers.iter().any(|(peer, _)| peer.bfd.is_some());
        let messages = speaker.peers.iter().map(|p| p.counters);
        Scrape {
            status,
            peers: peers.into_iter().map(|(peer, _)| peer).zip(messages).collect(),
            ready: known.converged,
            pods: known.pods.count,
            addresses: Addresses { leaked: known.ipam.leaked, freed: known.ipam.freed },
            counts: known.counts,
            neighbours: known.has_link_peers().then_some(known.neighbours.counters),
            reported: (known.reported.written, known.reported.failed),
            bfd_discards: peers_have_bfd.then_some(speaker.bfd.discards),
            stations: speaker.stations_json(),
            speaker: speaker.counters,
            kernel: kernel.counters,
            next_hops: known.next_hops.into_values().collect(),
            nexthops: kernel.nexthops,
        }
    }

    /// Changes of best paths; there are none before there is a speaker.
    async fn prefix_events(&self, query: EventQuery) -> Vec<EventJson> {
        let Some(bgp) = &self.bgp else { return Vec::new() };
        let changes = bgp.inspect(move |speaker| event_query::changes(speaker, &query)).await;
        let now = Moment::now();
        changes.unwrap_or_default().iter().map(|change| event_query::event(change, &now)).collect()
    }

    async fn routes(&self, query: RoutesQuery) -> Result<Vec<RouteJson>, Refusal> {
        // Before the first plan there is no speaker and so no route, which is no failure to answer.
        let Some(bgp) = &self.bgp else { return Ok(Vec::new()) };
        let stopped = |stopped: Stopped| Refusal::Unavailable(stopped.to_string());
        let wanted = bgp.inspect(move |speaker| Wanted::find(speaker, &query)).await.map_err(stopped)??;
        let (mut routes, mut from) = (Vec::new(), Some(0));
        while let Some(place) = from {
            let piece = bgp.inspect(move |speaker| wanted.piece(speaker, place)).await;
            let (piece, next) = piece.map_err(stopped)?;
            routes.extend(piece);
            from = next;
        }
        routes.sort_unstable_by_key(|route: &RouteStatus| route.prefix);
        let told = self
            .kernel(move |engine| {
                let told = |route: &RouteStatus| view::route(route, engine.is_installed(route.prefix));
                routes.iter().map(told).collect()
            })
            .await;
        Ok(told)
    }
}

impl SpeakerView {
    fn of(speaker: &Speaker) -> Self {
        let peers = speaker.peers();
        let rejected = peers
            .iter()
            .flat_map(|peer| {
                let told = rejected(speaker, peer).into_iter();
                told.map(|(rejection, routes)| ((peer.config.name.clone(), rejection), routes))
            })
            .collect();
        Self {
            peers,
            ranges: speaker.ranges(),
            cluster: None,
            bfd: BfdReport::default(),
            ao_keys: BTreeMap::new(),
            counters: speaker.counters(),
            stations: speaker.stations(),
            rejected,
        }
    }

    fn stations_json(&self) -> Vec<StationJson> {
        let now = Moment::now();
        self.stations.iter().map(|station| bmp::station(station, &now)).collect()
    }

    fn peers_json(&self) -> Vec<PeerJson> {
        let now = Moment::now();
        self.peers.iter().map(|peer| self.peer(peer, &now)).collect()
    }

    fn peer(&self, peer: &PeerStatus, now: &Moment) -> PeerJson {
        let in_use = peer.session.as_ref().and_then(|session| self.ao_keys.get(&session.connection));
        let spec = self.cluster.as_ref().and_then(|cluster| cluster.peers.get(&peer.config.name));
        view::peer(peer, spec.map(AsRef::as_ref), &self.bfd, in_use, now)
    }
}

/// The rejections of a peer's routes that people should hear of: how many routes each, and one of them.
fn rejected(speaker: &Speaker, peer: &PeerStatus) -> BTreeMap<Rejection, (usize, IpNet)> {
    let Rejections { as_set, own_as, duplicate_origin, route_leak } = speaker.rejections(peer.id);
    let all = [
        (Rejection::AsSet, as_set),
        (Rejection::OwnAs, own_as),
        (Rejection::DuplicateOrigin, duplicate_origin),
        (Rejection::RouteLeak, route_leak),
    ];
    all.into_iter().filter_map(|(rejection, routes)| Some((rejection, routes?))).collect()
}

/// What routes are asked for.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    view: RibView,
    select: RouteSelect,
    /// Paths of this peer alone.
    only: Option<PeerAddress>,
}

impl Wanted {
    fn find(speaker: &Speaker, query: &RoutesQuery) -> Result<Self, Refusal> {
        let peer = query.peer.as_deref().map(|peer| find_peer(speaker, peer)).transpose()?;
        let select = match query.select {
            Select::All => RouteSelect::All,
            Select::Exact(prefix) => RouteSelect::Exact(prefix),
            Select::Covering(address) => RouteSelect::LongestMatch(address),
        };
        let (view, only) = match (query.rib, peer) {
            (Rib::Loc, _) => (RibView::Loc, peer),
            (Rib::In, Some(peer)) => (RibView::In(peer), None),
            (Rib::Out, Some(peer)) => (RibView::Out(peer), None),
            (Rib::In | Rib::Out, None) => return Err(Refusal::Malformed("which peer's? name one".into())),
        };
        Ok(Self { view, select, only })
    }

    /// What the speaker has of it from a place in its table on, and where to go on.
    fn piece(&self, speaker: &Speaker, from: usize) -> (Vec<RouteStatus>, Option<usize>) {
        let (mut routes, next) = match self.select {
            RouteSelect::All => speaker.routes_from(self.view, from, PIECE),
            select => (speaker.routes(self.view, select), None),
        };
        if self.only.is_some() {
            routes.iter_mut().for_each(|route| route.paths.retain(|path| path.peer == self.only));
            routes.retain(|route| !route.paths.is_empty());
        }
        (routes, next)
    }
}

/// The peer that has this address, with or without its port, or is behind this `%interface`, or the only one that has this name.
fn find_peer(speaker: &Speaker, wanted: &str) -> Result<PeerAddress, Refusal> {
    let peers = speaker.peers();
    let found: BTreeSet<_> =
        peers.iter().filter(|peer| is_called(peer, wanted)).map(|peer| peer.address).collect();
    let mut found = found.into_iter();
    match (found.next(), found.next()) {
        (Some(peer), None) => Ok(peer),
        (Some(_), Some(_)) => {
            Err(Refusal::Malformed(format!("several peers are named {wanted:?}; give an address")))
        }
        (None, _) => Err(no_such_peer(wanted, peers.iter().map(|peer| (&peer.config.name, peer.address)))),
    }
}

fn count(peers: &[(PeerJson, bool)]) -> PeerCountJson {
    let wanted = peers.iter().filter(|(_, shut_down)| !shut_down);
    let up = wanted.clone().filter(|(peer, _)| peer.state == State::Established).count();
    PeerCountJson { up, wanted: wanted.count() }
}

impl KernelView {
    fn of(engine: &Engine) -> Self {
        let (entries, counters) = (engine.fib(), engine.counters());
        let with = |wanted: fn(&RouteState) -> bool| entries.iter().filter(|e| wanted(&e.state)).count();
        let fib = FibStatusJson {
            wanted: with(|state| *state != RouteState::Adopted),
            installed: with(|state| *state == RouteState::Installed),
            refused: with(|state| matches!(state, RouteState::Refused(_))),
            shadowed: with(|state| matches!(state, RouteState::Shadowed(_))),
            blackholes: entries.iter().filter(|entry| entry.blackhole).count(),
            resilient_groups: engine.resilient_groups(),
            repaired: counters.repairs,
            learned_kept_out: false,
        };
        let not_resilient = engine.not_resilient().map(str::to_owned);
        Self { fib, counters, nexthops: engine.nexthop_objects(), not_resilient }
    }
}

fn fib(entries: Vec<FibEntry>) -> Vec<FibJson> {
    let route = |entry: FibEntry| FibJson {
        prefix: entry.prefix,
        next_hops: entry
            .next_hops
            .into_iter()
            .map(|hop| FibNextHopJson { via: hop.via, dev: Some(hop.dev), weight: hop.weight })
            .collect(),
        resilient: entry.resilient,
        blackhole: entry.blackhole,
        protocol: entry.protocol,
        metric: entry.metric,
        state: entry.state.to_string(),
        over: entry.over.into_iter().collect(),
    };
    entries.into_iter().map(route).collect()
}
