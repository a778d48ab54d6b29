//! UPDATEs decoded ahead of the session, by whoever reads the connection: the thread that has all sessions then finds routes in place of
//! octets. The session itself decodes whatever does not get here, and sees everything but good UPDATEs as it came.

use std::mem::take;

use bytes::Bytes;

use super::framing::{Frame, Framer};
use super::{RouteBatch, Session};
use crate::wire::header::MessageType;
use crate::wire::update::{Decoded, Decoder};

/// A part of what was read of a connection.
#[derive(Debug)]
pub enum Piece {
    /// As it came: for [`IngressInput::Bytes`](super::IngressInput::Bytes).
    Bytes(Bytes),
    /// For [`IngressInput::Updates`](super::IngressInput::Updates).
    Updates(Updates),
}

/// UPDATEs with nothing wrong, and nothing but routes.
#[derive(Debug, Default)]
pub struct Updates {
    /// As they came, headers included.
    pub messages: Vec<Bytes>,
    /// What they say.
    pub batch: RouteBatch,
}

/// Reads one connection. Until a session is Established on it, or once a header is wrong, everything stays as it came.
#[derive(Debug, Default)]
pub struct Reader {
    framer: Framer,
    decoder: Option<Decoder>,
    /// How many octets of the message that the framer has a part of were passed on.
    passed: usize,
    /// Where messages begin is not known any more.
    lost: bool,
}

impl Reader {
    /// From now on UPDATEs are decoded, as the session on this connection has agreed.
    pub fn begin(&mut self, session: &Session) {
        self.decoder = Some(Decoder::new(session.agreed()));
        self.framer.set_message_max(session.max_message);
    }

    /// What was read, in order.
    pub fn read(&mut self, bytes: Bytes) -> Vec<Piece> {
        if self.lost {
            return vec![Piece::Bytes(bytes)];
        }
        self.framer.push(bytes.clone());
        if self.decoder.is_some() { self.pieces() } else { self.pass_on(bytes) }
    }

    /// Passes everything on at once, and sees where messages end.
    fn pass_on(&mut self, bytes: Bytes) -> Vec<Piece> {
        while !self.lost {
            match self.framer.next() {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => self.lost = true,
            }
        }
        self.passed = self.framer.partial().len();
        vec![Piece::Bytes(bytes)]
    }

    fn pieces(&mut self) -> Vec<Piece> {
        let mut pieces = Vec::new();
        loop {
            match self.framer.next() {
                Ok(Some(frame)) => self.take(frame, &mut pieces),
                Ok(None) => return pieces,
                Err(_) => {
                    self.lost = true;
                    let rest = self.framer.rest();
                    pieces.push(Piece::Bytes(rest.slice(self.passed.min(rest.len())..)));
                    return pieces;
                }
            }
        }
    }

    fn take(&mut self, frame: Frame, pieces: &mut Vec<Piece>) {
        let passed = take(&mut self.passed);
        let update = frame.kind == MessageType::Update && passed == 0;
        if let Some(decoder) = self.decoder.as_mut().filter(|_| update) {
            let mut updates = match pieces.pop() {
                Some(Piece::Updates(updates)) => updates,
                other => {
                    pieces.extend(other);
                    Updates::default()
                }
            };
            let is_good = decode(decoder, &frame, &mut updates.batch);
            if is_good {
                updates.messages.push(frame.message.clone());
            }
            if !updates.messages.is_empty() {
                pieces.push(Piece::Updates(updates));
            }
            if is_good {
                return;
            }
        }
        pieces.push(Piece::Bytes(frame.message.slice(passed.min(frame.message.len())..)));
    }
}

/// Appends the routes of an UPDATE, if that is all there is to it; else the batch stays as it was.
fn decode(decoder: &mut Decoder, frame: &Frame, batch: &mut RouteBatch) -> bool {
    let (prefixes, path_ids, runs) = (batch.prefixes.len(), batch.path_ids.len(), batch.runs.len());
    if decoder.decode(&frame.body(), batch) == Ok(Decoded::default()) {
        return true;
    }
    batch.prefixes.truncate(prefixes);
    batch.path_ids.truncate(path_ids);
    batch.runs.truncate(runs);
    // The last run may have grown.
    if let Some(last) = batch.runs.last_mut() {
        last.range.end = last.range.end.min(prefixes);
    }
    false
}
