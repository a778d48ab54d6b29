//! From the table to messages: pieces of table or journal, what they mean for each peer, and the bytes.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

use super::adj_out::{AdjRibOut, Route, SetId, Slot};
use super::journal::Place;
use super::peer::{Peer, Position};
use super::{Egress, EgressOutput, PathKey};
use crate::arena::prefixes::PrefixId;
use crate::ingress::Session;
use crate::types::{Family, PeerId};
use crate::wire::header::MessageType;
use crate::wire::route_refresh::RouteRefresh;
use crate::wire::{Message, update};

/// About how many octets are packed at once, at most.
const PIECE: usize = 64 * 1024;
/// How many prefixes are looked at, at most, for one piece.
const LOOKED_AT: usize = 8192;
/// About how many octets a message takes besides attributes and prefixes.
const MESSAGE: usize = 32;
/// About how many octets a prefix takes.
const PREFIX: usize = 6;
/// With how many of the peers before a peer's part of a piece is compared: any two of them have told everything between them.
const COMPARED: usize = 4;

/// What one piece of table or journal says to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Action {
    family: Family,
    says: Says,
    prefix: PrefixId,
}

/// What is said of a prefix. What is withdrawn comes last: a prefix that stands for others, or others that stand for it, are there by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Says {
    /// It has these attributes.
    Announce(SetId),
    /// It is withdrawn.
    Withdraw,
}

/// Where reading stops.
#[derive(Clone, Copy, Debug)]
enum Stop {
    /// Further in the table from here, or not at all.
    Walk(Option<usize>),
    /// Here in the journal.
    Journal(Place),
}

/// A piece, packed.
struct Packed {
    /// In the order of the piece.
    actions: Vec<Action>,
    /// In the order of the bytes.
    sorted: Vec<Action>,
    runs: Vec<Run>,
    bytes: Bytes,
}

/// What a piece tells with one set of attributes, or withdraws, of one family.
struct Run {
    /// In [`Packed::sorted`].
    actions: Range<usize>,
    /// In [`Packed::bytes`].
    bytes: Range<usize>,
    /// How many messages the bytes are.
    messages: u64,
    /// Prefixes whose attributes do not fit into a message: they are withdrawn instead.
    refused: Vec<Action>,
}

impl Packed {
    /// How many messages the bytes are.
    fn messages(&self) -> u64 {
        self.runs.iter().map(|run| run.messages).sum()
    }

    /// Just this run and its bytes, if it is among those that were encoded.
    fn find(&self, actions: &[Action]) -> Option<(&Run, &[u8])> {
        let key = |action: &Action| (action.family, action.says);
        let wanted = Some(key(actions.first()?));
        let place = |run: &Run| self.sorted.get(run.actions.start).map(key);
        let run = self.runs.get(self.runs.binary_search_by(|run| place(run).cmp(&wanted)).ok()?)?;
        let same = self.sorted.get(run.actions.clone())? == actions;
        same.then_some(run).zip(self.bytes.get(run.bytes.clone()))
    }
}

impl Egress {
    /// Packs one piece for the peers that read at the first position at which any can; says whether there was one.
    pub(super) fn pack(&mut self) -> bool {
        if self.send_markers() {
            return true;
        }
        let (end, credit) = (self.table.end(), self.credit);
        let Some(position) = self.peers.values().filter_map(|peer| peer.position(end, credit)).min() else {
            return false;
        };
        let (piece, stop) = match position {
            Position::Walk(from) => self.table.piece_of_walk(from, credit.min(PIECE)),
            Position::Journal(from) => self.table.piece_of_journal(from, credit.min(PIECE)),
        };
        // Read once, however many peers there are.
        let piece: Vec<(PrefixId, Slot)> =
            piece.iter().map(|id| (*id, *self.table.slots().get(*id))).collect();
        let mut packed: Vec<Packed> = Vec::new();
        for (id, peer) in &mut self.peers {
            if peer.position(end, credit) != Some(position) {
                continue;
            }
            let actions = actions(*id, peer, &piece, &self.table, position);
            match stop {
                Stop::Walk(next) => peer.walked(next, end),
                Stop::Journal(place) => peer.read(place),
            }
            if actions.is_empty() {
                continue;
            }
            let place = match packed.iter().position(|p| p.actions == actions) {
                Some(place) => place,
                None => {
                    packed.push(encode(actions, &packed, &self.table, peer.session()));
                    packed.len() - 1
                }
            };
            let Some(packed) = packed.get(place) else { continue };
            note(peer, packed);
            let (bytes, messages) = (packed.bytes.clone(), packed.messages());
            let kind = MessageType::Update;
            let (peer, connection) = (*id, peer.session().connection);
            self.outputs.push_back(EgressOutput::Write { peer, connection, bytes, messages, kind });
        }
        self.table.trim(&mut self.peers);
        true
    }

