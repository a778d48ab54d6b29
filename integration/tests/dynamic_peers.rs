//! Dynamic peers: other people's daemons, and our own, that connect from within a range.

#![allow(clippy::indexing_slicing, reason = "a panic fails the test, which is what it is for")]
#![allow(clippy::print_stdout, reason = "the log of the tests shows which daemons they ran against")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ipnet::IpNet;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use weft_integration::daemon::{Bfd, Family, Neighbor, Router, RouterConfig, Software, router};
use weft_integration::documents;
use weft_integration::lab::Lab;
use weft_integration::link::{End, Switch};
use weft_integration::node::{self, Node};
use weft_integration::wait::{stays, wait_until};

const PATIENCE: Duration = Duration::from_secs(60);
/// As long as what must not come up is watched.
const SILENCE: Duration = Duration::from_secs(4);

/// Everybody's address on the switch: 10.9.0.N and fd00:10:9::N.
fn on_link(family: Family, n: u8) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, 9, 0, n).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, 0x10, 9, 0, 0, 0, 0, n.into()).into(),
    }
}

fn net(family: Family, n: u8) -> Result<IpNet> {
    Ok(IpNet::new(on_link(family, n), if family == Family::V4 { 24 } else { 64 })?)
}

fn asn(n: u8) -> u32 {
    65000 + u32::from(n)
}

/// A node that knows nobody by address, and routers that know it, on one switch.
struct Rack {
    node: Node,
    routers: Vec<Box<dyn Router>>,
    _switch: Switch,
}

impl Rack {
    /// Router N is of AS 65000 + N and originates the blocks of node N.
    fn up(
        lab: &Lab,
        routers: &[(u8, Software)],
        change: impl Fn(u8, &mut RouterConfig),
        peers: &[Value],
    ) -> Result<Self> {
        let switch = Switch::new(lab.machine("switch")?)?;
        let own = node::loopback(&Family::BOTH, 1);
        let node = Node::new(lab, "node", own.clone(), node::blocks(&Family::BOTH, 1))?;
        node.namespace.ip(&format!("addr add {} dev lo\naddr add {} dev lo", own[0], own[1]))?;
        let addresses = |n| Family::BOTH.into_iter().map(|family| net(family, n)).collect::<Result<Vec<_>>>();
        switch.plug(End::new(&node.namespace, "rack"))?.near.add_addresses(&addresses(1)?)?;
        let mut rack = Self { node, routers: Vec::new(), _switch: switch };
        for (n, software) in routers {
            let name = format!("tor{n}");
            let machine = lab.machine(&name)?;
            rack._switch.plug(End::new(&machine, "node"))?.near.add_addresses(&addresses(*n)?)?;
            let mut config = RouterConfig::new(name, asn(*n), [10, 0, 0, 200 + n].into());
            config.originate = node::blocks(&Family::BOTH, *n).into_iter().collect();
            if *software == Software::Weft {
                config.addresses = node::loopback(&Family::BOTH, *n);
            }
            config.neighbors = Family::BOTH
                .into_iter()
                .map(|family| Neighbor {
                    name: "node".into(),
                    address: on_link(family, 1),
                    asn: 64601,
                    local: on_link(family, *n),
                    families: vec![family],
                })
                .collect();
            change(*n, &mut config);
            let router = router(lab, &machine, *software, config)?;
            println!("dynamic peers: {} runs", router.version()?);
            rack.routers.push(router);
        }
        let mut documents = vec![
            documents::bgp_configuration(&json!({"asNumber": 64601, "nodeToNodeMeshEnabled": false})),
            documents::node("node", &[], &rack.node.blocks, &rack.node.addresses),
            documents::secret("passwords", &[("range", "of-the-range"), ("own", "of-the-router")]),
        ];
        documents.extend(Family::BOTH.map(documents::pod_pool));
        documents::write(&rack.node.weft.manifests(), "node.yaml", &documents)?;
        rack.write_peers(peers)?;
        rack.node.weft.start()?;
        rack.routers.iter_mut().try_for_each(|router| router.start())?;
        Ok(rack)
    }

    fn write_peers(&self, peers: &[Value]) -> Result<()> {
        documents::write(&self.node.weft.manifests(), "peers.yaml", peers)
    }

    /// Both sessions of the router `n`, and the routes of each.
    fn is_up(&self, n: u8) -> Result<()> {
        for family in Family::BOTH {
            self.node.weft.established(on_link(family, n))?;
            self.forwards(n, family)?;
        }
        Ok(())
    }

    fn forwards(&self, n: u8, family: Family) -> Result<()> {
        self.node.weft.forwards(node::block(family, n)).map(drop)
    }

    fn wait_up(&self, n: u8, when: &str) -> Result<()> {
        wait_until(format!("the sessions and routes of router {n}"), PATIENCE, || self.is_up(n))
            .with_context(|| when.to_owned())
    }

