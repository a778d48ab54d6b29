//! A virtual clock and a seeded network of [`Speaker`]s: no I/O, no threads, no waiting.
//!
//! A [`World`] holds speakers and the byte streams between them. Everything that happens, happens in steps, one after the other, at
//! virtual instants that only depend on the seed: the same seed and the same calls give the same run. Bytes arrive in order, late,
//! and cut anywhere, as TCP may do it. What each speaker would give to the kernel is kept in a map of its own.
//!
//! ```
//! # use weft_bgp::{config::SpeakerConfig, sim::World, speaker::SpeakerStart};
//! # use std::{collections::BTreeMap, net::IpAddr, time::Duration};
//! # fn alone(n: u8) -> SpeakerConfig {
//! #     SpeakerConfig {
//! #         asn: weft_bgp::types::Asn(64512), router_id: [10, 0, 0, n].into(), cluster_id: None, max_paths: 1, install_routes: true,
//! #         next_hop_tracking: false,
//! #         peers: BTreeMap::new(), ranges: BTreeMap::new(), originate: BTreeMap::new(), bmp: <_>::default(),
//! #     }
//! # }
//! let mut world = World::new(7);
//! let start = SpeakerStart::default();
//! let a = world.add("a", start, alone(1), vec![IpAddr::from([10, 0, 0, 1])]);
//! world.run_until_quiet(Duration::from_secs(60))?;
//! assert!(world.converged(a) && world.kernel(a).is_empty());
//! # Ok::<(), weft_bgp::sim::Restless>(())
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use thiserror::Error;

use self::station::Station;
use self::stream::{Side, Stream};
use crate::config::SpeakerConfig;
use crate::session::Rng;
use crate::speaker::{BestPathChange, Input, NextHops, Speaker, SpeakerStart};
use crate::types::ConnectionId;

mod run;
mod station;
mod stream;

/// How long nothing must have moved for a world to be quiet: longer than a speaker waits between two dials.
const QUIET: Duration = Duration::from_secs(20);

/// How many steps one call takes at most: a world that never rests is an error, not an endless loop.
const STEPS_MAX: u64 = 20_000_000;

/// A speaker's place in its [`World`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpeakerId(usize);

/// The world did not come to rest.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the simulated network (seed {seed}) is not quiet after {elapsed:?} and {steps} steps")]
pub struct Restless {
    /// What the world was made from: enough to run it again.
    pub seed: u64,
    /// Virtual time since the world was made.
    pub elapsed: Duration,
    /// Steps of this call.
    pub steps: u64,
}

/// What a speaker would have the kernel do: prefix → next hops.
pub type Kernel = BTreeMap<IpNet, NextHops>;

/// Speakers and the network between them.
#[derive(Debug)]
pub struct World {
    seed: u64,
    rng: Rng,
    began: Instant,
    now: Instant,
    nodes: Vec<Node>,
    owners: BTreeMap<IpAddr, SpeakerId>,
    /// Pairs, lesser first, between which no packet passes.
    cut: BTreeSet<(SpeakerId, SpeakerId)>,
    streams: BTreeMap<u64, Stream>,
    stations: BTreeMap<SocketAddr, Station>,
    /// What happens when; in order of arrival at one instant.
    agenda: BTreeMap<(Instant, u64), Job>,
    /// Numbers streams and jobs.
    count: u64,
    /// When a route, a session or an UPDATE last moved.
    stirred: Instant,
}

#[derive(Debug)]
struct Node {
    name: String,
    config: Arc<SpeakerConfig>,
    addresses: Vec<IpAddr>,
    /// `None`: dead.
    speaker: Option<Speaker>,
    /// Which life this is; what was under way to an earlier one is lost.
    life: u32,
    reading: bool,
    converged: bool,
    /// When its speaker wants its next tick.
    deadline: Option<Instant>,
    dialling: BTreeSet<ConnectionId>,
    streams: BTreeMap<ConnectionId, (u64, Side)>,
    kernel: Kernel,
    /// What an earlier life left in the kernel and this one has not confirmed.
    adopted: BTreeSet<IpNet>,
    changes: Vec<(Duration, BestPathChange)>,
    /// The dynamic peers of this life or, if it has not heard of them, of the last.
    dynamic: BTreeSet<IpAddr>,
}

