//! Weft's tables in nftables: the guard against forged sources, the translation of pods' sources on the way out, and the end of
//! packets to Services that nobody answers.
//!
//! [`apply_guard`] and [`Ruleset::apply`] hand a text to one `nft -f -` each, which the kernel takes as a whole or not at
//! all: a kernel without NAT has the guard nevertheless. [`list`] reads back what is there, for comparison and for the counters; [`Watch`] hears when
//! somebody else changes it.
//!
//! - `inet weft`: a packet from a pod's link is dropped, before connection tracking, unless the route back to its
//!   source leaves by that link. The rule is the same for all pods, so that adding one touches no nftables. The table is
//!   changed in place: its counters go on. [`is_guarded`] asks whether it is there with its rules, and needs no program.
//! - `inet weft-nat`: pods of given pools speak to the outside with the node's address.
//! - `inet weft-services`: what is forwarded to an address of Services' is rejected. It is changed in place too.

use std::collections::BTreeSet;
use std::fmt::{Display, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

mod list;
mod query;
mod run;
mod services;
mod watch;

pub use list::{Installed, Packets, Table, list};
pub use query::is_guarded;
pub use run::Error;
pub use services::ServiceRanges;
pub use watch::Watch;

/// The guard, of family `inet`. It stays when the daemon stops.
pub const GUARD_TABLE: &str = "weft";
/// The translation of sources, of family `inet`. It is there only while a pool asks for it.
pub const NAT_TABLE: &str = "weft-nat";
/// The rejection of packets to Services, of family `inet`. It is there only while there are ranges of Services.
pub const SERVICES_TABLE: &str = "weft-services";

/// `NFNL_SUBSYS_NFTABLES` (linux/netfilter/nfnetlink.h), the upper half of a message's type.
const SUBSYSTEM: u16 = 10;

/// The counter of IPv4 packets with a forged source.
const SPOOFED_V4: &str = "spoofed-ipv4";
/// The counter of IPv6 packets with a forged source.
const SPOOFED_V6: &str = "spoofed-ipv6";

/// What Weft wants of nftables besides the guard, which it always wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// IPv4 pods' way out.
    pub nat_v4: Option<Nat<Ipv4Addr, Ipv4Net>>,
    /// IPv6 pods' way out.
    pub nat_v6: Option<Nat<Ipv6Addr, Ipv6Net>>,
    /// Where packets to Services end that nobody answers.
    pub services: ServiceRanges,
}

/// Whose sources are translated in one family. Prefixes may overlap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nat<Addr, Net> {
    /// The source that the outside sees: an address of this node.
    pub source: Addr,
    /// The sources that are translated.
    pub pools: BTreeSet<Net>,
    /// The destinations that see the pod's own source nevertheless.
    pub excluded: BTreeSet<Net>,
}

impl Ruleset {
    /// Puts the translation and the rejection in place, or takes away what is not wanted, in the network namespace of the
    /// calling thread, whatever stands there.
    ///
    /// # Errors
    /// As [`apply_guard`].
    pub fn apply(&self) -> Result<(), Error> {
        let text = self.render();
        match run::nft(&["-f", "-"], &text) {
            // As with the guard.
            Err(Error::Refused { .. }) => {
                let mut anew = String::new();
                services::delete(&mut anew);
                run::nft(&["-f", "-"], &(anew + &text)).map(drop)
            }
            done => done.map(drop),
        }
    }

    /// Whether any source is translated: without it there is no table for that.
    #[must_use]
    pub fn translates(&self) -> bool {
        self.nat_v4.is_some() || self.nat_v6.is_some()
    }

    /// The text for `nft -f`: one transaction that leads from whatever tables of these names there were to this.
    fn render(&self) -> String {
        let mut text = String::new();
        self.services.render(&mut text);
        // A table must be there to be deleted.
        line(&mut text, format_args!("table inet {NAT_TABLE} {{ }}"));
        line(&mut text, format_args!("delete table inet {NAT_TABLE}"));
        if !self.translates() {
            return text;
        }
        let (mut sets, mut rules) = (String::new(), String::new());
        if let Some(nat) = &self.nat_v4 {
            let [pools, excluded] = [&nat.pools, &nat.excluded].map(|nets| elements(&aggregate_v4(nets)));
            translation(&mut sets, &mut rules, ("ip", "ipv4"), nat.source, [&pools, &excluded]);
        }
        if let Some(nat) = &self.nat_v6 {
            let [pools, excluded] = [&nat.pools, &nat.excluded].map(|nets| elements(&aggregate_v6(nets)));
            translation(&mut sets, &mut rules, ("ip6", "ipv6"), nat.source, [&pools, &excluded]);
        }
        line(
            &mut text,
            format_args!(
                "table inet {NAT_TABLE} {{\n{sets}\tchain postrouting {{\n\
                 \t\ttype nat hook postrouting priority srcnat; policy accept;\n{rules}\t}}\n}}"
            ),
        );
        text
    }
}

/// Puts the guard in place, in the network namespace of the calling thread, whatever stands there.
///
/// # Errors
/// `nft` is not there, does not end in time, or the kernel refuses. Then everything is as before.
pub fn apply_guard() -> Result<(), Error> {
    let text = guard();
    match run::nft(&["-f", "-"], &text) {
        // Somebody made a table of this name with other hooks, which cannot be changed in place.
        Err(Error::Refused { .. }) => {
            let anew = format!("table inet {GUARD_TABLE} {{ }}\ndelete table inet {GUARD_TABLE}\n{text}");
            run::nft(&["-f", "-"], &anew).map(drop)
        }
        done => done.map(drop),
    }
}

