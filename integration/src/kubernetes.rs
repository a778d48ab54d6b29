//! A real API server with its etcd, in a namespace of the lab. The programs are found as the envtest convention has it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ipnet::IpNet;
use serde_json::{Value, json};

use crate::lab::Lab;
use crate::lan::Lan;
use crate::link::{End, Link};
use crate::netns::Namespace;
use crate::process::{Process, SHORT, own_program, run, run_with_input};
use crate::wait::wait_until;

/// Names the folder with `etcd`, `kube-apiserver` and `kubectl`.
pub const ASSETS: &str = "KUBEBUILDER_ASSETS";

/// How long the API server may take to be ready.
const START: Duration = Duration::from_secs(60);
const PORT: u16 = 6443;
/// Its address beside the nodes of the first switch of a [`Lan`].
const BESIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 2, 0, 200));
/// What an admin applies.
pub const BASE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests/base");
/// Who may do everything; the server is in a namespace of its own.
const TOKEN: &str = "lab";

/// An API server that runs until this value is dropped.
#[derive(Debug)]
pub struct ControlPlane {
    assets: PathBuf,
    directory: PathBuf,
    namespace: Namespace,
    address: IpAddr,
    logs: [PathBuf; 2],
    etcd: Option<Process>,
    api_server: Option<Process>,
}

impl ControlPlane {
    /// Starts one on a machine of its own beside the nodes of `lan`, with [`BASE`] applied. The link is that machine's.
    ///
    /// # Errors
    /// See [`start`](Self::start).
    pub fn beside(lab: &Lab, lan: &Lan) -> Result<(Self, Link)> {
        let machine = lab.machine("control-plane")?;
        let switch = lan.switches.first().context("the nodes have no switch")?;
        let link = switch.plug(End::new(&machine, "eth0"))?;
        link.near.add_addresses(&[IpNet::new(BESIDE, 24)?])?;
        // kube-apiserver takes no address of itself that is a loopback's, and wants a default route to find one.
        machine.ip("route add default dev eth0")?;
        let plane = Self::start(lab, &machine, BESIDE)?;
        plane.apply_folder(Path::new(BASE))?;
        Ok((plane, link))
    }

    /// Starts one in a namespace that has `address`.
    ///
    /// # Errors
    /// If [`ASSETS`] does not name the programs, or they do not come up.
    pub fn start(lab: &Lab, namespace: &Namespace, address: IpAddr) -> Result<Self> {
        let assets = std::env::var_os(ASSETS).with_context(|| format!("{ASSETS} is not set"))?;
        let mut plane = Self {
            assets: assets.into(),
            directory: lab.directory("control-plane")?,
            namespace: namespace.clone(),
            address,
            logs: [lab.log("etcd"), lab.log("kube-apiserver")],
            etcd: None,
            api_server: None,
        };
        plane.write_files()?;
        plane.start_etcd()?;
        plane.start_api_server()?;
        Ok(plane)
    }

