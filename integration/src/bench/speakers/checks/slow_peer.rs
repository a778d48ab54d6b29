//! A sink that stops reading within the table costs the other nothing, and is told the last state only.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::super::peers::{PeerSpec, Peers, Terms};
use super::super::report::Outcome;
use super::super::routes::{Rng, Table, internet, internet_prefixes};
use super::super::{LIMIT, Running, Watch, has, peer_address};
use super::changes::{Rate, Teller, best, churn, settle};
use super::{Check, Figures, Told, beside_weftd, connect, external};
use crate::wait::now;

const INJECTOR: usize = 0;
const QUICK: usize = 1;
const STUCK: usize = 2;

/// The stuck one's, so that its window shuts soon.
const RECEIVE_BUFFER: usize = 32 * 1024;
/// So many prefixes may be under way to the stuck one, in weftd and in both kernels, before it is told the last state only.
const UNDER_WAY: u64 = 7000;

pub(super) fn check(fraction: usize) -> Result<Vec<Figures>> {
    let count = 1_000_000 / fraction;
    let table = internet(&internet_prefixes(count, 11), 107_457 / fraction, 12, 65_101, &[peer_address(1)]);
    let specs = [external(1, table), external(2, Table::default()), external(3, Table::default())];
    let lasts = Duration::from_millis((20_000 / fraction as u64).max(1000));
    let load = Load { specs: &specs, changing: count.min(1000), rate: Rate { a_second: 10_000, lasts } };
    let mut figures = Vec::new();
    for stuck in [false, true] {
        figures.extend(beside_weftd(&specs, false, |running| load.run(running, stuck))?);
    }
    // In little time a busy machine does anything.
    costs_nothing(&figures, fraction == 1)?;
    Ok(figures)
}

struct Load<'a> {
    specs: &'a [PeerSpec],
    changing: usize,
    rate: Rate,
}

impl Load<'_> {
    fn prefixes(&self) -> usize {
        self.specs.iter().map(|spec| spec.table.prefixes()).sum()
    }

    fn run(&self, mut running: Running, stuck: bool) -> Result<Vec<Figures>> {
        let mut peers = connect(self.specs, Terms { receive_buffer: Some(RECEIVE_BUFFER), ..Terms::SILENT })?;
        let words = if stuck { "one stuck" } else { "all read" };

        let watch = Watch::begin(&mut running)?;
        peers.tell(INJECTOR);
        let took = table(&mut peers, self.prefixes(), stuck)?;
        let outcome = watch.end(Some(took))?;
        let mut figures = vec![of_quick(&format!("the table, {words}"), &outcome, &peers, Told::default())];

        let (before, had) = (Told::so_far(&peers, &[QUICK]), Told::so_far(&peers, &[STUCK]));
        let watch = Watch::begin(&mut running)?;
        let injector = self.specs.first().context("no injector")?;
        let mut tellers = vec![Teller::new(INJECTOR, injector, self.changing)];
        let last = churn(&mut peers, &mut tellers, &mut Rng(13), self.rate, |_, _, _| Ok(()))?;
        let model = best(&tellers).told();
        let wanted = [(QUICK, model)];
        let took = settle(&mut peers, &wanted, last)?;
        let outcome = Outcome { wall: took.as_secs_f64(), ..watch.end(Some(took))? };
        let changes = of_quick(&format!("changes, {words}"), &outcome, &peers, before);
        figures.push(changes.note(format!("{} changes; wall: after the last", self.rate.changes())));

        let [(_, model)] = wanted;
        let watch = Watch::begin(&mut running)?;
        let last = now();
        peers.set_reading(STUCK, true)?;
        let took = settle(&mut peers, &[(STUCK, model)], last)?;
        if stuck {
            let told = Told::so_far(&peers, &[STUCK]).since(had);
            let outcome = watch.end(Some(took))?;
            figures.push(Figures::new(Check::SlowPeer, "the stuck one reads again", &outcome, told));
            let rest = self.prefixes() as u64 - had.announced;
            let limit = rest + self.changing as u64 + UNDER_WAY;
            ensure!(
                told.announced <= limit && limit < rest + self.rate.changes(),
                "the stuck peer was told {} prefixes, {rest} of the table; {limit} at most are the last state",
                told.announced
            );
        }
        Ok(figures)
    }
}

/// Until the quick one has the table; the stuck one stops at a quarter of it.
fn table(peers: &mut Peers, prefixes: usize, stuck: bool) -> Result<Duration> {
    let start = now();
    if stuck {
        let quarter = |peers: &Peers| peers.all().get(STUCK).is_some_and(|peer| peer.has() * 4 >= prefixes);
        ensure!(peers.run(LIMIT, quarter)?, "no quarter of the table came within {LIMIT:?}");
        peers.set_reading(STUCK, false)?;
    }
    let is_done = |peers: &Peers| has(peers, QUICK, prefixes) && (stuck || has(peers, STUCK, prefixes));
    ensure!(peers.run(LIMIT, is_done)?, "the table did not come within {LIMIT:?}");
    let took = start.elapsed();
    ensure!(!stuck || !has(peers, STUCK, prefixes), "the stuck peer has the whole table, and should not");
    Ok(took)
}

fn of_quick(part: &str, outcome: &Outcome, peers: &Peers, before: Told) -> Figures {
    Figures::new(Check::SlowPeer, part, outcome, Told::so_far(peers, &[QUICK]).since(before))
}

/// Fails if a part took much more of anything with a stuck peer. Half of it is what a busy machine makes of the same.
fn costs_nothing(figures: &[Figures], is_long: bool) -> Result<()> {
    let [table, changes, stuck_table, stuck_changes, _] = figures else { return Ok(()) };
    for (with, without) in [(stuck_table, table), (stuck_changes, changes)] {
        let more = |with: f64, without: f64| with > 1.5 * without + 0.5;
        ensure!(
            !(more(with.cpu_seconds, without.cpu_seconds)
                || is_long && more(with.wall_seconds, without.wall_seconds)),
            "a stuck peer costs the others time:\n{without}\n{with}"
        );
        ensure!(with.peak_mb < 1.25 * without.peak_mb + 8.0, "a stuck peer costs memory:\n{without}\n{with}");
    }
    Ok(())
}
