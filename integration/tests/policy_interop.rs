//! What filters match and change, with other people's daemons on both sides: one router tells, the other is told, a weftd passes on.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a panic fails the test, which is what it is for"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ipnet::IpNet;
use serde_json::{Value, json};
use weft_bgp::policy::Community;
use weft_bgp::role::Role;
use weft_integration::daemon::weft::RoutePath;
use weft_integration::daemon::{Family, Neighbor, Path, Router, RouterConfig, Software, router};
use weft_integration::documents;
use weft_integration::lab::Lab;
use weft_integration::link::{End, Link};
use weft_integration::node::{self, Node};
use weft_integration::wait::wait_until;

const PATIENCE: Duration = Duration::from_secs(40);
const NODE_ASN: u32 = 64601;
/// A private AS: that of the router on the left.
const LEFT_ASN: u32 = 65001;
/// What the router on the left attaches to its routes.
const ATTACHED: [&str; 4] = ["65001:7", "65001:8", "rt:65001:5", "65001:1:2"];

/// A node between two routers. Each router has a session over each family, for that family.
struct Line {
    node: Node,
    left: Box<dyn Router>,
    right: Box<dyn Router>,
    right_asn: u32,
}

fn ends(cable: u8) -> Result<[(IpAddr, IpAddr); 2]> {
    let (low, high) = (2 * cable, 2 * cable + 1);
    Ok([
        (format!("10.1.0.{low}").parse()?, format!("10.1.0.{high}").parse()?),
        (format!("fd00:10:1:{cable}::").parse()?, format!("fd00:10:1:{cable}::1").parse()?),
    ])
}

impl Line {
    fn up(lab: &Lab, software: [Software; 2], right_asn: u32) -> Result<Self> {
        Self::attaching(lab, software, right_asn, &ATTACHED)
    }

    /// The same, where the left router attaches these communities.
    fn attaching(lab: &Lab, software: [Software; 2], right_asn: u32, attached: &[&str]) -> Result<Self> {
        let line = Self::start(lab, software, right_asn, |config| {
            if config.name == "left" {
                config.communities = communities(attached);
                config.med = Some(30);
            }
        })?;
        wait_until("all sessions", PATIENCE, || line.established().map(drop))?;
        Ok(line)
    }

    /// The same, where each router's configuration has these changes; the sessions need not come up.
    fn start(
        lab: &Lab,
        [left, right]: [Software; 2],
        right_asn: u32,
        change: impl Fn(&mut RouterConfig),
    ) -> Result<Self> {
        let own = node::loopback(&Family::BOTH, 1);
        let node = Node::new(lab, "node", own.clone(), node::blocks(&Family::BOTH, 1))?;
        node.namespace.ip(&format!("addr add {} dev lo\naddr add {} dev lo", own[0], own[1]))?;
        let machine = |name: &str, software, asn, cable: u8| -> Result<Box<dyn Router>> {
            let machine = lab.machine(name)?;
            let link = Link::new(End::new(&node.namespace, name), End::new(&machine, "node"))?;
            let mut config = RouterConfig::new(name, asn, [10, 0, 0, 254 - cable].into());
            config.graceful_restart = false;
            for ((near, far), family) in ends(cable)?.into_iter().zip(Family::BOTH) {
                let length = if family == Family::V4 { 31 } else { 127 };
                link.near.add_addresses(&[IpNet::new(near, length)?])?;
                link.far.add_addresses(&[IpNet::new(far, length)?])?;
                config.neighbors.push(Neighbor {
                    name: "node".to_owned(),
                    address: near,
                    asn: NODE_ASN,
                    local: far,
                    families: vec![family],
                });
            }
            if name == "left" {
                config.originate = blocks().into_iter().collect();
            }
            change(&mut config);
            router(lab, &machine, software, config)
        };
        let left = machine("left", left, LEFT_ASN, 0)?;
        let right = machine("right", right, right_asn, 1)?;
        let mut line = Self { node, left, right, right_asn };
        let node = documents::node("node", &[], &line.node.blocks, &line.node.addresses);
        documents::write(&line.node.weft.manifests(), "node.yaml", &[node])?;
        line.write(&json!({}), &json!({}), &json!({}), &json!({}))?;
        line.node.weft.start()?;
        line.left.start()?;
        line.right.start()?;
        Ok(line)
    }

