//! A monitoring station of BMP (RFC 7854), and tshark to read what it is told: of the protocol it knows itself where a message ends.

use std::fmt::Write as _;
use std::io::{ErrorKind, Read as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::lab::Lab;
use crate::netns::Namespace;
use crate::process::{SHORT, foreign_program, run};

/// Between two looks at the sockets.
const POLL: Duration = Duration::from_millis(10);

/// Octets before the body of a message: version, length and type.
const HEADER: usize = 6;

/// The port that tshark is told to read BMP on.
const PORT: u16 = 11019;

/// Fields of tshark's, one a column.
const FIELDS: [&str; 21] = [
    "bmp.type",
    "bmp.peer.type",
    "bmp.peer.flags",
    "bmp.peer.ip.addr",
    "bmp.peer.asn",
    "bmp.peer.id",
    "bgp.nlri_prefix",
    "bgp.mp_reach_nlri_ipv6_prefix",
    "bgp.withdrawn_prefix",
    "bgp.mp_unreach_nlri_ipv6_prefix",
    "bgp.prefix_length",
    "bgp.update.path_attribute.origin",
    "bgp.update.path_attribute.as_path_segment.as4",
    "bgp.update.path_attribute.next_hop",
    "bgp.update.path_attribute.mp_reach_nlri.next_hop.ipv6",
    "bgp.update.path_attribute.community_as",
    "bmp.peer.down.reason",
    "bmp.init.info",
    "bmp.stats.type",
    "_ws.expert.severity",
    "_ws.expert.message",
];

/// A station that keeps what it hears on its last connection. It ends, and its sockets with it, when it is dropped.
#[derive(Debug)]
pub struct Station {
    heard: Arc<Mutex<Heard>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Heard {
    connections: usize,
    bytes: Vec<u8>,
}

impl Station {
    /// Listens in a namespace.
    ///
    /// # Errors
    /// If the address is not to be had.
    pub fn listen(namespace: &Namespace, address: SocketAddr) -> Result<Self> {
        let listener = namespace.run(|| TcpListener::bind(address))?;
        let listener = listener.with_context(|| format!("cannot listen on {address}"))?;
        listener.set_nonblocking(true)?;
        let (heard, stop) = (Arc::<Mutex<Heard>>::default(), Arc::<AtomicBool>::default());
        let (keeps, stops) = (Arc::clone(&heard), Arc::clone(&stop));
        let thread = std::thread::spawn(move || serve(&listener, &keeps, &stops));
        Ok(Self { heard, stop, thread: Some(thread) })
    }

    /// How often it was connected to.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).connections
    }

    /// The messages of the last connection.
    ///
    /// # Errors
    /// If what was heard is not made of messages of version 3.
    pub fn messages(&self) -> Result<Vec<Vec<u8>>> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut rest, mut messages) = (heard.bytes.as_slice(), Vec::new());
        while let Some(header) = rest.get(..HEADER) {
            ensure!(header.first() == Some(&3), "version {:?} of BMP", header.first());
            let length = header.get(1..5).and_then(|octets| octets.try_into().ok()).map(u32::from_be_bytes);
            let length = usize::try_from(length.context("a length")?)?;
            ensure!(length >= HEADER, "a message of {length} octets");
            let Some(message) = rest.get(..length) else { break };
            messages.push(message.to_vec());
            rest = rest.get(length..).unwrap_or_default();
        }
        Ok(messages)
    }

    /// The messages of the last connection, as tshark reads them.
    ///
    /// # Errors
    /// If tshark is not to be had, or finds anything wrong with one.
    pub fn read_by_tshark(&self, lab: &Lab) -> Result<Vec<Message>> {
        let messages = self.messages()?;
        if messages.is_empty() {
            return Ok(Vec::new());
        }
        let directory = lab.directory("tshark")?;
        let (dump, capture) = (directory.join("messages.txt"), directory.join("messages.pcap"));
        // One packet a message, so that one line of tshark's is one too.
        let mut text = String::new();
        for message in &messages {
            let message = without_information(message).unwrap_or_else(|| message.clone());
            for (line, octets) in message.chunks(16).enumerate() {
                write!(text, "{:06x}", line * 16)?;
                octets.iter().try_for_each(|octet| write!(text, " {octet:02x}"))?;
                text.push('\n');
            }
        }
        std::fs::write(&dump, text)?;
        let ports = format!("40000,{PORT}");
        let mut convert = Command::new(foreign_program(&["/usr/bin/text2pcap"], "tshark")?);
        run(convert.args(["-q", "-T", &ports]).arg(&dump).arg(&capture), SHORT)?.success()?;
        let mut tshark = Command::new(foreign_program(&["/usr/bin/tshark"], "tshark")?);
        tshark.args(["-d", &format!("tcp.port=={PORT},bmp"), "-T", "fields", "-E", "occurrence=a", "-r"]);
        tshark.arg(&capture).args(FIELDS.iter().flat_map(|field| ["-e", field]));
        let said = run(&mut tshark, SHORT)?.success()?.stdout;
        let read: Vec<Message> = said.lines().map(Message::read).collect();
        ensure!(
            read.len() == messages.len(),
            "{} messages, of which tshark reads {}",
            messages.len(),
            read.len()
        );
        Ok(read)
    }
}

