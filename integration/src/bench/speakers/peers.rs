//! The daemon's peers, all in one thread: they tell tables that were made before, and count what they are told.
//!
//! They are not to be what is measured. An injector writes octets that are there already; a sink parses no path attributes.

use std::io::{self, Read as _, Write as _};
use std::mem::take;
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::sockopt::{Linger, RcvBuf, ReuseAddr};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, setsockopt, socket};

use super::routes::{Prefix, Table};
use crate::wait::now;

/// RFC 4271 section 4.1: the header, and the longest message.
const HEADER: usize = 19;
const MESSAGE_MAX: usize = 4096;

const OPEN: u8 = 1;
const UPDATE: u8 = 2;
const NOTIFICATION: u8 = 3;
const KEEPALIVE: u8 = 4;

/// What is proposed.
const HOLD_TIME: u16 = 180;

/// Often enough for a daemon that reads the rest of its input with the next message only.
const KEEPALIVE_INTERVAL: Duration = Duration::from_millis(500);

/// How long nothing may happen before the clock is looked at.
const POLL: Duration = Duration::from_millis(20);

/// How much is read from a socket at once.
const READ: usize = 256 * 1024;

/// Which peer.
#[derive(Clone, Debug)]
pub struct PeerSpec {
    /// Its address, and its BGP identifier.
    pub address: Ipv4Addr,
    /// Its AS.
    pub asn: u32,
    /// What it tells once it is told to.
    pub table: Arc<Table>,
    /// Prefixes that do not count where it is told them: its own.
    pub own: Vec<Prefix>,
}

/// The distinct prefixes of a peer's Adj-RIB-In.
#[derive(Debug)]
struct Seen {
    bits: Vec<u64>,
    count: usize,
}

impl Seen {
    fn new() -> Self {
        // The kernel gives zeroed pages where there are bits alone.
        Self { bits: vec![0; Prefix::PLACES.div_ceil(64)], count: 0 }
    }

    fn set(&mut self, prefix: Prefix, present: bool) {
        let Some(place) = prefix.place() else { return };
        let Some(word) = self.bits.get_mut(place / 64) else { return };
        let bit = 1_u64 << (place % 64);
        match (*word & bit != 0, present) {
            (false, true) => self.count += 1,
            (true, false) => self.count -= 1,
            _ => return,
        }
        *word ^= bit;
    }
}

/// What a peer was told.
#[derive(Clone, Copy, Debug, Default)]
pub struct Told {
    /// Messages with routes.
    pub updates: u64,
    /// Prefixes announced, each as often as it was.
    pub announced: u64,
    /// Prefixes withdrawn.
    pub withdrawn: u64,
}

/// How a session stands.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Opening,
    Established,
    /// It was reset by the peer, as it should be.
    Reset,
    /// The daemon did not want it back yet.
    Refused,
    Failed(String),
}

/// One session.
#[derive(Debug)]
pub struct Peer {
    spec: PeerSpec,
    stream: TcpStream,
    state: State,
    /// Whether it had a session that was reset.
    returns: bool,
    input: Vec<u8>,
    /// What goes out before the table, or after it.
    control: Vec<u8>,
    /// How much of the table is sent; none: nothing is to be yet.
    sent: Option<usize>,
    /// Whether it is awaited that the socket takes more.
    blocked: bool,
    /// Whether it reads.
    reading: bool,
    seen: Seen,
    told: Told,
    /// All UPDATEs, to be looked at afterwards.
    updates: Vec<u8>,
    last_update: Option<Instant>,
}

