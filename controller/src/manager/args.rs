//! The command line of `weft-controller`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{ArgAction, Parser};
use hyper::Uri;

use crate::api::Duration;
use crate::kubernetes::server_url;
use crate::log::LogFormat;

/// Gives blocks of the IPPools to the nodes and addresses to Services, takes back what is nobody's, and writes the status of Weft's objects.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "weft-controller",
    version,
    after_help = "Of several that run, one works: the holder of the Lease weft-controller. The log level is set by the environment \
                  variable RUST_LOG."
)]
pub(super) struct Args {
    /// How to reach the Kubernetes API; unless given, as the pod's service account does
    #[arg(long, value_name = "FILE")]
    pub(super) kubeconfig: Option<PathBuf>,

    /// Where the API server is, such as https://192.0.2.1:6443, in place of what the kubeconfig or the environment says
    #[arg(long, value_name = "URL", value_parser = server_url)]
    pub(super) api_server: Option<Uri>,

    /// The namespace of the Lease
    #[arg(long, value_name = "NAMESPACE", default_value = "weft-system")]
    pub(super) namespace: String,

    /// How long a Node must be gone before its blocks are given to others
    #[arg(long, value_name = "DURATION", default_value = "15m")]
    pub(super) garbage_grace: Duration,

    /// The spec.loadBalancerClass of the Services that get addresses of the IPPools
    #[arg(long, value_name = "CLASS", default_value = "weft.network/weft", value_parser = load_balancer_class)]
    pub(super) load_balancer_class: String,

    /// Whether Services of type LoadBalancer that name no class get addresses too
    #[arg(long, value_name = "BOOLEAN", default_value_t = true, action = ArgAction::Set)]
    pub(super) default_load_balancer: bool,

    /// Where to serve /metrics and /healthz
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9178")]
    pub(super) metrics: SocketAddr,

    /// How to write the log
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = LogFormat::Text)]
    pub(super) log: LogFormat,
}

impl Args {
    /// Reads the command line; one that makes no sense ends the program with exit code 2 and the reason.
    pub(super) fn from_command_line() -> Self {
        Self::parse()
    }
}

/// As Kubernetes takes it: a label's name with a prefix.
fn load_balancer_class(text: &str) -> Result<String, String> {
    let fits = |part: &str| {
        let end = |c: char| c.is_ascii_alphanumeric();
        part.starts_with(end)
            && part.ends_with(end)
            && part.len() <= 63
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    match text.split_once('/') {
        Some((prefix, name)) if fits(prefix) && fits(name) => Ok(text.to_owned()),
        _ => Err("write a name with a prefix, such as weft.network/weft".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_services_are_ours_can_be_said() {
        let parse = |args: &[&str]| Args::try_parse_from([&["weft-controller"], args].concat());
        let args = parse(&[]).unwrap();
        assert_eq!(
            (args.load_balancer_class.as_str(), args.default_load_balancer),
            ("weft.network/weft", true)
        );
        let args =
            parse(&["--load-balancer-class", "example.org/a", "--default-load-balancer=false"]).unwrap();
        assert_eq!((args.load_balancer_class.as_str(), args.default_load_balancer), ("example.org/a", false));
        for wrong in ["weft", "/weft", "a/b/c", "a/b c"] {
            let error = parse(&["--load-balancer-class", wrong]).unwrap_err().to_string();
            assert!(error.contains("such as weft.network/weft"), "{error}");
        }
    }
}
