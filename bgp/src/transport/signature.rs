//! Signed sockets: the keys of TCP-MD5 (RFC 2385) and TCP-AO (RFC 5925) as the kernel has them.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, OnceLock, Weak};

use ipnet::IpNet;
use socket2::{Domain, Protocol, Socket, Type};

use super::keys::Key as ListenerKey;
use super::sockopt;
use crate::protection::Signature;
use crate::protection::ao::{Key, KeyChain, NO_TCP_AO, Step};

/// Whether this kernel has TCP-AO: Linux 6.7 and later have if they are built with `CONFIG_TCP_AO`. One that cannot be asked is taken to have it,
/// so that a session gets the kernel's own words. Asked once.
#[must_use]
pub fn has_tcp_ao() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    *HAS.get_or_init(|| {
        let asked = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))
            .and_then(|socket| sockopt::ao_in_use(&socket));
        asked.err().and_then(|error| error.raw_os_error()) != Some(libc::ENOPROTOOPT)
    })
}

/// Gives a socket, which is not connected, what signs segments from and to a prefix, in the place of what it has for it. Of TCP-AO keys those
/// that stay are not touched.
///
/// # Errors
/// Why the kernel does not take it. The socket has none for the prefix then.
pub(super) fn replace(
    socket: &impl AsFd,
    prefix: IpNet,
    has: Option<&Signature>,
    wanted: &Signature,
) -> Result<(), String> {
    let result = match wanted {
        Signature::Md5(password) => {
            if let Some(Signature::Ao(_)) = has {
                forget(socket, prefix, has);
            }
            sockopt::set_md5(socket, prefix, Some(password)).map_err(|error| explain_md5(&error))
        }
        Signature::Ao(keys) => {
            let before = match has {
                Some(Signature::Ao(before)) => Some(before),
                _ => {
                    forget(socket, prefix, has);
                    None
                }
            };
            let before = before.into_iter().flat_map(KeyChain::iter);
            keys.steps_from(before).into_iter().try_for_each(|step| match step {
                Step::Add(key) => add(socket, prefix, key, false),
                Step::Remove(key) => removed(sockopt::remove_ao_key(socket, prefix, key)),
            })
        }
    };
    if result.is_err() {
        forget(socket, prefix, has);
        forget(socket, prefix, Some(wanted));
    }
    result
}

/// Takes what signs segments from and to a prefix off a socket. That it has less is no error, and there is no other.
pub(super) fn forget(socket: &impl AsFd, prefix: IpNet, has: Option<&Signature>) {
    match has {
        Some(Signature::Md5(_)) => {
            let _ = sockopt::set_md5(socket, prefix, None);
        }
        Some(Signature::Ao(keys)) => {
            for key in keys.iter() {
                let _ = sockopt::remove_ao_key(socket, prefix, key);
            }
        }
        None => {}
    }
}

/// Sees that an accepted connection is signed as it should be, and has been so from its first segment on: that the listener had such a
/// key for it, whatever it was given since. Its task gives it the TCP-AO keys that it is to have now.
///
/// # Errors
/// Why it is not. It is to be closed then.
pub(super) fn ensure(
    connection: &impl AsFd,
    remote: IpAddr,
    listener: Option<ListenerKey>,
    wanted: Option<&Signature>,
) -> Result<Option<Signed>, String> {
    let listener = listener.map(|(prefix, key)| key.map(|key| (prefix, key))).transpose()?;
    match (listener, wanted) {
        (None, None) => Ok(None),
        (Some((_, Signature::Md5(has))), Some(Signature::Md5(wanted))) if has == *wanted => {
            // It has it already, unless it began while the listener's key of another kind was replaced.
            sockopt::set_md5(connection, remote.into(), Some(wanted)).map_err(|error| explain_md5(&error))?;
            Ok(None)
        }
        (Some((prefix, Signature::Ao(has))), Some(Signature::Ao(wanted))) => {
            ensure_ao(connection)?;
            wanted.staying(&has).ok_or(NO_KEY_STAYS)?;
            let keys = AoKeys::of(remote.into(), prefix, &has);
            let signed = Signed::new(connection, keys).map_err(|error| error.to_string())?;
            Ok(Some(Signed { pending: Some(wanted.clone()), ..signed }))
        }
        (_, Some(Signature::Md5(_))) => Err("it does not have the TCP-MD5 key that the peer has now".into()),
        (_, Some(Signature::Ao(_))) => Err(NO_KEY_STAYS.into()),
        (Some(_), None) => Err("it has a key, and the peer has none now".into()),
    }
}

fn explain_md5(error: &io::Error) -> String {
    let why = match error.raw_os_error() {
        Some(libc::ENOPROTOOPT) => ": it is built without TCP-MD5 (CONFIG_TCP_MD5SIG)",
        _ => advice(error),
    };
    format!("the kernel does not take the TCP-MD5 key ({error}){why}")
}

/// What is said of a connection that cannot go on with the keys of the peer.
const NO_KEY_STAYS: &str = "it has none of the TCP-AO keys that the peer has now";

fn add(socket: &impl AsFd, prefix: IpNet, key: &Key, preferred: bool) -> Result<(), String> {
    sockopt::add_ao_key(socket, prefix, key, preferred).map_err(|error| {
        let why = match error.raw_os_error() {
            Some(libc::ENOPROTOOPT) => return NO_TCP_AO.to_owned(),
            Some(libc::ENOENT) => {
                ": it is built without the algorithm (CONFIG_CRYPTO_SHA1, CONFIG_CRYPTO_CMAC)"
            }
            _ => advice(&error),
        };
        format!("the kernel does not take the TCP-AO key {} ({error}){why}", key.send_id)
    })
}

