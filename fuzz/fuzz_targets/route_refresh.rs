//! See [`weft_fuzz::targets::route_refresh`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weft_fuzz::targets::route_refresh(bytes));
