#![allow(clippy::disallowed_methods, reason = "a test's clock begins somewhere")]

use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::*;

mod concurrent;

fn pool(spec: Json) -> Arc<IPPoolSpec> {
    let mut spec = spec;
    spec["allowedUses"] = json!(["LoadBalancer"]);
    Arc::new(serde_json::from_value(spec).unwrap())
}

/// A cluster of which every change is made as it is planned.
struct World {
    pools: BTreeMap<String, Arc<IPPoolSpec>>,
    namespaces: BTreeMap<String, Arc<Labels>>,
    services: BTreeMap<String, Arc<Service>>,
    claims: BTreeMap<String, Arc<Claim>>,
    rested: BTreeSet<String>,
    default: bool,
    version: u64,
}

impl World {
    fn new<const N: usize>(pools: [(&str, Json); N]) -> Self {
        let labels = |name: &str, team: &str| {
            (name.to_owned(), Arc::new(Labels::from([("team".to_owned(), team.to_owned())])))
        };
        Self {
            pools: pools.into_iter().map(|(name, spec)| (name.to_owned(), pool(spec))).collect(),
            namespaces: [labels("shop", "a"), labels("bank", "b")].into(),
            services: BTreeMap::new(),
            claims: BTreeMap::new(),
            rested: BTreeSet::new(),
            default: true,
            version: 0,
        }
    }

    fn next(&mut self) -> String {
        self.version += 1;
        self.version.to_string()
    }

    /// Puts a Service there: what is given of `metadata.annotations`, `spec` and `status`.
    fn put(&mut self, name: &str, annotations: Json, spec: Json) {
        let mut all = json!({"type": "LoadBalancer", "ipFamilies": ["IPv4"], "ports": [{"port": 80}]});
        all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let object = json!({"metadata": {"name": "x", "annotations": annotations}, "spec": all});
        let mut service = Service::read(&serde_json::from_value(object).unwrap());
        service.resource_version = self.next();
        match self.services.get(name) {
            Some(before) => {
                (service.uid, service.ingress) = (before.uid.clone(), before.ingress.clone());
                service.told = before.told.clone();
            }
            None => service.uid = format!("uid-{}", service.resource_version),
        }
        self.services.insert(name.to_owned(), Arc::new(service));
    }

    fn change(&mut self, name: &str, change: impl FnOnce(&mut Service)) {
        let resource_version = self.next();
        let service = Arc::make_mut(self.services.get_mut(name).unwrap());
        service.resource_version = resource_version;
        change(service);
    }

    fn plan(&self) -> Plan {
        plan(View {
            pools: &self.pools,
            namespaces: &self.namespaces,
            services: &self.services,
            claims: &self.claims,
            rested: &self.rested,
            class: "weft.network/weft",
            default: self.default,
        })
    }

    fn make(&mut self, change: &Change) {
        let resource_version = self.next();
        match change {
            Change::Claim { address, .. }
            | Change::Renew { address, .. }
            | Change::Release { address, .. } => {
                let live = change.look_at().and_then(|holder| self.services.get(&key(holder))).cloned();
                let Some(services) = change.services(live.as_deref()) else { return };
                let spec = LoadBalancerIPSpec { address: address.to_string(), services };
                let claim = Claim { uid: String::new(), resource_version, spec: Some(spec) };
                self.claims.insert(name(*address), Arc::new(claim));
            }
            Change::Delete { address, .. } => drop(self.claims.remove(&name(*address))),
            Change::Assign { service, addresses, told, .. } => self.change(service, |service| {
                service.ingress = addresses.iter().copied().map(Some).collect();
                service.told = told.clone().map(|told| (told, String::new()));
            }),
            Change::Tell { service, told, .. } => self.change(service, |service| {
                service.told = told.clone().map(|told| (told, String::new()));
            }),
        }
    }

    /// Makes changes until there are none.
    fn settle(&mut self) -> Plan {
        for _ in 0..20 {
            let plan = self.plan();
            if plan.changes.is_empty() && plan.tells.is_empty() {
                return plan;
            }
            for change in plan.changes.iter().chain(plan.tells.values()) {
                // Of one object each plan changes the state that it knows.
                if self.plan().changes.contains(change)
                    || self.plan().tells.values().any(|tell| tell == change)
                {
                    self.make(change);
                }
            }
        }
        panic!("there is always something to do: {:#?}", self.plan());
    }

