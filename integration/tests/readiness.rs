//! What tells a container runtime that a node takes pods: `10-weft.conflist`, which comes with the first convergence and never
//! goes away by a restart.

#![allow(clippy::indexing_slicing, reason = "a panic fails the test, which is what it is for")]

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ipnet::IpNet;
use serde_json::{Value, json};
use weft_integration::daemon::Family;
use weft_integration::documents;
use weft_integration::lab::Lab;
use weft_integration::link::{End, Link};
use weft_integration::node::{self, Node};
use weft_integration::process::{Process, SHORT, own_program, run};
use weft_integration::wait::{stays, wait_until};

const PATIENCE: Duration = Duration::from_secs(40);

/// Where the node's runtime would read its configuration.
fn conf_dir(lab: &Lab) -> Result<PathBuf> {
    lab.directory("net.d")
}

/// A node whose weftd writes the runtime's configuration, not started, with a `portmap` for the runtime to find.
fn node(lab: &Lab, more: &[Value]) -> Result<Node> {
    let mut node = Node::new(lab, "node", node::loopback(&[Family::V4], 1), node::blocks(&[Family::V4], 1))?;
    node.namespace.ip(&format!("addr add {} dev lo", node.addresses[0]))?;
    let mut all = vec![
        documents::node("node", &[], &node.blocks, &node.addresses),
        documents::bgp_configuration(&json!({"asNumber": 64601, "nodeToNodeMeshEnabled": false})),
        documents::pod_pool(Family::V4),
    ];
    all.extend_from_slice(more);
    documents::write(&node.weft.manifests(), "all.yaml", &all)?;
    let plugins = lab.directory("plugins")?;
    fs::write(plugins.join("portmap"), "")?;
    let flags = format!("--cni-conf-dir {} --cni-bin-dir {}", conf_dir(lab)?.display(), plugins.display());
    node.weft.set_flags(&flags);
    Ok(node)
}

/// The inode and the text of the file.
fn seen(file: &Path) -> Result<(u64, String)> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok((fs::metadata(file)?.ino(), text))
}

fn converged(node: &Node) -> Result<()> {
    ensure!(node.weft.http("/readyz")?.0 == 200, "/readyz is not 200");
    Ok(())
}

#[test]
fn pods_are_asked_for_only_after_the_first_convergence() -> Result<()> {
    Lab::test(|lab| {
        let tor: IpNet = "192.0.2.254/24".parse()?;
        let peer = documents::bgp_peer("tor", "node", json!({"peerIP": tor.addr(), "asNumber": 65001}));
        let mut node = node(lab, &[peer])?;
        let router = lab.machine("tor")?;
        let link = Link::new(End::new(&node.namespace, "eth0"), End::new(&router, "eth0"))?;
        link.near.add_addresses(&["192.0.2.1/24".parse()?])?;
        link.far.add_addresses(&[tor])?;
        let file = conf_dir(lab)?.join("10-weft.conflist");
        // A ToR that answers and takes its time: it is awaited.
        let listener = router.run(|| TcpListener::bind((tor.addr(), 179)))??;
        node.weft.start()?;
        let (silent, _) = listener.accept().context("weftd does not call its ToR")?;
        node.wait_ready_for_pods()?;
        wait_until("an OPEN to the ToR", PATIENCE, || {
            let state = node.weft.peer(tor.addr())?.state;
            ensure!(state == "OpenSent", "the session is {state}");
            Ok(())
        })?;
        stays("silence towards the runtime", Duration::from_secs(2), || {
            ensure!(!file.exists(), "{} is there before convergence", file.display());
            ensure!(node.weft.http("/readyz")?.0 != 200, "/readyz is 200");
            Ok(())
        })?;
        // The ToR ends: there is nobody left to wait for.
        drop((silent, listener));
        let (_, text) = wait_until("the runtime's configuration", PATIENCE, || seen(&file))?;
        converged(&node)?;
        let list: Value = serde_json::from_str(&text)?;
        let types: Vec<&Value> =
            list["plugins"].as_array().into_iter().flatten().map(|plugin| &plugin["type"]).collect();
        ensure!(types == ["weft-cni", "portmap"], "{list}");
        ensure!(list["plugins"][0]["runDir"] == json!(node.weft.run_dir()), "{list}");
        ensure!(list["plugins"][1]["capabilities"] == json!({"portMappings": true}), "{list}");
        Ok(())
    })
}

