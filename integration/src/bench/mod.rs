//! How long a pod's network takes: `weft-cni` beside the reference plugins and beside the kernel's own share.
//!
//! Each contender has a node of its own. They take turns, in changing order, so that what else the machine does meets all alike:
//! ratios within one run say something, absolute times little.

pub mod bfd;
pub mod chart;
pub mod cluster;
pub mod floor;
mod report;
pub mod results;
mod site;
pub mod speakers;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::{SigSet, Signal};

use self::report::{Case, Condition, Measured};
pub use self::report::{Contender, Report, Size};
use self::site::{Action, Pod, Pods, Site};
use crate::wait::now;

/// How many pods are added at once that are there besides.
const FILL_PARALLEL: u32 = 10;
/// How many processes are measured under one condition at most.
const SAMPLES_MAX: u32 = 200;

/// How long a pod lives whose namespace is given up: what an ADD opened in there holds it for a moment beyond its end (RCU).
const LIFE: Duration = Duration::from_millis(50);

/// How much is measured.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Pods, and processes at once.
    pub size: Size,
    /// How long each condition is measured, beyond its first round.
    pub condition: Duration,
    /// How many bursts each contender is given.
    pub bursts: u32,
}

impl Plan {
    /// What the goals are stated for; about three minutes.
    #[must_use]
    pub fn full() -> Self {
        let size = Size { parallel: vec![1, 10, 50], present: 200, burst: 250, burst_parallel: 50 };
        Self { size, condition: Duration::from_secs(6), bursts: 3 }
    }

    /// One round of everything, with few pods: shows that it works, and no times worth reading.
    #[must_use]
    pub fn quick() -> Self {
        let size = Size { parallel: vec![1, 3], present: 4, burst: 6, burst_parallel: 3 };
        Self { size, condition: Duration::ZERO, bursts: 1 }
    }
}

/// Measures according to `plan`, with files in `directory`, until done or told to `stop`.
///
/// # Errors
/// If a contender is not there, namespaces cannot be made, or `stop` became true. A process that fails is no error here: it is
/// counted in the report.
pub fn run(plan: &Plan, directory: &Path, stop: &AtomicBool) -> Result<Report> {
    let mut sites = Vec::new();
    for contender in Contender::ALL {
        let own = site::directory(directory, &contender.to_string())?;
        sites.push((contender, Site::new(contender, &own)?));
    }
    let pods = Pods::new(site::directory(directory, "pods")?);
    let mut bench = Bench { plan, sites: &sites, pods: &pods, stop, round: 0, measured: Measured::default() };
    bench.conditions(0)?;
    bench.bursts()?;
    // One after the other: what the kernel does for an interface takes the longer the more namespaces there are, and a node has
    // but its own pods'.
    for site in &sites {
        let mut alone = Bench { sites: std::slice::from_ref(site), ..bench };
        let present = alone.fill()?;
        alone.conditions(plan.size.present)?;
        drop(present);
        site.1.await_empty()?;
        bench = Bench { sites: &sites, ..alone };
    }
    Ok(Report::new(plan.size.clone(), &bench.measured))
}

/// What a contender does in its turn.
#[derive(Debug, Clone, Copy)]
enum Turn {
    /// Start and end.
    Start,
    /// ADD, then DEL.
    AddDel,
    /// ADD, then the namespaces are given up, then DEL.
    AddAbandonDel,
}

struct Bench<'a> {
    plan: &'a Plan,
    sites: &'a [(Contender, Site)],
    pods: &'a Pods,
    stop: &'a AtomicBool,
    round: usize,
    measured: Measured,
}

