//! The README's walk-through, typed as a new user would.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weft_integration::process::{foreign_program, own_program, run_with_input};

const SECTION: &str = "## Two nodes and a ToR, by hand";
/// The walk-through waits for its daemons itself, half a minute at most.
const LIMIT: Duration = Duration::from_secs(120);

#[test]
fn the_walk_through_does_what_it_says() -> Result<()> {
    for (program, package) in
        [("/usr/sbin/bird", "bird2"), ("/usr/bin/jq", "jq"), ("/usr/bin/traceroute", "traceroute")]
    {
        foreign_program(&[program], package)?;
    }
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md"))?;
    let script = format!("set -euo pipefail\n{}", commands(&readme)?);
    // The programs stand beside each other; the README puts their folder in PATH after building them.
    let programs = own_program("weftd")?.parent().context("weftd has no folder")?.to_owned();
    ["weftctl", "weft-cni"].into_iter().try_for_each(|name| own_program(name).map(drop))?;
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap_or_default());
    // The README's fixed names are shown to nobody else: /run and /var/lib are the test's own.
    let isolate = "mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /var/lib && cat >/run/typed && exec bash /run/typed";
    let mut shell = Command::new("unshare");
    shell
        .args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-c", isolate])
        .env("PATH", path);
    let done = run_with_input(&mut shell, script.as_bytes(), LIMIT)?.success()?;
    let said = done.stdout;
    for expected in [
        "All documents are good",
        "Established",
        "10.244.2.0/26",
        "fd00:10:244:2::/122",
        "3 received",
        "10.0.2.1",
        "\"cniVersion\"",
    ] {
        ensure!(
            said.contains(expected),
            "the walk-through did not print {expected:?}, but:\n{said}\n{}",
            done.stderr
        );
    }
    Ok(())
}

/// The commands of the section's console blocks but the first, which builds the programs.
fn commands(readme: &str) -> Result<String> {
    let (_, section) =
        readme.split_once(SECTION).with_context(|| format!("README has no section {SECTION:?}"))?;
    let section = section.split("\n## ").next().unwrap_or(section);
    let blocks: Vec<_> =
        section.split("```console\n").skip(1).filter_map(|block| block.split("```").next()).collect();
    ensure!(blocks.len() > 5, "README's walk-through has only {} blocks of commands", blocks.len());
    let lines = blocks.iter().filter(|block| !block.contains("cargo build")).flat_map(|block| block.lines());
    Ok(lines.map(|line| line.strip_prefix("# ").unwrap_or(line)).collect::<Vec<_>>().join("\n"))
}
