//! The table for whoever copies it, a piece at a time.

use std::sync::Arc;

use ipnet::IpNet;

use super::Rib;
use crate::arena::prefixes::PrefixId;
use crate::types::PeerId;
use crate::wire::attributes::PathAttributes;

/// Whose a path is, its identifier, and its attributes.
type WalkedPath = (Option<PeerId>, u32, Arc<PathAttributes>);

impl Rib {
    /// Goes through the prefixes from a place in the table on, in no particular order, with whether any of its paths has an identifier, and
    /// every path as it was received: whose it is (none: our own), its identifier and its attributes. `look` says whether to go on behind the prefix. Gives the place where to go on; none: there is
    /// nothing behind.
    ///
    /// A prefix that is there from the first piece of a walk to the last one is seen once, whatever comes and goes meanwhile.
    pub fn walk(
        &self,
        from: usize,
        mut look: impl FnMut(&IpNet, bool, &mut dyn Iterator<Item = WalkedPath>) -> bool,
    ) -> Option<usize> {
        let attributes = &self.holdings.attributes;
        for (id, prefix, destination) in self.table.walk(from) {
            let mut paths = destination.paths().iter().map(|path| {
                let received = attributes.attributes(attributes.received(path.attributes));
                (path.source.peer(), path.source.path_id(), received)
            });
            let identified = destination.paths().iter().any(|path| path.source.path_id() != 0);
            if !look(&prefix, identified, &mut paths) {
                return Some(PrefixId::index(id).saturating_add(1));
            }
        }
        None
    }
}
