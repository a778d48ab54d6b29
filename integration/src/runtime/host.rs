//! A machine around a node's network namespace: files, mounts and processes that only it has.

use std::cell::RefCell;
use std::fs::{self, File};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use super::{PATIENCE, copy_program, request, seen, url};
use crate::lab::Lab;
use crate::node::Node;
use crate::process::{Finished, Process, SHORT, foreign_program, own_program, run, run_with_input, tail};
use crate::wait::wait_until;

const SCRIPT: &str = include_str!("host.sh");

/// Where runtimes look for plugins when nobody tells them otherwise.
const PLUGINS: &str = "/opt/cni/bin";
/// Where Debian has the plugin that is chained behind.
const PORTMAP: &str = "/usr/lib/cni/portmap";

/// Files and processes of one node, gone with all that runs in it when this value is dropped or the test's process ends.
#[derive(Debug)]
pub struct Host {
    name: String,
    node: String,
    /// Where weftd tells runtimes of its network, `/etc/cni/net.d` there.
    conf_dir: PathBuf,
    log: PathBuf,
    supervisor: Child,
    /// The host is there until this is closed.
    lifeline: Option<ChildStdin>,
    /// The first process of its process namespace, as this machine numbers it.
    init: u32,
    /// The parents, outside, of what runs inside until the end: the kernel lets the process namespace go when they have reaped it.
    daemons: RefCell<Vec<Process>>,
}

impl Host {
    /// Makes the host of `node`, with the plugins `weft-cni` and `portmap`, and has the node's weftd, which is not started yet,
    /// tell runtimes of them.
    ///
    /// # Errors
    /// If a program is missing or the kernel does not let it be made.
    pub fn new(lab: &Lab, node: &mut Node) -> Result<Self> {
        foreign_program(&["/usr/sbin/iptables", "/sbin/iptables"], "iptables, which portmap calls")?;
        let folder = format!("{}-host", node.name);
        let plugins = lab.directory(&format!("{folder}/plugins"))?;
        copy_program(&own_program("weft-cni")?, &plugins)?;
        copy_program(&foreign_program(&[PORTMAP], "containernetworking-plugins")?, &plugins)?;
        let conf_dir = lab.directory(&format!("{folder}/net.d"))?;
        node.weft.set_flags(&format!(
            "--cni-conf-dir {} --cni-bin-dir {}",
            conf_dir.display(),
            plugins.display()
        ));
        let cache = node.weft.cni_cache_dir();
        fs::create_dir(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
        let name = format!("{}-{}", lab.name(), node.name);
        let (directory, log) = (lab.directory(&folder)?, lab.log(&folder));
        let mut command = node.namespace.command("bash");
        command.args(["-c", SCRIPT, "host"]).arg(&directory).arg(&cache).arg(&name);
        let output = File::create(&log)?;
        command.stdin(Stdio::piped()).stdout(output.try_clone()?).stderr(output);
        let mut supervisor = command.spawn().context("cannot start bash")?;
        let lifeline = supervisor.stdin.take();
        let (node, daemons) = (node.name.clone(), RefCell::default());
        let mut host = Self { name, node, conf_dir, log, supervisor, lifeline, init: 0, daemons };
        host.init = host.wait_ready(&directory.join("ready"))?;
        Ok(host)
    }

    /// Waits for the script's word; returns the process id of its inner shell.
    fn wait_ready(&mut self, ready: &Path) -> Result<u32> {
        wait_until(format!("the host of {}", self.node), SHORT, || {
            if let Some(status) = self.supervisor.try_wait()? {
                // There is nothing to wait for.
                return Ok(Err(status));
            }
            ensure!(ready.is_file(), "{} is not there", ready.display());
            Ok(Ok(()))
        })?
        .or_else(|status| bail!("{} cannot have containers ({status}): {}", self.node, tail(&self.log, 5)))?;
        only_child(only_child(self.supervisor.id())?)
    }

    /// A name that no other host of this machine has, for control groups and containerd's namespace.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The node's name.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// A command that runs `program` there.
    #[must_use]
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("nsenter");
        command.args([&format!("--target={}", self.init), "--net", "--mount", "--pid", "--"]);
        command.arg(program.as_ref());
        command
    }

