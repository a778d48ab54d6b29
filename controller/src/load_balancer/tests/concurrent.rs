//! Two controllers that both believe to be the only one, on old news, whose writes come late or not at all.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::super::*;
use super::pool;

const NAMES: usize = 6;
/// Longer than any address rests.
const REST: Duration = Duration::from_secs(31);

/// What people write: families, an address that is asked for, a sharing key with ports.
#[derive(Clone, Debug)]
struct Written {
    families: &'static [Family],
    all: bool,
    requested: Option<u8>,
    sharing: Sharing,
}

#[derive(Clone, Debug)]
enum Step {
    /// A controller sees more of what became of the Services, or of the claims.
    HearServices(usize, usize),
    HearClaims(usize, usize),
    /// A controller plans by what it has seen, and sends the first so many of its requests.
    Act(usize, usize),
    /// A request arrives at the API server: the look, or the write.
    Land(usize),
    /// A request gets lost.
    Lose(usize),
    /// A controller dies, and another begins in its place.
    Restart(usize),
    /// People make a Service, or write it anew but for what sharing depends on; or that too; or make it one of type ClusterIP; or delete it.
    Put(usize, Written),
    Reshare(usize, Written),
    Plain(usize),
    Delete(usize),
    /// Time goes by.
    Wait,
}

