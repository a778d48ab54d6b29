//! The lab itself, on other people's daemons only: if these fail, no other failure says anything about Weft.

#![allow(clippy::indexing_slicing, reason = "a panic fails the test, which is what it is for")]

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ipnet::IpNet;
use weft_integration::daemon::{Family, Neighbor, Router, RouterConfig, Software, router};
use weft_integration::lab::Lab;
use weft_integration::link::{End, Link};
use weft_integration::monitor::RouteMonitor;
use weft_integration::probe::{self, Flows};
use weft_integration::wait::wait_until;
use weft_integration::{netns, node};

const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn a_cut_cable_stops_traffic_and_a_mended_one_lets_it_pass() -> Result<()> {
    Lab::test(|lab| {
        let (one, two) = (lab.machine("one")?, lab.machine("two")?);
        let link = Link::new(End::new(&one, "eth0"), End::new(&two, "eth0"))?;
        link.near.add_addresses(&["10.9.0.0/31".parse()?, "fd00:9::/127".parse()?])?;
        link.far.add_addresses(&["10.9.0.1/31".parse()?, "fd00:9::1/127".parse()?])?;
        let far = ["10.9.0.1".parse()?, "fd00:9::1".parse()?];
        for address in far {
            ensure!(Family::of(probe::tcp(&one, &two, address)?) == Family::of(address));
            probe::udp(&one, &two, address, 4000)?;
        }
        let flows = Flows::start(&one, &two, far[0], 4, Duration::from_millis(5))?;
        std::thread::sleep(Duration::from_millis(200));
        link.cut()?;
        for address in far {
            ensure!(probe::ping(&one, address).is_err(), "{address} answers over a cut cable");
        }
        let report = flows.stop()?;
        ensure!(report.lost > 0 && report.lost < report.sent, "{report:?}");
        link.heal()?;
        for address in far {
            wait_until("the mended cable", PATIENCE, || probe::ping(&one, address))?;
        }
        Ok(())
    })
}

#[test]
fn a_lab_leaves_nothing_behind_even_when_its_test_fails() -> Result<()> {
    let mut name = String::new();
    let result = Lab::test(|lab| {
        name = lab.name().to_owned();
        let _machine = lab.machine("one")?;
        ensure!(!netns::list(|candidate| candidate.starts_with(lab.name()))?.is_empty(), "no namespace");
        anyhow::bail!("on purpose")
    });
    ensure!(result.is_err_and(|error| error.to_string() == "on purpose"), "the failure is lost");
    let left = netns::list(|candidate| candidate.starts_with(&format!("{name}-")))?;
    ensure!(left.is_empty() && !std::env::temp_dir().join(&name).exists(), "left: {left:?}");
    Ok(())
}

#[test]
fn a_route_that_is_gone_for_a_moment_is_noticed() -> Result<()> {
    Lab::test(|lab| {
        let machine = lab.machine("one")?;
        machine.ip("route add unreachable 10.9.9.0/24")?;
        let calm = RouteMonitor::start(lab, &machine)?;
        machine.ip("route add unreachable 10.9.8.0/24")?;
        ensure!(calm.deleted()?.is_empty(), "a route that came is taken for one that went");
        let monitor = RouteMonitor::start(lab, &machine)?;
        machine.ip("route del unreachable 10.9.9.0/24\nroute add unreachable 10.9.9.0/24")?;
        let deleted = monitor.deleted()?;
        ensure!(deleted.len() == 1 && deleted[0].contains("10.9.9.0/24"), "{deleted:?}");
        Ok(())
    })
}

/// Two routers of other people's software exchange routes, withdraw them, and recover from a kill.
fn routers_speak(one: Software, other: Software) -> Result<()> {
    Lab::test(|lab| {
        let machines = [lab.machine("one")?, lab.machine("other")?];
        let link = Link::new(End::new(&machines[0], "eth0"), End::new(&machines[1], "eth0"))?;
        link.near.add_addresses(&["10.9.0.0/31".parse()?, "fd00:9::/127".parse()?])?;
        link.far.add_addresses(&["10.9.0.1/31".parse()?, "fd00:9::1/127".parse()?])?;
        let ends = [["10.9.0.0".parse()?, "fd00:9::".parse()?], ["10.9.0.1".parse()?, "fd00:9::1".parse()?]];
        let mut routers: Vec<Box<dyn Router>> = Vec::new();
        for (index, software) in [one, other].into_iter().enumerate() {
            let number = u8::try_from(index)? + 1;
            let mut config = RouterConfig::new(
                machines[index].label(),
                65000 + u32::from(number),
                [10, 0, 0, number].into(),
            );
            config.originate = Family::BOTH.iter().map(|family| node::block(*family, number)).collect();
            config.graceful_restart = false;
            for (session, family) in Family::BOTH.into_iter().enumerate() {
                config.neighbors.push(Neighbor {
                    name: machines[1 - index].label().to_owned(),
                    address: ends[1 - index][session],
                    asn: 65000 + u32::from(3 - number),
                    local: ends[index][session],
                    families: vec![family],
                });
            }
            let mut router = router(lab, &machines[index], software, config)?;
            router.start()?;
            routers.push(router);
        }
        let blocks: Vec<IpNet> = Family::BOTH.iter().map(|family| node::block(*family, 2)).collect();
        let learned = |routers: &[Box<dyn Router>]| -> Result<()> {
            for (session, block) in blocks.iter().enumerate() {
                routers[0].ensure_established(ends[1][session])?;
                let best = routers[0].best(*block)?;
                ensure!(best.as_path == [65002] && best.next_hops.contains(&ends[1][session]), "{best:?}");
            }
            Ok(())
        };
        wait_until("the routes", PATIENCE, || learned(&routers))?;
        routers[1].originate(&BTreeSet::new())?;
        wait_until("the withdraw", PATIENCE, || {
            blocks.iter().try_for_each(|block| routers[0].ensure_no_path(*block))
        })?;
        routers[1].originate(&blocks.iter().copied().collect())?;
        wait_until("the routes again", PATIENCE, || learned(&routers))?;
        routers[1].kill9()?;
        wait_until("the loss", PATIENCE, || {
            blocks.iter().try_for_each(|block| routers[0].ensure_no_path(*block))
        })?;
        routers[1].start()?;
        wait_until("recovery", PATIENCE, || learned(&routers)).context("after a restart")
    })
}

#[test]
fn bird_speaks_with_frr() -> Result<()> {
    routers_speak(Software::Bird, Software::Frr)
}

#[test]
fn frr_speaks_with_gobgp() -> Result<()> {
    routers_speak(Software::Frr, Software::Gobgp)
}

#[test]
fn gobgp_speaks_with_bird() -> Result<()> {
    routers_speak(Software::Gobgp, Software::Bird)
}
