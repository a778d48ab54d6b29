//! containerd, driven by its own client: `ctr run --cni`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context as _, Result, ensure};

use super::{Host, HostPort, IMAGE, PATIENCE, Runtime};
use crate::lab::Lab;
use crate::process::{Finished, Process, foreign_program, tail};
use crate::wait::wait_until;

/// CRI would only wait for images that nobody fetches.
const CONFIG: &str =
    "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[debug]\nlevel = \"warn\"\n";

/// containerd on one host, with its usual folders.
#[derive(Debug)]
pub struct Containerd {
    /// A `ctr run` each, which asks for the container's network and gives it back when the container ends.
    containers: BTreeMap<String, Process>,
    log: PathBuf,
    host: Rc<Host>,
}

impl Containerd {
    /// Starts it and gives it the image.
    ///
    /// # Errors
    /// If it is not installed or does not come up.
    pub fn start(lab: &Lab, host: &Rc<Host>, image: &Path) -> Result<Self> {
        let program = foreign_program(&["/usr/bin/containerd"], "containerd")?;
        foreign_program(&["/usr/sbin/runc", "/usr/bin/runc"], "runc")?;
        host.write("/etc/containerd/config.toml", CONFIG)?;
        host.start(&program, &lab.log(&format!("{}-containerd", host.node())))?;
        let containerd = Self {
            containers: BTreeMap::new(),
            log: lab.log(&format!("{}-ctr", host.node())),
            host: Rc::clone(host),
        };
        wait_until(format!("containerd of {}", host.node()), PATIENCE, || {
            containerd.ctr(&["version"])?.success()
        })?;
        let image = image.to_str().context("the image's path is no UTF-8")?;
        containerd.ctr(&["image", "import", image])?.success()?;
        Ok(containerd)
    }

    fn ctr(&self, arguments: &[&str]) -> Result<Finished> {
        let command: Vec<&str> =
            ["ctr", "--namespace", self.host.name()].into_iter().chain(arguments.iter().copied()).collect();
        self.host.exec(&command)
    }

    /// The state of a container's first process, and its number.
    fn task(&self, container: &str) -> Result<(u32, String)> {
        let said = self.ctr(&["task", "ls"])?.success()?.stdout;
        let task = said.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let mut task = task.filter(|words| words.first() == Some(&container));
        let words = task.next().with_context(|| format!("containerd runs no {container}: {said}"))?;
        let [_, process, state] = words[..] else { anyhow::bail!("no task: {words:?}") };
        Ok((process.parse()?, state.to_owned()))
    }

    /// Starts a container that nobody waits for. Of those, `ctr` asks for the network and never gives it back.
    ///
    /// # Errors
    /// containerd's error.
    pub fn run_detached(&self, container: &str) -> Result<()> {
        self.ctr(&["run", "--cni", "--detach", "--null-io", IMAGE, container])?.success()?;
        Ok(())
    }

    /// Ends and removes a container that was [started detached](Self::run_detached).
    ///
    /// # Errors
    /// containerd's error.
    pub fn remove_detached(&self, container: &str) -> Result<()> {
        self.ctr(&["task", "rm", "--force", container])?.success()?;
        self.ctr(&["container", "rm", container])?.success()?;
        Ok(())
    }

    /// Waits until `ctr run` has cleaned up behind a container that ended.
    ///
    /// # Errors
    /// If it does not end in time, or containerd still knows the container.
    pub fn wait_gone(&mut self, container: &str) -> Result<()> {
        let mut client =
            self.containers.remove(container).with_context(|| format!("no container {container}"))?;
        wait_until(format!("`ctr run` of {container} to end"), PATIENCE, || {
            ensure!(client.ensure_running().is_err(), "it runs");
            Ok(())
        })?;
        wait_until(format!("containerd to forget {container}"), PATIENCE, || {
            let said = self.ctr(&["container", "ls", "--quiet"])?.success()?.stdout;
            ensure!(!said.lines().any(|line| line == container), "it is still there");
            Ok(())
        })
    }
}

impl Runtime for Containerd {
    fn name(&self) -> &'static str {
        "containerd"
    }

    fn host(&self) -> &Host {
        &self.host
    }

    fn run(&mut self, container: &str, ports: &[HostPort]) -> Result<()> {
        ensure!(ports.is_empty(), "ctr cannot ask for host ports");
        let mut command = self.host.command("ctr");
        command.args([
            "--namespace",
            self.host.name(),
            "run",
            "--cni",
            "--rm",
            "--null-io",
            IMAGE,
            container,
        ]);
        let mut client = Process::start(format!("ctr run {container}"), &mut command, &self.log)?;
        wait_until(format!("containerd to run {container}"), PATIENCE, || {
            if client.ensure_running().is_err() {
                return Ok(Err(tail(&self.log, 5)));
            }
            let (_, state) = self.task(container)?;
            ensure!(state == "RUNNING", "{container} is {state}");
            Ok(Ok(()))
        })?
        .map_err(anyhow::Error::msg)?;
        self.containers.insert(container.to_owned(), client);
        self.wait_serving(container)
    }

    /// Enters the container as its host, since `ctr task exec` now and then loses all that a short command said.
    fn exec(&self, container: &str, command: &[&str]) -> Result<Finished> {
        let target = format!("--target={}", self.process(container)?);
        let mut all = vec!["nsenter", &target, "--mount", "--net", "--pid", "--ipc", "--uts", "--"];
        all.extend(command);
        self.host.exec(&all)
    }

    fn restart(&mut self, container: &str) -> Result<()> {
        self.remove(container)?;
        self.run(container, &[])
    }

    fn remove(&mut self, container: &str) -> Result<()> {
        self.ctr(&["task", "kill", "--signal", "SIGKILL", container])?.success()?;
        self.wait_gone(container)
    }

    fn container_id(&self, container: &str) -> Result<String> {
        self.task(container)?;
        Ok(format!("{}-{container}", self.host.name()))
    }

    fn process(&self, container: &str) -> Result<u32> {
        Ok(self.task(container)?.0)
    }
}
