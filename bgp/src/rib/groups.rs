//! Update groups: which peers are told the same, and what.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::add_path::Several;
use super::export::{Exporter, Provenance, Terms};
use super::loc::{Best, CHUNK, Decided, Destination};
use super::{Rib, RibOutput};
use crate::arena::bits::BitSet;
use crate::arena::prefixes::PrefixId;
use crate::egress::{Changes, EgressInput, GroupId};
use crate::policy::Operations;
use crate::types::{Family, PeerId};
use crate::wire::attributes::PathAttributes;

/// The update groups. Their number is that of the different terms in use.
#[derive(Debug, Default)]
pub(super) struct Groups {
    groups: BTreeMap<GroupId, Group>,
    next: u32,
}

/// One update group.
#[derive(Debug)]
struct Group {
    exporter: Exporter,
    /// The prefixes that are in its Adj-RIB-Out with their best path.
    told: BitSet,
    /// The paths that are in it, of families whose peers are told several.
    several: Several,
    /// What its Adj-RIB-Out is to be filled with; none: it is complete, but for what it lacks.
    rest: Option<Rest>,
    /// Whether End-of-RIB waits for what was learned.
    deferring: bool,
    /// The peers that join once it is complete and nothing is dirty.
    waiting: BTreeSet<PeerId>,
    members: BTreeSet<PeerId>,
    /// The only peer, if it lacks routes of that one's, who is not told them.
    lacking: Option<PeerId>,
}

/// A part of the Loc-RIB.
#[derive(Clone, Copy, Debug, Default)]
struct Rest {
    /// From this place on.
    from: usize,
    /// The prefixes whose best path is this peer's; none: all.
    of: Option<PeerId>,
}

impl Group {
    fn new(terms: Terms, deferring: bool) -> Self {
        Self {
            exporter: Exporter::new(terms),
            told: BitSet::default(),
            several: Several::default(),
            rest: Some(Rest::default()),
            deferring,
            waiting: BTreeSet::new(),
            members: BTreeSet::new(),
            lacking: None,
        }
    }

    /// The only peer that is in it or is to be.
    fn only_peer(&self) -> Option<PeerId> {
        let mut peers = self.members.iter().chain(&self.waiting);
        peers.next().copied().filter(|_| peers.next().is_none())
    }

    /// A peer is to join. It may be told what the only one was not.
    fn expect(&mut self, peer: PeerId) {
        self.waiting.insert(peer);
        if self.only_peer().is_none()
            && let Some(lacking) = self.lacking.take()
        {
            // What it had not got to yet may be anybody's.
            let of = self.rest.is_none().then_some(lacking);
            self.rest = Some(Rest { from: 0, of });
        }
    }

    /// How the Adj-RIB-Out changes now that these prefixes have another best path.
    fn changes(&mut self, ids: &[PrefixId], decided: &Decided<'_>) -> Changes {
        let Decided { table, holdings, aggregates, .. } = *decided;
        let mut changes = Changes::expecting(ids.len());
        let only_peer = self.only_peer();
        // Routes that share attributes come one behind the other.
        let mut from: Option<(Best, Provenance, Arc<PathAttributes>)> = None;
        let mut told: Option<(Best, Family, Option<&Operations>, Arc<PathAttributes>)> = None;
        for id in ids {
            if let Some(send) = self.exporter.several(id.family()) {
                self.several.changes(*id, send, &self.exporter, decided, &mut changes);
                continue;
            }
            let (key, family) = (table.packed(*id), id.family());
            let best = table.get(*id).best().filter(|best| decided.tells(best.source));
            let is_for_nobody = |best: &Best| only_peer.is_some_and(|peer| best.source.is_of(peer));
            let best = match best {
                Some(best) if is_for_nobody(&best) => {
                    self.lacking = only_peer;
                    None
                }
                best => best,
            };
            if from.as_ref().map(|(of, ..)| *of) != best {
                let attributes = |best: Best| holdings.attributes.attributes(best.attributes);
                from = best.and_then(|best| Some((best, holdings.provenance(best)?, attributes(best))));
            }
            let admitted = from.as_ref().and_then(|(best, from, attributes)| {
                let prefix = table.prefix(*id);
                let operations = self.exporter.admit(&prefix, from, attributes).ok()?;
                let summary = aggregates.summary(&prefix, &self.exporter, table, holdings);
                summary.is_none().then_some((*best, from, attributes, operations))
            });
            let Some((best, from, attributes, operations)) = admitted else {
                if self.told.remove(id.index()) {
                    changes.withdraw(key);
                }
                continue;
            };
            self.told.insert(id.index());
            let as_before = told.take_if(|told| (told.0, told.1, told.2) == (best, family, operations));
            let (.., told) = told.insert(as_before.unwrap_or_else(|| {
                let told = self.exporter.rewrite(family, from, attributes, operations);
                (best, family, operations, Arc::new(told))
            }));
            changes.announce(key, told, best.source.peer());
        }
        changes
    }
}

