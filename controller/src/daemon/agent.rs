//! The loop: everything that happens to the daemon comes together here, one thing after the other.
//!
//! ```text
//! documents ──┐                          ┌─ Configure, NextHop ──▶ transport (the speaker)
//! kernel ─────┼─▶ Agent: plan, compare ──┼─ configure, learned ──▶ kernel (routes)
//! transport ──┤                          ├─ node.json ───────────▶ weft-cni
//! socket ─────┘                          └─ answers, events
//! ```
//!
//! The kernel's thread never waits for this loop, and this loop never waits for the transport: see [`Coalesced`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ipnet::IpNet;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::block_in_place;
use tokio::time::{MissedTickBehavior, interval, timeout};
use weft_bgp::speaker::{
    BestPathChange, Event, EventKind, NextHops, Resolution as BgpResolution, SpeakerStart, TrackedNextHop,
};
use weft_bgp::transport::{Command, Handle, Notice, Transport};
use weft_bgp::types::{Family, FamilySet, PeerAddress};
use weft_cni::ipam::Store;
use weft_cni::node::boot_id;
use weft_routing::netlink::Mac;
use weft_routing::nft::Ruleset;
use weft_routing::{Engine, Kernel, NextHopRef, Resolution, RouteChange, Settings};

use super::args::Args;
use super::clock::Moment;
use super::coalesce::Coalesced;
use super::conflist::{self, Conflist};
use super::drain::Drained;
use super::dynamic;
use super::events::{Events, NewEvent};
use super::happened::Happened;
use super::held::HeldBlocks;
use super::kernel_news::KernelNews;
use super::lock::RunDir;
use super::metrics::Counts;
use super::neighbours::{self, Neighbours};
use super::packet_filter::PacketFilter;
use super::pods::Pods;
use super::problems::Strangers;
use super::ratelimit::RateLimit;
use super::report::{self, Reported};
use super::services::ServiceProxies;
use super::socket::{Ask, Serving};
use super::source::FolderWatch;
use super::sysctl::{self, Finding};
use super::{
    bfd, facts, happened, ipam, mrt, node_file, packet_filter, pods, preflight, services, socket, source,
};
use crate::api::json::{ConfigStatusJson, Problem};
use crate::cluster::Cluster;
use crate::documents::Versions;
use crate::kubernetes::{self, Access, Followed, Writer};
use crate::plan::{HostFacts, NodePlan, Settling};

/// How often the host is looked at: sysctls and what stands in the way.
const AUDIT: Duration = Duration::from_secs(30);
/// How many questions may wait.
const ASKS_MAX: usize = 64;
/// How long the sessions may take to close at the end.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// How many notices of the speaker's may wait; the speaker gathers what does not fit.
const NOTICES_MAX: usize = 64;

/// The daemon, while it runs.
pub(super) struct Agent {
    pub(super) node: String,
    pub(super) run_dir: PathBuf,
    /// For whom the store of pods' addresses is read.
    pub(super) pods_node: watch::Sender<Option<pods::Node>>,
    /// What nftables must do; none: not planned yet.
    pub(super) packet_filter: watch::Sender<Option<Ruleset>>,
    /// Whether the container runtime may be told that the node takes pods.
    pub(super) takes_pods: watch::Sender<bool>,
    /// On which links routers are looked for.
    pub(super) neighbour_links: watch::Sender<neighbours::Links>,
    /// What of BGP is written to files.
    mrt: mrt::Keeper,
    pub(super) kernel: Arc<Kernel>,
    pub(super) sysctls: sysctl::Kernel,
    /// The root directory of the host.
    host_root: PathBuf,
    /// The documents are the objects of an API server.
    pub(super) follows_api: bool,
    pub(super) bgp: Option<Bgp>,
    pub(super) events: Events,
    pub(super) log: RateLimit,
    pub(super) known: Knowledge,
}

/// The speaker, once it runs.
pub(super) struct Bgp {
    pub(super) handle: Handle,
    notices: mpsc::Receiver<Notice>,
}

