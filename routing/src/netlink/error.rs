//! What can go wrong between us and the kernel's rtnetlink.

use std::fmt;

use nix::errno::Errno;

/// The kernel's answer to one refused request: the error number and, where the kernel gave one, the text of
/// its extended acknowledgement (`NLMSGERR_ATTR_MSG`, Documentation/userspace-api/netlink/intro.rst).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The error number, never 0.
    pub errno: Errno,
    /// The kernel's own words, for example `Nexthop has invalid gateway`.
    pub message: Option<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.message {
            Some(message) => write!(f, "{message} ({:?})", self.errno),
            None => write!(f, "{} ({:?})", self.errno.desc(), self.errno),
        }
    }
}

/// Why a request, a dump or a socket failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The kernel read the request and refused it.
    #[error("{0}")]
    Refused(Refusal),
    /// A system call on the socket failed.
    #[error("netlink: cannot {action}: {} ({errno:?})", errno.desc())]
    Socket {
        /// What was tried, to follow the word "cannot".
        action: &'static str,
        /// The error number of the system call.
        errno: Errno,
    },
    /// The socket's receive buffer was full, so the kernel dropped replies or notifications.
    #[error("netlink: the receive buffer overran; replies or notifications were lost")]
    Overrun,
    /// The kernel took the request and said nothing; it may or may not have been carried out.
    #[error("netlink: the kernel did not answer the request")]
    NoReply,
    /// The table changed under every try to dump it (`NLM_F_DUMP_INTR`), or another dump was in progress.
    #[error("netlink: the dump was interrupted by changes {tries} times in a row")]
    Interrupted {
        /// How many times the dump was started.
        tries: u32,
    },
    /// The kernel's reply could not be read.
    #[error("netlink: malformed reply: {0}")]
    Malformed(String),
    /// A network namespace could not be entered.
    #[error(transparent)]
    Namespace(#[from] crate::netns::Error),
}

impl Error {
    /// The kernel's error number, where the kernel refused a request.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused(refusal) => Some(refusal.errno),
            _ => None,
        }
    }

    /// True when a deletion or lookup failed because the object does not exist (`ENOENT`, `ESRCH`, `ENODEV`,
    /// `EADDRNOTAVAIL`): what a caller that wants the object gone treats as success.
    pub fn is_absent(&self) -> bool {
        matches!(
            self.errno(),
            Some(Errno::ENOENT | Errno::ESRCH | Errno::ENODEV | Errno::EADDRNOTAVAIL | Errno::ENXIO)
        )
    }

    /// True when a creation failed because the object is already there (`EEXIST`).
    pub fn is_present(&self) -> bool {
        self.errno() == Some(Errno::EEXIST)
    }

    /// True when something was refused for its link, which is down or has no carrier (`ENETDOWN`): the kernel's word on the link itself is
    /// still to be heard.
    pub(crate) fn is_link_down(&self) -> bool {
        self.errno() == Some(Errno::ENETDOWN)
    }

    pub(crate) fn from_io(action: &'static str, error: &std::io::Error) -> Self {
        Self::Socket { action, errno: Errno::from_raw(error.raw_os_error().unwrap_or(0)) }
    }
}
