//! A policy made ready to be asked once per route.

use std::sync::Arc;

use hashbrown::HashMap;
use ipnet::IpNet;
use rustc_hash::FxBuildHasher;
use smallvec::SmallVec;

use super::{Operations, Policy, PrefixMatch, PrefixRange, RouteSource, Verdict};
use crate::types::{Family, PeerType, Reason};
use crate::wire::attributes::PathAttributes;

/// What a policy looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject<'a> {
    /// The prefix.
    pub prefix: &'a IpNet,
    /// Where the route comes from.
    pub source: RouteSource,
    /// The kind of session that the policy stands on.
    pub peer_type: PeerType,
    /// The attributes, before anything is done to them.
    pub attributes: &'a PathAttributes,
}

/// A [`Policy`] with its prefix lists indexed: asking costs one hash lookup per rule and distinct length of its ranges, however
/// many ranges there are, and allocates nothing.
#[derive(Clone, Debug)]
pub struct CompiledPolicy {
    policy: Arc<Policy>,
    /// As many as there are rules.
    prefixes: Vec<Option<PrefixSet>>,
}

impl CompiledPolicy {
    /// Indexes a policy.
    #[must_use]
    pub fn new(policy: Arc<Policy>) -> Self {
        let prefixes = policy.rules.iter().map(|r| r.prefixes.as_ref().map(PrefixSet::new)).collect();
        Self { policy, prefixes }
    }

    /// What was compiled.
    #[must_use]
    pub fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    /// Whether the route passes, and what is done to its attributes then: the verdict of the first rule that matches it.
    ///
    /// # Errors
    /// Why it does not pass.
    pub fn evaluate(&self, subject: Subject<'_>) -> Result<Option<&Operations>, &Reason> {
        let attributes = subject.attributes;
        let matches = self.policy.rules.iter().zip(&self.prefixes).find(|(rule, prefixes)| {
            rule.source.is_none_or(|s| s.includes(subject.source))
                && rule.peer_type.is_none_or(|t| t == subject.peer_type)
                && prefixes.as_ref().is_none_or(|p| p.matches(subject.prefix))
                && rule.communities.iter().all(|community| community.is_on(attributes))
                && (rule.as_path_prefix.is_empty() || attributes.as_path.begins_with(&rule.as_path_prefix))
                && (rule.not_originated_by.is_empty()
                    || attributes.as_path.origin().is_some_and(|asn| !rule.not_originated_by.contains(&asn)))
        });
        match matches.map(|(rule, _)| &rule.verdict) {
            Some(Verdict::Accept) => Ok(None),
            Some(Verdict::AcceptWith(operations)) => Ok(Some(operations)),
            Some(Verdict::Reject(reason)) => Err(reason),
            Some(Verdict::AcceptVia(next_hops, reason)) => {
                let allowed = next_hops.get(&subject.prefix.trunc());
                if allowed.is_some_and(|a| a.contains(&attributes.next_hop)) { Ok(None) } else { Err(reason) }
            }
            None => Err(&self.policy.unmatched),
        }
    }
}

/// The bounds of the lengths that match under one covering prefix; nearly always one pair.
type Lengths = SmallVec<[(u8, u8); 1]>;

/// The ranges of one family.
#[derive(Clone, Debug, Default)]
struct FamilyRanges {
    /// By covering prefix: what [`first_bits`] makes of its address, and its length.
    lengths: HashMap<(u128, u8), Lengths, FxBuildHasher>,
    /// The distinct lengths of the covering prefixes, ascending.
    covers: SmallVec<[u8; 4]>,
}

impl FamilyRanges {
    fn add(&mut self, range: &PrefixRange) {
        let cover = range.net.prefix_len();
        let net = (first_bits(bits(&range.net), cover), cover);
        self.lengths.entry(net).or_default().push((range.min_len, range.max_len));
        if let Err(at) = self.covers.binary_search(&cover) {
            self.covers.insert(at, cover);
        }
    }

    fn contain(&self, prefix: &IpNet) -> bool {
        let (bits, len) = (bits(prefix), prefix.prefix_len());
        self.covers.iter().take_while(|cover| **cover <= len).any(|cover| {
            let lengths = self.lengths.get(&(first_bits(bits, *cover), *cover));
            lengths.is_some_and(|l| l.iter().any(|(min, max)| (*min..=*max).contains(&len)))
        })
    }
}

