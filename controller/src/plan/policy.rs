//! Policies: what is exchanged when no filter says otherwise, and the filters made into rules.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use weft_bgp::policy::{
    Community, NextHopsByPrefix, Operation, Policy, PrefixMatch, PrefixRange, RouteSource, Rule, Verdict,
};
use weft_bgp::types::{Asn, Family, PeerType, Reason};

use super::session::{Wanted, reflects};
use super::{NodeAddresses, blackhole};
use crate::api::{
    Action, AllowedUse, BGPFilterRule, BGPFilterSpec, CommunityRef, FilterPeerType, IPPoolSpec,
    MatchOperator, Source,
};
use crate::cluster::Cluster;

/// Why a block is not exported that is to stay in the cluster.
const KEPT: &str = "export-disabled";
const KEPT_TEXT: &str = "its IPPool has disableBGPExport";
/// Why a block is rejected of whom does not have it. The RIB alarms this code.
const DUPLICATE_ORIGIN: &str = "duplicate-origin";

/// Which way a policy looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Import,
    Export,
}

/// What is exchanged when no filter says otherwise, one direction.
struct DefaultRules {
    rules: [Vec<Rule>; 2],
    unmatched: Reason,
}

impl DefaultRules {
    fn policy(&self) -> Policy {
        Policy { rules: self.rules.concat(), unmatched: self.unmatched.clone() }
    }
}

/// The policies of one node's sessions; those that many sessions have in common are made once.
pub(super) struct Policies<'a> {
    cluster: &'a Cluster,
    node: &'a str,
    own_blocks: &'a [IpNet],
    /// What no peer may take away.
    kept: Vec<IpNet>,
    /// Every node's blocks, once a session with a node asks.
    blocks: OnceCell<BTreeMap<&'a str, Vec<IpNet>>>,
    reflected_import: OnceCell<(DefaultRules, Arc<Policy>)>,
    import: DefaultRules,
    shared_import: Arc<Policy>,
    export: DefaultRules,
    shared_export: Arc<Policy>,
    node_export: DefaultRules,
    shared_node_export: Arc<Policy>,
}

impl<'a> Policies<'a> {
    pub(super) fn new(
        cluster: &'a Cluster,
        node: &'a str,
        own_blocks: &'a [IpNet],
        own: NodeAddresses,
        own_asns: &BTreeSet<Asn>,
        service_ranges: &[IpNet],
    ) -> Self {
        let import = default_import(cluster, node, own_blocks, own, own_asns, service_ranges);
        let export = default_export(cluster, own_blocks);
        let all_blocks = cluster.nodes.get(node).filter(|node| reflects(cluster, node));
        let all_blocks = all_blocks.map(|_| cluster.blocks_by_node()).unwrap_or_default();
        let node_export = node_export(own_blocks, &all_blocks);
        let addresses =
            cluster.nodes.values().flat_map(|node| node.addresses.iter().copied()).chain(own.iter());
        let peers = cluster.peers.values().filter_map(|peer| Some(peer.peer_ip.as_ref()?.ip));
        let addresses = addresses.chain(peers);
        let kept =
            addresses.map(IpNet::from).chain(own_blocks.iter().chain(service_ranges).copied()).collect();
        Self {
            kept,
            cluster,
            node,
            own_blocks,
            blocks: OnceCell::new(),
            reflected_import: OnceCell::new(),
            shared_import: Arc::new(import.policy()),
            import,
            shared_export: Arc::new(export.policy()),
            export,
            shared_node_export: Arc::new(node_export.policy()),
            node_export,
        }
    }

