//! Who of several works: the holder of a Lease (coordination.k8s.io/v1).
//!
//! A holder renews it. Who is not counts, by its own clock, how long it has not changed: clocks need not agree. The holder stops
//! before others may begin, even if it cannot reach the API server.

use std::convert::Infallible;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease as Object, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};

use super::metrics::Metrics;

const NAME: &str = "weft-controller";
/// How long a Lease that does not change is still its holder's.
const LASTS: Duration = Duration::from_secs(15);
/// How long a holder works without having renewed it.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// How often it is renewed, or looked at.
const PERIOD: Duration = Duration::from_secs(2);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(4);

/// What came of a try for the Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// It is ours.
    Held,
    /// It is another's.
    Anothers,
    /// Somebody wrote it meanwhile; whose it is only the next look can tell.
    Contested,
}

/// The Lease, as one candidate sees it.
pub(super) struct Lease {
    api: Api<Object>,
    identity: String,
    /// What it said last, and since when it has said so.
    seen: Mutex<Option<(Option<LeaseSpec>, Instant)>>,
}

impl Lease {
    pub(super) fn new(client: Client, namespace: &str) -> Self {
        let host =
            nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
        let identity = format!("{host}_{:016x}", chance());
        Self { api: Api::namespaced(client, namespace), identity, seen: Mutex::new(None) }
    }

    pub(super) fn identity(&self) -> &str {
        &self.identity
    }

    /// Does `work` for as long as the Lease is ours, again and again.
    pub(super) async fn lead_whenever_held<F: Future<Output = ()>>(
        &self,
        metrics: &Metrics,
        work: impl Fn() -> F,
    ) -> Infallible {
        loop {
            self.acquire().await;
            tracing::info!("leads");
            metrics.leads(true);
            tokio::select! {
                () = work() => {}
                reason = self.keep() => tracing::warn!("leads no more: {reason:#}"),
            }
            metrics.leads(false);
        }
    }

    /// Lets another have the Lease at once, if it is ours.
    pub(super) async fn give_up(&self) {
        let given_up = async {
            let object = self.api.get(NAME).await?;
            if holder(&object) == Some(&self.identity) {
                let spec = LeaseSpec { holder_identity: None, ..object.spec.clone().unwrap_or_default() };
                self.api
                    .replace(NAME, &PostParams::default(), &Object { spec: Some(spec), ..object })
                    .await?;
            }
            kube::Result::<()>::Ok(())
        };
        // Else they wait until it is too old.
        let _ = timeout(PATIENCE, given_up).await;
    }

    /// Waits until the Lease is ours.
    async fn acquire(&self) {
        let mut told = None;
        loop {
            match self.take().await {
                Ok(Outcome::Held) => return,
                Ok(Outcome::Anothers | Outcome::Contested) => told = None,
                Err(error) => {
                    let error = format!("{error:#}");
                    if told.as_ref() != Some(&error) {
                        tracing::warn!("cannot get the Lease {NAME}: {error}");
                        told = Some(error);
                    }
                }
            }
            sleep(PERIOD.mul_f64(1.0 + share(chance()) / 4.0)).await;
        }
    }

    /// Renews the Lease until it is ours no more, or may not be. Says why.
    async fn keep(&self) -> anyhow::Error {
        let mut renewed = Instant::now();
        loop {
            sleep(PERIOD).await;
            let asked = Instant::now();
            let left = (renewed + RENEW_DEADLINE).saturating_duration_since(asked);
            let reason = match timeout(left, self.take()).await {
                Ok(Ok(Outcome::Held)) => {
                    renewed = asked;
                    continue;
                }
                Ok(Ok(Outcome::Anothers)) => return anyhow!("another holds the Lease"),
                Ok(Ok(Outcome::Contested)) => anyhow!("somebody else wrote it at the same time"),
                Ok(Err(error)) => error,
                Err(_) => anyhow!("no answer in time"),
            };
            if renewed.elapsed() + PERIOD >= RENEW_DEADLINE {
                return reason.context("cannot renew the Lease");
            }
        }
    }

    /// Takes the Lease, or renews it, unless it is another's.
    async fn take(&self) -> Result<Outcome> {
        timeout(PATIENCE, self.try_take()).await.unwrap_or_else(|_| Err(anyhow!("no answer in time")))
    }

    async fn try_take(&self) -> Result<Outcome> {
        let Some(object) = self.api.get_opt(NAME).await.context("cannot get it")? else {
            let new = Object {
                metadata: ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() },
                spec: Some(self.held(None)),
            };
            return written(self.api.create(&PostParams::default(), &new).await).context("cannot make it");
        };
        if !self.may_take(&object).await {
            return Ok(Outcome::Anothers);
        }
        // With the resource version that was read: of two who do so, one fails.
        let taken = Object { spec: Some(self.held(object.spec.as_ref())), ..object };
        written(self.api.replace(NAME, &PostParams::default(), &taken).await).context("cannot change it")
    }

    async fn may_take(&self, object: &Object) -> bool {
        let mut seen = self.seen.lock().await;
        let now = Instant::now();
        match &*seen {
            Some((spec, _)) if *spec == object.spec => {}
            _ => *seen = Some((object.spec.clone(), now)),
        }
        match holder(object) {
            None => true,
            Some(holder) if *holder == self.identity => true,
            Some(_) => seen.as_ref().is_some_and(|(_, since)| now.duration_since(*since) >= LASTS),
        }
    }

    fn held(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let before = before.cloned().unwrap_or_default();
        let now = MicroTime(Timestamp::now());
        let ours = before.holder_identity.as_ref() == Some(&self.identity);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(LASTS.as_secs()).ok(),
            acquire_time: if ours { before.acquire_time } else { Some(now.clone()) },
            lease_transitions: if ours {
                before.lease_transitions
            } else {
                Some(before.lease_transitions.unwrap_or(0).saturating_add(1))
            },
            renew_time: Some(now),
            ..LeaseSpec::default()
        }
    }
}

fn holder(object: &Object) -> Option<&String> {
    object.spec.as_ref()?.holder_identity.as_ref().filter(|holder| !holder.is_empty())
}

/// A write that came too late is no failure, but somebody's success: perhaps of nobody who would lead, as when an admin annotates it.
fn written<T>(result: kube::Result<T>) -> Result<Outcome> {
    const CONFLICT: u16 = 409;
    match result {
        Ok(_) => Ok(Outcome::Held),
        Err(kube::Error::Api(error)) if error.code == CONFLICT => Ok(Outcome::Contested),
        Err(error) => Err(error.into()),
    }
}

/// Randomness: the standard library's keyed hasher has operating system randomness in it.
fn chance() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(std::process::id())
}

/// A part of 1.
fn share(chance: u64) -> f64 {
    f64::from(u16::try_from(chance % 1024).unwrap_or(0)) / 1024.0
}
