//! What pods send under addresses that are not theirs: dropped, counted and shown.

#![allow(clippy::indexing_slicing, reason = "a panic fails the test, which is what it is for")]

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use weft_integration::daemon::Family;
use weft_integration::lab::Lab;
use weft_integration::lan::{Lan, LanSpec};
use weft_integration::netns::Namespace;
use weft_integration::node::Node;
use weft_integration::pod::Pod;
use weft_integration::probe;
use weft_integration::process::SHORT;
use weft_integration::wait::wait_until;

/// Longer than weftd takes from one look at its counters to the next.
const AUDIT: Duration = Duration::from_secs(45);
/// How soon what somebody did to the tables is undone: it is heard of, not found by the audit.
const SOON: Duration = Duration::from_secs(10);
/// How many datagrams a forger sends.
const FORGED: u64 = 5;

fn lan(lab: &Lab) -> Result<Lan> {
    let lan = Lan::up(lab, LanSpec { nodes: vec![2], families: Family::BOTH.to_vec(), pods_per_node: 2 })?;
    weft_integration::fabric::wait_reachable(&lan.nodes, Duration::from_secs(20))?;
    Ok(lan)
}

/// The counter of one family, straight from the kernel.
fn dropped(node: &Node, family: Family) -> Result<u64> {
    let name = match family {
        Family::V4 => "spoofed-ipv4",
        Family::V6 => "spoofed-ipv6",
    };
    let said = node
        .namespace
        .exec(&format!("nft -j list counter inet weft {name}"), SHORT)?
        .success()
        .context("the guard's counter")?
        .stdout;
    let json: Value = serde_json::from_str(&said)?;
    let counter = json["nftables"].as_array().into_iter().flatten().find_map(|object| object.get("counter"));
    counter.and_then(|counter| counter["packets"].as_u64()).with_context(|| format!("no counter in {said}"))
}

/// Sends datagrams from a pod with the source `forged`.
fn forge(pod: &Pod, forged: IpAddr, to: SocketAddr) -> Result<()> {
    let nodad = if forged.is_ipv6() { " nodad" } else { "" };
    pod.namespace.ip(&format!("addr add {forged} dev lo{nodad}"))?;
    pod.namespace.run(|| -> Result<()> {
        let socket = UdpSocket::bind((forged, 0))?;
        for _ in 0..FORGED {
            socket.send_to(b"forged", to)?;
        }
        Ok(())
    })??;
    pod.namespace.ip(&format!("addr del {forged} dev lo"))
}

/// A socket that takes whatever reaches `address`.
fn receiver(namespace: &Namespace, address: IpAddr) -> Result<UdpSocket> {
    let socket = namespace.run(|| UdpSocket::bind((address, 0)))??;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// The source of everything that has reached a socket.
fn sources(socket: &UdpSocket) -> Vec<IpAddr> {
    let mut bytes = [0; 64];
    std::iter::from_fn(|| socket.recv_from(&mut bytes).ok().map(|(_, from)| from.ip())).collect()
}

#[test]
fn forged_sources_are_dropped_and_counted_in_both_families() -> Result<()> {
    Lab::test(|lab| {
        let lan = lan(lab)?;
        let (here, there) = (&lan.nodes[0], &lan.nodes[1]);
        let forger = &here.pods[0];
        for family in Family::BOTH {
            let outside = match family {
                Family::V4 => "198.51.100.7".parse()?,
                Family::V6 => "2001:db8:7::7".parse()?,
            };
            let foreign = [
                ("a pod of the same node", here.pods[1].address(family)?),
                ("a pod of another node", there.pods[1].address(family)?),
                ("the node itself", here.address(family)?),
                ("the outside", outside),
            ];
            // The victim on the other node answers to none of the addresses forged.
            let victim = there.pods[0].address(family)?;
            let socket = receiver(&there.pods[0].namespace, victim)?;
            for (whose, address) in foreign {
                let before = dropped(here, family)?;
                forge(forger, address, SocketAddr::new(victim, socket.local_addr()?.port()))?;
                let after = dropped(here, family)?;
                ensure!(
                    after == before + FORGED,
                    "{family:?}, the address of {whose}: {before} dropped before, {after} after"
                );
            }
            // What the pod sends under its own address comes by the same way, behind all that was forged.
            probe::ping(&forger.namespace, victim)?;
            let arrived = sources(&socket);
            ensure!(arrived.is_empty(), "{family:?}: forged packets arrived from {arrived:?}");
        }
        Ok(())
    })
}

#[test]
fn an_honest_pod_is_not_counted_and_a_forger_shows_in_the_status() -> Result<()> {
    Lab::test(|lab| {
        let lan = lan(lab)?;
        let (here, there) = (&lan.nodes[0], &lan.nodes[1]);
        let pod = &here.pods[0];
        for family in Family::BOTH {
            let target = there.pods[0].address(family)?;
            let seen = probe::tcp(&pod.namespace, &there.pods[0].namespace, target)?;
            ensure!(seen == pod.address(family)?, "{target} saw {seen}");
            probe::ping(&pod.namespace, here.pods[1].address(family)?)?;
            probe::ping(&pod.namespace, here.address(family)?)?;
            ensure!(dropped(here, family)? == 0, "honest {family:?} packets were dropped");
            forge(pod, here.pods[1].address(family)?, SocketAddr::new(target, 9))?;
        }
        wait_until("the drops in the status and the metrics", AUDIT, || {
            let spoofed = here.weft.status()?["spoofed"].clone();
            ensure!(spoofed["ipv4"] == FORGED && spoofed["ipv6"] == FORGED, "{spoofed}");
            let (_, metrics) = here.weft.http("/metrics")?;
            for family in ["ipv4", "ipv6"] {
                let series = format!("weft_spoofed_packets_dropped_total{{family=\"{family}\"}} {FORGED}");
                ensure!(metrics.contains(&series), "no {series}");
            }
            Ok(())
        })
    })
}

#[test]
fn the_guard_stays_when_weftd_stops_and_comes_back_when_it_is_taken_away() -> Result<()> {
    Lab::test(|lab| {
        let mut lan = lan(lab)?;
        let node = &mut lan.nodes[0];
        node.weft.kill9()?;
        let there = node.pods[1].address(Family::V6)?;
        forge(&node.pods[0], "2001:db8:7::7".parse()?, SocketAddr::new(there, 9))?;
        ensure!(dropped(node, Family::V6)? == FORGED, "nothing was dropped without weftd");
        node.weft.start()?;
        node.weft.wait_answers()?;
        ensure!(dropped(node, Family::V6)? == FORGED, "the counter began anew");
        node.namespace.exec("nft delete table inet weft", SHORT)?.success()?;
        wait_until("the guard to be put back", SOON, || dropped(node, Family::V6).map(drop))
    })
}
