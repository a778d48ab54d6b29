//! weftd tells a monitoring station (RFC 7854) what its RIBs hold, and tshark reads it: what a BIRD peer announced and is told.

#![allow(clippy::indexing_slicing, reason = "a panic fails the test, which is what it is for")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ipnet::IpNet;
use serde_json::{Value, json};
use weft_integration::daemon::{Family, Neighbor, Router, RouterConfig, Software, router};
use weft_integration::documents;
use weft_integration::lab::Lab;
use weft_integration::link::{End, Link};
use weft_integration::netns::Namespace;
use weft_integration::node::{self, Node};
use weft_integration::station::{Message, Station};
use weft_integration::wait::wait_until;

const PATIENCE: Duration = Duration::from_secs(60);
const NODE_ASN: u32 = 64601;
const ROUTER_ASN: u32 = 65001;
const NODE: &str = "10.1.0.0";
const ROUTER: &str = "10.1.0.1";
const STATION: &str = "10.9.0.1:11019";

/// A node, a router with a session over both families, and a machine for the station.
struct Site {
    node: Node,
    router: Box<dyn Router>,
    machine: Namespace,
    link: Link,
}

impl Site {
    fn up(lab: &Lab) -> Result<Self> {
        let own = node::loopback(&Family::BOTH, 1);
        let node = Node::new(lab, "node", own.clone(), node::blocks(&Family::BOTH, 1))?;
        node.namespace.ip(&format!("addr add {} dev lo\naddr add {} dev lo", own[0], own[1]))?;
        let tor = lab.machine("tor")?;
        let link = Link::new(End::new(&node.namespace, "uplink"), End::new(&tor, "node"))?;
        link.near.add_addresses(&[format!("{NODE}/31").parse()?, "fd00:10:1::/127".parse()?])?;
        link.far.add_addresses(&[format!("{ROUTER}/31").parse()?, "fd00:10:1::1/127".parse()?])?;
        let machine = lab.machine("station")?;
        let link = Link::new(End::new(&node.namespace, "monitor"), End::new(&machine, "node"))?;
        link.near.add_addresses(&["10.9.0.0/31".parse()?])?;
        link.far.add_addresses(&["10.9.0.1/31".parse()?])?;
        let mut config = RouterConfig::new("tor", ROUTER_ASN, [10, 0, 0, 255].into());
        config.originate = node::blocks(&Family::BOTH, 99).into_iter().collect();
        config.neighbors.push(Neighbor {
            name: "node".to_owned(),
            address: NODE.parse()?,
            asn: NODE_ASN,
            local: ROUTER.parse()?,
            families: Family::BOTH.to_vec(),
        });
        let router = router(lab, &tor, Software::Bird, config)?;
        let mut all = vec![
            documents::node("node", &[], &node.blocks, &node.addresses),
            documents::bgp_configuration(&json!({
                "asNumber": NODE_ASN, "nodeToNodeMeshEnabled": false,
                "bmp": [{
                    "address": STATION, "statisticsInterval": "1s",
                    "monitor": ["AdjRIBInPrePolicy", "AdjRIBInPostPolicy", "AdjRIBOutPostPolicy", "LocRIB"],
                }],
            })),
            documents::bgp_peer("tor", "node", json!({"peerIP": ROUTER, "asNumber": ROUTER_ASN})),
        ];
        all.extend(Family::BOTH.map(documents::pod_pool));
        documents::write(&node.weft.manifests(), "bgp.yaml", &all)?;
        let mut site = Self { node, router, machine, link };
        site.node.weft.start()?;
        site.router.start()?;
        Ok(site)
    }

    fn listen(&self) -> Result<Station> {
        Station::listen(&self.machine, STATION.parse()?)
    }

    /// The station, as weftctl tells it.
    fn station(&self) -> Result<Value> {
        let stations: Vec<Value> = self.node.weft.json("bmp")?;
        stations.into_iter().next().context("no station")
    }

    fn metric(&self, name: &str) -> Result<u64> {
        let (_, text) = self.node.weft.http("/metrics")?;
        let line = text.lines().find(|line| line.starts_with(name)).with_context(|| format!("no {name}"))?;
        Ok(line.rsplit(' ').next().unwrap_or_default().parse()?)
    }

    fn wait_converged(&self) -> Result<()> {
        wait_until("session and routes", PATIENCE, || {
            self.node.weft.established(ROUTER.parse::<IpAddr>()?)?;
            let theirs = node::blocks(&Family::BOTH, 99);
            theirs.iter().try_for_each(|block| self.node.weft.forwards(*block).map(drop))?;
            self.node.blocks.iter().try_for_each(|block| self.router.best(*block).map(drop))
        })
    }
}

