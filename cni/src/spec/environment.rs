//! The `CNI_*` environment variables.

use std::path::Path;

use serde::{Deserialize, Serialize};
use weft_routing::netlink::LinkName;

use super::{Arguments, Code, Error, is_identifier};

/// The longest container id that is taken, in bytes; runtimes use 64.
const CONTAINER_ID_MAX: usize = 256;

/// A command (`CNI_COMMAND`) with its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Environment {
    /// Make the container's interface.
    Add {
        /// Which.
        attachment: Attachment,
        /// `CNI_NETNS`: path of the container's network namespace.
        netns: String,
        /// `CNI_ARGS`.
        arguments: Arguments,
    },
    /// Take it away; the namespace may be gone.
    Del(Attachment),
    /// See that it is as ADD left it, in the network namespace at this path.
    Check(Attachment, String),
    /// Free what attachments have that are no longer valid.
    Gc,
    /// Say whether ADD would succeed.
    Status,
    /// Say which versions of the specification are spoken.
    Version,
}

/// One interface of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_IFNAME`: the interface's name inside the container.
    pub ifname: LinkName,
}

/// A Kubernetes pod (`K8S_POD_NAMESPACE` and `K8S_POD_NAME` in `CNI_ARGS`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PodName {
    /// The pod's Kubernetes namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Command {
    Add,
    Del,
    Check,
    Gc,
    Status,
    Version,
}

/// A variable's value; `None` where it is not set.
type Value = Option<std::ffi::OsString>;

impl Environment {
    /// Reads and checks the variables the command needs; `variable` looks one up. The error names every variable
    /// that is wrong.
    pub fn parse(variable: impl Fn(&str) -> Value) -> Result<Self, Error> {
        let mut reader = Reader { variable, problems: Vec::new() };
        let command = reader.required("CNI_COMMAND", parse_command);
        match command {
            Some(Command::Version) => return Ok(Self::Version),
            Some(Command::Gc) => return Ok(Self::Gc),
            Some(Command::Status) => return Ok(Self::Status),
            Some(Command::Add | Command::Del | Command::Check) | None => {}
        }
        let container_id = reader.required("CNI_CONTAINERID", parse_container_id);
        let ifname = reader.required("CNI_IFNAME", parse_ifname);
        let netns = match command {
            Some(Command::Del) => None,
            _ => reader.required("CNI_NETNS", parse_netns),
        };
        // Only ADD needs them, and a DEL must not fail for them.
        let arguments = match command {
            Some(Command::Add) => reader.optional("CNI_ARGS", Arguments::parse).unwrap_or_default(),
            _ => Arguments::default(),
        };
        let (Some(command), Some(container_id), Some(ifname), true) =
            (command, container_id, ifname, reader.problems.is_empty())
        else {
            return Err(Error::new(Code::InvalidEnvironment, reader.problems.join("; ")));
        };
        let attachment = Attachment { container_id, ifname };
        Ok(match (command, netns) {
            (Command::Add, Some(netns)) => Self::Add { attachment, netns, arguments },
            (Command::Check, Some(netns)) => Self::Check(attachment, netns),
            _ => Self::Del(attachment),
        })
    }
}

struct Reader<F> {
    variable: F,
    problems: Vec<String>,
}

impl<F: Fn(&str) -> Value> Reader<F> {
    fn required<T>(&mut self, name: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let problems = self.problems.len();
        let value = self.optional(name, parse);
        if value.is_none() && self.problems.len() == problems {
            self.problems.push(format!("{name} is not set"));
        }
        value
    }

    /// An empty variable counts as one that is not set.
    fn optional<T>(&mut self, name: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let value = (self.variable)(name).filter(|value| !value.is_empty())?;
        let parsed = value.to_str().ok_or_else(|| format!("{value:?} is not UTF-8")).and_then(parse);
        parsed.map_err(|reason| self.problems.push(format!("{name}: {reason}"))).ok()
    }
}

fn parse_command(text: &str) -> Result<Command, String> {
    match text {
        "ADD" => Ok(Command::Add),
        "DEL" => Ok(Command::Del),
        "CHECK" => Ok(Command::Check),
        "GC" => Ok(Command::Gc),
        "STATUS" => Ok(Command::Status),
        "VERSION" => Ok(Command::Version),
        other => Err(format!("{other:?} is not one of ADD, DEL, CHECK, GC, STATUS, VERSION")),
    }
}

