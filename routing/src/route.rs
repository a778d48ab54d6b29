//! Routes as the kernel keys and compares them (table main only).

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;

use ipnet::IpNet;

/// Metric that the kernel gives to an IPv6 route added without one (`IP6_RT_PRIO_USER`).
const IPV6_DEFAULT_METRIC: u32 = 1024;
/// The largest weight of a leg: `rtnh_hops` is one byte and counts from 0.
const MAX_WEIGHT: u16 = 256;

/// Who installed a route (`rtm_protocol`, rtnetlink(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Protocol(pub u8);

impl Protocol {
    /// The kernel itself: connected routes.
    pub const KERNEL: Self = Self(2);
    /// Installed while booting, and what `ip route add` uses.
    pub const BOOT: Self = Self(3);
    /// An administrator's route.
    pub const STATIC: Self = Self(4);
    /// weftd's routes: learned ones and own blocks.
    pub const WEFT: Self = Self(176);
    /// Routes to pods on this node, written by the CNI plugin and restored by weftd.
    pub const WEFT_PODS: Self = Self(177);

    /// True for the two protocols that Weft writes.
    pub fn is_weft(self) -> bool {
        self == Self::WEFT || self == Self::WEFT_PODS
    }
}

/// The name `ip route` prints, or the number.
impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            1 => "redirect",
            2 => "kernel",
            3 => "boot",
            4 => "static",
            8 => "gated",
            9 => "ra",
            11 => "zebra",
            12 => "bird",
            16 => "dhcp",
            18 => "keepalived",
            42 => "babel",
            176 => "weft",
            177 => "weft-pods",
            186 => "bgp",
            187 => "isis",
            188 => "ospf",
            189 => "rip",
            192 => "eigrp",
            number => return write!(f, "{number}"),
        };
        f.write_str(name)
    }
}

/// What the kernel allows one route of in table main: a destination and a metric (`RTA_PRIORITY`), type of
/// service 0. Two routes with one key are one route, whoever wrote them.
///
/// Orders by destination, then by metric: of the routes to one destination the first is the one in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouteKey {
    destination: IpNet,
    metric: u32,
}

impl RouteKey {
    /// A key; host bits of `destination` are cleared and an IPv6 metric of 0 becomes 1024, as the kernel does.
    pub fn new(destination: IpNet, metric: u32) -> Self {
        let metric = match destination {
            IpNet::V6(_) if metric == 0 => IPV6_DEFAULT_METRIC,
            _ => metric,
        };
        Self { destination: destination.trunc(), metric }
    }

    /// The destination prefix, without host bits.
    pub fn destination(&self) -> IpNet {
        self.destination
    }

    /// The metric; lower is preferred.
    pub fn metric(&self) -> u32 {
        self.metric
    }
}

/// Of few parts, as one is made for every route.
impl Hash for RouteKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let rest = |length: u8| u128::from(self.metric) << 8 | u128::from(length);
        match self.destination {
            IpNet::V4(net) => {
                state.write_u128(u128::from(net.addr().to_bits()) << 64 | rest(net.prefix_len()));
            }
            IpNet::V6(net) => {
                state.write_u128(net.addr().to_bits());
                state.write_u128(rest(net.prefix_len()));
            }
        }
    }
}

impl fmt::Display for RouteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} metric {}", self.destination, self.metric)
    }
}

/// One leg of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NextHop {
    /// The router to send to; `None` when the destination itself is on the link. May be of the other family
    /// (IPv4 over an IPv6 router, RFC 8950).
    pub gateway: Option<IpAddr>,
    /// Index of the link to send out of.
    pub link: u32,
    /// Share of the traffic relative to the other legs, 1 to 256.
    pub weight: u16,
    /// The gateway is taken to be on the link although no connected route says so.
    pub onlink: bool,
}

impl NextHop {
    /// A leg over `gateway` with weight 1.
    pub fn via(gateway: IpAddr, link: u32) -> Self {
        Self { gateway: Some(gateway), link, weight: 1, onlink: false }
    }

