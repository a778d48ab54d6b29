//! The decision process: RFC 4271 section 9.1.2 as a sequence of eliminations.
//!
//! Each step keeps those of the remaining paths that are best in one respect. As a step looks at the whole set and never at an
//! order, the result does not depend on the order in which the paths arrived, MED (which only compares within one neighbouring
//! AS) included.

use std::cmp::Reverse;

use smallvec::SmallVec;

use super::attributes::Keys;
use super::next_hops::HopId;
use crate::types::{PeerAddress, Reason};
use crate::wire::attributes::Origin;

/// An eligible path, as the decision sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    /// Its place among the paths of the prefix.
    pub(super) path: usize,
    /// Whether this speaker originates it.
    pub(super) local: bool,
    /// What its attributes say.
    pub(super) keys: Keys,
    /// Whether it was learned over iBGP.
    pub(super) internal: bool,
    /// The metric of the way to its next hop; none: it is on a link, which is nearer than any.
    pub(super) igp_metric: Option<u32>,
    /// The peer's BGP identifier.
    pub(super) router_id: u32,
    /// Where the peer is.
    pub(super) address: PeerAddress,
    /// What the peer calls it among its paths of the prefix.
    pub(super) path_id: u32,
    /// Its next hop; none: its own, shared with no other path.
    pub(super) hop: Option<HopId>,
    /// How many lower MEDs there are among paths of its neighbouring AS that are as good up to there.
    pub(super) lower_meds: u32,
    /// The step at which it lost; none: it is the best.
    pub(super) lost: Option<Step>,
    /// Whether it is as good as the best but for the tie-breaks, and its next hop is among as many as are allowed.
    pub(super) multipath: bool,
}

impl Candidate {
    /// What the steps before MED compare: lower is better.
    fn before_med(&self) -> impl Ord + use<> {
        let Keys { long_lived_stale, local_pref, as_path_length, origin, .. } = self.keys;
        (!self.local, long_lived_stale, Reverse(local_pref), as_path_length, origin)
    }

    /// What all steps compare, once [`Self::lower_meds`] is known.
    fn order(&self) -> impl Ord + use<> {
        (self.before_med(), self.lower_meds, self.internal, self.igp_metric, self.tie_break())
    }

    /// What orders paths that are equally good: unique, as there is one session to an address, and one path there by an identifier.
    fn tie_break(&self) -> TieBreak {
        let originator = self.keys.originator.unwrap_or(self.router_id);
        (originator, self.keys.cluster_list_length, self.address, self.path_id)
    }
}

/// Identifier, cluster list's length, address and path identifier.
type TieBreak = (u32, u32, PeerAddress, u32);

/// The steps, in order. A path that lost at a later step is the better one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    /// What we originate comes before what we learn.
    LocallyOriginated,
    /// RFC 9494 section 4.3: a long-lived stale path is the last choice.
    LongLivedStale,
    /// Section 9.1.1: the highest LOCAL_PREF.
    LocalPref,
    /// 9.1.2.2 a.
    AsPathLength,
    /// 9.1.2.2 b.
    Origin,
    /// 9.1.2.2 c: only among paths of one neighbouring AS.
    Med,
    /// 9.1.2.2 d: eBGP before iBGP.
    External,
    /// 9.1.2.2 e.
    IgpMetric,
    /// 9.1.2.2 f, with ORIGINATOR_ID in place of the identifier (RFC 4456 section 9).
    RouterId,
    /// RFC 4456 section 9.
    ClusterListLength,
    /// 9.1.2.2 g.
    PeerAddress,
    /// The peer's lowest path identifier (RFC 7911): some order there must be.
    PathId,
}

/// The eligible paths of a prefix, best first.
pub(super) type Candidates = SmallVec<[Candidate; 2]>;

