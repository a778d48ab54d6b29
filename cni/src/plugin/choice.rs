//! Which blocks, and which addresses, an attachment may have: the node's blocks, narrowed down by pools and by
//! addresses that were asked for.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use crate::ipam::{Block, FamilyRequest};
use crate::node::{BlockFile, Family, NodeFile, PoolFile};
use crate::spec::{AddRequest, Asked, Code, Error};

/// What the store is asked for, IPv4 first. A family without a block for this pod is left out; one family at least
/// remains.
pub(super) fn choose(node: &NodeFile, request: &AddRequest) -> Result<Vec<FamilyRequest>, Error> {
    let families = node.families();
    if families.is_empty() {
        return Err(Error::new(Code::TryAgainLater, "this node has no block of addresses for pods yet"));
    }
    if let Some(asked) = &request.addresses {
        check_addresses(node, &families, asked)?;
    }
    let pools = Pools::choose(node, request)?;
    let asked = |family: &Family| {
        let mut addresses = request.addresses.iter().flat_map(|asked| &asked.value).copied();
        addresses.find(|address| family.blocks.iter().any(|block| block.cidr.contains(address)))
    };
    let chosen: Vec<FamilyRequest> = families
        .iter()
        .map(|family| match asked(family) {
            Some(address) => {
                let blocks = open(&family.blocks).filter(|block| block.cidr.contains(&address));
                FamilyRequest { blocks: blocks.map(block).collect(), address: Some(address) }
            }
            None => FamilyRequest { blocks: pools.blocks(&family.blocks), address: None },
        })
        .filter(|family| !family.blocks.is_empty())
        .collect();
    if chosen.is_empty() {
        let details = "wait until weftd has taken a block, and see `weftctl ipam show`";
        return Err(Error::new(Code::TryAgainLater, pools.nothing_open()).details(details));
    }
    Ok(chosen)
}

fn open(blocks: &[BlockFile<IpNet>]) -> impl Iterator<Item = &BlockFile<IpNet>> {
    blocks.iter().filter(|block| block.open)
}

fn block(file: &BlockFile<IpNet>) -> Block {
    Block { cidr: file.cidr, cooldown: Duration::from_secs(file.cooldown_seconds.into()) }
}

/// Every address that was asked for lies in an open block and is not the node's. The pool does not matter: who knows an
/// address knows its pool.
fn check_addresses(node: &NodeFile, families: &[Family], asked: &Asked<Vec<IpAddr>>) -> Result<(), Error> {
    for address in &asked.value {
        let name = family_name(*address);
        let family = families.iter().find(|family| {
            family.blocks.iter().any(|block| block.cidr.network().is_ipv4() == address.is_ipv4())
        });
        let Some(family) = family else {
            return Err(asked.invalid(format_args!("{address}: this node has no {name} block")));
        };
        if node.own_addresses().contains(address) {
            return Err(asked.invalid(format_args!("{address} is the node's own address")));
        }
        match family.blocks.iter().find(|block| block.cidr.contains(address)) {
            Some(block) if block.open => {}
            Some(block) => {
                return Err(asked.invalid(format_args!(
                    "{address}: its block {} is closed, new pods get no address of it",
                    block.cidr
                )));
            }
            None => {
                let blocks: Vec<String> = open(&family.blocks).map(|block| block.cidr.to_string()).collect();
                let blocks = if blocks.is_empty() { "none".to_owned() } else { blocks.join(", ") };
                return Err(asked.invalid(format_args!(
                    "{address} is in no block of this node; its open {name} blocks: {blocks}"
                )));
            }
        }
    }
    Ok(())
}

