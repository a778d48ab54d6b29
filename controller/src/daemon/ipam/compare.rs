//! What does not fit together in an [`Observation`]. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use weft_cni::ipam::{Entry, Key, State};

use super::observe::{Observation, Whereabouts, cache_file};
use crate::api::ipam::IpamFindingKind as Kind;

/// Something that does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) kind: Kind,
    pub(super) addresses: Vec<IpAddr>,
    /// Whose entry it is, if it is one.
    pub(super) key: Option<Key>,
    /// What was found, in a sentence.
    pub(super) text: String,
    /// What would help.
    pub(super) remedy: &'static str,
}

impl Finding {
    /// What makes it the same finding in another observation.
    pub(super) fn identity(&self) -> (Kind, &[IpAddr], Option<&Key>) {
        (self.kind, &self.addresses, self.key.as_ref())
    }

    fn of_entry(kind: Kind, entry: &Entry, text: String, remedy: &'static str) -> Self {
        Self { kind, addresses: entry.addresses.clone(), key: Some(entry.key.clone()), text, remedy }
    }

    fn of_address(kind: Kind, address: IpAddr, text: String, remedy: &'static str) -> Self {
        Self { kind, addresses: vec![address], key: None, text, remedy }
    }
}

const FREED: &str =
    "it is freed when it is still so after the grace period; weftctl ipam release frees it now";
const REMADE: &str = "weftd puts it back within a second; where it does not, weftctl fib tells why";
const GARBAGE: &str =
    "the runtime's CNI GC takes it away; weftctl ipam release ADDRESS --force does so by hand";

/// A runtime writes its file after ADD has answered, and after the other plugins of the chain have: how long that may take.
const CHAIN_SECONDS: u64 = 10;

/// Everything that does not fit, in a stable order.
pub(super) fn compare(seen: &Observation) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (entry, whereabouts) in &seen.entries {
        findings.extend(missing(entry, *whereabouts));
        findings.extend(unreachable(entry, *whereabouts, seen));
        findings.extend(unknown_to_runtime(entry, *whereabouts, seen));
    }
    findings.extend(twice(seen));
    findings.extend(without_entry(seen));
    findings.sort_by(|a, b| a.identity().cmp(&b.identity()));
    findings
}

fn missing(entry: &Entry, whereabouts: Whereabouts) -> Option<Finding> {
    let (kind, text, remedy) = match whereabouts {
        Whereabouts::Linked { .. } => return None,
        Whereabouts::InNamespace => (
            Kind::LinkMissing,
            format!(
                "{}: its link {} is gone, but an address is in the network namespace {}, or that cannot be read: \
                 the pod is cut off",
                entry.key, entry.host_link, entry.netns
            ),
            "delete the pod: its runtime's CNI DEL frees the addresses",
        ),
        Whereabouts::Nowhere { earlier_boot: true } => (
            Kind::EarlierBoot,
            format!("{}: of boot {}, which is over", entry.key, entry.boot_id),
            "it is freed at the next look; weftctl ipam release frees it now",
        ),
        Whereabouts::Nowhere { earlier_boot: false } => (
            Kind::AddressWithoutLink,
            format!(
                "{}: neither link {} nor an address in {} is there",
                entry.key, entry.host_link, entry.netns
            ),
            FREED,
        ),
    };
    Some(Finding::of_entry(kind, entry, text, remedy))
}

