//! The socket options that no library has: the keys of TCP-MD5 and TCP-AO, the least TTL of what is received, the SYN that began a connection.

#![expect(unsafe_code, reason = "setsockopt(2) and getsockopt(2) take pointers")]

use std::io;
use std::net::IpAddr;
use std::num::NonZeroU8;
use std::os::fd::{AsFd, AsRawFd};

use ipnet::IpNet;
use libc::{c_int, socklen_t};

use super::signature::AoInUse;
use crate::protection::Password;
use crate::protection::ao::{Algorithm, Key};

/// The TTL, or hop limit, that GTSM sends with (RFC 5082 section 3).
pub(super) const TTL_MAX: u8 = 255;

/// `struct sockaddr_storage`.
const ADDRESS_LENGTH: usize = 128;

/// That a key is for a prefix (`TCP_MD5SIG_FLAG_PREFIX`).
const FLAG_PREFIX: u8 = 1;

/// `TCP_AO_ADD_KEY`, `TCP_AO_DEL_KEY` and `TCP_AO_INFO` of linux/tcp.h.
const AO_ADD_KEY: c_int = 38;
const AO_DEL_KEY: c_int = 39;
const AO_INFO: c_int = 40;

/// `TCP_AO_MAXKEYLEN`.
const AO_KEY_MAX: usize = 80;

/// `struct tcp_ao_info_opt`.
const AO_INFO_LENGTH: usize = 48;

/// The octets of the MAC of both algorithms (RFC 5926 section 3.2).
const AO_MAC_LENGTH: u8 = 12;

/// The first two bit fields of the three structures of TCP-AO.
const AO_SET_CURRENT: u32 = bit_field(0);
const AO_SET_RNEXT: u32 = bit_field(1);

/// Of `struct tcp_ao_del`: the kernel need not wait until nobody looks at the key, as nobody signs with one of a socket that listens.
const AO_DEL_ASYNC: u32 = bit_field(2);

/// The longest IP and TCP header that a SYN can have: IPv6 extension headers are not among what is kept of it.
const SYN_MAX: usize = 256;

