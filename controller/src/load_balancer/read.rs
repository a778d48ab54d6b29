//! Services as Kubernetes writes them: only what counts here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{LoadBalancerIngress, Service as Object, ServiceSpec};
use weft_bgp::types::Family;

use super::{
    ADDRESSES_ANNOTATION, CONDITION, POOLS_ANNOTATION, SHARING_ANNOTATION, Service, Sharing, Told, Wish,
};

impl Service {
    /// Reads one.
    #[must_use]
    pub fn read(object: &Object) -> Self {
        let none = ServiceSpec::default();
        let spec = object.spec.as_ref().unwrap_or(&none);
        let annotations = object.metadata.annotations.as_ref();
        let annotation = |key: &str| annotations.and_then(|all| all.get(key)).map(String::as_str);
        let status = object.status.as_ref();
        let ingress = status.and_then(|status| status.load_balancer.as_ref()?.ingress.as_ref());
        let conditions = status.and_then(|status| status.conditions.as_ref());
        let told = conditions.into_iter().flatten().find(|condition| condition.type_ == CONDITION);
        let external_ips = spec.external_ips.iter().flatten();
        Self {
            uid: object.metadata.uid.clone().unwrap_or_default(),
            resource_version: object.metadata.resource_version.clone().unwrap_or_default(),
            class: spec.load_balancer_class.clone(),
            wish: (spec.type_.as_deref() == Some("LoadBalancer"))
                .then(|| wish(spec, annotation(ADDRESSES_ANNOTATION), annotation(POOLS_ANNOTATION))),
            sharing: sharing(spec, annotation(SHARING_ANNOTATION)),
            external_ips: external_ips.filter_map(|ip| ip.parse().ok()).collect(),
            ingress: ingress.into_iter().flatten().map(address).collect(),
            told: told.map(|told| {
                let holds = told.status == "True";
                let said = Told { holds, reason: told.reason.clone(), message: told.message.clone() };
                (said, told.last_transition_time.0.to_string())
            }),
        }
    }

    /// Whether it may count here at all.
    #[must_use]
    pub fn counts(&self) -> bool {
        self.wish.is_some()
            || !self.ingress.is_empty()
            || !self.external_ips.is_empty()
            || self.told.is_some()
    }
}

fn address(ingress: &LoadBalancerIngress) -> Option<IpAddr> {
    ingress.ip.as_ref().filter(|_| ingress.ip_mode.as_deref() != Some("Proxy"))?.parse().ok()
}

fn sharing(spec: &ServiceSpec, key: Option<&str>) -> Sharing {
    let ports = spec.ports.iter().flatten();
    let protocol = |protocol: &Option<String>| protocol.clone().unwrap_or_else(|| "TCP".to_owned());
    Sharing {
        key: key.filter(|key| !key.is_empty()).map(str::to_owned),
        ports: ports.map(|port| (protocol(&port.protocol), port.port)).collect(),
        local: spec.external_traffic_policy.as_deref() == Some("Local"),
        selector: spec.selector.clone().unwrap_or_default(),
    }
}

fn wish(spec: &ServiceSpec, addresses: Option<&str>, pools: Option<&str>) -> Result<Wish, String> {
    let families = spec.ip_families.iter().flatten().filter_map(|family| match family.as_str() {
        "IPv4" => Some(Family::Ipv4Unicast),
        "IPv6" => Some(Family::Ipv6Unicast),
        _ => None,
    });
    let families: Vec<Family> = families.collect();
    let requested = match (addresses, spec.load_balancer_ip.as_deref().filter(|ip| !ip.is_empty())) {
        (Some(list), _) => requested(&families, list, &format!("annotation {ADDRESSES_ANNOTATION}"))?,
        (None, Some(ip)) => requested(&families, ip, "spec.loadBalancerIP")?,
        (None, None) => BTreeMap::new(),
    };
    let pools = pools.map(pools_of).transpose()?;
    let all = spec.ip_family_policy.as_deref() == Some("RequireDualStack");
    Ok(Wish { families, all, requested, pools })
}

fn requested(families: &[Family], list: &str, by: &str) -> Result<BTreeMap<Family, IpAddr>, String> {
    let mut requested = BTreeMap::new();
    for text in list.split(',').map(str::trim) {
        let address: IpAddr = text.parse().map_err(|_| {
            format!(
                "{by}: \"{text}\" is no address; write one of each family, such as 203.0.113.7, 2001:db8::7"
            )
        })?;
        let family = Family::of(&address.into());
        if !families.contains(&family) {
            return Err(format!(
                "{by}: {address} is of a family that spec.ipFamilies of the Service does not have; correct one of the two"
            ));
        }
        if requested.insert(family, address).is_some() {
            return Err(format!("{by}: {address} is the second of its family; keep one"));
        }
    }
    Ok(requested)
}

