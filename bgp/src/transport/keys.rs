//! TCP-MD5 keys of the listeners: those that peers should have, and those that they have.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;

use ipnet::IpNet;

use super::sockopt;
use crate::config::{PeerConfig, SpeakerConfig};
use crate::protection::Password;
use crate::types::PeerAddress;

/// The keys that listeners should have, by where peers connect from. Of the prefixes that hold an address the longest counts, for the kernel too.
pub(super) type Keys = BTreeMap<IpNet, Password>;

/// What a listener has for an address: a key, or the kernel's words why not.
pub(super) type Key = Result<Password, String>;

/// The keys of a configuration. Two links may have one link-local address, and a listener one key for it: that of the first.
pub(super) fn of(config: &SpeakerConfig) -> Keys {
    // Of a range; a peer that is named comes before one of its prefix.
    let mut wanted: BTreeMap<IpNet, Option<&Password>> = BTreeMap::new();
    for (peer, config) in config.peers.iter().filter(|(_, config)| !config.stays_down()) {
        if let Some(address) = address_of(*peer, config) {
            wanted.entry(address.into()).or_insert(config.authentication.password());
        }
    }
    for (range, config) in config.ranges.iter().filter(|(_, config)| !config.peer.stays_down()) {
        wanted.entry(*range).or_insert(config.peer.authentication.password());
    }
    let mut keys = Keys::new();
    for (prefix, password) in &wanted {
        let Some(password) = password else { continue };
        keys.extend(
            without(*prefix, &holes(*prefix, &wanted)).into_iter().map(|part| (part, (*password).clone())),
        );
    }
    keys
}

/// What of a prefix its key must not be set for. The kernel has no exception from a key, and would drop what comes unsigned: around whoever
/// has none the key is set in parts. A prefix within, where all are signed, takes care of itself by being longer.
fn holes(prefix: IpNet, wanted: &BTreeMap<IpNet, Option<&Password>>) -> Vec<IpNet> {
    let within = || wanted.iter().filter(move |(inner, _)| **inner != prefix && prefix.contains(*inner));
    let unsigned: Vec<IpNet> =
        within().filter(|(_, password)| password.is_none()).map(|(inner, _)| *inner).collect();
    let has_unsigned = |inner: &IpNet| unsigned.iter().any(|other| inner.contains(other));
    within().map(|(inner, _)| *inner).filter(has_unsigned).collect()
}

/// A prefix without some of its parts.
fn without(prefix: IpNet, holes: &[IpNet]) -> Vec<IpNet> {
    let here: Vec<IpNet> = holes.iter().copied().filter(|hole| prefix.contains(hole)).collect();
    if here.is_empty() {
        return vec![prefix];
    }
    if here.contains(&prefix) {
        return Vec::new();
    }
    // A part that is no whole prefix has halves.
    let halves = prefix.subnets(prefix.prefix_len().saturating_add(1));
    halves.into_iter().flatten().flat_map(|half| without(half, &here)).collect()
}

/// Where a peer connects from; none while it is not found.
pub(super) fn address_of(peer: PeerAddress, config: &PeerConfig) -> Option<IpAddr> {
    peer.ip().or(config.neighbour.map(IpAddr::V6))
}

/// Gives a socket the key of a prefix.
///
/// # Errors
/// Why the kernel does not take it.
pub(super) fn set(socket: &impl AsFd, prefix: IpNet, password: &Password) -> Result<(), String> {
    sockopt::set_md5(socket, prefix, Some(password)).map_err(|error| explain(&error))
}

fn explain(error: &io::Error) -> String {
    let why = match error.raw_os_error() {
        Some(libc::ENOPROTOOPT) => ": it is built without TCP-MD5 (CONFIG_TCP_MD5SIG)",
        Some(libc::ENOMEM) => ": more room for keys is given by the sysctl net.core.optmem_max",
        _ => "",
    };
    format!("the kernel does not take the TCP-MD5 key ({error}){why}")
}

/// What a listener has.
#[derive(Clone, Debug)]
pub(super) struct KeysInForce {
    ipv4: bool,
    keys: BTreeMap<IpNet, Key>,
}

impl KeysInForce {
    /// Nothing yet, of a socket of this family.
    pub(super) fn new(ipv4: bool) -> Self {
        Self { ipv4, keys: BTreeMap::new() }
    }

    /// What the listener has for an address.
    pub(super) fn key(&self, address: IpAddr) -> Option<Key> {
        let longest = IpNet::from(address);
        let holding = (0..=longest.prefix_len()).rev();
        holding
            .filter_map(|length| IpNet::new(address, length).ok())
            .find_map(|prefix| self.keys.get(&prefix.trunc()))
            .cloned()
    }

