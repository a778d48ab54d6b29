use super::*;

const LINK: u32 = 7;

/// Any instant will do as the start.
#[expect(clippy::disallowed_methods, reason = "only differences are looked at")]
fn start() -> Instant {
    Instant::now()
}

fn router(n: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, n)
}

/// An advertisement with a router lifetime.
fn advertisement(lifetime: u16) -> Vec<u8> {
    let mut message = message::advertisement(None);
    message[6..8].copy_from_slice(&lifetime.to_be_bytes());
    message
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

struct Bench {
    routers: Routers,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        let mut bench = Self { routers: Routers::default(), now: start() };
        bench.link(Link { ready: true, session: None });
        bench
    }

    fn link(&mut self, link: Link) {
        self.routers.follow(self.now, &[(LINK, link)].into());
    }

    fn hear(&mut self, source: Ipv6Addr, lifetime: u16) {
        self.routers.heard(self.now, LINK, source, &advertisement(lifetime));
    }

    /// Lets time pass, tick by tick; how many advertisements that takes.
    fn pass(&mut self, time: Duration) -> usize {
        let end = self.now + time;
        let mut sent = 0;
        while let Some(at) = self.routers.next_deadline().filter(|at| *at <= end) {
            assert!(at >= self.now || self.now == end, "a deadline in the past would never end");
            self.now = self.now.max(at);
            sent += self.routers.tick(self.now).len();
        }
        self.now = end;
        sent
    }

    fn found(&self) -> Option<Ipv6Addr> {
        self.routers.found().get(&LINK).copied()
    }
}

#[test]
fn the_first_that_is_heard_stays_while_it_is_heard() {
    let mut bench = Bench::new();
    assert_eq!(bench.found(), None);
    bench.hear(router(1), 1800);
    bench.hear(router(2), 1800);
    assert_eq!(bench.found(), Some(router(1)));
    bench.pass(LIFETIME_MAX - seconds(1));
    bench.hear(router(2), 1800);
    assert_eq!(bench.found(), Some(router(1)));
    bench.pass(seconds(1));
    assert_eq!(bench.found(), None, "its time is over, whatever lifetime it gave");
    bench.hear(router(2), 1800);
    assert_eq!(bench.found(), Some(router(2)));
    assert_eq!(bench.routers.counters().ignored, 2);
}

#[test]
fn a_link_that_comes_back_may_have_another_at_its_end() {
    let mut bench = Bench::new();
    bench.link(Link { ready: true, session: None });
    bench.hear(router(1), 1800);
    bench.link(Link { ready: false, session: None });
    bench.link(Link { ready: true, session: None });
    bench.pass(LIFETIME_MIN);
    bench.hear(router(2), 1800);
    assert_eq!(bench.found(), Some(router(2)));
}

#[test]
fn a_lifetime_of_nothing_is_three_intervals() {
    let mut bench = Bench::new();
    bench.hear(router(1), 0);
    bench.pass(LIFETIME_MIN - seconds(1));
    assert_eq!(bench.found(), Some(router(1)));
    bench.pass(seconds(1));
    assert_eq!(bench.found(), None);
}

#[test]
fn who_has_the_session_is_the_router_for_as_long() {
    let mut bench = Bench::new();
    bench.hear(router(1), 0);
    bench.link(Link { ready: true, session: Some(router(1)) });
    bench.pass(seconds(3600));
    bench.hear(router(2), 1800);
    assert_eq!(bench.found(), Some(router(1)));
    bench.link(Link { ready: true, session: None });
    bench.pass(LIFETIME_MIN - seconds(1));
    assert_eq!(bench.found(), Some(router(1)), "it may only restart");
    bench.pass(seconds(1));
    bench.hear(router(2), 1800);
    assert_eq!(bench.found(), Some(router(2)));
}

#[test]
fn who_connects_is_found_though_it_never_advertises() {
    let mut bench = Bench::new();
    bench.link(Link { ready: true, session: Some(router(3)) });
    assert_eq!(bench.found(), Some(router(3)));
}

#[test]
fn the_router_of_an_earlier_run_counts_as_heard() {
    let mut bench = Bench::new();
    bench.routers.remember(bench.now, LINK, router(1));
    bench.hear(router(2), 1800);
    assert_eq!(bench.found(), Some(router(1)));
    bench.routers.remember(bench.now, LINK, router(2));
    assert_eq!(bench.found(), Some(router(1)));
    bench.pass(LIFETIME_MIN);
    assert_eq!(bench.found(), None);
}

/// Proves RFC 4861 6.2.4.
#[test]
fn advertisements_are_three_at_first_and_then_one_in_ten_seconds() {
    let mut bench = Bench::new();
    assert_eq!(bench.routers.next_deadline(), Some(bench.now));
    assert_eq!(bench.pass(seconds(6)), 3);
    assert_eq!(bench.pass(seconds(9)), 0);
    assert_eq!(bench.pass(seconds(101)), 11);
}

#[test]
fn a_router_that_is_new_and_a_link_that_comes_back_are_told_soon_but_not_at_any_rate() {
    let mut bench = Bench::new();
    bench.pass(seconds(20));
    let steady = bench.pass(seconds(10));
    assert_eq!(steady, 1);
    bench.hear(router(1), 0);
    assert_eq!(bench.pass(seconds(3)), 1);
    for _ in 0..100 {
        bench.link(Link::default());
        bench.link(Link { ready: true, session: None });
        bench.pass(Duration::from_millis(10));
    }
    assert!(bench.routers.counters().sent <= 9, "{:?}", bench.routers.counters());
    bench.link(Link::default());
    bench.pass(LIFETIME_MIN);
    assert_eq!((bench.pass(seconds(60)), bench.routers.next_deadline()), (0, None), "nowhere to send");
}

#[test]
fn nonsense_finds_nobody() {
    let mut bench = Bench::new();
    bench.hear("2001:db8::1".parse().unwrap(), 1800);
    bench.routers.heard(bench.now, LINK, router(1), &[134, 0, 0]);
    bench.routers.heard(bench.now, 8, router(1), &advertisement(1800));
    assert_eq!((bench.found(), bench.routers.found().len()), (None, 0));
    assert_eq!(bench.routers.counters(), Counters { received: 2, ignored: 2, ..bench.routers.counters() });
}
