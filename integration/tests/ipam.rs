//! Addresses that leak are found and given back; addresses of living pods never are.

#![allow(clippy::indexing_slicing, reason = "a panic fails the test, which is what it is for")]

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ipnet::IpNet;
use serde_json::{Value, json};
use weft_integration::daemon::Family;
use weft_integration::documents;
use weft_integration::lab::Lab;
use weft_integration::node::{self, Node};
use weft_integration::pod::{Plugin, Pod};
use weft_integration::probe::ping;
use weft_integration::process::SHORT;
use weft_integration::wait::{stays, wait_until};

const BLOCKS: [&str; 2] = ["10.244.1.0/26", "fd00:10:244:1::/122"];

/// A node without links and peers, its weftd started with `flags`.
fn node(lab: &Lab, blocks: &[&str], flags: &str) -> Result<Node> {
    let blocks: Vec<IpNet> = blocks.iter().map(|block| Ok(block.parse()?)).collect::<Result<_>>()?;
    let families: Vec<Family> = blocks.iter().map(|block| Family::of(block.addr())).collect();
    let mut node = Node::new(lab, "node", node::loopback(&families, 1), blocks)?;
    node.weft.set_flags(flags);
    boot(&mut node, &families)?;
    Ok(node)
}

/// What a machine does when it starts: addresses on `lo`, and weftd.
fn boot(node: &mut Node, families: &[Family]) -> Result<()> {
    let commands: Vec<String> =
        node.addresses.iter().map(|address| format!("addr replace {address} dev lo")).collect();
    node.namespace.ip(&commands.join("\n"))?;
    let mut all = vec![
        documents::node("node", &[], &node.blocks, &node.addresses),
        documents::bgp_configuration(&json!({"asNumber": 64601, "nodeToNodeMeshEnabled": false})),
    ];
    all.extend(families.iter().map(|family| documents::pod_pool(*family)));
    documents::write(&node.weft.manifests(), "all.yaml", &all)?;
    node.weft.start()?;
    node.wait_ready_for_pods()?;
    node.weft.wait_answers()
}

/// `weftctl ipam check`: what it says, after its exit code was compared with it.
fn check(node: &Node, flags: &str) -> Result<Value> {
    let said = node.weft.weftctl(&format!("-o json ipam check {flags}"))?;
    let told: Value =
        serde_json::from_str(&said.stdout).with_context(|| format!("{} {}", said.stdout, said.stderr))?;
    let wanted = if told["ok"] == true { 0 } else { 1 };
    ensure!(said.status.code() == Some(wanted), "exit code {}: {told}", said.status);
    Ok(told)
}

fn well(node: &Node) -> Result<()> {
    let told = check(node, "")?;
    ensure!(told["ok"] == true && told["findings"] == json!([]), "{told}");
    Ok(())
}

fn kinds(check: &Value) -> Vec<String> {
    let findings = check["findings"].as_array().into_iter().flatten();
    findings.filter_map(|finding| Some(finding["kind"].as_str()?.to_owned())).collect()
}

/// The addresses that `ipam show` lists, with their containers.
fn taken(node: &Node) -> Result<BTreeSet<(IpAddr, String)>> {
    let shown: Value = node.weft.json("ipam show")?;
    let entries = shown["addresses"].as_array().context("no addresses")?;
    let one = |entry: &Value| {
        let address = entry["address"].as_str().context("no address")?.parse()?;
        Ok((address, entry["container"].as_str().context("no container")?.to_owned()))
    };
    entries.iter().map(one).collect()
}

fn of<'a>(pods: impl IntoIterator<Item = &'a Pod>) -> BTreeSet<(IpAddr, String)> {
    let each = pods.into_iter();
    each.flat_map(|pod| pod.addresses.iter().map(|address| (*address, pod.container.clone()))).collect()
}

fn reachable(node: &Node, pod: &Pod) -> Result<()> {
    pod.addresses.iter().try_for_each(|address| ping(&node.namespace, *address))
}

fn events(node: &Node, kind: &str) -> Result<Vec<String>> {
    let events: Vec<Value> = node.weft.json("events")?;
    let those = events.iter().filter(|event| event["kind"] == kind);
    Ok(those.filter_map(|event| Some(event["text"].as_str()?.to_owned())).collect())
}

