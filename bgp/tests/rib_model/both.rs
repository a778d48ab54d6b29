//! The RIB and the model, fed the same and compared.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use weft_bgp::config::{Origination, PeerConfig};
use weft_bgp::egress::EgressInput;
use weft_bgp::ingress::Down;
use weft_bgp::rib::RibInput;
use weft_bgp::speaker::{Resolution, TrackedNextHop};
use weft_bgp::status::{RibView, RouteSelect};
use weft_bgp::types::{Family, FamilySet, PeerId};
use weft_bgp::wire::attributes::PathAttributes;

use crate::events::*;
use crate::model::*;
use crate::rib_support::*;

/// Both, fed the same.
pub(crate) struct Both {
    pub(crate) lab: Lab,
    pub(crate) model: Model,
    pub(crate) started: std::time::Instant,
}

impl Both {
    pub(crate) fn new(roles: Roles) -> Self {
        let mut lab = Lab::new();
        // One prefix at a time, so that peers lag behind everywhere.
        lab.credit = 1;
        let mut peers = BTreeMap::new();
        for peer in 0..PEERS {
            let config = PeerConfig { route_reflector_client: peer == 5, ..peer_config(peer) };
            lab.peer(peer, config.clone());
            lab.up(peer_session(peer, &roles));
            peers.insert(peer, ModelPeer { up: Some(true), config, ..ModelPeer::new(peer) });
        }
        let model = Model {
            peers,
            resolutions: BTreeMap::new(),
            originate: BTreeSet::new(),
            aggregates: BTreeMap::new(),
            roles,
            max_paths: 16,
            tracking: false,
            seconds: 0,
            cluster: ROUTER_ID,
            advertising: false,
        };
        let started = lab.now;
        Self { lab, model, started }
    }

    pub(crate) fn configure_peer(&mut self, peer: u32, change: impl FnOnce(&mut PeerConfig)) {
        let state = self.model.peers.get_mut(&peer).unwrap();
        change(&mut state.config);
        self.lab.peer(peer, state.config.clone());
    }

    pub(crate) fn play(&mut self, event: &Event) {
        match event {
            Event::Announce(peer, bits, announcement) => {
                for prefix in some_prefixes(*bits) {
                    let attributes = announcement.attributes(*peer, Family::of(&prefix));
                    let path_id = if receives(*peer, Family::of(&prefix)) { announcement.path_id } else { 0 };
                    self.lab.path(*peer, path_id, Some(attributes.clone()), &[prefix]);
                    let state = self.model.peers.get_mut(peer).unwrap();
                    if state.up == Some(true) {
                        state.routes.insert((prefix, path_id), (attributes, false));
                    }
                }
            }
            Event::Withdraw(peer, bits, path_id) => {
                for prefix in some_prefixes(*bits) {
                    let path_id = if receives(*peer, Family::of(&prefix)) { *path_id } else { 0 };
                    self.lab.path(*peer, path_id, None, &[prefix]);
                    let state = self.model.peers.get_mut(peer).unwrap();
                    if state.up == Some(true) {
                        state.routes.remove(&(prefix, path_id));
                    }
                }
            }
            Event::Up(peer, kept, long_lived) => self.up(*peer, kept.map(families), *long_lived),
            Event::Restart(peer, kept) => self.restart(*peer, families(*kept)),
            Event::Death(peer) => {
                self.lab.down(*peer, Down::Death);
                let state = self.model.peers.get_mut(peer).unwrap();
                state.up = None;
                state.routes.clear();
                state.kept.clear();
            }
            Event::EndOfRib(peer, family) => {
                self.lab.input(RibInput::EndOfRib { peer: PeerId(*peer), family: *family });
                let state = self.model.peers.get_mut(peer).unwrap();
                if state.up == Some(true) && !state.is_refreshing(*family) {
                    state.drop_stale([*family].into_iter().collect());
                }
            }
            Event::RefreshBegins(peer, family) => {
                self.lab.input(RibInput::RefreshBegins { peer: PeerId(*peer), family: *family });
                let (now, state) = (self.model.seconds, self.model.peers.get_mut(peer).unwrap());
                if state.up == Some(true) {
                    state.refresh_begins(now, *family);
                }
            }
            Event::RefreshEnds(peer, family) => {
                self.lab.input(RibInput::RefreshEnds { peer: PeerId(*peer), family: *family });
                let state = self.model.peers.get_mut(peer).unwrap();
                if state.is_refreshing(*family) {
                    state.drop_stale([*family].into_iter().collect());
                }
            }
            Event::Import(peer, number) => {
                self.configure_peer(*peer, |c| c.import = Arc::new(policy(*number)));
            }
            Event::Export(peer, number) => {
                self.configure_peer(*peer, |c| c.export = Arc::new(policy(*number)));
            }
            Event::AllowedOwnAs(peer, times) => self.configure_peer(*peer, |c| c.allowed_own_as = *times),
            Event::NextHop(family, number, default_route, resolution) => {
                self.next_hop(*family, *number, *default_route, *resolution);
            }
            Event::Settings { originate, aggregates, max_paths, tracking } => {
                let aggregates = wholes().into_iter().zip(aggregates);
                self.model.aggregates =
                    aggregates.filter_map(|(whole, how)| Some((whole, (*how)?))).collect();
                let all = some_prefixes(*originate).chain(self.model.aggregates.keys().copied());
                self.model.originate = all.collect();
                self.model.max_paths = usize::from(*max_paths);
                self.model.tracking = *tracking;
                self.configure();
            }
            Event::Client(peer, client) => {
                self.configure_peer(*peer, |c| c.route_reflector_client = *client);
            }
            Event::Cluster(first) => {
                self.model.cluster = CLUSTERS[usize::from(!first)];
                self.lab.cluster_id = Some(self.model.cluster);
                self.configure();
            }
            Event::Advertise => {
                self.lab.input(RibInput::Advertise);
                self.model.advertising = true;
            }
            Event::Read(peer, pieces) => self.lab.read(*peer, *pieces),
            Event::Refresh(peer, family) => {
                if let Some(group) = self.lab.group_of.get(&PeerId(*peer)).copied() {
                    self.lab.egress(group, EgressInput::Refresh { peer: PeerId(*peer), family: *family });
                }
            }
            Event::Wait(seconds) => self.wait(*seconds),
            Event::Remove(peer) => {
                self.lab.sinks.remove(&PeerId(*peer));
                self.lab.input(RibInput::RemovePeer(PeerId(*peer)));
                self.model.peers.insert(*peer, ModelPeer::new(*peer));
                self.lab.peer(*peer, peer_config(*peer));
            }
        }
        // What is not asked about any more is not known any more.
        self.model.resolutions.retain(|next_hop, _| self.lab.tracked.contains(next_hop));
        // Most next hops resolve at once.
        let unknown = self.lab.tracked.iter().filter(|t| !self.model.resolutions.contains_key(t));
        for next_hop in unknown.copied().collect::<Vec<_>>() {
            let resolution = match next_hop.address.to_string().chars().last() {
                Some('0') => Resolution::OnLink,
                Some('1') if next_hop.default_route => Resolution::Gateway { metric: 10 },
                Some('1') => Resolution::OnLink,
                _ => Resolution::Unresolved,
            };
            self.lab.input(RibInput::NextHops(vec![(next_hop, resolution)]));
            self.model.resolutions.insert(next_hop, resolution);
        }
    }

