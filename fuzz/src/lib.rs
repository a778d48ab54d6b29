//! What the fuzzer runs, as plain functions: `bgp/tests/fuzz_corpus.rs` and `routing/tests/fuzz_corpus.rs` replay the corpora through the same.

pub mod neighbours;
pub mod targets;