/// One that is not there is removed.
fn removed(result: io::Result<()>) -> Result<(), String> {
    match result {
        Err(error) if error.raw_os_error() != Some(libc::ENOENT) => {
            Err(format!("the kernel does not let go of a TCP-AO key ({error})"))
        }
        _ => Ok(()),
    }
}

fn ensure_ao(connection: &impl AsFd) -> Result<(), String> {
    match sockopt::ao_in_use(connection) {
        Ok(_) => Ok(()),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
            Err("it is not signed with TCP-AO".to_owned())
        }
        Err(error) => Err(format!("the kernel does not say whether it is signed with TCP-AO ({error})")),
    }
}

fn advice(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::ENOMEM) => ": more room for keys is given by the sysctl net.core.optmem_max",
        _ => "",
    }
}

/// The TCP-AO keys that a connection uses (RFC 5925 section 7.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AoInUse {
    /// The SendID of the key that we sign with, `current_key`.
    pub current: u8,
    /// The RecvID of the key that we ask the peer to sign with, `rnext_key`.
    pub rnext: u8,
    /// How many segments were dropped as they were not signed, with no key that is known, or wrongly.
    pub bad: u64,
}

/// The TCP-AO keys of a socket.
#[derive(Debug)]
pub(super) struct AoKeys {
    /// Each with the prefix that the kernel knows it by.
    keys: Vec<(IpNet, Key)>,
    remote: IpNet,
}

impl AoKeys {
    /// Gives a socket that is not connected yet its keys. It signs with the first.
    ///
    /// # Errors
    /// Why the kernel does not take them.
    pub(super) fn dial(socket: &impl AsFd, remote: IpAddr, keys: &KeyChain) -> Result<Self, String> {
        let remote = IpNet::from(remote);
        for (index, key) in keys.iter().enumerate() {
            add(socket, remote, key, index == 0)?;
        }
        Ok(Self::of(remote, remote, keys))
    }

    fn of(remote: IpNet, prefix: IpNet, keys: &KeyChain) -> Self {
        Self { keys: keys.iter().map(|key| (prefix, key.clone())).collect(), remote }
    }

    fn roll_over(&mut self, connection: &impl AsFd, wanted: &KeyChain) -> Result<(), String> {
        ensure_ao(connection)?;
        let has: Vec<Key> = self.keys.iter().map(|(_, key)| key.clone()).collect();
        let stays = wanted.iter().find(|key| has.contains(key)).ok_or(NO_KEY_STAYS)?;
        for step in wanted.steps_from(has.iter()) {
            match step {
                Step::Add(key) => {
                    add(connection, self.remote, key, false)?;
                    self.keys.push((self.remote, key.clone()));
                }
                Step::Remove(key) => self.remove(connection, key, stays)?,
            }
        }
        sockopt::ask_for_ao_key(connection, wanted.first())
            .map_err(|error| format!("the kernel does not ask the peer for a TCP-AO key ({error})"))
    }

    fn remove(&mut self, connection: &impl AsFd, key: &Key, instead: &Key) -> Result<(), String> {
        for (prefix, _) in self.keys.iter().filter(|(_, has)| has == key) {
            // The peer may ask for the key at that moment, and then it is in use.
            let mut attempts =
                (0..REMOVE_ATTEMPTS).map(|_| sockopt::replace_ao_key(connection, *prefix, key, instead));
            let is_over = |result: &io::Result<()>| {
                result.as_ref().err().and_then(io::Error::raw_os_error) != Some(libc::EBUSY)
            };
            match attempts.find(is_over) {
                Some(result) => removed(result)?,
                None => {
                    return Err(format!(
                        "the kernel does not let go of the TCP-AO key {}: it is in use",
                        key.send_id
                    ));
                }
            }
        }
        self.keys.retain(|(_, has)| has != key);
        Ok(())
    }
}

/// How often a key that a connection has begun to use is tried to be removed.
const REMOVE_ATTEMPTS: usize = 3;

/// A connection that is signed with TCP-AO. It has a descriptor of its own, with which the connection is open as long as it is there.
#[derive(Debug)]
pub(super) struct Signed {
    socket: Arc<OwnedFd>,
    keys: AoKeys,
    /// Those that it is to have before all others.
    pending: Option<KeyChain>,
}

impl Signed {
    pub(super) fn new(connection: &impl AsFd, keys: AoKeys) -> io::Result<Self> {
        Ok(Self { socket: Arc::new(connection.as_fd().try_clone_to_owned()?), keys, pending: None })
    }

    /// Makes these the keys of the connection, which goes on; the peer is asked for the first. To remove one takes the kernel some
    /// milliseconds.
    ///
    /// # Errors
    /// Why it cannot have them: it is not signed, no key stays that it could go on with, or the kernel's words. It is to be closed then.
    pub(super) fn roll_over(&mut self, wanted: &KeyChain) -> Result<(), String> {
        self.keys.roll_over(&self.socket, wanted)
    }

    /// The keys that it is to have before anybody asks for others.
    pub(super) fn take_pending(&mut self) -> Option<KeyChain> {
        self.pending.take()
    }

    /// What tells which keys it uses, as long as it is there.
    pub(super) fn observer(&self) -> Observer {
        Observer(Arc::downgrade(&self.socket))
    }
}

/// Looks at the keys of a connection without holding it open.
#[derive(Debug, Default)]
pub(super) struct Observer(Weak<OwnedFd>);

impl Observer {
    /// Nothing where the connection is gone, or is not signed with TCP-AO.
    pub(super) fn in_use(&self) -> Option<AoInUse> {
        sockopt::ao_in_use(&self.0.upgrade()?).ok()
    }
}
