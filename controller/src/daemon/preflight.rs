//! What on the host stands in the way: looked for at start and again with every audit, named with a remedy, never repaired.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::managers;
use crate::api::json::Problem;

/// `CAP_NET_ADMIN` (capability.h).
const CAP_NET_ADMIN: u32 = 12;
/// `CAP_NET_BIND_SERVICE` (capability.h): ports below 1024, such as BGP's.
const CAP_NET_BIND_SERVICE: u32 = 10;

/// Looks at the host, whose root directory is given, of a cluster of so many Nodes. Runs programs, so not on a task that must not block.
pub(super) fn look(root: &Path, nodes: usize) -> Vec<Problem> {
    let capabilities = capabilities(&fs::read_to_string("/proc/self/status").unwrap_or_default());
    let mut problems: Vec<_> = capabilities.into_iter().collect();
    problems.extend(kernel_features(Path::new("/proc/sys")));
    problems.extend(strict_uplinks(Path::new("/proc/sys")));
    problems.extend(neighbours(Path::new("/proc/sys"), nodes));
    problems.extend(packet_filter());
    problems.extend(managers::look(root));
    problems
}

/// Whether the kernel's neighbour tables have room for every Node: where all are on one link, each is a neighbour. The limits are the
/// machine's: another network namespace does not show them.
fn neighbours(sys: &Path, nodes: usize) -> Vec<Problem> {
    let too_small = |family: &str| {
        let path = format!("net/{family}/neigh/default/gc_thresh3");
        let limit: usize = fs::read_to_string(sys.join(&path)).ok()?.trim().parse().ok()?;
        (limit < nodes).then(|| {
            Problem::warning(
                "few-neighbours",
                format!("{path} is {limit}, and there are {nodes} Nodes: where they are on one link, some cannot be reached"),
                format!("set {path} to {} or more, and gc_thresh2 and gc_thresh1 below it to less", nodes.saturating_mul(2)),
            )
        })
    };
    ["ipv4", "ipv6"].into_iter().filter_map(too_small).collect()
}

/// Reads the effective capabilities out of `/proc/self/status`.
fn capabilities(status: &str) -> Option<Problem> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    let held = u64::from_str_radix(line.trim(), 16).ok()?;
    let missing: Vec<_> = [(CAP_NET_ADMIN, "CAP_NET_ADMIN"), (CAP_NET_BIND_SERVICE, "CAP_NET_BIND_SERVICE")]
        .into_iter()
        .filter(|(bit, _)| held >> bit & 1 == 0)
        .map(|(_, name)| name)
        .collect();
    (!missing.is_empty()).then(|| {
        Problem::error(
            "missing-capability",
            format!("weftd lacks {}", missing.join(" and ")),
            "run weftd as root, or give the service these capabilities (systemd: AmbientCapabilities=)",
        )
    })
}

/// Settings that exist exactly where the kernel was built with the feature.
fn kernel_features(sys: &Path) -> Vec<Problem> {
    let features = [
        ("net/ipv4/nexthop_compat_mode", "no-nexthop-objects", "nexthop objects", "use Linux 5.8 or later"),
        (
            "net/ipv4/fib_multipath_hash_policy",
            "no-multipath",
            "routes with several next hops (CONFIG_IP_ROUTE_MULTIPATH)",
            "use a kernel built with CONFIG_IP_ROUTE_MULTIPATH=y",
        ),
    ];
    let missing = features.into_iter().filter(|(file, ..)| !sys.join(file).exists());
    missing
        .map(|(_, code, what, remedy)| Problem::error(code, format!("this kernel has no {what}"), remedy))
        .collect()
}

/// Strict reverse path filtering of all links (ip-sysctl: the kernel takes the larger of this and the link's own value).
fn strict_uplinks(sys: &Path) -> Option<Problem> {
    let all = fs::read_to_string(sys.join("net/ipv4/conf/all/rp_filter")).unwrap_or_default();
    (all.trim() == "1").then(|| {
        Problem::warning(
            "rp-filter-strict",
            "net/ipv4/conf/all/rp_filter is 1: a packet that comes by another uplink than its answer would leave by is dropped",
            "set it to 0, in /etc/sysctl.d too; weft-cni sets it to 1 on pods' links by itself",
        )
    })
}

