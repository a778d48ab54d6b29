//! The command line of `weftd`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser};
use hyper::Uri;

use crate::api::Duration;
use crate::kubernetes::server_url;
use crate::log::LogFormat;

/// Makes this node a router: announces its pod blocks with BGP and puts what it learns in the kernel.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "weftd",
    version,
    after_help = "SIGHUP reads the folder again. SIGTERM stops weftd and leaves its routes in the kernel; \
                  weftd --cleanup takes them away. The log level is set by the environment variable RUST_LOG."
)]
pub struct Args {
    /// The name of this node's Node document
    #[arg(long, required_unless_present_any = ["cleanup", "install_cni"])]
    pub node: Option<String>,

    /// The folder of *.yaml and *.yml documents that describe the network, in place of a Kubernetes API
    #[arg(long, value_name = "DIR", conflicts_with_all = ["kubeconfig", "api_server"])]
    pub manifests: Option<PathBuf>,

    /// How to reach the Kubernetes API; unless this or --manifests is given, as the pod's service account does
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Where the API server is, such as https://192.0.2.1:6443, in place of what the kubeconfig or the environment says
    #[arg(long, value_name = "URL", value_parser = server_url)]
    pub api_server: Option<Uri>,

    /// Where the socket, the lock and node.json live; must be on a tmpfs
    #[arg(long, value_name = "DIR", default_value = "/run/weft")]
    pub run_dir: PathBuf,

    /// Where weft-cni keeps the addresses of pods; must survive a reboot
    #[arg(long, value_name = "DIR", default_value = "/var/lib/weft")]
    pub state_dir: PathBuf,

    /// Where MRT files are written, should a BGPConfiguration ask for some [default: mrt in the directory of --state-dir]
    #[arg(long, value_name = "DIR")]
    pub mrt_dir: Option<PathBuf>,

    /// Where the container runtime keeps the results of its plugins (libcni)
    #[arg(long, value_name = "DIR", default_value = "/var/lib/cni/results")]
    pub cni_cache_dir: PathBuf,

    /// Where to write 10-weft.conflist, from which the container runtime learns that this node takes pods (in a cluster
    /// /etc/cni/net.d); with --cleanup, where to remove it. It is not written unless this is given
    #[arg(long, value_name = "DIR")]
    pub cni_conf_dir: Option<PathBuf>,

    /// Where the container runtime finds plugins: a portmap in there is chained behind weft-cni
    #[arg(long, value_name = "DIR", default_value = "/opt/cni/bin")]
    pub cni_bin_dir: PathBuf,

    /// How long a Node that is deleted from the Kubernetes API still counts, unless another has its addresses
    #[arg(long, value_name = "DURATION", default_value = "5m")]
    pub node_gone_grace: Duration,

    /// How long a pod's address must be missing before it is freed
    #[arg(long, value_name = "DURATION", default_value = "15m")]
    pub ipam_grace: Duration,

    /// Where kernel parameters can be written, should /proc/sys be read-only as in most containers
    #[arg(long, value_name = "DIR", default_value = "/proc/sys")]
    pub proc_sys: PathBuf,

    /// The root directory of the host, should this run in a container: /etc and /run below it tell which other programs manage the network
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub host_root: PathBuf,

    /// Where to serve /metrics, /healthz and /readyz
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9177")]
    pub metrics: SocketAddr,

    /// How to write the log
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = LogFormat::Text)]
    pub log: LogFormat,

    /// Take everything of Weft off this host, tell what it was, and end
    #[arg(long, conflicts_with_all = ["node", "manifests", "kubeconfig", "api_server"])]
    pub cleanup: bool,

    /// Put the plugin weft-cni, which lies beside this program, into this directory, and end
    #[arg(long, value_name = "DIR", conflicts_with_all = ["cleanup", "node", "manifests", "kubeconfig", "api_server"])]
    pub install_cni: Option<PathBuf>,
}

impl Args {
    /// Reads the command line; one that makes no sense ends the program with exit code 2 and the reason.
    pub(super) fn from_command_line() -> Self {
        let args = Self::parse();
        let named = args.manifests.is_some() || args.kubeconfig.is_some() || args.api_server.is_some();
        let ends = args.cleanup || args.install_cni.is_some();
        if !named && !ends && std::env::var_os(IN_CLUSTER).is_none() {
            let missing = "--manifests DIR or --kubeconfig FILE is needed: this is no pod of a cluster";
            Self::command().error(ErrorKind::MissingRequiredArgument, missing).exit();
        }
        args
    }
}

/// What every pod finds in its environment.
const IN_CLUSTER: &str = "KUBERNETES_SERVICE_HOST";
