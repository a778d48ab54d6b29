//! The words of the CNI specification: versions, errors, configuration, environment, results.
//!
//! Written after the Container Network Interface specification 1.1.0 (github.com/containernetworking/cni,
//! `SPEC.md`, `CONVENTIONS.md`) and its versions 0.3.1, 0.4.0 and 1.0.0.

mod arguments;
mod asked;
mod config;
mod environment;
mod request;
mod result;
mod section;

use std::fmt;

use serde::Serialize;

pub use self::arguments::Arguments;
pub use self::asked::Asked;
pub use self::config::{AttachmentId, NetworkConfig, parse_version};
pub use self::environment::{Attachment, Environment, PodName};
pub use self::request::AddRequest;
pub use self::result::{AddResult, ChainedResult, Interface, IpConfig, PreviousResult, Route, VersionResult};

/// A version of the specification that this plugin speaks, oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// 0.3.1: ADD, DEL, VERSION.
    V0_3_1,
    /// 0.4.0: CHECK.
    V0_4_0,
    /// 1.0.0: results without the `version` of each address.
    V1_0_0,
    /// 1.1.0: GC, STATUS, and results with the `mtu` of each interface.
    V1_1_0,
}

impl Version {
    /// All of them, oldest first.
    pub const SUPPORTED: [Self; 4] = [Self::V0_3_1, Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];
    /// The newest.
    pub const LATEST: Self = Self::V1_1_0;

    /// As written in `cniVersion`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// The version `text` names, if it is one of [`Self::SUPPORTED`].
    pub fn parse(text: &str) -> Option<Self> {
        Self::SUPPORTED.into_iter().find(|version| version.as_str() == text)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What kind of error (specification, section "Error"); 100 and above are the plugin's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The configuration's `cniVersion` is none of ours.
    IncompatibleVersion = 1,
    /// The configuration has a field that is understood and cannot be honoured.
    UnsupportedField = 2,
    /// The container is not known; there is nothing to clean up.
    UnknownContainer = 3,
    /// An environment variable is missing or wrong.
    InvalidEnvironment = 4,
    /// Reading or writing failed.
    Io = 5,
    /// The input is no JSON.
    Decode = 6,
    /// The configuration is wrong.
    InvalidConfig = 7,
    /// Nothing was done; the same call may succeed later.
    TryAgainLater = 11,
    /// STATUS: ADD would fail.
    NotAvailable = 50,
    /// STATUS: ADD would fail, and pods that are there may not be reachable.
    LimitedConnectivity = 51,
    /// The kernel refused a part of the pod's network.
    Kernel = 100,
    /// ADD for a container interface that is there.
    AlreadyAdded = 101,
    /// CHECK found the pod's network not as it should be.
    CheckFailed = 102,
    /// The address store is damaged.
    StoreDamaged = 103,
}

/// An error as the runtime gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// What kind of error.
    pub code: Code,
    /// What went wrong, in one sentence.
    pub msg: String,
    /// More about it, or what would help; may be empty.
    pub details: String,
}

impl Error {
    /// An error without details.
    pub fn new(code: Code, msg: impl Into<String>) -> Self {
        Self { code, msg: msg.into(), details: String::new() }
    }

    /// The same error with details.
    #[must_use]
    pub fn details(self, details: impl Into<String>) -> Self {
        Self { details: details.into(), ..self }
    }

    /// The JSON the runtime reads from standard output.
    pub fn to_json(&self, version: Version) -> Vec<u8> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Json<'a> {
            cni_version: &'static str,
            code: u32,
            msg: &'a str,
            #[serde(skip_serializing_if = "str::is_empty")]
            details: &'a str,
        }
        to_json(&Json {
            cni_version: version.as_str(),
            code: self.code as u32,
            msg: &self.msg,
            details: &self.details,
        })
    }
}

/// JSON of a value whose serialization cannot fail: structures of text and numbers, no maps.
fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

/// The rule for network names and container ids: a letter or digit, then letters, digits, `_`, `.` and `-`.
fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;
    use proptest::sample::select;
    use serde_json::Value;

    use super::*;

    #[test]
    fn errors_are_written_as_the_specification_shows_them() {
        let error = Error::new(Code::InvalidConfig, "mtu: 5 is too small").details("at least 68");
        assert_eq!(
            String::from_utf8(error.to_json(Version::V0_4_0)).unwrap(),
            r#"{"cniVersion":"0.4.0","code":7,"msg":"mtu: 5 is too small","details":"at least 68"}"#
        );
        let bare = Error::new(Code::TryAgainLater, "m").to_json(Version::LATEST);
        assert_eq!(String::from_utf8(bare).unwrap(), r#"{"cniVersion":"1.1.0","code":11,"msg":"m"}"#);
    }

    /// Any JSON, with the keys that are read among its own.
    fn json() -> impl Strategy<Value = Value> {
        let key = prop_oneof![
            select(vec![
                "cniVersion",
                "name",
                "runDir",
                "mtu",
                "pools",
                "runtimeConfig",
                "args",
                "cni",
                "ips",
                "mac",
                "dns",
                "prevResult",
                "interfaces",
                "routes",
                "waitForRoute",
                "waitForRouteSeconds",
                "cni.dev/valid-attachments",
                "io.kubernetes.cri.pod-annotations",
                "weft.network/pools",
                "weft.network/ips",
            ])
            .prop_map(str::to_owned),
            ".{0,8}",
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
            select(vec!["1.1.0", "0.3.1", "n", "/run", "10.0.0.5/24", "[\"a\"]", "0a:58:00:00:00:01"])
                .prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 8, move |inner| {
            prop_oneof![
                vec(inner.clone(), 0..4).prop_map(Value::from),
                btree_map(key.clone(), inner, 0..8)
                    .prop_map(|keys| Value::Object(keys.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_configuration_is_too_odd_to_answer(mut document in json(), arguments in "[A-Za-z=;,:.0-9]{0,40}") {
            if let Some(keys) = document.as_object_mut() {
                keys.entry("cniVersion").or_insert("1.1.0".into());
                keys.entry("name").or_insert("n".into());
            }
            let text = document.to_string();
            let arguments = Arguments::parse(&arguments).unwrap_or_default();
            if let Ok(config) = NetworkConfig::parse(text.as_bytes()) {
                let _ = config.valid_attachments();
                if let Err(error) = AddRequest::parse(&config, &arguments) {
                    prop_assert!(!error.msg.is_empty());
                }
            }
        }

        #[test]
        fn no_bytes_are_too_odd_to_answer(bytes in vec(any::<u8>(), 0..64), text in ".{0,40}") {
            let _ = NetworkConfig::parse(&bytes);
            let _ = Arguments::parse(&text);
        }
    }

    #[test]
    fn identifiers() {
        for good in ["a", "0", "a_b.c-D9"] {
            assert!(is_identifier(good), "{good}");
        }
        for bad in ["", "-a", ".a", "_a", "a/b", "a b", "ä", "a\n"] {
            assert!(!is_identifier(bad), "{bad:?}");
        }
    }
}
