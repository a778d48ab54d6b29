//! Prints the CustomResourceDefinitions: `cargo run -p weft-controller --example crds > manifests/base/crds.yaml`.

use std::io::Write as _;

fn main() -> anyhow::Result<()> {
    std::io::stdout().write_all(weft_controller::api::crds()?.as_bytes())?;
    Ok(())
}
