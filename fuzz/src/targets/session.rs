//! Bytes to one side of a session, in pieces, with time passing and connections that come and go.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use weft_bgp::config::{AddPath, AddPathSend, PathChoice, PeerConfig};
use weft_bgp::ingress::ahead::{Piece, Reader};
use weft_bgp::ingress::{Ingress, IngressInput, IngressOutput};
use weft_bgp::role::Role;
use weft_bgp::session::State;
use weft_bgp::types::{Asn, ConnectionId};
use weft_bgp::wire::Message;
use weft_bgp::wire::header::{EXTENDED_MESSAGE_MAX, HEADER_LENGTH, Header};
use weft_bgp::wire::notification::Notification;

use super::{Choices, sim_support};

const US: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
const KEEPALIVE: [u8; 19] = {
    let mut message = [0xff; 19];
    (message[16], message[17], message[18]) = (0, 19, 4);
    message
};

/// An octet that says what the peer is and whether it is Established already; then steps: 0 to 191, so many octets of what follows
/// arrive; 192 to 207, up to 8191; the rest do what a network and a clock may do. Once time has passed, who reads the connection of an
/// Established session decodes UPDATEs.
pub fn session(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let mut end = End::new(choices.byte());
    while !choices.is_empty() {
        match choices.byte() {
            length @ 0..=191 => end.bytes(choices.take(usize::from(length) + 1)),
            192..=207 => {
                let length = choices.long();
                end.bytes(choices.take(length));
            }
            208..=219 => end.accept(),
            220..=225 => end.connect(),
            226..=231 => end.close(),
            232..=235 => end.input(IngressInput::Cease { subcode: 4, text: "again".into() }),
            236..=239 => end.bytes(&end.open_of_peer()),
            240..=243 => end.bytes(&KEEPALIVE),
            244..=247 => end.run_for(Duration::from_millis(u64::from(choices.byte()) * 10)),
            _ => end.run_for(Duration::from_secs(u64::from(choices.byte() % 100))),
        }
        end.check();
    }
    end.assert_it_comes_back();
}

/// The OPEN of a peer with everything that is known here.
fn open(internal: bool, add_path: bool) -> Vec<u8> {
    let asn: u16 = if internal { 65001 } else { 65002 };
    let add_path: &[u8] = if add_path { &[69, 8, 0, 1, 1, 3, 0, 2, 1, 3] } else { &[] };
    let capabilities: [&[u8]; 11] = [
        &[1, 4, 0, 1, 0, 1],
        &[1, 4, 0, 2, 0, 1],
        &[2, 0, 6, 0],
        &[5, 6, 0, 1, 0, 1, 0, 2],
        // A provider's: that of our role, where we have one.
        &[9, 1, 0],
        &[64, 10, 0x40, 120, 0, 1, 1, 0x80, 0, 2, 1, 0x80],
        &[65, 4, 0, 0],
        &asn.to_be_bytes(),
        add_path,
        &[70, 0],
        &[71, 14, 0, 1, 1, 0x80, 0, 0, 60, 0, 2, 1, 0x80, 0, 0, 60],
    ];
    let capabilities = capabilities.concat();
    let length = u8::try_from(capabilities.len()).unwrap();
    let body =
        [&[4][..], &asn.to_be_bytes(), &[0, 90, 10, 0, 0, 2, length + 2, 2, length], &capabilities].concat();
    let length = u16::try_from(HEADER_LENGTH + body.len()).unwrap().to_be_bytes();
    [&[0xff; 16][..], &length, &[1], &body].concat()
}

struct Connection {
    id: ConnectionId,
    reader: Reader,
    /// The reader knows of the session.
    agreed: bool,
}

/// One `Ingress`, and the connections that it holds.
struct End {
    now: Instant,
    ingress: Ingress,
    config: PeerConfig,
    open: Vec<Connection>,
    dialling: Vec<ConnectionId>,
    accepted: u64,
}

impl End {
    fn new(kind: u8) -> Self {
        #[expect(clippy::disallowed_methods, reason = "virtual time has to start somewhere")]
        let now = Instant::now();
        let remote_as = if kind & 1 == 0 { 65002 } else { 65001 };
        let mut config = sim_support::peer(0, 65001, remote_as);
        if kind & 2 != 0 {
            config.graceful_restart = None;
        }
        if kind & 4 != 0 {
            config.timers.delay_open = Some(Duration::from_secs(2));
        }
        config.passive = kind & 8 != 0;
        config.role = (kind & 65 == 64).then_some(Role::Customer);
        if let Some(restart) = config.graceful_restart.as_mut().filter(|_| kind & 128 != 0) {
            restart.long_lived_time = Some(Duration::from_secs(100));
        }
        if kind & 32 != 0 {
            let send = Some(AddPathSend { paths: PathChoice::All, limit: 8 });
            config.add_path = AddPath { receive: true, send };
        }
        let ingress = Ingress::new(PEER.into(), Ipv4Addr::new(10, 0, 0, 1), u64::from(kind));
        let mut end = Self { now, ingress, config, open: Vec::new(), dialling: Vec::new(), accepted: 0 };
        end.input(IngressInput::Configure(Arc::new(end.config.clone())));
        if kind & 16 == 0 {
            end.accept();
            end.bytes(&[&end.open_of_peer()[..], &KEEPALIVE].concat());
            assert_eq!(end.ingress.state(), State::Established);
        }
        end
    }

