//! What speakers should hold once all is quiet, said a second time: each is told what its peers' tables say by RFC 4271, 4456, 7911 and
//! 9494, and uses what the decision leaves of it. On its way a path gets longer with every step, in ASes or in clusters, so that none is
//! its own reason: where each table agrees with its neighbours', all are right.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use weft_bgp::config::{NextHopMode, PathChoice, PeerConfig, SpeakerConfig};
use weft_bgp::policy::{Community, NO_ADVERTISE, NO_EXPORT, Operation, Policy, RouteSource, Verdict};
use weft_bgp::session::State;
use weft_bgp::sim::{SpeakerId, World};
use weft_bgp::status::{RibView, RouteSelect};
use weft_bgp::types::PeerAddress;
use weft_bgp::wire::attributes::PathAttributes;

use super::{routes, v4, v6};

/// RFC 9494 section 4.6.
const LLGR_STALE: u32 = 0xFFFF_0006;
/// RFC 8326 section 5.
const GRACEFUL_SHUTDOWN: u32 = 0xFFFF_0000;

type Table = BTreeMap<IpNet, Ranked>;

/// A path that a speaker may use.
#[derive(Clone, Debug)]
struct Path {
    /// Who told it; none: the speaker itself originates it.
    from: Option<usize>,
    internal: bool,
    attributes: PathAttributes,
    path_id: u32,
}

/// What is between two speakers, by the settings of the first.
struct Session<'a> {
    from: usize,
    to: usize,
    config: &'a SpeakerConfig,
    peer: &'a PeerConfig,
    /// The second one's.
    other: &'a PeerConfig,
    external: bool,
}

/// Speakers with their configurations, by number; each is at [`v4`] and [`v6`] of it.
pub(crate) struct Model<'a> {
    pub(crate) world: &'a World,
    pub(crate) ids: &'a [SpeakerId],
    pub(crate) configs: &'a [SpeakerConfig],
}

