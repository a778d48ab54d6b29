//! Services as the node announces them, and whether anything on the node answers there.

use std::collections::BTreeMap;
use std::fs;

use ipnet::IpNet;
use serde_json::Value;
use weft_bgp::types::Family;
use weft_routing::nft;

use super::agent::Knowledge;
use super::preflight::{Ran, run};
use crate::api::json::Problem;
use crate::api::{RejectedJson, ServicePrefixJson, ServicesStatusJson};
use crate::plan::ServiceVerdict;

/// The links to which service proxies that use IPVS give the addresses of Services: kube-proxy's, and kube-router's.
const IPVS_LINKS: [&str; 2] = ["kube-ipvs0", "kube-dummy-if"];

/// The families of which a service proxy's rules are there; of one that is not named that cannot be told.
pub(super) type ServiceProxies = BTreeMap<Family, bool>;

/// Looks for the rules of a kube-proxy, in nftables and in either back end of iptables. Runs programs, so not on a task that must not
/// block.
pub(super) fn look_for_proxies() -> ServiceProxies {
    let chains = match run("nft", &["-j", "list", "chains"]) {
        Ran::Output(json) => Some(json),
        Ran::NotInstalled | Ran::Failed(_) => None,
    };
    let families = [
        (Family::Ipv4Unicast, "ip", "/proc/self/net/ip_tables_names", "iptables-legacy"),
        (Family::Ipv6Unicast, "ip6", "/proc/self/net/ip6_tables_names", "ip6tables-legacy"),
    ];
    let mut proxies = ServiceProxies::new();
    for (family, name, tables, program) in families {
        let in_nft = chains.as_deref().map(|json| is_in_nft(json, name));
        let found = match (in_nft, is_in_legacy(tables, program)) {
            (Some(true), _) | (_, Some(true)) => true,
            (Some(false), Some(false)) => false,
            _ => continue,
        };
        proxies.insert(family, found);
    }
    proxies
}

/// Whether there is the table of kube-proxy's nftables mode, or the chain of its iptables mode as nftables shows it.
fn is_in_nft(json: &[u8], family: &str) -> bool {
    let Ok(listed) = serde_json::from_slice::<Value>(json) else { return false };
    let objects = listed.get("nftables").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    objects.iter().filter_map(|object| object.get("chain")).any(|chain| {
        let text = |key: &str| chain.get(key).and_then(Value::as_str).unwrap_or_default();
        text("family") == family
            && (text("table") == "kube-proxy" && text("type") == "nat"
                || text("table") == "nat" && text("name") == "KUBE-SERVICES")
    })
}

/// The same of the legacy back end. Its tables are asked for only where they are loaded: asking would load them.
fn is_in_legacy(tables: &str, program: &str) -> Option<bool> {
    let loaded = fs::read_to_string(tables).unwrap_or_default();
    if !loaded.lines().any(|table| table == "nat") {
        return Some(false);
    }
    match run(program, &["-t", "nat", "-S", "KUBE-SERVICES"]) {
        Ran::Output(_) => Some(true),
        Ran::Failed(_) => Some(false),
        Ran::NotInstalled => None,
    }
}

impl Knowledge {
    /// Whether the node has to do with Services at all.
    pub(super) fn has_service_ranges(&self) -> bool {
        self.plan.as_ref().is_some_and(|plan| !plan.packet_filter.services.is_empty())
    }

    /// Every prefix of Services', and what becomes of it.
    pub(super) fn services(&self) -> Vec<ServicePrefixJson> {
        let prefixes = self.plan.iter().flat_map(|plan| &plan.services);
        prefixes
            .map(|(net, prefix)| ServicePrefixJson {
                prefix: *net,
                services: prefix.services.iter().cloned().collect(),
                policy: prefix.policy,
                announced: prefix.verdict.is_announced(),
                reason: prefix.verdict.reason(),
            })
            .collect()
    }

