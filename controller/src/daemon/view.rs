//! What the speaker says of itself, in the words of the socket.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use weft_bgp::bfd::{Diagnostic, Hops, State as BfdState};
use weft_bgp::config::{MaxPrefixes, RemoteAs};
use weft_bgp::protection::{Authentication, Signature};
use weft_bgp::status::{Direction, FamilyStatus, LastError, PathStatus, PeerStatus, RouteStatus};
use weft_bgp::transport::AoInUse;
use weft_bgp::transport::bfd::BfdReport;
use weft_bgp::types::PeerAddress;
use weft_bgp::wire::attributes::{AsPath, Origin, SegmentKind};
use weft_bgp::wire::header::MESSAGE_MAX;

use super::clock::Moment;
use crate::api::BGPPeerSpec;
use crate::api::json::{
    AddPathJson, AsPathElement, AuthenticationJson, BfdJson, CapabilitiesJson, ErrorDirection, FamilyJson,
    GracefulRestartJson, GracefulRestartRole, LastErrorJson, MaxPrefixesJson, OriginJson, PathJson, PeerJson,
    RoleJson, RouteJson, TimersJson,
};

mod peer_detail;

/// The port that needs no mention (RFC 4271 section 4).
const BGP_PORT: u16 = 179;

/// One peer. `spec`: its BGPPeer.
pub(super) fn peer(
    status: &PeerStatus,
    spec: Option<&BGPPeerSpec>,
    bfd: &BfdReport,
    ao_keys: Option<&AoInUse>,
    now: &Moment,
) -> PeerJson {
    let config = &status.config;
    let session = status.session.as_deref();
    let total = |count: fn(&FamilyStatus) -> usize| status.families.iter().map(|f| count(f) as u64).sum();
    PeerJson {
        name: config.name.clone(),
        peer: peer_address(status.address, config.port),
        listen_range: status.range,
        neighbour: neighbour(status),
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
        timers: session.map(|s| TimersJson {
            hold_time: s.hold_time.as_secs(),
            keepalive_time: s.keepalive_time.as_secs(),
            send_hold_time: config.timers.send_hold_time(s.hold_time).map_or(0, |time| time.as_secs()),
        }),
        route_reflector_client: config.route_reflector_client,
        role: config.role.map(|role| RoleJson {
            local: role.to_string(),
            remote: session.and_then(|s| s.remote_role).map(|role| role.to_string()),
        }),
        capabilities: session.map(|s| CapabilitiesJson {
            four_octet_as: s.four_octet_as,
            extended_next_hop: s.extended_next_hop,
            route_refresh: s.route_refresh,
            enhanced_route_refresh: s.enhanced_route_refresh,
            extended_messages: s.max_message > MESSAGE_MAX,
            add_path: AddPathJson {
                receive: s.add_path.receive.iter().collect(),
                send: s.add_path.send.iter().collect(),
            },
        }),
        since: status.since.map(|since| now.timestamp_of(since)),
        families: session.map_or(config.families, |s| s.families).iter().collect(),
        received: total(|f| f.received),
        accepted: total(|f| f.accepted),
        advertised: total(|f| f.advertised),
        per_family: status.families.iter().map(|f| (f.family, family(f))).collect(),
        bfd: bfd_session(status, bfd, now),
        graceful_restart: graceful_restart(status, now),
        authentication: match &config.authentication {
            Authentication::None => None,
            Authentication::Signed(Signature::Md5(_)) => Some(AuthenticationJson::TcpMd5),
            Authentication::Signed(Signature::Ao(_)) => Some(AuthenticationJson::TcpAo),
            Authentication::Unavailable(_) => Some(AuthenticationJson::Unavailable),
        },
        ttl_security: config.ttl_security.map(u8::from),
        max_prefixes: max_prefixes(status),
        last_error: status.last_error.as_ref().map(|error| last_error(error, now)),
        detail: peer_detail::detail(status, spec, ao_keys, now),
    }
}

