//! From the configuration that runs to the one that is wanted.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Instant;

use ipnet::IpNet;

use super::peer::Peer;
use super::{Output, Speaker, cease};
use crate::config::{PeerConfig, SpeakerConfig};
use crate::ingress::{Down, Ingress, IngressInput};
use crate::rib::RibInput;
use crate::types::{PeerAddress, PeerId};

impl Speaker {
    /// Touches only what differs: peers that are gone are told so, peers that changed are told by their [`Ingress`] if the
    /// session depends on it. Every session carries the AS and the router id, so a change of these begins them all anew.
    pub(super) fn configure(&mut self, now: Instant, config: Arc<SpeakerConfig>) {
        let before = self.config.replace(Arc::clone(&config));
        let identity = |c: &SpeakerConfig| (c.asn, c.router_id);
        let renamed = before.as_ref().is_some_and(|b| identity(b) != identity(&config));
        for address in self.peers.keys().copied().collect::<Vec<_>>() {
            let range = match config.peers.contains_key(&address) {
                true => None,
                false => self.range_under(&config, address),
            };
            if range.is_none() && !config.peers.contains_key(&address) {
                self.remove_peer(now, address, cease::PEER_DECONFIGURED);
            } else if renamed {
                self.remove_peer(now, address, cease::OTHER_CONFIGURATION_CHANGE);
            } else {
                self.set_range(address, range);
            }
        }
        self.tell_rib(
            now,
            RibInput::Configure {
                asn: config.asn,
                router_id: config.router_id,
                cluster_id: cluster_id(&config),
                max_paths: config.max_paths,
                install_routes: config.install_routes,
                next_hop_tracking: config.next_hop_tracking,
                originate: config.originate.clone(),
            },
        );
        self.configure_bmp(now, &config);
        for (address, peer) in &config.peers {
            if self.peers.contains_key(address) {
                self.change_peer(now, *address, peer);
            } else {
                self.add_peer(now, *address, peer, &config, None);
            }
        }
        let dynamic = self.peers.iter().filter_map(|(address, peer)| Some((*address, peer.range?)));
        for (address, range) in dynamic.collect::<Vec<_>>() {
            if let Some(range) = config.ranges.get(&range) {
                self.change_peer(now, address, &range.peer);
            }
        }
        self.ranges_configured(now, &config);
        if !self.start.restarting && std::mem::take(&mut self.deferring) {
            self.tell_rib(now, RibInput::Advertise);
        }
        self.convergence.configured(now);
    }

    pub(super) fn add_peer(
        &mut self,
        now: Instant,
        address: PeerAddress,
        config: &Arc<PeerConfig>,
        speaker: &SpeakerConfig,
        range: Option<IpNet>,
    ) {
        let id = self.free_id();
        // Sessions number their connections from a random start: a peer that comes again must not number as it did before.
        let seed = self.start.seed.wrapping_add(u64::from(id.0) << 32);
        let mut ingress = Ingress::new(address, speaker.router_id, seed);
        ingress.handle(now, IngressInput::Restart(self.local_restart()));
        ingress.handle(now, IngressInput::Observe(self.observed));
        self.addresses.insert(id, address);
        let peer = Peer::new(id, Arc::clone(config), range, ingress);
        self.dynamic.note(address, &peer);
        self.peers.insert(address, peer);
        self.tell_rib(now, RibInput::Peer { peer: id, address, config: Arc::clone(config) });
        if range.is_none() && !config.stays_down() {
            self.expect(now, id, config);
        }
        self.tell_peer(now, address, IngressInput::Configure(Arc::clone(config)));
    }

    /// Dynamic peers come and go: in the long run numbers are used again. The RIB's own routes have the last one.
    fn free_id(&mut self) -> PeerId {
        loop {
            let id = PeerId(self.numbered);
            self.numbered = self.numbered.wrapping_add(1);
            if id.0 != u32::MAX && !self.addresses.contains_key(&id) {
                return id;
            }
        }
    }

    /// A restart waits for the peer, for longer where it has to call us.
    fn expect(&mut self, now: Instant, peer: PeerId, config: &PeerConfig) {
        match config.passive {
            true => self.convergence.expect_call(now, peer),
            false => self.convergence.expect(now, peer),
        }
    }

    fn change_peer(&mut self, now: Instant, address: PeerAddress, config: &Arc<PeerConfig>) {
        let Some(peer) = self.peers.get_mut(&address).filter(|peer| peer.config != *config) else { return };
        let id = peer.id;
        peer.config = Arc::clone(config);
        let dynamic = peer.range.is_some();
        if config.stays_down() {
            self.convergence.forget(id);
        } else if dynamic {
            self.dynamic.change();
        }
        // The session first: if it ends, it ends under the policies it ran with.
        self.tell_peer(now, address, IngressInput::Configure(Arc::clone(config)));
        let up = self.peers.get(&address).is_some_and(|peer| peer.established.is_some());
        if !dynamic && !up && !config.stays_down() {
            // Whose session goes on is awaited still, or has told everything.
            self.expect(now, id, config);
        }
        if config.stays_down() {
            // There may be no session to end, but routes that wait for the peer's restart.
            self.down(now, address, Down::Death);
        }
        self.tell_rib(now, RibInput::Peer { peer: id, address, config: Arc::clone(config) });
    }

    pub(super) fn remove_peer(&mut self, now: Instant, address: PeerAddress, subcode: u8) {
        self.tell_peer(now, address, IngressInput::Cease { subcode, text: String::new() });
        let Some(peer) = self.peers.remove(&address) else { return };
        self.dynamic.removed(address, &peer);
        self.addresses.remove(&peer.id);
        self.convergence.forget(peer.id);
        self.tell_rib(now, RibInput::RemovePeer(peer.id));
        let outputs = &mut self.outputs;
        self.connections.retain(|&connection, outbox| {
            let stays = outbox.peer != address;
            if !stays {
                outputs.push_back(Output::Close { connection });
            }
            stays
        });
    }
}

/// The cluster that a speaker reflects for (RFC 4456 section 7). Without clients it is in none, and its CLUSTER_LIST check is not asked for.
fn cluster_id(config: &SpeakerConfig) -> Option<Ipv4Addr> {
    let ranges = config.ranges.values().map(|range| &range.peer);
    let reflects = config.peers.values().chain(ranges).any(|peer| peer.route_reflector_client);
    reflects.then(|| config.cluster_id.unwrap_or(config.router_id))
}