    fn addresses(&self, name: &str) -> Vec<String> {
        self.services[name].shown().map(|address| address.to_string()).collect()
    }

    fn reason(&self, name: &str) -> Option<&str> {
        self.services[name].told.as_ref().map(|(told, _)| told.reason.as_str())
    }
}

const DUAL: [&str; 2] = ["IPv4", "IPv6"];

fn asking(addresses: &str) -> Json {
    json!({"weft.network/load-balancer-ips": addresses})
}

#[test]
fn names_are_those_of_addresses() {
    for (address, text) in
        [("203.0.113.7", "203.0.113.7"), ("2001:db8::7", "2001-db8-0-0-0-0-0-7"), ("::", "0-0-0-0-0-0-0-0")]
    {
        let address: IpAddr = address.parse().unwrap();
        assert_eq!(name(address), text);
        assert_eq!(address_of(text), Some(address));
    }
    for other in
        ["web", "2001-db8--7", "2001:db8::7", "2001-0db8-0-0-0-0-0-7", "0-0-0-0-0-0-203.0.113.7", "--"]
    {
        assert_eq!(address_of(other), None, "{other}");
    }
}

#[test]
fn every_address_is_used_the_lowest_first_and_nothing_else_changes() {
    let mut world = World::new([("a", json!({"cidr": "203.0.113.0/30", "reserved": ["203.0.113.1/32"]}))]);
    for index in 0..4 {
        world.put(&format!("shop/s{index}"), json!({}), json!({}));
    }
    let plan = world.settle();
    let all: Vec<_> = (0..4).map(|index| world.addresses(&format!("shop/s{index}")).join(" ")).collect();
    assert_eq!(all, ["203.0.113.0", "203.0.113.2", "203.0.113.3", ""]);
    assert_eq!(world.reason("shop/s3"), Some("PoolExhausted"));
    assert_eq!(plan.shortages, [Shortage { pool: "a".into(), service: "shop/s3".into() }]);
    assert_eq!((plan.used["a"], plan.refused), (3, 1));
    // One goes; its address rests.
    world.services.remove("shop/s1");
    world.settle();
    assert_eq!(world.claims["203.0.113.2"].holders(), []);
    assert_eq!(world.addresses("shop/s3"), Vec::<String>::new());
    // Who asks for it need not wait, and neither who asks for a reserved one.
    world.put("shop/now", asking("203.0.113.2"), json!({}));
    world.put("shop/reserved", asking("203.0.113.1"), json!({}));
    world.settle();
    assert_eq!(world.addresses("shop/now"), ["203.0.113.2"]);
    assert_eq!(world.addresses("shop/reserved"), ["203.0.113.1"]);
    world.services.remove("shop/now");
    world.settle();
    world.rested.insert("203.0.113.2".into());
    world.settle();
    assert_eq!(world.addresses("shop/s3"), ["203.0.113.2"]);
    assert_eq!(world.reason("shop/s3"), Some("Assigned"));
}

#[test]
fn external_ips_of_any_service_are_given_only_to_who_asks() {
    let mut world = World::new([("a", json!({"cidr": "203.0.113.0/30"}))]);
    world.put(
        "shop/plain",
        json!({}),
        json!({"type": "ClusterIP", "externalIPs": ["203.0.113.0", "192.0.2.1"]}),
    );
    world.put("shop/a", json!({}), json!({"externalIPs": ["203.0.113.1"]}));
    // It lacks the other family, so that nothing is held for it; nor is this anybody else's then.
    let both = json!({"ipFamilies": DUAL, "ipFamilyPolicy": "RequireDualStack"});
    world.put("shop/asks-in-vain", asking("203.0.113.0"), both);
    world.put("shop/b", json!({}), json!({}));
    world.put("shop/c", json!({}), json!({}));
    world.settle();
    assert_eq!(world.addresses("shop/a"), ["203.0.113.2"]);
    assert_eq!(world.addresses("shop/b"), ["203.0.113.3"]);
    assert_eq!(world.reason("shop/c"), Some("PoolExhausted"));
    world.put("shop/c", asking("203.0.113.1"), json!({}));
    world.settle();
    assert_eq!(world.addresses("shop/c"), ["203.0.113.1"]);
    // One that is had already stays.
    world.put("shop/plain", json!({}), json!({"type": "ClusterIP", "externalIPs": ["203.0.113.2"]}));
    world.settle();
    assert_eq!(world.addresses("shop/a"), ["203.0.113.2"]);
}