    /// Import and export of a session.
    pub(super) fn of(&self, session: &Wanted<'_>) -> (Arc<Policy>, Arc<Policy>) {
        let filters = session.spec().map(|s| s.filters.as_slice()).unwrap_or_default();
        let (export, shared_export) = match session.node {
            Some(_) => (&self.node_export, &self.shared_node_export),
            None => (&self.export, &self.shared_export),
        };
        let of_node;
        let (import, shared_import) = match &session.node {
            None => (&self.import, Some(&self.shared_import)),
            Some(_) if session.from_reflector => {
                let (import, shared) = self.reflected_import();
                (import, Some(shared))
            }
            Some((node, _)) => {
                let blocks = self.blocks().get(node).map(Vec::as_slice).unwrap_or_default();
                of_node = node_import(node, blocks, self.own_blocks);
                (&of_node, None)
            }
        };
        let granted = session.spec().map(|s| s.blackhole_cidrs.as_slice()).unwrap_or_default();
        let (import, export) = match filters.is_empty() {
            true => {
                let import = shared_import.map_or_else(|| Arc::new(import.policy()), Arc::clone);
                (import, Arc::clone(shared_export))
            }
            false => (
                Arc::new(self.filtered(filters, Direction::Import, import)),
                Arc::new(self.filtered(filters, Direction::Export, export)),
            ),
        };
        if granted.is_empty() {
            return (import, export);
        }
        let mut rules = blackhole::rules(granted, &self.kept);
        rules.extend(import.rules.iter().cloned());
        (Arc::new(Policy { rules, unmatched: import.unmatched.clone() }), export)
    }

    fn blocks(&self) -> &BTreeMap<&'a str, Vec<IpNet>> {
        self.blocks.get_or_init(|| self.cluster.blocks_by_node())
    }

    fn reflected_import(&self) -> &(DefaultRules, Arc<Policy>) {
        self.reflected_import.get_or_init(|| {
            let rules = reflected_import(self.cluster, self.node, self.blocks(), self.own_blocks);
            let shared = Arc::new(rules.policy());
            (rules, shared)
        })
    }

    /// A default with the filters in place of it, for the families that they have rules for.
    fn filtered(&self, filters: &[String], direction: Direction, default: &DefaultRules) -> Policy {
        let mut rules = Vec::new();
        for (family, default_rules) in Family::ALL.into_iter().zip(&default.rules) {
            let before = rules.len();
            for name in filters {
                match self.cluster.filters.get(name) {
                    Some(filter) => {
                        rules.extend(filter_rules(self.cluster, name, filter, direction, family));
                    }
                    None => rules.push(reject(
                        everything(family),
                        Reason::new("filter-missing", format!("there is no BGPFilter {name}")),
                    )),
                }
            }
            if rules.len() == before {
                rules.extend_from_slice(default_rules);
            } else {
                let text = format!("no rule of the BGPFilters {} matches", filters.join(", "));
                rules.push(reject(everything(family), Reason::new("no-filter-match", text)));
            }
        }
        Policy { rules, unmatched: default.unmatched.clone() }
    }
}

/// What is believed of a router that is no node: pods' prefixes that are not ours, and node addresses.
fn default_import(
    cluster: &Cluster,
    node: &str,
    own_blocks: &[IpNet],
    own: NodeAddresses,
    own_asns: &BTreeSet<Asn>,
    service_ranges: &[IpNet],
) -> DefaultRules {
    let rules = Family::ALL.map(|family| {
        let of_family = |net: &IpNet| Family::of(net) == family;
        let own_addresses = own.iter().map(IpNet::from).filter(of_family).map(exactly);
        let nodes = cluster.nodes.iter().filter(|(name, _)| *name != node).flat_map(|(_, n)| &n.addresses);
        let for_pods = cluster.pools.values().map(AsRef::as_ref).filter(|p| p.is_for(AllowedUse::Workload));
        let pools: Vec<&IPPoolSpec> = for_pods.filter(|p| of_family(&p.cidr.net())).collect();
        let mut rules = Vec::new();
        let blocks = || own_blocks.iter().copied().filter(of_family);
        // A router may tell us our own routes, but those end in an AS of ours.
        let anothers = reject_any(
            blocks().map(exactly),
            DUPLICATE_ORIGIN,
            "it is a block of this node, and another AS originates it",
        );
        rules.extend(
            anothers.map(|rule| Rule { not_originated_by: own_asns.iter().copied().collect(), ..rule }),
        );
        rules.extend(reject_any(blocks().map(inside), "own-block", "it is or lies in a block of this node"));
        rules.extend(reject_any(own_addresses, "own-address", "it is an address of this node"));
        let services = service_ranges.iter().copied().filter(of_family).map(inside);
        rules.extend(reject_any(
            services,
            "service-range",
            "it is or lies in a range of Services, which this node answers itself; a BGPFilter can accept it",
        ));
        rules.extend(accept_any(nodes.map(|a| IpNet::from(*a)).filter(of_family).map(exactly)));
        if pools.is_empty() {
            let of_nodes = cluster.blocks_by_node();
            let of_nodes = of_nodes.iter().filter(|(node, _)| cluster.nodes.contains_key(**node));
            let blocks = of_nodes.flat_map(|(_, blocks)| blocks.iter().copied());
            rules.extend(accept_any(blocks.filter(of_family).map(inside)));
        } else {
            let enabled = || pools.iter().filter(|p| !p.disabled);
            rules.extend(accept_any(enabled().map(|pool| upto_block(pool))));
            rules.extend(reject_any(
                enabled().map(|pool| inside(pool.cidr.net())),
                "longer-than-block",
                "it is longer than the blockSize of its IPPool; a BGPFilter can accept it",
            ));
        }
        rules
    });
    let text = "it lies in no enabled IPPool (or, where there is none, no Node's podCIDR) and is no node's address; \
                a BGPFilter can accept it";
    DefaultRules { rules, unmatched: Reason::new("not-in-pool", text) }
}

