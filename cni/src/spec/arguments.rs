//! `CNI_ARGS`: `KEY=value;KEY=value`.

use std::net::IpAddr;

use weft_routing::netlink::Mac;

use super::{PodName, asked};

/// What `CNI_ARGS` says to ADD.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Arguments {
    /// `K8S_POD_NAMESPACE` and `K8S_POD_NAME`, where both are given.
    pub pod: Option<PodName>,
    /// `IP`: addresses with commas between them, one of each family at most.
    pub addresses: Vec<IpAddr>,
    /// `MAC`.
    pub mac: Option<Mac>,
}

impl Arguments {
    /// Reads the variable's value. A key that is not known is an error, unless `IgnoreUnknown` is true: so
    /// the specification's own library has it, and runtimes set it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut arguments = Self::default();
        let (mut namespace, mut name) = (None, None);
        let (mut unknown, mut ignore_unknown) = (None, false);
        for pair in text.split(';').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').ok_or_else(|| format!("{pair:?} is not KEY=value"))?;
            let named = |reason| format!("{key}: {reason}");
            match key {
                "IgnoreUnknown" => ignore_unknown = parse_bool(value).map_err(named)?,
                _ if value.is_empty() => {}
                "K8S_POD_NAMESPACE" => namespace = Some(value.to_owned()),
                "K8S_POD_NAME" => name = Some(value.to_owned()),
                "IP" => arguments.addresses = asked::addresses(value.split(',')).map_err(named)?,
                "MAC" => arguments.mac = Some(asked::mac(value).map_err(named)?),
                _ if key.starts_with("K8S_POD_") => {}
                _ => unknown = unknown.or(Some(key)),
            }
        }
        if let Some(key) = unknown.filter(|_| !ignore_unknown) {
            return Err(format!("{key} is not known; IgnoreUnknown=1 lets such keys pass"));
        }
        arguments.pod = namespace.zip(name).map(|(namespace, name)| PodName { namespace, name });
        Ok(arguments)
    }
}

fn parse_bool(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err(format!("{text:?} is none of 1, true, 0, false")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kubernetes_sends() {
        let text = "IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=web;K8S_POD_INFRA_CONTAINER_ID=1;K8S_POD_UID=2;X=1";
        let pod = PodName { namespace: "ns".into(), name: "web".into() };
        let expected = Arguments { pod: Some(pod), ..Arguments::default() };
        assert_eq!(Arguments::parse(text).unwrap(), expected);
        assert_eq!(Arguments::parse("K8S_POD_NAME=web;").unwrap(), Arguments::default());
    }

    #[test]
    fn addresses_and_mac() {
        let arguments = Arguments::parse("IP=fd00::5,10.0.0.5/24;MAC=0a:58:0a:00:00:05").unwrap();
        let expected: [IpAddr; 2] = ["10.0.0.5".parse().unwrap(), "fd00::5".parse().unwrap()];
        assert_eq!(arguments.addresses, expected);
        assert_eq!(arguments.mac, Some([0x0a, 0x58, 0x0a, 0, 0, 5]));
        assert_eq!(Arguments::parse("IP=;MAC=").unwrap(), Arguments::default());
    }

    #[test]
    fn unknown_keys_pass_only_if_told_so() {
        for pass in ["1", "true", "TRUE"] {
            assert_eq!(Arguments::parse(&format!("X=1;IgnoreUnknown={pass}")).unwrap(), Arguments::default());
        }
        for (text, expected) in [
            ("X=1", "X is not known"),
            ("X=1;IgnoreUnknown=0", "X is not known"),
            ("IgnoreUnknown=yes", "IgnoreUnknown: \"yes\" is none of"),
            ("novalue", "\"novalue\" is not KEY=value"),
            ("IP=10.0.0", "IP: \"10.0.0\" is no IP address"),
            ("MAC=x", "MAC: \"x\" is no MAC address"),
        ] {
            let error = Arguments::parse(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
