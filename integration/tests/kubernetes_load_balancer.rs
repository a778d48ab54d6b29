//! LoadBalancer addresses with a real API server. Ignored unless asked for, as it needs Kubernetes' own programs: `make test` runs it where
//! `KUBEBUILDER_ASSETS` names the folder with `etcd`, `kube-apiserver` and `kubectl`.

#![allow(clippy::indexing_slicing, reason = "a panic fails the test, which is what it is for")]

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use weft_integration::daemon::Family;
use weft_integration::documents;
use weft_integration::kubernetes::{ControlPlane, Controller, condition};
use weft_integration::lab::Lab;
use weft_integration::lan::{Lan, LanSpec};
use weft_integration::wait::{now, wait_until};

/// How soon something is done about a change, after a rest too.
const CATCH_UP: Duration = Duration::from_secs(40);
/// How soon another leads when the one that led has died.
const TAKE_OVER: Duration = Duration::from_secs(60);
/// How long addresses rest.
const COOLDOWN: Duration = Duration::from_secs(15);

/// One node and its API server.
fn cluster(lab: &Lab) -> Result<(Lan, ControlPlane)> {
    let families = Family::BOTH.to_vec();
    let lan = Lan::build(lab, LanSpec { nodes: vec![1], families, pods_per_node: 0 })?;
    let (plane, _) = ControlPlane::beside(lab, &lan)?;
    for node in &lan.nodes {
        plane.add_node(&documents::node(&node.name, &[], &node.blocks, &node.addresses))?;
    }
    Ok((lan, plane))
}

fn pool(name: &str, cidr: &str, more: Value) -> Value {
    let mut spec = json!({"cidr": cidr, "allowedUses": ["LoadBalancer"], "cooldown": format!("{}s", COOLDOWN.as_secs())});
    if let (Some(spec), Some(more)) = (spec.as_object_mut(), more.as_object()) {
        spec.extend(more.clone());
    }
    documents::resource("IPPool", name, &spec)
}

fn service(name: &str, annotations: Value, more: Value) -> Value {
    let mut spec = json!({"type": "LoadBalancer", "selector": {"app": name}, "ports": [{"port": 80}]});
    if let (Some(spec), Some(more)) = (spec.as_object_mut(), more.as_object()) {
        spec.extend(more.clone());
    }
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "annotations": annotations}, "spec": spec})
}

/// Each Service's addresses, as its status has them.
fn addresses(plane: &ControlPlane) -> Result<BTreeMap<String, String>> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let services = plane.list("services")?;
    let of_type = |service: &&Value| service["spec"]["type"] == "LoadBalancer";
    let told = services.iter().filter(of_type).map(|service| {
        let ingress = service["status"]["loadBalancer"]["ingress"].as_array().cloned().unwrap_or_default();
        let addresses: Vec<String> = ingress.iter().map(|ingress| text(&ingress["ip"])).collect();
        (text(&service["metadata"]["name"]), addresses.join(" "))
    });
    Ok(told.collect())
}

fn wait_addresses(plane: &ControlPlane, wanted: &[(&str, &str)]) -> Result<()> {
    wait_until(format!("the addresses {wanted:?}"), CATCH_UP, || {
        let all = addresses(plane)?;
        ensure!(
            wanted.iter().all(|(name, address)| all.get(*name).is_some_and(|has| has == address)),
            "{all:?}"
        );
        Ok(())
    })
}

/// The Services that each address is claimed for.
fn claims(plane: &ControlPlane) -> Result<BTreeMap<String, Vec<String>>> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let items = plane.list("loadbalancerips")?;
    let told = items.iter().map(|claim| {
        let services = claim["spec"]["services"].as_array().cloned().unwrap_or_default();
        (text(&claim["spec"]["address"]), services.iter().map(|service| text(&service["name"])).collect())
    });
    Ok(told.collect())
}

fn wait_told(plane: &ControlPlane, service: &str, status: &str, reason: &str) -> Result<()> {
    wait_until(format!("{service} to be told {reason}"), CATCH_UP, || {
        let told = condition(&plane.get(&format!("service {service}"))?, "weft.network/AddressAssigned");
        ensure!(told["status"] == status && told["reason"] == reason, "{told}");
        Ok(())
    })
}

