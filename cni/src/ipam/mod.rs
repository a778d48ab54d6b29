//! Addresses: which are free in the node's blocks, who has which, and a store that remembers it.
//!
//! The store is one journal in the state directory ([`FILE_NAME`]), read and written under a lock that ends with its
//! holder's process. The plugin opens it anew for each command; weftd keeps it open, so that a look costs as much as
//! there is news. Commands for one attachment exclude each other: [`Store::hold`].
//!
//! An address is taken from the moment it is reserved until its entry is released, whatever happens in between: an
//! ADD that was killed leaves a reserved entry, which the next ADD of the same key takes over and DEL releases.
//! Entries of an earlier boot keep their addresses until then too.

mod allocate;
mod disk;
mod entry;
mod holds;
mod journal;
mod lock;

use std::collections::BTreeSet;
use std::fs::DirBuilder;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ipnet::IpNet;
use nix::time::{ClockId, clock_gettime};
use weft_routing::netlink::Mac;

pub use self::entry::{Entry, Key, State};
pub use self::holds::Holds;
pub use self::journal::FILE_NAME;

use self::disk::Directory;
use self::journal::{Journal, Record};
use self::lock::{Lock, Subject};
use crate::datapath::HostEnd;
use crate::spec::PodName;

/// Name of the lock file beside the journal.
const LOCK_NAME: &str = "addresses.lock";

/// The address store of one node.
#[derive(Debug)]
pub struct Store {
    journal: Journal<Directory>,
    path: PathBuf,
    lock: PathBuf,
    boot_id: String,
}

/// What an attachment wants to be remembered with.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// The families of which the attachment gets one address each.
    pub families: &'a [FamilyRequest],
    /// Addresses inside the blocks that no pod may get.
    pub excluded: &'a BTreeSet<IpAddr>,
    /// Ranges whose addresses are given only to who asks for one of them by number.
    pub reserved: &'a [IpNet],
    /// Name of the host end of its link.
    pub host_link: &'a str,
    /// MAC address of the pod end.
    pub mac: Mac,
    /// Path of the pod's network namespace.
    pub netns: &'a str,
    /// The Kubernetes pod, where known.
    pub pod: Option<&'a PodName>,
}

/// Where an address of one family comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FamilyRequest {
    /// The blocks, all of one family, in the order in which they are used up. Without any no address is given.
    pub blocks: Vec<Block>,
    /// The very address, whether it is reserved, rests or neither.
    pub address: Option<IpAddr>,
}

/// A block that addresses are given out of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// The block.
    pub cidr: IpNet,
    /// How long an address rests after its release until it is given to who did not ask for it.
    pub cooldown: Duration,
}

/// How full a block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockUsage {
    /// The block.
    pub block: IpNet,
    /// How many of its addresses are taken.
    pub taken: u64,
    /// How many were released a moment ago, and are given only to who asks for one of them by number.
    pub resting: u64,
    /// How many addresses it has, at most `u64::MAX`.
    pub size: u64,
}

impl std::fmt::Display for BlockUsage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({} of {} addresses taken)", self.block, self.taken, self.size)
    }
}

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Another process held the lock for too long.
    #[error("{} was locked by another process for {} s", path.display(), waited.as_secs())]
    Busy {
        /// The lock file.
        path: PathBuf,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The journal says what it cannot say. Nothing is given out from it.
    #[error("{} is damaged at line {line}: {reason}", path.display())]
    Damaged {
        /// The journal.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// The journal was written by another release.
    #[error("{} has {reason}", path.display())]
    Format {
        /// The journal.
        path: PathBuf,
        /// Which format was found and wanted.
        reason: String,
    },
    /// All addresses of one family are taken, reserved or rest.
    #[error("no {family} address is free: {}{}", list(blocks), rest(*resting))]
    Exhausted {
        /// `IPv4` or `IPv6`.
        family: &'static str,
        /// The blocks, in the order in which they are used up.
        blocks: Vec<BlockUsage>,
        /// How long until the first address that rests can be given; `None` when none does.
        resting: Option<Duration>,
    },
    /// The address that was asked for is that of another attachment.
    #[error("{address} is the address of {holder}")]
    Taken {
        /// The address.
        address: IpAddr,
        /// Whose it is.
        holder: Key,
    },
    /// Another attachment has a link of the same name: the hash of the names collided.
    #[error("the link name {host_link} is that of {holder}")]
    LinkNameTaken {
        /// The name.
        host_link: String,
        /// Whose it is.
        holder: Key,
    },
    /// There is no reservation to commit.
    #[error("{0} has no reserved addresses")]
    NotReserved(Key),
}

fn list(blocks: &[BlockUsage]) -> String {
    blocks.iter().map(BlockUsage::to_string).collect::<Vec<_>>().join(", ")
}

fn rest(resting: Option<Duration>) -> String {
    match resting {
        Some(left) => format!("; the next one rests for {} s more", left.as_secs().saturating_add(1)),
        None => String::new(),
    }
}

impl Store {
    /// The store in `state_dir`, which is made where it is missing. `boot_id` is that of this boot
    /// ([`crate::node::boot_id`]). Reads nothing yet.
    pub fn open(state_dir: &Path, boot_id: &str) -> Result<Self, Error> {
        DirBuilder::new().recursive(true).mode(0o755).create(state_dir).map_err(|source| Error::Io {
            action: "make the directory",
            path: state_dir.to_owned(),
            source,
        })?;
        Ok(Self {
            journal: Journal::new(Directory(state_dir.to_owned()), boot_id.to_owned()),
            path: state_dir.join(FILE_NAME),
            lock: state_dir.join(LOCK_NAME),
            boot_id: boot_id.to_owned(),
        })
    }

    /// The journal's path: it changes with the store's content, by growing or by being replaced.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All entries, in the order of their keys.
    pub fn entries(&mut self) -> Result<Vec<Entry>, Error> {
        self.transaction(|journal| Ok(journal.ledger().entries().values().cloned().collect()))
    }

    /// How full each of `blocks` is.
    pub fn usage(&mut self, blocks: &[Block]) -> Result<Vec<BlockUsage>, Error> {
        self.transaction(|journal| Ok(usage(blocks, journal.ledger(), uptime())))
    }

    /// Takes the right to change the entry of `key`, which lasts as long as the value: a concurrent command for the
    /// same key waits, and [`Error::Busy`] ends the wait.
    pub fn hold(&mut self, key: Key) -> Result<Hold<'_>, Error> {
        let lock = Lock::acquire(&self.lock, Subject::of_key(&key))?;
        Ok(Hold { store: self, key, _lock: lock })
    }

    /// Does `work` on the journal as it is now, alone.
    fn transaction<T>(
        &mut self,
        work: impl FnOnce(&mut Journal<Directory>) -> Result<T, Failure>,
    ) -> Result<T, Error> {
        self.journal.look_ahead();
        let _lock = Lock::acquire(&self.lock, Subject::STORE)?;
        let done = self.journal.refresh().map_err(Failure::Journal).and_then(|()| work(&mut self.journal));
        done.map_err(|failure| match failure {
            Failure::Journal(error) => in_journal(&self.path, error),
            Failure::Store(error) => error,
        })
    }
}