fn family_name(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// The pools that an attachment gets addresses of.
enum Pools<'a> {
    /// Those that were asked for, in the order of the request.
    Asked(&'a Asked<Vec<String>>),
    /// Those that are for the pod's namespace.
    Namespace { name: &'a str, pools: Vec<&'a str> },
    /// Those that are for all, and blocks that are of no pool.
    Common(Vec<&'a str>),
}

impl<'a> Pools<'a> {
    fn choose(node: &'a NodeFile, request: &'a AddRequest) -> Result<Self, Error> {
        if let Some(asked) = &request.pools {
            return match asked.value.iter().find(|name| !node.pools.contains_key(*name)) {
                None => Ok(Self::Asked(asked)),
                Some(missing) => Err(asked.invalid(format_args!(
                    "{missing:?} is no pool that this node has a block of; it has: {}",
                    list(node.pools.keys())
                ))),
            };
        }
        if let Some(pod) = &request.pod {
            let is_for =
                |pool: &PoolFile| pool.namespaces.as_ref().is_some_and(|all| all.contains(&pod.namespace));
            let pools = automatic(&node.pools, is_for);
            if !pools.is_empty() {
                return Ok(Self::Namespace { name: &pod.namespace, pools });
            }
        }
        Ok(Self::Common(automatic(&node.pools, |pool| pool.namespaces.is_none())))
    }

    /// The open ones of `blocks` that are of these pools.
    fn blocks(&self, blocks: &[BlockFile<IpNet>]) -> Vec<Block> {
        match self {
            Self::Asked(asked) => {
                asked.value.iter().flat_map(|pool| open_of(blocks, &[pool.as_str()], false)).collect()
            }
            Self::Namespace { pools, .. } => open_of(blocks, pools, false),
            Self::Common(pools) => open_of(blocks, pools, true),
        }
    }

    fn nothing_open(&self) -> String {
        match self {
            Self::Asked(asked) => {
                format!("{}: this node has no open block of {}", asked.by, list(&asked.value))
            }
            Self::Namespace { name, pools } => {
                format!(
                    "this node has no open block of {}, which namespace {name} gets addresses of",
                    list(pools)
                )
            }
            Self::Common(_) => "this node has no open block of a pool that is for every namespace".to_owned(),
        }
    }
}

/// The open ones of `blocks` that are of one of `pools`, or of none if `without_pool`, in the node's order.
fn open_of(blocks: &[BlockFile<IpNet>], pools: &[&str], without_pool: bool) -> Vec<Block> {
    let wanted = |file: &&BlockFile<IpNet>| match file.pool.as_deref() {
        Some(pool) => pools.contains(&pool),
        None => without_pool,
    };
    open(blocks).filter(wanted).map(block).collect()
}

fn automatic(pools: &BTreeMap<String, PoolFile>, wanted: impl Fn(&PoolFile) -> bool) -> Vec<&str> {
    let pools = pools.iter().filter(|(_, pool)| pool.automatic && wanted(pool));
    pools.map(|(name, _)| name.as_str()).collect()
}

/// Names with commas between them.
fn list<T: AsRef<str>>(names: impl IntoIterator<Item = T>) -> String {
    let names: Vec<String> = names.into_iter().map(|name| name.as_ref().to_owned()).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::spec::{Arguments, NetworkConfig, PodName};

    /// Pools `a` and `b` for all, `team` for namespace `red`, `manual` only when asked for; a block without a pool, and a
    /// closed one.
    fn node() -> NodeFile {
        let block = |cidr: &str, pool: Option<&str>, open: bool| json!({"cidr": cidr, "pool": pool, "open": open, "announced": true, "cooldownSeconds": 30});
        serde_json::from_value(json!({
            "schemaVersion": crate::node::SCHEMA_VERSION, "bootId": "boot", "node": "n1", "mtu": 1500,
            "pools": {
                "a": {"namespaces": null, "automatic": true},
                "b": {"namespaces": null, "automatic": true},
                "closed": {"namespaces": null, "automatic": false},
                "team": {"namespaces": ["red"], "automatic": true},
                "manual": {"namespaces": null, "automatic": false},
            },
            "ipv4": {
                "blocks": [
                    block("10.0.2.0/24", Some("b"), true),
                    block("10.0.1.0/24", Some("a"), true),
                    block("10.0.3.0/24", Some("team"), true),
                    block("10.0.4.0/24", Some("manual"), true),
                    block("10.0.5.0/24", None, true),
                    block("10.0.6.0/24", Some("closed"), false),
                ],
                "gateway": "169.254.1.1", "nodeAddress": "10.0.1.1",
            },
            "ipv6": {"blocks": [block("fd00:1::/64", Some("a"), true)], "gateway": "fe80::1", "nodeAddress": null},
            "reserved": [],
        }))
        .unwrap()
    }

    fn request(keys: &Value, namespace: Option<&str>) -> AddRequest {
        let mut config = json!({"cniVersion": "1.1.0", "name": "n"});
        config.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
        let config = NetworkConfig::parse(config.to_string().as_bytes()).unwrap();
        let pod = namespace.map(|namespace| PodName { namespace: namespace.into(), name: "p".into() });
        AddRequest::parse(&config, &Arguments { pod, ..Arguments::default() }).unwrap()
    }

    /// The blocks of each family, and the address if one was asked for.
    fn chosen(keys: &Value, namespace: Option<&str>) -> Vec<String> {
        let families = choose(&node(), &request(keys, namespace)).unwrap();
        let text = |family: &FamilyRequest| {
            assert!(family.blocks.iter().all(|block| block.cooldown == Duration::from_secs(30)));
            let blocks: Vec<String> = family.blocks.iter().map(|block| block.cidr.to_string()).collect();
            let address = family.address.map(|address| format!(" {address}")).unwrap_or_default();
            blocks.join(" ") + &address
        };
        families.iter().map(text).collect()
    }

    #[test]
    fn pools_are_chosen_by_request_then_namespace_then_for_all() {
        for (keys, namespace, expected) in [
            (json!({}), None, vec!["10.0.2.0/24 10.0.1.0/24 10.0.5.0/24", "fd00:1::/64"]),
            (json!({}), Some("blue"), vec!["10.0.2.0/24 10.0.1.0/24 10.0.5.0/24", "fd00:1::/64"]),
            (json!({}), Some("red"), vec!["10.0.3.0/24"]),
            (json!({"pools": ["manual"]}), Some("red"), vec!["10.0.4.0/24"]),
            (json!({"pools": ["a", "b"]}), Some("red"), vec!["10.0.1.0/24 10.0.2.0/24", "fd00:1::/64"]),
            (json!({"pools": ["closed", "a"]}), None, vec!["10.0.1.0/24", "fd00:1::/64"]),
        ] {
            assert_eq!(chosen(&keys, namespace), expected, "{keys} {namespace:?}");
        }
    }

    #[test]
    fn an_address_counts_more_than_pools_and_for_its_family_alone() {
        let ips = |ips: &[&str]| json!({"runtimeConfig": {"ips": ips}});
        for (keys, namespace, expected) in [
            (ips(&["10.0.4.9"]), None, vec!["10.0.4.0/24 10.0.4.9", "fd00:1::/64"]),
            (ips(&["10.0.4.9"]), Some("red"), vec!["10.0.4.0/24 10.0.4.9"]),
            (ips(&["fd00:1::9"]), Some("red"), vec!["10.0.3.0/24", "fd00:1::/64 fd00:1::9"]),
            (ips(&["fd00:1::9", "10.0.5.0"]), None, vec!["10.0.5.0/24 10.0.5.0", "fd00:1::/64 fd00:1::9"]),
        ] {
            assert_eq!(chosen(&keys, namespace), expected, "{keys} {namespace:?}");
        }
    }

    #[test]
    fn what_cannot_be_given_is_said_with_what_there_is() {
        let ips = |ip: &str| json!({"runtimeConfig": {"ips": [ip]}});
        for (keys, code, expected) in [
            (
                ips("10.0.9.9"),
                Code::InvalidConfig,
                "runtimeConfig.ips: 10.0.9.9 is in no block of this node; its open IPv4 blocks: 10.0.2.0/24, 10.0.1.0/24, 10.0.3.0/24, 10.0.4.0/24, 10.0.5.0/24",
            ),
            (
                ips("10.0.6.9"),
                Code::InvalidConfig,
                "runtimeConfig.ips: 10.0.6.9: its block 10.0.6.0/24 is closed, new pods get no address of it",
            ),
            (ips("10.0.1.1"), Code::InvalidConfig, "runtimeConfig.ips: 10.0.1.1 is the node's own address"),
            (
                json!({"pools": ["a", "x"]}),
                Code::InvalidConfig,
                "pools: \"x\" is no pool that this node has a block of; it has: a, b, closed, manual, team",
            ),
            (
                json!({"pools": ["closed"]}),
                Code::TryAgainLater,
                "pools: this node has no open block of closed",
            ),
        ] {
            let error = choose(&node(), &request(&keys, None)).unwrap_err();
            assert_eq!((error.code, error.msg.as_str()), (code, expected));
        }
        let mut node = node();
        node.ipv6 = None;
        let error = choose(&node, &request(&ips("fd00::9"), None)).unwrap_err();
        assert_eq!(error.msg, "runtimeConfig.ips: fd00::9: this node has no IPv6 block");
        for block in &mut node.ipv4.as_mut().unwrap().blocks {
            block.open = false;
        }
        let error = choose(&node, &request(&json!({}), Some("red"))).unwrap_err();
        assert_eq!(error.msg, "this node has no open block of team, which namespace red gets addresses of");
        assert_eq!(error.code, Code::TryAgainLater);
        assert_eq!(choose(&node, &request(&json!({}), None)).unwrap_err().code, Code::TryAgainLater);
        node.ipv4 = None;
        assert_eq!(choose(&node, &request(&json!({}), None)).unwrap_err().code, Code::TryAgainLater);
    }
}
