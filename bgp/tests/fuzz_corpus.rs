//! The fuzzer's targets on stable Rust: the committed corpora, and each input of a corpus with some octets changed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test"
)]

#[path = "../../fuzz/src/targets/mod.rs"]
#[allow(unreachable_pub, reason = "another crate's, in which it is")]
mod targets;

#[path = "../../fuzz/src/replay.rs"]
mod replay;

fn replay(name: &str) {
    let (_, target) = targets::ALL.into_iter().find(|(target, _)| *target == name).expect("a target");
    replay::replay(name, target, if name == "scenario" { 1 } else { 8 });
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            replay(stringify!($name));
        })*

        #[test]
        fn every_target_is_replayed() {
            let replayed = [$(stringify!($name)),*];
            assert_eq!(targets::ALL.map(|(name, _)| name), replayed);
        }
    };
}

targets! { attributes bfd capabilities header notification open route_refresh scenario session update }
