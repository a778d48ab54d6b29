//! How soon a path that dies without a word is given up with BFD at 10 ms × 3: ours, other people's, and both together.
//!
//! Two routers on one cable have a BGP session with BFD on it. One is made silent, nothing of it comes or goes any more, and no link loses
//! its carrier. What is measured is the time until the other's kernel has its route no more, netlink and daemon included.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use ipnet::IpNet;
use serde::{Serialize, Serializer};

use super::chart;
use crate::daemon::{Bfd, Family, Neighbor, Router, RouterConfig, Software, router};
use crate::lab::Lab;
use crate::link::{End, Link};
use crate::netns::Namespace;
use crate::node;
use crate::process::SHORT;
use crate::wait::{now, wait_until};

/// Between two packets, in milliseconds, and how many in a row may be missing.
const INTERVAL: u32 = 10;
const MULTIPLIER: u8 = 3;

/// How long a path must stay before it is cut. What ends meanwhile has ended by itself.
const QUIET: Duration = Duration::from_secs(2);

/// How many paths may end by themselves for each pair, beyond one for each that is cut: a busy machine has many.
const FALSE_ALARMS_MAX: usize = 10;

/// How long sessions may take to come up, and a route to go.
const PATIENCE: Duration = Duration::from_secs(60);

/// Who watches, and who falls silent.
const PAIRS: [(Software, Software); 4] = [
    (Software::Weft, Software::Weft),
    (Software::Weft, Software::Frr),
    (Software::Frr, Software::Frr),
    (Software::Bird, Software::Bird),
];

/// Between these the table stands in `benchmarks.md`.
const MARKS: [&str; 2] = ["<!-- bfd -->\n", "<!-- end of bfd -->\n"];

const WATCHER: &str = "10.1.0.0";
const SILENT: &str = "10.1.0.1";

/// The outcome of a run.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    cpus: usize,
    /// The detection time.
    #[serde(rename = "detectionMs", serialize_with = "milliseconds")]
    detection: Duration,
    pairs: Vec<Pair>,
    ratios: Vec<Ratio>,
}

/// What two programs took.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Pair {
    watcher: String,
    /// How the watcher calls its version.
    version: String,
    silent: String,
    samples: usize,
    #[serde(rename = "medianMs", serialize_with = "milliseconds")]
    median: Duration,
    #[serde(rename = "worstMs", serialize_with = "milliseconds")]
    worst: Duration,
    /// How often a path was given up that was not silent.
    false_alarms: usize,
}

/// Our median over another's.
#[derive(Debug, Serialize)]
struct Ratio {
    over: String,
    ratio: f64,
}

fn milliseconds<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((time.as_secs_f64() * 1e6).round() / 1e3)
}

/// Measures each pair so many times, in turn, until done or told to `stop`.
///
/// # Errors
/// If a program is not there or does not do its part, or `stop` became true.
pub fn run(lab: &Lab, samples: usize, stop: &AtomicBool) -> Result<Report> {
    let mut pairs = Vec::new();
    for (watcher, silent) in PAIRS {
        let mut bench = Bench::up(lab, watcher, silent)?;
        let (mut took, mut false_alarms) = (Vec::new(), 0);
        while took.len() < samples {
            ensure!(!stop.load(Ordering::Relaxed), "interrupted");
            match bench.measure()? {
                Some(time) => took.push(time),
                None => false_alarms += 1,
            }
            ensure!(
                false_alarms < samples + FALSE_ALARMS_MAX,
                "{watcher} beside {silent}: paths end that are not silent"
            );
        }
        took.sort();
        let at = |index: usize| took.get(index).copied().context("nothing was measured");
        pairs.push(Pair {
            watcher: watcher.to_string(),
            version: bench.watcher.version()?,
            silent: silent.to_string(),
            samples: took.len(),
            median: at((took.len().saturating_sub(1)) / 2)?,
            worst: at(took.len().saturating_sub(1))?,
            false_alarms,
        });
    }
    Ok(Report::new(pairs))
}

impl Report {
    fn new(pairs: Vec<Pair>) -> Self {
        let alone = |software: Software| {
            let name = software.to_string();
            pairs.iter().find(|pair| (&pair.watcher, &pair.silent) == (&name, &name)).map(|pair| pair.median)
        };
        let ratio = |software: Software| {
            let (ours, theirs) = (alone(Software::Weft)?, alone(software)?);
            Some(Ratio { over: software.to_string(), ratio: ours.as_secs_f64() / theirs.as_secs_f64() })
        };
        let ratios = [Software::Frr, Software::Bird].into_iter().filter_map(ratio).collect();
        Self {
            cpus: thread::available_parallelism().map_or(1, usize::from),
            detection: Duration::from_millis(u64::from(INTERVAL) * u64::from(MULTIPLIER)),
            pairs,
            ratios,
        }
    }

