//! What to do about a peer that is down, by what went wrong last.

use weft_bgp::protection::NO_ANSWER;
use weft_bgp::wire::error::ErrorCode;

use crate::api::json::{AuthenticationJson, ErrorDirection, LastErrorJson, PeerJson};

/// What a person should look at.
pub(super) fn of(peer: &PeerJson) -> String {
    let by_error = peer.last_error.as_ref().and_then(|error| match error.code {
        None if error.text.contains(NO_ANSWER) => Some(silence(peer)),
        Some(_) => notification(peer, error),
        None => None,
    });
    by_error.unwrap_or_else(|| {
        format!(
            "look at the other end: it must be reachable, speak BGP, and know this node as a peer of AS {}",
            peer.local_as
        )
    })
}

/// The kernel drops what is not signed, or comes from too far away, without a word.
fn silence(peer: &PeerJson) -> String {
    match (peer.authentication, peer.ttl_security) {
        (Some(AuthenticationJson::TcpMd5), _) => {
            "compare the password of the BGPPeer with the other end's: a segment with another one, or none, is dropped without an answer".to_owned()
        }
        (Some(AuthenticationJson::TcpAo), _) => {
            "compare tcpAO of the BGPPeer with the other end's keys: it must have the first of them, with sendID and receiveID the other way round, the \
             same algorithm and the same secret; a segment that is signed otherwise is dropped without an answer"
                .to_owned()
        }
        (_, Some(hops)) => format!(
            "see that the other end has its TTL security on too (it must send with a TTL of 255) and is {hops} hops away at most"
        ),
        _ => "see that it is reachable and nothing filters TCP port 179; where the other end has a password, TCP-AO keys or TTL security for this node, \
              set password, tcpAO or ttlSecurity of the BGPPeer"
            .to_owned(),
    }
}

fn notification(peer: &PeerJson, error: &LastErrorJson) -> Option<String> {
    // A Hard Reset names what it carries.
    let is = |code: ErrorCode| {
        (error.code, error.subcode) == (Some(code.code), Some(code.subcode))
            || error.subcode == Some(ErrorCode::HARD_RESET.subcode) && error.text.contains(&code.to_string())
    };
    let received = error.direction == ErrorDirection::Received;
    Some(if is(ErrorCode::BFD_DOWN) {
        "see why packets of BFD were lost: the link, the load of both ends, the intervals of the BFDProfile; a router from which bfdProfile \
         was taken off must have its BFD off too"
            .to_owned()
    } else if is(ErrorCode::ROLE_MISMATCH) {
        "set role of the BGPPeer to the other end's counterpart: provider and customer, peer and peer, rs and rs-client"
            .to_owned()
    } else if is(ErrorCode::BAD_PEER_AS) {
        format!(
            "compare asNumber of the BGPPeer with the other end's AS, and what the other end has for this node with AS {}",
            peer.local_as
        )
    } else if received && is(ErrorCode::MAXIMUM_PREFIXES_REACHED) {
        "the other end takes no more prefixes of this node: announce fewer (filters, aggregates) or raise its limit, and clear the session there"
            .to_owned()
    } else if received && is(ErrorCode::ADMINISTRATIVE_SHUTDOWN) {
        "the other end was shut down by will: start the session there, or undrain that node".to_owned()
    } else {
        return None;
    })
}
