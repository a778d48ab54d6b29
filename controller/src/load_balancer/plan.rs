//! Which Service has which address, and the changes that lead there: a pure function of what there is.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use weft_bgp::types::Family;

use super::{Change, Claim, Plan, Service, Shortage, Told, View, Wish, address_of, key};
use crate::api::{AllowedUse, AssignmentMode, IPPoolSpec, LoadBalancerIPHolder, SHARED_MAX};
use crate::blocks::Space;

/// How many names a message lists.
const LISTED_MAX: usize = 8;
/// The longest message, in characters.
const MESSAGE_MAX: usize = 1024;

/// What should be done about Services and claims.
#[must_use]
pub fn plan(view: View<'_>) -> Plan {
    let mut planner = Planner::new(view);
    planner.hold_claimed();
    planner.adopt();
    let ours: Vec<(&str, &Arc<Service>)> = planner.ours().collect();
    let asks = |service: &Service| matches!(&service.wish, Some(Ok(wish)) if !wish.requested.is_empty() || wish.pools.is_some());
    // Who asks for a certain one goes first.
    let (asking, others): (Vec<_>, Vec<_>) = ours.into_iter().partition(|(_, service)| asks(service));
    for (name, service) in asking.into_iter().chain(others) {
        planner.serve(name, service);
    }
    planner.give_back();
    planner.untell();
    planner.plan
}

/// Who has an address, as far as it is known.
#[derive(Debug, Default)]
struct Held<'a> {
    /// In the order in which they came; they all may share it.
    services: Vec<&'a str>,
    /// Others are in the claim too, or nobody can tell: it is for nobody else.
    blocked: bool,
}

/// Why an address cannot be had.
struct Refusal {
    reason: &'static str,
    message: String,
    /// It is a lack of pools or of their addresses: of two families one is then good enough.
    lack: bool,
}

impl Refusal {
    fn new(reason: &'static str, message: String) -> Self {
        Self { reason, message, lack: false }
    }

    fn lack(reason: &'static str, message: String) -> Self {
        Self { reason, message, lack: true }
    }

    fn told(self) -> Told {
        told(false, self.reason, self.message)
    }
}

fn told(holds: bool, reason: &str, message: String) -> Told {
    Told { holds, reason: reason.to_owned(), message: message.chars().take(MESSAGE_MAX).collect() }
}

struct Planner<'a> {
    view: View<'a>,
    /// What no Service gets unasked.
    space: Space,
    /// The `spec.externalIPs` of all Services.
    external: BTreeSet<IpAddr>,
    /// Free all the same: who was to have it cannot use it without another.
    spare: BTreeSet<IpAddr>,
    held: BTreeMap<IpAddr, Held<'a>>,
    /// The addresses of each Service.
    of_service: BTreeMap<&'a str, BTreeSet<IpAddr>>,
    /// The Services whose statuses show an address.
    shown: BTreeMap<IpAddr, BTreeSet<&'a str>>,
    /// The addresses of those who share, by Namespace and key.
    shared: BTreeMap<(&'a str, &'a str), BTreeSet<IpAddr>>,
    /// What each Service is to keep or get.
    targets: BTreeMap<&'a str, BTreeSet<IpAddr>>,
    plan: Plan,
}

impl<'a> Planner<'a> {
    fn new(view: View<'a>) -> Self {
        let mut space = Space::default();
        let mut shown: BTreeMap<IpAddr, BTreeSet<&'a str>> = BTreeMap::new();
        let reserved = view.pools.values().filter(|pool| pool.is_for(AllowedUse::LoadBalancer));
        reserved.flat_map(|pool| &pool.reserved).for_each(|range| space.take(range.net()));
        let external = view.services.values().flat_map(|service| &service.external_ips).copied();
        let external: BTreeSet<IpAddr> = external.collect();
        external.iter().for_each(|address| space.take((*address).into()));
        for (name, service) in view.services {
            for address in service.shown() {
                space.take(address.into());
                shown.entry(address).or_default().insert(name);
            }
        }
        Self {
            view,
            space,
            external,
            spare: BTreeSet::new(),
            held: BTreeMap::new(),
            of_service: BTreeMap::new(),
            shown,
            shared: BTreeMap::new(),
            targets: BTreeMap::new(),
            plan: Plan::default(),
        }
    }

