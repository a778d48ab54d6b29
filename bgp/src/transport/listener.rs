//! Listening sockets.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use super::connection::Arrival;
use super::keys::{Keys, KeysInForce};
use super::sockopt;

/// Between two attempts to bind.
const RETRY: Duration = Duration::from_secs(1);

/// After an error of accept(2) that is not about one connection (no file descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections that the kernel keeps for us to accept.
const BACKLOG: i32 = 1024;

/// Binds, again until it succeeds, and accepts for ever.
pub(super) async fn run(
    address: SocketAddr,
    mut wanted: watch::Receiver<Keys>,
    arrivals: mpsc::Sender<Arrival>,
) {
    let Some((listener, mut keys)) = listen(address, &mut wanted, &arrivals).await else { return };
    let mut failing = false;
    loop {
        tokio::select! {
            Ok(()) = wanted.changed() => {
                let wanted = wanted.borrow_and_update().clone();
                let before = keys.clone();
                let refused = keys.put_in_force(&listener, &wanted);
                // Who waits to be accepted came under the keys of before.
                while let Ok((stream, remote)) = accept_waiting(&listener) {
                    let key = before.key(remote.ip());
                    if arrivals.send(Arrival::Accepted { stream, remote, key }).await.is_err() {
                        return;
                    }
                }
                if tell_refused(refused, &arrivals).await.is_err() {
                    return;
                }
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, remote)) => {
                    failing = false;
                    let key = keys.key(remote.ip());
                    if arrivals.send(Arrival::Accepted { stream, remote, key }).await.is_err() {
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
}

/// Binds, again until it succeeds. None: nobody is there any more to be told.
async fn listen(
    address: SocketAddr,
    wanted: &mut watch::Receiver<Keys>,
    arrivals: &mpsc::Sender<Arrival>,
) -> Option<(TcpListener, KeysInForce)> {
    let mut told = None;
    loop {
        let keys = wanted.borrow_and_update().clone();
        let (told_now, bound) =
            match bind(address, &keys).and_then(|bound| Ok((bound.0.local_addr()?, bound))) {
                Ok((local, bound)) => (Ok(local), Some(bound)),
                Err(error) => (Err(error.to_string()), None),
            };
        if told.as_ref() != Some(&told_now) {
            arrivals.send(Arrival::Listener { address, state: told_now.clone() }).await.ok()?;
            told = Some(told_now);
        }
        match bound {
            Some((listener, keys, refused)) => {
                tell_refused(refused, arrivals).await.ok()?;
                return Some((listener, keys));
            }
            None => sleep(RETRY).await,
        }
    }
}

type Refused = Vec<(IpNet, String)>;

async fn tell_refused(
    refused: Refused,
    arrivals: &mpsc::Sender<Arrival>,
) -> Result<(), mpsc::error::SendError<Arrival>> {
    for (prefix, error) in refused {
        arrivals.send(Arrival::KeyRefused { prefix, error }).await?;
    }
    Ok(())
}

/// A connection that the kernel has ready, whatever the runtime has heard of it yet.
fn accept_waiting(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let (socket, remote) = SockRef::from(listener).accept()?;
    socket.set_nonblocking(true)?;
    let remote = remote.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
    Ok((TcpStream::from_std(socket.into())?, remote))
}

/// A socket that listens, and has had its keys before it did.
fn bind(address: SocketAddr, wanted: &Keys) -> io::Result<(TcpListener, KeysInForce, Refused)> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // Else the IPv4 socket of the same port could not be bound, and IPv4 peers would come as ::ffff:a.b.c.d.
        socket.set_only_v6(true)?;
    }
    // The SYN-ACK to a peer with GTSM, which may be any, is the listener's.
    sockopt::send_with_ttl_max(&socket, address.is_ipv4())?;
    sockopt::save_syn(&socket)?;
    let mut keys = KeysInForce::new(address.is_ipv4());
    let refused = keys.put_in_force(&socket, wanted);
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok((TcpListener::from_std(socket.into())?, keys, refused))
}
