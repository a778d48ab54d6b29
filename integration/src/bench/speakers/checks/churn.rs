//! Routes of several injectors change 10,000 times a second.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::super::daemons::resident;
use super::super::routes::{Rng, Table, internet, internet_prefixes};
use super::super::{Watch, peer_address};
use super::changes::{Rate, Teller, best, churn, settle};
use super::{Check, Figures, Told, beside_weftd, connect, external};
use crate::wait::now;

const INJECTORS: u32 = 4;
const SINKS: u32 = 4;
const A_SECOND: u32 = 10_000;
/// Memory that a heap may take more of from one third of the time to the end, in MiB, for no more routes.
const GROWTH: f64 = 8.0;

pub(super) fn check(fraction: usize) -> Result<Vec<Figures>> {
    // All injectors tell the same, so that most changes are decided anew.
    let prefixes = internet_prefixes(20_000 / fraction.min(10), 21);
    let mut specs: Vec<_> = (1..=INJECTORS)
        .map(|number| {
            let (asn, address) = (65_100 + number, peer_address(number));
            external(number, internet(&prefixes, prefixes.len() / 10, number.into(), asn, &[address]))
        })
        .collect();
    let injectors = specs.len();
    specs.extend((INJECTORS + 1..=INJECTORS + SINKS).map(|number| external(number, Table::default())));
    let lasts = Duration::from_millis((60_000 / fraction as u64).max(2000));
    let rate = Rate { a_second: A_SECOND, lasts };

    beside_weftd(&specs, false, |mut running| {
        let mut peers = connect(&specs, None)?;
        let of = specs.iter().enumerate().take(injectors);
        let mut tellers: Vec<_> =
            of.map(|(number, spec)| Teller::new(number, spec, prefixes.len())).collect();
        let sinks: Vec<usize> = (injectors..specs.len()).collect();
        let wanted = |tellers: &[Teller]| {
            let best = best(tellers);
            let of = specs.iter().enumerate().map(|(number, spec)| (number, best.told_to(spec.address)));
            of.collect::<Vec<_>>()
        };
        let start = now();
        (0..injectors).for_each(|number| peers.tell(number));
        settle(&mut peers, &wanted(&tellers), start)?;

        let (before, start) = (Told::so_far(&peers, &sinks), now());
        let (mut early, pid) = (None, running.weftd()?);
        let watch = Watch::begin(&mut running)?;
        let last = churn(&mut peers, &mut tellers, &mut Rng(22), rate, |_, _, elapsed| {
            if early.is_none() && elapsed > lasts / 3 {
                early = Some(resident(pid)?);
            }
            Ok(())
        })?;
        let lag = settle(&mut peers, &wanted(&tellers), last)?;
        let outcome = watch.end(Some(last.saturating_duration_since(start)))?;
        let late = resident(pid)?;
        let early = early.unwrap_or(late);
        ensure!(late < early + GROWTH, "of {early:.1} MiB memory grew to {late:.1}");
        let told = Told::so_far(&peers, &sinks).since(before);
        let note = format!(
            "{} changes, {:.0} % of a processor; settled {:.3} s after the last; {early:.1} MiB at a third, {late:.1} at the end",
            rate.changes(),
            100.0 * outcome.cpu / outcome.wall,
            lag.as_secs_f64(),
        );
        Ok(vec![Figures::new(Check::Churn, "changes", &outcome, told).note(note)])
    })
}
