//! The network configuration on standard input.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::error::Category;
use serde_json::{Map, Value};

use super::section::Section;
use super::{Code, Error, Version, is_identifier};

/// Where weftd leaves `node.json` unless `runDir` says otherwise.
const DEFAULT_RUN_DIR: &str = "/run/weft";
/// Where the address store is unless `stateDir` says otherwise.
const DEFAULT_STATE_DIR: &str = "/var/lib/weft";

/// The configuration of the network, as far as every command reads it. Unknown keys are ignored: the runtime keeps
/// the document and hands it whole to the next plugin of the chain.
#[derive(Debug, Clone, PartialEq)]
pub struct NetworkConfig {
    /// The version in which the runtime speaks and is answered.
    pub version: Version,
    /// The network's name.
    pub name: String,
    /// Directory of `node.json`.
    pub run_dir: PathBuf,
    /// Directory of the address store.
    pub state_dir: PathBuf,
    /// What ADD answered, in CHECK and DEL; what earlier plugins of a chain answered, in ADD.
    pub prev_result: Option<Value>,
    document: Map<String, Value>,
}

/// One interface of one container, as the runtime names it in GC. Runtimes may name what no ADD would have taken.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct AttachmentId {
    /// `CNI_CONTAINERID` of its ADD.
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// `CNI_IFNAME` of its ADD.
    pub ifname: String,
}

/// The key of the list in GC.
const VALID_ATTACHMENTS: &str = "cni.dev/valid-attachments";
/// What an early text of 1.1.0 called it; libcni sends both.
const VALID_ATTACHMENTS_EARLY: &str = "cni.dev/attachments";

impl NetworkConfig {
    /// Reads and checks a configuration. The version comes first: what follows it is read by its rules.
    pub fn parse(input: &[u8]) -> Result<Self, Error> {
        let document = parse_object(input)?;
        let version = version_of(&document)?;
        let top = Section::top(&document);
        let name: String = top.get("name")?.ok_or_else(|| top.invalid("name", "is missing"))?;
        if !is_identifier(&name) {
            return Err(top.invalid(
                "name",
                format_args!(
                    "{name:?} is no network name: a letter or digit, then letters, digits, '_', '.' and '-'"
                ),
            ));
        }
        Ok(Self {
            version,
            name,
            run_dir: directory(&top, "runDir", DEFAULT_RUN_DIR)?,
            state_dir: directory(&top, "stateDir", DEFAULT_STATE_DIR)?,
            prev_result: top.value("prevResult").cloned(),
            document,
        })
    }

    /// The whole document.
    pub(super) fn section(&self) -> Section<'_> {
        Section::top(&self.document)
    }

    /// MTU of pods' links in bytes, instead of the node's.
    pub fn mtu(&self) -> Result<Option<u32>, Error> {
        self.section().get("mtu")
    }

    /// The attachments that GC leaves alone. A list that is missing is an error, not an empty one: GC would free what
    /// every running pod has.
    pub fn valid_attachments(&self) -> Result<BTreeSet<AttachmentId>, Error> {
        let keys = [VALID_ATTACHMENTS, VALID_ATTACHMENTS_EARLY];
        let given = || keys.iter().filter_map(|key| self.document.get(*key));
        let list = given().find(|list| !list.is_null()).or_else(|| given().next());
        let invalid = |reason| self.section().invalid(VALID_ATTACHMENTS, reason);
        match list {
            None => Err(invalid("is missing: GC needs the list of what is still in use".to_owned())),
            // libcni writes an empty list so.
            Some(Value::Null) => Ok(BTreeSet::new()),
            Some(list) => BTreeSet::deserialize(list)
                .map_err(|error| invalid(format!("{error}; a list of {{containerID, ifname}} is expected"))),
        }
    }
}

/// The `cniVersion` of a configuration, which also decides how an error about the rest is written.
pub fn parse_version(input: &[u8]) -> Result<Version, Error> {
    version_of(&parse_object(input)?)
}

fn version_of(document: &Map<String, Value>) -> Result<Version, Error> {
    let found: String = Section::top(document).get("cniVersion")?.unwrap_or_default();
    Version::parse(&found).ok_or_else(|| {
        let supported = Version::SUPPORTED.map(Version::as_str).join(", ");
        Error::new(Code::IncompatibleVersion, format!("cniVersion {found:?} is not supported"))
            .details(format!("supported: {supported}"))
    })
}

