//! The typed values of the fields: each parses its text once, at the edge, and can hold nothing wrong afterwards.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU16;
use std::str::FromStr;
use std::time::Duration as StdDuration;

use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use weft_bgp::types::Asn;

use super::{ByteSize, Invalid, StationAddress};

/// No value is written longer. The API server wants a bound for the rules that look at text.
const TEXT_MAX: usize = 128;

/// A prefix without host bits: `10.0.0.0/8`, `2001:db8::/32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr(IpNet);

impl Cidr {
    /// The prefix.
    #[must_use]
    pub fn net(self) -> IpNet {
        self.0
    }
}

impl From<IpNet> for Cidr {
    /// Host bits are cleared.
    fn from(net: IpNet) -> Self {
        Self(net.trunc())
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Cidr {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let Ok(net) = text.parse::<IpNet>() else {
            return Err(match text.parse::<IpAddr>() {
                Ok(address) => Invalid::new(
                    format!("\"{text}\" has no prefix length"),
                    format!("write {} for this one address", IpNet::from(address)),
                ),
                Err(_) => Invalid::new(
                    format!("\"{text}\" is not a CIDR"),
                    "write an address, a slash and a prefix length, as in 10.0.0.0/8 or 2001:db8::/32",
                ),
            });
        };
        if net != net.trunc() {
            return Err(Invalid::new(
                format!("{text} has host bits set"),
                format!("write {}, or {} for this one address", net.trunc(), IpNet::from(net.addr())),
            ));
        }
        Ok(Self(net))
    }
}

/// A length of time: `90s`, `1m30s`, `500ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration(pub StdDuration);

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, millis) = (self.0.as_secs(), self.0.subsec_millis());
        let parts =
            [(seconds / 3600, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s"), (millis.into(), "ms")];
        if self.0.as_millis() == 0 {
            return f.write_str("0s");
        }
        parts.into_iter().filter(|(n, _)| *n > 0).try_for_each(|(n, unit)| write!(f, "{n}{unit}"))
    }
}

impl FromStr for Duration {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        const REMEDY: &str =
            "write whole numbers with the units h, m, s or ms, as in \"90s\", \"1m30s\" or \"500ms\"";
        let invalid = |what: &str| Invalid::new(format!("\"{text}\" {what}"), REMEDY);
        let (mut rest, mut total) = (text, StdDuration::ZERO);
        if text.is_empty() {
            return Err(invalid("is not a duration"));
        }
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            let (number, tail) = rest.split_at(digits);
            let letters = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(letters);
            let milliseconds: u64 = match unit {
                "h" => 3_600_000,
                "m" => 60_000,
                "s" => 1_000,
                "ms" => 1,
                "" if number.is_empty() => return Err(invalid("is not a duration")),
                "" if tail.is_empty() => return Err(invalid("has no unit")),
                "" => return Err(invalid("is not a duration")),
                unit => return Err(invalid(&format!("has the unknown unit \"{unit}\""))),
            };
            let part = number.parse::<u64>().ok().and_then(|n| n.checked_mul(milliseconds));
            total = part.and_then(|ms| total.checked_add(StdDuration::from_millis(ms))).ok_or_else(|| {
                invalid(if number.is_empty() { "is not a duration" } else { "is too long" })
            })?;
            rest = tail;
        }
        Ok(Self(total))
    }
}

/// The address of a peer, and its port where that is not the usual one: `192.0.2.1`, `192.0.2.1:1179`, `2001:db8::1`,
/// `[2001:db8::1]:1179`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerAddress {
    /// The address: one that a session can have.
    pub ip: IpAddr,
    /// The port to dial.
    pub port: Option<NonZeroU16>,
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.ip, self.port) {
            (ip, None) => ip.fmt(f),
            (IpAddr::V4(ip), Some(port)) => write!(f, "{ip}:{port}"),
            (IpAddr::V6(ip), Some(port)) => write!(f, "[{ip}]:{port}"),
        }
    }
}

