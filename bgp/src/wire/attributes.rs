//! Path attributes as a value (RFC 4271 section 4.3 and its followers).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::attribute::{code, flag};
use crate::types::Asn;

/// GRACEFUL_SHUTDOWN (RFC 8326), a standard community: the path is about to go, and any other is better.
pub const GRACEFUL_SHUTDOWN: u32 = 0xFFFF_0000;

/// LLGR_STALE (RFC 9494), a standard community: somebody keeps the path though its peer has been away for long, and any other is better.
pub const LLGR_STALE: u32 = 0xFFFF_0006;

/// NO_LLGR (RFC 9494), a standard community: the path is not to be kept for longer than its peer's restart time.
pub const NO_LLGR: u32 = 0xFFFF_0007;

/// The attributes that one or more prefixes share. Immutable once decoded. Tables keep them as octets
/// ([`Stored`](super::update::Stored)).
///
/// MP_REACH_NLRI's next hop lives in `next_hop`; its prefixes do not live here, so that equal attributes are equal
/// whatever they are attached to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PathAttributes {
    /// ORIGIN.
    pub origin: Origin,
    /// AS_PATH, with AS4_PATH merged in (RFC 6793 section 4.2.3).
    pub as_path: AsPath,
    /// NEXT_HOP, or the global address in MP_REACH_NLRI.
    pub next_hop: IpAddr,
    /// The link-local address that RFC 2545 lets follow the global one.
    pub next_hop_link_local: Option<Ipv6Addr>,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// LOCAL_PREF; only iBGP carries it.
    pub local_pref: Option<u32>,
    /// ATOMIC_AGGREGATE.
    pub atomic_aggregate: bool,
    /// AGGREGATOR, with AS4_AGGREGATOR merged in.
    pub aggregator: Option<Aggregator>,
    /// COMMUNITIES (RFC 1997), sorted, without duplicates.
    pub communities: Vec<u32>,
    /// EXTENDED COMMUNITIES (RFC 4360), sorted, without duplicates.
    pub ext_communities: Vec<[u8; 8]>,
    /// LARGE_COMMUNITY (RFC 8092), sorted, without duplicates.
    pub large_communities: Vec<[u32; 3]>,
    /// ORIGINATOR_ID (RFC 4456).
    pub originator_id: Option<Ipv4Addr>,
    /// CLUSTER_LIST (RFC 4456), as received.
    pub cluster_list: Vec<Ipv4Addr>,
    /// ONLY_TO_CUSTOMER (RFC 9234): the AS that has told it to a customer, a peer or a client of its route server first.
    pub only_to_customer: Option<Asn>,
    /// Optional transitive attributes that this speaker does not know, by type, the partial bit set when passed on; among them IPv6
    /// extended communities (RFC 5701), of which only the length is looked at.
    pub unknown: Vec<UnknownAttribute>,
    /// Which of those that it knows have come with the partial bit. It stays set where they are passed on (RFC 4271 section 5).
    pub partial: Partial,
}

impl PathAttributes {
    /// Those of a path that has a next hop, begins here and says nothing else.
    #[must_use]
    pub fn new(next_hop: IpAddr) -> Self {
        Self {
            origin: Origin::Igp,
            as_path: AsPath::default(),
            next_hop,
            next_hop_link_local: None,
            med: None,
            local_pref: None,
            atomic_aggregate: false,
            aggregator: None,
            communities: Vec::new(),
            ext_communities: Vec::new(),
            large_communities: Vec::new(),
            originator_id: None,
            cluster_list: Vec::new(),
            only_to_customer: None,
            unknown: Vec::new(),
            partial: Partial::default(),
        }
    }

    /// Drops the partial bits of communities of which none is left: those that are attached later are this speaker's own.
    pub(crate) fn tidy_partial(&mut self) {
        for (type_code, is_gone) in [
            (code::COMMUNITIES, self.communities.is_empty()),
            (code::EXTENDED_COMMUNITIES, self.ext_communities.is_empty()),
            (code::LARGE_COMMUNITY, self.large_communities.is_empty()),
        ] {
            if is_gone {
                self.partial.remove(type_code);
            }
        }
    }
}

/// Known optional transitive attributes with the partial bit: somebody on their way did not know them (RFC 4271 section 4.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Partial(u8);

impl Partial {
    fn bit(type_code: u8) -> u8 {
        match type_code {
            code::AGGREGATOR => 1,
            code::COMMUNITIES => 1 << 1,
            code::EXTENDED_COMMUNITIES => 1 << 2,
            code::LARGE_COMMUNITY => 1 << 3,
            code::ONLY_TO_CUSTOMER => 1 << 4,
            _ => 0,
        }
    }

    /// Notes that one of this type has the bit.
    pub(super) fn insert(&mut self, type_code: u8) {
        self.0 |= Self::bit(type_code);
    }

    /// None of this type is there any more.
    fn remove(&mut self, type_code: u8) {
        self.0 &= !Self::bit(type_code);
    }

    /// The bit in the flags of one of this type, if it has it.
    pub(super) fn flag(self, type_code: u8) -> u8 {
        if self.0 & Self::bit(type_code) == 0 { 0 } else { flag::PARTIAL }
    }
}

/// ORIGIN; the order is the decision's (lower is better).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// 0
    Igp,
    /// 1
    Egp,
    /// 2
    Incomplete,
}

/// AGGREGATOR.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Aggregator {
    /// The AS that formed the aggregate.
    pub asn: Asn,
    /// The speaker's address.
    pub address: Ipv4Addr,
}