impl Rib {
    /// Tells every group of prefixes that have another best path, and those whose peers are told several paths of `all` that were decided on.
    pub(super) fn export(&mut self, best_changed: &[PrefixId], all: &[PrefixId]) {
        let (decided, groups, outputs) = self.apart();
        for (id, group) in groups {
            let ids = if group.exporter.tells_several() { all } else { best_changed };
            let changes = group.changes(ids, &decided);
            if !changes.is_empty() {
                outputs.push_back(RibOutput::Egress(*id, EgressInput::Changes(changes)));
            }
        }
    }

    /// What is told, to whom, and how.
    fn apart(&mut self) -> (Decided<'_>, &mut BTreeMap<GroupId, Group>, &mut VecDeque<RibOutput>) {
        let Self { table, holdings, aggregates, settings, advertising, groups, outputs, .. } = self;
        let (max_paths, advertising) = (settings.max_paths, *advertising);
        (Decided { table, holdings, aggregates, max_paths, advertising }, &mut groups.groups, outputs)
    }

    /// Tells every group anew of the paths that are this peer's, as something that the peer is to us has changed.
    pub(super) fn export_anew(&mut self, peer: PeerId) {
        let is_its = |best: &Best| best.source.is_of(peer);
        let concerns =
            |d: &Destination| !d.paths_of(peer).is_empty() || d.best().as_ref().is_some_and(is_its);
        let ids = self.table.walk(0).filter(|(_, _, destination)| concerns(destination));
        let ids: Vec<PrefixId> = ids.map(|(id, ..)| id).collect();
        self.export(&ids, &ids);
    }

    /// Lets announcements flow: to what we originate comes what was learned.
    pub(super) fn advertise(&mut self) {
        self.advertising = true;
        let deferring = self.groups.groups.values_mut().filter(|group| group.deferring);
        deferring.for_each(|group| group.rest = Some(Rest::default()));
    }

    /// Brings every Established peer to the group of its terms.
    pub(super) fn join_groups(&mut self) {
        let peers: Vec<PeerId> = self.holdings.peers.keys().copied().collect();
        peers.into_iter().for_each(|peer| self.join_group(peer));
    }

    /// Brings an Established peer to the group of its terms, if it is not there yet. The group that it was in keeps it until the
    /// other one's table is complete.
    pub(super) fn join_group(&mut self, id: PeerId) {
        let Some(peer) = self.holdings.peers.get_mut(&id) else { return };
        let Some(session) = peer.established() else { return };
        let cluster_id = self.settings.cluster_id.unwrap_or(self.settings.router_id);
        let terms = Terms::new(&peer.config, session, cluster_id);
        let groups = &mut self.groups;
        let same = groups.groups.iter().find(|(_, group)| *group.exporter.terms() == terms);
        let target = match same {
            Some((target, _)) => *target,
            None => {
                let target = GroupId(groups.next);
                groups.next += 1;
                let deferring = !self.advertising;
                groups.groups.insert(target, Group::new(terms, deferring));
                if deferring {
                    self.outputs.push_back(RibOutput::Egress(target, EgressInput::Defer(true)));
                }
                target
            }
        };
        let next = (peer.group != Some(target)).then_some(target);
        let abandoned = std::mem::replace(&mut peer.next_group, next).filter(|old| Some(*old) != next);
        if let Some(group) = next.and_then(|next| groups.groups.get_mut(&next)) {
            group.expect(id);
        }
        if let Some(old) = abandoned {
            self.depart(old, id);
        }
    }

