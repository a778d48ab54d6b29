//! `weftctl clear`: sessions that begin anew, routes that are told again.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};

use weft_bgp::protection::Authentication;
use weft_bgp::session::State;
use weft_bgp::speaker::{Refresh, Speaker};
use weft_bgp::status::PeerStatus;
use weft_bgp::transport::{Command, Handle, Stopped};
use weft_bgp::types::PeerAddress;

use super::clock::Moment;
use super::events::{Events, NewEvent};
use super::happened;
use super::socket::Refusal;
use super::view;
use crate::api::clear::{ClearRequest, ClearedJson, SoftClear};

/// How many peers an error names.
const NAMED_MAX: usize = 20;

/// A peer that is meant.
#[derive(Debug)]
struct Target {
    address: PeerAddress,
    name: String,
    peer: String,
    /// Whether it has a session.
    established: bool,
    /// Why nothing can be done about it.
    obstacle: Option<String>,
}

/// Clears whom it is asked to. Of all peers, those about which nothing can be done are left out, and told of.
///
/// # Errors
/// There is no such peer, or nothing can be done about any.
pub(super) async fn clear(
    bgp: Option<Handle>,
    events: &Events,
    request: ClearRequest,
) -> Result<Vec<ClearedJson>, Refusal> {
    let unplanned = || Refusal::Refused("no documents are in force yet, so that there are no peers".into());
    let bgp = bgp.ok_or_else(unplanned)?;
    let stopped = |stopped: Stopped| Refusal::Unavailable(stopped.to_string());
    let soft = request.soft;
    let targets = bgp.inspect(move |speaker| targets(speaker, &request)).await.map_err(stopped)??;
    if let Some(Target { peer, obstacle: Some(why), .. }) = targets.first()
        && targets.iter().all(|target| target.obstacle.is_some())
    {
        let others = match targets.len() - 1 {
            0 => String::new(),
            more => format!(", and the same goes for {more} more"),
        };
        return Err(Refusal::Refused(format!("{peer} {why}{others}")));
    }
    let mut cleared = Vec::new();
    for Target { address, name, peer, established, obstacle } in targets {
        let (done, text) = match obstacle {
            Some(why) => (false, why),
            None => {
                bgp.send(command(address, soft)).await.map_err(stopped)?;
                let text = what(soft, established).to_owned();
                tell(events, address, &text);
                (true, text)
            }
        };
        cleared.push(ClearedJson { name, peer, done, text });
    }
    Ok(cleared)
}

fn targets(speaker: &Speaker, request: &ClearRequest) -> Result<Vec<Target>, Refusal> {
    let peers = speaker.peers();
    let is_meant = |peer: &&PeerStatus| request.peer == ClearRequest::ALL || is_called(peer, &request.peer);
    let target = |status: &PeerStatus| Target {
        address: status.address,
        name: status.config.name.clone(),
        peer: view::peer_address(status.address, status.config.port),
        established: status.state == State::Established,
        obstacle: obstacle(status, request.soft),
    };
    let targets: Vec<Target> = peers.iter().filter(is_meant).map(target).collect();
    match targets.is_empty() {
        true if peers.is_empty() => Err(Refusal::Refused("there are no peers".into())),
        true => {
            let all = peers.iter().map(|peer| (&peer.config.name, peer.address));
            Err(no_such_peer(&request.peer, all))
        }
        false => Ok(targets),
    }
}

/// Whether a peer has this address, with or without its port, is behind this `%interface`, or is asked for by the object of this name.
pub(super) fn is_called(peer: &PeerStatus, wanted: &str) -> bool {
    let address: Option<IpAddr> =
        wanted.parse().ok().or_else(|| wanted.parse::<SocketAddr>().ok().map(|a| a.ip()));
    let ip = peer.address.ip();
    ip.is_some() && ip == address || peer.config.name == wanted || peer.address.to_string() == wanted
}

/// Says who there is.
pub(super) fn no_such_peer<N: Display, P: Display>(
    wanted: &str,
    mut peers: impl Iterator<Item = (N, P)>,
) -> Refusal {
    let named = peers.by_ref().take(NAMED_MAX).map(|(name, peer)| format!("{name} ({peer})"));
    let named: Vec<String> = named.collect();
    let there_are = match (named.is_empty(), peers.count()) {
        (true, _) => "there are none".to_owned(),
        (false, 0) => format!("there are {}", named.join(", ")),
        (false, more) => format!("there are {} and {more} more", named.join(", ")),
    };
    Refusal::NotFound(format!("no peer has the address or name {wanted:?}; {there_are}"))
}

/// Why nothing can be done about a peer.
fn obstacle(status: &PeerStatus, soft: Option<SoftClear>) -> Option<String> {
    if let Some(text) = &status.config.shutdown {
        return Some(format!("is to have no session: {text}"));
    }
    if let Authentication::Unavailable(why) = &status.config.authentication {
        return Some(format!("is to have no session: {why}"));
    }
    let soft = soft?;
    match &status.session {
        Some(session) if soft == SoftClear::In && !session.route_refresh => Some(
            "cannot be asked for its routes again, as it does not know ROUTE-REFRESH; without --soft its session begins anew"
                .into(),
        ),
        Some(_) if status.state == State::Established => None,
        _ => Some(format!("is in {}, not Established: its routes are told when the session comes up", status.state)),
    }
}

fn command(peer: PeerAddress, soft: Option<SoftClear>) -> Command {
    match soft {
        None => Command::Reset { peer },
        Some(SoftClear::In) => Command::Refresh { peer, direction: Refresh::In },
        Some(SoftClear::Out) => Command::Refresh { peer, direction: Refresh::Out },
    }
}

fn what(soft: Option<SoftClear>, established: bool) -> &'static str {
    match soft {
        None if established => "the session is ended and begins anew",
        None => "it has no session, and one is begun at once",
        Some(SoftClear::In) => "its routes are asked for again",
        Some(SoftClear::Out) => "it is told all routes again",
    }
}

fn tell(events: &Events, peer: PeerAddress, what: &str) {
    let text = format!("weftctl clear: {what}");
    let event = NewEvent { peer: Some(peer.to_string()), kind: "clear", text, bytes: bytes::Bytes::new() };
    happened::log(tracing::Level::INFO, &event, 0);
    events.push(Moment::now().timestamp, event);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(refusal: Refusal) -> String {
        match refusal {
            Refusal::NotFound(error) => error,
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn an_unknown_peer_is_told_who_there_is() {
        let named = |n: usize| (0..n).map(|n| (format!("p{n}"), n));
        assert!(error(no_such_peer("x", named(0))).ends_with("name \"x\"; there are none"));
        assert!(error(no_such_peer("x", named(2))).ends_with("there are p0 (0), p1 (1)"));
        let many = error(no_such_peer("x", named(NAMED_MAX + 3)));
        assert!(many.ends_with("p19 (19) and 3 more"), "{many}");
    }
}