    /// The Services that are ours to serve.
    fn ours(&self) -> impl Iterator<Item = (&'a str, &'a Arc<Service>)> + use<'a> {
        let view = self.view;
        let services = view.services.iter().filter(move |(_, service)| is_ours(&view, service));
        services.map(|(name, service)| (name.as_str(), service))
    }

    /// Who has what by the claims.
    fn hold_claimed(&mut self) {
        for (claim_name, claim) in self.view.claims {
            let Some(address) = address_of(claim_name) else { continue };
            self.space.take(address.into());
            let blocked = claim.spec.is_none();
            self.held.insert(address, Held { services: Vec::new(), blocked });
            for holder in claim.holders() {
                match valid(&self.view, holder) {
                    Some((name, service)) if self.may_join(address, name, service) => {
                        self.record(address, name, service);
                    }
                    _ => self.held.entry(address).or_default().blocked = true,
                }
            }
            if let Some((pool, _)) = self.pool_of(address).filter(|_| !claim.is_empty()) {
                let used = self.plan.used.entry(pool.to_owned()).or_default();
                *used = used.saturating_add(1);
            }
        }
    }

    /// Who has what by its status alone: it came from elsewhere, or the claim is lost.
    fn adopt(&mut self) {
        for (name, service) in self.ours() {
            for address in service.shown() {
                let pool = self.pool_of(address).filter(|(_, pool)| self.is_allowed(pool, name));
                // Of two that are ours the first in order has it.
                let others = |other: &str| {
                    self.view.services.get(other).is_none_or(|other| !is_ours(&self.view, other))
                };
                let free = self.may_join(address, name, service) && !self.others(address, name).any(others);
                if pool.is_some() && !self.has(name, address) && free {
                    self.record(address, name, service);
                }
            }
        }
    }

    /// Decides on one Service.
    fn serve(&mut self, name: &'a str, service: &'a Arc<Service>) {
        let has: BTreeSet<IpAddr> = self.of_service.get(name).cloned().unwrap_or_default();
        let shown =
            |has: BTreeSet<IpAddr>| has.into_iter().filter(|address| service.shows(*address)).collect();
        let is_foreign = |address: Option<IpAddr>| match address {
            Some(address) => self.pool_of(address).is_none() && !self.held.contains_key(&address),
            None => true,
        };
        if service.ingress.iter().any(|ingress| is_foreign(*ingress)) {
            self.targets.insert(name, shown(has));
            if service.class.is_some() {
                let message = "status.loadBalancer has what no IPPool for LoadBalancer has: it is left alone; take it out if nobody \
                               else gives it";
                self.refuse(name, service, told(false, "ForeignAddress", message.to_owned()));
            } else {
                self.tell(name, service, None);
            }
            return;
        }
        // Where nothing is to be given out, Services that do not name us are nobody's business.
        if service.class.is_none() && service.ingress.is_empty() && has.is_empty() && !self.gives_out() {
            self.tell(name, service, None);
            return;
        }
        // Which pools are for it cannot be told yet: Services may be seen before their Namespaces.
        if !self.view.namespaces.contains_key(namespace(name)) {
            self.targets.insert(name, has);
            return;
        }
        let (targets, refused) = match &service.wish {
            Some(Ok(wish)) => self.choose(name, service, wish),
            Some(Err(message)) => {
                let kept: BTreeSet<IpAddr> = shown(has);
                (kept.into_iter().collect(), Some(told(false, "InvalidRequest", message.clone())))
            }
            None => return,
        };
        self.targets.insert(name, targets.iter().copied().collect());
        self.approach(name, service, targets, refused);
    }

    /// The addresses that a Service is to have, and what it is told if these are not what it asks for.
    fn choose(&mut self, name: &'a str, service: &'a Service, wish: &Wish) -> (Vec<IpAddr>, Option<Told>) {
        let mut targets = Vec::new();
        let mut refusals = Vec::new();
        for family in &wish.families {
            match self.choose_of(name, service, wish, *family) {
                Ok(address) => targets.push(address),
                Err(refusal) => {
                    targets.extend(self.best(name, service, *family, None));
                    refusals.push(refusal);
                }
            }
        }
        if wish.all && !refusals.is_empty() {
            for address in targets.extract_if(.., |address| !service.shows(*address)) {
                self.forget(address, name);
            }
        }
        let complete = !wish.all && wish.families.len() > 1 && !targets.is_empty();
        let told = refusals.into_iter().find(|refusal| !(refusal.lack && complete)).map(Refusal::told);
        (targets, told)
    }

    /// The address of one family.
    fn choose_of(
        &mut self,
        name: &'a str,
        service: &'a Service,
        wish: &Wish,
        family: Family,
    ) -> Result<IpAddr, Refusal> {
        if let Some(address) = wish.requested.get(&family) {
            return self.request(name, service, wish, *address);
        }
        if let Some(address) = self.best(name, service, family, wish.pools.as_deref()) {
            return Ok(address);
        }
        let pools = self.pools_for(name, wish, family)?;
        let nets: Vec<IpNet> = pools.iter().map(|(_, pool)| pool.cidr.net()).collect();
        let within = |address: &IpAddr| nets.iter().any(|net| net.contains(address));
        let shared = service.sharing.key.as_deref().and_then(|key| self.shared.get(&(namespace(name), key)));
        let joinable = |address: &&IpAddr| within(address) && self.is_free_for(**address, name, service);
        let shared = shared.and_then(|addresses| addresses.iter().find(joinable)).copied();
        let first = |net: &IpNet| {
            let spare = self.spare.iter().copied().find(|address| net.contains(address));
            let free = self.space.first_free(*net, net.max_prefix_len()).map(|free| free.addr());
            spare.into_iter().chain(free).min()
        };
        match shared.or_else(|| nets.iter().find_map(first)) {
            Some(address) => {
                self.record(address, name, service);
                Ok(address)
            }
            None => {
                let names: Vec<&str> = pools.iter().map(|(pool, _)| *pool).collect();
                for pool in &names {
                    self.plan.shortages.push(Shortage { pool: (*pool).to_owned(), service: name.to_owned() });
                }
                let message = format!("no address is left in IPPool {}; widen it, or add one", list(&names));
                Err(Refusal::lack("PoolExhausted", message))
            }
        }
    }

    /// A certain address, if it can be had.
    fn request(
        &mut self,
        name: &'a str,
        service: &'a Service,
        wish: &Wish,
        address: IpAddr,
    ) -> Result<IpAddr, Refusal> {
        if self.has(name, address) {
            return Ok(address);
        }
        let outside = |what: String| Err(Refusal::new("AddressOutsidePools", format!("{address}: {what}")));
        let Some((pool_name, pool)) = self.pool_of(address) else {
            return outside("it is in no IPPool for LoadBalancer; ask for one that is".to_owned());
        };
        if pool.disabled {
            return outside(format!("its IPPool {pool_name} is disabled"));
        }
        if !self.is_allowed(pool, name) {
            return outside(format!("its IPPool {pool_name} is not for Namespace {}", namespace(name)));
        }
        if wish.pools.as_ref().is_some_and(|pools| pools.iter().all(|pool| pool != pool_name)) {
            return outside(format!("its IPPool {pool_name} is none of those that the annotation names"));
        }
        if !self.is_free_for(address, name, service) {
            let held = self.held.get(&address).into_iter().flat_map(|held| &held.services);
            let shown = self.shown.get(&address).into_iter().flatten();
            let others: BTreeSet<&str> = held.chain(shown).copied().filter(|other| *other != name).collect();
            let others: Vec<&str> = others.into_iter().collect();
            let message = match others.as_slice() {
                [] => format!("{address} is taken by LoadBalancerIP {}", super::name(address)),
                others => format!(
                    "{address} is taken by Service {}; to share it, Services need one Namespace, one {}, ports of their own, and \
                     with externalTrafficPolicy Local one selector",
                    list(others),
                    super::SHARING_ANNOTATION
                ),
            };
            return Err(Refusal::new("AddressTaken", message));
        }
        self.record(address, name, service);
        Ok(address)
    }

    /// The address of a family that a Service has already, in one of these pools if some are named: one that its status shows before one
    /// that it is only about to get.
    fn best(
        &self,
        name: &str,
        service: &Service,
        family: Family,
        pools: Option<&[String]>,
    ) -> Option<IpAddr> {
        let fits = |address: &&IpAddr| {
            let pool = || self.pool_of(**address).map(|(pool, _)| pool);
            Family::of(&(**address).into()) == family
                && pools.is_none_or(|pools| pool().is_some_and(|pool| pools.iter().any(|one| one == pool)))
        };
        let has = self.of_service.get(name)?.iter().filter(fits);
        has.min_by_key(|address| (!service.shows(**address), **address)).copied()
    }

    /// The pools that a Service gets addresses of a family from.
    fn pools_for(
        &self,
        name: &str,
        wish: &Wish,
        family: Family,
    ) -> Result<Vec<(&'a str, &'a IPPoolSpec)>, Refusal> {
        let none = |what: String| Err(Refusal::lack("NoPool", what));
        let pools = self.view.pools.iter().map(|(pool, spec)| (pool.as_str(), spec.as_ref()));
        let enabled = pools.filter(|(_, pool)| gives_out(pool));
        let chosen: Vec<_> = if let Some(names) = &wish.pools {
            let mut chosen = Vec::new();
            for wanted in names {
                let Some(pool) = enabled.clone().find(|(pool, _)| pool == wanted) else {
                    return none(format!("there is no IPPool {wanted} that is enabled and for LoadBalancer"));
                };
                if !self.is_allowed(pool.1, name) {
                    return none(format!("IPPool {wanted} is not for Namespace {}", namespace(name)));
                }
                chosen.push(pool);
            }
            chosen
        } else {
            let automatic = enabled.filter(|(_, pool)| pool.assignment_mode == AssignmentMode::Automatic);
            let allowed: Vec<_> = automatic.filter(|(_, pool)| self.is_allowed(pool, name)).collect();
            let own = allowed.iter().any(|(_, pool)| pool.namespace_selector.is_some());
            let counts = |pool: &IPPoolSpec| pool.namespace_selector.is_some() == own;
            allowed.into_iter().filter(|(_, pool)| counts(pool)).collect()
        };
        let of_family = |pool: &IPPoolSpec| Family::of(&pool.cidr.net()) == family;
        let chosen: Vec<_> = chosen.into_iter().filter(|(_, pool)| of_family(pool)).collect();
        if chosen.is_empty() {
            let family = match family {
                Family::Ipv4Unicast => "IPv4",
                Family::Ipv6Unicast => "IPv6",
            };
            return none(format!(
                "no IPPool with allowedUses [LoadBalancer] has {family} addresses for Namespace {}",
                namespace(name)
            ));
        }
        Ok(chosen)
    }

    /// The next steps of a Service towards the addresses that it is to have.
    fn approach(
        &mut self,
        name: &'a str,
        service: &'a Arc<Service>,
        targets: Vec<IpAddr>,
        refused: Option<Told>,
    ) {
        self.plan.refused = self.plan.refused.saturating_add(usize::from(refused.is_some()));
        let mut claimed = true;
        for address in &targets {
            let claim = self.view.claims.get(&super::name(*address));
            let mut holders = claim.into_iter().flat_map(|claim| claim.holders());
            let holder = holders.find(|holder| key(holder) == name && holder.uid == service.uid);
            match (holder, claim) {
                (Some(holder), Some(claim)) => {
                    let over = holder.resource_version != service.resource_version;
                    if !service.shows(*address) && over {
                        claimed = false;
                        let (holder, claim) = (holder.clone(), Arc::clone(claim));
                        self.plan.changes.push(Change::Renew { address: *address, holder, claim });
                    }
                }
                _ => {
                    claimed = false;
                    let (holder, claim) = (holder_of(name, service), claim.cloned());
                    self.plan.changes.push(Change::Claim { address: *address, holder, claim });
                }
            }
        }
        let wanted: BTreeSet<IpAddr> = targets.iter().copied().collect();
        if !claimed {
            return;
        }
        if service.shown().collect::<BTreeSet<_>>() != wanted {
            let good = || told(true, "Assigned", "it has the addresses that it asks for".to_owned());
            let told = Some(refused.unwrap_or_else(good));
            let (service, before) = (name.to_owned(), Arc::clone(service));
            self.plan.changes.push(Change::Assign { service, before, addresses: targets, told });
            return;
        }
        match refused {
            Some(refused) => self.tell(name, service, Some(refused)),
            None if service.told.as_ref().is_some_and(|(told, _)| !told.holds) => {
                let message = "it has the addresses that it asks for".to_owned();
                self.tell(name, service, Some(told(true, "Assigned", message)));
            }
            None => {}
        }
    }

    fn refuse(&mut self, name: &'a str, service: &'a Arc<Service>, refused: Told) {
        self.plan.refused = self.plan.refused.saturating_add(1);
        self.tell(name, service, Some(refused));
    }

    fn tell(&mut self, name: &'a str, service: &'a Arc<Service>, told: Option<Told>) {
        if service.told.as_ref().map(|(told, _)| told) != told.as_ref() {
            let change = Change::Tell { service: name.to_owned(), before: Arc::clone(service), told };
            self.plan.tells.insert(name.to_owned(), change);
        }
    }

    /// Takes out of the claims who is not to have the address: one of each claim at a time.
    fn give_back(&mut self) {
        for (claim_name, claim) in self.view.claims {
            let Some(address) = address_of(claim_name) else { continue };
            if claim.is_empty() && self.view.rested.contains(claim_name) && !self.is_wanted(address) {
                self.plan.changes.push(Change::Delete { address, claim: Arc::clone(claim) });
            }
            let leaves = claim.holders().iter().find(|holder| !self.keeps(address, holder));
            self.plan.changes.extend(leaves.and_then(|holder| self.leave(address, holder, claim)));
        }
    }

    fn keeps(&self, address: IpAddr, holder: &LoadBalancerIPHolder) -> bool {
        let targets = valid(&self.view, holder).and_then(|(name, _)| self.targets.get(name));
        targets.is_some_and(|targets| targets.contains(&address))
    }

    fn is_wanted(&self, address: IpAddr) -> bool {
        self.held.get(&address).is_some_and(|held| !held.services.is_empty())
    }

    /// The next step of a Service away from an address.
    fn leave(&self, address: IpAddr, holder: &LoadBalancerIPHolder, claim: &Arc<Claim>) -> Option<Change> {
        let name = key(holder);
        let service = self.view.services.get(&name).filter(|service| service.uid == holder.uid);
        match service {
            // One that is ours is assigned others in its place.
            Some(service) if service.shows(address) => {
                let others = !service.ingress.contains(&None) && !is_ours(&self.view, service);
                let addresses = service.shown().filter(|shown| *shown != address).collect();
                let before = Arc::clone(service);
                others.then_some(Change::Assign { service: name, before, addresses, told: None })
            }
            // A write of just this state may be under way. Whatever changes the state ends that.
            Some(service) if service.resource_version == holder.resource_version => {
                let returned = || told(false, "AddressReturned", format!("{address} is taken back"));
                let told = service.told.is_none().then(returned);
                Some(Change::Tell { service: name, before: Arc::clone(service), told })
            }
            _ => Some(Change::Release { address, holder: holder.clone(), claim: Arc::clone(claim) }),
        }
    }

    /// Takes the condition away from Services that are not ours any more.
    fn untell(&mut self) {
        let view = self.view;
        for (name, service) in view.services {
            if service.told.is_some() && !is_ours(&view, service) {
                self.tell(name, service, None);
            }
        }
    }

    fn has(&self, name: &str, address: IpAddr) -> bool {
        self.of_service.get(name).is_some_and(|has| has.contains(&address))
    }

    /// Whether a Service may have an address beside those who have it by the claim.
    fn may_join(&self, address: IpAddr, name: &str, service: &Service) -> bool {
        let Some(held) = self.held.get(&address) else { return true };
        let may_share = |other: &&str| {
            let other_service = self.view.services.get(*other);
            namespace(other) == namespace(name)
                && other_service.is_some_and(|other| other.sharing.may_share(&service.sharing))
        };
        !held.blocked && held.services.len() < SHARED_MAX && held.services.iter().all(may_share)
    }

    /// The same, and the status of nobody else shows it either.
    fn is_free_for(&self, address: IpAddr, name: &str, service: &Service) -> bool {
        self.may_join(address, name, service) && self.others(address, name).next().is_none()
    }

    /// The Services that show an address and do not have it by a claim, and are not this one.
    fn others(&self, address: IpAddr, name: &str) -> impl Iterator<Item = &'a str> {
        let holders = self.held.get(&address).map_or(&[][..], |held| &held.services);
        let shown = self.shown.get(&address).into_iter().flatten().copied();
        shown.filter(move |other| *other != name && !holders.contains(other))
    }

    fn record(&mut self, address: IpAddr, name: &'a str, service: &'a Service) {
        self.space.take(address.into());
        self.spare.remove(&address);
        self.held.entry(address).or_default().services.push(name);
        self.of_service.entry(name).or_default().insert(address);
        if let Some(key) = &service.sharing.key {
            self.shared.entry((namespace(name), key)).or_default().insert(address);
        }
    }

    /// Undoes [`Self::record`].
    fn forget(&mut self, address: IpAddr, name: &str) {
        let claimed = self.view.claims.contains_key(&super::name(address));
        if let Some(held) = self.held.get_mut(&address) {
            held.services.retain(|one| *one != name);
            // It is in the claim until it is taken out.
            held.blocked |= claimed;
            let reserved = self.pool_of(address).is_some_and(|(_, pool)| is_reserved(pool, address));
            let reserved = reserved || self.external.contains(&address);
            if !claimed && !reserved && self.held.get(&address).is_some_and(|held| held.services.is_empty()) {
                self.spare.insert(address);
            }
        }
        if let Some(has) = self.of_service.get_mut(name) {
            has.remove(&address);
        }
    }

    /// The pool for LoadBalancer addresses that an address lies in.
    fn pool_of(&self, address: IpAddr) -> Option<(&'a str, &'a IPPoolSpec)> {
        let mut pools = self.view.pools.iter().filter(|(_, pool)| pool.is_for(AllowedUse::LoadBalancer));
        let (name, pool) = pools.find(|(_, pool)| pool.cidr.net().contains(&address))?;
        Some((name, pool))
    }

    fn gives_out(&self) -> bool {
        self.view.pools.values().any(|pool| gives_out(pool))
    }

    fn is_allowed(&self, pool: &IPPoolSpec, name: &str) -> bool {
        let labels = self.view.namespaces.get(namespace(name));
        let selects = |selector: &crate::api::Selector| labels.is_some_and(|labels| selector.matches(labels));
        pool.namespace_selector.as_ref().is_none_or(selects)
    }
}

