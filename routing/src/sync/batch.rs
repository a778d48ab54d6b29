//! Batches of writes: made ready, begun, and taken in when the kernel is done with them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::report::Event;
use super::table::{Known, Place};
use super::{Engine, Refused};
use crate::delta::{self, Compared};
use crate::fib::{Fib, Write};
use crate::netlink::Error;
use crate::route::RouteKey;

/// Writes handed to the kernel at once, one batch in one [`Engine::run`]. While the kernel carries it out commands are taken and the next one
/// is made ready; between two batches notifications are read.
pub(super) const BATCH: usize = 2048;
/// Wait before a refused write is tried again; doubles up to the maximum.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(30);

impl Engine {
    /// Begins one batch of keys to compare: made ready while the kernel is at the one before. The kernel refuses to add over, and to delete,
    /// what is not ours, so that such a batch is begun before it is known what became of that one. Only replacing needs our care.
    pub(super) fn write(&mut self, now: Instant, fib: &mut impl Fib) {
        let mut writes = self.writes(now);
        if writes.iter().any(|(_, write)| matches!(write, Write::Replace(_))) {
            self.finish(now, fib);
            self.leave_out_old(&mut writes);
        }
        self.keep_buckets(&mut writes);
        let over: BTreeSet<u32> = writes.iter().filter_map(|(_, write)| write.object()).collect();
        let refused = self.write_groups(now, fib, &over);
        if !refused.is_empty() {
            writes.retain(|(place, write)| {
                let Some(error) = write.object().and_then(|id| refused.get(&id)) else { return true };
                self.refuse(now, *place, write.clone(), error.clone());
                self.table.done(*place);
                false
            });
        }
        let is_idle = writes.is_empty();
        if !is_idle {
            fib.begin(writes.iter().map(|(_, write)| write));
            self.under_way.push_back(writes);
        }
        if is_idle || self.under_way.len() > 1 {
            self.finish_one(now, fib);
        }
    }

    /// Leaves out what something happened to meanwhile: it is looked at again, all of it by a dump that is due.
    fn leave_out_old(&mut self, writes: &mut Vec<(Place, Write)>) {
        if !self.stale && !self.table.are_again() {
            return;
        }
        let (stale, table, unsure) = (self.stale, &mut self.table, &mut self.unsure);
        writes.retain(|(place, write)| {
            let is_old = table.is_again(*place) || stale && matches!(write, Write::Replace(_));
            if is_old {
                table.known_at(*place).map(|known| unsure.remove(&known.key));
                table.done(*place);
            }
            !is_old
        });
    }

    /// What became of all batches that are under way, and what happened meanwhile.
    pub(super) fn finish(&mut self, now: Instant, fib: &mut impl Fib) {
        while !self.under_way.is_empty() {
            self.finish_one(now, fib);
        }
    }

    /// The same of the one that was begun first.
    fn finish_one(&mut self, now: Instant, fib: &mut impl Fib) {
        let Some(writes) = self.under_way.pop_front() else { return };
        let (mut repaired, mut results) = (Vec::new(), fib.finish().into_iter());
        for (place, write) in writes {
            match results.next().unwrap_or(Err(Error::NoReply)) {
                Ok(()) => self.written(now, place, write, &mut repaired),
                Err(error) if matches!(write, Write::Delete(..)) && error.is_absent() => {
                    self.written(now, place, write, &mut repaired);
                }
                Err(error) => self.refuse(now, place, write, error),
            }
            self.table.done(place);
        }
        if let Some(example) = repaired.first().copied() {
            self.counters.repairs = self.counters.repairs.saturating_add(repaired.len() as u64);
            self.events.push_back(Event::Repaired { routes: repaired.len(), example });
        }
        self.listen(now, fib);
    }

    /// What is to be written of the next batch of keys: grouped by where routes go, which the kernel takes faster, and what is
    /// added before what is deleted, so that there is never a gap when only the metric changes.
    fn writes(&mut self, now: Instant) -> Vec<(Place, Write)> {
        let mut writes = Vec::new();
        for _ in 0..BATCH {
            let Some(place) = self.table.take() else { break };
            match self.next_write(now, place) {
                Some(write) => writes.push((place, write)),
                None => self.table.done(place),
            }
        }
        writes.sort_by_cached_key(|(_, write)| (matches!(write, Write::Delete(..)), write.object()));
        writes
    }

