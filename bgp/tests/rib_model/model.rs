//! The model: every table anew, from what each peer has told.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use weft_bgp::config::{AddPathSend, PathChoice, PeerConfig};
use weft_bgp::policy::{Community, Policy, RouteSource, Rule, Verdict};
use weft_bgp::speaker::{Resolution, TrackedNextHop};
use weft_bgp::types::{Asn, Family, FamilySet};
use weft_bgp::wire::attributes::PathAttributes;

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
    pub(crate) stale_until: Option<u64>,
}

impl ModelPeer {
    pub(crate) fn new(peer: u32) -> Self {
        Self { config: peer_config(peer), up: None, routes: BTreeMap::new(), stale_until: None }
    }

    pub(crate) fn drop_stale(&mut self, lost: FamilySet) {
        self.routes.retain(|(prefix, _), (_, stale)| !(*stale && lost.contains(Family::of(prefix))));
        if !self.routes.values().any(|(_, stale)| *stale) {
            self.stale_until = None;
        }
    }
}

pub(crate) struct Model {
    pub(crate) peers: BTreeMap<u32, ModelPeer>,
    pub(crate) resolutions: BTreeMap<TrackedNextHop, Resolution>,
    pub(crate) originate: BTreeSet<IpNet>,
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
        let passes = attributes.originator_id != Some(ROUTER_ID)
            && !attributes.cluster_list.contains(&self.cluster)
            && attributes.as_path.occurrences(OWN) <= usize::from(config.allowed_own_as);
        let verdict =
            verdict(&config.import, prefix, RouteSource::RemotePeers, attributes).filter(|_| passes)?;
        Some(rewritten(verdict, attributes.clone()))
    }

    pub(crate) fn eligible(&self, prefix: &IpNet, local: &PathAttributes) -> Vec<ModelPath> {
        let mut paths = vec![];
        if self.originate.contains(prefix) {
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
        if self.originate.contains(prefix) {
            paths.retain(|p| p.0.is_none());
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
        let told = self.tellable(peer, prefix, best)?;
        (*from != Some(peer) && told.next_hop != address(peer)).then_some(told)
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
