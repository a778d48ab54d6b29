//! The model: every table anew, from what each peer has told.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use weft_bgp::config::{AddPathSend, Aggregation, PathChoice, PeerConfig};
use weft_bgp::policy::{Community, Policy, RouteSource, Rule, Verdict};
use weft_bgp::role::Role;
use weft_bgp::speaker::{Resolution, TrackedNextHop};
use weft_bgp::types::{Asn, Family, FamilySet};
use weft_bgp::wire::attributes::{Aggregator, LLGR_STALE, NO_LLGR, PathAttributes};

use crate::events::*;
use crate::rib_support::*;

/// GRACEFUL_SHUTDOWN of an external peer is the last choice (RFC 8326).
pub(crate) fn local_pref(from: Option<u32>, attributes: &PathAttributes) -> u32 {
    let going = from.is_some_and(is_external) && attributes.communities.contains(&0xFFFF_0000);
    if going { 0 } else { attributes.local_pref.unwrap_or(100) }
}

/// What a peer is to the model.
pub(crate) struct ModelPeer {
    pub(crate) config: PeerConfig,
    /// Whether its session stands; none: it has no routes.
    pub(crate) up: Option<bool>,
    /// Its routes, and whether they are stale.
    pub(crate) routes: BTreeMap<(IpNet, u32), (PathAttributes, bool)>,
    /// How long those of each family are kept that are stale.
    pub(crate) kept: BTreeMap<Family, Kept>,
    /// Whether its session has long-lived graceful restart, or had it last; none: it had no graceful restart.
    pub(crate) long_lived: Option<bool>,
}

/// Why paths are stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    Restart,
    LongLived,
    Refresh,
}

/// For how long stale paths are kept, in seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kept {
    pub(crate) why: Why,
    pub(crate) since: u64,
    pub(crate) until: u64,
    /// Once they were long-lived stale.
    pub(crate) at_most_until: Option<u64>,
}

impl Kept {
    fn restart(self, now: u64, time: u64) -> Self {
        let until = (now + time).min(self.at_most_until.unwrap_or(self.since + 180));
        Self { why: Why::Restart, until, ..self }
    }
}

impl ModelPeer {
    pub(crate) fn new(peer: u32) -> Self {
        Self {
            config: peer_config(peer),
            up: None,
            routes: BTreeMap::new(),
            kept: BTreeMap::new(),
            long_lived: None,
        }
    }

    pub(crate) fn drop_stale(&mut self, lost: FamilySet) {
        self.routes.retain(|(prefix, _), (_, stale)| !(*stale && lost.contains(Family::of(prefix))));
        for family in Family::ALL {
            if !self.has_stale(family) {
                self.kept.remove(&family);
            }
        }
    }

    fn has_stale(&self, family: Family) -> bool {
        self.routes.iter().any(|((prefix, _), (_, stale))| *stale && Family::of(prefix) == family)
    }

    fn of_family(&mut self, family: Family) -> impl Iterator<Item = &mut (PathAttributes, bool)> {
        self.routes
            .iter_mut()
            .filter(move |((prefix, _), _)| Family::of(prefix) == family)
            .map(|(_, route)| route)
    }

    /// Its session is up, by graceful restart with these families kept, where it has that.
    pub(crate) fn up(&mut self, now: u64, kept: Option<FamilySet>, long_lived: bool) {
        self.up = Some(true);
        self.long_lived = kept.map(|_| long_lived);
        for family in Family::ALL {
            let has = kept.is_some_and(|kept| kept.contains(family));
            let stays = match self.kept.get(&family).map(|k| k.why) {
                Some(Why::Restart) => has,
                Some(Why::LongLived) => has && long_lived,
                Some(Why::Refresh) | None => false,
            };
            if !stays {
                self.drop_stale([family].into_iter().collect());
            }
            if let Some(k) = self.kept.get_mut(&family).filter(|k| k.why == Why::Restart) {
                *k = k.restart(now, 120);
            }
        }
    }

    /// It restarts, and these families are kept.
    pub(crate) fn restart(&mut self, now: u64, kept: FamilySet) {
        self.up = Some(false);
        for family in Family::ALL {
            let once = |k: &Kept| k.why == Why::Restart && k.at_most_until.is_none();
            if self.kept.get(&family).is_some_and(once) {
                self.drop_stale([family].into_iter().collect());
            }
            let before = self.kept.get(&family).filter(|k| k.why != Why::Refresh && self.has_stale(family));
            let new = Kept { why: Why::Restart, since: now, until: now, at_most_until: None };
            let next = before.copied().unwrap_or(new).restart(now, 60);
            self.kept.insert(family, next);
            self.of_family(family).for_each(|(_, stale)| *stale = true);
        }
        self.drop_stale(Family::ALL.into_iter().filter(|family| !kept.contains(*family)).collect());
    }

