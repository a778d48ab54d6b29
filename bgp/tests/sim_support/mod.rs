//! What the simulations share: configurations that accept and announce everything, and seeds that can be run again.

#![allow(dead_code, reason = "every test crate uses its part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use weft_bgp::config::{GracefulRestart, NextHopMode, PeerConfig, RemoteAs, SpeakerConfig, Timers};
use weft_bgp::policy::{Policy, Rule, Verdict};
use weft_bgp::session::State;
use weft_bgp::sim::{SpeakerId, World};
use weft_bgp::types::{Asn, FamilySet, Reason};

pub(crate) mod fabric;
pub(crate) mod model;

/// Longer than any world here takes to settle.
pub(crate) const LIMIT: Duration = Duration::from_secs(600);

/// Runs a test for many seeds: `count`, or as many as `WEFT_SIM_SEEDS` says, or only the one in `WEFT_SIM_SEED`. A failure tells how
/// to run its seed again.
pub(crate) fn for_seeds(test: &str, count: u64, run: impl Fn(u64)) {
    let number =
        |name| std::env::var(name).ok().map(|n| n.parse::<u64>().expect("a number in WEFT_SIM_SEED(S)"));
    let seeds = match number("WEFT_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("WEFT_SIM_SEEDS").unwrap_or(count),
    };
    for seed in seeds {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(seed))) {
            let binary = env!("CARGO_CRATE_NAME");
            eprintln!("to run it again: WEFT_SIM_SEED={seed} cargo test -p weft-bgp --test {binary} {test}");
            resume_unwind(panic);
        }
    }
}

/// Numbers from a seed, for topologies.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// One of `0..below`.
    pub(crate) fn roll(&mut self, below: usize) -> usize {
        // Marsaglia's xorshift.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from((self.0 >> 33) % below as u64).unwrap()
    }
}

pub(crate) fn v4(n: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, u8::try_from(n / 250).unwrap(), u8::try_from(n % 250 + 1).unwrap())
}

pub(crate) fn v6(n: usize) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, u16::try_from(n + 1).unwrap())
}

/// The prefixes that speaker `n` originates, one a family.
pub(crate) fn prefixes(n: usize) -> [IpNet; 2] {
    let n = u8::try_from(n).unwrap();
    [
        IpNet::new([10, 1, n, 0].into(), 24).unwrap(),
        IpNet::new(Ipv6Addr::new(0xfd01, u16::from(n), 0, 0, 0, 0, 0, 0).into(), 64).unwrap(),
    ]
}

pub(crate) fn everything() -> Arc<Policy> {
    let accept = Rule::new(Verdict::Accept);
    Arc::new(Policy { rules: vec![accept], unmatched: Reason::new("none", "no rule matches") })
}

/// A speaker without peers that originates [`prefixes`]`(n)`.
pub(crate) fn speaker(n: usize, asn: u32) -> SpeakerConfig {
    SpeakerConfig {
        asn: Asn(asn),
        router_id: v4(n),
        ranges: BTreeMap::new(),
        cluster_id: None,
        max_paths: 16,
        install_routes: true,
        next_hop_tracking: false,
        peers: BTreeMap::new(),
        originate: prefixes(n).into_iter().map(|prefix| (prefix, <_>::default())).collect(),
        bmp: <_>::default(),
    }
}

/// Speaker `n`'s side of a session to a peer in that AS.
pub(crate) fn peer(n: usize, local_as: u32, remote_as: u32) -> PeerConfig {
    PeerConfig {
        name: format!("of-{n}"),
        port: 179,
        neighbour: None,
        remote_as: RemoteAs::Exactly(Asn(remote_as)),
        local_as: Asn(local_as),
        source_address: None,
        families: FamilySet::all(),
        next_hop_v4: Some(v4(n)),
        next_hop_v6: Some(v6(n)),
        next_hop_mode: NextHopMode::Auto,
        ebgp_multihop: false,
        authentication: <_>::default(),
        ttl_security: None,
        max_prefixes: None,
        passive: false,
        shutdown: None,
        route_reflector_client: false,
        add_path: <_>::default(),
        allowed_own_as: 0,
        allow_as_sets: false,
        as_override: false,
        remove_private_as: false,
        role: None,
        role_strict: false,
        timers: Timers::default(),
        graceful_restart: Some(GracefulRestart {
            restart_time: Duration::from_secs(120),
            on_hold_timer_expiry: false,
            long_lived_time: None,
        }),
        bfd: None,
        import: everything(),
        export: everything(),
    }
}

/// Undirected links between numbered speakers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Topology {
    pub(crate) size: usize,
    pub(crate) links: BTreeSet<(usize, usize)>,
}

impl Topology {
    pub(crate) fn mesh(size: usize) -> Self {
        let links = (0..size).flat_map(|a| (a + 1..size).map(move |b| (a, b))).collect();
        Self { size, links }
    }

    /// A tree with some links more.
    pub(crate) fn random(size: usize, dice: &mut Dice) -> Self {
        let mut links: BTreeSet<_> = (1..size).map(|b| (dice.roll(b), b)).collect();
        for _ in 0..size {
            let (a, b) = (dice.roll(size), dice.roll(size));
            if a != b {
                links.insert((a.min(b), a.max(b)));
            }
        }
        Self { size, links }
    }

    pub(crate) fn neighbours(&self, n: usize) -> impl Iterator<Item = usize> + '_ {
        self.links.iter().filter_map(move |&(a, b)| match n {
            _ if a == n => Some(b),
            _ if b == n => Some(a),
            _ => None,
        })
    }

    /// Hops from every speaker to `target`; `None`: no way.
    pub(crate) fn distances(&self, target: usize) -> Vec<Option<usize>> {
        let mut distances = vec![None; self.size];
        let mut frontier = vec![target];
        for distance in 0.. {
            if frontier.is_empty() {
                break;
            }
            frontier.iter().for_each(|&n| distances[n] = Some(distance));
            let next = frontier.iter().flat_map(|&n| self.neighbours(n).collect::<Vec<_>>());
            let next: BTreeSet<_> = next.filter(|&n| distances[n].is_none()).collect();
            frontier = next.into_iter().collect();
        }
        distances
    }

    /// One speaker per number, one session per link, over IPv4, carrying both families.
    pub(crate) fn build(
        &self,
        world: &mut World,
        asn: impl Fn(usize) -> u32,
        change: impl Fn(usize, &mut SpeakerConfig),
    ) -> Vec<SpeakerId> {
        let add = |n: usize| {
            let mut config = speaker(n, asn(n));
            for m in self.neighbours(n) {
                config.peers.insert(v4(m).into(), Arc::new(peer(n, asn(n), asn(m))));
            }
            change(n, &mut config);
            world.add(&format!("s{n}"), start(n), config, vec![v4(n).into(), v6(n).into()])
        };
        (0..self.size).map(add).collect()
    }
}

pub(crate) fn start(n: usize) -> weft_bgp::speaker::SpeakerStart {
    weft_bgp::speaker::SpeakerStart { seed: n as u64, ..<_>::default() }
}

/// The kernel's routes of a speaker without what the next hops are beside their address.
pub(crate) fn routes(world: &World, id: SpeakerId) -> BTreeMap<IpNet, BTreeSet<IpAddr>> {
    let hops = world.kernel(id).iter();
    hops.map(|(prefix, hops)| (*prefix, hops.iter().map(|hop| hop.address).collect())).collect()
}

pub(crate) fn established(world: &World, id: SpeakerId) -> usize {
    let peers = world.inspect(id).expect("the speaker lives").peers();
    peers.iter().filter(|peer| peer.state == State::Established).count()
}
