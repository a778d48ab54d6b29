//! When has everybody told us everything? (RFC 4724 section 4.1, and the sweep of adopted kernel routes.)

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::TrackedNextHop;
use crate::ingress::Session;
use crate::session::State;
use crate::types::{Family, FamilySet, PeerId};

/// How long a peer may take to come up before it is taken for dead; a dead peer must not hold a restart.
const COME_UP: Duration = Duration::from_secs(5);

/// The same of a peer that we do not call, as it is dynamic or we are passive: after a session that broke off speakers wait for 5 s to 10 s before they dial.
const CALL: Duration = Duration::from_secs(15);

/// How much longer one may take whose host has taken the connection.
const OPEN: Duration = Duration::from_secs(5);

/// How long a peer that promises no End-of-RIB must be silent before its table counts as told.
const QUIET: Duration = Duration::from_secs(1);

/// However it stands with the peers.
const LIMIT: Duration = Duration::from_secs(30);

/// Waits for the first convergence: for every peer to be settled, and for every next hop to be looked up once. A peer is settled
/// when its End-of-RIB of all families is here; when it has been up and quiet for a while, if it promises no End-of-RIB; or when it
/// cannot be expected to come.
///
/// Before that comes the end of the deferral: a peer that restarts itself (R bit) may wait for us, so what we have to say must not
/// wait for it. What we originate waits for nobody: nothing that a peer may tell changes it. The rest of the table, and End-of-RIB, do.
#[derive(Debug)]
pub(super) struct Convergence {
    /// After a restart a failed dial proves little: the peer may not have noticed yet that the old session is gone.
    restarting: bool,
    /// Since the first configuration; `None` before.
    limit: Option<Instant>,
    unsettled: BTreeMap<PeerId, Progress>,
    /// Next hops asked for and not answered: their routes are not in the kernel's share of the Loc-RIB yet.
    unanswered: BTreeSet<TrackedNextHop>,
    converged: bool,
}

#[derive(Debug)]
struct Progress {
    come_up_by: Instant,
    stage: Stage,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// No connection has got anywhere.
    Down,
    /// A connection is there and no OPEN has come: the kernel of a host whose daemon hangs takes connections too.
    Silent,
    /// The peer answers: it comes, though maybe late.
    Opening,
    /// Its End-of-RIB is awaited.
    Table {
        /// Of these families.
        missing: FamilySet,
        /// Whether it restarts itself.
        restarting: bool,
    },
    /// It says nothing of its end; this is when it has been quiet for long enough.
    Quiet(Instant),
}

impl Convergence {
    pub(super) fn new(restarting: bool) -> Self {
        let (unsettled, unanswered) = (BTreeMap::new(), BTreeSet::new());
        Self { restarting, limit: None, unsettled, unanswered, converged: false }
    }

    pub(super) fn converged(&self) -> bool {
        self.converged
    }

    /// The speaker is configured; the peers that are to come up are [`expect`](Self::expect)ed.
    pub(super) fn configured(&mut self, now: Instant) {
        self.limit.get_or_insert(now + LIMIT);
    }

    pub(super) fn expect(&mut self, now: Instant, peer: PeerId) {
        self.expect_within(now, peer, COME_UP);
    }

    /// The same of a peer that we do not call.
    pub(super) fn expect_call(&mut self, now: Instant, peer: PeerId) {
        self.expect_within(now, peer, CALL);
    }

    fn expect_within(&mut self, now: Instant, peer: PeerId, time: Duration) {
        if !self.converged {
            let progress = Progress { come_up_by: now + time, stage: Stage::Down };
            self.unsettled.entry(peer).or_insert(progress);
        }
    }

    /// Whether the peer is still awaited.
    pub(super) fn expects(&self, peer: PeerId) -> bool {
        self.unsettled.contains_key(&peer)
    }

    /// The peer is gone, or it is told to stay down.
    pub(super) fn forget(&mut self, peer: PeerId) {
        self.unsettled.remove(&peer);
    }

    pub(super) fn moved(&mut self, peer: PeerId, from: State, to: State) {
        let Some(progress) = self.unsettled.get_mut(&peer) else { return };
        match to {
            State::Idle | State::Connect | State::Active => progress.stage = Stage::Down,
            State::OpenSent => progress.stage = Stage::Silent,
            State::OpenConfirm => progress.stage = Stage::Opening,
            State::Established => {}
        }
        let tried = matches!(from, State::Connect | State::OpenSent | State::OpenConfirm);
        if tried && matches!(to, State::Idle | State::Active) && !self.restarting {
            self.unsettled.remove(&peer);
        }
    }

    pub(super) fn up(&mut self, now: Instant, peer: PeerId, session: &Session) {
        if let Some(progress) = self.unsettled.get_mut(&peer) {
            progress.stage = match session.graceful_restart {
                Some(theirs) => Stage::Table { missing: session.families, restarting: theirs.restarting },
                None => Stage::Quiet(now + QUIET),
            };
        }
    }

