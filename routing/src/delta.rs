//! The one place that decides what to write: a pure comparison of what is wanted and what is there.

use crate::fib::Write;
use crate::route::{Protocol, Route, RouteKey};

/// What is known about one key.
#[derive(Debug, Clone, Copy)]
pub struct Compared<'a> {
    /// The key compared.
    pub key: RouteKey,
    /// The route that should hold the key.
    pub desired: Option<&'a Route>,
    /// The route with one of Weft's protocols that holds the key in the kernel.
    pub actual: Option<&'a Route>,
    /// A route with another protocol holds the key.
    pub foreign: bool,
    /// Found at start and not yet claimed or swept: kept although nothing wants it.
    pub adopted: bool,
}

/// The write that brings the kernel nearer to what is wanted; `None` where nothing may or need be done.
///
/// A key held by a foreign route is left alone. A route of protocol 177 is never deleted, nor replaced by one
/// of protocol 176: its owner is the CNI plugin.
pub fn write(compared: Compared<'_>) -> Option<Write> {
    let Compared { key, desired, actual, foreign, adopted } = compared;
    match (desired, actual) {
        (Some(desired), Some(actual)) => {
            let owned = actual.protocol != Protocol::WEFT_PODS || desired.protocol == Protocol::WEFT_PODS;
            (owned && desired != actual).then(|| Write::Replace(desired.clone()))
        }
        (Some(desired), None) => (!foreign).then(|| Write::Add(desired.clone())),
        (None, Some(actual)) => {
            (actual.protocol == Protocol::WEFT && !adopted).then_some(Write::Delete(key, Protocol::WEFT))
        }
        (None, None) => None,
    }
}
