//! The journal: what was reserved, committed and released, in order.
//!
//! One line per record, with a checksum ([`line`]). A line without its newline was not written to the end and counts as not
//! written. The first line names the boot; the whole file is
//! rewritten (new file, `fsync`, `rename`, `fsync` of the directory) in each new boot and when it holds many more
//! lines than entries.
//!
//! # Why it is right
//!
//! *A process may be killed at any instruction, or a write fail.* What other processes read is the page cache, so
//! everything written before is there. The record being written is there whole, or lacks its newline, and is then
//! cut off by whoever next takes the lock. A rewrite that was not renamed is overwritten by the next one.
//!
//! *The power may fail at any instruction.* Of what was written since the last `fsync` anything may be missing or
//! garbled. But the next process runs in another boot, and in that boot no pod of the earlier one exists: an entry
//! that was lost is an address free to use. Therefore a line of an earlier boot that cannot be read is passed over,
//! while in a journal of this boot it is an error: there it can only be damage, and guessing could give one address
//! to two pods. [`Journal::sync`] makes sure that what a runtime was told survives, so that a pod's address is not
//! soon used again while the rest of the cluster still takes it for the pod's.

mod line;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use self::line::{decode, encode};
use super::disk::Disk;
use super::{Entry, Key, State};
use crate::datapath::HostEnd;

/// Name of the journal in the state directory.
pub const FILE_NAME: &str = "addresses.journal";
const NEW_FILE_NAME: &str = "addresses.journal.new";
/// The only format that is written and read.
const FORMAT: u32 = 2;
/// The format before, and what its first line has in it.
const OLD_FORMAT: u32 = 1;
const OLD_HEADER: &[u8] = b"{\"header\":{\"format\":1,";
/// How many lines more than entries make the journal be rewritten: every command reads them all.
const SLACK_LINES: usize = 128;
/// How many addresses at least are known to have been released: every command reads them. When twice as many are, as when all
/// pods of a full node went at once, the oldest are forgotten.
const RELEASED_ENOUGH: usize = 256;

/// Why the journal cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("cannot {action}: {source}")]
    Io { action: &'static str, source: io::Error },
    #[error("line {line}: {reason}")]
    Damaged { line: usize, reason: String },
    #[error("format {0}, this release reads {FORMAT}")]
    Format(u32),
}