impl Drop for Station {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // A station that panicked has ended too.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn serve(listener: &TcpListener, heard: &Mutex<Heard>, stop: &AtomicBool) {
    let mut connection: Option<TcpStream> = None;
    let mut buffer = vec![0; 64 * 1024];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((stream, _)) = listener.accept() {
            if stream.set_nonblocking(true).is_ok() {
                connection = Some(stream);
            }
            let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
            heard.connections += 1;
            heard.bytes.clear();
        }
        match connection.as_mut().map(|stream| stream.read(&mut buffer)) {
            Some(Ok(count)) if count > 0 => {
                let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
                heard.bytes.extend_from_slice(buffer.get(..count).unwrap_or_default());
                continue;
            }
            Some(Err(error)) if error.kind() == ErrorKind::WouldBlock => {}
            Some(_) => connection = None,
            None => {}
        }
        sleep(POLL);
    }
}

/// A Peer Up without what follows the two OPENs: tshark 4.0 does not know that Information (RFC 7854 section 4.10, RFC 9069 section 5.2.1),
/// and takes it for a BGP message more. None: it is no Peer Up, or has none.
fn without_information(message: &[u8]) -> Option<Vec<u8>> {
    const PEER_UP: u8 = 3;
    const OPENS: usize = HEADER + 42 + 20;
    (message.get(HEADER - 1) == Some(&PEER_UP)).then_some(())?;
    let length_at = |at: usize| {
        let octets = message.get(at + 16..at + 18)?.try_into().ok()?;
        Some(usize::from(u16::from_be_bytes(octets)))
    };
    let received = OPENS + length_at(OPENS)?;
    let end = received + length_at(received)?;
    let mut short = message.get(..end).filter(|_| end < message.len())?.to_vec();
    short.get_mut(1..5)?.copy_from_slice(&u32::try_from(end).ok()?.to_be_bytes());
    Some(short)
}

/// A message, as tshark reads it: the values of each of its fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message(Vec<Vec<String>>);

impl Message {
    fn read(line: &str) -> Self {
        let values = |column: &str| column.split(',').filter(|v| !v.is_empty()).map(str::to_owned).collect();
        Self(line.split('\t').map(values).collect())
    }

    /// The values of a field, in order.
    #[must_use]
    pub fn all(&self, field: &str) -> &[String] {
        let column = FIELDS.iter().position(|known| *known == field);
        column.and_then(|column| self.0.get(column)).map_or(&[], Vec::as_slice)
    }

    /// The first value of a field; empty: it has none.
    #[must_use]
    pub fn one(&self, field: &str) -> &str {
        self.all(field).first().map_or("", String::as_str)
    }

    /// The prefixes that its UPDATE announces, and those that it withdraws.
    #[must_use]
    pub fn prefixes(&self) -> (Vec<String>, Vec<String>) {
        let lengths = self.all("bgp.prefix_length");
        let with_lengths = |fields: [&str; 2]| {
            let addresses = fields.into_iter().flat_map(|field| self.all(field));
            addresses.zip(lengths).map(|(address, length)| format!("{address}/{length}")).collect()
        };
        (
            with_lengths(["bgp.nlri_prefix", "bgp.mp_reach_nlri_ipv6_prefix"]),
            with_lengths(["bgp.withdrawn_prefix", "bgp.mp_unreach_nlri_ipv6_prefix"]),
        )
    }
}