    /// Writes what the node is to do: with its configuration, with the session to the right, and with routes on the way in and out.
    fn write(&self, configuration: &Value, right: &Value, import: &Value, export: &Value) -> Result<()> {
        self.write_each(configuration, right, [import; 2], [export; 2])
    }

    /// The same, with routes of each family.
    fn write_each(
        &self,
        configuration: &Value,
        right: &Value,
        import: [&Value; 2],
        export: [&Value; 2],
    ) -> Result<()> {
        self.write_all(configuration, [&json!({}), right], import, export)
    }

    /// The same, with the session to the left too.
    fn write_all(
        &self,
        configuration: &Value,
        [left, right]: [&Value; 2],
        import: [&Value; 2],
        export: [&Value; 2],
    ) -> Result<()> {
        let configuration =
            with(json!({"asNumber": NODE_ASN, "nodeToNodeMeshEnabled": false}), configuration);
        let accept = |extra: &Value| with(json!({"action": "Accept"}), extra);
        let [import_v4, import_v6] = import.map(accept);
        let import = json!({"importV4": [import_v4], "importV6": [import_v6]});
        let own = json!({"action": "Accept"});
        let [learned_v4, learned_v6] =
            export.map(|export| with(accept(export), &json!({"source": "RemotePeers"})));
        let export = json!({"exportV4": [own, learned_v4], "exportV6": [own, learned_v6]});
        let mut all = vec![
            documents::bgp_configuration(&configuration),
            documents::resource("BGPFilter", "in", &import),
            documents::resource("BGPFilter", "out", &export),
        ];
        for (cable, (name, asn, filter)) in
            [("left", LEFT_ASN, "in"), ("right", self.right_asn, "out")].into_iter().enumerate()
        {
            for ((_, far), family) in ends(u8::try_from(cable)?)?.into_iter().zip(Family::BOTH) {
                let spec = json!({
                    "peerIP": far, "asNumber": asn, "families": [family.unicast()], "filters": [filter],
                });
                let spec = with(spec, if name == "right" { right } else { left });
                let name = format!("{name}-{}", family.unicast());
                all.push(documents::bgp_peer(&name, "node", spec));
            }
        }
        documents::write(&self.node.weft.manifests(), "bgp.yaml", &all)
    }

    /// When each session came up, by peer. What flapped has another time.
    fn established(&self) -> Result<BTreeMap<String, String>> {
        let peers = self.node.weft.peers()?;
        ensure!(peers.len() == 4, "{peers:?}");
        peers
            .into_iter()
            .map(|peer| {
                ensure!(peer.state == "Established", "{peer:?}");
                Ok((peer.peer, peer.since.context("an Established session has a time")?))
            })
            .collect()
    }

    /// Waits until the router on the right is told of every block of the left one's in this way.
    fn wait_told(&self, what: &str, is: impl Fn(&Path) -> bool) -> Result<()> {
        wait_until(what, PATIENCE, || {
            blocks().into_iter().try_for_each(|block| {
                let path = self.right.best(block)?;
                ensure!(is(&path), "{block}: {path:?}");
                Ok(())
            })
        })
    }

    fn wait_untold(&self, what: &str) -> Result<()> {
        wait_until(what, PATIENCE, || {
            blocks().into_iter().try_for_each(|block| self.right.ensure_no_path(block))
        })
    }

    /// All sessions are up, both ends have said their roles, and to the right one ours is this.
    fn ensure_roles(&self, role: Role) -> Result<()> {
        self.established()?;
        for peer in self.node.weft.json::<Vec<Value>>("peers")? {
            let own = if peer["remoteAS"] == LEFT_ASN { Role::Customer } else { role };
            let wanted = json!({"local": own.to_string(), "remote": own.counterpart().to_string()});
            ensure!(peer["role"] == wanted, "{}: {}", peer["name"], peer["role"]);
        }
        Ok(())
    }

