//! Traffic between namespaces, and what its receivers see.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};

use crate::netns::{Namespace, family_flag};
use crate::process::{Finished, SHORT};
use crate::wait::{now, wait_until};

/// How long one packet may take through a lab.
const PATIENCE: Duration = Duration::from_secs(2);

/// How many octets may wait at an end of a flow: seconds of datagrams, so that a busy machine that lets the reader wait loses none.
const RECEIVE_BUFFER: usize = 16 << 20;

/// How long the last answers may take.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// The octets of one piece of a stream, and how long one may take there and back.
const PIECE: usize = 4096;
const STREAM_PATIENCE: Duration = Duration::from_secs(10);

/// Between two pieces: a stream leaves the processor to those that are watched.
const PIECES_PAUSE: Duration = Duration::from_millis(1);

/// Bytes enough for several segments: what only works for small packets shows.
const PAYLOAD: usize = 64 * 1024;

/// The address that stands for all of a family.
fn any(family: IpAddr) -> IpAddr {
    if family.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

/// Opens a TCP connection from one namespace to `server` in another, passes some 64 KiB through it and back, and returns the client's
/// address as the server sees it.
///
/// # Errors
/// If no connection comes about or the bytes do not come back.
pub fn tcp(from: &Namespace, to: &Namespace, server: IpAddr) -> Result<IpAddr> {
    let listener = to
        .run(|| TcpListener::bind((server, 0)))?
        .with_context(|| format!("{}: cannot listen on {server}", to.label()))?;
    let address = listener.local_addr()?;
    let echo = thread::spawn(move || echo_once(&listener));
    let sent = from.run(|| -> Result<()> {
        let mut client = TcpStream::connect_timeout(&address, PATIENCE)?;
        client.set_read_timeout(Some(PATIENCE))?;
        client.set_write_timeout(Some(PATIENCE))?;
        let payload = vec![0x5a; PAYLOAD];
        client.write_all(&payload)?;
        let mut back = vec![0; PAYLOAD];
        client.read_exact(&mut back)?;
        ensure!(back == payload, "other bytes came back");
        Ok(())
    });
    let seen = echo.join().map_err(|_| anyhow!("the server panicked"))?;
    sent.and_then(|inner| inner)
        .with_context(|| format!("TCP from {} to {} at {server}", from.label(), to.label()))?;
    seen
}

fn echo_once(listener: &TcpListener) -> Result<IpAddr> {
    listener.set_nonblocking(true)?;
    let (mut stream, peer) = wait_until("a connection", PATIENCE, || Ok(listener.accept()?))?;
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut bytes = vec![0; PAYLOAD];
    stream.read_exact(&mut bytes)?;
    stream.write_all(&bytes)?;
    Ok(peer.ip())
}

/// Sends a datagram of `size` bytes from one namespace to `server` in another and back, and returns the client's address as the
/// server sees it.
///
/// # Errors
/// If it does not arrive or the answer does not come back.
pub fn udp(from: &Namespace, to: &Namespace, server: IpAddr, size: usize) -> Result<IpAddr> {
    let receiver = to
        .run(|| UdpSocket::bind((server, 0)))?
        .with_context(|| format!("{}: cannot bind {server}", to.label()))?;
    receiver.set_read_timeout(Some(PATIENCE))?;
    let what = || format!("UDP of {size} bytes from {} to {} at {server}", from.label(), to.label());
    let client = from.run(|| UdpSocket::bind((any(server), 0)))??;
    client.set_read_timeout(Some(PATIENCE))?;
    client.send_to(&vec![0x5a; size], receiver.local_addr()?).with_context(what)?;
    let mut buffer = vec![0; size + 1];
    let (length, peer) = receiver.recv_from(&mut buffer).with_context(what)?;
    ensure!(length == size, "{}: {length} bytes arrived", what());
    receiver.send_to(buffer.get(..length).unwrap_or_default(), peer)?;
    let (_, answerer) = client.recv_from(&mut buffer).with_context(|| format!("the answer to {}", what()))?;
    ensure!(answerer.ip() == server, "{}: {answerer} answered", what());
    Ok(peer.ip())
}

/// One ping.
///
/// # Errors
/// If no answer comes.
pub fn ping(from: &Namespace, to: IpAddr) -> Result<()> {
    ping_with(from, to, "-c 1 -W 1")?
        .success()
        .with_context(|| format!("{} does not reach {to}", from.label()))?;
    Ok(())
}

/// `ping` with the given flags, whatever comes of it.
///
/// # Errors
/// If it cannot be started or does not end.
pub fn ping_with(from: &Namespace, to: IpAddr, flags: &str) -> Result<Finished> {
    from.exec(&format!("ping {} -n {flags} {to}", family_flag(to)), SHORT)
}

/// The addresses that answer on the way, as traceroute sees them; a hop that is silent is left out.
///
/// # Errors
/// If traceroute does not run.
pub fn traceroute(from: &Namespace, to: IpAddr) -> Result<Vec<IpAddr>> {
    let said =
        from.exec(&format!("traceroute {} -n -q 1 -w 1 -m 12 {to}", family_flag(to)), SHORT)?.success()?;
    let hops = said.stdout.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1)?.parse().ok());
    Ok(hops.collect())
}