#[test]
fn families_are_those_that_the_service_asks_for() {
    let mut world = World::new([("v4", json!({"cidr": "203.0.113.0/24"}))]);
    let prefer = json!({"ipFamilies": DUAL, "ipFamilyPolicy": "PreferDualStack"});
    let require = json!({"ipFamilies": DUAL, "ipFamilyPolicy": "RequireDualStack"});
    world.put("shop/prefers", json!({}), prefer);
    world.put("shop/requires", json!({}), require);
    world.put("shop/six", json!({}), json!({"ipFamilies": ["IPv6"]}));
    world.settle();
    assert_eq!(
        (world.addresses("shop/prefers"), world.reason("shop/prefers")),
        (vec!["203.0.113.0".into()], Some("Assigned"))
    );
    assert_eq!((world.addresses("shop/requires"), world.reason("shop/requires")), (vec![], Some("NoPool")));
    assert_eq!((world.addresses("shop/six"), world.reason("shop/six")), (vec![], Some("NoPool")));
    assert_eq!(world.claims.len(), 1, "nothing is held in vain: {:?}", world.claims);
    world.pools.insert("v6".into(), pool(json!({"cidr": "2001:db8::/126"})));
    world.settle();
    assert_eq!(world.addresses("shop/prefers"), ["203.0.113.0", "2001:db8::"]);
    assert_eq!(world.addresses("shop/requires"), ["203.0.113.1", "2001:db8::1"]);
    assert_eq!(world.addresses("shop/six"), ["2001:db8::2"]);
}

#[test]
fn pools_are_chosen_as_for_pods() {
    let mut world = World::new([
        ("all", json!({"cidr": "203.0.113.0/28"})),
        ("by-name", json!({"cidr": "203.0.113.16/28", "assignmentMode": "Manual"})),
        ("of-b", json!({"cidr": "203.0.113.32/28", "namespaceSelector": "team == \"b\""})),
        ("off", json!({"cidr": "203.0.113.48/28", "disabled": true})),
    ]);
    let named = |names: &str| json!({"weft.network/pools": names});
    world.put("shop/plain", json!({}), json!({}));
    world.put("bank/plain", json!({}), json!({}));
    world.put("bank/named", named("[\"by-name\"]"), json!({}));
    world.put("shop/of-b", named("[\"of-b\"]"), json!({}));
    world.put("shop/off", named("[\"off\"]"), json!({}));
    world.put("shop/asks-of-b", asking("203.0.113.40"), json!({}));
    world.put("shop/asks-off", asking("203.0.113.50"), json!({}));
    world.put("shop/asks-outside", asking("192.0.2.1"), json!({}));
    world.put("shop/bad", asking("web"), json!({}));
    world.settle();
    assert_eq!(world.addresses("shop/plain"), ["203.0.113.0"]);
    assert_eq!(world.addresses("bank/plain"), ["203.0.113.32"]);
    assert_eq!(world.addresses("bank/named"), ["203.0.113.16"]);
    for (name, reason) in [
        ("shop/of-b", "NoPool"),
        ("shop/off", "NoPool"),
        ("shop/asks-of-b", "AddressOutsidePools"),
        ("shop/asks-off", "AddressOutsidePools"),
        ("shop/asks-outside", "AddressOutsidePools"),
        ("shop/bad", "InvalidRequest"),
    ] {
        assert_eq!((world.addresses(name), world.reason(name)), (vec![], Some(reason)), "{name}");
    }
    // What a Service has it keeps, whatever becomes of the pools, until it asks for something else itself.
    world.pools.remove("all");
    world.settle();
    assert_eq!(world.addresses("shop/plain"), ["203.0.113.0"]);
    world.put("bank/plain", named("[\"by-name\"]"), json!({}));
    world.settle();
    assert_eq!(world.addresses("bank/plain"), ["203.0.113.17"]);
    world.put("bank/plain", asking("web"), json!({}));
    world.settle();
    assert_eq!(
        (world.addresses("bank/plain"), world.reason("bank/plain")),
        (vec!["203.0.113.17".into()], Some("InvalidRequest"))
    );
}

