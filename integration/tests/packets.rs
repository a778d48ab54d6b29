//! Packets of every size, and what ICMP says on the way.

#![allow(clippy::indexing_slicing, reason = "a panic fails the test, which is what it is for")]

use std::time::Duration;

use anyhow::{Result, ensure};
use weft_integration::daemon::{Family, Software};
use weft_integration::fabric::{Fabric, FabricSpec};
use weft_integration::lab::Lab;
use weft_integration::probe;
use weft_integration::wait::wait_until;

const PATIENCE: Duration = Duration::from_secs(20);

/// ICMP echo header and IP header, per family.
fn headers(family: Family) -> usize {
    match family {
        Family::V4 => 28,
        Family::V6 => 48,
    }
}

fn small_fabric(lab: &Lab) -> Result<Fabric> {
    let spec = FabricSpec {
        nodes_per_rack: 1,
        pods_per_node: 1,
        spine_links: 1,
        ..FabricSpec::two_racks(Software::Bird)
    };
    Fabric::up(lab, spec)
}

#[test]
fn packets_of_the_mtu_and_larger_pass() -> Result<()> {
    Lab::test(|lab| {
        let fabric = small_fabric(lab)?;
        let (from, to) = (&fabric.node("a1")?.pods[0], &fabric.node("b1")?.pods[0]);
        for family in Family::BOTH {
            let target = to.address(family)?;
            let whole = 1500 - headers(family);
            let fits = probe::ping_with(&from.namespace, target, &format!("-c 1 -W 2 -M do -s {whole}"))?;
            ensure!(fits.status.success(), "a packet of 1500 bytes: {fits:?}");
            let above =
                probe::ping_with(&from.namespace, target, &format!("-c 1 -W 2 -M do -s {}", whole + 1))?;
            ensure!(!above.status.success(), "a packet of 1501 bytes passed unfragmented: {above:?}");
            for size in [1473, 4000, 20_000] {
                probe::udp(&from.namespace, &to.namespace, target, size)?;
            }
        }
        Ok(())
    })
}

#[test]
fn fragmentation_needed_reaches_the_pod() -> Result<()> {
    Lab::test(|lab| {
        let fabric = small_fabric(lab)?;
        fabric.link("tor-a", "spine")?.set_mtu(1400)?;
        let (from, to) = (&fabric.node("a1")?.pods[0], &fabric.node("b1")?.pods[0]);
        for family in Family::BOTH {
            let target = to.address(family)?;
            let flags = format!("-c 2 -i 0.2 -W 1 -M do -s {}", 1500 - headers(family));
            wait_until("the message that the packet is too big", PATIENCE, || {
                let said = probe::ping_with(&from.namespace, target, &flags)?;
                let text = format!("{}{}", said.stdout, said.stderr);
                ensure!(text.contains("mtu = 1400") || text.contains("mtu=1400"), "{text}");
                Ok(())
            })?;
            probe::tcp(&from.namespace, &to.namespace, target)?;
            probe::tcp(&to.namespace, &from.namespace, from.address(family)?)?;
        }
        Ok(())
    })
}

#[test]
fn traceroute_shows_the_addresses_of_the_nodes() -> Result<()> {
    Lab::test(|lab| {
        let fabric = small_fabric(lab)?;
        let (near, far) = (fabric.node("a1")?, fabric.node("b1")?);
        for family in Family::BOTH {
            let target = far.pods[0].address(family)?;
            let (first, last) = (near.address(family)?, far.address(family)?);
            wait_until("a traceroute with all hops", PATIENCE, || {
                let hops = probe::traceroute(&near.pods[0].namespace, target)?;
                // Node, ToR, spine, ToR, node, pod.
                ensure!(hops.len() == 6, "{hops:?}");
                ensure!(
                    hops[0] == first && hops[4] == last && hops[5] == target,
                    "{hops:?}, not {first} ... {last} {target}"
                );
                Ok(())
            })?;
        }
        Ok(())
    })
}