    fn configure(&mut self) {
        let Model { aggregates, originate, .. } = &self.model;
        let origination =
            |prefix| Origination { aggregation: aggregates.get(prefix).copied(), ..<_>::default() };
        self.lab.input(RibInput::Configure {
            asn: OWN,
            router_id: ROUTER_ID,
            cluster_id: self.lab.cluster_id,
            max_paths: self.model.max_paths.try_into().unwrap(),
            install_routes: true,
            next_hop_tracking: self.model.tracking,
            originate: originate.iter().map(|prefix| (*prefix, origination(prefix))).collect(),
        });
    }

    fn up(&mut self, peer: u32, kept: Option<FamilySet>, long_lived: bool) {
        let mut session = peer_session(peer, &self.model.roles);
        session.graceful_restart = kept.map(|kept| restarts(kept, long_lived));
        let state = self.model.peers.get_mut(&peer).unwrap();
        if state.up == Some(true) {
            return;
        }
        self.lab.up(session);
        state.up(self.model.seconds, kept, long_lived);
    }

    fn restart(&mut self, peer: u32, kept: FamilySet) {
        let state = self.model.peers.get_mut(&peer).unwrap();
        if state.up != Some(true) {
            return;
        }
        self.lab.down(peer, Down::Restart { families: kept, restart_time: Duration::from_secs(60) });
        state.restart(self.model.seconds, kept);
    }

    fn next_hop(&mut self, family: Family, number: u8, default_route: bool, resolution: u8) {
        let next_hop = TrackedNextHop { address: next_hop(family, number), default_route, link: None };
        let resolution = match resolution {
            0 => Resolution::Unresolved,
            1 => Resolution::Gateway { metric: 10 },
            2 => Resolution::Gateway { metric: 20 },
            _ => Resolution::OnLink,
        };
        self.lab.input(RibInput::NextHops(vec![(next_hop, resolution)]));
        self.model.resolutions.insert(next_hop, resolution);
    }

    fn wait(&mut self, seconds: u64) {
        self.model.seconds += seconds;
        let now = self.model.seconds;
        self.lab.now = self.started + Duration::from_secs(now);
        self.lab.input(RibInput::Tick);
        for state in self.model.peers.values_mut() {
            state.expire(now);
        }
    }

