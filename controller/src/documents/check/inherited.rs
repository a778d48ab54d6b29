//! What an object says beside what it inherits: a BGPPeer of the BGPConfigurations, one of these of `default`.

use super::Parsed;
use super::spec::{Faults, fault, keepalive_within, send_beyond};
use crate::api::json::DocumentError;
use crate::api::{BGPPeerSpec, Duration, Invalid};
use crate::cluster::{Cluster, Object};
use crate::plan::{Settings, SettingsByNode};

/// The faults of each object. Those of a BGPPeer stand beside every BGPConfiguration: which of them hold where it has sessions, the Nodes
/// say, which come and go.
pub(super) fn faults(parsed: &[Parsed], cluster: &Cluster) -> Vec<DocumentError> {
    let all = SettingsByNode::new(cluster);
    let mut errors = Vec::new();
    for object in parsed {
        let faults = match &object.object {
            Object::BgpConfiguration(spec) => {
                let inherited = all.of(object.name.strip_prefix("node.").unwrap_or_default());
                timers(spec.hold_time, spec.keepalive_time, spec.send_hold_time, &inherited)
            }
            Object::BgpPeer(spec) => {
                let faults = peer(spec, &all.of(""));
                let mut nodes = cluster.configurations.keys().filter_map(|name| name.strip_prefix("node."));
                match !faults.is_empty() && nodes.any(|node| peer(spec, &all.of(node)).is_empty()) {
                    true => Faults::new(),
                    false => faults,
                }
            }
            _ => Faults::new(),
        };
        errors.extend(faults.into_iter().map(|(field, Invalid { message, remedy })| {
            object.error(&field, Invalid::new(format!("{message} that it inherits"), remedy))
        }));
    }
    errors
}

fn peer(spec: &BGPPeerSpec, inherited: &Settings) -> Faults {
    let mut faults = timers(spec.hold_time, spec.keepalive_time, spec.send_hold_time, inherited);
    let own = spec.graceful_restart.unwrap_or_default();
    let is_off = own.enabled.is_none() && inherited.graceful_restart.enabled == Some(false);
    if is_off && own.long_lived_time.is_some_and(|time| !time.0.is_zero()) {
        let message = "longLivedTime does nothing beside the enabled: false";
        fault(&mut faults, "gracefulRestart.longLivedTime", message, "add enabled: true, or leave it out");
    }
    faults
}

/// What is given of a session's timers, beside the rest. Of those that are given together each object is asked by itself.
fn timers(
    hold: Option<Duration>,
    keepalive: Option<Duration>,
    send: Option<Duration>,
    inherited: &Settings,
) -> Faults {
    let mut faults = Faults::new();
    match (hold, inherited.send_hold_time) {
        (None, _) => {
            let hold = Duration(inherited.hold_time);
            keepalive.into_iter().for_each(|keepalive| keepalive_within(&mut faults, keepalive, hold));
            send.into_iter().for_each(|send| send_beyond(&mut faults, send, hold));
        }
        (Some(hold), Some(other)) if send.is_none() && !other.is_zero() && other < hold.0 => {
            let message = format!("the holdTime {hold} is longer than the sendHoldTime {}", Duration(other));
            fault(
                &mut faults,
                "holdTime",
                message,
                "add a sendHoldTime of twice the holdTime, or shorten it",
            );
        }
        (Some(_), _) => {}
    }
    faults
}
