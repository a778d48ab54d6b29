//! One TCP connection: made, read, written, closed.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::pending;
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ipnet::IpNet;
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use super::keys::Key;
use super::limits::Permit;
use super::signature::{self, AoKeys, Observer, Signed};
use super::{LINGER, sockopt};
use crate::ingress::Session;
use crate::ingress::ahead::{Piece, Reader};
use crate::protection::ao::KeyChain;
use crate::protection::{NO_ANSWER, Protection, Signature};
use crate::types::ConnectionId;

/// How long a dial may take: a peer that drops SYNs must not hold the FSM's next attempt for minutes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What one read takes at most. One buffer this large is alive for each read that the speaker has not handled yet.
const READ_MAX: usize = 16 * 1024;

/// How many buffers one write takes at most.
const SLICES_MAX: usize = 64;

/// How many changes of its keys a connection may have before it.
const ROLLOVERS_MAX: usize = 16;

/// What reaches the driver from the sockets.
#[derive(Debug)]
pub(super) enum Arrival {
    Listener { address: SocketAddr, state: Result<SocketAddr, String> },
    Accepted { stream: TcpStream, remote: SocketAddr, key: Option<Key> },
    KeyRefused { prefix: IpNet, error: String },
    Dialled { connection: ConnectionId, result: io::Result<Socket> },
    Read { connection: ConnectionId, pieces: Vec<Piece> },
    Closed { connection: ConnectionId, error: Option<String> },
}

/// How much connections have written that the driver has not heard of. Beside the arrivals, as it is taken in also while the driver is at
/// something long; a sum for each, as that is all that counts.
#[derive(Debug, Default)]
pub(super) struct Written {
    bytes: Mutex<BTreeMap<ConnectionId, usize>>,
    news: Notify,
}

impl Written {
    fn add(&self, connection: ConnectionId, bytes: usize) {
        let mut written = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let sum = written.entry(connection).or_default();
        *sum = sum.saturating_add(bytes);
        drop(written);
        self.news.notify_one();
    }

    /// Waits for news. Cancel safe.
    pub(super) async fn changed(&self) {
        self.news.notified().await;
    }

