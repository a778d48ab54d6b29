//! Capabilities as people read them.

use super::{
    AddPathFamily, AfiSafi, Capability, GracefulRestartCapability, LongLivedFamily, NextHopEncoding, code,
};
use crate::role::Role;
use crate::wire::text::{hexadecimal, printable};

impl Capability {
    /// Its code (IANA "Capability Codes").
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::Multiprotocol(_) => code::MULTIPROTOCOL,
            Self::RouteRefresh => code::ROUTE_REFRESH,
            Self::ExtendedNextHop(_) => code::EXTENDED_NEXT_HOP,
            Self::ExtendedMessage => code::EXTENDED_MESSAGE,
            Self::Role(_) => code::ROLE,
            Self::GracefulRestart(_) => code::GRACEFUL_RESTART,
            Self::LongLivedGracefulRestart(_) => code::LONG_LIVED_GRACEFUL_RESTART,
            Self::FourOctetAs(_) => code::FOUR_OCTET_AS,
            Self::AddPath(_) => code::ADD_PATH,
            Self::EnhancedRouteRefresh => code::ENHANCED_ROUTE_REFRESH,
            Self::Fqdn { .. } => code::FQDN,
            Self::Unknown { code, .. } => *code,
        }
    }

    /// The name that the registry gives its code, in short; none: it has none.
    #[must_use]
    pub fn name(&self) -> Option<&'static str> {
        Some(match self.code() {
            code::MULTIPROTOCOL => "multiprotocol",
            code::ROUTE_REFRESH => "route-refresh",
            3 => "outbound-route-filtering",
            code::EXTENDED_NEXT_HOP => "extended-next-hop",
            code::EXTENDED_MESSAGE => "extended-message",
            7 => "bgpsec",
            8 => "multiple-labels",
            code::ROLE => "role",
            code::GRACEFUL_RESTART => "graceful-restart",
            code::FOUR_OCTET_AS => "four-octet-as",
            67 => "dynamic-capability",
            68 => "multisession",
            code::ADD_PATH => "add-path",
            code::ENHANCED_ROUTE_REFRESH => "enhanced-route-refresh",
            code::LONG_LIVED_GRACEFUL_RESTART => "long-lived-graceful-restart",
            code::FQDN => "fqdn",
            75 => "software-version",
            76 => "paths-limit",
            128 => "route-refresh-cisco",
            _ => return None,
        })
    }

    /// What it says beyond that it is there; empty: nothing.
    #[must_use]
    pub fn value(&self) -> String {
        match self {
            Self::RouteRefresh | Self::ExtendedMessage | Self::EnhancedRouteRefresh => String::new(),
            Self::Multiprotocol(family) => family.in_words(),
            Self::ExtendedNextHop(encodings) => join(encodings, next_hop_encoding),
            Self::Role(number) => {
                Role::from_code(*number).map_or(number.to_string(), |role| role.to_string())
            }
            Self::GracefulRestart(restart) => graceful_restart(restart),
            Self::LongLivedGracefulRestart(families) => join(families, long_lived),
            Self::FourOctetAs(asn) => asn.to_string(),
            Self::AddPath(families) => join(families, add_path),
            Self::Fqdn { host, domain } if domain.is_empty() => printable(host),
            Self::Fqdn { host, domain } => printable(&format!("{host}.{domain}")),
            Self::Unknown { value, .. } => hexadecimal(value),
        }
    }
}

impl AfiSafi {
    /// `ipv4-unicast`, or the numbers of a family that is none of ours.
    #[must_use]
    pub fn in_words(self) -> String {
        self.family().map_or_else(|| format!("AFI {} SAFI {}", self.afi, self.safi), |f| f.to_string())
    }
}

fn join<T>(items: &[T], word: impl Fn(&T) -> String) -> String {
    items.iter().map(word).collect::<Vec<_>>().join(", ")
}

