//! Addresses for Services of type LoadBalancer, beside the blocks: another loop, with watches of its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow};
use futures_util::StreamExt as _;
use futures_util::stream;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service as Object;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::DeserializeGuard;
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value as Json, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::execute::{is_overtaken, is_there_already, made_unless};
use super::metrics::Metrics;
use super::objects::{self, Objects};
use super::work::{AT_ONCE, MOST, PATIENCE, PAUSE, REST, REST_FACTOR, STATUS_MOST, STATUS_ROUND};
use crate::api::{AllowedUse, IPPoolSpec, Labels, LoadBalancerIP, LoadBalancerIPHolder, LoadBalancerIPSpec};
use crate::load_balancer::{CONDITION, Change, Claim, Keeper, News, Plan, Service, Told, name};

/// What it depends on beside Services and claims.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) pools: BTreeMap<String, Arc<IPPoolSpec>>,
    pub(super) namespaces: BTreeMap<String, Arc<Labels>>,
}

/// What became of the pools for LoadBalancer addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Supply {
    /// How many addresses of each pool Services have.
    pub(super) used: BTreeMap<String, u64>,
    /// Of each pool that is too small: one Service that lacks an address, and how many do.
    pub(super) short: BTreeMap<String, (String, usize)>,
}

/// Which Services are ours.
#[derive(Clone, Debug)]
pub(super) struct Ours {
    /// Their `loadBalancerClass`.
    pub(super) class: String,
    /// Those without a class too.
    pub(super) default: bool,
}

/// Works until it is dropped.
pub(super) async fn work(
    client: Client,
    ours: Ours,
    metrics: Arc<Metrics>,
    given: watch::Receiver<Option<Given>>,
    supply: watch::Sender<Option<Supply>>,
) {
    let claims: Api<DeserializeGuard<LoadBalancerIP>> = Api::all(client.clone());
    let work = Work {
        claims: objects::follow(claims, "loadbalancerips", |claim| Some(read(claim))),
        services: None,
        keeper: Keeper::new(ours.class, ours.default),
        turn: Turn::default(),
        next_told: None,
        client,
        metrics,
        given,
        supply,
    };
    work.run().await;
}

fn read(claim: &DeserializeGuard<LoadBalancerIP>) -> Claim {
    let meta = match &claim.0 {
        Ok(claim) => &claim.metadata,
        Err(invalid) => &invalid.metadata,
    };
    Claim {
        uid: meta.uid.clone().unwrap_or_default(),
        resource_version: meta.resource_version.clone().unwrap_or_default(),
        spec: claim.0.as_ref().ok().map(|claim| claim.spec.clone()),
    }
}

struct Work {
    client: Client,
    metrics: Arc<Metrics>,
    keeper: Keeper,
    given: watch::Receiver<Option<Given>>,
    supply: watch::Sender<Option<Supply>>,
    claims: watch::Receiver<Objects<Claim>>,
    /// Watched only while there is something to give or to take back.
    services: Option<watch::Receiver<Objects<Service>>>,
    /// Where the next round of changes begins.
    turn: Turn,
    /// The Service that the next round of conditions begins with, so that those who change all the time keep none waiting.
    next_told: Option<String>,
}

impl Work {
    async fn run(mut self) {
        let mut next_status = Instant::now();
        loop {
            let began = Instant::now();
            let mut wake = None;
            self.watch_services();
            if let Some(plan) = self.plan(began) {
                wake = self.keeper.next_deadline(began.into_std()).map(Instant::from_std);
                let changes = self.turn.order(plan.changes);
                let (again, not_made) = self.make(changes).await;
                self.turn.pass(not_made);
                wake = wake.into_iter().chain(again).min();
                if !plan.tells.is_empty() {
                    if Instant::now() >= next_status {
                        self.tell(plan.tells).await;
                        next_status = Instant::now() + STATUS_ROUND;
                    }
                    wake = wake.into_iter().chain([next_status]).min();
                }
            }
            sleep(began.elapsed().saturating_mul(REST_FACTOR).clamp(REST, PAUSE)).await;
            tokio::select! {
                changed = self.given.changed() => if changed.is_err() { return },
                changed = self.claims.changed() => if changed.is_err() { return },
                () = changed(&mut self.services) => {}
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
            }
        }
    }

