//! Values that unit tests start from.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::config::{NextHopMode, PeerConfig, RemoteAs, Timers};
use crate::ingress::Session;
use crate::policy::{Policy, Rule, Verdict};
use crate::types::{Asn, ConnectionId, FamilySet, PeerType, Reason};
use crate::wire::attributes::{AsPath, PathAttributes, Segment, SegmentKind};

/// Our AS on every sample session.
pub(crate) const OWN: Asn = Asn(65000);
/// The AS of an external sample peer.
pub(crate) const OTHER: Asn = Asn(65001);

/// A peer that may say, and is told, everything.
pub(crate) fn config() -> PeerConfig {
    let accept = Arc::new(Policy {
        rules: vec![Rule::new(Verdict::Accept)],
        unmatched: Reason::new("unmatched", "no rule matches"),
    });
    PeerConfig {
        name: "peer".into(),
        port: 179,
        neighbour: None,
        remote_as: RemoteAs::External,
        local_as: OWN,
        source_address: None,
        families: FamilySet::all(),
        next_hop_v4: None,
        next_hop_v6: None,
        next_hop_mode: NextHopMode::Auto,
        ebgp_multihop: false,
        authentication: <_>::default(),
        ttl_security: None,
        max_prefixes: None,
        passive: false,
        shutdown: None,
        route_reflector_client: false,
        add_path: <_>::default(),
        allowed_own_as: 0,
        allow_as_sets: false,
        as_override: false,
        remove_private_as: false,
        role: None,
        role_strict: false,
        timers: Timers::default(),
        graceful_restart: None,
        bfd: None,
        import: accept.clone(),
        export: accept,
    }
}

/// A session between 10.0.0.1, ours, and 10.0.0.2.
pub(crate) fn session(peer_type: PeerType) -> Session {
    Session {
        connection: ConnectionId::Dialled(1),
        local: SocketAddr::from(([10, 0, 0, 1], 179)),
        remote: IpAddr::from([10, 0, 0, 2]),
        local_as: OWN,
        remote_as: if peer_type == PeerType::Internal { OWN } else { OTHER },
        peer_type,
        remote_id: Ipv4Addr::new(10, 0, 0, 2),
        families: FamilySet::all(),
        four_octet_as: true,
        extended_next_hop: false,
        add_path: <_>::default(),
        route_refresh: true,
        enhanced_route_refresh: true,
        role: None,
        remote_role: None,
        max_message: 4096,
        hold_time: Duration::from_secs(90),
        keepalive_time: Duration::from_secs(30),
        graceful_restart: None,
    }
}

/// What an external sample peer announces with.
pub(crate) fn attributes() -> PathAttributes {
    PathAttributes {
        as_path: AsPath(vec![Segment { kind: SegmentKind::Sequence, asns: vec![OTHER] }]),
        ..PathAttributes::new(IpAddr::from([10, 0, 0, 2]))
    }
}
