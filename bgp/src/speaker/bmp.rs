//! What monitoring stations are told of: sessions, and changes of tables.

use std::collections::BTreeMap;
use std::time::Instant;

use ipnet::IpNet;

use super::peer::Peer;
use super::{Input, Output, Speaker};
use crate::bmp::{BmpInput, BmpOutput, MonitoredRib, PeerDown, PeerUp, Received, Ribs, Statistic, Table};
use crate::config::SpeakerConfig;
use crate::egress::groups::Groups;
use crate::egress::{Egress, EgressInput, GroupId, PathKey};
use crate::ingress::Session;
use crate::protection::Protection;
use crate::rib::{Rib, RibInput};
use crate::status::SaidNotification;
use crate::types::{ConnectionId, Family, FamilySet, PeerAddress, PeerId};
use crate::wire::Message;
use crate::wire::nlri::PathNlri;
use crate::wire::update::Stored;

/// What happened to a station's connection; else the input as it was. What a station says is dropped: it has nothing to say (RFC 7854
/// section 3.2).
pub(super) fn of_station(input: Input) -> Result<Option<BmpInput>, Input> {
    match input {
        Input::Connected { connection: connection @ ConnectionId::Station(_), .. } => {
            Ok(Some(BmpInput::Connected { connection }))
        }
        Input::ConnectFailed { connection: connection @ ConnectionId::Station(_), error } => {
            Ok(Some(BmpInput::Lost { connection, error: Some(error) }))
        }
        Input::Closed { connection: connection @ ConnectionId::Station(_), error } => {
            Ok(Some(BmpInput::Lost { connection, error }))
        }
        Input::Written { connection: connection @ ConnectionId::Station(_), bytes } => {
            Ok(Some(BmpInput::Written { connection, bytes }))
        }
        Input::Bytes { connection: ConnectionId::Station(_), .. } => Ok(None),
        input => Err(input),
    }
}

impl Speaker {
    /// Something happened to a station's connection.
    pub(super) fn station_says(&mut self, now: Instant, input: Option<BmpInput>) {
        if let Some(input) = input {
            self.bmp.handle(now, input);
            self.tell_stations(now);
        }
    }

    /// Takes in which stations there are, and has the RIB note what they are told of.
    pub(super) fn configure_bmp(&mut self, now: Instant, config: &SpeakerConfig) {
        let (asn, router_id) = (config.asn, config.router_id);
        self.bmp.handle(now, BmpInput::Configure { config: config.bmp.clone(), asn, router_id });
        let adj_rib_in = [MonitoredRib::AdjRibInPrePolicy, MonitoredRib::AdjRibInPostPolicy];
        let adj_rib_in = adj_rib_in.into_iter().any(|rib| self.bmp.monitors(rib));
        let loc_rib = self.bmp.monitors(MonitoredRib::LocRib);
        self.tell_rib(now, RibInput::Monitor { adj_rib_in, loc_rib });
    }

    /// A session is Established.
    pub(super) fn monitor_up(&mut self, now: Instant, address: PeerAddress, session: &Session) {
        let Some(peer) = self.peers.get(&address) else { return };
        let Some(dialogue) = peer.ingress.said().dialogue else { return };
        let up = PeerUp {
            address: session.remote,
            asn: session.remote_as,
            router_id: session.remote_id,
            local: session.local,
            remote_port: dialogue.remote.port(),
            families: session.families,
            add_path: session.add_path,
            open_sent: dialogue.open_sent,
            open_received: dialogue.open_received,
        };
        self.bmp.handle(now, BmpInput::PeerUp { peer: peer.id, up });
    }

    /// The session on that connection is no more. What was said last tells why, if it was said at this moment.
    pub(super) fn monitor_down(
        &mut self,
        now: Instant,
        address: PeerAddress,
        connection: Option<ConnectionId>,
    ) {
        let Some(peer) = self.peers.get(&address) else { return };
        let said = peer.ingress.said();
        let message = |said: Option<SaidNotification>| {
            let said = said.filter(|said| said.at == now)?;
            Some(Message::Notification(said.notification).encode())
        };
        let reason = if let Some(sent) = message(said.notification_sent) {
            PeerDown::NotificationSent(sent)
        } else if let Some(received) = message(said.notification_received) {
            PeerDown::NotificationReceived(received)
        } else if connection.is_some() && peer.lost == connection {
            PeerDown::ClosedByPeer
        } else {
            PeerDown::Closed
        };
        self.bmp.handle(now, BmpInput::PeerDown { peer: peer.id, reason });
    }

    /// An update group hears something: the Adj-RIBs-Out of its peers change.
    pub(super) fn monitor_group(&mut self, now: Instant, group: GroupId, input: &EgressInput) {
        if !self.bmp.monitors(MonitoredRib::AdjRibOutPostPolicy) {
            return;
        }
        match input {
            EgressInput::Join { peer, .. } => self.bmp.handle(now, BmpInput::Whole(Table::Out(*peer))),
            EgressInput::Move { peer, .. } => {
                // What is told here and not in the other group goes.
                let told = self.group(group, |egress| egress.keys().map(path).collect());
                self.bmp.handle(now, BmpInput::Changed(vec![Table::Out(*peer)], told));
                self.bmp.handle(now, BmpInput::Whole(Table::Out(*peer)));
            }
            EgressInput::Changes(changes) => {
                let paths = changes.keys().map(path).collect();
                let tables = self.group(group, |egress| egress.peers().map(Table::Out).collect());
                self.bmp.handle(now, BmpInput::Changed(tables, paths));
            }
            _ => {}
        }
    }

