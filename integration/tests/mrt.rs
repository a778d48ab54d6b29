//! MRT files (RFC 6396), read by other people's programs: bgpdump and GoBGP.

#![allow(clippy::indexing_slicing, reason = "a panic fails the test, which is what it is for")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ipnet::IpNet;
use serde_json::{Value, json};
use weft_bgp::policy::Community;
use weft_integration::daemon::{Family, Neighbor, Router, RouterConfig, Software, router};
use weft_integration::documents;
use weft_integration::lab::Lab;
use weft_integration::link::{End, Link};
use weft_integration::node::{self, Node};
use weft_integration::process::{SHORT, foreign_program, run};
use weft_integration::wait::wait_until;

const PATIENCE: Duration = Duration::from_secs(40);
const NODE_ASN: u32 = 64601;
const ROUTER_ASN: u32 = 4_200_000_001;
const NODE: &str = "10.1.0.0";
const ROUTER: &str = "10.1.0.1";

/// A node and a BIRD, which tells blocks of both families with MED and communities over one session.
struct Pair {
    node: Node,
    router: Box<dyn Router>,
}

impl Pair {
    fn up(lab: &Lab, mrt: &Value) -> Result<Self> {
        let own = node::loopback(&Family::BOTH, 1);
        let node = Node::new(lab, "node", own.clone(), node::blocks(&Family::BOTH, 1))?;
        node.namespace.ip(&format!("addr add {} dev lo\naddr add {} dev lo", own[0], own[1]))?;
        let machine = lab.machine("tor")?;
        let link = Link::new(End::new(&node.namespace, "uplink"), End::new(&machine, "node"))?;
        link.near.add_addresses(&[format!("{NODE}/31").parse()?, "fd00:10:1::/127".parse()?])?;
        link.far.add_addresses(&[format!("{ROUTER}/31").parse()?, "fd00:10:1::1/127".parse()?])?;
        let mut config = RouterConfig::new("tor", ROUTER_ASN, [10, 0, 0, 255].into());
        config.originate = (50..90).flat_map(|index| node::blocks(&Family::BOTH, index)).collect();
        config.med = Some(7);
        config.communities =
            BTreeSet::from([Community::Standard(65001 << 16 | 9), Community::Large([64_500, 1, 2])]);
        config.neighbors.push(Neighbor {
            name: "node".to_owned(),
            address: NODE.parse()?,
            asn: NODE_ASN,
            local: ROUTER.parse()?,
            families: Family::BOTH.to_vec(),
        });
        let mut pair = Self { node, router: router(lab, &machine, Software::Bird, config)? };
        pair.write(mrt)?;
        pair.node.weft.start()?;
        pair.router.start()?;
        wait_until("the routes", PATIENCE, || {
            let peer = pair.node.weft.established(ROUTER.parse()?)?;
            ensure!(peer.accepted == 80 && peer.advertised >= 2, "{peer:?}");
            Ok(())
        })?;
        Ok(pair)
    }

    fn write(&self, mrt: &Value) -> Result<()> {
        let mut all = vec![
            documents::node("node", &[], &self.node.blocks, &self.node.addresses),
            documents::bgp_configuration(
                &json!({"asNumber": NODE_ASN, "nodeToNodeMeshEnabled": false, "mrt": mrt}),
            ),
            documents::bgp_peer("tor", "node", json!({"peerIP": ROUTER, "asNumber": ROUTER_ASN})),
        ];
        all.extend(Family::BOTH.map(documents::pod_pool));
        documents::write(&self.node.weft.manifests(), "bgp.yaml", &all)
    }

    /// What weftctl says of every path: the peer it is of, none for our own.
    fn paths(&self) -> Result<BTreeSet<(Option<String>, Route)>> {
        let routes: Vec<Value> = self.node.weft.json("routes")?;
        let mut paths = BTreeSet::new();
        for route in routes {
            for path in route["paths"].as_array().context("no paths")? {
                let words = |key: &str| -> Vec<String> {
                    path[key]
                        .as_array()
                        .into_iter()
                        .flatten()
                        .filter_map(|word| Some(word.as_str()?.to_owned()))
                        .collect()
                };
                let peer = path["peer"].as_str().map(str::to_owned);
                // What we originate has none in weftctl, and in a file the unspecified address.
                let own =
                    if route["prefix"].as_str().is_some_and(|p| p.contains(':')) { "::" } else { "0.0.0.0" };
                paths.insert((
                    peer,
                    Route {
                        prefix: route["prefix"].as_str().context("no prefix")?.parse()?,
                        as_path: path["asPath"]
                            .as_array()
                            .into_iter()
                            .flatten()
                            .filter_map(Value::as_u64)
                            .collect(),
                        next_hop: words("nextHops").first().cloned().unwrap_or(own.to_owned()),
                        med: path["med"].as_u64().unwrap_or(0),
                        communities: words("communities").into_iter().collect(),
                    },
                ));
            }
        }
        Ok(paths)
    }