fn wait_pool(plane: &ControlPlane, name: &str, used: u64, reason: &str) -> Result<()> {
    wait_until(format!("IPPool {name} to be {reason}"), CATCH_UP, || {
        let pool = plane.get(&format!("ippool {name}"))?;
        let programmed = condition(&pool, "Programmed");
        ensure!(
            pool["status"]["addressesUsed"] == used && programmed["reason"] == reason,
            "{}",
            pool["status"]
        );
        Ok(())
    })
}

/// What the Services' statuses are, and in which state of the objects.
fn states(plane: &ControlPlane) -> Result<BTreeMap<String, Value>> {
    let services = plane.list("services")?;
    let state = |service: &Value| json!([service["metadata"]["resourceVersion"], service["status"]]);
    Ok(services.iter().map(|service| (service["metadata"]["name"].to_string(), state(service))).collect())
}

#[test]
#[ignore = "needs KUBEBUILDER_ASSETS: make test runs it where that is set"]
fn services_get_addresses_and_keep_them() -> Result<()> {
    Lab::test(|lab| {
        let (mut lan, plane) = cluster(lab)?;
        let mut controllers = [
            Controller::start(lab, &plane, "controller-1", "")?,
            Controller::start(lab, &plane, "controller-2", "")?,
        ];
        let node = &mut lan.nodes[0];
        node.weft.set_kubeconfig(&plane.kubeconfig_of("weftd", Some(&node.name))?);
        node.weft.start()?;
        node.wait_ready_for_pods()?;

        // The server refuses what makes no sense.
        for (more, words) in [
            (json!({"allowedUses": ["LoadBalancer", "Workload"]}), "name one of Workload and LoadBalancer"),
            (json!({"blockSize": 26}), "a pool for LoadBalancer has no blocks"),
        ] {
            let refused = plane.apply(&[pool("bad", "198.51.100.0/24", more)]).unwrap_err();
            ensure!(format!("{refused:#}").contains(words), "{refused:#}");
        }

        // Nobody is told of a pool's addresses without a range.
        plane.apply(&[pool("v4", "203.0.113.0/29", json!({"reserved": ["203.0.113.7/32"]}))])?;
        wait_pool(&plane, "v4", 0, "NotAnnounced")?;
        let pods = pool(
            "v4",
            "203.0.113.0/29",
            json!({"allowedUses": ["Workload"], "reserved": ["203.0.113.7/32"]}),
        );
        let refused = plane.apply(&[pods]).unwrap_err();
        ensure!(format!("{refused:#}").contains("allowedUses: it stays"), "{refused:#}");
        let ranges = json!([{"cidr": "203.0.113.0/24"}, {"cidr": "2001:db8:1::/112"}]);
        plane.apply(&[documents::bgp_configuration(
            &json!({"asNumber": 64512, "serviceLoadBalancerIPs": ranges, "serviceAggregation": "Disabled"}),
        )])?;

        let dual = json!({"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv4", "IPv6"]});
        let asks = |addresses: &str| json!({"weft.network/load-balancer-ips": addresses});
        let shares = json!({"weft.network/sharing-key": "dns"});
        plane.apply(&[service("web", json!({}), json!({}))])?;
        wait_addresses(&plane, &[("web", "203.0.113.0")])?;
        plane.apply(&[
            service("dual", json!({}), dual),
            service("asks", asks("203.0.113.7"), json!({"loadBalancerClass": "weft.network/weft"})),
            service("old-way", json!({}), json!({"loadBalancerIP": "203.0.113.6"})),
            service("refused", asks("203.0.113.0"), json!({})),
            service("outside", asks("192.0.2.1"), json!({})),
            service("elses", json!({}), json!({"loadBalancerClass": "example.org/lb"})),
        ])?;
        wait_told(&plane, "dual", "False", "NoPool")?;
        wait_told(&plane, "refused", "False", "AddressTaken")?;
        wait_told(&plane, "outside", "False", "AddressOutsidePools")?;
        wait_addresses(
            &plane,
            &[("asks", "203.0.113.7"), ("old-way", "203.0.113.6"), ("dual", ""), ("elses", "")],
        )?;
        plane.apply(&[pool("v6", "2001:db8:1::/125", json!({}))])?;
        wait_addresses(&plane, &[("dual", "203.0.113.1 2001:db8:1::")])?;
        plane.apply(&[
            service("dns-tcp", shares.clone(), json!({"ports": [{"port": 53}]})),
            service("dns-udp", shares, json!({"ports": [{"port": 53, "protocol": "UDP"}]})),
        ])?;
        wait_addresses(&plane, &[("dns-tcp", "203.0.113.2"), ("dns-udp", "203.0.113.2")])?;
        wait_told(&plane, "dual", "True", "Assigned")?;
        wait_pool(&plane, "v4", 5, "Supplied")?;
        wait_pool(&plane, "v6", 1, "Supplied")?;
        let table = plane.run("get lbip")?;
        ensure!(
            ["ADDRESS", "SERVICES", "AGE", "2001:db8:1::"].iter().all(|word| table.contains(word)),
            "{table}"
        );
        let elses = plane.get("service elses")?;
        ensure!(elses["status"] == json!({"loadBalancer": {}}), "{elses}");
        ensure!(plane.get("service dns-tcp")?["status"]["loadBalancer"]["ingress"][0]["ipMode"] == "VIP");

        // The node knows what to announce as soon as somebody answers.
        wait_until("weftd to know of the addresses", CATCH_UP, || {
            let services: Vec<Value> = lan.nodes[0].weft.json("services")?;
            for address in ["203.0.113.1/32", "203.0.113.2/32", "203.0.113.7/32", "2001:db8:1::/128"] {
                ensure!(services.iter().any(|one| one["prefix"] == address), "{address}: {services:?}");
            }
            Ok(())
        })?;

        // The one that leads dies, then both: nothing changes.
        let before = states(&plane)?;
        let leader = controllers.iter().position(|controller| controller.terms() > 0).context("one leads")?;
        controllers[leader].kill9()?;
        wait_until("the other to lead", TAKE_OVER, || {
            ensure!(controllers[1 - leader].terms() > 0, "it does not");
            Ok(())
        })?;
        controllers[1 - leader].kill9()?;
        controllers[leader].start_again()?;
        wait_until("the first to lead again", TAKE_OVER, || {
            ensure!(controllers[leader].terms() > 1, "it does not");
            Ok(())
        })?;
        plane.apply(&[service("new", json!({}), json!({}))])?;
        wait_addresses(&plane, &[("new", "203.0.113.3")])?;
        let after = states(&plane)?;
        ensure!(before.iter().all(|(name, state)| after.get(name) == Some(state)), "{before:#?}\n{after:#?}");

        // An address that comes back rests before another gets it, and is nobody's meanwhile.
        plane.run("delete service web new")?;
        let deleted = now();
        wait_until("the address to be nobody's", CATCH_UP, || {
            let claims = claims(&plane)?;
            ensure!(claims.get("203.0.113.3").is_some_and(Vec::is_empty), "{claims:?}");
            Ok(())
        })?;
        // But for who asks for it.
        wait_addresses(&plane, &[("refused", "203.0.113.0")])?;
        plane.apply(&[service("next", json!({}), json!({}))])?;
        wait_addresses(&plane, &[("next", "203.0.113.4")])?;
        wait_until("the address to have rested", CATCH_UP, || {
            let claims = claims(&plane)?;
            ensure!(!claims.contains_key("203.0.113.3"), "{claims:?}");
            Ok(())
        })?;
        ensure!(deleted.elapsed() >= COOLDOWN, "it rested for {:?} only", deleted.elapsed());
        plane.apply(&[service("later", json!({}), json!({}))])?;
        wait_addresses(&plane, &[("later", "203.0.113.3")])?;

        plane.apply(&[service("six", json!({}), json!({}))])?;
        wait_addresses(&plane, &[("six", "203.0.113.5")])?;
        plane.apply(&[service("seven", json!({}), json!({}))])?;
        wait_told(&plane, "seven", "False", "PoolExhausted")?;
        wait_pool(&plane, "v4", 8, "Short")?;

        // A Service of another type has none.
        plane.run("patch service dual --type=merge -p {\"spec\":{\"type\":\"ClusterIP\"}}")?;
        wait_until("its addresses to come back", CATCH_UP, || {
            let claims = claims(&plane)?;
            ensure!(!claims.values().any(|services| services.contains(&"dual".to_owned())), "{claims:?}");
            Ok(())
        })?;
        wait_addresses(&plane, &[("seven", "203.0.113.1")])?;
        wait_told(&plane, "seven", "True", "Assigned")?;
        wait_until("it to be told nothing more", CATCH_UP, || {
            let told = condition(&plane.get("service dual")?, "weft.network/AddressAssigned");
            ensure!(told.is_null(), "{told}");
            Ok(())
        })
    })
}
