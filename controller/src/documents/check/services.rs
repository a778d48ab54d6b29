//! Ranges of Services' addresses: what they must not be, and what they must not overlap with.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::spec::{Faults, fault};
use super::{Parsed, place};
use crate::api::json::DocumentError;
use crate::api::{AllowedUse, BGPConfigurationSpec, Invalid, SERVICE_RANGES_MAX, ServiceRange};
use crate::cluster::Object;

/// A shorter prefix is no range of Services' addresses, and would draw in and reject what is none of theirs.
const SHORTEST: u8 = 8;

/// The longest time for which an announcement may wait.
const SETTLE_MAX: Duration = Duration::from_secs(600);

/// This network, loopback, link-local, multicast and reserved (RFC 6890).
const NEVER: [IpNet; 8] = [
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 8)),
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8)),
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16)),
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 3)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 128)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8)),
];

/// The lists of ranges, each with the name of its field.
pub(super) fn lists(spec: &BGPConfigurationSpec) -> [(&'static str, &[ServiceRange]); 3] {
    [
        ("serviceClusterIPs", spec.service_cluster_ips.as_deref().unwrap_or_default()),
        ("serviceExternalIPs", spec.service_external_ips.as_deref().unwrap_or_default()),
        ("serviceLoadBalancerIPs", spec.service_load_balancer_ips.as_deref().unwrap_or_default()),
    ]
}

fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(other) || other.contains(one)
}

/// The faults of one BGPConfiguration by itself.
pub(super) fn configuration(faults: &mut Faults, spec: &BGPConfigurationSpec) {
    for (field, ranges) in lists(spec) {
        if ranges.len() > SERVICE_RANGES_MAX {
            let message = format!("{field} has {} ranges", ranges.len());
            let remedy = "write 64 at most; put ranges together that lie side by side";
            fault(faults, field, message, remedy);
        }
        let mut seen: Vec<IpNet> = Vec::new();
        for (index, range) in ranges.iter().take(SERVICE_RANGES_MAX).enumerate() {
            let net = range.cidr.net();
            let at = format!("{field}[{index}].cidr");
            if net.prefix_len() < SHORTEST {
                let message = format!("{net} is too wide for a range of Services' addresses");
                fault(
                    faults,
                    &at,
                    message,
                    "write a prefix of length 8 or more, of addresses of Services only",
                );
            } else if let Some(never) = NEVER.iter().find(|never| overlap(never, &net)) {
                let message = format!("{net} overlaps with {never}, which is routed nowhere");
                fault(faults, &at, message, "write a range of unicast addresses");
            } else if let Some(other) = seen.iter().find(|other| overlap(other, &net)) {
                fault(
                    faults,
                    &at,
                    format!("{net} overlaps with {other} of the same list"),
                    "keep one of the two",
                );
            }
            seen.push(net);
        }
    }
    if spec.service_settle_time.is_some_and(|time| time.0 > SETTLE_MAX) {
        fault(faults, "serviceSettleTime", "the time is longer than 10m", "write 0s to 10m");
    }
}

/// Ranges that overlap with what is no Service's: pools, blocks, nodes' addresses. One error a range and kind of object.
pub(super) fn ranges(parsed: &[Parsed]) -> Vec<DocumentError> {
    let mut errors = Vec::new();
    for object in parsed {
        let Object::BgpConfiguration(spec) = &object.object else { continue };
        for (field, ranges) in lists(spec) {
            for (index, range) in ranges.iter().enumerate() {
                let at = format!("spec.{field}[{index}].cidr");
                let in_the_way = in_the_way(range.cidr.net(), parsed, field == "serviceClusterIPs");
                errors.extend(in_the_way.into_values().map(|message| {
                    let remedy =
                        "give Services a range of their own: what no Service answers in it is rejected";
                    object.error(&at, Invalid::new(message, remedy))
                }));
            }
        }
    }
    errors
}

/// Pools for Services that overlap with what pods or nodes have.
pub(super) fn pools(parsed: &[Parsed]) -> Vec<DocumentError> {
    let mut errors = Vec::new();
    for object in parsed {
        let Object::IpPool(spec) = &object.object else { continue };
        if !spec.is_for(AllowedUse::LoadBalancer) {
            continue;
        }
        let mut in_the_way = in_the_way(spec.cidr.net(), parsed, false);
        // Pools overlap with no pool whatever they are for.
        in_the_way.remove(POOL);
        errors.extend(in_the_way.into_values().map(|message| {
            let remedy = "give Services a range of their own";
            object.error("spec.cidr", Invalid::new(message, remedy))
        }));
    }
    errors
}

const POOL: &str = "the cidr";

/// The first object of each kind that a range overlaps with, in words. Pools for LoadBalancer addresses are in the way of ranges for
/// other addresses only.
fn in_the_way(net: IpNet, parsed: &[Parsed], of_cluster_ips: bool) -> BTreeMap<&'static str, String> {
    let mut found = BTreeMap::new();
    for object in parsed {
        let mut add = |what: &'static str, shown: String| {
            found.entry(what).or_insert_with(|| {
                format!("{net} overlaps with {what} {shown} of {}, {}", object.title(), place(object))
            });
        };
        match &object.object {
            Object::IpPool(spec)
                if overlap(&spec.cidr.net(), &net)
                    && (of_cluster_ips || spec.is_for(AllowedUse::Workload)) =>
            {
                add(POOL, spec.cidr.to_string());
            }
            Object::IpBlock(spec) if overlap(&spec.cidr.net(), &net) => {
                add("the block", spec.cidr.to_string());
            }
            Object::Node(node) => {
                if let Some(cidr) = node.pod_cidrs.iter().find(|cidr| overlap(cidr, &net)) {
                    add("the podCIDR", cidr.to_string());
                }
                if let Some(address) = node.addresses.iter().find(|address| net.contains(*address)) {
                    add("the address", address.to_string());
                }
            }
            _ => {}
        }
    }
    found
}
