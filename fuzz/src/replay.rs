//! The fuzzer's targets on stable Rust: a committed corpus, and each of its inputs with some octets changed.

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

fn run(name: &str, target: fn(&[u8]), input: &[u8], from: &Path) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(input))) {
        let octets: String = input.iter().map(|octet| format!("{octet:02x}")).collect();
        eprintln!(
            "to run it again: xxd -r -p <<<{octets} >input; fuzz/run {name} input (from {})",
            from.display()
        );
        resume_unwind(panic);
    }
}

/// Runs every input of a target as it is, and once more with each of so many changes, at places that depend on it alone.
pub(crate) fn replay(name: &str, target: fn(&[u8]), changes: usize) {
    for (path, input) in corpus(name) {
        run(name, target, &input, &path);
        for change in 1..=changes {
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
