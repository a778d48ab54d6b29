//! Next hops: which ones the kernel is asked about, and what it said.

use std::collections::{BTreeMap, BTreeSet};

use crate::speaker::{Resolution, TrackedNextHop};
use crate::types::PeerId;

/// Names a next hop for as long as an attribute set holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct HopId(u32);

#[derive(Debug)]
struct NextHop {
    tracked: TrackedNextHop,
    /// Attribute sets that name it.
    holders: u32,
    /// Paths that would be eligible if it resolves.
    users: u32,
    /// Whose these are, if all are one peer's. Once several peers have used it, that is not looked at before all have left.
    sole_user: Option<PeerId>,
    /// Whether the kernel was asked.
    asked: bool,
    resolution: Resolution,
}

/// A question to, or the end of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tracking {
    Start(TrackedNextHop),
    Stop(TrackedNextHop),
}

/// Every next hop in use. Few at any time, so that ordered maps do.
#[derive(Debug, Default)]
pub(super) struct NextHops {
    /// Off: every next hop is on-link and nobody is asked.
    tracking: bool,
    ids: BTreeMap<TrackedNextHop, HopId>,
    hops: Vec<Option<NextHop>>,
    free: Vec<HopId>,
    /// How many are reached by routes of ours alone.
    indirect: usize,
    /// Those whose users or holders came to be or went: looked at by [`Self::settle`].
    changed: BTreeSet<HopId>,
}

impl NextHops {
    /// One more attribute set names this next hop.
    pub(super) fn hold(&mut self, tracked: TrackedNextHop) -> HopId {
        let id = match self.ids.get(&tracked) {
            Some(id) => *id,
            None => self.add(tracked),
        };
        if let Some(hop) = self.hop_mut(id) {
            hop.holders += 1;
        }
        id
    }

    fn add(&mut self, tracked: TrackedNextHop) -> HopId {
        let resolution = Resolution::Unresolved;
        let hop = NextHop { tracked, holders: 0, users: 0, sole_user: None, asked: false, resolution };
        let id = self.free.pop().unwrap_or_else(|| {
            self.hops.push(None);
            HopId(u32::try_from(self.hops.len() - 1).unwrap_or(u32::MAX))
        });
        if let Some(slot) = self.hops.get_mut(id.0 as usize) {
            *slot = Some(hop);
        }
        self.ids.insert(tracked, id);
        id
    }

    fn hop(&self, id: HopId) -> Option<&NextHop> {
        self.hops.get(id.0 as usize)?.as_ref()
    }

    fn hop_mut(&mut self, id: HopId) -> Option<&mut NextHop> {
        self.hops.get_mut(id.0 as usize)?.as_mut()
    }

    /// One attribute set less names it.
    pub(super) fn let_go(&mut self, id: HopId) {
        if let Some(hop) = self.hop_mut(id) {
            hop.holders -= 1;
            if hop.holders == 0 {
                self.changed.insert(id);
            }
        }
    }

    /// One path more would use it.
    pub(super) fn enter(&mut self, id: HopId, user: Option<PeerId>) {
        if let Some(hop) = self.hop_mut(id) {
            hop.sole_user =
                if hop.users == 0 { user } else { hop.sole_user.filter(|sole| Some(*sole) == user) };
            hop.users += 1;
            if hop.users == 1 {
                self.changed.insert(id);
            }
        }
    }

    /// One path less would use it.
    pub(super) fn leave(&mut self, id: HopId) {
        if let Some(hop) = self.hop_mut(id) {
            hop.users -= 1;
            if hop.users == 0 {
                self.changed.insert(id);
            }
        }
    }

    /// Those that nobody but this peer offers.
    pub(super) fn of_only(&self, peer: PeerId) -> Vec<TrackedNextHop> {
        let used = self.ids.values().filter_map(|id| self.hop(*id)).filter(|hop| hop.users > 0);
        used.filter(|hop| hop.sole_user == Some(peer)).map(|hop| hop.tracked).collect()
    }

    /// The next hop as the kernel is asked about it.
    pub(super) fn tracked(&self, id: HopId) -> Option<TrackedNextHop> {
        self.hop(id).map(|hop| hop.tracked)
    }

    /// How it resolves.
    pub(super) fn resolution(&self, id: HopId) -> Resolution {
        match self.hop(id) {
            Some(_) if !self.tracking => Resolution::OnLink,
            Some(hop) => hop.resolution,
            None => Resolution::Unresolved,
        }
    }

