//! Dense tables behind small ids: what keeps a route at a few dozen bytes and its handling free of allocation.

pub(crate) mod bits;
pub(crate) mod intern;
pub(crate) mod prefixes;
