//! One look at everything that knows of pods' addresses: the store, the kernel, the runtime and the pods' network namespaces.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use nix::errno::Errno;
use weft_cni::datapath::is_host_end;
use weft_cni::ipam::{Entry, Key};
use weft_routing::netlink::{Error, LinkName, Socket};
use weft_routing::netns;
use weft_routing::route::{Action, Protocol, Route};

/// How many interfaces of the runtime's are read: many times what a node runs.
const RUNTIME_MAX: usize = 100_000;

/// What was seen, at about one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Observation {
    /// The entries of the store, and where their addresses are.
    pub(super) entries: Vec<(Entry, Whereabouts)>,
    /// The host ends of pods' links, by name.
    pub(super) links: BTreeMap<String, u32>,
    /// Routes of the plugin's protocol, to one address each, with the link that they lead to.
    pub(super) routes: BTreeSet<(IpAddr, Option<u32>)>,
    /// Permanent neighbours on those links.
    pub(super) neighbours: BTreeSet<(IpAddr, u32)>,
    /// The interfaces that the runtime knows, by the names of its files; none: it keeps none where it was looked for.
    pub(super) runtime: Option<BTreeSet<String>>,
    /// When, in seconds since 1970 by the wall clock.
    pub(super) time: u64,
}

/// Where the addresses of an entry are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whereabouts {
    /// The host end of the link is there, and with it a pod's end in some network namespace.
    Linked {
        /// Its index.
        link: u32,
    },
    /// There is no such link, but an address is in the network namespace that the entry names, or that could not be told.
    InNamespace,
    /// In neither.
    Nowhere {
        /// Whether they were taken in an earlier boot.
        earlier_boot: bool,
    },
}

/// Looks at the kernel, the runtime and the namespaces that `entries` name.
///
/// # Errors
/// The kernel does not answer.
pub(super) fn observe(
    socket: &mut Socket,
    entries: Vec<Entry>,
    boot_id: &str,
    runtime_cache: &Path,
    time: u64,
) -> Result<Observation, Error> {
    let links = socket.links()?;
    let by_name: BTreeMap<&str, u32> = links.iter().map(|link| (link.name.as_str(), link.index)).collect();
    let host_ends: BTreeMap<String, u32> =
        links.iter().filter(|link| is_host_end(link)).map(|link| (link.name.clone(), link.index)).collect();
    let indexes: BTreeSet<u32> = host_ends.values().copied().collect();
    let neighbours = socket.neighbours()?.into_iter().filter(|entry| indexes.contains(&entry.link));
    Ok(Observation {
        entries: entries
            .into_iter()
            .map(|entry| {
                let whereabouts =
                    whereabouts(&entry, by_name.get(entry.host_link.as_str()).copied(), boot_id);
                (entry, whereabouts)
            })
            .collect(),
        routes: socket.routes_of(Protocol::WEFT_PODS)?.iter().filter_map(to_one_address).collect(),
        neighbours: neighbours.map(|entry| (entry.address, entry.link)).collect(),
        links: host_ends,
        runtime: runtime(runtime_cache),
        time,
    })
}

/// Looks for one entry's addresses, now.
///
/// # Errors
/// The kernel does not answer.
pub(super) fn find(socket: &mut Socket, entry: &Entry, boot_id: &str) -> Result<Whereabouts, Error> {
    // A name that no link can have is that of none.
    let link = match entry.host_link.parse::<LinkName>() {
        Ok(name) => socket.link_by_name(&name)?.map(|link| link.index),
        Err(_) => None,
    };
    Ok(whereabouts(entry, link, boot_id))
}

fn whereabouts(entry: &Entry, link: Option<u32>, boot_id: &str) -> Whereabouts {
    let earlier_boot = entry.boot_id != boot_id;
    match link {
        Some(link) => Whereabouts::Linked { link },
        None if !earlier_boot && may_hold(Path::new(&entry.netns), &entry.addresses) => {
            Whereabouts::InNamespace
        }
        None => Whereabouts::Nowhere { earlier_boot },
    }
}

/// Whether one of `addresses` is in the network namespace at `path`. What cannot be told counts as yes: an address is
/// freed only where it is known to be nowhere.
fn may_hold(path: &Path, addresses: &[IpAddr]) -> bool {
    let look = netns::run(path, || Socket::new().and_then(|mut socket| socket.addresses()));
    match look {
        Ok(Ok(held)) => held.iter().any(|held| addresses.contains(&held.ip())),
        Ok(Err(_)) => true,
        // No such path, or a plain file, as is left where the namespace was taken away: there is no namespace.
        Err(netns::Error::Open { errno, .. }) => !matches!(errno, Errno::ENOENT | Errno::ENOTDIR),
        Err(netns::Error::Enter { errno, .. }) => errno != Errno::EINVAL,
        Err(netns::Error::Thread(_)) => true,
    }
}

/// `None` for a route to more than one address, which the plugin never makes.
fn to_one_address(route: &Route) -> Option<(IpAddr, Option<u32>)> {
    let destination = route.key.destination();
    let link = match &route.action {
        Action::Forward(next_hops) => next_hops.iter().next().map(|leg| leg.link),
        Action::Object(_) | Action::Unreachable | Action::Blackhole | Action::Other(_) => None,
    };
    (destination.prefix_len() == destination.max_prefix_len()).then(|| (destination.addr(), link))
}

/// The name under which libcni keeps the result of an ADD (`getCacheFilePath` in libcni/api.go).
pub(super) fn cache_file(key: &Key) -> String {
    format!("{}-{}-{}", key.network, key.container_id, key.ifname)
}

/// The names of the files in libcni's cache of results. A directory that cannot be read says no more than one that is
/// not there, and its reader is told so.
fn runtime(cache: &Path) -> Option<BTreeSet<String>> {
    match fs::read_dir(cache) {
        Ok(files) => Some(
            files
                .take(RUNTIME_MAX)
                .filter_map(|file| Some(file.ok()?.file_name().to_string_lossy().into_owned()))
                .collect(),
        ),
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(%error, directory = %cache.display(), "cannot read the runtime's cache of results");
            }
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_that_is_not_there_holds_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let address = [IpAddr::from([10, 0, 0, 1])];
        assert!(!may_hold(&dir.path().join("missing"), &address));
        let left = dir.path().join("left");
        fs::write(&left, "").unwrap();
        assert!(!may_hold(&left, &address), "a plain file is what `umount` leaves of a namespace");
        assert!(!may_hold(&left.join("below"), &address));
    }

    #[test]
    fn an_address_is_found_in_the_namespace_that_has_it() {
        let own = Path::new("/proc/self/ns/net");
        let loopback = [IpAddr::from([127, 0, 0, 1])];
        let has = Socket::new().unwrap().addresses().unwrap().iter().any(|held| held.ip() == loopback[0]);
        assert_eq!(may_hold(own, &loopback), has);
        assert!(!may_hold(own, &[IpAddr::from([203, 0, 113, 77])]));
    }

    #[test]
    fn the_runtimes_files_are_named_as_libcni_names_them() {
        let dir = tempfile::tempdir().unwrap();
        let key = Key { network: "weft".into(), container_id: "c1".into(), ifname: "eth0".into() };
        fs::write(dir.path().join("weft-c1-eth0"), "{}").unwrap();
        assert!(runtime(dir.path()).unwrap().contains(&cache_file(&key)));
        assert_eq!(runtime(&dir.path().join("missing")), None);
    }
}