#[test]
fn status_is_not_good_before_pods_can_be_added() -> Result<()> {
    Lab::test(|lab| {
        let mut node = node(lab, &[])?;
        // An nft that begins only once it is told to.
        let (programs, begin) = (lab.directory("programs")?, lab.directory("begin")?.join("now"));
        let path = std::env::var("PATH").unwrap_or_default();
        let waits = format!(
            "#!/bin/sh\nuntil [ -e '{}' ]; do sleep 0.02; done\nPATH='{path}' exec nft \"$@\"\n",
            begin.display()
        );
        fs::write(programs.join("nft"), waits)?;
        fs::set_permissions(programs.join("nft"), Permissions::from_mode(0o755))?;
        let mut command = node.weft.command()?;
        command.env("PATH", format!("{}:{path}", programs.display()));
        *node.weft.process() = Some(Process::start("weftd of node", &mut command, &lab.log("node"))?);
        wait_until("convergence", PATIENCE, || converged(&node))?;
        let status = node.weft.status()?;
        ensure!(status["ok"] == false, "{status}");
        let problems = status["problems"].as_array().context("no problems")?;
        let awaited = |problem: &Value| problem["code"] == "node-file";
        ensure!(problems.iter().any(awaited), "nothing is said of node.json: {status}");
        fs::write(&begin, "")?;
        let status = wait_until("a good status", PATIENCE, || {
            let status = node.weft.status()?;
            ensure!(status["ok"] == true, "{status}");
            Ok(status)
        })?;
        ensure!(!status["problems"].as_array().into_iter().flatten().any(awaited), "{status}");
        ensure!(node.weft.run_dir().join("node.json").is_file(), "status is good without a node.json");
        // What an earlier run wrote serves meanwhile.
        node.weft.kill9()?;
        fs::remove_file(&begin)?;
        *node.weft.process() = Some(Process::start("weftd of node", &mut command, &lab.log("node"))?);
        wait_until("convergence after kill -9", PATIENCE, || converged(&node))?;
        let status = node.weft.status()?;
        ensure!(status["ok"] == true, "pods can be added: {status}");
        fs::write(&begin, "")?;
        Ok(())
    })
}

#[test]
fn neither_a_restart_nor_a_stop_takes_it_away() -> Result<()> {
    Lab::test(|lab| {
        let mut node = node(lab, &[])?;
        let file = conf_dir(lab)?.join("10-weft.conflist");
        node.weft.start()?;
        let before = wait_until("the runtime's configuration", PATIENCE, || seen(&file))?;
        let ended = AtomicBool::new(false);
        thread::scope(|scope| {
            let watching = scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    ensure!(file.exists(), "{} was away for a moment", file.display());
                }
                Ok(())
            });
            let mut restart = || {
                node.weft.kill9()?;
                ensure!(seen(&file)? == before, "kill -9 changed it");
                node.weft.start()?;
                wait_until("convergence after kill -9", PATIENCE, || converged(&node))?;
                node.weft.terminate()?;
                ensure!(seen(&file)? == before, "the daemon's end changed it");
                node.weft.start()?;
                wait_until("convergence after SIGTERM", PATIENCE, || converged(&node))?;
                ensure!(seen(&file)? == before, "it was written again although nothing had changed");
                Ok(())
            };
            let result = restart();
            ended.store(true, Ordering::Relaxed);
            let watched = watching.join().map_err(|_| anyhow::anyhow!("the watching thread panicked"))?;
            result.and(watched)
        })
    })
}

#[test]
fn garbage_in_its_place_is_put_right_and_cleanup_removes_it() -> Result<()> {
    Lab::test(|lab| {
        let mut node = node(lab, &[])?;
        let file = conf_dir(lab)?.join("10-weft.conflist");
        node.weft.start()?;
        let (_, good) = wait_until("the runtime's configuration", PATIENCE, || seen(&file))?;
        let repaired = |how: &str| {
            wait_until(format!("the file after {how}"), SHORT, || {
                let (_, text) = seen(&file)?;
                ensure!(text == good, "it is {text}");
                Ok(())
            })
        };
        fs::write(&file, "{\"cniVersion\": ")?;
        repaired("garbage was written to it")?;
        fs::remove_file(&file)?;
        repaired("it was removed")?;
        // While nobody looks.
        node.weft.terminate()?;
        fs::write(&file, "")?;
        node.weft.start()?;
        repaired("it was emptied while weftd was down")?;
        // A directory that cannot be written to is said to be.
        fs::remove_file(&file)?;
        fs::create_dir_all(file.join("in-the-way"))?;
        wait_until("the problem in the status", PATIENCE, || {
            let status = node.weft.status()?;
            let problems = status["problems"].as_array().cloned().unwrap_or_default();
            ensure!(problems.iter().any(|problem| problem["code"] == "conflist"), "{status}");
            Ok(())
        })?;
        fs::remove_dir_all(&file)?;
        repaired("what was in its way was gone")?;
        node.weft.terminate()?;
        let mut cleanup = node.namespace.command(own_program("weftd")?);
        cleanup.arg("--cleanup").arg("--cni-conf-dir").arg(conf_dir(lab)?);
        cleanup.arg("--run-dir").arg(node.weft.run_dir()).arg("--state-dir").arg(node.weft.state_dir());
        run(&mut cleanup, SHORT)?.success()?;
        ensure!(fs::read_dir(conf_dir(lab)?)?.next().is_none(), "the directory is not empty");
        Ok(())
    })
}
