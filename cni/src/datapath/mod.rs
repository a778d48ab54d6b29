//! The link, addresses, routes and neighbours of one pod interface.
//!
//! ```text
//! pod namespace                                    host namespace
//! eth0, MAC 02:.. of the attachment  <-- veth -->  weft0123456789a, MAC ee:ee:ee:ee:ee:ee
//!   10.244.1.5/32, fd00::5/128                       fe80::1/64, no IPv4 address
//!   default via 169.254.1.1 onlink, via fe80::1      10.244.1.5/32, fd00::5/128, protocol 177
//!   both gateways: permanent, at ee:ee:ee:ee:ee:ee   both addresses: permanent, at 02:..
//! ```
//!
//! Nothing waits for ARP, NDP or duplicate address detection: every neighbour entry is permanent, every address is
//! added without detection, and both MAC addresses are known before the link is made.

mod check;
mod lookup;
mod ready;
mod step;

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use nix::sched::{CloneFlags, setns};
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};
use weft_routing::netlink::{
    self, Address, Ipv6Conf, Link, LinkName, Mac, NamespaceId, Neighbour, Scope, Socket, Veth,
};
use weft_routing::route::{Action, NextHop, Protocol, Route, RouteKey};
use weft_routing::{PodRoute, sysctl};

pub use self::check::{Told, check};

use self::step::{Step, perform};
use crate::hash::fnv1a;

/// MAC address of every host end. Set when the link is made: udev would rewrite one that is set later, and the
/// pods' permanent neighbour entries would lead nowhere.
pub const HOST_MAC: Mac = [0xee; 6];
/// Index of the loopback interface in every namespace (`LOOPBACK_IFINDEX`, net/core/dev.c).
const LOOPBACK_INDEX: u32 = 1;

/// A pod interface as it should be.
#[derive(Debug, Clone)]
pub struct Interface {
    /// Name of the pod end.
    pub ifname: LinkName,
    /// MAC address of the pod end.
    pub mac: Mac,
    /// Name of the host end ([`host_link_name`]).
    pub host_link: LinkName,
    /// One of each family at most.
    pub addresses: Vec<PodAddress>,
}

/// One address of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PodAddress {
    /// The address.
    pub address: IpAddr,
    /// The gateway the pod sees.
    pub gateway: IpAddr,
}

impl Interface {
    fn has_ipv6(&self) -> bool {
        self.addresses.iter().any(|address| address.address.is_ipv6())
    }

    /// The host's route and neighbour entry for one address: what weftd restores, should it get lost.
    fn host_route(&self, pod: &PodAddress, link: u32) -> PodRoute {
        PodRoute { address: pod.address, link, mac: self.mac }
    }
}

/// What the kernel has for the host end of a pod's link, as long as that lives and in one boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostEnd {
    /// Its index, which is no later link's, whatever that is named.
    pub index: u32,
    /// The id of the pod's namespace; `None` if the kernel gave it none.
    pub peer_namespace: Option<NamespaceId>,
}

/// Why the kernel's part failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The path is no network namespace that can be used.
    #[error("{}: {reason}", path.display())]
    Namespace {
        /// The path.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The pod has an interface of that name already.
    #[error("the network namespace has an interface {0} already")]
    NameTaken(LinkName),
    /// The kernel refused one step.
    #[error("cannot {step}: {source}")]
    Refused {
        /// What was to be done, to follow "cannot".
        step: String,
        /// The kernel's words.
        source: netlink::Error,
    },
    /// The link sends nothing although both its ends are up.
    #[error("link {0} is up at both ends and not operational after a second")]
    NotOperational(LinkName),
    /// The pod does not take packets to its address although it has it.
    #[error("the pod has no local route to its address {0} after a second")]
    NotLocal(IpAddr),
    /// A kernel parameter could not be set.
    #[error(transparent)]
    Sysctl(#[from] sysctl::Error),
}

/// `map_err` for one step.
fn refused(step: impl std::fmt::Display) -> impl FnOnce(netlink::Error) -> Error {
    move |source| Error::Refused { step: step.to_string(), source }
}

/// A pod's network namespace, held open: whatever becomes of the path, it is the same one throughout.
#[derive(Debug)]
pub struct PodNamespace {
    path: PathBuf,
    file: File,
    /// The caller's own, to come back to.
    own: File,
}

impl PodNamespace {
    /// Opens the namespace at `path`, which must not be the caller's own: the host would lose its default route.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let unusable = |reason: String| Error::Namespace { path: path.to_owned(), reason };
        let open = |path: &Path| File::open(path).map_err(|error| unusable(error.to_string()));
        let id = |file: &File| -> Result<(u64, u64), Error> {
            let metadata = file.metadata().map_err(|error| unusable(error.to_string()))?;
            Ok((metadata.dev(), metadata.ino()))
        };
        let (file, own) = (open(path)?, open(Path::new("/proc/thread-self/ns/net"))?);
        if !fstatfs(&file).is_ok_and(|system| system.filesystem_type() == NSFS_MAGIC) {
            return Err(unusable("it is no namespace".to_owned()));
        }
        if id(&file)? == id(&own)? {
            return Err(unusable("it is the host's own network namespace".to_owned()));
        }
        Ok(Self { path: path.to_owned(), file, own })
    }

    /// Runs `work` inside. The calling thread goes there and comes back, which in a process of one thread is cheaper than
    /// a second one. After an error that says it could not come back, it is good only for what has sockets already.
    fn run<T>(&self, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        self.enter(&self.file, "enter it")?;
        let done = work();
        self.enter(&self.own, "come back from it")?;
        done
    }

    fn enter(&self, namespace: &File, what: &str) -> Result<(), Error> {
        setns(namespace, CloneFlags::CLONE_NEWNET).map_err(|errno| Error::Namespace {
            path: self.path.clone(),
            reason: format!("cannot {what}: {} ({errno:?})", errno.desc()),
        })
    }
}