fn set(socket: &impl AsFd, level: c_int, name: c_int, value: &[u8]) -> io::Result<()> {
    let length = socklen_t::try_from(value.len()).map_err(io::Error::other)?;
    // SAFETY: the pointer and the length are of one slice, which lives through the call.
    let result =
        unsafe { libc::setsockopt(socket.as_fd().as_raw_fd(), level, name, value.as_ptr().cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// How many octets of `value` the kernel has filled.
fn get(socket: &impl AsFd, level: c_int, name: c_int, value: &mut [u8]) -> io::Result<usize> {
    let mut length = socklen_t::try_from(value.len()).map_err(io::Error::other)?;
    let (fd, to) = (socket.as_fd().as_raw_fd(), value.as_mut_ptr().cast());
    // SAFETY: the kernel writes no more than `length` octets, which is how many the slice has.
    let result = unsafe { libc::getsockopt(fd, level, name, to, &raw mut length) };
    if result == 0 { Ok(length as usize) } else { Err(io::Error::last_os_error()) }
}

/// Has segments from and to the addresses of a prefix signed with a password; with none, no more. Of prefixes that hold an address the longest counts. Of link-local addresses the kernel does not tell the links
/// apart: it takes an interface's index for that of a VRF.
pub(super) fn set_md5(socket: &impl AsFd, peers: IpNet, password: Option<&Password>) -> io::Result<()> {
    let key = password.map_or(&[][..], Password::octets);
    // struct tcp_md5sig: address, flags, prefix length, key length, index of the interface, key.
    let mut value = Vec::with_capacity(ADDRESS_LENGTH + 8 + Password::MAX);
    value.extend(socket_address(peers.addr()));
    value.extend([FLAG_PREFIX, peers.prefix_len()]);
    value.extend(u16::try_from(key.len()).map_err(io::Error::other)?.to_ne_bytes());
    value.extend(0_u32.to_ne_bytes());
    value.extend(key);
    value.resize(ADDRESS_LENGTH + 8 + Password::MAX, 0);
    set(socket, libc::IPPROTO_TCP, libc::TCP_MD5SIG_EXT, &value)
}

/// Bit field number `n`, of one bit as those before it, of a `u32`: compilers begin with the least bit where the least octet is first.
const fn bit_field(n: u32) -> u32 {
    if cfg!(target_endian = "little") { 1 << n } else { 1 << (31 - n) }
}

/// Adds a TCP-AO key for the addresses of a prefix. No key that is there may have one of its IDs for any of them. `preferred`: we sign with
/// it and ask the peer for it; not of a socket that listens.
pub(super) fn add_ao_key(socket: &impl AsFd, peers: IpNet, key: &Key, preferred: bool) -> io::Result<()> {
    let algorithm: &[u8] = match key.algorithm {
        Algorithm::HmacSha1 => b"hmac(sha1)",
        Algorithm::AesCmac => b"cmac(aes128)",
    };
    let secret = key.secret.octets();
    let length = u8::try_from(secret.len()).map_err(io::Error::other)?;
    let flags = if preferred { AO_SET_CURRENT | AO_SET_RNEXT } else { 0 };
    // struct tcp_ao_add: address, name of the algorithm, interface, flags, padding, prefix length, SendID, RecvID, length of the MAC, flags of
    // the key, length of the key, key.
    let mut value = Vec::with_capacity(ADDRESS_LENGTH + 80 + AO_KEY_MAX);
    value.extend(socket_address(peers.addr()));
    value.extend(algorithm);
    value.resize(ADDRESS_LENGTH + 64, 0);
    value.extend(0_u32.to_ne_bytes());
    value.extend(flags.to_ne_bytes());
    value.extend([0, 0]);
    value.extend([peers.prefix_len(), key.send_id, key.receive_id, AO_MAC_LENGTH, 0, length]);
    value.extend(secret);
    value.resize(ADDRESS_LENGTH + 80 + AO_KEY_MAX, 0);
    set(socket, libc::IPPROTO_TCP, AO_ADD_KEY, &value)
}

/// Takes a TCP-AO key off a socket that is not connected. It may listen.
pub(super) fn remove_ao_key(socket: &impl AsFd, peers: IpNet, key: &Key) -> io::Result<()> {
    match delete_ao_key(socket, peers, key, AO_DEL_ASYNC, [0, 0]) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            delete_ao_key(socket, peers, key, 0, [0, 0])
        }
        result => result,
    }
}

/// Takes a TCP-AO key off a connection, which goes on with another that it has, `instead`, where it uses this one. The kernel takes
/// milliseconds for it.
pub(super) fn replace_ao_key(
    connection: &impl AsFd,
    peers: IpNet,
    key: &Key,
    instead: &Key,
) -> io::Result<()> {
    let in_use = ao_in_use(connection)?;
    let (mut flags, mut others) = (0, [0, 0]);
    if in_use.current == key.send_id {
        flags |= AO_SET_CURRENT;
        others[0] = instead.send_id;
    }
    if in_use.rnext == key.receive_id {
        flags |= AO_SET_RNEXT;
        others[1] = instead.receive_id;
    }
    delete_ao_key(connection, peers, key, flags, others)
}

/// `others`: the SendID to sign with, and the RecvID to ask for, from now on, as far as `flags` say so.
fn delete_ao_key(
    socket: &impl AsFd,
    peers: IpNet,
    key: &Key,
    flags: u32,
    [current, rnext]: [u8; 2],
) -> io::Result<()> {
    // struct tcp_ao_del: address, interface, flags, padding, prefix length, SendID, RecvID, that of the key to sign with, that of the key to
    // ask for, flags of the key.
    let mut value = Vec::with_capacity(ADDRESS_LENGTH + 16);
    value.extend(socket_address(peers.addr()));
    value.extend(0_u32.to_ne_bytes());
    value.extend(flags.to_ne_bytes());
    value.extend([0, 0]);
    value.extend([peers.prefix_len(), key.send_id, key.receive_id, current, rnext, 0]);
    set(socket, libc::IPPROTO_TCP, AO_DEL_KEY, &value)
}

/// Has a connection ask the peer to sign with this key.
pub(super) fn ask_for_ao_key(socket: &impl AsFd, key: &Key) -> io::Result<()> {
    let mut value = Vec::with_capacity(AO_INFO_LENGTH);
    value.extend(AO_SET_RNEXT.to_ne_bytes());
    value.extend([0, 0, 0, key.receive_id]);
    value.resize(AO_INFO_LENGTH, 0);
    set(socket, libc::IPPROTO_TCP, AO_INFO, &value)
}

/// What a connection uses of its TCP-AO keys; an error where it has none (`ENOENT`).
pub(super) fn ao_in_use(socket: &impl AsFd) -> io::Result<AoInUse> {
    let mut value = [0; AO_INFO_LENGTH];
    get(socket, libc::IPPROTO_TCP, AO_INFO, &mut value)?;
    // struct tcp_ao_info_opt: flags, padding, that of the key to sign with, that of the key to ask for, segments: good, bad, of no key, ...
    let [_, _, _, _, _, _, current, rnext, counts @ ..] = value;
    let count = |n: usize| {
        let octets = counts.get(n * 8..).and_then(|octets| octets.first_chunk());
        octets.copied().map_or(0, u64::from_ne_bytes)
    };
    Ok(AoInUse { current, rnext, bad: count(1).saturating_add(count(2)).saturating_add(count(3)) })
}

/// An address without port, as `struct sockaddr_in` or `sockaddr_in6`, filled up.
fn socket_address(address: IpAddr) -> [u8; ADDRESS_LENGTH] {
    let (family, octets) = match address {
        IpAddr::V4(v4) => (libc::AF_INET, [&[0; 2][..], &v4.octets()].concat()),
        IpAddr::V6(v6) => (libc::AF_INET6, [&[0; 6][..], &v6.octets()].concat()),
    };
    let mut storage = [0; ADDRESS_LENGTH];
    let written = (family as libc::sa_family_t).to_ne_bytes().into_iter().chain(octets);
    storage.iter_mut().zip(written).for_each(|(to, octet)| *to = octet);
    storage
}

/// The least TTL that a packet arrives with from a peer that is so many hops away at most, and sends with 255.
fn least_ttl(hops: NonZeroU8) -> u8 {
    TTL_MAX - (hops.get() - 1)
}

/// Sends with a TTL, or hop limit, of 255.
pub(super) fn send_with_ttl_max(socket: &impl AsFd, ipv4: bool) -> io::Result<()> {
    let socket = socket2::SockRef::from(socket);
    match ipv4 {
        true => socket.set_ttl_v4(TTL_MAX.into()),
        false => socket.set_unicast_hops_v6(TTL_MAX.into()),
    }
}

/// Drops what comes from farther away than `hops`, unread.
pub(super) fn receive_from_within(socket: &impl AsFd, ipv4: bool, hops: NonZeroU8) -> io::Result<()> {
    let (level, name) = match ipv4 {
        true => (libc::IPPROTO_IP, libc::IP_MINTTL),
        false => (libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT),
    };
    set(socket, level, name, &c_int::from(least_ttl(hops)).to_ne_bytes())
}

/// Keeps the SYN of each connection for [`ensure_opened_within`].
pub(super) fn save_syn(listener: &impl AsFd) -> io::Result<()> {
    set(listener, libc::IPPROTO_TCP, libc::TCP_SAVE_SYN, &c_int::from(true).to_ne_bytes())
}

/// Whether the SYN that an accepted connection began with came from within `hops`. What the connection has received since may be
/// from before anything could be asked of it.
pub(super) fn ensure_opened_within(stream: &impl AsFd, hops: NonZeroU8) -> io::Result<()> {
    let mut syn = [0; SYN_MAX];
    let length = get(stream, libc::IPPROTO_TCP, libc::TCP_SAVED_SYN, &mut syn)?;
    let header = syn.get(..length).unwrap_or_default();
    let ttl = match header.first().map(|octet| octet >> 4) {
        Some(4) => header.get(8),
        Some(6) => header.get(7),
        _ => None,
    };
    let least = least_ttl(hops);
    match ttl {
        Some(ttl) if *ttl >= least => Ok(()),
        Some(ttl) => Err(io::Error::other(format!(
            "its SYN came with a TTL of {ttl}: the peer is farther away than {hops} hops, or does not send with 255"
        ))),
        None => Err(io::Error::other("the kernel has kept no SYN of it, so that its TTL is not known")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_is_so_many_hops_away_arrives_with_the_least_ttl() {
        for (hops, ttl) in [(1, 255), (2, 254), (254, 2), (255, 1)] {
            assert_eq!(least_ttl(NonZeroU8::new(hops).unwrap()), ttl);
        }
    }

    #[test]
    fn addresses_are_written_as_the_kernel_reads_them() {
        let v4 = socket_address([10, 0, 0, 1].into());
        assert_eq!(v4[..8], [2, 0, 0, 0, 10, 0, 0, 1]);
        let v6 = socket_address("fe80::1".parse().unwrap());
        assert_eq!((v6[8], v6[9], v6[23], v6[24..].iter().all(|b| *b == 0)), (0xfe, 0x80, 1, true));
    }
}
