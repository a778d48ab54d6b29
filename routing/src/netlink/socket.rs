//! A request socket of the rtnetlink family.

use std::io;
use std::iter::Peekable;
use std::path::Path;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR};
use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};

use super::error::Error;
use super::message::{Messages, Request, add_flags};
use crate::netns;

/// Bytes sent in one system call. The kernel refuses more than the socket's send buffer (212,992 by default).
const SEND_BYTES: usize = 120 * 1024;
/// What a request takes about: that of a route over a nexthop object.
const REQUEST_BYTES: usize = 64;
/// Larger than any datagram rtnetlink makes: a dump fills at most 32 KiB.
const RECEIVE_BYTES: usize = 128 * 1024;
/// What one queued error is charged against the receive buffer at most (`skb->truesize` of a small
/// message, measured below 1,300); a batch is cut so that an error for each request fits.
const REPLY_COST: usize = 2048;
/// Receive buffer asked for: room for 8 MiB of replies, where we have CAP_NET_ADMIN.
const RECEIVE_BUFFER: usize = 8 * 1024 * 1024;
/// How often a dump is started again when the table changes under it.
const DUMP_TRIES: u32 = 8;

/// A blocking `NETLINK_ROUTE` socket for requests and dumps.
///
/// The kernel handles rtnetlink requests inside the sending system call, so every reply is queued when `send`
/// returns and nothing here ever waits: a missing reply is an error, not a hang.
///
/// The socket belongs to the network namespace it was opened in, whichever thread uses it.
#[derive(Debug)]
pub struct Socket {
    inner: netlink_sys::Socket,
    port: u32,
    numbering: Numbering,
    receive: Vec<u8>,
}

/// What makes sends of requests.
#[derive(Debug, Clone, Copy)]
pub(super) struct Numbering {
    sequence: u32,
    replies_per_send: usize,
}

/// Requests that go to the kernel in one system call. The last asks for an acknowledgement: when it comes, all before it were carried out
/// that no error was told of.
#[derive(Debug, Default)]
pub(super) struct Send {
    bytes: Vec<u8>,
    /// The sequence number of the first.
    first: u32,
    count: usize,
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace, with extended error texts, errors that do not
    /// echo the request, strict checking of dump requests, and a large receive buffer where permitted.
    pub fn new() -> Result<Self, Error> {
        Self::bound(open(NETLINK_ROUTE)?)
    }

    /// The same for requests of the `NETLINK_NETFILTER` family, which the kernel handles inside the sending system
    /// call too.
    pub(crate) fn netfilter() -> Result<Self, Error> {
        Self::bound(open(NETLINK_NETFILTER)?)
    }

    fn bound(mut inner: netlink_sys::Socket) -> Result<Self, Error> {
        let port = inner.bind_auto().map_err(|error| Error::from_io("bind", &error))?.port_number();
        let buffer =
            inner.get_rx_buf_sz().map_err(|error| Error::from_io("read the receive buffer size", &error))?;
        Ok(Self {
            inner,
            port,
            numbering: Numbering { sequence: 0, replies_per_send: (buffer / REPLY_COST).max(1) },
            receive: Vec::with_capacity(RECEIVE_BYTES),
        })
    }

    /// Opens a socket in the network namespace at `path`. A dedicated thread enters the namespace; the caller
    /// stays where it is.
    pub fn in_netns(path: &Path) -> Result<Self, Error> {
        netns::run(path, Self::new)?
    }

    /// The port number the kernel gave this socket; notifications caused by its requests carry it.
    pub fn port(&self) -> u32 {
        self.port
    }

    /// Carries out one request and waits for its acknowledgement.
    pub fn execute(&mut self, request: &Request) -> Result<(), Error> {
        self.batch(std::slice::from_ref(request)).pop().unwrap_or(Err(Error::NoReply))
    }

    /// Carries out requests in order, many per system call, and returns one result per request. A refused
    /// request does not stop those behind it.
    pub fn batch(&mut self, requests: &[Request]) -> Vec<Result<(), Error>> {
        self.carry_out(requests, |request, sequence, out| request.encode(sequence, 0, out))
    }