/// Base chains at the forward hook that drop what no rule accepts.
fn packet_filter() -> Vec<Problem> {
    let mut problems = match run("nft", &["-j", "list", "ruleset"]) {
        Ran::Output(json) => forward_drops_in_nft(&json),
        Ran::NotInstalled => Vec::new(),
        Ran::Failed(error) => vec![Problem::warning(
            "packet-filter-unread",
            format!("nft -j list ruleset failed: {error}"),
            "run it by hand; weftd looks again at every audit",
        )],
    };
    for (tables, program) in [
        ("/proc/self/net/ip_tables_names", "iptables-legacy"),
        ("/proc/self/net/ip6_tables_names", "ip6tables-legacy"),
    ] {
        // The file names the tables of the legacy back end that are loaded. Asking the program would load one.
        let loaded = fs::read_to_string(tables).unwrap_or_default();
        if loaded.lines().any(|table| table == "filter")
            && let Ran::Output(rules) = run(program, &["-S", "FORWARD"])
            && legacy_chain_drops(&String::from_utf8_lossy(&rules))
        {
            problems.push(forward_drop(
                &format!("{program}'s chain FORWARD"),
                &format!("{program} -A FORWARD -j ACCEPT -i weft+ (and -o weft+)"),
            ));
        }
    }
    problems
}

fn forward_drop(chain: &str, command: &str) -> Problem {
    Problem::error(
        "forward-policy-drop",
        format!("{chain} drops forwarded packets that no rule accepts; pods may not reach each other"),
        format!("accept pods' traffic there, for example: {command}; or set the chain's policy to accept"),
    )
}

/// Every base chain at the forward hook with policy drop, unless a rule of it accepts everything or names Weft's links.
fn forward_drops_in_nft(json: &[u8]) -> Vec<Problem> {
    let Ok(ruleset) = serde_json::from_slice::<Value>(json) else { return Vec::new() };
    let objects = ruleset.get("nftables").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let text =
        |object: &Value, key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let place =
        |object: &Value, name: &str| (text(object, "family"), text(object, "table"), text(object, name));
    let accepting: Vec<_> = objects
        .iter()
        .filter_map(|object| object.get("rule"))
        .filter(|rule| accepts_pods(rule))
        .map(|rule| place(rule, "chain"))
        .collect();
    objects
        .iter()
        .filter_map(|object| object.get("chain"))
        .filter(|chain| text(chain, "hook") == "forward" && text(chain, "policy") == "drop")
        .map(|chain| place(chain, "name"))
        .filter(|chain| !accepting.contains(chain))
        .map(|(family, table, chain)| {
            forward_drop(
                &format!("nftables chain {family} {table} {chain}"),
                &format!(
                    "nft insert rule {family} {table} {chain} iifname \"weft*\" accept, and the same with oifname"
                ),
            )
        })
        .collect()
}

/// Whether a rule accepts without a condition, or names Weft's links and accepts.
fn accepts_pods(rule: &Value) -> bool {
    let statements = rule.get("expr").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let accepts = statements.iter().any(|s| s.get("accept").is_some());
    let unconditional = statements.iter().all(|s| s.get("accept").is_some() || s.get("counter").is_some());
    accepts && (unconditional || rule.to_string().contains("\"weft"))
}

fn legacy_chain_drops(rules: &str) -> bool {
    let accepts = |rule: &str| {
        rule == "-A FORWARD -j ACCEPT" || (rule.contains(" weft") && rule.ends_with("-j ACCEPT"))
    };
    rules.lines().any(|rule| rule == "-P FORWARD DROP") && !rules.lines().any(accepts)
}

/// What came of running a program.
pub(super) enum Ran {
    Output(Vec<u8>),
    NotInstalled,
    Failed(String),
}