impl Bench<'_> {
    /// Everything with so many pods present.
    fn conditions(&mut self, present: u32) -> Result<()> {
        for parallel in &self.plan.size.parallel {
            for turn in [Turn::Start, Turn::AddDel, Turn::AddAbandonDel] {
                self.condition(present, *parallel, turn)?;
            }
        }
        Ok(())
    }

    fn condition(&mut self, present: u32, parallel: u32, turn: Turn) -> Result<()> {
        let pods = self.pods;
        let mut workers = pods.make(0, parallel)?;
        let start = now();
        let mut taken = 0;
        // Where they take turns each has its share of the time.
        let patience = self.plan.condition.mul_f64(self.sites.len() as f64 / Contender::ALL.len() as f64);
        while taken < SAMPLES_MAX && (taken == 0 || start.elapsed() < patience) {
            self.each(|measured, contender, site| {
                let mut record = |case, results| {
                    measured.record(Condition { present, parallel, case }, contender, results);
                };
                match turn {
                    Turn::Start => record(Case::Start, site.act(Action::Start, &workers, parallel)?),
                    Turn::AddDel => {
                        record(Case::Add, site.act(Action::Add, &workers, parallel)?);
                        record(Case::Del, site.act(Action::Del, &workers, parallel)?);
                    }
                    Turn::AddAbandonDel => {
                        let added = site.act(Action::Add, &workers, parallel)?;
                        thread::sleep(LIFE);
                        workers.iter_mut().for_each(Pod::abandon);
                        record(Case::DelGone, site.act(Action::Del, &workers, parallel)?);
                        measured.unmeasured(contender, added);
                        workers = pods.make(0, parallel)?;
                    }
                }
                Ok(())
            })?;
            taken += parallel;
        }
        Ok(())
    }

    fn bursts(&mut self) -> Result<()> {
        let Size { burst, burst_parallel, .. } = self.plan.size;
        let pods = self.pods.make(0, burst)?;
        for _ in 0..self.plan.bursts {
            self.each(|measured, contender, site| {
                let start = now();
                let added = site.act(Action::Add, &pods, burst_parallel)?;
                measured.record_burst(contender, start.elapsed(), added);
                measured.unmeasured(contender, site.act(Action::Del, &pods, burst_parallel)?);
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Gives every node the pods that are present from then on, as long as what is returned lives.
    fn fill(&mut self) -> Result<Vec<Pod>> {
        let (pods, present) = (self.pods, self.plan.size.present);
        // The others that are measured have smaller numbers.
        let mut first = self.plan.size.burst;
        let mut all = Vec::new();
        self.each(|measured, contender, site| {
            let own = pods.make(first, present)?;
            let failed = measured.unmeasured(contender, site.act(Action::Add, &own, FILL_PARALLEL)?);
            ensure!(failed == 0, "{contender} fails to add {failed} of {present} pods");
            first = first.saturating_add(present);
            all.extend(own);
            Ok(())
        })?;
        Ok(all)
    }

    /// Lets every contender have its turn.
    fn each(&mut self, mut turn: impl FnMut(&mut Measured, Contender, &Site) -> Result<()>) -> Result<()> {
        let mut order: Vec<&(Contender, Site)> = self.sites.iter().collect();
        order.rotate_left(self.round % self.sites.len().max(1));
        // Not always after the same one: what the kernel still does for that one would fall to this one.
        if self.round % 2 == 1 {
            order.reverse();
        }
        self.round += 1;
        for (contender, site) in order {
            ensure!(!self.stop.load(Ordering::Relaxed), "interrupted");
            turn(&mut self.measured, *contender, site)?;
        }
        Ok(())
    }
}

/// What becomes true with the first SIGINT, SIGTERM or SIGHUP. What runs then ends its round, and cleans up.
///
/// # Errors
/// If signals cannot be blocked.
pub fn stop_on_signals() -> Result<Arc<AtomicBool>> {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
    // Threads started from here on inherit this; processes do not.
    signals.thread_block()?;
    let stop = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&stop);
    thread::spawn(move || {
        if signals.wait().is_ok() {
            told.store(true, Ordering::Relaxed);
        }
    });
    Ok(stop)
}