/// What became of some flows.
#[derive(Clone, Copy, Debug)]
pub struct FlowReport {
    /// Datagrams sent.
    pub sent: u64,
    /// Datagrams that were not answered.
    pub lost: u64,
    /// The longest time in which some one flow got no answer.
    pub longest_gap: Duration,
}

/// UDP flows with ports of their own, so that they spread over equal paths, each a datagram every few milliseconds to a server that
/// answers.
#[derive(Debug)]
pub struct Flows {
    stop: Arc<AtomicBool>,
    servers: Vec<JoinHandle<Result<()>>>,
    client: JoinHandle<Result<FlowReport>>,
}

impl Flows {
    /// Starts `count` flows from one namespace to `server` in another, each with a datagram every `interval`.
    ///
    /// # Errors
    /// If the sockets cannot be opened.
    pub fn start(
        from: &Namespace,
        to: &Namespace,
        server: IpAddr,
        count: usize,
        interval: Duration,
    ) -> Result<Self> {
        Self::start_anycast(from, &[to], server, count, interval)
    }

    /// The same to an address that all of `to` have: whoever of them gets a datagram answers it.
    ///
    /// # Errors
    /// If the sockets cannot be opened.
    pub fn start_anycast(
        from: &Namespace,
        to: &[&Namespace],
        server: IpAddr,
        count: usize,
        interval: Duration,
    ) -> Result<Self> {
        let mut receivers = Vec::new();
        let mut address = SocketAddr::new(server, 0);
        for to in to {
            let receiver = to.run(|| UdpSocket::bind(address))??;
            setsockopt(&receiver, RcvBufForce, &RECEIVE_BUFFER)?;
            address = receiver.local_addr()?;
            receivers.push(receiver);
        }
        let sockets: Vec<UdpSocket> = from.run(|| {
            (0..count)
                .map(|_| {
                    let socket = UdpSocket::bind((any(server), 0))?;
                    setsockopt(&socket, RcvBufForce, &RECEIVE_BUFFER)?;
                    socket.connect(address)?;
                    socket.set_nonblocking(true)?;
                    Ok(socket)
                })
                .collect::<std::io::Result<_>>()
        })??;
        let stop = Arc::new(AtomicBool::new(false));
        let serve = |receiver: UdpSocket| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || answer(&receiver, &stop))
        };
        let servers = receivers.into_iter().map(serve).collect();
        let stop_client = Arc::clone(&stop);
        let client = thread::spawn(move || send(sockets, interval, &stop_client));
        Ok(Self { stop, servers, client })
    }

    /// Stops them and waits for the last answers.
    ///
    /// # Errors
    /// If a socket failed in a way that is no lost packet.
    pub fn stop(self) -> Result<FlowReport> {
        self.stop.store(true, Ordering::Relaxed);
        let report = self.client.join().map_err(|_| anyhow!("the sender of the flows panicked"))?;
        for server in self.servers {
            server.join().map_err(|_| anyhow!("a server of the flows panicked"))??;
        }
        report
    }
}

/// What became of a stream.
#[derive(Clone, Copy, Debug)]
pub struct StreamReport {
    /// Pieces that went to the server and came back.
    pub pieces: u64,
    /// The longest that one of them took.
    pub longest: Duration,
}

/// One TCP connection, by which piece after piece goes to a server and back.
#[derive(Debug)]
pub struct Stream {
    stop: Arc<AtomicBool>,
    server: JoinHandle<Result<()>>,
    client: JoinHandle<Result<StreamReport>>,
}

impl Stream {
    /// Opens it from one namespace to `server` in another.
    ///
    /// # Errors
    /// If no connection comes about.
    pub fn start(from: &Namespace, to: &Namespace, server: IpAddr) -> Result<Self> {
        let listener = to.run(|| TcpListener::bind((server, 0)))??;
        let address = listener.local_addr()?;
        let client = from.run(|| TcpStream::connect_timeout(&address, PATIENCE))??;
        let (served, _) = listener.accept()?;
        for stream in [&client, &served] {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(STREAM_PATIENCE))?;
            stream.set_write_timeout(Some(STREAM_PATIENCE))?;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let stop_client = Arc::clone(&stop);
        let server = thread::spawn(move || echo(served));
        let client = thread::spawn(move || exchange(client, &stop_client));
        Ok(Self { stop, server, client })
    }

