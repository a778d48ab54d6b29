//! What is wrong with BFD, in words; and its sessions as the next weftd would need to know them.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use weft_bgp::bfd::{Remote, Resumption};
use weft_bgp::session::State;

use crate::api::json::{PeerJson, Problem};

/// In the run directory: the sessions that are Up.
pub(super) const FILE_NAME: &str = "bfd.json";

/// Keeps what a weftd that takes over from this one has to know.
pub(super) fn remember(run_dir: &Path, sessions: BTreeMap<Remote, Resumption>) -> io::Result<()> {
    let list: Vec<(Remote, Resumption)> = sessions.into_iter().collect();
    let (path, new) = (run_dir.join(FILE_NAME), run_dir.join(format!("{FILE_NAME}.new")));
    fs::write(&new, serde_json::to_vec(&list)?)?;
    fs::rename(new, path)
}

/// The sessions of a weftd that died. None where they cannot be read: they begin anew then.
pub(super) fn remembered(run_dir: &Path) -> BTreeMap<Remote, Resumption> {
    let read = fs::read(run_dir.join(FILE_NAME)).ok();
    let list = read.and_then(|bytes| serde_json::from_slice::<Vec<_>>(&bytes).ok());
    list.unwrap_or_default().into_iter().collect()
}

/// Forgets them.
pub(super) fn forget(run_dir: &Path) {
    // One that is not there is none to go by.
    let _ = fs::remove_file(run_dir.join(FILE_NAME));
}

/// A port is not to be had, or, without one, the thread.
pub(super) fn cannot_run(port: Option<u16>, error: &str) -> Problem {
    match port {
        Some(port) => Problem::error(
            "bfd-not-listening",
            format!("cannot listen for BFD on UDP port {port}: {error}"),
            format!(
                "see what holds the port (ss -lunp sport = :{port}) and stop it: another BFD daemon cannot run beside weftd"
            ),
        ),
        None => Problem::error(
            "bfd-not-running",
            format!("BFD does not run: {error}"),
            "see to what the system is short of; it is tried again when the configuration changes",
        ),
    }
}