/// Whether a Service is ours to serve.
fn is_ours(view: &View<'_>, service: &Service) -> bool {
    let named = service.class.as_deref().map_or(view.default, |class| class == view.class);
    named && service.wish.is_some()
}

/// The Service of a claim, if it is still there and ours.
fn valid<'a>(view: &View<'a>, holder: &LoadBalancerIPHolder) -> Option<(&'a str, &'a Arc<Service>)> {
    let (name, service) = view.services.get_key_value(&key(holder))?;
    (service.uid == holder.uid && is_ours(view, service)).then_some((name, service))
}

fn holder_of(name: &str, service: &Service) -> LoadBalancerIPHolder {
    let (namespace, name) = name.split_once('/').unwrap_or_default();
    LoadBalancerIPHolder {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        uid: service.uid.clone(),
        resource_version: service.resource_version.clone(),
    }
}

fn gives_out(pool: &IPPoolSpec) -> bool {
    !pool.disabled && pool.is_for(AllowedUse::LoadBalancer)
}

fn is_reserved(pool: &IPPoolSpec, address: IpAddr) -> bool {
    pool.reserved.iter().any(|range| range.net().contains(&address))
}

fn namespace(name: &str) -> &str {
    name.split_once('/').map_or("", |(namespace, _)| namespace)
}

/// Names, but not too many of them.
fn list(names: &[&str]) -> String {
    let more = names.len().saturating_sub(LISTED_MAX);
    let shown: Vec<&str> = names.iter().take(LISTED_MAX).copied().collect();
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!("{}{more}", shown.join(", "))
}
