//! What readers of events ask for, and changes of best paths as events.

use std::net::SocketAddr;

use ipnet::IpNet;
use weft_bgp::speaker::Speaker;
use weft_bgp::status::{BestChange, BestOf};
use weft_bgp::types::PeerAddress;

use super::clock::Moment;
use super::socket::Select;
use crate::api::json::{EventJson, PeerJson};

/// What changes of best paths are called.
const KIND: &str = "best-path";

/// Which events are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EventQuery {
    /// Those with higher numbers.
    pub(super) after: u64,
    /// Those of peers that are called so, with the addresses of the peers of that name; none: all.
    pub(super) peer: Option<Vec<String>>,
    /// Those of this prefix and what lies inside, or of the prefixes that hold this address.
    pub(super) select: Select,
}

impl EventQuery {
    /// Lets a peer be meant by its name too. Tells whether there is such a peer; none is asked for: yes.
    pub(super) fn resolve(&mut self, peers: &[PeerJson]) -> bool {
        let Some(called) = &mut self.peer else { return true };
        let addresses: Vec<(String, &PeerJson)> =
            peers.iter().map(|peer| (without_port(&peer.peer), peer)).collect();
        let is_called = |(address, peer): &(String, &PeerJson)| {
            [&peer.name, &peer.peer, address].into_iter().any(|name| called.contains(name))
        };
        let addresses: Vec<String> =
            addresses.into_iter().filter(is_called).map(|(address, _)| address).collect();
        let is_there = !addresses.is_empty();
        called.extend(addresses);
        is_there
    }

    /// Whether it asks for an event.
    pub(super) fn wants(&self, event: &EventJson) -> bool {
        let peer =
            self.peer.as_ref().is_none_or(|called| event.peer.as_ref().is_some_and(|p| called.contains(p)));
        event.seq > self.after && peer && self.selects(event.prefix)
    }

    fn wants_change(&self, change: &BestChange) -> bool {
        let of = |best: Option<BestOf>| best.and_then(|best| best.peer).map(|peer| peer.to_string());
        let by = [of(change.before), of(change.after)];
        let peer =
            self.peer.as_ref().is_none_or(|called| by.iter().flatten().any(|peer| called.contains(peer)));
        peer && self.selects(Some(change.prefix))
    }

    fn selects(&self, prefix: Option<IpNet>) -> bool {
        match (self.select, prefix) {
            (Select::All, _) => true,
            (Select::Exact(wanted), Some(prefix)) => wanted.contains(&prefix),
            (Select::Covering(address), Some(prefix)) => prefix.contains(&address),
            (Select::Exact(_) | Select::Covering(_), None) => false,
        }
    }
}

/// `10.0.0.1` of `10.0.0.1:1790`.
fn without_port(peer: &str) -> String {
    peer.parse::<SocketAddr>().map_or_else(|_| peer.to_owned(), |address| address.ip().to_string())
}

/// The changes of best paths that are asked for. A number from the future, as a reader has it across a restart, is that of the beginning.
pub(super) fn changes(speaker: &Speaker, query: &EventQuery) -> Vec<BestChange> {
    let count = speaker.counters().best_path_changes;
    let after = if query.after > count { 0 } else { query.after };
    let mut changes = speaker.best_changes(after);
    changes.retain(|change| query.wants_change(change));
    changes
}

/// A change of a best path as an event.
pub(super) fn event(change: &BestChange, now: &Moment) -> EventJson {
    let peer = |best: Option<BestOf>| best.and_then(|best| best.peer);
    EventJson {
        seq: change.seq,
        time: now.timestamp_of(change.at),
        peer: peer(change.after).or(peer(change.before)).map(|peer| peer.to_string()),
        prefix: Some(change.prefix),
        kind: KIND.to_owned(),
        text: text(change),
        bytes: None,
    }
}