    pub(crate) fn refresh_begins(&mut self, now: u64, family: Family) {
        self.of_family(family).for_each(|(_, stale)| *stale = true);
        let new = Kept { why: Why::Refresh, since: now, until: now + 300, at_most_until: None };
        let before = self.kept.get(&family).copied();
        if self.has_stale(family) {
            self.kept.insert(family, before.map_or(new, |k| Kept { why: Why::Refresh, ..k }));
        } else {
            self.kept.remove(&family);
        }
    }

    pub(crate) fn is_refreshing(&self, family: Family) -> bool {
        self.kept.get(&family).is_some_and(|k| k.why == Why::Refresh)
    }

    /// Time has passed.
    pub(crate) fn expire(&mut self, now: u64) {
        for (family, time) in Family::ALL.into_iter().zip(LONG_LIVED) {
            let Some(k) = self.kept.get_mut(&family).filter(|k| k.until <= now) else { continue };
            let longer = k.at_most_until.unwrap_or(now + time);
            if (k.why, self.up, self.long_lived) != (Why::Restart, Some(false), Some(true)) || longer <= now {
                self.drop_stale([family].into_iter().collect());
                continue;
            }
            *k = Kept { why: Why::LongLived, until: longer, at_most_until: Some(longer), ..*k };
            let goes = |attributes: &PathAttributes| {
                attributes.communities.contains(&NO_LLGR) && !attributes.communities.contains(&LLGR_STALE)
            };
            self.routes.retain(|(prefix, _), (a, stale)| Family::of(prefix) != family || !*stale || !goes(a));
            for (attributes, _) in self.of_family(family).filter(|(_, stale)| *stale) {
                let mut communities: BTreeSet<u32> = attributes.communities.drain(..).collect();
                communities.insert(LLGR_STALE);
                attributes.communities = communities.into_iter().collect();
            }
            self.drop_stale(FamilySet::EMPTY);
        }
    }
}

pub(crate) struct Model {
    pub(crate) peers: BTreeMap<u32, ModelPeer>,
    pub(crate) resolutions: BTreeMap<TrackedNextHop, Resolution>,
    pub(crate) originate: BTreeSet<IpNet>,
    /// Those that are told only while there is something in them.
    pub(crate) aggregates: BTreeMap<IpNet, Aggregation>,
    pub(crate) roles: Roles,
    pub(crate) max_paths: usize,
    pub(crate) tracking: bool,
    pub(crate) seconds: u64,
    pub(crate) cluster: Ipv4Addr,
    /// Whether what was learned is told.
    pub(crate) advertising: bool,
}

/// A path in the model: whose, its attributes, its metric, its identifier.
pub(crate) type ModelPath = (Option<u32>, PathAttributes, u32, u32);

impl Model {
    pub(crate) fn tracked(&self, peer: u32, attributes: &PathAttributes) -> TrackedNextHop {
        TrackedNextHop { address: attributes.next_hop, default_route: !is_external(peer), link: None }
    }

    /// What policy makes of a route that passes everything but its next hop.
    pub(crate) fn passes(
        &self,
        peer: u32,
        prefix: &IpNet,
        attributes: &PathAttributes,
    ) -> Option<PathAttributes> {
        let config = &self.peers[&peer].config;
        let role = self.role(peer);
        let leaked = match (role, attributes.only_to_customer) {
            (Some(Role::Provider | Role::RouteServer), Some(_)) => true,
            (Some(Role::Peer), Some(asn)) => asn != remote_as(peer),
            _ => false,
        };
        let mut marked = attributes.clone();
        if matches!(role, Some(Role::Customer | Role::RouteServerClient | Role::Peer)) {
            marked.only_to_customer.get_or_insert(remote_as(peer));
        }
        let passes = !leaked
            && attributes.originator_id != Some(ROUTER_ID)
            && !attributes.cluster_list.contains(&self.cluster)
            && attributes.as_path.occurrences(OWN) <= usize::from(config.allowed_own_as);
        let verdict =
            verdict(&config.import, prefix, RouteSource::RemotePeers, attributes).filter(|_| passes)?;
        Some(rewritten(verdict, marked))
    }

    fn role(&self, peer: u32) -> Option<Role> {
        self.roles.get(peer as usize).copied().flatten()
    }