    fn next_write(&mut self, now: Instant, place: Place) -> Option<Write> {
        let desired = self.desired_over_group(place);
        let Known { key, held, .. } = self.table.known_at(place)?;
        if desired.is_some() {
            self.adopted.remove(&key);
        }
        let (foreign, adopted) = (self.view.topology.holds(key), self.adopted.contains(&key));
        let compared = Compared { key, desired: desired.as_ref(), actual: held.as_deref(), foreign, adopted };
        let Some(write) = delta::write(compared) else {
            self.drifted.remove(&key);
            self.forget_refusal(key);
            return None;
        };
        let is_refused = |refused: &Refused| refused.write == write && refused.retry_at > now;
        (!self.refused.get(&key).is_some_and(is_refused)).then_some(write)
    }

    fn written(&mut self, now: Instant, place: Place, write: Write, repaired: &mut Vec<IpNet>) {
        let Some(Known { key, .. }) = self.table.known_at(place) else { return };
        self.counters.writes = self.counters.writes.saturating_add(1);
        self.forget_refusal(key);
        if !self.unsure.is_empty() && self.unsure.remove(&key) {
            self.ask_resync(now);
        }
        let drifted = !self.drifted.is_empty() && self.drifted.remove(&key);
        match write {
            Write::Add(route) | Write::Replace(route) => {
                self.table.hold_at(place, route);
                if drifted {
                    repaired.push(key.destination());
                }
            }
            Write::Delete(..) => {
                self.table.let_go_at(place);
            }
            Write::Neighbour(_)
            | Write::AddNexthop(_)
            | Write::ReplaceNexthop(_)
            | Write::DeleteNexthop(_) => {}
        }
    }

    fn forget_refusal(&mut self, key: RouteKey) {
        // As nearly always.
        if self.refused.is_empty() {
            return;
        }
        if let Some(refused) = self.refused.remove(&key) {
            self.retries.remove(&(refused.retry_at, key));
        }
    }

    fn refuse(&mut self, now: Instant, place: Place, write: Write, error: Error) {
        let Some(Known { key, .. }) = self.table.known_at(place) else { return };
        self.unsure.remove(&key);
        self.counters.refusals = self.counters.refusals.saturating_add(1);
        // The view may be wrong about who holds the key, or about whether the write was carried out.
        if error.is_present() || error.errno().is_none() {
            self.ask_resync(now);
        }
        let before = self.refused.remove(&key);
        let attempts = match &before {
            Some(before) => {
                self.retries.remove(&(before.retry_at, key));
                before.attempts.saturating_add(1)
            }
            None => 0,
        };
        // That a key is taken is told only when a dump did not tell by whom.
        let told = match (error.is_present(), attempts) {
            (true, 0) => true,
            (true, 1) => false,
            _ => before.is_some_and(|before| before.error == error),
        };
        if !told {
            self.events.push_back(Event::Refused { prefix: key.destination(), error: error.to_string() });
        }
        let delay = RETRY_MIN.saturating_mul(1u32.checked_shl(attempts).unwrap_or(u32::MAX)).min(RETRY_MAX);
        // A dump that was asked for may answer the refusal.
        let retry_at = self.resync_at.map_or(now + delay, |resync| resync.max(now + delay));
        self.retries.insert((retry_at, key));
        self.refused.insert(key, Refused { write, error, attempts, retry_at });
    }

    /// Sets the permanent neighbour entries that pods lack. One that is refused waits for the next change or
    /// audit.
    pub(super) fn write_neighbours(&mut self, fib: &mut impl Fib) {
        let mut writes = Vec::new();
        for pod in self.pods.values() {
            let known = self.view.neighbours.get(&(pod.link, pod.address));
            if self.is_up(pod.link) && known != Some(&pod.mac) {
                writes.push(Write::Neighbour(pod.neighbour()));
            }
        }
        let results = if writes.is_empty() { Vec::new() } else { fib.apply(&writes) };
        for (write, result) in writes.into_iter().zip(results) {
            let Write::Neighbour(entry) = write else { continue };
            match result {
                Ok(()) => {
                    self.counters.writes = self.counters.writes.saturating_add(1);
                    self.view.neighbours.insert((entry.link, entry.address), entry.mac);
                }
                Err(error) => {
                    self.counters.refusals = self.counters.refusals.saturating_add(1);
                    let prefix = IpNet::from(entry.address);
                    let error = format!("neighbour entry: {error}");
                    self.events.push_back(Event::Refused { prefix, error });
                }
            }
        }
    }
}