    /// Begins and ends the watch of Services, which in a cluster are many.
    fn watch_services(&mut self) {
        let gives = |given: &Given| given.pools.values().any(|pool| pool.is_for(AllowedUse::LoadBalancer));
        let claimed = self.claims.borrow().as_ref().is_some_and(|claims| !claims.is_empty());
        let needed = claimed || self.given.borrow().as_ref().is_some_and(gives);
        if !needed {
            self.services = None;
        } else if self.services.is_none() {
            let services: Api<Object> = Api::all(self.client.clone());
            let read = |object: &Object| Some(Service::read(object)).filter(Service::counts);
            self.services = Some(objects::follow(services, "services", read));
        }
    }

    /// What should be done, once everything was listed.
    fn plan(&mut self, now: Instant) -> Option<Plan> {
        let given = self.given.borrow_and_update().clone()?;
        let claims = self.claims.borrow_and_update().clone()?;
        let Some(services) = &mut self.services else {
            self.supply.send_replace(Some(Supply::default()));
            self.metrics.addresses_counted(0, 0);
            return None;
        };
        let services = services.borrow_and_update().clone()?;
        let plan = self.keeper.plan(now.into_std(), &given.pools, &given.namespaces, services, claims);
        let used = plan.used.values().fold(0u64, |sum, used| sum.saturating_add(*used));
        self.metrics.addresses_counted(used, plan.refused);
        let mut supply = Supply { used: plan.used.clone(), ..Supply::default() };
        for shortage in &plan.shortages {
            let first = || (shortage.service.clone(), 0);
            let (_, count) = supply.short.entry(shortage.pool.clone()).or_insert_with(first);
            *count = count.saturating_add(1);
        }
        self.supply.send_if_modified(|before| {
            let changed = before.as_ref() != Some(&supply);
            *before = Some(supply);
            changed
        });
        Some(plan)
    }

    /// Makes changes. Says when to look again, and how many were tried and not made.
    async fn make(&mut self, changes: Vec<Change>) -> (Option<Instant>, usize) {
        let now = Instant::now();
        let more = changes.len() > MOST;
        let client = &self.client;
        let changes = changes.into_iter().take(MOST).map(|change| async move {
            let made = timeout(PATIENCE, execute(client, &change)).await;
            (change, made.unwrap_or_else(|_| Err(anyhow!("no answer in time"))))
        });
        let made: Vec<_> = stream::iter(changes).buffer_unordered(AT_ONCE).collect().await;
        let (tried, mut count) = (made.len(), 0_usize);
        let mut failed = false;
        for (change, made) in made {
            match made {
                Ok(Some(news)) => {
                    log(&change);
                    self.metrics.address_change(&change);
                    self.keeper.made(now.into_std(), &change, news);
                    count = count.saturating_add(1);
                }
                Ok(None) => tracing::debug!(?change, "overtaken"),
                Err(error) => {
                    if !failed {
                        tracing::warn!("{error:#}");
                    }
                    failed = true;
                    self.metrics.failed();
                }
            }
        }
        let again = match (failed, more || count > 0) {
            (true, _) => Some(now + PAUSE),
            (false, true) => Some(now),
            (false, false) => None,
        };
        (again, tried.saturating_sub(count))
    }

