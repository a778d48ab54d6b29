//! Policy: an ordered list of rules, the first match decides, and what matches none is rejected with a reason.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

pub use self::community::{
    BLACKHOLE, Community, DISCARD, NO_ADVERTISE, NO_EXPORT, NO_EXPORT_SUBCONFED, is_discard,
};
pub use self::compiled::{CompiledPolicy, Subject};
pub use self::operation::{Operation, Operations};
use crate::types::{Asn, PeerType, Reason};

mod community;
mod compiled;
mod operation;

/// The rules of one direction of one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// In order; the first that matches decides.
    pub rules: Vec<Rule>,
    /// Why a route that no rule matches is rejected.
    pub unmatched: Reason,
}

/// One rule: all of its conditions must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The prefixes it speaks of; none: every prefix.
    pub prefixes: Option<PrefixMatch>,
    /// The communities that the path carries, all of them.
    pub communities: Vec<Community>,
    /// What its AS path begins with, nearest first.
    pub as_path_prefix: Vec<Asn>,
    /// Its AS path ends in another AS than these, which [surely](crate::wire::attributes::AsPath::origin) originated it; none: whoever did.
    pub not_originated_by: Vec<Asn>,
    /// Where the route comes from.
    pub source: Option<RouteSource>,
    /// The kind of session that the policy stands on.
    pub peer_type: Option<PeerType>,
    /// What becomes of the route.
    pub verdict: Verdict,
}

impl Rule {
    /// A rule that matches every route.
    #[must_use]
    pub fn new(verdict: Verdict) -> Self {
        Self {
            prefixes: None,
            communities: Vec::new(),
            as_path_prefix: Vec::new(),
            not_originated_by: Vec::new(),
            source: None,
            peer_type: None,
            verdict,
        }
    }
}

/// What a rule says of a route that it matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The route passes.
    Accept,
    /// The route passes, with its attributes changed.
    AcceptWith(Operations),
    /// The route stops here, for this reason.
    Reject(Reason),
    /// The route passes if its prefix is one of these and its next hop one of those given for it; else it stops here, for this
    /// reason. One look-up, however many prefixes there are.
    AcceptVia(Arc<NextHopsByPrefix>, Reason),
}

/// Prefixes, without host bits, and the next hops that a route to each may have.
pub type NextHopsByPrefix = BTreeMap<IpNet, BTreeSet<IpAddr>>;

/// Where a route comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteSource {
    /// This speaker originates it.
    Local,
    /// A peer announced it.
    RemotePeers,
    /// An internal peer announced it, and it is on its way to another one (RFC 4456). A rule that names
    /// [`RemotePeers`](Self::RemotePeers) speaks of such a route too.
    Reflected,
}

impl RouteSource {
    /// Whether a rule for this source speaks of a route from `source`.
    #[must_use]
    pub fn includes(self, source: Self) -> bool {
        self == source || (self, source) == (Self::RemotePeers, Self::Reflected)
    }
}

/// A set of prefixes, or all but these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrefixMatch {
    /// Any of these.
    pub ranges: Vec<PrefixRange>,
    /// Matches what is in none of the ranges. Ranges of the other family leave a prefix unmatched either way.
    pub negated: bool,
}

/// The prefixes equal to or inside `net` whose length is within bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefixRange {
    /// The covering prefix.
    pub net: IpNet,
    /// The shortest length that matches, in bits.
    pub min_len: u8,
    /// The longest length that matches, in bits.
    pub max_len: u8,
}
