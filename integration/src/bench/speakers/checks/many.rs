//! 200 peers tell each other routes that change, and some of them are reset.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::super::daemons::ADDRESS;
use super::super::peers::{Peer, PeerSpec, Peers, Terms};
use super::super::routes::{Prefix, Rng, blocks, internet};
use super::super::{SESSIONS, Watch, peer_address};
use super::changes::{Rate, Teller, best, churn, settle};
use super::{Check, Figures, Told, beside_weftd, connect, external};
use crate::wait::now;

const PEERS: u32 = 200;
/// Each of the first tells the same as the one so many after it: one takes over where the other is reset.
const HALF: u32 = PEERS / 2;
/// Every so manieth is reset.
const RESET: usize = 10;
const A_SECOND: u32 = 1000;
/// How soon a peer whom weftd does not want back yet tries again.
const AGAIN: Duration = Duration::from_millis(100);

pub(super) fn check(fraction: usize) -> Result<Vec<Figures>> {
    let each = (300 / u32::try_from(fraction)?).max(4);
    let specs: Vec<PeerSpec> = (1..=PEERS)
        .map(|number| {
            let (asn, address) = (65_100 + number, peer_address(number));
            let table = blocks((number - 1) % HALF * each, each, address);
            let prefixes: Vec<Prefix> = table.sets.into_iter().flat_map(|(_, prefixes)| prefixes).collect();
            let sets = prefixes.len().div_ceil(10);
            external(number, internet(&prefixes, sets, number.into(), asn, &[address]))
        })
        .collect();
    let lasts = Duration::from_millis((20_000 / fraction as u64).max(400));
    let rate = Rate { a_second: A_SECOND, lasts };
    let all: Vec<usize> = (0..specs.len()).collect();

    beside_weftd(&specs, false, |mut running| {
        let mut peers = connect(&specs, Terms::SILENT)?;
        let of = specs.iter().enumerate();
        let mut tellers: Vec<_> = of.map(|(number, spec)| Teller::new(number, spec, usize::MAX)).collect();
        let wanted = |tellers: &[Teller]| {
            let best = best(tellers);
            let of = specs.iter().enumerate().map(|(number, spec)| (number, best.told_to(spec.address)));
            of.collect::<Vec<_>>()
        };
        let (watch, start, to_be) = (Watch::begin(&mut running)?, now(), wanted(&tellers));
        all.iter().for_each(|number| peers.tell(*number));
        let took = settle(&mut peers, &to_be, start)?;
        let told = Told::so_far(&peers, &all);
        let mut figures = vec![Figures::new(Check::Peers, "tables", &watch.end(Some(took))?, told)];

        let (watch, start) = (Watch::begin(&mut running)?, now());
        let mut resets = Resets::default();
        let last = churn(&mut peers, &mut tellers, &mut Rng(32), rate, |peers, tellers, elapsed| {
            resets.look(peers, tellers, elapsed, lasts)
        })?;
        while !resets.away.is_empty() {
            ensure!(last.elapsed() < SESSIONS, "{} peers did not come back", resets.away.len());
            peers.run(AGAIN, |_| false)?;
            resets.look(&mut peers, &mut tellers, lasts, lasts)?;
        }
        let lag = settle(&mut peers, &wanted(&tellers), last)?;
        let outcome = watch.end(Some(last.saturating_duration_since(start)))?;
        let note = format!(
            "{} changes, {} resets; settled {:.3} s after the last",
            rate.changes(),
            resets.count,
            lag.as_secs_f64()
        );
        let told = Told::so_far(&peers, &all);
        figures.push(Figures::new(Check::Peers, "changes and resets", &outcome, told).note(note));
        Ok(figures)
    })
}

/// Peers that are reset at a quarter of the time and come back at the half, with what they told last.
#[derive(Default)]
struct Resets {
    away: Vec<Teller>,
    /// When those who are away try to come back.
    next: Option<Instant>,
    count: usize,
}

impl Resets {
    fn look(
        &mut self,
        peers: &mut Peers,
        tellers: &mut Vec<Teller>,
        elapsed: Duration,
        lasts: Duration,
    ) -> Result<()> {
        if self.count == 0 && elapsed > lasts / 4 {
            self.away = tellers.extract_if(.., |teller| teller.number.is_multiple_of(RESET)).collect();
            self.count = self.away.len();
            self.away.iter().try_for_each(|teller| peers.reset(teller.number))?;
        }
        if elapsed <= lasts / 2 {
            return Ok(());
        }
        if self.next.is_none_or(|next| now() >= next) {
            self.next = Some(now() + AGAIN);
            let is_away = |teller: &&Teller| peers.all().get(teller.number).is_some_and(Peer::is_away);
            let away: Vec<usize> = self.away.iter().filter(is_away).map(|teller| teller.number).collect();
            away.into_iter().try_for_each(|number| peers.reconnect(number, ADDRESS))?;
        }
        let is_back = |teller: &mut Teller| peers.all().get(teller.number).is_some_and(Peer::is_established);
        for teller in self.away.extract_if(.., is_back).collect::<Vec<_>>() {
            peers.say(teller.number, &teller.table().updates);
            tellers.push(teller);
        }
        Ok(())
    }
}
