//! Routes of table main: requests that add, replace and delete them, and the dump.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, Parseable};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteNextHop, RouteNextHopFlags, RouteProtocol,
    RouteScope, RouteType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;

use super::message::Encoder;
use super::{Error, Mode, Request, Socket, family_of};
use crate::nexthop::{self, Nexthops};
use crate::route::{Action, NextHop, NextHops, Protocol, Route, RouteKey};

/// `RTA_NH_ID` (linux/rtnetlink.h).
const RTA_NH_ID: u16 = 30;

impl Route {
    /// The request that adds the route where its key is free, and fails with `EEXIST` where it is not,
    /// whoever holds it.
    pub fn add(&self) -> Request {
        Request::new(&RouteNetlinkMessage::NewRoute(self.message()), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// The request that writes the route over whatever holds its key. The kernel does not look at the protocol
    /// of what it replaces: only for keys known to be the caller's own.
    pub fn replace(&self) -> Request {
        Request::new(&RouteNetlinkMessage::NewRoute(self.message()), NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// The request that deletes the route with this key and protocol; a route of another protocol with the
    /// same key is not touched (`ESRCH`).
    pub fn delete(key: RouteKey, protocol: Protocol) -> Request {
        let mut message = header(key, protocol);
        // RT_SCOPE_NOWHERE and RTN_UNSPEC match every scope and type (fib_table_delete).
        message.header.scope = RouteScope::NoWhere;
        Request::new(&RouteNetlinkMessage::DelRoute(message), 0)
    }

    /// Appends the request that writes the route, as [`Self::add`] or [`Self::replace`] does. What there are many of, routes over
    /// nexthop objects, costs no allocation.
    pub(super) fn encode(&self, mode: Mode, sequence: u32, out: &mut Vec<u8>) {
        let kind = match &self.action {
            Action::Object(_) => libc::RTN_UNICAST,
            Action::Unreachable => libc::RTN_UNREACHABLE,
            Action::Blackhole => libc::RTN_BLACKHOLE,
            Action::Forward(_) | Action::Other(_) => {
                let request = if mode == Mode::Add { self.add() } else { self.replace() };
                return request.encode(sequence, 0, out);
            }
        };
        let flags = if mode == Mode::Add { NLM_F_CREATE | NLM_F_EXCL } else { NLM_F_CREATE | NLM_F_REPLACE };
        let mut request = begin(
            out,
            libc::RTM_NEWROUTE,
            flags,
            sequence,
            self.key,
            self.protocol,
            (libc::RT_SCOPE_UNIVERSE, kind),
        );
        if let Action::Object(id) = self.action {
            request.attribute(RTA_NH_ID, &id.to_ne_bytes());
        }
        if let Some(source) = self.preferred_source {
            request.address(libc::RTA_PREFSRC, source);
        }
        request.end();
    }

    /// The same for [`Self::delete`].
    pub(super) fn encode_delete(key: RouteKey, protocol: Protocol, sequence: u32, out: &mut Vec<u8>) {
        begin(
            out,
            libc::RTM_DELROUTE,
            0,
            sequence,
            key,
            protocol,
            (libc::RT_SCOPE_NOWHERE, libc::RTN_UNSPEC),
        )
        .end();
    }

    fn message(&self) -> RouteMessage {
        let mut message = header(self.key, self.protocol);
        message.header.kind = match &self.action {
            Action::Forward(_) | Action::Object(_) => RouteType::Unicast,
            Action::Unreachable => RouteType::Unreachable,
            Action::Blackhole => RouteType::BlackHole,
            Action::Other(number) => RouteType::from(*number),
        };
        if let Action::Forward(next_hops) = &self.action {
            forward(&mut message, next_hops);
        }
        if let Action::Object(id) = self.action {
            message.attributes.push(RouteAttribute::NhId(id));
        }
        message.attributes.extend(self.preferred_source.map(|ip| RouteAttribute::PrefSource(ip.into())));
        message
    }

    /// Reads a route of table main; `None` for other tables, cloned cache entries, source routes, and keys with
    /// a type of service, none of which can be in our way.
    pub(crate) fn from_message(message: &RouteMessage) -> Option<Self> {
        let header = &message.header;
        let mut fields = Fields { table: u32::from(header.table), ..Fields::default() };
        for attribute in &message.attributes {
            fields.read(attribute);
        }
        let main = fields.table == u32::from(RouteHeader::RT_TABLE_MAIN);
        let plain = header.tos == 0
            && header.source_prefix_length == 0
            && !header.flags.contains(netlink_packet_route::route::RouteFlags::Cloned);
        if !main || !plain {
            return None;
        }
        let destination = fields.destination.or(match header.address_family {
            AddressFamily::Inet => Some(IpAddr::from([0; 4])),
            AddressFamily::Inet6 => Some(IpAddr::from([0; 16])),
            _ => None,
        })?;
        let destination = IpNet::new(destination, header.destination_prefix_length).ok()?;
        let protocol = Protocol(header.protocol.into());
        let own_object = fields.object.filter(|id| protocol.is_weft() && nexthop::OWN_IDS.contains(id));
        let action = match (header.kind, own_object) {
            (RouteType::Unicast, Some(id)) => Action::Object(id),
            (RouteType::Unicast, None) => Action::Forward(fields.next_hops(header)),
            (RouteType::Unreachable, _) => Action::Unreachable,
            (RouteType::BlackHole, _) => Action::Blackhole,
            (other, _) => Action::Other(other.into()),
        };
        Some(Self {
            key: RouteKey::new(destination, fields.metric),
            protocol,
            action,
            preferred_source: fields.preferred_source,
        })
    }
}

/// Begins a request about the route with this key.
fn begin(
    out: &mut Vec<u8>,
    message: u16,
    flags: u16,
    sequence: u32,
    key: RouteKey,
    protocol: Protocol,
    (scope, kind): (u8, u8),
) -> Encoder<'_> {
    let destination = key.destination();
    let family = u8::from(family_of(destination.addr()));
    let mut request = Encoder::new(out, message, flags, sequence);
    // `struct rtmsg`: family, lengths of destination and source, type of service, table, protocol, scope, type, flags.
    request.bytes(&[
        family,
        destination.prefix_len(),
        0,
        0,
        RouteHeader::RT_TABLE_MAIN,
        protocol.0,
        scope,
        kind,
    ]);
    request.bytes(&0u32.to_ne_bytes());
    request.address(libc::RTA_DST, destination.addr());
    request.attribute(libc::RTA_PRIORITY, &key.metric().to_ne_bytes());
    request
}

fn header(key: RouteKey, protocol: Protocol) -> RouteMessage {
    let destination = key.destination();
    let mut message = RouteMessage::default();
    message.header.address_family = family_of(destination.addr());
    message.header.destination_prefix_length = destination.prefix_len();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::from(protocol.0);
    message.attributes.push(RouteAttribute::Destination(destination.addr().into()));
    message.attributes.push(RouteAttribute::Priority(key.metric()));
    message
}

/// Adds the legs: one as plain attributes, several as `RTA_MULTIPATH`.
fn forward(message: &mut RouteMessage, next_hops: &NextHops) {
    let family = message.header.address_family;
    // What fib_check_nh demands of an IPv4 route whose destination is on the link.
    if next_hops.iter().all(|leg| leg.gateway.is_none()) && family == AddressFamily::Inet {
        message.header.scope = RouteScope::Link;
    }
    let mut legs = next_hops.iter();
    if let (Some(leg), None) = (legs.next(), legs.next()) {
        message.attributes.extend(leg.gateway.map(|gateway| gateway_attribute(family, gateway)));
        message.attributes.push(RouteAttribute::Oif(leg.link));
        if leg.onlink {
            message.header.flags |= netlink_packet_route::route::RouteFlags::Onlink;
        }
        return;
    }
    let legs = next_hops.iter().map(|leg| {
        let mut hop = RouteNextHop::default();
        hop.hops = u8::try_from(leg.weight.saturating_sub(1)).unwrap_or(u8::MAX);
        hop.interface_index = leg.link;
        if leg.onlink {
            hop.flags = RouteNextHopFlags::Onlink;
        }
        hop.attributes.extend(leg.gateway.map(|gateway| gateway_attribute(family, gateway)));
        hop
    });
    message.attributes.push(RouteAttribute::MultiPath(legs.collect()));
}

fn gateway_attribute(family: AddressFamily, gateway: IpAddr) -> RouteAttribute {
    match gateway {
        IpAddr::V6(gateway) if family == AddressFamily::Inet => RouteAttribute::Via(RouteVia::Inet6(gateway)),
        gateway => RouteAttribute::Gateway(gateway.into()),
    }
}

/// What the attributes of a route message say.
#[derive(Default)]
struct Fields {
    table: u32,
    destination: Option<IpAddr>,
    metric: u32,
    preferred_source: Option<IpAddr>,
    gateway: Option<IpAddr>,
    link: Option<u32>,
    object: Option<u32>,
    legs: Vec<NextHop>,
}

impl Fields {
    fn read(&mut self, attribute: &RouteAttribute) {
        match attribute {
            RouteAttribute::Table(table) => self.table = *table,
            RouteAttribute::Destination(address) => self.destination = ip(address),
            RouteAttribute::Priority(metric) => self.metric = *metric,
            RouteAttribute::PrefSource(address) => self.preferred_source = ip(address),
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) => self.gateway = gateway(attribute),
            RouteAttribute::Oif(link) => self.link = Some(*link),
            RouteAttribute::NhId(id) => self.object = Some(*id),
            RouteAttribute::MultiPath(hops) => {
                self.legs.extend(hops.iter().map(|hop| NextHop {
                    gateway: hop.attributes.iter().find_map(gateway),
                    link: hop.interface_index,
                    weight: u16::from(hop.hops).saturating_add(1),
                    onlink: hop.flags.contains(RouteNextHopFlags::Onlink),
                }));
            }
            _ => {}
        }
    }

    fn next_hops(&self, header: &RouteHeader) -> NextHops {
        let single = self.link.map(|link| NextHop {
            gateway: self.gateway,
            link,
            weight: 1,
            onlink: header.flags.contains(netlink_packet_route::route::RouteFlags::Onlink),
        });
        if self.legs.is_empty() { single.into_iter().collect() } else { self.legs.iter().copied().collect() }
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}

fn gateway(attribute: &RouteAttribute) -> Option<IpAddr> {
    match attribute {
        RouteAttribute::Gateway(address) => ip(address),
        RouteAttribute::Via(RouteVia::Inet(address)) => Some(IpAddr::V4(*address)),
        RouteAttribute::Via(RouteVia::Inet6(address)) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}

impl Socket {
    /// All routes of table main, IPv4 first. Nexthop objects are resolved to the legs they stand for.
    pub fn routes(&mut self) -> Result<Vec<Route>, Error> {
        self.resolved_routes(RouteProtocol::Unspec)
    }

    /// As [`Self::routes`], but only those of one protocol: the kernel leaves out the others, however many.
    pub fn routes_of(&mut self, protocol: Protocol) -> Result<Vec<Route>, Error> {
        self.resolved_routes(RouteProtocol::from(protocol.0))
    }

    /// `RouteProtocol::Unspec` stands for every protocol.
    fn resolved_routes(&mut self, protocol: RouteProtocol) -> Result<Vec<Route>, Error> {
        let mut routes = self.table_main(protocol)?;
        let is_over_object = |(route, object): &(Route, Option<u32>)| {
            object.is_some() || matches!(route.action, Action::Object(_))
        };
        if routes.iter().any(is_over_object)
            && let Some(objects) = self.nexthops()?
        {
            for (route, object) in &mut routes {
                let own = if let Action::Object(id) = route.action { Some(id) } else { None };
                if let Some(id) = object.or(own) {
                    route.action = Action::Forward(objects.legs(id));
                }
            }
        }
        Ok(routes.into_iter().map(|(route, _)| route).collect())
    }

    /// All routes of table main, those of ours over our nexthop objects by the ids of these, and all objects. These are read last: a
    /// route whose object is not among them went with it.
    pub(super) fn routes_and_nexthops(&mut self) -> Result<(Vec<Route>, Option<Nexthops>), Error> {
        let routes = self.table_main(RouteProtocol::Unspec)?;
        let objects = self.nexthops()?;
        let resolve = |(route, object): (Route, Option<u32>)| {
            let Some(known) = &objects else { return Some(route) };
            let own = if let Action::Object(id) = route.action { Some(id) } else { None };
            match own.map(|id| known.get(id)) {
                Some(None) => None,
                Some(Some(object)) if object.is_weft_group() => Some(route),
                _ => match object.or(own) {
                    Some(id) => Some(Route { action: Action::Forward(known.legs(id)), ..route }),
                    None => Some(route),
                },
            }
        };
        let routes = routes.into_iter().filter_map(resolve).collect();
        Ok((routes, objects))
    }

    fn table_main(&mut self, protocol: RouteProtocol) -> Result<Vec<(Route, Option<u32>)>, Error> {
        let mut routes = self.family_routes(AddressFamily::Inet, protocol)?;
        routes.append(&mut self.family_routes(AddressFamily::Inet6, protocol)?);
        Ok(routes)
    }

    /// Each route with the id of its nexthop object where only that says where it leads and it is none of ours.
    fn family_routes(
        &mut self,
        family: AddressFamily,
        protocol: RouteProtocol,
    ) -> Result<Vec<(Route, Option<u32>)>, Error> {
        let mut message = RouteMessage::default();
        message.header.protocol = protocol;
        message.header.address_family = family;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        let request = Request::new(&RouteNetlinkMessage::GetRoute(message), 0);
        let routes = self.dump(&request, |_, payload| match RouteMessage::parse(payload) {
            Ok(message) => Route::from_message(&message).map(|route| {
                let object = nexthop_object(&message, &route);
                (route, object)
            }),
            Err(error) => {
                tracing::warn!(%error, "skipping a route the kernel described in an unknown way");
                None
            }
        });
        match routes {
            // A fresh namespace has no table main until the first route is added.
            Err(error) if error.errno() == Some(Errno::ENOENT) => Ok(Vec::new()),
            routes => routes,
        }
    }
}

fn nexthop_object(message: &RouteMessage, route: &Route) -> Option<u32> {
    let bare = matches!(&route.action, Action::Forward(legs) if legs.is_empty());
    message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::NhId(id) if bare => Some(*id),
        _ => None,
    })
}
