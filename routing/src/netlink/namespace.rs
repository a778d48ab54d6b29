//! The ids that one network namespace has for others (`RTM_GETNSID`, net/core/net_namespace.c).

use std::fmt;
use std::str::FromStr;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};

use super::{Error, Request, Socket};

/// The number that one network namespace has for another as long as that lives; then a later one may get it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NamespaceId(u32);

impl NamespaceId {
    /// `None` for `NETNSA_NSID_NOT_ASSIGNED`, which is -1, and what else no id is.
    pub(super) fn new(number: u32) -> Option<Self> {
        i32::try_from(number).is_ok().then_some(Self(number))
    }
}

impl fmt::Display for NamespaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The text is no namespace id: a number from 0 to 2147483647.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no namespace id")]
pub struct InvalidNamespaceId(pub String);

impl FromStr for NamespaceId {
    type Err = InvalidNamespaceId;

    fn from_str(text: &str) -> Result<Self, InvalidNamespaceId> {
        text.parse().ok().and_then(Self::new).ok_or_else(|| InvalidNamespaceId(text.to_owned()))
    }
}

impl Socket {
    /// Whether the namespace that has or had this id is still there, or a later one has the id. One that nothing holds any more is
    /// not there from that moment on, though the kernel takes it down with its links only in a while. No lock is waited for
    /// that this work may hold.
    pub fn namespace_lives(&mut self, id: NamespaceId) -> Result<bool, Error> {
        let mut message = NsidMessage::default();
        message.attributes = vec![NsidAttribute::Id(i32::try_from(id.0).unwrap_or(i32::MAX))];
        match self.get(&Request::new(&RouteNetlinkMessage::GetNsId(message), 0), |_, _| Ok(())) {
            Ok(()) => Ok(true),
            Err(error) if error.is_absent() => Ok(false),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_never_negative() {
        assert_eq!("7".parse(), Ok(NamespaceId(7)));
        assert_eq!("7".parse::<NamespaceId>().unwrap().to_string(), "7");
        assert_eq!(NamespaceId::new(u32::MAX), None);
        for bad in ["", "-1", "2147483648", "x"] {
            assert_eq!(bad.parse::<NamespaceId>(), Err(InvalidNamespaceId(bad.to_owned())));
        }
    }
}