/// `map_err` for a failed system call.
fn cannot(action: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| Error::Io { action, source }
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record {
    /// The first line, and only that.
    Header(Header),
    /// An entry carried over when the journal was rewritten.
    Keep(Entry),
    /// Addresses are taken for an entry, in place of any other of its key.
    Reserve(Entry),
    /// The reserved entry of this key is committed.
    Commit { key: Key, host_end: HostEnd },
    /// The entry of this key is gone.
    Release {
        key: Key,
        /// When, in milliseconds since the boot ([`super::uptime`]), if the addresses are to rest.
        at: Option<u64>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    format: u32,
    /// The boot in which every line below was written or carried over.
    boot_id: String,
    /// The address given out last, of each family.
    last: Vec<IpAddr>,
    /// When addresses that are free now were released, as in [`Record::Release`].
    released: BTreeMap<IpAddr, u64>,
}

/// What the lines add up to.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Ledger {
    entries: BTreeMap<Key, Entry>,
    taken: BTreeSet<IpAddr>,
    last: Vec<IpAddr>,
    /// Free addresses that were released in this boot, the last [`RELEASED_ENOUGH`] at least.
    released: BTreeMap<IpAddr, u64>,
}

impl Ledger {
    pub(super) fn entries(&self) -> &BTreeMap<Key, Entry> {
        &self.entries
    }

    pub(super) fn taken(&self) -> &BTreeSet<IpAddr> {
        &self.taken
    }

    /// The address of one family that was given out last.
    pub(super) fn last(&self, ipv4: bool) -> Option<IpAddr> {
        self.last.iter().copied().find(|last| last.is_ipv4() == ipv4)
    }

    /// When a free address was released in this boot, since the boot; `None` where that is not known or long ago.
    pub(super) fn released(&self, address: IpAddr) -> Option<Duration> {
        self.released.get(&address).copied().map(Duration::from_millis)
    }

    /// The addresses that [`Self::released`] knows.
    pub(super) fn all_released(&self) -> impl Iterator<Item = IpAddr> {
        self.released.keys().copied()
    }

    /// Applies a record, or says why it makes no sense here and changes nothing.
    fn apply(&mut self, record: Record) -> Result<(), String> {
        match record {
            Record::Header(_) => Err("a second header".to_owned()),
            Record::Keep(entry) => self.put(entry),
            Record::Reserve(entry) => {
                let addresses = entry.addresses.clone();
                self.put(entry)?;
                for address in addresses {
                    self.last.retain(|last| last.is_ipv4() != address.is_ipv4());
                    self.last.push(address);
                }
                Ok(())
            }
            Record::Commit { key, host_end } => match self.entries.get_mut(&key) {
                Some(entry) => {
                    entry.state = State::Committed(host_end);
                    Ok(())
                }
                None => Err(format!("commits {key}, which has no entry")),
            },
            Record::Release { key, at } => match self.entries.remove(&key) {
                Some(entry) => {
                    self.free(&entry, at);
                    Ok(())
                }
                None => Err(format!("releases {key}, which has no entry")),
            },
        }
    }

    fn put(&mut self, entry: Entry) -> Result<(), String> {
        let own = self.entries.get(&entry.key).map(|held| held.addresses.clone()).unwrap_or_default();
        if let Some(address) =
            entry.addresses.iter().find(|address| self.taken.contains(address) && !own.contains(address))
        {
            return Err(format!("gives {address} to {}, but another entry has it", entry.key));
        }
        for address in &own {
            self.taken.remove(address);
        }
        for address in &entry.addresses {
            self.released.remove(address);
            self.taken.insert(*address);
        }
        self.entries.insert(entry.key.clone(), entry);
        Ok(())
    }

    fn free(&mut self, entry: &Entry, at: Option<u64>) {
        for address in &entry.addresses {
            self.taken.remove(address);
            self.released.extend(at.map(|at| (*address, at)));
        }
        if self.released.len() >= 2 * RELEASED_ENOUGH {
            self.forget_oldest_released();
        }
    }

    /// Many at once, as each takes a look at all.
    fn forget_oldest_released(&mut self) {
        let mut times: Vec<u64> = self.released.values().copied().collect();
        times.sort_unstable();
        let surplus = times.len().saturating_sub(RELEASED_ENOUGH);
        let oldest_kept = times.get(surplus).copied();
        self.released.retain(|_, at| oldest_kept.is_none_or(|oldest| *at >= oldest));
    }

    fn lines(&self, boot_id: &str) -> Vec<u8> {
        let mut out = encode(&Record::Header(Header {
            format: FORMAT,
            boot_id: boot_id.to_owned(),
            last: self.last.clone(),
            released: self.released.clone(),
        }));
        for entry in self.entries.values() {
            out.extend(encode(&Record::Keep(entry.clone())));
        }
        out
    }
}

/// The journal as far as it was read. Every method but [`Self::sync`] wants the store's lock held by the caller.
#[derive(Debug)]
pub(super) struct Journal<D: Disk> {
    disk: D,
    boot_id: String,
    ledger: Ledger,
    open: Option<Open<D::File>>,
    slack_lines: usize,
}

/// The file that was read last: it stays open, so that its inode number tells it from any later one.
#[derive(Debug)]
struct Open<File> {
    file: File,
    inode: u64,
    /// How many bytes were read or written.
    length: u64,
    lines: usize,
}

/// A journal that was read from its beginning.
struct Parsed {
    ledger: Ledger,
    lines: usize,
    of_this_boot: bool,
}

impl<D: Disk> Journal<D> {
    pub(super) fn new(disk: D, boot_id: String) -> Self {
        Self { disk, boot_id, ledger: Ledger::default(), open: None, slack_lines: SLACK_LINES }
    }

    pub(super) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Reads the journal without the store's lock, if it was not read yet, so that [`Self::refresh`] has only the rest to
    /// read under the lock: lines are only ever added to a file, so those that are whole stay what they are. Whatever else is found
    /// is left to that.
    pub(super) fn look_ahead(&mut self) {
        if self.open.is_some() {
            return;
        }
        let Ok(Some(mut file)) = self.disk.open(FILE_NAME) else { return };
        let (Ok((inode, _)), Ok(bytes)) = (self.disk.stat(&file), self.disk.read(&mut file, 0)) else {
            return;
        };
        if let Ok(Parsed { ledger, lines, of_this_boot: true }) = self.parse(&bytes) {
            self.ledger = ledger;
            self.open = Some(Open { file, inode, length: complete_len(&bytes), lines });
        }
    }

    /// Reads what was written since the last time, by whomever; makes the journal where there is none.
    pub(super) fn refresh(&mut self) -> Result<(), Error> {
        let Some(file) = self.disk.open(FILE_NAME).map_err(cannot("open the journal"))? else {
            self.ledger = Ledger::default();
            return self.rewrite();
        };
        let (inode, length) = self.disk.stat(&file).map_err(cannot("look at the journal"))?;
        let known = self.open.take().filter(|open| open.inode == inode && open.length <= length);
        let read = match known {
            Some(open) => self.read_on(open, length),
            None => self.read_all(file, inode),
        };
        if read.is_err() {
            // What was read before the error is not what the journal says.
            self.open = None;
        }
        read
    }

    fn read_all(&mut self, mut file: D::File, inode: u64) -> Result<(), Error> {
        let bytes = self.disk.read(&mut file, 0).map_err(cannot("read the journal"))?;
        let Parsed { ledger, lines, of_this_boot } = self.parse(&bytes)?;
        self.ledger = ledger;
        let open = Open { file, inode, length: complete_len(&bytes), lines };
        self.cut_tail(open, bytes.len())?;
        if of_this_boot { Ok(()) } else { self.rewrite() }
    }

    /// What a whole journal says.
    fn parse(&self, bytes: &[u8]) -> Result<Parsed, Error> {
        let mut lines = complete_lines(bytes);
        let header = match lines.next().map(decode) {
            Some(Ok(Record::Header(header))) => header,
            Some(Ok(_)) => return Err(damaged(1, "it is not a header".to_owned())),
            Some(Err(_)) if bytes.windows(OLD_HEADER.len()).any(|text| text == OLD_HEADER) => {
                return Err(Error::Format(OLD_FORMAT));
            }
            Some(Err(reason)) => return Err(damaged(1, reason)),
            None => return Err(damaged(1, "it is missing".to_owned())),
        };
        if header.format != FORMAT {
            return Err(Error::Format(header.format));
        }
        let of_this_boot = header.boot_id == self.boot_id;
        let mut ledger = Ledger { last: header.last, released: header.released, ..Ledger::default() };
        let mut count = 1usize;
        for line in lines {
            count = count.saturating_add(1);
            match decode(line).and_then(|record| ledger.apply(record)) {
                Err(reason) if of_this_boot => return Err(damaged(count, reason)),
                _ => {}
            }
        }
        if !of_this_boot {
            // No packet for a pod of the earlier boot is on its way any more, and its clock has ended.
            ledger.released.clear();
        }
        Ok(Parsed { ledger, lines: count, of_this_boot })
    }

    fn read_on(&mut self, mut open: Open<D::File>, length: u64) -> Result<(), Error> {
        if open.length == length {
            self.open = Some(open);
            return Ok(());
        }
        let bytes = self.disk.read(&mut open.file, open.length).map_err(cannot("read the journal"))?;
        for line in complete_lines(&bytes) {
            open.lines = open.lines.saturating_add(1);
            decode(line)
                .and_then(|record| self.ledger.apply(record))
                .map_err(|reason| damaged(open.lines, reason))?;
        }
        let start = open.length;
        open.length = start.saturating_add(complete_len(&bytes));
        let end = start.saturating_add(bytes.len() as u64);
        self.cut_tail(open, usize::try_from(end).unwrap_or(usize::MAX))
    }

    /// Takes off what a killed writer left behind the last newline.
    fn cut_tail(&mut self, mut open: Open<D::File>, end: usize) -> Result<(), Error> {
        if open.length < end as u64 {
            self.disk
                .truncate(&mut open.file, open.length)
                .map_err(cannot("cut an unfinished line off the journal"))?;
        }
        self.open = Some(open);
        Ok(())
    }

    /// Writes a record and takes it into the ledger. Needs [`Self::refresh`] under the same lock.
    pub(super) fn append(&mut self, record: Record) -> Result<(), Error> {
        let Some(mut open) = self.open.take() else {
            return Err(damaged(1, "the journal was not read".to_owned()));
        };
        let line = encode(&record);
        let written = self.disk.append(&mut open.file, &line);
        if written.is_ok() {
            open.length = open.length.saturating_add(line.len() as u64);
            open.lines = open.lines.saturating_add(1);
        }
        let lines = open.lines;
        // Where the write failed, what there is of the line has no newline: the next refresh cuts it off.
        self.open = Some(open);
        written.map_err(cannot("write to the journal"))?;
        self.ledger.apply(record).map_err(|reason| damaged(lines, reason))?;
        let limit = self.ledger.entries.len().saturating_add(self.slack_lines);
        if lines > limit {
            // The record is written already. A journal that cannot be made shorter now is tried again next time.
            let _ = self.rewrite();
        }
        Ok(())
    }

    /// Returns once every record written so far would survive a power cut.
    pub(super) fn sync(&self) -> Result<(), Error> {
        let Some(open) = &self.open else { return Ok(()) };
        self.disk.sync(&open.file).map_err(cannot("bring the journal to disk"))
    }

    /// Replaces the journal by one that says the same in one line per entry.
    fn rewrite(&mut self) -> Result<(), Error> {
        let action = "rewrite the journal";
        let mut file = self.disk.create(NEW_FILE_NAME).map_err(cannot(action))?;
        let bytes = self.ledger.lines(&self.boot_id);
        self.disk.append(&mut file, &bytes).map_err(cannot(action))?;
        self.disk.sync(&file).map_err(cannot(action))?;
        self.disk.rename(NEW_FILE_NAME, FILE_NAME).map_err(cannot(action))?;
        self.disk.sync_names().map_err(cannot(action))?;
        let (inode, length) = self.disk.stat(&file).map_err(cannot(action))?;
        let lines = self.ledger.entries.len().saturating_add(1);
        self.open = Some(Open { file, inode, length, lines });
        Ok(())
    }
}

fn damaged(line: usize, reason: String) -> Error {
    Error::Damaged { line, reason }
}

/// Length of `bytes` up to and with the last newline.
fn complete_len(bytes: &[u8]) -> u64 {
    bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |index| index as u64 + 1)
}

fn complete_lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split_inclusive(|byte| *byte == b'\n').filter_map(|line| line.strip_suffix(b"\n"))
}

#[cfg(test)]
mod tests;