    /// The same for anything that `encode` appends to a send buffer as one request with a sequence number.
    pub(super) fn carry_out<T>(
        &mut self,
        requests: &[T],
        encode: impl Fn(&T, u32, &mut Vec<u8>),
    ) -> Vec<Result<(), Error>> {
        let mut results = Vec::with_capacity(requests.len());
        let mut rest = requests.iter().peekable();
        let mut send = Send::default();
        while rest.peek().is_some() {
            send = self.numbering.fill(&mut rest, &encode, send.bytes);
            self.exchange(&send, &mut results);
        }
        results
    }

    /// How its requests are numbered, for who makes sends elsewhere.
    pub(super) fn numbering(&self) -> Numbering {
        self.numbering
    }

    /// Carries out one request that is answered by one object, such as a lookup by name, and decodes it.
    ///
    /// `decode` is called with the message type and payload of the reply.
    pub fn get<T>(
        &mut self,
        request: &Request,
        decode: impl FnOnce(u16, &[u8]) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let sequence = self.send_one(request, 0)?;
        loop {
            let messages = self.receive()?;
            let Some(reply) = messages.into_iter().find(|message| message.sequence == sequence) else {
                continue;
            };
            if reply.kind == NLMSG_ERROR {
                reply.outcome().map_err(Error::Refused)?;
                return Err(Error::NoReply);
            }
            return decode(reply.kind, reply.payload);
        }
    }

    /// Reads a whole table. `decode` gets the type and payload of each message and returns the object, or
    /// `None` to leave it out. Starts again when the table changed under the dump.
    pub fn dump<T>(
        &mut self,
        request: &Request,
        mut decode: impl FnMut(u16, &[u8]) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        for _ in 0..DUMP_TRIES {
            let sequence = self.send_one(request, NLM_F_DUMP)?;
            match self.dump_once(sequence, &mut decode) {
                Ok(Some(objects)) => return Ok(objects),
                Ok(None) => {}
                Err(error) if error.errno() == Some(Errno::EBUSY) => self.discard_replies(),
                Err(error) => {
                    self.discard_replies();
                    return Err(error);
                }
            }
        }
        Err(Error::Interrupted { tries: DUMP_TRIES })
    }

    /// `None`: the dump ended, but the table changed meanwhile.
    fn dump_once<T>(
        &mut self,
        sequence: u32,
        decode: &mut impl FnMut(u16, &[u8]) -> Option<T>,
    ) -> Result<Option<Vec<T>>, Error> {
        let mut objects = Vec::new();
        let mut consistent = true;
        loop {
            for message in self.receive()? {
                if message.sequence != sequence {
                    continue;
                }
                consistent &= message.flags & NLM_F_DUMP_INTR == 0;
                match message.kind {
                    NLMSG_ERROR | NLMSG_DONE => {
                        message.outcome().map_err(Error::Refused)?;
                        return Ok(consistent.then_some(objects));
                    }
                    kind => objects.extend(decode(kind, message.payload)),
                }
            }
        }
    }

    /// Sends requests and appends a result for each.
    pub(super) fn exchange(&mut self, send: &Send, results: &mut Vec<Result<(), Error>>) {
        let Send { bytes, first, count } = send;
        let (first, count) = (*first, *count);
        let from = results.len();
        if let Err(error) = self.send(bytes) {
            results.resize(from.saturating_add(count), Err(error));
            return;
        }
        results.resize(from.saturating_add(count), Ok(()));
        let (mut refused, mut unknown) = (Vec::new(), None);
        let mut acknowledged = false;
        while !acknowledged {
            let messages = match self.receive() {
                Ok(messages) => messages,
                // What was queued before the buffer overran is still to be read.
                Err(Error::Overrun) => {
                    unknown = Some(Error::NoReply);
                    continue;
                }
                Err(error) => {
                    unknown = Some(error);
                    break;
                }
            };
            for message in messages.filter(|message| message.kind == NLMSG_ERROR) {
                let index = usize::try_from(message.sequence.wrapping_sub(first)).unwrap_or(usize::MAX);
                if index >= count {
                    continue;
                }
                acknowledged |= index.saturating_add(1) == count;
                if let Err(refusal) = message.outcome() {
                    refused.push((index, refusal));
                }
            }
        }
        let results = results.get_mut(from..).unwrap_or_default();
        if let Some(error) = unknown {
            results.fill(Err(error));
        }
        for (index, refusal) in refused {
            if let Some(result) = results.get_mut(index) {
                *result = Err(Error::Refused(refusal));
            }
        }
    }

