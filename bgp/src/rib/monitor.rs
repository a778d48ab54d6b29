//! What changed, for those who watch the tables, and the tables as they are shown to them (see [`crate::bmp`]).

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::Rib;
use super::attributes::Interned;
use super::holdings::Source;
use crate::bmp::{Received, Table};
use crate::types::{Family, PeerId};
use crate::wire::nlri::PathNlri;
use crate::wire::update::Stored;

/// What is watched, and what changed in it since that was told last. Nothing is noted of what nobody watches.
#[derive(Debug, Default)]
pub(super) struct Monitor {
    adj_rib_in: bool,
    loc_rib: bool,
    changed: BTreeMap<Table, Vec<PathNlri>>,
}

impl Monitor {
    pub(super) fn configure(&mut self, adj_rib_in: bool, loc_rib: bool) {
        (self.adj_rib_in, self.loc_rib) = (adj_rib_in, loc_rib);
    }

    /// A path came, went or changed.
    pub(super) fn path(&mut self, source: Source, prefix: &IpNet) {
        if let Some(peer) = source.peer().filter(|_| self.adj_rib_in) {
            let path = PathNlri { path_id: source.path_id(), prefix: *prefix };
            self.changed.entry(Table::In(peer)).or_default().push(path);
        }
    }

    /// Another path is the best, or none is.
    pub(super) fn best(&mut self, prefix: IpNet) {
        if self.loc_rib {
            self.changed.entry(Table::Loc).or_default().push(PathNlri { path_id: 0, prefix });
        }
    }

    /// The next table that changed, and where.
    pub(super) fn next(&mut self) -> Option<(Table, Vec<PathNlri>)> {
        self.changed.pop_first()
    }
}

impl Rib {
    /// Some prefixes that have paths, each with its place, from a place on.
    pub(crate) fn prefixes(&self, from: usize, count: usize) -> Vec<(usize, IpNet)> {
        self.table.walk(from).take(count).map(|(id, prefix, _)| (id.index(), prefix)).collect()
    }

    /// The peers that have told of a prefix, and by which path identifier; 0: by none.
    pub(crate) fn sources(&self, prefix: &IpNet) -> Vec<(PeerId, u32)> {
        let Some(id) = self.table.find(prefix) else { return Vec::new() };
        let paths = self.table.get(id).paths().iter();
        paths.filter_map(|path| Some((path.source.peer()?, path.source.path_id()))).collect()
    }

    /// The path identifiers by which the paths of a prefix are told to peers that are told several.
    pub(crate) fn numbers(&self, prefix: &IpNet) -> Vec<u16> {
        let Some(id) = self.table.find(prefix) else { return Vec::new() };
        self.table.get(id).paths().iter().map(|path| path.number).collect()
    }

    /// A peer's path, as it was received and as it was accepted.
    pub(crate) fn received(&self, peer: PeerId, nlri: &PathNlri) -> Option<Received<'_>> {
        let destination = self.table.get(self.table.find(&nlri.prefix)?);
        let path = destination.path(Source::of(peer, nlri.path_id))?;
        let attributes = &self.holdings.attributes;
        let accepted = path.standing.uses_next_hop().then(|| attributes.get(path.attributes));
        Some(Received {
            pre_policy: attributes.get(attributes.received(path.attributes)).stored(),
            post_policy: accepted.and_then(Interned::stored),
        })
    }

    /// The best path.
    pub(crate) fn best(&self, prefix: &IpNet) -> Option<&Stored> {
        let best = self.table.get(self.table.find(prefix)?).best()?;
        self.holdings.attributes.get(best.attributes).stored()
    }

    /// How many prefixes of each family have a best path.
    pub(crate) fn best_counts(&self) -> [(Family, usize); 2] {
        let mut counts = Family::ALL.map(|family| (family, 0));
        for (_, prefix, _) in self.table.walk(0).filter(|(.., destination)| destination.best().is_some()) {
            let of = Family::of(&prefix);
            counts.iter_mut().filter(|(family, _)| *family == of).for_each(|(_, count)| *count += 1);
        }
        counts
    }
}