    /// How the server is reached by who may do everything.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.directory.join("kubeconfig")
    }

    /// Where it runs.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Kills the API server; etcd keeps what it had.
    ///
    /// # Errors
    /// If it does not run.
    pub fn kill_api_server(&mut self) -> Result<()> {
        self.api_server.take().context("the API server does not run")?.kill9()
    }

    /// Starts the API server and waits until it is ready.
    ///
    /// # Errors
    /// If it does not get ready in time.
    pub fn start_api_server(&mut self) -> Result<()> {
        let file = |name: &str| self.directory.join(name).display().to_string();
        let mut command = self.namespace.command(self.assets.join("kube-apiserver"));
        command.args([
            "--etcd-servers=http://127.0.0.1:2379".to_owned(),
            format!("--cert-dir={}", file("certificates")),
            format!("--bind-address={}", self.address),
            format!("--advertise-address={}", self.address),
            format!("--secure-port={PORT}"),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-key-file={}", file("service-account.key")),
            format!("--service-account-signing-key-file={}", file("service-account.key")),
            "--authorization-mode=RBAC".to_owned(),
            format!("--token-auth-file={}", file("tokens.csv")),
            "--service-cluster-ip-range=10.96.0.0/16,fd00:10:96::/112".to_owned(),
            "--disable-admission-plugins=ServiceAccount".to_owned(),
        ]);
        let [_, log] = &self.logs;
        self.api_server = Some(Process::start("kube-apiserver", &mut command, log)?);
        wait_until("the API server to be ready", START, || {
            if let Some(api_server) = &mut self.api_server {
                api_server.ensure_running()?;
            }
            run(self.kubectl().args(["get", "--raw", "/readyz"]), SHORT)?.success()
        })?;
        Ok(())
    }

    /// Applies objects, server-side.
    ///
    /// # Errors
    /// If the server refuses one.
    pub fn apply(&self, objects: &[Value]) -> Result<()> {
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects });
        let mut command = self.kubectl();
        command.args(["apply", "--server-side", "-f", "-"]);
        run_with_input(&mut command, list.to_string().as_bytes(), SHORT)?.success()?;
        Ok(())
    }

    /// Applies a kustomization, and waits until its CustomResourceDefinitions are served.
    ///
    /// # Errors
    /// If the server refuses an object of it.
    pub fn apply_folder(&self, folder: &Path) -> Result<()> {
        run(self.kubectl().args(["apply", "--server-side", "-k"]).arg(folder), SHORT)?.success()?;
        self.run("wait --for=condition=Established --timeout=20s crd --all").map(drop)
    }

    /// Asks the server whether it would take a kustomization.
    ///
    /// # Errors
    /// What it would refuse.
    pub fn try_folder(&self, folder: &Path) -> Result<()> {
        let mut command = self.kubectl();
        command.args(["apply", "--server-side", "--force-conflicts", "--dry-run=server", "-k"]);
        run(command.arg(folder), SHORT)?.success()?;
        Ok(())
    }

    /// A kubeconfig for a ServiceAccount of `weft-system`, as its pod on a node has it if one is named.
    ///
    /// # Errors
    /// If there is none of that name, or no such Node.
    pub fn kubeconfig_of(&self, account: &str, node: Option<&str>) -> Result<PathBuf> {
        let bound = node
            .map(|node| format!("--bound-object-kind Node --bound-object-name {node}"))
            .unwrap_or_default();
        let token = self.run(&format!("create token {account} --namespace weft-system {bound}"))?;
        let file = self.directory.join(format!("{account}{}.kubeconfig", node.unwrap_or_default()));
        let mut config = self.config(token.trim());
        config["contexts"][0]["context"]["namespace"] = json!("weft-system");
        fs::write(&file, config.to_string())?;
        Ok(file)
    }

    /// Runs kubectl with the words of `line`, and returns what it says.
    ///
    /// # Errors
    /// If it fails.
    pub fn run(&self, line: &str) -> Result<String> {
        Ok(run(self.kubectl().args(line.split_whitespace()), SHORT)?.success()?.stdout)
    }

    /// The same, as whom a kubeconfig names.
    ///
    /// # Errors
    /// If it fails.
    pub fn run_as(&self, kubeconfig: &Path, line: &str) -> Result<String> {
        let mut command = self.namespace.command(self.assets.join("kubectl"));
        command.arg("--kubeconfig").arg(kubeconfig).arg("--cache-dir").arg(self.directory.join("cache"));
        Ok(run(command.args(line.split_whitespace()), SHORT)?.success()?.stdout)
    }

    /// Puts a Node there with these labels, podCIDRs and addresses.
    ///
    /// # Errors
    /// If the server refuses it.
    pub fn add_node(&self, node: &Value) -> Result<()> {
        // Its status goes a way of its own, where two addresses may be of one type.
        let spec =
            json!({ "apiVersion": "v1", "kind": "Node", "metadata": node["metadata"], "spec": node["spec"] });
        self.apply(&[spec])?;
        let name = node["metadata"]["name"].as_str().context("a Node has a name")?;
        let status = json!({ "status": node["status"] }).to_string();
        let mut command = self.kubectl();
        command.args(["patch", "node", name, "--subresource=status", "--type=merge", "-p", &status]);
        run(&mut command, SHORT)?.success()?;
        Ok(())
    }

    /// An object, or a list of objects.
    ///
    /// # Errors
    /// If there is none.
    pub fn get(&self, what: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.run(&format!("get {what} -o json"))?)?)
    }

    /// The objects of a list.
    ///
    /// # Errors
    /// If the server knows no such kind.
    pub fn list(&self, kind: &str) -> Result<Vec<Value>> {
        self.get(kind)?["items"].as_array().cloned().context("it is no list")
    }

    /// The blocks that are given, by node.
    ///
    /// # Errors
    /// If they cannot be had, or make no sense.
    pub fn blocks(&self) -> Result<BTreeMap<String, BTreeSet<IpNet>>> {
        let mut blocks: BTreeMap<String, BTreeSet<IpNet>> = BTreeMap::new();
        for block in self.list("ipblocks")? {
            let (node, cidr) = (block["spec"]["node"].as_str(), block["spec"]["cidr"].as_str());
            let (node, cidr) = node.zip(cidr).context("an IPBlock is of a node")?;
            blocks.entry(node.to_owned()).or_default().insert(cidr.parse()?);
        }
        Ok(blocks)
    }

    fn kubectl(&self) -> Command {
        let mut command = self.namespace.command(self.assets.join("kubectl"));
        command.arg("--kubeconfig").arg(self.kubeconfig());
        command.arg("--cache-dir").arg(self.directory.join("cache"));
        command
    }

    fn start_etcd(&mut self) -> Result<()> {
        let mut command = self.namespace.command(self.assets.join("etcd"));
        command.arg("--data-dir").arg(self.directory.join("etcd")).arg("--unsafe-no-fsync");
        let [log, _] = &self.logs;
        self.etcd = Some(Process::start("etcd", &mut command, log)?);
        Ok(())
    }

    fn write_files(&self) -> Result<()> {
        let key = self.directory.join("service-account.key");
        run(Command::new("openssl").args(["genrsa", "-out"]).arg(&key).arg("2048"), SHORT)?.success()?;
        ensure!(key.exists(), "openssl made no key");
        fs::write(self.directory.join("tokens.csv"), format!("{TOKEN},admin,admin,system:masters\n"))?;
        fs::write(self.kubeconfig(), self.config(TOKEN).to_string())?;
        Ok(())
    }

    fn config(&self, token: &str) -> Value {
        let server = format!("https://{}:{PORT}", self.address);
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "lab",
            "clusters": [{"name": "lab", "cluster": {"server": server, "insecure-skip-tls-verify": true}}],
            "users": [{"name": "lab", "user": {"token": token}}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab"}}],
        })
    }
}

