//! BFD as the driver knows it: whose session each is, and what the speaker was told of.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::{Bfd, BfdReport, Standing, Standings};
use crate::bfd::{Change, Remote, Resumption};
use crate::config::PeerConfig;
use crate::types::PeerAddress;

/// The sessions of peers.
#[derive(Default)]
pub(in crate::transport) struct Sessions {
    /// Runs from the first peer that wants it on.
    thread: Option<Bfd>,
    /// Why it does not.
    error: Option<String>,
    /// Whose session each is.
    peers: BTreeMap<Remote, PeerAddress>,
    /// What the speaker was told of.
    seen: Standings,
    /// Sessions of a process that died, for the thread to go on with.
    resume: Option<BTreeMap<Remote, Resumption>>,
}

impl Sessions {
    /// Has the thread keep the sessions of these peers, those that are named and the dynamic ones; starts it with the first.
    pub(in crate::transport) fn configure(
        &mut self,
        peers: &BTreeMap<PeerAddress, Arc<PeerConfig>>,
        dynamic: &BTreeMap<PeerAddress, Arc<PeerConfig>>,
    ) {
        let sessions: BTreeMap<_, _> = dynamic
            .iter()
            .chain(peers)
            .filter_map(|(address, peer)| Some((peer.bfd_remote(*address)?, (*address, peer.bfd?))))
            .collect();
        self.peers = sessions.iter().map(|(remote, (address, _))| (*remote, *address)).collect();
        self.seen.retain(|remote, _| sessions.contains_key(remote));
        if self.thread.is_none() && !sessions.is_empty() {
            let started = Bfd::start();
            self.error = started.as_ref().err().map(ToString::to_string);
            if let Some(error) = &self.error {
                tracing::error!(error, "cannot run BFD; trying again when the configuration changes");
            }
            self.thread = started.ok();
        }
        if let Some(thread) = &self.thread {
            let sessions = sessions.into_iter().map(|(remote, (_, session))| (remote, session)).collect();
            thread.configure(sessions, self.resume.take());
        }
    }

    /// Has the thread go on with these sessions, once it runs and they are wanted.
    pub(in crate::transport) fn resume(&mut self, sessions: BTreeMap<Remote, Resumption>) {
        self.resume = Some(sessions);
    }

    /// What another process would need to go on with the sessions that are Up.
    pub(in crate::transport) fn resumptions(&self) -> BTreeMap<Remote, Resumption> {
        self.seen.iter().filter_map(|(remote, standing)| Some((*remote, standing.resumption?))).collect()
    }

    /// Waits for changes; for ever while there is no thread.
    pub(in crate::transport) async fn changed(&mut self) -> Standings {
        if let Some(thread) = &mut self.thread {
            if thread.standings.changed().await.is_ok() {
                return thread.standings.borrow_and_update().clone();
            }
            tracing::error!("the thread of BFD has died; it is started anew when the configuration changes");
            self.error = Some("its thread has died".to_owned());
            self.thread = None;
        }
        pending().await
    }

    /// What the speaker has not been told of. Several changes of a session make one, and a failure among them stays one.
    pub(in crate::transport) fn news(&mut self, standings: &Standings) -> Vec<(PeerAddress, Change)> {
        let mut news = Vec::new();
        for (remote, standing) in standings {
            let Some(peer) = self.peers.get(remote) else { continue };
            let Standing { change, changes, failures, .. } = *standing;
            match self.seen.insert(*remote, *standing) {
                // What was before it was wanted is nobody's business.
                None => news.push((*peer, change)),
                Some(seen) if seen.changes == changes => {}
                Some(seen) => news.push((*peer, Change { failed: failures > seen.failures, ..change })),
            }
        }
        news
    }

    pub(in crate::transport) fn report(&self, answer: oneshot::Sender<BfdReport>) {
        match &self.thread {
            Some(thread) => thread.ask(answer),
            None => {
                let errors = self.error.iter().map(|error| (None, error.clone())).collect();
                // Whoever asked may have given up.
                let _ = answer.send(BfdReport { errors, ..BfdReport::default() });
            }
        }
    }

    /// Takes every session down by will.
    pub(in crate::transport) async fn stop(&self) {
        if let Some(thread) = &self.thread {
            thread.stop().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::bfd::{Diagnostic, State};

    #[test]
    fn a_failure_that_is_over_before_it_is_told_is_told_once() {
        let (remote, peer) = (Remote { address: [10, 0, 0, 1].into(), link: None }, [10, 0, 0, 1].into());
        let mut sessions = Sessions { peers: [(remote, peer)].into(), ..Sessions::default() };
        let up =
            Change { state: State::Up, diagnostic: Diagnostic::NONE, failed: false, silence: Duration::ZERO };
        let mut tell = |changes, failures| {
            let standing = Standing { change: up, changes, failures, resumption: None };
            sessions.news(&[(remote, standing)].into())
        };
        assert_eq!(tell(2, 0), [(peer, up)]);
        assert_eq!(tell(2, 0), []);
        assert_eq!(tell(5, 1), [(peer, Change { failed: true, ..up })]);
        assert_eq!(tell(6, 1), [(peer, up)]);
    }

    #[test]
    fn failures_of_a_session_that_was_given_up_are_not_told_of_the_next() {
        let (remote, peer) = (Remote { address: [10, 0, 0, 1].into(), link: None }, [10, 0, 0, 1].into());
        let mut sessions = Sessions { peers: [(remote, peer)].into(), ..Sessions::default() };
        let change = Change {
            state: State::Init,
            diagnostic: Diagnostic::NONE,
            failed: false,
            silence: Duration::ZERO,
        };
        let standing = Standing { change, changes: 9, failures: 3, resumption: None };
        assert_eq!(sessions.news(&[(remote, standing)].into()), [(peer, change)]);
        sessions.peers.clear();
        assert_eq!(sessions.news(&[(remote, Standing { changes: 10, ..standing })].into()), []);
    }
}