    /// What was written since it was taken last.
    pub(super) fn take(&self) -> BTreeMap<ConnectionId, usize> {
        std::mem::take(&mut *self.bytes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A connected socket.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) stream: TcpStream,
    /// With TCP-AO.
    pub(super) signed: Option<Signed>,
}

/// Opens a connection.
pub(super) async fn dial(
    source: Option<IpAddr>,
    remote: SocketAddr,
    protection: Protection,
) -> io::Result<Socket> {
    let ipv4 = remote.is_ipv4();
    let socket = if ipv4 { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    let ao = match &protection.signature {
        Some(Signature::Ao(keys)) => {
            Some(AoKeys::dial(&socket, remote.ip(), keys).map_err(io::Error::other)?)
        }
        Some(md5) => {
            signature::replace(&socket, remote.ip().into(), None, md5).map_err(io::Error::other)?;
            None
        }
        None => None,
    };
    if let Some(hops) = protection.ttl_security {
        sockopt::send_with_ttl_max(&socket, ipv4)?;
        sockopt::receive_from_within(&socket, ipv4, hops)?;
    }
    if let Some(source) = source {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    match timeout(CONNECT_TIMEOUT, socket.connect(remote)).await {
        Ok(result) => {
            let stream = result?;
            let signed = ao.map(|keys| Signed::new(&stream, keys)).transpose()?;
            Ok(Socket { stream, signed })
        }
        Err(_) => {
            let (seconds, why) = (CONNECT_TIMEOUT.as_secs(), protection.silence());
            let text = format!("{NO_ANSWER} within {seconds} s{why}");
            Err(io::Error::new(io::ErrorKind::TimedOut, text))
        }
    }
}

/// The driver's end of a connection task. Dropping it closes the connection gracefully: what is queued goes out, then FIN, and
/// after [`LINGER`] the socket is closed whatever the peer does.
#[derive(Debug)]
pub(super) struct Link {
    /// What to write, in order.
    pub(super) queue: mpsc::Sender<Bytes>,
    /// The TCP-AO keys that it is to have, one chain after the other: with each it goes on from the one before.
    pub(super) keys: mpsc::Sender<KeyChain>,
    /// Which of them it uses.
    pub(super) in_use: Observer,
    /// What a session on it has agreed on, once there is one: UPDATEs are decoded by the task from then on.
    pub(super) agreed: Arc<OnceLock<Arc<Session>>>,
    _open: oneshot::Sender<Infallible>,
}

/// The task's end.
#[derive(Debug)]
pub(super) struct Connection {
    id: ConnectionId,
    queue: mpsc::Receiver<Bytes>,
    keys: mpsc::Receiver<KeyChain>,
    agreed: Arc<OnceLock<Arc<Session>>>,
    closing: oneshot::Receiver<Infallible>,
    arrivals: mpsc::Sender<Arrival>,
    written: Arc<Written>,
    /// `None`: we dialled.
    _permit: Option<Permit>,
}

/// The two ends of a connection that may hold `queue_max` buffers.
pub(super) fn pair(
    id: ConnectionId,
    queue_max: usize,
    arrivals: mpsc::Sender<Arrival>,
    written: Arc<Written>,
    permit: Option<Permit>,
) -> (Link, Connection) {
    let (queue, queued) = mpsc::channel(queue_max);
    let (open, closing) = oneshot::channel();
    let (keys, wanted) = mpsc::channel(ROLLOVERS_MAX);
    let agreed = Arc::default();
    let link = Link { queue, keys, in_use: Observer::default(), agreed: Arc::clone(&agreed), _open: open };
    let _permit = permit;
    (link, Connection { id, queue: queued, keys: wanted, agreed, closing, arrivals, written, _permit })
}

impl Connection {
    /// Whether there is something to send though the driver has closed its end.
    pub(super) fn has_last_words(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Moves bytes both ways until both ways are closed. Reading and writing never wait for each other, so that two speakers
    /// that fill each other's buffers at once do not block for ever.
    pub(super) async fn run(self, socket: Socket) {
        let Socket { mut stream, signed } = socket;
        // Fails only on a socket that is dead already, which the first read tells.
        let _ = stream.set_nodelay(true);
        let Self { id, mut queue, keys, agreed, closing, arrivals, written, _permit } = self;
        let signing = sign(id, signed, keys, &arrivals);
        let (read, mut write) = stream.split();
        let (reading, read_to_the_end) = oneshot::channel::<Infallible>();
        let receiving = async {
            receive(id, read, &agreed, &arrivals).await;
            drop(reading);
        };
        let transmitting = async {
            let Err(error) = transmit(id, &mut write, &mut queue, &written).await else { return };
            // The peer's last words, a NOTIFICATION maybe, may have come before and not been read: the reader tells the end.
            if timeout(LINGER, read_to_the_end).await.is_err() {
                report(&arrivals, Arrival::Closed { connection: id, error: Some(error.to_string()) }).await;
            }
        };
        let lingering = async {
            let Err(_) = closing.await;
            sleep(LINGER).await;
        };
        tokio::select! {
            _ = async { tokio::join!(receiving, transmitting) } => {}
            () = lingering => {}
            () = signing => {}
        }
    }
}

/// Replaces TCP-AO keys as the driver asks for it; ends when that fails.
async fn sign(
    connection: ConnectionId,
    signed: Option<Signed>,
    mut wanted: mpsc::Receiver<KeyChain>,
    arrivals: &mpsc::Sender<Arrival>,
) {
    let Some(mut signed) = signed else { return pending().await };
    let mut first = signed.take_pending();
    let error = loop {
        let next = match first.take() {
            Some(keys) => Some(keys),
            None => wanted.recv().await,
        };
        let Some(keys) = next else { return pending().await };
        let rolled_over = spawn_blocking(move || signed.roll_over(&keys).map(|()| signed)).await;
        signed = match rolled_over {
            Ok(Ok(signed)) => signed,
            Ok(Err(error)) => break error,
            Err(error) => break error.to_string(),
        };
    };
    let error = Some(format!("it cannot go on with the peer's keys: {error}"));
    report(arrivals, Arrival::Closed { connection, error }).await;
}

/// Reads until FIN or an error. Goes on when nobody listens any more: closing a socket with unread bytes sends RST, which would
/// take our last words from the peer.
async fn receive(
    connection: ConnectionId,
    read: ReadHalf<'_>,
    agreed: &OnceLock<Arc<Session>>,
    arrivals: &mpsc::Sender<Arrival>,
) {
    let (mut reader, mut ahead) = (Reader::default(), false);
    let error = loop {
        if let Err(error) = read.readable().await {
            break Some(error);
        }
        // Only now: a connection that says nothing holds no buffer.
        let mut buffer = BytesMut::with_capacity(READ_MAX);
        match read.try_read_buf(&mut buffer) {
            Ok(0) => break None,
            Ok(_) => {
                if let Some(session) = agreed.get().filter(|_| !ahead) {
                    reader.begin(session);
                    ahead = true;
                }
                let pieces = reader.read(buffer.freeze());
                if !pieces.is_empty() {
                    report(arrivals, Arrival::Read { connection, pieces }).await;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => break Some(error),
        }
    };
    report(arrivals, Arrival::Closed { connection, error: error.map(|e| e.to_string()) }).await;
}

/// Writes what is queued until the queue is closed, then sends FIN.
async fn transmit(
    connection: ConnectionId,
    write: &mut WriteHalf<'_>,
    queue: &mut mpsc::Receiver<Bytes>,
    written: &Written,
) -> io::Result<()> {
    let mut batch = Vec::with_capacity(SLICES_MAX);
    while queue.recv_many(&mut batch, SLICES_MAX).await > 0 {
        let mut slices: Vec<_> = batch.iter().map(|b| IoSlice::new(b)).collect();
        let mut rest = slices.as_mut_slice();
        while !rest.is_empty() {
            let bytes = write.write_vectored(rest).await?;
            if bytes == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            IoSlice::advance_slices(&mut rest, bytes);
            written.add(connection, bytes);
        }
        batch.clear();
    }
    write.shutdown().await
}

/// Tells the driver; after its end nobody needs to know.
async fn report(arrivals: &mpsc::Sender<Arrival>, arrival: Arrival) {
    let _ = arrivals.send(arrival).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;
    use tokio::task::yield_now;

    /// Whether a session ended by a NOTIFICATION or by TCP is the difference between death and restart.
    #[tokio::test]
    async fn what_the_peer_said_before_a_reset_is_read_though_writing_fails_first() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        // A driver that is behind: one arrival fills its queue.
        let (arrivals, mut arrived) = mpsc::channel(1);
        let (link, connection) = pair(ConnectionId::Accepted(1), 8, arrivals, Arc::default(), None);
        let task = tokio::spawn(connection.run(Socket { stream, signed: None }));
        for word in ["first ", "second ", "last"] {
            peer.write_all(word.as_bytes()).await.unwrap();
            for _ in 0..100 {
                yield_now().await;
            }
        }
        socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
        drop(peer);
        link.queue.send(Bytes::from_static(b"to nobody")).await.unwrap();
        for _ in 0..100 {
            yield_now().await;
        }
        let mut heard = Vec::new();
        let mut open = Some(link);
        while let Some(arrival) =
            timeout(LINGER * 2, arrived.recv()).await.expect("the end of the connection")
        {
            match arrival {
                Arrival::Read { pieces, .. } if open.is_some() => {
                    heard.extend(pieces.into_iter().flat_map(|piece| match piece {
                        Piece::Bytes(bytes) => bytes,
                        Piece::Updates(updates) => panic!("{updates:?}"),
                    }));
                }
                Arrival::Closed { .. } => drop(open.take()),
                _ => {}
            }
        }
        task.await.unwrap();
        assert_eq!(String::from_utf8(heard).unwrap(), "first second last");
    }
}