    pub(crate) fn compare(&mut self) {
        self.lab.read_all();
        let mut kernel = BTreeMap::new();
        let mut told: BTreeMap<u32, BTreeMap<IpNet, PathAttributes>> = BTreeMap::new();
        let mut several: BTreeMap<u32, Vec<(IpNet, PathAttributes)>> = BTreeMap::new();
        for prefix in prefixes() {
            let local = self.model.local(&prefix);
            let paths = self.model.decide(&prefix, &local);
            let mut next_hops = vec![];
            for (peer, attributes, ..) in &paths {
                let Some(tracked) = peer.map(|peer| self.model.tracked(peer, attributes)) else { continue };
                if !next_hops.contains(&tracked) {
                    next_hops.push(tracked);
                }
            }
            if !next_hops.is_empty() {
                kernel.insert(prefix, next_hops);
            }
            for (peer, state) in &self.model.peers {
                if let Some(send) = sends(*peer, Family::of(&prefix)) {
                    let paths = self.model.told_several(*peer, send, &prefix, &local);
                    let paths = paths.into_iter().filter(|_| state.up == Some(true));
                    several.entry(*peer).or_default().extend(paths.map(|attributes| (prefix, attributes)));
                } else if let Some(attributes) = self.model.told(*peer, &prefix, paths.first())
                    && state.up == Some(true)
                {
                    told.entry(*peer).or_default().insert(prefix, attributes);
                }
            }
        }
        assert_eq!(self.lab.kernel, kernel);
        for (id, sink) in &self.lab.sinks {
            assert_eq!(&sink.table, told.get(&id.0).unwrap_or(&BTreeMap::new()), "told to {id:?}");
            let heard = sink.several.iter().map(|((prefix, _), attributes)| (*prefix, attributes)).collect();
            let wanted = several.remove(&id.0).unwrap_or_default();
            assert!(same(heard, &wanted), "{id:?} is told {:?}, not {wanted:?}", sink.several);
            let ended: &[Family] = if self.model.advertising { &Family::ALL } else { &[] };
            assert_eq!(sink.end_of_rib, ended, "{id:?}");
            self.compare_queries(*id, told.get(&id.0).unwrap_or(&BTreeMap::new()));
        }
        let aggregates = self.model.aggregates.keys().filter(|whole| self.model.originates(whole));
        assert_eq!(self.lab.aggregates, aggregates.copied().collect());
        self.compare_tracking();
    }

    fn compare_queries(&self, id: PeerId, told: &BTreeMap<IpNet, PathAttributes>) {
        let out = self.lab.rib.routes(RibView::Out(address(id.0).into()), RouteSelect::All);
        let mut shown = (BTreeMap::new(), BTreeMap::new());
        for route in out {
            for path in route.paths {
                let attributes = (*path.attributes).clone();
                let before = match path.path_id {
                    Some(id) => shown.1.insert((route.prefix, id), attributes),
                    None => shown.0.insert(route.prefix, attributes),
                };
                assert_eq!(before, None, "{id:?}: one path of {} by one identifier", route.prefix);
            }
        }
        let several = &self.lab.sinks[&id].several;
        assert_eq!((&shown.0, &shown.1), (told, several), "{id:?}'s Adj-RIB-Out as shown");
        let egress = &self.lab.egresses[&self.lab.group_of[&id]];
        let state = &self.model.peers[&id.0];
        for status in self.lab.rib.family_status(id, FamilySet::all()) {
            let of_family = |prefix: &&IpNet| Family::of(prefix) == status.family;
            let routes = state.routes.iter().filter(|((prefix, _), _)| of_family(&prefix));
            assert_eq!(status.received, routes.clone().count());
            assert_eq!(status.stale, routes.filter(|(_, (_, stale))| *stale).count());
            let why = state.kept.get(&status.family).map(|kept| kept.why);
            assert_eq!(status.long_lived, why == Some(Why::LongLived), "{id:?} {}", status.family);
            let paths = several.keys().map(|(prefix, _)| prefix).filter(of_family).count();
            assert_eq!(egress.advertised(id, status.family), told.keys().filter(of_family).count() + paths);
        }
        let accepted: usize =
            self.lab.rib.family_status(id, FamilySet::all()).iter().map(|status| status.accepted).sum();
        let inward = self.lab.rib.routes(RibView::In(address(id.0).into()), RouteSelect::All);
        let paths = || inward.iter().flat_map(|route| &route.paths);
        assert_eq!(accepted, paths().filter(|path| path.valid).count());
        assert_eq!(paths().count(), state.routes.len());
        let ids = inward.iter().flat_map(|route| route.paths.iter().map(|path| (route.prefix, path.path_id)));
        let wanted = state.routes.keys().map(|(prefix, path_id)| {
            (*prefix, Some(*path_id).filter(|_| receives(id.0, Family::of(prefix))))
        });
        assert_eq!(ids.collect::<BTreeSet<_>>(), wanted.collect());
    }

    fn compare_tracking(&self) {
        let mut wanted = BTreeSet::new();
        for (peer, state) in self.model.peers.iter().filter(|_| self.model.tracking) {
            for ((prefix, _), (attributes, _)) in &state.routes {
                if let Some(attributes) = self.model.passes(*peer, prefix, attributes) {
                    wanted.insert(self.model.tracked(*peer, &attributes));
                }
            }
        }
        assert_eq!(self.lab.tracked, wanted);
        let deadline =
            self.model.peers.values().flat_map(|state| state.kept.values()).map(|kept| kept.until).min();
        let expected = deadline.map(|seconds| self.started + Duration::from_secs(seconds));
        assert_eq!(self.lab.rib.next_deadline().map(|(at, _)| at), expected);
    }
}
