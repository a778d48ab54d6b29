//! What comes from a link before anybody is known on it.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a target fails by panicking, and needs some instant"
)]

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use weft_routing::ndisc::{Counters, Link, Routers, message};

/// Where the options begin (RFC 4861 section 4.2).
const OPTIONS: usize = 16;

/// A router advertisement, from its ICMPv6 type on: who sends a good one is the link's router for two minutes at most, who sends another is
/// nobody.
pub fn router_advertisement(bytes: &[u8]) {
    let lifetime = message::lifetime(bytes);
    let good = bytes.starts_with(&[message::ROUTER_ADVERTISEMENT, 0])
        && bytes.get(OPTIONS..).is_some_and(are_options);
    let said = bytes.get(6..8).map(|said| Duration::from_secs(u64::from(said[0]) << 8 | u64::from(said[1])));
    assert_eq!(lifetime, said.filter(|_| good));

    let (link, now) = (7, Instant::now());
    let source = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    let mut routers = Routers::default();
    routers.follow(now, &BTreeMap::from([(link, Link { ready: true, session: None })]));
    routers.heard(now, link, source, bytes);
    assert_eq!(routers.found(), good.then_some((link, source)).into_iter().collect());
    assert_eq!(routers.counters(), Counters { sent: 0, received: 1, ignored: u64::from(!good) });
    routers.tick(now + Duration::from_secs(121));
    assert_eq!(routers.found(), BTreeMap::new());

    let written = message::advertisement(bytes.first_chunk().copied());
    assert_eq!(message::lifetime(&written), Some(Duration::ZERO));
}

/// Whether these octets are options without rest, each of which has a length.
fn are_options(octets: &[u8]) -> bool {
    match octets {
        [] => true,
        [_, 0, ..] | [_] => false,
        [_, length, ..] => octets.get(8 * usize::from(*length)..).is_some_and(are_options),
    }
}