#[test]
fn before_its_namespace_is_known_nothing_is_decided_on_a_service() {
    let mut world = World::new([
        ("all", json!({"cidr": "203.0.113.0/28"})),
        ("of-b", json!({"cidr": "203.0.113.32/28", "namespaceSelector": "team == \"b\""})),
    ]);
    world.put("bank/old", json!({}), json!({}));
    world.settle();
    let bank = world.namespaces.remove("bank").unwrap();
    world.put("bank/new", json!({}), json!({}));
    world.put("bank/asks", asking("203.0.113.9"), json!({}));
    world.put("bank/old", asking("203.0.113.40"), json!({}));
    let plan = world.settle();
    assert_eq!((world.addresses("bank/new"), world.reason("bank/new")), (vec![], None));
    assert_eq!((world.addresses("bank/asks"), world.reason("bank/asks")), (vec![], None));
    assert_eq!(world.addresses("bank/old"), ["203.0.113.32"]);
    assert_eq!((world.claims.len(), plan.refused), (1, 0));
    world.namespaces.insert("bank".into(), bank);
    world.settle();
    assert_eq!(world.addresses("bank/new"), ["203.0.113.33"]);
    assert_eq!(world.addresses("bank/old"), ["203.0.113.40"]);
}

#[test]
fn services_share_an_address_only_if_they_may() {
    let mut world = World::new([("a", json!({"cidr": "203.0.113.0/24"}))]);
    let share = json!({"weft.network/sharing-key": "k"});
    let port = |port: u16, policy: &str, app: &str| json!({"ports": [{"port": port}], "externalTrafficPolicy": policy, "selector": {"app": app}});
    world.put("shop/a", share.clone(), port(80, "Cluster", "a"));
    world.put("shop/b", share.clone(), port(443, "Cluster", "b"));
    world.put("shop/same-port", share.clone(), port(80, "Cluster", "c"));
    world.put("shop/local", share.clone(), port(81, "Local", "d"));
    world.put("shop/no-key", json!({}), port(82, "Cluster", "a"));
    world.put("bank/a", share.clone(), port(83, "Cluster", "a"));
    world.settle();
    let all = |world: &World| -> Vec<String> {
        world.services.keys().map(|name| world.addresses(name).join(" ")).collect()
    };
    // In order of names: bank/a, shop/a, shop/b, shop/local, shop/no-key, shop/same-port; whose port is free beside shop/local's.
    assert_eq!(
        all(&world),
        ["203.0.113.0", "203.0.113.1", "203.0.113.1", "203.0.113.2", "203.0.113.3", "203.0.113.4"]
    );
    // To ask for it is no way around.
    let mut asks = share.clone();
    asks["weft.network/load-balancer-ips"] = json!("203.0.113.1");
    world.put("shop/asks", asks, port(80, "Cluster", "a"));
    world.settle();
    assert_eq!((world.addresses("shop/asks"), world.reason("shop/asks")), (vec![], Some("AddressTaken")));
    let message = &world.services["shop/asks"].told.as_ref().unwrap().0.message;
    assert!(message.contains("taken by Service shop/a, shop/b"), "{message}");
    // Who came first stays, whoever changed.
    world.put("shop/a", share, port(443, "Cluster", "a"));
    world.settle();
    assert_eq!(world.addresses("shop/a"), ["203.0.113.1"]);
    assert_ne!(world.addresses("shop/b"), ["203.0.113.1"]);
}

#[test]
fn with_the_policy_local_only_services_with_one_selector_share() {
    let sharing = |port: i32, local: bool, app: Option<&str>| Sharing {
        key: Some("k".to_owned()),
        ports: [("TCP".to_owned(), port)].into(),
        local,
        selector: app.map(|app| ("app".to_owned(), app.to_owned())).into_iter().collect(),
    };
    for (local, of_one, of_other, may) in [
        (false, None, None, true),
        (false, Some("a"), Some("b"), true),
        (true, Some("a"), Some("a"), true),
        (true, Some("a"), Some("b"), false),
        (true, Some("a"), None, false),
        (true, None, None, false),
    ] {
        let (one, other) = (sharing(80, local, of_one), sharing(443, false, of_other));
        assert_eq!((one.may_share(&other), other.may_share(&one)), (may, may), "{one:?} {other:?}");
    }
}

