//! HTTP/1.1 over the daemon's unix socket.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use super::Failure;

/// How long a daemon may take to accept the connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a daemon may take for a whole answer. Longer than the daemon's own long poll of events.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// No answer is longer: a full Internet table of both families with several paths fits.
const ANSWER_LIMIT: usize = 4 << 30;

/// One daemon, asked one thing at a time; each question is a connection of its own.
#[derive(Debug)]
pub(super) struct Client {
    runtime: Runtime,
    socket: PathBuf,
}

/// What the daemon sends with any status but 200.
#[derive(Deserialize)]
struct ErrorBody {
    error: String,
}

impl Client {
    /// A client for the daemon behind this socket. Nothing is sent yet.
    pub(super) fn connect(socket: &Path) -> Result<Self, Failure> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::Unreachable(format!("cannot start the event loop: {error}")))?;
        Ok(Self { runtime, socket: socket.to_owned() })
    }

    /// Gets and reads one document.
    ///
    /// # Errors
    /// [`Failure::Usage`] for a question that the daemon calls malformed (400), [`Failure::NotFound`] for 404,
    /// [`Failure::Refused`] for 409, and [`Failure::Unreachable`] for everything else.
    pub(super) fn get<T: DeserializeOwned>(&mut self, path_and_query: &str) -> Result<T, Failure> {
        self.exchange(path_and_query, Request::get(path_and_query).body(Full::default()))
    }

    /// Posts one document, and reads the answer.
    ///
    /// # Errors
    /// See [`Client::get`].
    pub(super) fn post<T: DeserializeOwned>(
        &mut self,
        path: &str,
        document: &impl Serialize,
    ) -> Result<T, Failure> {
        let body = serde_json::to_vec(document)
            .map_err(|error| Failure::Usage(format!("cannot write the question: {error}")))?;
        let request = Request::post(path).header(CONTENT_TYPE, "application/json");
        self.exchange(path, request.body(Full::from(body)))
    }

    /// Gets something that is written down as it comes.
    ///
    /// # Errors
    /// See [`Client::get`]; and [`Failure::Output`].
    pub(super) fn download(&mut self, path: &str, out: &mut dyn Write) -> Result<(), Failure> {
        let request = request_for(path, Request::get(path).body(Full::default()))?;
        self.runtime.block_on(async {
            let mut response = timeout(ANSWER_TIMEOUT, send(&self.socket, request))
                .await
                .map_err(|_| unreachable(&self.socket, "no answer from", &"timed out"))??;
            if response.status() != StatusCode::OK {
                let (status, body) = collect(&self.socket, response).await?;
                return Err(failure(status, &body));
            }
            // There is no telling how long all of it takes.
            while let Some(frame) = timeout(ANSWER_TIMEOUT, response.body_mut().frame())
                .await
                .map_err(|_| unreachable(&self.socket, "no more of the answer from", &"timed out"))?
            {
                let frame = frame.map_err(|e| unreachable(&self.socket, "the answer broke off from", &e))?;
                if let Some(piece) = frame.data_ref() {
                    out.write_all(piece)?;
                }
            }
            Ok(())
        })
    }

    fn exchange<T: DeserializeOwned>(
        &mut self,
        path_and_query: &str,
        request: hyper::http::Result<Request<Full<Bytes>>>,
    ) -> Result<T, Failure> {
        let request = request_for(path_and_query, request)?;
        let answer = async { collect(&self.socket, send(&self.socket, request).await?).await };
        let (status, body) = self.runtime.block_on(async {
            let timed_out = |_| unreachable(&self.socket, "no answer from", &"timed out");
            timeout(ANSWER_TIMEOUT, answer).await.map_err(timed_out)?
        })?;
        if status == StatusCode::OK {
            return serde_json::from_slice(&body).map_err(|error| {
                Failure::Unreachable(format!(
                    "the daemon's answer to {path_and_query} is not understood: {error}"
                ))
            });
        }
        Err(failure(status, &body))
    }
}

/// What the daemon means by a status other than 200.
fn failure(status: StatusCode, body: &[u8]) -> Failure {
    let text = serde_json::from_slice(body).map_or_else(|_| status.to_string(), |e: ErrorBody| e.error);
    match status {
        StatusCode::BAD_REQUEST => Failure::Usage(text),
        StatusCode::NOT_FOUND => Failure::NotFound(text),
        StatusCode::CONFLICT => Failure::Refused(text),
        _ => Failure::Unreachable(format!("the daemon answered {status}: {text}")),
    }
}

fn request_for(
    path_and_query: &str,
    request: hyper::http::Result<Request<Full<Bytes>>>,
) -> Result<Request<Full<Bytes>>, Failure> {
    let mut request =
        request.map_err(|error| Failure::Usage(format!("cannot ask for {path_and_query}: {error}")))?;
    request.headers_mut().insert(HOST, HeaderValue::from_static("weft"));
    Ok(request)
}

fn unreachable(socket: &Path, what: &str, why: &dyn std::fmt::Display) -> Failure {
    Failure::Unreachable(format!(
        "{what} {}: {why}\nIs weftd running on this node, with the same run directory? (--socket names another one.)",
        socket.display()
    ))
}

async fn send(socket: &Path, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Failure> {
    let stream = timeout(CONNECT_TIMEOUT, UnixStream::connect(socket))
        .await
        .map_err(|_| unreachable(socket, "no answer from", &"timed out"))?
        .map_err(|error| unreachable(socket, "cannot connect to", &error))?;
    let (mut sender, connection) = http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream))
        .await
        .map_err(|error| unreachable(socket, "cannot speak HTTP with", &error))?;
    // Ends with the answer, or with the runtime; its errors also come out of the request.
    tokio::spawn(connection);
    sender.send_request(request).await.map_err(|e| unreachable(socket, "no answer from", &e))
}

async fn collect(socket: &Path, response: Response<Incoming>) -> Result<(StatusCode, Bytes), Failure> {
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_LIMIT).collect().await;
    Ok((status, body.map_err(|e| unreachable(socket, "the answer broke off from", &e))?.to_bytes()))
}

/// Percent-encodes one query value (RFC 3986 section 2.1).
pub(super) fn encode(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            use std::fmt::Write;
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::encode;

    #[test]
    fn query_values_are_encoded() {
        assert_eq!(encode("10.0.0.0/8"), "10.0.0.0%2F8");
        assert_eq!(encode("2001:db8::1&peer=x"), "2001%3Adb8%3A%3A1%26peer%3Dx");
    }
}
