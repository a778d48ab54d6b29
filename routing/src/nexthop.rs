//! Nexthop objects: the kernel's names for a leg, and for a group of legs, that routes share.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::Duration;

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
    /// Several.
    Group {
        /// Their ids, each with its weight from 1 to 256.
        members: Vec<(u32, u16)>,
        /// How flows stay where they are when members change; `None`: each goes where its hash falls then. A group stays what it was made as.
        resilience: Option<Resilience>,
    },
    /// A blackhole, or an object for something other than routes.
    Other,
}

/// What makes a group resilient (Documentation/networking/nexthop-group-resilient.rst): flows fall into buckets, and these go to other members
/// one by one, no sooner than they have to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Resilience {
    /// How many buckets there are, from 1. A group has as many for as long as it is there.
    pub buckets: u16,
    /// How long a bucket must have had no packet before it goes from a member with too many buckets to one with too few, in steps of 10 ms.
    pub idle_time: Duration,
    /// How long a member may have too few buckets before it is given some that are in use, in steps of 10 ms; zero: for ever.
    pub unbalanced_time: Duration,
}

impl Nexthop {
    /// True for what weftd made: its protocol and one of its ids.
    pub fn is_weft(&self) -> bool {
        self.protocol == Protocol::WEFT && OWN_IDS.contains(&self.id)
    }

    /// True for a group among these.
    pub fn is_weft_group(&self) -> bool {
        self.is_weft() && matches!(self.kind, NexthopKind::Group { .. })
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

    /// The legs behind an id; none for a blackhole or an id that is not there. A resilient group of ours has each twice, which changes nothing of
    /// their shares.
    pub fn legs(&self, id: u32) -> NextHops {
        let object = self.get(id);
        match object.map(|object| &object.kind) {
            Some(NexthopKind::Leg(leg)) => NextHops::from(*leg),
            Some(NexthopKind::Group { members, resilience: Some(_) })
                if object.is_some_and(Nexthop::is_weft) =>
            {
                self.of_members(members).collect::<BTreeSet<_>>().into_iter().collect()
            }
            Some(NexthopKind::Group { members, .. }) => self.of_members(members).collect(),
            Some(NexthopKind::Other) | None => NextHops::default(),
        }
    }

    fn of_members(&self, members: &[(u32, u16)]) -> impl Iterator<Item = NextHop> {
        members.iter().filter_map(|(id, weight)| match self.get(*id)?.kind {
            NexthopKind::Leg(leg) => Some(NextHop { weight: *weight, ..leg }),
            NexthopKind::Group { .. } | NexthopKind::Other => None,
        })
    }

    pub(crate) fn insert(&mut self, object: Nexthop) {
        self.0.insert(object.id, object);
    }

    /// Takes an object out of the groups that have it, as the kernel does it; groups without members go too. The ids that went.
    pub(crate) fn remove(&mut self, id: u32) -> Vec<u32> {
        let mut gone: Vec<u32> = self.0.remove(&id).map(|object| object.id).into_iter().collect();
        self.0.retain(|group, object| {
            let NexthopKind::Group { members, .. } = &mut object.kind else { return true };
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

    fn group(members: &[(u32, u16)]) -> NexthopKind {
        NexthopKind::Group { members: members.to_vec(), resilience: None }
    }

    #[test]
    fn groups_stand_for_the_legs_of_their_members_and_go_with_the_last() {
        let (a, b) = (NextHop::via([10, 0, 0, 1].into(), 3), NextHop::via([10, 0, 0, 2].into(), 4));
        let mut objects: Nexthops = [
            object(1, NexthopKind::Leg(a)),
            object(2, NexthopKind::Leg(b)),
            object(5, group(&[(1, 5), (2, 1), (9, 1)])),
            object(6, group(&[(1, 5)])),
        ]
        .into_iter()
        .collect();
        assert_eq!(objects.legs(5), NextHops::from_iter([NextHop { weight: 5, ..a }, b]));
        assert_eq!((objects.legs(1), objects.legs(6)), (a.into(), a.into()));
        assert!(objects.legs(7).is_empty());
        let resilience = Some(Resilience {
            buckets: 256,
            idle_time: Duration::from_secs(120),
            unbalanced_time: Duration::ZERO,
        });
        let again = NexthopKind::Group { members: vec![(1, 5), (2, 1), (3, 5), (4, 1)], resilience };
        for (id, kind) in [(3, NexthopKind::Leg(a)), (4, NexthopKind::Leg(b)), (*OWN_IDS.start(), again)] {
            objects.insert(object(id, kind));
        }
        assert_eq!(objects.legs(*OWN_IDS.start()), objects.legs(5), "each leg twice");
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
