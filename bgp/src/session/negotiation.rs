//! OPEN: what we say, and what both ends agree on (RFC 4271 sections 4.2 and 6.2, RFC 5492).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::{BufMut, BytesMut};

use crate::config::{AddPath, PeerConfig, RemoteAs};
use crate::ingress::{AddPathFamilies, LocalRestart, LongLived, PeerGracefulRestart, Session};
use crate::role::Role;
use crate::types::{ConnectionId, Family, FamilySet, PeerAddress, PeerType};
use crate::wire::WireError;
use crate::wire::capability::{
    AddPathFamily, AfiSafi, Capability, GracefulRestartCapability, LongLivedFamily, NextHopEncoding,
};
use crate::wire::error::ErrorCode;
use crate::wire::header::{EXTENDED_MESSAGE_MAX, MESSAGE_MAX};
use crate::wire::open::Open;

/// Our side of every OPEN to a peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Local<'a> {
    pub(super) config: &'a PeerConfig,
    pub(super) router_id: Ipv4Addr,
    pub(super) restart: LocalRestart,
    /// Where the peer is.
    pub(super) peer: PeerAddress,
    /// Whether the peer has refused an OPEN with capabilities: then none are said, and none of the peer's count (RFC 5492 section 3).
    pub(super) plain: bool,
}

