//! A record as one line of text.
//!
//! 16 hex digits of a checksum over the rest, a space, a letter for the kind of record, and its fields, each behind a
//! tab. Whatever a runtime named is escaped as URLs are, so that it holds neither a tab nor a line's end. Each process reads the
//! whole journal, hence no format that takes a general parser.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::str::{FromStr, Split};

use super::super::{Entry, Key, State};
use super::{Header, Record};
use crate::datapath::HostEnd;
use crate::hash::fnv1a_words;
use crate::mac;
use crate::spec::PodName;

/// Length of the checksum and the space behind it.
const PREFIX_LEN: usize = 17;
const SEPARATOR: char = '\t';
/// Between the items of a field that is a list.
const COMMA: char = ',';
/// Stands for a value that there is not; no other field is empty.
const NONE: &str = "";

/// The line of `record`, with its end.
pub(super) fn encode(record: &Record) -> Vec<u8> {
    let fields = match record {
        Record::Header(header) => header_fields(header),
        Record::Keep(entry) => entry_fields('K', entry),
        Record::Reserve(entry) => entry_fields('R', entry),
        Record::Commit { key, host_end } => key_fields('C', key).with_host_end(Some(host_end)),
        Record::Release { key, at } => key_fields('F', key).with_optional(*at),
    };
    let Fields(text) = fields;
    format!("{:016x} {text}\n", fnv1a_words(text.as_bytes())).into_bytes()
}

/// The record of a line without its end, or what is wrong with it.
pub(super) fn decode(line: &[u8]) -> Result<Record, String> {
    let (prefix, rest) = line.split_at_checked(PREFIX_LEN).ok_or("it is too short")?;
    if prefix != checksum(rest) {
        return Err("its checksum is wrong".to_owned());
    }
    let text = std::str::from_utf8(rest).map_err(|error| error.to_string())?;
    let mut fields = text.split(SEPARATOR);
    let record = match fields.next() {
        Some("H") => Record::Header(header(&mut fields)?),
        Some("K") => Record::Keep(entry(&mut fields)?),
        Some("R") => Record::Reserve(entry(&mut fields)?),
        Some("C") => Record::Commit {
            key: key(&mut fields)?,
            host_end: host_end(&mut fields)?.ok_or("it commits no link")?,
        },
        Some("F") => Record::Release { key: key(&mut fields)?, at: optional(&mut fields)? },
        _ => return Err("it is of no known kind".to_owned()),
    };
    if fields.next().is_some() { Err("it has too many fields".to_owned()) } else { Ok(record) }
}

fn checksum(text: &[u8]) -> [u8; PREFIX_LEN] {
    const DIGIT_BITS: usize = 4;
    let sum = fnv1a_words(text);
    let mut prefix = [b' '; PREFIX_LEN];
    for (place, shift) in prefix.iter_mut().zip((0..u64::BITS).step_by(DIGIT_BITS).rev()) {
        // Four bits are below both.
        *place = match (sum >> shift) as u8 & 0xf {
            digit @ 0..10 => b'0' + digit,
            digit => b'a' + (digit - 10),
        };
    }
    prefix
}

/// The text of a line behind its checksum, as far as it is written.
struct Fields(String);

impl Fields {
    fn of(kind: char) -> Self {
        Self(kind.to_string())
    }

    /// A value whose text has no separator in it.
    fn with(mut self, value: impl Display) -> Self {
        // Writing to a string does not fail.
        let _ = write!(self.0, "{SEPARATOR}{value}");
        self
    }

    fn with_optional(self, value: Option<impl Display>) -> Self {
        match value {
            Some(value) => self.with(value),
            None => self.with(NONE),
        }
    }

    fn with_host_end(self, host_end: Option<&HostEnd>) -> Self {
        let index = host_end.map(|end| end.index);
        self.with_optional(index).with_optional(host_end.and_then(|end| end.peer_namespace))
    }

    fn with_text(self, text: &str) -> Self {
        self.with(escaped(text))
    }

    fn with_list(self, items: impl IntoIterator<Item = impl Display>) -> Self {
        let mut list = String::new();
        for item in items {
            let _ = write!(list, "{}{item}", if list.is_empty() { "" } else { "," });
        }
        self.with(list)
    }
}

