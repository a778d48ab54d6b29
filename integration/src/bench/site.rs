//! Where a contender works: a node of its own, and pods' namespaces.
//!
//! An open file of this process holds each namespace, and a symbolic link names it: it is gone with the process, however that ends.
//!
//! Duplicate address detection is off in all of them: `ptp` waits for its end, a second and more, and would be measured for that alone.

use std::fs::File;
use std::io::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use std::{fs, thread};

use anyhow::{Context as _, Result, anyhow, ensure};
use ipnet::{Ipv4Net, Ipv6Net};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};
use weft_cni::node::{self, BlockFile, FamilyFile, NodeFile};
use weft_routing::netlink::{Socket, set_up};
use weft_routing::{netns, sysctl};

use super::floor;
use super::report::Contender;
use crate::process::{foreign_program, own_program};
use crate::wait::{now, wait_until};

/// The interface that every pod gets.
pub(super) const INTERFACE: &str = "eth0";
/// The addresses of every node's pods: a thousand of each family.
pub(super) const BLOCK_V4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 244, 0, 0), 22);
/// As [`BLOCK_V4`].
pub(super) const BLOCK_V6: Ipv6Net =
    Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, 0), 118);

/// How long the kernel may take for the links of all pods.
const GONE: Duration = Duration::from_secs(60);
const MTU: u32 = 1500;
/// Where Debian's package containernetworking-plugins has its programs.
const REFERENCE: &str = "/usr/lib/cni";

/// A network namespace that lives as long as this value.
#[derive(Debug)]
struct Held {
    _file: File,
    path: PathBuf,
}

impl Held {
    /// Makes one that can be opened as `path`; everything in it is down.
    fn new(path: PathBuf) -> Result<Self> {
        let made = thread::spawn(|| -> Result<File> {
            unshare(CloneFlags::CLONE_NEWNET).context("cannot make a network namespace; is this root?")?;
            for which in ["all", "default"] {
                sysctl::write(&format!("net/ipv6/conf/{which}/accept_dad"), "0")?;
            }
            Ok(File::open("/proc/thread-self/ns/net")?)
        });
        let file = made.join().map_err(|_| anyhow!("the thread that makes a namespace panicked"))??;
        symlink(format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()), &path)
            .with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self { _file: file, path })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // The number of the file, which is closed next, will be another one's. A link that stays is in the way of the next of its
        // name, which says so.
        let _ = fs::remove_file(&self.path);
    }
}

/// Makes pods' namespaces, in a directory.
#[derive(Debug)]
pub(super) struct Pods(PathBuf);

impl Pods {
    /// Has them named in `directory`, which is there.
    pub(super) fn new(directory: PathBuf) -> Self {
        Self(directory)
    }

    /// Makes `count` pods without interfaces, numbered from `first` on.
    ///
    /// # Errors
    /// If namespaces cannot be made, or one of those numbers lives.
    pub(super) fn make(&self, first: u32, count: u32) -> Result<Vec<Pod>> {
        let numbers = first..first.saturating_add(count);
        numbers
            .map(|number| {
                let path = self.0.join(format!("pod{number}"));
                Ok(Pod { number, namespace: Some(Held::new(path.clone())?), path })
            })
            .collect()
    }
}

/// A pod: its number, which is its own on its node, and its namespace. None where it is gone.
#[derive(Debug)]
pub(super) struct Pod {
    number: u32,
    path: PathBuf,
    namespace: Option<Held>,
}

impl Pod {
    /// Takes its namespace away, as a runtime does that has lost the sandbox.
    pub(super) fn abandon(&mut self) {
        self.namespace = None;
    }
}

/// What a contender is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Start and end, and nothing else.
    Start,
    /// Give pods their interface.
    Add,
    /// Take it away.
    Del,
}

impl Action {
    fn cni_command(self) -> &'static str {
        match self {
            Self::Start => "VERSION",
            Self::Add => "ADD",
            Self::Del => "DEL",
        }
    }
}

/// A contender on a node of its own.
#[derive(Debug)]
pub(super) struct Site {
    contender: Contender,
    node: Held,
    program: PathBuf,
    config: Vec<u8>,
}

impl Site {
    /// A node without pods. Files go into `directory`, which is there.
    ///
    /// # Errors
    /// If the contender's program is not there, or the node cannot be made.
    pub(super) fn new(contender: Contender, directory: &Path) -> Result<Self> {
        let node = Held::new(directory.join("node"))?;
        netns::run(&node.path, || Socket::new()?.execute(&set_up(1, true)))??;
        let (program, config) = match contender {
            Contender::Weft => {
                node_file()?.write_atomic(directory)?;
                (own_program("weft-cni")?, weft_config(directory))
            }
            Contender::Ptp => {
                let program = foreign_program(&[&format!("{REFERENCE}/ptp")], "containernetworking-plugins")?;
                (program, ptp_config(directory))
            }
            Contender::Floor => (std::env::current_exe()?, Value::Null),
        };
        Ok(Self { contender, node, program, config: config.to_string().into_bytes() })
    }

