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

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};

/// The inputs of a target, in the order of their names.
fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let files = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "no inputs in {}", folder.display());
    files.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

fn run(target: &str, run: targets::Target, input: &[u8], from: &Path) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(input))) {
        let octets: String = input.iter().map(|octet| format!("{octet:02x}")).collect();
        eprintln!(
            "to run it again: xxd -r -p <<<{octets} >input; fuzz/run {target} input (from {})",
            from.display()
        );
        resume_unwind(panic);
    }
}

fn replay(name: &str) {
    let (_, target) = targets::ALL.into_iter().find(|(target, _)| *target == name).expect("a target");
    for (path, input) in corpus(name) {
        run(name, target, &input, &path);
        // Every input once more with each of these changes, at places that depend on it alone.
        for change in 1..=if name == "scenario" { 1 } else { 8_usize } {
            let mut changed = input.clone();
            let place = input.len() * change / 9;
            match change % 3 {
                0 => changed.truncate(place),
                1 => changed.insert(place, 0xff),
                _ => changed.iter_mut().skip(place).take(1).for_each(|octet| *octet ^= 1 << (change % 8)),
            }
            run(name, target, &changed, &path);
        }
    }
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