/// What the loop knows: everything that answers are made of, apart from the speaker and the kernel themselves.
#[derive(Clone, Debug, Default)]
pub(super) struct Knowledge {
    /// The documents last read.
    pub(super) config: ConfigStatusJson,
    /// The documents in force.
    pub(super) cluster: Option<Arc<Cluster>>,
    /// What this node should be.
    pub(super) plan: Option<Arc<NodePlan>>,
    /// This machine.
    pub(super) facts: HostFacts,
    /// The indexes of all links, by name.
    pub(super) links: BTreeMap<String, u32>,
    /// The links that router advertisements can be sent on, by index, with their MAC addresses.
    pub(super) advertising_links: BTreeMap<u32, Option<Mac>>,
    /// Who the sessions of peers on links are with, by the link's index.
    pub(super) link_sessions: BTreeMap<u32, Ipv6Addr>,
    /// Who else was found on links.
    pub(super) neighbours: Neighbours,
    /// How many of our routes were in the kernel at the start; none: not read yet.
    pub(super) adopted: Option<Adopted>,
    /// Another weftd was here since the host is up.
    pub(super) ran_before: bool,
    /// Every live peer has told its table once.
    pub(super) converged: bool,
    /// How next hops resolve.
    pub(super) next_hops: BTreeMap<NextHopRef, Resolution>,
    /// What the host has in our way.
    pub(super) host: Vec<Problem>,
    /// Whether a service proxy is there.
    pub(super) service_proxies: ServiceProxies,
    /// The kernel's settings.
    pub(super) sysctls: Vec<Finding>,
    /// What could not be done the last time it was tried.
    pub(super) failed: BTreeMap<Task, Problem>,
    /// Where BGP cannot be listened for, and why.
    pub(super) listeners: BTreeMap<SocketAddr, String>,
    /// Who connects and is no peer.
    pub(super) strangers: Strangers,
    /// Weft's tables in nftables.
    pub(super) packet_filter: PacketFilter,
    /// The own prefixes that peers have been told.
    pub(super) announced: BTreeSet<IpNet>,
    /// The aggregates that are announced.
    pub(super) aggregates: BTreeSet<IpNet>,
    /// The blocks that pods have addresses of.
    pub(super) held: HeldBlocks,
    /// Since when Services are answered here.
    pub(super) settling: Settling,
    /// How far the node is drained.
    pub(super) drain: Drained,
    /// The plugin has been told what it needs to know.
    pub(super) node_file_written: bool,
    /// Why the API server cannot be used, while that is so.
    pub(super) api_trouble: Option<String>,
    /// Which states of the node's IPBlocks are in force.
    pub(super) versions: Versions,
    /// How it goes to tell the API server how the node is.
    pub(super) reported: Reported,
    /// What is wrong with the container runtime's configuration.
    pub(super) conflist: Option<Problem>,
    /// The pods of this node.
    pub(super) pods: Pods,
    /// Their addresses.
    pub(super) ipam: ipam::State,
    /// How it goes with MRT files.
    pub(super) mrt: mrt::Shared,
    /// Counters.
    pub(super) counts: Counts,
}

/// Something that can fail and is tried again when its input changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Task {
    /// Making a plan of the documents.
    Plan,
    /// Writing `node.json`.
    NodeFile,
    /// Reading the store of pods' addresses.
    Store,
    /// Remembering how far the node is drained.
    DrainFile,
}

impl Knowledge {
    /// How many Nodes there are.
    pub(super) fn node_count(&self) -> usize {
        self.cluster.as_ref().map_or(0, |cluster| cluster.nodes.len())
    }

    /// When to plan anew although nothing has happened.
    fn next_deadline(&self) -> Option<Instant> {
        self.settling.next_deadline().into_iter().chain(self.drain_deadline()).min()
    }

    /// Whether a peer is configured there.
    pub(super) fn is_peer(&self, address: &PeerAddress) -> bool {
        self.plan.as_ref().is_some_and(|plan| plan.is_peer(*address))
    }
}

/// Routes of ours that an earlier run left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Adopted {
    pub(super) ipv4: usize,
    pub(super) ipv6: usize,
}