    /// Why the right one is told a block of the left one's, or not.
    fn told_right(&self, block: IpNet) -> Result<String> {
        let peer = ends(1)?[usize::from(block.addr().is_ipv6())].1;
        let routes: Vec<Value> = self.node.weft.json(&format!("routes {block} --rib out --peer {peer}"))?;
        let code = routes.first().and_then(|route| route["paths"][0]["reason"]["code"].as_str());
        code.map(str::to_owned).with_context(|| format!("{routes:?}"))
    }

    /// The left one's paths as they were taken in, or as the left one sent them.
    fn paths(&self, received: bool) -> Result<Vec<RoutePath>> {
        let [left_v4, left_v6] = ends(0)?.map(|(_, far)| far);
        blocks()
            .into_iter()
            .map(|block| {
                let peer = if block.addr().is_ipv4() { left_v4 } else { left_v6 };
                let line = match received {
                    true => format!("routes {block} --rib in --peer {peer}"),
                    false => format!("routes {block}"),
                };
                let routes: Vec<weft_integration::daemon::weft::Route> = self.node.weft.json(&line)?;
                let path = routes.into_iter().next().and_then(|route| route.paths.into_iter().next());
                path.with_context(|| format!("no path to {block}"))
            })
            .collect()
    }
}

/// What the left one announces.
fn blocks() -> Vec<IpNet> {
    node::blocks(&Family::BOTH, 99)
}

fn communities(texts: &[&str]) -> BTreeSet<Community> {
    texts.iter().map(|text| text.parse().expect("a community")).collect()
}

fn with(mut object: Value, more: &Value) -> Value {
    if let (Some(object), Some(more)) = (object.as_object_mut(), more.as_object()) {
        object.extend(more.clone());
    }
    object
}

/// Their communities are matched and changed on the way in, ours are seen on the way out, with what else an export rule sets.
fn communities_prepend_and_med(software: [Software; 2]) -> Result<()> {
    Lab::test(|lab| {
        let line = Line::up(lab, software, 65003)?;
        let since = line.established()?;
        line.wait_told("the routes as they are", |path| path.as_path == [NODE_ASN, LEFT_ASN])?;
        let configuration = json!({
            "communities": [{"name": "seen", "value": "64601:99"}],
            "prefixAdvertisements": [
                {"cidr": "10.244.0.0/16", "communities": ["no-export", "64601:1:1"]},
                {"cidr": "fd00:10:244::/48", "communities": ["no-export", "64601:1:1"]},
            ],
        });
        let import = json!({
            "communities": {"values": ATTACHED},
            "asPathPrefix": [LEFT_ASN],
            "operations": [
                {"removeCommunity": {"value": "65001:7"}},
                {"addCommunity": {"value": "seen"}},
                {"setLocalPreference": {"value": 250}},
            ],
        });
        let export = json!({
            "communities": {"values": ["seen", "65001:1:2"]},
            "operations": [
                {"prependASPath": {"prefix": [NODE_ASN, 64999]}},
                {"addCommunity": {"value": "4200000000:2:3"}},
                {"setMED": {"value": 77}},
            ],
        });
        line.write(&configuration, &json!({}), &import, &export)?;
        let seen = communities(&["64601:99", "65001:8", "65001:1:2", "4200000000:2:3"]);
        line.wait_told("the routes as the rule makes them", |path| {
            let known = path.communities.iter().filter(|c| !matches!(c, Community::Extended(_))).copied();
            path.as_path == [NODE_ASN, NODE_ASN, 64999, LEFT_ASN]
                && path.med == Some(77)
                && known.collect::<BTreeSet<_>>() == seen
        })?;
        for (taken, received) in line.paths(false)?.iter().zip(line.paths(true)?) {
            ensure!(taken.local_pref == Some(250) && taken.med == Some(30), "{taken:?}");
            ensure!(taken.communities == ["64601:99", "65001:8", "65001:1:2"], "{taken:?}");
            ensure!(received.communities == ["65001:7", "65001:8", "65001:1:2"], "{received:?}");
            ensure!(received.local_pref.is_none(), "{received:?}");
        }
        let own = communities(&["no-export", "64601:1:1"]);
        wait_until("the communities of the node's blocks", PATIENCE, || {
            line.node.blocks.iter().try_for_each(|block| {
                let path = line.right.best(*block)?;
                ensure!(path.communities == own, "{block}: {path:?}");
                Ok(())
            })
        })?;
        // RFC 1997: what has no-export is told to no external peer.
        let unexported = json!({"operations": [{"addCommunity": {"value": "no-export"}}]});
        line.write(&configuration, &json!({}), &unexported, &json!({}))?;
        line.wait_untold("what has no-export to be withdrawn")?;
        ensure!(line.established()? == since, "a session flapped");
        Ok(())
    })
}

