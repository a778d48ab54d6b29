//! Aggregates: prefixes of our own that are announced while the Loc-RIB has a more specific one (RFC 4271 section 9.2.2.2).

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipnet::IpNet;

use super::attributes::PathType;
use super::export::{Exporter, Provenance};
use super::holdings::{Holdings, Source};
use super::loc::Destination;
use super::{Rib, RibOutput, Settings};
use crate::arena::prefixes::{PrefixId, PrefixTable};
use crate::config::{Aggregation, Origination};

/// Where what we originate comes from.
const LOCAL: Provenance =
    Provenance { path_type: PathType::Local, client: false, identifier: Ipv4Addr::UNSPECIFIED };

/// An aggregate that is configured.
#[derive(Clone, Debug)]
struct Aggregate {
    origination: Origination,
    /// How many more specific prefixes have a best path.
    contributors: usize,
}

impl Aggregate {
    /// Whether it is told in place of its parts.
    fn is_summary(&self) -> bool {
        self.origination.aggregation == Some(Aggregation::SummaryOnly)
    }
}

/// Every aggregate.
#[derive(Debug, Default)]
pub(super) struct Aggregates {
    by_prefix: BTreeMap<IpNet, Aggregate>,
    /// The distinct lengths, ascending.
    lengths: BTreeSet<u8>,
    /// Those whose announcement begins or ends, as their number of contributors says.
    changed: BTreeSet<IpNet>,
}

impl Aggregates {
    /// The aggregates among what is originated, without contributors.
    fn of(settings: &Settings) -> Self {
        let by_prefix: BTreeMap<IpNet, Aggregate> = settings
            .aggregates()
            .map(|(prefix, origination)| {
                (prefix.trunc(), Aggregate { origination: origination.clone(), contributors: 0 })
            })
            .collect();
        let lengths = by_prefix.keys().map(IpNet::prefix_len).collect();
        Self { by_prefix, lengths, changed: BTreeSet::new() }
    }

    /// The aggregates that a prefix contributes to.
    fn above(lengths: &BTreeSet<u8>, prefix: &IpNet) -> impl Iterator<Item = IpNet> {
        lengths
            .range(..prefix.prefix_len())
            .filter_map(|length| IpNet::new(prefix.addr(), *length).ok().map(|net| net.trunc()))
    }

    /// Takes in that a prefix has a best path now, or none any more.
    pub(super) fn count(&mut self, prefix: &IpNet, has_best: bool) {
        for net in Self::above(&self.lengths, prefix) {
            let Some(aggregate) = self.by_prefix.get_mut(&net) else { continue };
            let before = aggregate.contributors;
            aggregate.contributors = if has_best { before + 1 } else { before.saturating_sub(1) };
            if (before == 0) != (aggregate.contributors == 0) {
                self.changed.insert(net);
            }
        }
    }

    /// The aggregate that peers are told of in place of a prefix.
    pub(super) fn summary(
        &self,
        prefix: &IpNet,
        exporter: &Exporter,
        table: &PrefixTable<Destination>,
        holdings: &Holdings,
    ) -> Option<IpNet> {
        Self::above(&self.lengths, prefix).find(|net| {
            let summarizes = |a: &Aggregate| a.is_summary() && a.contributors > 0;
            let own = table.find(net).filter(|_| self.by_prefix.get(net).is_some_and(summarizes));
            let own = own.and_then(|id| table.get(id).path(Source::LOCAL));
            own.is_some_and(|path| {
                let attributes = holdings.attributes.attributes(path.attributes);
                exporter.admit(net, &LOCAL, &attributes).is_ok()
            })
        })
    }
}

impl Rib {
    /// Takes in which aggregates there are.
    pub(super) fn configure_aggregates(&mut self) {
        let old = std::mem::replace(&mut self.aggregates, Aggregates::of(&self.settings));
        if old.by_prefix.is_empty() && self.aggregates.by_prefix.is_empty() {
            return;
        }
        for (_, prefix, destination) in self.table.walk(0) {
            if destination.best().is_some() {
                self.aggregates.count(&prefix, true);
            }
        }
        self.aggregates.changed.extend(self.aggregates.by_prefix.keys());
        self.begin_aggregates();
        self.end_aggregates();
        if self.aggregates.by_prefix.is_empty() {
            self.tell_aggregates();
        }
        // Who is told the whole in place of its parts, or the parts again: export policy may tell by what goes along with it.
        let origination = |of: &Aggregates, net: &IpNet| of.by_prefix.get(net).map(|a| a.origination.clone());
        let all = old.by_prefix.keys().chain(self.aggregates.by_prefix.keys());
        let others = all.filter(|net| origination(&old, net) != origination(&self.aggregates, net)).copied();
        let (summaries, parts): (Vec<IpNet>, Vec<IpNet>) =
            others.partition(|net| self.aggregates.by_prefix.get(net).is_some_and(Aggregate::is_summary));
        // There is a route at every moment: the parts are told before the whole is taken back, and the whole before its parts are.
        self.export_inside(&parts);
        if !summaries.is_empty() {
            while self.decide_dirty() {}
            self.export_inside(&summaries);
        }
    }

    fn export_inside(&mut self, aggregates: &[IpNet]) {
        let inside = |prefix: &IpNet| aggregates.iter().any(|net| net.contains(prefix));
        let ids: Vec<PrefixId> =
            self.table.walk(0).filter(|(_, prefix, _)| inside(prefix)).map(|(id, ..)| id).collect();
        self.export(&ids, &ids);
    }

    /// Originates the aggregates that have their first contributor.
    pub(super) fn begin_aggregates(&mut self) {
        let aggregates = &self.aggregates;
        let has_some = |net: &&IpNet| aggregates.by_prefix.get(net).is_some_and(|a| a.contributors > 0);
        for net in aggregates.changed.iter().filter(has_some).copied().collect::<Vec<_>>() {
            if let Some(origination) = self.settings.originate.get(&net).cloned() {
                self.originate(net, &origination);
            }
        }
    }

    /// Withdraws the aggregates that have lost their last contributor, and says which are left.
    pub(super) fn end_aggregates(&mut self) {
        let changed = std::mem::take(&mut self.aggregates.changed);
        if changed.is_empty() {
            return;
        }
        for net in changed {
            if self.aggregates.by_prefix.get(&net).is_some_and(|a| a.contributors == 0) {
                self.originate_no_more(net);
            }
        }
        self.tell_aggregates();
    }

    fn tell_aggregates(&mut self) {
        let all = self.aggregates.by_prefix.iter();
        let announced =
            all.filter(|(_, aggregate)| aggregate.contributors > 0).map(|(net, _)| *net).collect();
        self.outputs.push_back(RibOutput::Aggregates(announced));
    }
}
