//! What ADD reads of the network configuration and no other command does: a DEL must not fail for a wrong value here.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use serde_json::{Map, Value};
use weft_routing::netlink::Mac;

use super::asked::{self, Asked};
use super::section::Section;
use super::{Arguments, ChainedResult, Error, NetworkConfig, PodName};

/// How long a route is waited for unless `waitForRouteSeconds` says otherwise.
const DEFAULT_WAIT_SECONDS: u64 = 10;
/// The longest `waitForRouteSeconds`; runtimes give up after 2 to 4 minutes.
const WAIT_SECONDS_MAX: u64 = 600;
/// The key in which containerd and CRI-O pass a pod's annotations, for the capability of the same name.
const ANNOTATIONS: &str = "io.kubernetes.cri.pod-annotations";

/// What one attachment is to get.
#[derive(Debug, Clone, PartialEq)]
pub struct AddRequest {
    /// The Kubernetes pod, where known.
    pub pod: Option<PodName>,
    /// MTU of the pod's link in bytes, instead of the node's.
    pub mtu: Option<u32>,
    /// The pools to take addresses of, in this order; at least one.
    pub pools: Option<Asked<Vec<String>>>,
    /// The very addresses, IPv4 first, one of each family at most; at least one.
    pub addresses: Option<Asked<Vec<IpAddr>>>,
    /// MAC address of the pod's end.
    pub mac: Option<Mac>,
    /// How long to wait until other nodes have a route to the pod; `None`: not at all.
    pub wait_for_route: Option<Duration>,
    /// What the result says of name servers.
    pub dns: Option<Map<String, Value>>,
    /// What earlier plugins of the chain answered.
    pub chained: ChainedResult,
}

impl AddRequest {
    /// Reads and checks what `config` and `arguments` ask for.
    pub fn parse(config: &NetworkConfig, arguments: &Arguments) -> Result<Self, Error> {
        let top = config.section();
        refuse_unsupported(&top)?;
        let runtime = top.section("runtimeConfig")?;
        let args = top.section("args")?.section("cni")?;
        let annotations = runtime.get::<BTreeMap<String, String>>(ANNOTATIONS)?.unwrap_or_default();
        let annotation = |name: &str| annotations.get(name).map(String::as_str);
        let chained = match &config.prev_result {
            None => ChainedResult::default(),
            Some(document) => ChainedResult::parse(document, config.version)
                .map_err(|reason| top.invalid("prevResult", reason))?,
        };
        Ok(Self {
            pod: arguments.pod.clone(),
            mtu: config.mtu()?,
            pools: pools(&top, annotation("weft.network/pools"))?,
            addresses: asked::agree(
                [
                    address_list(&runtime, "ips", "runtimeConfig.ips")?,
                    address_list(&args, "ips", "args.cni.ips")?,
                    some_addresses("CNI_ARGS IP", arguments.addresses.clone()),
                    annotated_addresses(annotation("weft.network/ips"))?,
                ],
                |addresses| asked::list(addresses),
            )?,
            mac: asked::agree(
                [
                    mac(&runtime, "runtimeConfig.mac")?,
                    mac(&args, "args.cni.mac")?,
                    arguments.mac.map(|value| Asked { by: "CNI_ARGS MAC", value }),
                ],
                |mac| crate::mac::to_text(*mac),
            )?
            .map(|mac| mac.value),
            wait_for_route: wait_for_route(&top)?,
            dns: top.get("dns")?,
            chained,
        })
    }
}

/// A request that is understood and not honoured must not be passed over: the pod would run with another address.
fn refuse_unsupported(top: &Section<'_>) -> Result<(), Error> {
    if let Some(ipam) = top.value("ipam").filter(|ipam| ipam.as_object().is_none_or(|keys| !keys.is_empty()))
    {
        return Err(top.unsupported("ipam", ipam, "weft-cni gives addresses itself; remove \"ipam\""));
    }
    if let Some(masquerade) = top.value("ipMasq").filter(|value| **value != Value::Bool(false)) {
        let instead = "remove \"ipMasq\"; natOutgoing of the IPPool does it";
        return Err(top.unsupported("ipMasq", masquerade, instead));
    }
    let runtime = top.section("runtimeConfig")?;
    if let Some(ranges) = runtime.value("ipRanges") {
        let instead = "remove \"ipRanges\" from \"capabilities\"; addresses come from the node's blocks";
        return Err(runtime.unsupported("ipRanges", ranges, instead));
    }
    Ok(())
}