/// What the messages come to: prefixes and their paths, by peer type and flags.
type Tables = BTreeMap<(String, String), BTreeMap<String, Path>>;

/// AS path and next hop.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Path {
    as_path: Vec<String>,
    next_hop: String,
}

fn applied(messages: &[Message]) -> Tables {
    let mut tables = Tables::new();
    for message in messages.iter().filter(|message| message.one("bmp.type") == "0") {
        let key = (message.one("bmp.peer.type").to_owned(), message.one("bmp.peer.flags").to_owned());
        let table = tables.entry(key).or_default();
        let (announced, withdrawn) = message.prefixes();
        withdrawn.iter().for_each(|prefix| drop(table.remove(prefix)));
        let hop = |field| message.one(&format!("bgp.update.path_attribute.{field}")).to_owned();
        let hops = [hop("next_hop"), hop("mp_reach_nlri.next_hop.ipv6")];
        let path = Path {
            as_path: message.all("bgp.update.path_attribute.as_path_segment.as4").to_vec(),
            next_hop: hops.concat(),
        };
        table.extend(announced.into_iter().map(|prefix| (prefix, path.clone())));
    }
    tables
}

/// What the tables should be, where BIRD announces these blocks.
fn expected(theirs: &[IpNet], ours: &[IpNet]) -> Tables {
    let paths = |blocks: &[IpNet], as_path: &[u32], hops: [&str; 2]| -> BTreeMap<String, Path> {
        let path = |block: &IpNet| Path {
            as_path: as_path.iter().map(u32::to_string).collect(),
            next_hop: hops[usize::from(block.addr().is_ipv6())].to_owned(),
        };
        blocks.iter().map(|block| (block.to_string(), path(block))).collect()
    };
    let received = paths(theirs, &[ROUTER_ASN], [ROUTER, "fd00:10:1::1"]);
    let told = paths(ours, &[NODE_ASN], [NODE, "fd00:10:1::"]);
    let mut best = received.clone();
    best.extend(paths(ours, &[], ["0.0.0.0", "::"]));
    let table = |kind: &str, flags: &str, table| ((kind.to_owned(), flags.to_owned()), table);
    BTreeMap::from([
        table("0", "0x00", received.clone()),
        table("0", "0x40", received),
        table("0", "0x50", told),
        table("3", "0x00", best),
    ])
}

/// Whether the station knows what it should, once the node's own addresses are left out.
fn knows(messages: &[Message], theirs: &[IpNet], node: &Node) -> Result<()> {
    let mut known = applied(messages);
    let own: BTreeSet<String> = node.addresses.iter().map(|a| IpNet::from(*a).to_string()).collect();
    known.values_mut().for_each(|table| table.retain(|prefix, _| !own.contains(prefix)));
    let wanted = expected(theirs, &node.blocks);
    ensure!(known == wanted, "the station knows {known:#?}, not {wanted:#?}");
    Ok(())
}

fn of_type<'a>(messages: &'a [Message], kind: &str) -> Vec<&'a Message> {
    messages.iter().filter(|message| message.one("bmp.type") == kind).collect()
}

/// tshark's word for each kind of what is noteworthy about a message; errors are what is malformed.
fn ensure_well_formed(messages: &[Message]) -> Result<()> {
    const ERROR: u64 = 0x0080_0000;
    for message in messages {
        for severity in message.all("_ws.expert.severity") {
            ensure!(severity.parse::<u64>()? < ERROR, "tshark finds something malformed: {message:?}");
        }
    }
    Ok(())
}

