//! Routes whose packets a peer may have dropped here (RFC 7999).

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use weft_bgp::policy::{BLACKHOLE, Community, DISCARD, NO_ADVERTISE, Operation, PrefixRange, Rule, Verdict};
use weft_bgp::types::{Family, Reason};

use super::policy::{any_of, everything, exactly, inside, reject};
use crate::api::Cidr;

/// What is said of a peer's routes with BLACKHOLE before anything else is, as its BGPPeer has `blackholeCIDRs`. `kept` is what no peer
/// may take away: blocks and addresses of ours, addresses of nodes and of peers, ranges of Services.
pub(super) fn rules(granted: &[Cidr], kept: &[IpNet]) -> Vec<Rule> {
    let of_blackhole = |rule: Rule| Rule { communities: vec![Community::Standard(BLACKHOLE)], ..rule };
    let mut rules = Vec::new();
    for family in Family::ALL {
        let ranges = |nets: &mut dyn Iterator<Item = IpNet>| -> Vec<PrefixRange> {
            nets.filter(|net| Family::of(net) == family).map(inside).collect()
        };
        let granted = ranges(&mut granted.iter().map(|cidr| cidr.net()));
        if !granted.is_empty() {
            let around = granted.iter().flat_map(|range| kept.iter().flat_map(|net| around(net, &range.net)));
            let around: BTreeSet<IpNet> = around.collect();
            let kept: Vec<PrefixRange> = ranges(&mut kept.iter().copied())
                .into_iter()
                .chain(around.into_iter().map(exactly))
                .collect();
            if !kept.is_empty() {
                let text = "it has BLACKHOLE, and lies in or covers a block of this node, an address of a node or of a peer, or a range of Services";
                rules.push(reject(any_of(kept), Reason::new("blackhole-own", text)));
            }
            let operations = [
                Operation::SetNextHop(IpAddr::V6(DISCARD)),
                Operation::AddCommunity(Community::Standard(NO_ADVERTISE)),
            ];
            let verdict = Verdict::AcceptWith(operations.into());
            rules.push(Rule { prefixes: Some(any_of(granted)), ..Rule::new(verdict) });
        }
        let text = "it has BLACKHOLE, and lies in none of the blackholeCIDRs of the BGPPeer";
        rules.push(reject(everything(family), Reason::new("blackhole-not-granted", text)));
    }
    rules.into_iter().map(of_blackhole).collect()
}

/// The prefixes within a granted one that cover a net.
fn around(net: &IpNet, granted: &IpNet) -> impl Iterator<Item = IpNet> + use<> {
    let lengths = if granted.contains(net) { granted.prefix_len()..net.prefix_len() } else { 0..0 };
    let address = net.addr();
    lengths.filter_map(move |length| Some(IpNet::new(address, length).ok()?.trunc()))
}