fn parse_object(input: &[u8]) -> Result<Map<String, Value>, Error> {
    serde_json::from_slice(input).map_err(|error| {
        let code = match error.classify() {
            Category::Data => Code::InvalidConfig,
            Category::Syntax | Category::Eof | Category::Io => Code::Decode,
        };
        Error::new(code, format!("cannot read the network configuration on standard input: {error}"))
    })
}

fn directory(top: &Section<'_>, key: &str, default: &str) -> Result<PathBuf, Error> {
    let path = top.get(key)?.unwrap_or_else(|| PathBuf::from(default));
    if path.is_absolute() {
        return Ok(path);
    }
    Err(top.invalid(key, format_args!("{path:?} is not an absolute path")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_and_unknown_keys() {
        let config = NetworkConfig::parse(
            br#"{"cniVersion": "1.0.0", "name": "weft", "type": "weft-cni", "x": {"y": 1}, "args": {"cni": {}}}"#,
        )
        .unwrap();
        assert_eq!(config.run_dir, PathBuf::from("/run/weft"));
        assert_eq!(config.state_dir, PathBuf::from("/var/lib/weft"));
        assert_eq!(config.prev_result, None);
    }

    #[test]
    fn the_list_of_gc_has_two_spellings_and_is_never_assumed_empty() {
        let parse = |keys: &str| {
            let text = format!(r#"{{"cniVersion": "1.1.0", "name": "n"{keys}}}"#);
            NetworkConfig::parse(text.as_bytes()).unwrap().valid_attachments()
        };
        let one = BTreeSet::from([AttachmentId { container_id: "c1".into(), ifname: "eth0".into() }]);
        let list = r#"[{"containerID": "c1", "ifname": "eth0"}]"#;
        for key in [VALID_ATTACHMENTS, VALID_ATTACHMENTS_EARLY] {
            assert_eq!(parse(&format!(r#", "{key}": {list}"#)).unwrap(), one);
            for empty in ["null", "[]"] {
                assert_eq!(parse(&format!(r#", "{key}": {empty}"#)).unwrap(), BTreeSet::new());
            }
        }
        let both = format!(r#", "{VALID_ATTACHMENTS}": {list}, "{VALID_ATTACHMENTS_EARLY}": []"#);
        assert_eq!(parse(&both).unwrap(), one);
        let early = format!(r#", "{VALID_ATTACHMENTS}": null, "{VALID_ATTACHMENTS_EARLY}": {list}"#);
        assert_eq!(parse(&early).unwrap(), one, "a list counts more than none");
        for bad in ["", r#", "cni.dev/valid-attachments": [{"containerID": "c1"}]"#] {
            let error = parse(bad).unwrap_err();
            assert_eq!(error.code, Code::InvalidConfig);
            assert!(error.msg.starts_with(VALID_ATTACHMENTS), "{error:?}");
        }
    }

    #[test]
    fn every_wrong_value_gets_its_code_and_is_named() {
        let cases: [(&str, Code, &str); 10] = [
            ("", Code::Decode, "EOF"),
            ("{\"cniVersion\": \"1.0.0\",", Code::Decode, "EOF"),
            ("7", Code::InvalidConfig, "expected"),
            (r#"{"name": "weft"}"#, Code::IncompatibleVersion, "cniVersion"),
            (r#"{"cniVersion": "2.0.0", "name": 7}"#, Code::IncompatibleVersion, "2.0.0"),
            (r#"{"cniVersion": "1.0.0"}"#, Code::InvalidConfig, "name"),
            (r#"{"cniVersion": "1.0.0", "name": "-"}"#, Code::InvalidConfig, "network name"),
            (r#"{"cniVersion": 1, "name": "n"}"#, Code::InvalidConfig, "cniVersion: "),
            (r#"{"cniVersion": "1.0.0", "name": "n", "runDir": "run"}"#, Code::InvalidConfig, "runDir"),
            (r#"{"cniVersion": "1.0.0", "name": "n", "stateDir": ""}"#, Code::InvalidConfig, "stateDir"),
        ];
        for (text, code, expected) in cases {
            let error = NetworkConfig::parse(text.as_bytes()).unwrap_err();
            assert_eq!(error.code, code, "{text}: {error:?}");
            assert!(error.msg.contains(expected), "{text}: {error:?}");
        }
    }
}
