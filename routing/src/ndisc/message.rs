//! Router advertisements on the wire (RFC 4861 section 4.2).

use std::time::Duration;

use crate::netlink::Mac;

/// The ICMPv6 type of a router advertisement.
pub const ROUTER_ADVERTISEMENT: u8 = 134;

/// Octets before the options.
const FIXED: usize = 16;
/// Where the router lifetime is.
const LIFETIME: usize = 6;
/// The option that tells the sender's MAC address, and its length in units of eight octets.
const SOURCE_LINK_LAYER_ADDRESS: [u8; 2] = [1, 1];

/// What we send. The router lifetime is 0: no host is to take us for its way out. The kernel fills in the checksum.
pub fn advertisement(mac: Option<Mac>) -> Vec<u8> {
    let mut message = vec![0; FIXED];
    if let Some(kind) = message.first_mut() {
        *kind = ROUTER_ADVERTISEMENT;
    }
    if let Some(mac) = mac {
        message.extend(SOURCE_LINK_LAYER_ADDRESS);
        message.extend(mac);
    }
    message
}

/// The router lifetime of an advertisement; `None` for one that RFC 4861 section 6.1.2 has no use for.
pub fn lifetime(message: &[u8]) -> Option<Duration> {
    let (fixed, mut options) = message.split_at_checked(FIXED)?;
    let [ROUTER_ADVERTISEMENT, 0, ..] = fixed else { return None };
    while !options.is_empty() {
        let length = usize::from(*options.get(1)?).checked_mul(8).filter(|length| *length > 0)?;
        options = options.get(length..)?;
    }
    let seconds: [u8; 2] = fixed.get(LIFETIME..)?.first_chunk().copied()?;
    Some(Duration::from_secs(u16::from_be_bytes(seconds).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves RFC 4861 4.2.
    #[test]
    fn what_is_sent_is_understood() {
        for mac in [None, Some([2, 0, 0, 0, 0, 1])] {
            let message = advertisement(mac);
            assert_eq!((message.len() % 8, lifetime(&message)), (0, Some(Duration::ZERO)));
        }
        let mut message = advertisement(Some([2; 6]));
        message[6..8].copy_from_slice(&1800u16.to_be_bytes());
        assert_eq!(lifetime(&message), Some(Duration::from_secs(1800)));
    }

    /// Proves RFC 4861 6.1.2.
    #[test]
    fn what_is_malformed_is_not() {
        let good = advertisement(Some([2; 6]));
        for length in (0..good.len()).filter(|length| *length != FIXED) {
            assert_eq!(lifetime(&good[..length]), None, "{length} octets");
        }
        for (index, octet) in [(0, 133), (1, 1), (FIXED + 1, 0), (FIXED + 1, 2)] {
            let mut bad = good.clone();
            bad[index] = octet;
            assert_eq!(lifetime(&bad), None, "octet {index} is {octet}");
        }
    }
}
