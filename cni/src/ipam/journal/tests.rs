use std::cell::RefCell;
use std::rc::Rc;

use proptest::prelude::*;

use super::super::{Block, FamilyRequest, Request, choose};
use super::*;

const BLOCK_SIZE: usize = 8;

/// One file: what programs read, and what would be left after a power cut.
#[derive(Default, Clone)]
struct Inode {
    cached: Vec<u8>,
    durable: Vec<u8>,
}

/// A disk in memory that dies before its `budget`-th change, which may be done in part.
#[derive(Default)]
struct Platter {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    changes: usize,
    budget: Option<usize>,
    random: u64,
}

#[derive(Clone, Default)]
struct Memory(Rc<RefCell<Platter>>);

impl Platter {
    fn random(&mut self, below: usize) -> usize {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.random >> 33).unwrap() % below.max(1)
    }

    fn change(&mut self) -> io::Result<()> {
        self.changes += 1;
        match self.budget {
            Some(budget) if self.changes > budget => Err(io::Error::other("killed")),
            _ => Ok(()),
        }
    }

    /// What was not synced may be there, or a part of it, or garbage instead; a rename may be undone.
    fn cut_power(&mut self) {
        for index in 0..self.inodes.len() {
            let Inode { cached, durable } = self.inodes[index].clone();
            let (least, most) = (durable.len().min(cached.len()), durable.len().max(cached.len()));
            let mut left = if cached.len() >= durable.len() { cached } else { durable };
            let length = least + self.random(most - least + 1);
            left.truncate(length);
            if length > least && self.random(2) == 0 {
                let hole = least + self.random(length - least);
                let end = hole + self.random(length - hole + 1);
                left[hole..end].fill(0);
            }
            self.inodes[index] = Inode { cached: left.clone(), durable: left };
        }
        if self.random(2) == 0 {
            self.durable_names = self.names.clone();
        }
        self.names = self.durable_names.clone();
    }
}

impl Disk for Memory {
    type File = usize;

    fn open(&self, name: &str) -> io::Result<Option<usize>> {
        Ok(self.0.borrow().names.get(name).copied())
    }

    fn create(&self, name: &str) -> io::Result<usize> {
        let mut platter = self.0.borrow_mut();
        platter.change()?;
        platter.inodes.push(Inode::default());
        let inode = platter.inodes.len() - 1;
        platter.names.insert(name.to_owned(), inode);
        Ok(inode)
    }

    fn stat(&self, file: &usize) -> io::Result<(u64, u64)> {
        Ok((*file as u64, self.0.borrow().inodes[*file].cached.len() as u64))
    }

    fn read(&self, file: &mut usize, offset: u64) -> io::Result<Vec<u8>> {
        Ok(self.0.borrow().inodes[*file].cached[usize::try_from(offset).unwrap()..].to_vec())
    }

    fn append(&self, file: &mut usize, bytes: &[u8]) -> io::Result<()> {
        let mut platter = self.0.borrow_mut();
        let done = platter.change();
        let length = match platter.budget {
            Some(budget) if platter.changes > budget + 1 => 0,
            Some(budget) if platter.changes > budget => platter.random(bytes.len()),
            _ => bytes.len(),
        };
        platter.inodes[*file].cached.extend(&bytes[..length]);
        done
    }

    fn truncate(&self, file: &mut usize, length: u64) -> io::Result<()> {
        let mut platter = self.0.borrow_mut();
        platter.change()?;
        platter.inodes[*file].cached.truncate(usize::try_from(length).unwrap());
        Ok(())
    }

    fn sync(&self, file: &usize) -> io::Result<()> {
        let mut platter = self.0.borrow_mut();
        platter.change()?;
        platter.inodes[*file].durable = platter.inodes[*file].cached.clone();
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut platter = self.0.borrow_mut();
        platter.change()?;
        let inode = platter.names.remove(from).unwrap();
        platter.names.insert(to.to_owned(), inode);
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut platter = self.0.borrow_mut();
        platter.change()?;
        platter.durable_names = platter.names.clone();
        Ok(())
    }
}

