//! What the speaker holds of one peer.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::config::PeerConfig;
use crate::egress::GroupId;
use crate::ingress::Ingress;
use crate::session::State;
use crate::types::{ConnectionId, PeerId};

/// One peer.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) id: PeerId,
    pub(super) config: Arc<PeerConfig>,
    /// The range that it has connected from, if that alone makes it a peer.
    pub(super) range: Option<IpNet>,
    pub(super) ingress: Ingress,
    /// As it was told last.
    pub(super) state: State,
    /// Our end of its last connection.
    pub(super) local: Option<IpAddr>,
    /// The connection of the Established session.
    pub(super) established: Option<ConnectionId>,
    /// The connection that ended last without our doing.
    pub(super) lost: Option<ConnectionId>,
    /// The update group that it is in.
    pub(super) group: Option<GroupId>,
    /// How many UPDATEs its groups have sent it; its [`Ingress`] counts the other messages.
    pub(super) updates_sent: u64,
    /// The same of ROUTE-REFRESHes.
    pub(super) refreshes_sent: u64,
}

impl Peer {
    pub(super) fn new(id: PeerId, config: Arc<PeerConfig>, range: Option<IpNet>, ingress: Ingress) -> Self {
        Self {
            id,
            config,
            range,
            ingress,
            state: State::Idle,
            local: None,
            established: None,
            lost: None,
            group: None,
            updates_sent: 0,
            refreshes_sent: 0,
        }
    }
}
