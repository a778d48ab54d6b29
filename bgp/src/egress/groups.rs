//! All update groups: the third stage as a whole.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use bytes::Bytes;

use super::{Egress, EgressInput, EgressOutput, GroupId};
use crate::types::{ConnectionId, PeerId};
use crate::wire::header::MessageType;

/// What a group hears, and when; none: it is no more.
pub(crate) type GroupInput = (Instant, GroupId, Option<EgressInput>);

/// Whole messages for a peer.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) peer: PeerId,
    /// Of the session that they were packed for.
    pub(crate) connection: ConnectionId,
    pub(crate) bytes: Bytes,
    /// How many messages they are.
    pub(crate) messages: u64,
    pub(crate) kind: MessageType,
}

/// The update groups, and what they have to say.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    groups: BTreeMap<GroupId, Egress>,
    /// Those that may have something to send.
    stirred: BTreeSet<GroupId>,
    told: VecDeque<Told>,
}

impl Groups {
    pub(crate) fn get(&self, group: GroupId) -> Option<&Egress> {
        self.groups.get(&group)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (GroupId, &Egress)> {
        self.groups.iter().map(|(id, egress)| (*id, egress))
    }

    /// Takes an input.
    pub(super) fn handle(&mut self, (now, group, input): GroupInput) {
        let Some(input) = input else {
            self.stirred.remove(&group);
            self.groups.remove(&group);
            return;
        };
        let moves = matches!(input, EgressInput::Move { .. });
        // A group is heard of first when it has something to tell, or a peer. One that is no more does not come back.
        let egress = match input {
            EgressInput::Written { .. } | EgressInput::Refresh { .. } => self.groups.get_mut(&group),
            _ => Some(self.groups.entry(group).or_default()),
        };
        let Some(egress) = egress else { return };
        egress.handle(now, input);
        self.stirred.insert(group);
        if moves {
            self.carry_over(now, group);
        }
    }

    /// Has a peer that leaves for another group arrive there. What it takes along must be there before that group hears anything else.
    fn carry_over(&mut self, now: Instant, from: GroupId) {
        while let Some(output) = self.groups.get_mut(&from).and_then(Egress::poll) {
            match output {
                EgressOutput::Write { peer, connection, bytes, messages, kind } => {
                    self.told.push_back(Told { peer, connection, bytes, messages, kind });
                }
                EgressOutput::Moved { to, handover } => {
                    self.handle((now, to, Some(EgressInput::Adopt(handover))));
                }
            }
        }
    }

    /// Packs a piece of what there is to tell; says whether there was any.
    pub(super) fn pack(&mut self) -> bool {
        while let Some(group) = self.stirred.first().copied() {
            // Whoever moves has arrived already.
            if let Some(EgressOutput::Write { peer, connection, bytes, messages, kind }) =
                self.groups.get_mut(&group).and_then(Egress::poll)
            {
                self.told.push_back(Told { peer, connection, bytes, messages, kind });
                return true;
            }
            self.stirred.remove(&group);
        }
        false
    }

    /// Takes all that was packed.
    pub(super) fn take(&mut self) -> VecDeque<Told> {
        std::mem::take(&mut self.told)
    }
}