impl Adopted {
    fn families(self) -> FamilySet {
        let kept = [(Family::Ipv4Unicast, self.ipv4), (Family::Ipv6Unicast, self.ipv6)];
        kept.into_iter().filter(|(_, count)| *count > 0).map(|(family, _)| family).collect()
    }
}

/// Runs the daemon until SIGTERM or SIGINT.
///
/// # Errors
/// Something without which there is no daemon is not to be had: the socket, the metrics port, the state directory, netlink.
pub(super) async fn run(args: Args, run_dir: &RunDir) -> Result<()> {
    let Some(node) = args.node else { bail!("--node is needed") };
    let events = Events::default();
    let (asks, asked) = mpsc::channel(ASKS_MAX);
    let addresses = ipam::Settings {
        run_dir: run_dir.path().to_owned(),
        state_dir: args.state_dir.clone(),
        cni_cache_dir: args.cni_cache_dir,
        grace: args.ipam_grace.0,
    };
    let (ipam_asks, ipam) = ipam::start(addresses, events.clone())?;
    let serving = Serving { asks, events: events.clone(), ipam: ipam_asks };
    serve(serving.clone(), run_dir, args.metrics).await?;
    let (documents, reported) = match args.manifests {
        Some(folder) => (source::documents(&folder).context("cannot watch the documents")?, None),
        None => {
            let access = Access { kubeconfig: args.kubeconfig, api_server: args.api_server };
            let client = kubernetes::connect(&access).await?;
            let reported = report::start(Writer::new(client.clone(), &node), serving);
            (kubernetes::follow(client, &node, args.node_gone_grace.0), Some(reported))
        }
    };
    let (pods_node, node_told) = watch::channel(None);
    let pods = follow_pods(&args.state_dir, node_told)?;
    let (packet_filter, filter_wanted) = watch::channel(None);
    let filtered = packet_filter::keep(filter_wanted);
    let absolute = |path: &Path| std::path::absolute(path).context("a directory is not named");
    let conflist = match args.cni_conf_dir {
        Some(directory) => Some(Conflist {
            directory,
            bin_dir: args.cni_bin_dir,
            run_dir: absolute(run_dir.path())?,
            state_dir: absolute(&args.state_dir)?,
        }),
        None => None,
    };
    let remembered = node_file::remembered(run_dir.path())?;
    let drain = Drained::remembered(run_dir.path())?;
    let (neighbour_links, links) = watch::channel(neighbours::Links::default());
    let neighbours = neighbours::keep(links);
    let (takes_pods, ready) = watch::channel(false);
    let conflist = conflist::keep(conflist, ready).context("cannot watch the directory of --cni-conf-dir")?;
    let news: Coalesced<KernelNews> = Coalesced::default();
    let kernel = Kernel::start(Settings::default(), KernelNews::sink(news.clone()))
        .context("cannot keep the kernel's routes")?;
    let mrt = mrt::Shared::new(args.mrt_dir.unwrap_or_else(|| args.state_dir.join("mrt")));
    let agent = Agent {
        node,
        run_dir: run_dir.path().to_owned(),
        pods_node,
        packet_filter,
        takes_pods,
        neighbour_links,
        mrt: mrt::Keeper::start(mrt.clone()),
        kernel: Arc::new(kernel),
        sysctls: sysctl::Kernel(args.proc_sys),
        host_root: args.host_root,
        follows_api: reported.is_some(),
        bgp: None,
        events,
        log: RateLimit::default(),
        known: Knowledge {
            announced: remembered.announced,
            ran_before: remembered.ran,
            settling: Settling::new(!remembered.blocks.is_empty()),
            held: HeldBlocks::new(remembered.blocks),
            drain,
            mrt,
            ..Knowledge::default()
        },
    };
    let sources = Sources { documents, reported, pods, ipam, news, filtered, conflist, neighbours, asked };
    agent.run(sources).await
}

