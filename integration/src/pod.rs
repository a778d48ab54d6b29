//! Pods: namespaces that the real `weft-cni` is called for, as a container runtime calls it.

use std::fs;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use ipnet::IpNet;
use serde_json::{Value, json};

use crate::daemon::Family;
use crate::daemon::weft::Weft;
use crate::lab::Lab;
use crate::netns::Namespace;
use crate::process::{SHORT, own_program, run_with_input};

/// The interface that a container runtime asks for.
const INTERFACE: &str = "eth0";

/// What the plugin answered.
#[derive(Debug)]
pub struct Reply {
    /// Whether the exit code was 0.
    pub ok: bool,
    /// Its JSON: a result, or an error with `code` and `msg`; null where it said nothing, as after DEL.
    pub json: Value,
}

impl Reply {
    /// The result.
    ///
    /// # Errors
    /// The plugin's error.
    pub fn result(self) -> Result<Value> {
        if self.ok { Ok(self.json) } else { Err(anyhow!("weft-cni failed: {}", self.json)) }
    }

    /// The code of the error; none if it was no error.
    #[must_use]
    pub fn code(&self) -> Option<u64> {
        if self.ok { None } else { self.json["code"].as_u64() }
    }
}

/// The plugin of one node, with its configuration.
#[derive(Clone, Debug)]
pub struct Plugin {
    program: PathBuf,
    node: Namespace,
    config: Value,
    arguments: String,
}

impl Plugin {
    /// The plugin of the node that `weft` runs on.
    ///
    /// # Errors
    /// If it is not built.
    pub fn new(weft: &Weft) -> Result<Self> {
        let config = json!({
            "cniVersion": "1.0.0",
            "name": "weft",
            "type": "weft-cni",
            "runDir": weft.run_dir(),
            "stateDir": weft.state_dir(),
        });
        Ok(Self {
            program: own_program("weft-cni")?,
            node: weft.namespace().clone(),
            config,
            arguments: String::new(),
        })
    }

    /// The same, called with these `CNI_ARGS`, as `K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart-0`.
    #[must_use]
    pub fn with_arguments(self, arguments: &str) -> Self {
        Self { arguments: arguments.to_owned(), ..self }
    }

    /// The same, with these keys in its network configuration besides, as `{"mtu": 1400}`.
    #[must_use]
    pub fn with_keys(mut self, keys: &Value) -> Self {
        for (key, value) in keys.as_object().into_iter().flatten() {
            self.config[key] = value.clone();
        }
        self
    }

    /// Calls it with `command` (ADD, DEL, CHECK, VERSION) for a container.
    ///
    /// # Errors
    /// If it does not run, does not end in time, or says neither nothing nor JSON.
    pub fn call(&self, command: &str, container: &str, netns: &Path) -> Result<Reply> {
        self.call_with(command, container, netns, &self.config)
    }

    /// CHECK, or DEL as runtimes since CNI 0.4.0 do it, with what ADD answered.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn call_after(&self, command: &str, container: &str, netns: &Path, added: &Value) -> Result<Reply> {
        let mut config = self.config.clone();
        config["prevResult"] = added.clone();
        self.call_with(command, container, netns, &config)
    }

    /// Calls it and kills it after a time, wherever it is by then. Says whether the plugin itself was killed: it may have
    /// ended before, or not begun.
    ///
    /// # Errors
    /// If it does not run.
    pub fn kill_after(&self, command: &str, container: &str, netns: &Path, after: Duration) -> Result<bool> {
        let mut process = self.process(command, container, netns);
        process.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child =
            process.spawn().with_context(|| format!("cannot start {}", self.program.display()))?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(self.config.to_string().as_bytes())?;
        }
        thread::sleep(after);
        let runs = fs::read_to_string(format!("/proc/{}/comm", child.id())).unwrap_or_default();
        child.kill()?;
        Ok(child.wait()?.signal().is_some() && runs.trim_end() == "weft-cni")
    }

    /// GC, with the containers that are still in use.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn collect_garbage(&self, in_use: &[&str]) -> Result<Reply> {
        let valid: Vec<Value> =
            in_use.iter().map(|container| json!({"containerID": container, "ifname": INTERFACE})).collect();
        let mut config = self.config.clone();
        config["cniVersion"] = "1.1.0".into();
        config["cni.dev/valid-attachments"] = valid.into();
        self.call_with("GC", "", Path::new(""), &config)
    }

    fn call_with(&self, command: &str, container: &str, netns: &Path, config: &Value) -> Result<Reply> {
        let mut process = self.process(command, container, netns);
        let done = run_with_input(&mut process, config.to_string().as_bytes(), SHORT)?;
        let json = if done.stdout.trim().is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&done.stdout)
                .with_context(|| format!("weft-cni {command} said {}", done.stdout))?
        };
        Ok(Reply { ok: done.status.success(), json })
    }

    fn process(&self, command: &str, container: &str, netns: &Path) -> Command {
        let mut process = self.node.command(&self.program);
        process.env("CNI_COMMAND", command);
        process.env("CNI_CONTAINERID", container);
        process.env("CNI_NETNS", netns);
        process.env("CNI_IFNAME", INTERFACE);
        process.env("CNI_ARGS", &self.arguments);
        process.env("CNI_PATH", self.program.parent().unwrap_or(Path::new("/")));
        process
    }
}

