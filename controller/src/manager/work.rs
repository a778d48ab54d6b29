//! What the holder of the Lease does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use futures_util::StreamExt as _;
use futures_util::stream;
use kube::Client;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::addresses::{self, Given, Ours, Supply};
use super::execute::{self, Outcome, execute};
use super::metrics::Metrics;
use super::reports::{self, Reports};
use super::status::Statuses;
use crate::blocks::{Keeper, Plan};
use crate::cluster::{Cluster, Kind};
use crate::documents::Reading;
use crate::kubernetes::{self, Followed};

/// How many writes are under way at once.
pub(super) const AT_ONCE: usize = 8;
/// How many changes are made before everything is looked at anew.
pub(super) const MOST: usize = 256;
/// How long a write may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(4);
/// How long to wait after writes have failed.
pub(super) const PAUSE: Duration = Duration::from_secs(5);
/// The least rest between two looks, and how many times as long as the look it is: in a large cluster there is news all the time.
pub(super) const REST: Duration = Duration::from_millis(100);
pub(super) const REST_FACTOR: u32 = 10;
/// The least time between two rounds of statuses, and how many are written in one: few in a second, however large the cluster.
pub(super) const STATUS_ROUND: Duration = Duration::from_secs(2);
pub(super) const STATUS_MOST: usize = 20;

/// What may be set.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// How long a Node must be gone before its blocks are others'.
    pub(super) grace: Duration,
    /// Which Services get addresses.
    pub(super) ours: Ours,
}

/// Works until it is dropped, or the watches end.
pub(super) async fn lead(client: Client, settings: Settings, metrics: Arc<Metrics>) {
    // Listed anew: nothing that an earlier holder wrote is missing.
    let followed = kubernetes::follow(client.clone(), "", Duration::ZERO);
    let reports = reports::follow(client.clone());
    let (given, taken) = watch::channel(None);
    let (told, supply) = watch::channel(None);
    let addresses = addresses::work(client.clone(), settings.ours, Arc::clone(&metrics), taken, told);
    let work = Work {
        client,
        metrics,
        given,
        supply,
        keeper: Keeper::new(settings.grace),
        statuses: Statuses::default(),
        seen: None,
        gone: BTreeMap::new(),
        grace: settings.grace,
    };
    tokio::select! {
        () = work.run(followed, reports) => {}
        () = addresses => {}
    }
}

struct Work {
    client: Client,
    metrics: Arc<Metrics>,
    keeper: Keeper,
    statuses: Statuses,
    /// Everything there is, once it was listed.
    seen: Option<Reading>,
    /// Since when nodes have been gone that have a BGPNodeStatus.
    gone: BTreeMap<String, Instant>,
    grace: Duration,
    /// What the addresses of Services depend on, and what became of them.
    given: watch::Sender<Option<Given>>,
    supply: watch::Receiver<Option<Supply>>,
}

impl Work {
    async fn run(mut self, mut followed: Followed, mut reports: watch::Receiver<Option<Reports>>) {
        let mut next_status = Instant::now();
        loop {
            let began = Instant::now();
            let mut wake = None;
            let told = reports.borrow_and_update().clone();
            if let Some(reading) = &self.seen
                && let Some(cluster) = &reading.cluster
                && let Some(reports) = told
            {
                self.pass_on(cluster);
                let (plan, again) = self.give(&cluster.clone(), &reports).await;
                let forget = self.forget_nodes(&reports).await;
                wake = [again, forget].into_iter().flatten().min();
                if let Some(reading) = &self.seen {
                    let supply = self.supply.borrow_and_update().clone();
                    self.statuses.want(reading, &reports, &plan, supply.as_ref());
                }
                if self.statuses.is_pending() {
                    if Instant::now() >= next_status {
                        self.write_statuses().await;
                        next_status = Instant::now() + STATUS_ROUND;
                    }
                    wake = Some(wake.map_or(next_status, |wake| wake.min(next_status)));
                }
            }
            sleep(began.elapsed().saturating_mul(REST_FACTOR).clamp(REST, PAUSE)).await;
            tokio::select! {
                reading = followed.readings.recv() => match reading {
                    Some(reading) => self.seen = Some(reading),
                    None => return,
                },
                Ok(()) = reports.changed() => {}
                Ok(()) = self.supply.changed() => {}
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
            }
        }
    }

    fn pass_on(&self, cluster: &Cluster) {
        let now = Given { pools: cluster.pools.clone(), namespaces: cluster.namespaces.clone() };
        self.given.send_if_modified(|given| {
            let changed = given.as_ref() != Some(&now);
            *given = Some(now);
            changed
        });
    }