    /// A leg straight onto a link.
    pub fn on_link(link: u32) -> Self {
        Self { gateway: None, link, weight: 1, onlink: false }
    }
}

/// The legs of one route: ordered, each (gateway, link) once. Two sets that forward alike are equal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct NextHops(Vec<NextHop>);

impl NextHops {
    /// The legs in order.
    pub fn iter(&self) -> std::slice::Iter<'_, NextHop> {
        self.0.iter()
    }

    /// How many legs.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True when there is no leg: the kernel did not say where the route leads.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// True when one of the legs leaves through `link`.
    pub fn uses_link(&self, link: u32) -> bool {
        self.0.iter().any(|leg| leg.link == link)
    }
}

impl FromIterator<NextHop> for NextHops {
    /// Legs that lead the same way are merged and their weights added. Weights are kept between 1 and 256, what
    /// `RTA_MULTIPATH` can say; the weight of a single leg means nothing to the kernel and becomes 1.
    fn from_iter<I: IntoIterator<Item = NextHop>>(legs: I) -> Self {
        let clamp = |leg: NextHop| NextHop { weight: leg.weight.clamp(1, MAX_WEIGHT), ..leg };
        let mut legs: Vec<NextHop> = legs.into_iter().map(clamp).collect();
        legs.sort_unstable();
        legs.dedup_by(|next, kept| {
            let same = next.gateway == kept.gateway && next.link == kept.link;
            if same {
                kept.weight = kept.weight.saturating_add(next.weight).min(MAX_WEIGHT);
                kept.onlink |= next.onlink;
            }
            same
        });
        if let [only] = legs.as_mut_slice() {
            only.weight = 1;
        }
        Self(legs)
    }
}

impl From<NextHop> for NextHops {
    fn from(leg: NextHop) -> Self {
        Self::from_iter([leg])
    }
}

impl<'a> IntoIterator for &'a NextHops {
    type Item = &'a NextHop;
    type IntoIter = std::slice::Iter<'a, NextHop>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// What a route does with a packet (`rtm_type`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Send it to one of these next hops.
    Forward(NextHops),
    /// Send it to what the nexthop object with this id stands for.
    Object(u32),
    /// Drop it and tell the sender that the host is unreachable.
    Unreachable,
    /// Drop it silently.
    Blackhole,
    /// Anything else, by its number (prohibit, throw, local, ...).
    Other(u8),
}

/// One route of table main.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    /// What the kernel knows it by.
    pub key: RouteKey,
    /// Who installed it.
    pub protocol: Protocol,
    /// What it does.
    pub action: Action,
    /// The source address for packets that this host itself sends over the route (`RTA_PREFSRC`).
    pub preferred_source: Option<IpAddr>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_what_the_kernel_makes_of_them() {
        let v6 = RouteKey::new("2001:db8::1/64".parse().unwrap(), 0);
        assert_eq!(v6, RouteKey::new("2001:db8::/64".parse().unwrap(), 1024));
        assert_eq!(RouteKey::new("10.0.0.0/8".parse().unwrap(), 0).metric(), 0);
    }

    #[test]
    fn equal_legs_merge_and_order_does_not_matter() {
        let a = NextHop::via("10.0.0.1".parse().unwrap(), 2);
        let b = NextHop::via("10.0.0.2".parse().unwrap(), 2);
        let merged: NextHops = [b, a, a].into_iter().collect();
        assert_eq!(merged.iter().map(|leg| leg.weight).collect::<Vec<_>>(), [2, 1]);
        assert_eq!(NextHops::from_iter([a, a]), NextHops::from(a));
        assert_eq!(NextHops::from_iter([a, b]), NextHops::from_iter([b, a]));
        let extreme = NextHops::from_iter([NextHop { weight: 0, ..a }, NextHop { weight: 9999, ..b }]);
        assert_eq!(extreme.iter().map(|leg| leg.weight).collect::<Vec<_>>(), [1, 256]);
    }
}