fn metric(node: &Node, line: &str) -> Result<()> {
    let (_, metrics) = node.weft.http("/metrics")?;
    ensure!(metrics.lines().any(|found| found == line), "no {line} in {metrics}");
    Ok(())
}

/// Takes a pod's link away as an admin or a crash does it, behind everybody's back.
fn cut(node: &Node, pod: &Pod) -> Result<()> {
    node.namespace.ip(&format!("link del {}", pod.host_interface()?))
}

#[test]
fn show_tells_blocks_and_who_has_what() -> Result<()> {
    Lab::test(|lab| {
        let node = node(lab, &BLOCKS, "")?;
        let pods = [Pod::add(lab, &node.weft, "a")?, Pod::add(lab, &node.weft, "b")?];
        ensure!(taken(&node)? == of(&pods), "{:?}, not {:?}", taken(&node)?, of(&pods));
        let shown: Value = node.weft.json("ipam show")?;
        for (block, cidr) in shown["blocks"].as_array().context("no blocks")?.iter().zip(BLOCKS) {
            let wanted = json!({"cidr": cidr, "state": "open", "size": 64, "taken": 2, "free": 62});
            for (key, value) in wanted.as_object().context("no object")? {
                ensure!(block[key] == *value, "{key} of {block}");
            }
        }
        ensure!(shown["addresses"][0]["since"].is_string(), "{shown}");
        let plugin = Plugin::new(&node.weft)?
            .with_arguments("IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart-0");
        let cart = lab.namespace("cart")?;
        plugin.call("ADD", "cart", &cart.path())?.result()?;
        let table = node.weft.weftctl("ipam show")?.success()?.stdout;
        for text in [&pods[0].addresses[0].to_string(), BLOCKS[0], "shop", "cart-0"] {
            ensure!(table.contains(text), "no {text} in {table}");
        }
        well(&node)?;
        wait_until("the metric of the block", SHORT, || {
            metric(&node, r#"weft_ipam_addresses{block="10.244.1.0/26",state="taken"} 3"#)
        })
    })
}

#[test]
fn a_block_that_fills_is_told_of_before_and_when_it_is_full() -> Result<()> {
    Lab::test(|lab| {
        let node = node(lab, &["10.244.1.0/28"], "")?;
        let problem = |code: &str| {
            wait_until(format!("the problem {code}"), SHORT, || {
                let status = node.weft.status()?;
                let problems = status["problems"].as_array().context("no problems")?;
                ensure!(problems.iter().any(|problem| problem["code"] == code), "{status}");
                Ok(())
            })?;
            ensure!(events(&node, code)?.len() == 1, "not one event {code}: {:?}", events(&node, code)?);
            Ok(())
        };
        let mut pods = Vec::new();
        for number in 0..15 {
            pods.push(Pod::add(lab, &node.weft, &format!("pod{number}"))?);
        }
        problem("block-nearly-full")?;
        pods.push(Pod::add(lab, &node.weft, "last")?);
        problem("blocks-full")?;
        ensure!(pods.pop().context("a pod")?.delete().is_ok(), "DEL failed");
        Ok(())
    })
}

#[test]
fn what_leaks_is_found_and_freed_after_the_grace_and_nothing_else_is() -> Result<()> {
    Lab::test(|lab| {
        let node = node(lab, &BLOCKS, "--ipam-grace 2s")?;
        let living = Pod::add(lab, &node.weft, "living")?;
        let cut_off = Pod::add(lab, &node.weft, "cut")?;
        let gone = Pod::add(lab, &node.weft, "gone")?;
        well(&node)?;
        cut(&node, &cut_off)?;
        let host_interface = gone.host_interface()?;
        // With its last handle the network namespace goes, and its links with it.
        drop(gone);
        wait_until("the link of the namespace that is gone", SHORT, || {
            let links = node.namespace.ip_json("link show")?.to_string();
            ensure!(!links.contains(&host_interface), "{links}");
            Ok(())
        })?;
        wait_until("both to be freed", Duration::from_secs(30), || {
            ensure!(taken(&node)? == of([&living]), "{:?}", taken(&node)?);
            Ok(())
        })?;
        let freed = events(&node, "address-freed")?;
        ensure!(freed.len() == 2 && freed[0].contains(&cut_off.addresses[0].to_string()), "{freed:?}");
        wait_until("the count", SHORT, || metric(&node, "weft_ipam_freed_total 4"))?;
        metric(&node, "weft_ipam_leaked 0")?;
        well(&node)?;
        reachable(&node, &living)?;
        living.check()
    })
}

#[test]
fn a_check_by_hand_finds_at_once_and_frees_with_its_own_grace() -> Result<()> {
    Lab::test(|lab| {
        let node = node(lab, &BLOCKS, "")?;
        let pod = Pod::add(lab, &node.weft, "pod")?;
        cut(&node, &pod)?;
        let first = check(&node, "")?;
        ensure!(kinds(&first) == ["address-without-link"] && first["freed"] == json!([]), "{first}");
        ensure!(first["findings"][0]["missingSince"].is_string(), "{first}");
        let within = check(&node, "--grace 1h")?;
        ensure!(within["freed"] == json!([]), "{within}");
        let second = check(&node, "--grace 0s")?;
        ensure!(second["freed"][0]["holder"]["container"] == pod.container.as_str(), "{second}");
        well(&node)?;
        ensure!(taken(&node)?.is_empty(), "{:?}", taken(&node)?);
        // The address can be had again, and DEL of the pod that lost it takes nothing from whoever has it.
        let next = Pod::add(lab, &node.weft, "next")?;
        pod.delete()?;
        ensure!(taken(&node)? == of([&next]), "{:?}", taken(&node)?);
        reachable(&node, &next)
    })
}

/// Whoever renames a link cuts the pod off from its routes, but the pod still has its address.
#[test]
fn an_address_in_its_namespace_is_never_freed() -> Result<()> {
    Lab::test(|lab| {
        let node = node(lab, &BLOCKS, "--ipam-grace 1s")?;
        let pod = Pod::add(lab, &node.weft, "pod")?;
        let link = pod.host_interface()?;
        node.namespace.ip(&format!("link set {link} down\nlink set {link} name elsewhere"))?;
        let told = check(&node, "--grace 0s")?;
        ensure!(kinds(&told) == ["link-missing"], "{told}");
        stays("the entry of a living pod", Duration::from_secs(4), || {
            ensure!(taken(&node)? == of([&pod]), "{:?}", taken(&node)?);
            Ok(())
        })?;
        let address = pod.addresses[0];
        let refused = node.weft.weftctl(&format!("ipam release {address}"))?;
        ensure!(refused.status.code() == Some(1), "{refused:?}");
        ensure!(refused.stderr.contains("is in use") && refused.stderr.contains("--force"), "{refused:?}");
        ensure!(taken(&node)? == of([&pod]), "{:?}", taken(&node)?);
        node.weft.weftctl(&format!("ipam release {address} --force"))?.success()?;
        ensure!(taken(&node)?.is_empty(), "{:?}", taken(&node)?);
        Ok(())
    })
}

#[test]
fn a_release_takes_a_living_pods_link_only_by_force() -> Result<()> {
    Lab::test(|lab| {
        let node = node(lab, &BLOCKS, "")?;
        let pods = [Pod::add(lab, &node.weft, "a")?, Pod::add(lab, &node.weft, "b")?];
        let address = pods[0].addresses[1];
        let refused = node.weft.weftctl(&format!("ipam release {address}"))?;
        ensure!(refused.status.code() == Some(1), "{refused:?}");
        ensure!(refused.stderr.contains(&pods[0].host_interface()?), "{refused:?}");
        reachable(&node, &pods[0])?;
        let freed: Value = node.weft.json(&format!("ipam release {address} --force"))?;
        ensure!(freed["addresses"] == json!(pods[0].addresses), "{freed}");
        ensure!(taken(&node)? == of([&pods[1]]), "{:?}", taken(&node)?);
        ensure!(node.namespace.ip_json("route show proto 177")?.as_array().map(Vec::len) == Some(1));
        let unknown = node.weft.weftctl("ipam release 192.0.2.1")?;
        ensure!(unknown.status.code() == Some(1) && unknown.stderr.contains("no entry"), "{unknown:?}");
        well(&node)?;
        reachable(&node, &pods[1])
    })
}

#[test]
fn what_the_kernel_has_and_no_entry_speaks_of_is_found_and_left_alone() -> Result<()> {
    Lab::test(|lab| {
        let node = node(lab, &BLOCKS, "--ipam-grace 1s")?;
        node.namespace.ip("link add weft0123456789a address ee:ee:ee:ee:ee:ee type veth peer name peer\n\
             link set weft0123456789a up\n\
             route add 10.244.1.60/32 dev weft0123456789a proto 177\n\
             neigh add 10.244.1.60 lladdr 02:00:00:00:00:01 dev weft0123456789a nud permanent")?;
        let found = ["link-without-entry", "route-without-entry", "neighbour-without-entry"];
        ensure!(kinds(&check(&node, "--grace 0s")?) == found, "{}", check(&node, "")?);
        ensure!(kinds(&check(&node, "--grace 0s")?) == found, "weftd took it away by itself");
        let refused = node.weft.weftctl("ipam release 10.244.1.60")?;
        ensure!(
            refused.status.code() == Some(1) && refused.stderr.contains("weft0123456789a"),
            "{refused:?}"
        );
        node.weft.weftctl("ipam release 10.244.1.60 --force")?.success()?;
        well(&node)
    })
}

#[test]
fn a_container_that_the_runtime_does_not_know_is_found() -> Result<()> {
    Lab::test(|lab| {
        let node = node(lab, &BLOCKS, "--ipam-grace 1s")?;
        let told = check(&node, "")?;
        ensure!(told["compared"]["runtime"]["interfaces"].is_null(), "{told}");
        let pods = [Pod::add(lab, &node.weft, "known")?, Pod::add(lab, &node.weft, "unknown")?];
        let cache = node.weft.cni_cache_dir();
        fs::create_dir(&cache)?;
        fs::write(cache.join(format!("weft-{}-eth0", pods[0].container)), "{}")?;
        // A runtime may take some seconds to write its file.
        let told = wait_until("the container that is not known", Duration::from_secs(30), || {
            let told = check(&node, "--grace 0s")?;
            ensure!(kinds(&told) == ["unknown-to-runtime"], "{told}");
            Ok(told)
        })?;
        ensure!(told["compared"]["runtime"]["interfaces"] == 1, "{told}");
        ensure!(told["findings"][0]["addresses"] == json!(pods[1].addresses), "{told}");
        ensure!(check(&node, "--grace 0s")?["freed"] == json!([]), "a living pod's addresses were freed");
        pods.iter().try_for_each(|pod| reachable(&node, pod))
    })
}

#[test]
fn a_damaged_store_is_told_and_nothing_is_freed_by_it() -> Result<()> {
    Lab::test(|lab| {
        let mut node = node(lab, &BLOCKS, "--ipam-grace 1s")?;
        let pod = Pod::add(lab, &node.weft, "pod")?;
        let journal = node.weft.state_dir().join("addresses.journal");
        let good = fs::read(&journal)?;
        OpenOptions::new().append(true).open(&journal)?.write_all(b"this is no record\n")?;
        let told = check(&node, "--grace 0s")?;
        ensure!(kinds(&told) == ["store-unreadable"] && told["freed"] == json!([]), "{told}");
        let shown = node.weft.weftctl("ipam show")?;
        ensure!(shown.status.code() == Some(1) && shown.stderr.contains("addresses.journal"), "{shown:?}");
        let late = lab.namespace("late")?;
        let refused = Plugin::new(&node.weft)?.call("ADD", "late", &late.path())?;
        ensure!(!refused.ok, "an address was given out from a damaged store: {refused:?}");
        node.weft.ensure_running()?;
        reachable(&node, &pod)?;
        fs::write(&journal, good)?;
        well(&node)?;
        ensure!(taken(&node)? == of([&pod]), "{:?}", taken(&node)?);
        Ok(())
    })
}

/// A line of the store as the plugin writes it: FNV-1a (64 bits) over the record, eight bytes at a time and then those left one by
/// one, and the record.
fn store_line(record: &str) -> String {
    let (words, rest) = record.as_bytes().as_chunks();
    let words = words.iter().map(|word| u64::from_le_bytes(*word));
    let hash = words
        .chain(rest.iter().map(|byte| u64::from(*byte)))
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, word| (hash ^ word).wrapping_mul(0x0000_0100_0000_01b3));
    format!("{hash:016x} {record}\n")
}

