//! BFD of a session: by which profile, and over how many hops.

use std::time::Duration;

use weft_bgp::bfd::{Hops, SessionConfig};
use weft_bgp::config::{PeerConfig, RemoteAs};
use weft_bgp::types::PeerAddress;

use super::make::{Context, way_to};
use super::session::Wanted;
use crate::api::Duration as Written;

/// The interval where a profile gives none.
const INTERVAL: Duration = Duration::from_millis(300);
/// The detect multiplier where a profile gives none.
const DETECT_MULTIPLIER: u8 = 3;

/// The name of the profile that a session goes by: its BGPPeer's, else the node's; an empty one is none.
pub(super) fn profile_name<'a>(context: &'a Context<'_>, session: &Wanted<'a>) -> Option<&'a str> {
    let own = session.spec().and_then(|spec| spec.bfd_profile.as_deref());
    own.or(context.settings.bfd_profile.as_deref()).filter(|name| !name.is_empty())
}

/// BFD with a peer as `config` has it otherwise; none: no profile is named, or it is not there.
pub(super) fn session(
    context: &Context<'_>,
    session: &Wanted<'_>,
    address: PeerAddress,
    config: &PeerConfig,
) -> Option<SessionConfig> {
    let profile = context.cluster.bfd_profiles.get(profile_name(context, session)?)?;
    let interval = |written: Option<Written>| written.map_or(INTERVAL, |written| written.0);
    // Both ends of a session between nodes are made from one profile, and one of them has to speak.
    let yields = session.node.as_ref().is_none_or(|(other, _)| context.name > *other);
    Some(SessionConfig {
        hops: match is_multihop(context, session, address, config) {
            true => Hops::Multi { minimum_ttl: profile.minimum_ttl.unwrap_or(1) },
            false => Hops::Single,
        },
        source: config.source_address,
        desired_min_tx_interval: interval(profile.transmit_interval),
        required_min_rx_interval: interval(profile.receive_interval),
        detect_mult: profile.detect_multiplier.unwrap_or(DETECT_MULTIPLIER),
        passive: profile.passive_mode && yields,
    })
}

/// Both ends must say the same, each by what it knows. Nodes are wherever their addresses are; an eBGP peer is on the link unless it is said
/// to be elsewhere; an iBGP peer is on the link if its address, or all of
/// the range that it is of, is in a prefix of that.
fn is_multihop(
    context: &Context<'_>,
    session: &Wanted<'_>,
    address: PeerAddress,
    config: &PeerConfig,
) -> bool {
    let internal = match config.remote_as {
        RemoteAs::Exactly(asn) => asn == config.local_as,
        RemoteAs::Internal => true,
        RemoteAs::External => false,
    };
    address.interface().is_none()
        && (session.node.is_some()
            || if internal { way_to(context, session, address).is_none() } else { config.ebgp_multihop })
}