/// A session with a peer that BGP reaches: it would be noticed late if the path failed.
pub(super) fn down(peer: &PeerJson) -> Option<Problem> {
    let bfd = peer.bfd.as_ref().filter(|bfd| bfd.state != "Up" && peer.state == State::Established)?;
    let heard = bfd.detection_time_ms.is_some();
    let port = if bfd.multihop { weft_bgp::bfd::MULTIHOP_PORT } else { weft_bgp::bfd::SINGLE_HOP_PORT };
    let kind = if bfd.multihop { "multihop" } else { "single hop" };
    let (what, remedy) = match bfd.remote_state.as_str() {
        "AdminDown" if heard => (
            "the peer holds it down by will".to_owned(),
            "switch it on at the other end, or take BFD off the session: bfdProfile: \"\" on the BGPPeer"
                .to_owned(),
        ),
        remote if heard => (
            format!("we hear the peer, and it is {remote}"),
            format!(
                "see that our packets (UDP port {port}) reach the peer, and that BFD there knows this node"
            ),
        ),
        _ if !bfd.multihop && peer.ttl_security.is_some() => (
            "the peer is not heard".to_owned(),
            format!(
                "switch BFD on for this node at the other end ({kind}, UDP port {port}); FRR cannot: with ttl-security its BFD is multihop (UDP \
                 port {}), so leave out either ttlSecurity at both ends, or BFD: bfdProfile: \"\" on the BGPPeer",
                weft_bgp::bfd::MULTIHOP_PORT
            ),
        ),
        _ => (
            "the peer is not heard".to_owned(),
            format!(
                "switch BFD on for this node at the other end ({kind}, UDP port {port}) and let it through, or take it off the session: \
                 bfdProfile: \"\" on the BGPPeer"
            ),
        ),
    };
    let text = format!("BFD with {} ({}) is {}: {what}", peer.name, peer.peer, bfd.state);
    Some(Problem::warning("bfd-down", text, remedy))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::api::json::{BfdJson, Severity};

    fn peer(state: State, bfd: &str, remote: &str, heard: bool) -> PeerJson {
        PeerJson {
            name: "tor".into(),
            peer: "10.0.0.1".into(),
            listen_range: None,
            neighbour: None,
            remote_as: None,
            local_as: 64601,
            state,
            route_reflector_client: false,
            since: None,
            families: Vec::new(),
            received: 0,
            accepted: 0,
            advertised: 0,
            per_family: BTreeMap::new(),
            bfd: Some(BfdJson {
                state: bfd.into(),
                since: None,
                diagnostic: "No Diagnostic".into(),
                remote_state: remote.into(),
                remote_diagnostic: "No Diagnostic".into(),
                multihop: true,
                transmit_interval_ms: None,
                detection_time_ms: heard.then_some(900),
                sent: 0,
                received: 0,
                failures: 0,
            }),
            graceful_restart: None,
            authentication: None,
            capabilities: None,
            max_prefixes: None,
            role: None,
            timers: None,
            ttl_security: None,
            detail: <_>::default(),
            last_error: None,
        }
    }

    #[test]
    fn bfd_that_is_not_up_is_a_warning_where_bgp_is() {
        assert_eq!(down(&peer(State::Established, "Up", "Up", true)), None);
        assert_eq!(
            down(&peer(State::Active, "Down", "Down", false)),
            None,
            "that BGP is down is said already"
        );
        let silent = down(&peer(State::Established, "Down", "Down", false)).unwrap();
        assert_eq!((silent.code.as_str(), silent.severity), ("bfd-down", Severity::Warning));
        assert!(silent.text.contains("not heard") && silent.remedy.contains("UDP port 4784"), "{silent:?}");
        let mut near = peer(State::Established, "Down", "Down", false);
        near.ttl_security = Some(1);
        let multihop = down(&near).unwrap();
        assert_eq!(multihop.remedy, silent.remedy, "both ends are multihop");
        near.bfd.as_mut().unwrap().multihop = false;
        let near = down(&near).unwrap();
        assert!(near.remedy.contains("with ttl-security its BFD is multihop (UDP port 4784)"), "{near:?}");
        let held = down(&peer(State::Established, "Down", "AdminDown", true)).unwrap();
        assert!(held.text.contains("by will"), "{held:?}");
        let deaf = down(&peer(State::Established, "Init", "Down", true)).unwrap();
        assert!(deaf.text.contains("it is Down"), "{deaf:?}");
    }

    #[test]
    fn the_next_weftd_is_told_which_sessions_to_go_on_with() {
        let folder = tempfile::tempdir().unwrap();
        assert!(remembered(folder.path()).is_empty());
        let resumption = Resumption {
            local_discriminator: 1,
            remote_discriminator: 2,
            desired_min_tx_interval: 100_000,
            required_min_rx_interval: 200_000,
            remote_min_rx_interval: 300_000,
            remote_desired_min_tx_interval: 400_000,
            remote_detect_mult: 3,
        };
        let remotes = [
            Remote { address: [10, 0, 0, 1].into(), link: None },
            Remote { address: "fe80::1".parse().unwrap(), link: Some(2) },
        ];
        let sessions: BTreeMap<_, _> = remotes.map(|remote| (remote, resumption)).into();
        remember(folder.path(), sessions.clone()).unwrap();
        assert_eq!(remembered(folder.path()), sessions);
        fs::write(folder.path().join(FILE_NAME), "[{").unwrap();
        assert!(remembered(folder.path()).is_empty(), "what cannot be read is nothing to go by");
        forget(folder.path());
        assert!(!folder.path().join(FILE_NAME).exists());
    }

    #[test]
    fn a_port_that_another_daemon_has_is_named() {
        let problem = cannot_run(Some(3784), "Address already in use (os error 98)");
        assert!(
            problem.text.contains("UDP port 3784") && problem.remedy.contains("sport = :3784"),
            "{problem:?}"
        );
    }
}