/// Why a transaction failed.
enum Failure {
    Journal(journal::Error),
    Store(Error),
}

fn in_journal(path: &Path, error: journal::Error) -> Error {
    let path = path.to_owned();
    match error {
        journal::Error::Io { action, source } => Error::Io { action, path, source },
        journal::Error::Damaged { line, reason } => Error::Damaged { path, line, reason },
        journal::Error::Format(_) => Error::Format { path, reason: error.to_string() },
    }
}

/// Whose a link is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkOf {
    /// The key's own, in this boot.
    Own(State),
    /// Another key's.
    Other,
    /// No entry of this boot has it.
    Nobody,
}

/// The right to change the entry of one key.
#[derive(Debug)]
pub struct Hold<'a> {
    store: &'a mut Store,
    key: Key,
    _lock: Lock,
}

impl Hold<'_> {
    /// Whose entry it is.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The entry as it is.
    pub fn entry(&mut self) -> Result<Option<Entry>, Error> {
        let key = &self.key;
        self.store.transaction(|journal| Ok(journal.ledger().entries().get(key).cloned()))
    }

    /// Whose the link of this name is.
    pub fn own_or_others(&mut self, host_link: &str) -> Result<LinkOf, Error> {
        let (key, boot_id) = (&self.key, &self.store.boot_id.clone());
        self.store.transaction(|journal| {
            let mut entries = journal.ledger().entries().values();
            Ok(match journal.ledger().entries().get(key) {
                Some(own) if own.boot_id == *boot_id => LinkOf::Own(own.state),
                Some(_) => LinkOf::Nobody,
                None if entries.any(|entry| entry.host_link == host_link) => LinkOf::Other,
                None => LinkOf::Nobody,
            })
        })
    }

    /// Takes one address of each family that has blocks, all or none. What an entry of the key had is given back,
    /// unless it fits: then it is kept.
    pub fn reserve(&mut self, request: &Request<'_>) -> Result<Entry, Error> {
        let (key, boot_id) = (&self.key, &self.store.boot_id.clone());
        self.store.transaction(|journal| {
            let addresses = choose(journal.ledger(), key, request, uptime()).map_err(Failure::Store)?;
            let entry = Entry {
                key: key.clone(),
                state: State::Reserved,
                addresses,
                host_link: request.host_link.to_owned(),
                mac: request.mac,
                netns: request.netns.to_owned(),
                pod: request.pod.cloned(),
                boot_id: boot_id.clone(),
                since: wall_clock(),
            };
            journal.append(Record::Reserve(entry.clone())).map_err(Failure::Journal)?;
            Ok(entry)
        })
    }

    /// Turns the reservation into an entry that stays, of the link with this host end, and returns once it would survive a power cut.
    pub fn commit(&mut self, host_end: HostEnd) -> Result<(), Error> {
        let key = &self.key;
        self.store.transaction(|journal| {
            if !journal.ledger().entries().contains_key(key) {
                return Err(Failure::Store(Error::NotReserved(key.clone())));
            }
            journal.append(Record::Commit { key: key.clone(), host_end }).map_err(Failure::Journal)
        })?;
        // Outside the lock: the syncs of concurrent ADDs share the disk's work.
        self.store.journal.sync().map_err(|error| in_journal(&self.store.path, error))
    }

    /// Gives the addresses back and forgets the entry; returns it. `None` when there was none.
    pub fn release(&mut self) -> Result<Option<Entry>, Error> {
        let key = &self.key;
        self.store.transaction(|journal| release(journal, key).map_err(Failure::Journal))
    }
}

