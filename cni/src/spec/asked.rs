//! What may be asked for by several ways at once: addresses and a MAC address.

use std::net::IpAddr;

use ipnet::IpNet;
use weft_routing::netlink::Mac;

use super::{Code, Error};
use crate::datapath::HOST_MAC;
use crate::mac;

/// A value and where it was asked for, in words for an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked<T> {
    /// The key, variable or annotation.
    pub by: &'static str,
    /// What was asked for.
    pub value: T,
}

impl<T> Asked<T> {
    /// An error about the value.
    pub fn invalid(&self, reason: impl std::fmt::Display) -> Error {
        Error::new(Code::InvalidConfig, format!("{}: {reason}", self.by))
    }
}

/// The one thing that all ways ask for. Two that ask for different things are an error: the pod would run with another
/// address than one of them counts on.
pub(super) fn agree<T: PartialEq>(
    ways: impl IntoIterator<Item = Option<Asked<T>>>,
    text: impl Fn(&T) -> String,
) -> Result<Option<Asked<T>>, Error> {
    let mut ways = ways.into_iter().flatten();
    let Some(first) = ways.next() else { return Ok(None) };
    match ways.find(|other| other.value != first.value) {
        None => Ok(Some(first)),
        Some(other) => Err(first.invalid(format_args!(
            "{} contradicts {}: {}; only one of them may be given",
            text(&first.value),
            other.by,
            text(&other.value)
        ))),
    }
}

/// The addresses that `texts` name, IPv4 first: one of each family at most. A prefix length is passed over, since a pod
/// has a /32 or /128.
pub(super) fn addresses<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Vec<IpAddr>, String> {
    let mut addresses: Vec<IpAddr> = Vec::new();
    for text in texts {
        let text = text.trim();
        let address = match text.parse::<IpNet>() {
            Ok(net) => net.addr(),
            Err(_) => text.parse().map_err(|_| format!("{text:?} is no IP address"))?,
        };
        if addresses.contains(&address) {
            return Err(format!("{address} is named twice"));
        }
        if let Some(other) = addresses.iter().find(|other| other.is_ipv4() == address.is_ipv4()) {
            return Err(format!("{other} and {address}: a pod has one address of each family"));
        }
        addresses.push(address);
    }
    addresses.sort_unstable();
    Ok(addresses)
}

/// Addresses as an error shows them.
pub(super) fn list(addresses: &[IpAddr]) -> String {
    addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ")
}

/// A MAC address that a pod can have.
pub(super) fn mac(text: &str) -> Result<Mac, String> {
    let mac = mac::from_text(text)
        .ok_or_else(|| format!("{text:?} is no MAC address such as \"0a:58:0a:00:00:05\""))?;
    // IEEE 802: the lowest bit of the first octet says "group".
    let reason = match mac {
        [0, 0, 0, 0, 0, 0] => "stands for no address",
        [first, ..] if first & 1 != 0 => "is a multicast address",
        HOST_MAC => "is the address of the host's ends of all pods' links",
        _ => return Ok(mac),
    };
    Err(format!("{text:?} {reason}; a pod needs a unicast address of its own"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_one_of_each_family() {
        let expected: [IpAddr; 2] = ["10.0.0.5".parse().unwrap(), "fd00::5".parse().unwrap()];
        assert_eq!(addresses(["fd00::5", "10.0.0.5"]).unwrap(), expected);
        assert_eq!(addresses(["10.0.0.5/24", " fd00::5/64"]).unwrap(), expected);
        assert_eq!(addresses([]).unwrap(), [] as [IpAddr; 0]);
        for (texts, expected) in [
            (vec!["10.0.0"], "\"10.0.0\" is no IP address"),
            (vec!["10.0.0.5/33"], "is no IP address"),
            (vec![""], "\"\" is no IP address"),
            (vec!["fd00::5", "fd00:0::5"], "fd00::5 is named twice"),
            (vec!["10.0.0.5", "10.0.0.6"], "10.0.0.5 and 10.0.0.6: a pod has one address of each family"),
        ] {
            let error = addresses(texts).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_mac_address_is_unicast_and_not_the_hosts() {
        assert_eq!(mac("0A:58:0a:00:00:05").unwrap(), [0x0a, 0x58, 0x0a, 0, 0, 5]);
        for (text, expected) in [
            ("", "is no MAC address"),
            ("0a:58:0a:00:00", "is no MAC address"),
            ("00:00:00:00:00:00", "stands for no address"),
            ("01:00:5e:00:00:01", "is a multicast address"),
            ("ff:ff:ff:ff:ff:ff", "is a multicast address"),
            ("ee:ee:ee:ee:ee:ee", "of the host's ends"),
        ] {
            let error = mac(text).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn all_ways_must_agree() {
        let asked = |by, value: u8| Some(Asked { by, value });
        let text = |value: &u8| value.to_string();
        assert_eq!(agree([None, None], text).unwrap(), None);
        assert_eq!(agree([None, asked("a", 1), asked("b", 1)], text).unwrap(), asked("a", 1));
        let error = agree([asked("a", 1), None, asked("b", 2)], text).unwrap_err();
        assert_eq!(
            (error.code, error.msg.as_str()),
            (Code::InvalidConfig, "a: 1 contradicts b: 2; only one of them may be given")
        );
    }
}
