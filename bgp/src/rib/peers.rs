//! Peers: configuration, sessions, and how their routes outlive a session (RFC 4724 section 4.2).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::holdings::{Link, Peer, Phase, Retention};
use super::loc::CHUNK;
use super::{Rib, Settings};
use crate::config::PeerConfig;
use crate::ingress::{Down, PeerGracefulRestart, Session};
use crate::policy::CompiledPolicy;
use crate::types::{Family, FamilySet, PeerAddress, PeerId, link_of};

impl Rib {
    pub(super) fn configure(&mut self, settings: Settings, next_hop_tracking: bool) {
        let old = std::mem::replace(&mut self.settings, settings);
        for prefix in old.originate.keys() {
            if !self.settings.originate.contains_key(prefix) {
                self.originate_no_more(*prefix);
            }
        }
        for (prefix, origination) in self.settings.originate.clone() {
            if origination.aggregation.is_none() && old.originate.get(&prefix) != Some(&origination) {
                self.originate(prefix, &origination);
            }
        }
        let tracking_changes = self.holdings.hops.set_tracking(next_hop_tracking);
        let cluster_changes = old.cluster_id != self.settings.cluster_id;
        let identity_changes = (old.asn, old.router_id) != (self.settings.asn, self.settings.router_id);
        if tracking_changes || identity_changes || cluster_changes {
            self.judge_again(|_| true);
        }
        if cluster_changes {
            self.join_groups();
        }
        if identity_changes || !old.aggregates().eq(self.settings.aggregates()) {
            self.configure_aggregates();
        }
        let for_kernel = |settings: &Settings| (settings.max_paths, settings.install_routes);
        if tracking_changes || for_kernel(&old) != for_kernel(&self.settings) {
            let all: Vec<_> = self.table.walk(0).map(|(id, ..)| id).collect();
            all.into_iter().for_each(|id| self.dirty.mark(id));
        }
    }

    pub(super) fn configure_peer(&mut self, id: PeerId, address: PeerAddress, config: Arc<PeerConfig>) {
        let Some(peer) = self.holdings.peers.get_mut(&id) else {
            self.own_configured(&config, true);
            self.holdings.peers.insert(id, Peer::new(address, config));
            return;
        };
        let old = std::mem::replace(&mut peer.config, config.clone());
        let import_changes = old.import != config.import;
        if import_changes {
            peer.import = Arc::new(CompiledPolicy::new(config.import.clone()));
        }
        let checks = |c: &PeerConfig| (c.allowed_own_as, c.allow_as_sets, c.ebgp_multihop);
        if import_changes || checks(&old) != checks(&config) {
            self.judge_again(|path| path.source.is_of(id));
        }
        self.own_configured(&config, true);
        self.own_configured(&old, false);
        if old.max_prefixes != config.max_prefixes {
            self.reset_limits(id);
            Family::ALL.into_iter().for_each(|family| self.check_limit(id, family));
        }
        if old.route_reflector_client != config.route_reflector_client {
            self.export_anew(id);
        }
        self.join_group(id);
    }

    pub(super) fn remove_peer(&mut self, id: PeerId) {
        self.leave_group(id);
        self.withdraw_where(id, 0..self.table.places(), |_, _| true);
        let Some(peer) = self.holdings.peers.remove(&id) else { return };
        if let Link::Up(session) = &peer.link {
            self.own_address(own_end(session.local), false);
        }
        self.own_configured(&peer.config, false);
    }

    fn own_configured(&mut self, config: &PeerConfig, own: bool) {
        let addresses = [config.next_hop_v4.map(IpAddr::V4), config.next_hop_v6.map(IpAddr::V6)];
        addresses.into_iter().flatten().for_each(|address| self.own_address((address, None), own));
    }

    /// Counts who says that an address is ours. Paths that have it as their next hop are judged again when that changes.
    fn own_address(&mut self, address: (IpAddr, Option<u32>), own: bool) {
        let count = self.own_addresses.get(&address).copied().unwrap_or(0);
        let now = if own { count + 1 } else { count.saturating_sub(1) };
        if now == 0 {
            self.own_addresses.remove(&address);
        } else {
            self.own_addresses.insert(address, now);
        }
        if (count == 0) != (now == 0) {
            let attributes = &self.holdings.attributes;
            let concerned: std::collections::BTreeSet<_> = self
                .table
                .walk(0)
                .flat_map(|(_, _, destination)| destination.paths())
                .map(|path| path.attributes)
                .filter(|id| attributes.get(*id).next_hop == address)
                .collect();
            if !concerned.is_empty() {
                self.judge_again(|path| concerned.contains(&path.attributes));
            }
        }
    }

