//! podman with `network_backend = "cni"`.

use std::path::Path;
use std::rc::Rc;

use anyhow::{Context as _, Result};

use super::{Host, HostPort, IMAGE, Runtime};
use crate::process::{Finished, foreign_program};

/// The machine that runs the tests may have no control groups to give away, and no journal.
const CONFIG: &str = r#"
[containers]
cgroups = "disabled"

[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "crun"

[network]
network_backend = "cni"
cni_plugin_dirs = ["/opt/cni/bin"]
network_config_dir = "/etc/cni/net.d"
default_network = "weft"
"#;

const STORAGE: &str = r#"
[storage]
driver = "vfs"
runroot = "/run/containers/storage"
graphroot = "/var/lib/containers/storage"
"#;

/// Images come from files only.
const POLICY: &str = r#"{"default": [{"type": "insecureAcceptAnything"}]}"#;

/// podman on one host, with its usual folders.
#[derive(Debug)]
pub struct Podman {
    host: Rc<Host>,
}

impl Podman {
    /// Sets it up and gives it the image.
    ///
    /// # Errors
    /// If it is not installed or does not take the image.
    pub fn start(host: &Rc<Host>, image: &Path) -> Result<Self> {
        for (program, package) in
            [("/usr/bin/podman", "podman"), ("/usr/bin/conmon", "conmon"), ("/usr/bin/crun", "crun")]
        {
            foreign_program(&[program], package)?;
        }
        host.write("/etc/containers/containers.conf", CONFIG)?;
        host.write("/etc/containers/storage.conf", STORAGE)?;
        host.write("/etc/containers/policy.json", POLICY)?;
        let podman = Self { host: Rc::clone(host) };
        let image = image.to_str().context("the image's path is no UTF-8")?;
        podman.podman(&["load", "--quiet", "--input", image])?.success()?;
        Ok(podman)
    }

    /// Starts a container with `flags` of `podman run`.
    ///
    /// # Errors
    /// podman's error.
    pub fn run_with(&self, container: &str, flags: &[&str]) -> Result<()> {
        // podman, unlike containerd, gives no container what ping needs.
        let mut command = vec!["run", "--detach", "--pull=never", "--cap-add=NET_RAW", "--name", container];
        command.extend(flags);
        command.push(IMAGE);
        self.podman(&command)?.success()?;
        self.wait_serving(container)
    }

    fn podman(&self, arguments: &[&str]) -> Result<Finished> {
        let command: Vec<&str> = ["podman"].into_iter().chain(arguments.iter().copied()).collect();
        self.host.exec(&command)
    }

    fn inspect(&self, container: &str, what: &str) -> Result<String> {
        let said = self.podman(&["container", "inspect", "--format", what, container])?.success()?;
        Ok(said.stdout.trim().to_owned())
    }
}

impl Runtime for Podman {
    fn name(&self) -> &'static str {
        "podman"
    }

    fn host(&self) -> &Host {
        &self.host
    }

    fn run(&mut self, container: &str, ports: &[HostPort]) -> Result<()> {
        let publish = |port: &HostPort| format!("--publish={}:{}", port.node, port.container);
        let flags: Vec<String> = ports.iter().map(publish).collect();
        self.run_with(container, &flags.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn exec(&self, container: &str, command: &[&str]) -> Result<Finished> {
        let all: Vec<&str> = ["exec", container].into_iter().chain(command.iter().copied()).collect();
        self.podman(&all)
    }

    fn restart(&mut self, container: &str) -> Result<()> {
        self.podman(&["restart", container])?.success()?;
        self.wait_serving(container)
    }

    fn remove(&mut self, container: &str) -> Result<()> {
        self.podman(&["rm", "--force", "--time", "0", container])?.success()?;
        Ok(())
    }

    fn container_id(&self, container: &str) -> Result<String> {
        self.inspect(container, "{{.Id}}")
    }

    fn process(&self, container: &str) -> Result<u32> {
        Ok(self.inspect(container, "{{.State.Pid}}")?.parse()?)
    }
}