impl Peer {
    fn connect(spec: &PeerSpec, daemon: Ipv4Addr, terms: Terms) -> Result<Self> {
        let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        // A session of before may still be in TIME-WAIT.
        setsockopt(&socket, ReuseAddr, &true)?;
        if let Some(octets) = terms.receive_buffer {
            setsockopt(&socket, RcvBuf, &octets)?;
        }
        let own = SockaddrIn::from(SocketAddrV4::new(spec.address, 0));
        bind(std::os::fd::AsRawFd::as_raw_fd(&socket), &own)?;
        let daemon = SockaddrIn::from(SocketAddrV4::new(daemon, 179));
        connect(std::os::fd::AsRawFd::as_raw_fd(&socket), &daemon)?;
        let stream = TcpStream::from(socket);
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let mut seen = Seen::new();
        spec.own.iter().for_each(|prefix| seen.set(*prefix, true));
        seen.count = 0;
        Ok(Self {
            control: open(spec, terms.hold_time),
            spec: spec.clone(),
            stream,
            state: State::Opening,
            returns: false,
            input: Vec::new(),
            sent: None,
            blocked: false,
            reading: true,
            seen,
            told: Told::default(),
            updates: Vec::new(),
            last_update: None,
        })
    }

    /// How many distinct prefixes it has been told and not told to forget, but for its own.
    #[must_use]
    pub fn has(&self) -> usize {
        self.seen.count
    }

    /// What it was told in all.
    #[must_use]
    pub fn told(&self) -> Told {
        self.told
    }

    /// Whether its session is Established.
    #[must_use]
    pub fn is_established(&self) -> bool {
        self.state == State::Established
    }

    /// Whether it was reset, and is not back or on the way.
    #[must_use]
    pub fn is_away(&self) -> bool {
        matches!(self.state, State::Reset | State::Refused)
    }

    fn fail(&mut self, why: String) {
        let is_refused = self.returns && self.state == State::Opening;
        self.state = if is_refused { State::Refused } else { State::Failed(why) };
    }

    /// When it was told of routes last.
    #[must_use]
    pub fn last_update(&self) -> Option<Instant> {
        self.last_update
    }

    fn has_more(&self) -> bool {
        self.unsaid() > 0
    }

    /// How many octets it has to tell that its socket has not taken.
    #[must_use]
    pub fn unsaid(&self) -> usize {
        let table = self.sent.map_or(0, |sent| self.spec.table.updates.len().saturating_sub(sent));
        self.control.len() + table
    }

