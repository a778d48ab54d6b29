//! Netlink messages as bytes: the requests we send, the replies the kernel packs into one datagram.

use std::net::IpAddr;

use netlink_packet_core::{
    NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_REQUEST, NLMSG_ALIGNTO, NetlinkSerializable, NlasIterator,
};
use netlink_packet_route::RouteNetlinkMessage;
use nix::errno::Errno;

use super::error::Refusal;

/// Length of `struct nlmsghdr` (netlink(7)).
const HEADER_LEN: usize = 16;
/// Offset of `nlmsg_flags` in it.
const FLAGS_OFFSET: usize = 6;
const NLMSGERR_ATTR_MSG: u16 = 1;

/// One encoded request. It carries no sequence number: the socket gives it one when it is sent, so the same
/// request may be sent again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    kind: u16,
    flags: u16,
    payload: Vec<u8>,
}

impl Request {
    /// Encodes `message` with `NLM_F_REQUEST` and the given further flags (`NLM_F_CREATE`, `NLM_F_EXCL`, ...).
    pub fn new(message: &RouteNetlinkMessage, flags: u16) -> Self {
        let mut payload = vec![0; message.buffer_len()];
        message.serialize(&mut payload);
        Self { kind: message.message_type(), flags: flags | NLM_F_REQUEST, payload }
    }

    /// A request with a payload encoded by hand.
    pub(crate) fn raw(kind: u16, flags: u16, payload: Vec<u8>) -> Self {
        Self { kind, flags: flags | NLM_F_REQUEST, payload }
    }

    /// Appends the request to a send buffer.
    pub(super) fn encode(&self, sequence: u32, extra_flags: u16, out: &mut Vec<u8>) {
        let mut encoder = Encoder::new(out, self.kind, self.flags | extra_flags, sequence);
        encoder.bytes(&self.payload);
        encoder.end();
    }
}

/// A request that is written straight into a send buffer.
pub(super) struct Encoder<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
}

impl<'a> Encoder<'a> {
    /// Begins a request of type `kind` behind what the buffer has; `flags` with `NLM_F_REQUEST`.
    pub(super) fn new(out: &'a mut Vec<u8>, kind: u16, flags: u16, sequence: u32) -> Self {
        let start = out.len();
        out.extend_from_slice(&0u32.to_ne_bytes());
        out.extend_from_slice(&kind.to_ne_bytes());
        out.extend_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        out.extend_from_slice(&sequence.to_ne_bytes());
        out.extend_from_slice(&0u32.to_ne_bytes());
        Self { out, start }
    }

    /// Appends to the payload.
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// Appends an attribute (`struct rtattr`) and its padding.
    pub(super) fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(value.len().saturating_add(4)).unwrap_or(u16::MAX);
        self.bytes(&length.to_ne_bytes());
        self.bytes(&kind.to_ne_bytes());
        self.bytes(value);
        self.pad();
    }

    /// Appends an attribute that is an address.
    pub(super) fn address(&mut self, kind: u16, address: IpAddr) {
        match address {
            IpAddr::V4(address) => self.attribute(kind, &address.octets()),
            IpAddr::V6(address) => self.attribute(kind, &address.octets()),
        }
    }

    /// Sets the request's length.
    pub(super) fn end(mut self) {
        let length = u32::try_from(self.out.len().saturating_sub(self.start)).unwrap_or(u32::MAX);
        if let Some(bytes) = self.out.get_mut(self.start..).and_then(|request| request.first_chunk_mut()) {
            *bytes = length.to_ne_bytes();
        }
        self.pad();
    }

    fn pad(&mut self) {
        let length = self.out.len().saturating_sub(self.start);
        self.out.resize(self.start.saturating_add(align(length)), 0);
    }
}

/// Sets flags of the request that begins at `start` of a send buffer.
pub(super) fn add_flags(buffer: &mut [u8], start: usize, flags: u16) {
    let place = buffer.get_mut(start.saturating_add(FLAGS_OFFSET)..);
    if let Some(bytes) = place.and_then(|rest| rest.first_chunk_mut()) {
        *bytes = (u16::from_ne_bytes(*bytes) | flags).to_ne_bytes();
    }
}

fn align(length: usize) -> usize {
    length.next_multiple_of(usize::from(NLMSG_ALIGNTO))
}

