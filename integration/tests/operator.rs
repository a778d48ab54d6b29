//! What an operator sees of a session and does to it, with other people's daemons at the other end.

#![allow(clippy::indexing_slicing, reason = "a panic fails the test, which is what it is for")]

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use weft_integration::daemon::{Family, Software};
use weft_integration::fabric::{Fabric, FabricSpec};
use weft_integration::lab::Lab;
use weft_integration::node::{self, Node};
use weft_integration::wait::wait_until;

const PATIENCE: Duration = Duration::from_secs(40);
const TOR: &str = "10.1.0.1";

fn one_node(lab: &Lab, tor: Software) -> Result<Fabric> {
    Fabric::up(lab, FabricSpec { nodes_per_rack: 1, pods_per_node: 1, ..FabricSpec::one_rack(tor) })
}

fn peer(node: &Node) -> Result<Value> {
    let peers: Vec<Value> = node.weft.json(&format!("peers {TOR}"))?;
    peers.into_iter().next().context("no such peer")
}

/// The names of the capabilities of an OPEN.
fn capabilities(open: &Value) -> Vec<&str> {
    open["capabilities"].as_array().into_iter().flatten().filter_map(|c| c["name"].as_str()).collect()
}

#[test]
fn both_ends_opens_are_shown_as_each_said_them() -> Result<()> {
    Lab::test(|lab| {
        let fabric = one_node(lab, Software::Frr)?;
        let node = fabric.node("a1")?;
        let peer = peer(node)?;
        let (sent, received) = (&peer["opens"]["sent"], &peer["opens"]["received"]);
        ensure!(sent["as"] == peer["localAS"] && received["as"] == peer["remoteAS"], "{peer}");
        for (open, besides) in [(sent, "extended-message"), (received, "fqdn")] {
            let names = capabilities(open);
            for name in ["multiprotocol", "four-octet-as", "graceful-restart", besides] {
                ensure!(names.contains(&name), "{names:?} without {name}");
            }
        }
        let address = peer["connection"]["remote"].as_str().context("no connection")?;
        ensure!(address.starts_with(&format!("{TOR}:")), "{address}");
        ensure!(peer["timerExpiries"]["hold"].is_string() && peer["lastEstablished"].is_string(), "{peer}");
        wait_until("messages to be counted", PATIENCE, || {
            let messages = self::peer(node)?["messages"].clone();
            let counted = |way: &str, kind: &str| messages[way][kind].as_u64() >= Some(1);
            ensure!(counted("sent", "open") && counted("received", "update"), "{messages}");
            Ok(())
        })
    })
}

/// Proves RFC 2918 4, RFC 4486 4, RFC 9003 2; BIRD.
#[test]
fn rfc4486_a_cleared_session_is_back_at_once_and_rfc2918_a_soft_clear_leaves_it_alone() -> Result<()> {
    Lab::test(|lab| {
        let mut fabric = one_node(lab, Software::Bird)?;
        let block = node::blocks(&[Family::V4], 99)[0];
        fabric.router_mut("tor-a")?.originate(&[block].into())?;
        let node = fabric.node("a1")?;
        let address: IpAddr = TOR.parse()?;
        let before = node.weft.established(address)?;
        let refreshes = || -> Result<u64> {
            peer(node)?["messages"]["sent"]["routeRefresh"].as_u64().context("it is not counted")
        };
        // A request of each family; a beginning and an end of each, as BIRD knows RFC 7313.
        for (soft, messages) in [("in", 2), ("out", 4)] {
            let before = refreshes()?;
            let cleared = node.weft.weftctl(&format!("clear {TOR} --soft {soft}"))?;
            ensure!(cleared.status.success(), "{}", cleared.stderr);
            wait_until(format!("the refresh {soft}"), PATIENCE, || {
                let sent = refreshes()? - before;
                ensure!(sent == messages, "{sent} ROUTE-REFRESHes");
                Ok(())
            })?;
        }
        let after = node.weft.established(address)?;
        ensure!(after.since == before.since, "a soft clear made it flap: {after:?}");

        let cleared = node.weft.weftctl("clear all")?;
        ensure!(cleared.status.success() && cleared.stdout.contains("begins anew"), "{}", cleared.stderr);
        wait_until("another session", PATIENCE, || {
            let now = node.weft.established(address)?;
            ensure!(now.since != before.since, "it is the same");
            Ok(())
        })?;
        let notification = peer(node)?["notifications"]["sent"].clone();
        ensure!(notification["code"] == 6 && notification["subcode"] == 4, "{notification}");
        let events: Vec<Value> = node.weft.json("events")?;
        ensure!(events.iter().any(|event| event["kind"] == "clear" && event["peer"] == TOR), "{events:?}");

        let unknown = node.weft.weftctl("clear 192.0.2.99")?;
        ensure!(unknown.status.code() == Some(1) && unknown.stderr.contains(TOR), "{}", unknown.stderr);

        // What the other end's operator does is told in his words (RFC 9003).
        fabric.routers[0].router.ask("disable neighbor0 \"by hand\"")?;
        wait_until("the NOTIFICATION", PATIENCE, || {
            let notification = peer(node)?["notifications"]["received"].clone();
            ensure!(notification["text"] == "by hand" && notification["subcode"] == 2, "{notification}");
            Ok(())
        })?;
        wait_until("the history of the block", PATIENCE, || {
            let events: Vec<Value> = node.weft.json(&format!("events --prefix {block} --peer {TOR}"))?;
            let texts: Vec<&str> = events.iter().filter_map(|event| event["text"].as_str()).collect();
            let tells = |what: &str| texts.iter().any(|text| text.contains(what));
            ensure!(tells("is the best path") && tells("no path any more"), "{texts:?}");
            ensure!(events.iter().all(|event| event["prefix"] == block.to_string()), "{events:?}");
            Ok(())
        })?;
        let refused = node.weft.weftctl(&format!("clear {TOR} --soft in"))?;
        ensure!(
            refused.status.code() == Some(1) && refused.stderr.contains("not Established"),
            "{}",
            refused.stderr
        );
        Ok(())
    })
}