/// A pod with addresses.
#[derive(Debug)]
pub struct Pod {
    /// Its name in the lab.
    pub name: String,
    /// Its namespace.
    pub namespace: Namespace,
    /// Its container id.
    pub container: String,
    /// What ADD answered.
    pub added: Value,
    /// Its addresses, IPv4 first.
    pub addresses: Vec<IpAddr>,
    plugin: Plugin,
}

impl Pod {
    /// Makes a namespace and calls ADD for it.
    ///
    /// # Errors
    /// The plugin's error.
    pub fn add(lab: &Lab, weft: &Weft, name: &str) -> Result<Self> {
        let plugin = Plugin::new(weft)?;
        let namespace = lab.namespace(name)?;
        let container = format!("{}-{name}", lab.name());
        let added = plugin
            .call("ADD", &container, &namespace.path())?
            .result()
            .with_context(|| format!("pod {name}"))?;
        let addresses = addresses(&added)?;
        Ok(Self { name: name.to_owned(), namespace, container, added, addresses, plugin })
    }

    /// Its address of a family.
    ///
    /// # Errors
    /// If it has none.
    pub fn address(&self, family: Family) -> Result<IpAddr> {
        let found = self.addresses.iter().copied().find(|address| Family::of(*address) == family);
        found.with_context(|| format!("pod {} has no {family:?} address: {}", self.name, self.added))
    }

    /// The name of its link on the node.
    ///
    /// # Errors
    /// If ADD did not answer with one.
    pub fn host_interface(&self) -> Result<String> {
        let interfaces = self.added["interfaces"].as_array().map(Vec::as_slice).unwrap_or_default();
        let host =
            interfaces.iter().find(|interface| interface["sandbox"].as_str().is_none_or(str::is_empty));
        let name = host.and_then(|interface| interface["name"].as_str());
        Ok(name.with_context(|| format!("no host interface in {}", self.added))?.to_owned())
    }

    /// Calls CHECK.
    ///
    /// # Errors
    /// The plugin's error.
    pub fn check(&self) -> Result<()> {
        let reply = self.plugin.call_after("CHECK", &self.container, &self.namespace.path(), &self.added)?;
        reply.result().map(drop)
    }

    /// Calls DEL and removes the namespace.
    ///
    /// # Errors
    /// The plugin's error.
    pub fn delete(self) -> Result<()> {
        self.plugin
            .call_after("DEL", &self.container, &self.namespace.path(), &self.added)?
            .result()
            .map(drop)
    }
}

/// The addresses in a result of ADD, IPv4 first.
///
/// # Errors
/// If one of them is none, or none is there.
pub fn addresses(added: &Value) -> Result<Vec<IpAddr>> {
    let list = added["ips"].as_array().with_context(|| format!("no ips in {added}"))?;
    let mut addresses = Vec::new();
    for entry in list {
        let text = entry["address"].as_str().with_context(|| format!("no address in {entry}"))?;
        let prefix: IpNet = text.parse().with_context(|| format!("{text} is no address with a length"))?;
        addresses.push(prefix.addr());
    }
    addresses.sort();
    Ok(addresses)
}
