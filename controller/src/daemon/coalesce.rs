//! News that wait together: a writer that must not block leaves what it has, a reader takes all of it at once.
//!
//! The loop, the kernel's thread and the transport's tasks talk in a ring: each feeds the next. A ring of queues that block when
//! full can come to a stand; so two of its edges are of this kind. Memory is bounded as what waits is *state* (the last word on
//! each next hop, a count), not a history.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// News of one kind. Cloned freely: any number of writers, one reader.
#[derive(Debug, Default)]
pub(super) struct Coalesced<T> {
    shared: Arc<Shared<T>>,
}

#[derive(Debug, Default)]
struct Shared<T> {
    news: Mutex<T>,
    left: Notify,
}

impl<T> Clone for Coalesced<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<T: Default> Coalesced<T> {
    /// Adds to what waits. Never blocks for long; works on any thread.
    pub(super) fn leave(&self, add: impl FnOnce(&mut T)) {
        // A panic elsewhere cannot have left the news half-changed: each writer only inserts.
        add(&mut self.shared.news.lock().unwrap_or_else(PoisonError::into_inner));
        self.shared.left.notify_one();
    }

    /// Waits for news and takes all there are. Cancel safe.
    pub(super) async fn take(&self) -> T {
        self.shared.left.notified().await;
        std::mem::take(&mut *self.shared.news.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_left_before_comes_together() {
        let news: Coalesced<Vec<u32>> = Coalesced::default();
        let writer = news.clone();
        std::thread::spawn(move || {
            writer.leave(|n| n.push(1));
            writer.leave(|n| n.push(2));
        })
        .join()
        .unwrap();
        assert_eq!(news.take().await, [1, 2]);
    }
}
