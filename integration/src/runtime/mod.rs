//! Other people's container runtimes on the lab's nodes: they run real containers and call the real `weft-cni`.
//!
//! Each node gets a [`Host`]: files and processes of its own around the node's network namespace, so that a runtime finds CNI's
//! configuration, plugins and cache where it looks for them on any machine, and touches nothing of this one.

mod containerd;
mod host;
mod image;
mod podman;

use std::fmt::Debug;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use ipnet::IpNet;

use crate::process::{Finished, SHORT, run};
use crate::wait::wait_until;

pub use containerd::Containerd;
pub use host::Host;
pub use image::{IMAGE, SERVED, write as write_image};
pub use podman::Podman;

/// How long one call of a runtime may take; most take a tenth of a second.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long an answer may take, in seconds: on a machine with other work to do, processes stand still for a while.
const PACKET: &str = "15";

/// A port of the node that leads to a container, TCP.
#[derive(Clone, Copy, Debug)]
pub struct HostPort {
    /// On the node.
    pub node: u16,
    /// In the container.
    pub container: u16,
}

/// A container runtime on one node. Its containers run the image of [`write_image`] and are on the network of the host's conflist.
pub trait Runtime: Debug {
    /// What logs and errors call it.
    fn name(&self) -> &'static str;

    /// Where it runs.
    fn host(&self) -> &Host;

    /// Starts a container; it is done when the container has its network.
    ///
    /// # Errors
    /// The runtime's error, also where it cannot do `ports`.
    fn run(&mut self, container: &str, ports: &[HostPort]) -> Result<()>;

    /// Runs a command inside a container to its end.
    ///
    /// # Errors
    /// If it cannot be started or does not end in time.
    fn exec(&self, container: &str, command: &[&str]) -> Result<Finished>;

    /// Ends a container, and starts it again with a new network namespace.
    ///
    /// # Errors
    /// The runtime's error.
    fn restart(&mut self, container: &str) -> Result<()>;

    /// Ends and removes a container.
    ///
    /// # Errors
    /// The runtime's error.
    fn remove(&mut self, container: &str) -> Result<()>;

    /// What the runtime calls the container to CNI.
    ///
    /// # Errors
    /// If it has no such container.
    fn container_id(&self, container: &str) -> Result<String>;

    /// The container's first process, as the host numbers it.
    ///
    /// # Errors
    /// If the container does not run.
    fn process(&self, container: &str) -> Result<u32>;

    /// Kills what the runtime left beside the container to watch it (containerd's shim, podman's conmon) with SIGKILL.
    ///
    /// # Errors
    /// If the container does not run.
    fn kill_watcher(&self, container: &str) -> Result<()> {
        let watcher = self.host().parent(self.process(container)?)?;
        self.host().exec(&["busybox", "kill", "-9", &watcher.to_string()])?.success()?;
        Ok(())
    }

    /// The addresses that a container sees on its interface, IPv4 first.
    ///
    /// # Errors
    /// If the container does not run.
    fn addresses(&self, container: &str) -> Result<Vec<IpNet>> {
        let command = ["ip", "-o", "addr", "show", "dev", "eth0", "scope", "global"];
        let said = self.exec(container, &command)?.success()?.stdout;
        let mut addresses: Vec<IpNet> = said
            .lines()
            .filter_map(|line| line.split_whitespace().nth(3))
            .map(|address| address.parse().with_context(|| format!("{address} is no address with a length")))
            .collect::<Result<_>>()?;
        addresses.sort();
        Ok(addresses)
    }

    /// One ping from a container.
    ///
    /// # Errors
    /// If no answer comes.
    fn ping(&self, container: &str, to: IpAddr) -> Result<()> {
        let command = ["ping", "-c", "1", "-W", PACKET, &to.to_string()];
        self.exec(container, &command)?
            .success()
            .with_context(|| format!("{} container {container} does not reach {to}", self.name()))?;
        Ok(())
    }

    /// The address that the server in another container sees a container's request come from.
    ///
    /// # Errors
    /// If nothing answers at `server`.
    fn source_to(&self, container: &str, server: SocketAddr) -> Result<IpAddr> {
        let url = url(server);
        let said = self.exec(container, &request(&url))?;
        seen(said).with_context(|| format!("{url} from {} container {container}", self.name()))
    }

    /// Waits until the server in a container answers.
    ///
    /// # Errors
    /// If it does not in time.
    fn wait_serving(&self, container: &str) -> Result<()> {
        let own = SocketAddr::from((Ipv6Addr::LOCALHOST, SERVED));
        wait_until(format!("{} container {container} to serve", self.name()), PATIENCE, || {
            self.source_to(container, own)
        })?;
        Ok(())
    }
}

/// The command that asks a container's server who is asking. Busybox's wget knows no time limit.
fn request(url: &str) -> [&str; 6] {
    ["busybox", "timeout", PACKET, "wget", "-qO-", url]
}

fn url(server: SocketAddr) -> String {
    format!("http://{server}/cgi-bin/who")
}

/// The address in the answer to [`request`], which is `[::ffff:192.0.2.1]` for IPv4.
fn seen(said: Finished) -> Result<IpAddr> {
    let said = said.success()?.stdout;
    let address: IpAddr =
        said.trim().trim_matches(['[', ']']).parse().with_context(|| format!("it said {said:?}"))?;
    Ok(address.to_canonical())
}

/// Copies a program to a folder under its own name. `cp` does it: a copy that this process has open for writing is open too in what
/// another thread forks at that moment, and cannot be executed as long (ETXTBSY of execve(2)).
fn copy_program(program: &Path, folder: &Path) -> Result<()> {
    run(Command::new("cp").arg(program).arg(folder), SHORT)?
        .success()
        .with_context(|| format!("cannot copy {} to {}", program.display(), folder.display()))?;
    Ok(())
}
