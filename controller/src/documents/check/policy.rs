//! Communities and operations: what makes no sense in one object, and names that are not there.

use std::collections::BTreeSet;

use ipnet::IpNet;
use weft_bgp::types::Family;

use super::Parsed;
use super::spec::{Faults, fault};
use crate::api::json::DocumentError;
use crate::api::{
    AS_PATH_MAX, Action, BGPConfigurationSpec, BGPFilterRule, BGPFilterSpec, COMMUNITIES_MAX,
    COMMUNITY_LIST_MAX, CommunityRef, FilterOperation, FilterPeerType, Invalid, NamedCommunity,
    OPERATIONS_MAX, PrefixAdvertisement,
};
use crate::cluster::{Cluster, Object};

/// The lists of rules, each with the name of its field and the family that it is for.
pub(super) fn lists(spec: &BGPFilterSpec) -> [(&'static str, &[BGPFilterRule], Family); 4] {
    [
        ("importV4", &spec.import_v4, Family::Ipv4Unicast),
        ("exportV4", &spec.export_v4, Family::Ipv4Unicast),
        ("importV6", &spec.import_v6, Family::Ipv6Unicast),
        ("exportV6", &spec.export_v6, Family::Ipv6Unicast),
    ]
}

fn too_many(faults: &mut Faults, field: &str, count: usize, most: usize, of: &str) {
    if count > most {
        fault(faults, field, format!("{count} {of} are given"), &format!("write {most} at most"));
    }
}

/// The faults of what a BGPConfiguration says of communities.
pub(super) fn configuration(faults: &mut Faults, name: &str, spec: &BGPConfigurationSpec) {
    if let Some(communities) = &spec.communities {
        if name != "default" {
            let remedy = "write them in the BGPConfiguration default";
            fault(faults, "communities", "names of communities are for all nodes alike", remedy);
        }
        names(faults, communities);
    }
    let advertisements = spec.prefix_advertisements.as_deref().unwrap_or_default();
    too_many(faults, "prefixAdvertisements", advertisements.len(), COMMUNITIES_MAX, "prefixes");
    for (index, advertisement) in advertisements.iter().enumerate() {
        advertised(faults, index, advertisement, advertisements);
    }
}

fn names(faults: &mut Faults, communities: &[NamedCommunity]) {
    too_many(faults, "communities", communities.len(), COMMUNITIES_MAX, "names");
    let mut seen = BTreeSet::new();
    for (index, NamedCommunity { name, value }) in communities.iter().enumerate() {
        let at = |field: &str| format!("communities[{index}].{field}");
        if name.parse::<weft_bgp::policy::Community>().is_ok() {
            let message = format!("\"{name}\" is a community already");
            fault(faults, &at("name"), message, "take another name");
        } else if !CommunityRef::is_name(name) {
            let message = format!("\"{name}\" is not a name for a community");
            let remedy = "write a letter, then letters, digits, \"-\", \"_\" and \".\", 63 at most";
            fault(faults, &at("name"), message, remedy);
        } else if !seen.insert(name) {
            fault(faults, &at("name"), format!("\"{name}\" is there already"), "keep one of the two");
        }
        if let CommunityRef::Named(other) = value {
            let message = format!("\"{other}\" is a name, not a community");
            fault(faults, &at("value"), message, "write a:b, a:b:c, rt:a:b, ro:a:b or a well-known name");
        }
    }
}

fn advertised(faults: &mut Faults, index: usize, this: &PrefixAdvertisement, all: &[PrefixAdvertisement]) {
    let at = |field: &str| format!("prefixAdvertisements[{index}].{field}");
    if let Some(first) = all.iter().take(index).position(|other| other.cidr == this.cidr) {
        let message = format!("{} is there already, at prefixAdvertisements[{first}]", this.cidr);
        fault(faults, &at("cidr"), message, "put the two together");
    }
    if this.communities.is_empty() && this.aggregate.is_none() {
        let remedy = "list the communities to attach, or write aggregate: WithSpecifics or SummaryOnly";
        let message = "there is neither a community nor an aggregate, so that nothing is done";
        fault(faults, &at("communities"), message, remedy);
    }
    if this.aggregate.is_some() && this.cidr.net().prefix_len() == this.cidr.net().max_prefix_len() {
        let message = format!("{} is one address, and no route lies inside it", this.cidr);
        fault(faults, &at("aggregate"), message, "leave aggregate out, or write a shorter prefix");
    }
    too_many(faults, &at("communities"), this.communities.len(), COMMUNITY_LIST_MAX, "communities");
}

/// The faults of what a rule says beyond prefixes.
pub(super) fn rule(faults: &mut Faults, list: &str, index: usize, rule: &BGPFilterRule, family: Family) {
    let at = |field: &str| format!("{list}[{index}].{field}");
    if let Some(communities) = &rule.communities {
        if communities.values.is_empty() {
            let remedy = "list the communities that the route must carry, or leave communities out";
            fault(faults, &at("communities.values"), "no community is listed", remedy);
        }
        let count = communities.values.len();
        too_many(faults, &at("communities.values"), count, COMMUNITY_LIST_MAX, "communities");
    }
    if let Some(prefix) = &rule.as_path_prefix {
        too_many(faults, &at("asPathPrefix"), prefix.len(), AS_PATH_MAX, "AS numbers");
    }
    too_many(faults, &at("operations"), rule.operations.len(), OPERATIONS_MAX, "operations");
    if rule.action == Action::Reject && !rule.operations.is_empty() {
        let remedy = "leave them out, or write action: Accept";
        fault(faults, &at("operations"), "operations are given for a route that is rejected", remedy);
    }
    for (place, operation) in rule.operations.iter().enumerate() {
        let at = at(&format!("operations[{place}]"));
        operation_of(faults, &at, operation, family);
        let external_export = list.starts_with("export") && rule.peer_type == Some(FilterPeerType::External);
        if operation.set_local_preference.is_some() && external_export {
            let message = "eBGP peers are not told of a local preference (RFC 4271 section 5.1.5)";
            let remedy = "use setMED, prependASPath or addCommunity";
            fault(faults, &format!("{at}.setLocalPreference"), message, remedy);
        }
    }
}

fn operation_of(faults: &mut Faults, at: &str, operation: &FilterOperation, family: Family) {
    let given = [
        operation.add_community.is_some(),
        operation.remove_community.is_some(),
        operation.prepend_as_path.is_some(),
        operation.set_local_preference.is_some(),
        operation.set_med.is_some(),
        operation.set_next_hop.is_some(),
    ];
    let count = given.into_iter().filter(|given| *given).count();
    if count != 1 {
        let message = format!("an operation has {count} fields");
        let remedy = "write exactly one of addCommunity, removeCommunity, prependASPath, setLocalPreference, setMED and setNextHop, \
                      and each in an operation of its own";
        fault(faults, at, message, remedy);
    }
    if let Some(prepend) = &operation.prepend_as_path {
        let at = format!("{at}.prependASPath.prefix");
        if prepend.prefix.is_empty() {
            fault(faults, &at, "no AS number is listed", "list 1 to 10");
        }
        too_many(faults, &at, prepend.prefix.len(), AS_PATH_MAX, "AS numbers");
    }
    if let Some(next_hop) = operation.set_next_hop.map(|set| set.value.0)
        && Family::of_address(next_hop) != family
    {
        let message = format!("{next_hop} is not of the family of the rule's prefixes");
        let remedy = "write an IPv4 address in importV4 and exportV4, an IPv6 one in importV6 and exportV6";
        fault(faults, &format!("{at}.setNextHop.value"), message, remedy);
    }
}

/// Aggregates that overlap with a range of Services' addresses. They are unreachable in the kernel where no other route is, and the
/// route of a local socket is looked up before a service proxy sees the packet.
pub(super) fn aggregates(parsed: &[Parsed]) -> Vec<DocumentError> {
    let configurations = || {
        parsed.iter().filter_map(|object| match &object.object {
            Object::BgpConfiguration(spec) => Some((object, spec)),
            _ => None,
        })
    };
    let ranges: Vec<IpNet> = configurations()
        .flat_map(|(_, spec)| super::services::lists(spec))
        .flat_map(|(_, ranges)| ranges.iter().map(|range| range.cidr.net()))
        .collect();
    let mut errors = Vec::new();
    for (object, spec) in configurations() {
        for (index, advertisement) in spec.prefix_advertisements.iter().flatten().enumerate() {
            let net = advertisement.cidr.net();
            let overlaps = |range: &&IpNet| net.contains(*range) || range.contains(&net);
            if let Some(range) = ranges.iter().find(overlaps).filter(|_| advertisement.aggregate.is_some()) {
                let message = format!("{net} overlaps with {range}, a range of Services' addresses");
                let remedy = "leave aggregate out: serviceAggregation announces such ranges whole";
                let field = format!("spec.prefixAdvertisements[{index}].aggregate");
                errors.push(object.error(&field, Invalid::new(message, remedy)));
            }
        }
    }
    errors
}

/// Names of communities that no BGPConfiguration gives.
pub(super) fn dangling(object: &Parsed, cluster: &Cluster) -> Vec<DocumentError> {
    let mut errors = Vec::new();
    let mut look = |community: &CommunityRef, field: String| {
        if cluster.community(community).is_none() {
            let message = format!("no community is named \"{community}\"");
            let remedy = "add it to communities of the BGPConfiguration default, or correct the name";
            errors.push(object.error(&field, Invalid::new(message, remedy)));
        }
    };
    match &object.object {
        Object::BgpFilter(spec) => {
            for (list, rules, _) in lists(spec) {
                for (index, rule) in rules.iter().enumerate() {
                    let at = format!("spec.{list}[{index}]");
                    let values = rule.communities.iter().flat_map(|c| &c.values).enumerate();
                    values.for_each(|(i, value)| look(value, format!("{at}.communities.values[{i}]")));
                    for (i, operation) in rule.operations.iter().enumerate() {
                        for (name, operation) in [
                            ("addCommunity", &operation.add_community),
                            ("removeCommunity", &operation.remove_community),
                        ] {
                            let Some(operation) = operation else { continue };
                            look(&operation.value, format!("{at}.operations[{i}].{name}.value"));
                        }
                    }
                }
            }
        }
        Object::BgpConfiguration(spec) => {
            for (index, advertisement) in spec.prefix_advertisements.iter().flatten().enumerate() {
                for (i, community) in advertisement.communities.iter().enumerate() {
                    look(community, format!("spec.prefixAdvertisements[{index}].communities[{i}]"));
                }
            }
        }
        _ => {}
    }
    errors
}
