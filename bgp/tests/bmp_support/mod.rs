//! A monitoring station that applies what it hears, by a reader of its own.

#![allow(dead_code, clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::BytesMut;
use ipnet::IpNet;
use weft_bgp::bmp::MonitoredRib;
use weft_bgp::types::Family;
use weft_bgp::wire::attributes::PathAttributes;
use weft_bgp::wire::capability::Capability;
use weft_bgp::wire::nlri::decode_prefixes;
use weft_bgp::wire::open::Open;
use weft_bgp::wire::update::{AttributeBlock, pack};

/// A RIB, as the per-peer header names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rib {
    InPrePolicy,
    InPostPolicy,
    OutPostPolicy,
    Loc,
}

/// A RIB, and the peer whose it is.
pub(crate) type Key = (Rib, Option<IpAddr>);

/// Attributes as they are on the wire: the value of each, the next hop of MP_REACH_NLRI instead of the whole.
pub(crate) type Route = BTreeMap<u8, Vec<u8>>;

/// A prefix, and the path identifier by which it is told.
pub(crate) type Path = (IpNet, Option<u32>);

pub(crate) type Routes = BTreeMap<Path, Route>;

/// Type and value.
pub(crate) type Tlv = (u16, Vec<u8>);

/// What a station knows.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    pub(crate) system_name: Option<String>,
    pub(crate) table_name: Option<String>,
    pub(crate) termination: Option<u16>,
    /// The RIBs and families whose prefixes have path identifiers, by the OPENs.
    path_ids: BTreeSet<(Key, Family)>,
    /// The peers that are up; none: the Loc-RIB.
    up: BTreeSet<Option<IpAddr>>,
    tables: BTreeMap<Key, Routes>,
    pub(crate) ends_of_rib: Vec<(Key, Family)>,
    /// Reason and data.
    pub(crate) downs: Vec<(u8, Vec<u8>)>,
    /// By peer, in the order of their coming.
    pub(crate) statistics: Vec<(Option<IpAddr>, Vec<Tlv>)>,
}

impl Heard {
    /// Reads whole messages; what comes behind them is not there yet.
    pub(crate) fn of(mut bytes: &[u8]) -> Self {
        let mut heard = Self::default();
        while let Some(length) = bytes.get(1..5) {
            let length = u32::from_be_bytes(length.try_into().unwrap()) as usize;
            let Some(message) = bytes.get(..length) else { break };
            assert_eq!(message[0], 3, "the version");
            assert!(heard.termination.is_none(), "nothing follows a Termination");
            heard.message(message[5], &message[6..]);
            bytes = &bytes[length..];
        }
        heard
    }

    /// The tables of these RIBs of every peer that is up.
    pub(crate) fn tables(&self, monitor: &[MonitoredRib]) -> BTreeMap<Key, Routes> {
        let rib = |rib: &MonitoredRib| match rib {
            MonitoredRib::AdjRibInPrePolicy => Rib::InPrePolicy,
            MonitoredRib::AdjRibInPostPolicy => Rib::InPostPolicy,
            MonitoredRib::LocRib => Rib::Loc,
            MonitoredRib::AdjRibOutPostPolicy => Rib::OutPostPolicy,
        };
        let keys = monitor.iter().map(rib).flat_map(|rib| self.up.iter().map(move |peer| (rib, *peer)));
        let keys = keys.filter(|(rib, peer)| (*rib == Rib::Loc) == peer.is_none());
        keys.map(|key| (key, self.tables.get(&key).cloned().unwrap_or_default())).collect()
    }

    fn message(&mut self, kind: u8, body: &[u8]) {
        match kind {
            4 => return self.initiation(body),
            5 => return self.termination = Some(u16::from_be_bytes(body[4..6].try_into().unwrap())),
            _ => assert!(self.system_name.is_some(), "an Initiation comes first"),
        }
        let (header, body) = body.split_at(42);
        let key = key(header);
        match kind {
            0 => self.route_monitoring(key, body),
            1 => {
                let (count, mut tlvs) = body.split_at(4);
                let mut statistics = Vec::new();
                while !tlvs.is_empty() {
                    statistics.push(tlv(&mut tlvs));
                }
                assert_eq!(count, u32::try_from(statistics.len()).unwrap().to_be_bytes());
                self.statistics.push((key.1, statistics));
            }
            2 => {
                assert!(self.up.remove(&key.1), "{key:?} goes down but was not up");
                self.tables.retain(|(_, peer), _| *peer != key.1);
                self.path_ids.retain(|((_, peer), _)| *peer != key.1);
                self.downs.push((body[0], body[1..].to_vec()));
            }
            3 => {
                assert!(self.up.insert(key.1), "{key:?} comes up but was up");
                let sent = usize::from(u16::from_be_bytes([body[36], body[37]]));
                let received = &body[20 + sent..];
                assert_eq!((body[38], received[18]), (1, 1), "both are OPENs");
                let length = usize::from(u16::from_be_bytes([received[16], received[17]]));
                let (ours, theirs) = (add_path(&body[20..20 + sent]), add_path(&received[..length]));
                for family in Family::ALL {
                    // 1: receive, 2: send (RFC 7911 section 4).
                    let agreed = |mode: u8| {
                        let both = [(&ours, mode), (&theirs, 3 - mode)];
                        both.iter().all(|(said, mode)| said.get(&family).is_some_and(|said| said & mode != 0))
                    };
                    let ribs = [(Rib::InPrePolicy, 1), (Rib::InPostPolicy, 1), (Rib::OutPostPolicy, 2)];
                    let ribs = ribs.into_iter().filter(|(_, mode)| agreed(*mode));
                    self.path_ids.extend(ribs.map(|(rib, _)| ((rib, key.1), family)));
                }
                let mut rest = &received[length..];
                if !rest.is_empty() {
                    let (kind, value) = tlv(&mut rest);
                    assert_eq!(kind, 3);
                    self.table_name = Some(String::from_utf8(value).unwrap());
                }
            }
            _ => panic!("message type {kind}"),
        }
    }