/// What is believed of a node: only its blocks.
fn node_import(node: &str, blocks: &[IpNet], own_blocks: &[IpNet]) -> DefaultRules {
    let rules = Family::ALL.map(|family| {
        let own = own_blocks.iter().copied();
        let theirs =
            blocks.iter().copied().filter(|b| Family::of(b) == family && !own.clone().any(|o| o == *b));
        accept_any(theirs.map(exactly)).into_iter().collect()
    });
    let text = format!("it is no block of the node {node}, which announces it");
    DefaultRules { rules, unmatched: Reason::new(DUPLICATE_ORIGIN, text) }
}

/// What is believed of a node that reflects: any node's block, if the next hop is an address of that node. Whoever announces the block
/// then, and whatever a reflector or its clients make up, packets to it go to the node that has it, or nowhere.
fn reflected_import(
    cluster: &Cluster,
    node: &str,
    blocks: &BTreeMap<&str, Vec<IpNet>>,
    own_blocks: &[IpNet],
) -> DefaultRules {
    let text = "it is no block of a node that its next hop is an address of";
    let reason = Reason::new(DUPLICATE_ORIGIN, text);
    let rules = Family::ALL.map(|family| {
        let mut next_hops = NextHopsByPrefix::new();
        for (name, blocks) in blocks.iter().filter(|(name, _)| **name != node) {
            let Some(owner) = cluster.nodes.get(*name) else { continue };
            for block in blocks.iter().filter(|b| Family::of(b) == family && !own_blocks.contains(b)) {
                next_hops.entry(*block).or_default().extend(&owner.addresses);
            }
        }
        let verdict = Verdict::AcceptVia(Arc::new(next_hops), reason.clone());
        vec![Rule { prefixes: Some(everything(family)), ..Rule::new(verdict) }]
    });
    DefaultRules { rules, unmatched: reason }
}

/// What a router that is no node is told: what this node originates or reflects, but for blocks that are to stay in the cluster.
fn default_export(cluster: &Cluster, own_blocks: &[IpNet]) -> DefaultRules {
    let unexported = unexported(cluster, own_blocks);
    let rules = Family::ALL.map(|family| {
        let kept = unexported.iter().copied().filter(|b| Family::of(b) == family).map(exactly);
        let kept = reject_any(kept, KEPT, KEPT_TEXT);
        let pools = cluster.pools.values().filter(|p| p.disable_bgp_export).map(|p| p.cidr.net());
        let others = reject_any(pools.filter(|p| Family::of(p) == family).map(inside), KEPT, KEPT_TEXT);
        let others = others.map(|rule| Rule { source: Some(RouteSource::Reflected), ..rule });
        let rest = [local(everything(family)), reflected(everything(family))];
        kept.into_iter().chain(others).chain(rest).collect()
    });
    let text = "it was learned from a peer, and only an export rule with source: RemotePeers passes that on";
    DefaultRules { rules, unmatched: Reason::new("no-transit", text) }
}