fn written() -> impl Strategy<Value = Written> {
    const V4: &[Family] = &[Family::Ipv4Unicast];
    const BOTH: &[Family] = &[Family::Ipv4Unicast, Family::Ipv6Unicast];
    let families = prop_oneof![Just((V4, false)), Just((BOTH, false)), Just((BOTH, true))];
    let requested = prop_oneof![3 => Just(None), 1 => (0..4u8).prop_map(Some)];
    let key = prop_oneof![Just(None), Just(Some("k".to_owned()))];
    let selector = prop::collection::btree_map(Just("app".to_owned()), "[ab]", 0..2);
    (families, requested, key, 0..3i32, any::<bool>(), selector).prop_map(
        |((families, all), requested, key, port, local, selector)| {
            let ports = [("TCP".to_owned(), port)].into();
            Written { families, all, requested, sharing: Sharing { key, ports, local, selector } }
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let (controller, name) = (0..2usize, 0..NAMES);
    prop_oneof![
        4 => (controller.clone(), 1..8usize).prop_map(|(c, n)| Step::HearServices(c, n)),
        4 => (controller.clone(), 1..8usize).prop_map(|(c, n)| Step::HearClaims(c, n)),
        6 => (controller.clone(), 1..6usize).prop_map(|(c, n)| Step::Act(c, n)),
        14 => (0..16usize).prop_map(Step::Land),
        1 => (0..16usize).prop_map(Step::Lose),
        1 => controller.prop_map(Step::Restart),
        3 => (name.clone(), written()).prop_map(|(n, w)| Step::Put(n, w)),
        1 => (name.clone(), written()).prop_map(|(n, w)| Step::Reshare(n, w)),
        1 => name.clone().prop_map(Step::Plain),
        2 => name.prop_map(Step::Delete),
        1 => Just(Step::Wait),
    ]
}

type Services = BTreeMap<String, Arc<Service>>;
type Claims = BTreeMap<String, Arc<Claim>>;

struct Controller {
    keeper: Keeper,
    /// How much of the past it has seen.
    services: usize,
    claims: usize,
    /// Which of those that worked under this number it is.
    life: usize,
}

/// A request that is under way.
struct Request {
    controller: usize,
    life: usize,
    change: Change,
    /// What the claim is to say, once the look that this depends on was had.
    looked: Option<Vec<LoadBalancerIPHolder>>,
}

struct World {
    pools: BTreeMap<String, Arc<IPPoolSpec>>,
    namespaces: BTreeMap<String, Arc<Labels>>,
    /// Every state that the API server was in, oldest first.
    services: Vec<Services>,
    claims: Vec<Claims>,
    controllers: Vec<Controller>,
    requests: Vec<Request>,
    version: u64,
    now: Instant,
    /// The Services that people have changed so that they may share with others than before; and those that had an address from the start.
    reshared: BTreeSet<String>,
    settled: BTreeSet<String>,
}

fn v4(last: u8) -> IpAddr {
    IpAddr::from([203, 0, 113, last])
}

fn namespaced(name: usize) -> String {
    format!("{}/s{name}", if name % 3 == 2 { "bank" } else { "shop" })
}

impl World {
    /// Services that have addresses of another system, no claims.
    fn new(settled: &[Written]) -> Self {
        let pools = [("v4", "203.0.113.0/30"), ("v6", "2001:db8::/127")];
        let pools = pools.map(|(name, cidr)| (name.to_owned(), pool(serde_json::json!({ "cidr": cidr }))));
        let mut world = Self {
            pools: pools.into(),
            namespaces: ["shop", "bank"].map(|name| (name.to_owned(), Arc::default())).into(),
            services: vec![Services::new()],
            claims: vec![Claims::new()],
            controllers: Vec::new(),
            requests: Vec::new(),
            version: 0,
            now: Instant::now(),
            reshared: BTreeSet::new(),
            settled: BTreeSet::new(),
        };
        for (index, written) in settled.iter().enumerate() {
            world.put(index, written, false);
            let name = namespaced(index);
            world.settled.insert(world.live(&name).unwrap().uid.clone());
            world.change(&name, |service| service.ingress = vec![Some(v4(u8::try_from(index).unwrap()))]);
        }
        world.controllers = (0..2).map(|life| world.controller(life)).collect();
        world
    }

    /// It begins with a list, which is never old.
    fn controller(&self, life: usize) -> Controller {
        let keeper = Keeper::new("weft".to_owned(), true);
        Controller { keeper, services: self.services.len() - 1, claims: self.claims.len() - 1, life }
    }

    fn live(&self, name: &str) -> Option<&Arc<Service>> {
        self.services.last().unwrap().get(name)
    }

    fn next(&mut self) -> String {
        self.version += 1;
        self.version.to_string()
    }

    fn write_services(&mut self, write: impl FnOnce(&mut Services)) {
        let mut services = self.services.last().unwrap().clone();
        write(&mut services);
        self.services.push(services);
    }

    fn write_claims(&mut self, write: impl FnOnce(&mut Claims)) {
        let mut claims = self.claims.last().unwrap().clone();
        write(&mut claims);
        self.claims.push(claims);
    }

    /// A write that changes nothing is none.
    fn change(&mut self, name: &str, change: impl FnOnce(&mut Service)) {
        let mut service = self.live(name).unwrap().as_ref().clone();
        change(&mut service);
        if service != **self.live(name).unwrap() {
            service.resource_version = self.next();
            self.write_services(|services| drop(services.insert(name.to_owned(), Arc::new(service))));
        }
    }

    fn put(&mut self, index: usize, written: &Written, reshare: bool) {
        let name = namespaced(index);
        let requested = written.requested.map(|last| (Family::Ipv4Unicast, v4(last)));
        let wish = Wish {
            families: written.families.to_vec(),
            all: written.all,
            requested: requested.into_iter().collect(),
            pools: None,
        };
        if self.live(&name).is_none() {
            let resource_version = self.next();
            let service = Service {
                uid: format!("uid-{resource_version}"),
                resource_version,
                class: None,
                wish: Some(Ok(wish)),
                sharing: written.sharing.clone(),
                external_ips: BTreeSet::new(),
                ingress: Vec::new(),
                told: None,
            };
            self.write_services(|services| drop(services.insert(name, Arc::new(service))));
            return;
        }
        if reshare {
            self.reshared.insert(self.live(&name).unwrap().uid.clone());
        }
        self.change(&name, |service| {
            service.wish = Some(Ok(wish));
            if reshare {
                service.sharing = written.sharing.clone();
            }
        });
    }

    fn act(&mut self, index: usize, most: usize) {
        let controller = &mut self.controllers[index];
        let services = self.services[controller.services].clone();
        let claims = self.claims[controller.claims].clone();
        let plan = controller.keeper.plan(self.now, &self.pools, &self.namespaces, services, claims);
        let life = controller.life;
        for change in plan.changes.into_iter().chain(plan.tells.into_values()).take(most) {
            let looked = if change.look_at().is_some() { None } else { change.services(None) };
            self.requests.push(Request { controller: index, life, change, looked });
        }
    }

    fn land(&mut self, index: usize) {
        let mut request = self.requests.remove(index);
        if request.looked.is_none()
            && let Some(holder) = request.change.look_at()
        {
            request.looked = request.change.services(self.live(&key(holder)).map(AsRef::as_ref));
            if request.looked.is_some() {
                self.requests.push(request);
            }
            return;
        }
        if let Some(news) = self.write(&request.change, request.looked) {
            let controller = &mut self.controllers[request.controller];
            if controller.life == request.life {
                controller.keeper.made(self.now, &request.change, news);
            }
        }
    }

    /// As the API server does it; none where it refuses.
    fn write(&mut self, change: &Change, looked: Option<Vec<LoadBalancerIPHolder>>) -> Option<News> {
        match change {
            Change::Claim { address, claim: None, .. } => {
                let (uid, resource_version) = (self.next(), self.next());
                let spec = LoadBalancerIPSpec { address: address.to_string(), services: looked.unwrap() };
                let name = name(*address);
                if self.claims.last().unwrap().contains_key(&name) {
                    return None;
                }
                let claim = Arc::new(Claim { uid, resource_version, spec: Some(spec) });
                self.write_claims(|claims| drop(claims.insert(name, Arc::clone(&claim))));
                Some(News::Claim(Some(claim)))
            }
            Change::Claim { address, claim: Some(claim), .. }
            | Change::Renew { address, claim, .. }
            | Change::Release { address, claim, .. } => {
                let name = name(*address);
                let live = self.claims.last().unwrap().get(&name)?;
                if live.resource_version != claim.resource_version {
                    return None;
                }
                let mut claim = live.as_ref().clone();
                claim.resource_version = self.next();
                claim.spec.as_mut().unwrap().services = looked.unwrap();
                let claim = Arc::new(claim);
                self.write_claims(|claims| drop(claims.insert(name, Arc::clone(&claim))));
                Some(News::Claim(Some(claim)))
            }
            Change::Delete { address, claim } => {
                let name = name(*address);
                let live = self.claims.last().unwrap().get(&name)?;
                if (&live.uid, &live.resource_version) != (&claim.uid, &claim.resource_version) {
                    return None;
                }
                self.write_claims(|claims| drop(claims.remove(&name)));
                Some(News::Claim(None))
            }
            Change::Assign { service, before, .. } | Change::Tell { service, before, .. } => {
                if self.live(service)?.resource_version != before.resource_version {
                    return None;
                }
                self.change(service, |live| match change {
                    Change::Assign { addresses, told, .. } => {
                        live.ingress = addresses.iter().copied().map(Some).collect();
                        live.told = told.clone().map(|told| (told, String::new()));
                    }
                    Change::Tell { told, .. } => live.told = told.clone().map(|told| (told, String::new())),
                    _ => {}
                });
                Some(News::Service(Arc::clone(self.live(service)?)))
            }
        }
    }

    fn run(&mut self, step: Step) {
        self.now += Duration::from_secs(1);
        match step {
            Step::HearServices(index, more) => {
                let seen = &mut self.controllers[index].services;
                *seen = (*seen + more).min(self.services.len() - 1);
            }
            Step::HearClaims(index, more) => {
                let seen = &mut self.controllers[index].claims;
                *seen = (*seen + more).min(self.claims.len() - 1);
            }
            Step::Act(index, most) => self.act(index, most),
            Step::Land(index) if !self.requests.is_empty() => self.land(index % self.requests.len()),
            Step::Lose(index) if !self.requests.is_empty() => {
                drop(self.requests.remove(index % self.requests.len()));
            }
            Step::Land(_) | Step::Lose(_) => {}
            Step::Restart(index) => {
                self.controllers[index] = self.controller(self.controllers[index].life + 2);
            }
            Step::Put(index, written) => self.put(index, &written, false),
            Step::Reshare(index, written) => self.put(index, &written, true),
            Step::Plain(index) => {
                if self.live(&namespaced(index)).is_some() {
                    // The API server clears the status.
                    self.change(&namespaced(index), |service| {
                        (service.wish, service.ingress) = (None, Vec::new());
                    });
                }
            }
            Step::Delete(index) => {
                if self.live(&namespaced(index)).is_some() {
                    self.write_services(|services| drop(services.remove(&namespaced(index))));
                }
            }
            Step::Wait => self.now += REST,
        }
    }

    /// No two Services have one address unless they may share it. What people have changed since is not the controllers' fault.
    fn assert_right(&self, quiet: bool) {
        let (services, claims) = (self.services.last().unwrap(), self.claims.last().unwrap());
        let mut shown: BTreeMap<IpAddr, Vec<(&String, &Arc<Service>)>> = BTreeMap::new();
        for (name, service) in services {
            for address in service.shown() {
                shown.entry(address).or_default().push((name, service));
                let holders =
                    claims.get(&super::super::name(address)).map_or(&[][..], |claim| claim.holders());
                let claimed = holders.iter().any(|holder| holder.uid == service.uid);
                assert!(
                    claimed || (!quiet && self.settled.contains(&service.uid)),
                    "{name} has {address} without a claim"
                );
            }
        }
        for (address, both) in &shown {
            for (index, (name, service)) in both.iter().enumerate() {
                for (other_name, other) in &both[index + 1..] {
                    let namespaces = [name, other_name].map(|name| name.split_once('/').unwrap().0);
                    let excused = [service, other].iter().any(|service| self.reshared.contains(&service.uid));
                    let may_share =
                        namespaces[0] == namespaces[1] && service.sharing.may_share(&other.sharing);
                    assert!(may_share || (excused && !quiet), "{name} and {other_name} both have {address}");
                }
            }
        }
    }

    fn calm_down(&mut self) {
        while !self.requests.is_empty() {
            self.land(0);
            self.assert_right(false);
        }
        for _ in 0..40 {
            self.run(Step::HearServices(0, usize::MAX / 2));
            self.run(Step::HearClaims(0, usize::MAX / 2));
            self.act(0, usize::MAX);
            while !self.requests.is_empty() {
                self.land(0);
                self.assert_right(false);
            }
            self.now += REST;
        }
    }

    /// Who can have an address has one, and no claim is left over.
    fn assert_complete(&self) {
        let (services, claims) = (self.services.last().unwrap(), self.claims.last().unwrap());
        for (name, claim) in claims {
            let address = address_of(name).unwrap();
            assert!(!claim.is_empty(), "{name} is left over");
            for holder in claim.holders() {
                let service = services.get(&key(holder)).filter(|service| service.uid == holder.uid);
                assert!(service.is_some_and(|service| service.shows(address)), "{name} is not {holder:?}'s");
            }
        }
        let full = |family: Family| {
            let size = if family == Family::Ipv4Unicast { 4 } else { 2 };
            claims.keys().filter(|name| Family::of(&address_of(name).unwrap().into()) == family).count()
                == size
        };
        for (name, service) in services {
            let Some(Ok(wish)) = &service.wish else {
                assert!(service.ingress.is_empty() && service.told.is_none(), "{name}: {service:?}");
                continue;
            };
            let lacking: Vec<Family> = wish
                .families
                .iter()
                .copied()
                .filter(|family| !service.shown().any(|shown| Family::of(&shown.into()) == *family))
                .collect();
            let told_why = service.told.as_ref().is_some_and(|(told, _)| !told.holds);
            assert!(
                !service.ingress.is_empty() || told_why,
                "{name} lacks an address and is told nothing: {service:?}"
            );
            let excused = |family: &Family| full(*family) || wish.requested.contains_key(family);
            // All or nothing: one that is refused holds up the other.
            let held_up = wish.all && (lacking.iter().any(excused) || !wish.requested.is_empty());
            let can = lacking.iter().any(|family| !excused(family)) && !held_up;
            assert!(!can, "{name} could have an address: {service:?} {claims:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever comes late, twice or never: no address is given twice; and once all is quiet everybody has what can be had.
    #[test]
    fn no_address_is_given_twice(
        settled in prop::collection::vec(written(), 0..3),
        steps in prop::collection::vec(step(), 1..400),
    ) {
        let mut world = World::new(&settled);
        for step in steps {
            world.run(step);
            world.assert_right(false);
        }
        world.calm_down();
        world.assert_right(true);
        world.assert_complete();
        let controller = &mut world.controllers[0];
        let (services, claims) = (world.services.last().unwrap().clone(), world.claims.last().unwrap().clone());
        let plan = controller.keeper.plan(world.now, &world.pools, &world.namespaces, services, claims);
        prop_assert!(plan.changes.is_empty() && plan.tells.is_empty(), "it never rests: {:?}", plan);
    }
}
