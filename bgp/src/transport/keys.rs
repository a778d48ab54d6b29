//! TCP-MD5 keys of the listeners: those that peers should have, and those that they have.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;

use super::sockopt;
use crate::config::{PeerConfig, SpeakerConfig};
use crate::protection::Password;
use crate::types::PeerAddress;

/// The keys that listeners should have, by the peer's address.
pub(super) type Keys = BTreeMap<IpAddr, Password>;

/// What a listener has for an address: a key, or the kernel's words why not.
pub(super) type Key = Result<Password, String>;

/// The keys of a configuration. Two links may have one link-local address, and a listener one key for it: that of the first.
pub(super) fn of(config: &SpeakerConfig) -> Keys {
    let mut keys = Keys::new();
    for (peer, config) in config.peers.iter().filter(|(_, config)| !config.stays_down()) {
        if let (Some(address), Some(password)) = (address_of(*peer, config), config.authentication.password())
        {
            keys.entry(address).or_insert_with(|| password.clone());
        }
    }
    keys
}

/// Where a peer connects from; none while it is not found.
pub(super) fn address_of(peer: PeerAddress, config: &PeerConfig) -> Option<IpAddr> {
    peer.ip().or(config.neighbour.map(IpAddr::V6))
}

/// Gives a socket the key of an address.
///
/// # Errors
/// Why the kernel does not take it.
pub(super) fn set(socket: &impl AsFd, peer: IpAddr, password: &Password) -> Result<(), String> {
    sockopt::set_md5(socket, peer, Some(password)).map_err(|error| explain(&error))
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
    keys: BTreeMap<IpAddr, Key>,
}

impl KeysInForce {
    /// Nothing yet, of a socket of this family.
    pub(super) fn new(ipv4: bool) -> Self {
        Self { ipv4, keys: BTreeMap::new() }
    }

    /// What the listener has for an address.
    pub(super) fn key(&self, address: IpAddr) -> Option<Key> {
        self.keys.get(&address).cloned()
    }

    /// Changes what differs on the socket; gives the keys that the kernel does not take, and why.
    pub(super) fn put_in_force(&mut self, socket: &impl AsFd, wanted: &Keys) -> Vec<(IpAddr, String)> {
        self.keys.retain(|address, _| {
            let stays = wanted.contains_key(address);
            if !stays {
                forget(socket, *address);
            }
            stays
        });
        let mut refused = Vec::new();
        for (address, password) in wanted.iter().filter(|(address, _)| address.is_ipv4() == self.ipv4) {
            if self.keys.get(address).is_some_and(|key| key.as_ref() == Ok(password)) {
                continue;
            }
            let key = set(socket, *address, password).map(|()| password.clone());
            if let Err(error) = &key {
                // That of before must not stay in force.
                forget(socket, *address);
                refused.push((*address, error.clone()));
            }
            self.keys.insert(*address, key);
        }
        refused
    }
}

/// Takes the key of an address off a socket. That it has none is no error, and there is no other.
fn forget(socket: &impl AsFd, address: IpAddr) {
    let _ = sockopt::set_md5(socket, address, None);
}
