//! Peers whose routes change, and what they tell at any moment.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::super::daemons::ASN;
use super::super::model::{Best, Model};
use super::super::peers::{Peer, PeerSpec, Peers};
use super::super::routes::{Attributes, Prefix, Rng, Table, announce, withdraw};
use super::super::{LIMIT, told};
use crate::wait::now;

/// Between two looks at how many changes are due.
const TICK: Duration = Duration::from_millis(5);
/// Nobody is told anything for so long: what was told may be looked at.
const QUIET: Duration = Duration::from_millis(250);
/// Of a hundred changes so many withdraw.
const WITHDRAWN: u64 = 25;

/// A peer and what it tells.
#[derive(Debug)]
pub(super) struct Teller {
    /// Its number.
    pub(super) number: usize,
    spec: PeerSpec,
    /// How many of its prefixes change.
    changing: usize,
    routes: Vec<(Prefix, Option<Arc<Attributes>>)>,
}

impl Teller {
    /// One that tells its table, and changes so many of its prefixes, from all over it.
    pub(super) fn new(number: usize, spec: &PeerSpec, changing: usize) -> Self {
        let mut routes = Vec::with_capacity(spec.table.prefixes());
        for (attributes, prefixes) in &spec.table.sets {
            let attributes = Arc::new(attributes.clone());
            routes.extend(prefixes.iter().map(|prefix| (*prefix, Some(Arc::clone(&attributes)))));
        }
        Self { number, spec: spec.clone(), changing: changing.clamp(1, routes.len().max(1)), routes }
    }

    /// Changes one of its routes: it has other path attributes, or is withdrawn if it is there.
    fn change(&mut self, rng: &mut Rng, updates: &mut Vec<u8>) {
        let step = self.routes.len() / self.changing;
        let choice = rng.below(self.changing as u64) as usize * step;
        let Some((prefix, route)) = self.routes.get_mut(choice) else { return };
        if route.is_some() && rng.below(100) < WITHDRAWN {
            *route = None;
            return withdraw(&[*prefix], updates);
        }
        let origin = 100_000 + rng.below(100_000) as u32;
        let attributes = Attributes::internet(rng, self.spec.asn, self.spec.address, origin);
        announce(&attributes, &[*prefix], updates);
        *route = Some(Arc::new(attributes));
    }

    /// What it tells at the moment.
    pub(super) fn table(&self) -> Table {
        let mut table = Table::default();
        let there = self.routes.iter().filter_map(|(prefix, route)| Some((*prefix, route.as_ref()?)));
        let mut there = there.peekable();
        while let Some((prefix, attributes)) = there.next() {
            let mut prefixes = vec![prefix];
            while let Some((prefix, _)) = there.next_if(|(_, next)| Arc::ptr_eq(next, attributes)) {
                prefixes.push(prefix);
            }
            table.announce(attributes.as_ref().clone(), prefixes);
        }
        table
    }
}

/// The best of what these tell at the moment.
pub(super) fn best<'a>(tellers: impl IntoIterator<Item = &'a Teller>) -> Best {
    let tables: Vec<_> = tellers.into_iter().map(|teller| (teller.spec.address, teller.table())).collect();
    Best::of(tables.iter().map(|(address, table)| (*address, table)), ASN)
}

/// So many changes a second for so long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    pub(super) a_second: u32,
    pub(super) lasts: Duration,
}

impl Rate {
    fn due(self, elapsed: Duration) -> u64 {
        (elapsed.min(self.lasts).as_secs_f64() * f64::from(self.a_second)) as u64
    }

    pub(super) fn changes(self) -> u64 {
        self.due(self.lasts)
    }
}

/// Has these change their routes, each UPDATE one of them, and says when the last one was told. `look` is called between, with how long it
/// lasts already; who is not to tell anything is taken from `tellers` by it.
pub(super) fn churn(
    peers: &mut Peers,
    tellers: &mut Vec<Teller>,
    rng: &mut Rng,
    rate: Rate,
    mut look: impl FnMut(&mut Peers, &mut Vec<Teller>, Duration) -> Result<()>,
) -> Result<Instant> {
    let (start, mut told) = (now(), 0);
    let mut last = start;
    while told < rate.changes() {
        let due = rate.due(start.elapsed());
        let mut updates = vec![Vec::new(); tellers.len()];
        while told < due {
            let choice = rng.below(tellers.len().max(1) as u64) as usize;
            if let (Some(teller), Some(updates)) = (tellers.get_mut(choice), updates.get_mut(choice)) {
                teller.change(rng, updates);
            }
            told += 1;
        }
        for (teller, updates) in tellers.iter().zip(updates).filter(|(_, updates)| !updates.is_empty()) {
            peers.say(teller.number, &updates);
        }
        last = now();
        peers.run(TICK, |_| false)?;
        look(peers, tellers, start.elapsed())?;
    }
    Ok(last)
}

/// Waits until each of these has been told what it ought to have been. How long it took from `since` to the last UPDATE is returned.
///
/// # Errors
/// What is different after [`LIMIT`].
pub(super) fn settle(peers: &mut Peers, wanted: &[(usize, Model)], since: Instant) -> Result<Duration> {
    let end = now() + LIMIT;
    loop {
        let calm = now() + QUIET;
        let rests =
            |peer: &Peer| peer.unsaid() == 0 && peer.last_update().is_none_or(|last| last.elapsed() >= QUIET);
        let are_there = |peers: &Peers| {
            let counts = wanted.iter().all(|(number, model)| {
                peers.all().get(*number).is_some_and(|peer| peer.has() == model.prefixes())
            });
            counts && now() >= calm && peers.all().iter().all(rests)
        };
        peers.run(end.saturating_duration_since(now()), are_there)?;
        let differs = wanted.iter().find_map(|(number, model)| {
            let differs = told(peers, *number).and_then(|told| model.ensure_is(&told)).err()?;
            Some(differs.context(format!("what the peer {number} was told")))
        });
        match differs {
            None => break,
            Some(differs) if now() >= end => {
                return Err(differs).with_context(|| format!("it is not so after {LIMIT:?}"));
            }
            Some(_) => {}
        }
    }
    let lasts = wanted.iter().filter_map(|(number, _)| peers.all().get(*number)?.last_update());
    let last = lasts.max();
    ensure!(
        last.is_some() || wanted.iter().all(|(_, model)| model.prefixes() == 0),
        "nobody was told anything"
    );
    Ok(last.map_or(Duration::ZERO, |last| last.saturating_duration_since(since)))
}