fn next_hop_encoding(encoding: &NextHopEncoding) -> String {
    let NextHopEncoding { afi, safi, next_hop_afi } = *encoding;
    let prefixes = match u8::try_from(safi) {
        Ok(safi) => AfiSafi { afi, safi }.in_words(),
        Err(_) => format!("AFI {afi} SAFI {safi}"),
    };
    let next_hop = match next_hop_afi {
        1 => "IPv4".to_owned(),
        2 => "IPv6".to_owned(),
        afi => format!("AFI {afi}"),
    };
    format!("{prefixes} over {next_hop}")
}

fn graceful_restart(restart: &GracefulRestartCapability) -> String {
    let flags = [(restart.restarting, "restarting"), (restart.notification, "notification")];
    let flags = flags.into_iter().filter(|(set, _)| *set).map(|(_, name)| name.to_owned());
    let families = restart.families.iter().map(|(family, kept)| forwarded(*family, *kept));
    let time = format!("{}s", restart.restart_time);
    [time].into_iter().chain(flags).chain(families).collect::<Vec<_>>().join(", ")
}

fn long_lived(family: &LongLivedFamily) -> String {
    format!("{} {}s", forwarded(family.family, family.forwarding), family.stale_time)
}

fn add_path(family: &AddPathFamily) -> String {
    let what = match (family.receives(), family.sends()) {
        (true, true) => "send and receive".to_owned(),
        (true, false) => "receive".to_owned(),
        (false, true) => "send".to_owned(),
        (false, false) => family.send_receive.to_string(),
    };
    format!("{} {what}", family.family.in_words())
}

fn forwarded(family: AfiSafi, kept: bool) -> String {
    let kept = if kept { " (forwarding kept)" } else { "" };
    format!("{}{kept}", family.in_words())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::types::{Asn, Family};

    #[test]
    fn capabilities_are_told_by_name_with_their_values() {
        let v4 = AfiSafi::from(Family::Ipv4Unicast);
        let restart = GracefulRestartCapability {
            restarting: true,
            notification: true,
            restart_time: 120,
            families: vec![(v4, true), (AfiSafi { afi: 2, safi: 128 }, false)],
        };
        let stale = LongLivedFamily { family: v4, forwarding: false, stale_time: 3600 };
        let fqdn = Capability::Fqdn { host: "tor\x1b[2J".into(), domain: "rack".into() };
        for (capability, code, name, value) in [
            (Capability::Multiprotocol(v4), 1, "multiprotocol", "ipv4-unicast"),
            (Capability::Multiprotocol(AfiSafi { afi: 25, safi: 70 }), 1, "multiprotocol", "AFI 25 SAFI 70"),
            (Capability::RouteRefresh, 2, "route-refresh", ""),
            (
                Capability::ExtendedNextHop(vec![NextHopEncoding::IPV4_OVER_IPV6]),
                5,
                "extended-next-hop",
                "ipv4-unicast over IPv6",
            ),
            (Capability::Role(3), 9, "role", "customer"),
            (Capability::Role(200), 9, "role", "200"),
            (
                Capability::GracefulRestart(restart),
                64,
                "graceful-restart",
                "120s, restarting, notification, ipv4-unicast (forwarding kept), AFI 2 SAFI 128",
            ),
            (
                Capability::LongLivedGracefulRestart(vec![stale]),
                71,
                "long-lived-graceful-restart",
                "ipv4-unicast 3600s",
            ),
            (Capability::FourOctetAs(Asn(4_200_000_001)), 65, "four-octet-as", "4200000001"),
            (fqdn, 73, "fqdn", "tor [2J.rack"),
            (
                Capability::AddPath(
                    [3, 1, 2, 9].map(|send_receive| AddPathFamily { family: v4, send_receive }).into(),
                ),
                69,
                "add-path",
                "ipv4-unicast send and receive, ipv4-unicast receive, ipv4-unicast send, ipv4-unicast 9",
            ),
            (
                Capability::Unknown { code: 76, value: Bytes::from_static(&[0, 1, 1, 3]) },
                76,
                "paths-limit",
                "00010103",
            ),
        ] {
            let told = (capability.code(), capability.name(), capability.value());
            assert_eq!(told, (code, Some(name), value.to_owned()), "{capability:?}");
        }
        assert_eq!(Capability::Unknown { code: 200, value: Bytes::new() }.name(), None);
    }
}