/// Something under way.
#[derive(Debug)]
enum Job {
    /// A SYN arrives.
    Dial { from: SpeakerId, life: u32, connection: ConnectionId, source: Option<IpAddr>, remote: SocketAddr },
    /// An input reaches a speaker, if it is still the one it was meant for.
    Input { to: SpeakerId, life: u32, input: Input },
    /// Bytes that this side of a stream sent arrive.
    Arrive { stream: u64, side: Side },
}

impl World {
    /// An empty world.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let now = epoch();
        Self {
            seed,
            rng: Rng::new(seed, IpAddr::from([0, 0, 0, 0]).into()),
            began: now,
            now,
            nodes: Vec::new(),
            owners: BTreeMap::new(),
            cut: BTreeSet::new(),
            streams: BTreeMap::new(),
            stations: BTreeMap::new(),
            agenda: BTreeMap::new(),
            count: 0,
            stirred: now,
        }
    }

    /// Adds a speaker that listens on these addresses, port 179, and configures it. An address belongs to who had it first, link-local
    /// ones too: the interfaces at both ends of a link have one index.
    pub fn add(
        &mut self,
        name: &str,
        start: SpeakerStart,
        config: SpeakerConfig,
        addresses: Vec<IpAddr>,
    ) -> SpeakerId {
        let id = SpeakerId(self.nodes.len());
        for address in &addresses {
            self.owners.entry(*address).or_insert(id);
        }
        self.nodes.push(Node {
            name: name.to_owned(),
            config: Arc::new(config),
            addresses,
            speaker: None,
            life: 0,
            reading: true,
            converged: false,
            deadline: None,
            dialling: BTreeSet::new(),
            streams: BTreeMap::new(),
            kernel: Kernel::new(),
            adopted: BTreeSet::new(),
            changes: Vec::new(),
            dynamic: BTreeSet::new(),
        });
        self.restart(id, start, false);
        id
    }

    /// Virtual time since the world was made.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.now - self.began
    }

    /// The name that a speaker was added with.
    #[must_use]
    pub fn name(&self, id: SpeakerId) -> &str {
        self.nodes.get(id.0).map_or("", |node| &node.name)
    }

    /// The speaker, unless it is dead.
    #[must_use]
    pub fn inspect(&self, id: SpeakerId) -> Option<&Speaker> {
        self.nodes.get(id.0)?.speaker.as_ref()
    }

    /// What the speaker's kernel holds.
    #[must_use]
    pub fn kernel(&self, id: SpeakerId) -> &Kernel {
        static NOTHING: Kernel = Kernel::new();
        self.nodes.get(id.0).map_or(&NOTHING, |node| &node.kernel)
    }

    /// Every change of that, with its time, since the speaker was added.
    #[must_use]
    pub fn changes(&self, id: SpeakerId) -> &[(Duration, BestPathChange)] {
        self.nodes.get(id.0).map_or(&[], |node| &node.changes)
    }

    /// Whether the speaker has converged in this life.
    #[must_use]
    pub fn converged(&self, id: SpeakerId) -> bool {
        self.nodes.get(id.0).is_some_and(|node| node.converged)
    }

    /// How many connections two speakers both hold open.
    #[must_use]
    pub fn connections(&self, a: SpeakerId, b: SpeakerId) -> usize {
        self.streams.values().filter(|s| s.joins(a, b) && s.ends.iter().all(|end| end.open)).count()
    }

    /// Changes a speaker's configuration.
    pub fn configure(&mut self, id: SpeakerId, config: SpeakerConfig) {
        let config = Arc::new(config);
        if let Some(node) = self.nodes.get_mut(id.0) {
            node.config = Arc::clone(&config);
            self.stirred = self.now;
            self.drive(id, Input::Configure(config));
        }
    }

    /// Gives a speaker an input of its administrator's ([`Input::Reset`], [`Input::Stop`]).
    pub fn tell(&mut self, id: SpeakerId, input: Input) {
        self.stirred = self.now;
        self.drive(id, input);
    }

    /// Lets no packet pass between two speakers, and tells neither.
    pub fn cut(&mut self, a: SpeakerId, b: SpeakerId) {
        self.cut.insert((a.min(b), a.max(b)));
    }

    /// Undoes [`cut`](Self::cut): what was sent meanwhile on streams that still exist arrives.
    pub fn heal(&mut self, a: SpeakerId, b: SpeakerId) {
        self.cut.remove(&(a.min(b), a.max(b)));
        self.resume();
    }

    /// Ends every stream between two speakers with a reset.
    pub fn reset(&mut self, a: SpeakerId, b: SpeakerId) {
        let between: Vec<u64> =
            self.streams.iter().filter(|(_, stream)| stream.joins(a, b)).map(|(id, _)| *id).collect();
        for id in between {
            for side in [Side::Dialler, Side::Listener] {
                self.hang_up(id, side, Some("connection reset by peer".into()));
            }
            self.streams.remove(&id);
        }
    }

    /// Whether a speaker's process reads what arrives; one that does not fills its peers' buffers.
    pub fn set_reading(&mut self, id: SpeakerId, reading: bool) {
        if let Some(node) = self.nodes.get_mut(id.0) {
            node.reading = reading;
            self.resume();
        }
    }

    /// Kills a speaker's process. Its host lives: it closes the connections, and keeps the kernel's routes.
    pub fn kill(&mut self, id: SpeakerId) {
        let Some(node) = self.nodes.get_mut(id.0) else { return };
        node.speaker = None;
        node.deadline = None;
        node.life += 1;
        node.dialling.clear();
        for (id, side) in std::mem::take(&mut node.streams).into_values() {
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.end_mut(side).abandon();
            }
            self.pump(id, side);
        }
    }

    /// Starts a speaker's process again, killing it first if it lives, with the routes of its kernel kept or lost.
    pub fn restart(&mut self, id: SpeakerId, start: SpeakerStart, keep_kernel: bool) {
        self.kill(id);
        let Some(node) = self.nodes.get_mut(id.0) else { return };
        if !keep_kernel {
            node.kernel.clear();
        }
        node.adopted = node.kernel.keys().copied().collect();
        node.converged = false;
        node.speaker = Some(Speaker::new(start));
        let (config, dynamic) = (Arc::clone(&node.config), std::mem::take(&mut node.dynamic));
        self.stirred = self.now;
        self.drive(id, Input::Remember(dynamic));
        self.drive(id, Input::Configure(config));
    }

    /// Runs for some virtual time.
    ///
    /// # Errors
    /// [`Restless`], if that takes too many steps.
    pub fn run_for(&mut self, duration: Duration) -> Result<(), Restless> {
        let until = self.now + duration;
        let mut steps = 0;
        while let Some(next) = self.next_step().filter(|next| next.at <= until) {
            self.step(next);
            steps += 1;
            if steps == STEPS_MAX {
                return Err(self.restless(steps));
            }
        }
        self.now = until;
        Ok(())
    }

    /// Runs until no session, no route and no UPDATE has moved for a while (20 s). KEEPALIVEs and fruitless dials do not count.
    ///
    /// # Errors
    /// [`Restless`], if `limit` passes before that.
    pub fn run_until_quiet(&mut self, limit: Duration) -> Result<(), Restless> {
        let until = self.now + limit;
        let mut steps = 0;
        loop {
            let quiet_at = self.stirred + QUIET;
            match self.next_step().filter(|next| next.at <= quiet_at) {
                None if quiet_at <= until => {
                    self.now = self.now.max(quiet_at);
                    return Ok(());
                }
                Some(next) if next.at <= until && steps < STEPS_MAX => self.step(next),
                _ => return Err(self.restless(steps)),
            }
            steps += 1;
        }
    }

    fn restless(&self, steps: u64) -> Restless {
        Restless { seed: self.seed, elapsed: self.elapsed(), steps }
    }
}

/// Virtual time begins here. Only differences are ever looked at.
#[expect(
    clippy::disallowed_methods,
    reason = "there is no other way to an Instant; its value does not matter"
)]
fn epoch() -> Instant {
    Instant::now()
}