    /// Takes a peer out of its group, as its session is gone.
    pub(super) fn leave_group(&mut self, id: PeerId) {
        let Some(peer) = self.holdings.peers.get_mut(&id) else { return };
        let (group, next) = (peer.group.take(), peer.next_group.take());
        if let Some(group) = group {
            self.outputs.push_back(RibOutput::Egress(group, EgressInput::Leave(id)));
            self.depart(group, id);
        }
        if let Some(next) = next {
            self.depart(next, id);
        }
    }

    /// Strikes a peer off a group, and the group off, if it was the last.
    fn depart(&mut self, group: GroupId, peer: PeerId) {
        let Some(entry) = self.groups.groups.get_mut(&group) else { return };
        entry.waiting.remove(&peer);
        entry.members.remove(&peer);
        if entry.waiting.is_empty() && entry.members.is_empty() {
            self.groups.groups.remove(&group);
            self.outputs.push_back(RibOutput::EgressClosed(group));
        }
    }

    /// Fills a group's table a piece further, or lets peers join one that is complete; says whether there was anything to do.
    pub(super) fn serve_groups(&mut self) -> bool {
        let found = self.groups.groups.iter_mut().find(|(_, g)| g.rest.is_some() || !g.waiting.is_empty());
        let Some((id, group)) = found else { return false };
        let id = *id;
        let Some(Rest { from, of }) = group.rest else {
            let waiting = std::mem::take(&mut group.waiting);
            waiting.into_iter().for_each(|peer| self.enter_group(id, peer));
            return true;
        };
        let (decided, groups, outputs) = self.apart();
        let Some(group) = groups.get_mut(&id) else { return false };
        let is_of = |id: PrefixId, destination: &Destination, peer| {
            let is_its = destination.best().is_some_and(|best| best.source.is_of(peer));
            is_its && group.exporter.several(id.family()).is_none()
        };
        let walk = decided.table.walk(from);
        let concerned = walk.filter(|(id, _, destination)| of.is_none_or(|of| is_of(*id, destination, of)));
        let ids: Vec<PrefixId> = concerned.take(CHUNK).map(|(id, ..)| id).collect();
        group.rest = ids.last().map(|last| Rest { from: last.index() + 1, of });
        let changes = group.changes(&ids, &decided);
        if !changes.is_empty() {
            let fill = if of.is_some() { EgressInput::Fill } else { EgressInput::Changes };
            outputs.push_back(RibOutput::Egress(id, fill(changes)));
        }
        if group.rest.is_none() && decided.advertising && std::mem::take(&mut group.deferring) {
            outputs.push_back(RibOutput::Egress(id, EgressInput::Defer(false)));
        }
        true
    }

    fn enter_group(&mut self, group: GroupId, id: PeerId) {
        let Some(peer) = self.holdings.peers.get_mut(&id) else { return };
        let Some(session) = peer.established().cloned() else { return };
        peer.next_group = None;
        let old = peer.group.replace(group);
        if let Some(entry) = self.groups.groups.get_mut(&group) {
            entry.members.insert(id);
        }
        let output = match old {
            Some(old) => RibOutput::Egress(old, EgressInput::Move { peer: id, to: group }),
            None => RibOutput::Egress(group, EgressInput::Join { peer: id, session }),
        };
        self.outputs.push_back(output);
        if let Some(old) = old {
            self.depart(old, id);
        }
    }

    /// What a peer's group does with the routes it is given; none: the peer is told nothing at present.
    pub(super) fn exporter(&self, peer: PeerId) -> Option<&Exporter> {
        let peer = self.holdings.peers.get(&peer)?;
        self.groups.groups.get(&peer.next_group.or(peer.group)?).map(|group| &group.exporter)
    }
}
