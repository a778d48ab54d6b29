//! One `Ingress` and a peer played by hand.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use weft_bgp::config::PeerConfig;
use weft_bgp::ingress::{Ingress, IngressInput, IngressOutput};
use weft_bgp::session::State;
use weft_bgp::types::{Asn, ConnectionId};
use weft_bgp::wire::Message;
use weft_bgp::wire::capability::{AfiSafi, Capability};
use weft_bgp::wire::header::{EXTENDED_MESSAGE_MAX, HEADER_LENGTH, Header};
use weft_bgp::wire::notification::Notification;
use weft_bgp::wire::open::Open;

use crate::pair::{ADDRESS_A, ADDRESS_B, ID_A, ID_B};

pub(crate) struct Solo {
    pub(crate) now: Instant,
    pub(crate) ingress: Ingress,
    pub(crate) outputs: Vec<IngressOutput>,
    ends: [IpAddr; 2],
    accepted: u64,
}

impl Solo {
    pub(crate) fn new(config: PeerConfig) -> Self {
        Self::between([ADDRESS_A, ADDRESS_B], config)
    }

    /// The same, with these addresses of both ends, ours first.
    pub(crate) fn between(ends: [IpAddr; 2], config: PeerConfig) -> Self {
        #[expect(clippy::disallowed_methods, reason = "virtual time has to start somewhere")]
        let now = Instant::now();
        let ingress = Ingress::new(ends[1].into(), ID_A, 7);
        let mut solo = Self { now, ingress, outputs: Vec::new(), ends, accepted: 0 };
        solo.input(IngressInput::Configure(Arc::new(config)));
        solo
    }

    /// A session in which the peer's AS 65002 has connected and said what `open` says.
    pub(crate) fn established(config: PeerConfig, open: Open) -> (Self, ConnectionId) {
        let mut solo = Self::new(config);
        let connection = solo.accept();
        solo.send(connection, &Message::Open(open));
        solo.send(connection, &Message::Keepalive);
        assert_eq!(solo.ingress.state(), State::Established, "{:?}", solo.outputs);
        solo.outputs.clear();
        (solo, connection)
    }

    pub(crate) fn input(&mut self, input: IngressInput) {
        self.ingress.handle(self.now, input);
        while let Some(output) = self.ingress.poll() {
            self.outputs.push(output);
        }
    }

    pub(crate) fn accept(&mut self) -> ConnectionId {
        self.accepted += 1;
        let connection = ConnectionId::Accepted(self.accepted);
        self.input(IngressInput::Accepted {
            connection,
            local: SocketAddr::new(self.ends[0], 179),
            remote: SocketAddr::new(self.ends[1], 40_000),
        });
        connection
    }

    /// The dial that is under way succeeds.
    pub(crate) fn connect(&mut self) -> ConnectionId {
        let dial = self.outputs.iter().rev().find_map(|output| match output {
            IngressOutput::Dial { connection, .. } => Some(*connection),
            _ => None,
        });
        let connection = dial.expect("it has dialled");
        self.input(IngressInput::Connected { connection, local: SocketAddr::new(self.ends[0], 40000) });
        connection
    }

    pub(crate) fn bytes(&mut self, connection: ConnectionId, bytes: &[u8]) {
        self.input(IngressInput::Bytes { connection, bytes: Bytes::copy_from_slice(bytes) });
    }

    pub(crate) fn send(&mut self, connection: ConnectionId, message: &Message) {
        self.bytes(connection, &message.encode());
    }

    pub(crate) fn close(&mut self, connection: ConnectionId) {
        self.input(IngressInput::Closed { connection, error: None });
    }

    /// Lets time pass, with a tick at every deadline.
    pub(crate) fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some((deadline, _)) = self.ingress.next_deadline().filter(|(at, _)| *at <= end) {
            self.now = self.now.max(deadline);
            self.input(IngressInput::Tick);
        }
        self.now = end;
    }

    /// What was written to a connection.
    pub(crate) fn written(&self, on: ConnectionId) -> Vec<Message> {
        let written = self.outputs.iter().filter_map(|output| match output {
            IngressOutput::Write { connection, bytes } if *connection == on => Some(bytes.clone()),
            _ => None,
        });
        written.map(|bytes| message(&bytes)).collect()
    }

    /// The NOTIFICATION that ended a connection.
    pub(crate) fn notification(&self, on: ConnectionId) -> Notification {
        match self.written(on).pop() {
            Some(Message::Notification(notification)) if self.is_closed(on) => notification,
            other => panic!("no NOTIFICATION and close on {on:?}, but {other:?}"),
        }
    }

    pub(crate) fn is_closed(&self, on: ConnectionId) -> bool {
        let closes =
            |o: &IngressOutput| matches!(o, IngressOutput::Close { connection } if *connection == on);
        self.outputs.iter().any(closes)
    }

    pub(crate) fn count(&self, wanted: impl Fn(&IngressOutput) -> bool) -> usize {
        self.outputs.iter().filter(|output| wanted(output)).count()
    }
}

/// The message that is all of these bytes.
pub(crate) fn message(bytes: &Bytes) -> Message {
    let header = bytes.first_chunk::<HEADER_LENGTH>().expect("a whole header");
    let header = Header::decode(header, EXTENDED_MESSAGE_MAX).expect("a good header");
    assert_eq!(usize::from(header.length), bytes.len(), "one message in one piece");
    let mut body = bytes.clone();
    body.advance(HEADER_LENGTH);
    Message::decode(header.kind, &body).expect("a good message").expect("a message that says something")
}

/// The OPEN of AS 65002 with both families.
pub(crate) fn open() -> Open {
    Open {
        my_as: 65002,
        hold_time: 90,
        bgp_identifier: ID_B,
        capabilities: vec![
            Capability::Multiprotocol(AfiSafi { afi: 1, safi: 1 }),
            Capability::Multiprotocol(AfiSafi { afi: 2, safi: 1 }),
            Capability::RouteRefresh,
            Capability::FourOctetAs(Asn(65002)),
        ],
    }
}

/// The same of another identifier.
pub(crate) fn open_with_id(bgp_identifier: Ipv4Addr) -> Open {
    Open { bgp_identifier, ..open() }
}
