//! Cables: veth pairs made directly between two namespaces.

use anyhow::Result;
use ipnet::IpNet;

use crate::netns::Namespace;

/// One end of a cable.
#[derive(Clone, Debug)]
pub struct End {
    /// The machine.
    pub namespace: Namespace,
    /// The interface, at most 15 characters.
    pub interface: String,
}

impl End {
    /// Names an end.
    #[must_use]
    pub fn new(namespace: &Namespace, interface: impl Into<String>) -> Self {
        Self { namespace: namespace.clone(), interface: interface.into() }
    }

    /// Gives addresses to it.
    ///
    /// # Errors
    /// If it has one of them already.
    pub fn add_addresses(&self, addresses: &[IpNet]) -> Result<()> {
        let commands: Vec<String> =
            addresses.iter().map(|address| format!("addr add {address} dev {}", self.interface)).collect();
        self.namespace.ip(&commands.join("\n"))
    }

    fn set(&self, what: &str) -> Result<()> {
        self.namespace.ip(&format!("link set {} {what}", self.interface))
    }

    /// IPv6 without duplicate address detection, which only costs a second where addresses are ours to give, and with addresses
    /// that survive a cut as IPv4's do.
    fn prepare(&self) -> Result<()> {
        let conf = format!("net/ipv6/conf/{}", self.interface);
        self.namespace.set_sysctl(&format!("{conf}/accept_dad"), "0")?;
        self.namespace.set_sysctl(&format!("{conf}/keep_addr_on_down"), "1")?;
        self.set("up")
    }
}

/// A cable, plugged in at both ends.
#[derive(Clone, Debug)]
pub struct Link {
    /// The end that only loses its carrier when the cable is cut.
    pub near: End,
    /// The end that is taken down to cut the cable.
    pub far: End,
}

impl Link {
    /// Lays a cable.
    ///
    /// # Errors
    /// If one of the interfaces exists.
    pub fn new(near: End, far: End) -> Result<Self> {
        near.namespace.ip(&format!(
            "link add {} type veth peer name {} netns {}",
            near.interface,
            far.interface,
            far.namespace.name()
        ))?;
        near.prepare()?;
        far.prepare()?;
        Ok(Self { near, far })
    }

    /// Cuts the cable: the near end has no carrier from now on.
    ///
    /// # Errors
    /// If the far interface is gone.
    pub fn cut(&self) -> Result<()> {
        self.far.set("down")
    }

    /// Mends the cable.
    ///
    /// # Errors
    /// If the far interface is gone.
    pub fn heal(&self) -> Result<()> {
        self.far.set("up")
    }

    /// Sets the largest packet that passes, both ways.
    ///
    /// # Errors
    /// If the kernel refuses the size.
    pub fn set_mtu(&self, bytes: u32) -> Result<()> {
        self.near.set(&format!("mtu {bytes}"))?;
        self.far.set(&format!("mtu {bytes}"))
    }
}

/// A switch: a bridge in a namespace of its own.
#[derive(Clone, Debug)]
pub struct Switch {
    namespace: Namespace,
}

impl Switch {
    /// Makes a switch of `namespace`.
    ///
    /// # Errors
    /// If the kernel has no bridge.
    pub fn new(namespace: Namespace) -> Result<Self> {
        namespace.ip("link add bridge type bridge\nlink set bridge up")?;
        Ok(Self { namespace })
    }

    /// Plugs a machine in; the cable's far end is the switch's.
    ///
    /// # Errors
    /// If the machine has an interface of that name.
    pub fn plug(&self, near: End) -> Result<Link> {
        let port = End::new(&self.namespace, near.namespace.label());
        let link = Link::new(near, port)?;
        link.far.set("master bridge")?;
        Ok(link)
    }
}
