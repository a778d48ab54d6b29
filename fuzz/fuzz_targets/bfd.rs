//! See [`weft_fuzz::targets::bfd`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weft_fuzz::targets::bfd(bytes));