    /// What a group has; nothing, if it was told nothing yet.
    fn group<T: Default>(&self, group: GroupId, of: impl FnOnce(&Egress) -> T) -> T {
        self.egress.look(|groups| groups.get(group).map(of)).unwrap_or_default()
    }

    /// Lets flow what stations are to be told.
    pub(super) fn tell_stations(&mut self, now: Instant) {
        if self.bmp.is_idle() {
            return;
        }
        let Self { bmp, rib, egress, peers, addresses, outputs, .. } = self;
        egress.look(|groups| {
            let tables = Tables { rib, groups, peers, addresses };
            while let Some(output) = bmp.poll(now, &tables) {
                outputs.push_back(match output {
                    BmpOutput::Dial { connection, station } => {
                        let protection = Protection::default();
                        Output::Dial { connection, source: None, remote: station, protection }
                    }
                    BmpOutput::Write { connection, bytes } => Output::Write { connection, bytes },
                    BmpOutput::Close { connection } => Output::Close { connection },
                });
            }
        });
    }
}

/// A path as stations know it.
fn path(key: PathKey) -> PathNlri {
    PathNlri { path_id: key.path_id.into(), prefix: key.prefix }
}

/// The tables of a speaker.
struct Tables<'a> {
    rib: &'a Rib,
    groups: &'a Groups,
    peers: &'a BTreeMap<PeerAddress, Peer>,
    addresses: &'a BTreeMap<PeerId, PeerAddress>,
}

impl Tables<'_> {
    fn peer(&self, id: PeerId) -> Option<&Peer> {
        self.peers.get(self.addresses.get(&id)?)
    }

    fn group(&self, id: PeerId) -> Option<&Egress> {
        self.groups.get(self.peer(id)?.group?)
    }
}

impl Ribs for Tables<'_> {
    fn prefixes(&self, from: usize, count: usize) -> Vec<(usize, IpNet)> {
        self.rib.prefixes(from, count)
    }

    fn sources(&self, prefix: &IpNet) -> Vec<(PeerId, u32)> {
        self.rib.sources(prefix)
    }

    fn told_as(&self, peer: PeerId, prefix: &IpNet) -> Vec<u32> {
        let session = self.peer(peer).and_then(|peer| peer.ingress.session());
        match session.is_some_and(|session| session.add_path.send.contains(Family::of(prefix))) {
            true => self.rib.numbers(prefix).into_iter().map(u32::from).collect(),
            false => vec![0],
        }
    }

    fn adj_rib_in(&self, peer: PeerId, nlri: &PathNlri) -> Option<Received<'_>> {
        self.rib.received(peer, nlri)
    }

    fn loc_rib(&self, prefix: &IpNet) -> Option<&Stored> {
        self.rib.best(prefix)
    }

    fn adj_rib_out(&self, peer: PeerId, nlri: &PathNlri) -> Option<&Stored> {
        let key = PathKey { prefix: nlri.prefix, path_id: nlri.path_id.try_into().ok()? };
        self.group(peer)?.route(peer, &key)
    }

    fn statistics(&self, id: Option<PeerId>) -> Vec<Statistic> {
        let wide = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let gauges = |(all, each): (u16, u16), counts: &[(Family, u64)]| {
            let sum = counts.iter().map(|(_, count)| *count).sum();
            let families =
                counts.iter().map(move |(family, count)| Statistic::FamilyGauge(each, *family, *count));
            [Statistic::Gauge(all, sum)].into_iter().chain(families).collect::<Vec<_>>()
        };
        let Some(id) = id else {
            let counts = self.rib.best_counts().map(|(family, count)| (family, wide(count)));
            return gauges((Statistic::LOC_RIB, Statistic::LOC_RIB_FAMILY), &counts);
        };
        let Some(peer) = self.peer(id) else { return Vec::new() };
        let families = peer.ingress.session().map_or(FamilySet::EMPTY, |session| session.families);
        let received = self.rib.family_status(id, families);
        let received: Vec<_> = received.iter().map(|status| (status.family, wide(status.received))).collect();
        let told = |family| self.group(id).map_or(0, |group| wide(group.advertised(id, family)));
        let told: Vec<_> = families.iter().map(|family| (family, told(family))).collect();
        let withdrawn = peer.ingress.counters().treated_as_withdraw;
        let withdrawn = u32::try_from(withdrawn).unwrap_or(u32::MAX);
        let mut statistics = gauges((Statistic::ADJ_RIB_IN, Statistic::ADJ_RIB_IN_FAMILY), &received);
        statistics.push(Statistic::Counter(Statistic::TREATED_AS_WITHDRAW, withdrawn));
        statistics.extend(gauges((Statistic::ADJ_RIB_OUT, Statistic::ADJ_RIB_OUT_FAMILY), &told));
        statistics
    }
}
