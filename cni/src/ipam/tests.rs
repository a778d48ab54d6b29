use super::*;

const END: HostEnd = HostEnd { index: 9, peer_namespace: None };

fn key(container_id: &str) -> Key {
    Key { network: "weft".into(), container_id: container_id.into(), ifname: "eth0".into() }
}

fn add(store: &mut Store, container_id: &str, families: &[FamilyRequest]) -> Result<Entry, Error> {
    let mut hold = store.hold(key(container_id))?;
    let entry = hold.reserve(&Request {
        families,
        excluded: &BTreeSet::new(),
        reserved: &[],
        host_link: &format!("weft-{container_id}"),
        mac: [2, 0, 0, 0, 0, 1],
        netns: "/run/netns/x",
        pod: None,
    })?;
    hold.commit(END)?;
    Ok(entry)
}

fn family(cidr: &str) -> FamilyRequest {
    FamilyRequest {
        blocks: vec![Block { cidr: cidr.parse().unwrap(), cooldown: Duration::ZERO }],
        address: None,
    }
}

fn dual_stack() -> Vec<FamilyRequest> {
    vec![family("10.244.1.0/26"), family("fd00::/122")]
}

#[test]
fn addresses_are_given_taken_back_and_not_used_again_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path(), "boot").unwrap();
    let first = add(&mut store, "a", &dual_stack()).unwrap();
    assert_eq!(first.addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>(), ["10.244.1.0", "fd00::"]);
    let released = store.hold(key("a")).unwrap().release().unwrap().unwrap();
    assert_eq!(released, Entry { state: State::Committed(END), ..first });
    assert_eq!(store.hold(key("a")).unwrap().release().unwrap(), None);
    let second = add(&mut store, "b", &dual_stack()).unwrap();
    assert_eq!(second.addresses[0].to_string(), "10.244.1.1");
    assert_eq!(store.entries().unwrap(), [Entry { state: State::Committed(END), ..second }]);
}

#[test]
fn a_family_that_is_full_takes_nothing_of_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path(), "boot").unwrap();
    let families = [family("10.0.0.0/30"), family("fd00::/127")];
    add(&mut store, "a", &families).unwrap();
    add(&mut store, "b", &families).unwrap();
    let error = add(&mut store, "c", &families).unwrap_err();
    assert_eq!(error.to_string(), "no IPv6 address is free: fd00::/127 (2 of 2 addresses taken)");
    let used = store.usage(&families[0].blocks).unwrap();
    assert_eq!(used, [BlockUsage { block: families[0].blocks[0].cidr, taken: 2, resting: 0, size: 4 }]);
}

#[test]
fn excluded_addresses_are_not_given() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path(), "boot").unwrap();
    let request = Request {
        families: &[family("10.0.0.0/31")],
        excluded: &BTreeSet::from(["10.0.0.0".parse().unwrap()]),
        reserved: &[],
        host_link: "weft1",
        mac: [2, 0, 0, 0, 0, 1],
        netns: "/run/netns/x",
        pod: None,
    };
    let entry = store.hold(key("a")).unwrap().reserve(&request).unwrap();
    assert_eq!(entry.addresses, ["10.0.0.1".parse::<IpAddr>().unwrap()]);
}

#[test]
fn a_reservation_left_behind_is_taken_over_with_its_addresses() {
    let dir = tempfile::tempdir().unwrap();
    let families = dual_stack();
    let mut store = Store::open(dir.path(), "boot").unwrap();
    let first = add(&mut store, "a", &families).unwrap();
    add(&mut store, "b", &families).unwrap();
    let mut later = Store::open(dir.path(), "next boot").unwrap();
    let second = add(&mut later, "a", &families).unwrap();
    assert_eq!(second.addresses, first.addresses);
    assert_eq!(second.boot_id, "next boot");
    let kept = later.hold(key("b")).unwrap().entry().unwrap().unwrap();
    assert_eq!(kept.boot_id, "boot", "entries of an earlier boot keep their addresses");
}

#[test]
fn an_address_asked_for_is_given_unless_another_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path(), "boot").unwrap();
    let mut families = dual_stack();
    families[0].address = Some("10.244.1.9".parse().unwrap());
    let entry = add(&mut store, "a", &families).unwrap();
    assert_eq!(entry.addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>(), ["10.244.1.9", "fd00::"]);
    let error = add(&mut store, "b", &families).unwrap_err().to_string();
    assert_eq!(error, "10.244.1.9 is the address of interface eth0 of container a in network weft");
    assert_eq!(store.entries().unwrap().len(), 1);
    // Its own again, and another of its own.
    assert_eq!(add(&mut store, "a", &families).unwrap().addresses, entry.addresses);
    families[0].address = Some("10.244.1.10".parse().unwrap());
    assert_eq!(add(&mut store, "a", &families).unwrap().addresses[0].to_string(), "10.244.1.10");
    families[0].address = Some("10.244.1.9".parse().unwrap());
    add(&mut store, "b", &families).unwrap();
}

/// What [`choose`] gives of a /30 `now`, where the ledger is that of `store`.
fn next_of(store: &mut Store, cooldown: u64, reserved: &[&str], now: u64) -> Result<String, String> {
    let mut families = [family("10.0.0.0/30")];
    families[0].blocks[0].cooldown = Duration::from_secs(cooldown);
    let reserved: Vec<IpNet> = reserved.iter().map(|net| net.parse().unwrap()).collect();
    store.journal.refresh().unwrap();
    let request = Request {
        families: &families,
        excluded: &BTreeSet::new(),
        reserved: &reserved,
        host_link: "weft9",
        mac: [2, 0, 0, 0, 0, 9],
        netns: "/run/netns/x",
        pod: None,
    };
    let chosen = choose(store.journal.ledger(), &key("z"), &request, Duration::from_secs(now));
    chosen.map(|addresses| addresses[0].to_string()).map_err(|error| error.to_string())
}