/// An optional transitive attribute of a type we do not know.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UnknownAttribute {
    /// Its flags octet as received, extended-length bit cleared.
    pub flags: u8,
    /// Its type code.
    pub code: u8,
    /// Its value.
    pub value: Box<[u8]>,
}

/// AS_PATH.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct AsPath(pub Vec<Segment>);

/// One path segment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Segment {
    /// Its kind.
    pub kind: SegmentKind,
    /// Its numbers, nearest first; never empty; a sequence longer than 255 is several segments on the wire.
    pub asns: Vec<Asn>,
}

/// The kinds of path segments (RFC 4271, RFC 5065).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SegmentKind {
    /// AS_SET, 1.
    Set,
    /// AS_SEQUENCE, 2.
    Sequence,
    /// AS_CONFED_SEQUENCE, 3.
    ConfedSequence,
    /// AS_CONFED_SET, 4.
    ConfedSet,
}

impl AsPath {
    /// The length that the decision compares: a set counts one, confederation segments none (RFC 4271 section 9.1.2.2, RFC 5065).
    #[must_use]
    pub fn length(&self) -> usize {
        self.0
            .iter()
            .map(|s| match s.kind {
                SegmentKind::Sequence => s.asns.len(),
                SegmentKind::Set => 1,
                SegmentKind::ConfedSequence | SegmentKind::ConfedSet => 0,
            })
            .sum()
    }

    /// How often a number occurs, in segments of any kind.
    #[must_use]
    pub fn occurrences(&self, asn: Asn) -> usize {
        self.0.iter().flat_map(|s| &s.asns).filter(|a| **a == asn).count()
    }

    /// The neighbouring AS: the first number of a leading sequence.
    #[must_use]
    pub fn first(&self) -> Option<Asn> {
        self.0.first().filter(|s| s.kind == SegmentKind::Sequence).and_then(|s| s.asns.first()).copied()
    }

    /// The AS that originated the route: the last number of a closing sequence. None where that is not sure: the number stands there
    /// twice, as it does where the neighbour of the originator puts its own AS in the place of that one's (AS override).
    #[must_use]
    pub fn origin(&self) -> Option<Asn> {
        let origin = *self.0.last().filter(|s| s.kind == SegmentKind::Sequence)?.asns.last()?;
        (self.occurrences(origin) == 1).then_some(origin)
    }

    /// Whether it has an AS_SET or, if that counts, an AS_CONFED_SET.
    #[must_use]
    pub fn has_set(&self, confederation: bool) -> bool {
        self.0.iter().any(|s| match s.kind {
            SegmentKind::Set => true,
            SegmentKind::ConfedSet => confederation,
            SegmentKind::Sequence | SegmentKind::ConfedSequence => false,
        })
    }

    /// Whether it begins with these numbers, nearest first, in sequence.
    #[must_use]
    pub fn begins_with(&self, prefix: &[Asn]) -> bool {
        let sequences = self.0.iter().take_while(|s| s.kind == SegmentKind::Sequence);
        let mut asns = sequences.flat_map(|s| &s.asns);
        prefix.iter().all(|wanted| asns.next() == Some(wanted))
    }

    /// Puts a number in place of another wherever that occurs.
    pub fn replace(&mut self, old: Asn, new: Asn) {
        let all = self.0.iter_mut().flat_map(|s| &mut s.asns);
        all.filter(|asn| **asn == old).for_each(|asn| *asn = new);
    }

    /// Takes the numbers out that do not stay. Sequences that come to lie side by side become one.
    pub fn retain(&mut self, stays: impl Fn(Asn) -> bool) {
        let mut kept: Vec<Segment> = Vec::with_capacity(self.0.len());
        for mut segment in self.0.drain(..) {
            segment.asns.retain(|asn| stays(*asn));
            match kept.last_mut() {
                _ if segment.asns.is_empty() => {}
                Some(last) if (last.kind, segment.kind) == (SegmentKind::Sequence, SegmentKind::Sequence) => {
                    last.asns.append(&mut segment.asns);
                }
                _ => kept.push(segment),
            }
        }
        self.0 = kept;
    }

    /// Takes the confederation segments out: they mean nothing to another AS (RFC 5065 section 4.1).
    pub fn leave_confederation(&mut self) {
        self.0.retain(|segment| !segment.kind.is_confederation());
    }

    /// Puts a number in front (RFC 4271 section 5.1.2).
    pub fn prepend(&mut self, asn: Asn) {
        match self.0.first_mut() {
            Some(s) if s.kind == SegmentKind::Sequence => {
                s.asns.reserve_exact(1);
                s.asns.insert(0, asn);
            }
            _ => self.0.insert(0, Segment { kind: SegmentKind::Sequence, asns: vec![asn] }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Community;

    #[test]
    fn communities_that_are_attached_after_the_last_has_gone_are_not_partial() {
        let mut attributes = PathAttributes::new([192, 0, 2, 1].into());
        attributes.communities = vec![1];
        attributes.large_communities = vec![[1, 2, 3]];
        let partial = [code::COMMUNITIES, code::LARGE_COMMUNITY, code::AGGREGATOR];
        partial.iter().for_each(|type_code| attributes.partial.insert(*type_code));
        Community::Standard(1).remove_from(&mut attributes);
        let flags = partial.map(|type_code| attributes.partial.flag(type_code));
        assert_eq!(flags, [0, flag::PARTIAL, flag::PARTIAL]);
    }
}