/// The address of a prefix, the first bit foremost.
fn bits(prefix: &IpNet) -> u128 {
    match prefix {
        IpNet::V4(prefix) => u128::from(prefix.addr().to_bits()) << 96,
        IpNet::V6(prefix) => prefix.addr().to_bits(),
    }
}

/// So many of its bits, those octets last that prefixes differ in: the hash makes most of these.
fn first_bits(bits: u128, count: u8) -> u128 {
    (bits & !u128::MAX.checked_shr(count.into()).unwrap_or(0)).swap_bytes()
}

#[derive(Clone, Debug)]
struct PrefixSet {
    ipv4: Option<FamilyRanges>,
    ipv6: Option<FamilyRanges>,
    negated: bool,
}

impl PrefixSet {
    fn new(matches: &PrefixMatch) -> Self {
        let mut set = Self { ipv4: None, ipv6: None, negated: matches.negated };
        for range in &matches.ranges {
            let ranges = match Family::of(&range.net) {
                Family::Ipv4Unicast => &mut set.ipv4,
                Family::Ipv6Unicast => &mut set.ipv6,
            };
            ranges.get_or_insert_default().add(range);
        }
        set
    }

    // Not inlined: what is read of the prefix is read where it is needed alone.
    #[inline(never)]
    fn matches(&self, prefix: &IpNet) -> bool {
        let ranges = match Family::of(prefix) {
            Family::Ipv4Unicast => &self.ipv4,
            Family::Ipv6Unicast => &self.ipv6,
        };
        ranges.as_ref().is_some_and(|r| r.contain(prefix) != self.negated)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::policy::{Community, Operation, Rule};
    use crate::rib::samples;
    use crate::types::Asn;
    use crate::wire::attributes::{AsPath, Segment, SegmentKind};
    use proptest::prelude::*;

    const OWN: [u8; 4] = [192, 0, 2, 1];

    fn range(net: &str, min_len: u8, max_len: u8) -> PrefixRange {
        PrefixRange { net: net.parse().unwrap(), min_len, max_len }
    }

    fn rule(prefixes: Option<PrefixMatch>, verdict: Verdict) -> Rule {
        Rule { prefixes, ..Rule::new(verdict) }
    }

    fn compiled(rules: Vec<Rule>) -> CompiledPolicy {
        CompiledPolicy::new(Arc::new(Policy { rules, unmatched: Reason::new("no-match", "no rule matches") }))
    }

    fn code(policy: &CompiledPolicy, prefix: &str) -> String {
        let attributes = PathAttributes { next_hop: OWN.into(), ..samples::attributes() };
        let subject = Subject {
            prefix: &prefix.parse().unwrap(),
            source: RouteSource::RemotePeers,
            peer_type: PeerType::External,
            attributes: &attributes,
        };
        policy.evaluate(subject).map_or_else(|r| r.code.to_string(), |_| "accept".into())
    }

    #[test]
    fn the_first_match_decides_and_no_match_rejects() {
        let policy = compiled(vec![
            rule(
                Some(PrefixMatch { ranges: vec![range("10.1.0.0/16", 16, 32)], negated: false }),
                Verdict::Reject(Reason::new("own-block", "ours")),
            ),
            rule(
                Some(PrefixMatch { ranges: vec![range("10.0.0.0/8", 8, 26)], negated: false }),
                Verdict::Accept,
            ),
        ]);
        assert_eq!(code(&policy, "10.1.2.0/24"), "own-block");
        assert_eq!(code(&policy, "10.2.2.0/24"), "accept");
        assert_eq!(code(&policy, "10.0.0.0/8"), "accept");
        assert_eq!(code(&policy, "10.2.2.0/27"), "no-match");
        assert_eq!(code(&policy, "0.0.0.0/0"), "no-match");
        assert_eq!(code(&policy, "2001:db8::/32"), "no-match");
    }

    #[test]
    fn negation_speaks_only_of_the_families_it_names() {
        let policy = compiled(vec![rule(
            Some(PrefixMatch { ranges: vec![range("10.0.0.0/8", 8, 32)], negated: true }),
            Verdict::Accept,
        )]);
        assert_eq!(code(&policy, "11.0.0.0/8"), "accept");
        assert_eq!(code(&policy, "10.0.0.0/8"), "no-match");
        assert_eq!(code(&policy, "2001:db8::/32"), "no-match");
        let empty =
            compiled(vec![rule(Some(PrefixMatch { ranges: vec![], negated: true }), Verdict::Accept)]);
        assert_eq!(code(&empty, "10.0.0.0/8"), "no-match");
    }

    #[test]
    fn source_and_peer_type_are_conditions_too() {
        let policy = compiled(vec![Rule {
            source: Some(RouteSource::Local),
            peer_type: Some(PeerType::Internal),
            ..Rule::new(Verdict::Accept)
        }]);
        let prefix = "10.0.0.0/8".parse().unwrap();
        for (source, peer_type, passes) in [
            (RouteSource::Local, PeerType::Internal, true),
            (RouteSource::Local, PeerType::External, false),
            (RouteSource::RemotePeers, PeerType::Internal, false),
        ] {
            let attributes = samples::attributes();
            let subject = Subject { prefix: &prefix, source, peer_type, attributes: &attributes };
            assert_eq!(policy.evaluate(subject).is_ok(), passes);
        }
    }

    #[test]
    fn what_is_reflected_is_a_remote_peers_too_and_not_the_other_way_round() {
        let of = |source| Rule { source: Some(source), ..rule(None, Verdict::Accept) };
        let passes = |rule: RouteSource, source| {
            let (prefix, attributes) = ("10.0.0.0/8".parse().unwrap(), samples::attributes());
            let subject =
                Subject { prefix: &prefix, source, peer_type: PeerType::Internal, attributes: &attributes };
            compiled(vec![of(rule)]).evaluate(subject).is_ok()
        };
        assert!(passes(RouteSource::RemotePeers, RouteSource::Reflected));
        assert!(passes(RouteSource::Reflected, RouteSource::Reflected));
        assert!(!passes(RouteSource::Reflected, RouteSource::RemotePeers));
        assert!(!passes(RouteSource::Local, RouteSource::Reflected));
    }

    #[test]
    fn a_route_that_must_go_by_certain_next_hops_goes_by_no_other() {
        let next_hops = [("10.1.0.0/26", IpAddr::from(OWN)), ("10.2.0.0/26", IpAddr::from([192, 0, 2, 2]))]
            .map(|(net, hop)| (net.parse().unwrap(), [hop].into()));
        let reason = Reason::new("duplicate-origin", "another's");
        let policy =
            compiled(vec![rule(None, Verdict::AcceptVia(Arc::new(next_hops.into_iter().collect()), reason))]);
        for (prefix, said) in [
            ("10.1.0.0/26", "accept"),
            ("10.1.0.5/26", "accept"),
            ("10.2.0.0/26", "duplicate-origin"),
            ("10.1.0.0/27", "duplicate-origin"),
            ("10.3.0.0/26", "duplicate-origin"),
        ] {
            assert_eq!(code(&policy, prefix), said, "{prefix}");
        }
    }

    /// A rule's conditions in small numbers, so that some match.
    fn conditions() -> impl Strategy<Value = Rule> {
        let community = prop_oneof![
            (0u32..3).prop_map(Community::Standard),
            (0u32..2).prop_map(|n| Community::Large([n, 0, 0])),
            (0u8..2).prop_map(|n| Community::Extended([0, 2, 0, 0, 0, 0, 0, n])),
        ];
        let sources =
            prop::sample::select(vec![None, Some(RouteSource::Local), Some(RouteSource::RemotePeers)]);
        let peer_types = prop::sample::select(vec![None, Some(PeerType::External), Some(PeerType::Internal)]);
        let prefixes = prop::option::of((8u8..12, any::<bool>()).prop_map(|(len, negated)| PrefixMatch {
            ranges: vec![range("10.0.0.0/8", len, len + 8)],
            negated,
        }));
        let path = prop::collection::vec((1u32..3).prop_map(Asn), 0..3);
        let origins = prop::collection::vec((1u32..4).prop_map(Asn), 0..3);
        let all = (prefixes, prop::collection::vec(community, 0..3), path, origins, sources, peer_types);
        all.prop_map(|(prefixes, communities, as_path_prefix, not_originated_by, source, peer_type)| Rule {
            prefixes,
            communities,
            as_path_prefix,
            not_originated_by,
            source,
            peer_type,
            verdict: Verdict::Accept,
        })
    }

    /// Whether a rule matches, told once more without sets, indices or early ends.
    fn naive(rule: &Rule, subject: Subject<'_>) -> bool {
        let a = subject.attributes;
        let sequence: Vec<Asn> = a.as_path.0.iter().flat_map(|segment| segment.asns.clone()).collect();
        let carried = rule.communities.iter().filter(|community| match community {
            Community::Standard(c) => a.communities.contains(c),
            Community::Large(c) => a.large_communities.contains(c),
            Community::Extended(c) => a.ext_communities.contains(c),
        });
        let bits = subject.prefix.prefix_len();
        [
            rule.prefixes.as_ref().is_none_or(|p| {
                p.ranges
                    .iter()
                    .any(|r| r.net.contains(subject.prefix) && r.min_len <= bits && bits <= r.max_len)
                    != p.negated
            }),
            carried.count() == rule.communities.len(),
            sequence.starts_with(&rule.as_path_prefix),
            rule.not_originated_by.is_empty()
                || sequence.split_last().is_some_and(|(last, before)| {
                    !before.contains(last) && !rule.not_originated_by.contains(last)
                }),
            rule.source.is_none_or(|source| source == subject.source),
            rule.peer_type.is_none_or(|peer_type| peer_type == subject.peer_type),
        ]
        .into_iter()
        .all(|holds| holds)
    }

    proptest! {
        /// The first rule of which all conditions hold decides, and what it does is what is done.
        #[test]
        fn a_policy_agrees_with_a_naive_reference(
            rules in prop::collection::vec(conditions(), 0..6),
            communities in prop::collection::btree_set(0u32..3, 0..3),
            large in prop::collection::btree_set(0u32..2, 0..2),
            extended in prop::collection::btree_set(0u8..2, 0..2),
            path in prop::collection::vec((1u32..3).prop_map(Asn), 0..4),
            split in 0usize..4,
            (second, length) in (9u8..12, 8u8..20),
            local: bool,
            external: bool,
        ) {
            // A sequence in two segments is one.
            let (first, rest) = path.split_at(split.min(path.len()));
            let segments = [first, rest].map(|asns| Segment { kind: SegmentKind::Sequence, asns: asns.to_vec() });
            let attributes = PathAttributes {
                as_path: AsPath(segments.into_iter().filter(|s| !s.asns.is_empty()).collect()),
                communities: communities.into_iter().collect(),
                large_communities: large.into_iter().map(|n| [n, 0, 0]).collect(),
                ext_communities: extended.into_iter().map(|n| [0, 2, 0, 0, 0, 0, 0, n]).collect(),
                ..samples::attributes()
            };
            let subject = Subject {
                prefix: &IpNet::new([second, 0, 0, 0].into(), length).unwrap().trunc(),
                source: if local { RouteSource::Local } else { RouteSource::RemotePeers },
                peer_type: if external { PeerType::External } else { PeerType::Internal },
                attributes: &attributes,
            };
            let expected = rules.iter().position(|rule| naive(rule, subject));
            let rules = rules.into_iter().enumerate().map(|(i, rule)| {
                let operation = Operation::SetMed(u32::try_from(i).unwrap());
                Rule { verdict: Verdict::AcceptWith(Arc::new([operation])), ..rule }
            });
            let policy = compiled(rules.collect());
            let done = policy.evaluate(subject).ok().flatten().map(|operations| operations[0].clone());
            prop_assert_eq!(done, expected.map(|i| Operation::SetMed(u32::try_from(i).unwrap())));
        }

        /// The index says what going through the ranges one by one says.
        #[test]
        fn the_index_agrees_with_a_linear_scan(
            ranges in prop::collection::vec((any::<u8>(), 0u8..=32, 0u8..=32, 0u8..=32), 0..20),
            subject in (any::<u8>(), 0u8..=32),
            negated: bool,
        ) {
            let net = |octet: u8, len: u8| IpNet::new([octet & 3, octet, 0, 0].into(), len).unwrap();
            let ranges: Vec<PrefixRange> = ranges.into_iter()
                .map(|(octet, len, min_len, max_len)| PrefixRange { net: net(octet, len), min_len, max_len })
                .collect();
            let prefix = net(subject.0, subject.1).trunc();
            let contained = ranges.iter().any(|r| {
                r.net.trunc().contains(&prefix) && (r.min_len..=r.max_len).contains(&prefix.prefix_len())
            });
            let expected = !ranges.is_empty() && contained != negated;
            prop_assert_eq!(PrefixSet::new(&PrefixMatch { ranges, negated }).matches(&prefix), expected);
        }
    }
}