fn journal(disk: &Memory, boot_id: &str) -> Journal<Memory> {
    let mut journal = Journal::new(disk.clone(), boot_id.to_owned());
    // Few enough for the short runs below to rewrite the journal too.
    journal.slack_lines = 4;
    journal
}

fn key(number: usize) -> Key {
    Key { network: "n".into(), container_id: format!("c{number}"), ifname: "eth0".into() }
}

fn families() -> Vec<FamilyRequest> {
    let family = |cidr: &str| FamilyRequest {
        blocks: vec![Block { cidr: cidr.parse().unwrap(), cooldown: Duration::ZERO }],
        address: None,
    };
    vec![family("10.0.0.8/29"), family("fd00::8/125")]
}

fn reserve(journal: &mut Journal<Memory>, key: &Key) -> Result<bool, Error> {
    journal.refresh()?;
    let (families, excluded) = (families(), BTreeSet::new());
    let host_link = format!("weft{}", key.container_id);
    let request = Request {
        families: &families,
        excluded: &excluded,
        reserved: &[],
        host_link: &host_link,
        mac: [2, 0, 0, 0, 0, 1],
        netns: "/run/netns/x",
        pod: None,
    };
    let Ok(addresses) = choose(journal.ledger(), key, &request, Duration::MAX) else { return Ok(false) };
    let entry = Entry {
        key: key.clone(),
        state: State::Reserved,
        addresses,
        host_link: host_link.clone(),
        mac: request.mac,
        netns: request.netns.to_owned(),
        pod: None,
        boot_id: journal.boot_id.clone(),
        since: None,
    };
    journal.append(Record::Reserve(entry)).map(|()| true)
}

fn commit(journal: &mut Journal<Memory>, key: &Key) -> Result<(), Error> {
    journal.refresh()?;
    journal
        .append(Record::Commit { key: key.clone(), host_end: HostEnd { index: 9, peer_namespace: None } })?;
    journal.sync()
}

fn release(journal: &mut Journal<Memory>, key: &Key) -> Result<(), Error> {
    journal.refresh()?;
    if journal.ledger().entries().contains_key(key) {
        journal.append(Record::Release { key: key.clone(), at: Some(5) })?;
    }
    Ok(())
}

/// What the plugin does to the store in one command.
#[derive(Debug, Clone, Copy)]
enum Operation {
    Add(usize),
    FailedAdd(usize),
    Del(usize),
}

/// What callers were told: the entries that must be there, and the one key that was being changed when it ended.
#[derive(Default)]
struct Told {
    entries: BTreeMap<Key, Entry>,
    doubtful: Option<Key>,
}

/// Runs the operations, each with a fresh look at the disk as a process of its own has, until the disk dies.
fn run(disk: &Memory, operations: &[Operation]) -> Told {
    let mut told = Told::default();
    for operation in operations {
        let mut journal = journal(disk, "first");
        let (key, outcome) = match *operation {
            Operation::Add(number) => {
                let key = key(number);
                let outcome = reserve(&mut journal, &key)
                    .and_then(|reserved| if reserved { commit(&mut journal, &key) } else { Ok(()) });
                (key, outcome)
            }
            Operation::FailedAdd(number) => {
                let key = key(number);
                let outcome = reserve(&mut journal, &key).and_then(|_| release(&mut journal, &key));
                (key, outcome)
            }
            Operation::Del(number) => (key(number), release(&mut journal, &key(number))),
        };
        if outcome.is_err() {
            told.doubtful = Some(key);
            return told;
        }
        told.entries = journal.ledger().entries().clone();
    }
    told
}