impl Model<'_> {
    /// Panics where a table is not what the others say.
    pub(crate) fn assert(&self, when: &str) {
        let tables: Vec<_> = (0..self.ids.len()).map(|n| self.decided(n)).collect();
        for (n, table) in tables.iter().enumerate().filter(|(n, _)| self.lives(*n)) {
            assert!(self.world.converged(self.ids[n]), "s{n} has converged {when}");
            self.assert_used(n, table, when);
            for m in self.peers(n) {
                self.assert_heard(m, n, &tables[m], when);
            }
        }
    }

    fn lives(&self, n: usize) -> bool {
        self.world.inspect(self.ids[n]).is_some()
    }

    fn peers(&self, n: usize) -> impl Iterator<Item = usize> {
        (0..self.ids.len()).filter(move |m| self.configs[n].peers.contains_key(&v4(*m).into()))
    }

    fn session(&self, from: usize, to: usize) -> Session<'_> {
        let (config, other) = (&self.configs[from], &self.configs[to]);
        Session {
            from,
            to,
            config,
            peer: &config.peers[&v4(to).into()],
            other: &other.peers[&v4(from).into()],
            external: config.asn != other.asn,
        }
    }

    /// What `n` has heard of `m`, and of which of it `m` has been away too long.
    fn heard(&self, n: usize, m: usize) -> BTreeMap<IpNet, Vec<(PathAttributes, u32, bool)>> {
        let Some(speaker) = self.world.inspect(self.ids[n]) else { return BTreeMap::new() };
        let told = speaker.routes(RibView::In(v4(m).into()), RouteSelect::All).into_iter();
        told.map(|route| {
            let paths = route.paths.into_iter();
            let paths = paths
                .map(|path| ((*path.attributes).clone(), path.path_id.unwrap_or(0), path.stale))
                .collect();
            (route.prefix, paths)
        })
        .collect()
    }

    /// The paths of every prefix, the better ones first.
    fn decided(&self, n: usize) -> Table {
        let config = &self.configs[n];
        let mut paths: BTreeMap<IpNet, Vec<Path>> = BTreeMap::new();
        for (prefix, origination) in &config.originate {
            let mut attributes = PathAttributes::new(own(n, prefix));
            let standard = |community: &Community| match community {
                Community::Standard(value) => Some(*value),
                _ => None,
            };
            attributes.communities = origination.communities.iter().filter_map(standard).collect();
            let path = Path { from: None, internal: false, attributes, path_id: 0 };
            paths.entry(*prefix).or_default().push(path);
        }
        for m in self.peers(n) {
            let session = self.session(n, m);
            for (prefix, heard) in self.heard(n, m) {
                let accepted = heard.into_iter().filter_map(|(attributes, path_id, _)| {
                    let attributes = session.accepted(attributes)?;
                    Some(Path { from: Some(m), internal: !session.external, attributes, path_id })
                });
                paths.entry(prefix).or_default().extend(accepted);
            }
        }
        paths.retain(|_, paths| !paths.is_empty());
        paths.into_iter().map(|(prefix, paths)| (prefix, Ranked::new(paths))).collect()
    }

    fn assert_used(&self, n: usize, table: &Table, when: &str) {
        let learned = table.iter().filter(|(_, ranked)| ranked.best().from.is_some());
        let hops = |ranked: &Ranked| -> BTreeSet<IpAddr> {
            ranked.used(self.configs[n].max_paths).map(|path| path.attributes.next_hop).collect()
        };
        let expected: BTreeMap<_, _> = learned.map(|(prefix, ranked)| (*prefix, hops(ranked))).collect();
        assert_eq!(routes(self.world, self.ids[n]), expected, "what s{n} uses {when}");
        let speaker = self.world.inspect(self.ids[n]).expect("it lives");
        let shown = speaker.routes(RibView::Loc, RouteSelect::All).into_iter();
        let shown = shown.filter_map(|route| Some((route.prefix, route.paths.into_iter().find(|p| p.best)?)));
        let shown: BTreeMap<_, _> = shown.map(|(prefix, path)| (prefix, path.peer)).collect();
        let peer = |ranked: &Ranked| ranked.best().from.map(|m| PeerAddress::from(v4(m)));
        let best: BTreeMap<_, _> = table.iter().map(|(prefix, ranked)| (*prefix, peer(ranked))).collect();
        assert_eq!(shown, best, "s{n}'s best paths {when}");
    }

    /// What `to` has of `from`, whose paths are these.
    fn assert_heard(&self, from: usize, to: usize, table: &Table, when: &str) {
        let (session, back) = (self.session(from, to), self.session(to, from));
        let wanted = self.lives(from) && session.peer.shutdown.is_none() && back.peer.shutdown.is_none();
        let peers = self.world.inspect(self.ids[to]).expect("it lives").peers();
        let peer = peers.iter().find(|peer| peer.address == v4(from).into()).expect("it is a peer");
        assert_eq!(peer.state == State::Established, wanted, "the session of s{to} and s{from} {when}");
        let heard = self.heard(to, from);
        if !wanted {
            for (attributes, _, stale) in heard.values().flatten() {
                let marked = *stale && attributes.communities.contains(&LLGR_STALE);
                assert!(marked, "s{to} keeps of s{from} {when}: {attributes:?}");
            }
            return;
        }
        assert_eq!(self.world.connections(self.ids[from], self.ids[to]), 1, "s{from} and s{to} {when}");
        for prefix in table.keys().chain(heard.keys()) {
            let told = table.get(prefix).map(|ranked| session.told(prefix, ranked)).unwrap_or_default();
            let mut left = told.clone();
            for (attributes, _, stale) in heard.get(prefix).into_iter().flatten() {
                let place = left.iter().position(|told| told == attributes).filter(|_| !stale);
                assert!(place.is_some(), "{prefix} of s{from} at s{to} {when}: {attributes:?}, not {told:?}");
                place.map(|place| left.swap_remove(place));
            }
            assert!(left.is_empty(), "{prefix} of s{from} at s{to} {when}: without {left:?}");
        }
    }
}