fn pools_of(list: &str) -> Result<Vec<String>, String> {
    let wrong = |what: &str| {
        format!("annotation {POOLS_ANNOTATION}: {what}; write the names of IPPools, such as [\"edge\"]")
    };
    let names: Vec<String> =
        serde_json::from_str(list).map_err(|_| wrong(&format!("\"{list}\" is no JSON list of names")))?;
    let mut seen = BTreeSet::new();
    match names.iter().find(|name| !seen.insert(*name)) {
        _ if names.is_empty() => Err(wrong("the list is empty")),
        Some(twice) => Err(wrong(&format!("\"{twice}\" is named twice"))),
        None => Ok(names),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;

    fn read(annotations: Json, mut spec: Json) -> Service {
        spec["type"] = json!("LoadBalancer");
        let object =
            json!({"metadata": {"name": "web", "uid": "u", "annotations": annotations}, "spec": spec});
        Service::read(&serde_json::from_value(object).unwrap())
    }

    #[test]
    fn what_a_service_asks_for() {
        let spec = json!({"ipFamilies": ["IPv6", "IPv4"], "ipFamilyPolicy": "RequireDualStack", "loadBalancerIP": "203.0.113.9",
            "ports": [{"port": 53, "protocol": "UDP"}, {"port": 80}], "externalTrafficPolicy": "Local"});
        let annotations = json!({"weft.network/pools": "[\"b\", \"a\"]", "weft.network/sharing-key": "dns"});
        let service = read(annotations, spec.clone());
        let wish = service.wish.unwrap().unwrap();
        assert_eq!(wish.families, [Family::Ipv6Unicast, Family::Ipv4Unicast]);
        assert_eq!(wish.requested, [(Family::Ipv4Unicast, "203.0.113.9".parse().unwrap())].into());
        assert_eq!((wish.all, wish.pools), (true, Some(vec!["b".to_owned(), "a".to_owned()])));
        assert_eq!(service.sharing.ports, [("UDP".to_owned(), 53), ("TCP".to_owned(), 80)].into());
        assert_eq!((service.sharing.key.as_deref(), service.sharing.local), (Some("dns"), true));
        let both = json!({"weft.network/load-balancer-ips": " 203.0.113.7 , 2001:db8::7 "});
        let wish = read(both, spec).wish.unwrap().unwrap();
        assert_eq!(wish.requested.len(), 2, "the annotation counts more: {wish:?}");
        assert_eq!(wish.requested[&Family::Ipv4Unicast], "203.0.113.7".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn requests_that_are_wrong() {
        let spec = json!({"ipFamilies": ["IPv4"]});
        for (key, value, words) in [
            ("weft.network/load-balancer-ips", "203.0.113.7,", "\"\" is no address; write one"),
            ("weft.network/load-balancer-ips", "203.0.113.0/24", "\"203.0.113.0/24\" is no address"),
            ("weft.network/load-balancer-ips", "2001:db8::7", "2001:db8::7 is of a family"),
            ("weft.network/load-balancer-ips", "203.0.113.7, 203.0.113.8", "the second of its family"),
            ("weft.network/pools", "edge", "\"edge\" is no JSON list of names; write the names"),
            ("weft.network/pools", "[]", "the list is empty"),
            ("weft.network/pools", "[\"a\", \"a\"]", "\"a\" is named twice"),
        ] {
            let error = read(json!({ key: value }), spec.clone()).wish.unwrap().unwrap_err();
            assert!(error.contains(words) && error.contains(key), "{value}: {error}");
        }
        let error = read(json!({}), json!({"ipFamilies": ["IPv4"], "loadBalancerIP": "web"})).wish.unwrap();
        assert!(error.unwrap_err().starts_with("spec.loadBalancerIP: "));
    }

    #[test]
    fn what_its_status_says() {
        let object = json!({"metadata": {"name": "web"}, "spec": {"type": "ClusterIP"}, "status": {
            "loadBalancer": {"ingress": [{"ip": "203.0.113.1", "ipMode": "VIP"}, {"ip": "203.0.113.2", "ipMode": "Proxy"}, {"hostname": "lb"}]},
            "conditions": [{"type": CONDITION, "status": "False", "reason": "NoPool", "message": "none",
                "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
        let service = Service::read(&serde_json::from_value(object).unwrap());
        assert_eq!(service.ingress, [Some("203.0.113.1".parse().unwrap()), None, None]);
        let told = Told { holds: false, reason: "NoPool".into(), message: "none".into() };
        assert_eq!(service.told, Some((told, "2026-01-01T00:00:00Z".to_owned())));
        assert!(service.wish.is_none() && service.counts());
    }

    #[test]
    fn a_service_of_any_type_counts_for_its_external_ips() {
        let read = |external_ips: &[&str]| {
            let object = json!({"metadata": {"name": "web"}, "spec": {"type": "ClusterIP", "externalIPs": external_ips}});
            Service::read(&serde_json::from_value(object).unwrap())
        };
        let service = read(&["203.0.113.1", "2001:db8::1"]);
        assert!(service.counts() && service.ingress.is_empty());
        assert_eq!(service.external_ips, ["203.0.113.1", "2001:db8::1"].map(|ip| ip.parse().unwrap()).into());
        assert!(!read(&[]).counts());
    }
}
