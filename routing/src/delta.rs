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
/// A key held by a foreign route is left alone; where one of ours is known beside it (appended, or dropped by the
/// kernel without a word), replacing could hit the foreign one, so ours is deleted unless it is right. A route of
/// protocol 177 is never deleted, nor replaced by one of protocol 176: its owner is the CNI plugin.
pub fn write(compared: Compared<'_>) -> Option<Write> {
    let Compared { key, desired, actual, foreign, adopted } = compared;
    let delete =
        |actual: &Route| (actual.protocol == Protocol::WEFT).then_some(Write::Delete(key, Protocol::WEFT));
    match (desired, actual) {
        (Some(desired), Some(actual)) if desired == actual => None,
        (Some(_), Some(actual)) if foreign => delete(actual),
        (Some(desired), Some(actual)) => {
            let owned = actual.protocol != Protocol::WEFT_PODS || desired.protocol == Protocol::WEFT_PODS;
            owned.then(|| Write::Replace(desired.clone()))
        }
        (Some(desired), None) => (!foreign).then(|| Write::Add(desired.clone())),
        (None, Some(_)) if adopted => None,
        (None, Some(actual)) => delete(actual),
        (None, None) => None,
    }
}
