//! The plugin is killed a thousand times, anywhere; nothing is lost, and nothing is given twice.

#![allow(clippy::indexing_slicing, reason = "a panic fails the test, which is what it is for")]

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, anyhow, ensure};
use ipnet::IpNet;
use serde_json::{Value, json};
use weft_integration::daemon::Family;
use weft_integration::documents;
use weft_integration::lab::Lab;
use weft_integration::netns::Namespace;
use weft_integration::node::{self, Node};
use weft_integration::pod::{Plugin, addresses};
use weft_integration::probe::ping;

/// How many times the plugin is killed.
const KILLS: usize = 1000;
/// How many runtimes call it at once.
const WORKERS: usize = 4;
/// How many containers each of them has.
const CONTAINERS: usize = 4;
/// How often it may end before it is killed.
const ATTEMPTS: usize = 20 * KILLS / WORKERS;
/// How long a command takes on a machine at work, about.
const ADD: Duration = Duration::from_millis(25);
/// The kernel waits before a link is gone.
const DEL: Duration = Duration::from_millis(50);
const BLOCKS: [&str; 2] = ["10.244.1.0/26", "fd00:10:244:1::/122"];

/// SplitMix64: the same kills for the same seed, as far as the machine allows.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit.max(1)
    }
}

/// A container and the namespace that it lives in.
struct Container {
    id: String,
    namespace: Namespace,
}

fn node(lab: &Lab) -> Result<Node> {
    let blocks: Vec<IpNet> = BLOCKS.iter().map(|block| Ok(block.parse()?)).collect::<Result<_>>()?;
    let mut node = Node::new(lab, "node", node::loopback(&Family::BOTH, 1), blocks)?;
    let commands: Vec<String> =
        node.addresses.iter().map(|address| format!("addr add {address} dev lo")).collect();
    node.namespace.ip(&commands.join("\n"))?;
    let mut all = vec![
        documents::node("node", &[], &node.blocks, &node.addresses),
        documents::bgp_configuration(&json!({"asNumber": 64601, "nodeToNodeMeshEnabled": false})),
    ];
    all.extend(Family::BOTH.map(documents::pod_pool));
    documents::write(&node.weft.manifests(), "all.yaml", &all)?;
    node.weft.start()?;
    node.wait_ready_for_pods()?;
    node.weft.wait_answers()?;
    Ok(node)
}

/// One runtime: ADDs and DELs, each killed at some moment, until it has killed its share.
fn storm(plugin: &Plugin, containers: &[Container], seed: u64) -> Result<()> {
    let mut random = Random(seed);
    let mut killed = 0;
    for _ in 0..ATTEMPTS {
        if killed == KILLS / WORKERS {
            return Ok(());
        }
        let container = &containers[usize::try_from(random.below(containers.len() as u64))?];
        let (command, longest) = if random.below(3) == 0 { ("DEL", DEL) } else { ("ADD", ADD) };
        let after = Duration::from_micros(random.below(u64::try_from(longest.as_micros())?));
        if plugin.kill_after(command, &container.id, &container.namespace.path(), after)? {
            killed += 1;
        }
    }
    Err(anyhow!("only {killed} of {} were killed before they ended", KILLS / WORKERS))
}

/// The store's addresses, as `weftctl ipam show` tells them.
fn told(node: &Node) -> Result<BTreeSet<IpAddr>> {
    let shown: Value = node.weft.json("ipam show")?;
    let list = shown["addresses"].as_array().with_context(|| format!("no addresses in {shown}"))?;
    let mut told = BTreeSet::new();
    for entry in list {
        let address: IpAddr = entry["address"].as_str().context("an address")?.parse()?;
        ensure!(told.insert(address), "{address} is given twice: {shown}");
    }
    Ok(told)
}

fn host_links(node: &Node) -> Result<usize> {
    let links = node.namespace.ip_json("link show type veth")?;
    Ok(links.as_array().map_or(0, Vec::len))
}

#[test]
fn a_thousand_kills_leave_nothing_that_gc_does_not_free() -> Result<()> {
    let seed = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let outcome = Lab::test(|lab| {
        let node = node(lab)?;
        let plugin = Plugin::new(&node.weft)?;
        let mut all = Vec::new();
        for worker in 0..WORKERS {
            let mut own = Vec::new();
            for number in 0..CONTAINERS {
                let namespace = lab.namespace(&format!("c{worker}-{number}"))?;
                own.push(Container { id: format!("{}-c{worker}-{number}", lab.name()), namespace });
            }
            all.push(own);
        }
        thread::scope(|scope| {
            let workers: Vec<_> = (0u64..)
                .zip(&all)
                .map(|(worker, containers)| {
                    let plugin = &plugin;
                    scope.spawn(move || storm(plugin, containers, seed.wrapping_add(worker)))
                })
                .collect();
            workers
                .into_iter()
                .try_for_each(|worker| worker.join().map_err(|_| anyhow!("a worker panicked"))?)
        })?;

        // Half of them live on, the runtime has forgotten the others.
        let containers: Vec<&Container> = all.iter().flatten().collect();
        let (living, forgotten) = containers.split_at(containers.len() / 2);
        let mut held = BTreeSet::new();
        for container in living {
            plugin.call("DEL", &container.id, &container.namespace.path())?.result()?;
            let added = plugin.call("ADD", &container.id, &container.namespace.path())?.result()?;
            for address in addresses(&added)? {
                ensure!(held.insert(address), "{address} was given twice");
                ping(&node.namespace, address)?;
            }
        }
        let in_use: Vec<&str> = living.iter().map(|container| container.id.as_str()).collect();
        plugin.collect_garbage(&in_use)?.result()?;
        ensure!(told(&node)? == held, "the store has {:?}, pods have {held:?}", told(&node)?);
        ensure!(host_links(&node)? == living.len(), "{} links for {} pods", host_links(&node)?, living.len());
        let check = node.weft.weftctl("ipam check")?;
        ensure!(check.status.success(), "weftctl ipam check: {}{}", check.stdout, check.stderr);
        for container in forgotten {
            let links =
                container.namespace.exec("ip -o link show", Duration::from_secs(5))?.success()?.stdout;
            ensure!(!links.contains("eth0"), "{} kept its interface: {links}", container.id);
        }

        plugin.collect_garbage(&[])?.result()?;
        ensure!(told(&node)?.is_empty() && host_links(&node)? == 0, "GC of everything left something");
        // Every address can be had: none is lost.
        for container in &containers {
            plugin.call("ADD", &container.id, &container.namespace.path())?.result()?;
        }
        Ok(())
    });
    outcome.with_context(|| format!("with seed {seed}"))
}