/// No address twice, and none lost: what no entry has can be given out.
fn assert_whole(disk: &Memory, boot_id: &str) {
    let mut journal = journal(disk, boot_id);
    journal.refresh().unwrap();
    let held: Vec<IpAddr> =
        journal.ledger().entries().values().flat_map(|entry| entry.addresses.clone()).collect();
    let distinct: BTreeSet<IpAddr> = held.iter().copied().collect();
    assert_eq!(held.len(), distinct.len(), "an address was given twice");
    assert_eq!(&distinct, journal.ledger().taken());
    let entries = journal.ledger().entries().len();
    for number in 0..BLOCK_SIZE - entries {
        assert!(reserve(&mut journal, &key(100 + number)).unwrap(), "an address was lost");
    }
    assert!(!reserve(&mut journal, &key(200)).unwrap(), "the block has more addresses than it has");
    let keys: Vec<Key> = journal.ledger().entries().keys().cloned().collect();
    for key in keys {
        release(&mut journal, &key).unwrap();
    }
    assert!(journal.ledger().taken().is_empty());
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let operation = (0..4usize, 0..4usize).prop_map(|(kind, number)| match kind {
        0 | 1 => Operation::Add(number),
        2 => Operation::FailedAdd(number),
        _ => Operation::Del(number),
    });
    prop::collection::vec(operation, 1..14)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_kill_at_any_change_loses_nothing(operations in operations(), seed: u64) {
        let whole = Memory::default();
        run(&whole, &operations);
        let changes = whole.0.borrow().changes;
        for budget in 0..changes {
            let disk = Memory::default();
            disk.0.borrow_mut().budget = Some(budget);
            disk.0.borrow_mut().random = seed.wrapping_add(budget as u64);
            let told = run(&disk, &operations);
            disk.0.borrow_mut().budget = None;

            let mut next = journal(&disk, "first");
            next.refresh().unwrap();
            let mut found = next.ledger().entries().clone();
            let mut expected = told.entries;
            if let Some(key) = told.doubtful {
                found.remove(&key);
                expected.remove(&key);
            }
            prop_assert_eq!(found, expected);
            assert_whole(&disk, "first");
        }
    }

    #[test]
    fn a_power_cut_at_any_change_loses_nothing_for_good(operations in operations(), seed: u64) {
        let whole = Memory::default();
        run(&whole, &operations);
        let changes = whole.0.borrow().changes;
        for budget in 0..=changes {
            let disk = Memory::default();
            disk.0.borrow_mut().budget = Some(budget);
            disk.0.borrow_mut().random = seed.wrapping_add(budget as u64);
            let told = run(&disk, &operations);
            disk.0.borrow_mut().budget = None;
            disk.0.borrow_mut().cut_power();

            let mut next = journal(&disk, "second");
            next.refresh().unwrap();
            // Each commit was synced, and nothing follows the last one but releases and what never answered.
            if let (Some(Operation::Add(number)), None) = (operations.last(), &told.doubtful)
                && let Some(entry) = told.entries.get(&key(*number))
            {
                prop_assert_eq!(next.ledger().entries().get(&key(*number)), Some(entry));
            }
            assert_whole(&disk, "second");
        }
    }

    /// A long-lived reader sees what a fresh one sees.
    #[test]
    fn reading_on_is_reading_all(operations in operations()) {
        let disk = Memory::default();
        let mut reader = journal(&disk, "first");
        for index in 0..operations.len() {
            run(&disk, &operations[index..=index]);
            reader.refresh().unwrap();
            let mut fresh = journal(&disk, "first");
            fresh.refresh().unwrap();
            prop_assert_eq!(reader.ledger(), fresh.ledger());
        }
    }
}

fn sample() -> Memory {
    let disk = Memory::default();
    run(&disk, &[Operation::Add(0), Operation::Add(1), Operation::Del(0), Operation::Add(2)]);
    disk
}

fn bytes(disk: &Memory) -> Vec<u8> {
    let platter = disk.0.borrow();
    platter.inodes[platter.names[FILE_NAME]].cached.clone()
}