    /// Writes it to a file, for programs.
    ///
    /// # Errors
    /// If that cannot be written.
    pub fn write(&self, file: &Path) -> Result<()> {
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
    }

    /// Writes its table into the `benchmarks.md` of a folder.
    ///
    /// # Errors
    /// If that cannot be written, or has no place for the table.
    pub fn draw(&self, folder: &Path) -> Result<()> {
        chart::put(&folder.join("benchmarks.md"), MARKS, &self.table())
    }

    fn table(&self) -> String {
        let mut text = "| watches | falls silent | samples | median ms | worst ms | false alarms | Weft's median is |\n|---|---|---|---|---|---|---|\n"
            .to_owned();
        for Pair { watcher, version, silent, samples, median, worst, false_alarms } in &self.pairs {
            let (median, worst) = (median.as_secs_f64() * 1e3, worst.as_secs_f64() * 1e3);
            let ratio = self.ratios.iter().find(|ratio| (&ratio.over, watcher) == (watcher, silent));
            let ratio = ratio.map_or_else(String::new, |ratio| format!("{:.2} x", ratio.ratio));
            // Writing to a string does not fail.
            let _ = writeln!(
                text,
                "| {version} | {silent} | {samples} | {median:.1} | {worst:.1} | {false_alarms} | {ratio} |"
            );
        }
        text
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "BFD {INTERVAL} ms × {MULTIPLIER}: milliseconds from a router's silence until the other's kernel has its route no more, on {} CPUs.\n",
            self.cpus
        )?;
        writeln!(
            f,
            "{:<9} {:<9} {:>8} {:>8} {:>8} {:>13}",
            "watches", "silent", "samples", "median", "worst", "false alarms"
        )?;
        for Pair { watcher, silent, samples, median, worst, false_alarms, .. } in &self.pairs {
            let (median, worst) = (median.as_secs_f64() * 1e3, worst.as_secs_f64() * 1e3);
            writeln!(
                f,
                "{watcher:<9} {silent:<9} {samples:>8} {median:>8.1} {worst:>8.1} {false_alarms:>13}"
            )?;
        }
        for Ratio { over, ratio } in &self.ratios {
            write!(f, "\nmedian of weft over {over}'s: {ratio:.2}")?;
        }
        writeln!(f)
    }
}

/// Two routers on one cable.
struct Bench {
    watcher: Box<dyn Router>,
    silent: Box<dyn Router>,
    machine: Namespace,
    /// Given up by the watcher when the other is silent.
    prefix: IpNet,
    deletions: Deletions,
}

impl Bench {
    fn up(lab: &Lab, watcher: Software, silent: Software) -> Result<Self> {
        let names = [format!("{watcher}-watches-{silent}"), format!("{silent}-told-{watcher}")];
        let [near, far] = [lab.machine(&names[0])?, lab.machine(&names[1])?];
        let link = Link::new(End::new(&near, "cable"), End::new(&far, "cable"))?;
        link.near.add_addresses(&[format!("{WATCHER}/31").parse()?])?;
        link.far.add_addresses(&[format!("{SILENT}/31").parse()?])?;
        let prefix = node::block(Family::V4, 99);
        let config = |index: u8, name: &str, [own, other]: [&str; 2]| -> Result<RouterConfig> {
            let asn = |index| 65_000 + u32::from(index);
            let mut config = RouterConfig::new(name, asn(index), [10, 0, 0, index].into());
            (config.hold_time, config.graceful_restart) = (90, false);
            config.addresses = node::loopback(&[Family::V4], index);
            config.originate = BTreeSet::from([node::block(Family::V4, 97 + index)]);
            config.bfd = Some(Bfd { interval: INTERVAL, multiplier: MULTIPLIER, multihop: false });
            config.neighbors.push(Neighbor {
                name: "cable".to_owned(),
                address: other.parse()?,
                asn: asn(3 - index),
                local: own.parse()?,
                families: vec![Family::V4],
            });
            Ok(config)
        };
        let deletions = Deletions::of(&near, prefix)?;
        let mut bench = Self {
            watcher: router(lab, &near, watcher, config(1, &names[0], [WATCHER, SILENT])?)?,
            silent: router(lab, &far, silent, config(2, &names[1], [SILENT, WATCHER])?)?,
            machine: far,
            prefix,
            deletions,
        };
        bench.watcher.start()?;
        bench.silent.start()?;
        Ok(bench)
    }

