//! How the API server is reached, and as whom.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use hyper::Uri;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(5);

/// Where the API server is, and who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Access {
    /// A kubeconfig; without one, the pod's service account.
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The server's URL, in place of the one that is given there.
    pub(crate) api_server: Option<Uri>,
}

/// Makes a client. Nothing is sent yet.
///
/// # Errors
/// A kubeconfig that cannot be read or lacks something, or no service account.
pub(crate) async fn connect(access: &Access) -> Result<Client> {
    let mut config = match (&access.kubeconfig, &access.api_server) {
        (Some(file), _) => {
            let kubeconfig = Kubeconfig::read_from(file)
                .with_context(|| format!("cannot use the kubeconfig {}", file.display()))?;
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
                .await
                .with_context(|| format!("cannot use the kubeconfig {}", file.display()))?
        }
        // The name of the service is put aside below, and never looked up: there may be no DNS yet.
        (None, Some(_)) => Config::incluster_dns().context(SERVICE_ACCOUNT)?,
        (None, None) => Config::incluster_env().context(SERVICE_ACCOUNT)?,
    };
    if let Some(api_server) = &access.api_server {
        config.cluster_url = api_server.clone();
    }
    config.connect_timeout = Some(CONNECT);
    config.default_retry = false;
    Client::try_from(config).context("cannot make a client of the API server")
}

/// Reads where an API server is, as the command line has it.
///
/// # Errors
/// What is wrong with it, and what would be right.
pub(crate) fn server_url(text: &str) -> Result<Uri, String> {
    let uri: Uri = text.parse().map_err(|error| format!("{error}"))?;
    match (uri.scheme_str(), uri.host()) {
        (Some("https" | "http"), Some(_)) => Ok(uri),
        _ => Err("write a URL with scheme and host, such as https://192.0.2.1:6443".to_owned()),
    }
}

const SERVICE_ACCOUNT: &str = "there is no service account of a pod here; outside of a cluster name documents with --manifests \
                               or a kubeconfig with --kubeconfig";

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_wrong_is_said() {
        let kubeconfig = Some(PathBuf::from("/nonexistent/kubeconfig"));
        let error = connect(&Access { kubeconfig, api_server: None }).await.err().unwrap();
        assert!(format!("{error:#}").contains("/nonexistent/kubeconfig"), "{error:#}");
        let error = connect(&Access::default()).await.err().unwrap();
        assert!(format!("{error:#}").contains("--kubeconfig"), "{error:#}");
    }
}
