//! `weftctl validate` on documents that people really write wrong.

#![allow(clippy::indexing_slicing, reason = "a panic fails the test, which is what it is for")]

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use weft_integration::lab::Lab;
use weft_integration::process::{SHORT, own_program, run};

const GOOD: &str = "\
apiVersion: v1
kind: Node
metadata:
  name: n1
  labels: {rack: a}
spec:
  podCIDRs: [10.244.1.0/26, 'fd00:10:244:1::/122']
status:
  addresses:
  - {type: InternalIP, address: 10.2.0.1}
---
apiVersion: weft.network/v1alpha1
kind: IPPool
metadata:
  name: pods
spec:
  cidr: 10.244.0.0/16
---
apiVersion: weft.network/v1alpha1
kind: BGPPeer
metadata:
  name: tor
spec:
  peerIP: 10.2.0.254
  asNumber: 65001
  nodeSelector: rack == \"a\" && !has(edge)
";

/// What `weftctl -o json validate -f PATH` says, and its exit code.
fn validate(path: &Path) -> Result<(Value, Option<i32>)> {
    let mut command = Command::new(own_program("weftctl")?);
    command.args(["-o", "json", "validate", "-f"]).arg(path);
    let done = run(&mut command, SHORT)?;
    let said =
        serde_json::from_str(&done.stdout).with_context(|| format!("{}{}", done.stdout, done.stderr))?;
    Ok((said, done.status.code()))
}

/// Writes `bad` beside good documents and expects an error in its file, on `line`, of `field`, that contains `message`.
fn rejects(bad: &str, line: u64, field: Option<&str>, message: &str) -> Result<()> {
    Lab::test(|lab| {
        let folder = lab.directory("documents")?;
        fs::write(folder.join("good.yaml"), GOOD)?;
        fs::write(folder.join("bad.yaml"), bad)?;
        let (said, code) = validate(&folder)?;
        ensure!(code == Some(1) && said["ok"] == false, "exit code {code:?}: {said}");
        let errors = said["errors"].as_array().context("no errors")?;
        let here = |error: &&Value| error["file"].as_str().is_some_and(|file| file.ends_with("bad.yaml"));
        let error = errors.iter().find(here).with_context(|| format!("no error names the file: {said}"))?;
        ensure!(error["line"] == line, "line {line} is wrong: {error}");
        ensure!(field.is_none() || error["field"].as_str() == field, "field {field:?} is wrong: {error}");
        let text = error["message"].as_str().context("no message")?;
        ensure!(text.contains(message), "{message:?} is not said: {error}");
        ensure!(error["remedy"].as_str().is_some_and(|remedy| !remedy.is_empty()), "no remedy: {error}");
        let table = run(Command::new(own_program("weftctl")?).args(["validate", "-f"]).arg(&folder), SHORT)?;
        ensure!(
            table.stdout.contains("bad.yaml") && table.stdout.contains(&line.to_string()),
            "{}",
            table.stdout
        );
        Ok(())
    })
}

fn resource(kind: &str, name: &str, spec: &str) -> String {
    format!("apiVersion: weft.network/v1alpha1\nkind: {kind}\nmetadata:\n  name: {name}\nspec:\n{spec}")
}

#[test]
fn good_documents_are_good() -> Result<()> {
    Lab::test(|lab| {
        let folder = lab.directory("documents")?;
        fs::write(folder.join("good.yaml"), GOOD)?;
        let (said, code) = validate(&folder)?;
        ensure!(code == Some(0) && said["ok"] == true, "exit code {code:?}: {said}");
        let (said, code) = validate(&folder.join("good.yaml"))?;
        ensure!(code == Some(0) && said["ok"] == true, "exit code {code:?}: {said}");
        Ok(())
    })
}

#[test]
fn an_unknown_field() -> Result<()> {
    rejects(
        &resource("BGPPeer", "p", "  peerIP: 10.0.0.1\n  asNumber: 1\n  holdtime: 9s\n"),
        8,
        Some("spec.holdtime"),
        "holdtime",
    )
}