/// Proves RFC 1997, RFC 8092, RFC 4360; BIRD, FRR.
#[test]
fn rfc_1997_and_8092_communities_prepend_and_med_between_bird_and_frr() -> Result<()> {
    communities_prepend_and_med([Software::Bird, Software::Frr])
}

/// Proves RFC 1997, RFC 8092, RFC 4360; FRR, BIRD.
#[test]
fn rfc_1997_and_8092_communities_prepend_and_med_between_frr_and_bird() -> Result<()> {
    communities_prepend_and_med([Software::Frr, Software::Bird])
}

/// Proves RFC 1997, RFC 8092; FRR, GoBGP.
#[test]
fn rfc_1997_and_8092_communities_prepend_and_med_between_frr_and_gobgp() -> Result<()> {
    communities_prepend_and_med([Software::Frr, Software::Gobgp])
}

/// BLACKHOLE does nothing until it is granted. Then the kernel drops, nobody is told, and what is not granted is rejected.
fn blackholes(software: [Software; 2]) -> Result<()> {
    Lab::test(|lab| {
        let mut line = Line::attaching(lab, software, 65003, &["65535:666"])?;
        let since = line.established()?;
        let none = json!({});
        let kernel = |line: &Line, kind: Option<&str>| {
            blocks().into_iter().try_for_each(|block| {
                let routes = line.node.namespace.routes_to(block)?;
                // `ip -j` names no type of a unicast route.
                let found: Vec<&str> =
                    routes.iter().map(|r| r["type"].as_str().unwrap_or("unicast")).collect();
                ensure!(found == kind.into_iter().collect::<Vec<_>>(), "{block}: {routes:?}");
                Ok(())
            })
        };
        line.wait_told("the routes as they are", |path| path.as_path == [NODE_ASN, LEFT_ASN])?;
        wait_until("the kernel to forward", PATIENCE, || kernel(&line, Some("unicast")))?;

        let wholes: Vec<IpNet> =
            blocks().iter().map(|block| block.supernet().expect("a shorter one")).collect();
        line.write_all(&none, [&json!({"blackholeCIDRs": wholes}), &none], [&none; 2], [&none; 2])?;
        wait_until("the kernel to drop", PATIENCE, || kernel(&line, Some("blackhole")))?;
        line.wait_untold("nobody to be told")?;
        let fib: Vec<Value> = line.node.weft.json("fib")?;
        let dropped = fib.iter().filter(|route| route["blackhole"] == true && route["state"] == "installed");
        ensure!(dropped.count() == 2, "{fib:?}");
        let table = line.node.weft.weftctl("routes")?.stdout;
        ensure!(table.lines().filter(|line| line.contains(" blackhole ")).count() == 2, "{table}");
        ensure!(line.node.weft.http("/metrics")?.1.contains("weft_fib_blackholes 2"), "no such metric");

        let elsewhere = json!({"blackholeCIDRs": ["203.0.113.0/24", "2001:db8::/32"]});
        line.write_all(&none, [&elsewhere, &none], [&none; 2], [&none; 2])?;
        wait_until("the kernel to have none", PATIENCE, || kernel(&line, None))?;
        for path in line.paths(true)? {
            let code = path.reason.as_ref().map(|reason| reason.code.as_str());
            ensure!(code == Some("blackhole-not-granted"), "{path:?}");
        }
        line.write_all(&none, [&json!({"blackholeCIDRs": blocks()}), &none], [&none; 2], [&none; 2])?;
        wait_until("the kernel to drop again", PATIENCE, || kernel(&line, Some("blackhole")))?;
        ensure!(line.established()? == since, "a session flapped");
        line.left.originate(&BTreeSet::new())?;
        wait_until("the blackholes to be withdrawn", PATIENCE, || kernel(&line, None))
    })
}