/// Runs a program to its end.
pub(super) fn run(program: &str, arguments: &[&str]) -> Ran {
    match Command::new(program).args(arguments).stdin(Stdio::null()).output() {
        Ok(Output { status, stdout, .. }) if status.success() => Ran::Output(stdout),
        Ok(Output { stderr, .. }) => Ran::Failed(
            String::from_utf8_lossy(&stderr).lines().next().unwrap_or("no reason given").to_owned(),
        ),
        Err(error) if error.kind() == ErrorKind::NotFound => Ran::NotInstalled,
        Err(error) => Ran::Failed(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(policy: &str) -> String {
        format!(
            r#"{{"chain": {{"family": "ip", "table": "filter", "name": "FORWARD", "handle": 1, "type": "filter",
                "hook": "forward", "prio": 0, "policy": "{policy}"}}}}"#
        )
    }

    fn rule(expr: &str) -> String {
        format!(
            r#"{{"rule": {{"family": "ip", "table": "filter", "chain": "FORWARD", "handle": 2, "expr": {expr}}}}}"#
        )
    }

    fn drops(objects: &[String]) -> usize {
        forward_drops_in_nft(format!(r#"{{"nftables": [{}]}}"#, objects.join(",")).as_bytes()).len()
    }

    #[test]
    fn neighbour_tables_that_are_too_small_are_named() {
        let sys = tempfile::tempdir().unwrap();
        assert_eq!(neighbours(sys.path(), 5000), [], "not shown here");
        for (family, limit) in [("ipv4", "1024\n"), ("ipv6", "8192\n")] {
            let folder = sys.path().join("net").join(family).join("neigh/default");
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("gc_thresh3"), limit).unwrap();
        }
        assert_eq!(neighbours(sys.path(), 1024), []);
        let problems = neighbours(sys.path(), 5000);
        assert!(
            problems.len() == 1 && problems[0].text.contains("net/ipv4/neigh/default/gc_thresh3 is 1024"),
            "{problems:?}"
        );
    }

    #[test]
    fn a_forward_chain_that_drops_is_named() {
        let json = format!(r#"{{"nftables": [{{"metainfo": {{"version": "1.0.6"}}}}, {}]}}"#, chain("drop"));
        let problems = forward_drops_in_nft(json.as_bytes());
        let [problem] = problems.as_slice() else { panic!("{problems:?}") };
        assert_eq!(problem.code, "forward-policy-drop");
        assert!(problem.text.contains("ip filter FORWARD"), "{}", problem.text);
        assert_eq!(drops(&[chain("accept")]), 0);
    }

    #[test]
    fn a_rule_for_pods_or_for_everything_is_enough_but_not_one_for_something_else() {
        let counter_accept = r#"[{"counter": {"packets": 0, "bytes": 0}}, {"accept": null}]"#;
        let matching = |what: &str, verdict: &str| {
            rule(&format!(
                r#"[{{"match": {{"op": "==", "left": {{"meta": {{"key": "iifname"}}}}, "right": "{what}"}}}}, {{"{verdict}": null}}]"#
            ))
        };
        assert_eq!(drops(&[chain("drop"), rule(counter_accept)]), 0);
        assert_eq!(drops(&[chain("drop"), matching("weft*", "accept")]), 0);
        assert_eq!(drops(&[chain("drop"), matching("weft*", "drop")]), 1);
        assert_eq!(drops(&[chain("drop"), matching("docker0", "accept")]), 1);
    }

    #[test]
    fn legacy_rules_are_read_likewise() {
        assert!(legacy_chain_drops("-P FORWARD DROP\n-A FORWARD -i docker0 -j ACCEPT\n"));
        assert!(!legacy_chain_drops("-P FORWARD DROP\n-A FORWARD -i weft+ -j ACCEPT\n"));
        assert!(!legacy_chain_drops("-P FORWARD ACCEPT\n"));
    }

    #[test]
    fn missing_capabilities_are_named() {
        assert_eq!(capabilities("Name:\tx\nCapEff:\t000001ffffffffff\n"), None);
        let problem = capabilities("CapEff:\t0000000000000400\n").unwrap();
        assert!(problem.text.ends_with("lacks CAP_NET_ADMIN"), "{}", problem.text);
    }

    #[test]
    fn a_filter_that_is_strict_for_all_links_is_named() {
        let sys = tempfile::tempdir().unwrap();
        let folder = sys.path().join("net/ipv4/conf/all");
        fs::create_dir_all(&folder).unwrap();
        for (value, problems) in [("0\n", 0), ("1\n", 1), ("2\n", 0)] {
            fs::write(folder.join("rp_filter"), value).unwrap();
            assert_eq!(strict_uplinks(sys.path()).iter().count(), problems, "{value}");
        }
    }

    #[test]
    fn missing_kernel_features_are_named() {
        let sys = tempfile::tempdir().unwrap();
        let codes: Vec<_> = kernel_features(sys.path()).into_iter().map(|p| p.code).collect();
        assert_eq!(codes, ["no-nexthop-objects", "no-multipath"]);
    }
}
