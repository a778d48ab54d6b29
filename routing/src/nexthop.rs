//! Nexthop objects: the kernel's names for a leg, and for a group of legs, that routes share.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use crate::route::{NextHop, NextHops, Protocol};

/// The ids that weftd gives its objects. Far from the small numbers that people and other programs use.
pub const OWN_IDS: RangeInclusive<u32> = 0x7700_0000..=0x77ff_ffff;

/// One object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Nexthop {
    /// What the kernel and routes know it by. One id space for legs and groups.
    pub id: u32,
    /// Who made it (`nhm_protocol`).
    pub protocol: Protocol,
    /// What it stands for.
    pub kind: NexthopKind,
}

/// What an object stands for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum NexthopKind {
    /// A single leg; its weight means nothing and is 1.
    Leg(NextHop),
    /// Several, by their ids, each with its weight from 1 to 256.
    Group(Vec<(u32, u16)>),
    /// A blackhole, or an object for something other than routes.
    Other,
}

impl Nexthop {
    /// True for what weftd made: its protocol and one of its ids.
    pub fn is_weft(&self) -> bool {
        self.protocol == Protocol::WEFT && OWN_IDS.contains(&self.id)
    }

    /// True for a group among these.
    pub fn is_weft_group(&self) -> bool {
        self.is_weft() && matches!(self.kind, NexthopKind::Group(_))
    }
}

/// The objects of a namespace, by id.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Nexthops(BTreeMap<u32, Nexthop>);

impl Nexthops {
    /// The object with this id.
    pub fn get(&self, id: u32) -> Option<&Nexthop> {
        self.0.get(&id)
    }

    /// All objects, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Nexthop> {
        self.0.values()
    }

    /// The legs behind an id; none for a blackhole or an id that is not there.
    pub fn legs(&self, id: u32) -> NextHops {
        match self.get(id).map(|object| &object.kind) {
            Some(NexthopKind::Leg(leg)) => NextHops::from(*leg),
            Some(NexthopKind::Group(members)) => {
                let leg = |(id, weight): &(u32, u16)| match self.get(*id)?.kind {
                    NexthopKind::Leg(leg) => Some(NextHop { weight: *weight, ..leg }),
                    NexthopKind::Group(_) | NexthopKind::Other => None,
                };
                members.iter().filter_map(leg).collect()
            }
            Some(NexthopKind::Other) | None => NextHops::default(),
        }
    }

    pub(crate) fn insert(&mut self, object: Nexthop) {
        self.0.insert(object.id, object);
    }

    /// Takes an object out of the groups that have it, as the kernel does it; groups without members go too. The ids that went.
    pub(crate) fn remove(&mut self, id: u32) -> Vec<u32> {
        let mut gone: Vec<u32> = self.0.remove(&id).map(|object| object.id).into_iter().collect();
        self.0.retain(|group, object| {
            let NexthopKind::Group(members) = &mut object.kind else { return true };
            members.retain(|(member, _)| *member != id);
            if members.is_empty() {
                gone.push(*group);
            }
            !members.is_empty()
        });
        gone
    }
}

impl FromIterator<Nexthop> for Nexthops {
    fn from_iter<I: IntoIterator<Item = Nexthop>>(objects: I) -> Self {
        Self(objects.into_iter().map(|object| (object.id, object)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(id: u32, kind: NexthopKind) -> Nexthop {
        Nexthop { id, protocol: Protocol::WEFT, kind }
    }

    #[test]
    fn groups_stand_for_the_legs_of_their_members_and_go_with_the_last() {
        let (a, b) = (NextHop::via([10, 0, 0, 1].into(), 3), NextHop::via([10, 0, 0, 2].into(), 4));
        let mut objects: Nexthops = [
            object(1, NexthopKind::Leg(a)),
            object(2, NexthopKind::Leg(b)),
            object(5, NexthopKind::Group(vec![(1, 5), (2, 1), (9, 1)])),
            object(6, NexthopKind::Group(vec![(1, 5)])),
        ]
        .into_iter()
        .collect();
        assert_eq!(objects.legs(5), NextHops::from_iter([NextHop { weight: 5, ..a }, b]));
        assert_eq!((objects.legs(1), objects.legs(6)), (a.into(), a.into()));
        assert!(objects.legs(7).is_empty());
        assert_eq!(objects.remove(1), [1, 6]);
        assert_eq!((objects.legs(5), objects.get(6)), (b.into(), None));
    }

    #[test]
    fn ours_are_those_with_our_protocol_and_an_id_of_ours() {
        let ours = object(*OWN_IDS.start(), NexthopKind::Other);
        assert!(ours.is_weft());
        assert!(!Nexthop { protocol: Protocol::STATIC, ..ours.clone() }.is_weft());
        assert!(!Nexthop { id: 5, ..ours }.is_weft());
    }
}
