//! `make demo`: raises a two-rack fabric on this machine, shows it, checks the promises, cuts a cable and takes it all down again.
//!
//! Environment: `TOR` (weft, bird, frr; default weft) picks the ToRs' software; `KEEP=1` leaves the fabric up; `weft-demo down`
//! removes one that was left.

#![expect(clippy::print_stdout, reason = "this program's output is what it is for")]

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use weft_integration::daemon::{Family, Software};
use weft_integration::fabric::{Fabric, FabricSpec};
use weft_integration::lab::{self, Lab};
use weft_integration::probe::{self, FlowReport, Flows};
use weft_integration::promises::Promise;
use weft_integration::wait::now;

const NAME: &str = "weft-demo";

/// The flows that measure the failover, in each family: enough to be on both cables.
const FLOWS: usize = 16;

const TOPOLOGY: &str = "
                            spine  AS 4200000000
                          //     \\\\      two cables to each ToR
                         //       \\\\
            AS 65001  tor-a       tor-b  AS 65003
                      /   \\       /   \\
                    a1     a2   b1     b2
                   AS 64601     AS 64602        weftd, two pods on each node
";

fn main() -> ExitCode {
    let result = match std::env::args().nth(1).as_deref() {
        None => demo(),
        Some("down") => lab::remove(NAME).map(|()| println!("The demo is gone.")),
        Some(other) => Err(anyhow::anyhow!("unknown argument {other:?}; there is only `down`")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("\nThe demo failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn demo() -> Result<()> {
    let tor: Software = std::env::var("TOR").unwrap_or_else(|_| "weft".to_owned()).parse().context("TOR")?;
    if !tor.forwards() {
        bail!(
            "TOR={tor} is refused: GoBGP writes no kernel routes, so a ToR that runs it forwards nothing; take weft, bird or frr"
        );
    }
    let keep = std::env::var("KEEP").is_ok_and(|keep| keep == "1");
    let mut lab = Lab::named(NAME)?;
    let result = show(&lab, tor, keep);
    if keep {
        lab.keep();
        println!("{}", how_to_look(&lab));
    } else {
        println!("Everything is taken down.");
    }
    if result.is_err() {
        lab.fail();
    }
    result
}

fn show(lab: &Lab, tor: Software, keep: bool) -> Result<()> {
    let start = now();
    println!("Makes 2 racks x 2 nodes, 2 ToRs and a spine ({tor}) out of network namespaces.");
    let mut fabric = Fabric::build(lab, FabricSpec::two_racks(tor))?;
    let result = run(lab, &mut fabric);
    if keep {
        fabric.leave_running();
    }
    result?;
    println!("\nAll promises hold. {:.1} s.", start.elapsed().as_secs_f32());
    Ok(())
}

fn run(lab: &Lab, fabric: &mut Fabric) -> Result<()> {
    println!("Starts the daemons.");
    let start = now();
    fabric.start()?;
    println!("Adds two pods to every node with weft-cni.");
    fabric.add_pods(lab)?;
    println!("Waits until every node's pod reaches every other's.");
    fabric.wait_reachable(Duration::from_secs(30))?;
    println!("Converged {:.2} s after the daemons were started.", start.elapsed().as_secs_f32());
    tables(fabric)?;
    let kept = promises(fabric);
    failover(fabric)?;
    ensure!(kept, "a promise does not hold");
    Ok(())
}

fn tables(fabric: &Fabric) -> Result<()> {
    println!("{TOPOLOGY}");
    for node in &fabric.nodes {
        for pod in &node.pods {
            println!(
                "  {:8} {}",
                pod.name,
                pod.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join("  ")
            );
        }
    }
    let node = fabric.node("a1")?;
    for words in ["status", "peers", "routes", "fib"] {
        println!("\na1# weftctl {words}\n{}", node.weft.weftctl(words)?.stdout.trim_end());
    }
    println!();
    Ok(())
}

fn promises(fabric: &Fabric) -> bool {
    let mut kept = true;
    for promise in Promise::ALL {
        match promise.check(&fabric.nodes) {
            Ok(cases) => println!("{promise}  ok      {} ({cases} cases)", promise.text()),
            Err(error) => {
                kept = false;
                println!("{promise}  NOT OK  {error:#}");
            }
        }
    }
    kept
}

fn failover(fabric: &Fabric) -> Result<()> {
    let (from, to) = (fabric.node("a1")?, fabric.node("b1")?);
    let (from, to) = (from.pods.first().context("a1 has pods")?, to.pods.first().context("b1 has pods")?);
    println!(
        "\nCuts one of the two cables between tor-a and the spine, under {} flows from {} to {}.",
        2 * FLOWS,
        from.name,
        to.name
    );
    let mut flows = Vec::new();
    for family in Family::BOTH {
        let server = to.address(family)?;
        flows.push((
            family,
            Flows::start(&from.namespace, &to.namespace, server, FLOWS, Duration::from_millis(2))?,
        ));
    }
    std::thread::sleep(Duration::from_millis(500));
    let cable = fabric.link("tor-a", "spine")?;
    cable.cut()?;
    std::thread::sleep(Duration::from_secs(2));
    for (family, flows) in flows {
        let FlowReport { sent, lost, longest_gap } = flows.stop()?;
        println!(
            "  {family:?}: the longest silence of a flow was {longest_gap:.1?}; {lost} of {sent} datagrams without an answer"
        );
        ensure!(lost < sent, "{family:?}: nothing got through");
    }
    for address in &to.addresses {
        probe::ping(&from.namespace, *address).context("after the cut")?;
    }
    cable.heal()?;
    Ok(())
}

fn how_to_look(lab: &Lab) -> String {
    let directory = std::env::temp_dir().join(lab.name());
    format!(
        "\nThe fabric is left up. Look at it:\n  ip netns list\n  ip netns exec {NAME}-a1 ip route\n  \
         ip netns exec {NAME}-a1-pod0 ping fd00:10:244:3::\n  \
         target/debug/weftctl --socket {}/a1/run/weft.sock routes\nDocuments and logs are in {}.\nRemove it: make demo-down",
        directory.display(),
        directory.display()
    )
}