    /// Of which range each peer is, by its address.
    fn ranges(&self) -> Result<Vec<(String, Option<String>)>> {
        let peers: Vec<Value> = self.node.weft.json("peers")?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        Ok(peers.iter().map(|p| (text(&p["peer"]).unwrap_or_default(), text(&p["listenRange"]))).collect())
    }

    fn problems(&self) -> Result<String> {
        Ok(self.node.weft.status()?["problems"].to_string())
    }
}

/// A BGPPeer for each family, with what else it has.
fn ranges(spec: &Value) -> Vec<Value> {
    let of = |(name, family): (&str, Family)| {
        let mut spec = spec.clone();
        spec["listenRange"] = json!(if family == Family::V4 { "10.9.0.0/24" } else { "fd00:10:9::/64" });
        spec["families"] = json!([family.unicast()]);
        documents::bgp_peer(name, "node", spec)
    };
    [("rack-v4", Family::V4), ("rack-v6", Family::V6)].map(of).into()
}

/// Comes up, is shown, survives a kill on either end, and goes with its object.
fn comes_and_returns(software: Software) -> Result<()> {
    Lab::test(|lab| {
        let mut rack =
            Rack::up(lab, &[(11, software)], |_, _| {}, &ranges(&json!({"asNumber": "external"})))?;
        rack.wait_up(11, "at first")?;
        let of = |address: &str, range: &str| (address.to_owned(), Some(range.to_owned()));
        let expected = [of("10.9.0.11", "10.9.0.0/24"), of("fd00:10:9::b", "fd00:10:9::/64")];
        ensure!(rack.ranges()? == expected, "{:?}", rack.ranges()?);
        let status = rack.node.weft.status()?;
        let range = &status["listenRanges"][0];
        ensure!(range["peers"] == 1 && range["established"] == 1 && range["limit"] == 100, "{range}");
        let said = rack.node.weft.weftctl("status")?.stdout;
        ensure!(said.contains("rack-v4, 10.9.0.0/24: 1 up, 1 peers of 100"), "{said}");
        let said = rack.node.weft.weftctl("peers 10.9.0.11")?.stdout;
        ensure!(said.contains("10.9.0.0/24: a dynamic peer"), "{said}");
        let (_, metrics) = rack.node.weft.http("/metrics")?;
        let metric = "weft_bgp_listen_range_peers{name=\"rack-v4\",range=\"10.9.0.0/24\"} 1";
        ensure!(metrics.contains(metric), "no {metric}");

        // Nobody dials: who was there is waited for, and its routes are not swept before it is back.
        let kernel = |rack: &Rack| -> Result<()> {
            for family in Family::BOTH {
                let routes = rack.node.namespace.routes_to(node::block(family, 11))?;
                ensure!(!routes.is_empty(), "the kernel has lost {}", node::block(family, 11));
            }
            Ok(())
        };
        rack.node.weft.kill9()?;
        rack.node.weft.start()?;
        wait_until("weftd to be back", PATIENCE, || {
            kernel(&rack)?;
            rack.is_up(11)
        })?;
        stays("the routes", SILENCE, || kernel(&rack))?;

        rack.routers[0].kill9()?;
        stays("the routes while the router is away", SILENCE, || kernel(&rack))?;
        ensure!(rack.ranges()?.len() == 2, "{:?}", rack.ranges()?);
        rack.routers[0].start()?;
        rack.wait_up(11, "after the router's restart")?;

        let cleared = rack.node.weft.weftctl("clear 10.9.0.11")?;
        ensure!(cleared.status.success(), "{}", cleared.stderr);
        rack.wait_up(11, "after it was cleared")?;

        rack.write_peers(&ranges(&json!({"asNumber": "internal"})))?;
        wait_until("the peers of another AS to go", PATIENCE, || {
            ensure!(
                Family::BOTH.iter().all(|f| rack.node.weft.established(on_link(*f, 11)).is_err()),
                "they are up"
            );
            rack.node.weft.ensure_no_path(node::block(Family::V4, 11))
        })?;
        rack.write_peers(&[])?;
        wait_until("the peers to go", PATIENCE, || {
            ensure!(rack.ranges()?.is_empty(), "{:?}", rack.ranges()?);
            Ok(())
        })
    })
}

/// Proves RFC 4724; BIRD.
#[test]
fn bird_comes_from_within_a_range_and_returns() -> Result<()> {
    comes_and_returns(Software::Bird)
}

/// Proves RFC 4724; FRR.
#[test]
fn frr_comes_from_within_a_range_and_returns() -> Result<()> {
    comes_and_returns(Software::Frr)
}

/// Proves RFC 4724; GoBGP.
#[test]
fn gobgp_comes_from_within_a_range_and_returns() -> Result<()> {
    comes_and_returns(Software::Gobgp)
}

#[test]
fn weft_comes_from_within_a_range_and_returns() -> Result<()> {
    comes_and_returns(Software::Weft)
}

