//! A machine of the cluster: weftd, its blocks, its pods.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result, ensure};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::daemon::Family;
use crate::daemon::weft::Weft;
use crate::lab::Lab;
use crate::netns::Namespace;
use crate::pod::Pod;
use crate::process::SHORT;
use crate::wait::wait_until;

/// A node with weftd.
#[derive(Debug)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its host network.
    pub namespace: Namespace,
    /// Its daemon.
    pub weft: Weft,
    /// Its addresses, one per family, IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// Its blocks, one per family, IPv4 first.
    pub blocks: Vec<IpNet>,
    /// Its pods.
    pub pods: Vec<Pod>,
}

impl Node {
    /// Makes the machine; its links and addresses are the caller's, and weftd is not started.
    ///
    /// # Errors
    /// If there is one of that name.
    pub fn new(lab: &Lab, name: &str, addresses: Vec<IpAddr>, blocks: Vec<IpNet>) -> Result<Self> {
        let namespace = lab.machine(name)?;
        let weft = Weft::new(lab, &namespace, name)?;
        Ok(Self { name: name.to_owned(), namespace, weft, addresses, blocks, pods: Vec::new() })
    }

    /// Its address of a family.
    ///
    /// # Errors
    /// If it has none.
    pub fn address(&self, family: Family) -> Result<IpAddr> {
        let found = self.addresses.iter().copied().find(|address| Family::of(*address) == family);
        found.with_context(|| format!("{} has no {family:?} address", self.name))
    }

    /// Its block of a family.
    ///
    /// # Errors
    /// If it has none.
    pub fn block(&self, family: Family) -> Result<IpNet> {
        let found = self.blocks.iter().copied().find(|block| Family::of(block.addr()) == family);
        found.with_context(|| format!("{} has no {family:?} block", self.name))
    }

    /// The families that it has addresses of.
    pub fn families(&self) -> impl Iterator<Item = Family> + use<> {
        self.addresses.iter().map(|address| Family::of(*address)).collect::<Vec<_>>().into_iter()
    }

    /// Adds a pod.
    ///
    /// # Errors
    /// The plugin's error.
    pub fn add_pod(&mut self, lab: &Lab) -> Result<&Pod> {
        let name = format!("{}-pod{}", self.name, self.pods.len());
        let pod = Pod::add(lab, &self.weft, &name)?;
        self.pods.push(pod);
        self.pods.last().context("the pod was just added")
    }

    /// Waits until weftd has said what the plugin needs to know.
    ///
    /// # Errors
    /// If weftd ends, or does not say it in time.
    pub fn wait_ready_for_pods(&mut self) -> Result<()> {
        let file = self.weft.run_dir().join("node.json");
        wait_until(format!("{} of {}", file.display(), self.name), SHORT, || {
            ensure!(file.is_file(), "it is not there");
            Ok(())
        })?;
        self.weft.ensure_running()
    }
}

/// The addresses of the lab's node number `index`, for `lo`: 10.0.0.N and fd00:10::N.
#[must_use]
pub fn loopback(families: &[Family], index: u8) -> Vec<IpAddr> {
    let of = |family: &Family| match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::new(10, 0, 0, index)),
        Family::V6 => IpAddr::V6(Ipv6Addr::new(0xfd00, 0x10, 0, 0, 0, 0, 0, index.into())),
    };
    families.iter().map(of).collect()
}

/// The blocks of the lab's node number `index`: 10.244.N.0/26 and fd00:10:244:N::/122.
#[must_use]
pub fn blocks(families: &[Family], index: u8) -> Vec<IpNet> {
    families.iter().map(|family| block(*family, index)).collect()
}

/// One block, as [`blocks`] numbers them.
#[must_use]
pub fn block(family: Family, index: u8) -> IpNet {
    match family {
        Family::V4 => IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(10, 244, index, 0), 26)),
        Family::V6 => {
            IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0x10, 0x244, index.into(), 0, 0, 0, 0), 122))
        }
    }
}