    pub(crate) fn eligible(&self, prefix: &IpNet, local: &PathAttributes) -> Vec<ModelPath> {
        let mut paths = vec![];
        if self.originates(prefix) {
            paths.push((None, local.clone(), 0, 0));
        }
        let routes = self.peers.iter().flat_map(|(peer, state)| {
            let of_prefix = state.routes.range((*prefix, 0)..=(*prefix, u32::MAX));
            of_prefix.map(move |((_, id), (attributes, _))| (peer, *id, attributes))
        });
        for (peer, id, attributes) in routes {
            let Some(attributes) = self.passes(*peer, prefix, attributes) else { continue };
            match self.resolutions.get(&self.tracked(*peer, &attributes)).filter(|_| self.tracking) {
                _ if !self.tracking => paths.push((Some(*peer), attributes, 0, id)),
                Some(Resolution::OnLink) => paths.push((Some(*peer), attributes, 0, id)),
                Some(Resolution::Gateway { metric }) if !is_external(*peer) => {
                    paths.push((Some(*peer), attributes, *metric, id));
                }
                _ => {}
            }
        }
        paths
    }

    /// The best path, and all that are used.
    pub(crate) fn decide(&self, prefix: &IpNet, local: &PathAttributes) -> Vec<ModelPath> {
        let mut paths = self.eligible(prefix, local);
        if self.originates(prefix) {
            paths.retain(|p| p.0.is_none());
        }
        let long_lived = |p: &ModelPath| p.0.is_some() && p.1.communities.contains(&LLGR_STALE);
        if !paths.iter().all(long_lived) {
            paths.retain(|p| !long_lived(p));
        }
        let pref = |p: &ModelPath| local_pref(p.0, &p.1);
        let best = paths.iter().map(pref).max();
        paths.retain(|p| Some(pref(p)) == best);
        let best = paths.iter().map(|p| p.1.as_path.length()).min();
        paths.retain(|p| Some(p.1.as_path.length()) == best);
        let best = paths.iter().map(|p| p.1.origin).min();
        paths.retain(|p| Some(p.1.origin) == best);
        let all = paths.clone();
        let med = |p: &ModelPath| p.1.med.unwrap_or(0);
        paths.retain(|p| !all.iter().any(|q| q.1.as_path.first() == p.1.as_path.first() && med(q) < med(p)));
        if paths.iter().any(|p| p.0.is_some_and(is_external)) {
            paths.retain(|p| p.0.is_some_and(is_external));
        }
        let best = paths.iter().map(|p| p.2).min();
        paths.retain(|p| Some(p.2) == best);
        let identifier = |p: &ModelPath| match (p.0, p.1.originator_id) {
            (Some(peer), None) => Ipv4Addr::from(peer),
            (_, originator) => originator.unwrap_or(Ipv4Addr::UNSPECIFIED),
        };
        paths.sort_by_key(|p| (identifier(p), p.1.cluster_list.len(), p.0, p.3));
        // Those over the first so many next hops.
        let mut next_hops: Vec<IpAddr> = vec![];
        paths.retain(|(from, attributes, ..)| {
            let own = from.is_some().then_some(attributes.next_hop);
            let known = own.is_some_and(|own| next_hops.contains(&own));
            let used = known || next_hops.len() < self.max_paths;
            next_hops.extend(own.filter(|_| used && !known));
            used
        });
        paths
    }

    /// What a peer is told of a path to a prefix.
    pub(crate) fn told(&self, peer: u32, prefix: &IpNet, best: Option<&ModelPath>) -> Option<PathAttributes> {
        let (from, ..) = best?;
        if self.summarized(peer, prefix) {
            return None;
        }
        let told = self.tellable(peer, prefix, best)?;
        (*from != Some(peer) && told.next_hop != address(peer)).then_some(told)
    }

    /// Whether a peer is told an aggregate in the place of this prefix.
    fn summarized(&self, peer: u32, prefix: &IpNet) -> bool {
        self.aggregates.iter().any(|(whole, aggregation)| {
            let path = (None, self.local(whole), 0, 0);
            *aggregation == Aggregation::SummaryOnly
                && *whole != *prefix
                && whole.contains(prefix)
                && self.originates(whole)
                && self.tellable(peer, whole, Some(&path)).is_some()
        })
    }

    /// Whether a prefix is our own: an aggregate is while something more specific has a best path.
    pub(crate) fn originates(&self, prefix: &IpNet) -> bool {
        let inside = |other: &IpNet| prefix != other && prefix.contains(other);
        let has_best = |other: &IpNet| !self.decide(other, &self.local(other)).is_empty();
        self.originate.contains(prefix)
            && (!self.aggregates.contains_key(prefix) || prefixes().iter().any(|p| inside(p) && has_best(p)))
    }

    /// What we originate a prefix with.
    pub(crate) fn local(&self, prefix: &IpNet) -> PathAttributes {
        let aggregate = self.aggregates.contains_key(prefix);
        PathAttributes {
            atomic_aggregate: aggregate,
            aggregator: aggregate.then_some(Aggregator { asn: OWN, address: ROUTER_ID }),
            ..attributes(&[], if matches!(prefix, IpNet::V4(_)) { "0.0.0.0" } else { "::" })
        }
    }