/// Entries that no plugin would write, but that a store may say.
#[test]
fn entries_of_no_sense_are_found_and_freed_like_others() -> Result<()> {
    Lab::test(|lab| {
        let node = node(lab, &BLOCKS, "")?;
        let pod = Pod::add(lab, &node.weft, "pod")?;
        let now = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        let entry = |id: &str, address: &str, host_link: &str, netns: &str, boot_id: &str| {
            let (index, mac, since) = ("7", "02:00:00:00:00:01", u64::MAX.to_string());
            let end = [index, "", address, host_link, mac, netns, "", "", boot_id, &since];
            store_line(&[&["R", "", id, "eth0"], &end[..]].concat().join("\t"))
        };
        let lines = [
            entry("outside", "192.0.2.1", "", "", now.trim()),
            entry("../../etc", "", "a/b", "/etc/passwd", now.trim()),
            entry("long", "10.244.1.63", &"weft".repeat(1000), "/proc/self/ns/net", now.trim()),
            entry("early", "10.244.1.62", "weft0123456789a", "/", "of no boot"),
        ];
        let journal = node.weft.state_dir().join("addresses.journal");
        OpenOptions::new().append(true).open(&journal)?.write_all(lines.concat().as_bytes())?;
        let found = check(&node, "")?;
        let kinds = kinds(&found);
        ensure!(kinds.iter().filter(|kind| *kind == "address-without-link").count() == 3, "{found}");
        ensure!(kinds.iter().filter(|kind| *kind == "earlier-boot").count() == 1, "{found}");
        check(&node, "--grace 0s")?;
        ensure!(taken(&node)? == of([&pod]), "{:?}", taken(&node)?);
        well(&node)?;
        reachable(&node, &pod)
    })
}