/// Proves RFC 7999 3.3; BIRD, FRR.
#[test]
fn rfc7999_blackholes_of_bird() -> Result<()> {
    blackholes([Software::Bird, Software::Frr])
}

/// Proves RFC 7999 3.3; FRR, BIRD.
#[test]
fn rfc7999_blackholes_of_frr() -> Result<()> {
    blackholes([Software::Frr, Software::Bird])
}

/// Two sites of one AS take each other's routes only if the node puts its own AS in the place of theirs.
fn as_override(software: [Software; 2]) -> Result<()> {
    Lab::test(|lab| {
        let line = Line::up(lab, software, LEFT_ASN)?;
        let since = line.established()?;
        wait_until("the right one to be told", PATIENCE, || {
            let advertised = line.node.weft.peer(ends(1)?[0].1)?.advertised;
            ensure!(advertised > 2, "{advertised} routes");
            Ok(())
        })?;
        line.wait_untold("the right one to see a loop")?;
        let none = json!({});
        line.write(&none, &json!({"asOverride": true}), &none, &none)?;
        line.wait_told("the routes without the right one's AS", |path| path.as_path == [NODE_ASN; 2])?;
        ensure!(line.established()? == since, "a session flapped");
        Ok(())
    })
}

#[test]
fn as_override_lets_two_sites_of_one_as_meet_with_frr() -> Result<()> {
    as_override([Software::Bird, Software::Frr])
}

#[test]
fn as_override_lets_two_sites_of_one_as_meet_with_bird() -> Result<()> {
    as_override([Software::Frr, Software::Bird])
}

/// Private numbers go, and an aggregate stands in for what lies in it while anything does.
fn remove_private_as_and_aggregates(software: [Software; 2]) -> Result<()> {
    Lab::test(|lab| {
        let mut line = Line::up(lab, software, 65003)?;
        let since = line.established()?;
        line.wait_told("the routes as they are", |path| path.as_path == [NODE_ASN, LEFT_ASN])?;
        let (none, private) = (json!({}), json!({"removePrivateAS": true}));
        line.write(&none, &private, &none, &none)?;
        line.wait_told("paths without private numbers", |path| path.as_path == [NODE_ASN])?;
        let wholes: Vec<IpNet> =
            blocks().iter().map(|block| block.supernet().expect("a shorter one")).collect();
        let aggregates: Vec<Value> =
            wholes.iter().map(|whole| json!({"cidr": whole, "aggregate": "SummaryOnly"})).collect();
        line.write(&json!({"prefixAdvertisements": aggregates}), &private, &none, &none)?;
        line.wait_untold("the parts to be withdrawn")?;
        for whole in &wholes {
            wait_until(format!("the aggregate {whole}"), PATIENCE, || {
                let path = line.right.best(*whole)?;
                ensure!(path.as_path == [NODE_ASN], "{path:?}");
                let kernel = line.node.namespace.routes_to(*whole)?;
                ensure!(kernel.len() == 1 && kernel[0]["type"] == "unreachable", "{kernel:?}");
                Ok(())
            })?;
        }
        let (_, metrics) = line.node.weft.http("/metrics")?;
        ensure!(metrics.lines().any(|line| line == "weft_bgp_aggregates 2"), "{metrics}");
        line.left.originate(&BTreeSet::new())?;
        wait_until("the aggregates to go with their parts", PATIENCE, || {
            wholes.iter().try_for_each(|whole| {
                line.right.ensure_no_path(*whole)?;
                let kernel = line.node.namespace.routes_to(*whole)?;
                ensure!(kernel.is_empty(), "{kernel:?}");
                Ok(())
            })
        })?;
        ensure!(line.established()? == since, "a session flapped");
        Ok(())
    })
}