/// What the names of host ends begin with.
const HOST_LINK_PREFIX: &str = "weft";
/// How many hex digits follow: 15 characters in all, as many as a name may have.
const HOST_LINK_DIGITS: usize = 11;

/// The name of the host end: `weft` and 44 bits of FNV-1a of container id and interface name, xor-folded, as 11 hex
/// digits.
pub fn host_link_name(container_id: &str, ifname: &LinkName) -> Result<LinkName, netlink::InvalidLinkName> {
    const BITS: u32 = 44;
    let hash = fnv1a(&[container_id.as_bytes(), b"/", ifname.as_str().as_bytes()]);
    let folded = (hash >> BITS) ^ (hash & ((1 << BITS) - 1));
    format!("{HOST_LINK_PREFIX}{folded:0HOST_LINK_DIGITS$x}").parse()
}

/// Whether `link` is the host end of a pod's link, of whichever pod: by its kind, its MAC address and the pattern of
/// [`host_link_name`].
pub fn is_host_end(link: &Link) -> bool {
    let digits = link.name.strip_prefix(HOST_LINK_PREFIX).unwrap_or_default();
    let named = digits.len() == HOST_LINK_DIGITS
        && digits.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    named && link.mac == Some(HOST_MAC) && link.kind.as_deref() == Some("veth")
}

/// The default route's destination in the family of `address`.
pub fn default_destination(address: IpAddr) -> IpNet {
    match address {
        IpAddr::V4(_) => IpNet::V4(Ipv4Net::default()),
        IpAddr::V6(_) => IpNet::V6(Ipv6Net::default()),
    }
}

/// The source addresses the host prefers towards pods.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PreferredSources {
    /// For IPv4; `None` leaves the choice to the kernel.
    pub ipv4: Option<Ipv4Addr>,
    /// For IPv6; `None` leaves the choice to the kernel.
    pub ipv6: Option<Ipv6Addr>,
}

impl PreferredSources {
    fn towards(&self, address: IpAddr) -> Option<IpAddr> {
        match address {
            IpAddr::V4(_) => self.ipv4.map(IpAddr::V4),
            IpAddr::V6(_) => self.ipv6.map(IpAddr::V6),
        }
    }
}

/// Makes the interface, and says what the kernel calls it. On an error parts of it may be there: [`remove`] takes
/// them away.
///
/// The pod's end is set up first, so that the host's finds a carrier and its part is one batch.
pub fn create(
    socket: &mut Socket,
    namespace: &PodNamespace,
    interface: &Interface,
    mtu: u32,
    sources: &PreferredSources,
) -> Result<HostEnd, Error> {
    let ends = create_link(socket, namespace, interface, mtu)?;
    let mut inside = namespace.run(|| configure_pod(interface, ends.pod))?;
    configure_host(socket, interface, ends.host, sources)?;
    ready::wait(&mut inside, interface, ends.pod)?;
    Ok(HostEnd { index: ends.host, peer_namespace: ends.pod_namespace })
}

