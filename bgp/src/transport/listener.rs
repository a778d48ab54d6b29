//! Listening sockets.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::connection::Arrival;

/// Between two attempts to bind.
const RETRY: Duration = Duration::from_secs(1);

/// After an error of accept(2) that is not about one connection (no file descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections that the kernel keeps for us to accept.
const BACKLOG: i32 = 1024;

/// Binds, again until it succeeds, and accepts for ever.
pub(super) async fn run(address: SocketAddr, arrivals: mpsc::Sender<Arrival>) {
    let mut told = None;
    let listener = loop {
        let state = bind(address).and_then(|l| Ok((l.local_addr()?, l)));
        let (told_now, bound) = match state {
            Ok((local, listener)) => (Ok(local), Some(listener)),
            Err(error) => (Err(error.to_string()), None),
        };
        if told.as_ref() != Some(&told_now) {
            if arrivals.send(Arrival::Listener { address, state: told_now.clone() }).await.is_err() {
                return;
            }
            told = Some(told_now);
        }
        match bound {
            Some(listener) => break listener,
            None => sleep(RETRY).await,
        }
    };
    let mut failing = false;
    loop {
        match listener.accept().await {
            Ok((stream, remote)) => {
                failing = false;
                if arrivals.send(Arrival::Accepted { stream, remote }).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%address, %error, "cannot accept BGP connections; trying on");
                }
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // Else the IPv4 socket of the same port could not be bound, and IPv4 peers would come as ::ffff:a.b.c.d.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}
