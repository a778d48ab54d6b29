//! What the RIB says of itself. Reasons are worded here, when somebody asks: paths only keep codes.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use ipnet::IpNet;

use super::Rib;
use super::attributes::{AttrId, AttributeTable};
use super::decision::{self, Candidate};
use super::export::{Exporter, Withheld};
use super::holdings::{Path, Peer, Phase, Standing};
use super::loc::{Best, Destination};
use crate::arena::prefixes::PrefixId;
use crate::ingress::Session;
use crate::speaker::Resolution;
use crate::status::{BestChange, FamilyStatus, PathStatus, Rejections, RibView, RouteSelect, RouteStatus};
use crate::types::{Family, FamilySet, PeerAddress, PeerId, Reason};
use crate::wire::attributes::PathAttributes;

impl Rib {
    /// A peer's counts, of these families. `advertised` is the third stage's to know and stays zero.
    #[must_use]
    pub fn family_status(&self, peer: PeerId, families: FamilySet) -> Vec<FamilyStatus> {
        let Some(peer) = self.holdings.peers.get(&peer) else { return Vec::new() };
        let status = |family| {
            let adj = peer.adj_rib_in(family);
            FamilyStatus {
                family,
                received: adj.received,
                accepted: adj.accepted,
                advertised: 0,
                stale: adj.stale,
                refused: adj.refused,
                rejected: Standing::REJECTED.map(|(standing, code)| (code, adj.standing.of(standing))),
                long_lived: adj.retention.is_some_and(|r| r.phase == Phase::LongLived),
            }
        };
        families.iter().map(status).collect()
    }

    /// Which of a peer's routes are rejected for what points at a mistake.
    #[must_use]
    pub fn rejections(&self, id: PeerId) -> Rejections {
        let Some(peer) = self.holdings.peers.get(&id) else { return Rejections::default() };
        let routes = |standing: Standing| {
            let count = peer.ipv4.standing.of(standing) + peer.ipv6.standing.of(standing);
            let stands = |d: &Destination| d.paths_of(id).iter().any(|path| path.standing == standing);
            // Nobody's routes are looked through where there are none.
            let mut table = self.table.walk(0).filter(|_| count > 0);
            table.find(|(_, _, destination)| stands(destination)).map(|(_, example, _)| (count, example))
        };
        Rejections {
            as_set: routes(Standing::AsSet),
            own_as: routes(Standing::OwnAs),
            duplicate_origin: routes(Standing::DuplicateOrigin),
            route_leak: routes(Standing::RouteLeak),
        }
    }

    /// Until when a peer's stale routes are kept; none: it has none.
    #[must_use]
    pub fn stale_until(&self, peer: PeerId) -> Option<Instant> {
        let away = self.holdings.peers.get(&peer)?.retained().filter(|kept| kept.phase != Phase::Refresh);
        away.map(|kept| kept.until).max()
    }

    /// Which best paths changed after the one of this number, in order: the last of them, as many as are remembered.
    #[must_use]
    pub fn best_changes(&self, after: u64) -> Vec<BestChange> {
        self.history.after(after)
    }

    /// How often a best path changed.
    #[must_use]
    pub fn best_changes_count(&self) -> u64 {
        self.history.count()
    }

    /// How many prefixes have a path, eligible or not.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is no path at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The routes of a view that a prefix or an address picks. An address that is no peer's has none.
    ///
    /// In the view [`RibView::Out`], a prefix that is not told to the peer shows when asked for by name, with one path that is not
    /// valid and the reason.
    #[must_use]
    pub fn routes(&self, view: RibView, select: RouteSelect) -> Vec<RouteStatus> {
        let Ok(peer) = self.peer_of(view) else { return Vec::new() };
        let route = |id| self.route(view, peer, id, true);
        match select {
            RouteSelect::Exact(prefix) => {
                self.table.find(&prefix.trunc()).and_then(route).into_iter().collect()
            }
            RouteSelect::LongestMatch(address) => {
                self.table.covering(address).find_map(route).into_iter().collect()
            }
            RouteSelect::All => {
                let mut all = self.routes_from(view, 0, usize::MAX).0;
                all.sort_unstable_by_key(|route| route.prefix);
                all
            }
        }
    }

