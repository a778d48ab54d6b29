//! `make bench-cluster`: what a large cluster costs a weftd.

#![expect(clippy::print_stdout, reason = "this program's output is what it is for")]

use anyhow::{Context as _, Result, bail};
use weft_integration::bench::cluster::{self, Size};
use weft_integration::lab::Lab;

fn main() -> Result<()> {
    let arguments: Vec<usize> = std::env::args()
        .skip(1)
        .map(|argument| argument.parse().with_context(|| format!("{argument} is no number")))
        .collect::<Result<_>>()?;
    let size = match *arguments.as_slice() {
        [] => Size { nodes: 5000, services: 10_000 },
        [nodes, services] => Size { nodes, services },
        _ => bail!("usage: weft-bench-cluster [NODES SERVICES]"),
    };
    Lab::test(|lab| {
        print!("{}", cluster::run(lab, size)?);
        Ok(())
    })
}