/// A pod that has its link should have its routes and neighbours, too.
fn unreachable(entry: &Entry, whereabouts: Whereabouts, seen: &Observation) -> Vec<Finding> {
    let Whereabouts::Linked { link } = whereabouts else { return Vec::new() };
    if entry.state == State::Reserved {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for &address in &entry.addresses {
        let dev = &entry.host_link;
        if !seen.routes.contains(&(address, Some(link))) {
            let text = format!("{}: there is no route to {address} over {dev}", entry.key);
            findings.push(Finding::of_address(Kind::RouteMissing, address, text, REMADE));
        }
        if !seen.neighbours.contains(&(address, link)) {
            let text = format!("{}: {address} is no permanent neighbour on {dev}", entry.key);
            findings.push(Finding::of_address(Kind::NeighbourMissing, address, text, REMADE));
        }
    }
    findings
}

fn unknown_to_runtime(entry: &Entry, whereabouts: Whereabouts, seen: &Observation) -> Option<Finding> {
    let known = seen.runtime.as_ref()?;
    // What is nowhere is told of as missing.
    let lives = !matches!(whereabouts, Whereabouts::Nowhere { .. }) && entry.state != State::Reserved;
    let young = entry.since.is_some_and(|since| seen.time < since.saturating_add(CHAIN_SECONDS));
    (lives && !young && !known.contains(&cache_file(&entry.key))).then(|| {
        let text = format!("{}: the runtime has no result of it, so it will never call DEL", entry.key);
        let remedy = "see whether the container runs; if not, weftctl ipam release ADDRESS --force takes its link away";
        Finding::of_entry(Kind::UnknownToRuntime, entry, text, remedy)
    })
}

fn twice(seen: &Observation) -> Vec<Finding> {
    let mut holders: BTreeMap<IpAddr, Vec<&Key>> = BTreeMap::new();
    for (entry, _) in &seen.entries {
        for address in &entry.addresses {
            holders.entry(*address).or_default().push(&entry.key);
        }
    }
    let shared = holders.into_iter().filter(|(_, keys)| keys.len() > 1);
    shared
        .map(|(address, keys)| {
            let keys: Vec<_> = keys.into_iter().map(Key::to_string).collect();
            let text = format!("{address} is that of {}", keys.join(" and of "));
            Finding::of_address(Kind::AddressTwice, address, text, "delete one of the pods")
        })
        .collect()
}

/// What the kernel has and no entry speaks of.
fn without_entry(seen: &Observation) -> Vec<Finding> {
    let entries = || seen.entries.iter().map(|(entry, _)| entry);
    let host_links: BTreeSet<&str> = entries().map(|entry| entry.host_link.as_str()).collect();
    let addresses: BTreeSet<IpAddr> = entries().flat_map(|entry| entry.addresses.iter().copied()).collect();
    let mut findings = Vec::new();
    for (name, index) in seen.links.iter().filter(|(name, _)| !host_links.contains(name.as_str())) {
        let over = seen.routes.iter().filter(|(_, link)| *link == Some(*index));
        findings.push(Finding {
            kind: Kind::LinkWithoutEntry,
            addresses: over.map(|(address, _)| *address).collect(),
            key: None,
            text: format!("link {name} is a pod's and in no entry"),
            remedy: "the runtime's CNI GC takes it away; ip link del does so by hand",
        });
    }
    for (address, _) in seen.routes.iter().filter(|(address, _)| !addresses.contains(address)) {
        let text = format!("the route to {address}, of protocol 177, is in no entry");
        findings.push(Finding::of_address(Kind::RouteWithoutEntry, *address, text, GARBAGE));
    }
    for (address, _) in seen.neighbours.iter().filter(|(address, _)| !addresses.contains(address)) {
        let text = format!("{address} is a permanent neighbour on a pod's link and in no entry");
        findings.push(Finding::of_address(Kind::NeighbourWithoutEntry, *address, text, GARBAGE));
    }
    findings
}

#[cfg(test)]
pub(super) mod tests {
    use weft_cni::datapath::HostEnd;

    use super::*;

    pub(in super::super) fn entry(container: &str, address: [u8; 4], boot_id: &str) -> Entry {
        let key = Key { network: "weft".into(), container_id: container.into(), ifname: "eth0".into() };
        Entry {
            state: State::Committed(HostEnd { index: 7, peer_namespace: None }),
            addresses: vec![address.into()],
            host_link: format!("weft0000000000{container}"),
            mac: [2, 0, 0, 0, 0, 1],
            netns: "/nonexistent".into(),
            pod: None,
            boot_id: boot_id.into(),
            since: Some(1_000),
            key,
        }
    }

    /// A pod as it should be, on link 7.
    fn well() -> Observation {
        let entry = entry("a", [10, 0, 0, 1], "boot");
        let address = entry.addresses[0];
        Observation {
            links: BTreeMap::from([(entry.host_link.clone(), 7)]),
            routes: BTreeSet::from([(address, Some(7))]),
            neighbours: BTreeSet::from([(address, 7)]),
            runtime: Some(BTreeSet::from([cache_file(&entry.key)])),
            entries: vec![(entry, Whereabouts::Linked { link: 7 })],
            time: 2_000,
        }
    }

    fn kinds(seen: &Observation) -> Vec<Kind> {
        compare(seen).into_iter().map(|finding| finding.kind).collect()
    }

    #[test]
    fn a_pod_as_it_should_be_is_no_finding() {
        assert_eq!(kinds(&well()), []);
        assert_eq!(kinds(&Observation { runtime: None, ..well() }), [], "a runtime that was not asked");
    }

    #[test]
    fn each_part_that_is_missing_is_found() {
        assert_eq!(kinds(&Observation { routes: BTreeSet::new(), ..well() }), [Kind::RouteMissing]);
        assert_eq!(kinds(&Observation { neighbours: BTreeSet::new(), ..well() }), [Kind::NeighbourMissing]);
        assert_eq!(
            kinds(&Observation { runtime: Some(BTreeSet::new()), ..well() }),
            [Kind::UnknownToRuntime]
        );
        let elsewhere = BTreeSet::from([(IpAddr::from([10, 0, 0, 1]), Some(9))]);
        assert_eq!(kinds(&Observation { routes: elsewhere, ..well() }), [Kind::RouteMissing]);
    }

    #[test]
    fn where_the_addresses_are_decides() {
        let gone = |whereabouts| {
            let entry = entry("a", [10, 0, 0, 1], "boot");
            kinds(&Observation { entries: vec![(entry, whereabouts)], ..Observation::default() })
        };
        assert_eq!(gone(Whereabouts::InNamespace), [Kind::LinkMissing]);
        assert_eq!(gone(Whereabouts::Nowhere { earlier_boot: true }), [Kind::EarlierBoot]);
        assert_eq!(gone(Whereabouts::Nowhere { earlier_boot: false }), [Kind::AddressWithoutLink]);
    }

    #[test]
    fn what_is_in_no_entry_is_found() {
        let seen = Observation { entries: Vec::new(), ..well() };
        assert_eq!(
            kinds(&seen),
            [Kind::LinkWithoutEntry, Kind::RouteWithoutEntry, Kind::NeighbourWithoutEntry]
        );
    }

    #[test]
    fn one_address_of_two_is_found() {
        let mut seen = well();
        let other = entry("b", [10, 0, 0, 1], "boot");
        seen.entries.push((other, Whereabouts::Nowhere { earlier_boot: false }));
        assert_eq!(kinds(&seen), [Kind::AddressWithoutLink, Kind::AddressTwice]);
    }

    #[test]
    fn a_runtime_may_take_a_moment_to_write_its_file() {
        let unknown = Observation { runtime: Some(BTreeSet::new()), ..well() };
        assert_eq!(kinds(&Observation { time: 1_009, ..unknown.clone() }), []);
        assert_eq!(kinds(&Observation { time: 1_010, ..unknown }), [Kind::UnknownToRuntime]);
    }

    #[test]
    fn an_add_at_work_is_no_finding() {
        let mut seen = Observation { routes: BTreeSet::new(), runtime: Some(BTreeSet::new()), ..well() };
        seen.entries[0].0.state = State::Reserved;
        assert_eq!(kinds(&seen), []);
    }
}