fn header_fields(header: &Header) -> Fields {
    Fields::of('H')
        .with(header.format)
        .with_text(&header.boot_id)
        .with_list(&header.last)
        .with_list(header.released.iter().map(|(address, at)| format!("{address}={at}")))
}

fn header(fields: &mut Split<'_, char>) -> Result<Header, String> {
    let format = parsed(fields)?;
    if format != super::FORMAT {
        // What else is in it, that release knows.
        fields.by_ref().for_each(drop);
        return Ok(Header { format, boot_id: String::new(), last: Vec::new(), released: BTreeMap::new() });
    }
    Ok(Header {
        format,
        boot_id: text(fields)?,
        last: list(fields, parse)?,
        released: list(fields, |item| {
            let (address, at) = item.split_once('=').ok_or_else(|| unreadable(item))?;
            Ok((parse(address)?, parse(at)?))
        })?,
    })
}

fn key_fields(kind: char, key: &Key) -> Fields {
    Fields::of(kind).with_text(&key.network).with_text(&key.container_id).with_text(&key.ifname)
}

fn key(fields: &mut Split<'_, char>) -> Result<Key, String> {
    Ok(Key { network: text(fields)?, container_id: text(fields)?, ifname: text(fields)? })
}

fn entry_fields(kind: char, entry: &Entry) -> Fields {
    let host_end = match &entry.state {
        State::Reserved => None,
        State::Committed(host_end) => Some(host_end),
    };
    let (namespace, name) = match &entry.pod {
        Some(pod) => (pod.namespace.as_str(), pod.name.as_str()),
        None => (NONE, NONE),
    };
    key_fields(kind, &entry.key)
        .with_host_end(host_end)
        .with_list(&entry.addresses)
        .with_text(&entry.host_link)
        .with(mac::to_text(entry.mac))
        .with_text(&entry.netns)
        .with_text(namespace)
        .with_text(name)
        .with_text(&entry.boot_id)
        .with_optional(entry.since)
}

fn entry(fields: &mut Split<'_, char>) -> Result<Entry, String> {
    Ok(Entry {
        key: key(fields)?,
        state: host_end(fields)?.map_or(State::Reserved, State::Committed),
        addresses: list(fields, parse)?,
        host_link: text(fields)?,
        mac: next(fields).and_then(|field| mac::from_text(field).ok_or_else(|| unreadable(field)))?,
        netns: text(fields)?,
        pod: match (text(fields)?, text(fields)?) {
            (namespace, name) if namespace.is_empty() && name.is_empty() => None,
            (namespace, name) => Some(PodName { namespace, name }),
        },
        boot_id: text(fields)?,
        since: optional(fields)?,
    })
}

fn next<'a>(fields: &mut Split<'a, char>) -> Result<&'a str, String> {
    fields.next().ok_or_else(|| "it has too few fields".to_owned())
}

fn text(fields: &mut Split<'_, char>) -> Result<String, String> {
    let field = next(fields)?;
    unescaped(field).ok_or_else(|| unreadable(field))
}

fn parsed<T: FromStr>(fields: &mut Split<'_, char>) -> Result<T, String> {
    next(fields).and_then(parse)
}

fn optional<T: FromStr>(fields: &mut Split<'_, char>) -> Result<Option<T>, String> {
    match next(fields)? {
        NONE => Ok(None),
        value => parse(value).map(Some),
    }
}

fn host_end(fields: &mut Split<'_, char>) -> Result<Option<HostEnd>, String> {
    let (index, peer_namespace) = (optional(fields)?, optional(fields)?);
    Ok(index.map(|index| HostEnd { index, peer_namespace }))
}

fn list<T, C: FromIterator<T>>(
    fields: &mut Split<'_, char>,
    item: impl FnMut(&str) -> Result<T, String>,
) -> Result<C, String> {
    match next(fields)? {
        NONE => Ok(C::from_iter([])),
        items => items.split(COMMA).map(item).collect(),
    }
}

fn parse<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| unreadable(text))
}

fn unreadable(text: &str) -> String {
    format!("{text:?} cannot be read")
}

/// The text without control characters: those and the percent sign as `%` and two hex digits (RFC 3986 section 2.1).
fn escaped(text: &str) -> Cow<'_, str> {
    let special = |character: char| character.is_ascii_control() || character == '%';
    if !text.contains(special) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len().saturating_mul(2));
    for character in text.chars() {
        if special(character) {
            let _ = write!(out, "%{:02x}", u32::from(character));
        } else {
            out.push(character);
        }
    }
    Cow::Owned(out)
}

