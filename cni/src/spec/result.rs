//! What ADD and VERSION answer, and what CHECK gets back.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Version, to_json};

/// The answer to ADD (specification, section "ADD Success").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddResult {
    /// The interfaces the plugin made.
    pub interfaces: Vec<Interface>,
    /// The pod's addresses.
    pub ips: Vec<IpConfig>,
    /// The pod's routes.
    pub routes: Vec<Route>,
    /// The configuration's name servers; `None` leaves those of earlier plugins.
    pub dns: Option<Map<String, Value>>,
}

/// One interface the plugin made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its MAC address.
    #[serde(default)]
    pub mac: String,
    /// Its MTU in bytes, from version 1.1.0 on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Path of its network namespace; empty on the host.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sandbox: String,
}

/// One address of the pod.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct IpConfig {
    /// The address, with its prefix length.
    pub address: IpNet,
    /// The gateway in its subnet.
    pub gateway: Option<IpAddr>,
    /// Its interface, as an index into the interfaces.
    pub interface: Option<usize>,
}

/// One route of the pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Route {
    /// The destination.
    pub dst: IpNet,
    /// The gateway.
    pub gw: IpAddr,
}

impl AddResult {
    /// The JSON for a runtime that speaks `version`: up to 0.4.0 every address also has its IP version, and before
    /// 1.1.0 no interface has an MTU. It goes behind what earlier plugins of the chain answered.
    pub fn to_json(&self, version: Version, chained: ChainedResult) -> Vec<u8> {
        #[derive(Serialize)]
        struct Ip {
            #[serde(skip_serializing_if = "Option::is_none")]
            version: Option<&'static str>,
            address: IpNet,
            #[serde(skip_serializing_if = "Option::is_none")]
            gateway: Option<IpAddr>,
            #[serde(skip_serializing_if = "Option::is_none")]
            interface: Option<usize>,
        }
        let mut document = chained.0;
        let earlier = document.get("interfaces").and_then(Value::as_array).map_or(0, Vec::len);
        let interfaces = self.interfaces.iter().map(|interface| Interface {
            mtu: interface.mtu.filter(|_| version >= Version::V1_1_0),
            ..interface.clone()
        });
        let ips = self.ips.iter().map(|ip| Ip {
            version: (version < Version::V1_0_0).then_some(match ip.address {
                IpNet::V4(_) => "4",
                IpNet::V6(_) => "6",
            }),
            address: ip.address,
            gateway: ip.gateway,
            interface: ip.interface.map(|index| index.saturating_add(earlier)),
        });
        append(&mut document, "interfaces", interfaces);
        append(&mut document, "ips", ips);
        append(&mut document, "routes", &self.routes);
        document.insert("cniVersion".to_owned(), version.as_str().into());
        match &self.dns {
            Some(dns) => drop(document.insert("dns".to_owned(), dns.clone().into())),
            None => drop(document.entry("dns").or_insert_with(|| Map::new().into())),
        }
        to_json(&document)
    }
}

/// What earlier plugins of the chain answered, whole: the specification wants it passed on, with what this plugin adds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ChainedResult(Map<String, Value>);

impl ChainedResult {
    /// Takes a `prevResult` of ADD, which must be in the configuration's version. The error says what is wrong with it.
    pub fn parse(document: &Value, version: Version) -> Result<Self, String> {
        let keys = document.as_object().ok_or_else(|| format!("{document} is no object"))?;
        let mut keys = keys.clone();
        keys.retain(|_, value| !value.is_null());
        if let Some(found) = keys.get("cniVersion").filter(|found| **found != version.as_str()) {
            return Err(format!("its cniVersion is {found}, and that of the configuration {version}"));
        }
        let lists = ["interfaces", "ips", "routes"];
        match lists.into_iter().find(|key| keys.get(*key).is_some_and(|value| !value.is_array())) {
            Some(key) => Err(format!("its {key:?} is no list")),
            None => Ok(Self(keys)),
        }
    }
}

/// Puts `items` behind the list at `key`. They are structures of text and numbers, which always serialize.
fn append<T: Serialize>(document: &mut Map<String, Value>, key: &str, items: impl IntoIterator<Item = T>) {
    let list = document.entry(key).or_insert_with(|| Value::Array(Vec::new()));
    if let Value::Array(list) = list {
        list.extend(items.into_iter().filter_map(|item| serde_json::to_value(item).ok()));
    }
}

