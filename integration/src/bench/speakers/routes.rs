//! Tables of routes as the octets of UPDATEs, made once before anything is measured.

use std::fmt;
use std::net::Ipv4Addr;

/// SplitMix64 (Steele, Lea, Flood, 2014): the same tables in every run.
#[derive(Debug)]
pub struct Rng(pub u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// 32 bits of it.
    fn number(&mut self) -> u32 {
        (self.next() >> 32) as u32
    }

    fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }
}

/// An IPv4 prefix of 16 to 24, or of 26 bits inside 10.0.0.0/10.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    /// Its address.
    pub address: u32,
    /// How many bits of it count.
    pub length: u8,
}

impl Prefix {
    /// One more than the largest [`Self::place`].
    pub const PLACES: usize = (2 << 24) + (1 << 17);

    /// A number of its own for each prefix that a table may have; none: it is none of them.
    #[must_use]
    pub fn place(self) -> Option<usize> {
        match self.length {
            16..=24 => Some(1 << self.length | (self.address >> (32 - u32::from(self.length))) as usize),
            26 => Some((2 << 24) + ((self.address >> 6) & 0x1_ffff) as usize),
            _ => None,
        }
    }

    /// Appends it as it is told (RFC 4271 section 4.3).
    fn push_to(self, nlri: &mut Vec<u8>) {
        nlri.push(self.length);
        nlri.extend(self.address.to_be_bytes().iter().take(usize::from(self.length).div_ceil(8)));
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.address), self.length)
    }
}

/// Path attributes that some of a peer's prefixes share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// AS_PATH: one sequence.
    pub as_path: Vec<u32>,
    /// NEXT_HOP.
    pub next_hop: u32,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// LOCAL_PREF.
    pub local_pref: Option<u32>,
    /// COMMUNITIES, in order.
    pub communities: Vec<u32>,
    /// ORIGINATOR_ID.
    pub originator: Option<u32>,
    /// CLUSTER_LIST.
    pub clusters: Vec<u32>,
    /// LARGE_COMMUNITY, in order.
    pub large_communities: Vec<[u32; 3]>,
}

impl Attributes {
    /// As the Internet's are: a path of 2 to 6 ASes, communities on 70 of 100, a MED on 20, large communities on 15. `origin` makes it
    /// another than all others.
    #[must_use]
    pub fn internet(rng: &mut Rng, first: u32, next_hop: Ipv4Addr, origin: u32) -> Self {
        let mut as_path = vec![first];
        as_path.extend((0..rng.below(5)).map(|_| 1 + rng.number() % 60_000).collect::<Vec<_>>());
        as_path.push(origin);
        let mut attributes = Self { as_path, next_hop: next_hop.into(), ..Self::default() };
        attributes.med = rng.percent(20).then(|| rng.number() % 1000);
        if rng.percent(70) {
            attributes.communities = (0..=rng.below(8)).map(|_| rng.number() & 0x7fff_ffff).collect();
            attributes.communities.sort_unstable();
            attributes.communities.dedup();
        }
        if rng.percent(15) {
            let large = (0..=rng.below(3)).map(|_| [first, rng.number(), rng.number()]);
            attributes.large_communities = large.collect();
            attributes.large_communities.sort_unstable();
        }
        attributes
    }

    /// As a speaker of AS `asn` passes them on to an external peer, the next hop unchanged (RFC 4271 section 5.1).
    #[must_use]
    pub fn passed_on(&self, asn: u32) -> Self {
        let as_path = std::iter::once(asn).chain(self.as_path.iter().copied()).collect();
        Self { as_path, med: None, ..self.clone() }
    }

    /// As a reflector of this cluster tells its clients of one that has this BGP identifier (RFC 4456 section 8).
    #[must_use]
    pub fn reflected(&self, originator: Ipv4Addr, cluster: Ipv4Addr) -> Self {
        Self { originator: Some(originator.into()), clusters: vec![cluster.into()], ..self.clone() }
    }

    /// Their octets, in the order of their codes (RFC 4271 appendix F.3).
    #[must_use]
    pub fn octets(&self) -> Vec<u8> {
        let mut octets = Vec::new();
        push(&mut octets, 0x40, 1, &[0]);
        let mut path = Vec::new();
        if let Ok(length @ 1..) = u8::try_from(self.as_path.len()) {
            path.extend([2, length]);
            path.extend(words(&self.as_path));
        }
        push(&mut octets, 0x40, 2, &path);
        push(&mut octets, 0x40, 3, &words(&[self.next_hop]));
        let mut optional = |flags, code, value: &[u32]| {
            if !value.is_empty() {
                push(&mut octets, flags, code, &words(value));
            }
        };
        optional(0x80, 4, self.med.as_slice());
        optional(0x40, 5, self.local_pref.as_slice());
        optional(0xc0, 8, &self.communities);
        optional(0x80, 9, self.originator.as_slice());
        optional(0x80, 10, &self.clusters);
        optional(0xc0, 32, self.large_communities.as_flattened());
        octets
    }
}