/// One message inside a received datagram.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Received<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    pub(crate) payload: &'a [u8],
}

impl<'a> Received<'a> {
    /// Splits the first message off `datagram`; `None` at the end or when what is left is no message.
    fn split(datagram: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (length, rest) = datagram.split_first_chunk::<4>()?;
        let (kind, rest) = rest.split_first_chunk::<2>()?;
        let (flags, rest) = rest.split_first_chunk::<2>()?;
        let (sequence, _) = rest.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_ne_bytes(*length)).ok()?;
        let message = Self {
            kind: u16::from_ne_bytes(*kind),
            flags: u16::from_ne_bytes(*flags),
            sequence: u32::from_ne_bytes(*sequence),
            payload: datagram.get(HEADER_LEN..length)?,
        };
        Some((message, datagram.get(align(length)..).unwrap_or_default()))
    }

    /// The result an `NLMSG_ERROR` or `NLMSG_DONE` message carries: an acknowledgement (error 0) or a refusal
    /// with the kernel's text where it gave one.
    pub(crate) fn outcome(&self) -> Result<(), Refusal> {
        let Some((code, rest)) = self.payload.split_first_chunk::<4>() else {
            return Ok(());
        };
        let code = i32::from_ne_bytes(*code);
        if code == 0 {
            return Ok(());
        }
        Err(Refusal { errno: Errno::from_raw(code.saturating_neg()), message: self.extended_ack(rest) })
    }

    /// The text of the extended acknowledgement. In `NLMSG_ERROR` it follows the header of the refused request
    /// and, unless `NLM_F_CAPPED` says it was cut, that request's payload.
    fn extended_ack(&self, rest: &[u8]) -> Option<String> {
        if self.flags & NLM_F_ACK_TLVS == 0 {
            return None;
        }
        let skip = if self.kind == netlink_packet_core::NLMSG_DONE {
            0
        } else if self.flags & NLM_F_CAPPED != 0 {
            HEADER_LEN
        } else {
            let (length, _) = rest.split_first_chunk::<4>()?;
            align(usize::try_from(u32::from_ne_bytes(*length)).ok()?)
        };
        NlasIterator::new(rest.get(skip..)?)
            .map_while(Result::ok)
            .find(|attribute| attribute.kind() == NLMSGERR_ATTR_MSG)
            .map(|attribute| String::from_utf8_lossy(attribute.value()).trim_end_matches('\0').to_owned())
    }
}

/// The messages of one datagram, in order.
pub(crate) struct Messages<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Received<'a>;

    fn next(&mut self) -> Option<Received<'a>> {
        let (message, rest) = Received::split(self.0)?;
        self.0 = rest;
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_message(flags: u16, code: i32, rest: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&(20 + rest.len() as u32).to_ne_bytes());
        bytes.extend_from_slice(&netlink_packet_core::NLMSG_ERROR.to_ne_bytes());
        bytes.extend_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(&7u32.to_ne_bytes());
        bytes.extend_from_slice(&0u32.to_ne_bytes());
        bytes.extend_from_slice(&code.to_ne_bytes());
        bytes.extend_from_slice(rest);
        bytes
    }

    #[test]
    fn extended_ack_text_is_read_behind_a_capped_request() {
        let mut rest = vec![0; HEADER_LEN];
        rest.extend_from_slice(&9u16.to_ne_bytes());
        rest.extend_from_slice(&NLMSGERR_ATTR_MSG.to_ne_bytes());
        rest.extend_from_slice(b"boom\0\0\0\0");
        let bytes = error_message(NLM_F_ACK_TLVS | NLM_F_CAPPED, -17, &rest);
        let message = Messages(&bytes).next().unwrap();
        let refusal = message.outcome().unwrap_err();
        assert_eq!(refusal, Refusal { errno: Errno::EEXIST, message: Some("boom".into()) });
        assert_eq!(message.sequence, 7);
    }

    #[test]
    fn truncated_datagrams_end_the_iteration() {
        let bytes = error_message(0, 0, &[0; 16]);
        for length in 0..bytes.len() {
            assert!(Messages(&bytes[..length]).next().is_none(), "{length} bytes gave a message");
        }
        assert_eq!(Messages(&bytes).count(), 1);
    }
}
