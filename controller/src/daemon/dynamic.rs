//! Dynamic peers: which there were, for a weftd that takes over, and what is wrong with their ranges.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use weft_bgp::session::State;
use weft_bgp::status::{PeerStatus, RangeRefusal, RangeStatus};

use super::clock::Moment;
use crate::api::json::{ListenRangeJson, Problem};

/// In the run directory: the dynamic peers with a session, or with routes that are kept for the next one.
const FILE_NAME: &str = "dynamic-peers.json";

/// How long a refused connection is a problem, in seconds.
const REFUSED_SECONDS: u64 = 600;

/// Keeps what a weftd that takes over from this one has to know: nobody can dial a dynamic peer, so that it must be waited for.
pub(super) fn remember(run_dir: &Path, peers: &BTreeSet<IpAddr>) -> io::Result<()> {
    let (path, new) = (run_dir.join(FILE_NAME), run_dir.join(format!("{FILE_NAME}.new")));
    fs::write(&new, serde_json::to_vec(peers)?)?;
    fs::rename(new, path)
}

/// The dynamic peers of a weftd that died. None where they cannot be read: they are not waited for then.
pub(super) fn remembered(run_dir: &Path) -> BTreeSet<IpAddr> {
    let read = fs::read(run_dir.join(FILE_NAME)).ok();
    read.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

/// Whether a peer is dynamic and neither has a session nor left one that it may come back to: nobody wants that it is there.
pub(super) fn is_passing(peer: &PeerStatus) -> bool {
    peer.range.is_some() && peer.state != State::Established && peer.stale_until.is_none()
}

/// A range as it is told.
pub(super) fn range(status: &RangeStatus) -> ListenRangeJson {
    ListenRangeJson {
        name: status.config.peer.name.clone(),
        range: status.range,
        peers: status.peers,
        established: status.established,
        limit: status.config.limit,
        refused: status.refused,
    }
}

/// A range that had to refuse somebody.
pub(super) fn refused(status: &RangeStatus, now: &Moment) -> Option<Problem> {
    let (at, why) = status.last_refused.as_ref()?;
    let recent = now.instant.saturating_duration_since(*at).as_secs() < REFUSED_SECONDS;
    if !recent || status.config.peer.stays_down() {
        return None;
    }
    let (name, range) = (&status.config.peer.name, status.range);
    let remedy = match why {
        RangeRefusal::Full { .. } => {
            "raise listenLimit, or see who connects (weftctl peers) and keep out whom you do not know: password, ttlSecurity"
        }
        RangeRefusal::NotConfigured | RangeRefusal::StaysDown | RangeRefusal::Unprotected(_) => {
            "see that both ends have the same password and the peer is as near as ttlSecurity says; weftctl events has them all"
        }
    };
    Some(Problem::warning(
        "listen-range-refused",
        format!(
            "BGPPeer {name}: a connection from within {range} was refused: {why}; last at {:.0}",
            now.timestamp_of(*at)
        ),
        remedy,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_weftd_knows_who_was_there() {
        let folder = tempfile::tempdir().unwrap();
        assert!(remembered(folder.path()).is_empty());
        let peers: BTreeSet<IpAddr> = ["10.0.0.9", "fd00::1"].map(|a| a.parse().unwrap()).into();
        remember(folder.path(), &peers).unwrap();
        assert_eq!(remembered(folder.path()), peers);
        fs::write(folder.path().join(FILE_NAME), "{").unwrap();
        assert!(remembered(folder.path()).is_empty(), "what cannot be read is nothing to go by");
    }
}
