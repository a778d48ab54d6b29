//! Finding the router at the other end of a link by router advertisements (RFC 4861), and letting it find us.
//!
//! [`Routers`] is pure: who was heard when goes in, who is the router of each link and when to advertise comes out.
//! [`message`] is the one message there is, [`Socket`] what it goes through.

mod socket;

pub mod message;

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

pub use self::socket::Socket;

/// Between two advertisements on a link. RFC 4861 section 6.2.1 takes ten minutes where hosts are to be told of a
/// router; here a router is to be told of another, and FRR does it at this pace.
pub const INTERVAL: Duration = Duration::from_secs(10);
/// Between the first advertisements on a link, and what lies between any two (`MIN_DELAY_BETWEEN_RAS`, RFC 4861
/// section 10).
const INITIAL_INTERVAL: Duration = Duration::from_secs(3);
/// How many are sent at that pace (`MAX_INITIAL_RTR_ADVERTISEMENTS`).
const INITIAL: u32 = 3;
/// How long a router counts at most after its last word, which hosts may go by for hours: another that takes its place must not wait so long.
const LIFETIME_MAX: Duration = Duration::from_secs(120);
/// How long a router counts at least after its last word. What it says of itself is how long hosts may send to it,
/// which is nothing to its neighbours: ours says 0.
const LIFETIME_MIN: Duration = INTERVAL.saturating_mul(3);

/// A link on which a router is looked for, as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Link {
    /// It is up and has a link-local address: advertisements can be sent.
    pub ready: bool,
    /// Who there is a session with. That is the router, whoever else is heard.
    pub session: Option<Ipv6Addr>,
}

/// Counts since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Advertisements sent.
    pub sent: u64,
    /// Advertisements heard.
    pub received: u64,
    /// Of those, malformed ones and those of other routers than the link's.
    pub ignored: u64,
}

/// One router a link: the first that was heard. It is another's turn when that one has been silent for its lifetime
/// and there is no session with it.
#[derive(Debug, Default)]
pub struct Routers {
    links: BTreeMap<u32, State>,
    counters: Counters,
}

#[derive(Debug)]
struct State {
    link: Link,
    router: Option<Router>,
    sent: u32,
    last_sent: Option<Instant>,
    /// When to advertise next, once the link is ready.
    next: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Router {
    address: Ipv6Addr,
    until: Instant,
}

impl State {
    fn new(now: Instant) -> Self {
        Self { link: Link::default(), router: None, sent: 0, last_sent: None, next: now }
    }

    fn update(&mut self, now: Instant, link: Link) {
        let before = std::mem::replace(&mut self.link, link);
        if link.ready && !before.ready {
            // Whoever is at the other end may have forgotten us, or be somebody else.
            self.sent = 0;
            self.advertise_soon(now);
            if let Some(router) = self.router.as_mut() {
                router.until = router.until.min(now + LIFETIME_MIN);
            }
        }
        if let Some(address) = link.session.or(before.session) {
            // The end of a session is a word of the router's too.
            let until = now + LIFETIME_MIN;
            let until = self.router.filter(|r| r.address == address).map_or(until, |r| r.until.max(until));
            self.router = Some(Router { address, until });
        }
    }

    fn advertise_soon(&mut self, now: Instant) {
        let earliest = self.last_sent.map_or(now, |last| now.max(last + INITIAL_INTERVAL));
        self.next = self.next.min(earliest);
    }

    fn is_expired(&self, now: Instant) -> bool {
        self.link.session.is_none() && self.router.is_some_and(|router| router.until <= now)
    }
}

impl Routers {
    /// Follows just these links, by index.
    pub fn follow(&mut self, now: Instant, links: &BTreeMap<u32, Link>) {
        self.links.retain(|index, _| links.contains_key(index));
        for (index, link) in links {
            self.links.entry(*index).or_insert_with(|| State::new(now)).update(now, *link);
        }
    }

    /// The router of a link was this one when the process ran last. It counts as heard.
    pub fn remember(&mut self, now: Instant, link: u32, address: Ipv6Addr) {
        if let Some(state) = self.links.get_mut(&link).filter(|state| state.router.is_none()) {
            state.router = Some(Router { address, until: now + LIFETIME_MIN });
        }
    }

    /// An advertisement came in on a link, from this source.
    pub fn heard(&mut self, now: Instant, link: u32, source: Ipv6Addr, payload: &[u8]) {
        let Some(state) = self.links.get_mut(&link) else { return };
        self.counters.received = self.counters.received.saturating_add(1);
        let lifetime = message::lifetime(payload).filter(|_| source.is_unicast_link_local());
        let expired = state.is_expired(now);
        let current = state.router.filter(|router| !expired && router.address != source);
        match lifetime {
            Some(lifetime) if current.is_none() => {
                let until = now + lifetime.clamp(LIFETIME_MIN, LIFETIME_MAX);
                let before = state.router.replace(Router { address: source, until });
                if before.is_none_or(|before| before.address != source) {
                    // It should not have to wait for us either.
                    state.advertise_soon(now);
                }
            }
            _ => self.counters.ignored = self.counters.ignored.saturating_add(1),
        }
    }

    /// Forgets routers whose time is up, and returns the links to advertise on now.
    pub fn tick(&mut self, now: Instant) -> Vec<u32> {
        let mut due = Vec::new();
        for (index, state) in &mut self.links {
            if state.is_expired(now) {
                state.router = None;
            }
            if state.link.ready && state.next <= now {
                let interval =
                    if state.sent.saturating_add(1) < INITIAL { INITIAL_INTERVAL } else { INTERVAL };
                state.sent = state.sent.saturating_add(1);
                (state.last_sent, state.next) = (Some(now), now + interval);
                self.counters.sent = self.counters.sent.saturating_add(1);
                due.push(*index);
            }
        }
        due
    }

    /// When [`tick`](Self::tick) is due.
    pub fn next_deadline(&self) -> Option<Instant> {
        let sending = self.links.values().filter(|state| state.link.ready).map(|state| state.next);
        let without_session = self.links.values().filter(|state| state.link.session.is_none());
        let expiry = without_session.filter_map(|state| state.router).map(|router| router.until);
        sending.chain(expiry).min()
    }

    /// The router of each link that has one.
    pub fn found(&self) -> BTreeMap<u32, Ipv6Addr> {
        self.links.iter().filter_map(|(index, state)| Some((*index, state.router?.address))).collect()
    }

    /// Counts since the start.
    pub fn counters(&self) -> Counters {
        self.counters
    }
}

#[cfg(test)]
mod tests;
