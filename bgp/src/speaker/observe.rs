//! What passes between the speaker and its peers, for whoever writes it down. Nothing of it is made before somebody asks for it.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use bytes::Bytes;

use super::{Output, Speaker};
use crate::ingress::IngressInput;
use crate::mrt::{Encoding, Observation, Observed, Peering};
use crate::session::State;
use crate::types::{ConnectionId, PeerAddress};
use crate::wire::header;

impl Speaker {
    /// Begins to tell what passes, or ends it.
    pub(super) fn observe(&mut self, now: Instant, observed: bool) {
        self.observed = observed;
        for address in self.peers.keys().copied().collect::<Vec<_>>() {
            self.tell_peer(now, address, IngressInput::Observe(observed));
        }
    }

    /// Takes down between which addresses a connection is.
    pub(super) fn connected(&mut self, connection: ConnectionId, local: SocketAddr) {
        if let Some(peer) = self.connections.get(&connection).and_then(|o| self.peers.get_mut(&o.peer)) {
            peer.local = Some(local.ip());
        }
    }

    /// Tells of each message that is among these bytes.
    pub(super) fn observe_sent(&mut self, connection: ConnectionId, bytes: &Bytes) {
        if !self.observed {
            return;
        }
        let Some(address) = self.connections.get(&connection).map(|outbox| outbox.peer) else { return };
        let session = self.peers.get(&address).and_then(|peer| peer.ingress.session().cloned());
        for message in header::messages(bytes.clone()) {
            let encoding =
                session.as_ref().map_or(Encoding::PLAIN, |s| s.encoding_of(&message, s.add_path.send));
            self.push_observation(address, Observed::Sent(message), encoding);
        }
    }

    pub(super) fn observe_state(&mut self, peer: PeerAddress, from: State, to: State) {
        if self.observed {
            self.push_observation(peer, Observed::State { from, to }, Encoding::PLAIN);
        }
    }

    pub(super) fn push_observation(&mut self, address: PeerAddress, observed: Observed, encoding: Encoding) {
        let Some(peer) = self.peers.get(&address) else { return };
        let session = peer.ingress.session();
        let link_local = session.map(|session| session.remote).or(peer.config.neighbour.map(IpAddr::V6));
        let peering = Peering {
            remote_as: peer.remote_as(),
            local_as: peer.config.local_as,
            interface: address.interface().map_or(0, |interface| interface.index()),
            remote: address.ip().or(link_local),
            local: peer.local,
            encoding,
        };
        self.outputs.push_back(Output::Observation(Observation { peering, observed }));
    }
}