/// Takes the interface away, with everything that hangs on it: both ends, addresses, routes, neighbours. Says
/// whether there was one.
pub fn remove(socket: &mut Socket, host_link: &LinkName) -> Result<bool, Error> {
    match socket.execute(&step::delete_link(host_link)) {
        Ok(()) => Ok(true),
        Err(error) if error.is_absent() => Ok(false),
        Err(error) => Err(refused(format_args!("delete link {host_link}"))(error)),
    }
}

/// Whether the kernel takes the interface away by itself, a moment from now: nothing holds its pod's namespace any more.
pub fn is_going(socket: &mut Socket, end: HostEnd) -> Result<bool, Error> {
    match end.peer_namespace {
        None => Ok(false),
        Some(id) => {
            let lives = socket.namespace_lives(id);
            lives.map(|lives| !lives).map_err(refused("look whether the pod's network namespace is there"))
        }
    }
}

/// Whether the host end is there.
pub fn exists(socket: &mut Socket, host_link: &LinkName) -> Result<bool, Error> {
    let link = socket.link_by_name(host_link).map_err(refused(format_args!("look up link {host_link}")))?;
    Ok(link.is_some())
}

/// The indexes of the two ends, each in its namespace.
struct Ends {
    host: u32,
    pod: u32,
    pod_namespace: Option<NamespaceId>,
}

fn create_link(
    socket: &mut Socket,
    namespace: &PodNamespace,
    interface: &Interface,
    mtu: u32,
) -> Result<Ends, Error> {
    let name = &interface.host_link;
    let request = Veth {
        name,
        mac: HOST_MAC,
        peer_name: &interface.ifname,
        peer_mac: Some(interface.mac),
        peer_netns: &namespace.file,
        mtu,
    }
    .create();
    let mut result = socket.execute(&request);
    // The host end of this very attachment can only be what an ADD left that was killed.
    // The kernel may be at it: then it is gone by now, and there is nothing to remove.
    if result.as_ref().is_err_and(netlink::Error::is_present) {
        remove(socket, name)?;
        result = socket.execute(&request);
    }
    if result.as_ref().is_err_and(netlink::Error::is_present) {
        return Err(Error::NameTaken(interface.ifname.clone()));
    }
    result.map_err(refused(format_args!("make link {name} with its peer {}", interface.ifname)))?;
    let step = || format!("look up link {name}");
    let link = socket.link_by_name(name).map_err(|source| Error::Refused { step: step(), source })?;
    let gone = || netlink::Error::Malformed("the link that was just made is not there".to_owned());
    link.and_then(|link| Some(Ends { host: link.index, pod: link.peer?, pod_namespace: link.peer_namespace }))
        .ok_or_else(|| Error::Refused { step: step(), source: gone() })
}

/// Runs inside the pod's namespace, and gives a socket that stays there.
fn configure_pod(interface: &Interface, link: u32) -> Result<Socket, Error> {
    let ifname = &interface.ifname;
    let mut socket = Socket::new().map_err(refused("open a netlink socket in the pod"))?;
    if interface.has_ipv6() {
        enable_ipv6(&mut socket, "lo", LOOPBACK_INDEX)?;
    }
    prepare_ipv6(&mut socket, interface, ifname, link)?;
    let mut steps = vec![
        Step::SetUp { name: "lo".to_owned(), link: LOOPBACK_INDEX },
        Step::SetUp { name: ifname.to_string(), link },
    ];
    for pod in &interface.addresses {
        steps.push(Step::Address(pod_address(pod.address, link)));
        steps.push(Step::Neighbour(Neighbour { link, address: pod.gateway, mac: HOST_MAC }));
        steps.push(Step::Route(default_route(pod, link)));
    }
    perform(&mut socket, &steps)?;
    Ok(socket)
}

fn configure_host(
    socket: &mut Socket,
    interface: &Interface,
    link: u32,
    sources: &PreferredSources,
) -> Result<(), Error> {
    let name = &interface.host_link;
    let ipv6 = prepare_ipv6(socket, interface, name, link)?;
    // The parameters before the link is up, so that the kernel makes no link-local address of its own.
    let mut steps = vec![Step::HostParameters { link, ipv6 }, Step::SetUp { name: name.to_string(), link }];
    for pod in &interface.addresses {
        if pod.gateway.is_ipv6() {
            steps.push(Step::Address(host_address(pod.gateway, link)));
        }
        let way = interface.host_route(pod, link);
        steps.push(Step::Neighbour(way.neighbour()));
        steps.push(Step::Route(way.route(sources.towards(pod.address))));
    }
    perform(socket, &steps)
}

