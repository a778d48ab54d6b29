//! Tables come and go again and again, of peers that say nothing else: where a wake-up is lost, what is left waits for ever. FRR's bgpd has
//! left input of one fast peer unread until that said something more, and output to one of a hundred slow readers unsent.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::super::daemons::{ADDRESS, ASN};
use super::super::model::Model;
use super::super::peers::{Peer, PeerSpec, Peers, Terms};
use super::super::report::Outcome;
use super::super::routes::{Prefix, Table, blocks, internet, internet_prefixes, withdraw};
use super::super::{LIMIT, Running, Watch, peer_address, told};
use super::{Check, Figures, Told, beside_weftd, connect, external};
use crate::wait::now;

const ROUNDS: usize = 10;
const CLIENTS: u32 = 100;
/// A window that is always full.
const RECEIVE_BUFFER: usize = 8 * 1024;

pub(super) fn check(fraction: usize) -> Result<Vec<Figures>> {
    let rounds = (ROUNDS / fraction).max(2);
    // As many messages, which are more than anyone's queue takes.
    let count = 100_000 / fraction.min(10);
    let table = internet(&internet_prefixes(count, 41), count, 42, 65_101, &[peer_address(1)]);
    let input = [external(1, table), external(2, Table::default())];
    let part = Part { words: "input of one", specs: &input, receive_buffer: None, rounds };
    let mut figures = vec![beside_weftd(&input, false, |running| part.run(running))?];

    let each = (1000 / u32::try_from(fraction)?).max(10);
    let clients = (1..=CLIENTS).map(|number| {
        let table = blocks((number - 1) * each, each, peer_address(number));
        let own = table.sets.iter().flat_map(|(_, prefixes)| prefixes).copied().collect();
        PeerSpec { asn: ASN, own, ..external(number, table) }
    });
    let clients: Vec<PeerSpec> = clients.collect();
    let part =
        Part { words: "output to a hundred", specs: &clients, receive_buffer: Some(RECEIVE_BUFFER), rounds };
    figures.push(beside_weftd(&clients, false, |running| part.run(running))?);
    Ok(figures)
}

struct Part<'a> {
    words: &'a str,
    specs: &'a [PeerSpec],
    receive_buffer: Option<usize>,
    rounds: usize,
}

impl Part<'_> {
    fn run(&self, mut running: Running) -> Result<Figures> {
        let mut peers = connect(self.specs, Terms { receive_buffer: self.receive_buffer, ..Terms::SILENT })?;
        let all: Vec<usize> = (0..self.specs.len()).collect();
        let models: Vec<Model> = all.iter().map(|number| self.model(*number)).collect();
        let (watch, mut walls) = (Watch::begin(&mut running)?, Vec::new());
        let withdrawals: Vec<Vec<u8>> = self.specs.iter().map(|spec| withdrawals(&spec.table)).collect();
        for round in 0..self.rounds {
            // Nobody has anything.
            peers.forget_updates();
            walls.push(wave(&mut peers, &models, |number| {
                self.specs.get(number).map(|spec| spec.table.updates.clone()).unwrap_or_default()
            })?);
            if round + 1 == self.rounds {
                for (number, model) in models.iter().enumerate() {
                    model
                        .ensure_is(&told(&peers, number)?)
                        .with_context(|| format!("what the peer {number} was told"))?;
                }
            }
            let none: Vec<Model> = all.iter().map(|_| Model::default()).collect();
            walls.push(wave(&mut peers, &none, |number| {
                withdrawals.get(number).cloned().unwrap_or_default()
            })?);
        }
        let took: Duration = walls.iter().sum();
        let outcome: Outcome = watch.end(Some(took))?;
        walls.sort();
        let (median, slowest) = (walls.get(walls.len() / 2), walls.last());
        let note = format!(
            "{} tables came and went; the median took {:.3} s, the slowest {:.3} s",
            self.rounds,
            median.map_or(0.0, Duration::as_secs_f64),
            slowest.map_or(0.0, Duration::as_secs_f64)
        );
        Ok(Figures::new(Check::WakeUps, self.words, &outcome, Told::so_far(&peers, &all)).note(note))
    }

    /// What the peer `number` is to be told.
    fn model(&self, number: usize) -> Model {
        let others = self.specs.iter().enumerate().filter(|(other, _)| *other != number);
        let others: Vec<&PeerSpec> = others.map(|(_, spec)| spec).collect();
        match self.specs.iter().all(|spec| spec.asn == ASN) {
            true => Model::of_clients(others.into_iter(), ADDRESS),
            false => Model::of_best(&others, ASN),
        }
    }
}

/// All say what they have to; until each has been told so many prefixes as its model has.
fn wave(peers: &mut Peers, models: &[Model], messages: impl Fn(usize) -> Vec<u8>) -> Result<Duration> {
    let start = now();
    (0..models.len()).for_each(|number| peers.say(number, &messages(number)));
    let counts: Vec<usize> = models.iter().map(Model::prefixes).collect();
    let are_told = |peers: &Peers| peers.all().iter().map(Peer::has).eq(counts.iter().copied());
    let in_time = peers.run(LIMIT, are_told)?;
    let short = peers.all().iter().zip(&counts).filter(|(peer, count)| peer.has() != **count).count();
    ensure!(in_time, "after {LIMIT:?} of silence {short} peers have not been told all");
    Ok(start.elapsed())
}

fn withdrawals(table: &Table) -> Vec<u8> {
    let prefixes: Vec<Prefix> = table.sets.iter().flat_map(|(_, prefixes)| prefixes).copied().collect();
    let mut updates = Vec::new();
    withdraw(&prefixes, &mut updates);
    updates
}
