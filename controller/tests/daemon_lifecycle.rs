//! `weftd` as a process, in a network namespace of its own: start with bad documents, stop, death, and cleanup.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that finds something else than it expects fails"
)]

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// How long anything that is awaited may take on a busy machine.
const DEADLINE: Duration = Duration::from_secs(20);

const DOCUMENTS: &str = "\
apiVersion: weft.network/v1alpha1
kind: BGPConfiguration
metadata: {name: default}
spec: {listenPort: 1790}
---
apiVersion: v1
kind: Node
metadata: {name: n1}
spec: {podCIDRs: [10.244.1.0/26]}
status:
  addresses:
  - {type: InternalIP, address: 192.0.2.1}
";

/// A namespace with an address on lo, alive as long as the process that holds it.
struct Namespace {
    holder: Child,
}

impl Namespace {
    fn new() -> Self {
        let script = "ip link set lo up && ip addr add 192.0.2.1/32 dev lo && echo ready && exec sleep 600";
        let mut holder = Command::new("unshare")
            .args(["--net", "sh", "-c", script])
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare(1) makes a network namespace; this test needs root");
        let mut ready = String::new();
        let out = holder.stdout.take().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut ready).unwrap();
        assert_eq!(ready, "ready\n", "no network namespace; this test needs root");
        Self { holder }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--target", &self.holder.id().to_string(), program]);
        command
    }

    fn own_routes(&self) -> String {
        let shown = self.command("ip").args(["route", "show", "proto", "176"]).output().unwrap();
        String::from_utf8(shown.stdout).unwrap()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.holder.kill());
        drop(self.holder.wait());
    }
}

/// A weftd, its folders and its namespace.
struct Daemon {
    process: Option<Child>,
    dir: tempfile::TempDir,
    namespace: Namespace,
}

