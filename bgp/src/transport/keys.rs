//! Keys of the listeners, of TCP-MD5 and TCP-AO: those that peers should have, and those that they have.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;

use ipnet::IpNet;

use super::signature;
use crate::config::{PeerConfig, SpeakerConfig};
use crate::protection::Signature;
use crate::types::PeerAddress;

/// The keys that listeners should have, by where peers connect from. Of the prefixes that hold an address the longest counts, for the kernel too.
pub(super) type Keys = BTreeMap<IpNet, Signature>;

/// What a listener has for an address: the prefix that it has it for, and a key, or the kernel's words why not.
pub(super) type Key = (IpNet, Result<Signature, String>);

/// The keys of a configuration. Two links may have one link-local address, and a listener one key for it: that of the first.
pub(super) fn of(config: &SpeakerConfig) -> Keys {
    // Of a range; a peer that is named comes before one of its prefix.
    let mut wanted: BTreeMap<IpNet, Option<&Signature>> = BTreeMap::new();
    for (peer, config) in config.peers.iter().filter(|(_, config)| !config.stays_down()) {
        if let Some(address) = address_of(*peer, config) {
            wanted.entry(address.into()).or_insert(config.authentication.signature());
        }
    }
    for (range, config) in config.ranges.iter().filter(|(_, config)| !config.peer.stays_down()) {
        wanted.entry(*range).or_insert(config.peer.authentication.signature());
    }
    let mut keys = Keys::new();
    for (prefix, signature) in &wanted {
        let Some(signature) = signature else { continue };
        let parts = without(*prefix, &holes(*prefix, signature, &wanted));
        keys.extend(parts.into_iter().map(|part| (part, (*signature).clone())));
    }
    keys
}

/// What of a prefix its key must not be set for. The kernel has no exception from a key, and would drop what comes unsigned: around whoever
/// has none the key is set in parts. A prefix within, where all have TCP-MD5, takes care of itself by being longer. Keys of TCP-AO that meet
/// in an address must not have an ID in common, and it has no key of TCP-MD5 beside them: around whoever has others they are set in parts.
fn holes(prefix: IpNet, signature: &Signature, wanted: &BTreeMap<IpNet, Option<&Signature>>) -> Vec<IpNet> {
    let within = || wanted.iter().filter(move |(inner, _)| **inner != prefix && prefix.contains(*inner));
    let is_whole =
        !matches!(signature, Signature::Ao(_)) || prefix.prefix_len() == 0 && within().next().is_none();
    let is_apart = |inner: &Option<&Signature>| match (signature, inner) {
        (Signature::Md5(_), Some(Signature::Md5(_))) => false,
        (Signature::Md5(_), Some(Signature::Ao(_)) | None) | (Signature::Ao(_), _) => true,
    };
    let apart: Vec<IpNet> = within().filter(|(_, inner)| is_apart(inner)).map(|(inner, _)| *inner).collect();
    let has_apart = |inner: &IpNet| apart.iter().any(|other| inner.contains(other));
    let others = within().map(|(inner, _)| *inner).filter(has_apart);
    others.chain((!is_whole).then(|| unspecified(prefix)).filter(|nobody| prefix.contains(nobody))).collect()
}

/// The address that is nobody's. The kernel takes a key of TCP-AO for a prefix that begins with it only if that is all addresses.
fn unspecified(prefix: IpNet) -> IpNet {
    match prefix {
        IpNet::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED).into(),
        IpNet::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED).into(),
    }
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