/// The file that stands for the kernel's boot id.
fn boot_id(lab: &Lab, id: &str) -> Result<PathBuf> {
    let file = lab.directory("boot")?.join(id);
    fs::write(&file, format!("{id}\n"))?;
    Ok(file)
}

#[test]
fn after_a_reboot_no_address_is_doubled_and_none_leaks() -> Result<()> {
    const FIRST: &str = "11111111-2222-4333-8444-555555555555";
    const SECOND: &str = "66666666-7777-4888-8999-aaaaaaaaaaaa";
    Lab::test(|lab| {
        let families = Family::BOTH;
        let blocks: Vec<IpNet> = BLOCKS.iter().map(|block| Ok(block.parse()?)).collect::<Result<_>>()?;
        let mut node = Node::new(lab, "node", node::loopback(&families, 1), blocks)?;
        node.namespace.set_boot_id(&boot_id(lab, FIRST)?);
        boot(&mut node, &families)?;
        let before: Vec<Pod> =
            (0..3).map(|n| Pod::add(lab, &node.weft, &format!("old{n}"))).collect::<Result<_>>()?;
        let held = of(&before);
        well(&node)?;

        node.weft.kill9()?;
        drop(before);
        fs::remove_dir_all(node.weft.run_dir())?;
        fs::create_dir(node.weft.run_dir())?;
        wait_until("the pods' links to go", SHORT, || {
            let links = node.namespace.ip_json("link show")?.to_string();
            ensure!(!links.contains("\"weft"), "{links}");
            Ok(())
        })?;
        node.namespace.set_boot_id(&boot_id(lab, SECOND)?);
        boot(&mut node, &families)?;
        let told = fs::read_to_string(node.weft.run_dir().join("node.json"))?;
        ensure!(told.contains(SECOND), "weftd does not see another boot: {told}");

        let after: Vec<Pod> =
            (0..4).map(|n| Pod::add(lab, &node.weft, &format!("new{n}"))).collect::<Result<_>>()?;
        let distinct: BTreeSet<IpAddr> = after.iter().flat_map(|pod| pod.addresses.clone()).collect();
        ensure!(distinct.len() == 8, "an address was given out twice: {distinct:?}");
        // weftd has looked once at its start, so this is the second look.
        wait_until("the addresses of the earlier boot to be freed", SHORT, || {
            check(&node, "")?;
            ensure!(taken(&node)? == of(&after), "{:?}, before the reboot {held:?}", taken(&node)?);
            Ok(())
        })?;
        well(&node)?;
        after.iter().try_for_each(|pod| reachable(&node, pod))
    })
}