    pub(super) fn routes(&mut self, now: Instant, peer: PeerId) {
        if let Some(Progress { stage: Stage::Quiet(until), .. }) = self.unsettled.get_mut(&peer) {
            *until = now + QUIET;
        }
    }

    pub(super) fn end_of_rib(&mut self, peer: PeerId, family: Family) {
        if let Some(Progress { stage: Stage::Table { missing, .. }, .. }) = self.unsettled.get_mut(&peer) {
            missing.remove(family);
            if missing.is_empty() {
                self.unsettled.remove(&peer);
            }
        }
    }

    pub(super) fn asked(&mut self, next_hop: TrackedNextHop) {
        if !self.converged {
            self.unanswered.insert(next_hop);
        }
    }

    /// The next hop is looked up, or of no interest any more.
    pub(super) fn answered(&mut self, next_hop: &TrackedNextHop) {
        self.unanswered.remove(next_hop);
    }

    /// Whether everybody whose table was to be awaited before we speak has told it, and its next hops are looked up: a route whose
    /// next hop is in doubt is not announced, and what is not announced before End-of-RIB is withdrawn.
    pub(super) fn deferral_is_over(&self, now: Instant) -> bool {
        let waits_for_us = |p: &Progress| matches!(p.stage, Stage::Table { restarting: true, .. });
        let over = |p: &Progress| waits_for_us(p) || p.is_settled(now);
        let told = self.unanswered.is_empty() && self.unsettled.values().all(over);
        self.converged || self.limit.is_some_and(|limit| limit <= now || told)
    }

    /// Whether this is the moment; true once.
    pub(super) fn reached(&mut self, now: Instant) -> bool {
        let Some(limit) = self.limit.filter(|_| !self.converged) else { return false };
        self.unsettled.retain(|_, progress| !progress.is_settled(now));
        let settled = self.unsettled.is_empty() && self.unanswered.is_empty();
        if settled || limit <= now {
            self.converged = true;
            self.unsettled.clear();
            self.unanswered.clear();
        }
        self.converged
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let limit = self.limit.filter(|_| !self.converged)?;
        Some(self.unsettled.values().filter_map(Progress::deadline).fold(limit, Instant::min))
    }
}

impl Progress {
    fn is_settled(&self, now: Instant) -> bool {
        self.deadline().is_some_and(|at| at <= now)
    }

    /// When the peer is settled without a further word.
    fn deadline(&self) -> Option<Instant> {
        match self.stage {
            Stage::Down => Some(self.come_up_by),
            Stage::Silent => Some(self.come_up_by + OPEN),
            Stage::Opening | Stage::Table { .. } => None,
            Stage::Quiet(until) => Some(until),
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "any instant will do as the start")]
mod tests {
    use super::*;
    use crate::ingress::PeerGracefulRestart;
    use crate::types::{Asn, ConnectionId, PeerType};

    const PEER: PeerId = PeerId(1);
    const OTHER: PeerId = PeerId(2);

    fn session(graceful_restart: Option<bool>) -> Session {
        Session {
            connection: ConnectionId::Dialled(1),
            local: "10.0.0.1:179".parse().unwrap(),
            remote: [10, 0, 0, 2].into(),
            local_as: Asn(1),
            remote_as: Asn(2),
            peer_type: PeerType::External,
            remote_id: [10, 0, 0, 2].into(),
            families: FamilySet::all(),
            four_octet_as: true,
            extended_next_hop: false,
            add_path: <_>::default(),
            route_refresh: true,
            enhanced_route_refresh: true,
            role: None,
            remote_role: None,
            max_message: 4096,
            hold_time: Duration::from_secs(90),
            keepalive_time: Duration::from_secs(30),
            graceful_restart: graceful_restart.map(|restarting| PeerGracefulRestart {
                restarting,
                notification: true,
                long_lived: None,
                restart_time: Duration::from_secs(120),
                families: FamilySet::all(),
                forwarding: FamilySet::all(),
            }),
        }
    }

    /// Configured at the returned instant, with these peers to come.
    fn waiting(restarting: bool, peers: &[PeerId]) -> (Convergence, Instant) {
        let (mut convergence, now) = (Convergence::new(restarting), Instant::now());
        assert!(!convergence.reached(now), "nothing is reached before the configuration");
        convergence.configured(now);
        peers.iter().for_each(|peer| convergence.expect(now, *peer));
        (convergence, now)
    }

    fn seconds(s: f64) -> Duration {
        Duration::from_secs_f64(s)
    }

