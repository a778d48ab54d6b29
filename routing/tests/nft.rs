//! The tables in a real kernel, each test in a network namespace of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panic, in its helpers too")]

use std::collections::BTreeSet;
use std::process::Command;
use std::thread;

use nix::sched::{CloneFlags, unshare};
use weft_routing::nft::{self, Nat, Ruleset, ServiceRanges};

/// Runs `body` on a thread in a fresh network namespace.
fn in_fresh_namespace(body: impl FnOnce() + Send + 'static) {
    let inside = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace; tests run as root");
        body();
    });
    inside.join().expect("the test's body");
}

/// Runs `nft` with these words.
fn nft_by_hand(words: &str) {
    let status = Command::new("nft").args(words.split(' ')).status().expect("nft runs");
    assert!(status.success(), "nft {words}");
}

/// Puts everything in place.
fn apply(ruleset: &Ruleset) {
    nft::apply_guard().unwrap();
    ruleset.apply().unwrap();
}

fn with_nat() -> Ruleset {
    let nat_v4 = Nat {
        source: "192.0.2.1".parse().unwrap(),
        pools: ["10.244.0.0/16".parse().unwrap()].into(),
        excluded: ["10.244.0.0/16", "10.244.7.0/24", "224.0.0.0/4"].map(|net| net.parse().unwrap()).into(),
    };
    let nat_v6 = Nat {
        source: "fd00::1".parse().unwrap(),
        pools: ["fd00:10::/48".parse().unwrap()].into(),
        excluded: BTreeSet::new(),
    };
    Ruleset { nat_v4: Some(nat_v4), nat_v6: Some(nat_v6), ..Ruleset::default() }
}

#[test]
fn what_is_applied_twice_is_the_same_and_what_is_changed_by_hand_is_seen() {
    in_fresh_namespace(|| {
        apply(&with_nat());
        let first = nft::list().unwrap();
        assert!(first.guard.is_some() && first.nat.is_some(), "{first:?}");
        apply(&with_nat());
        assert!(nft::list().unwrap().same_rules(&first));
        nft_by_hand("flush chain inet weft prerouting");
        assert!(!nft::list().unwrap().same_rules(&first));
        apply(&with_nat());
        assert!(nft::list().unwrap().same_rules(&first));
    });
}

#[test]
fn the_translation_goes_when_no_pool_wants_it() {
    in_fresh_namespace(|| {
        apply(&with_nat());
        apply(&Ruleset::default());
        let installed = nft::list().unwrap();
        assert!(installed.guard.is_some() && installed.nat.is_none(), "{installed:?}");
    });
}

fn with_services() -> Ruleset {
    let v4 = ["10.96.0.0/12", "10.96.8.0/24", "203.0.113.9/32"].map(|net| net.parse().unwrap()).into();
    let services = ServiceRanges { v4, v6: ["fd00:96::/112".parse().unwrap()].into() };
    Ruleset { services, ..Ruleset::default() }
}

#[test]
fn the_rejection_is_changed_in_place_and_goes_with_the_last_range() {
    in_fresh_namespace(|| {
        apply(&with_services());
        let first = nft::list().unwrap();
        assert!(first.services.is_some() && first.nat.is_none(), "{first:?}");
        let mut fewer = with_services();
        fewer.services.v6.clear();
        apply(&fewer);
        let second = nft::list().unwrap();
        assert!(second.services.is_some() && !second.same_rules(&first), "{second:?}");
        apply(&with_services());
        assert!(nft::list().unwrap().same_rules(&first));
        // Of our name, and of another's making.
        nft_by_hand("delete table inet weft-services");
        nft_by_hand("add table inet weft-services");
        nft_by_hand("add chain inet weft-services forward { type filter hook input priority 5 ; }");
        apply(&with_services());
        assert!(nft::list().unwrap().same_rules(&first));
        apply(&Ruleset::default());
        assert_eq!(nft::list().unwrap().services, None);
    });
}

#[test]
fn a_table_of_our_name_with_other_hooks_is_replaced() {
    in_fresh_namespace(|| {
        apply(&Ruleset::default());
        let wanted = nft::list().unwrap();
        nft_by_hand("delete table inet weft");
        nft_by_hand("add table inet weft");
        nft_by_hand("add chain inet weft prerouting { type filter hook input priority 5 ; }");
        apply(&Ruleset::default());
        assert!(nft::list().unwrap().same_rules(&wanted));
    });
}

#[test]
fn what_is_deleted_is_named_once() {
    in_fresh_namespace(|| {
        apply(&Ruleset { services: with_services().services, ..with_nat() });
        assert_eq!(nft::delete().unwrap(), ["weft", "weft-nat", "weft-services"]);
        assert!(nft::delete().unwrap().is_empty());
        assert_eq!(nft::list().unwrap(), nft::Installed::default());
    });
}

#[test]
fn a_change_of_our_tables_is_heard_and_of_others_not() {
    in_fresh_namespace(|| {
        apply(&Ruleset { services: with_services().services, ..with_nat() });
        let mut watch = nft::Watch::open().unwrap();
        assert!(!watch.changed());
        nft_by_hand("add table inet weft-like");
        nft_by_hand("add chain inet weft-like forward");
        assert!(!watch.changed());
        for ours in [
            "flush chain inet weft prerouting",
            "delete table inet weft-nat",
            "flush chain inet weft-services forward",
            "delete table inet weft",
        ] {
            nft_by_hand(ours);
            assert!(watch.changed(), "{ours}");
            assert!(!watch.changed(), "{ours}, again");
        }
    });
}

#[test]
fn the_guard_is_asked_for_without_nft() {
    in_fresh_namespace(|| {
        assert!(!nft::is_guarded().unwrap());
        nft_by_hand("add table inet weft-nat");
        assert!(!nft::is_guarded().unwrap());
        nft::apply_guard().unwrap();
        assert!(nft::is_guarded().unwrap());
        nft_by_hand("flush chain inet weft prerouting");
        assert!(!nft::is_guarded().unwrap(), "a table without its rules guards nothing");
        nft::apply_guard().unwrap();
        assert!(nft::is_guarded().unwrap());
        nft_by_hand("delete table inet weft");
        assert!(!nft::is_guarded().unwrap());
    });
}