    fn is_internal(&self) -> bool {
        self.config.remote_as.admits(Asn(65001), Asn(65001))
    }

    fn open_of_peer(&self) -> Vec<u8> {
        open(self.is_internal(), self.config.add_path.receive)
    }

    fn input(&mut self, input: IngressInput) {
        let most = match &input {
            // A message of 19 octets brings two or three things about.
            IngressInput::Bytes { bytes, .. } => 64 + bytes.len(),
            IngressInput::Updates { updates, .. } => 64 + updates.messages.len(),
            _ => 64,
        };
        self.ingress.handle(self.now, input);
        let mut outputs = 0;
        while let Some(output) = self.ingress.poll() {
            outputs += 1;
            self.output(output);
        }
        assert!(outputs <= most, "{outputs} outputs");
    }

    fn output(&mut self, output: IngressOutput) {
        match output {
            IngressOutput::Dial { connection, .. } => {
                self.dialling.clear();
                self.dialling.push(connection);
            }
            IngressOutput::Write { connection, bytes } => {
                assert!(self.open.iter().any(|open| open.id == connection), "it writes to what is open");
                let header = Header::decode(bytes.first_chunk().unwrap(), EXTENDED_MESSAGE_MAX).unwrap();
                assert_eq!(usize::from(header.length), bytes.len(), "one message in one piece");
                let mut body = bytes;
                body.advance(HEADER_LENGTH);
                Message::decode(header.kind, &body).expect("it writes good messages");
            }
            IngressOutput::Close { connection } => {
                self.open.retain(|open| open.id != connection);
                self.dialling.retain(|dial| *dial != connection);
            }
            IngressOutput::Routes(batch) => {
                let covered: usize = batch.runs.iter().map(|run| run.range.len()).sum();
                assert_eq!(covered, batch.prefixes.len());
            }
            _ => {}
        }
    }

    fn accept(&mut self) {
        self.accepted += 1;
        let connection = ConnectionId::Accepted(self.accepted);
        self.open(connection);
        self.input(IngressInput::Accepted {
            connection,
            local: SocketAddr::new(US, 179),
            remote: SocketAddr::new(PEER, 40000),
        });
    }

    fn open(&mut self, id: ConnectionId) {
        self.open.push(Connection { id, reader: Reader::default(), agreed: false });
    }

    fn connect(&mut self) {
        if let Some(connection) = self.dialling.pop() {
            self.open(connection);
            self.input(IngressInput::Connected { connection, local: SocketAddr::new(US, 40000) });
        }
    }

    fn close(&mut self) {
        if let Some(Connection { id, .. }) = self.open.pop() {
            self.input(IngressInput::Closed { connection: id, error: None });
        }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        let Some(Connection { id: connection, reader, .. }) = self.open.last_mut() else { return };
        let connection = *connection;
        for piece in reader.read(Bytes::copy_from_slice(bytes)) {
            self.input(match piece {
                Piece::Bytes(bytes) => IngressInput::Bytes { connection, bytes },
                Piece::Updates(updates) => IngressInput::Updates { connection, updates },
            });
        }
    }

    /// The reader of the session's connection hears of the session.
    fn begin(&mut self) {
        let Some(session) = self.ingress.session() else { return };
        let mut unaware = self.open.iter_mut().filter(|open| !open.agreed);
        if let Some(connection) = unaware.find(|open| open.id == session.connection) {
            connection.reader.begin(session);
            connection.agreed = true;
        }
    }

    fn run_for(&mut self, duration: Duration) {
        let until = self.now + duration;
        let mut ticks = 0;
        while let Some((deadline, _)) = self.ingress.next_deadline().filter(|(at, _)| *at <= until) {
            self.now = self.now.max(deadline);
            self.input(IngressInput::Tick);
            ticks += 1;
            assert!(ticks < 10_000, "a timer that expires and expires");
        }
        self.now = until;
        self.begin();
    }

    fn check(&self) {
        assert!(self.open.len() <= 4, "{} connections to one peer", self.open.len());
        assert!(
            self.ingress.state() != State::Idle || self.ingress.next_deadline().is_some(),
            "no way out of Idle"
        );
        assert_eq!(self.ingress.state() == State::Established, self.ingress.session().is_some());
    }

    /// A peer that behaves from now on is Established.
    fn assert_it_comes_back(&mut self) {
        while !self.open.is_empty() {
            self.close();
        }
        // The longest wait in Idle is over by then.
        self.run_for(Duration::from_secs(80));
        if self.ingress.state() != State::Established {
            self.accept();
            self.bytes(&self.open_of_peer());
            self.bytes(&KEEPALIVE);
        }
        assert_eq!(self.ingress.state(), State::Established);
        let cease = Message::Notification(Notification::cease(2, "bye")).encode();
        self.bytes(&cease);
        assert_ne!(self.ingress.state(), State::Established);
    }
}
