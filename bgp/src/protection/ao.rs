//! TCP-AO (RFC 5925): the keys that the segments of a session are signed with. There may be several, so that they can be replaced
//! while the session lasts.

use std::sync::Arc;

use super::Password;

/// What is said of a kernel that has no TCP-AO.
pub const NO_TCP_AO: &str =
    "this kernel has no TCP-AO, which Linux 6.7 and later have if they are built with CONFIG_TCP_AO";

/// How a segment is signed (RFC 5926 section 3.1). The MAC has 96 bits with either.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// HMAC-SHA-1-96.
    #[default]
    HmacSha1,
    /// AES-128-CMAC-96.
    AesCmac,
}

/// A master key tuple (RFC 5925 section 3.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The KeyID of the segments that we sign with it.
    pub send_id: u8,
    /// The KeyID of the segments that the peer signs with it.
    pub receive_id: u8,
    /// How they are signed.
    pub algorithm: Algorithm,
    /// The master key.
    pub secret: Password,
}

impl Key {
    fn meets(&self, other: &Self) -> bool {
        self.send_id == other.send_id || self.receive_id == other.receive_id
    }
}

/// The keys of a session, 1 to [`Self::MAX`], by the order of preference: we sign with the first until the peer asks for another,
/// and ask the peer to sign with the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyChain(Arc<(Key, Vec<Key>)>);

impl KeyChain {
    /// The most keys of one chain.
    pub const MAX: usize = 8;

    /// The chain of these keys.
    ///
    /// # Errors
    /// What is wrong with them, without a word of their secrets.
    pub fn new(keys: Vec<Key>) -> Result<Self, String> {
        let count = keys.len();
        let mut rest = keys.into_iter();
        let Some(first) = rest.next() else { return Err("has no key".into()) };
        if count > Self::MAX {
            return Err(format!("has {count} keys, and {} are the most", Self::MAX));
        }
        let chain = Self(Arc::new((first, rest.collect())));
        for (index, key) in chain.iter().enumerate() {
            for other in chain.iter().take(index) {
                if key.send_id == other.send_id {
                    return Err(format!("has two keys with the sendID {}", key.send_id));
                }
                if key.receive_id == other.receive_id {
                    return Err(format!("has two keys with the receiveID {}", key.receive_id));
                }
            }
        }
        Ok(chain)
    }

    /// The key that is preferred.
    #[must_use]
    pub fn first(&self) -> &Key {
        &self.0.0
    }

    /// All keys.
    pub fn iter(&self) -> impl Iterator<Item = &Key> + Clone {
        std::iter::once(&self.0.0).chain(&self.0.1)
    }

    /// The key, as preferred as can be, with which a connection that has the keys of `before` goes on while the others are replaced. None: there
    /// is no such key, or an ID means another key now, which the other end may still have under it.
    #[must_use]
    pub fn staying(&self, before: &Self) -> Option<&Key> {
        let is_reused = |key: &Key| before.iter().any(|old| old != key && old.meets(key));
        if self.iter().any(is_reused) {
            return None;
        }
        self.iter().find(|key| before.iter().any(|old| old == *key))
    }

    /// What makes this chain of `keys`, in an order that the kernel takes: no two keys have an ID in common at any time (RFC 5925
    /// section 3.1), and what can be added is there before anything goes.
    pub fn steps_from<'a>(&'a self, keys: impl Iterator<Item = &'a Key> + Clone) -> Vec<Step<'a>> {
        let missing = self.iter().filter(|key| keys.clone().all(|has| has != *key));
        let (late, early): (Vec<_>, Vec<_>) = missing.partition(|key| keys.clone().any(|has| has.meets(key)));
        let unwanted = keys.filter(|has| self.iter().all(|key| key != *has));
        let early = early.into_iter().map(Step::Add);
        early.chain(unwanted.map(Step::Remove)).chain(late.into_iter().map(Step::Add)).collect()
    }
}