impl Local<'_> {
    /// Whether the peer is known by its interface: next hops on that link are link-local addresses, of IPv4 prefixes too.
    fn over_link(&self) -> bool {
        self.peer.interface().is_some()
    }

    /// Whether the addresses of the session can be next hops of IPv4 prefixes by RFC 8950 alone.
    fn over_ipv6(&self) -> bool {
        self.peer.ip().is_none_or(|ip| ip.is_ipv6())
    }

    /// Our OPEN.
    pub(super) fn open(&self) -> Open {
        let config = self.config;
        let mut capabilities: Vec<Capability> =
            config.families.iter().map(|family| Capability::Multiprotocol(family.into())).collect();
        if self.over_ipv6() && config.families.contains(Family::Ipv4Unicast) {
            capabilities.push(Capability::ExtendedNextHop(vec![NextHopEncoding::IPV4_OVER_IPV6]));
        }
        capabilities.push(Capability::RouteRefresh);
        capabilities.push(Capability::EnhancedRouteRefresh);
        capabilities.push(Capability::FourOctetAs(config.local_as));
        capabilities.push(Capability::ExtendedMessage);
        let several = |family: Family| {
            AddPathFamily::new(family.into(), config.add_path.receive, config.add_path.send.is_some())
        };
        let several: Vec<_> = config.families.iter().filter_map(several).collect();
        if !several.is_empty() {
            capabilities.push(Capability::AddPath(several));
        }
        let internal = match config.remote_as {
            RemoteAs::Exactly(asn) => asn == config.local_as,
            RemoteAs::Internal => true,
            RemoteAs::External => false,
        };
        capabilities.extend(config.role.filter(|_| !internal).map(|role| Capability::Role(role as u8)));
        if let Some(graceful_restart) = config.graceful_restart {
            // Of a session that was lost without a restart too: what we forward by did not go with it.
            let forwarding = |family| self.restart.forwarding.contains(family);
            capabilities.push(Capability::GracefulRestart(GracefulRestartCapability {
                restarting: self.restart.restarting,
                notification: true,
                restart_time: GracefulRestartCapability::restart_seconds(graceful_restart.restart_time),
                families: config.families.iter().map(|f| (AfiSafi::from(f), forwarding(f))).collect(),
            }));
            if let Some(time) = graceful_restart.long_lived_time {
                let stale_time = u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
                let families = config.families.iter().map(|family| LongLivedFamily {
                    family: family.into(),
                    forwarding: forwarding(family),
                    stale_time: stale_time.min(LongLivedFamily::STALE_TIME_MAX),
                });
                capabilities.push(Capability::LongLivedGracefulRestart(families.collect()));
            }
        }
        if self.plain {
            capabilities.clear();
        }
        Open {
            my_as: config.local_as.two_octets(),
            hold_time: seconds(config.timers.hold_time),
            bgp_identifier: self.router_id,
            capabilities,
        }
    }

    /// What the peer's OPEN makes of a connection.
    ///
    /// # Errors
    /// OPEN Message Error (RFC 4271 section 6.2): an AS, identifier or hold time that is not acceptable, no family in common, or roles that
    /// do not go together.
    pub(super) fn negotiate(
        &self,
        open: &Open,
        connection: ConnectionId,
        (local, remote): (SocketAddr, IpAddr),
    ) -> Result<Session, WireError> {
        let config = self.config;
        let peer_type = self.check_identity(open)?;
        let remote_as = open.asn();
        let without;
        let open = if self.plain {
            without = Open { capabilities: Vec::new(), ..open.clone() };
            &without
        } else {
            open
        };
        let hold_time = negotiate_hold_time(config.timers.hold_time, open.hold_time)?;
        let families = self.negotiate_families(open)?;
        let role = config.role.filter(|_| peer_type == PeerType::External);
        let remote_role = role.map_or(Ok(None), |role| check_role(role, config.role_strict, open))?;
        let has = |capability| open.capabilities.contains(&capability);
        let four_octet_as = open.capabilities.iter().any(|c| matches!(c, Capability::FourOctetAs(_)));
        let extended = has(Capability::ExtendedMessage);
        Ok(Session {
            connection,
            local,
            remote,
            local_as: config.local_as,
            remote_as,
            peer_type,
            remote_id: open.bgp_identifier,
            families,
            four_octet_as,
            extended_next_hop: self.over_ipv6()
                && families.contains(Family::Ipv4Unicast)
                && offers_extended_next_hop(open),
            add_path: add_path(open, config.add_path, families),
            route_refresh: has(Capability::RouteRefresh),
            enhanced_route_refresh: has(Capability::EnhancedRouteRefresh),
            role,
            remote_role,
            max_message: if extended { EXTENDED_MESSAGE_MAX } else { MESSAGE_MAX },
            hold_time,
            keepalive_time: keepalive_time(hold_time, config.timers.keepalive_time),
            graceful_restart: config
                .graceful_restart
                .and_then(|ours| graceful_restart(open, families, ours.long_lived_time)),
        })
    }

    fn check_identity(&self, open: &Open) -> Result<PeerType, WireError> {
        let (config, asn) = (self.config, open.asn());
        if asn.0 == 0 || !config.remote_as.admits(config.local_as, asn) {
            let expected = match config.remote_as {
                RemoteAs::Exactly(expected) => format!("AS {expected}"),
                RemoteAs::Internal => format!("our own AS {}", config.local_as),
                RemoteAs::External => format!("any AS but 0 and our own {}", config.local_as),
            };
            let text = format!("the peer says it is AS {asn}; configured is {expected}");
            return Err(WireError::reset(ErrorCode::BAD_PEER_AS, &[], text));
        }
        let peer_type = config.peer_type(asn);
        let identifier = open.bgp_identifier;
        let text = match peer_type {
            _ if identifier.is_unspecified() => "BGP identifier 0.0.0.0".to_owned(),
            PeerType::Internal if identifier == self.router_id => {
                format!(
                    "BGP identifier {identifier} is ours too; inside an AS it has to be unique (RFC 6286)"
                )
            }
            _ => return Ok(peer_type),
        };
        Err(WireError::reset(ErrorCode::BAD_BGP_IDENTIFIER, &[], text))
    }

    fn negotiate_families(&self, open: &Open) -> Result<FamilySet, WireError> {
        let mut offered = open.capabilities.iter().filter_map(|capability| match capability {
            Capability::Multiprotocol(family) => Some(family.family()),
            _ => None,
        });
        // Without the capability a speaker exchanges IPv4 unicast routes, as RFC 4271 knows no others.
        let mut theirs: FamilySet = match offered.next() {
            None => FamilySet::from_iter([Family::Ipv4Unicast]),
            Some(first) => first.into_iter().chain(offered.flatten()).collect(),
        };
        if self.over_link() && !offers_extended_next_hop(open) {
            theirs.remove(Family::Ipv4Unicast);
        }
        let common = self.config.families.intersection(theirs);
        if !common.is_empty() {
            return Ok(common);
        }
        let mut data = BytesMut::new();
        for family in self.config.families.iter() {
            let (afi, safi) = family.afi_safi();
            data.put_slice(&[1, 4]);
            data.put_u16(afi);
            data.put_u8(0);
            data.put_u8(safi);
        }
        let list = |set: FamilySet| set.iter().map(|f| f.to_string()).collect::<Vec<_>>().join(", ");
        let text = format!(
            "no family in common: we offer [{}], of those known here the peer offers [{}]{}",
            list(self.config.families),
            list(theirs),
            if self.over_link() {
                "; ipv4-unicast counts with extended next hops only (RFC 8950)"
            } else {
                ""
            }
        );
        Err(WireError::reset(ErrorCode::UNSUPPORTED_CAPABILITY, &data, text))
    }
}

fn offers_extended_next_hop(open: &Open) -> bool {
    open.capabilities.iter().any(|capability| match capability {
        Capability::ExtendedNextHop(encodings) => encodings.contains(&NextHopEncoding::IPV4_OVER_IPV6),
        _ => false,
    })
}