/// One path attribute, with an extended length only where it needs one.
fn push(octets: &mut Vec<u8>, flags: u8, code: u8, value: &[u8]) {
    match u8::try_from(value.len()) {
        Ok(length) => octets.extend([flags, code, length]),
        Err(_) => {
            octets.extend([flags | 0x10, code]);
            octets.extend(sixteen_bits(value.len()));
        }
    }
    octets.extend(value);
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

/// Lengths in messages are below 64 KiB.
fn sixteen_bits(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes()
}

/// A table of one peer.
#[derive(Debug, Default)]
pub struct Table {
    /// UPDATEs, one after the other.
    pub updates: Vec<u8>,
    /// Path attributes, and the prefixes that have them.
    pub sets: Vec<(Attributes, Vec<Prefix>)>,
}

/// The longest message (RFC 4271 section 4.1).
const MESSAGE_MAX: usize = 4096;

impl Table {
    /// Appends UPDATEs that announce prefixes with these path attributes.
    pub fn announce(&mut self, attributes: Attributes, prefixes: Vec<Prefix>) {
        announce(&attributes, &prefixes, &mut self.updates);
        self.sets.push((attributes, prefixes));
    }

    /// How many prefixes it has.
    #[must_use]
    pub fn prefixes(&self) -> usize {
        self.sets.iter().map(|(_, prefixes)| prefixes.len()).sum()
    }
}

/// Appends UPDATEs that announce these prefixes with these path attributes.
pub fn announce(attributes: &Attributes, prefixes: &[Prefix], updates: &mut Vec<u8>) {
    let octets = attributes.octets();
    for nlri in pieces(prefixes, octets.len()) {
        push_update(&[], &octets, &nlri, updates);
    }
}

/// Appends UPDATEs that withdraw these prefixes.
pub fn withdraw(prefixes: &[Prefix], updates: &mut Vec<u8>) {
    for withdrawn in pieces(prefixes, 0) {
        push_update(&withdrawn, &[], &[], updates);
    }
}

/// The octets of prefixes in as few parts as go into messages that have `more` octets besides.
fn pieces(prefixes: &[Prefix], more: usize) -> impl Iterator<Item = Vec<u8>> + '_ {
    let room = MESSAGE_MAX.saturating_sub(19 + 2 + 2 + more + 5);
    let mut rest = prefixes.iter().peekable();
    std::iter::from_fn(move || {
        let mut nlri = Vec::new();
        while let Some(prefix) = rest.next_if(|_| nlri.len() <= room) {
            prefix.push_to(&mut nlri);
        }
        Some(nlri).filter(|nlri| !nlri.is_empty())
    })
}

/// Appends one UPDATE (RFC 4271 section 4.3).
fn push_update(withdrawn: &[u8], attributes: &[u8], announced: &[u8], updates: &mut Vec<u8>) {
    let length = 19 + 2 + withdrawn.len() + 2 + attributes.len() + announced.len();
    updates.extend([0xff; 16]);
    updates.extend(sixteen_bits(length));
    updates.push(2);
    updates.extend(sixteen_bits(withdrawn.len()));
    updates.extend(withdrawn);
    updates.extend(sixteen_bits(attributes.len()));
    updates.extend(attributes);
    updates.extend(announced);
}

/// Distinct prefixes, as long as the Internet's: six of ten are /24s.
#[must_use]
pub fn internet_prefixes(count: usize, seed: u64) -> Vec<Prefix> {
    const LENGTHS: [u8; 20] =
        [24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 22, 22, 23, 23, 21, 20, 19, 18];
    let mut rng = Rng(seed);
    let mut taken = vec![false; Prefix::PLACES];
    let mut prefixes = Vec::with_capacity(count);
    while prefixes.len() < count {
        let choice = rng.next();
        // One of a hundred is a /16 or a /17.
        let length = match choice % 100 {
            0 => 16 + u8::from(choice & 0x100 != 0),
            _ => LENGTHS.get((choice >> 16) as usize % LENGTHS.len()).copied().unwrap_or(24),
        };
        let address = (rng.next() as u32) & (u32::MAX << (32 - u32::from(length)));
        let prefix = Prefix { address, length };
        // Neither what is not unicast or loopback, nor the network of the sessions.
        if !matches!(address >> 24, 1..=9 | 11..=126 | 128..=171 | 173..=191 | 193..=222) {
            continue;
        }
        if let Some(taken) = prefix.place().and_then(|place| taken.get_mut(place))
            && !std::mem::replace(taken, true)
        {
            prefixes.push(prefix);
        }
    }
    prefixes
}

/// These prefixes as an external peer of AS `asn` tells them, with so many sets of path attributes; the next hops take turns.
#[must_use]
pub fn internet(prefixes: &[Prefix], sets: usize, seed: u64, asn: u32, next_hops: &[Ipv4Addr]) -> Table {
    let mut rng = Rng(seed);
    let mut of_set: Vec<Vec<Prefix>> = vec![Vec::new(); sets.max(1)];
    for (index, prefix) in prefixes.iter().enumerate() {
        // Each has one prefix at least.
        let set = if index < sets { index } else { rng.below(sets.max(1) as u64) as usize };
        if let Some(of_set) = of_set.get_mut(set) {
            of_set.push(*prefix);
        }
    }
    let mut table = Table::default();
    for ((origin, prefixes), next_hop) in (100_000..).zip(of_set).zip(next_hops.iter().cycle()) {
        table.announce(Attributes::internet(&mut rng, asn, *next_hop, origin), prefixes);
    }
    table
}