impl Session<'_> {
    fn client(&self, n: usize) -> bool {
        self.config.peers[&v4(n).into()].route_reflector_client
    }

    fn cluster(&self) -> Ipv4Addr {
        self.config.cluster_id.unwrap_or(self.config.router_id)
    }

    /// Whether the first has a cluster.
    fn reflects(&self) -> bool {
        self.config.peers.values().any(|peer| peer.route_reflector_client)
    }

    /// What the first makes of a path that the second tells.
    fn accepted(&self, mut attributes: PathAttributes) -> Option<PathAttributes> {
        let looped = attributes.as_path.occurrences(self.config.asn) > 0
            || attributes.originator_id == Some(self.config.router_id)
            || self.reflects() && attributes.cluster_list.contains(&self.cluster())
            || [IpAddr::from(v4(self.from)), v6(self.from).into()].contains(&attributes.next_hop);
        (!looped && passes(&self.peer.import, RouteSource::RemotePeers, &mut attributes, |_| {}))
            .then_some(attributes)
    }

    /// What the first tells the second of a prefix with these paths.
    fn told(&self, prefix: &IpNet, ranked: &Ranked) -> Vec<PathAttributes> {
        let several = self.peer.add_path.send.filter(|_| self.other.add_path.receive);
        let (chosen, limit): (Vec<_>, usize) = match several {
            None => (vec![ranked.best()], 1),
            Some(send) if send.paths == PathChoice::All => (ranked.paths.iter().collect(), send.limit.into()),
            Some(send) => (ranked.used(self.config.max_paths).collect(), send.limit.into()),
        };
        let told = chosen.into_iter().filter_map(|path| Some((path.from, self.tellable(prefix, path)?)));
        let to_itself = |from, told: &PathAttributes| from == Some(self.to) || told.next_hop == v4(self.to);
        told.take(limit).filter(|(from, told)| !to_itself(*from, told)).map(|(_, told)| told).collect()
    }

    /// The same, told or not to the one that it came from, or leads to.
    fn tellable(&self, prefix: &IpNet, path: &Path) -> Option<PathAttributes> {
        let learned = path.from.is_some();
        let reflected = path.from.filter(|_| path.internal && !self.external);
        let has = |community| learned && path.attributes.communities.contains(&community);
        let long_lived =
            |peer: &PeerConfig| peer.graceful_restart.is_some_and(|gr| gr.long_lived_time.is_some());
        if reflected.is_some_and(|from| !self.client(from) && !self.client(self.to))
            || has(NO_ADVERTISE)
            || self.external && has(NO_EXPORT)
            || has(LLGR_STALE) && !(long_lived(self.peer) && long_lived(self.other))
        {
            return None;
        }
        let source = match (learned, reflected) {
            (false, _) => RouteSource::Local,
            (true, None) => RouteSource::RemotePeers,
            (true, Some(_)) => RouteSource::Reflected,
        };
        let mut told = path.attributes.clone();
        let rewrite = |told: &mut PathAttributes| {
            let kept = match self.peer.next_hop_mode {
                _ if !learned => false,
                _ if reflected.is_some() => true,
                NextHopMode::Auto => !self.external,
                mode => mode == NextHopMode::Keep,
            };
            if !kept {
                told.next_hop = own(self.from, prefix);
            }
            if self.external {
                told.med = None;
            } else {
                told.local_pref = Some(local_pref(path));
            }
        };
        if !passes(&self.peer.export, source, &mut told, rewrite) {
            return None;
        }
        if self.external {
            told.as_path.prepend(self.config.asn);
            (told.local_pref, told.originator_id) = (None, None);
            told.cluster_list.clear();
        } else if let Some(from) = reflected {
            told.originator_id.get_or_insert(v4(from));
            told.cluster_list.insert(0, self.cluster());
        }
        Some(told)
    }
}

fn own(n: usize, prefix: &IpNet) -> IpAddr {
    if prefix.addr().is_ipv4() { v4(n).into() } else { v6(n).into() }
}

fn local_pref(path: &Path) -> u32 {
    let going =
        path.from.is_some() && !path.internal && path.attributes.communities.contains(&GRACEFUL_SHUTDOWN);
    if going { 0 } else { path.attributes.local_pref.unwrap_or(100) }
}