impl FromStr for PeerAddress {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        const REMEDY: &str =
            "write IP, IP:PORT or [IPV6]:PORT, as in 192.0.2.1, 192.0.2.1:1179 or [2001:db8::1]:1179";
        let invalid = |what: &str| Invalid::new(format!("\"{text}\" {what}"), REMEDY);
        let (ip, port) = match text.parse::<IpAddr>() {
            Ok(ip) => (ip, None),
            Err(_) => {
                let (host, port) = text.rsplit_once(':').ok_or_else(|| invalid("is not an address"))?;
                let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
                let ip = host.parse().map_err(|_| invalid("is not an address"))?;
                (ip, Some(port.parse().map_err(|_| invalid("has no valid port (1 to 65535)"))?))
            }
        };
        let unfit = match ip {
            _ if ip.is_unspecified() => Some("means any address, and a peer has one"),
            _ if ip.is_multicast() => Some("is a multicast address"),
            IpAddr::V4(v4) if v4.is_broadcast() => Some("is the broadcast address"),
            IpAddr::V6(v6) if v6.is_unicast_link_local() => {
                Some("is link-local and says nothing without its link")
            }
            IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => Some("is an IPv4 address in IPv6 form"),
            _ => None,
        };
        match unfit {
            None => Ok(Self { ip, port }),
            Some(why) => Err(Invalid::new(
                format!("\"{text}\" {why}"),
                "write the peer's own IPv4 or global IPv6 address",
            )),
        }
    }
}

/// A BGP identifier: any four octets but `0.0.0.0` (RFC 6286).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouterId(Ipv4Addr);

impl RouterId {
    /// The identifier.
    #[must_use]
    pub fn get(self) -> Ipv4Addr {
        self.0
    }
}

impl fmt::Display for RouterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for RouterId {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text.parse::<Ipv4Addr>() {
            Ok(id) if !id.is_unspecified() => Ok(Self(id)),
            _ => Err(Invalid::new(
                format!("\"{text}\" is not a BGP identifier"),
                "write four octets other than 0.0.0.0, as in 192.0.2.1",
            )),
        }
    }
}

/// The name of a cluster of route reflectors: any four octets but `0.0.0.0` (RFC 4456 section 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(Ipv4Addr);

impl ClusterId {
    /// The identifier.
    #[must_use]
    pub fn get(self) -> Ipv4Addr {
        self.0
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for ClusterId {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let number = || text.parse::<u32>().ok().map(Ipv4Addr::from);
        match text.parse().ok().or_else(number).filter(|id| !id.is_unspecified()) {
            Some(id) => Ok(Self(id)),
            None => Err(Invalid::new(
                format!("\"{text}\" is not a cluster id"),
                "write four octets as in 192.0.2.1, or a number from 1 to 4294967295: 0 names no cluster",
            )),
        }
    }
}

/// The name of a network interface, as the kernel allows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceName(String);

impl InterfaceName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for InterfaceName {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let fit = (1..=15).contains(&text.len())
            && text != "."
            && text != ".."
            && text.bytes().all(|b| b.is_ascii_graphic() && b != b'/' && b != b':');
        if fit {
            return Ok(Self(text.into()));
        }
        Err(Invalid::new(
            format!("\"{text}\" is not the name of an interface"),
            "write 1 to 15 characters without space, slash or colon, as `ip link` shows them",
        ))
    }
}

/// An AS number that a speaker may have: a number, or a quoted `"X.Y"` (RFC 5396).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AsNumber(Asn);

impl AsNumber {
    /// The number.
    #[must_use]
    pub fn get(self) -> Asn {
        self.0
    }
}

impl fmt::Display for AsNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for AsNumber {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let as_invalid = |text: String| match Invalid::parted(&text) {
            Some(invalid) => invalid,
            None => Invalid::new(text, "write a number from 1 to 4294967294"),
        };
        let asn = text.parse::<Asn>().map_err(as_invalid)?;
        Asn::configured(asn.0).map(Self).map_err(as_invalid)
    }
}

/// Which AS a peer is of: a number, `internal` (ours) or `external` (any but ours).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerAs {
    /// Just this one.
    Number(AsNumber),
    /// The same as ours on that session.
    Internal,
    /// Any but ours.
    External,
}

impl fmt::Display for PeerAs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Internal => f.write_str("internal"),
            Self::External => f.write_str("external"),
        }
    }
}

impl FromStr for PeerAs {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "internal" => Ok(Self::Internal),
            "external" => Ok(Self::External),
            _ if text.starts_with(|c: char| c.is_ascii_digit()) => text.parse().map(Self::Number),
            _ => Err(Invalid::new(
                format!("\"{text}\" is not an AS"),
                "write a number from 1 to 4294967294, \"X.Y\", internal or external",
            )),
        }
    }
}

