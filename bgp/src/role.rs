//! Who is whose customer (RFC 9234): the roles of the two ends of an eBGP session, and what they make of ONLY_TO_CUSTOMER.

use std::fmt;

/// What an AS is to the AS at the other end of a session (RFC 9234 section 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Role {
    /// It sells transit to the other.
    Provider = 0,
    /// It is a route server, the other its client.
    RouteServer = 1,
    /// It is a client of the other, a route server.
    RouteServerClient = 2,
    /// It buys transit from the other.
    Customer = 3,
    /// They exchange their own and their customers' routes.
    Peer = 4,
}

impl Role {
    const ALL: [Self; 5] =
        [Self::Provider, Self::RouteServer, Self::RouteServerClient, Self::Customer, Self::Peer];

    /// The role of this number in the capability, if there is one.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|role| *role as u8 == code)
    }

    /// The role that the other end must have.
    #[must_use]
    pub fn counterpart(self) -> Self {
        match self {
            Self::Provider => Self::Customer,
            Self::Customer => Self::Provider,
            Self::RouteServer => Self::RouteServerClient,
            Self::RouteServerClient => Self::RouteServer,
            Self::Peer => Self::Peer,
        }
    }

    /// Whether routes go down from us to the other end, or across: what is told there is told to customers only from then on.
    #[must_use]
    pub fn tells_customers_only(self) -> bool {
        matches!(self, Self::Provider | Self::RouteServer | Self::Peer)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Provider => "provider",
            Self::RouteServer => "rs",
            Self::RouteServerClient => "rs-client",
            Self::Customer => "customer",
            Self::Peer => "peer",
        })
    }
}
