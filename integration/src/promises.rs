//! The promises of the network model that one machine can show, checked pair by pair.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};

use anyhow::{Context as _, Result, ensure};

use crate::node::Node;
use crate::pod::Pod;
use crate::probe;
use crate::process::SHORT;
use crate::wait::wait_until;

/// A promise of `DESIGN.md` section 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// Containers of one pod reach each other on `localhost`.
    P1,
    /// Every pod reaches every pod without NAT.
    P2,
    /// Agents on a node reach all pods on it.
    P3,
    /// A node's host network reaches all pods without NAT.
    P4,
    /// Ports never collide between pods.
    P7,
}

impl Promise {
    /// All, in order.
    pub const ALL: [Self; 5] = [Self::P1, Self::P2, Self::P3, Self::P4, Self::P7];

    /// What is promised.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::P1 => "containers of one pod reach each other on localhost",
            Self::P2 => "every pod reaches every pod without NAT, TCP and UDP",
            Self::P3 => "agents on a node reach all pods on it",
            Self::P4 => "host networks reach all pods on all nodes without NAT",
            Self::P7 => "two pods of one node listen on the same port",
        }
    }

    /// Checks it on all nodes and pods, in every family that the pods have.
    ///
    /// # Errors
    /// The first case in which it does not hold.
    pub fn check(self, nodes: &[Node]) -> Result<usize> {
        let cases = match self {
            Self::P1 => localhost(nodes),
            Self::P2 => pod_to_pod(nodes),
            Self::P3 => agents(nodes),
            Self::P4 => host_network(nodes),
            Self::P7 => same_port(nodes),
        }
        .with_context(|| format!("{self}: {}", self.text()))?;
        ensure!(cases > 0, "{self}: there was nothing to check");
        Ok(cases)
    }
}

impl fmt::Display for Promise {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, formatter)
    }
}

/// Checks all promises.
///
/// # Errors
/// The first that does not hold.
pub fn check_all(nodes: &[Node]) -> Result<()> {
    Promise::ALL.iter().try_for_each(|promise| promise.check(nodes).map(drop))
}

fn pods(nodes: &[Node]) -> impl Iterator<Item = (&Node, &Pod)> {
    nodes.iter().flat_map(|node| node.pods.iter().map(move |pod| (node, pod)))
}

fn localhost(nodes: &[Node]) -> Result<usize> {
    let mut cases = 0;
    for (_, pod) in pods(nodes) {
        for address in &pod.addresses {
            let localhost: IpAddr =
                if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
            let seen = probe::tcp(&pod.namespace, &pod.namespace, localhost)?;
            ensure!(seen == localhost, "{}: {localhost} was seen as {seen}", pod.name);
            cases += 1;
        }
    }
    Ok(cases)
}

fn pod_to_pod(nodes: &[Node]) -> Result<usize> {
    let mut cases = 0;
    for (_, from) in pods(nodes) {
        for (_, to) in pods(nodes).filter(|(_, to)| to.name != from.name) {
            for (source, target) in from.addresses.iter().zip(&to.addresses) {
                no_nat(from, to, *source, *target)?;
                cases += 1;
            }
        }
    }
    Ok(cases)
}

fn no_nat(from: &Pod, to: &Pod, source: IpAddr, target: IpAddr) -> Result<()> {
    let tcp = probe::tcp(&from.namespace, &to.namespace, target)?;
    ensure!(tcp == source, "TCP from {} ({source}) came to {} as {tcp}", from.name, to.name);
    let udp = probe::udp(&from.namespace, &to.namespace, target, 512)?;
    ensure!(udp == source, "UDP from {} ({source}) came to {} as {udp}", from.name, to.name);
    Ok(())
}

fn agents(nodes: &[Node]) -> Result<usize> {
    let mut cases = 0;
    for (node, pod) in pods(nodes) {
        for address in &pod.addresses {
            probe::tcp(&node.namespace, &pod.namespace, *address)?;
            cases += 1;
        }
    }
    Ok(cases)
}

fn host_network(nodes: &[Node]) -> Result<usize> {
    let mut cases = 0;
    for node in nodes {
        for (_, pod) in pods(nodes) {
            for (source, target) in node.addresses.iter().zip(&pod.addresses) {
                let seen = probe::tcp(&node.namespace, &pod.namespace, *target)?;
                ensure!(seen == *source, "{} ({source}) came to {} as {seen}", node.name, pod.name);
                cases += 1;
            }
        }
    }
    Ok(cases)
}

fn same_port(nodes: &[Node]) -> Result<usize> {
    const PORT: u16 = 8080;
    let mut cases = 0;
    for node in nodes.iter().filter(|node| node.pods.len() > 1) {
        for any in [IpAddr::from(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()] {
            let mut servers = Vec::new();
            for pod in &node.pods {
                let Some(address) = pod.addresses.iter().find(|address| address.is_ipv4() == any.is_ipv4())
                else {
                    continue;
                };
                // A process that another thread is about to start holds all open sockets for a moment, those of the last round too.
                let listener = wait_until(format!("port {PORT} of {}", pod.name), SHORT, || {
                    Ok(pod.namespace.run(|| TcpListener::bind((any, PORT)))??)
                })?;
                servers.push((listener, *address));
            }
            for (server, address) in &servers {
                node.namespace.run(|| TcpStream::connect_timeout(&(*address, PORT).into(), SHORT))??;
                let (reached, _) = server.accept()?;
                ensure!(
                    reached.local_addr()?.ip() == *address,
                    "{address} was answered by {}",
                    reached.local_addr()?
                );
                cases += 1;
            }
        }
    }
    Ok(cases)
}