    /// Takes an answer of the kernel's; the id, if the answer is news.
    pub(super) fn resolve(&mut self, tracked: TrackedNextHop, resolution: Resolution) -> Option<HopId> {
        let id = *self.ids.get(&tracked)?;
        let tracking = self.tracking;
        self.hop(id).filter(|hop| hop.asked && hop.resolution != resolution)?;
        self.set(id, resolution);
        Some(id).filter(|_| tracking)
    }

    fn set(&mut self, id: HopId, resolution: Resolution) {
        let Some(hop) = self.hop_mut(id) else { return };
        let before = std::mem::replace(&mut hop.resolution, resolution);
        self.indirect =
            self.indirect + usize::from(resolution.is_indirect()) - usize::from(before.is_indirect());
    }

    /// Whether any next hop is reached by routes of ours alone.
    pub(super) fn any_indirect(&self) -> bool {
        self.tracking && self.indirect > 0
    }

    /// Switches tracking; says whether that is a change.
    pub(super) fn set_tracking(&mut self, tracking: bool) -> bool {
        let changes = self.tracking != tracking;
        self.tracking = tracking;
        if changes {
            self.changed.extend(self.ids.values());
        }
        changes
    }

    /// What to ask the kernel, and what no longer, since the last time. Paths that come and go in between cost nothing.
    pub(super) fn settle(&mut self) -> Vec<Tracking> {
        let mut asks = Vec::new();
        for id in std::mem::take(&mut self.changed) {
            let tracking = self.tracking;
            let Some(hop) = self.hop_mut(id) else { continue };
            let wanted = tracking && hop.users > 0;
            let (holders, tracked) = (hop.holders, hop.tracked);
            if wanted != hop.asked {
                hop.asked = wanted;
                self.set(id, Resolution::Unresolved);
                asks.push(if wanted { Tracking::Start(tracked) } else { Tracking::Stop(tracked) });
            }
            if holders == 0 {
                self.ids.remove(&tracked);
                if let Some(slot) = self.hops.get_mut(id.0 as usize) {
                    *slot = None;
                }
                self.free.push(id);
            }
        }
        asks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOP: TrackedNextHop = TrackedNextHop {
        address: std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
        default_route: false,
        link: None,
    };

    #[test]
    fn asks_while_a_path_uses_it_and_forgets_the_answer_after() {
        let mut hops = NextHops::default();
        hops.set_tracking(true);
        let id = hops.hold(HOP);
        assert_eq!(hops.settle(), []);
        hops.enter(id, None);
        assert_eq!(hops.settle(), [Tracking::Start(HOP)]);
        assert_eq!(hops.resolve(HOP, Resolution::OnLink), Some(id));
        assert_eq!(hops.resolve(HOP, Resolution::OnLink), None);
        hops.leave(id);
        hops.enter(id, None);
        assert_eq!(hops.settle(), []);
        assert_eq!(hops.resolution(id), Resolution::OnLink);
        hops.leave(id);
        assert_eq!(hops.settle(), [Tracking::Stop(HOP)]);
        assert_eq!(hops.resolution(id), Resolution::Unresolved);
        hops.let_go(id);
        assert_eq!(hops.settle(), []);
        assert_eq!(hops.tracked(id), None);
    }

    #[test]
    fn without_tracking_everything_is_on_link() {
        let mut hops = NextHops::default();
        let id = hops.hold(HOP);
        hops.enter(id, None);
        assert_eq!((hops.settle(), hops.resolution(id)), (vec![], Resolution::OnLink));
        assert!(hops.set_tracking(true));
        assert_eq!(
            (hops.settle(), hops.resolution(id)),
            (vec![Tracking::Start(HOP)], Resolution::Unresolved)
        );
    }

    #[test]
    fn a_next_hop_is_one_peers_until_another_uses_it_too() {
        let (one, other) = (PeerId(1), PeerId(2));
        let mut hops = NextHops::default();
        let id = hops.hold(HOP);
        assert_eq!(hops.of_only(one), []);
        hops.enter(id, Some(one));
        hops.enter(id, Some(one));
        assert_eq!((hops.of_only(one), hops.of_only(other)), (vec![HOP], vec![]));
        hops.enter(id, Some(other));
        assert_eq!((hops.of_only(one), hops.of_only(other)), (vec![], vec![]));
        hops.leave(id);
        hops.leave(id);
        assert_eq!(hops.of_only(other), [], "not known before all have left");
        hops.leave(id);
        hops.enter(id, Some(other));
        assert_eq!((hops.of_only(one), hops.of_only(other)), (vec![], vec![HOP]));
    }
}