    /// The files of this kind that are whole.
    fn files(&self, kind: &str) -> Result<Vec<PathBuf>> {
        let directory = self.node.weft.state_dir().join("mrt");
        let mut files = Vec::new();
        for entry in fs::read_dir(directory)? {
            let name = entry?.path();
            let text = name.to_string_lossy();
            if text.contains(&format!("/{kind}.")) && text.ends_with(".mrt") {
                files.push(name);
            }
        }
        files.sort();
        Ok(files)
    }
}

/// A route as all readers know it. A missing MED is 0.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Route {
    prefix: IpNet,
    as_path: Vec<u64>,
    next_hop: String,
    med: u64,
    communities: BTreeSet<String>,
}

/// The lines that bgpdump makes of a file, each split at the bars. What it complains of fails.
fn bgpdump(file: &Path) -> Result<Vec<Vec<String>>> {
    let program = foreign_program(&["/usr/bin/bgpdump"], "bgpdump")?;
    let said = run(Command::new(program).args(["-m", "-l", "-v"]).arg(file), SHORT)?.success()?;
    let complaints: Vec<_> = said.stderr.lines().filter(|line| !line.contains("logging to")).collect();
    ensure!(complaints.is_empty(), "{}: {complaints:?}", file.display());
    Ok(said.stdout.lines().map(|line| line.split('|').map(str::to_owned).collect()).collect())
}

/// The route of a line that tells one: type, time, what, peer, its AS, prefix, AS path, origin, next hop, LOCAL_PREF, MED, communities,
/// large communities.
fn route_of(line: &[String]) -> Result<Route> {
    ensure!(line.len() > 12, "{line:?}");
    let words = |text: &str| -> Vec<String> { text.split_whitespace().map(str::to_owned).collect() };
    Ok(Route {
        prefix: line[5].parse()?,
        as_path: words(&line[6]).iter().map(|asn| asn.parse()).collect::<Result<_, _>>()?,
        next_hop: line[8].clone(),
        med: line[10].parse()?,
        communities: words(&line[11]).into_iter().chain(words(&line[12])).collect(),
    })
}

/// Fails with what is in one alone.
fn same<T: Ord + fmt::Debug>(found: &BTreeSet<T>, expected: &BTreeSet<T>) -> Result<()> {
    let (more, less): (Vec<_>, Vec<_>) =
        (found.difference(expected).collect(), expected.difference(found).collect());
    ensure!(more.is_empty() && less.is_empty(), "not expected: {more:?}\nnot found: {less:?}");
    Ok(())
}

/// Proves RFC 6396 4.3; bgpdump.
#[test]
fn bgpdump_reads_of_a_table_what_weftctl_shows() -> Result<()> {
    Lab::test(|lab| {
        let pair = Pair::up(lab, &Value::Null)?;
        let file = pair.node.weft.run_dir().join("table.mrt");
        pair.node.weft.weftctl(&format!("mrt --write {}", file.display()))?.success()?;
        let mut paths = BTreeSet::new();
        for line in bgpdump(&file)? {
            ensure!(
                (line[0].as_str(), line[2].as_str(), line[7].as_str()) == ("TABLE_DUMP2", "B", "IGP"),
                "{line:?}"
            );
            let own = (line[3].as_str(), line[4].parse()?) == ("0.0.0.0", NODE_ASN);
            ensure!(own || (line[3].as_str(), line[4].parse()?) == (ROUTER, ROUTER_ASN), "{line:?}");
            paths.insert(((!own).then(|| line[3].clone()), route_of(&line)?));
        }
        let expected = pair.paths()?;
        ensure!(expected.len() == 80 + 4, "{expected:?}");
        same(&paths, &expected)?;

        // Standard output is as good, and a file is replaced only by a whole one.
        let again = pair.node.weft.weftctl(&format!("mrt -w {}", file.display()))?.success()?;
        ensure!(again.stdout.is_empty(), "{}", again.stdout);
        let nowhere = pair.node.weft.weftctl("mrt -w /nonexistent/table.mrt")?;
        ensure!(nowhere.status.code() == Some(2) && nowhere.stderr.contains("cannot write"), "{nowhere:?}");
        Ok(())
    })
}

