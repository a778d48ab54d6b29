//! What the fuzzer runs, as plain functions: `bgp/tests/fuzz_corpus.rs` replays the corpora through the same.

pub mod targets;
