use std::fmt;

/// A value that is not what its field needs: what is wrong with it, and what would be right.
///
/// Shown as `message; remedy`. The remedy never contains `"; "`, so that a reader can part the two again after the error
/// has passed through serde, which carries errors as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub remedy: String,
}

impl Invalid {
    /// Both halves.
    pub fn new(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { message: message.into(), remedy: remedy.into() }
    }

    /// Parts a text that an `Invalid` was shown as.
    #[must_use]
    pub fn parted(text: &str) -> Option<Self> {
        text.rsplit_once("; ").map(|(message, remedy)| Self::new(message, remedy))
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.message, self.remedy)
    }
}

impl std::error::Error for Invalid {}
