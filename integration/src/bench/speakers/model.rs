//! What sinks ought to have been told in the end, and whether they were.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};

use super::peers::{self, PeerSpec};
use super::routes::{Attributes, Prefix, Table};

/// The octets of the path attributes of each prefix.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Model(BTreeMap<Prefix, Arc<[u8]>>);

impl Model {
    /// What an external peer has of these, who are external too.
    #[must_use]
    pub fn of_best(injectors: &[&PeerSpec], asn: u32) -> Self {
        Best::of(injectors.iter().map(|injector| (injector.address, &*injector.table)), asn).told()
    }

    /// Of how many prefixes it is.
    #[must_use]
    pub fn prefixes(&self) -> usize {
        self.0.len()
    }

    /// What a client of a reflector has of these others.
    #[must_use]
    pub fn of_clients<'a>(clients: impl Iterator<Item = &'a PeerSpec>, cluster: Ipv4Addr) -> Self {
        let mut all = BTreeMap::new();
        for client in clients {
            for (attributes, prefixes) in &client.table.sets {
                let octets = octets(&attributes.reflected(client.address, cluster));
                all.extend(prefixes.iter().map(|prefix| (*prefix, Arc::clone(&octets))));
            }
        }
        Self(all)
    }

    /// What is left of these UPDATEs in the end.
    ///
    /// # Errors
    /// If they are none.
    pub fn of_updates(mut updates: &[u8]) -> Result<Self> {
        let mut all = BTreeMap::new();
        while let Some((message, rest)) = peers::split_message(updates)? {
            let update = peers::Update::of(message).context("an UPDATE that is too short")?;
            for prefix in peers::prefixes(update.withdrawn) {
                all.remove(&prefix.context("a prefix that is too short")?);
            }
            let octets: Arc<[u8]> = update.attributes.into();
            for prefix in peers::prefixes(update.announced) {
                all.insert(prefix.context("a prefix that is too short")?, Arc::clone(&octets));
            }
            updates = rest;
        }
        ensure!(updates.is_empty(), "{} octets after the last UPDATE", updates.len());
        Ok(Self(all))
    }

    /// Fails where `told` is not this.
    ///
    /// # Errors
    /// The first prefixes that differ, and how.
    pub fn ensure_is(&self, told: &Self) -> Result<()> {
        let mut differing: Vec<&Prefix> = self
            .0
            .keys()
            .chain(told.0.keys())
            .filter(|prefix| self.0.get(prefix) != told.0.get(prefix))
            .collect();
        differing.sort();
        differing.dedup();
        let Some(first) = differing.first() else { return Ok(()) };
        ensure!(
            false,
            "{} of {} prefixes are not as they ought to be; {first} has {:02x?}, and ought to have {:02x?}",
            differing.len(),
            self.0.len(),
            told.0.get(first),
            self.0.get(first)
        );
        Ok(())
    }
}

/// The best path of each prefix, as it is told: of each prefix the path with the shortest AS path and, of those, from the peer with the
/// lowest BGP identifier (RFC 4271 section 9.1.2.2). All peers are external.
#[derive(Debug)]
pub struct Best(BTreeMap<Prefix, Path>);

/// What of a path counts for the decision, in its order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Path {
    length: usize,
    from: Ipv4Addr,
    octets: Arc<[u8]>,
}

impl Best {
    /// Of these tables, each with its peer's BGP identifier, as a speaker of AS `asn` passes them on.
    pub fn of<'a>(tables: impl IntoIterator<Item = (Ipv4Addr, &'a Table)>, asn: u32) -> Self {
        let mut best: BTreeMap<Prefix, Path> = BTreeMap::new();
        for (from, table) in tables {
            for (attributes, prefixes) in &table.sets {
                let (length, octets) = (attributes.as_path.len(), octets(&attributes.passed_on(asn)));
                for prefix in prefixes {
                    let path = Path { length, from, octets: Arc::clone(&octets) };
                    let held = best.entry(*prefix).or_insert_with(|| path.clone());
                    if path < *held {
                        *held = path;
                    }
                }
            }
        }
        Self(best)
    }

    /// What a peer has of it that told none of it.
    #[must_use]
    pub fn told(&self) -> Model {
        self.but(None)
    }

    /// What this peer has of it: nobody is told his own path.
    #[must_use]
    pub fn told_to(&self, peer: Ipv4Addr) -> Model {
        self.but(Some(peer))
    }

    fn but(&self, peer: Option<Ipv4Addr>) -> Model {
        let others = self.0.iter().filter(|(_, path)| Some(path.from) != peer);
        Model(others.map(|(prefix, path)| (*prefix, Arc::clone(&path.octets))).collect())
    }
}

fn octets(attributes: &Attributes) -> Arc<[u8]> {
    attributes.octets().into()
}

#[cfg(test)]
mod tests {
    use super::super::routes;
    use super::*;

    fn injector(n: u8, prefixes: &[Prefix], asn: u32) -> PeerSpec {
        let address = Ipv4Addr::new(10, 0, 0, n);
        let table = routes::internet(prefixes, 3, n.into(), asn, &[address]);
        PeerSpec { address, asn, table: Arc::new(table), own: Vec::new() }
    }

    #[test]
    fn of_paths_the_shortest_and_then_the_lowest_identifier_counts() {
        let prefixes = routes::internet_prefixes(50, 1);
        let all: Vec<PeerSpec> = (1..=4).map(|n| injector(n, &prefixes, 100 + u32::from(n))).collect();
        let model = Model::of_best(&all.iter().collect::<Vec<_>>(), 65_000);
        assert_eq!(model.0.len(), 50);
        for prefix in &prefixes {
            let paths = all.iter().flat_map(|peer| &peer.table.sets).filter(|(_, p)| p.contains(prefix));
            let best = paths.min_by_key(|(set, _)| (set.as_path.len(), set.next_hop)).unwrap();
            assert_eq!(*model.0[prefix], best.0.passed_on(65_000).octets());
        }
        let best = Best::of(all.iter().map(|peer| (peer.address, &*peer.table)), 65_000);
        assert_eq!(best.told(), model);
        let others: Vec<Model> = all.iter().map(|peer| best.told_to(peer.address)).collect();
        assert_eq!(others.iter().map(Model::prefixes).sum::<usize>(), 3 * 50, "nobody has what is his own");
    }

    #[test]
    fn updates_make_the_model_of_what_they_tell() {
        let client = |n: u8| {
            let address = Ipv4Addr::new(10, 0, 0, n);
            PeerSpec {
                address,
                asn: 1,
                table: Arc::new(routes::blocks(n.into(), 2, address)),
                own: Vec::new(),
            }
        };
        let (one, other) = (client(1), client(3));
        let model = Model::of_clients([&one, &other].into_iter(), Ipv4Addr::new(9, 9, 9, 9));
        assert_eq!(model.0.len(), 4);
        let raw = Model::of_updates(&[&*one.table.updates, &*other.table.updates].concat()).unwrap();
        assert_eq!(raw.0.len(), 4);
        let error = model.ensure_is(&raw).unwrap_err().to_string();
        assert!(error.starts_with("4 of 4 prefixes are not") && error.contains("10.0.0.64/26"), "{error}");
        model.ensure_is(&model).unwrap();
        assert!(Model::default().ensure_is(&raw).is_err(), "what is there too much counts");
        assert!(Model::of_updates(&one.table.updates[..30]).is_err());
    }
}