/// IPv4 alone: GoBGP 3.10 takes the next hop that RFC 6396 leaves of MP_REACH_NLRI for the whole of it.
///
/// Proves RFC 6396 4.3; GoBGP.
#[test]
fn gobgp_takes_a_table_for_its_own() -> Result<()> {
    Lab::test(|lab| {
        let pair = Pair::up(lab, &Value::Null)?;
        let file = pair.node.weft.run_dir().join("table.mrt");
        pair.node.weft.weftctl(&format!("mrt --write {}", file.display()))?.success()?;
        let machine = lab.machine("collector")?;
        let config = RouterConfig::new("collector", 64_999, [10, 0, 0, 254].into());
        let mut collector = router(lab, &machine, Software::Gobgp, config)?;
        collector.start()?;
        let client = foreign_program(&["/usr/bin/gobgp"], "gobgpd")?;
        let mut inject = machine.command(client);
        inject.args(["mrt", "inject", "--no-ipv6", "global", "/dev/stdin"]);
        let mut inject = inject.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
        let mut input = inject.stdin.take().context("no standard input")?;
        input.write_all(&fs::read(file)?)?;
        let expected: Vec<_> =
            pair.paths()?.into_iter().filter(|(_, route)| route.prefix.addr().is_ipv4()).collect();
        // It ends with its input, whether all is on its way to the daemon or not.
        let table = wait_until("the routes", PATIENCE, || {
            let said = collector.ask("global rib -a ipv4 -j")?;
            let table: BTreeMap<IpNet, Value> = serde_json::from_str(&said)?;
            ensure!(table.len() == expected.len(), "{} of {}", table.len(), expected.len());
            Ok(table)
        });
        drop(input);
        inject.wait()?;
        let table = table?;
        for (_, route) in expected {
            let attributes =
                &table.get(&route.prefix).with_context(|| format!("no {}", route.prefix))?[0]["attrs"];
            let of = |code: u64| attributes.as_array().into_iter().flatten().find(move |a| a["type"] == code);
            let asns = of(2).and_then(|path| path["as_paths"][0]["asns"].as_array()).into_iter().flatten();
            let next_hop = of(3).and_then(|a| a["nexthop"].as_str()).unwrap_or_default();
            let standard = of(8).and_then(|c| c["communities"][0].as_u64());
            let standard = standard.map(|c| format!("{}:{}", c >> 16, c & 0xffff));
            let wanted = route.communities.iter().find(|c| c.split(':').count() == 2).cloned();
            ensure!(
                asns.filter_map(Value::as_u64).eq(route.as_path.iter().copied()),
                "{route:?}: {attributes}"
            );
            ensure!(next_hop == route.next_hop && standard == wanted, "{route:?}: {attributes}");
            let med = of(4).map_or(0, |med| med["metric"].as_u64().unwrap_or(0));
            ensure!(
                med == route.med && of(32).is_some() == (route.communities.len() == 2),
                "{route:?}: {attributes}"
            );
        }
        Ok(())
    })
}