/// Where a session's own end is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SourceAddress {
    /// Where the kernel's route to the peer puts it: written `None`.
    #[default]
    Kernel,
    /// The node address of the peer's family: written `UseNodeIP`.
    NodeAddress,
    /// This address, which the node must have.
    Address(IpAddr),
}

impl fmt::Display for SourceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel => f.write_str("None"),
            Self::NodeAddress => f.write_str("UseNodeIP"),
            Self::Address(address) => address.fmt(f),
        }
    }
}

impl FromStr for SourceAddress {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "None" => Ok(Self::Kernel),
            "UseNodeIP" => Ok(Self::NodeAddress),
            _ => match text.parse::<PeerAddress>() {
                Ok(PeerAddress { ip, port: None }) => Ok(Self::Address(ip)),
                _ => Err(Invalid::new(
                    format!("\"{text}\" is not a source address"),
                    "write UseNodeIP, None or one of the node's addresses",
                )),
            },
        }
    }
}

/// Reads a value from text; a number or a boolean is shown to the parser as text, so that the error is the value's own.
struct TextVisitor<T> {
    expected: &'static str,
    value: PhantomData<T>,
}

impl<T: FromStr<Err = Invalid>> Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<T, E> {
        let message = format!("{number} is read as a number with a fraction");
        Err(E::custom(Invalid::new(message, "put the value in quotes")))
    }
}

/// How a value looks in a schema.
enum Form {
    /// Text, within a pattern if one is given.
    Text(Option<&'static str>),
    /// A number or text.
    NumberOrText,
}

impl Form {
    fn schema(&self, description: &str) -> Schema {
        match self {
            Self::Text(None) => {
                json_schema!({ "type": "string", "maxLength": TEXT_MAX, "description": description })
            }
            Self::Text(Some(pattern)) => {
                json_schema!({ "type": "string", "maxLength": TEXT_MAX, "pattern": pattern, "description": description })
            }
            Self::NumberOrText => {
                json_schema!({ "x-kubernetes-int-or-string": true, "description": description })
            }
        }
    }
}

macro_rules! text_value {
    ($type:ty, $name:literal, $form:expr, $expected:literal) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(TextVisitor { expected: $expected, value: PhantomData })
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                $form.schema(concat!("Written as ", $expected, "."))
            }
        }
    };
}

macro_rules! serialize_as_text {
    ($($type:ty),*) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    )*};
}

text_value!(Cidr, "Cidr", Form::Text(None), "a CIDR such as 10.0.0.0/8 or 2001:db8::/32, without host bits");
text_value!(
    Duration,
    "Duration",
    Form::Text(Some("^([0-9]+(h|m|s|ms))+$")),
    "a duration such as \"90s\", \"1m30s\" or \"500ms\""
);
text_value!(
    ByteSize,
    "ByteSize",
    Form::Text(Some("^[0-9]+(Ki|Mi|Gi|Ti)?$")),
    "a size such as \"512Mi\" or \"1Gi\""
);
text_value!(PeerAddress, "PeerAddress", Form::Text(None), "an address: IP, IP:PORT or [IPV6]:PORT");
text_value!(
    StationAddress,
    "StationAddress",
    Form::Text(None),
    "an address and a port: IP:PORT or [IPV6]:PORT, as in 192.0.2.1:11019"
);
text_value!(RouterId, "RouterId", Form::Text(None), "four octets such as 192.0.2.1, not 0.0.0.0");
text_value!(
    ClusterId,
    "ClusterId",
    Form::NumberOrText,
    "four octets such as 192.0.2.1, or a number from 1 to 4294967295"
);
text_value!(
    InterfaceName,
    "InterfaceName",
    Form::Text(Some("^[!-.0-9;-~]{1,15}$")),
    "the name of an interface such as eth0"
);
text_value!(AsNumber, "AsNumber", Form::NumberOrText, "an AS number: 1 to 4294967294, or \"X.Y\" in quotes");
text_value!(
    PeerAs,
    "PeerAs",
    Form::NumberOrText,
    "an AS: a number from 1 to 4294967294, \"X.Y\" in quotes, internal or external"
);
text_value!(
    SourceAddress,
    "SourceAddress",
    Form::Text(None),
    "UseNodeIP, None or one of the node's addresses"
);
serialize_as_text!(
    ByteSize,
    Cidr,
    Duration,
    PeerAddress,
    StationAddress,
    RouterId,
    ClusterId,
    InterfaceName,
    SourceAddress
);

