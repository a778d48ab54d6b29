//! Several paths of one prefix (RFC 7911): which of them peers are told, and by what identifiers.
//!
//! A path has a number among the prefix's, which it keeps as long as it stands, whatever becomes of the others. It is the path identifier
//! towards all peers.

use std::sync::Arc;

use ipnet::IpNet;
use smallvec::SmallVec;

use super::Rib;
use super::decision::{Candidate, Candidates};
use super::export::Exporter;
use super::holdings::Path;
use super::loc::{Best, Decided, Destination};
use super::query::peer_next_hop;
use crate::arena::prefixes::{PackedKey, PrefixId};
use crate::config::{AddPathSend, PathChoice};
use crate::egress::{Changes, PathKey};
use crate::status::PathStatus;
use crate::types::{Family, PeerId, Reason};
use crate::wire::attributes::PathAttributes;

/// The paths that an update group's peers are told of each prefix.
#[derive(Debug, Default)]
pub(super) struct Several {
    /// Their numbers, by the prefix.
    told: Vec<SmallVec<[u16; 4]>>,
}

impl Several {
    /// How the Adj-RIB-Out changes now that a prefix was decided on.
    pub(super) fn changes(
        &mut self,
        id: PrefixId,
        send: AddPathSend,
        exporter: &Exporter,
        decided: &Decided<'_>,
        changes: &mut Changes,
    ) {
        let prefix = decided.table.prefix(id);
        let key = |path_id| PackedKey::of(&PathKey { prefix, path_id });
        let mut now = SmallVec::new();
        if decided.aggregates.summary(&prefix, exporter, decided.table, decided.holdings).is_none() {
            let candidates = decided.candidates(id);
            let told = chosen(send, &candidates, decided.table.get(id))
                .filter_map(|path| Some((path, decided.told(prefix, path, exporter)?)));
            for (path, attributes) in told.take(send.limit.into()) {
                now.push(path.number);
                changes.announce(key(path.number), &attributes, path.source.peer());
            }
        }
        if self.told.len() <= id.index() {
            self.told.resize_with(id.index() + 1, SmallVec::new);
        }
        let Some(told) = self.told.get_mut(id.index()) else { return };
        let before = std::mem::replace(told, now);
        let gone = before.into_iter().filter(|number| !told.contains(number));
        gone.for_each(|number| changes.withdraw(key(number)));
    }
}

/// The paths that may be told, the better ones first.
fn chosen<'a>(
    send: AddPathSend,
    candidates: &'a Candidates,
    destination: &'a Destination,
) -> impl Iterator<Item = &'a Path> {
    let paths = candidates.iter().filter(move |candidate| is_chosen(send, candidate));
    paths.filter_map(|candidate| destination.paths().get(candidate.path)).filter(|path| path.number != 0)
}

fn is_chosen(send: AddPathSend, candidate: &Candidate) -> bool {
    match send.paths {
        PathChoice::All => true,
        PathChoice::Multipath => candidate.multipath,
    }
}

impl Decided<'_> {
    /// What peers are told of a path, if they are.
    fn told(&self, prefix: IpNet, path: &Path, exporter: &Exporter) -> Option<Arc<PathAttributes>> {
        if !self.tells(path.source) {
            return None;
        }
        let from = self.holdings.provenance(Best { source: path.source, attributes: path.attributes })?;
        let attributes = self.holdings.attributes.attributes(path.attributes);
        let operations = exporter.admit(&prefix, &from, &attributes).ok()?;
        Some(Arc::new(exporter.rewrite(Family::of(&prefix), &from, &attributes, operations)))
    }
}

impl Rib {
    /// The paths of a prefix as a peer is told them, and why it is not told the others.
    pub(super) fn told_several(
        &self,
        id: PeerId,
        prefix_id: PrefixId,
        send: AddPathSend,
        exporter: &Exporter,
    ) -> Vec<PathStatus> {
        let (prefix, destination) = (self.table.prefix(prefix_id), self.table.get(prefix_id));
        let mut room = send.limit;
        let mut paths = Vec::new();
        for candidate in &self.candidates(prefix_id) {
            let Some(path) = destination.paths().get(candidate.path) else { continue };
            let best = Best { source: path.source, attributes: path.attributes };
            let Some(exported) = self.exported(prefix, best, exporter) else { continue };
            let mut status = self.untold(prefix, best, destination);
            let told = match exported {
                _ if !is_chosen(send, candidate) => Err(Reason::new(
                    "not-multipath",
                    "the peer is told the best path and those that are used beside it",
                )),
                Ok(_) if room == 0 || path.number == 0 => Err(Reason::new(
                    "send-max",
                    format!("the peer is told {} paths of a prefix, and these are better", send.limit),
                )),
                Ok(_) if path.source.is_of(id) => {
                    room -= 1;
                    Err(Reason::new("split-horizon", "the path was learned from this peer"))
                }
                Ok(told) if self.leads_to(id, &told) => {
                    room -= 1;
                    Err(peer_next_hop(told.next_hop))
                }
                exported => exported,
            };
            match told {
                Err(reason) => status.reason = reason,
                Ok(told) => {
                    room -= 1;
                    status.attributes = told;
                    (status.valid, status.best) = (true, candidate.lost.is_none());
                    status.path_id = Some(path.number.into());
                    status.reason =
                        Reason::new("advertised", "the path is usable, and the export policy accepts it");
                }
            }
            paths.push(status);
        }
        paths
    }
}