fn with_bytes(bytes: Vec<u8>) -> Memory {
    let disk = Memory::default();
    disk.0.borrow_mut().inodes.push(Inode { cached: bytes.clone(), durable: bytes });
    disk.0.borrow_mut().names.insert(FILE_NAME.to_owned(), 0);
    disk
}

#[test]
fn a_journal_cut_at_any_byte_is_the_journal_up_to_the_last_whole_line() {
    let whole = bytes(&sample());
    let header = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    for length in header..whole.len() {
        let disk = with_bytes(whole[..length].to_vec());
        let mut cut = journal(&disk, "first");
        cut.refresh().unwrap();
        let end = usize::try_from(complete_len(&whole[..length])).unwrap();
        assert_eq!(bytes(&disk), whole[..end], "the unfinished line is cut off");
        assert_whole(&disk, "first");
    }
    for length in 0..header {
        let mut cut = journal(&with_bytes(whole[..length].to_vec()), "first");
        assert!(matches!(cut.refresh(), Err(Error::Damaged { line: 1, .. })), "{length} bytes");
    }
}

#[test]
fn any_changed_byte_is_noticed_in_the_boot_that_wrote_it_and_passed_over_in_the_next() {
    let whole = bytes(&sample());
    let header = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let last_line = usize::try_from(complete_len(&whole[..whole.len() - 1])).unwrap();
    for index in 0..last_line {
        let mut changed = whole.clone();
        changed[index] ^= 0x01;
        let error = journal(&with_bytes(changed.clone()), "first").refresh().unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "byte {index}: {error}");
        if index >= header {
            assert_whole(&with_bytes(changed), "second");
        }
    }
}

#[test]
fn another_format_is_named() {
    let header = Header { format: 9, boot_id: "first".into(), last: Vec::new(), released: BTreeMap::new() };
    let error = journal(&with_bytes(encode(&Record::Header(header))), "first").refresh().unwrap_err();
    assert_eq!(error.to_string(), "format 9, this release reads 2");
}

#[test]
fn a_full_disk_fails_the_write_and_harms_nothing() {
    let disk = sample();
    let mut journal = journal(&disk, "first");
    journal.refresh().unwrap();
    let before = journal.ledger().clone();
    disk.0.borrow_mut().changes = 0;
    disk.0.borrow_mut().budget = Some(0);
    reserve(&mut journal, &key(7)).unwrap_err();
    disk.0.borrow_mut().budget = None;
    journal.refresh().unwrap();
    assert_eq!(*journal.ledger(), before);
    assert_whole(&disk, "first");
}

#[test]
fn the_address_given_out_last_is_remembered_over_a_rewrite() {
    let disk = sample();
    let mut first = journal(&disk, "first");
    first.refresh().unwrap();
    let last = first.ledger().last(true);
    let mut second = journal(&disk, "second");
    second.refresh().unwrap();
    assert_eq!(last, Some("10.0.0.10".parse().unwrap()));
    assert_eq!(second.ledger().last(true), last);
}

#[test]
fn a_release_is_remembered_over_a_rewrite_and_not_over_a_boot() {
    let disk = Memory::default();
    run(&disk, &[Operation::Add(0), Operation::Add(1), Operation::Del(0)]);
    let address = "10.0.0.8".parse().unwrap();
    let released = |boot_id| {
        let mut journal = journal(&disk, boot_id);
        journal.refresh().unwrap();
        journal.ledger().released(address)
    };
    let inodes = || disk.0.borrow().inodes.len();
    let before = inodes();
    run(&disk, &[Operation::Add(1), Operation::Del(1)].repeat(8));
    assert!(inodes() > before, "it was rewritten");
    let known = released("first");
    assert!(known == Some(Duration::from_millis(5)) || known.is_none(), "{known:?}");
    run(&disk, &[Operation::Del(1)]);
    assert_eq!(released("second"), None);
}