/// A pod's own annotation counts more than the network's configuration.
fn pools(top: &Section<'_>, annotation: Option<&str>) -> Result<Option<Asked<Vec<String>>>, Error> {
    let asked = match annotation {
        Some(text) => {
            const BY: &str = "pod annotation weft.network/pools";
            Some(Asked { by: BY, value: annotated_list(BY, text, r#"["pods"]"#)? })
        }
        None => top.get("pools")?.map(|value| Asked { by: "pools", value }),
    };
    let Some(asked) = asked else { return Ok(None) };
    if asked.value.is_empty() {
        return Err(asked.invalid("the list is empty; leave it out or name a pool"));
    }
    let twice = asked
        .value
        .iter()
        .enumerate()
        .find(|(index, pool)| asked.value.iter().take(*index).any(|p| p == *pool));
    match twice {
        Some((_, pool)) => Err(asked.invalid(format_args!("{pool:?} is named twice"))),
        None => Ok(Some(asked)),
    }
}

fn address_list(
    section: &Section<'_>,
    key: &str,
    by: &'static str,
) -> Result<Option<Asked<Vec<IpAddr>>>, Error> {
    let texts: Vec<String> = section.get(key)?.unwrap_or_default();
    let addresses = asked::addresses(texts.iter().map(String::as_str));
    addresses.map(|value| some_addresses(by, value)).map_err(|reason| section.invalid(key, reason))
}

fn annotated_addresses(text: Option<&str>) -> Result<Option<Asked<Vec<IpAddr>>>, Error> {
    const BY: &str = "pod annotation weft.network/ips";
    let Some(text) = text else { return Ok(None) };
    let texts = annotated_list(BY, text, r#"["10.0.0.5"]"#)?;
    let addresses = asked::addresses(texts.iter().map(String::as_str));
    addresses
        .map(|value| some_addresses(BY, value))
        .map_err(|reason| Asked { by: BY, value: () }.invalid(reason))
}

/// An empty list asks for nothing.
fn some_addresses(by: &'static str, value: Vec<IpAddr>) -> Option<Asked<Vec<IpAddr>>> {
    (!value.is_empty()).then_some(Asked { by, value })
}

fn annotated_list(by: &'static str, text: &str, example: &str) -> Result<Vec<String>, Error> {
    serde_json::from_str(text).map_err(|_| {
        Asked { by, value: () }.invalid(format_args!("{text:?} is no JSON list of texts such as {example}"))
    })
}

fn mac(section: &Section<'_>, by: &'static str) -> Result<Option<Asked<Mac>>, Error> {
    let text = section.get::<String>("mac")?.filter(|text| !text.is_empty());
    let mac = text.map(|text| asked::mac(&text)).transpose();
    let mac = mac.map_err(|reason| section.invalid("mac", reason))?;
    Ok(mac.map(|value| Asked { by, value }))
}

fn wait_for_route(top: &Section<'_>) -> Result<Option<Duration>, Error> {
    const SECONDS: &str = "waitForRouteSeconds";
    let seconds = top.get(SECONDS)?.unwrap_or(DEFAULT_WAIT_SECONDS);
    if !(1..=WAIT_SECONDS_MAX).contains(&seconds) {
        return Err(top.invalid(SECONDS, format_args!("{seconds} is not between 1 and {WAIT_SECONDS_MAX}")));
    }
    let wait = top.get("waitForRoute")?.unwrap_or(false);
    Ok(wait.then_some(Duration::from_secs(seconds)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Code;
    use super::*;

    fn parse(keys: &Value, cni_args: &str) -> Result<AddRequest, Error> {
        let mut config = json!({"cniVersion": "1.1.0", "name": "n"});
        config.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
        let config = NetworkConfig::parse(config.to_string().as_bytes()).unwrap();
        AddRequest::parse(&config, &Arguments::parse(cni_args).unwrap())
    }

    fn annotated(name: &str, text: &str) -> Value {
        json!({"runtimeConfig": {ANNOTATIONS: {name: text, "other": "x"}}})
    }

    #[test]
    fn nothing_asked_for_is_nothing() {
        let request = parse(
            &json!({
                "type": "weft-cni", "x": {"y": 1}, "mtu": null, "ipam": {}, "ipMasq": false,
                "capabilities": {"portMappings": true, "ips": true},
                "runtimeConfig": {"ips": [], "mac": "", "portMappings": [{"hostPort": 80}], "bandwidth": {}},
                "args": {"labels": 1, "cni": {"labels": []}},
            }),
            "",
        )
        .unwrap();
        let nothing = AddRequest {
            pod: None,
            mtu: None,
            pools: None,
            addresses: None,
            mac: None,
            wait_for_route: None,
            dns: None,
            chained: ChainedResult::default(),
        };
        assert_eq!(request, nothing);
    }

    #[test]
    fn every_way_to_ask_for_addresses_and_a_mac() {
        let list = json!(["fd00::5/64", "10.0.0.5"]);
        let expected: [IpAddr; 2] = ["10.0.0.5".parse().unwrap(), "fd00::5".parse().unwrap()];
        for (keys, cni_args, by) in [
            (json!({"runtimeConfig": {"ips": list}}), "", "runtimeConfig.ips"),
            (json!({"args": {"cni": {"ips": list}}}), "", "args.cni.ips"),
            (json!({}), "IP=fd00::5,10.0.0.5", "CNI_ARGS IP"),
            (annotated("weft.network/ips", &list.to_string()), "", "pod annotation weft.network/ips"),
            (
                json!({"runtimeConfig": {"ips": list}, "args": {"cni": {"ips": list}}}),
                "IP=10.0.0.5,fd00::5",
                "runtimeConfig.ips",
            ),
        ] {
            let asked = parse(&keys, cni_args).unwrap().addresses.unwrap();
            assert_eq!((asked.by, asked.value.as_slice()), (by, expected.as_slice()));
        }
        let mac = "0a:58:0a:00:00:05";
        for (keys, cni_args) in [
            (json!({"runtimeConfig": {"mac": mac}}), ""),
            (json!({"args": {"cni": {"mac": mac}}}), ""),
            (json!({}), "MAC=0a:58:0a:00:00:05"),
        ] {
            assert_eq!(parse(&keys, cni_args).unwrap().mac, Some([0x0a, 0x58, 0x0a, 0, 0, 5]));
        }
    }

    #[test]
    fn a_pods_annotation_counts_more_than_the_networks_pools() {
        let mut keys = annotated("weft.network/pools", r#"["a", "b"]"#);
        keys["pools"] = json!(["c"]);
        assert_eq!(parse(&keys, "").unwrap().pools.unwrap().value, ["a", "b"]);
        assert_eq!(parse(&json!({"pools": ["c"]}), "").unwrap().pools.unwrap().value, ["c"]);
    }

    #[test]
    fn a_route_is_waited_for_only_if_asked_for() {
        let wait = |keys| parse(&keys, "").unwrap().wait_for_route;
        assert_eq!(wait(json!({"waitForRouteSeconds": 3})), None);
        assert_eq!(wait(json!({"waitForRoute": false})), None);
        assert_eq!(wait(json!({"waitForRoute": true})), Some(Duration::from_secs(10)));
        assert_eq!(
            wait(json!({"waitForRoute": true, "waitForRouteSeconds": 3})),
            Some(Duration::from_secs(3))
        );
    }

    #[test]
    fn every_wrong_value_is_named() {
        let unsupported = [
            (json!({"ipam": {"type": "host-local"}}), r#"ipam: {"type":"host-local"} is not supported"#),
            (json!({"ipMasq": true}), "ipMasq: true is not supported"),
            (json!({"runtimeConfig": {"ipRanges": []}}), "runtimeConfig.ipRanges: [] is not supported"),
        ];
        for (keys, expected) in unsupported {
            let error = parse(&keys, "").unwrap_err();
            assert_eq!((error.code, error.msg.as_str()), (Code::UnsupportedField, expected));
            assert!(!error.details.is_empty());
        }
        let invalid = [
            (json!({"mtu": -1}), "mtu: "),
            (json!({"pools": "a"}), "pools: "),
            (json!({"pools": []}), "pools: the list is empty"),
            (json!({"pools": ["a", "b", "a"]}), "pools: \"a\" is named twice"),
            (
                annotated("weft.network/pools", "a"),
                "pod annotation weft.network/pools: \"a\" is no JSON list",
            ),
            (
                annotated("weft.network/ips", "10.0.0.5"),
                "pod annotation weft.network/ips: \"10.0.0.5\" is no JSON list",
            ),
            (annotated("weft.network/ips", "[\"x\"]"), "pod annotation weft.network/ips: \"x\" is no IP"),
            (json!({"runtimeConfig": []}), "runtimeConfig: [] is no object"),
            (json!({"runtimeConfig": {"ips": "10.0.0.5"}}), "runtimeConfig.ips: "),
            (json!({"runtimeConfig": {"ips": ["10.0.0.256"]}}), "runtimeConfig.ips: \"10.0.0.256\" is no IP"),
            (json!({"args": {"cni": {"ips": [5]}}}), "args.cni.ips: "),
            (json!({"runtimeConfig": {"mac": "x"}}), "runtimeConfig.mac: \"x\" is no MAC"),
            (
                json!({"runtimeConfig": {"ips": ["10.0.0.5"]}, "args": {"cni": {"ips": ["10.0.0.6"]}}}),
                "runtimeConfig.ips: 10.0.0.5 contradicts args.cni.ips: 10.0.0.6",
            ),
            (json!({"waitForRoute": "yes"}), "waitForRoute: "),
            (json!({"waitForRouteSeconds": 0}), "waitForRouteSeconds: 0 is not between 1 and 600"),
            (json!({"waitForRouteSeconds": 601}), "waitForRouteSeconds: 601"),
            (json!({"dns": "x"}), "dns: "),
            (json!({"prevResult": 5}), "prevResult: "),
        ];
        for (keys, expected) in invalid {
            let error = parse(&keys, "").unwrap_err();
            assert_eq!(error.code, Code::InvalidConfig, "{keys}: {error:?}");
            assert!(error.msg.starts_with(expected), "{keys}: {error:?}");
        }
    }
}