/// What another node is told: our blocks, and what we reflect of `all_blocks`. It believes nothing else of a node, whatever we do of a router.
fn node_export(own_blocks: &[IpNet], all_blocks: &BTreeMap<&str, Vec<IpNet>>) -> DefaultRules {
    let rules = Family::ALL.map(|family| {
        let own: Vec<PrefixRange> =
            own_blocks.iter().copied().filter(|b| Family::of(b) == family).map(exactly).collect();
        let own = (!own.is_empty()).then(|| local(any_of(own)));
        let all = all_blocks.values().flatten().copied();
        let all: Vec<PrefixRange> = all.filter(|b| Family::of(b) == family).map(exactly).collect();
        let all = (!all.is_empty()).then(|| reflected(any_of(all)));
        own.into_iter().chain(all).collect()
    });
    DefaultRules {
        rules,
        unmatched: Reason::new("not-own-block", "nodes tell each other only their own blocks"),
    }
}

/// The own blocks that are to stay in the cluster.
fn unexported(cluster: &Cluster, own_blocks: &[IpNet]) -> Vec<IpNet> {
    let pools: Vec<IpNet> =
        cluster.pools.values().filter(|p| p.disable_bgp_export).map(|p| p.cidr.net()).collect();
    own_blocks.iter().copied().filter(|b| pools.iter().any(|pool| pool.contains(b))).collect()
}

fn filter_rules<'f>(
    cluster: &'f Cluster,
    name: &'f str,
    filter: &'f BGPFilterSpec,
    direction: Direction,
    family: Family,
) -> impl Iterator<Item = Rule> + 'f {
    let (list, rules) = match (direction, family) {
        (Direction::Import, Family::Ipv4Unicast) => ("importV4", &filter.import_v4),
        (Direction::Import, Family::Ipv6Unicast) => ("importV6", &filter.import_v6),
        (Direction::Export, Family::Ipv4Unicast) => ("exportV4", &filter.export_v4),
        (Direction::Export, Family::Ipv6Unicast) => ("exportV6", &filter.export_v6),
    };
    rules.iter().enumerate().map(move |(index, rule)| {
        let (communities, verdict) = match (attributes(cluster, rule), rule.action) {
            // The documents are accepted together, so that this is rare; what is not known is not let through.
            (Err(missing), _) => {
                let text = format!(
                    "{list}[{index}] of BGPFilter {name} names the community {missing}, which is not there"
                );
                (Vec::new(), Verdict::Reject(Reason::new("community-missing", text)))
            }
            (Ok((communities, operations)), Action::Accept) if operations.is_empty() => {
                (communities, Verdict::Accept)
            }
            (Ok((communities, operations)), Action::Accept) => {
                (communities, Verdict::AcceptWith(operations.into()))
            }
            (Ok((communities, _)), Action::Reject) => {
                let text = format!("{list}[{index}] of BGPFilter {name} rejects it");
                (communities, Verdict::Reject(Reason::new("filter", text)))
            }
        };
        Rule {
            prefixes: Some(filter_prefixes(rule, family)),
            communities,
            as_path_prefix: rule.as_path_prefix.iter().flatten().map(|number| number.get()).collect(),
            source: filter_source(rule, direction),
            peer_type: rule.peer_type.map(|t| match t {
                FilterPeerType::External => PeerType::External,
                FilterPeerType::Internal => PeerType::Internal,
            }),
            ..Rule::new(verdict)
        }
    })
}

/// The communities that a rule asks for, and what it does to a route.
///
/// # Errors
/// The name of a community that there is not.
fn attributes(cluster: &Cluster, rule: &BGPFilterRule) -> Result<(Vec<Community>, Vec<Operation>), String> {
    let community = |written: &CommunityRef| cluster.community(written).ok_or_else(|| written.to_string());
    let wanted = rule.communities.iter().flat_map(|communities| &communities.values);
    let wanted = wanted.map(community).collect::<Result<_, _>>()?;
    let mut operations = Vec::new();
    for operation in &rule.operations {
        if let Some(add) = &operation.add_community {
            operations.push(Operation::AddCommunity(community(&add.value)?));
        }
        if let Some(remove) = &operation.remove_community {
            operations.push(Operation::RemoveCommunity(community(&remove.value)?));
        }
        if let Some(prepend) = &operation.prepend_as_path {
            operations
                .push(Operation::PrependAsPath(prepend.prefix.iter().map(|number| number.get()).collect()));
        }
        operations.extend(operation.set_local_preference.map(|set| Operation::SetLocalPreference(set.value)));
        operations.extend(operation.set_med.map(|set| Operation::SetMed(set.value)));
        operations.extend(operation.set_next_hop.map(|set| Operation::SetNextHop(set.value.0)));
    }
    Ok((wanted, operations))
}