#[test]
fn what_is_there_is_adopted_and_what_is_anothers_is_left_alone() {
    let mut world = World::new([("a", json!({"cidr": "203.0.113.0/24"}))]);
    let address = |text: &str| Some(text.parse::<IpAddr>().unwrap());
    for (name, ingress) in [
        ("shop/b", address("203.0.113.9")),
        ("shop/c", address("203.0.113.9")),
        ("shop/elsewhere", address("192.0.2.9")),
        ("shop/named", None),
    ] {
        world.put(name, json!({}), json!({}));
        world.change(name, |service| service.ingress = vec![ingress]);
    }
    world.put("shop/a", asking("203.0.113.0"), json!({"loadBalancerClass": "example.org/lb"}));
    world.change("shop/a", |service| service.ingress = vec![address("203.0.113.0")]);
    world.put("shop/ours-elsewhere", json!({}), json!({"loadBalancerClass": "weft.network/weft"}));
    world.change("shop/ours-elsewhere", |service| service.ingress = vec![address("192.0.2.8")]);
    world.put("shop/z", json!({}), json!({"loadBalancerClass": "weft.network/weft"}));
    let before = world.services.clone();
    world.settle();
    for name in ["shop/a", "shop/b", "shop/elsewhere", "shop/named"] {
        assert_eq!(world.services[name], before[name], "{name} was written to");
    }
    assert_eq!(world.claims["203.0.113.9"].holders()[0].name, "b", "the first of two");
    assert_eq!(world.addresses("shop/c"), ["203.0.113.1"]);
    assert_eq!(world.addresses("shop/z"), ["203.0.113.2"], "another class's address is taken");
    assert_eq!(world.reason("shop/ours-elsewhere"), Some("ForeignAddress"));
    // A Service that names us not is served by default only, and told nothing where nothing is given out.
    world.default = false;
    world.settle();
    assert_eq!((world.addresses("shop/b"), world.addresses("shop/c")), (vec![], vec![]));
    assert_eq!(world.reason("shop/c"), None, "{:?}", world.services["shop/c"].told);
    assert!(world.claims["203.0.113.9"].is_empty());
    assert_eq!(world.addresses("shop/z"), ["203.0.113.2"]);
    (world.default, world.pools) = (true, BTreeMap::new());
    let quiet = world.services.clone();
    world.settle();
    assert_eq!(world.services["shop/b"], quiet["shop/b"]);
}

#[test]
fn what_a_service_without_a_class_was_told_goes_when_it_is_not_served_any_more() {
    let mut world = World::new([("a", json!({"cidr": "203.0.113.0/32"}))]);
    for name in ["shop/a", "shop/b", "shop/c"] {
        world.put(name, json!({}), json!({}));
    }
    world.settle();
    assert_eq!(
        (world.reason("shop/b"), world.reason("shop/c")),
        (Some("PoolExhausted"), Some("PoolExhausted"))
    );
    world.change("shop/b", |service| service.ingress = vec![Some("192.0.2.9".parse().unwrap())]);
    world.settle();
    assert_eq!((world.reason("shop/b"), world.reason("shop/c")), (None, Some("PoolExhausted")));
    world.pools.insert("a".into(), pool(json!({"cidr": "203.0.113.0/32", "disabled": true})));
    world.settle();
    assert_eq!((world.reason("shop/a"), world.reason("shop/c")), (Some("Assigned"), None));
}

#[test]
fn a_claim_that_people_made_is_left_to_them() {
    let mut world = World::new([("a", json!({"cidr": "203.0.113.0/31"}))]);
    let strange = Claim { uid: "x".into(), resource_version: "1".into(), spec: None };
    world.claims.insert("203.0.113.0".into(), Arc::new(strange.clone()));
    world.claims.insert("mine".into(), Arc::new(strange));
    world.put("shop/a", json!({}), json!({}));
    world.put("shop/b", asking("203.0.113.0"), json!({}));
    world.rested = world.claims.keys().cloned().collect();
    world.settle();
    assert_eq!(world.addresses("shop/a"), ["203.0.113.1"]);
    assert_eq!(world.reason("shop/b"), Some("AddressTaken"));
    assert_eq!(world.claims.len(), 3);
}