#[test]
fn what_is_known_of_releases_is_bounded() {
    let mut ledger = Ledger::default();
    for number in 0..2 * RELEASED_ENOUGH {
        let number = u16::try_from(number).unwrap();
        let address = IpAddr::from([10, 0, number.to_be_bytes()[0], number.to_be_bytes()[1]]);
        let entry = Entry {
            key: key(0),
            state: State::Reserved,
            addresses: vec![address],
            host_link: "weft0".into(),
            mac: [2, 0, 0, 0, 0, 1],
            netns: "/run/netns/x".into(),
            pod: None,
            boot_id: "first".into(),
            since: None,
        };
        ledger.apply(Record::Reserve(entry)).unwrap();
        ledger.apply(Record::Release { key: key(0), at: Some(number.into()) }).unwrap();
    }
    assert_eq!(ledger.all_released().count(), RELEASED_ENOUGH);
    assert_eq!(ledger.released([10, 0, 0, 0].into()), None, "the oldest are forgotten");
    assert!(ledger.released([10, 0, 1, 255].into()).is_some());
}

#[test]
fn the_journal_stays_short() {
    let disk = Memory::default();
    for _ in 0..200 {
        run(&disk, &[Operation::Add(1), Operation::Del(1)]);
    }
    let lines = complete_lines(&bytes(&disk)).count();
    assert!(lines < 16, "{lines} lines for no entry");
}

#[test]
fn a_reader_notices_a_journal_in_the_place_of_the_one_it_knows() {
    let disk = Memory::default();
    let mut reader = journal(&disk, "first");
    reader.refresh().unwrap();
    let known = bytes(&disk).len();
    let churn = [Operation::Del(3), Operation::Add(3)].repeat(4);
    run(&disk, &[0, 1, 2, 3].map(Operation::Add));
    run(&disk, &churn);
    assert!(
        disk.0.borrow().inodes.len() > 1 && bytes(&disk).len() > known,
        "it was rewritten, and is longer"
    );
    reader.refresh().unwrap();
    assert_eq!(reader.ledger().entries().len(), 4);
}

#[test]
fn damage_done_in_the_new_boot_is_noticed_in_it() {
    let disk = sample();
    journal(&disk, "second").refresh().unwrap();
    let mut changed = bytes(&disk);
    let index = changed.len() - 2;
    changed[index] ^= 0x01;
    let error = journal(&with_bytes(changed), "second").refresh().unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
}

#[test]
fn what_was_looked_at_ahead_is_read_on_from_under_the_lock() {
    let disk = sample();
    let mut ahead = journal(&disk, "first");
    ahead.look_ahead();
    assert!(ahead.ledger().entries().contains_key(&key(1)));
    // Another process writes, and a writer was killed in the middle of a line.
    run(&disk, &[Operation::Del(1), Operation::Add(3)]);
    disk.append(&mut 0, b"0123").unwrap();
    ahead.refresh().unwrap();
    let mut fresh = journal(&disk, "first");
    fresh.refresh().unwrap();
    assert_eq!(ahead.ledger(), fresh.ledger());
    assert!(
        ahead.ledger().entries().contains_key(&key(3)) && !ahead.ledger().entries().contains_key(&key(1))
    );
}

#[test]
fn what_cannot_be_looked_at_ahead_is_left_to_the_lock() {
    let mut none = journal(&Memory::default(), "first");
    none.look_ahead();
    none.refresh().unwrap();
    // Replaced in between.
    let disk = sample();
    let mut ahead = journal(&disk, "first");
    ahead.look_ahead();
    let mut second = journal(&disk, "second");
    second.look_ahead();
    assert!(second.open.is_none(), "a journal of an earlier boot is made anew under the lock");
    second.refresh().unwrap();
    let mut text = bytes(&disk);
    text[30] ^= 1;
    let mut damaged = journal(&with_bytes(text), "second");
    damaged.look_ahead();
    assert!(damaged.open.is_none());
    damaged.refresh().unwrap_err();
}
