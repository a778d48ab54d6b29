//! The update groups between two threads: one that tells them, and one that packs for them.
//!
//! What the groups are to hear waits in a queue of its own, so that who tells them does not wait for who packs. Whoever holds the groups
//! works the queue off in its order, so that it makes no difference who that is: alone, the one thread does it all.

use std::collections::VecDeque;
use std::panic::resume_unwind;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::groups::{GroupInput, Groups, Told};
use super::{EgressInput, GroupId};

/// How many inputs wait for a helper at most: who tells more does the work himself.
const WAITING_MAX: usize = 16;

/// With how many changes it is worth waking a helper.
const MANY: usize = 256;

/// The groups, for the thread that tells them.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    queue: Mutex<Queue>,
    handed_over: Condvar,
    /// Locked before [`Self::queue`] and [`Self::told`] by who locks both.
    groups: Mutex<Groups>,
    told: Mutex<VecDeque<Told>>,
}

#[derive(Debug, Default)]
struct Queue {
    inputs: VecDeque<GroupInput>,
    /// Whether the helper has work, until it has found none.
    handed_over: bool,
    /// Whether there is a helper.
    helped: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// What another thread is to run, from now on, until the groups are dropped or [`Self::dismiss`]ed. It calls `wake` when there is
    /// something to [`poll`](Self::poll).
    pub(crate) fn help<W: Fn() + Send + 'static>(&mut self, wake: W) -> impl FnOnce() + Send + use<W> {
        lock(&self.inner.queue).helped = true;
        let inner = Arc::clone(&self.inner);
        move || inner.attend(wake)
    }

    /// Does without the helper from now on.
    pub(crate) fn dismiss(&mut self) {
        self.inner.close();
    }

    /// A group hears something, or is no more.
    pub(crate) fn handle(&self, now: Instant, group: GroupId, input: Option<EgressInput>) {
        let many = matches!(
            &input,
            Some(EgressInput::Changes(changes) | EgressInput::Fill(changes)) if changes.len() >= MANY
        );
        let mut queue = lock(&self.inner.queue);
        queue.inputs.push_back((now, group, input));
        let full = queue.inputs.len() > WAITING_MAX;
        if queue.helped && many && !queue.handed_over {
            queue.handed_over = true;
            self.inner.handed_over.notify_one();
        }
        drop(queue);
        if full {
            self.inner.work_off_one(&mut self.inner.groups());
        }
    }

    /// The next messages for a peer. None: there are none yet, or no peer has room.
    pub(crate) fn poll(&self) -> Option<Told> {
        let told = lock(&self.inner.told).pop_front();
        if told.is_some() || lock(&self.inner.queue).handed_over {
            return told;
        }
        let mut groups = self.inner.groups();
        self.inner.work_off(&mut groups);
        while groups.pack() {}
        let mut told = lock(&self.inner.told);
        told.append(&mut groups.take());
        told.pop_front()
    }

    /// Whether everything that the groups were told has been packed, as far as peers have room, and polled.
    pub(crate) fn is_at_rest(&self) -> bool {
        let queue = lock(&self.inner.queue);
        !queue.handed_over && queue.inputs.is_empty() && lock(&self.inner.told).is_empty()
    }

    /// Looks at the groups as they are after all that they were told.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Groups) -> T) -> T {
        let mut groups = self.inner.groups();
        self.inner.work_off(&mut groups);
        look(&groups)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.inner.close();
    }
}

impl Inner {
    fn close(&self) {
        let mut queue = lock(&self.queue);
        (queue.helped, queue.handed_over) = (false, false);
        self.handed_over.notify_one();
    }

    /// What a panic has left half done is nobody's to go on with: it becomes that of whoever comes next.
    fn groups(&self) -> MutexGuard<'_, Groups> {
        self.groups.lock().unwrap_or_else(|poisoned| resume_unwind(Box::new(poisoned.to_string())))
    }

    fn work_off(&self, groups: &mut Groups) {
        while self.work_off_one(groups) {}
    }

    fn work_off_one(&self, groups: &mut Groups) -> bool {
        let input = lock(&self.queue).inputs.pop_front();
        input.map(|input| groups.handle(input)).is_some()
    }

    /// Waits for work; says whether there will be any.
    fn has_work(&self) -> bool {
        let is_idle = |queue: &mut Queue| queue.helped && !queue.handed_over;
        let queue = self.handed_over.wait_while(lock(&self.queue), is_idle);
        queue.unwrap_or_else(PoisonError::into_inner).helped
    }

    fn attend(&self, wake: impl Fn()) {
        let _leaving = Leaving(self, &wake);
        while self.has_work() {
            while self.step(&wake) {}
            // Somebody may wait for this to be over.
            wake();
        }
    }

    /// Takes in one input and packs one piece; says whether there may be more to do. In between, others get at the groups.
    fn step(&self, wake: &impl Fn()) -> bool {
        let mut groups = self.groups();
        let heard = self.work_off_one(&mut groups);
        if groups.pack() {
            lock(&self.told).append(&mut groups.take());
            wake();
        } else if !heard {
            let mut queue = lock(&self.queue);
            queue.handed_over &= !queue.inputs.is_empty();
            return queue.handed_over;
        }
        true
    }
}

/// However the helper ends, by a panic too, nobody waits for it.
struct Leaving<'a, W: Fn()>(&'a Inner, &'a W);

impl<W: Fn()> Drop for Leaving<'_, W> {
    fn drop(&mut self) {
        self.0.close();
        (self.1)();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_the_helper_is_not_waited_for() {
        let mut shared = Shared::default();
        let help = shared.help(|| ());
        let inner = Arc::clone(&shared.inner);
        let poisoning = std::thread::spawn(move || {
            let _groups = inner.groups();
            panic!("half done");
        });
        assert!(poisoning.join().is_err());
        lock(&shared.inner.queue).handed_over = true;
        assert!(std::thread::spawn(help).join().is_err(), "it meets the panic");
        assert!(!lock(&shared.inner.queue).handed_over);
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| shared.poll())).is_err());
    }
}
