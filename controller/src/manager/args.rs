//! The command line of `weft-controller`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;
use hyper::Uri;

use crate::api::Duration;
use crate::kubernetes::server_url;
use crate::log::LogFormat;

/// Gives blocks of the IPPools to the nodes, takes back what is nobody's, and writes the status of Weft's objects.
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