/// What the peer says that it is to us, who are `ours` to it (RFC 9234 section 4.2).
fn check_role(ours: Role, strict: bool, open: &Open) -> Result<Option<Role>, WireError> {
    let mut said: Vec<u8> = open
        .capabilities
        .iter()
        .filter_map(|capability| match capability {
            Capability::Role(role) => Some(*role),
            _ => None,
        })
        .collect();
    said.dedup();
    let wanted = ours.counterpart();
    let text = match said.as_slice() {
        [] if !strict => return Ok(None),
        [] => "says nothing of its role, and roleStrict asks for it".to_owned(),
        [role] if *role == wanted as u8 => return Ok(Some(wanted)),
        [role] => match Role::from_code(*role) {
            Some(role) => format!("says it is {role}"),
            None => format!("says its role is {role}, which is none"),
        },
        _ => "says two roles at once".to_owned(),
    };
    let text = format!("the peer {text}; our role is {ours}, to which belongs {wanted} (RFC 9234)");
    Err(WireError::reset(ErrorCode::ROLE_MISMATCH, &[], text))
}

/// What one end takes and the other tells, of each agreed family (RFC 7911 section 4). What the peer says last of a family counts.
fn add_path(open: &Open, ours: AddPath, agreed: FamilySet) -> AddPathFamilies {
    let mut found = AddPathFamilies::default();
    let told = open.capabilities.iter().filter_map(|capability| match capability {
        Capability::AddPath(families) => Some(families),
        _ => None,
    });
    for theirs in told.flatten() {
        let Some(family) = theirs.family.family().filter(|family| agreed.contains(*family)) else { continue };
        let both = [
            (&mut found.receive, ours.receive && theirs.sends()),
            (&mut found.send, ours.send.is_some() && theirs.receives()),
        ];
        for (families, has) in both {
            match has {
                true => families.insert(family),
                false => families.remove(family),
            }
        }
    }
    found
}

fn seconds(duration: Duration) -> u16 {
    u16::try_from(duration.as_secs()).unwrap_or(u16::MAX)
}

/// The smaller of both; zero is none.
fn negotiate_hold_time(ours: Duration, theirs: u16) -> Result<Duration, WireError> {
    if matches!(theirs, 1 | 2) {
        let text = format!("a hold time of {theirs} s, not 0 or at least 3");
        return Err(WireError::reset(ErrorCode::UNACCEPTABLE_HOLD_TIME, &[], text));
    }
    Ok(Duration::from_secs(seconds(ours).min(theirs).into()))
}

/// A third of the hold time, or less if so configured, but no less than a second (RFC 4271 section 4.4).
fn keepalive_time(hold_time: Duration, configured: Option<Duration>) -> Duration {
    let third = hold_time / 3;
    let configured = configured.unwrap_or(third).max(Duration::from_secs(1));
    third.min(configured)
}

/// The last instance counts (RFC 4724 section 3).
fn graceful_restart(
    open: &Open,
    agreed: FamilySet,
    long_lived_time: Option<Duration>,
) -> Option<PeerGracefulRestart> {
    let capability = open.capabilities.iter().rev().find_map(|capability| match capability {
        Capability::GracefulRestart(capability) => Some(capability),
        _ => None,
    })?;
    let listed = |only_forwarding: bool| -> FamilySet {
        let families = capability.families.iter().filter(|(_, forwarding)| *forwarding || !only_forwarding);
        families.filter_map(|(family, _)| family.family()).collect::<FamilySet>().intersection(agreed)
    };
    Some(PeerGracefulRestart {
        notification: capability.notification,
        restarting: capability.restarting,
        restart_time: Duration::from_secs(capability.restart_time.into()),
        families: listed(false),
        forwarding: listed(true),
        long_lived: long_lived_time.and_then(|time| long_lived(open, agreed, time)),
    })
}

/// What the peer asks for (RFC 9494 section 3), `bound` at most; without graceful restart it asks for nothing.
fn long_lived(open: &Open, agreed: FamilySet, bound: Duration) -> Option<LongLived> {
    let families = open.capabilities.iter().rev().find_map(|capability| match capability {
        Capability::LongLivedGracefulRestart(families) => Some(families),
        _ => None,
    })?;
    let mut found = LongLived::default();
    for LongLivedFamily { family, forwarding, stale_time } in families {
        let Some(family) = family.family().filter(|family| agreed.contains(*family)) else { continue };
        let time = Duration::from_secs((*stale_time).into()).min(bound);
        match family {
            Family::Ipv4Unicast => found.ipv4 = time,
            Family::Ipv6Unicast => found.ipv6 = time,
        }
        if *forwarding {
            found.forwarding.insert(family);
        }
    }
    Some(found)
}
