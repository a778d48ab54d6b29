//! A host and its pods as network namespaces, and the built plugin run in them.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};
use weft_cni::ipam::{Entry, Store};
use weft_cni::node::{BlockFile, FamilyFile, GATEWAY_V4, GATEWAY_V6, NodeFile, SCHEMA_VERSION, boot_id};
use weft_routing::netlink::{Address, Scope, Socket, set_up};
use weft_routing::{netns, sysctl};

/// How long a datagram is waited for before it counts as lost.
const LOST: Duration = Duration::from_secs(2);

/// A network namespace that lives as long as the value: a thread holds it.
pub(crate) struct Namespace {
    pub(crate) path: PathBuf,
    release: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Namespace {
    pub(crate) fn new() -> Self {
        let (release, released) = mpsc::channel::<()>();
        let (ready, path) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let made = unshare(CloneFlags::CLONE_NEWNET);
            let tid = nix::unistd::gettid();
            ready
                .send(made.map(|()| PathBuf::from(format!("/proc/{}/task/{tid}/ns/net", std::process::id()))))
                .unwrap();
            // Ends when the sender is dropped.
            let _ = released.recv();
        });
        let path =
            path.recv().unwrap().expect("these tests need root: a network namespace could not be made");
        Self { path, release: Some(release), thread: Some(thread) }
    }

    pub(crate) fn socket(&self) -> Socket {
        Socket::in_netns(&self.path).unwrap()
    }

    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        netns::run(&self.path, work).unwrap()
    }

    /// Names of all links but `lo`.
    pub(crate) fn links(&self) -> Vec<String> {
        let links = self.socket().links().unwrap();
        links.into_iter().map(|link| link.name).filter(|name| name != "lo").collect()
    }

    fn udp(&self, address: IpAddr) -> UdpSocket {
        let socket = self.run(|| UdpSocket::bind(SocketAddr::new(address, 0))).unwrap();
        socket.set_read_timeout(Some(LOST)).unwrap();
        socket
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.release = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Sends one datagram and an answer. Returns the source that `to` saw; panics when either is lost.
pub(crate) fn one_datagram_each_way(from: &Namespace, to: &Namespace, address: IpAddr) -> IpAddr {
    let server = to.udp(address);
    let any: IpAddr = if address.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let client = from.udp(any);
    let mut buffer = [0; 16];
    client.send_to(b"ping", server.local_addr().unwrap()).unwrap();
    let (length, source) = server
        .recv_from(&mut buffer)
        .unwrap_or_else(|error| panic!("the first datagram to {address}: {error}"));
    assert_eq!(&buffer[..length], b"ping");
    server.send_to(b"pong", source).unwrap();
    let (_, answered) = client
        .recv_from(&mut buffer)
        .unwrap_or_else(|error| panic!("the answer of {address} to {source}: {error}"));
    assert_eq!(answered.ip(), address);
    source.ip()
}

/// A node: its namespace, `node.json` and address store.
pub(crate) struct Host {
    pub(crate) namespace: Namespace,
    pub(crate) dir: tempfile::TempDir,
}

pub(crate) const HOST_V4: &str = "192.0.2.1";
pub(crate) const HOST_V6: &str = "2001:db8::1";

impl Host {
    /// A node with one block of each family, forwarding, its addresses on `lo`.
    pub(crate) fn new(block_v4: &str, block_v6: &str) -> Self {
        let host = Self { namespace: Namespace::new(), dir: tempfile::tempdir().unwrap() };
        let mut socket = host.namespace.socket();
        socket.execute(&set_up(1, true)).unwrap();
        for address in [HOST_V4, HOST_V6] {
            let address: IpAddr = address.parse().unwrap();
            let address =
                Address { link: 1, address: address.into(), scope: Scope::Global, tentative: false };
            socket.execute(&address.add()).unwrap();
        }
        host.namespace.run(|| {
            sysctl::write("net/ipv4/ip_forward", "1").unwrap();
            sysctl::write("net/ipv6/conf/all/forwarding", "1").unwrap();
        });
        std::fs::create_dir(host.dir.path().join("run")).unwrap();
        host.write_node_file(&Self::node_file(block_v4, block_v6));
        host
    }

    pub(crate) fn node_file(block_v4: &str, block_v6: &str) -> NodeFile {
        NodeFile {
            schema_version: SCHEMA_VERSION,
            boot_id: boot_id().unwrap(),
            node: "n1".into(),
            mtu: 1450,
            ipv4: Some(FamilyFile {
                blocks: vec![block(block_v4.parse().unwrap())],
                gateway: GATEWAY_V4,
                node_address: Some(HOST_V4.parse().unwrap()),
            }),
            ipv6: Some(FamilyFile {
                blocks: vec![block(block_v6.parse().unwrap())],
                gateway: GATEWAY_V6,
                node_address: Some(HOST_V6.parse().unwrap()),
            }),
            pools: BTreeMap::new(),
            reserved: Vec::new(),
        }
    }

    pub(crate) fn write_node_file(&self, node: &NodeFile) {
        node.write_atomic(&self.dir.path().join("run")).unwrap();
    }

    pub(crate) fn entries(&self) -> Vec<Entry> {
        Store::open(&self.dir.path().join("state"), &boot_id().unwrap()).unwrap().entries().unwrap()
    }

    pub(crate) fn config(&self) -> Value {
        json!({
            "cniVersion": "1.0.0",
            "name": "weft",
            "type": "weft-cni",
            "runDir": self.dir.path().join("run"),
            "stateDir": self.dir.path().join("state"),
        })
    }

    /// Starts the plugin on the host for `eth0` of a container.
    pub(crate) fn spawn(&self, command: &str, container: &str, netns: &str, config: &Value) -> Child {
        self.spawn_with_args(command, container, netns, config, "")
    }

    /// The same with `CNI_ARGS`.
    pub(crate) fn spawn_with_args(
        &self,
        command: &str,
        container: &str,
        netns: &str,
        config: &Value,
        args: &str,
    ) -> Child {
        let mut plugin = Command::new(env!("CARGO_BIN_EXE_weft-cni"));
        plugin
            .env_clear()
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", container)
            .env("CNI_NETNS", netns)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_ARGS", args)
            .env("CNI_PATH", "/opt/cni/bin")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        // The child has the namespace of the thread that starts it.
        let mut child = self.namespace.run(|| plugin.spawn()).unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // A plugin that refuses its environment does not read.
        let _ = stdin.write_all(config.to_string().as_bytes());
        child
    }

    /// Runs the plugin; `Ok` is its answer, `Err` its error.
    pub(crate) fn call(
        &self,
        command: &str,
        container: &str,
        netns: &str,
        config: &Value,
    ) -> Result<Value, Value> {
        outcome(self.spawn(command, container, netns, config))
    }

    pub(crate) fn add(&self, container: &str, pod: &Namespace) -> Result<Value, Value> {
        self.call("ADD", container, pod.path.to_str().unwrap(), &self.config())
    }

    pub(crate) fn del(&self, container: &str) -> Result<Value, Value> {
        self.call("DEL", container, "", &self.config())
    }

    pub(crate) fn check(&self, container: &str, pod: &Namespace, result: &Value) -> Result<Value, Value> {
        let mut config = self.config();
        config["prevResult"] = result.clone();
        self.call("CHECK", container, pod.path.to_str().unwrap(), &config)
    }

    /// The links of pods whose namespaces are gone go with those: the kernel is at it.
    pub(crate) fn await_no_link(&self) {
        for _ in 0..2000 {
            if self.namespace.links().is_empty() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        panic!("waited in vain for the kernel to take the links away: {:?}", self.namespace.links());
    }

    /// Nothing of any pod is left: no link, no route, no entry.
    pub(crate) fn assert_empty(&self) {
        assert_eq!(self.namespace.links(), [] as [String; 0]);
        let routes = self.namespace.socket().routes_of(weft_routing::route::Protocol::WEFT_PODS).unwrap();
        assert_eq!(routes, []);
        assert_eq!(self.entries(), []);
    }
}

pub(crate) fn outcome(child: Child) -> Result<Value, Value> {
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let value = if text.is_empty() {
        Value::Null
    } else {
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text:?} is no JSON: {error}"))
    };
    match output.status.code() {
        Some(0) => Ok(value),
        Some(1) => Err(value),
        code => panic!("exit code {code:?}: {value}"),
    }
}

/// The addresses of a result, IPv4 first.
pub(crate) fn addresses(result: &Value) -> Vec<IpAddr> {
    let ips = result["ips"].as_array().unwrap();
    ips.iter().map(|ip| ip["address"].as_str().unwrap().split_once('/').unwrap().0.parse().unwrap()).collect()
}

fn block<Net>(cidr: Net) -> BlockFile<Net> {
    BlockFile { cidr, pool: None, open: true, announced: false, cooldown_seconds: 0 }
}