/// The part of `prevResult` that CHECK compares. Later plugins of the chain may have added to it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PreviousResult {
    /// All interfaces of the chain.
    #[serde(default)]
    pub interfaces: Vec<Interface>,
    /// All addresses of the chain.
    #[serde(default)]
    pub ips: Vec<IpConfig>,
    /// All routes of the chain.
    #[serde(default)]
    pub routes: Vec<PreviousRoute>,
}

/// One route of `prevResult`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PreviousRoute {
    /// The destination.
    pub dst: IpNet,
    /// The gateway, where it has one.
    pub gw: Option<IpAddr>,
}

impl PreviousResult {
    /// The addresses that the result gives to the container's interface `ifname`, sorted.
    pub fn addresses_of(&self, ifname: &str) -> Vec<IpAddr> {
        let mut addresses: Vec<IpAddr> =
            self.ips.iter().filter(|ip| self.is_on(ip, ifname)).map(|ip| ip.address.addr()).collect();
        addresses.sort_unstable();
        addresses
    }

    fn is_on(&self, ip: &IpConfig, ifname: &str) -> bool {
        let interface = ip.interface.and_then(|index| self.interfaces.get(index));
        interface.is_some_and(|interface| interface.name == ifname && !interface.sandbox.is_empty())
    }

    /// The MTU that the result gives to an interface, from version 1.1.0 on.
    pub fn mtu_of(&self, name: &str, sandbox: &str) -> Option<u32> {
        let interface =
            self.interfaces.iter().find(|interface| interface.name == name && interface.sandbox == sandbox);
        interface?.mtu
    }

    /// What of this plugin's own answer to ADD is missing or changed, one sentence each.
    pub fn lacks(&self, own: &AddResult) -> Vec<String> {
        let mut lacking = Vec::new();
        for wanted in &own.interfaces {
            let same = |found: &&Interface| found.name == wanted.name && found.sandbox == wanted.sandbox;
            match self.interfaces.iter().find(same) {
                Some(found) if found.mac.eq_ignore_ascii_case(&wanted.mac) => {}
                Some(found) => lacking.push(format!(
                    "prevResult gives interface {} the MAC address {:?} and not {}",
                    wanted.name, found.mac, wanted.mac
                )),
                None => lacking.push(format!("prevResult has no interface {}", wanted.name)),
            }
        }
        for wanted in &own.ips {
            let ifname = wanted.interface.and_then(|index| own.interfaces.get(index));
            let same = |found: &&IpConfig| {
                (found.address, found.gateway) == (wanted.address, wanted.gateway)
                    && ifname.is_some_and(|interface| self.is_on(found, &interface.name))
            };
            if !self.ips.iter().any(|found| same(&found)) {
                let gateway =
                    wanted.gateway.map(|gateway| format!(" with gateway {gateway}")).unwrap_or_default();
                lacking.push(format!("prevResult has no address {}{gateway}", wanted.address));
            }
        }
        for wanted in &own.routes {
            let same = |found: &&PreviousRoute| (found.dst, found.gw) == (wanted.dst, Some(wanted.gw));
            if !self.routes.iter().any(|found| same(&found)) {
                lacking.push(format!("prevResult has no route {} via {}", wanted.dst, wanted.gw));
            }
        }
        lacking
    }
}

/// The answer to VERSION.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VersionResult {
    cni_version: &'static str,
    supported_versions: [&'static str; Version::SUPPORTED.len()],
}

impl VersionResult {
    /// The answer in the terms of `version`.
    pub fn new(version: Version) -> Self {
        Self { cni_version: version.as_str(), supported_versions: Version::SUPPORTED.map(Version::as_str) }
    }

