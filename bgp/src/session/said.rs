//! What was said to a peer and by it that people ask for afterwards.

use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;

use crate::status::{Dialogue, Direction, Said, SaidNotification};
use crate::types::ConnectionId;
use crate::wire::notification::Notification;

/// The beginning of each connection, and the last NOTIFICATION of either direction.
#[derive(Debug, Default)]
pub(crate) struct Record {
    /// Of the connections that are open and of the last one that was, oldest first.
    connections: Vec<(ConnectionId, Dialogue)>,
    notification_sent: Option<SaidNotification>,
    notification_received: Option<SaidNotification>,
}

impl Record {
    /// A connection is open.
    pub(super) fn connected(&mut self, connection: ConnectionId, local: SocketAddr, remote: SocketAddr) {
        let dialogue = Dialogue { local, remote, open_sent: Bytes::new(), open_received: Bytes::new() };
        self.connections.push((connection, dialogue));
    }

    /// The OPEN that was sent, header and all.
    pub(super) fn open_sent(&mut self, connection: ConnectionId, message: &Bytes) {
        if let Some(dialogue) = self.dialogue_mut(connection) {
            dialogue.open_sent = message.clone();
        }
    }

    /// The OPEN that the peer sent, header and all.
    pub(crate) fn open_received(&mut self, connection: ConnectionId, message: &Bytes) {
        if let Some(dialogue) = self.dialogue_mut(connection) {
            // A copy: a slice would keep the whole read buffer for as long as the session lasts.
            dialogue.open_received = Bytes::copy_from_slice(message);
        }
    }

    /// A NOTIFICATION went over the wire.
    pub(super) fn notification(&mut self, at: Instant, direction: Direction, notification: &Notification) {
        let last = match direction {
            Direction::Sent => &mut self.notification_sent,
            Direction::Received => &mut self.notification_received,
            Direction::Local => return,
        };
        let Notification { code, data } = notification;
        let notification = Notification { code: *code, data: Bytes::copy_from_slice(data) };
        *last = Some(SaidNotification { at, notification });
    }

    /// Forgets the connections that are gone, but for the last.
    pub(crate) fn retain(&mut self, is_open: impl Fn(ConnectionId) -> bool) {
        let last = self.connections.last().map(|(connection, _)| *connection);
        self.connections.retain(|(connection, _)| Some(*connection) == last || is_open(*connection));
    }

    /// What is known of this connection; without one, of the last.
    pub(crate) fn told(&self, connection: Option<ConnectionId>) -> Said {
        let mut all = self.connections.iter().rev();
        let dialogue = match connection {
            Some(connection) => all.find(|(of, _)| *of == connection),
            None => all.next(),
        };
        Said {
            dialogue: dialogue.map(|(_, dialogue)| dialogue.clone()),
            notification_sent: self.notification_sent.clone(),
            notification_received: self.notification_received.clone(),
        }
    }

    fn dialogue_mut(&mut self, connection: ConnectionId) -> Option<&mut Dialogue> {
        self.connections.iter_mut().find(|(of, _)| *of == connection).map(|(_, dialogue)| dialogue)
    }
}