    /// Changes what differs on the socket; gives the keys that the kernel does not take, and why.
    ///
    /// First it adds, so that no address which is to have a key is without one meanwhile; what found no room is tried again behind that.
    pub(super) fn put_in_force(&mut self, socket: &impl AsFd, wanted: &Keys) -> Vec<(IpNet, String)> {
        self.add(socket, wanted);
        self.keys.retain(|prefix, _| {
            let stays = wanted.contains_key(prefix);
            if !stays {
                forget(socket, *prefix);
            }
            stays
        });
        self.add(socket, wanted)
    }

    fn add(&mut self, socket: &impl AsFd, wanted: &Keys) -> Vec<(IpNet, String)> {
        let mut refused = Vec::new();
        for (prefix, password) in wanted.iter().filter(|(prefix, _)| prefix.addr().is_ipv4() == self.ipv4) {
            if self.keys.get(prefix).is_some_and(|key| key.as_ref() == Ok(password)) {
                continue;
            }
            let key = set(socket, *prefix, password).map(|()| password.clone());
            if let Err(error) = &key {
                // That of before must not stay in force.
                forget(socket, *prefix);
                refused.push((*prefix, error.clone()));
            }
            self.keys.insert(*prefix, key);
        }
        refused
    }
}

/// Takes the key of a prefix off a socket. That it has none is no error, and there is no other.
fn forget(socket: &impl AsFd, prefix: IpNet) {
    let _ = sockopt::set_md5(socket, prefix, None);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(text: &str) -> Vec<IpNet> {
        text.split_whitespace().map(|net| net.parse().unwrap()).collect()
    }

    /// What [`of`] makes of prefixes with the passwords of these letters; `-`: none.
    fn keys(wanted: &str) -> Vec<String> {
        let words: Vec<&str> = wanted.split_whitespace().collect();
        let passwords: Vec<Option<Password>> = words
            .iter()
            .map(|w| Some(&w[..1]).filter(|c| *c != "-").map(|c| Password::new(c.as_bytes()).unwrap()))
            .collect();
        let wanted: BTreeMap<IpNet, Option<&Password>> =
            words.iter().zip(&passwords).map(|(w, p)| (w[1..].parse().unwrap(), p.as_ref())).collect();
        let signed = wanted.iter().filter_map(|(prefix, password)| Some((*prefix, (*password)?)));
        let parts = signed.flat_map(|(prefix, password)| {
            let letter = String::from_utf8(password.octets().to_vec()).unwrap();
            without(prefix, &holes(prefix, &wanted)).into_iter().map(move |part| format!("{letter}{part}"))
        });
        parts.collect()
    }

    #[test]
    fn a_key_of_a_range_leaves_out_whoever_has_none() {
        assert_eq!(
            without("10.0.0.0/30".parse().unwrap(), &nets("10.0.0.2/32")),
            nets("10.0.0.0/31 10.0.0.3/32")
        );
        assert_eq!(without("10.0.0.0/30".parse().unwrap(), &nets("10.0.0.0/30")), []);
        assert_eq!(without("fd00::/64".parse().unwrap(), &nets("fd00::1/128")).len(), 64);
        assert_eq!(keys("a10.0.0.0/24 b10.0.0.7/32"), ["a10.0.0.0/24", "b10.0.0.7/32"], "the longest counts");
        assert_eq!(keys("a10.0.0.0/31 -10.0.0.1/32"), ["a10.0.0.0/32"]);
        assert_eq!(keys("a10.0.0.0/29 -10.0.0.0/30 b10.0.0.2/31"), ["a10.0.0.4/30", "b10.0.0.2/31"]);
    }

    #[test]
    fn no_two_ranges_meet_in_one_key() {
        let keys = keys("a10.0.0.0/28 b10.0.0.0/30 -10.0.0.1/32");
        assert_eq!(keys, ["a10.0.0.4/30", "a10.0.0.8/29", "b10.0.0.0/32", "b10.0.0.2/31"]);
    }

    #[test]
    fn the_key_of_an_address_is_that_of_the_longest_prefix() {
        let key = |letter: &str| Ok(Password::new(letter.as_bytes()).unwrap());
        let prefix = |text: &str| text.parse::<IpNet>().unwrap();
        let keys = [
            (prefix("10.0.0.0/8"), key("a")),
            (prefix("10.1.2.3/32"), key("b")),
            (prefix("10.1.0.0/16"), Err("no".into())),
        ];
        let keys = KeysInForce { ipv4: true, keys: keys.into() };
        assert_eq!(keys.key([10, 2, 0, 1].into()), Some(key("a")));
        assert_eq!(keys.key([10, 1, 2, 3].into()), Some(key("b")));
        assert_eq!(keys.key([10, 1, 2, 4].into()), Some(Err("no".into())));
        assert_eq!(keys.key([11, 0, 0, 1].into()), None);
    }
}
