//! What the speaker says of itself, in the words of the socket.

use std::net::IpAddr;

use weft_bgp::config::RemoteAs;
use weft_bgp::status::{Direction, FamilyStatus, LastError, PathStatus, PeerStatus, RouteStatus};
use weft_bgp::wire::attributes::{AsPath, Origin, SegmentKind};

use super::clock::Moment;
use crate::api::json::{
    AsPathElement, ErrorDirection, FamilyJson, GracefulRestartJson, GracefulRestartRole, LastErrorJson,
    OriginJson, PathJson, PeerJson, RouteJson,
};

/// The port that needs no mention (RFC 4271 section 4).
const BGP_PORT: u16 = 179;

/// One peer.
pub(super) fn peer(status: &PeerStatus, now: &Moment) -> PeerJson {
    let config = &status.config;
    let session = status.session.as_deref();
    let total = |count: fn(&FamilyStatus) -> usize| status.families.iter().map(|f| count(f) as u64).sum();
    PeerJson {
        name: config.name.clone(),
        peer: peer_address(status.address, config.port),
        remote_as: session
            .map(|s| s.remote_as)
            .or(match config.remote_as {
                RemoteAs::Exactly(asn) => Some(asn),
                RemoteAs::Internal => Some(config.local_as),
                RemoteAs::External => None,
            })
            .map(|asn| asn.0),
        local_as: session.map_or(config.local_as, |s| s.local_as).0,
        state: status.state,
        since: status.since.map(|since| now.timestamp_of(since)),
        families: session.map_or(config.families, |s| s.families).iter().collect(),
        received: total(|f| f.received),
        accepted: total(|f| f.accepted),
        advertised: total(|f| f.advertised),
        per_family: status.families.iter().map(|f| (f.family, family(f))).collect(),
        bfd: None,
        graceful_restart: graceful_restart(status),
        last_error: status.last_error.as_ref().map(|error| last_error(error, now)),
    }
}

/// `10.0.0.1`, `10.0.0.1:1790`, `[2001:db8::1]:1790`.
pub(super) fn peer_address(address: IpAddr, port: u16) -> String {
    if port == BGP_PORT { address.to_string() } else { std::net::SocketAddr::new(address, port).to_string() }
}

fn family(status: &FamilyStatus) -> FamilyJson {
    FamilyJson {
        received: status.received as u64,
        accepted: status.accepted as u64,
        advertised: status.advertised as u64,
        stale: status.stale as u64,
    }
}

/// Nothing before both ends agreed on it, except while a peer is away that had agreed.
fn graceful_restart(status: &PeerStatus) -> Option<GracefulRestartJson> {
    let stale_routes = status.families.iter().map(|f| f.stale as u64).sum();
    let restarting = status.stale_until.is_some();
    let agreed = status.session.as_ref().and_then(|session| session.graceful_restart);
    let role = match agreed {
        // A peer that names no family keeps our routes and asks nobody to keep its own (RFC 4724 section 3).
        Some(peer) if peer.families.is_empty() => GracefulRestartRole::Restarter,
        Some(_) => GracefulRestartRole::Both,
        None if restarting => GracefulRestartRole::Helper,
        None => return None,
    };
    Some(GracefulRestartJson { role, restarting, stale_routes })
}

fn last_error(error: &LastError, now: &Moment) -> LastErrorJson {
    LastErrorJson {
        time: now.timestamp_of(error.at),
        direction: match error.direction {
            Direction::Sent => ErrorDirection::Sent,
            Direction::Received => ErrorDirection::Received,
            Direction::Local => ErrorDirection::Local,
        },
        code: error.code,
        subcode: error.subcode,
        text: error.text.clone(),
    }
}

/// One prefix and its paths. `in_kernel` is the routing side's word on the prefix.
pub(super) fn route(status: &RouteStatus, in_kernel: bool) -> RouteJson {
    RouteJson {
        prefix: status.prefix,
        best: status.paths.iter().position(|path| path.best),
        in_kernel,
        paths: status.paths.iter().map(path).collect(),
    }
}

fn path(status: &PathStatus) -> PathJson {
    let attributes = &status.attributes;
    let standard = attributes.communities.iter().map(|c| format!("{}:{}", c >> 16, c & 0xffff));
    let large = attributes.large_communities.iter().map(|[a, b, c]| format!("{a}:{b}:{c}"));
    PathJson {
        // Our own route has no next hop until somebody is told of it.
        next_hops: Some(attributes.next_hop).filter(|hop| !hop.is_unspecified()).into_iter().collect(),
        peer: status.peer.map(|peer| peer.to_string()),
        as_path: as_path(&attributes.as_path),
        origin: match attributes.origin {
            Origin::Igp => OriginJson::Igp,
            Origin::Egp => OriginJson::Egp,
            Origin::Incomplete => OriginJson::Incomplete,
        },
        local_pref: attributes.local_pref,
        med: attributes.med,
        communities: standard.chain(large).collect(),
        ext_communities: attributes
            .ext_communities
            .iter()
            .map(|octets| format!("{:016x}", u64::from_be_bytes(*octets)))
            .collect(),
        valid: status.valid,
        best: status.best,
        reason: status.reason.clone(),
    }
}

fn as_path(path: &AsPath) -> Vec<AsPathElement> {
    let mut elements = Vec::new();
    for segment in &path.0 {
        let numbers = segment.asns.iter().map(|asn| asn.0);
        match segment.kind {
            SegmentKind::Sequence | SegmentKind::ConfedSequence => {
                elements.extend(numbers.map(AsPathElement::Number));
            }
            SegmentKind::Set | SegmentKind::ConfedSet => elements.push(AsPathElement::Set(numbers.collect())),
        }
    }
    elements
}