    /// Ends it.
    ///
    /// # Errors
    /// If it was reset, stood still, or brought other bytes back than went.
    pub fn stop(self) -> Result<StreamReport> {
        self.stop.store(true, Ordering::Relaxed);
        let report = self.client.join().map_err(|_| anyhow!("the client of the stream panicked"))?;
        self.server.join().map_err(|_| anyhow!("the server of the stream panicked"))??;
        report
    }
}

fn echo(mut stream: TcpStream) -> Result<()> {
    let mut piece = [0; PIECE];
    loop {
        match stream.read(&mut piece)? {
            0 => return Ok(()),
            length => stream.write_all(piece.get(..length).unwrap_or_default())?,
        }
    }
}

fn exchange(mut stream: TcpStream, stop: &AtomicBool) -> Result<StreamReport> {
    let mut report = StreamReport { pieces: 0, longest: Duration::ZERO };
    while !stop.load(Ordering::Relaxed) {
        let sent_at = now();
        let sent = [u8::try_from(report.pieces % 251)?; PIECE];
        let mut back = [0; PIECE];
        stream.write_all(&sent)?;
        stream.read_exact(&mut back)?;
        ensure!(sent == back, "other bytes came back in piece {}", report.pieces);
        report.pieces += 1;
        report.longest = report.longest.max(sent_at.elapsed());
        thread::sleep(PIECES_PAUSE);
    }
    Ok(report)
}

/// Answers until it is told to stop and nothing has come for a while.
fn answer(socket: &UdpSocket, stop: &AtomicBool) -> Result<()> {
    socket.set_read_timeout(Some(Duration::from_millis(300)))?;
    let mut buffer = [0; 64];
    loop {
        match socket.recv_from(&mut buffer) {
            Ok((length, peer)) => {
                // No route back is a lost answer, which the sender counts.
                let _ = socket.send_to(buffer.get(..length).unwrap_or_default(), peer);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if stop.load(Ordering::Relaxed) {
                    return Ok(());
                }
            }
            // An ICMP error about an earlier answer.
            Err(error) if is_lost(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// What a socket says when ICMP told it that a packet did not arrive: a loss, not a failure of the probe.
fn is_lost(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock
            | ErrorKind::ConnectionRefused
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
    )
}

struct Flow {
    socket: UdpSocket,
    sent: u64,
    answered: u64,
    /// The number of the last datagram that was answered.
    last: u64,
    last_answer: Instant,
    longest_gap: Duration,
}

impl Flow {
    fn receive(&mut self) -> Result<()> {
        let mut buffer = [0; 64];
        loop {
            match self.socket.recv(&mut buffer) {
                Ok(_) => {
                    let now = now();
                    self.answered += 1;
                    self.last = self.last.max(number(&buffer));
                    self.longest_gap = self.longest_gap.max(now - self.last_answer);
                    self.last_answer = now;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if is_lost(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The number of a datagram, which its first octets carry.
fn number(datagram: &[u8; 64]) -> u64 {
    datagram.first_chunk().map_or(0, |number| u64::from_be_bytes(*number))
}

fn send(sockets: Vec<UdpSocket>, interval: Duration, stop: &AtomicBool) -> Result<FlowReport> {
    let start = now();
    let mut flows: Vec<Flow> = sockets
        .into_iter()
        .map(|socket| Flow {
            socket,
            sent: 0,
            answered: 0,
            last: 0,
            last_answer: start,
            longest_gap: Duration::ZERO,
        })
        .collect();
    while !stop.load(Ordering::Relaxed) {
        for flow in &mut flows {
            flow.sent += 1;
            // A failed send is a datagram without an answer.
            let _ = flow.socket.send(&flow.sent.to_be_bytes());
        }
        thread::sleep(interval);
        flows.iter_mut().try_for_each(Flow::receive)?;
    }
    let end = now() + LAST_ANSWERS;
    while now() < end && flows.iter().any(|flow| flow.last < flow.sent) {
        thread::sleep(interval);
        flows.iter_mut().try_for_each(Flow::receive)?;
    }
    let end = now();
    let gap = |flow: &Flow| {
        let silent_to_the_end =
            if flow.answered < flow.sent { end - flow.last_answer } else { Duration::ZERO };
        flow.longest_gap.max(silent_to_the_end)
    };
    Ok(FlowReport {
        sent: flows.iter().map(|flow| flow.sent).sum(),
        lost: flows.iter().map(|flow| flow.sent.saturating_sub(flow.answered)).sum(),
        longest_gap: flows.iter().map(gap).max().unwrap_or_default(),
    })
}
