//! Roles and ONLY_TO_CUSTOMER (RFC 9234 section 5): no route that was told to customers only goes up or across.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod rib_support;

use rib_support::*;
use weft_bgp::ingress::Session;
use weft_bgp::role::Role;
use weft_bgp::status::{PathStatus, RibView, RouteSelect};
use weft_bgp::types::{Asn, FamilySet, PeerId};
use weft_bgp::wire::attributes::PathAttributes;

const PREFIX: &str = "10.1.0.0/16";
const ROLES: [Role; 5] =
    [Role::Provider, Role::RouteServer, Role::RouteServerClient, Role::Customer, Role::Peer];

/// A speaker between peer 1 (AS 65001), to which our role is `from`, and peer 2 (AS 65002), to which it is `to`.
fn between(from: Option<Role>, to: Option<Role>) -> Lab {
    let mut lab = Lab::advertising();
    for (peer, asn, role) in [(1, 65001, from), (2, 65002, to)] {
        lab.peer(peer, config());
        lab.up(Session { role, ..session(peer, Asn(asn)) });
    }
    lab
}

fn announce(lab: &mut Lab, only_to_customer: Option<u32>) {
    let only_to_customer = only_to_customer.map(Asn);
    let attributes = attributes(&[65001, 65009], "192.0.2.1");
    lab.announce(1, PathAttributes { only_to_customer, ..attributes }, &[net(PREFIX)]);
    lab.read_all();
}

fn path(lab: &Lab, view: RibView) -> PathStatus {
    lab.rib.routes(view, RouteSelect::Exact(net(PREFIX)))[0].paths[0].clone()
}

/// What is taken in, by our role towards the peer and the ONLY_TO_CUSTOMER that it sends: the one it has then; none: it is a leak.
/// Proves RFC 9234.
#[test]
fn rfc9234_import_marks_what_comes_from_above_and_rejects_leaks() {
    use Role::{Customer, Peer, Provider, RouteServer, RouteServerClient};
    for (role, sent, taken) in [
        (Some(Provider), None, Ok(None)),
        (Some(Provider), Some(65001), Err(())),
        (Some(Provider), Some(65009), Err(())),
        (Some(RouteServer), None, Ok(None)),
        (Some(RouteServer), Some(65001), Err(())),
        (Some(Customer), None, Ok(Some(65001))),
        (Some(Customer), Some(65009), Ok(Some(65009))),
        (Some(RouteServerClient), None, Ok(Some(65001))),
        (Some(RouteServerClient), Some(65009), Ok(Some(65009))),
        (Some(Peer), None, Ok(Some(65001))),
        (Some(Peer), Some(65001), Ok(Some(65001))),
        (Some(Peer), Some(65009), Err(())),
        (None, None, Ok(None)),
        (None, Some(65009), Ok(Some(65009))),
    ] {
        let mut lab = between(role, None);
        announce(&mut lab, sent);
        let path = path(&lab, RibView::In(address(1).into()));
        let found = if path.valid { Ok(path.attributes.only_to_customer.map(|asn| asn.0)) } else { Err(()) };
        assert_eq!(found, taken, "{role:?} {sent:?}: {:?}", path.reason);
        assert!(path.valid || path.reason.code == "route-leak", "{:?}", path.reason);
    }
}

/// A leak is counted, told of once a family however many routes it has, and over when they are gone.
/// Proves RFC 9234.
#[test]
fn rfc9234_a_leak_is_told_once_and_counted() {
    let mut lab = between(Some(Role::Provider), None);
    let leaked =
        PathAttributes { only_to_customer: Some(Asn(65009)), ..attributes(&[65001, 65009], "192.0.2.1") };
    let (one, more) = (net(PREFIX), [net("198.51.100.0/24"), net("203.0.113.0/24")]);
    lab.announce(1, leaked.clone(), &[one, more[0], more[1]]);
    lab.announce(1, leaked.clone(), &[one]);
    let family = |lab: &Lab| lab.rib.family_status(PeerId(1), FamilySet::all())[0];
    let rejected =
        |lab: &Lab| family(lab).rejected.into_iter().filter(|(_, count)| *count > 0).collect::<Vec<_>>();
    assert_eq!((family(&lab).received, family(&lab).accepted), (3, 0));
    assert_eq!(rejected(&lab), [("route-leak", 3)]);
    assert_eq!(lab.rib.rejections(PeerId(1)).route_leak.map(|(count, _)| count), Some(3));
    assert_eq!(lab.leaks, [(PeerId(1), one)]);
    lab.announce(1, attributes(&[65001, 65009], "192.0.2.1"), &[one, more[0], more[1]]);
    assert_eq!((family(&lab).accepted, rejected(&lab)), (3, vec![]));
    assert_eq!(lab.rib.rejections(PeerId(1)).route_leak, None);
    lab.announce(1, leaked, &more);
    assert_eq!(lab.leaks, [(PeerId(1), one), (PeerId(1), more[0])], "it begins again");
}

/// What is told on, for a route that has ONLY_TO_CUSTOMER and one that has not: the one it has then; none: it is withheld.
/// Proves RFC 9234.
#[test]
fn rfc9234_export_marks_what_goes_down_and_withholds_what_would_go_up() {
    for role in ROLES {
        for sent in [None, Some(65009)] {
            let mut lab = between(None, Some(role));
            announce(&mut lab, sent);
            let told = lab.sink(2).table.get(&net(PREFIX)).map(|told| told.only_to_customer.map(|asn| asn.0));
            let expected = match (role, sent) {
                (Role::Provider | Role::RouteServer, Some(asn)) => Some(Some(asn)),
                (Role::Provider | Role::RouteServer | Role::Peer, None) => Some(Some(OWN.0)),
                (Role::Customer | Role::RouteServerClient, None) => Some(None),
                (Role::Customer | Role::RouteServerClient | Role::Peer, Some(_)) => None,
            };
            assert_eq!(told, expected, "{role:?} {sent:?}");
            let why = path(&lab, RibView::Out(address(2).into())).reason;
            assert_eq!(why.code, if expected.is_some() { "advertised" } else { "only-to-customer" });
        }
    }
}

/// The leak that RFC 9234 is for: a customer of two providers tells neither what it has from the other, even without filters.
/// Proves RFC 9234.
#[test]
fn rfc9234_a_customer_of_two_providers_is_no_way_between_them() {
    let mut lab = between(Some(Role::Customer), Some(Role::Customer));
    announce(&mut lab, None);
    assert!(lab.sink(2).table.is_empty());
    let mut lab = between(Some(Role::Provider), Some(Role::Customer));
    announce(&mut lab, None);
    assert_eq!(lab.sink(2).table[&net(PREFIX)].only_to_customer, None, "a customer's goes up as it is");
}

/// A route server does not put its AS in front of the path (RFC 7947 section 2.2.2.1): of it alone such a path is believed.
#[test]
fn a_route_server_hides_its_as() {
    for (role, code) in [
        (Some(Role::RouteServerClient), None),
        (Some(Role::Customer), Some("first-as")),
        (None, Some("first-as")),
    ] {
        let mut lab = between(role, None);
        lab.announce(1, attributes(&[65099], "192.0.2.1"), &[net(PREFIX)]);
        let path = path(&lab, RibView::In(address(1).into()));
        assert_eq!(
            (path.valid, code.is_none_or(|code| path.reason.code == code)),
            (code.is_none(), true),
            "{role:?}: {:?}",
            path.reason
        );
    }
}
