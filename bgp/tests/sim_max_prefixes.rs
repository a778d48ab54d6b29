//! Peers that tell more prefixes than they may (RFC 4271 section 6.7, RFC 4486).

#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test")]

mod sim_support;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use sim_support::{LIMIT, everything, peer, speaker, start, v4};
use weft_bgp::config::{LimitAction, MaxPrefixes, PeerConfig, SpeakerConfig};
use weft_bgp::policy::Policy;
use weft_bgp::session::State;
use weft_bgp::sim::{SpeakerId, World};
use weft_bgp::speaker::Input;
use weft_bgp::status::{Direction, PeerStatus};
use weft_bgp::types::{Family, Reason};

const ASN: [u32; 2] = [65001, 65002];
const AFTER: Duration = Duration::from_secs(300);

/// Speaker 0, which may be told 10 prefixes of a family, and speaker 1, which tells as many as it is told to.
struct Lab {
    world: World,
    ids: [SpeakerId; 2],
    limited: PeerConfig,
}

fn config(n: usize, peer: PeerConfig, ipv4: u32) -> SpeakerConfig {
    let mut config =
        SpeakerConfig { peers: [(v4(1 - n).into(), Arc::new(peer))].into(), ..speaker(n, ASN[n]) };
    config.originate.clear();
    for n in 0..ipv4 {
        let prefix = IpNet::new(Ipv4Addr::from(0x1400_0000 + n).into(), 32).unwrap();
        config.originate.insert(prefix, <_>::default());
    }
    config
}

impl Lab {
    fn up(action: LimitAction, prefixes: u32) -> Self {
        let max_prefixes = Some(MaxPrefixes { limit: 10, warning: 8, action });
        let limited = PeerConfig { max_prefixes, ..peer(0, ASN[0], ASN[1]) };
        let mut world = World::new(1);
        let ids = [
            world.add("limited", start(0), config(0, limited.clone(), 0), vec![v4(0).into()]),
            world.add("teller", start(1), config(1, peer(1, ASN[1], ASN[0]), prefixes), vec![v4(1).into()]),
        ];
        let mut lab = Self { world, ids, limited };
        lab.settle();
        lab
    }

    fn settle(&mut self) {
        self.world.run_until_quiet(LIMIT).unwrap();
    }

    fn tell(&mut self, prefixes: u32) {
        self.world.configure(self.ids[1], config(1, peer(1, ASN[1], ASN[0]), prefixes));
        self.settle();
    }

    fn limit(&mut self, change: impl FnOnce(&mut PeerConfig)) {
        change(&mut self.limited);
        self.world.configure(self.ids[0], config(0, self.limited.clone(), 0));
        self.settle();
    }

    fn status(&self) -> PeerStatus {
        self.world.inspect(self.ids[0]).unwrap().peer(v4(1).into()).unwrap()
    }

    fn other(&self) -> PeerStatus {
        self.world.inspect(self.ids[1]).unwrap().peer(v4(0).into()).unwrap()
    }

    fn is_up(&self) -> bool {
        self.status().state == State::Established
    }

    fn received(&self) -> usize {
        self.status().families[0].received
    }

    fn assert_stopped(&self) {
        let status = self.status();
        assert_eq!((status.state, status.over_limit, self.received()), (State::Idle, true, 0));
        let error = status.last_error.unwrap();
        // Hard Reset with it inside: else the peer would take it for a restart (RFC 8538).
        assert_eq!((error.direction, error.code, error.subcode), (Direction::Sent, Some(6), Some(9)));
        assert!(error.text.ends_with("more than 10 of ipv4-unicast"), "{}", error.text);
        assert!(self.world.kernel(self.ids[0]).is_empty());
        assert_eq!(self.world.connections(self.ids[0], self.ids[1]), 0);
    }
}

#[test]
fn as_many_as_there_may_be_are_taken() {
    let mut lab = Lab::up(LimitAction::Stop, 10);
    assert!(lab.is_up() && lab.received() == 10);
    // The same again are not more: each family is counted by itself, each prefix once.
    lab.tell(7);
    lab.tell(10);
    lab.world.tell(lab.ids[1], Input::Reset { peer: v4(0).into() });
    lab.settle();
    assert!(lab.is_up() && lab.received() == 10);
}

#[test]
fn more_end_the_session_and_it_stays_down() {
    let mut lab = Lab::up(LimitAction::Stop, 11);
    lab.assert_stopped();
    lab.world.run_for(AFTER * 10).unwrap();
    lab.assert_stopped();
    let [_, _, notifications, ..] = lab.other().counters.received;
    assert_eq!(notifications, 1, "the peer is told once");
    assert!(lab.status().counters.connections_refused > 0, "the peer dials in vain");
}

#[test]
fn a_session_that_grows_over_its_limit_ends_too() {
    let mut lab = Lab::up(LimitAction::Stop, 10);
    lab.tell(11);
    lab.assert_stopped();
}

#[test]
fn what_the_policy_rejects_counts_too() {
    let mut lab = Lab::up(LimitAction::Stop, 0);
    let nothing = Policy { rules: Vec::new(), unmatched: Reason::new("unmatched", "no rule matches") };
    lab.limit(|peer| peer.import = Arc::new(nothing));
    lab.tell(11);
    lab.assert_stopped();
}

#[test]
fn with_a_warning_the_session_goes_on() {
    let mut lab = Lab::up(LimitAction::Warn, 200);
    let status = lab.status();
    assert!(lab.is_up() && !status.over_limit && lab.received() == 200);
    assert!(status.last_error.is_none(), "{status:?}");
    lab.tell(3);
    assert!(lab.is_up() && lab.received() == 3);
}

#[test]
fn it_is_begun_again_after_a_while() {
    let mut lab = Lab::up(LimitAction::Restart(AFTER), 11);
    lab.assert_stopped();
    lab.world.run_for(AFTER - Duration::from_secs(60)).unwrap();
    lab.assert_stopped();
    lab.tell(9);
    lab.assert_stopped();
    lab.world.run_for(AFTER).unwrap();
    assert!(lab.is_up() && lab.received() == 9 && !lab.status().over_limit);
}

#[test]
fn only_a_change_that_matters_or_a_reset_begins_it_again() {
    let mut lab = Lab::up(LimitAction::Stop, 11);
    lab.limit(|peer| peer.name = "another name".into());
    lab.limit(|peer| peer.export = Arc::new(Policy { rules: Vec::new(), ..(*everything()).clone() }));
    lab.assert_stopped();
    let before = lab.other().counters.received[0];
    lab.world.tell(lab.ids[0], Input::Reset { peer: v4(1).into() });
    lab.settle();
    assert!(lab.other().counters.received[0] > before, "it was tried again");
    lab.assert_stopped();
    let raised = MaxPrefixes { limit: 11, warning: 8, action: LimitAction::Stop };
    lab.limit(|peer| peer.max_prefixes = Some(raised));
    assert!(lab.is_up() && lab.received() == 11);
    // And one that is lowered is looked at at once.
    lab.limit(|peer| peer.max_prefixes = Some(MaxPrefixes { limit: 10, ..raised }));
    lab.assert_stopped();
}

/// Proves RFC 4486 4.
#[test]
fn the_notification_says_which_family_and_how_many() {
    use weft_bgp::wire::notification::Notification;
    let notification = Notification::max_prefixes(Family::Ipv6Unicast, 70_000);
    assert_eq!((notification.code.code, notification.code.subcode), (6, 1));
    assert_eq!(&notification.data[..], [0, 2, 1, 0, 1, 0x11, 0x70]);
}