    /// Writes as much as the socket takes; says whether that is all.
    fn write(&mut self) -> io::Result<bool> {
        while self.has_more() {
            let table = self.sent.and_then(|sent| self.spec.table.updates.get(sent..)).unwrap_or_default();
            // A message of the table may be half out.
            let within = self.sent.is_some_and(|sent| sent > 0) && !table.is_empty();
            let (octets, control) =
                if self.control.is_empty() || within { (table, false) } else { (&*self.control, true) };
            match self.stream.write(octets) {
                Ok(count) if control => drop(self.control.drain(..count)),
                Ok(count) => self.sent = self.sent.map(|sent| sent + count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// What it waits for.
    fn interest(&self) -> EpollFlags {
        let mut flags = EpollFlags::empty();
        flags.set(EpollFlags::EPOLLIN, self.reading);
        flags.set(EpollFlags::EPOLLOUT, self.blocked);
        flags
    }

    /// Reads what there is, up to [`READ`].
    fn read(&mut self, buffer: &mut [u8]) -> Result<()> {
        match self.stream.read(buffer) {
            Ok(0) => bail!("the daemon closed the session"),
            Ok(count) => {
                self.input.extend(buffer.get(..count).unwrap_or_default());
                self.parse()
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn parse(&mut self) -> Result<()> {
        let input = take(&mut self.input);
        let mut rest = input.as_slice();
        while let Some((message, after)) = split_message(rest)? {
            self.take(message)?;
            rest = after;
        }
        let rest = rest.len();
        self.input = input;
        self.input.drain(..self.input.len() - rest);
        Ok(())
    }

    fn take(&mut self, message: &[u8]) -> Result<()> {
        match message.get(HEADER - 1).copied() {
            Some(OPEN) => self.control.extend(self::message(KEEPALIVE, &[])),
            Some(KEEPALIVE) => self.state = State::Established,
            Some(UPDATE) => self.update(message).context("an UPDATE that is too short")?,
            Some(NOTIFICATION) => bail!("NOTIFICATION {:02x?}", message.get(HEADER..)),
            _ => {}
        }
        Ok(())
    }

    fn update(&mut self, message: &[u8]) -> Option<()> {
        let Update { withdrawn, attributes, announced } = Update::of(message)?;
        // Else it is an End-of-RIB (RFC 4724 section 2), which says nothing.
        if withdrawn.len() + attributes.len() > 0 {
            self.told.updates += 1;
            self.last_update = Some(now());
        }
        self.updates.extend(message);
        self.told.withdrawn += self.count(withdrawn, false)?;
        self.told.announced += self.count(announced, true)?;
        Some(())
    }

    fn count(&mut self, nlri: &[u8], present: bool) -> Option<u64> {
        let mut count = 0;
        for prefix in prefixes(nlri) {
            self.seen.set(prefix?, present);
            count += 1;
        }
        Some(count)
    }

    /// All UPDATEs that it was told.
    #[must_use]
    pub fn updates(&self) -> &[u8] {
        &self.updates
    }
}

/// The first message of these octets, and what follows it; none: it is not all there.
///
/// # Errors
/// If it cannot be so long.
pub fn split_message(octets: &[u8]) -> Result<Option<(&[u8], &[u8])>> {
    let Some([.., high, low, _]) = octets.first_chunk::<HEADER>() else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    ensure!((HEADER..=MESSAGE_MAX).contains(&length), "a message of {length} octets");
    Ok(octets.split_at_checked(length))
}

/// The parts of an UPDATE (RFC 4271 section 4.3).
#[derive(Clone, Copy, Debug)]
pub struct Update<'a> {
    /// Prefixes.
    pub withdrawn: &'a [u8],
    /// Path attributes.
    pub attributes: &'a [u8],
    /// Prefixes that have these.
    pub announced: &'a [u8],
}

impl<'a> Update<'a> {
    /// The parts of this message; none: it is too short.
    #[must_use]
    pub fn of(message: &'a [u8]) -> Option<Self> {
        let (withdrawn, rest) = counted(message.get(HEADER..)?)?;
        let (attributes, announced) = counted(rest)?;
        Some(Self { withdrawn, attributes, announced })
    }
}

/// The prefixes of these octets; none: the last one is too short.
pub fn prefixes(mut nlri: &[u8]) -> impl Iterator<Item = Option<Prefix>> + '_ {
    let next = move || {
        let (&length, rest) = nlri.split_first()?;
        let Some((octets, rest)) = rest.split_at_checked(usize::from(length).div_ceil(8)) else {
            nlri = &[];
            return Some(None);
        };
        nlri = rest;
        let mut address = [0; 4];
        for (to, from) in address.iter_mut().zip(octets) {
            *to = *from;
        }
        Some(Some(Prefix { address: u32::from_be_bytes(address), length }))
    };
    std::iter::from_fn(next)
}

/// Octets that a length of two octets stands before, and what follows them.
fn counted(octets: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = octets.split_first_chunk()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut octets = vec![0xff; 16];
    octets.extend(u16::try_from(HEADER + body.len()).unwrap_or(u16::MAX).to_be_bytes());
    octets.push(kind);
    octets.extend(body);
    octets
}

/// With IPv4 unicast, route refresh and AS numbers of four octets.
fn open(spec: &PeerSpec, hold_time: u16) -> Vec<u8> {
    /// RFC 6793 section 4.2.2.
    const AS_TRANS: u16 = 23456;
    let mut body = vec![4];
    body.extend(u16::try_from(spec.asn).unwrap_or(AS_TRANS).to_be_bytes());
    body.extend(hold_time.to_be_bytes());
    body.extend(spec.address.octets());
    let mut capabilities = vec![1, 4, 0, 1, 0, 1, 2, 0, 65, 4];
    capabilities.extend(spec.asn.to_be_bytes());
    let length = u8::try_from(capabilities.len()).unwrap_or(u8::MAX);
    body.extend([length + 2, 2, length]);
    body.extend(capabilities);
    message(OPEN, &body)
}

/// What peers connect with.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// What they propose, in seconds; 0: neither side sends KEEPALIVEs (RFC 4271 section 4.2).
    pub hold_time: u16,
    /// How often they say KEEPALIVE; none: never.
    pub keepalive_interval: Option<Duration>,
    /// How large the receive buffers of their sockets are (tcp(7)); none: as large as the kernel likes.
    pub receive_buffer: Option<usize>,
}

impl Default for Terms {
    fn default() -> Self {
        Self { hold_time: HOLD_TIME, keepalive_interval: Some(KEEPALIVE_INTERVAL), receive_buffer: None }
    }
}

impl Terms {
    /// Those of peers who say nothing but routes.
    pub const SILENT: Self = Self { hold_time: 0, keepalive_interval: None, receive_buffer: None };
}

/// All peers of a daemon.
#[derive(Debug)]
pub struct Peers {
    epoll: Epoll,
    peers: Vec<Peer>,
    buffer: Vec<u8>,
    terms: Terms,
    next_keepalive: Instant,
}

impl Peers {
    /// None yet.
    ///
    /// # Errors
    /// If the kernel gives no epoll.
    pub fn new(terms: Terms) -> Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        Ok(Self { epoll, peers: Vec::new(), buffer: vec![0; READ], terms, next_keepalive: now() })
    }

    /// Has one more connect; to be called in its namespace. Its number is returned.
    ///
    /// # Errors
    /// If the daemon does not accept.
    pub fn connect(&mut self, spec: &PeerSpec, daemon: Ipv4Addr) -> Result<usize> {
        let peer = self.connected(spec, daemon, self.peers.len())?;
        let number = self.peers.len();
        self.peers.push(peer);
        self.write(number);
        Ok(number)
    }

    /// Has one that was reset connect anew, with nothing told and heard; to be called in its namespace. It is away again if the daemon
    /// refuses, as it may for a while after a failure.
    ///
    /// # Errors
    /// If the daemon does not accept.
    pub fn reconnect(&mut self, number: usize, daemon: Ipv4Addr) -> Result<()> {
        let Some(spec) = self.peers.get(number).map(|peer| peer.spec.clone()) else { return Ok(()) };
        let again = self.connected(&spec, daemon, number)?;
        if let Some(peer) = self.peers.get_mut(number) {
            *peer = Peer { returns: true, ..again };
        }
        self.write(number);
        Ok(())
    }

    fn connected(&self, spec: &PeerSpec, daemon: Ipv4Addr, number: usize) -> Result<Peer> {
        let peer = Peer::connect(spec, daemon, self.terms);
        let peer = peer.with_context(|| format!("peer {}", spec.address))?;
        self.epoll.add(peer.stream.as_fd(), EpollEvent::new(peer.interest(), number as u64))?;
        Ok(peer)
    }

    /// All of them, by number.
    #[must_use]
    pub fn all(&self) -> &[Peer] {
        &self.peers
    }

    /// Whether every session is Established, but for those that were reset.
    #[must_use]
    pub fn are_established(&self) -> bool {
        self.peers.iter().all(|peer| matches!(peer.state, State::Established | State::Reset))
    }

    /// Has a peer tell its table from now on.
    pub fn tell(&mut self, number: usize) {
        if let Some(peer) = self.peers.get_mut(number) {
            peer.sent = Some(0);
        }
        self.write(number);
    }

    /// Has a peer say these messages, after what it says already.
    pub fn say(&mut self, number: usize, messages: &[u8]) {
        if let Some(peer) = self.peers.get_mut(number) {
            peer.control.extend(messages);
        }
        self.write(number);
    }

    /// Forgets the UPDATEs that they were told. Whoever has prefixes left lacks them in what he was told from then on.
    pub fn forget_updates(&mut self) {
        self.peers.iter_mut().for_each(|peer| peer.updates.clear());
    }

    /// Has a peer read nothing until it is to again: its window shuts, while it goes on telling.
    ///
    /// # Errors
    /// If the kernel's epoll fails.
    pub fn set_reading(&mut self, number: usize, reading: bool) -> Result<()> {
        let Some(peer) = self.peers.get_mut(number) else { return Ok(()) };
        peer.reading = reading;
        let mut event = EpollEvent::new(peer.interest(), number as u64);
        Ok(self.epoll.modify(peer.stream.as_fd(), &mut event)?)
    }

    /// Ends a session as by the death of the peer: with a reset, without a NOTIFICATION.
    ///
    /// # Errors
    /// If the kernel does not.
    pub fn reset(&mut self, number: usize) -> Result<()> {
        let Some(peer) = self.peers.get_mut(number) else { return Ok(()) };
        setsockopt(&peer.stream, Linger, &nix::libc::linger { l_onoff: 1, l_linger: 0 })?;
        self.epoll.delete(peer.stream.as_fd())?;
        // Another socket in its place closes this one.
        peer.stream = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?.into();
        peer.state = State::Reset;
        Ok(())
    }

    /// Has them speak and listen until `done`, which is asked after each round; says whether it was within the time.
    ///
    /// # Errors
    /// If a session ends, or the kernel's epoll fails.
    pub fn run(&mut self, limit: Duration, mut done: impl FnMut(&Self) -> bool) -> Result<bool> {
        let end = now() + limit;
        let mut events = [EpollEvent::empty(); 128];
        while !done(self) {
            if now() >= end {
                return Ok(false);
            }
            // Rounded up: a part of a millisecond waited for with none is a processor that the daemon lacks.
            let patience = end.saturating_duration_since(now()).min(POLL) + Duration::from_micros(999);
            let patience = EpollTimeout::try_from(patience).unwrap_or(EpollTimeout::ZERO);
            let count = match self.epoll.wait(&mut events, patience) {
                Err(Errno::EINTR) => 0,
                count => count?,
            };
            for event in events.iter().take(count) {
                let number = usize::try_from(event.data()).unwrap_or(usize::MAX);
                let lost = event.events().intersects(EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP);
                self.read(number, lost);
                self.write(number);
            }
            self.keep_alive();
            for peer in &self.peers {
                if let State::Failed(why) = &peer.state {
                    bail!("the session of {} ended: {why}", peer.spec.address);
                }
            }
        }
        Ok(true)
    }

    /// Reads for a peer, unless it is not to; then too if its session is lost.
    fn read(&mut self, number: usize, lost: bool) {
        if let Some(peer) = self.peers.get_mut(number)
            && !peer.is_away()
            && (peer.reading || lost)
            && let Err(error) = peer.read(&mut self.buffer)
        {
            peer.fail(format!("{error:#}"));
            // It would tell of its end again and again.
            let _ = self.epoll.delete(peer.stream.as_fd());
        }
    }

    fn write(&mut self, number: usize) {
        let Some(peer) = self.peers.get_mut(number) else { return };
        if peer.is_away() {
            return;
        }
        let written = peer.write().and_then(|all| {
            if peer.blocked == all {
                peer.blocked = !all;
                let mut event = EpollEvent::new(peer.interest(), number as u64);
                self.epoll.modify(peer.stream.as_fd(), &mut event)?;
            }
            Ok(())
        });
        if let Err(error) = written {
            peer.fail(error.to_string());
        }
    }

    fn keep_alive(&mut self) {
        let Some(interval) = self.terms.keepalive_interval else { return };
        if now() < self.next_keepalive {
            return;
        }
        self.next_keepalive = now() + interval;
        for number in 0..self.peers.len() {
            if let Some(peer) = self.peers.get_mut(number)
                && peer.state == State::Established
                && !peer.has_more()
            {
                peer.control.extend(message(KEEPALIVE, &[]));
                self.write(number);
            }
        }
    }
}
