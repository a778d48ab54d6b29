//! Routes of several injectors change 10,000 times a second.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::super::daemons::resident;
use super::super::peers::Terms;
use super::super::routes::{Rng, Table, internet, internet_prefixes};
use super::super::{Watch, peer_address};
use super::changes::{Rate, Teller, best, churn, settle};
use super::{Check, Figures, Told, beside_weftd, connect, external};
use crate::wait::now;

const INJECTORS: u32 = 4;
const SINKS: u32 = 4;
const A_SECOND: u32 = 10_000;
/// How often memory is looked at.
const SAMPLES: u32 = 10;
/// How much more it may be in the second half of the time than in the first, in MiB: there are no more routes, but on a busy machine more
/// waits in weftd's queues, which hold 256 reads of 64 KiB and 256 KiB for each peer.
const GROWTH: f64 = 24.0;

pub(super) fn check(fraction: usize) -> Result<Vec<Figures>> {
    // All injectors tell the same, so that most changes are decided anew; each route has attributes of its own, as after its first change.
    let prefixes = internet_prefixes(20_000 / fraction.min(10), 21);
    let mut specs: Vec<_> = (1..=INJECTORS)
        .map(|number| {
            let (asn, address) = (65_100 + number, peer_address(number));
            external(number, internet(&prefixes, prefixes.len(), number.into(), asn, &[address]))
        })
        .collect();
    let injectors = specs.len();
    specs.extend((INJECTORS + 1..=INJECTORS + SINKS).map(|number| external(number, Table::default())));
    let lasts = Duration::from_millis((60_000 / fraction as u64).max(2000));
    let rate = Rate { a_second: A_SECOND, lasts };

    beside_weftd(&specs, false, |mut running| {
        let mut peers = connect(&specs, Terms::SILENT)?;
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
        let (mut memory, pid) = (Vec::new(), running.weftd()?);
        let watch = Watch::begin(&mut running)?;
        let last = churn(&mut peers, &mut tellers, &mut Rng(22), rate, |_, _, elapsed| {
            if elapsed >= lasts / SAMPLES * memory.len() as u32 {
                memory.push(resident(pid)?);
            }
            Ok(())
        })?;
        let lag = settle(&mut peers, &wanted(&tellers), last)?;
        let outcome = watch.end(Some(last.saturating_duration_since(start)))?;
        memory.push(resident(pid)?);
        let said = memory.iter().map(|mebibytes| format!("{mebibytes:.0}")).collect::<Vec<_>>().join(" ");
        let (early, late) = memory.split_at(memory.len() / 2);
        let most = |samples: &[f64]| samples.iter().copied().fold(0.0, f64::max);
        ensure!(most(late) < most(early) + GROWTH, "memory grew: {said} MiB");
        let told = Told::so_far(&peers, &sinks).since(before);
        let note = format!(
            "{} changes, {:.0} % of a processor; settled {:.3} s after the last; {said} MiB by and by",
            rate.changes(),
            100.0 * outcome.cpu / outcome.wall,
            lag.as_secs_f64(),
        );
        Ok(vec![Figures::new(Check::Churn, "changes", &outcome, told).note(note)])
    })
}