    /// Sends what is due between UPDATEs: End-of-RIB, the beginnings and the ends of refreshes; says whether anything was.
    fn send_markers(&mut self) -> bool {
        for (id, peer) in &mut self.peers {
            while let Some((marker, families)) = peer.take_marker(self.credit, self.deferring) {
                let (mut bytes, mut messages) = (BytesMut::new(), 0);
                for family in families.iter() {
                    match marker.subtype() {
                        None => update::end_of_rib(family, &mut bytes),
                        Some(subtype) => {
                            let refresh = RouteRefresh { family: family.into(), subtype };
                            bytes.extend_from_slice(&Message::RouteRefresh(refresh).encode());
                        }
                    }
                    messages += 1;
                }
                peer.sent(bytes.len());
                let (bytes, kind) = (bytes.freeze(), marker.kind());
                let (peer, connection) = (*id, peer.session().connection);
                self.outputs.push_back(EgressOutput::Write { peer, connection, bytes, messages, kind });
            }
        }
        !self.outputs.is_empty()
    }
}

impl AdjRibOut {
    fn piece_of_walk(&self, from: usize, octets: usize) -> (Vec<PrefixId>, Stop) {
        let mut budget = Budget { octets, prefixes: LOOKED_AT, last: None };
        let mut piece = Vec::new();
        for (id, ..) in self.slots().walk(from) {
            if !budget.take(self, id) {
                return (piece, Stop::Walk(Some(id.index())));
            }
            piece.push(id);
        }
        (piece, Stop::Walk(None))
    }

    fn piece_of_journal(&self, from: Place, octets: usize) -> (Vec<PrefixId>, Stop) {
        let mut budget = Budget { octets, prefixes: LOOKED_AT, last: None };
        let mut piece = Vec::new();
        for (place, id) in self.changes(from) {
            if !budget.take(self, id) {
                return (piece, Stop::Journal(place));
            }
            piece.push(id);
        }
        (piece, Stop::Journal(self.end()))
    }
}

/// What is left of a piece.
struct Budget {
    octets: usize,
    prefixes: usize,
    last: Option<SetId>,
}

impl Budget {
    /// Whether one prefix more goes in. The first always does.
    fn take(&mut self, table: &AdjRibOut, id: PrefixId) -> bool {
        if self.octets == 0 || self.prefixes == 0 {
            return false;
        }
        let set = table.slots().get(id).route.map(|route| route.set);
        let weight =
            set.filter(|_| set != self.last).map_or(0, |set| MESSAGE + table.set(set).octets().len());
        self.last = set;
        self.octets = self.octets.saturating_sub(weight + PREFIX);
        self.prefixes -= 1;
        true
    }
}

/// What a piece says to a peer, in the order of the piece.
fn actions(
    id: PeerId,
    peer: &Peer,
    piece: &[(PrefixId, Slot)],
    table: &AdjRibOut,
    position: Position,
) -> Vec<Action> {
    let mut actions = Vec::with_capacity(piece.len());
    // Routes that are told alike come one behind the other.
    let mut last: Option<(Route, Option<SetId>)> = None;
    for (prefix, slot) in piece {
        if matches!(position, Position::Walk(_)) && !peer.wants(*prefix, slot) {
            continue;
        }
        let set = slot.route.and_then(|route| {
            let known = last.filter(|(of, _)| *of == route);
            let told = known.unwrap_or_else(|| (route, table.told_to(id, peer.session(), route)));
            last = Some(told);
            told.1
        });
        if set.is_some() || peer.was_told(*prefix) {
            let says = set.map_or(Says::Withdraw, Says::Announce);
            actions.push(Action { family: prefix.family(), says, prefix: *prefix });
        }
    }
    actions
}

