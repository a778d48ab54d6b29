//! What happened lately: a bounded ring with numbers, that readers can wait on.

use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::timeout;

use super::event_query::EventQuery;
use crate::api::json::EventJson;

/// How many events are kept.
pub(super) const EVENTS_MAX: usize = 1000;
/// How many of an event's bytes are kept: with [`EVENTS_MAX`] events the ring stays under 2 MiB.
pub(super) const BYTES_MAX: usize = 1024;

/// An event before it has a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NewEvent {
    /// The peer's address, if it concerns one.
    pub(super) peer: Option<String>,
    /// Stable, lower case, hyphens.
    pub(super) kind: &'static str,
    /// A sentence.
    pub(super) text: String,
    /// The bytes in question; empty: none.
    pub(super) bytes: bytes::Bytes,
}

/// The ring. Cloned freely: one for writing, any number for reading.
#[derive(Clone, Debug)]
pub(super) struct Events {
    ring: Arc<Mutex<VecDeque<EventJson>>>,
    /// The number of the last event; 0: none yet.
    last: watch::Sender<u64>,
}

impl Default for Events {
    fn default() -> Self {
        Self { ring: Arc::default(), last: watch::Sender::new(0) }
    }
}

impl Events {
    /// Adds an event; the oldest goes when the ring is full.
    pub(super) fn push(&self, time: Timestamp, event: NewEvent) {
        self.push_about(time, event, None);
    }

    /// Adds an event that concerns a prefix.
    pub(super) fn push_about(&self, time: Timestamp, event: NewEvent, prefix: Option<IpNet>) {
        self.last.send_modify(|last| {
            *last += 1;
            let mut ring = self.lock();
            if ring.len() >= EVENTS_MAX {
                ring.pop_front();
            }
            ring.push_back(EventJson {
                seq: *last,
                time,
                peer: event.peer,
                prefix,
                kind: event.kind.to_owned(),
                text: event.text,
                bytes: hexadecimal(&event.bytes),
            });
        });
    }

    /// Whether an event is kept that concerns the peer of this address.
    pub(super) fn concern(&self, peer: &str) -> bool {
        self.lock().iter().any(|event| event.peer.as_deref() == Some(peer))
    }

    /// The events kept that are asked for, oldest first.
    fn wanted(&self, query: &EventQuery) -> Vec<EventJson> {
        self.lock().iter().filter(|event| query.wants(event)).cloned().collect()
    }

    /// The same, but waits up to `patience` for the first one.
    ///
    /// An `after` from the future, as a reader has it across a restart of the daemon, waits for nothing and gives everything.
    pub(super) async fn wait(&self, mut query: EventQuery, patience: Duration) -> Vec<EventJson> {
        let mut last = self.last.subscribe();
        if query.after > *last.borrow() {
            query.after = 0;
        }
        let found = async {
            loop {
                last.borrow_and_update();
                let events = self.wanted(&query);
                if !events.is_empty() || last.changed().await.is_err() {
                    return events;
                }
            }
        };
        // The end of the patience is no error: the answer is then empty.
        timeout(patience, found).await.unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<EventJson>> {
        // A panic elsewhere cannot leave the ring half-changed.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Two digits an octet, of the first [`BYTES_MAX`]; none: there are no bytes.
pub(super) fn hexadecimal(bytes: &[u8]) -> Option<String> {
    let bytes = bytes.get(..BYTES_MAX).unwrap_or(bytes);
    (!bytes.is_empty()).then(|| {
        bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::socket::Select;

    fn after(after: u64) -> EventQuery {
        EventQuery { after, peer: None, select: Select::All }
    }

    fn event(text: &str) -> NewEvent {
        NewEvent { peer: None, kind: "test", text: text.to_owned(), bytes: bytes::Bytes::new() }
    }

    #[test]
    fn the_ring_is_bounded_and_numbers_go_on() {
        let events = Events::default();
        for n in 1..=EVENTS_MAX + 5 {
            events.push(Timestamp::UNIX_EPOCH, event(&n.to_string()));
        }
        let kept = events.wanted(&after(0));
        assert_eq!(kept.len(), EVENTS_MAX);
        assert_eq!(kept.first().unwrap().seq, 6);
        assert_eq!(kept.last().unwrap().text, (EVENTS_MAX + 5).to_string());
    }

    #[test]
    fn bytes_are_shown_in_hexadecimal_and_cut() {
        let events = Events::default();
        events.push(Timestamp::UNIX_EPOCH, NewEvent { bytes: vec![0xff; 5000].into(), ..event("long") });
        events.push(Timestamp::UNIX_EPOCH, NewEvent { bytes: vec![0x0f, 0xa0].into(), ..event("short") });
        let kept = events.wanted(&after(0));
        assert_eq!(kept[0].bytes.as_ref().unwrap().len(), 2 * BYTES_MAX);
        assert_eq!(kept[1].bytes.as_deref(), Some("0fa0"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_waits_for_what_comes_next() {
        let events = Events::default();
        events.push(Timestamp::UNIX_EPOCH, event("first"));
        let reader = tokio::spawn({
            let events = events.clone();
            async move { events.wait(after(1), Duration::from_secs(30)).await }
        });
        tokio::task::yield_now().await;
        events.push(Timestamp::UNIX_EPOCH, event("second"));
        let got = reader.await.unwrap();
        assert_eq!(got.iter().map(|e| e.text.as_str()).collect::<Vec<_>>(), ["second"]);
        assert!(events.wait(after(2), Duration::from_secs(30)).await.is_empty());
        assert_eq!(events.wait(after(99), Duration::from_secs(30)).await.len(), 2);
    }
}
