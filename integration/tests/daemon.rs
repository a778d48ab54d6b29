//! weftd's own life: start, readiness, end, cleanup.

#![allow(clippy::indexing_slicing, reason = "a panic fails the test, which is what it is for")]

use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use weft_integration::daemon::{Family, Software};
use weft_integration::fabric::{Fabric, FabricSpec};
use weft_integration::lab::Lab;
use weft_integration::probe::ping;
use weft_integration::process::{SHORT, own_program, run};
use weft_integration::wait::{stays, wait_until};

const PATIENCE: Duration = Duration::from_secs(40);

fn small(lab: &Lab) -> Result<Fabric> {
    Fabric::up(lab, FabricSpec { pods_per_node: 1, ..FabricSpec::one_rack(Software::Bird) })
}

#[test]
fn sigterm_leaves_the_routes_and_cleanup_takes_everything() -> Result<()> {
    Lab::test(|lab| {
        let mut fabric = small(lab)?;
        let far = fabric.node("a2")?.pods[0].addresses.clone();
        let node = fabric.node_mut("a1")?;
        node.weft.terminate()?;
        stays("traffic without a daemon", Duration::from_secs(1), || {
            far.iter().try_for_each(|address| ping(&node.pods[0].namespace, *address))
        })?;
        let mut cleanup = node.namespace.command(own_program("weftd")?);
        cleanup
            .arg("--cleanup")
            .arg("--run-dir")
            .arg(node.weft.run_dir())
            .arg("--state-dir")
            .arg(node.weft.state_dir());
        run(&mut cleanup, SHORT)?.success()?;
        for flag in ["-4", "-6"] {
            for protocol in [176, 177] {
                let left =
                    node.namespace.ip_json(&format!("{flag} route show table all proto {protocol}"))?;
                ensure!(left == json!([]), "routes are left: {left}");
            }
        }
        let rules = node.namespace.exec("nft list ruleset", SHORT)?.success()?.stdout;
        ensure!(!rules.contains("weft"), "nftables rules are left: {rules}");
        ensure!(!node.weft.socket().exists(), "the socket is left");

        // In a container the directory is the host's, mounted, and cannot be removed.
        let mut mounted = node.namespace.command("unshare");
        mounted.args([
            "--mount",
            "sh",
            "-c",
            r#"mkdir -p "$1" && mount --bind "$1" "$1" && exec "$0" --cleanup --run-dir "$1""#,
        ]);
        let said = run(mounted.arg(own_program("weftd")?).arg(node.weft.run_dir()), SHORT)?.success()?.stdout;
        ensure!(said.contains("it is mounted"), "{said}");
        Ok(())
    })
}

#[test]
fn readiness_health_and_metrics() -> Result<()> {
    Lab::test(|lab| {
        let fabric = small(lab)?;
        let node = fabric.node("a1")?;
        wait_until("readiness", PATIENCE, || {
            ensure!(node.weft.http("/readyz")?.0 == 200, "/readyz is not 200");
            Ok(())
        })?;
        ensure!(node.weft.http("/healthz")?.0 == 200, "/healthz is not 200");
        let (code, metrics) = node.weft.http("/metrics")?;
        ensure!(code == 200 && metrics.contains("weft_bgp_peers_established 1"), "{metrics}");
        let status = node.weft.status()?;
        ensure!(
            status["node"] == "a1"
                && status["ok"] == true
                && status["peers"] == json!({"up": 1, "wanted": 1}),
            "{status}"
        );
        for words in ["status", "peers", "routes", "fib", "version"] {
            for format in ["table", "wide", "json", "yaml"] {
                let said = node.weft.weftctl(&format!("-o {format} {words}"))?;
                ensure!(
                    said.status.success() && !said.stdout.trim().is_empty(),
                    "{words} as {format}: {said:?}"
                );
            }
        }
        Ok(())
    })
}