/// A session per range, and the peer's death when its path dies: nothing is left of it until it is back.
/// Proves RFC 5881; BIRD.
#[test]
fn bfd_runs_with_dynamic_peers() -> Result<()> {
    Lab::test(|lab| {
        let profile = json!({"receiveInterval": "100ms", "transmitInterval": "100ms"});
        let mut documents = ranges(&json!({"asNumber": "external", "bfdProfile": "fast"}));
        documents.push(documents::resource("BFDProfile", "fast", &profile));
        let bfd = |_: u8, config: &mut RouterConfig| {
            config.bfd = Some(Bfd { interval: 100, multiplier: 3, multihop: false });
        };
        let mut rack = Rack::up(lab, &[(11, Software::Bird)], bfd, &documents)?;
        let is_up = |rack: &Rack| -> Result<()> {
            rack.is_up(11)?;
            for family in Family::BOTH {
                let bfd = rack.node.weft.peer(on_link(family, 11))?.bfd;
                ensure!(bfd.as_ref().is_some_and(|bfd| bfd.state == "Up" && !bfd.multihop), "{bfd:?}");
                ensure!(
                    rack.routers[0].bfd_up(on_link(family, 1))?,
                    "BIRD has no BFD session over {family:?}"
                );
            }
            Ok(())
        };
        wait_until("BGP and BFD", PATIENCE, || is_up(&rack))?;
        rack.routers[0].signal(Signal::SIGSTOP)?;
        wait_until("the dead peer to be forgotten", PATIENCE, || {
            ensure!(rack.ranges()?.is_empty(), "{:?}", rack.ranges()?);
            rack.node.weft.ensure_no_path(node::block(Family::V4, 11))
        })?;
        rack.routers[0].signal(Signal::SIGCONT)?;
        wait_until("BGP and BFD once more", PATIENCE, || is_up(&rack))
    })
}

/// A key for the whole range, one of its own for who is named with a password, and none for who is named without.
/// Proves RFC 2385; BIRD, FRR, GoBGP.
#[test]
fn a_password_holds_for_the_range_and_those_who_are_named_have_their_own_or_none() -> Result<()> {
    Lab::test(|lab| {
        let password = |key: &str| json!({"secretKeyRef": {"name": "passwords", "key": key}});
        let mut peers = ranges(&json!({"asNumber": "external", "password": password("range")}));
        for family in Family::BOTH {
            let named = |n: u8| {
                let spec = json!({"peerIP": on_link(family, n), "asNumber": asn(n), "passive": true});
                (format!("tor{n}-{}", if family == Family::V4 { "v4" } else { "v6" }), spec)
            };
            let (name, mut spec) = named(12);
            spec["password"] = password("own");
            peers.push(documents::bgp_peer(&name, "node", spec));
            let (name, spec) = named(13);
            peers.push(documents::bgp_peer(&name, "node", spec));
        }
        let routers =
            [(11, Software::Bird), (12, Software::Frr), (13, Software::Gobgp), (14, Software::Bird)];
        let passwords = |n: u8, config: &mut RouterConfig| {
            config.password = match n {
                11 => Some("of-the-range".into()),
                12 | 14 => Some("of-the-router".into()),
                _ => None,
            };
        };
        let rack = Rack::up(lab, &routers, passwords, &peers)?;
        for n in [11, 12, 13] {
            rack.wait_up(n, "with the password that is its own, or none")?;
        }
        stays("whoever has another password out", SILENCE, || {
            ensure!(rack.ranges()?.iter().all(|(peer, _)| !peer.ends_with("14")), "{:?}", rack.ranges()?);
            Ok(())
        })?;
        let dynamic: Vec<_> = rack.ranges()?.into_iter().filter(|(_, range)| range.is_some()).collect();
        ensure!(dynamic.len() == 2, "{dynamic:?}");
        ensure!(!rack.problems()?.contains("listen-range-refused"), "{}", rack.problems()?);
        Ok(())
    })
}

/// Proves RFC 4486 4; BIRD.
#[test]
fn more_than_a_range_may_have_are_refused_and_told_of() -> Result<()> {
    Lab::test(|lab| {
        let spec = |limit: u8| ranges(&json!({"asNumber": "external", "listenLimit": limit}));
        let rack = Rack::up(lab, &[(11, Software::Weft), (12, Software::Bird)], |_, _| {}, &spec(1))?;
        let full = || -> Result<()> {
            let status = rack.node.weft.status()?;
            let ranges = status["listenRanges"].as_array().context("no ranges")?;
            for range in ranges {
                ensure!(range["peers"] == 1 && range["established"] == 1, "{range}");
                ensure!(range["refused"].as_u64() > Some(0), "{range}");
            }
            ensure!(ranges.len() == 2, "{ranges:?}");
            let problems = status["problems"].to_string();
            ensure!(problems.contains("listen-range-refused"), "{problems}");
            ensure!(problems.contains("raise listenLimit"), "{problems}");
            Ok(())
        };
        wait_until("one of them to be up, and the other to be told of", PATIENCE, full)?;
        stays("no more than there may be", SILENCE, full)?;
        rack.write_peers(&spec(2))?;
        rack.wait_up(11, "with room for two")?;
        rack.wait_up(12, "with room for two")
    })
}
