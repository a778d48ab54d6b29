//! IPv4 prefixes with IPv6 next hops (RFC 8950): who offers that, and when it is agreed on.

use std::net::IpAddr;

use weft_bgp::config::PeerConfig;
use weft_bgp::types::{Family, FamilySet};
use weft_bgp::wire::Message;
use weft_bgp::wire::capability::{Capability, NextHopEncoding};

use crate::pair::{ADDRESS_A, ADDRESS_B, peer_config};
use crate::solo::{Solo, open};

/// The ends of a session over IPv6, ours first.
const ENDS: [IpAddr; 2] = {
    const fn address(last: u16) -> IpAddr {
        IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last))
    }
    [address(1), address(2)]
};

fn offered() -> Capability {
    Capability::ExtendedNextHop(vec![NextHopEncoding::IPV4_OVER_IPV6])
}

/// Proves RFC 8950 4.
#[test]
fn it_is_offered_where_ipv4_goes_over_an_ipv6_session() {
    let both = FamilySet::all();
    let only_v6: FamilySet = [Family::Ipv6Unicast].into_iter().collect();
    for (ends, families, wanted) in
        [(ENDS, both, true), (ENDS, only_v6, false), ([ADDRESS_A, ADDRESS_B], both, false)]
    {
        let mut solo = Solo::between(ends, PeerConfig { families, ..peer_config(65001, 65002) });
        let connection = solo.accept();
        let [Message::Open(sent)] = &solo.written(connection)[..] else { panic!("{:?}", solo.outputs) };
        assert_eq!(sent.capabilities.contains(&offered()), wanted, "{ends:?} {:?}", sent.capabilities);
    }
}

/// Of who does not offer it IPv4 is taken all the same on a link that has numbers.
/// Proves RFC 8950 4.
#[test]
fn it_is_agreed_on_where_both_offer_it() {
    let other_family =
        Capability::ExtendedNextHop(vec![NextHopEncoding { safi: 128, ..NextHopEncoding::IPV4_OVER_IPV6 }]);
    for (ends, theirs, agreed) in [
        (ENDS, vec![offered()], true),
        (ENDS, vec![], false),
        (ENDS, vec![other_family], false),
        ([ADDRESS_A, ADDRESS_B], vec![offered()], false),
    ] {
        let mut solo = Solo::between(ends, peer_config(65001, 65002));
        let connection = solo.accept();
        let mut told = open();
        told.capabilities.extend(theirs.clone());
        solo.send(connection, &Message::Open(told));
        solo.send(connection, &Message::Keepalive);
        let session = solo.ingress.session().expect("it is Established");
        assert_eq!(session.families, FamilySet::all());
        assert_eq!(session.extended_next_hop, agreed, "{ends:?} {theirs:?}");
    }
}
