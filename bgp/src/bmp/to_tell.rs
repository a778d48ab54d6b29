//! What a station has yet to be told of the RIBs: prefixes that changed, and whole tables.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::{Ribs, Table};
use crate::wire::nlri::PathNlri;

/// Prefixes that changed, each once. What changes while they are told waits for the next round, so that a prefix that never rests does
/// not keep others from their turn.
#[derive(Debug, Default)]
pub(super) struct Changes {
    round: BTreeMap<Table, BTreeSet<PathNlri>>,
    next: BTreeMap<Table, BTreeSet<PathNlri>>,
    len: usize,
}

impl Changes {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn insert(&mut self, table: Table, paths: &[PathNlri]) {
        let set = self.next.entry(table).or_default();
        let before = set.len();
        set.extend(paths);
        self.len += set.len() - before;
    }

    /// Drops what is known of a table.
    pub(super) fn forget(&mut self, table: Table) {
        for tables in [&mut self.round, &mut self.next] {
            self.len -= tables.remove(&table).map_or(0, |paths| paths.len());
        }
    }

    /// Takes some out, so many at most.
    pub(super) fn take(&mut self, count: usize) -> Vec<(Table, PathNlri)> {
        let mut taken = Vec::new();
        while taken.len() < count {
            if self.round.is_empty() {
                std::mem::swap(&mut self.round, &mut self.next);
            }
            let Some(mut entry) = self.round.first_entry() else { break };
            match entry.get_mut().pop_first() {
                Some(path) => taken.push((*entry.key(), path)),
                None => {
                    entry.remove();
                }
            }
        }
        self.len -= taken.len();
        taken
    }
}

/// Tables that are told as a whole, in one walk over all prefixes. Those that come to it meanwhile wait for the next one.
#[derive(Debug, Default)]
pub(super) struct Walk {
    tables: BTreeSet<Table>,
    place: usize,
    next: BTreeSet<Table>,
}

impl Walk {
    pub(super) fn add(&mut self, table: Table) {
        self.tables.remove(&table);
        self.next.insert(table);
    }

    /// Drops a table.
    pub(super) fn forget(&mut self, table: Table) {
        self.tables.remove(&table);
        self.next.remove(&table);
    }

    pub(super) fn is_over(&self) -> bool {
        self.tables.is_empty() && self.next.is_empty()
    }

    /// Goes some prefixes further, and stops behind the one with which there are `count` to be told. Also gives the tables that have been
    /// told to the end with these.
    pub(super) fn step(
        &mut self,
        ribs: &impl Ribs,
        count: usize,
    ) -> (Vec<(Table, PathNlri)>, BTreeSet<Table>) {
        if self.tables.is_empty() {
            self.tables = std::mem::take(&mut self.next);
            self.place = 0;
        }
        let mut found = Vec::new();
        if self.tables.is_empty() {
            return (found, BTreeSet::new());
        }
        let prefixes = ribs.prefixes(self.place, count);
        let is_all = prefixes.len() < count;
        let looked_at = prefixes.len();
        for (n, (place, prefix)) in prefixes.into_iter().enumerate() {
            self.find(ribs, prefix, &mut found);
            self.place = place + 1;
            if found.len() >= count && n + 1 < looked_at {
                return (found, BTreeSet::new());
            }
        }
        let over = if is_all { std::mem::take(&mut self.tables) } else { BTreeSet::new() };
        (found, over)
    }

    /// The tables of this walk that may hold the prefix.
    fn find(&self, ribs: &impl Ribs, prefix: IpNet, found: &mut Vec<(Table, PathNlri)>) {
        if self.tables.first().is_some_and(|first| *first < Table::Loc) {
            let tables = ribs.sources(&prefix).into_iter().map(|(peer, path_id)| (Table::In(peer), path_id));
            let wanted = tables.filter(|(table, _)| self.tables.contains(table));
            found.extend(wanted.map(|(table, path_id)| (table, PathNlri { path_id, prefix })));
        }
        for table in self.tables.range(Table::Loc..) {
            let ids = match table {
                Table::Out(peer) => ribs.told_as(*peer, &prefix),
                Table::In(_) | Table::Loc => vec![0],
            };
            found.extend(ids.into_iter().map(|path_id| (*table, PathNlri { path_id, prefix })));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::PeerId;

    fn net(n: u8) -> PathNlri {
        PathNlri { path_id: 0, prefix: IpNet::new([10, n, 0, 0].into(), 16).unwrap() }
    }

    #[test]
    fn a_prefix_waits_once_and_does_not_go_before_others_twice() {
        let mut changes = Changes::default();
        changes.insert(Table::Loc, &[net(1), net(2), net(3)]);
        changes.insert(Table::Loc, &[net(1)]);
        assert_eq!(changes.len(), 3);
        assert_eq!(changes.take(1), [(Table::Loc, net(1))]);
        changes.insert(Table::Loc, &[net(1)]);
        assert_eq!(changes.take(2), [(Table::Loc, net(2)), (Table::Loc, net(3))]);
        assert_eq!((changes.take(9), changes.len()), (vec![(Table::Loc, net(1))], 0));
    }

    #[test]
    fn a_table_is_forgotten_in_this_round_and_the_next() {
        let (gone, stays) = (Table::In(PeerId(1)), Table::Out(PeerId(1)));
        let mut changes = Changes::default();
        changes.insert(gone, &[net(1), net(2)]);
        changes.take(1);
        changes.insert(gone, &[net(3)]);
        changes.insert(stays, &[net(4)]);
        changes.forget(gone);
        assert_eq!(changes.len(), 1);
        assert_eq!((changes.take(9), changes.len()), (vec![(stays, net(4))], 0));
    }
}