/// `10.0.0.1`, `10.0.0.1:1790`, `[2001:db8::1]:1790`, `%eth0`.
pub(super) fn peer_address(address: PeerAddress, port: u16) -> String {
    match address {
        PeerAddress::Ip(ip) if port != BGP_PORT => SocketAddr::new(ip, port).to_string(),
        address => address.to_string(),
    }
}

fn neighbour(status: &PeerStatus) -> Option<Ipv6Addr> {
    status.address.interface()?;
    match status.session.as_ref().map(|session| session.remote) {
        Some(IpAddr::V6(remote)) => Some(remote),
        _ => status.config.neighbour,
    }
}

fn family(status: &FamilyStatus) -> FamilyJson {
    let rejected = status.rejected.iter().filter(|(_, count)| *count > 0);
    let rejected: BTreeMap<String, u64> =
        rejected.map(|(code, count)| ((*code).to_owned(), *count as u64)).collect();
    FamilyJson {
        received: status.received as u64,
        accepted: status.accepted as u64,
        advertised: status.advertised as u64,
        stale: status.stale as u64,
        long_lived_stale: if status.long_lived { status.stale as u64 } else { 0 },
        refused_paths: status.refused,
        as_set_routes: rejected.get("as-set").copied().unwrap_or(0),
        rejected,
    }
}

fn max_prefixes(status: &PeerStatus) -> Option<MaxPrefixesJson> {
    let MaxPrefixes { limit, warning, .. } = status.config.max_prefixes?;
    let more = |family: &FamilyStatus| family.told() > limit as usize;
    Some(MaxPrefixesJson { limit, warning, exceeded: status.over_limit || status.families.iter().any(more) })
}

/// Nothing before both ends agreed on it, except while a peer is away that had agreed.
fn graceful_restart(status: &PeerStatus, now: &Moment) -> Option<GracefulRestartJson> {
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
    Some(GracefulRestartJson {
        role,
        restarting,
        stale_routes,
        stale_until: status.stale_until.map(|until| now.timestamp_of(until)),
        notification: agreed.is_some_and(|peer| peer.notification),
        long_lived_time: agreed
            .and_then(|peer| peer.long_lived)
            .map(|long_lived| long_lived.ipv4.max(long_lived.ipv6).as_secs()),
    })
}