    /// Tells some Services how it is with their addresses.
    async fn tell(&mut self, tells: BTreeMap<String, Change>) {
        let before = |name: &String| self.next_told.as_ref().is_some_and(|next| name < next);
        let (later, first): (Vec<_>, Vec<_>) = tells.into_iter().partition(|(name, _)| before(name));
        let mut chosen: Vec<_> = first.into_iter().chain(later).collect();
        let rest = chosen.split_off(chosen.len().min(STATUS_MOST));
        self.next_told = rest.into_iter().next().map(|(name, _)| name);
        self.make(chosen.into_iter().map(|(_, change)| change).collect()).await;
    }
}

/// Which of many changes are made first: those that a round did not make are last in the next, so that changes which fail again and
/// again keep none waiting.
#[derive(Debug, Default)]
struct Turn(usize);

impl Turn {
    /// The changes of a plan, the first ones to be made first.
    fn order<T>(&mut self, mut changes: Vec<T>) -> Vec<T> {
        self.0 = self.0.checked_rem(changes.len()).unwrap_or_default();
        changes.rotate_left(self.0);
        changes
    }

    /// So many of them were tried and not made; those that were made are in no plan any more.
    fn pass(&mut self, not_made: usize) {
        self.0 = self.0.saturating_add(not_made);
    }
}

/// Waits for news of Services; for ever where they are not watched, or the watch has ended.
async fn changed(services: &mut Option<watch::Receiver<Objects<Service>>>) {
    if let Some(services) = services
        && services.changed().await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}

fn log(change: &Change) {
    match change {
        Change::Assign { service, before, addresses, .. } => {
            tracing::info!(service, ?addresses, before = ?before.ingress, "wrote its addresses");
        }
        Change::Claim { address, holder, .. } => {
            tracing::info!(%address, namespace = holder.namespace, service = holder.name, "claimed");
        }
        Change::Release { address, holder, .. } => {
            tracing::info!(%address, namespace = holder.namespace, service = holder.name, "given back");
        }
        Change::Tell { service, told: Some(told), .. } => {
            tracing::info!(service, reason = told.reason, "{}", told.message);
        }
        Change::Renew { .. } | Change::Delete { .. } | Change::Tell { told: None, .. } => {
            tracing::debug!(?change, "made");
        }
    }
}

/// Makes a change; nothing where an object is not what it was taken for: there will be news of it.
async fn execute(client: &Client, change: &Change) -> Result<Option<News>> {
    let claims: Api<LoadBalancerIP> = Api::all(client.clone());
    match change {
        Change::Claim { address, claim, .. } => {
            let Some(services) = change.services(None) else { return Ok(None) };
            let name = name(*address);
            let made = match claim {
                Some(before) => return write_claim(&claims, &name, before, services).await,
                None => {
                    let spec = LoadBalancerIPSpec { address: address.to_string(), services };
                    claims.create(&PostParams::default(), &LoadBalancerIP::new(&name, spec)).await
                }
            };
            Ok(made_unless(made, is_there_already)
                .with_context(|| format!("cannot make LoadBalancerIP {name}"))?
                .map(claimed))
        }
        Change::Renew { address, claim, holder } | Change::Release { address, claim, holder } => {
            let services: Api<Object> = Api::namespaced(client.clone(), &holder.namespace);
            let live = services.get_opt(&holder.name).await;
            let live =
                live.with_context(|| format!("cannot get Service {}/{}", holder.namespace, holder.name))?;
            match change.services(live.as_ref().map(Service::read).as_ref()) {
                Some(services) => write_claim(&claims, &name(*address), claim, services).await,
                None => Ok(None),
            }
        }
        Change::Delete { address, claim } => {
            let name = name(*address);
            let (uid, resource_version) = (Some(claim.uid.clone()), Some(claim.resource_version.clone()));
            let preconditions = Some(Preconditions { uid, resource_version });
            let how = DeleteParams { preconditions, ..DeleteParams::default() };
            let deleted = made_unless(claims.delete(&name, &how).await, is_overtaken);
            let deleted = deleted.with_context(|| format!("cannot delete LoadBalancerIP {name}"))?;
            Ok(deleted.map(|_| News::Claim(None)))
        }
        Change::Assign { service, before, addresses, told } => {
            let ingress: Vec<Json> =
                addresses.iter().map(|address| json!({"ip": address, "ipMode": "VIP"})).collect();
            let status =
                json!({"loadBalancer": {"ingress": ingress}, "conditions": condition(before, told.as_ref())});
            write_status(client, service, before, status).await
        }
        Change::Tell { service, before, told } => {
            write_status(client, service, before, json!({"conditions": condition(before, told.as_ref())}))
                .await
        }
    }
}