    /// Runs a command there to its end, whatever its exit code.
    ///
    /// # Errors
    /// If it cannot be started or takes too long.
    pub fn exec(&self, command: &[&str]) -> Result<Finished> {
        let (program, arguments) = command.split_first().context("an empty command")?;
        run(self.command(program).args(arguments), PATIENCE)
            .with_context(|| format!("on the host of {}", self.node))
    }

    /// Starts a program that runs there as long as the host.
    ///
    /// # Errors
    /// If the log cannot be opened or the program cannot be started.
    pub fn start(&self, program: &Path, log: &Path) -> Result<()> {
        let name = format!("{} on the host of {}", program.display(), self.node);
        let daemon = Process::start(name, &mut self.command(program), log)?;
        self.daemons.borrow_mut().push(daemon);
        Ok(())
    }

    /// Writes a file there; its folder is made.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, path: &str, text: &str) -> Result<()> {
        let mut command = self.command("bash");
        command.args(["-c", r#"mkdir -p "$(dirname "$1")" && cat >"$1""#, "write", path]);
        run_with_input(&mut command, text.as_bytes(), SHORT)?
            .success()
            .with_context(|| format!("cannot write {path} on the host of {}", self.node))?;
        Ok(())
    }

    /// The network that weftd tells runtimes of.
    ///
    /// # Errors
    /// If it has not done so yet.
    pub fn conflist(&self) -> Result<Value> {
        let path = self.conf_dir.join("10-weft.conflist");
        let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{} is no JSON", path.display()))
    }

    /// Calls `weft-cni` as a runtime of CNI 1.1 does; `extra` is added to the configuration. bookworm's runtimes call neither GC nor
    /// STATUS.
    ///
    /// # Errors
    /// If it cannot be started, or fails.
    pub fn plugin(&self, command: &str, extra: &Value) -> Result<Finished> {
        let conflist = self.conflist()?;
        let mut config = conflist["plugins"][0].clone();
        config["cniVersion"] = json!("1.1.0");
        config["name"] = conflist["name"].clone();
        for (key, value) in extra.as_object().into_iter().flatten() {
            config[key] = value.clone();
        }
        let mut process = self.command(Path::new(PLUGINS).join("weft-cni"));
        process.env("CNI_COMMAND", command).env("CNI_PATH", PLUGINS);
        run_with_input(&mut process, config.to_string().as_bytes(), SHORT)?
            .success()
            .with_context(|| format!("weft-cni {command} on {}", self.node))
    }

    /// The address that a container's server sees a request of the host itself come from.
    ///
    /// # Errors
    /// If nothing answers at `server`.
    pub fn source_to(&self, server: SocketAddr) -> Result<IpAddr> {
        let url = url(server);
        seen(self.exec(&request(&url))?).with_context(|| format!("{url} from {}", self.node))
    }

    /// The parent of a process, both as the host numbers them.
    ///
    /// # Errors
    /// If there is no such process.
    pub fn parent(&self, process: u32) -> Result<u32> {
        let status = self.exec(&["cat", &format!("/proc/{process}/status")])?.success()?.stdout;
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
        parent.with_context(|| format!("no PPid in {status}"))?.trim().parse().context("PPid is no number")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.lifeline = None;
        // Its end is the kernel's work and takes milliseconds; a test that hangs here is better than one that leaves processes.
        let _ = self.supervisor.wait();
    }
}

/// The one child of a process that has one.
fn only_child(process: u32) -> Result<u32> {
    let path = format!("/proc/{process}/task/{process}/children");
    let children = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    children
        .trim()
        .parse()
        .with_context(|| format!("process {process} has the children {children:?}, not one"))
}