/// Serves the socket and the metrics port for as long as the process lives.
async fn serve(serving: Serving, run_dir: &RunDir, metrics: SocketAddr) -> Result<()> {
    let path = run_dir.path().join("weft.sock");
    let listener = socket::listen(&path).with_context(|| format!("cannot listen on {}", path.display()))?;
    let monitoring = TcpListener::bind(metrics).await.with_context(|| {
        format!("cannot serve metrics on {metrics}; choose another address with --metrics")
    })?;
    tokio::spawn(axum::serve(listener, socket::api(serving.clone())).into_future());
    tokio::spawn(axum::serve(monitoring, socket::monitoring(serving)).into_future());
    Ok(())
}

/// Starts reading the store of pods' addresses.
fn follow_pods(
    state_dir: &Path,
    node: watch::Receiver<Option<pods::Node>>,
) -> Result<mpsc::Receiver<Result<Pods, weft_cni::ipam::Error>>> {
    let store = Store::open(state_dir, &boot_id()?).context("cannot use the state directory")?;
    let changes = FolderWatch::start_for(state_dir, weft_cni::ipam::FILE_NAME)
        .context("cannot watch the state directory")?;
    Ok(pods::follow(store, changes, node))
}

/// Where things come from.
struct Sources {
    documents: Followed,
    /// None: there is no API server to report to.
    reported: Option<watch::Receiver<Reported>>,
    pods: mpsc::Receiver<Result<Pods, weft_cni::ipam::Error>>,
    ipam: watch::Receiver<ipam::State>,
    news: Coalesced<KernelNews>,
    filtered: watch::Receiver<PacketFilter>,
    conflist: watch::Receiver<Option<Problem>>,
    neighbours: watch::Receiver<Neighbours>,
    asked: mpsc::Receiver<Ask>,
}

impl Agent {
    async fn run(mut self, mut sources: Sources) -> Result<()> {
        let mut terminate = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot handle SIGINT")?;
        let mut audit = interval(AUDIT);
        audit.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (host, mut host_seen) = mpsc::channel(1);
        let mut announced = false;
        tracing::info!(node = self.node, version = env!("CARGO_PKG_VERSION"), "weftd starts");
        loop {
            tokio::select! {
                _ = terminate.recv() => if !self.leave().await? { break },
                _ = interrupt.recv() => break,
                Some(reading) = sources.documents.readings.recv() => self.read(reading).await?,
                Ok(()) = sources.documents.trouble.changed() => {
                    self.known.api_trouble = sources.documents.trouble.borrow_and_update().clone();
                }
                reported = next_reported(sources.reported.as_mut()) => self.known.reported = reported?,
                Some(reading) = sources.pods.recv() => self.pods_read(reading).await?,
                news = sources.news.take() => self.kernel_said(news).await?,
                notice = next_notice(self.bgp.as_mut()) => self.speaker_said(notice?)?,
                changed = sources.filtered.changed() => {
                    changed.context("the task that keeps nftables has stopped")?;
                    let state = sources.filtered.borrow_and_update().clone();
                    self.packet_filter_said(state);
                }
                changed = sources.conflist.changed() => {
                    changed.context("the task that keeps the runtime's configuration has stopped")?;
                    self.known.conflist = sources.conflist.borrow_and_update().clone();
                }
                changed = sources.neighbours.changed() => {
                    changed.context("the task that looks for neighbours has stopped")?;
                    self.known.neighbours = sources.neighbours.borrow_and_update().clone();
                    self.neighbours_found().await?;
                }
                changed = sources.ipam.changed() => {
                    changed.context("the task that keeps the pods' addresses has stopped")?;
                    self.known.ipam = sources.ipam.borrow_and_update().clone();
                }
                Some(ask) = sources.asked.recv() => self.answer(ask).await?,
                Some((problems, proxies)) = host_seen.recv() => {
                    self.known.host = problems;
                    self.known.service_proxies = proxies;
                }
                () = sleep_until(self.known.next_deadline()) => self.replan().await?,
                _ = audit.tick() => {
                    self.audit_sysctls();
                    self.look_at_host(&host);
                }
            }
            if self.known.drain.has_left() {
                break;
            }
            if self.known.has_service_ranges()
                != std::mem::replace(&mut announced, self.known.has_service_ranges())
            {
                audit.reset_immediately();
            }
        }
        match self.known.drain.has_left() {
            true => tracing::info!("weftd stops, and the node has left the network"),
            false => tracing::info!("weftd stops; its routes stay in the kernel"),
        }
        if let Some(bgp) = &self.bgp
            && timeout(STOP_PATIENCE, bgp.handle.stop()).await.is_err()
        {
            tracing::warn!("the sessions did not close in time");
        }
        // Who was told that BFD ends is not to be told that it goes on.
        bfd::forget(&self.run_dir);
        self.mrt.stop().await;
        Ok(())
    }