/// Keeps the books: what the peer knows now, and what is on its way.
fn note(peer: &mut Peer, packed: &Packed) {
    for action in &packed.actions {
        match action.says {
            Says::Announce(_) => peer.tell(action.prefix, action.family),
            Says::Withdraw => peer.untell(action.prefix, action.family),
        }
    }
    for action in packed.runs.iter().flat_map(|run| &run.refused) {
        peer.untell(action.prefix, action.family);
    }
    peer.sent(packed.bytes.len());
}

/// Packs actions into as few messages as they fit in. Peers that routes of the piece came from are told all but these: what they are told
/// like the peers before them is taken over as it is.
fn encode(actions: Vec<Action>, before: &[Packed], table: &AdjRibOut, session: &Session) -> Packed {
    let mut sorted = actions.clone();
    sorted.sort_unstable();
    let mut out = BytesMut::new();
    let mut runs: Vec<Run> = Vec::new();
    for run in sorted.chunk_by(|a, b| (a.family, a.says) == (b.family, b.says)) {
        let (from, start) = (runs.last().map_or(0, |last| last.actions.end), out.len());
        let known = before.iter().take(COMPARED).find_map(|packed| packed.find(run));
        let (messages, refused) = match known {
            Some((known, bytes)) => {
                out.extend_from_slice(bytes);
                (known.messages, known.refused.clone())
            }
            None => encode_run(run, table, session, &mut out),
        };
        runs.push(Run { actions: from..from + run.len(), bytes: start..out.len(), messages, refused });
    }
    Packed { actions, sorted, runs, bytes: out.freeze() }
}

/// Packs one run; returns in how many messages, and what did not fit into any.
fn encode_run(
    run: &[Action],
    table: &AdjRibOut,
    session: &Session,
    out: &mut BytesMut,
) -> (u64, Vec<Action>) {
    #[cfg(test)]
    ENCODED.with(|encoded| encoded.set(encoded.get() + run.len()));
    let Some(Action { family, says, .. }) = run.first().copied() else { return (0, Vec::new()) };
    let prefixes: Vec<PathKey> = run.iter().map(|action| table.slots().prefix(action.prefix)).collect();
    let Says::Announce(set) = says else { return (withdraw(family, &prefixes, session, out), Vec::new()) };
    let block = update::AttributeBlock::stored(table.set(set), family, session.four_octet_as);
    let (mut messages, mut done, mut refused) = (0, 0, Vec::new());
    while let Some(rest) = prefixes.get(done..).filter(|rest| !rest.is_empty()) {
        let packed = update::pack(&block, rest, session.max_message, out);
        match packed {
            0 => refused.extend(run.get(done).copied()),
            _ => messages += 1,
        }
        done += packed.max(1);
    }
    let withdrawn: Vec<PathKey> =
        refused.iter().map(|action: &Action| table.slots().prefix(action.prefix)).collect();
    messages += withdraw(family, &withdrawn, session, out);
    (messages, refused)
}

#[cfg(test)]
thread_local! {
    /// Prefixes encoded by this thread.
    pub(super) static ENCODED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Withdraws prefixes; returns in how many messages.
fn withdraw(family: Family, mut prefixes: &[PathKey], session: &Session, out: &mut BytesMut) -> u64 {
    let mut messages = 0;
    while !prefixes.is_empty() {
        let packed = update::pack_withdrawn(family, prefixes, session.max_message, out);
        prefixes = prefixes.get(packed.max(1)..).unwrap_or_default();
        messages += 1;
    }
    messages
}
