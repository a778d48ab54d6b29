//! What one UPDATE has wrong.

use std::borrow::Cow;

use bytes::Bytes;

use crate::wire::attribute::{RawAttribute, name};
use crate::wire::error::{ErrorCode, Severity, WireError};

/// The errors of one UPDATE that do not end the session, and the strongest of their severities (RFC 7606 section 3 h).
#[derive(Debug, Default)]
pub(super) struct Errors {
    list: Vec<WireError>,
    worst: Option<Severity>,
}

impl Errors {
    /// How many are kept for people to read; one message may hold thousands.
    const KEPT_MAX: usize = 8;

    pub(super) fn push(&mut self, error: WireError) {
        let worse = self.worst.is_none_or(|worst| error.severity > worst);
        if worse {
            self.worst = Some(error.severity);
        }
        if worse || self.list.len() < Self::KEPT_MAX {
            self.list.push(error);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(super) fn worst(&self) -> Option<Severity> {
        self.worst
    }

    /// All of them; or the first of those that end the session, if one does.
    pub(super) fn into_result(mut self) -> Result<Vec<WireError>, WireError> {
        match self.list.iter().position(|error| error.severity == Severity::SessionReset) {
            Some(reset) => Err(self.list.swap_remove(reset)),
            None => Ok(self.list),
        }
    }

    /// Makes resets of what would be treated as withdraw: there is nothing in the UPDATE that could be withdrawn, so what should be
    /// may have been lost to the error (RFC 7606 section 5.2).
    pub(super) fn escalate(&mut self) {
        for error in &mut self.list {
            if error.severity == Severity::TreatAsWithdraw {
                error.severity = Severity::SessionReset;
                self.worst = Some(Severity::SessionReset);
            }
        }
    }
}

/// An error of one attribute; the NOTIFICATION's data is the whole attribute (RFC 4271 section 6.3).
pub(super) fn attribute_error(
    severity: Severity,
    code: ErrorCode,
    raw: &RawAttribute<'_>,
    text: impl Into<Cow<'static, str>>,
) -> WireError {
    let text = format!("{}: {}", name(raw.code), text.into());
    WireError { code, data: Bytes::copy_from_slice(raw.whole), severity, text: text.into() }
}
