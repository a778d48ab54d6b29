//! BGP4MP_ET: messages and changes of state (RFC 6396 sections 3 and 4.4).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::{BufMut, Bytes, BytesMut};

use super::{Open, Timestamp, kind};
use crate::session::State;
use crate::types::Asn;

/// BGP4MP subtypes; those of messages with path identifiers are of RFC 8050 section 3.
mod subtype {
    pub(super) const MESSAGE: u16 = 1;
    pub(super) const MESSAGE_AS4: u16 = 4;
    pub(super) const STATE_CHANGE_AS4: u16 = 5;
    pub(super) const MESSAGE_LOCAL: u16 = 6;
    pub(super) const MESSAGE_AS4_LOCAL: u16 = 7;
    pub(super) const MESSAGE_ADDPATH: u16 = 8;
    pub(super) const MESSAGE_AS4_ADDPATH: u16 = 9;
    pub(super) const MESSAGE_LOCAL_ADDPATH: u16 = 10;
    pub(super) const MESSAGE_AS4_LOCAL_ADDPATH: u16 = 11;
}

/// Who speaks with whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peering {
    /// The peer's AS; 0: it is not known yet.
    pub remote_as: Asn,
    /// The AS that we are towards it.
    pub local_as: Asn,
    /// The index of the interface that the peer is known by; 0: it is known by its address.
    pub interface: u32,
    /// The peer's end; none: it is not known yet.
    pub remote: Option<IpAddr>,
    /// Our end; none: there was no connection yet.
    pub local: Option<IpAddr>,
    /// How a message is to be read.
    pub encoding: Encoding,
}

/// What is to be known of a session to read a message of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoding {
    /// Whether AS paths have numbers of four octets.
    pub four_octet_as: bool,
    /// Whether its prefixes have path identifiers (RFC 7911).
    pub add_path: bool,
}

impl Encoding {
    /// That of messages before anything is agreed on, and of what is none.
    pub const PLAIN: Self = Self { four_octet_as: true, add_path: false };
}

/// Something that happened between a speaker and a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// Between whom.
    pub peering: Peering,
    /// What.
    pub observed: Observed,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observed {
    /// The peer sent this message.
    Received(Bytes),
    /// It was sent this message.
    Sent(Bytes),
    /// The state of its FSM changed.
    State {
        /// From this.
        from: State,
        /// To this.
        to: State,
    },
}

/// Appends a record of what happened.
pub fn put_observation(time: Timestamp, observation: &Observation, out: &mut BytesMut) {
    let Observation { peering, observed } = observation;
    let Encoding { four_octet_as, add_path } = peering.encoding;
    let subtype = match (observed, four_octet_as, add_path) {
        (Observed::Received(_), true, false) => subtype::MESSAGE_AS4,
        (Observed::Received(_), false, false) => subtype::MESSAGE,
        (Observed::Received(_), true, true) => subtype::MESSAGE_AS4_ADDPATH,
        (Observed::Received(_), false, true) => subtype::MESSAGE_ADDPATH,
        (Observed::Sent(_), true, false) => subtype::MESSAGE_AS4_LOCAL,
        (Observed::Sent(_), false, false) => subtype::MESSAGE_LOCAL,
        (Observed::Sent(_), true, true) => subtype::MESSAGE_AS4_LOCAL_ADDPATH,
        (Observed::Sent(_), false, true) => subtype::MESSAGE_LOCAL_ADDPATH,
        (Observed::State { .. }, ..) => subtype::STATE_CHANGE_AS4,
    };
    let record = Open::begin(time, kind::BGP4MP_ET, subtype, out);
    out.put_u32(time.microseconds);
    let two_octets = !four_octet_as && subtype != subtype::STATE_CHANGE_AS4;
    for asn in [peering.remote_as, peering.local_as] {
        match two_octets {
            true => out.put_u16(asn.two_octets()),
            false => out.put_u32(asn.0),
        }
    }
    // The field is too short for the index of every interface, and may be 0 for any.
    out.put_u16(u16::try_from(peering.interface).unwrap_or(0));
    put_addresses(peering, out);
    match observed {
        Observed::Received(message) | Observed::Sent(message) => out.put_slice(message),
        Observed::State { from, to } => {
            out.put_u16(code(*from));
            out.put_u16(code(*to));
        }
    }
    record.end(out);
}

/// The address family and both ends; an end that is not known is the unspecified address.
fn put_addresses(peering: &Peering, out: &mut BytesMut) {
    let ipv6 = [peering.remote, peering.local].into_iter().flatten().any(|address| address.is_ipv6());
    out.put_u16(if ipv6 { 2 } else { 1 });
    for address in [peering.remote, peering.local] {
        match (address, ipv6) {
            (Some(IpAddr::V6(address)), _) => out.put_slice(&address.octets()),
            (Some(IpAddr::V4(address)), true) => out.put_slice(&address.to_ipv6_mapped().octets()),
            (Some(IpAddr::V4(address)), false) => out.put_slice(&address.octets()),
            (None, true) => out.put_slice(&Ipv6Addr::UNSPECIFIED.octets()),
            (None, false) => out.put_slice(&Ipv4Addr::UNSPECIFIED.octets()),
        }
    }
}

/// The number of a state (RFC 6396 section 4.4.1).
fn code(state: State) -> u16 {
    match state {
        State::Idle => 1,
        State::Connect => 2,
        State::Active => 3,
        State::OpenSent => 4,
        State::OpenConfirm => 5,
        State::Established => 6,
    }
}