    pub(super) fn up(&mut self, now: Instant, id: PeerId, session: Arc<Session>) {
        if self.holdings.peers.get(&id).is_some_and(|peer| peer.established().is_some()) {
            self.down(now, id, &Down::Death);
        }
        let Some(peer) = self.holdings.peers.get_mut(&id) else { return };
        let before = std::mem::replace(&mut peer.link, Link::Up(session.clone()));
        if let Link::Restarting(before) = before {
            let renamed = before.remote_id != session.remote_id;
            // What the peer forwarded on is gone, or it does not do graceful restart any more.
            let restarted = session.graceful_restart.filter(|_| comparable(&before, &session));
            let lost = Family::ALL.into_iter().filter(|family| {
                let retention = &mut peer.adj_rib_in_mut(*family).retention;
                !retention.as_mut().zip(restarted).is_some_and(|(kept, gr)| stays(kept, now, *family, &gr))
            });
            let lost: FamilySet = lost.collect();
            self.drop_stale(id, lost);
            if renamed {
                // It is a tie-break, and ORIGINATOR_ID where it is reflected.
                let ids =
                    self.table.walk(0).filter(|(_, _, destination)| !destination.paths_of(id).is_empty());
                ids.map(|(id, ..)| id).collect::<Vec<_>>().into_iter().for_each(|id| self.dirty.mark(id));
                self.export_anew(id);
            }
        }
        self.reset_limits(id);
        self.reset_refused(id);
        self.own_address(own_end(session.local), true);
        self.join_group(id);
    }

    pub(super) fn down(&mut self, now: Instant, id: PeerId, down: &Down) {
        let Some(peer) = self.holdings.peers.get_mut(&id) else { return };
        let session = match std::mem::replace(&mut peer.link, Link::Down) {
            Link::Up(session) => session,
            // A dial that fails while we wait for it says nothing of its routes; being told of its death does.
            Link::Restarting(session) if *down != Down::Death => {
                peer.link = Link::Restarting(session);
                return;
            }
            Link::Restarting(_) => return self.withdraw_all(id),
            Link::Down => return,
        };
        match down {
            Down::Death => self.withdraw_all(id),
            Down::Restart { families, restart_time } | Down::Superseded { families, restart_time } => {
                peer.link = Link::Restarting(session.clone());
                let graceful = session.graceful_restart;
                if matches!(down, Down::Restart { .. }) && !graceful.is_some_and(|gr| gr.notification) {
                    // "To deal with possible consecutive restarts" (RFC 4724 section 4.2), which RFC 8538 and RFC 9494 bound by
                    // timers instead.
                    let peer = &*peer;
                    let restarts_again = |family: &Family| {
                        let retention = peer.adj_rib_in(*family).retention;
                        retention.is_some_and(|r| r.phase == Phase::Restart && r.long_lived_until.is_none())
                    };
                    let once: FamilySet = families.iter().filter(restarts_again).collect();
                    self.drop_stale(id, once);
                }
                let restarts = graceful.map_or(*families, |gr| gr.families);
                self.mark_stale(now, id, *families, |family| match restarts.contains(family) {
                    true => *restart_time,
                    false => Duration::ZERO,
                });
            }
        }
        self.leave_group(id);
        self.own_address(own_end(session.local), false);
    }

    /// Takes out all that a peer has told, a piece of the table at a time: see [`Rib::withdraw_piece`].
    fn withdraw_all(&mut self, id: PeerId) {
        if let Some(peer) = self.holdings.peers.get_mut(&id) {
            (peer.ipv4.retention, peer.ipv6.retention) = (None, None);
        }
        self.departing = Some((id, 0));
    }

    /// Takes out what a peer that is gone has told, a piece further; says whether there was any such peer. What follows from a piece is
    /// on its way while the next one is looked at.
    pub(super) fn withdraw_piece(&mut self) -> bool {
        let Some((id, from)) = self.departing else { return false };
        // Half of the places are those of the other family.
        let (end, all) = (from + 2 * CHUNK, self.table.places());
        self.withdraw_where(id, from..end.min(all), |_, _| true);
        self.departing = (end < all).then_some((id, end));
        true
    }

    /// Makes what a peer has told stale, in these families, for the time in which it should be back; the others' routes go.
    fn mark_stale(
        &mut self,
        now: Instant,
        id: PeerId,
        families: FamilySet,
        restart_time: impl Fn(Family) -> Duration,
    ) {
        let Some(peer) = self.holdings.peers.get_mut(&id) else { return };
        for family in Family::ALL {
            let adj = peer.adj_rib_in_mut(family);
            let before = adj.retention.filter(|kept| adj.stale > 0 && kept.phase != Phase::Refresh);
            adj.epoch = adj.epoch.wrapping_add(1);
            adj.stale = adj.received;
            let mut retention = before.unwrap_or_else(|| Retention::new(now));
            retention.put_off(now, restart_time(family));
            adj.retention = Some(retention).filter(|_| adj.stale > 0);
        }
        let lost: FamilySet = Family::ALL.into_iter().filter(|f| !families.contains(*f)).collect();
        self.drop_stale(id, lost);
    }

