//! The resource of BFD.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Duration, ObjectStatus};

/// How BFD (RFC 5880) runs on the sessions whose BGPPeer or BGPConfiguration names it.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "weft.network",
    version = "v1alpha1",
    kind = "BFDProfile",
    doc = "How BFD runs on the sessions that name it.",
    plural = "bfdprofiles",
    category = "weft",
    status = "ObjectStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Receive","type":"string","jsonPath":".spec.receiveInterval"}"#,
    printcolumn = r#"{"name":"Transmit","type":"string","jsonPath":".spec.transmitInterval"}"#,
    printcolumn = r#"{"name":"Multiplier","type":"integer","jsonPath":".spec.detectMultiplier"}"#,
    printcolumn = r#"{"name":"Accepted","type":"string","jsonPath":".status.conditions[?(@.type==\"Accepted\")].status"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BFDProfileSpec {
    /// The time between two packets that we can take: 10ms to 60s; 300ms unless given. The peer sends no more often.
    #[serde(default)]
    pub receive_interval: Option<Duration>,
    /// The time between two packets that we send, unless the peer wants fewer: 10ms to 60s; 300ms unless given.
    #[serde(default)]
    pub transmit_interval: Option<Duration>,
    /// How many of our packets in a row may be missing before the peer gives us up: 2 to 255; 3 unless given.
    #[serde(default)]
    #[schemars(range(min = 2, max = 255))]
    pub detect_multiplier: Option<u8>,
    /// Send nothing before the peer has. Of two nodes only the one whose name comes later does.
    #[serde(default)]
    pub passive_mode: bool,
    /// The lowest TTL with which the packets of a multihop session are believed, of the 255 that they are sent with: 1 to 255; any unless
    /// given. On the link itself it is 255 in any case.
    #[serde(default)]
    #[schemars(range(min = 1, max = 255))]
    pub minimum_ttl: Option<u8>,
}
