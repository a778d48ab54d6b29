//! See [`weft_fuzz::neighbours::router_advertisement`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weft_fuzz::neighbours::router_advertisement(bytes));