/// Ranks the candidates: best first, each with the step at which it lost; those over the first `max_paths` next hops marked as multipath.
/// The others are compared like the best: speakers that tell each other the best few of their paths (RFC 7911) need not come to rest where a
/// longer path may come before a shorter one, which it may be made of.
pub(super) fn decide(candidates: &mut [Candidate], max_paths: u16) {
    eliminate(candidates, max_paths);
    if candidates.len() > 1 {
        count_lower_meds(candidates);
        candidates.sort_unstable_by_key(Candidate::order);
    }
}

/// The same, of the best and those marked as multipath alone; the others go.
pub(super) fn keep_winners(candidates: &mut Vec<Candidate>, max_paths: u16) {
    eliminate(candidates, max_paths);
    candidates.retain(|c| c.multipath || c.lost.is_none());
    // They are equally good but for that.
    candidates.sort_unstable_by_key(Candidate::tie_break);
}

fn count_lower_meds(candidates: &mut [Candidate]) {
    let group = |c: &Candidate| (c.before_med(), c.keys.neighbour);
    candidates.sort_unstable_by_key(|c| (group(c), c.keys.med));
    for group in candidates.chunk_by_mut(|a, b| group(a) == group(b)) {
        let meds = group.chunk_by_mut(|a, b| a.keys.med == b.keys.med);
        meds.zip(0..).for_each(|(equal, lower)| equal.iter_mut().for_each(|c| c.lower_meds = lower));
    }
}

fn eliminate(candidates: &mut [Candidate], max_paths: u16) {
    let one_is_left = candidates.len() <= 1
        || keep_best(candidates, Step::LocallyOriginated, |c| !c.local)
        || keep_best(candidates, Step::LongLivedStale, |c| c.keys.long_lived_stale)
        || keep_best(candidates, Step::LocalPref, |c| Reverse(c.keys.local_pref))
        || keep_best(candidates, Step::AsPathLength, |c| c.keys.as_path_length)
        || keep_best(candidates, Step::Origin, |c| c.keys.origin);
    if one_is_left {
        candidates.iter_mut().filter(|c| c.lost.is_none()).for_each(|best| best.multipath = true);
        return;
    }
    compare_med(candidates);
    keep_best(candidates, Step::External, |c| c.internal);
    keep_best(candidates, Step::IgpMetric, |c| c.igp_metric);
    break_ties(candidates, max_paths);
}

/// Lets all of the remaining but the first in order lose, each at the step at which it is behind that one, and marks those as multipath that
/// are over the first `max_paths` next hops. Several peers, or one with ADD-PATH, may tell of one next hop several times.
fn break_ties(candidates: &mut [Candidate], max_paths: u16) {
    let equal = candidates.iter_mut().filter(|c| c.lost.is_none());
    let mut equal: SmallVec<[(TieBreak, &mut Candidate); 8]> = equal.map(|c| (c.tie_break(), c)).collect();
    equal.sort_unstable_by_key(|(order, _)| *order);
    let Some(best) = equal.first().map(|(order, _)| *order) else { return };
    let (mut hops, mut count): (SmallVec<[HopId; 8]>, _) = (SmallVec::new(), 0);
    for (order, candidate) in equal {
        let known = candidate.hop.is_some_and(|hop| hops.contains(&hop));
        if !known && count < max_paths.max(1) {
            count += 1;
            hops.extend(candidate.hop);
            candidate.multipath = true;
        }
        candidate.multipath |= known;
        let steps = [
            (order.0 > best.0, Step::RouterId),
            (order.1 > best.1, Step::ClusterListLength),
            (order.2 > best.2, Step::PeerAddress),
            (order.3 > best.3, Step::PathId),
        ];
        candidate.lost = steps.into_iter().find_map(|(behind, step)| behind.then_some(step));
    }
}

/// Lets all of the remaining but those with the lowest key lose; says whether one alone is left.
fn keep_best<K: Ord>(candidates: &mut [Candidate], step: Step, key: impl Fn(&Candidate) -> K) -> bool {
    let best = candidates.iter().filter(|c| c.lost.is_none()).map(&key).min();
    let mut left = 0;
    for candidate in candidates.iter_mut().filter(|c| c.lost.is_none()) {
        if best.as_ref().is_some_and(|b| key(candidate) > *b) {
            candidate.lost = Some(step);
        } else {
            left += 1;
        }
    }
    left == 1
}