    /// Looks at the host on a thread of its own, as that runs programs; not while an earlier look is under way.
    fn look_at_host(&self, seen: &mpsc::Sender<(Vec<Problem>, ServiceProxies)>) {
        let Ok(permit) = seen.clone().try_reserve_owned() else { return };
        let (root, nodes) = (self.host_root.clone(), self.known.node_count());
        let announces_services = self.known.has_service_ranges();
        tokio::task::spawn_blocking(move || {
            let proxies =
                if announces_services { services::look_for_proxies() } else { ServiceProxies::new() };
            permit.send((preflight::look(&root, nodes), proxies))
        });
    }

    /// Tells the speaker what it should be. It is started with the first plan, as it tells its peers then which routes were kept.
    pub(super) async fn configure_speaker(&mut self) -> Result<()> {
        let (Some(plan), Some(adopted)) = (self.known.plan.clone(), self.known.adopted) else {
            return Ok(());
        };
        let listeners = plan.listeners.clone();
        if let Some(bgp) = &self.bgp {
            bgp.handle.send(Command::Configure(Arc::clone(&plan.speaker))).await?;
            self.known.listeners.retain(|address, _| listeners.contains(address));
            bgp.handle.send(Command::Listen(listeners)).await?;
            self.want_mrt();
            return Ok(());
        }
        let start = match plan.speaker.install_routes {
            true => {
                let forwarding = adopted.families();
                SpeakerStart { seed: seed(), restarting: !forwarding.is_empty(), forwarding }
            }
            // Where packets do not pass, a restart changes nothing for them.
            false => {
                SpeakerStart { seed: seed(), restarting: self.known.ran_before, forwarding: FamilySet::all() }
            }
        };
        tracing::info!(adopted.ipv4, adopted.ipv6, "the speaker starts");
        let (notices, received) = mpsc::channel(NOTICES_MAX);
        let handle = Transport::start(start, listeners, notices).context("cannot start the speaker")?;
        handle.send(Command::Remember(dynamic::remembered(&self.run_dir))).await?;
        handle.send(Command::ResumeBfd(bfd::remembered(&self.run_dir))).await?;
        // Asked for before the first session is, so that little of that is missed.
        self.bgp = Some(Bgp { handle: handle.clone(), notices: received });
        self.want_mrt();
        handle.send(Command::Configure(Arc::clone(&plan.speaker))).await?;
        Ok(())
    }

    fn want_mrt(&self) {
        let mrt = self.known.plan.as_ref().and_then(|plan| plan.mrt);
        self.mrt.want(mrt, self.bgp.as_ref().map(|bgp| &bgp.handle), self.known.converged);
    }

    async fn kernel_said(&mut self, news: KernelNews) -> Result<()> {
        self.known.adopted = news.adopted.or(self.known.adopted);
        for (prefix, error) in &news.refused {
            if let Some(more) = self.log.admit(Moment::now().instant, &prefix.to_string(), error) {
                tracing::warn!(%prefix, %error, more, "the kernel refuses a route; it is tried again");
            }
        }
        if let Some((routes, example)) = news.repaired {
            self.note(
                "repaired",
                format!("put right what another program did to our routes: {routes}, such as {example}"),
            );
        }
        if let Some(bgp) = &self.bgp
            && !news.next_hops.is_empty()
        {
            let answers = news.next_hops.iter().map(|(next_hop, resolution)| {
                let NextHopRef { address, default_route, link } = *next_hop;
                (TrackedNextHop { address, default_route, link }, to_speaker(*resolution))
            });
            bgp.handle.send(Command::NextHops(answers.collect())).await?;
        }
        self.known.next_hops.extend(news.next_hops);
        if news.host_changed { self.host_changed().await } else { Ok(()) }
    }