    /// Waits until the node has no pod's link any more: the kernel takes those away a while after their namespaces.
    ///
    /// # Errors
    /// If some are still there after a minute.
    pub(super) fn await_empty(&self) -> Result<()> {
        wait_until(format!("the links of {} to go", self.contender), GONE, || {
            let links = netns::run(&self.node.path, || Socket::new()?.links())??;
            ensure!(links.len() <= 1, "{} links", links.len());
            Ok(())
        })
    }

    /// Has the contender act for `pods`, a process for each and `parallel` of them at once, and says how long each took from its
    /// start to its end.
    ///
    /// # Errors
    /// If the node cannot be entered. What a process fails with is in the results.
    pub(super) fn act(&self, action: Action, pods: &[Pod], parallel: u32) -> Result<Vec<Result<Duration>>> {
        let next = AtomicUsize::new(0);
        let caller = || {
            let mut results = Vec::new();
            while let Some(pod) = pods.get(next.fetch_add(1, Ordering::Relaxed)) {
                results.push(self.call(action, pod));
            }
            results
        };
        // What is started by a thread starts in that thread's namespace.
        let results = netns::run(&self.node.path, || {
            thread::scope(|scope| {
                let callers: Vec<_> = (0..parallel).map(|_| scope.spawn(caller)).collect();
                callers.into_iter().map(thread::ScopedJoinHandle::join).collect::<Vec<_>>()
            })
        })?;
        let mut all = Vec::new();
        for result in results {
            all.extend(result.map_err(|_| anyhow!("a caller of {} panicked", self.contender))?);
        }
        Ok(all)
    }

    fn call(&self, action: Action, pod: &Pod) -> Result<Duration> {
        let mut command = self.command(action, pod);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let start = now();
        let mut child =
            command.spawn().with_context(|| format!("cannot start {}", self.program.display()))?;
        // One that does not read its input says so by its exit code, or has no use for it.
        let _ = child.stdin.take().map(|mut stdin| stdin.write_all(&self.config));
        let done = child.wait_with_output()?;
        let took = start.elapsed();
        ensure!(
            done.status.success(),
            "{} {action:?}: {} {}{}",
            self.contender,
            done.status,
            String::from_utf8_lossy(&done.stdout).trim(),
            String::from_utf8_lossy(&done.stderr).trim()
        );
        Ok(took)
    }

    fn command(&self, action: Action, pod: &Pod) -> Command {
        let mut command = Command::new(&self.program);
        if self.contender == Contender::Floor {
            command.arg(floor::ARGUMENT);
            match action {
                Action::Start => command.arg("start"),
                Action::Add => command.arg("add").arg(pod.number.to_string()).arg(&pod.path),
                Action::Del => command.arg("del").arg(pod.number.to_string()),
            };
            return command;
        }
        command
            .env("CNI_COMMAND", action.cni_command())
            .env("CNI_CONTAINERID", format!("bench{}", pod.number))
            .env("CNI_NETNS", &pod.path)
            .env("CNI_IFNAME", INTERFACE)
            .env("CNI_PATH", REFERENCE);
        command
    }
}

fn weft_config(directory: &Path) -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "bench",
        "type": "weft-cni",
        "runDir": directory,
        "stateDir": directory,
    })
}

fn ptp_config(directory: &Path) -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "bench",
        "type": "ptp",
        "mtu": MTU,
        "ipam": {
            "type": "host-local",
            "dataDir": directory,
            "ranges": [[{"subnet": BLOCK_V4}], [{"subnet": BLOCK_V6}]],
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
        },
    })
}

/// What weftd would tell the plugin.
fn node_file() -> Result<NodeFile> {
    fn family<Net, Address>(cidr: Net, gateway: Address) -> FamilyFile<Net, Address> {
        let block = BlockFile { cidr, pool: None, open: true, announced: true, cooldown_seconds: 0 };
        FamilyFile { blocks: vec![block], gateway, node_address: None }
    }
    Ok(NodeFile {
        schema_version: node::SCHEMA_VERSION,
        boot_id: node::boot_id()?,
        node: "bench".to_owned(),
        mtu: MTU,
        pools: Default::default(),
        ipv4: Some(family(BLOCK_V4, node::GATEWAY_V4)),
        ipv6: Some(family(BLOCK_V6, node::GATEWAY_V6)),
        reserved: Vec::new(),
    })
}

/// Makes the directory of one site in `parent`.
///
/// # Errors
/// If it cannot be made.
pub(super) fn directory(parent: &Path, name: &str) -> Result<PathBuf> {
    let directory = parent.join(name);
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    Ok(directory)
}
