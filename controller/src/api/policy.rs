//! What filters and advertisements say of communities, AS paths and other attributes.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use weft_bgp::policy::Community;

use super::{AsNumber, Cidr, Invalid, PeerAddress};

/// How many communities a BGPConfiguration may give names, and how many prefixes it may attach communities to.
pub const COMMUNITIES_MAX: usize = 500;

/// How many communities one list may have.
pub const COMMUNITY_LIST_MAX: usize = 50;

/// How many operations a rule may have.
pub const OPERATIONS_MAX: usize = 10;

/// How many AS numbers a rule may compare with, or put in front at once.
pub const AS_PATH_MAX: usize = 10;

/// A community, or the name that a BGPConfiguration gives one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum CommunityRef {
    /// This one: it is written as a number of any kind, or by the name that all know it by.
    Value(Community),
    /// The one that `communities` of the BGPConfiguration `default` gives this name.
    Named(String),
}

impl CommunityRef {
    /// Whether this can be the name of a community: a letter, then letters, digits, `-`, `_` and `.`.
    #[must_use]
    pub fn is_name(text: &str) -> bool {
        text.len() <= 63
            && text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    }
}

impl fmt::Display for CommunityRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(community) => community.fmt(f),
            Self::Named(name) => f.write_str(name),
        }
    }
}

impl TryFrom<String> for CommunityRef {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        match text.parse() {
            Ok(community) => Ok(Self::Value(community)),
            Err(_) if Self::is_name(&text) => Ok(Self::Named(text)),
            Err(message) => Err(Invalid::new(
                message,
                "write a:b, a large a:b:c, an extended rt:a:b or ro:a:b, no-export, no-advertise, no-export-subconfed, \
                 graceful-shutdown, llgr-stale, no-llgr, blackhole, or a name of BGPConfiguration default's communities",
            )),
        }
    }
}

impl From<CommunityRef> for String {
    fn from(community: CommunityRef) -> Self {
        community.to_string()
    }
}

impl JsonSchema for CommunityRef {
    fn schema_name() -> Cow<'static, str> {
        "CommunityRef".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "maxLength": 64,
            "description": "Written as `a:b`, a large community `a:b:c`, an extended one `rt:a:b` or `ro:a:b`, a well-known name such as \
                            `no-export`, or a name that the BGPConfiguration `default` gives a community.",
        })
    }
}

/// An address that a path can lead to: one of a host, and not link-local.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NextHopAddress(pub IpAddr);

impl TryFrom<String> for NextHopAddress {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        match text.parse() {
            Ok(PeerAddress { ip, port: None }) if !ip.is_loopback() => Ok(Self(ip)),
            _ => Err(Invalid::new(
                format!("\"{text}\" is not the address of a next hop"),
                "write the IPv4 or global IPv6 address of a router or host",
            )),
        }
    }
}

impl From<NextHopAddress> for String {
    fn from(address: NextHopAddress) -> Self {
        address.0.to_string()
    }
}

impl JsonSchema for NextHopAddress {
    fn schema_name() -> Cow<'static, str> {
        "NextHopAddress".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "maxLength": 64, "description": "Written as an address without prefix length." })
    }
}

/// Communities that a route carries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CommunityMatch {
    /// All of these.
    #[schemars(length(min = 1, max = COMMUNITY_LIST_MAX))]
    pub values: Vec<CommunityRef>,
}

/// One change of the attributes of a route that is accepted: exactly one field is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub struct FilterOperation {
    /// Attaches a community.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub add_community: Option<CommunityOperation>,
    /// Takes a community off, if the route carries it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remove_community: Option<CommunityOperation>,
    /// Puts AS numbers in front of the AS path. On export our own AS comes before them.
    #[serde(default, rename = "prependASPath", skip_serializing_if = "Option::is_none")]
    pub prepend_as_path: Option<PrependOperation>,
    /// Sets the local preference. eBGP peers are not told of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_local_preference: Option<NumberOperation>,
    /// Sets `MULTI_EXIT_DISC`.
    #[serde(default, rename = "setMED", skip_serializing_if = "Option::is_none")]
    pub set_med: Option<NumberOperation>,
    /// Sets the next hop. That of a reflected route stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_next_hop: Option<NextHopOperation>,
}

/// What to attach or to take off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CommunityOperation {
    /// The community.
    pub value: CommunityRef,
}

/// What to put in front.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PrependOperation {
    /// The AS numbers, as they are to be read: the first comes first.
    #[schemars(length(min = 1, max = AS_PATH_MAX))]
    pub prefix: Vec<AsNumber>,
}

/// A number to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NumberOperation {
    /// 0 to 4294967295.
    pub value: u32,
}

/// A next hop to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NextHopOperation {
    /// Its address.
    pub value: NextHopAddress,
}

/// A name for a community.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NamedCommunity {
    /// The name: a letter, then letters, digits, `-`, `_` and `.`.
    #[schemars(length(max = 63))]
    pub name: String,
    /// The community, as a value.
    pub value: CommunityRef,
}

/// What is attached to prefixes that the node originates, and what they are announced as.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PrefixAdvertisement {
    /// The prefixes equal to or inside this one.
    pub cidr: Cidr,
    /// The communities that they are announced with.
    #[serde(default)]
    #[schemars(length(max = COMMUNITY_LIST_MAX))]
    pub communities: Vec<CommunityRef>,
    /// Announce `cidr` itself too, while the node has a route inside it.
    #[serde(default)]
    pub aggregate: Option<Aggregate>,
}

/// What becomes of the routes inside an aggregate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Aggregate {
    /// They are announced beside it, as far as they would be without.
    WithSpecifics,
    /// A peer that is told the aggregate is told none of them.
    SummaryOnly,
}