fn release(journal: &mut Journal<Directory>, key: &Key) -> Result<Option<Entry>, journal::Error> {
    let Some(entry) = journal.ledger().entries().get(key).cloned() else { return Ok(None) };
    // An address that no runtime was told of need not rest.
    let at = match entry.state {
        State::Reserved => None,
        State::Committed(_) => Some(u64::try_from(uptime().as_millis()).unwrap_or(u64::MAX)),
    };
    journal.append(Record::Release { key: key.clone(), at })?;
    Ok(Some(entry))
}

/// Seconds since 1970; `None` on a machine whose clock is before.
fn wall_clock() -> Option<u64> {
    SystemTime::now().duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs())
}

fn choose(
    ledger: &journal::Ledger,
    key: &Key,
    request: &Request<'_>,
    now: Duration,
) -> Result<Vec<IpAddr>, Error> {
    let same_link = |entry: &&Entry| entry.host_link == request.host_link && entry.key != *key;
    if let Some(holder) = ledger.entries().values().find(same_link) {
        return Err(Error::LinkNameTaken {
            host_link: request.host_link.to_owned(),
            holder: holder.key.clone(),
        });
    }
    let families = request.families.iter().filter(|family| !family.blocks.is_empty());
    families
        .map(|family| match family.address {
            Some(address) => asked_for(ledger, key, address),
            None => any(ledger, key, request, &family.blocks, now),
        })
        .collect()
}

fn asked_for(ledger: &journal::Ledger, key: &Key, address: IpAddr) -> Result<IpAddr, Error> {
    let has_it = |entry: &&Entry| entry.key != *key && entry.addresses.contains(&address);
    match ledger.entries().values().find(has_it) {
        Some(holder) => Err(Error::Taken { address, holder: holder.key.clone() }),
        None => Ok(address),
    }
}

/// The address of the blocks that the key has already, else the next free one.
fn any(
    ledger: &journal::Ledger,
    key: &Key,
    request: &Request<'_>,
    blocks: &[Block],
    now: Duration,
) -> Result<IpAddr, Error> {
    let reserved = |address: &IpAddr| request.reserved.iter().find(|net| net.contains(address));
    let rests_until = |address: IpAddr| blocks.iter().find_map(|block| rests(block, address, ledger, now));
    let cidrs: Vec<IpNet> = blocks.iter().map(|block| block.cidr).collect();
    let held = ledger.entries().get(key).map(|entry| entry.addresses.as_slice()).unwrap_or_default();
    let fits = |address: &&IpAddr| {
        cidrs.iter().any(|block| block.contains(*address))
            && !request.excluded.contains(address)
            && reserved(address).is_none()
    };
    if let Some(address) = held.iter().find(fits) {
        return Ok(*address);
    }
    let is_ipv4 = cidrs.first().is_some_and(|block| block.network().is_ipv4());
    let obstacle = |address: IpAddr| match reserved(&address) {
        Some(net) => Some(net.broadcast()),
        None => (ledger.taken().contains(&address)
            || request.excluded.contains(&address)
            || rests_until(address).is_some())
        .then_some(address),
    };
    allocate::next_free(&cidrs, ledger.last(is_ipv4), obstacle).ok_or_else(|| Error::Exhausted {
        family: if is_ipv4 { "IPv4" } else { "IPv6" },
        blocks: usage(blocks, ledger, now),
        resting: ledger
            .all_released()
            .filter(|address| reserved(address).is_none() && !request.excluded.contains(address))
            .filter_map(rests_until)
            .min()
            .map(|until| until.saturating_sub(now)),
    })
}

/// Time since the boot, asleep or awake (`CLOCK_BOOTTIME`): one clock for all processes, which no one sets.
fn uptime() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}

/// Until when an address of `block` rests, if it does.
fn rests(block: &Block, address: IpAddr, ledger: &journal::Ledger, now: Duration) -> Option<Duration> {
    let released = ledger.released(address).filter(|_| block.cidr.contains(&address))?;
    Some(released.saturating_add(block.cooldown)).filter(|until| *until > now)
}

fn usage(blocks: &[Block], ledger: &journal::Ledger, now: Duration) -> Vec<BlockUsage> {
    let of_block = |block: &Block| BlockUsage {
        block: block.cidr,
        taken: ledger.taken().range(block.cidr.network()..=block.cidr.broadcast()).count() as u64,
        resting: ledger.all_released().filter(|address| rests(block, *address, ledger, now).is_some()).count()
            as u64,
        size: allocate::size(&block.cidr),
    };
    blocks.iter().map(of_block).collect()
}

#[cfg(test)]
mod tests;