    /// Plans, and makes the changes. Gives the plan, and when to look again.
    async fn give(&mut self, cluster: &Cluster, reports: &Reports) -> (Plan, Option<Instant>) {
        let now = Instant::now();
        let released = self.released();
        let refused = self.refused(cluster);
        let plan = self.keeper.plan(now.into_std(), cluster, &reports.usage(), &released, &refused);
        self.metrics.counted(cluster.blocks.len(), plan.shortages.len());
        let client = &self.client;
        let changes = plan.changes.iter().take(MOST).map(|change| async move {
            let before = cluster.blocks.get(change.name()).map(AsRef::as_ref);
            let made = timeout(PATIENCE, execute(client, change, before)).await;
            (change, before, made.unwrap_or_else(|_| Err(anyhow!("no answer in time"))))
        });
        let made: Vec<_> = stream::iter(changes).buffer_unordered(AT_ONCE).collect().await;
        let mut failed = false;
        for (change, before, made) in made {
            match made {
                Ok(Outcome::Made) => {
                    tracing::info!(?change, "made");
                    self.metrics.made(change);
                    self.keeper.made(now.into_std(), change, before);
                }
                Ok(Outcome::Overtaken) => tracing::debug!(?change, "overtaken"),
                Err(error) => {
                    if !failed {
                        tracing::warn!("{error:#}");
                    }
                    failed = true;
                    self.metrics.failed();
                }
            }
        }
        let again = if failed {
            Some(now + PAUSE)
        } else if plan.changes.len() > MOST {
            Some(now)
        } else {
            None
        };
        let deadline = self.keeper.next_deadline(now.into_std()).map(Instant::from_std);
        (plan, [again, deadline].into_iter().flatten().min())
    }

    fn released(&self) -> BTreeSet<String> {
        let versions = self.seen.iter().flat_map(|reading| &reading.versions);
        let released = versions.filter(|((kind, _), version)| *kind == Kind::IpBlock && version.released);
        released.map(|((_, name), _)| name.clone()).collect()
    }

    /// The names of IPBlocks that are there and not in force.
    fn refused(&self, cluster: &Cluster) -> BTreeSet<String> {
        let versions = self.seen.iter().flat_map(|reading| reading.versions.keys());
        let blocks = versions.filter(|(kind, _)| *kind == Kind::IpBlock).map(|(_, name)| name);
        blocks.filter(|name| !cluster.blocks.contains_key(*name)).cloned().collect()
    }

    /// Deletes the BGPNodeStatuses of Nodes that have been gone for long, few in one look. Gives when to look again.
    async fn forget_nodes(&mut self, reports: &Reports) -> Option<Instant> {
        let cluster = self.seen.as_ref().and_then(|reading| reading.cluster.as_ref())?;
        let now = Instant::now();
        let gone: BTreeSet<&String> =
            reports.names().filter(|node| !cluster.nodes.contains_key(*node)).collect();
        self.gone.retain(|node, _| gone.contains(node));
        for node in gone {
            self.gone.entry(node.clone()).or_insert(now);
        }
        let long_gone = self.gone.iter_mut().filter(|(_, since)| now.duration_since(**since) >= self.grace);
        let client = &self.client;
        let deletions = long_gone.take(STATUS_MOST).map(|(node, since)| {
            // Whatever comes of it, it is looked at again after another grace time.
            *since = now;
            async move {
                match timeout(PATIENCE, execute::forget_node(client, node)).await {
                    Ok(Ok(())) => tracing::info!(node, "deleted its BGPNodeStatus"),
                    Ok(Err(error)) => tracing::warn!("{error:#}"),
                    Err(_) => tracing::warn!(node, "cannot delete its BGPNodeStatus: no answer in time"),
                }
            }
        });
        stream::iter(deletions).buffer_unordered(AT_ONCE).collect::<()>().await;
        let next = self.gone.values().min().and_then(|since| since.checked_add(self.grace));
        next.map(|next| next.max(now + REST))
    }

    async fn write_statuses(&mut self) {
        let client = &self.client;
        let writes = self.statuses.pending(STATUS_MOST).into_iter().map(|wanted| async move {
            let written = timeout(PATIENCE, wanted.write(client)).await;
            (wanted, written.unwrap_or_else(|_| Err(anyhow!("no answer in time"))))
        });
        let written: Vec<_> = stream::iter(writes).buffer_unordered(AT_ONCE).collect().await;
        let mut failed = false;
        for (wanted, written) in written {
            match written {
                Ok(()) => {
                    self.metrics.status_written();
                    self.statuses.written(wanted);
                }
                Err(error) => {
                    if !failed {
                        tracing::warn!("{error:#}");
                    }
                    failed = true;
                    self.metrics.failed();
                }
            }
        }
    }
}
