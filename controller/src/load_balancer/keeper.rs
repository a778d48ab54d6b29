//! What is done and not seen yet, and which addresses have rested since when.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Change, Claim, Plan, Service, View, address_of, name, plan};
use crate::api::{AllowedUse, IPPoolSpec, Labels};

/// How long a change that was made is taken for granted although the watch does not show it.
const ASSUMED: Duration = Duration::from_secs(30);

/// What an object is by the answer to a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// A claim; none: it is deleted.
    Claim(Option<Arc<Claim>>),
    /// A Service.
    Service(Arc<Service>),
}

/// Plans again and again. Time is an argument.
#[derive(Debug)]
pub struct Keeper {
    class: String,
    default: bool,
    claims: BTreeMap<String, Assumed<Option<Arc<Claim>>>>,
    services: BTreeMap<String, Assumed<Arc<Service>>>,
    /// Since when claims are seen to be without a Service, and for how long they rest.
    resting: BTreeMap<String, (Instant, Duration)>,
}

/// What an object is by the answer to our last write.
#[derive(Debug)]
struct Assumed<T> {
    now: T,
    /// The states before, any of which the watch may still show: their resource versions.
    past: BTreeSet<Option<String>>,
    until: Instant,
}

impl Keeper {
    /// For Services of this class and, where `default` says so, for those of none.
    #[must_use]
    pub fn new(class: String, default: bool) -> Self {
        Self { class, default, claims: BTreeMap::new(), services: BTreeMap::new(), resting: BTreeMap::new() }
    }

    /// What should be done now, by what the watches show.
    pub fn plan(
        &mut self,
        now: Instant,
        pools: &BTreeMap<String, Arc<IPPoolSpec>>,
        namespaces: &BTreeMap<String, Arc<Labels>>,
        mut services: BTreeMap<String, Arc<Service>>,
        mut claims: BTreeMap<String, Arc<Claim>>,
    ) -> Plan {
        self.claims.retain(|name, assumed| {
            let shown = claims.get(name).map(|claim| claim.resource_version.clone());
            now < assumed.until && assumed.past.contains(&shown)
        });
        self.services.retain(|name, assumed| {
            let shown = services.get(name).map(|service| service.resource_version.clone());
            now < assumed.until && assumed.past.contains(&shown)
        });
        for (name, assumed) in &self.claims {
            match &assumed.now {
                Some(claim) => drop(claims.insert(name.clone(), Arc::clone(claim))),
                None => drop(claims.remove(name)),
            }
        }
        for (name, assumed) in &self.services {
            services.insert(name.clone(), Arc::clone(&assumed.now));
        }
        self.rest(now, pools, &claims);
        let over = |(_, (since, rest)): &(&String, &(Instant, Duration))| {
            now.saturating_duration_since(*since) >= *rest
        };
        let rested = self.resting.iter().filter(over).map(|(name, _)| name.clone()).collect();
        plan(View {
            pools,
            namespaces,
            services: &services,
            claims: &claims,
            rested: &rested,
            class: &self.class,
            default: self.default,
        })
    }

    /// When the plan changes although nothing else does.
    #[must_use]
    pub fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let rested = self.resting.values().filter_map(|(since, rest)| since.checked_add(*rest));
        let claims = self.claims.values().map(|assumed| assumed.until);
        let services = self.services.values().map(|assumed| assumed.until);
        // What is over is in the plan already.
        rested.chain(claims).chain(services).filter(|deadline| *deadline > now).min()
    }

    /// Takes a change for granted that was made, by what the API server answered.
    pub fn made(&mut self, now: Instant, change: &Change, news: News) {
        let until = now + ASSUMED;
        match (change, news) {
            (
                Change::Claim { address, .. }
                | Change::Renew { address, .. }
                | Change::Release { address, .. }
                | Change::Delete { address, .. },
                News::Claim(claim),
            ) => {
                let name = name(*address);
                let mut past = self.claims.remove(&name).map(|assumed| assumed.past).unwrap_or_default();
                past.insert(change.claim().map(|claim| claim.resource_version.clone()));
                self.claims.insert(name, Assumed { now: claim, past, until });
            }
            (
                Change::Assign { service: name, before, .. } | Change::Tell { service: name, before, .. },
                News::Service(service),
            ) => {
                let mut past = self.services.remove(name).map(|assumed| assumed.past).unwrap_or_default();
                past.insert(Some(before.resource_version.clone()));
                self.services.insert(name.clone(), Assumed { now: service, past, until });
            }
            _ => {}
        }
    }

    fn rest(
        &mut self,
        now: Instant,
        pools: &BTreeMap<String, Arc<IPPoolSpec>>,
        claims: &BTreeMap<String, Arc<Claim>>,
    ) {
        self.resting.retain(|name, _| claims.get(name).is_some_and(|claim| claim.is_empty()));
        for (name, _) in claims.iter().filter(|(_, claim)| claim.is_empty()) {
            let Some(address) = address_of(name) else { continue };
            let mut pools = pools.values().filter(|pool| pool.is_for(AllowedUse::LoadBalancer));
            let pool = pools.find(|pool| pool.cidr.net().contains(&address));
            let rest = pool.map_or(IPPoolSpec::COOLDOWN, |pool| pool.cooldown());
            self.resting.entry(name.clone()).or_insert((now, rest)).1 = rest;
        }
    }
}

impl Change {
    fn claim(&self) -> Option<&Arc<Claim>> {
        match self {
            Self::Claim { claim, .. } => claim.as_ref(),
            Self::Renew { claim, .. } | Self::Release { claim, .. } | Self::Delete { claim, .. } => {
                Some(claim)
            }
            Self::Assign { .. } | Self::Tell { .. } => None,
        }
    }
}