    /// Sends one request; returns its sequence number.
    fn send_one(&mut self, request: &Request, flags: u16) -> Result<u32, Error> {
        let (sequence, mut bytes) = (self.numbering.next(), Vec::new());
        request.encode(sequence, flags, &mut bytes);
        self.send(&bytes)?;
        Ok(sequence)
    }

    fn send(&self, bytes: &[u8]) -> Result<(), Error> {
        let kernel = netlink_sys::SocketAddr::new(0, 0);
        loop {
            match self.inner.send_to(bytes, &kernel, 0) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::from_io("send", &error)),
            }
        }
    }

    /// The next queued datagram; [`Error::NoReply`] when none is queued.
    fn receive(&mut self) -> Result<Messages<'_>, Error> {
        receive(&self.inner, &mut self.receive)?;
        Ok(Messages(&self.receive))
    }

    /// Throws away what is left of a failed dump, so that the next request starts clean.
    fn discard_replies(&mut self) {
        while !matches!(self.receive(), Err(Error::NoReply | Error::Socket { .. })) {}
    }
}

impl Send {
    /// How many requests.
    pub(super) fn count(&self) -> usize {
        self.count
    }
}

impl Numbering {
    fn next(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    /// Encodes as many of `requests` as go into one send, into a buffer that is cleared before: those that fit its size, at least one.
    pub(super) fn fill<'a, T: 'a>(
        &mut self,
        requests: &mut Peekable<impl Iterator<Item = &'a T>>,
        encode: &impl Fn(&T, u32, &mut Vec<u8>),
        mut bytes: Vec<u8>,
    ) -> Send {
        bytes.clear();
        bytes.reserve(requests.size_hint().0.saturating_mul(REQUEST_BYTES).min(SEND_BYTES));
        let (first, mut count, mut last) = (self.sequence.wrapping_add(1), 0usize, 0);
        while count < self.replies_per_send
            && let Some(request) = requests.peek()
        {
            let start = bytes.len();
            encode(request, self.sequence.wrapping_add(1), &mut bytes);
            if bytes.len() > SEND_BYTES && count > 0 {
                bytes.truncate(start);
                break;
            }
            self.next();
            requests.next();
            (count, last) = (count.saturating_add(1), start);
        }
        add_flags(&mut bytes, last, NLM_F_ACK);
        Send { bytes, first, count }
    }
}

/// Opens a socket of a netlink family with the options every socket of this crate has.
pub(super) fn open(protocol: isize) -> Result<netlink_sys::Socket, Error> {
    let socket =
        netlink_sys::Socket::new(protocol).map_err(|error| Error::from_io("open a socket", &error))?;
    socket.set_ext_ack(true).map_err(|error| Error::from_io("set NETLINK_EXT_ACK", &error))?;
    socket.set_cap_ack(true).map_err(|error| Error::from_io("set NETLINK_CAP_ACK", &error))?;
    socket
        .set_netlink_get_strict_chk(true)
        .map_err(|error| Error::from_io("set NETLINK_GET_STRICT_CHK", &error))?;
    // Without CAP_NET_ADMIN the default stays; batches are then cut smaller and overruns are survived.
    if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
        tracing::debug!("no permission to enlarge the netlink receive buffer");
    }
    Ok(socket)
}

/// Reads one datagram into `buffer` without waiting.
pub(crate) fn receive(socket: &netlink_sys::Socket, buffer: &mut Vec<u8>) -> Result<(), Error> {
    loop {
        buffer.clear();
        buffer.reserve(RECEIVE_BYTES);
        match socket.recv(buffer, libc::MSG_DONTWAIT | libc::MSG_TRUNC) {
            Ok(length) if length > buffer.len() => {
                return Err(Error::Malformed(format!(
                    "a datagram of {length} bytes did not fit the buffer of {} bytes",
                    buffer.len()
                )));
            }
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(Error::NoReply),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return Err(Error::Overrun),
            Err(error) => return Err(Error::from_io("receive", &error)),
        }
    }
}