impl Daemon {
    fn prepare(documents: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("manifests")).unwrap();
        let daemon = Self { process: None, dir, namespace: Namespace::new() };
        daemon.write(documents);
        daemon
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, documents: &str) {
        fs::write(self.path("manifests/network.yaml"), documents).unwrap();
    }

    fn command(&self) -> Command {
        let mut command = self.namespace.command(env!("CARGO_BIN_EXE_weftd"));
        command.arg("--run-dir").arg(self.path("run")).arg("--state-dir").arg(self.path("state"));
        command
    }

    fn serving(&self) -> Command {
        let mut command = self.command();
        command.args(["--node", "n1", "--manifests"]).arg(self.path("manifests"));
        command
    }

    fn start(&mut self) {
        self.process = Some(self.serving().stderr(Stdio::null()).spawn().unwrap());
    }

    fn signal(&self, signal: Signal) {
        let id = self.process.as_ref().unwrap().id();
        kill(Pid::from_raw(id.try_into().unwrap()), signal).unwrap();
    }

    fn wait(&mut self) -> Option<i32> {
        self.process.take().unwrap().wait().unwrap().code()
    }

    fn weftctl(&self, line: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weftctl"));
        command.arg("--socket").arg(self.path("run/weft.sock")).args(line).output().unwrap()
    }

    /// The status once it is as wanted.
    fn status_when(&self, awaited: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let since = now();
        loop {
            let output = self.weftctl(&["status", "-o", "json"]);
            let status: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            if wanted(&status) {
                return status;
            }
            assert!(since.elapsed() < DEADLINE, "{awaited} did not come: {status} {output:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn well(&self) -> Value {
        let well = |s: &Value| s["ok"] == true && s["fib"]["installed"] == 1 && s["spoofed"].is_object();
        self.status_when("a node that is well", well)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            drop(process.kill());
            drop(process.wait());
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a deadline for what another process does")]
fn now() -> Instant {
    Instant::now()
}

#[test]
fn documents_with_errors_are_told_of_and_taken_once_they_are_right() {
    let mut daemon = Daemon::prepare(&DOCUMENTS.replace("10.244.1.0", "10.244.1.1"));
    daemon.start();
    let status = daemon.status_when("word of the error", |s| s["config"]["errors"][0].is_object());
    let error = &status["config"]["errors"][0];
    assert_eq!((error["object"].as_str(), error["line"].as_u64()), (Some("Node/n1"), Some(9)), "{status}");
    assert_eq!(daemon.weftctl(&["status"]).status.code(), Some(1));
    assert_eq!(daemon.weftctl(&["routes", "10.244.1.0/26"]).status.code(), Some(1));
    assert!(daemon.namespace.own_routes().is_empty() && !daemon.path("run/node.json").exists());
    daemon.write(DOCUMENTS);
    let status = daemon.well();
    assert_eq!(status["config"], serde_json::json!({"ok": true, "errors": []}));
    assert_eq!(daemon.namespace.own_routes().trim(), "unreachable 10.244.1.0/26 metric 4278198272");
    assert!(daemon.path("run/node.json").exists());
    // From here on the good plan stays, whatever is written.
    daemon.write("nonsense: [");
    let status = daemon.status_when("word of the second error", |s| s["config"]["ok"] == false);
    assert_eq!(status["fib"]["installed"], 1);
}

#[test]
fn sigterm_leaves_the_routes_and_cleanup_takes_them() {
    let mut daemon = Daemon::prepare(DOCUMENTS);
    daemon.start();
    daemon.well();
    let refused = daemon.command().arg("--cleanup").output().unwrap();
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("another weftd"), "{refused:?}");
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait(), Some(0));
    assert!(daemon.namespace.own_routes().contains("10.244.1.0/26"));
    let cleaned = daemon.command().arg("--cleanup").output().unwrap();
    assert!(cleaned.status.success(), "{cleaned:?}");
    let told = String::from_utf8_lossy(&cleaned.stdout);
    assert!(told.contains("removed route 10.244.1.0/26") && told.contains("node.json"), "{told}");
    assert!(told.contains("removed nftables table inet weft\n"), "{told}");
    assert_eq!(daemon.namespace.own_routes(), "");
    assert!(!daemon.path("run").exists());
}

#[test]
fn a_second_daemon_is_refused_and_a_dead_ones_socket_is_replaced() {
    let mut daemon = Daemon::prepare(DOCUMENTS);
    daemon.start();
    daemon.well();
    let second = daemon.serving().output().unwrap();
    assert!(!second.status.success());
    assert!(String::from_utf8_lossy(&second.stderr).contains("another weftd"), "{second:?}");
    daemon.signal(Signal::SIGKILL);
    daemon.wait();
    assert!(daemon.path("run/weft.sock").exists());
    assert_eq!(daemon.weftctl(&["status"]).status.code(), Some(3));
    assert!(daemon.namespace.own_routes().contains("10.244.1.0/26"));
    daemon.start();
    daemon.well();
}

#[test]
fn a_wrong_command_line_is_2_and_says_what_is_missing() {
    let output = Command::new(env!("CARGO_BIN_EXE_weftd")).args(["--node", "n1"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--manifests"), "{output:?}");
    let url = ["--node", "n1", "--api-server", "192.0.2.1:6443"];
    let output = Command::new(env!("CARGO_BIN_EXE_weftd")).args(url).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("https://192.0.2.1:6443"), "{output:?}");
}

#[test]
fn cleanup_ends_well_where_its_directory_is_mounted_on_what_cannot_be_written() {
    let root = tempfile::tempdir().unwrap();
    // As a container has it: the root file system is read-only, and the host's directory is mounted into it.
    let script = r#"
        mount -t tmpfs none "$1" && mkdir "$1/weft" && mount -t tmpfs none "$1/weft" && mount -o remount,ro "$1" &&
        exec "$2" --cleanup --run-dir "$1/weft""#;
    let weftd = env!("CARGO_BIN_EXE_weftd");
    let cleaned = Command::new("unshare")
        .args(["--net", "--mount", "sh", "-c", script, "sh"])
        .arg(root.path())
        .arg(weftd)
        .output()
        .expect("unshare(1) makes namespaces; this test needs root");
    let said = String::from_utf8_lossy(&cleaned.stdout).into_owned();
    assert!(cleaned.status.success(), "{said}{}", String::from_utf8_lossy(&cleaned.stderr));
    assert!(said.contains("it is mounted"), "{said}");
}