fn text(change: &BestChange) -> String {
    let BestChange { prefix, before, after, changes, .. } = change;
    let what = match (before, after) {
        (None, Some(after)) => format!("{} is the best path", path(after)),
        (Some(before), Some(after)) if (before.peer, before.local) == (after.peer, after.local) => {
            format!("{} goes on as the best path, with other attributes", path(after))
        }
        (Some(before), Some(after)) => {
            format!("{} is the best path in place of {}", path(after), path(before))
        }
        (Some(before), None) => format!("there is no path any more, after {}", path(before)),
        (None, None) => "a path came and went".to_owned(),
    };
    match changes {
        1 => format!("{prefix}: {what}"),
        more => format!("{prefix}: {what} ({more} changes within a second)"),
    }
}

fn path(best: &BestOf) -> String {
    let by = |peer: PeerAddress| match peer.ip() {
        // Mostly the peer itself.
        Some(ip) if ip == best.next_hop => format!("that of {peer}"),
        _ => format!("that of {peer} over {}", best.next_hop),
    };
    match (best.local, best.peer) {
        (true, _) => "our own".to_owned(),
        (false, Some(peer)) => by(peer),
        (false, None) => format!("that of a peer that is gone, over {}", best.next_hop),
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn learned(last: u8) -> Option<BestOf> {
        let address = IpAddr::from([10, 0, 0, last]);
        Some(BestOf { peer: Some(address.into()), local: false, next_hop: address })
    }

    fn change(before: Option<BestOf>, after: Option<BestOf>) -> BestChange {
        let now = Moment::now().instant;
        let prefix = "10.1.2.0/26".parse().unwrap();
        BestChange { seq: 1, at: now, prefix, before, after, changes: 1 }
    }

    #[test]
    fn changes_are_sentences() {
        let own = Some(BestOf { peer: None, local: true, next_hop: [0; 4].into() });
        let far = learned(1).map(|best| BestOf { next_hop: [10, 0, 0, 9].into(), ..best });
        let gone = learned(1).map(|best| BestOf { peer: None, ..best });
        for (before, after, expected) in [
            (None, learned(1), "that of 10.0.0.1 is the best path"),
            (
                learned(1),
                far,
                "that of 10.0.0.1 over 10.0.0.9 goes on as the best path, with other attributes",
            ),
            (learned(1), own, "our own is the best path in place of that of 10.0.0.1"),
            (gone, None, "there is no path any more, after that of a peer that is gone, over 10.0.0.1"),
        ] {
            assert_eq!(text(&change(before, after)), format!("10.1.2.0/26: {expected}"));
        }
        let many = BestChange { changes: 7, ..change(None, learned(1)) };
        assert!(text(&many).ends_with("(7 changes within a second)"));
    }

    #[test]
    fn events_are_picked_by_peer_and_prefix() {
        let query = |peer: Option<&str>, select| EventQuery {
            after: 0,
            peer: peer.map(|peer| vec![peer.to_owned()]),
            select,
        };
        let change = change(learned(1), learned(2));
        let event = event(&change, &Moment::now());
        assert_eq!((event.peer.as_deref(), event.kind.as_str()), (Some("10.0.0.2"), "best-path"));
        let (inside, outside): (IpNet, IpNet) =
            ("10.1.0.0/16".parse().unwrap(), "10.1.2.0/27".parse().unwrap());
        for (query, of_change, of_event) in [
            (query(None, Select::All), true, true),
            (query(Some("10.0.0.1"), Select::All), true, false),
            (query(Some("10.0.0.2"), Select::Exact(inside)), true, true),
            (query(Some("10.0.0.3"), Select::All), false, false),
            (query(None, Select::Exact(outside)), false, false),
            (query(None, Select::Covering("10.1.2.63".parse().unwrap())), true, true),
            (query(None, Select::Covering("10.1.2.64".parse().unwrap())), false, false),
        ] {
            assert_eq!(
                (query.wants_change(&change), query.wants(&event)),
                (of_change, of_event),
                "{query:?}"
            );
        }
        let about_nothing = EventJson { prefix: None, ..event };
        assert!(!query(None, Select::Exact(inside)).wants(&about_nothing));
        assert_eq!(
            (without_port("10.0.0.1:1790"), without_port("%eth0")),
            ("10.0.0.1".into(), "%eth0".into())
        );
    }
}