    /// The routes of a view from a place in the table on, in no particular order, from a look at `limit` prefixes; and the place where to
    /// go on. None: there is nothing behind.
    ///
    /// A prefix that is there from the first piece to the last one is seen once, whatever comes and goes meanwhile.
    #[must_use]
    pub fn routes_from(&self, view: RibView, from: usize, limit: usize) -> (Vec<RouteStatus>, Option<usize>) {
        let Ok(peer) = self.peer_of(view) else { return (Vec::new(), None) };
        let (mut routes, mut looked) = (Vec::new(), 0);
        for (id, _, destination) in self.table.walk(from) {
            if looked == limit {
                return (routes, Some(id.index()));
            }
            looked += 1;
            // Most prefixes of a large table are none of this peer's.
            let concerns = match (view, peer) {
                (RibView::In(_), Some(peer)) => !destination.paths_of(peer).is_empty(),
                _ => true,
            };
            routes.extend(Some(id).filter(|_| concerns).and_then(|id| self.route(view, peer, id, false)));
        }
        (routes, None)
    }

    /// The peer that a view is of, if it is one's.
    ///
    /// # Errors
    /// The address is no peer's.
    fn peer_of(&self, view: RibView) -> Result<Option<PeerId>, ()> {
        match view {
            RibView::Loc => Ok(None),
            RibView::In(address) | RibView::Out(address) => self.peer_at(address).map(Some).ok_or(()),
        }
    }

    fn peer_at(&self, address: PeerAddress) -> Option<PeerId> {
        self.holdings.peers.iter().find(|(_, peer)| peer.address == address).map(|(id, _)| *id)
    }

    fn route(&self, view: RibView, peer: Option<PeerId>, id: PrefixId, named: bool) -> Option<RouteStatus> {
        let prefix = self.table.prefix(id);
        let paths = match (view, peer) {
            (RibView::Out(_), Some(peer)) => {
                let mut paths = self.told(peer, id);
                paths.retain(|path| path.valid || named);
                paths
            }
            (RibView::In(address), _) => {
                let mut paths = self.paths(id, |attributes| self.holdings.attributes.received(attributes));
                paths.retain(|path| path.peer == Some(address));
                paths
            }
            _ => self.paths(id, |attributes| attributes),
        };
        (!paths.is_empty()).then_some(RouteStatus { prefix, paths })
    }

    /// Every path of a prefix, as received or after import policy, as `version` says: the candidates as ranked, then the others by source.
    fn paths(&self, id: PrefixId, version: impl Fn(AttrId) -> AttrId) -> Vec<PathStatus> {
        let prefix = self.table.prefix(id);
        let destination = self.table.get(id);
        let candidates = self.candidates(id);
        let ranked = candidates.iter().filter_map(|c| Some((Some(c), destination.paths().get(c.path)?)));
        let rest = destination.paths().iter().filter(|p| p.standing != Standing::Eligible).map(|p| (None, p));
        let status = |(candidate, path): (_, &Path)| PathStatus {
            attributes: shown(&self.holdings.attributes, version(path.attributes)),
            ..self.path(prefix, path, candidate, candidates.first())
        };
        ranked.chain(rest).map(status).collect()
    }

    fn path(
        &self,
        prefix: IpNet,
        path: &Path,
        candidate: Option<&Candidate>,
        best: Option<&Candidate>,
    ) -> PathStatus {
        let peer = path.source.peer().and_then(|id| Some((id, self.holdings.peers.get(&id)?)));
        let best_or_equal = candidate.filter(|c| c.multipath);
        PathStatus {
            peer: peer.map(|(_, peer)| peer.address),
            path_id: peer.and_then(|(_, peer)| {
                let told = |session: &Arc<Session>| session.add_path.receive.contains(Family::of(&prefix));
                let id = path.source.path_id();
                (id != 0 || peer.session().is_some_and(told)).then_some(id)
            }),
            attributes: shown(&self.holdings.attributes, path.attributes),
            valid: candidate.is_some(),
            best: candidate.is_some_and(|c| c.lost.is_none()),
            multipath: best_or_equal.is_some_and(|c| c.lost.is_some()),
            stale: peer.is_some_and(|(_, peer)| peer.is_stale(Family::of(&prefix), path)),
            next_hop_over: self.resolution(path).and_then(|resolution| match resolution {
                Resolution::Recursive { over, .. } => Some(over),
                _ => None,
            }),
            reason: match (candidate, best, peer) {
                (Some(candidate), Some(best), _) => decision::reason(candidate, best),
                (_, _, Some((id, peer))) => self.ineligible(id, peer, prefix, path),
                _ => Reason::new("best", "this speaker originates the prefix"),
            },
        }
    }

