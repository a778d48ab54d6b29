//! GC takes away what attachments have that the runtime no longer knows: links with their routes and neighbours, and
//! addresses. It goes on where one of them fails, and reports all that failed.
//!
//! The specification keeps the runtime from running ADD and DEL of the same network meanwhile. Those of other networks
//! may run, and nothing depends on the runtime keeping the rule: an entry on which a command is at work, or was since it
//! was judged, is left alone.

use std::collections::{BTreeMap, BTreeSet};

use weft_routing::netlink::{Link, LinkName, Socket};

use super::{node_error, open_socket, open_store, store_error};
use crate::datapath;
use crate::ipam::{Entry, Key};
use crate::node;
use crate::spec::{AttachmentId, Code, Error, NetworkConfig};

pub(super) fn gc(config: &NetworkConfig) -> Result<(), Error> {
    let valid = config.valid_attachments()?;
    let boot_id = node::boot_id().map_err(node_error)?;
    let mut store = open_store(config, &boot_id)?;
    let mut socket = open_socket()?;
    let judged = stale(store.entries().map_err(store_error)?, &config.name, &valid);
    let mut holds = store.hold_free(judged.keys().cloned()).map_err(store_error)?;
    // The links before the entries: an ADD reserves its entry before it makes its link, and a DEL removes the link
    // before it releases the entry. So a link that was seen and is in no entry is nobody's.
    let links = socket.links().map_err(kernel_error)?;
    let entries = holds.entries().map_err(store_error)?;

    let mut failures = busy(&judged, holds.keys());
    let unchanged =
        |entry: &&Entry| holds.keys().contains(&entry.key) && judged.get(&entry.key) == Some(*entry);
    let stale: Vec<&Entry> = entries.iter().filter(unchanged).collect();
    let orphans = orphans(&links, &entries, &valid);
    let gone = delete_links(&mut socket, &links, &stale, &orphans, &mut failures);
    if let Err(error) = holds.release(&gone) {
        failures.push(Failure { what: "the store".to_owned(), reason: error.to_string(), code: Code::Io });
    }
    report(failures)
}

/// One thing that could not be freed.
struct Failure {
    what: String,
    reason: String,
    code: Code,
}

/// The entries of the network that the runtime does not name, by their keys.
fn stale(entries: Vec<Entry>, network: &str, valid: &BTreeSet<AttachmentId>) -> BTreeMap<Key, Entry> {
    let is_stale = |entry: &Entry| {
        let key = &entry.key;
        let id = AttachmentId { container_id: key.container_id.clone(), ifname: key.ifname.clone() };
        key.network == network && !valid.contains(&id)
    };
    entries.into_iter().filter(is_stale).map(|entry| (entry.key.clone(), entry)).collect()
}

fn busy(judged: &BTreeMap<Key, Entry>, held: &BTreeSet<Key>) -> Vec<Failure> {
    let busy = judged.keys().filter(|key| !held.contains(key));
    let failure = |key: &Key| Failure {
        what: key.to_string(),
        reason: "another command is at work on it".to_owned(),
        code: Code::TryAgainLater,
    };
    busy.map(failure).collect()
}

/// Host ends of pods' links that are in no entry of any network. What the runtime calls valid is left alone, even if
/// the store has lost it.
fn orphans<'a>(links: &'a [Link], entries: &[Entry], valid: &BTreeSet<AttachmentId>) -> Vec<&'a Link> {
    let name_of = |id: &AttachmentId| {
        let ifname: LinkName = id.ifname.parse().ok()?;
        datapath::host_link_name(&id.container_id, &ifname).ok()
    };
    let valid: BTreeSet<String> = valid.iter().filter_map(name_of).map(|name| name.to_string()).collect();
    let known: BTreeSet<&str> = entries
        .iter()
        .map(|entry| entry.host_link.as_str())
        .chain(valid.iter().map(String::as_str))
        .collect();
    let orphan = |link: &&Link| datapath::is_host_end(link) && !known.contains(link.name.as_str());
    links.iter().filter(orphan).collect()
}

/// Deletes the links of `stale` and `orphans`, by index: a link that is made meanwhile under the same name is another's.
/// Returns the entries that have no link any more.
fn delete_links(
    socket: &mut Socket,
    links: &[Link],
    stale: &[&Entry],
    orphans: &[&Link],
    failures: &mut Vec<Failure>,
) -> BTreeSet<Key> {
    let by_name: BTreeMap<&str, &Link> = links.iter().map(|link| (link.name.as_str(), link)).collect();
    let mut gone: BTreeSet<Key> = stale.iter().map(|entry| entry.key.clone()).collect();
    let of_entries = stale.iter().filter_map(|entry| {
        let link = by_name.get(entry.host_link.as_str())?;
        Some((*link, Some(&entry.key)))
    });
    let doomed: Vec<(&Link, Option<&Key>)> =
        of_entries.chain(orphans.iter().map(|link| (*link, None))).collect();
    let indexes: Vec<u32> = doomed.iter().map(|(link, _)| link.index).collect();
    for ((link, key), result) in doomed.into_iter().zip(socket.delete_links(&indexes)) {
        let Some(error) = result.err().filter(|error| !error.is_absent()) else { continue };
        let what = match key {
            Some(key) => {
                // An address stays taken as long as a link may have it.
                gone.remove(key);
                key.to_string()
            }
            None => "no known attachment".to_owned(),
        };
        let reason = format!("cannot delete link {}: {error}", link.name);
        failures.push(Failure { what, reason, code: Code::Kernel });
    }
    gone
}

/// The code is that of the worst: to try again later helps where others were at work, and nowhere else.
fn report(failures: Vec<Failure>) -> Result<(), Error> {
    let later = failures.iter().all(|failure| failure.code == Code::TryAgainLater);
    let Some(first) = failures.iter().find(|failure| later || failure.code != Code::TryAgainLater) else {
        return Ok(());
    };
    let list: Vec<String> =
        failures.iter().map(|failure| format!("{}: {}", failure.what, failure.reason)).collect();
    Err(Error::new(first.code, "GC could not free everything").details(list.join("; ")))
}

fn kernel_error(error: weft_routing::netlink::Error) -> Error {
    Error::new(Code::Kernel, format!("cannot list links: {error}"))
}