/// These prefixes, all with the same path attributes, of an AS path of two.
#[must_use]
pub fn plain(prefixes: &[Prefix], asn: u32, next_hop: Ipv4Addr) -> Table {
    let attributes =
        Attributes { as_path: vec![asn, 65_001], next_hop: next_hop.into(), ..Attributes::default() };
    let mut table = Table::default();
    table.announce(attributes, prefixes.to_vec());
    table
}

/// The blocks of a node that is a reflector's client: so many /26 of 10.0.0.0/10 from number `first` on.
#[must_use]
pub fn blocks(first: u32, count: u32, next_hop: Ipv4Addr) -> Table {
    let network = u32::from(Ipv4Addr::new(10, 0, 0, 0));
    let prefix = |number: u32| Prefix { address: network | number << 6, length: 26 };
    let attributes = Attributes { next_hop: next_hop.into(), local_pref: Some(100), ..Attributes::default() };
    let mut table = Table::default();
    table.announce(attributes, (first..first + count).map(prefix).collect());
    table
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The lengths of the messages, and their numbers of prefixes.
    fn messages(table: &Table) -> Vec<(usize, usize)> {
        let (mut rest, mut all) = (table.updates.as_slice(), Vec::new());
        while !rest.is_empty() {
            let length = usize::from(u16::from_be_bytes([rest[16], rest[17]]));
            let (message, after) = rest.split_at(length);
            let attributes = usize::from(u16::from_be_bytes([message[21], message[22]]));
            let (mut nlri, mut count) = (&message[23 + attributes..], 0);
            while let Some((length, octets)) = nlri.split_first() {
                (nlri, count) = (&octets[usize::from(*length).div_ceil(8)..], count + 1);
            }
            all.push((length, count));
            rest = after;
        }
        all
    }

    #[test]
    fn a_table_has_so_many_distinct_prefixes_and_sets_and_is_the_same_every_time() {
        let prefixes = internet_prefixes(20_000, 1);
        assert_eq!(prefixes.iter().collect::<BTreeSet<_>>().len(), 20_000);
        let places: BTreeSet<_> = prefixes.iter().map(|prefix| prefix.place().unwrap()).collect();
        assert_eq!((places.len(), places.last().is_some_and(|last| *last < Prefix::PLACES)), (20_000, true));
        let share = prefixes.iter().filter(|prefix| prefix.length == 24).count();
        assert!((11_000..13_000).contains(&share), "{share} of 20000 are /24s");
        let next_hop = Ipv4Addr::new(192, 0, 2, 1);
        let table = internet(&prefixes, 2000, 2, 65_101, &[next_hop]);
        let sets: BTreeSet<_> = table.sets.iter().map(|(set, _)| set.octets()).collect();
        assert_eq!((table.prefixes(), table.sets.len(), sets.len()), (20_000, 2000, 2000));
        assert_eq!(messages(&table).iter().map(|(_, count)| count).sum::<usize>(), 20_000);
        assert_eq!(table.updates, internet(&prefixes, 2000, 2, 65_101, &[next_hop]).updates);
    }

    #[test]
    fn a_message_is_no_longer_than_it_may_be() {
        let table = blocks(5, 1000, Ipv4Addr::new(192, 0, 2, 1));
        let messages = messages(&table);
        assert_eq!(messages.iter().map(|(_, count)| count).sum::<usize>(), 1000);
        assert_eq!(messages.len(), 2, "{messages:?}");
        assert!(
            messages.iter().all(|(length, _)| *length <= MESSAGE_MAX) && messages[0].0 > MESSAGE_MAX - 10
        );
    }

    #[test]
    fn what_a_speaker_passes_on_is_as_the_rfcs_say() {
        let told = Attributes {
            as_path: vec![65_101, 7],
            next_hop: 0xc000_0201,
            med: Some(5),
            communities: vec![0x1_0002],
            ..Attributes::default()
        };
        let passed_on = [
            &[0x40, 1, 1, 0, 0x40, 2, 14, 2, 3, 0, 0, 0xfd, 0xe8, 0, 0, 0xfe, 0x4d, 0, 0, 0, 7][..],
            &[0x40, 3, 4, 192, 0, 2, 1, 0xc0, 8, 4, 0, 1, 0, 2],
        ];
        assert_eq!(told.passed_on(65_000).octets(), passed_on.concat());
        let client = Ipv4Addr::new(1, 1, 1, 1);
        let reflected = told.reflected(client, Ipv4Addr::new(2, 2, 2, 2)).octets();
        assert!(reflected.ends_with(&[0x80, 9, 4, 1, 1, 1, 1, 0x80, 10, 4, 2, 2, 2, 2]), "{reflected:?}");
    }
}
