//! MRT records that wait to be written. Whoever writes them is never waited for.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::BytesMut;

use crate::mrt::{Observation, Timestamp, put_observation};

/// How many octets of records wait at most; what comes on top is dropped and counted.
const WAITING_MAX: usize = 16 * 1024 * 1024;

/// Records of messages and changes of state, between the driver that makes them and a thread that writes them.
#[derive(Debug, Default)]
pub struct Recorder {
    waiting: Mutex<Waiting>,
    more: Condvar,
}

/// What has waited.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Records {
    /// Whole records, one behind the other.
    pub octets: BytesMut,
    /// How many.
    pub count: u64,
    /// How many there was no room for.
    pub dropped: u64,
}

#[derive(Debug, Default)]
struct Waiting {
    records: Records,
    closed: bool,
}

impl Recorder {
    /// Appends what happened, unless too much waits.
    pub fn record(&self, time: Timestamp, observation: &Observation) {
        let mut waiting = self.lock();
        let records = &mut waiting.records;
        let before = records.octets.len();
        if before < WAITING_MAX {
            put_observation(time, observation, &mut records.octets);
        }
        if before < WAITING_MAX && records.octets.len() <= WAITING_MAX {
            records.count = records.count.saturating_add(1);
        } else {
            records.octets.truncate(before);
            records.dropped = records.dropped.saturating_add(1);
        }
        drop(waiting);
        self.more.notify_one();
    }

    /// Lets whoever waits for records go. What waits is still given.
    pub fn close(&self) {
        self.lock().closed = true;
        self.more.notify_all();
    }

    /// Takes what waits; waits for it no longer than `patience`. None: there is nothing, and nothing more comes.
    pub fn take(&self, patience: Duration) -> Option<Records> {
        let is_idle = |w: &mut Waiting| !w.closed && w.records == Records::default();
        let waiting = self.more.wait_timeout_while(self.lock(), patience, is_idle);
        let (mut waiting, _) = waiting.unwrap_or_else(PoisonError::into_inner);
        let records = std::mem::take(&mut waiting.records);
        (!waiting.closed || records != Records::default()).then_some(records)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing panics under the lock.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mrt::{Encoding, Observed, Peering};
    use crate::types::Asn;

    fn message(octets: usize) -> Observation {
        let peering = Peering {
            remote_as: Asn(65001),
            local_as: Asn(65002),
            interface: 0,
            remote: Some([10, 0, 0, 1].into()),
            local: Some([10, 0, 0, 2].into()),
            encoding: Encoding::PLAIN,
        };
        Observation { peering, observed: Observed::Received(vec![0xff; octets].into()) }
    }

    #[test]
    fn what_there_is_no_room_for_is_dropped_and_counted() {
        let recorder = Recorder::default();
        for _ in 0..300 {
            recorder.record(Timestamp::default(), &message(65_535));
        }
        let records = recorder.take(Duration::ZERO).unwrap();
        let each = records.octets.len() / usize::try_from(records.count).unwrap();
        assert_eq!((records.count + records.dropped, each), (300, 12 + 4 + 20 + 65_535));
        assert!(records.octets.len() <= WAITING_MAX && records.dropped > 40, "{}", records.dropped);
        // There is room again.
        recorder.record(Timestamp::default(), &message(19));
        recorder.close();
        let records = recorder.take(Duration::from_secs(60)).unwrap();
        assert_eq!((records.count, records.dropped), (1, 0));
        assert_eq!(recorder.take(Duration::from_secs(60)), None);
    }
}
