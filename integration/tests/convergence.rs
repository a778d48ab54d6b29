//! How fast the fabric of the demo comes up. In a file of its own: nothing else of this crate runs beside it.

#![allow(clippy::print_stdout, reason = "the log of the tests shows the time")]

use std::time::Duration;

use anyhow::{Result, ensure};
use weft_integration::daemon::Software;
use weft_integration::fabric::{Fabric, FabricSpec};
use weft_integration::lab::Lab;
use weft_integration::wait::now;

#[test]
fn the_demo_fabric_converges_within_5_s() -> Result<()> {
    Lab::test(|lab| {
        let mut fabric = Fabric::build(lab, FabricSpec::two_racks(Software::Weft))?;
        let start = now();
        fabric.start()?;
        fabric.add_pods(lab)?;
        fabric.wait_reachable(Duration::from_secs(30))?;
        let took = start.elapsed();
        println!(
            "convergence: {took:?} from the start of the daemons to all pods reaching each other, ADDs included"
        );
        ensure!(took < Duration::from_secs(5), "it took {took:?}");
        Ok(())
    })
}
