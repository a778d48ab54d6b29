//! Dynamic peers: who connects from within a range is a peer while there is anything to know of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use ipnet::IpNet;

use super::peer::Peer;
use super::{Caller, Event, EventKind, Output, Speaker, cease};
use crate::config::SpeakerConfig;
use crate::status::{RangeRefusal, RangeStatus};
use crate::types::{ConnectionId, PeerAddress, link_of};
use crate::wire::Message;
use crate::wire::notification::Notification;

/// What the speaker holds of its ranges.
#[derive(Debug, Default)]
pub(super) struct Dynamic {
    refusals: BTreeMap<IpNet, Refusals>,
    /// The dynamic peers without an Established session: each may be forgotten some time.
    waiting: BTreeSet<PeerAddress>,
    /// Those of a process that died, before the first configuration.
    remembered: BTreeSet<IpAddr>,
    /// Whether they are others than was told last.
    changed: bool,
}

/// Connections from within a range that were closed at once.
#[derive(Debug, Default)]
struct Refusals {
    count: u64,
    last: Option<(Instant, RangeRefusal)>,
    /// How many of them no event has told of, and when one was told last.
    untold: u64,
    told: Option<Instant>,
}

impl Dynamic {
    pub(super) fn remember(&mut self, peers: BTreeSet<IpAddr>) {
        self.remembered = peers;
    }

    /// A peer is there, is another than before, or has no session any more.
    pub(super) fn note(&mut self, address: PeerAddress, peer: &Peer) {
        self.changed |= peer.range.is_some();
        match peer.range.is_some() && peer.established.is_none() {
            true => self.waiting.insert(address),
            false => self.waiting.remove(&address),
        };
    }

    pub(super) fn removed(&mut self, address: PeerAddress, peer: &Peer) {
        self.waiting.remove(&address);
        self.changed |= peer.range.is_some();
    }

    pub(super) fn change(&mut self) {
        self.changed = true;
    }
}

impl Speaker {
    /// Who connects from there: a peer, one that is there already or is named, or somebody of a range.
    pub(crate) fn caller(&self, local: SocketAddr, remote: SocketAddr) -> Option<Caller> {
        if let Some(peer) = self.peer_of(local, remote) {
            return Some(Caller::Peer(peer));
        }
        // Of whom a link has it is the link that says, and of one's own host nobody is a peer.
        if link_of(remote).is_some() || local.ip() == remote.ip() {
            return None;
        }
        self.config.as_ref()?.range_of(remote.ip()).map(|(range, _)| Caller::Range(range))
    }

    /// What that one's sessions are to be.
    #[cfg(feature = "transport")]
    pub(crate) fn caller_config(&self, caller: Caller) -> Option<&Arc<crate::config::PeerConfig>> {
        match caller {
            Caller::Peer(peer) => self.peers.get(&peer).map(|peer| &peer.config),
            Caller::Range(range) => self.config.as_ref()?.ranges.get(&range).map(|range| &range.peer),
        }
    }

    /// Every range and its peers.
    #[must_use]
    pub fn ranges(&self) -> Vec<RangeStatus> {
        let ranges = self.config.iter().flat_map(|config| &config.ranges);
        ranges
            .map(|(range, config)| {
                let refusals = self.dynamic.refusals.get(range);
                RangeStatus {
                    range: *range,
                    config: Arc::clone(config),
                    peers: self.members(*range).count(),
                    established: self.members(*range).filter(|peer| peer.established.is_some()).count(),
                    refused: refusals.map_or(0, |refusals| refusals.count),
                    last_refused: refusals.and_then(|refusals| refusals.last.clone()),
                }
            })
            .collect()
    }

    fn members(&self, range: IpNet) -> impl Iterator<Item = &Peer> {
        self.peers.values().filter(move |peer| peer.range == Some(range))
    }

    fn has_room(&self, config: &SpeakerConfig, range: IpNet) -> bool {
        let limit = config.ranges.get(&range).map_or(0, |range| range.limit as usize);
        self.members(range).count() < limit
    }

    /// Makes a peer of whoever connects from within a range; otherwise says why not.
    pub(super) fn join(
        &mut self,
        now: Instant,
        range: IpNet,
        address: IpAddr,
    ) -> Result<PeerAddress, RangeRefusal> {
        let config = self.config.clone().ok_or(RangeRefusal::NotConfigured)?;
        let wanted = config.ranges.get(&range).ok_or(RangeRefusal::NotConfigured)?;
        if wanted.peer.stays_down() {
            return Err(RangeRefusal::StaysDown);
        }
        if !self.has_room(&config, range) {
            return Err(RangeRefusal::Full { limit: wanted.limit });
        }
        let address = address.into();
        self.add_peer(now, address, &wanted.peer, &config, Some(range));
        Ok(address)
    }