    #[test]
    fn without_peers_at_once_and_only_once() {
        let (mut convergence, now) = waiting(true, &[]);
        assert!(convergence.reached(now));
        assert!(!convergence.reached(now));
        assert_eq!(convergence.next_deadline(), None);
        convergence.expect(now, PEER);
        assert!(!convergence.reached(now + LIMIT * 2));
    }

    #[test]
    fn end_of_rib_of_every_family_is_awaited() {
        let (mut convergence, now) = waiting(true, &[PEER]);
        convergence.up(now, PEER, &session(Some(false)));
        convergence.end_of_rib(PEER, Family::Ipv4Unicast);
        assert!(!convergence.reached(now + seconds(20.0)));
        convergence.end_of_rib(PEER, Family::Ipv6Unicast);
        assert!(convergence.reached(now + seconds(20.0)));
    }

    #[test]
    fn a_peer_without_graceful_restart_is_awaited_until_it_is_quiet() {
        let (mut convergence, now) = waiting(true, &[PEER]);
        convergence.up(now, PEER, &session(None));
        assert_eq!(convergence.next_deadline(), Some(now + QUIET));
        convergence.routes(now + seconds(0.9), PEER);
        assert!(!convergence.reached(now + seconds(1.5)));
        assert!(convergence.reached(now + seconds(1.9)));
    }

    #[test]
    fn a_peer_that_restarts_itself_is_told_before_it_tells() {
        let (mut convergence, now) = waiting(true, &[PEER, OTHER]);
        convergence.up(now, PEER, &session(Some(true)));
        assert!(!convergence.deferral_is_over(now), "the other one may know something yet");
        convergence.up(now, OTHER, &session(Some(true)));
        assert!(convergence.deferral_is_over(now) && !convergence.reached(now));
        for (peer, family) in [PEER, OTHER].into_iter().flat_map(|p| Family::ALL.map(|f| (p, f))) {
            assert!(!convergence.reached(now + seconds(10.0)));
            convergence.end_of_rib(peer, family);
        }
        assert!(convergence.reached(now + seconds(10.0)));
    }

    #[test]
    fn a_dead_peer_holds_nobody_longer_than_five_seconds() {
        let (mut convergence, now) = waiting(true, &[PEER]);
        convergence.moved(PEER, State::Connect, State::Active);
        assert!(!convergence.reached(now + seconds(4.9)), "after a restart the peer gets a second chance");
        assert!(convergence.reached(now + seconds(5.0)));

        let (mut convergence, now) = waiting(false, &[PEER, OTHER]);
        convergence.moved(PEER, State::Connect, State::Active);
        assert!(!convergence.reached(now));
        convergence.moved(OTHER, State::OpenSent, State::Idle);
        assert!(convergence.reached(now));
    }

    #[test]
    fn a_peer_that_answers_is_awaited_but_not_for_ever() {
        let (mut convergence, now) = waiting(true, &[PEER]);
        convergence.moved(PEER, State::OpenSent, State::OpenConfirm);
        assert_eq!(convergence.next_deadline(), Some(now + LIMIT));
        assert!(!convergence.reached(now + seconds(29.9)));
        assert!(convergence.reached(now + LIMIT));

        let (mut convergence, now) = waiting(true, &[PEER]);
        convergence.moved(PEER, State::Connect, State::OpenSent);
        convergence.moved(PEER, State::OpenSent, State::Idle);
        assert!(convergence.reached(now + COME_UP), "it came to nothing");
    }

    /// A daemon that hangs: its kernel takes the connection, and no OPEN comes.
    #[test]
    fn a_peer_that_takes_the_connection_and_is_silent_is_as_good_as_dead() {
        let (mut convergence, now) = waiting(true, &[PEER]);
        convergence.moved(PEER, State::Connect, State::OpenSent);
        assert!(!convergence.reached(now + seconds(9.9)));
        assert!(convergence.reached(now + COME_UP + OPEN));
    }

    #[test]
    fn a_peer_that_dies_while_its_table_is_awaited_is_awaited_no_longer() {
        let (mut convergence, now) = waiting(true, &[PEER]);
        convergence.up(now, PEER, &session(Some(false)));
        convergence.end_of_rib(PEER, Family::Ipv4Unicast);
        assert!(!convergence.reached(now + seconds(6.0)));
        convergence.moved(PEER, State::Established, State::Idle);
        assert!(convergence.reached(now + seconds(6.0)));
    }

    #[test]
    fn next_hops_must_be_looked_up_first() {
        let (mut convergence, now) = waiting(true, &[PEER]);
        let next_hop = TrackedNextHop { address: [10, 0, 0, 2].into(), default_route: false, link: None };
        convergence.asked(next_hop);
        convergence.forget(PEER);
        assert!(!convergence.deferral_is_over(now) && !convergence.reached(now));
        convergence.answered(&next_hop);
        assert!(convergence.deferral_is_over(now) && convergence.reached(now));
    }
}