/// On import every route is a peer's. On export transit needs the word: an accepting rule without source means our own.
fn filter_source(rule: &BGPFilterRule, direction: Direction) -> Option<RouteSource> {
    match (direction, rule.source, rule.action) {
        (Direction::Import, _, _) | (Direction::Export, None, Action::Reject) => None,
        (Direction::Export, Some(Source::RemotePeers), _) => Some(RouteSource::RemotePeers),
        (Direction::Export, None, Action::Accept) => Some(RouteSource::Local),
    }
}

fn filter_prefixes(rule: &BGPFilterRule, family: Family) -> PrefixMatch {
    let Some(net) = rule.cidr.map(|cidr| cidr.net()) else { return everything(family) };
    let operator = rule.match_operator.unwrap_or(MatchOperator::In);
    let bounds = rule.prefix_length.filter(|_| matches!(operator, MatchOperator::In | MatchOperator::NotIn));
    let mut range = match operator {
        MatchOperator::Equal | MatchOperator::NotEqual => exactly(net),
        MatchOperator::In | MatchOperator::NotIn => inside(net),
    };
    if let Some(bounds) = bounds {
        range.min_len = bounds.min.unwrap_or(range.min_len);
        range.max_len = bounds.max.unwrap_or(range.max_len);
    }
    let negated = matches!(operator, MatchOperator::NotEqual | MatchOperator::NotIn);
    PrefixMatch { ranges: vec![range], negated }
}

pub(super) fn exactly(net: IpNet) -> PrefixRange {
    PrefixRange { net, min_len: net.prefix_len(), max_len: net.prefix_len() }
}

pub(super) fn inside(net: IpNet) -> PrefixRange {
    PrefixRange { net, min_len: net.prefix_len(), max_len: net.max_prefix_len() }
}

fn upto_block(pool: &IPPoolSpec) -> PrefixRange {
    PrefixRange { max_len: pool.block_len(), ..inside(pool.cidr.net()) }
}

pub(super) fn any_of(ranges: Vec<PrefixRange>) -> PrefixMatch {
    PrefixMatch { ranges, negated: false }
}

pub(super) fn everything(family: Family) -> PrefixMatch {
    any_of(vec![inside(match family {
        Family::Ipv4Unicast => Ipv4Net::default().into(),
        Family::Ipv6Unicast => Ipv6Net::default().into(),
    })])
}

fn local(prefixes: PrefixMatch) -> Rule {
    Rule { prefixes: Some(prefixes), source: Some(RouteSource::Local), ..Rule::new(Verdict::Accept) }
}

/// Between iBGP peers of which one is our client, everything passes that was believed.
fn reflected(prefixes: PrefixMatch) -> Rule {
    Rule { source: Some(RouteSource::Reflected), ..local(prefixes) }
}

pub(super) fn reject(prefixes: PrefixMatch, reason: Reason) -> Rule {
    Rule { prefixes: Some(prefixes), ..Rule::new(Verdict::Reject(reason)) }
}

/// A rule for these ranges, if there are any.
fn accept_any(ranges: impl Iterator<Item = PrefixRange>) -> Option<Rule> {
    let ranges: Vec<PrefixRange> = ranges.collect();
    (!ranges.is_empty()).then(|| Rule { prefixes: Some(any_of(ranges)), ..Rule::new(Verdict::Accept) })
}

fn reject_any(ranges: impl Iterator<Item = PrefixRange>, code: &'static str, text: &str) -> Option<Rule> {
    let ranges: Vec<PrefixRange> = ranges.collect();
    (!ranges.is_empty()).then(|| reject(any_of(ranges), Reason::new(code, text)))
}
