//! Everything that a session lets out: outputs in order, counters, incidents.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::said::Record;
use crate::ingress::{Incident, IncidentKind, IngressOutput, RouteBatch};
use crate::mrt::Encoding;
use crate::status::{Direction, LastError, MessageCounters};
use crate::types::{ConnectionId, Reason};
use crate::wire::Message;
use crate::wire::error::ErrorCode;
use crate::wire::header::MessageType;

/// What waits to be polled, and what is remembered of what was.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    queue: VecDeque<IngressOutput>,
    /// Routes that no output has taken along yet.
    batch: RouteBatch,
    pub(crate) counters: MessageCounters,
    pub(crate) last_error: Option<LastError>,
    /// The last error is the peer's word that a person wants no session.
    pub(super) stays_away: bool,
    pub(crate) said: Record,
    /// Whether each message of the peer's is told as it is.
    pub(crate) observed: bool,
    allowances: [Allowance; 5],
}

impl Outbox {
    /// How many prefixes a batch grows to before it is let go.
    const BATCH_MAX: usize = 8192;

    /// Appends an output, behind the routes that came before it.
    pub(crate) fn push(&mut self, output: IngressOutput) {
        self.flush();
        self.queue.push_back(output);
    }

    /// The next output.
    pub(crate) fn poll(&mut self) -> Option<IngressOutput> {
        self.flush();
        self.queue.pop_front()
    }

    /// Where routes go.
    pub(crate) fn batch(&mut self) -> &mut RouteBatch {
        if self.batch.prefixes.len() >= Self::BATCH_MAX {
            self.flush();
        }
        &mut self.batch
    }

    fn flush(&mut self) {
        if !self.batch.runs.is_empty() {
            self.queue.push_back(IngressOutput::Routes(std::mem::take(&mut self.batch)));
        }
    }

    /// Tells of a message of the peer's. It may come before routes that came before it: those stay together.
    pub(crate) fn observe(&mut self, message: &Bytes, encoding: Encoding) {
        self.queue.push_back(IngressOutput::Received { message: message.clone(), encoding });
    }

    /// Sends a message.
    pub(super) fn send(&mut self, connection: ConnectionId, message: &Message) {
        count(&mut self.counters.sent, message.kind());
        let bytes = message.encode();
        if matches!(message, Message::Open(_)) {
            self.said.open_sent(connection, &bytes);
        }
        self.push(IngressOutput::Write { connection, bytes });
    }

    pub(crate) fn received(&mut self, kind: MessageType) {
        count(&mut self.counters.received, kind);
    }

    /// Records an incident; beyond what its kind is allowed it is only counted, and the next that is recorded tells the number.
    pub(crate) fn incident(&mut self, now: Instant, kind: IncidentKind, mut reason: Reason, bytes: &Bytes) {
        let allowance = match kind {
            IncidentKind::NotificationSent { .. } => 0,
            IncidentKind::NotificationReceived { .. } => 1,
            IncidentKind::TreatedAsWithdraw => 2,
            IncidentKind::AttributeDiscarded => 3,
            IncidentKind::Connection => 4,
        };
        let Some(suppressed) = self.allowances.get_mut(allowance).and_then(|a| a.take(now)) else {
            return;
        };
        if suppressed > 0 {
            reason.text = format!("{} ({suppressed} more of this kind were not recorded)", reason.text);
        }
        // A copy: a slice would keep the whole read buffer for as long as the incident is remembered.
        let bytes = Bytes::copy_from_slice(bytes.get(..Incident::BYTES_MAX).unwrap_or(bytes));
        self.push(IngressOutput::Incident(Incident { kind, reason, bytes }));
    }

    /// Remembers what went wrong last.
    pub(crate) fn note_error(
        &mut self,
        at: Instant,
        direction: Direction,
        code: Option<ErrorCode>,
        text: impl Into<String>,
    ) {
        let (code, subcode) = (code.map(|c| c.code), code.map(|c| c.subcode));
        self.last_error = Some(LastError { at, direction, code, subcode, text: text.into() });
        self.stays_away = false;
    }

    /// Remembers that no connection came about, which is no news of a peer that has said why it stays away.
    pub(super) fn note_unconnected(&mut self, at: Instant, text: impl Into<String>) {
        if !self.stays_away {
            self.note_error(at, Direction::Local, None, text);
        }
    }
}

fn count(counters: &mut [u64; 5], kind: MessageType) {
    if let Some(counter) = counters.get_mut(usize::from(kind as u8 - 1)) {
        *counter += 1;
    }
}

/// How many incidents of a kind may be recorded: a handful at once, and one per second in the long run.
#[derive(Clone, Copy, Debug, Default)]
struct Allowance {
    used: u32,
    since: Option<Instant>,
    suppressed: u64,
}

impl Allowance {
    const BURST: u32 = 10;
    const INTERVAL: Duration = Duration::from_secs(1);

    /// Takes one: how many were suppressed since the last, or none if there is nothing to take.
    fn take(&mut self, now: Instant) -> Option<u64> {
        let since = *self.since.get_or_insert(now);
        let earned = now.saturating_duration_since(since).as_secs() / Self::INTERVAL.as_secs();
        if earned > 0 {
            self.used = self.used.saturating_sub(u32::try_from(earned).unwrap_or(u32::MAX));
            self.since = Some(now);
        }
        if self.used >= Self::BURST {
            self.suppressed = self.suppressed.saturating_add(1);
            return None;
        }
        self.used += 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}
