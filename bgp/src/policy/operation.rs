//! What a rule that accepts does to the attributes.

use std::net::IpAddr;
use std::sync::Arc;

use super::Community;
use crate::types::Asn;
use crate::wire::attributes::PathAttributes;

/// One change of a path's attributes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Attaches a community.
    AddCommunity(Community),
    /// Takes a community off.
    RemoveCommunity(Community),
    /// Puts these in front of AS_PATH, nearest first. What is told to an external peer has our own AS before them.
    PrependAsPath(Vec<Asn>),
    /// LOCAL_PREF. External peers are never told.
    SetLocalPreference(u32),
    /// MULTI_EXIT_DISC.
    SetMed(u32),
    /// The next hop, of the prefix's family, or [`DISCARD`](super::DISCARD).
    SetNextHop(IpAddr),
}

/// Changes in order. Equal ones make equal attributes of equal attributes, whichever rule they are of.
pub type Operations = Arc<[Operation]>;

impl Operation {
    /// Changes the attributes.
    pub fn apply(&self, attributes: &mut PathAttributes) {
        match self {
            Self::AddCommunity(community) => community.add_to(attributes),
            Self::RemoveCommunity(community) => community.remove_from(attributes),
            Self::PrependAsPath(asns) => asns.iter().rev().for_each(|asn| attributes.as_path.prepend(*asn)),
            Self::SetLocalPreference(value) => attributes.local_pref = Some(*value),
            Self::SetMed(value) => attributes.med = Some(*value),
            Self::SetNextHop(address) => {
                attributes.next_hop = *address;
                attributes.next_hop_link_local = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rib::samples;

    #[test]
    fn operations_change_the_attributes_in_order() {
        let mut attributes = samples::attributes();
        let community = |text: &str| text.parse().unwrap();
        for operation in [
            Operation::AddCommunity(community("65000:2")),
            Operation::AddCommunity(community("65000:1")),
            Operation::AddCommunity(community("65000:2")),
            Operation::AddCommunity(community("1:2:3")),
            Operation::AddCommunity(community("rt:1:2")),
            Operation::RemoveCommunity(community("65000:1")),
            Operation::RemoveCommunity(community("65000:9")),
            Operation::PrependAsPath(vec![Asn(3), Asn(2)]),
            Operation::PrependAsPath(vec![Asn(4)]),
            Operation::SetLocalPreference(1),
            Operation::SetLocalPreference(200),
            Operation::SetMed(0),
            Operation::SetNextHop(IpAddr::from([192, 0, 2, 9])),
        ] {
            operation.apply(&mut attributes);
        }
        assert_eq!(attributes.communities, [65000 << 16 | 2]);
        assert_eq!(attributes.large_communities, [[1, 2, 3]]);
        assert_eq!(attributes.ext_communities, [[0, 2, 0, 1, 0, 0, 0, 2]]);
        assert_eq!(attributes.as_path.0[0].asns, [Asn(4), Asn(3), Asn(2), samples::OTHER]);
        assert_eq!((attributes.local_pref, attributes.med), (Some(200), Some(0)));
        assert_eq!(attributes.next_hop, IpAddr::from([192, 0, 2, 9]));
    }
}