/// What [`escaped`] was made of; `None` for a percent sign without two hex digits of an ASCII character.
fn unescaped(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        out.push(char::from(u8::from_str_radix(digits, 16).ok().filter(u8::is_ascii)?));
        out.push_str(rest);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::*;

    fn key() -> impl Strategy<Value = Key> {
        (".{1,8}", "[a-zA-Z0-9_.-]{1,70}", "[a-z0-9]{1,15}").prop_map(|(network, container_id, ifname)| Key {
            network,
            container_id,
            ifname,
        })
    }

    fn host_end() -> impl Strategy<Value = HostEnd> {
        let id = (0..=i32::MAX).prop_map(|id| id.to_string().parse().unwrap());
        (any::<u32>(), prop::option::of(id))
            .prop_map(|(index, peer_namespace)| HostEnd { index, peer_namespace })
    }

    fn entry() -> impl Strategy<Value = Entry> {
        let pod = prop::option::of((".{1,8}", ".{0,8}"))
            .prop_map(|pod| pod.map(|(namespace, name)| PodName { namespace, name }));
        let state = prop_oneof![Just(State::Reserved), host_end().prop_map(State::Committed)];
        let rest = (pod, any::<[u8; 6]>(), ".{0,30}", prop::option::of(any::<u64>()), "\\PC*");
        (key(), state, prop::collection::vec(any::<IpAddr>(), 0..3), "weft[0-9a-f]{11}", rest).prop_map(
            |(key, state, addresses, host_link, (pod, mac, netns, since, boot_id))| Entry {
                key,
                state,
                addresses,
                host_link,
                mac,
                netns,
                pod,
                boot_id,
                since,
            },
        )
    }

    fn record() -> impl Strategy<Value = Record> {
        let addresses = prop::collection::vec(any::<IpAddr>(), 0..3);
        let released = prop::collection::btree_map(any::<IpAddr>(), any::<u64>(), 0..4);
        let header = (".{0,40}", addresses, released).prop_map(|(boot_id, last, released)| {
            Record::Header(Header { format: super::super::FORMAT, boot_id, last, released })
        });
        prop_oneof![
            header,
            entry().prop_map(Record::Keep),
            entry().prop_map(Record::Reserve),
            (key(), host_end()).prop_map(|(key, host_end)| Record::Commit { key, host_end }),
            (key(), prop::option::of(any::<u64>())).prop_map(|(key, at)| Record::Release { key, at }),
        ]
    }

    proptest! {
        #[test]
        fn a_record_is_one_line_and_comes_back(record in record()) {
            let line = encode(&record);
            prop_assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
            let line = line.strip_suffix(b"\n").unwrap();
            prop_assert_eq!(decode(line), Ok(record));
        }

        #[test]
        fn any_text_behind_a_right_checksum_is_a_record_or_an_error(text in "([HKRCF]\t)?[\t%,=a-f0-9:.]*") {
            let line = [&checksum(text.as_bytes()), text.as_bytes()].concat();
            let _ = decode(&line);
        }
    }

    #[test]
    fn a_line_is_readable() {
        let key = Key { network: "a\tb%".into(), container_id: "c1".into(), ifname: "eth0".into() };
        let line = String::from_utf8(encode(&Record::Release { key, at: Some(7) })).unwrap();
        assert_eq!(line.split_at(PREFIX_LEN).1, "F\ta%09b%25\tc1\teth0\t7\n");
    }

    #[test]
    fn what_is_wrong_with_a_line_is_said() {
        let said = |text: &str| decode(&[&checksum(text.as_bytes()), text.as_bytes()].concat()).unwrap_err();
        assert_eq!(said("X"), "it is of no known kind");
        assert_eq!(said("C\tn\tc"), "it has too few fields");
        assert_eq!(said("C\tn\tc\teth0\t7\t\tmore"), "it has too many fields");
        assert_eq!(said("F\tn\tc\teth0\tsoon"), "\"soon\" cannot be read");
        assert_eq!(said("C\tn%zz\tc\teth0\t7\t"), "\"n%zz\" cannot be read");
        assert_eq!(decode(b"0123").unwrap_err(), "it is too short");
        assert_eq!(decode(b"0123456789abcdef C\tn\tc\teth0").unwrap_err(), "its checksum is wrong");
    }
}
