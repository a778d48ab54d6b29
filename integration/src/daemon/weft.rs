//! weftd, asked through weftctl, its metrics and its unix socket's JSON.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use ipnet::IpNet;
use nix::sys::signal::Signal;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::lab::Lab;
use crate::netns::Namespace;
use crate::process::{Finished, Process, SHORT, own_program, run};
use crate::wait::wait_until;

/// Where every weftd of the lab serves metrics: each has a loopback of its own.
const METRICS: &str = "127.0.0.1:9177";

/// A peer, as `weftctl peers -o json` has it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    /// The object that asks for it.
    pub name: String,
    /// Its address, with the port where that is not 179.
    pub peer: String,
    /// Its AS.
    #[serde(rename = "remoteAS")]
    pub remote_as: Option<u32>,
    /// The AS that we are to it.
    #[serde(rename = "localAS")]
    pub local_as: u32,
    /// The state of the session.
    pub state: String,
    /// Whether it is a route reflector client.
    pub route_reflector_client: bool,
    /// Since when, RFC 3339.
    pub since: Option<String>,
    /// How many routes it sent.
    pub received: u64,
    /// How many of those are eligible.
    pub accepted: u64,
    /// How many it was sent.
    pub advertised: u64,
    /// Its BFD session.
    pub bfd: Option<PeerBfd>,
    /// The last error with it.
    pub last_error: Option<PeerError>,
}

/// A peer's BFD session.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PeerBfd {
    /// Our state.
    pub state: String,
    /// Since when, RFC 3339.
    pub since: Option<String>,
    /// Whether it is a multihop session.
    pub multihop: bool,
    /// Between two packets of ours.
    pub transmit_interval_ms: Option<u64>,
    /// How long the peer may be silent.
    pub detection_time_ms: Option<u64>,
    /// How often the path failed.
    pub failures: u64,
}

/// What last went wrong with a peer.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct PeerError {
    /// `sent`, `received` or `local`.
    pub direction: String,
    /// The NOTIFICATION's code.
    pub code: Option<u8>,
    /// Its subcode.
    pub subcode: Option<u8>,
    /// In words.
    pub text: String,
}

/// A prefix, as `weftctl routes -o json` has it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Route {
    /// The prefix.
    pub prefix: IpNet,
    /// Which of the paths is the best.
    pub best: Option<usize>,
    /// Whether the kernel forwards by it.
    pub in_kernel: bool,
    /// All paths.
    pub paths: Vec<RoutePath>,
}

/// A path of a route.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RoutePath {
    /// Its next hops.
    pub next_hops: Vec<IpAddr>,
    /// Who announced it; none: ourselves.
    pub peer: Option<String>,
    /// Its AS path; a set is a nested list.
    pub as_path: Vec<Value>,
    /// LOCAL_PREF.
    pub local_pref: Option<u32>,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// ONLY_TO_CUSTOMER.
    pub only_to_customer: Option<u32>,
    /// Its standard and large communities.
    pub communities: Vec<String>,
    /// ORIGINATOR_ID.
    #[serde(rename = "originatorID")]
    pub originator_id: Option<Ipv4Addr>,
    /// CLUSTER_LIST.
    pub cluster_list: Vec<Ipv4Addr>,
    /// Whether it took part in the decision.
    pub valid: bool,
    /// Whether it is used.
    pub best: bool,
    /// Why it won, lost or took no part.
    pub reason: Option<Reason>,
}

/// A reason, for programs and for people.
#[derive(Clone, Debug, Deserialize)]
pub struct Reason {
    /// A stable word.
    pub code: String,
    /// A sentence.
    pub text: String,
}

/// One weftd and its directories.
#[derive(Debug)]
pub struct Weft {
    node: String,
    namespace: Namespace,
    directory: PathBuf,
    log: PathBuf,
    kubeconfig: Option<PathBuf>,
    flags: Vec<String>,
    process: Option<Process>,
}

impl Weft {
    /// Makes the directories of the weftd of `node`; it is not started.
    ///
    /// # Errors
    /// If they cannot be made.
    pub fn new(lab: &Lab, namespace: &Namespace, node: &str) -> Result<Self> {
        let directory = lab.directory(node)?;
        for inner in ["manifests", "run", "state"] {
            lab.directory(&format!("{node}/{inner}"))?;
        }
        Ok(Self {
            node: node.to_owned(),
            namespace: namespace.clone(),
            directory,
            log: lab.log(node),
            kubeconfig: None,
            flags: Vec::new(),
            process: None,
        })
    }