/// None where none is wanted. One that is wanted and is not there is Down.
fn bfd_session(status: &PeerStatus, bfd: &BfdReport, now: &Moment) -> Option<BfdJson> {
    let config = status.config.bfd.filter(|_| !status.config.stays_down())?;
    let remote = status.config.bfd_remote(status.address);
    let session = remote.and_then(|remote| bfd.sessions.get(&remote));
    let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let state = |state: Option<BfdState>| state.unwrap_or(BfdState::Down).to_string();
    let diagnostic = |diagnostic: Option<Diagnostic>| diagnostic.unwrap_or_default().to_string();
    let counters = session.map(|s| s.counters).unwrap_or_default();
    Some(BfdJson {
        state: state(session.map(|s| s.state)),
        since: session.map(|s| now.timestamp_of(s.since)),
        diagnostic: diagnostic(session.map(|s| s.diagnostic)),
        remote_state: state(session.map(|s| s.remote_state)),
        remote_diagnostic: diagnostic(session.map(|s| s.remote_diagnostic)),
        multihop: matches!(config.hops, Hops::Multi { .. }),
        transmit_interval_ms: session.and_then(|s| s.transmit_interval).map(milliseconds),
        detection_time_ms: session.and_then(|s| s.detection_time).map(milliseconds),
        sent: counters.sent,
        received: counters.received,
        failures: counters.failures,
    })
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
        path_id: status.path_id,
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
        originator_id: attributes.originator_id,
        cluster_list: attributes.cluster_list.clone(),
        only_to_customer: attributes.only_to_customer.map(|asn| asn.0),
        next_hop_over: status.next_hop_over,
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use weft_bgp::types::{Asn, Reason};
    use weft_bgp::wire::attributes::{PathAttributes, Segment};

    use super::*;

    fn attributes(next_hop: &str) -> PathAttributes {
        let segment = |kind, asns: &[u32]| Segment { kind, asns: asns.iter().copied().map(Asn).collect() };
        PathAttributes {
            origin: Origin::Incomplete,
            as_path: AsPath(vec![
                segment(SegmentKind::Sequence, &[65000, 4_200_000_000]),
                segment(SegmentKind::Set, &[64601, 64602]),
            ]),
            next_hop: next_hop.parse().unwrap(),
            next_hop_link_local: None,
            med: Some(7),
            local_pref: None,
            atomic_aggregate: false,
            aggregator: None,
            communities: vec![65000 << 16 | 666],
            ext_communities: vec![[0, 2, 0xfd, 0xe8, 0, 0, 0, 1]],
            large_communities: vec![[4_200_000_000, 1, 2]],
            originator_id: Some([10, 0, 0, 9].into()),
            cluster_list: vec![[10, 0, 0, 7].into(), [10, 0, 0, 8].into()],
            only_to_customer: Some(Asn(64700)),
            unknown: Vec::new(),
            partial: <_>::default(),
        }
    }

    fn path_of(next_hop: &str, best: bool) -> PathStatus {
        PathStatus {
            path_id: Some(7),
            peer: Some([10, 0, 0, 1].into()),
            attributes: Arc::new(attributes(next_hop)),
            valid: true,
            best,
            multipath: false,
            stale: false,
            next_hop_over: Some("10.0.0.0/30".parse().unwrap()),
            reason: Reason::new("med", "a higher MED"),
        }
    }

    #[test]
    fn paths_are_written_as_documented() {
        let paths = vec![path_of("10.0.0.1", false), path_of("10.0.0.2", true)];
        let status = RouteStatus { prefix: "10.1.0.0/26".parse().unwrap(), paths };
        let json = serde_json::to_value(route(&status, true)).unwrap();
        let lost = serde_json::json!({
            "nextHops": ["10.0.0.1"], "peer": "10.0.0.1", "pathId": 7, "asPath": [65000, 4_200_000_000_u32, [64601, 64602]],
            "origin": "incomplete", "localPref": null, "med": 7, "communities": ["65000:666", "4200000000:1:2"],
            "extCommunities": ["0002fde800000001"], "originatorID": "10.0.0.9", "clusterList": ["10.0.0.7", "10.0.0.8"],
            "onlyToCustomer": 64700, "nextHopOver": "10.0.0.0/30", "valid": true, "best": false,
            "reason": {"code": "med", "text": "a higher MED"},
        });
        assert_eq!(json["paths"][0], lost);
        assert_eq!((&json["best"], &json["inKernel"]), (&1.into(), &true.into()));
    }

    #[test]
    fn our_own_route_has_no_next_hop() {
        assert!(path(&path_of("0.0.0.0", true)).next_hops.is_empty());
        assert!(path(&path_of("::", true)).next_hops.is_empty());
    }

    #[test]
    fn the_port_is_told_where_it_is_not_179() {
        assert_eq!(peer_address([10, 0, 0, 1].into(), 179), "10.0.0.1");
        let ip: std::net::IpAddr = "fd00::1".parse().unwrap();
        assert_eq!(peer_address(ip.into(), 1790), "[fd00::1]:1790");
        let interface = weft_bgp::types::Interface::new(2, "eth0").unwrap();
        assert_eq!(peer_address(PeerAddress::Interface(interface), 179), "%eth0");
    }

    #[test]
    fn errors_are_told_in_utc() {
        let now = Moment::now();
        let at = now.instant.checked_sub(Duration::from_secs(60)).unwrap();
        let error = LastError {
            at,
            direction: Direction::Received,
            code: Some(6),
            subcode: Some(2),
            text: "Administrative Shutdown".into(),
        };
        let told = last_error(&error, &now);
        assert_eq!(now.timestamp_of(now.instant).duration_since(told.time).as_secs(), 60);
        assert_eq!((told.direction, told.code, told.subcode), (ErrorDirection::Received, Some(6), Some(2)));
    }
}
