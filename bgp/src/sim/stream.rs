//! One TCP connection between two speakers.

use std::collections::VecDeque;

use bytes::Bytes;

use super::SpeakerId;
use crate::types::ConnectionId;

/// How many bytes the kernels between two processes hold, one way.
const WINDOW: usize = 64 * 1024;

/// One of the two sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Dialler,
    Listener,
}

impl Side {
    pub(super) fn other(self) -> Self {
        match self {
            Self::Dialler => Self::Listener,
            Self::Listener => Self::Dialler,
        }
    }
}

/// Both sides of a connection.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) ends: [End; 2],
}

/// One side, and what it sent.
#[derive(Debug)]
pub(super) struct End {
    pub(super) node: SpeakerId,
    pub(super) connection: ConnectionId,
    /// Whether the process has it open.
    pub(super) open: bool,
    /// What the process has written and the kernel has not taken.
    queue: VecDeque<Bytes>,
    /// What the kernel has taken and the other side has not read.
    in_flight: VecDeque<u8>,
    /// Whether the other side has been told of the end.
    pub(super) finished: bool,
    /// Whether an arrival is on the agenda.
    pub(super) arriving: bool,
}

impl Stream {
    pub(super) fn joins(&self, a: SpeakerId, b: SpeakerId) -> bool {
        let [dialler, listener] = self.ends.each_ref().map(|end| end.node);
        (dialler, listener) == (a, b) || (dialler, listener) == (b, a)
    }

    pub(super) fn end(&self, side: Side) -> &End {
        let [dialler, listener] = &self.ends;
        match side {
            Side::Dialler => dialler,
            Side::Listener => listener,
        }
    }

    pub(super) fn end_mut(&mut self, side: Side) -> &mut End {
        let [dialler, listener] = &mut self.ends;
        match side {
            Side::Dialler => dialler,
            Side::Listener => listener,
        }
    }
}

impl End {
    pub(super) fn new(node: SpeakerId, connection: ConnectionId) -> Self {
        let (queue, in_flight) = (VecDeque::new(), VecDeque::new());
        Self { node, connection, open: true, queue, in_flight, finished: false, arriving: false }
    }

    pub(super) fn write(&mut self, bytes: Bytes) {
        self.queue.push_back(bytes);
    }

    /// The process died: what it had queued is lost, what the kernel has taken still goes out.
    pub(super) fn abandon(&mut self) {
        self.open = false;
        self.queue.clear();
    }

    /// The kernel takes what it has room for; says how much.
    pub(super) fn take(&mut self) -> usize {
        let mut taken = 0;
        while let Some(first) = self.queue.front_mut() {
            let room = WINDOW.saturating_sub(self.in_flight.len()).min(first.len());
            if room == 0 && !first.is_empty() {
                break;
            }
            self.in_flight.extend(first.split_to(room));
            taken += room;
            if first.is_empty() {
                self.queue.pop_front();
            }
        }
        taken
    }

    /// Whether something, FIN included, is to arrive at the other side.
    pub(super) fn has_more(&self) -> bool {
        !self.in_flight.is_empty() || (!self.open && !self.finished)
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// The next bytes arrive.
    pub(super) fn arrive(&mut self, bytes: usize) -> Bytes {
        self.in_flight.drain(..bytes.min(self.in_flight.len())).collect()
    }
}