/// Proves RFC 6396 3, RFC 6396 4.4; bgpdump.
#[test]
fn bgpdump_reads_each_message_and_state_as_they_pass() -> Result<()> {
    Lab::test(|lab| {
        let mut pair = Pair::up(lab, &json!({"updates": {"rotateAfter": "1s"}, "tables": {}}))?;
        let told: BTreeSet<_> =
            pair.paths()?.into_iter().filter_map(|(peer, route)| peer.map(|_| route)).collect();
        // Of a session that was there before anything was written, not all is.
        wait_until("the first file", PATIENCE, || {
            ensure!(!pair.files("updates")?.is_empty(), "there is none");
            Ok(())
        })?;
        let before = pair.node.weft.established(ROUTER.parse()?)?.since;
        pair.node.weft.weftctl(&format!("clear {ROUTER}"))?.success()?;
        wait_until("the next session and its routes", PATIENCE, || {
            let peer = pair.node.weft.established(ROUTER.parse()?)?;
            ensure!(peer.since != before && peer.received == told.len() as u64, "{peer:?}");
            Ok(())
        })?;
        pair.router.originate(&BTreeSet::new())?;
        wait_until("the withdraws", PATIENCE, || {
            let peer = pair.node.weft.established(ROUTER.parse()?)?;
            ensure!(peer.received == 0, "{peer:?}");
            Ok(())
        })?;
        // Whatever passes once the first one is old enough begins the next.
        wait_until("the second file", PATIENCE, || {
            let files = pair.files("updates")?;
            ensure!(files.len() > 1, "{files:?}");
            Ok(())
        })?;
        // Its last words are among it.
        pair.node.weft.terminate()?;

        let (mut announced, mut withdrawn, mut sent) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let mut states = Vec::new();
        let files = pair.files("updates")?;
        for line in files.iter().map(|file| bgpdump(file)).collect::<Result<Vec<_>>>()?.into_iter().flatten()
        {
            ensure!(line[0].starts_with("BGP4MP"), "{line:?}");
            match line[2].as_str() {
                "STATE" => states.push((line[5].clone(), line[6].clone())),
                "A" if line[6] == ROUTER_ASN.to_string() => drop(announced.insert(route_of(&line)?)),
                "A" => drop(sent.insert(route_of(&line)?.prefix)),
                "W" => drop(withdrawn.insert(line[5].parse::<IpNet>()?)),
                _ => {}
            }
        }
        same(&announced, &told)?;
        same(&withdrawn, &told.iter().map(|route| route.prefix).collect())?;
        ensure!(pair.node.blocks.iter().all(|block| sent.contains(block)), "{sent:?}");
        let number = |from: &str, to: &str| (from.to_owned(), to.to_owned());
        let ended = states.iter().any(|(from, _)| from == "6");
        ensure!(ended && states.contains(&number("5", "6")), "{states:?}");

        let tables = pair.files("rib")?;
        ensure!(tables.len() == 1 && !bgpdump(&tables[0])?.is_empty(), "{tables:?}");
        Ok(())
    })
}

/// What it costs shows in status and metrics, and a directory that cannot be written is a problem and not BGP's.
#[test]
fn files_are_counted_and_a_disk_that_takes_nothing_is_a_problem() -> Result<()> {
    Lab::test(|lab| {
        let pair = Pair::up(lab, &Value::Null)?;
        ensure!(pair.node.weft.status()?["mrt"].is_null(), "nothing was asked for");
        let directory = pair.node.weft.state_dir().join("mrt");
        ensure!(!directory.exists(), "a directory that nobody asked for");
        fs::write(&directory, "in the way")?;
        pair.write(&json!({"updates": {}, "tables": {"interval": "1m"}}))?;
        let problem = |code: &str| -> Result<Option<Value>> {
            let status = pair.node.weft.status()?;
            let problems = status["problems"].as_array().context("no problems")?.clone();
            Ok(problems.into_iter().find(|problem| problem["code"] == code))
        };
        wait_until("the problem", PATIENCE, || {
            let found = problem("mrt-not-written")?.context("no problem")?;
            ensure!(found["severity"] == "warning", "{found}");
            ensure!(found["text"].as_str().is_some_and(|text| text.contains("mrt: ")), "{found}");
            let (_, metrics) = pair.node.weft.http("/metrics")?;
            ensure!(metrics.contains("weft_mrt_tables_total{result=\"failed\"} 1"), "{metrics}");
            Ok(())
        })?;
        pair.node.weft.established(ROUTER.parse()?)?;

        fs::remove_file(&directory)?;
        wait_until("records", PATIENCE, || {
            let status = pair.node.weft.status()?;
            ensure!(status["mrt"]["records"].as_u64() > Some(0), "{}", status["mrt"]);
            ensure!(status["mrt"]["updatesFile"].is_string(), "{}", status["mrt"]);
            ensure!(problem("mrt-not-written")?.is_none(), "{status}");
            Ok(())
        })?;
        let (_, metrics) = pair.node.weft.http("/metrics")?;
        ensure!(metrics.contains("weft_mrt_files"), "{metrics}");

        pair.write(&Value::Null)?;
        wait_until("the end of it", PATIENCE, || {
            ensure!(pair.node.weft.status()?["mrt"].is_null(), "there still");
            Ok(())
        })
    })
}
