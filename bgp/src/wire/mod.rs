//! Bytes ↔ messages.

pub mod attributes;