    /// Takes out what is still stale of a peer's routes of these families. Costs nothing where nothing is.
    fn drop_stale(&mut self, id: PeerId, families: FamilySet) {
        let Some(peer) = self.holdings.peers.get_mut(&id) else { return };
        let epochs = (peer.ipv4.epoch, peer.ipv6.epoch);
        if families.iter().any(|family| peer.adj_rib_in(family).stale > 0) {
            self.withdraw_where(id, 0..self.table.places(), |family, path| {
                let epoch = if family == Family::Ipv4Unicast { epochs.0 } else { epochs.1 };
                families.contains(family) && path.epoch != epoch
            });
        }
        let Some(peer) = self.holdings.peers.get_mut(&id) else { return };
        for adj in [&mut peer.ipv4, &mut peer.ipv6] {
            adj.retention = adj.retention.filter(|_| adj.stale > 0);
        }
    }

    pub(super) fn end_of_rib(&mut self, id: PeerId, family: Family) {
        let Some(peer) = self.holdings.peers.get(&id).filter(|peer| peer.established().is_some()) else {
            return;
        };
        // Once a refresh has begun, its own end says what is left.
        if peer.adj_rib_in(family).retention.is_none_or(|kept| kept.phase != Phase::Refresh) {
            self.drop_stale(id, [family].into_iter().collect());
        }
    }

    /// Makes what a peer has told of a family stale until it is told again (RFC 7313 section 4).
    pub(super) fn refresh_begins(&mut self, now: Instant, id: PeerId, family: Family) {
        let Some(peer) = self.holdings.peers.get_mut(&id).filter(|peer| peer.established().is_some()) else {
            return;
        };
        let adj = peer.adj_rib_in_mut(family);
        adj.epoch = adj.epoch.wrapping_add(1);
        adj.stale = adj.received;
        let begun = Retention { until: now + Retention::REFRESH_MAX, ..Retention::new(now) };
        let retention = Retention { phase: Phase::Refresh, ..adj.retention.unwrap_or(begun) };
        adj.retention = Some(retention).filter(|_| adj.stale > 0);
    }

    /// Takes out what a peer has not told again. An end without a beginning says nothing.
    pub(super) fn refresh_ends(&mut self, id: PeerId, family: Family) {
        let retention = self.holdings.peers.get(&id).and_then(|peer| peer.adj_rib_in(family).retention);
        if retention.is_some_and(|kept| kept.phase == Phase::Refresh) {
            self.drop_stale(id, [family].into_iter().collect());
        }
    }

    /// Of the families whose restart time is over, those whose paths are kept for longer, as the peer is still away.
    fn outlived(&mut self, now: Instant, id: PeerId, families: FamilySet) -> FamilySet {
        let Some(peer) = self.holdings.peers.get_mut(&id) else { return FamilySet::EMPTY };
        let Link::Restarting(session) = &peer.link else { return FamilySet::EMPTY };
        let Some(graceful) = session.graceful_restart else { return FamilySet::EMPTY };
        let mut outlives = |family: &Family| {
            let retention = &mut peer.adj_rib_in_mut(*family).retention;
            let time = graceful.long_lived_time(*family);
            retention
                .as_mut()
                .filter(|r| r.phase == Phase::Restart && !time.is_zero())
                .is_some_and(|r| r.outlive(now, time))
        };
        families.iter().filter(|family| outlives(family)).collect()
    }

    /// Lets stale routes go whose time is up, or makes them long-lived.
    pub(super) fn expire(&mut self, now: Instant) {
        let due = self.holdings.peers.iter().map(|(id, peer)| {
            let over = |f: &Family| peer.adj_rib_in(*f).retention.is_some_and(|r| r.until <= now);
            (*id, Family::ALL.into_iter().filter(over).collect::<FamilySet>())
        });
        let due: Vec<_> = due.filter(|(_, families)| !families.is_empty()).collect();
        for (id, families) in due {
            let outlived = self.outlived(now, id, families);
            self.mark_long_lived(id, outlived);
            self.drop_stale(id, families.iter().filter(|family| !outlived.contains(*family)).collect());
            if let Some(peer) = self.holdings.peers.get_mut(&id)
                && let Link::Restarting(_) = peer.link
                && peer.retained().next().is_none()
            {
                peer.link = Link::Down;
            }
        }
    }
}

/// Whether the stale paths of a family stay when the peer is back, and until when, by what it says of them now.
fn stays(retention: &mut Retention, now: Instant, family: Family, graceful: &PeerGracefulRestart) -> bool {
    match retention.phase {
        Phase::Restart => {
            retention.put_off(now, graceful.restart_time);
            graceful.families.intersection(graceful.forwarding).contains(family)
        }
        Phase::Refresh => false,
        Phase::LongLived => graceful.long_lived.is_some_and(|l| l.forwarding.contains(family)),
    }
}

/// Whether paths of the session before may stand for paths of the new one until it tells them again.
fn comparable(before: &Session, now: &Session) -> bool {
    (before.peer_type, before.local_as, before.remote_as) == (now.peer_type, now.local_as, now.remote_as)
}

/// Our end of a session, as an address that is no next hop.
fn own_end(local: SocketAddr) -> (IpAddr, Option<u32>) {
    (local.ip().to_canonical(), link_of(local))
}
