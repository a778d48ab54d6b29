//! Keys of TCP-AO (RFC 5925).

use weft_bgp::protection::ao::KeyChain;

use super::spec::{Faults, fault, secret_key_ref};
use crate::api::{BGPConfigurationSpec, BGPPeerSpec, TcpAoSpec};

pub(super) fn configuration(faults: &mut Faults, name: &str, spec: &BGPConfigurationSpec) {
    let Some(keys) = &spec.node_mesh_tcp_ao else { return };
    let field = "nodeMeshTCPAO";
    chain(faults, field, keys);
    same_at_both_ends(faults, field, keys);
    if spec.node_mesh_password.is_some() {
        fault(faults, field, "nodeMeshPassword and nodeMeshTCPAO are both given", "keep one of the two");
    }
    if name != "default" {
        let message = "nodeMeshTCPAO is for all nodes alike: both ends of a session need it";
        fault(faults, field, message, "write it in the BGPConfiguration default");
    }
}

pub(super) fn peer(faults: &mut Faults, spec: &BGPPeerSpec) {
    let Some(keys) = &spec.tcp_ao else { return };
    let field = "tcpAO";
    chain(faults, field, keys);
    if spec.peer_selector.is_some() {
        same_at_both_ends(faults, field, keys);
    }
    if spec.password.is_some() {
        fault(faults, field, "password and tcpAO are both given", "keep one of the two");
    }
}

fn chain(faults: &mut Faults, field: &str, TcpAoSpec { keys }: &TcpAoSpec) {
    let (count, remedy) = (keys.len(), format!("write 1 to {} keys", KeyChain::MAX));
    if !(1..=KeyChain::MAX).contains(&count) {
        fault(faults, &format!("{field}.keys"), format!("there are {count} keys"), &remedy);
    }
    for (index, key) in keys.iter().enumerate() {
        let at = format!("{field}.keys[{index}]");
        secret_key_ref(faults, &at, &key.secret_key_ref);
        let before = || keys.iter().take(index);
        let remedy = "give each key its own: by it a segment says which key it is signed with";
        if before().any(|other| other.send_id == key.send_id) {
            let message = format!("another key has the sendID {} already", key.send_id);
            fault(faults, &format!("{at}.sendID"), message, remedy);
        }
        if before().any(|other| other.receive_id == key.receive_id) {
            let message = format!("another key has the receiveID {} already", key.receive_id);
            fault(faults, &format!("{at}.receiveID"), message, remedy);
        }
    }
}

/// Nodes at both ends have the same keys.
fn same_at_both_ends(faults: &mut Faults, field: &str, TcpAoSpec { keys }: &TcpAoSpec) {
    for (index, key) in keys.iter().enumerate().filter(|(_, key)| key.send_id != key.receive_id) {
        let (send, receive) = (key.send_id, key.receive_id);
        let message = format!(
            "the sendID {send} and the receiveID {receive} differ: the node at the other end has the same keys, and signs with {send} too"
        );
        fault(faults, &format!("{field}.keys[{index}].receiveID"), message, &format!("write {send}"));
    }
}