/// Proves RFC 6996; BIRD, FRR.
#[test]
fn rfc_6996_private_as_numbers_go_and_aggregates_stand_in_with_frr() -> Result<()> {
    remove_private_as_and_aggregates([Software::Bird, Software::Frr])
}

/// Proves RFC 6996; FRR, BIRD.
#[test]
fn rfc_6996_private_as_numbers_go_and_aggregates_stand_in_with_bird() -> Result<()> {
    remove_private_as_and_aggregates([Software::Frr, Software::Bird])
}

/// Whose address an internal peer is told as the next hop: what the left one said, or ours, or what a rule says.
fn next_hops(software: [Software; 2]) -> Result<()> {
    Lab::test(|lab| {
        let line = Line::up(lab, software, NODE_ASN)?;
        let since = line.established()?;
        let told = |what: &str, hops: [IpAddr; 2]| {
            wait_until(what, PATIENCE, || {
                blocks().into_iter().try_for_each(|block| {
                    // The right one knows no way to some of them: then the path is there, and not the best.
                    let paths = line.right.paths(block)?;
                    let hop = hops[usize::from(block.addr().is_ipv6())];
                    let is = |path: &Path| path.next_hops.first() == Some(&hop);
                    ensure!(paths.len() == 1 && paths.iter().all(is), "{block}: {paths:?}, not {hop}");
                    Ok(())
                })
            })
        };
        let [left, right] = [ends(0)?, ends(1)?];
        let (lefts, ours) = (left.map(|(_, far)| far), right.map(|(near, _)| near));
        let none = json!({});
        told("the left one's next hops", lefts)?;
        line.write(&none, &json!({"nextHopMode": "Self"}), &none, &none)?;
        told("ours", ours)?;
        line.write(&none, &json!({"nextHopMode": "Keep"}), &none, &none)?;
        told("the left one's again", lefts)?;
        let others: [IpAddr; 2] = ["192.0.2.9".parse()?, "2001:db8::9".parse()?];
        let set = others.map(|hop| json!({"operations": [{"setNextHop": {"value": hop}}]}));
        line.write_each(&none, &none, [&none; 2], set.each_ref())?;
        told("a rule's", others)?;
        ensure!(line.established()? == since, "a session flapped");
        Ok(())
    })
}

/// Proves RFC 4271 5.1.3; BIRD, FRR.
#[test]
fn next_hops_are_kept_ours_or_a_rules_with_frr() -> Result<()> {
    next_hops([Software::Bird, Software::Frr])
}

/// Proves RFC 4271 5.1.3; FRR, GoBGP.
#[test]
fn next_hops_are_kept_ours_or_a_rules_with_gobgp() -> Result<()> {
    next_hops([Software::Frr, Software::Gobgp])
}