/// Whether a policy lets a path pass, which is rewritten before the policy's changes.
fn passes(
    policy: &Policy,
    source: RouteSource,
    attributes: &mut PathAttributes,
    rewrite: impl Fn(&mut PathAttributes),
) -> bool {
    let carried = |c: &Community| matches!(c, Community::Standard(c) if attributes.communities.contains(c));
    let rule = policy
        .rules
        .iter()
        .find(|rule| rule.source.is_none_or(|s| s.includes(source)) && rule.communities.iter().all(carried));
    let operations = match rule.map(|rule| &rule.verdict) {
        Some(Verdict::Accept) => [].into(),
        Some(Verdict::AcceptWith(operations)) => operations.clone(),
        _ => return false,
    };
    rewrite(attributes);
    for operation in operations.iter() {
        let mut communities: BTreeSet<u32> = attributes.communities.iter().copied().collect();
        match operation {
            Operation::AddCommunity(Community::Standard(community)) => drop(communities.insert(*community)),
            Operation::RemoveCommunity(Community::Standard(community)) => drop(communities.remove(community)),
            Operation::SetLocalPreference(value) => attributes.local_pref = Some(*value),
            other => unreachable!("no policy of these worlds has {other:?}"),
        }
        attributes.communities = communities.into_iter().collect();
    }
    true
}

/// What decides among paths that are equally good.
fn tie_break(path: &Path) -> (Option<Ipv4Addr>, usize, Option<usize>, u32) {
    let identifier = path.attributes.originator_id.or(path.from.map(v4));
    (identifier, path.attributes.cluster_list.len(), path.from, path.path_id)
}

/// The steps of the decision before the tie-breaks, but for MED: lower is better.
const BEFORE_MED: [fn(&Path) -> u32; 5] = [
    |path| path.from.is_some().into(),
    |path| path.attributes.communities.contains(&LLGR_STALE).into(),
    |path| u32::MAX - local_pref(path),
    |path| u32::try_from(path.attributes.as_path.length()).unwrap_or(u32::MAX),
    |path| path.attributes.origin as u32,
];

/// Whether of two paths of one neighbouring AS the second is better by its MED.
fn is_behind(path: &Path, other: &Path) -> bool {
    let [(first, med), (other, other_med)] =
        [path, other].map(|path| (path.attributes.as_path.first(), path.attributes.med.unwrap_or(0)));
    first == other && med > other_med
}

/// Paths, the better ones first.
struct Ranked {
    paths: Vec<Path>,
    /// How many of them are as good as the best but for the tie-breaks.
    equal: usize,
}

impl Ranked {
    fn new(mut left: Vec<Path>) -> Self {
        if left.len() <= 1 {
            return Self { equal: left.len(), paths: left };
        }
        let mut lost: Vec<Vec<Path>> = vec![];
        let mut keep = |left: &mut Vec<Path>, is: &dyn Fn(&Path) -> bool| {
            let (stay, go) = std::mem::take(left).into_iter().partition(is);
            *left = stay;
            lost.push(go);
        };
        for step in BEFORE_MED {
            let best = left.iter().map(step).min();
            keep(&mut left, &|path| Some(step(path)) == best);
        }
        let all = left.clone();
        keep(&mut left, &|path| !all.iter().any(|other| is_behind(path, other)));
        let internal = left.iter().map(|path| path.internal).min();
        keep(&mut left, &|path| Some(path.internal) == internal);
        let equal = left.len();
        left.sort_by_key(tie_break);
        left.extend(lost.into_iter().rev().flat_map(|lost| Self::new(lost).paths));
        Self { paths: left, equal }
    }

    fn best(&self) -> &Path {
        &self.paths[0]
    }

    /// Those that are used together: equal ones, over the first so many next hops.
    fn used(&self, max_paths: u16) -> impl Iterator<Item = &Path> {
        let mut hops = BTreeSet::new();
        self.paths.iter().take(self.equal).filter(move |path| {
            let hop = path.attributes.next_hop;
            hops.contains(&hop) || hops.len() < usize::from(max_paths) && hops.insert(hop)
        })
    }
}