    /// Its folder of documents.
    #[must_use]
    pub fn manifests(&self) -> PathBuf {
        self.directory.join("manifests")
    }

    /// Its `--run-dir`.
    #[must_use]
    pub fn run_dir(&self) -> PathBuf {
        self.directory.join("run")
    }

    /// Its `--state-dir`.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.directory.join("state")
    }

    /// Its `--cni-cache-dir`, which is not made.
    #[must_use]
    pub fn cni_cache_dir(&self) -> PathBuf {
        self.directory.join("results")
    }

    /// The socket that weftctl asks.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.run_dir().join("weft.sock")
    }

    /// The name of its node.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// The namespace that it runs in.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Has it started with the cluster that this file leads to, and not with its folder of documents.
    pub fn set_kubeconfig(&mut self, kubeconfig: &Path) {
        self.kubeconfig = Some(kubeconfig.to_owned());
    }

    /// Has it started with these flags besides, split at blanks.
    pub fn set_flags(&mut self, flags: &str) {
        self.flags = flags.split_whitespace().map(str::to_owned).collect();
    }

    /// Starts it, and does not wait for anything.
    ///
    /// # Errors
    /// If it is not built.
    pub fn start(&mut self) -> Result<()> {
        let mut command = self.command()?;
        self.process = Some(Process::start(format!("weftd of {}", self.node), &mut command, &self.log)?);
        Ok(())
    }

    /// The command line that starts it.
    ///
    /// # Errors
    /// If it is not built.
    pub fn command(&self) -> Result<Command> {
        let mut command = self.namespace.command(own_program("weftd")?);
        command.args(["--node", &self.node, "--metrics", METRICS, "--log", "text"]);
        match &self.kubeconfig {
            Some(kubeconfig) => command.args(["--node-gone-grace", "1s"]).arg("--kubeconfig").arg(kubeconfig),
            None => command.arg("--manifests").arg(self.manifests()),
        };
        command.arg("--run-dir").arg(self.run_dir());
        command.arg("--state-dir").arg(self.state_dir());
        // What the machine's own runtimes know is not about pods of the lab.
        command.arg("--cni-cache-dir").arg(self.cni_cache_dir());
        command.args(&self.flags);
        Ok(command)
    }

    /// Its process, while it runs.
    pub fn process(&mut self) -> &mut Option<Process> {
        &mut self.process
    }

    /// Kills it with SIGKILL.
    ///
    /// # Errors
    /// If it does not run.
    pub fn kill9(&mut self) -> Result<()> {
        self.take()?.kill9()
    }

    /// Ends it with SIGTERM.
    ///
    /// # Errors
    /// If it does not run, or does not end well in time.
    pub fn terminate(&mut self) -> Result<()> {
        self.take()?.terminate(SHORT)
    }

    /// Sends SIGHUP: read the folder again.
    ///
    /// # Errors
    /// If it does not run.
    pub fn reload(&mut self) -> Result<()> {
        let node = &self.node;
        self.process.as_mut().with_context(|| format!("weftd of {node} does not run"))?.signal(Signal::SIGHUP)
    }

    fn take(&mut self) -> Result<Process> {
        self.process.take().with_context(|| format!("weftd of {} does not run", self.node))
    }

    /// Fails if it has ended, or was never started.
    ///
    /// # Errors
    /// How it ended.
    pub fn ensure_running(&mut self) -> Result<()> {
        let node = &self.node;
        self.process.as_mut().with_context(|| format!("weftd of {node} does not run"))?.ensure_running()
    }

    /// Waits until it answers on its socket.
    ///
    /// # Errors
    /// If it ends instead, or does not answer in time.
    pub fn wait_answers(&mut self) -> Result<()> {
        wait_until(format!("weftd of {} to answer", self.node), SHORT, || self.status())?;
        self.ensure_running()
    }

    /// Runs weftctl with the words of `line`.
    ///
    /// # Errors
    /// If it is not built or does not end in time.
    pub fn weftctl(&self, line: &str) -> Result<Finished> {
        let mut command = self.namespace.command(own_program("weftctl")?);
        command.arg("--socket").arg(self.socket()).args(line.split_whitespace());
        run(&mut command, SHORT)
    }

    /// What `weftctl -o json LINE` prints, whatever its exit code.
    ///
    /// # Errors
    /// If it prints no JSON of that shape.
    pub fn json<T: DeserializeOwned>(&self, line: &str) -> Result<T> {
        let said = self.weftctl(&format!("-o json {line}"))?;
        serde_json::from_str(&said.stdout).with_context(|| {
            format!("{}: weftctl {line}: {} {} {}", self.node, said.status, said.stdout, said.stderr)
        })
    }

    /// `weftctl status`.
    ///
    /// # Errors
    /// If the daemon does not answer.
    pub fn status(&self) -> Result<Value> {
        self.json("status")
    }

    /// `weftctl peers`.
    ///
    /// # Errors
    /// If the daemon does not answer.
    pub fn peers(&self) -> Result<Vec<Peer>> {
        self.json("peers")
    }

    /// The peer of an address.
    ///
    /// # Errors
    /// If the daemon does not answer or has no such peer.
    pub fn peer(&self, address: IpAddr) -> Result<Peer> {
        let peers = self.peers()?;
        let text = address.to_string();
        let found = peers.iter().find(|peer| peer.peer == text).cloned();
        found.with_context(|| format!("{} has no peer {address}: {peers:?}", self.node))
    }

    /// The peer of an address, whose session must be Established.
    ///
    /// # Errors
    /// If it is not.
    pub fn established(&self, address: IpAddr) -> Result<Peer> {
        let peer = self.peer(address)?;
        ensure!(
            peer.state == "Established",
            "{}: {} is {}, last error {:?}",
            self.node,
            peer.peer,
            peer.state,
            peer.last_error
        );
        Ok(peer)
    }

    /// The route to exactly `prefix` in the Loc-RIB; none if there is none.
    ///
    /// # Errors
    /// If the daemon does not answer.
    pub fn route(&self, prefix: IpNet) -> Result<Option<Route>> {
        let routes: Vec<Route> = self.json(&format!("routes {prefix}"))?;
        Ok(routes.into_iter().find(|route| route.prefix == prefix))
    }

    /// The best path to exactly `prefix`, which must be in the kernel.
    ///
    /// # Errors
    /// If it is not.
    pub fn forwards(&self, prefix: IpNet) -> Result<RoutePath> {
        let route = self.route(prefix)?.with_context(|| format!("{} has no route to {prefix}", self.node))?;
        let best = route.best.and_then(|index| route.paths.get(index)).cloned();
        let best =
            best.with_context(|| format!("{} has no best path to {prefix}: {:?}", self.node, route.paths))?;
        ensure!(route.in_kernel, "{}: {prefix} is not in the kernel", self.node);
        Ok(best)
    }

    /// Fails if there is a path to exactly `prefix` that is used.
    ///
    /// # Errors
    /// If there is one.
    pub fn ensure_no_path(&self, prefix: IpNet) -> Result<()> {
        let route = self.route(prefix)?;
        ensure!(
            route.as_ref().is_none_or(|route| route.best.is_none()),
            "{} still has {prefix}: {route:?}",
            self.node
        );
        let kernel = self.namespace.routes_to(prefix)?;
        ensure!(kernel.is_empty(), "{}: the kernel still has {prefix}: {kernel:?}", self.node);
        Ok(())
    }

    /// A page of its metrics address: `/metrics`, `/healthz`, `/readyz`. The status line's code, and the body.
    ///
    /// # Errors
    /// If nothing answers there.
    pub fn http(&self, path: &str) -> Result<(u16, String)> {
        let address: SocketAddr = METRICS.parse()?;
        let mut stream = self.namespace.run(|| TcpStream::connect_timeout(&address, SHORT))??;
        stream.set_read_timeout(Some(SHORT))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").with_context(|| format!("no HTTP: {answer}"))?;
        let code = head.split_whitespace().nth(1).and_then(|code| code.parse().ok());
        Ok((code.with_context(|| format!("no status code: {head}"))?, body.to_owned()))
    }

    /// The path of its log.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }
}