/// Proves RFC 7854, RFC 8671, RFC 9069; BIRD, tshark.
#[test]
fn tshark_reads_what_bird_announced_and_is_told() -> Result<()> {
    Lab::test(|lab| {
        let mut site = Site::up(lab)?;
        let station = site.listen()?;
        site.wait_converged()?;
        let theirs = node::blocks(&Family::BOTH, 99);
        let messages = wait_until("the station to know", PATIENCE, || {
            let messages = station.read_by_tshark(lab)?;
            knows(&messages, &theirs, &site.node)?;
            ensure!(!of_type(&messages, "1").is_empty(), "no Statistics Report");
            Ok(messages)
        })?;
        ensure_well_formed(&messages)?;
        let first = messages.first().context("there are some")?;
        ensure!(first.one("bmp.type") == "4", "{first:?}");
        ensure!(first.all("bmp.init.info").iter().any(|info| info == "node"), "{first:?}");
        let ups = of_type(&messages, "3");
        let peers: BTreeSet<_> = ups
            .iter()
            .map(|up| ["bmp.peer.type", "bmp.peer.ip.addr", "bmp.peer.asn"].map(|f| up.one(f)))
            .collect();
        let (router, node) = (ROUTER_ASN.to_string(), NODE_ASN.to_string());
        let wanted = BTreeSet::from([["0", ROUTER, router.as_str()], ["3", "0.0.0.0", node.as_str()]]);
        ensure!(peers == wanted, "{peers:?}");
        let named =
            station.messages()?.iter().filter(|message| message.ends_with(b"\0\x03\0\x06global")).count();
        ensure!(named == 1, "{named} tables have a name");

        // Another block in the place of its first: one is withdrawn, one comes.
        let other = [node::block(Family::V4, 98), node::block(Family::V6, 99)];
        site.router.originate(&other.into_iter().collect())?;
        let messages = wait_until("the station to know of the change", PATIENCE, || {
            let messages = station.read_by_tshark(lab)?;
            knows(&messages, &other, &site.node).map(|()| messages)
        })?;
        ensure_well_formed(&messages)?;

        ensure!(site.node.weft.weftctl(&format!("clear {ROUTER}"))?.status.success(), "cannot clear");
        let messages = wait_until("a Peer Down, and all again", PATIENCE, || {
            let messages = station.read_by_tshark(lab)?;
            let downs = of_type(&messages, "2");
            ensure!(downs.iter().any(|down| down.one("bmp.peer.down.reason") == "1"), "{downs:?}");
            let ups = of_type(&messages, "3").len();
            ensure!(ups == 3, "{ups} Peer Ups");
            knows(&messages, &other, &site.node).map(|()| messages)
        })?;
        ensure_well_formed(&messages)?;
        ensure!(station.connections() == 1, "{} connections", station.connections());
        let told = site.station()?;
        // The first dial may have come before it listened.
        ensure!(told["connected"] == true && told["connects"] == 1, "{told}");
        ensure!(site.metric("weft_bmp_messages_total")? >= u64::try_from(messages.len())?, "{told}");
        ensure!(site.metric("weft_bmp_station_connected")? == 1, "{told}");

        site.node.weft.terminate()?;
        wait_until("a Termination", PATIENCE, || {
            let messages = station.read_by_tshark(lab)?;
            ensure!(messages.last().is_some_and(|last| last.one("bmp.type") == "5"), "{:?}", messages.last());
            Ok(())
        })
    })
}

/// Proves RFC 7854 3.2; BIRD, tshark.
#[test]
fn a_station_that_was_away_is_told_all_and_no_session_is_moved() -> Result<()> {
    Lab::test(|lab| {
        let mut site = Site::up(lab)?;
        // Nobody listens yet.
        site.wait_converged()?;
        let theirs = node::blocks(&Family::BOTH, 99);
        let told = site.station()?;
        ensure!(told["connected"] == false && told["lastError"]["text"].is_string(), "{told}");
        let knows_all = |station: &Station, theirs: &[IpNet], when: &str| {
            wait_until(format!("the station to know, {when}"), PATIENCE, || {
                knows(&station.read_by_tshark(lab)?, theirs, &site.node)
            })
        };
        let station = site.listen()?;
        knows_all(&station, &theirs, "once it listens")?;

        drop(station);
        wait_until("the node to see that it is gone", PATIENCE, || {
            let told = site.station()?;
            ensure!(told["connected"] == false, "{told}");
            Ok(())
        })?;
        let station = site.listen()?;
        knows_all(&station, &theirs, "after it was killed")?;

        // What changes while it is cut off arrives later, on the same connection.
        site.link.cut()?;
        let other = [node::block(Family::V4, 98), node::block(Family::V6, 99)];
        site.router.originate(&other.into_iter().collect())?;
        wait_until("the node to have the other block", PATIENCE, || {
            site.node.weft.forwards(other[0]).map(drop)
        })?;
        site.link.heal()?;
        knows_all(&station, &other, "after it was cut off")?;
        ensure!(station.connections() == 1, "{} connections", station.connections());
        let flaps = site.metric("weft_bgp_session_flaps_total")?;
        ensure!(flaps == 0, "{flaps} flaps");

        site.node.weft.kill9()?;
        site.node.weft.start()?;
        wait_until("the station to know of the next weftd", PATIENCE, || {
            ensure!(station.connections() == 2, "{} connections", station.connections());
            knows(&station.read_by_tshark(lab)?, &other, &site.node)
        })
    })
}