    async fn host_changed(&mut self) -> Result<()> {
        let look = |engine: &Engine| {
            let topology = engine.topology();
            (
                facts::of(topology),
                topology.links().map(|link| (link.name.clone(), link.index)).collect::<BTreeMap<_, _>>(),
                facts::advertising_links(topology),
                engine.adopted_routers(),
            )
        };
        let (facts, links, advertising_links, adopted) = block_in_place(|| self.kernel.inspect(look))?;
        let HostFacts { held_blocks, settling, drain, routers, .. } = self.known.facts.clone();
        // Before the first plan, whom an earlier run had routes over: its sessions are to come back at once.
        let routers = if self.known.plan.is_none() { adopted } else { routers };
        let facts = HostFacts { held_blocks, settling, drain, routers, ..facts };
        self.known.links = links;
        self.known.advertising_links = advertising_links;
        self.look_for_neighbours();
        self.follow_pods();
        if self.known.facts == facts && self.known.plan.is_some() {
            return Ok(());
        }
        self.known.facts = facts;
        self.replan().await
    }

    fn speaker_said(&mut self, notice: Notice) -> Result<()> {
        match notice {
            Notice::BestPaths(changes) => {
                block_in_place(|| self.kernel.learned(route_changes(changes)))?;
            }
            Notice::NextHopsLost(next_hops) => {
                let next_hops = next_hops.into_iter().map(to_kernel).collect();
                block_in_place(|| self.kernel.lost(next_hops))?;
            }
            Notice::NextHops { gone, wanted } => {
                let gone: Vec<NextHopRef> = gone.into_iter().map(to_kernel).collect();
                let wanted = wanted.into_iter().map(to_kernel).collect();
                for next_hop in &gone {
                    self.known.next_hops.remove(next_hop);
                }
                block_in_place(|| self.kernel.track(gone, wanted))?;
            }
            Notice::Converged => {
                self.known.converged = true;
                self.note(
                    "converged",
                    "every live peer has told its routes; what nobody told again is swept".into(),
                );
                block_in_place(|| self.kernel.sweep())?;
                self.tell_runtime();
                self.want_mrt();
            }
            Notice::Announced(prefixes) => self.announced(prefixes),
            Notice::Aggregates(prefixes) => self.aggregates(prefixes)?,
            Notice::Neighbour { link, address } => {
                match address {
                    Some(address) => drop(self.known.link_sessions.insert(link, address)),
                    None => drop(self.known.link_sessions.remove(&link)),
                }
                self.look_for_neighbours();
            }
            Notice::Dynamic(peers) => {
                if let Err(error) = dynamic::remember(&self.run_dir, &peers) {
                    tracing::warn!(%error, "cannot remember the dynamic peers: a restart of weftd will not wait for them");
                }
            }
            Notice::Bfd(sessions) => {
                if let Err(error) = bfd::remember(&self.run_dir, sessions) {
                    tracing::warn!(%error, "cannot remember the BFD sessions: a restart of weftd will begin them anew");
                }
            }
            Notice::Event(event) => self.speaker_event(&event),
            Notice::EventsLost(count) => {
                self.note("events-lost", format!("{count} events of the speaker's were dropped"));
            }
            Notice::Listener { address, state } => self.listener(address, state),
        }
        Ok(())
    }

    fn listener(&mut self, address: SocketAddr, state: Result<SocketAddr, String>) {
        match state {
            Ok(bound) => {
                self.known.listeners.remove(&address);
                tracing::info!(%bound, "listening for BGP");
            }
            Err(error) => {
                tracing::error!(%address, error, "cannot listen for BGP; trying again");
                self.known.listeners.insert(address, error);
            }
        }
    }