/// One condition of an object; null where it has none of this type.
#[must_use]
pub fn condition(object: &Value, kind: &str) -> Value {
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.into_iter().find(|condition| condition["type"] == kind).unwrap_or_default()
}

/// A weft-controller on the machine of the API server, which runs until this value is dropped.
#[derive(Debug)]
pub struct Controller {
    process: Option<Process>,
    namespace: Namespace,
    arguments: Vec<OsString>,
    log: PathBuf,
}

impl Controller {
    /// Starts one, with these flags, split at blanks.
    ///
    /// # Errors
    /// If it is not built, or has no account.
    pub fn start(lab: &Lab, plane: &ControlPlane, name: &str, flags: &str) -> Result<Self> {
        let mut arguments: Vec<OsString> =
            ["--metrics", "127.0.0.1:0", "--kubeconfig"].map(Into::into).into();
        arguments.push(plane.kubeconfig_of("weft-controller", None)?.into());
        arguments.extend(flags.split_whitespace().map(Into::into));
        let namespace = plane.namespace().clone();
        let mut new = Self { process: None, namespace, arguments, log: lab.log(name) };
        new.start_again()?;
        Ok(new)
    }

    /// Starts it again after its end.
    ///
    /// # Errors
    /// If it is not built.
    pub fn start_again(&mut self) -> Result<()> {
        let mut command = self.namespace.command(own_program("weft-controller")?);
        command.args(&self.arguments);
        self.process = Some(Process::start("weft-controller", &mut command, &self.log)?);
        Ok(())
    }

    /// How often it has begun to lead.
    #[must_use]
    pub fn terms(&self) -> usize {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        log.lines().filter(|line| line.ends_with(" leads")).count()
    }

    /// Whether it holds the Lease.
    #[must_use]
    pub fn leads(&self) -> bool {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        log.contains("leads") && !log.contains("leads no more")
    }

    /// Kills it.
    ///
    /// # Errors
    /// If it does not run.
    pub fn kill9(&mut self) -> Result<()> {
        self.process.take().context("it does not run")?.kill9()
    }
}