/// Takes all tables away, in the network namespace of the calling thread, and gives the names of those that were there.
///
/// # Errors
/// As [`apply_guard`]. A machine without `nft` has no tables of ours, which is no error.
pub fn delete() -> Result<Vec<&'static str>, Error> {
    let present = match list::tables() {
        Err(Error::NotInstalled) => return Ok(Vec::new()),
        tables => tables?,
    };
    let ours: Vec<_> =
        [GUARD_TABLE, NAT_TABLE, SERVICES_TABLE].into_iter().filter(|name| present.contains(*name)).collect();
    let text: String = ours.iter().map(|name| format!("delete table inet {name}\n")).collect();
    if !ours.is_empty() {
        run::nft(&["-f", "-"], &text)?;
    }
    Ok(ours)
}

/// How many rules [`guard`] writes.
const GUARD_RULES: usize = 3;

/// Chains are declared, emptied and filled, rather than deleted with their table: so the counters keep their values.
fn guard() -> String {
    let declaration = format!(
        "table inet {GUARD_TABLE} {{\n\
         \tcounter {SPOOFED_V4} {{ }}\n\
         \tcounter {SPOOFED_V6} {{ }}\n\
         \tchain prerouting {{ type filter hook prerouting priority raw; policy accept; }}\n\
         \tchain forward {{ type filter hook forward priority filter; policy accept; }}\n\
         }}\n"
    );
    // Neighbour discovery speaks with :: and link-local sources, which no route leads back to; it is never forwarded.
    let rules = format!(
        "table inet {GUARD_TABLE} {{\n\
         \tchain prerouting {{\n\
         \t\tiifname \"weft*\" meta nfproto ipv4 fib saddr . iif oif missing counter name \"{SPOOFED_V4}\" drop\n\
         \t\tiifname \"weft*\" ip6 saddr != {{ ::, fe80::/10 }} fib saddr . iif oif missing \
         counter name \"{SPOOFED_V6}\" drop\n\
         \t}}\n\
         \tchain forward {{\n\
         \t\tiifname \"weft*\" ip6 saddr {{ ::, fe80::/10 }} counter name \"{SPOOFED_V6}\" drop\n\
         \t}}\n\
         }}\n"
    );
    format!(
        "{declaration}flush chain inet {GUARD_TABLE} prerouting\nflush chain inet {GUARD_TABLE} forward\n{rules}"
    )
}

/// Writes the sets and the rule of one family, called `(protocol, suffix)` in nftables.
fn translation(
    sets: &mut String,
    rules: &mut String,
    (protocol, family): (&str, &str),
    source: impl Display,
    [pools, excluded]: [&str; 2],
) {
    for (name, elements) in [("pools", pools), ("excluded", excluded)] {
        line(sets, format_args!("\tset {name}-{family} {{ type {family}_addr; flags interval;{elements} }}"));
    }
    line(
        rules,
        format_args!(
            "\t\t{protocol} saddr @pools-{family} {protocol} daddr != @excluded-{family} snat {protocol} to {source}"
        ),
    );
}

/// The elements of a set; nftables has no word for none.
fn elements<Net: Display>(nets: &[Net]) -> String {
    if nets.is_empty() {
        return String::new();
    }
    let nets: Vec<_> = nets.iter().map(ToString::to_string).collect();
    format!(" elements = {{ {} }};", nets.join(", "))
}

/// Intervals of a set must not overlap.
fn aggregate_v4(nets: &BTreeSet<Ipv4Net>) -> Vec<Ipv4Net> {
    Ipv4Net::aggregate(&nets.iter().copied().collect())
}

fn aggregate_v6(nets: &BTreeSet<Ipv6Net>) -> Vec<Ipv6Net> {
    Ipv6Net::aggregate(&nets.iter().copied().collect())
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{arguments}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets<Net: std::str::FromStr + Ord>(texts: &[&str]) -> BTreeSet<Net> {
        texts.iter().filter_map(|text| text.parse().ok()).collect()
    }

    #[test]
    fn without_nat_there_is_no_table() {
        assert_eq!(
            Ruleset::default().render(),
            "table inet weft-services { }\ndelete table inet weft-services\ntable inet weft-nat { }\ndelete table inet weft-nat\n"
        );
    }

    #[test]
    fn overlapping_prefixes_become_intervals_that_do_not() {
        let nat = Nat {
            source: Ipv4Addr::new(192, 0, 2, 1),
            pools: nets(&["10.244.0.0/16"]),
            excluded: nets(&["10.244.0.0/16", "10.244.1.0/24", "224.0.0.0/4"]),
        };
        let text = Ruleset { nat_v4: Some(nat), ..Ruleset::default() }.render();
        assert!(text.contains("elements = { 10.244.0.0/16, 224.0.0.0/4 };"), "{text}");
        assert!(
            text.contains("ip saddr @pools-ipv4 ip daddr != @excluded-ipv4 snat ip to 192.0.2.1"),
            "{text}"
        );
        assert!(!text.contains("ipv6_addr"), "{text}");
    }

    #[test]
    fn no_exclusion_is_an_empty_set() {
        let source = Ipv6Addr::LOCALHOST;
        let nat = Nat { source, pools: nets(&["fd00::/64"]), excluded: BTreeSet::new() };
        let text = Ruleset { nat_v6: Some(nat), ..Ruleset::default() }.render();
        assert!(text.contains("set excluded-ipv6 { type ipv6_addr; flags interval; }"), "{text}");
    }
}