/// A change of the keys of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// It gets this one.
    Add(&'a Key),
    /// It loses this one.
    Remove(&'a Key),
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key by its IDs and its secret: `1/2a`.
    fn key(text: &str) -> Key {
        let (send_id, rest) = text.split_once('/').unwrap();
        let (receive_id, secret) = rest.split_at(rest.len() - 1);
        Key {
            send_id: send_id.parse().unwrap(),
            receive_id: receive_id.parse().unwrap(),
            algorithm: Algorithm::default(),
            secret: Password::new(secret.as_bytes()).unwrap(),
        }
    }

    fn keys(text: &str) -> Vec<Key> {
        text.split_whitespace().map(key).collect()
    }

    fn chain(text: &str) -> KeyChain {
        KeyChain::new(keys(text)).unwrap()
    }

    #[test]
    fn a_chain_has_1_to_8_keys_and_no_id_twice() {
        let many: Vec<String> = (0..9).map(|n| format!("{n}/{n}x")).collect();
        for (text, fault) in [
            ("", "has no key"),
            (&many.join(" "), "has 9 keys, and 8 are the most"),
            ("1/1a 2/2b 1/3c", "has two keys with the sendID 1"),
            ("1/2a 3/2b", "has two keys with the receiveID 2"),
        ] {
            assert_eq!(KeyChain::new(keys(text)).map(|_| ()), Err(fault.to_owned()));
        }
        let chain = chain("1/2a 2/1b 255/0c");
        let ids: Vec<_> = chain.iter().map(|key| (key.send_id, key.receive_id)).collect();
        assert_eq!((chain.first().send_id, ids), (1, vec![(1, 2), (2, 1), (255, 0)]));
        assert!(!format!("{chain:?}").contains("97"), "a secret is shown");
    }

    #[test]
    fn keys_change_so_that_no_id_is_there_twice_and_nothing_goes_too_early() {
        let steps = |has: &str, wanted: &str| {
            let has = keys(has);
            let wanted = chain(wanted);
            let steps = wanted.steps_from(has.iter());
            let word = |step: &Step<'_>| match step {
                Step::Add(key) => format!("+{}/{}", key.send_id, key.receive_id),
                Step::Remove(key) => format!("-{}/{}", key.send_id, key.receive_id),
            };
            steps.iter().map(word).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(steps("", "1/1a 2/2b"), "+1/1 +2/2");
        assert_eq!(steps("1/1a", "1/1a"), "");
        assert_eq!(steps("1/1a", "2/2b 1/1a"), "+2/2");
        assert_eq!(steps("2/2b 1/1a", "2/2b"), "-1/1");
        assert_eq!(steps("1/1a", "2/2b"), "+2/2 -1/1");
        assert_eq!(steps("1/1a 2/2b", "1/1c 2/2b 3/3d"), "+3/3 -1/1 +1/1", "another secret");
        assert_eq!(steps("1/1a 2/2b", "1/2c"), "-1/1 -2/2 +1/2");
    }

    #[test]
    fn a_session_goes_on_with_the_most_preferred_key_that_stays() {
        let staying = |has: &str, wanted: &str| {
            chain(wanted).staying(&chain(has)).map(|key| (key.send_id, key.receive_id))
        };
        assert_eq!(staying("1/1a 2/2b", "3/3c 2/2b 1/1a"), Some((2, 2)));
        assert_eq!(staying("1/1a", "1/1b"), None, "the same IDs, another secret");
        assert_eq!(staying("1/1a 2/2b", "1/1c 2/2b"), None, "the peer may still sign with the old one");
        assert_eq!(staying("1/1a 2/2b", "1/3c 2/2b"), None);
        assert_eq!(staying("2/2b", "1/3c 2/2b"), Some((2, 2)), "an ID that was not in use");
        let aes = KeyChain::new(vec![Key { algorithm: Algorithm::AesCmac, ..key("1/1a") }]).unwrap();
        assert_eq!(aes.staying(&chain("1/1a")), None);
    }
}
