//! What RFC 7606 and the RFCs of each attribute make of UPDATEs that are wrong, over real sessions: each attribute × each way to be
//! wrong × eBGP and iBGP.
//!
//! A peer that is bytes and nothing else announces a prefix of each family well-formed, then sends the case. What is left in its
//! Adj-RIB-In tells "the old route is kept" apart from "withdrawn" and "replaced"; after a reset the peer comes back and is believed
//! again. A speaker behind the one under test sees everything that is passed on, and must find nothing wrong with it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test fails by panicking"
)]

#[path = "../sim_support/mod.rs"]
mod sim_support;
#[path = "../transport_support/mod.rs"]
mod transport_support;

mod attributes;
mod four_octets;
mod messages;
mod multiprotocol;
mod peer;
mod table;
mod values;

use std::collections::BTreeSet;

use peer::Fabric;
use table::{Kind, Table};

/// The whole table.
fn table() -> Table {
    let mut table = Table::default();
    attributes::add(&mut table);
    values::add(&mut table);
    four_octets::add(&mut table);
    multiprotocol::add(&mut table);
    messages::add(&mut table);
    table
}

/// Proves RFC 7606, RFC 4271 6.3, RFC 4760 7.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_malformed_update_has_the_outcome_of_its_rfc() {
    let cases = table().cases;
    let names: BTreeSet<_> = cases.iter().map(|case| (case.on, &case.name)).collect();
    assert_eq!(names.len(), cases.len(), "a case is told by its session and its name");
    assert!(cases.len() >= 268, "{} cases", cases.len());

    let mut fabric = Fabric::start().await;
    let mut runs = tokio::task::JoinSet::new();
    for kind in Kind::ALL {
        let of_kind: Vec<_> = cases.iter().filter(|case| case.on == kind).cloned().collect();
        runs.spawn(fabric.peer(kind).run(of_kind));
    }
    let failures: Vec<String> = runs.join_all().await.concat();
    eprintln!("{} cases", cases.len());
    assert!(failures.is_empty(), "{} of {} cases:\n{}", failures.len(), cases.len(), failures.join("\n"));
    fabric.assert_nothing_malformed_was_passed_on().await;
}