    /// The JSON the runtime reads.
    pub fn to_json(&self) -> Vec<u8> {
        to_json(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn example() -> AddResult {
        let interface = |name: &str, sandbox: &str| Interface {
            name: name.into(),
            mac: "02:00:00:00:00:01".into(),
            mtu: Some(1450),
            sandbox: sandbox.into(),
        };
        AddResult {
            interfaces: vec![interface("weft1", ""), interface("eth0", "/run/netns/p")],
            ips: vec![IpConfig {
                address: "fd00::5/128".parse().unwrap(),
                gateway: Some("fe80::1".parse().unwrap()),
                interface: Some(1),
            }],
            routes: vec![Route { dst: "::/0".parse().unwrap(), gw: "fe80::1".parse().unwrap() }],
            dns: None,
        }
    }

    fn written(version: Version) -> Value {
        serde_json::from_slice(&example().to_json(version, ChainedResult::default())).unwrap()
    }

    #[test]
    fn a_result_has_the_shape_of_its_version() {
        assert_eq!(
            written(Version::V1_0_0),
            json!({
                "cniVersion": "1.0.0",
                "interfaces": [
                    {"name": "weft1", "mac": "02:00:00:00:00:01"},
                    {"name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": "/run/netns/p"}
                ],
                "ips": [{"address": "fd00::5/128", "gateway": "fe80::1", "interface": 1}],
                "routes": [{"dst": "::/0", "gw": "fe80::1"}],
                "dns": {}
            })
        );
        let newest = written(Version::V1_1_0);
        assert_eq!(newest["interfaces"][1]["mtu"], 1450);
        assert_eq!(newest["ips"], written(Version::V1_0_0)["ips"]);
        for (version, text) in [(Version::V0_3_1, "0.3.1"), (Version::V0_4_0, "0.4.0")] {
            let result = written(version);
            assert_eq!(result["cniVersion"], text);
            assert_eq!(result["ips"][0]["version"], "6");
            assert_eq!(result["interfaces"][1].get("mtu"), None);
        }
    }

    #[test]
    fn what_earlier_plugins_answered_stays_and_comes_first() {
        let earlier = json!({
            "cniVersion": "1.0.0",
            "interfaces": [{"name": "lo", "sandbox": "/run/netns/p", "socketPath": "/x"}],
            "ips": [{"address": "127.0.0.1/8", "interface": 0, "unknown": [1]}],
            "routes": null,
            "dns": {"nameservers": ["192.0.2.53"]},
            "unknown": {"kept": 1.5}
        });
        let chained = ChainedResult::parse(&earlier, Version::V1_0_0).unwrap();
        let mut result = example();
        let merge = |result: &AddResult| -> Value {
            serde_json::from_slice(&result.to_json(Version::V1_0_0, chained.clone())).unwrap()
        };
        let merged = merge(&result);
        let own = written(Version::V1_0_0);
        assert_eq!(merged["interfaces"][0], earlier["interfaces"][0]);
        assert_eq!(merged["interfaces"][2], own["interfaces"][1]);
        assert_eq!(merged["ips"][0], earlier["ips"][0]);
        assert_eq!(merged["ips"][1]["interface"], 2, "the index moves with the interface");
        assert_eq!(merged["routes"], own["routes"]);
        assert_eq!((&merged["dns"], &merged["unknown"]), (&earlier["dns"], &earlier["unknown"]));
        result.dns = json!({"search": ["cluster.local"]}).as_object().cloned();
        assert_eq!(merge(&result)["dns"], json!({"search": ["cluster.local"]}));
    }

    #[test]
    fn a_result_of_another_version_or_shape_is_refused() {
        for (document, expected) in [
            (json!([]), "[] is no object"),
            (
                json!({"cniVersion": "0.4.0"}),
                "its cniVersion is \"0.4.0\", and that of the configuration 1.1.0",
            ),
            (json!({"ips": {}}), "its \"ips\" is no list"),
        ] {
            assert_eq!(ChainedResult::parse(&document, Version::V1_1_0).unwrap_err(), expected);
        }
        ChainedResult::parse(&json!({"ips": []}), Version::V1_1_0).unwrap();
    }

    #[test]
    fn a_previous_result_tells_the_interfaces_addresses_from_others() {
        let mut document = written(Version::V0_4_0);
        let ips = document["ips"].as_array_mut().unwrap();
        ips.push(json!({"version": "4", "address": "10.0.0.1/32", "interface": 1}));
        ips.push(json!({"version": "4", "address": "10.9.9.9/24", "interface": 0}));
        ips.push(json!({"version": "4", "address": "10.9.9.8/24", "interface": 7}));
        ips.push(json!({"version": "4", "address": "10.9.9.7/24"}));
        let previous: PreviousResult = serde_json::from_value(document).unwrap();
        let expected: [IpAddr; 2] = ["10.0.0.1".parse().unwrap(), "fd00::5".parse().unwrap()];
        assert_eq!(previous.addresses_of("eth0"), expected);
        assert_eq!(previous.addresses_of("weft1"), [] as [IpAddr; 0]);
    }
}