    /// The same, counted.
    pub(super) fn services_status(&self) -> Option<ServicesStatusJson> {
        let plan = self.plan.as_ref().filter(|_| self.has_service_ranges())?;
        let count = |wanted: fn(ServiceVerdict) -> bool| {
            plan.services.values().filter(|prefix| wanted(prefix.verdict)).count()
        };
        let announced = count(ServiceVerdict::is_announced);
        let settling = count(|verdict| verdict == ServiceVerdict::Settling);
        let rejected = self.packet_filter.rejected;
        Some(ServicesStatusJson {
            announced,
            settling,
            withheld: plan.services.len().saturating_sub(announced).saturating_sub(settling),
            rejected: rejected.map(|nft::Packets { ipv4, ipv6 }| RejectedJson { ipv4, ipv6 }),
        })
    }

    /// The families of which peers are told of Services that nothing on the node answers.
    pub(super) fn unanswered_services(&self) -> Option<Problem> {
        if IPVS_LINKS.iter().any(|link| self.links.contains_key(*link)) {
            return None;
        }
        let plan = self.plan.as_ref()?;
        let announced = |family| {
            let of_family = |net: &IpNet| Family::of(net) == family;
            plan.services.iter().any(|(net, prefix)| of_family(net) && prefix.verdict.is_announced())
        };
        let families = [(Family::Ipv4Unicast, "IPv4"), (Family::Ipv6Unicast, "IPv6")];
        let unanswered = families
            .into_iter()
            .filter(|(family, _)| announced(*family) && self.service_proxies.get(family) == Some(&false));
        let unanswered: Vec<&str> = unanswered.map(|(_, name)| name).collect();
        (!unanswered.is_empty()).then(|| {
            Problem::error(
                "no-service-proxy",
                format!(
                    "peers are told of Services, and nothing on this node answers at their {} addresses: there is no nftables table \
                     kube-proxy, no iptables chain KUBE-SERVICES and no link kube-ipvs0",
                    unanswered.join(" and ")
                ),
                format!(
                    "start kube-proxy on this node; or announce nothing from it: write serviceClusterIPs, serviceExternalIPs and \
                     serviceLoadBalancerIPs as [] in BGPConfiguration node.{}",
                    plan.node
                ),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chains(chains: &[&str]) -> Vec<u8> {
        let chains: Vec<String> = chains.iter().map(|chain| format!(r#"{{"chain": {{{chain}}}}}"#)).collect();
        format!(r#"{{"nftables": [{{"metainfo": {{"version": "1.0.6"}}}}, {}]}}"#, chains.join(","))
            .into_bytes()
    }

    #[test]
    fn both_modes_of_kube_proxy_are_known_by_their_chains() {
        let nftables = r#""family": "ip", "table": "kube-proxy", "name": "nat-prerouting", "type": "nat", "hook": "prerouting""#;
        let cleaned = r#""family": "ip", "table": "kube-proxy", "name": "services""#;
        let iptables = r#""family": "ip6", "table": "nat", "name": "KUBE-SERVICES", "handle": 7"#;
        let other = r#""family": "ip", "table": "nat", "name": "DOCKER", "handle": 7"#;
        assert!(is_in_nft(&chains(&[other, nftables]), "ip"));
        assert!(!is_in_nft(&chains(&[other, nftables]), "ip6"));
        assert!(is_in_nft(&chains(&[iptables]), "ip6") && !is_in_nft(&chains(&[iptables]), "ip"));
        assert!(!is_in_nft(&chains(&[other, cleaned]), "ip"));
        assert!(!is_in_nft(b"nonsense", "ip"));
    }

    #[test]
    fn without_the_legacy_nat_table_nothing_is_asked() {
        assert_eq!(is_in_legacy("/nonexistent", "/nonexistent"), Some(false));
        let names = tempfile::NamedTempFile::new().unwrap();
        fs::write(names.path(), "filter\nnat\n").unwrap();
        assert_eq!(is_in_legacy(&names.path().to_string_lossy(), "/nonexistent/iptables"), None);
    }
}