#[test]
fn a_released_address_rests_and_a_reserved_one_is_not_given() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path(), "boot").unwrap();
    for (name, last) in [("a", 0), ("b", 1), ("c", 2)] {
        let mut families = [family("10.0.0.0/30")];
        families[0].address = Some(IpAddr::from([10, 0, 0, last]));
        add(&mut store, name, &families).unwrap();
    }
    store
        .transaction(|journal| {
            for (name, at) in [("a", 100_000), ("b", 110_000)] {
                journal.append(Record::Release { key: key(name), at: Some(at) }).map_err(Failure::Journal)?;
            }
            Ok(())
        })
        .unwrap();
    assert_eq!(next_of(&mut store, 30, &[], 115).unwrap(), "10.0.0.3");
    let full = ["10.0.0.3/32"];
    assert_eq!(next_of(&mut store, 0, &full, 115).unwrap(), "10.0.0.0");
    assert_eq!(
        next_of(&mut store, 30, &full, 115).unwrap_err(),
        "no IPv4 address is free: 10.0.0.0/30 (1 of 4 addresses taken); the next one rests for 16 s more"
    );
    assert_eq!(next_of(&mut store, 30, &full, 130).unwrap(), "10.0.0.0");
    assert_eq!(next_of(&mut store, 30, &["10.0.0.3/32", "10.0.0.0/32"], 140).unwrap(), "10.0.0.1");
    assert_eq!(
        next_of(&mut store, 30, &["10.0.0.0/30"], 140).unwrap_err(),
        "no IPv4 address is free: 10.0.0.0/30 (1 of 4 addresses taken)"
    );
    let resting = |store: &Store, cooldown, now| {
        let block = Block { cidr: "10.0.0.0/30".parse().unwrap(), cooldown: Duration::from_secs(cooldown) };
        usage(&[block], store.journal.ledger(), Duration::from_secs(now))[0].resting
    };
    assert_eq!([(30, 115), (30, 130), (30, 140), (0, 115)].map(|(c, n)| resting(&store, c, n)), [2, 1, 0, 0]);
    // In another boot nothing rests.
    let mut later = Store::open(dir.path(), "next boot").unwrap();
    assert_eq!(next_of(&mut later, 30, &full, 1).unwrap(), "10.0.0.0");
}

#[test]
fn one_link_name_has_one_holder() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path(), "boot").unwrap();
    let none = BTreeSet::new();
    let families = dual_stack();
    let request = Request {
        families: &families,
        excluded: &none,
        reserved: &[],
        host_link: "weft1",
        mac: [2, 0, 0, 0, 0, 1],
        netns: "/run/netns/x",
        pod: None,
    };
    store.hold(key("a")).unwrap().reserve(&request).unwrap();
    let error = store.hold(key("b")).unwrap().reserve(&request).unwrap_err();
    assert!(matches!(error, Error::LinkNameTaken { .. }), "{error}");
}

#[test]
fn committing_what_is_not_reserved_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path(), "boot").unwrap();
    let error = store.hold(key("a")).unwrap().commit(END).unwrap_err();
    assert!(matches!(error, Error::NotReserved(_)), "{error}");
}

#[test]
fn damage_names_the_file_and_the_line() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path(), "boot").unwrap();
    add(&mut store, "a", &dual_stack()).unwrap();
    let text = std::fs::read_to_string(store.path()).unwrap().replace("10.244.1.0", "10.244.1.1");
    std::fs::write(store.path(), text).unwrap();
    let error = Store::open(dir.path(), "boot").unwrap().entries().unwrap_err().to_string();
    assert!(error.contains(FILE_NAME) && error.contains("damaged at line 2"), "{error}");
}

#[test]
fn a_key_has_one_holder_and_others_are_free() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path(), "boot").unwrap();
    let lock_path = store.lock.clone();
    let hold = store.hold(key("a")).unwrap();
    let file = std::fs::File::options().write(true).open(lock_path).unwrap();
    assert!(!lock::try_lock(&file, Subject::of_key(&key("a"))).unwrap());
    assert!(lock::try_lock(&file, Subject::of_key(&key("b"))).unwrap());
    assert!(lock::try_lock(&file, Subject::STORE).unwrap(), "the store is not held between transactions");
    drop(hold);
    assert!(lock::try_lock(&file, Subject::of_key(&key("a"))).unwrap());
}

#[test]
fn concurrent_users_share_out_every_address_once() {
    const THREADS: usize = 8;
    let dir = tempfile::tempdir().unwrap();
    let families = dual_stack();
    let given: Vec<IpAddr> = std::thread::scope(|scope| {
        let user = |thread: usize| {
            let (dir, families) = (dir.path(), &families);
            scope.spawn(move || {
                let mut store = Store::open(dir, "boot").unwrap();
                let mut given = Vec::new();
                for round in 0..64 / THREADS {
                    let name = format!("t{thread}r{round}");
                    // Once in vain, so that releases are among it.
                    add(&mut store, &name, families).unwrap();
                    store.hold(key(&name)).unwrap().release().unwrap();
                    given.extend(add(&mut store, &name, families).unwrap().addresses);
                }
                given
            })
        };
        let threads: Vec<_> = (0..THREADS).map(user).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let distinct: BTreeSet<IpAddr> = given.iter().copied().collect();
    assert_eq!((given.len(), distinct.len()), (128, 128));
    let mut store = Store::open(dir.path(), "boot").unwrap();
    let error = add(&mut store, "one-more", &families).unwrap_err();
    assert!(error.to_string().contains("10.244.1.0/26 (64 of 64 addresses taken)"), "{error}");
}