    /// The same, told or not to the one that it came from, or leads to.
    fn tellable(&self, peer: u32, prefix: &IpNet, best: Option<&ModelPath>) -> Option<PathAttributes> {
        let (from, attributes, ..) = best.filter(|(from, ..)| self.advertising || from.is_none())?;
        let external = is_external(peer);
        let internal = from.filter(|from| !is_external(*from) && !external);
        let source = match (from, internal) {
            (None, _) => RouteSource::Local,
            (Some(_), None) => RouteSource::RemotePeers,
            (Some(_), Some(_)) => RouteSource::Reflected,
        };
        let is_client = |peer: u32| self.peers[&peer].config.route_reflector_client;
        let stale = from.is_some() && attributes.communities.contains(&LLGR_STALE);
        let upward = matches!(self.role(peer), Some(Role::Customer | Role::RouteServerClient | Role::Peer));
        if stale && self.peers[&peer].long_lived != Some(true)
            || upward && attributes.only_to_customer.is_some()
        {
            return None;
        }
        let forbidden = attributes.communities.contains(&0xFFFF_FF02)
            || external && attributes.communities.contains(&0xFFFF_FF01);
        if internal.is_some_and(|from| !is_client(from) && !is_client(peer)) || forbidden {
            return None;
        }
        let verdict = verdict(&self.peers[&peer].config.export, prefix, source, attributes)?;
        let next_hop = match prefix {
            _ if !external && from.is_some() => attributes.next_hop,
            IpNet::V4(_) => ip("192.0.2.255"),
            IpNet::V6(_) => ip("2001:db8::ff"),
        };
        let plain = PathAttributes {
            next_hop,
            med: attributes.med.filter(|_| !external),
            local_pref: Some(local_pref(*from, attributes)),
            ..attributes.clone()
        };
        let mut told = rewritten(verdict, plain);
        if external {
            told.as_path.prepend(OWN);
            if matches!(self.role(peer), Some(Role::Provider | Role::RouteServer | Role::Peer)) {
                told.only_to_customer.get_or_insert(OWN);
            }
            told.local_pref = None;
            told.originator_id = None;
            told.cluster_list.clear();
        } else {
            if let Some(from) = internal {
                told.next_hop = next_hop;
                told.originator_id.get_or_insert(Ipv4Addr::from(from));
                told.cluster_list.insert(0, self.cluster);
            }
        }
        Some(told)
    }

    /// What a peer that is told several paths is told of a prefix.
    pub(crate) fn told_several(
        &self,
        peer: u32,
        send: AddPathSend,
        prefix: &IpNet,
        local: &PathAttributes,
    ) -> Vec<PathAttributes> {
        let paths = match send.paths {
            PathChoice::All => self.eligible(prefix, local),
            PathChoice::Multipath => self.decide(prefix, local),
        };
        // Of as many as may be told; what it tells itself, or would lead to it, is among them.
        let tellable = paths.iter().filter(|path| self.tellable(peer, prefix, Some(path)).is_some());
        tellable.take(send.limit.into()).filter_map(|path| self.told(peer, prefix, Some(path))).collect()
    }
}

/// The verdict of a policy, if it accepts.
pub(crate) fn verdict<'a>(
    policy: &'a Policy,
    prefix: &IpNet,
    source: RouteSource,
    attributes: &PathAttributes,
) -> Option<&'a Verdict> {
    let matches = |rule: &&Rule| {
        let named = rule.source.is_none_or(|s| s == source)
            || (rule.source, source) == (Some(RouteSource::RemotePeers), RouteSource::Reflected);
        let carried =
            |c: &Community| matches!(c, Community::Standard(c) if attributes.communities.contains(c));
        let asns: Vec<Asn> = attributes.as_path.0.iter().flat_map(|s| s.asns.clone()).collect();
        named
            && rule.prefixes.as_ref().is_none_or(|m| m.ranges.iter().any(|r| r.net.contains(prefix)))
            && rule.communities.iter().all(carried)
            && asns.starts_with(&rule.as_path_prefix)
    };
    let verdict = policy.rules.iter().find(matches).map(|rule| &rule.verdict);
    verdict.filter(|verdict| !matches!(verdict, Verdict::Reject(_)))
}

/// Whether there is the same in both, whatever the order.
pub(crate) fn same(mut heard: Vec<(IpNet, &PathAttributes)>, wanted: &[(IpNet, PathAttributes)]) -> bool {
    let takes = |(prefix, attributes): &(IpNet, PathAttributes)| {
        let place = heard.iter().position(|path| *path == (*prefix, attributes));
        place.map(|place| heard.swap_remove(place)).is_some()
    };
    wanted.iter().all(takes) && heard.is_empty()
}