#[test]
fn a_cidr_with_host_bits() -> Result<()> {
    rejects(&resource("IPPool", "p", "  cidr: 10.245.0.1/16\n"), 6, Some("spec.cidr"), "10.245.0.1/16")
}

#[test]
fn an_asn_of_zero() -> Result<()> {
    rejects(&resource("BGPPeer", "p", "  peerIP: 10.0.0.1\n  asNumber: 0\n"), 7, Some("spec.asNumber"), "0")
}

#[test]
fn a_peer_that_is_nobody() -> Result<()> {
    rejects(&resource("BGPPeer", "p", "  asNumber: 65001\n"), 5, Some("spec"), "peerIP")
}

#[test]
fn overlapping_pools() -> Result<()> {
    rejects(&resource("IPPool", "p", "  cidr: 10.244.128.0/17\n"), 6, Some("spec.cidr"), "overlap")
}

#[test]
fn a_dangling_filter() -> Result<()> {
    rejects(
        &resource("BGPPeer", "p", "  peerIP: 10.0.0.1\n  asNumber: 1\n  filters:\n  - missing\n"),
        9,
        Some("spec.filters[0]"),
        "missing",
    )
}

#[test]
fn an_indentation_by_tab() -> Result<()> {
    rejects("apiVersion: v1\nkind: Node\nmetadata:\n\tname: n2\n", 4, None, "tab")
}

#[test]
fn an_empty_file() -> Result<()> {
    rejects("", 1, None, "no document")
}

#[test]
fn a_wrong_unit() -> Result<()> {
    rejects(
        &resource("BGPPeer", "p", "  peerIP: 10.0.0.1\n  asNumber: 1\n  holdTime: 9 parsecs\n"),
        8,
        Some("spec.holdTime"),
        "9 parsecs",
    )
}

#[test]
fn a_file_of_50_mb() -> Result<()> {
    Lab::test(|lab| {
        let folder = lab.directory("documents")?;
        fs::write(folder.join("bad.yaml"), "# filler\n".repeat(50 * 1024 * 1024 / 9))?;
        let (said, code) = validate(&folder)?;
        ensure!(code == Some(1), "exit code {code:?}");
        let error = &said["errors"][0];
        ensure!(error["file"].as_str().is_some_and(|file| file.ends_with("bad.yaml")), "{said}");
        ensure!(error["message"].as_str().is_some_and(|message| message.contains("MiB")), "{said}");
        Ok(())
    })
}

/// All errors are listed, not the first.
#[test]
fn every_error_at_once() -> Result<()> {
    Lab::test(|lab| {
        let folder = lab.directory("documents")?;
        fs::write(folder.join("one.yaml"), resource("IPPool", "p", "  cidr: 10.245.0.1/16\n"))?;
        fs::write(
            folder.join("two.yaml"),
            resource("BGPPeer", "p", "  asNumber: 0\n  peerIP: 10.0.0.1\n  colour: red\n"),
        )?;
        let (said, code) = validate(&folder)?;
        ensure!(code == Some(1), "exit code {code:?}");
        let fields: Vec<&str> = said["errors"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|error| error["field"].as_str())
            .collect();
        for field in ["spec.cidr", "spec.asNumber", "spec.colour"] {
            ensure!(fields.contains(&field), "{field} is not among {fields:?}");
        }
        Ok(())
    })
}

#[test]
fn a_path_that_is_not_there_is_a_usage_error() -> Result<()> {
    let mut command = Command::new(own_program("weftctl")?);
    command.args(["validate", "-f", "/there/is/no/such/folder"]);
    let done = run(&mut command, SHORT)?;
    ensure!(done.status.code() == Some(2) && done.stderr.contains("/there/is/no/such/folder"), "{done:?}");
    Ok(())
}