/// Lets a remaining path lose if another of its neighbouring AS has a lower MED.
fn compare_med(candidates: &mut [Candidate]) {
    let mut lowest: SmallVec<[_; 4]> = SmallVec::new();
    for Keys { neighbour, med, .. } in candidates.iter().filter(|c| c.lost.is_none()).map(|c| c.keys) {
        match lowest.iter_mut().find(|(n, _)| *n == neighbour) {
            Some((_, least)) => *least = med.min(*least),
            None => lowest.push((neighbour, med)),
        }
    }
    for candidate in candidates.iter_mut().filter(|c| c.lost.is_none()) {
        if lowest.iter().any(|(n, least)| *n == candidate.keys.neighbour && candidate.keys.med > *least) {
            candidate.lost = Some(Step::Med);
        }
    }
}

/// Why a candidate won or lost against the best.
pub(super) fn reason(candidate: &Candidate, best: &Candidate) -> Reason {
    let Some(step) = candidate.lost else {
        return Reason::new("best", "the best path");
    };
    let (own, other) = (&candidate.keys, &best.keys);
    if candidate.multipath {
        return Reason::new(
            "multipath",
            format!("as good as the best path, from {}, and used beside it", best.address),
        );
    }
    match step {
        Step::LocallyOriginated => {
            Reason::new("locally-originated", "this speaker originates the prefix itself")
        }
        Step::LongLivedStale => Reason::new(
            "long-lived-stale",
            "carries LLGR_STALE: its peer has been away for long, and any other path is better (RFC 9494)",
        ),
        Step::LocalPref => {
            let because = if own.shutting_down { ", as it carries GRACEFUL_SHUTDOWN (RFC 8326)" } else { "" };
            Reason::new(
                "local-pref",
                format!(
                    "local preference {} is lower than {} of the best path{because}",
                    own.local_pref, other.local_pref
                ),
            )
        }
        Step::AsPathLength => Reason::new(
            "as-path-length",
            format!(
                "AS path of length {} is longer than {} of the best path",
                own.as_path_length, other.as_path_length
            ),
        ),
        Step::Origin => {
            let (own, other) = (origin_name(own.origin), origin_name(other.origin));
            Reason::new("origin", format!("origin {own} is worse than {other} of the best path"))
        }
        Step::Med => Reason::new(
            "med",
            format!("MED {} is higher than that of another path of the same neighbouring AS", own.med),
        ),
        Step::External => Reason::new("ibgp", "learned over iBGP, the best path over eBGP"),
        Step::IgpMetric => Reason::new("igp-metric", igp_metric(candidate.igp_metric, best.igp_metric)),
        Step::RouterId => Reason::new("router-id", "the router id is higher than that of the best path"),
        Step::ClusterListLength => Reason::new(
            "cluster-list-length",
            format!(
                "cluster list of length {} is longer than {} of the best path",
                own.cluster_list_length, other.cluster_list_length
            ),
        ),
        Step::PeerAddress => Reason::new(
            "peer-address",
            format!("peer address {} is higher than {} of the best path", candidate.address, best.address),
        ),
        Step::PathId => Reason::new(
            "path-id",
            format!("path identifier {} is higher than {} of the best path", candidate.path_id, best.path_id),
        ),
    }
}

fn igp_metric(own: Option<u32>, other: Option<u32>) -> String {
    match (own, other) {
        (Some(own), Some(other)) => {
            format!("metric {own} to the next hop is higher than {other} of the best path")
        }
        _ => "the next hop is behind a gateway, that of the best path on a link".to_owned(),
    }
}

fn origin_name(origin: Origin) -> &'static str {
    match origin {
        Origin::Igp => "IGP",
        Origin::Egp => "EGP",
        Origin::Incomplete => "incomplete",
    }
}

#[cfg(test)]
mod tests;