    /// How a path's next hop resolves.
    fn resolution(&self, path: &Path) -> Option<Resolution> {
        let hop = self.holdings.attributes.get(path.attributes).hop?;
        Some(self.holdings.hops.resolution(hop))
    }

    /// Why a path takes no part in the decision.
    fn ineligible(&self, id: PeerId, peer: &Peer, prefix: IpNet, path: &Path) -> Reason {
        let (next_hop, link) = self.holdings.attributes.get(path.attributes).next_hop;
        match path.standing {
            Standing::Eligible => Reason::new("eligible", "takes part in the decision"),
            Standing::NextHopUnresolved if link.is_some() => {
                Reason::new("next-hop-unresolved", format!("the link of the next hop {next_hop} is down"))
            }
            Standing::NextHopUnresolved => {
                let why = match self.resolution(path) {
                    Some(Resolution::TooDeep { over }) => format!(
                        "BGP's route {over} leads to the next hop {next_hop}, but its own next hops are reached over BGP's routes alone, \
                         over too many of them or over one to themselves: a route of the kernel's has to lead to those"
                    ),
                    _ => format!(
                        "no route of the kernel's, and none of BGP's, leads to the next hop {next_hop}"
                    ),
                };
                Reason::new("next-hop-unresolved", why)
            }
            Standing::NextHopNotOnLink => Reason::new(
                "next-hop-not-on-link",
                format!(
                    "the next hop {next_hop} of an eBGP peer lies behind a gateway; set ebgpMultihop to allow that"
                ),
            ),
            Standing::Policy | Standing::DuplicateOrigin => self
                .policy_rejection(id, prefix, path.attributes)
                .unwrap_or_else(|| Reason::new("policy", "rejected by the import policy")),
            Standing::AsSet => Reason::new(
                "as-set",
                "the AS path has an AS_SET or AS_CONFED_SET, and such are as good as withdrawn (RFC 9774): have who aggregates leave it \
                 out, or set allowASSets of this peer",
            ),
            Standing::OwnAs => {
                let local_as = peer.session().map_or(self.settings.asn, |session| session.local_as);
                let received = self.holdings.attributes.received(path.attributes);
                let attributes = self.holdings.attributes.attributes(received);
                let times = self.own_as_occurrences(local_as, &attributes.as_path);
                let allowed = peer.config.allowed_own_as;
                Reason::new(
                    "own-as-in-path",
                    format!(
                        "our own AS occurs {times} times in the AS path and {allowed} are allowed: raise numAllowedLocalASNumbers \
                         of this peer, or give the sites different numbers with localASNumber"
                    ),
                )
            }
            Standing::FirstAs => Reason::new(
                "first-as",
                "the AS path does not begin with the AS of the eBGP peer (RFC 4271 section 6.3)",
            ),
            Standing::OwnOriginator => Reason::new(
                "own-originator",
                format!("the ORIGINATOR_ID {} is our own router id", self.settings.router_id),
            ),
            Standing::OwnCluster => Reason::new(
                "own-cluster",
                format!(
                    "our cluster id {} is in the CLUSTER_LIST: this route reflector, or another of its cluster, has reflected it before",
                    self.settings.cluster_id.unwrap_or(self.settings.router_id)
                ),
            ),
            Standing::RouteLeak => self.leak(peer, path.attributes),
            Standing::OwnNextHop => {
                Reason::new("own-next-hop", format!("the next hop {next_hop} is our own address"))
            }
        }
    }

    /// What speaks against a path that the peer leaks.
    pub(super) fn leak(&self, peer: &Peer, attributes: AttrId) -> Reason {
        let role = peer.session().and_then(|session| session.role);
        let attributes = self.holdings.attributes.attributes(attributes);
        let to = attributes.only_to_customer.map_or(0, |asn| asn.0);
        Reason::new(
            "route-leak",
            format!(
                "AS {to} told it to customers only (RFC 9234), and on this session our role is {}: the peer leaks it",
                role.map_or_else(String::new, |role| role.to_string())
            ),
        )
    }