#[test]
fn exit_codes_of_weftctl() -> Result<()> {
    Lab::test(|lab| {
        let mut fabric = small(lab)?;
        let node = fabric.node_mut("a1")?;
        ensure!(
            node.weft.weftctl("routes 192.0.2.0/24")?.status.code() == Some(1),
            "a route to nowhere is found"
        );
        ensure!(node.weft.weftctl("routes 10.244.2.0/26")?.status.code() == Some(0), "a route is not found");
        ensure!(
            node.weft.weftctl("routes 10.244.2.7")?.status.code() == Some(0),
            "an address has no longest match"
        );
        ensure!(node.weft.weftctl("sing")?.status.code() == Some(2), "an unknown word is no usage error");
        node.weft.terminate()?;
        let dead = node.weft.weftctl("status")?;
        ensure!(dead.status.code() == Some(3) && !dead.stderr.is_empty(), "{dead:?}");
        Ok(())
    })
}

/// What on the host stands in the way is named, with what to do about it, and forgotten when it is gone.
#[test]
fn what_stands_in_the_way_is_named() -> Result<()> {
    Lab::test(|lab| {
        let mut fabric =
            Fabric::build(lab, FabricSpec { pods_per_node: 0, ..FabricSpec::one_rack(Software::Bird) })?;
        let node = fabric.node_mut("a1")?;
        let nft = |words: &str| node.namespace.exec(&format!("nft {words}"), SHORT)?.success().map(drop);
        nft("add table ip filter")?;
        nft("add chain ip filter FORWARD { type filter hook forward priority 0 ; policy drop ; }")?;
        let squatter = node.namespace.run(|| TcpListener::bind("0.0.0.0:179"))??;
        node.weft.start()?;
        for (code, text) in [("forward-policy-drop", "FORWARD"), ("not-listening", "179")] {
            wait_until(format!("the problem {code}"), PATIENCE, || {
                let problems = node.weft.status()?["problems"].as_array().cloned().unwrap_or_default();
                let problem = problems.iter().find(|problem| problem["code"] == code);
                let problem = problem.with_context(|| format!("{code} is not among {problems:?}"))?;
                ensure!(problem["text"].as_str().is_some_and(|said| said.contains(text)), "{problem}");
                ensure!(problem["remedy"].as_str().is_some_and(|remedy| !remedy.is_empty()), "{problem}");
                Ok(())
            })?;
        }
        drop(squatter);
        wait_until("weftd to listen after all", PATIENCE, || {
            let problems = node.weft.status()?["problems"].to_string();
            ensure!(!problems.contains("not-listening"), "{problems}");
            node.namespace.run(|| TcpStream::connect("127.0.0.1:179"))??;
            Ok(())
        })
    })
}

/// Strict reverse path filtering: what a pod sends under another pod's IPv4 address does not leave its node.
#[test]
fn a_pod_cannot_use_another_pods_ipv4_address() -> Result<()> {
    Lab::test(|lab| {
        let fabric = small(lab)?;
        let (node, far) = (fabric.node("a1")?, &fabric.node("a2")?.pods[0]);
        let pod = &node.pods[0];
        let (target, forged) = (far.address(Family::V4)?, "10.244.1.60");
        pod.namespace.ip(&format!("addr add {forged}/32 dev eth0"))?;
        let echo_requests = || -> Result<u64> {
            let counters = far.namespace.exec("cat /proc/net/snmp", SHORT)?.success()?.stdout;
            let mut icmp = counters.lines().filter_map(|line| line.strip_prefix("Icmp: "));
            let names = icmp.next().context("no names of ICMP counters")?.split(' ');
            let mut named = names.zip(icmp.next().context("no ICMP counters")?.split(' '));
            let (_, count) = named.find(|(name, _)| *name == "InEchos").context("no InEchos")?;
            Ok(count.parse()?)
        };
        let before = echo_requests()?;
        ping(&pod.namespace, target)?;
        let between = echo_requests()?;
        ensure!(between > before, "the far pod counts no echo requests: {before}, then {between}");
        let answered = pod.namespace.exec(&format!("ping -c 2 -W 1 -n -I {forged} {target}"), SHORT)?;
        ensure!(!answered.status.success(), "a forged source is answered");
        ensure!(echo_requests()? == between, "packets from a forged source arrived at the far pod");
        Ok(())
    })
}

#[test]
fn weftd_refuses_a_command_line_that_makes_no_sense() -> Result<()> {
    let done = run(Command::new(own_program("weftd")?).arg("--manifests"), SHORT)?;
    ensure!(done.status.code() == Some(2) && done.stderr.contains("--manifests"), "{done:?}");
    Ok(())
}