/// What a listener has.
#[derive(Clone, Debug)]
pub(super) struct KeysInForce {
    ipv4: bool,
    keys: BTreeMap<IpNet, Result<Signature, String>>,
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
            .find_map(|prefix| self.keys.get_key_value(&prefix.trunc()))
            .map(|(prefix, key)| (*prefix, key.clone()))
    }

    /// Changes what differs on the socket; gives the keys that the kernel does not take, and why.
    ///
    /// First it adds, so that no address which is to have a key is without one meanwhile; what found no room, or met another key of TCP-AO, is
    /// tried again behind that. Whoever connects between the two is accepted by the key that is there behind them, and has none: it is refused.
    pub(super) fn put_in_force(&mut self, socket: &impl AsFd, wanted: &Keys) -> Vec<(IpNet, String)> {
        self.add(socket, wanted);
        self.keys.retain(|prefix, key| {
            let stays = wanted.contains_key(prefix);
            if !stays {
                signature::forget(socket, *prefix, key.as_ref().ok());
            }
            stays
        });
        self.add(socket, wanted)
    }

    fn add(&mut self, socket: &impl AsFd, wanted: &Keys) -> Vec<(IpNet, String)> {
        let mut refused = Vec::new();
        for (prefix, wanted) in wanted.iter().filter(|(prefix, _)| prefix.addr().is_ipv4() == self.ipv4) {
            let has = self.keys.get(prefix).and_then(|key| key.as_ref().ok());
            if has == Some(wanted) {
                continue;
            }
            let key = signature::replace(socket, *prefix, has, wanted).map(|()| wanted.clone());
            if let Err(error) = &key {
                refused.push((*prefix, error.clone()));
            }
            self.keys.insert(*prefix, key);
        }
        refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protection::{Password, ao};

    fn nets(text: &str) -> Vec<IpNet> {
        text.split_whitespace().map(|net| net.parse().unwrap()).collect()
    }

    /// What is signed with a letter: TCP-AO with capitals.
    fn signature(letter: &str) -> Signature {
        let secret = Password::new(letter.as_bytes()).unwrap();
        if letter.chars().all(char::is_lowercase) {
            return Signature::Md5(secret);
        }
        let key = ao::Key { send_id: 1, receive_id: 1, algorithm: <_>::default(), secret };
        Signature::Ao(ao::KeyChain::new(vec![key]).unwrap())
    }

    fn letter(signature: &Signature) -> String {
        let octets = match signature {
            Signature::Md5(password) => password.octets(),
            Signature::Ao(keys) => keys.first().secret.octets(),
        };
        String::from_utf8(octets.to_vec()).unwrap()
    }

    /// What [`of`] makes of prefixes with the keys of these letters; `-`: none.
    fn keys(wanted: &str) -> Vec<String> {
        let words: Vec<&str> = wanted.split_whitespace().collect();
        let signatures: Vec<Option<Signature>> =
            words.iter().map(|w| Some(&w[..1]).filter(|c| *c != "-").map(signature)).collect();
        let wanted: BTreeMap<IpNet, Option<&Signature>> =
            words.iter().zip(&signatures).map(|(w, s)| (w[1..].parse().unwrap(), s.as_ref())).collect();
        let signed = wanted.iter().filter_map(|(prefix, signature)| Some((*prefix, (*signature)?)));
        let parts = signed.flat_map(|(prefix, signature)| {
            let parts = without(prefix, &holes(prefix, signature, &wanted)).into_iter();
            parts.map(move |part| format!("{}{part}", letter(signature)))
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
    fn no_key_of_tcp_ao_meets_another() {
        assert_eq!(keys("A10.0.0.0/31 B10.0.0.1/32"), ["A10.0.0.0/32", "B10.0.0.1/32"]);
        assert_eq!(keys("A10.0.0.0/31 b10.0.0.1/32"), ["A10.0.0.0/32", "b10.0.0.1/32"]);
        assert_eq!(keys("a10.0.0.0/31 B10.0.0.1/32"), ["a10.0.0.0/32", "B10.0.0.1/32"]);
        assert_eq!(
            keys("a10.0.0.0/29 b10.0.0.0/30 C10.0.0.1/32 -10.0.0.4/32").join(" "),
            "a10.0.0.5/32 a10.0.0.6/31 b10.0.0.0/32 b10.0.0.2/31 C10.0.0.1/32"
        );
    }

    #[test]
    fn no_part_of_tcp_ao_begins_with_nobodys_address() {
        assert_eq!(keys("A0.0.0.0/0"), ["A0.0.0.0/0"]);
        assert_eq!(keys("A0.0.0.0/30"), ["A0.0.0.1/32", "A0.0.0.2/31"]);
        let parts = keys("A0.0.0.0/0 B10.0.0.1/32");
        assert!(parts.len() == 59 && parts.iter().all(|part| !part.contains("A0.0.0.0/")), "{parts:?}");
        assert_eq!(keys("a0.0.0.0/30 -0.0.0.2/31"), ["a0.0.0.0/31"], "TCP-MD5 does not mind");
    }

    #[test]
    fn the_key_of_an_address_is_that_of_the_longest_prefix() {
        let prefix = |text: &str| text.parse::<IpNet>().unwrap();
        let keys = [
            (prefix("10.0.0.0/8"), Ok(signature("a"))),
            (prefix("10.1.2.3/32"), Ok(signature("B"))),
            (prefix("10.1.0.0/16"), Err("no".into())),
        ];
        let in_force = KeysInForce { ipv4: true, keys: keys.clone().into() };
        let [a, b, no] = keys.map(Some);
        assert_eq!(in_force.key([10, 2, 0, 1].into()), a);
        assert_eq!(in_force.key([10, 1, 2, 3].into()), b);
        assert_eq!(in_force.key([10, 1, 2, 4].into()), no);
        assert_eq!(in_force.key([11, 0, 0, 1].into()), None);
    }
}