impl Serialize for AsNumber {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.0.0)
    }
}

impl Serialize for PeerAs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Number(number) => number.serialize(serializer),
            Self::Internal | Self::External => serializer.collect_str(self),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown<T: FromStr<Err = Invalid> + fmt::Display>(text: &str) -> String {
        text.parse::<T>().map_or_else(|error| error.to_string(), |value| value.to_string())
    }

    /// Proves RFC 5396 2, RFC 7607 2.
    #[test]
    fn as_numbers_are_plain_or_dotted_and_never_reserved() {
        for (json, want) in
            [("65001", 65001), ("\"65001\"", 65001), ("\"1.10\"", 65546), ("4294967294", 4_294_967_294)]
        {
            let number: AsNumber = serde_json::from_str(json).expect(json);
            assert_eq!(
                (number.get(), serde_json::to_string(&number).ok()),
                (Asn(want), Some(want.to_string()))
            );
        }
        for json in
            ["0", "65535", "23456", "4294967295", "4294967296", "-1", "\"1.2.3\"", "1.5", "true", "null"]
        {
            assert!(serde_json::from_str::<AsNumber>(json).is_err(), "{json}");
        }
        for (json, want) in
            [("9", "0.0.0.9"), ("\"192.0.2.1\"", "192.0.2.1"), ("4294967295", "255.255.255.255")]
        {
            assert_eq!(serde_json::from_str::<ClusterId>(json).expect(json).to_string(), want);
        }
        for json in ["0", "\"0.0.0.0\"", "4294967296", "-1", "\"a\"", "1.5", "null"] {
            assert!(serde_json::from_str::<ClusterId>(json).is_err(), "{json}");
        }
        for (json, want) in [("\"internal\"", PeerAs::Internal), ("\"external\"", PeerAs::External)] {
            assert_eq!(serde_json::from_str::<PeerAs>(json).ok(), Some(want));
            assert_eq!(serde_json::to_string(&want).ok().as_deref(), Some(json));
        }
    }

    #[test]
    fn addresses_are_shown_as_they_are_read() {
        for text in ["192.0.2.1", "192.0.2.1:1179", "2001:db8::1", "[2001:db8::1]:1179"] {
            assert_eq!(shown::<PeerAddress>(text), text);
        }
        assert_eq!(
            shown::<PeerAddress>("2001:db8::1:1179"),
            "2001:db8::1:1179",
            "without brackets it is all address"
        );
        for text in
            ["", ":", "192.0.2.1:", "192.0.2.1:70000", "[2001:db8::1]", "::ffff:192.0.2.1", "255.255.255.255"]
        {
            assert!(text.parse::<PeerAddress>().is_err(), "{text}");
        }
    }

    #[test]
    fn names_of_interfaces_are_the_kernels() {
        assert!("bond0.100".parse::<InterfaceName>().is_ok());
        for text in ["", ".", "..", "a/b", "a b", "a:0", "sixteen-letters-"] {
            assert!(text.parse::<InterfaceName>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn durations_are_read_as_they_are_shown(ms in 0u64..100_000_000_000) {
            let duration = Duration(StdDuration::from_millis(ms));
            prop_assert_eq!(duration.to_string().parse(), Ok(duration));
        }

        #[test]
        fn no_text_makes_a_value_panic(text in "[0-9a-fhms.:/\\[\\]-]{0,24}") {
            let _ = text.parse::<Duration>();
            let _ = text.parse::<Cidr>();
            let _ = text.parse::<PeerAddress>();
            let _ = text.parse::<PeerAs>();
        }

        #[test]
        fn the_remedy_for_host_bits_is_right(address: u32, length in 0u8..=32) {
            let text = format!("{}/{length}", Ipv4Addr::from(address));
            match text.parse::<Cidr>() {
                Ok(cidr) => prop_assert_eq!(cidr.to_string(), text),
                Err(invalid) => {
                    let proposed = invalid.remedy.strip_prefix("write ").and_then(|r| r.split(',').next()).unwrap_or_default();
                    prop_assert!(proposed.parse::<Cidr>().is_ok_and(|c| c.net().contains(&IpAddr::from(address.to_be_bytes()))));
                }
            }
        }
    }
}
