//! How the API server is reached, and as whom.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use hyper::Uri;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ConfigExt as _};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tower::{BoxError, ServiceBuilder};

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(5);
/// A connection on which nothing comes is tried after the first time, and again each second time; after as many tries without an answer it is
/// dead. A watch of a server that lost its power would else wait for minutes.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(6), Duration::from_secs(3), 3);
/// How long the head of an answer may take, of a watch's too: what comes after it has no end.
const ANSWER: Duration = Duration::from_secs(30);
/// How long what was sent may go without an answer of the peer's TCP.
const UNANSWERED: Duration = Duration::from_secs(15);

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
    client(&config, ANSWER).context("cannot make a client of the API server")
}

/// A client that notices when a server has gone without a word, or says none within `patience`.
pub(super) fn client(config: &Config, patience: Duration) -> Result<Client> {
    if let Some(proxy) = &config.proxy_url {
        bail!(
            "the API server cannot be reached by a proxy ({proxy}): take proxy-url out of the kubeconfig, or HTTPS_PROXY out of the environment"
        );
    }
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT));
    let (idle, interval, retries) = KEEPALIVE;
    connector.set_keepalive(Some(idle));
    connector.set_keepalive_interval(Some(interval));
    connector.set_keepalive_retries(Some(retries));
    connector.set_tcp_user_timeout(Some(UNANSWERED));
    let https = config.rustls_https_connector_with_connector(connector)?;
    let service = ServiceBuilder::new()
        .timeout(patience)
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(HttpClient::builder(TokioExecutor::new()).build::<_, Body>(https));
    Ok(Client::new(service, config.default_namespace.clone()))
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
        let mut config = Config::new("https://192.0.2.1:6443".parse().unwrap());
        config.proxy_url = Some("http://192.0.2.9:3128".parse().unwrap());
        let error = client(&config, ANSWER).err().unwrap();
        assert!(format!("{error:#}").contains("proxy-url"), "{error:#}");
    }

    #[tokio::test]
    async fn who_takes_a_connection_and_says_nothing_is_not_waited_for() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", silent.local_addr().unwrap()).parse().unwrap();
        let client = client(&Config::new(url), Duration::from_millis(100)).unwrap();
        let answer = tokio::time::timeout(ANSWER, client.apiserver_version()).await;
        assert!(answer.expect("it gives up").is_err());
    }
}
