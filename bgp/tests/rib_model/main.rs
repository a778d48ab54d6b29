//! The RIB and its egresses against a model that computes everything anew from what was heard, after any sequence of events.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod both;
mod events;
mod model;
#[path = "../rib_support/mod.rs"]
mod rib_support;

use std::sync::Arc;

use proptest::prelude::*;
use weft_bgp::types::PeerId;
use weft_bgp::wire::attributes::Origin;

use crate::both::Both;
use crate::events::*;
use crate::rib_support::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn the_rib_agrees_with_the_model(restarted: bool, roles in prop::array::uniform3(role()), events in prop::collection::vec(event(), 1..120)) {
        let mut both = Both::new(roles);
        if !restarted {
            both.play(&Event::Advertise);
        }
        for (i, event) in events.iter().enumerate() {
            both.play(event);
            if i % 20 == 19 {
                both.compare();
            }
        }
        both.compare();
    }
}

/// Who announces what policy 3 rejects so is alarmed by the first, and again only after all of that was gone.
#[test]
fn a_duplicate_origin_is_alarmed_once() {
    let mut both = Both::new([None; 3]);
    both.configure_peer(0, |config| config.import = Arc::new(policy(3)));
    let announcement = |hops| Announcement {
        hops,
        origin: Origin::Igp,
        med: None,
        local_pref: 100,
        community: None,
        only_to_customer: None,
        own_as: false,
        next_hop: 0,
        reflected: 0,
        path_id: 0,
    };
    both.play(&Event::Announce(0, 0b111, announcement(0)));
    both.play(&Event::Announce(0, 0b111, announcement(1)));
    let duplicate = |text| (PeerId(0), net(text));
    let first = duplicate("10.0.0.0/24");
    assert_eq!(both.lab.rib.rejections(PeerId(0)).duplicate_origin, Some((2, first.1)));
    assert_eq!(both.lab.alarms, [first]);
    both.play(&Event::Withdraw(0, 1, 0));
    both.play(&Event::Announce(0, 1, announcement(0)));
    assert_eq!(both.lab.alarms, [first]);
    both.play(&Event::Withdraw(0, 0b111, 0));
    both.play(&Event::Announce(0, 0b10, announcement(0)));
    assert_eq!(both.lab.alarms, [first, duplicate("10.0.1.0/24")]);
}