    /// The best path as a peer is told it, or all that it might be told, and why it is not. None: there is no best path.
    fn told(&self, id: PeerId, prefix_id: PrefixId) -> Vec<PathStatus> {
        let prefix = self.table.prefix(prefix_id);
        let several = self.exporter(id).and_then(|e| Some((e, e.several(Family::of(&prefix))?)));
        match several {
            Some((exporter, send)) => self.told_several(id, prefix_id, send, exporter),
            None => self.told_best(id, prefix_id).into_iter().collect(),
        }
    }

    /// A path as it was taken in, not told.
    pub(super) fn untold(&self, prefix: IpNet, best: Best, destination: &Destination) -> PathStatus {
        let source = best.source.peer().and_then(|p| self.holdings.peers.get(&p));
        PathStatus {
            peer: source.map(|peer| peer.address),
            path_id: None,
            attributes: self.holdings.attributes.attributes(best.attributes),
            valid: false,
            best: false,
            multipath: false,
            stale: destination
                .path(best.source)
                .zip(source)
                .is_some_and(|(path, peer)| peer.is_stale(Family::of(&prefix), path)),
            next_hop_over: None,
            reason: Reason::new("no-session", "the peer is told nothing before its session is Established"),
        }
    }

    fn told_best(&self, id: PeerId, prefix_id: PrefixId) -> Option<PathStatus> {
        let prefix = self.table.prefix(prefix_id);
        let destination = self.table.get(prefix_id);
        let best = destination.best()?;
        let mut status = self.untold(prefix, best, destination);
        let Some(exporter) = self.exporter(id) else { return Some(status) };
        if best.source.is_of(id) {
            status.reason = Reason::new("split-horizon", "the best path was learned from this peer");
            return Some(status);
        }
        match self.exported(prefix, best, exporter)? {
            Err(reason) => status.reason = reason,
            Ok(told) if self.leads_to(id, &told) => status.reason = peer_next_hop(told.next_hop),
            Ok(told) => {
                status.attributes = told;
                (status.valid, status.best) = (true, true);
                status.reason = Reason::new("advertised", "the best path, and the export policy accepts it");
            }
        }
        Some(status)
    }

    /// Whether what a peer would be told leads to itself: the third stage keeps it from that peer alone.
    pub(super) fn leads_to(&self, id: PeerId, told: &PathAttributes) -> bool {
        let session = self.holdings.peers.get(&id).and_then(Peer::established);
        session.is_some_and(|session| session.is_next_hop(told.next_hop))
    }

    /// What the peers of a group are told a path with, or why they are not told it. None: its peer is gone, and it is about to go.
    pub(super) fn exported(
        &self,
        prefix: IpNet,
        best: Best,
        exporter: &Exporter,
    ) -> Option<Result<Arc<PathAttributes>, Reason>> {
        let from = self.holdings.provenance(best)?;
        let attributes = self.holdings.attributes.attributes(best.attributes);
        let may = self.decided().tells(best.source).then_some(()).ok_or(Withheld::Deferred);
        let admitted =
            may.and_then(|()| exporter.admit(&prefix, &from, &attributes)).and_then(|operations| {
                let summary = self.aggregates.summary(&prefix, exporter, &self.table, &self.holdings);
                summary.map_or(Ok(operations), |net| Err(Withheld::Summarized(net)))
            });
        let told = admitted.and_then(|operations| {
            let told = exporter.rewrite(Family::of(&prefix), &from, &attributes, operations);
            exporter.fit(prefix, &told).map(|()| Arc::new(told))
        });
        Some(told.map_err(Withheld::reason))
    }
}

pub(super) fn peer_next_hop(next_hop: IpAddr) -> Reason {
    let text = format!("the next hop {next_hop} is the peer itself (RFC 4271 section 5.1.3)");
    Reason::new("peer-next-hop", text)
}

/// The attributes as they were taken in: with the LOCAL_PREF that we give a path that is about to go.
fn shown(table: &AttributeTable, id: AttrId) -> Arc<PathAttributes> {
    let (keys, attributes) = (table.get(id).keys, table.attributes(id));
    match keys.shutting_down {
        true => {
            let local_pref = Some(keys.local_pref);
            Arc::new(PathAttributes { local_pref, ..Arc::unwrap_or_clone(attributes) })
        }
        false => attributes,
    }
}