    /// Closes a connection with a word to the other end (RFC 4486 section 4).
    pub(super) fn reject(&mut self, connection: ConnectionId) {
        let notification = Notification::cease(cease::CONNECTION_REJECTED, "");
        let bytes = Message::Notification(notification).encode();
        self.outputs.push_back(Output::Write { connection, bytes });
        self.outputs.push_back(Output::Close { connection });
    }

    /// A connection from within a range was closed at once: counts it, and tells of it but not of each.
    pub(super) fn refuse_of_range(&mut self, now: Instant, range: IpNet, remote: IpAddr, why: RangeRefusal) {
        let refusals = self.dynamic.refusals.entry(range).or_default();
        refusals.count = refusals.count.saturating_add(1);
        refusals.untold = refusals.untold.saturating_add(1);
        refusals.last = Some((now, why.clone()));
        if refusals.told.is_none_or(|at| at + EventKind::REFUSED_INTERVAL <= now) {
            refusals.told = Some(now);
            let connections = std::mem::take(&mut refusals.untold);
            let kind = EventKind::RangeRefused { range, connections, why };
            self.outputs.push_back(Output::Event(Event { peer: remote.into(), kind }));
        }
    }

    /// Which range a peer is of under a configuration that does not name it; none: it is to go. One that was named becomes a dynamic peer
    /// only for the sake of its session or routes.
    pub(super) fn range_under(&self, config: &SpeakerConfig, address: PeerAddress) -> Option<IpNet> {
        let peer = self.peers.get(&address)?;
        let (range, _) = config.range_of(address.ip()?)?;
        let worth = peer.range.is_some() || self.has_something(peer);
        (worth && (peer.range == Some(range) || self.has_room(config, range))).then_some(range)
    }

    /// Whether a peer has a session, or routes that are kept for the next one.
    fn has_something(&self, peer: &Peer) -> bool {
        peer.established.is_some() || self.rib.stale_until(peer.id).is_some()
    }

    /// Makes a peer one of a range, or of none.
    pub(super) fn set_range(&mut self, address: PeerAddress, range: Option<IpNet>) {
        if let Some(peer) = self.peers.get_mut(&address).filter(|peer| peer.range != range) {
            peer.range = range;
            self.dynamic.changed = true;
            self.dynamic.note(address, peer);
        }
    }

    /// The ranges are others: forgets what was counted of those that are gone, and awaits the dynamic peers of a process that died.
    pub(super) fn ranges_configured(&mut self, now: Instant, config: &SpeakerConfig) {
        self.dynamic.refusals.retain(|range, _| config.ranges.contains_key(range));
        let remembered = std::mem::take(&mut self.dynamic.remembered);
        if !self.start.restarting {
            // Without routes that were kept there is nothing to lose.
            return;
        }
        for address in remembered {
            let Some((range, wanted)) = config.range_of(address) else { continue };
            let is_there = self.peers.contains_key(&address.into());
            if is_there || wanted.peer.stays_down() || !self.has_room(config, range) {
                continue;
            }
            self.add_peer(now, address.into(), &wanted.peer, config, Some(range));
            if let Some(peer) = self.peers.get(&address.into()) {
                self.convergence.expect_call(now, peer.id);
            }
        }
    }

    /// Forgets the dynamic peers of which nothing is left: no connection, no routes that wait for a restart, no failure to be punished.
    pub(super) fn forget_gone(&mut self, now: Instant) {
        let gone: Vec<_> = self.gone().filter(|(_, at)| *at <= now).map(|(address, _)| address).collect();
        for address in gone {
            self.remove_peer(now, address, cease::PEER_DECONFIGURED);
            self.settle_rib(now);
        }
        if std::mem::take(&mut self.dynamic.changed) {
            let dynamic = || self.peers.iter().filter(|(_, peer)| peer.range.is_some());
            let peers = dynamic().map(|(address, peer)| (*address, Arc::clone(&peer.config))).collect();
            let remember = dynamic()
                .filter(|(_, peer)| self.has_something(peer))
                .filter_map(|(address, _)| address.ip());
            let remember = remember.collect();
            self.outputs.push_back(Output::Dynamic { peers, remember });
        }
    }

    /// The dynamic peers that only wait to be forgotten, and from when on they may be.
    pub(super) fn gone(&self) -> impl Iterator<Item = (PeerAddress, Instant)> {
        self.dynamic.waiting.iter().filter_map(|address| {
            let peer = self.peers.get(address)?;
            let kept = self.convergence.expects(peer.id) || self.rib.stale_until(peer.id).is_some();
            (!kept).then(|| peer.ingress.over_at()).flatten().map(|at| (*address, at))
        })
    }
}
