//! What becomes of packets to Services that no service proxy took.

use std::collections::BTreeSet;

use ipnet::{Ipv4Net, Ipv6Net};

use super::{SERVICES_TABLE, aggregate_v4, aggregate_v6, line};

/// The counter of rejected IPv4 packets.
pub(super) const REJECTED_V4: &str = "rejected-ipv4";
/// The counter of rejected IPv6 packets.
pub(super) const REJECTED_V6: &str = "rejected-ipv6";

/// The ranges of Services' addresses. A packet that is forwarded to such an address has met no service proxy, which would have given it
/// another destination; sent on, it would go round between this node and its router.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceRanges {
    /// IPv4; they may overlap.
    pub v4: BTreeSet<Ipv4Net>,
    /// IPv6; they may overlap.
    pub v6: BTreeSet<Ipv6Net>,
}

impl ServiceRanges {
    /// Whether there is none: then there is no table for them.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// Adds to a text for `nft -f` what leads to this, in place, so that the counters keep their values.
    pub(super) fn render(&self, text: &mut String) {
        if self.is_empty() {
            return delete(text);
        }
        let mut rules = String::new();
        if !self.v4.is_empty() {
            let ranges = listed(&aggregate_v4(&self.v4));
            let verdict = format!("counter name \"{REJECTED_V4}\" reject with icmp type host-unreachable");
            line(&mut rules, format_args!("\t\tip daddr {ranges} {verdict}"));
        }
        if !self.v6.is_empty() {
            let ranges = listed(&aggregate_v6(&self.v6));
            let verdict = format!("counter name \"{REJECTED_V6}\" reject with icmpv6 type addr-unreachable");
            line(&mut rules, format_args!("\t\tip6 daddr {ranges} {verdict}"));
        }
        // After the filters of a service proxy: it drops in silence what it can answer again in a moment, and clients try again.
        line(
            text,
            format_args!(
                "table inet {SERVICES_TABLE} {{\n\
                 \tcounter {REJECTED_V4} {{ }}\n\
                 \tcounter {REJECTED_V6} {{ }}\n\
                 \tchain forward {{ type filter hook forward priority filter + 10; policy accept; }}\n\
                 }}\n\
                 flush chain inet {SERVICES_TABLE} forward\n\
                 table inet {SERVICES_TABLE} {{\n\tchain forward {{\n{rules}\t}}\n}}"
            ),
        );
    }
}

/// Adds to a text for `nft -f` what takes the table away, whatever it is.
pub(super) fn delete(text: &mut String) {
    // A table must be there to be deleted.
    line(text, format_args!("table inet {SERVICES_TABLE} {{ }}\ndelete table inet {SERVICES_TABLE}"));
}

fn listed<Net: ToString>(ranges: &[Net]) -> String {
    let ranges: Vec<String> = ranges.iter().map(ToString::to_string).collect();
    format!("{{ {} }}", ranges.join(", "))
}
