//! weftd.
fn main() {}