/// What a router marks as about to go is the last choice, whatever the filter prefers.
fn graceful_shutdown(software: [Software; 2]) -> Result<()> {
    Lab::test(|lab| {
        let line = Line::attaching(lab, software, 65003, &["graceful-shutdown"])?;
        let none = json!({});
        let prefer = |value: u32| json!({"operations": [{"setLocalPreference": {"value": value}}]});
        let has = |local_pref: u32| {
            wait_until(format!("local preference {local_pref}"), PATIENCE, || {
                let paths = line.paths(false)?;
                ensure!(paths.iter().all(|path| path.local_pref == Some(local_pref)), "{paths:?}");
                Ok(())
            })
        };
        line.write(&none, &none, &prefer(300), &none)?;
        has(0)?;
        line.wait_told("the community to be passed on", |path| {
            path.communities == communities(&["graceful-shutdown"])
        })?;
        let mut taken_off = prefer(200);
        let remove = json!({"removeCommunity": {"value": "graceful-shutdown"}});
        taken_off["operations"].as_array_mut().context("no operations")?.push(remove);
        line.write(&none, &none, &taken_off, &none)?;
        has(200)
    })
}

/// Proves RFC 8326 4; BIRD.
#[test]
fn rfc_8326_graceful_shutdown_of_bird_is_the_last_choice() -> Result<()> {
    graceful_shutdown([Software::Bird, Software::Frr])
}

/// Proves RFC 8326 4; FRR.
#[test]
fn rfc_8326_graceful_shutdown_of_frr_is_the_last_choice() -> Result<()> {
    graceful_shutdown([Software::Frr, Software::Bird])
}

/// The node is a customer of the router on the left, and to the one on the right each role in turn. What comes from above goes down and nowhere
/// else, and what is told to who is no provider is marked, whatever filters say.
fn roles(software: [Software; 2]) -> Result<()> {
    Lab::test(|lab| {
        let mut line = Line::start(lab, software, 65003, |config| {
            config.role = Some(if config.name == "left" { Role::Provider } else { Role::Customer });
        })?;
        let [none, customer] = [json!({}), json!({"role": "customer", "roleStrict": true})];
        let (own, learned) = (Some(NODE_ASN), Some(LEFT_ASN));
        for (role, ours, theirs) in [
            (Role::Provider, Some(own), Some(learned)),
            (Role::RouteServer, Some(own), Some(learned)),
            (Role::Peer, Some(own), None),
            (Role::Customer, Some(None), None),
            (Role::RouteServerClient, Some(None), None),
        ] {
            line.right.set_role(role.counterpart())?;
            let right = json!({"role": role.to_string(), "roleStrict": true});
            line.write_all(&none, [&customer, &right], [&none; 2], [&none; 2])?;
            wait_until(format!("what {role} tells"), PATIENCE, || {
                line.ensure_roles(role)?;
                let all = line.node.blocks.iter().map(|block| (*block, ours));
                for (block, wanted) in all.chain(blocks().into_iter().map(|block| (block, theirs))) {
                    let paths = line.right.paths(block)?;
                    let marks: Vec<_> = paths.iter().map(|path| path.only_to_customer).collect();
                    ensure!(marks == wanted.into_iter().collect::<Vec<_>>(), "{block}: {paths:?}");
                }
                let told = blocks().into_iter().map(|block| line.told_right(block));
                let codes: BTreeSet<_> = told.collect::<Result<_>>()?;
                let wanted = if theirs.is_some() { "advertised" } else { "only-to-customer" };
                ensure!(codes.iter().eq([wanted]), "{codes:?}");
                Ok(())
            })?;
        }
        // Both a customer of the other: each of them finds it in the other's OPEN.
        line.right.set_role(Role::Customer)?;
        wait_until("the mismatch", PATIENCE, || {
            for (_, far) in ends(1)? {
                let peer = line.node.weft.peer(far)?;
                let error = peer.last_error.with_context(|| format!("{far} has had no error"))?;
                ensure!(peer.state != "Established", "it is Established");
                ensure!((error.code, error.subcode) == (Some(2), Some(11)), "{error:?}");
            }
            Ok(())
        })
    })
}

/// Proves RFC 9234; BIRD.
#[test]
fn rfc_9234_every_role_to_bird() -> Result<()> {
    roles([Software::Frr, Software::Bird])
}

/// Proves RFC 9234; FRR.
#[test]
fn rfc_9234_every_role_to_frr() -> Result<()> {
    roles([Software::Bird, Software::Frr])
}