    fn wait_up(&self, watcher: &Namespace) -> Result<()> {
        wait_until("BGP, BFD and the route", PATIENCE, || {
            ensure!(self.watcher.bfd_up(SILENT.parse()?)?, "{}: BFD is not Up", self.watcher.name());
            ensure!(self.silent.bfd_up(WATCHER.parse()?)?, "{}: BFD is not Up", self.silent.name());
            self.watcher.ensure_established(SILENT.parse()?)?;
            ensure!(!watcher.routes_to(self.prefix)?.is_empty(), "no route to {}", self.prefix);
            Ok(())
        })
    }

    /// How long the route outlives a silence; none: it went before.
    fn measure(&mut self) -> Result<Option<Duration>> {
        self.wait_up(&self.deletions.namespace)?;
        self.deletions.forget();
        // It has its rules to read, and nothing else to do any more, when the time begins.
        let mut nft = Silence::prepare(&self.machine)?;
        if self.deletions.next(QUIET)?.is_some() {
            return Ok(None);
        }
        let start = now();
        nft.begin()?;
        let gone = self.deletions.next(PATIENCE)?.context("the route stays")?;
        self.machine.exec("nft delete table inet silence", SHORT)?.success()?;
        Ok(Some(gone.saturating_duration_since(start)))
    }
}

/// An nft that waits for its rules.
struct Silence(Child);

impl Silence {
    fn prepare(machine: &Namespace) -> Result<Self> {
        let child = machine.command("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn()?;
        Ok(Self(child))
    }

    fn begin(&mut self) -> Result<()> {
        let rules = "table inet silence {\n chain in { type filter hook input priority -300; policy drop; }\n \
                     chain out { type filter hook output priority -300; policy drop; }\n}\n";
        self.0.stdin.take().context("nft has no standard input")?.write_all(rules.as_bytes())?;
        ensure!(self.0.wait()?.success(), "nft failed");
        Ok(())
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        // Without rules it ends and has done nothing.
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// When a route went, as the kernel tells.
struct Deletions {
    namespace: Namespace,
    monitor: Child,
    heard: Receiver<Instant>,
}

impl Deletions {
    fn of(namespace: &Namespace, prefix: IpNet) -> Result<Self> {
        let mut monitor =
            namespace.command("ip").args(["-o", "monitor", "route"]).stdout(Stdio::piped()).spawn()?;
        let lines = BufReader::new(monitor.stdout.take().context("ip monitor says nothing")?).lines();
        let (tell, heard) = channel();
        let deleted = format!("Deleted {prefix} ");
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if line.starts_with(&deleted) && tell.send(now()).is_err() {
                    return;
                }
            }
        });
        Ok(Self { namespace: namespace.clone(), monitor, heard })
    }

    fn forget(&self) {
        while self.heard.try_recv().is_ok() {}
    }

    /// The next within this time.
    fn next(&self, patience: Duration) -> Result<Option<Instant>> {
        match self.heard.recv_timeout(patience) {
            Ok(at) => Ok(Some(at)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => anyhow::bail!("ip monitor has ended"),
        }
    }
}

impl Drop for Deletions {
    fn drop(&mut self) {
        let _ = self.monitor.kill();
        let _ = self.monitor.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_our_median_over_those_of_others() {
        let pair = |software: Software, median| Pair {
            watcher: software.to_string(),
            version: format!("{software} 1.0"),
            silent: software.to_string(),
            samples: 3,
            median: Duration::from_millis(median),
            worst: Duration::from_millis(median + 5),
            false_alarms: 0,
        };
        let report = Report::new(vec![pair(Software::Weft, 27), pair(Software::Frr, 30)]);
        let ratios: Vec<_> = report.ratios.iter().map(|r| (r.over.as_str(), r.ratio)).collect();
        assert_eq!(ratios, [("frr", 0.9)]);
        let text = report.to_string();
        assert!(text.contains("weft      weft             3     27.0     32.0"), "{text}");
        let table: Vec<String> = report.table().lines().skip(2).map(str::to_owned).collect();
        assert_eq!(
            table,
            [
                "| weft 1.0 | weft | 3 | 27.0 | 32.0 | 0 |  |",
                "| frr 1.0 | frr | 3 | 30.0 | 35.0 | 0 | 0.90 x |"
            ]
        );
    }

    #[test]
    fn the_page_of_benchmarks_has_a_place_for_the_table() {
        let page = include_str!("../../../docs/benchmarks.md");
        let places: Vec<_> = MARKS.iter().filter_map(|mark| page.find(mark)).collect();
        assert!(places.len() == 2 && places.is_sorted(), "{places:?}");
    }
}