/// Gives an end of the link IPv6 if a pod's address needs it, and keeps it from making addresses and routes of router
/// advertisements; says whether it speaks IPv6 at all. A file of `net/ipv6/conf` is opened only to be written: finding it
/// takes the longer the more namespaces there are.
fn prepare_ipv6(
    socket: &mut Socket,
    interface: &Interface,
    end: &LinkName,
    link: u32,
) -> Result<bool, Error> {
    let conf = match interface.has_ipv6() {
        true => enable_ipv6(socket, end.as_str(), link)?,
        false => ipv6_conf(socket, end.as_str(), link)?,
    };
    if conf.is_some_and(|conf| conf.accept_ra != 0) {
        sysctl::write(&format!("net/ipv6/conf/{end}/accept_ra"), "0")?;
    }
    Ok(conf.is_some())
}

/// Runtimes may have taken IPv6 off every interface of a namespace.
fn enable_ipv6(socket: &mut Socket, name: &str, link: u32) -> Result<Option<Ipv6Conf>, Error> {
    let conf = ipv6_conf(socket, name, link)?;
    if conf.is_some_and(|conf| !conf.disabled) {
        return Ok(conf);
    }
    sysctl::write(&format!("net/ipv6/conf/{name}/disable_ipv6"), "0")?;
    ipv6_conf(socket, name, link)
}

fn ipv6_conf(socket: &mut Socket, name: &str, link: u32) -> Result<Option<Ipv6Conf>, Error> {
    socket.ipv6_conf(link).map_err(refused(format_args!("look at IPv6 on link {name}")))
}

/// False on a kernel that was started with `ipv6.disable=1`, and for a link whose MTU is below IPv6's least.
fn speaks_ipv6(link: &LinkName) -> bool {
    Path::new("/proc/sys/net/ipv6/conf").join(link.as_str()).exists()
}

/// The pod's address as the pod has it: a /32 or /128.
fn pod_address(address: IpAddr, link: u32) -> Address {
    Address { link, address: address.into(), scope: Scope::Global, tentative: false }
}

/// The gateway's address as the host end has it.
fn host_address(gateway: IpAddr, link: u32) -> Address {
    const LINK_LOCAL_LEN: u8 = 64;
    let address = IpNet::new(gateway, LINK_LOCAL_LEN).unwrap_or_else(|_| gateway.into());
    Address { link, address, scope: Scope::Link, tentative: false }
}

/// The pod's default route.
fn default_route(pod: &PodAddress, link: u32) -> Route {
    let next_hop = NextHop { onlink: true, ..NextHop::via(pod.gateway, link) };
    Route {
        key: RouteKey::new(default_destination(pod.address), 0),
        protocol: Protocol::BOOT,
        action: Action::Forward(next_hop.into()),
        preferred_source: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_link_names_are_fifteen_characters_and_depend_on_both_parts() {
        let eth0: LinkName = "eth0".parse().unwrap();
        let name = host_link_name("c1", &eth0).unwrap();
        assert_eq!(name.as_str().len(), 15);
        assert!(name.as_str().starts_with("weft"));
        assert_eq!(name, host_link_name("c1", &eth0).unwrap());
        assert_ne!(name, host_link_name("c2", &eth0).unwrap());
        assert_ne!(name, host_link_name("c1", &"eth1".parse().unwrap()).unwrap());
    }

    #[test]
    fn a_host_end_is_told_by_kind_mac_and_name() {
        let end = Link {
            index: 2,
            name: host_link_name("c1", &"eth0".parse().unwrap()).unwrap().to_string(),
            mac: Some(HOST_MAC),
            mtu: 1500,
            up: true,
            carrier: true,
            operational: true,
            loopback: false,
            kind: Some("veth".to_owned()),
            peer: Some(2),
            peer_namespace: None,
        };
        assert!(is_host_end(&end));
        for name in ["weft0123456789", "weft0123456789A", "weftuplink", "veth0123456789a", "weft"] {
            assert!(!is_host_end(&Link { name: name.to_owned(), ..end.clone() }), "{name}");
        }
        assert!(!is_host_end(&Link { mac: Some([2; 6]), ..end.clone() }));
        assert!(!is_host_end(&Link { kind: Some("dummy".to_owned()), ..end }));
    }

    #[test]
    fn the_hosts_own_namespace_is_refused() {
        let error = PodNamespace::open(Path::new("/proc/thread-self/ns/net")).unwrap_err();
        assert!(error.to_string().contains("host's own"), "{error}");
        let error = PodNamespace::open(Path::new("/nonexistent")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent"), "{error}");
        let error = PodNamespace::open(Path::new("/dev/null")).unwrap_err();
        assert!(error.to_string().contains("no namespace"), "{error}");
    }
}
