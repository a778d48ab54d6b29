//! MAC addresses as text, and the one a pod gets.

use weft_routing::netlink::Mac;

use crate::hash::fnv1a;

/// A locally administered unicast address that depends on the attachment alone, so that the host's neighbour
/// entries can be written without asking the kernel which address the pod's link got.
pub fn of_attachment(container_id: &str, ifname: &str) -> Mac {
    let [_, _, a, b, c, d, e, f] =
        fnv1a(&[b"mac/", container_id.as_bytes(), b"/", ifname.as_bytes()]).to_be_bytes();
    // IEEE 802: bit 1 of the first octet set is "locally administered", bit 0 clear is "unicast".
    [a & 0xfc | 0x02, b, c, d, e, f]
}

/// The usual text, `0a:58:0a:00:00:05`.
pub fn to_text(mac: Mac) -> String {
    let [a, b, c, d, e, f] = mac;
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}

/// Reads what [`to_text`] writes; `None` for anything else.
pub fn from_text(text: &str) -> Option<Mac> {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for octet in &mut mac {
        let part = parts.next().filter(|part| part.len() == 2 && !part.starts_with('+'))?;
        *octet = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips_and_nothing_else_is_taken() {
        let mac = [0x0a, 0x58, 0, 1, 0xfe, 0xff];
        assert_eq!(to_text(mac), "0a:58:00:01:fe:ff");
        assert_eq!(from_text("0a:58:00:01:fe:ff"), Some(mac));
        for bad in
            ["", "0a:58:00:01:fe", "0a:58:00:01:fe:ff:00", "a:58:00:01:fe:ff", "0a:58:00:01:fe:+f", "x"]
        {
            assert_eq!(from_text(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_pods_address_is_local_and_unicast_and_its_own() {
        let first = of_attachment("a1", "eth0");
        assert_eq!(first[0] & 0x03, 0x02);
        assert_ne!(first, of_attachment("a2", "eth0"));
        assert_ne!(first, of_attachment("a1", "net1"));
    }
}