async fn write_claim(
    claims: &Api<LoadBalancerIP>,
    name: &str,
    before: &Claim,
    services: Vec<LoadBalancerIPHolder>,
) -> Result<Option<News>> {
    let patch = json!({
        "metadata": { "uid": before.uid, "resourceVersion": before.resource_version },
        "spec": { "services": services },
    });
    let patched = claims.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
    let patched =
        made_unless(patched, is_overtaken).with_context(|| format!("cannot change LoadBalancerIP {name}"))?;
    Ok(patched.map(claimed))
}

async fn write_status(client: &Client, name: &str, before: &Service, status: Json) -> Result<Option<News>> {
    let (namespace, service) = name.split_once('/').context("a Service is in a Namespace")?;
    let services: Api<Object> = Api::namespaced(client.clone(), namespace);
    let patch = json!({
        "metadata": { "uid": before.uid, "resourceVersion": before.resource_version },
        "status": status,
    });
    let patched = services.patch_status(service, &PatchParams::default(), &Patch::Strategic(patch)).await;
    let patched = made_unless(patched, is_overtaken);
    let patched = patched.with_context(|| format!("cannot write the status of Service {name}"))?;
    Ok(patched.map(|live| News::Service(Arc::new(Service::read(&live)))))
}

/// The condition as a strategic merge patch has it; it keeps the time since when it is so.
fn condition(before: &Service, told: Option<&Told>) -> Json {
    let Some(told) = told else { return json!([{"$patch": "delete", "type": CONDITION}]) };
    let now = Timestamp::now();
    let now = now.round(jiff::Unit::Second).unwrap_or(now).to_string();
    let same = before.told.as_ref().filter(|(before, _)| before.holds == told.holds);
    let since = same.map_or(&now, |(_, since)| since);
    let status = if told.holds { "True" } else { "False" };
    json!([{"type": CONDITION, "status": status, "reason": told.reason, "message": told.message, "lastTransitionTime": since}])
}

fn claimed(claim: LoadBalancerIP) -> News {
    News::Claim(Some(Arc::new(Claim {
        uid: claim.uid().unwrap_or_default(),
        resource_version: claim.resource_version().unwrap_or_default(),
        spec: Some(claim.spec),
    })))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn changes_that_fail_keep_none_waiting() {
        // Those at the places of `good` succeed.
        for good in [vec![700], vec![0, 255, 256, 511, 512, 700], (0..700).step_by(3).collect(), vec![]] {
            let mut changes: Vec<usize> = (0..=700).collect();
            let mut turn = Turn::default();
            let mut tried = BTreeSet::new();
            for _ in 0..3 {
                let round: Vec<usize> = turn.order(changes.clone()).into_iter().take(MOST).collect();
                let made = round.iter().filter(|change| good.contains(change)).count();
                changes.retain(|change| !(round.contains(change) && good.contains(change)));
                turn.pass(round.len() - made);
                tried.extend(round);
            }
            assert_eq!(tried.len(), 701, "{good:?}");
        }
    }

    #[test]
    fn few_changes_are_all_tried_in_whichever_order() {
        let mut turn = Turn::default();
        turn.pass(5);
        assert_eq!(turn.order(vec![0, 1, 2]), [2, 0, 1]);
        assert!(turn.order(Vec::<usize>::new()).is_empty());
        assert_eq!(turn.order(vec![0, 1, 2]), [0, 1, 2]);
    }
}