    fn speaker_event(&mut self, event: &Event) {
        let now = Moment::now();
        match &event.kind {
            EventKind::Alarm { .. } => self.known.counts.alarms = self.known.counts.alarms.saturating_add(1),
            EventKind::Refused { .. } if !self.known.is_peer(&event.peer) => {
                if let PeerAddress::Ip(address) = event.peer {
                    self.known.strangers.saw(address, now.timestamp);
                }
            }
            EventKind::Refused { .. }
            | EventKind::RangeRefused { .. }
            | EventKind::Incident(_)
            | EventKind::Leak { .. }
            | EventKind::Limit { .. }
            | EventKind::Bfd(_)
            | EventKind::State { .. } => {}
        }
        let Happened { level, cause, event: happened } = happened::describe(event);
        if let Some(more) = self.log.admit(now.instant, &event.peer.to_string(), &cause) {
            happened::log(level, &happened, more);
        }
        let prefix = match &event.kind {
            EventKind::Alarm { prefix, .. } | EventKind::Leak { prefix, .. } => Some(*prefix),
            _ => None,
        };
        self.events.push_about(now.timestamp, happened, prefix);
    }

    /// Takes down something that happened on this node, and logs it.
    pub(super) fn note(&self, kind: &'static str, text: String) {
        let happened = NewEvent { peer: None, kind, text, bytes: bytes::Bytes::new() };
        happened::log(tracing::Level::INFO, &happened, 0);
        self.events.push(Moment::now().timestamp, happened);
    }
}

/// Waits for a notice; for ever while there is no speaker.
async fn next_notice(bgp: Option<&mut Bgp>) -> Result<Notice> {
    match bgp {
        Some(bgp) => bgp.notices.recv().await.context("the BGP speaker has stopped"),
        None => std::future::pending().await,
    }
}

/// Waits for news of the reports; for ever where none are made.
async fn next_reported(reported: Option<&mut watch::Receiver<Reported>>) -> Result<Reported> {
    let Some(reported) = reported else { return std::future::pending().await };
    reported.changed().await.context("the task that reports to the API server has stopped")?;
    Ok(reported.borrow_and_update().clone())
}

/// Waits for a moment; for ever while there is none to wait for.
async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

// What the changes are in becomes what they are in for the kernel thread, without another allocation.
const _: () = assert!(size_of::<BestPathChange>() == size_of::<RouteChange>());

/// The same for the kernel: routes that have the same next hops share them.
fn route_changes(changes: Vec<BestPathChange>) -> Vec<RouteChange> {
    let mut sets: BTreeMap<NextHops, Arc<[NextHopRef]>> = BTreeMap::new();
    // Most have those of the one before.
    let mut last: Option<(NextHops, Arc<[NextHopRef]>)> = None;
    let mut share = |next_hops: NextHops| match &last {
        Some((of, shared)) if Arc::ptr_eq(of, &next_hops) || *of == next_hops => Arc::clone(shared),
        _ => {
            let make = || next_hops.iter().copied().map(to_kernel).collect();
            let shared = Arc::clone(sets.entry(next_hops.clone()).or_insert_with(make));
            last = Some((next_hops, Arc::clone(&shared)));
            shared
        }
    };
    let change = |BestPathChange { prefix, next_hops, direct }| {
        let direct = direct.map(|direct| Box::new(direct.iter().copied().map(to_kernel).collect()));
        RouteChange { prefix, next_hops: share(next_hops), direct }
    };
    changes.into_iter().map(change).collect()
}

fn to_speaker(resolution: Resolution) -> BgpResolution {
    match resolution {
        Resolution::Unresolved => BgpResolution::Unresolved,
        Resolution::OnLink => BgpResolution::OnLink,
        Resolution::Gateway { metric } => BgpResolution::Gateway { metric },
        Resolution::Recursive { over, metric, direct } => BgpResolution::Recursive { over, metric, direct },
        Resolution::TooDeep { over } => BgpResolution::TooDeep { over },
    }
}

fn to_kernel(next_hop: TrackedNextHop) -> NextHopRef {
    let TrackedNextHop { address, default_route, link } = next_hop;
    NextHopRef { address, default_route, link }
}

/// Randomness for backoff jitter: the standard library's keyed hasher has operating system randomness in it.
fn seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id())
}