    fn initiation(&mut self, mut body: &[u8]) {
        while !body.is_empty() {
            if let (2, name) = tlv(&mut body) {
                self.system_name = Some(String::from_utf8(name).unwrap());
            }
        }
    }

    fn route_monitoring(&mut self, key: Key, message: &[u8]) {
        assert!(self.up.contains(&key.1), "routes of {key:?}, which is not up");
        assert_eq!(usize::from(u16::from_be_bytes([message[16], message[17]])), message.len());
        let has_ids = |family| self.path_ids.contains(&(key, family));
        let update = Update::read(message, has_ids);
        if update.withdrawn.is_empty() && update.announced.is_empty() {
            let family = if update.mp_family.is_some() { Family::Ipv6Unicast } else { Family::Ipv4Unicast };
            self.ends_of_rib.push((key, family));
        }
        let table = self.tables.entry(key).or_default();
        update.withdrawn.iter().for_each(|prefix| drop(table.remove(prefix)));
        table.extend(update.announced.iter().map(|prefix| (*prefix, update.route.clone())));
    }
}

/// An UPDATE, header and all.
#[derive(Debug, Default)]
struct Update {
    withdrawn: Vec<Path>,
    announced: Vec<Path>,
    mp_family: Option<Family>,
    route: Route,
}

impl Update {
    fn read(message: &[u8], has_ids: impl Fn(Family) -> bool) -> Self {
        let prefixes = |family, mut field: &[u8], out: &mut Vec<Path>| {
            while !field.is_empty() {
                let id = has_ids(family).then(|| u32::from_be_bytes(take(&mut field, 4).try_into().unwrap()));
                let octets = 1 + usize::from(field[0]).div_ceil(8);
                let mut prefix = Vec::new();
                decode_prefixes(family, take(&mut field, octets), &mut prefix, None).unwrap();
                out.push((prefix[0], id));
            }
        };
        assert_eq!(message[18], 2);
        let mut update = Self::default();
        let mut body = &message[19..];
        let length = u16::from_be_bytes(take(&mut body, 2).try_into().unwrap());
        prefixes(Family::Ipv4Unicast, take(&mut body, length.into()), &mut update.withdrawn);
        let length = u16::from_be_bytes(take(&mut body, 2).try_into().unwrap());
        let mut attributes = take(&mut body, length.into());
        prefixes(Family::Ipv4Unicast, body, &mut update.announced);
        while !attributes.is_empty() {
            let head = take(&mut attributes, 2);
            let length = match head[0] & 0x10 {
                0 => usize::from(take(&mut attributes, 1)[0]),
                _ => usize::from(u16::from_be_bytes(take(&mut attributes, 2).try_into().unwrap())),
            };
            let mut value = take(&mut attributes, length);
            let family = |octets: &[u8]| Family::from_afi_safi(octets[1].into(), octets[2]).unwrap();
            match head[1] {
                14 => {
                    let of = family(take(&mut value, 3));
                    let length = take(&mut value, 1)[0];
                    update.route.insert(14, take(&mut value, length.into()).to_vec());
                    take(&mut value, 1);
                    prefixes(of, value, &mut update.announced);
                }
                15 => {
                    let of = family(take(&mut value, 3));
                    update.mp_family = Some(of);
                    prefixes(of, value, &mut update.withdrawn);
                }
                code => drop(update.route.insert(code, value.to_vec())),
            }
        }
        update
    }
}

/// Attributes as a station hears them.
pub(crate) fn route(attributes: &PathAttributes, prefix: IpNet) -> Route {
    let mut out = BytesMut::new();
    let block = AttributeBlock::new(attributes, Family::of(&prefix), true);
    assert_eq!(pack(&block, &[prefix], u16::MAX, &mut out), 1);
    Update::read(&out, |_| false).route
}

/// What an OPEN says of path identifiers, by family.
fn add_path(open: &[u8]) -> BTreeMap<Family, u8> {
    let open = Open::decode(&open[19..]).unwrap();
    let mut said = BTreeMap::new();
    for capability in open.capabilities {
        if let Capability::AddPath(families) = capability {
            said.extend(families.iter().filter_map(|of| Some((of.family.family()?, of.send_receive))));
        }
    }
    said
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (taken, rest) = bytes.split_at(count);
    *bytes = rest;
    taken
}

fn tlv(bytes: &mut &[u8]) -> Tlv {
    let kind = u16::from_be_bytes(take(bytes, 2).try_into().unwrap());
    let length = u16::from_be_bytes(take(bytes, 2).try_into().unwrap());
    (kind, take(bytes, length.into()).to_vec())
}

/// Which RIB a per-peer header speaks of.
fn key(header: &[u8]) -> Key {
    let (kind, flags, address) = (header[0], header[1], <[u8; 16]>::try_from(&header[10..26]).unwrap());
    if kind == 3 {
        assert_eq!((flags, address), (0, [0; 16]));
        return (Rib::Loc, None);
    }
    assert_eq!(kind, 0);
    let address: IpAddr = match flags & 0x80 {
        0 => Ipv4Addr::from(<[u8; 4]>::try_from(&address[12..]).unwrap()).into(),
        _ => Ipv6Addr::from(address).into(),
    };
    let rib = match flags & 0x7f {
        0 => Rib::InPrePolicy,
        0x40 => Rib::InPostPolicy,
        0x50 => Rib::OutPostPolicy,
        flags => panic!("flags {flags:#x}"),
    };
    (rib, Some(address))
}