fn parse_container_id(text: &str) -> Result<String, String> {
    if is_identifier(text) && text.len() <= CONTAINER_ID_MAX {
        return Ok(text.to_owned());
    }
    Err(format!(
        "{text:?} is no container id: a letter or digit, then letters, digits, '_', '.' and '-', at most \
         {CONTAINER_ID_MAX} in all"
    ))
}

fn parse_netns(text: &str) -> Result<String, String> {
    if Path::new(text).is_absolute() {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} is not an absolute path"))
    }
}

/// A name for an interface, and no pattern that the kernel makes one of (`dev_alloc_name`), nor what `net/ipv4/conf` has
/// besides interfaces.
fn parse_ifname(text: &str) -> Result<LinkName, String> {
    if text.contains('%') || ["all", "default"].contains(&text) {
        return Err(format!("{text:?} is not for an interface"));
    }
    text.parse::<LinkName>().map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    fn parse(variables: &[(&str, &str)]) -> Result<Environment, Error> {
        Environment::parse(|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
        })
    }

    const ADD: [(&str, &str); 4] = [
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "c1"),
        ("CNI_NETNS", "/run/netns/x"),
        ("CNI_IFNAME", "eth0"),
    ];

    fn with<'a>(name: &'a str, value: &'a str) -> Vec<(&'a str, &'a str)> {
        ADD.into_iter().filter(|(key, _)| *key != name).chain([(name, value)]).collect()
    }

    #[test]
    fn a_full_environment() {
        let args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=web;K8S_POD_UID=1";
        let Environment::Add { attachment, netns, arguments } = parse(&with("CNI_ARGS", args)).unwrap()
        else {
            panic!("no ADD");
        };
        assert_eq!(netns, "/run/netns/x");
        assert_eq!(arguments.pod, Some(PodName { namespace: "ns".into(), name: "web".into() }));
        assert_eq!((attachment.container_id.as_str(), attachment.ifname.as_str()), ("c1", "eth0"));
    }

    #[test]
    fn commands_about_no_container_need_none() {
        assert_eq!(parse(&[("CNI_COMMAND", "VERSION")]).unwrap(), Environment::Version);
        assert_eq!(parse(&[("CNI_COMMAND", "GC")]).unwrap(), Environment::Gc);
        assert_eq!(parse(&[("CNI_COMMAND", "STATUS")]).unwrap(), Environment::Status);
    }

    #[test]
    fn del_needs_no_namespace() {
        let del = [
            ("CNI_COMMAND", "DEL"),
            ("CNI_CONTAINERID", "c"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_NETNS", ""),
            ("CNI_ARGS", "wrong"),
        ];
        assert!(matches!(parse(&del).unwrap(), Environment::Del(_)));
    }

    #[test]
    fn every_missing_variable_is_named() {
        let error = parse(&[]).unwrap_err();
        assert_eq!(error.code, Code::InvalidEnvironment);
        for name in ["CNI_COMMAND", "CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS"] {
            assert!(error.msg.contains(name), "{name} is missing from {}", error.msg);
        }
    }

    #[test]
    fn every_wrong_variable_is_named() {
        let long = "a".repeat(257);
        for (name, value) in [
            ("CNI_COMMAND", "UPDATE"),
            ("CNI_CONTAINERID", "../x"),
            ("CNI_CONTAINERID", long.as_str()),
            ("CNI_IFNAME", "a/b"),
            ("CNI_IFNAME", "sixteen-byte-nam"),
            ("CNI_IFNAME", "eth%d"),
            ("CNI_IFNAME", "all"),
            ("CNI_NETNS", "netns"),
            ("CNI_ARGS", "novalue"),
            ("CNI_ARGS", "IP=10.0.0"),
        ] {
            let error = parse(&with(name, value)).unwrap_err();
            assert_eq!(error.code, Code::InvalidEnvironment);
            assert!(error.msg.starts_with(name), "{name}={value}: {}", error.msg);
        }
        let error = Environment::parse(|_| Some(OsString::from_vec(vec![0xff]))).unwrap_err();
        assert!(error.msg.contains("not UTF-8"), "{error:?}");
    }
}
